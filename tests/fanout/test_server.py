"""The server over real sockets: what subscribers get, and that each gets exactly that. On asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from ibfast import Config, ConnectionPool, Feed, IBKRConnectionManager
from ibfast.codec.positions import position_of, seq_of
from ibfast.config import FanoutConfig, PacingConfig, ReconnectionConfig
from ibfast.errors import NotConnectedError, RequestError
from ibfast.fanout.encoding.channels import INTERVALS_MS
from ibfast.fanout.server import FanoutServer
from ibfast.policy.subscription import SubscriptionState
from ibfast.records import GapCause, Scope
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.universe import Universe
from tests.support.fanout_client import client_of, rows_of, serving
from tests.support.fanout_desk import Desk
from tests.support.loops import Run, until


def prices(rows: list[dict[str, Any]]) -> list[float]:
    return [row["price"] for row in rows]


# --- data ---


@pytest.mark.parametrize("interval_ms", INTERVALS_MS[:3])
def test_every_row_comes_once_and_in_order(run: Run, interval_ms: int) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            answer = await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=interval_ms)
            assert (answer["op"], answer["subscription"], answer["resumed"]) == ("subscribed", 1, False)
            (channel,) = answer["channels"]
            assert channel == {
                "channel": 0, "epoch": channel["epoch"], "symbol": "AAPL", "con_id": 1, "exchange": "SMART",
                "instrument": 0, "families": ["trades"], "class": INTERVALS_MS.index(interval_ms) * 2,
                "span_ns": interval_ms * 1_000_000, "unit_ns": 1000, "ordered": False, "conflated": False,
            }  # fmt: skip
            assert await client.hear() == {"op": "snapshot", "channel": 0, "position": channel["class"], "rows": {}}
            for i in range(50):
                desk.trade("AAPL", i + 0.25, i + 0.5)
                if i % 10 == 0:
                    await asyncio.sleep(0.003)
            rows = await client.news("trades", 100)
            assert prices(rows) == [i + part for i in range(50) for part in (0.25, 0.5)]
            assert client.heard[-1]["position"] == position_of(desk.feed.seq, channel["class"])

    run(test())


def test_a_window_that_ends_while_a_capped_client_goes_is_for_all_others(run: Run) -> None:
    """Its session is in the audience still, though its connection is forgotten."""

    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as honest:
            await honest.ask("subscribe", symbol="AAPL", data_type="TRADES")
            async with client_of(server) as capped:
                await capped.ask("limit", max_bytes_per_s=20_000)
                await capped.ask("subscribe", symbol="AAPL", data_type="TRADES")
                forget = server.left
                ended: list[int] = []

                def left(connection: Any) -> None:
                    forget(connection)
                    desk.trade("AAPL", 1.5)
                    server._hub.batcher.flush(10)
                    ended.append(desk.feed.seq)

                server.left = left  # type: ignore[method-assign]
                next(
                    each for each in server.connections if each.session and each.session.max_bytes_per_s
                ).transport.abort()
                await until(lambda: ended)
                server.left = forget  # type: ignore[method-assign]
                assert prices(await honest.news("trades", 1)) == [1.5]
                assert seq_of(honest.heard[-1]["position"]) == ended[0]

    run(test())


def test_a_row_in_json(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", ordered=True, times="ns", interval_ms=0)
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", fields=["price"])
            desk.trade("AAPL", 0.1, recv_ns=1_700_000_000_123_456_789)
            pieces = [message["pieces"][0] for message in [await client.until("data"), await client.until("data")]]
            full, part = sorted(pieces, key=lambda piece: "seq" not in piece["rows"][0])
            assert {name: full[name] for name in full if name != "rows"} == {
                "channel": 0, "symbol": "AAPL", "con_id": 1, "exchange": "SMART", "family": "trades",
            }  # fmt: skip
            assert full["rows"] == [{
                "seq": int(desk.feed.trades.reader("oldest").read()["seq"][0]), "time_ns": 1_700_000_000_123_456_789,
                "kind": "L1_LAST", "attribs": 0, "event_ns": None, "price": 0.1, "size": 100.0, "exchange": "",
                "conditions": "",
            }]  # fmt: skip
            assert part["rows"] == [{
                "time_ns": 1_700_000_000_123_456_000, "kind": "L1_LAST", "attribs": None, "event_ns": None,
                "price": 0.1, "size": None, "exchange": None, "conditions": None,
            }]  # fmt: skip

    run(test())


def test_all_families_of_an_instrument_stay_in_order(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            answer = await client.ask("subscribe", symbol="AAPL", data_type="ALL", ordered=True)
            assert answer["channels"][0]["families"] == ["quotes", "trades", "ticks"]
            for i in range(20):
                desk.quote("AAPL", 10.0 + i, 11.0 + i)
                desk.trade("AAPL", 10.5 + i)
            seqs: list[int] = []
            while len(seqs) < desk.feed.seq:
                message = await client.hear()
                seqs += [row["seq"] for piece in message.get("pieces", ()) for row in piece["rows"]]
            assert seqs == list(range(1, desk.feed.seq + 1))

    run(test())


def test_conflated_data_is_the_latest_of_each_interval(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TICKS", mode="conflate", interval_ms=50)
            for i in range(100):
                desk.quote("AAPL", 10.0 + i, 11.0 + i)
            message = await client.until("data")
            rows = rows_of(message, "ticks")
            assert len(rows) == len({row["tick_type"] for row in rows}) < 20
            while {1: 109.0, 2: 110.0}.items() - {row["tick_type"]: row["price"] for row in rows}.items():
                rows = rows_of(await client.until("data"), "ticks")

    run(test())


def test_a_snapshot_comes_once_and_ends(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            answer = await client.ask("subscribe", symbol="AAPL", data_type="QUOTES", mode="snapshot")
            desk.quote("AAPL", 10.0, 11.0)
            (row,) = (await client.until("snapshot"))["rows"]["quotes"]
            assert (row["bid"], row["ask"]) == (10.0, 11.0)
            ended = await client.until("ended")
            assert (ended["subscription"], ended["code"]) == (answer["subscription"], "DONE")
            assert (await client.ask("list"))["subscriptions"] == []
            assert not [message for message in client.heard if message["op"] == "data"]

    run(test())


def test_who_comes_later_begins_with_the_state(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as first, client_of(server) as second:
            await first.ask("subscribe", symbol="AAPL", data_type="QUOTES")
            desk.quote("AAPL", 10.0, 11.0)
            await first.news("quotes", 1)
            for interval_ms in (10, 100):  # a channel that is there, and a new one
                await second.ask("subscribe", symbol="AAPL", data_type="QUOTES", interval_ms=interval_ms)
                (row,) = (await second.until("snapshot"))["rows"]["quotes"]
                assert (row["bid"], row["ask"]) == (10.0, 11.0)

    run(test())


def test_an_interval_changes_without_a_loss(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            rows: list[dict[str, Any]] = []
            for i, interval_ms in enumerate((100, 0, 50, 10, 10, 250)):
                desk.trade("AAPL", *(i * 10.0 + n for n in range(10)))
                seen = len(client.heard)
                answer = await client.ask("update", subscription=1, interval_ms=interval_ms)
                assert (answer["op"], answer["interval_ms"]) == ("updated", interval_ms)
                assert answer["channels"][0]["span_ns"] == interval_ms * 1_000_000
                rows += [row for message in client.heard[seen:] for row in rows_of(message, "trades")]
                assert (await client.until("snapshot"))["rows"]["trades"][0]["price"] == i * 10.0 + 9
            assert prices(rows) == [float(price) for price in range(60)]

    run(test())


def test_nothing_follows_the_end_of_a_subscription(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            for symbol in ("AAPL", "MSFT"):
                await client.ask("subscribe", symbol=symbol, data_type="TRADES", interval_ms=0)
            assert (await client.ask("unsubscribe", subscription=1))["op"] == "unsubscribed"
            seen = len(client.heard)
            for i in range(10):
                desk.trade("AAPL", float(i))
                desk.trade("MSFT", 100.0 + i)
            await client.news("trades", 10)
            named = {piece["symbol"] for message in client.heard[seen:] for piece in message.get("pieces", ())}
            assert named == {"MSFT"}
            answer = await client.ask("subscribe", symbol="NVDA")
            assert (answer["subscription"], answer["channels"][0]["channel"]) == (3, 0)  # the lowest free one

    run(test())


def test_deflated_frames_are_the_same_messages(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), contextlib.AsyncExitStack() as stack:
            plain = await stack.enter_async_context(client_of(server))
            deflated = [await stack.enter_async_context(client_of(server, compression="deflate")) for _ in range(2)]
            for client in (plain, *deflated):
                await client.ask("subscribe", symbol="AAPL", data_type="TRADES", ordered=True)
            assert {connection.is_deflated for connection in server.connections} == {True, False}
            for i in range(200):
                desk.trade("AAPL", i / 7)
            rows = [await client.news("trades", 200) for client in (plain, *deflated)]
            assert prices(rows[0]) == [i / 7 for i in range(200)]
            assert rows[1] == rows[2] == rows[0]

    run(test())


def test_rows_of_another_request_for_the_instrument_are_not_sent(run: Run) -> None:
    """A program in the server's process may have a line of its own on the same instrument."""

    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            desk.foreign_trade("AAPL", 666.0)
            desk.trade("AAPL", 1.0)
            desk.open_request(desk.subscription("AAPL"))  # after a reconnect
            desk.trade("AAPL", 2.0)
            assert prices(await client.news("trades", 2)) == [1.0, 2.0]

    run(test())


# --- what is wanted of the gateway ---


def test_a_line_is_shared_and_given_up_with_its_last_subscriber(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk), client_of(server) as first:
            async with client_of(server) as second:
                for client in (first, second):
                    await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
                    await client.ask("subscribe", symbol="AAPL", data_type="TRADES", mode="conflate")
                assert desk.asked == [("AAPL", "TRADES")]
                await first.ask("unsubscribe", subscription=1)
                await first.ask("unsubscribe", subscription=2)
                assert desk.cancelled == []
            await until(lambda: desk.cancelled == ["AAPL"])
            await first.ask("subscribe", symbol="AAPL", data_type="TRADES")
            assert len(desk.asked) == 2

    run(test())


def test_a_line_outlives_its_last_subscriber_by_a_moment(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0.05) as (server, desk), client_of(server) as client:
            for subscription in (1, 2):
                await client.ask("subscribe", symbol="AAPL")
                await client.ask("unsubscribe", subscription=subscription)
                assert desk.cancelled == []
            assert len(desk.asked) == 1
            await until(lambda: desk.cancelled)

    run(test())


def test_many_who_want_the_same_at_once_ask_once(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk), contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(server)) for _ in range(4)]
            desk.answer.clear()
            for client in clients:
                await client.say("subscribe", symbol="AAPL")
                assert (await client.ask("ping"))["op"] == "pong"  # who waits is answered all the same
            await clients[3].socket.close()
            desk.answer.set()
            for client in clients[:3]:
                await client.until("snapshot")
            assert desk.asked == [("AAPL", "QUOTES")]

    run(test())


def test_who_leaves_while_the_gateway_is_asked_leaves_nothing(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0) as (server, desk):
            desk.answer.clear()
            async with client_of(server) as client:
                await client.say("subscribe", symbol="AAPL")
                await until(lambda: desk.asked)
            await until(lambda: not server.connections)
            desk.answer.set()
            async with client_of(server) as client:
                await client.ask("subscribe", symbol="MSFT")
                assert [request.contract.symbol for request in desk.lines] == ["MSFT"]

    run(test())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotConnectedError("no session"), "NO_GATEWAY"),
        (TimeoutError("60 s"), "NO_GATEWAY"),
        (RequestError(1, 200, "No security definition"), "UNKNOWN_CONTRACT"),
        (RequestError(1, 354, "not subscribed"), "REFUSED"),
        (ValueError("AAPL is ambiguous, add fields: 2 contracts match"), "AMBIGUOUS_CONTRACT"),
        (ValueError("GREEKS are of options"), "BAD_FIELD"),
    ],
)
def test_what_the_gateway_does_not_give(run: Run, error: Exception, code: str) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            desk.error = error
            for symbol in ("AAPL", "AAPL"):
                answer = await client.ask("subscribe", symbol=symbol)
                assert (answer["op"], answer["code"]) == ("error", code)
            desk.error = None
            assert (await client.ask("subscribe", symbol="AAPL"))["op"] == "subscribed"

    run(test())


def test_a_refusal_ends_the_subscription(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL")
            ((_, streams),) = desk.lines.values()
            streams[0].fail(RequestError(1, 354, "not subscribed"))
            ended = await client.until("ended")
            assert (ended["subscription"], ended["code"], ended["message"]) == (1, "REFUSED", "354: not subscribed")
            desk.lines.clear()
            assert (await client.ask("subscribe", symbol="AAPL"))["subscription"] == 2
            assert len(desk.asked) == 2

    run(test())


def test_who_had_what_ib_ended_is_told_though_another_one_asks_at_once(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as first, client_of(server) as second:
            await first.ask("subscribe", symbol="AAPL")
            ((_, streams),) = desk.lines.values()
            desk.lines.clear()
            streams[0].fail(RequestError(1, 354, "not subscribed"))
            assert (await second.ask("subscribe", symbol="AAPL"))["op"] == "subscribed"
            assert len(desk.asked) == 2
            ended = await first.until("ended")
            assert (ended["subscription"], ended["code"]) == (1, "REFUSED")
            assert (await first.ask("list"))["subscriptions"] == []
            desk.quote("AAPL", 10.0, 11.0)
            assert (await second.news("quotes", 1))[0]["bid"] == 10.0
            assert "ended" not in {message["op"] for message in second.heard}

    run(test())


def test_a_state_is_told_once(run: Run) -> None:
    """To one who subscribes between a change and the look at it, too."""

    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as one, client_of(server) as other:
            await one.ask("subscribe", symbol="AAPL", data_type="TRADES")
            assert (await one.until("state"))["state"] == "LIVE"
            desk.subscription("AAPL").state = SubscriptionState.SUSPENDED
            await other.ask("subscribe", symbol="AAPL", data_type="TRADES")
            assert (await one.until("state"))["state"] == "SUSPENDED"
            await other.ask("ping")
            assert [message["state"] for message in other.heard if message["op"] == "state"] == ["SUSPENDED"]

    run(test())


def test_a_state_that_came_and_went_between_two_looks_is_taken_back(run: Run) -> None:
    """One who has subscribed meanwhile was sent it, and nobody else."""

    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as one, client_of(server) as other:
            await one.ask("subscribe", symbol="AAPL", data_type="ALL")
            assert (await one.until("state"))["state"] == "LIVE"
            await asyncio.sleep(0.6)  # until it was looked at
            subscription = desk.subscription("AAPL")
            subscription.state = SubscriptionState.OPENING
            await other.ask("subscribe", symbol="AAPL", data_type="ALL")
            assert (await other.until("state"))["state"] == "OPENING"
            subscription.state = SubscriptionState.LIVE
            assert (await other.until("state"))["state"] == "LIVE"
            await one.ask("ping")
            assert [message["state"] for message in one.heard if message["op"] == "state"] == ["LIVE"]

    run(test())


def test_states_and_gaps_are_told(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="ALL")
            assert await client.until("state") == {"op": "state", "subscription": 1, "state": "LIVE", "reason": ""}
            subscription = desk.subscription("AAPL")
            subscription.state, subscription.reason = SubscriptionState.SUSPENDED, "10197"
            state = await client.until("state")
            assert (state["state"], state["reason"]) == ("SUSPENDED", "10197")
            desk.feed.add_gap(
                1,
                Scope.ACCOUNT,
                GapCause.OTHER_SESSION,
                instrument=0,
                req_id=subscription.req_id,
                first_seq=7,
                first_ns=8,
            )
            assert await client.until("gap") == {
                "op": "gap", "channel": 0, "scope": "ACCOUNT", "cause": "OTHER_SESSION", "recovered": False,
                "first_seq": 7, "last_seq": 0, "first_ns": 8, "last_ns": 0,
            }  # fmt: skip
            await client.ask("ping")
            assert [message["op"] for message in client.heard].count("gap") == 1

    run(test())


# --- with a gateway ---


def test_from_a_gateway_to_subscribers(run: Run) -> None:
    """Everything between is real: the wire, the decoder, the manager with its reconnection, the server."""

    async def test() -> None:
        once = ReconnectionConfig(delay_s=0.01, max_delay_s=0.05)
        async with (
            Gateway(market=Market(Universe.builtin(), seed=3, rate=4000), pacing=False) as gateway,
            IBKRConnectionManager(
                Config(port=gateway.port, pacing=PacingConfig(enforced=False), reconnection=once), Feed(1 << 14)
            ) as manager,
            FanoutServer(manager.feed, manager, FanoutConfig(port=0, linger_s=0)) as server,
            client_of(server) as client,
        ):
            await client.ask("subscribe", symbol="AAPL", data_type="ALL", ordered=True, times="ns")
            await client.ask("subscribe", symbol="AAPL", data_type="DEPTH", mode="conflate", interval_ms=50)
            await client.ask("subscribe", contract={"symbol": "MSFT", "sec_type": "STK", "currency": "USD"})
            assert (await client.ask("subscribe", symbol="NOSUCH"))["code"] == "UNKNOWN_CONTRACT"
            await client.news("quotes", 200)
            await client.until("snapshot", "data")
            got = {
                row["seq"]: row
                for message in client.heard
                for family in ("quotes", "trades", "ticks")
                for row in rows_of(message, family)
                if "seq" in row
            }
            first, last = min(got), max(got)
            for family, column in (("quotes", "bid"), ("trades", "price"), ("ticks", "price")):
                rows = manager.feed.rings[family].reader(start="oldest").read()
                rows = rows[(rows["instrument"] == 0) & (rows["seq"] >= first) & (rows["seq"] <= last)]
                assert len(rows)
                for row in rows:
                    value = got.pop(int(row["seq"]))
                    assert value["time_ns"] == row["recv_ns"]
                    assert value[column] == row[column] or (value[column] is None and row[column] != row[column])
            assert got == {}
            gateway.sessions[0].close()
            gap = await client.until("gap")
            assert (gap["scope"], gap["cause"], gap["recovered"]) == ("CONNECTION", "CONNECTION_LOST", False)
            while not (await client.until("gap"))["recovered"]:
                pass
            seen = len(client.heard)
            await client.news("quotes", 50)
            assert not [message for message in client.heard[seen:] if message["op"] == "ended"]
            for subscription in (1, 2, 3):
                await client.ask("unsubscribe", subscription=subscription)
            assert not manager.session.subscriptions

    run(test())


@pytest.mark.parametrize("is_pool", [False, True])
def test_who_asks_during_a_reconnect_waits_for_the_session(run: Run, is_pool: bool) -> None:
    async def test() -> None:
        once = ReconnectionConfig(delay_s=0.01, max_delay_s=0.05)
        async with (
            Gateway(market=Market(Universe.builtin(), seed=3, rate=4000), pacing=False) as gateway,
            FaultProxy(gateway.host, gateway.port) as proxy,
        ):
            config = Config(port=proxy.port, pacing=PacingConfig(enforced=False), reconnection=once)
            feed = Feed(1 << 12)
            source = ConnectionPool([config], feed) if is_pool else IBKRConnectionManager(config, feed)
            async with (
                source,
                FanoutServer(source.feed, source, FanoutConfig(port=0, linger_s=0)) as server,
                client_of(server) as client,
            ):
                proxy.refuse()
                proxy.reset()
                await until(lambda: source.errors if isinstance(source, ConnectionPool) else not source.connected)
                await client.say("subscribe", id="asked", symbol="AAPL")
                await client.ask("ping")
                await proxy.serve()
                if "error" not in {message["op"] for message in client.heard}:
                    await client.until("subscribed", "error")
                assert [(m["op"], m.get("code")) for m in client.heard if m.get("id") == "asked"] == [
                    ("subscribed", None)
                ]

    run(test())


def test_an_end_that_is_cancelled_closes_the_server(run: Run) -> None:
    async def test() -> None:
        desk = Desk(64)
        others = asyncio.all_tasks()
        server = await FanoutServer(desk.feed, desk, FanoutConfig(port=0)).__aenter__()
        host, port = server.address
        async with client_of(server):
            ending = asyncio.create_task(server.__aexit__(None, None, None))
            await asyncio.sleep(0)
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            await until(lambda: not server.connections)
        await until(lambda: asyncio.all_tasks() <= others)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)

    run(test())
