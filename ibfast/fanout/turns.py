"""Work for many connections, done in small pieces over the turns of the event loop.

The rule of the file: connections take turns, one piece each; once the pieces of one turn of the loop have used up its
slice of time, the other pieces wait for the next turn. It knows nothing of what a piece does. The clock is a parameter.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ["Turns"]

SLICE_S = 0.005
"""Windows of 10 ms are written in time although every turn of the loop does its slice of pieces."""

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
        self._waiting: dict[Hashable, deque[Callable[[], object]]] = {}  # whose turn is next comes first
        self._is_working = False
        self._is_scheduled = False

    def __len__(self) -> int:
        """Return how many pieces wait."""
        return sum(map(len, self._waiting.values()))

    def add(self, owner: Hashable, piece: Callable[[], object]) -> None:
        """Do a piece of work: now, if this turn of the loop has time left, else when the owner's turn comes.

        Args:
            owner: for whom; pieces of one owner keep their order.
            piece: the work.
        """
        self._waiting.setdefault(owner, deque()).append(piece)
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
                owner = next(iter(self._waiting))
                pieces = self._waiting.pop(owner)
                piece = pieces.popleft()
                if pieces:
                    self._waiting[owner] = pieces
                began_s = self._now_s()
                try:
                    piece()
                finally:
                    self._left_s -= self._now_s() - began_s
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
