// Rows of quotes.

import { fail } from "../errors.js";
import { forgetPlaces, Place } from "./grid.js";
import { extend, Top } from "./remembered.js";

const WITH_BID = 2;
const BACK = 2;
const NOT_A_SHAPE = 3;

export class Quotes extends Top {
  family = "quotes";
  bid = new Place();
  ask = new Place();
  bid_size = new Place();
  ask_size = new Place();
  #bidBefore = new Place();
  #askBefore = new Place();
  #old = new Place();

  read(bits, channel) {
    let bid = 0;
    let ask = 0;
    let bidSize = 0;
    let askSize = 0;
    for (;;) {
      if (bits.bit() === 0) {
        if (bits.bit() === 0) bidSize = 1;
        else askSize = 1;
      } else if (bits.bit() === 0) {
        if (bits.bit() === 0) bidSize = BACK;
        else askSize = BACK;
      } else if (bits.bit() === 0) {
        bidSize = askSize = 1;
        if (bits.bit() === 0) [bid, ask] = [1, WITH_BID];
      } else if (bits.bit() === 0) {
        if (bits.bit() === 0) bid = bidSize = 1;
        else ask = askSize = 1;
      } else if (bits.bit() === 0) {
        bid = bits.bit();
        ask = bits.bits(2);
        bidSize = bits.bits(2);
        askSize = bits.bits(2);
        if (ask === NOT_A_SHAPE || bidSize === NOT_A_SHAPE || askSize === NOT_A_SHAPE)
          fail("a shape that does not exist");
      } else {
        extend(bits, channel, this);
        continue;
      }
      break;
    }
    const { price, k } = channel;
    const bidN = this.bid.n;
    if (bid === 1) price.change(bits, this.bid, k[2], false);
    if (ask === 1) price.change(bits, this.ask, k[2], false);
    else if (ask === WITH_BID) price.put(this.ask, this.ask.n + this.bid.n - bidN);
    if (bidSize !== 0) this.#changeSize(bits, channel, this.bid_size, this.#bidBefore, bidSize, bid !== 0);
    if (askSize !== 0) this.#changeSize(bits, channel, this.ask_size, this.#askBefore, askSize, ask !== 0);
    this.hasRow = true;
    return this;
  }

  restoreRow(bits, channel) {
    channel.price.restore(bits, this.bid);
    channel.price.restore(bits, this.ask);
    for (const place of [this.bid_size, this.ask_size, this.#bidBefore, this.#askBefore])
      channel.size.restore(bits, place);
  }

  forget(grid) {
    if (grid === "price") forgetPlaces([this.bid, this.ask]);
    else if (grid === "size") forgetPlaces([this.bid_size, this.ask_size, this.#bidBefore, this.#askBefore]);
  }

  #changeSize(bits, channel, place, before, how, isPriceNew) {
    const old = this.#old;
    old.take(place);
    if (how === BACK) place.take(before);
    else channel.size.change(bits, place, channel.k[isPriceNew ? 4 : 3], isPriceNew);
    before.take(old);
  }
}
