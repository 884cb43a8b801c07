"""What must hold for any bytes at all, and how a fuzzer's input becomes a stream.

The rule of the file: plain checks, no fuzzer. The first byte of an input chooses the server version, the second how the
stream is cut, the third the form of the rest: a stream as it is, or payloads that get their frames here, so that a
fuzzer need not guess lengths.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import numpy as np

from ibfast import Kind
from ibfast.errors import ProtocolError
from tests.support.decoded import Decoded
from tests.support.streams import RAW_ID_SINCE

VERSIONS = (157, 176, 200, 201, 206, 226)
HEAD_NBYTES = 3
MAX_FRAME = 0xFFFFFF
MAX_CHUNK_NBYTES = 64
DERIVED_KINDS = (Kind.RT_VOLUME, Kind.L1_LAST, Kind.L1_QUOTE)
"""Rows that stand beside another row of the same message."""


def stream_of(data: bytes) -> tuple[int, random.Random, bytes]:
    """Return the server version, the source of the cuts, and the stream that an input stands for."""
    version, seed, form = (*data[:HEAD_NBYTES], 0, 0, 0)[:HEAD_NBYTES]
    rest = data[HEAD_NBYTES:]
    stream = rest if form & 1 else b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads_of(rest))
    return VERSIONS[version % len(VERSIONS)], random.Random(seed), stream


def input_of(server_version: int, seed: int, payloads: list[bytes]) -> bytes:
    """Return the input that stands for these payloads, each shorter than 65,536 bytes."""
    parts = [struct.pack(">H", len(payload)) + payload for payload in payloads]
    return bytes((VERSIONS.index(server_version), seed, 0)) + b"".join(parts)


def payloads_of(data: bytes) -> Iterator[bytes]:
    """Cut an input into what stands behind each length of two bytes."""
    start = 0
    while start + 2 <= len(data):
        end = start + 2 + struct.unpack_from(">H", data, start)[0]
        yield data[start + 2 : end]
        start = end


def frames_before_break(stream: bytes, server_version: int) -> tuple[int, int | None]:
    """Walk over the lengths alone; return the whole frames and the offset of the first impossible one, if any."""
    shortest = 4 if server_version >= RAW_ID_SINCE else 1
    frames = start = 0
    while start + 4 <= len(stream):
        (length,) = struct.unpack_from(">I", stream, start)
        if not shortest <= length <= MAX_FRAME:
            return frames, start
        if start + 4 + length > len(stream):
            break
        frames += 1
        start += 4 + length
    return frames, None


def offset_of_break(decoded: Decoded, chunk: bytes) -> int | None:
    """Decode a chunk; return the offset that a ProtocolError named, if there was one. Nothing else may be raised."""
    try:
        decoded.give([chunk])
    except ProtocolError as error:
        return error.offset
    return None


def decoded_of(chunks: list[bytes], server_version: int) -> tuple[Decoded, int | None]:
    """Decode until the end or the break; return what came out, and where it broke."""
    decoded = Decoded(server_version, capacity=1 << 10)
    for chunk in chunks:
        broken_at = offset_of_break(decoded, chunk)
        if broken_at is not None:
            assert offset_of_break(decoded, b"\0") == broken_at, "a broken stream went on"
            return decoded, broken_at
    return decoded, None


def random_cuts(stream: bytes, rng: random.Random) -> list[bytes]:
    """Cut the stream into short chunks."""
    chunks, start = [], 0
    while start < len(stream):
        end = start + rng.randrange(1, MAX_CHUNK_NBYTES)
        chunks.append(stream[start:end])
        start = end
    return chunks


def check(data: bytes) -> None:
    """Assert all that holds for any input."""
    server_version, rng, stream = stream_of(data)
    whole, broken_at = decoded_of([stream], server_version)
    cut, cut_broken_at = decoded_of(random_cuts(stream, rng), server_version)
    assert broken_at == cut_broken_at
    fingerprints = [decoded.fingerprint() for decoded in (whole, cut)]
    for fingerprint in fingerprints:
        del fingerprint["counts"]  # a call that raises returns no count
    assert fingerprints[0] == fingerprints[1]

    frames, impossible_at = frames_before_break(stream, server_version)
    if broken_at == impossible_at:
        assert whole.decoder.messages == frames
    else:  # a frame that swallowed its followers ends a stream before its lengths do
        assert broken_at is not None
        assert impossible_at is None or broken_at < impossible_at
        frames, _ = frames_before_break(stream[:broken_at], server_version)
        assert whole.decoder.messages == frames
    own_rows = sum(int((~np.isin(rows["kind"], DERIVED_KINDS)).sum()) for rows in whole.rows.values())
    assert own_rows + whole.decoder.quarantined + len(whole.messages) == frames
