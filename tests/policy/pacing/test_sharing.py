"""Requests that share one answer: which ones, and until when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.policy.pacing.limiter import RateLimiter, Ticket
from ibfast.policy.pacing.sharing import SharedTickets
from ibfast.wire.requests import (
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    Request,
)

AAPL = Contract(con_id=1, exchange="SMART")
BARS = HistoricalBars(1, AAPL, "", "60 S", "5 secs", "TRADES", True)
SHARED = (
    BARS,
    HeadTimestampRequest(1, AAPL, "TRADES", True),
    HistoricalTicksRequest(1, AAPL, "", "x", 9, "TRADES", True),
)


def ticket_of(request: Request) -> Ticket:
    return RateLimiter(PacingConfig()).draft(request, 0.0)


@pytest.mark.parametrize("request_", SHARED)
def test_an_identical_request_joins_until_the_ticket_is_dropped(request_: Request) -> None:
    shared, ticket = SharedTickets(), ticket_of(request_)
    shared.add(ticket)
    assert shared.find(replace(request_, req_id=2)) is ticket
    assert shared.find(replace(request_, what_to_show="BID")) is None
    shared.drop(ticket)
    assert shared.find(request_) is None


@pytest.mark.parametrize("request_", [MarketData(1, AAPL), replace(BARS, keep_up_to_date=True)])
def test_a_subscription_shares_no_answer(request_: Request) -> None:
    shared = SharedTickets()
    shared.add(ticket_of(request_))
    assert shared.find(request_) is None


def test_a_ticket_that_another_one_has_replaced_drops_nothing() -> None:
    shared, one, other = SharedTickets(), ticket_of(BARS), ticket_of(BARS)
    shared.add(one)
    shared.add(other)
    shared.drop(one)
    assert shared.find(BARS) is other
    shared.clear()
    assert shared.find(BARS) is None
