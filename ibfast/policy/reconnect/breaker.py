"""The circuit breaker: when to stop asking a service that fails, and how to find out that it works again.

The rule of the file: every decision is a function of the times that are passed in; the clock serves only the decorator
and the `with` block. It knows neither what it guards nor who waits. Semantics after resilience4j's CircuitBreaker
(https://resilience4j.readme.io/docs/circuitbreaker): a window of outcomes, thresholds of failed and of slow calls, and
a fixed number of probes once the pause is over.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import ParamSpec, TypeVar, cast

from ibfast.config.checks import require, require_seconds, require_share, require_whole
from ibfast.errors import CircuitOpenError
from ibfast.policy.reconnect.outcomes import LastCalls, LastSeconds, Outcomes

__all__ = ["BreakerMetrics", "BreakerState", "CircuitBreaker", "Permit", "Transition"]

P = ParamSpec("P")
R = TypeVar("R")

WINDOW_CALLS = 20
"""The window where none is named."""


class BreakerState(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """All calls pass; their outcomes are watched."""
    OPEN = "open"
    """No call passes."""
    HALF_OPEN = "half_open"
    """A few probes pass, and decide."""


@dataclass(slots=True, eq=False)
class Permit:
    """The leave to make one call. Give it back with `success`, `failure` or `cancel`; the first of these counts."""

    epoch: int
    start_s: float
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state."""

    name: str
    previous: BreakerState
    state: BreakerState
    at_s: float


@dataclass(frozen=True, slots=True)
class BreakerMetrics:
    """What a breaker has seen.

    Attributes:
        calls, failures, slow: outcomes in the window (half open: of the probes). A call can be failed and slow.
        failure_rate, slow_rate: shares of `calls`, 0.0 without calls.
        not_permitted: calls that were refused since the breaker was made.
        late: outcomes since then that did not count: their call began before the last change of state, or it was a
            probe that had taken too long.
        callback_errors: exceptions since then that `on_transition` callbacks raised.
    """

    state: BreakerState
    calls: int
    failures: int
    slow: int
    failure_rate: float
    slow_rate: float
    not_permitted: int
    late: int
    callback_errors: int


_ENTERED: ContextVar[tuple[tuple[CircuitBreaker, Permit], ...]] = ContextVar("ibfast_breaker_permits", default=())
"""The permits of the `with` blocks that this task or thread is in, innermost last."""


class CircuitBreaker:
    """Refuses calls to what fails, and probes it after a pause.

    Closed, it opens when at least `min_calls` outcomes are in the window and the share of failed or of slow ones
    reaches its threshold. Open, it refuses for `open_s`. Half open, it permits `probes` calls, whoever asks and however
    many at once, and when the outcome of all of them is known closes, or opens again by the same thresholds. A probe
    without an outcome after max(slow_call_s, open_s) counts as failed and slow, so that a call that hangs can't hold
    the breaker half open for good. An outcome of a call that began before the last change of state does not count.

    As a decorator (of functions and coroutine functions) and as a context manager (`with`, `async with`) it takes the
    time from `clock`, and raises CircuitOpenError instead of calling. An exception counts as a failure; one of `ignore`
    and one that ends a task or the program (CancelledError, KeyboardInterrupt: no `Exception`) gives the permit back
    without a verdict. A `with` block must be left by the task that entered it; else its permit has no outcome.

    Otherwise: `permit = breaker.allow(now_s)`, and if it is not None, make the call and report it with `success`,
    `failure` or `cancel`. All methods are safe to call from several threads.

    Args:
        name: what it guards; stands in errors and transitions.
        window_calls: the last so many outcomes decide; 20 if neither window is given.
        window_s: instead, those of the last so many seconds decide (of the last tenth of it only in part).
        min_calls: fewer outcomes decide nothing; a window of fewer calls decides when it is full.
        failure_rate: share of failed calls that opens, more than 0, at most 1.
        slow_rate: share of slow calls that opens.
        slow_call_s: a call that takes longer is slow.
        open_s: how long it refuses.
        probes: calls permitted while half open.
        ignore: types of exceptions that are no verdict on what is guarded.
        clock: seconds of a clock that never goes back; the same one that `now_s` is of, where both are used.

    Attributes:
        on_transition: functions to be called after every change of state. What they raise is counted, and the last of
            it kept in `callback_error`.
        state: as of the last call of any method; `state_at` brings it up to date.

    Raises:
        ConfigError: a setting is not possible; names the field and the remedy.
    """

    def __init__(
        self,
        name: str = "",
        *,
        window_calls: int | None = None,
        window_s: float | None = None,
        min_calls: int = 10,
        failure_rate: float = 0.5,
        slow_rate: float = 1.0,
        slow_call_s: float = 60.0,
        open_s: float = 30.0,
        probes: int = 3,
        ignore: tuple[type[BaseException], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require(window_calls is None or window_s is None, "window_s", window_s, "give window_calls or window_s")
        if window_s is not None:
            require_seconds("window_s", window_s)
        window_calls = WINDOW_CALLS if window_calls is None else window_calls
        require_whole("window_calls", window_calls, at_least=1)
        require_whole("min_calls", min_calls, at_least=1)
        require_whole("probes", probes, at_least=1)
        require_share("failure_rate", failure_rate)
        require_share("slow_rate", slow_rate)
        require_seconds("slow_call_s", slow_call_s)
        require_seconds("open_s", open_s)
        types = isinstance(ignore, tuple) and all(isinstance(a, type) and issubclass(a, BaseException) for a in ignore)
        require(types, "ignore", ignore, "give a tuple of exception types")
        self.name = name
        self.state = BreakerState.CLOSED
        self.on_transition: list[Callable[[Transition], object]] = []
        self.callback_error: Exception | None = None
        self._window_calls = window_calls
        self._window_s = window_s
        self._min_calls = min_calls if window_s is not None else min(min_calls, window_calls)
        self._failure_rate = failure_rate
        self._slow_rate = slow_rate
        self._slow_call_s = slow_call_s
        self._open_s = open_s
        self._probes = probes
        self._probe_timeout_s = max(slow_call_s, open_s)
        self._ignore = ignore
        self._clock = clock
        self._lock = threading.Lock()
        self._epoch = 0
        self._opened_s = 0.0
        self._window: Outcomes = self._new_window()
        self._probing: list[Permit] = []
        self._changes: list[Transition] = []
        self._not_permitted = 0
        self._late = 0
        self._callback_errors = 0

    # --- with times that are passed in ---

    def allow(self, now_s: float) -> Permit | None:
        """Ask to make a call now; who gets a permit must give it back.

        Returns:
            A permit, or None: do not call (`retry_after_s` says when to ask again).
        """
        with self._at(now_s):
            if self._free(now_s):
                permit = Permit(self._epoch, now_s)
                if self.state is BreakerState.HALF_OPEN:
                    self._probing.append(permit)
                return permit
            self._not_permitted += 1
            return None

    def success(self, permit: Permit, now_s: float) -> None:
        """Report that the call has succeeded; it may have been slow all the same."""
        self._settle(permit, now_s, failed=False)

    def failure(self, permit: Permit, now_s: float) -> None:
        """Report that the call has failed."""
        self._settle(permit, now_s, failed=True)

    def cancel(self, permit: Permit, now_s: float) -> None:
        """Give the permit back without a verdict: the call was not made, or its outcome says nothing."""
        with self._at(now_s):
            permit.settled = True
            if permit in self._probing:
                self._probing.remove(permit)

    def state_at(self, now_s: float) -> BreakerState:
        """Bring the state up to date, and return it."""
        with self._at(now_s):
            return self.state

    def retry_after_s(self, now_s: float) -> float:
        """Return how many seconds from now to ask again: 0.0 if a call is permitted now.

        While all probes are under way that is when the first of them will have taken too long; the outcome may be
        known earlier.
        """
        with self._at(now_s):
            if self._free(now_s):
                return 0.0
            if self.state is BreakerState.OPEN:
                return self._opened_s + self._open_s - now_s
            return self._probing[0].start_s + self._probe_timeout_s - now_s

    def metrics(self, now_s: float) -> BreakerMetrics:
        """Return what it has seen."""
        with self._at(now_s):
            counts = self._window.counts(now_s)
            return BreakerMetrics(
                self.state, counts.calls, counts.failures, counts.slow, counts.failure_rate, counts.slow_rate,
                self._not_permitted, self._late, self._callback_errors,
            )  # fmt: skip

    # --- with the clock ---

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard a function or a coroutine function.

        Raises:
            TypeError: `function` is a generator function, whose call does nothing yet: use `with` inside of it.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator function: use the breaker's with block inside of it"
            )
        if inspect.iscoroutinefunction(function):
            coroutine_function = cast(Callable[P, Awaitable[object]], function)

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> object:
                with self:
                    return await coroutine_function(*args, **kwargs)

            return cast(Callable[P, R], awaited)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return called

    def __enter__(self) -> None:
        now_s = self._clock()
        permit = self.allow(now_s)
        if permit is None:
            raise CircuitOpenError(self.name, self.retry_after_s(now_s))
        _ENTERED.set((*_ENTERED.get(), (self, permit)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        permit = self._leave()
        if permit is None:
            return
        if kind is None:
            self.success(permit, self._clock())
        elif issubclass(kind, Exception) and not issubclass(kind, self._ignore):
            self.failure(permit, self._clock())
        else:
            self.cancel(permit, self._clock())

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _leave(self) -> Permit | None:
        """The permit of the innermost block; None in a task that did not enter it (a generator's that is closed)."""
        entered = _ENTERED.get()
        for index in reversed(range(len(entered))):
            breaker, permit = entered[index]
            if breaker is self:
                _ENTERED.set(entered[:index] + entered[index + 1 :])
                return permit
        return None

    # --- state ---

    @contextmanager
    def _at(self, now_s: float) -> Iterator[None]:
        """Hold the lock, with the state brought up to date; tell what has changed when it is released."""
        with self._lock:
            self._lapse(now_s)
            if self.state is BreakerState.OPEN and now_s >= self._opened_s + self._open_s:
                self._enter_state(BreakerState.HALF_OPEN, now_s)
            yield
            changes, self._changes = self._changes, []
        for change in changes:
            self._tell(change)

    def _free(self, now_s: float) -> bool:
        if self.state is BreakerState.HALF_OPEN:
            return self._window.counts(now_s).calls + len(self._probing) < self._probes
        return self.state is BreakerState.CLOSED

    def _settle(self, permit: Permit, now_s: float, *, failed: bool) -> None:
        with self._at(now_s):
            if permit.settled or permit.epoch != self._epoch:
                permit.settled = True
                self._late += 1
                return
            permit.settled = True
            if permit in self._probing:
                self._probing.remove(permit)
            self._judge(now_s, failed=failed, slow=now_s - permit.start_s > self._slow_call_s)

    def _lapse(self, now_s: float) -> None:
        """Count the probes that have taken too long, as of the moment when they did."""
        while self._probing and now_s >= (lapsed_s := self._probing[0].start_s + self._probe_timeout_s):
            self._probing.pop(0).settled = True
            self._judge(lapsed_s, failed=True, slow=True)

    def _judge(self, now_s: float, *, failed: bool, slow: bool) -> None:
        """Count an outcome of this epoch, and change the state if it decides."""
        self._window.add(now_s, failed, slow)
        counts = self._window.counts(now_s)
        half_open = self.state is BreakerState.HALF_OPEN
        if counts.calls < (self._probes if half_open else self._min_calls):
            return
        if counts.failure_rate >= self._failure_rate or counts.slow_rate >= self._slow_rate:
            self._opened_s = now_s
            self._enter_state(BreakerState.OPEN, now_s)
        elif half_open:
            self._enter_state(BreakerState.CLOSED, now_s)

    def _enter_state(self, state: BreakerState, now_s: float) -> None:
        """Begin a new epoch: nothing of the last one counts."""
        self._changes.append(Transition(self.name, self.state, state, now_s))
        self.state = state
        self._epoch += 1
        self._probing.clear()
        self._window = LastCalls(self._probes) if state is BreakerState.HALF_OPEN else self._new_window()

    def _new_window(self) -> Outcomes:
        return LastCalls(self._window_calls) if self._window_s is None else LastSeconds(self._window_s)

    def _tell(self, change: Transition) -> None:
        for callback in list(self.on_transition):
            try:
                callback(change)
            except Exception as error:
                self._callback_errors += 1
                self.callback_error = error
