"""Checks of settings, in the same words everywhere: the field, its value, the remedy.

The rule of the file: a policy that exists has valid settings; what is wrong is said when it is made.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from typing import TypeGuard

from ibfast.errors import ConfigError
from ibfast.wire.times import zone_of

__all__ = ["is_number", "is_whole", "require", "require_seconds", "require_share", "require_whole", "require_zone"]

ZONE_REMEDY = 'give an IANA name such as "America/New_York"'


def require(valid: bool, field: str, value: object, remedy: str) -> None:
    """Insist on a setting.

    Raises:
        ConfigError: `valid` is false; names the field, its value and the remedy.
    """
    if not valid:
        raise ConfigError(f"{field}={value!r} is not possible: {remedy}")


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
        raise ConfigError(f"{field}={value!r} is not possible: {ZONE_REMEDY} ({error})") from None


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether this is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether this is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)
