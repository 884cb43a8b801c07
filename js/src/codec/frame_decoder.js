// The binary messages of a connection, to batches of rows. Nothing here knows the connection.

import { fail } from "../errors.js";
import { Bits, within } from "./bits.js";
import { Channel } from "./channel.js";
import { ColumnBatchWriter } from "./column_batch.js";
import { toMicroseconds } from "./columns.js";
import { RowBatchWriter } from "./row_batch.js";
import { CLASSES, CLOCK, LAG, LAG_REASONS, SNAPSHOT, TEXT_MESSAGE, U32, WINDOW } from "./spec.js";
import { Texts } from "./texts.js";

/** @import { Batch, ChannelDescription, Message } from "../../ibfast.js" */

const SKIP = 7;

/**
 * Return a seq as a Number. What a Number does not hold exactly is refused.
 *
 * @param {bigint} seq
 */
function safeSeq(seq) {
  if (seq > BigInt(Number.MAX_SAFE_INTEGER) || seq < 0n) fail(`seq ${seq} is out of range`);
  return Number(seq);
}

/** @param {bigint} ns */
function startOf(ns) {
  if (BigInt.asIntN(64, ns) !== ns) fail("a window's time is out of range");
  return { ns, us: toMicroseconds(ns) };
}

/** A decoder of the binary messages of one connection, in their order. After an error it is of no use any more. */
export class FrameDecoder {
  #bits = new Bits();
  /** @type {Map<number, Channel>} */
  #channels = new Map();
  /** @type {Map<number, { time: bigint, seq: bigint }>} */
  #clocks = new Map();
  #texts = new Texts();
  #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  /**
   * Expect a channel.
   *
   * @param {ChannelDescription} described as in `subscribed`
   * @param {{ columns?: boolean, bigint?: boolean }} [options]
   * @throws {ProtocolError} the description is one that no server sends
   * @returns {void}
   */
  open(described, options = {}) {
    if (typeof described !== "object" || described === null) fail("a channel without description");
    if (!Number.isSafeInteger(described.channel) || described.channel < 0) fail(`channel ${described.channel}`);
    if (this.#channels.has(described.channel)) fail(`channel ${described.channel} is open already`);
    const channel = new Channel(described, options);
    for (const other of this.#channels.values()) {
      const isAlike = other.span === channel.span && other.unit === channel.unit && other.windowNs === channel.windowNs;
      if (other.class === channel.class && !isAlike) fail(`channels of class ${channel.class} differ in their windows`);
    }
    this.#channels.set(described.channel, channel);
  }

  /**
   * Expect a channel no more.
   *
   * @param {number} channel
   * @returns {void}
   */
  close(channel) {
    this.#channels.delete(channel);
  }

  /**
   * Return a channel's current rows, as its snapshot has them; no batch where the channel has no state.
   *
   * @param {number} id
   * @param {number} [seq] of the batches
   * @returns {Batch[]}
   */
  state(id, seq = 0) {
    const channel = this.#channels.get(id);
    return channel?.hasState ? this.#stateOf(channel, seq) : [];
  }

  /**
   * Return what a message says.
   *
   * @param {ArrayBuffer | Uint8Array} message
   * @throws {ProtocolError} the message is one that no server sends
   * @returns {Message}
   */
  decode(message) {
    const bits = this.#bits;
    bits.load(message instanceof Uint8Array ? message : new Uint8Array(message));
    const first = bits.bits(8);
    if (first >= WINDOW && first < WINDOW + CLASSES) return this.#window(first - WINDOW);
    if (first === SNAPSHOT) return this.#snapshot();
    if (first >= CLOCK && first < CLOCK + CLASSES) return this.#clock(first - CLOCK);
    if (first === LAG) return this.#lag();
    if (first === TEXT_MESSAGE) return this.#text();
    return fail(`a message that begins with ${first}`);
  }

  /**
   * @param {number} number the class
   * @returns {Message}
   */
  #window(number) {
    const bits = this.#bits;
    const clock = this.#clocks.get(number) ?? fail(`a window of class ${number}, which has no clock`);
    const base = BigInt(bits.varint());
    const seq = safeSeq(clock.seq + BigInt(bits.varint()));
    /** @type {Batch[]} */
    const batches = [];
    let id = -1;
    let start = null;
    while (!bits.isAtEnd) {
      id = this.#nextId(id);
      const channel = this.#channelOf(id);
      if (!channel.hasState) fail(`channel ${id} has no state`);
      if (channel.class !== number) fail(`channel ${id} is of class ${channel.class} and not ${number}`);
      start ??= startOf(clock.time + base * channel.windowNs);
      const batch = this.#writerOf(channel, seq, false);
      channel.readPiece(bits, start, seq, batch);
      bits.align();
      batches.push(...batch.finish());
    }
    return { type: "window", class: number, seq, batches };
  }

  /**
   * Read which channel the next piece is of.
   *
   * @param {number} id of the piece before
   */
  #nextId(id) {
    const bits = this.#bits;
    let previous = id;
    let gap = bits.bits(3);
    while (gap === SKIP) {
      const more = bits.bits(5);
      previous += SKIP + more + (more === 31 ? Number(bits.varint()) : 0);
      gap = bits.bits(3);
    }
    return previous + 1 + gap;
  }

  /** @returns {Message} */
  #snapshot() {
    const bits = this.#bits;
    const channel = this.#channelOf(bits.varint());
    const time_ns = bits.i64();
    const seq = safeSeq(bits.u64());
    channel.restore(bits);
    return { type: "snapshot", channel: channel.id, time_ns, seq, batches: this.#stateOf(channel, seq) };
  }

  /**
   * @param {number} number the class
   * @returns {Message}
   */
  #clock(number) {
    const clock = { time: this.#bits.i64(), seq: this.#bits.u64() };
    this.#requireEnd("a clock");
    this.#clocks.set(number, clock);
    return { type: "clock", class: number };
  }

  /** @returns {Message} */
  #lag() {
    const bits = this.#bits;
    const channel = this.#channelOf(bits.varint());
    const reason = LAG_REASONS[bits.bits(8)] ?? fail("a lag for no known reason");
    const from_seq = safeSeq(bits.u64());
    const to_seq = safeSeq(bits.u64());
    const count = Number(bits.varint());
    this.#requireEnd("a lag");
    channel.void();
    return { type: "lag", channel: channel.id, reason, from_seq, to_seq, rows: count === 0 ? null : count - 1 };
  }

  /** @returns {Message} */
  #text() {
    const id = within(Number(this.#bits.varint()), 0, U32, "a text's id");
    const text = this.#decodedText(id);
    this.#texts.set(id, text);
    return { type: "text", id, text };
  }

  /** @param {number} id */
  #decodedText(id) {
    try {
      return this.#utf8.decode(this.#bits.rest());
    } catch {
      return fail(`text ${id} is no UTF-8`);
    }
  }

  /** @param {number | bigint} id */
  #channelOf(id) {
    return this.#channels.get(Number(id)) ?? fail(`channel ${id} is not open`);
  }

  /**
   * @param {Channel} channel
   * @param {number} seq
   * @param {boolean} isSnapshot
   */
  #writerOf(channel, seq, isSnapshot) {
    return new (channel.isColumns ? ColumnBatchWriter : RowBatchWriter)(channel, this.#texts, seq, isSnapshot);
  }

  /**
   * @param {Channel} channel
   * @param {number} seq
   */
  #stateOf(channel, seq) {
    const batch = this.#writerOf(channel, seq, true);
    channel.writeState(batch);
    return batch.finish();
  }

  /** @param {string} what */
  #requireEnd(what) {
    if (!this.#bits.isAtEnd) fail(`bytes after ${what}`);
  }
}
