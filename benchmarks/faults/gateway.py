"""Faults that the gateway tells of, or should: its own faults' work."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from benchmarks.faults.subject import SPARE_CLIENT_IDS, Wish
from benchmarks.faults.world import Scenario, World
from ibfast.config import ReconnectionConfig, SessionConfig
from ibfast.contracts import Stock
from ibfast.sim.proxy import Direction
from ibfast.wire.requests import MarketData

OUTAGE_S = 1.0
RESTART_S = 3.0
NOTICES = 100
FLOOD = 50_000
LATE_TICKS = 200
SLOW_READ_S = 0.3
NVDA = 4815747
PAUSE_S = 0.3
QUIET_EVENTS_PER_S = 30.0
UPDATING_BARS = Wish("AAPL UPDATING_BARS", Stock("AAPL"), "UPDATING_BARS", {"bar_size": "5 secs", "duration": "60 S"})
MANY = tuple(
    Wish(f"{symbol} QUOTES {generic_ticks}", Stock(symbol), "QUOTES", {"generic_ticks": str(generic_ticks)})
    for symbol in ("AAPL", "MSFT", "SPY", "NVDA")
    for generic_ticks in (100, 101, 104, 105, 106, 107, 125, 162, 165, 166, 220, 221, 225, 232, 236, 256, 258, 292)
)
"""More than a gateway of 100 lines takes requests in a second."""


async def mute_stream(world: World) -> None:
    world.fault()
    world.gateway.faults.mute(req_id=world.req_id("AAPL QUOTES"))
    world.healed()
    await world.noticed()


async def _farm(world: World, *, notice: bool, resubscribe_needed: bool = False) -> None:
    world.fault()
    world.gateway.faults.mute_farm("usfarm")
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.heal_farm("usfarm", notice=notice, resubscribe_needed=resubscribe_needed)
    world.healed()


async def farm_healed(world: World) -> None:
    await _farm(world, notice=True)


async def farm_healed_silently(world: World) -> None:
    await _farm(world, notice=False)


async def farm_lost_streams(world: World) -> None:
    await _farm(world, notice=True, resubscribe_needed=True)


async def _link(world: World, *, data_lost: bool) -> None:
    world.fault()
    world.gateway.faults.lose_link()
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.restore_link(data_lost=data_lost)
    world.healed()


async def link_data_lost(world: World) -> None:
    await _link(world, data_lost=True)


async def link_data_kept(world: World) -> None:
    await _link(world, data_lost=False)


async def renewed_without_link(world: World) -> None:
    """Have streams unsubscribed and declared anew while the link is lost."""
    world.fault()
    world.gateway.faults.lose_link()
    await world.noticed()
    await world.renew("MSFT TRADES")
    await world.renew("AAPL DEPTH")
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.restore_link()
    world.healed()


async def bars_without_link(world: World) -> None:
    """Ask for bars that update while the link is lost, and with it every subscription."""
    world.fault()
    world.gateway.faults.lose_link()
    await world.noticed()
    bars = asyncio.create_task(world.declare(UPDATING_BARS))
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.restore_link(data_lost=True)
    world.healed()
    await bars
    world.expect(world.subject.history_bars(UPDATING_BARS.name), "the bars came without their history")


async def server_lost(world: World) -> None:
    world.fault()
    world.gateway.faults.lose_server()
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.restore_link()
    world.healed()


async def port_changed(world: World) -> None:
    world.fault()
    await world.gateway.faults.change_port()
    world.healed()


async def nightly_reset(world: World) -> None:
    world.fault()
    await world.gateway.faults.nightly_reset(NOTICES)
    world.healed()


async def planned_restart(world: World) -> None:
    world.fault()
    await world.gateway.faults.restart(RESTART_S)
    world.healed()


async def id_in_use(world: World) -> None:
    world.fault()
    world.gateway.faults.use_id(2)
    world.proxy.reset()
    world.healed()


async def no_next_valid_id(world: World) -> None:
    world.fault()
    before = world.proxy.accepted
    world.gateway.faults.withhold_next_valid_id()
    world.proxy.reset()
    await world.until(lambda: world.proxy.accepted > before + 1, "it waited for nextValidId for ever")
    world.healed()


async def rate_exceeded(world: World) -> None:
    world.fault()
    before = world.proxy.accepted
    world.gateway.faults.exceed_rate(3)
    await world.until(lambda: world.proxy.accepted > before, "it did not connect again after the session had ended")
    world.healed()


async def rate_exceeded_once(world: World) -> None:
    """Have a request refused for the rate: nothing says which one it was."""
    world.fault()
    world.gateway.faults.exceed_rate(1)
    await world.renew("AAPL QUOTES")
    world.healed()


async def gateway_pauses(world: World) -> None:
    """Have the gateway read nothing for a while, as a JVM that collects, when it is sent many requests."""
    await world.declare(*MANY)
    await world.recovered()
    asked = world.gateway.received[MarketData]
    world.fault()
    world.proxy.delay(PAUSE_S, Direction.TO_GATEWAY, upcoming=1)
    world.proxy.reset()
    await world.until(lambda: world.gateway.received[MarketData] > asked, "it did not ask again")
    await world.proxy.serve()
    world.healed()


async def no_line(world: World) -> None:
    world.fault()
    world.gateway.faults.refuse_lines()
    world.may_be_refused("AAPL QUOTES", "MSFT TRADES", "EUR QUOTES")
    world.proxy.reset()
    world.healed()


async def no_tick_by_tick(world: World) -> None:
    world.fault()
    world.gateway.faults.refuse_tick_by_tick()
    world.may_be_refused("SPY LAST")
    world.proxy.reset()
    world.healed()


async def other_session(world: World) -> None:
    world.fault()
    world.gateway.faults.take_session()
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.release_session()
    world.healed()


async def stream_ended(world: World) -> None:
    world.fault()
    world.gateway.faults.kill_subscription(world.req_id("MSFT TRADES"))
    world.healed()


async def book_reset(world: World) -> None:
    world.fault()
    world.gateway.faults.reset_book(world.req_id("AAPL DEPTH"))
    world.healed()


async def rerouted(world: World) -> None:
    world.fault()
    world.gateway.faults.reroute(world.con_id("AAPL QUOTES"), NVDA)
    world.proxy.reset()
    world.healed()
    await world.recovered()
    moved = {s.family for s in world.gateway.subscriptions() if s.con_id == NVDA}
    world.expect({"market data", "depth"} <= moved, f"not asked for again where the gateway said: {sorted(moved)}")


async def duplicate_id(world: World) -> None:
    world.fault()
    world.gateway.faults.refuse_history_ids()
    ended = await world.subject.ask_history()
    world.expect(ended.endswith("bars") or "322" in ended, f"the refusal was not told: {ended}")
    world.healed()


async def ticks_after_cancel(world: World) -> None:
    world.gateway.faults.messages_after_cancel = LATE_TICKS
    world.fault()
    await world.renew("AAPL QUOTES")
    await world.renew("MSFT TRADES")
    world.healed()


async def slow_gateway(world: World) -> None:
    world.fault()
    world.gateway.faults.read_interval_s = SLOW_READ_S
    world.proxy.reset()
    world.healed()


async def flood(world: World) -> None:
    world.fault()
    await world.gateway.faults.flood(FLOOD)
    world.healed()


def _restart_now() -> ReconnectionConfig:
    """Return settings for a gateway whose daily restart is due."""
    return ReconnectionConfig(
        delay_s=0.05, max_delay_s=0.5, stable_s=2.0, planned_poll_s=0.5, login_poll_s=1.0,
        daily_restart=f"{datetime.now(UTC):%H:%M}", zone="UTC",
    )  # fmt: skip


_SPARE_IDS = {"session": SessionConfig(client_ids=SPARE_CLIENT_IDS)}

SCENARIOS = (
    Scenario("mute stream", "one stream is silent, all else is well", mute_stream),
    Scenario("farm 2103, 2104", "a data farm breaks and heals", farm_healed, quick=True),
    Scenario("farm without 2104", "a data farm breaks and heals without a word", farm_healed_silently),
    Scenario("farm, streams gone", "a data farm heals, and its streams stay dead", farm_lost_streams),
    Scenario("1100, 1101", "the link to IB is lost, and the subscriptions with it", link_data_lost, quick=True),
    Scenario("1100, 1102", "the link to IB is lost and comes back", link_data_kept),
    Scenario("renewed at 1100", "streams are unsubscribed and declared anew without a link", renewed_without_link),
    Scenario("bars at 1100", "bars that update are asked for without a link", bars_without_link),
    Scenario("1300", "the gateway moves to another port", port_changed),
    Scenario("2110", "the gateway loses its server for a second", server_lost),
    Scenario("nightly reset", f"{NOTICES} times 1100, with farms flapping, then 1102", nightly_reset),
    Scenario("planned restart", "the daily restart takes three seconds", planned_restart,
             settings={"reconnection": _restart_now()}),
    Scenario("326", "the client id is in use at the reconnect, twice", id_in_use, settings=_SPARE_IDS),
    Scenario("no nextValidId", "a session never becomes ready", no_next_valid_id),
    Scenario("100 three times", "the rate is exceeded, the session ends", rate_exceeded),
    Scenario("100 once", "one request is refused for the rate", rate_exceeded_once),
    Scenario("gateway pauses", f"the gateway pauses {PAUSE_S:g} s while {len(MANY)} more streams are restored",
             gateway_pauses, events_per_s=QUIET_EVENTS_PER_S),
    Scenario("101", "no market-data line is left for one stream", no_line),
    Scenario("10190", "no tick-by-tick subscription is left", no_tick_by_tick),
    Scenario("10197", "another session has the data for a second", other_session),
    Scenario("10182", "one subscription ends", stream_ended),
    Scenario("317", "the book is reset", book_reset),
    Scenario("reroute 91", "data must be asked for elsewhere after a reconnect", rerouted),
    Scenario("322", "the id of a historical request is called a duplicate", duplicate_id, noticed=False),
    Scenario("ticks after cancel", f"{LATE_TICKS} messages come after a cancel", ticks_after_cancel, noticed=False),
    Scenario("slow gateway", "the gateway reads every 0.3 s only", slow_gateway),
    Scenario("flood", f"{FLOOD:,} messages at once", flood, noticed=False, quick=True),
)  # fmt: skip
