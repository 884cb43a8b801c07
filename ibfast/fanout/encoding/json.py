"""The JSON dialect: for people and quick scripts.

The rule of the file: rows are encoded once per channel and window. What is left per audience is to put a head before
each piece, with the channel's number there.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ibfast.codec.positions import position_of
from ibfast.fanout.encoding.channel_state import ChannelState, by_instrument
from ibfast.fanout.encoding.channels import HEADER, STRUCTURE, Channel, interval_class
from ibfast.fanout.encoding.dialect import Audience, Encoder, Replay, Rows
from ibfast.fanout.messages import encode
from ibfast.fanout.sockets.frames import deflated_text_frame, text_frame
from ibfast.feed._feed import DTYPES
from ibfast.feed.feed import FeedView
from ibfast.records import Kind

__all__ = ["JsonDialect"]

NS_PER_US = 1000

ABSENT = {"tick_type": -1, "position": -1, "operation": 255, "side": 255, "event_ns": 0}
TEXTS = {"text", "exchange", "conditions", "market_maker"}
KIND_NAMES = [""] * 256
for _kind in Kind:
    KIND_NAMES[_kind] = _kind.name

Column = Callable[[NDArray[Any]], list[Any]]


class JsonDialect:
    """Makes the encoders of a feed's rows."""

    name = "ibfast.v1.json"

    def __init__(self, feed: FeedView) -> None:
        self._feed = feed
        self._texts: dict[int, str] = {}

    def encoder(self, interval_ms: int, unit: str) -> Encoder:
        """Make an encoder."""
        return _JsonEncoder(self._feed, interval_class(interval_ms, unit), self._texts_of)

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

    def __init__(self, feed: FeedView, interval_class: int, texts_of: Column) -> None:
        self._feed = feed
        self._class = interval_class
        self._texts_of = texts_of
        self._lines: dict[int, _Line] = {}
        self._of_instrument: dict[int, list[_Line]] = {}
        self._next_index = 0
        self._waiting: Rows | None = None
        self._pieces: dict[int, list[bytes]] = {}
        self._faults: list[tuple[int | None, Exception]] = []
        self._head = b""

    def add(self, channel: Channel, state: Rows, seq: int) -> int:
        """See `Encoder`."""
        instruments, instrument = self._feed.instruments, channel.instrument
        description = {
            "symbol": instruments[instrument],
            "con_id": instruments.con_id(instrument),
            "exchange": instruments.exchange(instrument),
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
        self._head = _head(position_of(seq, self._class))
        wanted: dict[int, dict[str, NDArray[Any]]] = {}
        for family, part in rows.items():
            for instrument, own in by_instrument(part):
                if instrument in self._of_instrument:
                    wanted.setdefault(instrument, {})[family] = own
        for instrument, parts in wanted.items():
            for line in self._of_instrument[instrument]:
                try:
                    runs = line.encode(parts)
                except Exception as error:
                    self._faults.append((line.index, error))
                    continue
                if runs:
                    self._pieces[line.index] = runs
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
        found = self._pieces
        if audience.cache is None:
            heads = map(_piece_head, audience.ids)
            audience.cache = list(zip(audience.indices, heads, strict=True))
        pieces = [head + run for index, head in audience.cache for run in found.get(index, ())]
        if not pieces:
            return b""
        payload = b"".join((self._head, b",".join(pieces), b"]}"))
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
        return text_frame(encode("snapshot", channel=channel_id, position=position_of(seq, self._class), rows=rows))

    def replay(self, index: int, channel_id: int, after_seq: int) -> Replay:
        """See `Encoder`."""
        return _JsonReplay(self._lines[index], channel_id, self._class)

    def lag(self, channel_id: int, from_seq: int, to_seq: int, rows: int | None, reason: str) -> bytes:
        """See `Encoder`."""
        message = encode("lag", channel=channel_id, from_seq=from_seq, to_seq=to_seq, rows=rows, reason=reason)
        return text_frame(message)


class _JsonReplay:
    """See `Replay`. Of a conflated channel the latest rows come at the end; operations on a book come as they are."""

    def __init__(self, line: _Line, channel_id: int, interval_class: int) -> None:
        self._line = line
        self._piece_head = _piece_head(channel_id)
        self._class = interval_class
        families = line.channel.families
        is_conflated = line.channel.is_conflated and "depth" not in families
        self._latest = ChannelState(families, {}) if is_conflated else None

    def begin(self) -> bytes:
        """See `Replay`."""
        return b""

    def rows(self, rows: Rows, seq: int) -> bytes:
        """See `Replay`."""
        if self._latest is not None:
            self._latest.take(rows, is_conflated=True)
            return b""
        return self._message(rows, seq)

    def end(self, seq: int) -> bytes:
        """See `Replay`."""
        latest = {} if self._latest is None else self._latest.rows()
        return self._message(latest, seq) if latest else b""

    def _message(self, rows: Rows, seq: int) -> bytes:
        pieces = b",".join(self._piece_head + run for run in self._line.runs(rows))
        return text_frame(_head(position_of(seq, self._class)) + pieces + b"]}")


def _head(position: int) -> bytes:
    return b'{"op":"data","position":%d,"pieces":[' % position


def _piece_head(channel_id: int) -> bytes:
    return b'{"channel":%d,' % channel_id


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
            family: orjson.dumps({**description, "family": family})[1:-1] + b',"rows":' for family in channel.families
        }
        self._columns = {family: _columns(channel, family, texts_of) for family in channel.families}

    def encode(self, parts: Rows) -> list[bytes]:
        """Take the instrument's rows of a window; return the channel's runs, none if no row is its own."""
        own: dict[str, NDArray[Any]] = {}
        for family in self.channel.families:
            if family in parts:
                mine = self._is_own[parts[family]["kind"]]
                rows = parts[family] if mine.all() else parts[family][mine]
                if len(rows):
                    own[family] = rows
                    self.count += len(rows)
        return self.runs(self.state.take(own, is_conflated=self.channel.is_conflated)) if own else []

    def runs(self, parts: Rows) -> list[bytes]:
        """Return these rows in the order of their sequence numbers, in runs of one family: pieces without a head."""
        return [self._heads[family] + orjson.dumps(self.objects(family, rows)) + b"}" for family, rows in _runs(parts)]

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
