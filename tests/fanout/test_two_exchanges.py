"""One contract at two exchanges is two instruments, from the gateway's socket to the last subscriber.

In the rings, the last values and the streams of this process and of others; in the fan-out, in both dialects, and over
the simulator. And two requests of one instrument are two books.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from ibfast import Config, Feed, IBKRConnectionManager, PacingConfig, WebSocketProvider
from ibfast.client.updates import Trade
from ibfast.codec.positions import position_of
from ibfast.config import FanoutConfig
from ibfast.contracts import ComboLeg, Contract
from ibfast.fanout.server import FanoutServer
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.ticks import DepthUpdate, TickPrice
from ibfast.sim.universe import Universe
from ibfast.wire.requests import MarketData, MarketDepth
from tests.support.conversations import AAPL, answer_details, session
from tests.support.fanout_binary_client import BinaryClient, binary_client
from tests.support.fanout_client import BEARER, JsonClient, client_of, rows_of, serving, token_of
from tests.support.loops import Run, until
from tests.support.peer import Caller

AT = {exchange: replace(AAPL, exchange=exchange) for exchange in ("SMART", "ISLAND")}
BID, LAST = 1, 4
ISLAND = {"contract": {"symbol": "AAPL", "sec_type": "STK", "exchange": "ISLAND", "currency": "USD"}}
SMART = {"symbol": "AAPL"}


# --- in this process ---


async def gateway_of_two(caller: Caller) -> None:
    """Serve AAPL at two exchanges: prices below 100 at SMART, above 100 at ISLAND; books of other sizes."""
    lines = []
    for _ in AT:
        await answer_details(caller, replace(AAPL, exchange=""))
        lines.append(await caller.request(MarketData))
    for line in lines:
        depth = await caller.request(MarketDepth)
        assert depth.contract == line.contract
        higher = 100 * (line.contract.exchange == "ISLAND")
        caller.send(TickPrice(line.req_id, BID, higher + 1.5, 3), TickPrice(line.req_id, LAST, higher + 2.5, 2))
        caller.send(*(DepthUpdate(depth.req_id, row, 0, 1, higher + row, 1) for row in range(depth.num_rows)))


def test_streams_and_last_values_of_two_exchanges(run: Run) -> None:
    async def test() -> None:
        async with session(gateway_of_two) as manager:
            feed = manager.feed
            quotes = {exchange: await manager.subscribe(contract, "QUOTES") for exchange, contract in AT.items()}
            trades = {exchange: await manager.subscribe(contract, "TRADES") for exchange, contract in AT.items()}
            books = {
                exchange: await manager.subscribe(contract, "DEPTH", num_rows=num_rows)
                for num_rows, (exchange, contract) in enumerate(AT.items(), 4)
            }
            for exchange, higher in (("SMART", 0), ("ISLAND", 100)):
                bids, book = await anext(quotes[exchange]), await anext(books[exchange])
                assert bids["bid"].tolist() == [higher + 1.5]
                assert (await anext(trades[exchange]))["price"].tolist() == [higher + 2.5]
                assert book["price"].tolist() == [higher + row for row in range(4 + (exchange == "ISLAND"))]
                instrument = feed.instruments.index("AAPL", exchange)
                assert {quotes[exchange].instrument, books[exchange].instrument} == {instrument}
                assert (feed.instruments.con_id(instrument), feed.instruments.exchange(instrument)) == (
                    265598,
                    exchange,
                )
                assert feed.last[["bid", "last"]][instrument].item() == (higher + 1.5, higher + 2.5)
                for ring in ("quotes", "trades", "ticks", "depth"):
                    rows = feed.rings[ring].reader(start="oldest").read()
                    of_requests = np.isin(rows["req_id"], [quotes[exchange].req_id, books[exchange].req_id])
                    assert ((rows["instrument"] == instrument) == of_requests).all()
            assert manager.details_of(AT["ISLAND"]) is not None
            assert manager.details_of(replace(AAPL, exchange="IEX")) is None

    run(test())


def test_two_requests_of_one_instrument_are_two_books(run: Run) -> None:
    """SMART depth and the number of rows belong to the request."""

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        for _ in range(3):
            request = await caller.request(MarketDepth)
            price = request.num_rows + 100 * request.is_smart_depth
            caller.send(*(DepthUpdate(request.req_id, row, 0, 1, price, row) for row in range(request.num_rows)))

    async def test() -> None:
        async with session(gateway) as manager:
            options: list[dict[str, Any]] = [
                {"num_rows": 5, "is_smart_depth": True}, {"num_rows": 5, "is_smart_depth": False}, {"num_rows": 3},
            ]  # fmt: skip
            streams = [await manager.subscribe("AAPL", "DEPTH", **each) for each in options]
            assert len({stream.instrument for stream in streams}) == 1
            assert [(await anext(stream))["price"].tolist() for stream in streams] == [
                [105.0] * 5,
                [5.0] * 5,
                [103.0] * 3,
            ]

    run(test())


# --- the fan-out ---


Client = JsonClient | BinaryClient


@pytest.fixture(params=[client_of, binary_client])
def connect(request: pytest.FixtureRequest) -> Any:
    """Makes a client of either dialect."""
    return partial(request.param, close_timeout=0.2)


class Reader:
    """What a client has received of one subscription's family, with the book that its rows make."""

    def __init__(self, client: Any, family: str) -> None:
        self.client = client
        self.family = family
        self.rows: list[Any] = []
        self.channels: list[dict[str, Any]] = []
        self._binary = 0

    async def subscribe(self, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.ask("subscribe", data_type=self.family.upper(), **options)
        self.channels += answer.get("channels", ())
        return answer

    async def hear(self) -> None:
        message = await self.client.hear()
        if isinstance(self.client, JsonClient):
            self.rows += rows_of(message, self.family)
        else:
            parts = self.client.rows[self.family]
            self.rows += [
                dict(zip(part.dtype.names, row, strict=True)) for part in parts[self._binary :] for row in part
            ]
            self._binary = len(parts)

    async def prices(self, count: int) -> list[float]:
        """The prices of the next so many rows."""
        while len(self.rows) < count:
            await self.hear()
        taken, self.rows = self.rows[:count], self.rows[count:]
        return [row["price"] for row in taken]


def test_a_subscriber_gets_the_rows_of_its_exchange(run: Run, connect: Any) -> None:
    async def test() -> None:
        async with (
            serving() as (server, desk),
            connect(server) as honest,
            connect(server) as other,
            connect(server) as late,
        ):
            readers = {"SMART": Reader(honest, "trades"), "ISLAND": Reader(other, "trades")}
            for exchange, request in (("SMART", SMART), ("ISLAND", ISLAND)):
                await readers[exchange].subscribe(**request)
                (channel,) = readers[exchange].channels
                assert (channel["symbol"], channel["con_id"], channel["exchange"]) == ("AAPL", 1, exchange)
            assert readers["SMART"].channels[0]["instrument"] != readers["ISLAND"].channels[0]["instrument"]
            for number in range(20):
                desk.trade("AAPL", 1.0 + number, exchange="SMART")
                desk.trade("AAPL", 101.0 + number, exchange="ISLAND")
            assert await readers["SMART"].prices(20) == [1.0 + number for number in range(20)]
            assert await readers["ISLAND"].prices(20) == [101.0 + number for number in range(20)]
            await late.ask("subscribe", data_type="TRADES", **SMART)
            snapshot = await late.until("snapshot")
            assert [row["price"] for row in snapshot["rows"]["trades"]] == [20.0]

    run(test())


def test_books_of_two_exchanges(run: Run, connect: Any) -> None:
    async def test() -> None:
        async with serving() as (server, desk), connect(server) as honest, connect(server) as other:
            reader = Reader(honest, "depth")
            await reader.subscribe(**SMART)
            await other.ask("subscribe", data_type="DEPTH", **ISLAND)
            for level in range(10):
                for exchange in AT:
                    desk.book("AAPL", (level, 0, 1, 10.0 + level, 1.0), exchange=exchange)
            assert await reader.prices(10) == [10.0 + level for level in range(10)]
            async with connect(server) as late:
                await late.ask("subscribe", data_type="DEPTH", **SMART)
                assert len((await late.until("snapshot"))["rows"]["depth"]) == 10

    run(test())


def test_a_client_resumes_its_exchange_alone(run: Run, connect: Any) -> None:
    async def test() -> None:
        async with serving() as (server, desk), connect(server) as keeper:
            seen = []
            for request in (SMART, ISLAND):
                (channel,) = (await keeper.ask("subscribe", data_type="TRADES", **request))["channels"]
                position = position_of(desk.feed.seq, channel["class"])
                seen.append({"epoch": channel["epoch"], "position": position})
            for number in range(5):
                desk.trade("AAPL", 1.0 + number, exchange="SMART")
                desk.trade("AAPL", 101.0 + number, exchange="ISLAND")
            for request, first, resume in ((SMART, 1.0, seen[0]), (ISLAND, 101.0, seen[1])):
                async with connect(server) as client:
                    reader = Reader(client, "trades")
                    assert (await reader.subscribe(resume=resume, **request))["resumed"] is True
                    assert await reader.prices(5) == [first + number for number in range(5)]

    run(test())


@pytest.mark.parametrize("dialect", ["binary", "json"])
def test_the_python_client_tells_exchanges_apart(run: Run, dialect: str) -> None:
    async def test() -> None:
        async with (
            serving() as (server, desk),
            WebSocketProvider(Config(stream_url="ws://{}:{}".format(*server.address)), dialect=dialect) as provider,
        ):
            updates = provider.updates()
            for contract in ("AAPL", replace(AT["ISLAND"], con_id=0)):
                await provider.subscribe(contract, "TRADES")
            for number in range(10):
                desk.trade("AAPL", 1.0 + number, exchange="SMART")
                desk.trade("AAPL", 101.0 + number, exchange="ISLAND")
            prices: dict[str, list[float]] = {"SMART": [], "ISLAND": []}
            while sum(map(len, prices.values())) < 20:
                update = await anext(updates)
                if isinstance(update, Trade) and not update.is_snapshot:
                    prices[provider.instruments.exchange(update.instrument)].append(update.price)
            assert prices == {
                exchange: [first + number for number in range(10)]
                for exchange, first in (("SMART", 1.0), ("ISLAND", 101.0))
            }

    run(test())


LEGS = [tuple(ComboLeg(con_id, 1, "BUY", "SMART") for con_id in pair) for pair in ((1, 2), (1, 3))]


@pytest.mark.parametrize("dialect", ["binary", "json"])
@pytest.mark.parametrize("con_id", [0, 1])
def test_two_combos_of_one_label_are_two_instruments(run: Run, dialect: str, con_id: int) -> None:
    """Whatever con_id a client writes beside the legs: it is no way into the stock's rows."""

    async def test() -> None:
        async with (
            serving() as (server, desk),
            client_of(server) as honest,
            WebSocketProvider(Config(stream_url="ws://{}:{}".format(*server.address)), dialect=dialect) as provider,
        ):
            await honest.ask("subscribe", data_type="TRADES", **SMART)
            updates = provider.updates()
            for legs in LEGS:
                await provider.subscribe(Contract(con_id, "AAPL", "BAG", exchange="SMART", combo_legs=legs), "TRADES")
            for number in range(5):
                desk.trade("AAPL", 1.0 + number)
                for legs, first in zip(LEGS, (101.0, 201.0), strict=True):
                    desk.trade("AAPL", first + number, legs=legs)
            prices: dict[int, list[float]] = {}
            while sum(map(len, prices.values())) < 10:
                update = await anext(updates)
                if isinstance(update, Trade) and not update.is_snapshot:
                    prices.setdefault(update.instrument, []).append(update.price)
            assert [*prices.values()] == [[first + number for number in range(5)] for first in (101.0, 201.0)]
            assert [row["price"] for row in await honest.news("trades", 5)] == [1.0 + number for number in range(5)]

    run(test())


def test_an_exchange_is_a_new_instrument_for_a_token(run: Run) -> None:
    """For its budget, and for the least time between two requests of one instrument."""

    async def test() -> None:
        tokens = token_of(new_instruments=2, least_interval_ms=1000)
        async with serving(tokens=tokens) as (server, _), client_of(server, **BEARER) as client:
            options = {"data_type": "TRADES", "interval_ms": 1000}
            assert (await client.ask("subscribe", **SMART, **options))["op"] == "subscribed"
            assert (await client.ask("subscribe", **SMART, **options))["code"] == "TOO_FAST"
            assert (await client.ask("subscribe", **ISLAND, **options))["op"] == "subscribed"
            arca = {"contract": {**ISLAND["contract"], "exchange": "ARCA"}}
            assert (await client.ask("subscribe", **arca, **options))["code"] == "TOO_MANY"

    run(test())


# --- the whole path, over the simulator ---


@contextlib.asynccontextmanager
async def simulated(name: str | None = None) -> AsyncIterator[tuple[FanoutServer, IBKRConnectionManager]]:
    """A server of a gateway's data; with a name, its feed is shared."""
    with Feed(1 << 14, name=name, max_instruments=64) as feed:
        async with (
            Gateway(market=Market(Universe.builtin(), seed=3, rate=2000), pacing=False) as gateway,
            IBKRConnectionManager(Config(port=gateway.port, pacing=PacingConfig(enforced=False)), feed) as manager,
            FanoutServer(feed, manager, FanoutConfig(port=0, linger_s=0)) as server,
        ):
            yield server, manager


def own_rows(feed: Any, family: str, req_ids: set[int]) -> Any:
    rows = feed.rings[family].reader(start="oldest").read()
    return rows[np.isin(rows["req_id"], list(req_ids))]


@pytest.mark.parametrize("family", ["trades", "quotes", "depth"])
def test_rows_of_a_simulated_exchange_are_no_others(run: Run, connect: Any, family: str) -> None:
    """Every row that the first client gets is one of its own request, in order and with none left out."""

    async def test() -> None:
        async with simulated() as (server, manager), connect(server) as honest, connect(server) as other:
            reader = Reader(honest, family)
            await reader.subscribe(ordered=True, **SMART)
            await other.ask("subscribe", data_type=family.upper(), **ISLAND)
            (of_smart,) = (s.req_ids for s in manager.session.subscriptions.values() if _at(s) == "SMART")
            (of_island,) = (s.req_ids for s in manager.session.subscriptions.values() if _at(s) == "ISLAND")
            await until(lambda: len(own_rows(manager.feed, family, {*of_island})) > 50)
            seq = manager.feed.seq
            while not reader.rows or reader.rows[-1]["seq"] < seq:
                await reader.hear()
            got = [row["seq"] for row in reader.rows]
            expected = own_rows(manager.feed, family, {*of_smart})["seq"]
            assert got == expected[(expected >= got[0]) & (expected <= got[-1])].tolist()

    run(test())


def test_a_request_of_this_process_is_no_part_of_a_subscriber_s_book(run: Run, connect: Any) -> None:
    """It is of the same instrument, and of another number of rows."""

    async def test() -> None:
        async with simulated() as (server, manager), connect(server) as client:
            own = await manager.subscribe("AAPL", "DEPTH", num_rows=3)
            reader = Reader(client, "depth")
            await reader.subscribe(ordered=True, **SMART)
            await until(lambda: len(own_rows(manager.feed, "depth", {own.req_id})) > 50)
            seq = manager.feed.seq
            while not reader.rows or reader.rows[-1]["seq"] < seq:
                await reader.hear()
            (shared,) = (s.req_id for s in manager.session.subscriptions.values() if s.req_id != own.req_id)
            expected = own_rows(manager.feed, "depth", {shared})["seq"]
            got = [row["seq"] for row in reader.rows]
            assert got == expected[(expected >= got[0]) & (expected <= got[-1])].tolist()
            async with connect(server) as late:
                await late.ask("subscribe", data_type="DEPTH", **SMART)
                rows = (await late.until("snapshot"))["rows"]["depth"]
                assert max(row["position"] for row in rows) == 9

    run(test())


def _at(subscription: Any) -> str:
    return str(subscription.request.contract.exchange)


READ_ATTACHED = """
import json, sys
from ibfast import Feed
feed = Feed.attach(sys.argv[1])
rows = feed.ticks.reader(start="oldest").read()
pairs = sorted({(int(row["req_id"]), feed.instruments.exchange(row["instrument"])) for row in rows})
con_ids = [feed.instruments.con_id(index) for index in range(len(feed.instruments))]
print(json.dumps([con_ids, pairs, feed.instruments.index("AAPL"), feed.instruments.index("AAPL", "ISLAND")]))
"""


def test_a_reader_in_another_process_sees_the_exchange(run: Run) -> None:
    async def test() -> None:
        name = f"two-exchanges-{os.getpid()}"
        async with simulated(name) as (_, manager):
            # ISLAND first: SMART is what a label alone means, whichever came last.
            contracts = {exchange: replace(AT[exchange], con_id=0) for exchange in ("ISLAND", "SMART")}
            streams = {exchange: await manager.subscribe(each, "TICKS") for exchange, each in contracts.items()}
            for stream in streams.values():
                assert len(await anext(stream))
            program = [sys.executable, "-c", READ_ATTACHED, name]
            read = await asyncio.to_thread(subprocess.run, program, check=True, capture_output=True)
            con_ids, pairs, apple, at_island = json.loads(read.stdout)
            assert con_ids == [streams["SMART"].contract.con_id] * 2
            assert {tuple(pair) for pair in pairs} == {(stream.req_id, each) for each, stream in streams.items()}
            assert (apple, at_island) == (1, 0)

    run(test())
