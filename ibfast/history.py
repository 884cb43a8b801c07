"""Record layouts of what is asked for once: historical bars and ticks.

Times are int64 nanoseconds UTC; absent numbers are NaN. Every field of every row is aligned, as polars and C want it.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import numpy as np

__all__ = ["HISTORICAL_BAR", "HISTORICAL_TICK_BID_ASK", "HISTORICAL_TICK_LAST", "HISTORICAL_TICK_MIDPOINT"]

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
