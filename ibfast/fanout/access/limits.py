"""Who may connect from where, how many, how fast; and where a server may listen at all.

The rule of the file: counts, times and addresses in, decisions out; `now_s` never decreases. Everything kept is bounded
by what is permitted, not by what is tried.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, deque

from ibfast.errors import ConfigError

__all__ = [
    "Bucket",
    "ConnectionCaps",
    "InstrumentBudgets",
    "check_bind",
    "is_loopback",
    "names_loopback",
]

BUDGET_WINDOW_S = 3600.0
THIS_MACHINE = "this machine"
IPV6_NETWORK_BITS = 64

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")


class ConnectionCaps:
    """How many connections there may be at once, in all and from one address.

    Args:
        most: in all.
        most_per_address: from one address; of IPv6 from one network of 64 bits, which is what one site has. Programs of
            this machine, and whoever comes through a proxy that runs here, count in all and not by address.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._counts: Counter[str] = Counter()
        self.open = 0

    def admit(self, address: str) -> str | None:
        """Count a connection and return None, or return why there may be no more; `release` those that were counted.

        Args:
            address: of the peer; "" if it has none.
        """
        site = _site(address)
        if self.open >= self._most:
            return f"the server has all the connections that it may have ({self._most})"
        if site != THIS_MACHINE and self._counts[site] >= self._most_per_address:
            return f"there are all the connections that there may be from one address ({self._most_per_address})"
        self._counts[site] += 1
        self.open += 1
        return None

    def release(self, address: str) -> None:
        """Take back a connection that was admitted."""
        site = _site(address)
        self._counts[site] -= 1
        self.open -= 1
        if not self._counts[site]:
            del self._counts[site]


class Bucket:
    """A rate with a burst: what is spent runs in again evenly; what was not spent is kept up to the burst.

    Args:
        per_s: how much may be spent in a second, on the average.
        burst_s: how many seconds' worth of it may be spent at once.
        now_s: the time; the bucket begins full.
    """

    def __init__(self, per_s: float, burst_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._most = per_s * burst_s
        self._left = self._most
        self._at_s = now_s

    def spend(self, amount: float, now_s: float) -> None:
        """Note what was spent, however much of it is left."""
        self._refill(now_s)
        self._left -= amount

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds more may be spent: 0 is now."""
        self._refill(now_s)
        return max(0.0, -self._left / self._per_s)

    def _refill(self, now_s: float) -> None:
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s


class InstrumentBudgets:
    """How many new instruments each holder of a token may ask for in an hour; exact, by a window that slides."""

    def __init__(self) -> None:
        self._taken: dict[str, deque[float]] = {}  # by name; whose last one is the oldest comes first

    def take(self, name: str, most: int, now_s: float) -> float:
        """Count a new instrument and return 0, or return in how many seconds there may be one more.

        Args:
            name: of the holder.
            most: in any hour.
        """
        self._forget_old(now_s)
        times = self._taken.pop(name, deque[float]())
        while times and times[0] <= now_s - BUDGET_WINDOW_S:
            times.popleft()
        wait_s = 0.0
        if len(times) < most:
            times.append(now_s)
        else:
            wait_s = times[0] + BUDGET_WINDOW_S - now_s if times else BUDGET_WINDOW_S
        if times:
            self._taken[name] = times
        return wait_s

    def wait_s(self, name: str, most: int, now_s: float) -> float:
        """Return in how many seconds `take` would count one more: 0 is now."""
        times = [at_s for at_s in self._taken.get(name, ()) if at_s > now_s - BUDGET_WINDOW_S]
        if len(times) < most:
            return 0.0
        return (times[0] if times else now_s) + BUDGET_WINDOW_S - now_s

    def give_back(self, name: str) -> None:
        """Take back the newest one that was counted: nothing came of it."""
        times = self._taken.get(name)
        if times:
            times.pop()
        if not times:
            self._taken.pop(name, None)

    def __len__(self) -> int:
        """Return of how many holders something is kept."""
        return len(self._taken)

    def _forget_old(self, now_s: float) -> None:
        while self._taken:
            name, times = next(iter(self._taken.items()))
            if times and times[-1] > now_s - BUDGET_WINDOW_S:
                return
            del self._taken[name]


def check_bind(host: str, *, has_authentication: bool, has_tls: bool, allow_anonymous: bool) -> list[str]:
    """Insist that a server which others can reach asks for tokens, and return what is risky about it nevertheless.

    Args:
        host: where it is to listen; "" is everywhere.
        has_authentication: whether subscribers need a token.
        has_tls: whether it speaks TLS.
        allow_anonymous: whether the user wants everybody to be served.

    Raises:
        ConfigError: others can reach it, and nobody needs a token.
    """
    if is_loopback(host):
        return []
    if not has_authentication and not allow_anonymous:
        raise ConfigError(
            f"fanout.host={host!r} can be reached by others, and subscribers need no token: give security.tokens_file "
            "or a key for JWTs, listen on 127.0.0.1, or set security.allow_anonymous"
        )
    warnings = []
    if not has_authentication:
        warnings.append(f"everybody who reaches {host!r} is served, without a token")
    if not has_tls:
        carried = "tokens and data" if has_authentication else "data"
        warnings.append(f"{carried} cross the network in plain text: set security.certificate_file, or use a TLS proxy")
    return warnings


def is_loopback(host: str) -> bool:
    """Tell whether only programs of this machine can connect there. No name is trusted but localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return _address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names_loopback(host: str) -> bool:
    """Tell whether a Host header, with or without a port, can only mean this machine.

    A page whose own name resolves to 127.0.0.1 (DNS rebinding) is of one origin with the server, for a browser; but
    the browser sends that name.
    """
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback(match["host"])


def _site(address: str) -> str:
    try:
        parsed = _address(address)
    except ValueError:
        return address
    if parsed.is_loopback:
        return THIS_MACHINE
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(parsed), IPV6_NETWORK_BITS), strict=False))
    return str(parsed)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
