"""Work for many clients, done in small pieces over the turns of the event loop.

The rule of the file: the owner that has had the least time is next, so that a client that asks for little waits for
nobody who asks for much (start-time fair queueing, Goyal et al. 1996). Once the pieces of one turn of the loop have
used up its slice of time, the other pieces wait for the next turn. It knows nothing of what a piece does. The clock is
a parameter.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ["Turns"]

SLICE_S = 0.005
"""Half of a window of 10 ms, so that the other half is left for what must be written in time."""

MOST_REMEMBERED = 64
"""Owners of which no piece waits, before those are forgotten that have had no more than others."""

PIECES = 5
"""A piece counts as this share of a slice at most: what made it longer was hardly its owner, but a collection of
garbage or another process; nobody may wait long for having met with that."""

T = TypeVar("T")


class Turns:
    """Pieces of work that wait until the event loop has time for them.

    A piece should take a millisecond at most: the one that goes beyond the slice is done to its end.

    Args:
        slice_s: how long the pieces of one turn of the loop may take together.
        now_s: a clock.
    """

    def __init__(self, slice_s: float = SLICE_S, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._slice_s = slice_s
        self._now_s = now_s
        self._left_s = slice_s
        self._most_s = slice_s / PIECES
        self._waiting: dict[Hashable, deque[Callable[[], object]]] = {}
        self._order: list[tuple[float, int, Hashable]] = []  # a heap: whose turn is next comes first
        self._numbers = itertools.count()
        self._had_s: dict[Hashable, float] = {}  # an owner that comes back begins with no less than it had
        self._least_s = 0.0  # what an owner has had, at least, who has had a turn lately
        self._is_working = False
        self._is_scheduled = False

    def __len__(self) -> int:
        """Return how many pieces wait."""
        return sum(map(len, self._waiting.values()))

    def add(self, owner: Hashable, piece: Callable[[], object]) -> None:
        """Do a piece of work: now, if this turn of the loop has time left, else when the owner's turn comes.

        Args:
            owner: for whom, a client or all that are of one; pieces of one owner keep their order.
            piece: the work.
        """
        pieces = self._waiting.get(owner)
        if pieces is None:
            pieces = self._waiting[owner] = deque()
            self._queue(owner)
        pieces.append(piece)
        if not self._is_working:
            self._work()

    async def run(self, owner: Hashable, piece: Callable[[], T]) -> T:
        """Do a piece of work as `add` does, and return its result, or raise its exception."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def work() -> None:
            if result.cancelled():
                return
            try:
                result.set_result(piece())
            except Exception as error:
                result.set_exception(error)

        self.add(owner, work)
        return await result

    def _work(self) -> None:
        self._is_working = True
        try:
            while self._waiting and self._left_s > 0:
                had_s, _, owner = heapq.heappop(self._order)
                self._least_s = max(self._least_s, had_s)
                pieces = self._waiting[owner]
                piece = pieces.popleft()
                began_s = self._now_s()
                try:
                    piece()
                finally:
                    spent_s = self._now_s() - began_s
                    self._left_s -= spent_s
                    self._had_s[owner] = had_s + min(spent_s, self._most_s)
                    if pieces:
                        self._queue(owner)
                    else:
                        del self._waiting[owner]
        finally:
            self._is_working = False
            if not self._is_scheduled:
                self._is_scheduled = True
                asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn of the loop."""
        self._is_scheduled, self._left_s = False, self._slice_s
        if self._waiting:
            self._work()
        else:  # there is time for everybody
            self._had_s.clear()

    def _queue(self, owner: Hashable) -> None:
        # One that is new, or was away, is a piece ahead of the others, but has not saved any more.
        least_s = self._least_s - self._most_s
        heapq.heappush(self._order, (max(least_s, self._had_s.get(owner, 0.0)), next(self._numbers), owner))
        if len(self._had_s) > 2 * len(self._waiting) + MOST_REMEMBERED:
            self._had_s = {other: had_s for other, had_s in self._had_s.items() if had_s > least_s}
