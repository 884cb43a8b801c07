"""What a data type asks of the gateway, and a stream over a feed by itself: no socket, no manager."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ibfast import Decoder, Feed, Kind, TickType
from ibfast.connection.stream import DataType, Stream, wanted
from ibfast.contracts import Contract, Option, Stock
from ibfast.errors import NotConnectedError, RequestError
from ibfast.feed.feed import NO_INSTRUMENT
from ibfast.policy.subscription import Gap, Subscription, cancel_of
from ibfast.records import GapCause, Scope
from ibfast.wire.requests import (
    CancelHistoricalBars,
    CancelMarketData,
    CancelMarketDepth,
    CancelRealTimeBars,
    CancelTickByTick,
    HistoricalBars,
    MarketData,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)
from tests.support.loops import Run
from tests.support.streams import TICK_BY_TICK, TICK_PRICE, TICK_SIZE, framed, text_payload

AAPL = Stock("AAPL")
EUREX = Contract(symbol="FDAX", sec_type="FUT", exchange="EUREX")
VERSION = 176

CALL = Option("AAPL", "20270115", 250.0, "C")
LEVEL_1 = MarketData(0, AAPL)
ASKED: dict[DataType, tuple[Any, str, set[Kind]]] = {
    DataType.TICKS: (LEVEL_1, "ticks", {Kind.PRICE, Kind.SIZE, Kind.GENERIC, Kind.STRING}),
    DataType.TRADES: (LEVEL_1, "trades", {Kind.L1_LAST}),
    DataType.QUOTES: (LEVEL_1, "quotes", {Kind.L1_QUOTE}),
    DataType.GREEKS: (MarketData(0, CALL), "greeks", {Kind.OPTION}),
    DataType.LAST: (TickByTick(0, AAPL, "Last"), "trades", {Kind.LAST}),
    DataType.ALL_LAST: (TickByTick(0, AAPL, "AllLast"), "trades", {Kind.ALL_LAST}),
    DataType.BID_ASK: (TickByTick(0, AAPL, "BidAsk"), "quotes", {Kind.BID_ASK}),
    DataType.MIDPOINT: (TickByTick(0, AAPL, "MidPoint"), "quotes", {Kind.MIDPOINT}),
    DataType.DEPTH: (MarketDepth(0, AAPL, 10, True), "depth", {Kind.DEPTH, Kind.DEPTH_L2, Kind.DEPTH_RESET}),
    DataType.BARS: (RealTimeBars(0, AAPL, "TRADES", False), "bars", {Kind.REALTIME_BAR}),
    DataType.UPDATING_BARS: (
        HistoricalBars(0, AAPL, "", "1 D", "1 min", "TRADES", False, keep_up_to_date=True), "bars", {Kind.UPDATE_BAR},
    ),
}  # fmt: skip


@pytest.mark.parametrize("data_type", DataType)
def test_what_a_data_type_asks_for(data_type: DataType) -> None:
    request, ring, kinds = ASKED[data_type]
    for name in (data_type, data_type.lower(), data_type.value):
        want = wanted(request.contract, name)
        assert (want.request, want.ring, want.kinds) == (request, ring, kinds)


def test_greeks_of_what_is_no_option() -> None:
    with pytest.raises(ValueError, match="GREEKS are of options"):
        wanted(AAPL, "GREEKS")


def test_options() -> None:
    assert wanted(AAPL, "TRADES", generic_ticks=" 236, 233,236").request == MarketData(0, AAPL, "233,236")
    assert wanted(AAPL, "TICKS", generic_ticks="233,236").request == MarketData(0, AAPL, "233,236")
    assert wanted(AAPL, "TRADES", generic_ticks="236,233").kinds == {Kind.RT_VOLUME}
    assert wanted(AAPL, "TRADES", generic_ticks="2330").kinds == {Kind.L1_LAST}
    assert wanted(AAPL, "BID_ASK", ignore_size=True).request == TickByTick(0, AAPL, "BidAsk", ignore_size=True)
    assert wanted(EUREX, "DEPTH", num_rows=3).request == MarketDepth(0, EUREX, 3, False)
    assert wanted(EUREX, "DEPTH", is_smart_depth=True).request == MarketDepth(0, EUREX, 10, True)
    assert wanted(AAPL, "BARS", what_to_show="BID", use_rth=True).request == RealTimeBars(0, AAPL, "BID", True)
    bars = wanted(AAPL, "UPDATING_BARS", duration="2 D", bar_size="5 secs", what_to_show="MIDPOINT", use_rth=True)
    assert bars.request == HistoricalBars(0, AAPL, "", "2 D", "5 secs", "MIDPOINT", True, keep_up_to_date=True)


@pytest.mark.parametrize("name", ["", "QUOTE", "TRADES ", "BidAsk"])
def test_an_unknown_data_type_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"there are TICKS, TRADES, QUOTES, .*UPDATING_BARS"):
        wanted(AAPL, name)


@pytest.mark.parametrize("data_type", DataType)
def test_an_unknown_option(data_type: DataType) -> None:
    with pytest.raises(TypeError, match="colour"):
        wanted(AAPL, data_type, colour="blue")


@pytest.mark.parametrize(
    ("data_type", "cancel"),
    [
        ("QUOTES", CancelMarketData(7)),
        ("LAST", CancelTickByTick(7)),
        ("DEPTH", CancelMarketDepth(7, True)),
        ("BARS", CancelRealTimeBars(7)),
        ("UPDATING_BARS", CancelHistoricalBars(7)),
    ],
)
def test_a_subscription_knows_its_first_and_its_last_request(data_type: str, cancel: object) -> None:
    subscription = Subscription(wanted(AAPL, data_type).request, 0, req_id=7)
    assert subscription.opening_request().req_id == 7
    assert cancel_of(subscription.request, 7) == cancel
    assert subscription.request.req_id == 0


class Desk:
    """A feed with one subscription in it, and those who gave their stream back."""

    def __init__(self, data_type: str = "LAST", req_id: int = 7) -> None:
        self.feed = Feed(1 << 6, max_instruments=4, max_texts=16)
        self.decoder = Decoder(self.feed, server_version=VERSION)
        self.released: list[Stream] = []
        self.want = wanted(AAPL, data_type)
        self.delivered: list[int] = []
        self.subscription = Subscription(
            self.want.request, self.feed.add_instrument("AAPL"), req_id=req_id, req_ids={req_id: 0}
        )
        self.feed.bind(req_id, self.subscription.instrument)

    def stream(self) -> Stream:
        return Stream(AAPL, self.subscription, self.feed, self.want, self.released.append, self.delivered.append)

    def trades(self, *prices: float, req_id: int = 7, tick_type: int = 1) -> None:
        payloads = (text_payload(VERSION, TICK_BY_TICK, req_id, tick_type, 0, price, 1, 0, "", "") for price in prices)
        self.decoder.feed_bytes(framed(*payloads))


async def prices_of(stream: Stream) -> list[float]:
    return [price async for rows in stream for price in rows["price"].tolist()]


def test_a_stream_sees_its_own_rows(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        desk.trades(0.5)
        stream = desk.stream()
        assert (stream.req_id, stream.instrument, stream.contract, stream.live, stream.lost) == (7, 0, AAPL, True, 0)
        desk.trades(1.5, req_id=8)
        desk.trades(2.5)
        desk.trades(3.5, tick_type=2)
        desk.trades(4.5, req_id=6)
        desk.trades(5.5, 6.5)
        assert (await anext(stream))["price"].tolist() == [2.5, 5.5, 6.5]
        task = asyncio.create_task(anext(stream))
        for n in range(20):  # others' rows wake it, and it sleeps again
            await asyncio.sleep(0)
            desk.trades(n, req_id=8)
        desk.trades(7.5)
        assert (await task)["price"].tolist() == [7.5]

    run(test())


LEVEL_1_KINDS = {
    "TICKS": [Kind.PRICE, Kind.SIZE, Kind.PRICE, Kind.SIZE],
    "QUOTES": [Kind.L1_QUOTE],
    "TRADES": [Kind.L1_LAST],
}


@pytest.mark.parametrize("data_type", LEVEL_1_KINDS)
def test_each_data_type_of_level_1_has_its_rows(run: Run, data_type: str) -> None:
    async def test() -> None:
        desk = Desk(data_type)
        stream = desk.stream()
        desk.decoder.feed_bytes(
            framed(
                text_payload(VERSION, TICK_PRICE, 6, 7, TickType.BID, 10, 5, 0),
                text_payload(VERSION, TICK_SIZE, 6, 7, TickType.BID_SIZE, 5),
                text_payload(VERSION, TICK_PRICE, 6, 7, TickType.LAST, 11, 2, 0),
                text_payload(VERSION, TICK_SIZE, 6, 7, TickType.LAST_SIZE, 2),
            )
        )
        assert (await anext(stream))["kind"].tolist() == LEVEL_1_KINDS[data_type]

    run(test())


def test_unsubscribing_ends_the_iteration_after_the_rows_that_are_there(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        stream, waiting = desk.stream(), desk.stream()
        task = asyncio.create_task(prices_of(waiting))
        await asyncio.sleep(0)
        waiting.unsubscribe()
        assert await task == []
        desk.trades(1.5, 2.5)
        stream.unsubscribe()
        stream.unsubscribe()
        assert desk.released == [waiting, stream]
        assert not stream.live
        assert await prices_of(stream) == [1.5, 2.5]
        assert await prices_of(stream) == []
        assert stream.error is None

    run(test())


def test_a_close_tells_nobody(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        stream = desk.stream()
        desk.trades(1.5)
        stream.close()
        assert await prices_of(stream) == [1.5]
        stream.unsubscribe()
        assert desk.released == []

    run(test())


@pytest.mark.parametrize("error", [RequestError(7, 354, "not subscribed"), NotConnectedError("lost")])
def test_a_failure_comes_after_the_rows_that_are_there(run: Run, error: Exception) -> None:
    async def test() -> None:
        desk = Desk()
        stream, waiting = desk.stream(), desk.stream()
        task = asyncio.create_task(prices_of(waiting))
        desk.trades(1.5)
        stream.fail(error)
        waiting.fail(error)
        assert (await anext(stream))["price"].tolist() == [1.5]
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                await anext(stream)
            assert caught.value is error
        with pytest.raises(type(error)):
            await task
        assert (stream.live, stream.error) == (False, error)
        stream.unsubscribe()
        assert desk.released == []

    run(test())


def test_lost_rows_are_counted(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        stream = desk.stream()
        desk.trades(*range(100))
        assert (await anext(stream))["price"].tolist() == list(range(36, 100))
        assert stream.lost == 36

    run(test())


def test_a_cancelled_step_loses_no_rows(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        stream = desk.stream()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(stream)
        desk.trades(1.5)
        assert (await anext(stream))["price"].tolist() == [1.5]

    run(test())


def test_a_renewed_subscription_is_the_same_stream_and_what_was_under_way_is_its_own(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        stream = desk.stream()
        desk.trades(1.5)
        desk.subscription.req_id = 9
        desk.subscription.req_ids[9] = desk.feed.seq
        desk.feed.bind(9, desk.subscription.instrument)
        desk.trades(2.5, req_id=9)
        desk.trades(3.5, req_id=8)
        assert (await anext(stream))["price"].tolist() == [1.5, 2.5]
        assert len(desk.delivered) == 1

    run(test())


def test_what_comes_of_a_request_that_was_given_up_is_not_its_own(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        stream = desk.stream()
        desk.trades(1.5)
        desk.feed.forget_requests([7])
        desk.subscription.req_ids[9] = desk.feed.seq
        desk.feed.bind(9, desk.subscription.instrument)
        desk.trades(2.5)
        desk.trades(3.5, req_id=9)
        assert (await anext(stream))["price"].tolist() == [1.5, 3.5]

    run(test())


def test_gaps_that_were_overwritten_count_as_lost() -> None:
    desk = Desk()
    stream = desk.stream()
    for _ in range(desk.feed.gaps.capacity + 3):
        desk.feed.add_gap(1, Scope.SUBSCRIPTION, GapCause.STREAM_SILENT, req_id=7, instrument=0)
    assert len(stream.take_gaps()) == desk.feed.gaps.capacity
    assert stream.lost == 3


def test_a_stream_that_joins_in_a_gap_is_told_of_it_once() -> None:
    desk = Desk()
    for first_seq, recovered in ((3, False), (3, True), (9, False)):
        desk.feed.add_gap(
            1, Scope.LINK, GapCause.LINK_LOST, req_id=7, instrument=0, first_seq=first_seq, recovered=recovered
        )
    assert len(desk.stream().take_gaps()) == 0
    desk.subscription.gap = Gap(desk.subscription, Scope.LINK, GapCause.LINK_LOST, 9, 1)
    stream = desk.stream()
    desk.feed.add_gap(2, Scope.LINK, GapCause.LINK_LOST, req_id=7, instrument=0, first_seq=9, recovered=True)
    assert stream.take_gaps()[["first_seq", "recovered"]].tolist() == [(9, 0), (9, 1)]
    assert len(stream.take_gaps()) == 0


def test_gaps_of_others_are_not_its_own() -> None:
    desk = Desk()
    stream = desk.stream()
    for req_id, instrument in ((7, 0), (8, 1), (-1, NO_INSTRUMENT)):
        desk.feed.add_gap(1, Scope.SUBSCRIPTION, GapCause.STREAM_SILENT, req_id=req_id, instrument=instrument)
    assert stream.take_gaps()["req_id"].tolist() == [7]
    assert len(stream.take_gaps()) == 0
