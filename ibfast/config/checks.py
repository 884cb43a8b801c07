"""Checks of settings, in the same words everywhere: the field, its value, the remedy.

The rule of the file: settings that exist are valid; what is wrong is raised when they are made.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
import re
from typing import TypeGuard

from ibfast.errors import ConfigError
from ibfast.records import DAY_S
from ibfast.wire.times import zone_of

__all__ = [
    "MAX_PORT",
    "MAX_TIMEOUT_S",
    "WEEKDAYS",
    "is_number",
    "is_text",
    "is_whole",
    "require",
    "require_all_seconds",
    "require_day_minutes",
    "require_flag",
    "require_host",
    "require_order",
    "require_seconds",
    "require_share",
    "require_time_of_day",
    "require_week_time",
    "require_whole",
    "require_zone",
]

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
DAY_MINUTES = 24 * 60
MAX_PORT = 65535
MAX_TIMEOUT_S = DAY_S

ZONE_REMEDY = 'give an IANA name such as "America/New_York"'


def require(valid: bool, field: str, value: object, remedy: str) -> None:
    """Insist on a setting.

    Raises:
        ConfigError: `valid` is false; names the field, its value and the remedy.
    """
    if not valid:
        raise ConfigError(f"{field}={value!r} is not possible: {remedy}", field=field)


def require_seconds(field: str, value: object) -> None:
    """Insist on a time span: finite and more than 0, in seconds."""
    require(is_number(value) and value > 0, field, value, "give seconds, more than 0")


def require_share(field: str, value: object) -> None:
    """Insist on a share of a whole: more than 0, at most 1."""
    require(is_number(value) and 0 < value <= 1, field, value, "give a share, more than 0, at most 1")


def require_whole(field: str, value: object, *, at_least: int) -> None:
    """Insist on a whole number."""
    require(is_whole(value) and value >= at_least, field, value, f"give {at_least} or more, a whole number")


def require_zone(field: str, value: object) -> None:
    """Insist on a time zone's name."""
    require(isinstance(value, str) and value != "", field, value, ZONE_REMEDY)
    try:
        zone_of(str(value))
    except ValueError as error:
        raise ConfigError(f"{field}={value!r} is not possible: {ZONE_REMEDY} ({error})", field=field) from None


def require_time_of_day(field: str, value: object) -> None:
    """Insist on a time of day, "HH:MM"."""
    require(_is_time_of_day(value), field, value, 'give a time of day such as "23:45"')


def require_week_time(field: str, value: object) -> None:
    """Insist on a weekday and a time of day, "SUN 01:00"."""
    weekday, _, start = str(value).partition(" ")
    valid = weekday in WEEKDAYS and _is_time_of_day(start)
    require(valid, field, value, 'give a weekday and a time of day such as "SUN 01:00"')


def require_day_minutes(field: str, value: object) -> None:
    """Insist on a number of minutes, at most a day."""
    require(is_whole(value) and 1 <= value <= DAY_MINUTES, field, value, f"give minutes, 1 to {DAY_MINUTES}")


def _is_time_of_day(value: object) -> bool:
    return isinstance(value, str) and TIME_OF_DAY.fullmatch(value) is not None


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether this is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether this is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_host(path: str, value: object) -> None:
    """Insist on a host name or an address."""
    require(is_text(value), path, value, "give a host name or an address")


def require_flag(path: str, value: object) -> None:
    """Insist on True or False."""
    require(isinstance(value, bool), path, value, "give true or false")


def require_all_seconds(section: str, owner: object, *names: str) -> None:
    """Insist on time spans in fields of a section."""
    for name in names:
        require_seconds(f"{section}.{name}", getattr(owner, name))


def require_order(section: str, owner: object, lesser: str, greater: str) -> None:
    """Insist that one field of a section is not less than another."""
    least, value = getattr(owner, lesser), getattr(owner, greater)
    require(least <= value, f"{section}.{greater}", value, f"give {lesser} ({least:g}) or more")


def is_text(value: object) -> bool:
    """Return whether this is a text that is not empty."""
    return isinstance(value, str) and value != ""
