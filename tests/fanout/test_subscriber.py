"""What a subscriber gets that comes back, or that the rings have left behind: exactly what it missed, or the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ibfast.codec.positions import seq_of
from ibfast.fanout.encoding.histories import ENCODED_ROWS
from ibfast.fanout.server import FanoutServer
from ibfast.records import GapCause, Scope
from tests.support.fanout_client import JsonClient, client_of, rows_of, serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, until


async def left_at(server: FanoutServer, desk: Desk, rows: int = 10, **request: Any) -> dict[str, Any]:
    """Have a client that saw so many trades go; return where it has to go on."""
    async with client_of(server) as client:
        await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0, **request)
        desk.trade("AAPL", *(float(i) for i in range(rows)))
        await client.news("trades", rows if request.get("mode") != "conflate" else 1)
        return client.seen()


async def resume(client: JsonClient, seen: dict[str, Any], **request: Any) -> dict[str, Any]:
    return await client.ask(
        "subscribe", **({"symbol": "AAPL", "data_type": "TRADES", "interval_ms": 0, "resume": seen} | request)
    )


def test_who_comes_back_gets_what_it_missed_and_no_more(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as other:
            await other.ask("subscribe", symbol="MSFT", data_type="TRADES")
            seen = await left_at(server, desk)
            desk.trade("AAPL", *(float(i) for i in range(10, 20)))
            desk.trade("MSFT", 1.0)
            desk.foreign_trade("AAPL", 666.0)
            desk.feed.add_gap(1, Scope.LINK, GapCause.LINK_LOST, instrument=0, req_id=desk.subscription("AAPL").req_id)
            desk.trade("AAPL", *(float(i) for i in range(20, 30)))
            async with client_of(server) as client:
                answer = await resume(client, seen)
                assert answer["resumed"] is True
                assert "reason" not in answer
                desk.trade("AAPL", *(float(i) for i in range(30, 40)))
                rows = await client.news("trades", 30)
                assert [row["price"] for row in rows] == [float(i) for i in range(10, 40)]
                assert {"lag", "snapshot"} & {message["op"] for message in client.heard} == set()
                assert [message["cause"] for message in client.heard if message["op"] == "gap"] == ["LINK_LOST"]

    run(test())


@pytest.mark.parametrize("after", ["heartbeat", "pong"])
def test_other_messages_tell_as_well_how_far_a_client_has_come(run: Run, after: str) -> None:
    async def test() -> None:
        async with serving(heartbeat_s=0.2) as (server, desk):
            async with client_of(server) as client:
                await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=1000)
                desk.trade("AAPL", 1.0)
                await (client.ask("ping") if after == "pong" else client.until("heartbeat"))
                position = client.seen()
                seen = [row["price"] for message in client.heard for row in rows_of(message, "trades")]
                if after == "pong":
                    assert seen == []  # it is still to come, and so no message may speak of it
            async with client_of(server) as client:
                answer = await resume(client, position, interval_ms=1000)
                assert answer["resumed"] is True
                desk.trade("AAPL", 2.0)
                rows = [row["price"] for row in await client.news("trades", 2 - len(seen))]
                assert seen + rows == [1.0, 2.0]

    run(test())


def test_a_conflated_subscription_resumes_with_the_latest(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk):
            seen = await left_at(server, desk, mode="conflate")
            desk.trade("AAPL", 11.0, 12.0, 13.0)
            async with client_of(server) as client:
                assert (await resume(client, seen, mode="conflate"))["resumed"] is True
                assert [row["price"] for row in await client.news("trades", 1)] == [13.0]

    run(test())


def test_much_that_was_missed_comes_in_order(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk):
            seen = await left_at(server, desk, ordered=True)
            for i in range(10, 3010, 10):
                desk.trade("AAPL", *(float(i + n) for n in range(10)))
            async with client_of(server) as client:
                await resume(client, seen, ordered=True)
                rows = await client.news("trades", 3000)
                assert [row["price"] for row in rows] == [float(i) for i in range(10, 3010)]
                messages = [message for message in client.heard if message["op"] == "data"]
                assert len(messages) == -(-3000 // ENCODED_ROWS)
                assert [seq_of(message["position"]) for message in messages] == [
                    *(rows_of(message, "trades")[-1]["seq"] for message in messages[:-1]), desk.feed.seq,
                ]  # fmt: skip

    run(test())


async def lost(client: JsonClient, answer: dict[str, Any], from_seq: int, why: str) -> None:
    assert answer["resumed"] is False
    assert why in answer["reason"]
    lag, snapshot = await client.hear(), await client.hear()
    assert (lag["op"], lag["channel"], lag["from_seq"], lag["rows"]) == ("lag", 0, from_seq, None)
    assert (snapshot["op"], seq_of(snapshot["position"])) == ("snapshot", lag["to_seq"])


def test_what_the_rings_do_not_hold_any_more_is_a_lag(run: Run) -> None:
    async def test() -> None:
        async with serving(capacity=64) as (server, desk):
            seen = await left_at(server, desk)
            desk.trade("AAPL", *(float(i) for i in range(10, 80)))
            async with client_of(server) as client:
                await lost(client, await resume(client, seen), seq_of(seen["position"]), "rings")
                assert client.heard[-1]["rows"]["trades"][0]["price"] == 79.0
                desk.trade("AAPL", 80.0)
                assert [row["price"] for row in await client.news("trades", 1)] == [80.0]

    run(test())


def test_an_epoch_that_is_over_is_a_lag(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk):
            seen = await left_at(server, desk)
            async with client_of(server) as client:
                await lost(client, await resume(client, seen | {"epoch": "other"}), 0, "epoch")
                assert client.heard[-1]["rows"]["trades"][0]["price"] == 9.0

    run(test())


def test_a_number_that_has_not_come_is_a_lag(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk):
            seen = await left_at(server, desk)
            async with client_of(server) as client:
                await lost(client, await resume(client, seen | {"position": 1 << 60}), desk.feed.seq, "not come")

    run(test())


def test_rows_that_nobody_wanted_meanwhile_are_a_lag(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk), client_of(server) as other:
            await other.ask("subscribe", symbol="MSFT", data_type="TRADES")
            seen = await left_at(server, desk)
            await until(lambda: desk.cancelled)
            desk.trade("MSFT", 1.0)
            async with client_of(server) as client:
                await lost(client, await resume(client, seen), seq_of(seen["position"]), "nobody")

    run(test())


@pytest.mark.parametrize("interval_ms", [0, 50])
def test_rows_that_were_overwritten_before_they_were_read_are_a_lag(run: Run, interval_ms: int) -> None:
    async def test() -> None:
        async with serving(capacity=64) as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=interval_ms, ordered=True)
            desk.trade("AAPL", 1.0)
            assert len(await client.news("trades", 1)) == 1
            seq = desk.feed.seq
            await asyncio.sleep(0)
            desk.trade("AAPL", *(float(i) for i in range(100)))
            assert await client.until("lag") == {
                "op": "lag", "channel": 0, "from_seq": seq, "to_seq": desk.feed.seq, "rows": None, "reason": "overrun",
            }  # fmt: skip
            snapshot = await client.hear()
            assert (snapshot["op"], snapshot["rows"]["trades"][0]["price"]) == ("snapshot", 99.0)
            desk.trade("AAPL", 7.0)
            assert [row["price"] for row in await client.news("trades", 1)] == [7.0]

    run(test())
