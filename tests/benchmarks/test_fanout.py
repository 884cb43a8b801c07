"""The fan-out benchmark runs, and its receiver notices every byte that is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import fanout
from benchmarks.fanout.rig import HERE, SERVERS, Child, Peer, RigError, built

ROOT = Path(__file__).parents[2]
FRAME = b"\x82\x40" + bytes(8) + bytes(range(8, 64))
NEXT = b"\x82\x40\x01" + bytes(7) + bytes(range(8, 64))
PEERS = {
    "C epoll", "ibfast, uvloop", "ibfast, asyncio", "transport.write, uvloop", "websockets.broadcast, uvloop",
    "picows, uvloop",
}  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fan-out is measured on Linux")


def test_all_peers_deliver_and_are_compared() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "fanout", "--quick", "--json"], cwd=ROOT, text=True, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    lines = json.loads(result.stdout)
    # Whether npm can install anything depends on the machine; what was left out is said.
    peers = PEERS if "Node ws is left out" in result.stderr else PEERS | {"Node ws"}
    assert {(line["peer"], line["subscribers"], line["nbytes"], line["batch"]) for line in lines} == {
        (peer, subscribers, nbytes, batch)
        for peer in peers
        for subscribers in fanout.QUICK_SUBSCRIBERS
        for nbytes in fanout.NBYTES
        for batch in fanout.BATCHES
    }
    for line in lines:
        assert line["messages"] > 0
        assert line["us_per_message"] > 0
        assert line["ratio"] == 1 or line["peer"] != "C epoll"


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        (FRAME + NEXT, "all"),
        (FRAME + NEXT + b"\x82", "more has come than was expected"),
        (FRAME + FRAME, "other bytes have come than were expected"),
        (NEXT + FRAME, "other bytes have come than were expected"),
        (FRAME[:-1] + b"!" + NEXT, "other bytes have come than were expected"),
        (FRAME + NEXT[:-1], "a connection was closed"),
    ],
)
def test_the_receiver_judges(sent: bytes, verdict: str) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            expecting.wait()
            connection.sendall(sent)
            if len(sent) >= len(FRAME + NEXT):
                judged.wait()

    expecting, judged = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        receiver = Child([str(built(HERE / "receiver.c")), str(listener.getsockname()[1])], None)
        try:
            assert receiver.ask("connect 1") == "1"
            assert receiver.ask("expect 0 2 64") == str(len(FRAME + NEXT))
            expecting.set()
            assert receiver.ask("await") == verdict
        finally:
            expecting.set()
            judged.set()
            receiver.close()
            server.join()


def test_time_is_that_of_the_server() -> None:
    peer = Peer("C epoll", [str(built(SERVERS / "server.c"))])
    try:
        peer.connect(10)
        few, many = peer.turn(1, 64, 1), peer.turn(2_000, 2_048, 16)
        assert 0 < few < many
    finally:
        peer.close()


def test_a_server_that_dies_is_an_error() -> None:
    peer = Peer("C epoll", [str(built(SERVERS / "server.c"))])
    try:
        peer.connect(2)
        peer.server.process.kill()
        with pytest.raises(RigError):
            peer.turn(1, 64, 1)
    finally:
        peer.close()


def test_more_files_than_the_system_allows_are_said() -> None:
    with pytest.raises(RigError, match="open files are needed"):
        fanout.allow_files(1 << 40)
