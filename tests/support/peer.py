"""A gateway on a real socket that does what a script says, misbehaviour included.

The rule of the file: a script is a coroutine that is given a `Caller`, one client's connection, and plays the gateway
to it with a few verbs; the n-th client gets the n-th script, and all that follow get the last one. What goes wrong in a
script fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from ibfast.sim.codec import decode_request, encode
from ibfast.wire.requests import StartApi
from ibfast.wire.responses import ErrorMessage, ManagedAccounts, NextValidId
from tests.support.streams import framed

HELLO = b"API\0\0\0\0\x09v157..226"
LENGTH_BYTES = 4
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

RequestType = TypeVar("RequestType")


class Caller:
    """A client's connection, seen from the gateway."""

    def __init__(self, version: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.version = version
        self.client_id = -1
        self._reader = reader
        self._writer = writer

    async def hello(self) -> None:
        """Read the client's first bytes."""
        assert await self._reader.readexactly(len(HELLO)) == HELLO

    def reply(self, version: object = None) -> None:
        """Answer them."""
        self.write(framed(f"{version or self.version}\x0020260105 14:30:00 CET\0".encode()))

    async def handshake(self) -> None:
        """Come as far as the client's StartApi."""
        await self.hello()
        self.reply()
        self.client_id = (await self.request(StartApi)).client_id

    async def start(self) -> None:
        """Come as far as a session that is ready."""
        await self.handshake()
        self.send(ManagedAccounts(("DU1",)), NextValidId(1), ErrorMessage(-1, 2104, "farm is OK"))

    async def request(self, kind: type[RequestType]) -> RequestType:
        """Read the next request, which must be of that kind."""
        length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
        request = decode_request(await self._reader.readexactly(length), self.version)
        assert isinstance(request, kind), request
        return request

    def send(self, *messages: Any) -> None:
        """Send messages in one write."""
        self.write(framed(*(encode(message, self.version) for message in messages)))

    def error(self, req_id: int, code: int, text: str = "text") -> None:
        """Send an error."""
        self.send(ErrorMessage(req_id, code, text))

    def write(self, data: bytes) -> None:
        """Send any bytes."""
        self._writer.write(data)

    def hang_up(self) -> None:
        """Close the connection in good order."""
        self._writer.close()

    def reset(self) -> None:
        """Break the connection off."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._writer.transport.abort()

    def finish_writing(self) -> None:
        """Close one direction only: the client sees the end, and can go on writing."""
        self._writer.write_eof()

    async def gone(self) -> bytes:
        """Wait until the client is gone; return what it said before."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""


Script = Callable[[Caller], Awaitable[object]]


class Peer:
    """Listens, and plays the scripts. Use it as an async context manager; `port` is known inside.

    At the end every script must have come to its own end, unless `abandon` is given.
    """

    def __init__(self, *scripts: Script, version: int = 226, abandon: bool = False) -> None:
        self.version = version
        self.callers: list[Caller] = []
        self._scripts = scripts
        self._abandon = abandon
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        if self._abandon or exc_type is not None:
            for task in self._tasks:
                task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if exc_type is None:
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Caller(self.version, reader, writer)
        script = self._scripts[min(len(self.callers), len(self._scripts) - 1)]
        self.callers.append(caller)
        self._tasks.append(asyncio.create_task(self._play(script, caller, writer)))

    async def _play(self, script: Script, caller: Caller, writer: asyncio.StreamWriter) -> None:
        try:
            await script(caller)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
