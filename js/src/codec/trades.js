// Rows of trades.

import { within } from "./bits.js";
import { forgetPlaces, Place } from "./grid.js";
import { extend, Top } from "./remembered.js";
import { U32 } from "./spec.js";

export class Trades extends Top {
  family = "trades";
  exchange = 0;
  conditions = 0;
  price = new Place();
  size = new Place();

  read(bits, channel) {
    while (bits.bit() === 1) extend(bits, channel, this);
    const { quotes } = channel;
    const { price } = this;
    if (bits.bit() === 1) {
      if (quotes === null) channel.price.change(bits, price, channel.k[5], false);
      else if (bits.bit() === 0) price.take(channel.side === 1 ? quotes.bid : quotes.ask);
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

  restoreRow(bits, channel) {
    this.exchange = within(bits.eg(3), 0, U32, "exchange");
    this.conditions = within(bits.eg(3), 0, U32, "conditions");
    channel.price.restore(bits, this.price);
    channel.tradeSize.restore(bits, this.size);
  }

  forget(grid) {
    if (grid === "price") forgetPlaces([this.price]);
    else if (grid === "tradeSize") forgetPlaces([this.size]);
  }
}
