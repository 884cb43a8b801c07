"""The files of tokens and keys: who may read them, what may be in them, and that no error shows it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError
from ibfast.fanout.access.jwt import JwtSigner
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.token_files import MAX_FILE_BYTES, load_tokens, parse_tokens
from ibfast.fanout.access.tokens import Denied, Grant, Reason, digest_of

NOW_S = 1_770_000_000
TOKEN = "wHQV4nIzAg5QEVxwf-BDRqGYi5HgNDKNJCuvC0YT5qA"
OTHER = "BovET-OyeTfk60oTf3oTTdDbq5trJDR5U2LrkPwZZLo"
FILE = f"""
[analyst]
sha256 = "{digest_of(TOKEN).hex()}"
symbols = ["AAPL", "ES*"]
data_types = ["TRADES"]
least_interval_ms = 100
subscriptions = 20
new_instruments = 50

["screen@desk"]
token = "{OTHER}"
symbols = ["*"]
modes = ["conflate"]
expires = 2026-02-02T02:40:00Z   # NOW_S
"""

posix = pytest.mark.skipif(os.name != "posix", reason="there are no file modes")


def write(path: Path, content: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return str(path)


def test_static_tokens_are_read(tmp_path: Path) -> None:
    tokens = load_tokens(SecurityConfig(tokens_file=write(tmp_path / "tokens.toml", FILE)))
    analyst = Permissions(
        symbols=("AAPL", "ES*"), data_types=("TRADES",), least_interval_ms=100, subscriptions=20, new_instruments=50
    )
    assert tokens.check(TOKEN, NOW_S) == Grant("analyst", analyst)
    screen = Permissions(symbols=("*",), modes=("conflate",), subscriptions=500, new_instruments=1000)
    assert tokens.check(OTHER, NOW_S - 1) == Grant("screen@desk", screen, NOW_S)
    assert tokens.check(OTHER, NOW_S) == Denied(Reason.EXPIRED, "screen@desk")
    assert tokens.check(secrets.token_urlsafe(32), NOW_S) == Denied(Reason.UNKNOWN)


def test_jwts_by_secret(tmp_path: Path) -> None:
    value = secrets.token_bytes(48).replace(b"\n", b"_").replace(b"\r", b"_")
    config = SecurityConfig(
        jwt_secret_file=write(tmp_path / "secret", value + b"\n"), max_subscriptions=7, max_new_instruments=8
    )
    token = JwtSigner(value, audience="ibfast", issuer="ibfast").sign(
        "a", Permissions(symbols=("*",)), now_s=NOW_S, expires_s=NOW_S + 1
    )
    granted = load_tokens(config).check(token, NOW_S)
    assert granted == Grant(
        "a", Permissions(symbols=("*",), subscriptions=7, new_instruments=8), NOW_S + 1 + config.leeway_s
    )


def test_jwts_by_public_key_beside_static_tokens(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    config = SecurityConfig(
        tokens_file=write(tmp_path / "tokens.toml", FILE),
        jwt_public_key_file=write(tmp_path / "key.pub", pem, 0o644),
        audience="desk",
        issuer="login",
        leeway_s=0,
    )
    tokens = load_tokens(config)
    signer = JwtSigner(key, audience="desk", issuer="login")
    token = signer.sign("a", Permissions(symbols=("*",)), now_s=NOW_S, expires_s=NOW_S + 1)
    assert isinstance(tokens.check(token, NOW_S), Grant)
    assert tokens.check(token, NOW_S + 1) == Denied(Reason.EXPIRED)
    assert isinstance(tokens.check(TOKEN, NOW_S), Grant)


def test_without_files_nobody_needs_a_token() -> None:
    assert not load_tokens(SecurityConfig()).are_needed


# --- who may read them ---


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o602, 0o601, 0o777])
@pytest.mark.parametrize("name", ["tokens_file", "jwt_secret_file"])
def test_what_others_can_reach_is_no_secret(tmp_path: Path, name: str, mode: int) -> None:
    path = write(tmp_path / "file", FILE, mode)
    with pytest.raises(ConfigError) as caught:
        load_tokens(SecurityConfig(**{name: path}))
    assert str(caught.value) == (f"security.{name}: {path} can be read by others (mode {mode:03o}): chmod 600 it")


@posix
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_what_nobody_else_can_reach_is_one(tmp_path: Path, mode: int) -> None:
    assert load_tokens(SecurityConfig(tokens_file=write(tmp_path / "file", FILE, mode))).are_needed


@posix
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_public_key_may_be_read_by_all_and_changed_by_none(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "key.pub", "x", mode)
    with pytest.raises(ConfigError, match=rf"can be changed by others \(mode {mode:03o}\): chmod go-w it"):
        load_tokens(SecurityConfig(jwt_public_key_file=path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "file", FILE)
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user: give a file of your own"):
        load_tokens(SecurityConfig(tokens_file=path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "file", FILE, 0o000)
    with pytest.raises(ConfigError, match=r"can't be read \(Permission denied\)"):
        load_tokens(SecurityConfig(tokens_file=path))


@pytest.mark.parametrize("name", ["tokens_file", "jwt_secret_file", "jwt_public_key_file"])
def test_a_file_that_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / "absent"
    with pytest.raises(ConfigError) as caught:
        load_tokens(SecurityConfig(**{name: str(path)}))
    assert str(caught.value).startswith(f"security.{name}: {path} can't be read (")
    with pytest.raises(ConfigError, match="can't be read"):
        load_tokens(SecurityConfig(**{name: "~nobody-of-this-name/file"}))


@posix
def test_what_is_no_file_is_said_and_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (tmp_path, pipe):
        with pytest.raises(ConfigError, match=r"is no file: give the path of one|can't be read"):
            load_tokens(SecurityConfig(tokens_file=str(path)))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="has more than 1048576 bytes"):
        load_tokens(SecurityConfig(tokens_file=path))


def test_a_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "tokens.toml", FILE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_tokens(SecurityConfig(tokens_file="~/tokens.toml")).are_needed


# --- what may be in them ---

SHA = digest_of(TOKEN).hex()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'token = "{TOKEN}', "this is no TOML"),
        (b"\xff\xfe" + TOKEN.encode(), "this is no TOML"),
        ("a = " + "[" * 5000, "this is no TOML"),
        (f'analyst = "{TOKEN}"', "analyst is no table: write [analyst] above its settings"),
        ('["a b"]\nsymbols = ["*"]', "['a b']: a name has 1 to 64 letters"),
        ('["a\\nb"]\nsymbols = ["*"]', "['a\\nb']: a name has 1 to 64 letters"),
        ('["ａ"]\nsymbols = ["*"]', "['ａ']: a name has 1 to 64 letters"),
        ('[a]\nsymbols = ["*"]', "[a] needs sha256 or token, and not both"),
        (f'[a]\nsha256 = "{SHA}"\ntoken = "{TOKEN}"\nsymbols = ["*"]', "[a] needs sha256 or token, and not both"),
        (f'[a]\nsha256 = "{SHA[1:]}"\nsymbols = ["*"]', "[a] sha256 is not possible: give 64 hexadecimal digits"),
        (f'[a]\nsha256 = "{SHA}\\n"\nsymbols = ["*"]', "[a] sha256 is not possible: give 64 hexadecimal digits"),
        (f'[a]\nsha256 = ["{SHA}"]\nsymbols = ["*"]', "[a] sha256 is not possible: give 64 hexadecimal digits"),
        (f'[a]\ntoken = "{TOKEN[:31]}"\nsymbols = ["*"]', "[a] token is not possible: give 32 to 256 letters"),
        (f'[a]\ntoken = "{TOKEN} "\nsymbols = ["*"]', "[a] token is not possible: give 32 to 256 letters"),
        (f'[a]\ntoken = "{TOKEN}ü"\nsymbols = ["*"]', "[a] token is not possible: give 32 to 256 letters"),
        ("[a]\ntoken = 12345678901234567890\nsymbols = ['*']", "[a] token is not possible: give 32 to 256 letters"),
        (f'[a]\nsha256 = "{SHA}"', "[a] symbols is missing: give those that are permitted"),
        (f'[a]\nsha256 = "{SHA}"\nsymbols = ["*"]\nsymbol = ["A"]', "[a] there is no permission 'symbol'"),
        (f'[a]\nsha256 = "{SHA}"\nsymbols = "*"', "[a] symbols='*' is not possible: give a list"),
        (f'[a]\nsha256 = "{SHA}"\nsymbols = ["*"]\nexpires = 2027-01-01', "[a] expires is not possible: give a time"),
        (f'[a]\nsha256 = "{SHA}"\nsymbols = ["*"]\nexpires = 2027-01-01T00:00:00', "[a] expires is not possible"),
        (f'[a]\nsha256 = "{SHA}"\nsymbols = ["*"]\nexpires = "never"', "[a] expires is not possible"),
        (
            f'[a]\nsha256 = "{SHA}"\nsymbols = ["A"]\n[b]\ntoken = "{TOKEN}"\nsymbols = ["*"]',
            "two holders have the same token",
        ),
    ],
)
def test_what_is_wrong_is_located_and_no_secret_shown(text: str | bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tokens(text if isinstance(text, bytes) else text.encode())
    assert str(caught.value).startswith(told)
    for secret in (TOKEN[:31], SHA[1:]):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_empty_file_lets_nobody_in_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no token: make one with ibfast token"):
        load_tokens(SecurityConfig(tokens_file=write(tmp_path / "tokens.toml", "# none yet\n")))


def test_a_private_key_does_not_stand_where_the_public_one_should(tmp_path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "jwt.key", pem)
    with pytest.raises(ConfigError) as caught:
        load_tokens(SecurityConfig(jwt_public_key_file=path))
    assert str(caught.value).startswith(f"security.jwt_public_key_file: {path}: this is a private key")


def test_no_key_is_in_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "secret", "short-but-secret")
    with pytest.raises(ConfigError) as caught:
        load_tokens(SecurityConfig(jwt_secret_file=path))
    assert str(caught.value) == f"security.jwt_secret_file: {path}: the secret is too short: give 32 bytes or more"
