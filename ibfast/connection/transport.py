"""The socket: reads into the decoder's own buffer, one clock read per socket read, writes what the protocol has to say.

The rule of the file: transport only, no parsing and no policy. It knows asyncio and a Protocol, and two callbacks.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, Final, cast

from ibfast.config.tls import TlsConfig, explain
from ibfast.connection.protocol import Protocol, State

__all__ = ["NO_DESCRIPTORS", "Connection", "open_connection"]

# struct linger: on, 0 seconds. A socket that is closed then sends a reset instead of what is left.
NO_LINGERING = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
# For the farewell of TLS; whoever does not answer it is gone.
TLS_SHUTDOWN_TIMEOUT_S = 1.0
# How long one address of a host may be silent before the next is tried beside it: RFC 8305, section 5.
NEXT_ADDRESS_S: Final = 0.25
# This process, or this machine, has no more descriptors.
NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)


def _ignore(decode_ns: int, messages: int) -> None:
    pass


class Connection(asyncio.BufferedProtocol):
    """One TCP connection to a gateway.

    Args:
        protocol: the session.
        on_change: called after everything that may have changed the protocol's state or left events in it.
        on_read: told of every read how long decoding, publishing and waking took, in ns, and how many messages it held.
        sock: closed by `abort` and `reset` where the event loop is closed.

    Attributes:
        closed: done when the socket is gone.
    """

    def __init__(
        self,
        protocol: Protocol,
        on_change: Callable[[], None],
        on_read: Callable[[int, int], None] = _ignore,
        sock: socket.socket | None = None,
    ) -> None:
        self.protocol = protocol
        self.on_change = on_change
        self.on_read = on_read
        self.transport: asyncio.Transport | None = None
        self._sock = sock
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and say hello."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room in the decoder's own memory."""
        return self.protocol.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Decode what was read, and have every error message handled before the records that came after it."""
        recv_ns = time.time_ns()
        self._decode(nbytes, recv_ns)
        while self.protocol.paused and self.transport is not None and not self.transport.is_closing():
            self._decode(0, recv_ns)

    def _decode(self, nbytes: int, recv_ns: int) -> None:
        started_ns = time.perf_counter_ns()
        messages = self.protocol.buffer_updated(nbytes, recv_ns)
        decode_ns = time.perf_counter_ns() - started_ns
        self.protocol.decode_ns += decode_ns
        self.on_read(decode_ns, messages)
        self.flush()
        self.on_change()

    def eof_received(self) -> bool:
        """The gateway has closed; so do we."""
        self.protocol.receive_eof()
        self.on_change()  # now: `connection_lost` waits for what is still to be written, and nobody may read it
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, for whatever reason."""
        if isinstance(exc, ssl.SSLError) and self.protocol.state is not State.READY:
            # A TLS 1.3 proxy judges the client's certificate when the handshake is over on this side.
            self.protocol.error = self.protocol.error or explain(exc)
        self.protocol.receive_eof()
        if not self.closed.done():
            self.closed.set_result(None)
        self.on_change()

    def flush(self) -> None:
        """Write what the protocol has to say."""
        data = self.protocol.data_to_send()
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Close at once; what was not written to the socket yet is not sent any more."""
        if self.closed.get_loop().is_closed():
            if self._sock is not None:
                self._sock.close()  # its transport can do nothing without a loop
        elif self.transport is not None:
            self.transport.abort()

    def reset(self) -> None:
        """Close at once and have the system forget what it holds: a request must not arrive when nobody expects it."""
        if self.transport is not None and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGERING)
        self.abort()


async def open_connection(
    host: str,
    port: int,
    protocol: Protocol,
    on_change: Callable[[], None],
    tls: TlsConfig | None = None,
    on_read: Callable[[int, int], None] = _ignore,
) -> Connection:
    """Connect and say hello, over TLS if its settings are given.

    The addresses of a host are tried in the resolver's order, its families by turns. Each attempt begins a quarter of a
    second after the one before it, or as soon as that one fails.

    Raises:
        OSError: there is nobody, or no TLS: see `ibfast.config.tls.explain`.
        ConfigError: a file that `tls` names can't be used.
    """
    options: dict[str, Any] = {}
    if tls is not None:
        options["ssl"] = tls.context()
        options["server_hostname"] = tls.server_name or host
        options["ssl_shutdown_timeout"] = TLS_SHUTDOWN_TIMEOUT_S
    sock = await _connected_socket(host, port)
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(
            lambda: Connection(protocol, on_change, on_read, sock), sock=sock, **options
        )
    finally:
        # uvloop's transport owns the descriptor, and forgets the object if the gateway has left already.
        if not isinstance(loop, asyncio.BaseEventLoop):
            sock.detach()
    return connection


async def _connected_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to one of a host's addresses.

    Here and not by `create_connection`, whose `happy_eyeballs_delay` uvloop does not have.
    """
    loop = asyncio.get_running_loop()
    found = _numeric(host, port) or await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _by_turns(found)
    attempts: list[asyncio.Task[socket.socket]] = []
    failures: list[BaseException] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        pending: set[asyncio.Task[socket.socket]] = set()
        while addresses or pending:
            if addresses:
                family, _, proto, _, address = addresses.popleft()
                attempts.append(loop.create_task(_socket_to(family, proto, address)))
                pending.add(attempts[-1])
            done, pending = await asyncio.wait(
                pending, timeout=NEXT_ADDRESS_S if addresses else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((attempt for attempt in done if attempt.exception() is None), None)
            if winner is not None:
                return winner.result()
            failures += [error for attempt in done if (error := attempt.exception()) is not None]
    finally:
        for attempt in attempts:
            if attempt is not winner:
                attempt.cancel()
                attempt.add_done_callback(_discard)
    raise _one_of(failures)


async def _socket_to(family: int, proto: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, proto)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that nobody needs."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _numeric(host: str, port: int) -> list[Any]:
    """Return the address that a host's numeric name stands for, none for another name: no resolver is asked."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []


def _by_turns(addresses: list[Any]) -> deque[Any]:
    """Return addresses with their families by turns, the first one's first: a family that is mute costs one delay."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return deque(address for pair in zip_longest(first, others) for address in pair if address is not None)


def _one_of(failures: list[BaseException]) -> BaseException:
    """Return the failure that tells most: one that no address can help, else the first, or all if they differ."""
    for failure in failures:
        if isinstance(failure, OSError) and failure.errno in NO_DESCRIPTORS:
            return failure
    if len({type(failure) for failure in failures}) > 1:
        return OSError("; ".join(str(failure) for failure in failures))
    return failures[0] if failures else OSError("the name has no address")
