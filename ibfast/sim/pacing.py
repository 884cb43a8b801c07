"""The limits that a gateway enforces on its clients.

The rule of the file: `now_s` is a parameter, of any monotonic clock; no I/O; independent of the client side's own rate
limiter, so that each can be tested against the other. A refusal is the answer to send; None is permission. The numbers
are IB's, https://www.interactivebrokers.com/campus/ibkr-api-page/twsapi-doc/ (pacing, market-data lines).
Windows slide.

Lines, tick-by-tick, depth and historical limits belong to the account; the rate of requests and that of questions for
the clock to one connection.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["GatewayLimits", "Refusal", "RequestRate"]

_LINES_PER_REQUEST_PER_SECOND = 2
_LEAST_LINES = 100
_RATE_ERRORS_TO_END = 3

_CLOCK_PAUSE_S = 1.0
_REGULATORY_PAUSE_S = 1.0

_TICK_BY_TICK_SHARE = 0.05
_TICK_BY_TICK_PAUSE_S = 15.0
_LINES_PER_DEPTH = 100
_LEAST_DEPTH, _MOST_DEPTH = 3, 60

_HISTORICAL_OPEN = 50
_HISTORICAL_WINDOW_S, _HISTORICAL_IN_WINDOW = 600.0, 60
_BURST_WINDOW_S, _BURST_LIMIT = 2.0, 6
_IDENTICAL_PAUSE_S = 15.0
_LONGEST_SMALL_BAR_S = 30

_IN_WINDOW = "historical in ten minutes"
_PACING = "Historical Market Data Service error message:Historical data request pacing violation"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served, by which rule; `ends_session`: the connection is closed, too."""

    code: int
    message: str
    rule: str
    ends_session: bool = False


class _Window:
    """Weighted events of the last `span_s` seconds, exactly."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._entries: deque[tuple[float, int]] = deque()
        self._weight = 0

    def weight(self, now_s: float) -> int:
        while self._entries and self._entries[0][0] <= now_s - self._span_s:
            self._weight -= self._entries.popleft()[1]
        return self._weight

    def add(self, now_s: float, weight: int = 1) -> None:
        self._entries.append((now_s, weight))
        self._weight += weight


class _Recent:
    """When each key was last seen; forgets what is older than `span_s`."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._seen_s: dict[Hashable, float] = {}

    def has(self, key: Hashable, now_s: float) -> bool:
        while self._seen_s and next(iter(self._seen_s.values())) <= now_s - self._span_s:
            del self._seen_s[next(iter(self._seen_s))]
        return key in self._seen_s

    def add(self, key: Hashable, now_s: float) -> None:
        self._seen_s.pop(key, None)
        self._seen_s[key] = now_s


class RequestRate:
    """The rate of requests of one connection: half the market-data lines, but at least half of 100, per second."""

    def __init__(self, lines: int = 100) -> None:
        self.limit = max(_LEAST_LINES, lines) // _LINES_PER_REQUEST_PER_SECOND
        self._window = _Window(1.0)
        self._errors = 0

    def request(self, now_s: float) -> Refusal | None:
        """Count one request; the third refusal ends the session."""
        if self._window.weight(now_s) < self.limit:
            self._window.add(now_s)
            return None
        return self.refuse()

    def refuse(self) -> Refusal:
        """Return the refusal of one request more than allowed."""
        self._errors += 1
        text = (
            f"Max rate of messages per second has been exceeded:max={self.limit} rec={self.limit + 1} ({self._errors})"
        )
        return Refusal(100, text, "requests per second", ends_session=self._errors >= _RATE_ERRORS_TO_END)


class ClockRate:
    """The time is sent once a second on each connection; every other question for it is dropped without an error."""

    def __init__(self) -> None:
        self._told_s = -math.inf

    def ask(self, now_s: float) -> Refusal | None:
        """Return whether a question is answered; the refusal is not sent."""
        if now_s - self._told_s < _CLOCK_PAUSE_S:
            return Refusal(0, "", "questions for the clock per second")
        self._told_s = now_s
        return None


class GatewayLimits:
    """The limits of one account, at once and within windows of time, over all its connections.

    Args:
        lines: market-data lines.
        enforced: False counts, but refuses nothing.
    """

    def __init__(self, lines: int = 100, *, enforced: bool = True) -> None:
        self._enforced = enforced
        self.lines = lines
        self.tick_by_tick = max(1, int(lines * _TICK_BY_TICK_SHARE))
        self.depth = min(max(lines // _LINES_PER_DEPTH, _LEAST_DEPTH), _MOST_DEPTH)
        self._open: Counter[str] = Counter()
        self._tick_by_tick_asked = _Recent(_TICK_BY_TICK_PAUSE_S)
        self._regulatory = _Recent(_REGULATORY_PAUSE_S)
        self._historical = _Window(_HISTORICAL_WINDOW_S)
        self._identical = _Recent(_IDENTICAL_PAUSE_S)
        self._burst: deque[tuple[float, Hashable]] = deque()

    def open_line(self) -> Refusal | None:
        """Take a market-data line, for level 1."""
        return self._take("line", self.lines, Refusal(101, "Max number of tickers has been reached", "lines"))

    def close_line(self) -> None:
        """Give it back."""
        self._open["line"] -= 1

    def take_regulatory_snapshot(self, now_s: float) -> Refusal | None:
        """Serve a regulatory snapshot; one in a second."""
        if self._enforced and self._regulatory.has("", now_s):
            return Refusal(321, "Only one regulatory snapshot in a second", "regulatory snapshots per second")
        self._regulatory.add("", now_s)
        return None

    def open_tick_by_tick(self, instrument: Hashable, now_s: float) -> Refusal | None:
        """Begin a tick-by-tick subscription; one request for the same instrument in 15 s."""
        if self._enforced and self._tick_by_tick_asked.has(instrument, now_s):
            text = "Only one tick-by-tick request for the same instrument within 15 seconds"
            return Refusal(10190, text, "tick-by-tick of one instrument")
        refusal = Refusal(10190, "Max number of tick-by-tick requests has been reached", "tick-by-tick at once")
        refused = self._take("tick_by_tick", self.tick_by_tick, refusal)
        if refused is None:
            self._tick_by_tick_asked.add(instrument, now_s)
        return refused

    def close_tick_by_tick(self) -> None:
        """End it."""
        self._open["tick_by_tick"] -= 1

    def open_depth(self) -> Refusal | None:
        """Begin a depth subscription."""
        text = f"Max number ({self.depth}) of market depth requests has been reached"
        return self._take("depth", self.depth, Refusal(309, text, "depth at once"))

    def close_depth(self) -> None:
        """End it."""
        self._open["depth"] -= 1

    def open_real_time_bars(self, now_s: float) -> Refusal | None:
        """Begin real-time bars: they take a line, and count as historical requests."""
        if self._enforced and self._historical.weight(now_s) >= _HISTORICAL_IN_WINDOW:
            return Refusal(420, "Invalid Real-time Query:Historical data request pacing violation", _IN_WINDOW)
        refusal = self.open_line()
        if refusal is None:
            self._historical.add(now_s)
        return refusal

    def open_historical(
        self, request: Hashable, same_source: Hashable, bar_s: int, *, is_bid_ask: bool, now_s: float
    ) -> Refusal | None:
        """Begin a historical request.

        Args:
            request: equal for identical requests.
            same_source: equal for requests of one contract, exchange and kind of tick.
            bar_s: length of a bar; 0 for ticks and head timestamps. Longer bars than 30 s are not rationed.
            is_bid_ask: BID_ASK data count twice.
            now_s: the time.
        """
        if bar_s > _LONGEST_SMALL_BAR_S:
            return self._take_historical()
        weight = 2 if is_bid_ask else 1
        while self._burst and self._burst[0][0] <= now_s - _BURST_WINDOW_S:
            self._burst.popleft()
        broken = (
            ("identical historical requests", self._identical.has(request, now_s)),
            ("historical burst", sum(source == same_source for _, source in self._burst) + 1 >= _BURST_LIMIT),
            (_IN_WINDOW, self._historical.weight(now_s) + weight > _HISTORICAL_IN_WINDOW),
        )
        for rule, is_broken in broken:
            if self._enforced and is_broken:
                return Refusal(162, _PACING, rule)
        refusal = self._take_historical()
        if refusal is None:
            self._identical.add(request, now_s)
            self._burst.append((now_s, same_source))
            self._historical.add(now_s, weight)
        return refusal

    def close_historical(self) -> None:
        """End it."""
        self._open["historical"] -= 1

    def _take_historical(self) -> Refusal | None:
        text = f"Error processing request: more than {_HISTORICAL_OPEN} historical requests at once"
        return self._take("historical", _HISTORICAL_OPEN, Refusal(322, text, "historical at once"))

    def _take(self, what: str, limit: int, refusal: Refusal) -> Refusal | None:
        if self._enforced and self._open[what] >= limit:
            return refusal
        self._open[what] += 1
        return None
