"""The kinds of hostile subscribers: what each of them does until it is cancelled.

The rule of the file: a kind costs its own process little, so that the processors are the server's and the honest
subscriber's: what is sent often is made once. What the server answers is read and thrown away, unless not to read it
is the point.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "Kind", "Target", "prepare"]

CONTINUATION, TEXT, PING, PONG = 0x0, 0x1, 0x9, 0xA
FIN, MASKED = 0x80, 0x80
NO_MASK = b"\0\0\0\0"
SHORT, MEDIUM = 126, 127
BURST_FRAMES = 40_000
FLOOD_NBYTES_PER_S = 2_000_000
READ_NBYTES = 1 << 16
PAUSE_S = 0.05
CROWD = 20
"""So many tokens the crowd has, each of a holder of its own."""


@dataclass(frozen=True)
class Target:
    """What a hostile subscriber knows of the server.

    Attributes:
        tokens: by name: "least" permits little of AAPL, "full" everything, "crowd-0" and so on everything, too,
            "watcher" all pages.
        symbols: of the market.
        kept: resume points of the crowd's, by symbol, from before the turn.
    """

    port: int
    tls_port: int
    tokens: dict[str, str]
    symbols: list[str]
    kept: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        summary: what it does.
        act: does it, until it is cancelled.
    """

    summary: str
    act: Callable[[Target], Awaitable[None]]


class Attacker:
    """One connection of a hostile subscriber, over a plain socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes when the server takes them."""
        self.writer.write(data)
        await self.writer.drain()

    async def ask(self, **request: Any) -> None:
        """Send a request."""
        await self.send(frame(TEXT, json.dumps(request).encode()))

    async def answers(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the control messages that come."""
        while True:
            head = await self._reader.readexactly(2)
            nbytes = head[1]
            if nbytes >= SHORT:
                width = struct.calcsize(">H" if nbytes == SHORT else ">Q")
                nbytes = int.from_bytes(await self._reader.readexactly(width))
            payload = await self._reader.readexactly(nbytes)
            if head[0] & 0xF == TEXT:
                yield json.loads(payload)

    async def discard(self) -> None:
        """Read everything and throw it away, until the server closes or breaks off."""
        with contextlib.suppress(OSError):
            while await self._reader.read(READ_NBYTES):
                pass


@contextlib.asynccontextmanager
async def attacker(target: Target, token: str, *, binary: bool = False) -> AsyncIterator[Attacker]:
    """Connect and shake hands as the holder of a token."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        dialect = "Sec-WebSocket-Protocol: ibfast.v1.binary\r\n" if binary else ""
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{dialect}"
            f"Authorization: Bearer {target.tokens[token]}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        yield Attacker(reader, writer)
    finally:
        writer.transport.abort()


def frame(opcode: int, payload: bytes = b"", *, is_last: bool = True) -> bytes:
    """Return a client's frame; its mask is zeros, so that the payload stays as it is."""
    head, nbytes = bytes([(FIN if is_last else 0) | opcode]), len(payload)
    if nbytes < SHORT:
        head += bytes([MASKED | nbytes])
    elif nbytes < 1 << 16:
        head += struct.pack(">BH", MASKED | SHORT, nbytes)
    else:
        head += struct.pack(">BQ", MASKED | MEDIUM, nbytes)
    return head + NO_MASK + payload


# --- frames ---


def _flood(opcode: int, payload: bytes = b"", *, is_last: bool = True) -> Callable[[Target], Awaitable[None]]:
    one = frame(opcode, payload, is_last=is_last)
    block = one * max(1, min(BURST_FRAMES, 240_000 // len(one)))

    async def act(target: Target) -> None:
        """Send the same frame as fast as the server reads, from one connection after another."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with attacker(target, "least") as own:
                    reading = asyncio.create_task(own.discard())
                    if opcode == CONTINUATION:
                        await own.send(frame(TEXT, b"", is_last=False))
                    while not reading.done():
                        await own.send(block)
                        await asyncio.sleep(len(block) / FLOOD_NBYTES_PER_S)
            await asyncio.sleep(PAUSE_S)

    return act


def _repeat(token: str, per_s: int, request: Callable[[int], dict[str, Any]]) -> Callable[[Target], Awaitable[None]]:
    async def act(target: Target) -> None:
        """Send requests at a rate, from one connection after another."""
        number = 0
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with attacker(target, token) as own:
                    reading = asyncio.create_task(own.discard())
                    while not reading.done():
                        for _ in range(round(per_s * PAUSE_S)):
                            number += 1
                            await own.ask(id=number, **request(number))
                        await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(PAUSE_S)

    return act


# --- requests ---


async def _list(target: Target) -> None:
    """Hold as many subscriptions as there may be, and list them again and again."""
    async with attacker(target, "full") as own:
        reading = asyncio.create_task(own.discard())
        for number in range(500):
            symbol, family = target.symbols[number % 20], ("QUOTES", "TRADES", "TICKS")[number % 3]
            await own.ask(op="subscribe", id=number, symbol=symbol, data_type=family, interval_ms=1000)
            await asyncio.sleep(1 / 400)
        while not reading.done():
            for number in range(20):
                await own.ask(op="list", id=number)
            await asyncio.sleep(PAUSE_S)
        await reading


async def _subscribe_all(target: Target) -> None:
    """Ask for as many subscriptions as there may be, and give them all up, again and again, from five connections."""

    async def come(number: int) -> None:
        async with attacker(target, f"crowd-{number}", binary=True) as own:
            reading = asyncio.create_task(own.discard())
            for own_number in range(1, 400):
                symbol = target.symbols[own_number % 20]
                await own.ask(op="subscribe", symbol=symbol, data_type="QUOTES", interval_ms=10)
            await asyncio.wait([reading], timeout=2.0)
            reading.cancel()

    while True:
        await asyncio.gather(*(come(number) for number in range(5)), return_exceptions=True)
        await asyncio.sleep(PAUSE_S)


async def _update(target: Target) -> None:
    """Have a hundred subscriptions change their interval, 400 times a second."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with attacker(target, "full", binary=True) as own:
                reading = asyncio.create_task(own.discard())
                for number in range(100):
                    symbol = target.symbols[number % 20]
                    await own.ask(op="subscribe", symbol=symbol, data_type="ALL", interval_ms=1000)
                for number in itertools.count():
                    if reading.done():
                        break
                    if not number % 20:
                        await asyncio.sleep(PAUSE_S)
                    interval_ms = (10, 50, 100, 250)[number // 100 % 4]
                    await own.ask(op="update", subscription=number % 100 + 1, interval_ms=interval_ms)
        await asyncio.sleep(PAUSE_S)


async def _questions(target: Target) -> None:
    """Ask for contracts that nobody knows, from many connections."""

    async def ask(first: int) -> None:
        async with attacker(target, "least") as own:
            reading = asyncio.create_task(own.discard())
            for number in range(first, first + 480):
                await own.ask(op="subscribe", id=number, contract={"con_id": number}, data_type="TRADES")
            await reading

    await asyncio.gather(*(ask(10**9 + 1000 * number) for number in range(24)), return_exceptions=True)
    await asyncio.Event().wait()


async def _every_line(target: Target) -> None:
    """Subscribe to more instruments than there are market-data lines."""
    async with attacker(target, "full") as own:
        reading = asyncio.create_task(own.discard())
        for number, symbol in enumerate(target.symbols[:240]):
            await own.ask(op="subscribe", id=number, symbol=symbol, data_type="QUOTES", interval_ms=1000)
            await asyncio.sleep(1 / 200)
        await reading


async def _turn_over(target: Target) -> None:
    """Subscribe and reset the connection, again and again."""
    number = 0
    while True:
        number += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with attacker(target, f"crowd-{number % CROWD}", binary=True) as own:
                for symbol in target.symbols[:10]:
                    await own.ask(op="subscribe", id=1, symbol=symbol, data_type="ALL", interval_ms=10)
                await own.ask(op="limit", id=2, max_bytes_per_s=1000)
                await asyncio.sleep(PAUSE_S)


async def _resume(target: Target) -> None:
    """Come back twenty at a time with twenty subscriptions each to resume, from as long ago as the rings know."""

    async def come_back(number: int) -> None:
        async with attacker(target, f"crowd-{number % CROWD}", binary=True) as own:
            for symbol, point in target.kept.items():
                await own.ask(op="subscribe", id=symbol, symbol=symbol, data_type="ALL", resume=point)
            open_ones = len(target.kept)
            async for answer in own.answers():
                open_ones -= answer["op"] in ("subscribed", "error")
                if not open_ones:
                    return

    while True:
        await asyncio.gather(*(come_back(number) for number in range(20)), return_exceptions=True)
        await asyncio.sleep(1.0)


async def _join(target: Target) -> None:
    """Connect a thousand times at once, each with a subscription, and stay."""

    async def come(number: int) -> None:
        async with attacker(target, f"crowd-{number % CROWD}", binary=True) as own:
            await own.ask(op="subscribe", id=1, symbol=target.symbols[number % 20], data_type="QUOTES")
            await own.discard()

    await asyncio.gather(*(come(number) for number in range(1000)), return_exceptions=True)
    await asyncio.Event().wait()


async def _deaf(target: Target) -> None:
    """Subscribe to everything at once from twenty connections, and read nothing."""

    async def stay(number: int) -> None:
        async with attacker(target, f"crowd-{number % CROWD}") as own:
            for symbol in target.symbols[:20]:
                await own.ask(op="subscribe", id=1, symbol=symbol, data_type="ALL", interval_ms=0)
            await asyncio.Event().wait()

    await asyncio.gather(*(stay(number) for number in range(20)), return_exceptions=True)


# --- connections ---


def _silent(port_of: Callable[[Target], int]) -> Callable[[Target], Awaitable[None]]:
    async def act(target: Target) -> None:
        """Connect again and again and send nothing."""
        sockets: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        try:
            while True:
                while len(sockets) < 3_000:
                    own = socket.socket()
                    own.setblocking(False)
                    sockets.append(own)
                    await loop.sock_connect(own, ("127.0.0.1", port_of(target)))
                    if not len(sockets) % 50:
                        await asyncio.sleep(PAUSE_S)
                await asyncio.sleep(PAUSE_S)
        finally:
            for own in sockets:
                own.close()

    return act


async def _agree(target: Target) -> None:
    """Agree on TLS and go, again and again, twenty at a time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def come() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", target.tls_port, ssl=context)
                writer.transport.abort()
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(come() for _ in range(20)))


async def _pages(target: Target) -> None:
    """Ask for a page again and again, each time over another connection, as one who may read all of them."""
    token = target.tokens["watcher"]
    while True:
        for path in ("healthz", "metrics", "stream", "nothing"):
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
                writer.write(
                    f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
                    f"Authorization: Bearer {token}\r\n\r\n".encode()
                )
                await reader.read(READ_NBYTES)
                writer.transport.abort()
        await asyncio.sleep(PAUSE_S / 10)


async def prepare(target: Target) -> dict[str, dict[str, Any]]:
    """Subscribe as the crowd does, and return the resume points of that time, by symbol."""
    kept: dict[str, dict[str, Any]] = {}
    symbols = target.symbols[:20]
    async with attacker(target, "crowd-0") as own:
        for symbol in symbols:
            await own.ask(op="subscribe", id=symbol, symbol=symbol, data_type="ALL")
        opened: dict[int, tuple[str, str]] = {}  # symbol and epoch by channel
        async for answer in own.answers():
            if answer["op"] == "subscribed":
                (channel,) = answer["channels"]
                opened[channel["channel"]] = answer["id"], channel["epoch"]
            elif answer["op"] == "snapshot":
                symbol, epoch = opened[answer["channel"]]
                kept.setdefault(symbol, {"epoch": epoch, "position": answer["position"]})
            if len(kept) == len(symbols):
                return kept
    return kept


NESTED = [[[]] * 3] * 3_000

KINDS = {
    "empty pings": Kind("2 MB/s of pings of 6 bytes, by the least token", _flood(PING)),
    "empty pongs": Kind("the same of pongs, for which nobody asked", _flood(PONG)),
    "empty fragments": Kind("a message of endless fragments without content", _flood(CONTINUATION, is_last=False)),
    "empty messages": Kind("the same of messages of two bytes, which are no requests", _flood(TEXT, b"{}")),
    "large messages": Kind("messages of 60 KB, which are no requests", _flood(TEXT, b"x" * 60_000)),
    "nested pings": Kind(
        "400 pings a second with 40 KB of nested arrays",
        _repeat("least", 400, lambda _: {"op": "ping", "data": NESTED}),
    ),
    "lists": Kind("400 lists a second of 500 subscriptions", _list),
    "snapshots": Kind(
        "400 states a second of one stock",
        _repeat("full", 400, lambda _: {"op": "subscribe", "symbol": "SYM000", "data_type": "ALL", "mode": "snapshot"}),
    ),
    "limits": Kind(
        "400 changes a second of the byte limit",
        _repeat("full", 400, lambda number: {"op": "limit", "max_bytes_per_s": number % 2 * 10**9}),
    ),
    "subscriptions": Kind("five clients with 400 subscriptions each, which come and go", _subscribe_all),
    "updates": Kind("400 changes a second of the intervals of 100 subscriptions", _update),
    "questions": Kind("11,520 questions for unknown contracts, of 24 connections", _questions),
    "every line": Kind("more subscriptions than there are market-data lines", _every_line),
    "resumes": Kind("20 clients that resume 20 subscriptions each, again and again", _resume),
    "joins": Kind("1,000 clients that come at once", _join),
    "turnover": Kind("a client that subscribes and resets the connection, 20 times a second", _turn_over),
    "deaf": Kind("20 clients of everything who read nothing", _deaf),
    "silent": Kind("3,000 connections that send nothing", _silent(lambda target: target.port)),
    "silent TLS": Kind("the same, where TLS is spoken", _silent(lambda target: target.tls_port)),
    "TLS": Kind("20 clients that agree on TLS and go, again and again", _agree),
    "pages": Kind("hundreds of pages a second, each over another connection", _pages),
}
"""All kinds, by name."""
