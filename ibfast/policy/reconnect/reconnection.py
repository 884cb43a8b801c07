"""Reconnection: when one link to a gateway is to be tried again, and when only a human can help.

The rule of the file: it receives the outcome of an attempt and returns when the next one is due; it connects nothing,
and the times are parameters. It knows a calendar of planned outages, but neither sockets nor messages.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from enum import Enum
from random import Random

from ibfast.config.sections import ReconnectionConfig
from ibfast.policy.reconnect.calendar import MaintenanceCalendar, WindowKind

__all__ = ["LinkState", "Reconnection"]

MIN_DELAY_S = 0.05
"""Jitter may draw a delay of almost nothing; never try faster than this, unless `delay_s` is less."""

MAX_DOUBLINGS = 64
"""More of them exceed every `max_delay_s` that makes sense, and in the end the range of a float."""

LOGIN_HINTS = 3
"""So many failures in a row that look like a missing login are one; a gateway that starts up shows one or two."""


class LinkState(Enum):
    """The state of a link."""

    IDLE = "idle"
    """No link is wanted."""
    CONNECTING = "connecting"
    """An attempt is under way."""
    CONNECTED = "connected"
    """The link is up."""
    WAITING = "waiting"
    """The link is down; the next attempt comes after a backoff."""
    PLANNED = "planned"
    """The link is down within a maintenance window: polled slowly, no alarm."""
    NEEDS_LOGIN = "needs_login"
    """A human has to log in to the gateway: polled slowly."""
    GAVE_UP = "gave_up"
    """No attempt is made any more."""


class Reconnection:
    """The state of one link, and when to try again.

    The owner calls `attempt` before it connects, then `connected` or `failed`, and `lost` when a link breaks. Only one
    attempt is under way at a time. `next_attempt_s` returns how long to wait.

    Delays grow exponentially with full jitter: uniform in 0 to min(max_delay_s, delay_s * 2**attempts) (AWS
    Architecture Blog, "Exponential Backoff And Jitter"), at least 50 ms. `attempts` starts anew only after the link has
    been up for `stable_s`, so that a link that flaps is tried ever more slowly.

    An outage within a window of the calendar is planned: polled every `planned_poll_s`, and it counts for nothing. A
    human is needed when the gateway has refused right through a window of kind LOGIN, or when three failures in a row
    outside of windows came with `needs_login`. This lasts until the link is up, polled every `login_poll_s`.

    A report out of turn (a link lost twice, an attempt that ends after `stop`) changes nothing.

    Args:
        config: delays, pauses and attempts. A connection that was lost before it was stable is a failure, too; planned
            outages and a missing login are none.
        calendar: the planned outages; by default those of `config`.
        random: the source of jitter.

    Attributes:
        state: see LinkState.
        attempts: failures in a row, as `max_attempts` counts them; 0 again when a link that was stable is lost.
    """

    def __init__(
        self,
        config: ReconnectionConfig,
        *,
        calendar: MaintenanceCalendar | None = None,
        random: Random | None = None,
    ) -> None:
        self._config = config
        self._max_attempts = math.inf if config.max_attempts is None else config.max_attempts
        self._calendar = MaintenanceCalendar.of(config) if calendar is None else calendar
        self._random = random or Random()
        self.stop()

    def stop(self) -> None:
        """Want no link any more, and forget the past: an attempt after it is a new start, after giving up too."""
        self.state = LinkState.IDLE
        self.attempts = 0
        self._due_s = 0.0
        self._connected_s = 0.0
        self._settle()

    def _settle(self) -> None:
        """Forget the outage."""
        self._excused = False
        self._hints = 0
        self._login_lapsed = False
        self._needs_login = False

    @property
    def counts_for_breaker(self) -> bool:
        """Whether the failure or loss that was reported last is one for a circuit breaker: not planned, no login."""
        return not self._excused

    def next_attempt_s(self, now_s: float) -> float | None:
        """Return how many seconds from now the next attempt is due, 0.0 if it is, or None if none is to be made."""
        if self.state in (LinkState.WAITING, LinkState.PLANNED, LinkState.NEEDS_LOGIN):
            return max(0.0, self._due_s - now_s)
        return None

    def attempt(self) -> bool:
        """Begin an attempt; it may be earlier than it is due.

        Returns:
            False: don't connect. An attempt is under way, the link is up, or it was given up.
        """
        if self.state in (LinkState.CONNECTING, LinkState.CONNECTED, LinkState.GAVE_UP):
            return False
        self.state = LinkState.CONNECTING
        return True

    def connected(self, now_s: float) -> bool:
        """Report that the attempt has succeeded: the session has started, not only TCP.

        Returns:
            False: hang up, `stop` was called in the meantime.
        """
        if self.state is not LinkState.CONNECTING:
            return False
        self.state = LinkState.CONNECTED
        self._connected_s = now_s
        self._settle()
        return True

    def lost(self, now_s: float, wall_s: float) -> bool:
        """Report that the link broke.

        Args:
            now_s: seconds of the monotonic clock.
            wall_s: epoch seconds, for the calendar.

        Returns:
            Whether to alarm a human, as of `failed`.
        """
        if self.state is not LinkState.CONNECTED:
            return False
        stable = now_s - self._connected_s >= self._config.stable_s
        if stable:
            self.attempts = 0
        return self._wait(now_s, wall_s, failures=0 if stable else 1)

    def failed(
        self, now_s: float, wall_s: float, *, needs_login: bool = False, fatal: bool = False, is_local: bool = False
    ) -> bool:
        """Report that the attempt has failed.

        Args:
            now_s: seconds of the monotonic clock.
            wall_s: epoch seconds, for the calendar.
            needs_login: TCP opens and the gateway sends nothing, as if no user were logged in.
            fatal: no retry can cure it, a refused authentication say: give up at once.
            is_local: this machine could not try, for want of descriptors say. It counts for nothing, and the next
                attempt comes as soon as after a first failure.

        Returns:
            Whether to alarm a human, who alone can help: true once per outage, when the state becomes
            NEEDS_LOGIN or GAVE_UP.
        """
        if self.state is not LinkState.CONNECTING:
            return False
        if fatal:
            self.state = LinkState.GAVE_UP
            self._excused = False
            return True
        if is_local:
            self._excused = True
            self._rest(LinkState.WAITING, now_s + self._backoff_s(0))
            return False
        self._hints = self._hints + 1 if needs_login else 0
        return self._wait(now_s, wall_s, failures=1)

    def _wait(self, now_s: float, wall_s: float, *, failures: int) -> bool:
        """Decide what kind of outage this is; return whether to alarm a human."""
        known = self._needs_login
        window = self._calendar.window_at(wall_s)
        if window is not None:
            self._hints = 0
            self._login_lapsed |= window.kind is WindowKind.LOGIN
        elif self._login_lapsed or self._hints >= LOGIN_HINTS:
            self._needs_login = True
        self._excused = self._needs_login or window is not None
        if self._needs_login:
            self._rest(LinkState.NEEDS_LOGIN, now_s + self._config.login_poll_s)
            return not known
        if window is not None:
            self._rest(LinkState.PLANNED, now_s + self._config.planned_poll_s)
            return False
        self.attempts += failures
        if self.attempts >= self._max_attempts:
            self.state = LinkState.GAVE_UP
            return True
        self._rest(LinkState.WAITING, now_s + self._backoff_s(self.attempts))
        return False

    def _rest(self, state: LinkState, due_s: float) -> None:
        self.state = state
        self._due_s = due_s

    def _backoff_s(self, failures: int) -> float:
        first_s = self._config.delay_s
        ceiling_s = min(self._config.max_delay_s, math.ldexp(first_s, min(failures, MAX_DOUBLINGS)))
        return max(min(MIN_DELAY_S, first_s), self._random.uniform(0.0, ceiling_s))
