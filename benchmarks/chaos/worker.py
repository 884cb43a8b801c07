"""A process that plays worlds, or shrinks one; it answers by lines of JSON, and ends when its input does.

worker jump NUMBER OF SEED WITHOUT       worlds on a jumping clock, every OF-th one
worker wait AT_ONCE 1 SEED WITHOUT       worlds in real time, on uvloop
worker shrink KIND SECONDS SEED WITHOUT  one world
"""

from __future__ import annotations

import asyncio
import itertools
import json
import select
import sys
import traceback
from dataclasses import asdict
from typing import Any

import uvloop

from benchmarks.chaos.judge import Problem
from benchmarks.chaos.killed import is_killed, played_killed
from benchmarks.chaos.play import REAL, jumped, plan_of, played, shrunk
from benchmarks.chaos.report import told
from benchmarks.chaos.world import Verdict


def main(kind: str, first: str, second: str, seed: str, without: str) -> None:
    """Do what the arguments say."""
    left_out = json.loads(without)
    if kind == "shrink":
        shrink(first, float(second), seed, left_out)
    elif kind == "jump":
        jump(int(first), int(second), seed, left_out)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(wait(int(first), seed, left_out))


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def tell(seed: str, verdict: Verdict, **more: Any) -> None:
    say(seed=seed, counts=verdict.counts, problems=verdict.problems, **more)


def failed(error: Exception) -> Verdict:
    """Return the verdict of a world that could not be played."""
    where = "".join(traceback.format_exception(error)[-2:])
    return Verdict([Problem("exception", f"the world could not be played: {where}")])


def has_ended() -> bool:
    """Tell whether nobody wants more worlds."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def jump(number: int, of: int, seed: str, without: list[str]) -> None:
    for index in itertools.count(number, of):
        if has_ended():
            return
        name = f"{seed}/{index}"
        try:
            verdict = jumped(plan_of(name, without))
        except Exception as error:
            verdict = failed(error)
        tell(name, verdict)


async def wait(at_once: int, seed: str, without: list[str]) -> None:
    names = (f"{seed}{REAL}{index}" for index in itertools.count())

    async def play() -> None:
        while not has_ended():
            name = next(names)
            try:
                # In a context of its own: a world is known by it.
                work = played_killed(name) if is_killed(name) else played(plan_of(name, without))
                verdict = await asyncio.create_task(work)
            except Exception as error:
                verdict = failed(error)
            tell(name, verdict)

    await asyncio.gather(*(play() for _ in range(at_once)))


def shrink(kind: str, seconds: float, seed: str, without: list[str]) -> None:
    plan = plan_of(seed, without)
    if is_killed(seed) or kind not in jumped(plan).kinds:
        say(plan=None)
        return
    smallest = shrunk(plan, lambda smaller: kind in jumped(smaller).kinds, seconds)
    say(plan=smallest.dumped(), told=told(smallest.setup, jumped(smallest)), setup=asdict(smallest.setup))


if __name__ == "__main__":
    main(*sys.argv[1:])
