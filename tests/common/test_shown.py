"""Text of others in one line, short, and without power over a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.common.shown import MOST_CHARACTERS, fields_shown, shown
from ibfast.errors import ConfigError, ConnectError, DecodeError, Error, RequestError, StreamError


@pytest.mark.parametrize("text", ["", "Market data farm connection is OK:usfarm", "Zürich 東京 “x” — −1 …", "a\\n"])
def test_what_is_fit_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\r\nERROR forged", "a\\r\\nERROR forged"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\0\x08\x7f\x9b31m\x85", "\\x00\\x08\\x7f\\x9b31m\\x85"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\ud800", "\\ud800"),
        ("\xa0\u3000", "\xa0\u3000"),
    ],
)
def test_what_is_not_is_escaped(text: str, told: str) -> None:
    assert shown(text) == told


def test_what_is_long_is_cut() -> None:
    assert shown("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert shown("x" * (1 << 20)) == "x" * MOST_CHARACTERS + "… (1,048,576 characters)"
    assert shown("abcdef", 3) == "abc… (6 characters)"


@given(st.text())
def test_any_text_is_one_line_that_can_be_written(text: str) -> None:
    told = shown(text)
    assert len(told.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in told)
    told.encode()


def test_fields_keep_what_is_no_text() -> None:
    assert fields_shown({"a": 1, "b": None, "c": "x\n"}) == {"a": 1, "b": None, "c": "x\\n"}


@pytest.mark.parametrize(
    "make",
    [
        Error,
        ConfigError,
        DecodeError,
        lambda text: ConnectError("start", text, text),
        lambda text: RequestError(1, 200, text),
        lambda text: StreamError("REFUSED", text, text),
    ],
)
def test_every_error_s_text_is_fit_to_be_logged(make: type[Error]) -> None:
    text = str(make("\x1b[31m\r\n" + "x" * (1 << 20)))
    assert "\\x1b[31m\\r\\nxxx" in text
    assert len(text) < 2 * MOST_CHARACTERS
    assert text.isprintable()


def test_an_error_keeps_what_a_program_needs_as_it_was_sent() -> None:
    assert RequestError(1, 200, "a\n").message == "a\n"
