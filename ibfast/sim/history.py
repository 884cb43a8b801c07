"""Historical bars and ticks: from what a request says to the rows of its answer.

The rule of the file: the answer depends on the source and the request alone. A request that a gateway refuses raises
RequestError with the code and text to answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np
import numpy.typing as npt

from ibfast.errors import RequestError
from ibfast.records import (
    DAY_S,
    HISTORICAL_BAR,
    HISTORICAL_TICK_BID_ASK,
    HISTORICAL_TICK_LAST,
    HISTORICAL_TICK_MIDPOINT,
    NS_PER_S,
)
from ibfast.sim.channel import midpoint
from ibfast.sim.events import EventSource, QuoteEvent, TradeEvent
from ibfast.sim.instruments import Instrument
from ibfast.wire.requests import HistoricalBars, HistoricalTicksRequest
from ibfast.wire.times import parse_bar_time, zone_of

__all__ = [
    "BAR_SECONDS",
    "DATE_TEXT",
    "MOST_TICKS",
    "BarWindow",
    "bar_window",
    "historical_bars",
    "historical_ticks",
    "last_ticks",
    "write_date",
    "write_utc",
]

BAR_SECONDS = {
    "1 secs": 1,
    "5 secs": 5,
    "10 secs": 10,
    "15 secs": 15,
    "30 secs": 30,
    "1 min": 60,
    "2 mins": 120,
    "3 mins": 180,
    "5 mins": 300,
    "10 mins": 600,
    "15 mins": 900,
    "20 mins": 1200,
    "30 mins": 1800,
    "1 hour": 3600,
    "2 hours": 7200,
    "3 hours": 10_800,
    "4 hours": 14_400,
    "8 hours": 28_800,
    "1 day": DAY_S,
}
"""IB's bar sizes."""

_DURATION = re.compile(r"([1-9][0-9]{0,4}) ([SDWMY])")
_DURATION_UNIT_S = {"S": 1, "D": DAY_S, "W": 7 * DAY_S, "M": 30 * DAY_S, "Y": 365 * DAY_S}
_WEEKEND = 5
_MOST_DAYS = 365
_LEAST_KEPT_BAR_S = 5
_MOST_BARS = 20_000
_SESSION_SEARCH_DAYS = 6
MOST_TICKS = 1000
_TICKS_REACH_NS = 3600 * NS_PER_S
_TICKS_STEP_NS = 60 * NS_PER_S
_TRADE_BARS = ("TRADES", "ADJUSTED_LAST")
_QUOTE_BARS = ("MIDPOINT", "BID", "ASK", "BID_ASK")
_VALIDATION, _NO_DATA = 321, 162
DATE_TEXT = 1
"""The format of dates as text, in a request."""


@dataclass(frozen=True, slots=True)
class BarWindow:
    """The time that a request for bars covers; `start_s` begins each bar."""

    begins_s: int
    ends_s: int
    bar_s: int
    start_s: npt.NDArray[np.int64]


def bar_window(request: HistoricalBars, instrument: Instrument, now_ns: int) -> BarWindow:
    """Work out which bars a request asks for.

    Raises:
        RequestError: 321 for what makes no sense, 162 for what there are no data for.
    """
    req_id = request.req_id
    bar_s = BAR_SECONDS.get(request.bar_size)
    if bar_s is None:
        raise _invalid(req_id, f"Invalid bar size {request.bar_size!r}")
    match = _DURATION.fullmatch(request.duration)
    if match is None:
        raise _invalid(req_id, f"Invalid duration {request.duration!r}")
    _check_what(req_id, request.what_to_show, instrument, _TRADE_BARS + _QUOTE_BARS)
    number, unit = int(match[1]), match[2]
    if unit == "S" and number > DAY_S:
        raise _invalid(req_id, f"Historical data requests for durations longer than {DAY_S} seconds are made in days")
    if unit == "D" and number > _MOST_DAYS:
        raise _invalid(
            req_id, f"Historical data requests for durations longer than {_MOST_DAYS} days are made in years"
        )
    if request.end and request.what_to_show == "ADJUSTED_LAST":
        raise _invalid(req_id, "End date not supported with adjusted last")
    if request.keep_up_to_date and bar_s < _LEAST_KEPT_BAR_S:
        raise _invalid(req_id, f"Bars of less than {_LEAST_KEPT_BAR_S} seconds can't be kept up to date")
    zone = zone_of(instrument.hours.zone)
    ends_s = now_ns // NS_PER_S if not request.end else _parse_time(req_id, request.end, zone)
    begins_s = ends_s - number * _DURATION_UNIT_S[unit]
    if (ends_s - begins_s) // bar_s > _MOST_BARS:
        raise _no_data(req_id, "invalid step: too many bars")
    if bar_s == DAY_S:
        starts = _days(ends_s, number) if unit == "D" else _weekdays(begins_s, ends_s)
    else:
        first = -(-begins_s // bar_s) * bar_s
        starts = np.arange(first, ends_s, bar_s, dtype=np.int64)
        if request.use_rth:
            starts = _in_liquid_hours(starts, bar_s, instrument)
    return BarWindow(begins_s, ends_s, bar_s, starts)


def historical_bars(
    source: EventSource, instrument: Instrument, what_to_show: str, window: BarWindow
) -> npt.NDArray[np.void]:
    """Return the bars of a window as a HISTORICAL_BAR array."""
    what_to_show = "TRADES" if what_to_show in _TRADE_BARS else what_to_show
    columns = source.bars(instrument.con_id, what_to_show, window.start_s, window.bar_s)
    bars = np.zeros(len(columns.start_s), HISTORICAL_BAR)
    bars["event_ns"] = columns.start_s * NS_PER_S
    for name in ("open", "high", "low", "close", "volume", "wap", "count"):
        bars[name] = getattr(columns, name)
    return bars


def historical_ticks(
    source: EventSource, instrument: Instrument, request: HistoricalTicksRequest, now_ns: int
) -> npt.NDArray[np.void]:
    """Return at most 1,000 ticks from `request.start` on or up to `request.end`, whole seconds at the end included.

    Raises:
        RequestError: 321 for what makes no sense.
    """
    req_id = request.req_id
    _check_what(req_id, request.what_to_show, instrument, ("TRADES", "MIDPOINT", "BID_ASK"))
    if not 0 < request.number_of_ticks <= MOST_TICKS:
        raise _invalid(req_id, f"number of ticks must be between 1 and {MOST_TICKS}")
    if bool(request.start) == bool(request.end):
        raise _invalid(req_id, "one of start and end must be given, not both")
    zone = zone_of(instrument.hours.zone)
    if request.start:
        start_ns = _parse_time(req_id, request.start, zone) * NS_PER_S
        return _ticks_after(source, instrument, request, start_ns, now_ns)
    end_ns = min(_parse_time(req_id, request.end, zone) * NS_PER_S, now_ns)
    return last_ticks(source, instrument, request.what_to_show, request.number_of_ticks, end_ns)


def last_ticks(
    source: EventSource, instrument: Instrument, what_to_show: str, number: int, end_ns: int
) -> npt.NDArray[np.void]:
    """Return the last `number` ticks before `end_ns`, as far as an hour back."""
    found: list[tuple[object, ...]] = []
    stop_ns = end_ns
    while len(found) < number and end_ns - stop_ns < _TICKS_REACH_NS:
        start_ns = stop_ns - _TICKS_STEP_NS
        found = _rows(source, instrument, what_to_show, start_ns, stop_ns) + found
        stop_ns = start_ns
    return np.array(found[-number:], dtype=_TICK_DTYPES[what_to_show])


def write_date(start_s: int, bar_s: int, format_date: int, instrument: Instrument, *, names_zone: bool) -> str:
    """Write the begin of a bar as a request wants it: a date for daily bars, else text in the instrument's zone (format
    1, with the zone's name from some server version on) or epoch seconds."""
    if bar_s >= DAY_S:
        return f"{datetime.fromtimestamp(start_s, UTC):%Y%m%d}"
    if format_date != DATE_TEXT:
        return str(start_s)
    local = datetime.fromtimestamp(start_s, zone_of(instrument.hours.zone))
    return f"{local:%Y%m%d %H:%M:%S} {instrument.hours.zone}" if names_zone else f"{local:%Y%m%d  %H:%M:%S}"


def write_utc(at_s: int, format_date: int) -> str:
    """Write a head timestamp: UTC text (format 1) or epoch seconds."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y%m%d-%H:%M:%S}" if format_date == DATE_TEXT else str(at_s)


_TICK_DTYPES = {
    "TRADES": HISTORICAL_TICK_LAST,
    "BID_ASK": HISTORICAL_TICK_BID_ASK,
    "MIDPOINT": HISTORICAL_TICK_MIDPOINT,
}
_UNREPORTED = 2


def _ticks_after(
    source: EventSource, instrument: Instrument, request: HistoricalTicksRequest, start_ns: int, now_ns: int
) -> npt.NDArray[np.void]:
    found: list[tuple[object, ...]] = []
    at_ns, limit_ns = start_ns, min(start_ns + _TICKS_REACH_NS, now_ns)
    while len(found) < request.number_of_ticks and at_ns < limit_ns:
        stop_ns = min(at_ns + _TICKS_STEP_NS, limit_ns)
        found += _rows(source, instrument, request.what_to_show, at_ns, stop_ns)
        at_ns = stop_ns
    return np.array(found[: request.number_of_ticks], dtype=_TICK_DTYPES[request.what_to_show])


def _rows(
    source: EventSource, instrument: Instrument, what_to_show: str, start_ns: int, end_ns: int
) -> list[tuple[object, ...]]:
    """Return ticks as rows of their dtype, at whole seconds as a gateway has them."""
    rows: list[tuple[object, ...]] = []
    before: float | None = None
    for event in source.past_events(instrument.con_id, start_ns, end_ns):
        at_ns = event.ts_ns // NS_PER_S * NS_PER_S
        if isinstance(event, TradeEvent):
            if what_to_show == "TRADES":
                mask = _UNREPORTED if event.unreported else 0
                rows.append((at_ns, mask, event.price, event.size, event.exchange, event.conditions))
        elif what_to_show == "BID_ASK":
            rows.append((at_ns, 0, *_sides(event)))
        elif what_to_show == "MIDPOINT":
            middle = midpoint(event)
            if middle is not None and middle != before:
                before = middle
                rows.append((at_ns, middle, 0.0))
    return rows


def _sides(quote: QuoteEvent) -> tuple[float, ...]:
    return tuple(np.nan if value is None else value for value in (quote.bid, quote.ask, quote.bid_size, quote.ask_size))


def _days(ends_s: int, number: int) -> npt.NDArray[np.int64]:
    day = ends_s // DAY_S
    return _weekdays((day - 2 * number - 4) * DAY_S, ends_s)[-number:]


def _weekdays(begins_s: int, ends_s: int) -> npt.NDArray[np.int64]:
    days = np.arange(begins_s // DAY_S + 1, ends_s // DAY_S + 1, dtype=np.int64)
    weekdays: npt.NDArray[np.int64] = days[_is_weekday(days)] * DAY_S
    return weekdays


def _is_weekday(days: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    thursday = 3
    is_weekday: npt.NDArray[np.bool_] = (days + thursday) % 7 < _WEEKEND
    return is_weekday


def _in_liquid_hours(starts: npt.NDArray[np.int64], bar_s: int, instrument: Instrument) -> npt.NDArray[np.int64]:
    """Keep what lies in liquid sessions; if that is nothing, take as much of the end of the session before."""
    if not len(starts):
        return starts
    first, last = (datetime.fromtimestamp(int(at), UTC).date() for at in (starts[0], starts[-1]))
    days = [last + timedelta(days=1 - back) for back in range((last - first).days + _SESSION_SEARCH_DAYS)]
    sessions = [session for session in map(instrument.hours.liquid_session, days) if session is not None]
    kept = np.zeros(len(starts), dtype=bool)
    for opens, closes in sessions:
        kept |= (starts >= opens) & (starts < closes)
    if kept.any():
        return starts[kept]
    opens, closes = next(session for session in sessions if session[1] <= starts[-1])
    moved: npt.NDArray[np.int64] = starts - (starts[-1] + bar_s - closes)
    return moved[moved >= opens]


def _check_what(req_id: int, what_to_show: str, instrument: Instrument, known: tuple[str, ...]) -> None:
    if what_to_show not in known:
        raise _invalid(req_id, f"Invalid what to show {what_to_show!r}")
    needs_trades = what_to_show in _TRADE_BARS
    if not (instrument.has_trades if needs_trades else instrument.has_quotes):
        contract = instrument.contract
        named = f"{contract.symbol}/{contract.sec_type}@{contract.exchange} {what_to_show}"
        raise _no_data(req_id, f"No historical market data for {named}")


def _parse_time(req_id: int, text: str, zone: tzinfo) -> int:
    try:
        return parse_bar_time(text, zone) // NS_PER_S
    except ValueError:
        raise _invalid(req_id, f"Invalid time {text!r}: yyyymmdd hh:mm:ss, with or without a time zone") from None


def _invalid(req_id: int, reason: str) -> RequestError:
    return RequestError(req_id, _VALIDATION, f"Error validating request:-'sim' : cause - {reason}")


def _no_data(req_id: int, reason: str) -> RequestError:
    return RequestError(req_id, _NO_DATA, f"Historical Market Data Service error message:{reason}")
