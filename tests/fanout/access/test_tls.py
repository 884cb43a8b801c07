"""The server's certificate: a real handshake, and files that make none."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError
from ibfast.fanout.access.tls import server_context

AUTHORITY = trustme.CA()
ISSUED = AUTHORITY.issue_cert("desk.example.com")
CHAIN = b"".join(blob.bytes() for blob in ISSUED.cert_chain_pems)
KEY = ISSUED.private_key_pem.bytes()


def write(path: Path, content: bytes, mode: int) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Let both speak with each other in memory; return the version that they agree on."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname="desk.example.com"),
        server.wrap_bio(up, down, server_side=True),
    ]
    left = list(ends)
    for _ in range(10):
        for end in list(left):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(end)
    assert not left
    return ends[0].version()


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


def test_a_client_that_trusts_the_authority_is_served(tmp_path: Path) -> None:
    chain, key = write(tmp_path / "server.pem", CHAIN, 0o644), write(tmp_path / "server.key", KEY, 0o600)
    both = write(tmp_path / "both.pem", KEY + CHAIN, 0o600)
    for config in (
        SecurityConfig(certificate_file=chain, key_file=key),
        SecurityConfig(certificate_file=both),
    ):
        context = server_context(config)
        assert context is not None
        assert shake_hands(context, trusting()) == "TLSv1.3"
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_context(SecurityConfig()) is None


@pytest.mark.skipif(os.name != "posix", reason="there are no file modes")
def test_a_key_that_others_read_is_none(tmp_path: Path) -> None:
    chain, key = write(tmp_path / "server.pem", CHAIN, 0o644), write(tmp_path / "server.key", KEY, 0o644)
    with pytest.raises(ConfigError, match=r"security\.key_file: .* can be read by others"):
        server_context(SecurityConfig(certificate_file=chain, key_file=key))
    both = write(tmp_path / "both.pem", KEY + CHAIN, 0o644)
    with pytest.raises(ConfigError, match=r"security\.certificate_file: .* can be read by others"):
        server_context(SecurityConfig(certificate_file=both))


def test_what_is_no_pair_is_said(tmp_path: Path) -> None:
    chain = write(tmp_path / "server.pem", CHAIN, 0o644)
    encrypted = load_pem_private_key(KEY, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    for content in (AUTHORITY.issue_cert("other").private_key_pem.bytes(), encrypted, b"", b"\xff"):
        key = write(tmp_path / "server.key", content, 0o600)
        with pytest.raises(ConfigError, match="there is no certificate with its private key, unencrypted, in"):
            server_context(SecurityConfig(certificate_file=chain, key_file=key))
    with pytest.raises(ConfigError, match=r"security\.key_file: .* can't be read"):
        server_context(SecurityConfig(certificate_file=chain, key_file=str(tmp_path / "absent")))
