"""The store: what is written is what is read, by another process too, whatever happened to the first one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.connection.store import Sent, SentRequest, Store, _written
from ibfast.contracts import ComboLeg, Contract, DeltaNeutralContract
from ibfast.errors import StoreError
from ibfast.policy.subscription import SubscriptionRequest
from ibfast.wire.ids import MarketDataType
from ibfast.wire.requests import (
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
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
    st.builds(HistoricalTicksRequest, st.just(0), CONTRACTS, TEXT, TEXT, st.integers(1, 1000), TEXT, st.booleans()),
    st.builds(HeadTimestampRequest, st.just(0), CONTRACTS, TEXT, st.booleans()),
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
from ibfast.wire.ids import MarketDataType
from ibfast.connection.store import Store
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
    with pytest.raises(StoreError, match="is no file"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="opened"):
        Store(tmp_path / "absent" / "book")


WRITTEN = json.loads(_written(QUOTES))
DAMAGED_REQUESTS: dict[str, object] = {
    "another kind": {"kind": "Nonsense"},
    "a kind that is a list": {"kind": []},
    "no object": [],
    "no contract": {"kind": "MarketDataRequest"},
    "another type": WRITTEN | {"generic_ticks": 5},
    "a list for a text": WRITTEN | {"generic_ticks": ["233"]},
    "another field": WRITTEN | {"nonsense": 1},
    "a text for a contract": WRITTEN | {"contract": "AAPL"},
    "another type in the contract": WRITTEN | {"contract": WRITTEN["contract"] | {"symbol": 5}},
    "a list in the contract": WRITTEN | {"contract": WRITTEN["contract"] | {"symbol": []}},
    "an object in the contract": WRITTEN | {"contract": WRITTEN["contract"] | {"con_id": {}}},
    "legs that are none": WRITTEN | {"contract": WRITTEN["contract"] | {"combo_legs": 1}},
    "another type in a leg": WRITTEN | {"contract": WRITTEN["contract"] | {"combo_legs": [{"con_id": "1"}]}},
    "a hedge that is none": WRITTEN | {"contract": WRITTEN["contract"] | {"delta_neutral_contract": 0}},
}
DAMAGED: dict[str, str | bytes | int] = {
    **{name: json.dumps(request) for name, request in DAMAGED_REQUESTS.items()},
    "no JSON": "{",
    "nothing": "",
    "a number": 5,
    "bytes": b"\xff\xfe",
    "nested too deeply": '{"a":' * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_request_that_does_not_parse_is_an_error(tmp_path: Path, damage: str) -> None:
    with Store(tmp_path / "book") as store:
        store.remember(QUOTES, 0)
        store.note_sent(LOGIN, [Sent(1, QUOTES, 5)])
        for table in ("subscriptions", "sent"):
            store._database.execute(f"UPDATE {table} SET request = ?", (DAMAGED[damage],))
        with pytest.raises(StoreError, match="move it away"):
            store.read()
        with pytest.raises(StoreError, match="move it away"):
            store.sent(LOGIN)


@pytest.mark.parametrize("value", ["text", 1.5, b"bytes"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("subscriptions", "priority"),
        ("subscriptions", "since_ns"),
        ("sessions", "alive_ns"),
        ("sessions", "market_data_type"),
        ("sent", "number"),
        ("sent", "at_ns"),
    ],
)
def test_a_number_that_is_none_is_an_error(tmp_path: Path, table: str, column: str, value: object) -> None:
    with Store(tmp_path / "book") as store:
        store.remember(QUOTES, 0)
        store.alive(99, MarketDataType.REALTIME)
        store.note_sent(LOGIN, [Sent(1, QUOTES, 5)])
        store._database.execute(f"UPDATE {table} SET {column} = ?", (value,))
        with pytest.raises(StoreError, match="move it away"):
            store.sent(LOGIN) if table == "sent" else store.read()


# --- who may read it ---


posix = pytest.mark.skipif(os.name != "posix", reason="no modes")


@posix
def test_a_store_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Store(tmp_path / "book") as store:
            store.remember(QUOTES, 0)
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert modes == {"book": 0o600, "book-wal": 0o600, "book-shm": 0o600}


@posix
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_store_that_others_may_read_is_refused(tmp_path: Path, suffix: str) -> None:
    Store(tmp_path / "book").close()
    path = tmp_path / f"book{suffix}"
    path.touch()
    path.chmod(0o644)
    with pytest.raises(StoreError, match=rf"book{suffix} can be read by others \(mode 644\): chmod 600 it"):
        Store(tmp_path / "book")
    path.chmod(0o600)
    Store(tmp_path / "book").close()


@posix
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_store_that_is_a_link_is_refused(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "target"
    target.touch(0o600)
    if suffix:
        Store(tmp_path / "book").close()
    (tmp_path / f"book{suffix}").symlink_to(target)
    with pytest.raises(StoreError, match=rf"book{suffix} is a link"):
        Store(tmp_path / "book")
    assert target.stat().st_size == 0


@posix
def test_a_link_to_nothing_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "book").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        Store(tmp_path / "book")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_store_of_another_user_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "book").close()
    os.chown(tmp_path / "book", 12345, 12345)
    with pytest.raises(StoreError, match="belongs to another user"):
        Store(tmp_path / "book")


def test_a_store_keeps_its_locks_when_another_one_is_opened(tmp_path: Path) -> None:
    """To close any descriptor of a file releases all locks that the process has on it."""
    with Store(tmp_path / "book") as store:
        store._database.execute("BEGIN IMMEDIATE")
        Store(tmp_path / "book").close()
        done = subprocess.run([sys.executable, "-c", LOCKED, str(tmp_path / "book")], capture_output=True, text=True)
        store._database.execute("ROLLBACK")
    assert done.stdout == "locked\n", done.stderr


LOCKED = """
import sys
from ibfast.errors import StoreError
from ibfast.wire.ids import MarketDataType
from ibfast.connection.store import Store
with Store(sys.argv[1]) as store:
    try:
        store.alive(1, MarketDataType.REALTIME)
    except StoreError as error:
        print("locked" if "locked" in str(error) else error)
"""


# --- whose it is ---


def test_an_older_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.touch(0o600)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE sent (owner TEXT, login TEXT)")
    database.close()
    with pytest.raises(StoreError, match="made by another release of ibfast: move it away"):
        Store(path)


@pytest.mark.parametrize("version", [1, 999])
def test_a_store_of_another_version_is_refused(tmp_path: Path, version: int) -> None:
    with Store(tmp_path / "book") as store:
        store._database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match="made by another release of ibfast: move it away"):
        Store(tmp_path / "book")


def test_a_login_has_another_name_in_each_store(tmp_path: Path) -> None:
    accounts = ["DU1234567", "DU7654321"]
    with Store(tmp_path / "one") as one, Store(tmp_path / "one", "x") as again, Store(tmp_path / "two") as two:
        names = [store.login_of(order) for store in (one, again, two) for order in (accounts, accounts[::-1])]
        assert names[:4] == [names[0]] * 4
        assert names[4:] == [names[4]] * 2
        assert names[0] != names[4] != sha256(",".join(accounts).encode()).hexdigest()
    assert all(account.encode() not in (tmp_path / "one").read_bytes() for account in accounts)


@pytest.mark.parametrize("damage", ["DELETE FROM salt", "UPDATE salt SET bytes = 'x'", "UPDATE salt SET bytes = x'00'"])
def test_a_damaged_salt_is_an_error(tmp_path: Path, damage: str) -> None:
    with Store(tmp_path / "book") as store:
        store._database.execute(damage)
    with pytest.raises(StoreError, match="move it away"):
        Store(tmp_path / "book")


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
