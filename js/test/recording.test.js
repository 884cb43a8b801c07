// A recording of frames, with the rows that the Python side makes of them: to the bit the same here. Its path is in
// IBFAST_RECORDING; tests/js/test_client.py makes one.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { FrameDecoder, ProtocolError } from "../ibfast.js";

const path = process.env.IBFAST_RECORDING;
const sessions = path === undefined ? [] : JSON.parse(readFileSync(path, "utf8"));
const MOST_EXACT = BigInt(Number.MAX_SAFE_INTEGER);

function bytesOf(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

function hexOf(values) {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("hex");
}

function decoderOf(channels, options) {
  const decoder = new FrameDecoder();
  for (const channel of channels) decoder.open(channel, options);
  return decoder;
}

/** A batch of columns in the words of the recording. */
function shown({ channel, family, length, columns }) {
  const { seq, order: _order, ...others } = columns;
  const values = Object.entries(others).map(([name, column]) => [name, Array.isArray(column) ? column : hexOf(column)]);
  return { channel, family, length, seqs: Array.from(seq, String), columns: Object.fromEntries(values) };
}

function byPlace(a, b) {
  return a.channel - b.channel || (a.family < b.family ? -1 : 1);
}

/** What a decoder can't tell in a Number is refused, though it may stand in a message. */
function isBeyondNumbers(recorded) {
  const seqs = (recorded.batches ?? []).flatMap((batch) => batch.seqs);
  return [recorded.seq, recorded.lag?.[2], recorded.lag?.[3], ...seqs].some(
    (seq) => seq !== undefined && BigInt(seq) > MOST_EXACT,
  );
}

function compare(recorded, decoder) {
  const bytes = bytesOf(recorded.hex);
  if (recorded.refused !== undefined || recorded.untold !== undefined) {
    assert.throws(
      () => decoder.decode(bytes),
      ProtocolError,
      `Python refuses this: ${recorded.refused ?? recorded.untold}`,
    );
    return;
  }
  let decoded;
  try {
    decoded = decoder.decode(bytes);
  } catch (error) {
    assert.ok(error instanceof ProtocolError && isBeyondNumbers(recorded), `Python reads this: ${error.stack}`);
    return;
  }
  if (decoded.seq !== undefined) assert.equal(String(decoded.seq), recorded.seq);
  assert.equal(decoded.type === "snapshot", recorded.snapshot);
  if (decoded.type === "lag") {
    const { channel, reason, from_seq, to_seq, rows } = decoded;
    assert.deepEqual([channel, reason, String(from_seq), String(to_seq), rows], recorded.lag);
  }
  const batches = (decoded.batches ?? []).filter(({ length }) => length > 0);
  assert.deepEqual(batches.map(shown).sort(byPlace), recorded.batches.sort(byPlace));
}

test("rows are those of the Python decoder, to the bit", {
  skip: path === undefined && "there is no IBFAST_RECORDING",
}, () => {
  assert.ok(sessions.length > 0);
  for (const [i, { channels, messages }] of sessions.entries()) {
    const decoder = decoderOf(channels, { columns: true, bigint: true });
    for (const [j, recorded] of messages.entries()) {
      try {
        compare(recorded, decoder);
      } catch (error) {
        error.message = `session ${i}, message ${j} (${recorded.hex.slice(0, 80)}): ${error.message}`;
        throw error;
      }
    }
  }
});

test("objects have the values of columns, in the order of the rows", {
  skip: path === undefined && "there is no IBFAST_RECORDING",
}, () => {
  let rows = 0;
  for (const { channels, messages } of sessions) {
    const objects = decoderOf(channels, { bigint: true });
    const columns = decoderOf(channels, { columns: true, bigint: true });
    for (const { hex, refused, untold } of messages) {
      if (refused !== undefined || untold !== undefined) break;
      let message;
      try {
        message = objects.decode(bytesOf(hex));
      } catch {
        break;
      }
      const batches = columns.decode(bytesOf(hex)).batches ?? [];
      for (const { channel, rows: own } of message.batches ?? []) {
        const parts = batches.filter((batch) => batch.channel === channel && batch.length > 0);
        assert.equal(
          own.length,
          parts.reduce((sum, { length }) => sum + length, 0),
        );
        for (const { family, length, columns: values } of parts) {
          for (let i = 0; i < length; i++) {
            const row = own[values.order[i]];
            assert.equal(row.family, family);
            for (const name of Object.keys(values))
              if (name !== "order") assert.ok(Object.is(row[name], values[name][i]), name);
            rows++;
          }
        }
      }
    }
  }
  assert.ok(rows > 0);
});
