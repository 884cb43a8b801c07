"""Who owns a connection: connect and disconnect from anywhere, event loops that end, and what attempts fail of."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from ibfast import Config, IBKRConnectionManager
from ibfast.config import ReconnectionConfig
from ibfast.errors import ConnectError, LoopError, NotConnectedError
from ibfast.records import Scope
from ibfast.sim.gateway import Gateway
from ibfast.wire.requests import (
    TickByTick,
)
from ibfast.wire.responses import ManagedAccounts, NextValidId
from tests.support.conversations import AAPL, QUICK, answer_details, kept, names, small_feed, stays, trade
from tests.support.loops import Run, until
from tests.support.peer import Caller, Peer, Script

# --- who owns the connection ---


async def flows(caller: Caller) -> None:
    """Send data until the client has left; a connection that stays open keeps the test from ending."""
    try:
        await caller.handshake()
        caller.send(ManagedAccounts(("DU1",)), NextValidId(1))
        leaving = asyncio.create_task(caller.gone())
        while not leaving.done():
            caller.send(trade(1, 1.5))
            await asyncio.sleep(0.002)
        await leaving
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # it left before it had a session


async def ends_quietly(manager: IBKRConnectionManager, peer: Peer) -> None:
    """Check that nobody has a connection any more, and that nothing fills the feed."""
    seq = manager.feed.seq
    assert not manager.connected
    assert not manager.health()
    assert manager.monitor.state == "IDLE"
    await until(lambda: all(task.done() for task in peer._tasks))
    assert manager.feed.seq == seq


def test_a_connect_beside_a_disconnect_makes_a_new_connection(run: Run) -> None:
    async def test() -> None:
        async with Peer(flows) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            assert await manager.connect()
            await until(lambda: manager.feed.seq)
            assert await asyncio.gather(manager.disconnect(), manager.connect(persist=True)) == [None, True]
            assert manager.last_error is None
            await until(lambda: peer._tasks[0].done())
            assert len(peer.callers) == 2
            await manager.disconnect()
            await ends_quietly(manager, peer)

    run(test())


@pytest.mark.parametrize("persist", [False, True])
def test_a_disconnect_overtakes_a_connect(run: Run, persist: bool) -> None:
    async def test() -> None:
        async with Peer(flows) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            assert await asyncio.gather(manager.connect(persist=persist), manager.disconnect()) == [False, None]
            assert isinstance(manager.last_error, ConnectError)
            assert "disconnect was called" in manager.last_error.reason
            await ends_quietly(manager, peer)

    run(test())


def test_a_disconnect_that_is_cancelled_has_ended_the_connection(run: Run) -> None:
    async def test() -> None:
        async with Peer(flows) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            assert await manager.connect()
            leaving = asyncio.create_task(manager.disconnect())
            await asyncio.sleep(0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await ends_quietly(manager, peer)
            assert await manager.connect()
            await manager.disconnect()
            await ends_quietly(manager, peer)
            assert len(peer.callers) == 2

    run(test())


@pytest.mark.parametrize("steps", range(4))
def test_an_async_with_that_is_cancelled_twice_leaves_nothing(run: Run, steps: int) -> None:
    async def test() -> None:
        async def work() -> None:
            async with manager:
                inside.set()
                await asyncio.Event().wait()

        inside = asyncio.Event()
        async with Peer(flows) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            working = asyncio.create_task(work())
            await inside.wait()
            working.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            await ends_quietly(manager, peer)

    run(test())


def test_a_connect_that_is_cancelled_takes_nothing_from_another(run: Run) -> None:
    async def test() -> None:
        async with Peer(flows) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            one, other = (asyncio.create_task(manager.connect()) for _ in range(2))
            await until(lambda: peer.callers)
            one.cancel()
            assert await other
            assert len(peer.callers) == 1
            await manager.disconnect()
            await ends_quietly(manager, peer)

    run(test())


@pytest.mark.parametrize("seed", range(8))
def test_whatever_calls_overlap_the_last_disconnect_ends_it(run: Run, seed: int) -> None:
    """Connects and disconnects from tasks and callbacks, some of them cancelled at any await."""

    async def test() -> None:
        chance = random.Random(seed)
        calls: set[asyncio.Task[Any]] = set()

        def call() -> None:
            if len(calls) < 60:
                wish = manager.disconnect() if chance.random() < 0.4 else manager.connect(persist=chance.random() < 0.5)
                calls.add(asyncio.create_task(wish))

        def now_and_then(*about: object) -> None:
            if chance.random() < 0.3:
                call()

        async with Peer(flows) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            manager.monitor.listen(now_and_then)
            manager.errors.on(now_and_then, scope=Scope.FARM)
            for _ in range(40):
                call()
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(chance.choice((0, 0, 0.001)))
                if chance.random() < 0.4:
                    chance.choice(sorted(calls, key=id)).cancel()
            while any(not task.done() for task in calls):
                await asyncio.wait(calls)
            for task in calls:
                if not task.cancelled():
                    assert task.result() in (True, False, None)
            while manager.connected or manager.monitor.state != "IDLE":
                await manager.disconnect()
            await asyncio.gather(*calls, return_exceptions=True)
            await manager.disconnect()
            await ends_quietly(manager, peer)

    run(test())


# --- event loops ---


@contextlib.contextmanager
def a_thread_with_a_gateway() -> Iterator[tuple[asyncio.AbstractEventLoop, Gateway]]:
    """A gateway in an event loop of its own, which outlives those of the test."""
    loop, gateway = asyncio.new_event_loop(), Gateway()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(gateway.__aenter__(), loop).result(10)
        yield loop, gateway
        asyncio.run_coroutine_threadsafe(gateway.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


Loop = Callable[[], asyncio.AbstractEventLoop]


def by_run(new_loop: Loop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(coroutine)


def test_a_connection_whose_loop_has_ended_is_told_and_made_anew(new_loop: Loop) -> None:
    async def begins() -> Any:
        assert await manager.connect()
        return await manager.subscribe("AAPL")

    async def goes_on() -> None:
        with pytest.raises(NotConnectedError):
            await manager.contract_details("AAPL")
        with pytest.raises(NotConnectedError):
            async for _ in stream:
                pass
        assert await manager.connect()
        assert len(await manager.contract_details("AAPL")) == 1
        await manager.disconnect()

    with a_thread_with_a_gateway() as (_, gateway):
        manager = IBKRConnectionManager(Config(port=gateway.port), small_feed())
        stream = by_run(new_loop, begins())
        assert not manager.connected
        assert "event loop" in str(manager.health().reasons)
        by_run(new_loop, goes_on())
        assert "connection_lost" in names(manager)
        assert manager.feed.gaps.published


CLOSES_ITS_LOOP = """
import asyncio, sys
from ibfast import Config, IBKRConnectionManager

async def begins():
    assert await manager.connect()
    return await manager.subscribe("AAPL")

async def drain():
    async for rows in stream:
        pass

async def goes_on():
    for wish in (manager.contract_details("AAPL"), drain()):
        try:
            await wish
        except Exception as error:
            print(type(error).__name__)
    print(await manager.connect(), len(await manager.contract_details("AAPL")))
    await manager.disconnect()

manager = IBKRConnectionManager(Config(port=int(sys.argv[1])))
loop = asyncio.SelectorEventLoop()
stream = loop.run_until_complete(begins())
loop.close()
print(manager.connected, manager.health().ok)
asyncio.run(goes_on())
print(manager.feed.gaps.published, [event.name for event in manager.monitor.events].count("connection_lost"))
"""


def test_a_loop_that_was_closed_with_its_tasks_is_told_too() -> None:
    with a_thread_with_a_gateway() as (_, gateway):
        told = subprocess.run(
            [sys.executable, "-c", CLOSES_ITS_LOOP, str(gateway.port)], capture_output=True, text=True, timeout=60
        )
    lines = told.stdout.splitlines()
    assert lines[0] == "False False", told.stderr
    assert lines[1:3] == ["NotConnectedError"] * 2, told.stderr
    assert lines[-2] == "True 1", told.stderr
    assert int(lines[-1].split()[0]) >= 1
    assert lines[-1].endswith(" 1")


def test_a_connection_of_another_loop_is_named_at_once(new_loop: Loop) -> None:
    async def elsewhere() -> None:
        wishes = (
            manager.connect(),
            manager.disconnect(),
            manager.subscribe("AAPL"),
            manager.contract_details("AAPL"),
            manager.current_time_ns(),
        )
        for wish in wishes:
            with pytest.raises(LoopError, match="run_coroutine_threadsafe"):
                await wish
        assert manager.connected

    with a_thread_with_a_gateway() as (loop, gateway):
        manager = IBKRConnectionManager(Config(port=gateway.port), small_feed())
        assert asyncio.run_coroutine_threadsafe(manager.connect(), loop).result(10)
        by_run(new_loop, elsewhere())
        assert asyncio.run_coroutine_threadsafe(manager.contract_details("AAPL"), loop).result(10)
        asyncio.run_coroutine_threadsafe(manager.disconnect(), loop).result(10)


# --- what an attempt has failed of ---


def test_a_persistent_connect_takes_another_client_id(run: Run) -> None:
    async def in_use(caller: Caller) -> None:
        await caller.handshake()
        caller.error(-1, 326)
        caller.hang_up()

    async def test() -> None:
        async with Peer(in_use, stays) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, client_id=5, reconnection=QUICK), small_feed())
            assert await manager.connect(persist=True)
            assert [caller.client_id for caller in peer.callers] == [5, 6]
            await manager.disconnect()

    run(test())


async def closes(caller: Caller) -> None:
    await caller.hello()
    caller.hang_up()


async def is_too_old(caller: Caller) -> None:
    await caller.hello()
    caller.reply(120)
    await caller.gone()


async def is_mute(caller: Caller) -> None:
    await caller.gone()


@pytest.mark.parametrize(
    ("script", "remedy", "is_login"),
    [(closes, "Enable ActiveX", False), (is_too_old, "update TWS", False), (is_mute, "it hangs", True)],
)
def test_a_missing_login_is_told_from_other_failures(run: Run, script: Script, remedy: str, is_login: bool) -> None:
    async def test() -> None:
        async with Peer(script, script, script, script, stays, abandon=True) as peer:
            reconnection = ReconnectionConfig(delay_s=0.01, max_delay_s=0.05, login_poll_s=0.05)
            config = Config(port=peer.port, reconnection=reconnection, connect_timeout_s=0.2 if is_login else 10.0)
            manager = IBKRConnectionManager(config, small_feed())
            assert not await manager.connect(persist=True)
            assert isinstance(manager.last_error, ConnectError)
            assert remedy in manager.last_error.remedy
            await until(lambda: manager.connected)
            assert ("needs_login" in names(manager)) is is_login
            await manager.disconnect()

    run(test())


def test_it_waits_for_descriptors_and_goes_on(run: Run) -> None:
    async def test() -> None:
        async with Peer(stays) as peer:
            reconnection = ReconnectionConfig(delay_s=0.01, max_delay_s=0.05, max_attempts=2)
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=reconnection), small_feed())
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                assert not await manager.connect(persist=True)
                assert isinstance(manager.last_error, ConnectError)
                assert (manager.last_error.stage, "ulimit" in manager.last_error.remedy) == ("system", True)
                await until(lambda: names(manager).count("attempt_failed") > 4)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: manager.connected)
            await manager.disconnect()

    run(test())


def test_a_subscription_waits_for_the_connection(run: Run) -> None:
    async def leaves(caller: Caller) -> None:
        await caller.start()
        caller.hang_up()

    async def serves(caller: Caller) -> None:
        await asked.wait()
        await caller.start()
        await answer_details(caller, AAPL)
        caller.send(trade((await caller.request(TickByTick)).req_id, 1.5))
        await caller.gone()

    asked = asyncio.Event()

    async def test() -> None:
        asked.clear()
        async with kept(leaves, serves) as (manager, peer):
            await until(lambda: len(peer.callers) == 2)
            subscribing = asyncio.create_task(manager.subscribe("AAPL", "LAST"))
            await asyncio.sleep(0)
            assert not subscribing.done()
            asked.set()
            assert (await anext(await subscribing))["price"].tolist() == [1.5]

    run(test())


def test_a_subscription_does_not_wait_for_ever(run: Run) -> None:
    async def leaves(caller: Caller) -> None:
        await caller.start()
        caller.hang_up()

    async def test() -> None:
        async with kept(leaves, is_mute, request_timeout_s=0.1) as (manager, peer):
            await until(lambda: len(peer.callers) == 2)
            with pytest.raises(NotConnectedError):
                await manager.subscribe("AAPL", "LAST")

    run(test())
