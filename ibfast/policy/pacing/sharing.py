"""Requests that share one answer: identical historical ones of a connection.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from ibfast.policy.pacing.queue import Ticket
from ibfast.policy.pacing.rules import identity
from ibfast.wire.requests import HeadTimestampRequest, HistoricalBars, HistoricalTicksRequest, Request

__all__ = ["SharedTickets"]


class SharedTickets:
    """The tickets that an identical request can join."""

    def __init__(self) -> None:
        self._tickets: dict[Request, Ticket] = {}

    def find(self, request: Request) -> Ticket | None:
        """Return the ticket that a request can join, None if there is none."""
        key = _key_of(request)
        return None if key is None else self._tickets.get(key)

    def add(self, ticket: Ticket) -> None:
        """Let identical requests join a ticket, if they can share its answer."""
        key = _key_of(ticket.request)
        if key is not None:
            self._tickets[key] = ticket

    def drop(self, ticket: Ticket) -> None:
        """Let no further request join a ticket."""
        key = _key_of(ticket.request)
        if key is not None and self._tickets.get(key) is ticket:
            del self._tickets[key]

    def clear(self) -> None:
        """Drop all tickets."""
        self._tickets.clear()


def _key_of(request: Request) -> Request | None:
    """Return what requests that share an answer have in common; None for a request that shares none."""
    if isinstance(request, HistoricalTicksRequest | HeadTimestampRequest) or (
        isinstance(request, HistoricalBars) and not request.keep_up_to_date
    ):
        return identity(request)
    return None
