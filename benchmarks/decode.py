"""Decoding: ibfast, a hand-written C parser, ibapi and ib_async on the same stream.

What is measured: CPU time of a process per message, from framed bytes to where a program can use the values. For ibfast
that is Decoder.feed_bytes in chunks of 64 KiB, everything that it does included: the records of the messages, trades
and merged quotes derived from level 1, the last-value table, interned texts, and publishing to readers. The C parser
(cparser.c, same compiler, -O3) gets the whole stream in one call and writes one plain 64-byte record per message and
nothing else; the floor only walks over the frames. ibapi runs its reader, queue, message loop and decoder, ib_async its
client and decoder, both on reads of 4 KiB with empty callbacks; what a real wrapper does comes on top.

All peers take turns in one run. A neighbour on the same core can double every figure for some tenths of a second, so
the fast three (floor, C parser, ibfast) share one processor and change places every few milliseconds, and a ratio is
the median of the ratios to the C parser's time in the same turn; times are medians. Every peer's values are verified
against the generator's in a pass of its own that is not timed: one digest over all of them, in order, to the bit. Text
stands for server versions 157-200, raw-id text for 201-205, protobuf for 208 and later.

What this does not show: option computations, market depth and decimals of more than 17 characters, of which the stream
has none; a tuned parser, which the C parser is not; the socket, waking a reader and reading the rings; latency; several
connections; malformed or rare messages; cold caches, as with 20 messages a second. Compare ratios, not the times of
different runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import stream
from benchmarks.peers.worker import Events
from tests.support.oracles import ASYNC_CLIENT, NEW_CLIENT, python_with

PEERS = Path(__file__).parent / "peers"
BUILD = Path(__file__).parent.parent / "build" / "benchmarks"
DIALECTS = {"text": 176, "raw-id text": 201, "protobuf": 226}
QUICK_MESSAGES, QUICK_ROUNDS = 20_000, 3
C_PARSER = "C parser"
FAST_TURNS = 20
"""Turns of the fast peers in a round, in alternating order, before one of all peers."""
CFLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")


@dataclass
class Peer:
    """A worker process, and what it can do; it runs from the constructor on until `close`.

    Attributes:
        dialects: the streams that it takes.
        fast: it takes microseconds where others take milliseconds: several turns a round, on the processor of the other
            fast ones.
        counts_only: it sees no values, so that its count of messages is all there is to verify.
        has_attribs: whether it reports the attributes of prices.
    """

    name: str
    command: list[str]
    dialects: tuple[str, ...] = tuple(DIALECTS)
    fast: bool = False
    counts_only: bool = False
    has_attribs: bool = True
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if self.command[0] == sys.executable:
            environment["PYTHONPATH"] = str(PEERS.parent.parent)
        environment["OPENBLAS_NUM_THREADS"] = "1"  # numpy's idle threads spin, which counts as CPU time
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        if self.fast and sys.platform == "linux":
            os.sched_setaffinity(self.process.pid, {min(os.sched_getaffinity(0))})

    def ask(self, **request: Any) -> dict[str, Any]:
        """Have the worker do something and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self.name} has died")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the worker."""
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()


@dataclass(frozen=True)
class Result:
    """One line of the table; `ratio` is to the C parser on the same dialect, in the same turn."""

    peer: str
    dialect: str
    ns_per_message: float
    ratio: float
    messages: int
    verified: bool


def built_cparser() -> Path:
    """Return the C parser as a shared library, compiled if its source has changed."""
    source = Path(__file__).with_name("cparser.c")
    library = BUILD / f"cparser-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    if not library.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        subprocess.run([os.environ.get("CC", "cc"), *CFLAGS, "-o", unfinished, source, "-lm"], check=True)
        unfinished.replace(library)
    return library


def cparser_peer() -> Peer:
    """Start the C parser."""
    return Peer(C_PARSER, [sys.executable, str(PEERS / "cparser.py"), str(built_cparser())], fast=True)


def floor_peer() -> Peer:
    """Start the walk over the frames."""
    command = [sys.executable, str(PEERS / "cparser.py"), str(built_cparser()), "--floor"]
    return Peer("floor (framing only)", command, fast=True, counts_only=True)


def ibfast_peer() -> Peer:
    """Start ibfast."""
    return Peer("ibfast", [sys.executable, str(PEERS / "ours.py")], fast=True)


def started_peers() -> list[Peer]:
    """Start a worker of each kind."""
    return [
        floor_peer(),
        cparser_peer(),
        ibfast_peer(),
        Peer("ibapi 10.51.1", [str(python_with(NEW_CLIENT)), str(PEERS / "official.py")]),
        Peer(
            "ib_async 2.1.0",
            [str(python_with(ASYNC_CLIENT)), str(PEERS / "async_client.py")],
            dialects=("text",),
            has_attribs=False,
        ),
    ]


def is_verified(peer: Peer, dialect: str, ticks: list[Any]) -> bool:
    """Compare what the peer sees in the stream with what is in it."""
    answer = peer.ask(do="verify", stream=dialect)
    if peer.counts_only:
        return bool(answer["events"] == len(ticks))
    events = Events()
    for tick in ticks:
        stream.report(tick, events, with_attribs=peer.has_attribs)
    return (answer["events"], answer["digest"]) == (events.count, events.digest)


def measure(peers: list[Peer], messages: int, rounds: int) -> list[Result]:
    """Run all peers on all dialects in turn and return a line for each pair."""
    ticks = stream.ticks(messages)
    pairs = [(peer, dialect) for dialect in DIALECTS for peer in peers if dialect in peer.dialects]
    with tempfile.TemporaryDirectory() as folder:
        for number, (dialect, server_version) in enumerate(DIALECTS.items()):
            path = Path(folder) / str(number)
            path.write_bytes(stream.encoded(ticks, server_version))
            for peer in peers:
                if dialect in peer.dialects:
                    peer.ask(do="load", stream=dialect, path=str(path), server_version=server_version)
    verified = {(peer.name, dialect): is_verified(peer, dialect, ticks) for peer, dialect in pairs}
    times: dict[tuple[str, str], list[float]] = {(peer.name, dialect): [] for peer, dialect in pairs}
    ratios: dict[tuple[str, str], list[float]] = {pair: [] for pair in times}
    for _ in range(rounds):
        for dialect in DIALECTS:
            fast = [peer for peer in peers if peer.fast]
            slow = [peer for peer in peers if not peer.fast and dialect in peer.dialects]
            for turn in [fast, fast[::-1]] * (FAST_TURNS // 2) + [[*fast, *slow]]:
                taken = {peer.name: peer.ask(do="round", stream=dialect)["cpu_ns"] / messages for peer in turn}
                for name, ns in taken.items():
                    times[name, dialect].append(ns)
                    ratios[name, dialect].append(ns / taken[C_PARSER])
    return [
        Result(
            peer.name,
            dialect,
            round(statistics.median(times[peer.name, dialect]), 2),
            round(statistics.median(ratios[peer.name, dialect]), 3),
            messages,
            verified[peer.name, dialect],
        )
        for peer, dialect in pairs
    ]


def table(results: list[Result]) -> str:
    """Return the results as text."""
    head = f"{'dialect':<12} {'peer':<22} {'ns/message':>10} {'ratio to C':>10} {'messages':>9}  verified"
    lines = (
        f"{result.dialect:<12} {result.peer:<22} {result.ns_per_message:>10,.1f} {result.ratio:>10.2f} "
        f"{result.messages:>9,}  {'yes' if result.verified else 'NO'}"
        for result in results
    )
    return "\n".join([head, *lines])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--messages", type=int, default=200_000, help="length of the stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, of which the median is taken (default: 9)")
    parser.add_argument("--quick", action="store_true", help="a short stream, few rounds: no measurement")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 only if every peer was verified."""
    messages = min(options.messages, QUICK_MESSAGES) if options.quick else options.messages
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    peers = started_peers()
    try:
        results = measure(peers, messages, rounds)
    finally:
        for peer in peers:
            peer.close()
    print(json.dumps([asdict(result) for result in results], indent=1) if options.json else table(results))
    return 0 if all(result.verified for result in results) else 1
