"""Who comes in: judged by the request alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from websockets.datastructures import Headers

from ibfast.config.origins import Origins
from ibfast.connection.monitor import Health
from ibfast.fanout.access.admission import Door
from ibfast.fanout.access.pages import Page, Pages
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import Grant, StaticToken, Tokens, digest_of, subprotocol_of
from ibfast.fanout.gauges import Present, Tally

TOKEN, EXPIRED, WATCHER = "t" * 32, "e" * 32, "w" * 32
NOW_S = 1_000.0


@dataclass
class Knock:
    path: str = "/stream"
    method: str = "GET"
    headers: Headers = field(default_factory=Headers)


def knock(path: str = "/stream", **headers: str) -> Knock:
    return Knock(path, headers=Headers({name.replace("_", "-"): value for name, value in headers.items()}))


def door(tally: Tally, *, is_open: bool = False, is_local: bool = False) -> Door:
    known = [
        StaticToken("analyst", digest_of(TOKEN), Permissions(symbols=("AAPL",))),
        StaticToken("watcher", digest_of(WATCHER), Permissions(symbols=("*",), metrics=True)),
        StaticToken("former", digest_of(EXPIRED), Permissions(symbols=("*",)), expires_s=NOW_S),
    ]
    anonymous = Permissions(symbols=("*",), metrics=is_local)
    tokens = Tokens(() if is_open else known, max_subscriptions=9, max_new_instruments=1000, anonymous=anonymous)
    present = Present({}, 0, 0, 0, {}, 0, 0)
    health = Health(ok=True, reasons=("a secret",), is_connected=True)
    pages = Pages(lambda: health, (), lambda: present)
    return Door(tokens, Origins(("https://desk.example.com",)), pages, tally, is_local=is_local)


def judged(request: Knock, *, refusal: str = "", **options: bool) -> tuple[Grant | Page, Tally]:
    tally = Tally()
    return door(tally, **options).judge(request, "192.0.2.1", refusal, NOW_S), tally


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


@pytest.mark.parametrize("is_local", [False, True])
def test_where_nobody_needs_a_token_everybody_comes_in_and_programs_of_this_machine_see_all(is_local: bool) -> None:
    assert isinstance(judged(knock(Host="localhost"), is_open=True, is_local=is_local)[0], Grant)
    health, _ = judged(knock("/healthz", Host="localhost"), is_open=True, is_local=is_local)
    metrics, _ = judged(knock("/metrics", Host="localhost"), is_open=True, is_local=is_local)
    assert isinstance(health, Page)
    assert isinstance(metrics, Page)
    assert (b"a secret" in health.body) == is_local
    assert metrics.status is (HTTPStatus.OK if is_local else HTTPStatus.FORBIDDEN)


@pytest.mark.parametrize("path", ["/stream", "/livez", "/readyz", "/healthz", "/metrics"])
@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("localhost", True), ("LocalHost:8765", True), ("127.0.0.1", True), ("127.9.9.9:1", True), ("[::1]:8765", True),
        ("[::ffff:127.0.0.1]", True), ("evil.example.com", False), ("evil.example.com:8765", False), ("", False),
        ("localhost.evil.example.com", False), ("127.0.0.1.evil.example.com", False), ("192.0.2.1", False),
        ("localhost@evil.example.com", False), ("localhost:8765:1", False), ("::1", False), ("[::2]", False),
        (None, False),
    ],
)  # fmt: skip
def test_a_page_that_has_its_name_resolved_to_this_machine_reads_nothing(
    path: str, host: str | None, is_served: bool
) -> None:
    request = knock(path, **({} if host is None else {"Host": host}))
    found, tally = judged(request, is_open=True, is_local=True)
    if is_served:
        assert isinstance(found, Grant) or found.status is HTTPStatus.OK
    else:
        assert isinstance(found, Page)
        assert found.status is HTTPStatus.FORBIDDEN
        assert b"a secret" not in found.body
    assert tally.refused == ({} if is_served else {"host": 1})
    for options in ({"is_local": True}, {"is_open": True}):  # a token is needed, or everybody is meant
        assert not judged(request, **options)[1].refused.get("host")


def test_two_hosts_are_none() -> None:
    request = knock(Host="localhost")
    request.headers["Host"] = "localhost"
    assert judged(request, is_open=True, is_local=True)[1].refused == {"host": 1}


def test_pages_are_there_though_the_server_is_full_and_are_no_refusal() -> None:
    for token, is_told in (("", False), (TOKEN, False), (WATCHER, True)):
        request = knock("/healthz", **({"Authorization": f"Bearer {token}"} if token else {}))
        page, tally = judged(request, refusal="full")
        assert isinstance(page, Page)
        assert page.status is HTTPStatus.OK
        assert (b"a secret" in page.body) == is_told
        assert not tally.refused


def test_a_page_takes_its_token_from_the_header_alone() -> None:
    page, _ = judged(knock("/metrics", Sec_WebSocket_Protocol=subprotocol_of(WATCHER)))
    assert isinstance(page, Page)
    assert page.status is HTTPStatus.UNAUTHORIZED
    page, _ = judged(knock("/metrics", Authorization=f"Bearer {WATCHER}"))
    assert isinstance(page, Page)
    assert page.status is HTTPStatus.OK


def test_metrics_need_the_permission() -> None:
    page, _ = judged(knock("/metrics", Authorization=f"Bearer {TOKEN}"))
    assert isinstance(page, Page)
    assert (page.status, page.body) == (HTTPStatus.FORBIDDEN, b"This page needs the permission metrics.\n")
