"""What a session writes down: real files, real processes, and a gateway that enforces IB's limits by itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ibfast import Config, IBKRConnectionManager
from ibfast.config import PacingConfig, SessionConfig
from ibfast.connection.journal import ALIVE_S
from ibfast.connection.store import Sent, Store
from ibfast.connection.supervisor import Supervisor
from ibfast.errors import ConnectError
from ibfast.policy.pacing.rules import RULES
from ibfast.records import NS_PER_S
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe
from ibfast.wire.requests import HeadTimestampRequest, HistoricalBars, TickByTick
from tests.support.conversations import ONCE, small_feed
from tests.support.loops import Run, until

SYMBOLS, KINDS = 15, ("TRADES", "MIDPOINT", "BID", "ASK")
SIXTY = SYMBOLS * len(KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "book.sqlite"


def manager_of(gateway: Gateway, path: Path | None, client_id: int = 1, **settings: Any) -> IBKRConnectionManager:
    spare = settings.pop("client_ids", ())
    session = SessionConfig(store=path, client_ids=spare)
    return IBKRConnectionManager(
        Config(port=gateway.port, client_id=client_id, session=session, **settings), small_feed()
    )


def used(manager: IBKRConnectionManager, rule: str) -> int:
    return manager.outbox.limiter.limits(time.monotonic())[rule][0]


def supervisor_of(manager: IBKRConnectionManager) -> Supervisor:
    return manager._supervisor


def events(manager: IBKRConnectionManager) -> list[str]:
    return [event.name for event in manager.monitor.events]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let nobody else write."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


# --- limits ---

KILLED = """
import asyncio, os, signal, sys
from ibfast import Config, IBKRConnectionManager
from ibfast.config import SessionConfig

async def main(port, store):
    manager = IBKRConnectionManager(Config(port=port, session=SessionConfig(store=store)))
    assert await manager.connect()
    await anext(await manager.subscribe("AAPL", "LAST"))
    await manager.head_timestamp("AAPL")
    for seconds in range(1, 6):
        await manager.historical_bars("MSFT", f"{seconds} S", "1 secs")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_a_process_that_follows_a_killed_one_breaks_no_limit(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway:
            arguments = [sys.executable, "-c", KILLED, str(gateway.port), str(path)]
            done = await asyncio.to_thread(subprocess.run, arguments)
            assert done.returncode == -signal.SIGKILL
            await until(lambda: not gateway.sessions)
            async with manager_of(gateway, path) as manager:
                same = asyncio.create_task(manager.head_timestamp("AAPL"))
                # The sixth of one source within two seconds waits as long as it must, and no longer.
                assert len(await manager.historical_bars("MSFT", "6 S", "1 secs"))
                ((subscription, eta_s),) = manager.plan()
                assert isinstance(subscription.request, TickByTick)
                assert 0 < eta_s < RULES["tick_by_tick_instrument"].span_s
                same.cancel()
            assert gateway.received[HistoricalBars] == 6
            assert gateway.received[HeadTimestampRequest] == gateway.received[TickByTick] == 1
            assert not gateway.violations

    run(test())


def test_sixty_in_ten_minutes_are_sixty_for_all_that_share_a_store(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway(market=Market(Universe.synthetic(SYMBOLS))) as gateway:
            async with manager_of(gateway, path) as manager:
                contracts = [await manager.qualify(f"SYM{number:03}") for number in range(SYMBOLS)]
                asked = [manager.historical_bars(one, "60 S", "5 secs", kind) for one in contracts for kind in KINDS]
                await asyncio.gather(*asked)
                await manager.historical_bars(contracts[0], "1 D", "1 hour")  # of these there may be any number
            for _ in range(2):  # the second of them knows it from the first process too
                async with manager_of(gateway, path) as manager:
                    assert used(manager, "historical") == SIXTY
                    one_more = asyncio.create_task(manager.historical_bars(contracts[0], "1 D", "30 secs"))
                    await manager.historical_bars(contracts[0], "2 D", "1 hour")
                    assert not one_more.done()
                    one_more.cancel()
            async with manager_of(gateway, None) as manager:
                assert used(manager, "historical") == 0
            assert gateway.received[HistoricalBars] == SIXTY + 3
            assert not gateway.violations

    run(test())


def test_a_manager_that_connects_again_counts_its_own_once(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway:
            manager = manager_of(gateway, path)
            for count, symbol in enumerate(("MSFT", "AAPL"), 1):
                assert await manager.connect()
                await manager.head_timestamp(symbol)
                assert used(manager, "historical") == count
                await manager.disconnect()

    run(test())


def test_limits_are_those_of_a_login(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway, Gateway(accounts=["DU7654321"]) as other, Gateway() as same:
            async with manager_of(gateway, path) as manager:
                await manager.head_timestamp("MSFT")
            for source, count in ((other, 0), (same, 1)):
                async with manager_of(source, path) as manager:
                    assert used(manager, "historical") == count

    run(test())
    assert b"1234567" not in path.read_bytes()


def test_where_no_limits_are_nothing_is_written(run: Run, path: Path) -> None:
    async def test() -> None:
        unlimited = PacingConfig(enforced=False)
        async with Gateway(pacing=False) as gateway, manager_of(gateway, path, pacing=unlimited) as manager:
            await manager.head_timestamp("MSFT")
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM sent").fetchone() == (0,)

    run(test())


def test_a_clock_that_was_set_back_makes_nobody_wait_for_longer(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway:
            async with manager_of(gateway, path) as manager:
                contract = await manager.qualify("MSFT")
                login = supervisor_of(manager).book._login
            request = HeadTimestampRequest(0, contract, "TRADES", True)
            with Store(path) as store:
                store.note_sent(login, [Sent(1, request, time.time_ns() + 3600 * NS_PER_S)])
            async with manager_of(gateway, path) as manager:
                eta_s = manager.outbox.limiter.eta_s(request, time.monotonic())
                assert 0 < eta_s <= RULES["historical_identical"].span_s
            with Store(path) as store:
                (sent,) = store.sent(login)
                assert sent.at_ns <= time.time_ns()

    run(test())


def test_a_store_that_fails_holds_up_nothing_and_is_written_later(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway, manager_of(gateway, path) as manager:
            book = supervisor_of(manager).book
            with locked(path):
                assert await manager.head_timestamp("MSFT")
                assert "store_failed" in events(manager)
                with Store(path) as store:
                    assert store.sent(book._login) == []
            book.note_alive(time.monotonic() + 2 * ALIVE_S, 1)
            with Store(path) as store:
                (sent,) = store.sent(book._login)
            assert isinstance(sent.request, HeadTimestampRequest)

    run(test())


def test_a_book_that_can_not_be_read_does_not_stop_a_session(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway:
            async with manager_of(gateway, path) as manager:
                await manager.head_timestamp("MSFT")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
                database.execute("UPDATE sent SET request = 'nonsense'")
            async with manager_of(gateway, path) as manager:
                assert "store_failed" in events(manager)
                assert used(manager, "historical") == 0

    run(test())


def test_what_may_have_arrived_late_counts_from_then_on(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway, manager_of(gateway, path) as manager:
            stream = await manager.subscribe("AAPL", "LAST")
            with Store(path) as store:
                login = supervisor_of(manager).book._login
                (sent,) = store.sent(login)
                assert sent.request == stream.subscription.request
                manager.outbox.arrived(None, time.monotonic() + 1.0)
                (late,) = store.sent(login)
                assert (late.number, late.request) == (sent.number, sent.request)
                assert late.at_ns > sent.at_ns

    run(test())


# --- leases ---


def is_leased(gateway: Gateway, path: Path, client_id: int) -> bool:
    """Ask as another program would."""
    name = f"127.0.0.1:{gateway.port}"
    with Store(path) as other:
        is_free = other.lease(name, client_id, time.time_ns(), time.time_ns() + NS_PER_S)
        other.give_back(name, client_id)
    return not is_free


def test_a_spare_client_id_is_free_for_others_as_soon_as_its_session_ends(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway, manager_of(gateway, None, 1):
            second = manager_of(gateway, path, 1, client_ids=(2,), reconnection=ONCE)
            third = manager_of(gateway, path, 1, client_ids=(2,), reconnection=ONCE)
            assert await second.connect()
            assert is_leased(gateway, path, 2)
            assert not await third.connect()
            assert isinstance(third.last_error, ConnectError)
            await second.disconnect()
            assert not is_leased(gateway, path, 2)
            await until(lambda: len(gateway.sessions) == 1)
            assert await third.connect()
            assert is_leased(gateway, path, 2)
            await third.disconnect()
            assert not is_leased(gateway, path, 2)

    run(test())


def test_client_ids_that_were_tried_in_vain_are_given_back(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway, manager_of(gateway, None, 1), manager_of(gateway, None, 2):
            async with manager_of(gateway, path, 1, client_ids=(2, 3)):
                assert not is_leased(gateway, path, 2)
                assert is_leased(gateway, path, 3)
            manager = manager_of(gateway, path, 1, client_ids=(2,), reconnection=ONCE)
            assert not await manager.connect()
            assert not is_leased(gateway, path, 2)

    run(test())


def test_a_lease_is_prolonged_while_its_session_lives(run: Run, path: Path) -> None:
    async def test() -> None:
        async with (
            Gateway() as gateway,
            manager_of(gateway, None, 1),
            manager_of(gateway, path, 1, client_ids=(2,)) as manager,
        ):
            ends_ns = lease_ends_ns(path)
            supervisor_of(manager).book.note_alive(time.monotonic() + 2 * ALIVE_S, 2)
            assert lease_ends_ns(path) > ends_ns

    run(test())


def lease_ends_ns(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        ((until_ns,),) = database.execute("SELECT until_ns FROM leases")
    return int(until_ns)


def test_a_request_that_can_not_be_stored_stops_nothing(run: Run, path: Path) -> None:
    async def test() -> None:
        async with Gateway() as gateway, manager_of(gateway, path) as manager:
            contract = await manager.qualify("AAPL")
            manager.send(HeadTimestampRequest(999, contract, Decimal(1), True))  # type: ignore[arg-type]
            await until(lambda: "store_failed" in events(manager))
            assert await manager.head_timestamp("MSFT")
            assert manager.connected
            supervisor_of(manager).book.note_alive(time.monotonic() + ALIVE_S, 1)
            assert events(manager).count("store_failed") == 1

    run(test())
