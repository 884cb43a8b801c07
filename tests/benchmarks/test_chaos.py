"""The chaos tester finds what is wrong, and nothing where nothing is; and its short form, step by step, on ibfast."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from benchmarks.chaos import actions, trouble
from benchmarks.chaos.clock import JumpingClock
from benchmarks.chaos.connection import Asked
from benchmarks.chaos.judge import judged
from benchmarks.chaos.killed import Life, played_killed, succeeded
from benchmarks.chaos.market import CONTRACTS, FIRST_CON_ID, Market, size_of, ticks_of
from benchmarks.chaos.play import ACTIONS, Plan, do, drawn_setup, jumped, plan_of, played, shrunk
from benchmarks.chaos.steps import Step, drawn
from benchmarks.chaos.user import Held
from benchmarks.chaos.world import Setup, Verdict, World
from ibfast import Feed, Kind
from ibfast.errors import NotConnectedError
from ibfast.records import GapCause, Scope
from ibfast.wire.requests import TickByTick
from tests.support.loops import Run

ROOT = Path(__file__).parents[2]
CASES = sorted(Path(__file__).with_name("chaos_cases").glob("*.json"))
EVERYTHING = tuple(
    Step("subscribe", {"contract": 0, "data_type": name, "priority": 0, "variant": False, "pause_s": 0.0,
                       "cancel_after_s": None})
    for name in ("TICKS", "TRADES", "QUOTES", "GREEKS", "LAST", "BARS", "DEPTH", "UPDATING_BARS")
)  # fmt: skip
Sabotage = Callable[[World], Awaitable[None]]


def sabotaged(sabotage: Sabotage, *names: str) -> Verdict:
    """Play a healthy world of these data types in which one thing is wrong."""
    clock = JumpingClock()

    async def play() -> Verdict:
        async with World(Setup(), clock) as world:
            for step in EVERYTHING:
                if step.arguments["data_type"] in names:
                    await do(world, step)
            await asyncio.sleep(3.0)
            await sabotage(world)
            await asyncio.sleep(1.0)
            return await world.verdict()

    with clock.installed(), asyncio.Runner(loop_factory=clock.new_loop) as runner:
        return runner.run(play())


# --- the gateway and the judge agree where nothing is wrong ---


@pytest.mark.parametrize("version", [157, 196, 201, 206, 208, 226])
def test_nothing_is_found_where_nothing_is_wrong(version: int) -> None:
    verdict = jumped(Plan(Setup(versions=(version,)), (*EVERYTHING, Step("market data type", {"kind": 3}, 5.0))))
    assert verdict.problems == []
    assert verdict.counts["streams"] == len(EVERYTHING)
    assert verdict.counts["rows"] >= 40 * len(EVERYTHING)


def test_a_world_in_real_time_is_judged_too(run: Run) -> None:
    async def play() -> None:
        verdict = await played(Plan(Setup(period_s=0.05), EVERYTHING[:3]))
        assert verdict.problems == []
        assert verdict.counts["rows"] > 0

    run(play())


def test_a_world_is_the_same_run_every_time() -> None:
    plan = plan_of("same")
    assert jumped(plan).journal == jumped(plan).journal


def test_what_is_left_to_a_thread_takes_no_time_of_the_clock() -> None:
    clock = JumpingClock()

    async def work() -> float:
        asyncio.get_running_loop().call_later(5.0, lambda: None)
        begun_s = clock.now_s
        await asyncio.to_thread(time.sleep, 0.05)
        return clock.now_s - begun_s

    with clock.installed(), asyncio.Runner(loop_factory=clock.new_loop) as runner:
        assert runner.run(work()) < 0.1


def test_a_plan_survives_its_file() -> None:
    plan = plan_of("file")
    assert Plan.loaded(plan.dumped()) == plan


def test_actions_can_be_left_out() -> None:
    steps = [step for seed in range(50) for step in plan_of(str(seed), without=["drop", "slow"]).steps]
    assert {step.action for step in steps} == ACTIONS.keys() - {"drop", "slow"}


# --- the judge finds what is wrong ---


async def send_twice(world: World) -> None:
    for asked in world.gateways[0].live():
        newest = max(asked.sent)
        asked.connection.send(*ticks_of(asked.request, newest, int(time.time())))
        asked.connection.flush()


async def send_wrong(world: World) -> None:
    for asked in world.gateways[0].live():
        asked.connection.send(*ticks_of(asked.request, 9_999, int(time.time())))
        asked.connection.flush()


async def lose_one(world: World) -> None:
    for asked in world.gateways[0].live():
        asked.is_mute = True
    await asyncio.sleep(world.setup.period_s)
    for asked in world.gateways[0].live():
        asked.is_mute = False


async def keep_a_line(world: World) -> None:
    """The user's cancel does not reach the gateway's books."""
    (asked,) = world.gateways[0].live()
    world.user.unsubscribe(world.user.held[0])
    await asyncio.sleep(1.0)
    asked.connection.live[asked.request.req_id] = asked


async def raise_in_a_callback(world: World) -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


async def leave_a_task(world: World) -> None:
    world.left = asyncio.create_task(asyncio.sleep(1e6))  # type: ignore[attr-defined]


async def hang(world: World) -> None:
    world.user.call("a call", asyncio.sleep(1e6), limit_s=5.0)


async def raise_what_must_not_be(world: World) -> None:
    async def call() -> None:
        raise KeyError("a call")

    world.user.call("a call", call())


async def ask_too_often(world: World) -> None:
    from ibfast.wire.requests import SetServerLogLevel

    for _ in range(60):
        world.user.client.protocol.send(SetServerLogLevel(1))
    world.user.client._supervisor._link.flush()


@pytest.mark.parametrize(
    ("sabotage", "kind"),
    [
        (send_twice, "twice"),
        (send_wrong, "value"),
        (lose_one, "unreported"),
        (keep_a_line, "live"),
        (raise_in_a_callback, "exception"),
        (raise_what_must_not_be, "exception"),
        (leave_a_task, "left"),
        (hang, "hang"),
        (ask_too_often, "offence"),
    ],
)
def test_what_is_wrong_is_found(sabotage: Sabotage, kind: str) -> None:
    names = ["TRADES"] if sabotage is keep_a_line else ["TRADES", "LAST", "DEPTH", "UPDATING_BARS"]
    assert kind in sabotaged(sabotage, *names).kinds


# --- what the tester itself does is no problem of ibfast ---


async def write_after_a_half_close(world: World) -> None:
    (connection,) = world.gateways[0].connections
    connection.half_close()
    connection.go_on()
    connection.say(-1, 2104, "Market data farm connection is OK:usfarm")
    connection.flush()


async def half_close_what_was_reset(world: World) -> None:
    (connection,) = world.gateways[0].connections
    world.user.client._supervisor.lose(NotConnectedError("a test"))
    await asyncio.sleep(0)  # the reset is here, and the gateway has not looked yet
    connection.half_close()


async def connect_in_the_last_callback(world: World) -> None:
    await do(world, Step("call back", {"call": "connect", "event": "state"}))


async def open_the_door_twice(world: World) -> None:
    world.gateways[0].close_door()
    await asyncio.gather(world.gateways[0].listen(), world.gateways[0].listen())


async def leave_a_request_to_be_read(world: World) -> None:
    """The request of a connection that was lost must not be read ten seconds later: another one comes after 15 s."""
    world.gateways[0].muted.add("test")  # to write to who has left would end the connection unread
    await do(world, Step("freeze", {"which": 0, "for_s": 10.0, "is_deaf": True}))
    world.user.subscribe(CONTRACTS[0], "LAST")
    await asyncio.sleep(0.5)
    world.user.client._supervisor.lose(NotConnectedError("a test"))
    await asyncio.sleep(20.0)
    world.gateways[0].muted.clear()


@pytest.mark.parametrize(
    "sabotage",
    [
        write_after_a_half_close,
        half_close_what_was_reset,
        connect_in_the_last_callback,
        open_the_door_twice,
        leave_a_request_to_be_read,
    ],
)
def test_what_the_tester_does_is_not_found(sabotage: Sabotage) -> None:
    assert sabotaged(sabotage, "TRADES").problems == []


class Stub(SimpleNamespace):
    """What the judge sees of a stream."""


REQUEST = TickByTick(7, CONTRACTS[0], "Last")
CON_ID = FIRST_CON_ID


def stream_of(numbers: list[int], *, gaps: list[tuple[int, int, int]] = [], lost: list[int] | None = None) -> Held:  # noqa: B006
    """Return a stream of LAST that has yielded these numbers of request 7, each in a batch of its own.

    The k-th row has the seq 10 * k. A gap is (its seq, first_seq, last_seq), and known from the first row on.
    """
    subscription = SimpleNamespace(request=REQUEST)
    stream = Stub(subscription=subscription, live=True, lost=0, req_id=7, history=None)
    held = Held(stream, "LAST", CONTRACTS[0], since_s=0.0)  # type: ignore[arg-type]
    for place, number in enumerate(numbers, 1):
        row = np.zeros(1, Feed.dtypes["trades"])
        row["seq"], row["req_id"], row["kind"], row["price"], row["size"] = (
            10 * place,
            7,
            Kind.LAST,
            number,
            size_of(number),
        )
        held.rows.append(row)
        held.heard.append((len(gaps), lost[place - 1] if lost else 0))
    for seq, first_seq, last_seq in gaps:
        gap = np.zeros(1, Feed.dtypes["gaps"])
        gap["seq"], gap["first_seq"], gap["last_seq"] = seq, first_seq, last_seq
        gap["scope"], gap["cause"], gap["recovered"] = Scope.LINK, GapCause.LINK_LOST, last_seq > 0
        held.gaps.append(gap[0])
    return held


def sent(numbers: range, *, over_s: float | None = None) -> dict[int, Asked]:
    """Return the gateway's log of request 7: each number at that second."""
    asked = Asked(None, REQUEST, 0.0, {number: float(number) for number in numbers})  # type: ignore[arg-type]
    asked.over_s, asked.is_live = over_s, over_s is None
    return {7: asked}


def kinds(held: Held, asked: dict[int, Asked]) -> set[str]:
    return {problem.kind for problem in judged(held, asked, Market(), is_at_rest=True)}


def test_all_of_a_request_is_all_right() -> None:
    assert kinds(stream_of([1, 2, 3]), sent(range(1, 4))) == set()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 2, 3, 4], {"twice"}),
        ([1, 3, 2, 4], {"twice", "unreported"}),
        ([1, 2, 4], {"unreported"}),
        ([2, 3, 4], {"unreported"}),
        ([1, 2, 3], {"unreported"}),
        ([1, 2, 3, 4, 5], {"value"}),
    ],
)
def test_rows_are_compared_with_what_was_sent(numbers: list[int], expected: set[str]) -> None:
    assert kinds(stream_of(numbers), sent(range(1, 5))) == expected


def test_a_tick_of_a_request_that_was_given_up_must_not_come() -> None:
    assert kinds(stream_of([1, 2, 3]), sent(range(1, 4), over_s=2.0)) == {"abandoned"}


def test_what_comes_after_the_user_has_ended_the_stream_need_not_be_whole() -> None:
    held = stream_of(HOLE)
    held.until_s = 3.0
    assert kinds(held, sent(range(1, 7))) == set()


def test_a_row_of_a_request_that_was_not_made_must_not_come() -> None:
    assert "unasked" in kinds(stream_of([1, 2, 3]), {})


HOLE = [1, 2, 6]
"""Rows of seq 10, 20 and 30."""


@pytest.mark.parametrize("gap", [(25, 21, 30), (25, 15, 40), (25, 21, 21)])
def test_a_gap_accounts_for_what_is_missing_where_it_is(gap: tuple[int, int, int]) -> None:
    assert kinds(stream_of(HOLE, gaps=[gap]), sent(range(1, 7))) == set()


@pytest.mark.parametrize("gap", [(25, 11, 20), (35, 31, 40)])
def test_a_gap_elsewhere_does_not(gap: tuple[int, int, int]) -> None:
    assert "unreported" in kinds(stream_of(HOLE, gaps=[gap]), sent(range(1, 7)))


def test_a_gap_is_yielded_before_the_row_that_follows_it() -> None:
    assert kinds(stream_of(HOLE, gaps=[(31, 21, 30)]), sent(range(1, 7))) == {"late gap"}


def test_a_gap_does_not_end_before_it_begins() -> None:
    assert "gap" in kinds(stream_of(HOLE, gaps=[(25, 21, 30), (26, 22, 19)]), sent(range(1, 7)))


def test_lost_accounts_for_what_is_missing_when_it_grows() -> None:
    assert kinds(stream_of(HOLE, lost=[0, 0, 3]), sent(range(1, 7))) == set()
    assert "unreported" in kinds(stream_of(HOLE, lost=[0, 3, 3]), sent(range(1, 7)))


# --- a user that is killed ---


def test_a_user_that_is_killed_goes_on_and_says_so(run: Run) -> None:
    async def play() -> None:
        verdict = await played_killed("26")
        assert verdict.problems == []
        assert verdict.counts["steps"] > 1
        assert verdict.counts["rows"] > 0

    run(play())


def life_of(*rows_ns: int, gap: tuple[int, int] | None = None, is_asked_first: bool = False) -> Life:
    """Return a life with rows of one stream, and a gap of a process that has ended: first_ns and last_ns."""
    told = [] if gap is None else [[1, 3, Scope.CONNECTION, GapCause.PROCESS_ENDED, 1, 2, *gap, 1]]
    figures = {"flowing": 1, "told": told}
    rows = [[1, place, Kind.LAST, place, at_ns] for place, at_ns in enumerate(rows_ns, 1)]
    came = {"key": "0 LAST", "rows": rows, "gaps": [], "lost": 0, "req_id": 1}
    life = Life({})
    life.take({"key": "0 LAST", "opened": "LAST", "con_id": CON_ID, "instrument": 3})
    for line in (figures, came) if is_asked_first else (came, figures):
        life.take(line)
    return life


def test_from_life_to_life_a_gap_begins_with_the_end_of_the_first() -> None:
    before = life_of(100, 200)
    assert succeeded("0 LAST", life_of(300, gap=(150, 300)), before) == []
    for life in (life_of(300), life_of(300, gap=(250, 300))):
        (problem,) = succeeded("0 LAST", life, before)
        assert problem.kind == "unreported"


def test_a_gap_that_comes_after_a_life_was_asked_for_its_gaps_is_not_missed() -> None:
    assert succeeded("0 LAST", life_of(300, is_asked_first=True), life_of(100, 200)) == []


# --- shrinking ---


def test_what_fails_is_shrunk_to_the_steps_that_matter() -> None:
    plan = Plan(Setup(), tuple(Step("drop", {"which": number}) for number in range(30)))

    def fails(smaller: Plan) -> bool:
        return {4, 23} <= {step.arguments["which"] for step in smaller.steps}

    assert [step.arguments["which"] for step in shrunk(plan, fails, 60.0).steps] == [4, 23]


# --- ibfast ---


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_has_failed_before_passes(case: Path) -> None:
    assert jumped(Plan.loaded(case.read_text())).problems == []


class Chaos(RuleBasedStateMachine):
    """One world: hypothesis draws its setup and every step, and finds the fewest that fail."""

    @initialize(draw=st.randoms(use_true_random=False))
    def begin(self, draw: random.Random) -> None:
        self.clock = JumpingClock()
        self.runner = asyncio.Runner(loop_factory=self.clock.new_loop)
        self.world = World(drawn_setup(draw), self.clock)
        self.play(self.world.__aenter__())

    @rule(draw=st.randoms(use_true_random=False))
    def user(self, draw: random.Random) -> None:
        self.play(do(self.world, drawn(list(actions.ACTIONS.values()), draw)))

    @rule(draw=st.randoms(use_true_random=False))
    def gateway(self, draw: random.Random) -> None:
        self.play(do(self.world, drawn(list(trouble.ACTIONS.values()), draw)))

    def play(self, work: Any) -> Any:
        with self.clock.installed():
            return self.runner.run(work)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        try:
            verdict = self.play(self.world.verdict())
            self.play(self.world.__aexit__())
        finally:
            with self.clock.installed():
                self.runner.close()
        assert verdict.problems == []


TestShortForm = Chaos.TestCase
TestShortForm.settings = settings(
    max_examples=45,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def test_the_command_plays_and_tells() -> None:
    for minutes in ("0.05", "1"):  # a busy machine plays no world in three seconds
        command = [sys.executable, "-m", "benchmarks", "chaos", "--minutes", minutes, "--at-once", "0", "--json"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert result.returncode == 0, result.stderr
        figures = json.loads(result.stdout)
        assert figures["found"] == {}
        assert figures["broken"] == []
        if figures["worlds"]:
            break
    assert figures["worlds"] > 0
    assert figures["requests"] > 0


def test_a_process_that_is_killed_starts_without_a_warning() -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks.chaos.subject"]
    started = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "RuntimeWarning" not in started.stderr
