"""The maintenance calendar: when an outage is planned.

The rule of the file: only windows that the user names. IB restarts its servers at hours that depend on the region and
have changed over the years, and a window at the wrong hour would hide a real outage. Times of day are those on the
wall of the window's zone, lengths are elapsed time. It knows nothing of connections.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import IntEnum

from ibfast.config.checks import is_whole, require, require_zone
from ibfast.wire.times import zone_of

__all__ = ["MaintenanceCalendar", "Window", "WindowKind"]

EASTERN = "America/New_York"
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
DAY_MINUTES = 24 * 60
MINUTE_S = 60.0

_TIME_REMEDY = 'give a time of day such as "23:45"'
_WEEKDAY_REMEDY = f"give one of {', '.join(WEEKDAYS)}, or None for every day"

REACH_DAYS = 2
"""How far back a window may have begun that is still open: a day of 24 hours may outlast one of 23."""

WEEK_DAYS = 8
"""How far ahead the next window begins at the latest: today's may be over, so the same weekday comes once more."""


class WindowKind(IntEnum):
    """Why an outage is planned; where windows overlap, the higher one counts."""

    RESET = 1
    """IB resets its servers: the gateway stays, its link to IB comes and goes."""
    RESTART = 2
    """TWS or IB Gateway restarts by itself."""
    LOGIN = 3
    """A human has to log in to TWS or IB Gateway before it serves again."""


@dataclass(frozen=True, slots=True)
class Window:
    """A planned outage that comes back every day or every week.

    A time of day that the clocks skip in spring is taken as the moment as long after the change; one that they show
    twice in autumn begins a window both times.

    Attributes:
        weekday: "MON" to "SUN", or None for every day; the day on which it begins.
        start: time of day, "HH:MM".
        minutes: how long it lasts, elapsed time, at most a day. It may last beyond midnight.
        kind: why.
        zone: IANA name of the zone of `weekday` and `start`.

    Raises:
        ConfigError: a field is not possible; says which, and the remedy.
    """

    weekday: str | None
    start: str
    minutes: int
    kind: WindowKind = WindowKind.RESET
    zone: str = EASTERN

    def __post_init__(self) -> None:
        require(self.weekday is None or self.weekday in WEEKDAYS, "weekday", self.weekday, _WEEKDAY_REMEDY)
        require(_is_time_of_day(self.start), "start", self.start, _TIME_REMEDY)
        _require_minutes("minutes", self.minutes)
        require(isinstance(self.kind, WindowKind), "kind", self.kind, "give a WindowKind")
        require_zone("zone", self.zone)

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return self.minutes * MINUTE_S

    def starts_s(self, first_day: date, days: int) -> Iterator[float]:
        """Yield when it begins on each of these days, as epoch seconds, in order."""
        at, zone = time.fromisoformat(self.start), zone_of(self.zone)
        for day in (first_day + timedelta(number) for number in range(days)):
            if self.weekday is not None and day.weekday() != WEEKDAYS.index(self.weekday):
                continue
            begin = datetime.combine(day, at, zone)
            first_s, second_s = begin.timestamp(), begin.replace(fold=1).timestamp()
            yield first_s
            if second_s > first_s:  # the clocks show this time twice; where they skip it, it is the other way round
                yield second_s

    def day_of(self, wall_s: float) -> date:
        """Return the date in its zone."""
        return datetime.fromtimestamp(wall_s, zone_of(self.zone)).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceCalendar:
    """Tells planned outages from real ones. Without arguments it has no windows: every outage is real.

    Attributes:
        daily_restart: time of day at which TWS or IB Gateway restarts itself, "HH:MM" as set there (Lock and Exit).
        restart_minutes: how long to expect that to take.
        weekly_login: "SUN 01:00" where the login lapses once a week, in US Eastern time whatever `zone` is
            (https://ibkrguides.com/traderworkstation/auto-restart-considerations.htm: every Sunday at 1:00 am ET the
            tokens of the automatic restart become invalid, and the next start needs a human). Name the time at which
            your gateway goes away for it.
        login_minutes: how long somebody may take to log in before it is an alarm.
        zone: IANA name of the zone in which `daily_restart` is set, the one TWS runs in.
        windows: more of them, each with its own zone: IB's server resets of your region, say
            (https://www.interactivebrokers.com/en/software/systemStatus.php).

    Raises:
        ConfigError: a setting is not possible; names the field and the remedy.
    """

    daily_restart: str | None = None
    restart_minutes: int = 10
    weekly_login: str | None = None
    login_minutes: int = 30
    zone: str = EASTERN
    windows: tuple[Window, ...] = ()
    _all: tuple[Window, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_zone("zone", self.zone)
        _require_minutes("restart_minutes", self.restart_minutes)
        _require_minutes("login_minutes", self.login_minutes)
        valid = isinstance(self.windows, tuple) and all(isinstance(window, Window) for window in self.windows)
        require(valid, "windows", self.windows, "give a tuple of Window")
        object.__setattr__(self, "_all", (*self._named_windows(), *self.windows))

    def _named_windows(self) -> Iterator[Window]:
        if self.daily_restart is not None:
            require(_is_time_of_day(self.daily_restart), "daily_restart", self.daily_restart, _TIME_REMEDY)
            yield Window(None, self.daily_restart, self.restart_minutes, WindowKind.RESTART, self.zone)
        if self.weekly_login is not None:
            weekday, _, start = str(self.weekly_login).partition(" ")
            valid = weekday in WEEKDAYS and _is_time_of_day(start)
            require(valid, "weekly_login", self.weekly_login, 'give a weekday and a time of day such as "SUN 01:00"')
            yield Window(weekday, start, self.login_minutes, WindowKind.LOGIN)

    def window_at(self, wall_s: float) -> Window | None:
        """Return the window that this moment lies in, or None: an outage now is a real one.

        Where several overlap it is the one of the highest kind, and among these the one that ends last.

        Args:
            wall_s: epoch seconds.
        """
        current = self._current(wall_s)
        return current[0] if current else None

    def ends_s(self, wall_s: float) -> float | None:
        """Return when the window of `window_at` ends, as epoch seconds, or None outside of windows."""
        current = self._current(wall_s)
        return current[1] if current else None

    def next_start_s(self, wall_s: float) -> float | None:
        """Return when the next window begins after this moment, as epoch seconds, or None without windows."""
        starts = (
            start_s
            for window in self._all
            for start_s in window.starts_s(window.day_of(wall_s), WEEK_DAYS)
            if start_s > wall_s
        )
        return min(starts, default=None)

    def _current(self, wall_s: float) -> tuple[Window, float] | None:
        """The window that counts now, and its end."""
        open_now = [
            (window, start_s + window.duration_s)
            for window in self._all
            for start_s in window.starts_s(window.day_of(wall_s) - timedelta(REACH_DAYS), REACH_DAYS + 1)
            if start_s <= wall_s < start_s + window.duration_s
        ]
        return max(open_now, key=lambda found: (found[0].kind, found[1]), default=None)


def _is_time_of_day(value: object) -> bool:
    return isinstance(value, str) and TIME_OF_DAY.fullmatch(value) is not None


def _require_minutes(name: str, value: object) -> None:
    require(is_whole(value) and 1 <= value <= DAY_MINUTES, name, value, f"give minutes, 1 to {DAY_MINUTES}")
