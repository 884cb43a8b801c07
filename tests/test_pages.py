"""The pages as a whole: README is short, every link leads somewhere, and every page can be found.

The rule of the file: it looks at links and lengths. That snippets run is the business of test_readme.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "README.md"
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "examples", ROOT / "js", ROOT / "benchmarks")
    for path in folder.glob("*.md")
)
MOST_README_LINES = 150
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z]+:")
CLOSING_LINE = r"messages [\d,]+ \| records [\d,]+ \| lost 0 \| decode \d+ ns/message \| socket to reader .* 0 left out"


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def links(text: str) -> list[str]:
    """The targets of a text's links that are not addresses of other sites."""
    return [target for target in LINK.findall(CODE.sub("", text)) if not ELSEWHERE.match(target)]


def anchors(text: str) -> set[str]:
    """The anchors of a text's headings, as forges make them."""
    found: dict[str, int] = {}
    names = set()
    for heading in HEADING.findall(text):
        plain = re.sub(r"[^\w\- ]", "", LINK.sub("", heading).lower()).replace(" ", "-")
        count = found[plain] = found.get(plain, -1) + 1
        names.add(f"{plain}-{count}" if count else plain)
    return names


def broken(path: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target in links(text):
        name, _, anchor = target.partition("#")
        page = (path.parent / unquote(name)).resolve() if name else path
        if not page.exists() or (anchor and anchor not in anchors(prose(page) if name else text)):
            found.append(target)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    assert broken(path, prose(path)) == []


def test_readme_has_at_most_150_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_README_LINES


def test_readme_has_the_two_commands() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert {"    make demo", "    make test"} <= set(lines)


def test_the_index_lists_every_page() -> None:
    listed = set(links(prose(INDEX)))
    assert {path.name for path in INDEX.parent.glob("*.md") if path != INDEX} <= listed


def test_the_picture_is_a_run_of_the_demo_as_its_script_draws_it() -> None:
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    command, *lines, first, second = [text.text or "" for text in ElementTree.fromstring(picture) if text.text]
    assert command.startswith("$ ibfast demo")
    assert lines[0].startswith("connected to 127.0.0.1:")
    assert re.fullmatch(CLOSING_LINE, f"{first} | {second}")
    script = runpy.run_path(str(ROOT / "docs" / "demo_picture.py"))
    assert script["picture"]("\n".join([*lines, f"{first} | {second}"])) == picture


@pytest.mark.parametrize(
    "text",
    ["[a](nowhere.md)", "[a](docs/read.md#nowhere)", "[a](#nowhere)\n# Somewhere", "![a](docs/nowhere.svg)"],
)
def test_a_link_that_leads_nowhere_is_found(text: str) -> None:
    assert len(broken(README, text)) == 1


def test_a_link_that_leads_somewhere_is_none() -> None:
    text = "# A `b`: c\n[x](#a-b-c) [y](docs/read.md#last-values) [z](https://example.com/nowhere) `[code](nowhere)`"
    assert broken(README, text) == []
