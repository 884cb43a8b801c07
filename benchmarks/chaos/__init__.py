"""Chaos: random calls of a user beside random faults of a truthful gateway, for as long as you like, judged by its log.

A gateway knows which request of which connection is live and numbers every tick. A user (a manager, or a pool of up to
three) subscribes, unsubscribes, asks, connects, disconnects and is cancelled in the middle, in several tasks and from
callbacks, while the gateway says every code of IB's table at any time, truly or not, loses requests, links and
connections, answers late, twice or never, and changes its version. Then everything is made well again. What must hold:
every tick of a live request has reached its streams once, in order, value for value, or a gap or `lost` accounts for
it; no tick of a request that was given up has; one request is live for each subscription, and none besides; states,
health and plan are true; no rule of IB is broken; nothing hangs, raises or is left.

A world is a list of steps drawn from a seed. Most worlds have a clock that jumps: time passes only while nothing is
ready, so that minutes of patience take milliseconds and the same steps are the same run. A process of its own plays
worlds in real time on uvloop meanwhile, many at once; in every tenth the user is a process that is killed (-9). What
fails is printed with its seed, and shrunk to the steps that matter.

    python -m benchmarks chaos --minutes 30 --seed 7
    python -m benchmarks chaos --minutes 5 --without "step clock" "block loop" "late gap"
    python -m benchmarks chaos --replay 7/123            a world by its seed, on a jumping clock, with what happened
    python -m benchmarks chaos --replay failure.json     the steps of a file, as --keep writes them
    python -m benchmarks chaos --list                    the actions, and what is judged
    python -m benchmarks chaos --fanout --minutes 30     the fan-out instead, in real time; see --fanout --list

Ctrl-C ends it with the figures so far. The exit code is 0 only if nothing was found.

What it does not show: a real TWS; books, whose rows are judged one by one and not as a whole; what level 1 samples.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from benchmarks.chaos import fanout
from benchmarks.chaos.judge import KINDS
from benchmarks.chaos.killed import is_killed, played_killed
from benchmarks.chaos.play import ACTIONS, Plan, jumped, plan_of
from benchmarks.chaos.report import Report, told
from benchmarks.chaos.rig import game_of, run_rig

S_PER_MIN = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--minutes", type=float, default=5.0, help="how long new worlds are begun (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="of all worlds (default: 1)")
    parser.add_argument("--fanout", action="store_true", help="play the fan-out and its subscribers, in real time")
    parser.add_argument("--jobs", type=int, default=1, help="processes with a jumping clock (default: 1)")
    parser.add_argument("--at-once", type=int, default=12, help="worlds at once in real time, 0: none (default: 12)")
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME",
        choices=dict.fromkeys([*ACTIONS, *KINDS, *fanout.ACTIONS, *fanout.KINDS]),
        help="leave out these actions, and do not judge these kinds of problems",
    )  # fmt: skip
    parser.add_argument("--replay", metavar="SEED|FILE", help="play one world again, and tell what happens")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write what fails there, shrunk, a file for each")
    parser.add_argument("--list", action="store_true", help="name the actions and the kinds of problems, and end")
    parser.add_argument("--json", action="store_true", help="print the closing figures as JSON")


def run(options: argparse.Namespace) -> int:
    """Play worlds, print, and return 0 only if nothing was found."""
    actions, kinds = (fanout.ACTIONS, fanout.KINDS) if options.fanout else (ACTIONS, KINDS)
    if options.list:
        if options.fanout:
            print(fanout.__doc__)
        print("\n".join(f"{action.name:<24} {action.what}" for action in actions.values()))
        print()
        print("\n".join(f"{kind:<24} {what}" for kind, what in kinds.items()))
        return 0
    if options.replay:
        return (fanout.replayed if options.fanout else replayed)(options.replay, options.without)
    game = fanout.game_of(options) if options.fanout else game_of(options)
    report: Report = run_rig(options, S_PER_MIN * options.minutes, game)
    print(json.dumps(report.row(), indent=1) if options.json else report.text())
    return 1 if report.found else 0


def replayed(what: str, without: list[str]) -> int:
    """Play one world, print what happens in it, and return 0 only if nothing was found."""
    path = Path(what)
    if is_killed(what):
        verdict = asyncio.run(played_killed(what))
        print(told("a user that is killed", verdict))
    else:
        plan = Plan.loaded(path.read_text()) if path.is_file() else plan_of(what, without)
        verdict = jumped(plan)
        print(told(plan.setup, verdict))
    problems = [problem for problem in verdict.problems if problem.kind not in without]
    if not problems:
        print("nothing was found", file=sys.stderr)
    return 1 if problems else 0
