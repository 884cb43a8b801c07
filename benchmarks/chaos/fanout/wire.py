"""What arrives at a client, in both dialects, as the same few values.

The rule of the file: it shares nothing with ibfast's clients. JSON is read as JSON; binary messages are read by the
second decoder of tests/, written from docs/stream-protocol.md. What a client has to remember in order to resume is
taken from the wire in `Bookmarks`, and nowhere else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from benchmarks.chaos.fanout.truth import FAMILIES, HEADER, TEXTS, Row
from ibfast.feed import Feed
from ibfast.records import Kind
from tests.support.stream_reference import ReferenceDecoder

CLASSES = 16
"""Classes of channels: a position is CLASSES · seq + class."""
DESCRIBED = ("symbol", "con_id", "exchange")
"""What a piece repeats of its channel's description, in JSON."""
NAN = 0x7FF8000000000000
EXPONENT = 0x7FF0000000000000
STRUCTURE = frozenset({"tick_type", "operation", "side", "position"})
"""Columns that nobody can leave out."""
ABSENT = {"tick_type": -1, "position": -1, "operation": 255, "side": 255, "event_ns": 0}
"""Values that JSON has as null."""
COLUMNS = {family: tuple(n for n in Feed.dtypes[family].names or () if n not in HEADER) for family in FAMILIES}
DOUBLES = {family: frozenset(n for n in COLUMNS[family] if Feed.dtypes[family][n].kind == "f") for family in FAMILIES}
Told: TypeAlias = tuple[Any, ...]
"""A row as it is said: family, seq (None where it is not said), recv_ns, kind, columns."""


@dataclass(frozen=True, slots=True)
class Form:
    """How the rows of a channel are said."""

    is_binary: bool
    fields: tuple[str, ...]
    unit_ns: int
    is_ordered: bool

    def said(self, row: Row) -> Told:
        """Return a row as it must arrive."""
        if self not in row.told:
            row.told[self] = self._said(row)
        told: Told = row.told[self]
        return told

    def _said(self, row: Row) -> Told:
        columns = [self.value(row.family, name, row.values[name]) for name in COLUMNS[row.family]]
        recv_ns = row.values["recv_ns"] // self.unit_ns * self.unit_ns
        seq = row.seq if self.is_ordered else None
        return row.family, seq, recv_ns if self.is_binary else recv_ns or None, row.kind, *columns

    def value(self, family: str, name: str, value: Any) -> Any:
        """Return a column as it must arrive."""
        is_double = name in DOUBLES[family]
        if self.fields and name not in self.fields and name not in STRUCTURE:
            if not self.is_binary:
                return None
            return NAN if is_double else "" if name in TEXTS else 0
        if name == "event_ns":
            value = value // self.unit_ns * self.unit_ns
        if self.is_binary:
            return value
        if is_double:
            return None if value & EXPONENT == EXPONENT else value
        return None if name in ABSENT and value == ABSENT[name] else value

    def resaid(self, family: str, name: str, value: Any) -> Any:
        """Return a column as this channel says it that another one has said, with the same fields in any dialect."""
        if value is None:
            value = NAN if name in DOUBLES[family] else "" if name in TEXTS else ABSENT.get(name, 0)
        return self.value(family, name, value)


# --- what arrives ---


@dataclass(frozen=True, slots=True)
class Control:
    """A control message."""

    said: dict[str, Any]

    @property
    def op(self) -> str:
        """Which."""
        return str(self.said.get("op"))


@dataclass(frozen=True, slots=True)
class State:
    """A snapshot of a channel; its rows have no sequence numbers."""

    channel: int
    seq: int
    rows: list[Told]


@dataclass(frozen=True, slots=True)
class Lag:
    """What was left out of a channel."""

    channel: int
    reason: str
    from_seq: int
    to_seq: int
    count: int | None


@dataclass(frozen=True, slots=True)
class News:
    """Rows of the channels of one class, by the number of the channel."""

    cls: int
    seq: int
    rows: dict[int, list[Told]]


Arrived: TypeAlias = Control | State | Lag | News


class WireError(Exception):
    """A message that no server sends."""


class Wire(Protocol):
    """One connection's dialect."""

    is_binary: bool

    def open(self, channel: Mapping[str, Any]) -> None:
        """Know a channel by its description."""

    def close(self, number: int) -> None:
        """Forget it."""

    def read(self, message: str | bytes) -> Arrived | None:
        """Return what a message says; None if it is a matter of the dialect.

        Raises:
            WireError: no server sends it.
        """


class JsonWire:
    """The JSON dialect."""

    is_binary = False

    def __init__(self) -> None:
        self._channels: dict[int, Mapping[str, Any]] = {}

    def open(self, channel: Mapping[str, Any]) -> None:
        """See `Wire`."""
        self._channels[channel["channel"]] = channel

    def close(self, number: int) -> None:
        """See `Wire`."""
        self._channels.pop(number, None)

    def read(self, message: str | bytes) -> Arrived | None:
        """See `Wire`."""
        if not isinstance(message, str):
            raise WireError("a binary message in the JSON dialect")
        said = _object(message)
        try:
            if said["op"] == "data":
                return self._news(said)
            if said["op"] == "snapshot":
                state = [_told(family, row) for family, part in said["rows"].items() for row in part]
                self._require(said, {"class": said["position"] % CLASSES})
                return State(said["channel"], said["position"] // CLASSES, [_timeless(row) for row in state])
            if said["op"] == "lag":
                return Lag(said["channel"], said["reason"], said["from_seq"], said["to_seq"], said["rows"])
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"{error!r} in {message[:300]}") from None
        return Control(said)

    def _news(self, said: dict[str, Any]) -> News:
        seq, cls = divmod(said["position"], CLASSES)
        rows: dict[int, list[Told]] = {}
        for piece in said["pieces"]:
            self._require(piece, {"class": cls, **{name: piece[name] for name in DESCRIBED}})
            told = rows.setdefault(piece["channel"], [])
            told += [_told(piece["family"], row) for row in piece["rows"]]
        return News(cls, seq, rows)

    def _require(self, said: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """See that a message says of a channel what its description does. One that is not open is judged elsewhere."""
        channel = self._channels.get(said["channel"], {})
        for name, value in values.items():
            if channel.get(name, value) != value:
                raise WireError(f"{name} {value} of a channel that is {channel}")


class BinaryWire:
    """The binary dialect."""

    is_binary = True

    def __init__(self) -> None:
        self._decoder = ReferenceDecoder()
        self._texts = {0: ""}

    def open(self, channel: Mapping[str, Any]) -> None:
        """See `Wire`."""
        self._decoder.open(channel["channel"], dict(channel))

    def close(self, number: int) -> None:
        """See `Wire`."""
        self._decoder.close(number)

    def read(self, message: str | bytes) -> Arrived | None:
        """See `Wire`."""
        if isinstance(message, str):
            return Control(_object(message))
        try:
            said = self._decoder.decode(message)
        except Exception as error:  # whatever the decoder makes of it: it can't be read
            raise WireError(f"{error!r} in {message[:40].hex()}") from None
        match said["message"]:
            case "text":
                self._texts[said["id"]] = said["text"]
            case "lag":
                return Lag(said["channel"], said["reason"], said["from"], said["to"], said["count"])
            case "snapshot":
                state = [_timeless(self._told(family, row)) for _, family, row in said["rows"]]
                return State(said["channel"], said["seq"], state)
            case "window":
                rows: dict[int, list[Told]] = {}
                for number, family, row in said["rows"]:
                    rows.setdefault(number, []).append(self._told(family, row))
                return News(said["class"], said["seq"], rows)
        return None

    def _told(self, family: str, row: Mapping[str, Any]) -> Told:
        columns = []
        for name in COLUMNS[family]:
            value = row[name]
            if name in TEXTS:
                if value not in self._texts:
                    raise WireError(f"text {value} was not told")
                value = self._texts[value]
            columns.append(value)
        return family, row["seq"] or None, row["recv_ns"], row["kind"], *columns


def _object(message: str) -> dict[str, Any]:
    try:
        said = json.loads(message)
    except ValueError:
        raise WireError(f"no JSON: {message[:100]}") from None
    if not isinstance(said, dict) or not isinstance(said.get("op"), str):
        raise WireError(f"no message: {message[:100]}")
    return said


def _told(family: str, row: Mapping[str, Any]) -> Told:
    columns, doubles = COLUMNS[family], DOUBLES[family]
    if len(row) != len(columns) + 2 + ("seq" in row):
        raise WireError(f"fields of {family}: {sorted(row)}")
    values = [_bits(row[name]) if name in doubles else row[name] for name in columns]
    return family, row.get("seq"), row["time_ns"], int(Kind[row["kind"]]), *values


def _bits(value: float | None) -> int | None:
    return None if value is None else int(struct.unpack("<Q", struct.pack("<d", value))[0])


def _timeless(told: Told) -> Told:
    """Return a row of a state: which message said it last is no part of it."""
    return told[0], None, *told[2:]


# --- what resuming takes ---


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What a client names when it comes back."""

    epoch: str
    position: int

    def as_resume(self) -> dict[str, Any]:
        """Return it as `subscribe` has it."""
        return {"epoch": self.epoch, "position": self.position}

    @property
    def seq(self) -> int:
        """Up to which sequence number it says that everything has come."""
        return self.position // CLASSES


@dataclass(slots=True)
class Bookmarks:
    """The sequence numbers from which a channel may be resumed as it was described last, oldest first."""

    epoch: str
    cls: int
    seqs: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, channel: Mapping[str, Any]) -> Bookmarks:
        """Begin with a description."""
        return cls(channel["epoch"], channel["class"])

    def note(self, seq: int) -> None:
        """Everything up to here has come."""
        if not self.seqs or seq > self.seqs[-1]:
            self.seqs.append(seq)

    def at(self, seq: int) -> Bookmark:
        """Return what a client names that has everything up to a sequence number."""
        return Bookmark(self.epoch, CLASSES * seq + self.cls)
