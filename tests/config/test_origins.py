"""Origins are compared as a whole."""

from __future__ import annotations

import pytest

from ibfast.config.origins import Origins
from ibfast.errors import ConfigError


@pytest.mark.parametrize(
    ("allowed", "origin", "may"),
    [
        ([], None, True),
        ([], "https://desk.example.com", False),
        ([], "null", False),
        (["null"], "null", True),
        (["null"], "https://null", False),
        (["*"], "https://anything.example", True),
        (["*"], "null", True),
        (["https://desk.example.com"], "https://desk.example.com", True),
        (["https://desk.example.com"], "https://desk.example.com:443", True),
        (["https://desk.example.com:443"], "https://desk.example.com", True),
        (["https://Desk.Example.COM"], "https://desk.example.com", True),
        (["https://desk.example.com"], "http://desk.example.com", False),
        (["https://desk.example.com"], "http://desk.example.com:443", False),
        (["https://desk.example.com"], "https://desk.example.com:8443", False),
        (["https://desk.example.com"], "https://desk.example.com.evil.example", False),
        (["https://desk.example.com"], "https://evil-desk.example.com", False),
        (["https://desk.example.com"], "https://desk.example.com@evil.example", False),
        (["https://desk.example.com"], "https://evil.example/https://desk.example.com", False),
        (["https://desk.example.com"], "https://desk.example.com\n", False),
        (["https://desk.example.com"], "https://desk.example.com.", False),
        (["https://desk.example.com"], " https://desk.example.com", False),
        (["https://desk.example.com"], "", False),
        (["https://desk.example.com"], "*", False),
        (["https://desk.example.com"], "https://des\u212a.example.com", False),
        (["http://localhost:*"], "http://localhost:3000", True),
        (["http://localhost:*"], "http://localhost", True),
        (["http://localhost:*"], "https://localhost:3000", False),
        (["http://localhost:*"], "http://localhost:*", False),
        (["http://localhost:*"], "http://localhost:3000:80", False),
        (["http://localhost:*"], "http://localhost:evil.example", False),
        (["http://localhost:*"], "http://localhost.evil.example:3000", False),
        (["http://localhost:3000"], "http://localhost:*", False),
        (["http://[::1]:*"], "http://[::1]:8080", True),
        (["http://[::1]:*"], "http://[::2]:8080", False),
    ],
)
def test_origins_are_compared_as_a_whole(allowed: list[str], origin: str | None, may: bool) -> None:
    assert Origins(allowed).allows(origin) is may


@pytest.mark.parametrize(
    "origin",
    ["", "desk.example.com", "https://", "https://a/", "https://*.example.com", "wss://a", "https://a:b", "file://", 1,
     "https://a@b", "https://des\u212a"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"security\.origins=.* is not possible: give scheme and host"):
        Origins([origin])
