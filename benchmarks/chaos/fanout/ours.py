"""A subscriber by ibfast's own client, which reconnects and resumes by itself, held against the rings as well.

The rule of the file: what a program sees: rows and events, and nothing of the protocol. Every row is one of the rings,
value for value, once and in order; those that are missing between two rows lie in a `Lag`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.fanout.tracks import kinds_of
from benchmarks.chaos.fanout.truth import Row, plain
from benchmarks.chaos.fanout.wire import DOUBLES
from benchmarks.chaos.judge import Problem
from benchmarks.chaos.market import FIRST_CON_ID, STOCKS
from ibfast import Config, ReconnectionConfig
from ibfast.client.provider import WebSocketProvider
from ibfast.client.updates import Lag
from ibfast.errors import Error

if TYPE_CHECKING:
    from benchmarks.chaos.fanout.world import FanoutWorld

END_S = 10.0
EVER = 1 << 62
SHOWN = 3


@dataclass(frozen=True)
class Manner:
    """What it subscribes to, and how."""

    dialect: str
    stock: int
    data_type: str
    interval_ms: int


class Ours:
    """One program with one subscription.

    Attributes:
        rows: news as they came: the number of each, and its doubles as bits.
        lags: what it was told to have missed.
        subscription: the provider's, once there is one.
    """

    def __init__(self, world: FanoutWorld, number: int, manner: Manner, token: str) -> None:
        self.name = f"provider {number} ({manner.dialect}, {manner.data_type})"
        self.manner = manner
        self.rows: list[tuple[int, tuple[int, ...]]] = []
        self.lags: list[Lag] = []
        self.subscription: Any = None
        self._world = world
        self._family = manner.data_type.lower()
        self._doubles = sorted(DOUBLES[self._family])
        self._provider: WebSocketProvider | None = None
        self._leaves = asyncio.Event()
        self.task = asyncio.create_task(self._live(token), name=f"chaos provider {number}")

    @property
    def is_subscribed(self) -> bool:
        """Whether it has its subscription now."""
        is_connected = self._provider is not None and self._provider.connected
        return is_connected and self.subscription is not None and bool(self.subscription.instruments)

    @property
    def is_connected(self) -> bool:
        """Whether it converses with the server."""
        return self._provider is not None and self._provider.connected

    async def _live(self, token: str) -> None:
        assert self._world.address is not None
        host, port = self._world.address
        config = Config(
            stream_url=f"ws://{host}:{port}/stream", stream_token=token or None, request_timeout_s=5.0,
            reconnection=ReconnectionConfig(delay_s=0.05, max_delay_s=0.3),
        )  # fmt: skip
        census = self._world.census
        # Counted twice: it comes back, perhaps before the server has noticed that it was gone.
        with census.counted(), census.counted(), contextlib.suppress(Error):  # whatever is refused, or not there
            async with WebSocketProvider(config, dialect=self.manner.dialect) as provider:
                self._provider = provider
                reading = [asyncio.create_task(self._read(provider)), asyncio.create_task(self._hear(provider))]
                try:
                    manner = self.manner
                    self.subscription = await provider.subscribe(
                        STOCKS[manner.stock], manner.data_type, interval_ms=manner.interval_ms, ordered=True, times="ns"
                    )
                    await self._leaves.wait()
                finally:
                    for task in reading:
                        task.cancel()
                    await asyncio.gather(*reading, return_exceptions=True)
                    self._provider = None

    async def _read(self, provider: WebSocketProvider) -> None:
        async for batch in provider.batches(self._family):
            if not batch.is_snapshot:
                for values in plain(batch.rows):
                    self.rows.append((values["seq"], tuple(values[name] for name in self._doubles)))

    async def _hear(self, provider: WebSocketProvider) -> None:
        async for event in provider.events():
            if isinstance(event, Lag):
                self.lags.append(event)

    async def leave(self) -> None:
        """End it."""
        self._world.note(f"{self.name} leaves, subscription {self.subscription!r}, task done: {self.task.done()}")
        self._leaves.set()
        done, _ = await asyncio.wait([self.task], timeout=END_S)
        if not done:
            self._world.problem("hang", f"{self.name} does not end")
            self.task.cancel()
            await asyncio.wait([self.task])
        elif not self.task.cancelled() and self.task.exception() is not None:
            self._world.problem("exception", f"{self.name} has raised {self.task.exception()!r}")
        self._world.note(f"{self.name} has left")

    # --- judgement ---

    def _true(self) -> Iterator[Row]:
        stock = STOCKS[self.manner.stock]
        kinds = kinds_of(self.manner.data_type, stock, [self._family], is_conflated=False)[self._family]
        key = (FIRST_CON_ID + self.manner.stock, "SMART", self.manner.data_type)
        for generation in self._world.truth.of_key.get(key, []):
            yield from generation.rows(self._family, kinds, -1, EVER)

    def _is_told(self, seq: int) -> bool:
        return any(lag.from_seq < seq <= (lag.to_seq or EVER) for lag in self.lags)

    def missing(self) -> Iterator[str]:
        """Say what has not come though it was subscribed to all the time."""
        if self.is_subscribed and self.rows:
            last = self.rows[-1][0]
            lacking = [row.seq for row in self._true() if row.seq > last and not self._is_told(row.seq)]
            if lacking:
                yield f"{self.name} lacks {len(lacking)} rows after seq {last}: {lacking[:SHOWN]}"

    def judged(self) -> Iterator[Problem]:
        """Yield what is wrong with what has come."""
        seqs = [seq for seq, _ in self.rows]
        if not seqs:
            return
        wrong = [(one, other) for one, other in pairwise(seqs) if one >= other]
        if wrong:
            yield Problem("order", f"{self.name}: rows come twice or out of order: {wrong[:SHOWN]}")
        true = {row.seq: tuple(row.values[name] for name in self._doubles) for row in self._true()}
        strange = [(seq, values, true.get(seq)) for seq, values in self.rows if not _are_same(values, true.get(seq))]
        if strange:
            yield Problem("value", f"{self.name}: rows that there were not: {strange[:SHOWN]}")
        known = set(seqs)
        lacking = [seq for seq in true if seqs[0] < seq < seqs[-1] and seq not in known and not self._is_told(seq)]
        if lacking:
            yield Problem("missing", f"{self.name}: {len(lacking)} rows, and no lag tells of them: {lacking[:SHOWN]}")


def _are_same(values: tuple[int, ...], true: tuple[int, ...] | None) -> bool:
    return true is not None and all(
        one == other or (_is_nan(one) and _is_nan(other)) for one, other in zip(values, true, strict=True)
    )


def _is_nan(bits: int) -> bool:
    return bits & 0x7FF0000000000000 == 0x7FF0000000000000 and bits & 0x000FFFFFFFFFFFFF != 0
