"""What a token permits, it permits once, over however many connections."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from ibfast.fanout.access import holders
from ibfast.fanout.access.holders import Holders
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.messages import RefusedError
from ibfast.fanout.turns import Turns
from tests.support.fanout_client import BEARER, client_of, serving, token_of
from tests.support.loops import Run, until


def test_subscriptions_count_over_all_connections(run: Run) -> None:
    async def test() -> None:
        tokens = token_of(subscriptions=2)
        async with serving(tokens=tokens) as (server, _), client_of(server, **BEARER) as one:
            async with client_of(server, **BEARER) as other:
                for client in (one, other):
                    assert (await client.ask("subscribe", symbol="AAPL"))["op"] == "subscribed"
                for client in (one, other):
                    assert (await client.ask("subscribe", symbol="AAPL"))["code"] == "TOO_MANY"
                await one.ask("unsubscribe", subscription=1)
                assert (await other.ask("subscribe", symbol="AAPL"))["op"] == "subscribed"
            await until(lambda: len(server.connections) == 1)
            for _ in range(2):
                assert (await one.ask("subscribe", symbol="AAPL"))["op"] == "subscribed"

    run(test())


def test_a_state_is_asked_for_no_more_often_over_new_connections(run: Run) -> None:
    async def test() -> None:
        async with serving(tokens=token_of(least_interval_ms=60_000)) as (server, _):
            codes = []
            for _ in range(3):
                async with client_of(server, **BEARER) as client:
                    answer = await client.ask("subscribe", symbol="AAPL", mode="snapshot", data_type="TRADES")
                    codes.append(answer.get("code"))
            assert codes == [None, "TOO_FAST", "TOO_FAST"]

    run(test())


def test_lines_count_once_for_a_contract_and_as_long_as_the_gateway_has_them(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(tokens=token_of(lines=2), linger_s=60.0) as (server, desk),
            client_of(server, **BEARER) as one,
            client_of(server, **BEARER) as other,
        ):
            for client in (one, other):
                for data_type in ("QUOTES", "TRADES", "TICKS"):
                    assert (await client.ask("subscribe", symbol="AAPL", data_type=data_type))["op"] == "subscribed"
            assert (await other.ask("subscribe", symbol="MSFT"))["op"] == "subscribed"
            asked = len(desk.asked)
            for client in (one, other):
                assert (await client.ask("subscribe", symbol="IBM"))["code"] == "TOO_MANY"
                assert (await client.ask("subscribe", symbol="AAPL", data_type="DEPTH"))["code"] == "TOO_MANY"
            await other.ask("unsubscribe", subscription=4)
            assert (await one.ask("subscribe", symbol="IBM"))["code"] == "TOO_MANY"  # MSFT's is there still
            assert (await one.ask("subscribe", symbol="MSFT"))["op"] == "subscribed"
            assert len(desk.asked) == asked

    run(test())


def test_who_needs_no_token_is_nobodys_holder(run: Run) -> None:
    async def test() -> None:
        async with (
            serving({"max_subscriptions": 1, "max_lines": 1}) as (server, _),
            contextlib.AsyncExitStack() as stack,
        ):
            for symbol in ("AAPL", "MSFT", "IBM"):
                client = await stack.enter_async_context(client_of(server))
                assert (await client.ask("subscribe", symbol=symbol))["op"] == "subscribed"

    run(test())


def test_the_bandwidth_is_that_of_all_connections(run: Run) -> None:
    async def test() -> None:
        tokens = token_of(max_bytes_per_s=1000)
        async with (
            serving(tokens=tokens) as (server, _),
            client_of(server, **BEARER) as one,
            client_of(server, **BEARER) as other,
        ):
            for _ in range(4):
                await one.ask("ping", data="x" * 500)
            (bucket,) = {each.session.holder.bandwidth for each in server.connections if each.session is not None}
            assert bucket is not None
            assert bucket.wait_s(0.0) > 0
            assert all(each._is_spent(each.loop.time()) for each in server.connections)
            assert (await other.ask("ping"))["op"] == "pong"

    run(test())


def test_handshakes_have_the_turns_of_their_address_and_all_that_follows_those_of_the_holder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, owners = Turns.add, list[Any]()

    def recording(turns: Turns, owner: Any, piece: Any) -> None:
        owners.append(owner)
        add(turns, owner, piece)

    monkeypatch.setattr(Turns, "add", recording)

    async def test() -> None:
        async with (
            serving(tokens=token_of()) as (server, _),
            client_of(server, **BEARER) as first,
            client_of(server, **BEARER) as second,
        ):
            assert set(owners) == {"127.0.0.1"}
            assert len(owners) >= 6  # each was read, judged, and begun
            owners.clear()
            for client in (first, second):
                await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            assert len(set(owners)) == 1
            assert isinstance(owners[0], holders.Holder)

    run(test())


def test_holders_that_are_gone_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "MOST_IDLE", 10)
    known = Holders(1, 0.0, lambda: 0.0)
    for number in range(100):
        count = [].__len__
        known.arrive(f"{number}", Permissions(symbols=("*",)), count)
        known.leave(f"{number}", count)
    assert len(known) == 10


def test_a_later_token_of_the_name_has_its_own_permissions() -> None:
    known = Holders(1, 0.0, lambda: 0.0)
    first = known.arrive("a", Permissions(symbols=("*",), subscriptions=5), lambda: 1)
    second = known.arrive("a", Permissions(symbols=("*",), subscriptions=1), lambda: 0)
    assert first is second
    with pytest.raises(RefusedError, match="permits 1 sub"):
        first.require_room()
