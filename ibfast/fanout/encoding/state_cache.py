"""What is known of each instrument now: one state for all its channels, whatever their dialect, interval and fields.

The rule of the file: whole, or said not to be. A state begins with the gateway's subscription and takes every row
since, however short the rings' memory is. They are read in the thread that fills the feed, and late: when somebody
asks, or before they come round.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.fanout.encoding.channel_state import IS_OLD, KEYED, ChannelState, by_instrument
from ibfast.fanout.encoding.channels import Channel
from ibfast.fanout.encoding.dialect import Rows
from ibfast.fanout.encoding.ring_history import reaches, rows_between
from ibfast.fanout.faults import OnFault
from ibfast.feed._feed import DTYPES
from ibfast.feed.feed import Feed
from ibfast.feed.ring import Reader
from ibfast.records import Kind

__all__ = ["Keeps", "Ledger", "Since"]

Keeps = Callable[[NDArray[Any]], NDArray[np.bool_]]
"""Tells of request ids whether their rows are for subscribers."""

MOST_PENDING = 4096
"""Rows that may wait in a ring: reading them takes about a millisecond, and a ring holds more."""


@dataclass(frozen=True, order=True, slots=True)
class Since:
    """Where the state of a channel begins.

    Attributes:
        tenure: number of the unbroken time in which the rows of its request are for subscribers.
        seq: of the feed, when the request at the gateway began: what is older is no state.
    """

    tenure: int
    seq: int


@dataclass(slots=True, eq=False)
class _Entry:
    """One family of an instrument.

    Attributes:
        generation: of the instrument's index.
        tenure: in which it was kept; between two tenures rows are missed.
        is_own: by kind.
        state: what came of them.
        is_whole: whether none was missed that the state depends on.
    """

    generation: int
    tenure: int
    is_own: NDArray[np.bool_]
    state: ChannelState
    is_whole: bool = True

    def take(self, family: str, rows: NDArray[Any]) -> None:
        """Take rows of the instrument; a state that is not whole takes none but those from which it is whole again."""
        rows = rows[self.is_own[rows["kind"]]]
        if not self.is_whole and family == "depth":
            resets = np.flatnonzero(rows["kind"] == Kind.DEPTH_RESET)
            self.is_whole = len(resets) > 0
            rows = rows[resets[-1] :] if self.is_whole else rows[:0]
        elif not self.is_whole and family not in KEYED:
            self.is_whole = not IS_OLD[rows["kind"]].all()
        if len(rows):
            self.state.take({family: rows}, is_conflated=False)

    def void(self, family: str) -> None:
        """Begin anew with nothing, because rows were missed."""
        self.state, self.is_whole = ChannelState((family,), {}), False


class Ledger:
    """The states of all instruments that subscribers want.

    Args:
        feed: whose rings are read.
        keeps: which rows are for subscribers.
        on_fault: told of what can't be read, or does not fit: the state that it belongs to is not whole then.
    """

    def __init__(self, feed: Feed, keeps: Keeps, on_fault: OnFault) -> None:
        self._feed = feed
        self._keeps = keeps
        self._on_fault = on_fault
        self._readers: dict[str, Reader] = {}
        self._lost: dict[str, int] = {}
        self._entries: dict[str, dict[int, _Entry]] = {}
        self._freed = feed.freed

    def begin(self, channel: Channel, since: Since) -> bool:
        """Know a channel's state from now on, as far as the rings still hold the rows that it comes from.

        Returns:
            Whether a state that was known is no longer the channel's: it was of a tenure before.
        """
        self._forget_freed()
        is_replaced = False
        for family in channel.families:
            entry = self._entries.get(family, {}).get(channel.instrument)
            if entry is None or entry.tenure < since.tenure:
                self._read(family)
                self._entries.setdefault(family, {})[channel.instrument] = self._from_ring(
                    replace(channel, families=(family,)), since
                )
                is_replaced |= entry is not None
        return is_replaced

    def _forget_freed(self) -> None:
        """Drop what is known of instruments whose indices were freed: other instruments may have these now."""
        if self._freed == self._feed.freed:
            return
        self._freed = self._feed.freed
        generation = self._feed.instruments.generation
        for family, entries in self._entries.items():
            self._entries[family] = {
                instrument: entry for instrument, entry in entries.items() if entry.generation == generation(instrument)
            }

    def _from_ring(self, channel: Channel, since: Since) -> _Entry:
        (family,) = channel.families
        ring = self._feed.rings[family]
        self._readers.setdefault(family, ring.reader(start="next"))
        is_own = np.zeros(256, bool)
        is_own[list(channel.kinds)] = True
        generation = self._feed.instruments.generation(channel.instrument)
        state = ChannelState(channel.families, {})
        entry = _Entry(generation, since.tenure, is_own, state, reaches(ring, since.seq))
        for rows in rows_between(self._feed, channel, since.seq, self._feed.seq).values():
            entry.take(family, rows[self._keeps(rows["req_id"])])
        return entry

    def rows(self, channel: Channel) -> Rows:
        """Return a channel's state: the last row of each key, and the book as inserts. Of what is not whole, a part."""
        found: dict[str, NDArray[Any]] = {}
        for entry in self._entries_of(channel):
            found.update(entry.state.rows())
        return found

    def is_whole(self, channel: Channel) -> bool:
        """Tell whether that state misses nothing."""
        return all(entry.is_whole for entry in self._entries_of(channel))

    def _entries_of(self, channel: Channel) -> Iterator[_Entry]:
        for family in channel.families:
            self._read(family)
            yield self._entries[family][channel.instrument]

    def keep_up(self) -> None:
        """Take what is new where much of it waits: to be called before the rings come round."""
        self._forget_freed()
        for family, reader in self._readers.items():
            if reader.pending > min(MOST_PENDING, reader.ring.capacity // 2):
                self._read(family)

    def _read(self, family: str) -> None:
        reader = self._readers.get(family)
        if reader is None or not reader.pending:
            return
        entries = self._entries[family]
        try:
            rows = reader.read()
            is_lost = reader.lost > self._lost.get(family, 0)
            rows = rows[self._keeps(rows["req_id"])]
        except Exception as error:
            self._on_fault("ledger", error)
            self._readers[family] = self._feed.rings[family].reader(start="next")
            rows, is_lost = np.empty(0, DTYPES[family]), True
        if is_lost:
            self._lost[family] = self._readers[family].lost
            for entry in entries.values():
                entry.void(family)
        if len(rows):
            for instrument, own in by_instrument(rows):
                if instrument in entries:
                    try:
                        entries[instrument].take(family, own)
                    except Exception as error:
                        self._on_fault("ledger", error)
                        entries[instrument].void(family)
