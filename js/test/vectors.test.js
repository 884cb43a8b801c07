// The vectors of tests/support/vectors, which every decoder of the protocol must read as their files say: to the bit.
//
// A Number does not hold every seq of 2^53 or more, so this client refuses them. BEYOND names each message that is
// refused for that. In its place stands then the same message with numbers that fit, so that the rest is read as well.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { FrameDecoder, ProtocolError } from "../ibfast.js";
import { message } from "./bitwriter.js";

const FOLDER = new URL("../../tests/support/vectors/", import.meta.url);
const NAMES = readdirSync(FOLDER)
  .filter((name) => name.endsWith(".json"))
  .map((name) => name.slice(0, -".json".length));
const TEXT_FIELDS = new Set(["text", "exchange", "conditions", "market_maker"]);
const LIMIT = 2n ** 53n;
/** Where the seq stands in a clock, and the last seq in a lag of a channel below 128. */
const SEQ_AT = { clock: 9, lag: 11 };

/** Each message that is refused: its vector, its place there, and its seq. */
const BEYOND = [
  { vector: "hostile", at: 2, kind: "window", seq: "18014398509481985" },
  { vector: "lags", at: 12, kind: "lag", seq: "18446744073709551615" },
  { vector: "lags", at: 16, kind: "lag", seq: "1152921504606846976" },
];

function read(name) {
  return JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER), "utf8"));
}

function bytesOf(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

function fitted(seq) {
  return String(BigInt.asUintN(53, BigInt(seq)));
}

/** Return a message with every seq below 2^53, and what it says then. A window's seq follows from the clock's. */
function fitting({ hex, says }) {
  const bytes = bytesOf(hex);
  const last = says.message === "lag" ? "to" : "seq";
  if (says.message in SEQ_AT)
    new DataView(bytes.buffer).setBigUint64(SEQ_AT[says.message], BigInt(fitted(says[last])), true);
  const fit = { ...says };
  if (last in says) fit[last] = fitted(says[last]);
  if (says.rows) fit.rows = says.rows.map(([id, family, row]) => [id, family, { ...row, seq: fitted(row.seq) }]);
  return { bytes, says: fit };
}

/** A decoder of a vector's channels. As every text comes before its id does, it has those that no message brings. */
function decoderOf({ channels, messages }) {
  const decoder = new FrameDecoder();
  for (const channel of channels) decoder.open(channel, { columns: true, bigint: true });
  for (const { says } of messages)
    for (const [, , row] of says.rows ?? [])
      for (const name of TEXT_FIELDS)
        if (row[name] > 0) decoder.decode(message(0x40).varint(row[name]).text(`#${row[name]}`).bytes());
  return decoder;
}

/** A value of a column, in the words of the vectors. */
function shown(name, column, i) {
  if (name === "seq" || typeof column[i] === "bigint") return String(column[i]);
  if (!(column instanceof Float64Array)) return column[i];
  return new BigUint64Array(column.buffer, column.byteOffset)[i].toString(16).padStart(16, "0");
}

/** The rows of batches, in their order within each channel. */
function rowsOf(batches) {
  const rows = batches.flatMap(({ channel, family, length, columns }) =>
    Array.from({ length }, (_, i) => {
      const { order, ...others } = columns;
      const row = Object.fromEntries(Object.entries(others).map(([name, column]) => [name, shown(name, column, i)]));
      return { channel, order: order[i], row: [channel, family, row] };
    }),
  );
  return rows.sort((a, b) => a.channel - b.channel || a.order - b.order).map(({ row }) => row);
}

/** What a vector says, with texts in the place of their ids. */
function expectedRows(rows, texts) {
  return rows.map(([channel, family, row]) => {
    const values = Object.entries(row).map(([name, value]) => [
      name,
      TEXT_FIELDS.has(name) ? (value === 0 ? "" : (texts.get(value) ?? `#${value}`)) : value,
    ]);
    return [channel, family, Object.fromEntries(values)];
  });
}

/** Compare a message with what it says. */
function compare(decoded, says, texts) {
  assert.equal(decoded.type, says.message);
  for (const name of ["channel", "class", "reason", "id", "text"])
    if (name in says) assert.equal(decoded[name], says[name], name);
  if (says.message === "text") texts.set(says.id, says.text);
  if (says.message === "snapshot") assert.equal(String(decoded.time_ns), says.time_ns);
  if (says.message === "lag")
    assert.deepEqual(
      [decoded.from_seq, decoded.to_seq, decoded.rows],
      [Number(says.from), Number(says.to), says.count],
    );
  if (says.rows) {
    assert.equal(String(decoded.seq), says.seq);
    assert.deepEqual(rowsOf(decoded.batches), expectedRows(says.rows, texts));
  }
}

for (const name of NAMES) {
  test(`the vector ${name}`, () => {
    const vector = read(name);
    const messages = vector.messages.map(fitting);
    const decoder = decoderOf(vector);
    const texts = new Map();
    for (const [i, { bytes, says }] of messages.entries()) {
      try {
        compare(decoder.decode(bytes), says, texts);
      } catch (error) {
        error.message = `message ${i}, ${says.message}: ${error.message}`;
        throw error;
      }
    }
  });

  test(`what the vector ${name} has refused`, () => {
    const vector = read(name);
    for (const hex of vector.refused) {
      const decoder = decoderOf(vector);
      for (const { bytes } of vector.messages.map(fitting)) decoder.decode(bytes);
      assert.throws(() => decoder.decode(bytesOf(hex)), ProtocolError, hex);
    }
  });
}

for (const { vector: name, at, kind, seq } of BEYOND) {
  test(`the vector ${name} has a ${kind} of seq ${seq}, which no Number holds`, () => {
    const vector = read(name);
    const { hex, says } = vector.messages[at];
    assert.deepEqual([says.message, says.to ?? says.seq], [kind, seq]);
    const decoder = decoderOf(vector);
    // A clock is read as it is: only the windows after it tell a seq.
    for (const before of vector.messages.slice(0, at))
      decoder.decode(before.says.message === "clock" ? bytesOf(before.hex) : fitting(before).bytes);
    assert.throws(() => decoder.decode(bytesOf(hex)), {
      name: "ProtocolError",
      message: `seq ${seq} is out of range`,
    });
  });
}

test("no other vector has a seq of 2^53 or more", () => {
  const beyond = NAMES.filter((name) =>
    read(name).messages.some(({ says }) => [says.seq, says.from, says.to].some((seq) => BigInt(seq ?? 0) >= LIMIT)),
  );
  assert.deepEqual(beyond, [...new Set(BEYOND.map(({ vector }) => vector))]);
  const lags = read("lags").messages.map(({ says }) => says);
  const places = lags.flatMap(({ seq, to }, at) => (BigInt(to ?? seq ?? 0) >= LIMIT ? [at] : []));
  assert.deepEqual(
    places,
    BEYOND.filter(({ vector }) => vector === "lags").map(({ at }) => at),
  );
});
