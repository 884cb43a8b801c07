"""The client of a fan-out server, for programs: subscribe, and read rows or objects, whatever happens in between.

The rule of the file: it has what users call, and what they read; the connection is the business of `client.transport`,
what messages mean that of `client.protocol`. A server in this process is a server like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeVar

from ibfast.client.protocol import Answer, Question, Reply, StreamClient, Wish
from ibfast.client.readers import Batches, Events, Updates
from ibfast.client.subscription import Subscription
from ibfast.client.tape import Tape
from ibfast.client.transport import News, StreamLink
from ibfast.client.updates import Arrival, Event, Instruments, Lag, LagTotals, State, Texts
from ibfast.common.scalars import flag, plain, text, whole
from ibfast.config.checks import is_whole
from ibfast.config.sections import Config
from ibfast.connection.manager import IBKRConnectionManager
from ibfast.engine import engine
from ibfast.errors import Error, LoopError, NotConnectedError

__all__ = ["Subscription", "WebSocketProvider"]

MOST_EVENTS: Final = 4096
MOST_BYTES_PER_S: Final = 1 << 40

T = TypeVar("T")


class WebSocketProvider:
    """Market data by way of a fan-out server: that of `config.stream_url`, or one in this process.

        async with WebSocketProvider(Config(port=7497)) as ws:
            await ws.subscribe("AAPL", data_type="TRADES")
            async for update in ws.updates():
                print(update.ticker, update.price, update.size)

    Without `config.stream_url` the whole engine runs here: the connection to the gateway of that config, and a server
    on a port of this machine that nobody else can use.

    Once connected, it stays so until the end of the `async with`: a lost connection is made again, as
    `config.reconnection` says, and every subscription goes on where it was, or with a `Lag`.

    Args:
        config: where the server is, or the gateway.
        dialect: in which the server is to speak: "binary" (JSON, if it can't), or "json".
        capacity: how many rows are kept for those who read here. Who falls behind by more misses the oldest, and a
            `Lag` of reason "consumer" tells how many.

    Attributes:
        config: as given.
        instruments: labels by index, as in rows: `provider.instruments[row["instrument"]]`; `con_id(index)`,
            `exchange(index)`.
        texts: texts by id, as in rows.
        lag: what was left out so far, in numbers.
        error: why nothing comes any more, None while something can.
        url: where the server is.
        manager: the connection to the gateway, where it is in this process.
    """

    def __init__(self, config: Config | None = None, *, dialect: str = "binary", capacity: int = 1 << 16) -> None:
        self.config = config or Config()
        self.lag = LagTotals()
        self.error: Exception | None = None
        self.manager: IBKRConnectionManager | None = None
        self._client = StreamClient(dialect)
        self._rows: Tape[Arrival] = Tape(capacity)
        self._events: Tape[Event] = Tape(MOST_EVENTS)
        self._link = StreamLink(self.config, self._client, self._take)
        self._answers: dict[tuple[int, str], deque[asyncio.Future[Error | None]]] = {}
        self._replies: dict[Question, asyncio.Future[Reply]] = {}
        self._resources = contextlib.AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.url = self.config.stream_url or ""

    @property
    def instruments(self) -> Instruments:
        """Labels and contract ids by index."""
        return self._client.instruments

    @property
    def texts(self) -> Texts:
        """Texts by id."""
        return self._client.texts

    @property
    def connected(self) -> bool:
        """Whether there is a session with the server now."""
        return self._client.is_welcome and self._task is not None and not self._task.get_loop().is_closed()

    @property
    def last_error(self) -> Exception | None:
        """Why the last attempt to connect failed or the connection was lost, None if neither."""
        return self._link.last_error

    # --- beginning and end ---

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectError: the gateway or the server can't be reached, or refuses; says at which stage, why, and the
                remedy.
        """
        if self._task is not None:
            raise RuntimeError("a provider is used once: make a new one")
        try:
            token = self.config.stream_token
            if self.config.stream_url is None:
                self.manager, self.url, token = await self._resources.enter_async_context(engine(self.config))
            started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(token, started))
            await started
        except BaseException:
            await self._close()
            raise
        return self

    async def _run(self, token: str | None, started: asyncio.Future[None]) -> None:
        await self._link.run(self.url, token, started)
        self._end(self.last_error)

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _close(self) -> None:
        """Close everything, in a task of its own: to cancel the caller ends the wait, not the closing."""
        self._closing = self._closing or asyncio.create_task(self._close_all())
        await asyncio.shield(self._closing)

    async def _close_all(self) -> None:
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            try:
                await self._resources.aclose()
            finally:
                self._end(None)

    def _end(self, error: Exception | None) -> None:
        """Let nothing follow."""
        if self._rows.is_closed:
            return
        self.error = error
        self._add_event(State("", 0, "CLOSED", "" if error is None else str(error)))
        self._rows.close(error)
        self._events.close()
        gone = NotConnectedError(f"there is no connection any more: {error or 'it was closed'}")
        for future in (future for waiting in self._answers.values() for future in waiting):
            if not future.done():
                future.set_result(gone)
        for question in tuple(self._replies):
            self._take(Reply(question))

    # --- reading ---

    def updates(self, start: str = "oldest") -> Updates:
        """Return the rows as objects, for `async for`.

        Args:
            start: "oldest": from the oldest row that is kept; "next": from now on.
        """
        return Updates(self._rows.reader(start, self._consumer_lost), self.instruments, self.texts)

    def batches(self, family: str | None = None, start: str = "oldest") -> Batches:
        """Return the rows as arrays, for `async for`.

        Args:
            family: "trades", "quotes", …; None: all.
            start: as for `updates`.
        """
        return Batches(self._rows.reader(start, self._consumer_lost), family)

    def events(self, start: str = "oldest") -> Events:
        """Return what happens to the stream, for `async for`: what was left out, interrupted, or has changed."""
        return Events(self._events, start)

    def _consumer_lost(self, count: int) -> None:
        self._add_event(Lag("", -1, 0, 0, count, "consumer"))

    def _take(self, news: News) -> None:
        """Take what comes by the connection."""
        match news:
            case Arrival():
                self._rows.append(news, news.count)
            case Answer():
                waiting = self._answers.get((news.wish.number, news.op))
                if waiting:
                    _settle(waiting.popleft(), news.error)
            case Reply():
                future = self._replies.pop(news.question, None)
                if future is not None:
                    _settle(future, news)
            case _:
                self._add_event(news)

    def _add_event(self, event: Event) -> None:
        if isinstance(event, Lag):
            self.lag = self.lag.plus(event)
        self._events.append(event)

    # --- asking ---

    async def subscribe(
        self,
        contract: object,
        data_type: str = "QUOTES",
        *,
        mode: str | None = None,
        interval_ms: int | None = None,
        fields: Sequence[str] | None = None,
        times: str | None = None,
        ordered: bool | None = None,
        on_slow: str | None = None,
    ) -> Subscription:
        """Subscribe to market data. What is not given is as docs/stream-protocol.md says.

        Args:
            contract: a stock's symbol, a Contract, or a Contract of ibapi or ib_async.
            data_type: "TRADES", "QUOTES", "TICKS", "DEPTH", "BARS", "GREEKS" or "ALL".
            mode: "stream": every row; "conflate": the latest of each interval; "snapshot": what is, once.
            interval_ms: how long rows are gathered for one message, 0: not at all.
            fields: those that are wanted; the others are absent.
            times: "us" or "ns": how exact times are.
            ordered: whether rows have their `seq`.
            on_slow: what is done when this client can't take more: "conflate" or "close".

        Raises:
            StreamError: the server refused it; says why, and the remedy.
            NotConnectedError: the server did not answer within `config.request_timeout_s`, or nothing comes any more.
            TypeError, ValueError: the contract names nothing.
        """
        self._require_open()
        data_type = text("data_type", data_type).upper()
        wish = self._client.subscribe(
            contract,
            data_type=data_type,
            mode=None if mode is None else text("mode", mode),
            interval_ms=None if interval_ms is None else whole("interval_ms", interval_ms),
            fields=None if fields is None else [text("fields", name) for name in fields],
            times=None if times is None else text("times", times),
            ordered=None if ordered is None else flag("ordered", ordered),
            on_slow=None if on_slow is None else text("on_slow", on_slow),
        )
        try:
            await self._answer(wish, "subscribe")
        except BaseException:
            self._client.unsubscribe(wish)
            self._link.proceed()
            raise
        return Subscription(wish, contract, data_type, self._update, self._unsubscribe)

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """Return what the server has of this client's subscriptions, in its own words.

        Raises:
            StreamError: the server refused to tell, as where it is asked too often.
            NotConnectedError: there is no connection now, or the server did not answer in time.
        """
        subscriptions: Sequence[Mapping[str, Any]] = (await self._ask("list"))["subscriptions"]
        return subscriptions

    async def ping(self) -> float:
        """Return how long the server takes to answer, in seconds. Raises as `list` does."""
        began_s = time.monotonic()
        await self._ask("ping")
        return time.monotonic() - began_s

    async def limit(self, max_bytes_per_s: int) -> int:
        """Have no more than so many bytes a second sent; what does not fit is left out, and a `Lag` tells.

        It holds for this connection and for all that are made after it.

        Args:
            max_bytes_per_s: of all subscriptions together; 0: as many as there are.

        Returns:
            What the server allows, which may be less; 0: any.

        Raises:
            ValueError: that is no number of bytes.
            StreamError, NotConnectedError: as in `list`; it holds all the same as soon as there is a connection.
        """
        max_bytes_per_s = plain(max_bytes_per_s)
        if not is_whole(max_bytes_per_s) or not 0 <= max_bytes_per_s <= MOST_BYTES_PER_S:
            raise ValueError(f"max_bytes_per_s={max_bytes_per_s!r} is not possible: give a whole number, 0 or more")
        allowed: int = (await self._ask("limit", max_bytes_per_s=max_bytes_per_s))["max_bytes_per_s"]
        return allowed

    async def _ask(self, op: str, **fields: Any) -> Mapping[str, Any]:
        """Ask the server about the session, and return its answer."""
        self._require_open()
        question = self._client.ask(op, **fields)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[question] = future
        try:
            self._link.proceed()
            reply = await self._in_time(future)
        finally:
            self._replies.pop(question, None)
        if reply.error is not None:
            raise reply.error
        if reply.said is None:
            raise NotConnectedError(f"there is no connection now: {self.last_error or 'it was closed'}")
        return reply.said

    async def _update(self, wish: Wish, interval_ms: int) -> None:
        self._require_open()
        if wish.is_over or wish.is_withdrawn:
            raise NotConnectedError(f"the subscription to {wish.ticker} is over: subscribe again")
        self._client.update(wish, whole("interval_ms", interval_ms))
        await self._answer(wish, "update")

    async def _unsubscribe(self, wish: Wish) -> None:
        if self._client.unsubscribe(wish) and not self._rows.is_closed:
            await self._answer(wish, "unsubscribe")

    def _require_open(self) -> None:
        """Raise unless something can be asked: NotConnectedError, or LoopError from another event loop."""
        if self._task is not None and self._task.get_loop() is not asyncio.get_running_loop():
            raise LoopError(
                "a provider belongs to the event loop of its `async with`: call it there, or make a new one"
            )
        if self._task is None or self._rows.is_closed:
            raise NotConnectedError(f"there is no connection: {self.error or 'use `async with`'}")

    async def _answer(self, wish: Wish, op: str) -> None:
        """Send what was asked for, and wait for the answer; raise what it says."""
        key = wish.number, op
        future: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()
        waiting = self._answers.setdefault(key, deque())
        waiting.append(future)
        self._link.proceed()
        try:
            error = await self._in_time(future)
        finally:
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._answers.pop(key, None)
        if error is not None:
            raise error

    async def _in_time(self, future: asyncio.Future[T]) -> T:
        """Wait for an answer, but not for ever."""
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                return await future
        except TimeoutError:
            why = f": {self.last_error}" if self.last_error is not None and not self.connected else ""
            raise NotConnectedError(
                f"the server did not answer within request_timeout_s={self.config.request_timeout_s:g}{why}"
            ) from None


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
