"""A subscription: what is asked for, how it fares, and what it has missed; the same one over any number of connections.

The rule of the file: values and their meaning. What becomes of a subscription is decided in `session`.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from ibfast.records import NS_PER_S, GapCause, Scope
from ibfast.wire.requests import (
    CancelHistoricalBars,
    CancelMarketData,
    CancelMarketDepth,
    CancelRealTimeBars,
    CancelTickByTick,
    HistoricalBars,
    MarketData,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)

__all__ = [
    "CANCELS",
    "FLOWING",
    "OVER",
    "SUBSCRIPTION_REQUESTS",
    "UNOPENED",
    "Cancel",
    "Gap",
    "Subscription",
    "SubscriptionRequest",
    "SubscriptionState",
    "begin_ns",
    "cancel_of",
    "family_of",
]

SubscriptionRequest: TypeAlias = MarketData | TickByTick | MarketDepth | RealTimeBars | HistoricalBars
Cancel: TypeAlias = CancelMarketData | CancelTickByTick | CancelMarketDepth | CancelRealTimeBars | CancelHistoricalBars
SUBSCRIPTION_REQUESTS = (MarketData, TickByTick, MarketDepth, RealTimeBars, HistoricalBars)
CANCELS = (CancelMarketData, CancelTickByTick, CancelMarketDepth, CancelRealTimeBars, CancelHistoricalBars)


# A record is noticed up to so much later than it was read, by a clock that never steps.
NOTICED_S = 0.25
# So far apart two clocks must be before one of them counts as set back.
STEP_NS = NS_PER_S


class SubscriptionState(StrEnum):
    """How a subscription fares."""

    PENDING = "PENDING"
    WAITING = "WAITING"
    OPENING = "OPENING"
    LIVE = "LIVE"
    QUIET = "QUIET"
    STALE = "STALE"
    SUSPENDED = "SUSPENDED"
    REFUSED = "REFUSED"
    ENDED = "ENDED"


FLOWING = frozenset({SubscriptionState.LIVE, SubscriptionState.QUIET, SubscriptionState.STALE})
OVER = frozenset({SubscriptionState.REFUSED, SubscriptionState.ENDED})
UNOPENED = frozenset({SubscriptionState.PENDING, SubscriptionState.WAITING})


@dataclass(frozen=True, slots=True)
class Gap:
    """An interruption of one subscription: the records after `first_seq` - 1 and before `last_seq` may lack some.

    Attributes:
        subscription: which.
        scope, cause: what broke.
        first_seq, last_seq: feed-wide sequence numbers: one past the last record before, and the first record after (0:
            not yet).
        first_ns, last_ns: UTC times of those two records; 0 where there is none. Where the wall clock was set back
            between them, `first_ns` is what the clock would have said as it was set afterwards.
        first_s: monotonic seconds at which the last record before was noticed; None if another process read it.
    """

    subscription: Subscription
    scope: Scope
    cause: GapCause
    first_seq: int
    first_ns: int
    last_seq: int = 0
    last_ns: int = 0
    first_s: float | None = None

    def ended(self, now_s: float, last_seq: int, last_ns: int) -> Gap:
        """Return the gap with its end: seq and time of the first record after it, which is noticed at `now_s`."""
        return replace(self, first_ns=self.begin_ns(now_s, last_ns), last_seq=last_seq, last_ns=last_ns)

    def begin_ns(self, now_s: float, now_ns: int) -> int:
        """Return `first_ns` by the wall clock as it is set now; see `begin_ns`."""
        return begin_ns(self.first_ns, now_ns, None if self.first_s is None else now_s - self.first_s)

    @property
    def recovered(self) -> bool:
        """Whether data flows again."""
        return self.last_seq != 0


_ORDER = itertools.count(1)


@dataclass(eq=False, slots=True)
class Subscription:
    """One declared subscription, for as long as anybody wants it, whatever happens to connections.

    Attributes:
        request: what is asked, with request id 0.
        instrument: the feed's index.
        priority: the larger, the earlier restored and the later deprived of its line.
        order: among those of one priority; one number is never given twice, since subscriptions move between sessions.
        state: a SubscriptionState; `reason` says why where that is not obvious.
        req_id: of the request that serves it now, 0 if none does.
        req_ids: that one and those of its predecessors of which a ring may still hold a record, newest last; for each,
            the feed's newest sequence number when it was asked for, -1 until then.
        priorities: of the streams that want it.
        is_durable: kept without streams, because a store remembers it.
        error: why it was refused.
        messages: messages that its present request has brought.
        wanted_s: when it was declared, monotonic seconds.
    """

    request: SubscriptionRequest
    instrument: int
    priority: int = 0
    order: int = field(default_factory=_ORDER.__next__)
    state: SubscriptionState = SubscriptionState.PENDING
    reason: str = ""
    req_id: int = 0
    req_ids: dict[int, int] = field(default_factory=dict)
    priorities: list[int] = field(default_factory=list)
    is_durable: bool = False
    error: Exception | None = None
    messages: int = 0
    wanted_s: float = 0.0
    last_seq: int = 0
    last_ns: int = 0
    last_s: float | None = None
    was_live: bool = False
    refusals: int = 0
    renewals: int = 0
    due_s: float = 0.0
    refused_until_s: float = 0.0
    verify_at_s: float | None = None
    gap: Gap | None = None
    gap_told: bool = False

    def __repr__(self) -> str:
        return f"<Subscription {self.name}, request {self.req_id}, {self.state}>"

    @property
    def shares(self) -> int:
        """How many streams want it."""
        return len(self.priorities)

    @property
    def name(self) -> str:
        """What it is called in events: the same whatever happens to it."""
        contract = self.request.contract
        label = contract.local_symbol or contract.symbol or str(contract.con_id)
        place = "" if contract.exchange in ("", "SMART") else f"@{contract.exchange}"
        return f"{type(self.request).__name__} {label}{place}"

    @property
    def newest_req_id(self) -> int:
        """The last of `req_ids`, -1 if it was never asked for."""
        return next(reversed(self.req_ids), -1)

    @property
    def since_seq(self) -> int | None:
        """The feed's newest sequence number when the oldest of `req_ids` was asked for; None: none was, so far."""
        return next((seq for seq in self.req_ids.values() if seq >= 0), None)

    @property
    def family(self) -> str:
        """The limit that it counts against, see `family_of`."""
        return family_of(self.request)

    @property
    def rank(self) -> tuple[int, int]:
        """Who comes first."""
        return -self.priority, self.order

    def opening_request(self) -> SubscriptionRequest:
        """Return the request with its id, to be sent."""
        return replace(self.request, req_id=self.req_id)


def begin_ns(first_ns: int, last_ns: int, elapsed_s: float | None) -> int:
    """Return when something began that has ended, by the wall clock as it is set at the end.

    Args:
        first_ns, last_ns: the begin and the end, as the wall clock said then; 0 for a begin that is not known.
        elapsed_s: the time between them by a clock that never steps; None if that is not known.

    Returns:
        `first_ns`, unless the wall clock was set back in between: then the measured time before `last_ns`, or 0 (not
        known) where it was not measured. A clock that was set forward makes the interval longer, so it stays.
    """
    if elapsed_s is None:
        return first_ns if first_ns <= last_ns else 0
    measured_ns = last_ns - int((elapsed_s + NOTICED_S) * NS_PER_S)
    return measured_ns if first_ns > min(last_ns, measured_ns + STEP_NS) else first_ns


def family_of(request: SubscriptionRequest) -> str:
    """Return the limit that a subscription counts against: "lines", "tick_by_tick", "depth" or "historical_open"."""
    match request:
        case TickByTick():
            return "tick_by_tick"
        case MarketDepth():
            return "depth"
        case HistoricalBars():
            return "historical_open"
    return "lines"


def cancel_of(request: SubscriptionRequest, req_id: int) -> Cancel:
    """Return the request that ends this one."""
    match request:
        case MarketData():
            return CancelMarketData(req_id)
        case TickByTick():
            return CancelTickByTick(req_id)
        case MarketDepth(is_smart_depth=is_smart_depth):
            return CancelMarketDepth(req_id, is_smart_depth)
        case RealTimeBars():
            return CancelRealTimeBars(req_id)
        case HistoricalBars():
            return CancelHistoricalBars(req_id)
