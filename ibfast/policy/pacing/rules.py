"""IB's limits on requests, as one table.

The rule of the file: data, and pure functions of a request; what has been counted is no business of it. A rule limits
the sum of weights: within a window that slides, or, where it has none, of what is open at once. Every rule counts per
key: all requests together, or those of one instrument, of one source, or identical ones.

Source: https://www.interactivebrokers.com/campus/ibkr-api-page/twsapi-doc/ (pacing limitations, market-data lines,
tick-by-tick, market depth, historical data limitations). Numbers derive from the account's market-data lines.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, TypeAlias

from ibfast.config.sections import LEAST_LINES
from ibfast.contracts import Contract
from ibfast.records import Scope
from ibfast.wire import requests
from ibfast.wire.requests import Request

__all__ = [
    "ACCOUNT_RULES",
    "AT_ONCE",
    "BURST_SHARE",
    "CONNECTION_RULES",
    "EVERYTHING",
    "LONGEST_SPAN_S",
    "MARGIN_S",
    "ONCE",
    "REQUEST_RATE",
    "RULES",
    "Charges",
    "Meter",
    "Precedence",
    "Rule",
    "charges",
    "identity",
    "line_of",
    "precedence_of",
    "unlimited",
    "windows_of",
]

MARGIN_S = 0.5
"""Added to every window: a gateway counts a request when it reads it, and one that pauses for so long reads requests
nearer to each other than they were sent."""

BURST_SHARE = 10
"""One of so many requests of a full window may be sent at once where the rule spreads them; the rest is sent evenly."""

EVERYTHING = ""
"""The key of a rule that counts all its requests together."""

Meter: TypeAlias = tuple[str, Hashable]
"""The name of a rule, and the key within it that is counted."""

Charges: TypeAlias = tuple[tuple[Meter, int], ...]
"""What a request counts for: meters, with its weight in each."""

_LINES_PER_REQUEST_PER_S = 2
_LINES_PER_TICK_BY_TICK = 20
_LINES_PER_DEPTH, _LEAST_DEPTH, _MOST_DEPTH = 100, 3, 60
_LONGEST_SMALL_BAR_S = 30
_BID_ASK_WEIGHT = 2

_RATE_RECOVERY_S = 600.0
_SLOT_RECOVERY_S = 60.0

_HistoricalRequest = requests.HistoricalBars | requests.HistoricalTicksRequest | requests.HeadTimestampRequest
_Subscription = requests.MarketData | requests.RealTimeBars | requests.TickByTick | requests.MarketDepth
_Cancel = (
    requests.CancelContractDetails
    | requests.CancelHeadTimestamp
    | requests.CancelHistoricalBars
    | requests.CancelHistoricalTicks
    | requests.CancelMarketData
    | requests.CancelMarketDepth
    | requests.CancelRealTimeBars
    | requests.CancelTickByTick
)


class Precedence(IntEnum):
    """The order in which requests are served."""

    CANCEL = 0
    CONTROL = 1
    SUBSCRIBE = 2
    QUESTION = 3
    HISTORY = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit.

    Attributes:
        name: how users know it.
        scope: what shares it, a CONNECTION or the ACCOUNT with all its connections.
        limit: of how many lines follows what sum of weights.
        applies: whether a request counts.
        window_s: length of the window; None limits what is open at once.
        key: what is counted separately; None counts everything together. Only windows have keys.
        weight: of a request.
        singles_out: the key belongs to a single request, so that no other has to wait behind it.
        is_spread: requests are sent in a small burst and then evenly, so that a pause of the gateway longer than
            `MARGIN_S` breaks the limit by one request, whose error stops the rest, and not by a whole burst.
        recovery_s: a learned limit rises by one again after so many seconds, up to what the rule says.
    """

    name: str
    scope: Scope
    limit: Callable[[int], int]
    applies: Callable[[Request], bool]
    window_s: float | None = None
    key: Callable[[Any], Hashable] | None = None
    weight: Callable[[Any], int] = lambda request: 1
    singles_out: bool = False
    is_spread: bool = False
    recovery_s: float = _SLOT_RECOVERY_S

    @property
    def span_s(self) -> float:
        """How long a request is counted, with the margin for the network; only windows have it."""
        assert self.window_s is not None
        return self.window_s + MARGIN_S

    def meter(self, request: Request) -> Meter:
        """Return what the request is counted by."""
        return self.name, EVERYTHING if self.key is None else self.key(request)


def _takes_line(request: Request) -> bool:
    if isinstance(request, requests.MarketData):
        return not (request.snapshot or request.regulatory_snapshot)
    return isinstance(request, requests.RealTimeBars)


def _is_rationed(request: Request) -> bool:
    """Return whether it is a historical request other than for bars of more than 30 s."""
    if isinstance(request, requests.HistoricalBars):
        length, _, unit = request.bar_size.partition(" ")
        return unit.startswith("sec") and length.isdecimal() and int(length) <= _LONGEST_SMALL_BAR_S
    return isinstance(request, _HistoricalRequest)


def _instrument(contract: Contract) -> Hashable:
    """Return what IB's limits count as one instrument: a contract, at whatever exchange."""
    return contract.con_id or replace(contract, exchange="", primary_exchange="", include_expired=False)


def identity(request: _HistoricalRequest) -> Request:
    """Return what identical requests have in common: everything but the id."""
    return replace(request, req_id=0)


RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "historical_identical", Scope.ACCOUNT, lambda lines: 1,
            applies=_is_rationed, window_s=15.0, key=identity, singles_out=True,
        ),
        Rule(
            "historical_source", Scope.ACCOUNT, lambda lines: 5,
            applies=_is_rationed, window_s=2.0,
            key=lambda request: (_instrument(request.contract), request.contract.exchange, request.what_to_show),
        ),
        Rule(
            "historical", Scope.ACCOUNT, lambda lines: 60,
            applies=lambda request: _is_rationed(request) or isinstance(request, requests.RealTimeBars),
            window_s=600.0,
            weight=lambda request: _BID_ASK_WEIGHT if request.what_to_show == "BID_ASK" else 1,
        ),
        Rule(
            "historical_open", Scope.ACCOUNT, lambda lines: 50,
            applies=lambda request: isinstance(request, _HistoricalRequest),
        ),
        Rule("lines", Scope.ACCOUNT, lambda lines: lines, applies=_takes_line),
        Rule(
            "tick_by_tick_instrument", Scope.ACCOUNT, lambda lines: 1,
            applies=lambda request: isinstance(request, requests.TickByTick),
            window_s=15.0, key=lambda request: _instrument(request.contract),
        ),
        Rule(
            "tick_by_tick", Scope.ACCOUNT, lambda lines: max(1, lines // _LINES_PER_TICK_BY_TICK),
            applies=lambda request: isinstance(request, requests.TickByTick),
        ),
        Rule(
            "depth", Scope.ACCOUNT, lambda lines: min(max(lines // _LINES_PER_DEPTH, _LEAST_DEPTH), _MOST_DEPTH),
            applies=lambda request: isinstance(request, requests.MarketDepth),
        ),
        Rule(
            "regulatory_snapshot", Scope.ACCOUNT, lambda lines: 1,
            applies=lambda request: isinstance(request, requests.MarketData) and request.regulatory_snapshot,
            window_s=1.0,
        ),
        Rule(
            "request_rate", Scope.CONNECTION, lambda lines: max(LEAST_LINES, lines) // _LINES_PER_REQUEST_PER_S,
            applies=lambda request: True, window_s=1.0, is_spread=True, recovery_s=_RATE_RECOVERY_S,
        ),
    )
}  # fmt: skip
"""All limits. What a request waits for is the first of them that has no room."""

_UNLIMITED = 1 << 40


def unlimited(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules without their limits: they count, and nothing ever waits."""
    return tuple(replace(rule, limit=lambda lines: _UNLIMITED, is_spread=False) for rule in rules)


ONCE = frozenset({"tick_by_tick_instrument", "historical_identical"})
"""The rules that allow one request for a key in a time: to count it again only makes that time longer."""

REQUEST_RATE: Meter = ("request_rate", EVERYTHING)
"""The one meter of a connection: everything that is sent counts in it, once."""

CONNECTION_RULES = tuple(rule for rule in RULES.values() if rule.scope is Scope.CONNECTION)
ACCOUNT_RULES = tuple(rule for rule in RULES.values() if rule.scope is Scope.ACCOUNT)

LONGEST_SPAN_S = max(rule.span_s for rule in ACCOUNT_RULES if rule.window_s is not None)
"""For so long a request counts against the account at most."""

AT_ONCE: tuple[Meter, ...] = tuple((rule.name, EVERYTHING) for rule in RULES.values() if rule.window_s is None)
"""The meters of what is open: they have room when something is given back, and not as time goes by."""


def charges(request: Request) -> Charges:
    """Return what a request counts for among the account's rules, in the order of the table."""
    return tuple((rule.meter(request), rule.weight(request)) for rule in ACCOUNT_RULES if rule.applies(request))


def windows_of(owed: Charges) -> Charges:
    """Return what of it counts for a time, and not while a request is open: it outlives connections and processes."""
    return tuple((meter, weight) for meter, weight in owed if RULES[meter[0]].window_s is not None)


def line_of(owed: Charges) -> Charges:
    """Return what a request has in common with those that wait whenever it waits, and so stand in line with it."""
    return tuple((meter, weight) for meter, weight in owed if not RULES[meter[0]].singles_out)


def precedence_of(request: Request) -> Precedence:
    """Return the precedence of a request; bars that are kept up to date are a subscription."""
    if isinstance(request, _Cancel):
        return Precedence.CANCEL
    if isinstance(request, _Subscription) or (isinstance(request, requests.HistoricalBars) and request.keep_up_to_date):
        return Precedence.SUBSCRIBE
    if isinstance(request, requests.ContractDetailsRequest | requests.MatchingSymbols):
        return Precedence.QUESTION
    return Precedence.HISTORY if isinstance(request, _HistoricalRequest) else Precedence.CONTROL
