"""The table of events in docs/events.md says what the code can emit: the names and their fields, no more and no less.

What the code emits is read from its sources: calls of `event` and of the `_tell` methods that lead to it.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import ibfast
from ibfast.connection.monitor import LEVELS, STATE_EVENT
from ibfast.policy.health.silence import StreamState

PACKAGE = Path(ibfast.__file__).parent
TABLE = PACKAGE.parent / "docs" / "events.md"
EMITTERS = sorted({*PACKAGE.glob("*.py"), *(PACKAGE / "policy").rglob("*.py"), *(PACKAGE / "connection").rglob("*.py")})
ROW = re.compile(r"\| `(?P<name>\w+)` \| (?P<fields>[^|]*)\| [^|]+ \| (?P<level>\w+) \|")
FIELD = re.compile(r"`(\w+)`")


def strings(node: ast.expr, function: ast.AST) -> set[str]:
    """The values that an event's name can have; empty where it is a parameter, and told by the callers."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp():
            return strings(node.body, function) | strings(node.orelse, function)
        case ast.JoinedStr(values=[ast.Constant(value="stream_"), ast.FormattedValue()]):
            return {f"stream_{state.name.lower()}" for state in StreamState if state is not StreamState.DEAD}
        case ast.Name(id="STATE_EVENT"):
            return {STATE_EVENT}
        case ast.Name():
            assigned = [
                statement.value
                for statement in ast.walk(function)
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == node.id
            ]
            return set().union(*(strings(value, function) for value in assigned))
    return set()


def calls(module: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.Call, str]]:
    """Every call of a method that tells an event: where it stands, the call, the method."""
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(attr="event" | "_tell" as method), args=[_, *_]):
                        yield function, call, method


def keywords(call: ast.Call) -> set[str]:
    return {keyword.arg for keyword in call.keywords if keyword.arg is not None}


def emitted_by(source: str) -> dict[str, set[str]]:
    """Event → its fields, of one module."""
    module = ast.parse(source)
    found: dict[str, set[str]] = defaultdict(set)
    # What a module's own _tell(name, …) adds to the fields that its callers give.
    added: set[str] = set()
    for function, call, method in calls(module):
        if function.name == "_tell" and method == "event" and not strings(call.args[0], function):
            added |= keywords(call)
    for function, call, method in calls(module):
        for name in strings(call.args[0], function):
            found[name] |= keywords(call) | (added if method == "_tell" else set())
    return found


def emitted() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in EMITTERS:
        for name, fields in emitted_by(path.read_text()).items():
            found[name] |= fields
    return found


def listed() -> list[re.Match[str]]:
    return [match for match in map(ROW.fullmatch, TABLE.read_text().splitlines()) if match is not None]


def test_the_sources_were_read() -> None:
    source = """
class Speaker:
    def hear(self, is_bad):
        name = "bad" if is_bad else "good"
        self.monitor.event(name, code=1)
        self._tell("told", job, reason="")
        self.monitor.event(f"stream_{state.lower()}", silent_s=1)

    def _tell(self, name, job, **fields):
        self.monitor.event(name, job=job, **fields)
"""
    states = {f"stream_{state}": {"silent_s"} for state in ("live", "quiet", "stale")}
    assert emitted_by(source) == {"bad": {"code"}, "good": {"code"}, "told": {"job", "reason"}} | states


def test_no_call_is_overlooked() -> None:
    """Names that are not known here are handed on by a `_tell`, the supervisor, or the monitor itself."""
    handed_on = {
        (path.name, ast.unparse(call.args[0]))
        for path in EMITTERS
        for function, call, method in calls(ast.parse(path.read_text()))
        if method == "event" and not strings(call.args[0], function)
    }
    assert handed_on == {("backfill.py", "name"), ("supervisor.py", "happening.name")}


def test_every_event_is_in_the_table_once_with_its_fields() -> None:
    names = [row["name"] for row in listed()]
    assert len(names) == len(set(names))
    assert {row["name"]: set(FIELD.findall(row["fields"])) for row in listed()} == emitted()


def test_the_table_says_how_loudly_each_is_logged() -> None:
    levels = {10: "debug", 20: "info", 30: "warning", 40: "error"}
    assert {row["name"]: row["level"] for row in listed()} == {name: levels[LEVELS.get(name, 20)] for name in emitted()}
    assert LEVELS.keys() <= emitted().keys()
