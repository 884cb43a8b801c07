"""The monitor keeps what it is told, tells whoever listens, and exposes what Prometheus can read."""

from __future__ import annotations

import contextlib
import logging
from enum import StrEnum
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from ibfast.connection.monitor import ConnectionMonitor, Event, Health, Transition

START_NS = 1_700_000_000_000_000_000
S = 1_000_000_000


class FakeClocks:
    """The time of day may step, the other clock never does."""

    def __init__(self) -> None:
        self.wall_ns = START_NS
        self.monotonic_ns = 0

    def advance(self, seconds: float, step_s: float = 0) -> None:
        self.monotonic_ns += int(seconds * S)
        self.wall_ns += int((seconds + step_s) * S)


class LinkState(StrEnum):
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"


@pytest.fixture
def clocks() -> FakeClocks:
    return FakeClocks()


@pytest.fixture
def monitor(clocks: FakeClocks) -> ConnectionMonitor:
    return ConnectionMonitor(kept=4, clock_ns=lambda: clocks.wall_ns, monotonic_ns=lambda: clocks.monotonic_ns)


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(monitor: ConnectionMonitor) -> Samples:
    """Everything exposed, read back by Prometheus' own parser."""
    found: Samples = {}
    for family in text_string_to_metric_families(monitor.exposition().decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(monitor: ConnectionMonitor, name: str, /, **labels: str) -> float:
    return samples(monitor)[name, tuple(sorted(labels.items()))]


# --- states ---


def test_transitions_are_kept_with_reasons(monitor: ConnectionMonitor, clocks: FakeClocks) -> None:
    clocks.advance(1)
    assert monitor.transition(LinkState.CONNECTING)
    clocks.advance(2)
    assert monitor.transition("CONNECTED", reason="nextValidId came", attempt=3)
    assert not monitor.transition(LinkState.CONNECTED, "again")
    assert monitor.state == LinkState.CONNECTED
    assert list(monitor.history) == [
        Transition(START_NS, "IDLE", ""),
        Transition(START_NS + S, "CONNECTING", ""),
        Transition(START_NS + 3 * S, "CONNECTED", "nextValidId came"),
    ]
    assert monitor.events[-1] == Event(
        START_NS + 3 * S, "state",
        {"before": "CONNECTING", "after": "CONNECTED", "reason": "nextValidId came", "attempt": 3},
    )  # fmt: skip
    assert {type(transition.state) for transition in monitor.history} == {str}


def test_time_in_a_state_is_measured_though_the_clock_on_the_wall_steps(
    monitor: ConnectionMonitor, clocks: FakeClocks
) -> None:
    clocks.advance(1)
    monitor.transition("CONNECTED")
    clocks.advance(10, step_s=-3600)
    monitor.transition("WAITING")
    clocks.advance(2.5)
    monitor.transition("CONNECTED")
    clocks.advance(5, step_s=3600)
    assert monitor.state_seconds() == {"IDLE": 1, "CONNECTED": 15, "WAITING": 2.5}
    assert value(monitor, "ibfast_state_seconds_total", state="CONNECTED") == 15
    assert value(monitor, "ibfast_state_entered_total", state="CONNECTED") == 2
    assert value(monitor, "ibfast_state", state="CONNECTED") == 1
    assert value(monitor, "ibfast_state", state="WAITING") == 0


def test_history_is_bounded(monitor: ConnectionMonitor) -> None:
    for number in range(10):
        monitor.transition(f"S{number}")
    assert [transition.state for transition in monitor.history] == ["S6", "S7", "S8", "S9"]


# --- events ---


def test_events_are_kept_and_counted(monitor: ConnectionMonitor) -> None:
    for number in range(6):
        monitor.event("gap", name="AAPL", number=number)
    assert [event.fields["number"] for event in monitor.events] == [2, 3, 4, 5]
    assert str(monitor.events[0]) == "gap name=AAPL number=2"
    assert monitor.counts["gap"] == 6
    assert value(monitor, "ibfast_events_total", name="gap") == 6


def test_texts_of_a_peer_are_cut_and_can_not_forge_a_line(
    monitor: ConnectionMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    text = "\x1b[2J\r\nERROR forged " + "x" * (1 << 20)
    with caplog.at_level(logging.INFO, "ibfast"):
        event = monitor.event("message", code=2104, text=text)
        monitor.transition("CONNECTED", text)
    assert str(event.fields["text"]).startswith("\\x1b[2J\\r\\nERROR forged xxx")
    assert event.fields["code"] == 2104
    told = [record.getMessage() for record in caplog.records]
    for each in (str(event), monitor.history[-1].reason, *told):
        assert len(each) < 3000
        assert each.isprintable()
    assert len(told) == 2


def test_a_flood_of_events_is_kept_and_counted_but_not_all_logged(
    monitor: ConnectionMonitor, clocks: FakeClocks, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []
    monitor.listen(told.append)
    with caplog.at_level(logging.INFO, "ibfast"):
        for code in range(500):
            monitor.event("error_message", code=code)
        monitor.event("message", code=1)
        assert len(caplog.records) == 101
        clocks.advance(10)
        monitor.event("error_message", code=500)
    assert caplog.records[-1].getMessage() == "error_message code=500 (400 of this kind before were not logged)"
    assert (monitor.counts["error_message"], len(told)) == (501, 502)


def test_a_raising_listener_hurts_nobody(monitor: ConnectionMonitor, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def raising(event: Event) -> None:
        raise RuntimeError("my fault")

    monitor.listen(raising)
    monitor.listen(lambda event: heard.append(event.name))
    monitor.event("gap")
    monitor.event("gap")
    assert heard == ["gap", "gap"]
    assert monitor.listener_failures == 2
    assert value(monitor, "ibfast_listener_failures_total") == 2
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True] * 2


def test_a_listener_that_wants_to_end_the_program_may(monitor: ConnectionMonitor) -> None:
    def ending(event: Event) -> None:
        raise KeyboardInterrupt

    monitor.listen(ending)
    with pytest.raises(KeyboardInterrupt):
        monitor.event("gap")


def test_a_listener_can_leave_even_while_it_is_told(monitor: ConnectionMonitor) -> None:
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append(event.name)
        stop()

    stop = monitor.listen(once)
    monitor.listen(lambda event: heard.append("other"))
    monitor.event("gap")
    monitor.event("gap")
    stop()
    assert heard == ["gap", "other", "other"]


def test_an_event_of_a_listener_comes_after_the_one_that_it_was_told(monitor: ConnectionMonitor) -> None:
    heard: list[str] = []

    def answering(event: Event) -> None:
        if event.name == "question":
            monitor.event("answer")
            heard.append("the end of the listener")

    monitor.listen(answering)
    monitor.listen(lambda event: heard.append(event.name))
    monitor.event("question")
    assert heard == ["the end of the listener", "question", "answer"]
    assert [event.name for event in monitor.events] == ["question", "answer"]


def test_listeners_are_told_when_a_change_is_complete(monitor: ConnectionMonitor) -> None:
    heard: list[str] = []
    monitor.listen(lambda event: heard.append(event.name))
    with monitor.held():
        monitor.event("first")
        with monitor.held():
            monitor.event("second")
        assert (heard, monitor.counts["second"]) == ([], 1)
    assert heard == ["first", "second"]
    with contextlib.suppress(ValueError), monitor.held():
        monitor.event("third")
        raise ValueError("a change that failed")
    assert heard == ["first", "second", "third"]


def test_listeners_are_told_of_a_change_that_a_listener_makes(monitor: ConnectionMonitor) -> None:
    heard: list[str] = []

    def changing(event: Event) -> None:
        if event.name == "cause":
            with monitor.held():
                monitor.event("effect")
            heard.append("the end of the listener")

    monitor.listen(changing)
    monitor.listen(lambda event: heard.append(event.name))
    monitor.event("cause")
    assert heard == ["the end of the listener", "cause", "effect"]


def test_events_are_logged_as_loudly_as_the_table_says(caplog: pytest.LogCaptureFixture) -> None:
    monitor = ConnectionMonitor(levels={"mine": logging.CRITICAL})
    with caplog.at_level(logging.INFO, "ibfast"):
        monitor.event("connection_lost", reason="reset by peer")
        monitor.event("attempt_failed")
        monitor.event("something")
        monitor.event("mine")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "connection_lost reason=reset by peer"), ("INFO", "something"), ("CRITICAL", "mine"),
    ]  # fmt: skip
    assert [record.event for record in caplog.records] == [
        event for event in monitor.events if event.name != "attempt_failed"
    ]


# --- metrics ---


def test_histograms_are_exposed_in_seconds(monitor: ConnectionMonitor) -> None:
    for ns in (1_000, 1_024, 1_025, 3 * S):
        monitor.round_trip.observe(ns)
    found = samples(monitor)
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in found.items()
        if name == "ibfast_round_trip_seconds_bucket"
    }
    assert list(buckets) == sorted(buckets)
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets[1.024e-06] == 2
    assert buckets[2.048e-06] == 3
    assert buckets[float("inf")] == found["ibfast_round_trip_seconds_count", ()] == 4
    assert found["ibfast_round_trip_seconds_sum", ()] == 3.000003049


def test_every_latency_has_its_series(monitor: ConnectionMonitor) -> None:
    histograms = {
        "decode_read": monitor.decode_read, "decode_message": monitor.decode_message,
        "socket_to_reader": monitor.socket_to_reader, "pacing_wait": monitor.pacing_wait,
        "round_trip": monitor.round_trip, "mine": monitor.histogram("mine", "My own"),
    }  # fmt: skip
    for number, histogram in enumerate(histograms.values(), 1):
        for _ in range(number):
            histogram.observe(1)
    for number, name in enumerate(histograms, 1):
        assert value(monitor, f"ibfast_{name}_seconds_count") == number


def test_watched_values_are_those_of_the_reading(monitor: ConnectionMonitor) -> None:
    published = {"ticks": 1}
    monitor.watch("ring_published", lambda: published, "Rows published", "ring", is_counter=True)
    assert value(monitor, "ibfast_ring_published_total", ring="ticks") == 1
    published |= {"ticks": 5, 'odd "name"\n': 2}
    assert value(monitor, "ibfast_ring_published_total", ring="ticks") == 5
    assert value(monitor, "ibfast_ring_published_total", ring='odd "name"\n') == 2


def test_a_value_that_can_not_be_read_spoils_nothing_else(
    monitor: ConnectionMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.watch("broken", lambda: 1 / 0, "Never there")
    monitor.watch("seq", lambda: 7, "There")
    for _ in range(3):
        found = samples(monitor)
        assert found["ibfast_seq", ()] == 7
        assert not any(name == "ibfast_broken" for name, _ in found)
    assert found["ibfast_metric_failures_total", (("name", "broken"),)] >= 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["healthy", "events", "round_trip"])
def test_a_name_is_given_once(monitor: ConnectionMonitor, name: str) -> None:
    with pytest.raises(ValueError, match=r"is not possible: there is a metric of this name"):
        monitor.watch(name, lambda: 0, "")
    with pytest.raises(ValueError, match=r"is not possible: there is a metric of this name"):
        monitor.histogram(name, "")


def test_two_monitors_coexist() -> None:
    one, other = ConnectionMonitor(), ConnectionMonitor()
    one.event("gap")
    other.transition("CONNECTED")
    assert value(one, "ibfast_events_total", name="gap") == 1
    assert ("ibfast_events_total", (("name", "gap"),)) not in samples(other)
    assert value(other, "ibfast_state", state="CONNECTED") == 1


def test_a_registry_holds_one_monitor_at_a_time() -> None:
    registry = CollectorRegistry()
    monitor = ConnectionMonitor(registry=registry)
    assert monitor.registry is registry
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        ConnectionMonitor(registry=registry)
    monitor.close()
    assert monitor.exposition() == b""
    another = ConnectionMonitor(registry=registry)
    assert value(another, "ibfast_healthy") == 0


def test_prometheus_can_read_it_from_another_thread(monitor: ConnectionMonitor) -> None:
    server, thread = start_http_server(0, "127.0.0.1", registry=monitor.registry)
    try:
        monitor.event("gap")
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as reply:
            assert 'ibfast_events_total{name="gap"} 1.0' in reply.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_content_type_is_of_the_text_format() -> None:
    assert ConnectionMonitor.content_type.startswith("text/plain; version=")


# --- health ---


def test_health_is_what_the_source_says(monitor: ConnectionMonitor) -> None:
    reasons: list[str] = []

    def source() -> Health:
        return Health(not reasons, tuple(reasons), warnings=("IBM waits for data",), is_connected=True)

    monitor.health_source = source
    assert monitor.health() == Health(ok=True, warnings=("IBM waits for data",))
    assert (monitor.health().state, monitor.health().is_connected) == (monitor.state, True)
    assert monitor.health()
    assert value(monitor, "ibfast_healthy") == 1
    reasons += ["not connected", "MSFT QUOTES is DEAD"]
    assert monitor.health().reasons == ("not connected", "MSFT QUOTES is DEAD")
    assert not monitor.health()
    assert value(monitor, "ibfast_healthy") == 0


def test_what_nobody_vouches_for_is_not_healthy(monitor: ConnectionMonitor) -> None:
    assert not monitor.health()
    assert monitor.health().reasons == ("nothing is known about the connection yet",)
