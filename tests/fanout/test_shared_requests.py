"""A request at IB that a stream of the server's own process shares: subscribers come and go, and it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ibfast.errors import RequestError
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_client import JsonClient, client_of, serving
from tests.support.fanout_desk import Desk, contract_of
from tests.support.loops import Run, until

CAPACITY = 64
ASK, INSERT = 0, 0


def grow_book(desk: Desk, *prices: float) -> None:
    """Insert levels at the front of the book, one row each."""
    desk.book("AAPL", *((0, INSERT, ASK, price, 1.0) for price in prices))


@contextlib.asynccontextmanager
async def shared(**config: Any) -> AsyncIterator[tuple[FanoutServer, Desk]]:
    """A server in whose process a stream has the book of AAPL already."""
    async with serving(**({"linger_s": 0.0} | config)) as (server, desk):
        stream = await desk.subscribe(contract_of("AAPL"), "DEPTH")
        yield server, desk
        stream.unsubscribe()


async def book_of(client: JsonClient) -> tuple[list[float], str]:
    """Subscribe; return the prices of the state, and the reason of the lag before it."""
    answer = await client.ask("subscribe", symbol="AAPL", data_type="DEPTH", interval_ms=0)
    assert answer["op"] == "subscribed"
    reason = ""
    while (message := await client.hear())["op"] != "snapshot":
        reason = message["reason"]
    return [row["price"] for row in message["rows"].get("depth", [])], reason


@pytest.mark.parametrize("rows", [2, 2 * CAPACITY])
def test_a_subscriber_gets_all_that_came_before_it_or_is_told_that_it_does_not(run: Run, rows: int) -> None:
    async def test() -> None:
        async with shared(capacity=CAPACITY) as (server, desk), client_of(server) as client:
            grow_book(desk, *map(float, range(rows)))
            expected = ([1.0, 0.0], "") if rows < CAPACITY else ([], "incomplete")
            assert await book_of(client) == expected

    run(test())


@pytest.mark.parametrize("rows", [2, 2 * CAPACITY])
def test_what_came_while_nobody_had_it_is_no_hole_in_the_state(run: Run, rows: int) -> None:
    async def test() -> None:
        async with shared(capacity=CAPACITY) as (server, desk):
            grow_book(desk, -1.0)
            async with client_of(server) as client:
                assert await book_of(client) == ([-1.0], "")
            await until(lambda: not server.connections)
            grow_book(desk, *map(float, range(rows)))
            async with client_of(server) as client:
                expected = ([1.0, 0.0, -1.0], "") if rows < CAPACITY else ([], "incomplete")
                assert await book_of(client) == expected

    run(test())


def test_who_resumes_gets_what_came_while_nobody_had_it(run: Run) -> None:
    async def test() -> None:
        async with shared() as (server, desk):
            async with client_of(server) as client:
                await book_of(client)
                grow_book(desk, 1.0)
                await client.news("depth", 1)
                seen = client.seen()
            await until(lambda: not server.connections)
            grow_book(desk, 2.0, 3.0)
            async with client_of(server) as client:
                answer = await client.ask("subscribe", symbol="AAPL", data_type="DEPTH", interval_ms=0, resume=seen)
                assert answer["resumed"], answer
                assert [row["price"] for row in await client.news("depth", 2)] == [2.0, 3.0]

    run(test())


def test_a_book_that_ib_has_ended_is_no_part_of_the_next_one(run: Run) -> None:
    """Though its subscriber was not told yet, so that its channel is there."""

    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as one, client_of(server) as other:
            await book_of(one)
            grow_book(desk, 1.0)
            await one.news("depth", 1)
            for _, streams in desk.lines.values():
                for stream in streams:
                    stream.fail(RequestError(1, 317, "reset"))
            desk.lines.clear()
            assert (await book_of(other))[0] == []
            assert (await one.until("ended"))["code"] == "REFUSED"
            grow_book(desk, 2.0)
            await other.news("depth", 1)
            await other.ask("update", subscription=1, interval_ms=10)
            snapshot = await other.until("snapshot")
            assert [row["price"] for row in snapshot["rows"]["depth"]] == [2.0]

    run(test())
