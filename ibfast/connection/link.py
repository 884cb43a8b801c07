"""One connection to a gateway, from the first packet to the last; what goes wrong gets a stage and a remedy.

The rule of the file: a link is opened once and closed once. It knows one session; what is asked of the gateway, and
whether there is another link after this one, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from ibfast.config.sections import Config
from ibfast.config.tls import explain
from ibfast.connection.protocol import NOT_ENABLED, Protocol, State
from ibfast.connection.transport import NO_DESCRIPTORS, Connection, open_connection
from ibfast.errors import ConfigError, ConnectError, NotConnectedError

__all__ = ["Link"]


class Link:
    """A connection and its session.

    Args:
        config: host, time limit, TLS.
        port: of the gateway, which may have moved since it was configured.
        protocol: a new session.
        on_change: called after every read that may have changed the session or left messages in it.
        on_read: see `Connection`.
    """

    def __init__(
        self,
        config: Config,
        port: int,
        protocol: Protocol,
        on_change: Callable[[], None],
        on_read: Callable[[int, int], None],
    ) -> None:
        self.protocol = protocol
        self._config = config
        self._port = port
        self._on_change = on_change
        self._on_read = on_read
        self._changed = asyncio.Event()
        self._connection: Connection | None = None

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done when the socket is gone; only after `open`."""
        assert self._connection is not None
        return self._connection.closed

    @property
    def ready(self) -> bool:
        """Whether requests can be sent."""
        return self.protocol.state is State.READY

    async def open(self) -> None:
        """Connect and wait until the session is ready, for `config.connect_timeout_s` at most.

        Raises:
            ConnectError: it came to nothing; close the link.
        """
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await self._start()
        except TimeoutError:
            if not self.ready:
                raise self._timeout_error() from None

    async def _start(self) -> None:
        host, port = self._config.host, self._port
        try:
            self._connection = await open_connection(
                host, port, self.protocol, self._notice, self._config.tls, self._on_read
            )
        except ConfigError as error:  # a certificate's file is gone: it may come back
            raise ConnectError("tls", str(error), "put the file back, or change the setting") from None
        except ssl.SSLError as error:
            raise explain(error) from None
        except ConnectionRefusedError:
            remedy = "start TWS or IB Gateway and log in, and check host and port"
            raise ConnectError("tcp", f"nothing listens at {host}:{port}", remedy) from None
        except (OSError, ValueError) as error:  # ValueError: what can't be a host's name at all
            if isinstance(error, OSError) and error.errno in NO_DESCRIPTORS:
                remedy = "close files and sockets, or raise the limit of open files (ulimit -n)"
                raise ConnectError("system", f"this machine has no socket left: {error}", remedy) from None
            if self._config.tls is not None and isinstance(error, ConnectionError):
                raise explain(error) from None
            raise ConnectError(
                "tcp", f"{host}:{port} can't be reached: {error}", "check host and port, and the network"
            ) from None
        while self.protocol.state not in (State.READY, State.CLOSED):
            self._changed.clear()
            await self._changed.wait()
        if self.protocol.state is State.CLOSED:
            failure = self.protocol.error or NotConnectedError("disconnect was called meanwhile")
            if isinstance(failure, ConnectError):
                raise failure
            raise ConnectError("start", str(failure), "connect again")

    def _timeout_error(self) -> ConnectError:
        seconds = f"within {self._config.connect_timeout_s:g} s"
        if self._connection is None:
            tls = ", and that TLS is spoken there" if self._config.tls is not None else ""
            return ConnectError("tcp", f"no connection {seconds}", f"check host, port and firewall{tls}")
        if self.protocol.server_version == 0:
            return ConnectError(
                "handshake", f"no reply {seconds}", f"{NOT_ENABLED}; or it hangs: restart it", needs_login=True
            )
        if self.protocol.start_error is not None:
            return ConnectError("start", f"no session {seconds}: {self.protocol.start_error}", "restart the gateway")
        return ConnectError(
            "start",
            f"nextValidId and managedAccounts did not come {seconds}",
            "is the login complete?",
            needs_login=True,
        )

    def _notice(self) -> None:
        self._changed.set()
        self._on_change()

    def flush(self) -> None:
        """Write what the session has to say."""
        if self._connection is not None:
            self._connection.flush()

    def reset(self) -> None:
        """Give the connection up: nothing that was sent may arrive later; `close` may follow."""
        if self._connection is not None:
            self._connection.reset()

    def close(self) -> asyncio.Future[None] | None:
        """End the session and the connection at once.

        Returns:
            What is done when the socket is gone, None if there is none or its event loop is closed.
        """
        self.protocol.close()
        connection, self._connection = self._connection, None
        if connection is None:
            return None
        connection.abort()
        return None if connection.closed.get_loop().is_closed() else connection.closed
