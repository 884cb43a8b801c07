"""How frames get to many connections: straight into their sockets, and by their transports where a socket is full.

The rule of the file: a frame is taken whole or refused whole. A connection that has not yet got rid of what it took
refuses, so that a server never holds more than one frame for it here; what becomes of the refused one is the server's
business. This module knows event loops' transports; it knows no WebSocket library, no channel and no policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ibfast.fanout.sockets._broadcast import REFUSED, WriteSet

__all__ = ["Audience", "Broadcaster", "Writer"]

UNSENT_NBYTES = 1 << 17
"""What the kernel keeps of a connection's bytes before they are on their way: more would only be older."""


UNTAKEN_NBYTES = 1 << 16
"""What the library may write to a connection that takes nothing, before nothing more is read of it."""


class Writer(asyncio.Transport):
    """A connection's transport, as its protocol gets it, and the way of frames to it.

    A server's protocol hands this instead of the loop's own transport to the library in `connection_made`, so that
    everything the library writes passes by here; and it passes on what the loop tells:

        connection_made(transport): writer = broadcaster.join(transport, may_write); the library gets `writer`
        pause_writing():  writer.hold()       the transport has bytes that the socket did not take
        resume_writing(): writer.release()    it has none: frames are taken again
        eof_received():   writer.stop()
        connection_lost():writer.leave()      must come before the loop closes the socket, as this callback does

    From `start` the transport's limits are such that it is paused exactly as long as it holds bytes: nothing overtakes
    what the library writes. From `pause_writing` nothing may be written, to whomever. What a server keeps for a
    connection that refused has to be written in the same call that releases it, or frames of an audience overtake it.

    The library answers pings and closes as it reads them, whatever the socket takes. So a connection that is written to
    while it takes nothing `is_full`: nothing more may be parsed until it has taken everything. The server may have the
    transport `wait`, too. In both cases the transport reads nothing.
    """

    __slots__ = (
        "_handle",
        "_is_gone",
        "_is_held",
        "_is_unread",
        "_is_waiting",
        "_library_pauses",
        "_may_write",
        "_read_on",
        "_transport",
        "_untaken_nbytes",
        "_writes",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        writes: WriteSet,
        may_write: Callable[[], bool],
        read_on: Callable[[], None],
    ) -> None:
        super().__init__()
        self._transport = transport
        self._writes = writes
        self._may_write = may_write
        self._read_on = read_on
        self._is_gone = False
        self._is_held = False
        self._untaken_nbytes = 0
        self._library_pauses = False
        self._is_waiting = False
        self._is_unread = False
        self._handle = writes.add(_descriptor(transport), self)

    @property
    def handle(self) -> int:
        """Its number in the compiled set."""
        return self._handle

    @property
    def is_ready(self) -> bool:
        """Whether it takes a frame now."""
        return self._writes.is_ready(self._handle)

    def start(self) -> None:
        """Take frames from now on: the handshake is over."""
        if self._may_write() and not self._transport.is_closing():
            self._writes.start(self._handle)
            # A plain transport is paused above its limit, one that speaks TLS from it on; if it holds bytes, now.
            self._transport.set_write_buffer_limits(high=1 if _is_tls(self._transport) else 0, low=0)

    def stop(self) -> None:
        """Take no frames any more, ever."""
        self._writes.stop(self._handle)

    def hold(self) -> None:
        """Refuse frames until `release`; for `pause_writing`."""
        self._writes.hold(self._handle)
        self._is_held = True

    def release(self) -> None:
        """Take frames again; for `resume_writing`."""
        self._writes.release(self._handle)
        self._is_held, self._untaken_nbytes = False, 0
        self._read_or_not()

    def leave(self) -> None:
        """Forget the socket; for `connection_lost`."""
        self._is_gone = True
        self._writes.remove(self._handle)
        self._may_write, self._read_on = _never, _nothing  # these refer to the connection, which refers to its writer

    def write_frame(self, frame: bytes) -> bool:
        """Write one frame to this connection alone.

        Args:
            frame: one or several whole WebSocket frames.

        Returns:
            Whether it was taken.
        """
        taken = self._writes.write_one(frame, self._handle)
        if 0 <= taken < len(frame):
            self.finish(frame, taken)
        return taken >= 0

    def finish(self, frame: bytes, taken: int) -> None:
        """Give the transport what the socket has not taken; an error of the socket shows again, there."""
        self._transport.write(memoryview(frame)[taken:])
        self._stop_if_closing()

    def _stop_if_closing(self) -> None:
        if self._transport.is_closing():
            self.stop()

    # What the library sees: the transport, but for writes and ends, after which no frame may follow.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write what the library has to say; if that closes the connection, it is the last."""
        if not self._may_write():
            self.stop()
        if self._transport.is_closing():  # asyncio logs what is written to a socket that is gone
            self.stop()
            return
        self._transport.write(data)
        if self._is_held:
            self._untaken_nbytes += len(data)
            self._read_or_not()
        self._stop_if_closing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write all at once."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """End the stream."""
        self.stop()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection when everything is written."""
        self.stop()
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self.stop()
        if not self._is_gone:  # asyncio's own transport can't be aborted once it has drained and closed
            self._transport.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Change nothing: see the class."""

    def can_write_eof(self) -> bool:
        """Whether the stream can end in one direction."""
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        """Whether the connection is closing or closed."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the transport holds."""
        return self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, low and high."""
        return self._transport.get_write_buffer_limits()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of the connection."""
        return self._transport.get_extra_info(name, default)

    def is_reading(self) -> bool:
        """Whether the transport reads."""
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._library_pauses = True
        self._read_or_not()

    def resume_reading(self) -> None:
        """Read again, unless there are other reasons not to."""
        self._library_pauses = False
        self._read_or_not()
        self._read_on()

    def wait(self, *, is_waiting: bool) -> None:
        """Have the transport read nothing as long as so much waits to be parsed."""
        self._is_waiting = is_waiting
        self._read_or_not()

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be parsed now: the library has enough, or the client does not take its answers."""
        return self._library_pauses or self._untaken_nbytes > UNTAKEN_NBYTES

    def _read_or_not(self) -> None:
        is_unread = self._is_waiting or self.is_full
        if is_unread != self._is_unread and not self._transport.is_closing():
            self._is_unread = is_unread
            (self._transport.pause_reading if is_unread else self._transport.resume_reading)()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._transport.get_protocol()


class Audience:
    """Connections that get the same frames. One that is gone gets nothing, and has to be discarded."""

    def __init__(self, writers: Iterable[Writer] = ()) -> None:
        self.handles = array("q")
        self._writers: list[Writer] = []
        self._positions: dict[Writer, int] = {}
        for writer in writers:
            self.add(writer)

    def __len__(self) -> int:
        return len(self._writers)

    def __iter__(self) -> Iterator[Writer]:
        return iter(self._writers)

    def __contains__(self, writer: Writer) -> bool:
        return writer in self._positions

    def add(self, writer: Writer) -> None:
        """Add a connection; one that is there stays there once."""
        if writer not in self._positions:
            self._positions[writer] = len(self._writers)
            self._writers.append(writer)
            self.handles.append(writer.handle)

    def discard(self, writer: Writer) -> None:
        """Remove a connection, if it is there. The last one takes its place."""
        position = self._positions.pop(writer, None)
        if position is None:
            return
        last, handle = self._writers.pop(), self.handles.pop()
        if last is not writer:
            self._writers[position] = last
            self.handles[position] = handle
            self._positions[last] = position


class Broadcaster:
    """All connections of a server, and the way to write one frame to many of them.

    Args:
        on_fault: told of a transport that could not be written to; its connection was broken off.
    """

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self._writes = WriteSet()
        self._on_fault = on_fault

    def __len__(self) -> int:
        return len(self._writes)

    @property
    def writes(self) -> int:
        """How often frames were written to a connection so far."""
        return self._writes.writes

    @property
    def nbytes(self) -> int:
        """How many bytes these had."""
        return self._writes.nbytes

    def join(
        self, transport: asyncio.Transport, may_write: Callable[[], bool], read_on: Callable[[], None] = lambda: None
    ) -> Writer:
        """Return a new connection's writer, not yet started.

        Args:
            transport: the loop's own, in `connection_made`.
            may_write: whether data frames may be written still; asked whenever the library writes, as it does before
                it closes.
            read_on: called when the library has room again for what was received.
        """
        return Writer(transport, self._writes, may_write, read_on)

    def write(self, frame: bytes, audience: Audience) -> list[Writer]:
        """Write one frame to all of an audience.

        Args:
            frame: one or several whole WebSocket frames, the same for all.
            audience: those who get it; those that are not started, or closing, are passed over.

        Returns:
            Those who refused it, since they still have something to get rid of.
        """
        refused: list[Writer] = []
        for writer, taken in self._writes.write(frame, audience.handles):
            if taken == REFUSED:
                refused.append(writer)
            else:
                try:
                    writer.finish(frame, taken)
                except Exception as error:
                    self._on_fault(error)
                    writer.abort()
        return refused


def _never() -> bool:
    return False


def _nothing() -> None:
    pass


def _is_tls(transport: asyncio.Transport) -> bool:
    return transport.get_extra_info("sslcontext") is not None


def _descriptor(transport: asyncio.Transport) -> int:
    """Return the descriptor of the transport's socket, or -1 if it can't be written to directly."""
    sock = transport.get_extra_info("socket")
    if sock is None or _is_tls(transport):
        return -1
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError):  # not a TCP socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_NBYTES)
    return int(sock.fileno())
