"""Messages of the tick path as values: what the embedded gateway streams.

The rule of the file: a field is what goes on the wire. None and NaN are absent: an empty field in text, no field in
protobuf. Sizes may be Decimal, float, int or str, and are written exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

__all__ = [
    "DepthL2",
    "DepthUpdate",
    "HistoricalDataUpdate",
    "RealTimeBar",
    "Size",
    "Tick",
    "TickByTickBidAsk",
    "TickByTickLast",
    "TickByTickMidPoint",
    "TickGeneric",
    "TickOption",
    "TickPrice",
    "TickSize",
    "TickString",
]

Size: TypeAlias = Decimal | float | str | None


@dataclass(frozen=True, slots=True)
class TickPrice:
    """A price of level 1 and the size that belongs to it."""

    req_id: int
    tick_type: int
    price: float | None
    size: Size = None
    attrib_mask: int = 0


@dataclass(frozen=True, slots=True)
class TickSize:
    """A size of level 1."""

    req_id: int
    tick_type: int
    size: Size


@dataclass(frozen=True, slots=True)
class TickOption:
    """An option computation."""

    req_id: int
    tick_type: int
    attribs: int | None = None
    implied_vol: float | None = None
    delta: float | None = None
    option_price: float | None = None
    pv_dividend: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    und_price: float | None = None


@dataclass(frozen=True, slots=True)
class TickGeneric:
    """A number of level 1 that is neither a price nor a size."""

    req_id: int
    tick_type: int
    value: float | None


@dataclass(frozen=True, slots=True)
class TickString:
    """A text of level 1."""

    req_id: int
    tick_type: int
    value: str


@dataclass(frozen=True, slots=True)
class DepthUpdate:
    """An operation (0 insert, 1 update, 2 delete) on one side (0 ask, 1 bid) of a book."""

    req_id: int
    position: int
    operation: int
    side: int
    price: float | None
    size: Size


@dataclass(frozen=True, slots=True)
class DepthL2:
    """As DepthUpdate, with the market maker or, in a smart book, the exchange."""

    req_id: int
    position: int
    operation: int
    side: int
    price: float | None
    size: Size
    market_maker: str = ""
    is_smart_depth: bool = False


@dataclass(frozen=True, slots=True)
class RealTimeBar:
    """A five-second bar; `time_s` is its begin."""

    req_id: int
    time_s: int
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: Size
    wap: Size
    count: int | None


@dataclass(frozen=True, slots=True)
class HistoricalDataUpdate:
    """The state of the last bar of a request that is kept up to date; `date` as the request's format has it."""

    req_id: int
    count: int | None
    date: str
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    wap: Size
    volume: Size


@dataclass(frozen=True, slots=True)
class TickByTickLast:
    """A trade; `tick_type` is 1 for Last and 2 for AllLast."""

    req_id: int
    tick_type: int
    time_s: int
    price: float | None
    size: Size
    attrib_mask: int = 0
    exchange: str = ""
    conditions: str = ""


@dataclass(frozen=True, slots=True)
class TickByTickBidAsk:
    """A quote; bit 0 of `attrib_mask` is bid past low, bit 1 is ask past high."""

    req_id: int
    time_s: int
    bid: float | None
    ask: float | None
    bid_size: Size
    ask_size: Size
    attrib_mask: int = 0


@dataclass(frozen=True, slots=True)
class TickByTickMidPoint:
    """A midpoint."""

    req_id: int
    time_s: int
    price: float | None


Tick: TypeAlias = (
    TickPrice
    | TickSize
    | TickOption
    | TickGeneric
    | TickString
    | DepthUpdate
    | DepthL2
    | RealTimeBar
    | HistoricalDataUpdate
    | TickByTickLast
    | TickByTickBidAsk
    | TickByTickMidPoint
)
