"""Subscriptions: what a market's events become on the wire, request by request.

The rule of the file: a stream receives events of one instrument and sends messages to one client; it decides nothing
about limits or permissions. `close` gives back what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ibfast.records import NS_PER_MS, NS_PER_S
from ibfast.sim.channel import MarketChannel, midpoint
from ibfast.sim.codec import (
    DatedBars,
    DepthL2,
    DepthUpdate,
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickByTickMidPoint,
    TickGeneric,
    TickPrice,
    TickSize,
    TickString,
)
from ibfast.sim.events import EventSource, Level, QuoteEvent, Size, TradeEvent
from ibfast.wire.ids import MarketDataType, TickType
from ibfast.wire.responses import ErrorMessage, Response

__all__ = ["DepthStream", "Level1Stream", "Message", "Send", "TickByTickStream"]

_NO_PRICE = -1.0
"""What TWS sends for the price of an empty side."""
_CAN_AUTO_EXECUTE = 1
_UNREPORTED = 2
_HISTORICAL_VOLATILITY, _IMPLIED_VOLATILITY, _MARK_PRICE, _SHORTABLE = 104, 106, 221, 236
_RT_VOLUME, _RT_TRADE_VOLUME = 233, 375
_EASY_TO_BORROW, _SHORTABLE_SHARES = 3.0, 10_000_000
_LAST, _ALL_LAST = 1, 2
_INSERT, _UPDATE, _DELETE = 0, 1, 2
_ASK, _BID = 0, 1
_BOOK_RESET = 317
_BOOK_RESET_TEXT = "Market depth data has been RESET. Please empty deep book contents before applying any new entries."

Message = Response | DatedBars | Tick
Send = Callable[[Message], None]


class _TickTypes(NamedTuple):
    """The tick types of level 1, real-time or delayed."""

    bid: TickType
    bid_size: TickType
    ask: TickType
    ask_size: TickType
    last: TickType
    last_size: TickType
    high: TickType
    low: TickType
    volume: TickType
    close: TickType
    open: TickType
    timestamp: TickType


_REALTIME = _TickTypes(
    TickType.BID,
    TickType.BID_SIZE,
    TickType.ASK,
    TickType.ASK_SIZE,
    TickType.LAST,
    TickType.LAST_SIZE,
    TickType.HIGH,
    TickType.LOW,
    TickType.VOLUME,
    TickType.CLOSE,
    TickType.OPEN,
    TickType.LAST_TIMESTAMP,
)
_DELAYED = _TickTypes(
    TickType.DELAYED_BID,
    TickType.DELAYED_BID_SIZE,
    TickType.DELAYED_ASK,
    TickType.DELAYED_ASK_SIZE,
    TickType.DELAYED_LAST,
    TickType.DELAYED_LAST_SIZE,
    TickType.DELAYED_HIGH,
    TickType.DELAYED_LOW,
    TickType.DELAYED_VOLUME,
    TickType.DELAYED_CLOSE,
    TickType.DELAYED_OPEN,
    TickType.DELAYED_LAST_TIMESTAMP,
)


class Level1Stream:
    """Level 1, change by change.

    A side whose price changes is told by its price, with the size, and then by its size; a side of which only the size
    changes by its size. A trade that is reported tells its price if that changed, its size, the volume, and the time in
    a new second. An empty side has the price -1 and the size 0.
    """

    def __init__(
        self, send: Send, req_id: int, channel: MarketChannel, market_data_type: int, generic_ticks: frozenset[int]
    ) -> None:
        self._send = send
        self.req_id = req_id
        self.channel = channel
        is_delayed = market_data_type in (MarketDataType.DELAYED, MarketDataType.DELAYED_FROZEN)
        self._types = _DELAYED if is_delayed else _REALTIME
        self._mask = 0 if is_delayed else _CAN_AUTO_EXECUTE
        self._generic_ticks = generic_ticks
        self._rt_volume = _RT_VOLUME in generic_ticks
        self._rt_trade_volume = _RT_TRADE_VOLUME in generic_ticks
        self._high, self._low = channel.high, channel.low

    def resume(self, now_ns: int) -> None:
        """Send everything that is known now."""
        types, channel, req_id = self._types, self.channel, self.req_id
        quote, last = channel.quote, channel.last
        if quote.ts_ns:
            self._send_side(types.bid, types.bid_size, quote.bid, quote.bid_size)
            self._send_side(types.ask, types.ask_size, quote.ask, quote.ask_size)
        if last.price is not None:
            self._send(TickPrice(req_id, types.last, last.price, last.size))
            self._send(TickSize(req_id, types.last_size, last.size))
            self._send(TickString(req_id, types.timestamp, str(last.ts_ns // NS_PER_S)))
        if channel.instrument.has_trades:
            self._send(TickSize(req_id, types.volume, channel.volume))
        for tick_type, price in (
            (types.high, channel.high),
            (types.low, channel.low),
            (types.close, channel.close),
            (types.open, channel.open),
        ):
            if price is not None:
                self._send(TickPrice(req_id, tick_type, price, 0))
        if types is _REALTIME:
            self._send(TickGeneric(req_id, TickType.HALTED, 0.0))

        self._send_generic_ticks()

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Send what changed."""
        types = self._types
        if quote.bid != before.bid:
            self._send_side(types.bid, types.bid_size, quote.bid, quote.bid_size)
        elif quote.bid_size != before.bid_size:
            self._send(TickSize(self.req_id, types.bid_size, quote.bid_size or 0))
        if quote.ask != before.ask:
            self._send_side(types.ask, types.ask_size, quote.ask, quote.ask_size)
        elif quote.ask_size != before.ask_size:
            self._send(TickSize(self.req_id, types.ask_size, quote.ask_size or 0))

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        """Send the trade, and the day's figures that it changed."""
        types, req_id, send = self._types, self.req_id, self._send
        if not trade.unreported:
            if trade.price is not None and trade.price != previous.price:
                send(TickPrice(req_id, types.last, trade.price, trade.size))
            if trade.size is not None:
                send(TickSize(req_id, types.last_size, trade.size))
            if trade.ts_ns // NS_PER_S != previous.ts_ns // NS_PER_S:
                send(TickString(req_id, types.timestamp, str(trade.ts_ns // NS_PER_S)))
        if trade.size:
            send(TickSize(req_id, types.volume, channel.volume))
        if channel.high != self._high:
            self._high = channel.high
            send(TickPrice(req_id, types.high, channel.high, 0))
        if channel.low != self._low:
            self._low = channel.low
            send(TickPrice(req_id, types.low, channel.low, 0))
        if self._rt_volume:
            send(TickString(req_id, TickType.RT_VOLUME, self._volume_text(trade)))
        if self._rt_trade_volume and not trade.unreported:
            send(TickString(req_id, TickType.RT_TRD_VOLUME, self._volume_text(trade)))

    def _send_side(self, price_type: TickType, size_type: TickType, price: float | None, size: Size | None) -> None:
        if price is None:
            self._send(TickPrice(self.req_id, price_type, _NO_PRICE, 0, self._mask))
            self._send(TickSize(self.req_id, size_type, 0))
        else:
            self._send(TickPrice(self.req_id, price_type, price, size, self._mask))
            self._send(TickSize(self.req_id, size_type, size or 0))

    def _send_generic_ticks(self) -> None:
        req_id, instrument = self.req_id, self.channel.instrument
        if _HISTORICAL_VOLATILITY in self._generic_ticks:
            self._send(TickGeneric(req_id, TickType.OPTION_HISTORICAL_VOL, instrument.volatility))
        if _IMPLIED_VOLATILITY in self._generic_ticks:
            self._send(TickGeneric(req_id, TickType.OPTION_IMPLIED_VOL, instrument.volatility))
        mark = self.channel.last.price if midpoint(self.channel.quote) is None else midpoint(self.channel.quote)
        if _MARK_PRICE in self._generic_ticks and mark is not None:
            self._send(TickPrice(req_id, TickType.MARK_PRICE, mark, 0))
        if _SHORTABLE in self._generic_ticks:
            self._send(TickGeneric(req_id, TickType.SHORTABLE, _EASY_TO_BORROW))
            self._send(TickSize(req_id, TickType.SHORTABLE_SHARES, _SHORTABLE_SHARES))

    def _volume_text(self, trade: TradeEvent) -> str:
        price = "" if trade.price is None else trade.price
        channel = self.channel
        vwap = channel.vwap or 0.0
        return f"{price};{trade.size or 0};{trade.ts_ns // 1_000_000};{channel.volume};{vwap};true"


class TickByTickStream:
    """Every trade, quote or midpoint: one message per event."""

    def __init__(self, send: Send, req_id: int, tick_type: str, *, ignore_size: bool) -> None:
        self._send = send
        self.req_id = req_id
        self._tick_type = tick_type
        self._ignore_size = ignore_size

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Send a quote, or the midpoint if it moved."""
        time_s = quote.ts_ns // NS_PER_S
        if self._tick_type == "BidAsk":
            if not self._ignore_size or (quote.bid, quote.ask) != (before.bid, before.ask):
                tick = TickByTickBidAsk(self.req_id, time_s, quote.bid, quote.ask, quote.bid_size, quote.ask_size)
                self._send(tick)
        elif self._tick_type == "MidPoint":
            middle = midpoint(quote)
            if middle is not None and middle != midpoint(before):
                self._send(TickByTickMidPoint(self.req_id, time_s, middle))

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        """Send a trade; unreported ones only to AllLast."""
        if self._tick_type == "AllLast":
            kind = _ALL_LAST
        elif self._tick_type == "Last" and not trade.unreported:
            kind = _LAST
        else:
            return
        mask = _UNREPORTED if trade.unreported else 0
        self._send(
            TickByTickLast(
                self.req_id,
                kind,
                trade.ts_ns // NS_PER_S,
                trade.price,
                trade.size,
                mask,
                trade.exchange,
                trade.conditions,
            )
        )


class DepthStream:
    """A book, operation by operation.

    With `market_makers` rows carry who made them (message 13), in a smart book the exchange; without, message 12 is
    used. The client's copy of the book is known exactly: a client that applies the operations in order has the same
    book.
    """

    def __init__(
        self,
        send: Send,
        req_id: int,
        source: EventSource,
        num_rows: int,
        market_makers: tuple[str, ...],
        *,
        is_smart: bool,
    ) -> None:
        self._send = send
        self.req_id = req_id
        self._source = source
        self._num_rows = num_rows
        self._market_makers = market_makers
        self._is_smart = is_smart
        self._quote: QuoteEvent | None = None
        self._bids: list[Level] = []
        self._asks: list[Level] = []

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Bring the client's book up to date."""
        self._quote = quote
        bids, asks = self._source.book(quote, self._num_rows)
        self._revise(_BID, self._bids, bids, -1)
        self._revise(_ASK, self._asks, asks, 1)

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        """A trade leaves the book to the quote that follows."""

    def resume(self, now_ns: int) -> None:
        """Have the client empty its book, and send it anew."""
        self._send(ErrorMessage(self.req_id, _BOOK_RESET, _BOOK_RESET_TEXT, error_time_ms=now_ns // NS_PER_MS))
        self._bids.clear()
        self._asks.clear()
        if self._quote is not None:
            self.on_quote(self._quote, self._quote)

    def _revise(self, side: int, told: list[Level], wanted: list[Level], direction: int) -> None:
        """Turn `told` into `wanted` by the fewest operations; both run from the best price away."""
        row = 0
        while row < max(len(told), len(wanted)):
            if row >= len(wanted) or (row < len(told) and (wanted[row][0] - told[row][0]) * direction > 0):
                del told[row]
                self._tell(row, _DELETE, side, 0.0, 0)
                continue
            price, size = wanted[row]
            if row < len(told) and told[row][0] == price:
                if told[row][1] != size:
                    told[row] = wanted[row]
                    self._tell(row, _UPDATE, side, price, size)
            else:
                if len(told) == self._num_rows:
                    del told[-1]
                    self._tell(self._num_rows - 1, _DELETE, side, 0.0, 0)
                told.insert(row, wanted[row])
                self._tell(row, _INSERT, side, price, size)
            row += 1

    def _tell(self, row: int, operation: int, side: int, price: float, size: Size) -> None:
        message: Tick
        if self._market_makers:
            maker = self._market_makers[row % len(self._market_makers)]
            message = DepthL2(self.req_id, row, operation, side, price, size, maker, self._is_smart)
        else:
            message = DepthUpdate(self.req_id, row, operation, side, price, size)
        self._send(message)
