"""The silence of a stream by its own cadence, as the monitor that watches it reports it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.config.sections import HeartbeatConfig
from ibfast.policy.health.heartbeat import (
    CHECK_S,
    Change,
    HeartbeatMonitor,
    LinkHealth,
    StreamState,
)
from ibfast.policy.health.hours import TradingHours
from ibfast.policy.health.silence import Cadence

LIVE, QUIET, STALE, DEAD = StreamState
OPEN = TradingHours((0.0,), (True,))
START_S = 1_000.0
SEEDS = st.integers(0, 2**32)


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
        assert stream.monitor.link(back_s) is LinkHealth.ALIVE
        assert stream.monitor.next_s(back_s) >= stream.now_s
    assert stream.told() == [(QUIET, LIVE)]
    stream.wall_offset_s = 0.0
    stream.monitor.watch("AAPL", OPEN)
    assert stream.until(DEAD) == pytest.approx(30, abs=1)
