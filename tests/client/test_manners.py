"""The manners of the Python client, and the constants of both, as docs/stream-protocol.md has them.

js/test/manners.test.js holds the JavaScript client against the same table of errors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ibfast.client import protocol as stream_client
from ibfast.client import socket as stream_socket
from ibfast.client import transport as stream_link
from ibfast.client.protocol import Answer, Later, Output, Reply, StreamClient
from ibfast.client.updates import State
from ibfast.config import Config
from ibfast.errors import StreamError
from tests.support.stream_peer import channel_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stream-protocol.md").read_text(encoding="utf-8")
SCRIPT = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "js" / "src").rglob("*.js")))
((HEAD, LINES),) = re.findall(r"^\| (code \| first `subscribe`.*) \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
WHATS = HEAD.split(" | ")[1:]
CASES = [
    (cells[0].strip("`").replace("any other", "NEWS"), what, outcome)
    for cells in (line.strip("| ").split(" | ") for line in LINES.splitlines())
    for what, outcome in zip(WHATS, cells[1:], strict=True)
]
OPS = dict(zip(WHATS, ("subscribe", "subscribe", "update", "unsubscribe", "list"), strict=True))


def say(client: StreamClient, op: str, **values: Any) -> list[Output]:
    return client.receive(json.dumps({"op": op, **values}))


def asked(client: StreamClient) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.take_messages()]


def begin(client: StreamClient) -> None:
    client.connected()
    say(client, "welcome", protocol=1, heartbeat_s=10.0)


@pytest.mark.parametrize(("code", "what", "outcome"), CASES)
def test_what_an_error_means(code: str, what: str, outcome: str) -> None:
    client, op = StreamClient("json"), OPS[what]
    begin(client)
    wish = client.subscribe("AAPL")
    if what != WHATS[0]:
        (request,) = asked(client)
        say(client, "subscribed", id=request["id"], subscription=1, channels=[channel_of()])
    if what == WHATS[1]:
        client.disconnected()
        begin(client)
    elif op == "update":
        client.update(wish, 50)
    elif op == "unsubscribe":
        client.unsubscribe(wish)
    elif op == "list":
        client.ask("list")
    (request,) = asked(client)
    assert request["op"] == op
    output = say(client, "error", id=request["id"], code=code, message="no")
    if outcome.startswith("again"):
        (later,) = output
        assert isinstance(later, Later)
        assert outcome == f"again after {later.after_s:g} s"
        assert asked(client) == []
        client.subscribe("MSFT")
        assert len(asked(client)) == (code != "TOO_FAST")
        client.repeat(later)
        assert {**request, "id": 0} in [{**again, "id": 0} for again in asked(client)]
        return
    last = output[-1]
    assert isinstance(last, Answer | Reply)
    assert (last.error is None) == (outcome == "done")
    if outcome != "done":
        assert isinstance(last.error, StreamError)
        assert last.error.code == code
    assert wish.is_over == (op in ("subscribe", "unsubscribe"))
    assert any(isinstance(item, State) and item.state == "ENDED" for item in output) == (outcome == "ends")


def test_constants_are_those_of_the_page_in_both() -> None:
    script = dict(re.findall(r"^(?:export )?const (\w+) = (.*);$", SCRIPT, re.MULTILINE))
    config = Config()
    found = {
        "requests without an answer at a time": (stream_client.MOST_UNANSWERED, int(script["MOST_UNANSWERED"])),
        "silence after which a connection is given up": (
            stream_link.SILENT_HEARTBEATS, int(script["SILENT_HEARTBEATS"]),
        ),
        "wait for the connection and `welcome`": (config.connect_timeout_s, seconds(script["WELCOME_TIMEOUT_MS"])),
        "wait for the server's side to close": (stream_socket.CLOSE_S, seconds(script["CLOSE_TIMEOUT_MS"])),
    }  # fmt: skip
    rows = dict(re.findall(r"^\| (\D.*?) \| (.*) \|$", PAGE.split("## A client's manners")[1], re.MULTILINE))
    for what, (ours, theirs) in found.items():
        assert ours == theirs == int(re.split(r"\D", rows[what])[0]), what
    pauses = "2 ms; twice as long after each session that was ended for `TOO_FAST`, up to 1 s"
    assert rows["pause between two requests"] == pauses
    assert (stream_link.PAUSE_S, stream_link.MOST_PAUSE_S) == (0.002, 1.0)
    assert (seconds(script["PAUSE_MS"]), seconds(script["MOST_PAUSE_MS"])) == (0.002, 1.0)
    assert "from 1 s to 60 s, and is 1 s again after a connection of 30 s" in rows["pause before another connection"]
    reconnection = config.reconnection
    assert (reconnection.delay_s, reconnection.max_delay_s, reconnection.stable_s) == (1.0, 60.0, 30.0)
    assert script["DEFAULT_RECONNECT"] == "{ baseMs: 1_000, capMs: 60_000 }"
    assert seconds(script["STABLE_MS"]) == 30
    assert rows["largest message that is taken"] == "2^26 bytes"
    assert stream_socket.MOST_MESSAGE_BYTES == 1 << 26
    assert script["MAX_MESSAGE_BYTES"] == "1 << 26"


def seconds(milliseconds: str) -> float:
    return int(milliseconds.replace("_", "")) / 1000
