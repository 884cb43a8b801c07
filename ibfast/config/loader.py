"""Where settings come from: a TOML file, the environment, arguments; later ones win, field by field.

The rule of the file: an unknown name is refused, never skipped, and an error names the origin of the wrong value. A
value that another one overrides is not checked. A file with a secret in it is refused if others may read it. The module
knows dataclasses, their annotations and which fields are marked as secrets (`SECRET`), but no setting.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ibfast.common.private_files import fault_of
from ibfast.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "SECRET", "load_settings", "paths_of", "sections_of", "variables_of"]

PREFIX = "IBFAST_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, PREFIX + "DEBUG"})
"""The file's path, and the switch of the build."""

SECRET: Mapping[str, bool] = {"secret": True}
"""Metadata of a field whose value no other user may read."""

TOP = ""
"""The name under which the fields outside of sections are kept."""

SERVICE_VARIABLE = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
"""Variables that Kubernetes sets in every pod for a Service: for one called ibfast, IBFAST_SERVICE_HOST,
IBFAST_PORT_7497_TCP_ADDR, … by their names, and IBFAST_PORT=tcp://10.0.0.1:7497 by name and value. Source: Kubernetes,
"Service: environment variables"."""

FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

TOML_NAMES: Mapping[type, str] = {
    str: "a text", bool: "a flag", int: "a whole number", float: "a number", list: "an array", dict: "a table",
    datetime: "a time", date: "a date", time: "a time",
}  # fmt: skip
"""The words for types of values in a file."""

TOML_REMEDIES: Mapping[type, str] = {
    str: "a text in quotes", bool: "true or false", int: "a whole number", float: "a number",
}  # fmt: skip
TOML_ARRAY_REMEDIES: Mapping[type, str] = {
    str: 'an array of texts, such as ["a", "b"]', int: "an array of whole numbers, such as [1, 2]",
}  # fmt: skip
"""The remedy in a file, by the type of the field or of its items."""

T = TypeVar("T")


def load_settings(
    cls: type[T], path: str | Path | None, environ: Mapping[str, str] | None, arguments: Mapping[str, Any]
) -> T:
    """Make settings of a file, the environment and arguments, each over the one before.

    Args:
        cls: a dataclass; fields that are dataclasses themselves are sections, which are tables in TOML.
        path: of a TOML file; that in $IBFAST_CONFIG if None, no file if there is none either.
        environ: the environment, that of the process if None. IBFAST_PORT is the field `port`, IBFAST_AUTH_ACCOUNTS
            the field `accounts` of the section `auth`. Lists are separated by commas; an empty text means None where
            None is possible. What Kubernetes sets for a Service called ibfast is no setting.
        arguments: fields by name, sections as a mapping or as a whole; None means not given.

    Raises:
        ConfigError: the file can't be read, or has a secret in it and can be read by others; a name is unknown, or a
            value is not possible.
    """
    environ = os.environ if environ is None else environ
    path = path or environ.get(CONFIG_VARIABLE)
    given = _Given(cls)  # the first value of a field wins
    _take_table(given, arguments, "argument")
    _take_environment(given, environ)
    if path:
        _take_file(given, Path(path).expanduser())
    return given.make(cls, given.arguments())


def sections_of(cls: type) -> Mapping[str, type]:
    """Return the fields that are settings themselves: name → their class."""
    return {
        name: candidate
        for name, annotation in _own_annotations(cls).items()
        for candidate in (annotation, *get_args(annotation))
        if isinstance(candidate, type) and is_dataclass(candidate)
    }


def paths_of(cls: type) -> list[str]:
    """Return the name of every single setting: "port", "heartbeat.interval_s", …."""
    return [_path(section, name) for section, known in _annotations(cls).items() for name in known]


def variables_of(cls: type) -> dict[str, tuple[str, str]]:
    """Return the environment's names: variable → section (or `TOP`) and field."""
    return {
        PREFIX + "_".join(filter(None, (section, name))).upper(): (section, name)
        for section, known in _annotations(cls).items()
        for name in known
    }


def _annotations(cls: type) -> Mapping[str, Mapping[str, Any]]:
    """Section (or `TOP`) → field → annotation."""
    sections = sections_of(cls)
    own = {name: annotation for name, annotation in _own_annotations(cls).items() if name not in sections}
    return {TOP: own} | {name: _own_annotations(section) for name, section in sections.items()}


@cache
def _own_annotations(cls: type) -> Mapping[str, Any]:
    hints = get_type_hints(cls)
    return {item.name: hints[item.name] for item in fields(cls) if item.init}


class _Given:
    """The values so far, and their origins. The first value of a field stays."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.annotations = _annotations(cls)
        self.sections = sections_of(cls)
        self.values: dict[str, dict[str, Any]] = {TOP: {}}
        self.origins: dict[str, str] = {}

    def has(self, section: str, name: str) -> bool:
        """Return whether the field has a value, alone or with its whole section."""
        return name in self.values.get(section, ()) or section in self.values[TOP]

    def put(self, section: str, name: str, value: Any, origin: str) -> None:
        """Take the first value of a field; a list becomes a tuple where one is wanted."""
        path = _path(section, name)
        if name not in self.annotations[section]:
            raise ConfigError(f"there is no setting {path!r} ({origin}): {self._hint(section, name)}")
        if self.has(section, name):
            return
        if isinstance(value, list) and get_origin(self.annotations[section][name]) is tuple:
            value = tuple(value)
        self.values.setdefault(section, {})[name] = value
        self.origins[path] = origin

    def _hint(self, section: str, name: str) -> str:
        """Say what may be meant: the same name elsewhere, a similar one here, a similar one elsewhere."""
        places = [
            f"in [{other}]" if other else "above all sections"
            for other, known in self.annotations.items()
            if name in known
        ]
        if places:
            return f"it belongs {' or '.join(places)}"
        own = [*self.annotations[section], *(self.sections if section == TOP else ())]
        near = _nearest(name, own)
        if near is None:
            elsewhere = {path.rpartition(".")[2]: path for path in paths_of(self.cls)}
            near = elsewhere.get(_nearest(name, elsewhere) or "")
        return f"did you mean {near!r}?" if near else f"there are {', '.join(own)}"

    def put_section(self, name: str, value: Any, origin: str) -> None:
        """Record a section: its settings by name, or as a whole."""
        if isinstance(value, self.sections[name]):
            self.values[TOP][name] = value
        elif isinstance(value, Mapping):
            if name not in self.values[TOP]:
                self.values.setdefault(name, {})  # naming it is enough to have it
            for key, item in value.items():
                if item is not None:
                    self.put(name, key, item, origin)
        else:
            raise ConfigError(f"{name} is a section ({origin}): give its settings by their names")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the class."""
        made: dict[str, Any] = {
            name: self.make(self.sections[name], values) for name, values in self.values.items() if name != TOP
        }
        return self.values[TOP] | made

    def make(self, cls: type[T], values: Mapping[str, Any]) -> T:
        """Make settings; an error about one of them names its origin."""
        try:
            return cls(**values)
        except ConfigError as error:
            if error.field not in self.origins:
                raise
            raise ConfigError(f"{error} ({self.origins[error.field]})", field=error.field) from None


def _take_file(given: _Given, path: Path) -> None:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
            fault = fault_of(os.fstat(file.fileno()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the file {path} can't be read: {error}") from None
    if fault:
        for secret in _secrets_in(table, given.cls):
            raise ConfigError(f"the file {path} has a secret in it ({secret}) and {fault}")
    origin = f"file {path}"
    for section, known in given.annotations.items():
        part = table if section == TOP else table.get(section)
        if isinstance(part, dict):
            for name in known.keys() & part.keys():
                if given.has(section, name):
                    continue
                _require_toml(_path(section, name), part[name], known[name], origin)
    _take_table(given, table, origin)


def _secrets_in(table: Mapping[str, Any], cls: type) -> Iterator[str]:
    """Yield the names of the secrets that a file's table holds, whether or not another place overrides them."""
    for item in fields(cls):
        if item.metadata == SECRET and item.name in table:
            yield item.name
    for name, section in sections_of(cls).items():
        if isinstance(table.get(name), Mapping):
            yield from (f"{name}.{secret}" for secret in _secrets_in(table[name], section))


def _require_toml(path: str, value: Any, annotation: Any, origin: str) -> None:
    """Insist on the type of a value in a file, in the file's words. The value is not shown: it may be a secret."""
    kind = (get_args(annotation) or (annotation,))[0]
    if get_origin(annotation) is not tuple:
        wrong = [] if _is_toml(value, kind) else [value]
        shown, remedy = "", TOML_REMEDIES[kind]
    else:
        is_array = isinstance(value, list)
        wrong = [item for item in value if not _is_toml(item, kind)] if is_array else [value]
        shown, remedy = "an array with " if is_array else "", TOML_ARRAY_REMEDIES[kind]
    if wrong:
        raise ConfigError(f"{path} can't be {shown}{TOML_NAMES[type(wrong[0])]}: give {remedy} ({origin})")


def _is_toml(value: object, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)


def _take_table(given: _Given, table: Mapping[str, Any], origin: str) -> None:
    for name, value in table.items():
        if value is None:
            continue
        if name in given.sections:
            given.put_section(name, value, origin)
        else:
            given.put(TOP, name, value, origin)


def _take_environment(given: _Given, environ: Mapping[str, str]) -> None:
    variables = variables_of(given.cls)
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or _is_of_service(variable, text):
            continue
        if variable not in variables:
            raise _unknown_variable(variable, variables)
        section, name = variables[variable]
        if given.has(section, name):
            continue
        try:
            value = _parsed(text, given.annotations[section][name])
        except ValueError as error:
            path = _path(section, name)
            raise ConfigError(f"{path}={text!r} is not possible: {error} (variable {variable})") from None
        given.put(section, name, value, f"variable {variable}")


def _is_of_service(variable: str, text: str) -> bool:
    """Return whether Kubernetes has set a variable for a Service."""
    is_address = variable.endswith("_PORT") and SERVICE_ADDRESS.fullmatch(text) is not None
    return is_address or SERVICE_VARIABLE.fullmatch(variable) is not None


def _parsed(text: str, annotation: Any) -> Any:
    """Convert the text of a variable. Raises ValueError with the remedy."""
    kinds = get_args(annotation)
    if get_origin(annotation) is tuple:
        return tuple(_parsed(part.strip(), kinds[0]) for part in text.split(",") if part.strip())
    if NoneType in kinds:
        return None if text == "" else _parsed(text, kinds[0])
    if annotation is bool:
        if text.lower() not in FLAGS:
            raise ValueError(f"give one of {', '.join(FLAGS)}")
        return FLAGS[text.lower()]
    if annotation in (int, float):
        try:
            return annotation(text)
        except ValueError:
            raise ValueError(f"give {'a whole number' if annotation is int else 'a number'}") from None
    return text


def _path(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _unknown_variable(variable: str, known: Mapping[str, tuple[str, str]]) -> ConfigError:
    name = variable.removeprefix(PREFIX).lower()
    same = [other for other, (_, field) in known.items() if field == name]
    near = _nearest(variable, known)
    meant = " or ".join(map(repr, same)) or (repr(near) if near else "")
    hint = f"did you mean {meant}?" if meant else f"the settings are those of ibfast.Config, after {PREFIX}"
    return ConfigError(f"there is no setting {variable!r} (environment): {hint}")


def _nearest(name: str, known: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
