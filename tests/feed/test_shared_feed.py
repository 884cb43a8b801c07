"""Feeds in shared memory, between real processes: live reading, crashes, names."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibfast import Contract, Decoder, Feed, Reader
from ibfast.errors import FeedError
from ibfast.feed.feed import FeedView
from ibfast.feed.layout import HEADER
from ibfast.feed.segment import Segment
from ibfast.records import GapCause, Scope
from tests.support.loops import Run
from tests.support.streams import TICK_BY_TICK, framed, text_payload

VERSION = 176
CAPACITY = 1 << 10
TIMEOUT_S = 60.0
SPAWN = multiprocessing.get_context("spawn")
numbers = iter(range(1_000_000))


@pytest.fixture
def name() -> Iterator[str]:
    """A name of a feed that nobody else uses."""
    name = f"test-{multiprocessing.current_process().pid}-{next(numbers)}"
    yield name
    Segment.path_of(name).unlink(missing_ok=True)


def trades(start: int, count: int) -> bytes:
    return framed(
        *(text_payload(VERSION, TICK_BY_TICK, 1, 1, n, n + 0.5, n, 0, "ARCA", "") for n in range(start, start + count))
    )


def quote(bid: float) -> bytes:
    return framed(text_payload(VERSION, TICK_BY_TICK, 1, 3, 0, bid, bid + 1, 3, 4, 0))


def make_feed(name: str) -> Feed:
    return Feed(CAPACITY, name=name, max_instruments=8, max_texts=64)


def rows_of(feed: FeedView) -> list[float]:
    return feed.trades.reader(start="oldest").read()["price"].tolist()


# --- what runs in other processes ---


def create(name: str, pipe: Connection) -> None:
    """Own a feed and decode what comes through the pipe."""
    feed = make_feed(name)
    decoder = Decoder(feed, server_version=VERSION)
    feed.bind(1, feed.add_instrument("AAPL", 265598, "SMART"))
    pipe.send("ready")
    while data := pipe.recv():
        pipe.send(decoder.feed_bytes(data, 123))


def try_to_create(name: str, pipe: Connection) -> None:
    try:
        make_feed(name)
        pipe.send("created")
    except FeedError as error:
        pipe.send(str(error))


def read_in_thread(name: str, pipe: Connection, count: int) -> None:
    """Attach, and read so many rows as they come, asleep in between."""
    reader = Feed.attach(name).trades.reader()
    pipe.send("ready")
    prices: list[float] = []
    while len(prices) < count:
        assert reader.wait(TIMEOUT_S)
        prices += reader.read()["price"].tolist()
    pipe.send((prices, reader.lost))


def read_in_loop(name: str, pipe: Connection, count: int) -> None:
    async def read(reader: Reader) -> list[float]:
        prices: list[float] = []
        async for rows in reader:
            prices += rows["price"].tolist()
            if len(prices) >= count:
                break
        return prices

    reader = Feed.attach(name).trades.reader()
    pipe.send("ready")
    pipe.send((asyncio.run(read(reader)), reader.lost))


class Process:
    """A process that runs one of the functions above, and our end of its pipe."""

    def __init__(self, target: Callable[..., None], name: str, *args: Any) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=target, args=(name, theirs, *args), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        assert self.pipe.poll(TIMEOUT_S)
        return self.pipe.recv()

    def decode(self, data: bytes) -> int:
        self.pipe.send(data)
        return int(self.receive())

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.join(TIMEOUT_S)
        assert not self.process.is_alive()
        self.process.close()
        self.pipe.close()


@pytest.fixture
def creator(name: str) -> Iterator[Process]:
    creator = Process(create, name)
    assert creator.receive() == "ready"
    yield creator
    if not creator.pipe.closed:
        creator.kill()


# --- live ---


@pytest.mark.parametrize("read", [read_in_thread, read_in_loop])
def test_another_process_reads_live(name: str, read: Callable[..., None]) -> None:
    """Two readers in processes of their own; what they are sent together always fits the ring."""
    count = CAPACITY
    with make_feed(name) as feed:
        decoder = Decoder(feed, server_version=VERSION)
        readers = [Process(read, name, count) for _ in range(2)]
        for reader in readers:
            assert reader.receive() == "ready"
        for start in range(0, count, 8):
            assert decoder.feed_bytes(trades(start, 8)) == 8
        for reader in readers:
            assert reader.receive() == ([n + 0.5 for n in range(count)], 0)
            reader.end()


def test_rows_are_read_as_they_are_decoded_elsewhere(name: str, creator: Process) -> None:
    feed = Feed.attach(name)
    reader = feed.trades.reader()
    for n in range(200):
        creator.pipe.send(trades(n, 1))
        assert reader.wait(TIMEOUT_S)
        rows = reader.read()
        assert rows["price"].tolist() == [n + 0.5]
        assert rows["recv_ns"].tolist() == [123]
        assert creator.receive() == 1
    assert feed.texts[rows["exchange"][0]] == "ARCA"
    assert feed.instruments[rows["instrument"][0]] == "AAPL"
    assert feed.instruments.con_id(rows["instrument"][0]) == 265598
    assert feed.instruments.exchange(rows["instrument"][0]) == "SMART"
    assert reader.lost == 0


def test_rows_are_awaited_as_they_are_decoded_elsewhere(name: str, creator: Process, run: Run) -> None:
    async def test() -> None:
        reader = Feed.attach(name).trades.reader()
        for n in range(100):
            creator.pipe.send(trades(n, 1))
            assert (await anext(reader))["price"].tolist() == [n + 0.5]
            assert creator.receive() == 1

    run(test())


def test_a_reader_elsewhere_is_lapped_and_told(name: str, creator: Process) -> None:
    reader = Feed.attach(name).trades.reader()
    creator.decode(trades(0, CAPACITY + 5))
    assert reader.read()["price"].tolist() == [n + 0.5 for n in range(5, CAPACITY + 5)]
    assert reader.lost == 5


def test_last_values_are_seen_elsewhere(name: str, creator: Process) -> None:
    feed = Feed.attach(name)
    assert np.isnan(feed.snapshot()["bid"]).all()
    for bid in (10.0, 11.5):
        creator.decode(quote(bid))
        assert (feed.last["bid"][0], feed.last["ask"][0]) == (bid, bid + 1)
        (row,) = feed.snapshot()
        assert (row["bid"], row["bid_size"], row["quote_recv_ns"]) == (bid, 3, 123)


def test_an_attached_feed_writes_nothing(name: str) -> None:
    with make_feed(name) as feed:
        attached = Feed.attach(name)
        for ring in attached.rings.values():
            with pytest.raises(FeedError, match="reading only"):
                ring.append(np.zeros(1, ring.dtype))
        with pytest.raises(ValueError, match="read-only"):
            attached.last["bid"][0] = 1.0
        assert not hasattr(attached, "add_gap")
        feed.add_gap(1, Scope.FARM, GapCause.CONNECTION_LOST)
        assert attached.gaps.reader(start="oldest").read()["scope"].tolist() == [Scope.FARM]


# --- crashes ---


def test_a_killed_creator_leaves_its_readers_what_is_there(name: str, creator: Process) -> None:
    feed = Feed.attach(name)
    reader = feed.trades.reader()
    creator.decode(trades(0, 3) + quote(10.0))
    assert feed.writer_alive
    creator.kill()
    assert not feed.writer_alive
    assert reader.read()["price"].tolist() == [0.5, 1.5, 2.5]
    assert not reader.wait(0)
    assert feed.snapshot()["bid"].tolist() == [10.0]
    assert list(feed.instruments) == ["AAPL"]
    assert list(feed.texts) == ["", "<other>", "ARCA"]
    late = Feed.attach(name)
    assert rows_of(late) == [0.5, 1.5, 2.5]
    assert not late.writer_alive


def read_labels(name: str, pipe: Connection, last: int) -> None:
    """Attach, and read generation and label of the first instrument until its label is the last one."""
    instruments = Feed.attach(name).instruments
    pipe.send("ready")
    wrong: list[tuple[int, str, int]] = []
    seen: set[str] = set()
    while f"X{last}" not in seen:
        generation = instruments.generation(0)
        label, con_id = instruments[0], instruments.con_id(0)
        seen.add(label)
        # The index had X1 in generation 0, X2 in generation 2, and so on. A free one has no label.
        is_older = label != "" and 2 * int(label[1:]) - 2 < generation
        if is_older or (con_id and 2 * con_id - 2 < generation):
            wrong.append((generation, label, con_id))
    pipe.send((wrong, len(seen)))


def test_no_reader_sees_a_new_generation_with_an_old_label(name: str) -> None:
    clock = iter(range(1 << 40))
    with Feed(2, name=name, max_instruments=1, keep_instrument_s=1e-6, clock=lambda: next(clock)) as feed:
        feed.instrument_of(Contract(1), "X1")
        reader = Process(read_labels, name, 20_000)
        assert reader.receive() == "ready"
        for con_id in range(2, 20_001):
            feed.free_unused()
            feed.free_unused()
            assert feed.instrument_of(Contract(con_id), f"X{con_id}") == 0
        wrong, seen = reader.receive()
        reader.end()
    assert wrong == []
    assert seen > 2  # it was a race


def test_a_killed_creators_name_is_free(name: str, creator: Process) -> None:
    old = Feed.attach(name)
    creator.decode(trades(0, 3))
    creator.kill()
    with make_feed(name) as feed:
        new = Feed.attach(name)
        assert (rows_of(new), new.writer_alive) == ([], True)
        Decoder(feed, server_version=VERSION).feed_bytes(trades(7, 1))
        assert rows_of(new) == [7.5]
    assert (rows_of(old), old.writer_alive) == ([0.5, 1.5, 2.5], False)


def test_a_waiting_reader_survives_the_creator(name: str, creator: Process) -> None:
    reader = Feed.attach(name).trades.reader()
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(reader.wait(0.5)), daemon=True)
    thread.start()
    creator.kill()
    thread.join(TIMEOUT_S)
    assert woken == [False]


# --- exits without `close` ---


HOLDER = """
import os, signal, sys
from ibfast import Decoder, Feed

feed = Feed(1024, name=sys.argv[1], max_instruments=8, max_texts=64)
reader = feed.trades.reader()
{ends}
"""
FORKS = """
child = os.fork()
if not child:
    {ends}
assert os.waitpid(child, 0)[1] == 0
Feed.attach(sys.argv[1])
assert Feed.attach(sys.argv[1]).writer_alive
os.kill(os.getpid(), signal.SIGKILL)
"""
ENDS = {
    "its last line": ("", 0),
    "an exception": ("raise ValueError", 1),
    "sys.exit": ("sys.exit(3)", 3),
    "Ctrl-C": ("signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)",
               -signal.SIGINT),
    "an exception while others refer to it": ("decoder = Decoder(feed, server_version=176); del feed; 1 / 0", 1),
    "close and then its last line": ("feed.close()", 0),
}  # fmt: skip


def run_holder(name: str, ends: str) -> int:
    command = [sys.executable, "-c", HOLDER.format(ends=ends), name]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False).returncode


@pytest.mark.parametrize("how", ENDS)
def test_a_process_that_exits_leaves_no_memory(name: str, how: str) -> None:
    ends, status = ENDS[how]
    assert run_holder(name, ends) == status
    assert not Segment.path_of(name).exists()


@pytest.mark.parametrize("ends", ["sys.exit()", "feed.close(); sys.exit()", "del feed, reader; sys.exit()"])
def test_a_forked_child_leaves_the_feed_to_its_parent(name: str, ends: str) -> None:
    """The parent kills itself, so that only the child can have removed something."""
    assert run_holder(name, FORKS.format(ends=ends)) == -signal.SIGKILL
    assert Segment.path_of(name).exists()


def test_a_feed_that_nothing_refers_to_leaves_no_memory(name: str) -> None:
    feed = make_feed(name)
    ring = feed.trades
    del feed
    gc.collect()
    assert rows_of(Feed.attach(name)) == []
    del ring
    gc.collect()
    assert not Segment.path_of(name).exists()


# --- names ---


def test_a_name_is_taken_while_its_creator_lives(name: str, creator: Process) -> None:
    creator.decode(trades(0, 1))
    with pytest.raises(FeedError, match="exists already: attach to it"):
        make_feed(name)
    assert rows_of(Feed.attach(name)) == [0.5]


def test_a_name_is_taken_for_other_processes_and_free_after_close(name: str) -> None:
    feed = make_feed(name)
    attached = Feed.attach(name)
    second = Process(try_to_create, name)
    assert "exists already" in second.receive()
    second.end()
    with pytest.raises(FeedError, match="exists already"):
        make_feed(name)
    feed.close()
    feed.close()
    with pytest.raises(FeedError, match="there is no feed named"):
        Feed.attach(name)
    Decoder(feed, server_version=VERSION).feed_bytes(trades(0, 1))
    assert (rows_of(feed), rows_of(attached), attached.writer_alive) == ([0.5], [0.5], False)
    third = Process(try_to_create, name)
    assert third.receive() == "created"
    third.end()


def test_of_many_who_want_a_name_one_gets_it(name: str) -> None:
    """What a dead process left behind is there; all find that nobody holds it, at the same time."""
    contenders = 8
    for _ in range(20):
        Segment.path_of(name).write_bytes(b"left behind")
        start = threading.Barrier(contenders)
        feeds: list[Feed] = []

        def contend(start: threading.Barrier, feeds: list[Feed]) -> None:
            start.wait(TIMEOUT_S)
            with contextlib.suppress(FeedError):
                feeds.append(Feed(2, name=name, max_instruments=1, max_texts=2))

        threads = [threading.Thread(target=contend, args=(start, feeds)) for _ in range(contenders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        (feed,) = feeds
        feed.add_instrument("x")
        attached = Feed.attach(name)
        assert attached.writer_alive
        assert len(attached.instruments) == 1
        feed.close()
    assert list(Segment.path_of(name).parent.glob(f"*{name}*")) == []


def test_there_is_no_such_feed(name: str) -> None:
    with pytest.raises(FeedError, match="is the process that creates it running"):
        Feed.attach(name)


@pytest.mark.parametrize("wrong", ["a/b", "..\\x", "ä", "with space", "a" * 101, "x\n"])
def test_names_are_plain(wrong: str) -> None:
    with pytest.raises(FeedError, match="made of letters"):
        Feed(2, name=wrong)
    with pytest.raises(FeedError, match="made of letters"):
        Feed.attach(wrong)


def overwrite(path: Path, field: str, value: int) -> None:
    """Change a field of a feed's header."""
    dtype, offset = HEADER.fields[field][:2]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.array(value, dtype).tobytes())


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("magic", 0, "not complete yet"),
        ("layout", 12345, "other records"),
        ("total_bytes", 1 << 40, "other records"),
        ("capacity", CAPACITY * 2, "other records"),
        ("max_instruments", 9, "other records"),
        ("max_texts", 1 << 31, "other records"),
    ],
)
def test_a_feed_of_another_shape_is_refused(name: str, field: str, value: int, reason: str) -> None:
    with make_feed(name):
        overwrite(Segment.path_of(name), field, value)
        with pytest.raises(FeedError, match=reason):
            Feed.attach(name)


@pytest.mark.parametrize(("nbytes", "reason"), [(0, "can't be read"), (10, "not complete"), (64, "not complete")])
def test_what_is_no_feed_is_refused(name: str, nbytes: int, reason: str) -> None:
    Segment.path_of(name).write_bytes(b"\0" * nbytes)
    with pytest.raises(FeedError, match=reason):
        Feed.attach(name)
    make_feed(name).close()


def test_a_feed_that_was_cut_off_is_refused(name: str) -> None:
    with make_feed(name):
        whole = Segment.path_of(name).read_bytes()
    for nbytes in (128, len(whole) // 2, len(whole) - 64):
        Segment.path_of(name).write_bytes(whole[:nbytes])
        with pytest.raises(FeedError, match="other records"):
            Feed.attach(name)


def test_something_else_has_the_name(name: str) -> None:
    path = Segment.path_of(name)
    path.mkdir()
    try:
        with pytest.raises(FeedError, match="in the way"):
            make_feed(name)
        with pytest.raises(FeedError, match="can't be read"):
            Feed.attach(name)
    finally:
        path.rmdir()


@pytest.mark.parametrize("capacity", [1 << 48, 1 << 60])
def test_more_memory_than_there_is(name: str, capacity: int) -> None:
    with pytest.raises(FeedError, match="no memory for a feed"):
        Feed(capacity, name=name)
    assert list(Segment.path_of(name).parent.glob(f"*{name}*")) == []
