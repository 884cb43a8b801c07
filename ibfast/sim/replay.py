"""Recorded ticks as a gateway's market.

The rule of the file: every row is delivered once, in the order of the file; nothing is made up, an empty field is an
absent number. A client reads them

- tick by tick: each trade is one AllLast (and one Last) message, each quote one BidAsk message, with the time cut to
  whole seconds as TWS does it. So a client of AllLast and BidAsk gets exactly the rows of the file;
- as level 1: what a row changes against the row before, as `streams.Level1Stream` sends it. A row that changes nothing
  is not seen there.

A file has the columns ts_ns, symbol, kind, price, size, bid, ask, bid_size, ask_size; kind is T (trade) or Q (quote,
with the full new state of both sides), times are UTC nanoseconds and ascend.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ibfast.errors import ConfigError
from ibfast.records import NS_PER_S
from ibfast.sim.bars import BarBuilder
from ibfast.sim.clock import Clock
from ibfast.sim.events import Bars, Event, Level, QuoteEvent, Size, Statistics, TradeEvent
from ibfast.sim.instruments import recorded_con_id
from ibfast.sim.universe import Universe

__all__ = ["COLUMNS", "TickFile"]

COLUMNS = ("ts_ns", "symbol", "kind", "price", "size", "bid", "ask", "bid_size", "ask_size")
_BATCH = 512
_TRADE, _QUOTE = "T", "Q"
_NO_VOLUME = -1

_Row = tuple[int, Sequence[object]]
"""A place in the file, and what stands there, in the order of COLUMNS."""


class TickFile:
    """A source of events that plays a file of ticks.

    It begins when every kind of row of every symbol has a subscriber, or when no further subscription has come for
    `settle_s` seconds after the last one. Until then, the gateway's clock stands at the first row.

    Args:
        path: .csv, .csv.gz or .parquet (which needs pyarrow).
        speed: how many times faster than recorded; 0 is as fast as the clients read.
        settle_s: seconds.

    Attributes:
        events: how many rows the file has.
        finished: set when all of them have been sent.

    Raises:
        ConfigError: the file is not of this form; names the place and the column.
        OSError: the file can't be read.
    """

    def __init__(self, path: str | Path, *, speed: float = 1.0, settle_s: float = 2.0) -> None:
        self.path = Path(path)
        rows = _read_parquet(self.path) if self.path.suffix == ".parquet" else _read_csv(self.path)
        con_ids: dict[str, int] = {}
        self._rows = list(_to_events(self.path, rows, con_ids))
        if not self._rows:
            raise ConfigError(f"{self.path}: no ticks in it")
        first_day = datetime.fromtimestamp(self._rows[0].ts_ns // NS_PER_S, UTC).date()
        self.universe = Universe.of_symbols(con_ids, first_day)
        self.events = len(self._rows)
        self.finished = asyncio.Event()
        self.paces_itself = speed == 0
        self._speed = speed
        self._settle_s = settle_s
        self._by_con_id: dict[int, list[Event]] = {con_id: [] for con_id in con_ids.values()}
        for event in self._rows:
            self._by_con_id[event.con_id].append(event)
        self._to_hear = {(event.con_id, type(event)) for event in self._rows}
        self._heard: set[tuple[int, type]] = set()
        self._heard_at_s = 0.0
        self._next = 0
        self._has_begun = False

    def begin(self, clock: Clock) -> None:
        """Hold the clock at the first row."""
        clock.speed = 0.0
        clock.set(self._rows[0].ts_ns - 1)

    def watch(self, con_id: int, now_ns: int, *, quotes: bool = True, trades: bool = True) -> None:
        """Note that a client listens to an instrument."""
        self._heard |= {(con_id, kind) for kind, wanted in ((QuoteEvent, quotes), (TradeEvent, trades)) if wanted}
        self._heard_at_s = time.monotonic()

    def unwatch(self, con_id: int) -> None:
        """Note that no client listens to this instrument any more."""
        self._heard = {heard for heard in self._heard if heard[0] != con_id}

    def advance(self, clock: Clock) -> Sequence[Event]:
        """Return the rows that are due, or, at speed 0, the next ones."""
        if not self._has_begun:
            if not self._has_audience():
                return ()
            self._has_begun = True
            clock.speed = self._speed
            clock.set(self._rows[0].ts_ns)
        first = self._next
        if first == self.events:
            self.finished.set()
            return ()
        if self.paces_itself:
            self._next = min(first + _BATCH, self.events)
            clock.set(self._rows[self._next - 1].ts_ns)
        else:
            self._next = bisect_right(self._rows, clock.now_ns(), lo=first, key=itemgetter(0))
        return self._rows[first : self._next]

    def latest(self, con_id: int, now_ns: int) -> tuple[QuoteEvent | None, TradeEvent | None]:
        """Return the quote and the trade that stand at `now_ns`."""
        quote: QuoteEvent | None = None
        trade: TradeEvent | None = None
        rows = self._by_con_id[con_id]
        for event in reversed(rows[: bisect_right(rows, now_ns, key=itemgetter(0))]):
            if isinstance(event, QuoteEvent):
                quote = quote or event
            else:
                trade = trade or event
            if quote and trade:
                break
        return quote, trade

    def past_events(self, con_id: int, start_ns: int, end_ns: int) -> list[Event]:
        """Return one instrument's rows in [start_ns, end_ns)."""
        rows = self._by_con_id[con_id]
        return rows[bisect_left(rows, start_ns, key=itemgetter(0)) : bisect_left(rows, end_ns, key=itemgetter(0))]

    def bars(self, con_id: int, what_to_show: str, start_s: npt.NDArray[np.int64], seconds: int) -> Bars:
        """Return bars made of the file's rows; those before its first row are left out."""
        is_both = what_to_show == "BID_ASK"
        lower, upper = ("BID", "ASK") if is_both else (what_to_show, what_to_show)
        low_bar, high_bar = BarBuilder(lower, None), BarBuilder(upper, None)
        found: list[tuple[float | None, ...]] = []
        for begins_s in start_s.tolist():
            low_bar.begin()
            high_bar.begin()
            for event in self.past_events(con_id, begins_s * NS_PER_S, (begins_s + seconds) * NS_PER_S):
                for bar in (low_bar, high_bar):
                    bar.on_quote(event) if isinstance(event, QuoteEvent) else bar.on_trade(event)
            if low_bar.open is not None and high_bar.open is not None:
                counted = (low_bar.volume, low_bar.wap, low_bar.count) if low_bar.of_trades else (_NO_VOLUME,) * 3
                found.append((begins_s, low_bar.open, high_bar.high, low_bar.low, high_bar.close, *counted))
        table = np.array(found, dtype=np.float64).reshape(-1, 8)
        start, open_, high, low, close, volume, wap, count = table.T
        return Bars(start.astype(np.int64), open_, high, low, close, volume, wap, count.astype(np.int64))

    def statistics(self, con_id: int, now_ns: int) -> Statistics:
        """Return the figures of the rows up to `now_ns`."""
        trades = [event for event in self.past_events(con_id, 0, now_ns + 1) if isinstance(event, TradeEvent)]
        prices = [trade.price for trade in trades if trade.price is not None]
        volume = sum(trade.size or 0 for trade in trades)
        if not prices:
            return Statistics(None, None, None, None, volume, None)
        turnover = math.fsum((trade.price or 0.0) * (trade.size or 0) for trade in trades)
        return Statistics(prices[0], max(prices), min(prices), None, volume, turnover / volume if volume else None)

    def value(self, con_id: int, now_ns: int) -> float:
        """Return the last price; NaN before the first trade."""
        _, trade = self.latest(con_id, now_ns)
        return math.nan if trade is None or trade.price is None else trade.price

    def book(self, quote: QuoteEvent, rows: int) -> tuple[list[Level], list[Level]]:
        """Return the one row of each side that the file knows."""
        bids = [] if quote.bid is None else [(quote.bid, quote.bid_size or 0)]
        asks = [] if quote.ask is None else [(quote.ask, quote.ask_size or 0)]
        return bids[:rows], asks[:rows]

    def _has_audience(self) -> bool:
        if self._heard >= self._to_hear:
            return True
        return bool(self._heard) and time.monotonic() - self._heard_at_s >= self._settle_s


def _read_csv(path: Path) -> Iterator[_Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        _check_columns(path, next(reader, []))
        for row in reader:
            if len(row) != len(COLUMNS):
                raise ConfigError(f"{path}, line {reader.line_num}: {len(row)} fields instead of {len(COLUMNS)}")
            yield reader.line_num, row


def _read_parquet(path: Path) -> Iterator[_Row]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet needs pyarrow; pip install pyarrow, or convert it to CSV") from None
    table = parquet.read_table(path)
    _check_columns(path, table.column_names)
    columns = (table.column(name).to_pylist() for name in COLUMNS)
    for number, row in enumerate(zip(*columns, strict=True), 1):
        yield number, tuple("" if value is None else value for value in row)


def _check_columns(path: Path, names: Iterable[str]) -> None:
    found = tuple(names)
    for name in found:
        if name not in COLUMNS:
            raise ConfigError(f"{path}, line 1: unknown column {name!r}; expected are {', '.join(COLUMNS)}")
    for name in COLUMNS:
        if name not in found:
            raise ConfigError(f"{path}, line 1: column {name!r} is missing")
    if path.suffix != ".parquet" and found != COLUMNS:
        raise ConfigError(f"{path}, line 1: the columns must stand in the order {', '.join(COLUMNS)}")


def _to_events(path: Path, rows: Iterable[_Row], con_ids: dict[str, int]) -> Iterator[Event]:
    """Check each row and make an event of it; `con_ids` is filled with the symbols."""
    latest_ns = 0
    for line, row in rows:

        def number(column: int, line: int = line, row: Sequence[object] = row) -> Size | None:
            return _number(path, line, COLUMNS[column], row[column])

        ts_ns, symbol, kind = number(0), str(row[1]), row[2]
        if not isinstance(ts_ns, int) or ts_ns < latest_ns:
            raise _bad(path, line, "ts_ns", row[0], "must be an integer and not smaller than the one before")
        if not symbol:
            raise _bad(path, line, "symbol", symbol, "must not be empty")
        latest_ns = ts_ns
        con_id = con_ids.setdefault(symbol, recorded_con_id(len(con_ids)))
        if kind == _QUOTE:
            _check_empty(path, line, row, ("price", "size"))
            yield QuoteEvent(ts_ns, con_id, _price(number(5)), _price(number(6)), number(7), number(8))
        elif kind == _TRADE:
            _check_empty(path, line, row, ("bid", "ask", "bid_size", "ask_size"))
            yield TradeEvent(ts_ns, con_id, _price(number(3)), number(4), "", "", unreported=False)
        else:
            raise _bad(path, line, "kind", kind, f"must be {_TRADE} or {_QUOTE}")


def _number(path: Path, line: int, column: str, value: object) -> Size | None:
    """Return what a field says: None if it is empty, an int if it is written as one."""
    if value == "":
        return None
    if isinstance(value, str):
        try:
            value = int(value) if value.removeprefix("-").isdecimal() else float(value)
        except ValueError:
            raise _bad(path, line, column, value, "is not a number") from None
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _bad(path, line, column, value, "is not a finite number")
    return value


def _price(value: Size | None) -> float | None:
    return None if value is None else float(value)


def _check_empty(path: Path, line: int, row: Sequence[object], columns: Iterable[str]) -> None:
    for column in columns:
        value = row[COLUMNS.index(column)]
        if value != "":
            raise _bad(path, line, column, value, f"must be empty in a row of kind {row[2]}")


def _bad(path: Path, line: int, column: str, value: object, reason: str) -> ConfigError:
    place = "row" if path.suffix == ".parquet" else "line"
    return ConfigError(f"{path}, {place} {line}, column {column}: {value!r} {reason}")
