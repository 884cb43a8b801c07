"""The question for the gateway's clock: one at a time, shared by all callers.

The rule of the file: `now_s` is a parameter, and nothing is sent here. The gateway answers once a second on each
connection and drops every other question, without an error. Answers look alike and come in the order of the questions.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TypeAlias

from ibfast.policy.pacing.limiter import Ticket
from ibfast.wire.requests import CurrentTimeInMillisRequest, CurrentTimeRequest

__all__ = ["CLOCK_REQUESTS", "ClockQuestion", "ClockRequest"]

ClockRequest: TypeAlias = CurrentTimeRequest | CurrentTimeInMillisRequest
CLOCK_REQUESTS = (CurrentTimeRequest, CurrentTimeInMillisRequest)

# From the receipt of an answer, which the gateway sent earlier: so no pause of it brings two questions nearer.
APART_S = 1.1
# A question that is not answered within this was dropped, or waits in a gateway that has stopped.
REPEAT_S = 5.0


class ClockQuestion:
    """When one connection's gateway is asked for its time, and which question an answer belongs to.

    The next answer answers all callers. The question is repeated until there is an answer.
    """

    def __init__(self) -> None:
        self._wanted: ClockRequest | None = None
        self._is_queued = False
        self._unanswered: deque[Ticket] = deque()
        self._answered_s = -math.inf

    @property
    def is_wanted(self) -> bool:
        """Whether a caller waits for an answer."""
        return self._wanted is not None

    def want(self, request: ClockRequest) -> None:
        """Note that a caller waits for an answer; the first caller decides the form of the question."""
        if self._wanted is None:
            self._wanted = request

    def next_s(self) -> float:
        """Return when the question is to be sent; infinite if no caller waits, or if it is queued."""
        if self._wanted is None or self._is_queued:
            return math.inf
        if self._unanswered:
            newest_s = self._unanswered[-1].sent_s
            if newest_s >= self._answered_s:
                return newest_s + REPEAT_S
        return self._answered_s + APART_S

    def take_due(self, now_s: float) -> ClockRequest | None:
        """Return the request to queue now, if there is one; say `sent` when it leaves."""
        if now_s < self.next_s():
            return None
        self._is_queued = True
        return self._wanted

    def sent(self, ticket: Ticket) -> None:
        """Note that the question was sent."""
        self._is_queued = False
        self._unanswered.append(ticket)

    def answered(self, now_s: float) -> Ticket | None:
        """Note an answer: no caller waits any more.

        A question that was out at an earlier answer, and was not answered within `REPEAT_S` of it, was dropped.

        Returns:
            The oldest question that it may answer; None if there is none.
        """
        if now_s - self._answered_s >= REPEAT_S:
            while self._unanswered and self._unanswered[0].sent_s < self._answered_s:
                self._unanswered.popleft()
        self._answered_s = now_s
        self._wanted = None
        return self._unanswered.popleft() if self._unanswered else None
