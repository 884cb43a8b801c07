from __future__ import annotations

import contextlib
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import Contract, Stock
from ibfast.errors import DecodeError, UnsupportedError
from ibfast.records import HISTORICAL_BAR
from ibfast.sim import codec
from ibfast.wire import request_bytes, requests, response_bytes, responses
from ibfast.wire.ids import Outgoing, ServerVersion
from tests.support.message_samples import all_messages, same
from tests.support.oracles import ASYNC_CLIENT, NEW_CLIENT, OLD_CLIENT, Oracle
from tests.support.payloads import FIELDS, decoded, split_id
from tests.support.wire_samples import ALL_VERSIONS, all_requests


@pytest.fixture(scope="module")
def new_client():
    with Oracle("oracle_client.py", NEW_CLIENT) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def old_client():
    with Oracle("oracle_client.py", OLD_CLIENT) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def async_client():
    with Oracle("oracle_async.py", ASYNC_CLIENT) as oracle:
        yield oracle


@settings(max_examples=400)
@given(request=all_requests, server_version=st.sampled_from(ALL_VERSIONS))
def test_requests_survive(request, server_version):
    try:
        payload = request_bytes.encode(request, server_version)
    except UnsupportedError:
        return
    read = codec.decode_request(payload, server_version)
    _, _, is_protobuf = split_id(payload, server_version)
    assert request_bytes.encode(read, server_version) == payload
    if is_protobuf:
        assert read == request
    else:  # text carries of a contract only what the request needs
        assert replace_contract(read) == replace_contract(request)


def replace_contract(request):
    if "contract" not in {field.name for field in fields(request)}:
        return request
    told = ("con_id", "symbol", "sec_type", "strike", "exchange", "primary_exchange", "currency", "trading_class")
    return replace(request, contract=Contract(**{name: getattr(request.contract, name) for name in told}))


def official_payload(oracle, server_version, method, *args):
    return bytes.fromhex(oracle.ask(ask="send", server_version=server_version, method=method, args=args)[0])


@pytest.mark.parametrize(
    ("client", "server_version"),
    [("old_client", 157), ("async_client", 176), ("new_client", 176), ("new_client", 202), ("new_client", 226)],
)
def test_other_requests_of_other_clients_are_unknown_not_wrong(request, client, server_version):
    oracle = request.getfixturevalue(client)
    payload = official_payload(oracle, server_version, "reqPnL", 5, "DU1", "")
    unknown = codec.decode_request(payload, server_version)
    assert isinstance(unknown, codec.UnknownRequest)
    assert unknown.msg_id == 92
    assert unknown.fields == (b"\x08\x05\x12\x03DU1" if server_version >= 210 else ("5", "DU1", ""))


@pytest.mark.parametrize(
    ("payload", "server_version"),
    [
        (b"", 176),
        (b"", 226),
        (b"\0", 176),
        (b"abc\0", 176),
        (b"9" * 5000 + b"\0", 176),
        (b"71", 176),
        (b"1\x0011\0", 176),
        (b"1\x0011\x001", 176),
        (b"\0\0\x01", 226),
        (b"\0\0\0\xc9\xff", 226),
        (b"\0\0\0\xc9\x12\x05a", 226),
    ],
)
def test_malformed_requests_are_decode_errors(payload, server_version):
    with pytest.raises(DecodeError):
        codec.decode_request(payload, server_version)


@settings(max_examples=300)
@given(
    msg_id=st.sampled_from(list(Outgoing)),
    body=st.binary(max_size=60) | st.lists(st.sampled_from(FIELDS), max_size=30).map(b"".join),
    server_version=st.sampled_from(ALL_VERSIONS),
    is_protobuf=st.booleans(),
)
def test_any_bytes_are_a_request_or_a_decode_error(msg_id, body, server_version, is_protobuf):
    wire_id = msg_id + 200 if is_protobuf else msg_id
    header = wire_id.to_bytes(4, "big") if server_version >= 201 else b"%d\0" % wire_id
    with contextlib.suppress(DecodeError):
        read = codec.decode_request(header + body, server_version)
        assert isinstance(read, (codec.UnknownRequest, *request_bytes.LAYOUTS))


@settings(max_examples=400)
@given(message=all_messages)
def test_messages_survive_protobuf(message):
    read = decoded(codec.encode(message, ServerVersion.MAX), ServerVersion.MAX)
    assert same(read, as_newest(message))


def as_newest(message):
    """Return what the newest version can tell of a message."""
    if isinstance(message, responses.HistoricalData):
        return replace(message, start="", end="")
    if isinstance(message, responses.ContractData) and message.is_bond:
        details = message.details
        contract = replace(details.contract, last_trade_date=details.maturity)
        return replace(message, details=replace(details, contract=contract))
    return message


@settings(max_examples=400)
@given(message=all_messages, server_version=st.sampled_from(ALL_VERSIONS))
def test_messages_survive_as_far_as_a_version_tells_them(message, server_version):
    try:
        payload = codec.encode(message, server_version)
    except UnsupportedError:
        assert server_version < response_bytes.LAYOUTS[type(message)].since
        return
    assert codec.encode(decoded(payload, server_version), server_version) == payload


def test_other_messages_survive():
    for fields_, server_version in ((("1", "a", ""), 176), (("1", "a", ""), 201), ({"reqId": 3}, 226)):
        other = responses.Other(77, fields_)
        assert decoded(codec.encode(other, server_version), server_version) == other


def test_bars_show_the_dates_given():
    bars = np.array([(1704758400 * 10**9, 1, 2, 0.5, 1.5, 100, math.nan, 7)], HISTORICAL_BAR)
    for server_version in (176, 200, 226):
        dated = codec.encode(codec.DatedBars(3, bars, ["20240109"], "from", "to"), server_version)
        assert b"20240109" in dated
        np.testing.assert_equal(decoded(dated, server_version).bars.tolist(), bars.tolist())
        assert b"1704758400" in codec.encode(responses.HistoricalData(3, bars), server_version)


def test_the_dialect_changes_family_by_family():
    assert codec.encode(responses.NextValidId(1), 212)[3] == 9
    assert codec.encode(responses.NextValidId(1), 213)[3] == 209
    assert codec.encode(responses.TickEfp(1, 38, 1.0, "", 0.0, 0, "", 0.0, 0.0), 226)[3] == 47
    assert codec.decode_request(request_bytes.encode(requests.MarketData(1, Stock("A")), 205), 205).contract == Stock(
        "A"
    )
