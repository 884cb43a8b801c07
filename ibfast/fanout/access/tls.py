"""TLS of the server: its certificate and key, from files.

The rule of the file: a key that others can read is none; no password is ever asked for at a terminal.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError
from ibfast.fanout.access.token_files import read_guarded

__all__ = ["detached", "server_context"]


def server_context(config: SecurityConfig) -> ssl.SSLContext | None:
    """Return what the server speaks TLS with, None if it does not.

    Raises:
        ConfigError: a file can't be read, the key is open to others or encrypted, or they are no pair.
    """
    if config.certificate_file is None:
        return None
    certificate, key = config.certificate_file, config.key_file
    # The file with the key is a secret; a certificate is shown to everybody.
    read_guarded("security.certificate_file", certificate, bytes, is_secret=key is None)
    if key is not None:
        read_guarded("security.key_file", key, bytes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(_path(certificate), None if key is None else _path(key), _no_password)
    except (OSError, ValueError):
        files = certificate if key is None else f"{certificate} and {key}"
        raise ConfigError(
            f"security.certificate_file: there is no certificate with its private key, unencrypted, in {files}: "
            "give PEM files of a pair"
        ) from None
    return context


def detached(transport: asyncio.Transport) -> socket.socket:
    """Return the socket of a transport that was just made, and has read nothing; the transport is given up.

    A loop that listens with TLS calls its protocol only when TLS is agreed on. So a server that counts connections
    from the first packet on listens without, and makes the transport with TLS itself.

    Raises:
        OSError: there is no descriptor left.
    """
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    sock.setblocking(False)
    transport.set_protocol(asyncio.Protocol())  # its end is nobody's business
    transport.abort()
    return sock


def _path(path: str) -> Path:
    return Path(path).expanduser()


def _no_password() -> str:
    return ""
