"""What may wait for a connection, and when its rate is lowered: in simulated time."""

from __future__ import annotations

import pytest

from ibfast.fanout.backlog import Backlog, BacklogLimits, Pace, Progress, slowed
from ibfast.fanout.encoding.channels import INTERVALS_MS

LIMITS = BacklogLimits(nbytes=100, age_s=1.0, patience_s=10.0, stalled_s=30.0)


def test_a_backlog_is_full_by_its_bytes() -> None:
    backlog = Backlog(LIMITS)
    assert not backlog
    backlog.keep(b"x" * 100, 0.0)
    assert not backlog.is_full(0.0)
    backlog.keep(b"y", 0.0)
    assert backlog.is_full(0.0)
    assert backlog.take() == b"x" * 100 + b"y"
    assert (bool(backlog), backlog.nbytes, backlog.is_full(9.0)) == (False, 0, False)


def test_a_backlog_is_full_by_its_age() -> None:
    backlog = Backlog(LIMITS)
    backlog.keep(b"old", 5.0)
    backlog.keep(b"young", 5.9)
    assert not backlog.is_full(6.0)
    assert backlog.is_full(6.1)
    backlog.take()
    backlog.keep(b"new", 7.0)
    assert not backlog.is_full(8.0)


def test_a_connection_is_stalled_that_takes_nothing() -> None:
    progress = Progress(LIMITS)
    assert not progress.is_stalled(1000, 0.0)
    assert not progress.is_stalled(1000, 29.9)
    assert not progress.is_stalled(999, 30.0)  # it has taken a byte
    assert not progress.is_stalled(5000, 59.9)  # that more waits is no sign of life
    assert progress.is_stalled(5000, 60.0)
    assert not progress.is_stalled(0, 61.0)
    assert not progress.is_stalled(7, 90.0)


def test_a_connection_that_has_taken_everything_is_not_stalled_when_more_waits() -> None:
    progress = Progress(LIMITS)
    assert not progress.is_stalled(1000, 0.0)
    progress.took_all()
    assert not progress.is_stalled(1000, 60.0)
    assert not progress.is_stalled(1000, 89.9)
    assert progress.is_stalled(1000, 90.0)


def test_the_pace_slackens_with_every_third_lag_and_recovers_by_steps() -> None:
    pace = Pace(LIMITS)
    slowed_at = []
    for now_s in range(9):
        pace.fell_behind(float(now_s))
        if pace.caught_up(now_s + 0.5):
            slowed_at.append(now_s)
    assert (slowed_at, pace.steps) == ([2, 5, 8], 3)
    assert not pace.relaxed(37.9)
    assert pace.relaxed(38.0)
    assert not pace.relaxed(38.1)
    assert pace.relaxed(68.0)
    assert pace.steps == 1


def test_rare_lags_do_not_lower_the_rate() -> None:
    pace = Pace(LIMITS)
    for now_s in range(0, 100, 6):
        pace.fell_behind(float(now_s))
        assert not pace.caught_up(now_s + 0.1)
    assert not pace.relaxed(1000.0)


def test_the_pace_has_an_end() -> None:
    pace = Pace(LIMITS)
    for _ in range(100):
        pace.fell_behind(1.0)
        pace.caught_up(1.0)
    assert pace.steps == len(INTERVALS_MS) - 1


@pytest.mark.parametrize(
    ("interval_ms", "steps", "slower"), [(10, 0, 10), (0, 1, 10), (10, 2, 100), (250, 2, 1000), (500, 9, 1000)]
)
def test_slower_intervals(interval_ms: int, steps: int, slower: int) -> None:
    assert slowed(interval_ms, steps) == slower
