"""Soak: a connection under load and random faults for as long as you like; its memory, losses and latencies.

An embedded gateway in a process of its own sends 20,000 messages a second: level 1 with time and sales of 90 stocks,
tick-by-tick of ten more, books of two, encoded one by one as the gateway always does; a proxy in front of it and the
gateway itself go wrong at random (seeded) every few seconds; a connection manager, in a process of its own, with
default settings but for shorter times, keeps 102 streams through it; a witness in a third process reads the feed's
rings from shared memory.

Trades and quotes are numbered: the n-th one of an instrument has the size n and a price that follows from n, at a time
that follows from n too. So the witness finds what is missing by arithmetic, and asks the `gaps` ring whether it was
reported. A record's value that does not fit its number fails the run as well.

The exit code is 0 only if no record was lost unreported, none came twice, none had a wrong value, no limit was broken
(the gateway counts by itself), no exception was left unhandled, every stream was live again at the end, by one request
at the gateway and none besides, nothing was left behind (tasks, threads, sockets, files), and memory did not grow: by a
line fitted to the subject's own memory after the warm-up (two minutes, or a quarter of the run), by no more than 4 MB
and 4 MB per hour. The rings are in shared memory, of a fixed size, and not part of that.

    python -m benchmarks soak --minutes 15
    python -m benchmarks soak --minutes 2 --seed 7 --only "reset in frame" "1100, 1101"
    python -m benchmarks soak --minutes 60 --json > soak.json      the progress goes to stderr
    python -m benchmarks soak --list                               the faults

Ctrl-C ends it with the figures so far; a second one at once.

What it does not show: a real TWS; the same rate while streams are being restored (nothing is sent to who has not
subscribed: the mean is below the rate); bars and options, whose records have no numbers; a reader that is too slow; a
loss before a stream's first record. Latency is measured from the subject's socket read to a waiting thread of another
process, on a machine that runs the gateway and the proxy too. Needs Linux (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from typing import Any

from benchmarks.soak.child import ChildError
from benchmarks.soak.latency import Latencies
from benchmarks.soak.market import INSTRUMENTS
from benchmarks.soak.report import Closing, Memory, shown_us
from benchmarks.soak.rig import Rig, Sample
from benchmarks.soak.trouble import FAULTS, make_trouble

S_PER_MIN = 60.0
SAMPLE_S, PROGRESS_S = 1.0, 10.0
SETTLE_S = 120.0
QUARTERS = 4
HEADER = "     s   msg/s     MB   cpu faults       lost   reported  p50 µs   p99 µs  state"
COUNTED = ("lost", "reported", "unreported", "gaps", "repeated", "duplicates", "wrong", "unread")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--minutes", type=float, default=15.0, help="how long faults are injected (default: 15)")
    parser.add_argument("--rate", type=float, default=20_000.0, help="messages per second (default: 20,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults' order and times (default: 1)")
    parser.add_argument("--only", nargs="+", metavar="FAULT", choices=FAULTS, help="these faults (default: all)")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--json", action="store_true", help="print the closing figures as JSON")


def run(options: argparse.Namespace) -> int:
    """Soak, print, and return 0 only if everything was as it must be."""
    if options.list:
        print("\n".join(FAULTS))
        return 0
    try:
        closing = asyncio.run(Soak(options).run())
    except ChildError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("interrupted: no figures", file=sys.stderr)
        return 1
    print(json.dumps(closing.row(), indent=1) if options.json else closing.text())
    return 1 if closing.problems else 0


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._duration_s = options.minutes * S_PER_MIN
        self._samples: list[Sample] = []
        self._quarters = [Latencies() for _ in range(QUARTERS)]
        self._stop = asyncio.Event()
        self._sent = 0
        self._told_s = 0.0
        self._cpu_s = 0.0

    async def run(self) -> Closing:
        """Return the figures."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: task.cancel() if self._stop.is_set() else self._stop.set())
        try:
            async with Rig(self._options.rate, self._options.seed) as rig:
                return await self._run(rig)
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _run(self, rig: Rig) -> Closing:
        self._began_s = self._told_s = time.monotonic()
        before = await rig.subject.ask("figures")
        gateway_before = await rig.gateway_figures()
        self._sent = gateway_before["sent"]
        cpu_before = rig.cpu_s()
        self._cpu_s = cpu_before["subject"]
        self._say(f"{INSTRUMENTS} streams are live\n{HEADER}")
        trouble = asyncio.create_task(make_trouble(rig, self._options.only or list(FAULTS), self._stop))
        try:
            await self._watch(rig, trouble)
        finally:
            self._stop.set()
            await trouble
        ended_s = time.monotonic()
        settled = await rig.settled(SETTLE_S)
        settled_s = time.monotonic() - ended_s
        surplus = await rig.surplus(SETTLE_S)
        await self._progress(rig)
        seconds = time.monotonic() - self._began_s
        after = await rig.subject.ask("figures")
        cpu = {name: (s - cpu_before[name]) / seconds for name, s in rig.cpu_s().items()}
        left = await rig.subject.ask("stop")
        grown = [
            f"{after[what] - before[what]} {what} more" for what in ("tasks", "files") if after[what] > before[what]
        ]
        gateway, witness = await rig.gateway_figures(), await rig.witness.ask("figures")
        return Closing(
            seconds=seconds,
            settled_s=settled_s if settled else None,
            messages=gateway["sent"] - gateway_before["sent"],
            records=after["records"] - before["records"],
            numbered=witness["records"],
            faults=Counter(name for _, name in rig.log),
            **{name: witness[name] for name in COUNTED},
            reconnects=after["connected"] - before["connected"],
            requests=gateway["received"] - gateway_before["received"],
            late=after["late"],
            surplus=surplus,
            violations=[f"{text}, {rig.after_what(at_s)}" for at_s, text in gateway["violations"]],
            errors=after["errors"],
            leaked=left + grown,
            memory=Memory.of(self._samples),
            latencies=self._quarters,
            cpu=cpu,
            samples=[f"{text}, {rig.after_what(at_s)}" for at_s, text in witness["samples"]]
            + ([] if settled else after["reasons"]),
        )  # fmt: skip

    async def _watch(self, rig: Rig, trouble: asyncio.Task[None]) -> None:
        """Look and tell until the time is over, or somebody ends it, or the trouble fails."""
        while time.monotonic() < self._began_s + self._duration_s and not self._stop.is_set() and not trouble.done():
            self._samples.append(rig.sample())
            if time.monotonic() >= self._told_s + min(PROGRESS_S, self._duration_s / QUARTERS):
                await self._progress(rig)
            await asyncio.wait([trouble], timeout=SAMPLE_S)
        self._samples.append(rig.sample())

    async def _progress(self, rig: Rig) -> None:
        gateway, subject = await rig.gateway_figures(), await rig.subject.ask("figures")
        witness: dict[str, Any] = await rig.witness.ask("figures")
        latencies = Latencies(witness["latencies"], witness["max_ns"])
        now_s = time.monotonic()
        elapsed_s = now_s - self._began_s
        quarter = int((self._told_s - self._began_s) / self._duration_s * QUARTERS)
        self._quarters[min(quarter, QUARTERS - 1)].merge(latencies)
        rate = (gateway["sent"] - self._sent) / (now_s - self._told_s)
        sample, cpu_s = rig.sample(), rig.cpu_s()["subject"]
        cpu = (cpu_s - self._cpu_s) / (now_s - self._told_s)
        self._sent, self._told_s, self._cpu_s = gateway["sent"], now_s, cpu_s
        self._say(
            f"{elapsed_s:>6,.0f} {rate:>7,.0f} {sample.own_mb:>6.1f} {cpu:>5.0%} {len(rig.log):>6} "
            f"{witness['lost']:>10,} {witness['reported']:>10,} "
            f"{shown_us(latencies, 50):>7} {shown_us(latencies, 99):>8}  "
            f"{subject['state']}, {subject['live']} live"
        )

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr if self._options.json else sys.stdout, flush=True)
