// Rows of greeks: the last one of each tick_type is remembered.

import { integer, restoredInteger, xor } from "./columns.js";
import { Place } from "./grid.js";
import { Keyed, Remembered, tickTypeKey } from "./remembered.js";
import { I32_MAX, I32_MIN, U8 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { GridName } from "./grid.js"
 */

export const GREEKS = /** @type {const} */ ([
  "implied_vol",
  "delta",
  "option_price",
  "pv_dividend",
  "gamma",
  "vega",
  "theta",
  "und_price",
]);

class GreeksRow extends Remembered {
  family = /** @type {const} */ ("greeks");
  tick_type = -1;
  implied_vol = new Place();
  delta = new Place();
  option_price = new Place();
  pv_dividend = new Place();
  gamma = new Place();
  vega = new Place();
  theta = new Place();
  und_price = new Place();
}

/**
 * The family `greeks`.
 *
 * @extends {Keyed<GreeksRow>}
 */
export class Greeks extends Keyed {
  /**
   * @override
   * @type {Record<GridName, string[]>}
   */
  on = { price: [], size: [], tradeSize: [] };

  /** @override */
  create() {
    return new GreeksRow();
  }

  /**
   * @override
   * @param {Bits} bits
   * @returns {GreeksRow}
   */
  key(bits) {
    return tickTypeKey(this, bits);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   * @param {GreeksRow} row
   */
  change(bits, channel, row) {
    const news = bits.bits(10);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, I32_MIN, I32_MAX);
    for (let i = 0; i < GREEKS.length; i++) if (news & (4 << i)) xor(bits, row[GREEKS[i]]);
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} _channel
   * @param {GreeksRow} row
   */
  restoreRow(bits, _channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, I32_MIN, I32_MAX);
    for (const name of GREEKS) bits.double(row[name]);
  }
}
