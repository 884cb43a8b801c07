"""Several connections as one: subscriptions are spread over them and move when one fails, and all fill one feed.

The rule of the file: a member is a manager like any other. The pool decides which one serves a subscription, and no
more; restoring is each member's own business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from ibfast.config import Config
from ibfast.errors import ConfigError, NotConnectedError
from ibfast.feed import Feed
from ibfast.manager import IBKRConnectionManager, limits_of
from ibfast.monitor import STATE_EVENT, Event, Health
from ibfast.policy.pacing import AccountLimits
from ibfast.policy.session import family_of
from ibfast.stream import Stream

__all__ = ["ConnectionPool"]


class ConnectionPool:
    """Several client ids of one gateway, or several gateways, that fill one feed.

        async with ConnectionPool([Config(client_id=1), Config(client_id=2)]) as pool:
            stream = await pool.subscribe("AAPL", "LAST")

    Members of one gateway have one login, and so share its market-data lines and its other limits; members whose
    gateways manage the same accounts do so too.

    Args:
        configs: one for each member.
        feed: where all market data goes; made with the largest `feed_capacity` if None.

    Attributes:
        members: the managers.
        feed: as given or made.

    Raises:
        ConfigError: two members have one client id at one gateway, or there is none at all.
    """

    def __init__(self, configs: Sequence[Config], feed: Feed | None = None) -> None:
        identities = [(config.host, config.port, config.client_id) for config in configs]
        if not configs:
            raise ConfigError("configs=[] is not possible: give one Config for each member")
        if len(set(identities)) < len(identities):
            raise ConfigError(
                "configs: two members have one client id at one gateway: give each a client_id of its own"
            )
        self.feed = feed or Feed(max(config.feed_capacity for config in configs))
        self._limits: dict[object, AccountLimits] = {}
        self.members = [self._member(config) for config in configs]
        self._stop_listening: list[Callable[[], None]] = []
        self._rebalancing: asyncio.Handle | None = None

    def _member(self, config: Config) -> IBKRConnectionManager:
        gateway = config.host, config.port
        limits = self._limits.setdefault(gateway, limits_of(config))
        manager = IBKRConnectionManager(config, self.feed, account=limits)
        manager.on_login = lambda accounts: self._share_limits(manager, gateway, accounts)
        return manager

    def _share_limits(self, member: IBKRConnectionManager, gateway: object, accounts: tuple[str, ...]) -> None:
        """Before a member asks for anything: it shares the limits of all who manage its accounts."""
        limits = self._limits.setdefault(frozenset(accounts), self._limits[gateway])
        self._limits[gateway] = limits
        member.outbox.limiter.account = limits

    async def connect(self) -> bool:
        """Connect all members. True if any is connected; `errors` says what is wrong with the others."""
        results = await asyncio.gather(*(member.connect() for member in self.members))
        self._stop_listening = [member.monitor.listen(self._on_event) for member in self.members]
        return any(results)

    async def disconnect(self) -> None:
        """End all sessions and every stream."""
        for stop in self._stop_listening:
            stop()
        self._stop_listening.clear()
        if self._rebalancing is not None:
            self._rebalancing.cancel()
        await asyncio.gather(*(member.disconnect() for member in self.members))

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectError: no member could.
        """
        if not await self.connect():
            error = next(iter(self.errors.values()))
            await self.disconnect()
            raise error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.disconnect()

    @property
    def errors(self) -> dict[IBKRConnectionManager, Exception]:
        """What is wrong with the members that are not connected."""
        nothing = NotConnectedError("it was not connected yet")
        return {member: member.last_error or nothing for member in self.members if not member.connected}

    async def subscribe(
        self, contract: object, data_type: str = "QUOTES", *, priority: int = 0, **options: Any
    ) -> Stream:
        """Subscribe at the member that has the most room; see `IBKRConnectionManager.subscribe`.

        The same subscription wanted twice is served by one member, and takes one line.

        Raises:
            NotConnectedError: no member is connected.
        """
        candidates = self._connected()
        if not candidates:
            raise NotConnectedError("no member of the pool is connected")
        _, want = await candidates[0].wanted(contract, data_type, **options)
        serving = next((m for m in candidates if want.request in m.session.subscriptions), None)
        member = serving or self._roomiest(family_of(want.request), candidates)
        return await member.subscribe(contract, data_type, priority=priority, **options)

    def health(self) -> Health:
        """Tell whether data that should flow does flow, over all members; a member without a task hurts nobody."""
        reasons = [
            f"client {member.config.client_id} of {member.config.host}:{member.config.port}: {reason}"
            for member in self.members
            if member.session.subscriptions or not self._connected()
            for reason in member.health().reasons
        ]
        return Health(not reasons, tuple(reasons))

    # --- inside ---

    def _connected(self) -> list[IBKRConnectionManager]:
        return [member for member in self.members if member.connected]

    def _roomiest(self, family: str, candidates: Sequence[IBKRConnectionManager]) -> IBKRConnectionManager:
        """Return the member with the most room in its account for this; among equals the one that serves least."""
        now_s = time.monotonic()
        return max(candidates, key=lambda m: (m.outbox.limiter.free(family, now_s), -len(m.session.subscriptions)))

    def _on_event(self, event: Event) -> None:
        if event.name == STATE_EVENT and self._rebalancing is None:
            self._rebalancing = asyncio.get_running_loop().call_soon(self._rebalance)

    def _rebalance(self) -> None:
        """Move what a failed member served to those that are connected."""
        self._rebalancing = None
        candidates = self._connected()
        if not candidates:
            return
        for member in self.members:
            if not member.connected:
                for subscription in sorted(member.session.subscriptions.values(), key=lambda s: s.rank):
                    member.hand_over(subscription, self._roomiest(subscription.family, candidates))
