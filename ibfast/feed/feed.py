"""The feed: all rings, the last-value table, instruments and texts, in this process's memory or in shared memory.

The rule of the file: one block of memory holds everything that readers see, described by the header at its start, so
that another process needs the feed's name and nothing else. Only the creator writes.

    header │ control │ last │ instruments │ text offsets │ text bytes │ ring │ ring │ …      each part 64-byte aligned
"""

from __future__ import annotations

import hashlib
import mmap
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibfast.contracts import Contract
from ibfast.errors import FeedError
from ibfast.feed._feed import ACTIVITY, DTYPES, NO_INSTRUMENT_INDEX, TABLES_CONTROL_BYTES, FeedCore
from ibfast.feed._ring import CONTROL_BYTES, fence_reads
from ibfast.feed.ring import RingBuffer
from ibfast.feed.segment import Segment
from ibfast.records import GapCause, Kind, Scope

__all__ = ["ACTIVITY", "BACKFILL_KINDS", "NO_INSTRUMENT", "RINGS", "Feed", "FeedView"]

RINGS = ("ticks", "trades", "quotes", "depth", "bars", "greeks", "gaps")
BACKFILL_KINDS = {"trades": Kind.BACKFILL_TRADE, "quotes": Kind.BACKFILL_QUOTE, "bars": Kind.BACKFILL_BAR}
"""Ring → the kind of its rows that come from history."""
NO_INSTRUMENT = NO_INSTRUMENT_INDEX
SMART = "SMART"

MAGIC = int.from_bytes(b"ibfast\0\1", "little")
HEADER = np.dtype(
    [
        ("magic", "u8"),
        ("total_bytes", "u8"),
        ("capacity", "u8"),
        ("max_instruments", "u4"),
        ("max_texts", "u4"),
        ("text_bytes", "u8"),
        ("layout", "u8"),
        ("reserved", "u8", 2),
    ]
)
CONTROL = np.dtype([("instruments", "u8"), ("texts", "u8"), ("text_bytes", "u8"), ("texts_refused", "u8"),
                    ("instruments_refused", "u8")])  # fmt: skip
MEAN_TEXT_BYTES = 64
RESERVED_TEXTS = 2
MOST_INSTRUMENTS = 1 << 24
MOST_TEXTS = 1 << 24  # so that the offsets of their bytes fit in 32 bits
SNAPSHOT_TRIES = 10_000
# How often unused instruments are looked for, in parts of the time that one is kept; and how often where the table is
# full and another one is wanted: a look at all rings takes milliseconds.
LOOKS_PER_KEEP = 60
FULL_LOOK_S = 1.0


class _Layout:
    """Where each part of the block stands, for given bounds."""

    def __init__(self, capacity: int, max_instruments: int, max_texts: int) -> None:
        self.capacity = capacity
        self.max_instruments = max_instruments
        self.max_texts = max_texts
        self.text_bytes = max_texts * MEAN_TEXT_BYTES
        sizes = {
            "header": HEADER.itemsize,
            "control": TABLES_CONTROL_BYTES,
            "last": max_instruments * DTYPES["last"].itemsize,
            "instruments": max_instruments * DTYPES["instruments"].itemsize,
            "text_offsets": 4 * (max_texts + 1),
            "text_arena": self.text_bytes,
            **{name: CONTROL_BYTES + capacity * DTYPES[name].itemsize for name in RINGS},
        }
        self.parts: dict[str, tuple[int, int]] = {}
        end = 0
        for name, size in sizes.items():
            self.parts[name] = (end, size)
            end = (end + size + 63) & ~63
        self.total_bytes = end


def _fingerprint() -> int:
    """A number that differs when any record differs: two releases never misread each other's rows."""
    text = repr([(name, DTYPES[name].descr, DTYPES[name].itemsize) for name in sorted(DTYPES)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


FINGERPRINT = _fingerprint()


class _Control:
    """The tables' counters. Another process may have damaged them, so that none is above its table's bound.

    Args:
        words: the counters in the memory.
        bounds: of the tables, by counter.
        check: called before each look at the memory; raises where the memory must not be touched any more.
    """

    def __init__(self, words: NDArray[np.void], bounds: Mapping[str, int], check: Callable[[], None] | None) -> None:
        self._words = words
        self._bounds = bounds
        self._check = check

    def __getitem__(self, name: str) -> int:
        if self._check is not None:
            self._check()
        value = int(self._words[name])
        return min(value, self._bounds.get(name, value))


class Texts:
    """Interned strings by id: exchanges, conditions, market makers, text ticks. 0 is ""; 1, all past the bound."""

    def __init__(self, control: _Control, offsets: NDArray[np.uint32], arena: NDArray[np.uint8]) -> None:
        self._control = control
        self._offsets = offsets
        self._arena = arena

    def __len__(self) -> int:
        return self._control["texts"]

    def __getitem__(self, text_id: int) -> str:
        if not 0 <= text_id < len(self):
            raise IndexError(f"no text {text_id}")
        return self._arena[self._offsets[text_id] : self._offsets[text_id + 1]].tobytes().decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return (self[text_id] for text_id in range(len(self)))

    @property
    def refused(self) -> int:
        """How often a text found no place and became "<other>"."""
        return self._control["texts_refused"]


class Instruments:
    """The instrument table: a row's `instrument` is an index into it, and stays so across reconnects.

    An instrument is a contract at an exchange: the pair of con_id and exchange, as IB is asked for its data. "SMART" is
    an exchange like any other: what IB's router sees is another market than what one venue sees. Exchanges are compared
    as they are written. The primary exchange distinguishes no instruments: it helps IB to find the contract. A contract
    that was found by its symbol has IB's con_id, and IB's exchange where the description names none. A combo ("BAG")
    and a contract without con_id are known by their whole descriptions. What a request adds to the contract, such as
    the number of levels of a book or `is_smart_depth`, belongs to the request: two requests of one instrument differ by
    `req_id`, and so do their books.

    An index is given to another instrument when nothing has used the first one for long, and no ring has a row of it.
    Then its `generation` is another one. Code that keeps an index for long reads the generation, then the label, and
    looks the label up again where the generation has changed.
    """

    def __init__(self, control: _Control, table: NDArray[np.void]) -> None:
        self._control = control
        self._table = table
        self._generations = table["generation"]

    def __len__(self) -> int:
        """Return how many indices are, or were, in use."""
        return self._control["instruments"]

    def __getitem__(self, instrument: int) -> str:
        """Return the label that the instrument was made with, such as "AAPL"; "" where the index is free."""
        return self._entry(instrument)[1]

    def __iter__(self) -> Iterator[str]:
        return (self[instrument] for instrument in range(len(self)))

    def con_id(self, instrument: int) -> int:
        """Return IB's contract id, 0 where it is not known."""
        return self._entry(instrument)[0]

    def exchange(self, instrument: int) -> str:
        """Return the exchange at which the contract is asked for, "" where it is not known."""
        return self._entry(instrument)[2]

    def generation(self, instrument: int) -> int:
        """Return how often the index was freed or given to another instrument: it is odd while the index is free.

        A label, con_id or exchange that is read after a generation is of this generation or a later one.
        """
        self._require(instrument)
        generation = int(self._generations[instrument])
        fence_reads()
        return generation

    def _entry(self, instrument: int) -> tuple[int, str, str]:
        """Return con_id, label and exchange as of one moment."""
        for _ in range(SNAPSHOT_TRIES):
            generation = self.generation(instrument)
            if generation & 1:
                break
            _, con_id, label, exchange = self._table[instrument].item()
            fence_reads()
            if generation == self._generations[instrument]:
                return con_id, label.decode("utf-8", "replace"), exchange.decode("utf-8", "replace")
        return 0, "", ""

    def _require(self, instrument: int) -> None:
        if not 0 <= instrument < len(self):
            raise IndexError(f"no instrument {instrument}")

    def index(self, label: str, exchange: str | None = None) -> int:
        """Return the last index of an instrument with that label.

        Args:
            label: such as "AAPL".
            exchange: at which exchange; None: the instrument at SMART, and where there is none, any.

        Raises:
            KeyError: there is none.
        """
        found = [index for index in range(len(self)) if self[index] == label]
        for wanted in (SMART, None) if exchange is None else (exchange,):
            for index in reversed(found):
                if wanted in (None, self.exchange(index)):
                    return index
        raise KeyError(label if exchange is None else (label, exchange))

    @property
    def refused(self) -> int:
        """How many messages belong to no instrument because the table was full."""
        return self._control["instruments_refused"]


class FeedView:
    """What readers see of a feed, in the creator's process or attached from another one.

    Attributes:
        ticks, trades, quotes, depth, bars, greeks, gaps: the rings, each a `RingBuffer`; their dtypes are in `dtypes`.
        last: the last-value table, a structured array of shape (max_instruments,), row = instrument: `last["bid"]` is
            the whole market as one vector. Live and read-only; `snapshot()` gives consistent rows.
        texts: interned strings by id.
        instruments: labels, contract ids, exchanges and generations by instrument index.
    """

    dtypes: Mapping[str, np.dtype[Any]] = MappingProxyType(DTYPES)

    ticks: RingBuffer
    trades: RingBuffer
    quotes: RingBuffer
    depth: RingBuffer
    bars: RingBuffer
    greeks: RingBuffer
    gaps: RingBuffer

    def __init__(
        self, memory: mmap.mmap, layout: _Layout, *, writable: bool, check: Callable[[], None] | None = None
    ) -> None:
        self._memory = memory
        view = memoryview(memory)
        for name in RINGS:
            start, size = layout.parts[name]
            part = view[start : start + size]
            ring = RingBuffer(DTYPES[name], part, layout.capacity * writable, check)
            if ring.capacity != layout.capacity:
                raise FeedError(f"the feed is damaged: its ring {name} has {ring.capacity} rows, not {layout.capacity}")
            setattr(self, name, ring)
        bounds = {"instruments": layout.max_instruments, "texts": layout.max_texts}
        control = _Control(self._array(layout, "control", CONTROL)[0], bounds, check)
        self.texts = Texts(
            control,
            self._array(layout, "text_offsets", np.dtype(np.uint32)),
            self._array(layout, "text_arena", np.dtype(np.uint8)),
        )
        self.instruments = Instruments(control, self._array(layout, "instruments", DTYPES["instruments"]))
        self.last = self._array(layout, "last", DTYPES["last"])

    def _array(self, layout: _Layout, part: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        start, size = layout.parts[part]
        array = np.frombuffer(self._memory, dtype, size // dtype.itemsize, start)
        array.flags.writeable = False
        return array

    def snapshot(self) -> NDArray[np.void]:
        """Return a copy of the last-value table's rows in use, each row as of one moment.

        A row whose `version` is odd is the exception: its writer died in it.
        """
        live = self.last[: len(self.instruments)]
        rows = np.empty(len(live), live.dtype)
        torn = np.arange(len(live))
        # A row's version is odd while the writer is in it and grows by two with every change.
        for _ in range(SNAPSHOT_TRIES):
            before = live["version"][torn]
            fence_reads()
            rows[torn] = live[torn]
            fence_reads()
            torn = torn[(before & 1 == 1) | (before != live["version"][torn])]
            if not len(torn):
                break
            time.sleep(0)
        rows["version"][torn] |= 1
        return rows

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.instruments)} instruments, {self.ticks.capacity:,} rows a ring>"

    @property
    def rings(self) -> dict[str, RingBuffer]:
        """All rings by name."""
        return {name: getattr(self, name) for name in RINGS}


class Feed(FeedView):
    """All market data of one login, decoded: the place where a `Decoder` writes and everybody reads.

    Args:
        capacity: rows per ring, a power of two. A ring must hold what comes while its slowest reader looks elsewhere.
        name: makes the feed readable from other processes of this machine by `Feed.attach(name)`. The name is free
            again when this feed is closed, or its process has ended in any way. The memory is freed with it, unless a
            signal has killed the process: then it stays until the next feed of that name.
        max_instruments: bound of the instrument table (384 bytes each).
        max_texts: bound of the table of interned strings, 2 of which are taken ("" and the one for all past the bound).
        keep_instrument_s: how long an instrument of `instrument_of` keeps its index when nothing uses it any more.
        clock: seconds that never decrease.

    Attributes:
        freed: how many indices of instruments were freed so far.

    Raises:
        FeedError: the name is in use, a bound is out of range, or there is not enough memory.
    """

    def __init__(
        self,
        capacity: int = 1 << 16,
        *,
        name: str | None = None,
        max_instruments: int = 4096,
        max_texts: int = 1 << 16,
        keep_instrument_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 2 or capacity & (capacity - 1):
            raise FeedError(f"a feed's capacity is a power of two, not {capacity}")
        if not 1 <= max_instruments <= MOST_INSTRUMENTS or not RESERVED_TEXTS <= max_texts <= MOST_TEXTS:
            raise FeedError(
                f"max_instruments is 1 to {MOST_INSTRUMENTS:,} and max_texts {RESERVED_TEXTS} to {MOST_TEXTS:,}, not "
                f"{max_instruments} and {max_texts}"
            )
        layout = _Layout(capacity, max_instruments, max_texts)
        self.name = name
        self._claiming = threading.Lock()
        self._owners: list[tuple[object, Callable[[], Iterable[int]]]] = []
        self._thread_id = 0
        self._keep_s = keep_instrument_s
        self._clock = clock
        self._looked_s = clock()
        self._indices: dict[Hashable, int] = {}  # of the instruments that are freed when nothing uses them
        self._unused_since_s: dict[int, float] = {}
        self.freed = 0
        self._segment = Segment.create(name, layout.total_bytes) if name else None
        memory = self._segment.memory if self._segment else _own_memory(layout.total_bytes)
        super().__init__(memory, layout, writable=True)
        last = np.frombuffer(memory, DTYPES["last"], max_instruments, layout.parts["last"][0])
        for field in DTYPES["last"].names or ():
            if DTYPES["last"][field] == np.float64:
                last[field] = np.nan
        offsets = {part: start for part, (start, _) in layout.parts.items()}
        self.core = FeedCore(memory, offsets, self.rings, max_instruments, max_texts, layout.text_bytes)
        header = np.frombuffer(memory, HEADER, 1)
        bounds = (layout.total_bytes, capacity, max_instruments, max_texts, layout.text_bytes, FINGERPRINT)
        header[0] = (0, *bounds, 0)
        header["magic"] = MAGIC  # last: an attacher that sees it sees a complete feed

    @classmethod
    def attach(cls, name: str) -> AttachedFeed:
        """Open the feed of that name, which another process (or this one) has created, for reading.

        Raises:
            FeedError: there is no such feed, another release of ibfast with other records made it, another user could
                have written it, or it is damaged.
        """
        return AttachedFeed(name)

    def add_instrument(self, label: str, con_id: int = 0, exchange: str = "") -> int:
        """Make a new instrument, which keeps its index as long as the feed lives; FeedError when the table is full."""
        return self.core.add_instrument(label, con_id, exchange)

    def instrument_of(self, contract: Contract, label: str) -> int:
        """Return the index of a contract at its exchange (see `Instruments`), made with that label on first use.

        The index is the contract's for `keep_instrument_s` after this call, and as long as a request is bound to it or
        an owner uses it (see `claim`). A later caller asks again.

        Args:
            contract: as IB is asked for it.
            label: what it is called.

        Raises:
            FeedError: the table is full.
        """
        key = contract.identity
        index = self._indices.get(key)
        if index is None:
            if self.core.is_full and self._clock() - self._looked_s >= min(FULL_LOOK_S, self._keep_s):
                self._free_unused()
            index = self._indices[key] = self.add_instrument(label, contract.con_id, contract.exchange)
        self._unused_since_s.pop(index, None)
        return index

    def has_instrument(self, contract: Contract) -> bool:
        """Tell whether `instrument_of` would return an index that is there already."""
        return contract.identity in self._indices

    def free_unused(self) -> None:
        """Free the indices that nothing has used for `keep_instrument_s`. Call it often, in the thread that fills.

        Whatever may be found under an index is gone before the index is free: no request is bound to it, no owner uses
        it, and no ring has a row of it. Its last values are void.
        """
        if self._clock() - self._looked_s >= self._keep_s / LOOKS_PER_KEEP:
            self._free_unused()

    def _free_unused(self) -> None:
        now_s = self._looked_s = self._clock()
        in_use = self.core.bound()
        for _, used in self._owners:
            in_use[list(used())] = True
        since_s = self._unused_since_s
        over: list[Hashable] = []
        for key, index in self._indices.items():
            if in_use[index]:
                since_s.pop(index, None)
            elif now_s - since_s.setdefault(index, now_s) >= self._keep_s:
                over.append(key)
        in_rings = self.core.in_rings() if over else in_use
        for key in over:
            if not in_rings[self._indices[key]]:
                index = self._indices.pop(key)
                del since_s[index]
                self.core.free_instrument(index)
                self.freed += 1

    def claim(self, owner: object, uses: Callable[[], Iterable[int]] = tuple) -> None:
        """Take the feed for a connection. Several may have it, but all in one thread: a feed has one writer.

        Args:
            owner: who has it, until `release`.
            uses: returns the instruments whose indices the owner keeps: they are not freed.

        Raises:
            FeedError: a connection of another thread has it.
        """
        thread_id = threading.get_ident()
        with self._claiming:
            if self._owners and thread_id != self._thread_id:
                raise FeedError("this feed is filled in another thread: give the connections of each thread a Feed")
            self._thread_id = thread_id
            if not any(other is owner for other, _ in self._owners):
                self._owners.append((owner, uses))

    def release(self, owner: object) -> None:
        """Give the feed back."""
        with self._claiming:
            self._owners = [(other, uses) for other, uses in self._owners if other is not owner]

    def next_req_id(self) -> int:
        """Return a request id: 1, 2, 3 …, never the same again, whichever connections share the feed."""
        return self.core.next_req_id()

    def bind(self, req_id: int, instrument: int, sec_type: str = "") -> None:
        """Have all messages of a request belong to an instrument until it is forgotten; its activity begins anew.

        Args:
            sec_type: the contract's. It decides which prices mean "no data": those of an index ("IND") and of a combo
                ("BAG") differ from all others.
        """
        self.core.bind(req_id, instrument, sec_type)

    def forget_requests(self, req_ids: Iterable[int] | None = None) -> None:
        """Unbind these requests, or all of them: with their connection the ids die, and so do their merged quotes.

        What comes afterwards of a request that has its id from `next_req_id` belongs to no instrument: see `late`.
        """
        if req_ids is None:
            self.core.forget_all_requests()
        else:
            for req_id in req_ids:
                self.core.forget_request(req_id)

    def activity(self, req_ids: Sequence[int]) -> NDArray[np.void]:
        """Return what came so far of each of these requests, in the thread that has claimed the feed.

        Returns:
            An array of dtype `ACTIVITY` and of the length of `req_ids`: `messages`, all kinds of records together, and
            time and sequence number of the first and the last record. Zeros for a request that is not bound.
        """
        return self.core.activity(np.ascontiguousarray(req_ids, np.int32))

    def await_gap(
        self, req_id: int, scope: Scope, cause: GapCause, first_seq: int, first_ns: int, *, ends: bool
    ) -> None:
        """Have a row of a gap come directly before the next record of a request.

        The record also counts as the request's first one in `activity`, whose `first_seq` is 0 until it has come.

        Args:
            req_id: a bound request.
            scope, cause: what was interrupted, and why.
            first_seq, first_ns: where the gap begins, as in `add_gap`.
            ends: whether that record ends the gap; if not, the row is the gap's open row.
        """
        self.core.await_gap(req_id, scope, cause, first_seq, first_ns, ends)

    def forget_gap(self, req_id: int) -> None:
        """Take `await_gap` back."""
        self.core.forget_gap(req_id)

    def oldest_seq(self) -> int:
        """Return the sequence number below which no ring holds a record any more."""
        oldest = [int(ring.reader(start="oldest").read(1)["seq"][0]) for ring in self.rings.values() if len(ring)]
        return min(oldest, default=self.seq + 1)

    def add_book_reset(self, recv_ns: int, req_id: int) -> None:
        """Tell readers of `depth`, by a row of kind DEPTH_RESET, that the book of a request begins anew."""
        self.core.add_book_reset(recv_ns, req_id)

    def text_id(self, text: str) -> int:
        """Return the id of a text in `texts`; it is put there, as far as there is room."""
        return self.core.text_id(text)

    def add_history(self, ring: str, rows: NDArray[np.void]) -> None:
        """Append rows of the past, in the thread that has claimed the feed.

        They get the next sequence numbers, and a kind that marks them: see `BACKFILL_KINDS`. Neither last values nor
        `activity` change: what is old must not look fresh.

        Args:
            ring: "trades", "quotes" or "bars".
            rows: of that ring's dtype, complete but for `seq` and `kind`.

        Raises:
            FeedError: there is no such ring for history.
        """
        if ring not in BACKFILL_KINDS:
            raise FeedError(f"history goes to {', '.join(BACKFILL_KINDS)}, not to {ring!r}")
        self.core.add_history(ring, rows)

    def add_gap(
        self,
        recv_ns: int,
        scope: Scope,
        cause: GapCause,
        *,
        instrument: int = NO_INSTRUMENT,
        req_id: int = -1,
        first_seq: int = 0,
        last_seq: int = 0,
        first_ns: int = 0,
        last_ns: int = 0,
        count: int = 0,
        recovered: bool = False,
    ) -> None:
        """Record an interruption of the data in the `gaps` ring.

        Args:
            recv_ns: when it was noticed, UTC.
            scope, cause: what was interrupted, and why.
            instrument, req_id: of the subscription, where it is about one.
            first_seq, last_seq: which records are affected, by feed-wide sequence number; 0 is not known (yet).
            first_ns, last_ns: the time from and to which data is missing; 0 is not known (yet).
            count: how many records are missing, where that is known.
            recovered: whether the data flows again.
        """
        self.core.add_gap(
            recv_ns, scope, cause, instrument, req_id, first_seq, last_seq, first_ns, last_ns, count, recovered
        )

    @property
    def late(self) -> int:
        """How many messages came of requests that were forgotten by then: their rows have `NO_INSTRUMENT`."""
        return self.core.late

    @property
    def seq(self) -> int:
        """The sequence number of the newest record of all rings."""
        return self.core.seq

    def close(self) -> None:
        """Give the name back. Rows stay readable, here and in processes that are attached already."""
        if self._segment:
            self._segment.remove()
            self._segment = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AttachedFeed(FeedView):
    """A feed of another process, read-only. It stays readable when the creator ends, however it ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._segment = Segment.open(name)
        memory = self._segment.memory
        # A copy: what was checked is what is used.
        header = np.frombuffer(memory[: HEADER.itemsize].ljust(HEADER.itemsize, b"\0"), HEADER)[0]
        if header["magic"] != MAGIC:
            raise FeedError(f"feed {name!r} is not complete yet: try again")
        # In Python's integers, which don't overflow: a layout that fits the file has no part beyond it.
        layout = _Layout(int(header["capacity"]), int(header["max_instruments"]), int(header["max_texts"]))
        sizes = layout.total_bytes, layout.text_bytes
        fits = (header["total_bytes"], header["text_bytes"]) == sizes and layout.total_bytes <= len(memory)
        if header["layout"] != FINGERPRINT or not fits:
            raise FeedError(f"feed {name!r} was made by a release of ibfast with other records: use the same one")
        super().__init__(memory, layout, writable=False, check=self._segment.require_whole)

    @property
    def writer_alive(self) -> bool:
        """Whether the process that made the feed still holds it."""
        return self._segment.is_held()


def _own_memory(nbytes: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, nbytes)
    except (OSError, OverflowError) as error:
        raise FeedError(f"no memory for a feed of {nbytes:,} bytes") from error
