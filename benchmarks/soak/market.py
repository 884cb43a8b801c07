"""A market whose events are numbered in their values, so that whoever reads its records can tell which are missing.

The rule of the file: the n-th trade of an instrument has the size n and the price that n stands for, the n-th quote the
same as its bid; which number is due is a matter of the time alone. So the numbers go on while nobody listens and while
the gateway's process is dead, and a record whose price is not that of its size is a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ibfast.contracts import Contract
from ibfast.sim.clock import Clock
from ibfast.sim.events import Bars, Event, Level, QuoteEvent, Statistics, TradeEvent
from ibfast.sim.universe import Universe

NS = 1_000_000_000
LOWEST_PRICE, PRICES, PRICE_STEP = 100.0, 64, 1 / 64
ASK, ASK_SIZE = 102.0, 1
EXCHANGE = "NASDAQ"
MOST_AT_ONCE = 10_000
"""Events; a client may leave their messages unread without being cut off."""


@dataclass(frozen=True)
class Group:
    """Instruments with one subscription each, of one kind.

    Attributes:
        data_type, options: of the subscription.
        size: how many instruments.
        messages: what a cycle, a trade and a quote of one instrument, becomes on the wire.
        series: how many numbered series of records come of one subscription.
        priority: of the subscription.
    """

    data_type: str
    options: dict[str, Any]
    size: int
    messages: int
    series: int = 1
    priority: int = 0


LINES = 400
"""Market-data lines of the account; tick-by-tick, depth and the rate of requests follow from them by IB's rules.

Room for all streams twice: the gateway counts those of a session that it does not know to be dead.
"""

GROUPS = (
    Group("TRADES", {"generic_ticks": "233"}, 90, messages=6, series=2),
    Group("LAST", {}, 6, messages=1, priority=1),
    Group("BID_ASK", {}, 4, messages=1, priority=1),
    Group("DEPTH", {"num_rows": 5}, 2, messages=2),
)
"""Level 1 with time and sales: a price, two sizes and a text of each trade, a price and a size of each quote."""

INSTRUMENTS = sum(group.size for group in GROUPS)
SERIES = sum(group.size * group.series for group in GROUPS)
MESSAGES_PER_CYCLE = sum(group.size * group.messages for group in GROUPS)


def price_of(number: Any) -> Any:
    """Return the price that a number stands for, exact in binary; takes arrays too."""
    return LOWEST_PRICE + number % PRICES * PRICE_STEP


def universe() -> Universe:
    """Return the instruments; no hours are told of them, so that silence is never a matter of the time of day."""
    return Universe(
        replace(instrument, details=replace(instrument.details, trading_hours="", liquid_hours=""))
        for instrument in Universe.synthetic(INSTRUMENTS)
    )


def wishes() -> list[tuple[Contract, Group]]:
    """Return what is subscribed to: every instrument once, so that an instrument names its subscription."""
    instruments = iter(universe())
    return [(next(instruments).contract, group) for group in GROUPS for _ in range(group.size)]


@dataclass(frozen=True)
class Timetable:
    """When each event happens: cycle after cycle, first the trades of all instruments, then their quotes.

    Attributes:
        epoch_ns: UTC, when the first cycle begins.
        rate: messages per second of all subscriptions together.
    """

    epoch_ns: int
    rate: float

    @property
    def event_ns(self) -> float:
        """From one event to the next."""
        return NS * MESSAGES_PER_CYCLE / (self.rate * 2 * INSTRUMENTS)

    def events_before(self, now_ns: int) -> int:
        """Return how many events happen before a time."""
        return max(0, int((now_ns - self.epoch_ns) / self.event_ns))

    def highest_number(self, now_ns: int) -> int:
        """Return a number that none has exceeded at a time, by clocks that agree to a second."""
        return self.events_before(now_ns + NS) // (2 * INSTRUMENTS) + 1


class NumberedMarket:
    """A gateway's source of events.

    Args:
        timetable: when they happen.

    Attributes:
        is_held: nothing happens for now; afterwards all that was due happens as fast as possible.
    """

    paces_itself = False

    def __init__(self, timetable: Timetable) -> None:
        self.universe = universe()
        self._timetable = timetable
        self._con_ids = [instrument.con_id for instrument in self.universe]
        self._slots = {con_id: slot for slot, con_id in enumerate(self._con_ids)}
        self._watched: set[int] = set()
        self._next = 0
        self.is_held = False

    def begin(self, clock: Clock) -> None:
        self._next = self._timetable.events_before(clock.now_ns())

    def watch(self, con_id: int, now_ns: int, *, quotes: bool, trades: bool) -> None:
        self._watched.add(con_id)

    def unwatch(self, con_id: int) -> None:
        self._watched.discard(con_id)

    def advance(self, clock: Clock) -> Sequence[Event]:
        """Return what has happened since the last call; not all at once if it is much."""
        if self.is_held:
            return ()
        watched, con_ids = self._watched, self._con_ids
        first, self._next = self._next, self._timetable.events_before(clock.now_ns())
        if not watched:
            return ()
        self._next = min(self._next, first + MOST_AT_ONCE)
        found: list[Event] = []
        for event in range(first, self._next):
            cycle, slot = divmod(event, 2 * INSTRUMENTS)
            con_id = con_ids[slot % INSTRUMENTS]
            if con_id in watched:
                found.append((self._trade if slot < INSTRUMENTS else self._quote)(event, con_id, cycle + 1))
        return found

    def latest(self, con_id: int, now_ns: int) -> tuple[QuoteEvent | None, TradeEvent | None]:
        """Return what `advance` gave out last, or would have if the instrument had been watched."""
        cycle, slot = divmod(self._next, 2 * INSTRUMENTS)
        own = self._slots[con_id]
        trades, quotes = cycle + (own < slot), cycle + (own + INSTRUMENTS < slot)
        if not quotes:
            return None, None
        return self._quote(self._next, con_id, quotes), self._trade(self._next, con_id, trades)

    def book(self, quote: QuoteEvent, rows: int) -> tuple[list[Level], list[Level]]:
        """Return one row of each side."""
        return [(quote.bid or 0.0, quote.bid_size or 0)], [(ASK, ASK_SIZE)]

    def past_events(self, con_id: int, start_ns: int, end_ns: int) -> list[Event]:
        """Return nothing: there is no history."""
        return []

    def bars(self, con_id: int, what_to_show: str, start_s: npt.NDArray[np.int64], seconds: int) -> Bars:
        """Return bars of which nothing is known."""
        nothing, none = np.zeros(len(start_s)), np.zeros(len(start_s), np.int64)
        return Bars(start_s, nothing, nothing, nothing, nothing, nothing, nothing, none)

    def statistics(self, con_id: int, now_ns: int) -> Statistics:
        """Return nothing of the day so far."""
        return Statistics(None, None, None, None, 0, None)

    def value(self, con_id: int, now_ns: int) -> float:
        return LOWEST_PRICE

    def _trade(self, event: int, con_id: int, number: int) -> TradeEvent:
        return TradeEvent(self._time_ns(event), con_id, price_of(number), number, EXCHANGE, "", unreported=False)

    def _quote(self, event: int, con_id: int, number: int) -> QuoteEvent:
        return QuoteEvent(self._time_ns(event), con_id, price_of(number), ASK, number, ASK_SIZE)

    def _time_ns(self, event: int) -> int:
        return self._timetable.epoch_ns + int(event * self._timetable.event_ns)
