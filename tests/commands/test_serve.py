"""`ibfast serve` as a user runs it: a process, what it prints, who gets what, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from ibfast import Config, FanoutConfig, ReconnectionConfig, TlsConfig
from ibfast.client.provider import WebSocketProvider
from ibfast.commands import serve as serving
from ibfast.commands.main import main
from ibfast.errors import AuthError, ConnectError, NotConnectedError, StreamError
from ibfast.sim.gateway import Gateway
from tests.support.loops import WATCHDOG_S, Run, until
from tests.support.served import ANYWHERE, IBFAST, served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="commands are ended by signals here")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def first_rows(config: Config, *symbols: str) -> set[str]:
    """Subscribe, and return the tickers of which rows came, as soon as all of them have."""
    found: set[str] = set()
    async with asyncio.timeout(WATCHDOG_S), WebSocketProvider(config) as provider:
        for symbol in symbols:
            await provider.subscribe(symbol, data_type="QUOTES")
        async for update in provider.updates():
            found.add(update.ticker)
            if found == set(symbols):
                break
    return found


# --- what is served ---


def test_programs_read_the_gateway_s_data_health_and_metrics() -> None:
    with served("--sim", *ANYWHERE) as server:
        assert server.said["for"] == "programs of this machine, without a token"

        async def read() -> None:
            config = Config(stream_url=server.said["stream"])
            async with asyncio.timeout(WATCHDOG_S), WebSocketProvider(config) as provider:
                await provider.subscribe("AAPL", data_type="QUOTES")
                await anext(provider.updates())
                health = await asyncio.to_thread(server.health)
                assert health == {
                    "ok": True, "state": "CONNECTED", "subscribers": 1, "subscriptions": 1, "streams": {"LIVE": 1},
                    "reasons": [], "warnings": [],
                }  # fmt: skip
                await provider.subscribe("AAPL", data_type="BARS", mode="stream")  # of which the next is seconds away
                status, page = await asyncio.to_thread(server.get, "health")
                assert status == 200
                (warning,) = json.loads(page)["warnings"]
                assert "RealTimeBars AAPL" in warning
                for page in ("livez", "readyz"):
                    assert (await asyncio.to_thread(server.get, page))[0] == 200
                status, metrics = await asyncio.to_thread(server.get, "metrics")
                assert status == 200
                assert 'ibfast_fanout_subscribers{dialect="binary"} 1.0' in metrics
                assert 'ibfast_subscriptions{state="LIVE"} 1.0' in metrics
                (written,) = re.findall(r"^ibfast_fanout_bytes_total (\S+)$", metrics, re.MULTILINE)
                assert float(written) > 0

        server.until_healthy()
        asyncio.run(read())
        assert server.get("metrics", method="HEAD") == (200, "")
        assert server.get("metrics", host="desk.example.com")[0] == 403
        code, errors = server.end()
        assert code == 0
        assert errors == "ibfast: connected, server version 226, account DU****567\n"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell of processes")
def test_nothing_is_left_of_it() -> None:
    with served("--sim", *ANYWHERE) as server:
        (gateway,) = children_of(server.process.pid)
        assert server.end()[0] == 0
        assert not Path(f"/proc/{gateway}").exists()


def test_ctrl_c_ends_it_cleanly() -> None:
    with served("--sim", *ANYWHERE) as server:
        server.until_healthy()
        assert server.end(signal.SIGINT)[0] == 130


def test_the_line_that_it_suggests_works_as_it_stands() -> None:
    with served("--sim", *ANYWHERE) as server:
        server.until_healthy()
        command = server.said["try"].replace("python ", f"exec {sys.executable} -W error -u ", 1)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, shell=True, stdout=pipe, text=True, encoding="utf-8") as subscriber:
            assert subscriber.stdout is not None
            ops = [json.loads(line)["op"] for line, _ in zip(subscriber.stdout, range(3), strict=False)]
            subscriber.kill()
        assert ops[:2] == ["welcome", "subscribed"]


def test_the_server_says_good_bye() -> None:
    with served("--sim", *ANYWHERE) as server:
        server.until_healthy()

        async def stay() -> tuple[int, str]:
            config = Config(stream_url=server.said["stream"], reconnection=ReconnectionConfig(enabled=False))
            async with asyncio.timeout(WATCHDOG_S), WebSocketProvider(config) as provider:
                await provider.subscribe("AAPL")
                ended = await asyncio.to_thread(server.end)
                with pytest.raises(NotConnectedError, match="SHUTDOWN"):
                    async for _ in provider.updates():
                        pass
                return ended

        assert asyncio.run(stay())[0] == 0


# --- the gateway ---


def test_a_gateway_that_comes_later_is_waited_for_and_told_to_subscribers() -> None:
    port = free_port()
    with served("--port", str(port), *ANYWHERE) as server:
        while "tcp" not in server.health()["reasons"][0]:
            time.sleep(0.02)
        health = server.health()
        assert [server.get(page)[0] for page in ("health", "readyz", "livez")] == [503, 503, 200]
        assert not health["ok"]
        with pytest.raises(StreamError, match="NO_GATEWAY"):
            asyncio.run(first_rows(Config(stream_url=server.said["stream"]), "AAPL"))
        with subprocess.Popen([*IBFAST, "sim", "--port", str(port)], stdout=subprocess.PIPE) as gateway:
            try:
                server.until_healthy()
                config = Config(stream_url=server.said["stream"])
                assert asyncio.run(first_rows(config, "AAPL", "MSFT")) == {"AAPL", "MSFT"}
            finally:
                gateway.kill()
        while server.health()["state"] == "CONNECTED":
            time.sleep(0.02)
        code, errors = server.end()
    told = errors.splitlines()
    assert code == 0
    assert told[0].startswith("ibfast: no session with the gateway (waiting), it is tried again: nothing listens at ")
    assert told[1].startswith("ibfast: connected, ")
    assert told[2].startswith("ibfast: no session with the gateway (waiting)")
    assert len(told) < 6  # what is no news is not said at each attempt


def test_the_end_of_the_embedded_gateway_is_the_end() -> None:
    with served("--sim", *ANYWHERE) as server:
        server.until_healthy()
        (gateway,) = children_of(server.process.pid)
        os.kill(gateway, signal.SIGKILL)
        _, errors = server.process.communicate(timeout=WATCHDOG_S)
        assert server.process.returncode == 1
        assert errors.splitlines()[-1] == "ibfast: the embedded gateway has ended (exit code -9): start again"


def test_a_login_that_is_not_the_declared_one_ends_it() -> None:
    with served("--sim", *ANYWHERE, environ={"IBFAST_AUTH_ACCOUNT_TYPE": "live"}) as server:
        _, errors = server.process.communicate(timeout=WATCHDOG_S)
        assert server.process.returncode == 1
        assert "account_type" in errors
        assert "Traceback" not in errors


def test_without_reconnection_the_loss_of_the_gateway_ends_it(run: Run) -> None:
    async def test() -> None:
        async with Gateway() as gateway:
            config = Config(
                port=gateway.port, fanout=FanoutConfig(port=0), reconnection=ReconnectionConfig(enabled=False)
            )
            server = asyncio.create_task(serving.serve(config))
            await until(lambda: gateway.sessions)
            await asyncio.sleep(0.05)
            gateway.shut()
            with pytest.raises((NotConnectedError, ConnectError)):
                await server

    run(test())


def test_a_terminal_gets_a_line_now_and_then(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "STATUS_S", 0.02)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    async def test() -> None:
        said = ""
        async with Gateway() as gateway:
            server = asyncio.create_task(serving.serve(Config(port=gateway.port, fanout=FanoutConfig(port=0))))
            while "CONNECTED, " not in said:
                said += capsys.readouterr().err
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await server == 0
        assert "rows/s to 0 subscribers with 0 subscriptions, 0 of them behind, 0 rows left out so far" in said

    run(test())


# --- who may ---


def test_who_has_no_token_learns_little(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    token, watcher = (
        subprocess.check_output([*IBFAST, "token", *arguments, "--tokens-file", str(tokens)], text=True).strip()
        for arguments in (("desk",), ("watcher", "--metrics", "--subscriptions", "0"))
    )
    with served("--port", str(free_port()), *ANYWHERE, "--tokens", str(tokens)) as server:
        assert "clients with a token" in server.said["for"]
        assert "'Authorization': 'Bearer TOKEN'" in server.said["try"]
        assert server.get("metrics") == (401, "A valid token is needed.\n")
        assert server.get("metrics", token="x" * 43)[0] == 401
        assert server.get("metrics", token=token) == (403, "This page needs the permission metrics.\n")
        assert "ibfast_fanout_refused_total" in server.get("metrics", token=watcher)[1]
        assert "reasons" not in server.health()
        assert "reasons" not in json.loads(server.get("health", token=token)[1])
        assert server.get("readyz")[0] == 503
        status, health = server.get("health", token=watcher)
        assert status == 503
        assert "no session" in json.loads(health)["reasons"][0]
        with pytest.raises(ConnectError, match="token"):
            asyncio.run(first_rows(Config(stream_url=server.said["stream"]), "AAPL"))
        with pytest.raises(StreamError, match="NO_GATEWAY"):
            asyncio.run(first_rows(Config(stream_url=server.said["stream"], stream_token=token), "AAPL"))
        assert 'refused_total{reason="token_missing"} 1.0' in server.get("metrics", token=watcher)[1]
        assert token not in server.end()[1]


def token_for(path: Path, name: str) -> str:
    return subprocess.check_output([*IBFAST, "token", name, "--tokens-file", str(path)], text=True).strip()


def test_a_hangup_has_the_tokens_read_again(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    first = token_for(tokens, "first")
    with served("--sim", *ANYWHERE, "--tokens", str(tokens)) as server:
        server.until_healthy()

        async def stay() -> str:
            second = await asyncio.to_thread(token_for, tmp_path / "others.toml", "second")
            config = Config(stream_url=server.said["stream"], stream_token=first)
            async with asyncio.timeout(WATCHDOG_S), WebSocketProvider(config) as provider:
                await provider.subscribe("AAPL")
                await anext(provider.updates())
                (tmp_path / "others.toml").replace(tokens)
                server.process.send_signal(signal.SIGHUP)
                with pytest.raises(AuthError):
                    async for _ in provider.updates():
                        pass
            return second

        second = asyncio.run(stay())
        asyncio.run(first_rows(Config(stream_url=server.said["stream"], stream_token=second), "AAPL"))
        tokens.write_text("[second")
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr is not None
        while "stays in force" not in (line := server.process.stderr.readline()):
            assert line
        asyncio.run(first_rows(Config(stream_url=server.said["stream"], stream_token=second), "AAPL"))
        assert server.end()[0] == 0


def test_the_end_of_its_terminal_is_its_end() -> None:
    import pty  # where there is such a thing

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*IBFAST, "serve", "--sim", *ANYWHERE])
    said = b""
    while b"connected, " not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    deadline_s, ended, status = time.monotonic() + WATCHDOG_S, 0, 0
    while not ended and time.monotonic() < deadline_s:
        time.sleep(0.02)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ended
    assert os.WIFEXITED(status)


def test_everybody_on_all_addresses_if_the_user_says_so() -> None:
    with served("--sim", "--listen", "0.0.0.0:0", "--anonymous") as server:
        assert server.said["for"] == "all clients that can reach it, without a token"
        assert server.said["stream"].startswith("ws://127.0.0.1:")
        server.until_healthy()
        assert "reasons" not in server.health()
        assert server.get("metrics")[0] == 403
        _, errors = server.end()
        assert "without a token" in errors


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(certificate, append=number > 0)
    with served(
        "--sim", "--listen", f"localhost:{free_port()}", "--certificate", str(certificate), "--key", str(key)
    ) as server:
        assert server.said["stream"].startswith("wss://localhost:")
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        while server.get("health", context=context)[0] != 200:
            time.sleep(0.02)
        config = Config(stream_url=server.said["stream"], tls=TlsConfig(ca_file=str(tmp_path / "ca.pem")))
        assert asyncio.run(first_rows(config, "AAPL")) == {"AAPL"}


# --- mistakes ---


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*IBFAST, "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--config", "no/such/file.toml"), "no/such/file.toml can't be read"),
        (("--listen", "0.0.0.0:0"), "security.allow_anonymous"),
        (("--listen", "0.0.0.0:0", "--sim"), "security.allow_anonymous"),
        (("--tokens", "no/such/file.toml"), "no/such/file.toml can't be read"),
        (("--tokens", "tokens.toml", "--anonymous"), "allow_anonymous"),
        (("--key", "key.pem"), "certificate_file"),
        (("--origin", "example"), "https://desk.example.com"),
        (("--port", "0"), "port=0"),
        (("--sim", "--port", "7497"), "--sim"),
        (("--symbols", "3"), "--sim"),
        (("--ticks", "ticks.csv"), "--sim"),
        (("--listen", "192.0.2.1:0", "--anonymous"), "--listen"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(("serve", *arguments)) == 1
    shown, errors = capsys.readouterr()
    assert complaint in errors
    assert errors.startswith("ibfast: ")
    assert errors.count("\n") == 1
    assert shown == ""
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_mistake_of_a_process_is_one_sentence() -> None:
    done = refused("--listen", "0.0.0.0:0", "--sim")
    assert done.returncode == 1
    assert "security.allow_anonymous" in done.stderr.splitlines()[-1]
    assert all(line.startswith("ibfast: ") for line in done.stderr.splitlines())
    assert done.stdout == ""


def test_a_broken_file_of_settings_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "desk.toml"
    path.write_text("[fanout]\nport = 70000\n")
    done = refused("--config", str(path))
    assert done.returncode == 1
    assert "fanout.port=70000 is not possible" in done.stderr
    assert str(path) in done.stderr


def test_a_port_in_use_is_said_with_the_remedy() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = refused("--sim", "--listen", address)
    assert done.returncode == 1
    assert done.stderr == (
        f"ibfast: nothing can listen at {address} (Address already in use): give another address by --listen\n"
    )


def test_options_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "desk.toml"
    path.write_text('[fanout]\nhost = "192.0.2.1"\nport = 1\n[security]\nallow_anonymous = true\n')
    environ = {"IBFAST_CONFIG": str(path), "IBFAST_FANOUT_HOST": "192.0.2.2", "IBFAST_FANOUT_PORT": "2"}
    with served("--sim", *ANYWHERE, environ=environ) as server:
        assert server.said["stream"].startswith("ws://127.0.0.1:")
        assert not server.said["stream"].endswith((":1/stream", ":2/stream"))
