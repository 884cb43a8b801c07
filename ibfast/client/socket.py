"""The socket of a stream's client: how it is opened, and what it means when it can't be.

The rule of the file: all that is known of the WebSocket library stands here; every failure leaves as one of our errors,
with the remedy, and the token in none of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from ibfast.common.logs import wire_logger
from ibfast.config.tls import TlsConfig
from ibfast.errors import AuthError, ConnectError, Error, NotConnectedError

__all__ = ["ConnectionClosed", "Socket", "dial", "dialect_of", "hang_up", "reason_of"]

Socket: TypeAlias = ClientConnection

logger = logging.getLogger("ibfast")
_wire_logger = wire_logger("ibfast.stream_socket")

DEFAULT_PATH: Final = "/stream"
MOST_MESSAGE_BYTES: Final = 1 << 26
CLOSE_S: Final = 2.0
SUBPROTOCOL: Final = "ibfast.v1."

UNAUTHORIZED: Final = 401
REMEDIES: Final = {
    403: "ask the server's owner to allow this client",
    404: "check the path of stream_url: a stream server has /stream",
    503: "try again when others have left, or ask the server's owner for higher caps",
}
UNREACHABLE: Final = "check stream_url, and that the server runs"
NO_SERVER: Final = "check the port of stream_url: what listens there is no stream server"


class _Connect(connect):
    """Opens a WebSocket, and follows nobody elsewhere: the token is for one server."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def dial(url: str, token: str | None, dialect: str, tls: TlsConfig | None, timeout_s: float) -> Socket:
    """Open a connection to a stream server.

    Args:
        url: "ws://host:port/stream" or "wss://…".
        token: that the server wants, None: none.
        dialect: "binary": or JSON, if the server has no other; "json".
        tls: for wss; the system's authorities if None.
        timeout_s: for all of it.

    Raises:
        AuthError: the server refuses the token, or wants one: no other attempt can succeed.
        ConnectError: there is no stream server, or it refuses; says at which stage, why, and the remedy.
        ConfigError: a file of `tls` can't be read.
    """
    parts = urlsplit(url)
    options: dict[str, Any] = {"ssl": (tls or TlsConfig()).context()} if parts.scheme == "wss" else {}
    if tls is not None and tls.server_name is not None and parts.scheme == "wss":
        options["server_hostname"] = tls.server_name
    if _is_loopback(parts):
        options["proxy"] = None
    elif token is not None and parts.scheme == "ws":
        logger.warning("the token for %s travels unencrypted: use wss", parts.hostname)
    if token is not None:
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    try:
        async with asyncio.timeout(timeout_s):
            socket = await _Connect(
                parts._replace(path=parts.path or DEFAULT_PATH).geturl(),
                subprotocols=[Subprotocol(SUBPROTOCOL + name) for name in dict.fromkeys((dialect, "json"))],
                compression="deflate" if dialect == "json" else None,
                max_size=MOST_MESSAGE_BYTES,
                open_timeout=None,
                close_timeout=CLOSE_S,
                logger=_wire_logger,
                **options,
            )
    except TimeoutError:
        raise ConnectError("tcp", f"no answer within {timeout_s:g} s", UNREACHABLE) from None
    except (OSError, WebSocketException) as error:
        raise _explained(error, has_token=token is not None) from None
    return socket


async def hang_up(socket: Socket) -> None:
    """Close a connection. If this call is cancelled, it is broken off instead."""
    try:
        await socket.close()
    finally:
        socket.transport.abort()


def dialect_of(socket: Socket) -> str:
    """Return the dialect that was agreed on."""
    return (socket.subprotocol or "json").removeprefix(SUBPROTOCOL)


def reason_of(closed: ConnectionClosed) -> Error:
    """Return what the end of a connection means."""
    frame = closed.rcvd
    if frame is None:
        return NotConnectedError("the connection with the stream server was lost")
    return NotConnectedError(f"the stream server has closed the connection: {frame.code} {frame.reason}".rstrip())


def _explained(error: OSError | WebSocketException, *, has_token: bool) -> ConnectError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status == UNAUTHORIZED:
            why = "the server does not accept the token" if has_token else "the server wants a token"
            return AuthError("stream_token", why, "set stream_token to one that the server's owner has made")
        return ConnectError("handshake", f"the server answers with status {status}", REMEDIES.get(status, NO_SERVER))
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "check the server's certificate, or set tls.ca_file to its authority's"
        return ConnectError("tls", f"the server's certificate is not accepted: {error.verify_message}", remedy)
    if isinstance(error, ssl.SSLError):
        return ConnectError("tls", f"TLS failed: {error.reason}", "check whether the server has TLS: ws:// or wss://")
    if isinstance(error, OSError):
        return ConnectError("tcp", f"the server can't be reached: {error.strerror or error}", UNREACHABLE)
    return ConnectError("handshake", f"no WebSocket came about: {error}", NO_SERVER)


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
