"""A client of the fan-out's JSON dialect, and servers for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from ibfast.codec.positions import CLASSES
from ibfast.config import FanoutConfig
from ibfast.config.security import SecurityConfig
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import StaticToken, Tokens, digest_of
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_desk import Desk


class JsonClient:
    """Says and hears JSON.

    Attributes:
        heard: everything, in order.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []
        self._asked = 0

    @property
    def welcome(self) -> dict[str, Any]:
        return self.heard[0]

    async def say(self, op: str, **values: Any) -> None:
        await self.socket.send(orjson.dumps({"op": op, **values}).decode())

    async def hear(self) -> dict[str, Any]:
        """Return the next message."""
        message: dict[str, Any] = orjson.loads(await self.socket.recv())
        self.heard.append(message)
        return message

    async def until(self, *ops: str) -> dict[str, Any]:
        """Hear until a message of one of these operations comes."""
        while (message := await self.hear())["op"] not in ops:
            pass
        return message

    async def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """Say something, and hear until its answer comes."""
        self._asked += 1
        await self.say(op, id=self._asked, **values)
        while (message := await self.hear()).get("id") != self._asked:
            pass
        return message

    def seen(self, channel: int = 0) -> dict[str, Any]:
        """Return what a client names that goes on with a channel."""
        described: dict[str, Any] = {}
        position = -1
        for message in self.heard:
            described = next((one for one in message.get("channels", ()) if one["channel"] == channel), described)
            positions = message.get("positions", [])
            if message["op"] == "data" or (message["op"] == "snapshot" and message["channel"] == channel):
                positions = [message["position"]]
            position = max([position, *(one for one in positions if one % CLASSES == described.get("class"))])
        return {"epoch": described["epoch"], "position": position}

    async def news(self, family: str, rows: int) -> list[dict[str, Any]]:
        """Hear until so many rows have come, and return them."""
        found: list[dict[str, Any]] = []
        while len(found) < rows:
            found += rows_of(await self.hear(), family)
        return found


def rows_of(message: dict[str, Any], family: str) -> list[dict[str, Any]]:
    """The rows of news in a message."""
    pieces = message["pieces"] if message["op"] == "data" else ()
    return [row for piece in pieces if piece["family"] == family for row in piece["rows"]]


@contextlib.asynccontextmanager
async def client_of(server: FanoutServer, **options: Any) -> AsyncIterator[JsonClient]:
    """A client that was welcomed."""
    host, port = server.address
    async with connect(f"ws://{host}:{port}/stream", **({"compression": None} | options)) as socket:
        client = JsonClient(socket)
        await client.hear()
        yield client


TOKEN = "t" * 40
BEARER = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
"""What a client of a server with `token_of` says."""


def token_of(expires_s: float | None = None, **permissions: Any) -> Tokens:
    """The one token that a server wants, and what it permits."""
    permitted = Permissions(**({"symbols": ("*",)} | permissions))
    known = (StaticToken("analyst", digest_of(TOKEN), permitted, expires_s),)
    return Tokens(known, max_subscriptions=500, max_new_instruments=1000)


@contextlib.asynccontextmanager
async def serving(
    security: dict[str, Any] | None = None, tokens: Tokens | None = None, **config: Any
) -> AsyncIterator[tuple[FanoutServer, Desk]]:
    """A server of a desk's data; `capacity` and `feed` are options of the desk's feed."""
    desk = Desk(config.pop("capacity", 1 << 12), **config.pop("feed", {}))
    settings = FanoutConfig(**({"port": 0} | config))
    async with FanoutServer(desk.feed, desk, settings, SecurityConfig(**(security or {})), tokens=tokens) as server:
        yield server, desk
