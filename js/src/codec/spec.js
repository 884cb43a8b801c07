// Constants of docs/stream-protocol.md: kinds, first bytes of messages, bounds of types.

export const MAX_MESSAGE_BYTES = 1 << 26;

/** What a row was made of: its `kind`. */
export const Kind = Object.freeze(
  /** @type {const} */ ({
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
  }),
);

export const U8 = 0xff;
export const U32 = 0xffffffff;
export const I32_MIN = -(2 ** 31);
export const I32_MAX = 2 ** 31 - 1;

/** First bytes of binary messages. The low four bits of CLOCK and WINDOW are the class. */
export const CLOCK = 0x10;
export const SNAPSHOT = 0x20;
export const LAG = 0x30;
export const TEXT_MESSAGE = 0x40;
export const WINDOW = 0x80;

/** A position is CLASSES · seq + class. */
export const CLASSES = 16;
export const LAG_REASONS = /** @type {const} */ (["slow", "overrun", "incomplete"]);
