"""The processes of the benchmark, and its turns.

The rule of the file: it starts, waits and asks; what is hostile is in `kinds`, what the figures mean in the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trustme

from benchmarks.fanout.rig import RigError
from benchmarks.hostile.kinds import CROWD
from benchmarks.hostile.report import Line, Report, Times
from benchmarks.soak.child import Child, Parts
from ibfast.fanout.access.tokens import digest_of

SYMBOLS, LINES, RATE = 300, 100, 1_000.0
OWN = 20
"""So many stocks the honest subscriber always has."""

HISTORY_S, SETTLE_S, SETTLED_WITHIN_S = 20.0, 1.0, 60.0
CALM_MS = 200.0
"""Answers within this time are those of a server that is not busy with anybody else."""

PERMISSIONS = {
    "full": 'symbols = ["*"]',
    "watcher": 'symbols = ["AAPL"]\nmetrics = true',
    "least": 'symbols = ["AAPL", "SYM000"]\ndata_types = ["TRADES"]\nmodes = ["conflate", "snapshot"]\n'
    "least_interval_ms = 1000\nsubscriptions = 3\nmax_bytes_per_s = 20000",
}


class Rig(Parts):
    """A gateway, the server, an honest subscriber and a hostile one: an async context manager.

    Args:
        seed: of the market.
        history_s: how long the market has run before the first turn, for those who resume.
    """

    gateway: Child
    server: Child
    honest: Child
    hostile: Child

    def __init__(self, seed: int, history_s: float) -> None:
        super().__init__()
        self._seed = seed
        self._history_s = history_s

    async def _start(self) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ibfast-hostile-")))
        servers, *others = sorted(os.sched_getaffinity(0))
        tokens = _write_tokens(folder / "tokens.toml")
        _write_certificate(folder / "server.pem")
        market = {"symbols": SYMBOLS, "lines": LINES, "rate": RATE, "seed": self._seed}
        self.gateway = await self._child("gateway", others, benchmark="endtoend", **market)
        symbols = await self.gateway.ask("symbols")
        self.server = await self._child(
            "server", [servers], port=await self.gateway.ask("port"), tokens_file=str(folder / "tokens.toml"),
            certificate_file=str(folder / "server.pem"),
        )  # fmt: skip
        ports = {name: await self.server.ask(name) for name in ("port", "tls_port")}
        self.honest = await self._child(
            "honest", others, port=ports["port"], token=tokens["honest"], symbols=symbols[:OWN], others=symbols[-50:]
        )
        self.hostile = await self._child("hostile", others, **ports, tokens=tokens, symbols=symbols)
        await self.hostile.ask("prepare")
        await asyncio.sleep(self._history_s)

    async def _child(
        self, name: str, processors: Sequence[int], *, benchmark: str = "hostile", **settings: Any
    ) -> Child:
        child = await Child.start(name, benchmark=benchmark, **settings)
        self._stack.push_async_callback(child.stop)
        for thread in os.listdir(f"/proc/{child.pid}/task"):
            os.sched_setaffinity(int(thread), processors)
        return child

    async def turn(self, seconds: float, kind: str = "") -> Times:
        """Return what the honest subscriber sees, beside a kind of hostile ones or without any."""
        await self.honest.ask("begin")
        if kind:
            await self.hostile.ask("begin", kind=kind)
        await asyncio.sleep(seconds)
        times = Times(**await self.honest.ask("end"))
        if kind:
            times.refused += filter(None, [await self.hostile.ask("end")])
            await self._settle()
        return times

    async def _settle(self) -> None:
        """Wait until the server has dealt with what the hostile subscribers left behind."""
        deadline_s = time.monotonic() + SETTLED_WITHIN_S
        while (await self.turn(SETTLE_S)).answer > CALM_MS:
            if time.monotonic() > deadline_s:
                raise RigError(f"the server is not itself again {SETTLED_WITHIN_S:.0f} s after the hostile subscribers")


async def measure(kinds: Sequence[str], seconds: float, rounds: int, seed: int) -> Report:
    """Measure kinds, and say how it goes; Ctrl-C ends it after the turn."""
    began_s, stop = time.monotonic(), asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGINT, lambda: task.cancel() if stop.is_set() else stop.set())
    report = Report()
    with contextlib.ExitStack() as undo:
        undo.callback(loop.remove_signal_handler, signal.SIGINT)
        async with Rig(seed, HISTORY_S if "resumes" in kinds else 0.0) as rig:
            await rig.turn(SETTLE_S)
            for kind in kinds:
                pairs: list[tuple[Times, Times]] = []
                while len(pairs) < rounds and not stop.is_set():
                    pairs.append((await rig.turn(seconds), await rig.turn(seconds, kind)))
                if pairs:
                    report.lines.append(Line.of(kind, pairs))
                    print(
                        f"{time.monotonic() - began_s:6.1f} s  {report.lines[-1].text()}", file=sys.stderr, flush=True
                    )
            report.errors += await rig.server.ask("errors")
    return report


def _write_tokens(path: Path) -> dict[str, str]:
    """Write a file of tokens, and return them by name."""
    permissions = PERMISSIONS | dict.fromkeys(
        ["honest", *(f"crowd-{number}" for number in range(CROWD))], PERMISSIONS["full"]
    )
    tokens = {name: secrets.token_urlsafe(32) for name in permissions}
    tables = [
        f'["{name}"]\nsha256 = "{digest_of(token).hex()}"\n{permissions[name]}\n' for name, token in tokens.items()
    ]
    path.touch(0o600)
    path.write_text("\n".join(tables))
    return tokens


def _write_certificate(path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    path.touch(0o600)
    path.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
