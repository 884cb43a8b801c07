"""The feed: where a decoder writes, and from which readers of this process and of others read.

The rule of the file: only the creator writes, in one thread.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ibfast.contracts import Contract
from ibfast.errors import FeedError
from ibfast.feed._feed import ACTIVITY, DTYPES, NO_INSTRUMENT_INDEX, FeedCore
from ibfast.feed.layout import FINGERPRINT, HEADER, MAGIC, RINGS, FeedLayout
from ibfast.feed.segment import Segment
from ibfast.feed.view import AttachedFeed, FeedView
from ibfast.records import FEED_CAPACITY, KEEP_INSTRUMENT_S, MAX_INSTRUMENTS, MOST_INSTRUMENTS, GapCause, Kind, Scope

__all__ = ["ACTIVITY", "BACKFILL_KINDS", "NO_INSTRUMENT", "RINGS", "Feed", "FeedView"]

BACKFILL_KINDS = {"trades": Kind.BACKFILL_TRADE, "quotes": Kind.BACKFILL_QUOTE, "bars": Kind.BACKFILL_BAR}
"""Ring → the kind of its rows that come from history."""
NO_INSTRUMENT = NO_INSTRUMENT_INDEX

RESERVED_TEXTS = 2
MOST_TEXTS = 1 << 24  # so that the offsets of their bytes fit in 32 bits
# How often unused instruments are looked for, in parts of the time that one is kept; and how often where the table is
# full and another one is wanted: a look at all rings takes milliseconds.
LOOKS_PER_KEEP = 60
FULL_LOOK_S = 1.0


class Feed(FeedView):
    """All market data of one login, decoded: the place where a `Decoder` writes and readers read.

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
        capacity: int = FEED_CAPACITY,
        *,
        name: str | None = None,
        max_instruments: int = MAX_INSTRUMENTS,
        max_texts: int = 1 << 16,
        keep_instrument_s: float = KEEP_INSTRUMENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 2 or capacity & (capacity - 1):
            raise FeedError(f"a feed's capacity is a power of two, not {capacity}")
        if not 1 <= max_instruments <= MOST_INSTRUMENTS or not RESERVED_TEXTS <= max_texts <= MOST_TEXTS:
            raise FeedError(
                f"max_instruments is 1 to {MOST_INSTRUMENTS:,} and max_texts {RESERVED_TEXTS} to {MOST_TEXTS:,}, not "
                f"{max_instruments} and {max_texts}"
            )
        layout = FeedLayout(capacity, max_instruments, max_texts)
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
        _clear_last_values(memory, layout)
        offsets = {part: start for part, (start, _) in layout.parts.items()}
        self.core = FeedCore(memory, offsets, self.rings, max_instruments, max_texts, layout.text_bytes)
        _write_header(memory, layout)  # last: an attacher that sees it sees a complete feed

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
        """Return the index of a contract at its exchange (see `InstrumentTable`), made with that label on first use.

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
        """Return whether `instrument_of` would return an index that is there already."""
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
            owner: the connection that has it, until `release`.
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
        """Record in `depth`, by a row of kind DEPTH_RESET, that the book of a request begins anew."""
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


def _own_memory(nbytes: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, nbytes)
    except (OSError, OverflowError) as error:
        raise FeedError(f"no memory for a feed of {nbytes:,} bytes") from error


def _clear_last_values(memory: mmap.mmap, layout: FeedLayout) -> None:
    last = np.frombuffer(memory, DTYPES["last"], layout.max_instruments, layout.parts["last"][0])
    for field in DTYPES["last"].names or ():
        if DTYPES["last"][field] == np.float64:
            last[field] = np.nan


def _write_header(memory: mmap.mmap, layout: FeedLayout) -> None:
    header = np.frombuffer(memory, HEADER, 1)
    bounds = layout.total_bytes, layout.capacity, layout.max_instruments, layout.max_texts, layout.text_bytes
    header[0] = (0, *bounds, FINGERPRINT, 0)
    header["magic"] = MAGIC
