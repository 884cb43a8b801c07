"""Requests of all connections of an account that wait for room, each at the first rule that has none for it.

The rule of the file: order and room only. Requests of one connection that count for the same things stand in one line,
since where the first waits all must. A line is ready, or parked at the meter without room that its first ticket needs;
there it is looked at again when that meter can have room, not before. So the cost of a moment is that of the lines that
move, however many wait. A ticket that waits at a meter keeps later ones of every connection from passing there, and
holds up nothing elsewhere. The request rate of each connection is a gate of its own, behind which its ready lines wait.

The queue changes counts, never tickets: on copies of it the future can be played.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, Protocol, TypeAlias, TypeVar

from ibfast.policy.pacing.meters import Ledger
from ibfast.policy.pacing.rules import AT_ONCE, REQUEST_RATE, Charges, Meter, Precedence, line_of
from ibfast.wire.requests import Request

__all__ = ["Queue", "Sender", "Ticket", "TicketState"]

Order: TypeAlias = tuple[int, int, int]
"""Precedence, priority (negative, since the least comes first), and number in order of submission."""

_ANY_TIME = -math.inf
_GARBAGE = 16

_T = TypeVar("_T", bound=Hashable)
_R = TypeVar("_R", float, Order)


class TicketState(Enum):
    """The state of a request."""

    QUEUED = "queued"
    SENT = "sent"
    DONE = "done"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Sender(Protocol):
    """A connection whose requests wait; hashable by identity."""

    def grant(self, ticket: Ticket, now_s: float) -> None:
        """Take a ticket of this connection to be sent; it has been counted."""

    def expire(self, ticket: Ticket) -> None:
        """Take a ticket of this connection whose deadline has come."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request on its way; hashable by identity.

    Attributes:
        sender: the connection that is to send it.
        request: to be sent.
        precedence: its place in the order of service.
        number: counts up with every submission.
        owed: the meters that it counts in, with its weights.
        submitted_s, deadline_s, sent_s: on the caller's clock; `sent_s` is NaN until it is sent.
        sent_number: counts up with every ticket that is sent; 0 until then.
        priority: within the precedence; higher goes first.
        state: see TicketState.
        sharers: how many callers wait for this one answer.
    """

    sender: Sender
    request: Request
    precedence: Precedence
    number: int
    owed: Charges
    submitted_s: float
    deadline_s: float
    priority: int = 0
    state: TicketState = TicketState.QUEUED
    sent_s: float = math.nan
    sent_number: int = 0
    sharers: int = 1

    @property
    def order(self) -> Order:
        """Its rank; the least comes first."""
        return self.precedence, -self.priority, self.number


class _Heap(Generic[_T, _R]):
    """Items, the least rank first; each has one rank, which can change, and can leave from anywhere."""

    __slots__ = ("_count", "_entries", "_entry_of")

    def __init__(self) -> None:
        self._entries: list[tuple[_R, int, _T]] = []
        self._entry_of: dict[_T, tuple[_R, int, _T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._entry_of)

    def put(self, item: _T, rank: _R) -> None:
        known = self._entry_of.get(item)
        if known is not None and known[0] == rank:
            return
        self._count += 1
        entry = (rank, self._count, item)
        self._entry_of[item] = entry
        heapq.heappush(self._entries, entry)
        self._sweep()

    def discard(self, item: _T) -> None:
        if self._entry_of.pop(item, None) is not None:
            self._sweep()

    @property
    def first(self) -> _T:
        return self._first_entry()[2]

    @property
    def rank(self) -> _R:
        """The rank of the first."""
        return self._first_entry()[0]

    def items(self) -> list[_T]:
        return list(self._entry_of)

    def copy(self) -> _Heap[_T, _R]:
        twin: _Heap[_T, _R] = _Heap()
        twin._entries, twin._entry_of, twin._count = self._entries.copy(), self._entry_of.copy(), self._count
        return twin

    def _first_entry(self) -> tuple[_R, int, _T]:
        while self._entries[0] is not self._entry_of.get(self._entries[0][2]):
            heapq.heappop(self._entries)
        return self._entries[0]

    def _sweep(self) -> None:
        """Drop entries that count no more before they are the most."""
        if len(self._entries) > 2 * len(self._entry_of) + _GARBAGE:
            self._entries = list(self._entry_of.values())
            heapq.heapify(self._entries)


Line: TypeAlias = tuple[Sender, Charges]
"""Tickets of a connection that count for the same things."""


@dataclass(slots=True)
class _Side:
    """The waiting tickets of one connection.

    Attributes:
        gate: counts for its request rate.
        line_of: its tickets.
        ready: its lines that no meter has kept waiting.
    """

    gate: Ledger
    line_of: dict[Ticket, Line] = field(default_factory=dict)
    ready: _Heap[Line, Order] = field(default_factory=_Heap)

    def gate_s(self, now_s: float) -> float:
        """Return when it may send a request."""
        return self.gate.room_s(REQUEST_RATE, 1, now_s)

    def copy(self) -> _Side:
        return _Side(self.gate.copy(), self.line_of.copy(), self.ready.copy())


class Queue:
    """Tickets that wait.

    Args:
        account: counts for the account's rules.
    """

    def __init__(self, account: Ledger) -> None:
        self._account = account
        self._sides: dict[Sender, _Side] = {}
        self._lines: dict[Line, _Heap[Ticket, Order]] = {}
        self._parked: dict[Meter, _Heap[Line, Order]] = {}
        self._parked_at: dict[Line, Meter] = {}
        # When to look at a meter again. Meters of AT_ONCE are looked at every time besides: what was open is given back
        # to the account, and no message says so.
        self._alarms: _Heap[Meter, float] = _Heap()
        self._deadlines: _Heap[Ticket, float] = _Heap()

    def join(self, sender: Sender, gate: Ledger) -> None:
        """Let a connection put tickets here; `gate` counts for its request rate."""
        self._sides[sender] = _Side(gate)

    def leave(self, sender: Sender) -> None:
        """Forget a connection; no ticket of it waits."""
        del self._sides[sender]

    def count(self, sender: Sender) -> int:
        """Return how many tickets of a connection wait."""
        return len(self._sides[sender].line_of)

    def put(self, ticket: Ticket) -> None:
        """Let a ticket wait, or take note of its new order and deadline."""
        known = self._sides[ticket.sender].line_of.get(ticket)
        self._stand(ticket, known or (ticket.sender, line_of(ticket.owed)))
        if ticket.deadline_s < math.inf:
            self._deadlines.put(ticket, ticket.deadline_s)
        else:
            self._deadlines.discard(ticket)

    def discard(self, ticket: Ticket) -> None:
        """Take a ticket out."""
        self._deadlines.discard(ticket)
        self._leave(ticket)

    def clear(self, sender: Sender) -> list[Ticket]:
        """Take all tickets of a connection out and return them, in their order."""
        tickets = sorted(self._sides[sender].line_of, key=lambda ticket: ticket.order)
        for ticket in tickets:
            self.discard(ticket)
        return tickets

    def expire(self, now_s: float) -> list[Ticket]:
        """Take out and return the tickets whose deadline has come."""
        expired = []
        while self._deadlines and self._deadlines.rank <= now_s:
            ticket = self._deadlines.first
            self.discard(ticket)
            expired.append(ticket)
        return expired

    def take_due(self, now_s: float) -> list[Ticket]:
        """Take out, count and return the tickets for which there is room, in their order."""
        self._wake(now_s)
        due = []
        while (line := self._first_ready(now_s)) is not None:
            sender, charges = line
            ticket = self._lines[line].first
            meter = self._blocker(ticket, now_s)
            if meter is None:
                self.discard(ticket)
                self._account.take(ticket.owed, now_s)
                self._sides[sender].gate.take(((REQUEST_RATE, 1),), now_s)
                due.append(ticket)
            elif meter in (own for own, _ in charges):
                self._park(line, meter)
            else:  # it waits for reasons of its own, and those behind it do not
                self._leave(ticket)
                self._stand(ticket, (sender, ticket.owed))
            for own, _ in ticket.owed:
                self._look_at(own, now_s)
        return due

    def next_s(self, now_s: float, sender: Sender | None = None) -> float:
        """Return when `take_due` or `expire` can find something; infinite if never by itself.

        Args:
            now_s: the time.
            sender: of this connection; None: of any.
        """
        sides = self._sides.values() if sender is None else [self._sides[sender]]
        return min((self._next_s(side, now_s) for side in sides if side.line_of), default=math.inf)

    def _next_s(self, side: _Side, now_s: float) -> float:
        times = [self._room_s(self._parked[meter].first, meter, now_s) for meter in AT_ONCE if meter in self._parked]
        if side.ready:
            times.append(side.gate_s(now_s))
        if self._alarms:
            times.append(self._alarms.rank)
        if self._deadlines:
            times.append(self._deadlines.rank)
        return min(times, default=math.inf)

    def copy(self, account: Ledger) -> Queue:
        """Return another queue with the same tickets, which counts elsewhere."""
        twin = Queue(account)
        twin._sides = {sender: side.copy() for sender, side in self._sides.items()}
        twin._lines = {line: tickets.copy() for line, tickets in self._lines.items()}
        twin._parked = {meter: lines.copy() for meter, lines in self._parked.items()}
        twin._parked_at = self._parked_at.copy()
        twin._alarms = self._alarms.copy()
        twin._deadlines = self._deadlines.copy()
        return twin

    def _first_ready(self, now_s: float) -> Line | None:
        """Return the first line of those whose connections may send a request."""
        ready = [side.ready for side in self._sides.values() if side.ready and side.gate_s(now_s) <= now_s]
        return min(ready, key=lambda lines: lines.rank).first if ready else None

    def _room_s(self, line: Line, meter: Meter, now_s: float) -> float:
        """Return when a meter has room for a line whose connection may send a request."""
        sender, charges = line
        weight = next(weight for own, weight in charges if own == meter)
        return max(self._account.room_s(meter, weight, now_s), self._sides[sender].gate_s(now_s))

    def _blocker(self, ticket: Ticket, now_s: float) -> Meter | None:
        """Return the first meter that has no room for a ticket, or where an earlier one waits."""
        for meter, weight in ticket.owed:
            waiting = self._parked.get(meter)
            if waiting is not None and waiting.rank < ticket.order:
                return meter
            if self._account.room_s(meter, weight, now_s) > now_s:
                return meter
        return None

    def _stand(self, ticket: Ticket, line: Line) -> None:
        self._sides[ticket.sender].line_of[ticket] = line
        self._lines.setdefault(line, _Heap()).put(ticket, ticket.order)
        self._settle(line)

    def _leave(self, ticket: Ticket) -> None:
        line = self._sides[ticket.sender].line_of.pop(ticket)
        self._lines[line].discard(ticket)
        self._settle(line)

    def _settle(self, line: Line) -> None:
        """Let a line stand where its first ticket's order has it, or forget it."""
        sender, charges = line
        ready, tickets = self._sides[sender].ready, self._lines[line]
        if tickets:
            meter = self._parked_at.get(line)
            (ready if meter is None else self._parked[meter]).put(line, tickets.rank)
        else:
            ready.discard(line)
            self._unpark(line)
            del self._lines[line]
        # The first to wait at a meter may have become another one, for which there is room.
        for meter, _ in charges:
            if meter in self._parked:
                self._alarms.put(meter, _ANY_TIME)

    def _park(self, line: Line, meter: Meter) -> None:
        self._sides[line[0]].ready.discard(line)
        self._parked_at[line] = meter
        self._parked.setdefault(meter, _Heap()).put(line, self._lines[line].rank)

    def _unpark(self, line: Line) -> None:
        meter = self._parked_at.pop(line, None)
        if meter is not None:
            self._parked[meter].discard(line)
            if not self._parked[meter]:
                del self._parked[meter]
                self._alarms.discard(meter)

    def _wake(self, now_s: float) -> None:
        while self._alarms and self._alarms.rank <= now_s:
            self._look_at(self._alarms.first, now_s)
        for meter in AT_ONCE:
            self._look_at(meter, now_s)

    def _look_at(self, meter: Meter, now_s: float) -> None:
        """Make the first line that is parked at a meter ready if it has room there."""
        if meter not in self._parked:
            return
        line = self._parked[meter].first
        room_s = self._room_s(line, meter, now_s)
        if room_s > now_s:
            self._alarms.put(meter, room_s)
            return
        self._alarms.discard(meter)
        self._unpark(line)
        self._sides[line[0]].ready.put(line, self._lines[line].rank)
