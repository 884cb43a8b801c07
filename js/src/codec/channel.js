// An open channel: its description, its grids, and what is remembered of its families.

import { fail } from "../errors.js";
import { Bars } from "./bars.js";
import { within } from "./bits.js";
import { Depth } from "./depth.js";
import { Greeks } from "./greeks.js";
import { GRIDS, Grid } from "./grid.js";
import { Quotes } from "./quotes.js";
import { I32_MAX } from "./spec.js";
import { Ticks } from "./ticks.js";
import { Trades } from "./trades.js";

/**
 * @import { ChannelDescription } from "../../ibfast.js"
 * @import { Bits } from "./bits.js"
 * @import { ColumnBatchWriter } from "./column_batch.js"
 * @import { RowBatchWriter } from "./row_batch.js"
 * @typedef {Quotes | Trades | Ticks | Depth | Bars | Greeks} AnyFamily
 * @typedef {ReturnType<AnyFamily["records"]>[number]} AnyRow
 * @typedef {RowBatchWriter | ColumnBatchWriter} BatchWriter
 */

const FAMILIES = { quotes: Quotes, trades: Trades, ticks: Ticks, depth: Depth, bars: Bars, greeks: Greeks };

/** A channel with its state. Every message of the channel must be read, in order. */
export class Channel {
  /** Set by the first state, before a row can be read. */
  price = /** @type {Grid} */ (/** @type {unknown} */ (null));
  size = this.price;
  tradeSize = this.price;
  recv_us = 0;
  rowSeq = 0;
  startNs = 0n;
  offset = 0;
  hasState = false;
  /** k0 … k7 of the protocol. */
  k = new Uint8Array(8);
  side = 0;
  /** @type {AnyFamily[]} */
  families = [];
  /**
   * The one of the families that trades refer to.
   *
   * @type {Quotes | null}
   */
  quotes = null;

  /**
   * @param {ChannelDescription} described
   * @param {{ columns?: boolean, bigint?: boolean }} options
   */
  constructor(described, options) {
    const { span_ns: span, unit_ns: unit } = described;
    checkDescription(described);
    this.described = described;
    this.id = described.channel;
    this.symbol = described.symbol;
    this.exchange = described.exchange;
    this.class = within(described.class, 0, 15, "a channel's class");
    this.unit = unit;
    this.span = span === 0 ? 1 : span / unit;
    this.windowNs = BigInt(span === 0 ? unit : span);
    this.isOrdered = described.ordered === true;
    this.isBigint = options.bigint === true;
    this.isColumns = options.columns === true;
    this.void();
  }

  /** Forget the state. Nothing can be read before the next one. */
  void() {
    this.hasState = false;
    this.k = new Uint8Array(8);
    this.side = 0;
    this.families = this.described.families.map((name) => new FAMILIES[name]());
    this.quotes = this.families.find((family) => family instanceof Quotes) ?? null;
  }

  /** Return the recv_ns of the row that is being read. */
  recvNs() {
    return this.startNs + BigInt(this.offset * this.unit);
  }

  /**
   * Read a new ki.
   *
   * @param {Bits} bits
   */
  learn(bits) {
    const i = bits.bits(3);
    this.k[i] = bits.bits(5);
  }

  /**
   * Read a new grid.
   *
   * @param {Bits} bits
   */
  regrid(bits) {
    const grid = GRIDS[bits.bits(2)];
    if (grid === undefined) fail("a grid that does not exist");
    this[grid] = new Grid(bits);
    for (const family of this.families) family.forget(grid);
  }

  /**
   * Read a state, to the end of its message.
   *
   * @param {Bits} bits
   */
  restore(bits) {
    this.void();
    for (const grid of GRIDS) this[grid] = new Grid(bits);
    for (let i = 0; i < 8; i++) this.k[i] = bits.bits(5);
    if (this.quotes !== null && this.families.some((family) => family instanceof Trades)) this.side = bits.bit();
    for (const family of this.families) family.restore(bits, this);
    bits.align();
    if (!bits.isAtEnd) fail("bytes after a state");
    this.hasState = true;
  }

  /**
   * Read a piece of a window into `batch`.
   *
   * @param {Bits} bits
   * @param {{ ns: bigint, us: number }} start of the window
   * @param {number} windowSeq
   * @param {BatchWriter} batch
   */
  readPiece(bits, start, windowSeq, batch) {
    const { families, k } = this;
    const last = families.length - 1;
    const usPerUnit = this.unit / 1000;
    this.startNs = start.ns;
    this.offset = 0;
    this.rowSeq = 0;
    const count = bits.eg(k[0]) + 1;
    // A row has one bit at least.
    if (count > bits.end - bits.position) fail("a message ends in the middle");
    batch.reserve(count);
    for (let i = 0; i < count; i++) {
      if (i === 0) this.offset = bits.uniform(this.span);
      else if (this.span > 1) this.offset = within(this.offset + bits.eg(k[1]), 0, I32_MAX, "a row's time");
      this.recv_us = start.us + this.offset * usPerUnit;
      if (this.isOrdered) {
        this.rowSeq = i === 0 ? windowSeq - bits.eg(5) : this.rowSeq + bits.eg(4);
        within(this.rowSeq, 0, windowSeq, "a row's seq");
      }
      let place = 0;
      while (place < last && bits.bit() === 1) place++;
      const row = families[place].read(bits, this);
      row.arrive(this);
      batch.add(row);
    }
  }

  /**
   * Put the current rows into `batch`. They have no seq there.
   *
   * @param {BatchWriter} batch
   */
  writeState(batch) {
    const rows = this.families.flatMap((family) => /** @type {AnyRow[]} */ (family.records()));
    batch.reserve(rows.length);
    for (const row of rows) {
      // The record stays in use: its seq is wanted again.
      const { seq } = row;
      row.seq = 0;
      batch.add(row);
      row.seq = seq;
    }
  }
}

/**
 * Refuse a description that no server sends.
 *
 * @param {ChannelDescription} described
 */
function checkDescription({ families, span_ns: span, unit_ns: unit }) {
  if (!Array.isArray(families) || families.length === 0 || new Set(families).size < families.length)
    fail("a channel without families");
  if (families.some((name) => !Object.hasOwn(FAMILIES, name))) fail(`families that are not known: ${families}`);
  if (unit !== 1 && unit !== 1000) fail(`unit_ns of a channel: ${unit}`);
  if (!Number.isSafeInteger(span) || span < 0 || span % unit !== 0 || span / unit >= 2 ** 31)
    fail(`span_ns of a channel: ${span}`);
}
