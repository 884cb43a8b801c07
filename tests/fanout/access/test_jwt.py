"""JWTs: what is let in, and every way to forge one that is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from ibfast.errors import ConfigError
from ibfast.fanout.access.jwt import JwtSigner, JwtVerifier, private_key, public_key, secret
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import MAX_TOKEN_LENGTH, Denied, Grant, Reason, Tokens

SECRET = hashlib.sha512(b"a secret of these tests").hexdigest().encode()
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key of these tests").digest())
PUBLIC_KEY = PRIVATE_KEY.public_key()
PUBLIC_PEM = PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

NOW_S = 1_770_000_000
LEEWAY_S = 10.0
PERMISSIONS = Permissions(symbols=("AAPL", "ES*"), data_types=("TRADES",), modes=("conflate",), least_interval_ms=100)
CLAIMS: dict[str, Any] = {
    "sub": "analyst", "iss": "ibfast", "aud": "ibfast", "iat": NOW_S - 100, "exp": NOW_S + 100,
    "ibfast": {"symbols": ["AAPL"]},
}  # fmt: skip


def verifier(key: bytes | Ed25519PublicKey, **options: Any) -> JwtVerifier:
    return JwtVerifier(key, **{"audience": "ibfast", "issuer": "ibfast", "leeway_s": LEEWAY_S} | options)


BY_SECRET = verifier(SECRET)
BY_PUBLIC_KEY = verifier(PUBLIC_KEY)
PAIRS = pytest.mark.parametrize(
    ("sign", "verify"), [(SECRET, BY_SECRET), (PRIVATE_KEY, BY_PUBLIC_KEY)], ids=["HS256", "EdDSA"]
)


def signed(claims: dict[str, Any], key: bytes | Ed25519PrivateKey = SECRET) -> str:
    return jwt.encode(claims, key, algorithm="HS256" if isinstance(key, bytes) else "EdDSA")


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: Any, payload: Any, key: bytes = SECRET) -> str:
    """A token that is rightly signed by HS256, whatever it says of itself."""
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(hmac.digest(key, text.encode(), 'sha256'))}"


# --- what is let in ---


@PAIRS
def test_what_was_signed_is_let_in(sign: bytes | Ed25519PrivateKey, verify: JwtVerifier) -> None:
    token = JwtSigner(sign, audience="ibfast", issuer="ibfast").sign(
        "analyst", PERMISSIONS, now_s=NOW_S, expires_s=NOW_S + 60
    )
    assert verify.verify(token, NOW_S) == Grant("analyst", PERMISSIONS, NOW_S + 60 + LEEWAY_S)


def test_a_token_made_by_hand_is_let_in() -> None:
    granted = Grant("analyst", Permissions(symbols=("AAPL",)), NOW_S + 100 + LEEWAY_S)
    assert BY_SECRET.verify(by_hand({"alg": "HS256"}, CLAIMS), NOW_S) == granted
    assert BY_SECRET.verify(by_hand({"alg": "HS256", "typ": "JWT"}, CLAIMS | {"aud": ["x", "ibfast"]}), NOW_S) == (
        granted
    )


def test_another_audience_and_issuer_can_be_asked_for() -> None:
    other = verifier(SECRET, audience="desk", issuer="https://login.example.com")
    token = signed(CLAIMS | {"aud": "desk", "iss": "https://login.example.com"})
    assert isinstance(other.verify(token, NOW_S), Grant)
    assert isinstance(other.verify(signed(CLAIMS), NOW_S), Denied)


@pytest.mark.parametrize(
    ("changed", "now_s", "reason"),
    [
        ({}, NOW_S + 109.9, None),
        ({}, NOW_S + 110, Reason.EXPIRED),
        ({"exp": NOW_S + 0.5}, NOW_S + 10.4, None),
        ({"exp": 0}, NOW_S, Reason.EXPIRED),
        ({"nbf": NOW_S + 10}, NOW_S, None),
        ({"nbf": NOW_S + 11}, NOW_S, Reason.NOT_YET),
        ({"iat": NOW_S + 10}, NOW_S, None),
        ({"iat": NOW_S + 11}, NOW_S, Reason.NOT_YET),
    ],
)
def test_times_are_kept_with_leeway(changed: dict[str, Any], now_s: float, reason: Reason | None) -> None:
    result = BY_SECRET.verify(signed(CLAIMS | changed), now_s)
    assert isinstance(result, Grant) if reason is None else result == Denied(reason)


def test_the_clock_is_the_callers() -> None:
    """Long ago and far ahead, whatever time it is on this machine."""
    for now_s in (1_000_000, 4_000_000_000):
        assert isinstance(BY_SECRET.verify(signed(CLAIMS | {"iat": now_s, "exp": now_s + 1}), now_s), Grant)


# --- what is not ---


@PAIRS
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_algorithm_is_none(
    sign: bytes | Ed25519PrivateKey, verify: JwtVerifier, algorithm: str, signature: str
) -> None:
    assert isinstance(verify.verify(signed(CLAIMS, sign), NOW_S), Grant)
    token = f"{part({'alg': algorithm})}.{part(CLAIMS)}.{signature}"
    assert verify.verify(token, NOW_S) == Denied(Reason.ALGORITHM)


@pytest.mark.parametrize(
    "key",
    [
        PUBLIC_PEM,
        PUBLIC_PEM.strip(),
        PUBLIC_KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        PUBLIC_KEY.public_bytes(Encoding.Raw, PublicFormat.Raw),
        PUBLIC_KEY.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        b"",
    ],
)
def test_the_public_key_is_no_secret(key: bytes) -> None:
    """Key confusion: everybody knows the public key, and signs by HS256 with it."""
    assert BY_PUBLIC_KEY.verify(by_hand({"alg": "HS256"}, CLAIMS, key), NOW_S) == Denied(Reason.ALGORITHM)
    forged = Denied(Reason.SIGNATURE)
    assert BY_PUBLIC_KEY.verify(by_hand({"alg": "EdDSA"}, CLAIMS, key), NOW_S) == forged


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_no_other_algorithm_of_the_same_key(algorithm: str) -> None:
    token = jwt.encode(CLAIMS, SECRET, algorithm=algorithm)
    assert BY_SECRET.verify(token, NOW_S) == Denied(Reason.ALGORITHM)


def test_signatures_of_other_kinds_are_refused() -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    for key, algorithm in ((rsa_key, "RS256"), (rsa_key, "PS256"), (ec.generate_private_key(ec.SECP256R1()), "ES256")):
        token = jwt.encode(CLAIMS, key, algorithm=algorithm)
        assert BY_SECRET.verify(token, NOW_S) == Denied(Reason.ALGORITHM)
        assert BY_PUBLIC_KEY.verify(token, NOW_S) == Denied(Reason.ALGORITHM)
    assert BY_SECRET.verify(signed(CLAIMS, PRIVATE_KEY), NOW_S) == Denied(Reason.ALGORITHM)
    assert BY_PUBLIC_KEY.verify(signed(CLAIMS), NOW_S) == Denied(Reason.ALGORITHM)


def test_another_key_is_refused() -> None:
    assert BY_SECRET.verify(signed(CLAIMS, SECRET + b"x"), NOW_S) == Denied(Reason.SIGNATURE)
    assert BY_SECRET.verify(signed(CLAIMS, SECRET + b"\0"), NOW_S) == Denied(Reason.SIGNATURE)
    assert BY_PUBLIC_KEY.verify(signed(CLAIMS, Ed25519PrivateKey.generate()), NOW_S) == Denied(Reason.SIGNATURE)
    by_ed448 = jwt.encode(CLAIMS, ed448.Ed448PrivateKey.generate(), algorithm="EdDSA")
    assert BY_PUBLIC_KEY.verify(by_ed448, NOW_S) == Denied(Reason.SIGNATURE)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "jwk": {"kty": "oct", "k": part(b"x" * 32)}},
        {"alg": "HS256", "jku": "https://evil.example/keys"},
        {"alg": "HS256", "kid": "../../../dev/null"},
        {"alg": "HS256", "x5u": "https://evil.example/certificate"},
    ],
)
def test_a_token_brings_no_key_of_its_own(header: dict[str, Any]) -> None:
    for key in (b"x" * 32, b""):
        assert BY_SECRET.verify(by_hand(header, CLAIMS, key), NOW_S) == Denied(Reason.SIGNATURE)


@PAIRS
def test_every_changed_character_is_noticed(sign: bytes | Ed25519PrivateKey, verify: JwtVerifier) -> None:
    token = signed(CLAIMS, sign)
    for index, character in enumerate(token):
        for other in ("A" if character != "A" else "B", "", ".", "=", "+"):
            if other != character:
                assert isinstance(verify.verify(token[:index] + other + token[index + 1 :], NOW_S), Denied), index


@PAIRS
def test_signature_and_claims_of_two_tokens_do_not_fit(sign: bytes | Ed25519PrivateKey, verify: JwtVerifier) -> None:
    first, second = signed(CLAIMS, sign), signed(CLAIMS | {"ibfast": {"symbols": ["*"]}}, sign)
    mixed = ".".join([*second.split(".")[:2], first.split(".")[2]])
    assert verify.verify(mixed, NOW_S) == Denied(Reason.SIGNATURE)


@pytest.mark.parametrize(
    ("changed", "denied"),
    [
        ({"aud": "other"}, Denied(Reason.AUDIENCE)),
        ({"aud": ["other"]}, Denied(Reason.AUDIENCE)),
        ({"aud": "ibfast "}, Denied(Reason.AUDIENCE)),
        ({"aud": {"ibfast": 1}}, Denied(Reason.AUDIENCE)),
        ({"aud": ["ibfast", 1]}, Denied(Reason.AUDIENCE)),
        ({"aud": []}, Denied(Reason.CLAIMS)),
        ({"iss": "ibfas"}, Denied(Reason.ISSUER)),
        ({"iss": "ibfast.evil.example"}, Denied(Reason.ISSUER)),
        ({"iss": ["ibfast"]}, Denied(Reason.ISSUER)),
        ({"exp": "4000000000"}, Denied(Reason.CLAIMS, "exp")),
        ({"exp": True}, Denied(Reason.CLAIMS, "exp")),
        ({"exp": [1]}, Denied(Reason.CLAIMS, "exp")),
        ({"exp": float("inf")}, Denied(Reason.CLAIMS, "exp")),
        ({"exp": float("nan")}, Denied(Reason.CLAIMS, "exp")),
        ({"exp": 10**400}, Denied(Reason.CLAIMS, "exp")),
        ({"exp": -1}, Denied(Reason.CLAIMS, "exp")),
        ({"nbf": "soon"}, Denied(Reason.CLAIMS, "nbf")),
        ({"nbf": None}, Denied(Reason.CLAIMS, "nbf")),
        ({"iat": float("nan")}, Denied(Reason.CLAIMS, "iat")),
        ({"sub": 1}, Denied(Reason.CLAIMS)),
        ({"sub": ""}, Denied(Reason.CLAIMS, "sub")),
        ({"sub": "a\nERROR all is lost"}, Denied(Reason.CLAIMS, "sub")),
        ({"sub": "a\u202eb"}, Denied(Reason.CLAIMS, "sub")),
        ({"sub": "a" * 257}, Denied(Reason.CLAIMS, "sub")),
        ({"ibfast": None}, Denied(Reason.CLAIMS, "ibfast")),
        ({"ibfast": ["*"]}, Denied(Reason.CLAIMS, "ibfast")),
        ({"ibfast": "*"}, Denied(Reason.CLAIMS, "ibfast")),
    ],
)
def test_genuine_tokens_with_wrong_claims_are_refused(changed: dict[str, Any], denied: Denied) -> None:
    assert BY_SECRET.verify(by_hand({"alg": "HS256"}, CLAIMS | changed), NOW_S) == denied


@pytest.mark.parametrize("claim", ["sub", "iss", "aud", "exp", "ibfast"])
def test_no_claim_may_be_left_out(claim: str) -> None:
    token = signed({name: value for name, value in CLAIMS.items() if name != claim})
    denied = BY_SECRET.verify(token, NOW_S)
    assert isinstance(denied, Denied)
    assert denied.reason is Reason.CLAIMS


@pytest.mark.parametrize("table", [{}, {"symbols": []}, {"symbols": ["*"], "orders": True}, {"symbols": ["[A-Z]"]}])
def test_permissions_that_are_not_understood_permit_nothing(table: dict[str, Any]) -> None:
    denied = BY_SECRET.verify(signed(CLAIMS | {"ibfast": table}), NOW_S)
    assert isinstance(denied, Denied)
    assert denied.reason is Reason.CLAIMS
    assert denied.detail.startswith("ibfast: ")


NESTED = b"[" * 2000 + b"]" * 2000
GARBAGE: list[Callable[[], str]] = [
    lambda: "",
    lambda: ".",
    lambda: "..",
    lambda: "a.b.c",
    lambda: "....",
    lambda: signed(CLAIMS) + ".",
    lambda: "." + signed(CLAIMS),
    lambda: signed(CLAIMS) + "=",
    lambda: signed(CLAIMS) + "\n",
    lambda: "é" + signed(CLAIMS),
    lambda: by_hand([], CLAIMS),
    lambda: by_hand(None, CLAIMS),
    lambda: by_hand("HS256", CLAIMS),
    lambda: by_hand({}, CLAIMS),
    lambda: by_hand({"alg": None}, CLAIMS),
    lambda: by_hand({"alg": ["HS256"]}, CLAIMS),
    lambda: by_hand({"alg": {"HS256": 1}}, CLAIMS),
    lambda: by_hand({"alg": "HS256", "kid": 1}, CLAIMS),
    lambda: by_hand({"alg": "HS256", "crit": ["unknown"], "unknown": 1}, CLAIMS),
    lambda: by_hand({"alg": "HS256", "b64": False, "crit": ["b64"]}, CLAIMS),
    lambda: by_hand(b"\xff\xfe", CLAIMS),
    lambda: by_hand(b'{"alg": "HS256"', CLAIMS),
    lambda: by_hand(b"9" * 2000, CLAIMS),
    lambda: by_hand(NESTED[:1400], CLAIMS),
    lambda: by_hand(b'{"a":' * 400, CLAIMS),
    lambda: by_hand({"alg": "HS256"}, []),
    lambda: by_hand({"alg": "HS256"}, None),
    lambda: by_hand({"alg": "HS256"}, b"\xff"),
    lambda: by_hand({"alg": "HS256"}, NESTED[:1400]),
    lambda: by_hand({"alg": "HS256"}, b'{"exp": ' + b"9" * 2500 + b"}"),
]


@pytest.mark.parametrize("token", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("verify", [BY_SECRET, BY_PUBLIC_KEY], ids=["HS256", "EdDSA"])
def test_garbage_is_refused_and_hurts_nobody(verify: JwtVerifier, token: Callable[[], str]) -> None:
    assert isinstance(verify.verify(token(), NOW_S), Denied)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
HEADERS = JSON | st.fixed_dictionaries(
    {"alg": st.sampled_from(["HS256", "EdDSA", "none"]) | JSON},
    optional={"typ": JSON, "kid": JSON, "crit": JSON, "b64": JSON, "cty": JSON},
)


@given(HEADERS, st.fixed_dictionaries(CLAIMS.fromkeys(CLAIMS, JSON)) | JSON)
def test_whatever_is_signed_is_judged(header: Any, claims: Any) -> None:
    for verify in (BY_SECRET, BY_PUBLIC_KEY):
        assert isinstance(verify.verify(by_hand(header, claims), NOW_S), Denied)


@given(st.text(max_size=60) | st.binary(max_size=60).map(part), st.binary(max_size=60).map(part))
def test_whatever_is_sent_is_judged(first: str, second: str) -> None:
    for token in (first, f"{first}.{second}", f"{first}.{second}.", f"{first}.{second}.{first}"):
        assert isinstance(BY_SECRET.verify(token, NOW_S), Denied)
        assert isinstance(BY_PUBLIC_KEY.verify(token, NOW_S), Denied)


def test_a_huge_token_is_not_even_parsed() -> None:
    token = by_hand({"alg": "HS256"}, CLAIMS | {"x": "x" * MAX_TOKEN_LENGTH})
    assert BY_SECRET.verify(token, NOW_S) == Denied(Reason.MALFORMED)
    fits = by_hand({"alg": "HS256"}, CLAIMS | {"x": "x" * (MAX_TOKEN_LENGTH // 2)})
    assert isinstance(BY_SECRET.verify(fits, NOW_S), Grant)


# --- keys ---


def test_keys_are_read() -> None:
    pem = PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert secret(SECRET + b"\r\n") == SECRET
    assert private_key(pem).public_key() == public_key(PUBLIC_PEM) == PUBLIC_KEY


@pytest.mark.parametrize(
    ("read", "content", "told"),
    [
        (secret, b"", "the secret is too short: give 32 bytes"),
        (secret, b"x" * 31 + b"\n\n\n", "the secret is too short: give 32 bytes"),
        (secret, PUBLIC_PEM, "this is a key in PEM form, and no secret"),
        (public_key, b"", "there is no public key of Ed25519"),
        (public_key, b"\xff" * 100, "there is no public key of Ed25519"),
        (public_key, SECRET, "there is no public key of Ed25519"),
        (
            public_key,
            PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "this is a private key: give the public one",
        ),
        (
            public_key,
            ec.generate_private_key(ec.SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "there is no public key of Ed25519",
        ),
        (
            public_key,
            ed448.Ed448PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "there is no public key of Ed25519",
        ),
        (private_key, PUBLIC_PEM, "there is no private key of Ed25519"),
        (
            private_key,
            PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")),
            "the key is encrypted",
        ),
    ],
    ids=range(11),
)
def test_what_is_no_key_is_refused(read: Callable[[bytes], object], content: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert str(caught.value).startswith(told)
    assert caught.value.__cause__ is None


def test_no_key_is_shown() -> None:
    signer = JwtSigner(SECRET, audience="ibfast", issuer="ibfast")
    shown = (
        repr(BY_SECRET)
        + repr(BY_PUBLIC_KEY)
        + repr(signer)
        + repr(Tokens((), BY_SECRET, max_subscriptions=1, max_new_instruments=1000))
    )
    assert SECRET.decode() not in shown
    assert repr(BY_SECRET) == "<JwtVerifier: HS256, audience 'ibfast', issuer 'ibfast'>"
    assert "EdDSA" in repr(BY_PUBLIC_KEY)


def test_what_no_server_would_take_is_not_signed() -> None:
    signer = JwtSigner(SECRET, audience="ibfast", issuer="ibfast")
    many = Permissions(symbols=tuple(f"SYM{number}" for number in range(1000)))
    with pytest.raises(ConfigError, match="4096 is the most: give patterns"):
        signer.sign("analyst", many, now_s=NOW_S, expires_s=NOW_S + 60)
