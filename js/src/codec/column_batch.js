// Rows of a channel as columns: typed arrays by family.

import { GREEKS } from "./greeks.js";

const TEXT = "text";
const TIME = "time";
const DOUBLE = "double";
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

/** Rows of a channel as columns, by family; doubles to the bit, NaN payloads included. */
export class ColumnBatch {
  #families = new Map();
  #capacity = 0;
  #count = 0;

  constructor(channel, texts, seq, isSnapshot) {
    this.channel = channel;
    this.texts = texts;
    this.seq = seq;
    this.isSnapshot = isSnapshot;
  }

  reserve(count) {
    this.#capacity = count;
  }

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

  finish() {
    const { channel, seq, isSnapshot } = this;
    const batches = [...this.#families].map(([family, { length, columns }]) => ({
      type: "rows",
      channel: channel.id,
      symbol: channel.symbol,
      exchange: channel.exchange,
      seq,
      snapshot: isSnapshot,
      family,
      length,
      columns: Object.fromEntries(
        columns.map(({ name, values }) => [name, values.length === length ? values : values.slice(0, length)]),
      ),
    }));
    if (batches.length > 0 || !isSnapshot) return batches;
    return [
      {
        type: "rows",
        channel: channel.id,
        symbol: channel.symbol,
        exchange: channel.exchange,
        seq,
        snapshot: true,
        family: channel.described.families[0],
        length: 0,
        columns: {},
      },
    ];
  }
}

function columnsOf(family, capacity, isBigint) {
  const plain = (name, values) => ({
    name,
    values,
    write: (i, row) => {
      values[i] = row[name];
    },
  });
  const time = (name) =>
    isBigint ? plain(`${name}_ns`, new BigInt64Array(capacity)) : plain(`${name}_us`, new Float64Array(capacity));
  const order = new Uint32Array(capacity);
  const columns = [
    plain("seq", new Float64Array(capacity)),
    time("recv"),
    plain("kind", new Uint8Array(capacity)),
    {
      name: "order",
      values: order,
      write: (i, _row, place) => {
        order[i] = place;
      },
    },
  ];
  for (const [name, type] of Object.entries(FIELDS[family])) {
    if (type === TIME) columns.push(time(name));
    else if (type === TEXT) columns.push(textColumn(name));
    else if (type === DOUBLE) columns.push(doubleColumn(name, capacity));
    else columns.push(plain(name, new type(capacity)));
  }
  return columns;
}

function textColumn(name) {
  const values = [];
  return {
    name,
    values,
    write: (i, row, _place, texts) => {
      values[i] = texts.of(row[name]);
    },
  };
}

function doubleColumn(name, capacity) {
  const values = new Float64Array(capacity);
  const raw = new BigUint64Array(values.buffer);
  return {
    name,
    values,
    write: (i, row) => {
      const place = row[name];
      if (place.x !== place.x) raw[i] = place.nan;
      else values[i] = place.x;
    },
  };
}
