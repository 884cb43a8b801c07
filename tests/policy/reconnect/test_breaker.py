"""The circuit breaker: years pass by a float; threads, tasks and exceptions are real."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ibfast.errors import CircuitOpenError, ConfigError, Error
from ibfast.policy.reconnect.breaker import BreakerState, CircuitBreaker, Permit, Transition
from tests.support.loops import Run

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
OPEN_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def call(breaker: CircuitBreaker, now_s: float, *, failed: bool, duration_s: float = 0.0) -> None:
    permit = breaker.allow(now_s)
    assert permit is not None
    (breaker.failure if failed else breaker.success)(permit, now_s + duration_s)


def tripped(now_s: float = 0.0, **options: Any) -> CircuitBreaker:
    """A breaker that opens at `now_s`."""
    breaker = CircuitBreaker(**{"window_calls": 1, "open_s": OPEN_S, "slow_call_s": 10.0} | options)
    call(breaker, now_s, failed=True)
    assert breaker.state is OPEN
    return breaker


def permits(breaker: CircuitBreaker, now_s: float, count: int) -> list[Permit]:
    granted = [breaker.allow(now_s) for _ in range(count)]
    assert None not in granted
    return [permit for permit in granted if permit is not None]


# --- closed ---


def test_too_few_calls_decide_nothing() -> None:
    breaker = CircuitBreaker(min_calls=10)
    for _ in range(9):
        call(breaker, 0.0, failed=True)
    assert breaker.state is CLOSED
    call(breaker, 0.0, failed=True)
    assert breaker.state is OPEN


@pytest.mark.parametrize(("failures", "state"), [(4, CLOSED), (5, OPEN)])
def test_it_opens_when_the_failures_reach_their_share(failures: int, state: BreakerState) -> None:
    breaker = CircuitBreaker(window_calls=10, failure_rate=0.5)
    for number in range(10):
        call(breaker, 0.0, failed=number < failures)
    assert breaker.state is state


def test_old_calls_leave_a_window_of_calls() -> None:
    breaker = CircuitBreaker(window_calls=4, failure_rate=0.5)
    for failed in (False, False, False, True, False, False, False, True, False):
        call(breaker, 0.0, failed=failed)
    assert breaker.state is CLOSED, "never two in four"
    assert breaker.metrics(0.0).calls == 4
    call(breaker, 0.0, failed=True)
    assert breaker.state is OPEN


def test_a_window_of_fewer_calls_than_the_minimum_decides_when_it_is_full() -> None:
    breaker = CircuitBreaker(window_calls=3, min_calls=10)
    for _ in range(3):
        call(breaker, 0.0, failed=True)
    assert breaker.state is OPEN


def test_old_calls_leave_a_window_of_time() -> None:
    breaker = CircuitBreaker(window_s=60.0, min_calls=2, failure_rate=0.5)
    call(breaker, 0.0, failed=True)
    assert breaker.metrics(59.0).failures == 1
    assert breaker.metrics(60.0).calls == 0
    for now_s in range(60, 6000, 60):
        call(breaker, float(now_s), failed=True)
    assert breaker.state is CLOSED, "one in a minute"
    call(breaker, 5999.0, failed=True)
    assert breaker.state is OPEN


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60))
def test_a_window_of_time_holds_all_of_nine_tenths_and_nothing_older(outcomes: list[tuple[float, bool]]) -> None:
    breaker = CircuitBreaker(window_s=10.0, min_calls=1000)
    now_s, seen = 0.0, []
    for pause_s, failed in outcomes:
        now_s += pause_s
        call(breaker, now_s, failed=failed)
        seen.append((now_s, failed))
        surely = [one for one in seen if one[0] > now_s - 9.0]
        perhaps = [one for one in seen if one[0] > now_s - 10.0]
        metrics = breaker.metrics(now_s)
        assert len(surely) <= metrics.calls <= len(perhaps)
        assert sum(one[1] for one in surely) <= metrics.failures <= sum(one[1] for one in perhaps)


def test_slow_calls_open_it_though_they_succeed() -> None:
    breaker = CircuitBreaker(window_calls=4, slow_rate=0.5, slow_call_s=2.0)
    for duration_s in (2.0, 2.0, 2.5):
        call(breaker, 0.0, failed=False, duration_s=duration_s)
    assert (breaker.metrics(0.0).slow, breaker.metrics(0.0).failures) == (1, 0)
    call(breaker, 0.0, failed=False, duration_s=2.5)
    assert breaker.state is OPEN


def test_a_call_counts_once() -> None:
    breaker = CircuitBreaker()
    (permit,) = permits(breaker, 0.0, 1)
    breaker.success(permit, 0.0)
    breaker.failure(permit, 0.0)
    breaker.cancel(permit, 0.0)
    metrics = breaker.metrics(0.0)
    assert (metrics.calls, metrics.failures, metrics.late) == (1, 0, 1)


def test_a_cancelled_call_counts_nothing() -> None:
    breaker = CircuitBreaker()
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
    [("sss", CLOSED), ("fss", CLOSED), ("sff", OPEN), ("ffs", OPEN), ("fff", OPEN), ("lll", OPEN), ("lls", CLOSED)],
)
def test_the_probes_decide_by_the_same_thresholds(outcomes: str, state: BreakerState) -> None:
    breaker = tripped(probes=3, failure_rate=0.5, slow_rate=1.0)
    now_s = OPEN_S
    for outcome in outcomes:
        call(breaker, now_s, failed=outcome == "f", duration_s=15.0 if outcome == "l" else 0.0)
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
    breaker = tripped(probes=1, slow_call_s=10.0)
    (hung,) = permits(breaker, 100.0, 1)
    assert breaker.allow(129.0) is None
    assert breaker.retry_after_s(129.0) == 1.0
    assert breaker.state_at(130.0) is OPEN
    assert breaker.retry_after_s(130.0) == OPEN_S
    breaker.success(hung, 131.0)
    assert breaker.state is OPEN
    assert breaker.metrics(131.0).late == 1
    call(breaker, 160.0, failed=False)
    assert breaker.state is CLOSED


def test_a_probe_may_be_as_slow_as_a_slow_call() -> None:
    breaker = tripped(probes=1, slow_call_s=100.0)
    permits(breaker, 30.0, 1)
    assert breaker.state_at(129.0) is HALF_OPEN
    assert breaker.state_at(130.0) is OPEN


def test_a_pause_counts_from_when_a_probe_has_hung_though_nobody_looked() -> None:
    breaker = tripped(probes=1)
    permits(breaker, 30.0, 1)
    assert breaker.allow(10_000.0) is not None


def test_nobody_who_comes_back_from_an_earlier_state_decides() -> None:
    breaker = CircuitBreaker(window_calls=1, open_s=OPEN_S, probes=1)
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
    breaker = CircuitBreaker("gateway", window_calls=1, open_s=OPEN_S, probes=1)
    told: list[Transition] = []
    seen: list[BreakerState] = []
    breaker.on_transition.append(told.append)
    breaker.on_transition.append(lambda change: seen.append(breaker.state_at(change.at_s)))
    call(breaker, 0.0, failed=True)
    call(breaker, 50.0, failed=False)
    assert told == [
        Transition("gateway", CLOSED, OPEN, 0.0),
        Transition("gateway", OPEN, HALF_OPEN, 50.0),
        Transition("gateway", HALF_OPEN, CLOSED, 50.0),
    ]
    assert seen == [OPEN, HALF_OPEN, CLOSED], "a callback may use the breaker"


def test_a_callback_that_raises_hurts_nobody_and_is_counted() -> None:
    breaker = CircuitBreaker(window_calls=1, open_s=OPEN_S)
    told: list[Transition] = []
    breaker.on_transition += [lambda change: told.index(change), told.append]
    call(breaker, 0.0, failed=True)
    assert (breaker.state, len(told)) == (OPEN, 1)
    assert breaker.metrics(0.0).callback_errors == 1
    assert isinstance(breaker.callback_error, ValueError)


# --- against a plain model ---


class Breaker(RuleBasedStateMachine):
    """The same calls to a breaker and to lists of what has happened."""

    window_calls, min_calls, failure_rate, slow_call_s = 6, 4, 0.5, 5.0

    @initialize(probes=st.integers(1, 4), slow_rate=st.sampled_from([0.5, 1.0]), open_s=st.sampled_from([2.0, 20.0]))
    def make(self, probes: int, slow_rate: float, open_s: float) -> None:
        self.probes, self.slow_rate, self.open_s = probes, slow_rate, open_s
        self.timeout_s = max(open_s, self.slow_call_s)
        self.breaker = CircuitBreaker(
            window_calls=self.window_calls, min_calls=self.min_calls, failure_rate=self.failure_rate,
            slow_rate=slow_rate, slow_call_s=self.slow_call_s, open_s=open_s, probes=probes,
        )  # fmt: skip
        self.now_s = 0.0
        self.state = CLOSED
        self.opened_s = 0.0
        self.current: list[Permit] = []
        self.stale: list[Permit] = []
        self.outcomes: list[tuple[bool, bool]] = []
        self.late = 0

    def change(self, state: BreakerState) -> None:
        self.stale += self.current
        self.state, self.current, self.outcomes = state, [], []

    def judge(self, at_s: float, *, failed: bool, slow: bool) -> None:
        self.outcomes.append((failed, slow))
        last = self.outcomes[-self.window_calls :]
        if len(last) < (self.probes if self.state is HALF_OPEN else self.min_calls):
            return
        shares = [sum(kind) / len(last) for kind in zip(*last, strict=True)]
        if shares[0] >= self.failure_rate or shares[1] >= self.slow_rate:
            self.opened_s = at_s
            self.change(OPEN)
        elif self.state is HALF_OPEN:
            self.change(CLOSED)

    def pass_time(self) -> None:
        while self.state is HALF_OPEN and self.current and self.now_s >= self.current[0].start_s + self.timeout_s:
            hung = self.current.pop(0)
            self.stale.append(hung)
            self.judge(hung.start_s + self.timeout_s, failed=True, slow=True)
        if self.state is OPEN and self.now_s >= self.opened_s + self.open_s:
            self.change(HALF_OPEN)

    @rule(seconds=st.one_of(st.integers(0, 3), st.integers(4, 40)))
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
                slow = self.now_s - permit.start_s > self.slow_call_s
                self.judge(self.now_s, failed=outcome == "failure", slow=slow)
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
        assert (metrics.failures, metrics.slow) == (sum(one[0] for one in last), sum(one[1] for one in last))
        wait_s = self.breaker.retry_after_s(self.now_s)
        assert 0 <= wait_s <= self.timeout_s
        if self.state is OPEN:
            assert wait_s == self.opened_s + self.open_s - self.now_s > 0


TestBreaker = Breaker.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=40)


# --- with a clock ---


def test_a_decorated_function_keeps_its_face_and_is_refused_when_open() -> None:
    clock = Clock()
    breaker = CircuitBreaker("history", window_calls=2, open_s=OPEN_S, probes=1, clock=clock)

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


def test_a_decorated_coroutine_function_is_timed_until_it_is_done(run: Run) -> None:
    clock = Clock()
    breaker = CircuitBreaker(window_calls=1, slow_call_s=5.0, clock=clock)

    @breaker
    async def connect() -> str:
        await asyncio.sleep(0)
        clock.now_s += 6
        return "connected"

    async def main() -> None:
        assert asyncio.iscoroutinefunction(connect)
        assert await connect() == "connected"
        assert breaker.state is OPEN, "it was slow"
        with pytest.raises(CircuitOpenError):
            await connect()

    run(main())


def test_a_generator_function_is_refused_since_its_call_does_nothing() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match="with block inside"):
            CircuitBreaker()(function)


def test_with_blocks_count_what_leaves_them() -> None:
    clock = Clock()
    breaker = CircuitBreaker(ignore=(KeyError,), clock=clock)
    with breaker:
        clock.now_s += 100
    for error in (ConnectionRefusedError(), KeyError(), KeyboardInterrupt(), GeneratorExit()):
        with pytest.raises(type(error)), breaker:
            raise error
    metrics = breaker.metrics(clock.now_s)
    assert (metrics.calls, metrics.failures, metrics.slow) == (2, 1, 1)


def test_with_blocks_nest() -> None:
    clock = Clock()
    outer, inner = CircuitBreaker(clock=clock), CircuitBreaker(clock=clock)
    with outer:
        with outer, inner:
            clock.now_s += 100
        with pytest.raises(ConnectionRefusedError), inner:
            raise ConnectionRefusedError
    assert (outer.metrics(clock.now_s).calls, outer.metrics(clock.now_s).slow) == (2, 2)
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


def test_tasks_at_once_are_each_timed_by_themselves(run: Run) -> None:
    clock = Clock()
    breaker = CircuitBreaker(slow_call_s=5.0, clock=clock)
    doors = [asyncio.Event() for _ in range(3)]

    async def wait(number: int) -> None:
        async with breaker:
            await doors[number].wait()

    async def main() -> None:
        tasks = []
        for number in range(3):
            tasks.append(asyncio.create_task(wait(number)))
            await asyncio.sleep(0)
            clock.now_s += 3
        for number in (1, 2, 0):  # 6, 3 and 9 seconds
            doors[number].set()
            await tasks[number]

    run(main())
    assert (breaker.metrics(clock.now_s).calls, breaker.metrics(clock.now_s).slow) == (3, 2)


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
    clock.now_s += OPEN_S
    assert breaker.state_at(clock.now_s) is OPEN, "as a probe that hangs"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"window_calls": 0}, "window_calls=0"),
        ({"window_calls": 2.5}, "window_calls"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": float("inf")}, "window_s"),
        ({"window_calls": 5, "window_s": 5.0}, "window_s"),
        ({"min_calls": 0}, "min_calls"),
        ({"failure_rate": 0}, "failure_rate"),
        ({"failure_rate": 50}, "failure_rate=50"),
        ({"failure_rate": float("nan")}, "failure_rate"),
        ({"slow_rate": 1.1}, "slow_rate"),
        ({"slow_call_s": None}, "slow_call_s"),
        ({"open_s": -1}, "open_s"),
        ({"open_s": "30"}, "open_s"),
        ({"probes": 0}, "probes"),
        ({"probes": True}, "probes"),
        ({"ignore": KeyError}, "ignore"),
        ({"ignore": ("KeyError",)}, "ignore"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{named}.* is not possible: give "):
        CircuitBreaker(**settings)
