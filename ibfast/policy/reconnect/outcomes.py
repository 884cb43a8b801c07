"""Windows over the outcomes of calls: the last so many, or those of the last so many seconds.

The rule of the file: memory is bounded by the settings, never by the load. It draws no conclusion from what it counts.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Counts", "LastCalls", "LastSeconds", "Outcomes"]

SLICES = 10
"""A window of time forgets in steps of a tenth of its length, so that its memory does not grow with the load."""


@dataclass(slots=True)
class Counts:
    """Outcomes, added up; a call can be failed and slow."""

    calls: int = 0
    failures: int = 0
    slow: int = 0

    def add(self, failed: bool, slow: bool) -> None:
        """Count a call."""
        self.calls += 1
        self.failures += failed
        self.slow += slow

    @property
    def failure_rate(self) -> float:
        """The share of failed calls, 0.0 without calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """The share of slow calls, 0.0 without calls."""
        return self.slow / self.calls if self.calls else 0.0


class Outcomes(Protocol):
    """A window of outcomes."""

    def add(self, now_s: float, failed: bool, slow: bool) -> None:
        """Take in an outcome."""

    def counts(self, now_s: float) -> Counts:
        """Add up what is in the window now."""


class LastCalls:
    """The outcomes of the last calls."""

    def __init__(self, calls: int) -> None:
        self._outcomes: deque[tuple[bool, bool]] = deque(maxlen=calls)

    def add(self, now_s: float, failed: bool, slow: bool) -> None:
        """Take in an outcome."""
        self._outcomes.append((failed, slow))

    def counts(self, now_s: float) -> Counts:
        """Add up what is in the window now."""
        counts = Counts()
        for failed, slow in self._outcomes:
            counts.add(failed, slow)
        return counts


class LastSeconds:
    """The outcomes of the last seconds, added up in slices."""

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / SLICES
        self._slices: deque[tuple[int, Counts]] = deque(maxlen=SLICES)

    def add(self, now_s: float, failed: bool, slow: bool) -> None:
        """Take in an outcome."""
        number = int(now_s // self._slice_s)
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append((number, Counts()))
        self._slices[-1][1].add(failed, slow)

    def counts(self, now_s: float) -> Counts:
        """Add up what is in the window now."""
        oldest = int(now_s // self._slice_s) - SLICES
        recent = [counts for number, counts in self._slices if number > oldest]
        return Counts(
            sum(counts.calls for counts in recent),
            sum(counts.failures for counts in recent),
            sum(counts.slow for counts in recent),
        )
