"""End to end: a gateway, the server, and a thousand subscribers; some of them stall, and the others must not notice.

A gateway with a seeded market in a process of its own; the connection and the fan-out server in another, on uvloop, as
`ibfast serve` runs them; in a third, in C, subscribers over the binary dialect, each with symbols of its own choice (20
of 100), which makes every subscriber an audience of its own. Turns alternate: all read, and all but ten. These ten ask
for answers which they don't read, so that they clog within a second; half of them read again for a moment now and then
(they are to be told what they missed, and to be slowed), half never do (they are to be ended).

What is measured of the server's process, from outside: processor time, and its own memory (what it shares with others,
the rings, is of a fixed size). Of one in 20 subscribers everything is decoded, and compared to the bit with the
server's rings, which are in shared memory: every row must have come, in its place, or be covered by a `lag`. Latency is
from `recv_ns`, the server's read of the gateway's socket, to the subscriber's read of its own, by the same machine's
clock; half a window of waiting is in it, so that the time from a window's end to the read is told too.

    python -m benchmarks endtoend                       four turns of 20 seconds, about two minutes
    python -m benchmarks endtoend --interval-ms 50      fewer and larger windows
    python -m benchmarks endtoend --subscribers 100 --stalled 5 --seconds 60 --rounds 1
    python -m benchmarks endtoend --json > result.json  the progress goes to stderr

The exit code is 0 only if no row was wrong or left out untold, nobody but those who stalled lost anything or was
disconnected, those were told or ended, and the server's memory did not grow by more than 16 MB. Ctrl-C ends it with the
figures so far, a second one at once. Needs Linux and a C compiler, and more open files than subscribers (`ulimit -n`).

What it does not show: a real TWS; a real network; TLS; JSON; subscribers that all want the same, which costs far less.
Everything shares one machine: compare turns of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time

from benchmarks.endtoend.judge import Truth, read
from benchmarks.endtoend.report import Report
from benchmarks.endtoend.rig import Load, Rig, Turn
from benchmarks.endtoend.subscribers import records
from benchmarks.fanout import allow_files
from benchmarks.fanout.rig import RigError
from benchmarks.soak.child import ChildError
from ibfast.fanout.encoding.channels import INTERVALS_MS

OTHER_FILES = 200
QUICK = {"subscribers": 40, "stalled": 4, "symbols": 10, "each": 4, "rate": 500.0, "seconds": 8.0, "rounds": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--subscribers", type=int, default=1_000, help="connections (default: 1,000)")
    parser.add_argument("--stalled", type=int, default=10, help="of them stall in every other turn (default: 10)")
    parser.add_argument("--symbols", type=int, default=100, help="of the market (default: 100)")
    parser.add_argument("--each", type=int, default=20, help="symbols of each subscriber (default: 20)")
    parser.add_argument("--rate", type=float, default=5_000.0, help="ticks per second, about (default: 5,000)")
    parser.add_argument(
        "--interval-ms", type=int, default=10, choices=INTERVALS_MS, help="windows (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn (default: 20)")
    parser.add_argument("--rounds", type=int, default=2, help="of two turns each (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of the market and of who has what (default: 1)")
    parser.add_argument("--quick", action="store_true", help="few subscribers and short turns: no measurement")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 only if everything was as it must be."""
    if options.quick:
        vars(options).update(QUICK)
    fault = _fault(options)
    if fault:
        print(f"endtoend: {fault}", file=sys.stderr)
        return 2
    try:
        allow_files(options.subscribers + OTHER_FILES)
        report = asyncio.run(EndToEnd(options).run())
    except (ChildError, RigError, TimeoutError) as error:
        print(f"FAILED: {error or 'it takes too long'}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("interrupted: no figures", file=sys.stderr)
        return 1
    print(json.dumps(report.row(), indent=1) if options.json else report.text())
    return 1 if report.problems else 0


def _fault(options: argparse.Namespace) -> str:
    """Return what can't be measured, "" if everything can."""
    if sys.platform != "linux":
        return "it needs Linux: /proc and epoll"
    if not 1 <= options.each <= options.symbols:
        return f"--each is 1 to --symbols ({options.symbols}), not {options.each}"
    if not 1 <= options.stalled < options.subscribers:
        return f"--stalled is 1 or more, and less than --subscribers ({options.subscribers}), not {options.stalled}"
    if min(options.seconds, options.rounds, options.rate) <= 0:
        return "--seconds, --rounds and --rate are more than 0"
    return ""


class EndToEnd:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        names = ("subscribers", "stalled", "symbols", "each", "rate", "interval_ms", "seconds", "seed")
        self._load = Load(**{name: getattr(options, name) for name in names})
        self._rounds = options.rounds
        self._is_json = options.json
        self._stop = asyncio.Event()
        self._began_s = time.monotonic()

    async def run(self) -> Report:
        """Return the figures."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: task.cancel() if self._stop.is_set() else self._stop.set())
        try:
            async with Rig(self._load, self._say) as rig:
                return await self._run(rig)
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _run(self, rig: Rig) -> Report:
        await rig.join()
        turns: list[Turn] = []
        for number in range(2 * self._rounds):
            if self._stop.is_set():
                break
            turn = await rig.turn(self._stop, is_stalled=number % 2 == 1)
            turns.append(turn)
            self._say(
                f"turn {number + 1} of {2 * self._rounds}, {'some stalled' if turn.is_stalled else 'all read'}: "
                f"server {turn.cpu['server']:.0%}, {turn.own_mb[2]:.1f} MB, {turn.frames / turn.seconds:,.0f} frames/s"
            )
        if not turns:
            raise RigError("interrupted before the first turn")
        await rig.subscribers.stop()  # from here on its file is whole
        errors = await rig.server.ask("errors")
        self._say("decoding and comparing what came")
        connections = await asyncio.to_thread(lambda: read(records(rig.file)))
        truth = Truth(rig.rows)
        return Report.of(self._load, turns, connections, truth, joined_s=rig.joined_s, unseen=rig.lost, errors=errors)

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began_s:6.1f} s  {line}", file=sys.stderr, flush=True)
