"""Decimals of the wire against Python's float(): every bit the same, and what is no number is refused.

Python's float() rounds correctly (David Gay's algorithm), so it is the truth here. Prices go through TICK_GENERIC and
TICK_PRICE, sizes through TICK_SIZE in text and in protobuf: all the ways that a decimal text takes into a record.
"""

from __future__ import annotations

import itertools
import math
import random
import struct
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.decoded import Decoded, decode, same_numbers
from tests.support.streams import (
    TICK_GENERIC,
    TICK_PRICE,
    TICK_SIZE,
    bytes_field,
    framed,
    int_field,
    protobuf_payload,
    text_payload,
)
from tests.support.tick_streams import UNSET_TEXTS

ASCII_ID, RAW_ID, PROTOBUF = 176, 201, 226
UNSET_DOUBLE = 1.7976931348623157e308
UNSET_DECIMAL = str(2**127 - 1)
RANDOM_DECIMALS, BATCHES = 40_000, 2  # for each of five generators and two ways: 800,000
# fmt: off
ADVERSARIAL = (
    "0", "-0", "0.0", "-0.0", "+0.0", "+1", "+1.5", ".5", "-.5", "5.", "-5.", "+5.", "1e5", "1E5", "1e+5", "1e-5",
    "1.e5", ".1e1", "00000000000000000000000001", "0.00000000000000000000000000000000000001",
    "1e00000000000000000005", "1e-0", "9007199254740992", "9007199254740993", "9007199254740994", "9007199254740995",
    "-9007199254740993", "9223372036854775806", "18446744073709551615", "18446744073709551616",
    "340282366920938463463374607431768211455", "4.9E-324", "5e-324", "2.4703282292062327e-324",
    "2.4703282292062328e-324", "2.47032822920623272e-324", "1e-324", "2.2250738585072014e-308",
    "2.2250738585072011e-308", "2.225073858507201e-308", "2.2250738585072012e-308", "1.7976931348623156e308",
    "1.7976931348623159e308", "1.797693134862315808e308", "1e308", "1e309", "-1e309", "1e99999", "1e-99999",
    "0e99999", "1e9223372036854775808", "1e-9223372036854775808", "0.1", "0.2", "0.3", "1e22", "1e23", "1e-22",
    "1e-23", "8.5e22", "123456789012345678901234567890", "7.2057594037927933e16", "7.2057594037927933e+16",
    "1448997445238699", "0.000000000000000000000000000000000000000000000000000001e54", "6.02214076e23", "nan", "NaN",
    "NAN", "-nan", "inf", "Infinity", "-Infinity", "+inf", "INF", "infinity",
)
# fmt: on
# fmt: off
GARBAGE = (
    " 1", "1 ", " ", "\t1", "1\n", "1_0", "1_0.5", "0x10", "0x1p3", "1e", "1e+", "1e-", "1e5.0", "e5", ".", "-", "+",
    "--1", "+-1", "-+1", "1-", "1.2.3", "1..2", "..", ".e1", "1,5", "1d5", "1f", "１", "١", "1\u00a0", "½", "infin",
    "nano", "in", "na", "-", "infinityx", "nan(1)", "1e5e5", "1e 5", "12a", "a12", "1;", "$1", "1%", "∞", "true",
    "None", "null", "(1)",
)
# fmt: on


def uniform_doubles(rng: random.Random) -> Iterator[str]:
    """Doubles of all magnitudes, as shortest text and with 17 digits."""
    while True:
        (value,) = struct.unpack("<d", rng.randbytes(8))
        if math.isfinite(value):
            yield repr(value)
            yield f"{value:.16e}"


def random_digits(rng: random.Random) -> Iterator[str]:
    """Digit strings of 1–40 digits with a point and an exponent anywhere."""
    while True:
        digits = "".join(rng.choices("0123456789", k=rng.randrange(1, 41)))
        point = rng.randrange(-1, len(digits) + 1)
        text = digits if point < 0 else f"{digits[:point]}.{digits[point:]}"
        if rng.random() < 0.5:
            exponent = rng.choice((rng.randrange(40), rng.randrange(345)))
            text += f"{rng.choice('eE')}{rng.choice(('', '+', '-'))}{exponent}"
        yield rng.choice(("", "", "-", "+")) + text


def halfway(rng: random.Random) -> Iterator[str]:
    """The exact middle between two doubles, and the decimals next to it: the hardest there are to round."""
    while True:
        (value,) = struct.unpack("<d", struct.pack("<Q", rng.randrange(1, 0x7FEFFFFFFFFFFFFF)))
        if rng.random() < 0.7:
            value = rng.uniform(1, 2) * 2.0 ** rng.randrange(-60, 70)
        exact, exact_above = Fraction(value), Fraction(math.nextafter(value, math.inf))
        middle = (exact + exact_above) / 2
        power = middle.denominator.bit_length() - 1
        digits = middle.numerator * 5**power  # the middle is digits · 10^-power, exactly
        yield f"{digits}e-{power}"
        yield f"{digits * 10 + 1}e-{power + 1}"
        yield f"{digits * 10 - 1}e-{power + 1}"
        for places in (17, 18, 19, 20, 25):
            kept = str(digits)[:places]
            yield f"{kept}e{len(str(digits)) - len(kept) - power}"


def prices(rng: random.Random) -> Iterator[str]:
    """What really comes: prices on a grid, sizes with decimals, crypto quantities."""
    while True:
        yield f"{rng.randrange(10 ** rng.randrange(1, 9)) / 100:.2f}"
        yield f"{rng.randrange(10 ** rng.randrange(1, 18))}"
        yield f"{rng.uniform(0, 1000):.{rng.randrange(0, 16)}f}"


def powers(rng: random.Random) -> Iterator[str]:
    """Short digits with every exponent, and integers around powers of two."""
    while True:
        for exponent in range(-345, 312):
            yield f"{rng.randrange(1, 10 ** rng.randrange(1, 20))}e{exponent}"
        for bits in range(50, 130):
            yield str((1 << bits) + rng.randrange(-3, 4))


GENERATORS = {
    "uniform": uniform_doubles,
    "digits": random_digits,
    "halfway": halfway,
    "prices": prices,
    "powers": powers,
}


def is_plain(text: str) -> bool:
    """Whether a text is a number here and not one of IB's spellings of an unset one."""
    return text not in (*UNSET_TEXTS, UNSET_DECIMAL) and float(text) != UNSET_DOUBLE


DECIMAL = st.from_regex(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?", fullmatch=True)


def payloads(texts: list[str], way: str) -> list[bytes]:
    if way == "generic":
        return [text_payload(ASCII_ID, TICK_GENERIC, 6, 1, 49, text) for text in texts]
    if way == "price":
        return [text_payload(RAW_ID, TICK_PRICE, 6, 1, 9, text, "", "") for text in texts]
    if way == "size":
        return [text_payload(ASCII_ID, TICK_SIZE, 6, 1, 8, text) for text in texts]
    return [protobuf_payload(TICK_SIZE, int_field(1, 1), int_field(2, 8), bytes_field(3, text)) for text in texts]


VERSIONS = {"generic": ASCII_ID, "price": RAW_ID, "size": ASCII_ID, "protobuf size": PROTOBUF}


def decoded_numbers(texts: list[str], way: str) -> tuple[Decoded, np.ndarray]:
    decoded = decode(framed(*payloads(texts, way)), VERSIONS[way])
    return decoded, decoded.rows["ticks"]["price" if way in ("generic", "price") else "size"]


def assert_exact(texts: list[str], way: str) -> None:
    decoded, numbers = decoded_numbers(texts, way)
    assert decoded.quarantine == []
    wanted = np.array([float(text) for text in texts])
    same = same_numbers(numbers, wanted)
    assert same.all(), [(texts[i], numbers[i].hex(), wanted[i].hex()) for i in np.flatnonzero(~same)[:5]]


@pytest.mark.parametrize("way", VERSIONS)
def test_adversarial_decimals_are_exact(way: str) -> None:
    assert_exact([text for text in ADVERSARIAL if is_plain(text)], way)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("way", ["generic", "protobuf size"])
def test_random_decimals_are_exact(name: str, way: str) -> None:
    stream = GENERATORS[name](random.Random(f"{name} {way}"))
    for _ in range(BATCHES):
        assert_exact([text for text in itertools.islice(stream, RANDOM_DECIMALS) if is_plain(text)], way)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True).map(repr).filter(is_plain), min_size=1, max_size=50))
def test_any_double_survives(texts: list[str]) -> None:
    assert_exact(texts, "price")


@given(st.lists(DECIMAL.filter(is_plain), min_size=1, max_size=50))
def test_any_decimal_form_is_exact(texts: list[str]) -> None:
    assert_exact(texts, "size")


@pytest.mark.parametrize("way", VERSIONS)
@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_quarantined(text: str, way: str) -> None:
    decoded, _ = decoded_numbers(["1.5", text, "2.5"], way)
    (entry,) = decoded.quarantine
    assert entry.payload == payloads([text], way)[0]
    assert [row["price"] if way in ("generic", "price") else row["size"] for row in decoded.rows["ticks"]] == [1.5, 2.5]


@given(st.text(st.characters(min_codepoint=1, codec="utf-8"), min_size=1, max_size=12))
def test_what_python_refuses_is_refused(text: str) -> None:
    """And the other way round, but for spaces, underscores and digits of other scripts, which only Python takes."""
    decoded, numbers = decoded_numbers([text], "generic")
    try:
        wanted = float(text)
    except ValueError:
        assert len(decoded.quarantine) == 1
        return
    if text.isascii() and "_" not in text and text == text.strip():
        assert decoded.quarantine == []
        assert same_numbers(numbers, np.array([wanted])).all()
    else:
        assert len(decoded.quarantine) == 1


@pytest.mark.parametrize("text", UNSET_TEXTS)
def test_unset_sizes_are_nan(text: str) -> None:
    for way in ("size", "protobuf size"):
        _, numbers = decoded_numbers([text], way)
        assert np.isnan(numbers).all()


@pytest.mark.parametrize("text", ["", "1.7976931348623157E308", "1.7976931348623157e+308"])
def test_unset_prices_are_nan(text: str) -> None:
    _, numbers = decoded_numbers([text], "generic")
    assert np.isnan(numbers).all()


@pytest.mark.parametrize("text", ["2147483647", "9223372036854775807"])
def test_an_unset_integer_is_a_price_like_any_other(text: str) -> None:
    _, numbers = decoded_numbers([text], "generic")
    assert numbers.tolist() == [float(text)]


def test_an_exponent_that_makes_up_for_millions_of_digits() -> None:
    text = "0." + "0" * 2_000_000 + "15e2000002"
    decoded = decode(framed(text_payload(ASCII_ID, TICK_GENERIC, 6, 1, 49, text)), ASCII_ID)
    assert decoded.rows["ticks"]["price"].tolist() == [float(text)] == [15.0]
