"""What IB's errors teach about the limits; what follows from it is tested with the rate limiter."""

from __future__ import annotations

import pytest

from ibfast.policy.pacing.lessons import Reaction, lesson_of


@pytest.mark.parametrize(
    ("code", "message", "rule", "reaction"),
    [
        (100, "Max rate of messages per second has been exceeded:max=50 rec=51 (1)", "request_rate", "SLOW_DOWN"),
        (101, "Max number of tickers has been reached", "lines", "LOWER"),
        (162, "Historical Market Data Service error message:Historical data request pacing violation", "historical",
         "PAUSE"),
        (309, "Max number (3) of market depth requests has been reached", "depth", "LOWER"),
        (322, "Error processing request: more than 50 historical requests at once", "historical_open", "LOWER"),
        (420, "Invalid Real-time Query:Historical data request pacing violation", "historical", "PAUSE"),
        (10190, "Max number of tick-by-tick requests has been reached", "tick_by_tick", "LOWER"),
        (10190, "Only one tick-by-tick request for the same instrument within 15 seconds", "tick_by_tick_instrument",
         "HOLD"),
        (10190, "", "tick_by_tick", "LOWER"),
        (162, "", "historical", "PAUSE"),
    ],
)  # fmt: skip
def test_what_an_error_teaches(code: int, message: str, rule: str, reaction: str) -> None:
    lesson = lesson_of(code, message)
    assert lesson is not None
    assert (lesson.rule, lesson.reaction) == (rule, Reaction[reaction])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (162, "Historical Market Data Service error message:HMDS query returned no data"),
        (322, "Error processing request: Duplicate ticker id 1"),
        (420, "Invalid Real-time Query:No market data permissions"),
        (200, "No security definition has been found for the request"),
        (2104, ""),
    ],
)
def test_other_errors_teach_nothing(code: int, message: str) -> None:
    assert lesson_of(code, message) is None
