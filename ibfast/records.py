"""The vocabulary of records: families, kinds, gaps, units of time, absent numbers, the dtypes of history.

Times are int64 nanoseconds UTC; absent numbers are NaN. Every field of every row is aligned, as polars and C want it.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import sys
from enum import IntEnum

import numpy as np

__all__ = [
    "DAY_S",
    "FAMILIES",
    "FEED_CAPACITY",
    "HISTORICAL_BAR",
    "HISTORICAL_TICK_BID_ASK",
    "HISTORICAL_TICK_LAST",
    "HISTORICAL_TICK_MIDPOINT",
    "KEEP_INSTRUMENT_S",
    "MAX_INSTRUMENTS",
    "MOST_INSTRUMENTS",
    "NS_PER_MS",
    "NS_PER_S",
    "UNSET_DOUBLE",
    "UNSET_INTEGER",
    "GapCause",
    "Kind",
    "Scope",
]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
DAY_S = 86_400

FEED_CAPACITY = 1 << 16
MAX_INSTRUMENTS = 4096
KEEP_INSTRUMENT_S = 3600.0
"""A feed's rows per ring, its instruments, and how long it keeps an unused one, unless the user chooses otherwise."""

MOST_INSTRUMENTS = 1 << 24
"""The most rows that the instrument table of a feed can have."""

FAMILIES = ("quotes", "trades", "ticks", "depth", "bars", "greeks")
"""Kinds of records that a market brings, in the order of the binary stream format. Each has a ring of that name."""

UNSET_INTEGER = 2**31 - 1
"""IB's clients show this where a message has no number of type int."""

UNSET_DOUBLE = sys.float_info.max
"""IB's clients show this where a message has no number of type double."""


class Kind(IntEnum):
    """The kinds of records: the `kind` field of every ring's rows."""

    PRICE = 1
    SIZE = 2
    GENERIC = 3
    STRING = 4
    LAST = 5
    ALL_LAST = 6
    RT_VOLUME = 7
    L1_LAST = 8
    BID_ASK = 9
    MIDPOINT = 10
    L1_QUOTE = 11
    DEPTH = 12
    DEPTH_L2 = 13
    REALTIME_BAR = 14
    UPDATE_BAR = 15
    OPTION = 16
    GAP = 17
    DEPTH_RESET = 18
    BACKFILL_TRADE = 19
    BACKFILL_QUOTE = 20
    BACKFILL_BAR = 21


class Scope(IntEnum):
    """Fault domains, each within the next; the reaction to a fault is that of the smallest broken one."""

    SUBSCRIPTION = 1
    FARM = 2
    LINK = 3
    CONNECTION = 4
    GATEWAY = 5
    ACCOUNT = 6


class GapCause(IntEnum):
    """Why data is missing."""

    CONNECTION_LOST = 1
    LINK_LOST = 2
    FARM_BROKEN = 3
    STREAM_SILENT = 4
    STREAM_ENDED = 5
    BOOK_RESET = 6
    OTHER_SESSION = 7
    NO_LINE = 8
    MOVED = 9
    PROCESS_ENDED = 10
    BACKFILLED = 11


HISTORICAL_BAR = np.dtype(
    [
        ("event_ns", "i8"),
        ("open", "f8"),
        ("high", "f8"),
        ("low", "f8"),
        ("close", "f8"),
        ("volume", "f8"),
        ("wap", "f8"),
        ("count", "i4"),
    ],
    align=True,
)
"""A bar; `event_ns` is its begin. Bars of quotes have a NaN volume and WAP, and a count of -1."""

HISTORICAL_TICK_MIDPOINT = np.dtype([("event_ns", "i8"), ("price", "f8"), ("size", "f8")], align=True)
"""A midpoint; its size is 0."""

HISTORICAL_TICK_BID_ASK = np.dtype(
    [
        ("event_ns", "i8"),
        ("attribs", "u4"),
        ("bid", "f8"),
        ("ask", "f8"),
        ("bid_size", "f8"),
        ("ask_size", "f8"),
    ],
    align=True,
)
"""A quote; bit 0 of `attribs` is bid past low, bit 1 is ask past high."""

HISTORICAL_TICK_LAST = np.dtype(
    [
        ("event_ns", "i8"),
        ("attribs", "u4"),
        ("price", "f8"),
        ("size", "f8"),
        ("exchange", "U16"),
        ("conditions", "U32"),
    ],
    align=True,
)
"""A trade; bit 0 of `attribs` is past limit, bit 1 is unreported."""
