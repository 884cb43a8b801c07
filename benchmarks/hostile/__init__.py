"""Hostile subscribers: what each kind of them costs an honest one on the same server.

An embedded gateway with a seeded market, the fan-out server as `ibfast serve` runs it, an honest subscriber, and
hostile ones: four processes. The server has a processor of its own; hostile processes have the lowest priority on the
others, since in life their machines are not the honest one's. The honest subscriber reads quotes of twenty stocks in
windows of 10 ms, sends a ping every 50 ms, and subscribes to another stock every second.

Turns come in pairs, the first without the hostile subscribers and the second with them, for each kind several times.
Each figure is the median over the turns of a kind:

    gap        the longest time between two data messages
    delay      p99 from the server's read of the gateway's socket to the honest subscriber's read of its own
    answer     the longest time from a ping to its pong
    subscribe  the longest time from a subscribe to its answer

A kind passes if the gap and the answer are at most 100 ms longer than in its turns without hostile subscribers, the
delay is at most 3 times as long and 10 ms, and a subscription is granted within one second more.

    python -m benchmarks hostile                          every kind, more than ten minutes
    python -m benchmarks hostile --only "empty pings"     one; --list names them
    python -m benchmarks hostile --quick                  a short form, a part of the tests; --json for programs

The exit code is 0 only if every kind passes. Ctrl-C ends it with the kinds measured so far. Needs Linux and two
processors.

What it does not show: floods of the network below TCP; a real TWS; a hundred hostile machines. Everything shares one
machine: compare turns of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys

from benchmarks.fanout import allow_files
from benchmarks.fanout.rig import RigError
from benchmarks.hostile.kinds import KINDS
from benchmarks.hostile.report import Report
from benchmarks.hostile.rig import measure
from benchmarks.soak.child import ChildError

FILES = 4_000
QUICK = {"seconds": 1.5, "rounds": 1, "only": ["empty pings", "silent TLS"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=KINDS, help="these kinds (default: all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of turns for each kind (default: 3)")
    parser.add_argument("--seed", type=int, default=1, help="of the market (default: 1)")
    parser.add_argument("--list", action="store_true", help="name the kinds, and end")
    parser.add_argument("--quick", action="store_true", help="two kinds and short turns: no measurement")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 only if no kind hurts the honest subscriber."""
    if options.list:
        print("\n".join(f"{name:<24} {kind.summary}" for name, kind in KINDS.items()))
        return 0
    if options.quick:
        vars(options).update(QUICK)
    fault = _fault(options)
    if fault:
        print(f"hostile: {fault}", file=sys.stderr)
        return 2
    try:
        allow_files(FILES)
        report = asyncio.run(measure(options.only or list(KINDS), options.seconds, options.rounds, options.seed))
    except (ChildError, RigError, TimeoutError) as error:
        print(f"FAILED: {error or 'it takes too long'}", file=sys.stderr)
        return 1
    print(json.dumps(report.row(), indent=1) if options.json else report.text())
    return _exit_code(report, is_quick=options.quick)


def _exit_code(report: Report, *, is_quick: bool) -> int:
    """Return 0 if every kind passes; a quick run measures nothing, so that only its errors count."""
    problems = report.errors if is_quick else report.problems
    return 1 if problems or not report.lines else 0


def _fault(options: argparse.Namespace) -> str:
    """Return what can't be measured, "" if everything can."""
    if sys.platform != "linux":
        return "it needs Linux: /proc and processors to choose"
    if len(os.sched_getaffinity(0)) < 2:
        return "it needs two processors, one of them for the server"
    if min(options.seconds, options.rounds) <= 0:
        return "--seconds and --rounds are more than 0"
    return ""
