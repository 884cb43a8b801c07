"""Fan-out: what it costs a server to send one message to 10, 100 and 1,000 subscribers.

What is measured: CPU time of the server's process, all threads and the kernel included, per message and subscriber.
The servers are a bare epoll loop in C; ibfast's `Broadcaster` on connections of the `websockets` library, on uvloop
and on asyncio; the same prepared frame by `transport.write`; `websockets.broadcast`; picows; Node's `ws`. None of them
compresses. Messages of 64, 200 and 2,048 bytes go out one by one, and in batches of 16: those who can join a batch into
one write per subscriber do so (C, ibfast, transport.write), the others send 16 messages.

Subscribers are connections of a receiver in C, in another process on another processor, which compares every byte with
what must come; a byte that differs, is missing or too many fails the run. CPU time is the kernel's count for the
server's process, read by a third one while the server sleeps. All peers take turns of a few milliseconds in one run, in
random order; a ratio is the median of the ratios to the C server's time in the same turn, a time the median.

What this does not show: handshakes, building messages and choosing who gets them; pauses between messages, in which
receivers and caches go cold; a network, whose card and driver cost more than the loopback interface; slow subscribers;
TLS; latency. Compare ratios, not the times of different runs. Needs Linux and a C compiler; picows and ws are installed
on first use.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks.fanout.rig import C_SERVER, COMMANDS, Peer, RigError, started_peers

SUBSCRIBERS = (10, 100, 1_000)
NBYTES = (64, 200, 2_048)
BATCHES = (1, 16)
WRITES, TURNS = 4_000, 41
QUICK_SUBSCRIBERS, QUICK_WRITES, QUICK_TURNS = (10, 100), 200, 2
OTHER_FILES = 100
SEED = 1


@dataclass(frozen=True)
class Result:
    """One line of the table; `ratio` is to the C server in the same turn."""

    peer: str
    subscribers: int
    nbytes: int
    batch: int
    us_per_message: float
    ratio: float
    messages: int


def measure(peers: list[Peer], subscribers: int, nbytes: int, batch: int, writes: int, turns: int) -> list[Result]:
    """Let all peers take turns, the first of which is not counted, and return a line for each."""
    rounds = {
        peer.name: max(1, writes // subscribers // (1 if peer.joins else batch)) for peer in peers
    }  # fmt: skip
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    ratios: dict[str, list[float]] = {peer.name: [] for peer in peers}
    shuffle = random.Random(SEED).shuffle
    order = list(peers)
    for number in range(turns + 1):
        shuffle(order)
        taken = {}
        for peer in order:
            messages = rounds[peer.name] * batch * subscribers
            taken[peer.name] = peer.turn(rounds[peer.name], nbytes, batch) / messages / 1_000
        if number:
            for name, us in taken.items():
                times[name].append(us)
                ratios[name].append(us / taken[C_SERVER])
    return [
        Result(
            peer.name,
            subscribers,
            nbytes,
            batch,
            round(statistics.median(times[peer.name]), 3),
            round(statistics.median(ratios[peer.name]), 3),
            rounds[peer.name] * batch * subscribers * turns,
        )
        for peer in peers
    ]


def table(results: list[Result]) -> str:
    """Return lines of one measurement as text."""
    return "\n".join(
        f"{result.subscribers:>11,} {result.nbytes:>6,} {result.batch:>6} {result.peer:<30} "
        f"{result.us_per_message:>10.3f} {result.ratio:>10.2f} {result.messages:>10,}"
        for result in results
    )


HEADER = (
    f"{'subscribers':>11} {'bytes':>6} {'batch':>6} {'peer':<30} {'µs/message':>10} {'ratio to C':>10} {'verified':>10}"
)


def allow_files(count: int) -> None:
    """Let the peers open this many files, if the system lets us.

    Raises:
        RigError: it does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise RigError(f"{count} open files are needed, and {hard} are allowed: see `ulimit -Hn`")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument(
        "--subscribers", type=int, nargs="+", default=SUBSCRIBERS, help="how many (default: 10 100 1000)"
    )
    parser.add_argument("--only", nargs="+", metavar="PEER", choices=COMMANDS, help="these beside C (default: all)")
    parser.add_argument("--turns", type=int, default=TURNS, help="of which the median is taken (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few subscribers and short turns: no measurement")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 only if everything arrived as it was meant."""
    if sys.platform != "linux":
        print("the fan-out is measured on Linux: the C server needs epoll", file=sys.stderr)
        return 1
    subscribers = QUICK_SUBSCRIBERS if options.quick else sorted(options.subscribers)
    writes, turns = (QUICK_WRITES, QUICK_TURNS) if options.quick else (WRITES, options.turns)
    names = [name for name in COMMANDS if name == C_SERVER or name in (options.only or COMMANDS)]
    results: list[Result] = []
    if not options.json:
        print(HEADER)
    try:
        allow_files(max(subscribers) + OTHER_FILES)
        with ExitStack() as stack:
            peers: list[Peer] = []
            for peer in started_peers(names):
                stack.callback(peer.close)
                peers.append(peer)
            for count in subscribers:
                for peer in peers:
                    peer.connect(count)
                for batch in BATCHES:
                    for nbytes in NBYTES:
                        lines = measure(peers, count, nbytes, batch, writes, turns)
                        results += lines
                        if not options.json:
                            print(table(lines), flush=True)
    except RigError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    return 0
