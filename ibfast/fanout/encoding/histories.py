"""What clients that come back have missed: a channel's rows since a sequence number, read and encoded once for all.

The rule of the file: every step is a small piece of work, for `turns`. A history grows with the rings and is never
wrong: it is complete up to what it was read to, or says that it lost rows. What nobody reads is forgotten by its size.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.fanout.encoding.batcher import Batcher, Lane, Seat
from ibfast.fanout.encoding.channel_state import joined
from ibfast.fanout.encoding.dialect import Replay, Rows
from ibfast.fanout.encoding.ring_history import is_complete, own_kinds, reader_after
from ibfast.feed.ring import Reader

__all__ = ["Histories", "History", "Recall"]

SCANNED_ROWS = 8192
"""So many rows of a ring are looked at in a piece, which takes less than a millisecond."""

ENCODED_ROWS = 128
"""So many rows are encoded in a piece: as JSON that takes about half a millisecond."""

MOST_BYTES = 1 << 26
"""What all histories of a server may have, together; those that were used last are kept."""

Key = tuple[Lane, Seat, int]


class History:
    """The rows of a channel after a sequence number.

    Args:
        batcher: whose feed is read.
        lane, seat: the channel's.
        after_seq: the number.

    Attributes:
        is_lost: whether rows were overwritten before they were read.
        nbytes: what it keeps.
    """

    def __init__(self, batcher: Batcher, lane: Lane, seat: Seat, after_seq: int) -> None:
        self._batcher = batcher
        self._lane = lane
        self._seat = seat
        self._after_seq = after_seq
        channel, rings = seat.channel, batcher.feed.rings
        self.is_lost = not is_complete(batcher.feed, channel, after_seq)
        self._is_own = own_kinds(channel)
        self._readers = {family: reader_after(rings[family], after_seq) for family in channel.families}
        self._lost = {family: reader.lost for family, reader in self._readers.items()}
        self._found: dict[str, list[NDArray[Any]]] = {}
        self._chunks: list[tuple[Rows, int]] = []
        self._recordings: dict[int, _Recording] = {}
        self.nbytes = 0

    def advance(self, channel_id: int) -> bool:
        """Read or encode a piece of it; return whether that was the last one for now.

        Args:
            channel_id: of the client for whom it is encoded.
        """
        for family, reader in self._readers.items():
            if reader.pending > SCANNED_ROWS:
                self._read(family, reader)
                return False
        for family, reader in self._readers.items():
            while reader.pending:  # once more where the ring comes round
                self._read(family, reader)
        self._cut(self._batcher.feed.seq)
        recording = self._recording(channel_id)
        self.nbytes += recording.advance(self._chunks)
        return recording.encoded == len(self._chunks)

    def frames(self, channel_id: int) -> bytes:
        """Return all that was missed, after which the channel goes on as after a snapshot; `advance` has ended."""
        while not self.advance(channel_id):
            pass
        recording = self._recording(channel_id)
        return b"".join(recording.frames) + recording.replay.end(self._lane.seq)

    def _recording(self, channel_id: int) -> _Recording:
        if channel_id not in self._recordings:
            replay = self._lane.encoder.replay(self._seat.index, channel_id, self._after_seq)
            self._recordings[channel_id] = _Recording(replay)
        return self._recordings[channel_id]

    def _read(self, family: str, reader: Reader) -> None:
        channel = self._seat.channel
        with reader.borrowed(SCANNED_ROWS) as batch:
            rows = batch.rows
            rows = rows[(rows["instrument"] == channel.instrument) & (rows["seq"] > self._after_seq)]
            rows = rows[self._is_own[rows["kind"]]]
            rows = rows[self._batcher.keeps(rows["req_id"])]
        self.is_lost |= reader.lost > self._lost[family]
        if len(rows):
            self._found.setdefault(family, []).append(rows)
            self.nbytes += rows.nbytes

    def _cut(self, seq: int) -> None:
        """Make chunks of what was read, which is all that there is up to a sequence number."""
        found = {family: joined(family, parts) for family, parts in self._found.items()}
        self._found = {}
        if not found:
            return
        seqs = max((rows["seq"] for rows in found.values()), key=len)
        bounds = [*seqs[ENCODED_ROWS - 1 : -1 : ENCODED_ROWS].tolist(), seq]
        starts = dict.fromkeys(found, 0)
        for bound in bounds:
            chunk = {}
            for family, rows in found.items():
                end = int(np.searchsorted(rows["seq"], bound, side="right"))
                if end > starts[family]:
                    chunk[family] = rows[starts[family] : end]
                starts[family] = end
            self._chunks.append((chunk, bound))


class _Recording:
    """A history under one channel number: what was encoded of it."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.frames = [replay.begin()]
        self.encoded = 0

    def advance(self, chunks: list[tuple[Rows, int]]) -> int:
        """Encode one more chunk, if there is one; return how many bytes that has."""
        if self.encoded == len(chunks):
            return 0
        self.frames.append(self.replay.rows(*chunks[self.encoded]))
        self.encoded += 1
        return len(self.frames[-1])


class Recall:
    """A history, as one client needs it; its channel is encoded until it is closed.

    Args:
        batcher: which encodes the channel.
        lane, seat: a share in the channel.
        history: what is recalled.
        channel_id: the client's.
    """

    def __init__(self, batcher: Batcher, lane: Lane, seat: Seat, history: History, channel_id: int) -> None:
        self._batcher = batcher
        self.lane = lane
        self.seat = seat
        self.history = history
        self.channel_id = channel_id

    def advance(self) -> bool:
        """Do a piece of work; return whether there is no more, for now."""
        return self.history.is_lost or self.history.advance(self.channel_id)

    def why_void(self) -> str:
        """Read it to its end; return why it can't be sent, "" if it can."""
        while not self.advance():
            pass
        return "the rings do not go back so far" if self.history.is_lost else ""

    def close(self) -> None:
        """Give the share in the channel back."""
        self._batcher.leave(self.lane, self.seat)


class Histories:
    """The histories that were used last.

    Args:
        batcher: whose feed is read.
        most_bytes: what they may have together; one more may go beyond.
    """

    def __init__(self, batcher: Batcher, most_bytes: int = MOST_BYTES) -> None:
        self._batcher = batcher
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Key, History] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """What they have together."""
        return sum(history.nbytes for history in self._kept.values())

    def of(self, lane: Lane, seat: Seat, after_seq: int) -> History:
        """Return the history of a channel after a sequence number, shared by all who ask for the same."""
        key = lane, seat, after_seq
        history = self._kept.pop(key, None)
        if history is None or history.is_lost or not seat.shares:
            history = History(self._batcher, lane, seat, after_seq)
        self._kept[key] = history
        while len(self._kept) > 1 and self.nbytes > self._most_bytes:
            self._kept.popitem(last=False)
        return history
