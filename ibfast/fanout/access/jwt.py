"""JSON Web Tokens: verified, and signed.

The rule of the file: the key decides the algorithm, never the token. A secret is for HS256, an Ed25519 key for EdDSA,
and nothing else is read. Signature, audience and issuer are PyJWT's business; times are compared here, since the clock
is a parameter. Imported only where JWTs are configured, because PyJWT takes long to import.

A token says who (`sub`), until when (`exp`), for whom (`aud`), by whom (`iss`), perhaps from when (`nbf`, `iat`), and
in the claim `ibfast` the permissions, in the words of `Permissions`: {"symbols": ["AAPL"], "data_types": ["TRADES"]}.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from ibfast.errors import ConfigError
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import MAX_TOKEN_LENGTH, Denied, Grant, Reason, is_token

__all__ = ["JwtSigner", "JwtVerifier", "private_key", "public_key", "secret"]

HS256 = "HS256"
EDDSA = "EdDSA"

PERMISSIONS_CLAIM = "ibfast"
LEAST_SECRET_BYTES = 32
MAX_NAME_LENGTH = 256
MAX_TIME_S = 2**53
"""Beyond it, a number that a JSON parser has read is none that could be meant."""

_PEM = b"-----BEGIN"
_OPTIONS: Any = {
    "require": ["exp", "aud", "iss", "sub"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "enforce_minimum_key_length": True,
}

# The first that fits: PyJWT derives some of these from others.
_REASONS: tuple[tuple[type[jwt.PyJWTError], Reason], ...] = (
    (jwt.InvalidAlgorithmError, Reason.ALGORITHM),
    (jwt.InvalidSignatureError, Reason.SIGNATURE),
    (jwt.InvalidAudienceError, Reason.AUDIENCE),
    (jwt.InvalidIssuerError, Reason.ISSUER),
    (jwt.MissingRequiredClaimError, Reason.CLAIMS),
    (InvalidSubjectError, Reason.CLAIMS),
    (InvalidJTIError, Reason.CLAIMS),
)

VerificationKey: TypeAlias = bytes | Ed25519PublicKey
SigningKey: TypeAlias = bytes | Ed25519PrivateKey


def secret(content: bytes) -> bytes:
    """Return the secret in a file's content: all of it but the end of the line.

    Raises:
        ConfigError: it is too short, or a key for another algorithm.
    """
    value = content.rstrip(b"\r\n")
    if _PEM in value:
        raise ConfigError("this is a key in PEM form, and no secret: give it as the public or the private key")
    if len(value) < LEAST_SECRET_BYTES:
        raise ConfigError(f"the secret is too short: give {LEAST_SECRET_BYTES} bytes or more")
    return value


def public_key(content: bytes) -> Ed25519PublicKey:
    """Return the public key in a PEM file's content.

    Raises:
        ConfigError: there is none of Ed25519 in it.
    """
    if b"PRIVATE KEY" in content:
        raise ConfigError("this is a private key: give the public one, and keep this where tokens are signed")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        _not_a_key("public")
    return key if isinstance(key, Ed25519PublicKey) else _not_a_key("public")


def private_key(content: bytes) -> Ed25519PrivateKey:
    """Return the private key in a PEM file's content.

    Raises:
        ConfigError: there is none of Ed25519 in it, or it is encrypted.
    """
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise ConfigError("the key is encrypted: give one that is not") from None
    except (ValueError, UnsupportedAlgorithm):
        _not_a_key("private")
    return key if isinstance(key, Ed25519PrivateKey) else _not_a_key("private")


def _not_a_key(kind: str) -> NoReturn:
    raise ConfigError(f"there is no {kind} key of Ed25519 in PEM form in it") from None


class JwtVerifier:
    """Knows genuine JWTs by one key, and so by one algorithm.

    Args:
        key: what `secret` or `public_key` returned.
        audience, issuer: what a token must say of itself.
        leeway_s: how far the clock of who signs may differ from this one.
    """

    def __init__(self, key: VerificationKey, *, audience: str, issuer: str, leeway_s: float) -> None:
        self._key = key
        self._algorithm = HS256 if isinstance(key, bytes) else EDDSA
        self._audience = audience
        self._issuer = issuer
        self._leeway_s = leeway_s

    def __repr__(self) -> str:
        return f"<JwtVerifier: {self._algorithm}, audience {self._audience!r}, issuer {self._issuer!r}>"

    def verify(self, token: str, now_s: float) -> Grant | Denied:
        """Return what a token grants, or why it grants nothing.

        Args:
            token: whatever was sent.
            now_s: Unix time.
        """
        if not is_token(token):
            return Denied(Reason.MALFORMED)
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as error:
            return Denied(next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.MALFORMED))
        return self._judge_times(claims, now_s) or self._granted(claims)

    def _judge_times(self, claims: dict[str, Any], now_s: float) -> Denied | None:
        for name in ("exp", "nbf", "iat"):
            if name in claims and not _is_time(claims[name]):
                return Denied(Reason.CLAIMS, name)
        if now_s >= claims["exp"] + self._leeway_s:
            return Denied(Reason.EXPIRED)
        begins_s = max(claims.get("nbf", 0), claims.get("iat", 0))
        return Denied(Reason.NOT_YET) if now_s < begins_s - self._leeway_s else None

    def _granted(self, claims: dict[str, Any]) -> Grant | Denied:
        name = claims["sub"]
        if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
            return Denied(Reason.CLAIMS, "sub")
        table = claims.get(PERMISSIONS_CLAIM)
        if not isinstance(table, dict):
            return Denied(Reason.CLAIMS, PERMISSIONS_CLAIM)
        try:
            permissions = Permissions.of(table)
        except ConfigError as error:
            return Denied(Reason.CLAIMS, f"{PERMISSIONS_CLAIM}: {error}")
        return Grant(name, permissions, claims["exp"] + self._leeway_s)


class JwtSigner:
    """Signs JWTs that a `JwtVerifier` with the same secret, or the public key, knows.

    Args:
        key: what `secret` or `private_key` returned.
        audience, issuer: what the tokens are to say.
    """

    def __init__(self, key: SigningKey, *, audience: str, issuer: str) -> None:
        self._key = key
        self._algorithm = HS256 if isinstance(key, bytes) else EDDSA
        self._audience = audience
        self._issuer = issuer

    def __repr__(self) -> str:
        return f"<JwtSigner: {self._algorithm}, audience {self._audience!r}, issuer {self._issuer!r}>"

    def sign(self, name: str, permissions: Permissions, *, now_s: int, expires_s: int) -> str:
        """Return a token.

        Args:
            name: of its holder.
            permissions: what the holder may have.
            now_s: Unix time, from which on it is good.
            expires_s: until when.

        Raises:
            ConfigError: it would be longer than a server takes.
        """
        claims = {
            "sub": name,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now_s,
            "exp": expires_s,
            PERMISSIONS_CLAIM: permissions.as_table(),
        }
        token = jwt.encode(claims, self._key, algorithm=self._algorithm)
        if len(token) > MAX_TOKEN_LENGTH:
            raise ConfigError(f"the token would have {len(token)} characters, and {MAX_TOKEN_LENGTH} is the most: "
                              "give patterns instead of many symbols")  # fmt: skip
        return token


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TIME_S
