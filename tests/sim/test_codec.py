from __future__ import annotations

import contextlib
import math
from dataclasses import fields, replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import Contract, Stock
from ibfast.errors import DecodeError, UnsupportedError
from ibfast.records import HISTORICAL_BAR
from ibfast.sim import codec
from ibfast.wire import request_bytes, requests, response_bytes, responses
from ibfast.wire.ids import Outgoing, ServerVersion, TickType
from tests.support.message_samples import all_messages, epochs_ns, same
from tests.support.oracles import ASYNC_CLIENT, NEW_CLIENT, OLD_CLIENT, Oracle
from tests.support.payloads import FIELDS, decoded, split_id
from tests.support.wire_samples import ALL_VERSIONS, all_requests, texts

SIZE_TYPES = {
    TickType.BID: TickType.BID_SIZE,
    TickType.ASK: TickType.ASK_SIZE,
    TickType.LAST: TickType.LAST_SIZE,
    TickType.DELAYED_BID: TickType.DELAYED_BID_SIZE,
    TickType.DELAYED_ASK: TickType.DELAYED_ASK_SIZE,
    TickType.DELAYED_LAST: TickType.DELAYED_LAST_SIZE,
}
TICK_VERSIONS = (157, 163, 176, 200, 201, 206, 208, 226)
PROTOBUF_TICKS = 208

req_ids = st.integers(1, 2**31 - 2)
tick_types = st.sampled_from(list(TickType))
prices = st.floats(0, 1e9).map(lambda price: round(price, 9))
whole_sizes = st.integers(0, 10**9)
fractional_sizes = st.decimals(0, 10**12, places=8) | prices | whole_sizes | st.decimals(0, 10**9, places=3).map(str)
seconds = epochs_ns.map(lambda ns: ns // 10**9)
small = st.integers(0, 2)


def ticks_with(sizes):
    return st.one_of(
        st.builds(codec.TickPrice, req_ids, tick_types, prices, sizes, st.integers(0, 7)),
        st.builds(codec.TickSize, req_ids, tick_types, sizes),
        st.builds(codec.TickOption, req_ids, tick_types, small, *[prices] * 8),
        st.builds(codec.TickGeneric, req_ids, tick_types, prices),
        st.builds(codec.TickString, req_ids, tick_types, texts),
        st.builds(codec.DepthUpdate, req_ids, small, small, small, prices, sizes),
        st.builds(codec.DepthL2, req_ids, small, small, small, prices, sizes, texts, st.booleans()),
        st.builds(codec.RealTimeBar, req_ids, seconds, prices, prices, prices, prices, sizes, sizes, small),
        st.builds(
            codec.HistoricalDataUpdate,
            req_ids,
            small,
            seconds.map(str),
            prices,
            prices,
            prices,
            prices,
            sizes,
            sizes,
        ),
        st.builds(
            codec.TickByTickLast, req_ids, st.integers(1, 2), seconds, prices, sizes, st.integers(0, 3), texts, texts
        ),
        st.builds(codec.TickByTickBidAsk, req_ids, seconds, prices, prices, sizes, sizes, st.integers(0, 3)),
        st.builds(codec.TickByTickMidPoint, req_ids, seconds, prices),
    )


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


@settings(max_examples=500)
@given(tick=ticks_with(fractional_sizes), server_version=st.sampled_from(TICK_VERSIONS))
def test_the_official_client_shows_the_ticks(new_client, tick, server_version):
    payload = codec.encode(tick, server_version)
    assert new_client.ask(ask="receive", server_version=server_version, payload=payload.hex()) == calls_of(tick)


@settings(max_examples=200)
@given(tick=ticks_with(whole_sizes | whole_sizes.map(float)))
def test_the_old_client_shows_the_ticks(old_client, tick):
    payload = codec.encode(tick, 157)
    shown = old_client.ask(ask="receive", server_version=157, payload=payload.hex())
    for _, values in shown:
        if "bar" in values:
            values["bar"]["wap"] = values["bar"].pop("average")
    assert shown == calls_of(tick)


def calls_of(tick):
    """Return the calls of an official client that show a tick."""
    match tick:
        case codec.TickPrice(req_id, tick_type, price, size, mask):
            attrib = {"canAutoExecute": bool(mask & 1), "pastLimit": bool(mask & 2), "preOpen": bool(mask & 4)}
            calls = [["tickPrice", {"reqId": req_id, "tickType": tick_type, "price": price, "attrib": attrib}]]
            if tick_type in SIZE_TYPES:
                size_tick = {"reqId": req_id, "tickType": SIZE_TYPES[tick_type], "size": float(size)}
                calls.append(["tickSize", size_tick])
            return calls
        case codec.TickByTickLast(req_id, tick_type, time_s, price, size, mask, exchange, conditions):
            attrib = {"pastLimit": bool(mask & 1), "unreported": bool(mask & 2)}
            values = {"reqId": req_id, "tickType": tick_type, "time": time_s, "price": price, "size": float(size)}
            values |= {"tickAttribLast": attrib, "exchange": exchange, "specialConditions": conditions}
            return [["tickByTickAllLast", values]]
        case codec.TickByTickBidAsk(req_id, time_s, bid, ask, bid_size, ask_size, mask):
            attrib = {"bidPastLow": bool(mask & 1), "askPastHigh": bool(mask & 2)}
            values = {"reqId": req_id, "time": time_s, "bidPrice": bid, "askPrice": ask}
            values |= {"bidSize": float(bid_size), "askSize": float(ask_size), "tickAttribBidAsk": attrib}
            return [["tickByTickBidAsk", values]]
        case codec.HistoricalDataUpdate():
            bar = {name: getattr(tick, name) for name in ("date", "open", "high", "low", "close")}
            bar |= {"volume": float(tick.volume), "wap": float(tick.wap), "barCount": tick.count}
            return [["historicalDataUpdate", {"reqId": tick.req_id, "bar": bar}]]
    callback, names = FLAT_CALLS[type(tick)]
    values = {official: getattr(tick, ours) for official, ours in (name.split("=") for name in names.split())}
    sizes = ("size", "volume", "wap")
    return [[callback, {name: float(value) if name in sizes else value for name, value in values.items()}]]


FLAT_CALLS = {
    codec.TickSize: ("tickSize", "reqId=req_id tickType=tick_type size=size"),
    codec.TickGeneric: ("tickGeneric", "reqId=req_id tickType=tick_type value=value"),
    codec.TickString: ("tickString", "reqId=req_id tickType=tick_type value=value"),
    codec.TickOption: (
        "tickOptionComputation",
        "reqId=req_id tickType=tick_type tickAttrib=attribs impliedVol=implied_vol delta=delta optPrice=option_price "
        "pvDividend=pv_dividend gamma=gamma vega=vega theta=theta undPrice=und_price",
    ),
    codec.DepthUpdate: (
        "updateMktDepth",
        "reqId=req_id position=position operation=operation side=side price=price size=size",
    ),
    codec.DepthL2: (
        "updateMktDepthL2",
        "reqId=req_id position=position marketMaker=market_maker operation=operation side=side price=price size=size "
        "isSmartDepth=is_smart_depth",
    ),
    codec.RealTimeBar: (
        "realtimeBar",
        "reqId=req_id time=time_s open_=open high=high low=low close=close volume=volume wap=wap count=count",
    ),
    codec.TickByTickMidPoint: ("tickByTickMidPoint", "reqId=req_id time=time_s midPoint=price"),
}


@given(tick=ticks_with(fractional_sizes | st.none() | st.just(math.nan)), server_version=st.sampled_from(TICK_VERSIONS))
def test_what_is_absent_is_an_empty_field_or_none(new_client, tick, server_version):
    values = {field.name: getattr(tick, field.name) for field in fields(tick)}
    absent = {name for name, value in values.items() if value is None or value != value}
    payload = codec.encode(tick, server_version)
    calls = new_client.ask(ask="receive", server_version=server_version, payload=payload.hex())
    shown_values = [values.get("bar", values) for _, values in calls]
    shown = {name for values in shown_values for name, value in values.items() if value is None}
    official = {"bid_size": "bidSize", "ask_size": "askSize"}
    if not isinstance(tick, codec.TickPrice):
        assert shown == {official.get(name, name) for name in absent}


def test_absent_prices_are_unset_in_protobuf_and_empty_in_text():
    for price in (None, math.nan):
        assert codec.encode(codec.TickPrice(1, 4, price, None, 0), 176) == b"1\x006\x001\x004\0\0\x000\0"
        assert codec.encode(codec.TickPrice(1, 4, price, None, 0), 226) == b"\0\0\0\xc9\x08\x01\x10\x04\x28\x00"


def test_numbers_of_numpy_are_written_as_pythons():
    tick = codec.TickPrice(1, 4, np.float64(1.5), np.float64(100.0), 0)
    for server_version in (176, 226):
        assert codec.encode(tick, server_version) == codec.encode(
            codec.TickPrice(1, 4, 1.5, Decimal(100), 0), server_version
        )


def test_the_dialect_changes_family_by_family():
    assert codec.encode(responses.NextValidId(1), 212)[3] == 9
    assert codec.encode(responses.NextValidId(1), 213)[3] == 209
    assert codec.encode(responses.TickEfp(1, 38, 1.0, "", 0.0, 0, "", 0.0, 0.0), 226)[3] == 47
    assert codec.decode_request(request_bytes.encode(requests.MarketData(1, Stock("A")), 205), 205).contract == Stock(
        "A"
    )
