// Rows of a channel as objects: those of one piece, or of a state.

/**
 * @import { Row, RowBatch } from "../../ibfast.js"
 * @import { AnyRow, Channel } from "./channel.js"
 * @import { Texts } from "./texts.js"
 */

/**
 * What makes an object of a remembered row, by family. A literal for each: objects of one shape are fast.
 *
 * @type {{
 *   [Name in AnyRow["family"]]: (
 *     row: Extract<AnyRow, { family: Name }>, symbol: string, snapshot: boolean, texts: Texts
 *   ) => Extract<Row, { family: Name }>
 * }}
 */
const ROW_OF = {
  quotes: (row, symbol, snapshot) => ({
    family: "quotes",
    symbol,
    snapshot,
    seq: row.seq,
    recv_us: row.recv_us,
    kind: row.kind,
    attribs: row.attribs,
    event_us: row.event_us,
    bid: row.bid.x,
    ask: row.ask.x,
    bid_size: row.bid_size.x,
    ask_size: row.ask_size.x,
  }),
  trades: (row, symbol, snapshot, texts) => ({
    family: "trades",
    symbol,
    snapshot,
    seq: row.seq,
    recv_us: row.recv_us,
    kind: row.kind,
    attribs: row.attribs,
    event_us: row.event_us,
    price: row.price.x,
    size: row.size.x,
    exchange: texts.of(row.exchange),
    conditions: texts.of(row.conditions),
  }),
  ticks: (row, symbol, snapshot, texts) => ({
    family: "ticks",
    symbol,
    snapshot,
    seq: row.seq,
    recv_us: row.recv_us,
    kind: row.kind,
    tick_type: row.tick_type,
    attribs: row.attribs,
    text: texts.of(row.text),
    price: row.price.x,
    size: row.size.x,
  }),
  depth: (row, symbol, snapshot, texts) => ({
    family: "depth",
    symbol,
    snapshot,
    seq: row.seq,
    recv_us: row.recv_us,
    kind: row.kind,
    operation: row.operation,
    side: row.side,
    attribs: row.attribs,
    position: row.position,
    price: row.price.x,
    size: row.size.x,
    market_maker: texts.of(row.market_maker),
  }),
  bars: (row, symbol, snapshot) => ({
    family: "bars",
    symbol,
    snapshot,
    seq: row.seq,
    recv_us: row.recv_us,
    kind: row.kind,
    count: row.count,
    event_us: row.event_us,
    open: row.open.x,
    high: row.high.x,
    low: row.low.x,
    close: row.close.x,
    volume: row.volume.x,
    wap: row.wap.x,
  }),
  greeks: (row, symbol, snapshot) => ({
    family: "greeks",
    symbol,
    snapshot,
    seq: row.seq,
    recv_us: row.recv_us,
    kind: row.kind,
    tick_type: row.tick_type,
    attribs: row.attribs,
    implied_vol: row.implied_vol.x,
    delta: row.delta.x,
    option_price: row.option_price.x,
    pv_dividend: row.pv_dividend.x,
    gamma: row.gamma.x,
    vega: row.vega.x,
    theta: row.theta.x,
    und_price: row.und_price.x,
  }),
};

/** Makes a batch of objects. */
export class RowBatchWriter {
  /** @type {Row[]} */
  #rows = [];

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

  /** @param {number} _count how many rows come */
  reserve(_count) {}

  /**
   * Add a remembered row as it is now.
   *
   * @param {AnyRow} row
   */
  add(row) {
    // The table's types pair each family with its row, which a lookup by row.family does not keep.
    const make = /** @type {(...values: any[]) => Row} */ (ROW_OF[row.family]);
    const made = make(row, this.channel.symbol, this.isSnapshot, this.texts);
    if (this.channel.isBigint) {
      made.recv_ns = row.recv_ns;
      if ("event_us" in made) made.event_ns = /** @type {{ event_ns?: bigint }} */ (row).event_ns;
    }
    this.#rows.push(made);
  }

  /**
   * Return the batch; none if it has no rows and is no snapshot.
   *
   * @returns {RowBatch[]}
   */
  finish() {
    const { channel, seq, isSnapshot } = this;
    const rows = this.#rows;
    if (rows.length === 0 && !isSnapshot) return [];
    return [
      {
        type: "rows",
        channel: channel.id,
        symbol: channel.symbol,
        exchange: channel.exchange,
        seq,
        snapshot: isSnapshot,
        rows,
        length: rows.length,
      },
    ];
  }
}
