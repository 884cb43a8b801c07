"""What can be asked of IB's history: kinds of data, bar sizes, durations.

The rule of the file: what ibfast can't read, or what IB does not have, is refused with the list of what is possible.
Source: https://interactivebrokers.github.io/tws-api/historical_bars.html (its lists are closed), and IBKR Campus.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re

__all__ = ["BAR_KINDS", "MOST_TICKS", "TICK_KINDS", "check_bars", "check_kind", "check_real_time_bars", "check_ticks"]

LIVE_KINDS = ("TRADES", "MIDPOINT", "BID", "ASK")
BAR_KINDS = (
    *LIVE_KINDS, "BID_ASK", "ADJUSTED_LAST", "AGGTRADES", "HISTORICAL_VOLATILITY", "OPTION_IMPLIED_VOLATILITY",
    "FEE_RATE", "YIELD_BID", "YIELD_ASK", "YIELD_BID_ASK", "YIELD_LAST",
)  # fmt: skip
"""Of bars and head timestamps; SCHEDULE is none, for ibfast reads no schedules."""
TICK_KINDS = ("TRADES", "BID_ASK", "MIDPOINT")
MOST_TICKS = 1000
"""IB gives no more ticks in one answer."""

_BAR_SIZES = {
    "sec": (1, 5, 10, 15, 30),
    "min": (1, 2, 3, 5, 10, 15, 20, 30),
    "hour": (1, 2, 3, 4, 8),
    "day": (1,),
    "week": (1,),
    "month": (1,),
}
_SHORT_BAR_SIZES = ("1D", "1W", "1M")
_BAR_SIZE = re.compile(r"([1-9][0-9]?) (sec|min|hour|day|week|month)s?")
_DURATION = re.compile(r"[1-9][0-9]* [SDWMY]")
_UNIT_TOO_SHORT_TO_UPDATE = "1 sec"


def check_bars(
    what_to_show: str, bar_size: str, duration: str, end: str = "", *, keep_up_to_date: bool = False
) -> None:
    """Refuse a question for bars that has no answer.

    Raises:
        ValueError: names the argument and what is possible.
    """
    check_kind(what_to_show)
    size = _BAR_SIZE.fullmatch(bar_size)
    is_known = bar_size in _SHORT_BAR_SIZES or (size is not None and int(size[1]) in _BAR_SIZES[size[2]])
    if not is_known:
        sizes = ", ".join(
            f"{number} {unit}{'s' * (number > 1)}" for unit, all_ in _BAR_SIZES.items() for number in all_
        )
        raise ValueError(f"bar_size={bar_size!r} is not possible: give one of {sizes}")
    if not _DURATION.fullmatch(duration):
        raise ValueError(
            f"duration={duration!r} is not possible: give a whole number, a blank and "
            "S, D, W, M or Y, for seconds to years, such as '1 D'"
        )
    if end and keep_up_to_date:
        raise ValueError(f"end={end!r} is not possible with bars that are kept up to date: leave it out")
    if end and what_to_show == "ADJUSTED_LAST":
        raise ValueError(f"end={end!r} is not possible with ADJUSTED_LAST, which ends now: leave it out")
    if keep_up_to_date and bar_size.startswith(_UNIT_TOO_SHORT_TO_UPDATE):
        raise ValueError(
            f"bar_size={bar_size!r} is not possible with bars that are kept up to date: give 5 secs or more"
        )


def check_kind(what_to_show: str) -> None:
    """Refuse a kind of bars that there is not; raises as `check_bars`."""
    if what_to_show == "SCHEDULE":
        raise _no_kind(what_to_show, "schedules are not read: ", BAR_KINDS)
    if what_to_show not in BAR_KINDS:
        raise _no_kind(what_to_show, "", BAR_KINDS)


def check_real_time_bars(what_to_show: str) -> None:
    """Refuse five-second bars that there are not; raises as `check_bars`."""
    if what_to_show not in LIVE_KINDS:
        raise _no_kind(what_to_show, "", LIVE_KINDS)


def check_ticks(what_to_show: str, start: str, end: str) -> None:
    """Refuse a question for ticks that has no answer; raises as `check_bars`."""
    if what_to_show not in TICK_KINDS:
        raise _no_kind(what_to_show, "", TICK_KINDS)
    if start and end:
        raise ValueError("historical ticks go from start on or up to end: give one of them")


def _no_kind(what_to_show: str, why: str, known: tuple[str, ...]) -> ValueError:
    return ValueError(f"what_to_show={what_to_show!r} is not possible: {why}give one of {', '.join(known)}")
