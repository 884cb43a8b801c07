"""The values that are looked up when metrics are read: right, and read only, since readers come from any thread."""

from __future__ import annotations

import asyncio
import sys
import time
from types import FrameType

from prometheus_client.parser import text_string_to_metric_families

from ibfast import Config, IBKRConnectionManager
from ibfast.policy.subscription import FLOWING
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe
from ibfast.wire.requests import MarketData
from tests.support.conversations import AAPL, small_feed
from tests.support.loops import Run, until

SYMBOLS = [f"SYM{number:03}" for number in range(16)]
LOOKED_AT_BY_THE_LOOP = ("ibfast.policy.pacing", "ibfast.policy.health")
LENGTHS = {"RateLimiter.__len__", "Queue.count"}
"""All that other threads may ask of a limiter: it is one look, at one number, and changes nothing."""


def values(exposition: bytes, name: str) -> dict[str, float]:
    """A gauge's samples by the value of their label."""
    (family,) = [f for f in text_string_to_metric_families(exposition.decode()) if f.name == f"ibfast_{name}"]
    return {label: sample.value for sample in family.samples for label in sample.labels.values()}


def watched_scrape(manager: IBKRConnectionManager) -> tuple[bytes, set[str]]:
    """Read the metrics. Return them, and which functions of the limiter and the heartbeat this thread called for it."""
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith(LOOKED_AT_BY_THE_LOOP):
            called.add(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        return manager.monitor.exposition(), called
    finally:
        sys.setprofile(None)


def test_limits_are_shown_as_of_the_last_look(run: Run) -> None:
    async def test() -> None:
        async with Gateway() as gateway, IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager:
            limiter, now_s = manager.outbox.limiter, time.monotonic()
            before = values(manager.monitor.exposition(), "limit_used")
            limiter.submit(MarketData(1, AAPL), now_s)
            assert limiter.due(now_s)
            # Nothing was waited for, so that nobody has looked in between.
            assert limiter.limits(now_s)["lines"][0] == 1
            assert values(manager.monitor.exposition(), "limit_used") == before
            await until(lambda: values(manager.monitor.exposition(), "limit_used")["lines"] == 1)

    run(test())


def test_another_thread_never_looks_into_the_limiter_or_the_heartbeat(run: Run) -> None:
    """To look is to change: windows drop what has left them, and the heartbeat notes that somebody could look."""

    async def test() -> None:
        async with (
            Gateway(market=Market(Universe.synthetic(len(SYMBOLS)), rate=400)) as gateway,
            IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager,
        ):
            subscribing = asyncio.create_task(subscribe_all(manager))
            used = 0.0
            while used < len(SYMBOLS):
                exposition, called = await asyncio.to_thread(watched_scrape, manager)
                assert called == LENGTHS
                assert b"ibfast_metric_failures_total{" not in exposition
                used = values(exposition, "limit_used")["lines"]
            await subscribing

    async def subscribe_all(manager: IBKRConnectionManager) -> None:
        for symbol in SYMBOLS:
            await manager.subscribe(symbol)

    run(test())


def test_subscriptions_are_counted_by_state(run: Run) -> None:
    async def test() -> None:
        async with (
            Gateway(market=Market(Universe.synthetic(len(SYMBOLS)), rate=400)) as gateway,
            IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager,
        ):
            gateway.faults.refuse_lines(1)
            waiting = await manager.subscribe(SYMBOLS[0])
            await until(lambda: waiting.state not in FLOWING and waiting.subscription.refused_until_s)
            live = [await manager.subscribe(symbol) for symbol in SYMBOLS[1:4]]
            await until(lambda: all(stream.state in FLOWING for stream in live))
            counts = values(manager.monitor.exposition(), "subscriptions")
            assert sum(counts[state] for state in FLOWING) == 3
            assert counts["WAITING"] == 1
            assert sum(counts.values()) == 4

    run(test())
