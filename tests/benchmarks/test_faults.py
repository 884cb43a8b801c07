"""The fault matrix judges: a client that recovers and confesses passes, one that conceals, sleeps or leaks does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import faults
from benchmarks.faults import network, world
from benchmarks.faults.subject import Subject, Wish
from benchmarks.faults.witness import Series, Witness
from benchmarks.faults.world import Scenario, World
from ibfast import Config, Contract, Decoder, Feed, Kind
from ibfast.connection.protocol import Protocol, State
from ibfast.connection.stream import wanted
from ibfast.connection.transport import Connection, open_connection
from ibfast.errors import Error
from ibfast.records import GapCause, Scope
from ibfast.sim.codec import TickByTickLast, encode
from ibfast.sim.events import TradeEvent
from ibfast.wire.request_bytes import frame

ROOT = Path(__file__).parents[2]
STAY_S = 0.5
RETRY_S = 0.3
"""Long enough for some trades to be missed."""
SPY = 756733
RESET = next(scenario for scenario in network.SCENARIOS if scenario.name == "reset in frame")


class Stubborn(Subject):
    """The least that recovers: connects again and asks again for everything, with gaps told or concealed."""

    reports = True
    reconnects = True
    leaks = False

    def __init__(self, settings: Config, wishes: tuple[Wish, ...]) -> None:
        self.feed = Feed(1 << 16)
        self.data_s: dict[str, float] = {}
        self._settings = settings
        self._wishes = wishes
        self._noticed: list[Any] = []
        self._req_ids = iter(range(1, 10_000))
        self._names: dict[int, str] = {}
        self._connection: Connection | None = None
        self._work: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        self._work = [asyncio.create_task(self._connect_for_ever()), asyncio.create_task(self._read())]

    async def stop(self) -> None:
        for task in self._work[self.leaks :]:
            task.cancel()
        await asyncio.gather(*self._work[self.leaks :], return_exceptions=True)
        if self._connection is not None:
            self._connection.abort()
            await self._connection.closed

    def is_live(self, name: str) -> bool:
        return time.monotonic() - self.data_s.get(name, 0.0) < 1.0

    def state(self, name: str) -> str:
        return "LIVE" if self.is_live(name) else "SILENT"

    async def _connect_for_ever(self) -> None:
        first_seq = 0
        while True:
            with contextlib.suppress(OSError, Error):
                await self._session(first_seq)
            first_seq = self.feed.seq + 1
            for callback in self._noticed:
                callback(None)
            if not self.reconnects:
                return
            await asyncio.sleep(RETRY_S)

    async def _session(self, first_seq: int) -> None:
        protocol = Protocol(self.feed, 1)
        changed = asyncio.Event()
        self._connection = await open_connection(self._settings.host, self._settings.port, protocol, changed.set)
        while protocol.state is not State.CLOSED:
            if protocol.state is State.READY and first_seq is not None:
                self._subscribe(protocol, first_seq)
                first_seq = None
            protocol.events()
            changed.clear()
            await changed.wait()
        self._connection.abort()
        await self._connection.closed

    def _subscribe(self, protocol: Protocol, first_seq: int) -> None:
        assert self._connection is not None
        if first_seq and self.reports:
            last_seq = self.feed.seq + 1
            self.feed.add_gap(
                time.time_ns(), Scope.CONNECTION, GapCause.CONNECTION_LOST, first_seq=first_seq, last_seq=last_seq
            )
        for wish in self._wishes:
            con_id = world.always_open(world.SYMBOLS).find(wish.contract)[0].con_id
            request = replace(wanted(wish.contract, wish.data_type, **wish.options).request, req_id=next(self._req_ids))
            self.feed.bind(request.req_id, self.feed.instrument_of(Contract(con_id), wish.name))
            self._names[request.req_id] = wish.name
            protocol.send(request)
        self._connection.flush()

    async def _read(self) -> None:
        readers = [self.feed.rings[ring].reader(start="next") for ring in ("ticks", "trades", "depth", "bars")]
        while True:
            for reader in readers:
                for req_id in set(reader.read()["req_id"].tolist()) & self._names.keys():
                    self.data_s[self._names[req_id]] = time.monotonic()
            await asyncio.sleep(0.005)


class Concealing(Stubborn):
    reports = False


class Doubling(Stubborn):
    """Asks again for everything, and cancels nothing."""

    def _subscribe(self, protocol: Protocol, first_seq: int) -> None:
        super()._subscribe(protocol, first_seq)
        super()._subscribe(protocol, 0)


class Staying(Stubborn):
    """Does not disconnect."""

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        await super().stop()
        assert connection is not None
        asyncio.get_running_loop().call_later(2 * STAY_S, connection.abort)


class Sleeping(Stubborn):
    reconnects = False


class Leaking(Stubborn):
    leaks = True


def play(scenario: Scenario, subject_type: type[Subject]) -> world.Outcome:
    async def main() -> world.Outcome:
        outcome = await world.play(scenario, quick=True, subject_type=subject_type)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return outcome

    return asyncio.run(main())


def test_who_recovers_and_confesses_passes() -> None:
    outcome = play(RESET, Stubborn)
    assert outcome.problems == ()
    assert outcome.passed
    assert outcome.lost == outcome.reported > 0
    assert outcome.unreported == outcome.tasks == outcome.files == outcome.violations == 0
    assert outcome.live_s > outcome.detect_s > 0
    assert outcome.requests >= len(world.WISHES) - 1


def test_who_conceals_a_loss_does_not() -> None:
    outcome = play(RESET, Concealing)
    assert outcome.unreported == outcome.lost > 0
    assert outcome.problems == (f"{outcome.lost} records lost without a report",)


def test_who_sleeps_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "LIMIT_S", 0.5)
    outcome = play(RESET, Sleeping)
    assert outcome.live_s is None
    assert outcome.problems[0].startswith("not live: ")


def test_who_has_every_row_twice_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit_s in (5.0, 25.0):  # all of it is waited for in vain; a busy machine needs more to be live again
        monkeypatch.setattr(world, "LIMIT_S", limit_s)
        outcome = play(RESET, Doubling)
        if outcome.live_s is not None:
            break
    assert outcome.live_s is not None
    assert outcome.doubled > 0
    assert f"{outcome.doubled} records twice" in outcome.problems
    assert outcome.problems[0].startswith("requests too many at the gateway: {'market data of 265598': 1, ")


def test_who_stays_connected_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(world_: World) -> None:
        await world_.at_rest()
        monkeypatch.setattr(world, "LIMIT_S", STAY_S)

    outcome = play(Scenario("nothing", "nothing happens", script, noticed=False), Staying)
    assert outcome.problems[0] == "it is still connected after its end"


def test_who_leaks_does_not() -> None:
    outcome = play(RESET, Leaking)
    assert outcome.tasks == 1
    assert "tasks left" in outcome.problems[-1]


def test_what_no_script_expects_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(world: World) -> None:
        raise RuntimeError("no such verb")

    outcome = play(Scenario("broken", "the script breaks", script, noticed=False), Stubborn)
    assert "RuntimeError: no such verb" in outcome.problems


class Told:
    """A witness, and a feed into which the records are written by hand."""

    def __init__(self) -> None:
        self.witness, self.feed = Witness(), Feed(256)
        self.witness.attach(self.feed)
        self.protocol = Protocol(self.feed)
        while self.feed.next_req_id() < 8:
            pass
        self.feed.bind(7, self.feed.instrument_of(Contract(SPY), "SPY"))
        self.feed.bind(8, self.feed.instrument_of(Contract(SPY), "SPY"))

    def event(self, number: int, *, req_id: int = 7, arrives: bool = True, price: float | None = None) -> None:
        """Let a trade happen, be sent, and arrive."""
        self.witness.on_trade(TradeEvent(number, SPY, float(number), 100, "", "", unreported=False), None, None)  # type: ignore[arg-type]
        if req_id:
            self.witness.journal(1, TickByTickLast(req_id, 1, 1, float(number), 100))
        if arrives:
            tick = TickByTickLast(req_id, 1, 1, float(number) if price is None else price, 100)
            Decoder(self.feed, server_version=226).feed_bytes(frame(encode(tick, 226)))

    def gap(self, first_seq: int, last_seq: int, **particulars: int) -> None:
        self.feed.add_gap(
            1, Scope.CONNECTION, GapCause.CONNECTION_LOST, first_seq=first_seq, last_seq=last_seq, **particulars
        )

    def again(self, number: int, *, req_id: int) -> None:
        """Let the last event be sent, and arrive, for another request."""
        tick = TickByTickLast(req_id, 1, 1, float(number), 100)
        self.witness.journal(1, tick)
        Decoder(self.feed, server_version=226).feed_bytes(frame(encode(tick, 226)))

    def doubled(self) -> int:
        """Return how many records came again."""
        self.witness.close()
        return sum(loss.doubled for loss in self.witness.losses())

    def account(self) -> tuple[int, int]:
        """Return lost and unreported."""
        self.witness.close()
        (loss,) = self.witness.losses()
        assert loss.series == Series(SPY, Kind.LAST)
        return loss.lost, loss.unreported


def told_three_lost() -> tuple[Told, int]:
    """Records of events 1, 2 and 6, 7; return the seq of the record of event 2 too."""
    told = Told()
    told.event(1)
    told.event(2)
    seq = told.feed.seq
    told.event(3, arrives=False)
    told.event(4, req_id=0, arrives=False)
    told.event(5, req_id=0, arrives=False)
    return told, seq


def finish(told: Told) -> None:
    told.event(6, req_id=8)
    told.event(7, req_id=8)


def test_what_never_arrived_is_lost() -> None:
    told, _ = told_three_lost()
    finish(told)
    assert told.account() == (3, 3)


@pytest.mark.parametrize("particulars", [{}, {"instrument": 0}, {"instrument": 0, "req_id": 7}, {"req_id": 8}])
def test_a_gap_around_it_reports_it(particulars: dict[str, int]) -> None:
    told, seq = told_three_lost()
    told.gap(seq + 1, told.feed.seq + 2, **particulars)
    finish(told)
    assert told.account() == (3, 0)
    assert told.witness.mismatches == []


@pytest.mark.parametrize("particulars", [{"instrument": 1}, {"req_id": 99}])
def test_a_gap_of_something_else_does_not(particulars: dict[str, int]) -> None:
    told, seq = told_three_lost()
    told.gap(seq + 1, told.feed.seq + 2, **particulars)
    finish(told)
    assert told.account() == (3, 3)


def test_a_gap_elsewhere_does_not() -> None:
    told, seq = told_three_lost()
    finish(told)
    told.gap(1, seq)
    told.gap(told.feed.seq + 1, 0)
    assert told.account() == (3, 3)


def test_an_open_gap_reports_to_the_end_unless_it_is_closed() -> None:
    told, seq = told_three_lost()
    told.gap(seq + 1, 0)
    told.gap(seq + 1, told.feed.seq + 2)
    finish(told)
    told.event(8, req_id=0, arrives=False)
    told.event(9, req_id=8)
    assert told.account() == (4, 1)


def test_a_row_of_an_event_that_had_one_is_doubled() -> None:
    told = Told()
    for number in (1, 2, 3):
        told.event(number)
        if number > 1:
            told.again(number, req_id=8)
    assert told.doubled() == 2
    assert told.witness.mismatches == []


def test_a_row_without_an_instrument_is_no_record() -> None:
    told = Told()
    told.event(1)
    told.feed.forget_requests([7])
    told.event(2)
    told.again(2, req_id=8)
    told.event(3)
    told.event(4, req_id=8)
    assert told.doubled() == 0
    assert told.account() == (1, 1)
    assert told.feed.late == 2


def test_what_is_not_wanted_is_not_lost() -> None:
    told = Told()
    told.event(1)
    told.event(2, req_id=0, arrives=False)
    told.event(3)
    told.witness.leave(SPY)
    told.event(4, arrives=False)
    told.event(5, req_id=8)
    assert told.account() == (1, 1)


def test_a_wrong_value_is_noticed() -> None:
    told = Told()
    told.event(1)
    told.event(2, price=2.5)
    told.account()
    assert "2.5" in told.witness.mismatches[0]


def test_the_short_form_of_the_matrix_passes() -> None:
    """Nothing hangs, nothing is lost unreported, every stream is live again, no limit is broken, nothing leaks."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "faults", "--quick", "--json"], cwd=ROOT, text=True, capture_output=True
    )
    outcomes = json.loads(done.stdout)
    assert [outcome for outcome in outcomes if not outcome["passed"]] == []
    assert len(outcomes) == sum(scenario.quick for scenario in faults.SCENARIOS.values())
    assert sum(outcome["lost"] for outcome in outcomes) > 0
    assert done.returncode == 0


def test_every_scenario_of_the_short_form_is_one_of_all() -> None:
    assert len(faults.SCENARIOS) >= 55
    assert sum(scenario.quick for scenario in faults.SCENARIOS.values()) >= 5
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "faults", "--list"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert len(listed.stdout.splitlines()) == len(faults.SCENARIOS)


def test_a_table_shows_every_outcome_and_its_problems() -> None:
    outcomes = [world.Outcome("one", "x", 0.1, 1.5), world.Outcome("two", "y", problems=("it hung",))]
    text = faults.table(outcomes)
    assert [line.split()[0] for line in text.splitlines()] == ["fault", "one", "two", "it"]
    assert text.splitlines()[1].endswith("yes")
    assert text.splitlines()[2].endswith("NO")
