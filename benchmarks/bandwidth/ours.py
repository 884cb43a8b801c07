"""ibfast's side: the server's encoder with all channels of a set, and subscribers who decode and compare.

The rule of the file: what the fan-out's server does is done here in its order (`Lane.publish`), without sockets. A
subscriber joins after some ticks: these are the state that its snapshots tell, and what the grids are known from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bandwidth.ticks import FAMILIES, UNIT_NS, Rows, TickSet, window_of
from ibfast.codec._frame_decoder import Decoded, FrameDecoder
from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import ChannelSpec, Grids

NAME, NAME_WITHOUT_PAST = "ibfast", "ibfast, nothing known"
AT_ONCE = (1 << 63) - 1


class MismatchError(Exception):
    """What a subscriber got is not what was sent."""


def specs(past: TickSet, span_ns: int, *, is_conflated: bool) -> list[ChannelSpec]:
    """Return a channel for each instrument of a set, on the grids that its ticks so far tell."""
    return [
        ChannelSpec(
            instrument, FAMILIES, span_ns=span_ns, is_conflated=is_conflated,
            grids=Grids.of(past.of([instrument]).rows, Grids()),
        )
        for instrument in range(past.instruments)
    ]  # fmt: skip


class Server:
    """An encoder with these channels, and one audience.

    Args:
        channels: all that anybody has subscribed to, by instrument.
        past: what was before; it is not sent.
        audience: the instruments of the audience's channels.
    """

    def __init__(self, channels: list[ChannelSpec], past: TickSet, audience: list[int]) -> None:
        span_ns = channels[0].span_ns
        self.encoder = Encoder(span_ns)
        self.audience = Audience(self.encoder)
        self.channels = {number: channels[instrument] for number, instrument in enumerate(audience)}
        last = max((int(rows["seq"][-1]) for rows in past.rows.values() if len(rows)), default=0)
        indices = [self.encoder.add(spec, past.of([spec.instrument]).rows, last) for spec in channels]
        self._settled = {index: (spec, last) for index, spec in zip(indices, channels, strict=True)}
        self._news: dict[int, Rows] = {}
        for number, instrument in enumerate(audience):
            self.audience.open(indices[instrument], number)
        self.snapshots = [
            self.encoder.snapshot(indices[instrument], number, 0) for number, instrument in enumerate(audience)
        ]

    def publish(self, rows: Rows) -> bytes:
        """Return the frames of a window's rows."""
        encoder = self.encoder
        frames = b""
        encoder.push(rows)
        while encoder.encode(AT_ONCE):
            frames += self.audience.splice()
        return frames

    def settle(self, news: TickSet) -> None:
        """Do what the server does after a window when channels have had enough rows: look at their grids again.

        Args:
            news: in which all rows are that were published so far.
        """
        for index in self.encoder.settling():
            spec, looked = self._settled[index]
            if index not in self._news:
                self._news[index] = news.of([spec.instrument]).rows
            own = {}
            for family, rows in self._news[index].items():
                first, end = np.searchsorted(rows["seq"], (looked, self.encoder.seq), side="right")
                own[family] = rows[first:end]
            spec = replace(spec, grids=Grids.of(own, spec.grids))
            self.encoder.regrid(index, spec.grids)
            self._settled[index] = spec, self.encoder.seq

    def subscriber(self) -> FrameDecoder:
        """Return the decoder of a new member of the audience, who has the snapshots."""
        decoder = FrameDecoder()
        for number, spec in self.channels.items():
            decoder.open(number, spec)
        for frame in self.snapshots:
            for message in messages(frame):
                decoder.decode(message)
        return decoder


def messages(frames: bytes) -> list[bytes]:
    """Return the payloads of complete frames of a server: final, binary, unmasked.

    Raises:
        MismatchError: there is something else.
    """
    found, at = [], 0
    while at < len(frames):
        size, begin = int.from_bytes(frames[at + 1 : at + 2]), at + 2
        if size in (126, 127):
            begin += 2 if size == 126 else 8
            size = int.from_bytes(frames[at + 2 : begin], "big")
        message = frames[begin : begin + size]
        if frames[at] != 0x82 or len(message) != size:
            raise MismatchError("no complete binary frame")
        found.append(message)
        at = begin + size
    return found


def compare(sent: TickSet, span_ns: int, windows: list[list[Decoded]]) -> None:
    """Compare what a subscriber decoded with what it should have got: every value to the bit, every row's place.

    Args:
        sent: the rows that were meant for it.
        span_ns: the length of the windows.
        windows: what the messages of each window said; windows without a message are left out.

    Raises:
        MismatchError: they differ.
    """
    expected = sent.windows(span_ns)
    if len(windows) != len(expected):
        raise MismatchError(f"{len(windows)} windows instead of {len(expected)}")
    got: dict[str, list[NDArray[Any]]] = {family: [] for family in FAMILIES}
    families: list[NDArray[Any]] = []
    for decoded, rows in zip(windows, expected, strict=True):
        said = [message for message in decoded if message.rows]
        if len(said) != 1 or any(len(said[0].rows.get(name, ())) != len(rows.get(name, ())) for name in FAMILIES):
            raise MismatchError("a window has other rows than were sent")
        for name, part in said[0].rows.items():
            got[name].append(part)
            if (window_of(part, span_ns) != window_of(part, span_ns)[0]).any():
                raise MismatchError("a row is in the wrong window")
        places = [FAMILIES.index(name) for name in said[0].rows]
        order = np.frombuffer(said[0].order, np.uint8)
        families.append(np.array(places)[order] if len(order) else np.full(sum(map(len, rows.values())), places[0]))
    for family, parts in got.items():
        if parts:
            _compare_rows(family, by_channel(sent.rows[family], span_ns), np.concatenate(parts))
    _compare_orders(sent, span_ns, np.concatenate(families))


def by_channel(rows: NDArray[Any], span_ns: int) -> NDArray[Any]:
    """Return rows in the order in which a subscriber gets them: by window, channel, and as they came."""
    return rows[np.lexsort((np.arange(len(rows)), rows["instrument"], window_of(rows, span_ns)))]


def _compare_rows(family: str, expected: NDArray[Any], got: NDArray[Any]) -> None:
    expected = expected.copy()
    expected["seq"] = 0  # the channels are not ordered
    expected["req_id"] = -1
    expected["recv_ns"] = expected["recv_ns"] // UNIT_NS * UNIT_NS
    for name in expected.dtype.names or ():
        is_double = expected.dtype[name].kind == "f"
        columns = [np.ascontiguousarray(rows[name]) for rows in (expected, got)]
        first, second = (column.view(np.uint64) if is_double else column for column in columns)
        if not np.array_equal(first, second):
            raise MismatchError(f"{name} of {family} differs")


def _compare_orders(sent: TickSet, span_ns: int, got: NDArray[Any]) -> None:
    """Compare which family each row was of: so quotes and trades of a channel have kept their order."""
    headers = np.concatenate(
        [
            np.rec.fromarrays(
                [window_of(rows, span_ns), rows["instrument"], rows["seq"], np.full(len(rows), number)],
                names="window,instrument,seq,family",
            )
            for number, rows in enumerate(sent.rows.values())
        ]
    )
    headers = headers[np.lexsort((headers["seq"], headers["instrument"], headers["window"]))]
    if not np.array_equal(headers["family"], got):
        raise MismatchError("quotes and trades are in another order")
