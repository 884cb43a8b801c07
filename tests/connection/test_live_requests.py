"""The live requests of subscriptions: what the plan says of them comes true. The clock is a variable."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ibfast.config.sections import HeartbeatConfig, PacingConfig
from ibfast.connection import live_requests as lines
from ibfast.connection.protocol import Protocol
from ibfast.connection.send_queue import Outbox
from ibfast.contracts import Contract
from ibfast.feed import Feed
from ibfast.policy.health.heartbeat import HeartbeatMonitor
from ibfast.policy.pacing.limiter import RateLimiter
from ibfast.policy.session import SessionManager
from ibfast.policy.subscription import Subscription
from ibfast.wire.requests import CancelMarketData, MarketData, Request, TickByTick

STEP_S = 0.25


class Session(Protocol):
    """Takes whatever is to be sent."""

    def encode(self, request: object) -> bytes:
        return repr(request).encode()


class Desk:
    """A session and its lines, without a gateway; it carries out what is decided, as the supervisor does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, market_data_lines: int) -> None:
        self.now_s = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now_s, time_ns=time.time_ns)
        monkeypatch.setattr(lines, "time", clock)
        self.feed = feed = Feed(1 << 6, max_instruments=8, max_texts=16)
        self.limiter = RateLimiter(PacingConfig(lines=market_data_lines))
        self.outbox = Outbox(self.limiter, lambda seconds: None)
        self.outbox.begin(Session(feed, 1), lambda: None)
        self.sent: list[Request] = []
        self.outbox.record = lambda tickets: self.sent.extend(ticket.request for ticket in tickets)
        self.session = SessionManager(lambda family: self.lines.room(family), feed.next_req_id)
        owner: Any = SimpleNamespace(
            feed=feed, session=self.session, outbox=self.outbox,
            details_of=lambda con_id: None, refuse=lambda req_id, error: None,
        )  # fmt: skip
        self.lines = lines.Lines(owner, HeartbeatMonitor(HeartbeatConfig(first_data_s=1.0)), lambda subscription: None)
        self.session.connected(self.now_s)

    def want(self, con_id: int, priority: int = 0, *, is_tick_by_tick: bool = False) -> Subscription:
        contract = Contract(con_id=con_id)
        request = TickByTick(0, contract, "Last") if is_tick_by_tick else MarketData(0, contract)
        instrument = self.feed.instrument_of(contract, "")
        subscription = self.session.declare(request, instrument, self.now_s, priority=priority)
        self.session.join(subscription, priority)
        self.act()
        return subscription

    def act(self) -> None:
        decided = self.session.take()
        for request in decided.requests:
            self.lines.submit(request, self.now_s)
        self.outbox.pump(self.now_s)

    def eta_s(self, subscription: Subscription) -> float:
        (eta_s,) = self.lines.etas_s([subscription])
        return eta_s

    def has_no_line(self, subscription: Subscription) -> None:
        """The gateway refuses it with error 101."""
        self.limiter.learn(101, self.now_s, self.lines.ticket_of(subscription.req_id))
        self.lines.finish(subscription.req_id)
        self.session.no_line(subscription, self.now_s, "no line")
        self.act()

    def asked_after_s(self, subscription: Subscription) -> float:
        """Let time pass until it is asked for."""
        begun_s = self.now_s
        while not subscription.req_id:
            self.now_s += STEP_S
            assert self.now_s < begun_s + 1000
            self.session.tick(self.now_s)
            self.act()
        return self.now_s - begun_s


def test_the_gateway_is_asked_for_a_refused_line_again_after_a_minute_as_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(monkeypatch, 5)
    held, first, second = desk.want(1), desk.want(2), desk.want(3)
    for refused in (first, second):
        desk.has_no_line(refused)
    assert desk.limiter.limits(desk.now_s)["lines"] == (1, 1)
    assert [desk.eta_s(subscription) for subscription in (held, first, second)] == [0.0, 60.0, 120.0]
    assert desk.asked_after_s(first) == 60.0
    assert desk.eta_s(second) == 60.0
    assert desk.asked_after_s(second) == 60.0


def test_the_plan_knows_who_comes_first_and_who_has_to_make_way(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, 5)
    low = desk.want(1)
    refused = desk.want(2, priority=9)
    desk.limiter.learn(101, desk.now_s, desk.lines.ticket_of(refused.req_id))
    desk.lines.finish(refused.req_id)
    desk.session.no_line(refused, desk.now_s, "no line", can_displace=False)
    desk.act()
    last = desk.want(3)
    assert desk.eta_s(refused) == 60.0  # the line of the low one is its then
    assert desk.eta_s(last) == 120.0
    assert desk.asked_after_s(refused) == 60.0
    assert (low.req_id != 0, desk.eta_s(last)) == (True, 60.0)


def test_nobody_knows_when_a_line_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, 1)
    held, waiting = desk.want(1), desk.want(2)
    assert (desk.eta_s(held), desk.eta_s(waiting)) == (0.0, math.inf)


@pytest.mark.parametrize("what", ["disconnected", "link_lost", "suspend"])
def test_nothing_is_foretold_while_nothing_can_be_asked(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    desk = Desk(monkeypatch, 5)
    waiting = desk.want(1)
    desk.has_no_line(waiting)
    getattr(desk.session, what)(*([] if what == "disconnected" else [desk.now_s]))
    assert desk.eta_s(waiting) == math.inf


def test_a_plan_plays_the_queue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, 100)
    subscriptions = [desk.want(number) for number in range(1, 8)]
    plays: list[float] = []
    plan = desk.limiter.plan
    monkeypatch.setattr(desk.limiter, "plan", lambda now_s, drafts: plays.append(now_s) or plan(now_s, drafts))
    monkeypatch.setattr(desk.limiter, "eta_s", None)
    etas_s = desk.lines.etas_s(subscriptions)
    assert len(plays) == 1
    assert etas_s == sorted(etas_s)
    assert etas_s[0] == 0 < etas_s[-1]


def test_a_queued_request_takes_the_place_of_its_new_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, 100)
    subscriptions = [desk.want(number) for number in range(1, 8)]
    before = [desk.eta_s(subscription) for subscription in subscriptions[5:]]
    assert 0 < before[0] < before[1]
    desk.session.declare(subscriptions[6].request, subscriptions[6].instrument, desk.now_s, priority=9)
    desk.lines.prioritize(subscriptions[6])
    assert [desk.eta_s(subscription) for subscription in subscriptions[5:]] == before[::-1]


def test_a_request_that_waits_for_its_turn_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """IB takes one tick-by-tick request for an instrument in 15 s; the first data has 8 s from its sending on."""
    desk = Desk(monkeypatch, 100)
    first = desk.want(1, is_tick_by_tick=True)
    desk.session.forget(first, desk.now_s)
    desk.act()
    again = desk.want(1, is_tick_by_tick=True)
    req_id = again.req_id
    for _ in range(int(20 / STEP_S)):
        desk.now_s += STEP_S
        desk.lines.judge(desk.now_s, desk.now_s)
        desk.act()
    ticket = desk.lines.ticket_of(req_id)
    assert ticket is not None
    assert ticket.sent_s > 1015.0
    assert again.req_id == req_id


def test_the_gateway_sees_no_cancel_of_a_request_that_it_never_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """1101 comes twice in one read: what the first has asked for is given up before it is submitted."""
    desk = Desk(monkeypatch, 3)
    desk.session.link_lost(desk.now_s)
    subscription = desk.want(1)
    for _ in range(2):
        desk.session.link_restored(desk.now_s, data_lost=True)
    desk.act()
    assert desk.sent == [replace(subscription.request, req_id=subscription.req_id)]
    desk.session.forget(subscription, desk.now_s)
    desk.act()
    assert desk.sent[1:] == [CancelMarketData(desk.sent[0].req_id)]
