"""Bars that are still growing: five-second bars, and the last bar of a history that is kept up to date.

The rule of the file: a bar is made of the very events that the streams deliver, and of nothing else; a bar without any
is flat at the last value. Time is the gateway's and comes as a parameter.
"""

from __future__ import annotations

from collections.abc import Callable

from ibfast.records import NS_PER_S
from ibfast.sim.channel import MarketChannel, midpoint
from ibfast.sim.codec import HistoricalDataUpdate, RealTimeBar
from ibfast.sim.events import QuoteEvent, Size, TradeEvent
from ibfast.sim.streams import Send

__all__ = ["REAL_TIME_BAR_S", "BarBuilder", "HistoricalUpdateStream", "RealTimeBarStream"]

REAL_TIME_BAR_S = 5
_NO_VOLUME = -1
_WAP_DECIMALS = 6
_UPDATE_INTERVAL_NS = NS_PER_S


class BarBuilder:
    """One bar at a time, of trades or of one side of the quotes.

    Args:
        what_to_show: "TRADES", "MIDPOINT", "BID" or "ASK".
        value: where the first bar stands before its first event; None is nowhere.
    """

    def __init__(self, what_to_show: str, value: float | None) -> None:
        self.of_trades = what_to_show == "TRADES"
        self._pick = _PICKS.get(what_to_show)
        self._close = value
        self.changed = False
        self.begin()

    def begin(self) -> None:
        """Begin the next bar, flat at the close of this one."""
        self.open = self.high = self.low = self._close
        self.volume: Size = 0
        self.count = 0
        self._turnover = 0.0

    def resume(
        self, open_: float, high: float, low: float, close: float, volume: float, wap: float, count: int
    ) -> None:
        """Go on with a bar that has begun already."""
        self.open, self.high, self.low, self._close = open_, high, low, close
        if self.of_trades:
            self.volume, self.count = int(volume), count
            self._turnover = volume * wap

    @property
    def close(self) -> float | None:
        """The last value."""
        return self._close

    @property
    def wap(self) -> float | None:
        """Volume-weighted average price of the trades; that of none is the last one."""
        return round(self._turnover / self.volume, _WAP_DECIMALS) if self.volume else self._close

    def on_quote(self, quote: QuoteEvent) -> None:
        """Count a quote, if the bar is made of quotes."""
        if self._pick is not None:
            value = self._pick(quote)
            if value is not None:
                self._add(value)

    def on_trade(self, trade: TradeEvent) -> None:
        """Count a trade, if the bar is made of trades."""
        if self.of_trades and not trade.unreported and trade.price is not None:
            fresh = self.count == 0
            self._add(trade.price, is_first=fresh)
            self.count += 1
            self.volume += trade.size or 0
            self._turnover += trade.price * (trade.size or 0)

    def _add(self, value: float, *, is_first: bool = False) -> None:
        self.changed = True
        if is_first or self.open is None or self.high is None or self.low is None:
            self.open = self.high = self.low = value
        else:
            self.high = max(self.high, value)
            self.low = min(self.low, value)
        self._close = value


_PICKS: dict[str, Callable[[QuoteEvent], float | None]] = {
    "MIDPOINT": midpoint,
    "BID": lambda quote: quote.bid,
    "ASK": lambda quote: quote.ask,
}


class RealTimeBarStream:
    """Five-second bars from the next full five seconds on."""

    def __init__(self, send: Send, req_id: int, builder: BarBuilder, now_ns: int) -> None:
        self._send = send
        self.req_id = req_id
        self._builder = builder
        self._starts_s = (now_ns // NS_PER_S // REAL_TIME_BAR_S + 1) * REAL_TIME_BAR_S
        self.due_ns = (self._starts_s + REAL_TIME_BAR_S) * NS_PER_S

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Count a quote."""
        if quote.ts_ns >= self._starts_s * NS_PER_S:
            self._builder.on_quote(quote)

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        """Count a trade."""
        if trade.ts_ns >= self._starts_s * NS_PER_S:
            self._builder.on_trade(trade)

    def on_clock(self) -> None:
        """Send the bar that ends at `due_ns`; every event before it has been counted, none after."""
        bar = self._builder
        if bar.open is not None:
            volume, wap, count = (bar.volume, bar.wap, bar.count) if bar.of_trades else (_NO_VOLUME,) * 3
            self._send(
                RealTimeBar(self.req_id, self._starts_s, bar.open, bar.high, bar.low, bar.close, volume, wap, count)
            )
        bar.begin()
        self._starts_s += REAL_TIME_BAR_S
        self.due_ns += REAL_TIME_BAR_S * NS_PER_S


class HistoricalUpdateStream:
    """The last bar of a history that is kept up to date, each second in which it changed.

    Args:
        send: to the client.
        req_id: of the history.
        builder: holds the last bar of the history.
        start_s: when that bar began.
        bar_s: the length of a bar.
        write_date: writes the time of a bar as the request wants it.
        now_ns: the time.
    """

    def __init__(
        self,
        send: Send,
        req_id: int,
        builder: BarBuilder,
        start_s: int,
        bar_s: int,
        write_date: Callable[[int], str],
        now_ns: int,
    ) -> None:
        self._send = send
        self.req_id = req_id
        self._builder = builder
        self._start_s = start_s
        self._bar_s = bar_s
        self._write_date = write_date
        self.due_ns = now_ns + _UPDATE_INTERVAL_NS

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Count a quote."""
        self._turn(quote.ts_ns)
        self._builder.on_quote(quote)

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        """Count a trade."""
        self._turn(trade.ts_ns)
        self._builder.on_trade(trade)

    def on_clock(self) -> None:
        """Send the bar if it changed."""
        self._update()
        self.due_ns += _UPDATE_INTERVAL_NS

    def _turn(self, ts_ns: int) -> None:
        """Begin a new bar if `ts_ns` lies behind the present one."""
        elapsed = (ts_ns // NS_PER_S - self._start_s) // self._bar_s
        if elapsed > 0:
            self._update()
            self._start_s += elapsed * self._bar_s
            self._builder.begin()

    def _update(self) -> None:
        bar = self._builder
        if not bar.changed:
            return
        bar.changed = False
        volume, wap, count = (bar.volume, bar.wap, bar.count) if bar.of_trades else (_NO_VOLUME,) * 3
        date = self._write_date(self._start_s)
        self._send(HistoricalDataUpdate(self.req_id, count, date, bar.open, bar.high, bar.low, bar.close, wap, volume))
