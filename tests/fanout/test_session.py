"""Who is let in, and what each may ask for, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ibfast.config import FanoutConfig
from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError, FeedError, NotConnectedError
from ibfast.fanout.access.jwt import JwtSigner
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.server import FanoutServer
from ibfast.feed import Feed
from tests.support.fanout_client import BEARER, client_of, serving, token_of
from tests.support.fanout_desk import CON_IDS, contract_of
from tests.support.loops import Run, errors_logged, until

TOKEN = "t" * 40


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[analyst]\ntoken = "{TOKEN}"\nsymbols = ["AA*", "IBM"]\ndata_types = ["TRADES"]\nmodes = ["stream"]\n'
        "least_interval_ms = 50\nsubscriptions = 2\nmax_bytes_per_s = 1000\n"
    )
    path.chmod(0o600)
    return path


async def status_of(server: FanoutServer, path: str = "/stream", **options: Any) -> int:
    host, port = server.address
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://{host}:{port}{path}", **options):
            pass
    return caught.value.response.status_code


def test_off_loopback_a_server_without_tokens_refuses_to_start() -> None:
    feed = Feed(2)
    with pytest.raises(ConfigError, match="token"):
        FanoutServer(feed, None, FanoutConfig(host="0.0.0.0"))  # type: ignore[arg-type]
    FanoutServer(feed, None, FanoutConfig(host="0.0.0.0"), SecurityConfig(allow_anonymous=True))  # type: ignore[arg-type]


def test_a_token_is_needed_where_there_are_any(run: Run, tokens: Path) -> None:
    async def test() -> None:
        async with serving({"tokens_file": str(tokens)}) as (server, _):
            assert await status_of(server) == 401
            wrong = {"Authorization": f"Bearer {TOKEN[1:]}u"}
            assert await status_of(server, additional_headers=wrong) == 401
            assert await status_of(server, subprotocols=["ibfast.v1.json", "ibfast.token.nobody"]) == 401
            async with client_of(server, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client:
                assert client.welcome["permissions"]["symbols"] == ["AA*", "IBM"]
                assert client.socket.subprotocol is None
            offered = [f"ibfast.token.{TOKEN}", "ibfast.v9.other", "ibfast.v1.json"]
            async with client_of(server, subprotocols=offered) as client:
                assert client.socket.subprotocol == "ibfast.v1.json"

    run(test())


def test_a_jwt_is_a_token_too(run: Run, tmp_path: Path) -> None:
    secret, key, public = tmp_path / "jwt.secret", Ed25519PrivateKey.generate(), tmp_path / "jwt.pem"
    secret.touch(mode=0o600)
    secret.write_text("s" * 40)
    public.touch(mode=0o644)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    allowed = Permissions(symbols=("AAPL",))

    def signed(by: bytes | Ed25519PrivateKey, seconds: int = 3600) -> dict[str, Any]:
        now_s = int(time.time())
        signer = JwtSigner(by, audience="ibfast", issuer="ibfast")
        token = signer.sign("visitor", allowed, now_s=now_s - 60, expires_s=now_s + seconds)
        return {"additional_headers": {"Authorization": f"Bearer {token}"}}

    async def test(security: dict[str, Any], good: bytes | Ed25519PrivateKey, bad: bytes | Ed25519PrivateKey) -> None:
        async with serving({**security, "leeway_s": 0}) as (server, _):
            assert await status_of(server, **signed(bad)) == 401
            assert await status_of(server, **signed(good, -1)) == 401
            assert await status_of(server) == 401
            async with client_of(server, **signed(good)) as client:
                assert (await client.ask("subscribe", symbol="MSFT"))["code"] == "FORBIDDEN"
                assert (await client.ask("subscribe", symbol="AAPL"))["op"] == "subscribed"
            async with client_of(server, **signed(good, 1)) as client:
                assert (await client.until("closing"))["code"] == "EXPIRED"

    run(test({"jwt_secret_file": str(secret)}, b"s" * 40, b"t" * 40))
    run(test({"jwt_public_key_file": str(public)}, key, Ed25519PrivateKey.generate()))


def test_a_token_permits_what_it_says(run: Run, tokens: Path) -> None:
    async def test() -> None:
        async with (
            serving({"tokens_file": str(tokens)}) as (server, desk),
            client_of(server, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client,
        ):
            good = {"symbol": "AAPL", "data_type": "TRADES", "interval_ms": 50}
            for wrong in (
                {"symbol": "MSFT"}, {"data_type": "QUOTES"}, {"data_type": "ALL"}, {"mode": "conflate"},
                {"interval_ms": 10}, {"symbol": "aapl"},
            ):  # fmt: skip
                answer = await client.ask("subscribe", **(good | wrong))
                assert (answer["op"], answer["code"]) == ("error", "FORBIDDEN"), wrong
            assert desk.asked == []  # IB was not asked for what nobody may have
            for contract in ({"con_id": 2}, {"con_id": 2, "symbol": "AAPL"}):  # whose symbol IB alone knows
                answer = await client.ask("subscribe", **(good | {"symbol": None, "contract": contract}))
                assert (answer["op"], answer["code"]) == ("error", "FORBIDDEN")
            assert (await client.ask("subscribe", **good))["op"] == "subscribed"
            assert (await client.ask("update", subscription=1, interval_ms=10))["code"] == "FORBIDDEN"
            await asyncio.sleep(0.1)  # longer than the least interval, by any clock
            assert (await client.ask("update", subscription=1, interval_ms=100))["op"] == "updated"
            assert (await client.ask("subscribe", **(good | {"symbol": "IBM"})))["op"] == "subscribed"
            assert (await client.ask("subscribe", **good))["code"] == "TOO_MANY"
            assert (await client.ask("limit", max_bytes_per_s=0))["max_bytes_per_s"] == 1000
            assert (await client.ask("limit", max_bytes_per_s=500))["max_bytes_per_s"] == 500

    run(test())


def test_to_come_back_is_no_way_round_a_token(run: Run) -> None:
    async def test() -> None:
        tokens = token_of(symbols=("AAPL",), least_interval_ms=50, data_types=("TRADES",))
        async with serving(tokens=tokens) as (server, desk), client_of(server, **BEARER) as client:
            assert (await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=50))[
                "resumed"
            ] is False
            desk.trade("AAPL", 1.0)
            await client.news("trades", 1)
            seen = client.seen()
            good = {"symbol": "AAPL", "data_type": "TRADES", "interval_ms": 50, "resume": seen}
            async with client_of(server, **BEARER) as again:
                for wrong in ({"symbol": "MSFT"}, {"data_type": "ALL"}, {"data_type": "QUOTES"}, {"interval_ms": 0}):
                    assert (await again.ask("subscribe", **(good | wrong)))["code"] == "FORBIDDEN", wrong
                await asyncio.sleep(0.06)  # the token's least interval is that of all its connections together
                assert (await again.ask("subscribe", **good))["op"] == "subscribed"

    run(test())


def test_no_line_is_opened_for_what_is_not_permitted(run: Run) -> None:
    """Also where only the gateway knows what is meant."""

    async def test() -> None:
        async with (
            serving(tokens=token_of(symbols=("AAPL",))) as (server, desk),
            client_of(server, **BEARER) as client,
        ):
            for contract in ({"con_id": CON_IDS["MSFT"]}, {"con_id": CON_IDS["MSFT"], "symbol": "AAPL"}):
                assert (await client.ask("subscribe", contract=contract, data_type="TRADES"))["code"] == "FORBIDDEN"
            assert desk.asked == []
            assert (await client.ask("subscribe", contract={"con_id": CON_IDS["AAPL"]}, data_type="TRADES"))[
                "op"
            ] == "subscribed"

    run(test())


def test_a_fault_of_the_server_is_answered_and_counted(run: Run) -> None:
    async def test() -> None:
        async with serving() as (server, desk), client_of(server) as client:
            desk.error = KeyError("unforeseen")
            answer = await client.ask("subscribe", symbol="AAPL", data_type="TRADES")
            assert (answer["op"], answer["code"]) == ("error", "REFUSED")
            assert server.tally.faults == {"subscription": 1}
            desk.error = None
            assert (await client.ask("subscribe", symbol="AAPL", data_type="TRADES"))["op"] == "subscribed"

    with errors_logged() as errors:
        run(test())
    assert ["unforeseen" in error for error in errors] == [True]


@pytest.mark.parametrize(
    ("permitted", "good", "bad"),
    [
        (("ALL",), ("ALL", "TRADES", "QUOTES", "TICKS", "GREEKS"), ("DEPTH", "BARS")),
        (("TRADES", "QUOTES", "TICKS"), ("TRADES", "QUOTES"), ("ALL", "DEPTH")),
        (("*",), ("ALL", "TRADES"), ()),
    ],
)
def test_all_is_permitted_by_its_parts(
    run: Run, permitted: tuple[str, ...], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    async def test() -> None:
        async with (
            serving(tokens=token_of(data_types=permitted)) as (server, desk),
            client_of(server, **BEARER) as client,
        ):
            for data_type in bad:
                assert (await client.ask("subscribe", symbol="AAPL", data_type=data_type))["code"] == "FORBIDDEN"
            assert desk.asked == []
            for data_type in good:
                answer = await client.ask("subscribe", symbol="AAPL", data_type=data_type)
                assert answer.get("code", "") != "FORBIDDEN", data_type

    run(test())


def test_the_least_interval_counts_for_states_too(run: Run) -> None:
    """Or else one could ask for the state again and again, and have what the token does not permit."""

    async def test() -> None:
        async with (
            serving(tokens=token_of(least_interval_ms=60_000)) as (server, desk),
            client_of(server, **BEARER) as client,
        ):
            once = {"symbol": "AAPL", "data_type": "TRADES", "mode": "snapshot"}
            assert (await client.ask("subscribe", symbol="AAPL", data_type="TRADES"))["code"] == "FORBIDDEN"
            assert (await client.ask("subscribe", **once))["op"] == "subscribed"
            desk.trade("AAPL", 1.0)
            await client.until("ended")
            for asked in (
                once,
                {**once, "times": "ns"},
                {"data_type": "TRADES", "mode": "snapshot", "contract": {"con_id": 1}},
            ):
                refusal = await client.ask("subscribe", **asked)
                assert (refusal["code"], "60000 ms" in refusal["message"]) == ("TOO_FAST", True)
            assert (await client.ask("subscribe", **(once | {"symbol": "MSFT"})))["op"] == "subscribed"

    run(test())


def test_an_interval_is_not_changed_more_often_than_the_token_permits(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(tokens=token_of(least_interval_ms=500)) as (server, _),
            client_of(server, **BEARER) as client,
        ):
            assert (await client.ask("subscribe", symbol="AAPL", interval_ms=500))["op"] == "subscribed"
            assert (await client.ask("update", subscription=1, interval_ms=1000))["code"] == "TOO_FAST"
            assert (await client.ask("list"))["subscriptions"][0]["interval_ms"] == 500

    run(test())


def test_a_token_has_a_budget_of_new_instruments(run: Run) -> None:
    """For all its connections; what somebody has, and what the gateway refuses, costs nothing."""

    async def test() -> None:
        async with (
            serving(tokens=token_of(new_instruments=2), linger_s=0) as (server, desk),
            client_of(server, **BEARER) as client,
            client_of(server, **BEARER) as other,
        ):
            desk.feed.instrument_of(contract_of("IBM"), "IBM")
            assert client.welcome["permissions"]["new_instruments"] == 2
            for error in (NotConnectedError("no session"), FeedError("no room")):
                desk.error = error
                assert (await client.ask("subscribe", symbol="AAPL"))["op"] == "error"
            desk.error = None
            for symbol in ("AAPL", "IBM", "AAPL", "MSFT", "MSFT"):
                assert (await client.ask("subscribe", symbol=symbol))["op"] == "subscribed"
            for each in (client, other):
                refusal = await each.ask("subscribe", symbol="NVDA")
                assert refusal["code"] == "TOO_MANY"
                assert refusal["message"].startswith("the token permits 2 new instruments in an hour: ask for another")
                assert (await each.ask("subscribe", symbol="IBM", data_type="DEPTH"))["op"] == "subscribed"
            assert not desk.feed.has_instrument(contract_of("NVDA"))

    run(test())


def test_an_index_that_was_freed_shows_nothing_of_its_former_instrument(run: Run) -> None:
    async def test() -> None:
        feed = {"keep_instrument_s": 1e-9}
        async with (
            serving(linger_s=0, capacity=64, feed=feed) as (server, desk),
            client_of(server) as client,
            client_of(server) as other,
        ):
            first = await client.ask("subscribe", symbol="AAPL", data_type="ALL")
            desk.trade("AAPL", 666.0)
            for data_type in ("QUOTES", "DEPTH"):
                await other.ask("subscribe", symbol="MSFT", data_type=data_type)
            await client.ask("unsubscribe", subscription=1)
            desk.free_unused("MSFT")
            again = await client.ask("subscribe", symbol="NVDA", data_type="ALL")
            former, channel = first["channels"][0], again["channels"][0]
            assert (channel["symbol"], channel["con_id"]) == ("NVDA", CON_IDS["NVDA"])
            assert channel["instrument"] == former["instrument"]
            late = await other.ask("subscribe", symbol="NVDA", data_type="ALL")
            snapshot = await other.until("snapshot")
            assert (late["channels"][0]["symbol"], snapshot["rows"]) == ("NVDA", {})
            desk.trade("NVDA", 3.0)
            assert [row["price"] for row in await other.news("trades", 1)] == [3.0]

    run(test())


def test_subscriptions_are_counted_while_they_open_too(run: Run) -> None:
    async def test() -> None:
        async with serving(tokens=token_of(subscriptions=2)) as (server, desk), client_of(server, **BEARER) as client:
            desk.answer.clear()
            for _ in range(2):
                await client.say("subscribe", symbol="AAPL")
            assert (await client.ask("subscribe", symbol="MSFT"))["code"] == "TOO_MANY"
            desk.answer.set()
            await client.until("subscribed")
            await client.until("subscribed")
            assert (await client.ask("subscribe", symbol="MSFT"))["code"] == "TOO_MANY"
            await client.ask("unsubscribe", subscription=1)
            assert (await client.ask("subscribe", symbol="MSFT"))["op"] == "subscribed"

    run(test())


def test_a_token_s_bandwidth_is_kept_unasked(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(tokens=token_of(max_bytes_per_s=20_000)) as (server, desk),
            client_of(server, **BEARER) as client,
        ):
            await client.ask("subscribe", symbol="AAPL", data_type="TRADES", interval_ms=0)
            assert (await client.ask("limit", max_bytes_per_s=0))["max_bytes_per_s"] == 20_000
            nbytes, sent = 0, 0.0
            while client.heard[-1]["op"] != "lag":
                sent += 1
                desk.trade("AAPL", *[sent] * 100)
                nbytes += len(str(await client.hear()))
            assert nbytes < 200_000

    run(test())


def test_a_session_ends_with_its_token(run: Run, tokens: Path) -> None:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    tokens.write_text(tokens.read_text() + f"expires = {expires}\n")

    async def test() -> None:
        async with (
            serving({"tokens_file": str(tokens)}) as (server, _),
            client_of(server, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as client,
        ):
            assert (await client.until("closing"))["code"] == "EXPIRED"
            with pytest.raises(ConnectionClosed) as caught:
                await client.hear()
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "EXPIRED")  # type: ignore[union-attr]
            denied = {"Authorization": f"Bearer {TOKEN}"}
            assert await status_of(server, additional_headers=denied) == 401

    run(test())


@pytest.mark.parametrize("known", [True, False])
def test_no_token_is_ever_logged(run: Run, tokens: Path, caplog: pytest.LogCaptureFixture, known: bool) -> None:
    token = TOKEN if known else "u" * 40
    by_header = {"additional_headers": {"Authorization": f"Bearer {token}"}}
    raw = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s\r\n\r\n"
    knocks = (
        f"Authorization: Bearer {token}", f"Authorization: Bearer {token}\r\n{token}", f"Authorization : {token}",
        f"Authorization: Basic {token}", f"Sec-WebSocket-Protocol: ibfast.token.{token}=;",
        f"Sec-WebSocket-Key: {token}", f"Authorization: Bearer {token}\r\nSec-WebSocket-Version: {token}",
    )  # fmt: skip

    async def test() -> None:
        async with serving({"tokens_file": str(tokens)}) as (server, _):
            assert await status_of(server, f"/stream?token={token}", **by_header) == 404
            for options in (by_header, {"subprotocols": ["ibfast.v1.json", f"ibfast.token.{token}"]}):
                if known:
                    async with client_of(server, **options) as client:
                        await client.say("subscribe", symbol=token)
                        await client.ask("ping")
                        await client.socket.send(f"{token}{{")
                        await client.until("error")
                else:
                    assert await status_of(server, **options) == 401
            for knock in knocks:
                reader, writer = await asyncio.open_connection(*server.address)
                writer.write(raw % knock.encode())
                with contextlib.suppress(ConnectionError):
                    assert not (await reader.read()).startswith(b"HTTP/1.1 101")
                writer.close()

    logging.getLogger("websockets.client").setLevel(logging.INFO)  # the tests' own
    logging.getLogger("ibfast.fanout.wire").setLevel(logging.DEBUG)  # whatever somebody sets
    try:
        with caplog.at_level(logging.DEBUG):
            run(test())
    finally:
        logging.getLogger("ibfast.fanout.wire").setLevel(logging.INFO)
    assert "connection open" in caplog.text or not known
    assert token not in caplog.text


def test_paths_and_origins(run: Run) -> None:
    async def test() -> None:
        async with serving({"origins": ("https://desk.example.com",)}) as (server, _):
            assert await status_of(server, "/") == 404
            assert await status_of(server, "/stream?token=x") == 404
            assert await status_of(server, origin="https://evil.example.com") == 403
            async with client_of(server, origin="https://desk.example.com"):
                pass

    run(test())


def test_there_are_caps_on_connections(run: Run) -> None:
    async def test() -> None:
        async with serving({"max_connections": 2, "max_per_address": 1}) as (server, _):
            async with client_of(server), client_of(server):  # both of this machine
                assert await status_of(server) == 503
            await until(lambda: not server.connections)
            async with client_of(server):
                pass

    run(test())


def own_address() -> str:
    """An address of this machine that others could reach it by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine is on no network")
        return str(sock.getsockname()[0])


def test_there_is_a_cap_on_connections_from_one_address(run: Run) -> None:
    address = own_address()

    async def test() -> None:
        async with serving({"allow_anonymous": True, "max_per_address": 2}, host=address) as (server, _):
            async with client_of(server), client_of(server):
                assert await status_of(server) == 503
            await until(lambda: not server.connections)
            async with client_of(server):
                pass

    run(test())


def test_silent_handshakes_are_ended_and_bounded(run: Run) -> None:
    async def test() -> None:
        caps = {"handshake_timeout_s": 0.2, "max_connections": 4}
        async with serving(caps) as (server, _):
            sockets = [socket.create_connection(server.address) for _ in range(100)]
            await until(lambda: server.connections)
            peak = 0
            while server.connections:
                peak = max(peak, sum(not each.transport.is_closing() for each in server.connections))
                await asyncio.sleep(0.001)
            assert 4 < peak <= 4 + 64
            for sock in sockets:
                sock.close()
            async with client_of(server):
                pass

    run(test())


@pytest.mark.parametrize(
    "request_",
    [b"\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\0" * 64, b"GET /stream HTTP/1.1\r\n\r\n", b"GET " + b"x" * 70_000],
)
def test_handshakes_that_are_none(run: Run, request_: bytes) -> None:
    async def test() -> None:
        async with serving({"handshake_timeout_s": 0.5}) as (server, _), client_of(server) as good:
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(request_)
            with contextlib.suppress(ConnectionError):
                assert not (await reader.read()).startswith(b"HTTP/1.1 101")
            writer.close()
            assert (await good.ask("ping"))["op"] == "pong"

    run(test())


class Certificate:
    """A server's, by an authority of its own."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("127.0.0.1")
        chain, key = folder / "chain.pem", folder / "key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        key.chmod(0o600)
        chain.chmod(0o644)
        self.files = {"certificate_file": str(chain), "key_file": str(key)}


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01"])
def test_silence_before_tls_is_ended(run: Run, certificate: Certificate, hello: bytes) -> None:
    async def test() -> None:
        async with serving({**certificate.files, "handshake_timeout_s": 0.1}) as (server, _):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(hello)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""  # within the watchdog's time, and not asyncio's own minute
            writer.close()

    run(test())


def test_it_speaks_tls(run: Run, certificate: Certificate) -> None:
    context = ssl.create_default_context()
    certificate.authority.configure_trust(context)

    async def test() -> None:
        async with (
            serving(certificate.files) as (server, desk),
            connect("wss://{}:{}/stream".format(*server.address), ssl=context) as client,
        ):
            assert '"op":"welcome"' in str(await client.recv())
            await client.send('{"op":"subscribe","symbol":"AAPL","data_type":"TRADES"}')
            while '"op":"snapshot"' not in str(await client.recv()):
                pass
            for i in range(200):
                desk.trade("AAPL", *(float(i) for _ in range(100)))
            while '"price":199.0' not in str(await client.recv()):
                pass

    with errors_logged() as errors:
        run(test())
    assert errors == []
