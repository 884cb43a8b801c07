"""The fault proxy: each verb does to real sockets what it says, at the very byte, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from ibfast.sim.proxy import Corruption, Direction, FaultProxy
from ibfast.sim.tamper import Ending
from tests.support.loops import Run, until
from tests.support.streams import framed

FRAMES = [bytes([number]) * (5 + number) for number in range(20)]
WIRE = framed(*FRAMES)
PROMPT_S = 0.05
"""So long nothing comes, where nothing may come: a wait in vain, not a limit for what must come."""


class Server:
    """Sends to each client what it is told, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.gone = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self._tasks.add(asyncio.create_task(self._read(reader, writer)))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.heard += data
        self.gone += 1
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Client:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def rest(self) -> tuple[bytes, Ending]:
        """Read to the end; return what came, and how it ended."""
        data = bytearray()
        try:
            while chunk := await self.reader.read(1 << 16):
                data += chunk
        except ConnectionResetError:
            return bytes(data), Ending.RESET
        return bytes(data), Ending.CUT

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(PROMPT_S):
                await self.reader.read(1)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[tuple[Server, FaultProxy]]:
    async with Server() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        yield server, proxy


@contextlib.asynccontextmanager
async def connected(proxy: FaultProxy, **options: object) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, **options)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def served(server: Server) -> asyncio.StreamWriter:
    """Wait for the next client at the server and return the way to it."""
    await until(lambda: len(server.writers) > server.gone)
    return server.writers[-1]


def test_bytes_pass_both_ways_and_ends_are_passed_on(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            async with connected(proxy) as client:
                client.writer.write(b"question")
                await until(lambda: server.heard == b"question")
                server.writers[0].write(WIRE)
                assert await client.reader.readexactly(len(WIRE)) == WIRE
                server.writers[0].close()
                assert await client.rest() == (b"", Ending.CUT)
            async with connected(proxy):
                await served(server)
                assert proxy.connections == 1
            await until(lambda: server.gone == 2)
            await until(lambda: proxy.connections == 0)
            assert proxy.accepted == 2

    run(test())


def test_refused_until_it_listens_again_on_the_same_port(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            async with connected(proxy) as client:
                writer = await served(server)
                proxy.refuse()
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(b"still there")
                assert await client.reader.readexactly(11) == b"still there"
            port = proxy.port
            await proxy.serve()
            assert proxy.port == port
            async with connected(proxy):
                await served(server)

    run(test())


def test_a_black_hole_accepts_and_is_silent(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            proxy.black_hole()
            async with connected(proxy) as client:
                client.writer.write(b"hello?")
                await client.hears_nothing()
                assert not server.writers
            await proxy.serve()
            async with connected(proxy):
                await served(server)

    run(test())


@pytest.mark.parametrize("direction", Direction)
def test_frozen_bytes_come_when_it_thaws(run: Run, direction: Direction) -> None:
    async def test() -> None:
        async with world() as (server, proxy), connected(proxy) as client:
            writer = await served(server)
            proxy.freeze(direction)
            client.writer.write(b"up")
            writer.write(b"down")
            if direction is Direction.TO_GATEWAY:
                assert await client.reader.readexactly(4) == b"down"
            else:
                await client.hears_nothing()
            if direction is Direction.TO_CLIENT:
                await until(lambda: server.heard == b"up")
            else:
                await asyncio.sleep(PROMPT_S)
                assert not server.heard
            proxy.thaw()
            if direction is not Direction.TO_GATEWAY:
                assert await client.reader.readexactly(4) == b"down"
            await until(lambda: server.heard == b"up")

    run(test())


def test_a_frozen_line_hides_that_the_other_side_is_gone(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            async with connected(proxy):
                await served(server)
                proxy.freeze()
            await asyncio.sleep(PROMPT_S)
            assert server.gone == 0
            async with connected(proxy) as other:  # to come: not frozen
                await until(lambda: len(server.writers) == 2)
                server.writers[1].write(b"x")
                assert await other.reader.readexactly(1) == b"x"

    run(test())


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("upcoming", [0, 1])
def test_it_ends_after_exactly_so_many_bytes(run: Run, ending: Ending, upcoming: int) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            verb = proxy.reset if ending is Ending.RESET else proxy.cut
            if upcoming:
                verb(after_bytes=13, upcoming=1)
            async with connected(proxy) as client:
                writer = await served(server)
                if not upcoming:
                    verb(after_bytes=13)
                writer.write(WIRE)
                assert await client.rest() == (WIRE[:13], ending)
            await until(lambda: server.gone == 1)
            async with connected(proxy) as client:
                (await served(server)).write(WIRE)
                assert await client.reader.readexactly(len(WIRE)) == WIRE

    run(test())


def test_reset_and_cut_at_once(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            for number, (verb, ending) in enumerate(((proxy.reset, Ending.RESET), (proxy.cut, Ending.CUT)), 1):
                async with connected(proxy) as client:
                    await served(server)
                    verb()
                    assert await client.rest() == (b"", ending)
                    await until(lambda number=number: server.gone == number)

    run(test())


def test_a_reset_frees_a_frozen_line(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy), connected(proxy) as client:
            (await served(server)).write(WIRE)
            proxy.freeze()
            proxy.reset()
            _, ending = await client.rest()
            assert ending is Ending.RESET
            await until(lambda: server.gone == 1)

    run(test())


def test_within_the_frame_that_follows_so_many_whole_ones(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy), connected(proxy) as client:
            writer = await served(server)
            whole = len(framed(*FRAMES[:3]))
            writer.write(WIRE[: whole + 2])
            await client.reader.readexactly(whole + 2)
            proxy.reset(after_frames=1, after_bytes=6)
            writer.write(WIRE[whole + 2 :])
            data, ending = await client.rest()
            assert WIRE[: whole + 2] + data == WIRE[: len(framed(*FRAMES[:5])) + 6]
            assert ending is Ending.RESET

    run(test())


def test_a_trickle_is_slow_and_complete(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            proxy.trickle(1000, upcoming=1)
            async with connected(proxy) as client:
                (await served(server)).write(WIRE)
                began = asyncio.get_running_loop().time()
                assert await client.reader.readexactly(100) == WIRE[:100]
                assert asyncio.get_running_loop().time() - began > 0.05
                await proxy.serve()
                assert await client.reader.readexactly(len(WIRE) - 100) == WIRE[100:]

    run(test())


def test_a_side_that_is_read_slowly_holds_up_the_other(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy), connected(proxy) as client:
            await served(server)
            proxy.read_slowly(1000)
            client.writer.transport.set_write_buffer_limits(high=0)
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            client.writer.write(bytes(1 << 25))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2 * PROMPT_S):
                    await client.writer.drain()
            assert len(server.heard) < 1000
            client.writer.transport.abort()

    run(test())


def test_delayed(run: Run) -> None:
    async def test() -> None:
        async with world() as (server, proxy), connected(proxy) as client:
            writer = await served(server)
            proxy.delay(2 * PROMPT_S, Direction.TO_CLIENT)
            writer.write(b"late")
            client.writer.write(b"prompt")
            await client.hears_nothing()
            assert server.heard == b"prompt"
            assert await client.reader.readexactly(4) == b"late"

    run(test())


@pytest.mark.parametrize("corruption", Corruption)
def test_a_corrupt_frame(run: Run, corruption: Corruption) -> None:
    async def test() -> None:
        async with world() as (server, proxy):
            proxy.corrupt(corruption, after_frames=2, upcoming=1)
            async with connected(proxy) as client:
                (await served(server)).write(WIRE)
                data = await client.reader.readexactly(len(WIRE))
                whole = len(framed(*FRAMES[:2]))
                assert data[:whole] == WIRE[:whole]
                length = int.from_bytes(data[whole : whole + 4], "big")
                if corruption is Corruption.GARBAGE:
                    assert sum(a == b for a, b in zip(data[whole:], WIRE[whole:], strict=True)) < 50
                else:
                    assert data[whole + 4 :] == WIRE[whole + 4 :]
                    assert length == len(FRAMES[2]) ^ (0x200 if corruption is Corruption.WRONG_LENGTH else 0x7F000000)

    run(test())


def test_without_a_gateway_the_client_is_hung_up_on(run: Run) -> None:
    async def test() -> None:
        async with Server() as server:
            port = server.port
        async with FaultProxy("127.0.0.1", port) as proxy, connected(proxy) as client:
            assert await client.rest() == (b"", Ending.RESET)

    run(test())


def test_tls_for_the_client(run: Run) -> None:
    async def test() -> None:
        authority = trustme.CA()
        ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(ours)
        authority.configure_trust(theirs)
        async with (
            Server() as server,
            FaultProxy("127.0.0.1", server.port, ssl=ours) as proxy,
            connected(proxy, ssl=theirs, server_hostname="localhost") as client,
        ):
            (await served(server)).write(WIRE)
            assert await client.reader.readexactly(len(WIRE)) == WIRE

    run(test())


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_of_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="freeze"):
        FaultProxy("127.0.0.1", 1).trickle(rate)
