"""Values as callers have them at hand, numpy's and pandas' scalars among them, as Python's own.

The rule of the file: it is the door. A value that passes is exactly a bool, an int, a float or a str, so that it can be
compared, hashed, sent and stored. Any other value is refused with its name.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

__all__ = ["MOST_WHOLE", "flag", "moment", "plain", "text", "whole"]

MOST_WHOLE = (1 << 31) - 1
"""The largest whole number that a request can carry."""


def plain(value: Any) -> Any:
    """Return a numpy scalar as Python's own value, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def flag(name: str, value: object) -> bool:
    """Return a flag; 0 and 1 are flags too.

    Raises:
        TypeError: the value is none.
    """
    own = plain(value)
    if not isinstance(own, int) or own not in (0, 1):
        raise TypeError(f"{name}={value!r} is not possible: give True or False")
    return bool(own)


def whole(name: str, value: object, least: int = -MOST_WHOLE, most: int = MOST_WHOLE) -> int:
    """Return a whole number.

    Raises:
        TypeError: the value is none.
        ValueError: the value is out of range.
    """
    own = plain(value)
    if not isinstance(own, int) or isinstance(own, bool):
        raise TypeError(f"{name}={value!r} is not possible: give a whole number")
    if not least <= own <= most:
        raise ValueError(f"{name}={value!r} is not possible: give a whole number, {least} to {most}")
    return int(own)


def text(name: str, value: object) -> str:
    """Return a text, without NUL.

    Raises:
        TypeError: the value is none.
        ValueError: the text holds a NUL, which ends a field on the wire.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r} is not possible: give a text")
    if "\0" in value:
        raise ValueError(f"{name}={value!r} is not possible: give a text without NUL")
    return str(value)


def moment(name: str, value: object) -> str:
    """Return a time as IB writes it, yyyymmdd-hh:mm:ss in UTC: of a datetime or a pandas Timestamp; a text stays.

    Raises:
        TypeError: the value is no time.
        ValueError: the time names no zone, or the text holds a NUL.
    """
    if isinstance(value, np.datetime64) or (isinstance(value, datetime) and value.utcoffset() is None):
        raise ValueError(f"{name}={value!r} names no time zone: give an aware datetime, or a text in IB's notation")
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y%m%d-%H:%M:%S}"
    return text(name, value)
