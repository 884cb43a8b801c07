"""The made-up market is the same at every look, and behaves like a market."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import Contract, Forex, Index, Option, Stock
from ibfast.sim.clock import Clock
from ibfast.sim.events import Event, QuoteEvent, TradeEvent
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe

NS = 1_000_000_000
START_NS = 1_795_445_640 * NS
UNIVERSE = Universe.builtin(date(2026, 11, 23))
APPLE = UNIVERSE.find(Stock("AAPL"))[0]


def frozen(now_ns: int) -> Clock:
    return Clock(0, now_ns)


def live(market: Market, con_ids: list[int], end_ns: int, steps: int) -> list[Event]:
    for con_id in con_ids:
        market.watch(con_id, START_NS)
    moments = [START_NS + (end_ns - START_NS) * step // steps for step in range(1, steps + 1)]
    return [event for moment in moments for event in market.advance(frozen(moment))]


def one_stock_events(symbol: str = "AAPL", seconds: int = 600, rate: float = 2000) -> list[Event]:
    market = Market(UNIVERSE, seed=3, rate=rate)
    return market.past_events(UNIVERSE.find(Stock(symbol))[0].con_id, START_NS, START_NS + seconds * NS)


@settings(max_examples=20)
@given(steps=st.integers(1, 300), seed=st.integers(0, 5))
def test_live_events_are_the_past_ones_however_time_is_cut(steps: int, seed: int) -> None:
    end_ns = START_NS + 5 * NS
    events = live(Market(UNIVERSE, seed=seed), [APPLE.con_id], end_ns, steps)
    past = Market(UNIVERSE, seed=seed).past_events(APPLE.con_id, START_NS + 1, end_ns + 1)
    assert events == past


@settings(max_examples=20)
@given(cut=st.integers(0, 60 * NS))
def test_a_window_is_the_sum_of_its_parts(cut: int) -> None:
    market = Market(UNIVERSE)
    whole = market.past_events(APPLE.con_id, START_NS, START_NS + 60 * NS)
    first = market.past_events(APPLE.con_id, START_NS, START_NS + cut)
    assert first + market.past_events(APPLE.con_id, START_NS + cut, START_NS + 60 * NS) == whole


def test_another_seed_is_another_market() -> None:
    first, second = (Market(UNIVERSE, seed=seed).past_events(APPLE.con_id, START_NS, START_NS + NS) for seed in (1, 2))
    assert first != second


def test_all_instruments_come_in_order_of_time_at_the_rate_that_was_asked_for() -> None:
    events = live(Market(UNIVERSE, rate=1000), [i.con_id for i in UNIVERSE], START_NS + 20 * NS, 10)
    times = [event.ts_ns for event in events]
    assert times == sorted(times)
    assert 800 * 20 < len(events) < 1200 * 20


def test_what_nobody_watches_is_not_delivered() -> None:
    market = Market(UNIVERSE)
    others = [i.con_id for i in UNIVERSE.find(Stock("MSFT"))]
    live(market, [APPLE.con_id, *others], START_NS + NS, 1)
    market.unwatch(APPLE.con_id)
    later = market.advance(frozen(START_NS + 10 * NS))
    assert {event.con_id for event in later} == set(others)


def test_quotes_are_on_the_grid_and_not_crossed() -> None:
    quotes = [event for event in one_stock_events() if isinstance(event, QuoteEvent)]
    for quote in quotes:
        assert quote.bid is not None
        assert quote.ask is not None
        assert 0.01 <= round(quote.ask - quote.bid, 6) <= 0.2
        assert quote.bid == round(quote.bid, 2)
        assert quote.ask == round(quote.ask, 2)
        assert quote.bid_size
        assert quote.ask_size


def test_quotes_change_their_sizes_more_than_their_prices() -> None:
    quotes = [event for event in one_stock_events() if isinstance(event, QuoteEvent)]
    bids = np.array([quote.bid for quote in quotes])
    sizes = np.array([quote.bid_size for quote in quotes])
    assert 0.002 < np.mean(np.diff(bids) != 0) < 0.2
    assert np.mean(np.diff(sizes) != 0) > 0.3


def test_a_cheap_stock_moves_less_often() -> None:
    def moves(symbol: str) -> float:
        bids = [event.bid for event in one_stock_events(symbol) if isinstance(event, QuoteEvent)]
        return float(np.mean(np.diff(np.array(bids)) != 0))

    assert moves("F") < moves("NFLX")


def test_trades_repeat_their_price_and_happen_mostly_at_the_quotes() -> None:
    events = one_stock_events()
    trades = [event for event in events if isinstance(event, TradeEvent)]
    prices = np.array([trade.price for trade in trades])
    assert 0.5 < np.mean(np.diff(prices) == 0) < 0.95
    at_quotes = 0
    quote: QuoteEvent | None = None
    for event in events:
        if isinstance(event, QuoteEvent):
            quote = event
        elif quote is not None:
            at_quotes += event.price in (quote.bid, quote.ask)
    assert at_quotes > 0.85 * len(trades)


def test_odd_lots_are_unreported() -> None:
    trades = [event for event in one_stock_events() if isinstance(event, TradeEvent)]
    odd = [trade for trade in trades if trade.size % 100]
    assert 0.1 < len(odd) / len(trades) < 0.4
    assert all(trade.unreported for trade in odd)
    assert all(trade.conditions for trade in odd)
    assert sum(not trade.unreported for trade in trades) > 0.5 * len(trades)


def test_arrivals_are_clustered() -> None:
    times = np.array([event.ts_ns for event in one_stock_events()]) - START_NS
    counts = np.bincount(times // (NS // 10))
    # A Poisson process has 1 here.
    assert counts.var() / counts.mean() > 2


def test_the_price_stays_near_its_level_and_moves() -> None:
    market = Market(UNIVERSE)
    days = np.arange(START_NS // NS - 300 * 86_400, START_NS // NS, 86_400)
    closes = market.bars(APPLE.con_id, "TRADES", days, 86_400).close
    assert 0.7 * APPLE.price < closes.min() < closes.max() < 1.4 * APPLE.price
    yearly = np.diff(np.log(closes)).std() * np.sqrt(365)
    assert 0.3 * APPLE.volatility < yearly < 2 * APPLE.volatility


def test_forex_has_quotes_only_and_indices_prints_without_size() -> None:
    market = Market(UNIVERSE, rate=2000)
    euro = market.past_events(UNIVERSE.find(Forex("EURUSD"))[0].con_id, START_NS, START_NS + 20 * NS)
    spx = market.past_events(UNIVERSE.find(Index("SPX", "CBOE"))[0].con_id, START_NS, START_NS + 20 * NS)
    assert {type(event) for event in euro} == {QuoteEvent}
    assert {type(event) for event in spx} == {TradeEvent}
    assert {event.size for event in spx if isinstance(event, TradeEvent)} == {0}


def test_options_and_futures_follow_their_underlying() -> None:
    market = Market(UNIVERSE)
    under = market.value(APPLE.con_id, START_NS)
    deep_call = UNIVERSE.find(Option("AAPL", "20261127", 180.0, "C"))[0]
    assert market.value(deep_call.con_id, START_NS) == pytest.approx(under - 180, rel=0.05)
    future = UNIVERSE.find(Contract(symbol="ES", sec_type="FUT", last_trade_date="202612"))[0]
    spx = market.value(UNIVERSE.find(Index("SPX", "CBOE"))[0].con_id, START_NS)
    assert market.value(future.con_id, START_NS) == pytest.approx(spx, rel=0.01)


def test_what_stands_is_what_came_last() -> None:
    market = Market(UNIVERSE)
    events = market.past_events(APPLE.con_id, START_NS - 60 * NS, START_NS + 1)
    quote, trade = market.latest(APPLE.con_id, START_NS)
    assert quote == [event for event in events if isinstance(event, QuoteEvent)][-1]
    assert trade == [event for event in events if isinstance(event, TradeEvent) and not event.unreported][-1]


def test_even_a_sleepy_instrument_has_a_quote() -> None:
    market = Market(UNIVERSE, rate=0.01)
    for instrument in UNIVERSE:
        quote, trade = market.latest(instrument.con_id, START_NS)
        assert (quote is not None) == instrument.has_quotes
        assert quote is None or quote.bid < quote.ask
        assert trade is None or instrument.has_trades


@pytest.mark.parametrize("what_to_show", ["TRADES", "BID", "ASK", "MIDPOINT", "BID_ASK"])
def test_bars_are_the_same_in_any_window_and_consistent(what_to_show: str) -> None:
    market = Market(UNIVERSE)
    starts = np.arange(START_NS // NS, START_NS // NS + 3600, 60)
    bars = market.bars(APPLE.con_id, what_to_show, starts, 60)
    part = market.bars(APPLE.con_id, what_to_show, starts[20:30], 60)
    for name in ("open", "high", "low", "close", "volume", "wap", "count"):
        assert getattr(part, name).tolist() == getattr(bars, name)[20:30].tolist()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    if what_to_show == "TRADES":
        assert (bars.volume > 0).all()
        assert ((bars.wap >= bars.low) & (bars.wap <= bars.high)).all()
    else:
        assert set(bars.volume) == set(bars.wap) == set(bars.count) == {-1}


def test_history_and_live_prices_agree() -> None:
    market = Market(UNIVERSE, rate=2000)
    bar = market.bars(APPLE.con_id, "TRADES", np.array([START_NS // NS]), 60)
    trades = market.past_events(APPLE.con_id, START_NS, START_NS + 60 * NS)
    middle = np.median([event.price for event in trades if isinstance(event, TradeEvent)])
    assert float(bar.low[0]) - 0.3 < middle < float(bar.high[0]) + 0.3


def test_a_book_has_rows_away_from_the_quote() -> None:
    market = Market(UNIVERSE)
    quote, _ = market.latest(APPLE.con_id, START_NS)
    assert quote is not None
    bids, asks = market.book(quote, 10)
    assert bids[0] == (quote.bid, quote.bid_size)
    assert asks[0] == (quote.ask, quote.ask_size)
    assert [round(bids[0][0] - price, 6) for price, _ in bids] == [round(0.01 * row, 6) for row in range(10)]
    assert [round(price - asks[0][0], 6) for price, _ in asks] == [round(0.01 * row, 6) for row in range(10)]
    assert all(size > 0 for _, size in bids + asks)
    assert market.book(quote, 10) == (bids, asks)


def test_statistics_of_the_day() -> None:
    day = Market(UNIVERSE).statistics(APPLE.con_id, START_NS)
    assert day.low <= day.open <= day.high
    assert day.low <= day.vwap <= day.high
    assert day.volume > 0
