"""Malformed protobuf: it is refused whole, whatever is wrong with it, and nothing past its end is read."""

from __future__ import annotations

import pytest

from ibfast.errors import ProtocolError
from tests.support.decoded import Decoded, decode
from tests.support.malformed import MARKER, marker, quarantined
from tests.support.streams import (
    BAR_UPDATE,
    MARKET_DEPTH,
    MARKET_DEPTH_L2,
    REAL_TIME_BAR,
    TICK_BY_TICK,
    TICK_GENERIC,
    TICK_OPTION,
    TICK_PRICE,
    TICK_SIZE,
    TICK_STRING,
    bytes_field,
    double_field,
    framed,
    int_field,
    protobuf_payload,
    varint,
)
from tests.support.tick_streams import MAKERS

PROTOBUF_MALFORMED = {
    "a varint that does not end": int_field(1, 1) + varint(2 << 3) + b"\xff" * 6,
    "a varint of eleven bytes": varint(1 << 3) + b"\xff" * 10 + b"\x01",
    "a varint beyond 64 bits": varint(1 << 3) + b"\xff" * 9 + b"\x7f",
    "a tag that does not end": b"\xff" * 20,
    "field number 0": b"\x00\x01",
    "a length past its message": varint(99 << 3 | 2) + varint(1000) + b"abc",
    "a length of 2^64 - 1": varint(99 << 3 | 2) + b"\xff" * 9 + b"\x01" + b"abc",
    "a length of 2^63": varint(99 << 3 | 2) + varint(1 << 63) + b"abc",
    "a length that does not end": varint(99 << 3 | 2) + b"\x80",
    "a cut double": varint(98 << 3 | 1) + b"\0" * 7,
    "a cut float": varint(98 << 3 | 5) + b"\0" * 3,
    "an integer as text": bytes_field(1, "1"),
    "an integer as double": double_field(1, 1.0),
    "a group that opens": varint(97 << 3 | 3),
    "a group that closes": varint(97 << 3 | 4),
    "wire type 6": varint(97 << 3 | 6),
    "wire type 7": varint(97 << 3 | 7),
    "an id without a value": varint(1 << 3),
}

GOOD_PROTOBUF = {
    TICK_PRICE: int_field(1, 1) + int_field(2, 1) + double_field(3, 1.5) + bytes_field(4, "100") + int_field(5, 0),
    TICK_SIZE: int_field(1, 1) + int_field(2, 0) + bytes_field(3, "100"),
    MARKET_DEPTH: int_field(1, 1) + bytes_field(2, int_field(1, 0) + double_field(4, 1.5)),
    MARKET_DEPTH_L2: int_field(1, 1) + bytes_field(2, int_field(1, 0) + double_field(4, 1.5) + bytes_field(6, "ARCA")),
    TICK_OPTION: int_field(1, 1) + int_field(2, 13) + double_field(4, 0.2) + double_field(11, 100.5),
    TICK_GENERIC: int_field(1, 1) + int_field(2, 49) + double_field(3, 1.5),
    TICK_STRING: int_field(1, 1) + int_field(2, 84) + bytes_field(3, "NQ"),
    REAL_TIME_BAR: int_field(1, 1) + int_field(2, 1_700_000_000) + double_field(3, 1.5) + bytes_field(7, "100"),
    BAR_UPDATE: int_field(1, 1) + bytes_field(2, bytes_field(1, "1700000000") + double_field(2, 1.5)),
    TICK_BY_TICK: int_field(1, 1)
    + int_field(2, 1)
    + bytes_field(3, int_field(1, 1_700_000_000) + double_field(3, 1.5) + bytes_field(4, "100")),
}


@pytest.mark.parametrize("what", PROTOBUF_MALFORMED)
@pytest.mark.parametrize("msg_id", GOOD_PROTOBUF)
def test_malformed_protobuf(msg_id: int, what: str) -> None:
    for body in (PROTOBUF_MALFORMED[what], GOOD_PROTOBUF[msg_id] + PROTOBUF_MALFORMED[what]):
        quarantined(226, protobuf_payload(msg_id, body))


@pytest.mark.parametrize("msg_id", GOOD_PROTOBUF)
def test_protobuf_cut_anywhere(msg_id: int) -> None:
    """A cut message is refused, or has ended between two fields, where a shorter message is a message."""
    good = GOOD_PROTOBUF[msg_id]
    assert decode(framed(protobuf_payload(msg_id, good)), 226).quarantine == []
    refused = 0
    for length in range(1, len(good)):
        decoded = decode(framed(protobuf_payload(msg_id, good[:length]), marker(226)), 226)
        assert decoded.count == 2
        assert decoded.rows["ticks"]["req_id"][-1] == MARKER
        refused += decoded.decoder.quarantined
    assert refused > len(good) // 2


@pytest.mark.parametrize(
    ("msg_id", "path"),
    [
        (MARKET_DEPTH, (2,)),
        (MARKET_DEPTH_L2, (2,)),
        (BAR_UPDATE, (2,)),
        (TICK_BY_TICK, (3,)),
        (TICK_BY_TICK, (4,)),
        (TICK_BY_TICK, (5,)),
        (TICK_BY_TICK, (3, 2)),
        (TICK_BY_TICK, (4, 2)),
    ],
)
def test_malformed_inner_messages(msg_id: int, path: tuple[int, ...]) -> None:
    for what, inner in PROTOBUF_MALFORMED.items():
        if what.startswith("an integer"):
            continue  # field 1 is a text in some of the inner messages
        body = inner
        for number in reversed(path):
            body = bytes_field(number, body)
        kind = int_field(2, 1) if msg_id == TICK_BY_TICK else b""
        quarantined(226, protobuf_payload(msg_id, int_field(1, 1), kind, body))


@pytest.mark.parametrize("msg_id", GOOD_PROTOBUF)
def test_an_inner_length_past_its_outer(msg_id: int) -> None:
    """The inner message may not read what follows the outer one, though the bytes are there in the buffer."""
    inner = varint(2 << 3 | 2) + varint(200) + int_field(1, 0)
    quarantined(226, protobuf_payload(msg_id, int_field(1, 1), inner))


def test_unknown_protobuf_fields_are_passed_over() -> None:
    unknown = int_field(100, 7) + double_field(101, 1.0) + bytes_field(102, b"abc") + varint(103 << 3 | 5) + b"\0" * 4
    for msg_id, body in GOOD_PROTOBUF.items():
        plain = decode(framed(protobuf_payload(msg_id, body)), 226)
        for extended in (body + unknown, unknown + body):
            decoded = decode(framed(protobuf_payload(msg_id, extended)), 226)
            assert decoded.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("msg_id", GOOD_PROTOBUF)
@pytest.mark.parametrize("swallowed", [1, 3])
def test_a_protobuf_frame_that_swallowed_others(msg_id: int, swallowed: int) -> None:
    good = framed(marker(226))
    follower = protobuf_payload(TICK_PRICE, int_field(1, 9), int_field(2, 1), double_field(3, 99.5))
    body = protobuf_payload(msg_id, GOOD_PROTOBUF[msg_id]) + framed(*[follower] * swallowed)
    decoded = Decoded(226)
    with pytest.raises(ProtocolError) as caught:
        decoded.give([good + framed(body) + framed(marker(226))])
    assert caught.value.offset == len(good)
    assert decoded.rows["ticks"]["req_id"].tolist() == [MARKER]


def test_every_kind_of_message_was_tried() -> None:
    assert set(GOOD_PROTOBUF) == set(MAKERS)
