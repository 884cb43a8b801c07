"""The table of limits against IB's numbers, and what each request counts for."""

from __future__ import annotations

import typing
from dataclasses import MISSING, fields, replace

import pytest

from ibfast.connection.store import SentRequest
from ibfast.contracts import Contract, Forex, Stock
from ibfast.policy.pacing.rules import MARGIN_S, RULES, Precedence, charges, identity, precedence_of, windows_of
from ibfast.sim.history import BAR_SECONDS
from ibfast.sim.pacing import GatewayLimits, RequestRate
from ibfast.wire import requests
from ibfast.wire.requests import HistoricalBars, MarketData, Request, TickByTick

REQUESTS: tuple[type, ...] = typing.get_args(Request)
AAPL = Contract(con_id=265598, symbol="AAPL", sec_type="STK", exchange="SMART", currency="USD")


def example(kind: type) -> typing.Any:
    values = {"contract": AAPL, "what_to_show": "TRADES", "use_rth": True, "bar_size": "5 secs"}
    names = [item.name for item in fields(kind) if item.default is MISSING]
    return kind(**{name: values.get(name, 1) for name in names})


def counts(request: Request) -> dict[str, int]:
    return {name: weight for (name, _), weight in charges(request)}


def key(request: Request, rule: str) -> object:
    return next(meter[1] for meter, _ in charges(request) if meter[0] == rule)


def bars(bar_size: str = "5 secs", what: str = "TRADES", *, contract: Contract = AAPL, kept: bool = False) -> Request:
    return HistoricalBars(1, contract, "", "60 S", bar_size, what, True, keep_up_to_date=kept)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (40, {"request_rate": 50, "lines": 40, "tick_by_tick": 2, "depth": 3}),
        (100, {"request_rate": 50, "lines": 100, "tick_by_tick": 5, "depth": 3}),
        (500, {"request_rate": 250, "lines": 500, "tick_by_tick": 25, "depth": 5}),
        (10_000, {"request_rate": 5_000, "lines": 10_000, "tick_by_tick": 500, "depth": 60}),
    ],
)
def test_limits_follow_the_lines(lines: int, expected: dict[str, int]) -> None:
    assert {name: RULES[name].limit(lines) for name in expected} == expected


@pytest.mark.parametrize("lines", range(1, 1200, 7))
def test_the_gateway_allows_as_much(lines: int) -> None:
    limits = GatewayLimits(lines)
    assert RULES["lines"].limit(lines) <= limits.lines
    assert RULES["tick_by_tick"].limit(lines) <= limits.tick_by_tick
    assert RULES["depth"].limit(lines) <= limits.depth
    assert RULES["request_rate"].limit(lines) <= RequestRate(lines).limit


@pytest.mark.parametrize(
    ("name", "limit", "window_s"),
    [
        ("historical", 60, 600.0),
        ("historical_source", 5, 2.0),
        ("historical_identical", 1, 15.0),
        ("historical_open", 50, None),
        ("tick_by_tick_instrument", 1, 15.0),
        ("regulatory_snapshot", 1, 1.0),
    ],
)
def test_other_limits_are_fixed(name: str, limit: int, window_s: float | None) -> None:
    assert RULES[name].limit(100) == RULES[name].limit(1000) == limit
    assert RULES[name].window_s == window_s
    if window_s is not None:
        assert RULES[name].span_s == window_s + MARGIN_S


def test_only_windows_have_keys() -> None:
    assert all(rule.window_s is not None for rule in RULES.values() if rule.key is not None)


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_every_request_has_a_precedence(kind: type) -> None:
    precedence = precedence_of(example(kind))
    assert (precedence is Precedence.CANCEL) == kind.__name__.startswith("Cancel")
    assert (precedence is Precedence.QUESTION) == (kind.__name__ in ("ContractDetailsRequest", "MatchingSymbols"))
    assert (precedence is Precedence.HISTORY) == (
        kind.__name__ in ("HistoricalBars", "HistoricalTicksRequest", "HeadTimestampRequest")
    )
    subscriptions = ("MarketData", "TickByTick", "MarketDepth", "RealTimeBars")
    assert (precedence is Precedence.SUBSCRIBE) == (kind.__name__ in subscriptions)
    if precedence in (Precedence.CANCEL, Precedence.CONTROL):
        assert charges(example(kind)) == ()


def test_bars_that_are_kept_up_to_date_are_a_subscription() -> None:
    assert precedence_of(bars(kept=True)) is Precedence.SUBSCRIBE
    assert counts(bars(kept=True)) == counts(bars())


def test_what_market_data_counts_for() -> None:
    assert counts(MarketData(1, AAPL)) == {"lines": 1}
    assert counts(MarketData(1, AAPL, snapshot=True)) == {}
    assert counts(MarketData(1, AAPL, regulatory_snapshot=True)) == {"regulatory_snapshot": 1}
    assert counts(requests.RealTimeBars(1, AAPL, "TRADES", True)) == {"historical": 1, "lines": 1}
    assert counts(requests.MarketDepth(1, AAPL, 5)) == {"depth": 1}
    assert counts(TickByTick(1, AAPL, "Last")) == {"tick_by_tick_instrument": 1, "tick_by_tick": 1}


@pytest.mark.parametrize("bar_size", BAR_SECONDS)
def test_only_bars_of_30_s_or_less_are_rationed(bar_size: str) -> None:
    assert ("historical" in counts(bars(bar_size))) == (BAR_SECONDS[bar_size] <= 30)
    assert counts(bars(bar_size))["historical_open"] == 1


@pytest.mark.parametrize(
    "request_",
    [
        requests.HistoricalTicksRequest(1, AAPL, "", "20260105-15:00:00", 1000, "BID_ASK", True),
        requests.HeadTimestampRequest(1, AAPL, "BID_ASK", True),
        bars(what="BID_ASK"),
    ],
)
def test_bid_ask_counts_twice(request_: Request) -> None:
    assert counts(request_) == {
        "historical_identical": 1, "historical_source": 1, "historical": 2, "historical_open": 1,
    }  # fmt: skip


def test_identical_is_what_differs_in_its_id_only() -> None:
    assert key(replace(bars(), req_id=2), "historical_identical") == key(bars(), "historical_identical")
    assert identity(replace(bars(), req_id=2)) == identity(bars()) != identity(bars("1 secs"))


def test_an_instrument_is_known_by_its_con_id_wherever_it_is_asked_for() -> None:
    there = Contract(con_id=265598, exchange="ISLAND")
    rule = "tick_by_tick_instrument"
    assert key(TickByTick(1, AAPL, "Last"), rule) == key(TickByTick(2, there, "AllLast"), rule)
    assert key(bars(), "historical_source") != key(bars(contract=there), "historical_source")


def test_an_instrument_without_con_id_is_known_by_its_description() -> None:
    rule = "tick_by_tick_instrument"
    at_smart, at_island = TickByTick(1, Stock("AAPL"), "Last"), TickByTick(2, Stock("AAPL", "ISLAND"), "Last")
    assert key(at_smart, rule) == key(at_island, rule)
    assert key(at_smart, rule) != key(TickByTick(3, Forex("EURUSD"), "Last"), rule)


def test_what_counts_for_a_time_can_be_written_down() -> None:
    costly = MarketData(1, AAPL, snapshot=True, regulatory_snapshot=True)
    counted = [request for request in (*map(example, REQUESTS), costly) if windows_of(charges(request))]
    assert len(counted) == 6
    assert all(isinstance(request, SentRequest) for request in counted)
