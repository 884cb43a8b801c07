"""Pools over real sockets: who serves what, what moves where, and that nobody breaks the limits that all share.

Every case runs on asyncio and on uvloop, against embedded gateways, which enforce the limits by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ibfast import Config, ConnectionPool, Feed
from ibfast.config import AuthConfig, BreakerConfig, HeartbeatConfig, PacingConfig, ReconnectionConfig, SessionConfig
from ibfast.connection.manager import IBKRConnectionManager
from ibfast.connection.monitor import Event
from ibfast.connection.store import Store
from ibfast.connection.stream import Stream
from ibfast.errors import AuthError, ConfigError, NotConnectedError
from ibfast.feed.feed import NO_INSTRUMENT
from ibfast.policy.subscription import FLOWING, SubscriptionState
from ibfast.records import GapCause, Scope
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.universe import Universe
from ibfast.wire import requests
from ibfast.wire.ids import MarketDataType
from tests.support.loops import Run, until

SYMBOLS = [f"SYM{number:03}" for number in range(24)]
SPEED = 20.0
"""Of the gateways' clocks, so that all symbols trade all the time; limits are measured in real time."""


def gateway(*accounts: str, lines: int = 100) -> Gateway:
    market = Market(Universe.synthetic(len(SYMBOLS)), rate=400)
    return Gateway(market=market, clock=Clock(SPEED), accounts=accounts or ("DU1",), lines=lines)


def config(port: int, client_id: int = 1, **settings: Any) -> Config:
    eager = {
        "connect_timeout_s": 2.0,
        "heartbeat": HeartbeatConfig(interval_s=0.5, timeout_s=0.5),
        "reconnection": ReconnectionConfig(delay_s=0.05, max_delay_s=0.1),
        "breaker": BreakerConfig(window_calls=1000),
    }
    return Config(port=port, client_id=client_id, **(eager | settings))


def small_feed() -> Feed:
    return Feed(1 << 12, max_instruments=64, max_texts=256)


@contextlib.asynccontextmanager
async def pool_of(*configs: Config) -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool(configs, small_feed()) as pool:
        yield pool


@contextlib.asynccontextmanager
async def behind_proxy(target: Gateway) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(target.host, target.port) as proxy:
        yield proxy


def served(pool: ConnectionPool) -> list[int]:
    """How many subscriptions each member has."""
    return [len(member.session.subscriptions) for member in pool.members]


def server_of(pool: ConnectionPool, stream: Stream) -> IBKRConnectionManager:
    (member,) = [m for m in pool.members if stream.subscription in m.session.subscriptions.values()]
    return member


async def subscribe(pool: ConnectionPool, symbols: list[str], data_type: str = "TICKS", **options: Any) -> list[Stream]:
    return [await pool.subscribe(symbol, data_type, **options) for symbol in symbols]


async def first_rows(streams: list[Stream]) -> None:
    """Wait until every stream has brought something that was not there before."""
    await asyncio.gather(*(anext(stream) for stream in streams))


async def to_the_end(stream: Stream) -> None:
    async for _ in stream:
        pass


async def all_flow(streams: list[Stream]) -> None:
    await until(lambda: all(stream.state in FLOWING for stream in streams))


def gaps_of(stream: Stream) -> list[tuple[Scope, GapCause, bool]]:
    return [(Scope(row["scope"]), GapCause(row["cause"]), bool(row["recovered"])) for row in stream.take_gaps()]


def counted_sweeps(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Awaitable[None]]:
    """Have pools look often; return what waits until one has looked so many times from the beginning to the end."""
    monkeypatch.setattr("ibfast.connection.pool.SWEEP_S", 0.05)
    sweep = ConnectionPool._sweep
    ended = 0

    def counted(pool: ConnectionPool) -> None:
        nonlocal ended
        sweep(pool)
        ended += 1

    async def sweeps(number: int) -> None:
        before = ended
        await until(lambda: ended >= before + number)

    monkeypatch.setattr(ConnectionPool, "_sweep", counted)
    return sweeps


def lose(proxy: FaultProxy) -> None:
    """Break the connections off, and let nobody in again."""
    proxy.refuse()
    proxy.reset()


# --- who serves what ---


def test_subscriptions_are_spread_and_fill_one_feed(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, pool_of(config(source.port, 1), config(source.port, 2)) as pool:
            streams = await subscribe(pool, SYMBOLS)
            assert served(pool) == [12, 12]
            await first_rows(streams)
            assert len({stream.instrument for stream in streams}) == len(SYMBOLS)
            assert len({stream.req_id for stream in streams}) == len(SYMBOLS)
            assert not pool.errors
            await all_flow(streams)
            assert pool.health()
            assert not source.violations

    run(test())


def test_accounts_with_more_room_get_more(run: Run) -> None:
    async def test() -> None:
        async with gateway("DU1", lines=40) as small, gateway("DU2", lines=100) as large:
            configs = [
                config(small.port, pacing=PacingConfig(lines=40)),
                config(large.port, pacing=PacingConfig(lines=100)),
            ]
            async with pool_of(*configs) as pool:
                streams = await subscribe(pool, SYMBOLS[:7], "LAST")  # of which one account has 2, and the other 5
                assert served(pool) == [2, 5]
                await first_rows(streams)
            assert not small.violations
            assert not large.violations

    run(test())


def test_the_same_twice_takes_one_line(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, pool_of(config(source.port, 1), config(source.port, 2)) as pool:
            streams = await asyncio.gather(*(pool.subscribe("SYM000", name) for name in ("TICKS", "QUOTES") * 3))
            assert len({id(stream.subscription) for stream in streams}) == 1
            await first_rows([streams[0]])
            assert len(source.subscriptions()) == 1
            for stream in streams:
                stream.unsubscribe()
            assert served(pool) == [0, 0]
            await until(lambda: not source.subscriptions())

    run(test())


def test_what_is_wanted_again_of_a_member_that_is_down_waits_there(run: Run) -> None:
    """It can't be served twice: the other member has it, or gets it when it comes back."""

    async def test() -> None:
        async with (
            gateway() as source,
            behind_proxy(source) as proxy,
            pool_of(config(source.port, 1), config(proxy.port, 2)) as pool,
        ):
            stream = await pool.subscribe("SYM000", "TICKS")
            other = await pool.subscribe("SYM001", "TICKS")
            assert server_of(pool, other) is pool.members[1]
            await first_rows([stream, other])
            lose(proxy)
            await until(lambda: len(pool.errors) == 1)
            again = await pool.subscribe("SYM001", "TICKS")
            assert again.subscription is other.subscription
            assert served(pool) == [2, 0]
            await first_rows([again])

    run(test())


def test_nobody_is_connected(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway() as source,
            behind_proxy(source) as proxy,
            pool_of(config(proxy.port, request_timeout_s=0.3)) as pool,
        ):
            stream = await pool.subscribe("SYM000", "TICKS")
            lose(proxy)
            await until(lambda: pool.errors)
            for symbol in ("SYM000", "SYM001"):
                with pytest.raises(NotConnectedError, match="no member"):
                    await pool.subscribe(symbol, "TICKS")
            assert not pool.health()
            assert stream.live

    run(test())


def test_a_question_survives_the_end_of_the_member_that_was_asked(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway() as source,
            behind_proxy(source) as proxy,
            pool_of(config(proxy.port, 1), config(source.port, 2)) as pool,
        ):
            proxy.freeze()
            subscribing = asyncio.create_task(pool.subscribe("SYM000", "TICKS"))
            await until(lambda: pool.members[0].outbox.requests_sent)
            lose(proxy)
            stream = await subscribing
            assert server_of(pool, stream) is pool.members[1]
            await first_rows([stream])

    run(test())


# --- failures ---


@pytest.mark.parametrize("same_gateway", [True, False])
def test_streams_move_when_a_member_fails(run: Run, same_gateway: bool) -> None:
    async def test() -> None:
        async with (
            gateway() as source,
            gateway("DU2") as second,
            behind_proxy(source if same_gateway else second) as proxy,
            pool_of(config(source.port, 1), config(proxy.port, 2)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:8])
            await first_rows(streams)
            await all_flow(streams)
            stayed, moved = [[s for s in streams if server_of(pool, s) is member] for member in pool.members]
            assert len(stayed) == len(moved) == 4
            lose(proxy)
            await until(lambda: served(pool) == [8, 0])
            await all_flow(streams)
            await first_rows(streams)
            for stream in moved:
                assert gaps_of(stream) == [
                    (Scope.CONNECTION, GapCause.CONNECTION_LOST, False),
                    (Scope.CONNECTION, GapCause.CONNECTION_LOST, True),
                ]
            assert [gaps_of(stream) for stream in stayed] == [[]] * 4
            failed = pool.members[1]
            health = pool.health()
            assert health
            assert not health.reasons
            assert [warning.split(": ")[:2] for warning in health.warnings] == [[failed.address, "no session"]]
            assert list(pool.errors) == [failed]
            moves = [event for event in failed.monitor.events if event.name == "moved"]
            assert [event.fields["to"] for event in moves] == [f"127.0.0.1:{source.port}/1"] * 4
            assert not source.violations

            await proxy.serve()
            await until(lambda: not pool.errors)
            assert not pool.health().warnings
            assert served(pool) == [8, 0]
            new = await pool.subscribe("SYM020", "TICKS")
            assert server_of(pool, new) is pool.members[1]
            await first_rows([new, *streams])
            for stream in streams:
                stream.unsubscribe()
            await until(lambda: len(source.subscriptions()) + len(second.subscriptions()) == 1)

    run(test())


def test_a_gap_names_the_rows_between_which_data_is_missing(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway() as source,
            gateway("DU2") as second,
            behind_proxy(second) as proxy,
            pool_of(config(source.port, 1), config(proxy.port, 2)) as pool,
        ):
            _, stream = await subscribe(pool, SYMBOLS[:2])
            assert server_of(pool, stream) is pool.members[1]
            readers = [ring.reader(start="oldest") for name, ring in pool.feed.rings.items() if name != "gaps"]
            await first_rows([stream])
            await all_flow([stream])
            former = stream.req_id
            lose(proxy)
            await until(lambda: stream.req_id not in (0, former))
            await all_flow([stream])
            batches = [reader.read() for reader in readers]
            before, after = (
                [seq for rows in batches for seq in rows["seq"][rows["req_id"] == req_id].tolist()]
                for req_id in (former, stream.req_id)
            )
            gap = stream.take_gaps()[-1]
            assert (gap["first_seq"], gap["last_seq"]) == (max(before) + 1, min(after))
            assert not (pool.feed.gaps.reader(start="oldest").read()["instrument"] == NO_INSTRUMENT).any()

    run(test())


def test_a_stream_that_flows_can_be_handed_over(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, pool_of(config(source.port, 1), config(source.port, 2)) as pool:
            stream = await pool.subscribe("SYM000", "TICKS")
            await all_flow([stream])
            first, second = pool.members
            first.hand_over(stream.subscription, second)
            await until(lambda: stream.state is SubscriptionState.OPENING)
            await all_flow([stream])
            moved = Scope.CONNECTION, GapCause.MOVED
            assert gaps_of(stream) == [(*moved, False), (*moved, True)]
            await until(lambda: len(source.subscriptions()) == 1)
            assert {session.client_id for session in source.sessions if session.desk.subscriptions} == {2}
            stream.unsubscribe()
            await until(lambda: not source.subscriptions())

    run(test())


def test_all_fail_and_the_first_to_return_serves_everything(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway() as source,
            behind_proxy(source) as first,
            behind_proxy(source) as second,
            pool_of(config(first.port, 1), config(second.port, 2)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:6])
            await first_rows(streams)
            lose(first)
            lose(second)
            await until(lambda: len(pool.errors) == 2)
            assert not pool.health()
            await second.serve()
            await until(lambda: served(pool) == [0, 6])
            await all_flow(streams)
            assert not source.violations

    run(test())


def test_a_member_that_was_not_there_is_tried_again(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, behind_proxy(source) as proxy:
            proxy.refuse()
            async with pool_of(config(source.port, 1), config(proxy.port, 2)) as pool:
                assert list(pool.errors) == [pool.members[1]]
                streams = await subscribe(pool, SYMBOLS[:2])
                assert served(pool) == [2, 0]
                assert "nothing listens" in str(pool.errors[pool.members[1]])
                await proxy.serve()
                await until(lambda: not pool.errors)
                streams += await subscribe(pool, SYMBOLS[2:4])
                assert served(pool) == [2, 2]
                await first_rows(streams)

    run(test())


def test_a_login_that_is_not_as_declared_hurts_nobody(run: Run) -> None:
    async def test() -> None:
        async with gateway("DU1") as paper, gateway("U2") as live:
            only_paper = AuthConfig(account_type="paper")
            async with pool_of(config(paper.port, auth=only_paper), config(live.port, auth=only_paper)) as pool:
                streams = await subscribe(pool, SYMBOLS[:4])
                await first_rows(streams)
                await all_flow(streams)
                assert served(pool) == [4, 0]
                assert isinstance(pool.errors[pool.members[1]], AuthError)
                assert pool.members[1].monitor.state == "GAVE_UP"
                assert pool.health()
                assert not live.received[requests.MarketData]

    run(test())


def test_connect_fails_if_nobody_answers(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, behind_proxy(source) as proxy:
            proxy.refuse()
            pool = ConnectionPool([config(proxy.port, 1), config(proxy.port, 2)], small_feed())
            assert not await pool.connect()
            assert list(pool.errors) == pool.members
            await proxy.listen()
            assert await pool.connect()
            assert not pool.errors
            await pool.disconnect()
            assert list(pool.errors) == pool.members

    run(test())


def test_an_attempt_to_connect_that_is_cancelled_leaves_nothing(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, behind_proxy(source) as proxy:
            proxy.black_hole()
            pool = ConnectionPool([config(source.port, 1), config(proxy.port, 2)], small_feed())
            connecting = asyncio.create_task(pool.connect())
            await until(lambda: pool.members[0].session.is_connected and proxy.accepted)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await until(lambda: not source.sessions)

    run(test())


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_disconnect_of_a_pool_ends_it_whatever_becomes_of_the_call(run: Run, is_cancelled: bool) -> None:
    async def test() -> None:
        async with gateway() as source:
            pool = ConnectionPool([config(source.port, 1), config(source.port, 2)], small_feed())
            assert await pool.connect()
            leaving = asyncio.create_task(pool.disconnect())
            await asyncio.sleep(0)
            if is_cancelled:
                leaving.cancel()
            await asyncio.wait([leaving])
            await until(lambda: not source.sessions)
            assert await pool.connect()
            await pool.disconnect()
            await until(lambda: not source.sessions)

    run(test())


@pytest.mark.parametrize("order", ["connect first", "disconnect first"])
def test_the_last_call_to_a_pool_wins(run: Run, order: str) -> None:
    async def test() -> None:
        async with gateway() as source:
            pool = ConnectionPool([config(source.port, 1), config(source.port, 2)], small_feed())
            if order == "connect first":
                assert await asyncio.gather(pool.connect(), pool.disconnect()) == [False, None]
                assert len(pool.errors) == 2
            else:
                assert await pool.connect()
                assert await asyncio.gather(pool.disconnect(), pool.connect()) == [None, True]
                await until(lambda: len(source.sessions) == 2)
                await pool.disconnect()
            await until(lambda: not source.sessions)

    run(test())


def test_a_subscription_waits_for_a_member(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, behind_proxy(source) as proxy, pool_of(config(proxy.port)) as pool:
            lose(proxy)
            await until(lambda: pool.errors)
            subscribing = asyncio.create_task(pool.subscribe("SYM000", "TICKS"))
            await asyncio.sleep(0)
            await proxy.serve()
            assert (await subscribing).live

    run(test())


@pytest.mark.parametrize("others_come_back", [True, False])
def test_what_a_member_served_that_gives_up_goes_to_who_has_not(run: Run, others_come_back: bool) -> None:
    once = ReconnectionConfig(enabled=False)

    async def test() -> None:
        async with gateway() as source, behind_proxy(source) as brittle, behind_proxy(source) as proxy:
            other = config(proxy.port, 2) if others_come_back else config(proxy.port, 2, reconnection=once)
            async with pool_of(config(brittle.port, 1, reconnection=once), other) as pool:
                streams = await subscribe(pool, SYMBOLS[:4])
                await first_rows(streams)
                lose(proxy)
                lose(brittle)
                if not others_come_back:
                    for stream in streams:
                        with pytest.raises(NotConnectedError, match="closed the connection"):
                            await to_the_end(stream)
                    return
                await until(lambda: served(pool) == [0, 4])
                await proxy.serve()
                await all_flow(streams)

    run(test())


def test_a_gateway_that_has_lost_ib_for_long_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibfast.connection.pool.LINK_PATIENCE_S", 0.5)
    monkeypatch.setattr("ibfast.connection.pool.SWEEP_S", 0.05)

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            pool_of(config(first.port), config(second.port)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:4])
            await first_rows(streams)
            await all_flow(streams)
            moved = [s for s in streams if server_of(pool, s) is pool.members[0]]
            first.faults.lose_link()
            await until(lambda: served(pool) == [0, 4])
            await all_flow(streams)
            assert [gaps_of(stream) for stream in moved] == [
                [(Scope.LINK, GapCause.LINK_LOST, False), (Scope.LINK, GapCause.LINK_LOST, True)]
            ] * 2
            new = await pool.subscribe(SYMBOLS[4], "TICKS")
            assert server_of(pool, new) is pool.members[1]
            first.faults.restore_link()
            await until(lambda: not first.subscriptions())
            assert served(pool) == [0, 5]

    run(test())


@pytest.mark.parametrize("how", ["the member fails", "its gateway loses IB", "the other member comes back"])
@pytest.mark.parametrize("names", [("state", "link_lost"), ("moved",), ("live",)])
def test_a_listener_that_unsubscribes_does_not_disturb_a_move(
    run: Run, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], how: str
) -> None:
    """The listener ends the first stream and one in the middle, at whatever event it hears."""
    monkeypatch.setattr("ibfast.connection.pool.LINK_PATIENCE_S", 0.2)
    monkeypatch.setattr("ibfast.connection.pool.SWEEP_S", 0.05)

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            behind_proxy(first) as brittle,
            behind_proxy(second) as proxy,
            pool_of(config(brittle.port), config(proxy.port)) as pool,
        ):
            lose(proxy)
            await until(lambda: len(pool.errors) == 1)
            streams = await subscribe(pool, SYMBOLS[:6])
            await first_rows(streams)
            await all_flow(streams)
            heard: list[str] = []

            def hear(event: Event) -> None:
                if event.name in names and not heard:
                    heard.append(event.name)
                    for stream in (streams[0], streams[3]):
                        stream.unsubscribe()

            if how == "the other member comes back":
                lose(brittle)
                await until(lambda: len(pool.errors) == 2)
            else:
                await proxy.serve()
                await until(lambda: not pool.errors)
            for member in pool.members:
                member.monitor.listen(hear)
            if how == "the other member comes back":
                await proxy.serve()
            elif how == "the member fails":
                lose(brittle)
            else:
                first.faults.lose_link()
            await until(lambda: served(pool) == [0, 4])
            assert heard
            left = [stream for stream in streams if stream.live]
            await all_flow(left)
            await first_rows(left)
            assert len(left) == 4
            assert [member.monitor.listener_failures for member in pool.members] == [0, 0]
            await until(lambda: len(second.subscriptions()) == 4)
            assert not second.violations

    run(test())


def test_what_is_left_to_backfill_moves_with_the_subscription(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves twice: the member that is to fill the first gap is lost before it has asked, and stays away."""
    monkeypatch.setattr("ibfast.connection.backfill.SETTLE_S", 3.0)
    apart_s = 2.2  # so that the range of the second gap does not reach back to the first one
    settings = {"session": SessionConfig(backfill=True)}

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            behind_proxy(first) as brittle,
            behind_proxy(second) as proxy,
            pool_of(config(brittle.port, **settings), config(proxy.port, **settings)) as pool,
        ):
            stream = await pool.subscribe("SYM000", "TRADES")
            await first_rows([stream])
            for ours, other in ((brittle, proxy), (proxy, brittle)):
                assert server_of(pool, stream) is pool.members[[brittle, proxy].index(ours)]
                await all_flow([stream])
                lose(ours)
                await until(lambda: len(pool.errors) == 1)
                assert server_of(pool, stream) is pool.members[[brittle, proxy].index(other)]
                await until(lambda: stream.state is SubscriptionState.LIVE)
                if ours is brittle:
                    await ours.serve()
                    moved_s = time.time()
                    await until(lambda: not pool.errors and time.time() > moved_s + apart_s)  # noqa: B023
            rows = pool.feed.gaps.reader(start="oldest").read()
            gaps = rows[(rows["recovered"] == 1) & (rows["cause"] == GapCause.CONNECTION_LOST)]
            assert len(gaps) == 2

            def filled() -> list[tuple[int, int]]:
                events = [event for member in pool.members for event in member.monitor.events]
                return [
                    (event.fields["first_ns"], event.fields["last_ns"])
                    for event in events
                    if event.name == "backfilled"
                ]

            for first_ns, last_ns in gaps[["first_ns", "last_ns"]].tolist():
                await until(lambda: any(begin <= first_ns and last_ns <= end for begin, end in filled()))  # noqa: B023
            names = {event.name for member in pool.members for event in member.monitor.events}
            assert not names & {"backfill_dropped", "backfill_failed"}

    run(test())


def test_a_login_whose_data_another_session_has_is_left(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """For another login: a member of the same one has more room, and is no help."""
    monkeypatch.setattr("ibfast.connection.pool.LOGIN_PATIENCE_S", 0.2)
    monkeypatch.setattr("ibfast.connection.pool.SWEEP_S", 0.05)

    async def test() -> None:
        lines = PacingConfig(lines=40)
        async with (
            gateway("DU1") as first,
            gateway("DU2", lines=40) as second,
            pool_of(config(first.port, 1), config(first.port, 2), config(second.port, pacing=lines)) as pool,
        ):
            stream = await pool.subscribe(SYMBOLS[0], "TICKS")
            assert served(pool) == [1, 0, 0]
            await first_rows([stream])
            await all_flow([stream])
            first.faults.take_session()
            await until(lambda: pool.members[0].session.is_suspended)
            new = await pool.subscribe(SYMBOLS[1], "TICKS")
            assert server_of(pool, new) is pool.members[2]
            await until(lambda: served(pool) == [0, 0, 2])
            await all_flow([stream, new])
            await first_rows([stream, new])
            other_session = Scope.ACCOUNT, GapCause.OTHER_SESSION
            assert gaps_of(stream) == [(*other_session, False), (*other_session, True)]
            assert pool.health()
            await until(lambda: not first.subscriptions())
            assert not second.violations

    run(test())


def test_what_is_suspended_stays_where_no_other_login_has_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibfast.connection.pool.LOGIN_PATIENCE_S", 0.2)
    monkeypatch.setattr("ibfast.policy.session.UNDER_WAY_S", 0.2)
    sweeps = counted_sweeps(monkeypatch)

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            pool_of(config(first.port), config(second.port, pacing=PacingConfig(tick_by_tick=2))) as pool,
        ):
            important = await pool.subscribe(SYMBOLS[0], "LAST", priority=5)
            streams = [important, *await subscribe(pool, SYMBOLS[1:6], "LAST")]
            assert served(pool) == [4, 2]
            assert server_of(pool, important) is pool.members[0]
            await all_flow(streams)
            own = next(stream for stream in streams if server_of(pool, stream) is pool.members[1])
            own.unsubscribe()
            streams.remove(own)
            first.faults.take_session()
            await until(lambda: server_of(pool, important) is pool.members[1])
            await sweeps(3)
            assert served(pool) == [3, 2]
            first.faults.release_session()
            await all_flow(streams)
            await sweeps(3)
            assert served(pool) == [3, 2]
            assert not first.violations
            assert not second.violations

    run(test())


def test_data_that_another_session_had_for_a_moment_moves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibfast.connection.pool.LOGIN_PATIENCE_S", 1000.0)
    monkeypatch.setattr("ibfast.policy.session.UNDER_WAY_S", 0.0)
    sweeps = counted_sweeps(monkeypatch)

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            pool_of(config(first.port), config(second.port)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:4])
            await all_flow(streams)
            first.faults.take_session()
            await until(lambda: pool.members[0].session.is_suspended)
            await sweeps(3)
            first.faults.release_session()
            await all_flow(streams)
            assert served(pool) == [2, 2]

    run(test())


# --- limits ---


def test_two_connections_share_the_limits_of_their_account(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, pool_of(config(source.port, 1), config(source.port, 2)) as pool:
            streams = await subscribe(pool, SYMBOLS[:12], "LAST")  # of which there may be five
            for _ in range(2):
                await until(lambda: sum(stream.state in FLOWING for stream in streams) == 5)
                assert sum(stream.state is SubscriptionState.WAITING for stream in streams) == len(streams) - 5
                for stream in [stream for stream in streams if stream.state in FLOWING][:3]:
                    stream.unsubscribe()
                    streams.remove(stream)
            await until(lambda: sum(stream.state in FLOWING for stream in streams) == 5)
            assert not source.violations
            assert pool.members[0].outbox.limiter.account is pool.members[1].outbox.limiter.account

    run(test())


def test_a_slow_cancel_is_waited_for(run: Run) -> None:
    """A member's cancel takes a while to the gateway, and the other one's request for the line does not overtake it."""

    async def test() -> None:
        async with (
            gateway() as source,
            behind_proxy(source) as proxy,
            pool_of(config(proxy.port, 1), config(source.port, 2)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:5], "LAST")
            await all_flow(streams)
            waiting = await pool.subscribe(SYMBOLS[5], "LAST")
            while server_of(pool, waiting) is not pool.members[1]:
                pool.members[0].hand_over(waiting.subscription, pool.members[1])
            proxy.delay(0.2)
            next(s for s in streams if server_of(pool, s) is pool.members[0]).unsubscribe()
            await all_flow([waiting])
            assert not source.violations

    run(test())


def test_one_account_at_two_gateways_has_its_limits_once(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway("DU1", "DU9") as first,
            gateway("DU1") as second,
            gateway("DU2") as third,
            pool_of(config(first.port), config(second.port), config(third.port)) as pool,
        ):
            accounts = [member.outbox.limiter.account for member in pool.members]
            assert accounts[0] is accounts[1]
            assert accounts[0] is not accounts[2]
            streams = await subscribe(pool, SYMBOLS[:12], "LAST")
            await until(lambda: sum(stream.state in FLOWING for stream in streams) == 10)
            assert len(first.subscriptions()) + len(second.subscriptions()) == len(third.subscriptions()) == 5

    run(test())


def test_another_login_has_limits_of_its_own(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            behind_proxy(first) as proxy,
            pool_of(config(first.port, 1), config(proxy.port, 2)) as pool,
        ):
            limits = [member.outbox.limiter.account for member in pool.members]
            assert limits[0] is limits[1]
            proxy.target_port = second.port
            proxy.reset()
            await until(lambda: pool.errors)
            await until(lambda: not pool.errors)
            assert pool.members[1].outbox.limiter.account is not limits[0]
            streams = await subscribe(pool, SYMBOLS[:10], "LAST")
            await all_flow(streams)
            assert served(pool) == [5, 5]

    run(test())


def test_what_waits_for_a_line_gets_the_one_that_is_free_elsewhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibfast.connection.pool.SWEEP_S", 0.05)

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            pool_of(config(first.port), config(second.port)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:12], "LAST")
            await until(lambda: sum(stream.state in FLOWING for stream in streams) == 10)
            flowing = [stream for stream in streams if stream.state in FLOWING]
            of_second = [s for s in flowing if server_of(pool, s) is pool.members[1]]
            waiting = [stream for stream in streams if stream not in flowing]
            for stream in of_second[:2]:
                stream.unsubscribe()
            await all_flow(waiting)
            assert served(pool) == [5, 5]
            assert not first.violations
            assert not second.violations

    run(test())


def test_what_was_refused_a_line_is_not_passed_on_and_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both seem to have room: the refusal of a gateway that was just connected is no lesson for the limits."""
    monkeypatch.setattr("ibfast.connection.error_actions.LINE_RETRY_AT_START_S", 1000.0)
    sweeps = counted_sweeps(monkeypatch)

    async def test() -> None:
        async with (
            gateway("DU1") as first,
            gateway("DU2") as second,
            pool_of(config(first.port), config(second.port)) as pool,
        ):
            for source in (first, second):
                source.faults.refuse_lines(1000)
            stream = await pool.subscribe(SYMBOLS[0], "TICKS")
            await until(lambda: stream.state is SubscriptionState.WAITING)
            server = server_of(pool, stream)
            await sweeps(3)
            assert server_of(pool, stream) is server
            assert first.received[requests.MarketData] + second.received[requests.MarketData] == 1

    run(test())


def test_the_least_important_gives_its_line_wherever_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibfast.connection.pool.SWEEP_S", 0.05)

    async def test() -> None:
        async with gateway() as source, pool_of(config(source.port, 1), config(source.port, 2)) as pool:
            important = await subscribe(pool, SYMBOLS[:2], "LAST", priority=5)
            least = await pool.subscribe(SYMBOLS[2], "LAST")
            important += await subscribe(pool, SYMBOLS[3:5], "LAST", priority=5)
            await all_flow([*important, least])
            important.append(await pool.subscribe(SYMBOLS[5], "LAST", priority=5))
            await all_flow(important)
            assert least.state is SubscriptionState.WAITING
            assert gaps_of(least) == [(Scope.ACCOUNT, GapCause.NO_LINE, False)]
            assert not source.violations

    run(test())


def test_a_failure_within_one_account_breaks_no_limit(run: Run) -> None:
    """All lines are in use; those of the member that fails are free a moment later, and nobody else loses his."""

    async def test() -> None:
        lines = PacingConfig(lines=8)
        async with (
            gateway(lines=8) as source,
            behind_proxy(source) as proxy,
            pool_of(config(source.port, 1, pacing=lines), config(proxy.port, 2, pacing=lines)) as pool,
        ):
            streams = await subscribe(pool, SYMBOLS[:8])
            await all_flow(streams)
            moved = [s for s in streams if server_of(pool, s) is pool.members[1]]
            for stream in moved:
                await pool.subscribe(stream.contract, "TICKS", priority=5)
            lose(proxy)
            await until(lambda: served(pool) == [8, 0])
            await all_flow(streams)
            assert [gaps_of(stream) for stream in streams if stream not in moved] == [[]] * 4
            assert not source.violations

    run(test())


@pytest.mark.parametrize("seed", range(2))
def test_nobody_breaks_a_limit_whatever_happens(run: Run, seed: int) -> None:
    """What comes and goes at random is more than the account has lines for, and connections break."""

    async def test() -> None:
        random = Random(seed)
        lines = PacingConfig(lines=8)
        async with (
            gateway(lines=8) as source,
            behind_proxy(source) as first,
            behind_proxy(source) as second,
            pool_of(config(first.port, 1, pacing=lines), config(second.port, 2, pacing=lines)) as pool,
        ):
            first.delay(0.05)
            streams: list[Stream] = []
            for _ in range(60):
                if streams and random.random() < 0.4:
                    streams.pop(random.randrange(len(streams))).unsubscribe()
                else:
                    data_type = random.choice(["LAST", "TICKS", "TICKS", "BARS"])
                    with contextlib.suppress(NotConnectedError):  # both connections may be down
                        symbol = random.choice(SYMBOLS)
                        streams.append(await pool.subscribe(symbol, data_type, priority=random.randrange(3)))
                if random.random() < 0.1:
                    random.choice([first, second]).reset()
                await asyncio.sleep(random.random() * 0.05)
            assert sum(served(pool)) == len({id(stream.subscription) for stream in streams})
            for stream in streams:
                stream.unsubscribe()
            await until(lambda: not source.subscriptions())
            assert not source.violations

    run(test())


# --- what is kept and told ---


@pytest.mark.parametrize("names", [("default", "default"), ("one", "two")])
def test_a_subscription_that_moves_is_remembered_once(run: Run, tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "book.db"

    def remembered() -> list[str]:
        books = []
        for name in dict.fromkeys(names):
            with Store(path, name) as store:
                books += [request.contract.symbol for request, _ in store.read().subscriptions]
        return sorted(books)

    async def test() -> None:
        async with gateway() as source, gateway("DU2") as second, behind_proxy(second) as proxy:
            sessions = [SessionConfig(store=path, name=name) for name in names]
            configs = [config(source.port, 1, session=sessions[0]), config(proxy.port, 2, session=sessions[1])]
            async with pool_of(*configs) as pool:
                streams = await subscribe(pool, SYMBOLS[:4])
                await first_rows(streams)
                assert remembered() == SYMBOLS[:4]
                lose(proxy)
                await until(lambda: served(pool) == [4, 0])
                assert remembered() == SYMBOLS[:4]
                moved = next(s for s in streams if any(e.name == "moved" for e in pool.members[1].monitor.events))
                moved.unsubscribe()
                assert len(remembered()) == 3
            await proxy.listen()
            async with pool_of(*configs) as pool:
                assert sum(served(pool)) == 3
                await until(lambda: len(source.subscriptions()) + len(second.subscriptions()) == 3)
                (again,) = await subscribe(pool, [next(s for s in SYMBOLS[:4] if s in remembered())])
                await first_rows([again])
                assert sum(served(pool)) == 3

    run(test())


def test_metrics_of_all_members_in_one_exposition(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, pool_of(config(source.port, 1), config(source.port, 2)) as pool:
            await first_rows(await subscribe(pool, SYMBOLS[:3]))
            families = {family.name: family for family in text_string_to_metric_families(pool.exposition().decode())}
            counts = {
                sample.labels["member"]: sample.value
                for sample in families["ibfast_subscriptions"].samples
                if sample.labels["state"] == "LIVE"
            }
            names = [f"127.0.0.1:{source.port}/{client_id}" for client_id in (1, 2)]
            assert list(counts) == names
            buckets = [s for s in families["ibfast_socket_to_reader_seconds"].samples if s.labels.get("le") == "+Inf"]
            assert [bucket.labels["member"] for bucket in buckets] == names
            assert sum(bucket.value for bucket in buckets) >= 3

    run(test())


def test_the_kind_of_market_data_is_that_of_all_members(run: Run) -> None:
    async def test() -> None:
        async with gateway() as source, behind_proxy(source) as proxy:
            proxy.refuse()
            async with pool_of(config(source.port, 1), config(proxy.port, 2)) as pool:
                pool.set_market_data_type(MarketDataType.DELAYED)
                await until(lambda: source.received[requests.MarketDataTypeRequest] == 1)
                await proxy.listen()
                await until(lambda: source.received[requests.MarketDataTypeRequest] == 2)

    run(test())


def test_a_member_takes_no_client_id_of_another(run: Run) -> None:
    async def test() -> None:
        async with (
            gateway() as source,
            behind_proxy(source) as proxy,
            pool_of(config(proxy.port, 1), config(proxy.port, 2)) as pool,
        ):
            source.faults.use_id(1)
            proxy.reset()
            await until(lambda: pool.errors)
            await until(lambda: not pool.errors)
            ids = {session.client_id for session in source.sessions}
            assert len(ids & {1, 2}) == 1
            assert ids - {1, 2} <= set(range(3, 9))

    run(test())


@pytest.mark.parametrize(
    ("configs", "problem"),
    [
        ([], "one Config for each member"),
        ([config(7497, 1), config(7497, 1)], "a client_id of its own"),
        ([config(7497, 1), config(7497, 2, pacing=PacingConfig(lines=50))], "the same pacing.lines"),
    ],
)
def test_members_that_can_not_be(configs: list[Config], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ConnectionPool(configs)


def test_a_feed_is_made_for_the_largest_member() -> None:
    pool = ConnectionPool([config(7497, 1), replace(config(7497, 2), feed_capacity=1 << 17, max_instruments=5000)])
    assert pool.feed.ticks.capacity == 1 << 17
    assert len(pool.feed.last) == 5000
    assert all(member.feed is pool.feed for member in pool.members)
