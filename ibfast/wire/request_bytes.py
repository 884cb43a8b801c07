"""Requests as bytes, in each of the three dialects.

The rule of the file: a request is written by its layout, and the embedded gateway reads it by the same one. A *payload*
is the content of one frame: the message id and the body, without the length prefix.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ibfast.errors import UnsupportedError
from ibfast.wire import protobuf, text
from ibfast.wire.ids import Outgoing, ServerVersion
from ibfast.wire.layout import Layout, write_protobuf, write_text
from ibfast.wire.protobuf_ids import OUTGOING_PROTOBUF_SINCE
from ibfast.wire.requests import (
    CancelContractDetails,
    CancelHeadTimestamp,
    CancelHistoricalBars,
    CancelHistoricalTicks,
    CancelMarketData,
    CancelMarketDepth,
    CancelRealTimeBars,
    CancelTickByTick,
    ContractDetailsRequest,
    CurrentTimeInMillisRequest,
    CurrentTimeRequest,
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    IdsRequest,
    ManagedAccountsRequest,
    MarketData,
    MarketDataTypeRequest,
    MarketDepth,
    MatchingSymbols,
    OpenOrdersRequest,
    RealTimeBars,
    Request,
    SetServerLogLevel,
    StartApi,
    TickByTick,
)

__all__ = ["LAYOUTS", "encode", "frame", "hello"]

_HELLO_PREFIX = b"API\0"

_REQ_ID = {"req_id": "reqId"}
_CONTRACT = {"req_id": "reqId", "contract": "contract"}
_HISTORICAL = _CONTRACT | {"what_to_show": "whatToShow", "use_rth": "useRTH"}

LAYOUTS: dict[type[Request], Layout] = {
    StartApi: Layout(
        Outgoing.START_API,
        "StartApiRequest",
        "2 client_id optional_capabilities",
        {"client_id": "clientId", "optional_capabilities": "optionalCapabilities"},
    ),
    MarketData: Layout(
        Outgoing.REQ_MKT_DATA,
        "MarketDataRequest",
        "11 req_id contract legs hedge generic_ticks snapshot regulatory_snapshot -",
        _CONTRACT
        | {"generic_ticks": "genericTickList", "snapshot": "snapshot", "regulatory_snapshot": "regulatorySnapshot"},
    ),
    CancelMarketData: Layout(Outgoing.CANCEL_MKT_DATA, "CancelMarketData", "2 req_id", _REQ_ID),
    MarketDataTypeRequest: Layout(
        Outgoing.REQ_MARKET_DATA_TYPE,
        "MarketDataTypeRequest",
        "1 market_data_type",
        {"market_data_type": "marketDataType"},
    ),
    TickByTick: Layout(
        Outgoing.REQ_TICK_BY_TICK_DATA,
        "TickByTickRequest",
        "req_id contract tick_type number_of_ticks ignore_size",
        _CONTRACT | {"tick_type": "tickType", "number_of_ticks": "numberOfTicks", "ignore_size": "ignoreSize"},
    ),
    CancelTickByTick: Layout(Outgoing.CANCEL_TICK_BY_TICK_DATA, "CancelTickByTick", "req_id", _REQ_ID),
    MarketDepth: Layout(
        Outgoing.REQ_MKT_DEPTH,
        "MarketDepthRequest",
        "5 req_id contract num_rows is_smart_depth -",
        _CONTRACT | {"num_rows": "numRows", "is_smart_depth": "isSmartDepth"},
    ),
    CancelMarketDepth: Layout(
        Outgoing.CANCEL_MKT_DEPTH,
        "CancelMarketDepth",
        "1 req_id is_smart_depth",
        _REQ_ID | {"is_smart_depth": "isSmartDepth"},
    ),
    RealTimeBars: Layout(
        Outgoing.REQ_REAL_TIME_BARS,
        "RealTimeBarsRequest",
        "3 req_id contract bar_size what_to_show use_rth -",
        _HISTORICAL | {"bar_size": "barSize"},
    ),
    CancelRealTimeBars: Layout(Outgoing.CANCEL_REAL_TIME_BARS, "CancelRealTimeBars", "1 req_id", _REQ_ID),
    HistoricalBars: Layout(
        Outgoing.REQ_HISTORICAL_DATA,
        "HistoricalDataRequest",
        "req_id contract contract.include_expired end bar_size duration use_rth what_to_show format_date legs "
        "keep_up_to_date -",
        _HISTORICAL
        | {
            "end": "endDateTime",
            "bar_size": "barSizeSetting",
            "duration": "duration",
            "format_date": "formatDate",
            "keep_up_to_date": "keepUpToDate",
        },
    ),
    CancelHistoricalBars: Layout(Outgoing.CANCEL_HISTORICAL_DATA, "CancelHistoricalData", "1 req_id", _REQ_ID),
    HistoricalTicksRequest: Layout(
        Outgoing.REQ_HISTORICAL_TICKS,
        "HistoricalTicksRequest",
        "req_id contract contract.include_expired start end number_of_ticks what_to_show use_rth ignore_size -",
        _HISTORICAL
        | {
            "start": "startDateTime",
            "end": "endDateTime",
            "number_of_ticks": "numberOfTicks",
            "ignore_size": "ignoreSize",
        },
    ),
    CancelHistoricalTicks: Layout(
        Outgoing.CANCEL_HISTORICAL_TICKS, "CancelHistoricalTicks", "", _REQ_ID, ServerVersion.CANCEL_CONTRACT_DATA
    ),
    HeadTimestampRequest: Layout(
        Outgoing.REQ_HEAD_TIMESTAMP,
        "HeadTimestampRequest",
        "req_id contract contract.include_expired use_rth what_to_show format_date",
        _HISTORICAL | {"format_date": "formatDate"},
    ),
    CancelHeadTimestamp: Layout(Outgoing.CANCEL_HEAD_TIMESTAMP, "CancelHeadTimestamp", "req_id", _REQ_ID),
    ContractDetailsRequest: Layout(
        Outgoing.REQ_CONTRACT_DATA,
        "ContractDataRequest",
        "8 req_id contract contract.include_expired contract.sec_id_type contract.sec_id "
        f"contract.issuer_id>={ServerVersion.BOND_ISSUER_ID:d}",
        _CONTRACT,
    ),
    CancelContractDetails: Layout(
        Outgoing.CANCEL_CONTRACT_DATA, "CancelContractData", "", _REQ_ID, ServerVersion.CANCEL_CONTRACT_DATA
    ),
    MatchingSymbols: Layout(
        Outgoing.REQ_MATCHING_SYMBOLS,
        "MatchingSymbolsRequest",
        "req_id pattern",
        _REQ_ID | {"pattern": "pattern"},
    ),
    CurrentTimeRequest: Layout(Outgoing.REQ_CURRENT_TIME, "CurrentTimeRequest", "1", {}),
    CurrentTimeInMillisRequest: Layout(
        Outgoing.REQ_CURRENT_TIME_IN_MILLIS,
        "CurrentTimeInMillisRequest",
        "",
        {},
        ServerVersion.CURRENT_TIME_IN_MILLIS,
    ),
    OpenOrdersRequest: Layout(Outgoing.REQ_OPEN_ORDERS, "OpenOrdersRequest", "1", {}),
    IdsRequest: Layout(Outgoing.REQ_IDS, "IdsRequest", "1 num_ids", {"num_ids": "numIds"}),
    ManagedAccountsRequest: Layout(Outgoing.REQ_MANAGED_ACCTS, "ManagedAccountsRequest", "1", {}),
    SetServerLogLevel: Layout(
        Outgoing.SET_SERVER_LOGLEVEL, "SetServerLogLevelRequest", "1 level", {"level": "logLevel"}
    ),
}


def hello(min_version: int = ServerVersion.MIN, max_version: int = ServerVersion.MAX) -> bytes:
    """Return the first bytes on the socket: the versions that the client offers."""
    return _HELLO_PREFIX + frame(b"v%d..%d" % (min_version, max_version))


def frame(body: bytes) -> bytes:
    """Return a payload with its length prefix, ready for the socket."""
    return len(body).to_bytes(4, "big") + body


def encode(request: Request, server_version: int) -> bytes:
    """Return the payload of a request in the dialect that the server version demands.

    Raises:
        UnsupportedError: the server version has no such request, or lacks a field that it uses.
        ValueError: a field can't be written: it holds a NUL, say, or the multiplier is not a number.
    """
    layout = LAYOUTS[type(request)]
    _check_support(request, layout, server_version)
    try:
        return _encoded(request, layout, server_version)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{type(request).__name__} can't be written: {error}: {request}") from None


def _encoded(request: Request, layout: Layout, server_version: int) -> bytes:
    if server_version >= OUTGOING_PROTOBUF_SINCE[layout.msg_id]:
        return protobuf.payload(layout.msg_id, layout.message, write_protobuf(request, layout.names))
    return text.payload(layout.msg_id, server_version, write_text(request, layout.text, server_version))


def _check_support(request: Request, layout: Layout, server_version: int) -> None:
    name = type(request).__name__
    if server_version < layout.since:
        raise UnsupportedError(f"{name} needs server version {layout.since:d}, the gateway has {server_version}")
    for field, since in _needs(request):
        if server_version < since:
            raise UnsupportedError(f"{name}: {field} needs server version {since:d}, the gateway has {server_version}")


def _needs(request: Request) -> Iterator[tuple[str, ServerVersion]]:
    if isinstance(request, HistoricalBars) and request.what_to_show == "SCHEDULE":
        yield "what_to_show='SCHEDULE'", ServerVersion.HISTORICAL_SCHEDULE
    if isinstance(request, ContractDetailsRequest) and request.contract.issuer_id:
        yield "contract.issuer_id", ServerVersion.BOND_ISSUER_ID
