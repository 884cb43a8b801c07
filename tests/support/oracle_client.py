"""What an official client sends and understands. Runs in the environment of that client, not in ours.

The rule of the file: only the standard library and `ibapi`, 9.81.1 or 10.51.1. It answers JSON lines:

    {"ask": "send", "server_version", "method", "args"}   → [payload in hex, …] that the client writes
    {"ask": "receive", "server_version", "payload"}        → [[callback, {argument: value}], …]
    {"ask": "numbers"}                                     → its ids, tick types and versions
    {"ask": "tables"}                                      → {message: [[field, number, type, repeated], …]}
    {"ask": "parse", "message", "body"}                    → its fields that are present

each as {"answer": …}, or {"raised": …} where the client raised. A contract stands in `args` as {"contract": {attribute:
value}}. Unset numbers are null, decimals are floats.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import sys
from decimal import Decimal
from importlib import import_module
from typing import Any

from ibapi import comm
from ibapi.client import EClient
from ibapi.contract import ComboLeg, Contract, DeltaNeutralContract
from ibapi.decoder import Decoder
from ibapi.wrapper import EWrapper

IS_NEW = hasattr(EClient, "sendMsgProtoBuf")
PROTOBUF_OFFSET = 200
RAW_ID_SINCE = 201
PREFIX = 4
UNSET = {float(2**31 - 1), sys.float_info.max, float(2**127 - 1), float(2**63 - 1)}
SCALARS = {1: "double", 3: "int64", 5: "int32", 8: "bool", 9: "string"}


class Wire:
    """Stands for the socket."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def isConnected(self) -> bool:  # noqa: N802
        return True

    def sendMsg(self, message: bytes) -> None:  # noqa: N802
        self.sent.append(message)


def recorder() -> Any:
    """Return a wrapper that keeps each call and its arguments by name."""
    calls: list[Any] = []

    def override(name: str, method: Any) -> Any:
        names = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]

        def record(self: Any, *args: Any) -> None:
            calls.append([name, {key: plain(value) for key, value in zip(names, args, strict=False)}])

        record.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
        return record

    methods = {
        name: override(name, method)
        for name, method in inspect.getmembers(EWrapper, inspect.isfunction)
        if not name.startswith("_") and not name.endswith("ProtoBuf")
    }
    wrapper = type("Recorder", (EWrapper,), methods)()
    wrapper.calls = calls
    return wrapper


def plain(value: Any) -> Any:
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, float, Decimal)):
        number = value if isinstance(value, int) else float(value)
        return None if float(number) in UNSET else number
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "value") and hasattr(type(value), "__members__"):
        return value.value[0]
    return {name: plain(item) for name, item in vars(value).items()}


def build(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    contract = Contract()
    for name, item in value["contract"].items():
        if name == "comboLegs":
            item = [fill(ComboLeg(), leg) for leg in item]
        elif name == "deltaNeutralContract":
            item = item and fill(DeltaNeutralContract(), item)
        setattr(contract, name, item)
    return contract


def fill(target: Any, values: dict[str, Any]) -> Any:
    for name, item in values.items():
        setattr(target, name, item)
    return target


def send(server_version: int, method: str, args: list[Any]) -> list[str]:
    client = EClient(recorder())
    client.conn = Wire()
    client.connState = EClient.CONNECTED
    client.serverVersion_ = server_version
    if method == "startApi":
        client.clientId, client.optCapab = args
        args = []
    getattr(client, method)(*map(build, args))
    return [message[PREFIX:].hex() for message in client.conn.sent]


def receive(server_version: int, payload: bytes) -> list[Any]:
    wrapper = recorder()
    decoder = Decoder(wrapper, server_version)
    if not IS_NEW:
        decoder.interpret(comm.read_fields(payload))
        return wrapper.calls
    if server_version >= RAW_ID_SINCE:
        msg_id, body = int.from_bytes(payload[:PREFIX], "big"), payload[PREFIX:]
    else:
        field, _, body = payload.partition(b"\0")
        msg_id = int(field)
    if msg_id > PROTOBUF_OFFSET:
        decoder.processProtoBuf(body, msg_id - PROTOBUF_OFFSET)
    else:
        decoder.interpret(comm.read_fields(body), msg_id)
    return wrapper.calls


def messages() -> dict[str, Any]:
    import ibapi.protobuf

    found = {}
    for module in pkgutil.iter_modules(ibapi.protobuf.__path__):
        pb2 = import_module(f"ibapi.protobuf.{module.name}")
        for name in pb2.DESCRIPTOR.message_types_by_name:
            found[name] = getattr(pb2, name)
    return found


def type_of(field: Any) -> str:
    if field.message_type is None:
        return SCALARS[field.type]
    return "map" if field.message_type.GetOptions().map_entry else field.message_type.name


def tables() -> dict[str, Any]:
    return {
        name: [
            [field.name, field.number, type_of(field), bool(field.is_repeated) and type_of(field) != "map"]
            for field in message.DESCRIPTOR.fields
        ]
        for name, message in messages().items()
    }


def numbers() -> dict[str, Any]:
    from ibapi.common import getServerVersionForMessage
    from ibapi.message import IN, OUT
    from ibapi.server_versions import MAX_CLIENT_VER
    from ibapi.ticktype import TickTypeEnum

    since = {item.name: getServerVersionForMessage(item) for item in OUT}
    return {
        "incoming": {item.name: item.value for item in IN},
        "outgoing": {item.name: item.value for item in OUT},
        "tick_types": {name: number for number, name in TickTypeEnum.idx2name.items() if name != "NOT_SET"},
        "outgoing_protobuf_since": {name: version for name, version in since.items() if version != float("inf")},
        "incoming_protobuf": {
            item.name: re.search(r"= (\w+)Proto\(\)", inspect.getsource(handler.processMeth))[1]
            for item, handler in Decoder.msgId2handleInfoProtoBuf.items()
        },
        "max_version": MAX_CLIENT_VER,
    }


def parse(message: Any) -> dict[str, Any]:
    return {field.name: field_value(field, value) for field, value in message.ListFields()}


def field_value(field: Any, value: Any) -> Any:
    kind = type_of(field)
    if kind == "map":
        return dict(value)
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    return [parse(item) for item in value] if field.is_repeated else parse(value)


def answer(question: dict[str, Any]) -> Any:
    match question.pop("ask"):
        case "send":
            return send(**question)
        case "receive":
            return receive(question["server_version"], bytes.fromhex(question["payload"]))
        case "numbers":
            return numbers()
        case "tables":
            return tables()
        case "parse":
            return parse(messages()[question["message"]].FromString(bytes.fromhex(question["body"])))
    raise ValueError(question)


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            reply = {"answer": answer(json.loads(line))}
        except Exception as error:
            reply = {"raised": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
