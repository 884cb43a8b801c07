"""Every code of the protocol: in its table, in the server, and what brings it about."""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from ibfast.errors import FeedError, NotConnectedError, RequestError
from ibfast.fanout.access.tokens import Tokens
from ibfast.fanout.messages import Code
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_client import BEARER, TOKEN, JsonClient, client_of, serving, token_of
from tests.support.fanout_desk import Desk
from tests.support.loops import Run

PROTOCOL = Path(__file__).parents[2] / "docs" / "stream-protocol.md"
SUBSCRIBE: Mapping[str, Any] = {"op": "subscribe", "symbol": "AAPL", "data_type": "TRADES"}


@dataclass(frozen=True)
class Case:
    """What brings a code about.

    Attributes:
        op: of the message that has it.
        asked: said by the client, in this order.
        error: of the gateway.
        then: done after that.
        stops: whether the server then stops.
        security, tokens: of the server.
        closes: the WebSocket's status if the session ends.
    """

    op: str = "error"
    asked: tuple[Mapping[str, Any] | str, ...] = ()
    error: Exception | None = None
    then: Callable[[FanoutServer, Desk, JsonClient], Awaitable[None]] | None = None
    stops: bool = False
    security: Mapping[str, Any] = field(default_factory=dict)
    tokens: Callable[[], Tokens | None] | None = None
    closes: int | None = None


async def overwhelm(server: FanoutServer, desk: Desk, client: JsonClient) -> None:
    await client.until("snapshot")
    client.socket.transport.pause_reading()
    (connection,) = server.connections
    while connection.session is not None and connection.session.subscriber.subscriptions:
        desk.trade("AAPL", *[1.0] * 500)
        await asyncio.sleep(0)
    client.socket.transport.resume_reading()


async def trade(server: FanoutServer, desk: Desk, client: JsonClient) -> None:
    desk.trade("AAPL", 1.0)


SLOWEST = {"max_control_per_s": 3, "max_message_bytes": 1024}

TOKENS_FILE = Path(tempfile.mkdtemp()) / "tokens.toml"


def write_tokens(token: str = TOKEN) -> None:
    TOKENS_FILE.touch(0o600)
    TOKENS_FILE.write_text(f'[analyst]\ntoken = "{token}"\nsymbols = ["*"]\n')


async def revoke(server: FanoutServer, desk: Desk, client: JsonClient) -> None:
    write_tokens("u" * 40)
    server.reload()


CASES: dict[Code, list[Case]] = {
    Code.BAD_MESSAGE: [Case(asked=("{",)), Case(asked=({"op": "fly", "id": 1},))],
    Code.BAD_FIELD: [Case(asked=({"op": "subscribe", "id": 1},)), Case(asked=({"op": "ping", "id": 1, "wind": 3},))],
    Code.UNKNOWN_CONTRACT: [Case(asked=({**SUBSCRIBE, "symbol": "NOSUCH", "id": 1},))],
    Code.AMBIGUOUS_CONTRACT: [
        Case(asked=({**SUBSCRIBE, "id": 1},), error=ValueError("AAPL is ambiguous, add fields: 2 contracts match"))
    ],
    Code.NO_SUCH_SUBSCRIPTION: [
        Case(asked=({"op": "update", "id": 1, "subscription": 7, "interval_ms": 10},)),
        Case(asked=({"op": "unsubscribe", "id": 1, "subscription": 7},)),
    ],
    Code.FORBIDDEN: [Case(asked=({**SUBSCRIBE, "id": 1},), tokens=lambda: token_of(symbols=("MSFT",)))],
    Code.TOO_MANY: [
        Case(asked=(SUBSCRIBE, SUBSCRIBE, {**SUBSCRIBE, "id": 1}), security={"max_subscriptions": 2}),
        Case(asked=(SUBSCRIBE, {**SUBSCRIBE, "id": 1}), tokens=lambda: token_of(subscriptions=1)),
        Case(asked=(SUBSCRIBE, {**SUBSCRIBE, "symbol": "IBM", "id": 1}), tokens=lambda: token_of(new_instruments=1)),
        Case(asked=({**SUBSCRIBE, "id": 1},), error=FeedError("all 8 instruments are taken")),
    ],
    Code.TOO_FAST: [
        Case(asked=(SUBSCRIBE, {**SUBSCRIBE, "id": 1}), tokens=lambda: token_of(least_interval_ms=10)),
        Case("closing", asked=({"op": "ping"},) * 200, security=SLOWEST, closes=1008),
    ],
    Code.REFUSED: [Case(asked=({**SUBSCRIBE, "id": 1},), error=RequestError(1, 354, "not subscribed"))],
    Code.NO_GATEWAY: [Case(asked=({**SUBSCRIBE, "id": 1},), error=NotConnectedError("no session"))],
    Code.DONE: [
        Case(
            "ended",
            asked=({**SUBSCRIBE, "mode": "snapshot"},),
            then=trade,
        )
    ],
    Code.TOO_SLOW: [Case("ended", asked=({**SUBSCRIBE, "on_slow": "close", "interval_ms": 0},), then=overwhelm)],
    Code.SHUTDOWN: [Case("closing", stops=True, closes=1001)],
    Code.REVOKED: [
        Case("closing", tokens=write_tokens, security={"tokens_file": str(TOKENS_FILE)}, then=revoke, closes=1008)
    ],
    Code.EXPIRED: [Case("closing", tokens=lambda: token_of(expires_s=time.time() + 0.5), closes=1008)],
}


def documented() -> dict[str, str]:
    """The codes of the table, with what they mean."""
    (table,) = re.findall(r"^## Error codes\n(.*?)^## ", PROTOCOL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {
        code: meaning
        for codes, meaning in re.findall(r"^\| (`.*?) \| (.*) \|$", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }


def test_the_table_has_every_code_and_no_other() -> None:
    assert documented().keys() == {code.value for code in Code} == {code.value for code in CASES}
    assert all(documented().values())


@pytest.mark.parametrize(
    ("code", "case"),
    [pytest.param(code, case, id=f"{code}-{case.op}") for code, cases in CASES.items() for case in cases],
)
def test_a_code_comes_about(run: Run, code: Code, case: Case) -> None:
    async def test() -> None:
        tokens = None if case.tokens is None else case.tokens()
        async with contextlib.AsyncExitStack() as stack:
            life = await stack.enter_async_context(contextlib.AsyncExitStack())
            server, desk = await life.enter_async_context(serving(dict(case.security), tokens, backlog_bytes=1024))
            client = await stack.enter_async_context(client_of(server, **BEARER))
            for said in case.asked:
                desk.error = case.error
                if isinstance(said, str):
                    await client.socket.send(said)
                else:
                    await client.say(**said)
                    if said["op"] == "subscribe" and "id" not in said:
                        await client.until("subscribed")
            if case.then is not None:
                await case.then(server, desk, client)
            if case.stops:
                await life.aclose()
            message = await client.until("error", "ended", "closing")
            while message["op"] != case.op:
                message = await client.until("error", "ended", "closing")
            assert message["code"] == code
            assert message["message"]
            last = case.asked[-1] if case.asked else ""
            if case.op == "error":
                assert message["id"] == (None if isinstance(last, str) else 1)
            if case.closes is None:
                assert (await client.ask("list"))["op"] in ("subscriptions", "error")  # and the session goes on
            else:
                with pytest.raises(ConnectionClosed) as caught:
                    await client.hear()
                assert caught.value.rcvd is not None
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (case.closes, code)

    run(test())


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x81\x82\0\0\0\0\xc3\x28", CloseCode.INVALID_DATA),  # no UTF-8
        (b"\x81\x05hello", CloseCode.PROTOCOL_ERROR),  # not masked
        (b"\x81\xff\0\0\0\0\0\1\0\1\0\0\0\0", CloseCode.MESSAGE_TOO_BIG),
        (b"\x01\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 5000, CloseCode.MESSAGE_TOO_BIG),  # empty fragments without end
    ],
)
def test_what_is_no_message_closes_with_its_status(run: Run, raw: bytes, status: CloseCode) -> None:
    async def test() -> None:
        async with serving() as (server, _), client_of(server) as client:
            client.socket.transport.write(raw)
            with pytest.raises(ConnectionClosed) as caught:
                await client.until("never")
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == status

    run(test())
