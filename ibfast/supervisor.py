"""What keeps a connection and its subscriptions alive: one task that carries out what the policies decide.

The rule of the file: policies decide, this acts. All of it happens on the event loop's thread: `_tick` looks at clocks,
`_on_change` at what was read, and both end in `act`, which alone sends, records gaps and tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterator

from ibfast.backfill import Backfiller
from ibfast.enums import GapCause, Scope, ServerVersion
from ibfast.errors import AuthError, ClientIdInUseError, ConnectError, NotConnectedError, PacingError, StoreError
from ibfast.link import Link
from ibfast.owner import Owner
from ibfast.policy.auth import AuthManager
from ibfast.policy.breaker import CircuitBreaker
from ibfast.policy.heartbeat import HeartbeatMonitor, LinkHealth, SilenceLimits, StreamState
from ibfast.policy.hours import TradingHours
from ibfast.policy.pacing import Ticket, TicketState
from ibfast.policy.reconnection import LinkState, Reconnection
from ibfast.policy.session import (
    FLOWING,
    SUBSCRIPTION_REQUESTS,
    Gap,
    Subscription,
    SubscriptionRequest,
    SubscriptionState,
    family_of,
)
from ibfast.protocol import Protocol, State
from ibfast.reactions import Reactions
from ibfast.store import Store
from ibfast.wire import requests, responses
from ibfast.wire.responses import ErrorMessage, Response

__all__ = ["Supervisor"]

logger = logging.getLogger("ibfast")

# How often activity is looked at: while something is awaited, and otherwise.
EAGER_S, CALM_S = 0.02, 0.25
LEAST_PAUSE_S = 0.001
# Ticks keep arriving after a cancel, so a request's binding to its instrument outlives it.
KEEP_BINDING_S = 30.0
# After an error 100 nobody knows which requests were not taken: those of this time are repeated, so many at most.
REPEATED_S, REPEATABLE = 1.5, 256
# The gateway may hold what an earlier connection of ours had open for so long.
YOUNG_S = 60.0
# How often the store is told that the session lives: by so much too early begins the gap that a killed process leaves.
ALIVE_S = 5.0
LEASE_S = 60.0
REAL_TIME_BAR_S = 5.0
NS = 1_000_000_000


class Supervisor:
    """Carries out one manager's policies.

    Args:
        manager: whose connection it is.

    Attributes:
        last_error: why the last attempt to connect failed or the connection was lost, None if neither.
        heartbeat, reconnection, breaker, auth: the policies.
    """

    def __init__(self, manager: Owner) -> None:
        config = manager.config
        self.last_error: Exception | None = None
        self.heartbeat = HeartbeatMonitor(
            config.heartbeat.interval_s,
            config.heartbeat.timeout_s,
            limits=SilenceLimits(
                quiet_s=config.heartbeat.quiet_s,
                stale_s=config.heartbeat.stale_s,
                dead_s=config.heartbeat.dead_s,
                first_data_s=config.heartbeat.first_data_s,
            ),
        )
        self.reconnection = Reconnection(
            delay_s=config.reconnection.delay_s,
            max_delay_s=config.reconnection.max_delay_s,
            max_attempts=config.reconnection.max_attempts,
            stable_s=config.reconnection.stable_s,
            planned_poll_s=config.reconnection.planned_poll_s,
            login_poll_s=config.reconnection.login_poll_s,
            calendar=config.reconnection.calendar,
        )
        self.breaker = CircuitBreaker(
            "connect",
            window_calls=config.breaker.window_calls,
            failure_rate=config.breaker.failure_rate,
            open_s=config.breaker.open_s,
            probes=config.breaker.probes,
        )
        self.auth = AuthManager(config.auth.account_type, config.auth.accounts, config.auth.read_only)
        self._manager = manager
        self._feed = manager.feed
        self._session = manager.session
        self._outbox = manager.outbox
        self._monitor = manager.monitor
        self._reactions = Reactions(manager, self)
        self._backfiller = Backfiller(manager)
        self._port = 0
        self._client_id = 0
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._store: Store | None = None
        self._alive_at_s = 0.0
        self._tickets: dict[int, Ticket] = {}
        self._watched: set[Subscription] = set()
        self._cancelled: deque[tuple[float, requests.Request]] = deque(maxlen=REPEATABLE)
        self._connected_s = 0.0
        self._bound: deque[tuple[float, int]] = deque()
        self._outage: tuple[int, int] | None = None
        self._quarantined = 0
        self._refused_instruments_told = False
        self._monitor.health_source = self._against_health
        self._watch_metrics()

    # --- from outside ---

    @property
    def is_running(self) -> bool:
        """Whether the connection is kept."""
        return self._task is not None

    async def connect(self, *, persist: bool) -> bool:
        """Make the first connection, or wait for the one that is being made. Persistence goes on after a failure."""
        async with self._connecting:
            if self._task is not None:
                return await self._is_ready_in_time()
            self._feed.claim(self)
            try:
                self._begin()
                ready = await self._attempt()
            except BaseException:
                await self._end()
                raise
            if ready or persist:
                self._task = asyncio.create_task(self._run(), name="ibfast supervisor")
            else:
                await self._end()
            return ready

    async def stop(self) -> None:
        """End the connection, and keep it no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.reconnection.stop()
        await self._end()
        self._outage = None

    def act(self) -> None:
        """Send, record and tell what the session wants, and what may be sent now."""
        now_s = time.monotonic()
        for gap in self._session.take_gaps():
            self._record(gap)
        for req_id in self._session.take_marks():
            self._feed.mark(req_id)
        for req_id in self._session.take_ended():
            self._finish(req_id)
        if self._link is not None and self._link.ready:
            for request in self._session.take_requests():
                self._submit(request, now_s)
            self._outbox.pump(now_s)
        for happening in self._session.take_happenings():
            self._monitor.event(happening.name, **happening.fields)
        self._wake.set()

    def remember(self, subscription: Subscription) -> None:
        """Write a declaration to the store, or its end."""
        if self._store is None:
            return
        wanted = self._session.subscriptions.get(subscription.request) is subscription
        with self._storing() as store:
            if wanted:
                subscription.is_durable = True
                store.remember(subscription.request, subscription.priority)
            else:
                store.forget(subscription.request)

    def _finish(self, req_id: int, *, cancelled: bool = False) -> None:
        """A subscription's request is over at the gateway: its slot is free, its binding not yet."""
        ticket = self._tickets.pop(req_id, None)
        if ticket is not None and ticket.state is TicketState.QUEUED:  # the gateway never heard of it
            self._outbox.withdraw(ticket)
            self._feed.forget_requests([req_id])
        elif ticket is not None:
            now_s = time.monotonic()
            self._outbox.limiter.finish(ticket, cancelled_s=now_s if cancelled else None)
            self._bound.append((now_s + KEEP_BINDING_S, req_id))

    def is_young(self, now_s: float) -> bool:
        """Tell whether the gateway may still hold lines of an earlier connection."""
        return now_s - self._connected_s < YOUNG_S

    def repeat(self, now_s: float) -> None:
        """Ask again for what may not have been taken, since the requests came too fast (100)."""
        for sent_s, cancel in tuple(self._cancelled):
            if now_s - sent_s < REPEATED_S:
                self._outbox.submit(cancel, now_s)
        for subscription in self._session.open_subscriptions():
            ticket = self._tickets.get(subscription.req_id)
            is_new = ticket is not None and ticket.state is TicketState.SENT and now_s - ticket.sent_s < REPEATED_S
            if is_new and not subscription.messages:
                self._session.renew(
                    subscription, now_s, Scope.CONNECTION, GapCause.STREAM_ENDED, "it may not have been taken"
                )

    def room(self, family: str) -> int:
        """Return how many subscriptions of a family this connection may have: what is free, and what it has."""
        limiter = self._outbox.limiter
        own = sum(
            family_of(ticket.request) == family and ticket.state is TicketState.SENT
            for ticket in self._tickets.values()
            if isinstance(ticket.request, SUBSCRIPTION_REQUESTS)
        )
        return limiter.free(family, time.monotonic()) + own

    def eta_s(self, subscription: Subscription) -> float:
        """Return in how many seconds its request is going to be sent; 0 if it was, infinite if nobody knows."""
        ticket = self._tickets.get(subscription.req_id)
        return math.inf if ticket is None else self._outbox.limiter.eta_s(ticket, time.monotonic())

    def ticket_of(self, req_id: int) -> Ticket | None:
        """Return the ticket of an open subscription's request."""
        return self._tickets.get(req_id)

    def poll(self, now_s: float) -> None:
        """Look at what has come, for every open request."""
        subscriptions = [s for s in self._session.open_subscriptions() if s.req_id in self._tickets]
        if not subscriptions:
            return
        activity = self._feed.activity([subscription.req_id for subscription in subscriptions])
        for subscription, row in zip(subscriptions, activity.tolist(), strict=True):
            _, messages, first_ns, last_ns, first_seq, last_seq = row
            if messages != subscription.messages:
                self._session.progress(subscription, now_s, messages, (first_seq, first_ns), (last_seq, last_ns))
            self.heartbeat.data(subscription, messages, now_s)

    def lose(self, error: Exception) -> None:
        """The connection is broken: say so everywhere."""
        link, self._link = self._link, None
        if link is None:
            return
        now_s = time.monotonic()
        link.abort()
        self._ready.clear()
        self.poll(now_s)
        self.last_error = error
        self._monitor.event("connection_lost", error=str(error))
        self._outage = self._feed.seq + 1, time.time_ns()
        self._record_outage(*self._outage)
        self._forget_link()
        if not isinstance(error, NotConnectedError):
            error, cause = NotConnectedError(f"the connection was lost: {error}"), error
            error.__cause__ = cause
        self._manager.end_session(error)
        self.reconnection.lost(now_s, time.time())
        self._monitor.transition(self.reconnection.state.name, str(error))
        self.act()

    def move_to(self, port: int) -> None:
        """The gateway listens elsewhere from now on."""
        self._port = port

    # --- the loop ---

    async def _run(self) -> None:
        while True:
            try:
                if not await self._turn():
                    return
            except Exception as error:
                # A fault of ours must not leave a connection that nobody looks after: it is made anew.
                logger.exception("the supervisor failed")
                self.lose(NotConnectedError(f"the connection was given up after an internal error: {error!r}"))
                await asyncio.sleep(CALM_S)

    async def _turn(self) -> bool:
        """Do what is due, and wait for the next time. False when there is nothing left to do for good."""
        self._wake.clear()
        now_s = time.monotonic()
        if self._link is not None:
            pause_s = self._tick(now_s)
        elif not self._manager.config.reconnection.enabled or self.reconnection.state is LinkState.GAVE_UP:
            self._give_up()
            return False
        else:
            pause_s = await self._reconnect(now_s)
        if pause_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
        return True

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
        self.poll(now_s)
        self._check_link(now_s)
        if self._link is None:
            return 0.0
        self._judge_streams(now_s)
        self._session.tick(now_s)
        self._unbind(now_s)
        self._stay_alive(now_s)
        self._tell_quarantine()
        self.act()
        self._wake.clear()
        times = [self._session.next_s(now_s), self._outbox.limiter.next_s(now_s), self.heartbeat.next_s(now_s)]
        pause_s = EAGER_S if self._session.awaits_data(now_s) else CALM_S
        due_s = min(at_s for at_s in (now_s + pause_s, *times) if at_s is not None)
        return max(due_s - time.monotonic(), LEAST_PAUSE_S)

    def _check_link(self, now_s: float) -> None:
        health = self.heartbeat.link(now_s)
        if health is LinkHealth.LOST:
            silence_s = self._manager.config.heartbeat.interval_s + self._manager.config.heartbeat.timeout_s
            self.lose(NotConnectedError(f"the gateway has been silent for {silence_s:g} s and does not answer"))
            return
        if self.heartbeat.probe_due(now_s):
            in_millis = self._manager.protocol.server_version >= ServerVersion.CURRENT_TIME_IN_MILLIS
            question = requests.CurrentTimeInMillisRequest() if in_millis else requests.CurrentTimeRequest()
            self.heartbeat.probe_sent(now_s)
            self._outbox.submit(question, now_s)

    def _judge_streams(self, now_s: float) -> None:
        """Have silent streams renewed, unless there is a reason for their silence that a renewal does not end."""
        for subscription in self._watched - set(self._session.subscriptions.values()):
            self.heartbeat.forget(subscription)
            self._watched.discard(subscription)
        is_muted = self._session.is_suspended or not self._session.is_link_up
        for subscription in self._session.open_subscriptions():
            if subscription.req_id in self._tickets:
                (self.heartbeat.suspend if is_muted else self.heartbeat.resume)(subscription)
        for change in self.heartbeat.check(now_s, time.time()):
            assert isinstance(change.key, Subscription)
            self._monitor.event(
                f"stream_{change.after.name.lower()}", subscription=repr(change.key), before=change.before,
                silent_s=round(change.silent_s, 3),
            )  # fmt: skip
            if change.after is StreamState.DEAD:
                self._session.silent(change.key, now_s)
            else:
                self._session.state_seen(change.key, SubscriptionState[change.after.name])

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
        self._monitor.event("connect_failed", error=str(failure))
        needs_human = self.reconnection.failed(
            time.monotonic(),
            time.time(),
            needs_login=failure.stage in ("handshake", "start") and not isinstance(failure, ClientIdInUseError),
            fatal=isinstance(failure, AuthError),
        )
        self._monitor.transition(self.reconnection.state.name, str(failure))
        if needs_human and self.reconnection.state is LinkState.NEEDS_LOGIN:
            self._monitor.event("needs_login", remedy="log in to TWS or IB Gateway", error=str(failure))
        return False

    def _client_ids(self) -> Iterator[int]:
        """Yield the client ids to try: the one in use, then others that no sibling has leased."""
        yield self._client_id
        spare = self._manager.config.session.client_ids
        if not spare and self._outage is not None:
            spare = self._manager.membership.spare_client_ids
        for client_id in (self._manager.config.client_id, *spare):
            if client_id != self._client_id and self._lease(client_id):
                yield client_id

    def _lease(self, client_id: int) -> bool:
        if self._store is None:
            return True
        now_ns = time.time_ns()
        with self._storing() as store:
            gateway = f"{self._manager.config.host}:{self._manager.config.port}"
            return store.lease(gateway, client_id, now_ns, now_ns + int(LEASE_S * NS))
        return True

    async def _open(self, client_id: int) -> None:
        protocol = Protocol(self._feed, client_id, zone=self._manager.config.zone)
        link = Link(self._manager.config, self._port, protocol, self._on_change, self._observe_read)
        self._link = link
        self._manager.begin_session(protocol)
        self._quarantined = 0
        try:
            await link.open()
            await self._reactions.authenticate(link, self.auth)
            if not link.ready:
                raise ConnectError("start", "the gateway closed the session as soon as it was ready", "connect again")
        except BaseException:
            self._link = None
            await link.close()
            raise

    def _on_connected(self) -> None:
        assert self._link is not None
        now_s = self._connected_s = time.monotonic()
        self.last_error = None
        self.reconnection.connected(now_s)
        self.heartbeat.connected(now_s)
        self._outbox.begin(self._link.protocol, self._link.flush)
        if self._outage is not None:
            self._record_outage(*self._outage, self._feed.seq, time.time_ns())
            self._outage = None
        self._session.connected(now_s)
        self._ready.set()
        self._monitor.transition(LinkState.CONNECTED.name)
        self.act()

    async def _is_ready_in_time(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._manager.config.connect_timeout_s):
                await self._ready.wait()
        return self._ready.is_set()

    def _begin(self) -> None:
        """Start from the configuration; open the store, and declare what it remembers."""
        self._port = self._manager.config.port
        self._client_id = self._manager.config.client_id
        self.reconnection.stop()
        # An event belongs to the loop on which it was waited for first, and a manager may see several.
        self._wake, self._ready = asyncio.Event(), asyncio.Event()
        path = self._manager.config.session.store
        if path is None:
            return
        try:
            self._store = Store(path, self._manager.config.session.name)
            remembered = self._store.read()
        except StoreError as error:
            self._on_store_error(error)
            return
        if remembered.subscriptions:
            self._monitor.event("remembered", subscriptions=len(remembered.subscriptions))
        self._session.set_market_data_type(remembered.market_data_type)
        now_s = time.monotonic()
        for request, priority in remembered.subscriptions:
            if request not in self._session.subscriptions and not self._manager.membership.is_elsewhere(request):
                instrument = self._manager.instrument_of(request.contract)
                subscription = self._session.declare(request, instrument, now_s, priority=priority)
                subscription.is_durable = True
                if remembered.alive_ns:
                    self._session.continue_from(subscription, remembered.alive_ns)

    async def _end(self) -> None:
        """Close everything; what is declared stays in the store."""
        link, self._link = self._link, None
        was_ready = self._ready.is_set()
        self._ready.clear()
        if link is not None:
            self.poll(time.monotonic())
            if was_ready:
                self._stay_alive(float("inf"))
            self._forget_link()
            self._manager.end_session(NotConnectedError("the connection was closed"))
            await link.close()
        await self._backfiller.stop()
        if self._store is not None:
            self._store.close()
            self._store = None
        self._session.clear()
        self._feed.release(self)
        self._monitor.transition(self.reconnection.state.name)

    def _forget_link(self) -> None:
        for subscription in self._watched:
            self.heartbeat.forget(subscription)
        self._watched.clear()
        self._cancelled.clear()
        now_s = time.monotonic()
        self.heartbeat.disconnected(now_s)
        self._session.disconnected()
        self._outbox.end(now_s)
        self._feed.forget_requests([*self._tickets, *(req_id for _, req_id in self._bound)])
        self._tickets.clear()
        self._bound.clear()

    def _give_up(self) -> None:
        """There will be no connection again: every stream that no other connection takes over ends with the reason."""
        self._manager.membership.on_give_up()
        reason = self.last_error or NotConnectedError("the connection was lost")
        if not isinstance(reason, NotConnectedError):
            reason, cause = NotConnectedError(f"the connection was lost: {reason}"), reason
            reason.__cause__ = cause
        if self._manager.config.reconnection.enabled:
            self._monitor.event("gave_up", error=str(reason), attempts=self.reconnection.attempts)
        for subscription in list(self._session.subscriptions.values()):
            self._manager.fail_streams(subscription, reason)
        self._session.clear()
        self._feed.release(self)
        if self._store is not None:
            self._store.close()
            self._store = None
        self._task = None

    # --- messages ---

    def _on_change(self) -> None:
        """Handle what a read has changed. Called by the connection."""
        link = self._link
        if link is None:
            return
        now_s = time.monotonic()
        self.heartbeat.bytes_received(now_s)
        messages = link.protocol.events()
        for message in messages:
            self._handle(message, now_s)
        if link.protocol.state is State.CLOSED and self._ready.is_set():
            self.lose(link.protocol.error or NotConnectedError("the connection was lost"))
        elif messages:
            self.act()

    def _handle(self, message: Response, now_s: float) -> None:
        self._reactions.hear(message)
        if isinstance(message, ErrorMessage):
            self._reactions.react(message, now_s)
        elif isinstance(message, responses.CurrentTime | responses.CurrentTimeInMillis):
            rtt_s = self.heartbeat.probe_answered(now_s)
            if rtt_s is not None:
                self._monitor.round_trip.observe(int(rtt_s * NS))
        elif isinstance(message, responses.RerouteMarketData | responses.RerouteMarketDepth):
            subscription = self._session.of_request(message.req_id)
            if subscription is not None:
                self._session.reroute(subscription, message.con_id, message.exchange)
        self._manager.take(message)

    # --- requests of the session ---

    def _submit(self, request: requests.Request, now_s: float) -> None:
        if isinstance(request, SUBSCRIPTION_REQUESTS):
            subscription = self._session.of_request(request.req_id)
            if subscription is not None:
                self._open_subscription(subscription, request, now_s)
            return
        self._submit_other(request, now_s)

    def _open_subscription(self, subscription: Subscription, request: SubscriptionRequest, now_s: float) -> None:
        rerouted = self._tickets.pop(request.req_id, None)
        if rerouted is not None:  # the gateway has let go of the first contract
            self._outbox.limiter.finish(rerouted)
            self._tickets[request.req_id] = self._outbox.submit(request, now_s, priority=subscription.priority)
            return
        self._feed.bind(request.req_id, subscription.instrument)
        if isinstance(request, requests.MarketDepth) and len(subscription.req_ids) > 1:
            self._feed.add_book_reset(time.time_ns(), request.req_id)
        expected_s = REAL_TIME_BAR_S if isinstance(request, requests.RealTimeBars) else None
        self.heartbeat.watch(subscription, self._hours_of(subscription), expected_s)
        try:
            ticket = self._outbox.submit(request, now_s, priority=subscription.priority)
        except (PacingError, ValueError, NotConnectedError) as error:
            if self._session.refused(subscription, now_s, error):
                self._manager.fail_streams(subscription, error)
            return
        self._tickets[request.req_id] = ticket
        self._watched.add(subscription)

    def _submit_other(self, request: requests.Request, now_s: float) -> None:
        """Send a cancel, which gives a slot back once it is sent, or anything else."""
        req_id = getattr(request, "req_id", -1)
        ticket = self._tickets.get(req_id)
        if ticket is None:
            self._outbox.submit(request, now_s)
        elif self._outbox.withdraw(ticket):
            self._outbox.submit(request, now_s, sent=lambda: self._on_cancelled(req_id, request))
        else:
            del self._tickets[req_id]
            self._feed.forget_requests([req_id])

    def _on_cancelled(self, req_id: int, request: requests.Request) -> None:
        self._cancelled.append((time.monotonic(), request))
        self._finish(req_id, cancelled=True)

    def _hours_of(self, subscription: Subscription) -> TradingHours | None:
        details = self._manager.details_of(subscription.request.contract.con_id)
        if details is None:
            return None
        return TradingHours.parse(details.trading_hours, details.time_zone_id)

    def _unbind(self, now_s: float) -> None:
        over = []
        while self._bound and self._bound[0][0] <= now_s:
            over.append(self._bound.popleft()[1])
        if over:
            self._feed.forget_requests(over)

    # --- gaps, store, metrics ---

    def _record(self, gap: Gap) -> None:
        subscription = gap.subscription
        self._feed.add_gap(
            gap.last_ns or time.time_ns(), gap.scope, gap.cause,
            instrument=subscription.instrument, req_id=subscription.req_ids[-1] if subscription.req_ids else -1,
            first_seq=gap.first_seq, last_seq=gap.last_seq, first_ns=gap.first_ns, last_ns=gap.last_ns,
            recovered=gap.recovered,
        )  # fmt: skip
        if gap.recovered and self._manager.config.session.backfill:
            self._backfiller.add(gap)

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

    def _stay_alive(self, now_s: float) -> None:
        if self._store is None or now_s < self._alive_at_s:
            return
        self._alive_at_s = time.monotonic() + ALIVE_S
        with self._storing() as store:
            interrupted = [s.gap.first_ns for s in self._session.subscriptions.values() if s.gap and s.gap.first_ns]
            store.alive(min([time.time_ns(), *interrupted]), self._session.market_data_type)
            if self._client_id != self._manager.config.client_id:
                self._lease(self._client_id)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[Store]:
        """Write to the store; where it fails, the session goes on without it."""
        assert self._store is not None
        try:
            yield self._store
        except StoreError as error:
            self._on_store_error(error)

    def _on_store_error(self, error: StoreError) -> None:
        self._monitor.event("store_failed", error=str(error))

    def _tell_quarantine(self) -> None:
        decoder = self._manager.protocol.decoder
        if decoder is not None and decoder.quarantined > self._quarantined:
            self._quarantined = decoder.quarantined
            self._monitor.event("quarantined", messages=self._quarantined)
        if self._feed.instruments.refused and not self._refused_instruments_told:
            self._refused_instruments_told = True
            self._monitor.event("instruments_full", remedy="make the Feed with more max_instruments")

    def _against_health(self) -> Iterator[str]:
        if not self._ready.is_set():
            yield f"no session: {self._monitor.state}: {self.last_error or 'connect() was not called'}"
            return
        if self.heartbeat.link(time.monotonic()) is not LinkHealth.ALIVE:
            yield "the gateway does not answer"
        if not self._session.is_link_up:
            yield "the gateway has lost its connection to IB"
        for subscription in self._session.subscriptions.values():
            if subscription.state not in FLOWING or subscription.state is SubscriptionState.STALE:
                yield f"{subscription!r}: {subscription.reason}"

    def _watch_metrics(self) -> None:
        rings = self._feed.rings
        self._monitor.watch(
            "ring_published", lambda: {name: ring.published for name, ring in rings.items()},
            "Rows published", "ring", is_counter=True,
        )  # fmt: skip
        self._monitor.watch(
            "ring_rows", lambda: {name: len(ring) for name, ring in rings.items()}, "Rows that a ring holds", "ring"
        )
        self._monitor.watch(
            "ring_capacity", lambda: {name: ring.capacity for name, ring in rings.items()}, "Rows that fit", "ring"
        )
        limiter = self._outbox.limiter
        self._monitor.watch("limit_used", lambda: self._limits(0), "What is used of IB's limits", "rule")
        self._monitor.watch("limit", lambda: self._limits(1), "IB's limits, as configured and learned", "rule")
        self._monitor.watch("requests_waiting", lambda: len(limiter), "Requests that wait for IB's limits")
        self._monitor.watch("feed_seq", lambda: self._feed.seq, "Records of all rings", is_counter=True)
        self._monitor.watch("subscriptions", self._count_states, "Subscriptions by state", "state")
        self._monitor.watch("requests_sent", lambda: self._outbox.requests_sent, "Requests sent", is_counter=True)
        self._monitor.watch("quarantined", lambda: self._quarantined, "Malformed messages of this connection")

    def _limits(self, index: int) -> dict[str, float]:
        limits = self._outbox.limiter.limits(time.monotonic())
        return {rule: pair[index] for rule, pair in limits.items()}

    def _observe_read(self, decode_ns: int, messages: int) -> None:
        self._monitor.decode_read.observe(decode_ns)
        if messages:
            self._monitor.decode_message.observe(decode_ns // messages)

    def _count_states(self) -> dict[str, float]:
        counts = dict.fromkeys(map(str, SubscriptionState), 0.0)
        for subscription in self._session.subscriptions.values():
            counts[subscription.state] += 1
        return counts
