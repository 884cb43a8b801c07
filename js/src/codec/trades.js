// Rows of trades: prices by the quotes of the same channel, if it has them.

import { within } from "./bits.js";
import { forgetPlaces, Place } from "./grid.js";
import { extend, Top } from "./remembered.js";
import { U32 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { GridName } from "./grid.js"
 */

/** The family `trades`; it is the last trade itself. */
export class Trades extends Top {
  family = /** @type {const} */ ("trades");
  exchange = 0;
  conditions = 0;
  price = new Place();
  size = new Place();

  /**
   * Read a row of a piece.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  read(bits, channel) {
    while (bits.bit() === 1) extend(bits, channel, this);
    const { quotes } = channel;
    const { price } = this;
    if (bits.bit() === 1) {
      if (quotes === null) channel.price.change(bits, price, channel.k[5], false);
      else if (bits.bit() === 0) price.take(channel.side === 1 ? quotes.bid : quotes.ask);
      // biome-ignore lint/suspicious/noDuplicateElseIf: each call reads another bit
      else if (bits.bit() === 0) price.take(channel.side === 1 ? quotes.ask : quotes.bid);
      else channel.price.change(bits, price, channel.k[5], false);
    }
    if (bits.bit() === 1) channel.tradeSize.change(bits, this.size, channel.k[6], true);
    if (quotes !== null) {
      if (price.isSame(quotes.ask)) channel.side = 1;
      else if (price.isSame(quotes.bid)) channel.side = 0;
    }
    this.hasRow = true;
    return this;
  }

  /**
   * @override
   * @param {Bits} bits
   * @param {Channel} channel
   */
  restoreRow(bits, channel) {
    this.exchange = within(bits.eg(3), 0, U32, "exchange");
    this.conditions = within(bits.eg(3), 0, U32, "conditions");
    channel.price.restore(bits, this.price);
    channel.tradeSize.restore(bits, this.size);
  }

  /** @param {GridName} grid whose step or decimals have changed */
  forget(grid) {
    if (grid === "price") forgetPlaces([this.price]);
    else if (grid === "tradeSize") forgetPlaces([this.size]);
  }
}
