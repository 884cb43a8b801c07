"""Byte streams of market data for the decoder's tests.

The rule of the file: bytes are made here by hand, from the layouts of the wire, and not with the package's own
encoders, so that a mistake in those can't hide one in the decoder; and so that wrong bytes can be made too.
Wire values are what stands in a field: text in the text dialects; int, float, str or None (absent) in protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

RAW_ID_SINCE = 201
PROTOBUF_OFFSET = 200
MAX_FRAME = 0xFFFFFF

TICK_PRICE, TICK_SIZE, MARKET_DEPTH, MARKET_DEPTH_L2, TICK_OPTION = 1, 2, 12, 13, 21
TICK_GENERIC, TICK_STRING, REAL_TIME_BAR, BAR_UPDATE, TICK_BY_TICK = 45, 46, 50, 90, 99


def framed(*payloads: bytes) -> bytes:
    """Return the payloads as frames, each behind its length."""
    return b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)


def text_payload(server_version: int, msg_id: int, *fields: object) -> bytes:
    """Return a text message; a field may be bytes, or anything with a plain `str`."""
    body = b"".join((field if isinstance(field, bytes) else str(field).encode()) + b"\0" for field in fields)
    if server_version >= RAW_ID_SINCE:
        return struct.pack(">I", msg_id) + body
    return b"%d\0" % msg_id + body


def protobuf_payload(msg_id: int, *fields: bytes) -> bytes:
    """Return a protobuf message of fields made with the functions below."""
    return struct.pack(">I", msg_id + PROTOBUF_OFFSET) + b"".join(fields)


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it; a negative one takes ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def int_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def double_field(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def bytes_field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


Value = int | float | str | None
"""What stands on the wire. Text dialects: str. Protobuf: int, float or str, None where the field is absent."""


class Message(NamedTuple):
    """A message, the values in it by name, and its bytes (without the length)."""

    msg_id: int
    is_protobuf: bool
    values: Mapping[str, Any]
    payload: bytes


_TEXT_VERSION = {
    TICK_PRICE: "6",
    TICK_SIZE: "6",
    MARKET_DEPTH: "1",
    MARKET_DEPTH_L2: "1",
    TICK_GENERIC: "6",
    TICK_STRING: "6",
    REAL_TIME_BAR: "3",
}
"""The obsolete version field that follows the id of some messages."""

_TEXT_ORDER = {
    TICK_PRICE: "req_id tick_type price size attribs",
    TICK_SIZE: "req_id tick_type size",
    MARKET_DEPTH: "req_id position operation side price size",
    MARKET_DEPTH_L2: "req_id position market_maker operation side price size attribs",
    TICK_OPTION: "req_id tick_type attribs implied_vol delta option_price pv_dividend gamma vega theta und_price",
    TICK_GENERIC: "req_id tick_type price",
    TICK_STRING: "req_id tick_type text",
    REAL_TIME_BAR: "req_id time open high low close volume wap count",
    BAR_UPDATE: "req_id count time open close high low wap volume",
}

_TEXT_BY_TICK_ORDER = {
    1: "req_id tick_type time price size attribs exchange conditions",
    2: "req_id tick_type time price size attribs exchange conditions",
    3: "req_id tick_type time bid ask bid_size ask_size attribs",
    4: "req_id tick_type time price",
}

_PROTOBUF_FIELDS: dict[int, dict[str, tuple[int, ...]]] = {
    TICK_PRICE: {"req_id": (1,), "tick_type": (2,), "price": (3,), "size": (4,), "attribs": (5,)},
    TICK_SIZE: {"req_id": (1,), "tick_type": (2,), "size": (3,)},
    MARKET_DEPTH: {
        "req_id": (1,),
        "position": (2, 1),
        "operation": (2, 2),
        "side": (2, 3),
        "price": (2, 4),
        "size": (2, 5),
    },
    MARKET_DEPTH_L2: {
        "req_id": (1,),
        "position": (2, 1),
        "operation": (2, 2),
        "side": (2, 3),
        "price": (2, 4),
        "size": (2, 5),
        "market_maker": (2, 6),
        "attribs": (2, 7),
    },
    TICK_OPTION: {
        "req_id": (1,),
        "tick_type": (2,),
        "attribs": (3,),
        "implied_vol": (4,),
        "delta": (5,),
        "option_price": (6,),
        "pv_dividend": (7,),
        "gamma": (8,),
        "vega": (9,),
        "theta": (10,),
        "und_price": (11,),
    },
    TICK_GENERIC: {"req_id": (1,), "tick_type": (2,), "price": (3,)},
    TICK_STRING: {"req_id": (1,), "tick_type": (2,), "text": (3,)},
    REAL_TIME_BAR: {
        "req_id": (1,),
        "time": (2,),
        "open": (3,),
        "high": (4,),
        "low": (5,),
        "close": (6,),
        "volume": (7,),
        "wap": (8,),
        "count": (9,),
    },
    BAR_UPDATE: {
        "req_id": (1,),
        "time": (2, 1),
        "open": (2, 2),
        "high": (2, 3),
        "low": (2, 4),
        "close": (2, 5),
        "volume": (2, 6),
        "wap": (2, 7),
        "count": (2, 8),
    },
}

_PROTOBUF_BY_TICK_FIELDS: dict[int, dict[str, tuple[int, ...]]] = {
    1: {
        "req_id": (1,),
        "tick_type": (2,),
        "time": (3, 1),
        "past_limit": (3, 2, 1),
        "unreported": (3, 2, 2),
        "price": (3, 3),
        "size": (3, 4),
        "exchange": (3, 5),
        "conditions": (3, 6),
    },
    3: {
        "req_id": (1,),
        "tick_type": (2,),
        "time": (4, 1),
        "bid_past_low": (4, 2, 1),
        "ask_past_high": (4, 2, 2),
        "bid": (4, 3),
        "ask": (4, 4),
        "bid_size": (4, 5),
        "ask_size": (4, 6),
    },
    4: {"req_id": (1,), "tick_type": (2,), "time": (5, 1), "price": (5, 2), "size": (5, 3)},
}
_PROTOBUF_BY_TICK_FIELDS[2] = _PROTOBUF_BY_TICK_FIELDS[1]


def _field(number: int, value: int | float | str) -> bytes:
    if isinstance(value, str):
        return bytes_field(number, value)
    if isinstance(value, float):
        return double_field(number, value)
    return int_field(number, value)


def _protobuf_body(fields: Mapping[tuple[int, ...], Any]) -> bytes:
    """Write the fields at their paths, (2, 4) being field 4 of the message in field 2."""
    out, inner = b"", {}
    for path, value in fields.items():
        if len(path) == 1:
            out += _field(path[0], value)
        else:
            inner.setdefault(path[0], {})[path[1:]] = value
    return out + b"".join(bytes_field(number, _protobuf_body(fields)) for number, fields in inner.items())


def message(server_version: int, msg_id: int, values: Mapping[str, Any], is_protobuf: bool = False) -> Message:
    """Encode wire values in the order that the message has in this dialect.

    Text needs every value of its layout; protobuf leaves out those that are None or missing.
    """
    by_tick = int(values["tick_type"] or 0) if msg_id == TICK_BY_TICK else 0
    if not is_protobuf:
        order = _TEXT_BY_TICK_ORDER[by_tick] if by_tick else _TEXT_ORDER[msg_id]
        version = (_TEXT_VERSION[msg_id],) if msg_id in _TEXT_VERSION else ()
        payload = text_payload(server_version, msg_id, *version, *(values[name] for name in order.split()))
        return Message(msg_id, False, values, payload)
    paths = _PROTOBUF_BY_TICK_FIELDS[by_tick] if by_tick else _PROTOBUF_FIELDS[msg_id]
    present = {path: values[name] for name, path in paths.items() if values.get(name) is not None}
    return Message(msg_id, True, values, protobuf_payload(msg_id, _protobuf_body(present)))


def parse_text(server_version: int, payload: bytes) -> Message:
    """Split a text message of the tick path into its wire values."""
    if server_version >= RAW_ID_SINCE:
        msg_id, body = int.from_bytes(payload[:4], "big"), payload[4:]
    else:
        head, _, body = payload.partition(b"\0")
        msg_id = int(head)
    fields = body.decode().split("\0")
    order = _TEXT_BY_TICK_ORDER[int(fields[1])] if msg_id == TICK_BY_TICK else _TEXT_ORDER[msg_id]
    values = fields[1:] if msg_id in _TEXT_VERSION else fields
    return Message(msg_id, False, dict(zip(order.split(), values, strict=False)), payload)


def _present_paths(data: bytes, inner: set[int]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield the path and the raw value of every field, descending into the fields `inner`."""
    start = 0

    def read_varint() -> int:
        nonlocal start
        value = shift = 0
        while True:
            byte = data[start]
            start += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while start < len(data):
        tag = read_varint()
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            yield (number,), read_varint()
            continue
        length = 8 if wire_type == 1 else read_varint()
        part = data[start : start + length]
        start += length
        if number in inner and wire_type == 2:
            yield from (((number, *path), value) for path, value in _present_paths(part, {2}))
        else:
            yield (number,), part if wire_type == 1 else part.decode()


def parse_protobuf(payload: bytes) -> Message:
    """Tell which fields a protobuf message of the tick path has; a value that is absent is None."""
    msg_id = int.from_bytes(payload[:4], "big") - PROTOBUF_OFFSET
    inner = {MARKET_DEPTH: {2}, MARKET_DEPTH_L2: {2}, BAR_UPDATE: {2}, TICK_BY_TICK: {3, 4, 5}}.get(msg_id, set())
    present = dict(_present_paths(payload[4:], inner))
    paths = _PROTOBUF_BY_TICK_FIELDS[present[2,]] if msg_id == TICK_BY_TICK else _PROTOBUF_FIELDS[msg_id]
    return Message(msg_id, True, {name: present.get(path) for name, path in paths.items()}, payload)
