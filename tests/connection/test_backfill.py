"""Backfill of gaps: the plan by itself, the work on a scripted history, the whole against the embedded gateway.

In the last part streams are interrupted by a proxy and by the gateway, and what came live and what was filled in
afterwards is compared with the gateway's own history, trade by trade.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast import Config, IBKRConnectionManager, Kind
from ibfast.config import BreakerConfig, PacingConfig, ReconnectionConfig, SessionConfig
from ibfast.connection import backfill
from ibfast.connection.backfill import (
    Backfiller,
    Source,
    bar_page,
    bar_step,
    range_of,
    rows_of,
    sources_of,
    tick_step,
    unseen,
)
from ibfast.connection.monitor import ConnectionMonitor
from ibfast.connection.stream import DataType, Stream, wanted
from ibfast.errors import FeedError, NotConnectedError, RequestError
from ibfast.feed.feed import BACKFILL_KINDS, NO_INSTRUMENT, Feed
from ibfast.policy.subscription import Gap, Subscription, SubscriptionRequest, SubscriptionState
from ibfast.records import (
    HISTORICAL_BAR,
    HISTORICAL_TICK_BID_ASK,
    HISTORICAL_TICK_LAST,
    HISTORICAL_TICK_MIDPOINT,
    GapCause,
    Scope,
)
from ibfast.sim.events import TradeEvent
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.universe import Universe
from ibfast.wire.requests import HistoricalBars, HistoricalTicksRequest, MarketDepth, TickByTick
from tests.support.conversations import AAPL, small_feed
from tests.support.loops import Run, until

NS = 1_000_000_000
T0 = 1_700_000_000
"""A second that begins a bar of five seconds, of a minute no."""
CALL = replace(AAPL, con_id=7, sec_type="OPT", last_trade_date="20270115", strike=250.0, right="C")
COMBO = replace(AAPL, con_id=0, sec_type="BAG")
DOWN_S = 0.3


def request_of(data_type: str, **options: Any) -> SubscriptionRequest:
    return wanted(CALL if data_type == "GREEKS" else AAPL, data_type, **options).request


# --- the plan ---

SOURCES = {
    DataType.LAST: (Source("trades", "TRADES", reported_only=True),),
    DataType.ALL_LAST: (Source("trades", "TRADES"),),
    DataType.BID_ASK: (Source("quotes", "BID_ASK"),),
    DataType.MIDPOINT: (Source("quotes", "MIDPOINT"),),
    DataType.QUOTES: (Source("trades", "TRADES", reported_only=True), Source("quotes", "BID_ASK")),
    DataType.DEPTH: (),
    DataType.BARS: (Source("bars", "TRADES", "5 secs", 5),),
    DataType.UPDATING_BARS: (Source("bars", "TRADES", "1 min", 60),),
}


@pytest.mark.parametrize("data_type", SOURCES)
def test_what_a_subscription_can_be_filled_with(data_type: DataType) -> None:
    assert sources_of(request_of(data_type)) == SOURCES[data_type]
    assert sources_of(wanted(COMBO, data_type).request) == ()


def test_options_are_those_of_the_subscription() -> None:
    assert sources_of(request_of("TRADES", generic_ticks="233,236"))[0] == Source("trades", "TRADES")
    assert sources_of(request_of("BID_ASK", ignore_size=True)) == (Source("quotes", "BID_ASK", ignore_size=True),)
    bars = sources_of(request_of("UPDATING_BARS", bar_size="2 hours", what_to_show="BID", use_rth=True))
    assert bars == (Source("bars", "BID", "2 hours", 7200, use_rth=True),)
    assert sources_of(request_of("UPDATING_BARS", bar_size="1 day"))[0].bar_s == 86_400
    for long in ("1 week", "1 month"):
        assert sources_of(request_of("UPDATING_BARS", bar_size=long)) == ()


TICKS = Source("trades", "TRADES")
MINUTES = Source("bars", "TRADES", "1 min", 60)


def test_the_range_of_ticks_begins_a_second_early_and_has_the_last_second() -> None:
    assert range_of(TICKS, T0 * NS, T0 * NS) == (T0 - 1, T0 + 1)
    assert range_of(TICKS, T0 * NS + 999_999_999, (T0 + 5) * NS + 1) == (T0 - 1, T0 + 6)


@given(st.sampled_from([5, 60, 3600, 86_400]), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_range_of_bars_has_those_that_ended_and_no_other(bar_s: int, start_ms: int, length_ms: int) -> None:
    first_ns = T0 * NS + start_ms * 1_000_000
    last_ns = first_ns + length_ms * 1_000_000
    at_s, end_s = range_of(replace(MINUTES, bar_s=bar_s), first_ns, last_ns)
    assert at_s % bar_s == end_s % bar_s == 0
    assert end_s * NS <= last_ns < (end_s + bar_s) * NS
    assert at_s * NS <= first_ns - NS < (at_s + bar_s) * NS or at_s * NS <= first_ns < (at_s + bar_s) * NS


def ask(ticks: Any, at_s: int, most: int) -> Any:
    """Return what a gateway answers: ticks from a second on, and no more of them than that."""
    return ticks[ticks // NS >= at_s][:most]


@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=20),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_pages_of_ticks_bring_every_tick_of_the_range_once(per_second: list[int], before: int, after: int) -> None:
    seconds = np.repeat(np.arange(T0, T0 + len(per_second)), per_second)
    ticks = seconds * NS + 5
    at_s, end_s = T0 + before, T0 + max(before + 1, len(per_second) - after)
    found, start_s, pages = [], at_s, 0
    while at_s < end_s:
        page = ask(ticks, at_s, 1000)
        step = tick_step(page, at_s, end_s)
        assert not step.is_cut
        assert step.next_s > at_s
        found += page[step.kept].tolist()
        at_s, pages = step.next_s, pages + 1
    assert found == ticks[(seconds >= start_s) & (seconds < end_s)].tolist()
    assert pages <= len(found) // 2 + 2


def test_a_second_that_overflows_an_answer_is_told_and_passed() -> None:
    page = np.full(1000, T0 * NS)
    step = tick_step(page, T0, T0 + 5)
    assert (step.next_s, step.is_cut, step.kept.sum()) == (T0 + 1, True, 1000)


def test_what_a_gateway_should_not_answer_ends_the_range() -> None:
    for page in (np.empty(0, np.int64), np.full(1000, (T0 - 10) * NS)):
        step = tick_step(page, T0, T0 + 5)
        assert (step.next_s, step.is_cut, step.kept.sum()) == (T0 + 5, False, 0)


@pytest.mark.parametrize(
    ("bar_s", "length_s", "pages"),
    [
        (5, 5, [(5, "5 S")]),
        (5, 1800 + 5, [(1800, "1800 S"), (1805, "5 S")]),
        (60, 21_600, [(21_600, "21600 S")]),
        (3600, 400 * 3600, [(360 * 3600, "15 D"), (400 * 3600, "2 D")]),
        (86_400, 86_400, [(86_400, "1 D")]),
        (86_400, 3 * 86_400, [(3 * 86_400, "3 D")]),
    ],
)
def test_pages_of_bars(bar_s: int, length_s: int, pages: list[tuple[int, str]]) -> None:
    source, at_s, found = replace(MINUTES, bar_s=bar_s), T0, []
    while at_s < T0 + length_s:
        page_end_s, duration = bar_page(source, at_s, T0 + length_s)
        found.append((page_end_s - T0, duration))
        events = np.array([at_s - 1, at_s, page_end_s - 1, page_end_s]) * NS
        step = bar_step(events, at_s, page_end_s)
        assert step.kept.tolist() == [False, True, True, False]
        at_s = step.next_s
    assert found == pages


def text_ids(text: str) -> int:
    return {"": 0, "ARCA": 5, "   I": 6}[text]


def test_rows_have_the_values_of_history() -> None:
    trades = np.array([(T0 * NS, 1, 1.5, 100, "ARCA", ""), (T0 * NS, 2, 2.5, 7, "", "   I")], HISTORICAL_TICK_LAST)
    rows = rows_of(TICKS, trades, text_ids)
    names = ["event_ns", "attribs", "price", "size", "exchange", "conditions"]
    assert rows[names].tolist() == [(T0 * NS, 1, 1.5, 100, 5, 0), (T0 * NS, 2, 2.5, 7, 0, 6)]
    assert rows_of(replace(TICKS, reported_only=True), trades, text_ids)["price"].tolist() == [1.5]

    quotes = np.array([(T0 * NS, 2, np.nan, 11.5, np.nan, 4)], HISTORICAL_TICK_BID_ASK)
    (quote,) = rows_of(Source("quotes", "BID_ASK"), quotes, text_ids)
    assert (quote["attribs"], quote["ask"], quote["ask_size"]) == (2, 11.5, 4)
    assert np.isnan([quote["bid"], quote["bid_size"]]).all()

    (middle,) = rows_of(Source("quotes", "MIDPOINT"), np.array([(T0 * NS, 9.5, 0)], HISTORICAL_TICK_MIDPOINT), text_ids)
    assert (middle["event_ns"], middle["bid"], middle["ask"]) == (T0 * NS, 9.5, 9.5)
    assert np.isnan([middle["bid_size"], middle["ask_size"]]).all()

    bars = np.array([(T0 * NS, 1, 4, 0.5, 2, 300, 1.75, 12)], HISTORICAL_BAR)
    (bar,) = rows_of(replace(MINUTES, what_to_show="MIDPOINT"), bars, text_ids)
    names = ["event_ns", "open", "high", "low", "close", "volume", "wap", "count"]
    assert bar[names].item() == (T0 * NS, 1, 4, 0.5, 2, 300, 1.75, 12)


def trade_rows(*trades: tuple[int, float]) -> Any:
    rows = np.zeros(len(trades), Feed.dtypes["trades"])
    rows["event_ns"], rows["price"] = [s * NS for s, _ in trades], [price for _, price in trades]
    return rows


def test_what_is_known_comes_no_second_time_but_every_other_does() -> None:
    rows = trade_rows((T0, 1.5), (T0, 1.5), (T0, 1.5), (T0, 2.5), (T0 + 1, 1.5))
    known = trade_rows((T0, 1.5), (T0, 1.5), (T0, 3.5))
    assert unseen(rows, known, "trades")[["event_ns", "price"]].tolist() == [
        (T0 * NS, 1.5), (T0 * NS, 2.5), ((T0 + 1) * NS, 1.5),
    ]  # fmt: skip
    quotes = np.zeros(2, Feed.dtypes["quotes"])
    quotes["bid"] = np.nan
    assert len(unseen(quotes, quotes[:1], "quotes")) == 1


# --- the feed ---


@pytest.mark.parametrize("ring", BACKFILL_KINDS)
def test_history_in_a_feed_is_numbered_and_marked_and_touches_nothing_else(ring: str) -> None:
    feed = small_feed()
    instrument = feed.add_instrument("AAPL")
    feed.bind(1, instrument)
    feed.add_gap(5, Scope.LINK, GapCause.LINK_LOST)
    before = feed.last.tobytes()
    rows = np.zeros(3, Feed.dtypes[ring])
    rows["req_id"], rows["instrument"], rows["event_ns"], rows["kind"] = 1, instrument, [7, 8, 9], Kind.LAST
    feed.add_history(ring, rows)
    feed.add_history(ring, rows[:0])
    found = feed.rings[ring].reader(start="oldest").read()
    assert found["seq"].tolist() == [2, 3, 4]
    assert found["kind"].tolist() == [BACKFILL_KINDS[ring]] * 3
    assert found["event_ns"].tolist() == [7, 8, 9]
    assert feed.seq == 4
    assert feed.last.tobytes() == before
    assert feed.activity([1])["messages"].tolist() == [0]


def test_history_goes_to_three_rings() -> None:
    with pytest.raises(FeedError, match="trades, quotes, bars, not to 'ticks'"):
        small_feed().add_history("ticks", np.zeros(1, Feed.dtypes["ticks"]))


def test_texts_have_one_id() -> None:
    feed = small_feed()
    assert feed.text_id("") == 0
    assert feed.text_id("ARCA") == feed.text_id("ARCA")
    assert feed.texts[feed.text_id("ARCA")] == "ARCA"


# --- the work ---


class Historian:
    """An owner whose history is a list of ticks or bars, and that can be told to refuse."""

    def __init__(self, history: Any = None, feed: Feed | None = None) -> None:
        self.feed = feed or small_feed()
        self.monitor = ConnectionMonitor()
        self.config = Config(session=SessionConfig(backfill=True))
        self.connected = True
        self.history = np.zeros(0, HISTORICAL_TICK_LAST) if history is None else history
        self.kinds: frozenset[Kind] = frozenset()
        self.asked: list[Any] = []
        self.errors: deque[Exception | None] = deque()
        self.gate = asyncio.Event()
        self.gate.set()

    def kinds_of(self, subscription: Subscription) -> frozenset[Kind]:
        return self.kinds

    async def _pass(self, *question: Any) -> None:
        self.asked.append(question)
        await self.gate.wait()
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error

    async def historical_ticks(self, contract: Any, what: str, start: str, *, use_rth: bool, ignore_size: bool) -> Any:
        await self._pass(contract.symbol, what, start)
        at_s = int(np.datetime64(f"{start[:4]}-{start[4:6]}-{start[6:8]}T{start[9:]}").astype(int))
        return self.history[self.history["event_ns"] // NS >= at_s][:1000]

    async def historical_bars(self, contract: Any, duration: str, size: str, what: str, rth: bool, end: str) -> Any:
        await self._pass(contract.symbol, duration, size, what, rth, end)
        return self.history

    def events(self, name: str) -> list[Any]:
        return [event.fields for event in self.monitor.events if event.name == name]


def ticks_at(*seconds: int) -> Any:
    history = np.zeros(len(seconds), HISTORICAL_TICK_LAST)
    history["event_ns"] = np.array(seconds) * NS
    history["price"] = np.arange(len(seconds)) + 0.5
    return history


def subscription_of(owner: Historian, request: SubscriptionRequest | None = None, **values: Any) -> Subscription:
    instrument = owner.feed.add_instrument("AAPL")
    return Subscription(request or TickByTick(0, AAPL, "AllLast"), instrument, req_ids={3: 0, 7: 0}, **values)


def gap_of(subscription: Subscription, first_s: float, last_s: float) -> Gap:
    return Gap(
        subscription, Scope.CONNECTION, GapCause.CONNECTION_LOST, 1, int(first_s * NS), 2, int(last_s * NS)
    )  # fmt: skip


@contextlib.asynccontextmanager
async def filling(owner: Historian) -> AsyncIterator[Backfiller]:
    filler = Backfiller(owner)  # type: ignore[arg-type]
    try:
        yield filler
    finally:
        await filler.stop()


def test_a_gap_is_filled_marked_and_told(run: Run) -> None:
    async def test() -> None:
        owner = Historian(ticks_at(T0 - 9, T0 - 1, T0, T0 + 3, T0 + 4, T0 + 5))
        subscription = subscription_of(owner)
        async with filling(owner) as filler:
            filler.add(gap_of(subscription, T0, T0 + 4.5))
            await until(lambda: owner.events("backfilled"))
        rows = owner.feed.trades.reader(start="oldest").read()
        assert rows["price"].tolist() == [1.5, 2.5, 3.5, 4.5]
        assert rows["kind"].tolist() == [Kind.BACKFILL_TRADE] * 4
        assert (rows["req_id"] == 7).all()
        assert (rows["instrument"] == subscription.instrument).all()
        assert (abs(rows["recv_ns"] - time.time_ns()) < 60 * NS).all()
        (gap,) = owner.feed.gaps.reader(start="oldest").read()
        assert (gap["cause"], gap["scope"], gap["recovered"], gap["count"], gap["req_id"]) == (
            GapCause.BACKFILLED, Scope.SUBSCRIPTION, 1, 4, 7,
        )  # fmt: skip
        assert (gap["first_seq"], gap["last_seq"]) == (rows["seq"][0], rows["seq"][-1])
        assert (gap["first_ns"], gap["last_ns"]) == ((T0 - 1) * NS, (T0 + 5) * NS)
        assert owner.asked == [("AAPL", "TRADES", "20231114-22:13:19")]

    run(test())


def test_a_gap_without_ticks_is_covered_too(run: Run) -> None:
    async def test() -> None:
        for error in (
            None,
            RequestError(1, 162, "Historical Market Data Service error message:HMDS query returned no data"),
        ):
            owner = Historian()
            owner.errors.append(error)
            async with filling(owner) as filler:
                filler.add(gap_of(subscription_of(owner), T0, T0 + 4))
                await until(partial(owner.events, "backfilled"))
            (gap,) = owner.feed.gaps.reader(start="oldest").read()
            assert (gap["count"], gap["first_seq"], gap["last_seq"]) == (0, 0, 0)
            assert owner.events("backfill_failed") == []

    run(test())


def test_bars_are_asked_for_up_to_the_last_one_that_ended(run: Run) -> None:
    async def test() -> None:
        bars = np.zeros(4, HISTORICAL_BAR)
        bars["event_ns"] = (T0 - 20 + 60 * np.arange(-1, 3)) * NS
        owner = Historian(bars)
        request = request_of("UPDATING_BARS", use_rth=True)
        async with filling(owner) as filler:
            subscription = subscription_of(owner, request)
            filler.add(gap_of(subscription, T0, T0 + 30))  # in one bar, which goes on
            filler.add(gap_of(subscription, T0, T0 + 100))
            await until(lambda: owner.events("backfilled"))
        assert owner.asked == [("AAPL", "120 S", "1 min", "TRADES", True, "20231114-22:15:00")]
        rows = owner.feed.bars.reader(start="oldest").read()
        assert (rows["event_ns"] // NS).tolist() == [T0 - 20, T0 + 40]
        assert set(rows["kind"].tolist()) == {Kind.BACKFILL_BAR}

    run(test())


def test_what_has_no_history_is_told(run: Run) -> None:
    async def test() -> None:
        owner = Historian()
        async with filling(owner) as filler:
            for request in (MarketDepth(0, AAPL, 5), request_of("UPDATING_BARS", bar_size="1 week")):
                filler.add(gap_of(subscription_of(owner, request), T0, T0 + 4))
            owner.kinds = frozenset({Kind.OPTION})
            filler.add(gap_of(subscription_of(owner, request_of("GREEKS")), T0, T0 + 4))
            owner.kinds = frozenset()
            filler.add(gap_of(subscription_of(owner), 0, T0 + 4))
        reasons = [event["reason"] for event in owner.events("backfill_impossible")]
        assert reasons == ["there is no such history"] * 3 + ["its begin is not known"]
        assert owner.asked == []

    run(test())


@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        (set(), ["TRADES", "BID_ASK"]),
        ({Kind.L1_LAST, Kind.BACKFILL_TRADE}, ["TRADES"]),
        ({Kind.BACKFILL_QUOTE}, ["BID_ASK"]),
    ],
)
def test_of_level_1_what_its_streams_show_is_asked_for(run: Run, kinds: set[Kind], asked: list[str]) -> None:
    async def test() -> None:
        owner = Historian()
        owner.kinds = frozenset(kinds)
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner, request_of("QUOTES")), T0, T0 + 4))
            await until(lambda: len(owner.events("backfilled")) == len(asked))
        assert [what for _, what, _ in owner.asked] == asked

    run(test())


def test_ranges_that_touch_are_one_and_others_stay_apart(run: Run) -> None:
    async def test() -> None:
        owner = Historian()
        first, second = subscription_of(owner), subscription_of(owner, priority=1)
        owner.gate.clear()
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner), T0, T0 + 1))
            await until(lambda: owner.asked)
            for subscription, start_s, length_s in [
                (first, 20, 4), (first, 100, 4), (second, 24, 4), (first, 26, 4), (first, 15, 4), (first, 21, 1),
            ]:  # fmt: skip
                filler.add(gap_of(subscription, T0 + start_s, T0 + start_s + length_s))
            owner.gate.set()
            await until(lambda: len(owner.events("backfilled")) == 4)
        ranges = [(event["first_ns"] // NS - T0, event["last_ns"] // NS - T0) for event in owner.events("backfilled")]
        assert ranges == [(-1, 2), (23, 29), (14, 31), (99, 105)]  # the second one has priority

    run(test())


def test_what_is_too_much_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "MOST_PAGES", 2)
    monkeypatch.setattr(backfill, "MOST_QUEUED", 2)

    async def test() -> None:
        seconds = np.repeat(np.arange(T0, T0 + 10), 600)
        owner = Historian(ticks_at(*seconds.tolist()), Feed(1 << 12, max_instruments=8, max_texts=64))
        subscription = subscription_of(owner)
        owner.gate.clear()
        async with filling(owner) as filler:
            filler.add(gap_of(subscription, T0 + 1, T0 + 8))
            await until(lambda: owner.asked)
            for start_s in (100, 200, 300):
                filler.add(gap_of(subscription, T0 + start_s, T0 + start_s + 1))
            owner.gate.set()
            await until(lambda: len(owner.events("backfilled")) == 3)
        full, pages = owner.events("backfill_dropped")
        assert (full["reason"], full["first_ns"]) == ("2 others wait", (T0 + 299) * NS)
        assert (pages["reason"], pages["first_ns"], pages["last_ns"]) == (
            "it takes more than 2 requests", (T0 + 2) * NS, (T0 + 9) * NS,
        )  # fmt: skip
        assert owner.events("backfilled")[0]["rows"] == 1200

    run(test())


def test_a_second_with_too_many_ticks_is_told_and_the_rest_is_filled(run: Run) -> None:
    async def test() -> None:
        seconds = [T0] * 1500 + [T0 + 1]
        owner = Historian(ticks_at(*seconds), Feed(1 << 12, max_instruments=8, max_texts=64))
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner), T0 + 1, T0 + 1))
            await until(lambda: owner.events("backfilled"))
        (cut,) = owner.events("backfill_dropped")
        assert (cut["first_ns"], cut["last_ns"]) == (T0 * NS, (T0 + 1) * NS)
        assert owner.events("backfilled")[0]["rows"] == 1001

    run(test())


def test_a_slow_ring_is_not_run_over(run: Run) -> None:
    """A page may be larger than the ring: whoever waits for rows gets all of them."""

    async def test() -> None:
        owner = Historian(ticks_at(*[T0] * 900))
        reader = owner.feed.trades.reader()
        found: list[float] = []

        async def read() -> None:
            async for rows in reader:
                found.extend(rows["price"].tolist())

        task = asyncio.create_task(read())
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner), T0, T0 + 1))
            await until(lambda: owner.events("backfilled"))
            await until(lambda: not reader.pending)
        reader.close()
        await task
        assert owner.feed.trades.capacity < 900
        assert (len(found), reader.lost) == (900, 0)

    run(test())


@pytest.mark.parametrize(
    "error", [RequestError(9, 162, "No market data permissions"), TimeoutError("slow"), ZeroDivisionError()], ids=repr
)
def test_a_failure_is_told_with_what_is_missing_and_the_next_gap_is_filled(run: Run, error: Exception) -> None:
    async def test() -> None:
        seconds = [T0] * 600 + [T0 + 1] * 600
        owner = Historian(ticks_at(*seconds), Feed(1 << 12, max_instruments=8, max_texts=64))
        owner.errors.extend([None, error])
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner), T0 + 1, T0 + 1))
            filler.add(gap_of(subscription_of(owner), T0 + 50, T0 + 51))
            await until(lambda: len(owner.events("backfilled")) == 2)
        (failed,) = owner.events("backfill_failed")
        assert (failed["first_ns"], failed["last_ns"]) == ((T0 + 1) * NS, (T0 + 2) * NS)
        assert str(error) in failed["error"]
        begun, whole = owner.feed.gaps.reader(start="oldest").read()
        assert (begun["first_ns"], begun["last_ns"], begun["count"]) == (T0 * NS, (T0 + 1) * NS, 600)
        assert (whole["first_ns"], whole["last_ns"]) == ((T0 + 49) * NS, (T0 + 52) * NS)

    run(test())


def test_a_lost_connection_interrupts_it_until_data_flows_again(run: Run) -> None:
    async def test() -> None:
        owner = Historian(ticks_at(T0, T0 + 10))
        subscription = subscription_of(owner)
        owner.errors.append(NotConnectedError("lost"))
        async with filling(owner) as filler:
            filler.add(gap_of(subscription, T0, T0 + 1))
            await until(lambda: owner.asked and not owner.errors)
            owner.connected = False
            filler.add(gap_of(subscription, T0 + 5, T0 + 6))
            await asyncio.sleep(0)
            owner.connected = True
            filler.add(gap_of(subscription, T0 + 10, T0 + 11))
            await until(lambda: len(owner.events("backfilled")) == 3)
        assert sorted(row["event_ns"] // NS for row in owner.feed.trades.reader(start="oldest").read()) == [T0, T0 + 10]
        assert owner.events("backfill_failed") == owner.events("backfill_dropped") == []

    run(test())


def test_a_stop_drops_what_is_left_and_says_so(run: Run) -> None:
    async def test() -> None:
        owner = Historian()
        owner.gate.clear()
        filler = Backfiller(owner)  # type: ignore[arg-type]
        subscription = subscription_of(owner)
        filler.add(gap_of(subscription, T0, T0 + 1))
        filler.add(gap_of(subscription, T0 + 50, T0 + 51))
        await until(lambda: owner.asked)
        await filler.stop()
        await filler.stop()
        dropped = sorted(event["first_ns"] // NS - T0 for event in owner.events("backfill_dropped"))
        assert dropped == [-1, 49]
        assert owner.feed.gaps.published == 0

    run(test())


def test_a_subscription_that_is_over_is_left_alone_and_that_is_told(run: Run) -> None:
    async def test() -> None:
        owner = Historian()
        subscription = subscription_of(owner)
        async with filling(owner) as filler:
            filler.add(gap_of(subscription, T0, T0 + 1))
            subscription.state = SubscriptionState.ENDED
            filler.add(gap_of(subscription_of(owner), T0 + 50, T0 + 51))
            await until(lambda: owner.events("backfilled"))
        assert len(owner.asked) == 1
        (dropped,) = owner.events("backfill_dropped")
        assert (dropped["first_ns"], dropped["reason"]) == ((T0 - 1) * NS, "the subscription has ended")

    run(test())


@pytest.mark.parametrize("end", ["an answer", "the loss of the connection"])
def test_what_moves_is_filled_by_its_new_owner_once(run: Run, end: str) -> None:
    """One range of it is being asked for, another one waits; a third is of a subscription that stays."""

    async def test() -> None:
        former = Historian(ticks_at(T0, T0 + 50, T0 + 100))
        latter = Historian(former.history, former.feed)
        moving, staying = subscription_of(former, priority=1), subscription_of(former)
        former.gate.clear()
        async with filling(former) as filler, filling(latter) as other:
            filler.add(gap_of(moving, T0, T0 + 1))
            filler.add(gap_of(moving, T0 + 50, T0 + 51))
            filler.add(gap_of(staying, T0 + 100, T0 + 101))
            await until(lambda: former.asked)
            if end == "the loss of the connection":
                former.errors.append(NotConnectedError("lost"))
                former.connected = False
                former.gate.set()
                await asyncio.sleep(0)
            other.adopt(filler.surrender(moving))
            former.gate.set()
            await until(lambda: len(latter.events("backfilled")) == 2)
            if not former.connected:
                former.connected = True
                filler.add(gap_of(staying, T0 + 100, T0 + 101))
            await until(lambda: former.events("backfilled"))
        ranges = [(told["first_ns"] // NS - T0, told["rows"]) for told in latter.events("backfilled")]
        assert sorted(ranges) == [(-1, 1), (49, 1)]
        assert [told["first_ns"] // NS - T0 for told in former.events("backfilled")] == [99]
        rows = former.feed.trades.reader(start="oldest").read()
        assert sorted(rows["event_ns"] // NS - T0) == [0, 50, 100]
        assert not former.events("backfill_dropped") + latter.events("backfill_dropped")

    run(test())


def test_what_moves_goes_on_where_its_former_owner_was(run: Run) -> None:
    async def test() -> None:
        history = ticks_at(*(T0 + second for second in range(2000)))
        former = Historian(history, Feed(1 << 12, max_instruments=8, max_texts=64))
        latter = Historian(history, former.feed)
        subscription = subscription_of(former)
        async with filling(former) as filler, filling(latter) as other:
            former.gate.clear()
            filler.add(gap_of(subscription, T0, T0 + 1999))
            await until(lambda: len(former.asked) == 1)
            former.gate.set()  # for the question that waits, and no other
            former.gate.clear()
            await until(lambda: len(former.asked) == 2)
            other.adopt(filler.surrender(subscription))
            await until(lambda: latter.events("backfilled") and former.events("backfilled"))
        (first,), (second,) = former.events("backfilled"), latter.events("backfilled")
        assert (first["first_ns"], second["last_ns"]) == ((T0 - 1) * NS, (T0 + 2000) * NS)
        assert first["last_ns"] == second["first_ns"]
        assert (first["rows"], second["rows"]) == (999, 1001)
        rows = former.feed.trades.reader(start="oldest").read()
        assert (rows["event_ns"] // NS - T0).tolist() == list(range(2000))

    run(test())


def test_what_moves_to_a_connection_that_does_not_backfill_is_told(run: Run) -> None:
    async def test() -> None:
        former, latter = Historian(), Historian()
        latter.config = Config()
        former.gate.clear()
        subscription = subscription_of(former)
        async with filling(former) as filler, filling(latter) as other:
            filler.add(gap_of(subscription, T0, T0 + 1))
            filler.add(gap_of(subscription, T0 + 50, T0 + 51))
            await until(lambda: former.asked)
            other.adopt(filler.surrender(subscription))
        assert latter.asked == []
        told = latter.events("backfill_dropped")
        assert [(each["first_ns"] // NS - T0, each["reason"]) for each in told] == [
            (-1, "the connection that serves it now does not backfill"),
            (49, "the connection that serves it now does not backfill"),
        ]
        assert former.events("backfill_dropped") == []

    run(test())


def test_a_time_that_is_to_come_is_not_asked_for_and_that_is_told(run: Run) -> None:
    async def test() -> None:
        owner = Historian()
        later_s = int(time.time()) + 3600
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner), later_s, later_s + 1))
            await until(lambda: owner.events("backfill_dropped"))
        assert owner.asked == []
        (dropped,) = owner.events("backfill_dropped")
        assert (dropped["first_ns"], dropped["last_ns"]) == ((later_s - 1) * NS, (later_s + 2) * NS)

    run(test())


def test_the_last_second_is_asked_for_when_it_is_over(run: Run) -> None:
    async def test() -> None:
        owner = Historian()
        now_s = time.time()
        async with filling(owner) as filler:
            filler.add(gap_of(subscription_of(owner), now_s - 1, now_s))
            await until(lambda: owner.asked)
            assert time.time() >= int(now_s) + 1

    run(test())


# --- against the embedded gateway ---


class World:
    """A gateway with two stocks, a proxy before it, and a manager that is connected through the proxy."""

    def __init__(self, *, rate: float = 400.0, pacing: bool = True, backfill: bool = True) -> None:
        self.market = Market(Universe.of_symbols(["AAPL", "MSFT"], date(2026, 11, 23)), rate=rate)
        self.gateway = Gateway(market=self.market, pacing=pacing)
        self.asked: list[Any] = []
        self._pacing = PacingConfig(enforced=pacing)
        self._session = SessionConfig(backfill=backfill)
        self._stack = contextlib.AsyncExitStack()
        self._reading: list[asyncio.Task[None]] = []
        self.rows: dict[Stream, list[Any]] = {}

    async def __aenter__(self) -> World:
        await self._stack.enter_async_context(self.gateway)
        self.proxy = await self._stack.enter_async_context(FaultProxy(self.gateway.host, self.gateway.port))
        config = Config(
            port=self.proxy.port,
            feed_capacity=1 << 14,
            pacing=self._pacing,
            session=self._session,
            reconnection=ReconnectionConfig(delay_s=0.05, max_delay_s=0.1),
            breaker=BreakerConfig(open_s=0.05),
        )
        self.manager = await self._stack.enter_async_context(IBKRConnectionManager(config))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()
        await asyncio.gather(*self._reading)

    async def subscribe(self, contract: Any, data_type: str) -> Stream:
        stream = await self.manager.subscribe(contract, data_type)
        rows = self.rows[stream] = []

        async def read() -> None:
            async for batch in stream:
                rows.append(batch)  # noqa: PERF401 - others look at them meanwhile

        self._reading.append(asyncio.create_task(read()))
        await until(lambda: rows)
        return stream

    def of(self, stream: Stream) -> Any:
        return np.concatenate(self.rows[stream])

    def told(self, name: str) -> list[Any]:
        return [event.fields for event in self.manager.monitor.events if event.name == name]

    def gaps(self, stream: Stream) -> Any:
        """The subscription's own, so far."""
        gaps = self.manager.feed.gaps.reader(start="oldest").read()
        return gaps[np.isin(gaps["req_id"], [*stream.subscription.req_ids])]

    def is_filled(self, stream: Stream) -> bool:
        """Whether there was a gap, and what was asked for reaches to the end of the last one."""
        gaps = self.gaps(stream)
        is_filling = gaps["cause"] == GapCause.BACKFILLED
        ends = gaps["last_ns"][(gaps["recovered"] == 1) & ~is_filling]
        return len(ends) > 0 and bool(gaps["last_ns"][is_filling].max(initial=0) >= ends.max())

    async def interrupt(self, stream: Stream, times: int = 1) -> None:
        """Break the connection for a while, and wait for data again."""
        for _ in range(times):
            req_id = stream.req_id
            self.proxy.refuse()
            self.proxy.reset()
            await asyncio.sleep(DOWN_S)
            await self.proxy.listen()
            await until(lambda: stream.req_id not in (0, req_id))  # noqa: B023 - it is awaited here
            await until(lambda: stream.state is SubscriptionState.LIVE)

    def trades_of(self, stream: Stream, first_s: int, end_s: int) -> Counter[Any]:
        """The gateway's own history: reported trades by second."""
        return Counter(
            (event.ts_ns // NS, event.price, event.size)
            for event in self.market.past_events(stream.contract.con_id, first_s * NS, end_s * NS)
            if isinstance(event, TradeEvent) and not event.unreported
        )


def counted(rows: Any, first_s: int, end_s: int) -> Counter[Any]:
    seconds = rows["event_ns"] // NS
    rows = rows[(seconds >= first_s) & (seconds < end_s)]
    return Counter(zip((rows["event_ns"] // NS).tolist(), rows["price"].tolist(), rows["size"].tolist(), strict=True))


def break_connection(world: World, stream: Stream) -> Any:
    return world.interrupt(stream, times=2)


async def break_link(world: World, stream: Stream) -> None:
    """TWS loses IB and comes back with all subscriptions."""
    world.gateway.faults.lose_link()
    await asyncio.sleep(DOWN_S)
    world.gateway.faults.restore_link()


@pytest.mark.parametrize(("interrupt", "pacing"), [(break_connection, False), (break_link, True)])
def test_live_and_filled_trades_are_the_gateways_own_history(
    run: Run, interrupt: Callable[[World, Stream], Any], pacing: bool
) -> None:
    """Tick by tick: every trade once, none missed, none twice, through gaps and to the very second."""

    async def test() -> None:
        async with World(pacing=pacing) as world:
            stream = await world.subscribe("AAPL", "LAST")
            first_s = int(time.time()) + 1  # whole seconds, from the first one that was there from its begin
            await until(lambda: time.time() > first_s + 0.5)
            await interrupt(world, stream)
            await until(lambda: world.is_filled(stream))
            end_s = int(time.time())
            is_told = world.gaps(stream)["cause"] == GapCause.BACKFILLED
            count = world.gaps(stream)["count"][is_told].sum()
            # Rows are read in order: with the last second there, and all that were filled in, all are.
            await until(lambda: world.of(stream)["event_ns"].max() >= end_s * NS)
            await until(lambda: (world.of(stream)["kind"] == Kind.BACKFILL_TRADE).sum() == count)
            rows = world.of(stream)
            assert counted(rows, first_s, end_s) == world.trades_of(stream, first_s, end_s)
            filled = rows[rows["kind"] == Kind.BACKFILL_TRADE]
            assert len(filled) > 0
            assert set(rows["kind"].tolist()) == {Kind.LAST, Kind.BACKFILL_TRADE}
            assert stream.lost == 0
            told = stream.take_gaps()
            assert told["count"][told["cause"] == GapCause.BACKFILLED].sum() == len(filled) == count
            assert not world.gateway.violations

    run(test())


@pytest.mark.parametrize("step_s", [3600, -3600, -86_400 * 400])
def test_a_clock_that_is_set_in_an_outage_leaves_gaps_that_are_filled_or_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    true_s, true_ns = time.time, time.time_ns
    steps = [0]
    monkeypatch.setattr(time, "time", lambda: true_s() + steps[-1])
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + steps[-1] * NS)

    async def test() -> None:
        async with World() as world:
            await world.subscribe("AAPL", "LAST")
            world.proxy.refuse()
            world.proxy.reset()
            await until(lambda: not world.manager.connected)
            steps.append(step_s)
            await world.proxy.listen()
            await until(lambda: world.told("backfilled") or world.told("backfill_dropped"))
            rows = world.manager.feed.gaps.reader(start="oldest").read()
            ended = rows[rows["recovered"] == 1]
            assert {GapCause(cause) for cause in ended["cause"]} >= {GapCause.CONNECTION_LOST}
            assert len(ended[ended["instrument"] != NO_INSTRUMENT]) < len(ended)
            assert (ended["first_ns"] <= ended["last_ns"]).all()
            if step_s < 0:
                assert (ended["last_ns"] - ended["first_ns"] < 60 * NS).all()

    run(test())


def test_pages_of_many_subscriptions_keep_to_the_limits(run: Run) -> None:
    async def test() -> None:
        async with World(rate=1500) as world:
            streams = [
                await world.subscribe(symbol, data_type)
                for symbol in ("AAPL", "MSFT")
                for data_type in ("QUOTES", "TRADES")
            ]
            before_s = int(time.time())
            await world.interrupt(streams[0])
            await until(lambda: len(world.told("backfilled")) == len(streams))
            assert not world.gateway.violations
            assert world.gateway.received[HistoricalTicksRequest] > len(streams)
            assert world.told("backfill_failed") == world.told("backfill_dropped") == []
            for trades in (streams[1], streams[3]):
                rows = world.manager.feed.trades.reader(start="oldest").read()
                rows = rows[rows["instrument"] == trades.instrument]
                told = trades.take_gaps()
                told = told[told["cause"] == GapCause.BACKFILLED]
                first_s, end_s = int(min(told["first_ns"])) // NS, int(max(told["last_ns"])) // NS
                assert first_s <= before_s
                filled = rows[rows["kind"] == Kind.BACKFILL_TRADE]
                assert counted(filled, first_s, end_s) == world.trades_of(trades, first_s, end_s)

    run(test())


def test_nothing_happens_unless_it_is_wanted(run: Run) -> None:
    async def test() -> None:
        async with World(backfill=False) as world:
            stream = await world.subscribe("AAPL", "TRADES")
            await world.interrupt(stream)
            await until(lambda: world.gaps(stream)["recovered"].any())
            assert world.gateway.received[HistoricalTicksRequest] == 0
            assert not [event for event in world.manager.monitor.counts if event.startswith("backfill")]

    run(test())


def test_old_rows_do_not_look_fresh(run: Run) -> None:
    async def test() -> None:
        async with World(pacing=False) as world:
            stream = await world.subscribe("AAPL", "LAST")
            await world.interrupt(stream)
            world.gateway.faults.mute(con_id=stream.contract.con_id)  # history goes on
            await until(lambda: world.is_filled(stream) and (world.of(stream)["kind"] == Kind.BACKFILL_TRADE).any())
            rows = world.of(stream)
            live = rows[rows["kind"] == Kind.LAST]
            assert world.manager.feed.last["last_recv_ns"][stream.instrument] == live["recv_ns"].max()
            assert world.manager.feed.last["last"][stream.instrument] == live["price"][-1]
            activity = world.manager.feed.activity([stream.req_id])
            assert activity["messages"][0] == (live["req_id"] == stream.req_id).sum()

    run(test())


def test_a_refusal_hurts_no_stream(run: Run) -> None:
    async def test() -> None:
        async with World() as world:
            stream = await world.subscribe("AAPL", "TRADES")
            world.gateway.faults.refuse((HistoricalTicksRequest, HistoricalBars), 162, "No market data permissions")
            await world.interrupt(stream)
            await until(lambda: world.told("backfill_failed"))
            assert "No market data permissions" in world.told("backfill_failed")[0]["error"]
            count = len(world.rows[stream])
            await until(lambda: len(world.rows[stream]) > count)
            assert stream.state is SubscriptionState.LIVE
            assert world.told("backfilled") == []

    run(test())


def test_a_disconnect_ends_it(run: Run) -> None:
    """Nothing is left behind (`run` looks), and what was not done is told."""

    async def test() -> None:
        async with World() as world:
            stream = await world.subscribe("AAPL", "TRADES")
            await world.interrupt(stream)
            await until(lambda: world.gaps(stream)["recovered"].any())
            await world.manager.disconnect()
            (dropped,) = world.told("backfill_dropped")
            assert dropped["reason"] == "the connection was closed"

    run(test())
