"""The processes of a run: some play worlds on jumping clocks, one plays many at once in real time.

The rule of the file: a world that fails is played again by a process of its own, which shrinks it; the first ones of
each kind only, one at a time. Every line of a worker is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.judge import KINDS
from benchmarks.chaos.report import FIGURES, Report

ROOT = Path(__file__).parents[2]
PROGRESS_S = 10.0
SHRINK_S = 60.0
SHRUNK_PER_KIND = 2
STOP_S = 300.0
"""So long the worlds that have begun may take to end."""
STOP_AT_ONCE_S = 3.0
"""So long when the user ends the run: worlds that last longer are not judged."""
LONGEST_LINE = 1 << 22


@dataclass(frozen=True)
class Game:
    """What is played.

    Attributes:
        module: of the processes.
        workers: their arguments, but for the seed and what is left out; the first one is shown with what it finds.
        kinds: of problems, and what each is.
        figures: of the report.
        shrink_s: how long a world that fails may be shrunk.
    """

    module: str
    workers: tuple[tuple[str, str, str], ...]
    kinds: Mapping[str, str]
    figures: tuple[str, ...]
    shrink_s: float = SHRINK_S


def game_of(options: argparse.Namespace) -> Game:
    """Return the game of the connection."""
    workers = [("jump", f"{number}", f"{options.jobs}") for number in range(options.jobs)]
    if options.at_once:
        workers.append(("wait", f"{options.at_once}", "1"))
    return Game("benchmarks.chaos.worker", tuple(workers), KINDS, FIGURES)


def run_rig(options: argparse.Namespace, seconds: float, game: Game) -> Report:
    """Play worlds for a time, and return what was found."""
    return asyncio.run(Rig(options, seconds, game).run())


class Rig:
    """One run."""

    def __init__(self, options: argparse.Namespace, seconds: float, game: Game) -> None:
        self._options = options
        self._seconds = seconds
        self._game = game
        self._report = Report(kinds=game.kinds, figures=game.figures)
        self._stop = asyncio.Event()
        self._shrunk: Counter[str] = Counter()
        self._to_shrink: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def run(self) -> Report:
        """Return what was found."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        began_s = time.monotonic()
        playing = [asyncio.create_task(self._work(*worker)) for worker in self._game.workers]
        shrinking = asyncio.create_task(self._shrink())
        progress = asyncio.create_task(self._progress(began_s))
        try:
            await asyncio.wait(playing)
            for task in playing:
                task.result()
            if not self._stop.is_set():
                await self._to_shrink.join()
        finally:
            for task in (shrinking, progress):
                task.cancel()
            await asyncio.gather(shrinking, progress, return_exceptions=True)
            loop.remove_signal_handler(signal.SIGINT)
        self._report.seconds = time.monotonic() - began_s
        return self._report

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._game.module, *arguments,
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LONGEST_LINE,
            start_new_session=True,
        )  # fmt: skip

    async def _work(self, kind: str, number: str, of: str) -> None:
        """Have a process play worlds until the time is over."""
        process = await self._start(kind, number, of, str(self._options.seed), json.dumps(self._options.without))
        stopping = asyncio.create_task(self._end(process))
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                self._take(kind, json.loads(line))
            if await process.wait() != 0 and not self._stop.is_set():
                self._report.broken.append(f"the process of {kind} worlds ended with code {process.returncode}")
        finally:
            stopping.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Have a process begin no more worlds when the time is over, and kill it if it does not end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._seconds)
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), STOP_S)
            await asyncio.sleep(STOP_AT_ONCE_S)
        process.kill()

    def _take(self, clock: str, world: dict[str, Any]) -> None:
        without = self._options.without
        world["problems"] = [problem for problem in world["problems"] if problem[0] not in without]
        self._report.take(world)
        kinds = dict(world["problems"])
        news = [kind for kind in kinds if self._shrunk[kind] < SHRUNK_PER_KIND]
        self._shrunk.update(news)
        for kind in news:
            self._say(f"{kind} in {world['seed']} ({clock}): {kinds[kind]}")
        if news:
            kind = min(news, key=list(self._game.kinds).index)
            self._to_shrink.put_nowait((kind, world["seed"]))
            if "told" in world:
                self._keep(f"{kind}-{world['seed']}.txt", world["told"])

    def _keep(self, name: str, text: str) -> None:
        if self._options.keep is not None:
            self._options.keep.mkdir(parents=True, exist_ok=True)
            (self._options.keep / name.replace(" ", "-").replace("/", "-")).write_text(text)

    async def _shrink(self) -> None:
        """Shrink what has failed, one after the other."""
        while True:
            kind, seed = await self._to_shrink.get()
            try:
                await self._shrink_one(kind, seed)
            finally:
                self._to_shrink.task_done()

    async def _shrink_one(self, kind: str, seed: str) -> None:
        process = await self._start("shrink", kind, str(self._game.shrink_s), seed, json.dumps(self._options.without))
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        found = json.loads(output) if output else {"plan": None}
        if found["plan"] is None:
            self._say(f"{kind} in {seed} does not show when it is played again: --replay {seed} may not show it")
            return
        self._say(f"{kind} in {seed}, shrunk:\n{found['told']}\n{found['plan']}")
        self._keep(f"{kind}-{seed}.json", found["plan"])

    async def _progress(self, began_s: float) -> None:
        while True:
            await asyncio.sleep(min(PROGRESS_S, max(1.0, self._seconds / 4)))
            counts = self._report.counts
            found = ", ".join(f"{kind} {count}" for kind, count in self._report.found.most_common())
            self._say(
                f"{time.monotonic() - began_s:>6,.0f} s {counts['worlds']:>7,} worlds {counts['steps']:>8,} steps "
                f"{counts['rows']:>11,} rows  {found or 'nothing found'}"
            )

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr if self._options.json else sys.stdout, flush=True)
