"""The tick path as bytes: official clients of two generations show the very ticks that were encoded."""

from __future__ import annotations

import math
from dataclasses import fields
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.sim import codec
from ibfast.wire.ids import TickType
from tests.support.message_samples import epochs_ns
from tests.support.oracles import NEW_CLIENT, OLD_CLIENT, Oracle
from tests.support.wire_samples import texts

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
