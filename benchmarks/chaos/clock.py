"""A clock that jumps: an event loop on which a minute takes as long as the work in it.

The rule of the file: time passes only while nothing is ready. The loop looks at its sockets, which are real; when none
is ready, the clock jumps to the next timer. No thread works beside it. So a run needs no patience, and a busy machine
changes no time in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Callable, Iterator
from typing import Any

START_S = 1000.0
START_NS = 1_767_625_200_000_000_000
"""2026-01-05 15:00 UTC, a Monday: runs do not depend on the day on which they are made."""
NS = 1_000_000_000
STEP_S = 1e-6


class JumpingClock:
    """The time of a run, moved by its event loop.

    Attributes:
        now_s: monotonic seconds.
        offset_s: by how much the wall clock has been set forward or back.
    """

    def __init__(self) -> None:
        self.now_s = START_S
        self.offset_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return int(self.now_s * NS)

    def time_ns(self) -> int:
        return START_NS + int((self.now_s - START_S + self.offset_s) * NS)

    def time(self) -> float:
        return self.time_ns() / NS

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop that moves this clock."""
        return _JumpingLoop(_JumpingSelector(self))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Have the whole process read this clock, as long as the block lasts."""
        names = ("monotonic", "monotonic_ns", "time", "time_ns")
        real = {name: getattr(time, name) for name in names}
        for name in names:
            setattr(time, name, getattr(self, name))
        try:
            yield
        finally:
            for name in names:
                setattr(time, name, real[name])


class _JumpingLoop(asyncio.SelectorEventLoop):
    """Leaves nothing to threads: the clock would jump while they work, and no run would be like another."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _JumpingSelector(selectors.DefaultSelector):
    """Looks at the sockets, and moves the clock where it would wait."""

    def __init__(self, clock: JumpingClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now_s += STEP_S
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            # What was sent over loopback is there at once; a packet that the system still holds counts as delayed, by
            # no more than a beat of the market.
            self._clock.now_s += timeout
        return ready
