"""Frames reach every connection whole, in order with what the library sends, and never one that is closing.

Real sockets and the real server library, on both event loops. A frame's payload is its number, so what a client got
tells what was written, what was refused, and in which order.
"""

from __future__ import annotations

import array
import asyncio
import random
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.protocol import State

from ibfast.fanout.sockets._broadcast import GONE, REFUSED, WriteSet
from ibfast.fanout.sockets.broadcaster import Audience, Broadcaster, Writer
from tests.support.loops import Run, until

HOST = "127.0.0.1"
TEXT, BINARY, CLOSE = 1, 2, 8
SMALL_BUFFER = 1 << 12
LARGE = 1 << 20
READ_NBYTES = 1 << 16
REQUEST = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASKED_CLOSE = bytes((0x80 | CLOSE, 0x80 | 2, 0, 0, 0, 0)) + struct.pack("!H", 1000)
LINGER_NOT = struct.pack("ii", 1, 0)


class Frame(NamedTuple):
    """What a client got."""

    opcode: int
    payload: bytes


def framed(payload: bytes) -> bytes:
    """A binary frame as servers send it, with the long form of its length."""
    return bytes((0x80 | BINARY, 127)) + len(payload).to_bytes(8, "big") + payload


def numbered(number: int, nbytes: int = 8) -> bytes:
    """A frame whose payload is its number again and again."""
    return framed(number.to_bytes(8, "little") * (nbytes // 8))


def parsed(stream: bytes) -> Iterator[Frame]:
    """The frames of a stream, which must end with a whole one."""
    at = 0
    while at < len(stream):
        opcode, length = stream[at] & 0x0F, stream[at + 1]
        at += 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length, at = int.from_bytes(stream[at : at + width], "big"), at + width
        payload = stream[at : at + length]
        assert len(payload) == length, "the stream ends within a frame"
        yield Frame(opcode, payload)
        at += length


def numbers(frames: list[Frame]) -> list[int]:
    """The numbers of binary frames, none of which has anything of another in it."""
    found = []
    for _, payload in (frame for frame in frames if frame.opcode == BINARY):
        assert payload == payload[:8] * (len(payload) // 8)
        found.append(int.from_bytes(payload[:8], "little"))
    return found


class Connection(ServerConnection):
    """A connection that does what the docstring of `Writer` says."""

    rig: Rig
    writer: Writer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.rig.made.append(self)
        plain = cast(asyncio.Transport, transport)
        self.writer = self.rig.broadcaster.join(plain, lambda: self.protocol.state is State.OPEN)
        super().connection_made(self.writer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writer.leave()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self.writer.stop()
        return super().eof_received()

    def pause_writing(self) -> None:
        self.writer.hold()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.writer.release()
        super().resume_writing()


def no_error(error: Exception) -> None:
    raise error


class Rig:
    """A server whose connections are all in one audience.

    Attributes:
        made: every connection there ever was, in the order of their coming.
    """

    def __init__(self) -> None:
        self.broadcaster = Broadcaster(no_error)
        self.audience = Audience()
        self.made: list[Connection] = []
        self.server: Server

    @property
    def port(self) -> int:
        return int(self.server.sockets[0].getsockname()[1])

    def write(self, data: bytes) -> list[Writer]:
        return self.broadcaster.write(data, self.audience)

    async def handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        connection.writer.start()
        self.audience.add(connection.writer)
        await connection.wait_closed()
        self.audience.discard(connection.writer)


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Rig]:
    rig = Rig()

    def connection(*args: Any, **settings: Any) -> Connection:
        made = Connection(*args, **settings)
        made.rig = rig
        return made

    settings: dict[str, Any] = {"compression": None, "ping_interval": None, "close_timeout": 0.2, "ssl": tls}
    async with serve(rig.handle, HOST, 0, create_connection=connection, **settings) as rig.server:
        yield rig
    assert len(rig.broadcaster) == 0
    assert len(rig.audience) == 0


class Client:
    """A subscriber that reads when it is told to."""

    def __init__(self, receive_nbytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if receive_nbytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_nbytes)
        self.stream = b""
        self._loop = asyncio.get_running_loop()

    async def upgrade(self, port: int) -> None:
        await self._loop.sock_connect(self.socket, (HOST, port))
        await self.send(REQUEST.encode())
        while b"\r\n\r\n" not in self.stream:
            await self.read()
        head, _, self.stream = self.stream.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    async def read(self) -> bool:
        """Read once; False at the end."""
        try:
            data = await self._loop.sock_recv(self.socket, READ_NBYTES)
        except ConnectionResetError:
            return False
        self.stream += data
        return bool(data)

    async def frames(self, nbytes: int) -> list[Frame]:
        """Read so many bytes and no more, and return the frames in them."""
        while len(self.stream) < nbytes:
            assert await self.read()
        assert len(self.stream) == nbytes
        return list(parsed(self.stream))

    async def all_frames(self) -> list[Frame]:
        """Read to the end."""
        while await self.read():
            pass
        return list(parsed(self.stream))


@asynccontextmanager
async def subscribed(rig: Rig, count: int = 1, receive_nbytes: int | None = None) -> AsyncIterator[list[Client]]:
    """Clients whose handshakes are done, and whose connections take frames."""
    clients = [Client(receive_nbytes) for _ in range(count)]
    there, made_before = len(rig.audience), len(rig.made)
    try:
        for client in clients:
            await client.upgrade(rig.port)
        await until(lambda: len(rig.audience) == there + count)
        yield clients
    finally:
        for client in clients:
            client.socket.close()
        ours = rig.made[made_before:]
        await until(lambda: all(made.state is State.CLOSED and made.writer not in rig.audience for made in ours))


def small_buffer(connection: Connection) -> None:
    """Let the server's socket take little."""
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)


def fill(rig: Rig, nbytes: int) -> list[int]:
    """Write numbered frames to the only subscriber until it refuses one; return what it took."""
    taken: list[int] = []
    while not rig.write(numbered(len(taken), nbytes)):
        taken.append(len(taken))
    return taken


def test_everybody_gets_the_same_bytes(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig, 40) as clients:
            sent = [numbered(number, nbytes) for number, nbytes in enumerate((8, 64, 200, 2048, 40_000))]
            for data in sent:
                assert rig.write(data) == []
            for client in clients:
                await client.frames(sum(map(len, sent)))
                assert client.stream == b"".join(sent)

    run(test())


def test_frames_keep_their_order_with_the_library_s_own(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            small_buffer(rig.made[0])
            random_ = random.Random(1)
            expected: list[Frame] = []
            read = asyncio.create_task(client.all_frames())
            for number in range(400):
                if random_.random() < 0.3:
                    text = f"{number}" * random_.randint(1, 3000)
                    expected.append(Frame(TEXT, text.encode()))
                    await rig.made[0].send(text)
                nbytes = 8 * random_.randint(1, 4000)
                if not rig.write(numbered(number, nbytes)):
                    expected.append(Frame(BINARY, number.to_bytes(8, "little") * (nbytes // 8)))
                if random_.random() < 0.1:
                    await asyncio.sleep(0)
            await until(lambda: rig.made[0].writer.is_ready)
            await rig.made[0].send("end")
            rig.made[0].transport.abort()
            assert (await read)[: len(expected)] == expected
            assert expected[-1].opcode in (TEXT, BINARY)
            assert 100 < len(numbers(expected)) <= 400

    run(test())


def test_a_full_connection_refuses_until_it_has_got_rid_of_everything(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig, receive_nbytes=SMALL_BUFFER) as (client,):
            writer = rig.made[0].writer
            small_buffer(rig.made[0])
            taken = fill(rig, 3000)
            assert taken
            assert not writer.is_ready
            assert rig.write(numbered(0)) == [writer]
            assert not writer.write_frame(numbered(0))
            assert writer.get_write_buffer_size() <= len(numbered(0, 3000)), "one frame at most is kept"
            nbytes = sum(len(numbered(number, 3000)) for number in taken)
            assert numbers(await client.frames(nbytes)) == taken
            await until(lambda: writer.is_ready)
            assert writer.write_frame(numbered(len(taken), 3000))
            assert numbers(await client.frames(nbytes + len(numbered(0, 3000)))) == [*taken, len(taken)]

    run(test())


def test_who_does_not_read_holds_up_nobody(run: Run) -> None:
    async def test() -> None:
        async with (
            serving() as rig,
            subscribed(rig, receive_nbytes=SMALL_BUFFER),
            subscribed(rig, 20) as clients,
        ):
            small_buffer(rig.made[0])
            slow = rig.made[0].writer
            refusals = 0
            for number in range(50):
                refused = rig.write(numbered(number, 2000))
                assert refused in ([], [slow])
                refusals += bool(refused)
            assert refusals > 30
            for client in clients:
                assert numbers(await client.frames(50 * len(numbered(0, 2000)))) == list(range(50))

    run(test())


def test_a_frame_larger_than_any_buffer_arrives_whole(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            small_buffer(rig.made[0])
            assert rig.write(numbered(7, LARGE)) == []
            assert not rig.made[0].writer.is_ready
            control = asyncio.create_task(rig.made[0].send("after it"))
            got = await client.frames(len(numbered(7, LARGE)) + 2 + len("after it"))
            await control
            assert numbers(got) == [7]
            assert [frame.opcode for frame in got] == [BINARY, TEXT]

    run(test())


def test_what_the_library_has_not_got_rid_of_goes_first(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            small_buffer(rig.made[0])
            control = asyncio.create_task(rig.made[0].send("x" * LARGE))
            await asyncio.sleep(0)
            assert rig.write(numbered(1)) == [rig.made[0].writer]
            while not control.done():
                await client.read()
            await until(lambda: rig.made[0].writer.is_ready)
            assert rig.write(numbered(2)) == []
            await rig.made[0].close()
            assert [frame.opcode for frame in await client.all_frames()] == [TEXT, BINARY, CLOSE]

    run(test())


def test_nothing_is_written_before_the_handshake_is_over(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig:
            client = Client()
            with client.socket:
                await asyncio.get_running_loop().sock_connect(client.socket, (HOST, rig.port))
                await until(lambda: rig.made)
                writer = rig.made[0].writer
                writer.start()  # too early
                assert rig.broadcaster.write(numbered(1), Audience([writer])) == []
                await client.send(REQUEST.encode())
                await until(lambda: writer in rig.audience)
                assert rig.write(numbered(2)) == []
                rig.made[0].transport.close()
                while await client.read():
                    pass
                assert client.stream.startswith(b"HTTP/1.1 101")
                assert numbers(list(parsed(client.stream.partition(b"\r\n\r\n")[2]))) == [2]
            await until(lambda: rig.made[0].state is State.CLOSED)

    run(test())


@pytest.mark.parametrize("way", ["close", "protocol", "transport", "abort", "write_eof"])
def test_a_closing_connection_gets_nothing(run: Run, way: str) -> None:
    """However the server ends it: what is sent last is what closes it, though the socket is open still."""

    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            connection = rig.made[0]
            assert rig.write(numbered(1)) == []
            closing = None
            if way == "close":
                closing = asyncio.create_task(connection.close())
                await asyncio.sleep(0)
            elif way == "protocol":  # as when the peer breaks the protocol
                connection.protocol.fail(1002, "")
                connection.send_data()
            elif way == "write_eof":
                connection.transport.write_eof()
            else:
                getattr(connection.transport, "close" if way == "transport" else "abort")()
            assert not connection.writer.is_ready
            assert rig.write(numbered(2)) == []
            assert not connection.writer.write_frame(numbered(3))
            connection.writer.start()
            assert not connection.writer.is_ready, "it is over for ever"
            got = await client.all_frames()
            assert numbers(got) == [1]
            assert [frame.opcode for frame in got] == [BINARY, CLOSE][: len(got)]
            assert len(got) == (2 if way in ("close", "protocol") else 1)
            client.socket.close()
            if closing is not None:
                await closing

    run(test())


def test_a_connection_that_closes_with_a_rest_gets_the_rest_and_no_more(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            small_buffer(rig.made[0])
            assert rig.write(numbered(1, LARGE)) == []
            closing = asyncio.create_task(rig.made[0].close())
            await asyncio.sleep(0)
            assert rig.write(numbered(2)) == []
            await client.frames(len(numbered(1, LARGE)) + 4)
            assert rig.write(numbered(3)) == []
            assert [frame.opcode for frame in parsed(client.stream)] == [BINARY, CLOSE]
            await client.send(MASKED_CLOSE)
            await closing
            assert numbers(await client.all_frames()) == [1]

    run(test())


def test_a_client_that_says_goodbye_gets_nothing_after_the_answer(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            await client.send(MASKED_CLOSE)
            written = 0
            while rig.made[0].writer.is_ready:
                assert rig.write(numbered(written)) == []
                written += 1
                await asyncio.sleep(0)
            rig.write(numbered(written))
            got = await client.all_frames()
            assert got[-1].opcode == CLOSE
            assert numbers(got) == list(range(written))

    run(test())


def test_a_client_that_ends_its_stream_is_closed(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig) as (client,):
            client.socket.shutdown(socket.SHUT_WR)
            await until(lambda: not rig.made[0].writer.is_ready)
            assert rig.write(numbered(1)) == []
            assert numbers(await client.all_frames()) == []

    run(test())


def test_a_reset_connection_is_lost_and_the_others_are_not(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig, 3) as clients:
            clients[1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            clients[1].socket.close()
            for number in range(10):  # the loop has had no chance to notice
                assert rig.write(numbered(number)) == []
            assert not rig.made[1].writer.is_ready
            await until(lambda: len(rig.audience) == 2)
            assert rig.write(numbered(10)) == []
            for client in (clients[0], clients[2]):
                assert numbers(await client.frames(11 * len(numbered(0)))) == list(range(11))

    run(test())


def test_a_descriptor_that_is_used_again_is_another_connection(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig:
            async with subscribed(rig):
                old = rig.made[0].writer
                descriptor = old.get_extra_info("socket").fileno()
                audience = Audience([old])
            async with subscribed(rig) as (client,):
                new = rig.made[1].writer
                assert new.get_extra_info("socket").fileno() == descriptor
                assert new.handle != old.handle
                assert rig.broadcaster.write(numbered(1), audience) == []
                old.start()
                old.hold()
                old.leave()
                assert not old.write_frame(numbered(2))
                assert new.write_frame(numbered(3))
                await rig.made[1].close()
                assert numbers(await client.all_frames()) == [3]

    run(test())


def test_tls_is_spoken_by_the_transport(run: Run) -> None:
    """The socket is not written to past it; a connection that is full refuses, and takes frames again."""

    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(server_side)
    authority.configure_trust(client_side)

    async def test() -> None:
        async with serving(server_side) as rig:
            address = f"wss://{HOST}:{rig.port}"
            async with connect(address, ssl=client_side, max_queue=1, max_size=None, compression=None) as client:
                await until(lambda: rig.audience)
                writer = rig.made[0].writer
                taken = fill(rig, 30_000)
                assert len(taken) > 1
                control = asyncio.create_task(rig.made[0].send("between"))
                for number in taken:
                    assert numbers([Frame(BINARY, cast(bytes, await client.recv()))]) == [number]
                assert await client.recv() == "between"
                await control
                await until(lambda: writer.is_ready)
                assert rig.write(numbered(1)) == []
                assert await client.recv() == (1).to_bytes(8, "little")

    run(test())


def test_the_library_s_limits_do_not_change_the_transport_s(run: Run) -> None:
    async def test() -> None:
        async with serving() as rig, subscribed(rig):
            assert rig.made[0].write_limit_high > 0
            assert rig.made[0].transport.get_write_buffer_limits() == (0, 0)

    run(test())


def connected() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def members(*handles: int) -> array.array[int]:
    return array.array("q", handles)


def test_a_set_writes_to_what_is_started_and_not_held() -> None:
    ours, theirs = connected()
    with ours, theirs:
        writes = WriteSet()
        handle = writes.add(ours.fileno(), "token")
        assert (writes.write(b"1", members(handle)), writes.write_one(b"1", handle)) == ([], GONE)
        writes.start(handle)
        direct = sys.platform == "linux"
        assert writes.write(b"2", members(handle, handle)) == ([] if direct else [("token", 0)] * 2)
        writes.hold(handle)
        assert not writes.is_ready(handle)
        assert writes.write(b"3", members(handle)) == [("token", REFUSED)]
        assert writes.write_one(b"3", handle) == REFUSED
        writes.release(handle)
        assert writes.write_one(b"4", handle) == int(direct)
        writes.stop(handle)
        for change in (writes.hold, writes.start, writes.release):
            assert writes.write(b"5", members(handle)) == []
            change(handle)
        assert writes.write_one(b"5", handle) == GONE
        if direct:
            assert theirs.recv(10) == b"224"
        assert len(writes) == 1
        writes.remove(handle)
        assert len(writes) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the transport writes everything")
def test_a_set_tells_what_was_taken() -> None:
    ours, theirs = connected()
    with ours, theirs:
        writes = WriteSet()
        handle, none = writes.add(ours.fileno(), "full"), writes.add(-1, "none")
        writes.start(handle)
        writes.start(none)
        data = bytes(LARGE)
        ((_, taken), nothing) = writes.write(data, members(handle, none))
        assert 0 < taken < LARGE
        assert nothing == ("none", 0)
        assert writes.write(data, members(handle)) == [("full", 0)]
        assert writes.write_one(data, handle) == 0
        theirs.close()
        assert writes.write_one(data, handle) == 0, "an error is for the transport"


def test_an_old_handle_means_nothing() -> None:
    writes = WriteSet()
    old = writes.add(-1, "old")
    writes.start(old)
    writes.remove(old)
    writes.remove(old)
    new = writes.add(-1, "new")
    assert new != old
    writes.start(old)
    assert not writes.is_ready(new)
    writes.start(new)
    for change in (writes.hold, writes.stop, writes.remove):
        change(old)
    assert writes.write(b"x", members(old, new, -1, 1 << 40, 77)) == [("new", 0)]
    assert writes.write_one(b"x", old) == GONE
    assert len(writes) == 1


@pytest.mark.parametrize(("count", "refusing"), [(0, 0), (5, 2), (15, 15), (16, 3), (1000, 1000)])
def test_a_set_of_any_size_answers_in_the_order_of_its_members(count: int, refusing: int) -> None:
    writes = WriteSet()
    handles = [writes.add(-1, number) for number in range(count)]
    for number, handle in enumerate(handles):
        writes.start(handle)
        if number < refusing:
            writes.hold(handle)
    answer = [(number, REFUSED if number < refusing else 0) for number in range(count)]
    assert writes.write(b"x", members(*handles)) == answer
    assert writes.write(b"x", members(*reversed(handles))) == answer[::-1]


def test_members_that_are_no_handles_are_refused() -> None:
    writes = WriteSet()
    with pytest.raises(TypeError, match="64-bit"):
        writes.write(b"x", array.array("i", [0]))
    with pytest.raises(TypeError):
        writes.write(b"x", cast(Any, [0]))
    with pytest.raises(TypeError):
        writes.write(cast(Any, bytearray(b"x")), members())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_an_audience_has_each_writer_once(steps: list[tuple[bool, int]]) -> None:
    class Silent(asyncio.Transport):
        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    broadcaster = Broadcaster(no_error)
    writers = [broadcaster.join(Silent(), lambda: True) for _ in range(10)]
    audience, model = Audience(), set()
    for is_add, number in steps:
        if is_add:
            audience.add(writers[number])
            model.add(writers[number])
        else:
            audience.discard(writers[number])
            model.discard(writers[number])
        assert len(audience) == len(model) == len(audience.handles)
        assert set(audience) == model
        assert [writer.handle for writer in audience] == list(audience.handles)
    assert [writer in audience for writer in writers] == [writer in model for writer in writers]
