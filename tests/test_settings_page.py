"""docs/settings.md lists every setting with its default: no more, no less, in the order of the code."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from ibfast import Config, TlsConfig

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SECTION = re.compile(r"^### (\w+)\n(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)
TOP = "Top"


def listed() -> dict[str, dict[str, Any]]:
    """The sections of the page, with the defaults of their settings."""
    text = PAGE.read_text(encoding="utf-8")
    return {
        section: {name: _value(cell) for name, cell in ROW.findall(rows)} for section, rows in SECTION.findall(text)
    }


def _value(cell: str) -> Any:
    return None if cell == "none" else tomllib.loads(f"value = {cell.strip('`')}")["value"]


def defaults(section: Any) -> dict[str, Any]:
    """The defaults of a section's own settings, as a file has them."""
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if not dataclasses.is_dataclass(value) and name != "tls"
    }


def test_the_page_has_every_setting_with_its_default() -> None:
    config = Config()
    sections = {name: value for name, value in vars_of(config).items() if dataclasses.is_dataclass(value)}
    expected = {TOP: config, "tls": TlsConfig(), **sections}
    page = listed()
    assert page == {name: defaults(section) for name, section in expected.items()}
    for name, section in expected.items():
        assert list(page[name]) == list(defaults(section))


def vars_of(config: Config) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
