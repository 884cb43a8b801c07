"""Which web pages may connect to the server: origins, compared as a whole.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ibfast.config.checks import require

__all__ = ["Origins"]

ANY = "*"
NULL = "null"

_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}|\*))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Origins:
    """The web pages that may connect. Only browsers send an origin, and no page can send another one than its own.

    Args:
        allowed: origins, compared as a whole: scheme, host and port, of which "*" is any; "*" alone for all of them.

    Raises:
        ConfigError: one is no origin.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed: set[str] = set()
        for origin in allowed:
            known = origin if origin in (ANY, NULL) else _normal(origin) if isinstance(origin, str) else None
            remedy = 'give scheme and host, and the port if it has one: "https://desk.example.com"'
            require(known is not None, "security.origins", origin, remedy)
            self._allowed.add(str(known))

    def allows(self, origin: str | None) -> bool:
        """Return whether a client with this Origin header may connect; one without it is no browser, and may."""
        if origin is None or ANY in self._allowed:
            return True
        if origin == NULL:
            return NULL in self._allowed
        sent = _normal(origin)
        if sent is None or sent.endswith(":*"):
            return False
        return sent in self._allowed or f"{sent.rpartition(':')[0]}:*" in self._allowed


def _normal(origin: str) -> str | None:
    """Return an origin as scheme://host:port, None if it is none."""
    # Lower case of other letters may be ASCII.
    match = _ORIGIN.fullmatch(origin.lower()) if origin.isascii() else None
    if match is None:
        return None
    scheme, host, port = match.group("scheme", "host", "port")
    return f"{scheme}://{host}:{port or _DEFAULT_PORTS[scheme]}"
