"""What clients are let in by, as the files have it now: tokens, the keys of JWTs, the certificate.

The rule of the file: a file that can't be used, or has no token any more, changes nothing: what was read last stays,
and an error is logged once for each change of the file. It waits for the disk; a server calls it in a thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ibfast.config.security import SecurityConfig
from ibfast.errors import ConfigError
from ibfast.fanout.access.tls import server_context
from ibfast.fanout.access.token_files import load_tokens
from ibfast.fanout.access.tokens import Tokens

__all__ = ["Credentials"]

logger = logging.getLogger("ibfast")

Mark: TypeAlias = tuple[int, ...]
"""Tells one version of a file from another, also where another file was moved to its place."""


class Credentials:
    """The tokens and the certificate of a server.

    Args:
        security: names the files.
        is_local: as in `load_tokens`.
        tokens: in place of those in the files.

    Attributes:
        tokens: who is let in.
        tls: what the server speaks TLS with, None if it does not.

    Raises:
        ConfigError: a file can't be used.
    """

    def __init__(self, security: SecurityConfig, *, is_local: bool, tokens: Tokens | None = None) -> None:
        self._security = security
        self._is_local = is_local
        token_files = (security.tokens_file, security.jwt_secret_file, security.jwt_public_key_file)
        self._token_files = () if tokens is not None else tuple(filter(None, token_files))
        self._tls_files = tuple(filter(None, (security.certificate_file, security.key_file)))
        self._token_marks, self._tls_marks = _marks(self._token_files), _marks(self._tls_files)
        self.tokens = load_tokens(security, is_local=is_local) if tokens is None else tokens
        self.tls = server_context(security)

    @property
    def has_files(self) -> bool:
        """Whether anything can change."""
        return bool(self._token_files or self._tls_files)

    def refresh(self, *, is_forced: bool = False) -> bool:
        """Read the files that have changed, and return whether the tokens were read.

        Args:
            is_forced: read all of them.
        """
        # The marks are older than what is read: a file that changes meanwhile is read once more.
        token_marks, tls_marks = _marks(self._token_files), _marks(self._tls_files)
        is_read = False
        if self._token_files and (is_forced or token_marks != self._token_marks):
            self._token_marks = token_marks
            is_read = _survives(self._read_tokens)
        if self._tls_files and (is_forced or tls_marks != self._tls_marks):
            self._tls_marks = tls_marks
            _survives(self._read_tls)
        return is_read

    def _read_tokens(self) -> None:
        self.tokens = load_tokens(self._security, is_local=self._is_local)

    def _read_tls(self) -> None:
        self.tls = server_context(self._security)


def _survives(read: Callable[[], None]) -> bool:
    try:
        read()
    except ConfigError as error:
        logger.error("fan-out: what was read before stays in force: %s", error)
        return False
    return True


def _marks(files: tuple[str, ...]) -> tuple[Mark, ...]:
    return tuple(map(_mark, files))


def _mark(path: str) -> Mark:
    try:
        status = os.stat(Path(path).expanduser())
    except (OSError, RuntimeError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
