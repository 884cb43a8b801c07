"""The question for the gateway's clock, against a gateway that answers once a second and drops the rest."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ibfast.config.sections import PacingConfig
from ibfast.policy.pacing.clock import APART_S, REPEAT_S, ClockQuestion
from ibfast.policy.pacing.limiter import RateLimiter, Ticket
from ibfast.wire.requests import CurrentTimeInMillisRequest, CurrentTimeRequest


class Gateway:
    """Reads what was sent after a delay, answers one question in a second, and drops the others."""

    def __init__(self) -> None:
        self.limiter = RateLimiter(PacingConfig())
        self.clock = ClockQuestion()
        self.answered_s = -math.inf
        self.questions: list[Ticket] = []

    def ask(self, now_s: float) -> None:
        """Send the question if it is due."""
        request = self.clock.take_due(now_s)
        if request is not None:
            ticket = self.limiter.submit(request, now_s)
            assert self.limiter.due(now_s) == [ticket]
            self.clock.sent(ticket)
            self.questions.append(ticket)

    def read(self, now_s: float) -> list[Ticket]:
        """Return the questions that are answered, of those that have come."""
        answered = []
        for ticket in self.questions:
            if now_s - self.answered_s >= 1.0:
                self.answered_s = now_s
                answered.append(ticket)
        self.questions.clear()
        return answered


def test_who_asks_while_a_question_is_out_shares_its_answer() -> None:
    gateway = Gateway()
    clock = gateway.clock
    clock.want(CurrentTimeRequest())
    gateway.ask(10.0)
    clock.want(CurrentTimeInMillisRequest())
    gateway.ask(10.0)
    (question,) = gateway.questions
    assert question.request == CurrentTimeRequest()
    assert clock.next_s() == 10.0 + REPEAT_S
    assert clock.answered(10.5) is question
    assert (clock.is_wanted, clock.next_s()) == (False, math.inf)


def test_the_next_question_waits_from_the_answer_on_however_long_that_took() -> None:
    gateway = Gateway()
    gateway.clock.want(CurrentTimeRequest())
    gateway.ask(0.0)
    gateway.clock.answered(3.0)
    gateway.clock.want(CurrentTimeRequest())
    assert gateway.clock.next_s() == 3.0 + APART_S
    assert gateway.clock.take_due(4.0) is None
    assert gateway.clock.take_due(3.0 + APART_S) == CurrentTimeRequest()
    assert gateway.clock.take_due(9.0) is None  # it waits for its turn to be sent


def test_a_dropped_question_is_repeated_and_shifts_no_later_answer() -> None:
    gateway = Gateway()
    clock = gateway.clock
    clock.want(CurrentTimeRequest())
    gateway.ask(0.0)
    gateway.ask(REPEAT_S)
    gateway.ask(2 * REPEAT_S)
    first = gateway.questions[0]
    assert len(gateway.questions) == 3
    assert gateway.read(11.0) == [first]  # it had stopped, and drops the two others
    assert clock.answered(11.0) is first
    clock.want(CurrentTimeRequest())
    gateway.ask(20.0)
    (later,) = gateway.read(20.0)
    assert clock.answered(20.0) is later


def test_an_answer_that_comes_late_is_a_sign_of_the_oldest_question() -> None:
    """A link with a delay of six seconds loses nothing: both questions are answered."""
    gateway = Gateway()
    clock = gateway.clock
    clock.want(CurrentTimeRequest())
    gateway.ask(0.0)
    gateway.ask(REPEAT_S)
    first, second = gateway.questions
    assert clock.answered(6.0) is first
    clock.want(CurrentTimeRequest())
    gateway.ask(6.0 + APART_S)
    assert clock.answered(10.9) is second


steps = st.lists(st.tuples(st.sampled_from(["want", "wait", "read"]), st.floats(0, 2)), max_size=60)


@given(steps)
def test_no_question_hangs_and_a_gateway_that_reads_drops_none(steps: list[tuple[str, float]]) -> None:
    gateway = Gateway()
    clock = gateway.clock
    now_s = 0.0
    for what, pause_s in [*steps, ("want", 0.0)]:
        now_s += pause_s
        if what == "want":
            clock.want(CurrentTimeRequest())
        elif what == "read":
            asked = [*gateway.questions]
            answered = gateway.read(now_s)
            assert asked[:1] == answered, "only repeats may be dropped"
            for ticket in answered:
                assert clock.answered(now_s) in asked
                assert ticket.sent_s <= now_s
        gateway.ask(now_s)
    while clock.is_wanted:
        now_s = max(now_s, clock.next_s()) if clock.next_s() < math.inf else now_s
        gateway.ask(now_s)
        for _ in gateway.read(now_s):
            clock.answered(now_s)
    assert now_s < sum(pause_s for _, pause_s in steps) + 2 * REPEAT_S
