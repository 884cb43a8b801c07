"""The silence of a stream, judged by the stream's own cadence.

The rule of the file: a verdict only gets worse while nothing comes, and data ends it at once. Time in which nothing
could have been seen (market closed, stream suspended, connection down, event loop blocked) is not silence, and no
cadence is learned from it. It knows no clock and no socket.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from enum import StrEnum

from ibfast.config.sections import HeartbeatConfig
from ibfast.policy.health.hours import TradingHours

__all__ = ["Cadence", "StreamState", "StreamWatch"]

PRIOR_S = 5.0
"""The cadence of a new stream; its opening snapshot does not count."""
PRIOR_WEIGHT_S = 1.0
"""As much data as the prior stands for: a fast stream is known within seconds."""
MEAN_WEIGHT, TAIL_WEIGHT = 1 / 20, 1 / 50
"""The weight of a gap of a second or more: a burst after a long quiet shortens the mean by a twentieth."""
TAIL_MARGIN = 1.5
RENEWED_SHARE = 0.25
"""How much of a silence that ended in a renewal counts as usual: an idle stream is then renewed ever more rarely."""
QUIET_GAPS, STALE_GAPS, DEAD_GAPS = 10.0, 20.0, 40.0
"""The least silence of a QUIET, STALE, DEAD stream in multiples of its cadence; the setting counts if it is longer."""
FIRST_DATA_GAPS = 3
UNKNOWN_HOURS_FACTOR = 4.0


class StreamState(StrEnum):
    """The state of a stream, judged by its silence; from good to bad."""

    LIVE = "live"
    """Data comes as it usually does."""
    QUIET = "quiet"
    """Longer than usual without data, or no data yet: nothing needs to be done."""
    STALE = "stale"
    """Much longer than usual without data, and the market is, or may be, open: the last values may be old."""
    DEAD = "dead"
    """So long without data that the stream should be renewed."""


_SEVERITY = {state: severity for severity, state in enumerate(StreamState)}


def verdict(limits: HeartbeatConfig, silence_s: float, cadence_s: float) -> StreamState:
    """Return what a silence means for a stream with that cadence."""
    if silence_s >= max(limits.dead_s, DEAD_GAPS * cadence_s):
        return StreamState.DEAD
    if silence_s >= max(limits.stale_s, STALE_GAPS * cadence_s):
        return StreamState.STALE
    if silence_s >= max(limits.quiet_s, QUIET_GAPS * cadence_s):
        return StreamState.QUIET
    return StreamState.LIVE


def first_verdict(limits: HeartbeatConfig, silence_s: float, expected_s: float) -> StreamState:
    """Return what a silence means for a stream that has had no data yet."""
    allowance_s = max(limits.first_data_s, FIRST_DATA_GAPS * expected_s)
    if silence_s >= 2 * allowance_s:
        return StreamState.DEAD
    return StreamState.STALE if silence_s >= allowance_s else StreamState.QUIET


class Cadence:
    """How long a stream is silent between messages, learned from its data.

    Attributes:
        mean_s: the time from message to message, an average over looks that found something, at first over all of them,
            later a decaying one. A burst counts as one look, however many messages it has.
        tail_s: the longest gap between two such looks, forgotten slowly.
    """

    __slots__ = ("_seen_s", "mean_s", "tail_s")

    def __init__(self, mean_s: float) -> None:
        self.mean_s = mean_s
        self.tail_s = 0.0
        self._seen_s = PRIOR_WEIGHT_S

    def learn(self, gap_s: float, messages: int) -> None:
        """Learn from a gap and the number of messages after it."""
        weight = min(1.0, gap_s)  # looks that follow each other faster teach less each
        self._seen_s += gap_s
        self.mean_s += (gap_s / messages - self.mean_s) * max(weight * MEAN_WEIGHT, weight / self._seen_s)
        self.tail_s = max(gap_s, self.tail_s + (gap_s - self.tail_s) * weight * TAIL_WEIGHT)

    def learn_renewal(self, silence_s: float) -> None:
        """Learn from a silence that lasted until the stream was renewed: it may be usual."""
        self.tail_s = max(self.tail_s, RENEWED_SHARE * silence_s)

    @property
    def gap_s(self) -> float:
        """The cadence: the mean, or what makes QUIET begin at one and a half times the tail, if that is more."""
        return max(self.mean_s, TAIL_MARGIN * self.tail_s / QUIET_GAPS)


class StreamWatch:
    """One stream: its counts so far, its cadence, its state.

    Attributes:
        state: by the latest look.
        reported: the state that the caller has received last.
        silent_s: the silence behind the state; for LIVE, the one that has ended.
        suspended: whether the reason of its silence is known.
    """

    def __init__(self, hours: TradingHours | None, expected_s: float | None, limits: HeartbeatConfig) -> None:
        self.hours = hours
        self.reported = StreamState.QUIET
        self._limits = limits
        self._expected_s = expected_s or 0.0
        self._cadence = Cadence(expected_s or PRIOR_S)
        self._begin()

    def _begin(self) -> None:
        self.state = StreamState.QUIET
        self.silent_s = 0.0
        self.suspended = False
        self._messages = 0
        self._has_data = False
        self._data_s: float | None = None  # when data came last; before the first, when the watch began
        self._silent_from_s = 0.0  # from when on silence counts
        self._pausing = True  # silence does not count now
        self._excused = False  # part of this silence did not count: nothing is learned from it
        self._forgiven = False  # the time for which the loop was blocked is left out, once per silence

    @property
    def cadence_s(self) -> float:
        """The usual time from message to message, as far as it is known."""
        return self._cadence.gap_s

    def renew(self, now_s: float, hours: TradingHours | None, expected_s: float | None) -> None:
        """Begin anew, as another request for the same stream; the learned cadence stays."""
        if self.state is StreamState.DEAD:
            self._cadence.learn_renewal(now_s - self._silent_from_s)
        self.hours = hours or self.hours
        self._expected_s = expected_s or self._expected_s
        self._begin()

    def count(self, messages: int, now_s: float) -> None:
        """Record how many messages have come in all; fewer than before belong to another request."""
        if messages < self._messages:
            self._messages, self._excused = 0, True
        if messages == self._messages:
            return
        gap_s = self._since_data_s(now_s)
        if self._has_data and not self._excused and not self._pausing and gap_s > 0:
            self._cadence.learn(gap_s, messages - self._messages)
        self._messages = messages
        self._has_data = True
        self._data_s = self._silent_from_s = now_s
        self._excused = self._forgiven = False
        if self.state is not StreamState.LIVE:
            self.state, self.silent_s = StreamState.LIVE, gap_s

    def forgive(self, unseen_s: float, now_s: float) -> None:
        """Leave out the time since the last look; once per silence, or a slow observer would never see one."""
        if not self._forgiven:
            self._forgiven = self._excused = True
            self._silent_from_s = min(self._silent_from_s + unseen_s, now_s)

    def judge(self, now_s: float, wall_s: float, is_connected: bool) -> None:
        """Judge the silence up to now."""
        if self.suspended or not is_connected:
            self._pausing = True
            return
        is_open = None if self.hours is None else self.hours.is_open(wall_s)
        if is_open is False:
            self._pausing = True
            self._enter(self._closed_verdict(now_s), now_s)
            return
        if self._pausing:
            self._start_counting(now_s)
        silence_s = (now_s - self._silent_from_s) / (1.0 if is_open else UNKNOWN_HOURS_FACTOR)
        if self._has_data:
            judged = verdict(self._limits, silence_s, self.cadence_s)
        else:
            judged = first_verdict(self._limits, silence_s, self._expected_s)
        self._enter(max(self.state, judged, key=_SEVERITY.__getitem__), now_s)

    def _start_counting(self, now_s: float) -> None:
        """Begin to count silence: a state from before the pause has to be reached again."""
        self._pausing, self._excused, self._forgiven = False, True, False
        self._silent_from_s = now_s
        self._data_s = now_s if self._data_s is None else self._data_s
        if self.state is not StreamState.LIVE:
            self._enter(StreamState.QUIET, now_s)

    def _closed_verdict(self, now_s: float) -> StreamState:
        is_quiet = verdict(self._limits, self._since_data_s(now_s), self.cadence_s) is not StreamState.LIVE
        return StreamState.QUIET if is_quiet or self.state is not StreamState.LIVE else StreamState.LIVE

    def _enter(self, state: StreamState, now_s: float) -> None:
        if state is not self.state:
            self.state, self.silent_s = state, self._since_data_s(now_s)

    def _since_data_s(self, now_s: float) -> float:
        return 0.0 if self._data_s is None else now_s - self._data_s
