"""What leaves, and what shows that it has arrived; the limiter is the real one, the link only counts."""

from __future__ import annotations

import pytest

from ibfast.config.sections import PacingConfig
from ibfast.connection.protocol import Protocol
from ibfast.connection.send_queue import Outbox
from ibfast.contracts import Contract
from ibfast.errors import NotConnectedError
from ibfast.feed import Feed
from ibfast.policy.pacing.limiter import RateLimiter, Ticket
from ibfast.wire.requests import CurrentTimeRequest, TickByTick


class Session(Protocol):
    """Takes whatever is to be sent."""

    def encode(self, request: object) -> bytes:
        return repr(request).encode()


def outbox_of() -> tuple[Outbox, list[Ticket]]:
    """An outbox with a link, and what it has recorded to have arrived late."""
    outbox = Outbox(RateLimiter(PacingConfig()), lambda seconds: None)
    outbox.begin(Session(Feed(1 << 6, max_instruments=4, max_texts=16), 1), lambda: None)
    return outbox, []


def ticks(con_id: int) -> TickByTick:
    return TickByTick(con_id, Contract(con_id=con_id), "Last")


def test_an_answer_of_the_clock_is_a_sign_of_what_was_sent_before_its_own_question() -> None:
    outbox, late = outbox_of()
    before = outbox.submit(ticks(1), 0.0)
    outbox.pump(0.0)
    outbox.ask_clock()
    outbox.pump(0.1)
    outbox.submit(ticks(2), 0.2)
    outbox.pump(0.2)
    outbox.record = late.extend
    outbox.clock_answered(5.0, has_ib=True)
    assert late == [before]
    outbox.clock_answered(7.0, has_ib=True)  # nobody has asked
    assert late == [before]


def test_the_clock_is_asked_once_for_all_who_wait_and_again_when_it_is_going_to_answer() -> None:
    outbox, _ = outbox_of()
    asked: list[float] = []
    outbox.clock_asked = asked.append
    outbox.ask_clock()
    outbox.pump(0.0)
    outbox.ask_clock(CurrentTimeRequest())
    outbox.pump(0.5)
    assert (outbox.requests_sent, outbox.is_clock_wanted, outbox.next_s(0.5)) == (1, True, 5.0)
    outbox.clock_answered(0.75, has_ib=True)
    assert (outbox.is_clock_wanted, outbox.next_s(0.75)) == (False, None)
    outbox.ask_clock()
    outbox.pump(0.75)
    assert (outbox.next_s(0.75), outbox.clock_wait_s(0.75)) == (1.85, pytest.approx(1.1))
    outbox.pump(1.85)
    assert asked == [0.0, 1.85]


def test_without_a_session_nobody_can_ask_for_the_clock() -> None:
    outbox, _ = outbox_of()
    outbox.end(0.0)
    with pytest.raises(NotConnectedError, match="clock"):
        outbox.ask_clock()
    assert outbox.next_s(0.0) is None


def test_what_was_asked_on_a_lost_link_is_answered_by_nobody() -> None:
    outbox, late = outbox_of()
    outbox.ask_clock()
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
    outbox.ask_clock()
    outbox.pump(0.1)
    outbox.record = late.extend
    outbox.clock_answered(1.0, has_ib=False)
    assert late == []
    outbox.arrived(None, 9.0)
    assert late == [kept]
    outbox.clock_answered(10.0, has_ib=True)  # its question has been answered
    assert late == [kept]
