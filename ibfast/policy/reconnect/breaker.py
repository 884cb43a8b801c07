"""The circuit breaker: when to stop calling a service that fails, and how to find out that it works again.

The rule of the file: every decision is a function of the times that are passed in; the clock serves only the decorator
and the `with` block. It knows neither the service nor the callers. Semantics after resilience4j's CircuitBreaker
(https://resilience4j.readme.io/docs/circuitbreaker): a window of the last outcomes, a threshold of failed calls, and a
fixed number of probes once the pause is over.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import ParamSpec, TypeVar, cast

from ibfast.config.sections import BreakerConfig
from ibfast.errors import CircuitOpenError

__all__ = ["BreakerMetrics", "BreakerState", "BreakerTransition", "CircuitBreaker", "Permit"]

P = ParamSpec("P")
R = TypeVar("R")

MIN_CALLS = 10
"""Fewer outcomes decide nothing; a window of fewer calls decides when it is full."""

PROBE_TIMEOUT_S = 60.0
"""A probe without an outcome counts as failed after this, or after the pause if that is longer: a call that hangs must
not hold the breaker half open for good."""


class BreakerState(Enum):
    """Whether a breaker permits calls."""

    CLOSED = "closed"
    """Every call is permitted; outcomes are counted."""
    OPEN = "open"
    """No call is permitted."""
    HALF_OPEN = "half_open"
    """A few probes are permitted, and decide."""


@dataclass(slots=True, eq=False)
class Permit:
    """The permission for one call. End it with `success`, `failure` or `cancel`; the first of these counts."""

    epoch: int
    start_s: float
    settled: bool = False


@dataclass(frozen=True, slots=True)
class BreakerTransition:
    """A change of state."""

    name: str
    previous: BreakerState
    state: BreakerState
    at_s: float


@dataclass(frozen=True, slots=True)
class BreakerMetrics:
    """The counts of a breaker.

    Attributes:
        calls, failures: outcomes in the window (half open: of the probes).
        not_permitted: calls that were refused since the breaker was made.
        late: outcomes since then that did not count: their call began before the last change of state, or it was a
            probe that had taken too long.
    """

    state: BreakerState
    calls: int
    failures: int
    not_permitted: int
    late: int


_ENTERED: ContextVar[tuple[tuple[CircuitBreaker, Permit], ...]] = ContextVar("ibfast_breaker_permits", default=())
"""The permits of the `with` blocks that this task or thread is in, innermost last."""


class CircuitBreaker:
    """Refuses calls to a service that fails, and probes it after a pause.

    Closed, it opens when at least ten outcomes are in the window and the share of failed ones reaches `failure_rate`.
    Open, it refuses for `open_s`. Half open, it permits `probes` calls, from any callers and at the same time. When all
    their outcomes are known, it closes, or opens again by the same threshold. An outcome of a call that began before
    the last change of state does not count.

    As a decorator (of functions and coroutine functions) and as a context manager (`with`, `async with`) it reads the
    time from `clock`, and raises CircuitOpenError instead of calling. An exception counts as a failure. One of `ignore`
    and one that ends a task or the program (CancelledError, KeyboardInterrupt: no `Exception`) cancels the permit.
    A `with` block must be left by the task that entered it; else its permit has no outcome.

    Otherwise: `permit = breaker.allow(now_s)`, and if it is not None, make the call and report it with `success`,
    `failure` or `cancel`. All methods are safe to call from several threads.

    Args:
        name: of the service; stands in errors and transitions.
        config: window, threshold, pause and probes.
        ignore: types of exceptions that say nothing about the service.
        clock: seconds of a clock that never goes back; the same one that `now_s` is of, where both are used.

    Attributes:
        on_transition: functions to be called after every change of state.
        callback_error: the last exception that one of them has raised.
        state: as of the last call of any method; `state_at` brings it up to date.

    Raises:
        TypeError: `ignore` is not a tuple of exception types.
    """

    def __init__(
        self,
        name: str,
        config: BreakerConfig,
        *,
        ignore: tuple[type[BaseException], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        issubclass(Exception, ignore)  # raises TypeError
        self.name = name
        self.state = BreakerState.CLOSED
        self.on_transition: list[Callable[[BreakerTransition], object]] = []
        self.callback_error: Exception | None = None
        self._config = config
        self._min_calls = min(MIN_CALLS, config.window_calls)
        self._probe_timeout_s = max(PROBE_TIMEOUT_S, config.open_s)
        self._ignore = ignore
        self._clock = clock
        self._lock = threading.Lock()
        self._epoch = 0
        self._opened_s = 0.0
        # Whether each of the last calls has failed.
        self._window: deque[bool] = deque(maxlen=config.window_calls)
        self._probing: list[Permit] = []
        self._changes: list[BreakerTransition] = []
        self._not_permitted = 0
        self._late = 0

    # --- with times that are passed in ---

    def allow(self, now_s: float) -> Permit | None:
        """Ask for a call now; a permit must be ended.

        Returns:
            A permit, or None: do not call (`retry_after_s` says when to ask again).
        """
        with self._at(now_s):
            if self._is_free():
                permit = Permit(self._epoch, now_s)
                if self.state is BreakerState.HALF_OPEN:
                    self._probing.append(permit)
                return permit
            self._not_permitted += 1
            return None

    def success(self, permit: Permit, now_s: float) -> None:
        """Report that the call has succeeded."""
        self._settle(permit, now_s, failed=False)

    def failure(self, permit: Permit, now_s: float) -> None:
        """Report that the call has failed."""
        self._settle(permit, now_s, failed=True)

    def cancel(self, permit: Permit, now_s: float) -> None:
        """Report that the call was not made, or that its outcome proves nothing."""
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
            if self._is_free():
                return 0.0
            if self.state is BreakerState.OPEN:
                return self._opened_s + self._config.open_s - now_s
            return self._probing[0].start_s + self._probe_timeout_s - now_s

    def metrics(self, now_s: float) -> BreakerMetrics:
        """Return its state and its counts."""
        with self._at(now_s):
            return BreakerMetrics(self.state, len(self._window), sum(self._window), self._not_permitted, self._late)

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
        """Hold the lock, with the state brought up to date; report changes after its release."""
        with self._lock:
            self._lapse(now_s)
            if self.state is BreakerState.OPEN and now_s >= self._opened_s + self._config.open_s:
                self._enter_state(BreakerState.HALF_OPEN, now_s)
            yield
            changes, self._changes = self._changes, []
        for change in changes:
            self._report(change)

    def _is_free(self) -> bool:
        if self.state is BreakerState.HALF_OPEN:
            return len(self._window) + len(self._probing) < self._config.probes
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
            self._judge(now_s, failed=failed)

    def _lapse(self, now_s: float) -> None:
        """Count the probes that have taken too long, as of the moment when they did."""
        while self._probing and now_s >= (lapsed_s := self._probing[0].start_s + self._probe_timeout_s):
            self._probing.pop(0).settled = True
            self._judge(lapsed_s, failed=True)

    def _judge(self, now_s: float, *, failed: bool) -> None:
        """Count an outcome of this epoch, and change the state if it decides."""
        self._window.append(failed)
        half_open = self.state is BreakerState.HALF_OPEN
        calls = len(self._window)
        if calls < (self._config.probes if half_open else self._min_calls):
            return
        if sum(self._window) / calls >= self._config.failure_rate:
            self._opened_s = now_s
            self._enter_state(BreakerState.OPEN, now_s)
        elif half_open:
            self._enter_state(BreakerState.CLOSED, now_s)

    def _enter_state(self, state: BreakerState, now_s: float) -> None:
        """Begin a new epoch: nothing of the last one counts."""
        self._changes.append(BreakerTransition(self.name, self.state, state, now_s))
        self.state = state
        self._epoch += 1
        self._probing.clear()
        half_open = state is BreakerState.HALF_OPEN
        self._window = deque(maxlen=self._config.probes if half_open else self._config.window_calls)

    def _report(self, change: BreakerTransition) -> None:
        for callback in list(self.on_transition):
            try:
                callback(change)
            except Exception as error:
                self.callback_error = error
