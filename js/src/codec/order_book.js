// The book of a channel with depth: both sides, at most 256 levels each, changed by every row.

import { within } from "./bits.js";
import { forgetPlaces, Place } from "./grid.js";
import { MOST_REMEMBERED, placesOf, Remembered, restoredCount } from "./remembered.js";
import { Kind, U32 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @typedef {{ price: Place, size: Place, market_maker: number }} Level
 */

const INSERT = 0;
export const UPDATE = 1;
export const DELETE = 2;

/** An operation on the book. */
export class DepthRow extends Remembered {
  family = /** @type {const} */ ("depth");
  operation = 255;
  side = 255;
  position = 0;
  market_maker = 0;
  price = new Place();
  size = new Place();

  /** @param {Level} level */
  takeLevel(level) {
    this.price.take(level.price);
    this.size.take(level.size);
    this.market_maker = level.market_maker;
  }

  /**
   * Return a level that the row's later changes leave alone.
   *
   * @returns {Level}
   */
  level() {
    return { price: this.price.copy(), size: this.size.copy(), market_maker: this.market_maker };
  }
}

/** The levels of both sides, and kind, attribs and time of the last row that was no reset. */
export class OrderBook {
  /**
   * Asks, bids.
   *
   * @type {Level[][]}
   */
  #sides = [[], []];
  #last = new DepthRow();

  /**
   * Return a level, undefined where there is none.
   *
   * @param {number} side
   * @param {number} position
   * @returns {Level | undefined}
   */
  level(side, position) {
    return this.#sides[side]?.[position];
  }

  /**
   * Change the book by a row.
   *
   * @param {DepthRow} row
   * @param {Channel} channel
   */
  apply(row, channel) {
    if (row.kind === Kind.DEPTH_RESET) {
      this.#sides = [[], []];
      return;
    }
    this.#last.kind = row.kind;
    this.#last.attribs = row.attribs;
    this.#last.arrive(channel);
    const levels = this.#sides[row.side];
    const { position } = row;
    if (levels === undefined || position < 0) return;
    if (row.operation === INSERT && position <= levels.length) {
      levels.splice(position, 0, row.level());
      if (levels.length > MOST_REMEMBERED) levels.pop();
    } else if (row.operation === UPDATE && position <= levels.length && position < MOST_REMEMBERED) {
      levels[position] = row.level();
    } else if (row.operation === DELETE && position < levels.length) {
      levels.splice(position, 1);
    }
  }

  /**
   * Read the book's part of a state.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  restore(bits, channel) {
    this.#last.kind = bits.bits(8);
    this.#last.attribs = bits.bits(8);
    this.#last.restoreTime(bits);
    for (const levels of this.#sides) {
      for (let left = restoredCount(bits); left > 0; left--) {
        const row = new DepthRow();
        channel.price.restore(bits, row.price);
        channel.size.restore(bits, row.size);
        row.market_maker = within(bits.eg(3), 0, U32, "market_maker");
        levels.push(row.level());
      }
    }
  }

  /** @param {string[]} names columns whose grid has changed */
  forget(names) {
    for (const level of this.#sides.flat()) forgetPlaces(placesOf(level, names));
  }

  /** Return the book as inserts, the best levels first. */
  records() {
    return this.#sides.flatMap((levels, side) =>
      levels.map((level, position) => {
        const row = Object.assign(new DepthRow(), { operation: INSERT, side, position });
        row.takeLevel(level);
        row.kind = this.#last.kind;
        row.attribs = this.#last.attribs;
        row.recv_us = this.#last.recv_us;
        row.recv_ns = this.#last.recv_ns;
        return row;
      }),
    );
  }
}
