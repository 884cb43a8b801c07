"""Whatever a client sends, a session answers, ignores or hangs up; it never breaks."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import Contract, Stock
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.session import GatewaySession
from ibfast.sim.universe import Universe
from ibfast.wire import request_bytes, requests, responses
from ibfast.wire.ids import Outgoing
from ibfast.wire.protobuf_ids import OUTGOING_PROTOBUF_SINCE, PROTOBUF_OFFSET

MARKET = Market(Universe.builtin(date(2026, 11, 23)), rate=50)
VERSIONS = st.sampled_from([157, 178, 200, 201, 213, 226])
APPLE = Stock("AAPL")
REQUESTS = [
    requests.MarketData(1, APPLE, "233"),
    requests.CancelMarketData(1),
    requests.MarketDataTypeRequest(3),
    requests.TickByTick(1, APPLE, "AllLast", 5),
    requests.CancelTickByTick(1),
    requests.MarketDepth(1, APPLE, 5, True),
    requests.CancelMarketDepth(1, True),
    requests.RealTimeBars(1, APPLE, "TRADES", False),
    requests.CancelRealTimeBars(1),
    requests.HistoricalBars(1, APPLE, "", "60 S", "5 secs", "TRADES", False, 2, True),
    requests.CancelHistoricalBars(1),
    requests.HistoricalTicksRequest(1, APPLE, "", "1795445640", 5, "TRADES", False),
    requests.HeadTimestampRequest(1, APPLE, "TRADES", False),
    requests.ContractDetailsRequest(1, Contract(symbol="ES", sec_type="FUT")),
    requests.MatchingSymbols(1, "A"),
    requests.CurrentTimeRequest(),
    requests.IdsRequest(),
    requests.ManagedAccountsRequest(),
    requests.SetServerLogLevel(5),
]


class Wire(asyncio.Transport):
    """Stands for a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.is_open

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.is_open = False

    abort = close


def converse(server_version: int, chunks: list[bytes]) -> list[Any]:
    """Return what a gateway says to a client that has started and then sends `chunks`."""
    sent: list[Any] = []
    gateway = Gateway(
        server_version=server_version,
        market=MARKET,
        clock=Clock(0, 1_795_445_640_000_000_000),
        pacing=False,
        journal=lambda _, message: sent.append(message),
    )
    session, wire = GatewaySession(gateway), Wire()
    session.connection_made(wire)
    session.data_received(request_bytes.hello(157, 226))
    session.data_received(request_bytes.frame(request_bytes.encode(requests.StartApi(1), server_version)))
    sent.clear()
    for chunk in chunks:
        if wire.is_open:
            session.data_received(chunk)
    session.connection_lost(None)
    return sent


@given(VERSIONS, st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes(server_version: int, chunks: list[bytes]) -> None:
    converse(server_version, chunks)


@given(VERSIONS, st.sampled_from(Outgoing), st.binary(max_size=60), st.booleans())
def test_any_body_of_any_request(server_version: int, msg_id: Outgoing, body: bytes, is_protobuf: bool) -> None:
    wire_id = msg_id + PROTOBUF_OFFSET if is_protobuf else int(msg_id)
    head = wire_id.to_bytes(4, "big") if server_version > 200 else f"{wire_id}\0".encode()
    converse(server_version, [request_bytes.frame(head + body)])


@settings(max_examples=300)
@given(VERSIONS, st.sampled_from(REQUESTS), st.data())
def test_spoiled_requests(server_version: int, request: requests.Request, data: st.DataObject) -> None:
    payload = bytearray(request_bytes.encode(request, server_version))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.sampled_from([0, 0x31, 0x39, 0x2D, 0x41, 0xFF, payload[at] ^ 1]))
    cut = data.draw(st.integers(1, len(payload)))
    converse(server_version, [request_bytes.frame(bytes(payload[:cut]))])


@given(VERSIONS, st.lists(st.sampled_from(REQUESTS), max_size=6), st.integers(1, 40))
def test_requests_in_pieces_are_the_same(server_version: int, asked: list[requests.Request], size: int) -> None:
    data = b"".join(request_bytes.frame(request_bytes.encode(request, server_version)) for request in asked)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert repr(converse(server_version, pieces)) == repr(converse(server_version, [data]))


@pytest.mark.parametrize("server_version", [157, 178, 226])
def test_clients_that_ask_for_their_account_get_the_end_of_an_empty_list(server_version: int) -> None:
    def ask(msg_id: Outgoing, *fields: str) -> bytes:
        since = OUTGOING_PROTOBUF_SINCE.get(msg_id, 999)
        if server_version >= since:
            body = bytes([0x08, int(fields[1])]) if fields[1:] else b""
            return request_bytes.frame((msg_id + PROTOBUF_OFFSET).to_bytes(4, "big") + body)
        return request_bytes.frame("\0".join([str(int(msg_id)), *fields, ""]).encode())

    asked = [
        ask(Outgoing.REQ_POSITIONS, "1"),
        ask(Outgoing.REQ_OPEN_ORDERS, "1"),
        ask(Outgoing.REQ_COMPLETED_ORDERS),
        ask(Outgoing.REQ_EXECUTIONS, "3", "7"),
        ask(Outgoing.REQ_ACCOUNT_UPDATES_MULTI, "1", "8", "", "", ""),
        ask(Outgoing.REQ_ACCT_DATA, "2"),
    ]
    answers = converse(server_version, asked)
    assert answers.pop(1) == responses.OpenOrderEnd()
    assert all(isinstance(answer, responses.Other) for answer in answers)
    assert [answer.msg_id for answer in answers] == [62, 102, 55, 74, 54]
    told = [answer.fields for answer in answers]
    with_ids = [{"reqId": 7}, {"reqId": 8}] if server_version == 226 else [("1", "7"), ("1", "8")]
    assert told[2:4] == with_ids
