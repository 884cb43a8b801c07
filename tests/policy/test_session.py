"""What is wanted and what is done about it, fault by fault; a fake clock, no I/O."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from ibfast.contracts import Contract
from ibfast.errors import RequestError
from ibfast.policy import session as policy
from ibfast.policy.session import SessionManager
from ibfast.policy.subscription import Gap, Subscription, SubscriptionState, begin_ns
from ibfast.records import GapCause, Scope
from ibfast.wire.ids import MarketDataType
from ibfast.wire.requests import (
    CancelMarketData,
    CancelMarketDepth,
    CancelTickByTick,
    MarketData,
    MarketDataTypeRequest,
    MarketDepth,
    TickByTick,
)

NS = 1_000_000_000
LIMITS = {"lines": 3, "tick_by_tick": 2, "depth": 1, "historical_open": 5}
REFUSED = RequestError(1, 354, "no permission")


def quotes(con_id: int) -> MarketData:
    return MarketData(0, Contract(con_id=con_id, symbol=f"S{con_id}"))


def trades(con_id: int) -> TickByTick:
    return TickByTick(0, Contract(con_id=con_id), "Last")


class Desk:
    """A session, the requests that it has sent, and a feed's sequence numbers."""

    def __init__(self, **limits: int) -> None:
        self.limits = LIMITS | limits
        req_ids = itertools.count(1)
        self.session = SessionManager(self.limits.__getitem__, lambda: next(req_ids))
        self.now_s = 100.0
        self.seq = 0
        self.decided: dict[str, list[Any]] = {"gaps": [], "ended": [], "requests": [], "happenings": []}
        self.gap_rows: dict[int, tuple[Gap, bool]] = {}
        self.first: dict[int, tuple[int, int]] = {}
        self.session.connected(self.now_s)

    def declare(self, request: Any, priority: int = 0) -> Subscription:
        subscription = self.session.declare(request, 0, self.now_s, priority=priority)
        self.session.join(subscription, priority)
        return subscription

    def sent(self) -> list[Any]:
        return self.taken("requests")

    def gaps(self) -> list[Any]:
        """The gaps that were recorded: the open ones by order of the session, the ended ones by the feed."""
        return self.taken("gaps") + self.taken("ended")

    def taken(self, name: str) -> list[Any]:
        """Take one kind of decisions, and leave the others."""
        decided = self.session.take()
        for req_id, awaited in decided.gap_rows.items():
            self.gap_rows.pop(req_id, None)
            if awaited is not None:
                self.gap_rows[req_id] = awaited
                self.first.pop(req_id, None)
        for kind in self.decided:
            self.decided[kind] += getattr(decided, kind)
        taken, self.decided[name] = self.decided[name], []
        return taken

    def data(self, *subscriptions: Subscription) -> None:
        """One record comes on each, behind the row of its gap that is due."""
        self.decided["requests"] = self.taken("requests")  # what was decided is carried out before anything comes
        for subscription in subscriptions:
            gap, ends = self.gap_rows.pop(subscription.req_id, (None, True))
            self.seq += 1 + (gap is not None)
            if not ends:
                self.decided["gaps"].append(gap)
            record = self.seq, 1_000_000 * self.seq
            first = self.first.setdefault(subscription.req_id, record)
            self.session.progress(subscription, self.now_s, subscription.messages + 1, first, record)

    def live(self, *requests: Any) -> list[Subscription]:
        """Declare, and bring data."""
        subscriptions = [self.declare(request) for request in requests]
        self.data(*subscriptions)
        self.sent()
        self.gaps()
        self.told()
        return subscriptions

    def later(self, seconds: float) -> None:
        """Let time pass, in which the gateway answers."""
        self.now_s += seconds
        self.session.caught_up(self.now_s)
        self.session.tick(self.now_s)

    def told(self) -> list[str]:
        return [happening.name for happening in self.taken("happenings")]


def test_a_declaration_is_asked_for_and_lives_by_its_first_data() -> None:
    desk = Desk()
    subscription = desk.declare(quotes(1))
    assert desk.sent() == [replace(quotes(1), req_id=1)]
    assert subscription.state is SubscriptionState.OPENING
    desk.data(subscription)
    assert subscription.state is SubscriptionState.LIVE
    assert desk.gaps() == []


def test_the_same_wanted_twice_takes_one_line_until_nobody_wants_it() -> None:
    desk = Desk()
    first, second = desk.declare(quotes(1)), desk.declare(quotes(1))
    assert first is second
    assert len(desk.sent()) == 1
    desk.session.leave(first, desk.now_s)
    assert desk.sent() == []
    desk.session.leave(second, desk.now_s)
    assert desk.sent() == [CancelMarketData(1)]
    assert (second.state, desk.session.subscriptions) == (SubscriptionState.ENDED, {})


def test_the_priority_falls_when_the_stream_that_raised_it_leaves() -> None:
    desk = Desk(lines=1)
    shared = desk.declare(quotes(1), 1)
    assert desk.declare(quotes(1), 9) is shared
    desk.data(shared)
    rival = desk.declare(quotes(2), 5)
    assert (shared.priority, shared.state, rival.state) == (9, SubscriptionState.LIVE, SubscriptionState.WAITING)
    desk.sent()
    desk.session.leave(shared, desk.now_s, 9)
    assert (shared.priority, shared.shares) == (1, 1)
    assert (shared.state, rival.state) == (SubscriptionState.WAITING, SubscriptionState.OPENING)
    assert desk.sent() == [CancelMarketData(1), replace(quotes(2), req_id=2)]


def test_a_reconnect_restores_by_priority_with_new_ids_and_reports_each_gap() -> None:
    desk = Desk(lines=5)
    low, high = (desk.declare(quotes(number), priority) for number, priority in ((1, 0), (2, 5)))
    desk.session.set_market_data_type(MarketDataType.DELAYED)
    desk.data(low, high)
    desk.sent()
    desk.session.disconnected()
    assert [gap.recovered for gap in desk.gaps()] == [False, False]
    assert {low.state, high.state} == {SubscriptionState.PENDING}
    desk.now_s += 60
    desk.session.connected(desk.now_s)
    kind, *requests = desk.sent()
    assert kind == MarketDataTypeRequest(MarketDataType.DELAYED)
    assert requests == [replace(quotes(2), req_id=3), replace(quotes(1), req_id=4)]
    assert desk.session.plan == [high, low]
    desk.seq = 50
    desk.data(high)
    (gap,) = desk.gaps()
    assert (gap.subscription, gap.scope, gap.cause) == (high, Scope.CONNECTION, GapCause.CONNECTION_LOST)
    assert (gap.first_seq, gap.last_seq, gap.recovered) == (3, 52, True)
    assert (low.state, high.state) == (SubscriptionState.OPENING, SubscriptionState.LIVE)
    assert [*high.req_ids] == [2, 3]


def test_data_lost_cancels_everything_and_asks_for_it_again() -> None:
    desk = Desk()
    desk.live(quotes(1), trades(2))
    desk.session.link_lost(desk.now_s)
    desk.session.link_lost(desk.now_s)
    assert desk.gaps() == []
    desk.session.link_restored(desk.now_s, data_lost=True)
    requests = [replace(quotes(1), req_id=3), replace(trades(2), req_id=4)]
    assert desk.sent() == [CancelMarketData(1), CancelTickByTick(2), *requests]
    assert [gap.cause for gap in desk.gaps()] == [GapCause.LINK_LOST] * 2
    assert desk.told() == ["link_lost", "link_restored"]


def test_data_kept_is_verified_and_only_the_silent_is_renewed() -> None:
    desk = Desk()
    alive, silent = desk.live(quotes(1), quotes(2))
    desk.session.link_lost(desk.now_s)
    desk.session.link_restored(desk.now_s, data_lost=False)
    assert desk.sent() == []
    desk.data(alive)
    (gap,) = desk.gaps()
    assert (gap.subscription, gap.first_seq, gap.last_seq) == (alive, 2, 4)
    assert desk.session.next_s(desk.now_s) == desk.now_s + policy.VERIFY_S
    desk.later(policy.VERIFY_S)
    assert desk.sent() == [CancelMarketData(2), replace(quotes(2), req_id=3)]
    desk.data(silent)
    assert [g.cause for g in desk.gaps() if g.recovered] == [GapCause.LINK_LOST]


def test_a_suspension_that_nothing_is_left_to_ask_about_ends() -> None:
    desk = Desk()
    (subscription,) = desk.live(quotes(1))
    desk.session.suspend(desk.now_s)
    desk.session.forget(subscription, desk.now_s)
    desk.later(policy.RESUME_PROBE_S)
    assert not desk.session.is_suspended
    desk.sent()
    desk.declare(quotes(2))
    assert desk.sent() == [replace(quotes(2), req_id=2)]


def test_a_broken_farm_waits_for_its_recovery_and_then_renews_what_stays_silent() -> None:
    desk = Desk()
    alive, silent = desk.live(quotes(1), quotes(2))
    desk.session.farm_broken("usfarm", desk.now_s)
    desk.data(alive)
    desk.session.silent(silent, desk.now_s, 60.0)
    assert desk.sent() == []
    desk.session.farm_restored("usfarm", desk.now_s)
    desk.data(alive)
    desk.later(policy.VERIFY_S)
    assert desk.sent() == [CancelMarketData(2), replace(quotes(2), req_id=3)]
    assert alive.req_id == 1


def test_a_farm_that_nobody_reports_well_does_not_hold_renewals_back_for_ever() -> None:
    desk = Desk()
    (silent,) = desk.live(quotes(1))
    desk.session.farm_broken("usfarm", desk.now_s)
    desk.later(policy.FARM_WAIT_S)
    desk.session.silent(silent, desk.now_s, 60.0)
    assert desk.sent() == [CancelMarketData(1), replace(quotes(1), req_id=2)]


def test_another_session_suspends_with_one_event_and_its_end_resumes() -> None:
    desk = Desk()
    first, second = desk.live(quotes(1), quotes(2))
    desk.session.suspend(desk.now_s)
    desk.session.suspend(desk.now_s)
    assert desk.told() == ["suspended"]
    assert {first.state, second.state} == {SubscriptionState.SUSPENDED}
    assert [gap.cause for gap in desk.gaps()] == [GapCause.OTHER_SESSION] * 2
    desk.later(policy.RESUME_PROBE_S)
    assert desk.sent() == [CancelMarketData(1), replace(quotes(1), req_id=3)]
    desk.data(first)
    assert not desk.session.is_suspended
    assert desk.told() == ["live", "resumed"]
    desk.later(policy.VERIFY_S)
    assert desk.sent() == [CancelMarketData(2), replace(quotes(2), req_id=4)]


def test_a_new_subscription_that_is_refused_is_over_and_a_restored_one_is_asked_for_again() -> None:
    desk = Desk()
    new = desk.declare(quotes(1))
    assert desk.session.refused(new, desk.now_s, REFUSED)
    assert (new.state, new.error, desk.session.subscriptions) == (SubscriptionState.REFUSED, REFUSED, {})
    (old,) = desk.live(quotes(2))
    for attempt in range(1, policy.RESTORE_ATTEMPTS + 1):
        before = old.req_id
        assert not desk.session.refused(old, desk.now_s, REFUSED)
        desk.later(policy.RETRY_S * attempt)
        assert desk.sent() == [CancelMarketData(before), replace(quotes(2), req_id=old.req_id)]
    assert desk.session.refused(old, desk.now_s, REFUSED)
    assert old.state is SubscriptionState.REFUSED


def test_lines_go_to_the_highest_priority_and_come_back_when_one_is_free() -> None:
    desk = Desk(lines=2)
    low, middle = desk.declare(quotes(1), 1), desk.declare(quotes(2), 2)
    desk.data(low, middle)
    desk.sent()
    high = desk.declare(quotes(3), 3)
    assert desk.sent() == [CancelMarketData(1), replace(quotes(3), req_id=3)]
    assert (low.state, low.req_id) == (SubscriptionState.WAITING, 0)
    assert "waiting_for_line" in desk.told()
    assert [gap.cause for gap in desk.gaps()] == [GapCause.NO_LINE]
    desk.session.leave(high, desk.now_s, 3)
    assert desk.sent() == [CancelMarketData(3), replace(quotes(1), req_id=4)]


def test_a_line_that_the_gateway_does_not_have_is_asked_for_again_later() -> None:
    desk = Desk()
    subscription = desk.declare(quotes(1))
    desk.sent()
    desk.session.no_line(subscription, desk.now_s, "Max number of tickers has been reached")
    desk.later(policy.LINE_RETRY_S - 1)
    assert desk.sent() == [CancelMarketData(1)]
    assert subscription.state is SubscriptionState.WAITING
    desk.later(1)
    assert desk.sent() == [replace(quotes(1), req_id=2)]


def test_renewals_that_bring_nothing_come_ever_more_rarely() -> None:
    desk = Desk()
    (subscription,) = desk.live(quotes(1))
    pauses = []
    for _ in range(9):
        desk.session.silent(subscription, desk.now_s, 60.0)
        began_s = desk.now_s
        while not subscription.req_id:
            desk.later(1)
        pauses.append(desk.now_s - began_s)
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 300, 300]


def test_a_dead_stream_is_cancelled_before_it_is_renewed() -> None:
    desk = Desk()
    (subscription,) = desk.live(trades(1))
    desk.session.renew(subscription, desk.now_s, Scope.SUBSCRIPTION, GapCause.STREAM_ENDED, "10182")
    assert desk.sent() == [CancelTickByTick(1), replace(trades(1), req_id=2)]


def test_a_reset_book_is_a_gap_until_it_comes_anew() -> None:
    desk = Desk()
    (book,) = desk.live(MarketDepth(0, Contract(con_id=1), 5, is_smart_depth=True))
    desk.session.book_reset(book)
    desk.data(book)
    begun, ended = desk.gaps()
    assert (begun.cause, begun.recovered, ended.recovered) == (GapCause.BOOK_RESET, False, True)
    assert desk.sent() == []
    desk.session.leave(book, desk.now_s)
    assert desk.sent() == [CancelMarketDepth(1, True)]


def test_a_reroute_asks_for_the_other_contract_under_the_same_id() -> None:
    desk = Desk()
    subscription = desk.declare(quotes(1))
    desk.sent()
    desk.session.reroute(subscription, 77, "IBIS")
    assert desk.sent() == [MarketData(1, Contract(con_id=77, exchange="IBIS"))]


def test_it_moves_to_another_connection_with_its_gap() -> None:
    here, there = Desk(), Desk()
    (subscription,) = here.live(trades(1))
    here.session.surrender(subscription, here.now_s)
    assert here.sent() == [CancelTickByTick(1)]
    there.session.adopt(subscription, there.now_s)
    assert [type(request) for request in there.sent()] == [TickByTick]
    there.data(subscription)
    (gap,) = there.gaps()
    assert (gap.cause, gap.recovered) == (GapCause.MOVED, True)


def test_one_that_moved_has_its_own_place_among_the_others() -> None:
    """Else two of the same place would wait for one line, and each would seem to come before the other."""
    here, there = Desk(tick_by_tick=1), Desk(tick_by_tick=1)
    moved, other = here.declare(trades(1)), there.declare(trades(2))
    here.session.surrender(moved, here.now_s)
    there.session.adopt(moved, there.now_s)
    assert moved.rank < other.rank
    assert [bool(s.req_id) for s in (moved, other)] == [True, False]


def test_what_a_dead_process_wanted_has_a_gap_since_it_lived() -> None:
    desk = Desk()
    subscription = desk.declare(quotes(1))
    desk.session.continue_from(subscription, 12345)
    desk.data(subscription)
    (gap,) = desk.gaps()
    assert (gap.cause, gap.first_ns, gap.last_seq) == (GapCause.PROCESS_ENDED, 12345, 2)


@pytest.mark.parametrize("event", ["disconnected", "link_lost"])
def test_nothing_is_asked_for_while_there_is_no_way(event: str) -> None:
    desk = Desk()
    desk.live(quotes(1))
    desk.session.disconnected() if event == "disconnected" else desk.session.link_lost(desk.now_s)
    desk.sent()
    desk.declare(quotes(2))
    desk.later(1000)
    assert desk.sent() == []


def test_a_silence_during_a_farm_outage_that_nobody_ends_is_remembered() -> None:
    desk = Desk()
    (silent,) = desk.live(quotes(1))
    desk.session.farm_broken("usfarm", desk.now_s)
    desk.session.silent(silent, desk.now_s, 60.0)
    desk.later(policy.FARM_WAIT_S - 1)
    assert desk.sent() == []
    desk.later(1)
    assert desk.sent() == [CancelMarketData(1), replace(quotes(1), req_id=2)]


@pytest.mark.parametrize("source", ["link", "farm"])
@pytest.mark.parametrize("pause_s", [0.5, 6.0])
@pytest.mark.parametrize("order", ["notice, data", "data, notice", "data only"])
def test_the_gap_covers_the_hole_though_a_tick_was_under_way(source: str, pause_s: float, order: str) -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    before = stream.last_seq
    desk.session.link_lost(desk.now_s) if source == "link" else desk.session.farm_broken("usfarm", desk.now_s)
    desk.data(stream)
    under_way = stream.last_seq
    desk.later(pause_s)

    def restore() -> None:
        if source == "link":
            desk.session.link_restored(desk.now_s, data_lost=False)
        else:
            desk.session.farm_restored("usfarm", desk.now_s)

    if order == "notice, data":
        restore()
    desk.data(stream)
    back = stream.last_seq
    if order == "data, notice":
        restore()
    desk.later(policy.UNDER_WAY_S)
    desk.data(stream)
    gaps = [gap for gap in desk.gaps() if gap.recovered]
    (covering,) = [gap for gap in gaps if gap.first_seq <= under_way + 1 and gap.last_seq >= back]
    assert covering.first_seq == before + 1
    if order == "notice, data" or pause_s > policy.UNDER_WAY_S:
        assert covering.last_seq == back


def test_the_first_record_of_all_lies_in_a_gap_while_its_source_fails() -> None:
    desk = Desk()
    stream = desk.declare(quotes(1))
    desk.session.link_lost(desk.now_s)
    desk.data(stream)
    under_way = stream.last_seq
    desk.session.link_restored(desk.now_s, data_lost=False)
    desk.data(stream)
    begun, ended = desk.gaps()
    assert (begun.first_seq, begun.recovered) == (1, False)
    assert (ended.first_seq, ended.last_seq) == (1, stream.last_seq)
    assert stream.last_seq > under_way


@pytest.mark.parametrize("is_early", [True, False])
def test_a_failure_that_no_record_saw_is_no_gap(is_early: bool) -> None:
    desk = Desk()
    if is_early:
        stream = desk.declare(quotes(1))
    desk.session.farm_broken("usfarm", desk.now_s)
    if not is_early:
        stream = desk.declare(quotes(1))
    desk.session.farm_restored("usfarm", desk.now_s)
    desk.data(stream)
    assert desk.gaps() == []
    assert desk.session.unrecorded_gaps() == []


def test_a_record_that_was_under_way_comes_behind_the_open_row_of_the_gap() -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    desk.session.link_lost(desk.now_s)
    assert desk.gaps() == []
    desk.data(stream)
    (begun,) = desk.gaps()
    assert (begun.cause, begun.recovered, begun.first_seq) == (GapCause.LINK_LOST, False, 2)
    desk.session.link_lost(desk.now_s)
    desk.data(stream)
    assert desk.gaps() == []  # once is enough
    desk.session.link_restored(desk.now_s, data_lost=True)
    assert desk.gaps() == []


def test_records_are_under_way_until_the_gateway_has_answered_a_later_question() -> None:
    """However slow the link is, or however long the event loop was blocked."""
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    began_s = desk.now_s
    desk.session.suspend(began_s)
    for asked_s in (began_s, began_s + policy.UNDER_WAY_S - 0.1):
        desk.now_s += 60.0
        desk.session.tick(desk.now_s)
        desk.session.caught_up(asked_s)
        desk.data(stream)
        assert desk.session.is_suspended
        assert desk.session.is_behind(desk.now_s)
    desk.session.caught_up(began_s + policy.UNDER_WAY_S)
    assert not desk.session.is_behind(desk.now_s)
    desk.data(stream)
    assert not desk.session.is_suspended


def test_a_notice_about_one_source_does_not_release_the_gap_of_another() -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    desk.session.suspend(desk.now_s)
    desk.session.link_restored(desk.now_s, data_lost=False)
    desk.data(stream)
    assert [gap.recovered for gap in desk.gaps()] == [False]
    assert desk.session.is_suspended


def test_two_notices_that_data_was_lost_leave_one_request_at_the_gateway() -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    for _ in range(2):
        desk.session.link_restored(desk.now_s, data_lost=True)
    cancels = [request.req_id for request in desk.sent() if isinstance(request, CancelMarketData)]
    assert cancels == [1, 2]
    assert stream.req_id == 3


@pytest.mark.parametrize("step_s", [0, 3600, -3600, -30, -86_400 * 400])
def test_a_gap_has_its_begin_on_the_clock_of_its_end(step_s: int) -> None:
    """The wall clock is set in an outage of a minute; a clock that was set forward makes the gap longer."""
    desk = Desk()
    (stream,) = desk.live(trades(1))
    desk.gaps()
    wall_ns, outage_s = 1_700_000_000 * NS, 60
    desk.session.progress(stream, desk.now_s, 2, (1, wall_ns), (2, wall_ns))
    desk.session.disconnected()
    desk.now_s += outage_s
    desk.session.connected(desk.now_s)
    after_ns = wall_ns + (outage_s + step_s) * NS
    desk.session.progress(stream, desk.now_s, 1, (9, after_ns), (9, after_ns))
    begin, end = desk.gaps()
    assert (begin.first_ns, end.last_ns) == (wall_ns, after_ns)
    hole_s = (end.last_ns - end.first_ns) / NS
    assert outage_s <= hole_s <= outage_s + (max(step_s, 0) or 1)
    assert end.first_ns == wall_ns or step_s < 0


def test_a_gap_since_another_process_has_no_begin_if_the_clock_was_set_back() -> None:
    desk = Desk()
    stream = desk.declare(trades(1))
    desk.session.continue_from(stream, 1_700_000_000 * NS)
    desk.session.progress(stream, desk.now_s, 1, (9, 5 * NS), (9, 5 * NS))
    (gap,) = desk.gaps()
    assert (gap.first_ns, gap.last_ns) == (0, 5 * NS)


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.none() | st.floats(0, 1e7))
def test_nothing_ends_before_it_begins(first_ns: int, last_ns: int, elapsed_s: float | None) -> None:
    assert begin_ns(first_ns, last_ns, elapsed_s) <= last_ns
    assert begin_ns(first_ns, first_ns + int((elapsed_s or 0) * NS), elapsed_s) == first_ns


def test_a_refusal_of_a_live_stream_is_a_gap() -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    assert not desk.session.refused(stream, desk.now_s, REFUSED)
    desk.later(policy.RETRY_S)
    desk.data(stream)
    begun, ended = desk.gaps()
    assert (begun.cause, ended.first_seq, ended.last_seq) == (GapCause.STREAM_ENDED, 2, 3)


@pytest.mark.parametrize("blow", ["data lost", "dead", "another one"])
def test_a_suspension_ends_however_few_subscriptions_are_left(blow: str) -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    desk.session.suspend(desk.now_s)
    if blow == "data lost":
        desk.session.link_restored(desk.now_s, data_lost=True)
    elif blow == "dead":
        desk.session.renew(stream, desk.now_s, Scope.SUBSCRIPTION, GapCause.STREAM_ENDED, "10182")
    else:
        desk.session.leave(stream, desk.now_s)
        stream = desk.declare(quotes(2))
    desk.sent()
    desk.later(policy.RESUME_PROBE_S)
    (request,) = desk.sent()
    desk.data(stream)
    assert (request.req_id, stream.state) == (stream.req_id, SubscriptionState.LIVE)
    assert not desk.session.is_suspended


def test_with_what_has_no_line_nobody_is_asked_whether_another_session_has_ended() -> None:
    """Such a request is withdrawn before it is sent, so that no answer would ever end the suspension."""
    desk = Desk(tick_by_tick=1)
    (subscription,) = desk.live(trades(1))
    desk.session.suspend(desk.now_s)
    desk.limits["tick_by_tick"] = 0
    desk.later(1.0)
    desk.sent()
    assert subscription.state is SubscriptionState.WAITING
    desk.later(policy.RESUME_PROBE_S)
    assert not desk.session.is_suspended
    assert desk.sent() == []
    desk.limits["tick_by_tick"] = 1
    desk.later(1.0)
    assert [type(request) for request in desk.sent()] == [type(subscription.request)]


def test_probes_go_round() -> None:
    desk = Desk()
    desk.live(quotes(1), quotes(2))
    desk.session.suspend(desk.now_s)
    asked = []
    for _ in range(4):
        desk.later(policy.RESUME_PROBE_S)
        asked.append(next(r.contract.con_id for r in desk.sent() if isinstance(r, MarketData)))
    assert asked == [1, 2, 1, 2]


def test_a_tick_that_was_under_way_does_not_end_a_suspension() -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    desk.session.suspend(desk.now_s)
    desk.data(stream)
    assert desk.session.is_suspended
    desk.later(policy.UNDER_WAY_S)
    desk.data(stream)
    assert not desk.session.is_suspended


def test_data_prove_that_the_link_is_back_if_nobody_says_so() -> None:
    desk = Desk()
    (stream,) = desk.live(quotes(1))
    desk.session.link_lost(desk.now_s)
    desk.data(stream)
    assert not desk.session.is_link_up
    desk.later(policy.UNDER_WAY_S)
    desk.data(stream)
    assert desk.session.is_link_up


def test_what_was_said_before_the_session_was_ready_holds() -> None:
    desk = Desk()
    desk.live(quotes(1))
    desk.session.disconnected()
    desk.session.link_lost(desk.now_s)
    desk.session.connected(desk.now_s)
    assert desk.sent() == []
    desk.session.link_restored(desk.now_s, data_lost=True)
    assert desk.sent() == [replace(quotes(1), req_id=2)]


def test_one_that_waits_asks_for_no_look_at_the_clock() -> None:
    desk = Desk(lines=1)
    desk.declare(quotes(1), 1)
    desk.declare(quotes(2))
    desk.session.disconnected()
    desk.session.connected(desk.now_s)
    assert desk.session.next_s(desk.now_s) is None


def test_a_lowered_limit_takes_the_line_of_a_lower_priority_at_once() -> None:
    desk = Desk(lines=3)
    low, high = desk.declare(quotes(1), 0), desk.declare(quotes(2), 9)
    desk.sent()
    desk.limits["lines"] = 1
    desk.session.no_line(high, desk.now_s, "Max number of tickers has been reached")
    assert desk.sent() == [CancelMarketData(2), CancelMarketData(1), replace(quotes(2), req_id=3)]
    assert (low.state, high.state) == (SubscriptionState.WAITING, SubscriptionState.OPENING)


def test_a_refused_line_is_taken_from_a_lower_priority_though_the_limit_is_not_reached() -> None:
    desk = Desk(lines=9)
    low, high = desk.declare(quotes(1), 0), desk.declare(quotes(2), 9)
    desk.data(low)
    desk.sent()
    desk.session.no_line(high, desk.now_s, "Max number of tickers has been reached", retry_s=5.0)
    assert desk.sent() == [CancelMarketData(2), CancelMarketData(1), replace(quotes(2), req_id=3)]
    assert (low.state, high.state) == (SubscriptionState.WAITING, SubscriptionState.OPENING)
    assert [gap.subscription for gap in desk.gaps()] == [low]
    desk.later(5)
    assert desk.sent() == [replace(quotes(1), req_id=4)]
    desk.session.no_line(low, desk.now_s, "Max number of tickers has been reached", retry_s=5.0)
    assert desk.sent() == [CancelMarketData(4)]  # nobody is less important than it is


def test_a_pause_of_the_historical_service_takes_no_line_from_anybody() -> None:
    desk = Desk(lines=9)
    low, high = desk.declare(quotes(1), 0), desk.declare(quotes(2), 9)
    desk.sent()
    desk.session.no_line(high, desk.now_s, "pacing violation", can_displace=False)
    assert desk.sent() == [CancelMarketData(2)]
    assert (low.state, high.state) == (SubscriptionState.OPENING, SubscriptionState.WAITING)


def test_silence_is_told_of_the_state_before_and_gives_the_reason() -> None:
    desk = Desk()
    (subscription,) = desk.live(quotes(1))
    desk.session.state_seen(subscription, SubscriptionState.STALE, 12.3456)
    (told,) = desk.taken("happenings")
    assert (told.name, told.fields) == (
        "stream_stale",
        {"subscription": "MarketData S1", "before": "LIVE", "silent_s": 12.346},
    )
    assert subscription.reason == "silent for 12.3 s"
    desk.session.state_seen(subscription, SubscriptionState.LIVE, 13.0)
    assert subscription.reason == ""
    assert desk.told() == ["stream_live"]
    desk.session.state_seen(subscription, SubscriptionState.LIVE, 13.0)
    assert desk.told() == []


REQUESTS = st.sampled_from([quotes(n) for n in range(6)] + [trades(n) for n in range(4)])


class AnySession(RuleBasedStateMachine):
    """Whatever happens in whatever order, the books agree with what was sent."""

    wanted = Bundle("wanted")

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.at_gateway: dict[int, Any] = {}
        self.used: set[int] = set()

    def settle(self) -> None:
        for request in self.desk.sent():
            if isinstance(request, MarketDataTypeRequest):
                continue
            if isinstance(request, MarketData | TickByTick):
                assert request.req_id not in self.used
                self.used.add(request.req_id)
                self.at_gateway[request.req_id] = request
            else:
                del self.at_gateway[request.req_id]

    @rule(target=wanted, request=REQUESTS, priority=st.integers(0, 3))
    def want(self, request: Any, priority: int) -> Subscription:
        return self.desk.declare(request, priority)

    @rule(subscription=consumes(wanted))
    def leave(self, subscription: Subscription) -> None:
        if self.desk.session.subscriptions.get(subscription.request) is subscription:
            self.desk.session.leave(subscription, self.desk.now_s, subscription.priorities[0])

    @rule(subscription=wanted)
    def data(self, subscription: Subscription) -> None:
        if subscription.req_id and self.desk.session.is_connected:
            self.desk.data(subscription)

    @rule(subscription=wanted)
    def silence(self, subscription: Subscription) -> None:
        if subscription.req_id:
            self.desk.session.silent(subscription, self.desk.now_s, 60.0)

    @rule(subscription=wanted, verdict=st.sampled_from(["refused", "no_line", "dead"]))
    def refuse(self, subscription: Subscription, verdict: str) -> None:
        self.settle()
        if not subscription.req_id:
            return
        session, now_s = self.desk.session, self.desk.now_s
        if verdict == "refused":
            session.refused(subscription, now_s, REFUSED)
        elif verdict == "no_line":
            session.no_line(subscription, now_s, "no line")
        else:
            session.renew(subscription, now_s, Scope.SUBSCRIPTION, GapCause.STREAM_ENDED, "dead")

    @rule(name=st.sampled_from(["link_lost", "kept", "lost", "suspend", "resume", "farm", "farm ok"]))
    def notice(self, name: str) -> None:
        session, now_s = self.desk.session, self.desk.now_s
        if not session.is_connected:
            return
        {
            "link_lost": lambda: session.link_lost(now_s),
            "kept": lambda: session.link_restored(now_s, data_lost=False),
            "lost": lambda: session.link_restored(now_s, data_lost=True),
            "suspend": lambda: session.suspend(now_s),
            "resume": lambda: session.resume(now_s),
            "farm": lambda: session.farm_broken("usfarm", now_s),
            "farm ok": lambda: session.farm_restored("usfarm", now_s),
        }[name]()

    @rule()
    def reconnect(self) -> None:
        self.desk.session.disconnected()
        self.at_gateway.clear()
        self.desk.sent()
        self.desk.session.connected(self.desk.now_s)

    @rule(seconds=st.sampled_from([1, 10, 100, 1000]))
    def wait(self, seconds: float) -> None:
        self.desk.later(seconds)

    @invariant()
    def the_gateway_has_what_the_books_say(self) -> None:
        self.settle()
        session = self.desk.session
        open_now = {s.req_id: replace(s.request, req_id=s.req_id) for s in session.open_subscriptions()}
        assert self.at_gateway == open_now
        for family, limit in self.desk.limits.items():
            assert sum(s.family == family for s in session.open_subscriptions()) <= limit

    @invariant()
    def every_gap_that_ends_has_a_range(self) -> None:
        for gap in self.desk.gaps():
            assert gap.first_seq > 0
            assert not gap.recovered or gap.last_seq >= gap.first_seq - 1

    def teardown(self) -> None:
        """In the end, with everything well, all that fits is open."""
        session = self.desk.session
        if session.is_connected:
            session.link_restored(self.desk.now_s, data_lost=True)
            session.farm_restored("usfarm", self.desk.now_s)
            session.resume(self.desk.now_s)
            for _ in range(5):
                self.desk.later(policy.MOST_RENEW_S)
            for family, limit in self.desk.limits.items():
                wanted = sum(s.family == family for s in session.subscriptions.values())
                assert sum(s.family == family for s in session.open_subscriptions()) == min(wanted, limit)


AnySession.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestAnySession = AnySession.TestCase
