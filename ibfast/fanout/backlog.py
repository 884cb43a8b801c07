"""What becomes of a connection that can't take more: what waits for it is bounded, and its rate is lowered.

The rule of the file: sizes and times in, decisions out; `now_s` never decreases. Frames are shared by all who wait for
them, so that a slow subscriber costs references and not copies.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ibfast.fanout.encoding.channels import INTERVALS_MS

__all__ = ["Backlog", "BacklogLimits", "Pace", "Progress", "slowed"]

EPISODES = 3
"""So often within `patience_s` a subscriber may fall behind before its rate is lowered by a step."""


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """How much may wait for a connection, and how long.

    Attributes:
        nbytes: of the frames that wait; one more may go beyond.
        age_s: of the oldest of them.
        patience_s: falling behind three times in it lowers the rate; not at all, for thrice as long, raises it.
        stalled_s: a connection that takes nothing at all for so long is closed.
    """

    nbytes: int = 1 << 18
    age_s: float = 1.0
    patience_s: float = 10.0
    stalled_s: float = 30.0


class Backlog:
    """The frames that wait until a connection takes more."""

    def __init__(self, limits: BacklogLimits) -> None:
        self._limits = limits
        self._frames: deque[bytes] = deque()
        self._oldest_s = 0.0
        self.nbytes = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def is_full(self, now_s: float) -> bool:
        """Tell whether so much waits, or for so long, that no more data may follow."""
        is_old = bool(self._frames) and now_s - self._oldest_s > self._limits.age_s
        return is_old or self.nbytes > self._limits.nbytes

    def keep(self, frame: bytes, now_s: float) -> None:
        """Have a frame wait behind the others; data only while it is not full."""
        if not self._frames:
            self._oldest_s = now_s
        self._frames.append(frame)
        self.nbytes += len(frame)

    def take(self) -> bytes:
        """Return all that waits, for one write."""
        frames = b"".join(self._frames)
        self._frames.clear()
        self.nbytes = 0
        return frames


class Progress:
    """Whether a connection takes anything at all."""

    def __init__(self, limits: BacklogLimits) -> None:
        self._limits = limits
        self._unsent = 0
        self._since_s: float | None = None

    def took_all(self) -> None:
        """Note that it has taken everything: what waits from now on is another matter."""
        self._since_s = None

    def is_stalled(self, unsent: int, now_s: float) -> bool:
        """Tell whether it has taken nothing for too long, by what its transport holds; to be asked regularly."""
        if self._since_s is None or not unsent or unsent < self._unsent:
            self._since_s = now_s
        self._unsent = unsent
        return now_s - self._since_s >= self._limits.stalled_s


class Pace:
    """By how many steps the rate of a slow connection is lowered.

    Attributes:
        steps: 0 is the rate that was asked for.
    """

    def __init__(self, limits: BacklogLimits) -> None:
        self._limits = limits
        self._episodes: deque[float] = deque(maxlen=EPISODES)
        self._last_s = 0.0
        self.steps = 0

    def fell_behind(self, now_s: float) -> None:
        """Note that something had to be left out."""
        self._episodes.append(now_s)
        self._last_s = now_s

    def caught_up(self, now_s: float) -> bool:
        """Note that data flows again; tell whether from now on by one step slower."""
        often = len(self._episodes) == EPISODES and now_s - self._episodes[0] <= self._limits.patience_s
        if not often or self.steps == len(INTERVALS_MS) - 1:
            return False
        self.steps += 1
        self._episodes.clear()
        return True

    def relaxed(self, now_s: float) -> bool:
        """Tell whether data flows again by one step faster, because nothing was left out for long."""
        if not self.steps or now_s - self._last_s < EPISODES * self._limits.patience_s:
            return False
        self.steps -= 1
        self._last_s = now_s
        return True


def slowed(interval_ms: int, steps: int) -> int:
    """Return the interval that is so many steps longer than another one, at most the longest."""
    return INTERVALS_MS[min(INTERVALS_MS.index(interval_ms) + steps, len(INTERVALS_MS) - 1)]
