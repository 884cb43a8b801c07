"""Faults of the server's own, at every place where a window can break: nobody is misled, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.fanout.connection import Connection
from ibfast.fanout.encoding import binary as binary_dialect
from ibfast.fanout.encoding import json as json_dialect
from ibfast.fanout.encoding import state_cache as ledger
from ibfast.fanout.faults import SPAN_S, Faults
from ibfast.fanout.gauges import Tally
from ibfast.fanout.server import FanoutServer
from ibfast.fanout.subscriber import Subscriber
from ibfast.records import GapCause, Scope
from tests.support.fanout_auditor import Auditor, Truth, auditing
from tests.support.fanout_client import client_of, rows_of, serving
from tests.support.loops import Run, errors_logged, until

AAPL = 0
ENCODERS = {"json": json_dialect._JsonEncoder, "binary": binary_dialect._BinaryEncoder}


class Trouble:
    """Raises at a place, half of the times that it is passed, while it is on.

    Attributes:
        is_on: whether it raises.
        raised: how often it has.
    """

    def __init__(self, seed: int = 1) -> None:
        self.is_on = False
        self.raised = 0
        self._rng = random.Random(seed)

    def strike(self) -> None:
        if self.is_on and self._rng.random() < 0.5:
            self.raised += 1
            raise ZeroDivisionError("a fault")

    def after(self, does: Any, concerns: Callable[..., bool] = lambda *args: True) -> Any:
        """What a method does, and then trouble: what it was to change has changed."""

        def method(*args: Any, **options: Any) -> Any:
            result = does(*args, **options)
            if concerns(*args):
                self.strike()
            return result

        return method


def of_channel(patch: pytest.MonkeyPatch, trouble: Trouble, server: FanoutServer, dialect: str) -> None:
    line = json_dialect._Line
    patch.setattr(line, "encode", trouble.after(line.encode, lambda line, *_: line.channel.instrument == AAPL))


def of_encoder(method: str, patch: pytest.MonkeyPatch, trouble: Trouble, server: FanoutServer, dialect: str) -> None:
    patch.setattr(ENCODERS[dialect], method, trouble.after(getattr(ENCODERS[dialect], method)))


def of_audience(patch: pytest.MonkeyPatch, trouble: Trouble, server: FanoutServer, dialect: str) -> None:
    encoder = ENCODERS[dialect]
    patch.setattr(encoder, "splice", trouble.after(encoder.splice, lambda _, audience: len(audience.ids) > 1))


def of_reading(patch: pytest.MonkeyPatch, trouble: Trouble, server: FanoutServer, dialect: str) -> None:
    batcher = server._hub.batcher
    keeps = trouble.after(batcher.keeps)
    patch.setattr(batcher, "keeps", keeps)
    patch.setattr(batcher.ledger, "_keeps", keeps)


def of_state(patch: pytest.MonkeyPatch, trouble: Trouble, server: FanoutServer, dialect: str) -> None:
    take = ledger._Entry.take

    def taken(*args: Any) -> None:
        trouble.strike()
        take(*args)

    patch.setattr(ledger._Entry, "take", taken)


PLACES: list[tuple[str, str, Any, bool]] = [
    ("json", "channel", of_channel, True),
    *((dialect, "lane", partial(of_encoder, "push"), True) for dialect in ENCODERS),
    *((dialect, "lane", partial(of_encoder, "advance"), True) for dialect in ENCODERS),
    *((dialect, "audience", of_audience, True) for dialect in ENCODERS),
    *((dialect, "window", of_reading, True) for dialect in ENCODERS),
    *((dialect, "ledger", of_state, False) for dialect in ENCODERS),
    ("binary", "channel", partial(of_encoder, "_settle"), False),
]


@pytest.mark.parametrize(("dialect", "place", "install", "is_lossy"), PLACES)
@pytest.mark.parametrize("interval_ms", [0, 10])
def test_what_a_fault_costs_is_told_to_whom_it_costs_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, dialect: str, place: str, install: Any, is_lossy: bool, interval_ms: int
) -> None:
    trouble = Trouble()

    async def test() -> None:
        async with serving() as (server, desk), contextlib.AsyncExitStack() as stack:
            truth = Truth(desk)
            quotes = await stack.enter_async_context(client_of(server, max_queue=None))
            await quotes.ask("subscribe", symbol="AAPL", data_type="QUOTES", interval_ms=interval_ms)
            both, aapl, other = [await stack.enter_async_context(auditing(server, truth, dialect)) for _ in range(3)]
            plan = [(both, "AAPL"), (both, "MSFT"), (aapl, "AAPL"), (other, "MSFT")]
            for auditor, symbol in plan:
                await subscribe(auditor, symbol, interval_ms)
            with monkeypatch.context() as patch, errors_logged() as errors:
                install(patch, trouble, server, dialect)
                trouble.is_on = True
                for n in range(150):
                    desk.quote("AAPL", 1.0 + n, 2.0 + n)  # another ring, which is read before that of trades
                    for symbol in ("AAPL", "MSFT"):
                        desk.trade(symbol, *(100.0 + n + i for i in range(n % 3)))
                        truth.look()
                    await asyncio.sleep((0, 0, 0.003)[n % 3])
                    if n % 10 == 0:
                        # Nobody else has the other interval: its channels begin with what the ledger knows.
                        interval = (interval_ms, 50)[n // 20 % 2]
                        await both.ask("update", subscription=1 + n // 10 % 2, interval_ms=interval)
                trouble.is_on = False
                for symbol in ("AAPL", "MSFT"):
                    desk.trade(symbol, 7.0)
                    truth.look()
                for auditor in (both, aapl, other):
                    await until(partial(has_all, auditor, truth))
                    assert not auditor.listening.done()  # type: ignore[union-attr]
            assert trouble.raised
            assert server.tally.faults[place]
            assert sum(server.tally.faults.values()) == trouble.raised
            assert len([error for error in errors if "fault" in error]) <= len(server.tally.faults)
            assert bool(both.ops["overrun"]) == is_lossy
            assert bool(aapl.ops["overrun"]) == (is_lossy and place != "audience")
            assert bool(other.ops["overrun"]) == (is_lossy and place not in ("audience", "channel"))

    run(test())


async def subscribe(auditor: Auditor, symbol: str, interval_ms: int) -> None:
    answer = await auditor.ask("subscribe", symbol=symbol, data_type="TRADES", interval_ms=interval_ms, ordered=True)
    assert answer["op"] == "subscribed"


def has_all(auditor: Auditor, truth: Truth) -> bool:
    assert auditor.listening is not None
    tracks = auditor.tracks.values()
    return auditor.listening.done() or all(track.seq >= truth.seqs[track.instrument][-1] for track in tracks)


# --- one connection ---


def of_offer(patch: pytest.MonkeyPatch, victim: Connection) -> None:
    victim.member.hold()
    patch.setattr(victim, "offer", fail)


def of_transport(patch: pytest.MonkeyPatch, victim: Connection) -> None:
    """Its socket does not take all of a frame, and then its transport fails."""
    broadcaster = victim.owner.broadcaster
    patch.setattr(victim.member, "_transport", Unwritable(victim.member._transport))
    patch.setattr(broadcaster, "_writes", Partly(broadcaster._writes, victim.member))


def capped(victim: Connection) -> None:
    assert victim.session is not None
    victim.session.max_bytes_per_s = 1 << 30
    victim.session.subscriber.reseat()


def of_spend(patch: pytest.MonkeyPatch, victim: Connection) -> None:
    capped(victim)
    patch.setattr(victim, "spend", fail)


def of_judging(patch: pytest.MonkeyPatch, victim: Connection) -> None:
    capped(victim)
    patch.setattr(victim, "_leave_out", fail)


def of_snapshot(patch: pytest.MonkeyPatch, victim: Connection) -> None:
    assert victim.session is not None
    patch.setattr(victim.session.subscriber, "serve_once", fail)
    victim.session.subscriber.fall_behind()
    victim.watch()


def of_gap(patch: pytest.MonkeyPatch, victim: Connection) -> None:
    assert victim.session is not None
    broken = victim.session.subscriber
    tell_gap = Subscriber.tell_gap

    def told(self: Subscriber, *args: Any) -> None:
        if self is broken:
            fail()
        tell_gap(self, *args)

    patch.setattr(Subscriber, "tell_gap", told)


class Unwritable:
    """A transport that can't be written to."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        fail()


class Partly:
    """A set of sockets, one of which takes nothing."""

    def __init__(self, writes: Any, victim: Any) -> None:
        self._writes = writes
        self._victim = victim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writes, name)

    def write(self, frame: bytes, handles: Any) -> Any:
        mine = [(self._victim, 0)] if self._victim.handle in handles else []
        return [*mine, *self._writes.write(frame, handles)]


def subscriptions_of(connection: Connection) -> Any:
    assert connection.session is not None
    return connection.session.subscriber.subscriptions


def fail(*args: Any) -> None:
    raise ZeroDivisionError("a fault")


@pytest.mark.parametrize("install", [of_offer, of_transport, of_spend, of_judging, of_snapshot, of_gap])
def test_a_fault_in_one_connection_cuts_it_alone(run: Run, monkeypatch: pytest.MonkeyPatch, install: Any) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as first:
            await first.ask("subscribe", symbol="AAPL", data_type="TRADES")
            async with client_of(server) as broken:
                (victim,) = (each for each in server.connections if not subscriptions_of(each))
                await broken.ask("subscribe", symbol="AAPL", data_type="TRADES")
                async with client_of(server) as last:
                    await last.ask("subscribe", symbol="AAPL", data_type="TRADES")
                    with monkeypatch.context() as patch:
                        install(patch, victim)
                        for n in range(20):
                            desk.trade("AAPL", float(n))
                            desk.feed.add_gap(
                                n + 1, Scope.LINK, GapCause.LINK_LOST, instrument=0,
                                req_id=desk.subscription("AAPL").req_id,
                            )  # fmt: skip
                            await asyncio.sleep(0.002)
                        for client in (first, last):
                            gaps = 0
                            rows: list[Any] = []
                            while len(rows) < 20 or gaps < 20:
                                message = await client.hear()
                                gaps += message["op"] == "gap"
                                rows += rows_of(message, "trades")
                            assert [row["price"] for row in rows] == [float(n) for n in range(20)]
                            assert {"lag", "closing"} & {message["op"] for message in client.heard} == set()
                        await until(lambda: victim not in server.connections)
                    assert sum(server.tally.faults.values()) >= 1
        assert not server.connections

    run(test())


def test_a_write_of_which_nobody_knows_who_has_it_cuts_its_audience(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as other:
            await other.ask("subscribe", symbol="MSFT", data_type="TRADES")
            async with client_of(server) as one:
                await one.ask("subscribe", symbol="AAPL", data_type="TRADES")
                with monkeypatch.context() as patch:
                    write = server.broadcaster.write

                    def broken(frames: bytes, members: Any) -> Any:
                        refused = write(frames, members)
                        if b"AAPL" in frames:
                            fail()
                        return refused

                    patch.setattr(server.broadcaster, "write", broken)
                    desk.trade("AAPL", 1.0)
                    desk.trade("MSFT", 2.0)
                    assert [row["price"] for row in await other.news("trades", 1)] == [2.0]
                    await until(lambda: len(server.connections) == 1)
                assert server.tally.faults == {"write": 1}

    run(test())


# --- a subscription ---


@pytest.mark.parametrize("method", ["add", "snapshot"])
def test_a_subscription_that_fails_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk), client_of(server) as client:
            with monkeypatch.context() as patch:
                patch.setattr(json_dialect._JsonEncoder, method, fail)
                answer = await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
                if answer["op"] == "subscribed":
                    assert (await client.until("ended"))["code"] == "REFUSED"
                    answer = await client.until("error")
                assert (answer["code"], answer["id"]) == ("REFUSED", 1)
            assert (await client.ask("list"))["subscriptions"] == []
            await until(lambda: not desk.lines)
            assert server._hub.batcher.windows == {}
            assert server.tally.faults == {"subscription": 1}
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            desk.trade("AAPL", 1.0)
            assert [row["price"] for row in await client.news("trades", 1)] == [1.0]

    run(test())


def test_a_channel_that_can_not_go_on_cuts_those_who_have_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as other, client_of(server) as one:
            await one.ask("subscribe", symbol="AAPL", data_type="TRADES")
            await other.ask("subscribe", symbol="MSFT", data_type="TRADES")
            trouble = Trouble()
            trouble.is_on = True
            with monkeypatch.context() as patch:
                of_channel(patch, trouble, server, "json")
                patch.setattr(json_dialect._JsonEncoder, "restart", fail)
                while not trouble.raised:
                    desk.trade("AAPL", 1.0)
                    desk.trade("MSFT", 2.0)
                    await other.news("trades", 1)
                await until(lambda: len(server.connections) == 1)
                desk.trade("MSFT", 3.0)
                assert [row["price"] for row in await other.news("trades", 1)] == [3.0]
            assert "lag" not in {message["op"] for message in other.heard}

    run(test())


# --- counting and logging ---


@given(st.lists(st.tuples(st.sampled_from(["channel", "write"]), st.floats(0, 3))))
def test_each_fault_counts_and_one_of_a_kind_is_logged_in_a_while(steps: list[tuple[str, float]]) -> None:
    now_s, tally = 0.0, Tally()
    faults = Faults(tally, lambda: now_s)
    last_s: dict[str, float] = {}
    with errors_logged() as errors:
        for place, wait_s in steps:
            now_s += wait_s
            before = len(errors)
            with faults.contained(place):
                fail()
            is_due = now_s - last_s.get(place, -SPAN_S) >= SPAN_S
            assert len(errors) - before == is_due
            if is_due:
                last_s[place] = now_s
    assert tally.faults.total() == len(steps)
