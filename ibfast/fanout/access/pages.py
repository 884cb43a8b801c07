"""The pages beside the stream: `/livez`, `/readyz` and `/healthz` for whoever watches the server, `/metrics` for
Prometheus.

The rule of the file: a request in, a page out, and the same page whoever serves it; it knows no socket. What names
instruments needs the permission `metrics`.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ibfast.fanout.gauges import Present

__all__ = [
    "HEALTH_PATH",
    "LIVE_PATH",
    "METRICS_PATH",
    "READY_PATH",
    "STREAM_PATH",
    "Health",
    "Page",
    "Pages",
    "needs_token",
    "text_page",
]

STREAM_PATH = "/stream"
LIVE_PATH = "/livez"
READY_PATH = "/readyz"
HEALTH_PATH = "/healthz"
METRICS_PATH = "/metrics"
METHODS = ("GET", "HEAD")
MOST_REASONS = 20


class Health(Protocol):
    """How the source of the data fares, as `ConnectionMonitor.health` tells it."""

    @property
    def ok(self) -> bool:
        """Whether the session stands and no stream is stale."""

    @property
    def reasons(self) -> Sequence[str]:
        """Why that is not so."""

    @property
    def warnings(self) -> Sequence[str]:
        """What else does not flow."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a session with the gateway."""

    @property
    def state(self) -> str:
        """In a word."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer by HTTP.

    Attributes:
        status: its status.
        body: its content, which is left out of an answer to HEAD.
        content_type: what that is.
        headers: further ones.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class Pages:
    """Makes the pages.

    Args:
        health: how the source of the data fares; None: `/healthz` and `/readyz` do not exist.
        registries: whose metrics are shown.
        present: what the server holds.
    """

    def __init__(
        self,
        health: Callable[[], Health] | None,
        registries: Sequence[CollectorRegistry],
        present: Callable[[], Present],
    ) -> None:
        self._health = health
        self._registries = tuple(registries)
        self._present = present

    def page(self, method: str, path: str, refusal: Callable[[], Page | None]) -> Page | None:
        """Return the page that is asked for; None if it is the stream.

        Args:
            method: of the request.
            path: with what stands after a question mark.
            refusal: returns the answer to a client without the permission `metrics`, None to one that has it.
        """
        if path == STREAM_PATH:  # and nothing after it, where somebody might put a token
            return None
        path = path.partition("?")[0]
        is_known = path in (LIVE_PATH, METRICS_PATH) or (path in (READY_PATH, HEALTH_PATH) and self._health is not None)
        if not is_known:
            return text_page(HTTPStatus.NOT_FOUND, f"The stream is at {STREAM_PATH}.")
        if method not in METHODS:
            return text_page(HTTPStatus.METHOD_NOT_ALLOWED, "This page is only to be read.", Allow=", ".join(METHODS))
        if path == LIVE_PATH:
            return _json_page(HTTPStatus.OK, {"ok": True})  # whoever can answer at all is alive
        if path == METRICS_PATH:
            return refusal() or self._metrics_page()
        assert self._health is not None
        health = self._health()
        if path == READY_PATH:
            return _json_page(_status(health.is_connected), {"ok": health.is_connected, "state": health.state})
        return self._health_page(health, is_told_why=refusal() is None)

    def _health_page(self, health: Health, *, is_told_why: bool) -> Page:
        present = self._present()
        told: dict[str, Any] = {
            "ok": health.ok,
            "state": health.state,
            "subscribers": sum(present.subscribers.values()),
            "subscriptions": present.subscriptions,
            "streams": present.streams,
        }
        if is_told_why:
            told |= {"reasons": _shortened(health.reasons), "warnings": _shortened(health.warnings)}
        return _json_page(_status(health.ok), told)

    def _metrics_page(self) -> Page:
        return Page(HTTPStatus.OK, b"".join(map(generate_latest, self._registries)), CONTENT_TYPE_LATEST)


def _status(is_good: bool) -> HTTPStatus:
    return HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE


def _json_page(status: HTTPStatus, content: Mapping[str, Any]) -> Page:
    return Page(status, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), "application/json")


def _shortened(reasons: Sequence[str]) -> list[str]:
    left_out = len(reasons) - MOST_REASONS
    return [*reasons[:MOST_REASONS], *([f"and {left_out} more"] if left_out > 0 else ())]


def needs_token() -> Page:
    """Return the answer to whoever has no valid token."""
    headers = {"WWW-Authenticate": "Bearer"}
    return Page(HTTPStatus.UNAUTHORIZED, b"A valid token is needed.\n", headers=headers)


def text_page(status: HTTPStatus, text: str, **headers: str) -> Page:
    """Return a page of one sentence."""
    return Page(status, f"{text}\n".encode(), headers=headers)
