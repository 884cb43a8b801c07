"""The provider and the real server, on real sockets: nothing is lost untold, whatever the network does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from ibfast import Config, Feed, PacingConfig, ReconnectionConfig, TlsConfig
from ibfast.client.provider import Subscription, WebSocketProvider
from ibfast.client.updates import Lag, LagTotals, Quote, State, Trade
from ibfast.errors import AuthError, ConnectError, NotConnectedError, StreamError
from ibfast.fanout.access.tokens import digest_of
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.universe import Universe
from tests.support.fanout_client import TOKEN, serving, token_of
from tests.support.fanout_desk import Desk
from tests.support.loops import WATCHDOG_S, Run, until

SERVED = ("binary", "json")
SOON = ReconnectionConfig(delay_s=0.001, max_delay_s=0.002)


@pytest.fixture(params=SERVED)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(address: tuple[str, int], dialect: str, **settings: Any) -> WebSocketProvider:
    config = Config(**{"stream_url": "ws://{}:{}".format(*address), "reconnection": SOON} | settings)
    return WebSocketProvider(config, dialect=dialect)


@contextlib.asynccontextmanager
async def behind_a_network(dialect: str, **config: Any) -> AsyncIterator[tuple[WebSocketProvider, FaultProxy, Desk]]:
    """A client that reaches a server only through a network that can fail."""
    async with (
        serving(**config) as (server, desk),
        FaultProxy(*server.address) as network,
        client_of((network.host, network.port), dialect) as provider,
    ):
        yield provider, network, desk


async def prices(updates: Any, count: int) -> list[float]:
    """The prices of the next so many trades that are news."""
    found: list[float] = []
    while len(found) < count:
        update = await anext(updates)
        if isinstance(update, Trade) and not update.is_snapshot:
            found.append(update.price)
    return found


def test_rows_arrive_as_they_are_in_the_feed(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with serving() as (server, desk), client_of(server.address, dialect) as provider:
            subscription = await provider.subscribe("AAPL", data_type="ALL", interval_ms=0, times="ns", ordered=True)
            await provider.subscribe("MSFT", data_type="TRADES", interval_ms=0, times="ns", ordered=True)
            readers = {family: getattr(desk.feed, family).reader(start="oldest") for family in ("trades", "quotes")}
            for number in range(50):
                desk.quote("AAPL", 10.0 + number / 100, 10.02 + number / 100)
                desk.trade("AAPL", 10.01 + number / 100, 0.1 + 0.2)
                desk.trade("MSFT", 1 / (number + 1))
                await asyncio.sleep(0)
            assert subscription.instruments == (0,)
            expected = {family: reader.read() for family, reader in readers.items()}
            received: dict[str, list[np.ndarray[Any, Any]]] = {"trades": [], "quotes": [], "ticks": []}
            batches = provider.batches()
            while any(sum(map(len, received[family])) < len(rows) for family, rows in expected.items()):
                batch = await anext(batches)
                assert batch.rows.dtype == Feed.dtypes[batch.family]
                if not batch.is_snapshot:
                    received[batch.family].append(batch.rows)
            for family, rows in expected.items():
                mine = np.concatenate(received[family])
                mine = mine[np.argsort(mine["seq"], kind="stable")]
                assert [provider.instruments[index] for index in mine["instrument"]] == [
                    desk.feed.instruments[index] for index in rows["instrument"]
                ]
                for name in set(rows.dtype.names or ()) - {"instrument", "req_id"}:
                    assert mine[name].tobytes() == rows[name].tobytes(), name
            assert provider.lag == LagTotals()

    run(scenario())


@pytest.mark.parametrize("verb", ["reset", "cut"])
def test_what_a_broken_network_hides_comes_afterwards(run: Run, dialect: str, verb: str) -> None:
    async def scenario() -> None:
        async with behind_a_network(dialect) as (provider, network, desk):
            updates = provider.updates()
            await provider.subscribe("AAPL", data_type="TRADES")
            await provider.subscribe("MSFT", data_type="TRADES", interval_ms=50)
            sent = []
            for turn in range(5):
                for number in range(20):
                    sent.append(float(1000 * turn + number + 1))
                    desk.trade("AAPL" if number % 3 else "MSFT", sent[-1])
                    await asyncio.sleep(0.001)
                getattr(network, verb)()
            assert sorted(await prices(updates, len(sent))) == sent
            assert provider.lag == LagTotals()
            assert network.accepted > 1

    run(scenario())


def test_order_is_kept_within_an_instrument_across_interruptions(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with behind_a_network(dialect) as (provider, network, desk):
            updates = provider.updates()
            await provider.subscribe("AAPL", data_type="TRADES", interval_ms=0)
            for number in range(200):
                desk.trade("AAPL", float(number + 1))
                if number % 40 == 20:
                    network.reset()
                await asyncio.sleep(0.0005)
            assert await prices(updates, 200) == [float(number + 1) for number in range(200)]

    run(scenario())


def test_what_was_overwritten_meanwhile_is_a_lag(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with behind_a_network(dialect, capacity=64) as (provider, network, desk):
            updates = provider.updates()
            await provider.subscribe("AAPL", data_type="TRADES")
            desk.trade("AAPL", 1.0)
            assert await prices(updates, 1) == [1.0]
            network.refuse()
            network.reset()
            await until(lambda: not provider.connected)
            for number in range(200):
                desk.trade("AAPL", 2.0 + number)
            await network.listen()
            state = await anext(updates)
            assert (state.is_snapshot, state.price) == (True, 201.0)
            desk.trade("AAPL", 500.0)
            assert await prices(updates, 1) == [500.0]
            lags = [event async for event in until_the_first(provider.events(), Lag)]
            assert (lags[-1].ticker, lags[-1].reason) == ("AAPL", "resume")
            assert provider.lag.lags == 1

    run(scenario())


async def until_the_first(events: Any, kind: type) -> AsyncIterator[Any]:
    """Events up to the first of a kind."""
    async for event in events:
        yield event
        if isinstance(event, kind):
            return


def test_a_server_that_was_started_anew_is_a_lag(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(contextlib.AsyncExitStack())
            server, desk = await first.enter_async_context(serving())
            network = await stack.enter_async_context(FaultProxy(*server.address))
            provider = await stack.enter_async_context(client_of((network.host, network.port), dialect))
            updates = provider.updates()
            subscription = await provider.subscribe("AAPL", data_type="TRADES")
            desk.trade("AAPL", 1.0)
            assert await prices(updates, 1) == [1.0]
            await first.aclose()
            server, desk = await stack.enter_async_context(serving())
            network.target_host, network.target_port = server.address
            await until(lambda: subscription.state == "LIVE" and provider.connected and desk.lines)
            desk.trade("AAPL", 2.0)
            while (update := await anext(updates)).price != 2.0:
                assert update.is_snapshot
            seen = [event async for event in until_the_first(provider.events(), Lag)]
            assert any("SHUTDOWN" in event.reason for event in seen if isinstance(event, State))
            assert isinstance(seen[-1], Lag)

    run(scenario())


def test_a_client_that_is_held_up_gets_the_state_and_a_lag(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            serving(backlog_bytes=1024) as (server, desk),
            FaultProxy(*server.address) as network,
            client_of((network.host, network.port), dialect) as provider,
        ):
            updates, sent, read = provider.updates(), 0, 0
            await provider.subscribe("AAPL", data_type="TRADES", interval_ms=0, ordered=True)
            rng = np.random.default_rng(5)
            network.freeze()
            while not any(each.session and each.session.subscriber.is_behind for each in server.connections):
                desk.trade("AAPL", *rng.random(500))  # equal ones are so small that the sockets hold seconds' worth
                sent += 500
                await asyncio.sleep(0)
            last = 2.0
            desk.trade("AAPL", last)
            network.thaw()
            while (update := await anext(updates)).price != last:
                read += not update.is_snapshot
            assert update.is_snapshot
            lags = [event for event in list(provider._events._items) if isinstance(event[1], Lag)]
            assert [lag.ticker for _, lag in lags if lag.reason == "slow"] == ["AAPL"]
            assert read + provider.lag.rows == sent + 1
            assert provider.lag.unknown == 0
            assert provider.connected
            desk.trade("AAPL", 0.5)
            assert await prices(updates, 1) == [0.5]

    run(scenario())


def test_intervals_change_while_rows_flow(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with serving() as (server, desk), client_of(server.address, dialect) as provider:
            updates = provider.updates()
            subscription = await provider.subscribe("AAPL", data_type="TRADES")
            sent = 0
            for interval_ms in (0, 50, 10, 100, 0):
                for _ in range(10):
                    sent += 1
                    desk.trade("AAPL", float(sent))
                    await asyncio.sleep(0)
                await subscription.update(interval_ms)
            assert await prices(updates, sent) == [float(number + 1) for number in range(sent)]
            with pytest.raises(StreamError, match="interval_ms"):
                await subscription.update(7)

    run(scenario())


def test_modes_and_fields(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with serving() as (server, desk), client_of(server.address, dialect) as provider:
            updates = provider.updates()
            conflated = await provider.subscribe("AAPL", mode="conflate", interval_ms=50, fields=["bid", "ask"])
            for number in range(30):
                desk.quote("AAPL", 1.0 + number, 2.0 + number)
            while (quote := await anext(updates)).bid != 30.0:
                assert isinstance(quote, Quote)
            assert np.isnan(quote.bid_size)
            await conflated.unsubscribe()
            once = await provider.subscribe("AAPL", mode="snapshot")
            quote = await anext(updates)
            assert (quote.is_snapshot, quote.bid, quote.ask, quote.bid_size) == (True, 30.0, 31.0, 100.0)
            await until(lambda: not once.live)
            assert once.error is None

    run(scenario())


def test_what_is_asked_of_the_session(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with behind_a_network(dialect) as (provider, network, _):
            assert await provider.list() == []
            assert 0 < await provider.ping() < WATCHDOG_S
            await provider.subscribe("AAPL", data_type="TRADES", interval_ms=50)
            (listed,) = await provider.list()
            assert (listed["data_type"], listed["interval_ms"], listed["state"]) == ("TRADES", 50, "LIVE")
            assert [channel["symbol"] for channel in listed["channels"]] == ["AAPL"]
            for wrong in (-1, 1.5, True, 1 << 41, "9"):
                with pytest.raises(ValueError, match="max_bytes_per_s"):
                    await provider.limit(wrong)  # type: ignore[arg-type]
            network.refuse()
            network.reset()
            await until(lambda: not provider.connected)
            for question in (provider.list(), provider.ping(), provider.limit(5000)):
                with pytest.raises(NotConnectedError, match="no connection now"):
                    await question
            await network.listen()
            await until(lambda: provider.connected)
            while not (relisted := await provider.list()):  # what it had is asked for again after the welcome
                await asyncio.sleep(0.01)
            assert relisted[0]["interval_ms"] == 50
        with pytest.raises(NotConnectedError):
            await provider.list()

    run(scenario())


def test_a_limit_outlives_the_connection(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            serving() as (server, desk),
            FaultProxy(*server.address) as network,
            client_of((network.host, network.port), dialect) as provider,
        ):
            assert await provider.limit(20_000) == 20_000
            for _ in range(2):
                await until(
                    lambda: [each.session.max_bytes_per_s for each in server.connections if each.session] == [20_000]
                )
                network.reset()
                await until(lambda: not provider.connected)
                await until(lambda: provider.connected)
            subscription = await provider.subscribe("AAPL", data_type="TRADES", interval_ms=0)
            rng = np.random.default_rng(5)
            while not provider.lag.lags:
                desk.trade("AAPL", *rng.random(2000))  # at once more than a burst, in whatever dialect
                await asyncio.sleep(0.001)
            assert subscription.live
            assert await provider.limit(0) == 0

    run(scenario())


def test_a_server_allows_no_more_than_the_token_does(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with (
            serving(tokens=token_of(max_bytes_per_s=9000)) as (server, _),
            client_of(server.address, dialect, stream_token=TOKEN) as provider,
        ):
            assert [await provider.limit(asked) for asked in (0, 10_000, 8000)] == [9000, 9000, 8000]

    run(scenario())


def test_over_tls_with_an_authority_of_one_s_own(run: Run, dialect: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key, trusted = tmp_path / "chain.pem", tmp_path / "server.key", tmp_path / "ca.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    for path in (chain, trusted):
        path.touch(mode=0o644)
    authority.cert_pem.write_to_path(str(trusted))
    files = {"certificate_file": str(chain), "key_file": str(key)}

    async def scenario() -> None:
        async with serving(files, token_of()) as (server, desk):
            url = "wss://{}:{}/stream".format(*server.address)
            known = {"stream_url": url, "stream_token": TOKEN, "tls": TlsConfig(ca_file=str(trusted))}
            async with client_of(server.address, dialect, **known) as provider:
                updates = provider.updates()
                await provider.subscribe("AAPL", data_type="TRADES", interval_ms=0)
                for number in range(500):
                    desk.trade("AAPL", number + 1.0)
                assert await prices(updates, 500) == [number + 1.0 for number in range(500)]
                assert provider.lag == LagTotals()
            with pytest.raises(ConnectError, match=r"\(tls\): .*tls\.ca_file"):
                await client_of(server.address, dialect, stream_url=url, stream_token=TOKEN).__aenter__()
            with pytest.raises(ConnectError):
                await client_of(server.address, dialect, stream_token=TOKEN).__aenter__()  # ws:// where TLS is spoken

    run(scenario())


def test_what_the_server_refuses_is_raised(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with serving() as (server, _), client_of(server.address, dialect) as provider:
            for contract, options, code in (
                ("XYZZY", {}, "UNKNOWN_CONTRACT"),
                ("AAPL", {"data_type": "WEATHER"}, "BAD_FIELD"),
                ("AAPL", {"mode": "sometimes"}, "BAD_FIELD"),
                ("AAPL", {"fields": ["moon"]}, "BAD_FIELD"),
            ):
                with pytest.raises(StreamError) as caught:
                    await provider.subscribe(contract, **options)  # type: ignore[arg-type]
                assert caught.value.code == code

    run(scenario())


def test_tokens(run: Run, dialect: str, tmp_path: Path) -> None:
    token = "t" * 40
    file = tmp_path / "tokens.toml"
    file.touch(mode=0o600)
    file.write_text(f'[desk]\nsha256 = "{digest_of(token).hex()}"\nsymbols = ["AAPL"]\n')

    async def scenario() -> None:
        async with serving({"tokens_file": os.fspath(file)}) as (server, _):
            for settings in ({}, {"stream_token": "w" * 40}):
                with pytest.raises(AuthError):
                    await client_of(server.address, dialect, **settings).__aenter__()
            async with client_of(server.address, dialect, stream_token=token) as provider:
                await provider.subscribe("AAPL")
                with pytest.raises(StreamError, match=r"FORBIDDEN: .*ask the server's owner"):
                    await provider.subscribe("MSFT")

    run(scenario())


# --- the whole engine in this process ---


@contextlib.asynccontextmanager
async def market(rate: float = 2000.0) -> AsyncIterator[Config]:
    """An embedded gateway; yield how to connect to it."""
    async with Gateway(market=Market(Universe.builtin(), seed=3, rate=rate), pacing=False) as gateway:
        yield Config(port=gateway.port, pacing=PacingConfig(enforced=False), reconnection=SOON)


def test_without_a_server_the_engine_runs_here(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with market() as config, WebSocketProvider(config, dialect=dialect) as ws:
            assert ws.manager is not None
            assert ws.manager.connected
            await ws.subscribe("AAPL", data_type="TRADES")
            subscription = await ws.subscribe("MSFT", data_type="QUOTES")
            assert isinstance(subscription, Subscription)
            seen = set()
            async for update in ws.updates():
                seen.add((update.ticker, update.family))
                assert np.isnan(update.price) == (update.family == "quotes")
                if len(seen) == 2:
                    break
            assert seen == {("AAPL", "trades"), ("MSFT", "quotes")}
        assert not ws.manager.connected

    run(scenario())


def test_nobody_else_can_use_the_server_of_this_process(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with market() as config, WebSocketProvider(config, dialect=dialect) as ws:
            for settings in ({}, {"stream_token": "w" * 43}):
                with pytest.raises(AuthError):
                    await WebSocketProvider(Config(stream_url=ws.url, **settings), dialect=dialect).__aenter__()

    run(scenario())


def test_a_gateway_that_is_not_there_is_said(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with market() as config:
            pass
        with pytest.raises(ConnectError, match=r"\(tcp\)"):
            await WebSocketProvider(config, dialect=dialect).__aenter__()

    run(scenario())


def test_a_gateway_that_is_lost_and_found_is_a_gap(run: Run, dialect: str) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            config = await stack.enter_async_context(market())
            network = await stack.enter_async_context(FaultProxy("127.0.0.1", config.port))
            through = Config(port=network.port, pacing=config.pacing, reconnection=SOON)
            ws = await stack.enter_async_context(WebSocketProvider(through, dialect=dialect))
            updates, events = ws.updates(), ws.events()
            await ws.subscribe("AAPL", data_type="QUOTES")
            await anext(updates)
            network.reset()
            gaps = []
            while not (gaps and gaps[-1].recovered):
                event = await anext(events)
                if hasattr(event, "recovered"):
                    gaps.append(event)
            assert {(gap.ticker, gap.cause.name) for gap in gaps} == {("AAPL", "CONNECTION_LOST")}

    run(scenario())
