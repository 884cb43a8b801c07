"""What was missed: read and encoded once, in small pieces, and every row of it or none."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.fanout.encoding import histories
from ibfast.fanout.encoding.batcher import Batcher, Lane, Seat
from ibfast.fanout.encoding.channels import Channel
from ibfast.fanout.encoding.histories import ENCODED_ROWS, SCANNED_ROWS, Histories, History
from ibfast.fanout.encoding.json import JsonDialect
from ibfast.fanout.encoding.state_cache import Since
from ibfast.fanout.server import FanoutServer
from ibfast.fanout.turns import Turns
from ibfast.records import Kind
from tests.support.fanout_client import JsonClient, client_of, rows_of, serving
from tests.support.fanout_desk import Desk, no_fault
from tests.support.loops import Run, until

RESUMED = 3000
"""Rows that are missed: many pieces of them."""


class Office:
    """A batcher of a desk's trades, nobody being sent any."""

    def __init__(self, capacity: int = 1 << 12) -> None:
        self.desk = Desk(capacity)
        for symbol in ("AAPL", "MSFT"):
            asyncio.run(self.desk.subscribe(symbol, "TRADES"))
        self.own = {self.desk.subscription(symbol).req_id for symbol in ("AAPL", "MSFT")}
        self.batcher = Batcher(
            self.desk.feed, lambda req_ids: np.isin(req_ids, list(self.own)), lambda frames, audience: None, set,
            lambda interval_ms: None, lambda loss: None, no_fault,
        )  # fmt: skip

    def seat(self, symbol: str = "AAPL") -> tuple[Lane, Seat]:
        instrument = self.desk.feed.instruments.index(symbol)
        channel = Channel(instrument, ("trades",), frozenset({Kind.L1_LAST}), interval_ms=10, ordered=True)
        return self.batcher.join(JsonDialect(self.desk.feed), channel, Since(1, 0))


def prices(frames: bytes) -> list[float]:
    """The prices in JSON messages, in their order."""
    found, at = list[float](), 0
    while at < len(frames):
        length, start = frames[at + 1], at + 2
        if length > 125:
            width = 2 if length == 126 else 8
            length, start = int.from_bytes(frames[start : start + width], "big"), start + width
        for piece in orjson.loads(frames[start : start + length])["pieces"]:
            found += [row["price"] for row in piece["rows"]]
        at = start + length
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 5)), max_size=8), st.integers(0, 400))
def test_it_has_every_row_after_its_number_whatever_comes_meanwhile(steps: list[tuple[int, int]], before: int) -> None:
    office = Office()
    lane, seat = office.seat()
    numbers = itertools.count(1)
    office.desk.trade("AAPL", *(float(next(numbers)) for _ in range(before)))
    after_seq, expected = office.desk.feed.seq, list[float]()
    history = History(office.batcher, lane, seat, after_seq)
    for rows, pieces in steps:
        new = [float(next(numbers)) for _ in range(rows)]
        expected += new
        office.desk.trade("AAPL", *new)
        office.desk.trade("MSFT", *new)
        office.desk.foreign_trade("AAPL", -1.0)
        for _ in range(pieces):
            history.advance(0)
    assert not history.is_lost
    assert prices(history.frames(0)) == expected


def test_a_piece_is_small() -> None:
    """However much was missed, and however little of it is the channel's."""
    office = Office(1 << 16)
    lane, seat = office.seat()
    after_seq = office.desk.feed.seq
    for _ in range(60):
        office.desk.trade("MSFT", *[2.0] * 1000)
    office.desk.trade("AAPL", *[1.0] * 1000)
    history = History(office.batcher, lane, seat, after_seq)
    (reader,) = history._readers.values()
    (pieces, scanned, encoded) = (0, reader.position, 0)
    is_over = False
    while not is_over:
        is_over = history.advance(0)
        pieces += 1
        assert reader.position - scanned <= SCANNED_ROWS
        scanned = reader.position
        recording = history._recordings.get(0)
        frames = prices(b"".join(recording.frames)) if recording is not None else []
        assert len(frames) - encoded <= ENCODED_ROWS
        encoded = len(frames)
    assert encoded == 1000
    assert pieces >= 61_000 // SCANNED_ROWS + 1000 // ENCODED_ROWS


def test_rows_that_are_overwritten_before_they_are_read_are_lost_and_others_are_not() -> None:
    office = Office(1 << 14)
    lane, seat = office.seat()
    office.desk.trade("AAPL", *[1.0] * 4000)
    after_seq = office.desk.feed.seq
    office.desk.trade("AAPL", *[2.0] * 12_000)
    history = History(office.batcher, lane, seat, after_seq)
    assert not history.advance(0)
    office.desk.trade("AAPL", *[3.0] * 8000)  # over what is old, and over what was read
    assert prices(history.frames(0)) == [2.0] * 12_000 + [3.0] * 8000
    assert not history.is_lost
    late = History(office.batcher, lane, seat, office.desk.feed.seq - 30_000)
    assert not late.is_lost
    office.desk.trade("AAPL", *[4.0] * 8000)
    while not late.advance(0):
        pass
    assert late.is_lost
    assert History(office.batcher, lane, seat, after_seq).is_lost


def test_who_resumes_at_the_same_number_shares_a_history_and_the_oldest_are_forgotten() -> None:
    office = Office(1 << 14)
    lane, seat = office.seat()
    seq = office.desk.feed.seq
    kept = Histories(office.batcher, most_bytes=1_000_000)
    office.desk.trade("AAPL", *[1.0] * 3000)
    first = kept.of(lane, seat, seq)
    first.frames(0)
    assert kept.of(lane, seat, seq) is first
    for later in range(1, 20):
        kept.of(lane, seat, seq + later).frames(0)
    assert len(kept) < 19
    assert kept.nbytes < 1_000_000 + first.nbytes
    assert kept.of(lane, seat, seq) is not first


# --- over sockets ---


async def missed(server: FanoutServer, desk: Desk, rows: int) -> dict[str, Any]:
    """Have a client that is there no more miss so many trades of AAPL; return what it names when it comes back."""
    async with client_of(server) as gone:
        await gone.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=10)
        await gone.until("snapshot")
        resume = gone.seen()
    for first in range(0, rows, 100):
        desk.trade("AAPL", *(float(price) for price in range(first, first + 100)))
    return resume


async def resumed(client: JsonClient, resume: dict[str, Any], rows: int) -> None:
    """Come back: every row that was missed comes, once and in order."""
    answer = await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=10, resume=resume)
    assert answer["resumed"]
    found = list[float]()
    while len(found) < rows:
        found += [row["price"] for row in rows_of(await client.hear(), "trades")]
    assert found == [float(price) for price in range(rows)]


def test_a_storm_encodes_once_and_takes_turns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, pieces = list[int](), 0
    advance, take = History.advance, histories._Recording.advance

    def counted(self: History, channel_id: int) -> bool:
        nonlocal pieces
        pieces += 1
        return advance(self, channel_id)

    def recorded(self: Any, chunks: list[Any]) -> int:
        before = self.encoded
        nbytes = take(self, chunks)
        encoded.extend(len(rows["trades"]) for rows, _ in chunks[before : self.encoded])
        return nbytes

    monkeypatch.setattr(History, "advance", counted)
    monkeypatch.setattr(histories._Recording, "advance", recorded)

    async def test() -> None:
        async with serving(backlog_bytes=1 << 24) as (server, desk), contextlib.AsyncExitStack() as stack:
            resume = await missed(server, desk, RESUMED)
            clients = [await stack.enter_async_context(client_of(server)) for _ in range(20)]
            seconds = itertools.count()
            server.turns = server._hub.turns = Turns(3.0, lambda: float(next(seconds)))  # three pieces in a turn
            back = asyncio.gather(*(resumed(client, resume, RESUMED) for client in clients))
            seen = [pieces]
            while not back.done():
                await asyncio.sleep(0)
                seen.append(pieces)
            await back
            # A piece at the end may read what has come since, and find that there is none.
            assert max(later - first for first, later in itertools.pairwise(seen)) <= 2 * 3
            assert sum(encoded) == RESUMED

    run(test())


def test_a_resume_whose_rows_are_overwritten_meanwhile_is_none(run: Run) -> None:
    async def test() -> None:
        async with serving(capacity=1 << 14) as (server, desk), client_of(server) as client:
            resume = await missed(server, desk, 16_000)
            seconds = itertools.count()
            server.turns = server._hub.turns = Turns(1.0, lambda: float(next(seconds)))
            await client.say("subscribe", symbol="AAPL", data_type="TRADES", resume=resume)
            await until(lambda: len(server._hub.histories))
            desk.trade("AAPL", *[1.0] * 14_000)
            answer = await client.until("subscribed")
            assert (answer["resumed"], answer["reason"]) == (False, "the rings do not go back so far")
            assert (await client.hear())["op"] == "lag"
            assert (await client.hear())["op"] == "snapshot"

    run(test())


def test_who_goes_away_amid_a_resume_leaves_nothing(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk):
            async with client_of(server) as stays:
                await stays.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=1000)
                resume = await missed(server, desk, RESUMED)
                async with client_of(server) as client:
                    seconds = itertools.count()
                    server.turns = server._hub.turns = Turns(1.0, lambda: float(next(seconds)))
                    await client.say("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=10, resume=resume)
                    await until(lambda: len(server._hub.histories))
                    client.socket.transport.abort()
                await until(lambda: len(server.connections) == 1)
                await until(lambda: 10 not in server._hub.batcher.windows)
            await until(lambda: not desk.lines)

    run(test())
