"""Scripted faults of the gateway: each verb as a client sees it on a real socket."""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from collections.abc import Callable
from typing import Any

import pytest

from ibfast.contracts import Contract, Future, Stock
from ibfast.sim import codec
from ibfast.sim.gateway import Gateway
from ibfast.sim.subscription import Family
from ibfast.wire import requests, responses
from ibfast.wire.ids import Outgoing
from tests.support.gateway_client import TIMEOUT_S, UNIVERSE, Client, Journal, make, with_client

APPLE, MICROSOFT, SPIDER = Stock("AAPL"), Stock("MSFT"), Stock("SPY")
EURO = Contract(symbol="EUR", sec_type="CASH", exchange="IDEALPRO", currency="USD")
ES = UNIVERSE.find(Future("ES", "", "CME"))[0].contract
TICKS = (codec.TickPrice, codec.TickSize, codec.TickByTickBidAsk, codec.TickByTickLast, codec.DepthL2)
LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY = 1, 2, 3, 4, 5


def con_id(contract: Contract) -> int:
    return UNIVERSE.find(contract)[0].con_id


def subscribe(client: Client, contract: Contract = APPLE) -> None:
    """Open one subscription of each family."""
    client.ask(requests.MarketData(LEVEL_1, contract, "233"))
    client.ask(requests.TickByTick(TICK_BY_TICK, contract, "BidAsk"))
    client.ask(requests.MarketDepth(DEPTH, contract, 5, True))
    client.ask(requests.RealTimeBars(BARS, contract, "TRADES", False))
    client.ask(requests.HistoricalBars(HISTORY, contract, "", "60 S", "5 secs", "TRADES", False, keep_up_to_date=True))


def told(journal: Journal, *req_ids: int) -> list[Any]:
    """Return the messages of these requests, errors aside."""
    return [m for _, m in journal.messages if getattr(m, "req_id", -1) in req_ids and not is_error(m)]


def is_error(message: Any) -> bool:
    return isinstance(message, responses.ErrorMessage)


def codes(journal: Journal, req_id: int = -1) -> list[int]:
    return [message.code for message in journal.of(responses.ErrorMessage) if message.req_id == req_id]


async def flowing(journal: Journal, *req_ids: int) -> None:
    """Wait until each of these requests tells something new."""
    journal.messages.clear()
    for req_id in req_ids:
        await journal.wait_for(lambda req_id=req_id: told(journal, req_id))


async def events(gateway: Gateway, number: int = 300) -> None:
    """Let so many events of Apple happen, whoever hears them."""
    heard: list[Any] = []

    class Ear:
        def on_quote(self, quote: Any, before: Any) -> None:
            heard.append(quote)

        def on_trade(self, trade: Any, channel: Any, previous: Any) -> None:
            heard.append(trade)

    ear, channel = Ear(), gateway.channel(UNIVERSE.find(APPLE)[0])
    gateway.listen(channel, ear)
    async with asyncio.timeout(TIMEOUT_S):
        while len(heard) < number:
            await asyncio.sleep(0.001)
    gateway.leave(channel, ear)


def test_one_mute_stream() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        client.ask(requests.MarketData(11, MICROSOFT))
        await flowing(journal, LEVEL_1, TICK_BY_TICK, 11)
        gateway.faults.mute(req_id=LEVEL_1)
        journal.messages.clear()
        await events(gateway)
        assert not told(journal, LEVEL_1)
        assert told(journal, TICK_BY_TICK)
        gateway.faults.mute(con_id=con_id(APPLE))
        journal.messages.clear()
        await events(gateway)
        assert not told(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        assert told(journal, 11)
        gateway.faults.unmute()
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)

    with_client(test)


def test_what_a_client_must_know_comes_first_after_a_silence() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, DEPTH)
        gateway.faults.mute(con_id=con_id(APPLE))
        await events(gateway)
        journal.messages.clear()
        gateway.faults.unmute()
        quote = gateway.channel(UNIVERSE.find(APPLE)[0]).quote
        state = {m.tick_type: getattr(m, "price", None) for m in told(journal, LEVEL_1) if hasattr(m, "tick_type")}
        assert (state[1], state[2]) == (quote.bid, quote.ask)
        assert codes(journal, DEPTH) == [317]
        assert [(m.operation, m.position) for m in told(journal, DEPTH)] == [(0, row) for row in range(5)] * 2

    with_client(test)


@pytest.mark.parametrize("notice", [True, False])
@pytest.mark.parametrize("resubscribe_needed", [True, False])
def test_a_farm_breaks_and_heals(notice: bool, resubscribe_needed: bool) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        client.ask(requests.MarketData(11, EURO))
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, 11)
        journal.messages.clear()
        gateway.faults.mute_farm("usfarm")
        await events(gateway)
        assert codes(journal) == [2103]
        assert not told(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS)
        assert told(journal, HISTORY)
        assert told(journal, 11)
        client.ask(requests.MarketData(12, MICROSOFT))
        await journal.first(responses.MarketDataTypeMessage, req_id=12)
        gateway.faults.heal_farm("usfarm", notice=notice, resubscribe_needed=resubscribe_needed)
        assert codes(journal) == [2103, 2104] if notice else [2103]
        if not resubscribe_needed:
            await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, 12)
            return
        journal.messages.clear()
        await events(gateway)
        assert not told(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, 12)
        client.ask(requests.CancelMarketData(LEVEL_1))
        client.ask(requests.MarketData(13, APPLE))
        await flowing(journal, 13)

    with_client(test)


def test_a_session_that_begins_is_told_of_broken_farms_and_the_link() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        gateway.faults.mute_farm("usfarm")
        gateway.faults.mute_farm("cashfarm")
        gateway.faults.lose_link()
        async with Client(gateway, 2):
            await journal.wait_for(lambda: journal.of(responses.NextValidId, client_id=2))
            codes_ = [message.code for message in journal.of(responses.ErrorMessage, client_id=2)]
        assert codes_ == [2103, 2106, 2158, 2103, 2110]

    with_client(test)


@pytest.mark.parametrize(("lose", "code"), [("lose_link", 1100), ("lose_server", 2110)])
def test_the_link_is_lost_and_comes_back_with_the_data(lose: str, code: int) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        journal.messages.clear()
        getattr(gateway.faults, lose)()
        assert codes(journal) == [code]
        client.ask(requests.MarketData(11, MICROSOFT))
        client.ask(requests.ContractDetailsRequest(12, SPIDER))
        client.ask(requests.MarketData(13, SPIDER))
        client.ask(requests.CancelMarketData(13))
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)
        await events(gateway)
        assert not told(journal, *range(1, 14))
        gateway.faults.restore_link()
        assert codes(journal) == [code, 1102]
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY, 11)
        assert not told(journal, 13)

    with_client(test)


def test_the_link_comes_back_without_the_subscriptions() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        gateway.faults.lose_link()
        client.ask(requests.ContractDetailsRequest(12, SPIDER))
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)
        journal.messages.clear()
        gateway.faults.restore_link(data_lost=True)
        assert codes(journal) == [1101]
        assert not gateway.subscriptions()
        await events(gateway)
        assert not told(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        assert journal.of(responses.ContractDataEnd) == [responses.ContractDataEnd(12)]
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        assert len(gateway.subscriptions()) == 5

    with_client(test)


def test_a_nightly_reset() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(LEVEL_1, APPLE))
        await flowing(journal, LEVEL_1)
        journal.messages.clear()
        await gateway.faults.nightly_reset(100, pause_s=0.001)
        assert codes(journal).count(1100) == 100
        assert codes(journal)[-1] == 1102
        assert {2103, 2104, 2105, 2106, 2157, 2158} < set(codes(journal))
        await flowing(journal, LEVEL_1)

    with_client(test)


def test_the_port_changes() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        old = gateway.port
        await gateway.faults.change_port()
        (message,) = [m for m in journal.of(responses.ErrorMessage) if m.code == 1300]
        assert message.message.endswith(f"- {gateway.port}")
        assert gateway.port != old
        await client.closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(gateway.host, old)
        async with Client(gateway, 2):
            await journal.wait_for(lambda: journal.of(responses.NextValidId, client_id=2))

    with_client(test)


def test_a_planned_restart() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(LEVEL_1, APPLE))
        await flowing(journal, LEVEL_1)
        port = gateway.port
        restarting = asyncio.create_task(gateway.faults.restart(0.05))
        await client.closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(gateway.host, port)
        await restarting
        assert gateway.port == port
        assert not gateway.subscriptions()
        async with Client(gateway) as again:
            again.ask(requests.MarketData(LEVEL_1, APPLE))
            await flowing(journal, LEVEL_1)

    with_client(test)


def test_a_gateway_may_be_entered_again() -> None:
    async def main() -> None:
        journal = Journal()
        gateway = make(journal)
        async with gateway, Client(gateway) as client:
            client.ask(requests.MarketData(LEVEL_1, APPLE))
            await flowing(journal, LEVEL_1)
        port, before_ns = gateway.port, gateway.clock.now_ns()
        assert not gateway.is_streaming
        assert not gateway.sessions
        async with gateway, Client(gateway) as client:
            assert gateway.port == port
            assert gateway.clock.now_ns() > before_ns
            client.ask(requests.MarketData(LEVEL_1, APPLE))
            await flowing(journal, LEVEL_1)

    asyncio.run(main())


def test_client_ids_in_use() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await journal.first(responses.NextValidId)
        gateway.faults.use_id(2)
        for number in (1, 2):
            async with Client(gateway, 2) as refused:
                await refused.closed()
            assert codes(journal).count(326) == number
        async with Client(gateway, 2):
            await journal.wait_for(lambda: journal.of(responses.NextValidId, client_id=2))

    with_client(test)


def test_no_next_valid_id() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await journal.first(responses.NextValidId)
        gateway.faults.withhold_next_valid_id()
        async with Client(gateway, 2):
            await journal.wait_for(lambda: len(journal.of(responses.ErrorMessage, client_id=2)) == 3)
            assert journal.of(responses.ManagedAccounts, client_id=2)
            assert not journal.of(responses.NextValidId, client_id=2)
        async with Client(gateway, 3):
            await journal.wait_for(lambda: journal.of(responses.NextValidId, client_id=3))

    with_client(test)


def test_error_100_three_times_ends_the_session() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await journal.first(responses.ErrorMessage, code=2158)
        gateway.faults.exceed_rate(3)
        for _ in range(4):
            client.ask(requests.CurrentTimeRequest())
        await client.closed()
        assert codes(journal)[3:] == [100, 100, 100]
        assert not journal.of(responses.CurrentTime)
        assert not gateway.violations

    with_client(test, pacing=True)


HISTORICAL = requests.HistoricalBars(7, APPLE, "", "60 S", "5 secs", "TRADES", False)


@pytest.mark.parametrize(
    ("verb", "request_", "code"),
    [
        ("refuse_lines", requests.MarketData(7, APPLE), 101),
        ("refuse_tick_by_tick", requests.TickByTick(7, APPLE, "Last"), 10190),
        ("refuse_history_ids", HISTORICAL, 322),
    ],
)
def test_refused_so_many_times(verb: str, request_: Any, code: int) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        getattr(gateway.faults, verb)(2)
        client.ask(requests.MarketDepth(8, APPLE, 5, True))
        for _ in range(3):
            client.ask(request_)
        await journal.wait_for(lambda: told(journal, 7))
        await flowing(journal, 8)
        assert not gateway.violations

    async def counted(gateway: Gateway, client: Client, journal: Journal) -> None:
        getattr(gateway.faults, verb)(2)
        for _ in range(3):
            client.ask(request_)
        await journal.wait_for(lambda: told(journal, 7))
        assert codes(journal, 7) == [code, code]

    with_client(test)
    with_client(counted)


def test_another_session_takes_the_data() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH)
        async with Client(gateway, 2) as other:
            other.ask(requests.MarketData(21, APPLE))
            await flowing(journal, 21)
            journal.messages.clear()
            gateway.faults.take_session()
            assert {m.req_id for m in journal.of(responses.ErrorMessage) if m.code == 10197} == {1, 2, 3, 4, 5, 21}
            await events(gateway)
            client.ask(requests.MarketData(11, MICROSOFT))
            await journal.first(responses.ErrorMessage, req_id=11, code=10197)
            assert not [m for m in told(journal, 1, 2, 3, 4, 5, 11, 21) if isinstance(m, TICKS)]
            gateway.faults.release_session()
            await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY, 11, 21)

    with_client(test)


def silence_by_session(gateway: Gateway) -> None:
    gateway.faults.take_session()


def silence_by_link(gateway: Gateway) -> None:
    gateway.faults.lose_link()


def silence_by_farm(gateway: Gateway) -> None:
    gateway.faults.mute_farm("usfarm")


@pytest.mark.parametrize("silence", [silence_by_session, silence_by_link, silence_by_farm])
def test_messages_under_way_come_after_the_notice(silence: Callable[[Gateway], None]) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH)
        gateway.faults.messages_under_way = 2
        journal.messages.clear()
        silence(gateway)
        assert not told(journal, LEVEL_1, TICK_BY_TICK)
        await events(gateway)
        silence(gateway)  # again: it grants no more
        await events(gateway)
        assert [len(told(journal, req_id)) for req_id in (LEVEL_1, TICK_BY_TICK, DEPTH)] == [2, 2, 2]

    with_client(test)


def test_what_is_said_changes_nothing() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK)
        journal.messages.clear()
        for code in (1100, 1101, 1102, 2103, 2104):
            gateway.faults.say(code)
        gateway.faults.say(354, "not subscribed", req_id=LEVEL_1)
        assert codes(journal) == [1100, 1101, 1102, 2103, 2104]
        assert codes(journal, LEVEL_1) == [354]
        assert {m.message.partition(":")[2] for m in journal.of(responses.ErrorMessage) if m.code > 2000} == {"usfarm"}
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        assert len(gateway.subscriptions()) == 5

    with_client(test)


@pytest.mark.parametrize("data_lost", [True, False])
def test_the_link_comes_back_without_a_notice(data_lost: bool) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1)
        gateway.faults.lose_link()
        journal.messages.clear()
        gateway.faults.restore_link(data_lost=data_lost, notice=False)
        assert codes(journal) == []
        assert len(gateway.subscriptions()) == (0 if data_lost else 5)
        if not data_lost:
            await flowing(journal, LEVEL_1, TICK_BY_TICK)

    with_client(test)


def test_one_write_holds_back_what_is_sent_in_between() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await received_all(client, journal)
        with gateway.faults.one_write():
            gateway.faults.say(1100)
            gateway.faults.say(1102)
            assert unread(client) == 0
        assert unread(client) > 0
        await received_all(client, journal)
        assert codes(journal)[-2:] == [1100, 1102]

    with_client(test)


async def received_all(client: Client, journal: Journal) -> None:
    """Wait until the client has read every message that the gateway sent."""
    async with asyncio.timeout(TIMEOUT_S):
        while not journal.messages or len(client.frames) < len(journal.messages):
            await asyncio.sleep(0.001)


def unread(client: Client) -> int:
    """Return how many bytes wait in the client's socket."""
    found = array.array("i", [0])
    fcntl.ioctl(client.writer.get_extra_info("socket").fileno(), termios.FIONREAD, found)
    return found[0]


def test_every_watched_instrument_trades_when_told() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.TickByTick(1, APPLE, "Last"))
        client.ask(requests.TickByTick(2, MICROSOFT, "Last"))
        await flowing(journal, 1, 2)
        journal.messages.clear()
        gateway.faults.trade(3)
        assert (len(told(journal, 1)), len(told(journal, 2))) == (3, 3)

    with_client(test)


def test_one_subscription_dies() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketData(1, APPLE))
        client.ask(requests.MarketData(2, APPLE))
        await flowing(journal, 1, 2)
        gateway.faults.kill_subscription(1)
        await journal.first(responses.ErrorMessage, req_id=1, code=10182)
        await events(gateway)
        journal.messages.clear()
        await events(gateway)
        assert not told(journal, 1)
        assert told(journal, 2)
        client.ask(requests.MarketData(3, MICROSOFT))  # its line is free
        await flowing(journal, 3)
        client.ask(requests.CancelMarketData(1))
        await journal.first(responses.ErrorMessage, req_id=1, code=300)

    with_client(test, pacing=True, lines=2)


def test_a_book_is_sent_anew() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.MarketDepth(1, APPLE, 5, True))
        client.ask(requests.MarketData(2, APPLE))
        await flowing(journal, 1, 2)
        journal.messages.clear()
        gateway.faults.reset_book(1)
        gateway.faults.reset_book(2)
        assert codes(journal, 1) == [317]
        assert codes(journal, 2) == []
        assert [(m.operation, m.position) for m in told(journal, 1)] == [(0, row) for row in range(5)] * 2

    with_client(test)


@pytest.mark.parametrize("server_version", [200, 208, 226])
def test_rerouted(server_version: int) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        gateway.faults.reroute(con_id(APPLE), con_id(MICROSOFT), "SMART")
        client.ask(requests.MarketData(1, APPLE))
        client.ask(requests.MarketDepth(2, APPLE, 5, True))
        there = Contract(con_id=con_id(MICROSOFT), exchange="SMART")
        rerouted = await journal.first(responses.RerouteMarketData)
        assert rerouted == responses.RerouteMarketData(1, con_id(MICROSOFT), "SMART")
        assert (await journal.first(responses.RerouteMarketDepth)).req_id == 2
        assert not gateway.subscriptions()
        client.ask(requests.MarketData(1, there))
        client.ask(requests.MarketDepth(2, there, 5, True))
        await flowing(journal, 1, 2)
        assert {(s.family, s.req_id, s.con_id) for s in gateway.subscriptions()} == {
            (Family.LEVEL_1, 1, con_id(MICROSOFT)),
            (Family.DEPTH, 2, con_id(MICROSOFT)),
        }

    with_client(test, server_version=server_version)


def test_ticks_after_a_cancel() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        gateway.faults.messages_after_cancel = 25
        client.ask(requests.MarketData(1, APPLE))
        client.ask(requests.TickByTick(2, APPLE, "BidAsk"))
        await flowing(journal, 1, 2)
        client.ask(requests.CancelMarketData(1))
        async with asyncio.timeout(TIMEOUT_S):
            while len(gateway.subscriptions()) > 1:
                await asyncio.sleep(0)
        journal.messages.clear()
        await journal.wait_for(lambda: len(told(journal, 1)) >= 25)
        await events(gateway)
        assert len(told(journal, 1)) == 25
        client.ask(requests.CancelTickByTick(2))

    with_client(test)


def test_a_client_that_goes_takes_its_last_ticks_along() -> None:
    async def main() -> None:
        async with make() as gateway:
            gateway.faults.messages_after_cancel = 1_000_000
            async with Client(gateway) as client:
                client.ask(requests.MarketData(1, APPLE))
                client.ask(requests.CancelMarketData(1))
                async with asyncio.timeout(TIMEOUT_S):
                    while not gateway.is_streaming:
                        await asyncio.sleep(0)
            async with asyncio.timeout(TIMEOUT_S):
                while gateway.is_streaming:
                    await asyncio.sleep(0)

    asyncio.run(main())


def test_a_flood() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.TickByTick(1, APPLE, "Last"))
        await flowing(journal, 1)
        before = gateway.sent.total()
        await gateway.faults.flood(20_000)
        assert gateway.sent.total() >= before + 20_000
        await journal.wait_for(lambda: len(client.frames) > 20_000)

    with_client(test)


def test_a_flood_without_an_audience_is_nothing() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        await gateway.faults.flood(1000)

    with_client(test)


def test_a_gateway_that_reads_slowly() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)
        gateway.faults.read_interval_s = 0.05
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(2, 5):
            client.ask(requests.CurrentTimeRequest())
            await journal.wait_for(lambda number=number: len(journal.of(responses.CurrentTime)) == number)
        assert loop.time() - began_s >= 0.1
        gateway.faults.read_interval_s = 0
        client.ask(requests.CurrentTimeRequest())
        await journal.wait_for(lambda: len(journal.of(responses.CurrentTime)) == 5)

    with_client(test)


@pytest.mark.parametrize("server_version", [178, 200, 201, 226])
@pytest.mark.parametrize("read_only", [True, False])
def test_orders_are_not_shown_to_a_read_only_client(server_version: int, read_only: bool) -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        is_protobuf = client.server_version >= 204
        wire_id = Outgoing.REQ_OPEN_ORDERS + (200 if is_protobuf else 0)
        head = wire_id.to_bytes(4, "big") if client.server_version > 200 else f"{wire_id}\0".encode()
        client.send(head + (b"" if is_protobuf else b"1\0"))
        if read_only:
            refusal = await journal.first(responses.ErrorMessage, code=321)
            assert refusal.req_id == -1
            assert "Read-Only mode" in refusal.message
            assert not journal.of(responses.OpenOrderEnd)
        else:
            await journal.wait_for(lambda: journal.of(responses.OpenOrderEnd))

    with_client(test, server_version=server_version, read_only=read_only)


def test_violations_are_what_limits_refused() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        asked = [
            requests.MarketData(1, APPLE),
            requests.MarketData(2, APPLE),
            requests.TickByTick(3, APPLE, "Last"),
            requests.TickByTick(4, APPLE, "Last"),
            requests.TickByTick(5, MICROSOFT, "Last"),
            *(requests.MarketDepth(10 + number, APPLE, 5, True) for number in range(4)),
            HISTORICAL,
            HISTORICAL,
        ]
        for request in asked:
            client.ask(request)
        for _ in range(60):
            client.ask(requests.IdsRequest())
        await client.closed()
        found = [(v.code, v.rule, getattr(v.request, "req_id", None)) for v in gateway.violations]
        assert found == [
            (101, "lines", 2),
            (10190, "tick-by-tick of one instrument", 4),
            (10190, "tick-by-tick at once", 5),
            (309, "depth at once", 13),
            (162, "identical historical requests", 7),
            (100, "requests per second", None),
            (100, "requests per second", None),
            (100, "requests per second", None),
        ]
        assert {violation.client_id for violation in gateway.violations} == {1}

    with_client(test, pacing=True, lines=1)


def test_requests_are_counted() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        client.ask(requests.CurrentTimeRequest())
        client.ask(requests.CurrentTimeRequest())
        await journal.wait_for(lambda: len(journal.of(responses.CurrentTime)) == 2)
        assert gateway.received == {requests.StartApi: 1, requests.CurrentTimeRequest: 2}

    with_client(test)


def test_what_is_open_is_known() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        subscribe(client)
        await flowing(journal, LEVEL_1, TICK_BY_TICK, DEPTH, BARS, HISTORY)
        assert [(s.client_id, s.family, s.req_id, s.con_id) for s in gateway.subscriptions()] == [
            (1, family, number, con_id(APPLE)) for number, family in enumerate(Family, 1)
        ]
        assert "AAPL" in repr(gateway.subscriptions()[0])
        cancels: list[Callable[[int], Any]] = [
            requests.CancelMarketData,
            requests.CancelTickByTick,
            requests.CancelMarketDepth,
            requests.CancelRealTimeBars,
            requests.CancelHistoricalBars,
        ]
        for number, cancel in enumerate(cancels, 1):
            client.ask(cancel(number))
        async with asyncio.timeout(TIMEOUT_S):
            while gateway.subscriptions():
                await asyncio.sleep(0)

    with_client(test)


def test_every_farm_is_named() -> None:
    farms = {UNIVERSE.find(contract)[0].farm for contract in (APPLE, EURO, ES, Contract(symbol="SIE"))}
    assert farms == {"usfarm", "cashfarm", "usfuture", "eufarm"}
