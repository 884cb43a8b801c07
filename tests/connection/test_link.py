"""Connecting to whatever is there: True or False in time, with the stage that failed and the remedy, and no trace left.

Every case runs on asyncio and on uvloop, over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.connection.protocol import State
from ibfast.errors import ConnectError, NotConnectedError
from ibfast.sim.gateway import Gateway
from ibfast.wire.requests import CurrentTimeInMillisRequest
from ibfast.wire.responses import CurrentTimeInMillis, ManagedAccounts, NextValidId
from tests.support.conversations import ONCE
from tests.support.loops import Run, until
from tests.support.peer import Caller, Peer, Script
from tests.support.streams import framed

SOON_S = 0.3
"""A time-out that a test waits for."""


def small_feed() -> Feed:
    return Feed(1 << 8, max_instruments=16, max_texts=64)


def manager_of(port: int, timeout_s: float = 20.0, **settings: Any) -> IBKRConnectionManager:
    config = Config(port=port, connect_timeout_s=timeout_s, reconnection=ONCE, **settings)
    return IBKRConnectionManager(config, small_feed())


def transport_of(manager: IBKRConnectionManager) -> asyncio.Transport | None:
    link = manager._supervisor._link
    assert link is not None
    assert link._connection is not None
    return link._connection.transport


async def good(caller: Caller) -> None:
    await caller.start()
    await caller.gone()


# --- what can go wrong ---


async def silent(caller: Caller) -> None:
    await caller.gone()


async def silent_after_reply(caller: Caller) -> None:
    await caller.handshake()
    await caller.gone()


async def never_next_valid_id(caller: Caller) -> None:
    await caller.handshake()
    caller.send(ManagedAccounts(("DU1",)))
    await caller.gone()


async def never_accounts(caller: Caller) -> None:
    await caller.handshake()
    caller.send(NextValidId(1))
    await caller.gone()


async def slow_loris(caller: Caller) -> None:
    for byte in framed(b"226\x0020260105 14:30:00 Greenwich Mean Time\0"):
        await asyncio.sleep(0.05)
        caller.write(bytes([byte]))


async def closes_at_once(caller: Caller) -> None:
    caller.hang_up()


async def closes_after_hello(caller: Caller) -> None:
    await caller.hello()


async def closes_in_mid_reply(caller: Caller) -> None:
    await caller.hello()
    caller.write(framed(b"226\x0020260105 14:30:00\0")[:9])


async def closes_before_ready(caller: Caller) -> None:
    await caller.handshake()
    caller.send(NextValidId(1))


async def resets_after_hello(caller: Caller) -> None:
    await caller.hello()
    caller.reset()


async def resets_in_mid_reply(caller: Caller) -> None:
    await caller.hello()
    caller.write(b"\0\0\0\x10226")
    await asyncio.sleep(0)
    caller.reset()


async def resets_before_ready(caller: Caller) -> None:
    await caller.handshake()
    caller.reset()


async def web_server(caller: Caller) -> None:
    await caller.hello()
    caller.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n" + b"<p>Bad request</p>" * 10_000)


async def mail_server(caller: Caller) -> None:
    """Speaks first, and much."""
    caller.write(b"220 mail.example.com ESMTP\r\n" * 1_000)
    await caller.gone()


async def garbage(caller: Caller) -> None:
    await caller.hello()
    caller.write(framed(b"\x80\x81\x82no version\0at all"))
    await caller.gone()


async def too_old(caller: Caller) -> None:
    await caller.hello()
    caller.reply(120)
    await caller.gone()


async def broken_frame(caller: Caller) -> None:
    await caller.handshake()
    caller.write(b"\xff\xff\xff\xff" * 100)
    await caller.gone()


async def client_id_in_use(caller: Caller) -> None:
    await caller.handshake()
    caller.error(-1, 326, "Unable to connect as the client id is already in use.")


async def client_id_in_use_without_end(caller: Caller) -> None:
    await caller.handshake()
    caller.error(-1, 326)
    await caller.gone()


async def unreadable_start(caller: Caller) -> None:
    await caller.handshake()
    is_raw = caller.version >= 201
    caller.write(framed((b"\0\0\0\x09" if is_raw else b"9\0") + b"1\0first\0"))
    await caller.gone()


FAILURES: dict[Script, tuple[str, str, str]] = {
    closes_at_once: ("handshake", "", "tick 'Enable ActiveX and Socket Clients'"),
    closes_after_hello: ("handshake", "closed without a reply", "tick 'Enable ActiveX and Socket Clients'"),
    closes_in_mid_reply: ("handshake", "in mid-reply", "is this the port of TWS"),
    closes_before_ready: ("start", "before it was ready", "or the client id is in use"),
    resets_after_hello: ("handshake", "closed without a reply", "tick 'Enable ActiveX and Socket Clients'"),
    resets_in_mid_reply: ("handshake", "", ""),  # a reset may overtake the bytes before it
    resets_before_ready: ("start", "before it was ready", "or the client id is in use"),
    web_server: ("handshake", "not a gateway's: b'HTTP/1.1 400", "is this the port of TWS"),
    mail_server: ("handshake", "not a gateway's: b'220 mail", "is this the port of TWS"),
    garbage: ("handshake", "not a gateway's", "is this the port of TWS"),
    too_old: ("handshake", "server version 120", "update TWS or IB Gateway"),
    broken_frame: ("start", "frame's length is impossible", "is this the port of TWS"),
    client_id_in_use: ("start", "client id 5 is in use", "give another client_id"),
    client_id_in_use_without_end: ("start", "client id 5 is in use", "give another client_id"),
}

TIMEOUTS: dict[Script, tuple[str, str, str]] = {
    silent: ("handshake", "no reply within 0.3 s", "or it hangs: restart it"),
    slow_loris: ("handshake", "no reply within 0.3 s", "tick 'Enable ActiveX and Socket Clients'"),
    silent_after_reply: ("start", "nextValidId and managedAccounts did not come within 0.3 s", "login"),
    never_next_valid_id: ("start", "did not come within 0.3 s", "login"),
    never_accounts: ("start", "did not come within 0.3 s", "login"),
    unreadable_start: ("start", "NEXT_VALID_ID can't be read: order_id is not an integer: 'first'", "restart"),
}


def check_failure(manager: IBKRConnectionManager, stage: str, reason: str, remedy: str) -> None:
    error = manager.last_error
    assert isinstance(error, ConnectError)
    assert error.stage == stage
    assert reason in error.reason
    assert remedy in error.remedy
    assert not manager.connected
    assert manager.protocol.state is State.CLOSED
    assert manager.feed.gaps.published == 0


async def fails_then_works(script: Script, failure: tuple[str, str, str], timeout_s: float) -> None:
    """Connect twice with one manager: the first time to the script, the second to a gateway that is all right."""
    async with Peer(script, good, abandon=True) as peer:
        manager = manager_of(peer.port, timeout_s, client_id=5)
        assert await manager.connect() is False
        check_failure(manager, *failure)
        manager.config = Config(port=peer.port, client_id=5)
        assert await manager.connect() is True
        assert (manager.connected, manager.last_error) == (True, None)
        assert peer.callers[-1].client_id == 5
        await manager.disconnect()


@pytest.mark.parametrize("script", FAILURES, ids=lambda script: script.__name__)
def test_a_failure_says_where_and_what_to_do(run: Run, script: Script) -> None:
    run(fails_then_works(script, FAILURES[script], 20.0))


@pytest.mark.parametrize("script", TIMEOUTS, ids=lambda script: script.__name__)
def test_a_time_out_says_where_and_what_to_do(run: Run, script: Script) -> None:
    run(fails_then_works(script, TIMEOUTS[script], SOON_S))


@contextlib.contextmanager
def listener(backlog: int) -> Iterator[int]:
    """A port that is open and that nobody serves."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield server.getsockname()[1]


def test_nothing_listens(run: Run) -> None:
    with listener(1) as port:
        pass

    async def test() -> None:
        manager = manager_of(port)
        assert await manager.connect() is False
        check_failure(manager, "tcp", f"nothing listens at 127.0.0.1:{port}", "start TWS or IB Gateway and log in")
        with pytest.raises(ConnectError, match="nothing listens"):
            await manager.__aenter__()

    run(test())


def test_a_listener_that_never_accepts(run: Run) -> None:
    async def test(port: int) -> None:
        manager = manager_of(port, SOON_S)
        assert await manager.connect() is False
        check_failure(manager, "handshake", "no reply", "Enable ActiveX")

    with listener(5) as port:
        run(test(port))


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog swallows connections on Linux only")
def test_a_black_hole(run: Run) -> None:
    async def test(port: int) -> None:
        manager = manager_of(port, SOON_S)
        assert await manager.connect() is False
        check_failure(manager, "tcp", "no connection within 0.3 s", "check host, port and firewall")

    with listener(0) as port, contextlib.ExitStack() as fill:
        for _ in range(4):
            sock = fill.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        run(test(port))


@pytest.mark.parametrize("host", ["a" * 70, "bad\0host", ".", "256.256.256.256"])
def test_a_host_that_can_not_be(run: Run, host: str) -> None:
    async def test() -> None:
        manager = IBKRConnectionManager(Config(host=host), small_feed())
        assert await manager.connect() is False
        check_failure(manager, "tcp", "", "check host and port")

    run(test())


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog swallows connections on Linux only")
def test_a_mute_address_of_a_host_does_not_cost_the_time_limit(run: Run) -> None:
    async def test(mute: int) -> None:
        async def addresses(host: str, *args: Any, **options: Any) -> list[Any]:
            if host != "localhost":  # uvloop asks for addresses too
                return await resolve(host, *args, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (mute, peer.port)]

        async with Peer(good) as peer:
            resolve, asyncio.get_running_loop().getaddrinfo = asyncio.get_running_loop().getaddrinfo, addresses  # type: ignore[method-assign]
            manager = IBKRConnectionManager(Config(host="localhost", connect_timeout_s=30.0), small_feed())
            assert await manager.connect()
            await manager.disconnect()

    with listener(0) as port, contextlib.ExitStack() as fill:
        for _ in range(4):
            sock = fill.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        run(test(port))


def test_an_address_that_refuses_is_followed_by_the_next_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibfast.connection.transport.NEXT_ADDRESS_S", 1000.0)
    with listener(1) as refusing:
        pass

    async def test() -> None:
        async def addresses(host: str, *args: Any, **options: Any) -> list[Any]:
            if host != "localhost":  # uvloop asks for addresses too
                return await resolve(host, *args, **options)
            found = [(socket.AF_INET6, "::1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
            ports = (refusing, refusing, peer.port if is_there else refusing)
            return [
                (family, socket.SOCK_STREAM, 6, "", (host, port))
                for (family, host), port in zip(found, ports, strict=True)
            ]

        async with Peer(good) as peer:
            resolve, asyncio.get_running_loop().getaddrinfo = asyncio.get_running_loop().getaddrinfo, addresses  # type: ignore[method-assign]
            manager = IBKRConnectionManager(Config(host="localhost"), small_feed())
            is_there = True
            assert await manager.connect()
            await manager.disconnect()
            is_there = False
            assert not await manager.connect()
            check_failure(manager, "tcp", "nothing listens at localhost", "start TWS or IB Gateway")

    run(test())


# --- the way there ---


@pytest.mark.parametrize("version", [157, 176, 200, 201, 213, 226])
def test_connecting_and_disconnecting(run: Run, version: int) -> None:
    async def test() -> None:
        async with Peer(good, version=version) as peer:
            manager = manager_of(peer.port, client_id=3)
            assert not manager.connected
            async with manager as entered:
                assert entered is manager
                assert manager.connected
                assert (manager.protocol.server_version, manager.protocol.accounts) == (version, ("DU1",))
                assert await manager.connect() is True  # once more changes nothing
            assert not manager.connected
            assert manager.last_error is None
            assert [caller.client_id for caller in peer.callers] == [3]
            await manager.disconnect()
        assert manager.feed.gaps.published == 0

    run(test())


def test_a_session_can_be_made_again_and_again(run: Run) -> None:
    async def test() -> None:
        async with Gateway() as gateway:
            manager = manager_of(gateway.port)
            for _ in range(5):
                assert await manager.connect() is True
                assert await manager.current_time_ns() > 0
                await manager.disconnect()

    run(test())


def test_a_manager_is_not_bound_to_the_loop_that_used_it_first() -> None:
    manager = None

    async def test() -> None:
        nonlocal manager
        async with Peer(good) as peer:
            manager = manager or IBKRConnectionManager(Config(port=peer.port), small_feed())
            manager.config = Config(port=peer.port)
            assert await manager.connect() is True
            await manager.disconnect()

    for _ in range(2):
        asyncio.run(test())


def test_the_start_byte_by_byte_and_in_one(run: Run) -> None:
    async def in_one(caller: Caller) -> None:
        """The reply and all that follows in one write, before the client has said a word."""
        caller.reply()
        caller.send(ManagedAccounts(("DU1",)), NextValidId(1))
        await caller.gone()

    async def in_drops(caller: Caller) -> None:
        pieces: list[bytes] = []
        write, caller.write = caller.write, pieces.append  # type: ignore[method-assign]
        caller.reply()
        caller.send(ManagedAccounts(("DU1",)), NextValidId(1))
        for piece in pieces:
            for i in range(len(piece)):
                write(piece[i : i + 1])
                await asyncio.sleep(0)
        await caller.gone()

    async def test() -> None:
        async with Peer(in_one, in_drops) as peer:
            for _ in range(2):
                async with manager_of(peer.port) as manager:
                    assert manager.connected

    run(test())


def test_two_connects_at_once_make_one_connection(run: Run) -> None:
    async def test() -> None:
        async with Peer(good) as peer:
            manager = manager_of(peer.port)
            assert await asyncio.gather(*(manager.connect() for _ in range(3))) == [True] * 3
            assert len(peer.callers) == 1
            await manager.disconnect()

    run(test())


@pytest.mark.parametrize("script", [silent, silent_after_reply])
def test_a_connect_that_is_cancelled_leaves_nothing_behind(run: Run, script: Script) -> None:
    async def test() -> None:
        async with Peer(script, good) as peer:
            manager = manager_of(peer.port)
            task = asyncio.create_task(manager.connect())
            await until(lambda: manager.protocol.state is State.START or (script is silent and peer.callers))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not manager.connected
            assert await manager.connect() is True
            await manager.disconnect()

    run(test())


@pytest.mark.parametrize("script", [silent, silent_after_reply])
def test_a_disconnect_ends_a_connect(run: Run, script: Script) -> None:
    async def test() -> None:
        async with Peer(script, good) as peer:
            manager = manager_of(peer.port)
            task = asyncio.create_task(manager.connect())
            await until(lambda: manager.protocol.state is State.START or (script is silent and peer.callers))
            await manager.disconnect()
            assert await task is False
            assert isinstance(manager.last_error, ConnectError)
            assert "disconnect" in manager.last_error.reason
            assert await manager.connect() is True
            await manager.disconnect()

    run(test())


# --- the end ---


def test_requests_need_a_session(run: Run) -> None:
    async def test() -> None:
        manager = manager_of(7497)
        for _ in range(2):
            with pytest.raises(NotConnectedError):
                manager.send(CurrentTimeInMillisRequest())
            with pytest.raises(NotConnectedError):
                await manager.current_time_ns()
            with pytest.raises(NotConnectedError):
                await manager.subscribe("AAPL")
            await manager.disconnect()

    run(test())


async def asks_the_time(caller: Caller) -> None:
    await caller.start()
    await caller.request(CurrentTimeInMillisRequest)
    caller.send(CurrentTimeInMillis(1_700_000_000_123))


def test_a_gateway_that_only_finishes_writing_has_left(run: Run) -> None:
    """It closes one direction and reads nothing, while requests wait to be written; the loss is noticed at once."""

    async def half_closes(caller: Caller) -> None:
        await caller.start()
        await until(lambda: stuffed)
        caller.finish_writing()
        await until(lambda: not manager.connected)

    stuffed: list[bool] = []

    async def test() -> None:
        nonlocal manager
        async with Peer(half_closes) as peer:
            manager = manager_of(peer.port)
            assert await manager.connect()
            transport = transport_of(manager)
            assert transport is not None
            while transport.get_write_buffer_size() == 0:
                transport.write(b"\0" * (1 << 20))
            stuffed.append(True)
            await until(lambda: not manager.connected)
            assert isinstance(manager.last_error, NotConnectedError)
            assert manager.feed.gaps.published == 1

    manager: IBKRConnectionManager = manager_of(1)
    run(test())


def test_what_arrives_with_the_end_is_delivered(run: Run) -> None:
    async def test() -> None:
        async with Peer(asks_the_time) as peer:
            manager = manager_of(peer.port)
            assert await manager.connect()
            assert await manager.current_time_ns() == 1_700_000_000_123_000_000
            await until(lambda: not manager.connected)
            assert isinstance(manager.last_error, NotConnectedError)

    run(test())
