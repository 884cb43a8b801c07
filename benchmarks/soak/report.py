"""What a soak has shown: the figures, what is wrong with them, and both as text.

The rule of the file: it measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.soak.latency import Latencies
from benchmarks.soak.rig import Sample

GROWTH_MB, GROWTH_MB_PER_HOUR = 4.0, 4.0
"""How much the subject's own memory may grow by a fitted line: allocators round up now and then, leaks go on."""
S_PER_HOUR = 3600.0
WARM_UP_S = 120.0
"""Or a quarter of the run, if that is shorter."""


@dataclass(frozen=True)
class Memory:
    """Of the subject's process (MB); `own` is without the rings, which are shared and of a fixed size.

    Attributes:
        start_mb, warm_mb, end_mb: own memory at the start, after the warm-up, at the end.
        end_total_mb: all of it, at the end.
        slope_mb_per_hour: of own memory after the warm-up, by least squares.
        fitted_hours: how long that was.
    """

    start_mb: float
    warm_mb: float
    end_mb: float
    end_total_mb: float
    slope_mb_per_hour: float
    fitted_hours: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Memory:
        """Work it out; there are at least two samples."""
        first, last = samples[0], samples[-1]
        warm_s = first.at_s + min(WARM_UP_S, (last.at_s - first.at_s) / 4)
        warm = [sample for sample in samples if sample.at_s >= warm_s]
        hours = [(sample.at_s - warm[0].at_s) / S_PER_HOUR for sample in warm]
        slope = float(np.polyfit(hours, [sample.own_mb for sample in warm], 1)[0]) if len(warm) > 1 else 0.0
        return cls(first.own_mb, warm[0].own_mb, last.own_mb, last.total_mb, slope, hours[-1])

    @property
    def grows(self) -> bool:
        """Whether it grows by more than it may."""
        return self.slope_mb_per_hour * self.fitted_hours > GROWTH_MB + GROWTH_MB_PER_HOUR * self.fitted_hours


@dataclass(frozen=True)
class Closing:
    """The closing figures.

    Attributes:
        seconds: from the first live stream to the last fault's end.
        settled_s: how long it took then until every stream was live; None: it did not come to that.
        messages: sent by the gateway.
        records: all rows; `numbered` those that were checked.
        faults: how often each kind.
        lost, reported, unreported: numbered records.
        gaps: rows of that ring.
        repeated, wrong: numbered records that were sent anew, or whose values disagree.
        duplicates: numbered records that came twice.
        unread: rows that the witness did not come to read.
        reconnects, requests: of the subject.
        violations: of limits, by the gateway.
        errors: exceptions that the subject did not handle.
        surplus: requests at the gateway at the end, less one for each stream.
        leaked: what the subject left after its end, and what grew while it ran.
        latencies: from the socket read to the witness, by quarter of the run.
        cpu: processor time by process, as a share of the run.
        samples: of what was wrong or unreported.
    """

    seconds: float
    settled_s: float | None
    messages: int
    records: int
    numbered: int
    faults: dict[str, int]
    lost: int
    reported: int
    unreported: int
    gaps: int
    repeated: int
    duplicates: int
    wrong: int
    unread: int
    reconnects: int
    requests: int
    late: int
    surplus: int
    violations: list[str]
    errors: list[str]
    leaked: list[str]
    memory: Memory
    latencies: list[Latencies]
    cpu: dict[str, float]
    samples: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Return what is not as it must be."""
        verdicts = (
            (self.unreported, f"{self.unreported:,} records lost without a report"),
            (self.duplicates, f"{self.duplicates:,} records twice"),
            (self.wrong, f"{self.wrong:,} records with wrong values"),
            (self.unread, f"the witness was too slow for {self.unread:,} rows: nothing is proven of them"),
            (self.settled_s is None, "not every stream was live again after the last fault"),
            (self.surplus, f"{self.surplus:+,} requests at the gateway, besides one for each stream"),
            (self.violations, f"{len(self.violations)} limits broken: {'; '.join(self.violations[:3])}"),
            (self.errors, f"errors of the program: {'; '.join(self.errors)}"),
            (self.leaked, f"left behind: {', '.join(self.leaked)}"),
            (self.memory.grows, f"memory grows by {self.memory.slope_mb_per_hour:.1f} MB per hour"),
            (not self.numbered, "nothing was received"),
        )
        return [problem for is_bad, problem in verdicts if is_bad]

    def row(self) -> dict[str, Any]:
        """Return the figures for programs."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("memory", "latencies")}
        return plain | {
            "memory": {name: getattr(self.memory, name) for name in self.memory.__dataclass_fields__},
            "latencies_us": [
                {"p50": part.percentile_us(50), "p99": part.percentile_us(99), "max": part.max_us}
                for part in self.latencies
                if not math.isnan(part.percentile_us(50))
            ],
            "problems": self.problems,
            "passed": not self.problems,
        }

    def text(self) -> str:
        """Return the figures for people."""
        memory = self.memory
        settled = "never" if self.settled_s is None else f"after {self.settled_s:.1f} s"
        lines = [
            f"{self.seconds:,.0f} s, {self.messages:,} messages ({self.messages / self.seconds:,.0f}/s), "
            f"{self.records:,} records, {self.numbered:,} of them numbered and checked",
            f"faults: {sum(self.faults.values())}: "
            + ", ".join(f"{name} {times}" for name, times in sorted(self.faults.items())),
            f"records lost {self.lost:,}, reported {self.reported:,}, UNREPORTED {self.unreported:,}; "
            f"rows of gaps {self.gaps:,}; duplicates {self.duplicates:,}, sent anew {self.repeated:,}, "
            f"wrong {self.wrong:,}, unread {self.unread:,}",
            f"reconnects {self.reconnects}, requests {self.requests:,}, violations {len(self.violations)}, "
            f"messages of forgotten requests {self.late:,}, surplus {self.surplus:,}, "
            f"left behind {len(self.leaked)}; all live again {settled}",
            f"memory without the rings: start {memory.start_mb:.1f}, after warm-up {memory.warm_mb:.1f}, end "
            f"{memory.end_mb:.1f} MB, slope {memory.slope_mb_per_hour:+.2f} MB/h over "
            f"{memory.fitted_hours * 60:.1f} min; with the rings {memory.end_total_mb:.1f} MB",
            "socket to reader in another process, by quarter:",
            *(
                f"    {number}: p50 {shown_us(part, 50)} µs, p99 {shown_us(part, 99)} µs, "
                f"max {part.max_us / 1000:,.1f} ms"
                for number, part in enumerate(self.latencies, 1)
            ),
            "processor: " + ", ".join(f"{name} {share:.1%}" for name, share in self.cpu.items()),
            *(f"    {sample}" for sample in self.samples),
            *(f"PROBLEM: {problem}" for problem in self.problems),
            "passed" if not self.problems else "FAILED",
        ]
        return "\n".join(lines)


def shown_us(latencies: Latencies, percent: float) -> str:
    """Return a percentile as text; "-" if nothing was counted."""
    value = latencies.percentile_us(percent)
    return "-" if math.isnan(value) else f"{value:,.0f}"
