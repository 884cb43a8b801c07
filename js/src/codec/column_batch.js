// Rows of a channel as columns: typed arrays by family, those of one piece or of a state.

import { GREEKS } from "./greeks.js";

/**
 * @import { ColumnBatch, Family } from "../../ibfast.js"
 * @import { AnyRow, Channel } from "./channel.js"
 * @import { Texts } from "./texts.js"
 * @typedef {ColumnBatch["columns"][string]} Values
 * @typedef {(i: number, row: any, place: number, texts: Texts) => void} Write
 * @typedef {{ name: string, values: Values, write: Write }} Column
 * @typedef {Uint8ArrayConstructor | Int32ArrayConstructor | Uint32ArrayConstructor} Integers
 */

const TEXT = "text";
const TIME = "time";
const DOUBLE = "double";
/**
 * The columns of a family that not every family has, and what they are made of.
 *
 * @type {Record<Family, Record<string, string | Integers>>}
 */
const FIELDS = {
  quotes: { attribs: Uint32Array, event: TIME, bid: DOUBLE, ask: DOUBLE, bid_size: DOUBLE, ask_size: DOUBLE },
  trades: { attribs: Uint32Array, event: TIME, price: DOUBLE, size: DOUBLE, exchange: TEXT, conditions: TEXT },
  ticks: { tick_type: Int32Array, attribs: Uint32Array, text: TEXT, price: DOUBLE, size: DOUBLE },
  depth: {
    operation: Uint8Array,
    side: Uint8Array,
    attribs: Uint8Array,
    position: Int32Array,
    price: DOUBLE,
    size: DOUBLE,
    market_maker: TEXT,
  },
  bars: {
    count: Int32Array,
    event: TIME,
    open: DOUBLE,
    high: DOUBLE,
    low: DOUBLE,
    close: DOUBLE,
    volume: DOUBLE,
    wap: DOUBLE,
  },
  greeks: { tick_type: Int32Array, attribs: Int32Array, ...Object.fromEntries(GREEKS.map((name) => [name, DOUBLE])) },
};

/** Makes a batch of columns for each family. Doubles are exact to the bit, NaN payloads included. */
export class ColumnBatchWriter {
  /** @type {Map<Family, { length: number, columns: Column[] }>} */
  #families = new Map();
  #capacity = 0;
  #count = 0;

  /**
   * @param {Channel} channel
   * @param {Texts} texts
   * @param {number} seq with the batch, all rows up to here have come
   * @param {boolean} isSnapshot
   */
  constructor(channel, texts, seq, isSnapshot) {
    this.channel = channel;
    this.texts = texts;
    this.seq = seq;
    this.isSnapshot = isSnapshot;
  }

  /** @param {number} count how many rows come, at most */
  reserve(count) {
    this.#capacity = count;
  }

  /**
   * Add a remembered row as it is now.
   *
   * @param {AnyRow} row
   */
  add(row) {
    let family = this.#families.get(row.family);
    if (family === undefined) {
      family = { length: 0, columns: columnsOf(row.family, this.#capacity, this.channel.isBigint) };
      this.#families.set(row.family, family);
    }
    const i = family.length++;
    for (const column of family.columns) column.write(i, row, this.#count, this.texts);
    this.#count++;
  }

  /**
   * Return the batches, one for each family with rows; an empty one of a snapshot without rows.
   *
   * @returns {ColumnBatch[]}
   */
  finish() {
    const batches = [...this.#families].map(([family, { length, columns }]) =>
      this.#batch(
        family,
        length,
        Object.fromEntries(
          columns.map(({ name, values }) => [name, values.length === length ? values : values.slice(0, length)]),
        ),
      ),
    );
    if (batches.length > 0 || !this.isSnapshot) return batches;
    return [this.#batch(this.channel.described.families[0], 0, {})];
  }

  /**
   * @param {Family} family
   * @param {number} length
   * @param {Record<string, Values>} columns
   * @returns {ColumnBatch}
   */
  #batch(family, length, columns) {
    const { channel, seq, isSnapshot } = this;
    return {
      type: "rows",
      channel: channel.id,
      symbol: channel.symbol,
      exchange: channel.exchange,
      seq,
      snapshot: isSnapshot,
      family,
      length,
      columns,
    };
  }
}

/**
 * @param {Family} family
 * @param {number} capacity
 * @param {boolean} isBigint
 */
function columnsOf(family, capacity, isBigint) {
  const time = (/** @type {string} */ name) =>
    isBigint
      ? plainColumn(`${name}_ns`, new BigInt64Array(capacity))
      : plainColumn(`${name}_us`, new Float64Array(capacity));
  const columns = [
    plainColumn("seq", new Float64Array(capacity)),
    time("recv"),
    plainColumn("kind", new Uint8Array(capacity)),
    orderColumn(capacity),
  ];
  for (const [name, type] of Object.entries(FIELDS[family])) {
    if (type === TIME) columns.push(time(name));
    else if (type === TEXT) columns.push(textColumn(name));
    else if (typeof type === "string") columns.push(doubleColumn(name, capacity));
    else columns.push(plainColumn(name, new type(capacity)));
  }
  return columns;
}

/**
 * @param {string} name
 * @param {Exclude<Values, string[]>} values
 * @returns {Column}
 */
function plainColumn(name, values) {
  return {
    name,
    values,
    write: (i, row) => {
      values[i] = row[name];
    },
  };
}

/**
 * The place of each row among all rows of the piece, whatever their family.
 *
 * @param {number} capacity
 * @returns {Column}
 */
function orderColumn(capacity) {
  const values = new Uint32Array(capacity);
  return {
    name: "order",
    values,
    write: (i, _row, place) => {
      values[i] = place;
    },
  };
}

/**
 * @param {string} name
 * @returns {Column}
 */
function textColumn(name) {
  /** @type {string[]} */
  const values = [];
  return {
    name,
    values,
    write: (i, row, _place, texts) => {
      values[i] = texts.of(row[name]);
    },
  };
}

/**
 * @param {string} name
 * @param {number} capacity
 * @returns {Column}
 */
function doubleColumn(name, capacity) {
  const values = new Float64Array(capacity);
  const raw = new BigUint64Array(values.buffer);
  return {
    name,
    values,
    write: (i, row) => {
      const place = row[name];
      if (Number.isNaN(place.x)) raw[i] = place.nan;
      else values[i] = place.x;
    },
  };
}
