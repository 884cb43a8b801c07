// What a channel remembers of a family: the last row (Top), or the last row of each key (Keyed). Besides, the EXTs
// that may stand before a row.

import { fail } from "../errors.js";
import { unzigzag, within } from "./bits.js";
import { eventOf, toMicroseconds } from "./columns.js";
import { forgetPlaces } from "./grid.js";
import { I32_MAX, I32_MIN, U8, U32 } from "./spec.js";

/**
 * @import { Bits } from "./bits.js"
 * @import { Channel } from "./channel.js"
 * @import { GridName } from "./grid.js"
 */

/**
 * Read an EXT of quotes or trades.
 *
 * @param {Bits} bits
 * @param {Channel} channel
 * @param {Timed & { exchange?: number, conditions?: number }} row
 */
export function extend(bits, channel, row) {
  const what = bits.bits(4);
  if (what === 0) channel.learn(bits);
  else if (what === 1) row.kind = within(bits.eg(3), 0, U8, "kind");
  else if (what === 2) row.attribs = within(bits.eg(3), 0, U32, "attribs");
  else if (what === 3) row.setEvent(eventOf(bits, channel, row.event_ns));
  else if (what === 4 && row.exchange !== undefined) row.exchange = within(bits.eg(3), 0, U32, "exchange");
  else if (what === 6) channel.regrid(bits);
  else if (what === 5 && row.conditions !== undefined) row.conditions = within(bits.eg(3), 0, U32, "conditions");
  else fail("an extension that does not exist");
}

/**
 * Read the EXTs before a row of a Keyed family.
 *
 * @param {Bits} bits
 * @param {Channel} channel
 */
function extendKeyed(bits, channel) {
  while (bits.bit() === 1) {
    const what = bits.bits(4);
    if (what === 0) channel.learn(bits);
    else if (what === 6) channel.regrid(bits);
    else fail("an extension that does not exist");
  }
}

/** What every remembered row has. Its time in nanoseconds is kept only where the channel's user wants it. */
export class Remembered {
  seq = 0;
  recv_us = 0;
  recv_ns = 0n;
  kind = 0;
  attribs = 0;

  /**
   * Note seq and time of the row that has been read.
   *
   * @param {Channel} channel
   */
  arrive(channel) {
    this.recv_us = channel.recv_us;
    if (channel.isBigint) this.recv_ns = channel.recvNs();
    this.seq = channel.rowSeq;
  }

  /** @param {Bits} bits */
  restoreTime(bits) {
    this.recv_ns = bits.i64();
    this.recv_us = toMicroseconds(this.recv_ns);
  }
}

/** A remembered row with an event_ns. */
export class Timed extends Remembered {
  event_ns = 0n;
  event_us = 0;

  /** @param {bigint} ns */
  setEvent(ns) {
    this.event_ns = ns;
    this.event_us = toMicroseconds(ns);
  }
}

/** A family of which the last row is remembered. It is that row itself. */
export class Top extends Timed {
  hasRow = false;

  /**
   * Read the family's part of a state.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  restore(bits, channel) {
    if (bits.bit() === 0) return;
    this.hasRow = true;
    this.restoreTime(bits);
    this.kind = bits.bits(8);
    this.attribs = within(bits.eg(3), 0, U32, "attribs");
    this.setEvent(bits.i64());
    this.restoreRow(bits, channel);
  }

  /**
   * Read the columns that only this family has.
   *
   * @abstract
   * @param {Bits} _bits
   * @param {Channel} _channel
   */
  restoreRow(_bits, _channel) {}

  /** Return the current rows. */
  records() {
    return this.hasRow ? [this] : [];
  }
}

export const MOST_REMEMBERED = 256;

/** @param {Bits} bits */
export function restoredCount(bits) {
  return within(bits.eg(3), 0, MOST_REMEMBERED, "the number of a state's rows");
}

/**
 * A family whose last row of each key is remembered.
 *
 * @abstract
 * @template {Remembered} Row
 */
export class Keyed {
  /** @type {Map<number, Row>} */
  rows = new Map();
  /**
   * Names of columns by grid.
   *
   * @type {Record<GridName, string[]>}
   */
  on = { price: ["price"], size: ["size"], tradeSize: [] };

  /**
   * Return the remembered row of a key.
   *
   * @param {number} key
   */
  at(key) {
    let row = this.rows.get(key);
    if (row === undefined) {
      row = this.create();
      this.rows.set(key, row);
    }
    return row;
  }

  /**
   * Read a row of a piece.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  read(bits, channel) {
    extendKeyed(bits, channel);
    const row = this.key(bits);
    this.change(bits, channel, row);
    return row;
  }

  /**
   * Read the family's part of a state.
   *
   * @param {Bits} bits
   * @param {Channel} channel
   */
  restore(bits, channel) {
    for (let left = restoredCount(bits); left > 0; left--) {
      const row = this.key(bits);
      row.restoreTime(bits);
      this.restoreRow(bits, channel, row);
    }
  }

  /** @param {GridName} grid whose step or decimals have changed */
  forget(grid) {
    for (const row of this.rows.values()) forgetPlaces(placesOf(row, this.on[grid]));
  }

  /** Return the current rows, by key. */
  records() {
    return [...this.rows].sort(([one], [other]) => one - other).map(([, row]) => row);
  }

  /**
   * Return a row of which nothing is known.
   *
   * @abstract
   * @returns {Row}
   */
  create() {
    throw new TypeError("a family has rows of its own");
  }

  /**
   * Read a key; return its remembered row.
   *
   * @abstract
   * @param {Bits} _bits
   * @returns {Row}
   */
  key(_bits) {
    throw new TypeError("a family has keys of its own");
  }

  /**
   * Read the columns that have changed.
   *
   * @abstract
   * @param {Bits} _bits
   * @param {Channel} _channel
   * @param {Row} _row
   */
  change(_bits, _channel, _row) {}

  /**
   * Read all columns of a state's row.
   *
   * @abstract
   * @param {Bits} _bits
   * @param {Channel} _channel
   * @param {Row} _row
   */
  restoreRow(_bits, _channel, _row) {}
}

/**
 * Return the numbers in some columns.
 *
 * @param {any} row one of a family that has these columns
 * @param {string[]} names
 * @returns {import("./grid.js").Place[]}
 */
export function placesOf(row, names) {
  return names.map((name) => row[name]);
}

const OTHER_TICK_TYPES = 254;

/**
 * Read a tick_type; return its remembered row. Types below −1 or above 253 share one row.
 *
 * @template {Remembered & { tick_type: number }} Row
 * @param {Keyed<Row>} family
 * @param {Bits} bits
 */
export function tickTypeKey(family, bits) {
  const tickType = within(unzigzag(bits.eg(3)), I32_MIN, I32_MAX, "tick_type");
  const row = family.at(tickType < -1 || tickType > 253 ? OTHER_TICK_TYPES : tickType);
  row.tick_type = tickType;
  return row;
}
