"""Settings of the fan-out's security: what is possible, and that a file, the environment and arguments can say it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ibfast import Config
from ibfast.config.origins import Origins
from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError


def test_defaults_are_for_this_machine_alone() -> None:
    config = SecurityConfig()
    assert not config.has_authentication
    assert not config.has_tls
    assert not config.allow_anonymous
    origins = Origins(config.origins)
    assert origins.allows("http://localhost:5173")
    assert not origins.allows("https://example.com")
    assert not origins.allows("null")


@pytest.mark.parametrize("name", ["tokens_file", "jwt_secret_file", "jwt_public_key_file"])
def test_a_file_of_tokens_or_keys_asks_for_a_token(name: str) -> None:
    assert SecurityConfig(**{name: "file"}).has_authentication


def test_a_certificate_is_tls() -> None:
    assert SecurityConfig(certificate_file="server.pem", key_file="server.key").has_tls
    assert SecurityConfig(certificate_file="both.pem").has_tls


def test_all_can_be_said_in_a_file_and_in_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "ibfast.toml"
    path.write_text(
        '[security]\ntokens_file = "tokens.toml"\norigins = ["https://desk.example.com"]\nleeway_s = 3\n'
        "max_connections = 5\nallow_anonymous = false\n"
    )
    environ = {"IBFAST_SECURITY_ORIGINS": "null, http://localhost:*", "IBFAST_SECURITY_MAX_PER_ADDRESS": "2"}
    config = Config.load(path, environ=environ, security={"max_connections": 6}).security
    expected = SecurityConfig(
        tokens_file="tokens.toml",
        origins=("null", "http://localhost:*"),
        leeway_s=3,
        max_connections=6,
        max_per_address=2,
    )
    assert config == expected


def test_what_is_wrong_is_located(tmp_path: Path) -> None:
    path = tmp_path / "ibfast.toml"
    path.write_text('[security]\norigins = ["localhost"]\n')
    with pytest.raises(ConfigError, match=rf"security\.origins='localhost' is not possible: .* \(file {path}\)"):
        Config.load(path, environ={})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tokens_file": ""}, "security.tokens_file='' is not possible: give the path of a file"),
        ({"key_file": 1}, "security.key_file=1 is not possible: give the path of a file"),
        ({"tokens_file": "a\0b"}, "security.tokens_file='a\\x00b' is not possible: give the path of a file"),
        ({"audience": ""}, "security.audience='' is not possible"),
        ({"issuer": None}, "security.issuer=None is not possible"),
        ({"leeway_s": -1}, "security.leeway_s=-1 is not possible: give seconds, 0 to 300"),
        ({"leeway_s": 301}, "security.leeway_s=301 is not possible: give seconds, 0 to 300"),
        ({"leeway_s": float("inf")}, "security.leeway_s=inf is not possible"),
        ({"allow_anonymous": 1}, "security.allow_anonymous=1 is not possible: give true or false"),
        ({"allow_anonymous": "false"}, "security.allow_anonymous='false' is not possible: give true or false"),
        ({"origins": "*"}, "security.origins='*' is not possible: give a list of origins"),
        ({"origins": ("example.com",)}, "security.origins='example.com' is not possible: give scheme and host"),
        ({"max_connections": 0}, "security.max_connections=0 is not possible: give 1 or more"),
        ({"max_per_address": -1}, "security.max_per_address=-1 is not possible: give 1 or more"),
        ({"max_new_instruments": 0}, "security.max_new_instruments=0 is not possible: give 1 or more"),
        ({"max_subscriptions": 1.5}, "security.max_subscriptions=1.5 is not possible: give 1 or more"),
        ({"max_control_per_s": True}, "security.max_control_per_s=True is not possible: give 1 or more"),
        ({"max_message_bytes": 1023}, "security.max_message_bytes=1023 is not possible: give 1024 or more"),
        ({"handshake_timeout_s": 0}, "security.handshake_timeout_s=0 is not possible: give seconds"),
        ({"jwt_secret_file": "a", "jwt_public_key_file": "b"}, "security.jwt_public_key_file can't stand beside"),
        ({"allow_anonymous": True, "tokens_file": "a"}, "security.allow_anonymous would make tokens pointless"),
        ({"key_file": "a"}, "security.key_file is of no use without a certificate"),
    ],
)
def test_what_is_not_possible_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SecurityConfig(**settings)
    assert str(caught.value).startswith(told)


def test_every_setting_is_documented() -> None:
    text = SecurityConfig.__doc__ or ""
    assert [item.name for item in fields(SecurityConfig) if item.name not in text] == []
