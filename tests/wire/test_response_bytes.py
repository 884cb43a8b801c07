from __future__ import annotations

import contextlib
from datetime import UTC
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.errors import DecodeError, UnsupportedError
from ibfast.records import UNSET_DOUBLE, UNSET_INTEGER
from ibfast.sim import codec
from ibfast.wire import protobuf, responses
from ibfast.wire.ids import Incoming
from ibfast.wire.protobuf_ids import INCOMING_MESSAGES, INCOMING_PROTOBUF_SINCE
from ibfast.wire.response_bytes import decode, unreadable
from ibfast.wire.text import UNSET
from tests.support.message_samples import all_messages, normalized, official_calls
from tests.support.oracles import NEW_CLIENT, Oracle, OracleError
from tests.support.payloads import FIELDS, decoded, split_id
from tests.support.wire_samples import ALL_VERSIONS


@pytest.fixture(scope="module")
def official():
    with Oracle("oracle_client.py", NEW_CLIENT) as oracle:
        yield oracle


@settings(max_examples=600)
@given(message=all_messages, server_version=st.sampled_from(ALL_VERSIONS))
def test_values_are_those_that_the_official_client_shows(official, message, server_version):
    try:
        payload = codec.encode(message, server_version)
    except UnsupportedError:
        return
    _, _, is_protobuf = split_id(payload, server_version)
    shown = normalized(official.ask(ask="receive", server_version=server_version, payload=payload.hex()))
    assert shown == official_calls(decoded(payload, server_version), server_version, is_protobuf)


@settings(max_examples=200)
@given(msg_id=st.sampled_from(sorted(INCOMING_MESSAGES)), data=st.data())
def test_damaged_messages_are_decode_errors_or_messages(msg_id, data):
    is_protobuf = data.draw(st.booleans())
    body = data.draw(st.binary(max_size=80) | st.lists(st.sampled_from(FIELDS), max_size=30).map(b"".join))
    server_version = data.draw(st.sampled_from(ALL_VERSIONS))
    with contextlib.suppress(DecodeError):
        decode(msg_id, body, is_protobuf, server_version)


@settings(max_examples=300)
@given(message=all_messages, server_version=st.sampled_from(ALL_VERSIONS), data=st.data())
def test_a_message_that_ends_early_is_a_decode_error(message, server_version, data):
    try:
        payload = codec.encode(message, server_version)
    except UnsupportedError:
        return
    msg_id, body, is_protobuf = split_id(payload, server_version)
    if is_protobuf:
        return
    fields = body.split(b"\0")[:-1]
    kept = data.draw(st.integers(0, len(fields) - 1))
    with pytest.raises(DecodeError):
        decode(msg_id, b"".join(field + b"\0" for field in fields[:kept]), False, server_version)


@settings(max_examples=200)
@given(message=all_messages, server_version=st.sampled_from(ALL_VERSIONS))
def test_more_fields_than_known_are_tolerated(message, server_version):
    try:
        payload = codec.encode(message, server_version)
    except UnsupportedError:
        return
    msg_id, body, is_protobuf = split_id(payload, server_version)
    more = b"\xfa\x3e\x01x" if is_protobuf else b"more\0"
    known = decode(msg_id, body, is_protobuf, server_version)
    assert repr(decode(msg_id, body + more, is_protobuf, server_version)) == repr(known)


def test_layouts_of_errors():
    assert decode(4, b"2\0-1\x002104\0ok\0", False, 165) == responses.ErrorMessage(-1, 2104, "ok")
    assert decode(4, b"2\x007\x00201\0no\0{}\0", False, 193) == responses.ErrorMessage(7, 201, "no", "{}")
    newest = responses.ErrorMessage(7, 201, "no", "{}", 99)
    assert decode(4, b"7\x00201\0no\0{}\x0099\0", False, 194) == newest
    body = protobuf.encode("ErrorMessage", {"id": -1, "errorCode": 1100})
    assert decode(4, body, True, 226) == responses.ErrorMessage(-1, 1100, "")


def test_an_error_about_nothing_is_about_no_request():
    assert decode(4, b"", True, 226) == responses.ErrorMessage(-1, 0, "")


def test_error_texts_are_unescaped():
    assert decode(4, rb"2" + b"\0-1\x00200\0Soci\\u00e9t\\u00e9\0", False, 160).message == "Société"


def test_the_texts_that_the_official_client_unescapes(official):
    """It unescapes whole messages: what it has no method of its own for, TICK_EFP and the accounts among them."""
    efp = "47", "1", "7", "38", "0.5", r"\u00bd %", "0.25", "30", r"2026\u00b703", "0.1", "0.2"
    accounts = "15", "1", r"DU1,\u00c4B"
    for fields in (efp, accounts):
        payload = "".join(field + "\0" for field in fields).encode()
        shown = normalized(official.ask(ask="receive", server_version=176, payload=payload.hex()))
        assert "u00" not in repr(shown)
        assert shown == official_calls(decoded(payload, 176), 176, False)


def test_bars_tell_start_and_end_below_196():
    body = b"3\x00%s1\x0020240109\x001\x002\x000.5\x001.5\x00100\x001.2\x007\x00"
    old = decode(17, body % b"from\0to\0", False, 195)
    new = decode(17, body % b"", False, 196)
    assert (old.req_id, old.start, old.end) == (3, "from", "to")
    assert (new.req_id, new.start, new.end) == (3, "", "")
    assert old.bars.tobytes() == new.bars.tobytes()
    assert old.bars[0].item() == (1704758400 * 10**9, 1.0, 2.0, 0.5, 1.5, 100.0, 1.2, 7)


def test_bar_times_are_read_in_the_zone_given():
    body = b"3\x001\x0020240109 09:30:00\x001\x002\x000.5\x001.5\x00\x00\x007\x00"
    there = decode(17, body, False, 200, ZoneInfo("America/New_York")).bars["event_ns"][0]
    here = decode(17, body, False, 200, UTC).bars["event_ns"][0]
    assert there - here == 5 * 3600 * 10**9


def test_absent_prices_and_sizes_are_nan():
    body = protobuf.encode("HistoricalData", {"historicalDataBars": [{"date": "20240109"}]})
    message = decode(17, body, True, 226)
    assert message.req_id == -1
    np.testing.assert_equal(message.bars[0].item()[1:], (*[np.nan] * 6, -1))


@pytest.mark.parametrize("unset", sorted({"", "-1", str(2**127 - 1), *UNSET}))
@pytest.mark.parametrize("price", ["", "1.7976931348623157E308", "1.7976931348623157e+308"])
@pytest.mark.parametrize("count", ["", "-1", str(UNSET_INTEGER)])
def test_bars_without_prices_volume_wap_or_count(unset, price, count):
    """The bars of quotes have -1 for what only trades have, in both dialects."""
    fields = ["3", "1", "20240109", price, price, "-1", "0", unset, unset, count]
    body = "".join(field + "\0" for field in fields).encode()
    wanted = (np.nan, np.nan, -1.0, 0.0, np.nan, np.nan, -1)
    np.testing.assert_equal(decode(17, body, False, 200).bars[0].item()[1:], wanted)
    bar = {"date": "20240109", "low": -1.0, "close": 0.0, "volume": unset, "WAP": unset}
    bar |= {"open": UNSET_DOUBLE, "high": UNSET_DOUBLE} if price else {}
    bar |= {"barCount": int(count)} if count else {}
    body = protobuf.encode("HistoricalData", {"historicalDataBars": [bar]})
    np.testing.assert_equal(decode(17, body, True, 226).bars[0].item()[1:], wanted)


@pytest.mark.parametrize("unset", sorted({"", str(2**127 - 1), *UNSET}))
def test_unset_numbers_of_historical_ticks_are_nan(unset):
    names = {
        96: ("HistoricalTicks", "historicalTicks", {"price": UNSET_DOUBLE, "size": unset}),
        97: (
            "HistoricalTicksBidAsk",
            "historicalTicksBidAsk",
            {"priceBid": UNSET_DOUBLE, "priceAsk": UNSET_DOUBLE, "sizeBid": unset, "sizeAsk": unset},
        ),
        98: ("HistoricalTicksLast", "historicalTicksLast", {"price": UNSET_DOUBLE, "size": unset}),
    }
    prices = "1.7976931348623157E308\0"
    tails = {96: prices + f"{unset}\0", 97: prices * 2 + f"{unset}\0" * 2, 98: prices + f"{unset}\0A\0\0"}
    for msg_id, (message, field, values) in names.items():
        text = f"1\x001\x001700000000\x000\0{tails[msg_id]}1\0".encode()
        binary = protobuf.encode(message, {"reqId": 1, field: [{"time": 1700000000, **values}]})
        for message in (decode(msg_id, text, False, 200), decode(msg_id, binary, True, 226)):
            row = message.ticks[0]
            floats = [name for name in message.ticks.dtype.names if message.ticks.dtype[name].kind == "f"]
            assert len(floats) == len(values)
            assert all(np.isnan(row[name]) for name in floats), msg_id


def test_bits_of_historical_quotes_differ_between_text_and_records():
    ask_past_high = decode(97, b"1\x001\x001700000000\x001\x001\x002\x003\x004\x001\x00", False, 176)
    assert ask_past_high.ticks["attribs"].tolist() == [2]
    tick = {"time": 1700000000, "tickAttribBidAsk": {"askPastHigh": True}}
    body = protobuf.encode("HistoricalTicksBidAsk", {"historicalTicksBidAsk": [tick]})
    assert decode(97, body, True, 226).ticks["attribs"].tolist() == [2]


def test_expiry_splits_into_date_and_time():
    body = b"1\0ES\0FUT\x0020250620 08:30 US/Central\x00" + b"\0" * 60
    details = decode(10, body, False, 176).details
    assert (details.contract.last_trade_date, details.last_trade_time) == ("20250620", "08:30")
    bond = decode(18, b"1\0X\0BOND\0\x000\x0020301115-08:30-US/Central\0" + b"\0" * 60, False, 176).details
    assert (bond.maturity, bond.last_trade_time, bond.time_zone_id) == ("20301115", "08:30", "US/Central")


def test_contract_data_without_a_contract_is_malformed():
    body = protobuf.encode("ContractData", {"reqId": 1})
    with pytest.raises(DecodeError, match="no contract") as caught:
        decode(10, body, True, 226)
    assert (caught.value.msg_id, caught.value.payload, caught.value.field) == (10, body, "contract")


def test_a_bar_without_a_time_is_malformed():
    with pytest.raises(DecodeError, match="not a time"):
        decode(17, protobuf.encode("HistoricalData", {"historicalDataBars": [{}]}), True, 226)


def test_numbers_that_do_not_fit_are_malformed():
    with pytest.raises(DecodeError):
        decode(96, b"1\x001\x0099999999999999\x000\x001\x002\x001\x00", False, 176)
    with pytest.raises(DecodeError):
        decode(17, b"3\x001\x0020240109\x001\x002\x000.5\x001.5\x00100\x001\x0099999999999\x00", False, 200)


def test_other_messages_keep_all_their_fields():
    assert decode(77, b"1\x002\0a\0\0", False, 176) == responses.Other(77, ("1", "2", "a", ""))
    values = {"reqId": 1, "softDollarTiers": [{"name": "a", "value": "b"}]}
    body = protobuf.encode("SoftDollarTiers", values)
    assert decode(77, body, True, 226) == responses.Other(77, values)
    assert decode(199, b"\x08\x01", True, 226) == responses.Other(199, {"body": b"\x08\x01"})


def test_an_empty_protobuf_body_is_valid():
    for msg_id in INCOMING_PROTOBUF_SINCE:
        if msg_id not in (Incoming.CONTRACT_DATA, Incoming.BOND_CONTRACT_DATA):
            decode(msg_id, b"", True, 226)
    assert decode(58, b"", True, 226) == responses.MarketDataTypeMessage(-1, UNSET_INTEGER)


def test_the_official_client_gives_up_where_we_do(official):
    with pytest.raises(OracleError):
        official.ask(ask="receive", server_version=176, payload=b"96\x001\x002\x00".hex())
    with pytest.raises(DecodeError):
        decode(96, b"1\x002\x00", False, 176)


BAD_BAR = b"3\x001\x00%s\x001\x002\x000.5\x001.5\x00100\x001.2\x00%s\x00"


@pytest.mark.parametrize(
    ("msg_id", "body", "version", "expected"),
    [
        (17, BAD_BAR % (b"0714 09:30:00", b"7"), 200, (3, "HISTORICAL_DATA", "date", "0714 09:30:00")),
        (17, BAD_BAR % (b"20240109", b"99999999999"), 200, (3, "HISTORICAL_DATA", "count", "99999999999")),
        (17, BAD_BAR % (b"20240109", b"seven"), 200, (3, "HISTORICAL_DATA", "count", "seven")),
        (17, b"3\x009\x00", 200, (3, "HISTORICAL_DATA", "bars", "9")),
        (17, b"3\x001\x0020240109", 200, (3, "HISTORICAL_DATA", "", "")),
        (17, b"x\x001\x00", 200, (-1, "HISTORICAL_DATA", "req_id", "x")),
        (10, b"8\x005\x00", 157, (5, "CONTRACT_DATA", "symbol", "")),
        (10, b"5\x00", 176, (5, "CONTRACT_DATA", "symbol", "")),
        (18, b"5\x00", 176, (5, "BOND_CONTRACT_DATA", "symbol", "")),
        (52, b"1\x005", 157, (-1, "CONTRACT_DATA_END", "", "")),
        (79, b"5\x00-1\x00", 176, (5, "SYMBOL_SAMPLES", "samples", "-1")),
        (88, b"5\x00", 176, (5, "HEAD_TIMESTAMP", "timestamp", "")),
        (98, b"5\x001\x00now\x00" + b"0\0" * 5, 176, (5, "HISTORICAL_TICKS_LAST", "time", "now")),
        (4, b"2\x005\x00E\x00text\x00", 165, (5, "ERR_MSG", "code", "E")),
        (4, b"5\x00E\x00text\x00", 200, (5, "ERR_MSG", "code", "E")),
        (49, b"1\x00noon\x00", 176, (-1, "CURRENT_TIME", "time_s", "noon")),
        (9, b"1\x00a\x00", 176, (-1, "NEXT_VALID_ID", "order_id", "a")),
    ],
)
def test_what_can_t_be_read_names_message_field_and_value_and_its_request(msg_id, body, version, expected):
    with pytest.raises(DecodeError) as caught:
        decode(msg_id, body, False, version)
    error = caught.value
    message = unreadable(error, False, version)
    assert (message.req_id, error.message, error.field, error.value) == expected
    assert message == responses.Unreadable(msg_id, expected[0], error)
    assert all(part in str(error) for part in (error.message, error.field, error.value))


@settings(max_examples=300)
@given(message=all_messages, server_version=st.sampled_from(ALL_VERSIONS), data=st.data())
def test_the_request_of_a_message_is_found_wherever_it_is_still_there(message, server_version, data):
    if not hasattr(message, "req_id"):
        return
    try:
        msg_id, body, is_protobuf = split_id(codec.encode(message, server_version), server_version)
    except UnsupportedError:
        return
    error = DecodeError("", msg_id, body + (b"\x0f" if is_protobuf else b"half"))
    assert unreadable(error, is_protobuf, server_version).req_id == message.req_id


def test_malformed_protobuf_names_the_field_and_its_request():
    body = protobuf.encode("HistoricalData", {"reqId": 7, "historicalDataBars": [{"date": "20240109"}]})
    for damaged in (body[:-1], body + b"\x12\x7f"):
        with pytest.raises(DecodeError) as caught:
            decode(17, damaged, True, 226)
        assert (caught.value.message, caught.value.field) == ("HISTORICAL_DATA", "historicalDataBars")
        assert unreadable(caught.value, True, 226).req_id == 7
    bar = {"date": "20240109", "volume": "1,000"}
    with pytest.raises(DecodeError) as caught:
        decode(17, protobuf.encode("HistoricalData", {"reqId": 7, "historicalDataBars": [bar]}), True, 226)
    assert (caught.value.field, caught.value.value) == ("volume", "1,000")
