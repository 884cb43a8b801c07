"""What a channel's state is: the last row of each key, the book, and what is left of a window that is conflated.

The rule of the file: rows in, rows out, in the ring's dtypes; it knows no dialect. Rows from history are no state,
since what is old must not look fresh.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.fanout.encoding.dialect import Rows
from ibfast.feed._feed import DTYPES
from ibfast.feed.feed import BACKFILL_KINDS
from ibfast.records import Kind

__all__ = ["IS_OLD", "KEYED", "Book", "ChannelState", "by_instrument", "joined"]

KEYED = {"ticks", "greeks"}
"""Families with a last row for each tick type."""

INSERT, UPDATE, DELETE = range(3)
SIDES = (0, 1)
MOST_LEVELS = 256
LEVEL = ("price", "size", "market_maker")

IS_OLD = np.zeros(256, bool)
"""By kind: whether a row is of history."""
IS_OLD[list(BACKFILL_KINDS.values())] = True


class Book:
    """The levels of an order book, best first, each as the last row that said something of it."""

    def __init__(self) -> None:
        self.sides: dict[int, list[Any]] = {side: [] for side in SIDES}

    def take(self, rows: NDArray[Any]) -> None:
        """Carry out the rows' operations; what names a level that can't be there changes nothing."""
        columns = (rows[name].tolist() for name in ("kind", "side", "position", "operation"))
        for row, kind, row_side, position, operation in zip(rows, *columns, strict=True):
            levels = self.sides.get(row_side)
            if kind == Kind.DEPTH_RESET:
                for side in self.sides.values():
                    side.clear()
            elif levels is None or not 0 <= position <= len(levels):
                continue
            elif operation == INSERT:
                levels.insert(position, row.copy())
                del levels[MOST_LEVELS:]
            elif operation == UPDATE and position < MOST_LEVELS:
                levels[position : position + 1] = [row.copy()]
            elif operation == DELETE:
                del levels[position : position + 1]

    def rows(self) -> NDArray[Any]:
        """Return the inserts that build the book."""
        levels = [(position, level) for side in SIDES for position, level in enumerate(self.sides[side])]
        rows = np.empty(len(levels), DTYPES["depth"])
        for i, (position, level) in enumerate(levels):
            rows[i] = level
            rows[i]["operation"], rows[i]["position"] = INSERT, position
        return rows

    def copy(self) -> Book:
        """Return a book with the same levels."""
        twin = Book()
        twin.sides = {side: list(levels) for side, levels in self.sides.items()}
        return twin

    def changes_since(self, before: Book, last: Any) -> NDArray[Any]:
        """Return the operations that make this book of an earlier one, with time and kind of `last`."""
        operations: list[tuple[int, int, int, Any]] = []
        for side in SIDES:
            old, new = before.sides[side], self.sides[side]
            common = min(len(old), len(new))
            operations += [
                (side, UPDATE, position, new[position])
                for position in range(common)
                if not _is_same_level(old[position], new[position])
            ]
            operations += [(side, INSERT, position, new[position]) for position in range(common, len(new))]
            operations += [(side, DELETE, position, None) for position in reversed(range(common, len(old)))]
        rows = np.zeros(len(operations), DTYPES["depth"])
        for row, (side, operation, position, level) in zip(rows, operations, strict=True):
            for name in ("seq", "recv_ns", "instrument", "req_id", "kind", "attribs"):
                row[name] = last[name]
            row["side"], row["operation"], row["position"] = side, operation, position
            for name in LEVEL if level is not None else ():
                row[name] = level[name]
        return rows


def _is_same_level(one: Any, other: Any) -> bool:
    return all(one[name] == other[name] for name in LEVEL)


class ChannelState:
    """The last rows of a channel.

    Args:
        families: of the channel.
        rows: the state with which it begins.
    """

    def __init__(self, families: Iterable[str], rows: Rows) -> None:
        self._latest: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in families}
        self._book = Book()
        for family, part in rows.items():
            self._take(family, part)

    def take(self, rows: Rows, *, is_conflated: bool) -> Rows:
        """Take the rows of a window, and return those that are to be told of it: all, or the last of each key."""
        told: dict[str, NDArray[Any]] = {}
        for family, part in rows.items():
            before = self._book.copy() if family == "depth" and is_conflated else None
            self._take(family, part)
            if not is_conflated:
                told[family] = part
            elif before is not None:
                changes = self._book.changes_since(before, part[-1])
                told[family] = changes if len(changes) < len(part) else part
            elif family in KEYED:
                _, from_end = np.unique(part["tick_type"][::-1], return_index=True)
                told[family] = part[np.sort(len(part) - 1 - from_end)]
            else:
                told[family] = part[-1:]
        return {family: part for family, part in told.items() if len(part)}

    def _take(self, family: str, rows: NDArray[Any]) -> None:
        if family == "depth":
            self._book.take(rows)
            return
        fresh = rows[~IS_OLD[rows["kind"]]]
        latest = self._latest[family]
        if family in KEYED:
            last = {tick_type: i for i, tick_type in enumerate(fresh["tick_type"].tolist())}
            for tick_type, i in last.items():
                latest[tick_type] = fresh[i : i + 1].copy()
        elif len(fresh):
            latest[0] = fresh[-1:].copy()

    def rows(self) -> Rows:
        """Return the state: the last row of each key, and the book as inserts."""
        found = {family: joined(family, list(latest.values())) for family, latest in self._latest.items() if latest}
        for part in found.values():
            part.sort(order="seq")
        if "depth" in self._latest:
            book = self._book.rows()
            if len(book):
                found["depth"] = book
        return found


def joined(family: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return one array of the ring's dtype, which numpy would pack otherwise."""
    return np.concatenate(parts, out=np.empty(sum(map(len, parts)), DTYPES[family]))


def by_instrument(rows: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the rows of each instrument, in order; of one row at least."""
    instruments = rows["instrument"]
    if (instruments == instruments[0]).all():
        yield int(instruments[0]), rows
        return
    rows = rows[np.argsort(instruments, kind="stable")]
    instruments = rows["instrument"]
    bounds = np.flatnonzero(instruments[1:] != instruments[:-1]) + 1
    for first, end in zip((0, *bounds.tolist()), (*bounds.tolist(), len(rows)), strict=True):
        yield int(instruments[first]), rows[first:end]
