"""A feed in this process: its records, its tables, its bounds, and its rows in other libraries' hands."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import threading
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ibfast
from ibfast import Contract, Decoder, Feed, Kind, TickType
from ibfast.contracts import ComboLeg, Stock
from ibfast.errors import FeedError
from ibfast.feed.feed import ACTIVITY, NO_INSTRUMENT, RINGS, FeedView
from ibfast.records import GapCause, Scope
from ibfast.wire.ids import Incoming
from tests.support.decoded import Decoded
from tests.support.streams import (
    TICK_BY_TICK,
    TICK_GENERIC,
    TICK_OPTION,
    TICK_PRICE,
    TICK_SIZE,
    TICK_STRING,
    framed,
    text_payload,
)
from tests.support.tick_streams import random_messages

VERSION = 176
HEADER = ["seq", "recv_ns", "instrument", "req_id", "kind"]
SOURCES = Path(ibfast.__file__).parent


def feed_of(*payloads: bytes, recv_ns: int = 0, instruments: int = 0, **bounds: Any) -> tuple[Feed, Decoder]:
    """Return a feed with these messages in it; requests 1, 2, … have instruments of their own, so many."""
    feed = Feed(capacity=1 << 6, **bounds)
    for req_id in range(1, instruments + 1):
        feed.bind(req_id, feed.add_instrument(f"X{req_id}"))
    decoder = Decoder(feed, server_version=VERSION)
    decoder.feed_bytes(framed(*payloads), recv_ns)
    return feed, decoder


def price(req_id: int, tick_type: int, value: object, size: object = "", attribs: int = 0) -> bytes:
    return text_payload(VERSION, TICK_PRICE, 6, req_id, tick_type, value, size, attribs)


def size(req_id: int, tick_type: int, value: object) -> bytes:
    return text_payload(VERSION, TICK_SIZE, 6, req_id, tick_type, value)


def last_trade(req_id: int, value: float, exchange: str = "") -> bytes:
    return text_payload(VERSION, TICK_BY_TICK, req_id, 1, 1_700_000_000, value, 100, 0, exchange, "")


def rows_of(feed: FeedView, ring: str) -> Any:
    return getattr(feed, ring).reader(start="oldest").read()


# --- records ---


@pytest.mark.parametrize("ring", RINGS)
def test_every_record_begins_with_the_same_header(ring: str) -> None:
    dtype = Feed.dtypes[ring]
    assert list(dtype.names or ())[:5] == HEADER
    assert [dtype.fields[name] for name in HEADER] == [
        (np.dtype("u8"), 0), (np.dtype("i8"), 8), (np.dtype("u4"), 16), (np.dtype("i4"), 20), (np.dtype("u1"), 24),
    ]  # fmt: skip
    assert dtype.itemsize % 8 == 0
    for field, offset in dtype.fields.values():
        assert offset % field.itemsize == 0


def test_ticks_and_trades_fit_a_cache_line() -> None:
    assert (Feed.dtypes["ticks"].itemsize, Feed.dtypes["trades"].itemsize) == (64, 64)


def test_a_feeds_rings_have_its_dtypes() -> None:
    feed = Feed(capacity=2)
    assert list(feed.rings) == list(RINGS)
    for name, ring in feed.rings.items():
        assert ring is getattr(feed, name)
        assert ring.dtype == Feed.dtypes[name]
        assert (ring.capacity, ring.published) == (2, 0)


C_NAME = re.compile(r"^ {4}([A-Z][A-Z0-9_]*) = (\d+)$", re.MULTILINE)


@pytest.mark.parametrize(
    ("file", "prefix", "enum", "count"),
    [
        ("_records.pxd", "KIND_", Kind, len(Kind)),
        ("_messages.pxd", "IN_", Incoming, 10),
        ("_feed.pxd", "TICK_", TickType, 31),
    ],
)
def test_the_numbers_of_c_and_python_agree(file: str, prefix: str, enum: type[IntEnum], count: int) -> None:
    pairs = C_NAME.findall(next(SOURCES.rglob(file)).read_text())
    numbers = {name.removeprefix(prefix): int(value) for name, value in pairs if name.startswith(prefix)}
    assert numbers == {name: enum[name] for name in numbers}
    assert len(numbers) == count


# --- instruments and requests ---


def test_instruments_are_numbered_as_they_come() -> None:
    feed = Feed(capacity=2)
    made = [feed.add_instrument("AAPL", 265598), feed.add_instrument("MSFT"), feed.add_instrument("AAPL", 5, "CBOE")]
    assert made == [0, 1, 2]
    assert list(feed.instruments) == ["AAPL", "MSFT", "AAPL"]
    assert [feed.instruments.con_id(i) for i in range(3)] == [265598, 0, 5]
    assert [feed.instruments.exchange(i) for i in range(3)] == ["", "", "CBOE"]
    assert (feed.instruments.index("AAPL"), feed.instruments.index("MSFT")) == (2, 1)
    with pytest.raises(KeyError):
        feed.instruments.index("IBM")
    with pytest.raises(KeyError):
        feed.instruments.index("AAPL", "IEX")
    for wrong in (-1, 3):
        with pytest.raises(IndexError):
            feed.instruments[wrong]
        with pytest.raises(IndexError):
            feed.instruments.con_id(wrong)


def test_rows_belong_to_the_instrument_of_their_request() -> None:
    feed, decoder = feed_of()
    apple, microsoft = feed.add_instrument("AAPL"), feed.add_instrument("MSFT")
    for req_id in (7, -3, 2_000_000_000):
        feed.bind(req_id, apple)
    feed.bind(8, microsoft)
    decoder.feed_bytes(framed(*(last_trade(req_id, 1.5) for req_id in (8, 7, -3, 2_000_000_000))))
    feed.bind(8, apple)
    decoder.feed_bytes(framed(last_trade(8, 1.5)))
    assert rows_of(feed, "trades")["instrument"].tolist() == [microsoft, apple, apple, apple, apple]
    assert feed.core.instrument_of_request(8) == apple
    with pytest.raises(FeedError, match="no instrument 2"):
        feed.bind(9, 2)


def test_all_requests_that_nobody_bound_share_one_instrument() -> None:
    feed, decoder = feed_of(last_trade(1, 1.5), last_trade(5, 2.5), last_trade(-1, 3.5), instruments=1)
    assert rows_of(feed, "trades")["instrument"].tolist() == [0, 1, 1]
    decoder.feed_bytes(
        framed(*(price(req_id, TickType.BID, req_id, 5) for req_id in (5, 6)), price(5, TickType.ASK, 7, 1))
    )
    quotes = rows_of(feed, "quotes")
    assert quotes["instrument"].tolist() == [1, 1, 1]
    np.testing.assert_equal(quotes[["bid", "ask"]].tolist(), [(5, np.nan), (6, np.nan), (5, 7)])
    assert list(feed.instruments) == ["X1", "unsolicited"]
    assert feed.activity([5, 6])["messages"].tolist() == [3, 1]


def test_ids_that_nobody_bound_take_a_bounded_part_of_the_request_table() -> None:
    feed, decoder = feed_of(*(last_trade(req_id, 1.5) for req_id in range(10, 16)), max_instruments=4, instruments=1)
    assert rows_of(feed, "trades")["instrument"].tolist() == [1] * 4 + [NO_INSTRUMENT] * 2
    feed.forget_requests([10])
    feed.bind(11, 0)
    decoder.feed_bytes(framed(*(last_trade(req_id, 1.5) for req_id in (11, 14, 15, 10))))
    assert rows_of(feed, "trades")["instrument"][6:].tolist() == [0, 1, 1, NO_INSTRUMENT]
    feed.forget_requests()
    decoder.feed_bytes(framed(*(last_trade(req_id, 1.5) for req_id in range(20, 24))))
    assert rows_of(feed, "trades")["instrument"][10:].tolist() == [1] * 4
    assert feed.instruments.refused == 3


def test_thousands_of_requests() -> None:
    feed = Feed(capacity=1 << 13, max_instruments=5_000)
    decoder = Decoder(feed, server_version=VERSION)
    req_ids = [n * 4096 for n in range(5_000)]
    for req_id in req_ids:
        feed.bind(req_id, feed.add_instrument(f"X{req_id}"))
    decoder.feed_bytes(framed(*(last_trade(req_id, 1.5) for req_id in req_ids)))
    assert rows_of(feed, "trades")["instrument"].tolist() == list(range(5_000))


def test_forgotten_requests_are_bound_to_nothing_and_quotes_start_anew() -> None:
    feed, decoder = feed_of()
    apple = feed.add_instrument("AAPL")
    feed.bind(1, apple)
    decoder.feed_bytes(framed(price(1, TickType.BID, 10, 5), price(1, TickType.ASK, 11, 6)))
    feed.forget_requests()
    assert feed.core.instrument_of_request(1) is None
    feed.bind(2, apple)
    decoder.feed_bytes(framed(price(2, TickType.ASK, 12, 7), last_trade(1, 1.5)))
    quote = rows_of(feed, "quotes")[-1]
    assert np.isnan([quote["bid"], quote["bid_size"]]).all()
    assert (quote["ask"], quote["ask_size"], quote["instrument"]) == (12, 7, apple)
    assert feed.instruments[rows_of(feed, "trades")["instrument"][-1]] == "unsolicited"


def test_a_full_instrument_table_is_told_once_and_counted() -> None:
    messages = [last_trade(req_id, req_id + 0.5) for req_id in (1, 2, 3, 4, 1, 3)]
    messages += [price(5, TickType.BID, 10, 1), text_payload(VERSION, TICK_GENERIC, 6, 5, TickType.HALTED, 1)]
    messages += [text_payload(VERSION, TICK_OPTION, 5, TickType.MODEL_OPTION, 0, *["0.5"] * 8)]
    messages += [text_payload(VERSION, TICK_STRING, 6, 5, TickType.RT_VOLUME, "1;2;3;4;5;true")]
    feed, decoder = feed_of(*messages, max_instruments=2, instruments=2)
    trades = rows_of(feed, "trades")
    assert trades["instrument"].tolist() == [0, 1, NO_INSTRUMENT, NO_INSTRUMENT, 0, NO_INSTRUMENT, NO_INSTRUMENT]
    assert trades["price"].tolist() == [1.5, 2.5, 3.5, 4.5, 1.5, 3.5, 1.0]
    assert rows_of(feed, "ticks")["instrument"].tolist() == [NO_INSTRUMENT] * 3
    assert rows_of(feed, "greeks")["instrument"].tolist() == [NO_INSTRUMENT]
    assert feed.instruments.refused == 7
    (told,) = decoder.take_quarantine()
    assert "all 2 instruments are taken" in told.reason
    decoder.feed_bytes(framed(last_trade(9, 1.5)))
    assert decoder.take_quarantine() == []
    assert (feed.instruments.refused, decoder.quarantined) == (8, 0)
    with pytest.raises(FeedError, match="all 2 instruments are taken"):
        feed.add_instrument("IBM")
    assert len(feed.instruments) == 2


def test_single_requests_are_forgotten_and_the_others_are_not() -> None:
    feed, decoder = feed_of()
    apple = feed.add_instrument("AAPL")
    for req_id in (1, 2, 3):
        feed.bind(req_id, apple)
    decoder.feed_bytes(framed(*(price(req_id, TickType.BID, 10 + req_id, 5) for req_id in (1, 2, 3))))
    feed.forget_requests([2, 77])
    assert [feed.core.instrument_of_request(req_id) for req_id in (1, 2, 3)] == [apple, None, apple]
    assert feed.activity([1, 2, 3])["messages"].tolist() == [1, 0, 1]
    feed.bind(2, apple)
    decoder.feed_bytes(framed(*(price(req_id, TickType.ASK, 20, 6) for req_id in (1, 2, 3))))
    np.testing.assert_equal(rows_of(feed, "quotes")["bid"][-3:], [11, np.nan, 13])


def place(req_id: int) -> int:
    """Where a request belongs in the smallest request table, of 1024 slots."""
    return (req_id * 2654435769 & 0xFFFFFFFF) >> 7 & 1023


CROWDED = [req_id for req_id in range(1_000) if (place(req_id) + 4) & 1023 < 8]
"""Requests that get into each other's way, around the end of the table."""


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(CROWDED)), min_size=20, max_size=200))
def test_binding_and_forgetting_is_a_dictionary(steps: list[tuple[bool, int]]) -> None:
    feed = Feed(capacity=2, max_instruments=300)
    bound: dict[int, int] = {}
    for is_binding, req_id in steps:
        if is_binding:
            bound[req_id] = feed.add_instrument(str(req_id))
            feed.bind(req_id, bound[req_id])
        else:
            bound.pop(req_id, None)
            feed.forget_requests([req_id])
    for _, req_id in steps:
        assert feed.core.instrument_of_request(req_id) == bound.get(req_id)


def test_request_ids_are_never_given_twice() -> None:
    feed = Feed(capacity=2)
    assert [feed.next_req_id() for _ in range(3)] == [1, 2, 3]
    feed.forget_requests()
    assert feed.next_req_id() == 4


def test_a_hundred_thousand_renewals_leave_nothing_behind() -> None:
    """A stream is renewed under a new id each time, and the old one's last message comes late."""
    feed, decoder = feed_of()
    apple = feed.add_instrument("AAPL")
    texts, old = len(feed.texts), feed.next_req_id()
    feed.bind(old, apple)
    memory_before = _resident_bytes()
    for _ in range(100_000):
        new = feed.next_req_id()
        feed.bind(new, apple)
        feed.forget_requests([old])
        decoder.feed_bytes(framed(last_trade(old, 1.5), last_trade(new, 2.5)))
        old = new
    assert _resident_bytes() - memory_before < 4 << 20
    assert (len(feed.instruments), len(feed.texts), feed.instruments.refused) == (1, texts, 0)
    assert feed.late == 100_000
    assert rows_of(feed, "trades")["instrument"][-2:].tolist() == [NO_INSTRUMENT, apple]
    assert decoder.take_quarantine() == []
    assert feed.activity([old])["messages"].tolist() == [1]


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE if sys.platform == "linux" else 0


# --- indices that are used again ---


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Shop:
    """A feed with room for few instruments, and how to let time pass.

    Attributes:
        used: indices that an owner of the feed uses.
    """

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.used: list[int] = []
        self.feed = Feed(8, **{"max_instruments": 2, "clock": self.clock} | options)
        self.decoder = Decoder(self.feed, server_version=VERSION)
        self.feed.claim(self, lambda: self.used)

    def wait(self, seconds: float) -> None:
        """Let time pass, and look every minute."""
        until_s = self.clock.now_s + seconds
        while self.clock.now_s < until_s:
            self.clock.now_s = min(until_s, self.clock.now_s + 60)
            self.feed.free_unused()

    def fill(self, *rings: str) -> None:
        """Have rings hold nothing but rows of other instruments."""
        for name in rings or RINGS:
            ring = getattr(self.feed, name)
            rows = np.zeros(ring.capacity, ring.dtype)
            rows["instrument"] = NO_INSTRUMENT
            ring.append(rows)


def test_an_index_that_nothing_uses_for_an_hour_is_used_again() -> None:
    shop = Shop()
    feed = shop.feed
    apple, microsoft = feed.instrument_of(Contract(265598), "AAPL"), feed.instrument_of(Contract(272093), "MSFT")
    shop.used = [microsoft]
    feed.bind(1, apple)
    shop.decoder.feed_bytes(framed(price(1, TickType.BID, 10, 5), last_trade(1, 1.5)), 70)
    feed.forget_requests()
    shop.fill()
    shop.wait(3600)
    assert (feed.instruments[apple], feed.last["bid"][apple], feed.has_instrument(Contract(265598))) == (
        "AAPL",
        10,
        True,
    )
    shop.wait(60)
    assert list(feed.instruments) == ["", "MSFT"]
    assert [feed.instruments.generation(index) for index in (apple, microsoft)] == [1, 0]
    assert (feed.instruments.con_id(apple), feed.has_instrument(Contract(265598))) == (0, False)
    with pytest.raises(FeedError, match="no instrument 0"):
        feed.bind(2, apple)
    assert feed.instrument_of(Contract(4815747), "NVDA") == apple
    assert (list(feed.instruments), feed.instruments.con_id(apple)) == (["NVDA", "MSFT"], 4815747)
    assert [feed.instruments.generation(index) for index in (apple, microsoft)] == [2, 0]
    row = feed.last[apple]
    assert row["version"] % 2 == 0
    for field in set(row.dtype.names) - {"version"}:
        assert np.isnan(row[field]) if row.dtype[field].kind == "f" else row[field] == 0
    assert feed.instrument_of(Contract(272093), "MSFT") == microsoft


@pytest.mark.parametrize("ring", RINGS)
def test_an_index_of_which_a_ring_holds_a_row_is_kept(ring: str) -> None:
    shop = Shop()
    apple = shop.feed.instrument_of(Contract(265598), "AAPL")
    rows = np.zeros(1, Feed.dtypes[ring])
    rows["instrument"] = apple
    getattr(shop.feed, ring).append(rows)
    shop.wait(2 * 3600)
    others = np.zeros(shop.feed.ticks.capacity - 1, Feed.dtypes[ring])
    others["instrument"] = NO_INSTRUMENT
    getattr(shop.feed, ring).append(others)
    shop.wait(3600)
    assert list(shop.feed.instruments) == ["AAPL"]
    getattr(shop.feed, ring).append(others[:1])
    shop.wait(60)
    assert list(shop.feed.instruments) == [""]


def test_what_uses_an_index_keeps_it() -> None:
    """Each keeps it for an hour after its end: a bound request, an owner of the feed, a call of `instrument_of`."""
    shop = Shop()
    feed = shop.feed
    apple = feed.instrument_of(Contract(265598), "AAPL")
    feed.bind(1, apple)
    shop.wait(5 * 3600)
    feed.forget_requests([1])
    shop.used = [apple]
    shop.wait(5 * 3600)
    shop.used = []
    for _ in range(5):
        shop.wait(3600)
        assert feed.instrument_of(Contract(265598), "AAPL") == apple
    assert feed.instruments.generation(apple) == 0
    feed.release(shop)
    shop.wait(3660)
    assert feed.instruments.generation(apple) == 1


def test_indices_that_are_not_freed() -> None:
    """That of the requests which nobody bound, and those of whoever has added an instrument without a contract."""
    shop = Shop(max_instruments=3)
    own = shop.feed.add_instrument("AAPL", 265598)
    shop.decoder.feed_bytes(framed(last_trade(7, 1.5)))
    shop.feed.forget_requests()
    shop.fill()
    shop.wait(5 * 3600)
    assert list(shop.feed.instruments) == ["AAPL", "unsolicited"]
    assert shop.feed.instruments.generation(own) == 0


def test_a_contract_at_another_exchange_is_another_instrument() -> None:
    feed = Shop(max_instruments=4).feed
    island, smart = (Contract(265598, "AAPL", "STK", exchange=exchange) for exchange in ("ISLAND", "SMART"))
    assert [feed.instrument_of(contract, "AAPL") for contract in (island, smart, island)] == [0, 1, 0]
    assert feed.instrument_of(replace(smart, primary_exchange="NASDAQ", trading_class="NMS"), "AAPL") == 1
    assert feed.instrument_of(replace(island, exchange="ARCA"), "AAPL") == 2
    assert not feed.has_instrument(replace(island, exchange="IEX"))
    assert [feed.instruments.exchange(index) for index in range(3)] == ["ISLAND", "SMART", "ARCA"]
    assert [feed.instruments.con_id(index) for index in range(3)] == [265598] * 3
    assert [feed.instruments.index("AAPL", exchange) for exchange in ("ISLAND", "ARCA", None)] == [0, 2, 1]
    feed.bind(1, 0)
    feed.bind(2, 1)
    decoder = Decoder(feed, server_version=VERSION)
    decoder.feed_bytes(framed(price(1, TickType.BID, 10, 5), price(2, TickType.BID, 20, 5)))
    assert feed.last["bid"][:2].tolist() == [10, 20]


SPREAD = (ComboLeg(265598, 1, "BUY", "SMART"), ComboLeg(272093, 1, "SELL", "SMART"))


@pytest.mark.parametrize("con_id", [0, 28812380])
def test_a_combo_is_known_by_its_whole_description(con_id: int) -> None:
    """Even if it has a con_id: IB gives one to many combos, and a client may write any."""
    shop = Shop()
    spread = Contract(con_id, "AAPL", "BAG", exchange="SMART", combo_legs=SPREAD)
    other = replace(spread, combo_legs=SPREAD[::-1])
    index = shop.feed.instrument_of(spread, "AAPL")
    assert shop.feed.instrument_of(other, "AAPL") == 1
    assert (shop.feed.instrument_of(spread, "AAPL"), shop.feed.has_instrument(spread)) == (index, True)
    assert not shop.feed.has_instrument(Contract(con_id, exchange="SMART") if con_id else Stock("AAPL"))
    shop.wait(3661)
    assert (shop.feed.has_instrument(spread), shop.feed.instruments.generation(index)) == (False, 1)


def test_a_full_table_is_looked_through_when_another_instrument_is_wanted() -> None:
    shop = Shop(keep_instrument_s=600)
    feed = shop.feed
    for con_id in (1, 2):
        feed.instrument_of(Contract(con_id), str(con_id))
    with pytest.raises(FeedError, match="all 2 instruments are taken"):
        feed.instrument_of(Contract(3), "3")
    shop.clock.now_s += 10
    feed.free_unused()
    shop.clock.now_s += 600
    assert feed.instrument_of(Contract(3), "3") == 0
    assert list(feed.instruments) == ["3", ""]
    assert feed.instrument_of(Contract(4), "4") == 1


def test_ten_thousand_instruments_in_a_table_of_four() -> None:
    """Each comes, has data, goes and is forgotten: nothing grows, and the longest free index is used next."""
    shop = Shop(max_instruments=4, keep_instrument_s=60)
    feed = shop.feed
    texts, memory_before = len(feed.texts), _resident_bytes()
    for con_id in range(1, 10_001):
        index = feed.instrument_of(Contract(con_id), f"X{con_id}")
        assert np.isnan(feed.last["last"][index])
        feed.bind(con_id, index)
        shop.decoder.feed_bytes(framed(last_trade(con_id, con_id)))
        assert (feed.instruments[index], feed.last["last"][index]) == (f"X{con_id}", con_id)
        feed.forget_requests([con_id])
        if con_id % 4 == 0:
            shop.fill("trades")
            shop.wait(61 + 60)
            assert [feed.instruments.generation(each) for each in range(4)] == [con_id // 2 - 1] * 4
    assert (len(feed.instruments), len(feed.texts), feed.instruments.refused) == (4, texts, 0)
    assert _resident_bytes() - memory_before < 4 << 20


@pytest.mark.parametrize(("label", "kept"), [("A" * 60, "A" * 52), ("ü" * 30, "ü" * 26), ("Aü" * 20, "Aü" * 17 + "A")])
def test_a_long_label_is_cut_between_characters(label: str, kept: str) -> None:
    feed = Feed(2)
    assert feed.instruments[feed.add_instrument(label)] == kept
    assert feed.instruments.exchange(feed.add_instrument("", exchange="E" * 12 + label)) == "E" * 12 + kept


# --- activity ---


@pytest.mark.parametrize("server_version", [157, 176, 201, 206, 226])
def test_activity_is_what_the_rows_say(server_version: int) -> None:
    """Every family, in each dialect: messages of a request, and the first and last of their rows in any ring."""
    decoded = Decoded(server_version)
    messages = list(random_messages(7, server_version, 2_000))
    for recv_ns, message in enumerate(messages, 1_000):
        decoded.give([framed(message.payload)], recv_ns)
    rows = decoded.rows
    assert all(len(rows[ring]) > 0 for ring in RINGS if ring != "gaps")
    together = {
        name: np.concatenate([rows[ring][name] for ring in RINGS]) for name in ("seq", "recv_ns", "req_id")
    }  # fmt: skip
    req_ids = np.unique(together["req_id"])
    told = decoded.feed.activity(req_ids)
    assert told["messages"].sum() == len(messages)
    for activity in told:
        own = together["req_id"] == activity["req_id"]
        seqs, times = together["seq"][own], together["recv_ns"][own]
        assert activity["messages"] == len(np.unique(times))
        assert (activity["first_seq"], activity["last_seq"]) == (seqs.min(), seqs.max())
        assert (activity["first_recv_ns"], activity["last_recv_ns"]) == (times.min(), times.max())


def test_activity_begins_with_the_binding() -> None:
    feed, decoder = feed_of()
    apple = feed.add_instrument("AAPL")
    assert feed.activity([5, 6]).tolist() == [(5, 0, 0, 0, 0, 0), (6, 0, 0, 0, 0, 0)]
    assert feed.activity([]).dtype == ACTIVITY
    feed.bind(5, apple)
    assert feed.activity((5,)).tolist() == [(5, 0, 0, 0, 0, 0)]
    decoder.feed_bytes(framed(price(6, TickType.LAST, 10, 5), last_trade(5, 1.5)), 70)
    decoder.feed_bytes(framed(last_trade(5, 1.5)), 80)
    assert feed.activity([5, 6, 5]).tolist() == [(5, 2, 70, 80, 3, 4), (6, 1, 70, 70, 1, 2), (5, 2, 70, 80, 3, 4)]
    feed.bind(5, apple)
    assert feed.activity([5]).tolist() == [(5, 0, 0, 0, 0, 0)]


def test_malformed_messages_and_requests_without_an_instrument_are_no_activity() -> None:
    feed, decoder = feed_of(last_trade(1, 1.5), last_trade(2, 1.5), price(1, TickType.BID, "x"), max_instruments=1)
    assert decoder.quarantined == 1
    assert feed.activity([1, 2])["messages"].tolist() == [1, 0]


def test_activity_survives_the_growth_of_the_request_table() -> None:
    feed, _ = feed_of(*(last_trade(req_id, 1.5) for req_id in range(3_000)))
    told = feed.activity(range(3_000))
    assert told["messages"].tolist() == [1] * 3_000
    assert told["first_seq"].tolist() == told["last_seq"].tolist() == list(range(1, 3_001))


# --- who fills it ---


def test_connections_of_one_thread_share_a_feed() -> None:
    feed = Feed(capacity=2)
    first, second = object(), object()
    refusals: list[str] = []

    def claim_elsewhere() -> None:
        try:
            feed.claim(owner_elsewhere)
        except FeedError as error:
            refusals.append(str(error))

    def in_another_thread() -> int:
        thread = threading.Thread(target=claim_elsewhere)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        return len(refusals)

    owner_elsewhere = object()
    feed.claim(first)
    feed.claim(first)
    feed.claim(second)
    assert in_another_thread() == 1
    feed.release(first)
    feed.release(first)
    assert in_another_thread() == 2
    feed.release(second)
    assert in_another_thread() == 2
    with pytest.raises(FeedError, match="filled in another thread"):
        feed.claim(first)
    feed.release(owner_elsewhere)
    feed.claim(first)
    assert "give the connections of each thread a Feed" in refusals[0]


# --- texts ---


def test_texts_are_interned_once() -> None:
    feed, _ = feed_of(*(last_trade(1, 1.5, exchange) for exchange in ("ARCA", "", "ISLAND", "ARCA", "Zürich")))
    exchanges = [feed.texts[text] for text in rows_of(feed, "trades")["exchange"]]
    assert exchanges == ["ARCA", "", "ISLAND", "ARCA", "Zürich"]
    assert list(feed.texts) == ["", "<other>", "ARCA", "ISLAND", "Zürich"]
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            feed.texts[wrong]


def test_texts_past_the_bound_share_one_id_and_are_counted() -> None:
    names = [f"exchange {n}" for n in range(10)]
    feed, _ = feed_of(*(last_trade(1, 1.5, name) for name in [*names, *names]), max_texts=8)
    exchanges = [feed.texts[text] for text in rows_of(feed, "trades")["exchange"]]
    assert exchanges == ([*names[:6]] + ["<other>"] * 4) * 2
    assert len(feed.texts) == 8
    assert feed.texts.refused == 8


def test_long_texts_are_bounded_by_their_bytes() -> None:
    feed, _ = feed_of(*(last_trade(1, 1.5, letter * 400) for letter in "ABC"), max_texts=16)
    exchanges = [feed.texts[text] for text in rows_of(feed, "trades")["exchange"]]
    assert exchanges == ["A" * 400, "B" * 400, "<other>"]
    assert feed.texts.refused == 1


# --- last values ---


def test_the_last_value_table_is_the_market_as_columns() -> None:
    feed, decoder = feed_of(
        price(1, TickType.BID, 10.5, 3), price(1, TickType.ASK, 10.75, 4), price(2, TickType.BID, 20, 5), recv_ns=111,
        instruments=2,
    )  # fmt: skip
    decoder.feed_bytes(framed(last_trade(2, 20.25), size(1, TickType.VOLUME, 1000)), recv_ns=222)
    last = feed.last
    assert last["bid"][:3].tolist()[:2] == [10.5, 20.0]
    assert np.isnan(last["bid"][2])
    assert (last["ask"][0], last["ask_size"][0], last["last"][1], last["volume"][0]) == (10.75, 4, 20.25, 1000)
    assert last["quote_recv_ns"][:2].tolist() == [111, 111]
    assert last["last_recv_ns"][:2].tolist() == [0, 222]
    assert last["volume_recv_ns"][:2].tolist() == [222, 0]
    with pytest.raises(ValueError, match="read-only"):
        last["bid"][0] = 1
    snapshot = feed.snapshot()
    assert snapshot["bid"].tolist() == [10.5, 20.0]
    decoder.feed_bytes(framed(price(1, TickType.BID, 99, 3)))
    assert (snapshot["bid"][0], feed.last["bid"][0], feed.snapshot()["bid"][0]) == (10.5, 99, 99)


def test_nothing_is_known_at_first() -> None:
    feed = Feed(capacity=2)
    assert feed.snapshot().size == 0
    feed.add_instrument("AAPL")
    (row,) = feed.snapshot()
    for name in row.dtype.names:
        assert np.isnan(row[name]) if row.dtype[name].kind == "f" else row[name] == 0


def test_a_snapshot_is_never_torn() -> None:
    """A thread changes all rows while snapshots are taken; in each row the values belong together."""
    instruments, changes = 40, 400
    feed = Feed(capacity=1 << 10)
    decoder = Decoder(feed, server_version=VERSION)
    for req_id in range(instruments):
        feed.bind(req_id, feed.add_instrument(str(req_id)))
    quotes = framed(
        *(
            text_payload(VERSION, TICK_BY_TICK, req_id, 3, 0, n, n + 1, 2 * n, 3 * n, 0)
            for n in range(1, changes)
            for req_id in range(instruments)
        )
    )
    decoder.feed_bytes(quotes)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            decoder.feed_bytes(quotes)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    seen: set[float] = set()
    for _ in range(3_000):
        rows = feed.snapshot()
        assert len(rows) == instruments
        assert (rows["version"] % 2 == 0).all()
        assert (rows["ask"] == rows["bid"] + 1).all()
        assert (rows["bid_size"] == 2 * rows["bid"]).all()
        assert (rows["ask_size"] == 3 * rows["bid"]).all()
        seen.update(rows["bid"].tolist())
    while len(seen) < 2:  # it must have been a race
        seen.update(feed.snapshot()["bid"].tolist())
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_row_whose_writer_died_in_it_is_marked() -> None:
    feed, _ = feed_of(price(1, TickType.BID, 10, 5), price(2, TickType.BID, 20, 5), instruments=2)
    version = ctypes.c_uint64.from_address(feed.last.ctypes.data)
    version.value += 1
    rows = feed.snapshot()
    assert (rows["version"] % 2).tolist() == [1, 0]
    assert rows["bid"].tolist() == [10, 20]


# --- gaps ---


def test_a_gap_is_a_row_with_a_place_in_the_sequence() -> None:
    feed, decoder = feed_of(last_trade(1, 1.5))
    assert feed.seq == 1
    extent = {"first_seq": 2, "last_seq": 3, "first_ns": 4, "last_ns": 5, "count": 6, "recovered": True}
    feed.add_gap(77, Scope.CONNECTION, GapCause.CONNECTION_LOST, **extent)
    feed.add_gap(78, Scope.SUBSCRIPTION, GapCause.CONNECTION_LOST, instrument=0, req_id=1)
    decoder.feed_bytes(framed(last_trade(1, 2.5)))
    first, second = rows_of(feed, "gaps")
    assert first.tolist() == (2, 77, NO_INSTRUMENT, -1, Kind.GAP, Scope.CONNECTION, 1, 1, 2, 3, 4, 5, 6)
    assert second.tolist() == (3, 78, 0, 1, Kind.GAP, Scope.SUBSCRIPTION, 1, 0, 0, 0, 0, 0, 0)
    assert rows_of(feed, "trades")["seq"].tolist() == [1, 4]
    assert feed.seq == 4


# --- bounds ---


@pytest.mark.parametrize("capacity", [-4, 0, 1, 3, 1000])
def test_a_capacity_is_a_power_of_two(capacity: int) -> None:
    with pytest.raises(FeedError, match="power of two"):
        Feed(capacity)


@pytest.mark.parametrize("bounds", [{"max_instruments": 0}, {"max_instruments": (1 << 24) + 1}, {"max_texts": 1}])
def test_the_tables_have_bounds(bounds: dict[str, int]) -> None:
    with pytest.raises(FeedError, match=r"max_instruments is 1 to 16,777,216 and max_texts 2 to 16,777,216"):
        Feed(4, **bounds)


@pytest.mark.parametrize("capacity", [1 << 48, 1 << 62])
def test_more_memory_than_there_is(capacity: int) -> None:
    with pytest.raises(FeedError, match="no memory"):
        Feed(capacity)


def test_the_smallest_feed_works() -> None:
    feed = Feed(capacity=2, max_instruments=1, max_texts=2)
    decoder = Decoder(feed, server_version=VERSION)
    decoder.feed_bytes(framed(*(last_trade(1, n + 0.5, "ARCA") for n in range(3))))
    rows = rows_of(feed, "trades")
    assert rows["price"].tolist() == [1.5, 2.5]
    assert [feed.texts[text] for text in rows["exchange"]] == ["<other>", "<other>"]
    assert list(feed.instruments) == ["unsolicited"]


# --- in other libraries' hands ---


def trades() -> Any:
    feed, _ = feed_of(*(last_trade(n, n + 0.25, "ARCA") for n in range(5)))
    return rows_of(feed, "trades")


def test_rows_become_pandas_polars_and_arrow_in_a_line() -> None:
    rows = trades()
    frame = pd.DataFrame(rows)
    polars_frame = pl.DataFrame(rows)
    table = pa.table({name: rows[name] for name in rows.dtype.names})
    for name in rows.dtype.names:
        values, dtype = rows[name].tolist(), rows.dtype[name]
        assert (frame[name].tolist(), frame[name].dtype) == (values, dtype)
        assert (polars_frame[name].to_list(), polars_frame[name].to_numpy().dtype) == (values, dtype)
        assert (table[name].to_pylist(), table[name].type) == (values, pa.from_numpy_dtype(dtype))
    assert list(frame.columns) == polars_frame.columns == table.column_names == list(rows.dtype.names)


def test_no_rows_convert_too() -> None:
    rows = trades()[:0]
    assert pd.DataFrame(rows).shape == pl.DataFrame(rows).shape == (0, 11)
    assert pa.table({name: rows[name] for name in rows.dtype.names}).num_rows == 0


def test_times_become_timestamps_in_a_line() -> None:
    rows = trades()
    moment = pd.Timestamp(1_700_000_000, unit="s", tz="UTC")
    assert pd.to_datetime(rows["event_ns"], utc=True)[0] == moment
    assert pl.DataFrame(rows).with_columns(pl.from_epoch("event_ns", "ns"))["event_ns"][0] == moment.tz_localize(None)
    assert pa.array(rows["event_ns"]).cast(pa.timestamp("ns", "UTC"))[0].as_py() == moment


# --- gaps that a record ends ---


def test_the_closing_row_of_a_gap_comes_directly_before_the_record_that_ends_it() -> None:
    feed, decoder = feed_of()
    apple = feed.add_instrument("AAPL")
    feed.bind(5, apple)
    feed.bind(6, apple)
    decoder.feed_bytes(framed(last_trade(5, 1.5)), 70)
    feed.await_gap(5, Scope.LINK, GapCause.LINK_LOST, 2, 70, ends=True)
    assert feed.activity([5])["first_seq"].tolist() == [0]
    decoder.feed_bytes(framed(last_trade(6, 2.5), last_trade(5, 3.5), last_trade(5, 4.5)), 90)
    (gap,) = rows_of(feed, "gaps")
    assert (gap["seq"], gap["recv_ns"], gap["instrument"], gap["req_id"], gap["recovered"]) == (3, 90, apple, 5, 1)
    assert (gap["scope"], gap["cause"], gap["kind"]) == (Scope.LINK, GapCause.LINK_LOST, Kind.GAP)
    assert (gap["first_seq"], gap["last_seq"], gap["first_ns"], gap["last_ns"]) == (2, 4, 70, 90)
    assert rows_of(feed, "trades")["seq"].tolist() == [1, 2, 4, 5]
    assert feed.activity([5])[["first_seq", "first_recv_ns"]].tolist() == [(4, 90)]


def test_a_gap_that_is_not_awaited_any_more_has_no_row() -> None:
    feed, decoder = feed_of()
    feed.bind(5, feed.add_instrument("AAPL"))
    feed.await_gap(5, Scope.FARM, GapCause.FARM_BROKEN, 1, 70, ends=True)
    feed.forget_gap(5)
    decoder.feed_bytes(framed(last_trade(5, 1.5)), 90)
    assert len(rows_of(feed, "gaps")) == 0
    assert feed.activity([5])["first_seq"].tolist() == [1]


def test_the_open_row_of_a_gap_comes_before_the_record_that_does_not_end_it() -> None:
    feed, decoder = feed_of()
    feed.bind(5, feed.add_instrument("AAPL"))
    feed.await_gap(5, Scope.FARM, GapCause.FARM_BROKEN, 1, 70, ends=False)
    decoder.feed_bytes(framed(last_trade(5, 1.5), last_trade(5, 2.5)), 90)
    feed.await_gap(5, Scope.FARM, GapCause.FARM_BROKEN, 1, 70, ends=True)
    decoder.feed_bytes(framed(last_trade(5, 3.5)), 95)
    fields = ["seq", "recovered", "first_seq", "last_seq", "first_ns", "last_ns"]
    assert rows_of(feed, "gaps")[fields].tolist() == [(1, 0, 1, 0, 70, 0), (4, 1, 1, 5, 70, 95)]
    assert rows_of(feed, "trades")["seq"].tolist() == [2, 3, 5]


def test_a_gap_does_not_end_before_it_begins_when_the_clock_is_set_back() -> None:
    feed, decoder = feed_of()
    feed.bind(5, feed.add_instrument("AAPL"))
    feed.await_gap(5, Scope.LINK, GapCause.LINK_LOST, 1, 1_000, ends=True)
    decoder.feed_bytes(framed(last_trade(5, 1.5)), 400)
    (gap,) = rows_of(feed, "gaps")
    assert (gap["recv_ns"], gap["first_ns"], gap["last_ns"]) == (400, 1_000, 1_000)


def test_a_request_that_nobody_knows_ends_no_gap() -> None:
    feed, decoder = feed_of()
    req_id = feed.next_req_id()
    feed.await_gap(req_id, Scope.LINK, GapCause.LINK_LOST, 1, 70, ends=True)
    feed.forget_gap(req_id)
    decoder.feed_bytes(framed(last_trade(req_id, 1.5)))
    assert len(rows_of(feed, "gaps")) == 0


def test_the_oldest_record_is_that_of_the_ring_that_reaches_back_furthest() -> None:
    feed = Feed(capacity=4)
    decoder = Decoder(feed, server_version=VERSION)
    assert feed.oldest_seq() == 1
    feed.bind(5, feed.add_instrument("AAPL"))
    decoder.feed_bytes(framed(*(last_trade(5, 1.5) for _ in range(6))))
    assert feed.oldest_seq() == 3
    feed.add_gap(1, Scope.LINK, GapCause.LINK_LOST)
    decoder.feed_bytes(framed(*(last_trade(5, 1.5) for _ in range(9))))
    assert feed.oldest_seq() == 7
