"""The market of a run: numbered series, as messages of the gateway and as rows of a stream.

The rule of the file: a tick's number is in its values, and nobody but the market makes numbers. A series goes on
whether or not anybody receives it, so that every hole in the numbers of a stream is data that was missed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibfast.contracts import Contract, ContractDetails, Option, Stock
from ibfast.records import HISTORICAL_BAR, HISTORICAL_TICK_BID_ASK, HISTORICAL_TICK_LAST, HISTORICAL_TICK_MIDPOINT, Kind
from ibfast.sim.codec import (
    DepthL2,
    DepthUpdate,
    HistoricalDataUpdate,
    RealTimeBar,
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickByTickMidPoint,
    TickOption,
    TickPrice,
    TickString,
)
from ibfast.wire.ids import TickType
from ibfast.wire.requests import (
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)

NS = 1_000_000_000
BARS = 3
"""So many bars answer every question for bars."""
FIRST_CON_ID = 1000
STOCKS = tuple(Stock(symbol) for symbol in ("AA", "BB", "CC", "DD", "EE", "FF"))
OPTION = Option("AA", "20260116", 100.0, "C", multiplier="100")
CONTRACTS = (*STOCKS, OPTION)
LAST, ALL_LAST = 1, 2
GAP_FIELDS = ("seq", "instrument", "scope", "cause", "first_seq", "last_seq", "first_ns", "last_ns", "recovered")
"""What is told of a row of the ring `gaps`."""
SIZES = 5
DELAYED = frozenset({3, 4})
SubscriptionRequest = MarketData | TickByTick | MarketDepth | RealTimeBars | HistoricalBars


class Series(NamedTuple):
    """What is numbered: the data of one kind of one contract."""

    con_id: int
    kind: str


class DataKind(NamedTuple):
    """How rows of a data type show numbers: the column of the number, that of its size, and the kinds of live rows."""

    number: str
    size: str | None
    kinds: frozenset[Kind]


DATA_TYPES: dict[str, DataKind] = {
    "TICKS": DataKind("price", "size", frozenset({Kind.PRICE})),
    "TRADES": DataKind("price", "size", frozenset({Kind.L1_LAST, Kind.RT_VOLUME})),
    "QUOTES": DataKind("bid", "bid_size", frozenset({Kind.L1_QUOTE})),
    "GREEKS": DataKind("und_price", "vega", frozenset({Kind.OPTION})),
    "LAST": DataKind("price", "size", frozenset({Kind.LAST})),
    "ALL_LAST": DataKind("price", "size", frozenset({Kind.ALL_LAST})),
    "BID_ASK": DataKind("bid", "bid_size", frozenset({Kind.BID_ASK})),
    "MIDPOINT": DataKind("bid", None, frozenset({Kind.MIDPOINT})),
    "DEPTH": DataKind("price", "size", frozenset({Kind.DEPTH, Kind.DEPTH_L2})),
    "BARS": DataKind("open", "volume", frozenset({Kind.REALTIME_BAR})),
    "UPDATING_BARS": DataKind("open", "volume", frozenset({Kind.UPDATE_BAR})),
}
LAST_PRICES = (TickType.LAST, TickType.DELAYED_LAST)


def details_of(description: Contract) -> ContractDetails | None:
    """Return the contract that a description means, None if there is no such contract."""
    for index, contract in enumerate(CONTRACTS):
        con_id = FIRST_CON_ID + index
        is_meant = description.con_id == con_id or (
            not description.con_id
            and (description.symbol, description.sec_type) == (contract.symbol, contract.sec_type)
        )
        if is_meant:
            known = replace(contract, con_id=con_id, local_symbol=f"{contract.symbol}{index}")
            hours = _always_open()
            return ContractDetails(
                contract=known, min_tick=0.01, time_zone_id="UTC", valid_exchanges="SMART",
                trading_hours=hours, liquid_hours=hours,
            )  # fmt: skip
    return None


def _always_open() -> str:
    """Return the hours of a market that does not close, a week before and after today."""
    today = datetime.fromtimestamp(time.time(), UTC).date()
    days = [today + timedelta(days=offset) for offset in range(-7, 8)]
    return ";".join(f"{day:%Y%m%d}:0000-{day + timedelta(days=1):%Y%m%d}:0000" for day in days)


def series_of(request: SubscriptionRequest | HistoricalTicksRequest) -> Series:
    """Return the series that a request brings."""
    con_id = request.contract.con_id
    match request:
        case TickByTick(tick_type=tick_type):
            return Series(con_id, {"BidAsk": "quotes", "MidPoint": "midpoints"}.get(tick_type, "trades"))
        case HistoricalTicksRequest(what_to_show=what):
            return Series(con_id, {"BID_ASK": "quotes", "MIDPOINT": "midpoints"}.get(what, "trades"))
        case MarketDepth():
            return Series(con_id, "depth")
        case RealTimeBars():
            return Series(con_id, "bars")
        case HistoricalBars():
            return Series(con_id, "updating bars")
    return Series(con_id, "level 1")


def size_of(number: int) -> int:
    """Return the size that comes with a number."""
    return number % SIZES + 1


def ticks_of(request: SubscriptionRequest, number: int, time_s: int, market_data_type: int = 1) -> list[Tick]:
    """Return the messages that bring one number of a request's series."""
    req_id, value, size = request.req_id, float(number), size_of(number)
    match request:
        case MarketData(contract=Contract(sec_type="OPT")):
            return [TickOption(req_id, TickType.MODEL_OPTION, 0, 0.2, 0.5, 1.0, 0.0, 0.1, float(size), 0.1, value)]
        case MarketData(generic_ticks=generics):
            is_delayed = market_data_type in DELAYED
            last, bid = (TickType.DELAYED_LAST, TickType.DELAYED_BID) if is_delayed else (TickType.LAST, TickType.BID)
            ticks: list[Tick] = [TickPrice(req_id, last, value, size), TickPrice(req_id, bid, value, size)]
            if "233" in generics.split(","):
                sale = f"{number};{size};{time_s}000;{number};{number};true"
                ticks.append(TickString(req_id, TickType.RT_VOLUME, sale))
            return ticks
        case TickByTick(tick_type="BidAsk"):
            return [TickByTickBidAsk(req_id, time_s, value, value + 1, size, size)]
        case TickByTick(tick_type="MidPoint"):
            return [TickByTickMidPoint(req_id, time_s, value)]
        case TickByTick(tick_type=tick_type):
            return [TickByTickLast(req_id, LAST if tick_type == "Last" else ALL_LAST, time_s, value, size, 0, "N", "")]
        case MarketDepth(is_smart_depth=True):
            return [DepthL2(req_id, 0, 1, 1, value, size, "N", True)]
        case MarketDepth():
            return [DepthUpdate(req_id, 0, 1, 1, value, size)]
        case RealTimeBars():
            return [RealTimeBar(req_id, time_s, value, value, value, value, size, value, 1)]
    return [HistoricalDataUpdate(req_id, 1, str(time_s // 60 * 60), value, value, value, value, value, size)]


def numbered(data_type: str, rows: NDArray[Any]) -> NDArray[Any]:
    """Return those live rows of a stream that have a number."""
    chosen = np.isin(rows["kind"], sorted(DATA_TYPES[data_type].kinds))
    if data_type == "TICKS":
        chosen &= np.isin(rows["tick_type"], LAST_PRICES)
    return rows[chosen]


class Market:
    """All series; `beat` is the only thing that makes numbers.

    Attributes:
        times_s: by series, the UTC second of each number, the first of which is 1.
    """

    def __init__(self) -> None:
        self.times_s: dict[Series, list[int]] = defaultdict(list)
        self._paused: dict[Series, float] = {}
        self._is_closed = False

    def beat(self, clock: Callable[[], float] = time.monotonic) -> list[Series]:
        """Let every series that is not paused have its next number, and return those series."""
        if self._is_closed:
            return []
        now_s, time_s = clock(), int(time.time())
        going = [series for series in self.times_s if self._paused.get(series, 0.0) <= now_s]
        for series in going:
            self.times_s[series].append(time_s)
        return going

    def pause(self, series: Series, until_s: float) -> None:
        """Let nothing happen in a series for a while: silence that hides nothing."""
        self._paused[series] = until_s

    def resume(self) -> None:
        """End every pause."""
        self._paused.clear()

    def close(self) -> None:
        """Let nothing happen any more."""
        self._is_closed = True

    def number(self, series: Series) -> int:
        """Return the newest number of a series, which is 0 at first."""
        return len(self.times_s[series])

    def ticks(self, request: SubscriptionRequest, number: int, time_s: int, market_data_type: int) -> list[Tick]:
        """Return the messages that bring a request the newest number of its series."""
        return ticks_of(request, number, time_s, market_data_type)

    def bars(self) -> NDArray[np.void]:
        """Return the answer to every question for bars: so many one-minute bars up to now."""
        bars = np.zeros(BARS, HISTORICAL_BAR)
        bars["event_ns"] = (int(time.time()) // 60 - np.arange(BARS)[::-1]) * 60 * NS
        for name in ("open", "high", "low", "close", "volume", "wap"):
            bars[name] = 1.0
        return bars

    def history(self, request: HistoricalTicksRequest, start_s: int, end_s: int) -> NDArray[np.void]:
        """Return the ticks of a request's series from one second up to another, as IB answers: whole, in order."""
        found = [
            (number, time_s)
            for number, time_s in enumerate(self.times_s[series_of(request)], 1)
            if start_s <= time_s <= end_s
        ]
        found = found[: request.number_of_ticks] if request.start else found[-request.number_of_ticks :]
        numbers = np.array([number for number, _ in found], np.float64)
        times_ns = np.array([time_s for _, time_s in found], np.int64) * NS
        sizes = np.array([size_of(number) for number, _ in found], np.float64)
        match request.what_to_show:
            case "BID_ASK":
                rows = np.zeros(len(found), HISTORICAL_TICK_BID_ASK)
                rows["bid"], rows["ask"], rows["bid_size"], rows["ask_size"] = numbers, numbers + 1, sizes, sizes
            case "MIDPOINT":
                rows = np.zeros(len(found), HISTORICAL_TICK_MIDPOINT)
                rows["price"] = numbers
            case _:
                rows = np.zeros(len(found), HISTORICAL_TICK_LAST)
                rows["price"], rows["size"], rows["exchange"] = numbers, sizes, "N"
        rows["event_ns"] = times_ns
        return rows
