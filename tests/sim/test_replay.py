"""Recorded ticks are played exactly: every row once, in order, with its values and its spacing."""

from __future__ import annotations

import asyncio
import gzip
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.contracts import Stock
from ibfast.errors import ConfigError
from ibfast.sim import codec
from ibfast.sim.clock import Clock
from ibfast.sim.events import Event, QuoteEvent, TradeEvent
from ibfast.sim.gateway import Gateway
from ibfast.sim.replay import COLUMNS, TickFile
from ibfast.wire import requests, responses
from tests.support.gateway_client import TIMEOUT_S, Client, Journal

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "ticks" / "ib_recorded_20220107.csv.gz"
NS = 1_000_000_000
FIRST_S = 1_641_535_089
HEADER = ",".join(COLUMNS)
ROWS = [
    "1641535089500000000,ABC,Q,,,443.6,,10800,",
    "1641535090000000001,ABC,Q,,,443.6,444,12000,3.0292",
    "1641535090000000001,XYZ,Q,,,0.5,0.75,1,2",
    "1641535090700000000,ABC,T,444,100,,,,",
    "1641535091000000000,ABC,T,443.55,0.001,,,,",
    "1641535091000000000,XYZ,T,,5,,,,",
    "1641535095000000000,ABC,Q,,,443.6,444,12000,3.0292",
    "1641535097250000000,ABC,Q,,,443.4,444,7,3.0292",
]


class HandClock(Clock):
    """A clock that a test turns."""

    def now_ns(self) -> int:
        return self._set_ns


def write(folder: Path, rows: list[str], name: str = "ticks.csv", header: str = HEADER) -> Path:
    path = folder / name
    text = "\n".join([header, *rows]) + "\n"
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def number(field: str) -> float | None:
    return float(field) if field else None


def expected_ticks(rows: list[str]) -> list[tuple[Any, ...]]:
    """Return what a client of AllLast and BidAsk must get, straight from the text of the file."""
    ticks = []
    for row in rows:
        ts_ns, symbol, kind, price, size, bid, ask, bid_size, ask_size = row.split(",")
        fields = (price, size) if kind == "T" else (bid, ask, bid_size, ask_size)
        ticks.append((kind, symbol, int(ts_ns) // NS, *map(number, fields)))
    return ticks


def told_ticks(journal: Journal, symbols: dict[int, str]) -> list[tuple[Any, ...]]:
    def shown(message: Any) -> tuple[Any, ...]:
        if isinstance(message, codec.TickByTickLast):
            assert message.tick_type == 2
            return ("T", symbols[message.req_id], message.time_s, message.price, message.size)
        quote = (message.bid, message.ask, message.bid_size, message.ask_size)
        return ("Q", symbols[message.req_id], message.time_s, *quote)

    return [shown(message) for message in journal.of(codec.TickByTickLast, codec.TickByTickBidAsk)]


async def play(path: Path, server_version: int = 226, **options: Any) -> tuple[list[tuple[Any, ...]], int, int]:
    """Return the ticks that were sent, how many messages these were, and how many frames a client got."""
    journal = Journal()
    replay = TickFile(path, **{"speed": 0} | options)
    symbols = {2 * at: i.contract.symbol for at, i in enumerate(replay.universe)}
    symbols |= {req_id + 1: symbol for req_id, symbol in symbols.items()}
    async with (
        Gateway(server_version=server_version, market=replay, pacing=False, journal=journal) as gateway,
        Client(gateway) as client,
    ):
        for req_id, symbol in symbols.items():
            client.ask(requests.TickByTick(req_id, Stock(symbol), "BidAsk" if req_id % 2 else "AllLast"))
        async with asyncio.timeout(60):
            await replay.finished.wait()
        client.ask(requests.CurrentTimeRequest())
        await journal.first(responses.CurrentTime)
        async with asyncio.timeout(TIMEOUT_S):
            while len(client.frames) < len(journal.messages):
                await asyncio.sleep(0)
        return told_ticks(journal, symbols), len(journal.messages), len(client.frames)


@pytest.mark.parametrize("name", ["ticks.csv", "ticks.csv.gz"])
@pytest.mark.parametrize("server_version", [178, 201, 226])
def test_every_row_is_one_message(tmp_path: Path, name: str, server_version: int) -> None:
    told, sent, received = asyncio.run(play(write(tmp_path, ROWS, name), server_version))
    assert told == expected_ticks(ROWS)
    assert sent == received


def test_parquet_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    table = csv.read_csv(write(tmp_path, ROWS), convert_options=csv.ConvertOptions(strings_can_be_null=False))
    parquet.write_table(table, tmp_path / "ticks.parquet")
    told, _, _ = asyncio.run(play(tmp_path / "ticks.parquet"))
    assert told == expected_ticks(ROWS)


def test_parquet_without_pyarrow_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        TickFile(tmp_path / "ticks.parquet")


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded ticks are not part of the project")
@pytest.mark.parametrize("server_version", [178, 226])
def test_a_recorded_session_is_played_in_full(server_version: int) -> None:
    with gzip.open(RECORDED, "rt") as file:
        rows = file.read().splitlines()[1:]
    told, sent, received = asyncio.run(play(RECORDED, server_version))
    assert len(told) == len(rows) == 9616
    assert told == expected_ticks(rows)
    assert sent == received


def test_level_1_tells_what_a_row_changes(tmp_path: Path) -> None:
    rows = [row for row in ROWS if ",ABC," in row]

    async def main() -> list[Any]:
        journal = Journal()
        replay = TickFile(write(tmp_path, rows), speed=0)
        async with Gateway(market=replay, pacing=False, journal=journal) as gateway, Client(gateway) as client:
            client.ask(requests.MarketData(1, Stock("ABC")))
            async with asyncio.timeout(TIMEOUT_S):
                await replay.finished.wait()
        return journal.of(codec.TickPrice, codec.TickSize, codec.TickString)

    second = str(FIRST_S + 1)
    assert asyncio.run(main()) == [
        codec.TickSize(1, 8, 0),
        codec.TickPrice(1, 1, 443.6, 10800, 1),
        codec.TickSize(1, 0, 10800),
        codec.TickSize(1, 0, 12000),
        codec.TickPrice(1, 2, 444.0, 3.0292, 1),
        codec.TickSize(1, 3, 3.0292),
        codec.TickPrice(1, 4, 444.0, 100),
        codec.TickSize(1, 5, 100),
        codec.TickString(1, 45, second),
        codec.TickSize(1, 8, 100),
        codec.TickPrice(1, 6, 444.0, 0),
        codec.TickPrice(1, 7, 444.0, 0),
        codec.TickPrice(1, 4, 443.55, 0.001),
        codec.TickSize(1, 5, 0.001),
        codec.TickString(1, 45, str(FIRST_S + 2)),
        codec.TickSize(1, 8, 100.001),
        codec.TickPrice(1, 7, 443.55, 0),
        codec.TickPrice(1, 1, 443.4, 7, 1),
        codec.TickSize(1, 0, 7),
    ]


def begun(path: Path, speed: float) -> tuple[TickFile, HandClock]:
    replay, clock = TickFile(path, speed=speed), HandClock()
    replay.begin(clock)
    for instrument in replay.universe:
        replay.watch(instrument.con_id, clock.now_ns())
    return replay, clock


@given(st.lists(st.integers(0, 9_000_000_000), max_size=30))
def test_rows_are_due_at_their_time(tmp_path_factory: pytest.TempPathFactory, offsets: list[int]) -> None:
    replay, clock = begun(write(tmp_path_factory.mktemp("ticks"), ROWS), 1.0)
    times = [int(row.split(",")[0]) for row in ROWS]
    played: list[Event] = list(replay.advance(clock))
    for offset in sorted(offsets):
        clock.set(times[0] + offset)
        played += replay.advance(clock)
        assert [event.ts_ns for event in played] == [ts_ns for ts_ns in times if ts_ns <= clock.now_ns()]


def test_the_clock_stands_until_there_is_an_audience_and_then_runs(tmp_path: Path) -> None:
    replay, clock = TickFile(write(tmp_path, ROWS), speed=25.0), Clock()
    replay.begin(clock)
    assert (clock.speed, clock.now_ns()) == (0, FIRST_S * NS + 500_000_000 - 1)
    abc, xyz = (instrument.con_id for instrument in replay.universe)
    replay.watch(abc, 0)
    replay.watch(xyz, 0, quotes=True, trades=False)
    assert replay.advance(clock) == ()
    replay.unwatch(abc)
    replay.watch(xyz, 0, quotes=False, trades=True)
    assert replay.advance(clock) == ()
    replay.watch(abc, 0)
    assert len(replay.advance(clock)) >= 1
    assert clock.speed == 25.0


def test_an_audience_for_a_part_is_enough_after_a_while(tmp_path: Path) -> None:
    replay, clock = TickFile(write(tmp_path, ROWS), speed=0, settle_s=0), Clock()
    replay.begin(clock)
    assert replay.advance(clock) == ()
    replay.watch(next(iter(replay.universe)).con_id, 0, quotes=True, trades=False)
    assert len(replay.advance(clock)) == len(ROWS)


def test_the_end_is_told(tmp_path: Path) -> None:
    replay, clock = begun(write(tmp_path, ROWS), 0)
    assert len(replay.advance(clock)) == replay.events == len(ROWS)
    assert not replay.finished.is_set()
    assert replay.advance(clock) == ()
    assert replay.finished.is_set()
    assert clock.now_ns() == int(ROWS[-1].split(",")[0])


def test_what_stands_and_what_happened(tmp_path: Path) -> None:
    replay, _ = begun(write(tmp_path, ROWS), 0)
    con_id = replay.universe.find(Stock("ABC"))[0].con_id
    now_ns = (FIRST_S + 2) * NS
    assert replay.latest(con_id, FIRST_S * NS) == (None, None)
    quote, trade = replay.latest(con_id, now_ns)
    assert quote == QuoteEvent(1641535090000000001, con_id, 443.6, 444.0, 12000, 3.0292)
    assert trade == TradeEvent(now_ns, con_id, 443.55, 0.001, "", "", unreported=False)
    assert replay.value(con_id, now_ns) == 443.55
    assert replay.book(quote, 5) == ([(443.6, 12000)], [(444.0, 3.0292)])
    assert replay.book(quote._replace(ask=None, ask_size=None), 5) == ([(443.6, 12000)], [])
    day = replay.statistics(con_id, now_ns)
    assert day[:5] == (444.0, 444.0, 443.55, None, 100.001)
    assert day.vwap == pytest.approx((444 * 100 + 443.55 * 0.001) / 100.001)


def test_bars_are_made_of_the_rows(tmp_path: Path) -> None:
    import numpy as np

    replay, _ = begun(write(tmp_path, ROWS), 0)
    con_id = replay.universe.find(Stock("ABC"))[0].con_id
    starts = np.arange(FIRST_S - 1, FIRST_S + 4)
    trades = replay.bars(con_id, "TRADES", starts, 1)
    assert trades.start_s.tolist() == [FIRST_S + 1, FIRST_S + 2, FIRST_S + 3]
    assert trades.open.tolist() == [444.0, 443.55, 443.55]
    assert trades.volume.tolist() == [100, 0.001, 0]
    assert trades.count.tolist() == [1, 1, 0]
    both = replay.bars(con_id, "BID_ASK", starts, 1)
    assert both.low.tolist() == [443.6] * 3
    assert both.high.tolist() == [444.0] * 3
    assert set(both.count.tolist()) == {-1}


GOOD = ROWS[0]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([GOOD, "x,ABC,T,1,1,,,,"], ["line 3", "ts_ns", "'x'"]),
        ([GOOD, "1.5,ABC,T,1,1,,,,"], ["line 3", "ts_ns"]),
        ([GOOD, ",ABC,T,1,1,,,,"], ["line 3", "ts_ns"]),
        ([GOOD, "1,ABC,T,1,1,,,,"], ["line 3", "ts_ns", "smaller"]),
        (["1641535089500000000,,T,1,1,,,,"], ["line 2", "symbol"]),
        (["1641535089500000000,ABC,X,1,1,,,,"], ["line 2", "kind", "'X'"]),
        (["1641535089500000000,ABC,T,one,1,,,,"], ["line 2", "price", "'one'"]),
        (["1641535089500000000,ABC,T,nan,1,,,,"], ["line 2", "price", "finite"]),
        (["1641535089500000000,ABC,T,1,inf,,,,"], ["line 2", "size", "finite"]),
        (["1641535089500000000,ABC,T,1,1,2,,,"], ["line 2", "bid", "empty"]),
        (["1641535089500000000,ABC,Q,1,,2,3,4,5"], ["line 2", "price", "empty"]),
        (["1641535089500000000,ABC,Q,,,2,3,4,5x"], ["line 2", "ask_size", "'5x'"]),
        ([GOOD, GOOD, "1641535089500000000,ABC,T,1"], ["line 4", "4 fields"]),
        ([], ["no ticks"]),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: list[str], named: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        TickFile(write(tmp_path, rows))
    for part in named:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (HEADER + ",extra", ["line 1", "unknown column 'extra'"]),
        (HEADER.replace(",ask_size", ""), ["line 1", "'ask_size' is missing"]),
        (HEADER.replace("price,size", "size,price"), ["line 1", "order"]),
        ("", ["line 1", "'ts_ns' is missing"]),
    ],
)
def test_a_bad_header_is_named(tmp_path: Path, header: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        TickFile(write(tmp_path, ROWS, header=header))
    for part in named:
        assert part in str(error.value)
