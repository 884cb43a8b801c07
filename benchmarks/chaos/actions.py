"""What a user does: the actions of a run that call ibfast.

The rule of the file: as in `trouble`. An action begins its calls and returns; how they end is watched by the user.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from datetime import UTC, datetime
from typing import Any

from benchmarks.chaos.market import CONTRACTS, DATA_TYPES, STOCKS
from benchmarks.chaos.steps import Actions, chosen
from benchmarks.chaos.user import Held
from benchmarks.chaos.world import World
from ibfast.errors import NotConnectedError
from ibfast.wire.ids import MarketDataType

ACTIONS = Actions()
action = ACTIONS.action

TYPES = sorted(DATA_TYPES)
CANCELS_S = (None, None, None, None, 0.0, 0.001, 0.02, 0.3)
DAY_S = 86_400.0
QUESTIONS = ("bars", "ticks", "head timestamp", "contract", "clock", "symbols")


def _subscription(draw: random.Random) -> dict[str, Any]:
    return {
        "contract": draw.randrange(len(CONTRACTS)) if draw.random() < 0.4 else 0,
        "data_type": draw.choice(TYPES),
        "priority": draw.choice([0, 0, 1, 5]),
        "variant": draw.random() < 0.2,
        "pause_s": draw.choice([0.0, 0.0, 0.0, 0.0, 0.3, 2.0]),
        "cancel_after_s": draw.choice(CANCELS_S),
    }


def _subscribe(world: World, contract: int, data_type: str, variant: bool, **options: Any) -> None:
    what = CONTRACTS[-1] if data_type == "GREEKS" else chosen(STOCKS, contract)
    if variant and data_type in ("TRADES", "QUOTES", "TICKS"):
        options["generic_ticks"] = "233"
    elif variant and data_type == "DEPTH":
        options["is_smart_depth"] = False
    world.user.subscribe(what, data_type, **options)


def _held(world: World, which: int) -> Held | None:
    open_ = world.user.open()
    return chosen(open_, which) if open_ else None


@action(10, _subscription)
async def subscribe(world: World, **options: Any) -> None:
    """One stream is subscribed to; it may be shared, have a slow reader, or be cancelled before it is there."""
    _subscribe(world, **options)


@action(3, lambda draw: {"streams": [_subscription(draw) for _ in range(draw.randrange(2, 9))]})
async def subscribe_to_many(world: World, streams: list[dict[str, Any]]) -> None:
    """Several streams are subscribed to at once."""
    for options in streams:
        _subscribe(world, **options)


@action(3, lambda draw: _subscription(draw) | {"times": draw.choice([2, 3])})
async def subscribe_twice(world: World, times: int, **options: Any) -> None:
    """The same stream is subscribed to several times at once, with priorities that grow."""
    priority = options.pop("priority")
    for number in range(times):
        _subscribe(world, priority=priority + number, **options)


@action(6, lambda draw: {"which": draw.randrange(16)})
async def unsubscribe(world: World, which: int) -> None:
    """A stream is ended."""
    held = _held(world, which)
    if held is not None:
        world.user.unsubscribe(held)


@action(3, lambda draw: {"which": draw.randrange(16), "priority": draw.choice([0, 3])})
async def renew(world: World, which: int, priority: int) -> None:
    """A stream is ended, and the same is subscribed to at once."""
    held = _held(world, which)
    if held is not None:
        world.user.unsubscribe(held)
        world.user.subscribe(held.contract, held.data_type, priority=priority)


@action(2, lambda draw: {"cancel_after_s": draw.choice(CANCELS_S)})
async def connect(world: World, cancel_after_s: float | None) -> None:
    """The user connects, connected or not."""
    world.user.connect(cancel_after_s=cancel_after_s)


@action(
    1,
    lambda draw: {"cancel_after_s": draw.choice(CANCELS_S), "connect_after_s": draw.choice([0.0, 0.0, 0.3, 3.0, None])},
)
async def disconnect(world: World, cancel_after_s: float | None, connect_after_s: float | None) -> None:
    """The user disconnects, and may be cancelled in it, and mostly connects again."""
    world.user.disconnect(cancel_after_s=cancel_after_s)

    async def script() -> None:
        if connect_after_s is not None:
            await asyncio.sleep(connect_after_s)
            world.user.connect()

    world.script(script())


@action(
    1,
    lambda draw: {
        "calls": [draw.choice(["connect", "disconnect"]) for _ in range(draw.randrange(1, 4))] + ["connect"],
        "cancel_after_s": draw.choice(CANCELS_S),
    },
)
async def connect_and_disconnect(world: World, calls: list[str], cancel_after_s: float | None) -> None:
    """Several tasks connect and disconnect at once; the first one may be cancelled."""
    for number, call in enumerate(calls):
        getattr(world.user, call)(cancel_after_s=None if number else cancel_after_s)


@action(
    1,
    lambda draw: {
        "call": draw.choice(["connect", "disconnect", "unsubscribe", "subscribe"]),
        "event": draw.choice(["state", "live", "moved", "connection_lost", "link_lost"]),
    },
)
async def call_back(world: World, call: str, event: str) -> None:
    """The next event of a kind makes the user call something from within the callback."""
    stop: list[Any] = []

    def react(told: Any) -> None:
        if told.name != event or not stop:
            return
        for end in stop:
            end()
        stop.clear()
        if call == "unsubscribe":
            held = _held(world, 0)
            if held is not None:
                world.user.unsubscribe(held)
        elif call == "subscribe":
            world.user.subscribe(STOCKS[1], "TRADES")
        else:
            getattr(world.user, call)()

    stop += world.user.on_event(react)


@action(1, lambda draw: {"kind": draw.choice([1, 2, 3, 4])})
async def market_data_type(world: World, kind: int) -> None:
    """The user wants another market-data type from now on."""
    with contextlib.suppress(NotConnectedError):
        world.user.client.set_market_data_type(MarketDataType(kind))


@action(
    3,
    lambda draw: {
        "what": draw.choice(QUESTIONS),
        "times": draw.choice([1, 1, 2, 3]),
        "contract": draw.randrange(len(STOCKS)),
        "cancel_after_s": draw.choice(CANCELS_S),
    },
)
async def ask(world: World, what: str, times: int, contract: int, cancel_after_s: float | None) -> None:
    """Questions, maybe the same several times at once."""
    user, stock = world.user, STOCKS[contract]
    for number in range(times):
        cancel: dict[str, Any] = {"cancel_after_s": None if number else cancel_after_s}
        match what:
            case "bars":
                user.ask("historical_bars", stock, "60 S", "5 secs", **cancel)
            case "ticks":
                end = f"{datetime.fromtimestamp(time.time(), UTC):%Y%m%d-%H:%M:%S}"
                user.ask("historical_ticks", stock, "TRADES", end=end, **cancel)
            case "head timestamp":
                user.ask("head_timestamp", stock, **cancel)
            case "contract":
                user.ask("contract_details", stock, **cancel)
            case "symbols":
                user.ask("matching_symbols", "A", **cancel)
            case _:
                user.ask("current_time_ns", **cancel)


@action(2, lambda draw: {"for_s": draw.choice([0.2, 1.0, 4.0, 12.0])})
async def block_loop(world: World, for_s: float) -> None:
    """The event loop stands still, and with it everything in this process. On the jumping clock only."""
    if world.clock is not None:
        world.clock.now_s += for_s
        for gateway in world.gateways:
            for connection in gateway.connections:
                connection.excuse()
    await asyncio.sleep(0)


@action(1, lambda draw: {"by_s": draw.choice([-2 * DAY_S, -3600.0, -2.0, 2.0, 3600.0, 2 * DAY_S])})
async def step_clock(world: World, by_s: float) -> None:
    """The wall clock is set forward or back. On the jumping clock only."""
    if world.clock is not None:
        world.clock.offset_s += by_s
