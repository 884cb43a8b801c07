"""A process that plays fan-out worlds, or shrinks one; it answers by lines of JSON, and ends when its input does.

worker uvloop|asyncio|process AT_ONCE 0 SEED WITHOUT   worlds on that event loop, or with a process, so many at once
worker shrink KIND SECONDS SEED WITHOUT             one world
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import time
from dataclasses import asdict

import uvloop

from benchmarks.chaos.fanout.play import Plan, plan_of, played, played_one
from benchmarks.chaos.judge import Problem
from benchmarks.chaos.play import shrunk
from benchmarks.chaos.report import told
from benchmarks.chaos.worker import failed, has_ended, say, tell
from benchmarks.chaos.world import Verdict

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop, "process": uvloop.new_event_loop}
ATTEMPTS = 6
"""So many times at once a world is played before it counts as one that does not fail."""
FDS = "/proc/self/fd"
SETTLE_S = 0.5
FEW_FILES = 2
"""Files that the process may open for itself, once."""


def main(kind: str, first: str, second: str, seed: str, without: str) -> None:
    """Do what the arguments say."""
    left_out = json.loads(without)
    if kind == "shrink":
        shrink(first, float(second), seed, left_out)
        return
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(play(kind, int(first), seed, left_out))


async def play(loop: str, at_once: int, seed: str, without: list[str]) -> None:
    """Play worlds, so many at once; when the last one has ended, no file may be open that was not before the first."""
    names = (f"{seed}/{loop}/{index}" for index in itertools.count())
    before = await open_files()

    async def play_on() -> None:
        while not has_ended():
            name = next(names)
            # In a context of its own: a world is known by it.
            verdict = await asyncio.create_task(play_one(name, without))
            happened = {"told": told(plan_of(name, without).setup, verdict)} if verdict.problems else {}
            tell(name, verdict, **happened)

    await asyncio.gather(*(play_on() for _ in range(at_once)))
    files = await open_files()
    if files > before + FEW_FILES:
        tell(
            f"{seed}/{loop}", Verdict([Problem("left", f"{files - before} files are open when all worlds have ended")])
        )


async def play_one(name: str, without: list[str]) -> Verdict:
    """Play the world of a seed."""
    try:
        return await played_one(name, without)
    except Exception as error:
        return failed(error)


async def open_files() -> int:
    """Return how many files this process has open, once nothing is closing any more."""
    await asyncio.sleep(SETTLE_S)
    gc.collect()
    return len(os.listdir(FDS))


def fails(plan: Plan, kind: str) -> bool:
    """Tell whether a world shows a kind of problem, in one of a few attempts."""

    async def attempts() -> bool:
        verdicts = await asyncio.gather(*(asyncio.create_task(played(plan)) for _ in range(ATTEMPTS)))
        return any(kind in verdict.kinds for verdict in verdicts)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(attempts())


def shrink(kind: str, seconds: float, seed: str, without: list[str]) -> None:
    """Find the few steps that matter."""
    plan = plan_of(seed, without)
    deadline_s = time.monotonic() + seconds
    if not fails(plan, kind):
        say(plan=None)
        return
    smallest = shrunk(plan, lambda smaller: fails(smaller, kind), deadline_s - time.monotonic())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        verdict = runner.run(played(smallest))
    say(plan=smallest.dumped(), told=told(smallest.setup, verdict), setup=asdict(smallest.setup))


if __name__ == "__main__":
    main(*sys.argv[1:])
