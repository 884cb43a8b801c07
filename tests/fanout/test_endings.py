"""What follows the end of a session or of a subscription: nothing, whatever happens at the gateway meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from ibfast.errors import RequestError
from ibfast.policy.subscription import SubscriptionState
from ibfast.records import GapCause, Scope
from tests.fanout.test_hostile import HANDSHAKE, frame
from tests.support.fanout_client import TOKEN, client_of, serving, token_of
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, until

CLOSE_FRAME = 0x88


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, in whatever way."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            heard += data
    return heard


def happen(desk: Desk, n: int) -> None:
    """Have all happen of which a subscriber of AAPL is told."""
    line = desk.subscription("AAPL")
    desk.trade("AAPL", float(n))
    line.state = (SubscriptionState.STALE, SubscriptionState.LIVE)[n % 2]
    desk.feed.add_gap(n + 1, Scope.LINK, GapCause.LINK_LOST, instrument=0, req_id=line.req_id)


@pytest.mark.parametrize("waits_in", ["wanted", "subscribe"])
def test_nothing_follows_closing_and_nothing_is_opened(run: Run, waits_in: str) -> None:
    """The client does not answer the server's close, so that its connection stays for the time that it may."""

    async def test() -> None:
        tokens = token_of(expires_s=time.time() + 1)
        async with serving(tokens=tokens, heartbeat_s=0.05, linger_s=0) as (server, desk):
            other = await desk.subscribe("AAPL", "TRADES")
            gate, wanted = asyncio.Event(), desk.wanted

            async def late(contract: object, data_type: str, **options: Any) -> Any:
                answer = await wanted(contract, data_type)
                if answer[0].symbol == "MSFT":
                    await gate.wait()
                return answer

            if waits_in == "wanted":
                desk.wanted = late  # type: ignore[method-assign]
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(f"{HANDSHAKE}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
            writer.write(frame(b'{"op":"subscribe","symbol":"AAPL","data_type":"TRADES","interval_ms":0}'))
            await reader.readuntil(b'"op":"state"')
            if waits_in == "subscribe":
                desk.answer.clear()
            for mode in (b"stream", b"snapshot"):
                writer.write(frame(b'{"op":"subscribe","symbol":"MSFT","data_type":"TRADES","mode":"%s"}' % mode))
            writer.write(frame(b'{"op":"ping","id":"asked"}'))
            await reader.readuntil(b'"op":"pong"')
            await reader.readuntil(b'"op":"closing"')
            asked = list(desk.asked)
            rest = asyncio.create_task(to_the_end(reader))
            gate.set()
            desk.answer.set()
            for n in range(20):
                writer.write(frame(b'{"op":"subscribe","symbol":"NVDA"}'))
                writer.write(frame(b'{"op":"ping"}'))
                happen(desk, n)
                await asyncio.sleep(0.02)
            assert desk.asked == asked
            assert {request.contract.symbol for request in desk.lines} == {"AAPL"}
            assert server.present().subscriptions == 0
            said = (await rest).partition(b"}")[2]
            assert said[0] == CLOSE_FRAME
            assert len(said) == 2 + said[1]
            writer.close()
            other.unsubscribe()

    run(test())


@pytest.mark.parametrize("how", ["unsubscribed", "ended", "done"])
@pytest.mark.parametrize("interval_ms", [0, 50])
def test_nothing_follows_the_end_of_a_subscription_but_what_is_of_others(run: Run, how: str, interval_ms: int) -> None:
    async def test() -> None:
        async with (
            serving(linger_s=0) as (server, desk),
            client_of(server) as client,
            client_of(server, max_queue=None) as other,
        ):
            mode = "snapshot" if how == "done" else "stream"
            for each in (client, other):
                await each.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=interval_ms)
                await each.until("state")
            await client.ask("unsubscribe", subscription=1)
            request = {"symbol": "AAPL", "data_type": "TRADES", "interval_ms": interval_ms, "mode": mode}
            answer = await client.ask("subscribe", **request)
            if how == "unsubscribed":
                happen(desk, 1)
                await client.ask("unsubscribe", subscription=2)
            elif how == "ended":
                happen(desk, 1)
                ((_, streams),) = desk.lines.values()
                for stream in tuple(streams):
                    stream.fail(RequestError(1, 354, "not subscribed"))
                await client.until("ended")
            else:
                happen(desk, 1)
                await client.until("ended")
            seen = len(client.heard)
            for n in range(2, 12):
                happen(desk, n)
                await asyncio.sleep(0.03)
            await client.ask("ping")
            assert [message["op"] for message in client.heard[seen:]] == ["pong"]
            assert answer["subscription"] == 2

    run(test())


def test_a_handshake_that_meets_the_servers_end_is_answered(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, _):
            turn = server.turns.run

            async def until_the_end(*args: Any) -> Any:
                judged = await turn(*args)
                while server._server.is_serving():
                    await asyncio.sleep(0)
                return judged

            server.turns.run = until_the_end  # type: ignore[method-assign]
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(f"{HANDSHAKE}\r\n".encode())
            await until(lambda: any(connection.grant is not None for connection in server.connections))
        assert b" 503 " in await reader.read()
        writer.close()

    run(test())
