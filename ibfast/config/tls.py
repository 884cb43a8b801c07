"""TLS to a gateway behind a TLS proxy: settings, and what a failed handshake means. The API itself is plain text.

The rule of the file: fail closed. The peer's certificate and its name are always checked, there is no switch against
it, and no password ever appears in a text.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import TypeAlias

from ibfast.config.loader import SECRET
from ibfast.errors import ConfigError, ConnectError

__all__ = ["TlsConfig", "explain"]

Path: TypeAlias = str | os.PathLike[str]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """How to talk TLS to a gateway.

    Attributes:
        ca_file: PEM file of the authorities that are trusted; those of the system if None.
        certificate: PEM file of this client's own certificate and its chain, where the proxy wants one.
        key: PEM file of its private key; in the certificate's file if None.
        key_password: of the private key, where it is encrypted.
        server_name: whose certificate is expected; the host that is connected to if None.
        minimum_version: "1.2" or "1.3".

    Raises:
        ConfigError: a setting is of the wrong type or lacks another one.
    """

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False, metadata=SECRET)
    server_name: str | None = None
    minimum_version: str = "1.2"

    def __post_init__(self) -> None:
        for name in ("ca_file", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
                raise ConfigError(
                    f"tls.{name}={path!r} is not possible: give the path of a PEM file", field=f"tls.{name}"
                )
        if self.key_password is not None and not isinstance(self.key_password, str):
            raise ConfigError("tls.key_password is not possible: give a text", field="tls.key_password")
        if self.server_name is not None and (not isinstance(self.server_name, str) or not self.server_name):
            raise ConfigError(
                f"tls.server_name={self.server_name!r} is not possible: give a host's name", field="tls.server_name"
            )
        if self.minimum_version not in VERSIONS:
            raise ConfigError(
                f'tls.minimum_version={self.minimum_version!r} is not possible: give "1.2" or "1.3"',
                field="tls.minimum_version",
            )
        for name in ("key", "key_password"):
            if getattr(self, name) is not None and self.certificate is None:
                raise ConfigError(
                    f"tls.{name} is of no use without a certificate: give tls.certificate too", field=f"tls.{name}"
                )

    def context(self) -> ssl.SSLContext:
        """Return what a TLS connection is made with. Reads the files: make it anew when they may have changed.

        Raises:
            ConfigError: a file can't be read, is no PEM file, or its password is wrong.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificates and host names
        context.minimum_version = VERSIONS[self.minimum_version]
        if self.ca_file is None:
            context.load_default_certs()
        else:
            self._load_authorities(context, self.ca_file)
        if self.certificate is not None:
            self._load_certificate(context, self.certificate)
        return context

    def _load_authorities(self, context: ssl.SSLContext, ca_file: Path) -> None:
        _require_readable("ca_file", ca_file)
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ValueError):
            raise ConfigError(
                f"tls.ca_file={_shown(ca_file)} has no certificate in it: give a PEM file", field="tls.ca_file"
            ) from None

    def _load_certificate(self, context: ssl.SSLContext, certificate: Path) -> None:
        _require_readable("certificate", certificate)
        if self.key is not None:
            _require_readable("key", self.key)
        was_asked = False

        def password() -> str:
            # Without this function OpenSSL would ask at the terminal.
            nonlocal was_asked
            was_asked = True
            return self.key_password or ""

        try:
            context.load_cert_chain(certificate, self.key, password)
        except (OSError, ValueError) as error:
            raise self._refused_certificate(certificate, error, was_asked) from None

    def _refused_certificate(self, certificate: Path, error: Exception, was_asked: bool) -> ConfigError:
        key = certificate if self.key is None else self.key
        if was_asked and self.key_password is None:
            return ConfigError(
                f"tls.key_password is missing: the key in {_shown(key)} is encrypted, give its password",
                field="tls.key_password",
            )
        if was_asked:
            return ConfigError(
                f"tls.key_password does not open the key in {_shown(key)}: give the right one", field="tls.key_password"
            )
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            return ConfigError(
                f"tls.key={_shown(key)} is not the key of {_shown(certificate)}: give the one that is", field="tls.key"
            )
        return ConfigError(
            f"tls.certificate={_shown(certificate)} and tls.key={_shown(key)} are no certificate and its private key: "
            "give PEM files",
            field="tls.certificate",
        )


def _shown(path: Path) -> str:
    return repr(os.fspath(path))


def _require_readable(name: str, path: Path) -> None:
    try:
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"tls.{name}={_shown(path)} can't be read ({reason}): give a file that can", field=f"tls.{name}"
        ) from None


PLAIN_TEXT = "leave tls out if the gateway is reached directly, or give the port of its TLS proxy"
CLOSED = f"{PLAIN_TEXT}; the proxy's log shows whether it wants a certificate of this client"
OTHER_CERTIFICATE = "give the proxy a certificate of this host's name, or set tls.server_name to the name it has"
UNKNOWN_AUTHORITY = "set tls.ca_file to the certificate of the authority that signed the proxy's"
CLIENT_CERTIFICATE = "set tls.certificate and tls.key to a certificate that the proxy accepts"

# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_CERTIFICATE_ERRORS: dict[int, tuple[str, str]] = {
    9: ("the proxy's certificate is not valid yet", "check this machine's clock, then the proxy's certificate"),
    10: ("the proxy's certificate has expired", "renew it at the proxy, or check this machine's clock"),
    **dict.fromkeys((18, 19, 20, 21), ("the proxy's certificate is of an unknown authority", UNKNOWN_AUTHORITY)),
    **dict.fromkeys((62, 64), ("the proxy's certificate is of another host", OTHER_CERTIFICATE)),
}

# By what the name of OpenSSL's reason contains, the first that does.
_REASONS: tuple[tuple[str, str, str], ...] = (
    ("WRONG_VERSION_NUMBER", "the answer is not TLS", PLAIN_TEXT),
    ("HTTP_REQUEST", "the answer is not TLS", PLAIN_TEXT),
    ("RECORD_LAYER_FAILURE", "the answer is not TLS", PLAIN_TEXT),
    ("PROTOCOL", "there is no TLS version that both know", "lower tls.minimum_version, or update the proxy"),
    ("CERTIFICATE_REQUIRED", "the proxy wants a certificate of this client", CLIENT_CERTIFICATE),
    ("ALERT_HANDSHAKE_FAILURE", "the proxy refuses the handshake", CLIENT_CERTIFICATE),
    ("ALERT_UNKNOWN_CA", "the proxy does not trust this client's certificate", CLIENT_CERTIFICATE),
    ("CERTIFICATE_EXPIRED", "this client's certificate has expired", CLIENT_CERTIFICATE),
    ("ALERT", "the proxy refuses the handshake", CLIENT_CERTIFICATE),
)


def explain(error: OSError) -> ConnectError:
    """Return what a failure of TLS means for the user.

    Args:
        error: what connecting has raised after the TCP connection stood, or what has ended it before the session began.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = f"the proxy's certificate is not accepted: {error.verify_message}", "check the proxy's certificate"
        return ConnectError("tls", *_CERTIFICATE_ERRORS.get(error.verify_code, unknown))
    name = getattr(error, "reason", None) or ""
    for part, reason, remedy in _REASONS:
        if part in name:
            return ConnectError("tls", reason, remedy)
    if isinstance(error, ssl.SSLError) and name:
        return ConnectError("tls", f"TLS failed: {name}", "check the proxy and its log")
    return ConnectError("tls", "the connection was closed during the TLS handshake", CLOSED)
