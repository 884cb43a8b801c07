"""Settings of the fan-out: where it listens, and how patient it is with subscribers.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibfast.config.checks import (
    MAX_PORT,
    MAX_TIMEOUT_S,
    is_number,
    is_whole,
    require,
    require_all_seconds,
    require_host,
    require_whole,
)

__all__ = ["FanoutConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutConfig:
    """Where the fan-out's server listens, and how long it waits for its subscribers.

    Attributes:
        host: the address at which the WebSocket server listens.
        port: its port; 0: any free one.
        heartbeat_s: silence after which the server sends a heartbeat.
        ping_s: time between WebSocket pings, and time limit for the answer.
        linger_s: how long a subscription at IB outlives its last subscriber, so that one that returns misses nothing.
        backlog_bytes, backlog_s: how many bytes may wait for a subscriber, and for how long, before it gets the latest
            state only.
        patience_s: a subscriber that falls behind three times within this time gets a lower rate.
        stalled_s: a subscriber that receives nothing for this time is disconnected.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    heartbeat_s: float = 10.0
    ping_s: float = 20.0
    linger_s: float = 10.0
    backlog_bytes: int = 1 << 18
    backlog_s: float = 1.0
    patience_s: float = 10.0
    stalled_s: float = 30.0

    def __post_init__(self) -> None:
        require_host("fanout.host", self.host)
        valid = is_whole(self.port) and 0 <= self.port <= MAX_PORT
        require(valid, "fanout.port", self.port, f"give 1 to {MAX_PORT}, or 0 for any free one")
        require_all_seconds("fanout", self, "heartbeat_s", "ping_s", "backlog_s", "patience_s", "stalled_s")
        valid = is_number(self.linger_s) and 0 <= self.linger_s <= MAX_TIMEOUT_S
        require(valid, "fanout.linger_s", self.linger_s, "give seconds, 0 for not at all")
        require_whole("fanout.backlog_bytes", self.backlog_bytes, at_least=1024)
