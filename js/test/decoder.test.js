// What a decoder must refuse, and what it remembers where bounds are: messages made by hand.

import assert from "node:assert/strict";
import { test } from "node:test";

import { FrameDecoder, ProtocolError } from "../ibfast.js";
import { clock, described, head, message, START_NS } from "./bitwriter.js";

const SEQ = 1000;
const NAN_WITH_PAYLOAD = 0x7ff8000000000001n;

/** A decoder of channel 0, of one window a millisecond long for each message, whose state is `write`'s. */
function opened(options, write) {
  const decoder = new FrameDecoder();
  decoder.open(described({ span_ns: 1000, ...options }));
  decoder.decode(clock());
  const state = head(message(0x20).varint(0).u64(START_NS).u64(SEQ));
  write(state);
  decoder.decode(state.bytes());
  return decoder;
}

function ticks(options = {}) {
  return opened({ families: ["ticks"], ...options }, (state) => state.eg(0, 3));
}

/** A window of `count` rows at its start. */
function window(count, seq = SEQ + count) {
  return message(0x82)
    .varint(0)
    .varint(seq - SEQ)
    .bits(0, 3)
    .eg(count - 1, 0);
}

function tick(writer, type, columns = 0) {
  return writer.bits(0, 1).zigzag(type, 3).bits(columns, 5);
}

const PRICE = 4;

function rowsOf(decoder, writer) {
  return decoder.decode(writer.bytes()).batches.flatMap(({ rows }) => rows);
}

function refuses(decoder, writer, why) {
  assert.throws(
    () => decoder.decode(writer.bytes()),
    (error) => error instanceof ProtocolError && why.test(error.message),
  );
}

test("places on a grid are below 2^51", () => {
  const most = 2 ** 51 - 1;
  assert.equal(rowsOf(ticks(), tick(window(1), 1, PRICE).zigzag(most, 0))[0].price, most / 100);
  refuses(ticks(), tick(window(1), 1, PRICE).zigzag(most + 1, 0), /grid/);
  refuses(ticks(), tick(window(1), 1, PRICE).zigzag(-most - 1, 0), /grid/);
});

test("extensions that do not exist", () => {
  const GRID = 6;
  for (let code = 1; code < 16; code++)
    if (code !== GRID) refuses(ticks(), window(1).bits(1, 1).bits(code, 4).bits(0, 64), /extension/);
  const quotes = () => opened({}, (state) => state.bits(0, 1));
  for (let code = 4; code < 16; code++)
    if (code !== GRID) refuses(quotes(), window(1).bits(31, 5).bits(code, 4).bits(0, 64), /extension/);
});

test("a double has one byte at least that differs", () => {
  const greeks = opened({ families: ["greeks"] }, (state) => state.eg(0, 3));
  const row = (leading, trailing) =>
    window(1).bits(0, 1).zigzag(10, 3).bits(4, 10).bits(leading, 3).bits(trailing, 3).u64(0);
  assert.equal(greeks.decode(row(7, 0).bytes().subarray(0, -7)).batches.length, 1);
  refuses(greeks, row(4, 4), /no bytes/);
});

test("a row is not newer than its window", () => {
  const rows = (step) => tick(tick(window(2).eg(1, 5), 1).eg(step, 4), 1);
  const decode = (step) => rowsOf(ticks({ ordered: true }), rows(step)).map(({ seq }) => seq);
  assert.deepEqual(decode(1), [SEQ + 1, SEQ + 2]);
  assert.throws(() => decode(2), /seq/);
});

test("tick types below -1 and above 253 are remembered as one", () => {
  const decoder = ticks();
  rowsOf(decoder, tick(window(1), 254, PRICE).zigzag(7, 0));
  const [other, last] = rowsOf(decoder, tick(tick(window(2), -2), 253));
  assert.deepEqual([other.tick_type, other.price], [-2, 0.07]);
  assert.ok(Number.isNaN(last.price));
});

test("the side of a trade goes by the bits of prices, NaN's too", () => {
  const number = (state, n) => state.bits(1, 1).zigzag(n, 12);
  const decoder = opened({ families: ["quotes", "trades"] }, (state) => {
    state.bits(0, 1);
    state.bits(1, 1).u64(START_NS).u8(9).eg(0, 3).u64(0);
    number(state, 1).bits(0, 1).u64(NAN_WITH_PAYLOAD).zigzag(0, 12);
    for (let i = 0; i < 4; i++) number(state, 5);
    state.bits(0, 1);
  });
  // A trade at a NaN of other bits than the ask's; then one at the quote on the other side than bid, which is the ask.
  const trades = window(2).bits(1, 1).bits(0, 1).bits(7, 3).eg(0, 0).bits(0, 2).bits(0, 1);
  const rows = rowsOf(decoder, trades.bits(1, 1).bits(0, 1).bits(1, 2).bits(0, 1));
  assert.deepEqual(
    rows.map(({ price }) => price),
    [NaN, NaN],
  );
});

test("a book has 256 levels at most", () => {
  const decoder = opened({ families: ["depth"] }, (state) => state.eg(0, 3).u8(0).u8(0).u64(0).eg(0, 3).eg(0, 3));
  const operation = (writer, code) => writer.bits(0, 1).bits(1, 2).bits(code, 2);
  const inserts = window(300);
  for (let i = 0; i < 300; i++) operation(inserts, 0).bits(8, 6).zigzag(1, 0);
  decoder.decode(inserts.bytes());
  const book = () => decoder.state(0).flatMap(({ rows }) => rows);
  assert.deepEqual([book().length, book()[0].price, book()[255].price], [256, 3, 0.45]);
  // An update behind the last level appends nothing any more.
  decoder.decode(operation(window(1), 1).bits(12, 6).zigzag(256, 0).zigzag(1, 0).bytes());
  assert.equal(book().length, 256);
});

test("more rows than a state can have", () => {
  const state = head(message(0x20).varint(0).u64(START_NS).u64(SEQ)).eg(257, 3);
  refuses(ticks(), state, /number of a state's rows/);
});

test("grids that can't be", () => {
  for (const [step, decimals] of [
    [0, 2],
    [1, 15],
  ]) {
    const state = message(0x20).varint(0).u64(START_NS).u64(SEQ).grid(step, decimals).bits(0, 200);
    refuses(ticks(), state, /a grid's/);
  }
});

test("a grid that does not exist", () => {
  refuses(ticks(), window(1).bits(1, 1).bits(6, 4).bits(3, 2).grid(1, 2).bits(0, 80), /a grid that does not exist/);
});

test("a number stays when its grid changes, and the next one is on the new grid", () => {
  const decoder = ticks();
  assert.equal(rowsOf(decoder, tick(window(1), 1, PRICE).zigzag(1250, 0))[0].price, 12.5);
  const writer = window(2, SEQ + 2)
    .bits(1, 1)
    .bits(6, 4)
    .bits(0, 2)
    .grid(5, 1);
  tick(writer, 1);
  tick(writer, 1, PRICE).zigzag(26, 0);
  assert.deepEqual(
    rowsOf(decoder, writer).map((row) => row.price),
    [12.5, 13],
  );
});

test("descriptions of channels that can't be", () => {
  for (const wrong of [
    { families: [] },
    { families: ["quotes", "quotes"] },
    { families: ["toString"] },
    { channel: -1 },
    { class: 16 },
    { unit_ns: 10 },
    { span_ns: 2 ** 31 * 1000 },
    { span_ns: 1500 },
  ]) {
    assert.throws(() => new FrameDecoder().open(described(wrong)), ProtocolError, JSON.stringify(wrong));
  }
});

test("windows of one class are of one length", () => {
  const decoder = new FrameDecoder();
  decoder.open(described());
  assert.throws(() => decoder.open(described({ channel: 1, span_ns: 50_000_000 })), ProtocolError);
  decoder.close(0);
  decoder.open(described({ channel: 1, span_ns: 50_000_000 }));
});
