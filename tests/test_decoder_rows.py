"""Message by message: the rows that it makes, in every dialect the same, and what they do to quotes and last values."""

from __future__ import annotations

import math
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import (
    BAR_UPDATE,
    MARKET_DEPTH,
    MARKET_DEPTH_L2,
    REAL_TIME_BAR,
    RINGS,
    TICK_BY_TICK,
    TICK_GENERIC,
    TICK_OPTION,
    TICK_PRICE,
    TICK_SIZE,
    TICK_STRING,
    Decoded,
    bytes_field,
    decode,
    double_field,
    framed,
    int_field,
    message,
    protobuf_payload,
    text_payload,
)

from ibfast import Decoder, Feed, Kind
from ibfast.times import parse_bar_time

NAN = math.nan
NS_PER_S = 10**9
ATTRIB_DELAYED = 0x100
DIALECTS = ((176, False), (201, False), (226, True))
BID_SIZE, BID, ASK, ASK_SIZE, LAST, LAST_SIZE, HIGH, LOW, VOLUME, CLOSE, OPEN = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14
DELAYED_BID, DELAYED_ASK_SIZE, DELAYED_LAST = 66, 70, 68
MARK, HALTED, DELAYED_HALTED, MODEL_OPTION = 37, 49, 90, 13

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
      "volume": -1.0, "wap": -1.0, "count": -1}),
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


def equal(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def columns(decoded: Decoded, ring: str, index: int = -1) -> dict[str, Any]:
    """Return one row as a dictionary, texts in the place of their ids."""
    row = decoded.rows[ring][index]
    texts = ("text", "exchange", "conditions", "market_maker")
    return {name: decoded.feed.texts[row[name]] if name in texts else row[name].item() for name in row.dtype.names}


def assert_row(decoded: Decoded, ring: str, index: int = -1, **wanted: Any) -> None:
    row = columns(decoded, ring, index)
    assert {name: row[name] for name in wanted if not equal(row[name], wanted[name])} == {}, row


def price(tick_type: int, price: object, size: object = "", req_id: int = 1) -> bytes:
    return text_payload(176, TICK_PRICE, 6, req_id, tick_type, price, size, 0)


def size(tick_type: int, size: object, req_id: int = 1) -> bytes:
    return text_payload(176, TICK_SIZE, 6, req_id, tick_type, size)


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
    assert_row(decoded, "trades", kind=Kind.RT_VOLUME, event_ns=1348075471534 * 10**6, price=701.28, size=1.5,
               attribs=1, exchange="", conditions="", req_id=7)
    last = decoded.feed.last[0]
    assert (last["last"], last["last_size"], last["last_event_ns"]) == (701.28, 1.5, 1348075471534 * 10**6)
    assert (last["volume"], last["vwap"], last["volume_recv_ns"]) == (67854.0, 701.46918464, 9)


def test_rt_volume_without_a_price() -> None:
    decoded = decode(framed(text_payload(176, TICK_STRING, 6, 1, 48, ";0;1348075471534;67854;701.46918464;false")), 176)
    assert_row(decoded, "ticks", price=NAN, size=0.0)
    assert_row(decoded, "trades", price=NAN, size=0.0, attribs=0)


def test_what_protobuf_leaves_out_is_absent_and_not_zero() -> None:
    empty = {
        TICK_PRICE: b"", TICK_SIZE: b"", TICK_GENERIC: b"", TICK_STRING: b"", TICK_OPTION: b"", REAL_TIME_BAR: b"",
        MARKET_DEPTH: bytes_field(2, b""), MARKET_DEPTH_L2: bytes_field(2, b""), BAR_UPDATE: bytes_field(2, b""),
    }
    decoded = decode(framed(*(protobuf_payload(msg_id, body) for msg_id, body in empty.items())), 226)
    assert decoded.quarantine == []
    for index, kind in enumerate((Kind.PRICE, Kind.SIZE, Kind.GENERIC, Kind.STRING)):
        assert_row(decoded, "ticks", index, kind=kind, req_id=-1, tick_type=-1, attribs=0, price=NAN, size=NAN, text="")
    for index, kind in enumerate((Kind.DEPTH, Kind.DEPTH_L2)):
        assert_row(decoded, "depth", index, kind=kind, req_id=-1, position=-1, operation=255, side=255, price=NAN,
                   size=NAN, market_maker="", attribs=0)
    for index, kind in enumerate((Kind.REALTIME_BAR, Kind.UPDATE_BAR)):
        assert_row(decoded, "bars", index, kind=kind, req_id=-1, event_ns=0, open=NAN, high=NAN, low=NAN, close=NAN,
                   volume=NAN, wap=NAN, count=0)
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


def test_equal_texts_share_an_id() -> None:
    payloads = [text_payload(176, TICK_STRING, 6, 1, 84, text) for text in ("A", "B", "A", "", "AB", "B")]
    ids = decode(framed(*payloads), 176).rows["ticks"]["text"].tolist()
    assert ids[0] == ids[2] != ids[1] == ids[5] != ids[4]
    assert ids[3] == 0
    assert len({*ids}) == 4


BAR_TIMES = ("1641561000", "20220107", "20220107 09:30:00", "20220107  09:30:00", "20220107 09:30:00 US/Eastern",
             "20220107 15:30:00 Europe/Berlin", "20220107-14:30:00", "20200229", "19700101", "")


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


def test_bound_requests_share_their_instrument_and_others_get_their_own() -> None:
    feed = Feed(capacity=64)
    aapl, msft = feed.add_instrument("AAPL", 265598), feed.add_instrument("MSFT", 272093)
    feed.bind(1, aapl)
    feed.bind(2, msft)
    feed.bind(3, aapl)
    Decoder(feed, server_version=176).feed_bytes(framed(*(size(VOLUME, 1, req_id) for req_id in (1, 2, 3, 4, 5, 4))))
    rows = feed.ticks.reader(start="oldest").read()
    *bound, fourth, fifth, fourth_again = rows["instrument"].tolist()
    assert bound == [aapl, msft, aapl]
    assert fourth == fourth_again
    assert len({aapl, msft, fourth, fifth}) == 4


def test_quotes_are_merged_from_level_1() -> None:
    decoded = Decoded(176)
    nothing: tuple[float, ...] = (NAN, NAN, NAN, NAN)
    steps = [
        # message, (bid, ask, bid_size, ask_size) of the new row, or None where nothing changed
        (price(BID, "10.00", 3), (10.0, NAN, 3.0, NAN)),
        (size(BID_SIZE, 3), None),
        (price(ASK, "10.02", 5), (10.0, 10.02, 3.0, 5.0)),
        (size(ASK_SIZE, 5), None),
        (size(ASK_SIZE, 7), (10.0, 10.02, 3.0, 7.0)),
        (price(BID, "10.00", 3), None),
        (price(BID, "10.01"), (10.01, 10.02, 3.0, 7.0)),
        (size(BID_SIZE, "0.5"), (10.01, 10.02, 0.5, 7.0)),
        (size(BID_SIZE, ""), None),
        (price(HIGH, "11"), None),
        (size(VOLUME, 1000), None),
        (price(ASK, "-1", 0), (10.01, NAN, 0.5, 0.0)),
        (price(ASK, "-1", 4), (10.01, -1.0, 0.5, 4.0)),
    ]
    last = nothing
    for index, (payload, wanted) in enumerate(steps):
        before = len(decoded.rows["quotes"])
        decoded.give([framed(payload)], recv_ns=index)
        assert len(decoded.rows["quotes"]) - before == (wanted is not None), index
        last = wanted or last
        assert_row(decoded, "quotes", kind=Kind.L1_QUOTE, event_ns=0, bid=last[0], ask=last[1], bid_size=last[2],
                   ask_size=last[3], attribs=0)
    assert len(decoded.rows["ticks"]) == len(steps)
    table = decoded.feed.last[0]
    assert all(map(equal, table[["bid", "ask", "bid_size", "ask_size"]].item(), last))


def test_quotes_of_two_instruments_do_not_mix() -> None:
    payloads = [price(BID, "1", 1, req_id=1), price(BID, "2", 2, req_id=2), price(ASK, "3", 3, req_id=1)]
    decoded = decode(framed(*payloads), 176)
    assert_row(decoded, "quotes", 1, bid=2.0, ask=NAN, bid_size=2.0, ask_size=NAN)
    assert_row(decoded, "quotes", 2, bid=1.0, ask=3.0, bid_size=1.0, ask_size=3.0)


def test_delayed_quotes_are_marked() -> None:
    decoded = decode(framed(price(DELAYED_BID, "10", 3), size(DELAYED_ASK_SIZE, 4), price(BID, "10", 3)), 176)
    assert decoded.rows["quotes"]["attribs"].tolist() == [ATTRIB_DELAYED, ATTRIB_DELAYED, 0]
    decoded = decode(framed(price(DELAYED_LAST, "10", 3)), 176)
    assert_row(decoded, "trades", kind=Kind.L1_LAST, attribs=ATTRIB_DELAYED, price=10.0, size=3.0)


def test_level_1_lasts_are_trades_and_their_echo_is_none() -> None:
    """TWS sends the size of a last price a second time, as a tick; a trade at the same price is a size tick alone."""
    payloads = [
        price(LAST, "10.00", 100), size(LAST_SIZE, 100),
        size(LAST_SIZE, 200),
        price(LAST, "10.01", 50), size(LAST_SIZE, 50), size(LAST_SIZE, 50),
    ]
    decoded = decode(framed(*payloads), 176)
    rows = decoded.rows["trades"]
    assert set(rows["kind"].tolist()) == {Kind.L1_LAST}
    assert rows["price"].tolist() == [10.0, 10.0, 10.01, 10.01]
    assert rows["size"].tolist() == [100.0, 200.0, 50.0, 50.0]
    assert rows["event_ns"].tolist() == [0, 0, 0, 0]


def test_an_unbound_request_starts_anew_after_a_reconnect() -> None:
    """No merged quote survives `forget_requests`: a new connection's first bid must not stand beside the old ask."""
    decoded = Decoded(176).give([framed(price(BID, "10", 3), price(ASK, "11", 4))])
    decoded.feed.forget_requests()
    decoded.give([framed(price(BID, "20", 5))])
    assert_row(decoded, "quotes", bid=20.0, ask=NAN, bid_size=5.0, ask_size=NAN)


def test_the_last_value_table() -> None:
    feed = Feed(capacity=64)
    decoder = Decoder(feed, server_version=176)
    before = feed.last[0]
    assert all(np.isnan(before[name]) for name in before.dtype.names if before.dtype[name] == np.float64)
    for recv_ns, payload in enumerate([
        price(BID, "10.00", 3), price(ASK, "10.02", 5), price(LAST, "10.01", 7), size(VOLUME, 1234), price(OPEN, "9"),
        price(HIGH, "11"), price(LOW, "8"), price(CLOSE, "9.5"), price(MARK, "10.015"),
        text_payload(176, TICK_GENERIC, 6, 1, HALTED, 1),
        text_payload(176, TICK_OPTION, 1, MODEL_OPTION, 0, "0.2", "0.5", "1.5", "0.1", "0.01", "0.2", "-0.3", "100"),
        text_payload(176, TICK_OPTION, 1, 10, 0, "9", "9", "9", "9", "9", "9", "9", "9"),
    ], start=1):
        decoder.feed_bytes(framed(payload), recv_ns)
    wanted = {
        "bid": 10.0, "bid_size": 3.0, "ask": 10.02, "ask_size": 5.0, "quote_recv_ns": 2,
        "last": 10.01, "last_size": 7.0, "last_recv_ns": 3, "volume": 1234.0, "volume_recv_ns": 4,
        "open": 9.0, "high": 11.0, "low": 8.0, "close": 9.5, "session_recv_ns": 8, "mark": 10.015, "mark_recv_ns": 9,
        "halted": 1.0, "halted_recv_ns": 10, "implied_vol": 0.2, "delta": 0.5, "option_price": 1.5, "pv_dividend": 0.1,
        "gamma": 0.01, "vega": 0.2, "theta": -0.3, "und_price": 100.0, "greeks_recv_ns": 11,
    }
    row = feed.last[0]
    assert {name: row[name].item() for name in wanted} == wanted
    assert row["version"] % 2 == 0
    assert feed.last["bid"][0] == 10.0


def test_halted_ticks_that_nobody_asked_for() -> None:
    for tick_type in (HALTED, DELAYED_HALTED):
        feed = Feed(capacity=64)
        Decoder(feed, server_version=176).feed_bytes(framed(text_payload(176, TICK_GENERIC, 6, 1, tick_type, 2)), 5)
        assert (feed.last[0]["halted"], feed.last[0]["halted_recv_ns"]) == (2.0, 5)


LEVEL1_TICKS = st.tuples(
    st.sampled_from((BID, ASK, BID_SIZE, ASK_SIZE)), st.sampled_from(("10", "10.01", "-1", "0")),
    st.sampled_from(("0", "1", "2.5", "")), st.integers(1, 2),
)


@settings(deadline=None)
@given(st.lists(LEVEL1_TICKS, max_size=40))
def test_the_merged_quote_is_what_a_plain_model_says(ticks: list[tuple[int, str, str, int]]) -> None:
    books: dict[int, dict[str, float]] = {}
    wanted = []
    payloads = []
    for tick_type, price_text, size_text, req_id in ticks:
        is_price = tick_type in (BID, ASK)
        tick = price(tick_type, price_text, size_text, req_id) if is_price else size(tick_type, size_text, req_id)
        payloads.append(tick)
        book = books.setdefault(req_id, dict.fromkeys(("bid", "ask", "bid_size", "ask_size"), NAN))
        side = "bid" if tick_type in (BID, BID_SIZE) else "ask"
        before = [repr(value) for value in book.values()]
        if is_price:
            book[side] = NAN if (float(price_text), size_text) == (-1, "0") else float(price_text)
        if size_text:
            book[f"{side}_size"] = float(size_text)
        if [repr(value) for value in book.values()] != before:
            wanted.append((req_id, *book.values()))
    rows = decode(framed(*payloads), 176).rows["quotes"]
    names = ("req_id", "bid", "ask", "bid_size", "ask_size")
    assert [[repr(row[name].item()) for name in names] for row in rows] == [list(map(repr, row)) for row in wanted]
