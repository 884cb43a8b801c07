"""Random rows of the feed for the binary codec, and what must come out at the other end.

The rule of the file: values are the worst that a double or an integer of a record can be, mixed with ordinary ones, so
that every escape is taken; all randomness is the caller's.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast import Kind
from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import ChannelSpec
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES

Rows = dict[str, NDArray[Any]]

START_NS = 1_770_000_000_000_000_000
MS = 1_000_000
KINDS = {
    "quotes": (Kind.L1_QUOTE, Kind.BID_ASK),
    "trades": (Kind.L1_LAST, Kind.RT_VOLUME),
    "ticks": (Kind.PRICE, Kind.SIZE),
    "depth": (Kind.DEPTH, Kind.DEPTH, Kind.DEPTH, Kind.DEPTH_RESET),
    "bars": (Kind.REALTIME_BAR,),
    "greeks": (Kind.OPTION,),
}
KEYS = {"kind", "tick_type", "operation", "side", "position"}
HOSTILE_BITS = (
    *(struct.unpack("<Q", struct.pack("<d", x))[0] for x in (
        0.0, -0.0, float("inf"), -float("inf"), 5e-324, 1.7976931348623157e308, -1.0, 1e22, 2.0**51, -(2.0**51),
        2.0**53, 0.1, 0.30000000000000004, 1e-9, 123456789.123456789, -37.63, 22517998136852.47,
    )),
    0x7FF8000000000000, 0x7FF8000000000123, 0xFFF8000000000000, 0x7FF0000000000001,
)  # fmt: skip


def double_bits(rng: random.Random, grid: tuple[int, int]) -> int:
    """Return the bits of a number: mostly on the grid, else anything."""
    step, decimals = grid
    r = rng.random()
    if r < 0.7:
        value = float(max(0, round(rng.gauss(5000, 4))) * step / 10.0**decimals)
    elif r < 0.8:
        value = rng.randrange(-(10**6), 10**6) / 10.0 ** rng.randrange(8)
    elif r < 0.9:
        return rng.getrandbits(64)
    else:
        return rng.choice(HOSTILE_BITS)
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def integer(rng: random.Random, dtype: np.dtype[Any]) -> int:
    info = np.iinfo(dtype)
    return rng.choice((0, 0, 1, 5, 5, min(1000, int(info.max)), int(info.max), int(info.min)))


def event_time(rng: random.Random, recv_ns: int) -> int:
    """Return none, a whole second, a millisecond shortly before the row's time, or anything."""
    way = rng.randrange(6)
    if way < 2:
        return 0
    if way < 4:
        unit = 10 ** rng.choice((9, 6))
        return (recv_ns // unit - rng.randrange(300)) * unit
    return rng.choice((recv_ns, 1, rng.getrandbits(63), -rng.getrandbits(62), (1 << 63) - 1, -(1 << 63)))


def fill(rng: random.Random, family: str, row: np.void, spec: ChannelSpec, before: np.void | None) -> None:
    """Give a row values; much is as before, so that what is not sent is tried, too."""
    grids = {"price": spec.grids.price, "size": spec.grids.trade_size if family == "trades" else spec.grids.size}
    for name in row.dtype.names or ():
        dtype = row.dtype[name]
        if name in ("seq", "recv_ns", "instrument"):
            continue
        if name == "req_id":
            row[name] = 7
        elif name == "kind":
            row[name] = rng.choice(KINDS[family])
        elif name == "tick_type":
            row[name] = rng.choice((1, 1, 2, 2, 4, -1, 253, 254, 9999, -(2**31)))
        elif name in ("operation", "side"):
            row[name] = rng.choice((0, 1, 1, 2, 255) if name == "operation" else (0, 0, 1, 1, 255, 7))
        elif name == "position":
            row[name] = rng.choice((0, 0, 1, 2, 3, 9, -1, 300))
        elif before is not None and rng.random() < 0.5:
            row[name] = before[name]
        elif name == "event_ns":
            row[name] = event_time(rng, int(row["recv_ns"]))
        elif dtype.kind == "f":
            row[name] = np.uint64(
                double_bits(rng, grids["size" if "size" in name or name == "volume" else "price"])
            ).view(np.float64)
        else:
            row[name] = integer(rng, dtype)
    if family == "trades" and rng.random() < 0.5 and before is not None:
        row["price"] = before["price"]


def random_rows(rng: random.Random, specs: Iterable[ChannelSpec], count: int, start_ns: int, first_seq: int) -> Rows:
    """Return so many rows of these channels' instruments: times that never fall, numbers that always grow."""
    specs = list(specs)
    found: dict[str, list[np.void]] = {family: [] for family in FAMILIES}
    last: dict[tuple[int, str], np.void] = {}
    recv_ns, seq = start_ns, first_seq
    for _ in range(count):
        recv_ns += rng.choice((0, 0, 999, 1000, 250_000, 3 * MS, rng.randrange(40 * MS)))
        seq += rng.choice((1, 1, 1, 2, 50, 100_000))
        spec = rng.choice(specs)
        family = rng.choice(spec.families)
        row = np.zeros(1, DTYPES[family])[0]
        row["recv_ns"], row["seq"], row["instrument"] = recv_ns, seq, spec.instrument
        fill(rng, family, row, spec, last.get((spec.instrument, family)))
        if family == "trades" and (spec.instrument, "quotes") in last and rng.random() < 0.6:
            row["price"] = last[spec.instrument, "quotes"][rng.choice(("bid", "ask"))]
        last[spec.instrument, family] = row
        found[family].append(row)
    return {family: np.array(rows, DTYPES[family]) for family, rows in found.items() if rows}


def last_seq(rows: Mapping[str, NDArray[Any]]) -> int:
    return max((int(array["seq"].max()) for array in rows.values() if len(array)), default=0)


def expected(rows: Mapping[str, NDArray[Any]], spec: ChannelSpec) -> Rows:
    """Return what a subscriber of this channel must get of these rows."""
    wanted = {}
    for family in spec.families:
        if family not in rows:
            continue
        array = rows[family][rows[family]["instrument"] == spec.instrument].copy()
        if spec.kinds:
            array = array[np.isin(array["kind"], list(spec.kinds))]
        array["req_id"] = -1
        array["recv_ns"] = array["recv_ns"] // spec.unit_ns * spec.unit_ns
        if not spec.ordered:
            array["seq"] = 0
        for name in set(array.dtype.names or ()) - KEYS - {"seq", "recv_ns", "instrument", "req_id"} - set(spec.fields):
            if spec.fields:
                array[name] = np.nan if array.dtype[name].kind == "f" else 0
        if len(array):
            wanted[family] = array
    return wanted


def plain(array: NDArray[Any]) -> list[dict[str, int]]:
    """Return rows as dicts of integers; doubles as their bits."""
    columns = {}
    for name in array.dtype.names or ():
        column = np.ascontiguousarray(array[name])
        columns[name] = (column.view(np.uint64) if column.dtype.kind == "f" else column).tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def plain_rows(rows: Mapping[str, NDArray[Any]]) -> dict[str, list[dict[str, int]]]:
    return {family: plain(array) for family, array in rows.items() if len(array)}


def messages(frames: bytes) -> list[bytes]:
    """Return the payloads of complete frames of a server: final, binary, unmasked."""
    found = []
    at = 0
    while at < len(frames):
        assert frames[at] == 0x82
        size, at = frames[at + 1], at + 2
        if size > 125:
            width = 2 if size == 126 else 8
            assert size < 128
            size, at = int.from_bytes(frames[at : at + width], "big"), at + width
        assert at + size <= len(frames)
        found.append(frames[at : at + size])
        at += size
    return found


def message(frames: bytes) -> bytes:
    (only,) = messages(frames)
    return only


class Gathered:
    """What a decoder has told so far, by channel's instrument and family, in the words of `plain`."""

    def __init__(self, specs: Iterable[ChannelSpec] = ()) -> None:
        self.decoder = FrameDecoder()
        self.news: dict[int, dict[str, list[dict[str, int]]]] = {}
        self.orders: list[list[tuple[str, int]]] = []
        self.seqs: list[int] = []
        for number, spec in enumerate(specs):
            self.decoder.open(number, spec)

    def take(self, frames: bytes) -> list[Any]:
        decoded = []
        for payload in messages(frames):
            said = self.decoder.decode(payload)
            decoded.append(said)
            if said.is_snapshot:
                continue
            if payload[0] >= 0x80:
                self.seqs.append(said.seq)
            names = list(said.rows)
            rows = {name: iter(plain(said.rows[name])) for name in names}
            order = said.order if len(names) > 1 else bytes(sum(map(len, said.rows.values())))
            assert len(order) == sum(map(len, said.rows.values()))
            for place in order:
                row = next(rows[names[place]])
                self.news.setdefault(row["instrument"], {}).setdefault(names[place], []).append(row)
            self.orders.append([(names[place], 0) for place in order])
        return decoded


def encoder_of(specs: Iterable[ChannelSpec]) -> tuple[Encoder, Audience]:
    """Return an encoder with these channels, and an audience that has them under the numbers 0, 1, …"""
    specs = list(specs)
    encoder = Encoder(specs[0].span_ns, specs[0].unit_ns, specs[0].interval_class)
    audience = Audience(encoder)
    for number, spec in enumerate(specs):
        audience.open(encoder.add(spec), number)
    return encoder, audience


FAR_NS = (1 << 62) - 1


def encoded(encoder: Encoder, audience: Audience, rows: Mapping[str, NDArray[Any]]) -> list[bytes]:
    """Push rows and return the frames of all their windows."""
    encoder.push(rows)
    frames = []
    while encoder.encode(FAR_NS):
        frames.append(audience.splice())
    assert encoder.pending == 0
    return frames
