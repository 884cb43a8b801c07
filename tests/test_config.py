"""A Config that exists is valid; what is wrong is told with the field's name and the remedy."""

from __future__ import annotations

import dataclasses
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ibfast import Config
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
        ("time_zone", ""), ("time_zone", "Mars/Olympus"), ("time_zone", "America"), ("time_zone", "../etc/passwd"),
        ("time_zone", "/etc/localtime"), ("time_zone", None), ("time_zone", "UTC\0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}=.* is not possible: give ") as caught:
        Config(**{field: value})
    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_settings_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Config("127.0.0.1")  # type: ignore[misc]
