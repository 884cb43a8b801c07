"""What coding takes, of every format, in turns.

The rule of the file: nothing is timed but `encode` and `decode` of whole windows; each round has new connections, so
that all compress and decompress the same.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.bandwidth.formats import connections
from benchmarks.bandwidth.ours import NAME, Server, messages, specs
from benchmarks.bandwidth.sizes import NS_PER_MS, Group
from benchmarks.bandwidth.ticks import TickSet

MOST_TICKS = 40_000
"""Of a round: what a processor's caches hold is not the question."""

Turn = Callable[[], tuple[int, int]]
"""Encodes and decodes everything once and returns how long each took, in ns."""


@dataclass(frozen=True)
class Speed:
    """One line; times per tick."""

    group: str
    window_ms: int
    format: str
    ticks: int
    encode_ns: float
    encode_median_ns: float
    decode_ns: float
    decode_median_ns: float


def timed(work: Callable[[Any], Any], items: list[Any]) -> tuple[int, list[Any]]:
    """Return how long the work on all items took, and what came of it."""
    begun_ns = time.thread_time_ns()
    made = [work(item) for item in items]
    return time.thread_time_ns() - begun_ns, made


def measured_speeds(group: Group, window_ms: int, rounds: int) -> list[Speed]:
    """Let all formats take turns, the first of which is not counted, and return a line for each."""
    span_ns = window_ms * NS_PER_MS
    news, _ = group.news.of(group.subscribed).split(MOST_TICKS)
    turns = {NAME: ours(group, news, span_ns), **others(news, span_ns)}
    taken: dict[str, list[tuple[int, int]]] = {name: [] for name in turns}
    order = list(turns)
    shuffle = random.Random(1).shuffle
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds + 1):
            shuffle(order)
            for name in order:
                times = turns[name]()
                if number:
                    taken[name].append(times)
    finally:
        gc.enable()
    return [_speed(group, window_ms, name, len(news), taken[name]) for name in turns]


def _speed(group: Group, window_ms: int, name: str, ticks: int, taken: list[tuple[int, int]]) -> Speed:
    figures = []
    for times in zip(*taken, strict=True):
        figures += [round(min(times) / ticks, 1), round(statistics.median(times) / ticks, 1)]
    return Speed(group.name, window_ms, name, ticks, *figures)


def ours(group: Group, news: TickSet, span_ns: int) -> Turn:
    """Return what times ibfast: arrays to frames, messages to arrays."""
    channels = specs(group.past, span_ns, is_conflated=False)
    windows = news.windows(span_ns)

    def turn() -> tuple[int, int]:
        server = Server(channels, group.past, group.subscribed)
        subscriber = server.subscriber()
        encode_ns, frames = timed(server.publish, windows)
        said = [message for window in frames for message in messages(window)]
        decode_ns, _ = timed(subscriber.decode, said)
        return encode_ns, decode_ns

    return turn


def others(news: TickSet, span_ns: int) -> dict[str, Turn]:
    """Return what times the others, by name."""
    windows = [news.events(rows) for rows in news.windows(span_ns)]
    sizes = news.sizes
    turns = {}
    for number, format_ in enumerate(connections(sizes)):
        natives = [format_.native(window) for window in windows]
        turns[format_.name] = _turn(natives, number, sizes)
    return turns


def _turn(natives: list[Any], number: int, sizes: list[float]) -> Turn:
    def turn() -> tuple[int, int]:
        connection = connections(sizes)[number]
        encode_ns, said = timed(connection.encode, natives)
        decode_ns, _ = timed(connection.decode, said)
        return encode_ns, decode_ns

    return turn
