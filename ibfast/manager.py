"""The connection manager: connects, asks, subscribes. What most programs use of ibfast.

The rule of the file: it owns what is under way (the session, queries, lines) and the only way out to the socket;
values on the wire are `wire`'s business, states `protocol`'s, rows the feed's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ibfast.config import Config
from ibfast.connection import Connection, open_connection
from ibfast.contracts import Contract, ContractDetails
from ibfast.enums import GapCause, GapScope, MarketDataType, ServerVersion
from ibfast.errors import ConnectError, NotConnectedError, RequestError
from ibfast.feed import Feed
from ibfast.history import HISTORICAL_BAR
from ibfast.protocol import NOT_ENABLED, Protocol, State
from ibfast.stream import Line, Stream, wanted
from ibfast.wire import responses
from ibfast.wire.requests import (
    CancelContractDetails,
    CancelHeadTimestamp,
    CancelHistoricalBars,
    CancelHistoricalTicks,
    ContractDetailsRequest,
    CurrentTimeInMillisRequest,
    CurrentTimeRequest,
    HeadTimestamp,
    HistoricalBars,
    HistoricalTicks,
    MarketDataTypeRequest,
    MatchingSymbols,
    Request,
)
from ibfast.wire.responses import ErrorMessage, Response, SymbolSample

__all__ = ["IBKRConnectionManager"]

logger = logging.getLogger("ibfast")

# Messages about a request that goes on (message_codes of the TWS API): data follows, or the book is sent anew.
ADVISORY_CODES = frozenset({165, 317, 2152, 10090, 10091, 10167})
# System and warning notices, which never end a request.
NOTICE_CODES = range(2100, 2200)
COMBO = "BAG"
CLOSE_TIMEOUT_S = 2.0

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Query:
    """A question whose answer may come in several messages; `complete` tells the last one."""

    complete: Callable[[Response], bool]
    answer: asyncio.Future[list[Any]]
    parts: list[Any] = field(default_factory=list)

    def add(self, message: Response) -> None:
        self.parts.append(message)
        if self.complete(message) and not self.answer.done():
            self.answer.set_result(self.parts)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class IBKRConnectionManager:
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
        self.config = config or Config()
        self.feed = feed or Feed(self.config.feed_capacity)
        self.last_error: Exception | None = None
        self.protocol = self._new_protocol()
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closing = False
        self._req_ids = itertools.count(1)
        self._queries: dict[int, _Query] = {}
        self._clock_queries: list[_Query] = []
        self._lines: dict[int, Line] = {}
        self._instruments: dict[Contract, int] = {}
        self._qualified: dict[Contract, Contract] = {}
        self._listeners: list[Callable[[Response], None]] = []

    # --- connection ---

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self.protocol.state is State.READY

    @property
    def decode_ns(self) -> int:
        """Time that decoding and publishing have taken on the current connection, ns."""
        return self._connection.decode_ns if self._connection is not None else 0

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

    def _new_protocol(self) -> Protocol:
        return Protocol(self.feed, self.config.client_id, zone=self.config.zone)

    async def _connect(self) -> bool:
        self.last_error = None
        self.protocol = self._new_protocol()
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
        finally:
            if not self.connected:
                await self._hang_up()
        return self.connected

    async def _open(self) -> None:
        host, port = self.config.host, self.config.port
        try:
            self._connection = await open_connection(host, port, self.protocol, self._on_change)
        except (OSError, ValueError) as error:  # ValueError: what can't be a host's name at all
            reason = f"nothing listens at {host}:{port}" if isinstance(error, ConnectionRefusedError) else str(error)
            remedy = "start TWS or IB Gateway and log in, and check host and port"
            raise ConnectError("tcp", reason, remedy) from None
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
        if connection is not None:
            connection.abort()
            await asyncio.wait([connection.closed], timeout=CLOSE_TIMEOUT_S)
        self._drop_everything(NotConnectedError("the connection was closed"))

    def _drop_everything(self, error: Exception) -> None:
        """Fail what depends on the connection; request ids die with it."""
        for query in [*self._queries.values(), *self._clock_queries]:
            query.fail(error)
        self._queries.clear()
        self._clock_queries.clear()
        for line in self._lines.values():
            for stream in line.streams:
                if self._closing:
                    stream.close()
                else:
                    stream.fail(error)
        self._lines.clear()
        self.feed.forget_requests()

    def _on_change(self) -> None:
        """Handle what a read has changed. Called by the connection."""
        self._changed.set()
        for message in self.protocol.events():
            self._handle(message)
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
        now_ns = time.time_ns()
        self.feed.add_gap(
            now_ns, GapScope.CONNECTION, GapCause.CONNECTION_LOST, first_seq=self.feed.seq + 1, first_ns=now_ns
        )
        if not isinstance(error, NotConnectedError):
            error, cause = NotConnectedError(f"the connection was lost: {error}"), error
            error.__cause__ = cause
        self._drop_everything(error)

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
        elif isinstance(message, responses.CurrentTime | responses.CurrentTimeInMillis):
            for query in self._clock_queries:
                query.add(message)
        else:
            waiting = self._queries.get(getattr(message, "req_id", -1))
            if waiting is not None:
                waiting.add(message)
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener, message)

    def _handle_error(self, message: ErrorMessage) -> None:
        level = logging.INFO if message.code in NOTICE_CODES else logging.WARNING
        logger.log(level, "request %d: %d %s", message.req_id, message.code, message.message)
        if message.code in ADVISORY_CODES or message.code in NOTICE_CODES:
            return
        error = RequestError(message.req_id, message.code, message.message)
        waiting = self._queries.get(message.req_id)
        if waiting is not None:
            waiting.fail(error)
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
        self.protocol.send(request)
        if self._connection is not None:
            self._connection.flush()

    async def _ask(
        self,
        make: Callable[[int], Request],
        complete: Callable[[Response], bool],
        cancel: Callable[[int], Request] | None = None,
    ) -> list[Any]:
        """Send a request and return the messages that answer it, up to the one that completes the answer."""
        req_id = next(self._req_ids)
        return await self._ask_as(req_id, make(req_id), complete, None if cancel is None else cancel(req_id))

    async def _ask_as(
        self, req_id: int, request: Request, complete: Callable[[Response], bool], cancel: Request | None
    ) -> list[Any]:
        query = _Query(complete, asyncio.get_running_loop().create_future())
        self.send(request)
        self._queries[req_id] = query
        try:
            return await self._answer(query)
        except (TimeoutError, asyncio.CancelledError):
            if cancel is not None and self.connected:
                self.send(cancel)
            raise
        finally:
            self._queries.pop(req_id, None)

    async def _answer(self, query: _Query) -> list[Any]:
        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that comes together with the answer.
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                return await query.answer
        except TimeoutError:
            raise TimeoutError(f"the gateway did not answer within {self.config.request_timeout_s:g} s") from None

    async def contract_details(self, contract: object) -> list[ContractDetails]:
        """Return all contracts that match a description.

        Args:
            contract: a Contract, a stock's symbol, or a Contract of ibapi or ib_async.

        Raises:
            RequestError: code 200, there is none.
        """
        description = Contract.of(contract)
        can_cancel = self.protocol.server_version >= ServerVersion.CANCEL_CONTRACT_DATA
        messages = await self._ask(
            lambda req_id: ContractDetailsRequest(req_id, description),
            lambda message: isinstance(message, responses.ContractDataEnd),
            CancelContractDetails if can_cancel else None,
        )
        return [message.details for message in messages if isinstance(message, responses.ContractData)]

    async def qualify(self, contract: object) -> Contract:
        """Return the one contract that a description means, with its con_id and all else that the gateway knows.

        Args:
            contract: a Contract, a stock's symbol, or a Contract of ibapi or ib_async.

        Raises:
            RequestError: code 200, there is none.
            ValueError: several contracts match; the text lists them.
        """
        description = Contract.of(contract)
        if description in self._qualified:
            return self._qualified[description]
        details = await self.contract_details(description)
        matches = [item.contract for item in details]
        if len(matches) != 1:
            names = ", ".join(f"{c.local_symbol} {c.primary_exchange or c.exchange} {c.con_id}" for c in matches[:20])
            raise ValueError(f"{description} is ambiguous, add fields: {len(matches)} contracts match: {names}")
        # The exchange stays the user's choice: the gateway answers per listing, and "SMART" is a route, not a listing.
        qualified = replace(matches[0], exchange=description.exchange or matches[0].exchange)
        self._qualified[description] = qualified
        return qualified

    async def matching_symbols(self, pattern: str) -> list[SymbolSample]:
        """Return stocks whose symbol or company name matches."""
        (message,) = await self._ask(
            lambda req_id: MatchingSymbols(req_id, pattern),
            lambda message: isinstance(message, responses.SymbolSamples),
        )
        return list(message.samples)

    async def head_timestamp(self, contract: object, what_to_show: str = "TRADES", use_rth: bool = True) -> str:
        """Return the time of the earliest historical data, in the gateway's notation (epoch seconds)."""
        qualified = await self.qualify(contract)
        (message,) = await self._ask(
            lambda req_id: HeadTimestamp(req_id, qualified, what_to_show, use_rth, format_date=2),
            lambda message: isinstance(message, responses.HeadTimestamp),
            CancelHeadTimestamp,
        )
        return str(message.timestamp)

    async def historical_bars(
        self,
        contract: object,
        duration: str = "1 D",
        bar_size: str = "1 min",
        what_to_show: str = "TRADES",
        use_rth: bool = True,
        end: str = "",
    ) -> NDArray[np.void]:
        """Return historical bars.

        Args:
            contract: what.
            duration: IB's notation, "1 D", "2 W", "3600 S".
            bar_size: IB's notation, "1 min", "5 secs", "1 day".
            what_to_show: "TRADES", "MIDPOINT", "BID_ASK", …
            use_rth: regular trading hours only.
            end: yyyymmdd-hh:mm:ss in UTC; "" is now.

        Returns:
            A structured array of dtype `ibfast.history.HISTORICAL_BAR`.
        """
        qualified = await self.qualify(contract)
        return await self._bars(HistoricalBars(0, qualified, end, duration, bar_size, what_to_show, use_rth))

    async def _bars(self, request: HistoricalBars) -> NDArray[np.void]:
        messages = await self._ask(
            lambda req_id: replace(request, req_id=req_id), self._completes_bars, CancelHistoricalBars
        )
        return _joined_bars(messages)

    def _completes_bars(self, message: Response) -> bool:
        """From server version 196 on an end marker of its own closes the bars, which may come in several messages."""
        if self.protocol.server_version >= ServerVersion.HISTORICAL_DATA_END:
            return isinstance(message, responses.HistoricalDataEnd)
        return isinstance(message, responses.HistoricalData)

    async def historical_ticks(
        self,
        contract: object,
        what_to_show: str = "TRADES",
        start: str = "",
        end: str = "",
        number_of_ticks: int = 1000,
        use_rth: bool = True,
        ignore_size: bool = False,
    ) -> NDArray[np.void]:
        """Return historical ticks, 1,000 at most; give `start` or `end` (yyyymmdd-hh:mm:ss, UTC), not both.

        Args:
            what_to_show: "TRADES", "BID_ASK" or "MIDPOINT".

        Returns:
            A structured array of the dtype HISTORICAL_TICK_LAST, …_BID_ASK or …_MIDPOINT of `ibfast.history`.
        """
        qualified = await self.qualify(contract)
        messages = await self._ask(
            lambda req_id: HistoricalTicks(
                req_id, qualified, start, end, number_of_ticks, what_to_show, use_rth, ignore_size
            ),
            lambda message: isinstance(message, responses.HistoricalTicks) and message.done,
            CancelHistoricalTicks if self.protocol.server_version >= ServerVersion.CANCEL_CONTRACT_DATA else None,
        )
        return np.concatenate([message.ticks for message in messages])

    async def current_time_ns(self) -> int:
        """Return the gateway's clock, ns UTC: to the millisecond from server version 197 on, else to the second."""
        in_millis = self.protocol.server_version >= ServerVersion.CURRENT_TIME_IN_MILLIS
        query = _Query(lambda message: True, asyncio.get_running_loop().create_future())
        self.send(CurrentTimeInMillisRequest() if in_millis else CurrentTimeRequest())
        self._clock_queries.append(query)
        try:
            (message, *_) = await self._answer(query)
        finally:
            if query in self._clock_queries:
                self._clock_queries.remove(query)
        if isinstance(message, responses.CurrentTimeInMillis):
            return message.time_ms * 1_000_000
        return int(message.time_s) * 1_000_000_000

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

    def _join(self, line: Line, contract: Contract, want: Any) -> Stream:
        stream = Stream(contract, line, getattr(self.feed, want.ring), want, self._release)
        line.streams.append(stream)
        return stream

    async def _open_with_history(self, line: Line) -> NDArray[np.void]:
        """Open updating bars: history comes first, as the answer to a query, and the request stays open."""
        messages = await self._ask_as(line.req_id, line.opening_request(), self._completes_bars, line.cancel_request())
        return _joined_bars(messages)

    def _instrument(self, contract: Contract) -> int:
        """The feed's index of a contract: made once, the same across reconnects."""
        key = replace(contract, exchange="") if contract.con_id else contract
        if key not in self._instruments:
            label = contract.symbol if contract.sec_type == "STK" else contract.local_symbol or contract.symbol
            self._instruments[key] = self.feed.add_instrument(label, contract.con_id)
        return self._instruments[key]

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


def _joined_bars(messages: list[Any]) -> NDArray[np.void]:
    parts = [message.bars for message in messages if isinstance(message, responses.HistoricalData)]
    return np.concatenate([np.empty(0, HISTORICAL_BAR), *parts])
