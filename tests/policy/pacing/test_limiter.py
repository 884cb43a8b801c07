"""The rate limiter; the clock is a parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.errors import ConfigError, Error, PacingError
from ibfast.policy.pacing.limiter import AccountLimits, Precedence, RateLimiter, Ticket, TicketState
from ibfast.wire.requests import (
    CancelMarketData,
    ContractDetailsRequest,
    CurrentTimeRequest,
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    MarketDepth,
    RealTimeBars,
    Request,
    TickByTick,
)


def contract(con_id: int = 1) -> Contract:
    return Contract(con_id=con_id, exchange="SMART")


def subscription(req_id: int = 1) -> Request:
    return MarketData(req_id, contract())


def bars(req_id: int = 1, end: str = "", *, con_id: int = 1, what: str = "TRADES", kept: bool = False) -> Request:
    return HistoricalBars(req_id, contract(con_id), end, "60 S", "5 secs", what, True, keep_up_to_date=kept)


def long_bars(req_id: int) -> Request:
    return HistoricalBars(req_id, contract(), str(req_id), "1 D", "1 hour", "TRADES", True)


def ticks(req_id: int = 1, con_id: int = 1) -> Request:
    return TickByTick(req_id, contract(con_id), "Last")


def sent(limiter: RateLimiter, now_s: float) -> list[Request]:
    return [ticket.request for ticket in limiter.due(now_s)]


def all_sent(limiter: RateLimiter, requests: list[Request], now_s: float) -> list[Ticket]:
    """Send requests for which there is room."""
    tickets = [limiter.submit(request, now_s) for request in requests]
    assert set(limiter.due(now_s)) == set(tickets)
    return tickets


def sent_until(limiter: RateLimiter, now_s: float, until_s: float) -> list[tuple[float, Ticket]]:
    """Send all that may be sent up to some time, each at its moment."""
    told = []
    at_s: float | None = now_s
    while at_s is not None and at_s <= until_s:
        told += [(at_s, ticket) for ticket in limiter.due(at_s)]
        at_s = limiter.next_s(at_s)
    return told


def filled(limiter: RateLimiter, seconds_apart: float = 1.25) -> float:
    """Use up the sixty historical requests; return the time."""
    for number in range(60):
        all_sent(limiter, [bars(number, con_id=number + 100)], number * seconds_apart)
        limiter.connection_lost()
    return 59 * seconds_apart


def test_what_there_is_room_for_is_sent_at_once() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(subscription(), 5.0)
    assert (ticket.state, ticket.precedence, len(limiter)) == (TicketState.QUEUED, Precedence.SUBSCRIBE, 1)
    assert limiter.next_s(5.0) == 5.0
    assert limiter.due(6.0) == [ticket]
    assert (ticket.state, ticket.sent_s, len(limiter)) == (TicketState.SENT, 6.0, 0)
    assert limiter.next_s(6.0) is None
    assert (limiter.counters.sent, limiter.counters.waited_s) == (1, 1.0)


@pytest.mark.parametrize(("lines", "burst", "per_second"), [(20, 5, 50), (100, 5, 50), (300, 15, 150)])
def test_a_small_burst_then_evenly_and_half_the_lines_in_a_second_and_a_margin(
    lines: int, burst: int, per_second: int
) -> None:
    limiter = RateLimiter(PacingConfig(lines=lines))
    for number in range(2 * per_second):
        limiter.submit(ContractDetailsRequest(number, contract()), 0.0)
    times_s = [at_s for at_s, _ in sent_until(limiter, 0.0, 10.0)]
    assert times_s[:burst] == [0.0] * burst
    interval_s = 1.5 / (per_second - burst)
    assert times_s[burst:] == pytest.approx([interval_s * turn for turn in range(1, 2 * per_second - burst + 1)])
    assert times_s[-1] < 3.2
    assert all(before + 1.5 <= after for before, after in zip(times_s, times_s[per_second:], strict=False))


def test_a_quiet_time_saves_up_no_more_than_the_burst() -> None:
    limiter = RateLimiter(PacingConfig())
    for number in range(15):
        limiter.submit(ContractDetailsRequest(number, contract()), 0.0)
    assert [len(limiter.due(at_s)) for at_s in (0.0, 0.033, 0.101, 60.0)] == [5, 0, 3, 5]
    assert limiter.limits(60.0)["request_rate"] == (5, 50)


def test_service_is_by_lane_then_priority_then_age() -> None:
    limiter = RateLimiter(PacingConfig())
    requests = [bars(1), subscription(2), CurrentTimeRequest(), CancelMarketData(4), subscription(5), subscription(6)]
    for request in requests:
        limiter.submit(request, 0.0, priority=7 if request == subscription(6) else 0)
    history, first, clock, cancel, second, urgent = requests
    tickets = [ticket for _, ticket in sent_until(limiter, 0.0, 1.0)]
    assert [ticket.request for ticket in tickets] == [cancel, clock, urgent, first, second, history]


def test_a_cancel_overtakes_what_waits_for_the_rate() -> None:
    limiter = RateLimiter(PacingConfig())
    for number in range(60):
        limiter.submit(ContractDetailsRequest(number, contract()), 0.0)
    limiter.due(0.0)
    limiter.submit(CancelMarketData(99), 0.01)
    assert sent(limiter, 0.034) == [CancelMarketData(99)]


def test_who_waits_holds_up_nobody_of_other_rules() -> None:
    limiter = RateLimiter(PacingConfig())
    all_sent(limiter, [ticks(1, con_id=1)], 0.0)
    blocked = [limiter.submit(ticks(2, con_id=1), 1.0)]
    now_s = filled(limiter) + 2.0
    blocked = [limiter.submit(bars(3), now_s)]
    others = [subscription(5), ticks(6, con_id=2), ContractDetailsRequest(4, contract()), long_bars(7)]
    for request in others:
        limiter.submit(request, now_s)
    assert sent(limiter, now_s) == others
    assert [ticket.state for ticket in blocked] == [TicketState.QUEUED]


def test_light_requests_do_not_overtake_a_heavy_one_at_its_rule() -> None:
    limiter = RateLimiter(PacingConfig())
    filled(limiter)
    heavy = limiter.submit(bars(1, what="BID_ASK"), 300.0)
    light = limiter.submit(bars(2, con_id=2), 300.0)
    assert limiter.due(600.5) == []
    assert limiter.next_s(600.5) == pytest.approx(601.75)
    assert limiter.due(601.76) == [heavy]
    assert limiter.due(603.01) == [light]


def test_a_withdrawn_one_makes_way_for_the_light_ones_behind_it() -> None:
    limiter = RateLimiter(PacingConfig())
    filled(limiter)
    heavy = limiter.submit(bars(1, what="BID_ASK"), 300.0)
    light = limiter.submit(bars(2, con_id=2), 300.0)
    assert limiter.due(600.51) == []
    limiter.withdraw(heavy)
    assert limiter.next_s(600.51) == 600.51
    assert limiter.due(600.51) == [light]


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (subscription, 100),
        (lambda number: RealTimeBars(number, contract(), "TRADES", True), 60),
        (lambda number: MarketDepth(number, contract(), 5), 3),
        (lambda number: ticks(number, con_id=number + 1), 5),
        (long_bars, 50),
        (lambda number: bars(number, con_id=number + 1, kept=True), 50),
    ],
)
def test_so_many_at_once(make: Callable[[int], Request], limit: int) -> None:
    limiter = RateLimiter(PacingConfig())
    for number in range(limit + 1):
        limiter.submit(make(number), 0.0)
    tickets = [ticket for _, ticket in sent_until(limiter, 0.0, 5.0)]
    assert len(tickets) == limit
    limiter.finish(tickets[7 % limit])
    assert len(limiter.due(5.0)) == (0 if limit == 60 else 1)


def test_snapshots_take_no_line() -> None:
    limiter = RateLimiter(PacingConfig(lines=1))
    all_sent(limiter, [subscription(1)], 0.0)
    all_sent(limiter, [MarketData(2, contract(), snapshot=True), MarketData(3, contract(), snapshot=True)], 0.0)
    for req_id in (4, 5):
        limiter.submit(MarketData(req_id, contract(), regulatory_snapshot=True), 0.0)
    assert [len(limiter.due(now_s)) for now_s in (0.0, 1.0, 1.5)] == [1, 0, 1]


def test_the_same_instrument_tick_by_tick_waits_15_s() -> None:
    limiter = RateLimiter(PacingConfig())
    (ticket,) = all_sent(limiter, [ticks(1)], 0.0)
    limiter.finish(ticket)
    limiter.submit(ticks(2), 1.0)
    assert limiter.due(15.0) == []
    assert limiter.next_s(15.0) == 15.5
    assert sent(limiter, 15.5) == [ticks(2)]


def test_a_slot_that_another_connection_gives_back_is_seen() -> None:
    account = AccountLimits(PacingConfig(lines=1))
    one, other = RateLimiter(PacingConfig(), account=account), RateLimiter(PacingConfig(), account=account)
    (ticket,) = all_sent(one, [subscription(1)], 0.0)
    other.submit(subscription(2), 0.0)
    assert other.due(0.0) == []
    assert other.next_s(0.0) is None
    one.finish(ticket)
    assert other.next_s(0.0) == 0.0
    assert sent(other, 0.0) == [subscription(2)]


def test_connections_share_windows_of_the_account_and_no_rate() -> None:
    account = AccountLimits(PacingConfig())
    one, other = RateLimiter(PacingConfig(), account=account), RateLimiter(PacingConfig(), account=account)
    all_sent(one, [bars(1)], 0.0)
    other.submit(bars(2), 0.0)
    assert other.due(0.0) == []
    assert other.next_s(0.0) == 15.5
    for _ in range(60):
        one.submit(CurrentTimeRequest(), 0.0)
        other.submit(CurrentTimeRequest(), 0.0)
    assert (len(sent_until(one, 0.0, 1.45)), len(sent_until(other, 0.0, 1.45))) == (47, 48)


@pytest.mark.parametrize(
    "request_",
    [
        bars(),
        HeadTimestampRequest(1, contract(), "TRADES", True),
        HistoricalTicksRequest(1, contract(), "", "x", 9, "TRADES", True),
    ],
)
def test_identical_historical_requests_are_one(request_: Request) -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(request_, 0.0, priority=1, deadline_s=10.0)
    assert limiter.submit(replace(request_, req_id=2), 1.0, priority=3, deadline_s=20.0) is ticket
    assert (ticket.priority, ticket.deadline_s, ticket.sharers) == (3, 20.0, 2)
    assert limiter.due(15.0) == [ticket]
    assert limiter.submit(replace(request_, req_id=3), 16.0) is ticket
    assert (ticket.sharers, limiter.counters.coalesced, len(limiter)) == (3, 2, 0)
    limiter.finish(ticket)
    again = limiter.submit(replace(request_, req_id=4), 17.0)
    assert again is not ticket
    assert limiter.due(30.0) == []
    assert limiter.due(30.5) == [again]


def test_a_sharer_can_hurry_it() -> None:
    limiter = RateLimiter(PacingConfig())
    first = limiter.submit(long_bars(1), 0.0)
    second = limiter.submit(long_bars(2), 0.0)
    limiter.submit(replace(long_bars(2), req_id=9), 0.0, priority=1)
    assert limiter.due(0.0) == [second, first]


def test_the_priority_of_what_waits_can_change() -> None:
    limiter = RateLimiter(PacingConfig())
    first, second = limiter.submit(subscription(1), 0.0, priority=1), limiter.submit(subscription(2), 0.0)
    limiter.prioritize(second, 2)
    assert [ticket for ticket, _ in limiter.plan(0.0)] == [second, first]
    limiter.prioritize(second, 0)
    assert limiter.due(0.0) == [first, second]
    limiter.prioritize(second, 9)
    assert (second.priority, second.state, len(limiter)) == (0, TicketState.SENT, 0)


def test_bars_that_are_kept_up_to_date_are_not_shared_but_identical() -> None:
    limiter = RateLimiter(PacingConfig())
    first, second = limiter.submit(bars(1, kept=True), 0.0), limiter.submit(bars(2, kept=True), 0.0)
    behind = limiter.submit(bars(3, "x"), 0.0)
    assert limiter.due(0.0) == [first, behind]
    assert limiter.due(15.5) == [second]


def test_what_expires_is_told_once_and_never_sent() -> None:
    limiter = RateLimiter(PacingConfig(lines=1))
    all_sent(limiter, [subscription(1)], 0.0)
    ticket = limiter.submit(subscription(2), 0.0, deadline_s=3.0)
    limiter.due(0.0)
    assert limiter.expired(2.9) == []
    assert limiter.next_s(2.9) == 3.0
    assert limiter.due(3.0) == []
    assert limiter.next_s(3.0) == 3.0
    assert limiter.expired(3.0) == [ticket]
    assert limiter.expired(3.0) == []
    assert (ticket.state, limiter.counters.expired, len(limiter)) == (TicketState.EXPIRED, 1, 0)
    assert limiter.next_s(3.0) is None


def test_a_sharer_without_a_deadline_lifts_it() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(bars(1), 0.0, deadline_s=1.0)
    limiter.submit(bars(2), 0.0)
    assert limiter.expired(1.0) == []
    assert limiter.due(1.0) == [ticket]


def test_an_expired_request_can_be_asked_again() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(bars(1), 0.0, deadline_s=1.0)
    assert limiter.expired(1.0) == [ticket]
    assert limiter.submit(bars(2), 1.0) is not ticket


def test_the_queue_is_bounded() -> None:
    limiter = RateLimiter(PacingConfig(max_queue=2))
    first = limiter.submit(bars(1, "x"), 0.0)
    limiter.submit(bars(2, "y"), 0.0)
    assert limiter.submit(bars(3, "x"), 0.0) is first
    with pytest.raises(PacingError, match="2 requests wait") as error:
        limiter.submit(bars(4, "z"), 0.0)
    assert isinstance(error.value, Error)
    assert (error.value.queued, limiter.counters.refused) == (2, 1)
    limiter.withdraw(first)
    limiter.withdraw(first)
    limiter.submit(bars(5, "z"), 0.0)


def test_a_ticket_ends_once() -> None:
    limiter = RateLimiter(PacingConfig(lines=1))
    ticket = limiter.submit(subscription(1), 0.0)
    with pytest.raises(ConfigError, match="withdraw"):
        limiter.finish(ticket)
    limiter.due(0.0)
    limiter.finish(ticket)
    limiter.finish(ticket)
    assert ticket.state is TicketState.DONE
    assert limiter.limits(0.0)["lines"] == (0, 1)


def test_withdrawing_ends_what_nobody_wants_any_more() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(bars(1), 0.0)
    limiter.submit(bars(2), 0.0)
    assert limiter.withdraw(ticket) is False
    assert ticket.state is TicketState.QUEUED
    assert limiter.withdraw(ticket) is False
    assert (ticket.state, limiter.counters.withdrawn, len(limiter)) == (TicketState.WITHDRAWN, 1, 0)
    assert limiter.due(0.0) == []


def test_withdrawing_what_was_sent_asks_for_a_cancel_when_nobody_wants_it() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(bars(1), 0.0)
    limiter.due(0.0)
    limiter.submit(bars(2), 0.0)
    assert limiter.withdraw(ticket) is False
    assert limiter.withdraw(ticket) is True
    assert limiter.submit(bars(3), 0.0) is not ticket
    limiter.finish(ticket)
    assert limiter.withdraw(ticket) is False


def test_a_lost_connection_gives_back_its_slots_and_keeps_the_windows_of_the_account() -> None:
    limiter = RateLimiter(PacingConfig(lines=100))
    (open_ticket,) = all_sent(limiter, [bars(1, kept=True)], 0.0)
    for number in range(60):
        limiter.submit(subscription(number), 0.0)
    sent_until(limiter, 0.0, 1.49)
    waiting = limiter.connection_lost()
    assert len(waiting) == 12
    assert {ticket.state for ticket in waiting} == {TicketState.WITHDRAWN}
    assert open_ticket.state is TicketState.DONE
    assert {name: used for name, (used, _) in limiter.limits(1.49).items() if used} == {
        "historical_identical": 1, "historical_source": 1, "historical": 1,
    }  # fmt: skip
    assert (len(limiter), limiter.next_s(1.49), limiter.counters.withdrawn) == (0, None, 12)
    for number in range(60):
        limiter.submit(subscription(number), 1.49)
    assert len(sent_until(limiter, 1.49, 2.98)) == 49


@pytest.mark.parametrize("was_sent", [True, False])
def test_nothing_joins_what_ended_with_its_connection(was_sent: bool) -> None:
    limiter = RateLimiter(PacingConfig())
    lost = limiter.submit(bars(1), 0.0)
    if was_sent:
        limiter.due(0.0)
    limiter.connection_lost()
    again = limiter.submit(bars(2), 0.0)
    assert again is not lost
    assert limiter.due(15.5) == [again]


def test_an_eta_is_known_before_anything_is_submitted() -> None:
    limiter = RateLimiter(PacingConfig())
    assert limiter.eta_s(subscription(), 0.0) == 0.0
    now_s = filled(limiter)
    assert limiter.eta_s(bars(9), now_s) == pytest.approx(600.5 - now_s)
    assert len(limiter) == 0
    ticket = limiter.submit(bars(9), now_s)
    assert limiter.eta_s(ticket, now_s) == limiter.eta_s(replace(bars(9), req_id=10), now_s)


def test_the_eta_of_what_is_over_or_waits_for_a_slot() -> None:
    limiter = RateLimiter(PacingConfig(lines=1))
    (ticket,) = all_sent(limiter, [subscription(1)], 0.0)
    assert limiter.eta_s(ticket, 0.0) == 0.0
    waiting = limiter.submit(subscription(2), 0.0)
    assert limiter.eta_s(waiting, 0.0) == math.inf
    assert limiter.plan(0.0) == []
    limiter.finish(ticket)
    assert limiter.eta_s(ticket, 0.0) == 0.0
    assert limiter.plan(0.0) == [(waiting, 0.0)]
    limiter.withdraw(waiting)
    assert limiter.eta_s(waiting, 0.0) == math.inf


def test_an_eta_assumes_that_questions_are_answered() -> None:
    limiter = RateLimiter(PacingConfig())
    for number in range(101):
        limiter.submit(long_bars(number), 0.0)
    etas_s = [eta_s for _, eta_s in limiter.plan(0.0)]
    assert etas_s == pytest.approx([0.0] * 5 + [turn / 30 for turn in range(1, 97)])
    assert limiter.eta_s(long_bars(999), 0.0) == pytest.approx(97 / 30)
    assert len(limiter.due(0.0)) == 5
    assert limiter.eta_s(long_bars(999), 0.0) == pytest.approx(97 / 30)


def test_a_plan_knows_what_is_going_to_join_before_others() -> None:
    limiter = RateLimiter(PacingConfig())
    all_sent(limiter, [ticks(1)], 0.0)
    waiting = limiter.submit(ticks(2), 0.0)
    assert limiter.plan(1.0) == [(waiting, 14.5)]
    sooner, late = limiter.draft(ticks(3), 1.0, priority=5), limiter.draft(ticks(4), 1.0, priority=5)
    plan = limiter.plan(1.0, [(40.0, late), (6.0, sooner)])
    assert plan == [(sooner, 14.5), (waiting, 30.0), (late, 45.5)]
    assert limiter.plan(1.0) == [(waiting, 14.5)]


def test_error_100_slows_the_connection_down_for_long() -> None:
    limiter = RateLimiter(PacingConfig())
    limiter.submit(subscription(), 0.0)
    for _ in range(3):
        assert limiter.learn(100, 0.0)
    assert limiter.limits(0.0)["request_rate"] == (0, 40)
    assert limiter.due(1.0) == []
    assert limiter.next_s(1.0) == 1.5
    assert len(limiter.due(1.5)) == 1
    assert limiter.limits(599.9)["request_rate"][1] == 40
    assert limiter.limits(600.0)["request_rate"][1] == 41
    assert limiter.limits(1e6)["request_rate"][1] == 50
    assert limiter.counters.learned == 3


def test_error_100_slows_down_what_is_queued_already() -> None:
    limiter = RateLimiter(PacingConfig())
    for number in range(100):
        limiter.submit(ContractDetailsRequest(number, contract()), 0.0)
    before = sent_until(limiter, 0.0, 0.51)
    assert len(before) == 20
    limiter.learn(100, 0.51)
    plan = limiter.plan(0.51)
    times_s = [at_s for at_s, _ in sent_until(limiter, 0.51, 10.0)]
    assert [0.51 + eta_s for _, eta_s in plan] == pytest.approx(times_s)
    assert times_s[:4] == [2.01] * 4
    assert times_s[4:] == pytest.approx([2.01 + turn / 24 for turn in range(1, 77)])


def test_error_100_may_tell_the_rate() -> None:
    limiter = RateLimiter(PacingConfig(lines=300))
    limiter.learn(100, 0.0, message="Max rate of messages per second has been exceeded:max=50 rec=51 (1)")
    assert limiter.limits(1e6)["request_rate"][1] == 50


def test_a_new_connection_keeps_what_was_learned_and_begins_at_once() -> None:
    limiter = RateLimiter(PacingConfig())
    limiter.learn(100, 0.0)
    limiter.connection_lost()
    limiter.submit(subscription(), 0.0)
    assert len(limiter.due(0.0)) == 1
    assert limiter.limits(0.0)["request_rate"] == (1, 40)


@pytest.mark.parametrize("finished_before", [True, False])
@pytest.mark.parametrize(
    ("code", "rule", "make"),
    [
        (101, "lines", subscription),
        (10190, "tick_by_tick", lambda number: ticks(number, con_id=number + 1)),
        (309, "depth", lambda number: MarketDepth(number, contract(), 5)),
        (322, "historical_open", long_bars),
    ],
)
def test_a_refusal_shows_that_what_is_open_is_all_there_is(
    code: int, rule: str, make: Callable[[int], Request], finished_before: bool
) -> None:
    limiter = RateLimiter(PacingConfig())
    first, second, refused = all_sent(limiter, [make(number) for number in range(3)], 0.0)
    if finished_before:
        limiter.finish(refused)
    assert limiter.learn(code, 0.0, refused)
    limiter.finish(refused)
    assert limiter.limits(0.0)[rule] == (2, 2)
    again = limiter.submit(make(9), 0.0)
    assert limiter.due(0.0) == []
    assert limiter.next_s(0.0) == 60.0
    assert limiter.due(60.0) == [again]
    limiter.finish(first)
    limiter.finish(second)
    assert limiter.limits(60.0)[rule] == (1, 3)


def test_error_10190_for_the_same_instrument_holds_that_instrument() -> None:
    limiter = RateLimiter(PacingConfig())
    (refused,) = all_sent(limiter, [ticks(1)], 0.0)
    text = "Only one tick-by-tick request for the same instrument within 15 seconds"
    assert limiter.learn(10190, 2.0, refused, text)
    limiter.finish(refused)
    limiter.submit(ticks(2), 2.0)
    assert sent(limiter, 17.0) == []
    assert sent(limiter, 17.5) == [ticks(2)]
    assert limiter.limits(17.5)["tick_by_tick"] == (1, 5)
    assert not limiter.learn(10190, 18.0, None, text)


def test_a_pacing_violation_pauses_the_historical_service_alone() -> None:
    limiter = RateLimiter(PacingConfig())
    assert limiter.learn(162, 0.0, message="… Historical data request pacing violation")
    limiter.submit(bars(1), 0.0)
    limiter.submit(long_bars(2), 0.0)
    assert sent(limiter, 0.0) == [long_bars(2)]
    assert limiter.free("historical", 0.0) == 0
    assert limiter.next_s(0.0) == 60.0
    assert sent(limiter, 60.0) == [bars(1)]


def test_other_errors_teach_nothing() -> None:
    limiter = RateLimiter(PacingConfig())
    before = limiter.limits(0.0)
    assert not limiter.learn(162, 0.0, message="HMDS query returned no data")
    assert not limiter.learn(200, 0.0)
    assert limiter.limits(0.0) == before
    assert limiter.counters.learned == 0


def test_what_is_free_is_known_by_rule() -> None:
    limiter = RateLimiter(PacingConfig())
    all_sent(limiter, [subscription(1), ticks(2), MarketDepth(3, contract(), 5)], 0.0)
    assert [limiter.free(name, 0.0) for name in ("lines", "tick_by_tick", "depth", "request_rate")] == [99, 4, 2, 47]
    limiter.learn(101, 0.0)
    assert limiter.free("lines", 0.0) == 0


@pytest.mark.parametrize("name", ["line", "historical_source"])
def test_a_rule_that_has_no_room_of_its_own_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="give one of historical, historical_open, lines"):
        RateLimiter(PacingConfig()).free(name, 0.0)


def test_an_account_can_have_fewer_tick_by_tick_subscriptions() -> None:
    limiter = RateLimiter(PacingConfig(lines=500, tick_by_tick=3))
    assert limiter.limits(0.0)["tick_by_tick"] == (0, 3)
    assert limiter.limits(0.0)["request_rate"] == (0, 250)


def test_what_may_have_arrived_late_counts_from_the_first_sign_of_it() -> None:
    limiter = RateLimiter(PacingConfig())
    older = limiter.submit(CurrentTimeRequest(), 0.0)
    early, late = limiter.submit(ticks(1), 0.0), limiter.submit(ticks(2, con_id=2), 0.0)
    assert limiter.due(0.0) == [older, early, late]
    assert limiter.arrived(older, 5.0) == []
    assert limiter.arrived(early, 6.0) == [early]  # what was sent at the same moment came after it
    assert limiter.arrived(late, 9.0) == [late]
    assert limiter.arrived(late, 9.0) == []
    limiter.finish(early)
    limiter.submit(ticks(3), 7.0)
    assert limiter.due(15.5) == []
    assert limiter.next_s(15.5) == 21.5
    assert sent(limiter, 21.5) == [ticks(3)]


def test_what_arrives_at_once_counts_from_its_sending() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(ticks(1), 0.0)
    assert limiter.due(0.0) == [ticket]
    assert limiter.arrived(ticket, 0.2) == []
    limiter.finish(ticket)
    limiter.submit(ticks(2), 1.0)
    assert sent(limiter, 15.5) == [ticks(2)]


def test_what_was_cancelled_before_any_sign_of_it_may_still_arrive_late() -> None:
    limiter = RateLimiter(PacingConfig())
    ticket = limiter.submit(ticks(1), 0.0)
    assert limiter.due(0.0) == [ticket]
    limiter.finish(ticket, cancelled_s=1.0)
    assert limiter.arrived(None, 4.0) == [ticket]
    limiter.submit(ticks(2), 5.0)
    assert limiter.due(5.0) == []
    assert limiter.next_s(5.0) == 19.5


def test_questions_for_contracts_come_behind_subscriptions_and_the_heartbeat_and_are_bounded() -> None:
    limiter = RateLimiter(PacingConfig(max_queue=10))
    questions = [ContractDetailsRequest(n, contract()) for n in range(10)]
    for question in questions:
        limiter.submit(question, 0.0)
    with pytest.raises(PacingError):
        limiter.submit(ContractDetailsRequest(10, contract()), 0.0)
    heartbeat = CurrentTimeRequest()
    limiter.submit(heartbeat, 0.0)
    assert sent(limiter, 0.0)[0] is heartbeat
    limiter = RateLimiter(PacingConfig())
    for question in questions:
        limiter.submit(question, 0.0)
    wanted = subscription(20)
    limiter.submit(wanted, 0.0)
    assert sent(limiter, 0.0)[0] is wanted
