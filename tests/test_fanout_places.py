"""A connection's places: admitted once for a window, however many subscriptions have come or gone since the last."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Run
from fanout_client import client_of, serving

from ibfast.fanout.batcher import Lane

SUBSCRIPTIONS = 100


@pytest.mark.parametrize("interval_ms", [0, 1000])
def test_many_subscriptions_cost_no_more_than_one_each(
    run: Run, monkeypatch: pytest.MonkeyPatch, interval_ms: int
) -> None:
    admit, channels = Lane.admit, list[int]()

    def counting(lane: Lane, outlet: Any, pairs: Any) -> Any:
        pairs = list(pairs)
        channels.append(len(pairs))
        return admit(lane, outlet, pairs)

    monkeypatch.setattr(Lane, "admit", counting)

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
    assert sum(channels) <= 10 * SUBSCRIPTIONS
