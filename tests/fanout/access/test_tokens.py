"""Who is let in by a static token, and how a client tells one; what no text ever shows."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import (
    MAX_TOKEN_LENGTH,
    Denied,
    Grant,
    Reason,
    StaticToken,
    Tokens,
    digest_of,
    presented_token,
    subprotocol_of,
)

AAPL = Permissions(symbols=("AAPL",), subscriptions=5, new_instruments=9)
TOKENS = {
    "first": "To2V5Y7eHB8kzN8znyW63ku7rt2nBHVjXFhpKx-r1hU",
    "second": "wHQV4nIzAg5QEVxwf-BDRqGYi5HgNDKNJCuvC0YT5qA",
    "third": "BovET-OyeTfk60oTf3oTTdDbq5trJDR5U2LrkPwZZLo",
}
NOW_S = 1_770_000_000.0


def static(name: str, expires_s: float | None = None) -> StaticToken:
    return StaticToken(name, digest_of(TOKENS[name]), AAPL, expires_s)


def three() -> Tokens:
    return Tokens([static(name) for name in TOKENS], max_subscriptions=500, max_new_instruments=1000)


class Signed:
    """Knows a single token."""

    def verify(self, token: str, now_s: float) -> Grant | Denied:
        known = Grant("signed", Permissions(symbols=("*",), subscriptions=9999), now_s + 1)
        return known if token == "signed" else Denied(Reason.SIGNATURE)


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_grants_its_own_permissions(name: str) -> None:
    assert three().check(TOKENS[name], NOW_S) == Grant(name, AAPL)


def test_without_tokens_everybody_may_have_everything() -> None:
    tokens = Tokens(max_subscriptions=7, max_new_instruments=1000)
    assert not tokens.are_needed
    for token in (None, "", "whatever"):
        assert tokens.check(token, NOW_S) == Grant(
            "anonymous", Permissions(symbols=("*",), subscriptions=7, new_instruments=1000)
        )


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, Reason.MISSING),
        ("", Reason.MALFORMED),
        (TOKENS["first"][:-1], Reason.UNKNOWN),
        (TOKENS["first"] + "A", Reason.UNKNOWN),
        (TOKENS["first"].swapcase(), Reason.UNKNOWN),
        (TOKENS["first"] + "\n", Reason.MALFORMED),
        (" " + TOKENS["first"], Reason.MALFORMED),
        (digest_of(TOKENS["first"]).hex(), Reason.UNKNOWN),
        ("a" * MAX_TOKEN_LENGTH, Reason.UNKNOWN),
        ("a" * (MAX_TOKEN_LENGTH + 1), Reason.MALFORMED),
        ("a" * 10_000_000, Reason.MALFORMED),
        ("ａ" * 32, Reason.MALFORMED),
        ("\udcff", Reason.MALFORMED),
        ("\0", Reason.MALFORMED),
        ("a,b", Reason.MALFORMED),
    ],
)
def test_nothing_else_is_let_in(token: str | None, reason: Reason) -> None:
    assert three().check(token, NOW_S) == Denied(reason)


@given(st.text())
def test_no_text_is_let_in_by_chance(token: str) -> None:
    assert isinstance(three().check(token, NOW_S), Denied)


def test_a_token_expires() -> None:
    tokens = Tokens([static("first", NOW_S)], max_subscriptions=500, max_new_instruments=1000)
    assert tokens.check(TOKENS["first"], NOW_S - 0.001) == Grant("first", AAPL, NOW_S)
    assert tokens.check(TOKENS["first"], NOW_S) == Denied(Reason.EXPIRED, "first")


@pytest.mark.parametrize("token", [*TOKENS.values(), "unknown"])
def test_every_token_is_compared_in_constant_time(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((known, given))
        return hmac_compare(known, given)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr("ibfast.fanout.access.tokens.hmac.compare_digest", compare)
    three().check(token, NOW_S)
    assert compared == [(digest_of(known), digest_of(token)) for known in TOKENS.values()]


def test_what_is_not_static_is_left_to_the_verifier() -> None:
    both = Tokens([static("first")], Signed(), max_subscriptions=500, max_new_instruments=1000)
    assert both.check(TOKENS["first"], NOW_S) == Grant("first", AAPL)
    assert both.check("unknown", NOW_S) == Denied(Reason.SIGNATURE)
    granted = both.check("signed", NOW_S)
    assert granted == Grant("signed", Permissions(symbols=("*",), subscriptions=500, new_instruments=1000), NOW_S + 1)
    alone = Tokens((), Signed(), max_subscriptions=500, max_new_instruments=1000)
    assert alone.are_needed
    assert alone.check(None, NOW_S) == Denied(Reason.MISSING)
    assert alone.check("signed", NOW_S) == granted


def test_no_token_and_no_digest_is_shown() -> None:
    tokens = three()
    shown = repr(tokens) + repr([static(name) for name in TOKENS])
    for token in TOKENS.values():
        shown += repr(tokens.check(token, NOW_S)) + str(tokens.check(token + "x", NOW_S))
    for token in TOKENS.values():
        assert token not in shown
        assert digest_of(token).hex() not in shown
        assert repr(digest_of(token)) not in shown
    assert repr(tokens) == "<Tokens: 3 static, no JWTs>"


# --- how it is told ---


@pytest.mark.parametrize(
    ("authorizations", "subprotocols", "token"),
    [
        ([], [], None),
        ([], ["ibfast.v1.json"], None),
        (["Bearer abc"], [], "abc"),
        (["bearer abc"], ["ibfast.v1.json"], "abc"),
        (["BEARER   abc"], [], "abc"),
        ([], ["ibfast.v1.binary", "ibfast.token.abc"], "abc"),
        ([], ["ibfast.token.a.b.c"], "a.b.c"),
        ([], ["ibfast.token."], ""),
        ([], ["IBFAST.TOKEN.abc"], None),
        ([""], [], ""),
        (["abc"], [], ""),
        (["Bearer"], [], ""),
        (["Bearer "], [], ""),
        (["Bearer a b"], [], ""),
        (["Basic YTpi"], [], ""),
        (["Xbearer abc"], [], ""),
        (["Bearer abc", "Bearer def"], [], ""),
        (["Bearer abc", "Bearer abc"], [], ""),
        (["Bearer abc"], ["ibfast.token.def"], ""),
        (["Basic YTpi"], ["ibfast.token.def"], ""),
        ([], ["ibfast.token.abc", "ibfast.token.def"], ""),
    ],
)
def test_a_token_is_told_once_or_not_at_all(
    authorizations: list[str], subprotocols: list[str], token: str | None
) -> None:
    assert presented_token(authorizations, subprotocols) == token


def test_a_browser_can_tell_every_token() -> None:
    for token in TOKENS.values():
        assert presented_token([], [subprotocol_of(token)]) == token
