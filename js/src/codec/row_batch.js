// Rows of a channel as objects.

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

/** Rows of a channel as objects. */
export class RowBatch {
  rows = [];

  constructor(channel, texts, seq, isSnapshot) {
    this.channel = channel;
    this.texts = texts;
    this.seq = seq;
    this.isSnapshot = isSnapshot;
  }

  reserve() {}

  add(row) {
    const made = ROW_OF[row.family](row, this.channel.symbol, this.isSnapshot, this.texts);
    if (this.channel.isBigint) {
      made.recv_ns = row.recv_ns;
      if (row.event_ns !== undefined) made.event_ns = row.event_ns;
    }
    this.rows.push(made);
  }

  finish() {
    const { channel, seq, isSnapshot, rows } = this;
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
