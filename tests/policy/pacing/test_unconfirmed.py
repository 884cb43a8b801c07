"""Requests whose arrival is not confirmed: an answer confirms all that were sent before."""

from __future__ import annotations

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.policy.pacing.limiter import RateLimiter, Ticket
from ibfast.policy.pacing.unconfirmed import Unconfirmed
from ibfast.wire.requests import MarketData, Request, TickByTick


def sent(unconfirmed: Unconfirmed, number: int, request: Request) -> Ticket:
    ticket = RateLimiter(PacingConfig()).draft(request, 0.0)
    ticket.sent_number = number
    unconfirmed.sent(ticket)
    return ticket


def ticks(req_id: int) -> Request:
    return TickByTick(req_id, Contract(con_id=req_id, exchange="SMART"), "Last")


def test_an_answer_confirms_what_was_sent_before_it() -> None:
    unconfirmed = Unconfirmed()
    first, second, third = (sent(unconfirmed, number, ticks(number)) for number in (1, 2, 3))
    assert unconfirmed.find(2) is second
    assert unconfirmed.confirm(second) == [first, second]
    assert unconfirmed.find(2) is None
    assert unconfirmed.find(3) is third
    assert unconfirmed.confirm(None) == [third]
    assert unconfirmed.confirm(None) == []


def test_a_request_that_counts_only_while_it_is_open_is_not_kept() -> None:
    unconfirmed = Unconfirmed()
    ticket = sent(unconfirmed, 1, MarketData(1, Contract(con_id=1, exchange="SMART")))
    assert unconfirmed.charges_of(ticket) == ()
    assert unconfirmed.find(1) is None


def test_a_lost_connection_leaves_nothing() -> None:
    unconfirmed = Unconfirmed()
    sent(unconfirmed, 1, ticks(1))
    unconfirmed.clear()
    assert unconfirmed.confirm(None) == []
