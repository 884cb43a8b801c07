"""Readers against a writer that never waits: every row delivered is whole and in its place, the rest is counted.

Rows are checksummed; rings are small, so that the writer comes round under the readers' hands. Each test makes sure
that this really happened, by a reader that stands still until it has been lapped.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ibfast import Decoder, Feed, Reader, RingBuffer
from tests.support.streams import TICK_BY_TICK, framed, text_payload

JOIN_S = 60.0
ROW = np.dtype([("position", "u8"), ("check", "u8", 7)])
PATTERN_ROWS = 1 << 17
"""Row n of a ring is row n % PATTERN_ROWS of the pattern: prepared, so that the writer runs without the interpreter."""


def make_pattern() -> Any:
    rows = np.zeros(2 * PATTERN_ROWS, ROW)
    rows["position"] = np.arange(2 * PATTERN_ROWS) % PATTERN_ROWS
    factors = np.array([0x9E3779B97F4A7C15 ^ (k << 7 | 1) for k in range(7)], np.uint64)
    rows["check"] = (rows["position"][:, None] + np.uint64(1)) * factors
    return rows


PATTERN = make_pattern()


def check_rows(rows: Any, position: int) -> None:
    """These are the ring's rows from `position` on, to the last byte."""
    start = position % PATTERN_ROWS
    assert rows.tobytes() == PATTERN[start : start + len(rows)].tobytes()


@pytest.fixture(autouse=True)
def quick_turns() -> Iterator[None]:
    """Readers that never sleep would make the writer wait 5 ms for the interpreter after every append."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


class Consumer(threading.Thread):
    """A thread that reads a ring until it is told that no more comes.

    Attributes:
        delivered: rows that came out whole.
        failure: what went wrong in the thread.
    """

    def __init__(self, reader: Reader, step: Callable[[Consumer], None], begin: threading.Event | None = None) -> None:
        super().__init__(daemon=True)
        self.reader = reader
        self.delivered = 0
        self.failure: BaseException | None = None
        self.written = threading.Event()
        self._begin = begin
        self._step = step

    def run(self) -> None:
        try:
            if self._begin is not None:
                assert self._begin.wait(JOIN_S)
            while not self.written.is_set() or self.reader.pending:
                self._step(self)
        except BaseException as failure:
            self.failure = failure
            raise

    def finish(self, published: int) -> None:
        self.written.set()
        self.join(JOIN_S)
        assert not self.is_alive()
        assert self.failure is None
        assert self.delivered + self.reader.lost == published
        assert self.reader.position == published


def read_some(consumer: Consumer, max_rows: int | None = None) -> None:
    rows = consumer.reader.read(max_rows)
    check_rows(rows, consumer.reader.position - len(rows))
    consumer.delivered += len(rows)


def read_few(consumer: Consumer) -> None:
    read_some(consumer, max_rows=7)


def wait_and_read(consumer: Consumer) -> None:
    if consumer.reader.wait(0.05):
        read_some(consumer)


def borrow_some(consumer: Consumer) -> None:
    with consumer.reader.borrowed() as batch:
        data = batch.rows.tobytes()
    if batch.intact:
        rows = np.frombuffer(data, ROW)
        check_rows(rows, consumer.reader.position - len(rows))
        consumer.delivered += len(rows)


@pytest.mark.parametrize(("capacity", "appends"), [(4, 10_000), (256, 20_000), (1 << 13, 2_000)])
def test_a_writer_races_readers(capacity: int, appends: int) -> None:
    ring = RingBuffer.create(ROW, capacity)
    lapped = threading.Event()
    steps = (read_some, read_few, wait_and_read, borrow_some)
    consumers = [Consumer(ring.reader(), step) for step in steps]
    sleepers = [Consumer(ring.reader(), step, begin=lapped) for step in (read_some, borrow_some)]
    for consumer in consumers + sleepers:
        consumer.start()
    # Appends of up to twice the ring: some pass readers in mid-copy, some leave them behind for good.
    sizes = np.random.default_rng(capacity).integers(1, 2 * capacity + 1, appends)
    for size in sizes.tolist():
        start = ring.published % PATTERN_ROWS
        ring.append(PATTERN[start : start + size])
        if ring.published > 2 * capacity:
            lapped.set()
    published = ring.published
    assert published == sizes.sum()
    for consumer in consumers + sleepers:
        consumer.finish(published)
    for sleeper in sleepers:
        assert sleeper.reader.lost > capacity


# --- a decoder as the writer ---

MESSAGES = 1 << 14
PIECE_NBYTES = 1 << 16
INSTRUMENTS = 61
ROUNDS = 24


def trades_stream() -> bytes:
    def payload(n: int) -> bytes:
        return text_payload(176, TICK_BY_TICK, n % INSTRUMENTS, 1, n, n + 0.25, 3 * n, n % 4, f"X{n % 5}", "")

    return framed(*map(payload, range(MESSAGES)))


def check_trades(rows: Any, position: int) -> None:
    n = (position + np.arange(len(rows))) % MESSAGES
    assert (rows["price"] == n + 0.25).all()
    assert (rows["size"] == 3 * n).all()
    assert (rows["event_ns"] == n * 1_000_000_000).all()
    assert (rows["req_id"] == n % INSTRUMENTS).all()
    assert (rows["attribs"] == n % 4).all()
    assert (rows["seq"] == position + 1 + np.arange(len(rows))).all()


def read_trades(consumer: Consumer) -> None:
    rows = consumer.reader.read()
    check_trades(rows, consumer.reader.position - len(rows))
    consumer.delivered += len(rows)


def borrow_trades(consumer: Consumer) -> None:
    with consumer.reader.borrowed() as batch:
        rows = batch.rows.copy()
    if batch.intact:
        check_trades(rows, consumer.reader.position - len(rows))
        consumer.delivered += len(rows)


@pytest.mark.parametrize("capacity", [64, 1 << 10])
def test_a_decoder_races_readers(capacity: int) -> None:
    feed = Feed(capacity)
    decoder = Decoder(feed, server_version=176)
    data = trades_stream()
    lapped = threading.Event()
    consumers = [Consumer(feed.trades.reader(), step) for step in (read_trades, borrow_trades)]
    sleeper = Consumer(feed.trades.reader(), read_trades, begin=lapped)
    for consumer in (*consumers, sleeper):
        consumer.start()
    for _ in range(ROUNDS):
        for start in range(0, len(data), PIECE_NBYTES):
            decoder.feed_bytes(data[start : start + PIECE_NBYTES])
        lapped.set()
    assert decoder.quarantined == 0
    assert feed.trades.published == ROUNDS * MESSAGES
    for consumer in (*consumers, sleeper):
        consumer.finish(ROUNDS * MESSAGES)
    assert sleeper.reader.lost >= MESSAGES - capacity
