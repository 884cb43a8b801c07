"""The heartbeat: the link by bytes and probes, each stream by its own cadence, on a clock that is a number."""

from __future__ import annotations

import math

import pytest

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

ALIVE, SLOW, SUSPECT, LOST = LinkHealth
LIVE, QUIET, STALE, DEAD = StreamState
OPEN = TradingHours((0.0,), (True,))
START_S = 1_000.0


def connected() -> HeartbeatMonitor:
    monitor = HeartbeatMonitor(HeartbeatConfig())
    monitor.connected(START_S)
    return monitor


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


# --- settings ---


def test_an_expected_cadence_out_of_range() -> None:
    with pytest.raises(ConfigError, match="expected_s="):
        connected().watch("AAPL", expected_s=0.0)
