"""The gateway on a real socket: handshake, requests, refusals, limits, and what it does to clients that misbehave."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import pytest
from gateway_client import TIMEOUT_S, Client, Journal

from ibfast.contracts import Contract, Forex, Future, Index, Stock
from ibfast.enums import MarketDataType, TickType
from ibfast.errors import ConfigError
from ibfast.sim import codec
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe
from ibfast.wire import requests, responses

NS = 1_000_000_000
START_NS = 1_795_445_640 * NS
UNIVERSE = Universe.builtin(date(2026, 11, 23))
APPLE, SIEMENS, EURO = Stock("AAPL"), Stock("SIE", currency="EUR"), Forex("EURUSD")
SPX, ES = Index("SPX", "CBOE"), Future("ES", "202612", "CME")
OFFER = b"v157..226"


def make(journal: Journal | None = None, *, speed: float = 10.0, rate: float = 2000, **options: Any) -> Gateway:
    market = Market(UNIVERSE, seed=2, rate=rate)
    return Gateway(market=market, clock=Clock(speed, START_NS), journal=journal, **({"pacing": False} | options))


def with_client(test: Callable[[Gateway, Client, Journal], Awaitable[None]], **options: Any) -> None:
    """Run a test with a gateway and one client of it."""

    async def main() -> None:
        journal = Journal()
        async with make(journal, **options) as gateway, Client(gateway) as client:
            await test(gateway, client, journal)

    asyncio.run(main())


async def answer_to(data: bytes, **options: Any) -> bytes:
    """Return everything that a gateway sends to a client that sends `data`, until it closes the connection."""
    async with make(**options) as gateway, asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
        writer.write(data)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


def hello(offer: bytes) -> bytes:
    return b"API\0" + len(offer).to_bytes(4, "big") + offer


async def handshake(offer: bytes, chunk: int, **options: Any) -> bytes:
    async with make(**options) as gateway, asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
        data = hello(offer)
        for start in range(0, len(data), chunk):
            writer.write(data[start : start + chunk])
            await writer.drain()
        length = int.from_bytes(await reader.readexactly(4), "big")
        reply = await reader.readexactly(length)
        writer.close()
        return reply


@pytest.mark.parametrize(
    ("own", "offer", "agreed"),
    [
        (226, b"v157..226", b"226"),
        (226, b"v100..157", b"157"),
        (178, b"v157..226", b"178"),
        (200, b"v100..999", b"200"),
        (226, b"v176", b"176"),
        (226, b"v157..200 +PACEAPI", b"200"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 100])
def test_the_lower_version_is_agreed_on(own: int, offer: bytes, agreed: bytes, chunk: int) -> None:
    reply = asyncio.run(handshake(offer, chunk, server_version=own))
    version, moment, rest = reply.split(b"\0")
    assert version == agreed
    assert moment.startswith(b"2026112")
    assert rest == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"APIX",
        hello(b"v100..156"),
        hello(b"v227..300"),
        hello(b"226"),
        hello(b"\xff\xfe"),
        hello(b""),
        b"API\0\xff\xff\xff\xff",
    ],
)
def test_what_is_no_hello_is_hung_up_on(data: bytes) -> None:
    assert asyncio.run(answer_to(data)) == b""


@pytest.mark.parametrize("payload", [b"", b"\xff" * 4])
def test_a_frame_of_a_senseless_length_ends_the_connection(payload: bytes) -> None:
    sent = asyncio.run(answer_to(hello(OFFER) + (payload or bytes(4))))
    assert sent == b"" or sent[4:7] == b"226"


def test_nothing_is_served_before_start_api() -> None:
    sent = asyncio.run(answer_to(hello(OFFER) + requests.frame(requests.encode(requests.CurrentTimeRequest(), 226))))
    assert int.from_bytes(sent[:4], "big") + 4 == len(sent)


@pytest.mark.parametrize("server_version", [157, 200, 201, 226])
def test_a_session_begins_with_accounts_and_ids_and_notices(server_version: int) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await journal.first(responses.ErrorMessage, code=2158)
        assert client.server_version == server_version
        assert [type(message).__name__ for _, message in journal.messages] == [
            "ManagedAccounts",
            "NextValidId",
            "ErrorMessage",
            "ErrorMessage",
            "ErrorMessage",
        ]
        assert journal.of(responses.ManagedAccounts)[0].accounts == ("DU7", "DU8")
        assert [message.code for message in journal.of(responses.ErrorMessage)] == [2104, 2106, 2158]
        assert gateway.sent[responses.ErrorMessage] == 3

    with_client(test, server_version=server_version, accounts=["DU7", "DU8"])


def test_a_client_id_is_for_one_client_at_a_time() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await journal.first(responses.NextValidId)
        async with Client(gateway, client.client_id) as second:
            await journal.first(responses.ErrorMessage, code=326)
            await second.closed()
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)
        async with Client(gateway, 2):
            await journal.wait_for(lambda: journal.of(responses.NextValidId, client_id=2))

    with_client(test)


def test_a_client_id_is_free_again_when_its_client_is_gone() -> None:
    async def main() -> None:
        journal = Journal()
        async with make(journal) as gateway:
            for number in range(1, 4):
                async with Client(gateway):
                    await journal.wait_for(lambda number=number: len(journal.of(responses.NextValidId)) == number)
                async with asyncio.timeout(TIMEOUT_S):
                    while gateway.sessions:
                        await asyncio.sleep(0)
            assert not [error for error in journal.of(responses.ErrorMessage) if error.code == 326]

    asyncio.run(main())


def test_a_malformed_request_costs_nothing_but_itself() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.send(b"no id")
        await journal.first(responses.ErrorMessage, code=320)
        client.send(b"1\x0011\0x\0")
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)

    with_client(test, server_version=178)


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
        (requests.HistoricalTicks(5, APPLE, "", "", 10, "TRADES", False), 321),
        (requests.HeadTimestamp(5, Stock("NOSUCH"), "TRADES", False), 200),
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


def test_streams_end_with_their_client() -> None:
    async def main() -> None:
        journal = Journal()
        async with make(journal, pacing=True, lines=2) as gateway:
            for client_id in (1, 2, 3):
                async with Client(gateway, client_id) as client:
                    client.ask(requests.MarketData(5, APPLE))
                    client.ask(requests.RealTimeBars(6, APPLE, "TRADES", False))
                    await journal.wait_for(lambda client_id=client_id: journal.of(codec.TickSize, client_id=client_id))
                async with asyncio.timeout(TIMEOUT_S):
                    while gateway.is_streaming:
                        await asyncio.sleep(0)
            assert {error.code for error in journal.of(responses.ErrorMessage)} == {2104, 2106, 2158}

    asyncio.run(main())


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
    [(APPLE, True, codec.DepthL2), (Stock("AAPL", "ISLAND"), False, codec.DepthL2), (ES, False, codec.Depth)],
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
        client.ask(requests.HeadTimestamp(3, APPLE, "TRADES", True, 1))
        client.ask(requests.HistoricalTicks(4, APPLE, "", "20261123-14:00:00", 5, "BID_ASK", False))
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


def test_market_data_lines_are_limited() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        for req_id in (1, 2, 3):
            client.ask(requests.MarketData(req_id, APPLE))
        await journal.first(responses.ErrorMessage, req_id=3, code=101)
        client.ask(requests.CancelMarketData(1))
        client.ask(requests.MarketData(4, APPLE))
        await journal.first(codec.TickPrice, req_id=4)

    with_client(test, pacing=True, lines=2, rate=500)


def test_too_many_requests_end_the_session() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        for _ in range(200):
            client.ask(requests.CurrentTimeRequest())
        await client.closed()
        assert [error.code for error in journal.of(responses.ErrorMessage)][3:] == [100, 100, 100]
        assert len(journal.of(responses.CurrentTime)) == 50

    with_client(test, pacing=True)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    async def main() -> None:
        journal = Journal()
        async with make(journal, send_buffer=1 << 16) as gateway:
            async with Client(gateway, 1, reads=False) as deaf, Client(gateway, 2) as other:
                for req_id in range(200):
                    deaf.ask(requests.ContractDetailsRequest(req_id, Contract(symbol="AAPL", sec_type="OPT")))
                async with asyncio.timeout(TIMEOUT_S):
                    while 1 in [session.client_id for session in gateway.sessions]:
                        await asyncio.sleep(0.01)
                other.ask(requests.CurrentTimeRequest())
                await journal.first(responses.CurrentTime)
            assert len(journal.of(responses.ContractDataEnd)) < 200

    asyncio.run(main())


def test_it_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        journal = Journal()
        async with make(journal) as gateway, Client(gateway) as client:
            client.ask(requests.MarketData(1, APPLE))
            await journal.wait_for(lambda: len(journal.of(codec.TickSize)) > 20)
            await journal.wait_for(lambda: len(client.frames) > 20)

    uvloop.run(main())


def test_what_breaks_the_market_is_raised_and_drops_the_clients() -> None:
    class Broken(Market):
        def advance(self, clock: Clock) -> Any:
            if clock.now_ns() > START_NS + NS // 10:
                raise RuntimeError("no market")
            return ()

    async def main() -> None:
        async with Gateway(market=Broken(UNIVERSE), clock=Clock(1, START_NS)) as gateway, Client(gateway) as client:
            await client.closed()

    with pytest.raises(RuntimeError, match="no market"):
        asyncio.run(main())


@pytest.mark.parametrize("server_version", [156, 227])
def test_a_version_that_nobody_speaks_is_refused(server_version: int) -> None:
    with pytest.raises(ConfigError, match="157 to 226"):
        Gateway(server_version=server_version)
