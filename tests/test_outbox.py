"""What leaves, and what shows that it has arrived; the limiter is the real one, the link only counts."""

from __future__ import annotations

from ibfast.contracts import Contract
from ibfast.feed import Feed
from ibfast.outbox import Outbox
from ibfast.policy.pacing import RateLimiter, Ticket
from ibfast.protocol import Protocol
from ibfast.wire.requests import CurrentTimeRequest, TickByTick


class Session(Protocol):
    """Takes whatever is to be sent."""

    def encode(self, request: object) -> bytes:
        return repr(request).encode()


def outbox_of() -> tuple[Outbox, list[Ticket]]:
    """An outbox with a link, and what it has recorded to have arrived late."""
    outbox = Outbox(RateLimiter(), lambda seconds: None)
    outbox.begin(Session(Feed(1 << 6, max_instruments=4, max_texts=16), 1), lambda: None)
    return outbox, []


def ticks(con_id: int) -> TickByTick:
    return TickByTick(con_id, Contract(con_id=con_id), "Last")


def test_an_answer_of_the_clock_is_a_sign_of_what_was_sent_before_its_own_question() -> None:
    outbox, late = outbox_of()
    outbox.submit(CurrentTimeRequest(), 0.0)
    outbox.pump(0.0)
    between = outbox.submit(ticks(1), 0.1)
    outbox.pump(0.1)
    outbox.submit(CurrentTimeRequest(), 0.2)
    outbox.pump(0.2)
    outbox.record = late.extend
    outbox.clock_answered(5.0, has_ib=True)
    assert late == []
    outbox.clock_answered(6.0, has_ib=True)
    assert late == [between]
    outbox.clock_answered(7.0, has_ib=True)  # nobody has asked
    assert late == [between]


def test_what_was_asked_on_a_lost_link_is_answered_by_nobody() -> None:
    outbox, late = outbox_of()
    outbox.submit(CurrentTimeRequest(), 0.0)
    outbox.pump(0.0)
    outbox.end(1.0)
    outbox.begin(Session(Feed(1 << 6, max_instruments=4, max_texts=16), 1), lambda: None)
    outbox.submit(ticks(1), 2.0)
    outbox.pump(2.0)
    outbox.record = late.extend
    outbox.clock_answered(5.0, has_ib=True)
    assert late == []


def test_a_gateway_without_ib_tells_the_time_and_no_more() -> None:
    outbox, late = outbox_of()
    kept = outbox.submit(ticks(1), 0.0)
    outbox.submit(CurrentTimeRequest(), 0.1)
    outbox.pump(0.1)
    outbox.record = late.extend
    outbox.clock_answered(1.0, has_ib=False)
    assert late == []
    outbox.arrived(None, 9.0)
    assert late == [kept]
    outbox.clock_answered(10.0, has_ib=True)  # its question has been answered
    assert late == [kept]
