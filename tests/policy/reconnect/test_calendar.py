"""Planned outages: the calendar against a clock on the wall that is read minute by minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ibfast.config.checks import WEEKDAYS
from ibfast.config.sections import ReconnectionConfig
from ibfast.errors import ConfigError
from ibfast.policy.reconnect.calendar import EASTERN, MaintenanceCalendar, MaintenanceWindow, WindowKind

NEW_YORK = ZoneInfo("America/New_York")
MINUTE_S = 60
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 8 * DAY_MINUTES

SPRING = datetime(2025, 3, 7, tzinfo=UTC)
"""Two days before the clocks of New York skip 02:00 to 03:00 (2025-03-09 07:00 UTC)."""
AUTUMN = datetime(2025, 10, 31, tzinfo=UTC)
"""Two days before they show 01:00 to 02:00 twice (2025-11-02 06:00 UTC)."""


def wall_s(zone: ZoneInfo, *fields: int, fold: int = 0) -> float:
    return datetime(*fields, tzinfo=zone, fold=fold).timestamp()


def utc_s(*fields: int) -> float:
    return datetime(*fields, tzinfo=UTC).timestamp()


def calendar_of(**settings: Any) -> MaintenanceCalendar:
    return MaintenanceCalendar.of(ReconnectionConfig(**settings))


def covers(calendar: MaintenanceCalendar, start_s: float, end_s: float) -> bool:
    """Whether outages are planned from start to end, and neither directly before nor after."""
    inside = [calendar.window_at(at_s) for at_s in (start_s, (start_s + end_s) / 2, end_s - 0.001)]
    return None not in inside and calendar.window_at(start_s - 0.001) is calendar.window_at(end_s) is None


def test_without_settings_every_outage_is_real() -> None:
    assert calendar_of().windows == MaintenanceCalendar().windows == ()
    assert MaintenanceCalendar().window_at(0.0) is None


def test_a_daily_restart_crosses_midnight() -> None:
    calendar = calendar_of(daily_restart="23:55", restart_minutes=10)
    start_s, end_s = wall_s(NEW_YORK, 2025, 1, 7, 23, 55), wall_s(NEW_YORK, 2025, 1, 8, 0, 5)
    assert covers(calendar, start_s, end_s)
    assert covers(calendar, start_s + 24 * 3600, end_s + 24 * 3600)
    window = calendar.window_at(start_s)
    assert window is not None
    assert window.kind is WindowKind.RESTART


def test_the_weekly_login_is_in_eastern_time_wherever_the_gateway_runs() -> None:
    calendar = calendar_of(weekly_login="SUN 01:00", login_minutes=30, zone="Asia/Tokyo")
    sunday_s = utc_s(2025, 1, 5, 6, 0)
    window = calendar.window_at(sunday_s)
    assert window is not None
    assert (window.kind, window.weekday) == (WindowKind.LOGIN, "SUN")
    assert covers(calendar, sunday_s, sunday_s + 1800)
    assert covers(calendar, sunday_s + 7 * 24 * 3600, sunday_s + 7 * 24 * 3600 + 1800)
    assert calendar.window_at(sunday_s - 24 * 3600) is None


def test_the_daily_restart_is_in_the_zone_of_the_gateway() -> None:
    calendar = calendar_of(daily_restart="23:45", zone="Europe/Berlin")
    assert covers(calendar, utc_s(2025, 7, 1, 21, 45), utc_s(2025, 7, 1, 21, 55))
    assert covers(calendar, utc_s(2025, 1, 1, 22, 45), utc_s(2025, 1, 1, 22, 55))


def test_a_login_counts_before_a_restart() -> None:
    calendar = calendar_of(weekly_login="SUN 01:00", login_minutes=30, daily_restart="01:10", restart_minutes=60)
    kinds = {
        (hour, minute): window.kind if (window := calendar.window_at(wall_s(NEW_YORK, 2025, 1, 5, hour, minute))) else 0
        for hour, minute in ((0, 59), (1, 0), (1, 29), (1, 30), (2, 9), (2, 10))
    }
    assert list(kinds.values()) == [
        0, WindowKind.LOGIN, WindowKind.LOGIN, WindowKind.RESTART, WindowKind.RESTART, 0,
    ]  # fmt: skip


def test_a_time_that_is_skipped_in_spring_comes_after_the_change() -> None:
    calendar = calendar_of(daily_restart="02:30")
    assert covers(calendar, utc_s(2025, 3, 9, 7, 30), utc_s(2025, 3, 9, 7, 40)), "03:30 daylight time"
    assert covers(calendar, utc_s(2025, 3, 10, 6, 30), utc_s(2025, 3, 10, 6, 40))


def test_a_time_that_is_shown_twice_in_autumn_begins_a_window_twice() -> None:
    calendar = calendar_of(weekly_login="SUN 01:00", login_minutes=30)
    first_s, second_s = utc_s(2025, 11, 2, 5, 0), utc_s(2025, 11, 2, 6, 0)
    assert covers(calendar, first_s, first_s + 1800)
    assert covers(calendar, second_s, second_s + 1800)


@pytest.mark.parametrize("sunday", [(2025, 3, 9), (2025, 11, 2)])
def test_minutes_are_elapsed_time_over_a_change_of_the_clocks(sunday: tuple[int, ...]) -> None:
    calendar = MaintenanceCalendar((MaintenanceWindow("SUN", "00:30", 180, WindowKind.RESTART, EASTERN),))
    start_s = wall_s(NEW_YORK, *sunday, 0, 30)
    assert covers(calendar, start_s, start_s + 180 * MINUTE_S)


def test_a_window_of_a_whole_day_is_open_until_the_same_time_after_a_short_one() -> None:
    calendar = MaintenanceCalendar((MaintenanceWindow("SAT", "23:30", 24 * 60, WindowKind.RESTART, EASTERN),))
    start_s = wall_s(NEW_YORK, 2025, 3, 8, 23, 30)
    last_s = start_s + 24 * 3600 - 1
    assert datetime.fromtimestamp(last_s, NEW_YORK).weekday() == WEEKDAYS.index("MON"), "two dates later"
    assert calendar.window_at(last_s) is not None
    assert calendar.window_at(last_s + 1) is None


def begins(window: MaintenanceWindow, minutes: range) -> Iterator[int]:
    """The minutes since the epoch at which a clock on the wall shows the start, or jumps over it."""
    zone = ZoneInfo(window.zone)
    hour, minute = map(int, window.start.split(":"))
    for number in minutes:
        moment = datetime.fromtimestamp(number * MINUTE_S, UTC)
        shown = moment.astimezone(zone).replace(tzinfo=None)
        offset = shown - moment.replace(tzinfo=None)
        an_hour_ago = moment - timedelta(hours=1)
        old_offset = an_hour_ago.astimezone(zone).replace(tzinfo=None) - an_hour_ago.replace(tzinfo=None)
        unchanged = shown - offset + old_offset
        if offset > old_offset and (unchanged.hour, unchanged.minute) == (hour, minute):
            shown = unchanged  # skipped: the clocks would have shown it now
        if (shown.hour, shown.minute) == (hour, minute) and window.weekday in (None, WEEKDAYS[shown.weekday()]):
            yield number


starts = st.one_of(
    st.sampled_from(["00:00", "00:59", "01:00", "01:30", "01:59", "02:00", "02:30", "02:59", "03:00", "23:59"]),
    st.times().map(lambda at: at.strftime("%H:%M")),
)
windows = st.builds(
    MaintenanceWindow,
    st.sampled_from([None, *WEEKDAYS]),
    starts,
    st.one_of(st.integers(1, 200), st.just(24 * 60)),
    st.sampled_from(WindowKind),
    st.sampled_from(["America/New_York", "Europe/Berlin", "Asia/Hong_Kong"]),
)


@settings(max_examples=6)
@given(st.sampled_from([SPRING, AUTUMN]), st.lists(windows, min_size=1, max_size=3, unique=True))
@example(SPRING, [MaintenanceWindow("SUN", "02:30", 30, WindowKind.RESTART, EASTERN)])
@example(
    AUTUMN,
    [
        MaintenanceWindow("SUN", "01:30", 45, WindowKind.RESTART, EASTERN),
        MaintenanceWindow("SUN", "00:15", 90, WindowKind.LOGIN, EASTERN),
    ],
)
def test_a_week_with_a_change_of_the_clocks_is_as_on_the_wall(first: datetime, named: list[MaintenanceWindow]) -> None:
    calendar = MaintenanceCalendar(tuple(named))
    first_minute = int(first.timestamp()) // MINUTE_S
    week = range(first_minute, first_minute + WEEK_MINUTES)
    around = range(week.start - 2 * DAY_MINUTES, week.stop + 8 * DAY_MINUTES)
    spans = sorted((start, start + window.minutes, window.kind) for window in named for start in begins(window, around))
    edges = {edge + offset for start, end, _ in spans for edge in (start, end) for offset in (-1, 0, 1)}
    for minute in sorted({minute for minute in edges if minute in week}.union(week[::17])):
        here_s = minute * MINUTE_S
        current = calendar.window_at(here_s)
        assert (current and current.kind) == max(
            (kind for start, end, kind in spans if start <= minute < end), default=None
        )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sun", "00:15", 90, WindowKind.LOGIN, EASTERN), "weekday"),
        ((6, "00:15", 90, WindowKind.LOGIN, EASTERN), "weekday"),
        (("SUN", "0:15", 90, WindowKind.LOGIN, EASTERN), "start"),
        (("SUN", "00:15", 0, WindowKind.LOGIN, EASTERN), "minutes"),
        (("SUN", "00:15", 90, "LOGIN", EASTERN), "kind"),
        (("SUN", "00:15", 90, WindowKind.LOGIN, "Mars/Olympus"), "zone"),
    ],
)
def test_a_window_names_what_is_wrong(arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}="):
        MaintenanceWindow(*arguments)
