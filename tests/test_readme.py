"""Every Python snippet of the documentation runs as it stands, against the embedded gateway.

The rule of the file: only ports, the name of the shared feed and the folder are changed, and an `async for`, which
would go on for ever, ends after its first turn. What needs a package that is not here is compiled, and its imports of
ibfast are resolved.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import prometheus_client
import pytest

from ibfast import Config, Feed, SecurityConfig
from ibfast.fanout.access.token_files import load_tokens
from ibfast.fanout.access.tokens import Grant
from tests.support.loops import WATCHDOG_S

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOKEN_COMMAND = re.compile(r"^    (ibfast token .*|.* > jwt\.secret\))$", re.MULTILINE)
INDENTED_PYTHON = re.compile(r"^    (?:import |from \w+ import |async |await |with |\w+ = |@)", re.MULTILINE)
PORTS = (7497, 7498)
FEED_NAME = f"readme-{os.getpid()}"
GATEWAY = ("sim", "--port", "0", "--until-eof", "--no-pacing", "--rate", "2000")
SERVER = ("serve", "--sim", "--listen", "127.0.0.1:0", "--rate", "2000")
SERVED = "ws://127.0.0.1:8765/stream"
LEAST_NODE = (20, 10)


def blocks(language: str) -> list[Any]:
    """The blocks of one language, each named by its file and line."""
    return [
        pytest.param(match[2], id=f"{path.name}-{text.count(chr(10), 0, match.start()) + 1}")
        for path in DOCUMENTS
        for text in [path.read_text(encoding="utf-8")]
        for match in BLOCK.finditer(text)
        if match[1] == language
    ]


class OneTurn(ast.NodeTransformer):
    """Ends every `async for` after its first turn."""

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        node.body.append(ast.Break())
        return node


def compiled(source: str) -> CodeType:
    tree = ast.fix_missing_locations(OneTurn().visit(ast.parse(source)))
    return compile(tree, "<snippet>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def imported(source: str) -> list[tuple[str, str]]:
    """Each module that a snippet imports, with the name that is taken of it, if any."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def is_absent(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is None


def execute(source: str) -> dict[str, Any]:
    """Run a snippet as a notebook does; return its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    code = compiled(source)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)
        return names

    async def watched() -> None:
        async with asyncio.timeout(WATCHDOG_S):
            await eval(code, names)

    asyncio.run(watched())
    return names


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, str]]:
    """What stands in the documentation → what listens here."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "ibfast", *GATEWAY]
    gateways = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8") for _ in PORTS]
    try:
        found = {}
        for port, gateway in zip(PORTS, gateways, strict=True):
            assert gateway.stdout is not None
            found[f"port={port}"] = "port=" + gateway.stdout.readline().rpartition(":")[2].strip()
        yield found
    finally:
        for gateway in gateways:
            gateway.communicate(input="", timeout=WATCHDOG_S)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The stream of a server that runs."""
    command = [sys.executable, "-m", "ibfast", *SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as server:
        try:
            assert server.stdout is not None
            assert server.stderr is not None
            stream = next(line.split()[1] for line in server.stdout if line.startswith("stream "))
            assert server.stderr.readline().startswith("ibfast: connected")
            yield stream
        finally:
            server.terminate()


@pytest.fixture
def localized(ports: dict[str, str], request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Put what is here in the place of what the documentation names."""

    def replaced(source: str) -> str:
        for there, here in ports.items():
            source = source.replace(there, here)
        if SERVED in source:
            source = source.replace(SERVED, request.getfixturevalue("served"))
        return source.replace('"desk"', repr(FEED_NAME))

    return replaced


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder with the file of settings that the documentation shows; no server outlives the test."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("IBFAST_")]:
        monkeypatch.delenv(name)
    (settings,) = [block for block in blocks("toml") if "client_ids" in block.values[0]]
    (tmp_path / "ibfast.toml").write_text(settings.values[0])
    start, started = prometheus_client.start_http_server, []
    monkeypatch.setattr(
        prometheus_client, "start_http_server", lambda _, **options: started.append(start(0, "127.0.0.1", **options))
    )
    yield
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("source", blocks("python"))
@pytest.mark.usefixtures("surroundings")
def test_a_snippet_runs_as_it_stands(source: str, localized: Callable[[str], str]) -> None:
    absent = [module for module, _ in imported(source) if is_absent(module)]
    if absent:
        compiled(source)
        for module, name in imported(source):
            if module.partition(".")[0] == "ibfast":
                getattr(importlib.import_module(module), name)
        return
    source = localized(source)
    if "Feed.attach(" in source:
        with Feed(1024, name=FEED_NAME) as feed:
            feed.add_history("trades", np.ones(2, feed.dtypes["trades"]))
            assert execute(source)["notional"] == 2.0
    else:
        names = execute(source)
        if "Feed(name=" in source:
            names["manager"].feed.close()


@pytest.mark.parametrize("source", blocks("js"))
def test_a_snippet_for_node_shows_data(source: str, served: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    version = "" if node is None else subprocess.check_output([node, "--version"], text=True)
    if node is None or tuple(map(int, re.findall(r"\d+", version)[:2])) < LEAST_NODE:
        pytest.skip("there is no node of version 20.10 or later")
    program = tmp_path / "program.mjs"
    program.write_text(source.replace(SERVED, served).replace('"./js/', f'"{(ROOT / "js").as_uri()}/'))
    command = [node, "--experimental-websocket", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            # The first rows can have one side only: both come with the first ticks.
            rows = (map(float, line.split()) for line in itertools.islice(process.stdout, 100))
            assert any(0 < bid < ask for bid, ask in rows)
        finally:
            process.kill()


@pytest.mark.parametrize("settings", blocks("toml"))
def test_settings_that_are_shown_are_possible(settings: str, tmp_path: Path) -> None:
    path = tmp_path / "ibfast.toml"
    path.write_text(settings)
    assert Config.load(path, environ={}) != Config()


@pytest.mark.skipif(os.name != "posix", reason="the commands are for a shell")
@pytest.mark.usefixtures("surroundings")
def test_the_tokens_that_are_shown_are_let_in() -> None:
    commands = [found for page in DOCUMENTS for found in TOKEN_COMMAND.findall(page.read_text(encoding="utf-8"))]
    assert len(commands) == 5
    shell = ["sh", "-e", "-c", "\n".join(['ibfast() { "$PYTHON" -m ibfast "$@"; }', *commands])]
    environ = os.environ | {"PYTHON": sys.executable}
    wait_s = len(commands) * WATCHDOG_S
    done = subprocess.run(shell, env=environ, capture_output=True, text=True, check=True, timeout=wait_s)
    tokens = load_tokens(SecurityConfig(tokens_file="tokens.toml", jwt_secret_file="jwt.secret"))
    grants = [tokens.check(token, time.time()) for token in done.stdout.split()]
    names = [grant.name for grant in grants if isinstance(grant, Grant)]
    assert names == ["analyst", "screen", "visitor", "prometheus"]


def test_there_are_snippets_and_none_hides_in_indentation() -> None:
    assert len(blocks("python")) >= 10
    for path in DOCUMENTS:
        prose = BLOCK.sub("", path.read_text(encoding="utf-8"))
        assert INDENTED_PYTHON.search(prose) is None, path


def test_a_snippet_that_lacks_an_import_fails() -> None:
    with pytest.raises(NameError):
        execute("print(GapCause(1))")


def test_an_endless_loop_has_one_turn() -> None:
    names = execute(
        textwrap.dedent("""
            async def numbers():
                number = 0
                while True:
                    yield (number := number + 1)
            stream, seen = numbers(), []
            async for number in stream:
                seen.append(number)
            await stream.aclose()
        """)
    )
    assert names["seen"] == [1]
