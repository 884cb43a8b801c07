"""Who comes in: judged by the request alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from websockets.datastructures import Headers

from ibfast.fanout.door import Door
from ibfast.fanout.gauges import Present, Tally
from ibfast.fanout.limits import Origins
from ibfast.fanout.pages import Page, Pages
from ibfast.fanout.permissions import Permissions
from ibfast.fanout.tokens import Grant, StaticToken, Tokens, digest_of, subprotocol_of
from ibfast.monitor import Health

TOKEN, EXPIRED = "t" * 32, "e" * 32
NOW_S = 1_000.0


@dataclass
class Knock:
    path: str = "/stream"
    method: str = "GET"
    headers: Headers = field(default_factory=Headers)


def knock(path: str = "/stream", **headers: str) -> Knock:
    return Knock(path, headers=Headers({name.replace("_", "-"): value for name, value in headers.items()}))


def door(tally: Tally, *, is_open: bool = False) -> Door:
    known = [
        StaticToken("analyst", digest_of(TOKEN), Permissions(symbols=("AAPL",))),
        StaticToken("former", digest_of(EXPIRED), Permissions(symbols=("*",)), expires_s=NOW_S),
    ]
    tokens = Tokens(() if is_open else known, max_subscriptions=9, max_new_instruments=1000)
    present = Present({}, 0, 0, 0, {}, 0, 0)
    pages = Pages(lambda: Health(ok=True, reasons=("a secret",)), (), lambda: present)
    return Door(tokens, Origins(("https://desk.example.com",)), pages, tally)


def judged(request: Knock, *, refusal: str = "", is_open: bool = False) -> tuple[Grant | Page, Tally]:
    tally = Tally()
    return door(tally, is_open=is_open).judge(request, "192.0.2.1", refusal, NOW_S), tally


@pytest.mark.parametrize(
    "request_",
    [
        knock(Authorization=f"Bearer {TOKEN}"),
        knock(Sec_WebSocket_Protocol=f"ibfast.v1.json, {subprotocol_of(TOKEN)}"),
        knock(Authorization=f"Bearer {TOKEN}", Origin="https://desk.example.com"),
    ],
)
def test_who_has_a_token_comes_in(request_: Knock) -> None:
    grant, tally = judged(request_)
    assert isinstance(grant, Grant)
    assert grant.name == "analyst"
    assert not tally.refused


@pytest.mark.parametrize(
    ("request_", "refusal", "status", "reason"),
    [
        (knock(), "", HTTPStatus.UNAUTHORIZED, "token_missing"),
        (knock(Authorization="Bearer " + "x" * 32), "", HTTPStatus.UNAUTHORIZED, "token_unknown"),
        (knock(Authorization=f"Bearer {EXPIRED}"), "", HTTPStatus.UNAUTHORIZED, "token_expired"),
        (knock(Authorization=f"Basic {TOKEN}"), "", HTTPStatus.UNAUTHORIZED, "token_malformed"),
        (
            knock(Authorization=f"Bearer {TOKEN}", Sec_WebSocket_Protocol=subprotocol_of(TOKEN)),
            "", HTTPStatus.UNAUTHORIZED, "token_malformed",
        ),
        (knock(Authorization=f"Bearer {TOKEN}", Origin="https://evil.com"), "", HTTPStatus.FORBIDDEN, "origin"),
        (knock(Authorization=f"Bearer {TOKEN}"), "full", HTTPStatus.SERVICE_UNAVAILABLE, "caps"),
    ],
)  # fmt: skip
def test_all_others_do_not_and_are_counted(request_: Knock, refusal: str, status: HTTPStatus, reason: str) -> None:
    page, tally = judged(request_, refusal=refusal)
    assert isinstance(page, Page)
    assert page.status is status
    assert tally.refused == {reason: 1}
    assert TOKEN.encode() not in page.body
    assert ("WWW-Authenticate" in page.headers) == (status is HTTPStatus.UNAUTHORIZED)


def test_two_origins_are_none() -> None:
    request = knock(Authorization=f"Bearer {TOKEN}", Origin="https://desk.example.com")
    request.headers["Origin"] = "https://desk.example.com"
    page, tally = judged(request)
    assert isinstance(page, Page)
    assert tally.refused == {"origin": 1}


def test_where_nobody_needs_a_token_everybody_comes_in_and_sees_all() -> None:
    assert isinstance(judged(knock(), is_open=True)[0], Grant)
    health = judged(knock("/healthz"), is_open=True)[0]
    assert isinstance(health, Page)
    assert b"a secret" in health.body


def test_pages_are_there_though_the_server_is_full_and_are_no_refusal() -> None:
    for request, is_told in ((knock("/healthz"), False), (knock("/healthz", Authorization=f"Bearer {TOKEN}"), True)):
        page, tally = judged(request, refusal="full")
        assert isinstance(page, Page)
        assert page.status is HTTPStatus.OK
        assert (b"a secret" in page.body) == is_told
        assert not tally.refused


def test_a_page_takes_its_token_from_the_header_alone() -> None:
    page, _ = judged(knock("/metrics", Sec_WebSocket_Protocol=subprotocol_of(TOKEN)))
    assert isinstance(page, Page)
    assert page.status is HTTPStatus.UNAUTHORIZED
    page, _ = judged(knock("/metrics", Authorization=f"Bearer {TOKEN}"))
    assert isinstance(page, Page)
    assert page.status is HTTPStatus.OK
