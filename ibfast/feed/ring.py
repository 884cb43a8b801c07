"""Rings and their readers, for threads, asyncio and other processes.

The rule of the file: waiting is all that is added here to the compiled ring (`ibfast.feed._ring`). A reader looks,
arms, looks again, and only then sleeps, so no row is slept through.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ibfast.errors import FeedError
from ibfast.feed._ring import CONTROL_BYTES, Cursor, Ring

__all__ = ["Reader", "RingBuffer"]

# How long a sleeping thread may outlive the cancellation of its wait, or the closing of its reader.
FOREIGN_WAIT_S = 0.2


class RingBuffer(Ring):
    """A lock-free ring of structured rows: one writer, any number of readers, and none waits for another.

    The writer overwrites the oldest rows; a reader that falls behind learns how many it lost. The rings of a `Feed`
    are of this class; one of your own needs only a dtype:

        ring = RingBuffer.create([("time", "i8"), ("value", "f8")], capacity=1 << 12)
        reader = ring.reader()
        ring.append(rows)
    """

    @classmethod
    def create(cls, dtype: DTypeLike, capacity: int = 1 << 16) -> Self:
        """Make a ring in this process's own memory.

        Args:
            dtype: of a row; an itemsize that is a multiple of 8.
            capacity: rows, a power of two.

        Raises:
            FeedError: the dtype does not fit, or the capacity is not a power of two.
        """
        dtype = np.dtype(dtype)
        if capacity < 1:
            raise FeedError(f"a ring's capacity is a power of two, not {capacity}")
        return cls(dtype, mmap.mmap(-1, CONTROL_BYTES + capacity * dtype.itemsize), capacity)

    def reader(self, start: str = "next") -> Reader:
        """Return a new reader; it owns its position only, and costs the writer nothing.

        Args:
            start: "next" for rows published from now on, "oldest" for all that the ring still holds.
        """
        return Reader(self, start)


class Reader(Cursor):
    """One consumer's position in a ring. Use it from one thread or one event loop.

    Attributes:
        position: rows read or lost so far, counted from the ring's birth.
        lost: rows overwritten before they were read, exact.
        pending: rows that wait to be read.
    """

    _waiter: ThreadPoolExecutor | None = None
    _wake: Callable[[], None] | None = None
    closed = False

    def wait(self, timeout_s: float = float("inf")) -> bool:
        """Block this thread until there is something to read.

        Returns:
            False if `timeout_s` seconds passed first, or the reader was closed.

        Raises:
            FeedError: the ring's memory is damaged.
        """
        deadline = time.monotonic() + timeout_s
        while not self.closed:
            left_s = deadline - time.monotonic()
            if self.ring.wait_beyond(self.position, max(0.0, min(left_s, FOREIGN_WAIT_S))):
                return True
            if left_s <= FOREIGN_WAIT_S:
                break
        return bool(self.pending)

    @contextlib.contextmanager
    def borrowed(self, max_rows: int | None = None) -> Iterator[Borrowed]:
        """Lend what is new as views into the ring, without a copy.

            with reader.borrowed() as batch:
                volume = batch.rows["size"].sum()
            if batch.intact:
                total += volume

        The writer does not wait for the block to end. If it came round meanwhile, `batch.intact` is False, the rows
        count as lost, and what was computed from them must be thrown away.
        """
        batch = Borrowed(self.borrow(max_rows))
        try:
            yield batch
        finally:
            batch.intact = self.release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NDArray[np.void]:
        """Return the next batch of rows as soon as there is one, never an empty one."""
        if self.pending:
            # A reader that is always behind would never wait: let the loop's other tasks have their turn.
            await asyncio.sleep(0)
        while True:
            rows = self.read()
            if len(rows):
                return rows
            if self.closed:
                raise StopAsyncIteration
            await (self._woken() if self.ring.writable else self._woken_from_afar())

    def close(self) -> None:
        """End the iteration: an `async for` over this reader finishes after the rows that are there."""
        self.closed = True
        if self._wake is not None:
            self._wake()

    async def _woken(self) -> None:
        """Wait for the writer, which is in this process, on this thread or another."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        home = threading.get_ident()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def published() -> None:
            # A loop that was closed meanwhile has no task left to wake.
            with contextlib.suppress(RuntimeError):
                if threading.get_ident() == home:
                    wake()
                else:
                    loop.call_soon_threadsafe(wake)

        self.ring.when_published(published)
        self._wake = published
        try:
            if not self.pending and not self.closed:
                await future
        finally:
            self._wake = None
            self.ring.forget(published)

    async def _woken_from_afar(self) -> None:
        """Wait for a writer in another process: a thread of this reader sleeps on the shared doorbell."""
        if self._waiter is None:
            self._waiter = ThreadPoolExecutor(1, thread_name_prefix="ibfast-reader")
        loop = asyncio.get_running_loop()
        while not self.closed and not await loop.run_in_executor(self._waiter, self.wait, FOREIGN_WAIT_S):
            pass


class Borrowed:
    """Rows lent by `Reader.borrowed`: the view, and whether it stayed intact to the end of the block."""

    __slots__ = ("intact", "rows")

    def __init__(self, rows: NDArray[np.void]) -> None:
        self.rows: NDArray[Any] = rows
        self.intact = False
