"""Rest: everything that was broken is well again, everybody has everything, and then all go and nothing is left.

The rule of the file: it waits with a limit, and says what has not come to pass. What it looks at inside of the server
is named in `left_by`, and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.fanout.truth import Generation
from ibfast.fanout.server import FanoutServer
from ibfast.policy.subscription import FLOWING, OVER, SubscriptionState
from ibfast.records import GapCause, Scope

if TYPE_CHECKING:
    from benchmarks.chaos.fanout.client import Client
    from benchmarks.chaos.fanout.tracks import Track
    from benchmarks.chaos.fanout.world import FanoutWorld

POLL_S = 0.05
ANSWER_S = 45.0
SETTLE_S = 10.0
DRAIN_S = 15.0
LEAVE_S = 8.0
SILENT_S = 4.0
STATES_S = 5.0
STATE_S = 2.0
"""So long a state is told wrongly before that is a problem: the source may just change it."""
GAPS_S = 5.0
"""A gap is told in the server's next round; one may have begun just now."""
SHOWN = 5
GAP_FIELDS = ("first_seq", "last_seq", "first_ns", "last_ns")
HTTP_S = 10.0
PAGES_S = 5.0
OK = 200


class Rest:
    """The rest of one world."""

    def __init__(self, world: FanoutWorld) -> None:
        self._world = world
        self._untrue_since: dict[str, float] = {}

    async def come(self) -> None:
        """Bring everything to rest, and look at it."""
        world = self._world
        for client in world.clients:
            client.go_on()
        for client in world.open_clients():
            client.ask("limit", max_bytes_per_s=0)
        await self._until(self._unanswered, ANSWER_S, "answer")
        await self._until(self._unsettled, SETTLE_S, "")
        world.market.close()
        await self._until(self._missing, DRAIN_S, "rest")
        await self._until(self._untrue_states, STATES_S, "")
        for text, since_s in self._untrue_since.items():
            if time.monotonic() - since_s > STATE_S:
                world.problem("rest", text)
        for client in world.open_clients():
            client.ask("list")
            client.ask("ping", data=client.number)
        await self._until(self._unanswered, DRAIN_S, "answer")
        await self._until(self._untold_gaps, GAPS_S, "gap")
        await self._look_at_pages()

    async def _until(self, against: Callable[[], Iterable[str]], within_s: float, kind: str) -> None:
        """Wait until nothing speaks against it; report what still does, if that is of a kind."""
        deadline_s = time.monotonic() + within_s
        while (texts := list(against())) and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
        for text in texts[:SHOWN] if kind else ():
            self._world.problem(kind, f"{text}, {within_s:.0f} s after everything was well again")

    def _unanswered(self) -> Iterator[str]:
        for client in self._world.open_clients():
            for asked in client.pending.values():
                yield f"{client.name}: {asked.op} is not answered: {asked.values}"
            if client.wrong:
                yield f"{client.name}: {client.wrong} wrong messages are not answered"

    def _unsettled(self) -> Iterator[str]:
        """Say which subscriptions at the gateway do not flow yet."""
        for generation in self._open():
            if generation.subscription.state not in FLOWING:
                yield str(generation.subscription.request)

    def _open(self) -> list[Generation]:
        self._world.truth.look()
        return [each for each in self._world.truth.generations if each.closed_seq is None]

    def _missing(self) -> Iterator[str]:
        """Say what subscribers do not have, or are told wrongly."""
        world = self._world
        world.truth.look()
        for client in world.open_clients():
            for track in client.tracks.values():
                if not world.truth.is_blind:
                    yield from (f"{client.name}: {text}" for text in track.at_rest(world.truth.seq))
            silent_s = time.monotonic() - client.heard_s
            if silent_s > SILENT_S + world.setup.heartbeat_s:
                yield f"{client.name}: nothing has come for {silent_s:.1f} s"
        if not world.truth.is_blind:
            for each in world.ours:
                yield from each.missing()
        for client in world.clients:
            is_brief = world.setup.has_tokens and client.manner.token.startswith("b")
            over_s = time.time() - min(world.expires_s, world.revoked_s)
            if is_brief and client.is_open and over_s > LEAVE_S:
                yield f"{client.name} converses {over_s:.1f} s after its token was over"

    def _untrue(self, track: Track) -> Iterator[str]:
        generation = track.generation
        state = generation.subscription.state
        if generation.closed_seq is not None or state in OVER:
            yield f"is open, and its subscription at the gateway is over ({state})"
            return
        shown = SubscriptionState.LIVE if state is SubscriptionState.QUIET else state
        if track.state != shown:
            yield f"was told {track.state!r}, and its subscription at the gateway is {shown}"

    def _untrue_states(self) -> Iterator[str]:
        """Say what is told wrongly of subscriptions at the gateway, and remember since when."""
        now_s = time.monotonic()
        texts = [
            f"{client.name}: {track.name} {text}"
            for client in self._world.open_clients()
            for track in client.tracks.values()
            for text in self._untrue(track)
        ]
        self._untrue_since = {text: self._untrue_since.get(text, now_s) for text in texts}
        yield from texts

    def _untold_gaps(self) -> Iterator[str]:
        """Say what is told wrongly of interruptions; the source may just be in one."""
        self._world.truth.look()
        for client in self._world.open_clients():
            yield from (f"{client.name}: {text}" for text in self._untold(client))

    def _untold(self, client: Client) -> Iterator[str]:
        """Say which interruptions of the source were not told, or never were."""
        for track in client.tracks.values():
            own = [gap for gap in self._world.truth.gaps if gap["req_id"] in track.generation.req_ids]
            true = [_gap_as_told(gap) for gap in own]
            told = [{name: gap[name] for name in (*GAP_FIELDS, "scope", "cause", "recovered")} for gap in track.gaps]
            for gap in told:
                if told.count(gap) > true.count(gap):
                    yield f"{track.name}: told {told.count(gap)} times, and it was {true.count(gap)} times: {gap}"
            for gap, row in zip(true, own, strict=True):
                if row["seq"] > track.told_seq and gap not in told:
                    yield f"{track.name}: a gap was not told: {gap}"

    # --- pages ---

    async def _look_at_pages(self) -> None:
        """Have the pages say what there is; somebody may still be on the way out."""
        deadline_s = time.monotonic() + PAGES_S
        while (found := [text async for text in self._untrue_pages()]) and time.monotonic() < deadline_s:
            await asyncio.sleep(PAGES_S / 10)
        for text in found:
            self._world.problem("pages", text)
        if found:
            self._note_who_is_there()

    def _note_who_is_there(self) -> None:
        """Have the story say who is connected, by the clients and by the server."""
        world = self._world
        ours = [f"{each.name}, connected: {each.is_connected}, {each.subscription!r}" for each in world.ours]
        for name in (*(client.name for client in world.open_clients()), *ours):
            world.note(f"there is {name}")
        for text in left_by(world.server) if world.server is not None else ():
            world.note(f"the server has {text}")

    async def _untrue_pages(self) -> AsyncIterator[str]:
        world = self._world
        is_coming = any(not each.task.done() and not each.is_subscribed for each in world.ours)
        if world.address is None or world.setup.has_tokens or is_coming:
            return
        clients = world.open_clients()
        subscribers = len(clients) + sum(each.is_connected for each in world.ours)
        subscriptions = sum(len(client.tracks) for client in clients) + sum(each.is_subscribed for each in world.ours)
        status, body = await page(world.address, "/healthz")
        if status != OK and self._flows():
            yield f"everything flows, and /healthz says {status}: {body[:300]!r}"
        expected = {"subscribers": subscribers, "subscriptions": subscriptions}
        if status == OK:
            told = json.loads(body)
            for name, value in expected.items():
                if told.get(name, value) != value:
                    yield f"/healthz says {told} where there are {value} {name}"
        status, body = await page(world.address, "/metrics")
        if status != OK:
            yield f"/metrics says {status}"
        values = metrics(body.decode())
        for name, value in (expected | {"behind": 0, "backlog_bytes": 0}).items():
            if values.get(name, value) != value:
                yield f"/metrics says {name} {values[name]} where there are {value}"
        for name, value in values.items():
            if value < 0:
                yield f"/metrics says {name} {value}"

    def _flows(self) -> bool:
        """Tell whether all data that is wanted flows."""
        states = {each.subscription.state for each in self._open()}
        is_flowing = states <= {SubscriptionState.LIVE, SubscriptionState.QUIET}
        return is_flowing and all(member.health().ok for member in self._world.user.members)

    # --- the end ---

    async def leave(self) -> None:
        """Have all clients go, and look for what is left of them."""
        await self._go()
        await self._until(self._left, LEAVE_S + self._world.setup.linger_s, "left")

    async def _go(self) -> None:
        world = self._world
        for number, client in enumerate(world.open_clients()):
            client.leave(("close", "reset", "half-close", "close")[number % 4])
        for client in world.clients:
            await client.ended()
        for each in world.ours:
            await each.leave()
            for problem in each.judged() if not world.truth.is_blind else ():
                world.problem(*problem)

    def _left(self) -> Iterator[str]:
        world = self._world
        if world.server is not None:
            yield from left_by(world.server)
        for generation in self._open():
            yield f"the server still holds {generation.subscription.request}"
        for gateway in world.gateways:
            for asked in gateway.live():
                yield f"live at the gateway: {asked.request}"


def left_by(server: FanoutServer) -> Iterator[str]:
    """Say what a server still holds when nobody is connected any more."""
    for connection in server.connections:
        session = connection.session
        subscriptions = [] if session is None else list(session.subscriber.subscriptions.values())
        asked = [(each.contract.symbol, each.request.data_type, each.request.ordered) for each in subscriptions]
        yield f"connection of {connection.remote_address}, {connection.protocol.state.name}, with {asked}"
    batcher, upstreams = server._hub.batcher, server._hub.upstreams
    places: dict[str, Any] = {
        "connections": server.connections,
        "writers": server._of_writer,
        "watched connections": server._watched,
        "sockets": server.broadcaster,
        "windows": batcher.windows,
        "lanes": batcher._lanes,
        "upstreams": upstreams._open,
        "upstreams that are over": upstreams._former,
        "pieces of work": server.turns,
    }
    for name, place in places.items():
        if len(place):
            yield f"{len(place)} {name}"
    if server._hub.questions.open:
        yield f"{server._hub.questions.open} questions to the gateway"
    if server._caps.open:
        yield f"{server._caps.open} counted connections"


def _gap_as_told(gap: dict[str, int]) -> dict[str, Any]:
    return {name: gap[name] for name in GAP_FIELDS} | {
        "scope": Scope(gap["scope"]).name, "cause": GapCause(gap["cause"]).name, "recovered": bool(gap["recovered"]),
    }  # fmt: skip


async def page(address: tuple[str, int], path: str, host: str = "") -> tuple[int, bytes]:
    """Return the status and the body of a page, asked for at the address or under another name; 0 if none came."""
    host = host or f"{address[0]}:{address[1]}"
    try:
        async with asyncio.timeout(HTTP_S):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1.1 (\d+)", head)
    return int(found[1]) if found else 0, body


def metrics(text: str) -> dict[str, float]:
    """Return the sums of the fan-out's metrics, over all labels."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^ibfast_fanout_(\w+?)(?:\{[^}]*\})? ([-+.\deE]+|NaN)$", text, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found
