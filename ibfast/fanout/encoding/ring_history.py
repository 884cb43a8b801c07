"""What the rings still hold of the past: the rows of a channel between two sequence numbers.

The rule of the file: exact or said not to be. Rows are looked at where they lie, so the caller is in the thread that
fills the feed, or nothing is filled meanwhile.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.fanout.encoding.channel_state import joined
from ibfast.fanout.encoding.channels import Channel
from ibfast.feed.feed import FeedView
from ibfast.feed.ring import Reader, RingBuffer

__all__ = ["gaps_after", "is_complete", "newest_rows", "own_kinds", "reaches", "reader_after", "rows_between"]

ANY_SEQ = (1 << 63) - 1
SLICE_ROWS = 8192
"""So many rows are looked at together, or passed over by a look at the last of them."""


def is_complete(feed: FeedView, channel: Channel, after_seq: int) -> bool:
    """Tell whether the rings still hold every row of a channel, and every gap, after a sequence number."""
    return all(reaches(feed.rings[name], after_seq) for name in (*channel.families, "gaps"))


def reaches(ring: RingBuffer, after_seq: int) -> bool:
    """Tell whether a ring still holds every row that it got after a sequence number."""
    if ring.published <= ring.capacity:
        return True
    oldest = ring.reader(start="oldest").read(1)
    return len(oldest) > 0 and int(oldest["seq"][0]) <= after_seq + 1


def gaps_after(feed: FeedView, req_ids: Iterable[int], after_seq: int) -> NDArray[Any]:
    """Return the interruptions of these requests that were told after a sequence number."""
    rows = reader_after(feed.rings["gaps"], after_seq).read()
    own: NDArray[Any] = rows[(rows["seq"] > after_seq) & np.isin(rows["req_id"], list(req_ids))]
    return own


def own_kinds(channel: Channel) -> NDArray[np.bool_]:
    """Tell by kind whether a row of the channel's instrument is one of the channel."""
    is_own = np.zeros(256, bool)
    is_own[list(channel.kinds)] = True
    return is_own


def reader_after(ring: RingBuffer, after_seq: int) -> Reader:
    """Return a reader of the rows after a sequence number; it may find some, less than a slice, from before."""
    reader, ahead = ring.reader(start="oldest"), ring.reader(start="oldest")
    while ahead.pending:
        with ahead.borrowed(SLICE_ROWS) as batch:
            count, is_old = len(batch.rows), int(batch.rows["seq"][-1]) <= after_seq
        if not is_old:
            break
        with reader.borrowed(count):
            pass
    return reader


def rows_between(feed: FeedView, channel: Channel, after_seq: int, up_to_seq: int) -> dict[str, NDArray[Any]]:
    """Return the channel's rows with after_seq < seq <= up_to_seq that the rings still hold, by family."""
    readers = {family: reader_after(feed.rings[family], after_seq) for family in channel.families}
    return _rows_of(channel, readers, after_seq, up_to_seq)


def newest_rows(feed: FeedView, channel: Channel) -> dict[str, NDArray[Any]]:
    """Return the channel's rows among the last slice of each ring, by family."""
    readers = {}
    for family in channel.families:
        reader = readers[family] = feed.rings[family].reader(start="oldest")
        if reader.pending > SLICE_ROWS:
            with reader.borrowed(reader.pending - SLICE_ROWS):
                pass
    return _rows_of(channel, readers, 0, ANY_SEQ)


def _rows_of(
    channel: Channel, readers: Mapping[str, Reader], after_seq: int, up_to_seq: int
) -> dict[str, NDArray[Any]]:
    is_own = own_kinds(channel)
    found: dict[str, NDArray[Any]] = {}
    for family, reader in readers.items():
        parts = [part[is_own[part["kind"]]] for part in _parts(reader, channel.instrument, after_seq, up_to_seq)]
        if any(map(len, parts)):
            found[family] = joined(family, parts)
    return found


def _parts(reader: Reader, instrument: int, after_seq: int, up_to_seq: int) -> Iterator[NDArray[Any]]:
    """Yield copies of an instrument's rows between two sequence numbers, a slice at a time."""
    while reader.pending:
        with reader.borrowed(SLICE_ROWS) as batch:
            rows = batch.rows
            own = rows[rows["instrument"] == instrument]
            own = own[(own["seq"] > after_seq) & (own["seq"] <= up_to_seq)]
            is_over = int(rows["seq"][-1]) > up_to_seq
        if batch.intact and len(own):
            yield own
        if is_over:
            return
