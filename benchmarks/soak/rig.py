"""The parts of a soak, each in its process, and what is known of them from outside.

The rule of the file: it starts, asks and ends; faults are `trouble`'s, judgement is `report`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ports import kept_port
from benchmarks.soak.child import Child, ChildError, Parts
from benchmarks.soak.market import INSTRUMENTS, NS, SERIES, Timetable
from ibfast.sim.proxy import FaultProxy

HOST = "127.0.0.1"
START_S = 60.0
POLL_S = 0.1
FRESH_S = 2.0
"""A series whose newest record is older than this is not live: a number comes many times a second."""


@dataclass(frozen=True)
class Sample:
    """What was seen of the subject's process at a time, from outside."""

    at_s: float
    total_mb: float
    own_mb: float


@dataclass
class Gone:
    """What was counted by gateway processes that have ended."""

    sent: int = 0
    received: int = 0
    violations: list[tuple[float, str]] = field(default_factory=list)


class Rig(Parts):
    """The gateway, the proxy in front of it (in this process), the subject, and the witness. An async context manager.

    Args:
        rate: messages per second.
        seed: of every choice.

    Attributes:
        proxy, gateway, subject, witness: the parts.
        random: for choices.
        log: the faults so far: when (UTC, seconds), and what.
    """

    gateway: Child
    subject: Child
    witness: Child
    proxy: FaultProxy

    def __init__(self, rate: float, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.log: list[tuple[float, str]] = []
        self._timetable = Timetable(time.time_ns() - NS, rate)
        self._gone = Gone()
        self._is_gateway_gone = True
        self._ended_cpu_s = 0.0

    async def _start(self) -> None:
        self._stack.push_async_callback(self._end_gateway)
        port = self._stack.enter_context(contextlib.closing(kept_port(HOST))).getsockname()[1]
        await self.start_gateway(port)
        self.proxy = await self._stack.enter_async_context(FaultProxy(HOST, port))
        feed_name = f"ibfast-soak-{os.getpid()}"
        self.subject = await Child.start("subject", port=self.proxy.port, feed_name=feed_name)
        self._stack.push_async_callback(self.subject.stop)
        self.witness = await Child.start(
            "witness", feed_name=feed_name, epoch_ns=self._timetable.epoch_ns, rate=self._timetable.rate
        )
        self._stack.push_async_callback(self.witness.stop)
        await self.subject.ask("start")
        if not await self.settled(START_S):
            raise ChildError(f"not all streams were live within {START_S:g} s")

    async def settled(self, within_s: float) -> bool:
        """Wait until every stream is live, by what the manager says and by the witness; False if it takes longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not await self.is_live():
                    await asyncio.sleep(POLL_S)
                return True
        return False

    async def surplus(self, within_s: float) -> int:
        """Wait until the gateway has one request for each stream; return how many more it has, if it takes longer."""
        surplus = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while surplus := (await self.gateway.ask("figures"))["open"] - INSTRUMENTS:
                    await asyncio.sleep(POLL_S)
        return int(surplus)

    async def is_live(self) -> bool:
        """Tell whether every stream is."""
        figures = await self.subject.ask("figures")
        series = await self.witness.ask("series", seconds=FRESH_S)
        return bool(figures["live"] == INSTRUMENTS and series == SERIES)

    async def start_gateway(self, port: int) -> None:
        """Start the gateway's process."""
        self.gateway = await Child.start(
            "gateway", port=port, epoch_ns=self._timetable.epoch_ns, rate=self._timetable.rate
        )
        self._is_gateway_gone = False

    async def kill_gateway(self) -> None:
        """Kill the gateway's process (-9)."""
        figures = await self.gateway.ask("figures")
        self._is_gateway_gone = True
        self._gone.sent += figures["sent"]
        self._gone.received += figures["received"]
        self._gone.violations += figures["violations"]
        self._ended_cpu_s += self.gateway.cpu_s()
        await self.gateway.kill()

    async def gateway_figures(self) -> dict[str, Any]:
        """Return what all gateway processes have counted."""
        gone = self._gone
        if self._is_gateway_gone:
            return {"sent": gone.sent, "received": gone.received, "violations": list(gone.violations)}
        figures = await self.gateway.ask("figures")
        return {
            "sent": figures["sent"] + gone.sent,
            "received": figures["received"] + gone.received,
            "violations": gone.violations + figures["violations"],
        }

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time of each part."""
        return {
            "subject": self.subject.cpu_s(),
            "gateway": self._ended_cpu_s + (0.0 if self._is_gateway_gone else self.gateway.cpu_s()),
            "proxy": time.process_time(),
            "witness": self.witness.cpu_s(),
        }

    def after_what(self, at_s: float) -> str:
        """Return which fault a time (UTC, seconds) comes after."""
        before = [(began_s, name) for began_s, name in self.log if began_s <= at_s]
        return f"{at_s - before[-1][0]:.1f} s after {before[-1][1]!r}" if before else "before any fault"

    def sample(self) -> Sample:
        """Look at the subject's memory."""
        return Sample(time.monotonic(), *self.subject.memory_mb())

    async def _end_gateway(self) -> None:
        if hasattr(self, "gateway"):
            await self.gateway.stop()
