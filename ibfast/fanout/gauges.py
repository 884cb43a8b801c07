"""What a fan-out server has done, and what it holds: counts and numbers for metrics, health pages and status lines.

The rule of the file: counting costs an addition; everything else is looked up when somebody asks. It knows no socket
and decides nothing.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from ibfast.metrics import Watch

__all__ = ["Present", "Tally", "registry_of"]


@dataclass(slots=True)
class Tally:
    """What has happened since the server was made; all of it only grows.

    Attributes:
        admitted: connections that were let in.
        refused: handshakes that were not, by reason.
        closed: sessions that the server has ended, by code.
        paused: times that a client was not read on for a while, because it had sent faster than it may.
        lags: losses that were told to subscribers, by reason.
        rows_left_out: rows in them, as far as their number is known.
        fallen_behind: how often a subscriber could not take more, and got the latest state instead.
        slowed: how often a subscriber's rate was lowered by a step.
        faults: of the server's own, by where they were met.
    """

    admitted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    paused: int = 0
    lags: Counter[str] = field(default_factory=Counter)
    rows_left_out: int = 0
    fallen_behind: int = 0
    slowed: int = 0
    faults: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Present:
    """What there is at this moment.

    Attributes:
        subscribers: sessions by dialect.
        subscriptions: of all of them.
        behind: subscribers that are sent nothing for now, since they can't take more.
        backlog_bytes: what waits for subscribers.
        streams: subscriptions at the gateway by state.
        writes, nbytes: data and control messages that went to sockets so far: how often one was written to, and how
            much.
    """

    subscribers: Mapping[str, int]
    subscriptions: int
    behind: int
    backlog_bytes: int
    streams: Mapping[str, int]
    writes: int
    nbytes: int


def registry_of(tally: Tally, present: Callable[[], Present]) -> CollectorRegistry:
    """Return a registry in which Prometheus finds all of it."""
    registry = CollectorRegistry()
    registry.register(_Collector(tally, present))
    return registry


class _Collector:
    """Looks once, and yields what was seen."""

    def __init__(self, tally: Tally, present: Callable[[], Present]) -> None:
        self._tally = tally
        self._present = present

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. Called by the registry."""
        return (watch.family() for watch in _watches(self._tally, self._present()))

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: this registry has no other collector."""
        return iter(())


def _watches(tally: Tally, present: Present) -> list[Watch]:
    gauges: list[tuple[str, float | Mapping[str, float], str, tuple[str, ...]]] = [
        ("subscribers", present.subscribers, "Subscribers by dialect", ("dialect",)),
        ("subscriptions", present.subscriptions, "Subscriptions of all subscribers", ()),
        ("behind", present.behind, "Subscribers that can't take more now", ()),
        ("backlog_bytes", present.backlog_bytes, "Bytes that wait for subscribers", ()),
        ("streams", present.streams, "Subscriptions at the gateway by state", ("state",)),
    ]
    counters: list[tuple[str, float | Mapping[str, float], str, tuple[str, ...]]] = [
        ("admitted", tally.admitted, "Connections that were let in", ()),
        ("refused", tally.refused, "Handshakes that were refused", ("reason",)),
        ("closed", tally.closed, "Sessions that the server has ended", ("code",)),
        ("paused", tally.paused, "Times that a client was not read on, because it had sent too fast", ()),
        ("lags", tally.lags, "Losses told to subscribers", ("reason",)),
        ("rows_left_out", tally.rows_left_out, "Rows in them, as far as known", ()),
        ("fallen_behind", tally.fallen_behind, "Times that a subscriber got the latest state only", ()),
        ("slowed", tally.slowed, "Times that a subscriber's rate was lowered", ()),
        ("faults", tally.faults, "Faults of the server's own", ("place",)),
        ("writes", present.writes, "Writes to sockets of data and control messages", ()),
        ("bytes", present.nbytes, "Bytes of them", ()),
    ]
    return [
        Watch(f"fanout_{name}", lambda value=value: value, documentation, labels, is_counter=is_counter)  # type: ignore[misc]
        for rows, is_counter in ((gauges, False), (counters, True))
        for name, value, documentation, labels in rows
    ]
