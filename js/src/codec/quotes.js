// Rows of quotes: a shape says what changes, then come the numbers.

import { fail } from "../errors.js";
import { forgetPlaces, Place } from "./grid.js";
import { extend, Top } from "./remembered.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { GridName } from "./grid.js"
 */

// A shape as the seven bits of the protocol: bid 1 bit, then ask, bid_size and ask_size, two bits each.
const BID = 1;
const ASK = 1 << 1;
const BID_SIZE = 1 << 3;
const ASK_SIZE = 1 << 5;
// What two bits say of a column. 0: it stays.
const NEW = 1;
const WITH_BID = 2;
const BACK = 2;
const NOT_A_SHAPE = 3;

/** The family `quotes`; it is the last quote itself. */
export class Quotes extends Top {
  family = /** @type {const} */ ("quotes");
  bid = new Place();
  ask = new Place();
  bid_size = new Place();
  ask_size = new Place();
  #bidBefore = new Place();
  #askBefore = new Place();
  #old = new Place();

  /**
   * Read a row of a piece.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  read(bits, channel) {
    const shape = this.#shape(bits, channel);
    const isBidNew = (shape & BID) !== 0;
    const ask = (shape >>> 1) & 3;
    const bidSize = (shape >>> 3) & 3;
    const askSize = (shape >>> 5) & 3;
    const { price, k } = channel;
    const bidN = this.bid.n;
    if (isBidNew) price.change(bits, this.bid, k[2], false);
    if (ask === NEW) price.change(bits, this.ask, k[2], false);
    else if (ask === WITH_BID) price.put(this.ask, this.ask.n + this.bid.n - bidN);
    if (bidSize !== 0) this.#changeSize(bits, channel, this.bid_size, this.#bidBefore, bidSize, isBidNew);
    if (askSize !== 0) this.#changeSize(bits, channel, this.ask_size, this.#askBefore, askSize, ask !== 0);
    this.hasRow = true;
    return this;
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   */
  restoreRow(bits, channel) {
    channel.price.restore(bits, this.bid);
    channel.price.restore(bits, this.ask);
    for (const place of [this.bid_size, this.ask_size, this.#bidBefore, this.#askBefore])
      channel.size.restore(bits, place);
  }

  /** @param {GridName} grid whose step or decimals have changed */
  forget(grid) {
    if (grid === "price") forgetPlaces([this.bid, this.ask]);
    else if (grid === "size") forgetPlaces([this.bid_size, this.ask_size, this.#bidBefore, this.#askBefore]);
  }

  /**
   * Read a shape and the EXTs before it.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  #shape(bits, channel) {
    for (;;) {
      if (bits.bit() === 0) return bits.bit() === 0 ? NEW * BID_SIZE : NEW * ASK_SIZE;
      if (bits.bit() === 0) return bits.bit() === 0 ? BACK * BID_SIZE : BACK * ASK_SIZE;
      if (bits.bit() === 0) return NEW * BID_SIZE + NEW * ASK_SIZE + (bits.bit() === 0 ? BID + WITH_BID * ASK : 0);
      if (bits.bit() === 0) return bits.bit() === 0 ? BID + NEW * BID_SIZE : NEW * ASK + NEW * ASK_SIZE;
      if (bits.bit() === 0) return checkedShape(bits.bits(7));
      extend(bits, channel, this);
    }
  }

  /**
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {Place} place
   * @param {Place} before what the size was before its last change
   * @param {number} how NEW or BACK
   * @param {boolean} isPriceNew
   */
  #changeSize(bits, channel, place, before, how, isPriceNew) {
    const old = this.#old;
    old.take(place);
    if (how === BACK) place.take(before);
    else channel.size.change(bits, place, channel.k[isPriceNew ? 4 : 3], isPriceNew);
    before.take(old);
  }
}

/** @param {number} shape */
function checkedShape(shape) {
  for (let columns = shape >>> 1; columns !== 0; columns >>>= 2)
    if ((columns & 3) === NOT_A_SHAPE) fail("a shape that does not exist");
  return shape;
}
