"""A fan-out world whose server is a process: `ibfast serve`, really sent SIGTERM, killed (-9), stopped and continued.

The rule of the file: everything else is as in every other world. The rings are read from shared memory, and what the
server asks for is read from what its process says; IB ends nothing here, and subscriptions outlive their users, so that
there is one generation of each for every life of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.chaos.fanout.rest import Rest, metrics, page
from benchmarks.chaos.fanout.truth import Generation, Record, Truth
from benchmarks.chaos.fanout.world import FanoutSetup, FanoutWorld
from benchmarks.chaos.world import Verdict
from ibfast.feed.feed import Feed, FeedView

ROOT = Path(__file__).parents[3]
SERVES_S = 60.0
STARTS_S = 6.0
END_S = 20.0
LOOK_S = 0.005
LINGER_S = 300.0
CHUNK = 1 << 16
OK = 200
FAULTS = ("Traceback", "ERROR:", "CRITICAL:")
"""How the lines begin by which a process says that something is wrong with it."""
LINES = {"DEPTH": "depth", "BARS": "bars"}
"""Data types that have a request of their own; all others share one."""


class RemoteGeneration(Generation):
    """A subscription of another process: all rows of its instrument that are of its families."""

    def __init__(self, truth: Truth, instrument: int, opened_seq: int) -> None:
        subscription = SimpleNamespace(req_ids={}, request=f"instrument {instrument}", state="")
        stream: Any = SimpleNamespace(subscription=subscription, instrument=instrument, live=True)
        super().__init__(truth, stream, opened_seq)

    def records(self, family: str) -> Iterator[Record]:
        """See `Generation`."""
        for (name, _, instrument), record in self._truth.records.items():
            if name == family and instrument == self.instrument:
                yield record


class RemoteTruth(Truth):
    """The truth of a process.

    Args:
        feed: attached.
        pipe: what the process says; read without waiting.
    """

    def __init__(self, feed: FeedView, pipe: int) -> None:
        super().__init__(feed)  # type: ignore[arg-type]
        self._pipe: int | None = pipe
        self._said = b""
        self._lines: dict[tuple[int, str], RemoteGeneration] = {}
        os.set_blocking(pipe, False)

    @property
    def seq(self) -> int:
        """The newest sequence number that has been seen: gaps have some, too."""
        newest = [record.seqs[-1] for record in self.records.values() if record.seqs]
        return max([*newest, *(gap["seq"] for gap in self.gaps[-1:])], default=0)

    def look(self) -> None:
        """See `Truth`."""
        if self._pipe is None:
            return
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._pipe, CHUNK):
                self._said += chunk
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self._hear(json.loads(line))
        super().look()

    def _hear(self, said: dict[str, Any]) -> None:
        con_id, exchange, data_type = said["key"]
        line = (said["instrument"], LINES.get(data_type, "level 1"))
        if line not in self._lines:
            self._lines[line] = RemoteGeneration(self, said["instrument"], said["seq"])
            self.generations.append(self._lines[line])
        self.of_key.setdefault((con_id, exchange, data_type), [self._lines[line]])

    def close(self) -> None:
        """Note that the process has ended. Its clients may still read what was sent before."""
        self.look()
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe = None
        for generation in self.generations:
            generation.closed_seq = self.seq


class ProcessWorld(FanoutWorld):
    """See above.

    Attributes:
        process: that serves, None while there is none.
    """

    def __init__(self, setup: FanoutSetup) -> None:
        super().__init__(setup)
        self.process: asyncio.subprocess.Process | None = None
        self.lives = 0
        self._address: tuple[str, int] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """See `FanoutWorld`."""
        return self._address

    async def begin(self) -> None:
        """See `FanoutWorld`."""
        self._stack.callback(self._folder.cleanup)
        self.begun_s = time.time()
        self._stack.push_async_callback(self._cut)
        await self.start_server()

    async def served(self) -> None:
        """See `FanoutWorld`: a process takes its time."""
        deadline_s = time.monotonic() + STARTS_S
        while self.address is None and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)

    # --- the process ---

    async def start_server(self) -> None:
        """Have a process serve, unless one does. While the gateway is in trouble, it may take several."""
        async with self._serving:
            deadline_s = time.monotonic() + SERVES_S
            while self.process is None:
                if await self._starts():
                    return
                if time.monotonic() > deadline_s:
                    self.problem("exception", f"the process does not serve: {self._errors.name}: {self._said_errors()}")
                    return

    async def _starts(self) -> bool:
        """Start a process, and return whether it serves."""
        folder = Path(self._folder.name)
        port, name = free_port(), f"chaos-{secrets.token_hex(6)}"
        (folder / "ibfast.toml").write_text(self._settings(port))
        self._errors = (folder / f"errors-{self.lives}.txt").open("wb")
        self._reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.chaos.fanout.subject", str(folder / "ibfast.toml"), name,
            cwd=ROOT, stdout=writing, stderr=self._errors,
        )  # fmt: skip
        os.close(writing)
        self.lives += 1
        deadline_s = time.monotonic() + SERVES_S
        while time.monotonic() < deadline_s and process.returncode is None:
            status, _ = await page(("127.0.0.1", port), "/healthz")
            if status == OK:
                self.process = process
                self.truth = RemoteTruth(Feed.attach(name), self._reading)
                self._looking = asyncio.create_task(self._look(self.truth), name="chaos look")
                self._address = ("127.0.0.1", port)
                self.note(f"process {process.pid} serves")
                return True
            await asyncio.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(self._reading)
        self.note(f"a process has ended: {self._said_errors().strip().rpartition(os.linesep)[2]}")
        return False

    def _settings(self, port: int) -> str:
        setup = self.setup
        fanout = {
            "port": port, "linger_s": LINGER_S, "heartbeat_s": setup.heartbeat_s, "ping_s": setup.ping_s,
            "backlog_bytes": setup.backlog_bytes, "backlog_s": setup.backlog_s, "patience_s": setup.patience_s,
            "stalled_s": setup.stalled_s,
        }  # fmt: skip
        tables = {
            "fanout": fanout,
            "security": {"max_connections": setup.max_connections, "max_control_per_s": setup.max_control_per_s},
            "reconnection": {"delay_s": 0.1, "max_delay_s": 0.5},
            "breaker": {"open_s": 0.5},
            "heartbeat": {
                "interval_s": 2.0, "timeout_s": 2.0, "first_data_s": 5.0, "quiet_s": 2.0, "stale_s": 4.0, "dead_s": 8.0,
            },
        }  # fmt: skip
        lines = [f"port = {self.gateways[0].port}", "client_id = 1", f"feed_capacity = {setup.feed_capacity}"]
        for name, values in tables.items():
            lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]  # type: ignore[attr-defined]
        return "\n".join(lines)

    async def _look(self, truth: RemoteTruth) -> None:
        while True:
            truth.look()
            await asyncio.sleep(LOOK_S)

    async def stop_server(self) -> None:
        """Send SIGTERM, and see that the process ends well."""
        async with self._serving:
            process = self._leaves()
            if process is None:
                return
            self.note("SIGTERM")
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                self.problem("hang", f"the process has not ended {END_S:g} s after SIGTERM")
                process.kill()
                await process.wait()
            if process.returncode:
                self.problem("exception", f"after SIGTERM the process has ended with code {process.returncode}")
            self._end_of_life()

    async def kill_server(self) -> None:
        """Kill it: nobody is told anything."""
        async with self._serving:
            process = self._leaves()
            if process is not None:
                self.note("SIGKILL")
                process.kill()
                await process.wait()
                self._end_of_life()

    def _leaves(self) -> asyncio.subprocess.Process | None:
        process, self.process, self._address = self.process, None, None
        self.stopped_s = time.monotonic()
        return process

    def _end_of_life(self) -> None:
        self.stopped_s = time.monotonic()
        if self._looking is not None:
            self._looking.cancel()
            self.truth.close()
        errors = self._said_errors()
        if any(line.startswith(FAULTS) for line in errors.splitlines()):
            self.problem("exception", f"the process has said: {errors[-1500:]}")

    def _said_errors(self) -> str:
        self._errors.close()
        return Path(self._errors.name).read_text(errors="replace")

    async def _cut(self) -> None:
        process = self._leaves()
        if process is not None:
            process.kill()
            await process.wait()
            self._end_of_life()

    def block(self, for_s: float) -> None:
        """See `FanoutWorld`: the whole process stands still."""
        process = self.process
        self.blocked_s += for_s

        async def script() -> None:
            with contextlib.suppress(ProcessLookupError):
                if process is not None:
                    process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(for_s)
                    process.send_signal(signal.SIGCONT)

        self.script(script())

    # --- the end ---

    async def verdict(self) -> Verdict:
        """See `FanoutWorld`."""
        await self._heal_all()
        rest = RemoteRest(self)
        await self.start_server()
        if self.address is not None:
            await rest.come()
        await rest.leave()
        await self.stop_server()
        await rest.gone()
        return self._judged_verdict()

    def _counts(self) -> Counter[str]:
        return self._client_counts() + Counter(worlds=1, steps=self.steps, lives=self.lives)


class RemoteRest(Rest):
    """Rest, as far as it can be seen from outside."""

    def _flows(self) -> bool:
        return False

    async def _gauges(self) -> dict[str, float]:
        assert self._world.address is not None
        status, body = await page(self._world.address, "/metrics")
        return metrics(body.decode()) if status == OK else {}

    def _unsettled(self) -> Iterator[str]:
        return iter(())

    def _untrue(self, track: Any) -> Iterator[str]:
        return iter(())

    def _untold(self, client: Any) -> Iterator[str]:
        return iter(())

    async def leave(self) -> None:
        """See `Rest`."""
        await self._go()
        if self._world.address is None:
            return
        deadline_s = time.monotonic() + END_S
        found = await self._gauges()
        while found.get("subscribers") or found.get("subscriptions"):
            if time.monotonic() > deadline_s:
                self._world.problem("left", f"everybody has gone, and /metrics says {found}")
                return
            await asyncio.sleep(0.1)
            found = await self._gauges()

    async def gone(self) -> None:
        """Look for what the process has left at the gateway."""
        deadline_s = time.monotonic() + END_S
        gateway = self._world.gateways[0]
        while gateway.connections and time.monotonic() < deadline_s:
            await asyncio.sleep(0.1)
        if gateway.connections:
            self._world.problem("left", "a connection to the gateway is open after the process has ended")


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
