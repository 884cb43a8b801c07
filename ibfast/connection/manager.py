"""The connection manager: connects, asks, subscribes, and keeps it so. What most programs use of ibfast.

The rule of the file: it puts the parts together and owns them; what to do and when is decided by the policies, and
`supervisor` carries it out. Answers are `queries`' business, rows the feed's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibfast.common.log_rate import LogRate
from ibfast.common.scalars import whole
from ibfast.config.sections import Config
from ibfast.connection.bar_history import BarHistory
from ibfast.connection.monitor import ConnectionMonitor, Health
from ibfast.connection.owner import Membership
from ibfast.connection.protocol import Arrival, Protocol
from ibfast.connection.queries import Questions
from ibfast.connection.send_queue import Outbox
from ibfast.connection.stream import Stream, Wanted, wanted
from ibfast.connection.supervisor import Supervisor
from ibfast.contracts import Contract, ContractDetails
from ibfast.errors import NotConnectedError, copy_of
from ibfast.feed.feed import Feed
from ibfast.policy.error_handler import ErrorHandler
from ibfast.policy.pacing.limiter import AccountLimits, RateLimiter, TicketState
from ibfast.policy.session import SessionManager
from ibfast.policy.subscription import Subscription
from ibfast.records import NS_PER_S, Kind
from ibfast.wire.ids import MarketDataType
from ibfast.wire.requests import HistoricalBars
from ibfast.wire.responses import HistoricalData, HistoricalDataEnd, Response, Unreadable

__all__ = ["IBKRConnectionManager", "feed_of", "limits_of"]

logger = logging.getLogger("ibfast")
_log_rate = LogRate()

# Without a list in the configuration, so many client ids after the configured one are tried at a reconnect.
SPARE_CLIENT_IDS = 3


class IBKRConnectionManager(Questions):
    """One login's connection to TWS or IB Gateway, and the feed that it fills.

        async with IBKRConnectionManager(Config(port=7497)) as manager:
            stream = await manager.subscribe("AAPL", "QUOTES")
            async for rows in stream:
                print(rows["bid"], rows["ask"])

    Once connected, it stays so until `disconnect`: a lost connection is made again, and every subscription with it.

    Args:
        config: where and how to connect.
        feed: where market data goes; made as configured if None. It outlives every connection, and several managers of
            one thread may fill the same one.
        errors: what IB's messages mean and who is told; by default IB's table, and failures of callbacks are logged.
        account: limits that are shared with other connections of the same account.

    Attributes:
        config, feed: as given.
        last_error: why the last attempt to connect failed or the connection was lost, None if neither.
        protocol: the session: `server_version`, `accounts`, `decoder`, …
        session: the subscriptions that are wanted, and how each fares.
        errors: callbacks for IB's messages.
        monitor: states, events, metrics.
        membership: what it has to do with other connections that fill the feed.
    """

    def __init__(
        self,
        config: Config | None = None,
        feed: Feed | None = None,
        *,
        errors: ErrorHandler | None = None,
        account: AccountLimits | None = None,
    ) -> None:
        config = config or Config()
        feed = feed or feed_of(config)
        self.membership = Membership(tuple(range(config.client_id + 1, config.client_id + 1 + SPARE_CLIENT_IDS)))
        self.monitor = ConnectionMonitor()
        self.errors = errors or ErrorHandler(report=report)
        account = account or limits_of(config)
        limiter = RateLimiter(config.pacing, account=account, wake=lambda: self._supervisor.wake())
        outbox = Outbox(limiter, self._observe_wait)
        super().__init__(config, Protocol(feed, config.client_id, zone=config.zone), feed, outbox)
        self.session = SessionManager(lambda family: self._supervisor.lines.room(family), feed.next_req_id)
        self._supervisor = Supervisor(self)
        self._streams: dict[Subscription, list[Stream]] = {}
        self._histories: dict[Subscription, BarHistory] = {}
        self.monitor.watch("stream_rows_lost", self._rows_lost, "Rows that live streams lost to the ring's lapping")
        self._listeners: list[Callable[[Arrival], None]] = []

    # --- connection ---

    @property
    def last_error(self) -> Exception | None:
        """Why the last attempt failed or the connection was lost."""
        return self._supervisor.last_error

    @property
    def address(self) -> str:
        """Where it connects and as whom: "host:port/client_id"."""
        return f"{self.config.host}:{self.config.port}/{self.config.client_id}"

    async def connect(self, *, persist: bool = False) -> bool:
        """Connect and wait until the session is ready, for `config.connect_timeout_s` at most.

        `connect` and `disconnect` may be called at the same time, from any task or callback: the last call wins. Calls
        of `connect` share one connection. To cancel one of them ends the first attempt if nobody else waits for it.

        Args:
            persist: after a failure go on to try, until `disconnect`, as for a connection that was lost.

        Returns:
            Whether the session is ready. If not, `last_error` (a ConnectError) says at which stage it failed, why, and
            what can be done; it says so too when `disconnect` has overtaken this call. Without `persist`, only after a
            success is a lost connection made again.

        Raises:
            LoopError: another event loop keeps the connection.
        """
        return await self._supervisor.connect(persist=persist)

    async def disconnect(self) -> None:
        """End the session and every stream. Does nothing if there is none.

        All of it has ended before this call waits for the first time; it only waits for the socket to close. So a
        cancelled call has ended the connection too.

        Raises:
            LoopError: another event loop keeps the connection.
        """
        self.hang_up()
        await self._supervisor.gone()

    def hang_up(self) -> None:
        """End the session and every stream as `disconnect` does, without waiting for the socket to close."""
        self._supervisor.stop()
        for streams in self._streams.values():
            for stream in streams:
                stream.close()
        self._streams.clear()
        for history in self._histories.values():
            history.fail(NotConnectedError("the connection was closed"))
        self._histories.clear()

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return super().connected and self._supervisor.is_running

    def check_loop(self) -> None:
        """Forget a connection whose event loop is closed; LoopError if another event loop keeps it."""
        self._supervisor.check_loop()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectError: as `last_error` after `connect`.
        """
        if not await self.connect():
            raise self.last_error or NotConnectedError("disconnect was called meanwhile")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.disconnect()

    def plan(self) -> list[tuple[Subscription, float]]:
        """Return what does not flow yet, in the order in which it is asked for, and in how many seconds each is sent.

        0: the request is sent, and its first data is awaited. Infinite: the subscription waits for a session, or for a
        market-data line that another subscription holds.
        """
        plan = self.session.plan
        return list(zip(plan, self._supervisor.lines.etas_s(plan), strict=True))

    def health(self) -> Health:
        """Tell whether the session stands and no stream is stale; if not, why. See `Health` for what else it tells."""
        return self.monitor.health()

    # --- messages ---

    def add_listener(self, listener: Callable[[Arrival], None]) -> None:
        """Have `listener` called with every message that is not tick path, in order, and its place among the records.

        It is called by the event loop, and what it raises goes to the loop's exception handler.
        """
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[Arrival], None]) -> None:
        """Take a listener back."""
        self._listeners.remove(listener)

    def take(self, arrival: Arrival) -> None:
        """Give a message to the question that waits for it, and to the listeners. For the supervisor."""
        self._take_answer(arrival.message)
        self._take_history(arrival.message)
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener, arrival)

    def refuse(self, req_id: int, error: Exception) -> None:
        """End the question of a request, if there is one. For the supervisor."""
        self._refuse(req_id, error)

    def begin_session(self, protocol: Protocol) -> None:
        """Speak through a new session. For the supervisor."""
        self.protocol = protocol

    def end_session(self, error: Exception) -> None:
        """Fail all questions, whose request ids died with the connection. For the supervisor."""
        self._refuse_all(error)

    def fail_streams(self, subscription: Subscription, error: Exception) -> None:
        """End the streams of a subscription that is over. For the supervisor."""
        for stream in self._streams.pop(subscription, []):
            stream.fail(copy_of(error))
        history = self._histories.pop(subscription, None)
        if history is not None:
            history.fail(error)

    # --- requests ---

    def set_market_data_type(self, market_data_type: MarketDataType) -> None:
        """Choose real-time, frozen or delayed level 1 for the subscriptions that follow, and after every reconnect.

        Raises:
            NotConnectedError: there is no session.
        """
        market_data_type = MarketDataType(market_data_type)
        if not self.connected:
            raise NotConnectedError("no request can be sent: there is no session")
        self.session.set_market_data_type(market_data_type)
        self._supervisor.act()

    # --- subscriptions ---

    async def subscribe(
        self, contract: object, data_type: str = "QUOTES", *, priority: int = 0, **options: Any
    ) -> Stream:
        """Subscribe to market data.

        Args:
            contract: a Contract, a stock's symbol, or a Contract of ibapi or ib_async.
            data_type: a `DataType`: "QUOTES", "TRADES", "TICKS", "GREEKS"; "LAST", "ALL_LAST", "BID_ASK", "MIDPOINT";
                "DEPTH"; "BARS", "UPDATING_BARS".
            priority: the larger, the earlier it is restored and the later it loses its line when lines run out.
            options: of the data type, see `ibfast.connection.stream.wanted`.

        Returns:
            A Stream. A refusal by the gateway (no permission) is raised by its iteration; `stream.state` says WAITING
            while there is no line for it.

        While a lost connection is made again, it waits for the session if the contract is not known yet: for
        `config.request_timeout_s` at most.

        Raises:
            NotConnectedError: there is no session, and none has come in time.
            RequestError: there is no such contract.
            ValueError: the contract is ambiguous, or there is no such data type.
            LoopError: another event loop keeps the connection.
        """
        priority = whole("priority", priority)
        qualified, want = await self.wanted(contract, data_type, **options)
        return await self.open(qualified, want, priority=priority)

    async def ready_in_time(self, limit_s: float) -> bool:
        """Wait for a session, and return whether there is one; False at once if none is wanted."""
        return limit_s > 0 and await self._supervisor.ready_in_time(limit_s)

    async def open(self, contract: Contract, want: Wanted, *, priority: int = 0) -> Stream:
        """Subscribe to what `wanted` has returned. It is declared before anything is waited for."""
        priority = whole("priority", priority)
        subscription = self._up_to_date().declare(
            want.request, self.instrument_of(contract), time.monotonic(), priority=priority
        )
        stream = self._join(subscription, contract, want, priority)
        self._supervisor.lines.prioritize(subscription)
        try:
            if isinstance(want.request, HistoricalBars):
                stream.history = await self._history_of(subscription, want.request)
            else:
                self._supervisor.act()
        except BaseException:
            stream.unsubscribe()
            raise
        return stream

    async def wanted(self, contract: object, data_type: str, **options: Any) -> tuple[Contract, Wanted]:
        """Return the contract that is meant and what a subscription asks for; waits and raises as `subscribe`."""
        self.check_loop()
        if not self._supervisor.is_running:
            raise NotConnectedError("nothing can be subscribed to: there is no session, call connect() first")
        until_s = time.monotonic() + self.config.request_timeout_s
        while True:
            try:
                return await self.wanted_now(contract, data_type, **options)
            except NotConnectedError:
                if not await self.ready_in_time(until_s - time.monotonic()):
                    raise

    async def wanted_now(self, contract: object, data_type: str, **options: Any) -> tuple[Contract, Wanted]:
        """Return what `wanted` does, without waiting for a session."""
        description = Contract.of(contract)
        wanted(description, data_type, **options)  # a wrong name is told before anything is sent
        qualified = await self.meant(description)
        return qualified, wanted(qualified, data_type, **options)

    def share_contracts(self, other: IBKRConnectionManager) -> None:
        """Know of contracts what another manager knows, which fills the same feed."""
        self._qualified, self._details = other._qualified, other._details

    def unsent(self, family: str) -> int:
        """Return how many subscriptions of a family are declared and not asked for: what is free is theirs first."""
        tickets = (
            self._supervisor.lines.ticket_of(s.req_id)
            for s in self.session.subscriptions.values()
            if s.family == family
        )
        return sum(ticket is None or ticket.state is TicketState.QUEUED for ticket in tickets)

    def hand_over(self, subscription: Subscription, other: IBKRConnectionManager, *, pause_s: float = 0.0) -> None:
        """Have another manager, which fills the same feed, serve a subscription and its streams.

        Args:
            subscription: one that `other` does not have.
            other: which.
            pause_s: how long until it is asked for, at least.
        """
        now_s = time.monotonic()
        with self.monitor.held(), other.monitor.held():
            session = self._up_to_date()
            self._supervisor.lines.forget(subscription)
            session.surrender(subscription, now_s)
            self._supervisor.act()
            streams = self._streams.pop(subscription, [])
            for stream in streams:
                stream.released_by(other.release)
            history = self._histories.pop(subscription, None)
            if history is not None:
                other._histories[subscription] = history
            other._adopt(subscription, streams, now_s, now_s + pause_s)
            self._supervisor.hand_over_gaps(subscription, other._supervisor)
            if self._book != other._book:
                self._supervisor.book.write(subscription)
            self.monitor.event("moved", subscription=subscription.name, to=other.address)

    def _up_to_date(self) -> SessionManager:
        """Return the session once it has noticed what has come: a gap that is decided now begins behind all of that."""
        self._supervisor.lines.poll(time.monotonic())
        return self.session

    @property
    def _book(self) -> tuple[object, str]:
        """Where subscriptions are remembered; sessions of the same name share it."""
        return self.config.session.store, self.config.session.name

    def _adopt(self, subscription: Subscription, streams: list[Stream], now_s: float, due_s: float) -> None:
        self._streams[subscription] = streams
        self._up_to_date().adopt(subscription, now_s, due_s)
        self._supervisor.book.write(subscription)
        self._supervisor.act()

    def _join(self, subscription: Subscription, contract: Contract, want: Wanted, priority: int) -> Stream:
        stream = Stream(contract, subscription, self.feed, want, self.release, self._observe_delivery, priority)
        self.session.join(subscription, priority)
        self._streams.setdefault(subscription, []).append(stream)
        self._supervisor.book.write(subscription)
        return stream

    async def _history_of(self, subscription: Subscription, request: HistoricalBars) -> NDArray[np.void]:
        """Return the bars with which updating bars begin: the answer to the request that stays open.

        A stream that joins after that answer has its own question, since the answer has grown old.
        """
        history = self._histories.setdefault(subscription, BarHistory())
        self._supervisor.act()
        if history.is_over:
            return await self._bars(replace(request, keep_up_to_date=False))
        ticket = self._supervisor.lines.ticket_of(subscription.req_id)
        is_sent = ticket is not None and ticket.state is TicketState.SENT
        limit_s = self.config.request_timeout_s + (0.0 if is_sent else self.config.pacing.max_wait_s)
        try:
            async with asyncio.timeout(limit_s):
                return await history.wait()
        except TimeoutError:
            raise TimeoutError(
                f"the history of {subscription.name} did not come within {limit_s:g} s: the subscription is "
                f"{subscription.state}: {subscription.reason or 'the gateway does not answer'}"
            ) from None

    def _take_history(self, message: Response) -> None:
        if not isinstance(message, HistoricalData | HistoricalDataEnd | Unreadable):
            return
        subscription = self.session.of_request(message.req_id)
        if subscription is None or not isinstance(subscription.request, HistoricalBars):
            return
        history = self._histories.setdefault(subscription, BarHistory())
        if isinstance(message, Unreadable):
            history.fail(message.error)
        else:
            history.add(message, is_last=self._completes_bars(message))

    def _rows_lost(self) -> int:
        # Read by other threads, so what is walked over is copied first.
        return sum(stream.lost for streams in tuple(self._streams.values()) for stream in tuple(streams))

    def _observe_wait(self, seconds: float) -> None:
        self.monitor.pacing_wait.observe(int(seconds * NS_PER_S))

    def _observe_delivery(self, recv_ns: int) -> None:
        self.monitor.socket_to_reader.observe(max(0, time.time_ns() - recv_ns))

    def details_of(self, contract: Contract) -> ContractDetails | None:
        """Return what the gateway has told of a contract at its exchange, if it has."""
        return self._details.get(contract.identity)

    def kinds_of(self, subscription: Subscription) -> frozenset[Kind]:
        """Return the kinds of rows that its streams show; none if it has no streams. For the supervisor."""
        return frozenset().union(*(stream.kinds for stream in self._streams.get(subscription, ())))

    def instrument_of(self, contract: Contract) -> int:
        """Return the index of a contract at its exchange: the same across reconnects, while a subscription has it."""
        label = contract.symbol if contract.sec_type == "STK" else contract.local_symbol or contract.symbol
        return self.feed.instrument_of(contract, label)

    def release(self, stream: Stream) -> None:
        """End a stream's share of its subscription, which ends with the last one. Called by `Stream.unsubscribe`."""
        streams = self._streams.get(stream.subscription, [])
        if stream not in streams:
            return
        streams.remove(stream)
        session = self._up_to_date()
        if not streams:
            del self._streams[stream.subscription]
            self._histories.pop(stream.subscription, None)
            self._supervisor.lines.forget(stream.subscription)
        session.leave(stream.subscription, time.monotonic(), stream.priority)
        self._supervisor.lines.prioritize(stream.subscription)
        self._supervisor.book.write(stream.subscription)
        self._supervisor.act()


def report(callback: Callable[..., object], error: Exception) -> None:
    """Log that a callback for IB's messages failed: the `report` of an ErrorHandler."""
    note = _log_rate.admit("callback", time.monotonic())
    if note is not None:
        logger.error("a callback for IB's messages failed: %r%s", callback, note, exc_info=error)


def feed_of(*configs: Config) -> Feed:
    """Return a new feed that is as large as any of these wants it."""
    return Feed(
        max(config.feed_capacity for config in configs),
        max_instruments=max(config.max_instruments for config in configs),
        keep_instrument_s=max(config.keep_instrument_s for config in configs),
    )


def limits_of(config: Config) -> AccountLimits:
    """Return the limits of an account as configured."""
    return AccountLimits(config.pacing)
