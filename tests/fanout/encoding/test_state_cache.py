"""What is known of each instrument, against a model that has seen every row; what is not known is said not to be."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.fanout.encoding.channel_state import ChannelState
from ibfast.fanout.encoding.channels import Channel
from ibfast.fanout.encoding.state_cache import Ledger, Since
from ibfast.records import Kind
from tests.support.fanout_desk import Desk, no_fault

CAPACITY = 32
BEGINNING = Since(1, 0)
FAMILIES = ("quotes", "trades", "ticks", "depth")
KINDS = frozenset({Kind.L1_QUOTE, Kind.L1_LAST, Kind.PRICE, Kind.SIZE, Kind.DEPTH, Kind.DEPTH_RESET})


def keeps_all(req_ids: Any) -> Any:
    return req_ids > 0


def desk_of(*symbols: str) -> Desk:
    async def opened() -> Desk:
        desk = Desk(CAPACITY)
        for symbol in symbols:
            await desk.subscribe(symbol, "TICKS")
            await desk.subscribe(symbol, "DEPTH")
        return desk

    return asyncio.run(opened())


def channel_of(desk: Desk, symbol: str, *families: str) -> Channel:
    return Channel(desk.feed.instruments.index(symbol), families or FAMILIES, KINDS)


def begun(desk: Desk, ledger: Ledger, symbol: str = "AAPL", since: Since = BEGINNING) -> Channel:
    channel = channel_of(desk, symbol)
    ledger.begin(channel, since)
    return channel


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(repr(one[name].tolist()) == repr(other[name].tolist()) for name in one)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.sampled_from(["AAPL", "MSFT"]), st.integers(1, 9)),
        st.tuples(st.just("quote"), st.sampled_from(["AAPL", "MSFT"]), st.integers(1, 9)),
        st.tuples(
            st.just("book"), st.sampled_from(["AAPL", "MSFT"]),
            st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 1), st.integers(1, 9), st.integers(1, 9)),
        ),
        st.tuples(st.just("reset_book"), st.sampled_from(["AAPL", "MSFT"])),
        st.tuples(st.just("ask"), st.sampled_from(["AAPL", "MSFT"])),
    ),
    min_size=CAPACITY,
    max_size=6 * CAPACITY,
)  # fmt: skip


@settings(max_examples=60)
@given(STEPS)
def test_a_state_has_every_row_since_its_beginning_though_the_rings_forget(steps: Any) -> None:
    desk = desk_of("AAPL", "MSFT")
    ledger = Ledger(desk.feed, keeps_all, no_fault)
    channels = {symbol: begun(desk, ledger, symbol) for symbol in ("AAPL", "MSFT")}
    model = {symbol: ChannelState(FAMILIES, {}) for symbol in channels}
    readers = {family: desk.feed.rings[family].reader(start="oldest") for family in FAMILIES}
    for step, symbol, *values in steps:
        if step == "ask":
            assert same(ledger.rows(channels[symbol]), model[symbol].rows())
        elif step == "trade":
            desk.trade(symbol, *values)
        elif step == "quote":
            desk.quote(symbol, *values, 10.0)
        else:
            getattr(desk, step)(symbol, *values)
        ledger.keep_up()
        for family, reader in readers.items():
            rows = reader.read()
            for other, channel in channels.items():
                own = rows[rows["instrument"] == channel.instrument]
                if len(own):
                    model[other].take({family: own}, is_conflated=False)
    for symbol, channel in channels.items():
        assert ledger.is_whole(channel)
        assert same(ledger.rows(channel), model[symbol].rows())


def test_what_began_before_the_rings_memory_is_not_whole_until_it_can_be_known() -> None:
    desk = desk_of("AAPL")
    for price in range(2 * CAPACITY):
        desk.book("AAPL", (0, 0, 0, float(price), 1.0))
    desk.trade("AAPL", *map(float, range(2 * CAPACITY)))
    ledger = Ledger(desk.feed, keeps_all, no_fault)
    channel = begun(desk, ledger)
    assert not ledger.is_whole(channel)
    assert "depth" not in ledger.rows(channel)  # a part of a book is none
    assert ledger.is_whole(channel_of(desk, "AAPL", "trades"))  # the last one is all there is to know
    assert not ledger.is_whole(channel_of(desk, "AAPL", "ticks"))
    desk.reset_book("AAPL")
    desk.book("AAPL", (0, 0, 1, 5.0, 1.0))
    assert ledger.is_whole(channel_of(desk, "AAPL", "depth"))
    assert ledger.rows(channel)["depth"]["price"].tolist() == [5.0]


@pytest.mark.parametrize("rows", [CAPACITY, CAPACITY + 1])
def test_rows_that_were_overwritten_before_they_were_read_make_a_book_unknown(rows: int) -> None:
    desk = desk_of("AAPL")
    ledger = Ledger(desk.feed, keeps_all, no_fault)
    channel = begun(desk, ledger)
    desk.book("AAPL", (0, 0, 0, 1.0, 1.0))
    assert ledger.rows(channel)["depth"]["price"].tolist() == [1.0]
    desk.book("AAPL", *[(0, 1, 0, 2.0, 1.0)] * rows)
    book = channel_of(desk, "AAPL", "depth")
    assert ledger.is_whole(book) == (rows <= CAPACITY)
    assert ("depth" in ledger.rows(book)) == (rows <= CAPACITY)
    desk.reset_book("AAPL")
    desk.book("AAPL", (0, 0, 0, 3.0, 1.0))
    assert ledger.is_whole(book)
    assert ledger.rows(book)["depth"]["price"].tolist() == [3.0]


def test_a_subscription_that_was_opened_anew_begins_with_nothing() -> None:
    desk = desk_of("AAPL")
    ledger = Ledger(desk.feed, keeps_all, no_fault)
    channel = begun(desk, ledger)
    desk.book("AAPL", (0, 0, 0, 1.0, 1.0))
    desk.trade("AAPL", 1.0)
    assert ledger.rows(channel).keys() == {"depth", "trades", "ticks"}
    begun(desk, ledger)
    assert ledger.rows(channel).keys() == {"depth", "trades", "ticks"}
    begun(desk, ledger, since=Since(2, desk.feed.seq))
    assert ledger.rows(channel) == {}


def test_an_index_that_was_freed_has_no_state_of_its_former_instrument() -> None:
    async def test() -> None:
        desk = Desk(CAPACITY, keep_instrument_s=1e-9)
        ledger = Ledger(desk.feed, keeps_all, no_fault)
        apple = [await desk.subscribe("AAPL", data_type) for data_type in ("TICKS", "DEPTH")]
        for data_type in ("TICKS", "DEPTH"):
            await desk.subscribe("MSFT", data_type)
        channel = begun(desk, ledger)
        desk.trade("AAPL", 1.0)
        desk.quote("AAPL", 1.0, 2.0)
        desk.book("AAPL", (0, 0, 0, 1.0, 1.0))
        assert ledger.rows(channel).keys() == set(FAMILIES)
        for stream in apple:
            stream.unsubscribe()
        desk.free_unused("MSFT")
        kept = begun(desk, ledger, "MSFT")
        assert ledger.rows(kept).keys() == {"quotes", "trades", "ticks"}
        for data_type in ("TICKS", "DEPTH"):
            await desk.subscribe("NVDA", data_type)
        again = begun(desk, ledger, "NVDA")  # its rows are known from the same number on
        assert again == channel
        assert ledger.rows(again) == {}
        desk.trade("NVDA", 3.0)
        assert ledger.rows(again)["trades"]["price"].tolist() == [3.0]

    asyncio.run(test())


def test_rows_that_are_nobody_s_are_none_of_a_state() -> None:
    desk = desk_of("AAPL")
    own = desk.subscription("AAPL").req_id
    ledger = Ledger(desk.feed, lambda req_ids: req_ids == own, no_fault)
    channel = channel_of(desk, "AAPL", "trades")
    desk.trade("AAPL", 1.0)
    desk.foreign_trade("AAPL", 666.0)
    ledger.begin(channel, BEGINNING)
    desk.foreign_trade("AAPL", 667.0)
    assert ledger.rows(channel)["trades"]["price"].tolist() == [1.0]
    assert np.all(ledger.rows(channel)["trades"]["req_id"] == own)
