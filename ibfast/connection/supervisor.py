"""What keeps a connection and its subscriptions alive: one task that carries out what the policies decide.

The rule of the file: policies decide, this acts. All of it happens on the event loop's thread: `_tick` looks at clocks,
`_on_change` at what was read, and both end in `act`, which alone sends, records gaps and tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from ibfast.common.shown import shown
from ibfast.connection.backfill import Backfiller
from ibfast.connection.error_actions import Reactions
from ibfast.connection.gauges import expose
from ibfast.connection.journal import Book
from ibfast.connection.link import Link
from ibfast.connection.live_requests import Lines
from ibfast.connection.monitor import Health
from ibfast.connection.owner import Owner
from ibfast.connection.protocol import Arrival, Protocol, State
from ibfast.connection.queries import CLOCK_ANSWERS
from ibfast.errors import AuthError, ClientIdInUseError, ConnectError, LoopError, NotConnectedError
from ibfast.policy.auth import AuthManager
from ibfast.policy.health.heartbeat import HeartbeatMonitor, LinkHealth
from ibfast.policy.reconnect.breaker import CircuitBreaker
from ibfast.policy.reconnect.reconnection import LinkState, Reconnection
from ibfast.policy.subscription import FLOWING, Gap, Subscription, SubscriptionState, begin_ns
from ibfast.records import NS_PER_S, GapCause, Scope
from ibfast.wire import responses
from ibfast.wire.responses import ErrorMessage

__all__ = ["Supervisor"]

logger = logging.getLogger("ibfast")

# How often activity is looked at: while something is awaited, and otherwise.
EAGER_S, CALM_S = 0.02, 0.25
LEAST_PAUSE_S = 0.001
# The gateway may hold what an earlier connection of ours had open for so long.
YOUNG_S = 60.0
# A stream that falls silent sooner after it was declared says more about what was asked for than about the session.
SETTLED_S = 30.0
# How long a socket may take to close.
CLOSE_TIMEOUT_S = 2.0

P = ParamSpec("P")


def complete(change: Callable[Concatenate[Supervisor, P], None]) -> Callable[Concatenate[Supervisor, P], None]:
    """Have listeners called after a change: what they call finds it complete."""

    @wraps(change)
    def held(self: Supervisor, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with self._monitor.held():
            change(self, *args, **kwargs)

    return held


class _Life:
    """The time from a `connect` to the `stop`, failure or end of the event loop that ends it.

    Attributes:
        loop: the event loop of its task and its sockets.
        task: opens links and looks after them; nobody else does.
        is_persistent: whether more attempts follow a first one that fails.
        first: whether the first attempt succeeded.
        ready: set while there is a session, and for good when the life is over.
        waiting: number of calls of `connect` that wait.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None]
        self.is_persistent = False
        self.first: asyncio.Future[bool] = self.loop.create_future()
        self.ready = asyncio.Event()
        self.waiting = 0


class Supervisor:
    """Carries out one manager's policies.

    Args:
        manager: whose connection it is.

    Attributes:
        last_error: why the last attempt to connect failed or the connection was lost, None if neither.
        heartbeat, reconnection, breaker, auth: the policies.
        lines: the live requests of the subscriptions.
        book: what is written down.
        limits: what is used of IB's limits, and the limits, as of the last look: for whoever reads in another thread.
    """

    def __init__(self, manager: Owner) -> None:
        config = manager.config
        self.last_error: Exception | None = None
        self.heartbeat = HeartbeatMonitor(config.heartbeat)
        self.reconnection = Reconnection(config.reconnection)
        self.breaker = CircuitBreaker("connect", config.breaker)
        self.auth = AuthManager(config.auth)
        self._manager = manager
        self._feed = manager.feed
        self._session = manager.session
        self._outbox = manager.outbox
        self._outbox.clock_asked = self.heartbeat.probe_sent
        self._monitor = manager.monitor
        self.book = Book(manager)
        self.lines = Lines(manager, self.heartbeat, self.book.write)
        self._reactions = Reactions(manager, self.lines, self.book.write, self.is_young, self.move_to)
        self._backfiller = Backfiller(manager)
        self._port = 0
        self._client_id = 0
        self._link: Link | None = None
        self._life: _Life | None = None
        # What earlier lives have left to finish: their tasks, and sockets that close.
        self._leaving: set[asyncio.Future[Any]] = set()
        self._wake = asyncio.Event()
        self._connected_s = 0.0
        self._heard_s = 0.0
        # As of the last look: health is read by other threads too, and to look is to note that one has looked.
        self._link_health = LinkHealth.ALIVE
        self._is_slow_told = False
        self._outage: tuple[int, int, float] | None = None
        self._quarantined = 0
        self._refused_instruments_told = False
        self._monitor.health_source = self._health
        self.limits: dict[str, tuple[int, int]] = self._outbox.limiter.limits(time.monotonic())
        expose(manager, lambda: self.limits)

    # --- from outside ---

    @property
    def is_running(self) -> bool:
        """Whether a connection is wanted, and its event loop can keep it."""
        life = self._life
        return life is not None and not life.loop.is_closed()

    @property
    def is_ready(self) -> bool:
        """Whether there is a session that has been checked."""
        life = self._life
        return life is not None and not life.loop.is_closed() and life.ready.is_set()

    async def connect(self, *, persist: bool) -> bool:
        """Begin a life, or join the one that there is, and wait for its session.

        A caller that is cancelled ends the first attempt, unless another caller waits for it too.
        """
        self.check_loop()
        if self._life is not None and self._is_over:
            self._give_up()
        if self._life is None:
            self._life = self._begin_life()
        life = self._life
        life.is_persistent |= persist
        life.waiting += 1
        try:
            if life.first.done():
                return await self._ready_in_time(life, self._manager.config.connect_timeout_s)
            is_ready = await asyncio.shield(life.first)
            return is_ready and self._life is life
        finally:
            life.waiting -= 1
            if not life.waiting and not life.first.done():
                self.stop()
                await self.gone()

    def stop(self) -> None:
        """End the connection now, and keep it no longer; `gone` waits for the socket."""
        self.check_loop()
        life = self._life
        self.reconnection.stop()
        self._outage = None
        if life is None:
            self._monitor.transition(self.reconnection.state.name)
            return
        if life.waiting:
            self.last_error = ConnectError("start", "disconnect was called meanwhile", "connect again")
        self._end(life)

    async def gone(self) -> None:
        """Wait until nothing is left of lives that are over. To cancel it changes nothing."""
        loop = asyncio.get_running_loop()
        leaving = {future for future in self._leaving if future.get_loop() is loop and not future.done()}
        if leaving:
            await asyncio.wait(leaving, timeout=CLOSE_TIMEOUT_S)

    async def ready_in_time(self, limit_s: float) -> bool:
        """Wait for a session, and return whether there is one; False at once if none is wanted."""
        life = self._life
        return life is not None and await self._ready_in_time(life, limit_s)

    async def _ready_in_time(self, life: _Life, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await life.ready.wait()
        return self._life is life and life.ready.is_set()

    def check_loop(self) -> None:
        """Forget a connection whose event loop is closed: nothing can come of it.

        Raises:
            LoopError: the connection is kept by another event loop, which is not closed.
        """
        life = self._life
        if life is None or life.loop is asyncio.get_running_loop():
            return
        if not life.loop.is_closed():
            raise LoopError(
                "another event loop keeps this connection: call it from there, as by "
                "asyncio.run_coroutine_threadsafe(…, loop), or make a manager for each event loop"
            )
        self._abandon(life)

    def _abandon(self, life: _Life) -> None:
        """End a life whose event loop ends or has ended, as after the loss of a connection that is not made again."""
        reason = NotConnectedError("the event loop that kept the connection has ended: connect again")
        if life.loop.is_closed():
            self._wake = asyncio.Event()  # a task that will never run waits for the old one
        if life.ready.is_set():
            self.lose(reason)
        self.last_error = reason
        self.reconnection.stop()
        self._end(life, reason)

    @property
    def _is_over(self) -> bool:
        """Whether no connection will be made again without `connect`."""
        is_lost = self._life is not None and self._life.first.done() and self._link is None
        return is_lost and (
            not self._manager.config.reconnection.enabled or self.reconnection.state is LinkState.GAVE_UP
        )

    @complete
    def act(self) -> None:
        """Send, record and tell what the session wants, and what may be sent now."""
        now_s = time.monotonic()
        decided = self._session.take()
        for gap in decided.gaps:
            self._record(gap)
        if self._manager.config.session.backfill:
            for gap in decided.ended:
                self._backfiller.add(gap)
        if self._link is not None and self._link.ready:
            for request in decided.requests:
                self.lines.submit(request, now_s)
            self._outbox.pump(now_s)
        for req_id, awaited in decided.gap_rows.items():
            if awaited is None:
                self._feed.forget_gap(req_id)
            else:
                gap, ends = awaited
                first_ns = gap.begin_ns(now_s, time.time_ns())
                self._feed.await_gap(req_id, gap.scope, gap.cause, gap.first_seq, first_ns, ends=ends)
        for happening in decided.happenings:
            self._monitor.event(happening.name, **happening.fields)
        self.wake()

    def wake(self) -> None:
        """Have what is due be done soon."""
        self._wake.set()

    def _used_instruments(self) -> set[int]:
        """Return the instruments of all that is declared, and of all that is filled in afterwards."""
        declared = {subscription.instrument for subscription in self._session.subscriptions.values()}
        return declared | self._backfiller.instruments

    def is_young(self, now_s: float) -> bool:
        """Tell whether the gateway may still hold lines of an earlier connection."""
        return now_s - self._connected_s < YOUNG_S

    @complete
    def lose(self, error: Exception) -> None:
        """The connection is broken: say so everywhere."""
        link, self._link = self._link, None
        if link is None:
            return
        now_s = time.monotonic()
        link.reset()
        self._leave(link)
        self._outbox.arrived(None, now_s)  # or it arrives now, with what the network still holds
        if self._life is not None:
            self._life.ready.clear()
        self.lines.poll(now_s)
        self.last_error = error
        # Nothing has come since the last bytes, however long it took to notice.
        first_seq, first_ns = self._feed.seq + 1, time.time_ns() - int((now_s - self._heard_s) * NS_PER_S)
        self._outage = first_seq, first_ns, self._heard_s
        self._record_outage(first_seq, first_ns)
        self._forget_link()
        if not isinstance(error, NotConnectedError):
            error, cause = NotConnectedError(f"the connection was lost: {error}"), error
            error.__cause__ = cause
        self._manager.end_session(error)
        self.reconnection.lost(now_s, time.time())
        is_planned = self.reconnection.state is LinkState.PLANNED
        self._monitor.event("planned_outage" if is_planned else "connection_lost", error=str(error))
        self._monitor.transition(self.reconnection.state.name, str(error))
        self.act()

    def hand_over_gaps(self, subscription: Subscription, other: Supervisor) -> None:
        """Have another supervisor backfill what of a subscription's gaps is not backfilled yet."""
        other._backfiller.adopt(self._backfiller.surrender(subscription))

    def move_to(self, port: int) -> None:
        """The gateway listens elsewhere from now on."""
        self._port = port

    # --- the loop ---

    def _begin_life(self) -> _Life:
        self._feed.claim(self, self._used_instruments)
        life = _Life()
        life.task = life.loop.create_task(self._live(life), name="ibfast supervisor")
        return life

    async def _live(self, life: _Life) -> None:
        """Own the link: everything that opens one happens here, and ends with this task."""
        try:
            await self.gone()
            self._begin()
            is_ready = await self._attempt()
            if not is_ready and not life.is_persistent:
                self._end(life)
            elif not life.first.done():
                life.first.set_result(is_ready)
            await self._keep(life)
        except asyncio.CancelledError:
            if self._life is life:  # `stop` did not do it: asyncio.run ends, say
                self._abandon(life)
            raise
        except Exception as error:  # of the first attempt: its callers get it
            if not life.first.done():
                life.first.set_exception(error)
                life.first.exception()  # retrieved: the callers may be gone
            self._end(life)

    async def _keep(self, life: _Life) -> None:
        while self._life is life:
            try:
                await self._turn()
            except Exception as error:
                self._fail(error)
                await asyncio.sleep(CALM_S)

    async def _turn(self) -> None:
        """Do what is due, and wait for the next time."""
        self._wake.clear()
        now_s = time.monotonic()
        if self._link is not None:
            pause_s = self._tick(now_s)
        elif self._is_over:
            self._give_up()
            return
        else:
            pause_s = await self._reconnect(now_s)
        if pause_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _reconnect(self, now_s: float) -> float:
        """Try to connect if it is time. Return how long to wait."""
        pause_s = self.reconnection.next_attempt_s(now_s)
        if pause_s is None:
            return CALM_S
        if pause_s > 0:
            return pause_s
        permit = self.breaker.allow(now_s)
        if permit is None:
            return max(self.breaker.retry_after_s(now_s), EAGER_S)
        try:
            is_ready = await self._attempt()
        except BaseException:
            self.breaker.cancel(permit, time.monotonic())
            raise
        if is_ready:
            self.breaker.success(permit, time.monotonic())
        elif self.reconnection.counts_for_breaker:
            self.breaker.failure(permit, time.monotonic())
        else:
            self.breaker.cancel(permit, time.monotonic())
        return 0.0

    def _tick(self, now_s: float) -> float:
        """Do what is due. Return when to come back, in seconds."""
        self.lines.poll(now_s)
        self._note_dates(now_s)
        self._check_link(now_s)
        if self._link is None:
            return 0.0
        self.lines.judge(now_s, time.time())
        self._session.tick(now_s)
        if self._session.is_behind(now_s):
            self._outbox.ask_clock()
        self._feed.free_unused()
        self.book.note_alive(now_s, self._client_id)
        self._tell_quarantine()
        self.limits = self._outbox.limiter.limits(now_s)
        self.act()
        self._wake.clear()
        # A probe that is due is sent when the outbox can send it.
        beat_s = None if self._outbox.is_clock_wanted else self.heartbeat.next_s(now_s)
        times = [self._session.next_s(now_s), self._outbox.next_s(now_s), beat_s]
        pause_s = EAGER_S if self._session.awaits_data(now_s) else CALM_S
        due_s = min(at_s for at_s in (now_s + pause_s, *times) if at_s is not None)
        return max(due_s - time.monotonic(), LEAST_PAUSE_S)

    def _note_dates(self, now_s: float) -> None:
        """Have the heartbeat compare when the newest trades have happened with when they are seen."""
        instruments = list({subscription.instrument for subscription in self._session.open_subscriptions()})
        event_ns = self._feed.last["last_event_ns"][instruments].tolist()
        for instrument, at_ns in zip(instruments, event_ns, strict=True):
            if at_ns:
                self.heartbeat.dated(instrument, at_ns / NS_PER_S, now_s)

    def _check_link(self, now_s: float) -> None:
        self._link_health = self.heartbeat.link(now_s)
        if self._link_health is LinkHealth.LOST:
            silence_s = self._manager.config.heartbeat.interval_s + self._manager.config.heartbeat.timeout_s
            self.lose(NotConnectedError(f"the gateway has been silent for {silence_s:g} s and does not answer"))
            return
        if self._link_health is LinkHealth.SLOW and not self._is_slow_told:
            self._is_slow_told = True
            self._monitor.event("link_slow", late_s=round(self.heartbeat.lateness_s, 3))
        elif self._link_health is LinkHealth.ALIVE and self._is_slow_told:
            self._is_slow_told = False
            self._monitor.event("link_recovered")
        if self.heartbeat.probe_due(now_s):
            self._outbox.ask_clock()

    # --- connecting ---

    async def _attempt(self) -> bool:
        """Try once, with one client id after the other if need be."""
        if not self.reconnection.attempt():
            return False
        self._monitor.transition(LinkState.CONNECTING.name)
        failure: ConnectError | None = None
        for client_id in self._client_ids():
            try:
                await self._open(client_id)
            except ClientIdInUseError as error:
                failure = error
                self._monitor.event("client_id_in_use", client_id=client_id)
                continue
            except ConnectError as error:
                failure = error
            except Exception:
                self.reconnection.failed(time.monotonic(), time.time())
                raise
            else:
                self._client_id = client_id
                self._on_connected()
                return True
            break
        assert failure is not None
        self.last_error = failure
        needs_human = self.reconnection.failed(
            time.monotonic(),
            time.time(),
            needs_login=failure.needs_login,
            fatal=isinstance(failure, AuthError),
            is_local=failure.stage == "system",
        )
        is_news = self.reconnection.counts_for_breaker or needs_human
        self._monitor.event("connect_failed" if is_news else "attempt_failed", error=str(failure))
        self._monitor.transition(self.reconnection.state.name, str(failure))
        if needs_human and self.reconnection.state is LinkState.NEEDS_LOGIN:
            self._monitor.event("needs_login", remedy="log in to TWS or IB Gateway", error=str(failure))
        return False

    def _client_ids(self) -> Iterator[int]:
        """Yield the client ids to try: the one in use, then others that no sibling has leased.

        Without a list in the configuration there are others only where nobody is there to choose one.
        """
        yield self._client_id
        spare = self._manager.config.session.client_ids
        is_unattended = self._outage is not None or (self._life is not None and self._life.is_persistent)
        if not spare and is_unattended:
            spare = self._manager.membership.spare_client_ids
        for client_id in (self._manager.config.client_id, *spare):
            if client_id != self._client_id and self.book.lease(client_id):
                yield client_id

    async def _open(self, client_id: int) -> None:
        protocol = Protocol(self._feed, client_id, zone=self._manager.config.zone)
        link = Link(self._manager.config, self._port, protocol, lambda: self._on_change(link), self._observe_read)
        self._link = link
        self._manager.begin_session(protocol)
        self._quarantined = 0
        try:
            await link.open()
            await self._reactions.authenticate(link, self.auth)
            if not link.ready:
                raise ConnectError("start", "the gateway closed the session as soon as it was ready", "connect again")
        except BaseException:
            self._leave(link)
            if self._link is link:
                self._link = None
                self._session.disconnected()  # what was told of this session, such as a lost link, ends with it
            raise

    @complete
    def _on_connected(self) -> None:
        assert self._link is not None
        assert self._life is not None
        now_s = self._connected_s = time.monotonic()
        self.last_error = None
        self.reconnection.connected(now_s)
        self.heartbeat.connected(now_s)
        self._link_health = LinkHealth.ALIVE
        self._is_slow_told = False
        self.book.begin(now_s, self._client_id)
        self._outbox.begin(self._link.protocol, self._link.flush)
        if self._outage is not None:
            (first_seq, first_ns, first_s), last_ns = self._outage, time.time_ns()
            self._record_outage(first_seq, begin_ns(first_ns, last_ns, now_s - first_s), self._feed.seq, last_ns)
            self._outage = None
        self._session.connected(now_s)
        self._life.ready.set()
        self._monitor.transition(LinkState.CONNECTED.name)
        self.act()

    def _begin(self) -> None:
        """Start from the configuration, and from what is written."""
        self._port = self._manager.config.port
        self._client_id = self._manager.config.client_id
        self.reconnection.stop()
        # An event belongs to the loop on which it was waited for first, and a manager may see several.
        self._wake = asyncio.Event()
        self._backfiller = Backfiller(self._manager)
        self.book.open(time.monotonic())

    @complete
    def _end(self, life: _Life, reason: NotConnectedError | None = None) -> None:
        """Close everything at once; what is declared stays in the store.

        It waits for nothing, so that nobody can cancel it half-way.

        Args:
            life: nothing happens if it is over already.
            reason: raised by the streams; None: the streams are their owner's business.
        """
        if self._life is not life:
            return
        was_ready = self.is_ready
        self._life = None
        link, self._link = self._link, None
        if link is not None:
            self._leave(link)
        if not life.loop.is_closed():
            self._leave_life(life)
        if link is not None:
            self.lines.poll(time.monotonic())
            if was_ready:
                self.book.note_state()
            for gap in self._session.unrecorded_gaps():
                self._record(gap)
            self._forget_link()
            self._manager.end_session(NotConnectedError("the connection was closed"))
        if reason is not None:
            for subscription in list(self._session.subscriptions.values()):
                self._manager.fail_streams(subscription, reason)
        self.book.close()
        self._session.clear()
        self._feed.release(self)
        self._monitor.transition(self.reconnection.state.name)

    def _leave(self, link: Link) -> None:
        """Close a link; `gone` waits for its socket."""
        ended = link.close()
        if ended is not None:
            self._note_leaving(ended)

    def _leave_life(self, life: _Life) -> None:
        """End the tasks of a life, and let its callers know."""
        if asyncio.current_task() is not life.task:
            life.task.cancel()
        self._note_leaving(life.task)
        self._note_leaving(life.loop.create_task(self._backfiller.stop(), name="ibfast backfill's end"))
        if not life.first.done():
            life.first.set_result(False)
        life.ready.set()

    def _note_leaving(self, future: asyncio.Future[Any]) -> None:
        self._leaving = {other for other in self._leaving if not other.done() and not other.get_loop().is_closed()}
        self._leaving.add(future)

    def _forget_link(self) -> None:
        now_s = time.monotonic()
        self.heartbeat.disconnected(now_s)
        self._session.disconnected()
        self.lines.end(now_s)

    def _give_up(self) -> None:
        """There will be no connection again: every stream that no other connection takes over ends with the reason."""
        assert self._life is not None
        self._manager.membership.on_give_up()
        reason = self.last_error or NotConnectedError("the connection was lost")
        if not isinstance(reason, NotConnectedError):
            reason, cause = NotConnectedError(f"the connection was lost: {reason}"), reason
            reason.__cause__ = cause
        if self._manager.config.reconnection.enabled:
            self._monitor.event("gave_up", error=str(reason), attempts=self.reconnection.attempts)
        self._backfiller.drop("there will be no connection again")
        self._end(self._life, reason)

    # --- messages ---

    def _on_change(self, link: Link) -> None:
        """Handle what a read has changed. Called by the connection, also by one that was given up."""
        try:
            self._take_read(link)
        except Exception as error:
            if not self.is_ready:  # the attempt to connect fails with it
                raise
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A fault of ours must not leave a connection that nobody looks after: it is made anew."""
        logger.error("the supervisor failed", exc_info=error)
        self.lose(NotConnectedError(f"the connection was given up after an internal error: {error!r}"))

    def _take_read(self, link: Link) -> None:
        if link is not self._link:
            return
        now_s = time.monotonic()
        self._heard_s = now_s
        self.heartbeat.bytes_received(now_s)
        arrivals = link.protocol.events()
        for arrival in arrivals:
            self._handle(arrival, now_s)
        if link.protocol.state is State.CLOSED and self.is_ready:
            self.lose(link.protocol.error or NotConnectedError("the connection was lost"))
        elif arrivals:
            self.act()

    def _handle(self, arrival: Arrival, now_s: float) -> None:
        message = arrival.message
        self._reactions.hear(message)
        if isinstance(message, ErrorMessage):
            self._reactions.react(message, now_s)
        elif _is_clock(message):
            rtt_s = self.heartbeat.probe_answered(now_s, _clock_s(message))
            asked_s = self._outbox.clock_answered(now_s, has_ib=self._session.is_link_up)
            if asked_s is not None:
                self._session.caught_up(asked_s)
            if rtt_s is not None:
                self._monitor.round_trip.observe(int(rtt_s * NS_PER_S))
        elif isinstance(message, responses.RerouteMarketData | responses.RerouteMarketDepth):
            subscription = self._session.of_request(message.req_id)
            if subscription is not None:
                self._session.reroute(subscription, message.con_id, message.exchange)
        self._manager.take(arrival)

    # --- gaps and health ---

    def _record(self, gap: Gap) -> None:
        subscription = gap.subscription
        self._feed.add_gap(
            time.time_ns(), gap.scope, gap.cause, instrument=subscription.instrument,
            req_id=subscription.newest_req_id, first_seq=gap.first_seq, first_ns=gap.first_ns,
        )  # fmt: skip

    def _record_outage(self, first_seq: int, first_ns: int, last_seq: int = 0, last_ns: int = 0) -> None:
        """Record the loss of the connection: open, or with its end when there is a connection again.

        Where others fill the feed too it is no matter of all readers: the gaps of the subscriptions tell it.
        """
        if not self._manager.membership.fills_feed_alone:
            return
        self._feed.add_gap(
            last_ns or first_ns, Scope.CONNECTION, GapCause.CONNECTION_LOST,
            first_seq=first_seq, last_seq=last_seq, first_ns=first_ns, last_ns=last_ns, recovered=last_ns != 0,
        )  # fmt: skip

    def _tell_quarantine(self) -> None:
        decoder = self._manager.protocol.decoder
        if decoder is not None and decoder.quarantined > self._quarantined:
            self._quarantined = decoder.quarantined
            self._monitor.event("quarantined", messages=self._quarantined)
        if self._feed.instruments.refused and not self._refused_instruments_told:
            self._refused_instruments_told = True
            self._monitor.event("instruments_full", remedy="set more max_instruments")

    def _observe_read(self, decode_ns: int, messages: int) -> None:
        self._monitor.decode_read.observe(decode_ns)
        if messages:
            self._monitor.decode_message.observe(decode_ns // messages)

    def _health(self) -> Health:
        """Judge the session and the streams that it has served; nobody who asks for a stream can spoil it by that."""
        reasons, warnings = list(self._against_session()), list[str]()
        young_s = time.monotonic() - SETTLED_S
        for subscription in tuple(self._session.subscriptions.values()) if self.is_ready else ():
            is_stale = subscription.state is SubscriptionState.STALE
            if is_stale or subscription.state not in FLOWING:
                is_settled = subscription.wanted_s <= young_s
                told = shown(f"{subscription!r}: {subscription.reason}")
                (reasons if is_stale and is_settled else warnings).append(told)
        return Health(not reasons, tuple(reasons), warnings=tuple(warnings), is_connected=self.is_ready)

    def _against_session(self) -> Iterator[str]:
        life = self._life
        if life is not None and life.loop.is_closed():
            yield "no session: the event loop that kept the connection is closed: connect again"
            return
        if not self.is_ready:
            yield f"no session: {self._monitor.state}: {self.last_error or 'connect() was not called'}"
            return
        if self._link_health is LinkHealth.SLOW:
            yield f"the link is slow: what arrives is {self.heartbeat.lateness_s:.3g} s late"
        elif self._link_health is not LinkHealth.ALIVE:
            yield "the gateway does not answer"
        if not self._session.is_link_up:
            yield "the gateway has lost its connection to IB"
        if self._session.is_suspended:
            yield "another session of this login has the market data"


def _is_clock(message: responses.Response) -> bool:
    """Tell whether the gateway's clock has come: one that can't be read shows that the gateway answers, too."""
    if isinstance(message, responses.Unreadable):
        return message.msg_id in CLOCK_ANSWERS
    return isinstance(message, responses.CurrentTime | responses.CurrentTimeInMillis)


def _clock_s(message: responses.Response) -> float | None:
    """Return what the gateway's clock says, UTC seconds; None if that can't be read."""
    match message:
        case responses.CurrentTime(time_s=time_s):
            return float(time_s)
        case responses.CurrentTimeInMillis(time_ms=time_ms):
            return time_ms / 1000
    return None
