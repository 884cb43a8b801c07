"""WebSocket frames of a server, complete with header: built once, written to many.

The rule of the file: bytes in, bytes out. A deflated frame refers to nothing before it (permessage-deflate without
context takeover), so that everybody who has negotiated that can read it.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import zlib

__all__ = ["DEFLATE_WINDOW_BITS", "deflated_text_frame", "text_frame"]

FIN = 0x80
RSV1 = 0x40
TEXT = 0x01
SHORT = 126
LONG = 1 << 16
EMPTY_BLOCK = b"\x00\x00\xff\xff"

DEFLATE_WINDOW_BITS = 12
"""What is negotiated with everybody who offers it; a client that wants a smaller window gets plain frames."""

DEFLATE_LEVEL = 1
LEAST_DEFLATED = 256


def text_frame(payload: bytes) -> bytes:
    """Return a text message in one frame."""
    return _framed(FIN | TEXT, payload)


def deflated_text_frame(payload: bytes) -> bytes:
    """Return a text message in one frame, deflated if it is long enough to be worth it."""
    if len(payload) < LEAST_DEFLATED:
        return _framed(FIN | TEXT, payload)
    compressor = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -DEFLATE_WINDOW_BITS)
    deflated = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return _framed(FIN | RSV1 | TEXT, deflated.removesuffix(EMPTY_BLOCK))


def _framed(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < SHORT:
        header = bytes((first, length))
    elif length < LONG:
        header = bytes((first, SHORT)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, SHORT + 1)) + length.to_bytes(8, "big")
    return header + payload
