"""The only way out: every request waits here until IB's limits allow it.

The rule of the file: nobody else writes requests to a link, once its login has been checked. What can't be sent at all
is said at once, to whoever asks; what waits too long is dropped and said to whoever waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ibfast.connection.protocol import Protocol
from ibfast.errors import NotConnectedError
from ibfast.policy.pacing.clock import ClockQuestion, ClockRequest
from ibfast.policy.pacing.limiter import RateLimiter, Ticket, TicketState
from ibfast.wire.ids import ServerVersion
from ibfast.wire.requests import CurrentTimeInMillisRequest, CurrentTimeRequest, Request

__all__ = ["Outbox"]


@dataclass(slots=True)
class _Parcel:
    """A frame that waits for its ticket."""

    frame: bytes
    sent: Callable[[], None] | None
    dropped: Callable[[], None] | None


class Outbox:
    """Sends requests of one link as soon as the limiter lets them.

    Args:
        limiter: which outlives the link.
        observe_wait: told, in seconds, how long each request had to wait.

    Attributes:
        requests_sent: over all links.
        record: told of tickets before their requests are sent, and again if they may have arrived later.
        clock_asked: called with the time at which the question for the gateway's clock was sent.
    """

    def __init__(self, limiter: RateLimiter, observe_wait: Callable[[float], None]) -> None:
        self.limiter = limiter
        self.requests_sent = 0
        self.record: Callable[[Sequence[Ticket]], None] = lambda tickets: None
        self.clock_asked: Callable[[float], None] = lambda now_s: None
        self._observe_wait = observe_wait
        self._protocol: Protocol | None = None
        self._flush: Callable[[], None] = lambda: None
        self._parcels: dict[Ticket, _Parcel] = {}
        self._clock = ClockQuestion()

    def begin(self, protocol: Protocol, flush: Callable[[], None]) -> None:
        """Send through this session from now on."""
        self._protocol = protocol
        self._flush = flush

    def end(self, now_s: float) -> None:
        """The link is gone, and with it all that waits and all that was open."""
        self._protocol = None
        self._parcels.clear()
        self._clock = ClockQuestion()
        self.limiter.connection_lost(now_s)

    def submit(
        self,
        request: Request,
        now_s: float,
        *,
        priority: int = 0,
        deadline_s: float = math.inf,
        sent: Callable[[], None] | None = None,
        dropped: Callable[[], None] | None = None,
    ) -> Ticket:
        """Queue a request; `pump` sends it. An identical historical request that is under way is shared.

        Args:
            request: with its id.
            now_s: monotonic time.
            priority: within its precedence, the larger the earlier.
            deadline_s: when it is dropped if it still waits.
            sent, dropped: called when that happens.

        Raises:
            NotConnectedError: there is no session.
            UnsupportedError: the gateway's version has no such request.
            ValueError: a field of the request can't be written.
            PacingError: the queue is full.
        """
        if self._protocol is None:
            raise NotConnectedError("no request can be sent: there is no session")
        frame = self._protocol.encode(request)
        ticket = self.limiter.submit(request, now_s, deadline_s=deadline_s, priority=priority)
        if ticket not in self._parcels and ticket.request is request:
            self._parcels[ticket] = _Parcel(frame, sent, dropped)
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Want its answer no longer. True if it was sent and nobody else wants it: cancel it, then `limiter.finish`."""
        to_cancel = self.limiter.withdraw(ticket)
        if ticket.state is TicketState.WITHDRAWN:
            self._parcels.pop(ticket, None)
        return to_cancel

    def arrived(self, sign: Ticket | None, now_s: float) -> None:
        """Something shows that the gateway has a request, and all before it; see `RateLimiter.arrived`."""
        late = self.limiter.arrived(sign, now_s)
        if late:
            self.record(late)

    def spoken_of(self, req_id: int, now_s: float) -> None:
        """The gateway has said something about a request, which shows that the request has arrived."""
        sign = self.limiter.on_the_way(req_id)
        if sign is not None:
            self.arrived(sign, now_s)

    def ask_clock(self, request: ClockRequest | None = None) -> None:
        """Ask for the gateway's clock as soon as it is going to answer; `pump` sends the question.

        All who ask before the answer share it.

        Args:
            request: in which form; by default the most exact one that the gateway knows.

        Raises:
            NotConnectedError: there is no session.
            UnsupportedError: the gateway's version has no such request.
        """
        if self._protocol is None:
            raise NotConnectedError("the gateway's clock can't be asked: there is no session")
        if request is None:
            in_millis = self._protocol.server_version >= ServerVersion.CURRENT_TIME_IN_MILLIS
            request = CurrentTimeInMillisRequest() if in_millis else CurrentTimeRequest()
        self._protocol.encode(request)
        self._clock.want(request)

    @property
    def is_clock_wanted(self) -> bool:
        """Whether somebody waits for the gateway's clock."""
        return self._clock.is_wanted

    def clock_wait_s(self, now_s: float) -> float:
        """Return in how many seconds the question for the clock is sent at the latest, or sent again."""
        at_s = self._clock.next_s()
        return 0.0 if at_s == math.inf else max(0.0, at_s - now_s)

    def clock_answered(self, now_s: float, *, has_ib: bool) -> float | None:
        """The gateway's clock came, which shows that the question for it has arrived.

        Args:
            now_s: monotonic time.
            has_ib: whether the gateway had its link to IB; without, it tells the time and serves nothing else.

        Returns:
            When the oldest question that this may answer was sent; None if there is none.
        """
        asked = self._clock.answered(now_s)
        if asked is None:
            return None
        if has_ib:
            self.arrived(asked, now_s)
        return asked.sent_s

    def next_s(self, now_s: float) -> float | None:
        """Return when to call `pump`; None if nothing comes of time alone."""
        due_s = self.limiter.next_s(now_s)
        at_s = min(self._clock.next_s(), math.inf if due_s is None else due_s)
        return None if at_s == math.inf else at_s

    def pump(self, now_s: float) -> None:
        """Send what may be sent now."""
        if self._protocol is None:
            return
        for ticket in self.limiter.expired(now_s):
            parcel = self._parcels.pop(ticket)
            if parcel.dropped is not None:
                parcel.dropped()
        question = self._clock.take_due(now_s)
        if question is not None:
            asked = self.submit(question, now_s, sent=lambda: self._on_clock_asked(asked))
        due = self.limiter.due(now_s)
        self.record(due)
        for ticket in due:
            parcel = self._parcels.pop(ticket)
            self._protocol.send_frame(parcel.frame)
            self.requests_sent += 1
            self._observe_wait(now_s - ticket.submitted_s)
            if parcel.sent is not None:
                parcel.sent()
        if due:
            self._flush()

    def _on_clock_asked(self, question: Ticket) -> None:
        self._clock.sent(question)
        self.clock_asked(question.sent_s)
