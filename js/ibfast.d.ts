// Types of ibfast.js. Names of fields are those of docs/stream-protocol.md.

export type Family = "quotes" | "trades" | "ticks" | "depth" | "bars" | "greeks";
export type DataType = "TRADES" | "QUOTES" | "TICKS" | "DEPTH" | "BARS" | "GREEKS" | "ALL";

/** The peer sent a message that the protocol does not permit. */
export class ProtocolError extends Error {}

/** A request was refused, or something has ended. */
export class StreamError extends Error {
  /** One of the protocol's codes; or CLOSED (by `close`), DISCONNECTED, TIMEOUT. */
  readonly code: string;
  constructor(code: string, message: string, options?: { cause?: unknown });
}

/** What a row was made of: its `kind`. */
export const Kind: Readonly<{
  PRICE: 1;
  SIZE: 2;
  GENERIC: 3;
  STRING: 4;
  LAST: 5;
  ALL_LAST: 6;
  RT_VOLUME: 7;
  L1_LAST: 8;
  BID_ASK: 9;
  MIDPOINT: 10;
  L1_QUOTE: 11;
  DEPTH: 12;
  DEPTH_L2: 13;
  REALTIME_BAR: 14;
  UPDATE_BAR: 15;
  OPTION: 16;
  GAP: 17;
  DEPTH_RESET: 18;
  BACKFILL_TRADE: 19;
  BACKFILL_QUOTE: 20;
  BACKFILL_BAR: 21;
}>;

/** What every row has. Absent numbers are NaN, absent times 0, absent texts "". */
export interface Header {
  family: Family;
  symbol: string;
  /** The row is state, and no news. */
  snapshot: boolean;
  /** The row's number in the server's feed, where the subscription is `ordered`; else 0. */
  seq: number;
  /** When the server's machine read it from the gateway: microseconds since 1970, UTC. */
  recv_us: number;
  /** The same in nanoseconds, where the subscription was made with `bigint`. */
  recv_ns?: bigint;
  kind: number;
}

export interface Quote extends Header {
  family: "quotes";
  attribs: number;
  event_us: number;
  event_ns?: bigint;
  bid: number;
  ask: number;
  bid_size: number;
  ask_size: number;
}

export interface Trade extends Header {
  family: "trades";
  attribs: number;
  event_us: number;
  event_ns?: bigint;
  price: number;
  size: number;
  exchange: string;
  conditions: string;
}

export interface Tick extends Header {
  family: "ticks";
  /** −1 if absent. */
  tick_type: number;
  attribs: number;
  text: string;
  price: number;
  size: number;
}

/** An operation on the book. A snapshot of it is inserts, best level first. */
export interface Depth extends Header {
  family: "depth";
  /** 0 insert, 1 update, 2 delete; 255 if absent. */
  operation: number;
  /** 0 ask, 1 bid; 255 if absent. */
  side: number;
  attribs: number;
  position: number;
  price: number;
  size: number;
  market_maker: string;
}

export interface Bar extends Header {
  family: "bars";
  count: number;
  event_us: number;
  event_ns?: bigint;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  wap: number;
}

export interface Greeks extends Header {
  family: "greeks";
  tick_type: number;
  attribs: number;
  implied_vol: number;
  delta: number;
  option_price: number;
  pv_dividend: number;
  gamma: number;
  vega: number;
  theta: number;
  und_price: number;
}

export type Row = Quote | Trade | Tick | Depth | Bar | Greeks;

interface BatchHeader {
  type: "rows";
  /** The channel's number on this connection. */
  channel: number;
  symbol: string;
  /** Where the contract is asked for, such as "SMART". */
  exchange: string;
  /** With these rows everything has come up to here. */
  seq: number;
  snapshot: boolean;
  length: number;
}

/** Rows of one channel that came together, in their order. */
export interface RowBatch extends BatchHeader {
  rows: Row[];
  columns?: undefined;
}

/** The same of one family, as columns. Doubles are exact to the bit; texts are arrays of strings. */
export interface ColumnBatch extends BatchHeader {
  rows?: undefined;
  family: Family;
  /** By name. `order`: the places of the rows among all of the channel that came together. */
  columns: Record<string, Float64Array | BigInt64Array | Int32Array | Uint32Array | Uint8Array | string[]>;
}

export type Batch = RowBatch | ColumnBatch;

/** Rows were left out: those after `from_seq` up to `to_seq`. The state follows as a snapshot. */
export interface Lag {
  type: "lag";
  /**
   * What was too slow, or missing. slow: the connection; overrun: the server's reader; incomplete: the same, and the
   * state that follows is not whole; resume: there was no connection; queue: the consumer that iterates.
   */
  reason: "slow" | "overrun" | "incomplete" | "resume" | "queue";
  from_seq: number;
  to_seq: number;
  /** How many rows, null where it is not known. */
  rows: number | null;
  channel?: number;
}

/** The source itself was interrupted; a row of the feed's `gaps`. */
export interface Gap {
  type: "gap";
  channel?: number | null;
  scope: string;
  cause: string;
  recovered: boolean;
  first_seq: number;
  last_seq: number;
  first_ns: number;
  last_ns: number;
}

/** SUBSCRIBED, RESUMED (nothing is missing), RECONNECTING; or the state of the subscription at IB. */
export interface State {
  type: "state";
  state: string;
  reason: string;
}

/** The rate was lowered, since the connection can't take more, or is what it was again. */
export interface Slowed {
  type: "slowed";
  interval_ms: number;
}

export interface Ended {
  type: "ended";
  code: string;
  message: string;
}

export type SubscriptionEvent = Batch | Lag | Gap | State | Slowed | Ended;

export type ClientEvent =
  | { type: "state"; state: ClientState; reason: string }
  /** The server broke the protocol, or a callback of yours has thrown. */
  | { type: "error"; error: Error }
  /** A gap in all channels. */
  | Gap;

export type ClientState = "connecting" | "open" | "reconnecting" | "closed";

/** The fields of the protocol's `subscribe`. */
export interface SubscribeRequest {
  /** A stock; or else `contract`. */
  symbol?: string;
  /** The fields of an `ibfast.Contract`; a combo (`sec_type` `BAG`) has `combo_legs`, a list of objects. */
  contract?: Record<string, unknown>;
  data_type?: DataType;
  mode?: "stream" | "conflate" | "snapshot";
  interval_ms?: number;
  fields?: string[];
  times?: "us" | "ns";
  ordered?: boolean;
  on_slow?: "conflate" | "close";
}

export interface SubscribeOptions {
  /** Rows as columns instead of objects. Columns are made per channel and window: useful where windows are long. */
  columns?: boolean;
  /** 64-bit times as BigInt, beside those in microseconds (in columns instead of them). */
  bigint?: boolean;
  /** Rows that may wait for the consumer (65,536). Rows beyond are reported as a lag; the state takes their place. */
  maxRows?: number;
  /** Called with every event, in order. Then there is nothing to iterate over. */
  onEvent?: (event: SubscriptionEvent, subscription: Subscription) => void;
}

/** A channel, as the server describes it. */
export interface ChannelDescription {
  channel: number;
  /** What positions of the channel depend on. Each description has a new one. */
  epoch: string;
  symbol: string;
  con_id: number;
  exchange: string;
  instrument: number;
  families: Family[];
  class: number;
  span_ns: number;
  unit_ns: 1 | 1000;
  ordered: boolean;
  conflated: boolean;
}

/** A subscription. One consumer iterates over its rows, or over its events: both take from the same queue. */
export class Subscription implements AsyncIterable<Row | ColumnBatch> {
  private constructor();
  readonly symbol: string;
  readonly state: string;
  readonly reason: string;
  readonly channels: ChannelDescription[];
  /** Have another interval, one of the welcome's `intervals_ms`. */
  update(interval_ms: number): Promise<void>;
  unsubscribe(): Promise<void>;
  /** Rows, lags, gaps, states, in the order in which they came. Throws a StreamError if it ends by one. */
  events(): AsyncGenerator<SubscriptionEvent, void, void>;
  /** Rows (or batches of columns) alone. */
  [Symbol.asyncIterator](): AsyncGenerator<Row | ColumnBatch, void, void>;
}

export interface Welcome {
  op: "welcome";
  protocol: 1;
  server: string;
  time_ns: number;
  intervals_ms: number[];
  heartbeat_s: number;
  permissions: Record<string, unknown>;
}

/** The WebSocket class, as far as it is used. */
export interface WebSocketClass {
  new (url: string, protocols: string[]): WebSocketLike;
}

/** The members of a WebSocket that the client uses. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  // Browsers and the package `ws` have event types of their own.
  // biome-ignore-start lint/suspicious/noExplicitAny: no type is assignable from all of them
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  // biome-ignore-end lint/suspicious/noExplicitAny: see above
  send(text: string): void;
  close(code?: number): void;
}

export interface ConnectOptions {
  /** The server's token. A function is called before each connection. */
  token?: string | (() => string | Promise<string>);
  /** The class to use where there is no global one, as in Node before 22: that of the package `ws`. */
  WebSocket?: WebSocketClass;
  /** Random waits up to a bound that doubles from `baseMs` (1,000) to `capMs` (60,000). False: no further tries. */
  reconnect?: { baseMs?: number; capMs?: number } | false;
  onEvent?: (event: ClientEvent) => void;
}

export interface Pong {
  data: unknown;
  time_ns: number;
  positions: number[];
  round_trip_ms: number;
}

/** A client of a server: one connection, and the next one after it. Made by `connect`. */
export class Client {
  private constructor();
  readonly state: ClientState;
  readonly welcome: Welcome | null;
  /** Resolves when the server has accepted it; rejects with a StreamError if not. A string is a stock's symbol. */
  subscribe(request: string | SubscribeRequest, options?: SubscribeOptions): Promise<Subscription>;
  list(): Promise<Record<string, unknown>[]>;
  /** At most so many bytes a second, 0: as many as there are; of later connections too. */
  limit(max_bytes_per_s: number): Promise<unknown>;
  ping(data?: unknown): Promise<Pong>;
  /** End everything; resolves when the connection is closed. */
  close(): Promise<void>;
}

/**
 * Connect to a server; resolves when it has bidden welcome, rejects if the first try fails.
 *
 * From then on the client connects again by itself, and resumes: missed rows follow, or are reported as a lag.
 */
export function connect(url: string, options?: ConnectOptions): Promise<Client>;

/** Milliseconds to wait before the next try. */
export function backoffMs(attempt: number, policy?: { baseMs: number; capMs: number }, random?: () => number): number;

export type Message =
  | { type: "window"; class: number; seq: number; batches: Batch[] }
  | { type: "snapshot"; channel: number; time_ns: bigint; seq: number; batches: Batch[] }
  | {
      type: "lag";
      channel: number;
      reason: "slow" | "overrun" | "incomplete";
      from_seq: number;
      to_seq: number;
      rows: number | null;
    }
  | { type: "clock"; class: number }
  | { type: "text"; id: number; text: string };

/** A decoder of the binary messages of one connection, for programs that have a connection of their own. */
export class FrameDecoder {
  /** Expect a channel, as `subscribed` describes it. */
  open(described: ChannelDescription, options?: { columns?: boolean; bigint?: boolean }): void;
  close(channel: number): void;
  /** Return what a message says. Throws a ProtocolError; after that the decoder is of no use any more. */
  decode(message: ArrayBuffer | Uint8Array): Message;
  /** Return a channel's current rows, as its snapshot has them. */
  state(channel: number, seq?: number): Batch[];
}

/** A reader of the bits of a message, least significant first. */
export class Bits {
  position: number;
  end: number;
  readonly isAtEnd: boolean;
  load(message: Uint8Array): void;
  align(): void;
  bit(): number;
  bits(count: number): number;
  eg(k: number): number;
  uniform(n: number): number;
  varint(): number | bigint;
  i64(): bigint;
  u64(): bigint;
  rest(): Uint8Array;
}
