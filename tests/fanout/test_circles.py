"""A connection that is closed is freed at once, without the garbage collector, whatever has become of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from ibfast.fanout.server import FanoutServer
from tests.support.fanout_client import TOKEN, JsonClient, client_of, serving, token_of
from tests.support.loops import Run, until

End = Callable[[FanoutServer], contextlib.AbstractAsyncContextManager[None]]

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a close breaks the connection off."""


@contextlib.asynccontextmanager
async def plain(server: FanoutServer, request: bytes) -> AsyncIterator[None]:
    _, writer = await asyncio.open_connection(*server.address)
    writer.write(request)
    yield
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def silent(server: FanoutServer) -> contextlib.AbstractAsyncContextManager[None]:
    return plain(server, b"")


def page(server: FanoutServer) -> contextlib.AbstractAsyncContextManager[None]:
    return plain(server, b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")


def no_http(server: FanoutServer) -> contextlib.AbstractAsyncContextManager[None]:
    return plain(server, b"EHLO localhost\r\n\r\n")


@contextlib.asynccontextmanager
async def closed(server: FanoutServer) -> AsyncIterator[None]:
    async with client_of(server) as client:
        await subscribe(client)
        yield


@contextlib.asynccontextmanager
async def reset(server: FanoutServer) -> AsyncIterator[None]:
    async with client_of(server) as client:
        await subscribe(client)
        client.socket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        yield
        client.socket.transport.abort()


@contextlib.asynccontextmanager
async def expelled(server: FanoutServer) -> AsyncIterator[None]:
    async with client_of(server) as client:
        await subscribe(client)
        yield
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.say("ping")
                await asyncio.sleep(0)
                if client.socket.close_code:
                    break
        await client.socket.wait_closed()


async def subscribe(client: JsonClient) -> None:
    await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
    await client.ask("subscribe", symbol="AAPL", mode="snapshot")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No circle of references is freed meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def parts_of(server: FanoutServer, come: End) -> list[weakref.ref[object]]:
    """Let a client come and go; refer to all that the server had of it."""
    found: list[weakref.ref[object]] = []
    async with come(server):
        await until(lambda: server.connections)
        for connection in server.connections:
            session = connection.session
            parts = [connection, connection.protocol, session, session and session.subscriber]
            found += [weakref.ref(part) for part in parts if part is not None]
    await until(lambda: not server.connections)
    return found


@pytest.mark.parametrize("come", [silent, page, no_http, closed, reset, expelled])
def test_nothing_refers_to_a_closed_connection(run: Run, come: End) -> None:
    async def test() -> None:
        async with serving({"max_control_per_s": 20}) as (server, _):
            with uncollected():
                parts = await parts_of(server, come)
                assert parts
                await until(lambda: not any(part() for part in parts))

    run(test())


def test_nor_to_one_that_speaks_tls(run: Run, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    certificate.touch(0o600)
    certificate.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())

    @contextlib.asynccontextmanager
    async def come(server: FanoutServer) -> AsyncIterator[None]:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        host, port = server.address
        async with connect(f"wss://{host}:{port}/stream", ssl=context, additional_headers=headers) as sock:
            client = JsonClient(sock)
            await client.hear()
            await subscribe(client)
            yield

    async def test() -> None:
        security = {"certificate_file": str(certificate)}
        async with serving(security, token_of()) as (server, _):
            with uncollected():
                parts = await parts_of(server, come)
                assert parts
                await until(lambda: not any(part() for part in parts))

    run(test())
