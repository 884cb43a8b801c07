"""Quotes and trades of one simulated stock, at seconds that a test chooses."""

from __future__ import annotations

from datetime import date

from ibfast.contracts import Stock
from ibfast.sim.channel import MarketChannel
from ibfast.sim.events import QuoteEvent, Statistics, TradeEvent
from ibfast.sim.universe import Universe

NS = 1_000_000_000
START_S = 1_795_445_640
APPLE = Universe.builtin(date(2026, 11, 23)).find(Stock("AAPL"))[0]


def channel() -> MarketChannel:
    return MarketChannel(APPLE, Statistics(None, None, None, None, 0, None))


def quote(at_s: float = 0, bid: float | None = 1.0, ask: float | None = 2.0, *sizes: int | None) -> QuoteEvent:
    return QuoteEvent(START_S * NS + int(at_s * NS), APPLE.con_id, bid, ask, *(sizes or (1, 1)))


def trade(at_s: float, price: float | None, size: float | None, *, unreported: bool = False) -> TradeEvent:
    return TradeEvent(START_S * NS + int(at_s * NS), APPLE.con_id, price, size, "X", "", unreported)
