"""Counting against limits, against the plain definition of a window."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.policy.pacing.meters import Ledger
from ibfast.policy.pacing.rules import EVERYTHING, RULES

LINES = ("lines", EVERYTHING)
SIXTY = ("historical", EVERYTHING)
SPAN_S = 600.5


def ledger() -> Ledger:
    return Ledger(RULES.values(), 100)


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 2)), max_size=120), st.integers(1, 2))
def test_room_comes_at_the_first_moment_that_a_window_allows(entries: list[tuple[float, int]], weight: int) -> None:
    counts = ledger()
    now_s, log = 0.0, []
    for pause_s, taken in entries:
        now_s += pause_s
        if counts.room_s(SIXTY, taken, now_s) == now_s:
            counts.take(((SIXTY, taken),), now_s)
            log.append((now_s, taken))

    def used(at_s: float) -> int:
        return sum(taken for since_s, taken in log if since_s + SPAN_S > at_s)

    assert counts.used("historical", now_s) == used(now_s) <= 60
    moments = [now_s, *(since_s + SPAN_S for since_s, _ in log)]
    expected = min(at_s for at_s in moments if at_s >= now_s and used(at_s) + weight <= 60)
    assert counts.room_s(SIXTY, weight, now_s) == expected


def test_what_is_open_at_once_ends_when_it_is_given_back() -> None:
    counts = ledger()
    for _ in range(100):
        counts.take(((LINES, 1),), 0.0)
    assert counts.room_s(LINES, 1, 1e9) == math.inf
    counts.give_back(((LINES, 1),))
    assert counts.room_s(LINES, 1, 0.0) == 0.0
    assert counts.room_s(LINES, 2, 0.0) == math.inf


def test_giving_back_leaves_windows_alone() -> None:
    counts = ledger()
    counts.take(((SIXTY, 2), (("historical_open", EVERYTHING), 1)), 0.0)
    counts.give_back(((SIXTY, 2), (("historical_open", EVERYTHING), 1)))
    assert counts.used("historical", 0.0) == 2
    assert counts.used("historical_open", 0.0) == 0


def test_a_lowered_limit_rises_one_by_one_up_to_where_it_was() -> None:
    counts = ledger()
    counts.take(((LINES, 98),), 0.0)
    counts.lower("lines", 97, 1000.0)
    assert [counts.limit("lines", at_s) for at_s in (1000.0, 1059.9, 1060.0)] == [97, 97, 98]
    assert counts.room_s(LINES, 1, 1060.0) == 1120.0
    assert counts.room_s(LINES, 2, 1060.0) == 1180.0
    assert counts.room_s(LINES, 3, 1060.0) == math.inf
    assert [counts.limit("lines", at_s) for at_s in (1179.9, 1180.0, 1e9)] == [99, 100, 100]


def test_a_limit_is_never_raised_by_lowering_it() -> None:
    counts = ledger()
    counts.lower("lines", 50, 0.0)
    counts.lower("lines", 80, 0.0)
    assert counts.limit("lines", 0.0) == 50


def test_a_capped_limit_stays() -> None:
    counts = ledger()
    counts.cap("lines", 40, 0.0)
    assert counts.limit("lines", 1e9) == 40
    assert counts.room_s(LINES, 41, 0.0) == math.inf


def test_held_there_is_no_room() -> None:
    counts = ledger()
    counts.hold("historical", 60.0)
    counts.hold("historical", 30.0)
    assert counts.room_s(SIXTY, 1, 10.0) == 60.0
    assert (counts.free("historical", 59.9), counts.free("historical", 60.0)) == (0, 60)


def test_held_and_full_there_is_no_room_until_both_end() -> None:
    counts = ledger()
    counts.take(((SIXTY, 60),), 0.0)
    counts.hold("historical", 700.0)
    assert counts.room_s(SIXTY, 1, 10.0) == 700.0
    counts.take(((SIXTY, 1),), 690.0)
    assert counts.room_s(SIXTY, 60, 690.0) == 690.0 + SPAN_S


def test_a_copy_goes_its_own_way() -> None:
    counts = ledger()
    counts.take(((LINES, 10),), 0.0)
    twin = counts.copy()
    twin.take(((LINES, 1), (SIXTY, 1)), 0.0)
    twin.lower("lines", 20, 0.0)
    twin.hold("historical", 5.0)
    assert (counts.used("lines", 0.0), counts.used("historical", 0.0), counts.limit("lines", 0.0)) == (10, 0, 100)
    assert counts.room_s(SIXTY, 1, 0.0) == 0.0
    assert (twin.used("lines", 0.0), twin.limit("lines", 0.0)) == (11, 20)


@pytest.mark.parametrize("rule", ["historical_identical", "historical_source", "tick_by_tick_instrument"])
def test_keys_are_forgotten_when_they_count_no_more(rule: str) -> None:
    counts = ledger()
    for number in range(1_000):
        counts.take((((rule, number), 1),), float(number))
    assert counts.used(rule, 999.0) == 1
    assert len(counts._counts) < 20
