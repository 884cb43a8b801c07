"""The limits of an account, continued by whoever is told what was sent before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.policy.pacing.limiter import AccountLimits, RateLimiter
from ibfast.policy.pacing.rules import RULES, charges, windows_of
from ibfast.wire.requests import (
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    RealTimeBars,
    TickByTick,
)
from ibfast.wire.requests import Request as AnyRequest

SPAN_S = RULES["tick_by_tick_instrument"].span_s
Sent = list[tuple[AnyRequest, float]]


def contract(con_id: int) -> Contract:
    return Contract(con_id=con_id, exchange="SMART")


def ticks(con_id: int = 1) -> AnyRequest:
    return TickByTick(1, contract(con_id), "Last")


MAKERS: tuple[Callable[[int, int], AnyRequest], ...] = (
    lambda n, k: ticks(k),
    lambda n, k: HistoricalBars(n, contract(k), f"{n}", "60 S", "5 secs", "TRADES", True),
    lambda n, k: HistoricalBars(n, contract(k), "", "60 S", "5 secs", "TRADES", True, keep_up_to_date=True),
    lambda n, k: HistoricalBars(n, contract(k), f"{n}", "1 D", "1 hour", "TRADES", True),
    lambda n, k: HistoricalTicksRequest(n, contract(k), f"{n}", "", 1000, "BID_ASK", True),
    lambda n, k: HeadTimestampRequest(n, contract(k), "TRADES", True),
    lambda n, k: RealTimeBars(n, contract(k), "TRADES", True),
    lambda n, k: MarketData(n, contract(k)),
    lambda n, k: MarketData(n, contract(k), snapshot=True, regulatory_snapshot=True),
)

# Times are binary fractions, so that they stay exact when clocks are translated: pauses are multiples of 1/8 s, and
# with so many lines requests are 1/32 s apart.
LINES = 106
pauses = st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 8 * 700)).map(lambda eighths: eighths / 8)
asked = st.tuples(pauses, st.sampled_from(MAKERS), st.integers(1, 30), st.integers(1, 3))
lives = st.lists(asked, min_size=1, max_size=12)


def play(limiter: RateLimiter, life: list[tuple], now_s: float) -> Iterator[tuple[AnyRequest, float]]:
    """Ask, and tell what is sent when; whatever is asked has ended at once."""
    for pause_s, make, count, con_ids in life:
        now_s += pause_s
        for number in range(count):
            limiter.submit(make(number, number % con_ids), now_s)
        yield from answered(limiter, now_s)
    while (next_s := limiter.next_s(now_s)) is not None:
        now_s = next_s
        yield from answered(limiter, now_s)


def answered(limiter: RateLimiter, now_s: float) -> Iterator[tuple[AnyRequest, float]]:
    for ticket in limiter.due(now_s):
        limiter.finish(ticket)
        yield ticket.request, now_s


@settings(max_examples=150)
@given(before=lives, pause_s=pauses, after=lives, clock_s=st.integers(-5000, 5000), data=st.data())
def test_who_continues_waits_as_who_has_never_stopped(
    before: list[tuple], pause_s: float, after: list[tuple], clock_s: int, data: st.DataObject
) -> None:
    one = RateLimiter(PacingConfig(lines=LINES))
    sent = list(play(one, before, 0.0))
    now_s = sent[-1][1] + pause_s
    one.connection_lost()
    other = RateLimiter(PacingConfig(lines=LINES))
    known_to = data.draw(st.lists(st.booleans(), min_size=len(sent), max_size=len(sent)))
    for source in (True, False):  # in which order sources tell is no matter
        told = [
            (request, at_s + clock_s) for (request, at_s), knows in zip(sent, known_to, strict=True) if knows is source
        ]
        other.account.restore(source, told, now_s + clock_s)
    for request, _ in sent:
        for meter, weight in windows_of(charges(request)):
            room_s = one.account.ledger.room_s(meter, weight, now_s)
            assert other.account.ledger.room_s(meter, weight, now_s + clock_s) == room_s + clock_s, meter
    windows = [rule.name for rule in RULES.values() if rule.window_s is not None]
    limits, others = one.limits(now_s), other.limits(now_s + clock_s)
    assert {name: limits[name] for name in windows} == {name: others[name] for name in windows}
    expected = [(request, at_s + clock_s) for request, at_s in play(one, after, now_s)]
    assert list(play(other, after, now_s + clock_s)) == expected


def test_a_source_counts_once() -> None:
    account = AccountLimits(PacingConfig())
    sent: Sent = [(HeadTimestampRequest(1, contract(1), "TRADES", True), 0.0)]
    for source in ("one", "one", "another"):
        account.restore(source, sent, 1.0)
    assert account.ledger.used("historical", 1.0) == 2


@pytest.mark.parametrize("ahead_s", [0.0, 1.0, 1e9])
def test_what_seems_to_come_is_waited_for_no_longer_than_a_window(ahead_s: float) -> None:
    limiter = RateLimiter(PacingConfig())
    limiter.account.restore("book", [(ticks(), 100.0 + ahead_s)], 100.0)
    assert limiter.eta_s(ticks(), 100.0) == SPAN_S


def test_what_was_open_is_open_no_more() -> None:
    limiter = RateLimiter(PacingConfig(lines=1))
    limiter.account.restore("book", [(MarketData(1, contract(1)), 0.0), (ticks(1), 0.0)], 1.0)
    limits = limiter.limits(1.0)
    assert {name: used for name, (used, _) in limits.items() if used} == {"tick_by_tick_instrument": 1}
