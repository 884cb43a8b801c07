"""A Config that exists is valid; what is wrong is told with the field's name and the remedy."""

from __future__ import annotations

import dataclasses
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ibfast import Config
from ibfast.config import (
    AuthConfig,
    BreakerConfig,
    FanoutConfig,
    HeartbeatConfig,
    PacingConfig,
    ReconnectionConfig,
    SecurityConfig,
    SessionConfig,
    TlsConfig,
)
from ibfast.config.loader import sections_of
from ibfast.errors import ConfigError


def test_defaults_are_valid() -> None:
    config = Config()
    assert (config.host, config.port, config.client_id) == ("127.0.0.1", 7497, 1)
    assert config.zone == ZoneInfo("UTC")


def test_settings_are_kept_and_frozen() -> None:
    config = Config(host="::1", port=65535, client_id=0, connect_timeout_s=0.5, time_zone="America/New_York")
    assert (config.host, config.port, config.client_id, config.connect_timeout_s) == ("::1", 65535, 0, 0.5)
    assert config.zone == ZoneInfo("America/New_York")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]
    assert dataclasses.replace(config, port=1).port == 1
    with pytest.raises(ConfigError):
        dataclasses.replace(config, port=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""), ("host", None), ("host", 5), ("host", b"localhost"),
        ("port", 0), ("port", -1), ("port", 65536), ("port", "7497"), ("port", 7497.0), ("port", True), ("port", None),
        ("client_id", -1), ("client_id", 1 << 31), ("client_id", "1"), ("client_id", False),
        ("connect_timeout_s", 0), ("connect_timeout_s", -1.0), ("connect_timeout_s", "10"), ("connect_timeout_s", None),
        ("connect_timeout_s", float("nan")), ("connect_timeout_s", True),
        ("request_timeout_s", 0), ("request_timeout_s", float("-inf")), ("request_timeout_s", "60"),
        ("feed_capacity", 0), ("feed_capacity", 1), ("feed_capacity", 3), ("feed_capacity", 4.0), ("feed_capacity", -4),
        ("max_instruments", 0), ("max_instruments", (1 << 24) + 1), ("max_instruments", 8.0), ("max_instruments", True),
        ("keep_instrument_s", 0), ("keep_instrument_s", float("inf")), ("keep_instrument_s", "3600"),
        ("time_zone", ""), ("time_zone", "Mars/Olympus"), ("time_zone", "America"), ("time_zone", "../etc/passwd"),
        ("time_zone", "/etc/localtime"), ("time_zone", None), ("time_zone", "UTC\0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}=.* is not possible: give ") as caught:
        Config(**{field: value})
    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


STREAM = "ws://desk.example.net:8765/stream"


@pytest.mark.parametrize(
    "url",
    [
        "", "desk:8765", "http://desk", "ws://", "ws:///stream", "ws://desk:0", "ws://desk:70000", "ws://desk:x",
        "ws://geheim@desk", "ws://me:geheim@desk", "ws://desk/stream?token=geheim", "ws://desk/#geheim", "ws://d esk",
        "ws://[::1", "ws://desk\r\nX: geheim", 5, b"ws://desk",
    ],
)  # fmt: skip
def test_the_address_of_a_stream_that_is_wrong_is_not_shown(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"^stream_url is not possible: give ") as caught:
        Config(stream_url=url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "ge heim", "geheim\r\n", "gehéim", 5, b"geheim"])
def test_the_token_of_a_stream_that_is_wrong_is_not_shown(token: Any) -> None:
    with pytest.raises(ConfigError, match=r"^stream_token is not possible: give ") as caught:
        Config(stream_url=STREAM, stream_token=token)
    assert "heim" not in str(caught.value)


def test_a_token_needs_the_server_that_it_is_for() -> None:
    with pytest.raises(ConfigError, match=r"^stream_token is of no use without stream_url") as caught:
        Config(stream_token="geheim")
    assert "geheim" not in str(caught.value)


def test_the_address_and_the_token_of_a_stream_are_kept_and_the_token_is_not_shown() -> None:
    for url in (STREAM, "wss://[::1]:443/stream", "ws://desk"):
        config = Config(stream_url=url, stream_token="geheim")
        assert (config.stream_url, config.stream_token) == (url, "geheim")
        assert url in repr(config)
        assert "geheim" not in f"{config!r} {config}"


def test_settings_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Config("127.0.0.1")  # type: ignore[misc]


# --- sections ---

NAN, INFINITE = float("nan"), float("inf")
NO_SECONDS = (0, -1.0, NAN, INFINITE, "10", None, True)
NO_COUNT = (0, -1, 1.0, "5", None, True)
NO_FLAG = (1, 0, "true", None)

IMPOSSIBLE: dict[type, dict[str, tuple[Any, ...]]] = {
    HeartbeatConfig: {
        "interval_s": NO_SECONDS, "timeout_s": NO_SECONDS, "first_data_s": NO_SECONDS, "quiet_s": NO_SECONDS,
        "stale_s": (*NO_SECONDS, 1.9), "dead_s": (*NO_SECONDS, 9.9),
    },
    ReconnectionConfig: {
        "enabled": NO_FLAG, "delay_s": NO_SECONDS, "max_delay_s": (*NO_SECONDS, 0.9), "stable_s": NO_SECONDS,
        "planned_poll_s": NO_SECONDS, "login_poll_s": NO_SECONDS, "max_attempts": (0, -1, 1.5, "3", True),
        "daily_restart": ("", "24:00", "23:60", "9:00", "23:45:00", 2345, "23.45"),
        "weekly_login": ("", "01:00", "SUN", "SUN 25:00", "Sunday 01:00", "SUN  01:00", 1),
        "restart_minutes": (*NO_COUNT, 1441), "login_minutes": (*NO_COUNT, 1441),
        "zone": ("", "Mars/Olympus", None, 5),
    },
    PacingConfig: {
        "enforced": NO_FLAG,
        "lines": NO_COUNT, "tick_by_tick": (0, -1, 1.5, "3", True), "max_queue": NO_COUNT, "max_wait_s": NO_SECONDS,
    },
    AuthConfig: {
        "account_type": ("", "demo", "PAPER", None, ()), "accounts": ("DU1", ["DU1"], ("",), (5,), None),
        "read_only": NO_FLAG,
    },
    SessionConfig: {
        "store": ("", 5, b"x"), "name": ("", None, 5), "backfill": NO_FLAG,
        "client_ids": (5, "5", [5], None),
    },
    BreakerConfig: {
        "window_calls": NO_COUNT, "failure_rate": (0, -0.1, 1.01, NAN, "0.5", None, True), "open_s": NO_SECONDS,
        "probes": NO_COUNT,
    },
    FanoutConfig: {
        "host": ("", None, 5), "port": (-1, 65536, "8765", 80.0, True, None), "heartbeat_s": NO_SECONDS,
        "ping_s": NO_SECONDS, "linger_s": (-1, NAN, "5", None, True), "backlog_bytes": (0, 1023, 2048.0, "2048", None),
        "backlog_s": NO_SECONDS, "patience_s": NO_SECONDS, "stalled_s": NO_SECONDS,
    },
}  # fmt: skip


def section_names() -> dict[type, str]:
    return {section: name for name, section in sections_of(Config).items()}


def test_every_setting_of_every_section_was_tried() -> None:
    tried = {section: set(values) for section, values in IMPOSSIBLE.items()}
    assert tried == {
        section: {item.name for item in dataclasses.fields(section)}
        for section in section_names()
        if section not in (TlsConfig, SecurityConfig)  # checked where they live
    }


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        pytest.param(section, field, value, id=f"{section.__name__}-{field}-{value!r}")
        for section, fields in IMPOSSIBLE.items()
        for field, values in fields.items()
        for value in values
    ],
)
def test_what_is_wrong_in_a_section_is_named(section: type, field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        section(**{field: value})
    shown = type(value) if field == "accounts" else value
    path = f"{section_names()[section]}.{field}"
    assert str(caught.value).startswith(f"{path}={shown!r} is not possible: give ")
    assert caught.value.field == path


@pytest.mark.parametrize("client_id", ["5", -1, 1 << 31, True])
def test_the_client_id_that_is_wrong_is_named(client_id: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        SessionConfig(client_ids=(7, client_id))
    assert str(caught.value) == f"session.client_ids={client_id!r} is not possible: give whole numbers, 0 or more"


@pytest.mark.parametrize("name", list(sections_of(Config)))
@pytest.mark.parametrize("value", [5, "geheim", {"key_password": "geheim"}, Config()])
def test_a_section_must_be_one(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}=<class .*> is not possible: give a \w+Config$") as caught:
        Config(**{name: value})
    assert "geheim" not in str(caught.value)


def test_only_tls_can_be_absent() -> None:
    assert Config().tls is None
    for name in sections_of(Config).keys() - {"tls"}:
        with pytest.raises(ConfigError, match=f"^{name}="):
            Config(**{name: None})


def test_sections_are_kept_frozen_and_replaced() -> None:
    config = Config(port=4002, auth=AuthConfig(accounts=("DU1",)), heartbeat=HeartbeatConfig(timeout_s=1))
    assert (config.auth.accounts, config.heartbeat.timeout_s, config.pacing) == (("DU1",), 1, PacingConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.auth.accounts = ()  # type: ignore[misc]
    slower = dataclasses.replace(config, heartbeat=dataclasses.replace(config.heartbeat, interval_s=60.0))
    assert (slower.heartbeat, slower.auth) == (HeartbeatConfig(interval_s=60.0, timeout_s=1), config.auth)
    assert config == Config(port=4002, auth=AuthConfig(accounts=("DU1",)), heartbeat=HeartbeatConfig(timeout_s=1))
    with pytest.raises(ConfigError):
        dataclasses.replace(config.heartbeat, interval_s=0)


def test_no_secret_is_shown() -> None:
    tls = TlsConfig(certificate="client.pem", key_password="geheim")
    config = Config(tls=tls, auth=AuthConfig(accounts=("DU1234567",), read_only=True))
    for text in (repr(config), str(config), f"{config.tls} {config.auth}"):
        assert "geheim" not in text
        assert "1234567" not in text
    assert repr(config.auth) == "AuthConfig(account_type='any', accounts=('DU****567',), read_only=True)"
