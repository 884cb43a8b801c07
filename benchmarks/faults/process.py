"""Faults of the subject's own process and its surroundings: clocks, the loop, the disk, the process, certificates."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import trustme

from benchmarks.faults.subject import config, pool_of
from benchmarks.faults.world import SPEED, Scenario, World
from ibfast.config import SessionConfig
from ibfast.config.tls import TlsConfig
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.subscription import GatewaySubscription

OUTAGE_S = 1.0
HOUR_S = 3600
BLOCK_S = 1.0
SMALLEST_FILE = 1
STANDARD_FILES = 3
QUIET_EVENTS_PER_S = 50.0
ROOT = Path(__file__).parents[2]


async def clock_jumps(world: World) -> None:
    for jump_s in (HOUR_S, -2 * HOUR_S):
        world.fault()
        with _wall_clock_off_by(jump_s):
            world.healed()
            await asyncio.sleep(OUTAGE_S)
            await world.recovered()
    world.expect(world.proxy.accepted == 1, "a clock that jumped cost the connection")


@contextmanager
def _wall_clock_off_by(seconds: int) -> Iterator[None]:
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_time_ns() + seconds * 1_000_000_000
    try:
        yield
    finally:
        time.time, time.time_ns = real_time, real_time_ns


async def loop_blocked(world: World) -> None:
    world.fault()
    time.sleep(BLOCK_S)  # noqa: ASYNC251 - that is the fault
    world.healed()
    await world.recovered()
    world.expect(world.proxy.accepted == 1, "a blocked loop cost the connection")


async def disk_full(world: World) -> None:
    """Let the store write no more while a stream is declared anew and the connection is lost."""
    await world.start(session=SessionConfig(store=world.folder / "store.sqlite"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    world.fault()
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_FILE, hard))
    try:
        await world.renew("AAPL QUOTES")
        world.proxy.reset()
        world.healed()
        await world.noticed()
        await world.recovered()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def killed(world: World) -> None:
    """Run the subject in a process, kill it, and start another one that is told nothing."""
    store = world.folder / "store.sqlite"
    wanted = {(s.family, s.con_id) for s in await _child(world, store, declares=True)}
    world.expect(len(wanted) == len(world.wishes), f"only {len(wanted)} subscriptions before the kill")
    began_s = time.monotonic()
    found = {(s.family, s.con_id) for s in await _child(world, store, declares=False)}
    world.live_s = time.monotonic() - began_s
    world.expect(found == wanted, f"not restored: {sorted(str(lost) for lost in wanted - found)}")


async def _child(world: World, store: Path, *, declares: bool) -> list[GatewaySubscription]:
    """Run a child until it reports, kill it, and return what it had open at the gateway."""
    task = {"port": world.proxy.port, "store": str(store), "wishes": [w.name for w in world.wishes] if declares else []}
    command = (sys.executable, "-m", "benchmarks.faults.child", json.dumps(task))
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        await world.until(lambda: len(world.gateway.subscriptions()) >= len(world.wishes), "not all were asked for")
        async with asyncio.timeout(30):
            world.expect(await child.stdout.readline() == b"live\n", "the process did not come to live data")
        subscriptions = world.gateway.subscriptions()
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    await world.until(lambda: not world.gateway.sessions, "the killed process is still connected")
    return subscriptions


async def pool_member_fails(world: World) -> None:
    """Lose one of two gateways of a pool for good: its streams must move to the other one."""
    other = Gateway(market=Market(world.universe, rate=QUIET_EVENTS_PER_S), clock=Clock(SPEED))
    count = len(world.wishes)

    def open_at_both() -> int:
        return len(world.gateway.subscriptions()) + len(other.subscriptions())

    async with (
        other,
        FaultProxy(other.host, other.port) as proxy,
        pool_of(config(world.proxy.port), config(proxy.port, client_id=2), wishes=world.wishes),
    ):
        await world.until(lambda: open_at_both() == count, "not all were asked for")
        world.expect(other.subscriptions(), "all streams went to one member")
        began_s = time.monotonic()
        proxy.refuse()
        proxy.reset()
        await world.until(lambda: len(world.gateway.subscriptions()) == count, "streams did not move")
        world.live_s = time.monotonic() - began_s
        world.expect(not other.violations, "limit broken at the other member")


async def no_descriptors(world: World) -> None:
    """Have no file descriptor left when the connection must be made again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    world.fault()
    resource.setrlimit(resource.RLIMIT_NOFILE, (STANDARD_FILES, hard))
    try:
        world.proxy.reset()
        await world.noticed()
        await asyncio.sleep(OUTAGE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    world.healed()


async def clock_back_in_outage(world: World) -> None:
    """Set the clock back while there is no connection, and have what was missed filled from history."""
    world.fault()
    world.proxy.refuse()
    world.proxy.reset()
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    with _wall_clock_off_by(-HOUR_S):
        await world.proxy.serve()
        world.healed()
        await world.recovered()
        for subscription in ("MarketData MSFT", "TickByTick SPY"):
            await world.until(
                partial(_has_backfill_event, world, subscription), f"nothing said of the backfill of {subscription}"
            )
    world.witness.read()
    ends = [gap for gap in world.witness.gaps if gap["last_ns"]]
    world.expect(all(gap["first_ns"] <= gap["last_ns"] for gap in ends), "a gap ends before it begins")


def _has_backfill_event(world: World, subscription: str) -> bool:
    return any("backfill" in event and subscription in event for event in world.subject.events)


async def disconnect_and_connect(world: World) -> None:
    """Disconnect and connect at once: there is one connection, which ends at the end."""
    world.fault()
    await world.subject.disconnect_and_connect()
    world.leave_all()
    await world.subject.start_anew()
    world.healed()
    await world.until(lambda: len(world.gateway.sessions) == 1, "the old connection is still open")


async def disconnect_abandoned(world: World) -> None:
    """Cancel a disconnect, and connect: there is one connection, which ends at the end."""
    world.fault()
    await world.subject.abandon_disconnect()
    world.leave_all()
    await world.subject.start_anew()
    world.healed()
    await world.until(lambda: len(world.gateway.sessions) == 1, "the old connection is still open")


async def expired_certificate(world: World) -> None:
    """Have the certificate of the TLS proxy expire while a connection is lost, and be renewed later."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    ca_file = world.folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    proxy = await world.enter(FaultProxy(world.gateway.host, world.gateway.port, ssl=context))
    await world.start(port=proxy.port, host="localhost", tls=TlsConfig(ca_file=str(ca_file)))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    authority.issue_cert("localhost", not_after=yesterday).configure_cert(context)
    world.fault()
    proxy.reset()
    await world.until(
        lambda: "certificate has expired" in " ".join(world.subject.events).lower(), "the reason was not told"
    )
    await asyncio.sleep(OUTAGE_S)
    authority.issue_cert("localhost").configure_cert(context)
    await world.subject.reconnect()  # by hand: trying again heals no certificate, so that giving up is right
    world.healed()
    await world.recovered()


SCENARIOS = (
    Scenario("clock jumps", "the wall clock jumps an hour ahead and back", clock_jumps, noticed=False),
    Scenario("blocked loop", "the event loop stands still for a second", loop_blocked, noticed=False, quick=True),
    Scenario("clock back, backfill", "the clock is set back an hour in an outage, with backfill", clock_back_in_outage,
             settings={"session": SessionConfig(backfill=True)}),
    Scenario("no descriptors", "no file descriptor is left at the reconnect", no_descriptors),
    Scenario("disconnect, connect", "disconnect and connect are called at once", disconnect_and_connect,
             noticed=False),
    Scenario("disconnect abandoned", "a disconnect is cancelled, then connect is called", disconnect_abandoned,
             noticed=False),
    Scenario("disk full", "the store can't be written", disk_full, starts=False),
    Scenario("killed", "the process is killed (-9) and another one started", killed, noticed=False, starts=False),
    Scenario("pool member fails", "one of two gateways is gone for good", pool_member_fails, noticed=False,
             starts=False),
    Scenario("expired certificate", "the TLS proxy's certificate has expired", expired_certificate, starts=False),
)  # fmt: skip
