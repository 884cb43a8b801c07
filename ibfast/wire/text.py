"""Fields of the text dialects: every field ends in NUL, an empty one is absent.

The rule of the file: a reader never runs past its message, and a field that does not parse is a DecodeError that names
the field. Which field stands where is for others to know.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal

from ibfast.errors import DecodeError
from ibfast.records import UNSET_DOUBLE
from ibfast.wire.ids import ServerVersion

__all__ = [
    "ID_LENGTH",
    "UNSET",
    "FieldReader",
    "escape",
    "parse_number",
    "parse_size",
    "payload",
    "price_or_nan",
    "size_to_field",
    "split",
    "to_field",
    "unescape",
]

ID_LENGTH = 4
"""Bytes of a raw message id, big endian."""

UNSET = frozenset(
    {"", "2147483647", "9223372036854775807", "1.7976931348623157E308", "-9223372036854775808", str(2**127 - 1)}
)
"""How gateways write that a number is not set."""

_NUL = "\0"
_INFINITY = "Infinity"
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")


def split(body: bytes) -> list[str]:
    """Split the body of a text message into its fields.

    Raises:
        DecodeError: the last field has no end.
    """
    fields = body.decode("utf-8", errors="replace").split(_NUL)
    if fields.pop():
        raise DecodeError("the last field has no end")
    return fields


def to_field(value: object) -> str:
    """Return a value as a field, without its NUL; None and NaN are absent.

    Raises:
        ValueError: the text holds a NUL.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        if math.isfinite(value):
            return float.__repr__(value)
        return "" if math.isnan(value) else _INFINITY if value > 0 else "-" + _INFINITY
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else ""
    field = str(value)
    if _NUL in field:
        raise ValueError(f"a field can't hold a NUL: {field!r}")
    return field


def size_to_field(value: object) -> str:
    """Return a size as a field: as `to_field`, but a whole number carries no point, since old clients read integers."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return to_field(value)


def payload(msg_id: int, server_version: int, fields: Iterable[object]) -> bytes:
    """Return the payload of a text message in the dialect that the server version demands."""
    body = "".join([to_field(field) + _NUL for field in fields])
    if server_version >= ServerVersion.RAW_MESSAGE_ID:
        return int(msg_id).to_bytes(ID_LENGTH, "big") + body.encode()
    return f"{msg_id:d}{_NUL}{body}".encode()


def escape(field: str) -> str:
    r"""Write what is not ASCII as \uXXXX escapes, as gateways do in a few fields."""
    if field.isascii():
        return field
    units = field.encode("utf-16-be")
    return "".join(
        chr(units[i + 1]) if units[i] == 0 and units[i + 1] < 0x80 else f"\\u{units[i : i + 2].hex()}"
        for i in range(0, len(units), 2)
    )


def unescape(field: str) -> str:
    r"""Resolve \uXXXX escapes."""
    return _ESCAPES.sub(_unescape_run, field) if "\\" in field else field


def _unescape_run(match: re.Match[str]) -> str:
    units = bytes.fromhex(match[0].replace("\\u", ""))
    return units.decode("utf-16-be", errors="replace")


class FieldReader:
    """Read the fields of one message, front to back. Fields behind the last one that is read are tolerated."""

    __slots__ = ("_fields", "_next")

    def __init__(self, body: bytes) -> None:
        """Begin to read; `body` is the message without its id."""
        self._fields = split(body)
        self._next = 0

    def text(self, name: str) -> str:
        """Read a field as it is."""
        if self._next >= len(self._fields):
            raise DecodeError(f"{name} is missing", field=name)
        self._next += 1
        return self._fields[self._next - 1]

    def skip(self, name: str) -> None:
        """Pass over a field."""
        self.text(name)

    def integer(self, name: str, absent: int = 0) -> int:
        """Read an int; where there is none it is `absent`."""
        field = self.text(name)
        try:
            return int(field or absent)
        except ValueError:
            raise DecodeError(f"{name} is not an integer: {field!r}", field=name, value=field) from None

    def boolean(self, name: str) -> bool:
        """Read a flag; absent is False."""
        return self.integer(name) != 0

    def number(self, name: str) -> float:
        """Read a float; absent is 0.0, as in IB's clients."""
        return parse_number(name, self.text(name) or "0")

    def optional_number(self, name: str) -> float | None:
        """Read a float that may be unset, which is None."""
        field = self.text(name)
        return None if field in UNSET else parse_number(name, field)

    def price(self, name: str) -> float:
        """Read a price of a record; absent and unset are NaN."""
        field = self.text(name)
        return price_or_nan(parse_number(name, field)) if field else math.nan

    def size(self, name: str) -> float:
        """Read a size; unset is NaN."""
        return parse_size(name, self.text(name))

    def count(self, name: str, fields_each: int) -> int:
        """Read how many groups of fields follow.

        Raises:
            DecodeError: the message is too short to hold them.
        """
        count = self.integer(name)
        left = len(self._fields) - self._next
        if not 0 <= count * fields_each <= left:
            raise DecodeError(f"{name} is {count}, but {left} fields follow", field=name, value=str(count))
        return count


def parse_number(name: str, field: str) -> float:
    """Return the float that a field shows.

    Raises:
        DecodeError: it shows none.
    """
    try:
        return float(field)
    except ValueError:
        raise DecodeError(f"{name} is not a number: {field!r}", field=name, value=field) from None


def parse_size(name: str, field: str) -> float:
    """Return the size that a field shows; unset is NaN.

    Raises:
        DecodeError: it shows no number.
    """
    return math.nan if field in UNSET else price_or_nan(parse_number(name, field))


def price_or_nan(value: float) -> float:
    """Return a price of a record, NaN for the largest double, by which gateways say that a price is not set."""
    return math.nan if value == UNSET_DOUBLE else value
