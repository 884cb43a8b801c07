"""Times and time zones as gateways write them; times become int64 nanoseconds UTC.

The rule of the file: no clock and no local zone; a text that names no zone is read in the one that the caller gives.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from ibfast.records import NS_PER_S

__all__ = ["parse_bar_time", "seconds_to_ns", "zone_of"]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_S = (2**63 - 1) // NS_PER_S
# Eight digits are a date, so that an epoch has more.
_EPOCH_SECONDS = re.compile(r"-?[0-9]{9,}")
_DATE_TIME = re.compile(r"([0-9]{8})(?:(-| {1,2})([0-9]{2}:[0-9]{2}:[0-9]{2}))?(?: *(Z)| +(\S.*))?")
_UTC_SEPARATOR = "-"
_DESCRIBED_ZONE = re.compile(r"(\S+) \((.+)\)")
_ZONES = {
    # IANA's old names, which not every system's database has any more.
    "US/Eastern": "America/New_York",
    "US/Central": "America/Chicago",
    "US/Mountain": "America/Denver",
    "US/Pacific": "America/Los_Angeles",
    "Canada/Eastern": "America/Toronto",
    "GB": "Europe/London",
    "GB-Eire": "Europe/London",
    "MET": "Europe/Brussels",
    "Israel": "Asia/Jerusalem",
    "Asia/Calcutta": "Asia/Kolkata",
    "Hongkong": "Asia/Hong_Kong",
    "Singapore": "Asia/Singapore",
    "Japan": "Asia/Tokyo",
    "Australia/NSW": "Australia/Sydney",
    # Abbreviations mean the clock of the place, with its daylight saving time; IANA's EST and MST have none.
    "EST": "America/New_York",
    "EST5EDT": "America/New_York",
    "EDT": "America/New_York",
    "CST": "America/Chicago",
    "CST6CDT": "America/Chicago",
    "CDT": "America/Chicago",
    "MST": "America/Denver",
    "MST7MDT": "America/Denver",
    "MDT": "America/Denver",
    "PST": "America/Los_Angeles",
    "PST8PDT": "America/Los_Angeles",
    "PDT": "America/Los_Angeles",
    "BST": "Europe/London",
    "WET": "Europe/Lisbon",
    "CET": "Europe/Brussels",
    "CEST": "Europe/Brussels",
    "EET": "Europe/Helsinki",
    "EEST": "Europe/Helsinki",
    "MSK": "Europe/Moscow",
    "IST": "Asia/Kolkata",
    "HKT": "Asia/Hong_Kong",
    "SGT": "Asia/Singapore",
    "JST": "Asia/Tokyo",
    "KST": "Asia/Seoul",
    "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney",
    # Java's and Windows' descriptions: TWS writes them where its machine has no shorter name.
    "Eastern Standard Time": "America/New_York",
    "Eastern Daylight Time": "America/New_York",
    "Central Standard Time": "America/Chicago",
    "Central Daylight Time": "America/Chicago",
    "Mountain Standard Time": "America/Denver",
    "Mountain Daylight Time": "America/Denver",
    "Pacific Standard Time": "America/Los_Angeles",
    "Pacific Daylight Time": "America/Los_Angeles",
    "Greenwich Mean Time": "Europe/London",
    "British Summer Time": "Europe/London",
    "GMT Standard Time": "Europe/London",
    "Irish Standard Time": "Europe/Dublin",
    "Western European Time": "Europe/Lisbon",
    "Western European Standard Time": "Europe/Lisbon",
    "Western European Summer Time": "Europe/Lisbon",
    "Central European Time": "Europe/Brussels",
    "Central European Standard Time": "Europe/Brussels",
    "Central European Summer Time": "Europe/Brussels",
    "Central Europe Standard Time": "Europe/Brussels",
    "Middle Europe Time": "Europe/Brussels",
    "W. Europe Standard Time": "Europe/Brussels",
    "Romance Standard Time": "Europe/Brussels",
    "Eastern European Time": "Europe/Helsinki",
    "Eastern European Standard Time": "Europe/Helsinki",
    "Eastern European Summer Time": "Europe/Helsinki",
    "Moscow Standard Time": "Europe/Moscow",
    "Israel Standard Time": "Asia/Jerusalem",
    "Israel Daylight Time": "Asia/Jerusalem",
    "India Standard Time": "Asia/Kolkata",
    "China Standard Time": "Asia/Shanghai",
    "Hong Kong Time": "Asia/Hong_Kong",
    "Hong Kong Standard Time": "Asia/Hong_Kong",
    "Singapore Time": "Asia/Singapore",
    "Singapore Standard Time": "Asia/Singapore",
    "Japan Standard Time": "Asia/Tokyo",
    "Tokyo Standard Time": "Asia/Tokyo",
    "Korea Standard Time": "Asia/Seoul",
    "Korean Standard Time": "Asia/Seoul",
    "Australian Eastern Standard Time": "Australia/Sydney",
    "Australian Eastern Daylight Time": "Australia/Sydney",
    "AUS Eastern Standard Time": "Australia/Sydney",
    "Australian Eastern Standard Time (New South Wales)": "Australia/Sydney",
    "Eastern Standard Time (New South Wales)": "Australia/Sydney",
    "Coordinated Universal Time": "UTC",
}
"""Names of time zones that IB and TWS use, and IANA does not, or not everywhere
(https://interactivebrokers.github.io/tws-api/contract_details.html lists many)."""


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
        zone = zone_of(zone_name)
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
def zone_of(name: str) -> tzinfo:
    """Return the zone that a name means, as IB, TWS in its machine's words, or a user writes it.

    Known are IANA's names, abbreviations ("EST" is the clock of New York, in July too), descriptions ("Central European
    Standard Time"), and both together ("EST (Eastern Standard Time)").

    Raises:
        ValueError: there is no such zone, or this machine has no time zone database.
    """
    name = name.strip()
    described = _DESCRIBED_ZONE.fullmatch(name)
    if described is not None and name not in _ZONES:
        abbreviation, description = described.groups()
        wanted = (
            description if description in _ZONES else abbreviation
        )  # the description of "CST" decides which is meant
    else:
        wanted = name
    try:
        return ZoneInfo(_ZONES.get(wanted, wanted))
    except (KeyError, ValueError, OSError):  # OSError: the name of a directory of the database
        if not _has_database():
            raise ValueError(
                f"this machine has no time zone database, so {name!r} can't be looked up: install the package tzdata"
            ) from None
        raise ValueError(f"{name!r} is not a time zone") from None


def _has_database() -> bool:
    """Return whether there is a database at all: each has UTC."""
    try:
        ZoneInfo("UTC")
    except (KeyError, OSError):
        return False
    return True
