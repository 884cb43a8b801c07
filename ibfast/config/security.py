"""Settings of access to the fan-out: tokens, TLS, origins and caps.

The rule of the file: settings that exist are possible; files are named here and read elsewhere.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibfast.config.checks import is_number, is_text, require, require_flag, require_seconds, require_whole
from ibfast.config.origins import Origins
from ibfast.errors import ConfigError

__all__ = ["SecurityConfig"]

MAX_LEEWAY_S = 300
LEAST_MESSAGE_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """Which clients may subscribe, and the caps that no client may exceed.

    Attributes:
        tokens_file: TOML file of static tokens, as `ibfast token` writes it; only its owner may read it.
        jwt_secret_file: file of the secret that signs JWTs by HS256, 32 bytes at least; only its owner may read it.
        jwt_public_key_file: PEM file of the Ed25519 key that verifies JWTs signed by EdDSA; instead of a secret.
        audience, issuer: the claims that a JWT must have.
        leeway_s: how far the clock of the maker of JWTs may differ from this one.
        allow_anonymous: serve every client that can reach the server, without a token, also from other machines.
        origins: web pages that may connect: "https://desk.example.com", "http://localhost:*" for any port, "*" for
            all, "null" for pages from files.
        certificate_file, key_file: PEM files of the server's TLS certificate with its chain, and of the private key.
        max_connections: connections at once, in all; the server raises the process's limit of descriptors for them, and
            serves fewer, with a warning, where the system forbids that.
        max_per_address: connections from one address, but not of this machine. Behind a reverse proxy on this machine
            all clients have its address: have the proxy count them.
        max_subscriptions: subscriptions of one connection.
        max_new_instruments: instruments that no other client has, of one token in an hour; all anonymous clients are
            one. Each takes a row of the feed's table (`max_instruments`) for an hour at least.
        max_lines: market-data lines, books and others at IB, of one token at once over all of its connections.
        max_message_bytes: length of a message from a client; a session also ends when more than this waits of it.
        max_control_per_s: frames from one client in a second; each KiB of data, and of its answer, counts as one more.
        handshake_timeout_s: time limit for TLS and the HTTP upgrade together.
    """

    tokens_file: str | None = None
    jwt_secret_file: str | None = None
    jwt_public_key_file: str | None = None
    audience: str = "ibfast"
    issuer: str = "ibfast"
    leeway_s: float = 10.0
    allow_anonymous: bool = False
    origins: tuple[str, ...] = ("http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*")
    certificate_file: str | None = None
    key_file: str | None = None
    max_connections: int = 2000
    max_per_address: int = 100
    max_subscriptions: int = 500
    max_new_instruments: int = 1000
    max_lines: int = 50
    max_message_bytes: int = 1 << 16
    max_control_per_s: int = 500
    handshake_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("tokens_file", "jwt_secret_file", "jwt_public_key_file", "certificate_file", "key_file"):
            value = getattr(self, name)
            valid = value is None or (is_text(value) and "\0" not in value)
            require(valid, f"security.{name}", value, "give the path of a file")
        for name in ("audience", "issuer"):
            value = getattr(self, name)
            require(is_text(value), f"security.{name}", value, "give what the tokens say")
        valid = is_number(self.leeway_s) and 0 <= self.leeway_s <= MAX_LEEWAY_S
        require(valid, "security.leeway_s", self.leeway_s, f"give seconds, 0 to {MAX_LEEWAY_S}")
        require_flag("security.allow_anonymous", self.allow_anonymous)
        require(isinstance(self.origins, tuple), "security.origins", self.origins, "give a list of origins")
        Origins(self.origins)
        self._require_caps()
        self._require_sense()

    def _require_caps(self) -> None:
        caps = (
            "max_connections", "max_per_address", "max_subscriptions", "max_new_instruments", "max_lines",
            "max_control_per_s",
        )  # fmt: skip
        for name in caps:
            require_whole(f"security.{name}", getattr(self, name), at_least=1)
        require_whole("security.max_message_bytes", self.max_message_bytes, at_least=LEAST_MESSAGE_BYTES)
        require_seconds("security.handshake_timeout_s", self.handshake_timeout_s)

    def _require_sense(self) -> None:
        if self.jwt_secret_file is not None and self.jwt_public_key_file is not None:
            raise ConfigError(
                "security.jwt_public_key_file can't stand beside jwt_secret_file: give the one that verifies the JWTs",
                field="security.jwt_public_key_file",
            )
        if self.allow_anonymous and self.has_authentication:
            raise ConfigError(
                "security.allow_anonymous would make tokens pointless: leave it out, or the files of tokens and keys",
                field="security.allow_anonymous",
            )
        if self.key_file is not None and self.certificate_file is None:
            raise ConfigError(
                "security.key_file is of no use without a certificate: give security.certificate_file too",
                field="security.key_file",
            )

    @property
    def has_authentication(self) -> bool:
        """Whether subscribers need a token."""
        return any((self.tokens_file, self.jwt_secret_file, self.jwt_public_key_file))

    @property
    def has_tls(self) -> bool:
        """Whether the server speaks TLS."""
        return self.certificate_file is not None
