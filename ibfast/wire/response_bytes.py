"""Responses read from bytes, text or protobuf.

The rule of the file: what has no class of its own becomes `Other` and keeps all its fields. Values are those that IB's
own client shows, its defaults included; a number that it shows as unset is NaN.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from typing import Any, TypeAlias

import numpy as np

from ibfast.contracts import Contract
from ibfast.errors import DecodeError
from ibfast.records import HISTORICAL_TICK_BID_ASK, HISTORICAL_TICK_LAST, HISTORICAL_TICK_MIDPOINT, UNSET_INTEGER
from ibfast.wire import protobuf, text
from ibfast.wire.details import details_from_protobuf, read_details
from ibfast.wire.ids import Incoming, ServerVersion
from ibfast.wire.instruments import contract_from_protobuf
from ibfast.wire.layout import Layout, items, read_protobuf, read_text
from ibfast.wire.protobuf_ids import INCOMING_MESSAGES
from ibfast.wire.records import bars_from_protobuf, read_bars, read_ticks, ticks_from_protobuf
from ibfast.wire.responses import (
    ContractData,
    ContractDataEnd,
    CurrentTime,
    CurrentTimeInMillis,
    ErrorMessage,
    HeadTimestamp,
    HistoricalData,
    HistoricalDataEnd,
    HistoricalTicks,
    ManagedAccounts,
    MarketDataTypeMessage,
    NextValidId,
    OpenOrderEnd,
    Other,
    RerouteMarketData,
    RerouteMarketDepth,
    Response,
    SymbolSample,
    SymbolSamples,
    TickEfp,
    TickNews,
    TickReqParams,
    TickSnapshotEnd,
    Unreadable,
)
from ibfast.wire.text import FieldReader, unescape

__all__ = ["HISTORICAL_TICKS_FIELDS", "HISTORICAL_TICK_IDS", "LAYOUTS", "decode", "unreadable"]

_REQ_ID = {"req_id": "reqId"}
_REROUTE = _REQ_ID | {"con_id": "conId", "exchange": "exchange"}

LAYOUTS: dict[type[Response], Layout] = {
    NextValidId: Layout(Incoming.NEXT_VALID_ID, "NextValidId", "1 order_id", {"order_id": "orderId"}),
    ErrorMessage: Layout(
        Incoming.ERR_MSG,
        "ErrorMessage",
        f"2<{ServerVersion.ERROR_TIME:d} req_id code message~ "
        f"advanced_order_reject~>={ServerVersion.ADVANCED_ORDER_REJECT:d} error_time_ms>={ServerVersion.ERROR_TIME:d}",
        {
            "req_id": "id",
            "code": "errorCode",
            "message": "errorMsg",
            "advanced_order_reject": "advancedOrderRejectJson",
            "error_time_ms": "errorTime",
        },
    ),
    CurrentTime: Layout(Incoming.CURRENT_TIME, "CurrentTime", "1 time_s", {"time_s": "currentTime"}),
    CurrentTimeInMillis: Layout(
        Incoming.CURRENT_TIME_IN_MILLIS,
        "CurrentTimeInMillis",
        "time_ms",
        {"time_ms": "currentTimeInMillis"},
        ServerVersion.CURRENT_TIME_IN_MILLIS,
    ),
    OpenOrderEnd: Layout(Incoming.OPEN_ORDER_END, "OpenOrdersEnd", "1", {}),
    ContractDataEnd: Layout(Incoming.CONTRACT_DATA_END, "ContractDataEnd", "1 req_id", _REQ_ID),
    HeadTimestamp: Layout(
        Incoming.HEAD_TIMESTAMP, "HeadTimestamp", "req_id timestamp", _REQ_ID | {"timestamp": "headTimestamp"}
    ),
    HistoricalDataEnd: Layout(
        Incoming.HISTORICAL_DATA_END,
        "HistoricalDataEnd",
        "req_id start end",
        _REQ_ID | {"start": "startDateStr", "end": "endDateStr"},
        ServerVersion.HISTORICAL_DATA_END,
    ),
    TickEfp: Layout(
        Incoming.TICK_EFP,
        "",
        "1 req_id tick_type basis_points formatted_basis_points~ total_dividends hold_days future_last_trade_date~ "
        "dividend_impact dividends_to_last_trade_date",
        {},
    ),
    TickSnapshotEnd: Layout(Incoming.TICK_SNAPSHOT_END, "TickSnapshotEnd", "1 req_id", _REQ_ID),
    MarketDataTypeMessage: Layout(
        Incoming.MARKET_DATA_TYPE,
        "MarketDataType",
        "1 req_id market_data_type",
        _REQ_ID | {"market_data_type": "marketDataType"},
        defaults={"market_data_type": UNSET_INTEGER},
    ),
    TickReqParams: Layout(
        Incoming.TICK_REQ_PARAMS,
        "TickReqParams",
        "req_id min_tick bbo_exchange snapshot_permissions",
        _REQ_ID
        | {
            "min_tick": "minTick",
            "bbo_exchange": "bboExchange",
            "snapshot_permissions": "snapshotPermissions",
            "last_price_precision": "lastPricePrecision",
            "last_size_precision": "lastSizePrecision",
        },
        defaults={"snapshot_permissions": UNSET_INTEGER},
    ),
    TickNews: Layout(
        Incoming.TICK_NEWS,
        "TickNews",
        "req_id time_ms provider_code article_id headline extra_data",
        _REQ_ID
        | {
            "time_ms": "timestamp",
            "provider_code": "providerCode",
            "article_id": "articleId",
            "headline": "headline",
            "extra_data": "extraData",
        },
    ),
    RerouteMarketData: Layout(
        Incoming.REROUTE_MKT_DATA_REQ, "RerouteMarketDataRequest", "req_id con_id exchange", _REROUTE
    ),
    RerouteMarketDepth: Layout(
        Incoming.REROUTE_MKT_DEPTH_REQ, "RerouteMarketDepthRequest", "req_id con_id exchange", _REROUTE
    ),
}
"""The messages that are flat; the others are read and written one by one."""

HISTORICAL_TICK_IDS = {
    HISTORICAL_TICK_MIDPOINT: Incoming.HISTORICAL_TICKS,
    HISTORICAL_TICK_BID_ASK: Incoming.HISTORICAL_TICKS_BID_ASK,
    HISTORICAL_TICK_LAST: Incoming.HISTORICAL_TICKS_LAST,
}
"""dtype of the ticks → id of the message that brings them."""

HISTORICAL_TICKS_FIELDS = {
    HISTORICAL_TICK_MIDPOINT: "historicalTicks",
    HISTORICAL_TICK_BID_ASK: "historicalTicksBidAsk",
    HISTORICAL_TICK_LAST: "historicalTicksLast",
}
"""dtype of the ticks → field of the protobuf message that holds them."""

_FLAT = {layout.msg_id: (message_type, layout) for message_type, layout in LAYOUTS.items()}
_NO_REQUEST = -1
_NUL = b"\0"
_FIELDS_PER_SAMPLE = 6

_TextReader: TypeAlias = Callable[[FieldReader, int, tzinfo], Response]
_ProtobufReader: TypeAlias = Callable[[Mapping[str, Any], tzinfo], Response]


def decode(msg_id: int, body: bytes, is_protobuf: bool, server_version: int, zone: tzinfo = UTC) -> Response:
    """Read one message.

    Args:
        msg_id: its id, without the offset of protobuf.
        body: what follows the id.
        is_protobuf: whether the body is protobuf.
        server_version: what was agreed on with the gateway.
        zone: the zone of bar times that name none.

    Raises:
        DecodeError: the body is malformed.
    """
    try:
        if is_protobuf:
            return _decode_protobuf(msg_id, body, zone)
        return _decode_text(msg_id, body, server_version, zone)
    except DecodeError as error:
        raise DecodeError(
            error.reason, msg_id, body, message=_name_of(msg_id), field=error.field, value=error.value
        ) from None


def unreadable(error: DecodeError, is_protobuf: bool, server_version: int) -> Unreadable:
    """Return what stands for a message that `decode` has refused: the request id is found in the readable part."""
    find = _request_in_protobuf if is_protobuf else _request_in_text
    return Unreadable(error.msg_id, find(error.msg_id, error.payload, server_version), error)


def _name_of(msg_id: int) -> str:
    try:
        return Incoming(msg_id).name
    except ValueError:
        return ""


def _request_in_protobuf(msg_id: int, body: bytes, server_version: int) -> int:
    values = protobuf.decode_in_part(INCOMING_MESSAGES[msg_id], body)
    name = "id" if msg_id == Incoming.ERR_MSG else "reqId"
    return int(values.get(name, _NO_REQUEST))


def _request_in_text(msg_id: int, body: bytes, server_version: int) -> int:
    position = _position_of_request(msg_id, server_version)
    fields = [] if position is None else body.split(_NUL, position + 1)
    try:  # behind a field that is whole stands at least one more part
        return int(fields[position]) if position is not None and len(fields) > position + 1 else _NO_REQUEST
    except ValueError:
        return _NO_REQUEST


def _position_of_request(msg_id: int, server_version: int) -> int | None:
    """Return how many fields stand before the request id of a text message; None if it has none."""
    if msg_id in _FLAT:
        names = items(_FLAT[msg_id][1].text, server_version)
        return names.index("req_id") if "req_id" in names else None
    if msg_id in (Incoming.CONTRACT_DATA, Incoming.BOND_CONTRACT_DATA):
        return 1 if server_version < ServerVersion.SIZE_RULES else 0
    return 0 if msg_id in _TEXT_READERS and msg_id != Incoming.MANAGED_ACCTS else None


def _decode_text(msg_id: int, body: bytes, server_version: int, zone: tzinfo) -> Response:
    if msg_id in _FLAT:
        message_type, layout = _FLAT[msg_id]
        return read_text(message_type, layout.text, FieldReader(body), server_version)
    if msg_id in _TEXT_READERS:
        return _TEXT_READERS[msg_id](FieldReader(body), server_version, zone)
    return Other(msg_id, tuple(text.split(body)))


def _decode_protobuf(msg_id: int, body: bytes, zone: tzinfo) -> Response:
    if msg_id not in INCOMING_MESSAGES:
        return Other(msg_id, {"body": body})
    values = protobuf.decode(INCOMING_MESSAGES[msg_id], body)
    if msg_id in _FLAT:
        message_type, layout = _FLAT[msg_id]
        return read_protobuf(message_type, layout, values)
    if msg_id in _PROTOBUF_READERS:
        return _PROTOBUF_READERS[msg_id](values, zone)
    return Other(msg_id, values)


def _accounts(names: str) -> ManagedAccounts:
    return ManagedAccounts(tuple(name for name in names.split(",") if name))


def _text_accounts(reader: FieldReader, server_version: int, zone: tzinfo) -> Response:
    reader.skip("version")
    return _accounts(unescape(reader.text("accounts")))


def _text_contract(is_bond: bool) -> _TextReader:
    def read(reader: FieldReader, server_version: int, zone: tzinfo) -> Response:
        if server_version < ServerVersion.SIZE_RULES:
            reader.skip("version")
        return ContractData(reader.integer("req_id"), read_details(reader, server_version, is_bond), is_bond)

    return read


def _text_samples(reader: FieldReader, server_version: int, zone: tzinfo) -> Response:
    req_id = reader.integer("req_id")
    count = reader.count("samples", _FIELDS_PER_SAMPLE)
    return SymbolSamples(req_id, tuple(_text_sample(reader, server_version) for _ in range(count)))


def _text_sample(reader: FieldReader, server_version: int) -> SymbolSample:
    contract: dict[str, Any] = {"con_id": reader.integer("con_id")}
    contract |= {name: reader.text(name) for name in ("symbol", "sec_type", "primary_exchange", "currency")}
    derivatives = tuple(reader.text("derivative") for _ in range(reader.count("derivatives", 1)))
    if server_version >= ServerVersion.BOND_ISSUER_ID:
        contract |= {name: reader.text(name) for name in ("description", "issuer_id")}
    return SymbolSample(Contract(**contract), derivatives)


def _text_bars(reader: FieldReader, server_version: int, zone: tzinfo) -> Response:
    req_id = reader.integer("req_id")
    start = end = ""
    if server_version < ServerVersion.HISTORICAL_DATA_END:
        start, end = reader.text("start"), reader.text("end")
    return HistoricalData(req_id, read_bars(reader, zone), start, end)


def _text_ticks(dtype: np.dtype[np.void]) -> _TextReader:
    def read(reader: FieldReader, server_version: int, zone: tzinfo) -> Response:
        return HistoricalTicks(reader.integer("req_id"), read_ticks(reader, dtype), reader.boolean("done"))

    return read


def _protobuf_accounts(values: Mapping[str, Any], zone: tzinfo) -> Response:
    return _accounts(values.get("accountsList", ""))


def _protobuf_contract(is_bond: bool) -> _ProtobufReader:
    def read(values: Mapping[str, Any], zone: tzinfo) -> Response:
        if "contract" not in values or "contractDetails" not in values:
            raise DecodeError("no contract", field="contract")
        details = details_from_protobuf(values["contract"], values["contractDetails"], is_bond)
        return ContractData(values.get("reqId", _NO_REQUEST), details, is_bond)

    return read


def _protobuf_samples(values: Mapping[str, Any], zone: tzinfo) -> Response:
    samples = values.get("contractDescriptions", ())
    return SymbolSamples(values.get("reqId", _NO_REQUEST), tuple(map(_protobuf_sample, samples)))


def _protobuf_sample(values: Mapping[str, Any]) -> SymbolSample:
    contract = contract_from_protobuf(values.get("contract", {}))
    return SymbolSample(contract, tuple(values.get("derivativeSecTypes", ())))


def _protobuf_bars(values: Mapping[str, Any], zone: tzinfo) -> Response:
    bars = bars_from_protobuf(values.get("historicalDataBars", ()), zone)
    return HistoricalData(values.get("reqId", _NO_REQUEST), bars)


def _protobuf_ticks(dtype: np.dtype[np.void]) -> _ProtobufReader:
    def read(values: Mapping[str, Any], zone: tzinfo) -> Response:
        ticks = ticks_from_protobuf(values.get(HISTORICAL_TICKS_FIELDS[dtype], ()), dtype)
        return HistoricalTicks(values.get("reqId", _NO_REQUEST), ticks, values.get("isDone", False))

    return read


_TEXT_READERS: dict[int, _TextReader] = {
    Incoming.MANAGED_ACCTS: _text_accounts,
    Incoming.CONTRACT_DATA: _text_contract(is_bond=False),
    Incoming.BOND_CONTRACT_DATA: _text_contract(is_bond=True),
    Incoming.SYMBOL_SAMPLES: _text_samples,
    Incoming.HISTORICAL_DATA: _text_bars,
    **{msg_id: _text_ticks(dtype) for dtype, msg_id in HISTORICAL_TICK_IDS.items()},
}
_PROTOBUF_READERS: dict[int, _ProtobufReader] = {
    Incoming.MANAGED_ACCTS: _protobuf_accounts,
    Incoming.CONTRACT_DATA: _protobuf_contract(is_bond=False),
    Incoming.BOND_CONTRACT_DATA: _protobuf_contract(is_bond=True),
    Incoming.SYMBOL_SAMPLES: _protobuf_samples,
    Incoming.HISTORICAL_DATA: _protobuf_bars,
    **{msg_id: _protobuf_ticks(dtype) for dtype, msg_id in HISTORICAL_TICK_IDS.items()},
}
