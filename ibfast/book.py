"""What a session writes down, so that another process can go on with it.

The rule of the file: writing never stops a session. What could not be written is told, and tried again.
"""

from __future__ import annotations

import time

from ibfast.errors import StoreError
from ibfast.owner import Owner
from ibfast.policy.pacing import RULES
from ibfast.policy.subscription import Subscription
from ibfast.store import Store
from ibfast.wire.requests import TickByTick

__all__ = ["Book"]

# How often it is written that the session lives: by so much too early begins the gap that a killed process leaves.
ALIVE_S = 5.0
LEASE_S = 60.0
NS = 1_000_000_000
ONE_PER_INSTRUMENT = "tick_by_tick_instrument"


class Book:
    """One manager's store, if it has any.

    Args:
        owner: the manager.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._store: Store | None = None
        self._alive_at_s = 0.0
        self._unwritten: set[Subscription] = set()
        self._since_ns: dict[Subscription, int] = {}

    def open(self, now_s: float) -> None:
        """Open the store, and declare what it remembers."""
        config, session = self._owner.config.session, self._owner.session
        if config.store is None:
            return
        try:
            self._store = Store(config.store, config.name)
            remembered = self._store.read()
        except StoreError as error:
            self._tell(error)
            return
        if remembered.subscriptions:
            self._owner.monitor.event("remembered", subscriptions=len(remembered.subscriptions))
        session.set_market_data_type(remembered.market_data_type)
        for request, priority in remembered.subscriptions:
            if request not in session.subscriptions and not self._owner.membership.is_elsewhere(request):
                subscription = session.declare(
                    request, self._owner.instrument_of(request.contract), now_s, priority=priority
                )
                subscription.is_durable = True
                self._since_ns[subscription] = remembered.interrupted.get(request, 0)
                missing_since_ns = remembered.interrupted.get(request, remembered.alive_ns)
                if missing_since_ns:
                    session.continue_from(subscription, missing_since_ns)
                if isinstance(request, TickByTick):
                    # The process before may have asked for it up to its end, which is not written to the second.
                    age_s = time.time() - remembered.alive_ns / NS
                    subscription.not_before_s = now_s + max(0.0, RULES[ONE_PER_INSTRUMENT].span_s + ALIVE_S - age_s)

    def close(self) -> None:
        """Close the store; what is declared stays in it."""
        if self._store is not None:
            self._store.close()
            self._store = None
        self._unwritten.clear()
        self._since_ns.clear()

    def write(self, subscription: Subscription) -> None:
        """Write a declaration, or its end."""
        if self._store is None:
            return
        try:
            if self._owner.session.subscriptions.get(subscription.request) is subscription:
                subscription.is_durable = True
                self._store.remember(subscription.request, subscription.priority)
            elif subscription.request not in self._owner.session.subscriptions:
                self._store.forget(subscription.request)
        except StoreError as error:
            self._unwritten.add(subscription)
            self._tell(error)
        else:
            self._unwritten.discard(subscription)

    def note_alive(self, now_s: float, client_id: int) -> None:
        """Write every few seconds that the session lives, and what could not be written before.

        Of a subscription that is interrupted it is written since when: from there on its data is missing.
        """
        if self._store is None or now_s < self._alive_at_s:
            return
        self._alive_at_s = time.monotonic() + ALIVE_S
        for subscription in tuple(self._unwritten):
            self.write(subscription)
        session = self._owner.session
        try:
            for subscription in session.subscriptions.values():
                since_ns = 0 if subscription.gap is None else subscription.gap.first_ns
                if since_ns != self._since_ns.get(subscription, 0):
                    self._store.interrupted(subscription.request, since_ns)
                    self._since_ns[subscription] = since_ns
            self._store.alive(time.time_ns(), session.market_data_type)
        except StoreError as error:
            self._tell(error)
        if client_id != self._owner.config.client_id:
            self.lease(client_id)

    def lease(self, client_id: int) -> bool:
        """Take, or prolong, a client id among all that share the store. True without a store, or if it fails."""
        if self._store is None:
            return True
        config, now_ns = self._owner.config, time.time_ns()
        try:
            return self._store.lease(f"{config.host}:{config.port}", client_id, now_ns, now_ns + int(LEASE_S * NS))
        except StoreError as error:
            self._tell(error)
            return True

    def _tell(self, error: StoreError) -> None:
        self._owner.monitor.event("store_failed", error=str(error))
