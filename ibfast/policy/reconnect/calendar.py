"""The maintenance calendar: when an outage is planned.

The rule of the file: only windows that the user names. IB restarts its servers at hours that depend on the region and
have changed over the years, and a window at the wrong hour would hide a real outage. Times of day are local to the
window's zone, lengths are elapsed time. It knows nothing of connections.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import IntEnum
from operator import itemgetter
from typing import Self

from ibfast.config.checks import WEEKDAYS, require, require_day_minutes, require_time_of_day, require_zone
from ibfast.config.sections import ReconnectionConfig
from ibfast.wire.times import zone_of

__all__ = ["MaintenanceCalendar", "MaintenanceWindow", "WindowKind"]

EASTERN = "America/New_York"
MINUTE_S = 60.0

_WEEKDAY_REMEDY = f"give one of {', '.join(WEEKDAYS)}, or None for every day"

REACH_DAYS = 2
"""How far back a window may have begun that is still open: a day of 24 hours may outlast one of 23."""


class WindowKind(IntEnum):
    """Why an outage is planned; where windows overlap, the higher one counts."""

    RESTART = 1
    """TWS or IB Gateway restarts by itself."""
    LOGIN = 2
    """A human has to log in to TWS or IB Gateway before it serves again."""


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A planned outage that comes back every day or every week.

    A time of day that the clocks skip in spring begins the window as long after the change; a time that they show twice
    in autumn begins a window both times.

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
    kind: WindowKind
    zone: str

    def __post_init__(self) -> None:
        require(self.weekday is None or self.weekday in WEEKDAYS, "weekday", self.weekday, _WEEKDAY_REMEDY)
        require_time_of_day("start", self.start)
        require_day_minutes("minutes", self.minutes)
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


@dataclass(frozen=True, slots=True)
class MaintenanceCalendar:
    """Distinguishes planned outages from real ones. Without windows every outage is real.

    Attributes:
        windows: the planned outages, each in its own zone.
    """

    windows: tuple[MaintenanceWindow, ...] = ()

    @classmethod
    def of(cls, config: ReconnectionConfig) -> Self:
        """Return the calendar of the outages that the settings name."""
        return cls(tuple(_windows_of(config)))

    def window_at(self, wall_s: float) -> MaintenanceWindow | None:
        """Return the window that this moment lies in, or None: an outage now is a real one.

        Where several overlap it is the one of the highest kind, and among these the one that ends last.

        Args:
            wall_s: epoch seconds.
        """
        open_now = [
            (window.kind, start_s + window.duration_s, window)
            for window in self.windows
            for start_s in window.starts_s(window.day_of(wall_s) - timedelta(REACH_DAYS), REACH_DAYS + 1)
            if start_s <= wall_s < start_s + window.duration_s
        ]
        return max(open_now, key=itemgetter(0, 1))[2] if open_now else None


def _windows_of(config: ReconnectionConfig) -> Iterator[MaintenanceWindow]:
    if config.daily_restart is not None:
        yield MaintenanceWindow(None, config.daily_restart, config.restart_minutes, WindowKind.RESTART, config.zone)
    if config.weekly_login is not None:
        weekday, _, start = config.weekly_login.partition(" ")
        yield MaintenanceWindow(weekday, start, config.login_minutes, WindowKind.LOGIN, EASTERN)
