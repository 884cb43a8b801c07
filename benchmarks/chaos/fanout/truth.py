"""What there was: every row that the rings published, and which of them belong to which subscription.

The rule of the file: it reads the rings like any other program and asks the server nothing. It stands between the
server and its source, so that it knows which subscriptions the server had at the gateway, and from when to when. A
*generation* is one of these: while it lasts, whatever happens to the connection, rows and books go on; where another
one begins, nothing goes on.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.chaos.fanout.books import Book
from ibfast.connection.stream import Stream
from ibfast.contracts import Contract
from ibfast.feed import Feed
from ibfast.feed.ring import RingBuffer
from ibfast.records import Kind

FAMILIES = ("quotes", "trades", "ticks", "depth", "bars", "greeks")
TEXTS = frozenset({"text", "exchange", "conditions", "market_maker"})
HEADER = ("seq", "recv_ns", "instrument", "req_id", "kind")
OLD_KINDS = frozenset({Kind.BACKFILL_TRADE, Kind.BACKFILL_QUOTE, Kind.BACKFILL_BAR})
KEYED = frozenset({"ticks", "greeks"})
CHECKPOINT = 128
"""Operations after which a book is kept, so that no book is built from its very beginning."""
Key = tuple[int, str, str]
"""Contract id, exchange and data type."""


@dataclass(slots=True, eq=False)
class Row:
    """A row of a ring; doubles as their bits, texts as text. `told`: how it is said, by the form of a channel."""

    seq: int
    family: str
    kind: int
    values: dict[str, Any]
    told: dict[Any, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """The rows of one family that one request has brought an instrument, in order."""

    seqs: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def between(self, after_seq: int, up_to_seq: int) -> list[Row]:
        """Return the rows with after_seq < seq <= up_to_seq."""
        first, end = bisect.bisect_right(self.seqs, after_seq), bisect.bisect_right(self.seqs, up_to_seq)
        return self.rows[first:end]


class Generation:
    """A subscription that the server had at the gateway.

    Attributes:
        subscription: the source's; it lasts as long as anybody wants it.
        opened_seq: the feed's sequence number when the server got it first; `closed_seq`: when the server had given it
            up, or its source had; None while it lasts.
        streams: the source's streams of it that the server holds, or has.
        req_ids: of the requests that have served it so far.
    """

    def __init__(self, truth: Truth, stream: Stream, opened_seq: int) -> None:
        self.subscription = stream.subscription
        self.instrument = stream.instrument
        self.opened_seq = opened_seq
        self.closed_seq: int | None = None
        self.streams = [stream]
        self.req_ids: dict[int, None] = {}
        self._truth = truth
        self._operations: list[Row] = []
        self._checkpoints: list[Book] = [Book()]

    def look(self, seq: int) -> None:
        """Note the requests that serve it, and whether it is over."""
        if self.closed_seq is None:
            self.req_ids.update(dict.fromkeys(self.subscription.req_ids))
            if not any(stream.live for stream in self.streams):
                self.closed_seq = seq

    def records(self, family: str) -> Iterator[Record]:
        """Yield what its requests have brought."""
        for req_id in self.req_ids:
            record = self._truth.records.get((family, req_id, self.instrument))
            if record is not None:
                yield record

    def rows(self, family: str, kinds: frozenset[int], after_seq: int, up_to_seq: int) -> list[Row]:
        """Return its rows of a family and of these kinds with after_seq < seq <= up_to_seq."""
        parts = [part for record in self.records(family) if (part := record.between(after_seq, up_to_seq))]
        rows = parts[0] if len(parts) == 1 else sorted((row for part in parts for row in part), key=lambda row: row.seq)
        return [row for row in rows if row.kind in kinds]

    def latest(self, family: str, kinds: frozenset[int], up_to_seq: int) -> list[Row]:
        """Return the last row of each key up to a sequence number, oldest first; what is of history is no state."""
        kinds = kinds - OLD_KINDS
        found: dict[Any, Row] = {}
        for record in self.records(family):
            own: dict[Any, Row] = {}
            for place in range(bisect.bisect_right(record.seqs, up_to_seq) - 1, -1, -1):
                row = record.rows[place]
                if row.kind in kinds:
                    own.setdefault(row.values["tick_type"] if family in KEYED else None, row)
                    if family not in KEYED:
                        break
            found |= {key: row for key, row in own.items() if key not in found or found[key].seq < row.seq}
        return sorted(found.values(), key=_seq)

    def book(self, up_to_seq: int) -> Book:
        """Return the order book after a sequence number."""
        last = self._operations[-1].seq if self._operations else -1
        new = sorted((row for each in self.records("depth") for row in each.between(last, 1 << 62)), key=_seq)
        for row in new:
            if len(self._operations) % CHECKPOINT == 0 and self._operations:
                self._checkpoints.append(self._replayed(len(self._operations)))
            self._operations.append(row)
        return self._replayed(bisect.bisect_right(self._operations, up_to_seq, key=_seq))

    def _replayed(self, count: int) -> Book:
        checkpoint = min(count // CHECKPOINT, len(self._checkpoints) - 1)
        book = self._checkpoints[checkpoint].copy()
        for row in self._operations[checkpoint * CHECKPOINT : count]:
            book.take(row.kind, row.values)
        return book

    def story_of(self, seq: int) -> str:
        """Return which request has brought a row, and what this subscription knows of its requests."""
        brought = [key for key, record in self._truth.records.items() if record.between(seq - 1, seq)]
        own = f"{self.subscription!r} by {[*self.req_ids]}, instrument {self.instrument}"
        return f"seq {seq} is of {brought}; {own}, from {self.opened_seq} to {self.closed_seq}"

    @property
    def has_wrapped(self) -> bool:
        """Whether a ring may have forgotten a row of it."""
        return self._truth.has_wrapped


class Truth:
    """All of it, for one feed.

    Attributes:
        records: by family, request and instrument.
        gaps: rows of the feed's `gaps`.
        generations: all that there were; `of_key`: those of a contract and data type, oldest first.
        is_blind: rows were overwritten before they could be written down here: from then on no row is judged.
        is_followed: whether the rings are still to be read.
        count: rows so far.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._readers = {name: feed.rings[name].reader(start="next") for name in (*FAMILIES, "gaps")}
        self._texts: dict[int, str] = {0: ""}
        self.records: dict[tuple[str, int, int], Record] = {}
        self.gaps: list[dict[str, int]] = []
        self.generations: list[Generation] = []
        self.of_key: dict[Key, list[Generation]] = {}
        self.is_blind = False
        self.is_followed = True
        self.count = 0

    def follow(self) -> None:
        """Look soon after everything that is published, from now on. To be called in the loop that fills the feed."""
        loop = asyncio.get_running_loop()
        for reader in self._readers.values():
            self._await(reader.ring, loop)
        self.look()

    def _await(self, ring: RingBuffer, loop: asyncio.AbstractEventLoop) -> None:
        def look() -> None:
            if self.is_followed:
                ring.when_published(published)
                self.look()

        def published() -> None:
            loop.call_soon(look)

        ring.when_published(published)

    @property
    def seq(self) -> int:
        """The newest sequence number."""
        return int(self._feed.seq)

    @property
    def has_wrapped(self) -> bool:
        """Whether a ring may have forgotten a row."""
        return any(reader.ring.published > reader.ring.capacity for reader in self._readers.values())

    def look(self) -> None:
        """Take in what is new. To be called before the rings come round."""
        for generation in self.generations:
            generation.look(self.seq)
        for name, reader in self._readers.items():
            if reader.pending:
                rows = reader.read()
                self.is_blind = self.is_blind or reader.lost > 0
                if name == "gaps":
                    self.gaps += plain(rows)
                else:
                    self._take(name, rows)

    def _take(self, family: str, rows: NDArray[Any]) -> None:
        self.count += len(rows)
        for values in plain(rows):
            for name in TEXTS & values.keys():
                values[name] = self._text(values[name])
            key = (family, values.pop("req_id"), values.pop("instrument"))
            row = Row(values.pop("seq"), family, values.pop("kind"), values)
            record = self.records.setdefault(key, Record())
            record.seqs.append(row.seq)
            record.rows.append(row)

    def _text(self, text_id: int) -> str:
        if text_id not in self._texts:
            self._texts[text_id] = self._feed.texts[text_id]
        return self._texts[text_id]

    def opened(self, key: Key, stream: Stream, since_seq: int) -> None:
        """Note that the server has got a stream."""
        known = next((each for each in self.generations if each.subscription is stream.subscription), None)
        if known is None or known.closed_seq is not None:
            known = Generation(self, stream, since_seq)
            self.generations.append(known)
        else:
            known.streams.append(stream)
        known.look(self.seq)
        generations = self.of_key.setdefault(key, [])
        if known not in generations:
            generations.append(known)


class Source:
    """What the server asks: a manager or a pool, with the truth looking over its shoulder."""

    def __init__(self, source: Any, truth: Truth) -> None:
        self._source = source
        self._truth = truth

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def wanted(self, contract: object, data_type: str, **options: Any) -> Any:
        """See `ibfast.fanout.upstream.Source`."""
        return await self._source.wanted(contract, data_type, **options)

    async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Stream:
        """See `ibfast.fanout.upstream.Source`."""
        since_seq = self._truth.seq
        stream: Stream = await self._source.subscribe(contract, data_type, **options)
        asked = Contract.of(contract)
        self._truth.opened((stream.contract.con_id, asked.exchange or "SMART", str(data_type)), stream, since_seq)
        return stream


def _seq(row: Row) -> int:
    return row.seq


def plain(rows: NDArray[Any]) -> list[dict[str, Any]]:
    """Return rows as dicts of integers; doubles as their bits."""
    names = rows.dtype.names or ()
    columns = []
    for name in names:
        column = np.ascontiguousarray(rows[name])
        columns.append((column.view(np.uint64) if column.dtype.kind == "f" else column).tolist())
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
