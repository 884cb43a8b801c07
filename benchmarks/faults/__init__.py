"""Faults: what goes wrong in networks, gateways and processes, one after the other, and what becomes of the streams.

Each scenario has a gateway of its own with a busy market, a proxy that plays the network, and a connection manager with
six streams: level-1 quotes and RTVolume trades, tick-by-tick trades, depth and bars of stocks, and a currency pair. A
fault is injected; the scenario has passed if every stream is live again, by its data and by what the manager says, or
its refusal is reported; if every record that was lost is covered by a row of the `gaps` ring, and none came twice; if
the gateway, which enforces IB's limits by itself, saw none broken, has one request for each stream and no other one
afterwards, and no session after the end; and if no task and no file is left behind.

Lost records are counted against the gateway's own log of events, one to one, for tick-by-tick and RTVolume trades.
`detect` is the time from the injection to the first event of the manager's monitor, `live` to the first data of the
last stream, outages of the script included; a tick-by-tick stream waits for 15 s by IB's rule. Heartbeats are set to
seconds, where the defaults take a minute.

What this does not show: a real TWS, whose faults are told here as its documentation and its users tell them; loss of
sampled level-1 ticks, which have no event of their own; time to detect with default settings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults import gateway, network, notices, process
from benchmarks.faults.world import Outcome, Scenario, play

SCENARIOS = {
    scenario.name: scenario
    for scenario in (*network.SCENARIOS, *gateway.SCENARIOS, *notices.SCENARIOS, *process.SCENARIOS)
}
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SCENARIOS, help="these scenarios, in this process")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--quick", action="store_true", help="the short form: some scenarios, no tick-by-tick stream")
    parser.add_argument("--jobs", type=int, default=3, help="scenarios at a time, each in its process (default: 3)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace) -> int:
    """Play, print, and return 0 only if every scenario passed."""
    if options.list:
        print("\n".join(f"{scenario.name:<20} {scenario.what}" for scenario in SCENARIOS.values()))
        return 0
    if options.only:
        outcomes = [asyncio.run(play(SCENARIOS[name], quick=options.quick)) for name in options.only]
    else:
        chosen = [scenario for scenario in SCENARIOS.values() if scenario.quick or not options.quick]
        with ThreadPoolExecutor(options.jobs) as pool:
            outcomes = list(pool.map(lambda scenario: played_apart(scenario, quick=options.quick), chosen))
    rows = [asdict(outcome) | {"passed": outcome.passed} for outcome in outcomes]
    print(json.dumps(rows, indent=1) if options.json else table(outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def played_apart(scenario: Scenario, *, quick: bool) -> Outcome:
    """Play a scenario in a process of its own, so that none disturbs the others' clocks, limits or files."""
    command = [sys.executable, "-m", "benchmarks", "faults", "--json", "--only", scenario.name]
    try:
        result = subprocess.run(
            [*command, "--quick"] if quick else command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return Outcome(scenario.name, scenario.what, problems=(f"it hung for {TIMEOUT_S:g} s",))
    try:
        (row,) = json.loads(result.stdout)
    except ValueError:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        return Outcome(scenario.name, scenario.what, problems=(f"the process failed: {reason}",))
    del row["passed"]
    return Outcome(**row | {"problems": tuple(row["problems"])})


def table(outcomes: list[Outcome]) -> str:
    """Return the results as text."""
    head = (
        f"{'fault':<20} {'detect s':>8} {'live s':>7} {'lost':>6} {'reported':>8} {'unreported':>10} {'doubled':>7} "
        f"{'requests':>8} {'violations':>10} {'tasks':>5} {'files':>5}  passed"
    )
    lines = [head]
    for outcome in outcomes:
        lines.append(
            f"{outcome.name:<20} {_seconds(outcome.detect_s):>8} {_seconds(outcome.live_s):>7} {outcome.lost:>6,} "
            f"{outcome.reported:>8,} {outcome.unreported:>10,} {outcome.doubled:>7,} {outcome.requests:>8} "
            f"{outcome.violations:>10} {outcome.tasks:>5} {outcome.files:>5}  {'yes' if outcome.passed else 'NO'}"
        )
        lines += [f"{'':<20} {problem}" for problem in outcome.problems]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
