"""Tokens: who a subscriber is, and what that permits.

The rule of the file: no token, and nothing that a token is checked against, ever stands in a text, an error or a repr;
static tokens are known by their digests, and all of them are compared, in constant time. The clock is a parameter: Unix
time in seconds. Where tokens come from is the business of `token_files`.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ibfast.fanout.access.permissions import Permissions

__all__ = [
    "Denied",
    "Grant",
    "Reason",
    "StaticToken",
    "Tokens",
    "Verifier",
    "digest_of",
    "is_token",
    "presented_token",
    "subprotocol_of",
]

SUBPROTOCOL_PREFIX = "ibfast.token."
ANONYMOUS = "anonymous"
ALL_DATA = Permissions(symbols=("*",))

# What may stand in an Authorization header and in a subprotocol's name: a JWT is made of these, and so is a static
# token. The bound keeps whatever else is sent from being hashed or parsed.
MAX_TOKEN_LENGTH = 4096
_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{1,{MAX_TOKEN_LENGTH}}}")
_BEARER = re.compile(r"bearer +([^ ]+)", re.IGNORECASE | re.ASCII)


class Reason(StrEnum):
    """Why nobody is let in; for logs and counts, not for the client, who learns only that it was refused."""

    MISSING = "there is no token"
    MALFORMED = "this is no token"
    UNKNOWN = "the token is not known"
    ALGORITHM = "the token is signed by another algorithm"
    SIGNATURE = "the token was not signed by the key, or was changed"
    AUDIENCE = "the token is for another audience"
    ISSUER = "the token is of another issuer"
    CLAIMS = "a claim is missing, or can't be what it is"
    NOT_YET = "the token's time has not come"
    EXPIRED = "the token's time is over"


@dataclass(frozen=True, slots=True)
class Grant:
    """Who is let in, and for what.

    Attributes:
        name: of the token's holder, printable: for logs.
        permissions: what the holder may have, within the server's caps.
        expires_s: when the session must end (Unix time), None: never.
        token: what was presented, to be checked again when tokens have changed.
        own: the permissions that the token itself has, for all of its connections together; None: there is no token.
    """

    name: str
    permissions: Permissions
    expires_s: float | None = None
    token: str | None = field(default=None, repr=False, compare=False)
    own: Permissions | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Denied:
    """Nobody is let in.

    Attributes:
        reason: why.
        detail: which claim is wrong, where the token is genuine and that can be told.
    """

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class Verifier(Protocol):
    """Knows genuine tokens by their signatures."""

    def verify(self, token: str, now_s: float) -> Grant | Denied:
        """Return what a token grants, or why it grants nothing."""


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A token that is known beforehand.

    Attributes:
        name: of its holder.
        digest: of the token, by `digest_of`.
        permissions, expires_s: as in `Grant`.
    """

    name: str
    digest: bytes = field(repr=False)
    permissions: Permissions
    expires_s: float | None = None


class Tokens:
    """Decides who is let in.

    Args:
        static: the tokens that are known beforehand.
        verifier: for all others; None: there are no others.
        max_subscriptions, max_new_instruments: what the server allows anybody.
        anonymous: what everybody may have where nobody needs a token, since there are neither static tokens nor a
            verifier; whether a server may run like that is said by `limits.check_bind`.
    """

    def __init__(
        self,
        static: Sequence[StaticToken] = (),
        verifier: Verifier | None = None,
        *,
        max_subscriptions: int,
        max_new_instruments: int,
        anonymous: Permissions = ALL_DATA,
    ) -> None:
        self._anonymous = anonymous
        self._static = tuple(static)
        self._verifier = verifier
        self._caps = max_subscriptions, max_new_instruments

    def __repr__(self) -> str:
        return f"<Tokens: {len(self._static)} static, {self._verifier or 'no JWTs'}>"

    @property
    def are_needed(self) -> bool:
        """Whether a subscriber needs one."""
        return bool(self._static) or self._verifier is not None

    def check(self, token: str | None, now_s: float) -> Grant | Denied:
        """Return what a token grants, or why it grants nothing.

        Args:
            token: as `presented_token` returns it.
            now_s: Unix time.
        """
        if not self.are_needed:
            return self._capped(Grant(ANONYMOUS, self._anonymous), None)
        if token is None:
            return Denied(Reason.MISSING)
        if not is_token(token):
            return Denied(Reason.MALFORMED)
        known = self._find(token)
        if known is None:
            verified = Denied(Reason.UNKNOWN) if self._verifier is None else self._verifier.verify(token, now_s)
            return verified if isinstance(verified, Denied) else self._capped(verified, token)
        if known.expires_s is not None and now_s >= known.expires_s:
            return Denied(Reason.EXPIRED, known.name)
        return self._capped(Grant(known.name, known.permissions, known.expires_s), token)

    def _find(self, token: str) -> StaticToken | None:
        digest = digest_of(token)
        found = None
        for known in self._static:  # to the end: when it is found must not show in how long it takes
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def _capped(self, grant: Grant, token: str | None) -> Grant:
        own = grant.permissions if self.are_needed else None
        return Grant(grant.name, grant.permissions.capped(*self._caps), grant.expires_s, token, own)


def is_token(text: str) -> bool:
    """Tell whether this may be a token at all, by its characters and its length."""
    return _TOKEN.fullmatch(text) is not None


def digest_of(token: str) -> bytes:
    """Return a token's SHA-256. No salt and no slow hash: tokens are random, of 32 characters at least."""
    return hashlib.sha256(token.encode()).digest()


def presented_token(authorizations: Iterable[str], subprotocols: Iterable[str]) -> str | None:
    """Return the token that a client has sent, None if there is none, and "", which is none, if it is not clear.

    Args:
        authorizations: the values of all its Authorization headers.
        subprotocols: those that it offers.
    """
    tokens: list[str] = []
    for value in authorizations:
        match = _BEARER.fullmatch(value)
        tokens.append("" if match is None else match[1])
    tokens += [name.removeprefix(SUBPROTOCOL_PREFIX) for name in subprotocols if name.startswith(SUBPROTOCOL_PREFIX)]
    return None if not tokens else tokens[0] if len(tokens) == 1 else ""


def subprotocol_of(token: str) -> str:
    """Return the subprotocol that a browser offers to tell a token. A server never selects it."""
    return SUBPROTOCOL_PREFIX + token
