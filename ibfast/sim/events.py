"""Events of a market, and the interface between a gateway and its market.

The rule of the file: an event carries its instrument's con_id and its time; a quote carries the full new state of both
sides. Absent numbers are None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ibfast.sim.clock import Clock
from ibfast.sim.universe import Universe

__all__ = ["Bars", "Event", "EventSource", "Level", "QuoteEvent", "Size", "Statistics", "TradeEvent"]

Size = int | float
"""A number of shares, contracts or units of a currency, possibly fractional."""


Level = tuple[float, Size]
"""Price and size of one row of a book."""


class QuoteEvent(NamedTuple):
    """The top of the book has changed."""

    ts_ns: int
    con_id: int
    bid: float | None
    ask: float | None
    bid_size: Size | None
    ask_size: Size | None


class TradeEvent(NamedTuple):
    """A trade has been reported.

    `unreported` trades (odd lots, say) move neither the last price nor the volume's price range.
    """

    ts_ns: int
    con_id: int
    price: float | None
    size: Size | None
    exchange: str
    conditions: str
    unreported: bool


Event = QuoteEvent | TradeEvent


class Statistics(NamedTuple):
    """The day so far: what a new level-1 subscription receives at once."""

    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: Size | None
    vwap: float | None


@dataclass(frozen=True, slots=True)
class Bars:
    """Columns of bars; `start_s` are UTC seconds."""

    start_s: npt.NDArray[np.int64]
    open: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]
    wap: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]


class EventSource(Protocol):
    """The source of a gateway's events: the made-up `Market`, or a file of recorded ticks."""

    universe: Universe
    paces_itself: bool
    """True: it delivers as fast as clients read, and moves the clock."""

    def begin(self, clock: Clock) -> None:
        """Set the gateway's clock, if the events bring a time of their own; called once, before everything else."""

    def watch(self, con_id: int, now_ns: int, *, quotes: bool, trades: bool) -> None:
        """Deliver this instrument's events after `now_ns` too; called for each subscription."""

    def unwatch(self, con_id: int) -> None:
        """Deliver them no longer."""

    def advance(self, clock: Clock) -> Sequence[Event]:
        """Return the events of all watched instruments up to now, in order, each once."""

    def latest(self, con_id: int, now_ns: int) -> tuple[QuoteEvent | None, TradeEvent | None]:
        """Return the quote and the reported trade that stand at `now_ns`."""

    def past_events(self, con_id: int, start_ns: int, end_ns: int) -> list[Event]:
        """Return one instrument's events in [start_ns, end_ns), whenever that is."""

    def bars(self, con_id: int, what_to_show: str, start_s: npt.NDArray[np.int64], seconds: int) -> Bars:
        """Return bars of `seconds` that begin at `start_s`, ascending.

        Args:
            con_id: the instrument.
            what_to_show: "TRADES", "BID", "ASK", "MIDPOINT", or "BID_ASK": open and low are of the bid, high and
                close of the ask. All but trades have -1 for volume, wap and count.
            start_s: UTC seconds.
            seconds: the length of a bar.
        """

    def statistics(self, con_id: int, now_ns: int) -> Statistics:
        """Return the figures of the day up to `now_ns`."""

    def value(self, con_id: int, now_ns: int) -> float:
        """Return what one unit is worth at `now_ns`."""

    def book(self, quote: QuoteEvent, rows: int) -> tuple[list[Level], list[Level]]:
        """Return bids and asks, best first, at most `rows` of each, as they are when `quote` is the top."""
