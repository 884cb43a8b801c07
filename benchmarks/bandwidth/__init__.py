"""Bandwidth: bytes per tick of ibfast's binary dialect, JSON, msgpack and DBN, and what coding takes.

What is measured: bytes that one subscriber gets for each tick, WebSocket headers and ibfast's clocks included, in
windows of 0, 10, 50, 100 and 250 ms (0: each µs with ticks is a message), live (every tick) and conflated (the last
quote and trade of each symbol and window; bytes per tick that is left). The ticks: recorded ones, if they stand beside
the checkout or are given by --ticks; a seeded stream of 100 symbols at 5,000 ticks/s, to a subscriber of all and to
one of 20. The first tenth is the past, by which the server knows grids and states; the subscriber joins after it. Its
snapshots are counted apart. "Nothing known" is ibfast when the subscriber is the first to want these symbols: its
channels begin on the grids that are usual (cents, whole sizes), until their own rows tell better ones.

Peers: JSON as short objects by orjson; the same behind permessage-deflate with context takeover; msgpack without names;
rows of the sizes of databento's DBN; these as one stream of zstd, flushed each window. Times are µs in all of them,
channels are numbers. Whatever was encoded is decoded: ibfast's messages by its decoder, compared with what went in to
the bit, window by window, and in order; conflated ones with the last states. DBN's sizes are rounded where 32 bits
can't hold them.

Times are CPU time of one thread per tick, one subscriber, all peers in turns in one process, in random order: minimum
and median of the rounds. ibfast: from arrays as rings hand them out to the frame that all subscribers of the same
channels share, and from messages to arrays. The others start from dicts or tuples made before, and end there. DBN is
packed by Python here: its own library is compiled.

What this does not show: exchanges, conditions and events' times, which these ticks do not have; depth, bars and greeks;
sockets; snapshots after losses. Compare ratios of times, not times of different runs. msgpack and zstandard are
installed on first use.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.bandwidth.sizes import Group, Size, measured_sizes
from benchmarks.bandwidth.speeds import Speed, measured_speeds
from benchmarks.bandwidth.ticks import TickSet, from_file, synthetic
from ibfast.errors import ConfigError

WINDOWS_MS = (0, 10, 50, 100, 250)
SPEED_WINDOWS_MS = (10, 100)
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "ticks" / "binance_20240808.csv.gz"
INSTRUMENTS, SUBSCRIBED, TICKS_PER_S, SECONDS = 100, 20, 5_000, 30.0
ROUNDS = 9
QUICK_WINDOWS_MS, QUICK_SECONDS, QUICK_ROUNDS = (0, 10, 250), 0.6, 2
QUICK_TICKS = 3_000
PAST_SHARE = 0.1
SEED = 1


def groups(options: argparse.Namespace) -> Iterator[Group]:
    """Yield what is measured: ticks and who is subscribed to which of them.

    Raises:
        ConfigError: a file is none of ticks.
        OSError: a file can't be read.
    """
    paths = options.ticks if options.ticks is not None else [RECORDED] if RECORDED.exists() else []
    for path in paths:
        ticks = from_file(path)
        yield group(shortened(ticks) if options.quick else ticks)
    stream = synthetic(INSTRUMENTS, TICKS_PER_S, QUICK_SECONDS if options.quick else options.seconds, SEED)
    yield group(stream)
    yield group(stream, sorted(random.Random(SEED).sample(range(INSTRUMENTS), SUBSCRIBED)))


def group(ticks: TickSet, subscribed: list[int] | None = None) -> Group:
    """Return a set with its past, and the instruments of its subscriber; by default all."""
    past, news = ticks.split(int(len(ticks) * PAST_SHARE))
    if subscribed is None:
        return Group(ticks.name, past, news, list(range(ticks.instruments)))
    return Group(f"{ticks.name}, of which {len(subscribed)} subscribed", past, news, subscribed)


def shortened(ticks: TickSet) -> TickSet:
    """Return the first ticks."""
    return ticks.split(QUICK_TICKS)[0]


def sizes_table(sizes: list[Size]) -> str:
    """Return one group's bytes per tick as text."""
    lines = []
    for mode in ("live", "conflated"):
        own = [size for size in sizes if size.mode == mode]
        windows = sorted({size.window_ms for size in own})
        lines.append(f"  {mode:<26}" + "".join(f"{f'{window} ms':>9}" for window in windows))
        for name in dict.fromkeys(size.format for size in own):
            row = [size for size in own if size.format == name]
            wrong = "" if all(size.verified for size in row) else "  NOT what was sent"
            lines.append(f"  {name:<26}" + "".join(f"{size.bytes_per_tick:>9.2f}" for size in row) + wrong)
        ticks = {size.window_ms: size.ticks for size in own}
        lines.append(f"  {'ticks':<26}" + "".join(f"{ticks[window]:>9,}" for window in windows))
    return "\n".join(lines)


def speeds_table(speeds: list[Speed]) -> str:
    """Return one group's times as text."""
    lines = [f"  {'ns per tick, min (median)':<26}" + "".join(f"{name:>20}" for name in ("encode", "decode"))]
    for speed in speeds:
        encode = f"{speed.encode_ns:,.1f} ({speed.encode_median_ns:,.1f})"
        decode = f"{speed.decode_ns:,.1f} ({speed.decode_median_ns:,.1f})"
        lines.append(f"  {f'{speed.window_ms} ms':<7}{speed.format:<19}{encode:>20}{decode:>20}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument(
        "--ticks", type=Path, nargs="*", metavar="FILE", help=f"files of ticks (default: {RECORDED.name}, if present)"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the seeded stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the times (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few ticks, windows and rounds: no measurement")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0 only if everything was decoded as it was meant."""
    windows = QUICK_WINDOWS_MS if options.quick else WINDOWS_MS
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    sizes: list[Size] = []
    speeds: list[Speed] = []
    try:
        for found in groups(options):
            if not options.json:
                print(f"{found.name}: bytes per tick", flush=True)
            own_sizes = [size for window_ms in windows for size in measured_sizes(found, window_ms)]
            if not options.json:
                print(sizes_table(own_sizes), flush=True)
            own_speeds = [
                speed for window_ms in SPEED_WINDOWS_MS for speed in measured_speeds(found, window_ms, rounds)
            ]
            if not options.json:
                print(speeds_table(own_speeds) + "\n", flush=True)
            sizes += own_sizes
            speeds += own_speeds
    except (ConfigError, OSError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(
            json.dumps(
                {"sizes": [asdict(size) for size in sizes], "speeds": [asdict(speed) for speed in speeds]}, indent=1
            )
        )
    return 0 if all(size.verified for size in sizes) else 1
