"""What a connection does and how it fares: states, structured events, metrics for Prometheus, health.

The rule of the file: it is told, and it tells; it decides nothing, and nobody who listens can hurt who tells. Listeners
are user code: they hear of a change when it is complete. It knows no policy, no asyncio and no socket: facts are handed
in, values are looked up through callables.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from ibfast.common.log_rate import LogRate
from ibfast.common.shown import fields_shown, shown
from ibfast.metrics import Histogram, Reading, Watch
from ibfast.records import NS_PER_S

__all__ = ["LEVELS", "ConnectionMonitor", "Event", "Health", "Transition"]

logger = logging.getLogger("ibfast")

KEPT = 1024
STATE_EVENT = "state"

LEVELS: Mapping[str, int] = MappingProxyType({
    **dict.fromkeys(("attempt_failed", "live", "stream_live", "stream_quiet"), logging.DEBUG),
    **dict.fromkeys(
        (
            "auth_warning", "backfill_dropped", "backfill_failed", "client_id_in_use", "connect_failed",
            "connection_lost", "error_message", "farm_broken", "instruments_full", "link_lost", "link_slow",
            "quarantined", "refused_for_now", "renewed", "stream_dead", "stream_stale", "suspended", "waiting_for_line",
        ),
        logging.WARNING,
    ),
    **dict.fromkeys(("gave_up", "needs_login", "refused", "store_failed"), logging.ERROR),
})  # fmt: skip
"""How loudly an event is logged; one that is not named here, as INFO."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        wall_ns: when, UTC.
        name: what.
        fields: the particulars.
    """

    wall_ns: int
    name: str
    fields: Mapping[str, object]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.fields.items())])


class Transition(NamedTuple):
    """The connection entered a state at `wall_ns` (UTC), for a reason."""

    wall_ns: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the session stands and no stream is stale; true or false as a condition.

    Attributes:
        ok: whether that is so.
        reasons: why it is not, empty if it is.
        state: of the connection; "" where there are several.
        warnings: what else does not flow: subscriptions that wait for data or for a line, that IB has refused or that
            are young, since anybody can ask for such; of a pool also what is wrong with members that serve nothing.
        is_connected: whether there is a session with the gateway; of a pool, whether any member has one.
    """

    ok: bool
    reasons: tuple[str, ...] = ()
    state: str = field(default="", compare=False)
    warnings: tuple[str, ...] = ()
    is_connected: bool = field(default=False, compare=False)

    def __bool__(self) -> bool:
        return self.ok


class ConnectionMonitor:
    """What one connection does and how it fares.

        monitor.listen(lambda event: print(event))
        prometheus_client.start_http_server(9100, registry=monitor.registry)

    It is told everything in one thread; metrics may be read in any.

    Args:
        registry: where metrics are exposed; one of its own if None, so that several connections do not collide.
        health_source: returns the health, but for the state; without it nothing is healthy.
        state: before the first transition.
        kept: how many events and transitions are kept; older ones remain in the counters.
        levels: how loudly events are logged (levels of `logging`), on top of `LEVELS`.
        clock_ns: nanoseconds of UTC: stamps events and transitions.
        monotonic_ns: nanoseconds of a clock that never steps: measures the time spent in a state.

    Attributes:
        registry: as given.
        health_source: as given; may be set later.
        history: the transitions, oldest first.
        events: the events, oldest first.
        counts: how often each event happened.
        listener_failures: how often a listener raised.
        decode_read, decode_message: decoding of one socket read, and its mean per message.
        socket_to_reader: from the socket read to the consumer that has the rows.
        pacing_wait: of a request in the queue of the pacing rules.
        round_trip: from a question about the clock to its answer.

    Raises:
        ValueError: `registry` holds the metrics of another monitor.
    """

    content_type = CONTENT_TYPE_LATEST
    """Of `exposition()`, for an HTTP reply."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        health_source: Callable[[], Health] | None = None,
        state: str = "IDLE",
        kept: int = KEPT,
        levels: Mapping[str, int] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self.health_source = health_source
        self.history: deque[Transition] = deque([Transition(clock_ns(), str(state), "")], maxlen=kept)
        self.events: deque[Event] = deque(maxlen=kept)
        self.counts: Counter[str] = Counter()
        self.listener_failures = 0
        self._levels = {**LEVELS, **(levels or {})}
        self._clock_ns = clock_ns
        self._monotonic_ns = monotonic_ns
        self._listeners: list[Callable[[Event], object]] = []
        self._untold: deque[Event] = deque()
        self._holds = 0
        self._is_telling = False
        self._log_rate = LogRate()
        self._entered = Counter([str(state)])
        # The state, since when, and the ns spent in all states before: replaced as a whole, so that any thread sees
        # times that fit together.
        self._span: tuple[str, int, dict[str, int]] = str(state), monotonic_ns(), {}
        self._histograms: dict[str, Histogram] = {}
        self._watches: dict[str, Watch] = {}
        self._watch_failures: Counter[str] = Counter()
        self.decode_read = self.histogram("decode_read", "Decoding of one socket read")
        self.decode_message = self.histogram("decode_message", "Decoding per message, the mean of each socket read")
        self.socket_to_reader = self.histogram("socket_to_reader", "From the socket read to the consumer of the rows")
        self.pacing_wait = self.histogram("pacing_wait", "Time of a request in the queue of the pacing rules")
        self.round_trip = self.histogram("round_trip", "From a question about the gateway's clock to its answer")
        self._watch_self()
        self.registry.register(self)

    def close(self) -> None:
        """Take the metrics out of the registry. Needed for a registry that goes on to be used."""
        self.registry.unregister(self)

    # --- states ---

    @property
    def state(self) -> str:
        """The present state."""
        return self._span[0]

    def transition(self, state: str, reason: str = "", **fields: object) -> bool:
        """Enter a state, which is an event too ("state", with `before`, `after` and `reason`).

        Args:
            state: the new state; nothing happens if it is the present one.
            reason: why.
            fields: further particulars of the event.

        Returns:
            Whether the state has changed.
        """
        before = self.state
        if state == before:
            return False
        now_ns = self._monotonic_ns()
        self._span = str(state), now_ns, self._spent_ns(now_ns)
        self._entered[self.state] += 1
        self.history.append(Transition(self._clock_ns(), self.state, shown(reason)))
        self.event(STATE_EVENT, before=before, after=self.state, reason=reason, **fields)
        return True

    def state_seconds(self) -> dict[str, float]:
        """Return the seconds spent in each state so far, the present one included."""
        return {state: ns / NS_PER_S for state, ns in self._spent_ns(self._monotonic_ns()).items()}

    def _spent_ns(self, now_ns: int) -> dict[str, int]:
        state, since_ns, spent_ns = self._span
        return {**spent_ns, state: spent_ns.get(state, 0) + now_ns - since_ns}

    # --- events ---

    def event(self, name: str, /, **fields: object) -> Event:
        """Keep, count and log an event, and tell it to the listeners as soon as nothing holds it back.

        The log record (logger "ibfast") carries it as its attribute `event`. Of one name 100 are logged in 10 s; texts,
        which may be a peer's, are cut and escaped by `shown`.
        """
        event = Event(self._clock_ns(), name, fields_shown(fields))
        self.events.append(event)
        self.counts[name] += 1
        note = self._log_rate.admit(name, self._monotonic_ns() / NS_PER_S)
        if note is not None:
            logger.log(self._levels.get(name, logging.INFO), "%s%s", event, note, extra={"event": event})
        self._untold.append(event)
        self._tell_all()
        return event

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold events back from listeners until the block has ended, since a listener may call anything."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._tell_all()

    def listen(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Have `listener` called with every event, in order; what it raises is logged and counted.

        The change that an event tells of is complete by then, so a listener may subscribe and unsubscribe. Events that
        it causes come after the present one.

        Returns:
            A callable that ends it.
        """
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def _tell_all(self) -> None:
        """Tell listeners what they were not told yet, one event after the other."""
        if self._holds or self._is_telling:
            return
        self._is_telling = True
        try:
            while self._untold:
                event = self._untold.popleft()
                for listener in tuple(self._listeners):
                    self._tell(listener, event)
        finally:
            self._is_telling = False

    def _tell(self, listener: Callable[[Event], object], event: Event) -> None:
        try:
            listener(event)
        except Exception:
            self.listener_failures += 1
            note = self._log_rate.admit("a listener failed", self._monotonic_ns() / NS_PER_S)
            if note is not None:
                logger.exception("a listener failed at the event %s%s", event.name, note)

    # --- metrics ---

    def histogram(self, name: str, documentation: str) -> Histogram:
        """Return a new histogram that is exposed as `ibfast_<name>_seconds`.

        Raises:
            ValueError: the name is taken, or can't be exposed.
        """
        self._check_free(name)
        histogram = self._histograms[name] = Histogram(name, documentation)
        return histogram

    def watch(
        self,
        name: str,
        read: Callable[[], Reading],
        documentation: str,
        *labels: str,
        is_counter: bool = False,
    ) -> None:
        """Expose a value as `ibfast_<name>` that is looked up whenever metrics are read.

            monitor.watch("ring_published", lambda: {"ticks": feed.ticks.published}, "Rows published", "ring")

        Args:
            name: small letters, digits, underscores.
            read: returns a number; with labels, a mapping from label value (several: a tuple) to number. If it
                raises, its series is missing from that reading, the failure is counted, and the first one logged.
            documentation: one line for people.
            labels: the names of the labels.
            is_counter: whether the value only ever grows; it is then exposed as `ibfast_<name>_total`.

        Raises:
            ValueError: the name is taken, or a name can't be exposed.
        """
        self._check_free(name)
        self._watches[name] = Watch(name, read, documentation, labels, is_counter)

    def exposition(self) -> bytes:
        """Return all metrics of the registry in Prometheus' text format, of type `content_type`."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. Called by the registry."""
        for histogram in tuple(self._histograms.values()):
            yield histogram.family()
        for watch in tuple(self._watches.values()):
            family = self._read(watch)
            if family is not None:
                yield family

    def describe(self) -> Iterator[Metric]:
        """Yield all metrics without values, by which the registry finds collisions. Called by the registry."""
        for histogram in self._histograms.values():
            yield histogram.family()
        for watch in self._watches.values():
            yield watch.empty_family()

    def _read(self, watch: Watch) -> Metric | None:
        try:
            return watch.family()
        except Exception:
            if not self._watch_failures[watch.name]:
                logger.exception("the metric %s can't be read", watch.name)
            self._watch_failures[watch.name] += 1
            return None

    def _watch_self(self) -> None:
        self.watch("healthy", lambda: float(self.health().ok), "Whether the session stands and no stream is stale")
        self.watch("state", self._state_flags, "1 for the present state of the connection, 0 for earlier ones", "state")
        self.watch("state_entered", self._entered.copy, "Times that a state was entered", "state", is_counter=True)
        self.watch("state_seconds", self.state_seconds, "Seconds spent in a state", "state", is_counter=True)
        self.watch("events", self.counts.copy, "Structured events", "name", is_counter=True)
        self.watch("listener_failures", lambda: self.listener_failures, "Raising listeners", is_counter=True)
        self.watch(
            "metric_failures", self._watch_failures.copy, "Metrics that could not be read", "name", is_counter=True
        )

    def _state_flags(self) -> dict[str, float]:
        return {state: float(state == self.state) for state in self._entered.copy()}

    def _check_free(self, name: str) -> None:
        if name in self._watches or name in self._histograms:
            raise ValueError(f"name={name!r} is not possible: there is a metric of this name, give another one")

    # --- health ---

    def health(self) -> Health:
        """Return whether the session stands and no stream is stale, and if not, why not."""
        if self.health_source is None:
            return Health(ok=False, reasons=("nothing is known about the connection yet",), state=self.state)
        return replace(self.health_source(), state=self.state)
