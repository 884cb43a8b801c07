from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.errors import DecodeError
from ibfast.wire.text import UNSET, FieldReader, escape, payload, size_to_field, split, to_field, unescape

fields = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (None, ""),
        (True, "1"),
        (False, "0"),
        (-1, "-1"),
        (0.1, "0.1"),
        (100.0, "100.0"),
        (1e-05, "1e-05"),
        (math.nan, ""),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (np.float64(2.5), "2.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.00000001"), "0.00000001"),
        (Decimal("NaN"), ""),
        ("text", "text"),
    ],
)
def test_fields(value, field):
    assert to_field(value) == field


@pytest.mark.parametrize(
    ("size", "field"),
    [(100.0, "100"), (0.5, "0.5"), (7, "7"), ("0.10", "0.10"), (None, ""), (math.nan, ""), (Decimal("2.0"), "2.0")],
)
def test_sizes_that_are_whole_carry_no_point(size, field):
    assert size_to_field(size) == field


@given(st.floats(allow_nan=False))
def test_floats_survive(value):
    assert FieldReader(to_field(value).encode() + b"\0").number("x") == value


@given(st.lists(fields))
def test_fields_survive(values):
    body = payload(1, 157, values).partition(b"\0")[2]
    assert split(body) == values


def test_the_id_is_ascii_below_201_and_raw_from_then_on():
    assert payload(49, 200, [1, "x"]) == b"49\x001\0x\0"
    assert payload(49, 201, [1, "x"]) == b"\0\0\0\x311\0x\0"


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=("Cs",))))
def test_escapes_survive(text):
    assert escape(text).isascii()
    assert unescape(escape(text)) == text


def test_other_escapes_are_left_alone():
    assert unescape(r'{"a":"\n\\x"}') == r'{"a":"\n\\x"}'


def test_text_that_is_not_utf8_is_replaced():
    assert split(b"a\xffb\0") == ["a\ufffdb"]


def test_absent_fields():
    reader = FieldReader(b"\0" * 6)
    assert reader.integer("a") == 0
    assert reader.number("b") == 0.0
    assert reader.boolean("c") is False
    assert reader.optional_number("d") is None
    assert math.isnan(reader.size("e"))
    assert reader.text("f") == ""


@pytest.mark.parametrize("field", sorted(UNSET))
def test_unset_numbers(field):
    assert FieldReader(field.encode() + b"\0").optional_number("x") is None
    assert math.isnan(FieldReader(field.encode() + b"\0").size("x"))


@pytest.mark.parametrize("method", ["integer", "number", "boolean", "size", "optional_number"])
def test_what_does_not_parse_names_the_field(method):
    with pytest.raises(DecodeError, match="strike"):
        getattr(FieldReader(b"abc\0"), method)("strike")


def test_a_reader_ends_with_its_message():
    reader = FieldReader(b"1\0")
    reader.skip("version")
    with pytest.raises(DecodeError, match="req_id is missing"):
        reader.integer("req_id")


@pytest.mark.parametrize("count", [b"-1", b"3", b"99999999999999999999"])
def test_a_count_is_bounded_by_what_follows(count):
    with pytest.raises(DecodeError, match="4 fields follow"):
        FieldReader(count + b"\0a\0b\0c\0d\0").count("bars", 2)


def test_a_message_without_an_end_is_malformed():
    with pytest.raises(DecodeError, match="no end"):
        FieldReader(b"1\0002")
