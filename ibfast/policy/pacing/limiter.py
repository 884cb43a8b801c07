"""The rate limiter: when which request may be sent, within IB's limits and not a moment later than they force.

The rule of the file: `now_s` is a parameter, of one monotonic clock for all that share an account, and never
decreases. The caller sends what `due` returns, calls it again at `next_s`, and reports what has ended. The limits
themselves are `RULES` in `policy.pacing.rules`.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from ibfast.config.sections import PacingConfig
from ibfast.errors import ConfigError, PacingError
from ibfast.policy.pacing.account import AccountLimits
from ibfast.policy.pacing.counters import Counters
from ibfast.policy.pacing.forecast import forecast
from ibfast.policy.pacing.lessons import Reaction, lesson_of, teach
from ibfast.policy.pacing.meters import Ledger
from ibfast.policy.pacing.queue import Ticket, TicketState
from ibfast.policy.pacing.rules import (
    AT_ONCE,
    CONNECTION_RULES,
    EVERYTHING,
    MARGIN_S,
    RULES,
    Charges,
    Precedence,
    charges,
    precedence_of,
    unlimited,
    windows_of,
)
from ibfast.policy.pacing.sharing import SharedTickets
from ibfast.policy.pacing.unconfirmed import Unconfirmed
from ibfast.wire.requests import Request

__all__ = ["RULES", "AccountLimits", "Counters", "PacingError", "Precedence", "RateLimiter", "Ticket", "TicketState"]


class RateLimiter:
    """The requests of one connection.

    Args:
        config: the account's limits, and how many tickets may wait.
        account: limits shared with other connections; by default new ones, of `config`.
        wake: called when `due` has a ticket because another connection of the account has called its own `due`.

    Attributes:
        account: as given.
        counters: numbers of what it has done.
    """

    def __init__(
        self,
        config: PacingConfig,
        *,
        account: AccountLimits | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.account = AccountLimits(config) if account is None else account
        self.counters = Counters()
        self._max_queue = config.max_queue
        self._wake = wake
        rules = CONNECTION_RULES if self.account.enforced else unlimited(CONNECTION_RULES)
        self._connection = Ledger(rules, config.lines)
        self.account.queue.join(self, self._connection)
        # What is to be sent, in this order.
        self._granted: list[Ticket] = []
        self._unconfirmed = Unconfirmed()
        self._shared = SharedTickets()
        self._expired: list[Ticket] = []
        # What was cancelled here and still counts, and until when.
        self._settling: deque[tuple[float, Charges]] = deque()

    def __len__(self) -> int:
        """How many tickets wait."""
        return self.account.queue.count(self)

    def submit(self, request: Request, now_s: float, *, deadline_s: float = math.inf, priority: int = 0) -> Ticket:
        """Queue a request; call `next_s` afterwards.

        A historical request that is identical, but for its id, to one that waits or is open joins it: the same ticket
        is returned, with the higher priority and the later deadline of both. Requests that are kept up to date never
        join.

        Args:
            request: to be sent.
            now_s: the time.
            deadline_s: when the request becomes useless, on the same clock.
            priority: within its precedence; higher goes first.

        Raises:
            PacingError: the queue is full.
        """
        shared = self._shared.find(request)
        if shared is not None:
            return self._join(shared, deadline_s, priority)
        if len(self) >= self._max_queue and precedence_of(request) not in (Precedence.CANCEL, Precedence.CONTROL):
            self.counters.refused += 1
            raise PacingError(len(self))
        ticket = self._ticket(request, now_s, deadline_s, priority)
        self._shared.add(ticket)
        self.account.queue.put(ticket)
        return ticket

    def due(self, now_s: float) -> list[Ticket]:
        """Return the tickets to send now, in this order: by precedence, then priority, then age.

        They count as sent from this moment. A ticket waits at the first of its rules that has no room for it: it keeps
        later ones of the account from passing there, and nowhere else. Tickets of other connections of the account for
        which there is room count as sent, too; these connections are woken.
        """
        self._expire(now_s)
        for ticket in self.account.queue.take_due(now_s):
            ticket.sender.grant(ticket, now_s)
        due, self._granted = self._granted, []
        for ticket in due:
            if now_s - ticket.sent_s > MARGIN_S:  # its windows begin when it is sent, which is now
                self.account.ledger.take(windows_of(ticket.owed), now_s)
        return due

    def grant(self, ticket: Ticket, now_s: float) -> None:
        """Have `due` return a ticket for which there is room."""
        ticket.state = TicketState.SENT
        ticket.sent_s = now_s
        self.counters.sent += 1
        ticket.sent_number = self.counters.sent
        self.counters.waited_s += now_s - ticket.submitted_s
        if _holds_slot(ticket):
            self.account.open.add(ticket)
        self._unconfirmed.sent(ticket)
        self._granted.append(ticket)
        self._wake()

    def expire(self, ticket: Ticket) -> None:
        """Have `expired` return a ticket whose deadline has come."""
        ticket.state = TicketState.EXPIRED
        self.counters.expired += 1
        self._shared.drop(ticket)
        self._expired.append(ticket)

    def expired(self, now_s: float) -> list[Ticket]:
        """Return the tickets whose deadline came while they waited; each is returned once, and never sent."""
        self._expire(now_s)
        expired, self._expired = self._expired, []
        return expired

    def next_s(self, now_s: float) -> float | None:
        """Return when to call `due` and `expired` again; None if time alone changes nothing.

        A slot that any connection of the account gives back can come earlier: call this again after each `finish`,
        `withdraw` and `connection_lost` of all that share the account.
        """
        if self._expired or self._granted:
            return now_s
        at_s = self.account.queue.next_s(now_s, self)
        return None if at_s == math.inf else max(at_s, now_s)

    def eta_s(self, what: Request | Ticket, now_s: float) -> float:
        """Return in how many seconds a ticket, or a request if it were submitted now, is going to be sent.

        Exact if no connection of the account submits, gives back or learns anything meanwhile, `due` is called in time,
        and historical requests are answered at once. Infinite if it waits for a slot that a subscription holds, or if
        its deadline comes first. It costs as much as to send all that goes before.
        """
        if isinstance(what, Ticket):
            if what.state is not TicketState.QUEUED:
                return 0.0 if what.state in (TicketState.SENT, TicketState.DONE) else math.inf
            return next((eta_s for ticket, eta_s in forecast(self.account, now_s) if ticket is what), math.inf)
        shared = self._shared.find(what)
        if shared is not None:
            return self.eta_s(shared, now_s)
        asked = self.draft(what, now_s)
        plan = forecast(self.account, now_s, [(now_s, asked)])
        return next((eta_s for ticket, eta_s in plan if ticket is asked), math.inf)

    def draft(self, request: Request, now_s: float, *, priority: int = 0) -> Ticket:
        """Return a ticket that is not queued: `plan` says when it would be sent."""
        return self._ticket(request, now_s, math.inf, priority)

    def plan(self, now_s: float, drafts: Iterable[tuple[float, Ticket]] = ()) -> list[tuple[Ticket, float]]:
        """Return what waits in the order in which it is going to be sent, with `eta_s` of each that is finite.

        Args:
            now_s: the time.
            drafts: tickets that are going to be submitted, and when, on the same clock. They are part of the plan.
        """
        return [(ticket, eta_s) for ticket, eta_s in forecast(self.account, now_s, drafts) if ticket.sender is self]

    def share(self, account: AccountLimits) -> None:
        """Count against these limits from now on, with the other connections of their account.

        Raises:
            ConfigError: requests wait or are open; a connection must know its account before its first request.
        """
        if account is self.account:
            return
        if self._open() or len(self):
            raise ConfigError("account can't be changed now: share limits before any request is submitted")
        self.account.queue.leave(self)
        self.account = account
        account.queue.join(self, self._connection)
        self._settling.clear()

    def finish(self, ticket: Ticket, *, cancelled_s: float | None = None) -> None:
        """End a ticket that was sent: the answer is complete, or refused, or its cancel was sent.

        What it held is given back. A ticket that has ended already stays as it is.

        Args:
            ticket: which.
            cancelled_s: when its cancel was sent, or its connection lost; None: the gateway itself has ended it.

        Raises:
            ConfigError: the ticket still waits; `withdraw` it.
        """
        if ticket.state is TicketState.QUEUED:
            raise ConfigError(f"ticket.state={ticket.state!r} is not possible: withdraw what was not sent")
        if ticket.state is not TicketState.SENT:
            return
        ticket.state = TicketState.DONE
        self._shared.drop(ticket)
        if ticket in self.account.open:
            self.account.open.remove(ticket)
            self._give_back(ticket.owed, cancelled_s)

    def _give_back(self, owed: Charges, cancelled_s: float | None) -> None:
        if cancelled_s is None or not self.account.settle_s:
            self.account.ledger.give_back(owed)
            return
        settled_s = cancelled_s + self.account.settle_s
        self.account.ledger.give_back(owed, settled_s)
        while self._settling and self._settling[0][0] <= cancelled_s:
            self._settling.popleft()
        self._settling.append((settled_s, owed))

    def withdraw(self, ticket: Ticket) -> bool:
        """Withdraw one of the callers that share a ticket; with the last of them a waiting ticket ends.

        Returns:
            Whether the request was sent and no caller waits for its answer any more: cancel it, then `finish`.
        """
        if ticket.state not in (TicketState.QUEUED, TicketState.SENT):
            return False
        ticket.sharers = max(0, ticket.sharers - 1)
        if ticket.sharers:
            return False
        # No caller may join a request that is about to be cancelled.
        self._shared.drop(ticket)
        if ticket.state is TicketState.SENT:
            return True
        self.account.queue.discard(ticket)
        self._withdrawn(ticket)
        return False

    def prioritize(self, ticket: Ticket, priority: int) -> None:
        """Give a ticket that waits another priority; one that was sent stays as it is."""
        if ticket.state is TicketState.QUEUED:
            ticket.priority = priority
            self.account.queue.put(ticket)

    def on_the_way(self, req_id: int) -> Ticket | None:
        """Return the ticket of a request that counts once in a time, if its arrival is not confirmed yet."""
        return self._unconfirmed.find(req_id)

    def arrived(self, sign: Ticket | None, now_s: float) -> list[Ticket]:
        """Note that a request has arrived at the gateway, and so all that were sent before it.

        The time of their arrival is unknown: a network may have held them back until now. So what may be asked for only
        once in a time counts from now, unless the sign came as soon as it could.

        Args:
            sign: the ticket that was answered; None: the connection is lost, and no sign can come any more.
            now_s: the time.

        Returns:
            The tickets that count from now.
        """
        late = [ticket for ticket in self._unconfirmed.confirm(sign) if now_s - ticket.sent_s > MARGIN_S]
        for ticket in late:
            self.account.ledger.take(self._unconfirmed.charges_of(ticket), now_s)
        return late

    def connection_lost(self, now_s: float | None = None) -> list[Ticket]:
        """End everything of this connection, since request ids end with it.

        Open tickets give back what they hold; the windows of the account and learned limits stay.

        Args:
            now_s: the time; None if the gateway noticed the loss long ago.

        Returns:
            The tickets that waited, now WITHDRAWN, in their order: submit again what is still wanted.
        """
        for ticket in self._open():
            self.finish(ticket, cancelled_s=now_s)
        self._granted.clear()
        self._unconfirmed.clear()
        waiting = self.account.queue.clear(self)
        for ticket in waiting:
            self._withdrawn(ticket)
        self._shared.clear()
        self._connection.clear()
        return waiting

    def learn(self, code: int, now_s: float, ticket: Ticket | None = None, message: str = "") -> bool:
        """Learn from an error of the gateway about a limit.

        100: a pause of a second, then the rate that the text names, or 80 %; one request more every ten minutes.
        101, 309, 322, 10190: what is open besides `ticket` is all there may be; one more every minute, since
        windows of TWS and other clients give their share back. 10190 for the same instrument: it waits 15 s. 162 and
        420 whose text is about pacing: no such request for a minute.

        Args:
            code: IB's.
            now_s: the time.
            ticket: the request that was refused.
            message: IB's text; for a code with several meanings it decides which one applies.

        Returns:
            Whether a limit has changed.
        """
        lesson = lesson_of(code, message)
        if lesson is None or (lesson.reaction is Reaction.HOLD and ticket is None):
            return False
        own = () if ticket is None else ticket.owed
        teach(lesson, self._ledger(lesson.rule), now_s, own, is_open=ticket in self.account.open, message=message)
        self.counters.learned += 1
        return True

    def limits(self, now_s: float) -> dict[str, tuple[int, int]]:
        """Return what is used of each limit, and the limit, by rule; where keys are counted, for the fullest."""
        return {
            name: (ledger.used(name, now_s), ledger.limit(name, now_s))
            for name in RULES
            for ledger in [self._ledger(name)]
        }

    def free(self, name: str, now_s: float) -> int:
        """Return for how many requests, of weight 1, a rule has room now; waiting requests are not deducted.

        What this connection has just cancelled leaves room for it, if only in `settle_s`.

        Raises:
            ConfigError: there is no such rule, or it counts keys.
        """
        if name not in RULES or RULES[name].key is not None:
            names = ", ".join(rule.name for rule in RULES.values() if rule.key is None)
            raise ConfigError(f"name={name!r} is not possible: give one of {names}")
        settling = sum(
            weight
            for until_s, owed in self._settling
            if until_s > now_s
            for meter, weight in owed
            if meter == (name, EVERYTHING) and meter in AT_ONCE
        )
        return self._ledger(name).free(name, now_s, settling)

    def room_s(self, name: str, count: int, now_s: float) -> float:
        """Return when there is room for so many requests, of weight 1, under a rule without keys.

        Infinite if that needs something to be given back.
        """
        return self._ledger(name).room_s((name, EVERYTHING), count, now_s)

    def _ticket(self, request: Request, now_s: float, deadline_s: float, priority: int) -> Ticket:
        number = next(self.account.numbers)
        return Ticket(self, request, precedence_of(request), number, charges(request), now_s, deadline_s, priority)

    def _open(self) -> list[Ticket]:
        """Return the tickets of this connection that hold a slot."""
        return [ticket for ticket in self.account.open if ticket.sender is self]

    def _join(self, ticket: Ticket, deadline_s: float, priority: int) -> Ticket:
        ticket.sharers += 1
        self.counters.coalesced += 1
        ticket.priority = max(ticket.priority, priority)
        ticket.deadline_s = max(ticket.deadline_s, deadline_s)
        if ticket.state is TicketState.QUEUED:
            self.account.queue.put(ticket)
        return ticket

    def _withdrawn(self, ticket: Ticket) -> None:
        ticket.state = TicketState.WITHDRAWN
        self.counters.withdrawn += 1

    def _expire(self, now_s: float) -> None:
        for ticket in self.account.queue.expire(now_s):
            ticket.sender.expire(ticket)

    def _ledger(self, name: str) -> Ledger:
        return self._connection if name in self._connection else self.account.ledger


def _holds_slot(ticket: Ticket) -> bool:
    return any(meter in AT_ONCE for meter, _ in ticket.owed)
