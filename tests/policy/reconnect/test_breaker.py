"""The circuit breaker: years pass by a float; threads, tasks and exceptions are real."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ibfast.config.sections import BreakerConfig
from ibfast.errors import CircuitOpenError, Error
from ibfast.policy.reconnect.breaker import (
    MIN_CALLS,
    PROBE_TIMEOUT_S,
    BreakerState,
    BreakerTransition,
    CircuitBreaker,
    Permit,
)
from tests.support.loops import Run

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
OPEN_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def breaker_of(
    *, name: str = "", ignore: tuple[type[BaseException], ...] = (), clock: Clock | None = None, **settings: Any
) -> CircuitBreaker:
    return CircuitBreaker(name, BreakerConfig(**settings), ignore=ignore, clock=clock or Clock())


def call(breaker: CircuitBreaker, now_s: float, *, failed: bool) -> None:
    permit = breaker.allow(now_s)
    assert permit is not None
    (breaker.failure if failed else breaker.success)(permit, now_s)


def tripped(now_s: float = 0.0, **options: Any) -> CircuitBreaker:
    """A breaker that opens at `now_s`."""
    breaker = breaker_of(**{"window_calls": 1, "open_s": OPEN_S} | options)
    call(breaker, now_s, failed=True)
    assert breaker.state is OPEN
    return breaker


def permits(breaker: CircuitBreaker, now_s: float, count: int) -> list[Permit]:
    granted = [breaker.allow(now_s) for _ in range(count)]
    assert None not in granted
    return [permit for permit in granted if permit is not None]


# --- closed ---


def test_too_few_calls_decide_nothing() -> None:
    breaker = breaker_of(window_calls=20)
    for _ in range(9):
        call(breaker, 0.0, failed=True)
    assert breaker.state is CLOSED
    call(breaker, 0.0, failed=True)
    assert breaker.state is OPEN


@pytest.mark.parametrize(("failures", "state"), [(4, CLOSED), (5, OPEN)])
def test_it_opens_when_the_failures_reach_their_share(failures: int, state: BreakerState) -> None:
    breaker = breaker_of(window_calls=10, failure_rate=0.5)
    for number in range(10):
        call(breaker, 0.0, failed=number < failures)
    assert breaker.state is state


def test_old_calls_leave_a_window_of_calls() -> None:
    breaker = breaker_of(window_calls=4, failure_rate=0.5)
    for failed in (False, False, False, True, False, False, False, True, False):
        call(breaker, 0.0, failed=failed)
    assert breaker.state is CLOSED, "never two in four"
    assert breaker.metrics(0.0).calls == 4
    call(breaker, 0.0, failed=True)
    assert breaker.state is OPEN


def test_a_window_of_fewer_calls_than_the_minimum_decides_when_it_is_full() -> None:
    breaker = breaker_of(window_calls=3)
    for _ in range(3):
        call(breaker, 0.0, failed=True)
    assert breaker.state is OPEN


def test_a_call_counts_once() -> None:
    breaker = breaker_of()
    (permit,) = permits(breaker, 0.0, 1)
    breaker.success(permit, 0.0)
    breaker.failure(permit, 0.0)
    breaker.cancel(permit, 0.0)
    metrics = breaker.metrics(0.0)
    assert (metrics.calls, metrics.failures, metrics.late) == (1, 0, 1)


def test_a_cancelled_call_counts_nothing() -> None:
    breaker = breaker_of()
    (permit,) = permits(breaker, 0.0, 1)
    breaker.cancel(permit, 0.0)
    assert breaker.metrics(0.0).calls == 0


# --- open, half open ---


def test_open_it_refuses_until_the_pause_is_over() -> None:
    breaker = tripped()
    assert breaker.allow(0.0) is None
    assert breaker.allow(OPEN_S - 0.001) is None
    assert breaker.retry_after_s(OPEN_S - 10) == 10
    assert breaker.metrics(0.0).not_permitted == 2
    assert breaker.state_at(OPEN_S) is HALF_OPEN
    assert breaker.retry_after_s(OPEN_S) == 0
    assert breaker.allow(OPEN_S) is not None


def test_half_open_it_permits_so_many_probes_and_no_more() -> None:
    breaker = tripped(probes=3)
    first, *others = permits(breaker, OPEN_S, 3)
    assert breaker.allow(OPEN_S) is None
    breaker.success(first, OPEN_S + 1)
    assert breaker.allow(OPEN_S + 1) is None, "a probe that is over makes no room for another"
    for permit in others:
        assert breaker.state is HALF_OPEN
        breaker.success(permit, OPEN_S + 1)
    assert breaker.state is CLOSED
    assert len(permits(breaker, OPEN_S + 1, 100)) == 100


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [("sss", CLOSED), ("fss", CLOSED), ("sff", OPEN), ("ffs", OPEN), ("fff", OPEN)],
)
def test_the_probes_decide_by_the_same_threshold(outcomes: str, state: BreakerState) -> None:
    breaker = tripped(probes=3, failure_rate=0.5)
    now_s = OPEN_S
    for outcome in outcomes:
        call(breaker, now_s, failed=outcome == "f")
        now_s += 20.0
    assert breaker.state is state


def test_open_again_it_refuses_as_long_again() -> None:
    breaker = tripped(probes=1)
    call(breaker, 100.0, failed=True)
    assert breaker.retry_after_s(100.0) == OPEN_S
    assert breaker.allow(129.0) is None
    call(breaker, 130.0, failed=False)
    assert breaker.state is CLOSED


def test_a_cancelled_probe_makes_room_for_another() -> None:
    breaker = tripped(probes=1)
    (permit,) = permits(breaker, OPEN_S, 1)
    breaker.cancel(permit, OPEN_S)
    breaker.cancel(permit, OPEN_S)
    (again,) = permits(breaker, OPEN_S, 1)
    assert breaker.allow(OPEN_S) is None
    breaker.success(again, OPEN_S)
    assert breaker.state is CLOSED


def test_a_probe_that_hangs_is_a_failure_in_the_end() -> None:
    breaker = tripped(probes=1)
    (hung,) = permits(breaker, 100.0, 1)
    assert breaker.allow(159.0) is None
    assert breaker.retry_after_s(159.0) == 1.0
    assert breaker.state_at(160.0) is OPEN
    assert breaker.retry_after_s(160.0) == OPEN_S
    breaker.success(hung, 161.0)
    assert breaker.state is OPEN
    assert breaker.metrics(161.0).late == 1
    call(breaker, 190.0, failed=False)
    assert breaker.state is CLOSED


def test_a_pause_counts_from_when_a_probe_has_hung_though_nobody_looked() -> None:
    breaker = tripped(probes=1)
    permits(breaker, 30.0, 1)
    assert breaker.allow(10_000.0) is not None


def test_nobody_who_comes_back_from_an_earlier_state_decides() -> None:
    breaker = breaker_of(window_calls=1, open_s=OPEN_S, probes=1)
    of_closed = permits(breaker, 0.0, 4)
    breaker.failure(of_closed[0], 0.0)
    assert breaker.state is OPEN
    breaker.success(of_closed[1], 1.0)
    (probe,) = permits(breaker, OPEN_S, 1)
    breaker.success(of_closed[2], OPEN_S)
    assert breaker.state is HALF_OPEN
    breaker.cancel(of_closed[3], OPEN_S)
    assert breaker.allow(OPEN_S) is None, "it is no probe that was given back"
    breaker.success(probe, OPEN_S)
    assert breaker.state is CLOSED
    assert breaker.metrics(OPEN_S).late == 2


def test_changes_are_told_after_they_have_happened() -> None:
    breaker = breaker_of(name="gateway", window_calls=1, open_s=OPEN_S, probes=1)
    told: list[BreakerTransition] = []
    seen: list[BreakerState] = []
    breaker.on_transition.append(told.append)
    breaker.on_transition.append(lambda change: seen.append(breaker.state_at(change.at_s)))
    call(breaker, 0.0, failed=True)
    call(breaker, 50.0, failed=False)
    assert told == [
        BreakerTransition("gateway", CLOSED, OPEN, 0.0),
        BreakerTransition("gateway", OPEN, HALF_OPEN, 50.0),
        BreakerTransition("gateway", HALF_OPEN, CLOSED, 50.0),
    ]
    assert seen == [OPEN, HALF_OPEN, CLOSED], "a callback may use the breaker"


def test_a_callback_that_raises_changes_nothing_else() -> None:
    breaker = breaker_of(window_calls=1, open_s=OPEN_S)
    told: list[BreakerTransition] = []
    breaker.on_transition += [lambda change: told.index(change), told.append]
    call(breaker, 0.0, failed=True)
    assert (breaker.state, len(told)) == (OPEN, 1)
    assert isinstance(breaker.callback_error, ValueError)


# --- against a plain model ---


class Breaker(RuleBasedStateMachine):
    """The same calls to a breaker and to lists of what has happened."""

    window_calls, min_calls, failure_rate = 14, MIN_CALLS, 0.5

    @initialize(probes=st.integers(1, 4), open_s=st.sampled_from([2.0, 100.0]))
    def make(self, probes: int, open_s: float) -> None:
        self.probes, self.open_s = probes, open_s
        self.timeout_s = max(open_s, PROBE_TIMEOUT_S)
        self.breaker = breaker_of(
            window_calls=self.window_calls, failure_rate=self.failure_rate, open_s=open_s, probes=probes
        )  # fmt: skip
        self.now_s = 0.0
        self.state = CLOSED
        self.opened_s = 0.0
        self.current: list[Permit] = []
        self.stale: list[Permit] = []
        self.outcomes: list[bool] = []
        self.late = 0

    def change(self, state: BreakerState) -> None:
        self.stale += self.current
        self.state, self.current, self.outcomes = state, [], []

    def judge(self, at_s: float, *, failed: bool) -> None:
        self.outcomes.append(failed)
        last = self.outcomes[-self.window_calls :]
        if len(last) < (self.probes if self.state is HALF_OPEN else self.min_calls):
            return
        if sum(last) / len(last) >= self.failure_rate:
            self.opened_s = at_s
            self.change(OPEN)
        elif self.state is HALF_OPEN:
            self.change(CLOSED)

    def pass_time(self) -> None:
        while self.state is HALF_OPEN and self.current and self.now_s >= self.current[0].start_s + self.timeout_s:
            hung = self.current.pop(0)
            self.stale.append(hung)
            self.judge(hung.start_s + self.timeout_s, failed=True)
        if self.state is OPEN and self.now_s >= self.opened_s + self.open_s:
            self.change(HALF_OPEN)

    @rule(seconds=st.one_of(st.integers(0, 3), st.integers(4, 120)))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def allow(self) -> None:
        self.pass_time()
        permit = self.breaker.allow(self.now_s)
        if self.state is CLOSED:
            assert permit is not None
        elif self.state is OPEN:
            assert permit is None
        else:
            assert (permit is not None) == (len(self.current) + len(self.outcomes) < self.probes)
        if permit is not None:
            self.current.append(permit)

    @precondition(lambda self: self.current)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "cancel"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        permit = data.draw(st.sampled_from(self.current), label="permit")
        self.pass_time()
        getattr(self.breaker, outcome)(permit, self.now_s)
        if permit in self.current:
            self.current.remove(permit)
            if outcome != "cancel":
                self.judge(self.now_s, failed=outcome == "failure")
        else:
            self.stale.remove(permit)
            self.late += outcome != "cancel"

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "cancel"]))
    def end_late(self, data: st.DataObject, outcome: str) -> None:
        permit = data.draw(st.sampled_from(self.stale), label="permit")
        self.pass_time()
        self.stale.remove(permit)
        getattr(self.breaker, outcome)(permit, self.now_s)
        self.late += outcome != "cancel"

    @invariant()
    def same(self) -> None:
        self.pass_time()
        metrics = self.breaker.metrics(self.now_s)
        last = self.outcomes[-self.window_calls :]
        assert metrics.state is self.state
        assert (metrics.calls, metrics.late) == (len(last), self.late)
        assert metrics.failures == sum(last)
        wait_s = self.breaker.retry_after_s(self.now_s)
        assert 0 <= wait_s <= self.timeout_s
        if self.state is OPEN:
            assert wait_s == self.opened_s + self.open_s - self.now_s > 0


TestBreaker = Breaker.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=40)


# --- with a clock ---


def test_a_decorated_function_keeps_its_face_and_is_refused_when_open() -> None:
    clock = Clock()
    breaker = breaker_of(name="history", window_calls=2, open_s=OPEN_S, probes=1, clock=clock)

    @breaker
    def half(number: int) -> float:
        """Halve."""
        if number % 2:
            raise ConnectionRefusedError
        return number / 2

    assert (half.__name__, half.__doc__) == ("half", "Halve.")
    assert half(4) == 2
    with pytest.raises(ConnectionRefusedError):
        half(3)
    clock.now_s += 10
    with pytest.raises(CircuitOpenError, match=r"'history' refuses calls: try again in 20 s") as raised:
        half(4)
    assert isinstance(raised.value, Error)
    assert (raised.value.name, raised.value.retry_after_s) == ("history", 20.0)
    clock.now_s += 20
    assert half(6) == 3
    assert breaker.state is CLOSED


def test_a_generator_function_is_refused_since_its_call_does_nothing() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match="with block inside"):
            breaker_of()(function)


def test_with_blocks_count_what_leaves_them() -> None:
    clock = Clock()
    breaker = breaker_of(ignore=(KeyError,), clock=clock)
    with breaker:
        clock.now_s += 100
    for error in (ConnectionRefusedError(), KeyError(), KeyboardInterrupt(), GeneratorExit()):
        with pytest.raises(type(error)), breaker:
            raise error
    metrics = breaker.metrics(clock.now_s)
    assert (metrics.calls, metrics.failures) == (2, 1)


def test_with_blocks_nest() -> None:
    clock = Clock()
    outer, inner = breaker_of(clock=clock), breaker_of(clock=clock)
    with outer:
        with outer, inner:
            clock.now_s += 100
        with pytest.raises(ConnectionRefusedError), inner:
            raise ConnectionRefusedError
    assert (outer.metrics(clock.now_s).calls, outer.metrics(clock.now_s).failures) == (2, 0)
    assert (inner.metrics(clock.now_s).calls, inner.metrics(clock.now_s).failures) == (2, 1)


def test_an_ignored_exception_gives_the_probe_back() -> None:
    clock = Clock()
    breaker = tripped(clock.now_s, probes=1, ignore=(KeyError,), clock=clock)
    clock.now_s += OPEN_S
    with pytest.raises(KeyError), breaker:
        raise KeyError
    with breaker:
        assert breaker.state is HALF_OPEN
    assert breaker.state is CLOSED


def test_a_cancelled_task_gives_the_probe_back(run: Run) -> None:
    clock = Clock()
    breaker = tripped(clock.now_s, probes=1, clock=clock)
    clock.now_s += OPEN_S

    async def hang(entered: asyncio.Event) -> None:
        async with breaker:
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(hang(entered))
        await entered.wait()
        with pytest.raises(CircuitOpenError):
            await hang(asyncio.Event())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        clock.now_s += 1
        async with breaker:
            assert breaker.state is HALF_OPEN
        assert breaker.state is CLOSED

    run(main())
    assert breaker.metrics(clock.now_s).late == 0


def test_tasks_at_once_get_no_more_than_the_probes(run: Run) -> None:
    clock = Clock()
    breaker = tripped(clock.now_s, probes=3, clock=clock)
    clock.now_s += OPEN_S
    running = 0

    async def main() -> None:
        door = asyncio.Event()

        @breaker
        async def connect() -> None:
            nonlocal running
            running += 1
            await door.wait()

        tasks = [asyncio.create_task(connect()) for _ in range(50)]
        await asyncio.sleep(0)
        assert running == 3
        door.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, CircuitOpenError) for result in results) == 47

    run(main())
    assert breaker.state is CLOSED


def test_threads_at_once_get_no_more_than_the_probes() -> None:
    clock = Clock()
    breaker = tripped(clock.now_s, probes=3, clock=clock)
    clock.now_s += OPEN_S
    start, end = threading.Barrier(20), threading.Barrier(20)
    outcomes: list[str] = []

    def probe() -> None:
        start.wait()
        try:
            with breaker:
                outcomes.append("called")
                end.wait()
        except CircuitOpenError:
            outcomes.append("refused")
            end.wait()

    threads = [threading.Thread(target=probe) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["called"] * 3 + ["refused"] * 17
    assert breaker.state is CLOSED


def test_threads_that_race_for_the_probes_get_no_more_of_them() -> None:
    rounds = 3000
    breakers = [tripped(probes=1) for _ in range(rounds)]
    granted: list[list[Permit | None]] = [[] for _ in range(rounds)]
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        for breaker, answers in zip(breakers, granted, strict=True):
            answers.append(breaker.allow(OPEN_S))

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert [sum(answer is not None for answer in answers) for answers in granted] == [1] * rounds


def test_a_block_that_another_context_leaves_has_no_outcome() -> None:
    clock = Clock()
    breaker = tripped(clock.now_s, probes=1, clock=clock)
    clock.now_s += OPEN_S

    def generator() -> Iterator[None]:
        with breaker:
            yield

    steps = generator()
    contextvars.copy_context().run(next, steps)
    assert next(steps, "done") == "done"
    assert breaker.state is HALF_OPEN
    clock.now_s += PROBE_TIMEOUT_S
    assert breaker.state_at(clock.now_s) is OPEN, "as a probe that hangs"
