"""Payloads of the gateway, taken apart, and fields that damaged ones are made of."""

from __future__ import annotations

from ibfast.wire import response_bytes
from ibfast.wire.responses import Response

__all__ = ["FIELDS", "decoded", "split_id"]

FIELDS = [b"\0", b"1\0", b"-1\0", b"2\0", b"20240109\0", b"x\0", b"1e400\0", b"99999999999999999999\0", b"\xff\0"]
"""Fields of text messages: absent, possible and impossible ones."""


def split_id(payload: bytes, server_version: int) -> tuple[int, bytes, bool]:
    """Return the message id, the body, and whether the body is protobuf."""
    if server_version < 201:
        field, _, body = payload.partition(b"\0")
        return int(field), body, False
    wire_id = int.from_bytes(payload[:4], "big")
    return (wire_id - 200, payload[4:], True) if wire_id > 200 else (wire_id, payload[4:], False)


def decoded(payload: bytes, server_version: int) -> Response:
    """Return the message that a payload holds."""
    return response_bytes.decode(*split_id(payload, server_version), server_version)
