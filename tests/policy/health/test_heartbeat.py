"""The heartbeat: the link by bytes and probes, each stream by its own cadence, on a clock that is a number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.config.sections import HeartbeatConfig
from ibfast.errors import ConfigError
from ibfast.policy.health.heartbeat import (
    CHECK_S,
    Change,
    HeartbeatMonitor,
    LinkHealth,
    RttStatistics,
    StreamState,
)
from ibfast.policy.health.hours import TradingHours
from ibfast.policy.health.silence import Cadence

ALIVE, SLOW, SUSPECT, LOST = LinkHealth
LIVE, QUIET, STALE, DEAD = StreamState
OPEN = TradingHours((0.0,), (True,))
START_S = 1_000.0


def connected() -> HeartbeatMonitor:
    monitor = HeartbeatMonitor(HeartbeatConfig())
    monitor.connected(START_S)
    return monitor


class Stream:
    """A monitor that is looked at every second, and one stream that it watches."""

    def __init__(self, hours: TradingHours | None = OPEN, expected_s: float | None = None) -> None:
        self.monitor = connected()
        self.now_s = START_S
        self.wall_offset_s = 0.0
        self.messages = 0
        self.changes: list[Change] = []
        self.monitor.watch("AAPL", hours, expected_s)
        self.look()

    def look(self) -> None:
        self.monitor.bytes_received(self.now_s)
        self.monitor.data("AAPL", self.messages, self.now_s)
        self.changes += self.monitor.check(self.now_s, self.now_s + self.wall_offset_s)

    def run(self, seconds: float, each_s: Callable[[], int] | int = 0) -> Stream:
        """Let so much time pass, with so many messages in each second."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.messages += each_s if isinstance(each_s, int) else each_s()
            self.look()
        return self

    def renew(self) -> None:
        self.monitor.watch("AAPL")
        self.messages = 0

    def until(self, state: StreamState, at_most_s: float = 100_000) -> float:
        """Return how long it takes, in silence."""
        start_s = self.now_s
        while self.state is not state:
            self.run(1)
            assert self.now_s - start_s <= at_most_s
        return self.now_s - start_s

    @property
    def state(self) -> StreamState:
        return self.monitor.state("AAPL")

    @property
    def cadence_s(self) -> float:
        return self.monitor.cadence_s("AAPL")

    def told(self) -> list[tuple[StreamState, StreamState]]:
        """Return, once, the changes."""
        changes, self.changes = self.changes, []
        return [(change.before, change.after) for change in changes]


# --- the link ---


def test_probes_come_at_their_interval() -> None:
    monitor = connected()
    for n in range(1, 4):
        due_s = START_S + 10 * n
        assert not monitor.probe_due(due_s - 0.1)
        assert monitor.probe_due(due_s)
        monitor.probe_sent(due_s)
        assert not monitor.probe_due(due_s)
        assert monitor.probe_answered(due_s + 0.25) == 0.25
        assert monitor.link(due_s + 0.25) is ALIVE


def watch_link(monitor: HeartbeatMonitor, first: int, last: int) -> list[LinkHealth]:
    """Look every second, send what is due, and return what the link was."""
    seen = []
    for second in range(first, last + 1):
        now_s = START_S + second
        monitor.check(now_s, 0.0)
        if monitor.probe_due(now_s):
            monitor.probe_sent(now_s)
        seen.append(monitor.link(now_s))
    return seen


def test_no_probe_is_due_while_one_may_be_answered_yet() -> None:
    monitor = HeartbeatMonitor(HeartbeatConfig(interval_s=2.0, timeout_s=5.0))
    monitor.connected(START_S)
    assert [second for second in range(20) if _probed(monitor, START_S + second)] == [2, 7, 9, 11, 13, 15, 17, 19]


def _probed(monitor: HeartbeatMonitor, now_s: float) -> bool:
    is_due = monitor.probe_due(now_s)
    if is_due:
        monitor.probe_sent(now_s)
    return is_due


def test_a_link_is_lost_when_nothing_at_all_comes() -> None:
    monitor = connected()
    monitor.bytes_received(START_S + 4)
    assert watch_link(monitor, 4, 30) == [ALIVE] * 8 + [SLOW] * 3 + [SUSPECT] * 4 + [LOST] * 12


def test_bytes_without_an_answer_are_suspect_and_never_lost() -> None:
    monitor = connected()
    for second in range(300):
        now_s = START_S + second
        monitor.bytes_received(now_s)
        assert watch_link(monitor, second, second) == [ALIVE if second < 12 else SLOW if second < 15 else SUSPECT]
    monitor.probe_answered(START_S + 300)
    assert monitor.link(START_S + 300) is SLOW


def test_silence_without_a_question_proves_nothing() -> None:
    monitor = connected()
    assert all(monitor.link(START_S + second) is ALIVE for second in range(100))


def test_without_a_connection_the_link_is_lost_and_nothing_is_due() -> None:
    monitor = HeartbeatMonitor(HeartbeatConfig())
    assert monitor.link(START_S) is LOST
    assert not monitor.probe_due(START_S)
    assert monitor.next_s(START_S) == math.inf
    monitor.connected(START_S)
    monitor.probe_sent(START_S + 10)
    monitor.disconnected(START_S + 11)
    assert monitor.link(START_S + 11) is LOST
    monitor.connected(START_S + 60)
    assert monitor.link(START_S + 66) is ALIVE
    assert monitor.probe_answered(START_S + 67) is None


def test_a_probe_that_was_lost_is_repeated_and_gives_no_round_trip() -> None:
    monitor = connected()
    assert watch_link(monitor, 0, 10) == [ALIVE] * 11
    monitor.bytes_received(START_S + 10.5)
    for second in (12, 14, 14.9, 17, 19.9):
        assert not monitor.probe_due(START_S + second)
    assert monitor.probe_due(START_S + 20)
    monitor.probe_sent(START_S + 20)
    assert monitor.link(START_S + 20) is SUSPECT
    assert monitor.probe_answered(START_S + 20.1) is None
    assert monitor.link(START_S + 20.1) is SLOW
    assert monitor.probe_answered(START_S + 20.2) is None
    assert monitor.link(START_S + 20.2) is ALIVE, "the last answer is that of the last probe"
    assert monitor.rtt == RttStatistics()


@pytest.mark.parametrize("blocked_at", [5, 10, 12])
def test_a_blocked_loop_is_not_taken_for_a_dead_link(blocked_at: int) -> None:
    """Before a probe, with one just sent, with one that has been out for a while."""
    monitor = connected()
    watch_link(monitor, 0, blocked_at)
    first = SLOW if blocked_at == 12 else ALIVE
    assert watch_link(monitor, 70, 80) == [first] * 2 + [SLOW] * 3 + [LOST] * 6


def test_after_a_blocked_loop_the_link_may_prove_itself() -> None:
    monitor = connected()
    watch_link(monitor, 0, 10)
    assert monitor.link(START_S + 70) is ALIVE
    assert monitor.probe_answered(START_S + 70.1) is None, "what it took is not the link's doing"
    assert monitor.rtt.count == 0
    assert watch_link(monitor, 71, 85) == [ALIVE] * 2 + [SLOW] * 3 + [SUSPECT] * 10


def test_whoever_looks_rarely_finds_a_dead_link_all_the_same() -> None:
    monitor = connected()
    now_s = START_S
    while monitor.link(now_s) is not LOST:
        now_s += 7.0
        monitor.check(now_s, 0.0)
        if monitor.probe_due(now_s):
            monitor.probe_sent(now_s)
        assert now_s < START_S + 60
    busy = connected()
    for look in range(1, 40):
        now_s = START_S + look * 7.0
        busy.bytes_received(now_s)
        if busy.probe_due(now_s):
            busy.probe_sent(now_s)
    assert busy.link(now_s) is SUSPECT


def answer_after(monitor: HeartbeatMonitor, asked_s: float, rtt_s: float, *, ahead_s: float = 0.0) -> LinkHealth:
    """Send a probe, look until its answer comes, and return what the link is then; the gateway's clock is ahead."""
    monitor.check(asked_s, 0.0)
    monitor.probe_sent(asked_s)
    for tenth in range(1, int(rtt_s * 10) + 1):
        monitor.check(asked_s + tenth / 10, 0.0)
    monitor.probe_answered(asked_s + rtt_s, asked_s + rtt_s / 2 + ahead_s)
    return monitor.link(asked_s + rtt_s)


def test_a_link_that_answers_late_is_slow_until_it_answers_promptly() -> None:
    monitor = connected()
    asked_s = [START_S + 10.0 * n for n in range(1, 9)]
    round_trips = [0.05, 1.9, 2.1, 4.0, 0.3, 0.05, 0.05]
    expected = [ALIVE, ALIVE, SLOW, SLOW, ALIVE, ALIVE, ALIVE]
    assert [answer_after(monitor, *probe) for probe in zip(asked_s, round_trips, strict=False)] == expected
    assert monitor.lateness_s == 4.0


def test_a_link_is_slow_by_what_is_usual_but_not_by_one_hiccup() -> None:
    monitor = connected()
    asked_s = [START_S + 10.0 * n for n in range(1, 9)]
    round_trips = [0.02, 0.02, 0.02, 0.7, 0.02, 0.7, 0.8, 0.02]
    expected = [ALIVE] * 6 + [SLOW, ALIVE]
    assert [answer_after(monitor, *probe) for probe in zip(asked_s, round_trips, strict=True)] == expected
    far = connected()
    assert {answer_after(far, at_s, 0.7) for at_s in asked_s} == {ALIVE}


def test_a_question_without_an_answer_does_not_leave_a_link_slow() -> None:
    """IB drops a question that follows another one too soon; the answers to later ones show that all is well."""
    monitor = connected()
    assert answer_after(monitor, START_S + 10, 0.05, ahead_s=-3600.0) is ALIVE
    monitor.probe_sent(START_S + 20)
    for second in range(20, 30):
        monitor.bytes_received(START_S + second)
        seen = watch_link(monitor, second, second)
    assert seen == [SUSPECT]
    assert answer_after(monitor, START_S + 30, 0.05, ahead_s=-3600.0) is ALIVE
    assert answer_after(monitor, START_S + 40, 2.5, ahead_s=-3600.0) is SLOW


@pytest.mark.parametrize("by_s", [-172_800.0, -3.0, -2.0, 2.0, 172_800.0])
def test_a_gateway_whose_clock_is_set_is_slow_for_a_minute_at_most(by_s: float) -> None:
    """One question has no answer, and the clock is set meanwhile: later answers show that all is well."""
    monitor = connected()
    for second in (10, 20, 30):
        assert answer_after(monitor, START_S + second, 0.05) is ALIVE
    monitor.probe_sent(START_S + 40)
    for second in range(40, 50):
        monitor.bytes_received(START_S + second)
        watch_link(monitor, second, second)
    for second in (50, 60, 70, 80, 90):
        health = answer_after(monitor, START_S + second, 0.05, ahead_s=by_s)
    assert health is ALIVE


def test_answers_to_earlier_questions_are_no_round_trip_of_the_newest() -> None:
    """Every answer takes 17 s, so that one comes soon after each question: the link is slow all the time."""
    monitor = connected()
    health = set()
    for tenth in range(3000):
        now_s = START_S + tenth / 10
        monitor.bytes_received(now_s)
        if tenth % 100 == 0:
            monitor.probe_sent(now_s)
        if tenth % 100 == 70 and tenth > 170:
            monitor.probe_answered(now_s, now_s - 17.0)
        monitor.check(now_s, 0.0)
        health.add(monitor.link(now_s))
        if tenth == 19:
            assert health == {ALIVE}
            health.clear()
    assert health == {SLOW, SUSPECT}


@pytest.mark.parametrize("offset_s", [0.0, 900.0, -3600.0])
def test_data_that_ages_makes_a_link_slow(offset_s: float) -> None:
    """The exchange's clock differs from ours, or the data is delayed: the least age is the measure."""
    monitor = connected()

    def trade_each_second(first: int, last: int, late_s: float) -> LinkHealth:
        for second in range(first, last):
            monitor.check(START_S + second, 0.0)
            monitor.dated("AAPL", float(int(START_S + second - late_s)) - offset_s, START_S + second)
        return monitor.link(START_S + last)

    assert trade_each_second(0, 100, 0.3) is ALIVE
    assert trade_each_second(100, 103, 2.5) is ALIVE, "a tape may be late for a moment"
    assert trade_each_second(103, 120, 7.5) is SLOW
    assert 6.9 <= monitor.lateness_s <= 8.0
    monitor.dated("AAPL", START_S + 30 - offset_s, START_S + 120)
    assert monitor.link(START_S + 120) is SLOW, "a time that is not newer proves nothing"
    assert trade_each_second(121, 130, 0.3) is ALIVE
    assert trade_each_second(130, 150, 9.0) is SLOW
    monitor.check(START_S + 200, 0.0)
    assert monitor.link(START_S + 200) is ALIVE, "there is no data any more, and nothing else is late"


def test_one_stream_that_is_late_is_no_slow_link() -> None:
    monitor = connected()
    for second in range(100):
        now_s = START_S + second
        monitor.check(now_s, 0.0)
        monitor.dated("AAPL", now_s - 0.2, now_s)
        monitor.dated("MSFT", now_s - (0.2 if second < 50 else 20.0), now_s)
        assert monitor.link(now_s) is ALIVE


def test_a_blocked_loop_is_not_taken_for_a_slow_link() -> None:
    monitor = connected()
    for second in range(60):
        now_s = START_S + second
        monitor.check(now_s, 0.0)
        monitor.dated("AAPL", now_s - 0.2, now_s)
    monitor.probe_sent(now_s)
    monitor.dated("AAPL", now_s + 1, now_s + 30)
    monitor.probe_answered(now_s + 30, now_s)
    monitor.dated("AAPL", now_s + 2, now_s + 30)
    assert monitor.link(now_s + 30) is ALIVE
    monitor.dated("AAPL", now_s + 30.8, now_s + 31)
    assert monitor.link(now_s + 31) is ALIVE


def test_round_trips() -> None:
    monitor = connected()
    assert monitor.rtt == RttStatistics()
    for n in range(300):
        sent_s = START_S + n
        monitor.probe_sent(sent_s)
        monitor.probe_answered(sent_s + (1 + n) / 1024)
    rtt = monitor.rtt
    newest = [(1 + n) / 1024 for n in range(44, 300)]
    assert (rtt.count, rtt.last_s, rtt.min_s) == (300, newest[-1], newest[0])
    assert rtt.mean_s == pytest.approx(sum(newest) / 256)
    assert (rtt.p50_s, rtt.p99_s) == (newest[127], newest[253])
    assert rtt.jitter_s == pytest.approx(1 / 1024)


def test_one_round_trip_has_no_jitter() -> None:
    monitor = connected()
    monitor.probe_sent(START_S)
    monitor.probe_answered(START_S + 0.5)
    rtt = monitor.rtt
    assert (rtt.count, rtt.p50_s, rtt.p99_s, rtt.min_s) == (1, 0.5, 0.5, 0.5)
    assert math.isnan(rtt.jitter_s)


def test_when_to_look_again() -> None:
    monitor = connected()
    assert monitor.next_s(START_S) == START_S + CHECK_S
    monitor.check(START_S + 9.5, 0.0)
    assert monitor.next_s(START_S + 9.5) == START_S + 10, "the probe"
    monitor.probe_sent(START_S + 10)
    assert monitor.next_s(START_S + 10) == START_S + 10.5
    assert monitor.next_s(START_S + 13) == START_S + 13


# --- the streams ---


def test_a_stream_is_quiet_until_its_first_data() -> None:
    stream = Stream()
    assert stream.state is QUIET
    assert stream.told() == []
    stream.run(3).run(1, 5)
    assert stream.state is LIVE
    assert stream.changes == [Change("AAPL", QUIET, LIVE, 4.0)]


def test_a_stream_that_never_has_data() -> None:
    stream = Stream()
    assert (stream.until(STALE), stream.until(DEAD)) == (15, 15)
    assert stream.told() == [(QUIET, STALE), (STALE, DEAD)]
    assert stream.run(1_000).told() == []
    assert Stream(expected_s=60).until(STALE) == 180


def test_a_fast_stream_that_stops_goes_through_all_states_at_their_least_bounds() -> None:
    stream = Stream().run(300, 50)
    assert stream.cadence_s < 0.2
    assert stream.told() == [(QUIET, LIVE)]
    assert (stream.until(QUIET), stream.until(STALE), stream.until(DEAD)) == (2, 8, 20)
    assert [change.silent_s for change in stream.changes] == [2, 10, 30]
    stream.told()
    stream.run(1, 1)
    assert stream.changes == [Change("AAPL", DEAD, LIVE, 31.0)]


def test_a_slow_stream_has_its_own_cadence() -> None:
    stream = Stream().run(1, 6).run(59).run(1, 6)
    stream.told()
    for minute in range(60):
        stream.run(57 + minute % 4).run(1, 6)  # six messages a minute, all at once, a little early or late
    assert stream.told() == []
    assert 9 <= stream.cadence_s <= 10
    silences = [stream.until(state) for state in (QUIET, STALE, DEAD)]
    assert silences == pytest.approx([factor * stream.cadence_s for factor in (10, 10, 20)], abs=1)


def test_a_burst_after_a_quiet_time_does_not_make_a_stream_impatient() -> None:
    stream = Stream()
    for _ in range(40):
        stream.run(29).run(1, 1)
    calm_s = stream.cadence_s
    stream.run(5, 1_000)
    assert stream.cadence_s > calm_s / 2
    assert stream.run(30).state is LIVE
    stream.run(300, 1_000)
    assert stream.cadence_s < 0.3, "but it learns"


def test_looks_that_follow_each_other_faster_teach_no_faster() -> None:
    slow, fast = Cadence(5.0), Cadence(5.0)
    for _ in range(60):
        slow.learn(1.0, 100)
        for _ in range(10):
            fast.learn(0.1, 10)
    assert slow.mean_s == pytest.approx(fast.mean_s, rel=0.2)


def test_a_fast_stream_is_known_within_seconds() -> None:
    stream = Stream().run(20, 50)
    assert stream.until(DEAD) == 30


def test_a_single_gap_is_forgotten() -> None:
    stream = Stream().run(200, 20)
    stream.run(25).run(1, 20)
    assert stream.cadence_s == pytest.approx(3.9)
    assert stream.run(300, 20).cadence_s < 0.2


def test_a_closed_market_excuses_silence_and_the_clock_restarts_at_its_opening() -> None:
    closes_s, opens_s = START_S + 100, START_S + 20_000
    stream = Stream(TradingHours((0.0, closes_s, opens_s), (True, False, True))).run(99, 50)
    cadence_s = stream.cadence_s
    stream.told()
    stream.run(opens_s - stream.now_s - 1)
    assert stream.told() == [(LIVE, QUIET)]
    assert stream.run(9).told() == []
    assert stream.until(STALE) == pytest.approx(10 - 9 + 40 * cadence_s, abs=10)
    stream.run(1, 50)
    assert stream.cadence_s == pytest.approx(cadence_s, rel=0.1), "the night teaches nothing"


def test_a_stream_in_a_closed_market_is_quiet_until_its_data() -> None:
    stream = Stream(TradingHours((0.0,), (False,)))
    assert stream.run(1_000).told() == []
    assert stream.state is QUIET
    assert stream.run(1, 1).told() == [(QUIET, LIVE)]
    assert stream.run(1_000).told() == [(LIVE, QUIET)]


def test_the_closing_ends_verdicts() -> None:
    stream = Stream(TradingHours((0.0, START_S + 340), (True, False))).run(300, 50)
    stream.until(DEAD)
    stream.told()
    assert stream.run(50).told() == [(DEAD, QUIET)]
    assert stream.run(1, 1).told() == [(QUIET, LIVE)]


@pytest.mark.parametrize("hours", [None, TradingHours(), TradingHours((0.0, START_S - 1), (True, None))])
def test_unknown_hours_quadruple_the_limits(hours: TradingHours | None) -> None:
    stream = Stream(hours).run(300, 50)
    assert (stream.until(QUIET), stream.until(STALE), stream.until(DEAD)) == (8, 32, 80)
    assert Stream(hours).until(STALE) == 60


def test_suspended_streams_are_not_judged() -> None:
    stream = Stream().run(300, 50)
    stream.until(DEAD)
    stream.told()
    stream.monitor.suspend("AAPL")
    assert stream.run(1_000).told() == []
    stream.monitor.resume("AAPL")
    assert stream.run(1).told() == [(DEAD, QUIET)], "a new chance, and a new verdict"
    assert stream.until(STALE) == 10
    stream.run(1, 50)
    stream.monitor.suspend("AAPL")
    stream.told()
    cadence_s = stream.cadence_s
    stream.run(1_000)
    assert stream.state is LIVE
    stream.run(1, 50)
    stream.monitor.resume("AAPL")
    assert stream.run(5, 50).told() == []
    assert stream.cadence_s <= cadence_s, "the pause teaches nothing"


def test_data_makes_a_suspended_stream_live() -> None:
    stream = Stream()
    stream.monitor.suspend("AAPL")
    assert stream.run(1, 1).told() == [(QUIET, LIVE)]


def test_no_stream_is_judged_without_a_connection() -> None:
    stream = Stream().run(300, 50)
    stream.told()
    stream.monitor.disconnected(stream.now_s)
    assert stream.run(1_000).told() == []
    stream.monitor.connected(stream.now_s)
    assert (stream.until(QUIET), stream.until(STALE)) == (3, 8)


def test_a_renewed_stream_has_to_prove_itself_with_what_it_has_learned() -> None:
    stream = Stream().run(300, 50)
    cadence_s = stream.cadence_s
    stream.told()
    stream.renew()
    assert stream.run(1).told() == [(LIVE, QUIET)]
    assert stream.run(1, 1).told() == [(QUIET, LIVE)]
    assert stream.cadence_s == cadence_s
    stream.renew()
    assert stream.run(1).until(STALE) == 15


def test_an_idle_stream_is_renewed_ever_more_rarely() -> None:
    stream = Stream()
    pauses = []
    for _ in range(4):
        stream.run(1, 20)  # the snapshot that opens it, and nothing more
        pauses.append(stream.until(DEAD))
        stream.renew()
    assert pauses[0] == 200
    assert all(1.4 < after / before < 1.6 for before, after in pairwise(pauses))


def test_a_fast_stream_that_was_renewed_is_soon_watched_closely_again() -> None:
    stream = Stream().run(300, 50)
    stream.until(DEAD)
    stream.renew()
    stream.run(120, 50)
    assert stream.until(DEAD) == 30


def test_fewer_messages_than_before_are_another_requests() -> None:
    stream = Stream().run(300, 50)
    stream.until(DEAD)
    cadence_s = stream.cadence_s
    stream.messages = 3
    assert stream.run(1).state is LIVE
    assert stream.cadence_s == cadence_s


def test_a_blocked_loop_is_not_taken_for_a_silent_stream() -> None:
    stream = Stream().run(300, 50)
    cadence_s = stream.cadence_s
    stream.told()
    stream.now_s += 120
    stream.monitor.check(stream.now_s, stream.now_s)  # before the loop comes to read the socket
    stream.run(1, 6_000)
    assert stream.told() == []
    assert stream.cadence_s == cadence_s
    stream.now_s += 120
    stream.look()
    assert stream.state is LIVE
    assert stream.until(DEAD) == 30


def test_whoever_looks_rarely_finds_a_dead_stream_all_the_same() -> None:
    stream = Stream().run(300, 50)
    silent_from_s = stream.now_s
    while stream.state is not DEAD:
        stream.now_s += 7.0
        stream.look()
        assert stream.now_s < silent_from_s + 60


def test_streams_by_state_and_forgotten_ones() -> None:
    monitor = connected()
    for key in range(3):
        monitor.watch(key, OPEN)
    monitor.data(0, 1, START_S + 1)
    assert monitor.check(START_S + 1, 0.0) == [Change(0, QUIET, LIVE, 0.0)]
    assert monitor.states() == {LIVE: 1, QUIET: 2, STALE: 0, DEAD: 0}
    monitor.forget(0)
    monitor.forget(0)
    assert monitor.states()[LIVE] == 0
    for use in (monitor.state, monitor.cadence_s, monitor.suspend, monitor.resume):
        with pytest.raises(KeyError):
            use(0)
    with pytest.raises(KeyError):
        monitor.data(0, 2, START_S + 2)


# --- properties ---

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.floats(0.05, 60), st.sampled_from([None, OPEN]))
def test_a_stream_that_keeps_within_three_cadences_is_never_stale(
    seed: int, first_gap_s: float, hours: TradingHours | None
) -> None:
    rng = random.Random(seed)
    stream = Stream(hours, expected_s=first_gap_s)
    stream.run(1, 1)
    for _ in range(40):
        gap_s = rng.uniform(0, 3 * stream.cadence_s)
        due_s = stream.now_s + gap_s
        while stream.now_s + 1 < due_s:
            stream.run(1)
        stream.now_s = due_s
        stream.messages += rng.choice((1, 1, 2, 5, 300))
        stream.look()
    assert stream.told() == [(QUIET, LIVE)]


@given(SEEDS, st.integers(0, 200), st.floats(0.2, 20))
def test_a_stream_that_stops_is_dead_within_the_bound(seed: int, arrivals: int, mean_s: float) -> None:
    rng = random.Random(seed)
    stream = Stream()
    for _ in range(arrivals):
        stream.run(rng.expovariate(1 / mean_s)).run(1, rng.choice((1, 2, 50)))
    bound_s = max(30.0, 120 * stream.cadence_s)
    assert stream.until(DEAD, at_most_s=bound_s + CHECK_S) >= 30 - CHECK_S


@given(SEEDS)
def test_clocks_that_jump_are_harmless(seed: int) -> None:
    """The monotonic clock backwards, against its contract; the wall clock anywhere, over openings and closings."""
    rng = random.Random(seed)
    hours = TradingHours(tuple(float(n) for n in range(0, 9_000, 1_000)), (True, False, None) * 3)
    stream = Stream(hours)
    for _ in range(100):
        stream.wall_offset_s = rng.uniform(-1e4, 1e4)
        stream.run(1, 20)
        back_s = stream.now_s - rng.uniform(0, 500)
        stream.monitor.bytes_received(back_s)
        stream.monitor.data("AAPL", stream.messages + 1, back_s)
        assert stream.monitor.check(back_s, rng.uniform(-1e12, 1e12)) == []
        assert stream.monitor.link(back_s) is ALIVE
        assert stream.monitor.next_s(back_s) >= stream.now_s
    assert stream.told() == [(QUIET, LIVE)]
    stream.wall_offset_s = 0.0
    stream.monitor.watch("AAPL", OPEN)
    assert stream.until(DEAD) == pytest.approx(30, abs=1)


# --- settings ---


def test_an_expected_cadence_out_of_range() -> None:
    with pytest.raises(ConfigError, match="expected_s="):
        connected().watch("AAPL", expected_s=0.0)
