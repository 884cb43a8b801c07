"""A world whose user is a process with a store, killed (-9) at any moment and started again.

The rule of the file: what the process has printed is what it has yielded. Within each life the judge is that of every
other world. From life to life, a gap of the feed must say that a process has ended, and begin no later than the last
row that the life before has printed; and the limits of the account go on.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.chaos.gateway import Gateway
from benchmarks.chaos.judge import Problem, judged
from benchmarks.chaos.market import CONTRACTS, DATA_TYPES, GAP_FIELDS, Market
from benchmarks.chaos.play import REAL
from benchmarks.chaos.user import Held
from benchmarks.chaos.world import VERSIONS, Verdict
from ibfast.connection.stream import wanted
from ibfast.feed import Feed
from ibfast.records import GapCause

ROOT = Path(__file__).parents[2]
PERIOD_S = 0.1
POLL_S = 0.2
START_S = 60.0
REST_S = 150.0
END_S = 30.0
TYPES = ("TRADES", "QUOTES", "LAST", "BID_ASK", "DEPTH", "BARS")
LINE_LIMIT = 1 << 22


@dataclass
class Life:
    """One life of the process: what it has printed, by stream.

    Attributes:
        asked: the gateway's log of its requests.
        opened: contract id, data type and instrument of each stream.
        lines: what came, as printed.
        told: the gaps of its feed.
        figures: how it fared when it was asked last.
        shown: streams that had rows then; `told` has no gap that came later.
    """

    asked: dict[int, Any]
    opened: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    told: list[list[int]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)
    is_connected: bool = False

    def take(self, line: dict[str, Any]) -> None:
        """Take in what the process says."""
        if "connected" in line:
            self.is_connected = True
        elif "flowing" in line:
            self.figures = line
            self.told += line["told"]
            self.shown = {key for key in self.lines if self.newest(key)}
        elif "opened" in line:
            self.opened[line["key"]] = line["con_id"], line["opened"], line["instrument"]
            self.lines[line["key"]] = []
        else:
            self.lines[line["key"]].append(line)

    def last_ns(self, key: str) -> int:
        """Return when the last row of a stream came, 0 without any."""
        return max((row[-1] for line in self.lines.get(key, []) for row in line["rows"]), default=0)

    def newest(self, key: str) -> int:
        """Return the newest number of a stream."""
        return int(max((row[3] for line in self.lines.get(key, []) for row in line["rows"]), default=0))

    def held(self, key: str) -> Held:
        """Return a stream as the judge takes it."""
        con_id, data_type, _ = self.opened[key]
        contract = replace(CONTRACTS[int(key.partition(" ")[0])], con_id=con_id)
        want = wanted(contract, data_type)
        lines = self.lines[key]
        stream = SimpleNamespace(
            subscription=SimpleNamespace(request=want.request), live=True, history=None,
            lost=lines[-1]["lost"] if lines else 0, req_id=lines[-1]["req_id"] if lines else 0,
        )  # fmt: skip
        held = Held(stream, data_type, contract, since_s=float("inf"))  # type: ignore[arg-type]
        kind = DATA_TYPES[data_type]
        for line in lines:
            rows = np.zeros(len(line["rows"]), Feed.dtypes[want.ring])
            for name, column in zip(
                ("req_id", "seq", "kind", kind.number, "recv_ns"), zip(*line["rows"], strict=True), strict=False
            ):
                rows[name] = column
            gaps = np.zeros(len(line["gaps"]), Feed.dtypes["gaps"])
            for gap, values in zip(gaps, line["gaps"], strict=True):
                for name, value in zip(GAP_FIELDS, values, strict=True):
                    gap[name] = value
            held.gaps.extend(gaps)
            held.rows.append(rows)
            held.heard.append((len(held.gaps), line["lost"]))
        return held


def is_killed(seed: str) -> bool:
    """Tell whether the user of a world is killed: in every tenth one that is played in real time."""
    return REAL in seed and seed.endswith("0")


async def played_killed(seed: str) -> Verdict:
    """Play the world of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        return await _Killed(random.Random(seed), Path(folder) / "store.sqlite").play()


class _Killed:
    def __init__(self, draw: random.Random, store: Path) -> None:
        self._draw = draw
        self._store = store
        self._market = Market()
        self._gateway = Gateway(self._market, [draw.choice(VERSIONS) for _ in range(6)])
        self._problems: list[Problem] = []
        self._lives: list[Life] = []
        every = [(contract, data_type) for contract in range(3) for data_type in TYPES]
        self._streams = [
            {"contract": contract, "data_type": data_type, "priority": draw.randrange(3)}
            for contract, data_type in draw.sample(every, draw.randrange(1, 6))
        ]

    async def play(self) -> Verdict:
        """Kill it a few times, let the last life come to rest, and judge."""
        async with self._gateway:
            beating = asyncio.create_task(self._beat(), name="chaos beat")
            try:
                for _ in range(self._draw.randrange(1, 4)):
                    await self._live(self._draw.choice([0.3, 0.8, 1.5, 3.0, 7.0]))
                await self._live(None)
            finally:
                beating.cancel()
                await asyncio.wait([beating])
        self._judge()
        return Verdict(list(dict.fromkeys(self._problems)), self._counts(), list(self._gateway.journal))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            for asked in self._gateway.live():
                self._market.times_s[asked.series]
            self._gateway.deliver(self._market.beat())

    async def _live(self, kill_after_s: float | None) -> None:
        """Live once: until it is killed, or until everything flows."""
        self._gateway.asked = {}
        life = Life(self._gateway.asked)
        self._lives.append(life)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.chaos.subject", str(self._gateway.port), str(self._store),
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_LIMIT,
        )  # fmt: skip
        reading = asyncio.create_task(_read(process, life), name="chaos reader")
        try:
            await _until(lambda: life.is_connected or reading.done(), START_S)
            for stream in self._streams:
                _tell(process, stream)
            if kill_after_s is None:
                await self._rest(process, life)
            else:
                await asyncio.sleep(kill_after_s)
                _tell(process, {"figures": True})
                await asyncio.sleep(self._draw.choice([0.0, 0.05, 0.5]))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading
        await _until(lambda: not self._gateway.connections, END_S)

    async def _rest(self, process: asyncio.subprocess.Process, life: Life) -> None:
        keys = {f"{stream['contract']} {stream['data_type']}" for stream in self._streams}

        def is_at_rest() -> bool:
            live = sum(1 for _ in self._gateway.live())
            has_all = all(life.newest(key) for key in keys)
            return has_all and life.figures.get("flowing") == live == life.figures["declared"]

        deadline_s = time.monotonic() + REST_S
        while not is_at_rest() and time.monotonic() < deadline_s and process.returncode is None:
            _tell(process, {"figures": True})
            await asyncio.sleep(POLL_S)
        if not is_at_rest():
            self._problems.append(Problem("rest", f"after kill -9 not everything flows: {life.figures}"))
        assert process.stdin is not None
        process.stdin.close()
        if not await _until(lambda: process.returncode is not None, END_S):
            self._problems.append(Problem("hang", "the process does not end"))
        elif process.returncode:
            self._problems.append(Problem("exception", f"the process has ended with code {process.returncode}"))

    def _judge(self) -> None:
        for number, life in enumerate(self._lives):
            for key in life.opened:
                found = judged(life.held(key), life.asked, self._market, is_at_rest=False)
                # Sizes are not printed, and a gap may be said a line later.
                self._problems += [problem for problem in found if problem.kind in ("twice", "unasked", "abandoned")]
                if number:
                    self._problems += succeeded(key, life, self._lives[number - 1])
        self._problems += [Problem("offence", f"{rule}: {detail}") for _, rule, detail in self._gateway.offences]

    def _counts(self) -> Counter[str]:
        rows = sum(len(line["rows"]) for life in self._lives for lines in life.lines.values() for line in lines)
        return Counter(
            worlds=1, steps=len(self._lives), streams=sum(len(life.opened) for life in self._lives), rows=rows,
            requests=self._gateway.requests, ticks=self._gateway.ticks, offences=len(self._gateway.offences),
        )  # fmt: skip


def succeeded(key: str, life: Life, before: Life) -> list[Problem]:
    """Return what is wrong with a stream from one life to the next: a gap must begin with the end of the first."""
    last_ns = before.last_ns(key)
    if not last_ns or key not in life.shown:
        return []
    instrument = life.opened[key][2]
    told = [dict(zip(GAP_FIELDS, row, strict=True)) for row in life.told]
    ended = [gap for gap in told if gap["cause"] == GapCause.PROCESS_ENDED and gap["instrument"] == instrument]
    if any(gap["first_ns"] <= last_ns and gap["recovered"] for gap in ended):
        return []
    return [Problem("unreported", f"{key}: no gap from {last_ns}, when the process was killed: {ended}")]


async def _read(process: asyncio.subprocess.Process, life: Life) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        if line.endswith(b"\n"):  # the last one may be cut
            life.take(json.loads(line))


def _tell(process: asyncio.subprocess.Process, words: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(words).encode() + b"\n")


async def _until(condition: Any, within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline_s:
        await asyncio.sleep(POLL_S / 4)
    return bool(condition())
