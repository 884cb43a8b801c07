"""Streams, one by one: books and level 1 from events that a test makes up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ibfast.sim import codec
from ibfast.sim.channel import MarketChannel
from ibfast.sim.events import Level, QuoteEvent
from ibfast.sim.streams import DepthStream, Level1Stream
from tests.support.sim_events import channel, quote, trade

PRICES = st.integers(1, 12).map(lambda ticks: ticks / 100)
SIDES = st.dictionaries(PRICES, st.integers(1, 5), max_size=8)


class Books:
    """Stands for a market that knows books only."""

    def __init__(self, bids: list[Level], asks: list[Level]) -> None:
        self.rows = (bids, asks)

    def book(self, quote: QuoteEvent, rows: int) -> tuple[list[Level], list[Level]]:
        return self.rows[0][:rows], self.rows[1][:rows]


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
