"""When an instrument trades, read from the texts that come with its contract details.

The rule of the file: no guess. A time that the text leaves out, that can't be read or that lies outside of its days is
unknown (None). No function raises: a strange text must not end the stream that it describes.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from ibfast.wire.times import zone_of

__all__ = ["TradingHours", "exchange_zone"]

_ENTRY = re.compile(r"([0-9]{8}):(.+)")
_SESSION = re.compile(r"(?:([0-9]{8}):)?([0-9]{2})([0-9]{2})-(?:([0-9]{8}):)?([0-9]{2})([0-9]{2})")
_CLOSED = "CLOSED"
_DAY = timedelta(days=1)
_LAST_MINUTE = 59
_LONGEST_S = 7 * 86_400
"""A session without end would hide every silence or excuse it."""


def exchange_zone(time_zone_id: str) -> tzinfo | None:
    """Return the zone that contract details name, as "US/Eastern" or "EST (Eastern Standard Time)"; None if unknown."""
    try:
        return zone_of(time_zone_id)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Session:
    start: datetime
    end: datetime

    @property
    def is_overnight(self) -> bool:
        return self.end > _midnight(self.start) + _DAY


@dataclass(frozen=True, slots=True)
class TradingHours:
    """The sessions of some days. Without arguments: nothing is known.

    Attributes:
        changes_s: when it becomes open, closed or unknown, UTC seconds, rising.
        states: what it is from then on: True is open, False closed, None unknown. Before the first it is unknown.
    """

    changes_s: tuple[float, ...] = ()
    states: tuple[bool | None, ...] = ()

    @classmethod
    def parse(cls, text: str, zone: str) -> TradingHours:
        """Read `ContractDetails.trading_hours` or `liquid_hours`.

        Known are "20090507:0700-1830,1830-2330;20090508:CLOSED" and "20180323:0400-20180323:2000;…". A session of the
        first form that ends before it starts began the evening before, as a trading day does. A day that is left out
        between two others has no session.

        Args:
            text: sessions by day.
            zone: `ContractDetails.time_zone_id`, in whose clock the text is.

        Returns:
            The hours; all of them unknown if the zone or any part of the text is not understood.
        """
        exchange = exchange_zone(zone)
        if exchange is None:
            return cls()
        try:
            return cls._of(*_read(text, exchange))
        except (ValueError, OverflowError):
            return cls()

    @classmethod
    def _of(cls, sessions: list[_Session], closed_days: list[datetime]) -> TradingHours:
        days = [_midnight(session.end - datetime.resolution) for session in sessions] + closed_days
        if not days:
            return cls()
        # Where sessions begin in the evening, so does a trading day: nothing is known after the last one's evening.
        evening = min((_clock(session.start) for session in sessions if session.is_overnight), default=_DAY)
        open_times = _joined(sessions)
        first_s = min([(min(days) - _DAY + evening).timestamp(), *(start_s for start_s, _ in open_times)])
        last_s = max([(max(days) + evening).timestamp(), *(end_s for _, end_s in open_times)])
        changes: dict[float, bool | None] = {first_s: False}
        for start_s, end_s in open_times:
            changes |= {start_s: True, end_s: False}
        changes[last_s] = None
        return cls(tuple(changes), tuple(changes.values()))

    def is_open(self, wall_s: float) -> bool | None:
        """Return whether there is a session at this time (UTC seconds); None outside of the days that are known."""
        following = bisect_right(self.changes_s, wall_s)
        return self.states[following - 1] if following else None


def _read(text: str, zone: tzinfo) -> tuple[list[_Session], list[datetime]]:
    """Return all sessions, and the days that have none; ValueError if the text says anything else."""
    sessions, closed_days = [], []
    for entry in filter(None, text.strip().split(";")):
        parts = _ENTRY.fullmatch(entry)
        if parts is None:
            raise ValueError(f"{entry!r} is not a day's sessions")
        day, hours = parts.groups()
        if hours == _CLOSED:
            closed_days.append(_moment(day, "00", "00", zone))
        else:
            sessions += [_session(day, session, zone) for session in hours.split(",")]
    return sessions, closed_days


def _session(day: str, text: str, zone: tzinfo) -> _Session:
    parts = _SESSION.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not a session")
    start_day, start_hour, start_minute, end_day, end_hour, end_minute = parts.groups()
    start = _moment(start_day or day, start_hour, start_minute, zone)
    end = _moment(end_day or start_day or day, end_hour, end_minute, zone)
    if end_day is None and end <= start:
        start -= _DAY
    if not 0 < end.timestamp() - start.timestamp() <= _LONGEST_S:
        raise ValueError(f"{text!r} ends before it begins, or never")
    return _Session(start, end)


def _moment(day: str, hour: str, minute: str, zone: tzinfo) -> datetime:
    """A moment of the exchange's clock, on which a day may end at 24:00."""
    since_midnight = timedelta(hours=int(hour), minutes=int(minute))
    if since_midnight > _DAY or int(minute) > _LAST_MINUTE:
        raise ValueError(f"{hour}:{minute} is no time of a day")
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=zone) + since_midnight


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _clock(moment: datetime) -> timedelta:
    return moment - _midnight(moment)


def _joined(sessions: list[_Session]) -> list[tuple[float, float]]:
    """Start and end in UTC seconds, with sessions that touch made one."""
    joined: list[tuple[float, float]] = []
    for start_s, end_s in sorted((session.start.timestamp(), session.end.timestamp()) for session in sessions):
        if joined and start_s <= joined[-1][1]:
            start_s, end_s = joined[-1][0], max(joined.pop()[1], end_s)
        joined.append((start_s, end_s))
    return joined
