"""How flat messages are written, as data, and the functions that read and write by it.

The rule of the file: a message is a dataclass, and its `Layout` says once in which order its fields stand in the text
dialects and what they are called in protobuf. Clients and the embedded gateway go by the same layouts, in opposite
directions; a field is read as the type it is annotated with (annotations are strings here, for no module of messages
evaluates them). What is not flat, lists of bars say, is written elsewhere.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from ibfast.contracts import Contract
from ibfast.wire.ids import ServerVersion
from ibfast.wire.instruments import (
    CONTRACT_PARTS,
    contract_from_protobuf,
    contract_text,
    contract_to_protobuf,
    read_contract_part,
)
from ibfast.wire.text import UNSET, FieldReader, escape, parse_number, unescape

__all__ = [
    "Layout",
    "items",
    "protobuf_value",
    "read_item",
    "read_protobuf",
    "read_text",
    "write_item",
    "write_protobuf",
    "write_text",
]

_Message = TypeVar("_Message")

_EMPTY = "-"
_ESCAPED = "~"
_CONTRACT = "contract"
_NO_REQUEST = -1
_ABSENT = {"str": "", "int": 0, "bool": False, "float": math.nan, "float | None": None, "Contract": Contract()}


@dataclass(frozen=True, slots=True)
class Layout:
    """How one message is written.

    Attributes:
        msg_id: its id.
        message: the name of its protobuf message.
        text: what stands in the text message, see `items`.
        names: attribute → field of the protobuf message.
        since: the first server version that knows the message.
        defaults: what an attribute is where protobuf has no such field, if not "", 0, False, or NaN; a `req_id` is -1.
    """

    msg_id: int
    message: str
    text: str
    names: Mapping[str, str]
    since: int = ServerVersion.MIN
    defaults: Mapping[str, object] = field(default_factory=dict)


@cache
def items(text: str, server_version: int) -> tuple[str, ...]:
    """Return what stands in a text message at a server version, in order.

    A number is a constant, `-` a field without use, `contract`, `legs` and `hedge` are parts of a contract, everything
    else is an attribute, with `~` one whose text is escaped. `item>=version` stands there from that version on,
    `item<version` below it; the two may be combined.
    """
    return tuple(name for name, since, until in map(_bounds, text.split()) if since <= server_version < until)


def _bounds(item: str) -> tuple[str, float, float]:
    item, _, until = item.partition("<")
    name, _, since = item.partition(">=")
    return name, float(since or 0), float(until or math.inf)


def write_text(message: Any, text: str, server_version: int) -> Iterator[object]:
    """Yield the fields of a text message that is laid out like `text`."""
    for item in items(text, server_version):
        if item in CONTRACT_PARTS:
            yield from contract_text(item, message.contract)
        else:
            yield write_item(message, item)


def read_text(message_type: type[_Message], text: str, reader: FieldReader, server_version: int) -> _Message:
    """Read a text message that is laid out like `text`."""
    types = message_type.__annotations__
    values: dict[str, Any] = {}
    contract: dict[str, Any] = {}
    for item in items(text, server_version):
        if item in CONTRACT_PARTS:
            contract |= read_contract_part(item, reader, contract)
        else:
            read_item(reader, item, message_type, values, contract)
    if _CONTRACT in types:
        values[_CONTRACT] = Contract(**contract)
    return message_type(**values)


def write_item(message: Any, item: str) -> object:
    """Return the field of one item that is not a part of a contract."""
    if item == _EMPTY:
        return ""
    if item.isdecimal():
        return item
    if item.endswith(_ESCAPED):
        return escape(getattr(message, item.removesuffix(_ESCAPED)))
    return attrgetter(item)(message)


def read_item(
    reader: FieldReader, item: str, message_type: type, values: dict[str, Any], contract: dict[str, Any]
) -> None:
    """Read the field of one item that is not a part of a contract into the attributes of its owner."""
    if item == _EMPTY or item.isdecimal():
        reader.skip(item)
        return
    owner, _, name = item.rpartition(".")
    if name.endswith(_ESCAPED):
        values[name.removesuffix(_ESCAPED)] = unescape(reader.text(name))
    elif owner:
        contract[name] = _read_field(reader, name, Contract.__annotations__[name])
    else:
        values[name] = _read_field(reader, name, message_type.__annotations__[name])


def _read_field(reader: FieldReader, name: str, type_name: str) -> object:
    match type_name:
        case "str":
            return reader.text(name)
        case "int":
            return reader.integer(name)
        case "bool":
            return reader.boolean(name)
        case "float":
            return reader.number(name)
    return reader.optional_number(name)


def write_protobuf(message: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a protobuf message: numbers are always there; what is "", False, None or NaN is absent.

    Args:
        message: the dataclass.
        names: attribute → field.
    """
    values = {name: getattr(message, attribute) for attribute, name in names.items()}
    if _CONTRACT in values:
        values[_CONTRACT] = contract_to_protobuf(values[_CONTRACT])
    return {name: value for name, value in values.items() if not _is_absent(value)}


def _is_absent(value: object) -> bool:
    return value is None or value is False or value == "" or (isinstance(value, float) and math.isnan(value))


def read_protobuf(message_type: type[_Message], layout: Layout, values: Mapping[str, Any]) -> _Message:
    """Make a message of the fields of its protobuf message.

    Raises:
        DecodeError: a number that is sent as text is none.
    """
    types = message_type.__annotations__
    return message_type(
        **{
            attribute: protobuf_value(name, types[attribute], values[name])
            if name in values
            else _default(layout, attribute, types[attribute])
            for attribute, name in layout.names.items()
        }
    )


def protobuf_value(name: str, type_name: str, value: Any) -> Any:
    """Return the value of a protobuf field for an attribute of the given type."""
    if type_name == "Contract":
        return contract_from_protobuf(value)
    if isinstance(value, str) and type_name.startswith("float"):
        return _ABSENT[type_name] if value in UNSET else parse_number(name, value)
    return value


def _default(layout: Layout, attribute: str, type_name: str) -> object:
    if attribute in layout.defaults:
        return layout.defaults[attribute]
    if attribute == "req_id":
        return _NO_REQUEST
    return _ABSENT[type_name]
