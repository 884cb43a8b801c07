"""What a request for history means, bar by bar, and what is answered to nonsense."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.contracts import Forex, Index, Stock
from ibfast.errors import RequestError
from ibfast.records import HISTORICAL_BAR, HISTORICAL_TICK_BID_ASK, HISTORICAL_TICK_LAST, HISTORICAL_TICK_MIDPOINT
from ibfast.sim import history
from ibfast.sim.events import QuoteEvent, TradeEvent
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe
from ibfast.wire.requests import HistoricalBars, HistoricalTicksRequest
from ibfast.wire.times import parse_bar_time

NS = 1_000_000_000
NEW_YORK = ZoneInfo("America/New_York")
UNIVERSE = Universe.builtin(date(2026, 11, 23))
MARKET = Market(UNIVERSE, seed=4, rate=1000)
APPLE, EURO, SPX = (UNIVERSE.find(contract)[0] for contract in (Stock("AAPL"), Forex("EURUSD"), Index("SPX", "CBOE")))
# A Monday, 14:54 UTC, 9:54 in New York.
NOW_S = 1_795_445_640
NOW_NS = NOW_S * NS + 123


def bars(duration: str, bar_size: str, *, use_rth: bool = False, end: str = "", what: str = "TRADES") -> HistoricalBars:
    return HistoricalBars(7, APPLE.contract, end, duration, bar_size, what, use_rth)


def starts(request: HistoricalBars, now_ns: int = NOW_NS) -> list[int]:
    return history.bar_window(request, APPLE, now_ns).start_s.tolist()


@pytest.mark.parametrize(("bar_size", "seconds"), [(name, s) for name, s in history.BAR_SECONDS.items() if s < 3600])
def test_bars_begin_on_multiples_of_their_size(bar_size: str, seconds: int) -> None:
    found = starts(bars("7200 S", bar_size))
    assert found == [at for at in range(NOW_S - 7200, NOW_S) if at % seconds == 0]


def test_an_end_may_be_named_in_any_zone() -> None:
    moments = ["20261123 09:54:00 America/New_York", "20261123-14:54:00", "20261123 09:54:00", "1795445640"]
    assert len({tuple(starts(bars("600 S", "1 min", end=end), 0)) for end in moments}) == 1


def test_regular_hours_keep_the_session_only() -> None:
    found = starts(bars("1 D", "1 hour", use_rth=True))
    local = [datetime.fromtimestamp(at, NEW_YORK) for at in found]
    # Friday's session lies within the 24 h before Monday only as far as the weekend lets it: not at all.
    assert {(moment.weekday(), moment.hour) for moment in local} <= {(0, 9)} | {(4, hour) for hour in range(9, 16)}
    week = [datetime.fromtimestamp(at, NEW_YORK) for at in starts(bars("1 W", "30 mins", use_rth=True))]
    assert {(m.hour, m.minute) for m in week} == {(h, m) for h in range(9, 16) for m in (0, 30)} - {(9, 0)}
    assert {m.weekday() for m in week} == {0, 1, 2, 3, 4}


def test_out_of_hours_the_session_before_is_given() -> None:
    # A Sunday in New York.
    sunday_ns = NOW_NS - 86_400 * NS
    found = starts(bars("600 S", "1 min", use_rth=True), sunday_ns)
    closes = datetime(2026, 11, 20, 16, tzinfo=NEW_YORK).timestamp()
    assert found == [closes - 600 + 60 * number for number in range(10)]


@given(now_s=st.integers(1_700_000_000, 1_900_000_000), length_s=st.integers(60, 86_400))
def test_regular_hours_always_find_something(now_s: int, length_s: int) -> None:
    found = starts(bars(f"{length_s} S", "1 min", use_rth=True), now_s * NS)
    assert found
    for at in (found[0], found[-1]):
        local = datetime.fromtimestamp(at, NEW_YORK)
        assert local.weekday() < 5
        assert (9, 30) <= (local.hour, local.minute) < (16, 0)


@pytest.mark.parametrize(("duration", "days"), [("1 D", 1), ("5 D", 5), ("10 D", 10)])
def test_days_are_trading_days(duration: str, days: int) -> None:
    found = [datetime.fromtimestamp(at, UTC) for at in starts(bars(duration, "1 day"))]
    assert len(found) == days
    assert found[-1].date() == date(2026, 11, 23)
    assert all(moment.weekday() < 5 and moment.hour == 0 for moment in found)


@pytest.mark.parametrize(("duration", "least", "most"), [("2 W", 10, 10), ("1 M", 20, 23), ("1 Y", 255, 262)])
def test_longer_durations_span_the_calendar(duration: str, least: int, most: int) -> None:
    assert least <= len(starts(bars(duration, "1 day"))) <= most


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (bars("60 S", "7 secs"), 321),
        (bars("60", "5 secs"), 321),
        (bars("0 S", "5 secs"), 321),
        (bars("-1 D", "5 secs"), 321),
        (bars("60 S", "5 secs", what="NONSENSE"), 321),
        (bars("60 S", "5 secs", end="yesterday"), 321),
        (bars("1 Y", "1 secs"), 162),
    ],
)
def test_nonsense_is_refused(request_: HistoricalBars, code: int) -> None:
    with pytest.raises(RequestError) as error:
        history.bar_window(request_, APPLE, NOW_NS)
    assert (error.value.req_id, error.value.code) == (7, code)


def test_there_are_no_trades_of_forex_and_no_quotes_of_an_index() -> None:
    for instrument, what in ((EURO, "TRADES"), (SPX, "BID"), (SPX, "MIDPOINT")):
        with pytest.raises(RequestError) as error:
            history.bar_window(bars("60 S", "5 secs", what=what), instrument, NOW_NS)
        assert error.value.code == 162


def test_bars_are_records() -> None:
    window = history.bar_window(bars("600 S", "1 min"), APPLE, NOW_NS)
    rows = history.historical_bars(MARKET, APPLE, "ADJUSTED_LAST", window)
    assert rows.dtype == HISTORICAL_BAR
    assert (rows["event_ns"] // NS).tolist() == window.start_s.tolist()
    assert (rows["volume"] > 0).all()


def ticks(what: str, *, start: str = "", end: str = "", number: int = 10) -> np.ndarray[Any, Any]:
    request = HistoricalTicksRequest(7, APPLE.contract, start, end, number, what, use_rth=False)
    return history.historical_ticks(MARKET, APPLE, request, NOW_NS)


def cut(ts_ns: int) -> int:
    return ts_ns // NS * NS


def test_past_trades_are_the_live_ones() -> None:
    events = MARKET.past_events(APPLE.con_id, (NOW_S - 600) * NS, NOW_S * NS)
    trades = [
        (cut(t.ts_ns), 2 * t.unreported, t.price, t.size, t.exchange, t.conditions)
        for t in events
        if isinstance(t, TradeEvent)
    ]
    found = ticks("TRADES", end=str(NOW_S), number=50)
    assert found.dtype == HISTORICAL_TICK_LAST
    assert [tick.item() for tick in found] == trades[-50:]
    later = ticks("TRADES", start=str(NOW_S - 600), number=50)
    assert [tick.item() for tick in later] == trades[:50]


def test_past_quotes_and_midpoints_are_the_live_ones() -> None:
    quotes = [q for q in MARKET.past_events(APPLE.con_id, (NOW_S - 600) * NS, NOW_S * NS) if isinstance(q, QuoteEvent)]
    found = ticks("BID_ASK", end=str(NOW_S), number=50)
    assert found.dtype == HISTORICAL_TICK_BID_ASK
    assert [tick.item()[2:] for tick in found] == [quote[2:] for quote in quotes[-50:]]
    middles = ticks("MIDPOINT", end=str(NOW_S), number=50)
    assert middles.dtype == HISTORICAL_TICK_MIDPOINT
    assert {tick["price"] for tick in middles} <= {round((q.bid + q.ask) / 2, 8) for q in quotes} | set(
        middles["price"][:1]
    )


def test_the_future_has_no_ticks() -> None:
    assert len(ticks("TRADES", start=str(NOW_S + 100))) == 0
    near_end = ticks("TRADES", start=str(NOW_S - 1), number=1000)
    assert (near_end["event_ns"] <= NOW_NS).all()
    assert len(ticks("TRADES", end=str(NOW_S + 1_000_000))) == 10


@pytest.mark.parametrize(
    "nonsense",
    [
        {"start": "1795445640", "end": "1795445640"},
        {},
        {"end": "1795445640", "number": 0},
        {"end": "1795445640", "number": 1001},
        {"end": "soon"},
    ],
)
def test_nonsense_about_ticks_is_refused(nonsense: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        ticks("TRADES", **nonsense)
    assert error.value.code == 321


@given(start_s=st.integers(1_000_000_000, 2_000_000_000), format_date=st.sampled_from([1, 2]))
def test_dates_are_read_back(start_s: int, format_date: int) -> None:
    text = history.write_date(start_s, 60, format_date, APPLE, names_zone=True)
    # One hour a year is told twice by a wall clock.
    if format_date == 2 or datetime.fromtimestamp(start_s, NEW_YORK).fold == 0:
        assert parse_bar_time(text, UTC) == start_s * NS


def test_dates_as_gateways_write_them() -> None:
    def written(bar_s: int, format_date: int, *, names_zone: bool = True) -> str:
        return history.write_date(NOW_S, bar_s, format_date, APPLE, names_zone=names_zone)

    assert written(60, 1) == "20261123 09:54:00 America/New_York"
    assert written(60, 1, names_zone=False) == "20261123  09:54:00"
    assert written(60, 2) == "1795445640"
    assert written(86_400, 1) == written(86_400, 2) == "20261123"
    assert history.write_utc(NOW_S, 1) == "20261123-14:54:00"
    assert history.write_utc(NOW_S, 2) == "1795445640"


def test_the_last_ticks_reach_back_an_hour_at_most() -> None:
    sleepy = Market(UNIVERSE, rate=0.001)
    assert len(history.last_ticks(sleepy, APPLE, "TRADES", 1000, NOW_NS)) < 10
    assert len(history.last_ticks(MARKET, APPLE, "TRADES", 0 + 1000, NOW_NS)) == 1000


def test_a_request_is_not_changed_by_its_id() -> None:
    assert starts(bars("60 S", "5 secs")) == starts(replace(bars("60 S", "5 secs"), req_id=8))
