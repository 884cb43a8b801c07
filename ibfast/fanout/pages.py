"""The pages beside the stream: `/healthz` for whoever watches the server, `/metrics` for Prometheus.

The rule of the file: a request in, a page out, and the same page whoever serves it; it knows no socket. What names
instruments is told only to who has a token, where tokens are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ibfast.fanout.gauges import Present

__all__ = ["HEALTH_PATH", "METRICS_PATH", "STREAM_PATH", "Health", "Page", "Pages", "needs_token", "text_page"]

STREAM_PATH = "/stream"
HEALTH_PATH = "/healthz"
METRICS_PATH = "/metrics"
METHODS = ("GET", "HEAD")
MOST_REASONS = 20


class Health(Protocol):
    """How the source of the data fares, as `ConnectionMonitor.health` tells it."""

    @property
    def ok(self) -> bool:
        """Whether data that should flow does flow."""

    @property
    def reasons(self) -> Sequence[str]:
        """Why it does not."""

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
        health: how the source of the data fares; None: there is no health page.
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

    def page(self, method: str, path: str, is_known: Callable[[], bool]) -> Page | None:
        """Return the page that is asked for; None if it is the stream.

        Args:
            method: of the request.
            path: with what stands after a question mark.
            is_known: tells whether who asks has a token, or needs none.
        """
        if path == STREAM_PATH:  # and nothing after it, where somebody might put a token
            return None
        path = path.partition("?")[0]
        is_health = path == HEALTH_PATH and self._health is not None
        if not is_health and path != METRICS_PATH:
            return text_page(HTTPStatus.NOT_FOUND, f"The stream is at {STREAM_PATH}.")
        if method not in METHODS:
            return text_page(HTTPStatus.METHOD_NOT_ALLOWED, "This page is only to be read.", Allow=", ".join(METHODS))
        if is_health:
            return self._health_page(is_known=is_known())
        return self._metrics_page() if is_known() else needs_token()

    def _health_page(self, *, is_known: bool) -> Page:
        assert self._health is not None
        health, present = self._health(), self._present()
        told: dict[str, Any] = {
            "ok": health.ok,
            "state": health.state,
            "subscribers": sum(present.subscribers.values()),
            "subscriptions": present.subscriptions,
            "streams": present.streams,
        }
        if is_known:
            told["reasons"] = _shortened(health.reasons)
        status = HTTPStatus.OK if health.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return Page(status, orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE), "application/json")

    def _metrics_page(self) -> Page:
        return Page(HTTPStatus.OK, b"".join(map(generate_latest, self._registries)), CONTENT_TYPE_LATEST)


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
