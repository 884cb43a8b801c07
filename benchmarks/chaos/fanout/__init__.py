"""The fan-out's chaos: random subscribers beside random faults of everything, held against the rings.

A server has real sockets, in real time, on uvloop and on asyncio. A manager or a pool feeds it from the truthful
gateways of the connection's chaos. Clients of both dialects, each with a codec of its own, subscribe to all data types
in all ways, change their minds, resume from right, old and impossible numbers, stop reading, and end by closes, resets
and half-closes; tokens expire, loops block, gateways die, refuse and end subscriptions, and the server stops. Then
everything is made well again.

What must hold: every row that the rings have published reaches every subscription once, in order, value for value, or
lies in a `lag`, or before a state that begins it; a state is what the rows up to it make, by an independent replay;
`resumed` goes on where the client was; nothing follows an end; every request has one answer; states, gaps and ends are
told; pages say what there is; and when all have gone, no connection, line, lane, task or file is left.

    python -m benchmarks chaos --fanout --minutes 30 --seed 7
    python -m benchmarks chaos --fanout --replay 7/uvloop/12      a world by its seed, with what happened
    python -m benchmarks chaos --fanout --replay failure.json     the steps of a file, as --keep writes them
    python -m benchmarks chaos --fanout --list                    the actions, and what is judged

What it does not show: a real TWS; TLS; loads of many subscribers; how long anything takes, but for limits of many
seconds; rows that the rings themselves lack, which is judged without --fanout; `state` and `gap` messages one by one,
since they are judged at rest. Nothing is the same run twice: what is found by a seed may show again only after some
attempts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from benchmarks.chaos.fanout.kinds import KINDS
from benchmarks.chaos.fanout.play import ACTIONS, Plan, plan_of, played
from benchmarks.chaos.report import told
from benchmarks.chaos.rig import Game

FIGURES = (
    "worlds", "steps", "clients", "subscribed", "resumed", "not resumed", "ended", "snapshot", "lag slow",
    "lag overrun", "lag incomplete", "gap", "closing", "error", "messages", "rows", "published",
    "generations", "providers", "blind",
)  # fmt: skip
LOOPS = ("uvloop", "asyncio")
SHRINK_S = 90.0


def game_of(options: argparse.Namespace) -> Game:
    """Return the game: a process for each event loop, which share the worlds at once."""
    at_once = max(1, options.at_once // len(LOOPS))
    workers = (*((loop, f"{at_once}", "0") for loop in LOOPS), ("process", "1", "0"))
    return Game("benchmarks.chaos.fanout.worker", workers, KINDS, FIGURES, SHRINK_S)


def replayed(what: str, without: list[str]) -> int:
    """Play one world, print what happens in it, and return 0 only if nothing was found."""
    path = Path(what)
    plan = Plan.loaded(path.read_text()) if path.is_file() else plan_of(what, without)
    verdict = asyncio.run(played(plan))
    print(told(plan.setup, verdict))
    problems = [problem for problem in verdict.problems if problem.kind not in without]
    if not problems:
        print("nothing was found", file=sys.stderr)
    return 1 if problems else 0


__all__ = ["ACTIONS", "FIGURES", "KINDS", "game_of", "replayed"]
