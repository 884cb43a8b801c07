"""A gateway for tests, its journal, and the least that speaks to it: asks, and keeps the frames that come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from types import TracebackType
from typing import Any

from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe
from ibfast.wire import request_bytes, requests

NS = 1_000_000_000
START_NS = 1_795_445_640 * NS
UNIVERSE = Universe.builtin(date(2026, 11, 23))
TIMEOUT_S = 60
LENGTH_BYTES = 4


class Journal:
    """What a gateway sent, and a way to wait for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, Any]] = []
        self._grown = asyncio.Event()

    def __call__(self, client_id: int, message: Any) -> None:
        self.messages.append((client_id, message))
        self._grown.set()

    def of(self, *kinds: type, client_id: int | None = None) -> list[Any]:
        return [m for sender, m in self.messages if isinstance(m, kinds) and client_id in (None, sender)]

    async def wait_for(self, is_there: Callable[[], Any]) -> Any:
        """Return what `is_there` returns as soon as that is true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (found := is_there()):
                self._grown.clear()
                await self._grown.wait()
        return found

    async def first(self, kind: type, **values: Any) -> Any:
        """Return the first message of a kind with these attributes."""

        def matches() -> list[Any]:
            return [m for m in self.of(kind) if all(getattr(m, name) == value for name, value in values.items())]

        return (await self.wait_for(matches))[0]


class Client:
    """A connection to a gateway. Reads in the background unless `reads` is False."""

    def __init__(self, gateway: Gateway, client_id: int = 1, *, max_version: int = 226, reads: bool = True) -> None:
        self.client_id = client_id
        self.server_version = 0
        self.frames: list[bytes] = []
        self._gateway = gateway
        self._max_version = max_version
        self._reads = reads

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(self._gateway.host, self._gateway.port)
        self.writer.write(request_bytes.hello(157, self._max_version))
        handshake = await self.read_frame()
        self.server_version = int(handshake.split(b"\0")[0])
        self.ask(requests.StartApi(self.client_id))
        self._reading = asyncio.create_task(self._read()) if self._reads else None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.close()
        if self._reading is not None:
            await self._reading

    def ask(self, request: requests.Request) -> None:
        self.send(request_bytes.encode(request, self.server_version))

    def send(self, payload: bytes) -> None:
        self.writer.write(request_bytes.frame(payload))

    async def read_frame(self) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            length = int.from_bytes(await self.reader.readexactly(LENGTH_BYTES), "big")
            return await self.reader.readexactly(length)

    async def closed(self) -> None:
        """Wait until the gateway has closed the connection."""
        assert self._reading is not None
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        try:
            while True:
                length = int.from_bytes(await self.reader.readexactly(LENGTH_BYTES), "big")
                self.frames.append(await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


def make(journal: Journal | None = None, *, speed: float = 10.0, rate: float = 2000, **options: Any) -> Gateway:
    market = Market(UNIVERSE, seed=2, rate=rate)
    return Gateway(market=market, clock=Clock(speed, START_NS), journal=journal, **({"pacing": False} | options))


def with_client(test: Callable[[Gateway, Client, Journal], Awaitable[None]], **options: Any) -> None:
    """Run a test with a gateway and one client of it."""

    async def main() -> None:
        journal = Journal()
        async with make(journal, **options) as gateway, Client(gateway) as client:
            await test(gateway, client, journal)

    asyncio.run(main())
