// Rows of bars: one row is remembered, and by how much its time has grown.

import { eventOf, integer, relate, restoredInteger, xor } from "./columns.js";
import { Place } from "./grid.js";
import { Keyed, Timed } from "./remembered.js";
import { I32_MAX, I32_MIN, U8 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { GridName } from "./grid.js"
 */

class BarRow extends Timed {
  family = /** @type {const} */ ("bars");
  growth = 0n;
  count = 0;
  open = new Place();
  high = new Place();
  low = new Place();
  close = new Place();
  volume = new Place();
  wap = new Place();
}

/**
 * The family `bars`.
 *
 * @extends {Keyed<BarRow>}
 */
export class Bars extends Keyed {
  /**
   * @override
   * @type {Record<GridName, string[]>}
   */
  on = { price: ["open", "high", "low", "close"], size: ["volume"], tradeSize: [] };

  /** @override */
  create() {
    return new BarRow();
  }

  /** @override */
  key() {
    return this.at(0);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {BarRow} row
   */
  change(bits, channel, row) {
    const news = bits.bits(9);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.count = integer(bits, channel, row.count, I32_MIN, I32_MAX);
    if (news & 4) {
      const before = row.event_ns;
      row.setEvent(eventOf(bits, channel, before));
      row.growth = BigInt.asIntN(64, row.event_ns - before);
    } else {
      row.setEvent(BigInt.asIntN(64, row.event_ns + row.growth));
    }
    if (news & 8) relate(bits, channel, row.open, row.close);
    if (news & 16) relate(bits, channel, row.high, row.open);
    if (news & 32) relate(bits, channel, row.low, row.open);
    if (news & 64) relate(bits, channel, row.close, row.open);
    if (news & 128) channel.size.change(bits, row.volume, channel.k[3], false);
    if (news & 256) xor(bits, row.wap);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {BarRow} row
   */
  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.count = restoredInteger(bits, I32_MIN, I32_MAX);
    row.setEvent(bits.i64());
    row.growth = bits.i64();
    for (const place of [row.open, row.high, row.low, row.close]) channel.price.restore(bits, place);
    channel.size.restore(bits, row.volume);
    bits.double(row.wap);
  }
}
