"""The market data that the benchmarks decode, in any dialect, and what a client has to report of it.

The rule of the file: seeded and realistic. A hundred lines on a price grid, mostly bids, asks and their sizes. TWS
repeats the size of a price as a tick of its own, which makes most of the size ticks. A seventh is tick-by-tick.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count, islice

from benchmarks.peers.worker import CALLBACK_SIZES, Events
from ibfast.sim.codec import (
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickGeneric,
    TickPrice,
    TickSize,
    TickString,
    encode,
)
from ibfast.wire.request_bytes import frame

LINES = 100
FIRST_TIME_S = 1_700_000_000
MESSAGES_PER_S = 20_000
KINDS = ("price and size", "price", "size", "string", "generic", "last", "bid_ask")
WEIGHTS = (25, 20, 10, 3, 2, 5, 10)
"""How often each kind comes: in a hundred messages, the first one being two, 45 prices and 35 sizes."""

BID_SIZE, BID, ASK, ASK_SIZE, LAST, LAST_SIZE, HIGH, LOW, VOLUME = range(9)
LAST_TIMESTAMP, RT_VOLUME, LAST_EXCHANGE, HALTED = 45, 48, 84, 49
EXCHANGES = ("ISLAND", "ARCA", "NYSE", "BATS", "IEX", "EDGX", "MEMX")
CONDITIONS = ("", "", "", "T", " F I", "   4")


class Line:
    """One instrument: a mid that walks on a grid of cents."""

    def __init__(self, rng: random.Random, req_id: int) -> None:
        self.rng = rng
        self.req_id = req_id
        self.cents = rng.randrange(1_000, 60_000)
        self.volume = rng.randrange(10**7)

    def step(self) -> None:
        if self.rng.random() < 0.2:
            self.cents = max(100, self.cents + self.rng.choice((-1, 1)))

    def price(self, away: int) -> float:
        return (self.cents + away) / 100

    def size(self) -> str:
        return str(self.rng.randrange(1, 40) * 100 if self.rng.random() < 0.8 else self.rng.randrange(1, 100))

    def price_tick(self) -> TickPrice:
        tick_type, away = self.rng.choice(((BID, -1), (BID, -2), (ASK, 1), (ASK, 2), (LAST, 0)))
        return TickPrice(self.req_id, tick_type, self.price(away), self.size(), int(tick_type != LAST))

    def size_tick(self) -> TickSize:
        tick_type = self.rng.choice((BID_SIZE, BID_SIZE, ASK_SIZE, ASK_SIZE, LAST_SIZE, VOLUME))
        self.volume += 100
        return TickSize(self.req_id, tick_type, str(self.volume) if tick_type == VOLUME else self.size())

    def string_tick(self, time_s: float) -> TickString:
        tick_type = self.rng.choice((LAST_TIMESTAMP, LAST_TIMESTAMP, LAST_EXCHANGE, RT_VOLUME))
        if tick_type == LAST_TIMESTAMP:
            return TickString(self.req_id, tick_type, str(int(time_s)))
        if tick_type == LAST_EXCHANGE:
            return TickString(self.req_id, tick_type, self.rng.choice("QZNPKB"))
        vwap = self.price(0) + self.rng.random()
        text = f"{self.price(0)};{self.size()};{int(time_s * 1000)};{self.volume};{vwap:.8f};true"
        return TickString(self.req_id, tick_type, text)

    def last(self, time_s: float) -> TickByTickLast:
        return TickByTickLast(
            self.req_id,
            self.rng.choice((1, 2)),
            int(time_s),
            self.price(0),
            self.size(),
            self.rng.choice((0, 0, 2)),
            self.rng.choice(EXCHANGES),
            self.rng.choice(CONDITIONS),
        )

    def bid_ask(self, time_s: float) -> TickByTickBidAsk:
        return TickByTickBidAsk(self.req_id, int(time_s), self.price(-1), self.price(1), self.size(), self.size(), 0)


def ticks(messages: int, seed: int = 1) -> list[Tick]:
    """Return so many messages; the same for the same seed."""
    return list(islice(_endless_ticks(random.Random(seed)), messages))


def _endless_ticks(rng: random.Random) -> Iterator[Tick]:
    lines = [Line(rng, req_id) for req_id in range(1, LINES + 1)]
    for number in count():
        line = rng.choice(lines)
        line.step()
        time_s = FIRST_TIME_S + number / MESSAGES_PER_S
        kind = rng.choices(KINDS, WEIGHTS)[0]
        if kind == "price and size":
            tick = line.price_tick()
            yield tick
            yield TickSize(tick.req_id, CALLBACK_SIZES[tick.tick_type], tick.size)
        elif kind == "price":
            yield line.price_tick()
        elif kind == "size":
            yield line.size_tick()
        elif kind == "string":
            yield line.string_tick(time_s)
        elif kind == "generic":
            yield TickGeneric(line.req_id, HALTED, 0.0)
        elif kind == "last":
            yield line.last(time_s)
        else:
            yield line.bid_ask(time_s)


def report(tick: Tick, events: Events, *, with_attribs: bool = True) -> None:
    """Report a message as clients do."""
    if isinstance(tick, TickPrice):
        mask = tick.attrib_mask if with_attribs else 0
        events.price_and_size(tick.req_id, tick.tick_type, tick.price, float(tick.size), mask)
    elif isinstance(tick, TickSize):
        events.size(tick.req_id, tick.tick_type, float(tick.size))
    elif isinstance(tick, TickString):
        events.string(tick.req_id, tick.tick_type, tick.value)
    elif isinstance(tick, TickGeneric):
        events.generic(tick.req_id, tick.tick_type, tick.value)
    elif isinstance(tick, TickByTickLast):
        events.last(
            tick.req_id,
            tick.tick_type,
            tick.time_s,
            tick.price,
            float(tick.size),
            tick.attrib_mask,
            tick.exchange,
            tick.conditions,
        )
    else:
        events.bid_ask(
            tick.req_id, tick.time_s, tick.bid, tick.ask, float(tick.bid_size), float(tick.ask_size), tick.attrib_mask
        )


def encoded(messages: list[Tick], server_version: int) -> bytes:
    """Return the messages as one stream of frames in the dialect of a server version."""
    return b"".join(frame(encode(tick, server_version)) for tick in messages)
