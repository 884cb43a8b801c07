"""The fan-out's chaos finds what is wrong, and nothing where nothing is; its short form, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.chaos import report
from benchmarks.chaos.fanout import rest, socket_client
from benchmarks.chaos.fanout.books import LEVEL, Book
from benchmarks.chaos.fanout.census import NOTICED_S, Census
from benchmarks.chaos.fanout.kinds import KINDS
from benchmarks.chaos.fanout.play import ACTIONS, NOT_OF_PROCESSES, Plan, do, plan_of, played
from benchmarks.chaos.fanout.process import RemoteTruth
from benchmarks.chaos.fanout.socket_client import Manner, SocketClient
from benchmarks.chaos.fanout.tracks import Track
from benchmarks.chaos.fanout.truth import Generation, Record, Row
from benchmarks.chaos.fanout.wire import Bookmark, Bookmarks, Form, JsonWire, Lag, News, State, WireError
from benchmarks.chaos.fanout.world import FanoutSetup, FanoutWorld
from benchmarks.chaos.steps import Step
from benchmarks.chaos.world import Verdict
from ibfast.fanout.sockets.frames import text_frame
from ibfast.feed.feed import Feed
from ibfast.records import GapCause, Kind, Scope
from tests.support.loops import Run

DATA_TYPES = ("TRADES", "QUOTES", "TICKS", "DEPTH", "BARS", "ALL")
GENTLE = FanoutSetup(period_s=0.02, heartbeat_s=0.2, linger_s=0.1)
GREEKS = {"data_type": "GREEKS", "contract": {"con_id": 1006}}


def comer(dialect: str, *subscriptions: dict[str, Any], **manner: Any) -> Step:
    manner = {"is_deflated": False, "is_narrow": False, "token": "full"} | manner
    return Step("come", {"dialect": dialect, "subscriptions": list(subscriptions), **manner}, 0.05)


def everything(**options: Any) -> list[dict[str, Any]]:
    return [{"data_type": name, "symbol": "AA", **options} for name in DATA_TYPES] + [GREEKS | options]


EVERYBODY = (
    comer("json", *everything(), is_deflated=True),
    comer("json", *everything(mode="conflate", interval_ms=50, times="ns")),
    comer("binary", *everything(ordered=True, interval_ms=0)),
    comer("binary", *everything(mode="conflate", fields=["attribs"], interval_ms=100)),
    comer("binary", *everything(mode="snapshot")),
)
CHANGES = (
    Step("update", {"which": 0, "track": 1, "interval_ms": 100}, 0.1),
    Step("update", {"which": 2, "track": 2, "interval_ms": 10}, 0.1),
    Step("unsubscribe", {"which": 1, "track": 0, "again": False}, 0.1),
    Step("question", {"which": 3, "op": "list", "times": 2}),
    Step("question", {"which": 0, "op": "ping", "times": 3}),
    Step("talk nonsense", {"which": 0, "what": 2}),
    Step("talk nonsense", {"which": 2, "what": 8}),
    Step("limit", {"which": 1, "max_bytes_per_s": 4000}, 0.5),
    Step("stop reading", {"which": 2, "for_s": 0.3}, 0.4),
    Step("leave", {"which": 0, "how": "reset"}, 0.05),
    Step("leave", {"which": 1, "how": "close"}, 0.05),
    Step("look at pages", {}),
    Step(
        "crowd", {"many": 5, "manner": {"dialect": "json", "is_deflated": False, "is_narrow": True, "token": ""}}, 0.2
    ),
)


def test_nothing_is_found_where_nothing_is_wrong(run: Run) -> None:
    async def play() -> None:
        verdict = await asyncio.create_task(played(Plan(GENTLE, EVERYBODY + CHANGES)))
        assert verdict.problems == []
        assert verdict.counts["rows"] > 1000
        assert verdict.counts["subscribed"] >= 7 * (len(EVERYBODY) - 1)

    run(play())


def test_a_plan_survives_its_file() -> None:
    for seed in ("file", "1/process/2"):
        plan = plan_of(seed)
        assert Plan.loaded(plan.dumped()) == plan


def test_actions_can_be_left_out() -> None:
    steps = [step for seed in range(60) for step in plan_of(f"{seed}", without=["crowd", "drop"]).steps]
    assert {step.action for step in steps} == ACTIONS.keys() - {"crowd", "drop", "kill"}
    of_processes = {step.action for seed in range(60) for step in plan_of(f"1/process/{seed}").steps}
    assert "kill" in of_processes
    assert not of_processes & set(NOT_OF_PROCESSES)


# --- what a server does wrong is found ---

Sabotage = Callable[[FanoutWorld], Awaitable[None]]


def connections(world: FanoutWorld) -> list[Any]:
    assert world.server is not None
    return [connection for connection in world.server.connections if connection.session is not None]


async def lose_what_is_new(world: FanoutWorld) -> None:
    assert world.server is not None
    (window,) = world.server._hub.batcher.windows.values()
    while not any(reader.pending for reader in window._readers.values()):
        await asyncio.sleep(0)
    for reader in window._readers.values():
        reader.read()


async def say_what_is_over(world: FanoutWorld) -> None:
    for connection in connections(world):
        connection.write(text_frame(json.dumps({"op": "state", "subscription": 99, "state": "LIVE"}).encode()))


async def answer_twice(world: FanoutWorld) -> None:
    for connection in connections(world):
        handle = connection.session.handle
        connection.session.handle = lambda text, handle=handle: (handle(text), handle(text))
    for client in world.open_clients():
        client.ask("ping", data=1)


async def forget_a_window(world: FanoutWorld) -> None:
    assert world.server is not None
    batcher = world.server._hub.batcher
    batcher.windows[77] = next(iter(batcher.windows.values()))


async def forget_to_release(world: FanoutWorld) -> None:
    assert world.server is not None
    world.server._hub.upstreams.release = lambda upstreams: None  # type: ignore[method-assign]


async def raise_in_a_callback(world: FanoutWorld) -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


def interrupt(world: FanoutWorld) -> None:
    for each in world.truth.generations:
        world.user.feed.add_gap(
            time.time_ns(), Scope.LINK, GapCause.LINK_LOST, instrument=each.instrument,
            req_id=each.subscription.req_id, first_seq=1,
        )  # fmt: skip


async def keep_gaps_back(world: FanoutWorld) -> None:
    assert world.server is not None
    world.server._tell_gaps = lambda: None  # type: ignore[method-assign]
    interrupt(world)


async def let_a_stranger_in(world: FanoutWorld) -> None:
    assert world.address is not None
    host, port = world.address
    stranger = await connect(f"ws://{host}:{port}/stream", proxy=None)
    world._stack.push_async_callback(stranger.close)


async def cut_somebody(world: FanoutWorld) -> None:
    connections(world)[0].transport.abort()


@pytest.mark.parametrize(
    ("sabotage", "kind"),
    [
        (lose_what_is_new, "missing"),
        (say_what_is_over, "after the end"),
        (answer_twice, "answer"),
        (forget_a_window, "left"),
        (forget_to_release, "left"),
        (raise_in_a_callback, "exception"),
        (keep_gaps_back, "gap"),
        (let_a_stranger_in, "pages"),
        (cut_somebody, "cut"),
    ],
)
def test_what_is_wrong_is_found(sabotage: Sabotage, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LEAVE_S", 1.0)
    monkeypatch.setattr(rest, "GAPS_S", 0.5)
    monkeypatch.setattr(rest, "PAGES_S", 0.5)
    assert kind in KINDS
    assert kind in asyncio.run(sabotaged(sabotage)).kinds


async def sabotaged(sabotage: Sabotage) -> Verdict:
    """Play a healthy world in which one thing is wrong."""
    subscriptions = everything(interval_ms=10)[:3]
    async with FanoutWorld(GENTLE) as world:
        for step in (comer("json", *subscriptions), comer("binary", *subscriptions)):
            await do(world, step)
        await asyncio.sleep(0.5)
        await sabotage(world)
        await asyncio.sleep(0.3)
        return await world.verdict()


def test_the_story_says_who_is_there_when_pages_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LEAVE_S", 1.0)
    monkeypatch.setattr(rest, "PAGES_S", 0.5)
    story = report.told(GENTLE, asyncio.run(sabotaged(let_a_stranger_in)))
    assert story.count("there is client") == 2
    assert story.count("the server has connection of") >= 3


def test_a_gap_may_be_told_a_moment_after_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    untold, looks = rest.Rest._untold, [0]

    def look(*args: Any) -> Any:
        looks[0] += 1
        return untold(*args)

    async def tell_late(world: FanoutWorld) -> None:
        assert world.server is not None
        tell = world.server._tell_gaps
        world.server._tell_gaps = lambda: tell() if looks[0] else None  # type: ignore[method-assign]
        interrupt(world)

    monkeypatch.setattr(rest.Rest, "_untold", look)
    assert asyncio.run(sabotaged(tell_late)).problems == []
    assert looks[0] > 1


def test_connections_are_counted_that_may_be_there_at_once() -> None:
    now_s = 0.0
    census = Census(lambda: now_s)
    early = census.arrive()
    with census.counted():  # a page
        number = census.arrive()
    now_s = 1.0
    census.leave(early)
    census.leave(number)
    assert census.most(number) == 3
    now_s += NOTICED_S
    late = census.arrive()
    census.leave(late)
    assert census.most(late) == 3  # the server may not have noticed yet that two have gone, but for the page
    now_s += 1.0
    last = census.arrive()
    census.leave(last)
    assert census.most(last) == 2


async def fill_with_pages(world: FanoutWorld) -> None:
    """Have the server refuse a client because of pages alone: that is no fault."""
    assert world.address is not None
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(GENTLE.max_connections):
            stack.enter_context(world.census.counted())
            _, writer = await asyncio.open_connection(*world.address)
            stack.callback(writer.close)
        client = world.come(Manner("json"))
        assert client is not None
        await asyncio.wait([client.task])
        assert client.status


def test_who_finds_no_room_beside_pages_was_not_cut() -> None:
    assert "cut" not in asyncio.run(sabotaged(fill_with_pages)).kinds


async def stop_beside_a_handshake(world: FanoutWorld) -> None:
    """Have the server stop while a client waits for the answer to its handshake: it may say so."""
    server = world.server
    assert server is not None
    run = server.turns.run

    async def run_late(*args: Any) -> Any:
        done = await run(*args)
        while server._server.is_serving():
            await asyncio.sleep(0)
        return done

    server.turns.run = run_late  # type: ignore[method-assign]
    client = world.come(Manner("json"))
    assert client is not None
    while not any(each.session is None and each.grant is not None for each in server.connections):
        await asyncio.sleep(0)
    await world.stop_server()
    await asyncio.wait([client.task])
    assert client.status == 503


def test_who_is_refused_by_a_server_that_stops_was_not_cut() -> None:
    assert "cut" not in asyncio.run(sabotaged(stop_beside_a_handshake)).kinds


class Lost(ClientConnection):
    """A connection that is reset before anything is asked, as those are that a server has not accepted when it ends."""

    async def handshake(self, *args: Any) -> None:
        self.transport.abort()
        await self.wait_closed()
        await super().handshake(*args)


def test_a_connection_that_is_lost_before_the_handshake_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = SocketClient(0, Manner(), server.getsockname())
            await client.task
            assert client.status == -1

    monkeypatch.setattr(socket_client, "connect", partial(connect, create_connection=Lost))
    run(test())


# --- the judge of a channel ---


def trades(*seqs: int) -> list[Row]:
    return [Row(seq, "trades", Kind.L1_LAST, values_of(seq)) for seq in seqs]


def values_of(seq: int) -> dict[str, Any]:
    return {
        "recv_ns": 1000 * seq, "attribs": 0, "event_ns": 0, "price": seq, "size": 1, "exchange": "", "conditions": "",
    }  # fmt: skip


FORM = Form(is_binary=True, fields=(), unit_ns=1000, is_ordered=True)
STATE = Form(is_binary=True, fields=(), unit_ns=1000, is_ordered=False)
SEQS = (10, 20, 30, 40)


def track_of(*, is_conflated: bool = False) -> Track:
    """Return a channel of trades that has begun at seq 5, where the rings have these rows."""
    truth: Any = SimpleNamespace(records={("trades", 1, 0): Record(list(SEQS), trades(*SEQS))}, has_wrapped=False)
    subscription = SimpleNamespace(req_ids={1: 0})
    stream: Any = SimpleNamespace(subscription=subscription, instrument=0, live=True)
    generation = Generation(truth, stream, 0)
    generation.look(0)
    track = Track(
        name="channel", subscription=1, channel=0, cls=2, form=FORM,
        kinds={"trades": frozenset({int(Kind.L1_LAST)})}, is_conflated=is_conflated, generations=[generation],
        options={}, bookmarks=Bookmarks("epoch", 2),
    )  # fmt: skip
    assert list(track.take_state(State(0, 5, []))) == []
    return track


def with_successor(track: Track, opened_seq: int) -> Track:
    """Return a channel whose client has got the answer late: the server has asked for the same again meanwhile."""
    truth: Any = SimpleNamespace(records={}, has_wrapped=False)
    stream: Any = SimpleNamespace(subscription=SimpleNamespace(req_ids={2: 0}), instrument=0, live=True)
    return replace(track, generations=[track.generation, Generation(truth, stream, opened_seq)])


def told(*seqs: int) -> list[Any]:
    return [FORM.said(row) for row in trades(*seqs)]


def found(problems: Iterable[Any]) -> set[str]:
    return {problem.kind for problem in problems}


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([10, 20, 30], set()),
        ([10, 30], {"missing"}),
        ([], {"missing"}),
        ([10, 20, 20, 30], {"order"}),
        ([20, 10, 30], {"order"}),
        ([5, 10, 20, 30], {"surplus"}),
        ([10, 20, 31], {"value"}),
    ],
)
def test_rows_are_compared_with_the_rings(rows: list[int], kinds: set[str]) -> None:
    assert found(track_of().take(told(*rows), 30)) == kinds


def test_a_conflated_channel_has_the_latest_of_a_window() -> None:
    assert found(track_of(is_conflated=True).take(told(30), 30)) == set()
    assert found(track_of(is_conflated=True).take(told(20), 30)) == {"value"}


def test_what_says_that_all_has_come_is_held_to_it() -> None:
    track = track_of()
    assert found(track.take(told(10, 20), 20)) == set()
    assert found(track.take([], 29)) == set()
    assert found(track.take([], 30)) == {"missing"}


@pytest.mark.parametrize(
    ("lag", "kinds"),
    [
        (Lag(0, "slow", 10, 30, 2), set()),
        (Lag(0, "slow", 15, 30, None), set()),
        (Lag(0, "slow", 10, 30, 3), {"lag"}),
        (Lag(0, "slow", 5, 30, 3), {"lag"}),
        (Lag(0, "slow", 20, 30, 1), {"lag"}),
        (Lag(0, "slow", 30, 10, 0), {"lag"}),
        (Lag(0, "incomplete", 10, 30, 2), {"lag"}),
    ],
)
def test_a_lag_begins_where_the_channel_was_and_counts(lag: Lag, kinds: set[str]) -> None:
    track = track_of()
    assert found(track.take(told(10), 10)) == set()
    assert found(track.take_lag(lag)) == kinds


def test_a_state_is_what_the_rows_make_and_leaves_nothing_out_in_silence() -> None:
    track = track_of()
    latest = STATE.said(trades(30)[0])
    assert found(track.take_lag(Lag(0, "slow", 5, 30, 3))) == set()
    assert found(track.take(told(40), 40)) == {"early row"}
    assert found(track.take_state(State(0, 30, [latest]))) == set()
    assert found(track.take_state(State(0, 40, [latest]))) == {"missing", "state"}


@pytest.mark.parametrize(
    ("lag", "kinds"), [(Lag(0, "overrun", 0, 3, None), set()), (Lag(0, "overrun", 4, 5, None), {"lag"})]
)
def test_a_server_that_knows_nothing_of_a_client_begins_at_nothing(lag: Lag, kinds: set[str]) -> None:
    track = track_of()
    track.is_unknown = True
    assert found(track.take_lag(lag)) == kinds
    assert found(track.take_state(State(0, lag.to_seq, []))) == set()


def test_a_lag_voids_what_a_channel_might_be_resumed_from() -> None:
    track = track_of()
    list(track.take(told(10), 10))
    seen = track.seen()
    assert seen is not None
    assert seen.bookmarks.at(10) == Bookmark("epoch", 162)
    list(track.take_lag(Lag(0, "slow", 10, 20, 1)))
    assert track.seen() is None


def test_a_channel_goes_on_from_before_until_its_new_state_has_come() -> None:
    track = track_of()
    before = track.seen()
    described = replace(track, bookmarks=Bookmarks("another", 4), former=before, is_void=True)
    assert described.seen() is before
    assert found(described.take_state(State(0, 9, []))) == set()
    after = described.seen()
    assert after is not None
    assert after.bookmarks.at(9) == Bookmark("another", 148)


@pytest.mark.parametrize(
    ("options", "interval_ms"),
    [
        ({}, 10),
        ({"mode": "stream"}, 10),
        ({"mode": "conflate"}, 250),
        ({"mode": "snapshot"}, 10),
        ({"mode": "conflate", "interval_ms": 0}, 0),
    ],
)
def test_an_interval_that_was_not_asked_for_is_that_of_the_mode(options: dict[str, Any], interval_ms: int) -> None:
    assert replace(track_of(), options=options).asked_ms == interval_ms


@pytest.mark.parametrize("fields", [(), ("price",), ("attribs",)])
@pytest.mark.parametrize("is_binary", [False, True])
def test_a_book_that_goes_on_in_the_other_dialect_is_the_same(fields: tuple[str, ...], is_binary: bool) -> None:
    one, other = (Form(each, fields, unit_ns=1000, is_ordered=False) for each in (is_binary, not is_binary))
    values = dict(zip(LEVEL, (0x4049000000000000, 0x4008000000000000, "ARCA"), strict=True))
    book = Book()
    book.sides[0].append(tuple(one.value("depth", name, value) for name, value in values.items()))
    before = track_of().seen()
    assert before is not None
    track = replace(track_of(), form=other)
    track.go_on(replace(before, book=book), 5)
    assert track.book is not None
    assert track.book.sides == ([tuple(other.value("depth", name, value) for name, value in values.items())], [])


def test_an_answer_that_is_read_late_is_of_what_there_was_when_it_was_written() -> None:
    track = with_successor(replace(track_of(), is_void=True, may_begin=True), opened_seq=35)
    assert found(track.take_state(State(0, 5, []))) == set()
    assert found(track.take(told(10, 20, 30), 30)) == set()
    missed = with_successor(replace(track_of(), is_void=True, may_begin=True), opened_seq=35)
    assert found(missed.take_lag(Lag(0, "slow", 5, 30, 3))) == set()
    anew = with_successor(replace(track_of(), is_void=True, may_begin=True), opened_seq=35)
    assert found(anew.take_state(State(0, 40, []))) == set()
    assert found(anew.take(told(40), 50)) == {"surplus"}


def test_an_empty_state_may_be_of_several_until_rows_come() -> None:
    track = with_successor(replace(track_of(), is_void=True, may_begin=True), opened_seq=0)
    assert found(track.take_state(State(0, 5, []))) == set()
    assert len(track.generations) == 2
    assert found(track.take(told(10), 10)) == set()
    assert len(track.generations) == 1
    assert found(track.take(told(20, 25), 30)) == {"value"}
    successor = with_successor(replace(track_of(), is_void=True, may_begin=True), opened_seq=0)
    assert found(successor.take_state(State(0, 5, []))) == set()
    assert found(successor.take([], 10)) == set()
    assert found(successor.take(told(20), 20)) == {"surplus"}


def test_what_is_resumed_is_of_what_the_client_had() -> None:
    before = track_of().seen()
    assert before is not None
    track = with_successor(track_of(), opened_seq=35)
    track.generations[0] = before.generation
    track.go_on(before, 5)
    assert list(track.take_state(State(0, 5, []))) == []
    assert found(track.take(told(10, 20, 30), 30)) == set()


# --- what a message says ---

DESCRIBED = {"channel": 0, "class": 2, "symbol": "AA", "con_id": 1000, "exchange": "SMART"}


def news(**other: Any) -> str:
    piece = {"channel": 0, "symbol": "AA", "con_id": 1000, "exchange": "SMART", "family": "trades", "rows": []}
    return json.dumps({"op": "data", "position": 162, "pieces": [piece]} | other)


def test_the_truth_of_a_process_knows_the_numbers_of_gaps() -> None:
    reading, writing = os.pipe()
    with Feed(1 << 8, max_instruments=16, max_texts=64) as feed:
        truth = RemoteTruth(cast("Any", feed), reading)
        feed.add_gap(1, Scope.CONNECTION, GapCause.CONNECTION_LOST, first_seq=1, first_ns=1)
        assert truth.seq == 0
        truth.look()
        assert truth.seq == feed.seq == 1
        truth.close()
    os.close(writing)


def test_news_are_of_a_class_up_to_a_sequence_number() -> None:
    wire = JsonWire()
    wire.open(DESCRIBED)
    assert wire.read(news()) == News(2, 10, {0: []})


@pytest.mark.parametrize(
    "message",
    [
        news(position=163),
        news().replace("SMART", "ISLAND"),
        json.dumps({"op": "snapshot", "channel": 0, "position": 163, "rows": {}}),
        json.dumps({"op": "snapshot", "channel": 0, "seq": 10, "rows": {}}),
    ],
)
def test_what_contradicts_a_description_is_no_message(message: str) -> None:
    wire = JsonWire()
    wire.open(DESCRIBED)
    with pytest.raises(WireError):
        wire.read(message)
