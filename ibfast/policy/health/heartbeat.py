"""The heartbeat: whether the link lives, and each stream on it.

The rule of the file: three clocks that prove different things are never mixed: bytes on the socket (the peer's machine
lives), the round trip of reqCurrentTime (its server lives), and the silence of each stream against its own cadence (the
data lives). Time counts only while the event loop runs: after a block everything gets one more chance.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from ibfast.config.checks import require_seconds
from ibfast.config.sections import HeartbeatConfig
from ibfast.policy.health.hours import TradingHours
from ibfast.policy.health.promptness import LATE_S, Promptness
from ibfast.policy.health.silence import StreamState, StreamWatch

__all__ = ["Change", "HeartbeatMonitor", "LinkHealth", "RttStatistics", "StreamState"]

RTT_WINDOW = 256

CHECK_S = 1.0
"""How often `check` is to be called."""

BLOCKED_S = 3.0
"""Looks further apart mean that the event loop was blocked. What could not be seen then does not count against the
connection, nor, once until its next data, against a stream."""


class LinkHealth(StrEnum):
    """The state of the connection, as bytes and probes show it."""

    ALIVE = "alive"
    SLOW = "slow"
    """It answers, and brings data, but late."""
    SUSPECT = "suspect"
    """Bytes have come lately, but the gateway's server does not answer."""
    LOST = "lost"
    """Nothing comes any more, in spite of a question; or there is no connection."""


@dataclass(frozen=True, slots=True)
class Change:
    """A stream has changed its state.

    Attributes:
        key: of the stream.
        before, after: its states.
        silent_s: how long it has been silent; when it is LIVE again, how long it was.
    """

    key: Hashable
    before: StreamState
    after: StreamState
    silent_s: float


@dataclass(frozen=True, slots=True)
class RttStatistics:
    """Round trips of reqCurrentTime, in seconds; NaN without any.

    Attributes:
        count: all that were measured; the other figures are of the newest 256.
        p50_s, p99_s: percentiles by nearest rank.
        jitter_s: the mean difference between one and the next.
    """

    count: int = 0
    last_s: float = math.nan
    min_s: float = math.nan
    mean_s: float = math.nan
    p50_s: float = math.nan
    p99_s: float = math.nan
    jitter_s: float = math.nan


class HeartbeatMonitor:
    """Watches one connection and its streams.

    Between `connected` and `disconnected` the caller tells of bytes, probes and counts as they come, asks `probe_due`,
    `check` and `link` whenever `next_s` says, and acts on the answers. All `now_s` are seconds of one monotonic clock;
    a time before the latest one counts as the latest. While there is no connection no stream is judged.

    Args:
        config: when to probe, and how much silence of a stream is too much.
    """

    def __init__(self, config: HeartbeatConfig) -> None:
        self._config = config
        self._watches: dict[Hashable, StreamWatch] = {}
        self._now_s = -math.inf
        self._looked_s = -math.inf
        self._is_connected = False
        self._heard_s = -math.inf  # when bytes came last
        self._asked_s = -math.inf  # when the newest probe was sent
        self._waiting_from_s: float | None = None
        self._unanswered = 0
        self._promptness = Promptness()
        self._is_single = True  # one probe is out, and the loop was not blocked: its answer gives a round trip
        self._rtts: deque[float] = deque(maxlen=RTT_WINDOW)
        self._rtt_count = 0

    # --- the link ---

    def connected(self, now_s: float) -> None:
        """Begin with a new connection."""
        now_s = self._time(now_s)
        self._is_connected = True
        self._looked_s = self._heard_s = self._asked_s = now_s
        self._waiting_from_s = None
        self._unanswered = 0
        self._promptness.begin(now_s)

    def disconnected(self, now_s: float) -> None:
        """Note the end of the connection: the link is LOST, and no stream is judged until there is another one."""
        self._time(now_s)
        self._is_connected = False
        self._waiting_from_s = None

    def bytes_received(self, now_s: float) -> None:
        """Note that bytes came."""
        self._heard_s = self._time(now_s)

    def probe_due(self, now_s: float) -> bool:
        """Return whether reqCurrentTime is due: every `interval_s`, but not while an answer can still come in time."""
        return self._observe(now_s) >= self._probe_due_s()

    def probe_sent(self, now_s: float) -> None:
        """Note that reqCurrentTime was sent."""
        self._asked_s = self._time(now_s)
        self._is_single = self._waiting_from_s is None
        self._unanswered += 1
        if self._waiting_from_s is None:
            self._waiting_from_s = self._asked_s

    def probe_answered(self, now_s: float, time_s: float | None = None) -> float | None:
        """Note that the time came.

        Args:
            now_s: monotonic time.
            time_s: the gateway's time, UTC seconds.

        Returns:
            The round trip in seconds; None if it is not known, because two probes were out (their answers look alike)
            or the event loop was blocked meanwhile.
        """
        self.bytes_received(now_s)
        self._judge_answer(time_s)
        if self._waiting_from_s is None:
            return None
        self._waiting_from_s = None
        if not self._is_single:
            return None
        rtt_s = self._heard_s - self._asked_s
        self._rtts.append(rtt_s)
        self._rtt_count += 1
        return rtt_s

    def _judge_answer(self, time_s: float | None) -> None:
        """Judge the newest round trip, which is known when every probe is answered: answers keep their order.

        A gateway may leave a question without an answer. Then an answer that carries a fresh time ends the wait for it.
        """
        rtt_s, was_blocked = self._heard_s - self._asked_s, (self._waiting_from_s or -math.inf) > self._asked_s
        is_fresh = time_s is not None and self._promptness.is_prompt_time(time_s, self._heard_s) and rtt_s < LATE_S
        self._unanswered = 0 if is_fresh else self._unanswered - 1
        if self._unanswered == 0 and not was_blocked and not self._is_late_look():
            self._promptness.answered(rtt_s)
        self._unanswered = max(0, self._unanswered)

    def dated(self, source: Hashable, time_s: float, now_s: float) -> None:
        """Note data that carries its time, UTC seconds by the clock of its source: an instrument's trades, say."""
        now_s = self._time(now_s)
        if not self._is_late_look():
            self._promptness.dated(source, time_s, now_s)

    def _is_late_look(self) -> bool:
        """Whether the event loop was blocked until now, so that messages have waited here and not on their way."""
        return self._now_s - self._looked_s > CHECK_S

    @property
    def lateness_s(self) -> float:
        """How late the newest late answer or data was."""
        return self._promptness.late_s

    @property
    def rtt(self) -> RttStatistics:
        """Statistics of the round trips, over all connections so far."""
        if not self._rtts:
            return RttStatistics()
        ordered = sorted(self._rtts)
        steps = [abs(after - before) for before, after in pairwise(self._rtts)]
        return RttStatistics(
            count=self._rtt_count,
            last_s=self._rtts[-1],
            min_s=ordered[0],
            mean_s=math.fsum(ordered) / len(ordered),
            p50_s=_percentile(ordered, 50),
            p99_s=_percentile(ordered, 99),
            jitter_s=math.fsum(steps) / len(steps) if steps else math.nan,
        )

    def link(self, now_s: float) -> LinkHealth:
        """Judge the connection.

        Silence alone proves nothing, since a market may be silent: a probe must have gone unanswered for `timeout_s`.
        Then the link is SUSPECT, and LOST once there was no byte at all for `interval_s` + `timeout_s`. It is SLOW
        where answers or dated data come late, or later than usual, or an answer is awaited for long.
        """
        is_seen = self._time(now_s) - self._looked_s <= CHECK_S
        now_s = self._observe(now_s)
        if not self._is_connected:
            return LinkHealth.LOST
        waited_s = 0.0 if self._waiting_from_s is None else now_s - self._waiting_from_s
        if is_seen:
            self._promptness.waiting(waited_s)
        if waited_s < self._config.timeout_s:
            return LinkHealth.SLOW if self._promptness.is_slow(now_s) else LinkHealth.ALIVE
        return (
            LinkHealth.LOST
            if now_s - self._heard_s >= self._config.interval_s + self._config.timeout_s
            else LinkHealth.SUSPECT
        )

    # --- the streams ---

    def watch(self, key: Hashable, hours: TradingHours | None = None, expected_s: float | None = None) -> None:
        """Watch a stream; its silence counts from the next `check` on. It is QUIET until its first data.

        For a key that is watched already this is another request for the same stream: its counts begin at 0 again, and
        the learned cadence stays.

        Args:
            key: the caller's name of the stream.
            hours: when its instrument trades; None is not known.
            expected_s: the time from message to message that is usual for its kind, such as 5 for five-second bars.

        Raises:
            ConfigError: `expected_s` is not positive.
        """
        if expected_s is not None:
            require_seconds("expected_s", expected_s)
        if key in self._watches:
            self._watches[key].renew(self._now_s, hours, expected_s)
        else:
            self._watches[key] = StreamWatch(hours, expected_s, self._config)

    def forget(self, key: Hashable) -> None:
        """Watch a stream no longer, if it is watched."""
        self._watches.pop(key, None)

    def data(self, key: Hashable, messages: int, now_s: float) -> None:
        """Note how many messages have come of a stream's request in all; more than before make it LIVE.

        Raises:
            KeyError: it is not watched.
        """
        self._watches[key].count(messages, self._time(now_s))

    def suspend(self, key: Hashable) -> None:
        """Judge a stream no more, since there is a known reason for its silence: a broken farm, another session.

        Raises:
            KeyError: it is not watched.
        """
        self._watches[key].suspended = True

    def resume(self, key: Hashable) -> None:
        """Judge a stream again; its silence counts from the next `check` on.

        Raises:
            KeyError: it is not watched.
        """
        self._watches[key].suspended = False

    def check(self, now_s: float, wall_s: float) -> list[Change]:
        """Judge all streams by the counts so far, which `data` should have brought up to date.

        Args:
            now_s: monotonic seconds.
            wall_s: UTC seconds, for the trading hours.

        Returns:
            The streams whose state has changed since the last `check`.
        """
        now_s = self._observe(now_s)
        changes = []
        for key, watch in self._watches.items():
            watch.judge(now_s, wall_s, self._is_connected)
            if watch.state is not watch.reported:
                changes.append(Change(key, watch.reported, watch.state, watch.silent_s))
                watch.reported = watch.state
        return changes

    def state(self, key: Hashable) -> StreamState:
        """Return a stream's state by the latest `check` or `data`; KeyError if it is not watched."""
        return self._watches[key].state

    def cadence_s(self, key: Hashable) -> float:
        """Return the learned time from message to message of a stream; KeyError if it is not watched.

        It is the average, or what makes QUIET begin at one and a half times the longest recent gap, if that is more.
        """
        return self._watches[key].cadence_s

    def states(self) -> dict[StreamState, int]:
        """Return how many streams are in each state."""
        counts = Counter(watch.state for watch in self._watches.values())
        return {state: counts[state] for state in StreamState}

    # --- time ---

    def next_s(self, now_s: float) -> float:
        """Return the time on the clock of `now_s` at which to look again; infinite while there is no connection."""
        now_s = self._time(now_s)
        if not self._is_connected:
            return math.inf
        return max(now_s, min(self._looked_s + CHECK_S, self._probe_due_s()))

    def _probe_due_s(self) -> float:
        if not self._is_connected:
            return math.inf
        answer_due_s = -math.inf if self._waiting_from_s is None else self._waiting_from_s + self._config.timeout_s
        return max(self._asked_s + self._config.interval_s, answer_due_s)

    def _time(self, now_s: float) -> float:
        self._now_s = max(self._now_s, now_s)
        return self._now_s

    def _observe(self, now_s: float) -> float:
        """Look at the clock, and see whether the look before was too long ago."""
        now_s = self._time(now_s)
        unseen_s, self._looked_s = now_s - self._looked_s, now_s
        if self._is_connected and unseen_s > BLOCKED_S:
            self._forgive(now_s, unseen_s)
        return now_s

    def _forgive(self, now_s: float, unseen_s: float) -> None:
        """Give a probe that is out one more `timeout_s`, and leave the time out of the streams' silence."""
        if self._waiting_from_s is not None and self._is_single:
            self._is_single = False
            self._waiting_from_s = now_s
        for watch in self._watches.values():
            watch.forgive(unseen_s, now_s)


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[-(-percent * len(ordered) // 100) - 1]
