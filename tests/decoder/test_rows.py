"""Message by message: the rows that it makes, in every dialect the same, and what they do to quotes and last values."""

from __future__ import annotations

import math
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ibfast import Decoder, Feed, Kind
from ibfast.wire.times import parse_bar_time
from tests.support.decoded import RINGS, Decoded, assert_row, decode
from tests.support.streams import (
    BAR_UPDATE,
    MARKET_DEPTH,
    MARKET_DEPTH_L2,
    REAL_TIME_BAR,
    TICK_BY_TICK,
    TICK_GENERIC,
    TICK_OPTION,
    TICK_PRICE,
    TICK_SIZE,
    TICK_STRING,
    bytes_field,
    double_field,
    framed,
    int_field,
    message,
    protobuf_payload,
    text_payload,
)

NAN = math.nan
NS_PER_S = 10**9
DIALECTS = ((176, False), (201, False), (226, True))
HIGH, VOLUME, MODEL_OPTION = 6, 8, 13

# fmt: off
MESSAGES: list[tuple[int, dict[str, Any], dict[str, Any], str, dict[str, Any]]] = [
    # id, values of both forms, what protobuf has besides or instead, ring, the row
    (TICK_PRICE, {"req_id": 7, "tick_type": HIGH, "price": 189.25, "size": "0.5", "attribs": 5}, {}, "ticks",
     {"kind": Kind.PRICE, "tick_type": HIGH, "price": 189.25, "size": 0.5, "attribs": 5, "text": ""}),
    (TICK_SIZE, {"req_id": 7, "tick_type": 21, "size": "123456789"}, {}, "ticks",
     {"kind": Kind.SIZE, "tick_type": 21, "price": NAN, "size": 123456789.0, "attribs": 0, "text": ""}),
    (TICK_GENERIC, {"req_id": 7, "tick_type": 24, "price": 0.2345}, {}, "ticks",
     {"kind": Kind.GENERIC, "tick_type": 24, "price": 0.2345, "size": NAN, "attribs": 0, "text": ""}),
    (TICK_STRING, {"req_id": 7, "tick_type": 84, "text": "NQ"}, {}, "ticks",
     {"kind": Kind.STRING, "tick_type": 84, "price": NAN, "size": NAN, "attribs": 0, "text": "NQ"}),
    (TICK_STRING, {"req_id": 7, "tick_type": 45, "text": "1641561000"}, {}, "ticks",
     {"kind": Kind.STRING, "tick_type": 45, "price": 1641561000.0, "size": NAN, "attribs": 0, "text": ""}),
    (TICK_STRING, {"req_id": 7, "tick_type": 88, "text": "1641561000"}, {}, "ticks",
     {"kind": Kind.STRING, "tick_type": 88, "price": 1641561000.0, "size": NAN, "attribs": 0, "text": ""}),
    (TICK_BY_TICK, {"req_id": 7, "tick_type": 1, "time": 1641561000, "price": 172.5, "size": "100", "attribs": 2,
                    "exchange": "ISLAND", "conditions": " F I"}, {"unreported": 1}, "trades",
     {"kind": Kind.LAST, "event_ns": 1641561000 * NS_PER_S, "price": 172.5, "size": 100.0, "attribs": 2,
      "exchange": "ISLAND", "conditions": " F I"}),
    (TICK_BY_TICK, {"req_id": 7, "tick_type": 2, "time": 1641561000, "price": 172.5, "size": "1", "attribs": 1,
                    "exchange": "", "conditions": ""}, {"past_limit": 1}, "trades",
     {"kind": Kind.ALL_LAST, "event_ns": 1641561000 * NS_PER_S, "price": 172.5, "size": 1.0, "attribs": 1,
      "exchange": "", "conditions": ""}),
    (TICK_BY_TICK, {"req_id": 7, "tick_type": 3, "time": 1641561000, "bid": 172.5, "ask": 172.75, "bid_size": "3",
                    "ask_size": "0.25", "attribs": 3}, {"bid_past_low": 1, "ask_past_high": 1}, "quotes",
     {"kind": Kind.BID_ASK, "event_ns": 1641561000 * NS_PER_S, "bid": 172.5, "ask": 172.75, "bid_size": 3.0,
      "ask_size": 0.25, "attribs": 3}),
    (TICK_BY_TICK, {"req_id": 7, "tick_type": 4, "time": 1641561000, "price": 172.625}, {}, "quotes",
     {"kind": Kind.MIDPOINT, "event_ns": 1641561000 * NS_PER_S, "bid": 172.625, "ask": 172.625, "bid_size": NAN,
      "ask_size": NAN, "attribs": 0}),
    (MARKET_DEPTH, {"req_id": 7, "position": 3, "operation": 1, "side": 1, "price": 172.5, "size": "200"}, {}, "depth",
     {"kind": Kind.DEPTH, "position": 3, "operation": 1, "side": 1, "price": 172.5, "size": 200.0, "attribs": 0,
      "market_maker": ""}),
    (MARKET_DEPTH_L2, {"req_id": 7, "position": 0, "market_maker": "ARCA", "operation": 2, "side": 0, "price": 0.0,
                       "size": "0", "attribs": 1}, {}, "depth",
     {"kind": Kind.DEPTH_L2, "position": 0, "operation": 2, "side": 0, "price": 0.0, "size": 0.0, "attribs": 1,
      "market_maker": "ARCA"}),
    (REAL_TIME_BAR, {"req_id": 7, "time": 1641561000, "open": 1.5, "high": 2.5, "low": 0.5, "close": 1.25,
                     "volume": "1000.5", "wap": "1.375", "count": 12}, {}, "bars",
     {"kind": Kind.REALTIME_BAR, "event_ns": 1641561000 * NS_PER_S, "open": 1.5, "high": 2.5, "low": 0.5,
      "close": 1.25, "volume": 1000.5, "wap": 1.375, "count": 12}),
    (BAR_UPDATE, {"req_id": 7, "time": "1641561000", "open": 1.5, "high": 2.5, "low": 0.5, "close": 1.25,
                  "volume": "-1", "wap": "-1", "count": -1}, {}, "bars",
     {"kind": Kind.UPDATE_BAR, "event_ns": 1641561000 * NS_PER_S, "open": 1.5, "high": 2.5, "low": 0.5, "close": 1.25,
      "volume": NAN, "wap": NAN, "count": -1}),
    (REAL_TIME_BAR, {"req_id": 7, "time": 1641561000, "open": -1.0, "high": 0.0, "low": -1.5, "close": -1.0,
                     "volume": "-1", "wap": "-1", "count": 2147483647}, {}, "bars",
     {"kind": Kind.REALTIME_BAR, "event_ns": 1641561000 * NS_PER_S, "open": -1.0, "high": 0.0, "low": -1.5,
      "close": -1.0, "volume": NAN, "wap": NAN, "count": -1}),
    (TICK_OPTION, {"req_id": 7, "tick_type": 10, "attribs": 1, "implied_vol": -0.5, "delta": -2.0, "option_price": -1.0,
                   "pv_dividend": -1.0, "gamma": -2.0, "vega": -2.0, "theta": -2.0, "und_price": -1.0}, {}, "greeks",
     {"kind": Kind.OPTION, "tick_type": 10, "attribs": 1, "implied_vol": NAN, "delta": NAN, "option_price": NAN,
      "pv_dividend": NAN, "gamma": NAN, "vega": NAN, "theta": NAN, "und_price": NAN}),
    (TICK_OPTION, {"req_id": 7, "tick_type": MODEL_OPTION, "attribs": 0, "implied_vol": 0.25, "delta": -1.0,
                   "option_price": -2.0, "pv_dividend": 0.0, "gamma": -1.0, "vega": 0.125, "theta": -0.5,
                   "und_price": -2.0}, {}, "greeks",
     {"kind": Kind.OPTION, "tick_type": MODEL_OPTION, "attribs": 0, "implied_vol": 0.25, "delta": -1.0,
      "option_price": -2.0, "pv_dividend": 0.0, "gamma": -1.0, "vega": 0.125, "theta": -0.5, "und_price": -2.0}),
]
# fmt: on


@pytest.mark.parametrize(("msg_id", "values", "protobuf_values", "ring", "wanted"), MESSAGES)
def test_a_message_makes_its_row_in_every_dialect(
    msg_id: int, values: dict[str, Any], protobuf_values: dict[str, Any], ring: str, wanted: dict[str, Any]
) -> None:
    fingerprints = []
    for server_version, is_protobuf in DIALECTS:
        wire_values = {**values, **protobuf_values} if is_protobuf else values
        payload = message(server_version, msg_id, wire_values, is_protobuf).payload
        decoded = Decoded(server_version).give([framed(payload)], recv_ns=123)
        assert decoded.count == 1
        assert len(decoded.rows[ring]) == 1
        assert_row(decoded, ring, seq=1, recv_ns=123, req_id=7, instrument=0, **wanted)
        assert sum(rows.size for rows in decoded.rows.values()) == 1
        fingerprints.append(decoded.fingerprint())
    assert fingerprints[0] == fingerprints[1] == fingerprints[2]


@pytest.mark.parametrize("tick_type", [48, 77])
@pytest.mark.parametrize("is_protobuf", [False, True])
def test_rt_volume_is_a_tick_and_a_trade(tick_type: int, is_protobuf: bool) -> None:
    values = {"req_id": 7, "tick_type": tick_type, "text": "701.28;1.5;1348075471534;67854;701.46918464;true"}
    version = 226 if is_protobuf else 176
    decoded = Decoded(version).give([framed(message(version, TICK_STRING, values, is_protobuf).payload)], recv_ns=9)
    assert_row(decoded, "ticks", kind=Kind.STRING, tick_type=tick_type, price=701.28, size=1.5, text="", req_id=7)
    assert_row(
        decoded,
        "trades",
        kind=Kind.RT_VOLUME,
        event_ns=1348075471534 * 10**6,
        price=701.28,
        size=1.5,
        attribs=1,
        exchange="",
        conditions="",
        req_id=7,
    )
    last = decoded.feed.last[0]
    assert (last["last"], last["last_size"], last["last_event_ns"]) == (701.28, 1.5, 1348075471534 * 10**6)
    assert (last["volume"], last["vwap"], last["volume_recv_ns"]) == (67854.0, 701.46918464, 9)


def test_rt_volume_without_a_price() -> None:
    decoded = decode(framed(text_payload(176, TICK_STRING, 6, 1, 48, ";0;1348075471534;67854;701.46918464;false")), 176)
    assert_row(decoded, "ticks", price=NAN, size=0.0)
    assert len(decoded.rows["trades"]) == 0
    line = ";7;1348075471534;67854;701.46918464;false"
    decoded.give([framed(text_payload(176, TICK_STRING, 6, 1, 48, line))])
    assert_row(decoded, "trades", price=NAN, size=7.0, attribs=0)


def test_what_protobuf_leaves_out_is_absent_and_not_zero() -> None:
    empty = {
        TICK_PRICE: b"",
        TICK_SIZE: b"",
        TICK_GENERIC: b"",
        TICK_STRING: b"",
        TICK_OPTION: b"",
        REAL_TIME_BAR: b"",
        MARKET_DEPTH: bytes_field(2, b""),
        MARKET_DEPTH_L2: bytes_field(2, b""),
        BAR_UPDATE: bytes_field(2, b""),
    }
    decoded = decode(framed(*(protobuf_payload(msg_id, body) for msg_id, body in empty.items())), 226)
    assert decoded.quarantine == []
    for index, kind in enumerate((Kind.PRICE, Kind.SIZE, Kind.GENERIC, Kind.STRING)):
        assert_row(decoded, "ticks", index, kind=kind, req_id=-1, tick_type=-1, attribs=0, price=NAN, size=NAN, text="")
    for index, kind in enumerate((Kind.DEPTH, Kind.DEPTH_L2)):
        assert_row(
            decoded,
            "depth",
            index,
            kind=kind,
            req_id=-1,
            position=-1,
            operation=255,
            side=255,
            price=NAN,
            size=NAN,
            market_maker="",
            attribs=0,
        )
    for index, kind in enumerate((Kind.REALTIME_BAR, Kind.UPDATE_BAR)):
        assert_row(
            decoded,
            "bars",
            index,
            kind=kind,
            req_id=-1,
            event_ns=0,
            open=NAN,
            high=NAN,
            low=NAN,
            close=NAN,
            volume=NAN,
            wap=NAN,
            count=-1,
        )
    assert_row(decoded, "greeks", kind=Kind.OPTION, req_id=-1, tick_type=-1, attribs=0, implied_vol=NAN, und_price=NAN)


def test_explicit_zeros_are_zeros() -> None:
    body = int_field(1, 0) + int_field(2, 0) + double_field(3, 0.0) + bytes_field(4, "0") + int_field(5, 0)
    decoded = decode(framed(protobuf_payload(TICK_PRICE, body)), 226)
    assert_row(decoded, "ticks", req_id=0, tick_type=0, price=0.0, size=0.0, attribs=0)


def test_an_empty_size_in_protobuf_is_absent() -> None:
    body = int_field(1, 1) + int_field(2, 8) + bytes_field(3, "")
    assert_row(decode(framed(protobuf_payload(TICK_SIZE, body)), 226), "ticks", size=NAN)


def test_a_protobuf_message_without_its_data_is_handed_out() -> None:
    """The official client reports nothing for these; here whoever wants them can look."""
    payloads = [
        protobuf_payload(MARKET_DEPTH, int_field(1, 1)),
        protobuf_payload(MARKET_DEPTH_L2, int_field(1, 1)),
        protobuf_payload(BAR_UPDATE, int_field(1, 1)),
        protobuf_payload(TICK_BY_TICK, int_field(1, 1), int_field(2, 1)),
        protobuf_payload(TICK_BY_TICK, int_field(1, 1), int_field(2, 3), bytes_field(3, int_field(1, 5))),
        protobuf_payload(TICK_BY_TICK),
    ]
    decoded = decode(framed(*payloads), 226)
    assert [body for _, body, _ in decoded.messages] == [payload[4:] for payload in payloads]
    assert sum(rows.size for rows in decoded.rows.values()) == 0


def test_texts_are_utf8_with_replacement() -> None:
    for raw, wanted in ((b"caf\xc3\xa9", "caf\xe9"), (b"\xff&amp;\xfe", "\ufffd&amp;\ufffd"), (b'"x"', '"x"')):
        decoded = decode(framed(text_payload(176, TICK_STRING, 6, 1, 62, raw)), 176)
        assert_row(decoded, "ticks", text=wanted)
        decoded = decode(framed(protobuf_payload(TICK_STRING, int_field(2, 62), bytes_field(3, raw))), 226)
        assert_row(decoded, "ticks", text=wanted)


@pytest.mark.parametrize("server_version", [157, 176, 201])
@pytest.mark.parametrize("nbytes", [0, 1 << 15])
def test_escapes_are_resolved_in_the_text_dialect(server_version: int, nbytes: int) -> None:
    """Gateways write what is not ASCII in escapes, in text alone; the result is the text that protobuf has as it is.

    Large reads are decoded without the GIL, which resolving needs.
    """
    texts = {
        rb"Soci\u00e9t\u00E9": "Soci\xe9t\xe9",
        rb"\ud83d\ude00!\u20ac": "\U0001f600!\u20ac",
        rb"\ud83d \ude00": "\ufffd \ufffd",
        rb"C:\new\x41 \u12 \\u": r"C:\new\x41 \u12 \\u",
        rb"": "",
        b"caf\xc3\xa9 \\u00e9": "caf\xe9 \xe9",
    }
    payloads = [text_payload(server_version, TICK_STRING, 6, 1, 62, raw) for raw in texts]
    padding = [text_payload(server_version, TICK_STRING, 6, 1, 84, "A")] * (nbytes // 16)
    decoded = decode(framed(*padding, *payloads, *payloads), server_version)
    assert [decoded.feed.texts[i] for i in decoded.rows["ticks"]["text"][-12:]] == [*texts.values()] * 2
    assert decoded.rows["ticks"]["text"][-12:-6].tolist() == decoded.rows["ticks"]["text"][-6:].tolist()


def test_protobuf_has_no_escapes() -> None:
    raw = rb"Soci\u00e9t\u00e9"
    decoded = decode(framed(protobuf_payload(TICK_STRING, int_field(2, 62), bytes_field(3, raw))), 226)
    assert_row(decoded, "ticks", text=raw.decode())


def test_equal_texts_share_an_id() -> None:
    payloads = [text_payload(176, TICK_STRING, 6, 1, 84, text) for text in ("A", "B", "A", "", "AB", "B")]
    ids = decode(framed(*payloads), 176).rows["ticks"]["text"].tolist()
    assert ids[0] == ids[2] != ids[1] == ids[5] != ids[4]
    assert ids[3] == 0
    assert len({*ids}) == 4


BAR_TIMES = (
    "1641561000",
    "20220107",
    "20220107 09:30:00",
    "20220107  09:30:00",
    "20220107 09:30:00 US/Eastern",
    "20220107 15:30:00 Europe/Berlin",
    "20220107-14:30:00",
    "20200229",
    "19700101",
    "",
)


@pytest.mark.parametrize("text", BAR_TIMES)
@pytest.mark.parametrize("zone_name", ["UTC", "America/New_York"])
def test_bar_times_are_read_as_everywhere_else(text: str, zone_name: str) -> None:
    """The decoder reads the usual forms by itself; it must not differ from `parse_bar_time`, in any zone."""
    zone = ZoneInfo(zone_name)
    feed = Feed(capacity=64)
    decoder = Decoder(feed, server_version=176, zone=zone)
    decoder.feed_bytes(framed(text_payload(176, BAR_UPDATE, 1, 7, text, 1, 1, 1, 1, 1, 1)))
    (row,) = feed.bars.reader(start="oldest").read()
    assert row["event_ns"] == (parse_bar_time(text, zone) if text else 0)


def test_rows_are_numbered_through_all_rings_in_the_order_of_the_stream() -> None:
    payloads = []
    for _ in range(3):
        for msg_id, values, _, _, _ in MESSAGES:
            payloads.append(message(176, msg_id, values).payload)
    decoded = decode(framed(*payloads), 176)
    numbers = sorted(int(seq) for ring in RINGS for seq in decoded.rows[ring]["seq"])
    assert numbers == list(range(1, len(numbers) + 1))
    assert decoded.feed.seq == len(numbers)
    for ring in RINGS:
        assert (np.diff(decoded.rows[ring]["seq"].astype(np.int64)) > 0).all()


def test_bound_requests_share_their_instrument_and_all_others_have_one() -> None:
    feed = Feed(capacity=64)
    aapl, msft = feed.add_instrument("AAPL", 265598), feed.add_instrument("MSFT", 272093)
    feed.bind(1, aapl)
    feed.bind(2, msft)
    feed.bind(3, aapl)
    payloads = [text_payload(176, TICK_SIZE, 6, req_id, VOLUME, 1) for req_id in (1, 2, 3, 4, 5, 4)]
    Decoder(feed, server_version=176).feed_bytes(framed(*payloads))
    rows = feed.ticks.reader(start="oldest").read()
    *bound, fourth, fifth, fourth_again = rows["instrument"].tolist()
    assert bound == [aapl, msft, aapl]
    assert fourth == fifth == fourth_again
    assert len({aapl, msft, fourth}) == 3


def test_only_the_embedded_tick_that_the_kind_names_counts() -> None:
    """Official clients read field 3 for a last and field 4 for a quote, wherever the other one stands."""
    last = bytes_field(3, int_field(1, 6) + double_field(3, 1.5))
    quote = bytes_field(4, int_field(1, 5) + double_field(3, 7.0) + double_field(4, 7.5))
    for contents in (last + quote, quote + last):
        decoded = decode(
            framed(*(protobuf_payload(TICK_BY_TICK, int_field(1, 1), int_field(2, kind), contents) for kind in (1, 3))),
            226,
        )
        trades, quotes = decoded.rows["trades"], decoded.rows["quotes"]
        assert (trades["price"].tolist(), trades["event_ns"].tolist()) == ([1.5], [6 * 10**9])
        assert (quotes["bid"].tolist(), quotes["ask"].tolist()) == ([7.0], [7.5])
