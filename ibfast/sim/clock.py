"""The gateway's time: the wall clock, made faster or slower, or set by hand.

The rule of the file: every time that a gateway sends comes from its one clock. Limits on what clients may send
are measured in real time, elsewhere.
"""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """A clock that runs at `speed` times real time.

    Args:
        speed: sim seconds per second; 0 stands still and moves only by `set`.
        start_ns: its time now, UTC; default: the wall clock's.
    """

    def __init__(self, speed: float = 1.0, start_ns: int | None = None) -> None:
        if speed < 0:
            raise ValueError(f"speed must not be negative, not {speed}")
        self.speed = speed
        self.set(time.time_ns() if start_ns is None else start_ns)

    def now_ns(self) -> int:
        """Return its time, UTC."""
        return self._set_ns + int((time.monotonic_ns() - self._set_at_ns) * self.speed)

    def set(self, now_ns: int) -> None:
        """Make it `now_ns` now."""
        self._set_ns = now_ns
        self._set_at_ns = time.monotonic_ns()
