"""Measurements in the form that Prometheus reads: cheap histograms, and values that are looked up when they are read.

The rule of the file: to measure costs next to nothing, to expose costs what it costs. It knows prometheus-client's
families of samples; it knows no registry, no connection and no clock.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from ibfast.records import NS_PER_S

__all__ = ["Histogram", "Reading", "Watch"]

NAMESPACE = "ibfast_"
NBUCKETS = 65  # bucket k holds 2**(k-1) < ns <= 2**k, and 64 is more than any clock of 64 bits can show
EXPOSED = range(4, 41)  # from 16 ns, half a message's decoding, to 1100 s, more than the longest pacing window
VALID_NAME = re.compile(r"[a-z][a-z0-9_]*")

Reading: TypeAlias = float | Mapping[str, float] | Mapping[tuple[str, ...], float]
"""The result of a watched callable: a number, or numbers by the values of its labels."""


class Histogram:
    """Durations, counted in buckets that are powers of two of a nanosecond.

    One thread observes; any thread may look. About 100 ns an observation: meant for once per socket read, batch or
    request, not for once per tick.

    Args:
        name: of the series, without prefix and unit: "round_trip" is exposed as `ibfast_round_trip_seconds`.
        documentation: one line for people.

    Attributes:
        sum_ns: of all durations.

    Raises:
        ValueError: the name can't be exposed.
    """

    __slots__ = ("_counts", "documentation", "name", "sum_ns")

    def __init__(self, name: str, documentation: str) -> None:
        _check_name(name)
        self.name = name
        self.documentation = documentation
        self.sum_ns = 0
        self._counts = [0] * NBUCKETS

    def __repr__(self) -> str:
        return f"<Histogram {self.name}: {self.count} observed, median {self.percentile(50):.0f} ns>"

    def observe(self, ns: int) -> None:
        """Count one duration.

        Args:
            ns: a Python int below 2**64, not a numpy one; less than nothing, as after a step of a wall clock, counts
                as nothing.
        """
        if ns > 0:
            self._counts[(ns - 1).bit_length()] += 1
            self.sum_ns += ns
        else:
            self._counts[0] += 1

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self._counts)

    def percentile(self, p: float) -> float:
        """Return the p-th percentile in ns, as exactly as the buckets allow.

        Interpolated within its bucket, as histogram_quantile() of Prometheus does, so it is more than half and less
        than twice the true one (1 ns at most where that is 0).

        Args:
            p: more than 0, at most 100.

        Returns:
            Nanoseconds; NaN if nothing was observed.

        Raises:
            ValueError: p is out of range.
        """
        if not 0 < p <= 100:
            raise ValueError(f"p={p!r} is not possible: give more than 0, at most 100")
        counts = self._counts.copy()
        rank = max(1, math.ceil(sum(counts) * p / 100))
        for bucket, count in enumerate(counts):
            if 0 < rank <= count:
                upper = 1 << bucket
                lower = max(1, upper >> 1)
                return lower + (upper - lower) * rank / count
            rank -= count
        return math.nan

    def family(self) -> HistogramMetricFamily:
        """Return the samples for Prometheus, in seconds."""
        counts = self._counts.copy()
        below = sum(counts[: EXPOSED.start])
        buckets = []
        for bucket in EXPOSED:
            below += counts[bucket]
            buckets.append((repr((1 << bucket) / NS_PER_S), below))
        buckets.append(("+Inf", sum(counts)))
        family = HistogramMetricFamily(f"{NAMESPACE}{self.name}_seconds", self.documentation)
        family.add_metric([], buckets, self.sum_ns / NS_PER_S)
        return family


@dataclass(frozen=True, slots=True)
class Watch:
    """A value that is looked up whenever metrics are read.

    Attributes:
        name: of the series, without prefix, and without "_total" if it is a counter.
        read: returns the value; with `labels`, a mapping from label value (several: a tuple of them) to value.
        documentation: one line for people.
        labels: the names of the labels.
        is_counter: whether it only ever grows.

    Raises:
        ValueError: the name, or a label's, can't be exposed.
    """

    name: str
    read: Callable[[], Reading]
    documentation: str
    labels: tuple[str, ...] = ()
    is_counter: bool = False

    def __post_init__(self) -> None:
        for name in (self.name, *self.labels):
            _check_name(name)

    def empty_family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the family without a sample."""
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        return kind(NAMESPACE + self.name, self.documentation, labels=self.labels)

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the samples of this moment. Raises what `read` raises.

        Raises:
            ValueError: what `read` returned does not fit the labels.
        """
        family = self.empty_family()
        reading = self.read()
        values = reading.items() if isinstance(reading, Mapping) else [((), reading)]
        for key, value in values:
            label_values = (key,) if isinstance(key, str) else key
            if len(label_values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, and a value came for {label_values}")
            family.add_metric([str(label) for label in label_values], float(value))
        return family


def _check_name(name: str) -> None:
    if not VALID_NAME.fullmatch(name):
        raise ValueError(f"name={name!r} is not possible: give small letters, digits and underscores")
