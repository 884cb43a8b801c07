"""TLS before a gateway: the real thing, over real sockets, with certificates that are right and wrong in every way.

The proxy is a thread with blocking sockets, since OpenSSL then sends its alerts as real proxies do; the servers of
asyncio hang up without a word. Every case runs on asyncio and on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from ibfast import Feed
from ibfast.config.tls import TlsConfig, explain
from ibfast.connection.protocol import Protocol, State
from ibfast.connection.transport import Connection, open_connection
from ibfast.errors import ConfigError, ConnectError, NotConnectedError
from ibfast.wire.requests import CurrentTimeInMillisRequest
from ibfast.wire.responses import CurrentTimeInMillis
from tests.support.loops import Run
from tests.support.peer import Caller, Peer

PATIENCE_S = 20.0
SOON_S = 0.3
READ_BYTES = 1 << 16
TLS_HANDSHAKE = b"\x16"  # the record type of a ClientHello: RFC 8446, section 5.1
PASSWORD = "tr0mbone-pa55word"
HOST = "127.0.0.1"

CA = trustme.CA()
OTHER_CA = trustme.CA()
GOOD = CA.issue_cert(HOST, "localhost")
CLIENT = CA.issue_cert("client@example.org")
STRANGER = OTHER_CA.issue_cert("client@example.org")


class TlsProxy:
    """Listens, serves one client over TLS, and passes everything on to a gateway and back.

    Attributes:
        failure: why the handshake failed, None if it did not.
    """

    def __init__(self, context: ssl.SSLContext, gateway_port: int, first: bytes = TLS_HANDSHAKE) -> None:
        self.failure: OSError | None = None
        self._first = first
        self._context = context
        self._gateway_port = gateway_port
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(PATIENCE_S)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    async def __aenter__(self) -> TlsProxy:
        self._thread.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._thread.join)

    def spoil(self) -> None:
        """Send the client what is no TLS, in the midst of it."""
        self._raw.sendall(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)

    def _serve(self) -> None:
        with self._listener:
            client = self._accept()
        self._raw = client.dup()  # to wrap a socket takes it away
        with client, self._raw:
            try:
                secured = self._context.wrap_socket(client, server_side=True)
            except OSError as error:
                self.failure = error
                drain(client)
                return
            gateway = socket.create_connection((HOST, self._gateway_port), PATIENCE_S)
            with secured, gateway, contextlib.suppress(OSError):
                self._pass_on(secured, gateway)

    def _accept(self) -> socket.socket:
        """Return the first client that begins as the test's client does.

        Tests of other processes try ports where they expect no listener. Such a client must not take the place of ours.
        """
        while True:
            client, _ = self._listener.accept()
            client.settimeout(PATIENCE_S)
            with contextlib.suppress(OSError):
                if client.recv(1, socket.MSG_PEEK) == self._first:
                    return client
            client.close()

    def _pass_on(self, client: ssl.SSLSocket, gateway: socket.socket) -> None:
        while True:
            ready = [client] if client.pending() else select.select([client, gateway], [], [], PATIENCE_S)[0]
            for source in ready:
                data = source.recv(READ_BYTES)
                if not data:
                    return
                (gateway if source is client else client).sendall(data)


def drain(client: socket.socket) -> None:
    """Wait until the client hangs up, so that no reset overtakes the alert."""
    with contextlib.suppress(OSError):
        while client.recv(READ_BYTES):
            pass


def server_context(
    certificate: trustme.LeafCert = GOOD,
    *,
    wants: trustme.CA | None = None,
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = maximum
    certificate.configure_cert(context)
    if wants is not None:
        wants.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the files that a user would have."""
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, certificate in (("client", CLIENT), ("stranger", STRANGER)):
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    (tmp_path / "both.pem").write_bytes(CLIENT.private_key_and_cert_chain_pem.bytes())
    key = serialization.load_pem_private_key(CLIENT.private_key_pem.bytes(), None)
    (tmp_path / "encrypted.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
    )
    (tmp_path / "text.txt").write_text("this is no certificate")
    (tmp_path / "empty").touch()
    return tmp_path


async def good(caller: Caller) -> None:
    await caller.start()
    await caller.gone()


async def asked(caller: Caller) -> None:
    await caller.start()
    await caller.request(CurrentTimeInMillisRequest)
    caller.send(CurrentTimeInMillis(1_700_000_000_000))
    await caller.gone()


async def connect(port: int, tls: TlsConfig | None, host: str = HOST) -> Connection:
    """Connect, and wait until the session is READY or CLOSED."""
    changed = asyncio.Event()
    protocol = Protocol(Feed(1 << 8, max_instruments=16, max_texts=64))
    connection = await open_connection(host, port, protocol, changed.set, tls)
    while protocol.state not in (State.READY, State.CLOSED):
        await changed.wait()
        changed.clear()
    return connection


async def hang_up(connection: Connection) -> None:
    connection.abort()
    await connection.closed


async def outcome(port: int, tls: TlsConfig, host: str = HOST) -> ConnectError | None:
    """Connect and hang up; return why there was no session."""
    try:
        connection = await connect(port, tls, host)
    except OSError as error:
        return explain(error)
    error = connection.protocol.error
    await hang_up(connection)
    assert error is None or isinstance(error, ConnectError)
    return error


async def outcome_behind(context: ssl.SSLContext, tls: TlsConfig, host: str = HOST) -> ConnectError | None:
    """Connect through a TLS proxy."""
    async with Peer(good) as gateway, TlsProxy(context, gateway.port) as proxy:
        error = await outcome(proxy.port, tls, host)
    assert error is not None or proxy.failure is None
    return error


# --- what works ---


def test_a_stranger_does_not_take_the_place_of_the_client(run: Run, files: Path) -> None:
    async def check() -> None:
        async with Peer(good) as gateway, TlsProxy(server_context(), gateway.port) as proxy:
            socket.create_connection((HOST, proxy.port), PATIENCE_S).close()
            assert await outcome(proxy.port, TlsConfig(ca_file=files / "ca.pem")) is None

    run(check())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_over_tls(run: Run, files: Path, version: ssl.TLSVersion) -> None:
    async def check() -> None:
        context = server_context(maximum=version)
        async with Peer(asked) as gateway, TlsProxy(context, gateway.port) as proxy:
            connection = await connect(proxy.port, TlsConfig(ca_file=files / "ca.pem"))
            protocol = connection.protocol
            assert protocol.state is State.READY
            assert protocol.accounts == ("DU1",)
            protocol.events()
            protocol.send(CurrentTimeInMillisRequest())
            connection.flush()
            while not (arrivals := protocol.events()):
                await asyncio.sleep(0.001)
            assert [arrival.message for arrival in arrivals] == [CurrentTimeInMillis(1_700_000_000_000)]
            await hang_up(connection)

    run(check())


@pytest.mark.parametrize(
    "names",
    [
        {"certificate": "client.pem", "key": "client.key"},
        {"certificate": "both.pem"},
        {"certificate": "client.pem", "key": "encrypted.key", "key_password": PASSWORD},
    ],
)
def test_a_client_with_a_certificate_of_its_own(run: Run, files: Path, names: dict[str, str]) -> None:
    paths = {name: value if name == "key_password" else str(files / value) for name, value in names.items()}
    tls = TlsConfig(ca_file=files / "ca.pem", **paths)
    assert run(outcome_behind(server_context(wants=CA), tls)) is None


def test_the_name_of_the_certificate_may_be_another_than_the_hosts(run: Run, files: Path) -> None:
    context = server_context(CA.issue_cert("gateway.example.org"))
    tls = TlsConfig(ca_file=files / "ca.pem", server_name="gateway.example.org")
    assert run(outcome_behind(context, tls)) is None


def test_a_host_is_known_by_its_name(run: Run, files: Path) -> None:
    context = server_context(CA.issue_cert("localhost"))
    assert run(outcome_behind(context, TlsConfig(ca_file=files / "ca.pem"), "localhost")) is None


# --- certificates of the proxy that are not accepted ---


def valid(**days: int) -> dict[str, datetime]:
    now = datetime.now(UTC).replace(tzinfo=None)
    return {name: now + timedelta(days=value) for name, value in days.items()}


@pytest.mark.parametrize(
    ("issue", "reason", "remedy"),
    [
        (lambda: CA.issue_cert(HOST, **valid(not_before=-9, not_after=-1)), "has expired", "renew it"),
        (lambda: CA.issue_cert(HOST, **valid(not_before=1, not_after=9)), "not valid yet", "clock"),
        (lambda: CA.issue_cert("gateway.example.org"), "of another host", "tls.server_name"),
        (lambda: OTHER_CA.issue_cert(HOST), "unknown authority", "tls.ca_file"),
    ],
)
def test_a_proxy_that_can_not_prove_who_it_is(
    run: Run, files: Path, issue: Callable[[], trustme.LeafCert], reason: str, remedy: str
) -> None:
    error = run(outcome_behind(server_context(issue()), TlsConfig(ca_file=files / "ca.pem")))
    assert error.stage == "tls"
    assert reason in error.reason
    assert remedy in error.remedy


def test_the_systems_authorities_know_nothing_of_a_private_one(run: Run) -> None:
    error = run(outcome_behind(server_context(), TlsConfig()))
    assert (error.stage, "unknown authority" in error.reason) == ("tls", True)


def test_a_server_name_replaces_the_hosts(run: Run, files: Path) -> None:
    tls = TlsConfig(ca_file=files / "ca.pem", server_name="gateway.example.org")
    error = run(outcome_behind(server_context(), tls))
    assert "of another host" in error.reason


def test_a_proxy_that_is_too_old(run: Run, files: Path) -> None:
    tls = TlsConfig(ca_file=files / "ca.pem", minimum_version="1.3")
    error = run(outcome_behind(server_context(maximum=ssl.TLSVersion.TLSv1_2), tls))
    assert error.stage == "tls"
    assert "TLS version" in error.reason
    assert "minimum_version" in error.remedy


# --- certificates of the client ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("names", [{}, {"certificate": "stranger.pem", "key": "stranger.key"}])
def test_a_proxy_that_does_not_know_this_client(
    run: Run, files: Path, names: dict[str, str], version: ssl.TLSVersion
) -> None:
    tls = TlsConfig(ca_file=files / "ca.pem", **{name: str(files / value) for name, value in names.items()})
    error = run(outcome_behind(server_context(wants=CA, maximum=version), tls))
    assert error.stage == "tls"
    assert "tls.certificate" in error.remedy


# --- TLS and plain text ---


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda caller: caller.reply(226), id="a gateway"),
        pytest.param(lambda caller: caller.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="a web server"),
        pytest.param(Caller.hang_up, id="hangs up"),
        pytest.param(Caller.reset, id="resets"),
    ],
)
def test_a_gateway_that_speaks_plain_text(run: Run, files: Path, answer: Callable[[Caller], Any]) -> None:
    async def plain(caller: Caller) -> None:
        answer(caller)
        await caller.gone()

    async def check() -> ConnectError | None:
        async with Peer(plain) as gateway:
            return await outcome(gateway.port, TlsConfig(ca_file=files / "ca.pem"))

    error = run(check())
    assert error.stage == "tls"
    assert "leave tls out" in error.remedy


def test_a_gateway_that_says_nothing_is_left_without_a_trace(run: Run, files: Path) -> None:
    async def check() -> None:
        async with Peer(Caller.gone) as gateway:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SOON_S):
                    await outcome(gateway.port, TlsConfig(ca_file=files / "ca.pem"))

    run(check())


def test_tls_that_breaks_in_a_session_is_a_connection_that_is_lost(run: Run, files: Path) -> None:
    async def check() -> None:
        async with Peer(good) as gateway, TlsProxy(server_context(), gateway.port) as proxy:
            connection = await connect(proxy.port, TlsConfig(ca_file=files / "ca.pem"))
            proxy.spoil()
            await connection.closed
        assert connection.protocol.state is State.CLOSED
        assert isinstance(connection.protocol.error, NotConnectedError)

    run(check())


def test_plain_text_to_a_tls_proxy(run: Run) -> None:
    async def check() -> None:
        async with Peer(good) as gateway, TlsProxy(server_context(), gateway.port, first=b"A") as proxy:
            connection = await connect(proxy.port, None)
            error = connection.protocol.error
            await hang_up(connection)
        assert isinstance(error, ConnectError)
        assert error.stage == "handshake"
        assert isinstance(proxy.failure, ssl.SSLError)

    run(check())


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"ca_file": 5}, "ca_file"),
        ({"ca_file": ""}, "ca_file"),
        ({"certificate": b"x"}, "certificate"),
        ({"key": "x.key"}, "key"),
        ({"key_password": PASSWORD}, "key_password"),
        ({"key_password": PASSWORD.encode(), "certificate": "x.pem"}, "key_password"),
        ({"server_name": ""}, "server_name"),
        ({"server_name": 1}, "server_name"),
        ({"minimum_version": "1.1"}, "minimum_version"),
        ({"minimum_version": 1.2}, "minimum_version"),
    ],
)
def test_a_setting_that_is_not_possible_is_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^tls\.{field}\b") as caught:
        TlsConfig(**settings)
    assert "give" in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "field", "reason"),
    [
        ({"ca_file": "missing.pem"}, "ca_file", "can't be read"),
        ({"ca_file": "."}, "ca_file", "can't be read"),
        ({"ca_file": "bad\0name"}, "ca_file", "can't be read"),
        ({"ca_file": "text.txt"}, "ca_file", "no certificate in it"),
        ({"ca_file": "empty"}, "ca_file", "no certificate in it"),
        ({"ca_file": "client.key"}, "ca_file", "no certificate in it"),
        ({"certificate": "missing.pem"}, "certificate", "can't be read"),
        ({"certificate": "client.pem", "key": "missing.key"}, "key", "can't be read"),
        ({"certificate": "client.pem"}, "certificate", "no certificate and its private key"),
        ({"certificate": "client.pem", "key": "text.txt"}, "certificate", "no certificate and its private key"),
        ({"certificate": "text.txt", "key": "client.key"}, "certificate", "no certificate and its private key"),
        ({"certificate": "client.pem", "key": "stranger.key"}, "key", "is not the key of"),
        ({"certificate": "client.pem", "key": "encrypted.key"}, "key_password", "is missing"),
    ],
)
def test_a_file_that_can_not_be_used_is_named(files: Path, names: dict[str, str], field: str, reason: str) -> None:
    tls = TlsConfig(**{name: str(files / value) for name, value in names.items()})
    with pytest.raises(ConfigError, match=rf"^tls\.{field}\b.*{reason}"):
        tls.context()


@pytest.mark.parametrize("password", ["", "n0t-this-one", "x" * 2000])
def test_a_wrong_password_is_told_and_not_shown(files: Path, password: str) -> None:
    tls = TlsConfig(certificate=files / "client.pem", key=files / "encrypted.key", key_password=password)
    with pytest.raises(ConfigError, match=r"^tls\.key_password does not open") as caught:
        tls.context()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not password or password not in str(caught.value)


def test_checks_can_not_be_switched_off(files: Path) -> None:
    context = TlsConfig(ca_file=files / "ca.pem").context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert TlsConfig(minimum_version="1.3").context().minimum_version is ssl.TLSVersion.TLSv1_3


def test_a_password_shows_nowhere(run: Run, files: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tls = TlsConfig(
        ca_file=files / "ca.pem", certificate=files / "client.pem", key=files / "encrypted.key", key_password=PASSWORD
    )
    error = run(outcome_behind(server_context(CA.issue_cert("gateway.example.org")), tls))
    logging.getLogger("ibfast").info("settings: %s %r", tls, tls)
    assert "settings: TlsConfig(" in caplog.text
    for text in (repr(tls), str(tls), str(error), repr(error), caplog.text):
        assert PASSWORD not in text


# --- what a failure means ---


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl_error("TLSV1_ALERT_UNKNOWN_CA"), "does not trust this client's certificate"),
        (ssl_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "this client's certificate has expired"),
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "wants a certificate"),
        (ssl_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), "refuses the handshake"),
        (ssl_error("TLSV1_ALERT_INTERNAL_ERROR"), "refuses the handshake"),
        (ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"), "no TLS version that both know"),
        (ssl_error("UNSUPPORTED_PROTOCOL"), "no TLS version that both know"),
        (ssl_error("DECRYPTION_FAILED"), "TLS failed: DECRYPTION_FAILED"),
        (ssl.SSLError("odd"), "closed during the TLS handshake"),
        (ConnectionResetError(), "closed during the TLS handshake"),
    ],
)
def test_what_a_failure_means(error: OSError, words: str) -> None:
    explained = explain(error)
    assert explained.stage == "tls"
    assert words in explained.reason
    assert explained.remedy


def test_a_verdict_that_nobody_foresaw_is_given_in_openssls_words() -> None:
    error = ssl.SSLCertVerificationError(1, "odd")
    error.verify_code, error.verify_message = 26, "unsuitable certificate purpose"
    assert "unsuitable certificate purpose" in explain(error).reason
