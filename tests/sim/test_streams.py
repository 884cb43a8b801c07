"""Streams, one by one: books, level 1 and bars from events that a test makes up."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.contracts import Stock
from ibfast.sim import codec
from ibfast.sim.bars import BarBuilder, HistoricalUpdateStream, RealTimeBarStream
from ibfast.sim.channel import MarketChannel
from ibfast.sim.events import Level, QuoteEvent, Statistics, TradeEvent
from ibfast.sim.streams import DepthStream, Level1Stream
from ibfast.sim.universe import Universe

NS = 1_000_000_000
START_S = 1_795_445_640
APPLE = Universe.builtin(date(2026, 11, 23)).find(Stock("AAPL"))[0]
PRICES = st.integers(1, 12).map(lambda ticks: ticks / 100)
SIDES = st.dictionaries(PRICES, st.integers(1, 5), max_size=8)


class Books:
    """Stands for a market that knows books only."""

    def __init__(self, bids: list[Level], asks: list[Level]) -> None:
        self.rows = (bids, asks)

    def book(self, quote: QuoteEvent, rows: int) -> tuple[list[Level], list[Level]]:
        return self.rows[0][:rows], self.rows[1][:rows]


def channel() -> MarketChannel:
    return MarketChannel(APPLE, Statistics(None, None, None, None, 0, None))


def quote(at_s: float = 0, bid: float | None = 1.0, ask: float | None = 2.0, *sizes: int | None) -> QuoteEvent:
    return QuoteEvent(START_S * NS + int(at_s * NS), APPLE.con_id, bid, ask, *(sizes or (1, 1)))


def trade(at_s: float, price: float | None, size: float | None, *, unreported: bool = False) -> TradeEvent:
    return TradeEvent(START_S * NS + int(at_s * NS), APPLE.con_id, price, size, "X", "", unreported)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=8), st.integers(1, 6))
def test_whoever_applies_the_operations_has_the_book(books: list[Any], num_rows: int) -> None:
    source = Books([], [])
    sent: list[codec.DepthUpdate] = []
    stream = DepthStream(sent.append, 1, source, num_rows, (), is_smart=False)
    rebuilt: dict[int, list[Level]] = {0: [], 1: []}
    for bids, asks in books:
        source.rows = (sorted(bids.items(), reverse=True), sorted(asks.items()))
        stream.on_quote(quote(), quote())
        for operation in sent:
            side = rebuilt[operation.side]
            row = (operation.price, operation.size)
            if operation.operation == 0:
                side.insert(operation.position, row)
            elif operation.operation == 1:
                assert side[operation.position] != row
                side[operation.position] = row
            else:
                del side[operation.position]
            assert len(side) <= num_rows
        sent.clear()
        assert (rebuilt[1], rebuilt[0]) == source.book(quote(), num_rows)


def test_an_unchanged_book_says_nothing() -> None:
    sent: list[Any] = []
    stream = DepthStream(sent.append, 1, Books([(1.0, 2)], [(1.1, 3)]), 5, ("A", "B"), is_smart=True)
    stream.on_quote(quote(), quote())
    assert sent == [codec.DepthL2(1, 0, 0, 1, 1.0, 2, "A", True), codec.DepthL2(1, 0, 0, 0, 1.1, 3, "A", True)]
    stream.on_quote(quote(), quote())
    assert len(sent) == 2


def level1(own: MarketChannel) -> list[Any]:
    sent: list[Any] = []
    own.listeners.append(Level1Stream(sent.append, 1, own, 1, frozenset()))
    return sent


def test_an_empty_side_is_told() -> None:
    own = channel()
    sent = level1(own)
    own.apply(quote(0, 1.0, None, 5, None))
    own.apply(quote(1, None, None, None, None))
    assert sent == [
        codec.TickPrice(1, 1, 1.0, 5, 1),
        codec.TickSize(1, 0, 5),
        codec.TickPrice(1, 1, -1.0, 0, 1),
        codec.TickSize(1, 0, 0),
    ]


def test_unreported_trades_change_the_volume_only() -> None:
    own = channel()
    sent = level1(own)
    own.apply(trade(0, 2.0, 7, unreported=True))
    assert sent == [codec.TickSize(1, 8, 7)]
    assert (own.last.price, own.high, own.volume, own.vwap) == (None, None, 7, 2.0)


def test_the_day_is_counted() -> None:
    own = channel()
    for at_s, price in enumerate((3.0, 5.0, 2.0, 4.0)):
        own.apply(trade(at_s, price, 1))
    assert (own.open, own.high, own.low, own.last.price, own.volume, own.vwap) == (3.0, 5.0, 2.0, 4.0, 4, 3.5)


@pytest.mark.parametrize(
    ("what", "value"), [("TRADES", 1.5), ("BID", 1.0), ("ASK", 2.0), ("MIDPOINT", 1.5), ("BID_ASK", 1.5)]
)
def test_a_channel_knows_the_value_of_what_is_shown(what: str, value: float) -> None:
    own = channel()
    own.begin(quote(), trade(0, 1.5, 1))
    assert own.value(what) == value


def test_bars_count_from_the_next_full_five_seconds() -> None:
    sent: list[Any] = []
    stream = RealTimeBarStream(sent.append, 1, BarBuilder("TRADES", 9.0), START_S * NS + 1)
    own = channel()
    own.listeners.append(stream)
    for at_s, price, size in ((4, 1.0, 1), (5, 2.0, 1), (6, 4.0, 2), (9.999, 3.0, 1)):
        own.apply(trade(at_s, price, size))
    assert stream.due_ns == (START_S + 10) * NS
    stream.on_clock()
    stream.on_clock()
    own.apply(trade(16, 5.0, 1))
    stream.on_clock()
    assert sent == [
        codec.RealTimeBar(1, START_S + 5, 2.0, 4.0, 2.0, 3.0, 4, 3.25, 3),
        codec.RealTimeBar(1, START_S + 10, 3.0, 3.0, 3.0, 3.0, 0, 3.0, 0),
        codec.RealTimeBar(1, START_S + 15, 5.0, 5.0, 5.0, 5.0, 1, 5.0, 1),
    ]


def test_without_any_value_there_is_no_bar() -> None:
    sent: list[Any] = []
    stream = RealTimeBarStream(sent.append, 1, BarBuilder("BID", None), START_S * NS)
    stream.on_clock()
    stream.on_quote(quote(11, None, 2.0, None, 1), quote())
    stream.on_clock()
    stream.on_quote(quote(17, 1.25), quote())
    stream.on_clock()
    assert sent == [codec.RealTimeBar(1, START_S + 15, 1.25, 1.25, 1.25, 1.25, -1, -1, -1)]


def test_the_last_bar_of_a_history_goes_on() -> None:
    sent: list[Any] = []
    builder = BarBuilder("TRADES", 2.0)
    builder.resume(1.0, 3.0, 0.5, 2.0, 10.0, 1.5, 4)
    stream = HistoricalUpdateStream(sent.append, 1, builder, START_S, 5, str, START_S * NS)
    stream.on_clock()
    assert sent == []
    own = channel()
    own.listeners.append(stream)
    own.apply(trade(1, 4.0, 10))
    stream.on_clock()
    stream.on_clock()
    own.apply(trade(4, 0.25, 1))
    own.apply(trade(11, 1.0, 2))
    stream.on_clock()
    assert sent == [
        codec.HistoricalDataUpdate(1, 5, str(START_S), 1.0, 4.0, 0.5, 4.0, 2.75, 20),
        codec.HistoricalDataUpdate(1, 6, str(START_S), 1.0, 4.0, 0.25, 0.25, round(55.25 / 21, 6), 21),
        codec.HistoricalDataUpdate(1, 1, str(START_S + 10), 1.0, 1.0, 1.0, 1.0, 1.0, 2),
    ]
    assert stream.due_ns == (START_S + 5) * NS
