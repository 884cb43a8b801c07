"""The control messages: what a client may say, checked to the last field, and what it is answered.

The rule of the file: text in, values or a `RefusedError` with a code out; and values in, text out. It knows no
connection and no feed. docs/stream-protocol.md is the law.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeAlias

import orjson

from ibfast.connection.stream import OPTION_TYPES
from ibfast.contracts import ComboLeg, Contract, Stock
from ibfast.errors import Error
from ibfast.fanout.encoding.channels import DATA_TYPES, INTERVALS_MS, MODES, fields_of

__all__ = [
    "Code",
    "Limit",
    "ListSubscriptions",
    "Ping",
    "RefusedError",
    "Request",
    "Resume",
    "Subscribe",
    "Unsubscribe",
    "Update",
    "encode",
    "parse",
]

PROTOCOL_VERSION = 1
MOST_ID_CHARACTERS = 128
MOST_TEXT_CHARACTERS = 256
DEFAULT_INTERVAL_MS = {"stream": 10, "conflate": 250, "snapshot": 10}
MOST_BYTES_PER_S = 1 << 40
MOST_LEGS = 8
MOST_PING_BYTES = 1024
MOST_NESTED = 1024
"""Arrays and objects in a message. Python's garbage collector looks at each of them again and again: a message of 40 KB
that consists of them takes ten times as long to read as another one, and brings its longest collections about."""

COMBO = "BAG"

RequestId: TypeAlias = str | int | float | None


class Code(StrEnum):
    """Why something was refused, or ended."""

    BAD_MESSAGE = "BAD_MESSAGE"
    BAD_FIELD = "BAD_FIELD"
    UNKNOWN_CONTRACT = "UNKNOWN_CONTRACT"
    AMBIGUOUS_CONTRACT = "AMBIGUOUS_CONTRACT"
    NO_SUCH_SUBSCRIPTION = "NO_SUCH_SUBSCRIPTION"
    FORBIDDEN = "FORBIDDEN"
    TOO_MANY = "TOO_MANY"
    TOO_FAST = "TOO_FAST"
    REFUSED = "REFUSED"
    NO_GATEWAY = "NO_GATEWAY"
    TOO_SLOW = "TOO_SLOW"
    SHUTDOWN = "SHUTDOWN"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    DONE = "DONE"


class RefusedError(Error):
    """A request that is answered by an error. It never leaves the fan-out.

    Attributes:
        code: a `Code`.
        message: what is wrong, and the remedy.
        request_id: what the answer repeats.
    """

    def __init__(self, code: Code, message: str, request_id: RequestId = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Resume:
    """What a client that comes back has seen last."""

    epoch: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """Data is wanted. Attributes as in the protocol; `fields` empty: all."""

    id: RequestId
    contract: Contract
    data_type: str
    mode: str
    interval_ms: int
    fields: tuple[str, ...]
    times: str
    ordered: bool
    on_slow: str
    resume: Resume | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A subscription's interval is to be another one."""

    id: RequestId
    subscription: int
    interval_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """A subscription is to end."""

    id: RequestId
    subscription: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The session wants at most so many bytes a second; 0: as many as there are."""

    id: RequestId
    max_bytes_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSubscriptions:
    """The session's subscriptions are to be listed."""

    id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A sign of life is wanted, with the same data."""

    id: RequestId
    data: Any


Request: TypeAlias = Subscribe | Update | Unsubscribe | Limit | ListSubscriptions | Ping


def encode(op: str, **values: Any) -> bytes:
    """Return a message of the server as JSON; NaN is null."""
    return orjson.dumps({"op": op, **values})


def parse(text: str | bytes) -> Request:
    """Return what a client has said.

    Args:
        text: a text message; bytes are a binary one, of which there are none.

    Raises:
        RefusedError: it is no message, or one of its fields is wrong; says which.
    """
    if not isinstance(text, str):
        raise RefusedError(Code.BAD_MESSAGE, "control messages are text: send JSON")
    if text.count("[") + text.count("{") > MOST_NESTED:
        raise RefusedError(Code.BAD_MESSAGE, f"a message has at most {MOST_NESTED} of the characters [ and {{")
    try:
        said = orjson.loads(text)
    except ValueError as error:
        raise RefusedError(Code.BAD_MESSAGE, f"this is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise RefusedError(Code.BAD_MESSAGE, 'this is no JSON object: send {"op": …}')
    request_id = _request_id(said.pop("id", None))
    op = said.pop("op", None)
    reader = READERS.get(op) if isinstance(op, str) else None
    if reader is None:
        raise RefusedError(Code.BAD_MESSAGE, f"op is one of {', '.join(READERS)}", request_id)
    try:
        request = reader(request_id, said)
    except RefusedError as refusal:
        raise RefusedError(refusal.code, refusal.message, request_id) from None
    if said:
        raise RefusedError(Code.BAD_FIELD, f"{op} has no field {_shown(next(iter(said)))}", request_id)
    return request


def _request_id(value: Any) -> RequestId:
    if value is None or (isinstance(value, str) and len(value) <= MOST_ID_CHARACTERS):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise RefusedError(Code.BAD_FIELD, f"id: give a number, or a text of at most {MOST_ID_CHARACTERS} characters")


def _subscribe(request_id: RequestId, said: dict[str, Any]) -> Subscribe:
    contract = _contract(said)
    data_type = _one_of(said, "data_type", tuple(DATA_TYPES), "QUOTES")
    if data_type == "GREEKS" and contract.sec_type not in ("", *OPTION_TYPES):
        raise RefusedError(Code.BAD_FIELD, "data_type: GREEKS are of options, and this contract is none")
    mode = _one_of(said, "mode", MODES, "stream")
    return Subscribe(
        id=request_id,
        contract=contract,
        data_type=data_type,
        mode=mode,
        interval_ms=_interval(said, DEFAULT_INTERVAL_MS[mode]),
        fields=_fields(said, data_type),
        times=_one_of(said, "times", ("us", "ns"), "us"),
        ordered=_flag(said, "ordered"),
        on_slow=_one_of(said, "on_slow", ("conflate", "close"), "conflate"),
        resume=_resume(said),
    )


def _update(request_id: RequestId, said: dict[str, Any]) -> Update:
    return Update(id=request_id, subscription=_whole(said, "subscription"), interval_ms=_interval(said, None))


def _unsubscribe(request_id: RequestId, said: dict[str, Any]) -> Unsubscribe:
    return Unsubscribe(id=request_id, subscription=_whole(said, "subscription"))


def _limit(request_id: RequestId, said: dict[str, Any]) -> Limit:
    return Limit(id=request_id, max_bytes_per_s=_whole(said, "max_bytes_per_s", at_most=MOST_BYTES_PER_S))


def _list(request_id: RequestId, said: dict[str, Any]) -> ListSubscriptions:
    return ListSubscriptions(id=request_id)


def _ping(request_id: RequestId, said: dict[str, Any]) -> Ping:
    data = said.pop("data", None)
    try:
        nbytes = len(orjson.dumps(data))
    except TypeError:  # what can be read may still be nested too deeply to be written
        raise RefusedError(Code.BAD_FIELD, "data is nested too deeply") from None
    if nbytes > MOST_PING_BYTES:
        raise RefusedError(Code.BAD_FIELD, f"data: give at most {MOST_PING_BYTES} bytes of JSON, not {nbytes}")
    return Ping(id=request_id, data=data)


READERS: Mapping[str, Callable[[RequestId, dict[str, Any]], Request]] = {
    "subscribe": _subscribe,
    "update": _update,
    "unsubscribe": _unsubscribe,
    "limit": _limit,
    "list": _list,
    "ping": _ping,
}


def _contract(said: dict[str, Any]) -> Contract:
    symbol, described = said.pop("symbol", None), said.pop("contract", None)
    if (symbol is None) == (described is None):
        raise RefusedError(Code.BAD_FIELD, "symbol, contract: give one of them")
    if described is None:
        return Stock(_text("symbol", symbol).strip() or _missing("symbol"))
    if not isinstance(described, dict):
        raise RefusedError(Code.BAD_FIELD, 'contract: give an object such as {"symbol": "ES", "sec_type": "FUT"}')
    values = {name: _contract_field(name, value) for name, value in described.items() if value is not None}
    if ("combo_legs" in values) != (values.get("sec_type") == COMBO):
        raise RefusedError(Code.BAD_FIELD, 'contract: combo_legs and the sec_type "BAG" go together')
    try:
        return Contract.of(Contract(**values))
    except ValueError:
        raise RefusedError(Code.BAD_FIELD, "contract: give a symbol, a con_id or a local_symbol") from None


LEG_FIELDS = {item.name: item.type for item in fields(ComboLeg)}
LEG_FIELDS_NEEDED = ("con_id", "ratio", "action", "exchange")
CONTRACT_FIELDS = {
    item.name: item.type for item in fields(Contract) if item.name not in ("combo_legs", "delta_neutral_contract")
}


def _contract_field(name: str, value: Any) -> Any:
    kind = CONTRACT_FIELDS.get(name)
    if name == "combo_legs":
        return _combo_legs(value)
    if kind is None:
        raise RefusedError(Code.BAD_FIELD, f"contract: there is no field {_shown(name)}")
    return _plain_field(f"contract.{name}", kind, value, least=0)


def _combo_legs(value: Any) -> tuple[ComboLeg, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MOST_LEGS:
        raise RefusedError(Code.BAD_FIELD, f"contract.combo_legs: give a list of 2 to {MOST_LEGS} legs")
    return tuple(_combo_leg(f"contract.combo_legs[{index}]", leg) for index, leg in enumerate(value))


def _combo_leg(path: str, said: Any) -> ComboLeg:
    if not isinstance(said, dict):
        raise RefusedError(
            Code.BAD_FIELD, f'{path}: give an object such as {{"con_id": 1, "ratio": 1, "action": "BUY"}}'
        )
    values = {name: _leg_field(path, name, value) for name, value in said.items() if value is not None}
    for name in LEG_FIELDS_NEEDED:
        if not values.get(name):
            raise RefusedError(Code.BAD_FIELD, f"{path}.{name}: this is missing")
    return ComboLeg(**values)


def _leg_field(path: str, name: str, value: Any) -> Any:
    kind = LEG_FIELDS.get(name)
    if kind is None:
        raise RefusedError(Code.BAD_FIELD, f"{path}: there is no field {_shown(name)}")
    return _plain_field(f"{path}.{name}", kind, value, least=-1 if name == "exempt_code" else 0)


def _plain_field(path: str, kind: Any, value: Any, least: int) -> Any:
    if kind == "str":
        return _text(path, value)
    if kind == "bool":
        valid = isinstance(value, bool)
    elif kind == "int":
        valid = isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 31
    else:
        valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid:
        raise RefusedError(Code.BAD_FIELD, f"{path}: this is not possible")
    return value if kind in ("bool", "int") else float(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT_CHARACTERS or "\0" in value:
        raise RefusedError(
            Code.BAD_FIELD, f"{name}: give a text of at most {MOST_TEXT_CHARACTERS} characters, without NUL"
        )
    return value


def _missing(name: str) -> str:
    raise RefusedError(Code.BAD_FIELD, f"{name}: this is missing")


def _one_of(said: dict[str, Any], name: str, known: tuple[str, ...], default: str) -> str:
    value = said.pop(name, default)
    if not isinstance(value, str) or value not in known:
        raise RefusedError(Code.BAD_FIELD, f"{name}: give one of {', '.join(known)}")
    return value


def _flag(said: dict[str, Any], name: str) -> bool:
    value = said.pop(name, False)
    if not isinstance(value, bool):
        raise RefusedError(Code.BAD_FIELD, f"{name}: give true or false")
    return value


def _whole(said: dict[str, Any], name: str, at_most: int = 1 << 62) -> int:
    value = said.pop(name, None)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= at_most:
        raise RefusedError(Code.BAD_FIELD, f"{name}: give a whole number, 0 or more")
    return value


def _interval(said: dict[str, Any], default: int | None) -> int:
    value = said.pop("interval_ms", default)
    if not isinstance(value, int) or isinstance(value, bool) or value not in INTERVALS_MS:
        raise RefusedError(Code.BAD_FIELD, f"interval_ms: give one of {', '.join(map(str, INTERVALS_MS))}")
    return value


def _fields(said: dict[str, Any], data_type: str) -> tuple[str, ...]:
    value = said.pop("fields", None)
    if value is None:
        return ()
    known = fields_of(FAMILIES_OF[data_type])
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise RefusedError(Code.BAD_FIELD, "fields: give a list of names, at least one")
    for name in value:
        if name not in known:
            raise RefusedError(Code.BAD_FIELD, f"fields: {data_type} has {', '.join(known)}, and not {_shown(name)}")
    return tuple(name for name in known if name in value)


FAMILIES_OF = {
    "ALL": ("ticks", "trades", "quotes", "greeks"),
    **{name: (name.lower(),) for name in DATA_TYPES if name != "ALL"},
}


def _resume(said: dict[str, Any]) -> Resume | None:
    value = said.pop("resume", None)
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"epoch", "position"}:
        raise RefusedError(Code.BAD_FIELD, 'resume: give {"epoch": …, "position": …}')
    return Resume(_text("resume.epoch", value["epoch"]), _whole(value, "position"))


def _shown(name: str) -> str:
    return repr(name[:MOST_ID_CHARACTERS])
