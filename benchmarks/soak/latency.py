"""Latencies in fine buckets: cheap to count by the thousand, and to add up over processes and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_OCTAVE = 16
OCTAVES = 27
SHORTEST_NS = 1_000
EDGES = SHORTEST_NS * 2 ** (np.arange(PER_OCTAVE * OCTAVES) / PER_OCTAVE)
"""From 1 µs to more than two minutes; a bucket is 4 % wide."""


class Latencies:
    """A distribution of durations.

    Args:
        counts: of another one's `counts`, as a list.
        max_ns: of another one.
    """

    def __init__(self, counts: Sequence[int] = (), max_ns: int = 0) -> None:
        self.counts = np.zeros(len(EDGES) + 1, np.int64)
        self.max_ns = max_ns
        if counts:
            self.counts += counts

    def add(self, durations_ns: NDArray[Any]) -> None:
        """Count durations."""
        if len(durations_ns):
            self.counts += np.bincount(np.searchsorted(EDGES, durations_ns), minlength=len(self.counts))
            self.max_ns = max(self.max_ns, int(durations_ns.max()))

    def merge(self, other: Latencies) -> None:
        """Count what another one has counted."""
        self.counts += other.counts
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_us(self, percent: float) -> float:
        """Return what so many percent do not exceed (µs, to 4 %); NaN if nothing was counted."""
        total = int(self.counts.sum())
        if not total:
            return math.nan
        bucket = int(np.searchsorted(np.cumsum(self.counts), math.ceil(total * percent / 100)))
        return min(float(EDGES[bucket]) if bucket < len(EDGES) else math.inf, self.max_ns) / 1000

    @property
    def max_us(self) -> float:
        return self.max_ns / 1000
