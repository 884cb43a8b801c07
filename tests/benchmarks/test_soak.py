"""The soak judges: it finds a loss that no gap tells of, a wrong value, a leak, a growing memory, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.soak import market
from benchmarks.soak.child import Child, ChildError
from benchmarks.soak.latency import Latencies
from benchmarks.soak.market import INSTRUMENTS, MESSAGES_PER_CYCLE, NS, NumberedMarket, Timetable, price_of
from benchmarks.soak.report import Closing, Memory
from benchmarks.soak.rig import Sample
from benchmarks.soak.trouble import FAULTS
from benchmarks.soak.witness import Gaps, Hole, Witness
from ibfast import Feed, Kind
from ibfast.feed.feed import NO_INSTRUMENT
from ibfast.feed.segment import Segment
from ibfast.records import GapCause, Scope
from ibfast.sim.clock import Clock
from ibfast.sim.events import QuoteEvent, TradeEvent
from ibfast.sim.gateway import Gateway

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the soak needs Linux")


# --- the market ---


def advanced(numbered: NumberedMarket, clock: Clock, seconds: int) -> list[Any]:
    clock.set(clock.now_ns() + seconds * NS)
    return list(numbered.advance(clock))


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0, 1_000 * NS)


def test_the_numbers_of_an_instrument_have_no_holes_and_go_on_after_a_restart(clock: Clock) -> None:
    timetable = Timetable(clock.now_ns(), 10_000.0)
    con_id = next(iter(market.universe())).con_id
    numbers: dict[type, list[Any]] = {QuoteEvent: [], TradeEvent: []}
    for _ in range(2):
        numbered = NumberedMarket(timetable)
        numbered.begin(clock)
        numbered.watch(con_id, clock.now_ns(), quotes=True, trades=True)
        for event in [event for _ in range(3) for event in advanced(numbered, clock, 1)]:
            assert event.con_id == con_id
            number = event.size if isinstance(event, TradeEvent) else event.bid_size
            assert price_of(number) == (event.price if isinstance(event, TradeEvent) else event.bid)
            numbers[type(event)].append(number)
    for found in numbers.values():
        assert found == list(range(1, len(found) + 1))
        assert len(found) == pytest.approx(6 * 10_000 / MESSAGES_PER_CYCLE, abs=1)


@given(now=st.integers(0, 5 * NS))
def test_what_is_latest_is_what_was_given_out_last(now: int) -> None:
    clock = Clock(0.0, now)
    numbered = NumberedMarket(Timetable(0, 10_000.0))
    numbered.begin(clock)
    con_ids = [instrument.con_id for instrument in numbered.universe]
    before = {con_id: numbered.latest(con_id, now) for con_id in con_ids}
    for con_id in con_ids:
        numbered.watch(con_id, now, quotes=True, trades=True)
    told = {(type(event), event.con_id): event for event in reversed(advanced(numbered, clock, 1))}
    for con_id, (quote, trade) in before.items():
        if quote is not None and trade is not None:
            assert told[QuoteEvent, con_id].bid_size == (quote.bid_size or 0) + 1
            assert told[TradeEvent, con_id].size == (trade.size or 0) + 1


def test_what_was_held_comes_in_order_and_not_all_at_once(clock: Clock) -> None:
    numbered = NumberedMarket(Timetable(clock.now_ns(), 20_000.0))
    numbered.begin(clock)
    con_id = next(iter(market.universe())).con_id
    numbered.watch(con_id, clock.now_ns(), quotes=True, trades=True)
    numbered.is_held = True
    assert advanced(numbered, clock, 2) == []
    numbered.is_held = False
    batches = [
        [event.size for event in advanced(numbered, clock, 0) if isinstance(event, TradeEvent)] for _ in range(9)
    ]
    sizes = [size for batch in batches for size in batch]
    assert sizes == list(range(1, len(sizes) + 1))
    assert len(sizes) == pytest.approx(2 * 20_000 / MESSAGES_PER_CYCLE, abs=1)
    assert len([batch for batch in batches if batch]) > 1


def test_no_number_comes_before_its_time(clock: Clock) -> None:
    timetable = Timetable(clock.now_ns(), 10_000.0)
    numbered = NumberedMarket(timetable)
    numbered.begin(clock)
    for instrument in numbered.universe:
        numbered.watch(instrument.con_id, clock.now_ns(), quotes=True, trades=True)
    sizes = [event.size or 0 for event in advanced(numbered, clock, 2) if isinstance(event, TradeEvent)]
    assert max(sizes) <= timetable.highest_number(clock.now_ns())
    assert timetable.highest_number(clock.now_ns()) <= timetable.highest_number(clock.now_ns() + NS)


# --- the witness ---


def rows(ring: str, numbers: list[int], *, first_seq: int = 1, instrument: int = 0, kind: Kind | None = None) -> Any:
    """Return rows of a ring, every seq the next one."""
    found = np.zeros(len(numbers), Feed.dtypes[ring])
    number, price, default = {
        "trades": ("size", "price", Kind.RT_VOLUME),
        "quotes": ("bid_size", "bid", Kind.L1_QUOTE),
        "depth": ("size", "price", Kind.DEPTH_L2),
    }[ring]
    found["seq"] = np.arange(first_seq, first_seq + len(numbers))
    found["recv_ns"] = NS
    found["instrument"], found["kind"] = instrument, kind or default
    found[number], found[price] = numbers, price_of(np.array(numbers, np.int64))
    if ring == "depth":
        found["side"] = 1
    return found


def gap_rows(*gaps: tuple[int, int, int]) -> Any:
    """Return rows of `gaps`: instrument, first_seq, last_seq of each."""
    found = np.zeros(len(gaps), Feed.dtypes["gaps"])
    for row, (instrument, first_seq, last_seq) in zip(found, gaps, strict=True):
        row["scope"], row["cause"], row["req_id"] = Scope.CONNECTION, GapCause.CONNECTION_LOST, -1
        row["instrument"], row["first_seq"], row["last_seq"] = instrument, first_seq, last_seq
    return found


@pytest.fixture
def witness() -> Witness:
    return Witness(Timetable(0, 1e6))


@pytest.mark.parametrize("ring", ["trades", "quotes", "depth"])
def test_what_is_missing_is_lost(witness: Witness, ring: str) -> None:
    witness.take({ring: rows(ring, [5, 6, 7])})
    assert witness.losses() == (0, 0, 0)
    witness.take({ring: rows(ring, [10, 11, 15], first_seq=4)})
    assert witness.losses() == (5, 0, 5)
    assert witness.records == 6
    assert [text.split(",")[-2] for _, text in witness.unreported()] == [" missing=2", " missing=3"]


def test_series_are_told_apart(witness: Witness) -> None:
    witness.take({"trades": rows("trades", [1, 2]), "quotes": rows("quotes", [8, 9], first_seq=3)})
    witness.take({"trades": rows("trades", [50], first_seq=5, instrument=1)})
    witness.take({"trades": rows("trades", [3], first_seq=6, kind=Kind.LAST)})
    witness.take({"trades": rows("trades", [3], first_seq=7), "quotes": rows("quotes", [10], first_seq=8)})
    assert witness.losses() == (0, 0, 0)
    assert witness.series_since(NS) == 4
    assert witness.series_since(NS + 1) == 0


def test_rows_without_a_number_count_for_nothing(witness: Witness) -> None:
    deleted, asks = rows("depth", [4]), rows("depth", [5])
    deleted["operation"], asks["side"] = 2, 0
    foreign = rows("trades", [9], instrument=NO_INSTRUMENT)
    witness.take({"depth": np.concatenate([deleted, asks]), "trades": foreign})
    witness.take({"trades": rows("trades", [9], kind=Kind.L1_LAST)})
    assert (witness.records, witness.wrong) == (0, 0)


@given(
    have=st.lists(st.sets(st.integers(1, 60), min_size=1), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 240), max_size=6),
)
def test_losses_do_not_depend_on_the_batches(have: list[set[int]], cuts: list[int]) -> None:
    witness = Witness(Timetable(0, 1e6))
    parts = [rows("trades", sorted(numbers), instrument=index) for index, numbers in enumerate(have)]
    merged = np.concatenate(parts)[np.argsort(np.concatenate([part["size"] for part in parts]), kind="stable")]
    merged["seq"] = np.arange(1, len(merged) + 1)
    for batch in np.split(merged, sorted(cut for cut in cuts if cut <= len(merged))):
        witness.take({"trades": batch})
    assert witness.losses()[0] == sum(max(numbers) - min(numbers) + 1 - len(numbers) for numbers in have)
    assert (witness.records, witness.repeated, witness.duplicates) == (len(merged), 0, 0)


@pytest.mark.parametrize(
    ("ring", "kind", "is_sent_once"),
    [
        ("trades", Kind.RT_VOLUME, True),
        ("trades", Kind.LAST, True),
        ("quotes", Kind.BID_ASK, True),
        ("quotes", Kind.L1_QUOTE, False),
        ("depth", Kind.DEPTH_L2, False),
    ],
)
def test_a_number_that_comes_again_is_no_loss(witness: Witness, ring: str, kind: Kind, is_sent_once: bool) -> None:
    witness.take({ring: rows(ring, [1, 2, 3, 2, 3, 4], kind=kind)})
    witness.take({ring: rows(ring, [4, 3, 5], first_seq=7, kind=kind)})
    assert witness.losses() == (0, 0, 0)
    assert (witness.duplicates, witness.repeated) == ((4, 0) if is_sent_once else (0, 4))


def test_the_same_event_of_two_requests_is_a_duplicate(witness: Witness) -> None:
    twice = np.repeat(rows("trades", [1, 2, 3]), 2)
    twice["req_id"] = [7, 8] * 3
    twice["seq"] = np.arange(1, 7)
    witness.take({"trades": twice})
    assert witness.duplicates == 3
    assert [text for _, text in witness.samples] == [
        f"number {number} of instrument 0 again, seq {2 * number}" for number in (1, 2, 3)
    ]


def test_a_row_without_an_instrument_is_no_duplicate(witness: Witness) -> None:
    witness.take({"trades": rows("trades", [1, 2])})
    witness.take({"trades": rows("trades", [1, 2], first_seq=3, instrument=NO_INSTRUMENT)})
    assert (witness.records, witness.duplicates) == (2, 0)


@pytest.mark.parametrize("column", ["price", "size"])
def test_a_value_that_does_not_fit_its_number_is_wrong(witness: Witness, column: str) -> None:
    spoilt = rows("trades", [1, 2, 3])
    spoilt[column][1] += 0.25
    witness.take({"trades": spoilt})
    assert witness.wrong == 1
    assert len(witness.samples) == 1
    assert witness.losses()[0] == 1


def test_a_number_that_is_not_due_is_wrong() -> None:
    witness = Witness(Timetable(time.time_ns(), 1.0))
    witness.take({"trades": rows("trades", [5_000])})
    assert witness.wrong == 1


@pytest.mark.parametrize(
    ("gap", "reported"),
    [
        ((0, 4, 5), True),
        ((NO_INSTRUMENT, 4, 5), True),
        ((0, 1, 99), True),
        ((0, 5, 5), True),
        ((0, 4, 0), True),
        ((1, 4, 5), False),
        ((0, 1, 3), False),
        ((0, 6, 9), False),
        ((0, 6, 0), False),
    ],
)
def test_a_gap_between_or_around_two_records_reports_what_is_missing(
    witness: Witness, gap: tuple[int, int, int], reported: bool
) -> None:
    witness.take({"trades": np.concatenate([rows("trades", [1, 2, 3]), rows("trades", [6], first_seq=5)])})
    witness.gaps.take(gap_rows(gap))
    assert witness.losses() == ((2, 2, 0) if reported else (2, 0, 2))


def test_a_gap_that_comes_after_its_hole_reports_it(witness: Witness) -> None:
    witness.take({"trades": rows("trades", [1, 4])})
    assert witness.losses() == (2, 0, 2)
    witness.gaps.take(gap_rows((0, 2, 2)))
    assert witness.losses() == witness.losses() == (2, 2, 0)


def test_an_open_gap_reports_until_its_end_is_told() -> None:
    gaps = Gaps()
    hole = Hole(0, 10, 20, 3, NS)
    gaps.take(gap_rows((0, 5, 0)))
    assert gaps.report(hole, is_over=False)
    assert not gaps.report(hole, is_over=True)
    gaps.take(gap_rows((0, 5, 8)))
    assert not gaps.report(hole, is_over=False)


# --- the figures ---


@given(st.lists(st.integers(1_000, 10_000_000), min_size=1, max_size=200), st.integers(1, 100))
def test_percentiles_are_right_to_the_width_of_a_bucket(durations: list[int], percent: int) -> None:
    one, other = Latencies(), Latencies()
    one.add(np.array(durations[::2]))
    other.add(np.array(durations[1::2], np.int64))
    one.merge(Latencies(other.counts.tolist(), other.max_ns))
    true = float(np.percentile(durations, percent, method="inverted_cdf")) / 1000
    assert true <= one.percentile_us(percent) * 1.0001
    assert one.percentile_us(percent) <= true * 1.05
    assert one.max_us == max(durations) / 1000


def samples(*own_mb: float, step_s: float = 60.0) -> list[Sample]:
    return [Sample(1000.0 + index * step_s, mb + 40.0, mb) for index, mb in enumerate(own_mb)]


def test_the_slope_is_that_after_the_warm_up() -> None:
    memory = Memory.of(samples(10.0, 30.0, *(40.0 + minute / 10 for minute in range(30))))
    assert memory.slope_mb_per_hour == pytest.approx(6.0)
    assert (memory.start_mb, memory.warm_mb) == (10.0, 40.0)
    assert memory.end_total_mb == memory.end_mb + 40.0
    assert not memory.grows


def test_memory_that_grows_does_not_pass() -> None:
    assert Memory.of(samples(*(30.0 + minute for minute in range(31)))).grows
    assert not Memory.of(samples(*(30.0 + minute for minute in range(4)))).grows
    assert not Memory.of(samples(*[30.0, 31.0] * 30)).grows
    assert not Memory.of(samples(30.0)).grows


CLEAN = Closing(
    seconds=60.0, settled_s=1.0, messages=1_000, records=1_500, numbered=300, faults={"cut": 2}, lost=40, reported=40,
    unreported=0, gaps=7, repeated=1, duplicates=0, wrong=0, unread=0, reconnects=2, requests=200, late=0, surplus=0,
    violations=[], errors=[], leaked=[], memory=Memory.of(samples(30.0, 30.0)), latencies=[Latencies()],
    cpu={"subject": 0.1},
)  # fmt: skip


def test_a_clean_run_passes() -> None:
    assert CLEAN.problems == []
    assert CLEAN.row()["passed"]
    assert CLEAN.text().splitlines()[-1] == "passed"
    assert "duplicates 0, " in CLEAN.text()
    json.dumps(CLEAN.row(), allow_nan=False)


@pytest.mark.parametrize(
    ("spoilt", "problem"),
    [
        ({"unreported": 3}, "3 records lost without a report"),
        ({"duplicates": 2}, "2 records twice"),
        ({"surplus": 1}, "+1 requests at the gateway"),
        ({"wrong": 1}, "wrong values"),
        ({"unread": 1}, "too slow"),
        ({"settled_s": None}, "not every stream was live"),
        ({"violations": ["lines by MarketData"]}, "1 limits broken: lines by MarketData"),
        ({"errors": ["boom (1 times)"]}, "boom"),
        ({"leaked": ["task t"]}, "left behind: task t"),
        ({"memory": Memory(1, 1, 99, 99, 500.0, 1.0)}, "memory grows"),
        ({"numbered": 0}, "nothing was received"),
    ],
)
def test_every_flaw_fails_the_run(spoilt: dict[str, Any], problem: str) -> None:
    (found,) = replace(CLEAN, **spoilt).problems
    assert problem in found
    assert replace(CLEAN, **spoilt).text().endswith("FAILED")


# --- the processes ---


def test_a_child_that_fails_says_so_and_goes_on() -> None:
    async def main() -> None:
        child = await Child.start("gateway", port=0, epoch_ns=time.time_ns(), rate=100.0)
        with pytest.raises(ChildError, match="KeyError"):
            await child.ask("no such verb")
        assert await child.ask("port") > 0
        total, own = child.memory_mb()
        assert total > own > 1
        assert child.cpu_s() > 0
        await child.kill()
        with pytest.raises(ChildError, match="has ended"):
            await child.ask("port")

    asyncio.run(main())


def test_a_child_that_does_not_start_is_told() -> None:
    with pytest.raises(ChildError, match="status 1"):
        asyncio.run(Child.start("nowhere"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("benchmark", "name", "settings"),
    [("soak", "subject", {}), ("endtoend", "server", {"lines": 100, "connections": 1, "stalled_s": 1.0})],
)
def test_a_child_that_is_signalled_leaves_no_memory(
    benchmark: str, name: str, settings: dict[str, Any], number: signal.Signals
) -> None:
    feed_name = f"test-{os.getpid()}-{benchmark}-{number.name}"

    async def test() -> None:
        async with Gateway(port=0) as gateway:
            child = await Child.start(name, benchmark=benchmark, port=gateway.port, feed_name=feed_name, **settings)
            try:
                assert Segment.path_of(feed_name).exists()
                os.kill(child.pid, number)
                with pytest.raises(ChildError, match="has ended"):
                    await child._answer()
                assert not Segment.path_of(feed_name).exists()
            finally:
                await child.kill()
                Segment.path_of(feed_name).unlink(missing_ok=True)

    asyncio.run(test())


@contextmanager
def soaking(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a soak in a process until it says that its streams are live."""
    command = [sys.executable, "-m", "benchmarks", "soak", "--rate", "5000", "--json", *arguments]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"{INSTRUMENTS} streams are live\n"
            yield process
        finally:
            process.kill()


def test_a_short_soak_passes() -> None:
    with soaking("--minutes", "0.07", "--seed", "15", "--only", "1100, 1102", "blocked loop", "trickle") as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    closing = json.loads(out)
    assert closing["problems"] == []
    assert process.returncode == 0
    assert closing["lost"] == closing["reported"]
    assert closing["duplicates"] == closing["surplus"] == 0
    assert closing["numbered"] > 1_000
    assert sum(closing["faults"].values()) >= 1
    assert len(closing["latencies_us"]) >= 2
    assert len(err.splitlines()) >= 3


def test_ctrl_c_ends_it_with_the_figures_so_far() -> None:
    with soaking("--minutes", "60") as process:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=TIMEOUT_S)
    closing = json.loads(out)
    assert process.returncode == 0
    assert closing["passed"]
    assert closing["faults"] == {}


def test_the_faults_are_many_and_listed() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "soak", "--list"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert listed.stdout.splitlines() == list(FAULTS)
    assert len(FAULTS) > 30
