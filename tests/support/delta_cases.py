"""Chosen rows and messages for the vectors: each is there because a decoder with a plausible mistake reads it wrongly.

The rule of the file: the package's encoder makes the messages. Two things only are put together bit by bit: what a
decoder must refuse, and lags of `event_ns` before 1970, which this encoder writes in another way.
`tests/codec/test_mistakes.py` has the mistakes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import ChannelSpec, Grids, text_frame
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES
from tests.support.delta_streams import FAR_NS, MS, START_NS, Rows, encoder_of

Event = tuple[str, dict[str, Any]]
STOCK = Grids((1, 2), (100, 0), (1, 0))
NAN = float("nan")
S = 1000 * MS


# ---- rows


def payload(bits: int) -> Any:
    return np.uint64(bits).view(np.float64)


def level(operation: int, side: int, position: int, price: Any = NAN, size: Any = NAN, maker: int = 0) -> Event:
    place = {"operation": operation, "side": side, "position": position}
    return "depth", {"kind": 12, **place, "price": price, "size": size, "market_maker": maker}


def quote(bid: Any, ask: Any, bid_size: Any, ask_size: Any) -> Event:
    return "quotes", {"kind": 11, "bid": bid, "ask": ask, "bid_size": bid_size, "ask_size": ask_size}


def trade(price: Any, size: Any = 5, event_ns: int = 0) -> Event:
    return "trades", {"kind": 6, "price": price, "size": size, "event_ns": event_ns}


def bar(event_s: int, *prices: float, volume: float = 700, wap: float = 100.0123) -> Event:
    numbers = dict(zip(("open", "high", "low", "close"), prices, strict=True))
    return "bars", {"kind": 14, "count": 3, "event_ns": START_NS + event_s * S, **numbers, "volume": volume, "wap": wap}


def tick(tick_type: int, price: Any, size: Any = NAN) -> Event:
    return "ticks", {"kind": 1, "tick_type": tick_type, "price": price, "size": size}


def greeks(tick_type: int, *numbers: Any) -> Event:
    names = ("implied_vol", "delta", "option_price", "pv_dividend", "gamma", "vega", "theta", "und_price")
    return "greeks", {"kind": 16, "tick_type": tick_type, **dict(zip(names, numbers, strict=True))}


def rows_of(events: Iterable[Event], first_seq: int, start_ns: int = START_NS, step_ns: int = MS) -> Rows:
    """Return the events as rows of instrument 100, one after the other."""
    found: dict[str, list[Any]] = {}
    for n, (family, values) in enumerate(events):
        row = np.zeros(1, DTYPES[family])[0]
        for name, value in {
            "seq": first_seq + n,
            "recv_ns": start_ns + n * step_ns,
            "instrument": 100,
            **values,
        }.items():
            row[name] = value
        found.setdefault(family, []).append(row)
    return {family: np.array(rows, DTYPES[family]) for family, rows in found.items()}


class Sender:
    """The channels of one class as a connection gets them.

    Args:
        specs: by the numbers of the channels.
        before: rows that are there before the connection joins.
    """

    def __init__(self, specs: dict[int, ChannelSpec], before: Rows) -> None:
        self.specs = specs
        self.encoder: Encoder = encoder_of([next(iter(specs.values()))])[0]
        self.encoder.remove(0)
        self.audience = Audience(self.encoder)
        self.indices = {number: self.encoder.add(spec) for number, spec in specs.items()}
        for number, index in self.indices.items():
            self.audience.open(index, number)
        self.texts: set[int] = set()
        self.windows(before)
        self.frames = [self.audience.clock_frame(), *map(self.snapshot, specs)]

    def snapshot(self, number: int) -> bytes:
        return self.encoder.snapshot(self.indices[number], number, self.encoder.start_ns)

    def windows(self, rows: Rows) -> list[bytes]:
        frames = []
        self.encoder.push(rows)
        while self.encoder.encode(FAR_NS):
            frames.append(self.audience.splice())
        self.texts.update(*map(self.encoder.texts, self.indices.values()))
        return frames

    def all_frames(self) -> list[bytes]:
        """Return what the connection gets, behind the texts that its rows name."""
        return [text_frame(text, f"text {text}") for text in sorted(self.texts)] + self.frames

    def send(self, rows: Rows) -> None:
        self.frames += self.windows(rows)

    def regrid(self, grids: Grids) -> None:
        self.encoder.regrid(self.indices[0], grids)

    def restart(self) -> None:
        """Send a snapshot without any row for channel 0."""
        self.encoder.restart(self.indices[0], self.specs[0])
        self.frames.append(self.snapshot(0))


# ---- messages bit by bit


def bits(value: int, n: int) -> str:
    """Return a number of n bits, lowest first."""
    return "".join(str(value >> i & 1) for i in range(n))


def eg(v: int, k: int) -> str:
    x = v + (1 << k)
    t = x.bit_length() - 1
    return "0" * (t - k) + "1" + bits(x, t)


def packed(message: str) -> bytes:
    size = (len(message) + 7) // 8
    return int(message[::-1], 2).to_bytes(size, "little")


def window(interval_class: int, channel: int, row: str) -> bytes:
    """Return a window with one row of a channel below 7 whose k0 is 0, from its time on."""
    return bytes([0x80 + interval_class, 0, 0]) + packed(bits(channel, 3) + "1" + row)


def framed(message: bytes) -> bytes:
    return bytes([0x82, len(message)]) + message


# ---- the files


def books() -> tuple[dict[int, ChannelSpec], list[bytes], list[bytes]]:
    """Return channels, frames and refused messages about a small book."""
    before = [
        level(0, 0, 0, 500.01, 300, 7), level(0, 0, 1, 500.02, 400, 8), level(0, 0, 2, NAN, 500, 9),
        *(level(0, 1, p, 500 - p / 100, 100 * (p + 1), p) for p in range(4)),
    ]  # fmt: skip
    sender = Sender({0: ChannelSpec(100, ("depth",), grids=STOCK)}, rows_of(before, 1))
    taken = [
        level(1, 0, 1, 500.02, 600, 8), level(1, 0, 0, 500.03, 300, 7), level(1, 0, 1, 500.02, 600, 5),
        level(1, 0, 2, 500.05, 500, 9),
    ]  # fmt: skip
    placed = [
        level(0, 0, 0, 499.99, 900, 3), level(0, 0, 4, 500.07, 800, 4), level(1, 0, 0, 499.99, 200, 3),
        level(1, 0, 4, 500.07, 1200, 4), level(1, 0, 5, 500.09, 1500, 6), level(1, 0, 0, 499.99, 100, 3),
        level(1, 0, 5, 500.09, 1600, 6), level(2, 0, 1), level(1, 0, 1, 500.02, 700, 5), level(2, 0, 9),
        level(0, 0, 9, 501, 100, 1), level(1, 0, 0, 499.99, 300, 3), level(1, 0, 5, 500.11, 100, 2),
        level(0, 2, 0, 1, 100, 1), level(0, 0, -1, 2, 100, 1), level(1, 0, 5, 500.11, 200, 2),
    ]  # fmt: skip
    regridded = [
        level(1, 0, 1, 500.02, 710, 5), level(1, 0, 2, 500.035, 500, 9), level(1, 1, 1, 499.995, 200, 1),
        level(1, 1, 2, 499.98, 300.5, 2),
    ]  # fmt: skip
    emptied = [
        ("depth", {"kind": 18, "operation": 255, "side": 255, "position": -1, "price": NAN, "size": NAN}),
        level(1, 1, 3, 498, 100, 1), level(0, 1, 0, 499, 200, 2), level(0, 0, 0, 499.5, 200, 2),
        level(1, 1, 0, 499, 250, 2), level(1, 0, 0, 499.5, 300, 2),
    ]  # fmt: skip
    sender.send(rows_of(taken + placed, 1000, START_NS + 10 * S))
    sender.regrid(Grids((5, 3), (5, 1), (1, 0)))
    sender.send(rows_of(regridded + emptied, 2000, START_NS + 20 * S))
    number = "1" + eg(0, 12)
    head = (bits(1, 16) + bits(0, 4)) * 3 + bits(0, 40) + eg(0, 3) + bits(0, 80)
    levels = eg(257, 3) + (number + number + eg(0, 3)) * 257
    refused = [b"\x20\0" + bytes(16) + packed(head + sides) for sides in (levels + eg(0, 3), eg(0, 3) + levels)]
    return sender.specs, sender.all_frames(), refused


def full_book() -> tuple[dict[int, ChannelSpec], list[bytes], list[bytes]]:
    """Return a channel and frames about a side that has all the levels there can be."""
    before = [level(0, 1, p, 500 - p / 100, 100 * (p % 7 + 1), p % 3 + 1) for p in range(256)]
    sender = Sender({0: ChannelSpec(100, ("depth",), grids=STOCK)}, rows_of(before, 1))
    rows = [
        level(0, 1, 0, 500.5, 2000, 9), level(1, 1, 0, 500.5, 2100, 9), level(1, 1, 256, 400, 100, 1),
        level(1, 1, 255, 497.46, 1100, 3), level(1, 1, 256, 400, 200, 1), level(0, 1, 256, 401, 100, 1),
        level(1, 1, 1, 500, 1300, 1), level(1, 1, 256, 402, 300, 1), level(2, 1, 0), level(1, 1, 255, 490, 500, 5),
        level(1, 1, 0, 500, 1400, 1), level(1, 1, 255, 490, 600, 5),
    ]  # fmt: skip
    sender.send(rows_of(rows, 1000, START_NS + 10 * S))
    return sender.specs, sender.all_frames(), []


def known_state() -> list[Event]:
    """Return rows of all families, after which a state has something of everything."""
    return [
        quote(100, 100.01, 300, 500), quote(100, 100.01, 400, 500), quote(100, 100.01, 400, 700), trade(100.01, 7, 5),
        tick(4, 99.5, 300), tick(300, 12.25, 100), level(0, 0, 0, 100.01, 700, 3), level(0, 0, 1, 100.03, 900, 4),
        level(0, 1, 0, 100, 400, 5), bar(0, 100, 100.02, 99.99, 100.01), bar(5, 100.01, 100.05, 100, 100.02),
        greeks(13, 0.25, 0.5, 1.5, 0.1, 0.01, 0.2, -0.3, 100), greeks(10, 0.24, 0.5, 1.4, NAN, 0.01, 0.2, -0.3, 100),
    ]  # fmt: skip


def changes() -> list[Event]:
    """Return rows that a decoder reads only with every part of that state."""
    return [
        trade(100, 7, 5), quote(100, 100.01, 300, 700), quote(100, 100.01, 300, 500), quote(100, 100.01, 400, 700),
        bar(10, 100.02, 100.03, 100, 100.01), bar(15, 100.01, 100.03, 100, 100.01, volume=900, wap=100.0124),
        greeks(13, 0.25, 0.5000001, 1.5, 0.1, 0.01, 0.2, -0.25, 100), tick(4, 99.51, 400), tick(-7, 12.26, 100),
        greeks(10, 0.24, -0.5, 1.4, NAN, 0.01, 0.2, -0.3, 100), level(1, 0, 0, 100.01, 800, 3),
        level(1, 1, 0, 100.01, 400, 5), trade(100.01, 5.05, 6), trade(100.02, NAN), trade(100.02, 8),
        quote(NAN, 100.01, NAN, 700), quote(100.01, 100.02, 300, 700), quote(100.01, NAN, 300, 800), trade(NAN, 3),
        quote(100.01, 100.03, 300, NAN), quote(100.01, 100.03, 300, 900), quote(100.01, 100.03, 300, NAN),
        quote(100.01, 100.03, 400, NAN), tick(4, NAN, 400), tick(4, 99.52, NAN), tick(4, 99.53, 600),
    ]  # fmt: skip


def sides() -> list[Event]:
    """Return quotes with trades at both of their prices, or at one that is another by its bits only."""
    usual = quote(100, 100.01, 100, 100)
    zeros = quote(0.0, -0.0, 100, 100)
    nans = quote(payload(0x7FF8000000000123), payload(0xFFF8000000000000), 100, 100)
    found: list[Event] = []
    for both, prices in (
        (quote(100.05, 100.05, 100, 100), [100.05]), (zeros, [0.0]), (zeros, [-0.0]), (zeros, [-0.0, 0.0]),
        (nans, [payload(0x7FF8000000000123)]), (nans, [payload(0xFFF8000000000000)]),
    ):  # fmt: skip
        for last in (100, 100.01):
            found += [usual, trade(last), both, *map(trade, prices), usual, trade(100.01), trade(100)]
    return found


def states() -> tuple[dict[int, ChannelSpec], list[bytes], list[bytes]]:
    """Return channels of two classes, frames and refused messages about states, grids and rare bits."""
    by_window = {
        0: ChannelSpec(100, FAMILIES, grids=STOCK, interval_class=2),
        1: ChannelSpec(101, ("quotes",), interval_class=2),
    }
    sender = Sender(by_window, rows_of(known_state(), 1))
    sender.send(rows_of(changes() + sides(), 100, START_NS + 10 * S))
    sender.send(rows_of(known_state(), 500, START_NS + 15 * S))
    sender.regrid(Grids((5, 3), (5, 1), (5, 1)))
    regridded = [
        trade(100.01, 7.05), quote(100, 100.01, 300, 700), quote(100, 100.01, 310, 700), quote(100, 100.01, 310, 710),
        quote(100, 100.01, 310, 715), level(1, 0, 0, 100.005, 700, 3), level(1, 0, 1, 100.03, 905, 4),
        bar(10, 100.02, 100.03, 100, 100.01, volume=705), tick(4, 99.505, 300.5), quote(100.005, 100.015, 300, 700),
    ]  # fmt: skip
    sender.send(rows_of(regridded, 1000, START_NS + 20 * S))
    sender.restart()
    again = [
        quote(100, 100.01, 300, 500),
        trade(100, 7),
        tick(4, 99.5, 300),
        level(1, 0, 0, 1.5, 100),
        known_state()[-1],
    ]
    sender.send(rows_of(again, 2000, START_NS + 30 * S))

    by_read = {
        3: ChannelSpec(100, ("quotes", "trades"), span_ns=0, unit="ns", grids=STOCK, interval_class=1),
        4: ChannelSpec(102, FAMILIES, span_ns=0, unit="ns", interval_class=1),
    }
    start_ns = -5 * S - 123_456_789
    old = [quote(100, 100.01, 300, 500), trade(100, 5, start_ns), trade(100.01, 5, start_ns - 40 * MS)]
    early = Sender(by_read, rows_of(old[:1], 1, start_ns))
    early.frames += [
        framed(window(1, 4, "10" + "1" + bits(3, 4) + bits(u, 3) + eg(d, 4) + "0" + "00"))
        for u in (4, 5, 6)
        for d in (0, 1, 6)
    ]  # fmt: skip
    early.send(rows_of(old[1:], 2, start_ns + 700_000_001, 700_000_001))

    back = "100"
    untouched = "00"
    grid = bits(1, 16) + bits(0, 4)
    xors = "11111" + "0" + eg(0, 3) + "0010000000"
    refused = [
        window(1, 1, bits(0, 13) + back),  # a channel of class 2
        *(window(1, 4, "0" + "11110" + shape) for shape in ("0110000", "0001100", "0000011")),
        *(window(1, 4, "0" + "11111" + bits(what, 4) + back) for what in range(7, 16)),
        *(window(1, 4, "0" + "11111" + bits(what, 4) + eg(0, 3) + back) for what in (4, 5)),
        *(window(1, 4, "10" + "1" + bits(what, 4) + "0" + untouched) for what in range(7, 16)),
        *(window(1, 4, "1110" + "1" + bits(what, 4) + eg(0, 3) + "0" + "0000" + "000000") for what in (1, 2, 4, 5)),
        window(1, 4, "0" + "11111" + bits(6, 4) + "11" + grid + back),
        window(1, 4, "0" + "11111" + bits(6, 4) + "11" + back),
        window(1, 4, "0" + "11111" + bits(6, 4) + "00" + bits(0, 16) + bits(2, 4) + back),
        window(1, 4, "0" + "11111" + bits(6, 4) + "00" + bits(1, 16) + bits(15, 4) + back),
        *(
            window(1, 4, xors + bits(leading, 3) + bits(trailing, 3) + byte)
            for leading, trailing in ((4, 4), (7, 1), (1, 7), (7, 7))
            for byte in ("", bits(255, 8))
        ),
    ]  # fmt: skip
    return by_window | by_read, sender.all_frames() + early.all_frames(), refused
