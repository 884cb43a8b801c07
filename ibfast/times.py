"""Times as gateways write them, to int64 nanoseconds UTC.

The rule of the file: no clock and no local zone; a text that names no zone is read in the one that the caller gives.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

__all__ = ["NS_PER_S", "parse_bar_time", "seconds_to_ns"]

NS_PER_S = 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_S = (2**63 - 1) // NS_PER_S
# Eight digits are a date, so that an epoch has more.
_EPOCH_SECONDS = re.compile(r"-?[0-9]{9,}")
_DATE_TIME = re.compile(r"([0-9]{8})(?:(-| {1,2})([0-9]{2}:[0-9]{2}:[0-9]{2}))?(?: *(Z)| +(\S.*))?")
_UTC_SEPARATOR = "-"


def parse_bar_time(text: str, zone: tzinfo) -> int:
    """Return the nanoseconds UTC of a bar's time or a head timestamp.

    Known are epoch seconds, `yyyymmdd` (midnight), `yyyymmdd hh:mm:ss` with one or two blanks, and `yyyymmdd-hh:mm:ss`,
    which IB uses for UTC; all but the first with or without the name of a zone or a Z at the end.

    Args:
        text: the field of the message.
        zone: where the clock stands that a text without a zone shows.

    Raises:
        ValueError: the text is none of these, its zone is unknown, or it is out of range.
    """
    if _EPOCH_SECONDS.fullmatch(text):
        return seconds_to_ns(int(text))
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time as gateways write it")
    date, separator, time, zulu, zone_name = match.groups(default="")
    if zone_name:
        zone = _zone(zone_name)
    elif zulu or separator == _UTC_SEPARATOR:
        zone = UTC
    moment = datetime.strptime(date + (time or "00:00:00"), "%Y%m%d%H:%M:%S").replace(tzinfo=zone)
    return seconds_to_ns((moment - _EPOCH) // timedelta(seconds=1))


def seconds_to_ns(seconds: int) -> int:
    """Return seconds since 1970 as nanoseconds.

    Raises:
        ValueError: they don't fit an int64.
    """
    if abs(seconds) > _MAX_S:
        raise ValueError(f"{seconds} s since 1970 is out of range")
    return seconds * NS_PER_S


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone") from None
