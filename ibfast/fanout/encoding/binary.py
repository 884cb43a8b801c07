"""The binary dialect as the batcher knows it: the compiled encoder, and what connections must be told besides frames.

The rule of the file: no work per subscriber but one call that splices; texts are told to all of a lane, since to know
who needs which would cost more. The format is the business of `_frame_encoder`, and of docs/stream-protocol.md.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ibfast.codec._frame_encoder import Encoder as Codec
from ibfast.codec._splicer import Audience as SplicedAudience
from ibfast.codec.spec import ChannelSpec, Grids, lag_frame, text_frame
from ibfast.fanout.encoding.channels import Channel, interval_class
from ibfast.fanout.encoding.dialect import Audience, Encoder, Replay, Rows
from ibfast.fanout.encoding.ring_history import newest_rows, rows_between
from ibfast.feed.feed import FeedView
from ibfast.records import NS_PER_MS

__all__ = ["BinaryDialect"]

UNITS_NS = {"us": 1000, "ns": 1}
AT_ONCE = (1 << 63) - 1

LOOKS = 2
"""So many channels' grids are looked at in one window, since a look goes through the rings."""


class BinaryDialect:
    """Makes the encoders of a feed's rows."""

    name = "ibfast.v1.binary"

    def __init__(self, feed: FeedView) -> None:
        self._feed = feed

    def encoder(self, interval_ms: int, unit: str) -> Encoder:
        """Make an encoder."""
        return _BinaryEncoder(self._feed, interval_ms, unit)


class _BinaryEncoder:
    """The channels of one window length and unit; see `Encoder`."""

    def __init__(self, feed: FeedView, interval_ms: int, unit: str) -> None:
        self._feed = feed
        self._unit = unit
        self._span_ns = interval_ms * NS_PER_MS
        self._class = interval_class(interval_ms, unit)
        self._codec = self._new_codec()
        self._specs: dict[int, ChannelSpec] = {}
        self._channels: dict[int, Channel] = {}
        self._looked: dict[int, int] = {}
        self._settling: deque[int] = deque()
        self._texts: dict[int, bytes] = {}
        self._faults: list[tuple[int | None, Exception]] = []

    def _new_codec(self) -> Codec:
        return Codec(self._span_ns, UNITS_NS[self._unit], self._class)

    @property
    def version(self) -> int:
        """See `Encoder`: how many texts were used so far."""
        return len(self._texts)

    @property
    def pending_since(self) -> int | None:
        """See `Encoder`."""
        return self._codec.seq if self._codec.pending else None

    def add(self, channel: Channel, state: Rows, seq: int) -> int:
        """See `Encoder`."""
        spec = self._spec(channel)
        index = self._codec.add(spec, state, seq)
        self._specs[index] = spec
        self._channels[index] = channel
        self._looked[index] = seq
        self._note_texts(self._codec.texts(index))
        return index

    def _spec(self, channel: Channel) -> ChannelSpec:
        return ChannelSpec(
            instrument=channel.instrument,
            families=channel.families,
            kinds=frozenset(map(int, channel.kinds)),
            fields=channel.fields,
            unit=channel.unit,
            ordered=channel.ordered,
            span_ns=self._span_ns,
            is_conflated=channel.is_conflated,
            grids=Grids.of(newest_rows(self._feed, channel), Grids()),
            interval_class=self._class,
        )

    def remove(self, index: int) -> None:
        """See `Encoder`."""
        self._codec.remove(index)
        del self._specs[index], self._channels[index], self._looked[index]

    def describe(self, index: int) -> dict[str, Any]:
        """See `Encoder`."""
        return self._specs[index].described()

    def push(self, rows: Rows) -> None:
        """See `Encoder`."""
        self._codec.push(rows)

    def advance(self, until_ns: int, seq: int) -> bool:
        """See `Encoder`."""
        changed = self._codec.encode(until_ns)
        self._note_texts(text_id for _, text_id in self._codec.new_texts())
        self._settling.extend(self._codec.settling())
        for _ in range(min(LOOKS, len(self._settling))):
            try:
                self._settle(self._settling.popleft())
            except Exception as error:  # the numbers stay on the grids that they were on
                self._faults.append((None, error))
        return bool(changed)

    def faults(self) -> list[tuple[int | None, Exception]]:
        """See `Encoder`."""
        faults, self._faults = self._faults, []
        return faults

    def drop(self) -> None:
        """See `Encoder`."""
        self._codec.drop()
        self._settling.clear()
        self._faults.clear()

    def _settle(self, index: int) -> None:
        """Have a channel's numbers on the grids of its latest rows."""
        spec = self._specs.get(index)
        if spec is None:  # it was removed
            return
        rows = rows_between(self._feed, self._channels[index], self._looked[index], AT_ONCE)
        self._looked[index] = self._codec.seq
        grids = Grids.of(rows, spec.grids)
        if grids != spec.grids:
            self._codec.regrid(index, grids)
            self._specs[index] = replace(spec, grids=grids)

    def _note_texts(self, text_ids: Any) -> None:
        for text_id in text_ids:
            if text_id and text_id not in self._texts:
                self._texts[text_id] = text_frame(text_id, self._feed.texts[text_id])

    def splice(self, audience: Audience) -> bytes:
        """See `Encoder`."""
        return self._spliced(audience).splice()

    def _spliced(self, audience: Audience) -> SplicedAudience:
        if audience.cache is None:
            audience.cache = SplicedAudience(self._codec)
            for channel_id, index in zip(audience.ids, audience.indices, strict=True):
                audience.cache.open(index, channel_id)
        spliced: SplicedAudience = audience.cache
        return spliced

    def greeting(self, audience: Audience) -> bytes:
        """See `Encoder`."""
        return self._spliced(audience).clock_frame()

    def count(self, index: int) -> int:
        """See `Encoder`."""
        return self._codec.count(index)

    def restart(self, index: int, state: Rows, seq: int) -> None:
        """See `Encoder`."""
        self._codec.restart(index, self._specs[index], state, seq)
        self._note_texts(self._codec.texts(index))

    def prelude(self, since: int) -> bytes:
        """See `Encoder`."""
        return b"".join(list(self._texts.values())[since:])

    def snapshot(self, index: int, channel_id: int, seq: int) -> bytes:
        """See `Encoder`."""
        return self._codec.snapshot(index, channel_id, self._codec.start_ns, seq)

    def replay(self, index: int, channel_id: int, after_seq: int) -> Replay:
        """See `Encoder`. Rows of the past have a codec of their own, which begins with nothing."""
        spec = self._specs[index]
        if "depth" in spec.families:  # operations on a book that is the client's alone
            spec = replace(spec, is_conflated=False)
        codec = self._new_codec()
        own = codec.add(spec)
        audience = SplicedAudience(codec)
        audience.open(own, channel_id)
        snapshot = codec.snapshot(own, channel_id, self._codec.start_ns, after_seq)
        end = partial(self.snapshot, index, channel_id)
        return _BinaryReplay(codec, audience, snapshot, dict(self._texts), self._feed, end)

    def lag(self, channel_id: int, from_seq: int, to_seq: int, rows: int | None, reason: str) -> bytes:
        """See `Encoder`."""
        return lag_frame(channel_id, reason, from_seq, to_seq, rows)


class _BinaryReplay:
    """See `Replay`. Two snapshots stand around the rows."""

    def __init__(
        self,
        codec: Codec,
        audience: SplicedAudience,
        snapshot: bytes,
        texts: dict[int, bytes],
        feed: FeedView,
        end: Callable[[int], bytes],
    ) -> None:
        self._codec = codec
        self._audience = audience
        self._snapshot = snapshot
        self._texts = texts
        self._feed = feed
        self._end = end

    def begin(self) -> bytes:
        """See `Replay`."""
        return self._snapshot

    def rows(self, rows: Rows, seq: int) -> bytes:
        """See `Replay`."""
        frames: list[bytes] = []
        self._codec.push(rows)
        while self._codec.encode(AT_ONCE):
            for _, text_id in self._codec.new_texts():
                if text_id and text_id not in self._texts:
                    self._texts[text_id] = text_frame(text_id, self._feed.texts[text_id])
                    frames.append(self._texts[text_id])
            frames.append(self._audience.splice())
        return b"".join(frames)

    def end(self, seq: int) -> bytes:
        """See `Replay`."""
        return self._end(seq)
