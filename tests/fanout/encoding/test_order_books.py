"""Order books and single snapshots in both dialects: whole from the first message on, or said not to be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ibfast.codec.positions import seq_of
from ibfast.fanout.server import FanoutServer
from ibfast.records import Kind
from tests.support.fanout_binary_client import BinaryClient, binary_client
from tests.support.fanout_client import client_of, serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, until

INSERT, UPDATE, DELETE = range(3)
ASK, BID = 0, 1
COLUMNS = ("kind", "side", "position", "operation", "price", "size")


@pytest.fixture(params=["json", "binary"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def reader_of(server: FanoutServer, dialect: str) -> AsyncIterator[BookReader]:
    async with client_of(server) if dialect == "json" else binary_client(server) as client:
        yield BookReader(client)


class BookReader:
    """Keeps one book by what it is told, and no more.

    Attributes:
        book: price and size of the levels of each side.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.book: dict[int, list[tuple[float, float]]] = {ASK: [], BID: []}

    async def subscribe(self, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.ask("subscribe", symbol="AAPL", data_type="DEPTH", **options)
        if answer["resumed"] and isinstance(self.client, BinaryClient):
            empty = await self.client.until("snapshot")
            assert (empty["rows"], empty["seq"]) == ({}, seq_of(options["resume"]["position"]))
        return answer

    async def until_snapshot(self) -> dict[str, Any]:
        """Hear until a snapshot has come, and return what came before it, if that was a lag."""
        before: dict[str, Any] = {}
        while (message := await self.hear())["op"] != "snapshot":
            before = message
        return before if before.get("op") == "lag" else {}

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.client.hear()
        if message["op"] == "snapshot":
            self.book = {ASK: [], BID: []}
            self._take(message["rows"].get("depth", ()))
        elif message["op"] == "data":
            if "pieces" in message:
                for piece in message["pieces"]:
                    self._take(piece["rows"])
            else:
                self._take(self.client.rows["depth"][-1])
        return message

    def _take(self, rows: Any) -> None:
        for row in rows:
            kind, side, position, operation, price, size = (row[name] for name in COLUMNS)
            levels = self.book.get(side, [])
            if kind in ("DEPTH_RESET", Kind.DEPTH_RESET):
                self.book = {ASK: [], BID: []}
            elif operation == INSERT:
                levels.insert(position, (float(price), float(size)))
            elif operation == UPDATE:
                levels[position] = (float(price), float(size))
            else:
                del levels[position]

    async def until_book(self, *asks: float) -> None:
        """Hear until the asks are these."""
        while [price for price, _ in self.book[ASK]] != list(asks):
            await self.hear()


async def old_book(server: FanoutServer, desk: Desk, reader: BookReader, **options: Any) -> None:
    """Have a book of ten levels, of which the rings hold no more than the best one's last changes."""
    await reader.subscribe(**options)
    await reader.until_snapshot()
    for level in range(10):
        desk.book("AAPL", (level, INSERT, ASK, 10.0 + level, 1.0))
    for size in range(200):
        desk.book("AAPL", (0, UPDATE, ASK, 10.0, float(size)))
        if size % 20 == 0:
            server._hub.batcher.flush(options.get("interval_ms", 10))
            server._hub.batcher.ledger.keep_up()


WHOLE = [10.0 + level for level in range(10)]


@pytest.mark.parametrize("options", [{"interval_ms": 50}, {"mode": "conflate", "interval_ms": 50}, {"times": "ns"}])
def test_who_joins_gets_the_whole_book(run: Run, dialect: str, options: dict[str, Any]) -> None:
    async def test() -> None:
        async with (
            serving(capacity=64) as (server, desk),
            reader_of(server, "json") as first,
            reader_of(server, dialect) as second,
        ):
            await old_book(server, desk, first)
            await second.subscribe(**options)
            assert await second.until_snapshot() == {}
            assert [price for price, _ in second.book[ASK]] == WHOLE
            assert second.book[ASK][0] == (10.0, 199.0)
            desk.book("AAPL", (0, DELETE, ASK, 0.0, 0.0), (9, INSERT, ASK, 20.0, 1.0))
            await second.until_book(*WHOLE[1:], 20.0)

    run(test())


def test_who_joins_later_gets_the_whole_book_though_nobody_had_it_meanwhile(run: Run, dialect: str) -> None:
    """The gateway still sends it: a subscription outlives its last subscriber by a moment."""

    async def test() -> None:
        async with serving(capacity=64) as (server, desk):
            async with reader_of(server, dialect) as first:
                await old_book(server, desk, first)
            await until(lambda: not server.connections)
            for size in range(200):
                desk.book("AAPL", (0, UPDATE, ASK, 10.0, float(size)))
                server._hub.batcher.ledger.keep_up()
            async with reader_of(server, dialect) as second:
                await second.subscribe()
                assert await second.until_snapshot() == {}
                assert [price for price, _ in second.book[ASK]] == WHOLE

    run(test())


def test_a_book_is_whole_after_its_rows_were_overwritten_in_the_rings(run: Run, dialect: str) -> None:
    async def test() -> None:
        async with serving(capacity=64) as (server, desk), reader_of(server, dialect) as reader:
            await reader.subscribe(interval_ms=1000)
            await reader.until_snapshot()
            for level in range(10):
                desk.book("AAPL", (level, INSERT, ASK, 10.0 + level, 1.0))
            for size in range(200):  # within one window
                desk.book("AAPL", (0, UPDATE, ASK, 10.0, float(size)))
                server._hub.batcher.ledger.keep_up()
            lag = await reader.until_snapshot()
            assert (lag["reason"], lag["rows"], lag["to_seq"]) == ("overrun", None, desk.feed.seq)
            assert [price for price, _ in reader.book[ASK]] == WHOLE
            desk.book("AAPL", (0, DELETE, ASK, 0.0, 0.0))
            await reader.until_book(*WHOLE[1:])

    run(test())


def test_a_book_that_nobody_can_know_is_said_to_be_so_until_it_is_reset(run: Run, dialect: str) -> None:
    async def test() -> None:
        async with serving(capacity=64) as (server, desk), reader_of(server, dialect) as reader:
            await reader.subscribe(interval_ms=0)
            await reader.until_snapshot()
            desk.book("AAPL", *[(0, INSERT, ASK, 10.0, 1.0)] * 100)
            assert (await reader.until_snapshot())["reason"] == "incomplete"
            assert reader.book == {ASK: [], BID: []}
            for mode in ("stream", "conflate"):
                async with reader_of(server, dialect) as joiner:
                    await joiner.subscribe(mode=mode, interval_ms=10)
                    lag = await joiner.until_snapshot()
                    assert (lag["reason"], lag["rows"], lag["from_seq"]) == ("incomplete", 0, lag["to_seq"])
                    assert joiner.book == {ASK: [], BID: []}
            desk.reset_book("AAPL")
            desk.book("AAPL", (0, INSERT, ASK, 7.0, 1.0))
            await reader.until_book(7.0)
            async with reader_of(server, dialect) as joiner:
                await joiner.subscribe()
                assert await joiner.until_snapshot() == {}
                assert joiner.book[ASK] == [(7.0, 1.0)]

    run(test())


@pytest.mark.parametrize("mode", ["stream", "conflate"])
def test_who_comes_back_goes_on_with_its_own_book(run: Run, dialect: str, mode: str) -> None:
    async def test() -> None:
        async with serving() as (server, desk):
            options = {"interval_ms": 10, "mode": mode}
            async with reader_of(server, dialect) as first:
                epoch = (await first.subscribe(**options))["channels"][0]["epoch"]
                for level in range(10):
                    desk.book("AAPL", (level, INSERT, ASK, 10.0 + level, 1.0))
                await first.until_book(*WHOLE)
                (position,) = (await first.client.ask("ping"))["positions"]
                assert seq_of(position) == desk.feed.seq
            desk.book("AAPL", (3, DELETE, ASK, 0.0, 0.0), (0, UPDATE, ASK, 9.5, 2.0))
            desk.book("AAPL", (9, INSERT, ASK, 30.0, 3.0))
            async with reader_of(server, dialect) as second:
                second.book = first.book
                answer = await second.subscribe(resume={"epoch": epoch, "position": position}, **options)
                assert answer["resumed"] is True
                await second.until_book(9.5, *WHOLE[1:3], *WHOLE[4:], 30.0)
                desk.book("AAPL", (0, DELETE, ASK, 0.0, 0.0))
                await second.until_book(*WHOLE[1:3], *WHOLE[4:], 30.0)

    run(test())


# --- single snapshots ---


def test_a_single_snapshot_of_what_is_known_comes_at_once(run: Run, dialect: str) -> None:
    async def test() -> None:
        async with serving() as (server, desk), reader_of(server, dialect) as other, reader_of(server, dialect) as one:
            await other.client.ask("subscribe", symbol="AAPL", data_type="ALL")
            desk.quote("AAPL", 10.0, 11.0)
            for _ in range(2):
                answer = await one.client.ask("subscribe", symbol="AAPL", data_type="QUOTES", mode="snapshot")
                told = [await one.client.hear() for _ in range(3)]
                assert [message["op"] for message in told] == ["state", "snapshot", "ended"]
                assert float(told[1]["rows"]["quotes"][0]["ask"]) == 11.0
                assert (told[2]["subscription"], told[2]["code"]) == (answer["subscription"], "DONE")
                assert told[2]["message"] == "the snapshot was sent"
            (connection,) = [each for each in server.connections if not each.session.subscriber.subscriptions]
            assert not connection.needs_looks

    run(test())


def test_a_single_snapshot_waits_for_the_first_row(run: Run, dialect: str) -> None:
    async def test() -> None:
        async with serving() as (server, desk), reader_of(server, dialect) as one:
            await one.client.ask("subscribe", symbol="AAPL", data_type="TRADES", mode="snapshot", interval_ms=1000)
            assert (await one.client.ask("update", subscription=1, interval_ms=10))["code"] == "BAD_FIELD"
            assert (await one.client.ask("list"))["subscriptions"][0]["subscription"] == 1
            desk.trade("AAPL", 5.0)
            snapshot = await one.client.until("snapshot")
            assert float(snapshot["rows"]["trades"][0]["price"]) == 5.0
            assert (await one.client.hear())["op"] == "ended"

    run(test())


def test_a_single_snapshot_of_what_never_comes_is_empty_and_says_so(
    run: Run, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibfast.fanout.session.SNAPSHOT_WAIT_S", 0.1)

    async def test() -> None:
        async with serving() as (server, _), reader_of(server, dialect) as one:
            resume = {"epoch": "another", "position": 5}
            answer = await one.client.ask(
                "subscribe", symbol="AAPL", data_type="TRADES", mode="snapshot", resume=resume
            )
            assert answer["resumed"] is False
            assert (await one.client.until("snapshot", "lag"))["rows"] == {}
            ended = await one.client.hear()
            assert (ended["op"], ended["code"]) == ("ended", "DONE")
            assert "no data" in ended["message"]

    run(test())


def test_a_state_is_known_to_whoever_wants_more_of_the_instrument(run: Run, dialect: str) -> None:
    """ALL is a line for quotes, ticks and trades; a later subscription of one of these does not make another forget."""

    async def test() -> None:
        async with serving() as (server, desk), reader_of(server, dialect) as one, reader_of(server, dialect) as other:
            await one.client.ask("subscribe", symbol="AAPL", data_type="QUOTES")
            desk.quote("AAPL", 10.0, 11.0)
            await asyncio.sleep(0)
            await other.client.ask("subscribe", contract={"con_id": 1}, data_type="ALL")
            snapshot = await other.client.until("snapshot")
            assert float(snapshot["rows"]["quotes"][0]["bid"]) == 10.0

    run(test())
