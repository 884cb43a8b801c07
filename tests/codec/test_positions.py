"""Positions and epochs: what a client names that comes back is exact, or refused with the mistake that it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.codec.positions import CLASSES, Epoch, class_of, position_of, seq_of
from ibfast.fanout.encoding.channels import INTERVALS_MS, UNITS, interval_class
from tests.support.fanout_client import JsonClient, client_of, serving
from tests.support.loops import Run, until

WANTED = {"symbol": "AAPL", "data_type": "TRADES"}
SECOND = {"interval_ms": 1000}


def test_every_interval_and_unit_has_a_class_of_its_own() -> None:
    classes = [interval_class(interval_ms, unit) for interval_ms in INTERVALS_MS for unit in UNITS]
    assert classes == list(range(len(INTERVALS_MS) * len(UNITS)))
    assert len(classes) <= CLASSES


@given(st.integers(0, 2**64 - 1), st.integers(0, CLASSES - 1))
def test_a_position_is_a_number_and_its_class(seq: int, interval_class: int) -> None:
    position = position_of(seq, interval_class)
    assert (seq_of(position), class_of(position)) == (seq, interval_class)


@given(st.integers(0), st.integers(0, 15), st.integers(0, 15), st.integers(0))
def test_an_epoch_is_read_as_it_was_written(generation: int, asked: int, coded: int, since_seq: int) -> None:
    epoch = Epoch("9f2c51d07a3e4b18", generation, asked, coded, since_seq)
    assert Epoch.parse(str(epoch)) == epoch


@pytest.mark.parametrize("text", ["", "-", "a", "a-1-2-3", "a-1-2-3-4-5", "a-1-2-3-x", "a-1-2-3-", "a-1-2-3--4"])
def test_what_no_server_gave_is_no_epoch(text: str) -> None:
    assert Epoch.parse(text) is None


async def resumed(client: JsonClient, seen: dict[str, Any], **request: Any) -> tuple[bool, str]:
    """Come back; hold what follows, where it is refused, against what a client is to get then."""
    answer = await client.ask("subscribe", **(WANTED | request), resume=seen)
    if not answer["resumed"]:
        lag, snapshot = await client.until("lag"), await client.until("snapshot")
        assert lag["channel"] == snapshot["channel"] == answer["channels"][0]["channel"]
    return answer["resumed"], answer.get("reason", "")


def test_a_position_of_another_interval_is_refused(run: Run) -> None:
    """A client of two intervals that has one place for what it has seen last."""

    async def test() -> None:
        async with serving() as (server, desk):
            async with client_of(server) as client:
                await client.ask("subscribe", **WANTED, interval_ms=0)
                await client.ask("subscribe", **WANTED, **SECOND)
                await client.until("snapshot")
                slow = client.seen(1)
                desk.trade("AAPL", 1.0)
                assert len(await client.news("trades", 1)) == 1
                quick = client.seen(0)
                assert quick["position"] // CLASSES > slow["position"] // CLASSES
            async with client_of(server) as client:
                mixed = slow | {"position": quick["position"]}
                assert await resumed(client, mixed, **SECOND) == (
                    False, "the position is of class 0, and the epoch of class 12"
                )  # fmt: skip
                lag = next(message for message in client.heard if message["op"] == "lag")
                assert lag["from_seq"] == 0  # what it has is not known
                is_resumed, reason = await resumed(client, quick, **SECOND)
                assert not is_resumed
                assert "another subscription" in reason
                is_resumed, reason = await resumed(client, quick, interval_ms=0, times="ns")
                assert not is_resumed
                assert await resumed(client, slow, **SECOND) == (True, "")
                assert [row["price"] for row in await client.news("trades", 1)] == [1.0]

    run(test())


@pytest.mark.parametrize(
    "other",
    [{"data_type": "QUOTES"}, {"fields": ["price"]}, {"ordered": True}, {"mode": "conflate"}, {"symbol": "MSFT"}],
)
def test_an_epoch_of_a_subscription_to_something_else_is_refused(run: Run, other: dict[str, Any]) -> None:
    async def test() -> None:
        async with serving() as (server, desk):
            async with client_of(server) as client:
                await client.ask("subscribe", **WANTED)
                await client.until("snapshot")
                desk.trade("AAPL", 1.0)
                await client.news("trades", 1)
                seen = client.seen(0)
            async with client_of(server) as client:
                is_resumed, reason = await resumed(client, seen, **other)
                assert not is_resumed
                assert "another subscription" in reason
                assert await resumed(client, seen) == (True, "")

    run(test())


def test_windows_of_one_interval_and_two_units_have_positions_of_their_own(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            for times in UNITS:
                await client.ask("subscribe", **WANTED, times=times, interval_ms=0)
            desk.trade("AAPL", 1.0)
            data = [await client.until("data"), await client.until("data")]
            assert sorted(message["position"] for message in data) == [
                position_of(desk.feed.seq, 0), position_of(desk.feed.seq, 1),
            ]  # fmt: skip
            assert [[piece["channel"] for piece in message["pieces"]] for message in data] == [[0], [1]]

    run(test())


def test_a_line_that_was_closed_meanwhile_is_refused_though_no_number_has_passed(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk):
            async with client_of(server) as client:
                await client.ask("subscribe", **WANTED)
                desk.trade("AAPL", 1.0)
                await client.news("trades", 1)
                seen = client.seen()
            await until(lambda: desk.cancelled)
            async with client_of(server) as client:
                assert await resumed(client, seen) == (False, "meanwhile nobody had the subscription")

    run(test())


def test_a_line_that_another_kept_open_is_the_same(run: Run) -> None:
    """ALL is served by several, which are one at the gateway: it was open while any of them was."""

    async def test() -> None:
        everything = {"symbol": "AAPL", "data_type": "ALL", "interval_ms": 0}
        async with serving(linger_s=0) as (server, desk), client_of(server) as other:
            async with client_of(server) as client:
                await client.ask("subscribe", **everything)
                await client.until("snapshot")
                seen = client.seen()
                await other.ask("subscribe", **WANTED)  # of its line the trades go on
            await until(lambda: len(server.connections) == 1)
            async with client_of(server) as client:
                assert await resumed(client, seen, **everything) == (True, "")
                assert desk.cancelled == []

    run(test())


def test_a_position_from_before_the_epoch_is_refused(run: Run) -> None:
    """A client that keeps a position for each class: of a channel that began later it is no position."""
    price = {"interval_ms": 0, "fields": ["price"]}

    async def test() -> None:
        async with serving() as (server, desk):
            async with client_of(server) as client:
                await client.ask("subscribe", **WANTED, interval_ms=0)
                desk.trade("AAPL", 1.0)
                await client.news("trades", 1)
                before = client.seen()["position"]
                desk.trade("AAPL", 2.0)
                await client.news("trades", 1)
                await client.ask("subscribe", **WANTED, **price)
                await client.until("snapshot")
                late = client.seen(1)
            async with client_of(server) as client:
                is_resumed, reason = await resumed(client, late | {"position": before}, **price)
                assert (is_resumed, "older" in reason) == (False, True)
                assert await resumed(client, late, **price) == (True, "")

    run(test())


@pytest.mark.parametrize("is_slowed", [True, False])
def test_another_interval_has_another_epoch_and_both_can_be_resumed(run: Run, is_slowed: bool) -> None:
    """Where the server slows it the same request goes on; where it was updated, that of the new interval."""

    async def test() -> None:
        async with serving() as (server, desk):
            async with client_of(server) as client:
                await client.ask("subscribe", **WANTED, interval_ms=10)
                await client.until("snapshot")
                first = client.seen()
                if is_slowed:
                    (connection,) = server.connections
                    connection.session.subscriber.set_pace(1)
                    assert (await client.until("slowed"))["interval_ms"] == 50
                else:
                    await client.ask("update", subscription=1, interval_ms=50)
                desk.trade("AAPL", 1.0)
                await client.news("trades", 1)
                second = client.seen()
                assert (class_of(first["position"]), class_of(second["position"])) == (2, 4)
                assert first["epoch"] != second["epoch"]
            desk.trade("AAPL", 2.0)
            async with client_of(server) as client:
                assert await resumed(client, second, interval_ms=10 if is_slowed else 50) == (True, "")
                assert [row["price"] for row in await client.news("trades", 1)] == [2.0]
            async with client_of(server) as client:
                assert await resumed(client, first, interval_ms=10) == (True, "")
                assert [row["price"] for row in await client.news("trades", 2)] == [1.0, 2.0]

    run(test())


def test_heartbeats_and_pongs_have_a_position_for_each_class_and_none_for_what_has_no_state(run: Run) -> None:
    async def test() -> None:
        async with serving(backlog_bytes=1 << 12) as (server, desk), client_of(server) as client:
            assert (await client.ask("ping"))["positions"] == []
            await client.ask("subscribe", **WANTED, interval_ms=0)
            await client.ask("subscribe", **WANTED, **SECOND)
            await client.ask("subscribe", symbol="MSFT", data_type="TRADES", mode="snapshot", interval_ms=10)
            desk.trade("AAPL", 1.0)
            await client.news("trades", 1)
            first, second = (await client.ask("ping"))["positions"]
            assert (first, class_of(second)) == (position_of(desk.feed.seq, 0), 12)
            assert second in client.seen(1).values()
            (connection,) = server.connections
            subscriber = connection.session.subscriber
            subscriber.fall_behind()  # nothing is awaited from here on: the server would catch up
            behind = subscriber.positions
            desk.trade("AAPL", 2.0)
            assert subscriber.positions == behind
            connection.session.handle('{"op":"update","subscription":1,"interval_ms":50}')
            assert subscriber.positions == behind[1:]
            subscriber.catch_up()
            assert subscriber.positions == [position_of(desk.feed.seq, cls) for cls in (4, 12)]

    run(test())
