// Rows of ticks.

import { integer, restoredInteger } from "./columns.js";
import { Place } from "./grid.js";
import { Keyed, Remembered, tickTypeKey } from "./remembered.js";
import { U32, U8 } from "./spec.js";

class TickRow extends Remembered {
  family = "ticks";
  tick_type = -1;
  text = 0;
  price = new Place();
  size = new Place();
}

export class Ticks extends Keyed {
  create() {
    return new TickRow();
  }

  key(bits) {
    return tickTypeKey(this, bits);
  }

  change(bits, channel, row) {
    const news = bits.bits(5);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, 0, U32);
    if (news & 4) channel.price.change(bits, row.price, channel.k[2], false);
    if (news & 8) channel.size.change(bits, row.size, channel.k[3], false);
    if (news & 16) row.text = integer(bits, channel, row.text, 0, U32);
  }

  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, 0, U32);
    channel.price.restore(bits, row.price);
    channel.size.restore(bits, row.size);
    row.text = restoredInteger(bits, 0, U32);
  }
}
