"""Fields of the text dialects: every field ends in NUL, an empty one is absent.

The rule of the file: a reader never runs past its message, and a field that does not parse is a DecodeError that names
the field. Which field stands where is for others to know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal

from ibfast.enums import ServerVersion
from ibfast.errors import DecodeError

__all__ = ["ID_LENGTH", "FieldReader", "payload", "size_to_field", "split", "to_field", "unescape"]

ID_LENGTH = 4
"""Bytes of a raw message id, big endian."""

_NUL = "\0"
_INFINITY = "Infinity"
_UNSET_SIZES = frozenset({"", "2147483647", "9223372036854775807", "1.7976931348623157E308", "-9223372036854775808"})
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")


def split(body: bytes, msg_id: int) -> list[str]:
    """Split the body of a text message into its fields.

    Raises:
        DecodeError: the last field has no end.
    """
    fields = body.decode("utf-8", errors="replace").split(_NUL)
    if fields.pop():
        raise DecodeError("the last field has no end", msg_id, body)
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
            return repr(value)
        return "" if math.isnan(value) else _INFINITY if value > 0 else "-" + _INFINITY
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else ""
    field = str(value)
    if _NUL in field:
        raise ValueError(f"a field can't hold a NUL: {field!r}")
    return field


def size_to_field(value: Decimal | float | str | None) -> str:
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


def unescape(field: str) -> str:
    r"""Resolve the \uXXXX escapes in which gateways send what is not ASCII."""
    return _ESCAPES.sub(_unescape_run, field) if "\\" in field else field


def _unescape_run(match: re.Match[str]) -> str:
    units = bytes.fromhex(match[0].replace("\\u", ""))
    return units.decode("utf-16-be", errors="replace")


class FieldReader:
    """Read the fields of one message, front to back. Fields behind the last one that is read are tolerated."""

    __slots__ = ("_body", "_fields", "_msg_id", "_next")

    def __init__(self, body: bytes, msg_id: int) -> None:
        """Begin to read.

        Args:
            body: the message without its id.
            msg_id: what DecodeErrors name.
        """
        self._body = body
        self._msg_id = msg_id
        self._fields = split(body, msg_id)
        self._next = 0

    def text(self, name: str) -> str:
        """Read a field as it is."""
        if self._next >= len(self._fields):
            raise self.error(f"{name} is missing")
        self._next += 1
        return self._fields[self._next - 1]

    def skip(self, name: str) -> None:
        """Pass over a field."""
        self.text(name)

    def integer(self, name: str) -> int:
        """Read an int; absent is 0."""
        field = self.text(name)
        try:
            return int(field or 0)
        except ValueError:
            raise self.error(f"{name} is not an integer: {field!r}") from None

    def boolean(self, name: str) -> bool:
        """Read a flag; absent is False."""
        return self.integer(name) != 0

    def number(self, name: str) -> float:
        """Read a float; absent is 0.0, as in IB's clients."""
        return self._float(name, self.text(name) or "0")

    def optional_number(self, name: str) -> float | None:
        """Read a float; absent is None."""
        field = self.text(name)
        return self._float(name, field) if field else None

    def optional_size(self, name: str) -> float | None:
        """Read a size; absent, in each of the ways in which gateways write that, is None."""
        field = self.text(name)
        return None if field in _UNSET_SIZES else self._float(name, field)

    def size(self, name: str) -> float:
        """Read a size; absent is NaN."""
        size = self.optional_size(name)
        return math.nan if size is None else size

    def count(self, name: str, fields_each: int) -> int:
        """Read how many groups of fields follow.

        Raises:
            DecodeError: the message is too short to hold them.
        """
        count = self.integer(name)
        if not 0 <= count * fields_each <= len(self._fields) - self._next:
            raise self.error(f"{name} is {count}, but {len(self._fields) - self._next} fields follow")
        return count

    def error(self, reason: str) -> DecodeError:
        """Return the error to raise about this message."""
        return DecodeError(reason, self._msg_id, self._body)

    def _float(self, name: str, field: str) -> float:
        try:
            return float(field)
        except ValueError:
            raise self.error(f"{name} is not a number: {field!r}") from None
