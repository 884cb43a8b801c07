"""Malformed input: a bad field costs its message and nothing else; broken framing ends the stream, and says where."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from ibfast import Decoder, Feed
from ibfast._core import QUARANTINE_BYTES
from ibfast.errors import ProtocolError
from tests.support.decoded import Decoded, decode
from tests.support.malformed import MARKER, marker, quarantined
from tests.support.streams import (
    BAR_UPDATE,
    MARKET_DEPTH,
    MARKET_DEPTH_L2,
    MAX_FRAME,
    PROTOBUF_OFFSET,
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
    text_payload,
)
from tests.support.tick_streams import MAKERS, random_messages

NO_INSTRUMENT = 0xFFFFFFFF
TEXT_VERSIONS = (157, 200, 201, 226)

GOOD_TEXT = {
    TICK_PRICE: (6, 1, 1, "1.5", 100, 0),
    TICK_SIZE: (6, 1, 0, 100),
    MARKET_DEPTH: (1, 1, 0, 0, 1, "1.5", 100),
    MARKET_DEPTH_L2: (1, 1, 0, "ARCA", 0, 1, "1.5", 100, 1),
    TICK_OPTION: (1, 13, 0, "0.2", "0.5", "1.5", "0.1", "0.01", "0.1", "-0.1", "100.5"),
    TICK_GENERIC: (6, 1, 49, "1.5"),
    TICK_STRING: (6, 1, 45, "1700000000"),
    REAL_TIME_BAR: (3, 1, 1_700_000_000, "1.5", "2.5", "0.5", "1.25", 100, "1.4", 7),
    BAR_UPDATE: (1, 7, "1700000000", "1.5", "1.25", "2.5", "0.5", "1.4", 100),
    TICK_BY_TICK: (1, 1, 1_700_000_000, "1.5", 100, 0, "ARCA", "T"),
}
"""One well-formed message of each kind, all its fields after the id."""

# fmt: off
NOT_NUMBERS = {
    TICK_PRICE: (1, 2, 3, 4, 5), TICK_SIZE: (1, 2, 3), MARKET_DEPTH: (1, 2, 3, 4, 5, 6),
    MARKET_DEPTH_L2: (1, 2, 4, 5, 6, 7, 8), TICK_OPTION: tuple(range(11)), TICK_GENERIC: (1, 2, 3),
    TICK_STRING: (1, 2, 3), REAL_TIME_BAR: tuple(range(1, 10)), BAR_UPDATE: tuple(range(9)),
    TICK_BY_TICK: (0, 1, 2, 3, 4, 5),
}
# fmt: on
"""The fields of each that are numbers or times."""


def test_the_good_messages_are_good() -> None:
    for server_version in TEXT_VERSIONS:
        payloads = [text_payload(server_version, msg_id, *fields) for msg_id, fields in GOOD_TEXT.items()]
        decoded = decode(framed(*payloads), server_version)
        assert decoded.quarantine == []
        assert decoded.messages == []


@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
@pytest.mark.parametrize("msg_id", GOOD_TEXT)
def test_a_field_that_is_no_number(server_version: int, msg_id: int) -> None:
    for position in NOT_NUMBERS[msg_id]:
        for garbage in ("x", "1x", " 1", "1.2.3", "0x10", "--1", b"\xff"):
            fields = list(GOOD_TEXT[msg_id])
            fields[position] = garbage
            decoded, _ = quarantined(server_version, text_payload(server_version, msg_id, *fields))
            assert decoded.decoder.quarantined == 1


@pytest.mark.parametrize("msg_id", GOOD_TEXT)
def test_a_number_out_of_its_fields_range(msg_id: int) -> None:
    """A req_id of 2^31 must not come out as another request's."""
    position = 0 if msg_id in (TICK_OPTION, BAR_UPDATE, TICK_BY_TICK) else 1
    for text in ("2147483648", "-2147483649", "4294967297", "9" * 18, "9" * 19, "9" * 40):
        fields = list(GOOD_TEXT[msg_id])
        fields[position] = text
        quarantined(176, text_payload(176, msg_id, *fields))


@pytest.mark.parametrize("text", ["9223372037", "-9223372037", "9" * 18, "9" * 30])
def test_a_time_that_no_record_can_hold(text: str) -> None:
    for msg_id in (REAL_TIME_BAR, BAR_UPDATE, TICK_BY_TICK):
        fields = [text if field == "1700000000" or field == 1_700_000_000 else field for field in GOOD_TEXT[msg_id]]
        quarantined(176, text_payload(176, msg_id, *fields))


@pytest.mark.parametrize(
    "text",
    [
        "20240231",
        "20230229",
        "20241301",
        "20240100",
        "2024",
        "20240105 25:00:00",
        "20240105 09:30:00 Nowhere/Land",
        "yesterday",
        "20240105 9:30",
    ],
)
def test_a_bar_time_that_does_not_exist(text: str) -> None:
    fields = list(GOOD_TEXT[BAR_UPDATE])
    fields[2] = text
    quarantined(176, text_payload(176, BAR_UPDATE, *fields))
    bar = bytes_field(2, bytes_field(1, text) + double_field(2, 1.5))
    quarantined(226, protobuf_payload(BAR_UPDATE, int_field(1, 1), bar))


@pytest.mark.parametrize(
    "text",
    [
        "x;100;1700000000000;1;1;true",
        "1.5;x;1700000000000;1;1;true",
        "1.5;100;x;1;1;true",
        "1.5;100;1700000000000;x;1;true",
        "1.5;100;1700000000000;1;x;true",
        "abc",
        "1.5 100",
        "",
        "1.5;100",
        "1.5;100;1700000000000;1;1",
    ],
)
def test_an_rt_volume_that_does_not_parse(text: str) -> None:
    for tick_type in (48, 77):
        quarantined(176, text_payload(176, TICK_STRING, 6, 1, tick_type, text))
        payload = protobuf_payload(TICK_STRING, int_field(1, 1), int_field(2, tick_type), bytes_field(3, text))
        quarantined(226, payload)


@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
@pytest.mark.parametrize("msg_id", GOOD_TEXT)
def test_a_message_that_is_too_short(server_version: int, msg_id: int) -> None:
    fields = GOOD_TEXT[msg_id]
    for count in range(len(fields)):
        quarantined(server_version, text_payload(server_version, msg_id, *fields[:count]))


@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
@pytest.mark.parametrize("msg_id", GOOD_TEXT)
def test_a_last_field_without_its_end(server_version: int, msg_id: int) -> None:
    """A frame that was cut would give a number of fewer digits: never that."""
    quarantined(server_version, text_payload(server_version, msg_id, *GOOD_TEXT[msg_id])[:-1])


@pytest.mark.parametrize(
    "payload", [b"x\x001\0", b"1x\x006\0", b"12", b"\0", b"-1\x001\0", b"1 \x001\0", b"9999999999\x001\0"]
)
def test_an_ascii_id_that_is_none(payload: bytes) -> None:
    quarantined(176, payload)


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
def test_an_impossible_length_ends_the_stream(server_version: int, length: int) -> None:
    good = framed(marker(server_version), text_payload(server_version, 9, 1, 1), marker(server_version))
    data = good + struct.pack(">I", length) + framed(marker(server_version))
    decoded = Decoded(server_version)
    with pytest.raises(ProtocolError) as caught:
        decoded.give([data])
    assert caught.value.offset == len(good)
    assert caught.value.data.startswith(struct.pack(">I", length))
    assert decoded.rows["ticks"]["req_id"].tolist() == [MARKER, MARKER]
    assert [msg_id for msg_id, _, _ in decoded.messages] == [9]
    for chunk in (framed(marker(server_version)), b""):
        with pytest.raises(ProtocolError) as again:
            decoded.give([chunk])
        assert again.value.offset == len(good)
    assert decoded.rows["ticks"].size == 2


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_frame_too_short_for_its_raw_id_ends_the_stream(length: int) -> None:
    with pytest.raises(ProtocolError):
        decode(framed(marker(201)) + framed(b"\0" * length) + framed(marker(201)), 201)


def test_the_largest_length_is_no_error() -> None:
    decoder = Decoder(Feed(capacity=64), server_version=176)
    assert decoder.feed_bytes(struct.pack(">I", MAX_FRAME) + b"17\0") == 0


@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
@pytest.mark.parametrize(
    "trailing",
    [
        ("x",),
        ("",),
        ("", ""),
        ("", "", "5", "", "7"),
        ("", "", "", "", ""),
        (1, 2, 3),
        ("", "", "12", "", ""),
        ("0", "", "", "1"),
        ("", "", "", "9", "1"),
    ],
)
@pytest.mark.parametrize("msg_id", GOOD_TEXT)
def test_unknown_trailing_fields_are_tolerated(server_version: int, msg_id: int, trailing: tuple[object, ...]) -> None:
    plain = decode(framed(text_payload(server_version, msg_id, *GOOD_TEXT[msg_id])), server_version)
    payload = text_payload(server_version, msg_id, *GOOD_TEXT[msg_id], *trailing)
    assert decode(framed(payload), server_version).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("msg_id", GOOD_TEXT)
@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
@pytest.mark.parametrize("swallowed", [1, 2, 5])
@pytest.mark.parametrize("cut_nbytes", [0, 1, 7])
def test_a_frame_that_swallowed_others(msg_id: int, server_version: int, swallowed: int, cut_nbytes: int) -> None:
    """A length beyond what was written takes in the next frames, as a real TWS once did. Nothing may come of them."""
    good = framed(marker(server_version))
    body = text_payload(server_version, msg_id, *GOOD_TEXT[msg_id])
    followers = framed(*[text_payload(server_version, TICK_PRICE, 6, 9, 1, "99.5", 100, 0)] * swallowed)
    body += followers[: len(followers) - cut_nbytes]
    decoded = Decoded(server_version)
    # What the length left out of its last follower comes next, so that nothing is in step any more.
    rest = followers[len(followers) - cut_nbytes :]
    with pytest.raises(ProtocolError) as caught:
        decoded.give([good + framed(body) + rest + framed(marker(server_version))])
    assert caught.value.offset == len(good)
    assert decoded.rows["ticks"]["req_id"].tolist() == [MARKER]
    assert all(decoded.rows[ring].size == 0 for ring in ("trades", "quotes", "depth", "bars", "greeks"))


def test_the_quarantine_is_bounded_and_its_count_is_not() -> None:
    bad = text_payload(176, TICK_PRICE, 6, 1, 1, "x", 100, 0)
    decoder = Decoder(Feed(capacity=64), server_version=176)
    for _ in range(10):
        decoder.feed_bytes(framed(*[bad] * 500))
    assert decoder.quarantined == 5_000
    assert decoder.quarantine_dropped == 5_000 - 256
    kept = decoder.take_quarantine()
    assert 0 < len(kept) < 5_000
    assert kept[-1].offset == 4_999 * len(framed(bad))
    assert decoder.take_quarantine() == []
    assert decoder.quarantined == 5_000


@pytest.mark.parametrize("later_stage", [False, True])
def test_the_quarantine_is_bounded_in_bytes(later_stage: bool) -> None:
    decoder = Decoder(Feed(capacity=64), server_version=176)

    def give(nbytes: int) -> None:
        payload = text_payload(176, TICK_PRICE, 6, 1, 1, "x" * nbytes, 100, 0)
        if later_stage:
            decoder.quarantine(1, payload, "a field is not a number")
        else:
            decoder.feed_bytes(framed(payload))

    for _ in range(20):
        give(300_000)
    give(10_000_000)
    assert (decoder.quarantined, decoder.quarantine_dropped) == (21, 20)
    (cut,) = decoder.take_quarantine()
    assert (len(cut.payload), cut.reason) == (QUARANTINE_BYTES, "a field is not a number")
    for _ in range(20):
        give(300_000)
    assert decoder.quarantine_dropped == 20 + 17
    assert len(decoder.take_quarantine()) == 3


def test_a_quarantined_message_says_what_it_was() -> None:
    bad = text_payload(176, MARKET_DEPTH_L2, 1, 1, 0, "ARCA", 0, 1, "x", 100, 1)
    (entry,) = decode(framed(bad), 176).quarantine
    assert (entry.msg_id, entry.payload, entry.offset) == (MARKET_DEPTH_L2, bad, 0)
    assert "number" in entry.reason
    bad = protobuf_payload(MARKET_DEPTH_L2, b"\xff")
    (entry,) = decode(framed(bad), 226).quarantine
    assert (entry.msg_id, entry.payload, entry.offset) == (MARKET_DEPTH_L2, bad, 0)


@pytest.mark.parametrize("msg_id", [3, 9, 17, 47, 57, 58, 81, 84, 91, 92, 108, 111, 199, 200])
def test_other_ids_come_out_whole(msg_id: int) -> None:
    for server_version in TEXT_VERSIONS:
        payload = text_payload(server_version, msg_id, "a", "", b"\xff\xfe", 1)
        decoded = decode(framed(payload, marker(server_version)), server_version)
        assert decoded.messages == [(msg_id, b"a\0\0\xff\xfe\x001\0", False)]
    body = b"\xff\xff any bytes"
    decoded = decode(framed(protobuf_payload(msg_id, body), protobuf_payload(msg_id), marker(226)), 226)
    assert decoded.messages == [(msg_id, body, True), (msg_id, b"", True)]


def test_an_unknown_id_of_any_size_comes_out_whole() -> None:
    for wire_id in (0, 1234, 2**31 - 1):
        decoded = decode(framed(struct.pack(">I", wire_id) + b"abc", marker(226)), 226)
        is_protobuf = wire_id > PROTOBUF_OFFSET
        assert decoded.messages == [(wire_id - PROTOBUF_OFFSET if is_protobuf else wire_id, b"abc", is_protobuf)]


def test_unknown_tick_types_are_kept() -> None:
    payloads = [
        text_payload(176, TICK_PRICE, 6, 1, 777, "1.5", 100, 0),
        text_payload(176, TICK_SIZE, 6, 1, -5, 100),
        text_payload(176, TICK_GENERIC, 6, 1, 2147483647, "2.5"),
        text_payload(176, TICK_STRING, 6, 1, 778, "abc"),
    ]
    rows = decode(framed(*payloads), 176).rows["ticks"]
    assert rows["tick_type"].tolist() == [777, -5, 2147483647, 778]


def test_an_unknown_tick_by_tick_kind_comes_out_whole() -> None:
    payload = text_payload(176, TICK_BY_TICK, 1, 5, 1_700_000_000, "x")
    assert decode(framed(payload), 176).messages == [(TICK_BY_TICK, payload.partition(b"\0")[2], False)]
    payload = protobuf_payload(TICK_BY_TICK, int_field(1, 1), int_field(2, 5))
    assert decode(framed(payload), 226).messages == [(TICK_BY_TICK, payload[4:], True)]


def test_interned_texts_are_bounded() -> None:
    """Past the bound a text is the reserved one, and counted; the known ones keep their ids."""
    feed = Feed(capacity=128, max_texts=16)
    decoder = Decoder(feed, server_version=176)
    texts = [f"text {number}" for number in range(50)]
    for text in (*texts, "text 0", ""):
        decoder.feed_bytes(framed(text_payload(176, TICK_STRING, 6, 1, 84, text)))
    *ids, first_again, empty = feed.ticks.reader(start="oldest").read()["text"].tolist()
    known = [feed.texts[text_id] for text_id in ids if feed.texts[text_id] != "<other>"]
    assert 0 < len(known) < len(feed.texts) <= 16
    assert known == texts[: len(known)]
    assert [feed.texts[text_id] for text_id in ids[len(known) :]] == ["<other>"] * (50 - len(known))
    assert feed.texts.refused == 50 - len(known)
    assert first_again == ids[0]
    assert empty == 0


def test_long_texts_do_not_break_the_bound() -> None:
    feed = Feed(capacity=128, max_texts=16)
    payloads = [text_payload(176, TICK_STRING, 6, 1, 84, f"{number}" + "x" * 100_000) for number in range(3)]
    Decoder(feed, server_version=176).feed_bytes(framed(*payloads))
    ids = feed.ticks.reader(start="oldest").read()["text"].tolist()
    assert [feed.texts[text_id] for text_id in ids] == ["<other>"] * 3


def test_requests_that_nobody_bound_past_the_bound_are_counted_and_told_once() -> None:
    feed = Feed(capacity=128, max_instruments=8)
    decoder = Decoder(feed, server_version=176)
    for _ in range(2):
        decoder.feed_bytes(framed(*(text_payload(176, TICK_PRICE, 6, req_id, 1, "1.5", 9, 0) for req_id in range(20))))
    rows = feed.ticks.reader(start="oldest").read()
    assert rows["req_id"].tolist() == [*range(20)] * 2
    assert rows["price"].tolist() == [1.5] * 40
    assert rows["instrument"].tolist() == [0] * 8 + [NO_INSTRUMENT] * 12 + [0] * 8 + [NO_INSTRUMENT] * 12
    assert len(feed.quotes) == 8
    assert feed.instruments.refused == 24
    assert len([entry for entry in decoder.take_quarantine() if "instruments" in entry.reason]) == 1
    assert decoder.quarantined == 0


@pytest.mark.parametrize("server_version", [176, 201, 226])
def test_random_damage_loses_no_frame(server_version: int) -> None:
    """Bytes changed inside payloads: each frame is a record, or quarantined, or handed out; none vanishes."""
    rng = random.Random(server_version)
    for seed in range(30):
        payloads = [bytearray(message.payload) for message in random_messages(seed, server_version, 100)]
        for payload in payloads:
            for _ in range(rng.choice((0, 1, 3))):
                payload[rng.randrange(len(payload))] = rng.randrange(256)
        decoded = Decoded(server_version)
        try:
            decoded.give([framed(*payloads)])
        except ProtocolError:
            continue
        rows = decoded.rows
        primary = rows["ticks"].size + rows["depth"].size + rows["bars"].size + rows["greeks"].size
        primary += int(np.isin(rows["trades"]["kind"], (5, 6)).sum() + np.isin(rows["quotes"]["kind"], (9, 10)).sum())
        assert decoded.count == len(payloads)
        assert primary + decoded.decoder.quarantined + len(decoded.messages) == len(payloads)


def test_every_kind_of_message_was_tried() -> None:
    assert set(GOOD_TEXT) == set(MAKERS)


@pytest.mark.parametrize("trailing", [("", "", "", "512"), ("", "", "5", "12")])
@pytest.mark.parametrize("server_version", TEXT_VERSIONS)
def test_trailing_fields_that_look_like_a_cut_frame(server_version: int, trailing: tuple[str, ...]) -> None:
    """What follows in step shows that nothing was swallowed."""
    payload = text_payload(server_version, TICK_PRICE, 6, 1, 1, "1.5", 100, 0, *trailing)
    decoded = decode(framed(payload, payload, marker(server_version)), server_version)
    assert decoded.rows["ticks"]["req_id"].tolist() == [1, 1, MARKER]
    bad = text_payload(server_version, TICK_PRICE, 6, 1, 1, "bad", *trailing)
    quarantined(server_version, bad)


def test_more_bytes_than_there_was_room_for() -> None:
    decoder = Decoder(Feed(capacity=64), server_version=176)
    room = len(decoder.get_buffer())
    with pytest.raises(ValueError, match="do not fit"):
        decoder.buffer_updated(1 << 30)
    assert room > 0
    assert decoder.feed_bytes(framed(marker(176))) == 1


@pytest.mark.parametrize("server_version", [0, 156, 227])
def test_server_versions_that_no_gateway_agrees_on(server_version: int) -> None:
    with pytest.raises(ValueError, match="157 to 226"):
        Decoder(Feed(capacity=64), server_version=server_version)
