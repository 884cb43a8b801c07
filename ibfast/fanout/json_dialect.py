"""The JSON dialect: for people and quick scripts.

The rule of the file: a piece names its instrument and not the client's channel number, so a frame depends on the set of
channels alone. Rows are encoded once per channel and window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ibfast._feed import DTYPES
from ibfast.enums import Kind
from ibfast.fanout.channels import HEADER, STRUCTURE, Channel
from ibfast.fanout.dialect import Audience, Encoder, Rows
from ibfast.fanout.frames import deflated_text_frame, text_frame
from ibfast.fanout.messages import encode
from ibfast.fanout.state import ChannelState, by_instrument
from ibfast.feed import FeedView

__all__ = ["JsonDialect"]

NS_PER_US = 1000
MOST_REPLAYED_ROWS = 1000
"""In one message."""

ABSENT = {"tick_type": -1, "position": -1, "operation": 255, "side": 255, "event_ns": 0}
TEXTS = {"text", "exchange", "conditions", "market_maker"}
KIND_NAMES = [""] * 256
for _kind in Kind:
    KIND_NAMES[_kind] = _kind.name

Column = Callable[[NDArray[Any]], list[Any]]


class JsonDialect:
    """Makes the encoders of a feed's rows."""

    name = "ibfast.v1.json"
    has_units = False

    def __init__(self, feed: FeedView) -> None:
        self._feed = feed
        self._texts: dict[int, str] = {}

    def encoder(self, interval_ms: int, unit: str) -> Encoder:
        """Make an encoder. Rows carry their own times, so `unit` is a matter of each row."""
        return _JsonEncoder(self._feed, interval_ms, self._texts_of)

    def _texts_of(self, ids: NDArray[Any]) -> list[str]:
        texts = self._texts
        for text_id in ids.tolist():
            if text_id not in texts:
                texts[text_id] = self._feed.texts[text_id]
        return [texts[text_id] for text_id in ids.tolist()]


class _JsonEncoder:
    """The channels of one window length; see `Encoder`."""

    version = 0
    pending_since: int | None = None

    def __init__(self, feed: FeedView, interval_ms: int, texts_of: Column) -> None:
        self._feed = feed
        self._interval_ms = interval_ms
        self._texts_of = texts_of
        self._lines: dict[int, _Line] = {}
        self._of_instrument: dict[int, list[_Line]] = {}
        self._next_index = 0
        self._waiting: Rows | None = None
        self._pieces: dict[int, bytes] = {}
        self._faults: list[tuple[int | None, Exception]] = []
        self._head = b""

    def add(self, channel: Channel, state: Rows, seq: int) -> int:
        """See `Encoder`."""
        instruments, instrument = self._feed.instruments, channel.instrument
        description = {
            "symbol": instruments[instrument],
            "con_id": instruments.con_id(instrument),
            "exchange": instruments.exchange(instrument),
            "instrument": instrument,
        }
        line = _Line(channel, description, self._texts_of, state)
        index, self._next_index = self._next_index, self._next_index + 1
        self._lines[index] = line
        self._of_instrument.setdefault(channel.instrument, []).append(line)
        line.index = index
        return index

    def remove(self, index: int) -> None:
        """See `Encoder`."""
        line = self._lines.pop(index)
        others = self._of_instrument[line.channel.instrument]
        others.remove(line)
        if not others:
            del self._of_instrument[line.channel.instrument]

    def describe(self, index: int) -> dict[str, Any]:
        """See `Encoder`."""
        return {}

    def push(self, rows: Rows) -> None:
        """See `Encoder`."""
        self._waiting = rows

    def advance(self, until_ns: int, seq: int) -> bool:
        """See `Encoder`. Rows carry their own times, so that whatever was found together is one message."""
        self._pieces = {}
        if self._waiting is None:
            return False
        rows, self._waiting = self._waiting, None
        self._head = _head(self._interval_ms, seq)
        wanted: dict[int, dict[str, NDArray[Any]]] = {}
        for family, part in rows.items():
            for instrument, own in by_instrument(part):
                if instrument in self._of_instrument:
                    wanted.setdefault(instrument, {})[family] = own
        for instrument, parts in wanted.items():
            for line in self._of_instrument[instrument]:
                try:
                    piece = line.encode(parts)
                except Exception as error:
                    self._faults.append((line.index, error))
                    continue
                if piece:
                    self._pieces[line.index] = piece
        return True

    def faults(self) -> list[tuple[int | None, Exception]]:
        """See `Encoder`."""
        faults, self._faults = self._faults, []
        return faults

    def drop(self) -> None:
        """See `Encoder`."""
        self._waiting, self._pieces, self._faults = None, {}, []

    def splice(self, audience: Audience) -> bytes:
        """See `Encoder`."""
        pieces = self._pieces
        own = [pieces[index] for index in audience.indices if index in pieces]
        if not own:
            return b""
        payload = b"".join((self._head, b",".join(own), b"]}"))
        return deflated_text_frame(payload) if audience.is_deflated else text_frame(payload)

    def count(self, index: int) -> int:
        """See `Encoder`."""
        return self._lines[index].count

    def restart(self, index: int, state: Rows, seq: int) -> None:
        """See `Encoder`."""
        line = self._lines[index]
        line.state = ChannelState(line.channel.families, state)

    def greeting(self, audience: Audience) -> bytes:
        """See `Encoder`."""
        return b""

    def prelude(self, since: int) -> bytes:
        """See `Encoder`."""
        return b""

    def snapshot(self, index: int, channel_id: int, seq: int) -> bytes:
        """See `Encoder`."""
        line = self._lines[index]
        rows = {family: line.objects(family, part) for family, part in line.state.rows().items()}
        return text_frame(encode("snapshot", channel=channel_id, seq=seq, rows=rows))

    def replay(self, index: int, channel_id: int, rows: Rows, after_seq: int, seq: int) -> bytes:
        """See `Encoder`."""
        line = self._lines[index]
        if line.channel.is_conflated and "depth" not in rows:  # operations on a book that is the client's alone
            rows = ChannelState(line.channel.families, {}).take(rows, is_conflated=True)
        seqs = np.sort(np.concatenate([part["seq"] for part in rows.values()])) if rows else np.empty(0, np.uint64)
        frames = []
        for first in range(0, len(seqs), MOST_REPLAYED_ROWS):
            chunk = seqs[first : first + MOST_REPLAYED_ROWS]
            parts = {name: part[(part["seq"] >= chunk[0]) & (part["seq"] <= chunk[-1])] for name, part in rows.items()}
            last = seq if first + MOST_REPLAYED_ROWS >= len(seqs) else int(chunk[-1])
            frames.append(text_frame(_head(self._interval_ms, last) + line.piece(parts) + b"]}"))
        return b"".join(frames)

    def lag(self, channel_id: int, from_seq: int, to_seq: int, rows: int | None, reason: str) -> bytes:
        """See `Encoder`."""
        message = encode("lag", channel=channel_id, from_seq=from_seq, to_seq=to_seq, rows=rows, reason=reason)
        return text_frame(message)


def _head(interval_ms: int, seq: int) -> bytes:
    return b'{"op":"data","interval_ms":%d,"seq":%d,"pieces":[' % (interval_ms, seq)


class _Line:
    """One channel: which rows are its own, and how they are written."""

    def __init__(self, channel: Channel, description: Mapping[str, Any], texts_of: Column, state: Rows) -> None:
        self.channel = channel
        self.index = -1
        self.count = 0
        self.state = ChannelState(channel.families, state)
        self._is_own = np.zeros(256, bool)
        self._is_own[list(channel.kinds)] = True
        self._heads = {
            family: orjson.dumps({**description, "family": family})[:-1] + b',"rows":' for family in channel.families
        }
        self._columns = {family: _columns(channel, family, texts_of) for family in channel.families}

    def encode(self, parts: Rows) -> bytes:
        """Take the instrument's rows of a window; return the channel's piece, b"" if none of them is its own."""
        own: dict[str, NDArray[Any]] = {}
        for family in self.channel.families:
            if family in parts:
                mine = self._is_own[parts[family]["kind"]]
                rows = parts[family] if mine.all() else parts[family][mine]
                if len(rows):
                    own[family] = rows
                    self.count += len(rows)
        if not own:
            return b""
        return self.piece(self.state.take(own, is_conflated=self.channel.is_conflated))

    def piece(self, parts: Rows) -> bytes:
        """Return these rows in the order of their sequence numbers, in runs of one family."""
        return b",".join(
            self._heads[family] + orjson.dumps(self.objects(family, rows)) + b"}" for family, rows in _runs(parts)
        )

    def objects(self, family: str, rows: NDArray[Any]) -> list[dict[str, Any]]:
        """Return rows of a family as objects."""
        names, columns = self._columns[family]
        return [dict(zip(names, values, strict=True)) for values in zip(*(make(rows) for make in columns), strict=True)]


def _runs(parts: Rows) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the rows of several families in the order of their sequence numbers, as runs of one family."""
    families = [family for family in parts if len(parts[family])]
    if len(families) < 2:
        yield from ((family, parts[family]) for family in families)
        return
    seqs = np.concatenate([parts[family]["seq"] for family in families])
    places = np.concatenate([np.arange(len(parts[family])) for family in families])
    owners = np.repeat(np.arange(len(families)), [len(parts[family]) for family in families])
    order = np.argsort(seqs, kind="stable")
    owners, places = owners[order], places[order]
    bounds = np.flatnonzero(owners[1:] != owners[:-1]) + 1
    for first, end in zip((0, *bounds.tolist()), (*bounds.tolist(), len(order)), strict=True):
        family = families[owners[first]]
        yield family, parts[family][places[first] : places[end - 1] + 1]


def _columns(channel: Channel, family: str, texts_of: Column) -> tuple[list[str], list[Column]]:
    """Return the names of a row's values, and what makes each of them of rows."""
    names: list[str] = ["time_ns", "kind"]
    columns: list[Column] = [partial(_times, name="recv_ns", unit=channel.unit), _kinds]
    if channel.ordered:
        names.insert(0, "seq")
        columns.insert(0, partial(_plain, name="seq"))
    for name in DTYPES[family].names or ():
        if name in HEADER:
            continue
        names.append(name)
        if channel.fields and name not in channel.fields and name not in STRUCTURE:
            columns.append(_nothing)
        elif name == "event_ns":
            columns.append(partial(_times, name=name, unit=channel.unit))
        elif name in TEXTS:
            columns.append(partial(_texts, name=name, texts_of=texts_of))
        else:
            columns.append(partial(_present if name in ABSENT else _plain, name=name))
    return names, columns


def _plain(rows: NDArray[Any], name: str) -> list[Any]:
    values: list[Any] = rows[name].tolist()
    return values


def _present(rows: NDArray[Any], name: str) -> list[Any]:
    absent = ABSENT[name]
    return [None if value == absent else value for value in rows[name].tolist()]


def _times(rows: NDArray[Any], name: str, unit: str) -> list[Any]:
    step = 1 if unit == "ns" else NS_PER_US
    return [value // step * step or None for value in rows[name].tolist()]


def _kinds(rows: NDArray[Any]) -> list[Any]:
    return [KIND_NAMES[kind] for kind in rows["kind"].tolist()]


def _texts(rows: NDArray[Any], name: str, texts_of: Column) -> list[Any]:
    return texts_of(rows[name])


def _nothing(rows: NDArray[Any]) -> list[Any]:
    return [None] * len(rows)
