"""The store: what is written is what is read, by another process too, whatever happened to the first one."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import ComboLeg, Contract, DeltaNeutralContract
from ibfast.enums import MarketDataType
from ibfast.errors import StoreError
from ibfast.policy.subscription import SubscriptionRequest
from ibfast.store import Sent, SentRequest, Store
from ibfast.wire.requests import (
    HeadTimestamp,
    HistoricalBars,
    HistoricalTicks,
    MarketData,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)

GATEWAY = "127.0.0.1:7497"
TEXT = st.text(max_size=8)
LEGS = st.lists(st.builds(ComboLeg, con_id=st.integers(0, 1 << 31), action=TEXT, exchange=TEXT), max_size=3).map(tuple)
CONTRACTS = st.builds(
    Contract,
    con_id=st.integers(0, 1 << 31),
    symbol=TEXT,
    strike=st.none() | st.floats(allow_nan=False),
    combo_legs=LEGS,
    delta_neutral_contract=st.none() | st.builds(DeltaNeutralContract, con_id=st.integers(0, 99), delta=st.just(0.5)),
)
REQUESTS: st.SearchStrategy[SubscriptionRequest] = st.one_of(
    st.builds(MarketData, st.just(0), CONTRACTS, TEXT),
    st.builds(TickByTick, st.just(0), CONTRACTS, st.sampled_from(["Last", "BidAsk"])),
    st.builds(MarketDepth, st.just(0), CONTRACTS, st.integers(1, 20), is_smart_depth=st.booleans()),
    st.builds(RealTimeBars, st.just(0), CONTRACTS, TEXT, st.booleans()),
    st.builds(
        HistoricalBars,
        st.just(0),
        CONTRACTS,
        st.just(""),
        TEXT,
        TEXT,
        TEXT,
        st.booleans(),
        keep_up_to_date=st.just(True),
    ),
)
QUOTES = MarketData(0, Contract(con_id=1, symbol="AAPL"))
SENT: st.SearchStrategy[SentRequest] = st.one_of(
    REQUESTS,
    st.builds(HistoricalTicks, st.just(0), CONTRACTS, TEXT, TEXT, st.integers(1, 1000), TEXT, st.booleans()),
    st.builds(HeadTimestamp, st.just(0), CONTRACTS, TEXT, st.booleans()),
)
LOGIN = "a login"


@settings(max_examples=40)
@given(book=st.dictionaries(REQUESTS, st.integers(-5, 5), max_size=8))
def test_a_book_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, book: dict[SubscriptionRequest, int]
) -> None:
    path = tmp_path_factory.mktemp("store") / "book.sqlite"
    with Store(path) as store:
        for request, priority in book.items():
            store.remember(request, priority)
        store.alive(17, MarketDataType.DELAYED)
    with Store(path) as store, Store(path, "another session") as other:
        remembered = store.read()
        assert dict(remembered.subscriptions) == book
        priorities = [priority for _, priority in remembered.subscriptions]
        assert priorities == sorted(priorities, reverse=True)
        assert (remembered.market_data_type, remembered.alive_ns) == (MarketDataType.DELAYED, 17)
        assert (other.read().subscriptions, other.read().alive_ns) == ((), 0)


@settings(max_examples=40)
@given(requests=st.lists(SENT, max_size=8))
def test_what_was_sent_is_read_by_all_with_the_login(
    tmp_path_factory: pytest.TempPathFactory, requests: list[SentRequest]
) -> None:
    path = tmp_path_factory.mktemp("store") / "book.sqlite"
    with Store(path) as one, Store(path, "another session") as other:
        for number, request in enumerate(requests):
            one.note_sent(LOGIN, [Sent(number, replace(request, req_id=7), 100 - number)])
        expected = [Sent(number, request, 100 - number) for number, request in enumerate(requests)][::-1]
        assert one.sent(LOGIN) == other.sent(LOGIN) == expected
        assert one.sent("another login") == []
        other.note_sent(LOGIN, [Sent(0, QUOTES, 1000)])  # numbers are each process's own
        assert len(one.sent(LOGIN)) == len(requests) + 1


def test_what_arrived_late_has_another_time(tmp_path: Path) -> None:
    with Store(tmp_path / "book") as store:
        store.note_sent(LOGIN, [Sent(1, QUOTES, 5)])
        store.note_sent(LOGIN, [Sent(1, QUOTES, 8)])
        assert store.sent(LOGIN) == [Sent(1, QUOTES, 8)]


def test_what_is_over_goes_and_what_seems_to_come_is_now(tmp_path: Path) -> None:
    with Store(tmp_path / "book") as store:
        store.note_sent(LOGIN, [Sent(at_ns, QUOTES, at_ns) for at_ns in (4, 5, 9, 11)])
        store.trim_sent(since_ns=5, now_ns=10)
        assert [item.at_ns for item in store.sent(LOGIN)] == [5, 9, 10]


def test_equal_priorities_keep_the_order_of_their_declaration(tmp_path: Path) -> None:
    requests = [MarketData(0, Contract(con_id=number)) for number in (3, 1, 2)]
    with Store(tmp_path / "book") as store:
        for request in requests:
            store.remember(request, 0)
        store.remember(requests[0], 1)
        store.remember(requests[0], 0)
        assert [request for request, _ in store.read().subscriptions] == requests


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    with Store(tmp_path / "book") as store:
        store.remember(QUOTES, 0)
        store.forget(QUOTES)
        assert store.read().subscriptions == ()


WRITER = """
import os, signal, sys
from ibfast.contracts import Contract
from ibfast.enums import MarketDataType
from ibfast.store import Store
from ibfast.wire.requests import MarketData
store = Store(sys.argv[1])
store.remember(MarketData(0, Contract(con_id=1, symbol="AAPL")), 3)
store.alive(99, MarketDataType.REALTIME)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_the_book_survives_a_kill(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "book")])
    assert done.returncode == -signal.SIGKILL
    with Store(tmp_path / "book") as store:
        assert store.read().subscriptions == ((QUOTES, 3),)
        assert store.read().alive_ns == 99


def test_a_lease_has_one_owner_until_it_ends(tmp_path: Path) -> None:
    with Store(tmp_path / "book") as one, Store(tmp_path / "book") as two:
        assert one.lease(GATEWAY, 2, now_ns=0, until_ns=10)
        assert one.lease(GATEWAY, 2, now_ns=5, until_ns=20)
        assert not two.lease(GATEWAY, 2, now_ns=15, until_ns=30)
        assert two.lease(GATEWAY, 3, now_ns=15, until_ns=30)
        assert two.lease("elsewhere:4002", 2, now_ns=15, until_ns=30)
        assert two.lease(GATEWAY, 2, now_ns=21, until_ns=30)
        two.give_back(GATEWAY, 2)
        assert one.lease(GATEWAY, 2, now_ns=22, until_ns=30)
        two.give_back(GATEWAY, 2)  # another's lease is not for it to end
        assert not two.lease(GATEWAY, 2, now_ns=23, until_ns=30)


def fill(store: Store) -> None:
    for number in range(1000):
        store.remember(MarketData(0, Contract(con_id=number, description="x" * 100)), 0)


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    with Store(tmp_path / "book") as store:
        store.remember(QUOTES, 0)
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            fill(store)
        with pytest.raises(StoreError, match="full"):
            store.note_sent(LOGIN, [Sent(number, QUOTES, 0) for number in range(1000)])
        assert QUOTES in dict(store.read().subscriptions)


@pytest.mark.parametrize("content", [b"this is no database, it is a text of some length" * 30])
def test_a_file_that_is_no_store_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "book"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="book"):
        Store(path)
    with pytest.raises(StoreError, match="opened"):
        Store(tmp_path)


def test_a_book_that_does_not_parse_is_an_error(tmp_path: Path) -> None:
    Store(tmp_path / "book").close()
    with sqlite3.connect(tmp_path / "book") as database:
        database.execute(
            "INSERT INTO subscriptions (session, request, priority) VALUES ('default', '{\"kind\": \"Nonsense\"}', 0)"
        )
    database.close()
    with Store(tmp_path / "book") as store, pytest.raises(StoreError, match="move it away"):
        store.read()


def test_what_was_sent_and_does_not_parse_is_an_error(tmp_path: Path) -> None:
    with Store(tmp_path / "book") as store:
        store.note_sent(LOGIN, [Sent(1, QUOTES, 5)])
        store._database.execute("UPDATE sent SET request = '{}'")
        with pytest.raises(StoreError, match="move it away"):
            store.sent(LOGIN)


def test_a_request_that_can_not_be_stored_keeps_no_other_from_it(tmp_path: Path) -> None:
    poisoned = replace(QUOTES, generic_ticks=object())  # type: ignore[arg-type]
    with Store(tmp_path / "store", "x") as store:
        (error,) = store.note_sent(LOGIN, [Sent(1, QUOTES, 5), Sent(2, poisoned, 6), Sent(3, QUOTES, 7)])
        assert "can't be stored" in str(error)
        assert [item.number for item in store.sent(LOGIN)] == [1, 3]
        with pytest.raises(StoreError, match="can't be stored"):
            store.remember(poisoned, 0)
        with pytest.raises(StoreError, match="can't be written"):
            store.remember(QUOTES, 2**70)
