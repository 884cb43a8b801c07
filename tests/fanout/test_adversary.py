"""Whatever clients do and whatever happens to them: everything comes once and in order, or is told as left out."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from functools import partial
from typing import Any

import pytest

from ibfast.codec.positions import class_of, position_of
from ibfast.fanout.encoding.channels import INTERVALS_MS
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_auditor import NEVER, Auditor, Truth, auditing
from tests.support.fanout_client import serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, until

SYMBOLS = ("AAPL", "MSFT", "NVDA")
DIALECTS = ("json", "binary")
SEEDS = range(4)
FEW = 1 << 6
"""Rows that rings hold: less than comes between two looks."""


class Chaos:
    """Clients that come, go, change their minds and are slow, while trades come in bursts."""

    def __init__(self, seed: int, server: FanoutServer, desk: Desk, stack: contextlib.AsyncExitStack) -> None:
        self.rng = random.Random(seed)
        self.server = server
        self.desk = desk
        self.stack = stack
        self.truth = Truth(desk)
        self.clients: list[tuple[Auditor, contextlib.AsyncExitStack]] = []
        self.seen: list[tuple[str, dict[str, Any]]] = []  # symbol, and what to subscribe with so as to go on
        self.price = 0.0
        self.ops: Counter[str] = Counter()

    async def step(self) -> None:
        rng = self.rng
        do = rng.choices(
            (self.trade, self.come, self.go, self.subscribe, self.unsubscribe, self.update, self.limit, self.ping),
            (60, 3, 1, 10, 4, 8, 3, 4),
        )[0]
        await do()
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.02)))

    def burst(self, symbol: str, count: int) -> None:
        if any(request.contract.symbol == symbol for request in self.desk.lines):
            prices = [self.price + i for i in range(count)]
            self.price += count
            self.desk.trade(symbol, *prices)
            self.truth.look()

    async def trade(self) -> None:
        for _ in range(self.rng.choice((1, 1, 5))):
            self.burst(self.rng.choice(SYMBOLS), self.rng.choice((1, 1, 2, 10, 50)))

    async def come(self) -> None:
        if len(self.clients) < 4:
            stack = await self.stack.enter_async_context(contextlib.AsyncExitStack())
            auditor = await stack.enter_async_context(auditing(self.server, self.truth, self.rng.choice(DIALECTS)))
            await auditor.ask("ping")
            self.clients.append((auditor, stack))

    async def go(self) -> None:
        if len(self.clients) > 1:
            auditor, stack = self.clients.pop(self.rng.randrange(len(self.clients)))
            await stack.aclose()
            for track in auditor.tracks.values():
                if (seen := auditor.seen(track)) is not None:
                    self.seen.append((self.desk.feed.instruments[track.instrument], seen))
            self.note(auditor)

    def note(self, auditor: Auditor) -> None:
        self.ops.update(auditor.ops)

    def any(self) -> Auditor | None:
        return self.rng.choice(self.clients)[0] if self.clients else None

    async def subscribe(self) -> None:
        auditor = self.any()
        if auditor is None:
            return
        rng = self.rng
        taken = {self.desk.feed.instruments[track.instrument] for track in auditor.tracks.values()}
        free = [symbol for symbol in SYMBOLS if symbol not in taken]
        if not free:
            return
        options: dict[str, Any] = {"symbol": rng.choice(free), **self.pace()}
        resumable = [each for each in self.seen if each[0] in free]
        if resumable and rng.random() < 0.7:
            symbol, seen = rng.choice(resumable)
            options = {"symbol": symbol} | seen
            if rng.random() < 0.1:
                wrong = {"epoch": "another"}, {"position": position_of(NEVER, class_of(seen["resume"]["position"]))}
                options["resume"] = seen["resume"] | rng.choice(wrong)
            elif rng.random() < 0.2:
                others = [one["resume"] for _, one in self.seen]
                options["resume"] = seen["resume"] | {"position": rng.choice(others)["position"]}
            elif rng.random() < 0.2:
                options |= self.pace()
        options["mode"] = rng.choice(("stream", "stream", "stream", "conflate", "snapshot"))
        options["on_slow"] = rng.choice(("conflate", "conflate", "conflate", "close"))
        if rng.random() < 0.2:
            options["fields"] = ["price"]
        answer = await auditor.ask(
            "subscribe", data_type="TRADES", ordered=True, **options,
        )  # fmt: skip
        assert answer["op"] == "subscribed", answer
        name = "resumed" if answer["resumed"] else "not resumed" if "resume" in options else "begun"
        self.ops[name] += 1

    def pace(self) -> dict[str, Any]:
        return {"interval_ms": self.rng.choice(INTERVALS_MS[:4]), "times": self.rng.choice(("us", "ns"))}

    async def unsubscribe(self) -> None:
        auditor = self.any()
        if auditor is not None and auditor.tracks:
            track = self.rng.choice(list(auditor.tracks.values()))
            answer = await auditor.ask("unsubscribe", subscription=track.subscription)
            assert answer["op"] == "unsubscribed" or answer["code"] == "NO_SUCH_SUBSCRIPTION"

    async def update(self) -> None:
        auditor = self.any()
        if auditor is not None and auditor.tracks:
            track = self.rng.choice(list(auditor.tracks.values()))
            interval_ms = self.rng.choice(INTERVALS_MS[:5])
            answer = await auditor.ask("update", subscription=track.subscription, interval_ms=interval_ms)
            assert answer["op"] == "updated" or answer["code"] in ("NO_SUCH_SUBSCRIPTION", "BAD_FIELD")

    async def limit(self) -> None:
        auditor = self.any()
        if auditor is not None:
            await auditor.ask("limit", max_bytes_per_s=self.rng.choice((0, 0, 2000, 20_000)))

    async def ping(self) -> None:
        auditor = self.any()
        if auditor is not None:
            await auditor.ask("ping")

    async def settle(self) -> None:
        """Have everything come that is on its way, and nothing be left out in silence at the end."""
        for auditor, _ in self.clients:
            await auditor.ask("limit", max_bytes_per_s=0)
        await until(lambda: not any(each.session.subscriber.is_behind for each in self.server.connections))
        for symbol in SYMBOLS:
            self.burst(symbol, 1)
        for auditor, _ in self.clients:
            await until(partial(self.has_all, auditor))
            self.note(auditor)

    def has_all(self, auditor: Auditor) -> bool:
        assert auditor.listening is not None
        tracks = auditor.tracks.values()
        return auditor.listening.done() or all(track.seq >= self.truth.seqs[track.instrument][-1] for track in tracks)


@pytest.mark.parametrize("capacity", [FEW, 1 << 12])
@pytest.mark.parametrize("seed", SEEDS)
def test_everything_comes_once_and_in_order_or_is_told(run: Run, seed: int, capacity: int) -> None:
    async def test() -> None:
        config = {"capacity": capacity, "patience_s": 0.5, "heartbeat_s": 0.1}
        async with serving(**config) as (server, desk), contextlib.AsyncExitStack() as stack:
            chaos = Chaos(seed, server, desk, stack)
            await chaos.come()
            for _ in range(600):
                await chaos.step()
            await chaos.settle()
            assert chaos.ops["subscribed"] > 20
            assert chaos.ops["overrun" if capacity == FEW else "resumed"] > 0

    run(test())
