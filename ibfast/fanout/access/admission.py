"""The door of the fan-out: who may come in, by the request with which he knocks.

The rule of the file: a request and the time in, a grant or a page that says why not out. The client learns no more than
that it was refused; why is logged and counted, without the token.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from ibfast.common.log_rate import LogRate
from ibfast.common.shown import shown
from ibfast.config.origins import Origins
from ibfast.fanout.access.limits import names_loopback
from ibfast.fanout.access.pages import Page, Pages, needs_token, text_page
from ibfast.fanout.access.tokens import Denied, Grant, Tokens, presented_token
from ibfast.fanout.gauges import Tally

__all__ = ["Door", "Request"]

logger = logging.getLogger("ibfast")

WRONG_HOST = "This server is for programs of this machine: name it localhost or 127.0.0.1, or have tokens needed."
NO_METRICS = "This page needs the permission metrics."


class Headers(Protocol):
    """A request's headers, whatever the case of their names."""

    def get_all(self, key: str) -> Iterable[str]:
        """Return the values of a header."""


class Request(Protocol):
    """A request by HTTP."""

    @property
    def method(self) -> str:
        """GET, for a WebSocket."""

    @property
    def path(self) -> str:
        """What is asked for."""

    @property
    def headers(self) -> Headers:
        """Its headers."""


class Door:
    """Judges requests.

    Args:
        tokens: who may subscribe.
        origins: of the web pages that may.
        pages: what there is beside the stream.
        tally: told of refusals.
        is_local: whether the server listens for programs of this machine alone. Where these need no token, the
            `Host` header must name this machine.
    """

    def __init__(self, tokens: Tokens, origins: Origins, pages: Pages, tally: Tally, *, is_local: bool = False) -> None:
        self._tokens = tokens
        self._is_local = is_local
        self._origins = origins
        self._pages = pages
        self._tally = tally
        self._log_rate = LogRate()

    def trust(self, tokens: Tokens) -> None:
        """Judge by these tokens from now on."""
        self._tokens = tokens

    def has(self, grant: Grant, now_s: float) -> bool:
        """Tell whether the token of a grant still grants the same."""
        return self._tokens.check(grant.token, now_s) == grant

    def judge(self, request: Request, address: str, refusal: str, now_s: float) -> Grant | Page:
        """Return who it is that may have the stream, or else the answer.

        Args:
            request: what is asked for.
            address: of the peer, for the log.
            refusal: why there may be no more connections; "" if there may.
            now_s: Unix time.
        """
        hosts = list(request.headers.get_all("Host"))
        if self._is_local and not self._tokens.are_needed and (len(hosts) != 1 or not names_loopback(hosts[0])):
            return self._refused("host", text_page(HTTPStatus.FORBIDDEN, WRONG_HOST))
        authorizations = list(request.headers.get_all("Authorization"))

        def look_refusal() -> Page | None:
            grant = self._tokens.check(presented_token(authorizations, ()), now_s)
            if isinstance(grant, Denied):
                return needs_token()
            return None if grant.permissions.metrics else text_page(HTTPStatus.FORBIDDEN, NO_METRICS)

        page = self._pages.page(request.method, request.path, look_refusal)
        if page is not None:  # before the caps: they are full when it matters how the server fares
            return page
        if refusal:
            return self._refused("caps", text_page(HTTPStatus.SERVICE_UNAVAILABLE, refusal))
        origins = list(request.headers.get_all("Origin"))
        if len(origins) > 1 or not self._origins.allows(origins[0] if origins else None):
            return self._refused("origin", text_page(HTTPStatus.FORBIDDEN, "This origin is not allowed."))
        offered = [
            name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")
        ]
        grant = self._tokens.check(presented_token(authorizations, offered), now_s)
        if isinstance(grant, Denied):
            note = self._log_rate.admit("denied", now_s)
            if note is not None:
                logger.info("fan-out: %s is not let in: %s%s", address, shown(str(grant)), note)
            return self._refused(f"token_{grant.reason.name.lower()}", needs_token())
        return grant

    def _refused(self, reason: str, page: Page) -> Page:
        self._tally.refused[reason] += 1
        return page
