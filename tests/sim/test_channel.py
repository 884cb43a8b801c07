"""A channel's day, and the order in which its listeners receive events."""

from __future__ import annotations

from typing import Any

import pytest

from ibfast.sim.channel import MarketChannel, midpoint
from ibfast.sim.events import QuoteEvent, Statistics, TradeEvent
from tests.support.sim_events import APPLE, channel, quote, trade


def test_the_day_is_counted() -> None:
    own = channel()
    for at_s, price in enumerate((3.0, 5.0, 2.0, 4.0)):
        own.apply(trade(at_s, price, 1))
    assert (own.open, own.high, own.low, own.last.price, own.volume, own.vwap) == (3.0, 5.0, 2.0, 4.0, 4, 3.5)


@pytest.mark.parametrize(
    ("what", "value"), [("TRADES", 1.5), ("BID", 1.0), ("ASK", 2.0), ("MIDPOINT", 1.5), ("BID_ASK", 1.5)]
)
def test_the_value_of_what_to_show(what: str, value: float) -> None:
    own = channel()
    own.begin(quote(), trade(0, 1.5, 1))
    assert own.value(what) == value


class Listener:
    """Records each event, the state before it, and the channel's state at that time."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        self.received.append((quote, before))

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        self.received.append((trade, channel.last.price, previous.price))


def test_listeners_receive_each_event_with_the_state_before_it() -> None:
    own, first, second = channel(), Listener(), Listener()
    own.listeners += [first, second]
    nothing = own.quote
    own.apply(quote(0))
    own.apply(quote(1, 1.5))
    own.apply(trade(2, 1.75, 1))
    own.apply(trade(3, 2.0, 1))
    wanted = [
        (quote(0), nothing),
        (quote(1, 1.5), quote(0)),
        (trade(2, 1.75, 1), 1.75, None),
        (trade(3, 2.0, 1), 2.0, 1.75),
    ]
    assert first.received == second.received == wanted


def test_the_day_goes_on_from_its_statistics() -> None:
    own = MarketChannel(APPLE, Statistics(2.0, 3.0, 1.0, 1.5, 10, 2.0))
    own.apply(trade(0, 4.0, 10))
    assert (own.open, own.high, own.low, own.close, own.volume, own.vwap) == (2.0, 4.0, 1.0, 1.5, 20, 3.0)


def test_what_stood_at_the_begin_is_not_counted_again() -> None:
    own = MarketChannel(APPLE, Statistics(2.0, 3.0, 1.0, 1.5, 10, 2.0))
    own.begin(quote(), trade(0, 9.0, 5))
    assert (own.quote, own.last.price, own.high, own.volume) == (quote(), 9.0, 3.0, 10)


@pytest.mark.parametrize(("bid", "ask", "middle"), [(1.0, 2.0, 1.5), (None, 2.0, None), (1.0, None, None)])
def test_a_midpoint_needs_both_sides(bid: float | None, ask: float | None, middle: float | None) -> None:
    assert midpoint(quote(0, bid, ask)) == middle
