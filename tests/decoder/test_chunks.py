"""However a stream is cut, the same comes out of it: whole, byte by byte, and in random chunks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.errors import ProtocolError
from tests.support.decoded import Decoded
from tests.support.streams import (
    TICK_BY_TICK,
    TICK_PRICE,
    bytes_field,
    double_field,
    framed,
    int_field,
    protobuf_payload,
    text_payload,
)
from tests.support.tick_streams import random_messages

VERSIONS = (157, 176, 200, 201, 206, 226)
BROKEN_FRAMES = (b"\0\0\0\0", b"\x01\0\0\0", b"\xff\xff\xff\xff", b"\x80\0\0\0abc")
READ_NBYTES = 1 << 18


def others(server_version: int) -> list[bytes]:
    """Messages that make no record: other ids, unknown ones, malformed ones."""
    payloads = [
        text_payload(server_version, 9, 1, 1),
        text_payload(server_version, 15, 1, "DU1,DU2"),
        text_payload(server_version, 4, 2, -1, 2104, "Market data farm connection is OK:usfarm"),
        text_payload(server_version, 199, "unknown"),
        text_payload(server_version, TICK_PRICE, 6, 1, 1, "1.x", 100, 0),
        text_payload(server_version, TICK_PRICE, 6, 1, 1),
        text_payload(server_version, TICK_BY_TICK, 1, 9, 1_700_000_000, "1.5"),
        text_payload(server_version, 17, "x" * 5000),
    ]
    if server_version >= 201:
        payloads += [
            protobuf_payload(9),
            protobuf_payload(4, int_field(1, -1), int_field(3, 2104), bytes_field(4, "farm")),
            protobuf_payload(TICK_PRICE, bytes_field(3, "wrong wire type")),
            protobuf_payload(TICK_PRICE, b"\xff" * 12),
            protobuf_payload(TICK_PRICE, int_field(99, 1), double_field(3, 1.5)),
        ]
    return payloads


def stream(seed: int, server_version: int, count: int) -> bytes:
    """A stream of tick-path messages with others among them."""
    rng = random.Random(seed)
    aside = others(server_version)
    payloads = []
    for message in random_messages(seed, server_version, count):
        payloads.append(message.payload)
        if rng.random() < 0.3:
            payloads.append(rng.choice(aside))
    return framed(*payloads)


def cut(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]


@settings(max_examples=60)
@given(
    st.integers(0, 2**32), st.sampled_from(VERSIONS), st.integers(0, 40), st.lists(st.integers(0, 2**20), max_size=30)
)
def test_whole_bytes_and_chunks_agree(seed: int, server_version: int, count: int, cuts: list[int]) -> None:
    data = stream(seed, server_version, count)
    whole = Decoded(server_version).give([data])
    assert Decoded(server_version).give(cut(data, cuts)).fingerprint() == whole.fingerprint()
    by_byte = Decoded(server_version).give(data[i : i + 1] for i in range(len(data)))
    assert by_byte.fingerprint() == whole.fingerprint()


@settings(max_examples=40)
@given(
    st.integers(0, 2**32),
    st.sampled_from(VERSIONS),
    st.sampled_from(BROKEN_FRAMES),
    st.lists(st.integers(0, 2**20), max_size=12),
)
def test_a_stream_breaks_at_the_same_byte(seed: int, server_version: int, broken: bytes, cuts: list[int]) -> None:
    good = stream(seed, server_version, 10)
    data = good + broken + stream(seed + 1, server_version, 3)
    results = []
    for chunks in ([data], cut(data, cuts), (data[i : i + 1] for i in range(len(data)))):
        decoded = Decoded(server_version)
        with pytest.raises(ProtocolError) as caught:
            decoded.give(chunks)
        fingerprint = decoded.fingerprint()
        del fingerprint["counts"]  # the raising call returns no count
        results.append((caught.value.offset, decoded.decoder.messages, fingerprint))
    assert results[0][0] == len(good)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("server_version", VERSIONS)
def test_reads_into_the_decoders_own_buffer(server_version: int) -> None:
    """What the event loop does: fill `get_buffer` in reads of any size, then call `buffer_updated`."""
    data = stream(7, server_version, 300) + framed(*[text_payload(server_version, 17, "x" * 900)] * 2_000)
    whole = Decoded(server_version).give([data])
    rng = random.Random(server_version)
    decoded = Decoded(server_version)
    start = 0
    while start < len(data):
        view = decoded.decoder.get_buffer(-1)
        assert len(view) > 0
        nbytes = min(rng.choice((1, 3, 17, 1500, READ_NBYTES)), len(view), len(data) - start)
        view[:nbytes] = data[start : start + nbytes]
        decoded.count += decoded.decoder.buffer_updated(nbytes, 0)
        decoded.collect()
        start += nbytes
    assert decoded.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("nbytes", [READ_NBYTES - 8, READ_NBYTES, READ_NBYTES + 1, 5 * READ_NBYTES, 0xFFFFFF - 8])
def test_a_long_message_arrives_whole(nbytes: int) -> None:
    body = random.Random(nbytes).randbytes(nbytes).replace(b"\0", b"\1")
    data = framed(text_payload(201, 19, body), text_payload(201, TICK_PRICE, 6, 1, 1, "1.5", 100, 0))
    for chunk_nbytes in (len(data), 65_536, READ_NBYTES - 1):
        decoded = Decoded(201).give(data[i : i + chunk_nbytes] for i in range(0, len(data), chunk_nbytes))
        assert decoded.messages == [(19, body + b"\0", False)]
        assert decoded.rows["ticks"]["price"].tolist() == [1.5]


def test_any_bytes_like_object_is_taken() -> None:
    data = stream(1, 176, 50)
    wanted = Decoded(176).give([data]).fingerprint()
    for form in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
        assert Decoded(176).give([form]).fingerprint() == wanted


def test_the_time_of_arrival_is_that_of_the_chunk_that_completes_the_message() -> None:
    decoded = Decoded(176)
    data = framed(text_payload(176, TICK_PRICE, 6, 1, 1, "1.5", 100, 0))
    decoded.give([data[:10]], recv_ns=1)
    decoded.give([data[10:] + data], recv_ns=2)
    assert decoded.rows["ticks"]["recv_ns"].tolist() == [2, 2]
