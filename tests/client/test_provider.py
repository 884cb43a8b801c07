"""The provider on real sockets: against a server that does what a script says, and against the real one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

import numpy as np
import pytest

from ibfast import Config, ReconnectionConfig, Stock
from ibfast.client.provider import WebSocketProvider
from ibfast.client.updates import Lag, LagTotals, State, Trade
from ibfast.errors import AuthError, ConnectError, Error, LoopError, NotConnectedError, StreamError
from ibfast.sim.gateway import Gateway
from tests.support.loops import Run, until
from tests.support.stream_peer import CON_ID, EPOCH, StreamPeer, Visitor, at, channel_of, piece, trade

TOKEN = "geheim-geheim"
SOON = ReconnectionConfig(delay_s=0.001, max_delay_s=0.002)


def provider_of(peer: StreamPeer, *, capacity: int = 1 << 16, **settings: Any) -> WebSocketProvider:
    """A client of the peer that comes back at once."""
    config = Config(**{"stream_url": peer.url, "reconnection": SOON, "connect_timeout_s": 5.0} | settings)
    return WebSocketProvider(config, dialect="json", capacity=capacity)


async def take(stream: Any, count: int) -> list[Any]:
    """The next so many items."""
    return [await anext(stream) for _ in range(count)]


async def find(events: Any, kind: type, **wanted: Any) -> Any:
    """The next event of a kind with these values."""
    async for event in events:
        if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items()):
            return event
    pytest.fail(f"there was no {kind.__name__} with {wanted}")


async def idle(visitor: Visitor) -> None:
    """Welcome, and nothing more."""
    await visitor.welcome()
    await visitor.gone()


# --- the common course ---


def test_rows_come_as_objects_and_as_arrays(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        request = await visitor.take()
        assert (request["symbol"], request["data_type"], request["interval_ms"]) == ("AAPL", "TRADES", 50)
        await visitor.say("snapshot", channel=0, position=at(5), rows={"trades": [trade(1.0)]})
        await visitor.data(6, piece("trades", trade(2.0, exchange="ARCA"), trade(3.0)))
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer) as provider:
            assert provider.connected
            subscription = await provider.subscribe("AAPL", data_type="trades", interval_ms=50)
            assert (subscription.ticker, subscription.state, subscription.instruments) == ("AAPL", "LIVE", (0,))
            assert repr(subscription) == "<Subscription 1 to TRADES of AAPL, LIVE>"
            updates = await take(provider.updates(), 3)
            assert [(u.ticker, u.price, u.size, u.is_snapshot) for u in updates] == [
                ("AAPL", 1.0, 100.0, True), ("AAPL", 2.0, 100.0, False), ("AAPL", 3.0, 100.0, False),
            ]  # fmt: skip
            assert isinstance(updates[1], Trade)
            assert updates[1].exchange == "ARCA"
            state, news = await take(provider.batches("trades"), 2)
            assert (state.is_snapshot, news.is_snapshot, len(news.rows)) == (True, False, 2)
            row = news.rows[0]
            assert provider.instruments[row["instrument"]] == "AAPL"
            assert provider.instruments.con_id(row["instrument"]) == CON_ID
            assert provider.texts[row["exchange"]] == "ARCA"
            assert provider.lag == LagTotals()
        assert not provider.connected
        assert subscription.live
        assert [u async for u in provider.updates(start="next")] == []
        with pytest.raises(NotConnectedError):
            await provider.subscribe("AAPL")

    run(scenario())


def test_a_subscription_changes_and_ends(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        for interval_ms in (250, 7):
            update = await visitor.request("update")
            assert update["interval_ms"] == interval_ms
            if interval_ms == 7:
                await visitor.say("error", id=update["id"], code="BAD_FIELD", message="interval_ms: give one of 0, 10")
            else:
                await visitor.say("updated", id=update["id"], channels=[channel_of(interval_ms=250)])
        unsubscribe = await visitor.request("unsubscribe")
        await visitor.say("unsubscribed", id=unsubscribe["id"])
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer) as provider:
            subscription = await provider.subscribe(Stock("AAPL"), mode="conflate", fields=["bid"], times="ns")
            await subscription.update(250)
            with pytest.raises(StreamError, match="BAD_FIELD: interval_ms") as caught:
                await subscription.update(7)
            assert caught.value.code == "BAD_FIELD"
            await subscription.unsubscribe()
            await subscription.unsubscribe()
            assert (subscription.live, subscription.state, subscription.error) == (False, "ENDED", None)
            with pytest.raises(NotConnectedError, match="subscribe again"):
                await subscription.update(10)

    run(scenario())


def test_a_refusal_is_raised_and_leaves_nothing(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        request = await visitor.request("subscribe")
        await visitor.say("error", id=request["id"], code="UNKNOWN_CONTRACT", message="IB knows no 'XYZZY'")
        await visitor.take()
        await visitor.say("ended", subscription=1, code="REFUSED", message="354: no permission")
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer) as provider:
            events = provider.events()
            with pytest.raises(StreamError, match=r"IB knows no 'XYZZY': check symbol"):
                await provider.subscribe("XYZZY")
            with pytest.raises(ValueError, match="names no instrument"):
                await provider.subscribe(" ")
            subscription = await provider.subscribe("AAPL")
            assert (await find(events, State, state="ENDED")).subscription == subscription.number
            assert not subscription.live
            assert isinstance(subscription.error, StreamError)

    run(scenario())


def test_many_questions_at_once_are_all_answered(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        for number in range(200):
            await visitor.take(number=number + 1)
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer) as provider:
            symbols = [f"S{number}" for number in range(200)]
            subscriptions = await asyncio.gather(*map(provider.subscribe, symbols))
            assert [subscription.ticker for subscription in subscriptions] == symbols

    run(scenario())


# --- faults ---


@pytest.mark.parametrize("ending", ["cut", "closed", "closing", "garbage", "silence", "lie", "half"])
def test_whatever_ends_a_connection_it_goes_on_where_it_was(run: Run, ending: str) -> None:
    async def first(visitor: Visitor) -> None:
        await visitor.welcome(heartbeat_s=0.05 if ending == "silence" else 10.0)
        assert "resume" not in await visitor.take()
        await visitor.say("snapshot", channel=0, position=at(5), rows={})
        await visitor.trades(6, 1.0)
        match ending:
            case "cut":
                visitor.cut()
            case "closed":
                await visitor.socket.close(1011, "broken")
            case "closing":
                await visitor.say("closing", code="SHUTDOWN", message="the server stops")
            case "garbage":
                await visitor.socket.send(b"\xff\xff")
            case "lie":
                await visitor.data(7, piece("trades", trade(), channel=1))
            case "half":
                visitor.socket.transport.write(b"\x81\x7e\x10\x00{")
                await asyncio.sleep(0)
                visitor.cut()
        await visitor.gone()

    async def second(visitor: Visitor) -> None:
        await visitor.welcome()
        request = await visitor.take(resumed=True)
        assert request["resume"] == {"epoch": EPOCH, "position": at(6)}
        await visitor.trades(9, 2.0, 3.0)
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(first, second) as peer, provider_of(peer) as provider:
            events, updates = provider.events(), provider.updates()
            subscription = await provider.subscribe("AAPL", "TRADES")
            assert [u.price for u in await take(updates, 3)] == [1.0, 2.0, 3.0]
            interrupted = await find(events, State, state="RECONNECTING")
            assert interrupted.reason
            await find(events, State, state="CONNECTED")
            await find(events, State, state="RESUMED")
            assert subscription.state == "LIVE"
            assert provider.lag == LagTotals()
            assert len(peer.visitors) == 2

    run(scenario())


def test_what_can_t_be_resumed_is_a_lag(run: Run) -> None:
    async def first(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        await visitor.say("snapshot", channel=0, position=at(5), rows={})
        visitor.cut()

    async def second(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take(resumed=False, reason="another epoch")
        await visitor.say("snapshot", channel=0, position=at(50), rows={"trades": [trade(7.0)]})
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(first, second) as peer, provider_of(peer) as provider:
            await provider.subscribe("AAPL", "TRADES")
            (update,) = await take(provider.updates(), 1)
            assert update.is_snapshot
            assert await find(provider.events(), Lag) == Lag("AAPL", 0, 0, 50, None, "resume")
            assert provider.lag == LagTotals(lags=1, unknown=1)

    run(scenario())


def test_a_question_that_was_cut_off_is_asked_again(run: Run) -> None:
    async def first(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.request("subscribe")
        visitor.cut()

    async def second(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(first, second) as peer, provider_of(peer) as provider:
            assert (await provider.subscribe("AAPL")).state == "LIVE"

    run(scenario())


def test_who_is_told_to_ask_more_slowly_does_so(run: Run) -> None:
    async def first(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.request("subscribe")
        await visitor.say("error", id=None, code="TOO_FAST", message="at most 1 a second")
        await visitor.gone()

    async def second(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(first, second) as peer, provider_of(peer) as provider:
            before = provider._link.pause_s
            await provider.subscribe("AAPL")
            assert provider._link.pause_s == 2 * before

    run(scenario())


def test_a_server_that_never_answers_is_told(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer, request_timeout_s=0.05) as provider:
            with pytest.raises(NotConnectedError, match=r"did not answer within request_timeout_s=0\.05"):
                await provider.subscribe("AAPL")
            assert provider._answers == {}

    run(scenario())


def test_a_server_that_does_not_read_holds_up_nothing(run: Run) -> None:
    """Questions fill the socket's buffers, and rows come all the same."""

    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        visitor.socket.transport.pause_reading()
        for seq in range(6, 206):
            await visitor.trades(seq, float(seq))
        await enough.wait()
        visitor.cut()

    enough = asyncio.Event()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer) as provider:
            await provider.subscribe("AAPL")
            big = [Stock("X" * 200_000) for _ in range(60)]
            asking = [asyncio.create_task(provider.subscribe(contract)) for contract in big]
            assert len(await take(provider.updates(), 200)) == 200
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            enough.set()

    run(scenario())


def test_who_reads_too_late_is_told_by_how_much(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        await visitor.trades(9, *all_prices[:10])
        await began.wait()
        for first in range(10, 1000, 10):
            await visitor.trades(10 + first, *all_prices[first : first + 10])
        await visitor.gone()

    all_prices = [float(number) for number in range(1000)]
    began = asyncio.Event()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer, capacity=100) as provider:
            updates = provider.updates()
            await provider.subscribe("AAPL")
            first = await anext(updates)
            began.set()
            await until(lambda: provider._rows._end == len(all_prices))
            seen = [first.price, *(u.price for u in await take(updates, 9))]
            rest = [u.price for u in await take(updates, 100)]
            assert (seen, rest) == (all_prices[:10], all_prices[-100:])
            assert updates.lost == 890
            assert await find(provider.events(), Lag) == Lag("", -1, 0, 0, 890, "consumer")
            assert provider.lag == LagTotals(lags=1, rows=890, consumer_rows=890)

    run(scenario())


def test_events_that_were_not_read_in_time_are_counted(run: Run) -> None:
    async def scenario() -> None:
        async with StreamPeer(idle) as peer, provider_of(peer) as provider:
            events = provider.events()
            for number in range(5000):
                provider._add_event(State("", 0, str(number)))
            lag, state = await take(events, 2)
            assert isinstance(lag, Lag)
            assert lag.family == "events"
            assert lag.rows == 5000 + 1 - 4096
            assert state == State("", 0, str(5000 - 4096))

    run(scenario())


# --- beginnings that fail ---


@pytest.mark.parametrize(
    ("status", "stage", "said"),
    [
        (401, "auth", "does not accept the token"),
        (403, "handshake", "status 403"),
        (404, "handshake", "check the path"),
        (503, "handshake", "caps"),
        (302, "handshake", "status 302"),
    ],
)
def test_a_refused_handshake_is_explained(run: Run, status: int, stage: str, said: str) -> None:
    async def scenario() -> None:
        async with StreamPeer(idle, statuses=[status]) as peer:
            with pytest.raises(ConnectError, match=said) as caught:
                await provider_of(peer, stream_token=TOKEN).__aenter__()
            assert caught.value.stage == stage
            assert TOKEN not in str(caught.value)
            assert peer.refused[0]["Authorization"] == f"Bearer {TOKEN}"
            assert len(peer.refused) == 1
            assert peer.visitors == []

    run(scenario())


def test_a_token_that_is_needed_is_said(run: Run) -> None:
    async def scenario() -> None:
        async with StreamPeer(idle, statuses=[401]) as peer:
            with pytest.raises(AuthError, match=r"wants a token .*set stream_token"):
                await provider_of(peer).__aenter__()

    run(scenario())


@pytest.mark.parametrize("ending", ["401", "expired"])
def test_a_token_that_is_over_ends_it(run: Run, ending: str) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        await visitor.take()
        await visitor.trades(6, 1.0)
        if ending == "expired":
            await visitor.say("closing", code="EXPIRED", message="the token's time is over")
        else:
            peer._statuses.append(401)
            visitor.cut()
        await visitor.gone()

    peer = StreamPeer(server)

    async def scenario() -> None:
        async with peer, provider_of(peer, stream_token=TOKEN) as provider:
            subscription = await provider.subscribe("AAPL")
            updates = provider.updates()
            assert (await anext(updates)).price == 1.0
            with pytest.raises(AuthError):
                await anext(updates)
            assert isinstance(provider.error, AuthError)
            await find(provider.events(), State, state="CLOSED")
            with pytest.raises(
                NotConnectedError, match=r"the server does not accept the token|the token's time is over"
            ):
                await subscription.update(10)
            with pytest.raises(NotConnectedError):
                await provider.subscribe("MSFT")
            assert len(peer.visitors) == 1

    run(scenario())


def test_without_reconnection_a_lost_connection_is_the_end(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        visitor.cut()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer, reconnection=ReconnectionConfig(enabled=False)) as ws:
            with pytest.raises(NotConnectedError, match="was lost"):
                await anext(ws.updates())

    run(scenario())


def test_it_is_given_up_after_so_many_attempts(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        peer._statuses += [503] * 50
        visitor.cut()

    peer = StreamPeer(server)

    async def scenario() -> None:
        settings = ReconnectionConfig(delay_s=0.001, max_delay_s=0.002, max_attempts=3)
        async with peer, provider_of(peer, reconnection=settings) as provider:
            with pytest.raises(ConnectError, match="status 503"):
                await anext(provider.updates())
            assert len(peer.refused) == 2  # and the connection that was lost at once

    run(scenario())


def test_nobody_there_is_said_with_the_remedy(run: Run, unused_port: int) -> None:
    async def scenario() -> None:
        config = Config(stream_url=f"ws://127.0.0.1:{unused_port}/stream")
        with pytest.raises(ConnectError, match=r"can't be reached.*\(tcp\): check stream_url"):
            await WebSocketProvider(config, dialect="json").__aenter__()

    run(scenario())


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""])
def test_what_is_no_stream_server_is_said(run: Run, answer: bytes) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(ConnectError, match="no stream server"):
                await WebSocketProvider(Config(stream_url=url), dialect="json").__aenter__()
        finally:
            server.close()
            await server.wait_closed()

    run(scenario())


@pytest.mark.parametrize("stage", ["accepts nothing", "says nothing"])
def test_a_server_that_hangs_is_not_waited_for(run: Run, stage: str) -> None:
    async def silent(visitor: Visitor) -> None:
        await visitor.gone()

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            if stage == "says nothing":
                url = (await stack.enter_async_context(StreamPeer(silent))).url
            else:
                listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
            provider = WebSocketProvider(Config(stream_url=url, connect_timeout_s=0.1), dialect="json")
            with pytest.raises(Error, match=r"no answer within 0\.1 s|silent for 0\.1 s"):
                await provider.__aenter__()

    run(scenario())


@pytest.mark.parametrize("subprotocol", [None, "ibfast.v1.json"])
def test_a_server_that_knows_json_alone_is_understood(run: Run, subprotocol: str | None) -> None:
    async def server(visitor: Visitor) -> None:
        assert visitor.headers["Sec-WebSocket-Protocol"] == "ibfast.v1.binary, ibfast.v1.json"
        await visitor.welcome()
        await visitor.take()
        await visitor.trades(6, 1.0)
        await visitor.gone()

    async def scenario() -> None:
        async with (
            StreamPeer(server, subprotocol=subprotocol) as peer,
            WebSocketProvider(Config(stream_url=peer.url)) as provider,
        ):
            await provider.subscribe("AAPL")
            assert (await anext(provider.updates())).price == 1.0

    run(scenario())


def test_a_provider_is_used_once(run: Run) -> None:
    async def scenario() -> None:
        async with StreamPeer(idle) as peer:
            provider = provider_of(peer)
            with pytest.raises(NotConnectedError, match="async with"):
                await provider.subscribe("AAPL")
            async with provider:
                pass
            with pytest.raises(RuntimeError, match="make a new one"):
                await provider.__aenter__()

    run(scenario())


# --- secrets ---


def test_the_token_stands_nowhere(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def server(visitor: Visitor) -> None:
        assert visitor.headers["Authorization"] == f"Bearer {TOKEN}"
        await visitor.welcome()
        if len(peer.visitors) == 1:
            visitor.cut()
        await visitor.gone()

    peer = StreamPeer(server)

    async def scenario() -> None:
        logging.getLogger("websockets.server").setLevel(logging.INFO)  # the peer's own
        async with peer, provider_of(peer, stream_token=TOKEN) as provider:
            await until(lambda: len(peer.visitors) == 2 and provider.connected)
            shown = [
                repr(provider),
                repr(provider.config),
                str(provider.last_error),
                *map(repr, provider._events._items),
            ]
            assert not [text for text in shown if TOKEN in text]

    with caplog.at_level(logging.DEBUG):
        run(scenario())
    assert "there is no stream" in caplog.text
    assert TOKEN not in caplog.text


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def scenario() -> None:
        async with StreamPeer(idle) as peer, provider_of(peer) as provider:
            assert provider.connected

    run(scenario())


def test_numpy_s_scalars_are_arguments_like_others_and_the_wrong_ones_ask_for_nothing(run: Run) -> None:
    async def server(visitor: Visitor) -> None:
        await visitor.welcome()
        request = await visitor.take()
        assert (request["symbol"], request["interval_ms"], request["ordered"]) == ("AAPL", 50, True)
        limit = await visitor.request("limit")
        await visitor.say("limited", id=limit["id"], max_bytes_per_s=limit["max_bytes_per_s"])
        await visitor.gone()

    async def scenario() -> None:
        async with StreamPeer(server) as peer, provider_of(peer) as provider:
            wrong: Any
            for wrong in ("50", 1.5, np.bool_(True)):
                with pytest.raises(TypeError, match="interval_ms="):
                    await provider.subscribe("AAPL", interval_ms=wrong)
            interval_ms: Any = np.int64(50)
            ordered: Any = np.bool_(True)
            await provider.subscribe(np.str_("AAPL"), np.str_("TRADES"), interval_ms=interval_ms, ordered=ordered)
            most: Any = np.int64(1000)
            assert await provider.limit(most) == 1000

    run(scenario())


@pytest.mark.parametrize("steps", range(5))
def test_an_end_that_is_cancelled_closes_everything(run: Run, steps: int) -> None:
    async def test() -> None:
        async def work() -> None:
            async with WebSocketProvider(Config(port=gateway.port)) as provider:
                await provider.subscribe("AAPL")
                inside.set_result(provider)
                await asyncio.Event().wait()

        inside: asyncio.Future[WebSocketProvider] = asyncio.get_running_loop().create_future()
        async with Gateway() as gateway:
            others = asyncio.all_tasks()
            working = asyncio.create_task(work())
            provider = await inside
            working.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            await until(lambda: not gateway.sessions and asyncio.all_tasks() <= others)
            assert not provider.connected
            assert provider.manager is not None
            assert not provider.manager.connected

    run(test())


@pytest.mark.parametrize("steps", range(5))
def test_an_end_just_when_the_connection_is_lost_closes_it(run: Run, steps: int) -> None:
    async def falls_silent(visitor: Visitor) -> None:
        await visitor.welcome(heartbeat_s=0.01)
        await visitor.socket.wait_closed()
        gone.set()

    async def test() -> None:
        async with StreamPeer(falls_silent) as peer:
            async with provider_of(peer) as provider:
                while provider.connected:
                    await asyncio.sleep(0)
                for _ in range(steps):
                    await asyncio.sleep(0)
            await gone.wait()

    gone = asyncio.Event()
    run(test())


def test_a_provider_of_another_loop_is_named(run: Run) -> None:
    async def elsewhere(provider: WebSocketProvider) -> None:
        for wish in (provider.subscribe("AAPL"), provider.list(), provider.ping()):
            with pytest.raises(LoopError, match="event loop of its"):
                await wish

    async def test() -> None:
        async with StreamPeer(idle) as peer, provider_of(peer) as provider:
            await asyncio.to_thread(asyncio.run, elsewhere(provider))

    run(test())
