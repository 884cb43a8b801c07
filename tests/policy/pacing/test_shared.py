"""Limits of an account with several connections: they have one order, and what one cancels is not free too soon."""

from __future__ import annotations

import pytest

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.errors import ConfigError
from ibfast.policy.pacing.limiter import AccountLimits, RateLimiter, Ticket
from ibfast.wire.requests import MarketDepth, TickByTick

SETTLE_S = 0.5
DEPTH_AT_ONCE = 3


def depth(limiter: RateLimiter, count: int, now_s: float) -> list[Ticket]:
    """Submit so many, and return those that may be sent."""
    for number in range(count):
        limiter.submit(MarketDepth(number, Contract(con_id=number), 5, True), now_s)
    return limiter.due(now_s)


@pytest.fixture
def pair() -> tuple[RateLimiter, RateLimiter]:
    account = AccountLimits(PacingConfig(), settle_s=SETTLE_S)
    return RateLimiter(PacingConfig(), account=account), RateLimiter(PacingConfig(), account=account)


def test_what_was_cancelled_counts_until_the_gateway_has_heard_of_it(pair: tuple[RateLimiter, RateLimiter]) -> None:
    one, other = pair
    first, second, _ = depth(one, DEPTH_AT_ONCE, 0.0)
    assert depth(other, 2, 0.0) == []
    one.finish(first, cancelled_s=1.0)
    one.finish(second, cancelled_s=1.25)
    assert (other.due(1.25), other.next_s(1.25), other.free("depth", 1.25)) == ([], 1.5, 0)
    assert [other.eta_s(ticket, 1.25) for ticket, _ in other.plan(1.25)] == [0.25, 0.5]
    assert len(other.due(1.5)) == 1
    assert other.next_s(1.5) == 1.75
    assert len(other.due(1.75)) == 1


def test_what_was_cancelled_is_room_for_whoever_had_it(pair: tuple[RateLimiter, RateLimiter]) -> None:
    """It may plan with it; it is sent when all may have it."""
    one, other = pair
    tickets = depth(one, DEPTH_AT_ONCE, 0.0)
    one.finish(tickets[0], cancelled_s=1.0)
    assert (one.free("depth", 1.25), other.free("depth", 1.25)) == (1, 0)
    assert depth(one, 1, 1.25) == []
    assert len(one.due(1.5)) == 1
    assert (one.free("depth", 1.5), other.free("depth", 1.5)) == (0, 0)


def test_what_the_gateway_has_ended_itself_is_free_at_once(pair: tuple[RateLimiter, RateLimiter]) -> None:
    one, other = pair
    tickets = depth(one, DEPTH_AT_ONCE, 0.0)
    one.finish(tickets[0])
    assert (one.free("depth", 1.0), other.free("depth", 1.0)) == (1, 1)
    assert len(depth(other, 2, 1.0)) == 1


def test_the_end_of_a_connection_is_heard_of_later_too(pair: tuple[RateLimiter, RateLimiter]) -> None:
    one, other = pair
    depth(one, DEPTH_AT_ONCE, 0.0)
    depth(other, DEPTH_AT_ONCE, 0.0)
    one.connection_lost(1.0)
    assert (other.due(1.0), other.next_s(1.0)) == ([], 1.5)
    assert len(other.due(1.5)) == DEPTH_AT_ONCE


def test_alone_a_connection_waits_for_nobody() -> None:
    limiter = RateLimiter(PacingConfig())
    tickets = depth(limiter, DEPTH_AT_ONCE, 0.0)
    limiter.finish(tickets[0], cancelled_s=1.0)
    assert len(depth(limiter, 2, 1.0)) == 1


def test_a_connection_learns_whose_it_is() -> None:
    one, other = RateLimiter(PacingConfig()), RateLimiter(PacingConfig())
    other.share(one.account)
    assert other.account is one.account
    tickets = depth(one, DEPTH_AT_ONCE, 0.0)
    assert depth(other, 1, 0.0) == []
    for limiter in (one, other):  # one has something open, and in the other something waits
        with pytest.raises(ConfigError, match="before any request"):
            limiter.share(AccountLimits(PacingConfig()))
    one.finish(tickets[0])
    assert len(other.due(0.0)) == 1


def once(limiter: RateLimiter, tick_type: str, now_s: float, priority: int = 0) -> Ticket:
    """Submit one of the requests of which the account may send one in 15 s."""
    return limiter.submit(TickByTick(0, Contract(con_id=1), tick_type), now_s, priority=priority)


def test_the_requests_of_all_connections_have_one_order(pair: tuple[RateLimiter, RateLimiter]) -> None:
    one, other = pair
    first, second = once(one, "Last", 0.0), once(other, "AllLast", 0.0)
    third, fourth = once(one, "BidAsk", 0.0), once(other, "MidPoint", 0.0, priority=1)
    turns = [(other, fourth), (one, first), (other, second), (one, third)]
    foretold = [limiter.eta_s(ticket, 0.0) for limiter, ticket in turns]
    assert foretold == [number * 15.5 for number in range(4)]
    assert one.plan(0.0) == [(first, 15.5), (third, 46.5)]
    for (limiter, ticket), at_s in zip(turns, foretold, strict=True):
        resting = other if limiter is one else one
        assert resting.due(at_s) == []  # whoever asks first: it is not the first in order
        assert limiter.next_s(at_s) == at_s
        assert limiter.due(at_s) == [ticket]


def test_the_connection_whose_turn_has_come_is_woken() -> None:
    account, woken = AccountLimits(PacingConfig()), []
    one = RateLimiter(PacingConfig(), account=account)
    other = RateLimiter(PacingConfig(), account=account, wake=lambda: woken.append("other"))
    (held, *_) = depth(one, DEPTH_AT_ONCE, 0.0)
    assert (depth(other, 1, 0.0), other.next_s(0.0), woken) == ([], None, [])
    one.finish(held)
    assert (one.due(1.0), woken) == ([], ["other"])
    assert len(other.due(1.0)) == 1


def test_a_connection_that_comes_late_counts_its_request_from_then_on(pair: tuple[RateLimiter, RateLimiter]) -> None:
    one, other = pair
    once(one, "Last", 0.0)
    assert len(one.due(0.0)) == 1
    late, last = once(other, "AllLast", 0.0), once(one, "BidAsk", 0.0)
    assert one.due(15.5) == []
    assert other.due(18.0) == [late]
    assert one.eta_s(last, 18.0) == 15.5


def test_what_a_lost_connection_was_to_send_is_not_sent_by_the_next_one(pair: tuple[RateLimiter, RateLimiter]) -> None:
    one, other = pair
    (held, *_) = depth(one, DEPTH_AT_ONCE, 0.0)
    assert depth(other, 1, 0.0) == []
    one.finish(held)
    assert one.due(1.0) == []
    other.connection_lost()
    assert other.due(1.0) == []
    assert other.free("depth", 1.0) == 1
