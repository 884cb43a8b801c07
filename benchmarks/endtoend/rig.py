"""The processes of the benchmark, what they do in a turn, and what is seen of them from outside.

The rule of the file: it starts, subscribes, stalls, looks and ends; what it all means is `judge`'s and the report's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.endtoend.subscribers import Subscribers
from benchmarks.soak.child import Child, ChildError, Parts
from ibfast import Feed

OTHERS, STALLED = 0, 1
LEAST_LINES = 100
"""Market-data lines of an account."""

SAMPLE_SHARE = 20
"""One of so many subscribers is written down whole, and decoded."""

SMALL_RCVBUF = 4096
"""Of those who stall, in bytes: the system's buffers would hide it for minutes."""

FLOOD, FLOOD_NBYTES = 150, 1000
"""What they ask for and don't read, at most a second's worth: answers that fill what the kernel keeps for them."""

NAP_S, WAKE_S = 2.4, 0.6
"""Half of those who stall read again after a while, and stall again."""

AT_ONCE = 20
"""So many subscribers subscribe at a time."""

SETTLE_S, LOOK_S, POLL_S, READ_S = 2.0, 1.0, 0.02, 0.02
LIVE_S, JOIN_S = 60.0, 300.0
SPARE_CONNECTIONS = 2


@dataclass(frozen=True)
class Load:
    """What is asked of the server.

    Attributes:
        subscribers: all of them; `stalled` of them stall in every other turn.
        symbols: of the market; each subscriber has `each` of them.
        rate: ticks per second of all symbols.
        interval_ms: of the windows.
        seconds: of a turn.
    """

    subscribers: int
    stalled: int
    symbols: int
    each: int
    rate: float
    interval_ms: int
    seconds: float
    seed: int

    @property
    def stalled_s(self) -> float:
        """After so long without taking anything a connection is to be ended: so that it is within a turn."""
        return max(1.0, self.seconds * 0.4)


@dataclass
class Turn:
    """What was seen from outside while subscribers read, or some of them did not.

    Attributes:
        is_stalled: whether some did not.
        stalled: who.
        cpu: share of a processor, by process.
        own_mb: memory of the server's own: at the begin, at most, at the end.
        open: connections of the others at the end.
        frames: of the others.
    """

    is_stalled: bool
    stalled: range
    begin_ns: int
    end_ns: int = 0
    cpu: dict[str, float] = field(default_factory=dict)
    own_mb: tuple[float, float, float] = (0.0, 0.0, 0.0)
    open: int = 0
    frames: int = 0

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


class Rig(Parts):
    """A gateway, the server, and its subscribers. An async context manager.

    Args:
        load: what is asked of the server.
        say: told how it goes, line by line.

    Attributes:
        file: what came at subscribers.
        rows: all rows that the server's ring had, in order.
        lost: rows of it that were not seen here.
    """

    gateway: Child
    server: Child
    subscribers: Subscribers

    def __init__(self, load: Load, say: Callable[[str], None]) -> None:
        super().__init__()
        self.load = load
        self.rows: list[NDArray[Any]] = []
        self.lost = 0
        self.joined_s = 0.0
        self._say = say
        self._random = random.Random(load.seed)
        self._symbols: list[str] = []
        self._others = range(0)
        self._subscribed = {OTHERS: 0, STALLED: 0}

    async def _start(self) -> None:
        load = self.load
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ibfast-endtoend-"))
        self.file = Path(folder) / "records"
        lines = max(load.symbols, LEAST_LINES)
        self.gateway = await self._child("gateway", symbols=load.symbols, lines=lines, rate=load.rate, seed=load.seed)
        self._symbols = await self.gateway.ask("symbols")
        feed_name = f"ibfast-endtoend-{os.getpid()}"
        self.server = await self._child(
            "server",
            port=await self.gateway.ask("port"),
            feed_name=feed_name,
            lines=lines,
            connections=SPARE_CONNECTIONS * (load.subscribers + load.stalled),
            stalled_s=load.stalled_s,
        )
        self._stack.push_async_callback(self._stop_witness, asyncio.create_task(self._witness(feed_name)))
        self.subscribers = await Subscribers.open(await self.server.ask("port"), self.file)
        self._stack.push_async_callback(self.subscribers.stop)

    async def _child(self, name: str, **settings: Any) -> Child:
        child = await Child.start(name, benchmark="endtoend", **settings)
        self._stack.push_async_callback(child.stop)
        return child

    async def _witness(self, feed_name: str) -> None:
        """Keep a copy of every row that the server's ring has."""
        reader = Feed.attach(feed_name).quotes.reader(start="oldest")
        while True:
            if reader.pending:
                self.rows.append(reader.read())
                self.lost = reader.lost
            await asyncio.sleep(READ_S)

    async def _stop_witness(self, witness: asyncio.Task[None]) -> None:
        witness.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await witness

    # --- subscribers ---

    async def join(self) -> None:
        """Have the others connect and subscribe."""
        count = self.load.subscribers - self.load.stalled
        began_s = time.monotonic()
        for number in range(count):
            await self.subscribers.connect(1, OTHERS, whole=number % SAMPLE_SHARE == 0)
        self._others = range(count)
        for first in range(0, count, AT_ONCE):
            await self._subscribe(range(first, min(first + AT_ONCE, count)), OTHERS)
            if not first % (10 * AT_ONCE):
                self._say(f"{first + AT_ONCE:,} of {count:,} have subscribed, {time.monotonic() - began_s:.1f} s")
        self.joined_s = time.monotonic() - began_s

    async def _subscribe(self, numbers: range, group: int) -> None:
        for number in numbers:
            for symbol in self._random.sample(self._symbols, self.load.each):
                await self.subscribers.say(
                    number, "subscribe", symbol=symbol, data_type="QUOTES", interval_ms=self.load.interval_ms
                )
        self._subscribed[group] += len(numbers) * self.load.each
        async with asyncio.timeout(JOIN_S):
            while (counts := await self.subscribers.counts(group)).subscribed < self._subscribed[group]:
                if counts.errors:
                    raise ChildError("the server refuses a subscription")
                await asyncio.sleep(POLL_S)

    # --- turns ---

    async def turn(self, stop: asyncio.Event, *, is_stalled: bool) -> Turn:
        """Let everybody read for a while, or all but those who stall, and return what was seen."""
        load = self.load
        numbers = await self.subscribers.connect(load.stalled, STALLED, rcvbuf=SMALL_RCVBUF, whole=True)
        await self._subscribe(numbers, STALLED)
        await asyncio.sleep(SETTLE_S)
        cpu, frames = self._cpu_s(), (await self.subscribers.counts(OTHERS)).frames
        memory = [self.server.memory_mb()[1]]
        turn = Turn(is_stalled, numbers, time.time_ns())
        stalling = asyncio.create_task(self._stall(numbers)) if is_stalled else None
        deadline_s = time.monotonic() + load.seconds
        while (left_s := deadline_s - time.monotonic()) > 0 and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(LOOK_S, left_s))
            memory.append(self.server.memory_mb()[1])
            if stalling is not None and stalling.done():
                stalling.result()
        turn.end_ns = time.time_ns()
        turn.cpu = {name: (spent - cpu[name]) / turn.seconds for name, spent in self._cpu_s().items()}
        turn.own_mb = memory[0], max(memory), memory[-1]
        counts = await self.subscribers.counts(OTHERS)
        turn.open, turn.frames = counts.open, counts.frames - frames
        if stalling is not None:
            stalling.cancel()
            await asyncio.gather(stalling, return_exceptions=True)
        for number in numbers:
            await self.subscribers.command(f"wake {number}")
        await asyncio.sleep(WAKE_S)
        for number in numbers:
            await self.subscribers.command(f"close {number}")
        return turn

    async def _stall(self, numbers: range) -> None:
        """Have all of them read nothing more, and half of them go on, again and again."""
        for number in numbers:
            await self._stall_one(number)
        while True:
            await asyncio.sleep(NAP_S)
            for number in numbers[::2]:
                await self.subscribers.command(f"wake {number}")
            await asyncio.sleep(WAKE_S)
            for number in numbers[::2]:
                await self._stall_one(number)

    async def _stall_one(self, number: int) -> None:
        await self.subscribers.command(f"stall {number}")
        await self.subscribers.say(number, "ping", times=FLOOD, data="x" * FLOOD_NBYTES)

    def _cpu_s(self) -> dict[str, float]:
        return {
            "server": self.server.cpu_s(),
            "gateway": self.gateway.cpu_s(),
            "subscribers": self.subscribers.cpu_s(),
        }
