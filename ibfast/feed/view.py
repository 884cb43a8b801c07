"""A feed as its readers see it, in the creator's process or attached from another one.

The rule of the file: it reads. One block of memory holds everything that readers see, described by the header at its
start, so that another process needs the feed's name and nothing else.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.errors import FeedError
from ibfast.feed._feed import DTYPES
from ibfast.feed._ring import fence_reads
from ibfast.feed.layout import CONTROL, FINGERPRINT, HEADER, MAGIC, RINGS, FeedLayout
from ibfast.feed.ring import RingBuffer
from ibfast.feed.segment import Segment
from ibfast.feed.tables import READ_TRIES, InstrumentTable, TableCounters, TextTable

__all__ = ["AttachedFeed", "FeedView"]


class FeedView:
    """The rings and tables of a feed.

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
        self, memory: mmap.mmap, layout: FeedLayout, *, writable: bool, check: Callable[[], None] | None = None
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
        control = TableCounters(self._array(layout, "control", CONTROL)[0], bounds, check)
        self.texts = TextTable(
            control,
            self._array(layout, "text_offsets", np.dtype(np.uint32)),
            self._array(layout, "text_arena", np.dtype(np.uint8)),
        )
        self.instruments = InstrumentTable(control, self._array(layout, "instruments", DTYPES["instruments"]))
        self.last = self._array(layout, "last", DTYPES["last"])

    def _array(self, layout: FeedLayout, part: str, dtype: np.dtype[Any]) -> NDArray[Any]:
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
        for _ in range(READ_TRIES):
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
        layout = FeedLayout(int(header["capacity"]), int(header["max_instruments"]), int(header["max_texts"]))
        sizes = layout.total_bytes, layout.text_bytes
        fits = (header["total_bytes"], header["text_bytes"]) == sizes and layout.total_bytes <= len(memory)
        if header["layout"] != FINGERPRINT or not fits:
            raise FeedError(f"feed {name!r} was made by a release of ibfast with other records: use the same one")
        super().__init__(memory, layout, writable=False, check=self._segment.require_whole)

    @property
    def writer_alive(self) -> bool:
        """Whether the process that made the feed still holds it."""
        return self._segment.is_held()
