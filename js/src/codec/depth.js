// Rows of depth: operations on the book.

import { integer, restoredInteger } from "./columns.js";
import { DELETE, DepthRow, OrderBook, UPDATE } from "./order_book.js";
import { Keyed } from "./remembered.js";
import { I32_MAX, I32_MIN, U8, U32 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { GridName } from "./grid.js"
 */

/**
 * The family `depth`.
 *
 * @extends {Keyed<DepthRow>}
 */
export class Depth extends Keyed {
  #book = new OrderBook();

  /** @override */
  create() {
    return new DepthRow();
  }

  /**
   * @override
   * @param {Bits} bits
   */
  key(bits) {
    const side = shortOrByte(bits);
    const operation = shortOrByte(bits);
    const row = this.at(Math.min(side, 2) * 2 + (operation === DELETE ? 1 : 0));
    row.side = side;
    row.operation = operation;
    return row;
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {DepthRow} row
   */
  change(bits, channel, row) {
    const news = bits.bits(6);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, 0, U8);
    if (news & 4) row.position = integer(bits, channel, row.position, I32_MIN, I32_MAX);
    const level = row.operation === UPDATE ? this.#book.level(row.side, row.position) : undefined;
    if (level !== undefined) row.takeLevel(level);
    if (news & 8) channel.price.change(bits, row.price, channel.k[2], false);
    if (news & 16) channel.size.change(bits, row.size, channel.k[3], false);
    if (news & 32) row.market_maker = integer(bits, channel, row.market_maker, 0, U32);
    this.#book.apply(row, channel);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {DepthRow} row
   */
  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, 0, U8);
    row.position = restoredInteger(bits, I32_MIN, I32_MAX);
    channel.price.restore(bits, row.price);
    channel.size.restore(bits, row.size);
    row.market_maker = restoredInteger(bits, 0, U32);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   */
  restore(bits, channel) {
    super.restore(bits, channel);
    this.#book.restore(bits, channel);
  }

  /**
   * @override
   * @param {GridName} grid
   */
  forget(grid) {
    super.forget(grid);
    this.#book.forget(this.on[grid]);
  }

  /**
   * Return the book as inserts: these are the current rows of depth.
   *
   * @override
   */
  records() {
    return this.#book.records();
  }
}

/** @param {Bits} bits */
function shortOrByte(bits) {
  const value = bits.bits(2);
  return value === 3 ? bits.bits(8) : value;
}
