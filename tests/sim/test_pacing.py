"""The limits that the gateway enforces; the clock is a parameter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.sim.pacing import ClockRate, GatewayLimits, Refusal, RequestRate


def code(refusal: Refusal | None) -> int | None:
    return refusal.code if refusal else None


def historical(limits: GatewayLimits, request: object, now_s: float, **kwargs: object) -> int | None:
    arguments = {"same_source": request, "bar_s": 5, "is_bid_ask": False} | kwargs
    refusal = code(limits.open_historical(request, now_s=now_s, **arguments))
    if refusal is None:
        limits.close_historical()
    return refusal


@pytest.mark.parametrize(("lines", "requests"), [(2, 50), (100, 50), (300, 150)])
def test_half_the_lines_may_be_asked_per_second(lines: int, requests: int) -> None:
    rate = RequestRate(lines)
    assert [rate.request(0.0) for _ in range(requests)] == [None] * requests
    assert code(rate.request(0.999)) == 100
    assert rate.request(1.0) is None


def test_the_third_refusal_ends_the_session() -> None:
    rate = RequestRate()
    assert [rate.request(0.0) for _ in range(50)] == [None] * 50
    assert [rate.request(0.1).ends_session for _ in range(3)] == [False, False, True]


@given(st.lists(st.floats(0, 0.05), max_size=300))
def test_no_window_of_a_second_lets_more_through(pauses: list[float]) -> None:
    rate = RequestRate()
    now_s, passed = 0.0, []
    for pause in pauses:
        now_s += pause
        if rate.request(now_s) is None:
            passed.append(now_s)
    assert all(sum(start <= at < start + 1 for at in passed) <= 50 for start in passed)


def test_the_clock_is_told_once_a_second_and_a_dropped_question_costs_nothing() -> None:
    rate = ClockRate()
    assert [rate.ask(now_s) is None for now_s in (0.0, 0.0, 0.5, 0.999, 1.0, 1.5, 2.0)] == [
        True, False, False, False, True, False, True,
    ]  # fmt: skip


def test_one_regulatory_snapshot_in_a_second() -> None:
    limits = GatewayLimits()
    assert limits.take_regulatory_snapshot(0.0) is None
    assert code(limits.take_regulatory_snapshot(0.999)) == 321
    assert limits.take_regulatory_snapshot(1.0) is None


def test_lines_are_limited_and_given_back() -> None:
    limits = GatewayLimits(lines=2)
    assert limits.open_line() is None
    assert limits.open_line() is None
    assert code(limits.open_line()) == 101
    limits.close_line()
    assert limits.open_line() is None


def test_real_time_bars_take_lines() -> None:
    limits = GatewayLimits(lines=1)
    assert limits.open_real_time_bars(0.0) is None
    assert code(limits.open_line()) == 101
    assert code(limits.open_real_time_bars(0.0)) == 101
    limits.close_line()
    assert limits.open_real_time_bars(0.0) is None


def test_tick_by_tick_is_a_twentieth_of_the_lines() -> None:
    limits = GatewayLimits(lines=100)
    assert [limits.open_tick_by_tick(number, 0.0) for number in range(5)] == [None] * 5
    assert code(limits.open_tick_by_tick(5, 0.0)) == 10190
    limits.close_tick_by_tick()
    assert limits.open_tick_by_tick(5, 0.0) is None


def test_one_tick_by_tick_request_for_an_instrument_in_15_s() -> None:
    limits = GatewayLimits()
    assert limits.open_tick_by_tick(1, 0.0) is None
    limits.close_tick_by_tick()
    assert code(limits.open_tick_by_tick(1, 14.9)) == 10190
    assert limits.open_tick_by_tick(2, 14.9) is None
    assert limits.open_tick_by_tick(1, 15.0) is None


@pytest.mark.parametrize(("lines", "books"), [(100, 3), (500, 5), (10_000, 60)])
def test_depth_follows_the_lines(lines: int, books: int) -> None:
    limits = GatewayLimits(lines)
    assert [limits.open_depth() for _ in range(books)] == [None] * books
    assert code(limits.open_depth()) == 309
    limits.close_depth()
    assert limits.open_depth() is None


def test_sixty_historical_requests_in_ten_minutes() -> None:
    limits = GatewayLimits()
    for number in range(60):
        assert historical(limits, number, number * 9.0) is None
    assert historical(limits, 60, 599.0) == 162
    assert historical(limits, 61, 600.0) is None


def test_real_time_bars_share_the_sixty() -> None:
    limits = GatewayLimits(lines=100)
    for _ in range(60):
        assert limits.open_real_time_bars(0.0) is None
    assert code(limits.open_real_time_bars(1.0)) == 420
    assert historical(limits, 1, 1.0) == 162


def test_bid_ask_counts_twice() -> None:
    limits = GatewayLimits()
    for number in range(30):
        assert historical(limits, number, number * 5.0, is_bid_ask=True) is None
    assert historical(limits, 30, 200.0) == 162


def test_identical_requests_need_15_s() -> None:
    limits = GatewayLimits()
    assert historical(limits, "same", 0.0) is None
    assert historical(limits, "same", 14.9) == 162
    assert historical(limits, "same", 15.0) is None


def test_fewer_than_six_for_one_contract_in_two_seconds() -> None:
    limits = GatewayLimits()
    assert [historical(limits, number, 0.1 * number, same_source="AAPL") for number in range(5)] == [None] * 5
    assert historical(limits, 5, 1.9, same_source="AAPL") == 162
    assert historical(limits, 6, 1.9, same_source="MSFT") is None
    assert historical(limits, 7, 2.0, same_source="AAPL") is None


def test_long_bars_are_not_rationed_but_count_as_open() -> None:
    limits = GatewayLimits()
    for _ in range(50):
        assert limits.open_historical("same", "source", 3600, is_bid_ask=False, now_s=0.0) is None
    assert code(limits.open_historical("same", "source", 3600, is_bid_ask=False, now_s=0.0)) == 322


def test_a_refused_request_costs_nothing() -> None:
    limits = GatewayLimits()
    assert historical(limits, "same", 0.0) is None
    for second in range(1, 15):
        assert historical(limits, "same", float(second)) == 162
    assert historical(limits, "same", 15.0) is None


def test_limits_that_are_not_enforced_refuse_nothing() -> None:
    limits = GatewayLimits(lines=1, enforced=False)
    for _ in range(100):
        assert limits.open_line() is None
        assert limits.open_depth() is None
        assert limits.take_regulatory_snapshot(0.0) is None
        assert limits.open_tick_by_tick(1, 0.0) is None
        assert limits.open_real_time_bars(0.0) is None
        assert historical(limits, "same", 0.0) is None
