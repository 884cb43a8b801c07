"""The gateway on a real socket: handshake, sessions, and what it does to clients that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ibfast.contracts import Contract, Stock
from ibfast.errors import ConfigError
from ibfast.sim import codec
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.wire import requests, responses
from ibfast.wire.request_bytes import encode, frame
from tests.support.gateway_client import NS, START_NS, TIMEOUT_S, UNIVERSE, Client, Journal, make, with_client

APPLE = Stock("AAPL")
OFFER = b"v157..226"


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
    sent = asyncio.run(answer_to(hello(OFFER) + frame(encode(requests.CurrentTimeRequest(), 226))))
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


def test_too_many_requests_end_the_session() -> None:
    async def test(gateway: Gateway, client: Client, journal: Journal) -> None:
        for _ in range(200):
            client.ask(requests.IdsRequest())
        await client.closed()
        assert [error.code for error in journal.of(responses.ErrorMessage)][3:] == [100, 100, 100]
        assert len(journal.of(responses.NextValidId)) == 51

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
