"""The pages beside the stream: health for whoever asks, metrics for who may, and nothing else."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ibfast.connection.monitor import ConnectionMonitor, Health
from ibfast.fanout.access.pages import MOST_REASONS, Page, Pages, text_page
from ibfast.fanout.gauges import Present, Tally, registry_of

PRESENT = Present(
    subscribers={"json": 2, "binary": 1}, subscriptions=7, behind=1, backlog_bytes=99, streams={"LIVE": 3}, writes=4,
    nbytes=5,
)  # fmt: skip


def pages(health: Health | None = None, *registries: CollectorRegistry) -> Pages:
    return Pages(None if health is None else lambda: health, registries, lambda: PRESENT)


REFUSAL = text_page(HTTPStatus.FORBIDDEN, "no")


def page(made: Pages, path: str, method: str = "GET", *, may_look: bool = True) -> Page:
    found = made.page(method, path, lambda: None if may_look else REFUSAL)
    assert found is not None
    return found


def told(found: Page) -> dict[str, Any]:
    assert found.content_type == "application/json"
    content: dict[str, Any] = json.loads(found.body)
    return content


def test_the_stream_is_no_page_and_has_nothing_after_it() -> None:
    assert pages().page("GET", "/stream", lambda: None) is None
    for path in ("/stream?token=secret", "/stream/", "/", "/healthz/", "/Metrics", ""):
        found = page(pages(Health(ok=True)), path)
        assert (found.status, found.body) == (HTTPStatus.NOT_FOUND, b"The stream is at /stream.\n")


def test_health() -> None:
    found = page(
        pages(Health(ok=True, state="CONNECTED", warnings=("MarketData IBM: waits for data",))), "/healthz?verbose"
    )
    assert found.status is HTTPStatus.OK
    assert told(found) == {
        "ok": True, "state": "CONNECTED", "subscribers": 3, "subscriptions": 7, "streams": {"LIVE": 3}, "reasons": [],
        "warnings": ["MarketData IBM: waits for data"],
    }  # fmt: skip


def test_bad_health_says_why_to_those_who_may_know() -> None:
    made = pages(Health(ok=False, reasons=("MarketData AAPL: silent",), state="CONNECTED", warnings=("AAPL, too",)))
    for method in ("GET", "HEAD"):
        found = page(made, "/healthz", method)
        assert found.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert told(found)["reasons"] == ["MarketData AAPL: silent"]
    stranger = page(made, "/healthz", may_look=False)
    assert stranger.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert told(stranger).keys() == {"ok", "state", "subscribers", "subscriptions", "streams"}
    assert b"AAPL" not in stranger.body


def test_many_reasons_are_counted() -> None:
    reasons = tuple(f"reason {number}" for number in range(MOST_REASONS + 5))
    assert told(page(pages(Health(False, reasons)), "/healthz"))["reasons"] == [*reasons[:MOST_REASONS], "and 5 more"]
    assert told(page(pages(Health(False, reasons[:-5])), "/healthz"))["reasons"] == [*reasons[:-5]]


def test_what_does_not_flow_is_listed_and_counted() -> None:
    warnings = tuple(f"warning {number}" for number in range(MOST_REASONS + 1))
    found = page(pages(Health(ok=True, warnings=warnings)), "/healthz")
    assert found.status is HTTPStatus.OK
    assert told(found)["warnings"] == [*warnings[:MOST_REASONS], "and 1 more"]


@pytest.mark.parametrize(("is_connected", "status"), [(True, 200), (False, 503)])
def test_ready_is_a_server_whose_source_has_a_session(is_connected: bool, status: int) -> None:
    reasons = ("MarketData AAPL: silent",)
    found = page(pages(Health(False, reasons, "A_STATE", is_connected=is_connected)), "/readyz", may_look=False)
    assert found.status == status
    assert told(found) == {"ok": is_connected, "state": "A_STATE"}


def test_alive_is_who_answers() -> None:
    for made in (pages(), pages(Health(ok=False, reasons=("no session",)))):
        found = page(made, "/livez", may_look=False)
        assert (found.status, told(found)) == (HTTPStatus.OK, {"ok": True})


def test_without_a_source_of_health_there_is_no_such_page() -> None:
    for path in ("/healthz", "/readyz"):
        assert page(pages(), path).status is HTTPStatus.NOT_FOUND


def test_metrics_of_the_source_and_of_the_server() -> None:
    tally = Tally(rows_left_out=12)
    tally.lags["slow"] += 3
    made = pages(None, ConnectionMonitor().registry, registry_of(tally, lambda: PRESENT))
    found = page(made, "/metrics")
    assert (found.status, found.content_type.partition(";")[0]) == (HTTPStatus.OK, "text/plain")
    families = list(text_string_to_metric_families(found.body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert samples["ibfast_healthy",] == 0.0
    assert samples["ibfast_fanout_subscribers", "json"] == 2.0
    assert samples["ibfast_fanout_streams", "LIVE"] == 3.0
    assert samples["ibfast_fanout_lags_total", "slow"] == 3.0
    assert samples["ibfast_fanout_rows_left_out_total",] == 12.0
    assert samples["ibfast_fanout_bytes_total",] == 5.0


def test_metrics_are_for_those_who_may() -> None:
    assert page(pages(None, CollectorRegistry()), "/metrics", may_look=False) is REFUSAL


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_pages_are_only_read(path: str) -> None:
    found = page(pages(Health(ok=True)), path, "POST")
    assert (found.status, found.headers["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD")
