"""The JavaScript client: its own tests, and its program against the real server, in Node and in a headless Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest

from ibfast.fanout.server import FanoutServer
from ibfast.records import Kind
from tests.support.fanout_client import serving
from tests.support.fanout_desk import Desk
from tests.support.js_recording import recording
from tests.support.loops import Run

JS = Path(__file__).parents[2] / "js"
SEED = 20260211
SESSIONS = 300
LEAST_NODE = (20, 10)
WEB_SOCKET = "--experimental-websocket"  # Node 20 has one, but not without being asked; to Node 22 it is nothing new
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
END = 999.0
"""The price at which the program ends."""


def skip(capsys: pytest.CaptureFixture[str], reason: str) -> None:
    with capsys.disabled():
        print(f"\nskipped: {reason}")
    pytest.skip(reason)


@pytest.fixture
def node(capsys: pytest.CaptureFixture[str]) -> str:
    """The path of a Node that has a WebSocket."""
    path = shutil.which("node")
    if path is None:
        skip(capsys, "the JavaScript client is not tested, as there is no node")
    version = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_NODE:
        skip(capsys, f"the JavaScript client is not tested, as node is {version.strip()} and not 20.10 or later")
    return str(path)


@pytest.fixture
def chromium(capsys: pytest.CaptureFixture[str]) -> str:
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        skip(capsys, "the JavaScript client is not tested in a browser, as there is no chromium")
    return str(path)


def test_its_own_tests(node: str, tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    file.write_text(json.dumps(recording(SEED, SESSIONS)))
    tests = sorted(str(path) for path in (JS / "test").glob("*.test.js"))
    command = [node, WEB_SOCKET, "--test", *tests]
    environment = os.environ | {"IBFAST_RECORDING": str(file)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^\S (pass|fail|skipped) (\d+)$", done.stdout, re.MULTILINE))
    assert (int(counts["pass"]) >= 40, counts["fail"], counts["skipped"]) == (True, "0", "0")


def test_the_recording_has_every_family_and_much_that_is_refused() -> None:
    messages = [message for one in recording(SEED, SESSIONS) for message in one["messages"]]
    batches = [batch for message in messages for batch in message.get("batches", ())]
    assert {batch["family"] for batch in batches} == {"quotes", "trades", "ticks", "depth", "bars", "greeks"}
    assert sum("refused" in message for message in messages) > SESSIONS // 4
    assert sum(batch["length"] for batch in batches) > 10_000


# --- against the server ---


def test_in_node(run: Run, node: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving() as (server, desk), reports() as (page, reported):
            command = [node, WEB_SOCKET, str(JS / "test" / "program.mjs"), f"{page}/report", address(server)]
            with running(command, tmp_path) as process:
                await converse(server, desk, reported)
                assert await asyncio.to_thread(process.wait, 10) == 0

    run(test())


def test_in_chromium(run: Run, chromium: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving() as (server, desk), reports() as (page, reported):
            command = [
                chromium, "--headless", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}",
                "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
                *(["--no-sandbox"] if sys.platform == "linux" else []),
                f"{page}/test/page.html?url={quote(address(server))}",
            ]  # fmt: skip
            with running(command, tmp_path):
                await converse(server, desk, reported)

    run(test())


def address(server: FanoutServer) -> str:
    return "ws://{}:{}/stream".format(*server.address)


async def converse(server: FanoutServer, desk: Desk, reported: asyncio.Queue[dict[str, Any]]) -> None:
    """Have the program subscribe, lose its connection, come back, and get everything exactly once."""
    said: list[dict[str, Any]] = []
    subscribed = await hear(said, reported, lambda one: "subscribed" in one)
    assert subscribed["subscribed"] == ["AAPL", "AAPL"]
    for i in range(40):
        desk.trade("AAPL", 231.05 + i / 100, 231.055 + i / 7)
        desk.quote("AAPL", 231.0 + i, 231.01 + i)
        if i == 20:
            (connection,) = server.connections
            connection.transport.abort()
        await asyncio.sleep(0.002)
    await hear(said, reported, lambda one: "trades" in one and one.get("state") == "RESUMED")
    await hear(said, reported, lambda one: "quotes" in one and last_bid(one) == 270.0)
    desk.trade("AAPL", END)
    await hear(said, reported, lambda one: "done" in one)
    assert not [one for one in said if one.get("client") == "error"]
    check_trades(said, desk)
    assert said[-3] == {"listed": 2, "data": "there?", "refusal": "UNKNOWN_CONTRACT"}
    while server.connections:
        await asyncio.sleep(0.001)


def check_trades(said: list[dict[str, Any]], desk: Desk) -> None:
    events = [one for one in said if "trades" in one]
    assert "lag" not in [one["trades"] for one in events]
    news = [row for one in events if not one.get("snapshot") for row in one.get("rows", ())]
    expected = desk.feed.trades.reader(start="oldest").read()
    for name in ("seq", "price", "size", "kind"):
        assert [row[name] for row in news] == expected[name].tolist()
    assert [int(row["recv_ns"]) for row in news] == expected["recv_ns"].tolist()
    assert {row["kind"] for row in news} == {Kind.L1_LAST}


def last_bid(one: dict[str, Any]) -> float | None:
    rows = one.get("rows")
    return rows[-1]["bid"] if rows else None


async def hear(
    said: list[dict[str, Any]],
    reported: asyncio.Queue[dict[str, Any]],
    is_awaited: Callable[[dict[str, Any]], bool],
) -> dict[str, Any]:
    """Return the first of all that was said for which this holds; keep what comes meanwhile."""
    while not (found := [one for one in said if is_awaited(one)]):
        said.append(await reported.get())
        assert "failed" not in said[-1], said
    return found[0]


@contextlib.asynccontextmanager
async def reports() -> AsyncIterator[tuple[str, asyncio.Queue[dict[str, Any]]]]:
    """Serve the client's files over HTTP, and queue what is posted."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    class Handler(SimpleHTTPRequestHandler):
        extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            loop.call_soon_threadsafe(queue.put_nowait, said)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(JS))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", queue
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and what it starts; end them all."""
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
