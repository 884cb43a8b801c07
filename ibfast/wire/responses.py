"""What a gateway sends to a client, apart from the tick path: messages as values.

The rule of the file: a message is a frozen dataclass; what has no class of its own becomes `Other` and keeps all its
fields. Values are those that IB's own client shows, its defaults included; a number that it shows as unset is NaN.
Prices and ticks that stream never come here: compiled code decodes them.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ibfast.contracts import Contract, ContractDetails
from ibfast.errors import DecodeError
from ibfast.wire.records import Records

__all__ = [
    "ContractData",
    "ContractDataEnd",
    "CurrentTime",
    "CurrentTimeInMillis",
    "ErrorMessage",
    "HeadTimestamp",
    "HistoricalData",
    "HistoricalDataEnd",
    "HistoricalTicks",
    "ManagedAccounts",
    "MarketDataTypeMessage",
    "NextValidId",
    "OpenOrderEnd",
    "Other",
    "RerouteMarketData",
    "RerouteMarketDepth",
    "Response",
    "SymbolSample",
    "SymbolSamples",
    "TickEfp",
    "TickNews",
    "TickReqParams",
    "TickSnapshotEnd",
    "Unreadable",
]


@dataclass(frozen=True, slots=True)
class NextValidId:
    """The first order id that is free."""

    order_id: int


@dataclass(frozen=True, slots=True)
class ManagedAccounts:
    """The accounts of this login."""

    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error, a warning or a notice, by `code`; `req_id` is -1 if it is about no request."""

    req_id: int
    code: int
    message: str
    advanced_order_reject: str = ""
    error_time_ms: int = 0


@dataclass(frozen=True, slots=True)
class CurrentTime:
    """The gateway's time."""

    time_s: int


@dataclass(frozen=True, slots=True)
class OpenOrderEnd:
    """No more open orders follow."""


@dataclass(frozen=True, slots=True)
class CurrentTimeInMillis:
    """The gateway's time."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class ContractData:
    """One contract that matches a ContractDetailsRequest."""

    req_id: int
    details: ContractDetails
    is_bond: bool = False


@dataclass(frozen=True, slots=True)
class ContractDataEnd:
    """All contracts that match have been sent."""

    req_id: int


@dataclass(frozen=True, slots=True)
class SymbolSample:
    """An instrument, and what is derived from it ("OPT", …)."""

    contract: Contract
    derivative_sec_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SymbolSamples:
    """The answer to MatchingSymbols."""

    req_id: int
    samples: tuple[SymbolSample, ...]


@dataclass(frozen=True, slots=True)
class HeadTimestamp:
    """The time of the earliest data; `times.parse_bar_time` reads it."""

    req_id: int
    timestamp: str


@dataclass(frozen=True, slots=True, eq=False)
class HistoricalData:
    """Bars, a HISTORICAL_BAR array.

    Below server version 196 `start` and `end` are sent here and no HistoricalDataEnd follows; from then on they are ""
    here and the end is a message of its own.
    """

    req_id: int
    bars: Records
    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class HistoricalDataEnd:
    """All bars have been sent."""

    req_id: int
    start: str
    end: str


@dataclass(frozen=True, slots=True, eq=False)
class HistoricalTicks:
    """Past ticks, an array of one of the HISTORICAL_TICK dtypes; `done`: they were the last ones."""

    req_id: int
    ticks: Records
    done: bool


@dataclass(frozen=True, slots=True)
class TickEfp:
    """An exchange for physical."""

    req_id: int
    tick_type: int
    basis_points: float
    formatted_basis_points: str
    total_dividends: float
    hold_days: int
    future_last_trade_date: str
    dividend_impact: float
    dividends_to_last_trade_date: float


@dataclass(frozen=True, slots=True)
class TickSnapshotEnd:
    """A snapshot is complete."""

    req_id: int


@dataclass(frozen=True, slots=True)
class MarketDataTypeMessage:
    """The kind of data that a subscription really delivers, a MarketDataType."""

    req_id: int
    market_data_type: int


@dataclass(frozen=True, slots=True)
class TickReqParams:
    """How to read the ticks of a subscription; only protobuf has the precisions."""

    req_id: int
    min_tick: float
    bbo_exchange: str
    snapshot_permissions: int
    last_price_precision: float | None = None
    last_size_precision: float | None = None


@dataclass(frozen=True, slots=True)
class TickNews:
    """A headline about a subscribed contract."""

    req_id: int
    time_ms: int
    provider_code: str
    article_id: str
    headline: str
    extra_data: str


@dataclass(frozen=True, slots=True)
class RerouteMarketData:
    """Level 1 of this request must be asked for again: for this contract, at this exchange, with the same req_id."""

    req_id: int
    con_id: int
    exchange: str


@dataclass(frozen=True, slots=True)
class RerouteMarketDepth:
    """Depth of this request must be asked for again: for this contract, at this exchange, with the same req_id."""

    req_id: int
    con_id: int
    exchange: str


@dataclass(frozen=True, slots=True)
class Other:
    """A message without a class of its own: a dict by the schema if it came as protobuf, else its fields as text."""

    msg_id: int
    fields: dict[str, Any] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that can't be read; `req_id` is that of its request, -1 where the message names none."""

    msg_id: int
    req_id: int
    error: DecodeError = field(compare=False)


Response: TypeAlias = (
    NextValidId
    | ManagedAccounts
    | ErrorMessage
    | CurrentTime
    | CurrentTimeInMillis
    | OpenOrderEnd
    | ContractData
    | ContractDataEnd
    | SymbolSamples
    | HeadTimestamp
    | HistoricalData
    | HistoricalDataEnd
    | HistoricalTicks
    | TickEfp
    | TickSnapshotEnd
    | MarketDataTypeMessage
    | TickReqParams
    | TickNews
    | RerouteMarketData
    | RerouteMarketDepth
    | Other
    | Unreadable
)
