"""A bounded tape of what came last, and its readers: the same rules as a ring's, for objects in one event loop.

The rule of the file: the writer never waits; what is too old goes, and a reader that was not there in time is told how
much it missed. It knows nothing of what is on the tape but each item's weight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Self, TypeVar

__all__ = ["Tape", "TapeReader"]

T = TypeVar("T")


class Tape(Generic[T]):
    """What came last, up to a weight in all; the newest item is always there.

    Args:
        capacity: the weight.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[tuple[int, T]] = deque()
        """Each with the weight of all that came before it."""
        self._first = 0
        """How many items are gone."""
        self._end = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.is_closed = False
        self.error: Exception | None = None

    def append(self, item: T, weight: int = 1) -> None:
        """Add an item; wake who waits for it."""
        self._items.append((self._end, item))
        self._end += weight
        while len(self._items) > 1 and self._end - self._items[0][0] > self._capacity:
            self._items.popleft()
            self._first += 1
        self._wake()

    def close(self, error: Exception | None = None) -> None:
        """End it: readers finish with what is there, and raise the error if there is one."""
        self.is_closed, self.error = True, error
        self._wake()

    def reader(self, start: str, on_lost: Callable[[int], None]) -> TapeReader[T]:
        """Return a reader of its own position.

        Args:
            start: "oldest" for all that is still there, "next" for what comes from now on.
            on_lost: called with the weight that the reader has missed, whenever it was too late.

        Raises:
            ValueError: `start` is neither.
        """
        if start not in ("oldest", "next"):
            raise ValueError(f'start={start!r} is not possible: give "oldest" or "next"')
        return TapeReader(self, start, on_lost)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _woken(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)


class TapeReader(Generic[T]):
    """One consumer's position on a tape.

    Attributes:
        lost: the weight of what it was too late for.
    """

    def __init__(self, tape: Tape[T], start: str, on_lost: Callable[[int], None]) -> None:
        self._tape = tape
        is_oldest = start == "oldest"
        self._next = tape._first + (0 if is_oldest else len(tape._items))
        self._position = tape._items[0][0] if is_oldest and tape._items else tape._end
        self._on_lost = on_lost
        self.lost = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item, as soon as there is one."""
        # Whoever is behind for good would never wait: let the loop's other tasks have their turn.
        await asyncio.sleep(0)
        tape = self._tape
        while self._next >= tape._first + len(tape._items):
            if tape.is_closed:
                raise StopAsyncIteration if tape.error is None else tape.error
            await tape._woken()
        missed = tape._first - self._next
        if missed > 0:
            weight = tape._items[0][0] - self._position
            self._next = tape._first
            self.lost += weight
            self._on_lost(weight)
        _, item = tape._items[self._next - tape._first]
        self._next += 1
        more = self._next - tape._first
        self._position = tape._items[more][0] if more < len(tape._items) else tape._end
        return item
