"""Recordings of binary messages with what the compiled decoder makes of them, for decoders in other languages.

A recording is JSON: a list of sessions, each with the channels as `subscribed` describes them and the messages in their
order. Of a message stand its bytes, and the batches of rows by channel and family, each column as the bytes of its
values; or that it is refused. Everything follows from a seed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.codec._frame_decoder import Decoded, FrameDecoder
from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import LAG_REASONS, ChannelSpec, Grids, lag_frame, text_frame
from ibfast.errors import ProtocolError
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES

TEXTS = ("", "ARCA", "ISLAND", "T I", "⊕ €", "NYSE")
TEXT_FIELDS = {"text", "exchange", "conditions", "market_maker"}
HEADER = {"seq", "recv_ns", "instrument", "req_id", "kind"}
START_NS = 1_770_000_000_000_000_000
RESET = 18
ODD_BITS = (
    0x7FF8000000000000,
    0xFFF8000000000001,
    0x7FF0000000000000,
    0xFFF0000000000000,
    1 << 63,
    1,
    0x7FF4000000000123,
)
Rows = dict[str, NDArray[Any]]


def recording(seed: int, sessions: int) -> list[dict[str, Any]]:
    """Return sessions; every other one ends with a message in which bits were changed."""
    return [session(random.Random(seed * 1_000_003 + i), is_harmed=i % 2 == 1) for i in range(sessions)]


def session(rng: random.Random, *, is_harmed: bool) -> dict[str, Any]:
    unit = rng.choice(("us", "ns"))
    span_ns = rng.choice((0, 10_000_000, 250_000_000, 50_000))
    encoder = Encoder(span_ns, {"us": 1000, "ns": 1}[unit], rng.randrange(16))
    specs = [spec(rng, instrument, unit, encoder) for instrument in range(rng.randrange(1, 5))]
    numbers = sorted(rng.sample(range(60), len(specs)))
    source = Source(rng, specs)
    audience, decoder = Audience(encoder), FrameDecoder()
    messages: list[bytes] = [text_frame(i, text) for i, text in enumerate(TEXTS) if i]
    indices = []
    for number, one in zip(numbers, specs, strict=True):
        indices.append(encoder.add(one, source.rows(rng.randrange(0, 6)), source.seq))
        messages.append(encoder.snapshot(indices[-1], number, source.now_ns))
        audience.open(indices[-1], number)
        decoder.open(number, one)
    for _ in range(rng.randrange(1, 8)):
        encoder.push(source.rows(rng.randrange(1, 40)))
        while encoder.encode(source.now_ns):
            messages.append(audience.splice())
        if rng.random() < 0.2:
            i = rng.randrange(len(specs))
            messages.append(lag_frame(numbers[i], rng.choice(LAG_REASONS), 5, 1 << 40, rng.choice((None, 0, 70_000))))
            messages.append(encoder.snapshot(indices[i], numbers[i], source.now_ns))
    payloads = [payload for message in messages for payload in unframed(message)]
    if is_harmed:
        payloads[-1] = harmed(rng, payloads[rng.randrange(len(payloads))])
    return {
        "channels": [
            {"channel": number, "symbol": f"S{number}", "con_id": number, "exchange": "SMART", **one.described()}
            for number, one in zip(numbers, specs, strict=True)
        ],
        "messages": list(read(decoder, dict(enumerate(numbers)), payloads)),
    }


def spec(rng: random.Random, instrument: int, unit: str, encoder: Encoder) -> ChannelSpec:
    grid = rng.choice(((1, 2), (1, 0), (5, 3), (25, 2), (100, 0), (65535, 14), (1, 8)))
    return ChannelSpec(
        instrument=instrument,
        families=tuple(rng.sample(FAMILIES, rng.randrange(1, len(FAMILIES) + 1))),
        unit=unit,
        ordered=rng.random() < 0.4,
        span_ns=encoder.span_ns,
        is_conflated=rng.random() < 0.3,
        grids=Grids(grid, rng.choice(((1, 0), (100, 0), (1, 3))), rng.choice(((1, 0), (10, 1)))),
        interval_class=encoder.interval_class,
    )


class Source:
    """Rows of some instruments, as a feed would have them, only stranger."""

    def __init__(self, rng: random.Random, specs: list[ChannelSpec]) -> None:
        self._rng = rng
        self._specs = specs
        self._last: dict[tuple[int, str], NDArray[Any]] = {}
        self.seq = rng.choice((0, 1000, 1 << 40))
        self.now_ns = START_NS

    def rows(self, count: int) -> Rows:
        """Return the next rows, by family."""
        found: dict[str, list[NDArray[Any]]] = {}
        for _ in range(count):
            one = self._rng.choice(self._specs)
            family = self._rng.choice(one.families)
            found.setdefault(family, []).append(self._row(one, family))
        return {family: joined(rows, DTYPES[family]) for family, rows in found.items()}

    def _row(self, one: ChannelSpec, family: str) -> NDArray[Any]:
        rng = self._rng
        key = one.instrument, family
        row = self._last.get(key)
        if row is None:
            row = self._last[key] = np.zeros(1, DTYPES[family])
            row["instrument"], row["req_id"], row["kind"] = one.instrument, 7, 11
        self.seq += rng.choice((1, 1, 1, 2, 900))
        self.now_ns += rng.choice((0, 0, 1, 1000, 700_000, 30_000_000))
        row["seq"], row["recv_ns"] = self.seq, self.now_ns
        for name in DTYPES[family].names or ():
            if name not in HEADER and rng.random() < 0.4:
                self._change(row, name)
        if rng.random() < 0.1:
            row["kind"] = rng.choice((RESET, 12, 5, 9, 255, 1))
        return row.copy()

    def _change(self, row: NDArray[Any], name: str) -> None:
        rng, kind = self._rng, row.dtype[name].kind
        if name in TEXT_FIELDS:
            row[name] = rng.randrange(len(TEXTS))
        elif name in ("operation", "side"):
            row[name] = rng.choice((0, 0, 1, 1, 2, 2, 3, 255))
        elif name == "position":
            row[name] = rng.choice((0, 0, 1, 2, 3, 5, -1, 300))
        elif name == "tick_type":
            row[name] = rng.choice((0, 1, 2, 4, 10, 13, 88, -1, -2, 253, 254, 2**31 - 1))
        elif name == "event_ns":
            row[name] = self._event_ns()
        elif kind == "f":
            row[name].view(np.uint64)[0] = self._bits(float(row[name][0]))
        else:
            info = np.iinfo(row.dtype[name])
            row[name] = rng.choice((0, 1, 2, 7, rng.randrange(256), info.max, info.min))

    def _event_ns(self) -> int:
        rng = self._rng
        return rng.choice((
            0, self.now_ns - 5_000_000, self.now_ns // 10**9 * 10**9, self.now_ns // 10**6 * 10**6,
            self.now_ns + rng.randrange(-(10**9), 10**9), rng.randrange(-(2**63), 2**63),
        ))  # fmt: skip

    def _bits(self, last: float) -> int:
        rng = self._rng
        value = rng.choice((
            231.05, last + 0.01, last - 0.05, last + 1, last * 2, last + 0.005, rng.random(), rng.randrange(1000),
            round(rng.random() * 1000, rng.randrange(5)), 1e300, -last, float(rng.randrange(1 << 60)),
        ))  # fmt: skip
        if rng.random() < 0.05:
            return rng.choice((*ODD_BITS, rng.getrandbits(64)))
        return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def joined(rows: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return rows as one array, laid out as in the ring, which `np.concatenate` would not do."""
    whole = np.empty(len(rows), dtype)
    for i, row in enumerate(rows):
        whole[i : i + 1] = row
    return whole


def harmed(rng: random.Random, payload: bytes) -> bytes:
    """Return a message with some bits changed, or cut, or with bytes after it."""
    data = bytearray(payload)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(8 * len(data))
        data[at >> 3] ^= 1 << (at & 7)
    how = rng.random()
    if how < 0.2:
        return bytes(data[: rng.randrange(len(data))])
    return bytes(data) + rng.randbytes(rng.randrange(5)) if how < 0.4 else bytes(data)


def unframed(frames: bytes) -> Iterator[bytes]:
    """Yield the payloads of complete frames."""
    while frames:
        size, at = frames[1], 2
        if size == 126:
            size, at = int.from_bytes(frames[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(frames[2:10], "big"), 10
        yield frames[at : at + size]
        frames = frames[at + size :]


def read(decoder: FrameDecoder, numbers: dict[int, int], payloads: list[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each message with what it says, up to the first that is refused."""
    texts = {0: ""}
    for payload in payloads:
        said: dict[str, Any] = {"hex": payload.hex()}
        try:
            decoded = decoder.decode(payload)
        except ProtocolError as error:
            yield {**said, "refused": str(error)}
            return
        if decoded.text is not None:
            texts[decoded.text[0]] = decoded.text[1]
        if decoded.lag is not None:
            reason, from_seq, to_seq, count = decoded.lag
            said["lag"] = [decoded.channel, reason, str(from_seq), str(to_seq), count]
        yield {**said, "seq": str(decoded.seq), "snapshot": decoded.is_snapshot, **batches(decoded, numbers, texts)}


def batches(decoded: Decoded, numbers: dict[int, int], texts: dict[int, str]) -> dict[str, Any]:
    found = []
    try:
        for family, rows in decoded.rows.items():
            for instrument in np.unique(rows["instrument"]).tolist():
                own = rows[rows["instrument"] == instrument]
                columns = {
                    name: [texts[i] for i in own[name].tolist()] if name in TEXT_FIELDS else own[name].tobytes().hex()
                    for name in DTYPES[family].names or ()
                    if name not in ("seq", "instrument", "req_id")
                }
                seqs = [str(seq) for seq in own["seq"].tolist()]
                batch = {"channel": numbers[instrument], "family": family, "length": len(own), "seqs": seqs}
                found.append({**batch, "columns": columns})
    except KeyError as error:  # a text that was not told: the rows can be known, but not shown
        return {"untold": str(error)}
    return {"batches": found}
