"""Fixed messages of the binary dialect with what they mean, in tests/support/vectors: the JavaScript client reads them,
too.

`python -m tests.support.delta_vectors` writes them anew, which a change of the protocol calls for and nothing else. A
file has the channels as `subscribed` describes them, and messages in hexadecimal, each with what it says: 64-bit
integers as decimal strings, doubles as the hexadecimal digits of their bits. What stands under `refused` breaks the
connection instead, each after all of `messages`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import ChannelSpec, Grids, lag_frame, text_frame
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES
from tests.support.delta_cases import books, full_book, states
from tests.support.delta_streams import FAR_NS, MS, START_NS, last_seq, messages, random_rows
from tests.support.stream_reference import ReferenceDecoder

FOLDER = Path(__file__).with_name("vectors")
WIDE = {"seq", "recv_ns", "event_ns", "time_ns", "from", "to"}


def said(meaning: dict[str, Any]) -> dict[str, Any]:
    """Return what the reference decoder tells in the words of the files."""
    return {
        name: [[number, family, fields(family, row)] for number, family, row in value]
        if name == "rows"
        else str(value)
        if name in WIDE
        else value
        for name, value in meaning.items()
    }


def fields(family: str, row: dict[str, int]) -> dict[str, Any]:
    dtype = DTYPES[family]
    return {
        name: f"{value:016x}" if dtype[name].kind == "f" else str(value) if name in WIDE else value
        for name, value in row.items()
    }


def vector(what: str, specs: dict[int, ChannelSpec], frames: list[bytes], refused: list[bytes]) -> dict[str, Any]:
    decoder = ReferenceDecoder()
    for number, spec in specs.items():
        decoder.open(number, spec.described())
    return {
        "what": what,
        "channels": [{"channel": number, **spec.described()} for number, spec in specs.items()],
        "messages": [
            {"hex": payload.hex(), "says": said(decoder.decode(payload))}
            for frame in frames
            for payload in messages(frame)
        ],
        "refused": [payload.hex() for payload in refused],
    }


def frames_of(
    specs: dict[int, ChannelSpec], rows: list[Any], *, joins: bool = False, grids: Grids | None = None
) -> list[bytes]:
    """Return a connection's frames: snapshots, windows of these rows.

    If it joins, the first rows are before them; if there are grids, these are the first channel's after the first rows.
    """
    first = next(iter(specs.values()))
    encoder = Encoder(first.span_ns, first.unit_ns, first.interval_class)
    audience = Audience(encoder)
    for number, spec in specs.items():
        audience.open(encoder.add(spec), number)
    frames: list[bytes] = []
    if joins:
        encoder.push(rows[0])
        while encoder.encode(FAR_NS):
            audience.splice()
        frames.append(audience.clock_frame())
    frames += [encoder.snapshot(index, number, START_NS + index) for index, number in enumerate(specs)]
    for each in rows[joins:]:
        encoder.push(each)
        while encoder.encode(FAR_NS):
            frames.append(audience.splice())
        if grids is not None:
            encoder.regrid(0, grids)
    return frames


def ordinary(count: int = 200) -> Any:
    """Return quotes and trades of a stock as they are: small steps, sizes that go to and fro."""
    rng = random.Random(4)
    quotes, trades = np.zeros(count, DTYPES["quotes"]), np.zeros(count, DTYPES["trades"])
    bid, sizes, before = 1000, [3, 5], [3, 5]
    kept: dict[str, list[int]] = {"quotes": [], "trades": []}
    now_ns = START_NS
    for n in range(count):
        now_ns += int(rng.expovariate(1 / (4 * MS)))
        family = "trades" if rng.random() < 0.2 else "quotes"
        row = (trades if family == "trades" else quotes)[n : n + 1]
        row["seq"], row["recv_ns"], row["instrument"] = 100 + 3 * n, now_ns, 100
        if family == "trades":
            row["kind"], row["price"] = 6, (bid + rng.choice((0, 0, 1, 1, 0.5))) / 100
            row["size"], row["exchange"] = rng.choice((1, 7, 100, 300)), rng.choice((2, 2, 2, 3))
            row["event_ns"] = now_ns // MS * MS - 80 * MS
        else:
            if rng.random() < 0.1:
                bid += rng.choice((-1, 1))
                sizes, before = [rng.randrange(1, 9), rng.randrange(1, 9)], sizes
            else:
                side = rng.randrange(2)
                sizes[side], before[side] = before[side] if rng.random() < 0.3 else rng.randrange(1, 20), sizes[side]
            row["kind"], row["bid"], row["ask"] = 11, bid / 100, (bid + 1) / 100
            row["bid_size"], row["ask_size"] = sizes[0] * 100, sizes[1] * 100
        kept[family].append(n)
    return {"quotes": quotes[kept["quotes"]], "trades": trades[kept["trades"]]}


def vectors() -> Iterator[tuple[str, dict[str, Any]]]:
    stock = Grids((1, 2), (100, 0), (1, 0))
    specs = {0: ChannelSpec(100, ("quotes", "trades"), grids=stock)}
    yield (
        "ordinary",
        vector("quotes and trades of a stock, windows of 10 ms", specs, frames_of(specs, [ordinary()]), []),
    )

    specs = {0: ChannelSpec(100, FAMILIES, span_ns=0, unit="ns", ordered=True, interval_class=3)}
    rows = random_rows(random.Random(1), specs.values(), 150, START_NS, 1 << 54)
    what = "all families, each read a window, nanoseconds, in order; numbers of every kind"
    yield "hostile", vector(what, specs, frames_of(specs, [rows]), [])

    specs = {
        number: ChannelSpec(200 + number, (family,), span_ns=250 * MS, grids=stock, interval_class=15)
        for number, family in zip((0, 5, 6, 14, 60, 5000), FAMILIES, strict=True)
    }
    rows = random_rows(random.Random(2), specs.values(), 150, START_NS, 7)
    yield (
        "gaps",
        vector("a family each in channels with gaps between their numbers", specs, frames_of(specs, [rows]), []),
    )

    specs = {2: ChannelSpec(100, ("depth", "trades", "ticks"), ordered=True)}
    rows = random_rows(random.Random(3), specs.values(), 150, START_NS, 7)
    more = random_rows(random.Random(4), specs.values(), 100, START_NS + 60_000 * MS, last_seq(rows) + 1)
    yield (
        "joiner",
        vector("joins with a book and ticks that are there", specs, frames_of(specs, [rows, more], joins=True), []),
    )

    specs = {0: ChannelSpec(100, ("depth", "quotes", "greeks"), span_ns=250 * MS, is_conflated=True)}
    rows = random_rows(random.Random(5), specs.values(), 300, START_NS, 7)
    yield "conflated", vector("the latest of each window", specs, frames_of(specs, [rows]), [])

    specs = {0: ChannelSpec(100, FAMILIES, span_ns=250 * MS)}
    rows = random_rows(random.Random(6), specs.values(), 200, START_NS, 7)
    more = random_rows(random.Random(7), specs.values(), 200, START_NS + 60_000 * MS, last_seq(rows) + 1)
    what = "other grids in the middle; snapshots with grids that can not be"
    frames = frames_of(specs, [rows, more], grids=Grids((5, 3), (100, 0), (1, 1)))
    head = messages(frames[0])[0][:18]
    impossible = [
        head + (step | decimals << 16).to_bytes(4, "little") + bytes(40) for step, decimals in ((0, 2), (1, 15))
    ]
    yield "grids", vector(what, specs, frames, impossible)

    specs = {0: ChannelSpec(100, ("quotes", "trades"), grids=stock), 1: ChannelSpec(101, ("bars",))}
    frames = frames_of(specs, [{"quotes": ordinary(30)["quotes"]}])
    window = messages(frames[-1])[-1]
    texts = [
        text_frame(0, ""),
        text_frame(1, "<other>"),
        text_frame(300, "Börse Zürich €"),
        text_frame((1 << 32) - 1, "x"),
    ]
    refused = {
        "nothing": b"", "unknown first byte": b"\x55", "clock too short": b"\x10" + bytes(15),
        "clock too long": b"\x10" + bytes(17), "no clock": b"\x8f\0\0", "channel 2": b"\x80\0\0\x02" + bytes(8),
        "cut": window[:-1], "skip to the end": window + b"\x07",
        "skip too far": b"\x80\0\0\xff" + b"\xff" * 8 + b"\x01\0",
        "varint": b"\x80" + b"\xff" * 9 + b"\0", "head cut": b"\x80\x80", "EG": b"\x80\0\0" + bytes(40),
        "snapshot of 2": b"\x20\2" + bytes(60), "snapshot cut": messages(frames[1])[0][:-1],
        "snapshot too long": messages(frames[0])[0] + b"\0", "lag's reason": b"\x30\0\3" + bytes(17),
        "lag too short": b"\x30\0\0" + bytes(16), "UTF-8": b"\x40\5\xff", "text's id": b"\x40\x80\x80\x80\x80\x10x",
        "no channel of the class": b"\x81\0\0", "lag's count": b"\x30\0\0" + bytes(16) + b"\x80",
        "lag too long": b"\x30\0\0" + bytes(18),
    }  # fmt: skip
    what = "rare messages; and messages to be refused"
    yield "rare", vector(what, specs, [*frames, *texts], list(refused.values()))
    lags = [
        lag_frame(0, "slow", 12, 1 << 60, 1 << 40),
        lag_frame(1, "overrun", 0, (1 << 64) - 1),
        lag_frame(1, "incomplete", 7, 7, 0),
    ]
    again = [frames[1], lags[1], frames[1], lags[2], frames[1]]
    what = "lags: the state is void until the next snapshot"
    yield "lags", vector(what, specs, [*frames, *again, lags[0]], [window])

    yield "books", vector("inserts, updates and deletes of levels, other grids, a reset", *books())
    yield "full_book", vector("a side of 256 levels, and operations at its end", *full_book())
    what = "snapshots with all families, two classes, sides, other grids, times before 1970; rare bits to be refused"
    yield "states", vector(what, *states())


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors():
        lines = json.dumps(content, ensure_ascii=False).replace('{"hex"', '\n{"hex"')
        (FOLDER / f"{name}.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
