"""Sent requests that count once in a time, and whose arrival at the gateway is not confirmed yet.

The rule of the file: requests arrive in the order of sending, so an answer to one confirms all that were sent before
it.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import deque

from ibfast.policy.pacing.queue import Ticket
from ibfast.policy.pacing.rules import ONCE, Charges

__all__ = ["Unconfirmed"]


class Unconfirmed:
    """The unconfirmed requests of one connection."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    @staticmethod
    def charges_of(ticket: Ticket) -> Charges:
        """Return the charges of a ticket that count once in a time."""
        return tuple(owed for owed in ticket.owed if owed[0][0] in ONCE)

    def sent(self, ticket: Ticket) -> None:
        """Note a ticket that was sent; it is kept if it has such charges."""
        if self.charges_of(ticket):
            self._tickets.append(ticket)

    def find(self, req_id: int) -> Ticket | None:
        """Return the ticket of a request, None if its arrival is confirmed."""
        return next((ticket for ticket in self._tickets if getattr(ticket.request, "req_id", -1) == req_id), None)

    def confirm(self, answered: Ticket | None) -> list[Ticket]:
        """Return the tickets up to the one that was answered, which are confirmed now; None: all of them."""
        confirmed = []
        while self._tickets and (answered is None or self._tickets[0].sent_number <= answered.sent_number):
            confirmed.append(self._tickets.popleft())
        return confirmed

    def clear(self) -> None:
        """Forget all of them."""
        self._tickets.clear()
