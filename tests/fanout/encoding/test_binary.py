"""The binary dialect from end to end: what the rings hold arrives, to the bit, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

import numpy as np
import pytest

from ibfast.codec.positions import position_of
from tests.support.fanout_binary_client import BinaryClient, binary_client
from tests.support.fanout_client import serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, until

ODD_PRICES = [0.01, 231.05, 231.06, 0.1 + 0.2, 1e-300, 12345.678901234, -0.0, float("nan"), 1.7976931348623157e308]


def bits(values: Any) -> list[bytes]:
    return [struct.pack("<d", value) for value in values.tolist()]


def ring(desk: Desk, family: str) -> Any:
    return getattr(desk.feed, family).reader(start="oldest").read()


@pytest.mark.parametrize("interval_ms", [0, 10, 50])
@pytest.mark.parametrize("options", [{}, {"times": "ns", "ordered": True}])
def test_rows_arrive_to_the_bit(run: Run, interval_ms: int, options: dict[str, Any]) -> None:
    async def test() -> None:
        async with serving() as (server, desk), binary_client(server) as client:
            answer = await client.ask("subscribe", symbol="AAPL", data_type="ALL", interval_ms=interval_ms, **options)
            assert answer["channels"][0]["families"] == ["quotes", "trades", "ticks"]
            await client.until("snapshot")
            for price in ODD_PRICES * 5:
                desk.trade("AAPL", price)
                desk.quote("AAPL", price, 7.25)
                desk.text("AAPL", f"KZQ{price}")
                await asyncio.sleep(0.001)
            sent = ring(desk, "ticks")
            rows = await client.news("ticks", len(sent))
            for name in ("price", "size"):
                assert bits(rows[name]) == bits(sent[name])
            for name in ("kind", "tick_type", "attribs", "text", "instrument"):
                assert rows[name].tolist() == sent[name].tolist()
            unit_ns = 1 if options else 1000
            assert rows["recv_ns"].tolist() == (sent["recv_ns"] // unit_ns * unit_ns).tolist()
            assert {client.texts[text_id] for text_id in rows["text"].tolist()} == set(desk.feed.texts) - {
                "<other>",
                "AAPL",
            }
            quotes = await client.news("quotes", len(ring(desk, "quotes")))
            assert bits(quotes["bid"]) == bits(ring(desk, "quotes")["bid"])
            if options:
                seqs = sorted(seq for parts in client.rows.values() for part in parts for seq in part["seq"].tolist())
                assert seqs == list(range(1, desk.feed.seq + 1))

    run(test())


def test_who_joins_gets_the_same_as_who_was_there(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), contextlib.AsyncExitStack() as stack:
            clients: list[BinaryClient] = []
            joined_at: list[int] = []
            for i in range(60):
                if i % 20 == 0:
                    clients.append(await stack.enter_async_context(binary_client(server)))
                    for symbol in ("MSFT", "AAPL", "NVDA"):
                        await clients[-1].ask("subscribe", symbol=symbol, data_type="TRADES", interval_ms=10)
                    snapshot = await clients[-1].until("snapshot")
                    while len(clients[-1].snapshots) < 3:
                        snapshot = await clients[-1].until("snapshot")
                    joined_at.append(int(snapshot["seq"]))
                desk.trade("AAPL", 100.0 + i)
                desk.trade("MSFT", 200.0 + i)
                await asyncio.sleep(0.002)
            total = len(ring(desk, "trades"))
            prices = [
                (await client.news("trades", total - 40 * n))["price"].tolist() for n, client in enumerate(clients)
            ]
            assert sorted(prices[0]) == sorted(ring(desk, "trades")["price"].tolist())
            assert prices[1] == prices[0][40:]
            assert prices[2] == prices[0][80:]

    run(test())


def test_who_joins_knows_the_texts_that_were_used_before(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), binary_client(server) as first, binary_client(server) as second:
            await first.ask("subscribe", symbol="AAPL", data_type="TICKS", interval_ms=0)
            desk.text("AAPL", "KQ")
            await first.news("ticks", 1)
            await second.ask("subscribe", symbol="AAPL", data_type="TICKS", interval_ms=0)
            desk.text("AAPL", "KQ")
            desk.text("AAPL", "NEW")
            for client, count in ((first, 3), (second, 2)):
                rows = await client.news("ticks", count)
                assert [client.texts[text_id] for text_id in rows["text"].tolist()[-2:]] == ["KQ", "NEW"]

    run(test())


def test_a_channel_can_be_left_and_its_number_given_to_another(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), binary_client(server) as client:
            for symbol in ("AAPL", "MSFT"):
                await client.ask("subscribe", symbol=symbol, data_type="TRADES", interval_ms=0)
            await client.ask("unsubscribe", subscription=1)
            answer = await client.ask("subscribe", symbol="NVDA", data_type="TRADES", interval_ms=0)
            assert answer["channels"][0]["channel"] == 0
            await client.until("snapshot")
            desk.trade("NVDA", 1.0)
            desk.trade("AAPL" if "AAPL" in desk.lines else "MSFT", 2.0)
            rows = await client.news("trades", 2)
            assert rows[["instrument", "price"]].tolist() == [(2, 1.0), (1, 2.0)]

    run(test())


def test_an_interval_changes_without_a_loss(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), binary_client(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            for i, interval_ms in enumerate((100, 0, 50, 10, 10, 250)):
                desk.trade("AAPL", *(i * 10.0 + n for n in range(10)))
                await client.ask("update", subscription=1, interval_ms=interval_ms)
                assert (await client.until("snapshot"))["rows"]["trades"]["price"].tolist() == [i * 10.0 + 9]
            assert (await client.news("trades", 60))["price"].tolist() == [float(i) for i in range(60)]

    run(test())


def test_who_is_first_to_want_a_symbol_gets_it_on_its_grid_after_a_while(run: Run) -> None:
    """And so do those who join, come back or lose something meanwhile."""

    async def test() -> None:
        wanted = {"symbol": "AAPL", "data_type": "TRADES", "interval_ms": 0}
        async with serving() as (server, desk), binary_client(server) as first, binary_client(server) as second:
            await first.ask("subscribe", **wanted)
            prices = np.random.default_rng(1).integers(6_100_000, 6_100_050, 80) / 1e8
            for count, price in enumerate(prices.tolist(), 1):
                desk.trade("AAPL", price)
                await first.news("trades", count)
                if count == 16:  # the next row tells the grid
                    await second.ask("subscribe", **wanted)
                    await second.until("snapshot")
            assert bits((await first.news("trades", 80))["price"]) == bits(prices)
            assert bits((await second.news("trades", 64))["price"]) == bits(prices[16:])
            assert sum(first.sizes[-8:]) < sum(first.sizes[1:9])
            assert first.sizes[17:] == second.sizes[1:]
            seen = first.seen(first.seqs[7])
            async with binary_client(server) as back:
                assert (await back.ask("subscribe", **wanted, resume=seen))["resumed"] is True
                assert bits((await back.news("trades", 72))["price"]) == bits(prices[8:])

    run(test())


def test_who_comes_back_gets_what_it_missed(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), binary_client(server) as other:
            await other.ask("subscribe", symbol="AAPL", data_type="TICKS", interval_ms=0)
            async with binary_client(server) as client:
                await client.ask("subscribe", symbol="AAPL", data_type="TICKS", interval_ms=0)
                desk.text("AAPL", "NQ")
                for price in np.random.default_rng(1).random(1000).round(2).tolist():  # from these both sides learn
                    desk.trade("AAPL", price)
                before = await client.news("ticks", len(ring(desk, "ticks")))
                seen = client.seen(client.seqs[-1])
            desk.trade("AAPL", 3.0, 4.0)
            desk.text("AAPL", "PZ")
            async with binary_client(server) as client:
                answer = await client.ask("subscribe", symbol="AAPL", data_type="TICKS", interval_ms=0, resume=seen)
                assert answer["resumed"] is True
                for price in (5.0, 5.01, 4000.0):
                    desk.trade("AAPL", price)
                sent = ring(desk, "ticks")
                rows = await client.news("ticks", len(sent) - len(before))
                assert bits(rows["price"]) == bits(sent["price"][len(before) :])
                assert rows["text"].tolist() == sent["text"][len(before) :].tolist()
                assert {client.texts[text_id] for text_id in rows["text"].tolist()} == {"", "PZ"}

    run(test())


def test_what_a_slow_subscriber_misses_is_told(run: Run) -> None:
    async def test() -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        async with serving(backlog_bytes=1 << 12) as (server, desk):
            await asyncio.get_running_loop().sock_connect(sock, server.address)
            async with binary_client(server, sock=sock, max_queue=1, ping_interval=None) as client:
                await client.ask(
                    "subscribe", symbol="AAPL", data_type="TRADES", ordered=True, times="ns", interval_ms=0
                )
                await client.until("snapshot")
                (connection,) = server.connections
                count = 0
                while connection.session is not None and not connection.session.subscriber.is_behind:
                    for _ in range(50):
                        desk.trade("AAPL", *np.random.default_rng(count).random(20).tolist())
                        count += 20
                    await asyncio.sleep(0)
                desk.trade("AAPL", 1.0)
                while (last := await client.until("snapshot"))["rows"]["trades"]["price"].tolist() != [1.0]:
                    pass
                (lag,) = [message for message in client.heard if message["op"] == "lag"]
                seqs = np.concatenate([part["seq"] for part in client.rows["trades"]])
                assert lag["rows"] == (lag["to_seq"] - lag["from_seq"]) // 2
                assert seqs.tolist() == [*range(int(seqs[0]), lag["from_seq"] + 1, 2)]  # a tick is between two trades
                assert lag["from_seq"] < lag["to_seq"] == desk.feed.seq
                assert last["seq"] == lag["to_seq"]
                desk.trade("AAPL", 2.0)
                await until(lambda: connection.session.subscriber.positions == [position_of(desk.feed.seq, 1)])
                assert (await client.news("trades", len(seqs) + 1))["price"].tolist()[-1] == 2.0

    run(test())


def test_conflated_frames(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), binary_client(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="QUOTES", mode="conflate", interval_ms=50)
            for i in range(100):
                desk.quote("AAPL", 10.0 + i, 11.0 + i)
            while (await client.news("quotes", 1))["bid"].tolist()[-1] != 109.0:
                await client.hear()
            assert len(client.rows["quotes"]) <= 3

    run(test())
