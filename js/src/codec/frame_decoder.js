// The binary messages of a connection, in their order. Nothing here knows a connection.

import { fail } from "../errors.js";
import { Bits, within } from "./bits.js";
import { Channel } from "./channel.js";
import { ColumnBatch } from "./column_batch.js";
import { toMicroseconds } from "./columns.js";
import { RowBatch } from "./row_batch.js";
import { CLASSES, CLOCK, LAG, LAG_REASONS, SNAPSHOT, TEXT_MESSAGE, U32, WINDOW } from "./spec.js";

const SKIP = 7;

function safeSeq(seq) {
  if (seq > BigInt(Number.MAX_SAFE_INTEGER) || seq < 0n) fail(`seq ${seq} is out of range`);
  return Number(seq);
}

function startOf(ns) {
  if (BigInt.asIntN(64, ns) !== ns) fail("a window's time is out of range");
  return { ns, us: toMicroseconds(ns) };
}

/** Text by id, as far as the connection has told them. */
class Texts extends Map {
  of(id) {
    if (id === 0) return "";
    return this.get(id) ?? fail(`text ${id}, which was not told`);
  }
}

/** The binary messages of one connection, in their order; after an error it is of no more use. */
export class FrameDecoder {
  #bits = new Bits();
  #channels = new Map();
  #clocks = new Map();
  #texts = new Texts();
  #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  /** Expect a channel, as `subscribed` describes it; options: columns, bigint. */
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

  /** Expect it no more. */
  close(id) {
    this.#channels.delete(id);
  }

  /** Return batches of a channel's current rows, as its snapshot would tell them; none where it has no state. */
  state(id, seq = 0) {
    const channel = this.#channels.get(id);
    return channel?.hasState ? this.#stateOf(channel, seq) : [];
  }

  /** Return what a message (an ArrayBuffer or Uint8Array) tells. Raises ProtocolError. */
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

  #window(number) {
    const bits = this.#bits;
    const clock = this.#clocks.get(number) ?? fail(`a window of class ${number}, which has no clock`);
    const base = BigInt(bits.varint());
    const seq = safeSeq(clock.seq + BigInt(bits.varint()));
    const batches = [];
    let id = -1;
    let start = null;
    while (!bits.isAtEnd) {
      let gap = bits.bits(3);
      while (gap === SKIP) {
        const more = bits.bits(5);
        id += SKIP + more + (more === 31 ? Number(bits.varint()) : 0);
        gap = bits.bits(3);
      }
      id += 1 + gap;
      const channel = this.#channelOf(id);
      if (!channel.hasState) fail(`channel ${id} has no state`);
      if (channel.class !== number) fail(`channel ${id} is of class ${channel.class} and not ${number}`);
      start ??= startOf(clock.time + base * channel.windowNs);
      const batch = this.#batchOf(channel, seq, false);
      channel.readPiece(bits, start, seq, batch);
      bits.align();
      batches.push(...batch.finish());
    }
    return { type: "window", class: number, seq, batches };
  }

  #snapshot() {
    const bits = this.#bits;
    const channel = this.#channelOf(bits.varint());
    const time_ns = bits.i64();
    const seq = safeSeq(bits.u64());
    channel.restore(bits);
    return { type: "snapshot", channel: channel.id, time_ns, seq, batches: this.#stateOf(channel, seq) };
  }

  #clock(number) {
    const clock = { time: this.#bits.i64(), seq: this.#bits.u64() };
    this.#requireEnd("a clock");
    this.#clocks.set(number, clock);
    return { type: "clock", class: number };
  }

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

  #text() {
    const id = within(this.#bits.varint(), 0, U32, "a text's id");
    let text;
    try {
      text = this.#utf8.decode(this.#bits.rest());
    } catch {
      fail(`text ${id} is no UTF-8`);
    }
    this.#texts.set(id, text);
    return { type: "text", id, text };
  }

  #channelOf(id) {
    return this.#channels.get(id) ?? fail(`channel ${id} is not open`);
  }

  #batchOf(channel, seq, isSnapshot) {
    return new (channel.isColumns ? ColumnBatch : RowBatch)(channel, this.#texts, seq, isSnapshot);
  }

  #stateOf(channel, seq) {
    const batch = this.#batchOf(channel, seq, true);
    channel.writeState(batch);
    return batch.finish();
  }

  #requireEnd(what) {
    if (!this.#bits.isAtEnd) fail(`bytes after ${what}`);
  }
}
