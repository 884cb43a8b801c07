"""Several connections as one: subscriptions are spread over them and move when one fails, and all fill one feed.

The rule of the file: a member is a manager like any other. The pool decides which one serves a subscription, and no
more; connecting, pacing and restoring are each member's own business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from ibfast.common.scalars import whole
from ibfast.config.sections import Config
from ibfast.connection.manager import SPARE_CLIENT_IDS, IBKRConnectionManager, feed_of, limits_of
from ibfast.connection.monitor import STATE_EVENT, Event, Health
from ibfast.connection.stream import Stream, Wanted
from ibfast.contracts import Contract
from ibfast.errors import ConfigError, NotConnectedError
from ibfast.feed.feed import Feed
from ibfast.policy.pacing.limiter import AccountLimits
from ibfast.policy.subscription import Subscription, SubscriptionRequest, SubscriptionState, family_of
from ibfast.wire.ids import MarketDataType

__all__ = ["ConnectionPool"]

# How long a gateway may take to hear of a cancel or of the end of a connection, before another connection of the same
# account takes the line.
SETTLE_S = 0.5
# How often lines are looked for where subscriptions wait for one.
SWEEP_S = 1.0
# A gateway that has lost IB is given so long to find it again before its subscriptions move.
LINK_PATIENCE_S = 10.0
# So is a login whose data another session has; by then what was under way has shown whether data goes on all the same.
LOGIN_PATIENCE_S = 5.0


class ConnectionPool:
    """Several client ids of one gateway, or several gateways, that fill one feed.

        async with ConnectionPool([Config(client_id=1), Config(client_id=2)]) as pool:
            stream = await pool.subscribe("AAPL", "LAST")

    A subscription goes where there is room for it. It moves when its member loses its connection, when the member's
    gateway has lost IB for 10 s, when another session has had the data of the member's login for 5 s (10197) and
    another login has room, and when it waits for a line that is free elsewhere; its streams go on, and their gaps tell
    what may be missing. Nothing that flows moves back.

    Members of one gateway have one login, and so share its market-data lines and its other limits; members whose
    gateways manage the same accounts do so too. Members with the same `session.store` and `session.name` share one book
    of subscriptions; in any case a subscription is remembered once.

    Health, metrics and the event `moved` name a member by its `address`, "host:port/client_id", as configured: it stays
    the same when the gateway has moved or the client id was taken.

    Args:
        configs: one for each member.
        feed: where all market data goes; made as large as any of `configs` wants it if None.

    Attributes:
        members: the managers, in the order of `configs`.
        feed: as given or made.
        registry: the metrics of all members, each with the label `member`: its address. Rows published are those of the
            one feed under every member.

    Raises:
        ConfigError: there is no member, two have one client id at one gateway, or two of one gateway differ in their
            limits.
    """

    content_type = CONTENT_TYPE_LATEST
    """Of `exposition()`, for an HTTP reply."""

    def __init__(self, configs: Sequence[Config], feed: Feed | None = None) -> None:
        _check(configs)
        self.feed = feed or feed_of(*configs)
        self._of_gateway: dict[tuple[str, int], AccountLimits] = {}
        self._of_accounts: dict[frozenset[str], AccountLimits] = {}
        self.members: list[IBKRConnectionManager] = []
        for config in configs:
            self._add(config, _spare_ids(config, configs), is_alone=len(configs) == 1)
        self._note_sharing()
        self._over: set[IBKRConnectionManager] = set()
        self._mute_since_s: dict[IBKRConnectionManager, float] = {}
        self._stop_listening: list[Callable[[], None]] = []
        self._next_sweep: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Of calls of `connect` that wait; and whether one has succeeded since the last `disconnect`.
        self._attempts: set[asyncio.Task[bool]] = set()
        self._is_up = False
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def _add(self, config: Config, spare_client_ids: tuple[int, ...], *, is_alone: bool) -> None:
        limits = self._of_gateway.setdefault((config.host, config.port), limits_of(config))
        member = IBKRConnectionManager(config, self.feed, account=limits)
        member.membership.spare_client_ids = spare_client_ids
        member.membership.fills_feed_alone = is_alone
        member.membership.on_login = partial(self._on_login, member)
        member.membership.on_give_up = partial(self._on_give_up, member)
        member.membership.is_elsewhere = lambda request: self._server_of(request) not in (None, member)
        if self.members:
            member.share_contracts(self.members[0])
        self.members.append(member)

    # --- connection ---

    async def connect(self) -> bool:
        """Connect all members, in the time that the slowest of them may take.

        `connect` and `disconnect` may be called at the same time, from any task or callback: the last call wins.

        Returns:
            Whether any is connected. If so, the others are tried again and again; `errors` says what is wrong with
            them. If not, none is; nor is it for a call that `disconnect` has overtaken.

        Raises:
            LoopError: the members' connections are kept by another event loop.
        """
        self.check_loop()
        self._over.clear()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._stop_listening = [member.monitor.listen(self._on_event) for member in self.members]
            self._sweep()
        attempts = {asyncio.create_task(member.connect(persist=True)) for member in self.members}
        self._attempts |= attempts
        try:
            await asyncio.wait(attempts)
        except asyncio.CancelledError:
            for attempt in attempts:
                attempt.cancel()
            self._conclude(attempts, is_connected=False)
            raise
        if not attempts <= self._attempts:
            return False  # `disconnect` has overtaken it
        is_connected = any(attempt.exception() is None and attempt.result() for attempt in attempts)
        self._conclude(attempts, is_connected=is_connected)
        await asyncio.gather(*attempts)  # raises what an attempt has raised
        return is_connected

    def _conclude(self, attempts: set[asyncio.Task[bool]], *, is_connected: bool) -> None:
        """Take in what a call of `connect` has come to; nothing is left of calls that all fail."""
        self._attempts -= attempts
        self._is_up |= is_connected
        if not self._is_up and not self._attempts:
            self._hang_up()

    async def disconnect(self) -> None:
        """End all sessions and every stream.

        All of it has ended before this call waits for the first time; it only waits for the sockets to close. So a
        cancelled call has ended the connections too.

        Raises:
            LoopError: the members' connections are kept by another event loop.
        """
        self.check_loop()
        self._hang_up()
        await asyncio.gather(*(member.disconnect() for member in self.members))

    def check_loop(self) -> None:
        """Forget connections whose event loop is closed; LoopError if another event loop keeps them."""
        if self._loop is not None and self._loop.is_closed():
            self._stop_watching()
        for member in self.members:
            member.check_loop()

    def _hang_up(self) -> None:
        """End everything without waiting for the sockets to close."""
        self._stop_watching()
        for member in self.members:
            member.hang_up()

    def _stop_watching(self) -> None:
        loop, self._loop = self._loop, None
        self._is_up = False
        for stop in self._stop_listening:
            stop()
        self._stop_listening.clear()
        attempts, self._attempts = self._attempts, set()
        if loop is not None and not loop.is_closed():
            if self._next_sweep is not None:
                self._next_sweep.cancel()
            for attempt in attempts:
                attempt.cancel()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectError: no member could; this is the error of the first.
        """
        if not await self.connect():
            raise next(iter(self.errors.values()), NotConnectedError("disconnect was called meanwhile"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.disconnect()

    @property
    def errors(self) -> dict[IBKRConnectionManager, Exception]:
        """What is wrong with the members that are not connected."""
        nothing = NotConnectedError("there is no session: call connect()")
        return {member: member.last_error or nothing for member in self.members if not member.session.is_connected}

    # --- subscriptions ---

    async def subscribe(
        self, contract: object, data_type: str = "QUOTES", *, priority: int = 0, **options: Any
    ) -> Stream:
        """Subscribe at the member that has the most room; see `IBKRConnectionManager.subscribe`.

        The same subscription wanted twice is served by one member, and takes one line. While no member is connected and
        any tries to be, it waits: for the shortest `config.request_timeout_s` of the members at most.

        Raises:
            NotConnectedError: no member is connected, and none has been in time.
            LoopError: the members' connections are kept by another event loop.
        """
        priority = whole("priority", priority)
        qualified, want = await self.wanted(contract, data_type, **options)
        # From here to the declaration nothing is waited for, so that nobody else can declare the same elsewhere.
        member = self._server_of(want.request) or self._best(family_of(want.request), priority, self._connected())
        if member is None:
            raise NotConnectedError("no member of the pool is connected")
        return await member.open(qualified, want, priority=priority)

    async def _any_ready(self, limit_s: float) -> bool:
        """Wait until a member has a session; return whether one has."""
        waits = {asyncio.create_task(member.ready_in_time(limit_s)) for member in self.members}
        try:
            while waits:
                done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if any(wait.result() for wait in done):
                    return True
        finally:
            for wait in waits:
                wait.cancel()
        return False

    async def wanted(self, contract: object, data_type: str, **options: Any) -> tuple[Contract, Wanted]:
        """Return the contract that is meant and what a subscription asks for; waits and raises as `subscribe`."""
        self.check_loop()
        until_s = time.monotonic() + min(member.config.request_timeout_s for member in self.members)
        while True:
            try:
                return await self._wanted_now(contract, data_type, **options)
            except NotConnectedError:
                if not await self._any_ready(until_s - time.monotonic()):
                    raise

    async def _wanted_now(self, contract: object, data_type: str, **options: Any) -> tuple[Contract, Wanted]:
        """Ask one member after the other, should connections be lost meanwhile."""
        for member in sorted(self._connected(), key=lambda member: not member.session.is_link_up):
            try:
                return await member.wanted_now(contract, data_type, **options)
            except NotConnectedError:
                continue
        raise NotConnectedError("no member of the pool is connected")

    def set_market_data_type(self, market_data_type: MarketDataType) -> None:
        """Choose real-time, frozen or delayed level 1 at all members, now and after every reconnect."""
        market_data_type = MarketDataType(market_data_type)
        for member in self.members:
            if member.session.is_connected:
                member.set_market_data_type(market_data_type)
            else:
                member.session.set_market_data_type(market_data_type)

    # --- health and metrics ---

    def health(self) -> Health:
        """Tell whether the sessions stand and no stream is stale, over all members; a member is named by its address.

        A member that serves nothing hurts nobody while another one is connected: what is wrong with it, such as that it
        is not connected, is no reason but a warning. `errors` has the exceptions.
        """
        reasons: list[str] = []
        warnings: list[str] = []
        is_any_connected = bool(self._connected())
        for member in self.members:
            is_spare = is_any_connected and not member.session.subscriptions
            health = member.health()
            (warnings if is_spare else reasons).extend(f"{member.address}: {told}" for told in health.reasons)
            warnings.extend(f"{member.address}: {told}" for told in health.warnings)
        return Health(not reasons, tuple(reasons), warnings=tuple(warnings), is_connected=is_any_connected)

    def exposition(self) -> bytes:
        """Return the metrics of all members in Prometheus' text format, of type `content_type`."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all members. Called by the registry."""
        return _merged((member.address, member.monitor.collect()) for member in self.members)

    def describe(self) -> Iterator[Metric]:
        """Yield them without values. Called by the registry."""
        return self.members[0].monitor.describe()

    # --- limits ---

    def _on_login(self, member: IBKRConnectionManager, accounts: Sequence[str]) -> None:
        """Before a member asks for anything: it shares the limits of all who manage an account of its login."""
        gateway, owned = (member.config.host, member.config.port), frozenset(accounts)
        limits = next((limits for known, limits in self._of_accounts.items() if known & owned), None)
        if limits is None:
            limits = self._of_gateway[gateway]
            if any(limits is other for other in self._of_accounts.values()):
                limits = limits_of(member.config)  # another login than before
        if owned:
            self._of_accounts[owned] = limits
            self._of_gateway[gateway] = limits
        member.outbox.limiter.share(limits)
        self._note_sharing()

    def _note_sharing(self) -> None:
        for member in self.members:
            limits = member.outbox.limiter.account
            limits.settle_s = SETTLE_S if len(self._sharers(limits)) > 1 else 0.0

    def _sharers(self, limits: AccountLimits) -> list[IBKRConnectionManager]:
        return [member for member in self.members if member.outbox.limiter.account is limits]

    def _room(self, member: IBKRConnectionManager, family: str) -> int:
        """Return how much room is left to a member, less what has been promised."""
        limiter = member.outbox.limiter
        promised = sum(sharer.unsent(family) for sharer in self._sharers(limiter.account))
        return limiter.free(family, time.monotonic()) - promised

    # --- who serves what ---

    def _connected(self) -> list[IBKRConnectionManager]:
        return [member for member in self.members if member.session.is_connected]

    def _has_data(self, member: IBKRConnectionManager) -> bool:
        """Tell whether a connected member can have data: 10197 is said of a login, and so of all who share it."""
        sharers = self._sharers(member.outbox.limiter.account)
        return member.session.is_link_up and not any(sharer.session.is_suspended for sharer in sharers)

    def _server_of(self, request: SubscriptionRequest) -> IBKRConnectionManager | None:
        return next((member for member in self.members if request in member.session.subscriptions), None)

    def _best(
        self, family: str, priority: int, candidates: Iterable[IBKRConnectionManager]
    ) -> IBKRConnectionManager | None:
        """Return who should serve something: the healthy before the others, and among them who has the most room.

        Where none has room left: who serves something that is less important.
        """
        best, best_rank = None, None
        for member in candidates:
            session = member.session
            room = self._room(member, family)
            rank = (
                self._has_data(member),
                room > 0,
                room <= 0 and _has_less_important(member, family, priority),
                room,
                -len(session.subscriptions),
            )
            if best_rank is None or rank > best_rank:
                best, best_rank = member, rank
        return best

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Hold the events of all members back until the moves are complete: a listener may end any subscription."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.monitor.held())
            yield

    def _move(
        self, subscription: Subscription, member: IBKRConnectionManager, candidates: Iterable[IBKRConnectionManager]
    ) -> None:
        """Have the best of these members serve it, if there is one, and if the move of another one has not ended it."""
        if member.session.subscriptions.get(subscription.request) is not subscription:
            return
        able = [other for other in candidates if subscription.request not in other.session.subscriptions]
        best = self._best(subscription.family, subscription.priority, able)
        if best is not None:
            pause_s = SETTLE_S if best.outbox.limiter.account is member.outbox.limiter.account else 0.0
            member.hand_over(subscription, best, pause_s=pause_s)

    def _move_all(self, member: IBKRConnectionManager, candidates: Sequence[IBKRConnectionManager]) -> None:
        for subscription in sorted(member.session.subscriptions.values(), key=lambda s: s.rank):
            self._move(subscription, member, candidates)

    def _on_event(self, event: Event) -> None:
        """Move at once what a member served that is not connected any more."""
        connected = self._connected()
        if event.name == STATE_EVENT and connected:
            with self._moving():
                for member in self.members:
                    if not member.session.is_connected:
                        self._move_all(member, connected)

    def _on_give_up(self, member: IBKRConnectionManager) -> None:
        """With nobody connected, what a member served waits with one that has not given up."""
        self._over.add(member)
        with self._moving():
            self._move_all(member, self._connected() or [other for other in self.members if other not in self._over])

    def _sweep(self) -> None:
        """Look for lines for what waits for one, and for another member where one has had no data for too long."""
        now_s = time.monotonic()
        self._next_sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        with self._moving():
            self._look(now_s)

    def _look(self, now_s: float) -> None:
        linked = [member for member in self._connected() if member.session.is_link_up]
        mute = [member for member in self._connected() if member not in linked or member.session.is_suspended]
        self._mute_since_s = {member: self._mute_since_s.get(member, now_s) for member in mute}
        for member in self._connected():
            mute_s = now_s - self._mute_since_s.get(member, now_s)
            if member not in mute:
                self._relieve(member, _waiting(member, now_s), [other for other in linked if other is not member])
            elif member not in linked and mute_s >= LINK_PATIENCE_S:
                self._move_all(member, [other for other in linked if self._has_data(other)])
            elif member in linked and mute_s >= LOGIN_PATIENCE_S:
                # Without room elsewhere it is no better off there, and here one of them is asked for again and again.
                served = member.session.subscriptions.values()
                self._relieve(member, served, [other for other in linked if self._has_data(other)])

    def _relieve(
        self,
        member: IBKRConnectionManager,
        subscriptions: Iterable[Subscription],
        others: Sequence[IBKRConnectionManager],
    ) -> None:
        """Move subscriptions of a member to where there is a line for them."""
        for subscription in sorted(subscriptions, key=lambda s: s.rank):
            family, priority = subscription.family, subscription.priority
            limits = member.outbox.limiter.account
            better = [
                other
                for other in others
                if (other.outbox.limiter.account is not limits and self._room(other, family) > 0)
                or _has_less_important(other, family, priority)
            ]
            self._move(subscription, member, better)


def _check(configs: Sequence[Config]) -> None:
    if not configs:
        raise ConfigError("configs=[] is not possible: give one Config for each member")
    if len({(config.host, config.port, config.client_id) for config in configs}) < len(configs):
        raise ConfigError("configs: two members have one client id at one gateway: give each a client_id of its own")
    limits: dict[tuple[str, int], tuple[int, int | None, bool]] = {}
    for config in configs:
        own = config.pacing.lines, config.pacing.tick_by_tick, config.pacing.enforced
        if limits.setdefault((config.host, config.port), own) != own:
            raise ConfigError(
                f"configs: the members of {config.host}:{config.port} share one login: "
                "give them the same pacing.lines, pacing.tick_by_tick and pacing.enforced"
            )


def _spare_ids(config: Config, configs: Sequence[Config]) -> tuple[int, ...]:
    """Return client ids that no other member of the gateway has or takes."""
    of_gateway = [other for other in configs if (other.host, other.port) == (config.host, config.port)]
    taken = [client_id for other in of_gateway for client_id in (other.client_id, *other.session.client_ids)]
    first = max(taken) + 1 + SPARE_CLIENT_IDS * of_gateway.index(config)
    return tuple(range(first, first + SPARE_CLIENT_IDS))


def _waiting(member: IBKRConnectionManager, now_s: float) -> list[Subscription]:
    """Return what waits for a line; what was just refused one is left, else two would pass it on for ever."""
    return [
        s
        for s in member.session.subscriptions.values()
        if s.state is SubscriptionState.WAITING and s.refused_until_s <= now_s
    ]


def _has_less_important(member: IBKRConnectionManager, family: str, priority: int) -> bool:
    """Tell whether a member serves something of a family that would have to give its line to this priority."""
    return any(s.family == family and s.req_id and s.priority < priority for s in member.session.subscriptions.values())


def _merged(labelled: Iterable[tuple[str, Iterable[Metric]]]) -> Iterator[Metric]:
    """Yield each family of metrics once, with the samples of all members, each labelled with its member."""
    families: dict[str, Metric] = {}
    for name, metrics in labelled:
        for metric in metrics:
            family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            family.samples += [sample._replace(labels={**sample.labels, "member": name}) for sample in metric.samples]
    yield from families.values()
