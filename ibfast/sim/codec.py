"""The gateway's side of the wire: read what clients ask, write what they receive.

The mirror of `wire.requests` and `wire.responses`, by the same layouts. Which dialect a message is written in depends
on the server version alone, as at a real gateway. The tick path is written by `tick_codec`, for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ibfast.errors import DecodeError, UnsupportedError
from ibfast.records import NS_PER_S
from ibfast.sim.tick_codec import encode as encode_tick
from ibfast.sim.tick_codec import is_tick
from ibfast.sim.ticks import (
    DepthL2,
    DepthUpdate,
    HistoricalDataUpdate,
    RealTimeBar,
    Size,
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickByTickMidPoint,
    TickGeneric,
    TickOption,
    TickPrice,
    TickSize,
    TickString,
)
from ibfast.wire import protobuf, request_bytes, response_bytes, responses, text
from ibfast.wire.details import details_to_protobuf, write_details
from ibfast.wire.ids import Incoming, ServerVersion
from ibfast.wire.instruments import contract_to_protobuf
from ibfast.wire.layout import Layout, read_protobuf, read_text, write_protobuf, write_text
from ibfast.wire.protobuf_ids import (
    INCOMING_MESSAGES,
    INCOMING_PROTOBUF_SINCE,
    OUTGOING_PROTOBUF_SINCE,
    PROTOBUF_OFFSET,
)
from ibfast.wire.records import Records, bars_to_protobuf, ticks_to_protobuf, write_bars, write_ticks
from ibfast.wire.requests import Request
from ibfast.wire.responses import Response

__all__ = [
    "DatedBars",
    "DepthL2",
    "DepthUpdate",
    "HistoricalDataUpdate",
    "RealTimeBar",
    "Size",
    "Tick",
    "TickByTickBidAsk",
    "TickByTickLast",
    "TickByTickMidPoint",
    "TickGeneric",
    "TickOption",
    "TickPrice",
    "TickSize",
    "TickString",
    "UnknownRequest",
    "decode_request",
    "encode",
]


@dataclass(frozen=True, slots=True)
class UnknownRequest:
    """A request that has no class here; `fields` are the split text, or the body if it is protobuf."""

    msg_id: int
    fields: tuple[str, ...] | bytes


@dataclass(frozen=True, slots=True, eq=False)
class DatedBars:
    """As HistoricalData, which shows epoch seconds, but `dates` are shown, one for each bar."""

    req_id: int
    bars: Records
    dates: Sequence[str]
    start: str = ""
    end: str = ""


def decode_request(payload: bytes, server_version: int) -> Request | UnknownRequest:
    """Read a request; the inverse of `request_bytes.encode`.

    Raises:
        DecodeError: the payload is malformed.
    """
    msg_id, body, is_protobuf = _split_id(payload, server_version)
    try:
        if msg_id not in (_REQUESTS if is_protobuf else _TEXT_REQUESTS):
            return UnknownRequest(msg_id, body if is_protobuf else tuple(text.split(body)))
        request_type, layout = _REQUESTS[msg_id]
        if is_protobuf:
            return read_protobuf(request_type, layout, protobuf.decode(layout.message, body))
        return read_text(request_type, layout.text, text.FieldReader(body), server_version)
    except DecodeError as error:
        raise DecodeError(error.reason, msg_id, body) from None


def encode(message: Response | DatedBars | Tick, server_version: int) -> bytes:
    """Write a message.

    Raises:
        UnsupportedError: the server version has no such message.
    """
    if is_tick(message):
        return encode_tick(message, server_version)
    if isinstance(message, responses.Other):
        return _encode_other(message, server_version)
    msg_id = _msg_id(message)
    is_protobuf = server_version >= INCOMING_PROTOBUF_SINCE.get(msg_id, ServerVersion.MAX + 1)
    layout = _FLAT.get(type(message))
    if layout is not None:
        if server_version < layout.since:
            raise UnsupportedError(f"{type(message).__name__} needs server version {layout.since:d}")
        if is_protobuf:
            return protobuf.payload(msg_id, layout.message, write_protobuf(message, layout.names))
        return text.payload(msg_id, server_version, write_text(message, layout.text, server_version))
    if is_protobuf:
        return protobuf.payload(msg_id, INCOMING_MESSAGES[msg_id], _PROTOBUF_WRITERS[type(message)](message))
    return text.payload(msg_id, server_version, _TEXT_WRITERS[type(message)](message, server_version))


def _split_id(payload: bytes, server_version: int) -> tuple[int, bytes, bool]:
    if server_version >= ServerVersion.RAW_MESSAGE_ID:
        if len(payload) < text.ID_LENGTH:
            raise DecodeError("no message id", payload=payload)
        wire_id, body = int.from_bytes(payload[: text.ID_LENGTH], "big"), payload[text.ID_LENGTH :]
    else:
        field, _, body = payload.partition(b"\0")
        if not field.isdigit() or len(field) > _LONGEST_ID:
            raise DecodeError("no message id", payload=payload)
        wire_id = int(field)
    is_protobuf = wire_id > PROTOBUF_OFFSET
    return wire_id - PROTOBUF_OFFSET if is_protobuf else wire_id, body, is_protobuf


def _msg_id(message: Any) -> int:
    layout = _FLAT.get(type(message))
    if layout is not None:
        return layout.msg_id
    if isinstance(message, responses.ContractData) and message.is_bond:
        return Incoming.BOND_CONTRACT_DATA
    if isinstance(message, responses.HistoricalTicks):
        return response_bytes.HISTORICAL_TICK_IDS[message.ticks.dtype]
    return _IDS[type(message)]


def _encode_other(message: responses.Other, server_version: int) -> bytes:
    if isinstance(message.fields, dict):
        return protobuf.payload(message.msg_id, INCOMING_MESSAGES[message.msg_id], message.fields)
    return text.payload(message.msg_id, server_version, message.fields)


def _text_accounts(message: responses.ManagedAccounts, server_version: int) -> Iterator[object]:
    yield from (1, text.escape(",".join(message.accounts)))


def _text_contract(message: responses.ContractData, server_version: int) -> Iterator[object]:
    if server_version < ServerVersion.SIZE_RULES:
        yield _BOND_VERSION if message.is_bond else _CONTRACT_VERSION
    yield message.req_id
    yield from write_details(message.details, server_version, message.is_bond)


def _text_samples(message: responses.SymbolSamples, server_version: int) -> Iterator[object]:
    yield from (message.req_id, len(message.samples))
    for sample in message.samples:
        contract = sample.contract
        yield from (contract.con_id, contract.symbol, contract.sec_type, contract.primary_exchange, contract.currency)
        yield from (len(sample.derivative_sec_types), *sample.derivative_sec_types)
        if server_version >= ServerVersion.BOND_ISSUER_ID:
            yield from (contract.description, contract.issuer_id)


def _text_bars(message: responses.HistoricalData | DatedBars, server_version: int) -> Iterator[object]:
    yield message.req_id
    if server_version < ServerVersion.HISTORICAL_DATA_END:
        yield from (message.start, message.end)
    yield from write_bars(message.bars, _dates(message))


def _text_ticks(message: responses.HistoricalTicks, server_version: int) -> Iterator[object]:
    yield message.req_id
    yield from write_ticks(message.ticks)
    yield message.done


def _protobuf_accounts(message: responses.ManagedAccounts) -> dict[str, Any]:
    return {"accountsList": ",".join(message.accounts)}


def _protobuf_contract(message: responses.ContractData) -> dict[str, Any]:
    contract, details = details_to_protobuf(message.details, message.is_bond)
    return {"reqId": message.req_id, "contract": contract, "contractDetails": details}


def _protobuf_samples(message: responses.SymbolSamples) -> dict[str, Any]:
    samples = [
        {"contract": contract_to_protobuf(sample.contract), "derivativeSecTypes": sample.derivative_sec_types}
        for sample in message.samples
    ]
    return {"reqId": message.req_id, "contractDescriptions": samples}


def _protobuf_bars(message: responses.HistoricalData | DatedBars) -> dict[str, Any]:
    return {"reqId": message.req_id, "historicalDataBars": bars_to_protobuf(message.bars, _dates(message))}


def _protobuf_ticks(message: responses.HistoricalTicks) -> dict[str, Any]:
    field = response_bytes.HISTORICAL_TICKS_FIELDS[message.ticks.dtype]
    return {"reqId": message.req_id, field: ticks_to_protobuf(message.ticks), "isDone": message.done}


def _dates(message: responses.HistoricalData | DatedBars) -> Sequence[str]:
    if isinstance(message, DatedBars):
        return message.dates
    return [str(event_ns // NS_PER_S) for event_ns in message.bars["event_ns"].tolist()]


_LONGEST_ID = 9
_CONTRACT_VERSION, _BOND_VERSION = 8, 6
_REQUESTS = {layout.msg_id: (request_type, layout) for request_type, layout in request_bytes.LAYOUTS.items()}
_TEXT_REQUESTS = {msg_id for msg_id, (_, layout) in _REQUESTS.items() if layout.since < OUTGOING_PROTOBUF_SINCE[msg_id]}
_FLAT: dict[type, Layout] = {**response_bytes.LAYOUTS}
_IDS: dict[type, int] = {
    responses.ManagedAccounts: Incoming.MANAGED_ACCTS,
    responses.ContractData: Incoming.CONTRACT_DATA,
    responses.SymbolSamples: Incoming.SYMBOL_SAMPLES,
    responses.HistoricalData: Incoming.HISTORICAL_DATA,
    DatedBars: Incoming.HISTORICAL_DATA,
}
_TEXT_WRITERS: dict[type, Callable[[Any, int], Iterator[object]]] = {
    responses.ManagedAccounts: _text_accounts,
    responses.ContractData: _text_contract,
    responses.SymbolSamples: _text_samples,
    responses.HistoricalData: _text_bars,
    DatedBars: _text_bars,
    responses.HistoricalTicks: _text_ticks,
}
_PROTOBUF_WRITERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    responses.ManagedAccounts: _protobuf_accounts,
    responses.ContractData: _protobuf_contract,
    responses.SymbolSamples: _protobuf_samples,
    responses.HistoricalData: _protobuf_bars,
    DatedBars: _protobuf_bars,
    responses.HistoricalTicks: _protobuf_ticks,
}
