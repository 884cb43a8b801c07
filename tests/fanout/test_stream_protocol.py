"""The page of the stream protocol says what the code does: its tables are held against what they mirror."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from ibfast.codec.spec import ChannelSpec
from ibfast.errors import ProtocolError
from ibfast.fanout.encoding.channels import HEADER, STRUCTURE, fields_of
from ibfast.fanout.encoding.json import ABSENT, TEXTS
from ibfast.fanout.messages import (
    CONTRACT_FIELDS,
    FAMILIES_OF,
    LEG_FIELDS,
    MOST_BYTES_PER_S,
    MOST_ID_CHARACTERS,
    MOST_TEXT_CHARACTERS,
    RefusedError,
    parse,
)
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES, Kind
from tests.support.fanout_client import client_of, serving
from tests.support.loops import Run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stream-protocol.md").read_text(encoding="utf-8")
TYPES = {"u64": "<u8", "i64": "<i8", "u32": "<u4", "i32": "<i4", "u8": "|u1", "double": "<f8"}
WORD = re.compile(r"`(\w+)`")


def table(heading: str) -> list[list[str]]:
    """The cells of the one table whose head begins so."""
    (found,) = re.findall(rf"^\| {re.escape(heading)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found.splitlines()]


def words(cell: str) -> list[str]:
    return WORD.findall(cell)


def test_kinds() -> None:
    rows = table("`kind` | name")
    assert {int(number): words(name) for number, name, _ in rows} == {int(kind): [kind.name] for kind in Kind}


def test_families_and_their_fields() -> None:
    rows = {words(family)[0]: (words(types), words(fields)) for family, types, fields in table("family | data types")}
    assert sorted(rows) == sorted(FAMILIES)
    for family, (data_types, fields) in rows.items():
        assert fields == [name for name in DTYPES[family].names or () if name not in HEADER], family
        assert data_types == [name for name, families in FAMILIES_OF.items() if family in families][::-1], family
        assert set(fields) - set(fields_of([family])) == STRUCTURE & set(fields)


def test_types_and_what_is_absent() -> None:
    types: dict[str, str] = {}
    absent: dict[str, str] = {}
    for fields, kind, nothing in table("field | type"):
        named = words(fields) or ["*"]
        types |= dict.fromkeys(named, kind)
        absent |= dict.fromkeys(named, nothing)
    for family in FAMILIES:
        for name in DTYPES[family].names or ():
            if name in ("instrument", "req_id"):
                continue
            of_family = dict(re.findall(r"in `(\w+)` (\w+)", types.get(name, "")))
            kind = of_family.get(family) or re.split(r"\W", types.get(name, types["*"]))[0]
            if name == "attribs" and family == "greeks":
                kind = "i32"
            assert DTYPES[family][name].str == TYPES[kind], (family, name)
            assert (name in TEXTS) == ("a text" in types.get(name, "")), name
    assert {name: int(absent[name].replace("−", "-")) for name in ABSENT} == ABSENT


def test_keys_of_a_contract() -> None:
    rows = table("keys | values")
    assert {name for keys, _ in rows for name in words(keys)} == {*CONTRACT_FIELDS, "combo_legs"}
    (legs,) = re.findall(r"Those of a leg:(.*?)\n\nA subscription", PAGE, re.DOTALL)
    assert set(LEG_FIELDS) <= set(words(legs))
    assert f"at most {MOST_TEXT_CHARACTERS} characters" in rows[0][1]
    assert f"at most {MOST_ID_CHARACTERS} characters" in legs
    assert MOST_BYTES_PER_S == 2**40


def test_bits_of_attribs() -> None:
    kinds = [kind for names, _ in table("`kind` | bits") for kind in words(names)]
    assert set(kinds) <= set(Kind.__members__)
    assert "ATTRIB_DELAYED = 0x100" in (ROOT / "ibfast" / "feed" / "_records.pxd").read_text()
    assert "ATTRIB_SMART_DEPTH = 1" in (ROOT / "ibfast" / "decoder" / "_messages.pxd").read_text()


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("subscribe", {"symbol": "AAPL"}),
    ("update", {"subscription": 1, "interval_ms": 50}),
    ("limit", {"max_bytes_per_s": 10**6}),
    ("list", {}),
    ("ping", {"data": [1]}),
    ("unsubscribe", {"subscription": 1}),
    ("unsubscribe", {"subscription": 1}),
]


def test_answers_and_their_fields(run: Run) -> None:
    rows = {words(op)[0]: re.sub(r"\(.*?\)|[;:].*", "", fields) for op, _, fields in table("`op` | answers")}

    async def test() -> None:
        async with serving() as (server, _), client_of(server) as client:
            answers = [await client.ask(op, **values) for op, values in ASKED]
            await client.say("ping")
            answers.append(await client.until("pong"))
            assert answers[-1]["id"] is None
        assert {answer["op"] for answer in answers} == set(rows)
        for answer in answers:
            assert set(answer) == {"op", *words(rows[answer["op"]])}

    run(test())


SAID: list[Mapping[str, Any]] = [
    {"op": "subscribe", "symbol": "A", "interval_ms": 10},
    {"op": "subscribe", "contract": {"con_id": 10}},
    {"op": "subscribe", "symbol": "A", "resume": {"epoch": "e", "position": 10}},
    {"op": "update", "subscription": 1, "interval_ms": 10},
    {"op": "unsubscribe", "subscription": 10},
    {"op": "limit", "max_bytes_per_s": 10},
]


@pytest.mark.parametrize("said", SAID, ids=map(str, SAID))
def test_a_whole_number_of_a_request_is_an_integer(said: Mapping[str, Any]) -> None:
    text = orjson.dumps(said).decode()
    parse(text)
    with pytest.raises(RefusedError):
        parse(re.sub(r"\b10\b", "10.0", text))


@pytest.mark.parametrize("name", ["instrument", "class", "span_ns", "unit_ns", "ordered", "conflated"])
def test_a_description_s_values_are_of_their_types(name: str) -> None:
    described = ChannelSpec(3, ("trades",)).described()
    assert ChannelSpec.from_description(described).described() == described
    for wrong in (float(described[name]), str(described[name]), None):
        with pytest.raises(ProtocolError):
            ChannelSpec.from_description(described | {name: wrong})
