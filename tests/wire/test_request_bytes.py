from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import Contract, Stock
from ibfast.errors import UnsupportedError
from ibfast.wire import request_bytes, requests
from tests.support.oracles import ASYNC_CLIENT, NEW_CLIENT, OLD_CLIENT, Oracle
from tests.support.wire_samples import ALL_VERSIONS, VERSIONS, all_requests, official_call, with_strike

OLD_VERSION = 157
ASYNC_VERSIONS = tuple(version for version in VERSIONS if version <= 178)


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


def official_payload(oracle, request, server_version):
    method, args = official_call(request)
    sent = oracle.ask(ask="send", server_version=server_version, method=method, args=args)
    assert len(sent) <= 1
    return bytes.fromhex(sent[0]) if sent else None


@settings(max_examples=400)
@given(request=all_requests, server_version=st.sampled_from(ALL_VERSIONS))
def test_bytes_are_those_of_the_official_client(new_client, request, server_version):
    expected = official_payload(new_client, request, server_version)
    if expected is None:
        with pytest.raises(UnsupportedError):
            request_bytes.encode(request, server_version)
    else:
        assert request_bytes.encode(request, server_version) == expected


@settings(max_examples=150)
@given(request=all_requests.map(with_strike))
def test_bytes_are_those_of_the_old_client(old_client, request):
    if request_bytes.LAYOUTS[type(request)].since > OLD_VERSION:
        return
    if getattr(request, "contract", None) is not None:
        request = replace(request, contract=replace(request.contract, issuer_id=""))
    if getattr(request, "what_to_show", "") == "SCHEDULE":
        request = replace(request, what_to_show="TRADES")
    assert request_bytes.encode(request, OLD_VERSION) == official_payload(old_client, request, OLD_VERSION)


@settings(max_examples=150)
@given(request=all_requests.map(with_strike), server_version=st.sampled_from(ASYNC_VERSIONS))
def test_bytes_are_those_of_ib_async(async_client, request, server_version):
    if server_version < request_bytes.LAYOUTS[type(request)].since:
        return
    try:
        payload = request_bytes.encode(request, server_version)
    except UnsupportedError:
        return
    assert payload == official_payload(async_client, request, server_version)


@pytest.mark.parametrize("request_type", request_bytes.LAYOUTS)
def test_every_request_has_an_example_at_every_dialect(new_client, request_type):
    example = {
        requests.StartApi: requests.StartApi(7, "x"),
        requests.MarketDataTypeRequest: requests.MarketDataTypeRequest(3),
        requests.SetServerLogLevel: requests.SetServerLogLevel(5),
        requests.TickByTick: requests.TickByTick(1, Stock("AAPL"), "Last"),
        requests.MarketData: requests.MarketData(1, Stock("AAPL"), "233"),
        requests.MarketDepth: requests.MarketDepth(1, Stock("AAPL"), 5, True),
        requests.RealTimeBars: requests.RealTimeBars(1, Stock("AAPL"), "TRADES", True),
        requests.HistoricalBars: requests.HistoricalBars(1, Stock("AAPL"), "", "1 D", "1 min", "TRADES", True),
        requests.HistoricalTicksRequest: requests.HistoricalTicksRequest(1, Stock("AAPL"), "", "x", 10, "TRADES", True),
        requests.HeadTimestampRequest: requests.HeadTimestampRequest(1, Stock("AAPL"), "TRADES", True),
        requests.ContractDetailsRequest: requests.ContractDetailsRequest(1, Stock("AAPL")),
        requests.MatchingSymbols: requests.MatchingSymbols(1, "AA"),
    }.get(request_type)
    if example is None:
        empty = not request_type.__annotations__ or request_type is requests.IdsRequest
        example = request_type() if empty else request_type(req_id=4)
    encoded = set()
    for server_version in ALL_VERSIONS:
        expected = official_payload(new_client, example, server_version)
        if expected is not None:
            encoded.add(request_bytes.encode(example, server_version))
            assert expected in encoded
    assert len(encoded) >= (1 if request_bytes.LAYOUTS[request_type].since == 215 else 3)


def test_hello_is_framed_behind_its_prefix():
    assert request_bytes.hello(157, 226) == b"API\0\0\0\0\x09v157..226"
    assert request_bytes.hello() == request_bytes.hello(157, 226)


def test_frame_has_a_big_endian_length():
    assert request_bytes.frame(b"\0" * 258) == b"\0\0\1\2" + b"\0" * 258


def test_what_the_version_lacks_is_refused():
    with pytest.raises(UnsupportedError, match="197"):
        request_bytes.encode(requests.CurrentTimeInMillisRequest(), 196)
    with pytest.raises(UnsupportedError, match="SCHEDULE"):
        request_bytes.encode(requests.HistoricalBars(1, Stock("A"), "", "1 D", "1 day", "SCHEDULE", True), 164)
    with pytest.raises(UnsupportedError, match="issuer_id"):
        request_bytes.encode(requests.ContractDetailsRequest(1, Contract(issuer_id="e1")), 175)


def test_a_field_holds_no_nul():
    with pytest.raises(ValueError, match="NUL"):
        request_bytes.encode(requests.MatchingSymbols(1, "A\0B"), 176)
