"""The command that makes tokens: what it prints is let in, and it prints it once."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import time
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ibfast.commands.token import add_parser
from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.token_files import load_tokens
from ibfast.fanout.access.tokens import Denied, Grant, Reason


def ibfast(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(list(map(str, arguments)))
    return asyncio.run(parsed.command(parsed))


@pytest.fixture
def made(capsys: pytest.CaptureFixture[str]):
    """Run the command, and return the token that it printed and what it said."""

    def made(*arguments: object) -> tuple[str, str]:
        assert ibfast("token", *arguments) == 0
        printed = capsys.readouterr()
        assert printed.out.endswith("\n")
        assert len(printed.out.split()) == 1
        assert printed.out.strip() not in printed.err
        return printed.out.strip(), printed.err

    return made


def checked(token: str, now_s: float | None = None, **settings: object) -> Grant | Denied:
    config = SecurityConfig(**{name: str(value) for name, value in settings.items()})
    return load_tokens(config).check(token, time.time() if now_s is None else now_s)


def test_a_static_token_is_let_in_and_kept_nowhere(made, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    token, said = made(
        "analyst", "--tokens-file", path, "--symbols", "AAPL, ES*", "--data-types", "TRADES,QUOTES", "--modes",
        "conflate", "--least-interval-ms", 100, "--subscriptions", 20, "--max-bytes-per-s", 9000,
        "--new-instruments", 50, "--lines", 7, "--metrics",
    )  # fmt: skip
    permissions = Permissions(
        symbols=("AAPL", "ES*"), data_types=("TRADES", "QUOTES"), modes=("conflate",), least_interval_ms=100,
        subscriptions=20, max_bytes_per_s=9000, new_instruments=50, lines=7, metrics=True,
    )  # fmt: skip
    assert checked(token, tokens_file=path) == Grant("analyst", permissions)
    assert token not in path.read_text()
    assert said == "the token of analyst, for ever; it is not shown again:\n"
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


def test_tokens_are_added_whatever_the_file_ends_with(made, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.touch(0o600)
    path.write_text("# who may see what")
    tokens = [made(name, "--tokens-file", path)[0] for name in ("a", "b.c", "d@e")]
    path.write_text(path.read_text().rstrip())
    tokens.append(made("f", "--tokens-file", path)[0])
    assert len(set(tokens)) == 4
    everything = Permissions(symbols=("*",), subscriptions=500, new_instruments=1000)
    for name, token in zip(("a", "b.c", "d@e", "f"), tokens, strict=True):
        assert checked(token, tokens_file=path) == Grant(name, everything)


def test_a_static_token_may_end(made, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    before_s = int(time.time())
    token, said = made("analyst", "--tokens-file", path, "--days", "0.5")
    grant = checked(token, tokens_file=path)
    assert isinstance(grant, Grant)
    assert grant.expires_s is not None
    assert before_s <= grant.expires_s - 43_200 <= time.time()
    assert checked(token, grant.expires_s, tokens_file=path) == Denied(Reason.EXPIRED, "analyst")
    assert datetime.fromisoformat(said.split("until ")[1].split(";")[0]).timestamp() == grant.expires_s


def test_a_jwt_by_secret_is_let_in(made, tmp_path: Path) -> None:
    path = tmp_path / "jwt.secret"
    path.touch(0o600)
    path.write_text(secrets.token_urlsafe(48) + "\n")
    token, _ = made("analyst", "--jwt-secret-file", path, "--symbols", "SPY", "--days", 1)
    grant = checked(token, jwt_secret_file=path)
    assert isinstance(grant, Grant)
    assert (grant.name, grant.permissions) == (
        "analyst",
        Permissions(symbols=("SPY",), subscriptions=500, new_instruments=1000),
    )
    assert grant.expires_s is not None
    assert 0 <= time.time() + 86_400 + SecurityConfig().leeway_s - grant.expires_s < 60
    assert checked(token, jwt_secret_file=path, audience="desk") == Denied(Reason.AUDIENCE)


def test_a_jwt_by_private_key_is_let_in(made, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path, public = tmp_path / "jwt.key", tmp_path / "jwt.pub"
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    public.chmod(0o644)
    token, said = made("a", "--jwt-private-key-file", path, "--audience", "desk", "--issuer", "login")
    grant = checked(token, jwt_public_key_file=public, audience="desk", issuer="login")
    assert isinstance(grant, Grant)
    assert grant.expires_s is not None
    assert 29 < (grant.expires_s - time.time()) / 86_400 < 30.01
    assert checked(token, jwt_public_key_file=public, issuer="login") == Denied(Reason.AUDIENCE)
    assert "until 20" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a b",), "'a b' is no name: give 1 to 64 letters"),
        (('a"]',), "is no name: give 1 to 64 letters"),
        (("a", "--symbols", ","), "symbols=() is not possible"),
        (("a", "--symbols", "[A-Z]"), "symbols='[A-Z]' is not possible"),
        (("a", "--data-types", "trades"), "data_types='trades' is not possible: give some of TRADES"),
        (("a", "--modes", "all"), "modes='all' is not possible"),
        (("a", "--least-interval-ms", "-1"), "least_interval_ms=-1 is not possible"),
        (("a", "--subscriptions", "-1"), "subscriptions=-1 is not possible"),
    ],
)
def test_a_mistake_makes_no_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "tokens.toml"
    with pytest.raises(ConfigError) as caught:
        ibfast("token", *arguments, "--tokens-file", path)
    assert told in str(caught.value)
    assert capsys.readouterr().out == ""
    assert not path.exists()


def test_a_name_has_one_token(made, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    made("analyst", "--tokens-file", path)
    before = path.read_text()
    with pytest.raises(ConfigError, match="has a token of 'analyst': take that out, or give another name"):
        ibfast("token", "analyst", "--tokens-file", path)
    assert path.read_text() == before


def test_what_is_no_file_of_tokens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.touch(0o600)
    path.write_text("something else")
    with pytest.raises(ConfigError, match=r"--tokens-file: .* this is no TOML"):
        ibfast("token", "a", "--tokens-file", path)
    assert path.read_text() == "something else"
    with pytest.raises(ConfigError, match=r"--tokens-file: .* can't be written"):
        ibfast("token", "a", "--tokens-file", tmp_path / "absent" / "tokens.toml")


@pytest.mark.skipif(os.name != "posix", reason="there are no file modes")
@pytest.mark.parametrize("option", ["--tokens-file", "--jwt-secret-file", "--jwt-private-key-file"])
def test_nothing_is_made_with_a_file_that_others_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=rf"{option}: .* can be read by others \(mode 644\): chmod 600 it"):
        ibfast("token", "a", option, path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("a",),
        ("--tokens-file", "x"),
        ("a", "--tokens-file", "x", "--jwt-secret-file", "y"),
        ("a", "--tokens-file", "x", "--days", "0"),
        ("a", "--tokens-file", "x", "--days", "nan"),
        ("a", "--tokens-file", "x", "--days", "1e9"),
        ("a", "--tokens-file", "x", "--subscriptions", "many"),
    ],
)
def test_wrong_arguments_exit_with_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        ibfast("token", *arguments)
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []
