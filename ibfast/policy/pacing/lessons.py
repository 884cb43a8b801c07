"""What IB's errors teach about the limits.

The rule of the file: an error changes limits and counts, never a request.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from ibfast.policy.pacing.meters import Ledger
from ibfast.policy.pacing.rules import RULES, Charges

__all__ = ["HISTORICAL_PAUSE_S", "SLOW_DOWN_PERCENT", "Lesson", "Reaction", "lesson_of", "teach"]

HISTORICAL_PAUSE_S = 60.0
"""How long the historical service is left alone after a pacing violation that our own requests do not explain."""

SLOW_DOWN_PERCENT = 80
"""What is left of the request rate after an error 100, whose third in a session ends it."""

_NAMED_MOST = re.compile(r"max=(\d+)")


class Reaction(Enum):
    """What an error teaches about a rule."""

    SLOW_DOWN = "send fewer, and nothing for the length of the window"
    LOWER = "what is open is all there may be"
    PAUSE = "something else uses the window up: wait"
    HOLD = "the key was asked for too soon: count it once more"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one of IB's errors says about a rule.

    Attributes:
        about: a pattern in the text of the error, for codes with several meanings.
    """

    code: int
    rule: str
    reaction: Reaction
    about: str = ""


LESSONS = (
    Lesson(100, "request_rate", Reaction.SLOW_DOWN),
    Lesson(101, "lines", Reaction.LOWER),
    Lesson(162, "historical", Reaction.PAUSE, "pacing violation"),
    Lesson(309, "depth", Reaction.LOWER),
    Lesson(322, "historical_open", Reaction.LOWER, "historical"),
    Lesson(420, "historical", Reaction.PAUSE, "pacing violation"),
    Lesson(10190, "tick_by_tick_instrument", Reaction.HOLD, "same instrument|15 seconds"),
    Lesson(10190, "tick_by_tick", Reaction.LOWER),
)


def lesson_of(code: int, message: str = "") -> Lesson | None:
    """Return what an error teaches; without its text, the last lesson of the code is meant."""
    lessons = [lesson for lesson in LESSONS if lesson.code == code]
    if not message:
        return lessons[-1] if lessons else None
    return next((lesson for lesson in lessons if re.search(lesson.about, message, re.IGNORECASE)), None)


def teach(lesson: Lesson, ledger: Ledger, now_s: float, own: Charges, *, is_open: bool, message: str = "") -> None:
    """Change what a lesson is about.

    Args:
        lesson: from `lesson_of`.
        ledger: that of the lesson's rule.
        now_s: the time.
        own: what the request that was refused counts for.
        is_open: whether it is counted as open.
        message: IB's text.
    """
    name = lesson.rule
    own = tuple(charge for charge in own if charge[0][0] == name)
    match lesson.reaction:
        case Reaction.SLOW_DOWN:
            _slow_down(name, ledger, now_s, message)
        case Reaction.LOWER:
            refused = sum(weight for _, weight in own) if is_open else 0
            ledger.lower(name, ledger.used(name, now_s) - refused, now_s)
        case Reaction.PAUSE:
            ledger.hold(name, now_s + HISTORICAL_PAUSE_S)
        case Reaction.HOLD:
            ledger.take(own, now_s)


def _slow_down(name: str, ledger: Ledger, now_s: float, message: str) -> None:
    limit = ledger.limit(name, now_s)
    named = _NAMED_MOST.search(message)
    if named is not None and int(named[1]) < limit:
        ledger.cap(name, max(1, int(named[1])), now_s)
    elif not ledger.is_held(name, now_s):  # else it is an error more of the same burst
        ledger.lower(name, max(1, limit * SLOW_DOWN_PERCENT // 100), now_s)
    ledger.hold(name, now_s + RULES[name].span_s)
