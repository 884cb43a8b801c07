"""Hostile clients: whatever they send, in any mixture, others lose nothing and stay in order. On asyncio and uvloop.

The rule of the file: attackers are raw sockets, so that no library keeps them from anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast import Config
from ibfast.client.provider import WebSocketProvider
from ibfast.client.updates import LagTotals
from ibfast.fanout.messages import READERS
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_client import JsonClient, client_of, rows_of, serving
from tests.support.fanout_desk import Desk
from tests.support.loops import LOOPS, WATCHDOG_S, errors_logged, until

HANDSHAKE = (
    "GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, MASKED = 0x80, 0x40, 0x80
LAST = '{"op":"ping","id":"the last"}'
ENOUGH = re.compile(rb'"the last"|"op":"closing"')
LONGEST = 14
LOOKED_AFTER = {"heartbeat_s": 0.2, "stalled_s": 0.5, "ping_s": 60.0}
"""A test waits for signs of life, and for the end of who takes nothing; pings would end it, too, but later."""


def frame(
    payload: bytes, opcode: int = TEXT, *, first: int = FIN, is_masked: bool = True, length: int | None = None
) -> bytes:
    """A frame as a client sends it, or as none should: with other bits, unmasked, or of another length than it says."""
    told = len(payload) if length is None else length
    mask = MASKED if is_masked else 0
    if told < 126:
        head = bytes((first | opcode, mask | told))
    elif told < 1 << 16:
        head = bytes((first | opcode, mask | 126)) + told.to_bytes(2, "big")
    else:
        head = bytes((first | opcode, mask | 127)) + told.to_bytes(8, "big")
    return head + (bytes(4) if is_masked else b"") + payload


def said(**values: Any) -> bytes:
    return frame(json.dumps(values).encode("utf-8", "surrogatepass"))


def fragments(parts: Sequence[bytes], opcode: int = TEXT, *, ends: bool = True) -> bytes:
    """A message in fragments, whose end may never come."""
    last = len(parts) - 1
    return b"".join(
        frame(part, CONTINUATION if number else opcode, first=FIN if ends and number == last else 0)
        for number, part in enumerate(parts)
    )


def bomb(nbytes: int) -> bytes:
    """A small deflated message that would be a large one."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(nbytes >> 20))
    return frame((small + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], first=FIN | RSV1)


@dataclass(frozen=True)
class Attack:
    """What one attacker does.

    Attributes:
        sent: bytes, one write after the other; of a handshake that succeeds if `is_welcome`.
        is_welcome: whether it speaks the protocol at first.
        headers: further ones of its handshake.
        ending: "last": asks one more thing and waits for the answer or the end; "eof": says that nothing follows, and
            waits for the end; "abort": is gone at once.
        is_deaf: whether it takes nothing of what it is sent, until the server has had enough.
    """

    sent: tuple[bytes, ...]
    is_welcome: bool = True
    headers: str = ""
    ending: str = "last"
    is_deaf: bool = False


async def attack(server: FanoutServer, plan: Attack) -> None:
    sock = socket.socket()
    if plan.is_deaf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.address)
    reader, writer = await asyncio.open_connection(sock=sock)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        if plan.is_welcome:
            writer.write(f"{HANDSHAKE}{plan.headers}\r\n".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101")
        if plan.is_deaf:
            writer.transport.pause_reading()
        for data in plan.sent:
            writer.write(data)
            await asyncio.sleep(0)
        if plan.ending == "last":
            writer.write(frame(LAST.encode()))
        elif plan.ending == "eof":
            writer.write_eof()
        if plan.is_deaf and plan.ending != "abort":
            address = sock.getsockname()
            await until(lambda: all(each.remote_address != address for each in server.connections))
            writer.transport.resume_reading()
        heard = b""
        while plan.ending != "abort" and not ENOUGH.search(heard):
            heard = heard[-LONGEST:] + (data := await reader.read(1 << 16))
            if not data:
                break
    if plan.ending == "abort":
        writer.transport.abort()
    else:
        writer.close()


class Good:
    """Who reads while others attack: one subscriber by JSON, one by the binary dialect."""

    def __init__(self, desk: Desk, by_json: JsonClient, provider: WebSocketProvider) -> None:
        self.desk, self.by_json, self.provider = desk, by_json, provider
        self.sent: list[float] = []
        self.seen: list[list[float]] = [[], []]

    def trade(self) -> None:
        self.sent.append(len(self.sent) + 1.0)
        self.desk.trade("AAPL", self.sent[-1])

    async def trade_on(self) -> None:
        while True:
            self.trade()
            await asyncio.sleep(0.001)

    async def read_json(self) -> None:
        while True:
            self.seen[0] += [row["price"] for row in rows_of(await self.by_json.hear(), "trades")]

    async def read_binary(self) -> None:
        async for update in self.provider.updates():
            self.seen[1].append(update.price)

    def has_everything(self) -> None:
        assert self.seen == [self.sent, self.sent]
        assert not [message for message in self.by_json.heard if message["op"] in ("lag", "slowed", "closing")]
        assert self.provider.lag == LagTotals()


async def survive(plans: Sequence[Attack]) -> None:
    async with (
        asyncio.timeout(WATCHDOG_S),
        serving(linger_s=0, capacity=1 << 16, **LOOKED_AFTER) as (server, desk),
        client_of(server) as by_json,
        WebSocketProvider(Config(stream_url="ws://{}:{}".format(*server.address))) as provider,
    ):
        await by_json.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
        await by_json.until("snapshot")
        await provider.subscribe("AAPL", data_type="TRADES", interval_ms=10)
        good = Good(desk, by_json, provider)
        doing = [asyncio.create_task(each) for each in (good.trade_on(), good.read_json(), good.read_binary())]
        try:
            await asyncio.gather(*(attack(server, plan) for plan in plans))
            doing.pop(0).cancel()
            good.trade()
            await until(lambda: [seen[-1:] for seen in good.seen] == [good.sent[-1:]] * 2)
        finally:
            for each in doing:
                each.cancel()
            await asyncio.gather(*doing, return_exceptions=True)
        good.has_everything()
        assert (await by_json.ask("ping"))["op"] == "pong"
        await until(lambda: len(server.connections) == 2)
        await by_json.until("heartbeat")  # it is still looked after


def check(loop: str, plans: Sequence[Attack]) -> None:
    with errors_logged() as errors, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(survive(plans))
    assert errors == []


# --- one kind at a time ---

SUBSCRIBE = {"op": "subscribe", "symbol": "AAPL", "data_type": "TRADES"}
TALK = said(op="ping", data="x" * 1000) * 360
"""Its answers are more than the sockets' buffers hold, and it is not more than the server reads ahead."""
ATTACKS: dict[str, Attack] = {
    "silence": Attack((), is_welcome=False, ending="eof"),
    "half a handshake": Attack((HANDSHAKE[:90].encode(),), is_welcome=False, ending="eof"),
    "a handshake in single bytes": Attack(
        tuple(bytes((byte,)) for byte in f"{HANDSHAKE}\r\n".encode()), is_welcome=False, ending="eof"
    ),
    "no HTTP": Attack((b"\x16\x03\x01\x02\x00" * 99,), is_welcome=False, ending="eof"),
    "headers without end": Attack(
        (HANDSHAKE.encode(), *(b"X: " + b"x" * 4000 + b"\r\n",) * 99), is_welcome=False, ending="eof"
    ),
    "other subprotocols": Attack((said(**SUBSCRIBE),), headers="Sec-WebSocket-Protocol: ibfast.v9.morse, soap\r\n"),
    "a token that nobody asks for": Attack((), headers="Sec-WebSocket-Protocol: ibfast.v1.binary, ibfast.token.x\r\n"),
    "no UTF-8": Attack((frame(b'{"op":"\xff\xfe"}'),), ending="eof"),
    "lone surrogates": Attack((frame(rb'{"op":"ping","data":"\ud800"}'), frame(b'"\xed\xa0\x80"')), ending="eof"),
    "binary messages": Attack((frame(bytes(range(256)), BINARY),) * 9),
    "deep lists": Attack((frame(b"[" * 60_000), frame(b'{"op":"ping","data":' + b"[" * 500 + b"]" * 500 + b"}"))),
    "deep objects": Attack((frame(b'{"op":' * 9000), said(op="subscribe", contract={"symbol": {"a": [{}]}}))),
    "huge numbers": Attack(
        tuple(
            frame(f'{{"op":"{op}","id":1,"{name}":{number}}}'.encode())
            for number in ("9" * 5000, "-1", "1e999", "-1e999", "1.5", str(1 << 64), "NaN", "-Infinity", "true")
            for op, name in (("update", "subscription"), ("limit", "max_bytes_per_s"), ("unsubscribe", "subscription"))
        )
    ),
    "unknown numbers": Attack(
        tuple(said(op=op, id=number, subscription=number) for op in ("update", "unsubscribe") for number in range(99))
    ),
    "oversized": Attack((frame(b"x" * 100_000),), ending="eof"),
    "oversized by its word": Attack((frame(b"x", length=1 << 62),), ending="eof"),
    "oversized in fragments": Attack((fragments([b"x" * 1000] * 100),), ending="eof"),
    "empty fragments": Attack((fragments([b""] * 60_000),)),  # far more than the server keeps of what comes too fast
    "fragments without end": Attack((fragments([b"{"] * 1000, ends=False),), ending="eof"),
    "a message amid fragments": Attack((fragments([b"{"] * 3, ends=False), frame(b"{}")), ending="eof"),
    "a frame of reserved kind": Attack((frame(b"", 11),), ending="eof"),
    "a long ping": Attack((frame(b"x" * 126, PING),), ending="eof"),
    "pongs that nobody asked for": Attack((frame(b"x", PONG) * 999,)),
    "a close of one byte": Attack((frame(b"x", CLOSE),), ending="eof"),
    "talk after the close": Attack((frame(b"\x03\xe8", CLOSE), said(**SUBSCRIBE) * 9), ending="eof"),
    "unmasked": Attack((frame(b"{}", is_masked=False),), ending="eof"),
    "deflated without an agreement": Attack((bomb(1 << 20),), ending="eof"),
    "a bomb": Attack((bomb(100 << 20),), headers=DEFLATE, ending="eof"),
    "what deflates to nothing": Attack((frame(b"\xff" * 50, first=FIN | RSV1),), headers=DEFLATE, ending="eof"),
    "a flood": Attack((said(op="ping") * 3000,)),
    "a flood of subscriptions": Attack((said(**SUBSCRIBE) * 700,), ending="eof"),
    "a flood of pings": Attack((frame(b"x" * 100, PING) * 12_000,)),  # the same
    "a flood of changes": Attack(
        (said(**SUBSCRIBE), *(said(op="update", subscription=1, interval_ms=n) for n in (0, 10, 1000) * 66))
    ),
    "deaf": Attack((said(**SUBSCRIBE), TALK), is_deaf=True),
    "deaf and at its end": Attack((said(**SUBSCRIBE), TALK), ending="eof", is_deaf=True),
    "deaf and gone": Attack((said(**SUBSCRIBE), TALK), ending="abort", is_deaf=True),
    "deaf after its close": Attack((said(**SUBSCRIBE), TALK, frame(b"\x03\xe8", CLOSE)), is_deaf=True),
    "gone in the midst": Attack((said(**SUBSCRIBE) * 50, frame(b"{}")[:3]), ending="abort"),
}  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("plan", [pytest.param(plan, id=name) for name, plan in ATTACKS.items()])
def test_nobody_else_notices(loop: str, plan: Attack) -> None:
    check(loop, [plan] * 3)


# --- all at once ---

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=9), children, max_size=4),
    max_leaves=9,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(0, 5),
    "symbol": st.sampled_from(["AAPL", "MSFT", "NOSUCH", ""]),
    "contract": st.fixed_dictionaries({}, optional={"con_id": st.integers(-1, 9), "symbol": st.just("AAPL")}),
    "data_type": st.sampled_from(["TRADES", "QUOTES", "TICKS", "ALL", "GREEKS", "WEATHER"]),
    "mode": st.sampled_from(["stream", "conflate", "snapshot", ""]),
    "interval_ms": st.sampled_from([0, 10, 50, 1000, 7]),
    "fields": st.lists(st.sampled_from(["price", "bid", "moon"]), max_size=3),
    "times": st.sampled_from(["us", "ns", "s"]),
    "ordered": st.booleans(),
    "on_slow": st.sampled_from(["conflate", "close", "wait"]),
    "resume": st.fixed_dictionaries({"epoch": st.text(max_size=3), "position": st.integers(-1, 1 << 63)}),
    "subscription": st.integers(-1, 5),
    "max_bytes_per_s": st.integers(-1, 1 << 41),
    "data": ANYTHING,
}
REQUESTS = st.builds(
    lambda op, fields, extra: said(op=op, **fields, **extra),
    st.sampled_from([*READERS, "fly"]),
    st.fixed_dictionaries({}, optional={name: known | ANYTHING for name, known in FIELDS.items()}),
    st.dictionaries(st.text(max_size=9).filter(lambda name: name != "op" and name not in FIELDS), ANYTHING, max_size=1),
)  # fmt: skip
FRAMES = st.builds(
    frame,
    st.binary(max_size=300),
    st.integers(0, 15),
    first=st.sampled_from([FIN, 0, FIN | RSV1, 0x70]),
    is_masked=st.booleans(),
    length=st.none() | st.integers(0, 1 << 20),
)
TEXTS = st.text(max_size=50).map(str.encode) | st.binary(max_size=50)
MESSAGES = REQUESTS | TEXTS.map(frame) | st.lists(TEXTS, min_size=1, max_size=5).map(fragments)
ENDINGS = st.sampled_from(["eof", "abort"])
PLANS = st.one_of(
    st.builds(Attack, st.lists(MESSAGES, max_size=30).map(tuple), headers=st.sampled_from(["", DEFLATE])),
    st.builds(Attack, st.lists(REQUESTS, max_size=30).map(tuple)),
    st.builds(Attack, st.lists(REQUESTS | st.just(TALK), max_size=9).map(tuple), ending=ENDINGS, is_deaf=st.just(True)),
    st.builds(Attack, st.lists(FRAMES | MESSAGES | st.binary(), max_size=9).map(tuple), ending=ENDINGS),
    st.builds(
        Attack, st.lists(st.binary() | st.just(HANDSHAKE.encode()), max_size=3).map(tuple),
        is_welcome=st.just(False), ending=ENDINGS,
    ),
    st.sampled_from(list(ATTACKS.values())),
)  # fmt: skip


@settings(max_examples=30)
@given(st.sampled_from(list(LOOPS)), st.lists(PLANS, min_size=1, max_size=8))
def test_no_mixture_of_attacks_costs_others_a_row(loop: str, plans: list[Attack]) -> None:
    check(loop, plans)
