// What a channel remembers of a family: the last row, or the last row of each key; and the EXTs before a row.

import { fail } from "../errors.js";
import { unzigzag, within } from "./bits.js";
import { eventOf, toMicroseconds } from "./columns.js";
import { forgetPlaces } from "./grid.js";
import { I32_MAX, I32_MIN, U32, U8 } from "./spec.js";

/** Read an EXT of quotes or trades. */
export function extend(bits, channel, meta) {
  const what = bits.bits(4);
  if (what === 0) channel.learn(bits);
  else if (what === 1) meta.kind = within(bits.eg(3), 0, U8, "kind");
  else if (what === 2) meta.attribs = within(bits.eg(3), 0, U32, "attribs");
  else if (what === 3) meta.setEvent(eventOf(bits, channel, meta.event_ns));
  else if (what === 4 && meta.exchange !== undefined) meta.exchange = within(bits.eg(3), 0, U32, "exchange");
  else if (what === 6) channel.regrid(bits);
  else if (what === 5 && meta.conditions !== undefined) meta.conditions = within(bits.eg(3), 0, U32, "conditions");
  else fail("an extension that does not exist");
}

/** Read the EXTs before a row of the other families. */
function extendKeyed(bits, channel) {
  while (bits.bit() === 1) {
    const what = bits.bits(4);
    if (what === 0) channel.learn(bits);
    else if (what === 6) channel.regrid(bits);
    else fail("an extension that does not exist");
  }
}

/** What every remembered row has. Times of rows are in µs; in ns too, where they are wanted so. */
export class Remembered {
  seq = 0;
  recv_us = 0;
  recv_ns = 0n;
  kind = 0;
  attribs = 0;

  arrive(channel) {
    this.recv_us = channel.recv_us;
    if (channel.isBigint) this.recv_ns = channel.recvNs();
    this.seq = channel.rowSeq;
  }

  restoreTime(bits) {
    this.recv_ns = bits.i64();
    this.recv_us = toMicroseconds(this.recv_ns);
  }
}

export class Timed extends Remembered {
  event_ns = 0n;
  event_us = 0;

  setEvent(ns) {
    this.event_ns = ns;
    this.event_us = toMicroseconds(ns);
  }
}

/** A family of which the last row is remembered. */
export class Top extends Timed {
  hasRow = false;

  restore(bits, channel) {
    if (bits.bit() === 0) return;
    this.hasRow = true;
    this.restoreTime(bits);
    this.kind = bits.bits(8);
    this.attribs = within(bits.eg(3), 0, U32, "attribs");
    this.setEvent(bits.i64());
    this.restoreRow(bits, channel);
  }

  records() {
    return this.hasRow ? [this] : [];
  }
}

export const MOST_REMEMBERED = 256;

export function restoredCount(bits) {
  return within(bits.eg(3), 0, MOST_REMEMBERED, "the number of a state's rows");
}

/** A family whose last row of each key is remembered. */
export class Keyed {
  rows = new Map();
  /** Columns by grid. */
  on = { price: ["price"], size: ["size"], tradeSize: [] };

  /** Return the remembered row of a key. */
  at(slot) {
    let row = this.rows.get(slot);
    if (row === undefined) {
      row = this.create();
      this.rows.set(slot, row);
    }
    return row;
  }

  read(bits, channel) {
    extendKeyed(bits, channel);
    const row = this.key(bits);
    this.change(bits, channel, row);
    return row;
  }

  restore(bits, channel) {
    for (let left = restoredCount(bits); left > 0; left--) {
      const row = this.key(bits);
      row.restoreTime(bits);
      this.restoreRow(bits, channel, row);
    }
  }

  forget(grid) {
    for (const row of this.rows.values()) forgetPlaces(this.on[grid].map((name) => row[name]));
  }

  records() {
    return [...this.rows].sort(([one], [other]) => one - other).map(([, row]) => row);
  }
}

const OTHER_TICK_TYPES = 254;

export function tickTypeKey(family, bits) {
  const tickType = within(unzigzag(bits.eg(3)), I32_MIN, I32_MAX, "tick_type");
  const row = family.at(tickType < -1 || tickType > 253 ? OTHER_TICK_TYPES : tickType);
  row.tick_type = tickType;
  return row;
}
