"""One instrument as it is now, and its listeners.

The rule of the file: events are applied in order; listeners receive each event together with the state before it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ibfast.sim.events import QuoteEvent, Size, Statistics, TradeEvent
from ibfast.sim.instruments import Instrument

__all__ = ["Listener", "MarketChannel", "Timed", "midpoint"]


class Listener(Protocol):
    """A subscription to one instrument."""

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Receive a new top of the book."""

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        """Receive a trade that `channel` contains already."""


_DECIMALS = 8
"""Of computed prices; more would show how floats add up."""


@runtime_checkable
class Timed(Protocol):
    """A stream that has something to say whenever `due_ns` has come; it sets the next one itself."""

    due_ns: int

    def on_clock(self) -> None:
        """Say it."""


class MarketChannel:
    """The live state of one instrument.

    Attributes:
        quote: the top of the book; all None before the first one.
        last: the last reported trade.
        open, high, low, close, volume, turnover: of the day; `close` is that of the day before.
        listeners: in the order of their subscription.
    """

    class Last:
        """Price, size and time of a reported trade."""

        __slots__ = ("price", "size", "ts_ns")

        def __init__(self, price: float | None, size: Size | None, ts_ns: int) -> None:
            self.price = price
            self.size = size
            self.ts_ns = ts_ns

    def __init__(self, instrument: Instrument, statistics: Statistics) -> None:
        self.instrument = instrument
        self.quote = QuoteEvent(0, instrument.con_id, None, None, None, None)
        self.last = MarketChannel.Last(None, None, 0)
        self.open, self.high, self.low, self.close, volume, vwap = statistics
        self.volume: Size = volume or 0
        self.turnover = (vwap or 0.0) * self.volume
        self.listeners: list[Listener] = []

    def begin(self, quote: QuoteEvent | None, trade: TradeEvent | None) -> None:
        """Take over what stood already; the statistics know it."""
        self.quote = quote or self.quote
        if trade is not None:
            self.last = MarketChannel.Last(trade.price, trade.size, trade.ts_ns)

    def value(self, what_to_show: str) -> float | None:
        """Return the last trade's price ("TRADES"), or that of a side of the quote or of its middle."""
        quote = self.quote
        if what_to_show == "TRADES":
            return self.last.price
        return {"BID": quote.bid, "ASK": quote.ask}.get(what_to_show, midpoint(quote))

    @property
    def vwap(self) -> float | None:
        """Volume-weighted average price of the day."""
        return round(self.turnover / self.volume, _DECIMALS) if self.volume else None

    def apply(self, event: QuoteEvent | TradeEvent) -> None:
        """Apply an event and pass it to every listener."""
        if type(event) is QuoteEvent:
            before, self.quote = self.quote, event
            for listener in self.listeners:
                listener.on_quote(event, before)
        elif type(event) is TradeEvent:
            previous = self.last
            self._count(event)
            for listener in self.listeners:
                listener.on_trade(event, self, previous)

    def _count(self, trade: TradeEvent) -> None:
        price, size = trade.price, trade.size
        if size:
            self.volume += size
            self.turnover += (price or 0.0) * size
        if trade.unreported:
            return
        self.last = MarketChannel.Last(price, size, trade.ts_ns)
        if price is not None:
            self.open = price if self.open is None else self.open
            self.high = price if self.high is None else max(self.high, price)
            self.low = price if self.low is None else min(self.low, price)


def midpoint(quote: QuoteEvent) -> float | None:
    """Return the middle of a quote with two sides."""
    return None if quote.bid is None or quote.ask is None else round((quote.bid + quote.ask) / 2, _DECIMALS)
