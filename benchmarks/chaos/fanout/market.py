"""The market of a fan-out world: everything that level 1, books, bars and options of a gateway can bring.

The rule of the file: what a number of a series brings depends on the series, the exchange and the number alone. What is
right is not decided here: the witness compares what subscribers got with the rings, whatever the gateway has sent.
"""

from __future__ import annotations

import random
from typing import Any

from benchmarks.chaos.market import Market, Series, SubscriptionRequest, series_of
from ibfast.contracts import Contract
from ibfast.sim.codec import (
    DepthL2,
    DepthUpdate,
    RealTimeBar,
    Tick,
    TickGeneric,
    TickOption,
    TickPrice,
    TickSize,
    TickString,
)
from ibfast.wire.ids import TickType
from ibfast.wire.requests import MarketData, MarketDepth, RealTimeBars

BURSTS = (1, 1, 1, 1, 1, 1, 2, 3, 8, 25)
"""How many numbers a series gets in one beat."""
MOST_AT_ONCE = 60
"""Numbers that a request gets in one beat, however many it has missed."""
INSERT, UPDATE, DELETE = range(3)
DEEPEST = 12
MARKET_MAKERS = ("", "N", "ARCA", "ISLAND", "BATS")
PRICES = (TickType.BID, TickType.ASK, TickType.LAST)
SIZES = (TickType.BID_SIZE, TickType.ASK_SIZE, TickType.LAST_SIZE, TickType.VOLUME)
REAL = (10.0, 10.01, 10.02, 10.05, 11.0, 99.99, 1e-7, 12345.6789, 0.0, -3.25)
"""Some of what prices can be."""
Level = tuple[float, int, str]


class FanoutMarket(Market):
    """A market whose series have several messages for each number, and sometimes several numbers in a beat.

    Args:
        seed: of everything that happens in it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)
        self._seed = seed
        self._sent: dict[int, int] = {}
        self._books: dict[tuple[int, str], _Book] = {}

    def beat(self, *arguments: Any) -> list[Series]:
        """Let every series that is not paused have its next numbers, and return those series."""
        going = super().beat(*arguments)
        for series in going:
            self.times_s[series] += self.times_s[series][-1:] * (self._draw.choice(BURSTS) - 1)
        return going

    def ticks(self, request: SubscriptionRequest, number: int, time_s: int, market_data_type: int) -> list[Tick]:
        """Return the messages of all numbers that a request has not had; a book begins with all its levels."""
        last = self._sent.get(request.req_id)
        self._sent[request.req_id] = number
        if isinstance(request, MarketDepth):
            return self._depth(request, last, number)
        first = number if last is None else max(last + 1, number - MOST_AT_ONCE)
        return [tick for each in range(first, number + 1) for tick in self._messages(request, each, time_s)]

    def _random(self, request: SubscriptionRequest, number: int) -> random.Random:
        return random.Random(f"{self._seed} {series_of(request)} {request.contract.exchange} {number}")

    def _messages(self, request: SubscriptionRequest, number: int, time_s: int) -> list[Tick]:
        draw = self._random(request, number)
        match request:
            case MarketData(contract=Contract(sec_type="OPT")):
                return [_option(request.req_id, draw)]
            case MarketData():
                return [_level_1(request.req_id, draw, number) for _ in range(draw.choice((1, 1, 2, 4)))]
            case RealTimeBars():
                prices = sorted(_price(draw, number) for _ in range(4))
                low, one, other, high = prices
                return [RealTimeBar(request.req_id, time_s, one, high, low, other, draw.randrange(99), one, number)]
        return super().ticks(request, number, time_s, 1)

    def _depth(self, request: MarketDepth, last: int | None, number: int) -> list[Tick]:
        key = (request.contract.con_id, request.contract.exchange)
        if key not in self._books:
            self._books[key] = _Book(random.Random(f"{self._seed} {key}"))
        book = self._books[key]
        operations = book.whole(number) if last is None else book.between(last, number)
        if request.is_smart_depth:
            return [DepthL2(request.req_id, *operation, True) for operation in operations]
        return [DepthUpdate(request.req_id, *operation[:-1]) for operation in operations]


def _price(draw: random.Random, number: int) -> float:
    return draw.choice(REAL) if draw.random() < 0.2 else round(50 + 0.01 * (number % 300) + draw.choice((0, 0.01)), 2)


def _level_1(req_id: int, draw: random.Random, number: int) -> Tick:
    kind = draw.random()
    if kind < 0.6:
        price = -1.0 if draw.random() < 0.03 else _price(draw, number)
        return TickPrice(req_id, draw.choice(PRICES), price, draw.randrange(1, 900), draw.choice((0, 0, 0, 1, 3)))
    if kind < 0.8:
        return TickSize(req_id, draw.choice(SIZES), draw.randrange(0, 900))
    if kind < 0.9:
        return TickString(req_id, draw.choice((TickType.BID_EXCH, TickType.LAST_EXCH)), f"text {number % 40}")
    return TickGeneric(req_id, TickType.HALTED, float(draw.choice((0, 0, 0, 1))))


def _option(req_id: int, draw: random.Random) -> Tick:
    values = [None if draw.random() < 0.1 else round(draw.uniform(0.1, 2.0), draw.choice((1, 4, 12))) for _ in range(8)]
    return TickOption(
        req_id, draw.choice((TickType.MODEL_OPTION, TickType.BID_OPTION_COMPUTATION)), draw.choice((0, 1)), *values
    )


class _Book:
    """The order book of a contract at an exchange, number by number."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._sides: list[list[Level]] = [[], []]
        self._operations: list[list[tuple[Any, ...]]] = [[]]
        self._reach(1)

    def whole(self, number: int) -> list[tuple[Any, ...]]:
        """Return the inserts of all levels that there are after a number."""
        self._reach(number)
        return [(place, INSERT, side, *level) for side in (0, 1) for place, level in enumerate(self._sides[side])]

    def between(self, after: int, up_to: int) -> list[tuple[Any, ...]]:
        """Return the operations that some numbers bring."""
        self._reach(up_to)
        return [operation for number in range(after + 1, up_to + 1) for operation in self._operations[number]]

    def _reach(self, number: int) -> None:
        while len(self._operations) <= number:
            self._operations.append(self._next())

    def _next(self) -> list[tuple[Any, ...]]:
        draw = self._draw
        operations: list[tuple[Any, ...]] = []
        for _ in range(draw.choice((1, 1, 2, 5))):
            side, level = draw.choice((0, 1)), self._level()
            levels = self._sides[side]
            do = draw.random()
            if do < 0.15:  # a level that comes and goes: the book ends as it began
                place = draw.randint(0, len(levels))
                operations += [(place, INSERT, side, *level), (place, DELETE, side, 0.0, 0, "")]
            elif do < 0.25 and levels:  # the same level again, or there and back
                place = draw.randrange(len(levels))
                back = [(place, UPDATE, side, *levels[place])]
                operations += ([(place, UPDATE, side, *level)] if draw.random() < 0.5 else []) + back
            elif (do < 0.5 and len(levels) < DEEPEST) or not levels:
                place = draw.randint(0, len(levels))
                levels.insert(place, level)
                operations.append((place, INSERT, side, *level))
            elif do < 0.7:
                place = draw.randrange(len(levels))
                del levels[place]
                operations.append((place, DELETE, side, 0.0, 0, ""))
            else:
                place = draw.randrange(len(levels))
                levels[place] = level
                operations.append((place, UPDATE, side, *level))
        return operations

    def _level(self) -> Level:
        draw = self._draw
        return round(50 + draw.randrange(100) / 100, 2), draw.randrange(1, 500), draw.choice(MARKET_MAKERS)
