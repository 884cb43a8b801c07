// Rows of ticks: the last one of each tick_type is remembered.

import { integer, restoredInteger } from "./columns.js";
import { Place } from "./grid.js";
import { Keyed, Remembered, tickTypeKey } from "./remembered.js";
import { U8, U32 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 */

class TickRow extends Remembered {
  family = /** @type {const} */ ("ticks");
  tick_type = -1;
  text = 0;
  price = new Place();
  size = new Place();
}

/**
 * The family `ticks`.
 *
 * @extends {Keyed<TickRow>}
 */
export class Ticks extends Keyed {
  /** @override */
  create() {
    return new TickRow();
  }

  /**
   * @override
   * @param {Bits} bits
   * @returns {TickRow}
   */
  key(bits) {
    return tickTypeKey(this, bits);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {TickRow} row
   */
  change(bits, channel, row) {
    const news = bits.bits(5);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, 0, U32);
    if (news & 4) channel.price.change(bits, row.price, channel.k[2], false);
    if (news & 8) channel.size.change(bits, row.size, channel.k[3], false);
    if (news & 16) row.text = integer(bits, channel, row.text, 0, U32);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {TickRow} row
   */
  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, 0, U32);
    channel.price.restore(bits, row.price);
    channel.size.restore(bits, row.size);
    row.text = restoredInteger(bits, 0, U32);
  }
}
