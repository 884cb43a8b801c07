"""The client of a fan-out server, for programs: subscribe, and read rows or objects, whatever happens in between.

The rule of the file: it owns the socket and its task, and hands messages to and fro; what they mean is the business of
`stream_client`, when to connect again that of the policy. A server in this process is a server like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn, Self

from ibfast.config import Config
from ibfast.engine import engine
from ibfast.errors import AuthError, Error, NotConnectedError
from ibfast.manager import IBKRConnectionManager
from ibfast.policy.reconnection import Reconnection
from ibfast.stream_client import Answer, Closing, Later, Output, StreamClient, Wish
from ibfast.stream_readers import Batches, Events, Updates
from ibfast.stream_socket import ConnectionClosed, Socket, dial, dialect_of, reason_of
from ibfast.tape import Tape
from ibfast.updates import Arrival, Event, Instruments, Lag, LagTotals, State, Texts

__all__ = ["Subscription", "WebSocketProvider"]

logger = logging.getLogger("ibfast")

MOST_EVENTS: Final = 4096
SILENT_HEARTBEATS: Final = 3
"""So many heartbeats that did not come mean that the connection is dead."""
PAUSE_S: Final = 0.002
MOST_PAUSE_S: Final = 1.0
"""Between two questions, since a server takes only so many a second; the longer the more often it has said so."""
TOO_FAST: Final = "TOO_FAST"
EXPIRED: Final = "EXPIRED"
"""Why a server ends a session: too many questions; the token's time is over, so that it would not have another."""


class Subscription:
    """What a user holds of a subscription; the data of all of them comes by the provider.

    Attributes:
        contract, data_type: as asked for.
    """

    def __init__(self, provider: WebSocketProvider, wish: Wish, contract: object, data_type: str) -> None:
        self.contract = contract
        self.data_type = data_type
        self._provider = provider
        self._wish = wish

    def __repr__(self) -> str:
        reason = f", {self.reason}" if self.reason else ""
        return f"<Subscription {self.number} to {self.data_type} of {self.ticker}, {self.state}{reason}>"

    @property
    def number(self) -> int:
        """Its number at this client, as in `State.subscription`."""
        return self._wish.number

    @property
    def ticker(self) -> str:
        """The instrument's label."""
        return self._wish.ticker

    @property
    def instruments(self) -> tuple[int, ...]:
        """Of its rows: indices into the provider's `instruments`; none while it is not subscribed."""
        return tuple(dict.fromkeys(channel.instrument for channel in self._wish.channels.values()))

    @property
    def state(self) -> str:
        """How it fares: LIVE, QUIET, STALE, WAITING, …; PENDING, RECONNECTING, ENDED."""
        return self._wish.state

    @property
    def reason(self) -> str:
        """Why, where that is not obvious."""
        return self._wish.reason

    @property
    def slowed_to_ms(self) -> int | None:
        """The interval to which the server has slowed it, because this client can't take more; else None."""
        return self._wish.slowed_to_ms

    @property
    def error(self) -> Error | None:
        """Why it ended by itself, None while it lives and after `unsubscribe`."""
        return self._wish.error

    @property
    def live(self) -> bool:
        """Whether anything can still come of it."""
        return not self._wish.is_over and not self._wish.is_withdrawn

    async def update(self, interval_ms: int) -> None:
        """Have its rows come at another interval, one of the server's.

        Raises:
            StreamError: the server refused it; nothing has changed.
            NotConnectedError: the subscription is over, or the server did not answer in time.
        """
        await self._provider._update(self._wish, interval_ms)

    async def unsubscribe(self) -> None:
        """End it; nothing of it follows. Does nothing if it is over."""
        await self._provider._unsubscribe(self._wish)


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
        instruments: labels by index, as in rows: `provider.instruments[row["instrument"]]`; `con_id(index)`.
        texts: texts by id, as in rows.
        lag: what was left out so far, in numbers.
        error: why nothing comes any more, None while something can.
        last_error: why the last attempt to connect failed or the connection was lost, None if neither.
        url: where the server is.
        manager: the connection to the gateway, where it is in this process.
    """

    def __init__(self, config: Config | None = None, *, dialect: str = "binary", capacity: int = 1 << 16) -> None:
        self.config = config or Config()
        self.lag = LagTotals()
        self.error: Exception | None = None
        self.last_error: Exception | None = None
        self.manager: IBKRConnectionManager | None = None
        self._client = StreamClient(dialect)
        self._rows: Tape[Arrival] = Tape(capacity)
        self._events: Tape[Event] = Tape(MOST_EVENTS)
        self._policy = _policy_of(self.config)
        self._answers: dict[tuple[int, str], deque[asyncio.Future[Error | None]]] = {}
        self._wake = asyncio.Event()
        self._resources = contextlib.AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self.url = self.config.stream_url or ""
        self._repeat: asyncio.TimerHandle | None = None
        self._pause_s = PAUSE_S

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
        return self._client.is_welcome

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
            self._task = asyncio.create_task(self._run(self.url, token, started))
            await started
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._repeat is not None:
            self._repeat.cancel()
        await self._resources.aclose()
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
        wish = self._client.subscribe(
            contract,
            data_type=data_type.upper(),
            mode=mode,
            interval_ms=interval_ms,
            fields=None if fields is None else list(fields),
            times=times,
            ordered=ordered,
            on_slow=on_slow,
        )
        try:
            await self._answer(wish, "subscribe")
        except BaseException:
            self._client.unsubscribe(wish)
            self._proceed()
            raise
        return Subscription(self, wish, contract, data_type.upper())

    async def _update(self, wish: Wish, interval_ms: int) -> None:
        self._require_open()
        if wish.is_over or wish.is_withdrawn:
            raise NotConnectedError(f"the subscription to {wish.ticker} is over: subscribe again")
        self._client.update(wish, interval_ms)
        await self._answer(wish, "update")

    async def _unsubscribe(self, wish: Wish) -> None:
        if self._client.unsubscribe(wish) and not self._rows.is_closed:
            await self._answer(wish, "unsubscribe")

    def _require_open(self) -> None:
        if self._task is None or self._rows.is_closed:
            raise NotConnectedError(f"there is no connection: {self.error or 'use `async with`'}")

    async def _answer(self, wish: Wish, op: str) -> None:
        """Send what was asked for, and wait for the answer; raise what it says."""
        key = wish.number, op
        future: asyncio.Future[Error | None] = asyncio.get_running_loop().create_future()
        waiting = self._answers.setdefault(key, deque())
        waiting.append(future)
        self._proceed()
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                error = await future
        except TimeoutError:
            why = f": {self.last_error}" if self.last_error is not None and not self.connected else ""
            raise NotConnectedError(
                f"the server did not answer within request_timeout_s={self.config.request_timeout_s:g}{why}"
            ) from None
        finally:
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._answers.pop(key, None)
        if error is not None:
            raise error

    # --- the connection ---

    async def _run(self, url: str, token: str | None, started: asyncio.Future[None]) -> None:
        """Keep a connection, until it is given up."""
        try:
            await self._keep(url, token, started)
        except Exception as error:
            # Nothing can come any more: whoever waits must hear of it, whatever it was.
            self.last_error = error
            logger.exception("the stream's client has failed")
        self._end(self.last_error)
        if not started.done():
            started.set_exception(self.last_error or NotConnectedError("no connection came about"))

    async def _keep(self, url: str, token: str | None, started: asyncio.Future[None]) -> None:
        while self._policy.attempt():
            try:
                await self._session(url, token, started)
            except Error as error:
                self._lost(error)
            delay_s = self._policy.next_attempt_s(time.monotonic())
            if delay_s is None or not started.done():
                return
            self._add_event(State("", 0, "RECONNECTING", str(self.last_error)))
            await asyncio.sleep(delay_s)

    def _lost(self, error: Error) -> None:
        """Tell the policy that an attempt has failed or a connection was lost."""
        now_s, wall_s = time.monotonic(), time.time()
        self.last_error = error
        logger.warning("there is no stream: %s", error)
        if isinstance(error, AuthError) or not self.config.reconnection.enabled:
            self._policy.stop()
        elif not self._policy.lost(now_s, wall_s):
            self._policy.failed(now_s, wall_s)

    async def _session(self, url: str, token: str | None, started: asyncio.Future[None]) -> NoReturn:
        """Have one session, from the attempt to connect to its end, which is always an Error."""
        config = self.config
        socket = await dial(url, token, self._client.dialect, config.tls, config.connect_timeout_s)
        self._client.connected(dialect_of(socket))
        sender = asyncio.create_task(self._send(socket))
        try:
            await self._listen(socket, started)
        except ConnectionClosed as closed:
            raise reason_of(closed) from None
        finally:
            self._client.disconnected()
            self._deliver(self._client.take_output())
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await socket.close()

    async def _listen(self, socket: Socket, started: asyncio.Future[None]) -> NoReturn:
        client, patience_s = self._client, self.config.connect_timeout_s
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
        self._add_event(State("", 0, "CONNECTED"))
        if not started.done():
            started.set_result(None)

    async def _send(self, socket: Socket) -> None:
        """Send what is asked for. On its own, so that a server that does not read is read all the same."""
        while True:
            for message in self._client.take_messages():
                await socket.send(message)
                await asyncio.sleep(self._pause_s)
            self._deliver(self._client.take_output())
            await self._wake.wait()
            self._wake.clear()

    def _proceed(self) -> None:
        self._deliver(self._client.take_output())
        self._wake.set()

    def _deliver(self, output: Iterable[Output]) -> None:
        closing = None
        for item in output:
            match item:
                case Arrival():
                    self._rows.append(item, item.count)
                case Answer():
                    self._settle(item)
                case Closing():
                    closing = item
                case Later():
                    self._repeat = asyncio.get_running_loop().call_later(item.after_s, self._ask_again)
                case _:
                    self._add_event(item)
        if closing is not None:
            if closing.code == TOO_FAST:
                self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
            if closing.code == EXPIRED:
                raise AuthError("stream_token", "the token's time is over", "ask the server's owner for a new one")
            raise NotConnectedError(f"the stream server has ended the session: {closing.code}: {closing.message}")

    def _settle(self, answer: Answer) -> None:
        waiting = self._answers.get((answer.wish.number, answer.op))
        if waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(answer.error)

    def _ask_again(self) -> None:
        self._client.repeat()
        self._proceed()


def _policy_of(config: Config) -> Reconnection:
    settings = config.reconnection
    return Reconnection(
        delay_s=settings.delay_s,
        max_delay_s=settings.max_delay_s,
        max_attempts=settings.max_attempts,
        stable_s=settings.stable_s,
    )
