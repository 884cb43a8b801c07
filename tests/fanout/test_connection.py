"""Clients that are slow, rude or gone, over real sockets: what becomes of them, and that nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State

from ibfast.codec.positions import position_of, seq_of
from ibfast.fanout.connection import Connection
from ibfast.fanout.messages import Code
from ibfast.fanout.server import FanoutServer
from ibfast.fanout.session import Session
from ibfast.fanout.turns import Turns
from tests.support.fanout_client import JsonClient, client_of, rows_of, serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, errors_logged, until

MANY = 5000
"""Trades, of 150 bytes each: more than the sockets' buffers and the backlog hold."""


@contextlib.asynccontextmanager
async def slow_client_of(server: FanoutServer) -> AsyncIterator[JsonClient]:
    """A client whose machine takes next to nothing that it has not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.address)
    options: dict[str, Any] = {"sock": sock, "max_queue": 1, "ping_interval": None, "close_timeout": 0.1}
    async with client_of(server, **options) as client:
        yield client


async def trade_much(desk: Desk, first: int = 0, count: int = MANY) -> None:
    for i in range(first, first + count, 50):
        desk.trade("AAPL", *(float(price) for price in range(i, i + 50)))
        await asyncio.sleep(0)


async def overwhelm(server: FanoutServer, desk: Desk, first: int = 0) -> int:
    """Trade until somebody can't take more; return how many trades that were, from that price on."""
    while not behind(server):
        await trade_much(desk, first, 200)
        first += 200
    return first


def behind(server: FanoutServer) -> list[Any]:
    return [each for each in server.connections if each.session is not None and each.session.subscriber.is_behind]


# --- deaf ---

HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING, PONG = b"\x89\xfd\0\0\0\0" + b"x" * 125, b"\x8a\x7d"


def test_who_pings_and_takes_no_pongs_is_not_read_any_further(run: Run) -> None:
    """Or else all that the library answers would wait in memory. Nothing of it is lost when the client reads again."""
    pings = 1 << 16

    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with serving({"max_control_per_s": 1_000_000}, ping_s=60.0) as (server, _):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await loop.sock_connect(sock, server.address)
                await loop.sock_sendall(sock, HANDSHAKE)
                await until(lambda: any(each.session is not None for each in server.connections))
                (connection,) = server.connections
                sending = asyncio.create_task(loop.sock_sendall(sock, PING * pings))
                await until(lambda: sending.done() or connection.member.is_full)
                assert connection.transport.get_write_buffer_size() < 1 << 20
                assert not sending.done()
                received = bytearray()
                while len(received) < 127 * pings or received.count(PONG) < pings:
                    received += await loop.sock_recv(sock, 1 << 16)
                await sending
                await until(connection.transport.is_reading)
            await until(lambda: not server.connections)

    run(test())


# --- slow ---


def test_what_a_slow_subscriber_misses_is_told_exactly(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(backlog_bytes=1 << 14, patience_s=0.001) as (server, desk),
            client_of(server) as quick,
            slow_client_of(server) as slow,
        ):
            for client in (quick, slow):
                await client.ask("subscribe", symbol="AAPL", data_type="TRADES", ordered=True, interval_ms=0)
            news = asyncio.create_task(quick.news("trades", 3 * MANY))
            count = await overwhelm(server, desk)
            await trade_much(desk, count, 3 * MANY - count)
            rows = await news  # the other one has everything, at once
            assert [row["price"] for row in rows] == [float(i) for i in range(3 * MANY)]

            got: list[int] = []
            lags = []
            while not got or got[-1] < rows[-1]["seq"]:
                message = await slow.hear()
                got += [row["seq"] for row in rows_of(message, "trades")]
                if message["op"] == "lag":
                    lags.append(message)
                    snapshot = await slow.hear()
                    assert (snapshot["op"], seq_of(snapshot["position"])) == ("snapshot", message["to_seq"])
                    (state,) = snapshot["rows"]["trades"]
                    assert state["seq"] <= message["to_seq"]
                    if message["to_seq"] >= rows[-1]["seq"]:
                        break
            assert lags
            assert {lag["reason"] for lag in lags} == {"slow"}
            left_out = {row["seq"] for row in rows} - set(got)
            assert got == sorted(set(got))
            assert left_out == {
                row["seq"] for row in rows for lag in lags if lag["from_seq"] < row["seq"] <= lag["to_seq"]
            }
            assert sum(lag["rows"] for lag in lags) == len(left_out)

    run(test())


def test_a_backlog_goes_out_before_the_window_that_ends_in_the_same_turn(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(backlog_bytes=1 << 30, backlog_s=60.0) as (server, desk),
            slow_client_of(server) as slow,
        ):
            await slow.ask("subscribe", symbol="AAPL", data_type="TRADES", ordered=True, interval_ms=0)
            (connection,) = server.connections
            count = 0
            while len(connection.backlog._frames) < 3:
                await trade_much(desk, count, 200)
                count += 200
            resume_writing = connection.resume_writing
            resumed = []

            def a_window_ends() -> None:
                desk.trade("AAPL", float(count + len(resumed)))
                resumed.append(connection.backlog.nbytes)
                server._hub.batcher.flush(0)

            def resume() -> None:  # of what is due in this turn, a window's end was there first
                if connection.backlog:
                    asyncio.get_running_loop().call_soon(a_window_ends)
                resume_writing()

            connection.resume_writing = resume
            rows = await slow.news("trades", count + 1)
            assert resumed
            assert [row["price"] for row in rows] == [float(i) for i in range(count + len(resumed))]

    run(test())


def test_a_backlog_is_bounded(run: Run) -> None:
    async def test() -> None:
        async with serving(backlog_bytes=1 << 14) as (server, desk), slow_client_of(server) as slow:
            await slow.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            count = await overwhelm(server, desk)
            (connection,) = server.connections
            held = connection.backlog.nbytes, connection.transport.get_write_buffer_size()
            assert sum(held) < 1 << 16
            await trade_much(desk, count)
            assert (connection.backlog.nbytes, connection.transport.get_write_buffer_size()) == held

    run(test())


def test_the_rate_is_lowered_and_raised_again(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(backlog_bytes=1 << 12, patience_s=30.0) as (server, desk),
            slow_client_of(server) as slow,
        ):
            await slow.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=10, ordered=True)
            (connection,) = server.connections
            slowed: dict[str, Any] = {}
            while not slowed:
                slow.socket.transport.pause_reading()
                while not behind(server):
                    desk.trade("AAPL", *(float(price) for price in range(50)))
                    await asyncio.sleep(0.001)  # slow enough that no window has more than the ring holds
                desk.trade("AAPL", 50.0)  # left out
                slow.socket.transport.resume_reading()
                while (message := await slow.hear())["op"] != "lag":
                    slowed = message if message["op"] == "slowed" else slowed
            assert (slowed["subscription"], slowed["interval_ms"]) == (1, 50)
            assert slowed["channels"][0]["span_ns"] == 50_000_000
            assert connection.pace.steps == 1
            connection.pace._last_s = 0.0  # long ago
            assert (await slow.until("slowed"))["interval_ms"] == 10
            assert (await slow.hear())["op"] == "snapshot"

    run(test())


def test_a_subscription_that_is_to_end_rather_than_lag(run: Run) -> None:
    async def test() -> None:
        async with serving(backlog_bytes=1 << 12) as (server, desk), slow_client_of(server) as slow:
            await slow.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0, on_slow="close")
            await overwhelm(server, desk)
            ended = await slow.until("ended")
            assert (ended["subscription"], ended["code"]) == (1, "TOO_SLOW")
            assert not [message for message in slow.heard if message["op"] == "lag"]

    run(test())


def test_who_takes_nothing_at_all_is_closed(run: Run) -> None:
    async def test() -> None:
        async with serving(backlog_bytes=1 << 12, stalled_s=0.2) as (server, desk), slow_client_of(server) as slow:
            await slow.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            await overwhelm(server, desk)
            await until(lambda: not server.connections)
            with pytest.raises(ConnectionClosed):
                await slow.until("never")

    run(test())


def test_a_bandwidth_is_kept(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as free, client_of(server) as capped:
            for client in (free, capped):
                await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0, ordered=True)
            assert (await capped.ask("limit", max_bytes_per_s=20_000))["max_bytes_per_s"] == 20_000
            await trade_much(desk, 0, 1000)
            rows = await free.news("trades", 1000)
            lag = await capped.until("lag")
            assert lag["rows"] == sum(lag["from_seq"] < row["seq"] <= lag["to_seq"] for row in rows) > 0
            assert (await capped.ask("limit", max_bytes_per_s=0))["max_bytes_per_s"] == 0
            await until(lambda: not behind(server))
            desk.trade("AAPL", 7777.0)
            while (await capped.news("trades", 1))[-1]["price"] != 7777.0:
                pass

    run(test())


# --- rude ---


@pytest.mark.parametrize("garbage", [b"\x00\xff", "", "{", '{"op":"fly"}', '{"op":"subscribe"}', "[" * 5000, "\x00"])
def test_garbage_is_answered_and_hurts_nobody(run: Run, garbage: str | bytes) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as good, client_of(server) as bad:
            await good.ask("subscribe", symbol="AAPL", data_type="TRADES")
            for _ in range(20):
                await bad.socket.send(garbage)
            for _ in range(20):
                error = await bad.until("error")
                assert error["code"] in ("BAD_MESSAGE", "BAD_FIELD")
            desk.trade("AAPL", 1.0)
            assert len(await good.news("trades", 1)) == 1
            assert (await bad.ask("ping", data="still here"))["data"] == "still here"

    run(test())


def test_messages_in_many_fragments_are_messages(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, _), client_of(server) as client:
            await client.socket.send(iter('{"op":"ping","id":9,"data":[1,2]}'))
            assert (await client.until("pong"))["data"] == [1, 2]

    run(test())


def test_oversized_messages_close_the_connection(run: Run) -> None:
    async def test() -> None:
        async with serving({"max_message_bytes": 2048}) as (server, _), client_of(server) as good:
            for message in ("x" * 4096, iter(["x" * 512] * 8)):
                async with client_of(server) as bad:
                    await bad.socket.send(message)
                    with pytest.raises(ConnectionClosedError, match="1009"):
                        await bad.until("never")
            assert (await good.ask("ping"))["op"] == "pong"

    run(test())


@pytest.mark.parametrize("raw", [b"\x83\x80\0\0\0\0", b"\x81\x05hello", b"\x88\x81\0\0\0\0x", b"\xff" * 64])
def test_broken_frames_close_the_connection(run: Run, raw: bytes) -> None:
    async def test() -> None:
        async with serving() as (server, _), client_of(server) as good:
            async with client_of(server) as bad:
                bad.socket.transport.write(raw)
                with pytest.raises(ConnectionClosed):
                    await bad.until("never")
            assert (await good.ask("ping"))["op"] == "pong"

    run(test())


def test_who_asks_too_fast_is_answered_later(run: Run) -> None:
    async def test() -> None:
        async with serving({"max_control_per_s": 60}) as (server, _), client_of(server) as eager:
            for number in range(80):
                await eager.say("ping", id=number, data="x" * 100)
            while eager.heard[-1].get("id") != 79:
                await eager.hear()
            assert [message["id"] for message in eager.heard if message["op"] == "pong"] == list(range(80))
            assert server.tally.paused > 0
            assert server.tally.closed == {}

    run(test())


def test_a_long_answer_costs_more_than_a_short_one(run: Run) -> None:
    async def test() -> None:
        async with serving({"max_control_per_s": 40}) as (server, _), client_of(server) as client:
            for symbol in ("AAPL", "MSFT", "NVDA", "IBM") * 2:
                await client.ask("subscribe", symbol=symbol, data_type="ALL", interval_ms=1000)
            (connection,) = server.connections

            async def cost(op: str) -> float:
                await until(lambda: connection._control.wait_s(connection.loop.time()) == 0)
                spent, spend = list[float](), connection._control.spend
                connection._control.spend = lambda amount, now_s: spent.append(amount) or spend(amount, now_s)  # type: ignore[func-returns-value,method-assign]
                await client.ask(op)
                connection._control.spend = spend  # type: ignore[method-assign]
                return sum(spent)

            assert 1 < await cost("ping") < 1.5
            listed = await client.ask("list")
            assert await cost("list") == pytest.approx(1 + len(orjson.dumps(listed)) / 1024, abs=0.2)

    run(test())


# A message begins with a frame of its own; those that go on with it are continuations.
FLOODS = {
    "pings": Frame(Opcode.PING, b"").serialize(mask=True) * 12_000,
    "pongs": Frame(Opcode.PONG, b"").serialize(mask=True) * 12_000,
    "empty fragments": Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    + Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 12_000,
    "tiny messages": Frame(Opcode.TEXT, b"").serialize(mask=True) * 12_000,
    "messages": Frame(Opcode.TEXT, b'{"op":"ping"}').serialize(mask=True) * 12_000,
    "long messages": Frame(Opcode.TEXT, b" " * 60_000).serialize(mask=True) * 20,
}


@pytest.mark.parametrize("flood", [pytest.param(flood, id=name) for name, flood in FLOODS.items()])
def test_of_a_flood_little_is_parsed(run: Run, monkeypatch: pytest.MonkeyPatch, flood: bytes) -> None:
    """What goes beyond the rate waits; if it is more than a message may have, the session ends."""
    costs = list[float]()
    process = Connection.process_event

    def counted(self: Connection, event: Any) -> None:
        if isinstance(event, Frame):
            costs.append(1 + len(event.data) / 1024)
        process(self, event)

    monkeypatch.setattr(Connection, "process_event", counted)

    async def test() -> None:
        async with serving({"max_control_per_s": 100}) as (server, _), client_of(server) as bad:
            bad.socket.transport.write(flood)
            with pytest.raises(ConnectionClosed):
                await bad.until("never")
            assert server.tally.closed == {"TOO_FAST": 1}
            # The burst, what runs in while that is done, a piece, and a message that was long.
            assert sum(costs) < 100 + 100 + 1024 / 6 + 60

    run(test())


@pytest.mark.parametrize("flood", [pytest.param(flood, id=name) for name, flood in FLOODS.items()])
def test_a_turn_of_the_loop_parses_little(run: Run, monkeypatch: pytest.MonkeyPatch, flood: bytes) -> None:
    """However much a client may send, and however many frames that is, and messages to handle."""
    done = 0
    process, handle = Connection.process_event, Session.handle

    def processed(self: Connection, event: Any) -> None:
        nonlocal done
        done += 1
        process(self, event)

    def handled(self: Session, text: str | bytes) -> None:
        nonlocal done
        done += 1
        handle(self, text)

    monkeypatch.setattr(Connection, "process_event", processed)
    monkeypatch.setattr(Session, "handle", handled)

    async def test() -> None:
        async with serving({"max_control_per_s": 10**9}) as (server, _), client_of(server) as bad:
            seconds = itertools.count()
            server.turns = Turns(3.0, lambda: float(next(seconds)))  # three pieces in a turn
            seen = [done]
            bad.socket.transport.write(flood)
            bad.socket.transport.write(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
            reading = asyncio.create_task(bad.until("never"))
            while server.connections:
                await asyncio.sleep(0)
                seen.append(done)
            await asyncio.gather(reading, return_exceptions=True)
            assert max(later - first for first, later in itertools.pairwise(seen)) <= 3 * (1024 // 6 + 1)

    run(test())


def test_who_asks_and_does_not_listen_is_not_asked_further(run: Run) -> None:
    """Answers may not pile up either."""

    async def test() -> None:
        async with (
            serving({"max_control_per_s": 1_000_000}, stalled_s=0.3) as (server, _),
            client_of(server) as good,
            slow_client_of(server) as bad,
        ):
            (connection,) = [each for each in server.connections if each.is_counted and each.session][-1:]

            async def flood() -> None:
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await bad.say("ping", data="x" * 1000)

            flooding = asyncio.create_task(flood())
            most = 0
            while len(server.connections) > 1:
                most = max(most, *(each.backlog.nbytes for each in server.connections), 0)
                assert (await good.ask("ping"))["op"] == "pong"
            assert most < 1 << 18
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            assert connection is not None

    run(test())


def test_a_flood_of_websocket_pings_is_cut_off(run: Run) -> None:
    async def test() -> None:
        async with (
            serving({"max_control_per_s": 1_000_000}, stalled_s=0.3) as (server, _),
            client_of(server) as good,
            slow_client_of(server) as bad,
        ):
            ping = Frame(Opcode.PING, os.urandom(125)).serialize(mask=True)
            bad.socket.transport.pause_reading()
            while len(server.connections) > 1:
                if bad.socket.transport.get_write_buffer_size() < 1 << 20:
                    bad.socket.transport.write(ping * 100)
                assert (await good.ask("ping"))["op"] == "pong"

    run(test())


def test_who_breaks_off_leaves_nothing(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk):
            for _ in range(3):
                client = await connect("ws://{}:{}/stream".format(*server.address))
                await client.send('{"op":"subscribe","symbol":"AAPL","data_type":"TRADES","interval_ms":0}')
                await until(lambda: desk.lines)
                client.transport.abort()
                desk.trade("AAPL", 1.0)
                await until(lambda: not server.connections and not desk.lines)
                await client.wait_closed()

    run(test())


@pytest.mark.parametrize("way", ["abort", "end", "close"])
def test_who_goes_away_before_its_answer_leaves_nothing(run: Run, way: str) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk), slow_client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            client.socket.transport.pause_reading()
            await overwhelm(server, desk)
            (connection,) = server.connections
            await client.say("ping")
            await until(lambda: connection.drain_waiters)  # the answer, behind what the client does not take
            match way:
                case "abort":
                    client.socket.transport.abort()
                case "end":
                    client.socket.transport.write_eof()
                    client.socket.transport.resume_reading()
                    with contextlib.suppress(ConnectionClosed):
                        while True:
                            await client.hear()
                case "close":
                    await client.socket.close()
            await until(lambda: not server.connections and not desk.lines)

    with errors_logged() as errors:
        run(test())
    assert errors == []


@pytest.mark.parametrize("way", ["end", "close"])
def test_who_says_no_more_and_takes_nothing_is_cut_and_the_others_are_served(run: Run, way: str) -> None:
    async def test() -> None:
        async with (
            serving(heartbeat_s=0.2) as (server, desk),
            client_of(server) as good,
            slow_client_of(server) as bad,
        ):
            await bad.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            transport = bad.socket.transport
            transport.pause_reading()
            await overwhelm(server, desk)
            (connection,) = behind(server)
            if way == "end":
                transport.write_eof()
            else:
                transport.write(Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True))
                await until(lambda: connection.protocol.state is State.CLOSING)
            object.__setattr__(server.limits, "stalled_s", 0.2)  # not before: a slow machine would end it too early
            await until(lambda: len(server.connections) == 1)
            assert server.tally.closed[Code.TOO_SLOW] == (way == "end")  # who has closed is not slow
            await good.ask("ping")
            await good.until("heartbeat")
            transport.abort()

    with errors_logged() as errors:
        run(test())
    assert errors == []


def test_who_closes_and_does_not_go_is_cut(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0, ping_s=60.0) as (server, desk):
            client = await connect("ws://{}:{}/stream".format(*server.address))
            await client.send('{"op":"subscribe","symbol":"AAPL","data_type":"TRADES","interval_ms":0}')
            await until(lambda: desk.lines)
            client.transport.pause_reading()
            client.transport.write(Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True))
            await until(lambda: not server.connections and not desk.lines)
            client.transport.abort()
            await client.wait_closed()

    run(test())


def test_a_fault_that_one_connection_meets_is_reported_and_its_own_end_alone(run: Run, monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault")

    async def test() -> None:
        async with (
            serving(heartbeat_s=0.2) as (server, desk),
            client_of(server) as good,
            slow_client_of(server) as bad,
        ):
            await bad.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            monkeypatch.setattr(Connection, "drain_backlog", fail)
            bad.socket.transport.pause_reading()
            while not server.tally.faults:  # it may be cut before it has fallen behind
                await trade_much(desk, 0, 200)
            await until(lambda: len(server.connections) == 1)
            await good.ask("ping")
            await good.until("heartbeat")
            assert server.tally.faults == {"connection": 1}

    with errors_logged() as errors:
        run(test())
    assert len(errors) == 1


def test_a_fault_that_is_no_connection_s_is_reported_and_ends_nothing(run: Run, monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        monkeypatch.undo()
        raise RuntimeError("a fault")

    async def test() -> None:
        async with serving(heartbeat_s=0.2) as (server, _), client_of(server) as client:
            monkeypatch.setattr(server, "_tell_gaps", fail)
            await until(lambda: server.tally.faults)
            await client.ask("ping")
            await client.until("heartbeat")
            assert server.tally.faults == {"upkeep": 1}

    with errors_logged() as errors:
        run(test())
    assert len(errors) == 1


# --- the end, and signs of life ---


def test_everybody_is_told_that_the_server_stops(run: Run) -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with serving(backlog_bytes=1 << 12) as (server, desk):
                quick = await stack.enter_async_context(client_of(server))
                slow = await stack.enter_async_context(slow_client_of(server))
                silent = await asyncio.open_connection(*server.address)
                for client in (quick, slow):
                    await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
                closing = asyncio.create_task(quick.until("closing"))
                await overwhelm(server, desk)
            assert (await closing)["code"] == "SHUTDOWN"
            with pytest.raises(ConnectionClosed):
                await quick.hear()
            assert quick.socket.close_code == 1001
            assert desk.lines == {}
            with contextlib.suppress(ConnectionError):
                assert await silent[0].read() == b""
            silent[1].close()

    run(test())


def test_a_heartbeat_comes_when_nothing_else_does(run: Run) -> None:
    async def test() -> None:
        async with serving(heartbeat_s=0.3) as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            heartbeat = await client.until("heartbeat")
            assert heartbeat["positions"] == [position_of(desk.feed.seq, 0)]
            assert heartbeat["time_ns"] > client.welcome["time_ns"]

    run(test())


def test_who_does_not_answer_pings_is_gone(run: Run) -> None:
    async def test() -> None:
        async with serving(ping_s=0.1) as (server, _):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(
                b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b" 101 " in await reader.readline()
            assert b"\x89" in await reader.read()  # a ping was sent, and then the end
            await until(lambda: not server.connections)
            writer.close()

    run(test())


def test_a_pong_that_waits_for_the_rate_is_not_late(run: Run) -> None:
    """It stands behind requests that the server does not read yet, because they came faster than they may."""
    requests = 60

    async def test() -> None:
        async with serving({"max_control_per_s": 20}, ping_s=0.2) as (server, _), client_of(server) as client:
            for number in range(requests):
                await client.say("ping", id=number)
            for number in range(requests):
                assert (await client.until("pong"))["id"] == number

    run(test())


def test_the_server_speaks_first(run: Run) -> None:
    async def test() -> None:
        async with serving({"max_subscriptions": 7}) as (server, _), client_of(server) as client:
            welcome = client.welcome
            assert welcome["server"].startswith("ibfast ")
            assert orjson.dumps(welcome["permissions"]["symbols"]) == b'["*"]'
            assert (welcome["op"], welcome["protocol"], welcome["heartbeat_s"]) == ("welcome", 1, 10.0)
            assert welcome["permissions"]["subscriptions"] == 7

    run(test())
