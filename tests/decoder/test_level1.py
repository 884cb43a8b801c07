"""What level 1 means beyond its ticks: the merged quote, trades, and the last-value table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast import Decoder, Feed, Kind
from tests.support.decoded import Decoded, assert_row, decode, equal
from tests.support.streams import (
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
    protobuf_payload,
    text_payload,
)

NAN = math.nan
BID_SIZE, BID, ASK, ASK_SIZE, LAST, LAST_SIZE, HIGH, LOW, VOLUME, CLOSE, OPEN = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14
DELAYED_BID, DELAYED_ASK, DELAYED_ASK_SIZE, DELAYED_LAST, DELAYED_LAST_SIZE = 66, 67, 70, 68, 71
DELAYED_HIGH, DELAYED_LOW, DELAYED_VOLUME, DELAYED_CLOSE, DELAYED_OPEN = 72, 73, 74, 75, 76
MARK, RT_VOLUME, RT_TRADE_VOLUME, HALTED, DELAYED_HALTED, MODEL_OPTION = 37, 48, 77, 49, 90, 13
ATTRIB_DELAYED = 0x100


def price(tick_type: int, price: object, size: object = "", req_id: int = 1) -> bytes:
    return text_payload(176, TICK_PRICE, 6, req_id, tick_type, price, size, 0)


def size(tick_type: int, size: object, req_id: int = 1) -> bytes:
    return text_payload(176, TICK_SIZE, 6, req_id, tick_type, size)


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
        assert_row(
            decoded,
            "quotes",
            kind=Kind.L1_QUOTE,
            event_ns=0,
            bid=last[0],
            ask=last[1],
            bid_size=last[2],
            ask_size=last[3],
            attribs=0,
        )
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
        price(LAST, "10.00", 100),
        size(LAST_SIZE, 100),
        size(LAST_SIZE, 200),
        price(LAST, "10.01", 50),
        size(LAST_SIZE, 50),
        size(LAST_SIZE, 50),
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
    for recv_ns, payload in enumerate(
        [
            price(BID, "10.00", 3),
            price(ASK, "10.02", 5),
            price(LAST, "10.01", 7),
            size(VOLUME, 1234),
            price(OPEN, "9"),
            price(HIGH, "11"),
            price(LOW, "8"),
            price(CLOSE, "9.5"),
            price(MARK, "10.015"),
            text_payload(176, TICK_GENERIC, 6, 1, HALTED, 1),
            text_payload(
                176, TICK_OPTION, 1, MODEL_OPTION, 0, "0.2", "0.5", "1.5", "0.1", "0.01", "0.2", "-0.3", "100"
            ),
            text_payload(176, TICK_OPTION, 1, 10, 0, "9", "9", "9", "9", "9", "9", "9", "9"),
        ],
        start=1,
    ):
        decoder.feed_bytes(framed(payload), recv_ns)
    wanted = {
        "bid": 10.0,
        "bid_size": 3.0,
        "ask": 10.02,
        "ask_size": 5.0,
        "quote_recv_ns": 2,
        "last": 10.01,
        "last_size": 7.0,
        "last_recv_ns": 3,
        "volume": 1234.0,
        "volume_recv_ns": 4,
        "open": 9.0,
        "high": 11.0,
        "low": 8.0,
        "close": 9.5,
        "session_recv_ns": 8,
        "mark": 10.015,
        "mark_recv_ns": 9,
        "halted": 1.0,
        "halted_recv_ns": 10,
        "implied_vol": 0.2,
        "delta": 0.5,
        "option_price": 1.5,
        "pv_dividend": 0.1,
        "gamma": 0.01,
        "vega": 0.2,
        "theta": -0.3,
        "und_price": 100.0,
        "greeks_recv_ns": 11,
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
    st.sampled_from((BID, ASK, BID_SIZE, ASK_SIZE)),
    st.sampled_from(("10", "10.01", "-1", "0")),
    st.sampled_from(("0", "1", "2.5", "-1", "")),
    st.integers(1, 2),
)
NO_DATA = {("-1", "0"), ("0", "0"), ("-1", "-1"), ("-1", "")}
"""Price and size, as IB sends them for "no data"."""


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
            is_no_data = (price_text, size_text) in NO_DATA
            book[side] = NAN if is_no_data else float(price_text)
        if size_text:
            book[f"{side}_size"] = NAN if size_text == "-1" else float(size_text)
        elif is_price and is_no_data:
            book[f"{side}_size"] = NAN
        if [repr(value) for value in book.values()] != before:
            wanted.append((req_id, *book.values()))
    rows = decode(framed(*payloads), 176).rows["quotes"]
    names = ("req_id", "bid", "ask", "bid_size", "ask_size")
    assert [[repr(row[name].item()) for name in names] for row in rows] == [list(map(repr, row)) for row in wanted]


def test_two_requests_on_one_instrument_do_not_mix() -> None:
    """Each gets its own quotes and trades, although the instrument is the same: every tick comes twice."""
    decoded = Decoded(176)
    instrument = decoded.feed.add_instrument("AAPL")
    for req_id in (1, 2):
        decoded.feed.bind(req_id, instrument)
    payloads = [price(BID, bid, 100, req_id) for bid in ("10", "11") for req_id in (1, 2)]
    payloads += [price(LAST, "10.5", 7, req_id) for req_id in (1, 2)]
    payloads += [size(LAST_SIZE, 7, req_id) for req_id in (1, 2)]
    decoded.give([framed(*payloads)])
    quotes, trades = decoded.rows["quotes"], decoded.rows["trades"]
    assert list(zip(quotes["req_id"].tolist(), quotes["bid"].tolist(), strict=True)) == [
        (1, 10.0), (2, 10.0), (1, 11.0), (2, 11.0),
    ]  # fmt: skip
    assert trades["req_id"].tolist() == [1, 2]
    assert set(quotes["instrument"].tolist()) == {instrument}


def test_a_last_size_before_any_last_price_is_no_trade() -> None:
    decoded = decode(framed(size(LAST_SIZE, 100), price(LAST, "10", 50), size(LAST_SIZE, 50)), 176)
    assert decoded.rows["trades"]["size"].tolist() == [50.0]


def test_request_ids_that_nobody_asked_for_take_one_instrument() -> None:
    decoded = Decoded(176)
    for req_id in range(5):
        decoded.give([framed(price(BID, "10", 1, req_id=req_id))])
        decoded.feed.forget_requests()
    assert list(decoded.feed.instruments) == ["unsolicited"]


def bound(sec_type: str, server_version: int = 176) -> Decoded:
    """Return a decoder whose request 1 is bound to an instrument of this type."""
    decoded = Decoded(server_version)
    decoded.feed.bind(1, decoded.feed.add_instrument("X"), sec_type)
    return decoded


def proto_price(tick_type: int, value: float, size_text: str | None = None) -> bytes:
    fields = int_field(1, 1) + int_field(2, tick_type) + double_field(3, value)
    return protobuf_payload(TICK_PRICE, fields + (b"" if size_text is None else bytes_field(4, size_text.encode())))


def trades(decoded: Decoded) -> list[tuple[float, float]]:
    return [(row["price"].item(), row["size"].item()) for row in decoded.rows["trades"]]


@pytest.mark.parametrize(("price_text", "size_text"), sorted(NO_DATA))
@pytest.mark.parametrize(
    ("bid", "ask", "last", "last_size"),
    [(BID, ASK, LAST, LAST_SIZE), (DELAYED_BID, DELAYED_ASK, DELAYED_LAST, DELAYED_LAST_SIZE)],
)
def test_no_data_is_neither_a_trade_nor_a_quote(
    bid: int, ask: int, last: int, last_size: int, price_text: str, size_text: str
) -> None:
    """The last price keeps its value, a quote has none, and `ticks` has what was sent."""
    payloads = [
        price(bid, "100.4", 2),
        price(ask, "100.6", 4),
        price(last, "100.5", 3),
        *(price(tick_type, price_text, size_text) for tick_type in (bid, ask, last)),
        size(last_size, size_text),
        size(last_size, "0"),
        size(last_size, "-1"),
        size(last_size, "5"),
    ]
    decoded = decode(framed(*payloads), 176)
    assert trades(decoded) == [(100.5, 3.0)]
    wanted_size = 0.0 if size_text == "0" else NAN
    assert_row(decoded, "quotes", bid=NAN, ask=NAN, bid_size=wanted_size, ask_size=wanted_size)
    row = decoded.feed.last[0]
    assert (row["last"], row["last_size"]) == (100.5, 3.0)
    assert all(np.isnan(row[name]) for name in ("bid", "ask"))
    assert decoded.rows["ticks"]["price"][3:6].tolist() == [float(price_text)] * 3
    sent = [float(text) if text else NAN for text in (size_text, size_text, size_text, size_text, "0", "-1", "5")]
    np.testing.assert_equal(decoded.rows["ticks"]["size"][3:], sent)
    decoded.give([framed(price(last, "100.7", 1), size(last_size, 1), size(last_size, 2))])
    assert trades(decoded)[1:] == [(100.7, 1.0), (100.7, 2.0)]


@pytest.mark.parametrize("sec_type", ["", "BAG", "STK"])
@pytest.mark.parametrize(
    ("price_text", "size_text"), [("-1", "12"), ("0", "12"), ("-37.63", "5"), ("-37.63", "0"), ("-2", "-1"), ("0", "")]
)
def test_true_prices_that_are_not_positive_stay(sec_type: str, price_text: str, size_text: str) -> None:
    payloads = [price(tick_type, price_text, size_text) for tick_type in (BID, ASK, LAST)]
    decoded = bound(sec_type).give([framed(*payloads)])
    value, wanted_size = float(price_text), float(size_text) if size_text not in ("", "-1") else NAN
    assert_row(decoded, "quotes", bid=value, ask=value, ask_size=wanted_size)
    assert_row(decoded, "trades", price=value, size=wanted_size)
    assert decoded.feed.last[0]["last"] == value


@pytest.mark.parametrize("value", ["-1", "0"])
@pytest.mark.parametrize("size_text", ["0", "-1", "", "3"])
def test_session_prices_of_minus_1_and_0_are_no_data_but_for_a_combo(value: str, size_text: str) -> None:
    """They come with a size of 0 at all times, so that their sizes say nothing. A combo's may be either."""
    types = {
        "open": (OPEN, DELAYED_OPEN),
        "high": (HIGH, DELAYED_HIGH),
        "low": (LOW, DELAYED_LOW),
        "close": (CLOSE, DELAYED_CLOSE),
        "mark": (MARK,),
    }
    for sec_type in ("", "STK", "IND", "BAG"):
        for name, tick_types in types.items():
            for tick_type in tick_types:
                decoded = bound(sec_type).give([framed(price(tick_type, "7.5", "0"))])
                assert decoded.feed.last[0][name] == 7.5
                decoded.give([framed(price(tick_type, value, size_text))])
                wanted = float(value) if sec_type == "BAG" else NAN
                assert equal(decoded.feed.last[0][name].item(), wanted), (sec_type, name)
                decoded.give([framed(price(tick_type, "-37.63", "0"))])
                assert decoded.feed.last[0][name] == -37.63


@pytest.mark.parametrize("sec_type", ["", "IND"])
@pytest.mark.parametrize("version", [176, 226])
def test_an_index_has_lasts_without_a_size(sec_type: str, version: int) -> None:
    """Its size is empty in text and absent in protobuf, and a size of 0 or none that follows is no trade."""
    decoded = bound(sec_type, version)
    if version == 226:
        payloads = [proto_price(LAST, 4594.45), proto_price(LAST, 4594.5)]
    else:
        payloads = [price(LAST, "4594.45"), size(LAST_SIZE, 0), size(LAST_SIZE, ""), price(LAST, "4594.5")]
    decoded.give([framed(*payloads)], recv_ns=9)
    np.testing.assert_equal(trades(decoded), [(4594.45, NAN), (4594.5, NAN)])
    row = decoded.feed.last[0]
    assert (row["last"], row["last_recv_ns"]) == (4594.5, 9)
    assert np.isnan(row["last_size"])


@pytest.mark.parametrize(("size_text", "wanted_size"), [("0", 0.0), ("-1", NAN), ("", NAN), ("3", 3.0)])
@pytest.mark.parametrize("value", ["-1", "0", "-212"])
def test_a_price_of_an_index_counts_whatever_its_size(value: str, size_text: str, wanted_size: float) -> None:
    """Indices of ticks and of advances pass through 0 and -1."""
    payloads = [price(tick_type, value, size_text) for tick_type in (BID, ASK, LAST)]
    decoded = bound("IND").give([framed(*payloads)])
    assert_row(decoded, "trades", price=float(value), size=wanted_size)
    assert_row(decoded, "quotes", bid=float(value), ask=float(value), bid_size=wanted_size, ask_size=wanted_size)
    assert decoded.feed.last[0]["last"] == float(value)


def test_a_last_without_a_price_is_no_trade() -> None:
    assert trades(decode(framed(price(LAST, "100", 1), price(LAST, ""), price(LAST, "", 0)), 176)) == [(100.0, 1.0)]
    for sec_type in ("IND", "BAG"):
        assert trades(bound(sec_type).give([framed(price(LAST, ""))])) == []


def test_a_binding_is_forgotten_with_its_kind_of_contract() -> None:
    decoded = bound("IND").give([framed(price(LAST, "-1", 0))])
    decoded.feed.forget_requests([1])
    decoded.feed.bind(1, 0, "STK")
    decoded.give([framed(price(LAST, "-1", 0))])
    assert trades(decoded) == [(-1.0, 0.0)]


@pytest.mark.parametrize("tick_type", [RT_VOLUME, RT_TRADE_VOLUME])
def test_time_and_sales_without_a_trade_change_the_volume_alone(tick_type: int) -> None:
    lines = (";0;1700000000000;500;10.5;false", "-1;0;1700000000000;501;10.5;false", "0;0;1700000000000;502;10.5;false")
    payloads = [text_payload(176, TICK_STRING, 6, 1, tick_type, line) for line in lines]
    decoded = decode(framed(price(LAST, "10", 1), *payloads), 176)
    assert trades(decoded) == [(10.0, 1.0)]
    assert (decoded.feed.last[0]["volume"], decoded.feed.last[0]["vwap"]) == (502.0, 10.5)
    line = "-1.5;3;1700000000000;503;10.5;true"
    decoded.give([framed(text_payload(176, TICK_STRING, 6, 1, tick_type, line))])
    assert trades(decoded)[1:] == [(-1.5, 3.0)]


def test_a_volume_of_minus_1_is_none() -> None:
    for tick_type in (VOLUME, DELAYED_VOLUME):
        decoded = decode(framed(size(tick_type, 5), size(tick_type, -1)), 176)
        assert np.isnan(decoded.feed.last[0]["volume"])
        assert decoded.rows["ticks"]["size"].tolist() == [5.0, -1.0]


def test_tick_by_tick_without_data() -> None:
    """The row has no such price, and the last price keeps its value; a true price has a size above 0."""

    def quote(bid: object, ask: object, bid_size: object, ask_size: object) -> bytes:
        return text_payload(176, TICK_BY_TICK, 1, 3, 1700000000, bid, ask, bid_size, ask_size, 0)

    def last(price_text: object, size_text: object) -> bytes:
        return text_payload(176, TICK_BY_TICK, 1, 1, 1700000000, price_text, size_text, 0, "NYSE", "")

    payloads = [
        quote(0, "-1", 0, "-1"), quote("-1", 10, 0, 5), quote("-1", 0, 7, 5), quote("9", "10", 1, 2),
        last("-1", 0), last(0, 0), last("-1", ""), last("-1", 4), last("10", 0), last("-1", 0),
        *(text_payload(176, TICK_BY_TICK, 1, 4, 1700000000, midpoint) for midpoint in ("-1", "-2")),
    ]  # fmt: skip
    decoded = decode(framed(*payloads), 176)
    quotes = [row.item() for row in decoded.rows["quotes"][["bid", "ask", "bid_size", "ask_size"]]]
    np.testing.assert_equal(
        quotes,
        [
            (NAN, NAN, 0.0, NAN),
            (NAN, 10.0, 0.0, 5.0),
            (-1.0, 0.0, 7.0, 5.0),
            (9.0, 10.0, 1.0, 2.0),
            (NAN,) * 4,
            (-2.0, -2.0, NAN, NAN),
        ],
    )
    np.testing.assert_equal(trades(decoded), [(NAN, 0.0), (NAN, 0.0), (NAN, NAN), (-1.0, 4.0), (10.0, 0.0), (NAN, 0.0)])
    assert decoded.feed.last[0]["last"] == 10.0
    assert (decoded.count, decoded.quarantine) == (len(payloads), [])
