"""What a client asks of a gateway: requests as values.

The rule of the file: a request is a frozen dataclass; its bytes are in `request_bytes`.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ibfast.contracts import Contract

__all__ = [
    "CancelContractDetails",
    "CancelHeadTimestamp",
    "CancelHistoricalBars",
    "CancelHistoricalTicks",
    "CancelMarketData",
    "CancelMarketDepth",
    "CancelRealTimeBars",
    "CancelTickByTick",
    "ContractDetailsRequest",
    "CurrentTimeInMillisRequest",
    "CurrentTimeRequest",
    "HeadTimestampRequest",
    "HistoricalBars",
    "HistoricalTicksRequest",
    "IdsRequest",
    "ManagedAccountsRequest",
    "MarketData",
    "MarketDataTypeRequest",
    "MarketDepth",
    "MatchingSymbols",
    "OpenOrdersRequest",
    "RealTimeBars",
    "Request",
    "SetServerLogLevel",
    "StartApi",
    "TickByTick",
]


@dataclass(frozen=True, slots=True)
class StartApi:
    """Begin the session; the first request after the handshake."""

    client_id: int
    optional_capabilities: str = ""


@dataclass(frozen=True, slots=True)
class MarketData:
    """Subscribe to level 1; `generic_ticks` is a comma-separated list of IB's generic tick types."""

    req_id: int
    contract: Contract
    generic_ticks: str = ""
    snapshot: bool = False
    regulatory_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class CancelMarketData:
    """End a MarketData subscription."""

    req_id: int


@dataclass(frozen=True, slots=True)
class MarketDataTypeRequest:
    """Choose real-time, frozen or delayed data (a MarketDataType) for the level-1 requests that follow."""

    market_data_type: int


@dataclass(frozen=True, slots=True)
class TickByTick:
    """Subscribe to every tick; `tick_type` is "Last", "AllLast", "BidAsk" or "MidPoint"."""

    req_id: int
    contract: Contract
    tick_type: str
    number_of_ticks: int = 0
    ignore_size: bool = False


@dataclass(frozen=True, slots=True)
class CancelTickByTick:
    """End a TickByTick subscription."""

    req_id: int


@dataclass(frozen=True, slots=True)
class MarketDepth:
    """Subscribe to `num_rows` rows of the order book, of one exchange or, smart, of all of them."""

    req_id: int
    contract: Contract
    num_rows: int
    is_smart_depth: bool = False


@dataclass(frozen=True, slots=True)
class CancelMarketDepth:
    """End a MarketDepth subscription; `is_smart_depth` as in its request."""

    req_id: int
    is_smart_depth: bool = False


@dataclass(frozen=True, slots=True)
class RealTimeBars:
    """Subscribe to five-second bars."""

    req_id: int
    contract: Contract
    what_to_show: str
    use_rth: bool
    bar_size: int = 5


@dataclass(frozen=True, slots=True)
class CancelRealTimeBars:
    """End a RealTimeBars subscription."""

    req_id: int


@dataclass(frozen=True, slots=True)
class HistoricalBars:
    """Ask for bars up to `end` ("" is now), and for their updates too if they shall be kept up to date.

    `format_date` 2 asks for bar times as epoch seconds, 1 as text; daily bars come as yyyymmdd in any case.
    """

    req_id: int
    contract: Contract
    end: str
    duration: str
    bar_size: str
    what_to_show: str
    use_rth: bool
    format_date: int = 2
    keep_up_to_date: bool = False


@dataclass(frozen=True, slots=True)
class CancelHistoricalBars:
    """End a HistoricalBars request."""

    req_id: int


@dataclass(frozen=True, slots=True)
class HistoricalTicksRequest:
    """Ask for at most 1,000 past ticks from `start` on or up to `end`; the other of the two is ""."""

    req_id: int
    contract: Contract
    start: str
    end: str
    number_of_ticks: int
    what_to_show: str
    use_rth: bool
    ignore_size: bool = False


@dataclass(frozen=True, slots=True)
class CancelHistoricalTicks:
    """End a HistoricalTicksRequest."""

    req_id: int


@dataclass(frozen=True, slots=True)
class HeadTimestampRequest:
    """Ask for the time of the earliest data there is."""

    req_id: int
    contract: Contract
    what_to_show: str
    use_rth: bool
    format_date: int = 2


@dataclass(frozen=True, slots=True)
class CancelHeadTimestamp:
    """End a HeadTimestampRequest."""

    req_id: int


@dataclass(frozen=True, slots=True)
class ContractDetailsRequest:
    """Ask for all contracts that match."""

    req_id: int
    contract: Contract


@dataclass(frozen=True, slots=True)
class CancelContractDetails:
    """End a ContractDetailsRequest."""

    req_id: int


@dataclass(frozen=True, slots=True)
class MatchingSymbols:
    """Ask for instruments whose symbol or name begins with `pattern`."""

    req_id: int
    pattern: str


@dataclass(frozen=True, slots=True)
class CurrentTimeRequest:
    """Ask for the gateway's time in seconds."""


@dataclass(frozen=True, slots=True)
class OpenOrdersRequest:
    """Ask for this client's open orders, which a gateway in read-only mode refuses."""


@dataclass(frozen=True, slots=True)
class CurrentTimeInMillisRequest:
    """Ask for the gateway's time in milliseconds."""


@dataclass(frozen=True, slots=True)
class IdsRequest:
    """Ask for the next valid order id; gateways ignore `num_ids`."""

    num_ids: int = 1


@dataclass(frozen=True, slots=True)
class ManagedAccountsRequest:
    """Ask for the accounts of this login."""


@dataclass(frozen=True, slots=True)
class SetServerLogLevel:
    """Set the detail of the gateway's log: 1 (system) to 5 (detail)."""

    level: int


Request: TypeAlias = (
    StartApi
    | MarketData
    | CancelMarketData
    | MarketDataTypeRequest
    | TickByTick
    | CancelTickByTick
    | MarketDepth
    | CancelMarketDepth
    | RealTimeBars
    | CancelRealTimeBars
    | HistoricalBars
    | CancelHistoricalBars
    | HistoricalTicksRequest
    | CancelHistoricalTicks
    | HeadTimestampRequest
    | CancelHeadTimestamp
    | ContractDetailsRequest
    | CancelContractDetails
    | MatchingSymbols
    | CurrentTimeRequest
    | CurrentTimeInMillisRequest
    | IdsRequest
    | OpenOrdersRequest
    | ManagedAccountsRequest
    | SetServerLogLevel
)
