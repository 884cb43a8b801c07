"""Notices that are not true, or that come at another time than what they are about: the gateway's log knows better."""

from __future__ import annotations

import asyncio

from benchmarks.faults.world import Scenario, Script, World

OUTAGE_S = 3.0
"""Longer than any message is under way."""
RESTORED_S = 3.0
AGAIN_S = 0.008
EARLY_S = 0.3
BURST = 20


async def data_lost_twice(world: World) -> None:
    """Say 1101 twice, within milliseconds: the gateway goes on serving what it was sent after the first one."""
    world.fault()
    world.gateway.faults.lose_link()
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    world.gateway.faults.restore_link(data_lost=True)
    await asyncio.sleep(AGAIN_S)
    world.gateway.faults.say(1101)
    world.healed()


async def data_lost_after_reconnect(world: World) -> None:
    """Say 1101 of subscriptions that were made since, and live on."""
    world.fault()
    world.proxy.reset()
    await world.noticed()
    await world.recovered()
    await asyncio.sleep(RESTORED_S)
    world.gateway.faults.say(1101)
    world.healed()


def _ended(code: int, text: str) -> Script:
    """Return a script that says of a stream that it has ended, while it goes on."""

    async def script(world: World) -> None:
        world.fault()
        world.gateway.faults.say(code, text, req_id=world.req_id("MSFT TRADES"))
        world.healed()

    return script


async def _silence(world: World, begin: Script) -> None:
    """Begin an outage, in which a message of each stream still comes."""
    world.gateway.faults.messages_under_way = 1
    world.fault()
    await begin(world)
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)


async def _lose_link(world: World) -> None:
    world.gateway.faults.lose_link()


async def _lose_farm(world: World) -> None:
    world.gateway.faults.mute_farm("usfarm")


async def _lose_session(world: World) -> None:
    world.gateway.faults.take_session()


async def link_under_way(world: World) -> None:
    await _silence(world, _lose_link)
    world.gateway.faults.restore_link()
    world.healed()


async def link_with_burst(world: World) -> None:
    await _silence(world, _lose_link)
    with world.gateway.faults.one_write():
        world.gateway.faults.restore_link()
        world.gateway.faults.trade(BURST)
    world.healed()


async def link_after_data(world: World) -> None:
    await _silence(world, _lose_link)
    world.gateway.faults.restore_link(notice=False)
    await asyncio.sleep(EARLY_S)
    world.gateway.faults.say(1102)
    world.healed()


async def link_in_one_write(world: World) -> None:
    """Send the last data, 1100, 1102 and the first data in one write."""
    world.fault()
    with world.gateway.faults.one_write():
        world.gateway.faults.trade(BURST)
        world.gateway.faults.lose_link()
        world.gateway.faults.trade(BURST)
        world.gateway.faults.restore_link()
        world.gateway.faults.trade(BURST)
    world.healed()


async def farm_under_way(world: World) -> None:
    await _silence(world, _lose_farm)
    world.gateway.faults.heal_farm("usfarm")
    world.healed()


async def farm_with_burst(world: World) -> None:
    await _silence(world, _lose_farm)
    with world.gateway.faults.one_write():
        world.gateway.faults.heal_farm("usfarm")
        world.gateway.faults.trade(BURST)
    world.healed()


async def farm_after_data(world: World) -> None:
    await _silence(world, _lose_farm)
    world.gateway.faults.heal_farm("usfarm", notice=False)
    await asyncio.sleep(EARLY_S)
    world.gateway.faults.say(2104)
    world.healed()


async def session_under_way(world: World) -> None:
    await _silence(world, _lose_session)
    world.gateway.faults.release_session()
    world.healed()


SCENARIOS = (
    Scenario("1101 twice", "1101 comes again 8 ms later, nothing is lost", data_lost_twice),
    Scenario("1101, reconnected", f"1101 {RESTORED_S:g} s after a reconnect, nothing is lost",
             data_lost_after_reconnect),
    Scenario("354, data goes on", "a stream that goes on is called not subscribed",
             _ended(354, "Requested market data is not subscribed.")),
    Scenario("200, data goes on", "a stream that goes on is said to have no security",
             _ended(200, "No security definition has been found for the request")),
    Scenario("10182, data goes on", "a stream that goes on is said to have ended",
             _ended(10182, "Failed to request live updates (disconnected).")),
    Scenario("10197, under way", "ticks come after 10197", session_under_way),
    Scenario("1100, under way", "ticks come after 1100", link_under_way),
    Scenario("1102 with burst", "1102 and the data behind it come in one write", link_with_burst),
    Scenario("data before 1102", "the data come back 0.3 s before 1102", link_after_data),
    Scenario("1100 with 1102", "data, 1100, 1102 and data come in one write", link_in_one_write),
    Scenario("2103, under way", "ticks come after 2103", farm_under_way),
    Scenario("2104 with burst", "2104 and the data behind it come in one write", farm_with_burst),
    Scenario("data before 2104", "the data come back 0.3 s before 2104", farm_after_data),
)  # fmt: skip
