"""The connection of a stream's client: made, kept, made again, and what comes by it handed on.

The rule of the file: it owns the socket and its tasks; what messages mean is the business of `client.protocol`, when to
connect again that of the policy, what becomes of rows and answers that of the owner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeAlias

from ibfast.client.protocol import Answer, Closing, Later, Output, Reply, StreamClient
from ibfast.client.socket import ConnectionClosed, Socket, dial, dialect_of, hang_up, reason_of
from ibfast.client.updates import Arrival, Event, State
from ibfast.config.sections import Config
from ibfast.errors import AuthError, Error, NotConnectedError
from ibfast.policy.reconnect.calendar import MaintenanceCalendar
from ibfast.policy.reconnect.reconnection import Reconnection

__all__ = ["News", "StreamLink"]

logger = logging.getLogger("ibfast")

SILENT_HEARTBEATS: Final = 3
"""So many heartbeats that did not come mean that the connection is dead."""
PAUSE_S: Final = 0.002
MOST_PAUSE_S: Final = 1.0
"""Between two questions, since a server takes only so many a second; the longer the more often it has said so."""
TOO_FAST: Final = "TOO_FAST"
EXPIRED: Final = "EXPIRED"
"""Why a server ends a session: too many questions; the token's time is over, so that it would not have another."""

News: TypeAlias = Arrival | Event | Answer | Reply
"""What is handed on."""


class StreamLink:
    """Keeps a connection for a client.

    Args:
        config: how patiently, and how often.
        client: whose connection it is.
        take: is given what comes.

    Attributes:
        last_error: why the last attempt to connect failed or the connection was lost, None if neither.
        pause_s: between two questions.
    """

    def __init__(self, config: Config, client: StreamClient, take: Callable[[News], None]) -> None:
        self.last_error: Exception | None = None
        self.pause_s = PAUSE_S
        self._config = config
        self._client = client
        self._take = take
        self._policy = _policy_of(config)
        self._wake = asyncio.Event()
        self._repeats: set[asyncio.TimerHandle] = set()

    async def run(self, url: str, token: str | None, started: asyncio.Future[None]) -> None:
        """Keep a connection, until it is given up.

        Args:
            url, token: of the server.
            started: becomes done with the first session, or when there will be none.
        """
        try:
            await self._keep(url, token, started)
        except Exception as error:
            # Nothing can come any more: whoever waits must hear of it, whatever it was.
            self.last_error = error
            logger.exception("the stream's client has failed")
        finally:
            for repeat in self._repeats:
                repeat.cancel()
        if not started.done():
            started.set_exception(self.last_error or NotConnectedError("no connection came about"))

    def proceed(self) -> None:
        """Hand on what came of a call of the client, and send what it wants to say."""
        self._deliver()
        self._wake.set()

    async def _keep(self, url: str, token: str | None, started: asyncio.Future[None]) -> None:
        while self._policy.attempt():
            try:
                await self._session(url, token, started)
            except Error as error:
                self._lost(error)
            delay_s = self._policy.next_attempt_s(time.monotonic())
            if delay_s is None or not started.done():
                return
            self._take(State("", 0, "RECONNECTING", str(self.last_error)))
            await asyncio.sleep(delay_s)

    def _lost(self, error: Error) -> None:
        """Tell the policy that an attempt has failed or a connection was lost."""
        now_s, wall_s = time.monotonic(), time.time()
        self.last_error = error
        logger.warning("there is no stream: %s", error)
        if isinstance(error, AuthError) or not self._config.reconnection.enabled:
            self._policy.stop()
        elif not self._policy.lost(now_s, wall_s):
            self._policy.failed(now_s, wall_s)

    async def _session(self, url: str, token: str | None, started: asyncio.Future[None]) -> NoReturn:
        """Have one session, from the attempt to connect to its end, which is always an Error."""
        config = self._config
        socket = await dial(url, token, self._client.dialect, config.tls, config.connect_timeout_s)
        self._client.connected(dialect_of(socket))
        sender = asyncio.create_task(self._send(socket))
        try:
            await self._listen(socket, started)
        except ConnectionClosed as closed:
            raise reason_of(closed) from None
        finally:
            sender.cancel()
            self._client.disconnected()
            try:
                self._deliver()
                await asyncio.gather(sender, return_exceptions=True)
            finally:
                await hang_up(socket)

    async def _listen(self, socket: Socket, started: asyncio.Future[None]) -> NoReturn:
        client, patience_s = self._client, self._config.connect_timeout_s
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    message = await socket.recv()
            except TimeoutError:
                raise NotConnectedError(f"the stream server was silent for {patience_s:g} s") from None
            was_welcome = client.is_welcome
            self._deliver(client.receive(message))
            if client.is_welcome and not was_welcome:
                self._welcomed(started)
                patience_s = SILENT_HEARTBEATS * client.heartbeat_s
            if isinstance(message, str):
                self._wake.set()  # an answer makes room for another question

    def _welcomed(self, started: asyncio.Future[None]) -> None:
        self._policy.connected(time.monotonic())
        self.last_error = None
        self._take(State("", 0, "CONNECTED"))
        if not started.done():
            started.set_result(None)

    async def _send(self, socket: Socket) -> None:
        """Send what is asked for. On its own, so that a server that does not read is read all the same."""
        while True:
            for message in self._client.take_messages():
                await socket.send(message)
                await asyncio.sleep(self.pause_s)
            self._deliver()
            await self._wake.wait()
            self._wake.clear()

    def _deliver(self, output: Iterable[Output] | None = None) -> None:
        """Hand on what came of a message, or of a call."""
        closing = None
        for item in self._client.take_output() if output is None else output:
            match item:
                case Closing():
                    closing = item
                case Later():
                    self._repeat(item)
                case _:
                    self._take(item)
        if closing is not None:
            if closing.code == TOO_FAST:
                self.pause_s = min(2 * self.pause_s, MOST_PAUSE_S)
            if closing.code == EXPIRED:
                raise AuthError("stream_token", "the token's time is over", "ask the server's owner for a new one")
            raise NotConnectedError(f"the stream server has ended the session: {closing.code}: {closing.message}")

    def _repeat(self, later: Later) -> None:
        """Have a request asked again, when it is time."""

        def ask() -> None:
            self._repeats.discard(timer)
            self._client.repeat(later)
            self.proceed()

        timer = asyncio.get_running_loop().call_later(later.after_s, ask)
        self._repeats.add(timer)


def _policy_of(config: Config) -> Reconnection:
    # The planned outages are those of the gateway, not of the server.
    return Reconnection(config.reconnection, calendar=MaintenanceCalendar())
