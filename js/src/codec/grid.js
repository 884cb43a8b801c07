// Doubles to the bit, and the grid on which most of a channel's numbers lie.

import { fail } from "../errors.js";
import { scratch, unzigzag, within } from "./bits.js";

/** @import { Bits } from "./bits.js" */

// Literals, since the language does not promise that 10 ** d is correctly rounded. All are exact doubles.
const POWERS_OF_TEN = [
  1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
  1e21, 1e22,
];

const EXACT = 2 ** 51;
const NAN_BITS = 0x7ff8000000000000n;

/** A double to the bit, and its last place on a grid. `nan` has the bits of a NaN, which a Number does not keep. */
export class Place {
  x = NaN;
  n = 0;
  nan = NAN_BITS;

  /** @param {Place} other */
  take(other) {
    this.x = other.x;
    this.n = other.n;
    this.nan = other.nan;
  }

  takeScratch() {
    this.x = scratch.getFloat64(0, true);
    if (Number.isNaN(this.x)) this.nan = scratch.getBigUint64(0, true);
  }

  toScratch() {
    if (Number.isNaN(this.x)) scratch.setBigUint64(0, this.nan, true);
    else scratch.setFloat64(0, this.x, true);
  }

  /**
   * Return whether both are the same double, by their bits.
   *
   * @param {Place} other
   */
  isSame(other) {
    if (Number.isNaN(this.x)) return Number.isNaN(other.x) && this.nan === other.nan;
    return Object.is(this.x, other.x);
  }

  copy() {
    const copy = new Place();
    copy.take(this);
    return copy;
  }
}

/** Where most of a channel's numbers lie: value = n·step / 10^decimals. */
export class Grid {
  /** @param {Bits} bits */
  constructor(bits) {
    this.step = within(bits.bits(16), 1, 65535, "a grid's step");
    this.decimals = within(bits.bits(4), 0, 14, "a grid's decimals");
    this.divisor = POWERS_OF_TEN[this.decimals];
  }

  /**
   * Put the number at n into a place.
   *
   * @param {Place} place
   * @param {number} n
   */
  put(place, n) {
    const product = n * this.step;
    if (!(product < EXACT && product > -EXACT)) fail("a number is beyond its grid");
    place.n = n;
    place.x = product / this.divisor;
  }

  /**
   * Read a changed number.
   *
   * @param {Bits} bits
   * @param {Place} place
   * @param {number} k
   * @param {boolean} isFresh whether n itself is coded, and not its step
   */
  change(bits, place, k, isFresh) {
    const v = bits.eg(k);
    if (v === 0) this.#escape(bits, place);
    else this.put(place, isFresh ? v : place.n + unzigzag(v));
  }

  /**
   * Read a number of a state.
   *
   * @param {Bits} bits
   * @param {Place} place
   */
  restore(bits, place) {
    if (bits.bit() === 1) {
      this.put(place, unzigzag(bits.eg(12)));
    } else {
      bits.double(place);
      const { x } = place;
      this.put(place, unzigzag(bits.eg(12)));
      place.x = x;
    }
  }

  /**
   * @param {Bits} bits
   * @param {Place} place
   */
  #escape(bits, place) {
    const how = bits.bits(2);
    if (how === 0) {
      place.x = NaN;
      place.nan = NAN_BITS;
    } else if (how === 1) {
      bits.double(place);
    } else if (how === 2) {
      const e = bits.bits(3) + 1;
      const near = place.n * this.step * POWERS_OF_TEN[e];
      const m = near + unzigzag(bits.eg(6));
      if (!(Math.abs(near) < EXACT && Math.abs(m) < EXACT)) fail("a number is beyond its grid");
      place.x = m / POWERS_OF_TEN[this.decimals + e];
    } else {
      this.put(place, unzigzag(bits.eg(12)));
    }
  }
}

/** The grids of a channel, in the order of the protocol. */
export const GRIDS = /** @type {const} */ (["price", "size", "tradeSize"]);

/** @typedef {(typeof GRIDS)[number]} GridName */

/**
 * Forget where numbers lie, as their grid has changed. The numbers themselves stay.
 *
 * @param {Place[]} places
 */
export function forgetPlaces(places) {
  for (const place of places) place.n = 0;
}
