"""`ibfast demo` as a user runs it: a process, its table, its closing line, its exit code."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ibfast.commands.demo import DemoOptions
from ibfast.commands.demo import demo as run_demo
from ibfast.errors import NotConnectedError
from ibfast.sim.codec import TickPrice
from ibfast.sim.gateway import Gateway
from ibfast.wire.requests import MarketData
from tests.support.loops import Run, until

RECORDED = Path(__file__).parents[3] / "shared" / "ticks" / "ib_recorded_20220107.csv.gz"
HEADER = "ts_ns,symbol,kind,price,size,bid,ask,bid_size,ask_size\n"
CLOSING_LINE = re.compile(
    r"messages ([\d,]+) \| records ([\d,]+) \| lost ([\d,]+) \| decode \d+ ns/message"
    r" \| socket to reader p50 [\d,]+ µs, p99 [\d,]+ µs"
    r"(?: \| by WebSocket ([\d,]+) rows, ([\d,]+) left out)?"
    r"(?: \| identical with the file ([\d,]+) of ([\d,]+) events)?$"
)


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ibfast", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def closing_figures(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stdout + done.stderr
    match = CLOSING_LINE.fullmatch(done.stdout.rstrip().splitlines()[-1])
    assert match is not None, done.stdout
    return [int(figure.replace(",", "")) for figure in match.groups() if figure is not None]


@pytest.mark.parametrize("server_version", [176, 203, 226])
def test_the_embedded_gateway_in_each_dialect(server_version: int) -> None:
    done = demo("--seconds", "1", "--server-version", str(server_version), "--rate", "3000")
    messages, records, lost, by_websocket, left_out = closing_figures(done)
    assert messages > 100
    assert records > 100
    assert lost == 0
    assert 0 < by_websocket <= records  # which it subscribed to a moment later
    assert left_out == 0
    assert re.search(r"^serves ws://127\.0\.0\.1:\d+/stream ", done.stdout, re.MULTILINE)
    assert f"server version {server_version}" in done.stdout
    assert "AAPL" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded ticks are not beside the checkout")
def test_recorded_ticks_arrive_exactly() -> None:
    done = demo("--ticks", str(RECORDED), "--speed", "0")
    _, records, lost, identical, events = closing_figures(done)
    assert (records, lost, identical, events) == (9616, 0, 9616, 9616)
    assert "ws://" not in done.stdout  # a subscriber's own requests would be no part of the file


def test_any_file_of_ticks_arrives_exactly(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(HEADER + "".join(random_rows(5000)))
    done = demo("--ticks", str(path), "--speed", "0", "--server-version", "176")
    _, records, lost, identical, events = closing_figures(done)
    assert (records, lost, identical, events) == (5000, 0, 5000, 5000)


def random_rows(count: int) -> list[str]:
    rng = random.Random(11)
    ts_ns = 1_700_000_000_000_000_000
    rows = []
    for _ in range(count):
        ts_ns += rng.randrange(50_000_000)
        symbol = rng.choice(["AAA", "BBB", "CCC"])
        price = rng.choice([f"{rng.uniform(1, 1e5):.{rng.randrange(9)}f}", repr(rng.uniform(0, 1e-3))])
        if rng.random() < 0.3:
            rows.append(f"{ts_ns},{symbol},T,{price},{rng.randrange(1, 10**6) / 1000},,,,\n")
        else:
            ask, ask_size = rng.choice([("", ""), (price, "0"), ("12.5", repr(rng.random()))])
            rows.append(f"{ts_ns},{symbol},Q,,,{price},{ask},{rng.randrange(10**6)},{ask_size}\n")
    return rows


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("time,price\n1,2\n", "time"),
        (HEADER + "1,AAA,T,abc,1,,,,\n", "abc"),
        (HEADER + "1,AAA,T,1.5\n", "fields"),
        ("", "line 1"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(content)
    done = demo("--ticks", str(path))
    assert done.returncode == 1
    assert "ticks.csv" in done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_symbol_is_left_out_and_said() -> None:
    done = demo("--seconds", "0.5", "--symbols", "AAPL,NOSUCH")
    assert done.returncode == 0
    assert "NOSUCH is left out" in done.stderr
    assert "200" in done.stderr


def test_nothing_but_unknown_symbols_is_a_failure() -> None:
    done = demo("--seconds", "0.5", "--symbols", "NOSUCH")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_refusal_stands_below_the_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    async def case() -> None:
        async with Gateway(pacing=False) as gateway:
            gateway.faults.refuse(MarketData, 354, "Requested market data is [not] subscribed", times=2)
            await run_demo(DemoOptions(seconds=5.0, port=gateway.port, symbols=("AAPL", "MSFT")))

    run(case())
    lines = capsys.readouterr().out.splitlines()
    (told,) = [number for number, line in enumerate(lines) if "error 354" in line]
    (end,) = [number for number, line in enumerate(lines) if line.startswith("└")]
    assert told > end
    assert lines[told].rstrip() == "AAPL, MSFT: error 354: Requested market data is [not] subscribed"


def test_the_loss_of_the_connection_is_no_matter_of_the_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    async def case() -> None:
        async with Gateway(pacing=False) as gateway:
            demonstration = asyncio.create_task(
                run_demo(DemoOptions(seconds=60.0, port=gateway.port, symbols=("AAPL",)))
            )
            await until(lambda: gateway.received[MarketData] and gateway.sent[TickPrice])
            gateway.sessions[0].close()
            with pytest.raises(NotConnectedError, match="the gateway closed the connection"):
                await demonstration

    run(case())
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "AAPL" in row
    assert "the " not in row  # nor a part of the sentence, cut short in a cell


def test_a_gateway_that_dies_ends_the_demo_with_a_sentence() -> None:
    sim = [sys.executable, "-m", "ibfast", "sim", "--port", "0"]
    run_demo_of = [sys.executable, "-u", "-m", "ibfast", "demo", "--symbols", "AAPL", "--seconds", "60", "--port"]
    with subprocess.Popen(sim, stdout=subprocess.PIPE, text=True, encoding="utf-8") as gateway:
        assert gateway.stdout is not None
        port = gateway.stdout.readline().rpartition(":")[2].strip()
        pipe = subprocess.PIPE
        with subprocess.Popen([*run_demo_of, port], stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("connected to ")
            gateway.kill()
            shown, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("ibfast: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in shown
