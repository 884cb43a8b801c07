"""When to try again: the clocks are floats, and chance is drawn by the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ibfast.config.sections import ReconnectionConfig
from ibfast.policy.reconnect.calendar import MaintenanceCalendar, MaintenanceWindow, WindowKind
from ibfast.policy.reconnect.reconnection import MIN_DELAY_S, LinkState, Reconnection

NOON_S = datetime(2025, 1, 7, 12, tzinfo=UTC).timestamp()
"""A Tuesday; the clock that does not jump shows 0 then."""

LOGIN_WINDOW = MaintenanceWindow("TUE", "13:00", 30, WindowKind.LOGIN, "UTC")
RESTART = MaintenanceCalendar((MaintenanceWindow(None, "13:00", 10, WindowKind.RESTART, "UTC"),))
LOGIN = MaintenanceCalendar((LOGIN_WINDOW,))
ONE_O_CLOCK_S = 3600.0


class Draw(Random):
    """Chance that always draws the same share of what is possible."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def random(self) -> float:
        return self.share


def up(link: Reconnection, now_s: float) -> None:
    assert link.attempt()
    assert link.connected(now_s)


def fail(link: Reconnection, now_s: float, **why: bool) -> bool:
    assert link.attempt()
    return link.failed(now_s, NOON_S + now_s, **why)


def lose(link: Reconnection, now_s: float) -> bool:
    return link.lost(now_s, NOON_S + now_s)


# --- one attempt at a time ---


def test_the_way_of_a_link() -> None:
    link = Reconnection(ReconnectionConfig(), random=Draw(1.0))
    assert (link.state, link.next_attempt_s(0.0)) == (LinkState.IDLE, None)
    assert link.attempt()
    assert (link.state, link.next_attempt_s(0.0)) == (LinkState.CONNECTING, None)
    assert link.connected(0.0)
    assert (link.state, link.next_attempt_s(0.0)) == (LinkState.CONNECTED, None)
    assert lose(link, 100.0) is False
    assert (link.state, link.attempts, link.next_attempt_s(100.0)) == (LinkState.WAITING, 0, 1.0)
    assert link.next_attempt_s(100.25) == 0.75
    assert link.next_attempt_s(102.0) == 0.0
    link.stop()
    assert (link.state, link.next_attempt_s(102.0)) == (LinkState.IDLE, None)


def test_a_single_attempt_is_under_way() -> None:
    link = Reconnection(ReconnectionConfig())
    assert link.attempt()
    assert not link.attempt()
    assert link.connected(0.0)
    assert not link.attempt()
    lose(link, 1.0)
    assert link.attempt(), "earlier than it is due"


def test_what_is_reported_out_of_turn_changes_nothing() -> None:
    link = Reconnection(ReconnectionConfig(max_attempts=1))
    assert not lose(link, 0.0)
    assert not link.failed(0.0, NOON_S, fatal=True)
    assert not link.connected(0.0)
    assert link.state is LinkState.IDLE
    up(link, 0.0)
    assert not link.failed(0.0, NOON_S)
    assert link.state is LinkState.CONNECTED
    lose(link, 100.0)
    due_s = link.next_attempt_s(100.0)
    lose(link, 100.0)
    assert (link.attempts, link.next_attempt_s(100.0)) == (0, due_s)


def test_an_attempt_that_succeeds_after_the_stop_is_to_hang_up() -> None:
    link = Reconnection(ReconnectionConfig())
    assert link.attempt()
    link.stop()
    assert not link.connected(0.0)
    assert link.state is LinkState.IDLE


# --- backoff ---


def test_delays_double_up_to_the_bound() -> None:
    link = Reconnection(ReconnectionConfig(delay_s=1.0, max_delay_s=60.0), random=Draw(1.0))
    delays = []
    for _ in range(2000):
        fail(link, 0.0)
        delays.append(link.next_attempt_s(0.0))
    assert delays[:7] == [2, 4, 8, 16, 32, 60, 60]
    assert set(delays[7:]) == {60}


def test_chance_draws_from_all_of_the_delay_and_never_nothing() -> None:
    assert [_delay_after_three_failures(share) for share in (0.0, 0.25, 0.5, 1.0)] == [MIN_DELAY_S, 2, 4, 8]
    drawn = [_delay_after_three_failures(Random(seed)) for seed in range(200)]
    assert min(drawn) < 1
    assert 3 < sorted(drawn)[100] < 5
    assert max(drawn) > 7


def _delay_after_three_failures(chance: float | Random) -> float:
    link = Reconnection(ReconnectionConfig(), random=chance if isinstance(chance, Random) else Draw(chance))
    for _ in range(3):
        fail(link, 0.0)
    delay_s = link.next_attempt_s(0.0)
    assert delay_s is not None
    return delay_s


def test_links_do_not_share_their_chance() -> None:
    delays = set()
    for _ in range(20):
        link = Reconnection(ReconnectionConfig())
        fail(link, 0.0)
        delays.add(link.next_attempt_s(0.0))
    assert len(delays) > 10


def test_a_link_that_flaps_is_tried_ever_more_slowly_until_it_was_stable() -> None:
    link = Reconnection(ReconnectionConfig(stable_s=30.0), random=Draw(1.0))
    delays, now_s = [], 0.0
    for _ in range(4):
        up(link, now_s)
        now_s += 29.9
        lose(link, now_s)
        delays.append(link.next_attempt_s(now_s))
    assert delays == [2, 4, 8, 16]
    up(link, now_s)
    lose(link, now_s + 30.0)
    assert (link.next_attempt_s(now_s + 30.0), link.attempts) == (1, 0)


# --- giving up ---


def test_it_gives_up_after_so_many_failures_and_says_so_once() -> None:
    link = Reconnection(ReconnectionConfig(max_attempts=3))
    assert [fail(link, 0.0) for _ in range(3)] == [False, False, True]
    assert (link.state, link.attempts, link.next_attempt_s(0.0)) == (LinkState.GAVE_UP, 3, None)
    assert not link.attempt()
    assert not link.failed(0.0, NOON_S)
    link.stop()
    assert link.state is LinkState.IDLE
    assert fail(link, 0.0) is False, "a new start"


def test_a_link_that_flaps_is_given_up_too() -> None:
    link = Reconnection(ReconnectionConfig(max_attempts=2))
    up(link, 0.0)
    assert lose(link, 1.0) is False
    up(link, 2.0)
    assert lose(link, 3.0) is True
    assert link.state is LinkState.GAVE_UP


def test_the_loss_of_a_stable_link_gives_nothing_up() -> None:
    link = Reconnection(ReconnectionConfig(max_attempts=1))
    for now_s in (0.0, 100.0, 200.0):
        up(link, now_s)
        assert lose(link, now_s + 50.0) is False
    assert link.state is LinkState.WAITING


@pytest.mark.parametrize("now_s", [0.0, ONE_O_CLOCK_S])
def test_what_no_retry_cures_is_given_up_at_once(now_s: float) -> None:
    link = Reconnection(ReconnectionConfig(), calendar=RESTART)
    fail(link, now_s)
    assert fail(link, now_s, fatal=True) is True
    assert link.state is LinkState.GAVE_UP
    assert link.counts_for_breaker


# --- planned outages ---


def test_a_planned_outage_is_polled_slowly_and_counts_for_nothing() -> None:
    link = Reconnection(ReconnectionConfig(max_attempts=2, planned_poll_s=15.0), calendar=RESTART, random=Draw(1.0))
    up(link, 0.0)
    now_s = ONE_O_CLOCK_S + 1
    assert lose(link, now_s) is False
    while now_s < ONE_O_CLOCK_S + 600:
        assert (link.state, link.attempts, link.next_attempt_s(now_s)) == (LinkState.PLANNED, 0, 15.0)
        assert not link.counts_for_breaker
        now_s += 15.0
        assert fail(link, now_s) is False
    assert (link.state, link.attempts) == (LinkState.WAITING, 1), "the window is over"
    assert link.counts_for_breaker
    assert fail(link, now_s) is True


def test_an_outage_becomes_planned_when_a_window_begins() -> None:
    link = Reconnection(ReconnectionConfig(), calendar=RESTART)
    up(link, 0.0)
    lose(link, ONE_O_CLOCK_S - 1)
    assert link.state is LinkState.WAITING
    fail(link, ONE_O_CLOCK_S)
    assert link.state is LinkState.PLANNED
    up(link, ONE_O_CLOCK_S + 60)
    lose(link, ONE_O_CLOCK_S + 7200)
    assert (link.state, link.counts_for_breaker) == (LinkState.WAITING, True)


def test_a_gateway_that_starts_up_in_its_window_needs_no_login() -> None:
    link = Reconnection(ReconnectionConfig(), calendar=RESTART)
    for second in range(0, 600, 15):
        assert fail(link, ONE_O_CLOCK_S + second, needs_login=True) is False
        assert link.state is LinkState.PLANNED
    assert fail(link, ONE_O_CLOCK_S + 600, needs_login=True) is False
    assert link.state is LinkState.WAITING, "the first one that counts"


# --- a human has to log in ---


def test_a_gateway_that_refuses_right_through_the_login_window_needs_a_login() -> None:
    link = Reconnection(ReconnectionConfig(login_poll_s=60.0, max_attempts=1), calendar=LOGIN)
    up(link, 0.0)
    assert lose(link, ONE_O_CLOCK_S) is False
    assert fail(link, ONE_O_CLOCK_S + 1799) is False
    assert link.state is LinkState.PLANNED
    now_s = ONE_O_CLOCK_S + 1800
    assert fail(link, now_s) is True
    assert (link.state, link.next_attempt_s(now_s), link.counts_for_breaker) == (LinkState.NEEDS_LOGIN, 60.0, False)
    assert [fail(link, now_s + 60 * number) for number in range(100)] == [False] * 100, "told once"
    assert (link.state, link.attempts) == (LinkState.NEEDS_LOGIN, 0)
    up(link, now_s + 6000)
    lose(link, now_s + 6001)
    assert link.state is LinkState.GAVE_UP, "the login is there: a loss like any other"


def test_a_link_that_comes_back_in_the_login_window_needs_none() -> None:
    link = Reconnection(ReconnectionConfig(), calendar=LOGIN)
    up(link, 0.0)
    lose(link, ONE_O_CLOCK_S)
    up(link, ONE_O_CLOCK_S + 600)
    lose(link, ONE_O_CLOCK_S + 2000)
    assert link.state is LinkState.WAITING


def test_a_restart_after_the_login_window_is_planned_still() -> None:
    both = MaintenanceCalendar((LOGIN_WINDOW, MaintenanceWindow(None, "13:00", 45, WindowKind.RESTART, "UTC")))
    link = Reconnection(ReconnectionConfig(), calendar=both)
    assert fail(link, ONE_O_CLOCK_S) is False
    assert fail(link, ONE_O_CLOCK_S + 1800) is False
    assert link.state is LinkState.PLANNED
    assert fail(link, ONE_O_CLOCK_S + 2700) is True
    assert link.state is LinkState.NEEDS_LOGIN


def test_sessions_that_never_start_need_a_login_after_a_few() -> None:
    link = Reconnection(ReconnectionConfig())
    assert [fail(link, 0.0, needs_login=True) for _ in range(4)] == [False, False, True, False]
    assert link.state is LinkState.NEEDS_LOGIN
    fail(link, 0.0)
    assert link.state is LinkState.NEEDS_LOGIN, "until the link is up"


def test_other_failures_between_are_no_sign_of_a_missing_login() -> None:
    link = Reconnection(ReconnectionConfig())
    for needs_login in (True, True, False, True, True):
        assert fail(link, 0.0, needs_login=needs_login) is False
    assert (link.state, link.attempts) == (LinkState.WAITING, 5)


def test_a_window_does_not_end_the_need_of_a_login() -> None:
    link = Reconnection(ReconnectionConfig(), calendar=RESTART)
    for _ in range(3):
        fail(link, 0.0, needs_login=True)
    fail(link, ONE_O_CLOCK_S)
    assert link.state is LinkState.NEEDS_LOGIN


# --- anything, in any order ---


class Link(RuleBasedStateMachine):
    """A link through days of failures, losses and windows, reported in and out of turn."""

    MAX_ATTEMPTS = 6
    calendar = MaintenanceCalendar(
        (
            MaintenanceWindow(None, "13:00", 20, WindowKind.RESTART, "UTC"),
            MaintenanceWindow("TUE", "14:00", 30, WindowKind.LOGIN, "UTC"),
        )
    )

    @initialize(delay_s=st.floats(0.01, 10), factor=st.floats(1, 100), share=st.floats(0, 1))
    def make(self, delay_s: float, factor: float, share: float) -> None:
        self.delay_s, self.max_delay_s = delay_s, delay_s * factor
        config = ReconnectionConfig(
            delay_s=delay_s, max_delay_s=self.max_delay_s, max_attempts=self.MAX_ATTEMPTS, stable_s=30.0,
            planned_poll_s=15.0, login_poll_s=60.0,
        )  # fmt: skip
        self.link = Reconnection(config, calendar=self.calendar, random=Draw(share))
        self.now_s = 0.0
        self.open = 0
        """Attempts that have been begun and have not been reported."""
        self.unplanned = 0
        """Failures and losses outside of windows since a link was stable, or since the start."""
        self.connected_s = 0.0
        self.alarms = 0

    @property
    def window(self) -> MaintenanceWindow | None:
        return self.calendar.window_at(NOON_S + self.now_s)

    @rule(seconds=st.one_of(st.floats(0, 100), st.sampled_from([600.0, 1200.0, 1800.0, 3600.0])))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def attempt(self) -> None:
        before = self.link.state
        began = self.link.attempt()
        assert began == (before not in (LinkState.CONNECTING, LinkState.CONNECTED, LinkState.GAVE_UP))
        self.open += began

    @rule()
    def connected(self) -> None:
        assert self.link.connected(self.now_s) == bool(self.open)
        if self.open:
            self.open = 0
            self.connected_s = self.now_s
            self.alarms = 0

    @rule(needs_login=st.booleans())
    def failed(self, needs_login: bool) -> None:
        told = self.link.failed(self.now_s, NOON_S + self.now_s, needs_login=needs_login)
        if not self.open:
            assert not told
            return
        self.open = 0
        self.after_the_end(told, counted=True)

    @precondition(lambda self: self.link.state is LinkState.CONNECTED)
    @rule()
    def lost(self) -> None:
        stable = self.now_s - self.connected_s >= 30.0
        self.unplanned = 0 if stable else self.unplanned
        told = self.link.lost(self.now_s, NOON_S + self.now_s)
        self.after_the_end(told, counted=not stable)

    @precondition(lambda self: self.link.state is not LinkState.CONNECTED)
    @rule()
    def lost_again(self) -> None:
        state = self.link.state
        assert not self.link.lost(self.now_s, NOON_S + self.now_s)
        assert self.link.state is state

    @rule()
    def stop(self) -> None:
        self.link.stop()
        self.open = self.unplanned = self.alarms = 0

    def after_the_end(self, told: bool, *, counted: bool) -> None:
        link = self.link
        self.alarms += told
        assert self.alarms <= 1
        assert told <= (link.state in (LinkState.NEEDS_LOGIN, LinkState.GAVE_UP))
        assert link.counts_for_breaker == (link.state in (LinkState.WAITING, LinkState.GAVE_UP))
        wait_s = link.next_attempt_s(self.now_s)
        if self.window is not None:
            assert link.state in (LinkState.PLANNED, LinkState.NEEDS_LOGIN)
        elif link.state is not LinkState.NEEDS_LOGIN:
            self.unplanned += counted
            assert link.state is (LinkState.GAVE_UP if self.unplanned == self.MAX_ATTEMPTS else LinkState.WAITING)
        if link.state is LinkState.PLANNED:
            assert wait_s == pytest.approx(15.0)
        elif link.state is LinkState.NEEDS_LOGIN:
            assert wait_s == pytest.approx(60.0)
        elif link.state is LinkState.WAITING:
            assert wait_s is not None
            ceiling_s = min(self.max_delay_s, self.delay_s * 2**self.unplanned)
            assert min(MIN_DELAY_S, self.delay_s) - 1e-6 <= wait_s <= ceiling_s + 1e-6
        else:
            assert wait_s is None

    @invariant()
    def sound(self) -> None:
        link = self.link
        assert (link.state is LinkState.CONNECTING) == (self.open == 1)
        assert link.attempts == self.unplanned or link.state is LinkState.CONNECTED
        resting = link.state in (LinkState.WAITING, LinkState.PLANNED, LinkState.NEEDS_LOGIN)
        assert (link.next_attempt_s(self.now_s) is not None) == resting


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.floats(0, 1), st.floats(0.001, 1.0))
def test_no_chance_makes_a_storm(share: float, delay_s: float) -> None:
    link = Reconnection(ReconnectionConfig(delay_s=delay_s, stable_s=0.001), random=Draw(share))
    now_s = 0.0
    for _ in range(100):
        up(link, now_s)
        lose(link, now_s + 0.001)
        wait_s = link.next_attempt_s(now_s + 0.001)
        assert wait_s is not None
        assert wait_s >= min(MIN_DELAY_S, delay_s) * 0.999
        now_s += 0.001 + wait_s


def test_what_this_machine_lacks_counts_for_nothing_and_is_tried_soon() -> None:
    link = Reconnection(ReconnectionConfig(delay_s=1.0, max_delay_s=60.0, max_attempts=2))
    for _ in range(10):
        assert not fail(link, 0.0, is_local=True)
        assert (link.state, link.attempts, link.counts_for_breaker) == (LinkState.WAITING, 0, False)
        pause_s = link.next_attempt_s(0.0)
        assert pause_s is not None
        assert 0.05 <= pause_s <= 1.0
