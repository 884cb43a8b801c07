"""What the rings still hold of the past: the rows of a channel between two sequence numbers.

The rule of the file: exact or said not to be. Rows are looked at where they lie, so the caller is in the thread that
fills the feed, or nothing is filled meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.fanout.channels import Channel
from ibfast.fanout.state import joined
from ibfast.feed import FeedView
from ibfast.ring import RingBuffer

__all__ = ["gaps_after", "is_complete", "reaches", "rows_between"]


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
    rows = feed.gaps.reader(start="oldest").read()
    own: NDArray[Any] = rows[(rows["seq"] > after_seq) & np.isin(rows["req_id"], list(req_ids))]
    return own


def rows_between(feed: FeedView, channel: Channel, after_seq: int, up_to_seq: int) -> dict[str, NDArray[Any]]:
    """Return the channel's rows with after_seq < seq <= up_to_seq that the rings still hold, by family."""
    is_own = np.zeros(256, bool)
    is_own[list(channel.kinds)] = True
    found: dict[str, NDArray[Any]] = {}
    for family in channel.families:
        own = _rows_of(feed.rings[family], channel.instrument, after_seq, up_to_seq)
        parts = [part[is_own[part["kind"]]] for part in own]
        if any(map(len, parts)):
            found[family] = joined(family, parts)
    return found


def _rows_of(ring: RingBuffer, instrument: int, after_seq: int, up_to_seq: int) -> list[NDArray[Any]]:
    """Return copies of an instrument's rows between two sequence numbers, in at most three parts: the ring wraps."""
    reader = ring.reader(start="oldest")
    parts = []
    while reader.pending:
        with reader.borrowed() as batch:
            first, end = np.searchsorted(batch.rows["seq"], (after_seq, up_to_seq), side="right")
            rows = batch.rows[first:end]
            own = rows[rows["instrument"] == instrument]
        if batch.intact and len(own):
            parts.append(own)
    return parts
