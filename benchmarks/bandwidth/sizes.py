"""Bytes per tick of every format, in one window length after the other; whatever is encoded is decoded and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.bandwidth.formats import Format, connections, header_bytes
from benchmarks.bandwidth.ours import NAME, NAME_WITHOUT_PAST, MismatchError, Server, compare, messages, specs
from benchmarks.bandwidth.ticks import TickSet

NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Group:
    """Ticks and a subscriber.

    Attributes:
        name: for people.
        past: what was before it joined.
        news: what comes then.
        subscribed: the instruments of its channels, ascending.
    """

    name: str
    past: TickSet
    news: TickSet
    subscribed: list[int]


@dataclass(frozen=True)
class Size:
    """One figure.

    Attributes:
        ticks: sent: all, or what conflation leaves.
        nbytes: of all messages with their WebSocket headers.
        messages: how many.
        snapshot_nbytes: what the subscriber got when it joined.
        verified: whether everything came back as it was meant.
    """

    group: str
    mode: str
    window_ms: int
    format: str
    ticks: int
    nbytes: int
    messages: int
    bytes_per_tick: float
    snapshot_nbytes: int
    verified: bool


def measured_sizes(group: Group, window_ms: int) -> Iterator[Size]:
    """Yield the figures of all formats, live and conflated."""
    span_ns = window_ms * NS_PER_MS
    news = group.news.of(group.subscribed)
    for mode in ("live", "conflated"):
        is_conflated = mode == "conflated"
        sent = news.conflated(span_ns) if is_conflated else news
        windows = [sent.events(rows) for rows in sent.windows(span_ns)]
        for format_ in connections(sent.sizes):
            nbytes, verified = said(format_, windows)
            yield _size(group, mode, window_ms, format_.name, len(sent), nbytes, len(windows), 0, verified)
        nothing, _ = group.past.split(0)
        yield _ours(group, mode, window_ms, sent, group.past, NAME)
        yield _ours(group, mode, window_ms, sent, nothing, NAME_WITHOUT_PAST)


def _size(group: Group, mode: str, window_ms: int, name: str, ticks: int, nbytes: int, count: int,
          snapshot_nbytes: int, verified: bool) -> Size:  # fmt: skip
    bytes_per_tick = round(nbytes / max(1, ticks), 3)
    return Size(group.name, mode, window_ms, name, ticks, nbytes, count, bytes_per_tick, snapshot_nbytes, verified)


def said(connection: Format, windows: list[list[tuple[object, ...]]]) -> tuple[int, bool]:
    """Return how many bytes these windows take on a connection, and whether they came back."""
    nbytes, is_same = 0, True
    for events in windows:
        native = connection.native(events)
        message = connection.encode(native)
        nbytes += header_bytes(message) + len(message)
        is_same = is_same and connection.decode(message) == native
    return nbytes, is_same


def _ours(group: Group, mode: str, window_ms: int, sent: TickSet, past: TickSet, name: str) -> Size:
    span_ns = window_ms * NS_PER_MS
    channels = specs(past, span_ns, is_conflated=mode == "conflated")
    server = Server(channels, past, group.subscribed)
    subscriber = server.subscriber()
    decoded = []
    nbytes = count = 0
    for rows in group.news.windows(span_ns):
        frames = server.publish(rows)
        server.settle(group.news)
        if frames:
            found = messages(frames)
            decoded.append([subscriber.decode(message) for message in found])
            nbytes += len(frames)
            count += len(found)
    try:
        compare(sent, span_ns, decoded)
        verified = True
    except MismatchError:
        verified = False
    snapshot_nbytes = sum(map(len, server.snapshots))
    return _size(group, mode, window_ms, name, len(sent), nbytes, count, snapshot_nbytes, verified)
