"""The command `ibfast token`: makes a token for a subscriber.

The rule of the file: a token is printed once, alone, on standard output, and kept nowhere: the file of static tokens
has its digest. What is said about it goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ibfast.errors import ConfigError
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.token_files import NAME, parse_tokens, read_guarded
from ibfast.fanout.access.tokens import digest_of
from ibfast.records import DAY_S

__all__ = ["add_parser"]

TOKEN_BYTES = 32
MAX_DAYS = 36_500

EXAMPLES = """examples:
  ibfast token analyst --tokens-file tokens.toml --symbols 'AAPL,ES*' --data-types TRADES,QUOTES
  ibfast token screen --tokens-file tokens.toml --modes conflate --least-interval-ms 250 --days 30
  ibfast token prometheus --tokens-file tokens.toml --metrics --subscriptions 0
  ibfast token visitor --jwt-secret-file jwt.secret --symbols SPY --days 1
  ibfast token visitor --jwt-private-key-file jwt.key --symbols SPY --days 1
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to those of `ibfast`."""
    parser = subparsers.add_parser(
        "token",
        help="make a token for a subscriber",
        description="Make a token, say what it permits, and print it: it is shown only once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="of who is to have it")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--tokens-file", metavar="FILE", help="make a static token, and add its digest to this file")
    kind.add_argument("--jwt-secret-file", metavar="FILE", help="sign a JWT by HS256 with this secret")
    kind.add_argument("--jwt-private-key-file", metavar="FILE", help="sign a JWT by EdDSA with this Ed25519 key (PEM)")
    permitted = parser.add_argument_group("what it permits")
    permitted.add_argument("--symbols", type=_list, default=["*"], metavar="A,B*", help="with * and ? (all)")
    permitted.add_argument("--data-types", type=_list, default=["*"], metavar="A,B", help="TRADES, QUOTES, … (all)")
    permitted.add_argument("--modes", type=_list, default=["*"], metavar="A,B", help="stream, conflate, snapshot (all)")
    permitted.add_argument("--least-interval-ms", type=int, default=0, metavar="N", help="the shortest interval (0)")
    permitted.add_argument("--subscriptions", type=int, metavar="N", help="at once (as many as the server allows)")
    permitted.add_argument("--lines", type=int, metavar="N", help="at IB, at once (as many as the server allows)")
    permitted.add_argument(
        "--new-instruments", type=int, metavar="N", help="that nobody has, in an hour (as many as the server allows)"
    )
    permitted.add_argument("--max-bytes-per-s", type=int, default=0, metavar="N", help="of a session (any)")
    permitted.add_argument("--metrics", action="store_true", help="read /metrics, and why /healthz is bad (no)")
    permitted.add_argument("--days", type=_days, metavar="N", help="how long (static: for ever; a JWT: 30)")
    signed = parser.add_argument_group("what a JWT says of itself")
    signed.add_argument("--audience", default="ibfast", help="security.audience of the server (ibfast)")
    signed.add_argument("--issuer", default="ibfast", help="security.issuer of the server (ibfast)")
    parser.set_defaults(command=_token)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days, more than 0, at most {MAX_DAYS}")
    return days


async def _token(arguments: argparse.Namespace) -> int:
    permissions = Permissions(
        symbols=tuple(arguments.symbols),
        data_types=tuple(arguments.data_types),
        modes=tuple(arguments.modes),
        least_interval_ms=arguments.least_interval_ms,
        subscriptions=arguments.subscriptions,
        max_bytes_per_s=arguments.max_bytes_per_s,
        new_instruments=arguments.new_instruments,
        lines=arguments.lines,
        metrics=arguments.metrics,
    )
    if NAME.fullmatch(arguments.name) is None:
        raise ConfigError(f"{arguments.name!r} is no name: give 1 to 64 letters, digits, and . _ @ -")
    now_s = int(time.time())
    if arguments.tokens_file is not None:
        expires_s = None if arguments.days is None else now_s + round(arguments.days * DAY_S)
        token = _add_static(arguments.tokens_file, arguments.name, permissions, expires_s)
    else:
        expires_s = now_s + round((arguments.days or 30.0) * DAY_S)
        token = _signed(arguments, permissions, now_s, expires_s)
    print(_said(arguments.name, expires_s), file=sys.stderr)
    print(token)
    return 0


def _said(name: str, expires_s: int | None) -> str:
    until = "for ever" if expires_s is None else f"until {_utc(expires_s)}"
    return f"the token of {name}, {until}; it is not shown again:"


def _signed(arguments: argparse.Namespace, permissions: Permissions, now_s: int, expires_s: int) -> str:
    from ibfast.fanout.access import jwt as jwt_tokens

    key: jwt_tokens.SigningKey
    if arguments.jwt_secret_file is not None:
        key = read_guarded("--jwt-secret-file", arguments.jwt_secret_file, jwt_tokens.secret)
    else:
        key = read_guarded("--jwt-private-key-file", arguments.jwt_private_key_file, jwt_tokens.private_key)
    signer = jwt_tokens.JwtSigner(key, audience=arguments.audience, issuer=arguments.issuer)
    return signer.sign(arguments.name, permissions, now_s=now_s, expires_s=expires_s)


def _add_static(tokens_file: str, name: str, permissions: Permissions, expires_s: int | None) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    path = Path(tokens_file).expanduser()
    existing = read_guarded("--tokens-file", str(path), parse_tokens) if path.exists() else ()
    if name in {known.name for known in existing}:
        raise ConfigError(f"--tokens-file: {path} has a token of {name!r}: take that out, or give another name")
    text = _table(name, token, permissions, expires_s)
    try:
        # Made so that no other user can ever read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            # The last line of what is there may have no end.
            file.write(f"\n{text}" if os.fstat(descriptor).st_size else text)
    except OSError as error:
        raise ConfigError(f"--tokens-file: {path} can't be written ({error.strerror}): give another path") from None
    return token


def _table(name: str, token: str, permissions: Permissions, expires_s: int | None) -> str:
    values = {"sha256": digest_of(token).hex()} | permissions.as_table()
    lines = [f"[{json.dumps(name)}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    if expires_s is not None:
        lines.append(f"expires = {_utc(expires_s)}")
    return "\n".join(lines) + "\n"


def _utc(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
