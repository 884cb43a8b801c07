"""The files that tokens are checked against: static tokens, a JWT secret, a public key.

The rule of the file: what must stay secret is read only from a file that nobody but its owner can read, and what
decides who is let in from none that others can change. An error names the file and never shows what is in it.

Static tokens are tables of TOML, one per holder:

    [analyst]
    sha256 = "…"                       # of the token, in hexadecimal; or token = "…", the token itself
    symbols = ["AAPL", "ES*"]          # and the other fields of `Permissions`
    expires = 2027-01-01T00:00:00Z     # may be left out
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ibfast.common.private_files import fault_of
from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import StaticToken, Tokens, Verifier, digest_of

__all__ = ["NAME", "load_tokens", "parse_tokens", "read_guarded"]

MAX_FILE_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{32,256}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

T = TypeVar("T")


def load_tokens(config: SecurityConfig, *, is_local: bool = False) -> Tokens:
    """Return what decides who is let in.

    Args:
        config: names the files.
        is_local: whether only programs of this machine reach the server: without tokens, they may read its metrics.

    Raises:
        ConfigError: a file can't be read, is open to others, or has something else in it.
    """
    static: tuple[StaticToken, ...] = ()
    if config.tokens_file is not None:
        static = read_guarded("security.tokens_file", config.tokens_file, parse_tokens)
        if not static:
            raise ConfigError(f"security.tokens_file: {config.tokens_file} has no token: make one with ibfast token")
    return Tokens(
        static,
        _verifier(config),
        max_subscriptions=config.max_subscriptions,
        max_new_instruments=config.max_new_instruments,
        anonymous=Permissions(symbols=("*",), metrics=is_local),
    )


def _verifier(config: SecurityConfig) -> Verifier | None:
    if config.jwt_secret_file is None and config.jwt_public_key_file is None:
        return None
    from ibfast.fanout.access import jwt as jwt_tokens

    key: jwt_tokens.VerificationKey
    if config.jwt_secret_file is not None:
        key = read_guarded("security.jwt_secret_file", config.jwt_secret_file, jwt_tokens.secret)
    else:
        path = str(config.jwt_public_key_file)
        key = read_guarded("security.jwt_public_key_file", path, jwt_tokens.public_key, is_secret=False)
    return jwt_tokens.JwtVerifier(key, audience=config.audience, issuer=config.issuer, leeway_s=config.leeway_s)


def read_guarded(field: str, path: str, parse: Callable[[bytes], T], *, is_secret: bool = True) -> T:
    """Return what a file holds.

    Args:
        field: the setting that names the file, for errors.
        path: of the file.
        parse: makes it of the content, or raises ConfigError.
        is_secret: whether others must not read it.

    Raises:
        ConfigError: it can't be read, is open to others, or `parse` says so.
    """
    content = _content(field, path, is_secret=is_secret)
    try:
        return parse(content)
    except ConfigError as error:
        raise ConfigError(f"{field}: {path}: {error}") from None


def _content(field: str, path: str, *, is_secret: bool = True) -> bytes:
    try:
        with open(Path(path).expanduser(), "rb", opener=_open_without_waiting) as file:
            # Of the open file: another one may stand at the path by now.
            fault = fault_of(os.fstat(file.fileno()), is_secret=is_secret)
            if fault:
                raise ConfigError(f"{field}: {path} {fault}")
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user's home
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{field}: {path} can't be read ({reason}): give a file that can") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{field}: {path} has more than {MAX_FILE_BYTES} bytes: give another file")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    # A pipe would have the server wait for whoever writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_tokens(content: bytes) -> tuple[StaticToken, ...]:
    """Return the static tokens of a TOML file.

    Raises:
        ConfigError: it is no TOML, or a token lacks something; says which.
    """
    try:
        tables = tomllib.loads(content.decode())
    except (ValueError, RecursionError):
        # The parser's own words may show a part of the file.
        raise ConfigError("this is no TOML: give a table per holder, as ibfast token writes them") from None
    tokens = tuple(_static_token(name, table) for name, table in tables.items())
    if len({token.digest for token in tokens}) < len(tokens):
        raise ConfigError("two holders have the same token: make one for each")
    return tokens


def _static_token(name: str, table: object) -> StaticToken:
    if NAME.fullmatch(name) is None:
        raise ConfigError(f"[{name!r}]: a name has 1 to 64 letters, digits, and . _ @ -")
    if not isinstance(table, dict):
        raise ConfigError(f"{name} is no table: write [{name}] above its settings")
    rest = dict(table)
    try:
        digest = _digest(rest)
        expires_s = _expires_s(rest)
        return StaticToken(name, digest, Permissions.of(rest), expires_s)
    except ConfigError as error:
        raise ConfigError(f"[{name}] {error}") from None


def _digest(table: dict[str, Any]) -> bytes:
    given: Mapping[str, Any] = {key: table.pop(key) for key in ("sha256", "token") if key in table}
    if len(given) != 1:
        raise ConfigError("needs sha256 or token, and not both: make it with ibfast token")
    ((key, value),) = given.items()
    pattern = _SHA256 if key == "sha256" else _TOKEN
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        needed = "64 hexadecimal digits" if key == "sha256" else "32 to 256 letters, digits, and . _ ~ -, at random"
        raise ConfigError(f"{key} is not possible: give {needed}")
    return bytes.fromhex(value) if key == "sha256" else digest_of(value)


def _expires_s(table: dict[str, Any]) -> float | None:
    if "expires" not in table:
        return None
    value = table.pop("expires")
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError("expires is not possible: give a time with its zone, such as 2027-01-01T00:00:00Z")
    return value.timestamp()
