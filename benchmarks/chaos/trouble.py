"""What goes wrong at a gateway and in the network: the actions of a run that are not the user's.

The rule of the file: an action is a coroutine function of the world and of plain values, drawn by `draw` beside it. A
trouble that lasts is a script that ends what it began. Whatever it does, the gateway's log stays true.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from benchmarks.chaos.connection import Asked, Connection
from benchmarks.chaos.gateway import Gateway
from benchmarks.chaos.steps import Actions, chosen
from benchmarks.chaos.world import World
from ibfast.policy.codes import CODES

ACTIONS = Actions()
action = ACTIONS.action

LINK_TEXTS = {
    1100: "Connectivity between IB and Trader Workstation has been lost.",
    2110: "Connectivity between Trader Workstation and server is broken. It will be restored automatically.",
    1101: "Connectivity between IB and Trader Workstation has been restored - data lost.",
    1102: "Connectivity between IB and Trader Workstation has been restored - data maintained.",
}
FARM = "usfarm"
SPECIAL = frozenset({326, 1100, 1101, 1102, 1300, 2103, 2104, 2108, 2110, 10197})
"""Codes that are said where they are true, or have an action of their own."""
NOTICES = sorted(set(CODES) - SPECIAL)
ENDING = sorted(code for code, rule in CODES.items() if rule.action.ends_request)
LIKELY = (354, 200, 10182, 101, 10190, 309, 316, 317, 162, 322, 420, 102, 10089, 10167, 2152, 2108, 300, 310, 366, 100)
TEXTS = (
    "it is refused",
    "Historical Market Data Service error message:Historical data request pacing violation",
    "Trading TWS session is connected from a different IP address",
    "Duplicate ticker id",
)


def seconds(draw: random.Random, *choices: float) -> float:
    return draw.choice(choices)


def _gateway(world: World, which: int) -> Gateway:
    return chosen(world.gateways, which)


def _connection(world: World, which: int) -> Connection | None:
    open_ = [connection for gateway in world.gateways for connection in gateway.connections]
    return chosen(open_, which) if open_ else None


def _live(world: World, which: int) -> Asked | None:
    live = [asked for gateway in world.gateways for asked in gateway.live()]
    return chosen(live, which) if live else None


# --- the network ---


@action(6, lambda draw: {"which": draw.randrange(4), "how": draw.choice(["abort", "close", "half-close"])})
async def drop(world: World, which: int, how: str) -> None:
    """A connection ends: reset, closed, or closed in one direction."""
    connection = _connection(world, which)
    if connection is not None:
        {"abort": connection.abort, "close": connection.close, "half-close": connection.half_close}[how]()


@action(
    2,
    lambda draw: {
        "which": draw.randrange(2),
        "for_s": seconds(draw, 0.2, 2.0, 6.0),
        "how": draw.choice(["closed", "refusing", "speechless"]),
    },
)
async def shut(world: World, which: int, for_s: float, how: str) -> None:
    """The gateway restarts: every connection ends, and new ones come to nothing for a while."""
    gateway = _gateway(world, which)

    async def script() -> None:
        if how == "closed":
            gateway.close_door()
        gateway.is_refusing = how == "refusing"
        gateway.is_speechless = how == "speechless"
        for connection in tuple(gateway.connections):
            connection.abort()
        await asyncio.sleep(for_s)
        gateway.is_refusing = gateway.is_speechless = False
        await gateway.listen()

    world.script(script())


@action(1, lambda draw: {"which": draw.randrange(2), "for_s": seconds(draw, 0.5, 4.0)})
async def occupy_client_id(world: World, which: int, for_s: float) -> None:
    """Another program has the client id, after the connection has ended."""
    gateway = _gateway(world, which)

    async def script() -> None:
        gateway.used_ids.update({1, 11, 21})
        for connection in tuple(gateway.connections):
            connection.abort()
        await asyncio.sleep(for_s)
        gateway.used_ids.clear()

    world.script(script())


@action(
    3,
    lambda draw: {
        "which": draw.randrange(4),
        "for_s": seconds(draw, 0.3, 1.5, 5.0, 12.0),
        "is_deaf": draw.random() < 0.5,
    },
)
async def freeze(world: World, which: int, for_s: float, is_deaf: bool) -> None:
    """Nothing comes out of a connection for a while, and nothing gets in either if the gateway is deaf."""
    connection = _connection(world, which)
    if connection is None:
        return

    async def script() -> None:
        connection.is_held = True
        if is_deaf:
            connection.stop_reading()
        await asyncio.sleep(for_s)
        connection.go_on()

    world.script(script())


@action(
    2,
    lambda draw: {
        "which": draw.randrange(4),
        "for_s": seconds(draw, 1.0, 4.0),
        "bytes_per_beat": draw.choice([1, 7, 50, 300]),
    },
)
async def slow(world: World, which: int, for_s: float, bytes_per_beat: int) -> None:
    """The network takes a few bytes at a time, so that data gets old."""
    connection = _connection(world, which)
    if connection is None:
        return

    async def script() -> None:
        connection.bytes_per_beat = bytes_per_beat
        await asyncio.sleep(for_s)
        connection.go_on()

    world.script(script())


# --- answers ---


@action(
    2,
    lambda draw: {
        "which": draw.randrange(2),
        "delay_s": seconds(draw, 0.05, 0.5, 2.0),
        "for_s": seconds(draw, 1.0, 5.0),
    },
)
async def delay_answers(world: World, which: int, delay_s: float, for_s: float) -> None:
    """Answers take their time."""
    gateway = _gateway(world, which)

    async def script() -> None:
        gateway.delay_s = delay_s
        await asyncio.sleep(for_s)
        gateway.delay_s = 0.0

    world.script(script())


@action(1, lambda draw: {"which": draw.randrange(2), "answers": draw.choice([1, 2])})
async def withhold_answers(world: World, which: int, answers: int) -> None:
    """Some of the next answers never come."""
    _gateway(world, which).withheld = answers


@action(1, lambda draw: {"which": draw.randrange(2), "answers": draw.choice([1, 3])})
async def repeat_answers(world: World, which: int, answers: int) -> None:
    """Some of the next answers come twice, in one write."""
    _gateway(world, which).repeated = answers


@action(2, lambda draw: {"which": draw.randrange(2), "ticks": draw.choice([0, 1, 3])})
async def tick_after_cancel(world: World, which: int, ticks: int) -> None:
    """From now on, so many ticks of a request follow its cancel."""
    _gateway(world, which).late_ticks = ticks


# --- requests ---


@action(
    4,
    lambda draw: {
        "which": draw.randrange(2),
        "code": draw.choice(LIKELY[:13] if draw.random() < 0.8 else ENDING),
        "really": draw.random() < 0.7,
        "times": draw.choice([1, 1, 2, 6]),
    },
)
async def refuse_next(world: World, which: int, code: int, really: bool, times: int) -> None:
    """The next subscriptions are refused; or the gateway says so, and serves them all the same."""
    _gateway(world, which).fates.extend([(code, really)] * times)


@action(
    6,
    lambda draw: {
        "which": draw.randrange(16),
        "code": draw.choice(LIKELY if draw.random() < 0.7 else ENDING),
        "text": draw.randrange(len(TEXTS)),
        "really": draw.random() < 0.6,
        "at_once": draw.random() < 0.7,
    },
)
async def end_request(world: World, which: int, code: int, text: int, really: bool, at_once: bool) -> None:
    """A request ends in mid-stream; or the gateway says so, and it goes on. Only codes that end requests are true."""
    asked = _live(world, which)
    if asked is not None:
        if really and code in ENDING:
            asked.connection.end(asked)
        asked.connection.say(asked.request.req_id, code, TEXTS[text])
        if at_once:
            asked.connection.flush()


@action(2, lambda draw: {"which": draw.randrange(16)})
async def forget_request(world: World, which: int) -> None:
    """The gateway forgets a request without a word: it holds a line, and sends nothing any more."""
    asked = _live(world, which)
    if asked is not None:
        asked.is_mute = True


@action(
    4,
    lambda draw: {
        "which": draw.randrange(2),
        "code": draw.choice(NOTICES),
        "text": draw.randrange(len(TEXTS)),
        "about": draw.choice(["nothing", "stale", "unknown"]),
        "times": draw.choice([1, 1, 3]),
        "at_once": draw.random() < 0.5,
    },
)
async def say_anything(world: World, which: int, code: int, text: int, about: str, times: int, at_once: bool) -> None:
    """A code of the table is said of no request, of one that is over, or of one that there never was."""
    gateway = _gateway(world, which)
    stale = [req_id for req_id, asked in gateway.asked.items() if asked.over_s is not None]
    req_id = {"nothing": -1, "unknown": 999_999}.get(about, chosen(stale, which) if stale else -1)
    for _ in range(times):
        gateway.say(code, TEXTS[text], req_id, at_once=at_once)


@action(
    2, lambda draw: {"which": draw.randrange(16), "for_s": seconds(draw, 1.0, 6.0, 15.0), "is_all": draw.random() < 0.3}
)
async def keep_silence(world: World, which: int, for_s: float, is_all: bool) -> None:
    """Nothing happens in a market for a while, so that nothing is missed either."""
    series = list(world.market.times_s)
    if series:
        until_s = asyncio.get_running_loop().time() + for_s
        for quiet in series if is_all else [chosen(series, which)]:
            world.market.pause(quiet, until_s)


# --- outages that are told ---


async def _outage(gateway: Gateway, reason: str, times: dict[str, Any], down: Any, up: Any) -> None:
    """Mute a gateway between two notices. Leads below 0 put the data's change before the notice."""
    lead_s, hold_s, lag_s = times["lead_s"], times["hold_s"], times["lag_s"]
    try:
        if lead_s < 0:
            gateway.muted.add(reason)
            await asyncio.sleep(-lead_s)
            gateway.told.add(reason)
            down()
        else:
            gateway.told.add(reason)
            down()
            await asyncio.sleep(lead_s)
            gateway.muted.add(reason)
        await asyncio.sleep(hold_s)
        if lag_s < 0:
            gateway.unmute(reason)
            gateway.told.add(reason)  # the next outage comes after the notice that ends this one
            await asyncio.sleep(-lag_s)
            gateway.told.discard(reason)
            up()
        else:
            gateway.told.discard(reason)
            up()
            await asyncio.sleep(lag_s)
    finally:
        gateway.unmute(reason)


def _times(draw: random.Random) -> dict[str, Any]:
    return {
        "lead_s": seconds(draw, -0.5, 0.0, 0.0, 0.25, 1.0),
        "hold_s": seconds(draw, 0.1, 1.0, 2.5, 6.0, 20.0),
        "lag_s": seconds(draw, -0.4, 0.0, 0.0, 0.3, 2.0),
    }


@action(
    4,
    lambda draw: {
        "which": draw.randrange(2),
        "down": draw.choice([1100, 1100, 2110]),
        "up": draw.choice([1101, 1102]),
        "is_lost": draw.choice(["told", "told", "really", "falsely"]),
        "again_s": seconds(draw, -1.0, -1.0, 0.0, 0.008, 1.0),
        "at_once": draw.random() < 0.5,
        **_times(draw),
    },
)
async def lose_link(
    world: World, which: int, down: int, up: int, is_lost: str, again_s: float, at_once: bool, **times: Any
) -> None:
    """The gateway loses IB and finds it again: requests are kept or lost, as it says or otherwise; maybe said twice."""
    gateway = _gateway(world, which)

    def lost() -> bool:
        return is_lost == "really" or (is_lost == "told" and up == 1101)

    def found() -> None:
        if lost():
            gateway.lose_all()
        gateway.say(up, LINK_TEXTS[up], at_once=at_once)

    async def script() -> None:
        await _outage(gateway, "link", times, lambda: gateway.say(down, LINK_TEXTS[down]), found)
        if again_s >= 0:
            await asyncio.sleep(again_s)
            if "link" not in gateway.muted | gateway.told:
                gateway.say(up, LINK_TEXTS[up])

    if "link" not in gateway.muted | gateway.told:
        world.script(script())


@action(3, lambda draw: {"which": draw.randrange(2), "at_once": draw.random() < 0.5, **_times(draw)})
async def break_farm(world: World, which: int, at_once: bool, **times: Any) -> None:
    """A market-data farm breaks and is mended."""
    gateway = _gateway(world, which)

    def broken() -> None:
        gateway.say(2103, f"Market data farm connection is broken:{FARM}")

    def mended() -> None:
        gateway.say(2104, f"Market data farm connection is OK:{FARM}", at_once=at_once)

    if "farm" not in gateway.muted | gateway.told:
        world.script(_outage(gateway, "farm", times, broken, mended))


@action(3, lambda draw: {"which": draw.randrange(2), **_times(draw)})
async def take_session(world: World, which: int, **times: Any) -> None:
    """Another session of the login has the data for a while: said of every request, and ended without a word."""
    gateway = _gateway(world, which)

    def taken() -> None:
        for asked in gateway.live():
            asked.connection.say(asked.request.req_id, 10197, "No market data during competing live session")
            asked.connection.flush()

    if "session" not in gateway.muted | gateway.told:
        world.script(_outage(gateway, "session", times, taken, lambda: None))
