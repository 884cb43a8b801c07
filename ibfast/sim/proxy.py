"""A TCP proxy between a client and a gateway that does to connections what networks do.

The rule of the file: it owns sockets and nothing else; what happens to the bytes is `tamper`'s. One read per direction
is held at most, so that a side that does not read holds up the other one, as on a real line.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from ssl import SSLContext
from types import TracebackType
from typing import Any

from ibfast.sim.tamper import Corruption, Ending, Tamper

__all__ = ["Corruption", "Direction", "FaultProxy"]

_READ_BYTES = 1 << 16
_SLOW_WRITE_S = 0.01
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Direction(Enum):
    """The direction of bytes."""

    TO_CLIENT = "client"
    TO_GATEWAY = "gateway"
    BOTH = "both"


class _Pipe:
    """One direction of a connection."""

    def __init__(self, tamper: Tamper | None = None) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.bytes_per_s: float | None = None
        self.delay_s = 0.0
        self._tamper = tamper

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ending:
        """Pass on what comes until one side ends or the connection shall; return how."""
        # Written means handed to the kernel: nothing may pile up here, and nothing be lost when the end comes.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            while data := await reader.read(_READ_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self.flows.wait()
                if reader.exception() is not None:  # reset meanwhile: a network would not deliver it any more
                    return Ending.RESET
                ending = None
                if self._tamper is not None:
                    data, ending = self._tamper.pass_on(data)
                await self._write(writer, data)
                if ending is not None:
                    return ending
        except OSError:
            return Ending.RESET
        await self.flows.wait()
        return Ending.CUT

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            await self.flows.wait()
            rate = self.bytes_per_s
            piece = data if rate is None else data[: max(1, int(rate * _SLOW_WRITE_S))]
            writer.write(piece)
            await writer.drain()
            data = data[len(piece) :]
            if rate is not None:
                await asyncio.sleep(len(piece) / rate)


class _Link:
    """One client's connection, and its connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tamper = Tamper()
        self.to_client = _Pipe(self.tamper)
        self.to_gateway = _Pipe()
        self._reader = reader
        self._writers = [writer]
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def pipes(self, direction: Direction) -> list[_Pipe]:
        """Return the pipes of a direction."""
        one = {Direction.TO_CLIENT: [self.to_client], Direction.TO_GATEWAY: [self.to_gateway]}
        return one.get(direction, [self.to_client, self.to_gateway])

    def end(self, ending: Ending) -> None:
        """End both connections."""
        if not self._ending.done():
            self._ending.set_result(ending)

    async def run(self, target: tuple[str, int] | None) -> None:
        """Serve until either side or a verb ends it; without a target, swallow what the client says."""
        try:
            self._close(await (self._swallow() if target is None else self._connect(*target)))
            await self._closed()
        finally:
            self._close(Ending.RESET)
            await self._closed()

    async def _connect(self, host: str, port: int) -> Ending:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            return Ending.RESET
        self._writers.append(writer)
        return await self._first(
            self.to_client.run(reader, self._writers[0]), self.to_gateway.run(self._reader, writer)
        )

    async def _swallow(self) -> Ending:
        async def read() -> Ending:
            with suppress(OSError):
                while await self._reader.read(_READ_BYTES):
                    pass
            return Ending.CUT

        return await self._first(read())

    async def _first(self, *works: Coroutine[Any, Any, Ending]) -> Ending:
        """Return how it ends: as a verb says, or the first of these works to be done."""
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait([*tasks, self._ending], return_when=asyncio.FIRST_COMPLETED)
            return (self._ending if self._ending.done() else done.pop()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _close(self, ending: Ending) -> None:
        for writer in self._writers:
            if ending is Ending.CUT:
                writer.close()
                continue
            if not writer.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _closed(self) -> None:
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()


@dataclass(slots=True)
class _Treatment:
    """The treatment of the next `left` connections from their first byte on."""

    apply: Callable[[_Link], None]
    left: int


class FaultProxy:
    """A proxy in front of a gateway whose network fails at will. An async context manager; `port` is known inside.

    A verb acts on the connections that there are, or, with `upcoming=n`, on the next n from their first byte on.

    Args:
        target_host, target_port: the gateway; may be changed for the connections to come.
        host: the interface to listen on.
        port: 0 is any free one; it stays the same when `listen` follows `refuse`.
        ssl: speak TLS to clients, as a TLS proxy in front of a gateway does.

    Attributes:
        accepted: connections so far.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl: SSLContext | None = None,
    ) -> None:
        self.target_host = target_host
        self.target_port = target_port
        self.host = host
        self.port = port
        self.accepted = 0
        self._ssl = ssl
        self._is_black_hole = False
        self._upcoming: list[_Treatment] = []
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FaultProxy:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        await self.listen()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop all connections and stop listening."""
        server = self._server
        self.refuse()
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    async def listen(self) -> None:
        """Accept connections (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=self._ssl)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Stop listening: connections to come are refused, those that there are stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def black_hole(self) -> None:
        """Accept connections to come, but pass nothing on and answer nothing, until `serve`."""
        self._is_black_hole = True

    async def serve(self) -> None:
        """Be a good line again: listen, and leave all connections alone; what was planned is off."""
        await self.listen()
        self._is_black_hole = False
        self._upcoming.clear()
        for link in self._links:
            for pipe in link.pipes(Direction.BOTH):
                pipe.bytes_per_s, pipe.delay_s = None, 0.0
            link.tamper.cancel()
        self.thaw()

    def freeze(self, direction: Direction = Direction.BOTH, *, upcoming: int = 0) -> None:
        """Let no byte pass any more, nor an end of the connection: TCP stays up and looks alive."""

        def apply(link: _Link) -> None:
            for pipe in link.pipes(direction):
                pipe.flows.clear()

        self._treat(apply, upcoming)

    def thaw(self, direction: Direction = Direction.BOTH) -> None:
        """Let bytes pass again; none has been lost."""
        for link in self._links:
            for pipe in link.pipes(direction):
                pipe.flows.set()

    def reset(self, *, after_frames: int | None = None, after_bytes: int = 0, upcoming: int = 0) -> None:
        """Break the connections off (RST), at once or at a point of what goes to the client.

        Args:
            after_frames: so many whole frames, counted from the begin of the next one, pass before.
            after_bytes: and then so many bytes: with `after_frames=0` within the next frame.
            upcoming: see the class.
        """
        self._end(Ending.RESET, after_frames, after_bytes, upcoming)

    def cut(self, *, after_frames: int | None = None, after_bytes: int = 0, upcoming: int = 0) -> None:
        """Close the connections in good order (FIN); otherwise as `reset`."""
        self._end(Ending.CUT, after_frames, after_bytes, upcoming)

    def trickle(self, bytes_per_s: float, *, upcoming: int = 0) -> None:
        """Let bytes pass to the client at this rate only."""
        self._slow_down(Direction.TO_CLIENT, bytes_per_s, upcoming)

    def read_slowly(self, bytes_per_s: float, *, upcoming: int = 0) -> None:
        """Take bytes from the client at this rate only, as a gateway does that is busy."""
        self._slow_down(Direction.TO_GATEWAY, bytes_per_s, upcoming)

    def delay(self, seconds: float, direction: Direction = Direction.BOTH, *, upcoming: int = 0) -> None:
        """Pass on what was read so many seconds later."""

        def apply(link: _Link) -> None:
            for pipe in link.pipes(direction):
                pipe.delay_s = seconds

        self._treat(apply, upcoming)

    def corrupt(self, corruption: Corruption, *, after_frames: int = 0, upcoming: int = 0) -> None:
        """Corrupt what goes to the client, after so many whole frames from the begin of the next one."""
        self._treat(lambda link: link.tamper.plan(corruption, after_frames=after_frames), upcoming)

    def _end(self, ending: Ending, after_frames: int | None, after_bytes: int, upcoming: int) -> None:
        if after_frames is None and not after_bytes:
            self._treat(lambda link: link.end(ending), upcoming)
        else:
            self._treat(
                lambda link: link.tamper.plan(ending, after_frames=after_frames, after_bytes=after_bytes), upcoming
            )

    def _slow_down(self, direction: Direction, bytes_per_s: float, upcoming: int) -> None:
        if bytes_per_s <= 0:
            raise ValueError(f"bytes_per_s={bytes_per_s!r} is not possible: give more than 0, or freeze")

        def apply(link: _Link) -> None:
            for pipe in link.pipes(direction):
                pipe.bytes_per_s = bytes_per_s

        self._treat(apply, upcoming)

    def _treat(self, apply: Callable[[_Link], None], upcoming: int) -> None:
        if upcoming:
            self._upcoming.append(_Treatment(apply, upcoming))
            return
        for link in self._links:
            apply(link)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(reader, writer)
        for treatment in self._upcoming:
            treatment.apply(link)
            treatment.left -= 1
        self._upcoming = [treatment for treatment in self._upcoming if treatment.left]
        target = None if self._is_black_hole else (self.target_host, self.target_port)
        task = asyncio.create_task(link.run(target))
        self._links[link] = task
        task.add_done_callback(lambda _: self._links.pop(link))
