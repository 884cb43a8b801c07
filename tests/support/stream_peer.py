"""A stream server on a real socket that does what a script says, misbehaviour included.

The rule of the file: a script is a coroutine that is given a `Visitor`, one client's connection; the n-th client gets
the n-th script, and all that follow get the last one. What goes wrong in a script fails the test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ibfast.codec.positions import position_of
from ibfast.fanout.encoding.channels import interval_class

EPOCH = "9f2c51d07a3e4b18-1-2-2-0"
CON_ID = 265598


def at(seq: int, interval_ms: int = 10) -> int:
    """The position of an interval's class at a sequence number; times are in microseconds."""
    return position_of(seq, interval_class(interval_ms, "us"))


def channel_of(number: int = 0, symbol: str = "AAPL", interval_ms: int = 10, **more: Any) -> dict[str, Any]:
    """A channel as a server describes it."""
    return {
        "channel": number, "epoch": EPOCH, "symbol": symbol, "con_id": CON_ID, "exchange": "SMART", "instrument": 3,
        "families": ["quotes", "trades"], "class": interval_class(interval_ms, "us"),
        "span_ns": interval_ms * 1_000_000, "unit_ns": 1000, "ordered": False, "conflated": False,
        "grids": {"price": [1, 2], "size": [1, 0], "trade_size": [1, 0]}, **more,
    }  # fmt: skip


def trade(price: float = 231.05, **more: Any) -> dict[str, Any]:
    """A row of trades in JSON."""
    return {"time_ns": 1_770_000_000_000_123_000, "price": price, "size": 100.0, "kind": "L1_LAST", **more}


def piece(family: str, *rows: dict[str, Any], channel: int = 0, symbol: str = "AAPL") -> dict[str, Any]:
    """Rows of a channel in JSON."""
    name = {"channel": channel, "symbol": symbol, "con_id": CON_ID, "exchange": "SMART"}
    return {**name, "family": family, "rows": list(rows)}


class Visitor:
    """A client's connection, seen from the server."""

    def __init__(self, socket: ServerConnection, headers: dict[str, str]) -> None:
        self.socket = socket
        self.headers = headers

    async def say(self, op: str, **values: Any) -> None:
        """Send a control message."""
        await self.socket.send(json.dumps({"op": op, **values}))

    async def welcome(self, heartbeat_s: float = 10.0) -> None:
        """Speak first."""
        await self.say("welcome", protocol=1, server="peer", heartbeat_s=heartbeat_s)

    async def request(self, op: str) -> dict[str, Any]:
        """Read the next message, which must be of that operation."""
        said: dict[str, Any] = json.loads(await self.socket.recv())
        assert said["op"] == op, said
        return said

    async def take(self, *channels: dict[str, Any], number: int = 1, **more: Any) -> dict[str, Any]:
        """Take the next subscription; return what was asked for."""
        request = await self.request("subscribe")
        described = list(channels) or [channel_of(number - 1, request.get("symbol", "AAPL"))]
        await self.say("subscribed", id=request["id"], subscription=number, channels=described, **more)
        return request

    async def data(self, seq: int, *pieces: dict[str, Any], interval_ms: int = 10) -> None:
        """Send a window."""
        await self.say("data", position=at(seq, interval_ms), pieces=list(pieces))

    async def trades(self, seq: int, *prices: float) -> None:
        """Send a window with trades of AAPL."""
        await self.data(seq, piece("trades", *map(trade, prices)))

    def cut(self) -> None:
        """Break the connection off."""
        self.socket.transport.abort()

    async def gone(self) -> None:
        """Wait until the client is gone."""
        try:
            while True:
                await self.socket.recv()
        except ConnectionClosed:
            pass


Script = Callable[[Visitor], Awaitable[object]]


class StreamPeer:
    """Listens, and plays the scripts. Use it as an async context manager; `url` is known inside.

    Args:
        scripts: what is done with each client.
        statuses: with what the first handshakes are refused, before any script.
        subprotocol: which is agreed on, None: none.
    """

    def __init__(
        self, *scripts: Script, statuses: Sequence[int] = (), subprotocol: str | None = "ibfast.v1.json"
    ) -> None:
        self.visitors: list[Visitor] = []
        self.refused: list[dict[str, str]] = []
        self._scripts = scripts
        self._statuses = list(statuses)
        self._subprotocol = subprotocol
        self._outcomes: list[BaseException] = []

    async def __aenter__(self) -> StreamPeer:
        self._server = await serve(
            self._play,
            "127.0.0.1",
            0,
            process_request=self._admit,
            select_subprotocol=lambda *_: self._subprotocol,  # type: ignore[arg-type, return-value]
            compression=None,
        )
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/stream"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()
        if exc_type is None:
            for outcome in self._outcomes:
                raise outcome

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if not self._statuses:
            return None
        self.refused.append(dict(request.headers.raw_items()))
        response = connection.respond(HTTPStatus(self._statuses.pop(0)), "no\n")
        response.headers["Location"] = "ws://127.0.0.1:9/elsewhere"
        return response

    async def _play(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        visitor = Visitor(socket, dict(socket.request.headers.raw_items()))
        script = self._scripts[min(len(self.visitors), len(self._scripts) - 1)]
        self.visitors.append(visitor)
        try:
            await script(visitor)
        except (ConnectionClosed, asyncio.CancelledError):
            pass
        except Exception as error:  # the script's own: it fails the test
            self._outcomes.append(error)
