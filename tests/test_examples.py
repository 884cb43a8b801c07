"""Every program of examples/ as a user runs it: a process, the embedded gateway, what it prints.

The rule of the file: the environment names ports, and nothing of a program is changed. What is printed is checked by
what must hold of any market: a bid below its ask, a book in order, as many rows as were asked for.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import ibfast
from tests.support.loops import WATCHDOG_S

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs", ".sh"))
MOST_LINES = 40
LEAST_NODE = (20, 10)
SIM = ("sim", "--until-eof", "--no-pacing", "--rate", "2000")
PIPE = subprocess.PIPE
# A program starts an interpreter or two before its own work begins.
PROGRAM_WATCHDOG_S = 2 * WATCHDOG_S


class Gateway(NamedTuple):
    process: subprocess.Popen[str]
    port: int


class Server(NamedTuple):
    url: str
    token: str


def environment(**settings: object) -> dict[str, str]:
    """The environment of this process with no settings of ibfast but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("IBFAST_")}
    return inherited | {name: str(value) for name, value in settings.items()}


@contextlib.contextmanager
def running_gateway(port: int = 0) -> Iterator[Gateway]:
    command = [sys.executable, "-m", "ibfast", *SIM, "--port", str(port)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        yield Gateway(process, int(process.stdout.readline().rpartition(":")[2]))
        process.communicate(timeout=WATCHDOG_S)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as started:
        yield started


@pytest.fixture(scope="module")
def server(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What serve_with_tokens.sh serves, with this interpreter's ibfast as the command."""
    if os.name != "posix":
        pytest.skip("the program is for a shell")
    folder = tmp_path_factory.mktemp("served")
    command = folder / "ibfast"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ibfast "$@"\n')
    command.chmod(0o700)
    environ = environment(
        IBFAST_PORT=gateway.port,
        IBFAST_FANOUT_PORT=0,
        PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
        TMPDIR=folder,
    )
    program = ["sh", str(EXAMPLES / "serve_with_tokens.sh")]
    with subprocess.Popen(program, stdout=PIPE, stderr=PIPE, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            printed = {}
            for line in process.stdout:
                name, _, value = line.partition(" ")
                printed[name] = value.strip()
                if name == "try":
                    break
            assert any(line.startswith("ibfast: connected") for line in process.stderr)
            yield Server(printed["stream"], printed["token"])
        finally:
            process.terminate()


def run(name: str, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    path = EXAMPLES / name
    command = [shutil.which("node") or "node", "--experimental-websocket", "--no-warnings"]
    if path.suffix == ".py":
        command = [sys.executable, "-W", "error"]
    return subprocess.run(
        [*command, str(path), *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PROGRAM_WATCHDOG_S,
        check=False,
    )


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def fields(pattern: str, line: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, line)
    assert match is not None, line
    return match.groups()


# --- the connection ---


def test_trades_to_numpy(gateway: Gateway) -> None:
    lines = lines_of(run("trades_to_numpy.py", IBFAST_PORT=gateway.port))
    assert len(lines) == 5
    for line in lines:
        count, volume, vwap = map(float, fields(r"(\d+) trades, volume (\S+), vwap (\S+)", line))
        assert count >= 1
        assert volume > 0
        assert vwap > 0


def test_quotes_snapshot(gateway: Gateway) -> None:
    rows = [line.split() for line in lines_of(run("quotes_snapshot.py", IBFAST_PORT=gateway.port))]
    assert [row[0] for row in rows] == ["AAPL", "MSFT", "NVDA", "SPY"]
    assert all(0 < float(bid) < float(ask) for _, _, bid, ask, _ in rows)


def test_order_book(gateway: Gateway) -> None:
    rows = [tuple(map(float, line.split())) for line in lines_of(run("order_book.py", IBFAST_PORT=gateway.port))]
    bids, asks = [row[1] for row in rows], [row[2] for row in rows]
    assert len(rows) == 5
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert bids[0] < asks[0]
    assert all(row[0] > 0 and row[3] > 0 for row in rows)


@pytest.mark.skipif(os.name != "posix", reason="named feeds need Linux or macOS")
def test_two_processes(gateway: Gateway) -> None:
    first, second = lines_of(run("two_processes.py", IBFAST_PORT=gateway.port))
    (filler,) = fields(r"process (\d+) fills the feed", first)
    reader, count, notional = fields(r"process (\d+) read (\d+) trades, notional (\S+), lost 0", second)
    assert filler != reader
    assert int(count) >= 20
    assert float(notional) > 0


def test_history_bars(gateway: Gateway) -> None:
    *bars, last = lines_of(run("history_bars.py", IBFAST_PORT=gateway.port))
    count, highest, lowest = map(float, fields(r"(\d+) bars, highest (\S+), lowest (\S+)", last))
    assert count >= len(bars) == 3
    begins = [fields(r"(\S+ \d\d:\d[05]) .*", bar)[0] for bar in bars]
    assert begins == sorted(set(begins))
    for bar in bars:
        first, high, low, close = map(float, bar.split()[2:])
        assert lowest <= low <= min(first, close) <= max(first, close) <= high <= highest


def test_contract_details(gateway: Gateway) -> None:
    lines = lines_of(run("contract_details.py", IBFAST_PORT=gateway.port))
    assert "match    AAPL STK USD" in lines
    assert "details  MICROSOFT CORP, con_id 272093, min tick 0.01" in lines
    assert any(re.fullmatch(r"hours    \d{8}:\S+ America/New_York", line) for line in lines)
    assert lines[-1] == "qualify  EUR.USD, con_id 12087792, exchange IDEALPRO"


def test_gaps_reported() -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "gaps_reported.py")]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running_gateway())
        environ = environment(IBFAST_PORT=first.port)
        program = stack.enter_context(subprocess.Popen(command, env=environ, stdout=PIPE, stderr=PIPE, text=True))
        stack.callback(program.kill)
        assert program.stdout is not None
        assert program.stdout.readline() == "subscribed to AAPL\n"
        assert program.stdout.readline() == "data flows\n"
        first.process.kill()
        stack.enter_context(running_gateway(first.port))
        printed, errors = program.communicate(timeout=PROGRAM_WATCHDOG_S)
    assert program.returncode == 0, errors
    begin, end = printed.splitlines()
    assert int(*fields(r"CONNECTION_LOST: data may be missing after seq (\d+)", begin)) > 0
    assert float(*fields(r"CONNECTION_LOST: data is back, (\S+) s may be missing", end)) > 0


def test_pool_of_two(gateway: Gateway) -> None:
    lines = lines_of(run("pool_of_two.py", IBFAST_PORT=gateway.port))
    address = f"127.0.0.1:{gateway.port}"
    assert lines == [
        f"{address}/21: 2 subscriptions",
        f"{address}/22: 2 subscriptions",
        "quotes of AAPL, MSFT, NVDA, SPY",
    ]


def test_monitor_events(gateway: Gateway) -> None:
    lines = lines_of(run("monitor_events.py", IBFAST_PORT=gateway.port))
    events = [line.split()[1] for line in lines if line.startswith("event ")]
    assert events[0] == "state"
    assert "event    live {'subscription': 'MarketData AAPL'}" in lines
    assert "health   ok=True state=CONNECTED reasons=()" in lines
    assert "metric   ibfast_healthy 1.0" in lines
    assert 'metric   ibfast_subscriptions{state="LIVE"} 1.0' in lines


# --- the fan-out ---


def check_quotes(lines: list[str]) -> None:
    """The state of AAPL first, then four changes of it."""
    kinds = []
    for line in lines:
        bid, ask, kind = fields(r"AAPL (\S+) (\S+) (state|news)", line)
        assert 0 < float(bid) < float(ask)
        kinds.append(kind)
    assert len(kinds) == 5
    assert kinds[-1] == "news"
    assert kinds == sorted(kinds, reverse=True)


def test_serve_with_tokens_serves_websocket_subscriber(server: Server) -> None:
    settings = {"IBFAST_STREAM_URL": server.url, "IBFAST_STREAM_TOKEN": server.token}
    check_quotes(lines_of(run("websocket_subscriber.py", **settings)))


def test_serve_with_tokens_serves_nothing_else(server: Server) -> None:
    settings = {"IBFAST_STREAM_URL": server.url, "IBFAST_STREAM_TOKEN": server.token}
    done = run("websocket_subscriber.py", "MSFT", **settings)
    assert done.returncode == 1
    assert "StreamError: " in done.stderr
    assert done.stdout == ""
    assert run("websocket_subscriber.py", IBFAST_STREAM_URL=server.url).returncode == 1


def test_subscriber_of_node(server: Server) -> None:
    node = shutil.which("node")
    version = "" if node is None else subprocess.check_output([node, "--version"], text=True)
    if node is None or tuple(map(int, re.findall(r"\d+", version)[:2])) < LEAST_NODE:
        pytest.skip("there is no node of version 20.10 or later")
    settings = {"IBFAST_STREAM_URL": server.url, "IBFAST_STREAM_TOKEN": server.token}
    check_quotes(lines_of(run("subscriber.mjs", **settings)))


# --- the folder ---


def purpose(path: Path) -> str:
    """The one line that says what a program is for."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    comment = next(line for line in text.splitlines() if not line.startswith("#!"))
    return comment.lstrip("/# ")


def test_the_folder_has_eight_to_twelve_programs_and_a_test_for_each() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert 8 <= len(PROGRAMS) <= 12
    assert [path.name for path in PROGRAMS if f'"{path.name}"' not in tests] == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_program_is_short_and_listed_with_its_purpose(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert purpose(path).endswith(".")
    assert "\n" not in purpose(path)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"| [{path.name}]({path.name}) | {purpose(path)} |" in listed


@pytest.mark.parametrize("path", [path for path in PROGRAMS if path.suffix == ".py"], ids=lambda path: path.name)
def test_a_program_imports_public_names_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ibfast":
            assert node.module == "ibfast"
            assert {alias.name for alias in node.names} <= set(ibfast.__all__)
        elif isinstance(node, ast.Import):
            assert all(alias.name.partition(".")[0] != "ibfast" for alias in node.names)
