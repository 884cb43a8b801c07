"""What a gateway answers to each request, and what it refuses."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest

from ibfast.contracts import Contract, Forex, Future, Index, Stock
from ibfast.sim import codec
from ibfast.sim.gateway import Gateway
from ibfast.wire import requests, responses
from ibfast.wire.ids import MarketDataType, TickType
from tests.support.gateway_client import NS, START_NS, TIMEOUT_S, UNIVERSE, Client, Journal, with_client

APPLE, SIEMENS, EURO = Stock("AAPL"), Stock("SIE", currency="EUR"), Forex("EURUSD")
SPX, ES = Index("SPX", "CBOE"), Future("ES", "202612", "CME")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (requests.ContractDetailsRequest(5, Stock("NOSUCH")), 200),
        (requests.MarketData(5, Stock("NOSUCH")), 200),
        (requests.MarketData(5, Contract(symbol="AAPL", sec_type="STK")), 200),
        (requests.MarketData(5, SIEMENS), 354),
        (requests.MarketData(5, APPLE, "233,9999"), 321),
        (requests.MarketData(5, APPLE, "x"), 321),
        (requests.MarketData(5, APPLE, "233", snapshot=True), 321),
        (requests.TickByTick(5, Stock("NOSUCH"), "Last"), 200),
        (requests.TickByTick(5, APPLE, "Everything"), 321),
        (requests.TickByTick(5, APPLE, "Last", 1001), 321),
        (requests.TickByTick(5, APPLE, "Last", -1), 321),
        (requests.TickByTick(5, EURO, "AllLast"), 10189),
        (requests.TickByTick(5, SPX, "BidAsk"), 10189),
        (requests.TickByTick(5, SIEMENS, "Last"), 10189),
        (requests.MarketDepth(5, APPLE, 5), 10092),
        (requests.MarketDepth(5, Stock("AAPL", "ISLAND"), 5, is_smart_depth=True), 10092),
        (requests.MarketDepth(5, SPX, 5), 10092),
        (requests.MarketDepth(5, SIEMENS, 5, is_smart_depth=True), 354),
        (requests.MarketDepth(5, ES, 0), 321),
        (requests.RealTimeBars(5, APPLE, "NONSENSE", False), 321),
        (requests.RealTimeBars(5, SIEMENS, "TRADES", False), 420),
        (requests.HistoricalBars(5, SIEMENS, "", "1 D", "1 min", "TRADES", False), 162),
        (requests.HistoricalBars(5, EURO, "", "1 D", "1 min", "TRADES", False), 162),
        (requests.HistoricalBars(5, APPLE, "", "1 D", "7 mins", "TRADES", False), 321),
        (requests.HistoricalBars(5, APPLE, "20261101 00:00:00 UTC", "1 D", "1 min", "TRADES", False, 1, True), 321),
        (requests.HistoricalBars(5, APPLE, "", "86401 S", "1 min", "TRADES", False), 321),
        (requests.HistoricalBars(5, APPLE, "", "366 D", "1 day", "TRADES", False), 321),
        (requests.HistoricalBars(5, APPLE, "20261101 00:00:00 UTC", "1 D", "1 min", "ADJUSTED_LAST", False), 321),
        (requests.HistoricalBars(5, APPLE, "", "60 S", "1 secs", "TRADES", False, 1, True), 321),
        (requests.HistoricalTicksRequest(5, APPLE, "", "", 10, "TRADES", False), 321),
        (requests.HistoricalTicksRequest(5, APPLE, "", "20261101 00:00:00 UTC", 1001, "TRADES", False), 321),
        (requests.HeadTimestampRequest(5, Stock("NOSUCH"), "TRADES", False), 200),
        (requests.CancelMarketData(5), 300),
        (requests.CancelTickByTick(5), 300),
        (requests.CancelRealTimeBars(5), 300),
        (requests.CancelMarketDepth(5), 310),
        (requests.CancelHistoricalBars(5), 366),
    ],
)
def test_what_a_gateway_refuses(request_: requests.Request, code: int) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(request_)
        error = await journal.first(responses.ErrorMessage, req_id=5)
        assert error.code == code
        assert error.message

    with_client(test)


@pytest.mark.parametrize(
    "request_",
    [
        requests.MarketData(5, APPLE),
        requests.TickByTick(5, APPLE, "Last"),
        requests.MarketDepth(5, APPLE, 5, is_smart_depth=True),
        requests.RealTimeBars(5, APPLE, "TRADES", False),
        requests.HistoricalBars(5, APPLE, "", "60 S", "5 secs", "TRADES", False, keep_up_to_date=True),
    ],
)
def test_an_id_is_for_one_request_at_a_time(request_: requests.Request) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(request_)
        client.ask(request_)
        await journal.first(responses.ErrorMessage, req_id=5, code=322)
        async with Client(gateway, 2) as other:
            other.ask(request_)
            other.ask(requests.CurrentTimeRequest())
            await journal.first(responses.CurrentTime)
        assert not journal.of(responses.ErrorMessage, client_id=2)[3:]

    with_client(test)


def test_cancelled_streams_end_and_may_begin_anew() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        for _ in range(2):
            journal.messages.clear()
            client.ask(requests.MarketData(5, APPLE))
            await journal.first(codec.TickSize)
            client.ask(requests.CancelMarketData(5))
            client.ask(requests.CancelMarketData(5))
            await journal.first(responses.ErrorMessage, code=300)
        async with asyncio.timeout(TIMEOUT_S):
            while gateway.is_streaming:
                await asyncio.sleep(0)

    with_client(test)


def test_level_1_of_a_permitted_symbol() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketDataTypeRequest(MarketDataType.DELAYED))
        client.ask(requests.MarketData(5, APPLE, "233,221,236,104,106"))
        await journal.wait_for(lambda: [t for t in journal.of(codec.TickString) if t.tick_type == TickType.RT_VOLUME])
        assert journal.of(responses.TickReqParams) == [
            responses.TickReqParams(5, 0.01, "9c0001", 4, 0.000001, 0.000001)
        ]
        assert journal.of(responses.MarketDataTypeMessage) == [responses.MarketDataTypeMessage(5, 1)]
        types = {tick.tick_type for tick in journal.of(codec.TickPrice, codec.TickSize, codec.TickGeneric)}
        assert {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 23, 24, 37, 46, 49, 89} <= types
        volume = next(t for t in journal.of(codec.TickString) if t.tick_type == TickType.RT_VOLUME)
        price, size, time_ms, total, vwap, single = volume.value.split(";")
        assert 100 < float(price) < 400
        assert int(size) > 0
        assert int(time_ms) * 1_000_000 >= START_NS
        assert int(total) > int(size)
        assert 100 < float(vwap) < 400
        assert single == "true"

    with_client(test)


def test_a_price_is_followed_by_its_size() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(5, APPLE))
        await journal.wait_for(lambda: len(journal.of(codec.TickPrice)) > 30)
        messages = [message for _, message in journal.messages]
        pairs = [
            (message, following)
            for message, following in itertools.pairwise(messages)
            if isinstance(message, codec.TickPrice) and message.tick_type in (1, 2, 4)
        ]
        assert len(pairs) > 10
        sizes = {1: 0, 2: 3, 4: 5}
        for price, size in pairs:
            assert size == codec.TickSize(5, sizes[price.tick_type], price.size)

    with_client(test)


def test_level_1_tells_only_changes_and_all_of_them() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(5, APPLE))
        client.ask(requests.TickByTick(6, APPLE, "BidAsk"))
        await journal.wait_for(lambda: len(journal.of(codec.TickByTickBidAsk)) > 200)
        state: dict[int, Any] = {}
        told: list[Any] = []
        changed = False
        for message in journal.of(codec.TickPrice, codec.TickSize, codec.TickByTickBidAsk):
            if isinstance(message, codec.TickByTickBidAsk):
                told.append((message.bid, message.ask, message.bid_size, message.ask_size))
                assert told[-1] == (state[1], state[2], state[0], state[3])
                assert changed or told[-2:-1] in ([], [told[-1]])
                changed = False
            elif message.tick_type in (0, 1, 2, 3):
                state[message.tick_type] = message.price if message.tick_type in (1, 2) else message.size
                changed = True

    with_client(test)


def test_without_permission_there_are_delayed_data_for_those_who_want_them() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketDataTypeRequest(MarketDataType.DELAYED))
        client.ask(requests.MarketData(5, SIEMENS))
        await journal.wait_for(lambda: len(journal.of(codec.TickSize)) > 10)
        assert journal.of(responses.MarketDataTypeMessage) == [responses.MarketDataTypeMessage(5, 3)]
        assert [error.code for error in journal.of(responses.ErrorMessage) if error.req_id == 5] == [10167]
        ticks = journal.of(codec.TickPrice, codec.TickSize, codec.TickString)
        assert {tick.tick_type for tick in ticks} <= set(range(66, 77)) | {88}

    with_client(test)


def test_a_snapshot_ends_and_nothing_follows() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(5, APPLE, snapshot=True))
        await journal.first(responses.TickSnapshotEnd, req_id=5)
        assert isinstance(journal.messages[-1][1], responses.TickSnapshotEnd)
        assert {tick.tick_type for tick in journal.of(codec.TickPrice)} >= {1, 2, 4}
        assert not gateway.is_streaming

    with_client(test)


def test_an_option_comes_with_computations() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        option = next(i for i in UNIVERSE.find(Contract(symbol="AAPL", sec_type="OPT")) if i.contract.strike == 230.0)
        client.ask(requests.MarketData(5, option.contract))
        await journal.wait_for(lambda: len(journal.of(codec.TickOption)) >= 4)
        model = next(t for t in journal.of(codec.TickOption) if t.tick_type == TickType.MODEL_OPTION)
        assert model.implied_vol == pytest.approx(option.volatility, rel=0.3)
        assert 0 < model.delta < 1
        assert 200 < model.und_price < 260

    with_client(test)


def test_tick_by_tick_kinds() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        for req_id, kind in ((1, "Last"), (2, "AllLast"), (3, "BidAsk"), (4, "MidPoint")):
            client.ask(requests.TickByTick(req_id, APPLE, kind))
        client.ask(requests.TickByTick(5, APPLE, "BidAsk", ignore_size=True))
        await journal.wait_for(lambda: len([t for t in journal.of(codec.TickByTickBidAsk) if t.req_id == 5]) > 3)
        await journal.wait_for(lambda: len([t for t in journal.of(codec.TickByTickLast) if t.attrib_mask]) > 3)
        await journal.wait_for(lambda: len(journal.of(codec.TickByTickMidPoint)) > 1)
        trades = journal.of(codec.TickByTickLast)
        last, all_last = ([t for t in trades if t.req_id == req_id] for req_id in (1, 2))
        assert {t.tick_type for t in last} == {1}
        assert {t.tick_type for t in all_last} == {2}
        assert [(t.price, t.size) for t in last] == [(t.price, t.size) for t in all_last if not t.attrib_mask]
        quotes = journal.of(codec.TickByTickBidAsk)
        prices = [(t.bid, t.ask) for t in quotes if t.req_id == 5]
        assert all(first != second for first, second in itertools.pairwise(prices))
        assert len([t for t in quotes if t.req_id == 3]) > len(prices)

    with_client(test)


def test_tick_by_tick_may_begin_with_the_past() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.TickByTick(1, APPLE, "AllLast", number_of_ticks=7))
        past = await journal.first(responses.HistoricalTicks, req_id=1)
        assert len(past.ticks) == 7
        live = await journal.first(codec.TickByTickLast)
        assert past.ticks["event_ns"][-1] <= live.time_s * NS

    with_client(test)


@pytest.mark.parametrize(
    ("contract", "is_smart", "kind"),
    [(APPLE, True, codec.DepthL2), (Stock("AAPL", "ISLAND"), False, codec.DepthL2), (ES, False, codec.DepthUpdate)],
)
def test_operations_on_the_book_keep_it_true(contract: Contract, is_smart: bool, kind: type) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketDepth(1, contract, 7, is_smart))
        client.ask(requests.TickByTick(2, contract, "BidAsk"))
        await journal.wait_for(lambda: {0, 1, 2} <= {d.operation for d in journal.of(kind)})
        await journal.wait_for(lambda: len(journal.of(codec.TickByTickBidAsk)) > 100)
        con_id = UNIVERSE.find(contract)[0].con_id
        sides: dict[int, list[Any]] = {0: [], 1: []}
        checked = 0
        for message in journal.of(kind, codec.TickByTickBidAsk):
            if isinstance(message, codec.TickByTickBidAsk):
                top = (message.bid, message.ask, message.bid_size, message.ask_size)
                assert (sides[1][0][0], sides[0][0][0], sides[1][0][1], sides[0][0][1]) == top
                assert [price for price, _ in sides[1]] == sorted((p for p, _ in sides[1]), reverse=True)
                assert [price for price, _ in sides[0]] == sorted(p for p, _ in sides[0])
                assert len(sides[0]) == len(sides[1]) == 7
                checked += 1
            elif message.operation == 0:
                sides[message.side].insert(message.position, (message.price, message.size))
            elif message.operation == 1:
                assert sides[message.side][message.position][0] == message.price
                sides[message.side][message.position] = (message.price, message.size)
            else:
                del sides[message.side][message.position]
        assert checked > 100
        assert con_id

    with_client(test)


@pytest.mark.parametrize("what_to_show", ["TRADES", "BID", "MIDPOINT"])
def test_five_second_bars_are_made_of_the_very_ticks(what_to_show: str) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        kind = "Last" if what_to_show == "TRADES" else "BidAsk"
        client.ask(requests.TickByTick(1, APPLE, kind))
        client.ask(requests.RealTimeBars(2, APPLE, what_to_show, False))
        await journal.wait_for(lambda: len(journal.of(codec.RealTimeBar)) >= 4)
        bars = journal.of(codec.RealTimeBar)
        assert [bar.time_s for bar in bars] == [bars[0].time_s + 5 * number for number in range(len(bars))]
        assert bars[0].time_s % 5 == 0
        for bar in bars:
            ticks = [
                t
                for t in journal.of(codec.TickByTickLast, codec.TickByTickBidAsk)
                if bar.time_s <= t.time_s < bar.time_s + 5
            ]
            if kind == "Last":
                values = [t.price for t in ticks]
                assert bar.count == len(ticks)
                assert bar.volume == sum(t.size for t in ticks)
                assert bar.wap == pytest.approx(sum(t.price * t.size for t in ticks) / bar.volume, abs=1e-6)
            else:
                values = [t.bid if what_to_show == "BID" else round((t.bid + t.ask) / 2, 8) for t in ticks]
                assert (bar.volume, bar.wap, bar.count) == (-1, -1, -1)
            assert bar.high == max([*values, bar.open])
            assert bar.low == min([*values, bar.open])
            assert bar.close == values[-1]

    with_client(test, rate=5000)


def test_a_history_that_is_kept_up_to_date_grows() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.HistoricalBars(1, APPLE, "", "60 S", "5 secs", "TRADES", False, 2, keep_up_to_date=True))
        await journal.wait_for(lambda: len({u.date for u in journal.of(codec.HistoricalDataUpdate)}) >= 4)
        (history,) = journal.of(codec.DatedBars)
        dates = [int(date) for date in history.dates]
        assert dates == list(range(dates[0], dates[0] + 5 * len(dates), 5))
        updates = journal.of(codec.HistoricalDataUpdate)
        assert int(updates[0].date) in (dates[-1], dates[-1] + 5)
        for before, after in itertools.pairwise(updates):
            if before.date == after.date:
                assert after.volume >= before.volume
                assert after.high >= before.high
            else:
                assert int(after.date) > int(before.date)

    with_client(test)


@pytest.mark.parametrize("server_version", [178, 200, 226])
def test_the_end_of_a_history_is_told_as_the_version_has_it(server_version: int) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.HistoricalBars(1, APPLE, "", "60 S", "5 secs", "TRADES", False))
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)
        ends = journal.of(responses.HistoricalDataEnd)
        assert len(ends) == (server_version >= 196)
        (bars,) = journal.of(codec.DatedBars)
        assert bars.start
        assert len(bars.bars) == len(bars.dates) == 12

    with_client(test, server_version=server_version)


def test_questions_and_answers() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.ContractDetailsRequest(1, Future("ES", "", "CME")))
        client.ask(requests.MatchingSymbols(2, "AAP"))
        client.ask(requests.HeadTimestampRequest(3, APPLE, "TRADES", True, 1))
        client.ask(requests.HistoricalTicksRequest(4, APPLE, "", "20261123-14:00:00", 5, "BID_ASK", False))
        client.ask(requests.CurrentTimeInMillisRequest())
        client.ask(requests.ManagedAccountsRequest())
        client.ask(requests.IdsRequest())
        client.ask(requests.SetServerLogLevel(5))
        client.ask(requests.CurrentTimeRequest())
        moment = await journal.first(responses.CurrentTime)
        assert moment.time_s >= START_NS // NS
        assert (await journal.first(responses.CurrentTimeInMillis)).time_ms >= START_NS // 1_000_000
        assert len(journal.of(responses.ContractData)) == 3
        assert journal.of(responses.ContractDataEnd) == [responses.ContractDataEnd(1)]
        assert {s.contract.con_id for s in journal.of(responses.SymbolSamples)[0].samples} == {265598, 38708077}
        assert journal.of(responses.HeadTimestamp) == [responses.HeadTimestamp(3, "20100104-14:30:00")]
        (ticks,) = journal.of(responses.HistoricalTicks)
        assert len(ticks.ticks) == 5
        assert ticks.ticks["event_ns"].max() < 1_795_442_400 * NS
        assert len(journal.of(responses.ManagedAccounts)) == len(journal.of(responses.NextValidId)) == 2

    with_client(test)


@pytest.mark.parametrize("second", [requests.CurrentTimeRequest(), requests.CurrentTimeInMillisRequest()])
def test_the_clock_is_told_once_a_second_to_each_client(second: requests.Request) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        def answers(client_id: int) -> list[Any]:
            return journal.of(responses.CurrentTime, responses.CurrentTimeInMillis, client_id=client_id)

        client.ask(requests.CurrentTimeRequest())
        client.ask(second)
        client.ask(requests.IdsRequest())
        await journal.wait_for(lambda: len(journal.of(responses.NextValidId, client_id=1)) == 2)
        assert len(answers(1)) == 1
        assert not [error for error in journal.of(responses.ErrorMessage) if error.code == 0]
        assert [(v.code, v.request) for v in gateway.violations] == [(0, second)]
        async with Client(gateway, 2) as other:
            other.ask(second)
            await journal.wait_for(lambda: answers(2))
        gateway.wall_s = lambda: time.monotonic() + 1.0  # type: ignore[method-assign]
        client.ask(second)
        await journal.wait_for(lambda: len(answers(1)) == 2)

    with_client(test, pacing=True)


def test_a_regulatory_snapshot_takes_no_line_and_another_one_waits_a_second() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(1, APPLE, regulatory_snapshot=True))
        client.ask(requests.MarketData(2, APPLE, regulatory_snapshot=True))
        await journal.first(responses.ErrorMessage, req_id=2, code=321)
        await journal.first(responses.TickSnapshotEnd, req_id=1)
        assert not gateway.subscriptions()

    with_client(test, pacing=True)


def test_market_data_lines_are_limited() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        for req_id in (1, 2, 3):
            client.ask(requests.MarketData(req_id, APPLE))
        await journal.first(responses.ErrorMessage, req_id=3, code=101)
        client.ask(requests.CancelMarketData(1))
        client.ask(requests.MarketData(4, APPLE))
        await journal.first(codec.TickPrice, req_id=4)

    with_client(test, pacing=True, lines=2, rate=500)
