"""What subscribers do, and what happens to the server.

The rule of the file: as in `benchmarks.chaos.trouble`. An action begins its work and returns; how it ends is judged by
the clients. Whom it concerns is a number, taken modulo what there is.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

from benchmarks.chaos.fanout.client import Claim, Client
from benchmarks.chaos.fanout.ours import Manner as OurManner
from benchmarks.chaos.fanout.ours import Ours
from benchmarks.chaos.fanout.rest import OK, page
from benchmarks.chaos.fanout.socket_client import Manner
from benchmarks.chaos.fanout.tracks import Seen
from benchmarks.chaos.fanout.wire import COLUMNS, STRUCTURE
from benchmarks.chaos.fanout.world import FanoutWorld, token_of
from benchmarks.chaos.market import FIRST_CON_ID, STOCKS
from benchmarks.chaos.steps import Actions, chosen

ACTIONS = Actions()
action = ACTIONS.action

INTERVALS_MS = (0, 0, 10, 10, 50, 100, 250, 500, 1000)
DATA_TYPES = ("TRADES", "QUOTES", "TICKS", "DEPTH", "BARS", "GREEKS", "ALL", "ALL")
MODES = ("stream", "stream", "stream", "conflate", "conflate", "snapshot")
EXCHANGES = ("ISLAND", "ARCA")
NEVER = 1 << 45
NONSENSE = (
    "no JSON", "[]", '{"op": "fly", "id": "x"}', '{"op": "subscribe", "id": "x"}', '{"op": "ping", "id": [1]}',
    '{"op": "unsubscribe", "id": "x", "subscription": 99999}', '{"op": "subscribe", "id": "x", "symbol": "NONE"}',
    '{"op": "update", "id": "x", "subscription": 99999, "interval_ms": 10}', b"binary",
    '{"op": "subscribe", "id": "x", "symbol": "AA", "data_type": "GREEKS"}',
)  # fmt: skip
INSTRUMENTS = 4
"""Of so many stocks, and the option; few, so that subscribers meet."""


def _options(draw: random.Random) -> dict[str, Any]:
    """Draw what is subscribed to; steps that are left out change nothing in it."""
    data_type = draw.choice(DATA_TYPES)
    instrument = draw.choice((0, 0, 0, 1, 2, INSTRUMENTS - 1))
    is_option = data_type == "GREEKS" or (data_type == "ALL" and draw.random() < 0.3)
    options: dict[str, Any] = {"data_type": data_type, "mode": draw.choice(MODES)}
    if is_option:
        options["contract"] = {"con_id": FIRST_CON_ID + len(STOCKS)}
    elif draw.random() < 0.3:
        options["contract"] = {"con_id": FIRST_CON_ID + instrument}
    else:
        options["symbol"] = STOCKS[instrument].symbol
    if draw.random() < 0.8:
        options["interval_ms"] = draw.choice(INTERVALS_MS)
    families = ("ticks", "trades", "quotes", "greeks") if data_type == "ALL" else (data_type.lower(),)
    if draw.random() < 0.2:
        names = sorted({name for family in families for name in COLUMNS[family]} - STRUCTURE)
        options["fields"] = sorted(draw.sample(names, draw.randint(1, len(names))))
    if draw.random() < 0.3:
        options["times"] = draw.choice(("us", "ns"))
    if draw.random() < 0.4:
        options["ordered"] = True
    if draw.random() < 0.15:
        options["on_slow"] = draw.choice(("conflate", "close"))
    return options


def _who(draw: random.Random) -> dict[str, Any]:
    return {"which": draw.randrange(12)}


def _client(world: FanoutWorld, which: int) -> Client | None:
    clients = world.open_clients()
    return chosen(clients, which) if clients else None


# --- coming and going ---


def _manner(draw: random.Random) -> dict[str, Any]:
    return {
        "dialect": draw.choice(("json", "binary")),
        "is_deflated": draw.random() < 0.2,
        "is_narrow": draw.random() < 0.25,
        "token": draw.choice(("full", "full", "full", "little", "brief")),
    }


def _come(world: FanoutWorld, token: str, **manner: Any) -> Client | None:
    return world.come(Manner(**manner, token=token_of(token) if world.setup.has_tokens else ""))


async def _when_open(client: Client | None) -> bool:
    while client is not None and not client.is_open and not client.task.done():
        await asyncio.sleep(0.005)
    return client is not None and client.is_open


@action(
    10,
    lambda draw: {**_manner(draw), "subscriptions": [_options(draw) for _ in range(draw.choice((0, 1, 2, 3, 5)))]},
)
async def come(world: FanoutWorld, subscriptions: list[dict[str, Any]], **manner: Any) -> None:
    """A client connects and subscribes."""
    client = _come(world, **manner)

    async def script() -> None:
        if await _when_open(client):
            assert client is not None
            for options in subscriptions:
                client.ask("subscribe", **options)

    world.script(script())


@action(6, lambda draw: {**_who(draw), "how": draw.choice(("close", "reset", "reset", "half-close"))})
async def leave(world: FanoutWorld, which: int, how: str) -> None:
    """A client goes: by a close, a reset, or the end of one direction."""
    client = _client(world, which)
    if client is not None:
        client.leave(how)


@action(
    12,
    lambda draw: {
        **_manner(draw),
        "whose": draw.randrange(8),
        "how": draw.choice(("right", "right", "right", "right", "old", "future", "another epoch", "another class")),
        "many": draw.choice((1, 2, 4)),
        "old": draw.randrange(50),
    },
)
async def come_back(world: FanoutWorld, whose: int, how: str, many: int, old: int, **manner: Any) -> None:
    """A client resumes what another one had: from the newest position of that, an old one, or one that never was."""
    if not world.seen:
        return
    first = len(world.seen) - 1 - whose % len(world.seen)
    seen = world.seen[max(0, first - many + 1) : first + 1]
    client = _come(world, **manner)

    async def script() -> None:
        if await _when_open(client):
            assert client is not None
            for each in seen:
                _resume(client, each, how, old)

    world.script(script())


def _resume(client: Client, seen: Seen, how: str, old: int) -> None:
    seqs = seen.bookmarks.seqs
    bookmark = seen.bookmarks.at(chosen(seqs, old) if how == "old" else seqs[-1])
    if how == "future":
        bookmark = seen.bookmarks.at(seqs[-1] + NEVER)
    elif how == "another epoch":
        bookmark = replace(bookmark, epoch="0123456789abcdef" + bookmark.epoch[16:])
    elif how == "another class":
        bookmark = replace(bookmark, position=bookmark.position ^ 1)
    client.resume(Claim(seen, bookmark, is_known=not how.startswith("another")))


@action(
    4,
    lambda draw: {
        "dialect": draw.choice(("json", "binary")),
        "stock": draw.choice((0, 0, 1, 2)),
        "data_type": draw.choice(("TRADES", "QUOTES", "TICKS", "DEPTH", "BARS")),
        "interval_ms": draw.choice(INTERVALS_MS),
    },
)
async def come_with_ibfast(world: FanoutWorld, **manner: Any) -> None:
    """A program subscribes by ibfast's own client, which comes back by itself."""
    if world.address is not None:
        token = token_of("full") if world.setup.has_tokens else ""
        world.ours.append(Ours(world, len(world.ours), OurManner(**manner), token))


@action(2, lambda draw: {"many": draw.choice((5, 15, 30)), "manner": _manner(draw)})
async def crowd(world: FanoutWorld, many: int, manner: dict[str, Any]) -> None:
    """Many connect at once, more than the server takes, and go."""
    clients = [_come(world, **manner) for _ in range(many)]

    async def script() -> None:
        await asyncio.sleep(0.3)
        for number, client in enumerate(clients):
            if client is not None:
                client.leave("reset" if number % 3 == 0 else "close")

    world.script(script())


# --- asking ---


@action(14, lambda draw: {**_who(draw), "subscriptions": [_options(draw) for _ in range(draw.choice((1, 1, 1, 2, 6)))]})
async def subscribe(world: FanoutWorld, which: int, subscriptions: list[dict[str, Any]]) -> None:
    """A client subscribes, perhaps to several things at once."""
    client = _client(world, which)
    if client is not None:
        for options in subscriptions:
            client.ask("subscribe", **options)


@action(3, lambda draw: {**_who(draw), "track": draw.randrange(6), "times": draw.choice((1, 2, 3))})
async def subscribe_twice(world: FanoutWorld, which: int, track: int, times: int) -> None:
    """A client subscribes to what it has."""
    client = _client(world, which)
    if client is not None and client.tracks:
        options = chosen(list(client.tracks.values()), track).options
        for _ in range(times):
            client.ask("subscribe", **{name: value for name, value in options.items() if name != "resume"})


@action(3, lambda draw: {"options": _options(draw)})
async def subscribe_all(world: FanoutWorld, options: dict[str, Any]) -> None:
    """All clients subscribe to the same thing at once."""
    for client in world.open_clients():
        client.ask("subscribe", **options)


@action(2, lambda draw: {**_who(draw), "options": _options(draw), "exchange": draw.choice(EXCHANGES)})
async def other_exchange(world: FanoutWorld, which: int, options: dict[str, Any], exchange: str) -> None:
    """A client wants a contract at one exchange, which others may have at another one."""
    client = _client(world, which)
    if client is not None and options["data_type"] not in ("GREEKS",):
        symbol = options.pop("symbol", STOCKS[0].symbol)
        options["contract"] = {"symbol": symbol, "sec_type": "STK", "exchange": exchange, "currency": "USD"}
        client.ask("subscribe", **options)


@action(8, lambda draw: {**_who(draw), "track": draw.randrange(6), "interval_ms": draw.choice(INTERVALS_MS)})
async def update(world: FanoutWorld, which: int, track: int, interval_ms: int) -> None:
    """A client wants another interval."""
    client = _client(world, which)
    if client is not None and client.tracks:
        subscription = chosen(list(client.tracks.values()), track).subscription
        client.ask("update", subscription=subscription, interval_ms=interval_ms)


@action(6, lambda draw: {**_who(draw), "track": draw.randrange(6), "again": draw.random() < 0.4})
async def unsubscribe(world: FanoutWorld, which: int, track: int, again: bool) -> None:
    """A client ends a subscription, and perhaps subscribes to the same at once."""
    client = _client(world, which)
    if client is not None and client.tracks:
        ended = chosen(list(client.tracks.values()), track)
        client.ask("unsubscribe", subscription=ended.subscription)
        if again:
            client.ask("subscribe", **{name: value for name, value in ended.options.items() if name != "resume"})


@action(4, lambda draw: {**_who(draw), "max_bytes_per_s": draw.choice((0, 500, 4000, 40_000))})
async def limit(world: FanoutWorld, which: int, max_bytes_per_s: int) -> None:
    """A client wants so many bytes a second at most."""
    client = _client(world, which)
    if client is not None:
        client.ask("limit", max_bytes_per_s=max_bytes_per_s)


@action(3, lambda draw: {**_who(draw), "op": draw.choice(("list", "ping")), "times": draw.choice((1, 1, 5))})
async def question(world: FanoutWorld, which: int, op: str, times: int) -> None:
    """A client asks for its subscriptions, or for a sign of life."""
    client = _client(world, which)
    if client is not None:
        for number in range(times):
            client.ask(op, **({"data": {"number": [number, None, "é"]}} if op == "ping" else {}))


@action(2, lambda draw: {**_who(draw), "what": draw.randrange(len(NONSENSE))})
async def talk_nonsense(world: FanoutWorld, which: int, what: int) -> None:
    """A client sends what is wrong, and gets an error."""
    client = _client(world, which)
    if client is not None:
        client.send_wrong(NONSENSE[what])


@action(1, lambda draw: {**_who(draw), "times": draw.choice((150, 400))})
async def hurry(world: FanoutWorld, which: int, times: int) -> None:
    """A client sends more messages in a second than it may: they wait, and are answered."""
    client = _client(world, which)
    if client is not None:
        client.may_hurry = True
        for _ in range(times):
            client.ask("ping", data=None)


@action(5, lambda draw: {**_who(draw), "for_s": draw.choice((0.2, 1.0, 2.5, 5.0))})
async def stop_reading(world: FanoutWorld, which: int, for_s: float) -> None:
    """A client reads nothing for a while."""
    client = _client(world, which)
    if client is None:
        return

    async def script() -> None:
        client.stop_reading()
        await asyncio.sleep(for_s)
        client.go_on()

    world.script(script())


@action(1)
async def look_at_pages(world: FanoutWorld) -> None:
    """Somebody looks at the pages, and a page of somebody else's tries to."""
    if world.address is not None:
        world.script(_pages(world, world.address))


async def _pages(world: FanoutWorld, address: tuple[str, int]) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/nothing"):
        with world.census.counted():
            await page(address, path)
    with world.census.counted():
        status, _ = await page(address, "/metrics", host="example.com")
    if status == OK:
        world.problem("pages", f"/metrics is shown to whoever says that the server is example.com: {status}")


# --- the server ---


@action(1, lambda draw: {"for_s": draw.choice((0.0, 0.0, 0.5))})
async def restart(world: FanoutWorld, for_s: float) -> None:
    """The server stops, as after SIGTERM, and another one serves the same feed."""

    async def script() -> None:
        await world.stop_server()
        await asyncio.sleep(for_s)
        await world.start_server()

    world.script(script())


@action(1)
async def revoke(world: FanoutWorld) -> None:
    """One of the tokens is revoked: its sessions end, and nobody gets in with it."""
    world.revoke()


@action(3, lambda draw: {"for_s": draw.choice((0.05, 0.2, 0.6))})
async def block_loop(world: FanoutWorld, for_s: float) -> None:
    """The event loop stands still."""
    for gateway in world.gateways:
        for connection in gateway.connections:
            connection.excuse()
    world.block(for_s)


@action(0, lambda draw: {"for_s": draw.choice((0.0, 0.5))})
async def kill(world: FanoutWorld, for_s: float) -> None:
    """The server's process is killed (-9), and started again; only where it is a process of its own."""

    async def script() -> None:
        await world.kill_server()
        await asyncio.sleep(for_s)
        await world.start_server()

    world.script(script())
