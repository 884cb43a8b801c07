"""Histograms are exact in counts and sums and within a power of two in percentiles; watched values are looked up."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ibfast.metrics import Histogram, Watch

durations = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50)
short_durations = st.lists(st.integers(0, 40), min_size=1, max_size=50)


def observed(values: list[int]) -> Histogram:
    histogram = Histogram("wait", "Waiting")
    for ns in values:
        histogram.observe(ns)
    return histogram


def buckets(histogram: Histogram) -> dict[float, float]:
    """Upper bound in seconds → how many were at most that."""
    samples = histogram.family().samples
    return {float(sample.labels["le"]): sample.value for sample in samples if sample.name.endswith("_bucket")}


@given(durations | short_durations)
def test_buckets_count_all_that_is_at_most_their_bound(values: list[int]) -> None:
    for bound_s, count in buckets(observed(values)).items():
        bound_ns = round(bound_s * 1e9) if math.isfinite(bound_s) else math.inf
        assert count == sum(ns <= bound_ns for ns in values)


@given(durations)
def test_count_and_sum_are_exact(values: list[int]) -> None:
    histogram = observed(values)
    assert (histogram.count, histogram.sum_ns) == (len(values), sum(values))
    samples = {sample.name: sample.value for sample in histogram.family().samples if not sample.labels}
    assert samples == {"ibfast_wait_seconds_count": len(values), "ibfast_wait_seconds_sum": sum(values) / 10**9}


@given(durations | short_durations, st.floats(0, 100, exclude_min=True))
@example([1, 1, 1], 1.0)
def test_a_percentile_is_within_a_power_of_two(values: list[int], p: float) -> None:
    true_ns = sorted(values)[max(1, math.ceil(len(values) * p / 100)) - 1]
    assert true_ns / 2 <= observed(values).percentile(p) <= max(1, 2 * true_ns)


@given(durations)
def test_percentiles_grow(values: list[int]) -> None:
    histogram = observed(values)
    percentiles = [histogram.percentile(p) for p in range(1, 101)]
    assert percentiles == sorted(percentiles)


def test_a_median_is_interpolated() -> None:
    assert observed([600, 700, 800, 900]).percentile(50) == 512 + 512 * 2 / 4
    assert repr(observed([1000])) == "<Histogram wait: 1 observed, median 1024 ns>"


def test_what_a_stepping_clock_makes_negative_is_nothing() -> None:
    histogram = observed([-5, 7])
    assert (histogram.count, histogram.sum_ns) == (2, 7)
    assert next(iter(buckets(histogram).values())) == 2


def test_nothing_observed_is_not_a_number() -> None:
    histogram = observed([])
    assert math.isnan(histogram.percentile(50))
    assert set(buckets(histogram).values()) == {0}


@pytest.mark.parametrize("p", [0, -1, 100.5, math.nan])
def test_an_impossible_percentile_is_told(p: float) -> None:
    with pytest.raises(ValueError, match=r"^p=.* is not possible: give more than 0"):
        observed([1]).percentile(p)


def read(value: object, *labels: str, is_counter: bool = False) -> list[tuple[str, Mapping[str, str], float]]:
    watch = Watch("depth", lambda: value, "Depth", labels, is_counter)  # type: ignore[arg-type, return-value]
    return [(sample.name, sample.labels, sample.value) for sample in watch.family().samples]


def test_a_watched_value_is_looked_up() -> None:
    assert read(3) == [("ibfast_depth", {}, 3.0)]
    assert read(3, is_counter=True) == [("ibfast_depth_total", {}, 3.0)]
    assert read({"ticks": 1, "gaps": 2}, "ring") == [
        ("ibfast_depth", {"ring": "ticks"}, 1.0), ("ibfast_depth", {"ring": "gaps"}, 2.0),
    ]  # fmt: skip
    assert read({("lines", "used"): 7}, "rule", "what") == [("ibfast_depth", {"rule": "lines", "what": "used"}, 7.0)]
    assert read({}, "ring") == []


@pytest.mark.parametrize(("value", "labels"), [(3, ("ring",)), ({"ticks": 1}, ()), ({("a", "b"): 1}, ("ring",))])
def test_values_must_fit_the_labels(value: object, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="depth has the labels"):
        read(value, *labels)


@pytest.mark.parametrize("name", ["", "Depth", "1st", "round trip", "naïve", "a-b", "a\n"])
def test_a_name_that_can_not_be_exposed_is_told(name: str) -> None:
    told = re.escape(f"name={name!r} is not possible: give small letters")
    with pytest.raises(ValueError, match=told):
        Histogram(name, "")
    with pytest.raises(ValueError, match=told):
        Watch(name, lambda: 0, "")
    with pytest.raises(ValueError, match=told):
        Watch("depth", dict, "", (name,))
