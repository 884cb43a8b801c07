"""What is wanted of the gateway, and what must be done so that it is so: subscriptions are declared, then reconciled.

The rule of the file: it is told what happens (connected, an error's meaning, data came) and answers with requests to
send and gaps to record. It sends nothing and waits for nothing; `now_s` is a parameter. A subscription counts as
restored only when its first data has come.

    PENDING ──▶ OPENING ──first data──▶ LIVE ⇄ QUIET ⇄ STALE ──renewed──▶ OPENING
       ▲  ╲        │                      │
       │   ╲▶ WAITING (no line)           ├─▶ SUSPENDED (another session has the data)
       └── connection lost ───────────────┘        any ─▶ REFUSED, ENDED

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ibfast.contracts import Contract
from ibfast.policy.decisions import Decisions, Happening
from ibfast.policy.subscription import (
    FLOWING,
    OVER,
    UNOPENED,
    Gap,
    Subscription,
    SubscriptionRequest,
    SubscriptionState,
    cancel_of,
)
from ibfast.records import GapCause, Scope
from ibfast.wire.ids import MarketDataType
from ibfast.wire.requests import MarketDataTypeRequest

__all__ = ["SessionManager"]

# A refusal right after an outage may heal (farms come up one by one); one of a new subscription does not.
RESTORE_ATTEMPTS = 4
RETRY_S = 5.0
# After a link or a farm is back, what was live before gets this long to show data before it is renewed.
VERIFY_S = 3.0
# A renewal that brings no data is repeated after this, doubling up to the second.
RENEW_S, MOST_RENEW_S = 5.0, 300.0
# How long a broken farm holds renewals back if nobody says that it is well again.
FARM_WAIT_S = 60.0
# How often one of the suspended subscriptions is asked for again, to learn whether the other session has ended.
RESUME_PROBE_S = 30.0
# The gateway may send records that were under way for so long after a source of data has failed: they do not show that
# the source is back.
UNDER_WAY_S = 2.0
# For so long after something was asked for, its first data is looked for eagerly.
EAGER_FOR_S = 5.0
# A line that was refused is asked for again after this, since other programs give lines back without a word.
LINE_RETRY_S = 60.0
# The source of data that each of these causes is about.
SCOPES = {
    GapCause.LINK_LOST: Scope.LINK,
    GapCause.FARM_BROKEN: Scope.FARM,
    GapCause.OTHER_SESSION: Scope.ACCOUNT,
}


class SessionManager:
    """Holds what is wanted, and says what to do about what is not so.

    Args:
        limit: how many subscriptions of a family ("lines", "tick_by_tick", "depth", "historical_open") may be open.
        next_req_id: gives request ids that were never used.

    Attributes:
        subscriptions: all declared ones, by request.
        market_data_type: what level 1 is asked for.
        is_connected, is_link_up: the socket, and the gateway's own link to IB.
        is_suspended: another session of the login has the data.
    """

    def __init__(self, limit: Callable[[str], int], next_req_id: Callable[[], int]) -> None:
        self.subscriptions: dict[SubscriptionRequest, Subscription] = {}
        self.market_data_type = MarketDataType.REALTIME
        self.is_connected = False
        self.is_link_up = True
        self.is_suspended = False
        self._limit = limit
        self._next_req_id = next_req_id
        self._by_req_id: dict[int, Subscription] = {}
        self._decided = Decisions()
        self._farms: dict[str, float] = {}  # broken ones, and since when
        self._probe_at_s = 0.0
        self._probes = -1
        # What failed lately, and until when the gateway may have sent records that were under way. No record ends a gap
        # until all that the gateway had sent by then has come.
        self._holds: dict[GapCause, float] = {}
        self._caught_up_s = -math.inf
        self._eager_until_s = 0.0

    # --- wanted ---

    def declare(
        self, request: SubscriptionRequest, instrument: int, now_s: float, *, priority: int = 0
    ) -> Subscription:
        """Want a subscription; the same request twice is one subscription, of the higher priority."""
        subscription = self.subscriptions.get(request)
        if subscription is None:
            subscription = Subscription(request, instrument, priority, wanted_s=now_s)
            self.subscriptions[request] = subscription
        subscription.priority = max(subscription.priority, priority)
        self._reconcile(now_s)
        return subscription

    def join(self, subscription: Subscription, priority: int = 0) -> None:
        """Count one more stream that wants it."""
        subscription.priorities.append(priority)

    def leave(self, subscription: Subscription, now_s: float, priority: int = 0) -> None:
        """Count one less; the others' highest priority is the subscription's then, and the last one ends it."""
        subscription.priorities.remove(priority)
        if subscription.priorities:
            subscription.priority = max(subscription.priorities)
            self._reconcile(now_s)
        else:
            self.forget(subscription, now_s)

    def forget(self, subscription: Subscription, now_s: float) -> None:
        """Want it no longer, whoever shares it."""
        if self.subscriptions.get(subscription.request) is subscription:
            del self.subscriptions[subscription.request]
            self._close(subscription)
            subscription.state = SubscriptionState.ENDED
            self._reconcile(now_s)

    def surrender(self, subscription: Subscription, now_s: float) -> None:
        """Give it to another connection: closed here, alive for its streams."""
        del self.subscriptions[subscription.request]
        self._interrupt(subscription, Scope.CONNECTION, GapCause.MOVED)
        self._close(subscription)
        subscription.state = SubscriptionState.PENDING
        self._reconcile(now_s)

    def adopt(self, subscription: Subscription, now_s: float, due_s: float = 0.0) -> None:
        """Take it over from another connection, and ask for it at `due_s` at the earliest."""
        subscription.due_s = max(now_s, due_s)
        subscription.refusals = subscription.renewals = 0
        self.subscriptions[subscription.request] = subscription
        self._reconcile(now_s)

    def continue_from(self, subscription: Subscription, last_ns: int) -> None:
        """It was wanted by a process that has ended, and that lived at `last_ns` for the last time."""
        subscription.was_live = True
        subscription.gap = Gap(subscription, Scope.CONNECTION, GapCause.PROCESS_ENDED, 1, last_ns)
        subscription.gap_told = True
        self._await_gap_end(subscription)

    def clear(self) -> None:
        """Want nothing any more, without telling anybody."""
        for subscription in self.subscriptions.values():
            subscription.state = SubscriptionState.ENDED
        self.subscriptions.clear()
        self._by_req_id.clear()
        self._holds.clear()
        self._decided = Decisions()

    def set_market_data_type(self, market_data_type: MarketDataType) -> None:
        """Want real-time, frozen or delayed level 1, now and after every reconnect."""
        self.market_data_type = market_data_type
        if self.is_connected:
            self._decided.requests.append(MarketDataTypeRequest(market_data_type))

    def unrecorded_gaps(self) -> list[Gap]:
        """Return the gaps that have no row yet. They need one if no record is going to end them."""
        return [s.gap for s in self.subscriptions.values() if s.gap is not None and s.last_seq and not s.gap_told]

    def of_request(self, req_id: int) -> Subscription | None:
        """Return the subscription that a live request serves."""
        return self._by_req_id.get(req_id)

    # --- what happened ---

    def connected(self, now_s: float) -> None:
        """The session is ready: everything that is wanted must be asked for."""
        self.is_connected = True
        if self.market_data_type is not MarketDataType.REALTIME:
            self._decided.requests.append(MarketDataTypeRequest(self.market_data_type))
        for subscription in self.subscriptions.values():
            subscription.due_s = now_s
            subscription.refusals = subscription.renewals = 0
        self._reconcile(now_s)
        waiting = [s for s in self.subscriptions.values() if s.state is SubscriptionState.OPENING]
        if waiting:
            self._tell("restoring", subscriptions=len(waiting))

    def disconnected(self, cause: GapCause = GapCause.CONNECTION_LOST) -> None:
        """The connection is gone, and all request ids with it."""
        self.is_connected = self.is_suspended = False
        self.is_link_up = True
        self._farms.clear()
        self._holds.clear()
        self._decided.requests.clear()
        for subscription in self.subscriptions.values():
            if subscription.req_id:
                self._interrupt(subscription, Scope.CONNECTION, cause)
            self._set(subscription, SubscriptionState.PENDING, "no connection")
            subscription.req_id = 0
            subscription.verify_at_s = None
        self._by_req_id.clear()

    def link_lost(self, now_s: float) -> None:
        """The gateway has lost IB (1100, 2110): the socket lives and the data stops."""
        if self.is_link_up:
            self.is_link_up = False
            self._tell("link_lost")
            for subscription in self.open_subscriptions():
                subscription.verify_at_s = None
        self._fail(GapCause.LINK_LOST, now_s)

    def link_restored(self, now_s: float, *, data_lost: bool) -> None:
        """The gateway has IB again: with its subscriptions (1102), which are verified, or without (1101)."""
        self._link_is_back(now_s, data_lost=data_lost)
        self._recover(GapCause.LINK_LOST)
        for subscription in self.open_subscriptions():
            if data_lost:
                self._interrupt(subscription, Scope.LINK, GapCause.LINK_LOST)
                self._close(subscription)
                subscription.due_s = now_s
            elif subscription.verify_at_s is None:
                subscription.verify_at_s = now_s + VERIFY_S
        self._reconcile(now_s)

    def _link_is_back(self, now_s: float, *, data_lost: bool) -> None:
        self.is_link_up = True
        self._eager_until_s = now_s + EAGER_FOR_S
        self._tell("link_restored", data_lost=data_lost)

    def farm_broken(self, farm: str, now_s: float) -> None:
        """A market-data farm is gone (2103): which subscriptions it serves shows in which stay silent."""
        if farm not in self._farms:
            self._farms[farm] = now_s
            self._tell("farm_broken", farm=farm)
        self._fail(GapCause.FARM_BROKEN, now_s)

    def farm_restored(self, farm: str, now_s: float) -> None:
        """The farm is well (2104): what stays silent in spite of it is renewed."""
        if self._farms.pop(farm, None) is not None:
            self._tell("farm_restored", farm=farm)
            self._eager_until_s = now_s + EAGER_FOR_S
            self._recover(GapCause.FARM_BROKEN)
            for subscription in self.open_subscriptions():
                subscription.verify_at_s = now_s + VERIFY_S

    def suspend(self, now_s: float) -> None:
        """Another session has the account's data (10197): one event, however many requests it is said of."""
        self._fail(GapCause.OTHER_SESSION, now_s, tell=True)
        if self.is_suspended:
            return
        self.is_suspended = True
        self._probe_at_s = now_s + RESUME_PROBE_S
        self._tell("suspended", reason="another session of this login has the market data")
        for subscription in self.open_subscriptions():
            subscription.verify_at_s = None
            self._set(subscription, SubscriptionState.SUSPENDED, "another session has the data")

    def resume(self, now_s: float) -> None:
        """Data comes again: what does not show any soon is renewed."""
        if not self.is_suspended:
            return
        self.is_suspended = False
        self._tell("resumed")
        for subscription in self.open_subscriptions():
            if subscription.state is SubscriptionState.SUSPENDED:
                self._set(subscription, SubscriptionState.OPENING, "resumed")
                subscription.verify_at_s = now_s + VERIFY_S

    def renew(self, subscription: Subscription, now_s: float, scope: Scope, cause: GapCause, reason: str) -> None:
        """Cancel it and ask for it again under a new request id, after a wait that doubles while it brings nothing."""
        if not subscription.req_id:
            return
        self._interrupt(subscription, scope, cause)
        self._close(subscription)
        wait_s = min(RENEW_S * 2 ** (subscription.renewals - 1), MOST_RENEW_S) if subscription.renewals else 0.0
        subscription.renewals += 1
        subscription.due_s = now_s + wait_s
        self._set(subscription, SubscriptionState.PENDING, reason)
        self._tell("renewed", subscription=subscription.name, reason=reason, cause=cause.name)
        self._reconcile(now_s)

    def silent(self, subscription: Subscription, now_s: float, silent_s: float) -> None:
        """It has been silent for so long that it must be dead (`HeartbeatMonitor`)."""
        self._tell(
            "stream_dead", subscription=subscription.name, before=subscription.state.value,
            silent_s=round(silent_s, 3),
        )  # fmt: skip
        if self.is_suspended or not self.is_link_up:
            return
        held_until_s = max((broken_s + FARM_WAIT_S for broken_s in self._farms.values()), default=now_s)
        if held_until_s <= now_s:
            self.renew(subscription, now_s, Scope.SUBSCRIPTION, GapCause.STREAM_SILENT, "silent")
        elif subscription.verify_at_s is None:
            subscription.verify_at_s = held_until_s

    def refused(self, subscription: Subscription, now_s: float, error: Exception, *, was_sent: bool = True) -> bool:
        """The gateway has ended it, or it could not be sent. True if that is final; else it is asked for again."""
        self._interrupt(subscription, Scope.SUBSCRIPTION, GapCause.STREAM_ENDED)
        if was_sent:
            self._close(subscription)
        else:
            self._detach(subscription)
        if subscription.was_live and subscription.refusals < RESTORE_ATTEMPTS:
            subscription.refusals += 1
            subscription.due_s = now_s + RETRY_S * subscription.refusals
            self._set(subscription, SubscriptionState.PENDING, f"refused, will be asked for again: {error}")
            self._tell("refused_for_now", subscription=subscription.name, error=str(error))
            return False
        subscription.error = error
        self.subscriptions.pop(subscription.request, None)
        self._set(subscription, SubscriptionState.REFUSED, str(error))
        self._tell("refused", subscription=subscription.name, error=str(error))
        self._reconcile(now_s)
        return True

    def no_line(
        self,
        subscription: Subscription,
        now_s: float,
        reason: str,
        *,
        retry_s: float = LINE_RETRY_S,
        can_displace: bool = True,
    ) -> None:
        """The gateway has no line for it now (101, 10190, 309), or no time (420): it waits for one.

        One of a lower priority gives its line up for it at once, unless that is of no use (`can_displace`).
        """
        self._interrupt(subscription, Scope.ACCOUNT, GapCause.NO_LINE)
        self._close(subscription)
        victim = self._less_important(subscription) if can_displace else None
        if victim is not None:
            victim.due_s = now_s + retry_s
            self._deprive(victim)
        subscription.due_s = subscription.refused_until_s = now_s if victim is not None else now_s + retry_s
        self._set(subscription, SubscriptionState.WAITING, reason)
        self._tell("waiting_for_line", subscription=subscription.name, reason=reason)
        self._reconcile(now_s)

    def reroute(self, subscription: Subscription, con_id: int, exchange: str) -> None:
        """The gateway names another contract for it (91, 92): ask for that one under the same request id."""
        contract = Contract(con_id=con_id, exchange=exchange)
        self._decided.requests.append(replace(subscription.opening_request(), contract=contract))
        self._tell("rerouted", subscription=subscription.name, con_id=con_id, exchange=exchange)

    def book_reset(self, subscription: Subscription) -> None:
        """The book is sent anew (317): what was in it is void."""
        self._interrupt(subscription, Scope.SUBSCRIPTION, GapCause.BOOK_RESET)
        self._await_gap_end(subscription)
        self._tell("book_reset", subscription=subscription.name)

    def state_seen(self, subscription: Subscription, state: SubscriptionState, silent_s: float) -> None:
        """The heartbeat finds it LIVE, QUIET or STALE, after a silence."""
        if subscription.state in FLOWING and subscription.state is not state:
            before = subscription.state
            self._set(subscription, state, "" if state is SubscriptionState.LIVE else f"silent for {silent_s:.3g} s")
            self._tell(
                f"stream_{state.lower()}", subscription=subscription.name, before=before.value,
                silent_s=round(silent_s, 3),
            )  # fmt: skip

    def progress(
        self, subscription: Subscription, now_s: float, messages: int, first: tuple[int, int], last: tuple[int, int]
    ) -> None:
        """Take in what its request has brought so far.

        Args:
            messages: how many messages in all.
            first: seq and recv_ns of the first record since the request was bound or had a gap to end; a seq of 0 if
                there is none.
            last: seq and recv_ns of the newest record.
        """
        if messages == subscription.messages:
            return
        subscription.messages = messages
        subscription.last_seq, subscription.last_ns = last
        subscription.last_s = now_s
        subscription.was_live = True
        if subscription.state is SubscriptionState.OPENING:
            self._set(subscription, SubscriptionState.LIVE)
            self._tell("live", subscription=subscription.name)
        if self._holds:
            subscription.gap_told |= first[0] != 0  # the gap's open row came before that record
            return
        if subscription.gap is not None and first[0]:
            self._decided.ended.append(subscription.gap.ended(now_s, *first))
            subscription.gap = None
        subscription.verify_at_s = None
        subscription.refusals = subscription.renewals = 0
        if subscription.state is SubscriptionState.SUSPENDED:
            self._set(subscription, SubscriptionState.LIVE)
            self._tell("live", subscription=subscription.name)
        if self.is_suspended:
            self.resume(now_s)
        if not self.is_link_up:
            self._link_is_back(now_s, data_lost=False)
            for other in self.open_subscriptions():
                if other.gap is not None and other.verify_at_s is None:
                    other.verify_at_s = now_s + VERIFY_S
            self._reconcile(now_s)

    def tick(self, now_s: float) -> None:
        """Do what has become due. Call it at `next_s` at the latest."""
        if not self.is_connected:
            return
        if self.is_suspended and now_s >= self._probe_at_s:
            self._probe_at_s = now_s + RESUME_PROBE_S
            self._probe(now_s)
        for subscription in [s for s in self._by_req_id.values() if s.verify_at_s is not None]:
            # A renewal may have deprived another one of its line meanwhile.
            if subscription.verify_at_s is not None and now_s >= subscription.verify_at_s:
                subscription.verify_at_s = None
                gap = subscription.gap
                scope, cause = (gap.scope, gap.cause) if gap else (Scope.SUBSCRIPTION, GapCause.STREAM_SILENT)
                self.renew(subscription, now_s, scope, cause, "no data after its source came back")
        self._reconcile(now_s)

    def next_s(self, now_s: float) -> float | None:
        """Return when `tick` is due again, after one at `now_s`."""
        if not self.is_connected:
            return None
        times = [s.verify_at_s for s in self._by_req_id.values() if s.verify_at_s is not None and s.verify_at_s > now_s]
        times += [s.due_s for s in self.subscriptions.values() if s.state in UNOPENED and s.due_s > now_s]
        times += [until_s for until_s in self._holds.values() if until_s > now_s]
        if self.is_suspended:
            times.append(self._probe_at_s)
        return min(times, default=None)

    # --- what to do ---

    def take(self) -> Decisions:
        """Return, once, what has been decided, to be carried out in the order of its fields."""
        decided, self._decided = self._decided, Decisions()
        return decided

    @property
    def plan(self) -> list[Subscription]:
        """What is not flowing yet and will be asked for, in this order."""
        return sorted(
            (s for s in self.subscriptions.values() if s.state in UNOPENED or s.state is SubscriptionState.OPENING),
            key=lambda s: s.rank,
        )

    def awaits_data(self, now_s: float) -> bool:
        """Whether first data, or the first after an interruption, is expected any moment."""
        return now_s < self._eager_until_s and any(
            s.state is SubscriptionState.OPENING or s.gap is not None for s in self._by_req_id.values()
        )

    def open_subscriptions(self) -> list[Subscription]:
        """Return those that a request serves now."""
        return list(self._by_req_id.values())

    # --- inside ---

    def _reconcile(self, now_s: float) -> None:
        """Give the lines to those that come first, and ask for what is not open."""
        if not self.is_connected or not self.is_link_up:
            return
        wanted = sorted(self.subscriptions.values(), key=lambda s: s.rank)
        room = {family: self._limit(family) for family in {s.family for s in wanted}}
        to_open: list[Subscription] = []
        for subscription in wanted:
            if room[subscription.family] <= 0:
                self._deprive(subscription)
            elif subscription.req_id:
                room[subscription.family] -= 1
            elif subscription.due_s <= now_s and not self.is_suspended:
                room[subscription.family] -= 1
                to_open.append(subscription)
        for subscription in to_open:
            self._ask(subscription, now_s)

    def _less_important(self, subscription: Subscription) -> Subscription | None:
        """Return the last of those that are open where it would be, and that come after it by their priority."""
        rivals = [s for s in self._by_req_id.values() if s.family == subscription.family]
        last = max(rivals, key=lambda s: s.rank, default=None)
        return last if last is not None and last.priority < subscription.priority else None

    def _deprive(self, subscription: Subscription) -> None:
        """Others come first: it waits for a line."""
        if subscription.req_id:
            self._interrupt(subscription, Scope.ACCOUNT, GapCause.NO_LINE)
            self._close(subscription)
        elif subscription.state is SubscriptionState.WAITING:
            return
        self._set(subscription, SubscriptionState.WAITING, f"no {subscription.family} left for its priority")
        self._tell("waiting_for_line", subscription=subscription.name, reason=subscription.reason)

    def _ask(self, subscription: Subscription, now_s: float) -> None:
        self._eager_until_s = now_s + EAGER_FOR_S
        subscription.req_id = self._next_req_id()
        subscription.req_ids[subscription.req_id] = -1
        subscription.messages = 0
        self._by_req_id[subscription.req_id] = subscription
        self._set(subscription, SubscriptionState.OPENING, "asked for")
        self._decided.requests.append(subscription.opening_request())
        if self._holds:
            self._hold(subscription)
        else:
            self._await_gap_end(subscription)

    def _close(self, subscription: Subscription) -> None:
        """Cancel its request, even one that the gateway has ended: it may live on there, and would double every row."""
        if subscription.req_id:
            self._decided.requests.append(cancel_of(subscription.request, subscription.req_id))
            self._detach(subscription)

    def _detach(self, subscription: Subscription) -> None:
        self._by_req_id.pop(subscription.req_id, None)
        self._decided.gap_rows.pop(subscription.req_id, None)
        subscription.req_id = 0
        subscription.verify_at_s = None
        if subscription.state not in OVER:
            self._set(subscription, SubscriptionState.PENDING)

    def _probe(self, now_s: float) -> None:
        """Ask for one of the suspended subscriptions again: 10197 comes at once if the other session is still there."""
        suspended = [s for s in self.open_subscriptions() if s.state is SubscriptionState.SUSPENDED]
        # Not those that wait for a line: their requests would be withdrawn before they are sent.
        pending = [s for s in self.subscriptions.values() if s.state is SubscriptionState.PENDING]
        candidates = sorted(suspended or pending, key=lambda s: s.rank)
        if not candidates:
            self.is_suspended = False  # nothing is left to ask with: the next one that is wanted shows it
            return
        # One after the other, since any of them may be silent for reasons of its own.
        self._probes += 1
        asked = candidates[self._probes % len(candidates)]
        self._close(asked)
        self._ask(asked, now_s)
        self._set(asked, SubscriptionState.SUSPENDED, "asked whether the other session has ended")

    def _set(self, subscription: Subscription, state: SubscriptionState, reason: str = "") -> None:
        subscription.state = state
        subscription.reason = reason

    def _fail(self, cause: GapCause, now_s: float, *, tell: bool = False) -> None:
        """A source of data has failed: every open subscription is in a gap, which no record under way ends."""
        self._holds.pop(cause, None)
        self._holds[cause] = now_s + UNDER_WAY_S
        for subscription in self.open_subscriptions():
            self._interrupt(subscription, SCOPES[cause], cause, tell=tell)
            self._hold(subscription)

    def _hold(self, subscription: Subscription) -> None:
        """Have the request's next record end no gap; the gap's open row comes before the record."""
        if subscription.gap is None:  # no record has come yet: the hole may come after the very first ones
            cause = next(reversed(self._holds))
            self._begin_gap(subscription, SCOPES[cause], cause, 0, 0, None)
        assert subscription.gap is not None
        self._decided.gap_rows[subscription.req_id] = None if subscription.gap_told else (subscription.gap, False)

    def caught_up(self, asked_s: float) -> None:
        """The gateway has answered a question that was sent at `asked_s`: what it had sent before has come."""
        self._caught_up_s = max(self._caught_up_s, asked_s)
        self._release()

    def is_behind(self, now_s: float) -> bool:
        """Whether an answer of the gateway is needed to know that nothing is under way any more."""
        return any(now_s >= until_s > self._caught_up_s for until_s in self._holds.values())

    def _recover(self, cause: GapCause) -> None:
        """A source of data is said to be back: the next record of each open subscription ends its gap."""
        self._holds.pop(cause, None)
        for subscription in self.open_subscriptions():
            # A gap that has ended begins again, since the data may have stopped once more before the notice.
            self._interrupt(subscription, SCOPES[cause], cause, tell=False)
            self._await_gap_end(subscription)

    def _release(self) -> None:
        """Let records end gaps again as soon as nothing of what was under way can come any more."""
        over = [cause for cause, until_s in self._holds.items() if self._caught_up_s >= until_s]
        for cause in over:
            del self._holds[cause]
        for subscription in self.open_subscriptions() if over else ():
            self._await_gap_end(subscription)

    def _await_gap_end(self, subscription: Subscription) -> None:
        """Have the request's next record end the gap, if it is in one and records prove something."""
        gap = subscription.gap
        if not subscription.req_id or gap is None or self._holds:
            return
        if subscription.last_seq or gap.cause not in SCOPES:
            self._decided.gap_rows[subscription.req_id] = gap, True
        else:  # no record came while its source failed, so there is nothing that the gap could lie between
            subscription.gap = None
            self._decided.gap_rows[subscription.req_id] = None

    def _interrupt(self, subscription: Subscription, scope: Scope, cause: GapCause, *, tell: bool = True) -> None:
        """Begin a gap, unless it is in one; a gap that is not told yet becomes a row when it proves real, or ends."""
        if subscription.gap is None and subscription.last_seq:
            seq, recv_ns, noticed_s = subscription.last_seq, subscription.last_ns, subscription.last_s
            self._begin_gap(subscription, scope, cause, seq, recv_ns, noticed_s)
        if tell and subscription.gap is not None and not subscription.gap_told:
            subscription.gap_told = True
            self._decided.gaps.append(subscription.gap)

    def _begin_gap(
        self,
        subscription: Subscription,
        scope: Scope,
        cause: GapCause,
        seq: int,
        recv_ns: int,
        noticed_s: float | None,
    ) -> None:
        """Begin a gap behind a record."""
        subscription.gap = Gap(subscription, scope, cause, seq + 1, recv_ns, first_s=noticed_s)
        subscription.gap_told = False

    def _tell(self, name: str, **fields: object) -> None:
        self._decided.happenings.append(Happening(name, fields))
