"""TLS on real sockets: a connection counts from when it is accepted, and has one time-out. On asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ibfast.fanout.server import MOST_REFUSED, FanoutServer
from tests.support.fanout_client import JsonClient, serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, errors_logged, until

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a certificate."""
    folder = tmp_path_factory.mktemp("tls")
    issued = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(0o600)
    issued.private_key_pem.write_to_path(key)
    return {"certificate_file": str(chain), "key_file": str(key)}


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


@contextlib.asynccontextmanager
async def client_of(server: FanoutServer) -> AsyncIterator[JsonClient]:
    async with connect("wss://{}:{}/stream".format(*server.address), ssl=trusting(), compression=None) as socket:
        client = JsonClient(socket)
        await client.hear()
        yield client


@contextlib.asynccontextmanager
async def silent(server: FanoutServer, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many sockets that connect and say nothing."""
    ends = [await asyncio.open_connection(*server.address) for _ in range(count)]
    try:
        yield [reader for reader, _ in ends]
    finally:
        for _, writer in ends:
            writer.transport.abort()


async def heard(desk: Desk, client: JsonClient) -> list[float]:
    await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
    desk.trade("AAPL", 1.0, 2.0)
    return [row["price"] for row in await client.news("trades", 2)]


def test_who_says_nothing_counts_before_tls(run: Run, files: dict[str, Any]) -> None:
    async def test() -> None:
        async with serving({**files, "max_connections": 3}) as (server, desk):
            async with silent(server, 3):
                await until(lambda: len(server.connections) == 3)
                with pytest.raises(InvalidStatus) as caught:
                    async with client_of(server):
                        pass
                assert caught.value.response.status_code == 503
                async with silent(server, 2 * MOST_REFUSED) as late:
                    await until(lambda: len(server.connections) == 3 + MOST_REFUSED)
                    await until(lambda: sum(reader.at_eof() for reader in late) == MOST_REFUSED)
            await until(lambda: not server.connections)
            async with client_of(server) as client:
                assert await heard(desk, client) == [1.0, 2.0]
            await until(lambda: not server.connections)

    run(test())


@pytest.mark.parametrize("shakes_hands", [False, True])
def test_one_time_out_is_for_tls_and_the_request(run: Run, files: dict[str, Any], shakes_hands: bool) -> None:
    async def test() -> None:
        async with serving({**files, "handshake_timeout_s": 2.0}) as (server, desk):
            options = {"ssl": trusting(), "server_hostname": "localhost"} if shakes_hands else {}
            reader, writer = await asyncio.open_connection(*server.address, **options)
            await until(lambda: [each.is_open for each in server.connections] == [shakes_hands])
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert not server.connections
            writer.transport.abort()
            async with client_of(server) as client:  # whose session outlives that time
                await asyncio.sleep(2.2)
                assert await heard(desk, client) == [1.0, 2.0]

    run(test())


def test_what_is_no_tls_leaves_nothing(run: Run, files: dict[str, Any]) -> None:
    async def test() -> None:
        with errors_logged() as errors:
            async with serving(files) as (server, desk):
                for said in (b"GET /stream HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 1000):
                    reader, writer = await asyncio.open_connection(*server.address)
                    writer.write(said)
                    with contextlib.suppress(ConnectionError):
                        await reader.read()
                    writer.transport.abort()
                reader, writer = await asyncio.open_connection(*server.address)
                writer.write(b"\x16\x03\x01")
                writer.write_eof()
                await reader.read()
                writer.transport.abort()
                await until(lambda: not server.connections)
                async with client_of(server) as client:
                    assert await heard(desk, client) == [1.0, 2.0]
        assert not errors

    run(test())


def test_the_server_ends_while_clients_are_silent(run: Run, files: dict[str, Any]) -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            life = await stack.enter_async_context(contextlib.AsyncExitStack())
            server, _ = await life.enter_async_context(serving(files))
            await stack.enter_async_context(silent(server, 3))
            await until(lambda: len(server.connections) == 3)
            await life.aclose()
            await until(lambda: not server.connections)

    run(test())
