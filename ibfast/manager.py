"""The connection manager: connects, asks, subscribes. What most programs use of ibfast.

The rule of the file: it owns what is under way (the session, the lines) and the only way out to the socket; answers are
`questions`' business, states `protocol`'s, rows the feed's.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibfast.config import Config
from ibfast.connection import Connection, open_connection
from ibfast.contracts import Contract
from ibfast.enums import GapCause, MarketDataType, Scope
from ibfast.errors import ConnectError, NotConnectedError, RequestError
from ibfast.feed import Feed
from ibfast.protocol import NOT_ENABLED, Protocol, State
from ibfast.questions import Questions, joined_bars
from ibfast.stream import Line, Stream, Wanted, wanted
from ibfast.wire.requests import HistoricalBars, MarketDataTypeRequest, Request
from ibfast.wire.responses import ErrorMessage, Response

__all__ = ["IBKRConnectionManager"]

logger = logging.getLogger("ibfast")

# Messages about a request that goes on (message_codes of the TWS API): data follows, the book is sent anew, or another
# session has the data for a while.
ADVISORY_CODES = frozenset({165, 317, 10090, 10091, 10167, 10197})
# System and warning notices, which never end a request.
NOTICE_CODES = range(2100, 2200)
COMBO = "BAG"
CLOSE_TIMEOUT_S = 2.0


class IBKRConnectionManager(Questions):
    """One login's connection to TWS or IB Gateway, and the feed that it fills.

        async with IBKRConnectionManager(Config(port=7497)) as manager:
            stream = await manager.subscribe("AAPL", "QUOTES")
            async for rows in stream:
                print(rows["bid"], rows["ask"])

    Args:
        config: where and how to connect.
        feed: where market data goes; made with `config.feed_capacity` if None. It outlives every connection.

    Attributes:
        config, feed: as given.
        last_error: why the last `connect` failed or the connection was lost, None if neither.
        protocol: the session: `server_version`, `accounts`, `decoder`, …
    """

    def __init__(self, config: Config | None = None, feed: Feed | None = None) -> None:
        config = config or Config()
        self.feed = feed or Feed(config.feed_capacity)
        self.last_error: Exception | None = None
        super().__init__(config, self._new_protocol(config))
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closing = False
        self._lines: dict[int, Line] = {}
        self._combos: dict[Contract, int] = {}
        self._gap: tuple[int, int] | None = None
        self._quarantined = 0
        self._refusal_told = False
        self._listeners: list[Callable[[Response], None]] = []

    # --- connection ---

    async def connect(self) -> bool:
        """Connect and wait until the session is ready, for `config.connect_timeout_s` at most.

        Returns:
            Whether the session is ready. If not, `last_error` (a ConnectError) says at which stage it failed, why, and
            what can be done.
        """
        async with self._connecting:
            return self.connected or await self._connect()

    async def disconnect(self) -> None:
        """End the session and every stream. Does nothing if there is none."""
        self._closing = True
        await self._hang_up()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectError: as `last_error` after `connect`.
        """
        if not await self.connect():
            assert self.last_error is not None
            raise self.last_error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.disconnect()

    def _new_protocol(self, config: Config) -> Protocol:
        return Protocol(self.feed, config.client_id, zone=config.zone)

    async def _connect(self) -> bool:
        self.feed.claim(self)
        self.last_error = None
        self._quarantined = 0
        self.protocol = self._new_protocol(self.config)
        self._changed = asyncio.Event()
        self._closing = False
        try:
            async with asyncio.timeout(self.config.connect_timeout_s):
                await self._open()
        except TimeoutError:
            if not self.connected:
                self.last_error = self._timeout_error()
        except ConnectError as error:
            self.last_error = error
        except BaseException:
            await self._hang_up()
            raise
        if not self.connected:
            await self._hang_up()
        elif self._gap is not None:
            self._close_gap(*self._gap)
        return self.connected

    async def _open(self) -> None:
        host, port = self.config.host, self.config.port
        try:
            self._connection = await open_connection(host, port, self.protocol, self._on_change)
        except (OSError, ValueError) as error:  # ValueError: what can't be a host's name at all
            if isinstance(error, ConnectionRefusedError):
                remedy = "start TWS or IB Gateway and log in, and check host and port"
                raise ConnectError("tcp", f"nothing listens at {host}:{port}", remedy) from None
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
        seconds = f"within {self.config.connect_timeout_s:g} s"
        if self._connection is None:
            return ConnectError("tcp", f"no connection {seconds}", "check host, port and firewall")
        if self.protocol.state is State.HELLO:
            return ConnectError("handshake", f"no reply {seconds}", NOT_ENABLED)
        return ConnectError(
            "start", f"nextValidId and managedAccounts did not come {seconds}", "is the login complete?"
        )

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        self.protocol.close()
        self._drop_everything(NotConnectedError("the connection was closed"))
        if connection is not None:
            connection.abort()
            await asyncio.wait([connection.closed], timeout=CLOSE_TIMEOUT_S)

    def _drop_everything(self, error: Exception) -> None:
        """Fail what depends on the connection; request ids die with it."""
        self._refuse_all(error)
        for line in self._lines.values():
            for stream in line.streams:
                if self._closing:
                    stream.close()
                else:
                    stream.fail(_another(error))
        self._lines.clear()
        self.feed.forget_requests()
        self.feed.release(self)

    def _on_change(self) -> None:
        """Handle what a read has changed. Called by the connection."""
        self._changed.set()
        for message in self.protocol.events():
            self._handle(message)
        self._tell_quarantine()
        if self.protocol.state is State.CLOSED and self._connection is not None and not self._closing:
            self._lose(self.protocol.error or NotConnectedError("the connection was lost"))

    def _lose(self, error: Exception) -> None:
        """The connection broke while it was in use: say so in every stream and in the feed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if isinstance(error, ConnectError):
            return
        self.last_error = error
        logger.warning("connection lost: %s", error)
        self._gap = self.feed.seq + 1, time.time_ns()
        self._add_gap(*self._gap)
        if not isinstance(error, NotConnectedError):
            error, cause = NotConnectedError(f"the connection was lost: {error}"), error
            error.__cause__ = cause
        self._drop_everything(error)

    def _add_gap(self, first_seq: int, first_ns: int, last_seq: int = 0, last_ns: int = 0) -> None:
        """Record the loss of the connection: open, or with its end when there is a connection again."""
        self.feed.add_gap(
            last_ns or first_ns, Scope.CONNECTION, GapCause.CONNECTION_LOST,
            first_seq=first_seq, last_seq=last_seq, first_ns=first_ns, last_ns=last_ns, recovered=last_ns != 0,
        )  # fmt: skip

    def _close_gap(self, first_seq: int, first_ns: int) -> None:
        self._add_gap(first_seq, first_ns, self.feed.seq, time.time_ns())
        self._gap = None

    # --- messages ---

    def add_listener(self, listener: Callable[[Response], None]) -> None:
        """Have `listener` called with every message that is not tick path (ibfast.wire.responses), in order.

        It is called by the event loop, and what it raises goes to the loop's exception handler.
        """
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[Response], None]) -> None:
        """Take a listener back."""
        self._listeners.remove(listener)

    def _handle(self, message: Response) -> None:
        if isinstance(message, ErrorMessage):
            self._handle_error(message)
        else:
            self._take_answer(message)
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener, message)

    def _tell_quarantine(self) -> None:
        decoder = self.protocol.decoder
        if decoder is not None and decoder.quarantined > self._quarantined:
            self._quarantined = decoder.quarantined
            logger.warning("%d malformed messages so far, see protocol.decoder.take_quarantine()", self._quarantined)
        if self.feed.instruments.refused and not self._refusal_told:
            self._refusal_told = True
            logger.warning("the instrument table is full: make the Feed with more than %d", len(self.feed.instruments))

    def _handle_error(self, message: ErrorMessage) -> None:
        level = logging.INFO if message.code in NOTICE_CODES else logging.WARNING
        logger.log(level, "request %d: %d %s", message.req_id, message.code, message.message)
        if message.code in ADVISORY_CODES or message.code in NOTICE_CODES:
            return
        error = RequestError(message.req_id, message.code, message.message)
        self._refuse(message.req_id, error)
        line = self._lines.pop(message.req_id, None)
        if line is not None:
            for stream in line.streams:
                stream.fail(error)

    # --- requests ---

    def send(self, request: Request) -> None:
        """Send a request that nobody waits for.

        Raises:
            NotConnectedError: there is no session.
            UnsupportedError: the gateway's version has no such request.
        """
        super().send(request)
        if self._connection is not None:
            self._connection.flush()

    def set_market_data_type(self, market_data_type: MarketDataType) -> None:
        """Choose real-time, frozen or delayed level 1 for the subscriptions that follow."""
        self.send(MarketDataTypeRequest(market_data_type))

    # --- subscriptions ---

    async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Stream:
        """Subscribe to market data.

        Args:
            contract: a Contract, a stock's symbol, or a Contract of ibapi or ib_async.
            data_type: a `DataType`: "QUOTES", "TRADES", "TICKS", "GREEKS"; "LAST", "ALL_LAST", "BID_ASK", "MIDPOINT";
                "DEPTH"; "BARS", "UPDATING_BARS".
            options: of the data type, see `ibfast.stream.wanted`.

        Returns:
            A Stream. A refusal by the gateway (no permission, no line left) is raised by its iteration.

        Raises:
            NotConnectedError: there is no session.
            RequestError: there is no such contract.
            ValueError: the contract is ambiguous, or there is no such data type.
        """
        description = Contract.of(contract)
        wanted(description, data_type, **options)  # a wrong name is told before anything is sent
        qualified = description if description.sec_type == COMBO else await self.qualify(description)
        want = wanted(qualified, data_type, **options)
        line = next((line for line in self._lines.values() if line.request == want.request), None)
        if line is not None and not isinstance(want.request, HistoricalBars):
            return self._join(line, qualified, want)
        line = Line(want.request, next(self._req_ids), self._instrument(qualified))
        self.feed.bind(line.req_id, line.instrument)
        stream = self._join(line, qualified, want)
        self._lines[line.req_id] = line
        try:
            if isinstance(want.request, HistoricalBars):
                stream.history = await self._open_with_history(line)
            else:
                self.send(line.opening_request())
        except BaseException:
            self._lines.pop(line.req_id, None)
            raise
        return stream

    def _join(self, line: Line, contract: Contract, want: Wanted) -> Stream:
        stream = Stream(contract, line, getattr(self.feed, want.ring), want, self._release)
        line.streams.append(stream)
        return stream

    async def _open_with_history(self, line: Line) -> NDArray[np.void]:
        """Open updating bars: history comes first, as the answer to a query, and the request stays open."""
        messages = await self._ask_as(line.req_id, line.opening_request(), self._completes_bars, line.cancel_request())
        return joined_bars(messages)

    def _instrument(self, contract: Contract) -> int:
        """The feed's index of a contract: made once, the same across reconnects."""
        label = contract.symbol if contract.sec_type == "STK" else contract.local_symbol or contract.symbol
        if contract.con_id:
            return self.feed.instrument_of(contract.con_id, label)
        if contract not in self._combos:
            self._combos[contract] = self.feed.add_instrument(label)
        return self._combos[contract]

    def _release(self, stream: Stream) -> None:
        """A stream has ended; the line ends with its last one."""
        line = self._lines.get(stream.req_id)
        if line is None or stream not in line.streams:
            return
        line.streams.remove(stream)
        if not line.streams:
            del self._lines[line.req_id]
            if self.connected:
                self.send(line.cancel_request())


def _another(error: Exception) -> Exception:
    """A copy, since every consumer raises its own, and raising changes an exception."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin
