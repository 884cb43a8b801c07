"""Streams: what a user holds of a subscription, and what each data type asks of the gateway.

The rule of the file: a stream reads the feed like any other reader; it sees its own subscription's rows of one ring,
and it knows neither socket nor protocol. Streams that need the same request share one market-data line.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibfast.common.scalars import flag, text, whole
from ibfast.connection.historical import check_bars, check_real_time_bars
from ibfast.contracts import Contract
from ibfast.feed.feed import BACKFILL_KINDS, FeedView
from ibfast.feed.ring import Reader
from ibfast.policy.subscription import Subscription, SubscriptionRequest, SubscriptionState
from ibfast.records import Kind
from ibfast.wire.requests import HistoricalBars, MarketData, MarketDepth, RealTimeBars, TickByTick

__all__ = ["DataType", "Stream", "Wanted", "wanted"]

RT_VOLUME_GENERIC_TICK = "233"


class DataType(StrEnum):
    """What can be subscribed to, and where its rows come from.

    Level 1, one market-data line for all four of a contract:
        TICKS: every level-1 message. TRADES: trades seen by level 1 (sampled; with generic tick 233, time and sales).
        QUOTES: the merged top of book. GREEKS: option computations.
    Tick-by-tick, unsampled, few at once: LAST, ALL_LAST, BID_ASK, MIDPOINT.
    DEPTH: the order book. BARS: five-second bars. UPDATING_BARS: bars of any size, the last one updating, with history.
    """

    TICKS = "TICKS"
    TRADES = "TRADES"
    QUOTES = "QUOTES"
    GREEKS = "GREEKS"
    LAST = "LAST"
    ALL_LAST = "ALL_LAST"
    BID_ASK = "BID_ASK"
    MIDPOINT = "MIDPOINT"
    DEPTH = "DEPTH"
    BARS = "BARS"
    UPDATING_BARS = "UPDATING_BARS"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription in the gateway's terms: the request (of req_id 0), and which rows of which ring answer it."""

    request: SubscriptionRequest
    ring: str
    kinds: frozenset[Kind]


OPTION_TYPES = ("OPT", "FOP", "IOPT", "WAR", "BAG")
OPTIONS: dict[DataType, frozenset[str]] = {
    **dict.fromkeys((DataType.TICKS, DataType.TRADES, DataType.QUOTES, DataType.GREEKS), frozenset({"generic_ticks"})),
    **dict.fromkeys(
        (DataType.LAST, DataType.ALL_LAST, DataType.BID_ASK, DataType.MIDPOINT), frozenset({"ignore_size"})
    ),
    DataType.DEPTH: frozenset({"num_rows", "is_smart_depth"}),
    DataType.BARS: frozenset({"what_to_show", "use_rth"}),
    DataType.UPDATING_BARS: frozenset({"what_to_show", "use_rth", "duration", "bar_size"}),
}

_TICK_BY_TICK = {
    DataType.LAST: ("Last", "trades", Kind.LAST),
    DataType.ALL_LAST: ("AllLast", "trades", Kind.ALL_LAST),
    DataType.BID_ASK: ("BidAsk", "quotes", Kind.BID_ASK),
    DataType.MIDPOINT: ("MidPoint", "quotes", Kind.MIDPOINT),
}


def _data_type(name: object) -> DataType:
    try:
        return DataType(str(name).upper())
    except ValueError:
        raise ValueError(f"there is no data type {name!r}; there are {', '.join(DataType)}") from None


def wanted(contract: Contract, data_type: str, **options: Any) -> Wanted:
    """Return what a subscription asks of the gateway.

    Args:
        contract: qualified, or as it is to be sent.
        data_type: a DataType.
        options: level 1: `generic_ticks` ("233,236"); tick-by-tick: `ignore_size`; DEPTH: `num_rows` (10),
            `is_smart_depth` (True); BARS: `what_to_show` ("TRADES"), `use_rth` (False); UPDATING_BARS: those of BARS
            and `duration` ("1 D"), `bar_size` ("1 min").

    Raises:
        ValueError: there is no such data type, or the contract has none of it.
        TypeError: the data type has no such option.
    """
    kind = _data_type(data_type)
    for name in options.keys() - OPTIONS[kind]:
        known = ", ".join(sorted(OPTIONS[kind])) or "none"
        raise TypeError(f"{kind} takes no option {name!r}; its options: {known}")
    if kind is DataType.GREEKS and contract.sec_type not in ("", *OPTION_TYPES):
        raise ValueError(f"GREEKS are of options ({', '.join(OPTION_TYPES)}), and {contract} is none")
    if kind in _TICK_BY_TICK:
        tick_type, ring, row_kind = _TICK_BY_TICK[kind]
        ignore_size = flag("ignore_size", options.get("ignore_size", False))
        return Wanted(TickByTick(0, contract, tick_type, ignore_size=ignore_size), ring, frozenset({row_kind}))
    if kind is DataType.DEPTH:
        num_rows = whole("num_rows", options.get("num_rows", 10), least=1)
        is_smart = flag("is_smart_depth", options.get("is_smart_depth", contract.exchange == "SMART"))
        kinds = frozenset({Kind.DEPTH, Kind.DEPTH_L2, Kind.DEPTH_RESET})
        return Wanted(MarketDepth(0, contract, num_rows, is_smart), "depth", kinds)
    if kind in (DataType.BARS, DataType.UPDATING_BARS):
        return _bars(contract, kind, **options)
    return _level_1(contract, kind, **options)


def _bars(
    contract: Contract, data_type: DataType, what_to_show: str = "TRADES", use_rth: bool = False, **options: Any
) -> Wanted:
    what_to_show, use_rth = text("what_to_show", what_to_show), flag("use_rth", use_rth)
    if data_type is DataType.BARS:
        check_real_time_bars(what_to_show)
        request = RealTimeBars(0, contract, what_to_show, use_rth, **options)
        return Wanted(request, "bars", frozenset({Kind.REALTIME_BAR}))
    return Wanted(_updating_bars(contract, what_to_show, use_rth, **options), "bars", frozenset({Kind.UPDATE_BAR}))


def _updating_bars(
    contract: Contract, what_to_show: str, use_rth: bool, duration: str = "1 D", bar_size: str = "1 min"
) -> HistoricalBars:
    duration, bar_size = text("duration", duration), text("bar_size", bar_size)
    check_bars(what_to_show, bar_size, duration, keep_up_to_date=True)
    return HistoricalBars(0, contract, "", duration, bar_size, what_to_show, use_rth, keep_up_to_date=True)


def _level_1(contract: Contract, data_type: DataType, generic_ticks: str = "") -> Wanted:
    # In one order and without blanks, so that the same list is the same request.
    generics = sorted({part.strip() for part in text("generic_ticks", generic_ticks).split(",")} - {""})
    request = MarketData(0, contract, ",".join(generics))
    if data_type is DataType.QUOTES:
        return Wanted(request, "quotes", frozenset({Kind.L1_QUOTE}))
    if data_type is DataType.GREEKS:
        return Wanted(request, "greeks", frozenset({Kind.OPTION}))
    if data_type is DataType.TRADES:
        # With time and sales at hand, the sampled last price would tell every trade a second time.
        sales = RT_VOLUME_GENERIC_TICK in generics
        return Wanted(request, "trades", frozenset({Kind.RT_VOLUME if sales else Kind.L1_LAST}))
    return Wanted(request, "ticks", frozenset({Kind.PRICE, Kind.SIZE, Kind.GENERIC, Kind.STRING}))


class Stream:
    """The rows of one subscription, as they arrive, whatever happens to connections meanwhile.

        async for rows in stream:
            print(rows["price"], rows["size"])

    An interruption does not end it: rows come again when the subscription is restored, and `take_gaps` tells what may
    be missing.

    Attributes:
        contract: what is subscribed to, as the gateway knows it.
        instrument: its index in the feed: `feed.last[stream.instrument]`.
        subscription: what serves it, maybe shared with other streams.
        priority: with which this stream wants it; the subscription has the highest of its streams.
        kinds: of its rows; those of BACKFILL_… tell what an interruption had hidden, later and out of order.
        history: UPDATING_BARS only: the bars up to the subscription (dtype `HISTORICAL_BAR`).
        error: why the stream ended by itself, None while it lives and after `unsubscribe`.
    """

    def __init__(
        self,
        contract: Contract,
        subscription: Subscription,
        feed: FeedView,
        want: Wanted,
        release: Callable[[Stream], None],
        delivered: Callable[[int], None],
        priority: int = 0,
    ) -> None:
        self.contract = contract
        self.priority = priority
        self.instrument = subscription.instrument
        self.subscription = subscription
        self.history: NDArray[Any] | None = None
        self.error: Exception | None = None
        self._reader: Reader = getattr(feed, want.ring).reader(start="next")
        self._gaps: Reader = feed.gaps.reader(start="next")
        self._open_gap = self._open_gap_of(feed)
        marked = {BACKFILL_KINDS[want.ring]} if want.ring in BACKFILL_KINDS else set()
        self.kinds = want.kinds | marked
        self._kinds = np.array(sorted(self.kinds), np.uint8)
        self._release = release
        self._delivered = delivered

    def __repr__(self) -> str:
        state = f"ended: {self.error}" if self.error else str(self.state)
        return f"<Stream of {self.contract.local_symbol or self.contract.symbol}, request {self.req_id}, {state}>"

    @property
    def req_id(self) -> int:
        """The request that serves it now; 0 while none does."""
        return self.subscription.req_id

    @property
    def state(self) -> SubscriptionState:
        """How it fares: LIVE, QUIET, STALE; PENDING, WAITING, OPENING, SUSPENDED; REFUSED, ENDED."""
        return self.subscription.state if self.live or self.error else SubscriptionState.ENDED

    @property
    def lost(self) -> int:
        """Rows of the whole ring, and of the `gaps` ring, that were overwritten before this stream looked at them."""
        return self._reader.lost + self._gaps.lost

    @property
    def live(self) -> bool:
        """Whether rows can still come."""
        return not self._reader.closed

    def take_gaps(self) -> NDArray[Any]:
        """Return, once, the rows of the feed's `gaps` ring that are of this subscription.

        The loss of a connection is among them, as far as the subscription had records before it; the row that tells of
        the connection itself is in `feed.gaps` only. A stream that begins in a gap returns the gap's open row first.
        """
        rows: NDArray[Any] = np.concatenate([self._open_gap, self._gaps.read()])
        self._open_gap = self._open_gap[:0]
        mine: NDArray[Any] = rows[self._is_mine(rows)]
        return mine

    def _open_gap_of(self, feed: FeedView) -> NDArray[Any]:
        """Return the open row of the gap that the subscription is in already, if it has one."""
        rows: NDArray[Any] = feed.gaps.reader(start="oldest" if self.subscription.gap else "next").read()
        first_seq = self.subscription.gap.first_seq if self.subscription.gap else 0
        mine: NDArray[Any] = rows[self._is_mine(rows) & (rows["first_seq"] == first_seq) & (rows["recovered"] == 0)]
        return mine[-1:]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[Any]:
        """Return the next rows, as soon as there are any.

        Raises:
            RequestError: the gateway refused the subscription or ended it.
            NotConnectedError: the connection was lost, and there is no reconnection.
        """
        while True:
            rows = await anext(self._reader, None)
            if rows is None:
                raise StopAsyncIteration if self.error is None else self.error
            mine: NDArray[Any] = rows[self._is_mine(rows) & np.isin(rows["kind"], self._kinds)]
            if len(mine):
                self._delivered(int(mine["recv_ns"][-1]))
                return mine

    def _is_mine(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which rows are of this subscription: a request that was given up has no instrument any more."""
        req_ids = rows["req_id"]
        own = [*self.subscription.req_ids]
        of_requests = req_ids == own[0] if len(own) == 1 else np.isin(req_ids, own)
        mine: NDArray[np.bool_] = of_requests & (rows["instrument"] == self.instrument)
        return mine

    def unsubscribe(self) -> None:
        """End the subscription; an `async for` over it finishes after the rows that are there."""
        if self.live:
            self._reader.close()
            self._release(self)

    def released_by(self, release: Callable[[Stream], None]) -> None:
        """Let another connection serve it from now on."""
        self._release = release

    def close(self) -> None:
        """End the stream without telling the gateway, because the connection ends."""
        self._reader.close()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, which the consumer's next step raises."""
        self.error = error
        self._reader.close()
