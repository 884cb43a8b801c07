"""The benchmarks run, and their verification verifies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import decode, stream
from benchmarks.peers.worker import Events
from ibfast.sim.codec import TickByTickBidAsk, TickByTickLast, TickGeneric, TickPrice, TickSize, TickString

ROOT = Path(__file__).parents[2]
MESSAGES = 1_500


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, text=True, capture_output=True)


def test_help_names_every_benchmark() -> None:
    result = command("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("decode",))
    assert "does not show" in command("decode", "--help").stdout


def test_a_missing_package_is_said_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """An interpreter that finds this package's dependencies, but not what the test group brings."""
    (tmp_path / "trustme.py").write_text("raise ModuleNotFoundError(\"No module named 'trustme'\", name='trustme')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "decode", "--quick"], cwd=ROOT, env=environment, text=True,
        capture_output=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "the benchmarks need trustme: " in result.stderr
    assert "pip install -e . --group test" in result.stderr


def test_decode_verifies_every_peer_on_its_dialects() -> None:
    result = command("decode", "--quick", "--json", "--messages", str(MESSAGES))
    assert result.returncode == 0, result.stderr
    lines = json.loads(result.stdout)
    assert {(line["peer"].split()[0], line["dialect"]) for line in lines} == {
        *((peer, dialect) for peer in ("floor", "C", "ibfast", "ibapi") for dialect in decode.DIALECTS),
        ("ib_async", "text"),
    }
    for line in lines:
        assert line["verified"]
        assert line["messages"] == MESSAGES
        assert line["ns_per_message"] > 0
        assert line["ratio"] > 0


@pytest.mark.parametrize("name", ["C parser", "ibfast"])
def test_a_wrong_value_is_noticed(name: str, tmp_path: Path) -> None:
    """Verification of a stream in which one price differs by a cent from what was meant."""
    ticks = stream.ticks(500)
    number, price = next((i, tick) for i, tick in enumerate(ticks) if isinstance(tick, TickPrice))
    altered = TickPrice(price.req_id, price.tick_type, price.price + 0.01, price.size, price.attrib_mask)
    files = {"meant": ticks, "altered": [*ticks[:number], altered, *ticks[number + 1 :]]}
    peers = {"C parser": decode.cparser_peer, "ibfast": decode.ibfast_peer}
    peer = peers[name]()
    try:
        for label, messages in files.items():
            path = tmp_path / label
            path.write_bytes(stream.encoded(messages, 176))
            peer.ask(do="load", stream=label, path=str(path), server_version=176)
        assert decode.is_verified(peer, "meant", ticks)
        assert not decode.is_verified(peer, "altered", ticks)
    finally:
        peer.close()


def test_a_peer_that_dies_is_an_error(tmp_path: Path) -> None:
    peer = decode.cparser_peer()
    path = tmp_path / "broken"
    path.write_bytes(b"\0\0\0\x04abcd")
    peer.ask(do="load", stream="broken", path=str(path), server_version=176)
    with pytest.raises(RuntimeError, match="died"):
        peer.ask(do="verify", stream="broken")
    peer.close()


def test_the_stream_is_what_it_says() -> None:
    ticks = stream.ticks(20_000)
    assert ticks == stream.ticks(20_000)
    assert ticks != stream.ticks(20_000, seed=2)
    share = {
        kind: sum(isinstance(tick, kind) for tick in ticks) / len(ticks)
        for kind in (TickPrice, TickSize, TickString, TickGeneric, TickByTickLast, TickByTickBidAsk)
    }
    assert share[TickPrice] == pytest.approx(0.45 / 1.0, abs=0.09)
    assert share[TickSize] == pytest.approx(0.35, abs=0.08)
    assert share[TickByTickLast] + share[TickByTickBidAsk] == pytest.approx(0.15, abs=0.04)
    assert {tick.req_id for tick in ticks} == set(range(1, stream.LINES + 1))


def test_events_differ_where_values_or_their_order_do() -> None:
    digests = set()
    for values in ([(1, 8, 2.0), (1, 5, 3.0)], [(1, 5, 3.0), (1, 8, 2.0)], [(1, 8, 2.0)], [(1, 8, -2.0), (1, 5, 3.0)]):
        events = Events()
        for value in values:
            events.size(*value)
        digests.add((events.count, events.digest))
    assert len(digests) == 4
