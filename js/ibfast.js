// Market data from an ibfast fan-out server, for browsers and Node: the client of the stream protocol, version 1.
//
// The rule of the file: docs/stream-protocol.md and nothing else. Of four parts each knows only those above it: bits;
// channels and what they remember; FrameDecoder, which knows no connection; Client. What a server may not send is a
// ProtocolError, and the end of that connection. A decoder never reads beyond its message.

const SUBPROTOCOL = "ibfast.v1.binary";
const PROTOCOL_VERSION = 1;
const MAX_MESSAGE_BYTES = 1 << 26;
const MOST_UNANSWERED = 64;
const WELCOME_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 2_000;
const PAUSE_MS = 2;
const MOST_PAUSE_MS = 1_000;
const SILENT_HEARTBEATS = 3;
const STABLE_MS = 30_000;
/** What need not last: after how many milliseconds to ask again for what the server has had before. */
const PASSING_CODES_MS = { TOO_FAST: 1_000, NO_GATEWAY: 5_000, TOO_MANY: 5_000 };
const DEFAULT_MAX_ROWS = 65_536;
const MOST_KEPT_EVENTS = 256;
const DEFAULT_RECONNECT = { baseMs: 1_000, capMs: 60_000 };

/** The server, or whoever speaks in its place, has sent what the protocol does not permit. */
export class ProtocolError extends Error {
  name = "ProtocolError";
}

/** Something was refused or has ended; `code` is one of the protocol's, or CLOSED, DISCONNECTED, TIMEOUT. */
export class StreamError extends Error {
  name = "StreamError";

  constructor(code, message, options) {
    super(`${code}: ${message}`, options);
    this.code = code;
  }
}

/** What a row was made of: its `kind`. */
export const Kind = Object.freeze({
  PRICE: 1,
  SIZE: 2,
  GENERIC: 3,
  STRING: 4,
  LAST: 5,
  ALL_LAST: 6,
  RT_VOLUME: 7,
  L1_LAST: 8,
  BID_ASK: 9,
  MIDPOINT: 10,
  L1_QUOTE: 11,
  DEPTH: 12,
  DEPTH_L2: 13,
  REALTIME_BAR: 14,
  UPDATE_BAR: 15,
  OPTION: 16,
  GAP: 17,
  DEPTH_RESET: 18,
  BACKFILL_TRADE: 19,
  BACKFILL_QUOTE: 20,
  BACKFILL_BAR: 21,
});

function fail(message) {
  throw new ProtocolError(message);
}

// --- bits ---

// Literals, since the language does not promise that 10 ** d is correctly rounded. All are exact doubles.
const POWERS_OF_TEN = [
  1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
  1e21, 1e22,
];
const POWERS_OF_TWO = Array.from({ length: 54 }, (_, exponent) => Number(1n << BigInt(exponent)));
const POWERS_OF_1000 = [1n, 1000n, 1000_000n, 1000_000_000n];
const TWO_32 = 4294967296;
const PADDING = 16;

/** Bits of a message, least significant first, read a word at a time. */
export class Bits {
  #bytes = new Uint8Array(256 + PADDING);
  #view = new DataView(this.#bytes.buffer);
  /** In bits, as is `end`. */
  position = 0;
  end = 0;

  /** Begin with a message (a Uint8Array). It is copied, with zeros after it, so that words can be read at its end. */
  load(message) {
    const size = message.length;
    if (size > MAX_MESSAGE_BYTES) fail(`a message of ${size} bytes`);
    if (size + PADDING > this.#bytes.length) {
      this.#bytes = new Uint8Array(2 * size + PADDING);
      this.#view = new DataView(this.#bytes.buffer);
    }
    this.#bytes.set(message);
    this.#bytes.fill(0, size, size + PADDING);
    this.position = 0;
    this.end = size * 8;
  }

  get isAtEnd() {
    return this.position >= this.end;
  }

  /** Go on at the next whole byte. */
  align() {
    this.position = (this.position + 7) & ~7;
  }

  bit() {
    const at = this.position;
    this.#advance(1);
    return (this.#bytes[at >>> 3] >>> (at & 7)) & 1;
  }

  /** Return a number of 0 to 32 bits. */
  bits(count) {
    if (count === 0) return 0;
    const word = this.#word();
    this.#advance(count);
    return (word << (32 - count)) >>> (32 - count);
  }

  /** Return an Exp-Golomb number, below 2^53. */
  eg(k) {
    const word = this.#word();
    if (word !== 0) {
      const zeros = 31 - Math.clz32(word & -word);
      const size = zeros + k;
      if (zeros + size < 32) {
        this.#advance(zeros + 1 + size);
        const low = (word >>> (zeros + 1)) & ((1 << size) - 1);
        return zeros === 0 ? low : low + POWERS_OF_TWO[size] - POWERS_OF_TWO[k];
      }
    }
    return this.#longEg(k);
  }

  /** Return a number below n, of 1 ≤ n < 2^31. */
  uniform(n) {
    if (n === 1) return 0;
    const size = 32 - Math.clz32(n - 1);
    const unused = POWERS_OF_TWO[size] - n;
    const low = this.bits(size - 1);
    return low < unused ? low : low * 2 + this.bit() - unused;
  }

  /** Return a LEB128 number of whole bytes: a Number, or a BigInt where it is no safe integer. */
  varint() {
    let value = 0;
    for (let i = 0; i < 9; i++) {
      const byte = this.bits(8);
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return Number.isSafeInteger(value) ? value : this.#longVarint(i + 1);
    }
    return fail("a varint of more than 63 bits");
  }

  i64() {
    this.#load64();
    return scratch.getBigInt64(0, true);
  }

  u64() {
    this.#load64();
    return scratch.getBigUint64(0, true);
  }

  /** Put the 64 bits of a double into a place; its n stays. */
  double(place) {
    this.#load64();
    place.takeScratch();
  }

  /** Return the bytes that are left. */
  rest() {
    const bytes = this.#bytes.subarray(this.position >>> 3, this.end >>> 3);
    this.position = this.end;
    return bytes;
  }

  #load64() {
    scratch.setUint32(0, this.bits(32), true);
    scratch.setUint32(4, this.bits(32), true);
  }

  /** 32 bits from here on; those after the end are zeros. */
  #word() {
    const at = this.position >>> 3;
    const shift = this.position & 7;
    const low = this.#view.getUint32(at, true);
    return shift === 0 ? low | 0 : (low >>> shift) | (this.#bytes[at + 4] << (32 - shift));
  }

  #advance(count) {
    this.position += count;
    if (this.position > this.end) fail("a message ends in the middle");
  }

  #longEg(k) {
    let zeros = 0;
    let word = this.#word();
    while (word === 0) {
      zeros += 32;
      if (zeros + k > 52) fail("a number of more than 53 bits");
      this.#advance(32);
      word = this.#word();
    }
    const more = 31 - Math.clz32(word & -word);
    const size = zeros + more + k;
    if (size > 52) fail("a number of more than 53 bits");
    this.#advance(more + 1);
    const low = size > 32 ? this.bits(32) + this.bits(size - 32) * TWO_32 : this.bits(size);
    return low + (POWERS_OF_TWO[size] - POWERS_OF_TWO[k]);
  }

  #longVarint(count) {
    this.position -= 8 * count;
    let value = 0n;
    for (let i = 0; i < count; i++) value |= BigInt(this.bits(8) & 127) << BigInt(7 * i);
    return value;
  }
}

const scratch = new DataView(new ArrayBuffer(8));

function unzigzag(v) {
  return v % 2 === 0 ? v / 2 : -(v + 1) / 2;
}

function within(value, least, most, what) {
  if (!(value >= least && value <= most)) fail(`${what} is out of range`);
  return value;
}

const U8 = 0xff;
const U32 = 0xffffffff;
const I32_MIN = -(2 ** 31);
const I32_MAX = 2 ** 31 - 1;
const EXACT = 2 ** 51;
const NAN_BITS = 0x7ff8000000000000n;

// --- what a channel remembers ---

/** A double to the bit, and its last place on a grid. `nan`: the bits where it is NaN, which a Number does not keep. */
class Place {
  x = NaN;
  n = 0;
  nan = NAN_BITS;

  take(other) {
    this.x = other.x;
    this.n = other.n;
    this.nan = other.nan;
  }

  takeScratch() {
    this.x = scratch.getFloat64(0, true);
    if (this.x !== this.x) this.nan = scratch.getBigUint64(0, true);
  }

  toScratch() {
    if (this.x !== this.x) scratch.setBigUint64(0, this.nan, true);
    else scratch.setFloat64(0, this.x, true);
  }

  isSame(other) {
    if (this.x !== this.x) return other.x !== other.x && this.nan === other.nan;
    return Object.is(this.x, other.x);
  }

  copy() {
    const copy = new Place();
    copy.take(this);
    return copy;
  }
}

/** Where most of a channel's numbers lie: value = n·step / 10^decimals. */
class Grid {
  constructor(bits) {
    this.step = within(bits.bits(16), 1, 65535, "a grid's step");
    this.decimals = within(bits.bits(4), 0, 14, "a grid's decimals");
    this.divisor = POWERS_OF_TEN[this.decimals];
  }

  put(place, n) {
    const product = n * this.step;
    if (!(product < EXACT && product > -EXACT)) fail("a number is beyond its grid");
    place.n = n;
    place.x = product / this.divisor;
  }

  /** Read a changed number. */
  change(bits, place, k, isFresh) {
    const v = bits.eg(k);
    if (v === 0) this.#escape(bits, place);
    else this.put(place, isFresh ? v : place.n + unzigzag(v));
  }

  /** Read a number of a state. */
  restore(bits, place) {
    if (bits.bit() === 1) {
      this.put(place, unzigzag(bits.eg(12)));
    } else {
      bits.double(place);
      const { x } = place;
      this.put(place, unzigzag(bits.eg(12)));
      place.x = x;
    }
  }

  #escape(bits, place) {
    const how = bits.bits(2);
    if (how === 0) {
      place.x = NaN;
      place.nan = NAN_BITS;
    } else if (how === 1) {
      bits.double(place);
    } else if (how === 2) {
      const e = bits.bits(3) + 1;
      const near = place.n * this.step * POWERS_OF_TEN[e];
      const m = near + unzigzag(bits.eg(6));
      if (!(Math.abs(near) < EXACT && Math.abs(m) < EXACT)) fail("a number is beyond its grid");
      place.x = m / POWERS_OF_TEN[this.decimals + e];
    } else {
      this.put(place, unzigzag(bits.eg(12)));
    }
  }
}

/** The grids of a channel, in the order in which they are told. */
const GRIDS = ["price", "size", "tradeSize"];

/** Forget where numbers lie, as their grid has changed; what they are stays. */
function forgetPlaces(places) {
  for (const place of places) place.n = 0;
}

const WITH_BID = 2;
const BACK = 2;
const NOT_A_SHAPE = 3;

function checkedEvent(ns) {
  if (BigInt.asIntN(64, ns) !== ns) fail("event_ns is out of range");
  return ns;
}

/** Read event_ns. */
function eventOf(bits, channel, last) {
  const unit = bits.bits(3);
  if (unit < 4) return checkedEvent(last + BigInt(unzigzag(bits.eg(4))) * POWERS_OF_1000[unit]);
  if (unit === 7) return bits.i64();
  const d = BigInt(unzigzag(bits.eg(channel.k[7])));
  const size = POWERS_OF_1000[unit - 3];
  const recv = channel.recvNs();
  const floor = recv / size - (recv < 0n && recv % size !== 0n ? 1n : 0n);
  return checkedEvent((floor - d) * size);
}

/** Read an EXT of quotes or trades. */
function extend(bits, channel, meta) {
  const what = bits.bits(4);
  if (what === 0) channel.learn(bits);
  else if (what === 1) meta.kind = within(bits.eg(3), 0, U8, "kind");
  else if (what === 2) meta.attribs = within(bits.eg(3), 0, U32, "attribs");
  else if (what === 3) meta.setEvent(eventOf(bits, channel, meta.event_ns));
  else if (what === 4 && meta.exchange !== undefined) meta.exchange = within(bits.eg(3), 0, U32, "exchange");
  else if (what === 6) channel.regrid(bits);
  else if (what === 5 && meta.conditions !== undefined) meta.conditions = within(bits.eg(3), 0, U32, "conditions");
  else fail("an extension that does not exist");
}

/** Read the EXTs before a row of the other families. */
function extendKeyed(bits, channel) {
  while (bits.bit() === 1) {
    const what = bits.bits(4);
    if (what === 0) channel.learn(bits);
    else if (what === 6) channel.regrid(bits);
    else fail("an extension that does not exist");
  }
}

/** Read a column that is an integer. */
function integer(bits, channel, last, least, most) {
  return within(last + unzigzag(bits.eg(channel.k[7])), least, most, "an integer");
}

function restoredInteger(bits, least, most) {
  return within(unzigzag(bits.eg(3)), least, most, "an integer");
}

/** What every remembered row has. Times of rows are in µs; in ns too, where they are wanted so. */
class Remembered {
  seq = 0;
  recv_us = 0;
  recv_ns = 0n;
  kind = 0;
  attribs = 0;

  arrive(channel) {
    this.recv_us = channel.recv_us;
    if (channel.isBigint) this.recv_ns = channel.recvNs();
    this.seq = channel.rowSeq;
  }

  restoreTime(bits) {
    this.recv_ns = bits.i64();
    this.recv_us = toMicroseconds(this.recv_ns);
  }
}

class Timed extends Remembered {
  event_ns = 0n;
  event_us = 0;

  setEvent(ns) {
    this.event_ns = ns;
    this.event_us = toMicroseconds(ns);
  }
}

function toMicroseconds(ns) {
  return Number(ns / 1000n) + Number(ns % 1000n) / 1000;
}

/** A family of which the last row is remembered. */
class Top extends Timed {
  hasRow = false;

  restore(bits, channel) {
    if (bits.bit() === 0) return;
    this.hasRow = true;
    this.restoreTime(bits);
    this.kind = bits.bits(8);
    this.attribs = within(bits.eg(3), 0, U32, "attribs");
    this.setEvent(bits.i64());
    this.restoreRow(bits, channel);
  }

  records() {
    return this.hasRow ? [this] : [];
  }
}

class Quotes extends Top {
  family = "quotes";
  bid = new Place();
  ask = new Place();
  bid_size = new Place();
  ask_size = new Place();
  #bidBefore = new Place();
  #askBefore = new Place();
  #old = new Place();

  read(bits, channel) {
    let bid = 0;
    let ask = 0;
    let bidSize = 0;
    let askSize = 0;
    for (;;) {
      if (bits.bit() === 0) {
        if (bits.bit() === 0) bidSize = 1;
        else askSize = 1;
      } else if (bits.bit() === 0) {
        if (bits.bit() === 0) bidSize = BACK;
        else askSize = BACK;
      } else if (bits.bit() === 0) {
        bidSize = askSize = 1;
        if (bits.bit() === 0) [bid, ask] = [1, WITH_BID];
      } else if (bits.bit() === 0) {
        if (bits.bit() === 0) bid = bidSize = 1;
        else ask = askSize = 1;
      } else if (bits.bit() === 0) {
        bid = bits.bit();
        ask = bits.bits(2);
        bidSize = bits.bits(2);
        askSize = bits.bits(2);
        if (ask === NOT_A_SHAPE || bidSize === NOT_A_SHAPE || askSize === NOT_A_SHAPE)
          fail("a shape that does not exist");
      } else {
        extend(bits, channel, this);
        continue;
      }
      break;
    }
    const { price, k } = channel;
    const bidN = this.bid.n;
    if (bid === 1) price.change(bits, this.bid, k[2], false);
    if (ask === 1) price.change(bits, this.ask, k[2], false);
    else if (ask === WITH_BID) price.put(this.ask, this.ask.n + this.bid.n - bidN);
    if (bidSize !== 0) this.#changeSize(bits, channel, this.bid_size, this.#bidBefore, bidSize, bid !== 0);
    if (askSize !== 0) this.#changeSize(bits, channel, this.ask_size, this.#askBefore, askSize, ask !== 0);
    this.hasRow = true;
    return this;
  }

  restoreRow(bits, channel) {
    channel.price.restore(bits, this.bid);
    channel.price.restore(bits, this.ask);
    for (const place of [this.bid_size, this.ask_size, this.#bidBefore, this.#askBefore])
      channel.size.restore(bits, place);
  }

  forget(grid) {
    if (grid === "price") forgetPlaces([this.bid, this.ask]);
    else if (grid === "size") forgetPlaces([this.bid_size, this.ask_size, this.#bidBefore, this.#askBefore]);
  }

  #changeSize(bits, channel, place, before, how, isPriceNew) {
    const old = this.#old;
    old.take(place);
    if (how === BACK) place.take(before);
    else channel.size.change(bits, place, channel.k[isPriceNew ? 4 : 3], isPriceNew);
    before.take(old);
  }
}

class Trades extends Top {
  family = "trades";
  exchange = 0;
  conditions = 0;
  price = new Place();
  size = new Place();

  read(bits, channel) {
    while (bits.bit() === 1) extend(bits, channel, this);
    const { quotes } = channel;
    const { price } = this;
    if (bits.bit() === 1) {
      if (quotes === null) channel.price.change(bits, price, channel.k[5], false);
      else if (bits.bit() === 0) price.take(channel.side === 1 ? quotes.bid : quotes.ask);
      else if (bits.bit() === 0) price.take(channel.side === 1 ? quotes.ask : quotes.bid);
      else channel.price.change(bits, price, channel.k[5], false);
    }
    if (bits.bit() === 1) channel.tradeSize.change(bits, this.size, channel.k[6], true);
    if (quotes !== null) {
      if (price.isSame(quotes.ask)) channel.side = 1;
      else if (price.isSame(quotes.bid)) channel.side = 0;
    }
    this.hasRow = true;
    return this;
  }

  restoreRow(bits, channel) {
    this.exchange = within(bits.eg(3), 0, U32, "exchange");
    this.conditions = within(bits.eg(3), 0, U32, "conditions");
    channel.price.restore(bits, this.price);
    channel.tradeSize.restore(bits, this.size);
  }

  forget(grid) {
    if (grid === "price") forgetPlaces([this.price]);
    else if (grid === "tradeSize") forgetPlaces([this.size]);
  }
}

const MOST_REMEMBERED = 256;

function restoredCount(bits) {
  return within(bits.eg(3), 0, MOST_REMEMBERED, "the number of a state's rows");
}

/** A family whose last row of each key is remembered. */
class Keyed {
  rows = new Map();
  /** Columns by grid. */
  on = { price: ["price"], size: ["size"], tradeSize: [] };

  /** Return the remembered row of a key. */
  at(slot) {
    let row = this.rows.get(slot);
    if (row === undefined) {
      row = this.create();
      this.rows.set(slot, row);
    }
    return row;
  }

  read(bits, channel) {
    extendKeyed(bits, channel);
    const row = this.key(bits);
    this.change(bits, channel, row);
    return row;
  }

  restore(bits, channel) {
    for (let left = restoredCount(bits); left > 0; left--) {
      const row = this.key(bits);
      row.restoreTime(bits);
      this.restoreRow(bits, channel, row);
    }
  }

  forget(grid) {
    for (const row of this.rows.values()) forgetPlaces(this.on[grid].map((name) => row[name]));
  }

  records() {
    return [...this.rows].sort(([one], [other]) => one - other).map(([, row]) => row);
  }
}

const OTHER_TICK_TYPES = 254;

function tickTypeKey(family, bits) {
  const tickType = within(unzigzag(bits.eg(3)), I32_MIN, I32_MAX, "tick_type");
  const row = family.at(tickType < -1 || tickType > 253 ? OTHER_TICK_TYPES : tickType);
  row.tick_type = tickType;
  return row;
}

class TickRow extends Remembered {
  family = "ticks";
  tick_type = -1;
  text = 0;
  price = new Place();
  size = new Place();
}

class Ticks extends Keyed {
  create() {
    return new TickRow();
  }

  key(bits) {
    return tickTypeKey(this, bits);
  }

  change(bits, channel, row) {
    const news = bits.bits(5);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, 0, U32);
    if (news & 4) channel.price.change(bits, row.price, channel.k[2], false);
    if (news & 8) channel.size.change(bits, row.size, channel.k[3], false);
    if (news & 16) row.text = integer(bits, channel, row.text, 0, U32);
  }

  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, 0, U32);
    channel.price.restore(bits, row.price);
    channel.size.restore(bits, row.size);
    row.text = restoredInteger(bits, 0, U32);
  }
}

const INSERT = 0;
const UPDATE = 1;
const DELETE = 2;

class DepthRow extends Remembered {
  family = "depth";
  operation = 255;
  side = 255;
  position = 0;
  market_maker = 0;
  price = new Place();
  size = new Place();

  takeLevel(level) {
    this.price.take(level.price);
    this.size.take(level.size);
    this.market_maker = level.market_maker;
  }

  level() {
    return { price: this.price.copy(), size: this.size.copy(), market_maker: this.market_maker };
  }
}

class Depth extends Keyed {
  #sides = [[], []];
  #last = new DepthRow();

  create() {
    return new DepthRow();
  }

  key(bits) {
    const side = shortOrByte(bits);
    const operation = shortOrByte(bits);
    const row = this.at(Math.min(side, 2) * 2 + (operation === DELETE ? 1 : 0));
    row.side = side;
    row.operation = operation;
    return row;
  }

  change(bits, channel, row) {
    const news = bits.bits(6);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, 0, U8);
    if (news & 4) row.position = integer(bits, channel, row.position, I32_MIN, I32_MAX);
    const level = row.operation === UPDATE ? this.#sides[row.side]?.[row.position] : undefined;
    if (level !== undefined) row.takeLevel(level);
    if (news & 8) channel.price.change(bits, row.price, channel.k[2], false);
    if (news & 16) channel.size.change(bits, row.size, channel.k[3], false);
    if (news & 32) row.market_maker = integer(bits, channel, row.market_maker, 0, U32);
    this.#apply(row, channel);
  }

  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, 0, U8);
    row.position = restoredInteger(bits, I32_MIN, I32_MAX);
    channel.price.restore(bits, row.price);
    channel.size.restore(bits, row.size);
    row.market_maker = restoredInteger(bits, 0, U32);
  }

  restore(bits, channel) {
    super.restore(bits, channel);
    this.#last.kind = bits.bits(8);
    this.#last.attribs = bits.bits(8);
    this.#last.restoreTime(bits);
    for (const levels of this.#sides) {
      for (let left = restoredCount(bits); left > 0; left--) {
        const row = new DepthRow();
        channel.price.restore(bits, row.price);
        channel.size.restore(bits, row.size);
        row.market_maker = within(bits.eg(3), 0, U32, "market_maker");
        levels.push(row.level());
      }
    }
  }

  forget(grid) {
    super.forget(grid);
    for (const level of this.#sides.flat()) forgetPlaces(this.on[grid].map((name) => level[name]));
  }

  /** The book, as inserts. */
  records() {
    return this.#sides.flatMap((levels, side) =>
      levels.map((level, position) => {
        const row = Object.assign(new DepthRow(), { operation: INSERT, side, position });
        row.takeLevel(level);
        row.kind = this.#last.kind;
        row.attribs = this.#last.attribs;
        row.recv_us = this.#last.recv_us;
        row.recv_ns = this.#last.recv_ns;
        return row;
      }),
    );
  }

  #apply(row, channel) {
    if (row.kind === Kind.DEPTH_RESET) {
      this.#sides = [[], []];
      return;
    }
    this.#last.kind = row.kind;
    this.#last.attribs = row.attribs;
    this.#last.arrive(channel);
    const levels = this.#sides[row.side];
    const { position } = row;
    if (levels === undefined || position < 0) return;
    if (row.operation === INSERT && position <= levels.length) {
      levels.splice(position, 0, row.level());
      if (levels.length > MOST_REMEMBERED) levels.pop();
    } else if (row.operation === UPDATE && position <= levels.length && position < MOST_REMEMBERED) {
      levels[position] = row.level();
    } else if (row.operation === DELETE && position < levels.length) {
      levels.splice(position, 1);
    }
  }
}

function shortOrByte(bits) {
  const value = bits.bits(2);
  return value === 3 ? bits.bits(8) : value;
}

class BarRow extends Timed {
  family = "bars";
  growth = 0n;
  count = 0;
  open = new Place();
  high = new Place();
  low = new Place();
  close = new Place();
  volume = new Place();
  wap = new Place();
}

class Bars extends Keyed {
  on = { price: ["open", "high", "low", "close"], size: ["volume"], tradeSize: [] };

  create() {
    return new BarRow();
  }

  key() {
    return this.at(0);
  }

  change(bits, channel, row) {
    const news = bits.bits(9);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.count = integer(bits, channel, row.count, I32_MIN, I32_MAX);
    if (news & 4) {
      const before = row.event_ns;
      row.setEvent(eventOf(bits, channel, before));
      row.growth = BigInt.asIntN(64, row.event_ns - before);
    } else {
      row.setEvent(BigInt.asIntN(64, row.event_ns + row.growth));
    }
    if (news & 8) relate(bits, channel, row.open, row.close);
    if (news & 16) relate(bits, channel, row.high, row.open);
    if (news & 32) relate(bits, channel, row.low, row.open);
    if (news & 64) relate(bits, channel, row.close, row.open);
    if (news & 128) channel.size.change(bits, row.volume, channel.k[3], false);
    if (news & 256) xor(bits, row.wap);
  }

  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.count = restoredInteger(bits, I32_MIN, I32_MAX);
    row.setEvent(bits.i64());
    row.growth = bits.i64();
    for (const place of [row.open, row.high, row.low, row.close]) channel.price.restore(bits, place);
    channel.size.restore(bits, row.volume);
    bits.double(row.wap);
  }
}

/** Read a price that is told against another one. */
function relate(bits, channel, place, other) {
  const v = bits.eg(channel.k[2]);
  if (v === 0) bits.double(place);
  else channel.price.put(place, other.n + unzigzag(v - 1));
}

/** Read a double by the bytes in which it differs from the last. */
function xor(bits, place) {
  const leading = bits.bits(3);
  const trailing = bits.bits(3);
  if (leading + trailing > 7) fail("a double of no bytes");
  place.toScratch();
  for (let i = trailing; i < 8 - leading; i++) scratch.setUint8(i, scratch.getUint8(i) ^ bits.bits(8));
  place.takeScratch();
}

const GREEKS = ["implied_vol", "delta", "option_price", "pv_dividend", "gamma", "vega", "theta", "und_price"];

class GreeksRow extends Remembered {
  family = "greeks";
  tick_type = -1;
  implied_vol = new Place();
  delta = new Place();
  option_price = new Place();
  pv_dividend = new Place();
  gamma = new Place();
  vega = new Place();
  theta = new Place();
  und_price = new Place();
}

class Greeks extends Keyed {
  on = { price: [], size: [], tradeSize: [] };

  create() {
    return new GreeksRow();
  }

  key(bits) {
    return tickTypeKey(this, bits);
  }

  change(bits, channel, row) {
    const news = bits.bits(10);
    if (news & 1) row.kind = integer(bits, channel, row.kind, 0, U8);
    if (news & 2) row.attribs = integer(bits, channel, row.attribs, I32_MIN, I32_MAX);
    for (let i = 0; i < GREEKS.length; i++) if (news & (4 << i)) xor(bits, row[GREEKS[i]]);
  }

  restoreRow(bits, channel, row) {
    row.kind = restoredInteger(bits, 0, U8);
    row.attribs = restoredInteger(bits, I32_MIN, I32_MAX);
    for (const name of GREEKS) bits.double(row[name]);
  }
}

const FAMILIES = { quotes: Quotes, trades: Trades, ticks: Ticks, depth: Depth, bars: Bars, greeks: Greeks };

/** An open channel: what its description says, and its state. */
class Channel {
  constructor(described, options) {
    const { families, span_ns: span, unit_ns: unit } = described;
    if (!Array.isArray(families) || families.length === 0 || new Set(families).size < families.length)
      fail("a channel without families");
    if (families.some((name) => !Object.hasOwn(FAMILIES, name))) fail(`families that are not known: ${families}`);
    if (unit !== 1 && unit !== 1000) fail(`unit_ns of a channel: ${unit}`);
    if (!Number.isSafeInteger(span) || span < 0 || span % unit !== 0 || span / unit >= 2 ** 31)
      fail(`span_ns of a channel: ${span}`);
    this.described = described;
    this.id = described.channel;
    this.symbol = described.symbol;
    this.exchange = described.exchange;
    this.class = within(described.class, 0, 15, "a channel's class");
    this.unit = unit;
    this.span = span === 0 ? 1 : span / unit;
    this.windowNs = BigInt(span === 0 ? unit : span);
    this.isOrdered = described.ordered === true;
    this.isBigint = options.bigint === true;
    this.isColumns = options.columns === true;
    this.recv_us = 0;
    this.rowSeq = 0;
    this.startNs = 0n;
    this.offset = 0;
    this.void();
  }

  /** Forget the state: nothing can be read until there is a new one. */
  void() {
    this.hasState = false;
    this.k = new Uint8Array(8);
    this.side = 0;
    this.families = this.described.families.map((name) => new FAMILIES[name]());
    this.quotes = this.families.find((family) => family instanceof Quotes) ?? null;
  }

  recvNs() {
    return this.startNs + BigInt(this.offset * this.unit);
  }

  learn(bits) {
    const i = bits.bits(3);
    this.k[i] = bits.bits(5);
  }

  regrid(bits) {
    const grid = GRIDS[bits.bits(2)];
    if (grid === undefined) fail("a grid that does not exist");
    this[grid] = new Grid(bits);
    for (const family of this.families) family.forget(grid);
  }

  restore(bits) {
    this.void();
    for (const grid of GRIDS) this[grid] = new Grid(bits);
    for (let i = 0; i < 8; i++) this.k[i] = bits.bits(5);
    if (this.quotes !== null && this.families.some((family) => family instanceof Trades)) this.side = bits.bit();
    for (const family of this.families) family.restore(bits, this);
    bits.align();
    if (!bits.isAtEnd) fail("bytes after a state");
    this.hasState = true;
  }

  /** Read a piece of a window into `batch`. */
  readPiece(bits, start, windowSeq, batch) {
    const { families, k } = this;
    const last = families.length - 1;
    const usPerUnit = this.unit / 1000;
    this.startNs = start.ns;
    this.offset = 0;
    this.rowSeq = 0;
    const count = bits.eg(k[0]) + 1;
    // A row has one bit at least.
    if (count > bits.end - bits.position) fail("a message ends in the middle");
    batch.reserve(count);
    for (let i = 0; i < count; i++) {
      if (i === 0) this.offset = bits.uniform(this.span);
      else if (this.span > 1) this.offset = within(this.offset + bits.eg(k[1]), 0, I32_MAX, "a row's time");
      this.recv_us = start.us + this.offset * usPerUnit;
      if (this.isOrdered) {
        this.rowSeq = i === 0 ? windowSeq - bits.eg(5) : this.rowSeq + bits.eg(4);
        within(this.rowSeq, 0, windowSeq, "a row's seq");
      }
      let place = 0;
      while (place < last && bits.bit() === 1) place++;
      const row = families[place].read(bits, this);
      row.arrive(this);
      batch.add(row);
    }
  }

  /** Put the current rows into `batch`. */
  writeState(batch) {
    const rows = this.families.flatMap((family) => family.records());
    batch.reserve(rows.length);
    for (const row of rows) {
      // A state tells no seq of its rows; and this record goes on to be remembered.
      const { seq } = row;
      row.seq = 0;
      batch.add(row);
      row.seq = seq;
    }
  }
}

// --- rows ---

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

/** Text by id, as far as the connection has told them. */
class Texts extends Map {
  of(id) {
    if (id === 0) return "";
    return this.get(id) ?? fail(`text ${id}, which was not told`);
  }
}

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
class RowBatch {
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

/** Rows of a channel as columns, by family; doubles to the bit, NaN payloads included. */
class ColumnBatch {
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

// --- messages ---

const CLOCK = 0x10;
const SNAPSHOT = 0x20;
const LAG = 0x30;
const TEXT_MESSAGE = 0x40;
const WINDOW = 0x80;
const CLASSES = 16;
const LAG_REASONS = ["slow", "overrun", "incomplete"];
const SKIP = 7;

function safeSeq(seq) {
  if (seq > BigInt(Number.MAX_SAFE_INTEGER) || seq < 0n) fail(`seq ${seq} is out of range`);
  return Number(seq);
}

function startOf(ns) {
  if (BigInt.asIntN(64, ns) !== ns) fail("a window's time is out of range");
  return { ns, us: toMicroseconds(ns) };
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

// --- the connection ---

/** Return the milliseconds to wait before the next try: any time up to a bound that doubles ("full jitter"). */
export function backoffMs(attempt, { baseMs, capMs } = DEFAULT_RECONNECT, random = Math.random) {
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}

/** Events on their way to whoever iterates; bounded. What does not fit is left out, told, and replaced by the state. */
class Queue {
  #maxRows;
  #events = [];
  #head = 0;
  #size = 0;
  #takenSeq = 0;
  #newestSeq = 0;
  #waiting = [];
  #end = null;

  constructor(maxRows) {
    this.#maxRows = maxRows;
  }

  /** Take in an event; `state()` returns the events that stand for all before. */
  push(event, state) {
    if (event.type === "rows") this.#newestSeq = Math.max(this.#newestSeq, event.seq);
    const isFull = this.#size > 0 && this.#size + sizeOf(event) > this.#maxRows;
    for (const one of isFull ? this.#replace(event, state()) : [event]) {
      this.#events.push(one);
      this.#size += sizeOf(one);
    }
    this.#wake();
  }

  end(error) {
    this.#end ??= { error };
    this.#wake();
  }

  /** Resolve to the next event; undefined: there is none any more. Rejects where it ended by an error. */
  async next() {
    while (this.#head === this.#events.length) {
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return undefined;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    const event = this.#events[this.#head++];
    if (this.#head > 1024 && this.#head * 2 > this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    this.#size -= sizeOf(event);
    if (event.seq !== undefined) this.#takenSeq = Math.max(this.#takenSeq, event.seq);
    return event;
  }

  /** Leave out all that waits, and `event`; return what takes its place. */
  #replace(event, state) {
    let rows = 0;
    const kept = [];
    for (const old of [...this.#events.slice(this.#head), event]) {
      if (old.type === "rows") rows += old.snapshot ? 0 : old.length;
      else if (old.type === "lag") rows += old.rows ?? NaN;
      else kept.push(old);
    }
    this.#events = [];
    this.#head = this.#size = 0;
    const lag = { type: "lag", reason: "queue", from_seq: this.#takenSeq, to_seq: this.#newestSeq };
    lag.rows = Number.isNaN(rows) ? null : rows;
    return [...kept.slice(-MOST_KEPT_EVENTS), lag, ...state];
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function sizeOf(event) {
  return event.type === "rows" ? Math.max(1, event.length) : 1;
}

/** Call a user's function; what it throws is the trouble of `report` and of nobody else. */
function tell(report, callback, ...values) {
  try {
    callback?.(...values);
  } catch (error) {
    report(error);
  }
}

function reportUncaught(error) {
  queueMicrotask(() => {
    throw error;
  });
}

/** A subscription that is wanted, whatever happens to connections. */
class Wish {
  number = null;
  /** Of the current connection: what is known of its channel. */
  owner = null;
  channels = [];
  /** From where it can go on: `resume`, and the interval_ms that was asked for then. null: only its state can come. */
  seen = null;
  state = "PENDING";
  reason = "";
  wasLive = false;
  isOver = false;

  constructor(body, options, report) {
    this.body = body;
    this.options = options;
    this.report = report;
    this.queue = options.onEvent === undefined ? new Queue(options.maxRows ?? DEFAULT_MAX_ROWS) : null;
    this.face = null;
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  deliver(event, state) {
    if (this.isOver) return;
    if (this.queue === null) tell(this.report, this.options.onEvent, event, this.face);
    else this.queue.push(event, state);
  }

  /** Nothing of it follows. */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.state = "ENDED";
    this.queue?.end(error);
    this.reject(error ?? new StreamError("CLOSED", "the subscription was given up"));
  }

  /** Before the connection's channel is forgotten, note up to where everything has come, if it has its state. */
  remember() {
    if (this.owner === null || !this.owner.isReady) return;
    const { epoch, seq, class: cls } = this.owner;
    this.seen = { resume: { epoch, position: CLASSES * seq + cls }, interval_ms: this.body.interval_ms };
  }
}

/** A subscription: an async iterable of its rows. */
export class Subscription {
  #wish;
  #acts;

  constructor(wish, acts) {
    this.#wish = wish;
    this.#acts = acts;
  }

  get symbol() {
    return this.#wish.channels[0]?.symbol ?? this.#wish.body.symbol ?? this.#wish.body.contract?.symbol;
  }

  get state() {
    return this.#wish.state;
  }

  get reason() {
    return this.#wish.reason;
  }

  /** The channels as the server describes them. */
  get channels() {
    return this.#wish.channels;
  }

  update(interval_ms) {
    return this.#acts.update(interval_ms);
  }

  unsubscribe() {
    return this.#acts.unsubscribe();
  }

  async *events() {
    const { queue } = this.#wish;
    if (queue === null) throw new TypeError("this subscription's events go to its onEvent");
    for (let event = await queue.next(); event !== undefined; event = await queue.next()) yield event;
  }

  async *[Symbol.asyncIterator]() {
    for await (const event of this.events()) {
      if (event.type !== "rows") continue;
      if (event.rows === undefined) yield event;
      else yield* event.rows;
    }
  }
}

// A WebSocket's readyState.
const OPEN = 1;
const CLOSING = 2;

const ANSWERS = {
  subscribed: "subscribe",
  updated: "update",
  unsubscribed: "unsubscribe",
  limited: "limit",
  subscriptions: "list",
  pong: "ping",
};

function requireWhole(said, name) {
  if (!Number.isInteger(said[name]) || said[name] < 0) fail(`${said.op}: ${name} is ${said[name]}`);
  return said[name];
}

function requireText(said, name) {
  if (typeof said[name] !== "string") fail(`${said.op}: ${name} is ${said[name]}`);
  return said[name];
}

/** A client of a server: one connection, and the next one after it. Made by `connect`. */
export class Client {
  state = "connecting";
  welcome = null;
  #url;
  #options;
  #reconnect;
  #WebSocket;
  #attempt = 0;
  #wishes = new Set();
  #limit = 0;
  #pauseMs = PAUSE_MS;
  #lastId = 0;
  #timers = new Set();
  #opened = null;
  #gone = null;

  // What dies with a connection.
  #socket = null;
  #decoder = null;
  #requests = new Map();
  #outbox = [];
  #early = new Set();
  #pauses = 0;
  #owners = new Map();
  #byNumber = new Map();
  #heardMs = 0;
  #welcomedMs = 0;
  #closing = null;
  #trouble = "";

  constructor(url, options) {
    this.#url = url;
    this.#options = options;
    this.#reconnect = options.reconnect === false ? null : { ...DEFAULT_RECONNECT, ...options.reconnect };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (this.#WebSocket === undefined)
      throw new TypeError("there is no WebSocket here: give a class as options.WebSocket");
  }

  /** Resolve when the server has bidden welcome; reject if the first try fails. */
  open() {
    return new Promise((resolve, reject) => {
      this.#opened = { resolve, reject };
      this.#connect();
    });
  }

  // What users ask.

  async subscribe(request, options = {}) {
    this.#requireUse();
    const wish = new Wish(typeof request === "string" ? { symbol: request } : { ...request }, options, (error) =>
      this.#options.onEvent === undefined ? reportUncaught(error) : this.#tell({ type: "error", error }),
    );
    wish.face = new Subscription(wish, {
      update: (interval_ms) => this.#update(wish, interval_ms),
      unsubscribe: () => this.#unsubscribe(wish),
    });
    this.#wishes.add(wish);
    if (this.state === "open") this.#ask("subscribe", wish).catch(() => {});
    return wish.answer;
  }

  async list() {
    return (await this.#askAnything("list")).subscriptions;
  }

  async limit(max_bytes_per_s) {
    this.#requireUse();
    this.#limit = max_bytes_per_s; // It holds for all connections to come, whatever becomes of this question.
    return this.#askAnything("limit", { max_bytes_per_s });
  }

  async ping(data) {
    const startMs = performance.now();
    const pong = await this.#askAnything("ping", { data });
    return { ...pong, round_trip_ms: performance.now() - startMs };
  }

  /** End everything; resolve when the connection is closed. */
  async close() {
    if (this.state === "closed") return;
    const socket = this.#socket;
    const gone = new Promise((resolve) => {
      this.#gone = resolve;
    });
    this.#finish(null);
    if (socket === null) return;
    const timer = setTimeout(this.#gone, CLOSE_TIMEOUT_MS);
    await gone;
    clearTimeout(timer);
  }

  // Connections.

  async #connect() {
    let { token } = this.#options;
    try {
      if (typeof token === "function") token = await token();
    } catch (error) {
      this.#drop(new StreamError("DISCONNECTED", `there is no token: ${error}`, { cause: error }));
      return;
    }
    if (this.state === "closed") return;
    try {
      const protocols = token === undefined ? [SUBPROTOCOL] : [SUBPROTOCOL, `ibfast.token.${token}`];
      this.#begin(new this.#WebSocket(this.#url, protocols));
    } catch (error) {
      // An address or a token that can't be: nothing to try again with.
      this.#finish(error);
    }
  }

  #begin(socket) {
    this.#socket = socket;
    this.#decoder = new FrameDecoder();
    this.#heardMs = performance.now();
    this.#closing = null;
    this.#trouble = "";
    socket.binaryType = "arraybuffer";
    const own = (handle) => (event) => {
      if (socket === this.#socket) handle(event);
    };
    socket.onmessage = own((event) => this.#take(event.data));
    socket.onerror = (event) => {
      if (socket === this.#socket) this.#trouble = event.error?.message ?? event.message ?? "";
      // Some tell no close where a connection could not be made.
      if (socket.readyState !== OPEN) socket.onclose({ code: 1006 });
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#drop(this.#reasonOf(event));
      this.#gone?.();
    };
    this.#after(WELCOME_TIMEOUT_MS, () => {
      if (socket === this.#socket && this.state !== "open")
        this.#drop(new StreamError("TIMEOUT", "the server said nothing"));
    });
  }

  #reasonOf({ code, reason }) {
    if (this.#closing !== null) {
      if (this.#closing.code === "TOO_FAST") this.#slowDown();
      return new StreamError(this.#closing.code, this.#closing.message);
    }
    const why = [code, reason, this.#trouble].filter(Boolean).join(", ");
    return new StreamError("DISCONNECTED", `the connection ended, or could not be made (${why})`);
  }

  /** Give up the connection, and try again in a while. */
  #drop(error) {
    if (this.state === "closed") return;
    const wasOpen = this.state === "open";
    this.#forgetConnection(error instanceof ProtocolError ? 4002 : 1000);
    const isFinal = error.code === "EXPIRED" && typeof this.#options.token !== "function";
    if (this.#opened !== null || this.#reconnect === null || isFinal) {
      this.#finish(error);
      return;
    }
    if (wasOpen && performance.now() - this.#welcomedMs >= STABLE_MS) this.#attempt = 0;
    if (error instanceof ProtocolError) this.#tell({ type: "error", error });
    this.#become("reconnecting", error.message);
    for (const wish of this.#wishes) {
      if (wish.wasLive) this.#changeState(wish, "RECONNECTING", error.message);
    }
    this.#after(backoffMs(this.#attempt++, this.#reconnect), () => this.#connect());
  }

  #forgetConnection(closeCode) {
    this.#clearTimers();
    const socket = this.#socket;
    this.#socket = null;
    for (const wish of this.#wishes) {
      if (wish.number === null) continue;
      wish.remember();
      wish.number = null;
      wish.owner = null;
    }
    const unanswered = [...this.#requests.values(), ...this.#outbox, ...this.#early];
    this.#early.clear();
    this.#requests.clear();
    this.#outbox = [];
    this.#owners.clear();
    this.#byNumber.clear();
    this.#pauses = 0;
    for (const request of unanswered) this.#abandon(request);
    if (socket !== null && socket.readyState < CLOSING) socket.close(closeCode);
  }

  /** A request whose answer can't come any more. */
  #abandon({ op, wish, fields, resolve, reject }) {
    if (op === "update" && !wish.isOver) wish.body.interval_ms = fields.interval_ms;
    if (op === "update" || op === "unsubscribe") resolve();
    else reject(new StreamError("DISCONNECTED", `the connection was lost before ${op} was answered`));
  }

  #finish(error) {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#forgetConnection(1000);
    for (const wish of this.#wishes) wish.end(error);
    this.#wishes.clear();
    this.#opened?.reject(error ?? new StreamError("CLOSED", "the client was closed"));
    this.#opened = null;
    this.#tell({ type: "state", state: "closed", reason: error?.message ?? "" });
  }

  #after(delayMs, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delayMs);
    this.#timers.add(timer);
  }

  #clearTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #watch(heartbeatMs) {
    this.#after(heartbeatMs / 2, () => {
      if (performance.now() - this.#heardMs > SILENT_HEARTBEATS * heartbeatMs) {
        this.#drop(new StreamError("TIMEOUT", "the server has fallen silent"));
      } else {
        this.#watch(heartbeatMs);
      }
    });
  }

  #become(state, reason) {
    this.state = state;
    this.#tell({ type: "state", state, reason });
  }

  #tell(event) {
    tell(reportUncaught, this.#options.onEvent, event);
  }

  #requireUse() {
    if (this.state === "closed") throw new StreamError("CLOSED", "the client was closed");
  }

  // Requests.

  async #update(wish, interval_ms) {
    this.#requireUse();
    if (wish.isOver) throw new StreamError("CLOSED", "the subscription is over");
    if (wish.number === null) wish.body.interval_ms = interval_ms;
    else await this.#ask("update", wish, { interval_ms });
  }

  async #unsubscribe(wish) {
    if (wish.isOver) return;
    this.#wishes.delete(wish);
    wish.end(null);
    if (wish.number !== null) await this.#ask("unsubscribe", wish);
  }

  async #askAnything(op, fields) {
    this.#requireUse();
    if (this.state !== "open") throw new StreamError("DISCONNECTED", "there is no connection now");
    return this.#ask(op, null, fields);
  }

  #ask(op, wish, fields = {}) {
    return new Promise((resolve, reject) => {
      this.#outbox.push({ op, wish, fields, resolve, reject });
      this.#send();
    });
  }

  #send() {
    while (this.#pauses === 0 && this.#outbox.length > 0 && this.#requests.size < MOST_UNANSWERED) {
      const request = this.#outbox.shift();
      const { op, wish } = request;
      if (wish !== null && (op === "subscribe" ? wish.isOver : wish.number === null)) {
        request.resolve(); // It has ended meanwhile.
        continue;
      }
      const id = ++this.#lastId;
      request.seen = op === "subscribe" && wish.body.mode !== "snapshot" ? wish.seen : null;
      const fields = { ...request.fields };
      if (op === "subscribe") Object.assign(fields, wish.body, request.seen);
      else if (wish !== null) fields.subscription = wish.number;
      request.interval_ms = fields.interval_ms;
      this.#requests.set(id, request);
      this.#socket.send(JSON.stringify({ ...fields, op, id }));
      this.#pause(this.#pauseMs);
    }
  }

  /** Ask for nothing in a while. */
  #pause(delayMs) {
    this.#pauses++;
    this.#after(delayMs, () => {
      this.#pauses--;
      this.#send();
    });
  }

  /** Ask again in a while; if that was too fast, until then for nothing else. */
  #repeat(request, code) {
    const delayMs = PASSING_CODES_MS[code];
    this.#early.add(request);
    this.#after(delayMs, () => {
      this.#early.delete(request);
      this.#outbox.push(request);
      this.#send();
    });
    if (code === "TOO_FAST") this.#pause(delayMs);
  }

  // Messages.

  #take(data) {
    this.#heardMs = performance.now();
    try {
      if (typeof data === "string") this.#takeControl(data);
      else if (this.state !== "open") fail("data before the welcome");
      else this.#takeData(this.#decoder.decode(data));
    } catch (error) {
      // Whatever can't be read leaves a decoder of unknown state.
      this.#drop(
        error instanceof ProtocolError
          ? error
          : new ProtocolError(`a message that can't be: ${error}`, { cause: error }),
      );
    }
  }

  #takeControl(text) {
    const said = JSON.parse(text);
    if (typeof said !== "object" || said === null || typeof said.op !== "string") fail("a message without op");
    if (this.state !== "open" && said.op !== "welcome" && said.op !== "closing") fail(`${said.op} before the welcome`);
    if (Object.hasOwn(ANSWERS, said.op)) this.#takeAnswer(said);
    else if (said.op === "welcome") this.#takeWelcome(said);
    else if (said.op === "heartbeat") this.#note(said);
    else if (said.op === "error") this.#takeError(said);
    else if (said.op === "state") this.#takeState(said);
    else if (said.op === "slowed") this.#takeSlowed(said);
    else if (said.op === "gap") this.#takeGap(said);
    else if (said.op === "ended") this.#takeEnded(said);
    else if (said.op === "closing")
      this.#closing = { code: requireText(said, "code"), message: String(said.message ?? "") };
    // Else a newer server has more to say.
  }

  #takeWelcome(said) {
    if (this.state === "open") fail("a second welcome");
    if (said.protocol !== PROTOCOL_VERSION)
      fail(`the server speaks protocol ${said.protocol}: use a client of its release`);
    if (!(said.heartbeat_s > 0)) fail(`heartbeat_s is ${said.heartbeat_s}`);
    this.welcome = said;
    this.#welcomedMs = performance.now();
    this.#become("open", "");
    this.#watch(said.heartbeat_s * 1000);
    if (this.#limit > 0) this.#ask("limit", null, { max_bytes_per_s: this.#limit }).catch(() => {});
    for (const wish of this.#wishes) this.#ask("subscribe", wish).catch(() => {});
    this.#opened?.resolve(this);
    this.#opened = null;
  }

  #takeAnswer(said) {
    const request = this.#requests.get(said.id);
    if (request?.op !== ANSWERS[said.op]) fail(`${said.op} with id ${said.id}, which was not asked`);
    this.#requests.delete(said.id);
    const { op, wish, fields } = request;
    if (op === "subscribe") this.#begun(wish, said, request);
    else if (op === "update") {
      this.#change(wish, said);
      wish.body.interval_ms = fields.interval_ms;
    } else if (op === "unsubscribe") this.#endChannel(wish);
    else if (op === "ping") this.#note(said);
    request.resolve(said);
    this.#send();
  }

  #begun(wish, said, { seen, interval_ms: asked_ms }) {
    wish.number = requireWhole(said, "subscription");
    if (this.#byNumber.has(wish.number)) fail(`subscription ${wish.number} is there already`);
    this.#byNumber.set(wish.number, wish);
    const isResumed = seen !== null && said.resumed === true;
    this.#openChannel(wish, said);
    if (isResumed) {
      wish.owner.seq = Math.floor(seen.resume.position / CLASSES);
      wish.owner.isReady = wish.owner.isBaseToCome = true;
    } else {
      wish.owner.isUntold = wish.wasLive && wish.body.mode !== "snapshot";
    }
    if (wish.isOver) {
      this.#ask("unsubscribe", wish).catch(() => {});
      return;
    }
    wish.wasLive = true;
    if (asked_ms !== wish.body.interval_ms)
      this.#ask("update", wish, { interval_ms: wish.body.interval_ms }).catch(() => {});
    this.#changeState(wish, isResumed ? "RESUMED" : "SUBSCRIBED", String(said.reason ?? ""));
    wish.resolve(wish.face);
  }

  #takeError(said) {
    const error = new StreamError(requireText(said, "code"), String(said.message ?? ""));
    if (said.id === undefined || said.id === null) {
      // Which of the requests was not taken is not said: only a new connection makes it good.
      if (error.code !== "TOO_FAST") fail(`the server did not understand this client: ${error.message}`);
      this.#slowDown();
      this.#drop(error);
      return;
    }
    const request = this.#requests.get(said.id);
    if (request === undefined) return;
    this.#requests.delete(said.id);
    const { op, wish } = request;
    const mayPass = op === "subscribe" && wish.wasLive && Object.hasOwn(PASSING_CODES_MS, error.code);
    if (wish !== null && (error.code === "TOO_FAST" || mayPass)) {
      if (op === "subscribe") wish.reason = error.message;
      this.#repeat(request, error.code);
      this.#send();
    } else {
      if (op === "subscribe") this.#end(wish, error);
      if (op === "unsubscribe") {
        this.#endChannel(wish);
        request.resolve();
      } else request.reject(error);
      this.#send();
    }
  }

  /** Have requests come more slowly, as a session has ended because they were too fast. */
  #slowDown() {
    this.#pauseMs = Math.min(2 * this.#pauseMs, MOST_PAUSE_MS);
  }

  #takeState(said) {
    const wish = this.#byNumber.get(said.subscription);
    if (wish !== undefined) this.#changeState(wish, requireText(said, "state"), String(said.reason ?? ""));
  }

  #takeSlowed(said) {
    const wish = this.#byNumber.get(said.subscription);
    if (wish === undefined) return;
    this.#change(wish, said);
    this.#deliver(wish, { type: "slowed", interval_ms: requireWhole(said, "interval_ms") });
  }

  #takeGap({ op: _op, ...gap }) {
    const event = { type: "gap", ...gap };
    if (gap.channel === undefined || gap.channel === null) this.#tell(event);
    else this.#deliver(this.#ownerOf(gap.channel).wish, event);
  }

  #takeEnded(said) {
    const wish = this.#byNumber.get(said.subscription);
    if (wish === undefined) return;
    const error = new StreamError(requireText(said, "code"), String(said.message ?? ""));
    this.#endChannel(wish);
    this.#end(wish, error);
  }

  #end(wish, error) {
    this.#wishes.delete(wish);
    wish.reason = error.message;
    this.#deliver(wish, { type: "ended", code: error.code, message: error.message });
    wish.end(error.code === "DONE" ? null : error);
  }

  // Channels.

  #openChannel(wish, said) {
    if (!Array.isArray(said.channels) || said.channels.length !== 1) fail(`${said.op} without its channel`);
    wish.channels = said.channels;
    const [described] = said.channels;
    this.#decoder.open(described, wish.options);
    const { channel, epoch, class: cls } = described;
    if (typeof epoch !== "string") fail(`${said.op}: epoch is ${epoch}`);
    wish.owner = { wish, epoch, class: cls, seq: 0, isReady: false, isUntold: false, isBaseToCome: false };
    this.#owners.set(channel, wish.owner);
  }

  #closeChannel(wish) {
    for (const { channel } of wish.channels) {
      this.#decoder.close(channel);
      this.#owners.delete(channel);
    }
    wish.owner = null;
  }

  /** Have another channel where the interval is another one; until its state comes, it can go on from the old one. */
  #change(wish, said) {
    wish.remember();
    this.#closeChannel(wish);
    this.#openChannel(wish, said);
  }

  #endChannel(wish) {
    this.#closeChannel(wish);
    this.#byNumber.delete(wish.number);
    wish.number = null;
  }

  #ownerOf(channel) {
    return this.#owners.get(channel) ?? fail(`channel ${channel} is not open`);
  }

  #takeData(message) {
    if (message.type === "window") {
      this.#complete(message.class, message.seq);
      for (const batch of message.batches) this.#deliver(this.#ownerOf(batch.channel).wish, batch);
    } else if (message.type === "snapshot") {
      this.#takeSnapshot(message);
    } else if (message.type === "lag") {
      const owner = this.#ownerOf(message.channel);
      owner.isReady = owner.isUntold = false;
      owner.wish.seen = null; // What it was is not known any more: rows could not be added to it.
      this.#deliver(owner.wish, message);
    }
  }

  /** Everything of some classes has come up to positions. */
  #note(said) {
    if (!Array.isArray(said.positions)) fail(`${said.op} without positions`);
    for (const position of said.positions) {
      if (!Number.isSafeInteger(position) || position < 0) fail(`${said.op}: a position is ${position}`);
      this.#complete(position % CLASSES, Math.floor(position / CLASSES));
    }
  }

  #complete(cls, seq) {
    for (const owner of this.#owners.values())
      if (owner.class === cls && owner.isReady) owner.seq = Math.max(owner.seq, seq);
  }

  #takeSnapshot({ channel, seq, batches }) {
    const owner = this.#ownerOf(channel);
    if (owner.isBaseToCome) {
      owner.isBaseToCome = false; // What the missed rows are coded against, and no state.
      return;
    }
    if (owner.isUntold) {
      // The server has not said so itself: nothing may be left out unseen.
      this.#deliver(owner.wish, {
        type: "lag",
        channel,
        reason: "resume",
        from_seq: 0,
        to_seq: seq,
        rows: null,
      });
      owner.isUntold = false;
    }
    owner.isReady = true;
    owner.seq = Math.max(owner.seq, seq);
    for (const batch of batches) this.#deliver(owner.wish, batch);
  }

  #changeState(wish, state, reason) {
    wish.state = state;
    wish.reason = reason;
    this.#deliver(wish, { type: "state", state, reason });
  }

  #deliver(wish, event) {
    wish.deliver(event, () =>
      wish.channels.flatMap(({ channel }) => this.#decoder.state(channel, this.#owners.get(channel)?.seq ?? 0)),
    );
  }
}

/** Connect to a server; resolves to a `Client` when it has bidden welcome, and rejects where the first try fails. */
export async function connect(url, options = {}) {
  return new Client(url, options).open();
}
