"""The honest subscriber's process: it reads quotes, sends pings, subscribes now and then, and times all of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.hostile.report import Times
from benchmarks.soak import child
from benchmarks.soak.latency import Latencies

PING_S, SUBSCRIBE_S = 0.05, 1.0
INTERVAL_MS = 10
NS_PER_MS = 10**6


class Honest:
    """One connection, and the times of a turn.

    Args:
        socket: a connection whose first subscriptions were granted.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._asked: dict[int, int] = {}
        self.begin()

    def begin(self) -> None:
        """Begin a turn: forget the times of the one before."""
        now_ns = time.monotonic_ns()
        self._gap_ns = self._answer_ns = self._subscribe_ns = 0
        self._last_ns = now_ns
        self._asked = dict.fromkeys(self._asked, now_ns)  # what is open counts from here on
        self._delays = Latencies()
        self._refused: list[str] = []

    def end(self) -> dict[str, Any]:
        """End a turn: return its times, in which what is still open counts so far."""
        now_ns = time.monotonic_ns()
        self._gap_ns = max(self._gap_ns, now_ns - self._last_ns)
        for number, asked_ns in self._asked.items():
            self._answered(number, now_ns - asked_ns)
        return asdict(
            Times(
                self._gap_ns / NS_PER_MS, self._delays.percentile_us(99) / 1000, self._answer_ns / NS_PER_MS,
                self._subscribe_ns / NS_PER_MS, self._refused,
            )
        )  # fmt: skip

    async def read(self) -> None:
        """Read until the server closes the connection."""
        async for text in self._socket:
            self._receive(orjson.loads(text))
        self._refused.append(f"closed: {self._socket.close_code} {self._socket.close_reason}")

    def _receive(self, message: dict[str, Any]) -> None:
        now_ns, op = time.monotonic_ns(), message["op"]
        if op == "data":
            self._gap_ns, self._last_ns = max(self._gap_ns, now_ns - self._last_ns), now_ns
            last_ns = max(row["time_ns"] for piece in message["pieces"] for row in piece["rows"])
            self._delays.add(np.array([time.time_ns() - last_ns]))
        elif op in ("pong", "subscribed", "error"):
            self._answered(message["id"], now_ns - self._asked.pop(message["id"]))
        if op in ("error", "lag", "closing"):
            self._refused.append(f"{op}: {message.get('message') or message.get('reason')}")

    def _answered(self, number: int, spent_ns: int) -> None:
        if number % 2:
            self._answer_ns = max(self._answer_ns, spent_ns)
        else:
            self._subscribe_ns = max(self._subscribe_ns, spent_ns)

    async def ping(self) -> None:
        """Send a ping every so often. Pings have odd numbers."""
        for number in itertools.count(1, 2):
            await self._ask(number, op="ping")
            await asyncio.sleep(PING_S)

    async def subscribe(self, symbols: Iterable[str]) -> None:
        """Ask for the state of one stock after another. Subscriptions have even numbers."""
        for number, symbol in zip(itertools.count(2, 2), symbols, strict=False):
            await self._ask(number, op="subscribe", symbol=symbol, mode="snapshot")
            await asyncio.sleep(SUBSCRIBE_S)

    async def _ask(self, number: int, **request: Any) -> None:
        self._asked[number] = time.monotonic_ns()
        await self._socket.send(json.dumps({"id": number, **request}))


async def main(port: int, token: str, symbols: list[str], others: list[str]) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(f"ws://127.0.0.1:{port}/stream", additional_headers=headers, compression=None) as socket:
        await socket.recv()  # welcome
        for number, symbol in enumerate(symbols):
            request = {"op": "subscribe", "id": f"first {number}", "symbol": symbol, "interval_ms": INTERVAL_MS}
            await socket.send(json.dumps(request))
        granted = 0
        while granted < len(symbols):
            granted += json.loads(await socket.recv())["op"] == "subscribed"
        honest = Honest(socket)
        tasks = [honest.read(), honest.ping(), honest.subscribe(itertools.cycle(others))]
        running = [asyncio.create_task(task) for task in tasks]
        try:
            await child.serve({"begin": honest.begin, "end": honest.end})
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(**child.settings()))
