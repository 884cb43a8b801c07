"""Files that change while a server runs: who is let in, and whose session ends. On real files and sockets."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ibfast.config.security import SecurityConfig
from ibfast.fanout.access.credentials import Credentials
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import Grant
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_client import JsonClient, client_of, serving
from tests.support.loops import Run, until

NOW_S = 1_000.0
FIRST, SECOND, THIRD = "a" * 40, "b" * 40, "c" * 40


def table(name: str, token: str, symbols: str = "*") -> str:
    return f'[{name}]\ntoken = "{token}"\nsymbols = ["{symbols}"]\n'


def write(path: Path, *tables: str) -> Path:
    """Put another file at the path, as who writes carefully does."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text("".join(tables))
    return new.replace(path)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens.toml", table("first", FIRST), table("second", SECOND))


def credentials(tokens: Path) -> Credentials:
    return Credentials(SecurityConfig(tokens_file=str(tokens)), is_local=False)


def names(made: Credentials) -> list[str]:
    grants = (made.tokens.check(token, NOW_S) for token in (FIRST, SECOND, THIRD))
    return [grant.name for grant in grants if isinstance(grant, Grant)]


# --- files ---


def test_a_file_is_read_when_it_has_changed(tokens: Path) -> None:
    made = credentials(tokens)
    assert names(made) == ["first", "second"]
    assert not made.refresh()
    write(tokens, table("first", FIRST))
    assert made.refresh()
    assert names(made) == ["first"]
    with tokens.open("a") as file:  # in place, as `ibfast token` does
        file.write(table("third", THIRD))
    assert made.refresh()
    assert names(made) == ["first", "third"]
    assert not made.refresh()
    assert made.refresh(is_forced=True)


def test_a_file_of_the_same_size_and_time_is_another_one(tokens: Path) -> None:
    made = credentials(tokens)
    times = tokens.stat()
    write(tokens, table("first", FIRST), table("second", THIRD))
    os.utime(tokens, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert made.refresh()
    assert names(made) == ["first", "second"]
    assert not isinstance(made.tokens.check(SECOND, NOW_S), Grant)


@pytest.mark.parametrize("breakage", ["absent", "readable", "no TOML", "empty", "cut"])
def test_what_can_t_be_used_changes_nothing_and_is_said_once(
    tokens: Path, caplog: pytest.LogCaptureFixture, breakage: str
) -> None:
    made = credentials(tokens)
    match breakage:
        case "absent":
            tokens.unlink()
        case "readable" if os.name == "posix":
            tokens.chmod(0o644)
        case "cut":
            tokens.write_text(tokens.read_text()[:-30])
        case _:
            tokens.write_text("" if breakage == "empty" else f"x {FIRST}")
    for _ in range(3):
        assert not made.refresh()
    (record,) = caplog.records
    assert record.getMessage().startswith("fan-out: what was read before stays in force: security.tokens_file: ")
    assert FIRST not in record.getMessage()
    assert names(made) == ["first", "second"]
    write(tokens, table("third", THIRD))
    assert made.refresh()
    assert names(made) == ["third"]


def test_the_key_of_jwts_is_read_again(tmp_path: Path) -> None:
    from ibfast.fanout.access import jwt as jwt_tokens

    path = write(tmp_path / "jwt.secret", "s" * 32)
    made = Credentials(SecurityConfig(jwt_secret_file=str(path)), is_local=False)
    permissions = Permissions(symbols=("SPY",))
    old, new = (
        jwt_tokens.JwtSigner(key * 32, audience="ibfast", issuer="ibfast").sign(
            "visitor", permissions, now_s=1000, expires_s=2000
        )
        for key in (b"s", b"n")
    )
    assert isinstance(made.tokens.check(old, NOW_S), Grant)
    write(path, "n" * 32)
    assert made.refresh()
    assert not isinstance(made.tokens.check(old, NOW_S), Grant)
    assert isinstance(made.tokens.check(new, NOW_S), Grant)


def test_what_has_no_files_never_changes() -> None:
    assert not Credentials(SecurityConfig(), is_local=True).has_files


# --- sessions ---


def bearer(token: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


async def revoked(client: JsonClient) -> None:
    assert (await client.until("closing"))["code"] == "REVOKED"
    with pytest.raises(ConnectionClosed) as caught:
        await client.hear()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "REVOKED")


@pytest.mark.parametrize("is_told", [False, True])
def test_a_session_ends_with_its_token_and_others_go_on(run: Run, tokens: Path, is_told: bool) -> None:
    async def test() -> None:
        async with (
            serving({"tokens_file": str(tokens)}) as (server, _),
            client_of(server, **bearer(FIRST)) as first,
            client_of(server, **bearer(SECOND)) as second,
        ):
            write(tokens, table("second", SECOND), table("third", THIRD))
            if is_told:
                server.reload()
            await revoked(first)
            with pytest.raises(InvalidStatus) as caught:
                async with client_of(server, **bearer(FIRST)):
                    pass
            assert caught.value.response.status_code == 401
            async with client_of(server, **bearer(THIRD)) as third:
                assert (await third.ask("ping"))["op"] == "pong"
            assert (await second.ask("ping"))["op"] == "pong"
            assert server.tally.closed == {"REVOKED": 1}

    run(test())


def test_a_session_ends_when_its_token_permits_something_else(run: Run, tokens: Path) -> None:
    async def test() -> None:
        async with serving({"tokens_file": str(tokens)}) as (server, _), client_of(server, **bearer(FIRST)) as client:
            write(tokens, table("first", FIRST, symbols="AAPL"))
            server.reload()
            await revoked(client)
            async with client_of(server, **bearer(FIRST)) as again:
                assert again.welcome["permissions"]["symbols"] == ["AAPL"]

    run(test())


def test_a_broken_file_ends_no_session(run: Run, tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving({"tokens_file": str(tokens)}) as (server, _), client_of(server, **bearer(FIRST)) as client:
            write(tokens, "[first")
            server.reload()
            await until(lambda: "stays in force" in caplog.text)
            assert (await client.ask("ping"))["op"] == "pong"
            async with client_of(server, **bearer(SECOND)):
                pass

    run(test())


def test_a_new_certificate_is_for_new_connections(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authorities = [trustme.CA(), trustme.CA()]
    pairs = []
    for number, authority in enumerate(authorities):
        issued = authority.issue_cert("127.0.0.1")
        path = tmp_path / f"{number}.pem"
        path.touch(0o600)
        path.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        pairs.append(path)
    path = tmp_path / "server.pem"

    def trusted(server: FanoutServer, number: int) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authorities[number].configure_trust(context)
        return connect("wss://{}:{}/stream".format(*server.address), ssl=context)

    async def test() -> None:
        shutil.copy(pairs[0], path)
        async with serving({"certificate_file": str(path)}) as (server, _), trusted(server, 0) as old:
            write(path, "no certificate")
            server.reload()
            await until(lambda: "stays in force" in caplog.text)
            async with trusted(server, 0):
                pass
            pairs[1].replace(path)
            before = server.tls
            server.reload()
            await until(lambda: server.tls is not before)
            async with trusted(server, 1):
                pass
            with pytest.raises(ssl.SSLCertVerificationError):
                async with trusted(server, 0):
                    pass
            await old.send('{"op":"ping"}')
            assert '"op":"welcome"' in str(await old.recv())
            assert '"op":"pong"' in str(await old.recv())

    run(test())
