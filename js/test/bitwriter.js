// Writes what the decoder reads, by the words of docs/stream-protocol.md: one bit at a time, so that it shares no
// arithmetic with the reader.

const NAN = 0x7ff8000000000000n;

export class BitWriter {
  #bits = [];

  bits(value, count) {
    let rest = BigInt(value);
    for (let i = 0; i < count; i++) {
      this.#bits.push(Number(rest & 1n));
      rest >>= 1n;
    }
    return this;
  }

  eg(value, k) {
    const x = BigInt(value) + (1n << BigInt(k));
    const t = x.toString(2).length - 1;
    return this.bits(0, t - k)
      .bits(1, 1)
      .bits(x - (1n << BigInt(t)), t);
  }

  uniform(value, n) {
    if (n === 1) return this;
    const size = (n - 1).toString(2).length;
    const unused = 2 ** size - n;
    if (value < unused) return this.bits(value, size - 1);
    return this.bits(Math.floor((value + unused) / 2), size - 1).bits((value + unused) % 2, 1);
  }

  zigzag(value, k) {
    return this.eg(value < 0 ? -value * 2 - 1 : value * 2, k);
  }

  u8(value) {
    return this.bits(value, 8);
  }

  u64(value) {
    return this.bits(BigInt.asUintN(64, BigInt(value)), 64);
  }

  varint(value) {
    let rest = BigInt(value);
    for (; rest > 127n; rest >>= 7n) this.bits((rest & 127n) | 128n, 8);
    return this.bits(rest, 8);
  }

  /** UTF-8. */
  text(value) {
    for (const byte of new TextEncoder().encode(value)) this.u8(byte);
    return this;
  }

  grid(step, decimals) {
    return this.bits(step, 16).bits(decimals, 4);
  }

  /** A number of a state: on the grid, or NaN. */
  number(n) {
    return n === null ? this.bits(0, 1).u64(NAN).zigzag(0, 12) : this.bits(1, 1).zigzag(n, 12);
  }

  bytes() {
    const bytes = new Uint8Array(Math.ceil(this.#bits.length / 8));
    this.#bits.forEach((bit, i) => {
      bytes[i >> 3] |= bit << (i & 7);
    });
    return bytes;
  }
}

export function message(first) {
  return new BitWriter().u8(first);
}

export function described(options = {}) {
  return {
    channel: 0,
    epoch: "e0",
    symbol: "AAPL",
    con_id: 265598,
    exchange: "SMART",
    instrument: 3,
    families: ["quotes"],
    class: 2,
    span_ns: 10_000_000,
    unit_ns: 1000,
    ordered: false,
    conflated: false,
    ...options,
  };
}

export const START_NS = 1_770_000_000_000_000_000n;

export function clock(cls = 2, time = START_NS, seq = 1000) {
  return message(0x10 + cls)
    .u64(time)
    .u64(seq)
    .bytes();
}

/** What every state begins with: cents, lots, single trades; k are 0. */
export function head(state) {
  return state.grid(1, 2).grid(100, 0).grid(1, 0).bits(0, 40);
}

/** A state of quotes: bid 231.05, ask 231.06, sizes 300 and 500, at START_NS; k are 0. */
export function quotesState(seq = 1000, channel = 0) {
  const state = message(0x20).varint(channel).u64(START_NS).u64(seq);
  head(state);
  state.bits(1, 1).u64(START_NS).u8(11).eg(0, 3).u64(0);
  for (const n of [23105, 23106, 3, 5, 3, 5]) state.number(n);
  return state.bytes();
}

/** A window of one quote whose size of the bid grows by `lots`, as the channel's k are 0. */
export function quotesWindow(seq, lots = 1, base = 0) {
  const window = message(0x82)
    .varint(base)
    .varint(seq - 1000)
    .bits(0, 3);
  return window.eg(0, 0).uniform(7, 10_000).bits(0, 2).zigzag(lots, 0).bytes();
}
