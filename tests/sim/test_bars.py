"""Bars are made of the very events that a channel delivers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.sim import codec
from ibfast.sim.bars import BarBuilder, HistoricalUpdateStream, RealTimeBarStream
from tests.support.sim_events import NS, START_S, channel, quote, trade


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


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 99)), min_size=1, max_size=30))
def test_a_bar_is_the_summary_of_its_trades(trades: list[tuple[int, int]]) -> None:
    bar = BarBuilder("TRADES", 1000.0)
    for price, size in trades:
        bar.on_trade(trade(0, price, size))
    prices = [price for price, _ in trades]
    assert (bar.open, bar.high, bar.low, bar.close) == (prices[0], max(prices), min(prices), prices[-1])
    volume = sum(size for _, size in trades)
    assert (bar.count, bar.volume) == (len(trades), volume)
    assert bar.wap == round(sum(price * size for price, size in trades) / volume, 6)


@pytest.mark.parametrize(("what_to_show", "value"), [("BID", 1.0), ("ASK", 2.0), ("MIDPOINT", 1.5), ("TRADES", 9.0)])
def test_a_bar_takes_only_the_events_it_shows(what_to_show: str, value: float) -> None:
    bar = BarBuilder(what_to_show, None)
    bar.on_quote(quote())
    bar.on_trade(trade(0, 9.0, 1))
    bar.on_trade(trade(0, 5.0, 1, unreported=True))
    assert (bar.open, bar.high, bar.low, bar.close) == (value,) * 4
