"""What IB allows an account and a connection, enforced by the gateway of a run, with every offence written down.

The rule of the file: it counts what the gateway has really open, by the limits of `ibfast.sim.pacing`, which know
nothing of the client's own limiter. A refusal is an offence unless the gateway itself has caused it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ibfast.sim.pacing import GatewayLimits, Refusal
from ibfast.wire.requests import (
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    MarketDepth,
    RealTimeBars,
    Request,
    TickByTick,
)

__all__ = ["RATIONED", "Account"]

RATIONED = (
    MarketData
    | TickByTick
    | MarketDepth
    | RealTimeBars
    | HistoricalBars
    | HistoricalTicksRequest
    | HeadTimestampRequest
)
HISTORICAL_AT_ONCE = 50
SECONDS = {"sec": 1, "min": 60, "hou": 3600, "day": 86400, "wee": 604800, "mon": 2592000}


class Account:
    """What one account has open at a gateway, and how often it has asked.

    Args:
        lines: market-data lines.
    """

    def __init__(self, lines: int) -> None:
        self.limits = GatewayLimits(lines)
        self._open: Counter[str] = Counter()

    def is_full(self, request: Request) -> bool:
        """Tell whether another request of this kind would be one too many at once."""
        family = _family(request)
        most = {"lines": self.limits.lines, "tick by tick": self.limits.tick_by_tick, "depth": self.limits.depth}
        return self._open[family] >= most.get(family, HISTORICAL_AT_ONCE)

    def take(self, request: RATIONED, now_s: float) -> Refusal | None:
        """Count a request, or return why it is refused."""
        refusal = self._take(request, now_s)
        self._open[_family(request)] += refusal is None
        return refusal

    def _take(self, request: RATIONED, now_s: float) -> Refusal | None:
        limits = self.limits
        match request:
            case MarketData():
                return limits.open_line()
            case TickByTick(contract=contract):
                return limits.open_tick_by_tick(contract.con_id, now_s)
            case MarketDepth():
                return limits.open_depth()
            case RealTimeBars():
                return limits.open_real_time_bars(now_s)
        source = (request.contract.con_id, request.contract.exchange, request.what_to_show)
        bar_s = _seconds(request.bar_size) if isinstance(request, HistoricalBars) else 0
        is_bid_ask = request.what_to_show == "BID_ASK"
        return limits.open_historical(replace(request, req_id=0), source, bar_s, is_bid_ask=is_bid_ask, now_s=now_s)

    def give_back(self, request: Request) -> None:
        """Count a request no longer as open."""
        self._open[_family(request)] -= 1
        match request:
            case MarketData() | RealTimeBars():
                self.limits.close_line()
            case TickByTick():
                self.limits.close_tick_by_tick()
            case MarketDepth():
                self.limits.close_depth()
            case HistoricalBars() | HistoricalTicksRequest() | HeadTimestampRequest():
                self.limits.close_historical()


def _family(request: Request) -> str:
    match request:
        case MarketData() | RealTimeBars():
            return "lines"
        case TickByTick():
            return "tick by tick"
        case MarketDepth():
            return "depth"
    return "historical"


def _seconds(bar_size: str) -> int:
    length, _, unit = bar_size.partition(" ")
    return int(length) * SECONDS[unit[:3]]
