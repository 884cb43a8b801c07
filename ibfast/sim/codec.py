"""The gateway's side of the wire: read what clients ask, write what they are told.

The mirror of `wire.requests` and `wire.responses`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibfast.sim.ticks import (
    Depth,
    DepthL2,
    HistoricalDataUpdate,
    RealTimeBar,
    Size,
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickByTickMidPoint,
    TickGeneric,
    TickOption,
    TickPrice,
    TickSize,
    TickString,
)

__all__ = [
    "Depth",
    "DepthL2",
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
    "UnknownRequest",
]


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """A request that the embedded gateway has no class for; `fields` are raw: split text, or one protobuf body."""

    msg_id: int
    fields: tuple[bytes, ...]
