"""The forecast: what it says comes true, and it changes nothing."""

from __future__ import annotations

import pytest

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.policy.pacing.forecast import forecast
from ibfast.policy.pacing.limiter import RateLimiter, Ticket
from ibfast.wire.requests import MarketData, TickByTick


def queued(limiter: RateLimiter, count: int) -> list[Ticket]:
    return [limiter.submit(MarketData(n, Contract(con_id=n, exchange="SMART")), 0.0) for n in range(1, count + 1)]


def played(limiter: RateLimiter, until_s: float) -> list[tuple[Ticket, float]]:
    """Send what is due, each ticket at its moment."""
    sent, now_s = [], 0.0
    while now_s <= until_s:
        sent += [(ticket, now_s) for ticket in limiter.due(now_s)]
        next_s = limiter.next_s(now_s)
        if next_s is None:
            break
        now_s = next_s
    return sent


def test_a_forecast_comes_true() -> None:
    limiter = RateLimiter(PacingConfig(lines=100))
    tickets = queued(limiter, 100)
    foreseen = list(forecast(limiter.account, 0.0))
    assert len(limiter) == 100, "the queue itself is as it was"
    assert [ticket for ticket, _ in foreseen] == tickets
    assert played(limiter, 60.0) == [(ticket, pytest.approx(eta_s)) for ticket, eta_s in foreseen]


def test_a_request_that_waits_for_a_slot_is_not_in_it() -> None:
    limiter = RateLimiter(PacingConfig(lines=1))
    tickets = queued(limiter, 2)
    assert [ticket for ticket, _ in forecast(limiter.account, 0.0)] == tickets[:1]


def test_a_draft_stands_where_it_would_be_submitted() -> None:
    limiter = RateLimiter(PacingConfig())
    queued(limiter, 1)
    draft = limiter.draft(TickByTick(9, Contract(con_id=9, exchange="SMART"), "Last"), 5.0)
    assert list(forecast(limiter.account, 0.0, [(5.0, draft)]))[-1] == (draft, 5.0)
    assert len(limiter) == 1
