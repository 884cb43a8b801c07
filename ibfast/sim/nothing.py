"""Answers of an account in which there is nothing: no orders, positions or executions.

The rule of the file: many clients ask for these when they connect, and wait; an empty list is the truth of a gateway
that has market data only. Everything else that is not about market data stays unanswered.
"""

from __future__ import annotations

from ibfast.errors import DecodeError
from ibfast.sim.codec import UnknownRequest
from ibfast.wire import protobuf
from ibfast.wire.ids import Incoming, Outgoing, ServerVersion
from ibfast.wire.protobuf_ids import INCOMING_PROTOBUF_SINCE
from ibfast.wire.responses import Other

__all__ = ["empty_answer"]

_VERSION = "1"
_WITHOUT_ID = {
    Outgoing.REQ_OPEN_ORDERS: Incoming.OPEN_ORDER_END,
    Outgoing.REQ_ALL_OPEN_ORDERS: Incoming.OPEN_ORDER_END,
    Outgoing.REQ_AUTO_OPEN_ORDERS: Incoming.OPEN_ORDER_END,
    Outgoing.REQ_POSITIONS: Incoming.POSITION_END,
}
_WITH_ID = {
    Outgoing.REQ_EXECUTIONS: Incoming.EXECUTION_DATA_END,
    Outgoing.REQ_ACCOUNT_SUMMARY: Incoming.ACCOUNT_SUMMARY_END,
    Outgoing.REQ_POSITIONS_MULTI: Incoming.POSITION_MULTI_END,
    Outgoing.REQ_ACCOUNT_UPDATES_MULTI: Incoming.ACCOUNT_UPDATE_MULTI_END,
}
_ONLY_REQ_ID = "CancelMarketData"
"""A protobuf message with the reqId alone, which is field 1 of all requests here."""


def empty_answer(request: UnknownRequest, server_version: int) -> Other | None:
    """Return the end marker that answers a request for a list; None for a request that stays unanswered.

    Raises:
        DecodeError: the request is malformed.
    """
    msg_id = request.msg_id
    if msg_id in _WITHOUT_ID:
        return _end(_WITHOUT_ID[Outgoing(msg_id)], {}, (_VERSION,), server_version)
    if msg_id in _WITH_ID:
        req_id = _req_id(request)
        return _end(_WITH_ID[Outgoing(msg_id)], {"reqId": req_id}, (_VERSION, str(req_id)), server_version)
    if msg_id == Outgoing.REQ_COMPLETED_ORDERS:
        return _end(Incoming.COMPLETED_ORDERS_END, {}, (), server_version)
    if msg_id == Outgoing.REQ_ACCT_DATA:
        return _end(Incoming.ACCT_DOWNLOAD_END, {"accountName": ""}, (_VERSION, ""), server_version)
    return None


def _req_id(request: UnknownRequest) -> int:
    if isinstance(request.fields, bytes):
        return int(protobuf.decode(_ONLY_REQ_ID, request.fields).get("reqId", -1))
    try:
        return int(request.fields[1])
    except (IndexError, ValueError):
        raise DecodeError("no request id", request.msg_id) from None


def _end(msg_id: Incoming, fields: dict[str, object], text: tuple[str, ...], server_version: int) -> Other:
    is_protobuf = server_version >= INCOMING_PROTOBUF_SINCE.get(msg_id, ServerVersion.MAX + 1)
    return Other(msg_id, fields if is_protobuf else text)
