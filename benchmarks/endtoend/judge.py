"""What subscribers were sent against what the server's rings had: every row, to the bit.

The rule of the file: rings and messages in, verdict out. It decodes with the public decoder, and trusts nothing that
the server says of itself but what the protocol tells in-band: from where on, up to where, and what was left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.endtoend.subscribers import BINARY, CLOSE, ENDED, TEXT, Record
from benchmarks.soak.latency import Latencies
from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.spec import ChannelSpec
from ibfast.errors import ProtocolError

FAMILY = "quotes"
VALUES = ("bid", "ask", "bid_size", "ask_size")
PLAIN = ("kind", "attribs", "event_ns")
WINDOW = 0x80
NS_PER_US = 1_000
SHORT_FRAME, LONG_FRAME, SHORT_HEAD, LONG_HEAD = 126, 1 << 16, 2, 4
CLOSE_CODE_NBYTES = 2
TOLD_OF = ("slowed", "ended", "closing", "error", "gap")


class Truth:
    """The rows that the rings had, by instrument.

    Args:
        parts: all rows of `quotes`, in order.
    """

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        rows = np.concatenate(parts)
        rows = rows[np.argsort(rows["instrument"], kind="stable")]
        instruments, begins = np.unique(rows["instrument"], return_index=True)
        self._rows = dict(zip(instruments.tolist(), np.split(rows, begins[1:]), strict=True))
        self._none = rows[:0]
        self.recv_ns = np.sort(rows["recv_ns"])

    def between(self, instrument: int, after_seq: int, up_to_seq: int) -> NDArray[Any]:
        """Return an instrument's rows with after_seq < seq <= up_to_seq."""
        rows = self._rows.get(instrument, self._none)
        first, end = np.searchsorted(rows["seq"], (after_seq, up_to_seq), side="right")
        return rows[first:end]

    def count(self, begin_ns: int, end_ns: int) -> int:
        """Return how many rows were read from the gateway in a time."""
        first, end = np.searchsorted(self.recv_ns, (begin_ns, end_ns))
        return int(end - first)


@dataclass(frozen=True, slots=True)
class Lag:
    """What a connection was told: rows after from_seq up to to_seq were left out, and how many, if that is known."""

    from_seq: int
    to_seq: int
    rows: int | None


@dataclass(slots=True)
class Run:
    """Where a channel was complete: after a snapshot's `seq` up to another; and what the connection got meanwhile."""

    after_seq: int
    begin: int
    up_to_seq: int = 0
    end: int = 0


@dataclass(slots=True)
class Channel:
    """A channel of a connection, as it was described and served."""

    instrument: int
    interval_class: int
    runs: list[Run] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)
    is_open: bool = False


@dataclass(slots=True)
class Verdict:
    """What became of the rows of some connections.

    Attributes:
        delivered: equal to what the rings had, in their place.
        told: left out, and told.
        unreported: left out, and not told.
        wrong: with another value, or sent though the rings had no such row.
        lags: messages that told of rows left out.
        faults: what else was wrong, in words.
    """

    delivered: int = 0
    told: int = 0
    unreported: int = 0
    wrong: int = 0
    lags: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Count what another one has counted."""
        self.delivered += other.delivered
        self.told += other.told
        self.unreported += other.unreported
        self.wrong += other.wrong
        self.lags += other.lags
        self.faults += other.faults


class Connection:
    """What one connection was sent, of which everything was written down.

    Attributes:
        ops: what it was told in text, counted, of what is no answer.
        ending: how it ended, "" while it is open.
        nbytes: of windows, with the heads of their frames.
    """

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self._channels: dict[int, Channel] = {}
        self._parts: list[NDArray[Any]] = []
        self._read_ns: list[int] = []
        self._due_ns: list[int] = []
        self._seqs: dict[int, int] = {}
        self._spans: dict[int, int] = {}
        self._faults: list[str] = []
        self._nbytes: list[int] = []
        self.ops: Counter[str] = Counter()
        self.ending = ""

    @property
    def is_whole(self) -> bool:
        """Whether all that it was sent was written down."""
        return bool(self._parts)

    def take(self, record: Record) -> None:
        """Take a message."""
        if record.opcode == BINARY and not self._faults:
            try:
                self._decode(record)
            except ProtocolError as error:
                self._faults.append(f"a message that can't be decoded: {error}")
        elif record.opcode == TEXT:
            self._hear(orjson.loads(record.payload))
        elif record.opcode == CLOSE:
            payload = record.payload
            code = int.from_bytes(payload[:CLOSE_CODE_NBYTES])
            self.ending = f"{code} {payload[CLOSE_CODE_NBYTES:].decode()}".strip()
        elif record.opcode == ENDED:
            self.ending = self.ending or "cut off"

    def _hear(self, said: dict[str, Any]) -> None:
        if said["op"] in TOLD_OF:
            self.ops[said["op"]] += 1
        for table in said.get("channels", ()):
            spec, number = ChannelSpec.from_description(table), table["channel"]
            before = self._channels.get(number)
            if before is None:
                self._channels[number] = Channel(spec.instrument, spec.interval_class)
            else:  # it goes on at another interval: what follows is of another class
                self._decoder.close(number)
                before.interval_class = spec.interval_class
            self._decoder.open(number, spec)
            self._spans[spec.interval_class] = spec.span_ns

    def _decode(self, record: Record) -> None:
        decoded = self._decoder.decode(record.payload)
        first = record.payload[0]
        if decoded.is_snapshot:
            self._begin(self._channels[decoded.channel], decoded.seq)
        elif decoded.lag is not None:
            _, from_seq, to_seq, rows = decoded.lag
            channel = self._channels[decoded.channel]
            self._end(channel, from_seq)
            channel.lags.append(Lag(from_seq, to_seq, rows))
        elif first >= WINDOW:
            self._seqs[first - WINDOW] = decoded.seq
            part = decoded.rows.get(FAMILY)
            if part is not None and len(part):
                nbytes = len(record.payload)
                head = SHORT_HEAD if nbytes < SHORT_FRAME else LONG_HEAD if nbytes < LONG_FRAME else 10
                self._parts.append(part)
                self._read_ns.append(record.time_ns)
                self._due_ns.append(decoded.time_ns + self._spans[first - WINDOW])
                self._nbytes.append(head + nbytes)

    def _begin(self, channel: Channel, seq: int) -> None:
        self._end(channel, seq)  # without a lag before it, everything up to there has come
        channel.runs.append(Run(seq, len(self._parts)))
        channel.is_open = True

    def _end(self, channel: Channel, seq: int) -> None:
        if channel.is_open:
            channel.runs[-1].up_to_seq, channel.runs[-1].end = seq, len(self._parts)
            channel.is_open = False

    def judge(self, truth: Truth) -> Verdict:
        """Compare what came with what the rings had; the connection gets nothing more."""
        verdict = Verdict(faults=list(self._faults))
        for channel in self._channels.values():
            if channel.is_open:
                after_seq = channel.runs[-1].after_seq
                self._end(channel, max(after_seq, self._seqs.get(channel.interval_class, 0)))
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in self._parts])]).astype(np.int64)
        rows = np.concatenate(self._parts) if self._parts else truth.between(0, 0, 0)
        for channel in self._channels.values():
            places = np.flatnonzero(rows["instrument"] == channel.instrument)
            own = rows[places]
            for run in channel.runs:
                first, end = np.searchsorted(places, (offsets[run.begin], offsets[run.end]))
                expected = truth.between(channel.instrument, run.after_seq, run.up_to_seq)
                _compare(own[first:end], expected, verdict)
            self._count_lost(channel, truth, verdict)
        return verdict

    def _count_lost(self, channel: Channel, truth: Truth, verdict: Verdict) -> None:
        """Count the rows between runs: those of a lag were told."""
        verdict.lags += len(channel.lags)
        for lag in channel.lags:
            rows = len(truth.between(channel.instrument, lag.from_seq, lag.to_seq))
            verdict.told += rows
            if lag.rows not in (None, rows):
                verdict.faults.append(f"told of {lag.rows} rows left out where {rows} were")
        covered = [(lag.from_seq, lag.to_seq) for lag in channel.lags]
        covered += [(run.after_seq, run.up_to_seq) for run in channel.runs]
        reached = min((after for after, _ in covered), default=0)
        for after, up_to in sorted(covered):
            if after > reached:
                verdict.unreported += len(truth.between(channel.instrument, reached, after))
            reached = max(reached, up_to)

    def latencies(self, begin_ns: int, end_ns: int) -> tuple[Latencies, Latencies]:
        """Return how long the rows that were read in a time took, and how late their windows came after their end."""
        rows, windows = Latencies(), Latencies()
        read_ns = np.array(self._read_ns, np.int64)
        first, end = np.searchsorted(read_ns, (begin_ns, end_ns))
        if end > first:
            windows.add(np.maximum(read_ns[first:end] - np.array(self._due_ns[first:end], np.int64), 0))
            counts = [len(part) for part in self._parts[first:end]]
            recv_ns = np.concatenate([part["recv_ns"] for part in self._parts[first:end]])
            rows.add(np.repeat(read_ns[first:end], counts) - recv_ns)
        return rows, windows

    def size(self, begin_ns: int, end_ns: int) -> tuple[int, int]:
        """Return the bytes of windows that were read in a time, and the rows in them."""
        first, end = np.searchsorted(np.array(self._read_ns, np.int64), (begin_ns, end_ns))
        return sum(self._nbytes[first:end]), sum(len(part) for part in self._parts[first:end])


def _compare(came: NDArray[Any], expected: NDArray[Any], verdict: Verdict) -> None:
    if len(came) != len(expected):
        missing = len(expected) - len(came)
        verdict.unreported += max(0, missing)
        verdict.wrong += max(0, -missing)
        return
    is_same = came["recv_ns"] == expected["recv_ns"] // NS_PER_US * NS_PER_US
    for name in VALUES:
        is_same &= np.ascontiguousarray(came[name]).view("u8") == np.ascontiguousarray(expected[name]).view("u8")
    for name in PLAIN:
        is_same &= came[name] == expected[name]
    same = int(np.count_nonzero(is_same))
    verdict.delivered += same
    verdict.wrong += len(came) - same


def read(records: Iterable[Record]) -> dict[int, Connection]:
    """Return what came, by connection."""
    found: dict[int, Connection] = {}
    for record in records:
        found.setdefault(record.connection, Connection()).take(record)
    return found
