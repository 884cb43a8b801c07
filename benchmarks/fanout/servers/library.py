"""Servers of the `websockets` library: ours writes by a `Broadcaster`, others by what library and loop offer.

library.py WAY LOOP    WAY: broadcaster, transports, broadcast; LOOP: uvloop, asyncio
"""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import Any, cast

import uvloop
from rounds import Server, main
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.protocol import State

from ibfast.fanout.sockets.broadcaster import Audience, Broadcaster, Writer

FIN_BINARY = 0x82
SHORT_NBYTES, MEDIUM = 126, 126


def frame(message: bytes) -> bytes:
    """Return the message in a frame of a server."""
    if len(message) < SHORT_NBYTES:
        return struct.pack("!BB", FIN_BINARY, len(message)) + message
    return struct.pack("!BBH", FIN_BINARY, MEDIUM, len(message)) + message


class LibraryServer(Server):
    """A server of the library whose connections are all written to."""

    connection_class: type[ServerConnection] = ServerConnection

    def __init__(self) -> None:
        super().__init__()
        self._connections: set[Any] = set()

    async def listen(self) -> int:
        """Listen; nothing is compressed, and nobody is asked whether he is alive."""
        connection_class = self.connection_class

        def connection(*args: Any, **settings: Any) -> ServerConnection:
            made = connection_class(*args, **settings)
            made.fanout = self  # type: ignore[attr-defined]
            return made

        self._server = await serve(
            self._handle,
            "127.0.0.1",
            0,
            compression=None,
            ping_interval=None,
            create_connection=connection,  # type: ignore[arg-type]
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def _handle(self, connection: ServerConnection) -> None:
        self.add(connection)
        self.joined()
        await connection.wait_closed()

    def add(self, connection: Any) -> None:
        """Take a connection whose handshake is done."""
        self._connections.add(connection)

    def connections(self) -> int:
        """Return how many there are."""
        return len(self._connections)


class BroadcastServer(LibraryServer):
    """`websockets.broadcast`."""

    def write(self, messages: list[bytes]) -> None:
        """Broadcast one message after the other: they can't be joined."""
        for message in messages:
            broadcast(self._connections, message)


class TransportServer(LibraryServer):
    """A frame built once, and `transport.write` for each connection."""

    def write(self, messages: list[bytes]) -> None:
        """Write to each transport."""
        joined = b"".join(map(frame, messages))
        for connection in self._connections:
            connection.transport.write(joined)


class Subscriber(ServerConnection):
    """A connection that is written to past the library."""

    fanout: BroadcasterServer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the library write by the writer."""
        plain = cast(asyncio.Transport, transport)
        self.writer = self.fanout.broadcaster.join(plain, lambda: self.protocol.state is State.OPEN)
        super().connection_made(self.writer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.writer.leave()
        self.fanout.audience.discard(self.writer)
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Write no more."""
        self.writer.stop()
        return super().eof_received()

    def pause_writing(self) -> None:
        """Let the next round wait."""
        self.writer.hold()
        super().pause_writing()
        self.fanout.hold()

    def resume_writing(self) -> None:
        """Go on."""
        self.writer.release()
        super().resume_writing()
        self.fanout.release()


class BroadcasterServer(LibraryServer):
    """Our way."""

    connection_class = Subscriber

    def __init__(self) -> None:
        super().__init__()
        self.broadcaster = Broadcaster(lambda error: None)
        self.audience = Audience()

    def add(self, connection: Any) -> None:
        """Take a connection whose handshake is done."""
        connection.writer.start()
        self.audience.add(connection.writer)

    def connections(self) -> int:
        """Return how many there are."""
        return len(self.audience)

    def write(self, messages: list[bytes]) -> None:
        """Write once; nobody may refuse, since a round waits for all."""
        refused: list[Writer] = self.broadcaster.write(b"".join(map(frame, messages)), self.audience)
        assert not refused


WAYS: dict[str, type[LibraryServer]] = {
    "broadcaster": BroadcasterServer,
    "transports": TransportServer,
    "broadcast": BroadcastServer,
}

if __name__ == "__main__":
    _, way, loop = sys.argv
    main(WAYS[way], uvloop.new_event_loop if loop == "uvloop" else asyncio.SelectorEventLoop)
