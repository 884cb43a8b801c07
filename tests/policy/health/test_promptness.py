"""Promptness: what is late by itself, by what is usual, and by the times that messages carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.policy.health.promptness import DRIFT, LATE_S, PATIENCE_S, Promptness

START_S = 1_000.0
HOUR_S = 3600


def judge() -> Promptness:
    promptness = Promptness()
    promptness.begin(START_S)
    return promptness


@given(st.floats(-1e9, 1e9), st.lists(st.floats(0.0, LATE_S - 0.01), min_size=1))
def test_what_is_never_late_is_never_slow_whatever_clocks_differ_by(offset_s: float, ages: list[float]) -> None:
    promptness = judge()
    for second, age_s in enumerate(ages):
        promptness.dated("AAPL", START_S + 10 * second - age_s - offset_s, START_S + 10 * second)
        assert not promptness.is_slow(START_S + 10 * second)


@given(st.integers(1, 50), st.floats(LATE_S + 2.0, 1e6))
def test_what_stays_late_is_slow(trades: int, late_s: float) -> None:
    promptness = judge()
    for second in range(trades + 1):
        promptness.dated("AAPL", START_S + second, START_S + second)
    at_s = START_S + trades + late_s + PATIENCE_S
    promptness.dated("AAPL", START_S + trades + 0.5, at_s)
    assert promptness.is_slow(at_s)


def test_the_first_message_of_a_source_is_no_measure() -> None:
    """The newest trade of an instrument may be an hour old when it is subscribed to."""
    promptness = judge()
    promptness.dated("AAPL", START_S - HOUR_S, START_S)
    for second in range(1, 20):
        promptness.dated("AAPL", START_S + second - 0.2, START_S + second)
        assert not promptness.is_slow(START_S + second)


def test_a_clock_that_drifts_is_no_slow_link() -> None:
    promptness = judge()
    for minute in range(60 * 24 * 7):
        now_s = START_S + 60.0 * minute
        promptness.dated("AAPL", now_s - 60 * minute * DRIFT * 0.9, now_s)
        assert not promptness.is_slow(now_s)


@pytest.mark.parametrize(("rtt_s", "is_slow"), [(0.4, False), (0.6, True), (LATE_S, True)])
def test_a_round_trip_that_is_unusual_twice_is_late(rtt_s: float, is_slow: bool) -> None:
    promptness = judge()
    for _ in range(5):
        promptness.answered(0.01)
    promptness.answered(rtt_s)
    assert promptness.is_slow(START_S) is (rtt_s >= LATE_S)
    promptness.answered(rtt_s)
    assert promptness.is_slow(START_S) is is_slow
    promptness.answered(0.01)
    assert not promptness.is_slow(START_S)


def test_what_is_usual_is_known_from_earlier_connections_and_verdicts_are_not() -> None:
    promptness = judge()
    promptness.answered(0.01)
    promptness.waiting(3.0)
    assert (promptness.is_slow(START_S), promptness.late_s) == (True, 3.0)
    promptness.begin(START_S + 10)
    assert not promptness.is_slow(START_S + 10)
    promptness.answered(0.7)
    promptness.answered(0.7)
    assert promptness.is_slow(START_S + 11)


def test_a_time_shows_promptness_only_beside_another_one() -> None:
    promptness = judge()
    assert not promptness.is_prompt_time(0.0, START_S)
    assert promptness.is_prompt_time(10.0, START_S + 10.5)
    assert not promptness.is_prompt_time(20.0, START_S + 23.0)
    assert not promptness.is_prompt_time(20.0, START_S + 23.0)


@pytest.mark.parametrize("by_s", [-172_800.0, -2.0])
def test_a_clock_that_is_set_back_shows_promptness_again_soon(by_s: float) -> None:
    promptness = judge()
    for second in (0, 10, 20):
        promptness.is_prompt_time(START_S + second, START_S + second)
    seen = [promptness.is_prompt_time(START_S + second + by_s, START_S + second) for second in (30, 40, 50, 60, 70)]
    assert seen == [False, False, False, True, True]


def test_answers_that_are_rare_are_compared_with_the_one_before() -> None:
    promptness = judge()
    promptness.is_prompt_time(START_S, START_S)
    assert promptness.is_prompt_time(START_S + 600.0, START_S + 600.5)
    assert not promptness.is_prompt_time(START_S + 1200.0, START_S + 1203.0)
