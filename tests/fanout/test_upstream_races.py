"""Upstreams under a source that delays, fails and ends at any await, in every order: a state machine on a real loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ibfast.connection.stream import Stream
from ibfast.contracts import Contract
from ibfast.errors import FeedError, NotConnectedError, RequestError
from ibfast.fanout.messages import RefusedError
from ibfast.fanout.upstream import Upstream, Upstreams
from ibfast.policy.subscription import Subscription
from ibfast.wire.requests import MarketData
from tests.support.fanout_desk import Desk

AAPL = Contract(1, "AAPL", "STK", exchange="SMART", currency="USD")
DATA_TYPES = ("TRADES", "QUOTES", "ALL", "DEPTH")
LINGER_S = 10.0
ERRORS = (
    NotConnectedError("no session"), RequestError(1, 354, "not subscribed"), TimeoutError("60 s"),
    FeedError("the table is full"), ValueError("no such thing"),
)  # fmt: skip


class Clocked(asyncio.SelectorEventLoop):
    """A loop whose clock stands still unless it is set."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s


class Moody(Desk):
    """A source that waits some turns of the loop before and after it opens a line, and may fail at both.

    Attributes:
        began: the feed's sequence number at which the line of each subscription was opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns = [0, 0]
        self.errors: list[Exception | None] = [None, None]
        self.began: dict[Subscription, int] = {}

    async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Stream:
        turns, errors = self.turns, self.errors
        await self._wait(turns[0], errors[0])
        stream = await super().subscribe(contract, data_type)
        self.began.setdefault(stream.subscription, self.feed.seq)
        try:
            await self._wait(turns[1], errors[1])
        except BaseException:
            stream.unsubscribe()
            raise
        return stream

    async def _wait(self, turns: int, error: Exception | None) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if error is not None:
            raise error

    def end(self, number: int, error: Exception) -> None:
        """End a line, as IB does."""
        request = list(self.lines)[number % len(self.lines)]
        for stream in self.lines.pop(request)[1]:
            stream.fail(error)


class Races(RuleBasedStateMachine):
    """Users that come and go, whatever the source does."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clocked()
        self.desk = Moody()
        self.upstreams = Upstreams(self.desk.feed, self.desk, LINGER_S)
        self.waiting: list[asyncio.Task[Any]] = []
        self.held: list[tuple[Upstream, ...]] = []

    def turn(self, turns: int) -> None:
        async def go() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(go())
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled() and not isinstance(task.exception(), RefusedError):
                self.held.append(task.result()[0])

    def give_back(self, taken: tuple[Upstream, ...]) -> None:
        async def go() -> None:
            self.upstreams.release(taken)

        self.loop.run_until_complete(go())

    @rule(
        data_type=st.sampled_from(DATA_TYPES),
        turns=st.tuples(st.integers(0, 4), st.sampled_from((0, 0, 0, 3))),
        errors=st.tuples(*[st.sampled_from((None, None, None, *ERRORS))] * 2),
        first_turns=st.integers(0, 8),
    )
    def acquire(self, data_type: str, turns: Any, errors: Any, first_turns: int) -> None:
        self.desk.turns, self.desk.errors = list(turns), list(errors)
        self.waiting.append(self.loop.create_task(self.upstreams.acquire(AAPL, data_type)))
        self.turn(first_turns)

    @rule(number=st.integers(0, 9), turns=st.integers(0, 2))
    def give_up(self, number: int, turns: int) -> None:
        if self.waiting:
            self.waiting[number % len(self.waiting)].cancel()
        self.turn(turns)

    @rule(number=st.integers(0, 9))
    def release(self, number: int) -> None:
        if self.held:
            self.give_back(self.held.pop(number % len(self.held)))

    @rule(number=st.integers(0, 9), error=st.sampled_from(ERRORS), turns=st.integers(0, 2))
    def end(self, number: int, error: Exception, turns: int) -> None:
        if self.desk.lines:
            self.desk.end(number, error)
        self.turn(turns)

    @rule()
    def notify(self) -> None:
        """Do what the server does with those that are over: every user gives them back."""
        over = {upstream for upstream in self.upstreams if upstream.is_over}
        for taken in [taken for taken in self.held if over & set(taken)]:
            self.held.remove(taken)
            self.give_back(taken)

    @rule(now=st.sampled_from((1.0, LINGER_S)), turns=st.integers(0, 2))
    def pass_time(self, now: float, turns: int) -> None:
        self.loop.now_s += now
        self.turn(turns)

    @rule()
    def trade(self) -> None:
        if any(isinstance(request, MarketData) for request in self.desk.lines):
            line = next(line for request, line in self.desk.lines.items() if isinstance(request, MarketData))
            self.desk.subscription = lambda symbol: line[0]  # type: ignore[method-assign]
            self.desk.trade("AAPL", 1.0)

    @invariant()
    def each_user_of_what_is_over_will_be_told(self) -> None:
        assert {upstream for taken in self.held for upstream in taken} <= set(self.upstreams)

    @invariant()
    def shares_are_those_who_hold_and_those_who_wait(self) -> None:
        holders = Counter(upstream for taken in self.held for upstream in taken)
        shares = {upstream: upstream.shares for upstream in self.upstreams}
        if not self.waiting:
            assert {each: number for each, number in shares.items() if number} == dict(holders)
        assert all(shares[each] >= number for each, number in holders.items())

    @invariant()
    def each_row_of_a_line_in_use_is_kept_from_its_beginning(self) -> None:
        for upstream in {upstream for taken in self.held for upstream in taken if not upstream.is_over}:
            subscription = upstream.stream.subscription
            assert upstream.since.seq <= self.desk.began[subscription]
            assert self.upstreams.keeps(np.array([subscription.req_id])).all()

    def teardown(self) -> None:
        self.desk.errors = [None, None]
        for task in self.waiting:
            task.cancel()
        self.turn(20)
        for taken in self.held:
            self.give_back(taken)
        self.turn(1)
        self.loop.now_s += LINGER_S
        self.turn(2)
        try:
            assert self.desk.lines == {}
            assert list(self.upstreams) == []
            assert not self.upstreams._open
            assert asyncio.all_tasks(self.loop) == set()
        finally:
            self.loop.run_until_complete(self.upstreams.close())
            self.loop.close()


class TestRaces(Races.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=150, stateful_step_count=30)
