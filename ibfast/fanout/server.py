"""The fan-out server: one feed, any number of WebSockets.

The rule of the file: it puts the parts together, owns sockets, timers and clocks, and decides nothing that a policy can
decide. It runs in the thread that fills the feed, reads rings like any other reader, and nobody waits for anybody: what
a subscriber can't take is its own loss, and told to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from ibfast.common.logs import wire_logger
from ibfast.config.origins import Origins
from ibfast.config.sections import FanoutConfig
from ibfast.config.security import SecurityConfig
from ibfast.fanout.access.admission import Door
from ibfast.fanout.access.credentials import Credentials
from ibfast.fanout.access.holders import Holders
from ibfast.fanout.access.limits import ConnectionCaps, check_bind, is_loopback
from ibfast.fanout.access.pages import Health, Page, Pages
from ibfast.fanout.access.tokens import Grant, Tokens
from ibfast.fanout.backlog import BacklogLimits
from ibfast.fanout.bell import Bell
from ibfast.fanout.connection import CLOSE_S, Connection
from ibfast.fanout.encoding.batcher import Batcher, Loss
from ibfast.fanout.encoding.binary import BinaryDialect
from ibfast.fanout.encoding.dialect import Audience, Dialect
from ibfast.fanout.encoding.histories import Histories
from ibfast.fanout.encoding.json import JsonDialect
from ibfast.fanout.faults import Faults
from ibfast.fanout.gauges import Present, Tally, registry_of
from ibfast.fanout.messages import Code
from ibfast.fanout.queries import ContractQuestions
from ibfast.fanout.session import Hub, Session
from ibfast.fanout.sockets.broadcaster import Audience as Members
from ibfast.fanout.sockets.broadcaster import Broadcaster, Writer
from ibfast.fanout.sockets.descriptors import connections_possible
from ibfast.fanout.sockets.frames import DEFLATE_WINDOW_BITS
from ibfast.fanout.turns import Turns
from ibfast.fanout.upstream import Source, Upstreams
from ibfast.feed.feed import Feed
from ibfast.feed.ring import Reader
from ibfast.records import NS_PER_MS, NS_PER_S

__all__ = ["FanoutServer"]

logger = logging.getLogger("ibfast")
_wire_logger = wire_logger("ibfast.fanout.wire")


LOOK_S = 0.05
"""How often connections are looked at that can't take more, and single snapshots that wait."""

LOOKS_PER_ROUND = 5
"""Every so many looks, all connections and all subscriptions at the gateway are looked at."""

FILES_S = 2.0
"""How often the files of tokens and certificates are looked at."""

MOST_REFUSED = 64
"""Connections beyond the caps that may wait for the answer that they are."""


class FanoutServer:
    """Serves a feed's data to WebSocket clients; docs/stream-protocol.md says how.

        async with (
            IBKRConnectionManager(config) as manager,
            FanoutServer(manager.feed, manager, config.fanout, config.security) as server,
        ):
            print("ws://{}:{}/stream".format(*server.address))
            await asyncio.Event().wait()

    Args:
        feed: whose data is served; filled in this thread.
        source: a connection manager or a pool that fills it; asked for what subscribers want.
        config: where to listen, and how patient to be.
        security: who may connect, and what anybody may have.
        tokens: who may connect, in place of what is in the files that `security` names.
        health: how the source fares, for /healthz and /readyz: `manager.health`; without it there are no such pages.
        registry: the source's metrics, for the page /metrics beside the server's own: `manager.monitor.registry`.

    Attributes:
        address: host and port, once it serves.
        connections: the clients.
        tally: what has happened so far.
        registry: the server's own metrics, for Prometheus.

    Raises:
        ConfigError: others could reach it and nobody needs a token; or a file of tokens, keys or certificates can't be
            used; or the limit of descriptors permits no connection.
    """

    def __init__(
        self,
        feed: Feed,
        source: Source,
        config: FanoutConfig | None = None,
        security: SecurityConfig | None = None,
        *,
        tokens: Tokens | None = None,
        health: Callable[[], Health] | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.config = config or FanoutConfig()
        self.security = security or SecurityConfig()
        is_local = is_loopback(self.config.host)
        self._credentials = Credentials(self.security, is_local=is_local, tokens=tokens)
        tokens = self._credentials.tokens
        self._warnings = check_bind(
            self.config.host,
            has_authentication=tokens.are_needed,
            has_tls=self.security.has_tls,
            allow_anonymous=self.security.allow_anonymous,
        )
        self.handshake_timeout_s = self.security.handshake_timeout_s
        connections, warning = connections_possible(self.security.max_connections, MOST_REFUSED)
        if warning:
            self._warnings.append(warning)
        self._caps = ConnectionCaps(connections, self.security.max_per_address)
        self._feed = feed
        self.limits = BacklogLimits(
            self.config.backlog_bytes, self.config.backlog_s, self.config.patience_s, self.config.stalled_s
        )
        self.tally = Tally()
        self.faults = Faults(self.tally, time.monotonic)
        self.broadcaster = Broadcaster(partial(self.faults.note, "transport"))
        self.turns = Turns()
        self.max_control_per_s = self.security.max_control_per_s
        self.max_message_bytes = self.security.max_message_bytes
        self.connections: set[Connection] = set()
        self._of_writer: dict[Writer, Connection] = {}
        self._refused = 0
        self._watched: set[Connection] = set()
        upstreams = Upstreams(feed, source, self.config.linger_s)
        batcher = Batcher(
            feed, upstreams.keeps, self._write, Members, self._on_window, self._on_loss, self.faults.note
        )  # fmt: skip
        known: tuple[Dialect, ...] = (JsonDialect(feed), BinaryDialect(feed))
        self._hub = Hub(
            batcher, upstreams, secrets.token_hex(8), f"ibfast {version('ibfast')}", self.faults,
            self.config.heartbeat_s, self.turns, Histories(batcher), ContractQuestions(upstreams.identify),
            Holders(self.security.max_lines, self.config.linger_s, time.monotonic),
            {dialect.name: dialect for dialect in known},
            self.tally,
        )  # fmt: skip
        self.registry = registry_of(self.tally, self.present)
        pages = Pages(health, [self.registry] if registry is None else [registry, self.registry], self.present)
        self._door = Door(tokens, Origins(self.security.origins), pages, self.tally, is_local=is_local)
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._bells: dict[str, Bell] = {}
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_told_to_read = asyncio.Event()
        self._now_s: Callable[[], float] = time.monotonic
        self._gaps: Reader | None = None
        self._closing: asyncio.Task[None] | None = None

    # --- life ---

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        assert self._server is not None, "it serves inside of `async with`"
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the address is in use, or is none of this machine's.
        """
        for warning in self._warnings:
            logger.warning("fan-out: %s", warning)
        self._gaps = self._feed.gaps.reader(start="next")
        deflate = ServerPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=DEFLATE_WINDOW_BITS
        )
        self._server = await serve(
            self._serve,
            self.config.host,
            self.config.port,
            process_request=self._admit,
            select_subprotocol=self._select,
            compression=None,
            extensions=[deflate],
            create_connection=partial(Connection, self),  # type: ignore[arg-type]
            open_timeout=None,  # a connection has its own time-out, which begins when it is accepted
            ping_interval=self.config.ping_s,
            ping_timeout=self.config.ping_s,
            close_timeout=CLOSE_S,
            max_size=self.security.max_message_bytes,
            server_header=None,
            logger=_wire_logger,
        )
        loop = asyncio.get_running_loop()
        self._now_s = loop.time
        self._tasks = [loop.create_task(self._look_after())]
        if self._credentials.has_files:
            self._tasks.append(loop.create_task(self._keep_credentials()))
        return self

    def reload(self) -> None:
        """Have the files of tokens, keys and certificates read soon, though they seem to be the same.

        A server looks every few seconds whether they have changed. A session ends (REVOKED) if its token is gone or
        permits something else; a new certificate is for new connections. What can't be used is logged, and what was
        read before stays.
        """
        self._is_told_to_read.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell everybody, and close everything, in a task of its own: to cancel the caller ends the wait only."""
        self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        assert self._server is not None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.close(close_connections=False)
        connections = list(self.connections)
        for connection in connections:
            if connection.session is None and connection.grant is None:
                connection.drop()  # it has not said who it is
            else:
                self._end(connection, Code.SHUTDOWN, "the server stops")
        await asyncio.gather(*(connection.ended() for connection in connections))
        await self._server.wait_closed()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for bell in self._bells.values():
            bell.silence()
        self._bells.clear()
        await self._hub.upstreams.close()

    # --- connections ---

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What new connections speak TLS with; None: they don't."""
        return self._credentials.tls

    def arrived(self, connection: Connection) -> None:
        """Count a connection before it has said anything, TLS included. Called by it."""
        self.connections.add(connection)
        connection.refusal = self._caps.admit(connection.address) or ""
        connection.is_counted = not connection.refusal
        if connection.refusal:
            self._refused += 1
            if self._refused > MOST_REFUSED:
                connection.drop()

    def opened(self, connection: Connection) -> None:
        """Know a connection by its writer. Called by it."""
        self._of_writer[connection.member] = connection

    def left(self, connection: Connection) -> None:
        """Forget a connection. Called by it."""
        self.connections.discard(connection)
        self._watched.discard(connection)
        if connection.is_open:
            del self._of_writer[connection.member]
        if connection.is_counted:
            self._caps.release(connection.address)
        else:
            self._refused -= 1

    def watch(self, connection: Connection) -> None:
        """Look at a connection soon. Called by it."""
        if connection in self.connections:
            self._watched.add(connection)

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let a client in, or answer with a page, when it is its turn."""
        assert isinstance(connection, Connection)
        return await self.turns.run(connection.turn_of, partial(self._judge, connection, request))

    def _judge(self, connection: Connection, request: Request) -> Response | None:
        judged = self._door.judge(request, connection.address, connection.refusal, time.time())
        if isinstance(judged, Page):
            return connection.answer(judged, request.method)
        connection.grant = judged
        return None

    def _select(self, connection: ServerConnection, offered: Any) -> Subprotocol | None:
        return next((name for name in offered if name in self._hub.dialects), None)

    async def _serve(self, connection: ServerConnection) -> None:
        """Converse with a client until it goes."""
        assert isinstance(connection, Connection)
        assert connection.grant is not None
        session = await self.turns.run(connection.turn_of, partial(self._begin, connection, connection.grant))
        if session is None:
            await connection.ended()
            return
        try:
            async for text in connection:
                await self.turns.run(session.holder, partial(self._handle, connection, text))
                if connection.session is None:
                    break
                await connection.drained()
        except ConnectionClosed:
            pass
        finally:
            connection.session = None
            await session.finish()
            await connection.ended()

    def _begin(self, connection: Connection, grant: Grant) -> Session | None:
        if connection.is_ending:
            return None
        dialect = self._hub.dialects[connection.subprotocol or JsonDialect.name]
        self.tally.admitted += 1
        session = Session(self._hub, connection, dialect, grant)
        connection.begin(session)
        session.welcome()
        return session

    def _handle(self, connection: Connection, text: str | bytes) -> None:
        if connection.session is not None:
            connection.session.handle(text)

    def paused(self) -> None:
        """Count a client that is not read on for now. Called by its connection."""
        self.tally.paused += 1

    def too_fast(self, connection: Connection) -> None:
        """End a session whose client sends on much faster than it may. Called by its connection."""
        self._end(connection, Code.TOO_FAST, f"at most {self.max_control_per_s} messages in a second")

    def _end(self, connection: Connection, code: Code, message: str) -> None:
        if connection.end(code, message):
            self.tally.closed[code] += 1

    def present(self) -> Present:
        """Tell what the server holds now."""
        sessions = [(each, each.session.subscriber) for each in self.connections if each.session is not None]
        dialects = Counter(each.subprotocol or JsonDialect.name for each, _ in sessions)
        return Present(
            subscribers={name.rpartition(".")[2]: dialects[name] for name in self._hub.dialects},
            subscriptions=sum(len(subscriber.subscriptions) for _, subscriber in sessions),
            behind=sum(subscriber.is_behind for _, subscriber in sessions),
            backlog_bytes=sum(each.backlog.nbytes for each, _ in sessions),
            streams=Counter(upstream.state for upstream in self._hub.upstreams),
            writes=self.broadcaster.writes,
            nbytes=self.broadcaster.nbytes,
        )

    # --- from the rings to the sockets ---

    def _write(self, frames: bytes, audience: Audience) -> None:
        now_s = audience.written_s = self._now_s()
        members = audience.members
        assert isinstance(members, Members)
        try:
            refused = self.broadcaster.write(frames, members)
        except Exception as error:  # nobody knows who has it
            self.faults.note("write", error)
            for connection in self._present_of(tuple(members)):
                connection.cut()
            return
        for connection in self._present_of(refused):
            with self.faults.contained("connection", connection.cut):
                connection.offer(frames, now_s)
        if audience.is_capped:
            for connection in self._present_of(tuple(members)):
                with self.faults.contained("connection", connection.cut):
                    connection.spend(len(frames), now_s)

    def _present_of(self, writers: Iterable[Writer]) -> Iterator[Connection]:
        """Yield the connections of writers. One that is gone can be in its audience still, until its session ends."""
        for writer in writers:
            connection = self._of_writer.get(writer)
            if connection is not None:
                yield connection

    def _on_window(self, interval_ms: int) -> None:
        """Begin to end the windows of an interval."""
        if interval_ms == 0:
            for name in self._feed.rings:
                if name not in self._bells:
                    self._bells[name] = Bell(self._feed.rings[name], partial(self._hub.batcher.flush, 0))
        elif interval_ms not in self._timers:
            self._end_window(interval_ms)

    def _end_window(self, interval_ms: int) -> None:
        batcher = self._hub.batcher
        self._timers.pop(interval_ms, None)
        if interval_ms in batcher.windows:
            span_ns = interval_ms * NS_PER_MS
            now_ns = time.time_ns()
            delay_s = (span_ns - now_ns % span_ns) / NS_PER_S
            loop = asyncio.get_running_loop()
            self._timers[interval_ms] = loop.call_later(delay_s, self._end_window, interval_ms)
            batcher.flush(interval_ms, now_ns)

    def _on_loss(self, loss: Loss) -> None:
        for connection in tuple(self.connections):
            if connection.session is not None:
                with self.faults.contained("loss", connection.cut):
                    connection.session.subscriber.lose(loss)

    # --- what is looked at from time to time ---

    async def _look_after(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(LOOK_S)
            looks += 1
            for look in (self._tell_gaps, self._hub.batcher.ledger.keep_up, self._look_at_watched):
                with self.faults.contained("upkeep"):
                    look()
            for look in (self._tell_states, self._look_at_all) if looks % LOOKS_PER_ROUND == 0 else ():
                with self.faults.contained("upkeep"):
                    look()

    async def _keep_credentials(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FILES_S):
                    await self._is_told_to_read.wait()
            is_forced = self._is_told_to_read.is_set()
            self._is_told_to_read.clear()
            with self.faults.contained("upkeep"):
                if await asyncio.to_thread(self._credentials.refresh, is_forced=is_forced):
                    self._door.trust(self._credentials.tokens)
                    await self._end_revoked()

    async def _end_revoked(self) -> None:
        for connection in tuple(self.connections):
            await asyncio.sleep(0)  # a signature takes a while, and there may be thousands
            if connection.grant is not None and not self._door.has(connection.grant, time.time()):
                if connection.session is None:
                    connection.drop()
                else:
                    self._end(connection, Code.REVOKED, "the token was revoked, or permits something else now")

    def _look_at_watched(self) -> None:
        for connection in tuple(self._watched):
            with self.faults.contained("connection", connection.cut):
                if connection.is_clogged:
                    self._unclog(connection, self._now_s())
                if connection.session is not None:
                    connection.session.subscriber.serve_once(time.monotonic())
                if not connection.needs_looks:
                    self._watched.discard(connection)

    def _look_at_all(self) -> None:
        for connection in tuple(self.connections):
            with self.faults.contained("connection", connection.cut):
                self._look_at(connection, self._now_s())

    def _unclog(self, connection: Connection, now_s: float) -> None:
        if connection.is_stalled(now_s):
            self._end(connection, Code.TOO_SLOW, "the connection has taken nothing for too long")
        else:
            connection.drain_backlog()

    def _look_at(self, connection: Connection, now_s: float) -> None:
        session = connection.session
        if session is None:
            return
        expires_s = session.grant.expires_s
        if expires_s is not None and time.time() >= expires_s:
            self._end(connection, Code.EXPIRED, "the token's time is over: connect with another one")
            return
        if not connection.is_clogged and connection.pace.relaxed(now_s):
            session.subscriber.set_pace(connection.pace.steps)
        if now_s - max(connection.last_s, session.subscriber.written_s) >= self.config.heartbeat_s:
            session.heartbeat()

    def _tell_states(self) -> None:
        for upstream in tuple(self._hub.upstreams):
            if upstream.is_over:
                code, message = upstream.ending
                for subscriber, subscription in tuple(upstream.users):
                    if subscription.number in subscriber.subscriptions:
                        with self.faults.contained("state", subscriber.cut):
                            subscriber.end(subscription, code, message)
                continue
            state = upstream.state
            if state != upstream.told:
                upstream.told = state
                for subscriber, subscription in tuple(upstream.users):
                    with self.faults.contained("state", subscriber.cut):
                        subscriber.tell_state(subscription, upstream)

    def _tell_gaps(self) -> None:
        assert self._gaps is not None
        if not self._gaps.pending:
            return
        for row in self._gaps.read():
            for upstream in self._hub.upstreams:
                if int(row["req_id"]) in upstream.stream.subscription.req_ids:
                    for subscriber, subscription in tuple(upstream.users):
                        with self.faults.contained("gap", subscriber.cut):
                            subscriber.tell_gap(subscription, row)
