"""What a server has done and holds, as its own sockets show it. On asyncio and uvloop."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from typing import Any

import pytest
from prometheus_client import generate_latest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from ibfast.fanout.server import FanoutServer
from tests.support.fanout_client import client_of, serving
from tests.support.loops import Run, until


def samples(server: FanoutServer) -> dict[str, float]:
    lines = generate_latest(server.registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_what_there_is(run: Run) -> None:
    async def test() -> None:
        async with serving(linger_s=0.0) as (server, _):
            assert samples(server)['ibfast_fanout_subscribers{dialect="json"}'] == 0
            async with client_of(server) as first, client_of(server) as second:
                await first.ask("subscribe", symbol="AAPL", data_type="TRADES")
                for symbol in ("AAPL", "MSFT"):
                    await second.ask("subscribe", symbol=symbol, data_type="TRADES")
                present = server.present()
                assert present.subscribers == {"json": 2, "binary": 0}
                assert (present.subscriptions, present.streams, present.behind) == (3, {"LIVE": 2}, 0)
                assert samples(server)['ibfast_fanout_streams{state="LIVE"}'] == 2
            await until(lambda: not server.connections)
            assert server.present().subscriptions == 0
            assert (server.tally.admitted, server.tally.refused) == (2, {})

    run(test())


def test_every_byte_that_goes_out_counts(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as one, client_of(server) as other:
            for client in (one, other):
                await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
                assert (await client.hear())["op"] in ("snapshot", "state")
                assert (await client.hear())["op"] in ("snapshot", "state")
            before = server.present()
            desk.trade("AAPL", 1.0, 2.0)
            for client in (one, other):
                await client.news("trades", 2)
            after = server.present()
            assert after.writes - before.writes == 2
            said = await one.ask("ping", data="x" * 1000)
            assert len(said["data"]) == 1000
            assert 1000 < server.present().nbytes - after.nbytes < 1200

    run(test())


def test_refusals_and_endings_count_by_reason(run: Run) -> None:
    async def test() -> None:
        async with serving({"max_connections": 1, "max_control_per_s": 1, "max_message_bytes": 1024}) as (server, _):
            url = "ws://{}:{}/stream".format(*server.address)
            with pytest.raises(InvalidStatus):
                async with connect(url, origin="https://evil.example.com"):
                    pass
            await until(lambda: not server.connections)
            async with client_of(server) as client:
                with pytest.raises(InvalidStatus):
                    async with connect(url):
                        pass
                client.socket.transport.write(Frame(Opcode.PING, b"").serialize(mask=True) * 1000)
                await client.until("closing")
            await until(lambda: not server.connections)
            assert server.tally.refused == {"origin": 1, "caps": 1}
            assert server.tally.closed == {"TOO_FAST": 1}

    run(test())


def test_what_slow_subscribers_miss_counts(run: Run) -> None:
    async def test() -> None:
        async with serving(backlog_s=60.0) as (server, desk), client_of(server) as client:
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            (connection,) = server.connections
            assert connection.session is not None
            connection.session.subscriber.fall_behind()
            assert server.present().behind == 1
            desk.trade("AAPL", 1.0, 2.0, 3.0)
            connection.session.subscriber.catch_up()
            assert (await client.until("lag"))["rows"] == 3
            assert (server.tally.fallen_behind, server.tally.lags, server.tally.rows_left_out) == (1, {"slow": 1}, 3)

    run(test())


def read(server: FanoutServer, path: str, method: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request("http://{}:{}{}".format(*server.address, path), method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/"])
def test_an_answer_to_head_is_that_to_get_without_its_content(run: Run, path: str) -> None:
    async def test() -> None:
        async with serving() as (server, _):
            answers: list[Any] = [await asyncio.to_thread(read, server, path, method) for method in ("GET", "HEAD")]
            (status, headers, body), (other_status, other_headers, nothing) = answers
            assert (status, nothing) == (other_status, b"")
            assert int(headers["Content-Length"]) == len(body) == int(other_headers["Content-Length"])
            assert status == (200 if path == "/metrics" else 404)  # no source of health was given
            await until(lambda: not server.connections)
            assert server.tally.admitted == 0

    run(test())
