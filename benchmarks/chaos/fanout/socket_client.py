"""A client's socket: how it connects, reads, stops reading, and ends, in every way that there is.

The rule of the file: it knows the WebSocket library, and nothing of what messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

CLOSE_S = 2.0
OPENING_S = 10.0
FEW_BYTES = 4096


@dataclass(frozen=True)
class Manner:
    """How a client connects."""

    dialect: str = "json"
    is_deflated: bool = False
    is_narrow: bool = False
    token: str = ""


class SocketClient:
    """One connection; a subclass takes the messages.

    Args:
        number: for reports.
        manner: how it connects.
        address: of the server.

    Attributes:
        is_open: whether it converses.
        left: how the client itself has ended it, if it has.
        paused_s: how long it has read nothing, all in all.
        status: with which the handshake was refused.
        heard_s: when something came last.
        messages: how many came.
    """

    def __init__(self, number: int, manner: Manner, address: tuple[str, int]) -> None:
        self.number = number
        self.manner = manner
        self.is_open = False
        self.left = ""
        self.status = 0
        self.paused_s = 0.0
        self.heard_s = 0.0
        self.messages = 0
        self._address = address
        self._reads = asyncio.Event()
        self._reads.set()
        self._socket: ClientConnection | None = None
        self.task = asyncio.create_task(self._converse(), name=f"chaos client {number}")

    def take(self, message: str | bytes) -> None:
        """Take a message."""
        raise NotImplementedError

    async def _converse(self) -> None:
        manner = self.manner
        options: dict[str, Any] = {"compression": "deflate" if manner.is_deflated else None}
        if manner.token:
            options["additional_headers"] = {"Authorization": f"Bearer {manner.token}"}
        try:
            options["sock"] = await self._opened()
            host, port = self._address
            self._socket = await connect(
                f"ws://{host}:{port}/stream", subprotocols=[Subprotocol(f"ibfast.v1.{manner.dialect}")],
                proxy=None, max_size=None, open_timeout=OPENING_S, close_timeout=CLOSE_S, ping_interval=None,
                max_queue=4, **options,
            )  # fmt: skip
        except InvalidStatus as refused:
            self.status = refused.response.status_code
            return
        except (OSError, TimeoutError, EOFError, InvalidHandshake, ConnectionClosed):  # closed: before it could ask
            self.status = -1
            return
        try:
            await self._read(self._socket)
        except ConnectionClosed:
            pass
        finally:
            self.is_open = False
            with contextlib.suppress(Exception):
                await self._socket.close()

    async def _opened(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        if self.manner.is_narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FEW_BYTES)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _read(self, socket_: ClientConnection) -> None:
        self.is_open = True
        async for message in socket_:
            self.heard_s = time.monotonic()
            self.messages += 1
            self.take(message)
            if not self._reads.is_set():
                paused_s = time.monotonic()
                await self._reads.wait()
                self.paused_s += time.monotonic() - paused_s

    @property
    def end(self) -> str:
        """How the WebSocket has ended."""
        return "" if self._socket is None else f"status {self._socket.close_code} {self._socket.close_reason!r}"

    def stop_reading(self) -> None:
        """Read nothing until `go_on`."""
        self._reads.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reads.set()

    def leave(self, how: str) -> None:
        """End the connection: by a close, a reset, or the end of one direction."""
        self.left = self.left or how
        if self._socket is None:
            self.task.cancel()
            return
        transport: Any = self._socket.transport
        if how == "half-close":
            if transport.can_write_eof() and not transport.is_closing():
                with contextlib.suppress(OSError, RuntimeError):
                    transport.write_eof()
        elif how == "reset":
            sock = transport.get_extra_info("socket")
            with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            self._closing = asyncio.create_task(self._close(), name="chaos client closes")
        self.go_on()

    async def _close(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(Exception):
            await self._socket.close()

    async def ended(self) -> None:
        """Wait for the end of the connection; after a moment, cut it."""
        done, _ = await asyncio.wait([self.task], timeout=2 * CLOSE_S + 1)
        if not done:
            if self._socket is not None:
                self._socket.transport.abort()
            self.task.cancel()
            await asyncio.wait([self.task])

    def send(self, text: str | bytes) -> None:
        """Send any message."""
        if self._socket is not None and self.is_open:
            self._sending = asyncio.create_task(self._send(text), name="chaos client sends")

    async def _send(self, text: str | bytes) -> None:
        assert self._socket is not None
        if self._socket.transport.is_closing():  # reset a moment ago: the library does not know it yet
            return
        with contextlib.suppress(ConnectionClosed, OSError):
            await self._socket.send(text)
