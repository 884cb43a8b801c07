"""What a session writes down, so that another process can go on with it.

The rule of the file: writing never stops a session. What could not be written is told, and tried again. Processes
share the wall clock alone: what is written has its times, and is translated when it is read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ibfast.connection.owner import Owner
from ibfast.connection.store import Sent, SentRequest, Store
from ibfast.errors import StoreError
from ibfast.policy.pacing.limiter import Ticket
from ibfast.policy.pacing.rules import LONGEST_SPAN_S, windows_of
from ibfast.policy.subscription import Subscription
from ibfast.records import NS_PER_S

__all__ = ["Book"]

# How often it is written that the session lives: by so much too early begins the gap that a killed process leaves.
ALIVE_S = 5.0
LEASE_S = 60.0
LONGEST_SPAN_NS = int(LONGEST_SPAN_S * NS_PER_S)


class Book:
    """One manager's store, if it has any.

    Args:
        owner: the manager.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._store: Store | None = None
        self._alive_at_s = 0.0
        self._trim_at_s = 0.0
        self._unwritten: set[Subscription] = set()
        self._since_ns: dict[Subscription, int] = {}
        self._leased: set[int] = set()
        self._unwritten_sent: list[Sent] = []
        owner.outbox.record = self._note_sent

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

    def begin(self, now_s: float, client_id: int) -> None:
        """Take in, before anything is asked of a new session, what counts against its login's limits already.

        Client ids that were leased and are not needed are given back.
        """
        self._give_back(self._leased - {client_id})
        limits = self._owner.outbox.limiter.account
        if self._store is None or not limits.enforced:
            return
        now_ns, sent = time.time_ns(), list[Sent]()
        try:
            sent = self._store.sent(self._login)
            self._trim_sent(now_s)
        except StoreError as error:
            self._tell(error)
        source = self._store.path.resolve(), self._login
        limits.restore(source, [(item.request, now_s - (now_ns - item.at_ns) / NS_PER_S) for item in sent], now_s)

    def close(self) -> None:
        """Close the store, and give leases back; what is declared stays in it."""
        self._give_back(set(self._leased))
        if self._store is not None:
            self._store.close()
            self._store = None
        self._unwritten.clear()
        self._unwritten_sent.clear()
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
        """Write every few seconds that the session lives, and what could not be written before."""
        if self._store is None or now_s < self._alive_at_s:
            return
        self._alive_at_s = now_s + ALIVE_S
        self.note_state()
        if client_id != self._owner.config.client_id:
            self.lease(client_id)
        try:
            self._write_sent()
            if now_s >= self._trim_at_s:
                self._trim_sent(now_s)
        except StoreError as error:
            self._tell(error)

    def note_state(self) -> None:
        """Write how the session fares.

        Of a subscription that is interrupted it is written since when: from there on its data is missing.
        """
        if self._store is None:
            return
        for subscription in tuple(self._unwritten):
            self.write(subscription)
        session = self._owner.session
        try:
            for subscription in set(session.subscriptions.values()) - self._unwritten:
                since_ns = 0 if subscription.gap is None else subscription.gap.first_ns
                if since_ns != self._since_ns.get(subscription, 0):
                    self._store.interrupted(subscription.request, since_ns)
                    self._since_ns[subscription] = since_ns
            self._store.alive(time.time_ns(), session.market_data_type)
        except StoreError as error:
            self._tell(error)

    def lease(self, client_id: int) -> bool:
        """Take, or prolong, a client id among all that share the store. True without a store, or if it fails."""
        if self._store is None:
            return True
        now_ns = time.time_ns()
        try:
            is_ours = self._store.lease(self._gateway, client_id, now_ns, now_ns + int(LEASE_S * NS_PER_S))
        except StoreError as error:
            self._tell(error)
            return True
        if is_ours:
            self._leased.add(client_id)
        return is_ours

    def _give_back(self, client_ids: set[int]) -> None:
        """End leases; one that can't be ended ends by time."""
        if self._store is None:
            return
        self._leased -= client_ids
        try:
            for client_id in client_ids:
                self._store.give_back(self._gateway, client_id)
        except StoreError as error:
            self._tell(error)

    @property
    def _gateway(self) -> str:
        """Whose client ids they are."""
        return f"{self._owner.config.host}:{self._owner.config.port}"

    @property
    def _login(self) -> str:
        """The name that the login has in the store, in which account ids don't stand."""
        assert self._store is not None
        return self._store.login_of(self._owner.protocol.accounts)

    def _note_sent(self, tickets: Sequence[Ticket]) -> None:
        """Write what counts against a limit for a time, before it is sent: a process may be killed at any moment."""
        if self._store is None or not self._owner.outbox.limiter.account.enforced:
            return
        now_ns = time.time_ns()
        counted = [
            Sent(ticket.number, ticket.request, now_ns)
            for ticket in tickets
            if isinstance(ticket.request, SentRequest) and windows_of(ticket.owed)
        ]
        if not counted:
            return
        self._unwritten_sent += counted
        try:
            self._write_sent()
        except StoreError as error:
            self._tell(error)

    def _write_sent(self) -> None:
        assert self._store is not None
        if self._unwritten_sent:
            since_ns = time.time_ns() - LONGEST_SPAN_NS
            self._unwritten_sent = [item for item in self._unwritten_sent if item.at_ns > since_ns]
            for error in self._store.note_sent(self._login, self._unwritten_sent):
                self._tell(error)
            self._unwritten_sent.clear()

    def _trim_sent(self, now_s: float) -> None:
        """Drop what counts no more."""
        assert self._store is not None
        now_ns = time.time_ns()
        self._store.trim_sent(now_ns - LONGEST_SPAN_NS, now_ns)
        self._trim_at_s = now_s + LONGEST_SPAN_S

    def _tell(self, error: StoreError) -> None:
        self._owner.monitor.event("store_failed", error=str(error))
