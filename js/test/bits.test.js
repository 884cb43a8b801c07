// The bit reader against a writer that shares nothing with it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Bits, ProtocolError } from "../ibfast.js";
import { BitWriter } from "./bitwriter.js";
import { Random } from "./random.js";

const SEED = 20260211;

/** One of each kind of number, with how it is written and read. */
const KINDS = [
  (random) => {
    const count = random.below(33);
    const value = random.below(2 ** count);
    return [value, (w) => w.bits(value, count), (r) => r.bits(count)];
  },
  (random) => {
    const value = random.below(2);
    return [value, (w) => w.bits(value, 1), (r) => r.bit()];
  },
  (random) => {
    const k = random.below(32);
    const value = random.below(2 ** random.below(53));
    return [value, (w) => w.eg(value, k), (r) => r.eg(k)];
  },
  (random) => {
    const n = 1 + random.below(2 ** random.below(31));
    const value = random.below(n);
    return [value, (w) => w.uniform(value, n), (r) => r.uniform(n)];
  },
  (random) => {
    const value = random.below(2 ** random.below(53));
    return [value, (w) => w.varint(value), (r) => r.varint()];
  },
  (random) => {
    const value = random.u64();
    return [value, (w) => w.u64(value), (r) => r.u64()];
  },
];

function reader(writer) {
  const bits = new Bits();
  bits.load(writer.bytes());
  return bits;
}

test("what was written is read, at any position, and no bit more", () => {
  const random = new Random(SEED);
  for (let turn = 0; turn < 2_000; turn++) {
    const writer = new BitWriter();
    const expected = Array.from({ length: 1 + random.below(20) }, () => random.of(KINDS)(random));
    for (const [, write] of expected) write(writer);
    const bits = reader(writer);
    for (const [value, , read] of expected) assert.equal(read(bits), value);
    bits.align();
    assert.ok(bits.isAtEnd);
  }
});

test("one reader takes messages of all sizes, one after the other", () => {
  const random = new Random(SEED);
  const bits = new Bits();
  for (const size of [3, 5000, 1, 70_000, 2, 0]) {
    const values = Array.from({ length: size }, () => random.below(256));
    bits.load(new Uint8Array(values));
    for (const value of values) assert.equal(bits.bits(8), value);
    assert.throws(() => bits.bit(), ProtocolError);
  }
});

test("EG at its bounds", () => {
  for (const k of [0, 1, 20, 31]) {
    const most = 2 ** 53 - 1 - 2 ** k;
    for (const value of [0, 1, 2 ** k - 1, 2 ** k, most - 1, most]) {
      assert.equal(reader(new BitWriter().eg(value, k)).eg(k), value);
    }
    assert.throws(() => reader(new BitWriter().eg(most + 1, k)).eg(k), ProtocolError, `k = ${k}`);
  }
});

test("the examples of the protocol's text", () => {
  for (const [value, written] of [
    [0, [1]],
    [1, [0, 1, 0]],
    [2, [0, 1, 1]],
  ]) {
    const writer = new BitWriter();
    for (const bit of written) writer.bits(bit, 1);
    assert.equal(reader(writer).eg(0), value);
  }
});

test("a number that goes on beyond the message is refused, wherever it is cut", () => {
  const random = new Random(SEED);
  for (let turn = 0; turn < 2_000; turn++) {
    const [, write, read] = random.of(KINDS)(random);
    const writer = new BitWriter();
    write(writer);
    const bytes = writer.bytes();
    if (bytes.length < 2) continue;
    const bits = new Bits();
    // What follows in memory must not be taken for the message's.
    bits.load(new Uint8Array(bytes.length).fill(255));
    bits.load(bytes.subarray(0, random.below(bytes.length - 1)));
    assert.throws(() => read(bits), ProtocolError);
  }
});

test("varints: 63 bits and no more", () => {
  const most = 2n ** 63n - 1n;
  assert.equal(reader(new BitWriter().varint(most)).varint(), most);
  assert.equal(reader(new BitWriter().varint(2n ** 53n)).varint(), 2n ** 53n);
  assert.throws(() => reader(new BitWriter().varint(most + 1n)).varint(), /63 bits/);
  assert.throws(() => reader(new BitWriter().varint(2n ** 70n)).varint(), /63 bits/);
});
