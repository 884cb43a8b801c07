"""Protobuf on plain dicts, driven by the tables of `schema`.

The rule of the file: what is on the wire is in the dict and nothing else. A field that is absent is absent in the dict;
unknown fields are skipped. Input is hostile: every length is checked against its outer bound, and the depth is that of
the schema, which has no cycles.

google's protobuf package does not serve here: it allows one version per process, which the ibapi of the same process
pins, and it refuses strings that are not valid UTF-8, which gateways do send.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from ibfast.errors import DecodeError
from ibfast.wire import schema
from ibfast.wire.protobuf_ids import PROTOBUF_OFFSET
from ibfast.wire.text import ID_LENGTH, size_to_field

__all__ = ["decode", "decode_in_part", "encode", "field_writer", "message_id", "payload", "varint"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPE_BITS = 3
_WIRE_TYPE_MASK = 7
_MAX_VARINT_LENGTH = 10
_PAYLOAD_BITS, _PAYLOAD_MASK, _CONTINUES = 7, 0x7F, 0x80
_ONE_BYTE = [bytes((value,)) for value in range(_CONTINUES)]
_UINT64_MASK = 2**64 - 1
_UINT32_MASK = 2**32 - 1
_MAX_TAG = _UINT32_MASK
_DOUBLE = struct.Struct("<d")
_MAP_ENTRY = "MapEntry"
SHOWN_BYTES = 16


class _Field(NamedTuple):
    name: str
    number: int
    type: str
    repeated: bool
    wire_type: int


def encode(message: str, values: Mapping[str, Any]) -> bytes:
    """Write a message.

    Args:
        message: its name in the schema.
        values: field name → value; what is missing or None is absent. Nested messages are dicts, repeated fields lists,
            maps dicts.

    Raises:
        KeyError: there is no such message or field.
    """
    fields = _fields_by_name(message)
    parts = [
        _encode_field(fields[name], value)
        for name, value in sorted(values.items(), key=lambda item: fields[item[0]].number)
        if value is not None
    ]
    return b"".join(parts)


def decode(message: str, data: bytes) -> dict[str, Any]:
    """Read a message into a dict.

    Raises:
        DecodeError: the bytes are malformed.
        KeyError: there is no such message.
    """
    values: dict[str, Any] = {}
    _decode_into(values, message, data)
    return values


def decode_in_part(message: str, data: bytes) -> dict[str, Any]:
    """Return the fields of a message that stand before its first malformed byte."""
    values: dict[str, Any] = {}
    with suppress(DecodeError):
        _decode_into(values, message, data)
    return values


def payload(msg_id: int, message: str, values: Mapping[str, Any]) -> bytes:
    """Return the payload of a protobuf message: its id and its body."""
    return message_id(msg_id) + encode(message, values)


def message_id(msg_id: int) -> bytes:
    """Return the id of a protobuf message as it begins the payload."""
    return (msg_id + PROTOBUF_OFFSET).to_bytes(ID_LENGTH, "big")


def field_writer(message: str, name: str) -> tuple[bytes, Callable[[Any], bytes]]:
    """Return a field's tag and the function that writes its value, for code that has no time for `encode`.

    The value of a field that is a message is its body as bytes. Repeated fields and maps are not for this function.
    """
    field = _fields_by_name(message)[name]
    scalar = _SCALARS.get(field.type)
    return _tag(field), scalar.encode if scalar else _delimited


def varint(value: int) -> bytes:
    """Return an integer as a varint; a negative one takes ten bytes."""
    if 0 <= value < _CONTINUES:
        return _ONE_BYTE[value]
    value &= _UINT64_MASK
    out = bytearray()
    while value >= _CONTINUES:
        out.append(value & _PAYLOAD_MASK | _CONTINUES)
        value >>= _PAYLOAD_BITS
    out.append(value)
    return bytes(out)


@cache
def _fields_by_name(message: str) -> dict[str, _Field]:
    fields = {}
    for item in schema.MESSAGES[message].split():
        name, number, type_name = item.split(":")
        repeated = type_name.endswith("*")
        type_name = type_name.rstrip("*")
        scalar = _SCALARS.get(type_name)
        fields[name] = _Field(name, int(number), type_name, repeated, _BYTES if scalar is None else scalar.wire_type)
    return fields


@cache
def _fields_by_number(message: str) -> dict[int, _Field]:
    return {field.number: field for field in _fields_by_name(message).values()}


def _tag(field: _Field) -> bytes:
    return varint(field.number << _WIRE_TYPE_BITS | field.wire_type)


def _encode_field(field: _Field, value: Any) -> bytes:
    tag = _tag(field)
    if field.type == "map":
        entries = ({"key": key, "value": text} for key, text in value.items())
        return b"".join(tag + _delimited(encode(_MAP_ENTRY, entry)) for entry in entries)
    scalar = _SCALARS.get(field.type)
    if not field.repeated:
        return tag + (scalar.encode(value) if scalar else _delimited(encode(field.type, value)))
    if scalar is None:
        return b"".join(tag + _delimited(encode(field.type, item)) for item in value)
    if field.wire_type == _BYTES:
        return b"".join(tag + scalar.encode(item) for item in value)
    packed = varint(field.number << _WIRE_TYPE_BITS | _BYTES)
    return packed + _delimited(b"".join(map(scalar.encode, value))) if value else b""


def _delimited(data: bytes) -> bytes:
    return varint(len(data)) + data


def _decode_into(values: dict[str, Any], message: str, data: bytes) -> None:
    fields = _fields_by_number(message)
    position, end = 0, len(data)
    while position < end:
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> _WIRE_TYPE_BITS, tag & _WIRE_TYPE_MASK
        if number == 0 or tag > _MAX_TAG:
            raise DecodeError(f"{message} has a field of number {number}")
        field = fields.get(number)
        name = f"field {number}" if field is None else field.name
        try:
            raw, position = _read_raw(data, position, wire_type)
        except DecodeError as error:
            shown = data[position : position + SHOWN_BYTES].hex(" ")
            raise DecodeError(f"{message}.{name}: {error.reason}: {shown}", field=name, value=shown) from None
        if field is not None:
            _store(values, field, wire_type, raw)


def _read_raw(data: bytes, position: int, wire_type: int) -> tuple[Any, int]:
    if wire_type == _VARINT:
        return _read_varint(data, position)
    if wire_type == _BYTES:
        length, position = _read_varint(data, position)
    elif wire_type == _FIXED64:
        length = 8
    elif wire_type == _FIXED32:
        length = 4
    else:
        raise DecodeError(f"wire type {wire_type}")
    end = position + length
    if end > len(data):
        raise DecodeError(f"a field of {length} bytes, but {len(data) - position} follow")
    return data[position:end], end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[position : position + _MAX_VARINT_LENGTH]):
        value |= (byte & _PAYLOAD_MASK) << _PAYLOAD_BITS * shift
        if byte < _CONTINUES:
            return value & _UINT64_MASK, position + shift + 1
    raise DecodeError("a varint that does not end")


def _store(values: dict[str, Any], field: _Field, wire_type: int, raw: Any) -> None:
    # A field of another wire type than the schema's is an unknown one, as in IB's own parser.
    scalar = _SCALARS.get(field.type)
    if field.repeated and scalar and wire_type == _BYTES != field.wire_type:
        values.setdefault(field.name, []).extend(map(scalar.decode, _unpack(raw, field.wire_type)))
    elif wire_type != field.wire_type:
        return
    elif field.type == "map":
        entry = decode(_MAP_ENTRY, raw)
        values.setdefault(field.name, {})[entry.get("key", "")] = entry.get("value", "")
    elif scalar:
        if field.repeated:
            values.setdefault(field.name, []).append(scalar.decode(raw))
        else:
            values[field.name] = scalar.decode(raw)
    elif field.repeated:
        values.setdefault(field.name, []).append(decode(field.type, raw))
    else:
        _decode_into(values.setdefault(field.name, {}), field.type, raw)


def _unpack(data: bytes, wire_type: int) -> list[Any]:
    items = []
    position = 0
    while position < len(data):
        item, position = _read_raw(data, position, wire_type)
        items.append(item)
    return items


def _encode_text(value: Any) -> bytes:
    # A number in a field of text is a size or the like, and written as in the text dialects.
    return _delimited((value if isinstance(value, str) else size_to_field(value)).encode())


class _Scalar(NamedTuple):
    wire_type: int
    encode: Callable[[Any], bytes]
    decode: Callable[[Any], Any]


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


_SCALARS = {
    "double": _Scalar(_FIXED64, _DOUBLE.pack, lambda raw: _DOUBLE.unpack(raw)[0]),
    "int32": _Scalar(_VARINT, varint, lambda raw: _signed(raw, 32)),
    "int64": _Scalar(_VARINT, varint, lambda raw: _signed(raw, 64)),
    "bool": _Scalar(_VARINT, lambda value: b"\1" if value else b"\0", bool),
    "string": _Scalar(_BYTES, _encode_text, lambda raw: raw.decode(errors="replace")),
}
