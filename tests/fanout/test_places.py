"""A connection's places: admitted once for a window, however many subscriptions have come or gone since the last."""

from __future__ import annotations

from typing import Any

import pytest

from ibfast.fanout.encoding.batcher import Lane
from tests.support.fanout_client import client_of, serving
from tests.support.loops import Run

SUBSCRIPTIONS = 100


@pytest.fixture
def admitted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With how many channels connections were admitted."""
    admit, channels = Lane.admit, list[int]()

    def counting(lane: Lane, outlet: Any, pairs: Any) -> Any:
        pairs = list(pairs)
        channels.append(len(pairs))
        return admit(lane, outlet, pairs)

    monkeypatch.setattr(Lane, "admit", counting)
    return channels


def test_changes_of_the_limit_admit_nobody_before_the_next_window(run: Run, admitted: list[int]) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            for most in (10**6, 2 * 10**6, 0, 0) * 25:
                await client.ask("limit", max_bytes_per_s=most)
            assert admitted == []
            desk.trade("AAPL", 1.0)
            await client.news("trades", 1)
            assert admitted == [1]
            await client.ask("limit", max_bytes_per_s=0)  # as it was
            desk.trade("AAPL", 2.0)
            await client.news("trades", 1)
            assert admitted == [1]

    run(test())


@pytest.mark.parametrize("interval_ms", [0, 1000])
def test_many_subscriptions_cost_no_more_than_one_each(run: Run, admitted: list[int], interval_ms: int) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            for number in range(SUBSCRIPTIONS):
                await client.say(
                    "subscribe", id=number, symbol="AAPL", data_type="TRADES", interval_ms=interval_ms,
                    ordered=bool(number % 2),
                )  # fmt: skip
            for _ in range(SUBSCRIPTIONS):
                await client.until("subscribed")
            server._hub.batcher.flush(interval_ms)
            desk.trade("AAPL", 1.0)
            server._hub.batcher.flush(interval_ms)
            rows = await client.news("trades", SUBSCRIPTIONS)
            assert [row["price"] for row in rows] == [1.0] * SUBSCRIPTIONS
            for number in range(1, SUBSCRIPTIONS):
                await client.say("unsubscribe", subscription=number)
            for _ in range(1, SUBSCRIPTIONS):
                await client.until("unsubscribed")
            desk.trade("AAPL", 2.0)
            server._hub.batcher.flush(interval_ms)
            assert [row["price"] for row in await client.news("trades", 1)] == [2.0]

    run(test())
    assert sum(admitted) <= 10 * SUBSCRIPTIONS
