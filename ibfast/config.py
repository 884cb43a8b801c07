"""Settings of a connection.

The rule of the file: a Config that exists is valid; what is wrong is said when it is made, with the field's name and
the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ibfast.errors import ConfigError

__all__ = ["Config"]

MAX_PORT = 65535
MAX_TIMEOUT_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How to reach a gateway, and how patiently.

    Attributes:
        host: where TWS or IB Gateway runs.
        port: 7497 TWS paper, 7496 TWS live, 4002 Gateway paper, 4001 Gateway live, unless changed there.
        client_id: any number that no other client of this gateway uses; 0 is special to TWS (it sees manual orders).
        connect_timeout_s: for TCP, handshake and start-up together.
        request_timeout_s: for one answer of the gateway.
        feed_capacity: rows per ring, a power of two, of the feed that a manager makes if it is given none.
        time_zone: IANA name of the zone in which the gateway writes times that name none ("UTC" unless it was set so).

    Raises:
        ConfigError: a setting is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 7497
    client_id: int = 1
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 60.0
    feed_capacity: int = 1 << 16
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        _require(isinstance(self.host, str) and self.host != "", "host", self.host, "give a host name or an address")
        _require(_is_int(self.port) and 0 < self.port <= MAX_PORT, "port", self.port, f"give 1 to {MAX_PORT}")
        _require(
            _is_int(self.client_id) and 0 <= self.client_id < 1 << 31, "client_id", self.client_id, "give 0 or more"
        )
        for name in ("connect_timeout_s", "request_timeout_s"):
            value = getattr(self, name)
            _require(_is_int(value) or isinstance(value, float), name, value, "give seconds")
            _require(0 < value <= MAX_TIMEOUT_S, name, value, f"give seconds, more than 0, at most {MAX_TIMEOUT_S}")
        capacity = self.feed_capacity
        _require(
            _is_int(capacity) and capacity >= 2 and capacity & (capacity - 1) == 0,
            "feed_capacity", capacity, "give a power of two",
        )  # fmt: skip
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            _require(False, "time_zone", self.time_zone, 'give an IANA name such as "America/New_York"')

    @property
    def zone(self) -> tzinfo:
        """The zone itself."""
        return ZoneInfo(self.time_zone)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(valid: bool, field: str, value: object, remedy: str) -> None:
    if not valid:
        raise ConfigError(f"{field}={value!r} is not possible: {remedy}")
