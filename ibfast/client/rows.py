"""Rows of the stream protocol, in its two dialects: messages in, structured arrays out.

The rule of the file: one connection's state, no more. It knows neither requests nor subscriptions, only channels. What
can't be read is a ProtocolError.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ibfast.client.updates import TEXT_FIELDS, Arrival, Batch, Texts
from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.positions import CLASSES, class_of, seq_of
from ibfast.codec.spec import ChannelSpec
from ibfast.errors import ProtocolError
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES, Kind

__all__ = ["DIALECTS", "ChannelInfo", "JsonRows", "LagOf", "Received", "Rows", "number_of", "text_of", "whole_of"]

LagOf: TypeAlias = tuple[int, int, int, int | None, str]
"""Channel, from_seq, to_seq, rows (None: not known), reason."""


NOTHING: Final = Arrival(())


@dataclass(slots=True)
class ChannelInfo:
    """A channel as the server has described it.

    Attributes:
        instrument: the client's own index.
        families: ring names, in the order of binary messages.
        cls: channels of one class share their windows.
        epoch: in which its positions mean something.
        seq: up to which everything has come, as far as its snapshot tells; −1: there was none.
        segment: at which of the class's segments it began.
        table: all that was said of it.
    """

    instrument: int
    families: tuple[str, ...]
    cls: int
    epoch: str
    table: Mapping[str, Any]
    seq: int = -1
    segment: int = 0

    @classmethod
    def of(cls, table: Mapping[str, Any], instrument: int) -> Self:
        """Make one of its description in `subscribed`; raises ValueError, TypeError, KeyError."""
        families = tuple(table["families"])
        if not set(families) <= set(FAMILIES):
            raise ValueError(f"families: {families}")
        interval_class = number_of(table, "class")
        if interval_class >= CLASSES:
            raise ValueError(f"class: {interval_class}")
        return cls(instrument, families, interval_class, text_of(table, "epoch"), table)


@dataclass(frozen=True, slots=True)
class Received:
    """What came of one message.

    Attributes:
        rows: as they came.
        seq: of the window or the snapshot.
        cls: the class of which everything has come up to `seq`, None: that is not said.
        snapshot_of: the channel whose state it is, None: it is news.
        lag: what was left out.
    """

    rows: Arrival = NOTHING
    seq: int = 0
    cls: int | None = None
    snapshot_of: int | None = None
    lag: LagOf | None = None


def number_of(said: Mapping[str, Any], name: str) -> int:
    """Return a field that is a whole number, 0 or more; raises KeyError, TypeError, ValueError."""
    return whole_of(name, said[name])


def whole_of(name: str, value: Any) -> int:
    """Return a value that is a whole number, 0 or more; raises TypeError, ValueError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(name)
    if not 0 <= value < 1 << 64:
        raise ValueError(name)
    return value


class Rows(Protocol):
    """A dialect: what the rows of one connection are read with."""

    def __init__(self, texts: Texts) -> None: ...

    def open(self, number: int, channel: ChannelInfo) -> None:
        """Expect rows of a channel."""

    def close(self, number: int) -> None:
        """Expect them no more."""

    def receive(self, message: bytes) -> Received:
        """Return what a binary message tells."""

    def receive_data(self, said: Mapping[str, Any]) -> Received:
        """Return the rows of a `data` message."""

    def receive_snapshot(self, said: Mapping[str, Any]) -> Received:
        """Return the state that a `snapshot` message tells."""


def text_of(said: Mapping[str, Any], name: str) -> str:
    """Return a field that is a text; raises KeyError, TypeError."""
    value = said[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


class JsonRows:
    """Rows in JSON."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._channels: dict[int, ChannelInfo] = {}

    def open(self, number: int, channel: ChannelInfo) -> None:
        """Expect rows of a channel."""
        self._channels[number] = channel

    def close(self, number: int) -> None:
        """Expect them no more."""
        del self._channels[number]

    def receive(self, message: bytes) -> Received:
        """Refuse a binary message."""
        raise ProtocolError("the server sends binary data, and JSON was agreed on", data=message)

    def receive_data(self, said: Mapping[str, Any]) -> Received:
        """Return the rows of a `data` message."""
        position = number_of(said, "position")
        batches = []
        for piece in said["pieces"]:
            channel, family = self._channel(number_of(piece, "channel")), piece["family"]
            if family not in channel.families or channel.cls != class_of(position):
                raise ProtocolError(f"the server sends {family!r} in a channel, and at a time, which don't have it")
            batches.append(self._batch(family, piece["rows"], channel.instrument, is_snapshot=False))
        return Received(Arrival(tuple(batches)), seq_of(position), class_of(position))

    def receive_snapshot(self, said: Mapping[str, Any]) -> Received:
        """Return the state that a `snapshot` message tells."""
        number = number_of(said, "channel")
        channel, position = self._channel(number), number_of(said, "position")
        if channel.cls != class_of(position):
            raise ProtocolError(f"the server tells the state of channel {number} by a position of another class")
        batches = tuple(
            self._batch(family, rows, channel.instrument, is_snapshot=True)
            for family, rows in said["rows"].items()
            if rows
        )
        return Received(Arrival(batches), seq_of(position), snapshot_of=number)

    def _channel(self, number: int) -> ChannelInfo:
        channel = self._channels.get(number)
        if channel is None:
            raise ProtocolError(f"the server speaks of channel {number}, which is not open")
        return channel

    def _batch(self, family: str, rows: Iterable[Mapping[str, Any]], instrument: int, *, is_snapshot: bool) -> Batch:
        # int() and float() in the array's own conversion would take texts, too: values are checked one by one.
        columns = COLUMNS[family]
        values = [
            tuple(
                instrument if name == "instrument" else self._value(name, row.get(said), absent)
                for name, said, absent in columns
            )
            for row in rows
        ]
        return Batch(family, np.array(values, DTYPES[family]), is_snapshot)

    def _value(self, name: str, value: Any, absent: float) -> float:
        if value is None:
            return absent
        if isinstance(value, str):
            if name == "kind":
                return Kind[value]
            if name in TEXT_FIELDS:
                return self._texts.id_of(value)
        elif isinstance(value, float):
            if absent != absent:  # NaN: a column of doubles
                return value
        elif isinstance(value, int) and not isinstance(value, bool) and name not in TEXT_FIELDS:
            return value
        raise TypeError(f"{name}={value!r}")


WINDOW: Final = 0x80
MOST_TEXTS: Final = 1 << 22

NAMES: Final = {"recv_ns": "time_ns"}
"""Column → its name in JSON, where that is another."""
ABSENT: Final = {"req_id": -1, "tick_type": -1, "position": -1, "operation": 255, "side": 255}


def _columns(family: str) -> tuple[tuple[str, str, float], ...]:
    """Name, name in JSON, and value where there is none, of each column."""
    dtype = DTYPES[family]
    return tuple(
        (name, NAMES.get(name, name), float("nan") if dtype[name].kind == "f" else ABSENT.get(name, 0))
        for name in dtype.names or ()
    )


COLUMNS: Final = {family: _columns(family) for family in FAMILIES}


class BinaryRows:
    """Rows in binary messages, by the compiled decoder."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._decoder = FrameDecoder()
        self._text_ids = np.full(1, 0, np.int64)
        """The client's id by the server's, −1 where that was not told."""

    def open(self, number: int, channel: ChannelInfo) -> None:
        """Expect rows of a channel."""
        spec = ChannelSpec.from_description({**channel.table, "instrument": channel.instrument})
        self._decoder.open(number, spec)

    def close(self, number: int) -> None:
        """Expect them no more."""
        self._decoder.close(number)

    def receive(self, message: bytes) -> Received:
        """Return what a binary message tells."""
        decoded = self._decoder.decode(message)
        if decoded.text is not None:
            self._add_text(*decoded.text)
        lag = None
        if decoded.lag is not None:
            reason, from_seq, to_seq, count = decoded.lag
            lag = (decoded.channel, from_seq, to_seq, count, reason)
        batches = tuple(self._batch(family, rows, decoded.is_snapshot) for family, rows in decoded.rows.items())
        arrival = Arrival(batches, decoded.order if len(batches) > 1 else None)
        if decoded.is_snapshot:
            return Received(arrival, decoded.seq, snapshot_of=decoded.channel)
        is_window = message[0] >= WINDOW
        return Received(arrival, decoded.seq, message[0] - WINDOW if is_window else None, lag=lag)

    def receive_data(self, said: Mapping[str, Any]) -> Received:
        """Refuse rows in JSON."""
        raise ProtocolError("the server sends rows in JSON, and binary messages were agreed on")

    receive_snapshot = receive_data

    def _add_text(self, text_id: int, text: str) -> None:
        if text_id >= MOST_TEXTS:
            raise ProtocolError(f"the server tells text {text_id}: that is more than there can be")
        if text_id >= len(self._text_ids):
            more = np.full(max(text_id + 1, 2 * len(self._text_ids)), -1, np.int64)
            more[: len(self._text_ids)] = self._text_ids
            self._text_ids = more
        self._text_ids[text_id] = self._texts.id_of(text)

    def _batch(self, family: str, rows: NDArray[Any], is_snapshot: bool) -> Batch:
        for name in TEXT_FIELDS.intersection(rows.dtype.names or ()):
            ids = rows[name]
            known = ids < len(self._text_ids)
            if not known.all() or ((own := self._text_ids[ids]) < 0).any():
                raise ProtocolError(f"the server has not told a text of {family!r}")
            rows[name] = own
        return Batch(family, rows, is_snapshot)


DIALECTS: Final[Mapping[str, type[Rows]]] = {"binary": BinaryRows, "json": JsonRows}
"""The subprotocol's last part → what reads it."""
