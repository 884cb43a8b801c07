"""The live requests of a session: each subscription's ticket, its binding in the feed, and the watch over its data.

The rule of the file: it sends what the session asks for and looks at what has come. What to ask for is the session's
business, when it may be sent the limiter's, and what silence means the heartbeat's.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from ibfast.connection.owner import Owner
from ibfast.errors import Error
from ibfast.policy.health.heartbeat import HeartbeatMonitor, StreamState
from ibfast.policy.health.hours import TradingHours
from ibfast.policy.pacing.limiter import Ticket, TicketState
from ibfast.policy.subscription import (
    CANCELS,
    SUBSCRIPTION_REQUESTS,
    Cancel,
    Subscription,
    SubscriptionState,
    family_of,
)
from ibfast.records import GapCause, Scope
from ibfast.wire import requests
from ibfast.wire.requests import Request

__all__ = ["Lines"]

# After an error 100 nobody knows which requests were not taken: those of this time are repeated, so many at most.
REPEATED_S, REPEATABLE = 1.5, 256
REAL_TIME_BAR_S = 5.0


class Lines:
    """The subscriptions' requests of one manager, over all its connections.

    Args:
        owner: the manager.
        heartbeat: judges the silence of each.
        refused: told of a subscription that can't be asked for at all.
    """

    def __init__(self, owner: Owner, heartbeat: HeartbeatMonitor, refused: Callable[[Subscription], None]) -> None:
        self._owner = owner
        self._feed = owner.feed
        self._session = owner.session
        self._outbox = owner.outbox
        self._heartbeat = heartbeat
        self._refused = refused
        self._tickets: dict[int, Ticket] = {}
        self._watched: set[Subscription] = set()
        self._cancelled: deque[tuple[float, Cancel]] = deque(maxlen=REPEATABLE)
        # Requests that were given up before they were submitted: the gateway must not see their cancels.
        self._never_sent: set[int] = set()

    # --- out ---

    def submit(self, request: Request, now_s: float) -> None:
        """Send what the session asks for: a subscription, a cancel, or anything else."""
        if not isinstance(request, SUBSCRIPTION_REQUESTS):
            self._submit_other(request, now_s)
            return
        subscription = self._session.of_request(request.req_id)
        if subscription is None:
            if request.req_id not in self._tickets:
                self._never_sent.add(request.req_id)
            return
        rerouted = self._tickets.pop(request.req_id, None)
        if rerouted is not None:  # the gateway has let go of the first contract
            if rerouted.state is TicketState.QUEUED:
                self._outbox.withdraw(rerouted)
            else:
                self._outbox.limiter.finish(rerouted)
        else:
            self._begin(subscription)
        try:
            ticket = self._outbox.submit(request, now_s, priority=subscription.priority)
        except (Error, ValueError) as error:
            self._feed.forget_requests([request.req_id])
            if self._session.refused(subscription, now_s, error, was_sent=False):
                self._owner.fail_streams(subscription, error)
                self._refused(subscription)
        else:
            self._tickets[request.req_id] = ticket

    def _begin(self, subscription: Subscription) -> None:
        """Have the feed know the request, and the heartbeat watch it."""
        request, req_id = subscription.request, subscription.req_id
        self._feed.bind(req_id, subscription.instrument, request.contract.sec_type)
        self._remember(subscription)
        if isinstance(request, requests.MarketDepth) and len(subscription.req_ids) > 1:
            self._feed.add_book_reset(time.time_ns(), req_id)
        details = self._owner.details_of(request.contract)
        hours = None if details is None else TradingHours.parse(details.trading_hours, details.time_zone_id)
        expected_s = REAL_TIME_BAR_S if isinstance(request, requests.RealTimeBars) else None
        self._heartbeat.watch(subscription, hours, expected_s)
        self._watched.add(subscription)

    def _remember(self, subscription: Subscription) -> None:
        """Note when the newest request was asked for, and forget those of which no ring holds a record any more."""
        req_ids = subscription.req_ids
        req_ids[subscription.req_id] = self._feed.seq
        if len(req_ids) == 1:
            return
        oldest_seq = self._feed.oldest_seq()
        for req_id, (_, successor_seq) in [*zip(req_ids, [*req_ids.items()][1:], strict=False)]:
            if req_ids[req_id] < 0 or successor_seq < oldest_seq:
                del req_ids[req_id]

    def _submit_other(self, request: Request, now_s: float) -> None:
        """Send a cancel, which gives a slot back once it is sent, or anything else."""
        if not isinstance(request, CANCELS):
            with contextlib.suppress(Error, ValueError):  # it concerns no other request
                self._outbox.submit(request, now_s)
            return
        req_id = request.req_id
        if req_id in self._never_sent:
            self._never_sent.remove(req_id)
            return
        # Records of a request that was given up keep arriving for a while. They belong to no instrument.
        self._feed.forget_requests([req_id])
        ticket = self._tickets.get(req_id)
        if ticket is None or self._outbox.withdraw(ticket):
            with contextlib.suppress(Error, ValueError):  # it concerns no other request
                self._outbox.submit(request, now_s, sent=lambda: self._on_cancelled(request))
        else:  # the gateway never heard of it
            del self._tickets[req_id]

    def _on_cancelled(self, request: Cancel) -> None:
        self._cancelled.append((time.monotonic(), request))
        self.finish(request.req_id, cancelled=True)

    def finish(self, req_id: int, *, cancelled: bool = False) -> None:
        """A request is over at the gateway: its slot is free."""
        ticket = self._tickets.pop(req_id, None)
        if ticket is not None and ticket.state is TicketState.QUEUED:
            self._outbox.withdraw(ticket)
        elif ticket is not None:
            self._outbox.limiter.finish(ticket, cancelled_s=time.monotonic() if cancelled else None)

    def is_cancelled(self, req_id: int) -> bool:
        """Tell whether a cancel of this request was sent lately."""
        return any(request.req_id == req_id for _, request in self._cancelled)

    def repeat(self, now_s: float) -> None:
        """Ask again for what may not have been taken, since the requests came too fast (100)."""
        cancelled, self._cancelled = self._cancelled, deque(maxlen=REPEATABLE)
        for sent_s, cancel in cancelled:
            if now_s - sent_s < REPEATED_S:
                self._outbox.submit(cancel, now_s)
        for subscription in self._session.open_subscriptions():
            ticket = self._tickets.get(subscription.req_id)
            is_new = ticket is not None and ticket.state is TicketState.SENT and now_s - ticket.sent_s < REPEATED_S
            if is_new and not subscription.messages:
                self._session.renew(
                    subscription, now_s, Scope.CONNECTION, GapCause.STREAM_ENDED, "it may not have been taken"
                )

    def end(self, now_s: float) -> None:
        """The connection is gone, and all its requests with it."""
        self._cancelled.clear()
        self._never_sent.clear()
        self._outbox.end(now_s)
        self._feed.forget_requests(self._tickets)
        self._tickets.clear()

    # --- in ---

    def poll(self, now_s: float) -> None:
        """Look at what has come, for every open request."""
        subscriptions = [s for s in self._session.open_subscriptions() if s.req_id in self._tickets]
        if not subscriptions:
            return
        activity = self._feed.activity([subscription.req_id for subscription in subscriptions])
        for subscription, row in zip(subscriptions, activity.tolist(), strict=True):
            _, messages, first_ns, last_ns, first_seq, last_seq = row
            if messages and not subscription.messages:
                self._outbox.arrived(self._tickets[subscription.req_id], now_s)
            if messages != subscription.messages:
                self._session.progress(subscription, now_s, messages, (first_seq, first_ns), (last_seq, last_ns))
            self._heartbeat.data(subscription, messages, now_s)

    def judge(self, now_s: float, wall_s: float) -> None:
        """Have silent streams renewed, unless there is a reason for their silence that a renewal does not end."""
        for subscription in self._watched - set(self._session.subscriptions.values()):
            self.forget(subscription)
        is_muted = self._session.is_suspended or not self._session.is_link_up
        for subscription in self._watched:
            ticket = self._tickets.get(subscription.req_id)
            is_asked = ticket is not None and ticket.state is TicketState.SENT
            (self._heartbeat.resume if is_asked and not is_muted else self._heartbeat.suspend)(subscription)
        for change in self._heartbeat.check(now_s, wall_s):
            assert isinstance(change.key, Subscription)
            if change.after is StreamState.DEAD:
                self._session.silent(change.key, now_s, change.silent_s)
            else:
                self._session.state_seen(change.key, SubscriptionState[change.after.name], change.silent_s)

    def forget(self, subscription: Subscription) -> None:
        """Watch over it no longer."""
        self._heartbeat.forget(subscription)
        self._watched.discard(subscription)

    def prioritize(self, subscription: Subscription) -> None:
        """Let its request, if it is queued, take the place of the subscription's present priority."""
        ticket = self._tickets.get(subscription.req_id)
        if ticket is not None:
            self._outbox.limiter.prioritize(ticket, subscription.priority)

    # --- limits ---

    def room(self, family: str) -> int:
        """Return how many subscriptions of a family this connection may have: what is free, and what it has."""
        return self._outbox.limiter.free(family, time.monotonic()) + self._own(family)

    def _own(self, family: str) -> int:
        return sum(
            family_of(ticket.request) == family and ticket.state is TicketState.SENT
            for ticket in self._tickets.values()
            if isinstance(ticket.request, SUBSCRIPTION_REQUESTS)
        )

    def etas_s(self, subscriptions: Sequence[Subscription]) -> list[float]:
        """Return in how many seconds each one's request is going to be sent; 0 if it was, infinite if nobody knows."""
        now_s = time.monotonic()
        drafts = self._drafts(subscriptions, now_s)
        turns = dict(self._outbox.limiter.plan(now_s, drafts.values()))  # one play of the queue for all of them
        etas_s = []
        for subscription in subscriptions:
            if subscription in drafts:
                ticket: Ticket | None = drafts[subscription][1]
            else:
                ticket = self._tickets.get(subscription.req_id)
            if ticket is None:
                etas_s.append(math.inf)
            else:
                etas_s.append(turns.get(ticket, math.inf) if ticket.state is TicketState.QUEUED else 0.0)
        return etas_s

    def _drafts(self, subscriptions: Sequence[Subscription], now_s: float) -> dict[Subscription, tuple[float, Ticket]]:
        """Return when the session is going to ask for those that it has not asked for, each with a ticket."""
        session, limiter = self._session, self._outbox.limiter
        if not session.is_connected or not session.is_link_up or session.is_suspended:
            return {}
        return {
            s: (self._asked_s(s, now_s), limiter.draft(s.request, now_s, priority=s.priority))
            for s in subscriptions
            if s.req_id not in self._tickets
        }

    def _asked_s(self, subscription: Subscription, now_s: float) -> float:
        """Return when the session asks for it: once it is due, and there is room for it beside all that come first."""
        family, own = subscription.family, self._own(subscription.family)
        rivals = [s for s in self._session.subscriptions.values() if s.family == family and s.rank < subscription.rank]
        at_s, room_s = max(now_s, subscription.due_s), now_s
        while True:
            ahead = sum(bool(s.req_id) or s.due_s <= at_s for s in rivals)
            if ahead >= own:
                room_s = self._outbox.limiter.room_s(family, ahead + 1 - own, now_s)
            if room_s <= at_s or room_s == math.inf:
                return max(at_s, room_s)
            at_s = room_s

    def ticket_of(self, req_id: int) -> Ticket | None:
        """Return the ticket of an open subscription's request."""
        return self._tickets.get(req_id)
