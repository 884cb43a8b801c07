"""Ticks as rows of the feed's rings: a seeded stream, files, what a subscriber is sent of them in windows.

The rule of the file: nothing of the code that is measured is used; what windows and conflation mean is said here anew,
so that it can be compared.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast import Kind
from ibfast.feed._feed import DTYPES
from ibfast.sim.events import Event, QuoteEvent
from ibfast.sim.instruments import recorded_con_id
from ibfast.sim.replay import TickFile

Rows = dict[str, NDArray[Any]]

FAMILIES = ("quotes", "trades")
UNIT_NS = 1_000
"""Times are sent in µs."""

START_NS = 1_770_000_000_000_000_000
NS_PER_S = 1_000_000_000
ECHO_SHARE, ECHO_US, ECHO_RANGE = 0.3, 20, 100
TRADE_SHARE, SIDE_KEPT, OFF_PENNY_SHARE = 0.2, 0.7, 0.12
CHEAPEST, DEAREST = 10.0, 600.0


@dataclass(frozen=True)
class TickSet:
    """Quotes and trades of some instruments, as the rings hold them.

    Attributes:
        name: for people.
        instruments: how many; they are numbered from 0 on.
        rows: by family, in the order of `seq`, which is one for both.
    """

    name: str
    instruments: int
    rows: Rows

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def split(self, count: int) -> tuple[TickSet, TickSet]:
        """Return the first rows, so many, and the rest."""
        seqs = np.sort(np.concatenate([rows["seq"] for rows in self.rows.values()]))
        last = seqs[:count].max(initial=0)
        first = {family: rows[rows["seq"] <= last] for family, rows in self.rows.items()}
        rest = {family: rows[rows["seq"] > last] for family, rows in self.rows.items()}
        return TickSet(self.name, self.instruments, first), TickSet(self.name, self.instruments, rest)

    def of(self, instruments: list[int]) -> TickSet:
        """Return the rows of these instruments."""
        rows = {family: rows[np.isin(rows["instrument"], instruments)] for family, rows in self.rows.items()}
        return TickSet(self.name, self.instruments, rows)

    def conflated(self, span_ns: int) -> TickSet:
        """Return the last quote and the last trade of each instrument in each window."""
        kept = {}
        for family, rows in self.rows.items():
            keys = window_of(rows, span_ns) * self.instruments + rows["instrument"]
            _, from_end = np.unique(keys[::-1], return_index=True)
            kept[family] = rows[np.sort(len(rows) - 1 - from_end)]
        return TickSet(self.name, self.instruments, kept)

    def windows(self, span_ns: int) -> list[Rows]:
        """Return the rows of each window that has some; families without rows are left out."""
        numbers = np.unique(np.concatenate([window_of(rows, span_ns) for rows in self.rows.values()]))
        found: list[Rows] = [{} for _ in numbers]
        for family, rows in self.rows.items():
            bounds = np.searchsorted(window_of(rows, span_ns), numbers)
            for window, first, end in zip(found, bounds.tolist(), [*bounds[1:].tolist(), len(rows)], strict=True):
                if end > first:
                    window[family] = rows[first:end]
        return found

    @property
    def sizes(self) -> list[float]:
        """All sizes that there are, each once."""
        columns = [self.rows["quotes"]["bid_size"], self.rows["quotes"]["ask_size"], self.rows["trades"]["size"]]
        values = np.unique(np.concatenate(columns))
        found: list[float] = values[np.isfinite(values)].tolist()
        return found

    def events(self, rows: Rows) -> list[tuple[Any, ...]]:
        """Return rows as tuples in the order of `seq`: is it a trade, instrument, time in µs, values or None."""
        found = []
        for family, names in (("quotes", ("bid", "ask", "bid_size", "ask_size")), ("trades", ("price", "size"))):
            part = rows.get(family)
            if part is not None:
                times = (part["recv_ns"] // UNIT_NS).tolist()
                values = [[None if x != x else x for x in part[name].tolist()] for name in names]
                is_trade = [family == "trades"] * len(part)
                found += zip(part["seq"].tolist(), is_trade, part["instrument"].tolist(), times, *values, strict=True)
        return [event[1:] for event in sorted(found, key=itemgetter(0))]


def window_of(rows: NDArray[Any], span_ns: int) -> NDArray[np.int64]:
    """Return the number of the window that each row is in; without a span, that of its time in the unit."""
    numbers: NDArray[np.int64] = rows["recv_ns"] // (span_ns or UNIT_NS)
    return numbers


def tick_set(name: str, instruments: int, events: list[tuple[Any, ...]]) -> TickSet:
    """Make a set of tuples: time in ns, instrument, and the values of a quote (four) or a trade (two)."""
    found: dict[str, list[tuple[Any, ...]]] = {family: [] for family in FAMILIES}
    for seq, (recv_ns, instrument, *values) in enumerate(events, 1):
        if len(values) == 4:
            found["quotes"].append((seq, recv_ns, instrument, 1, Kind.BID_ASK, 0, 0, *values))
        else:
            found["trades"].append((seq, recv_ns, instrument, 1, Kind.ALL_LAST, 0, 0, *values, 0, 0))
    return TickSet(name, instruments, {family: np.array(rows, DTYPES[family]) for family, rows in found.items()})


def from_file(path: Path) -> TickSet:
    """Read a file of ticks; see `ibfast.sim.replay` for its columns.

    Raises:
        ConfigError: it is not of that form.
        OSError: it can't be read.
    """
    ticks = TickFile(path)
    found: list[tuple[Any, ...]] = []
    for instrument in range(len(ticks.universe)):
        events = ticks.past_events(recorded_con_id(instrument), 0, 1 << 63)
        found += ((event.ts_ns, instrument, *_values(event)) for event in events)
    found.sort(key=itemgetter(0))
    return tick_set(path.name, len(ticks.universe), found)


def _values(event: Event) -> tuple[float, ...]:
    named = (
        (event.bid, event.ask, event.bid_size, event.ask_size)
        if isinstance(event, QuoteEvent)
        else (event.price, event.size)
    )
    return tuple(math.nan if value is None else float(value) for value in named)


# ---- the seeded stream


class Stock:
    """A US stock: prices in cents, sizes in lots of 100; dear ones have wider spreads and move more often."""

    def __init__(self, rng: random.Random) -> None:
        dollars = math.exp(rng.uniform(math.log(CHEAPEST), math.log(DEAREST)))
        self._rng = rng
        self._spread = 1 + int(dollars / 120)
        self._prices = [round(dollars * 100), round(dollars * 100) + self._spread]
        self._move_share = 0.01 + 0.19 * math.log(dollars / CHEAPEST) / math.log(DEAREST / CHEAPEST)
        self._lots = [self._drawn(), self._drawn()]
        self._before = list(self._lots)
        self._side = 0

    def event(self) -> tuple[float, ...]:
        """Return what happens next: the four values of a quote, or the two of a trade."""
        if self._rng.random() < TRADE_SHARE:
            return self._trade()
        if self._rng.random() < self._move_share:
            self._move()
        else:
            # One size, either; in a tenth of the cases both.
            sides = self._rng.choices(((0,), (1,), (0, 1)), (45, 45, 10))[0]
            for side in sides:
                self._change(side)
        bid, ask = self._prices
        return bid / 100, ask / 100, self._lots[0] * 100.0, self._lots[1] * 100.0

    def _trade(self) -> tuple[float, float]:
        """At a quote, mostly on the side of the trade before; some off the penny grid, as between the quotes."""
        rng = self._rng
        if rng.random() >= SIDE_KEPT:
            self._side ^= 1
        hundredths = self._prices[self._side] * 100
        if rng.random() < OFF_PENNY_SHARE:
            inside = -1 if self._side else 1
            hundredths = sum(self._prices) * 50 if rng.random() < 0.5 else hundredths + inside * rng.randint(1, 99)
        size = rng.choices((100, rng.randint(1, 99), 100 * self._geometric(4)), (45, 35, 20))[0]
        return hundredths / 10_000, float(size * (10 if rng.random() < 0.01 else 1))

    def _move(self) -> None:
        """Both prices together, or one: out, or back where the gap is wider than usual. Moved sides have new sizes."""
        rng = self._rng
        cents = 1 if rng.random() < 0.8 else rng.randint(2, 3)
        side = rng.randrange(2)
        outwards = 1 if side else -1
        if rng.random() < 0.7:
            up = rng.choice((-cents, cents))
            self._prices = [price + up for price in self._prices]
            self._renew(0, 1)
        elif self._prices[1] - self._prices[0] > self._spread:
            self._prices[side] -= outwards
            self._renew(side)
        else:
            self._prices[side] += outwards * cents
            self._renew(side)

    def _renew(self, *sides: int) -> None:
        for side in sides:
            self._before[side], self._lots[side] = self._lots[side], self._drawn()

    def _change(self, side: int) -> None:
        """A few lots more or less; or back to the size before; or another."""
        rng, old = self._rng, self._lots[side]
        few = old + rng.choice((-1, 1)) * self._geometric(2.5)
        new = rng.choices((max(1, few), self._before[side], self._drawn()), (75, 15, 10))[0]
        self._before[side], self._lots[side] = old, new if new != old else old + 1

    def _drawn(self) -> int:
        return math.ceil(self._rng.lognormvariate(1.2, 1.1))

    def _geometric(self, mean: float) -> int:
        return 1 + int(math.log(1 - self._rng.random()) / math.log(1 - 1 / mean))


def synthetic(instruments: int, ticks_per_s: float, seconds: float, seed: int = 1) -> TickSet:
    """Make a stream like that of US stocks, all equally busy, times in µs.

    Three of ten events are echoes: the same instrument again within 20 to 2,000 µs, log-uniform. The others are a
    Poisson process. So bursts within an instrument, none across them.
    """
    rng = random.Random(seed)
    stocks = [Stock(rng) for _ in range(instruments)]
    times: list[tuple[int, int]] = []
    time_us, end_us = 0.0, seconds * 1e6
    while time_us < end_us:
        echo_us, instrument = time_us, rng.randrange(instruments)
        while rng.random() < ECHO_SHARE:
            echo_us += ECHO_US * ECHO_RANGE ** rng.random()
            if echo_us < end_us:
                times.append((int(echo_us), instrument))
        times.append((int(time_us), instrument))
        time_us += rng.expovariate(ticks_per_s * (1 - ECHO_SHARE) / 1e6)
    times.sort()
    events = [(START_NS + at_us * 1_000, instrument, *stocks[instrument].event()) for at_us, instrument in times]
    return tick_set(f"seeded, {instruments} symbols, {ticks_per_s:,.0f} ticks/s", instruments, events)
