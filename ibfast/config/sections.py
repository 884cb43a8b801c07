"""Settings of the connection, and of everything that keeps it alive.

The rule of the file: settings that exist are valid. An impossible value raises ConfigError when they are made, with the
field's name ("section.field") and the remedy. `config.loader` knows where settings come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from ibfast.config.accounts import mask, require_login
from ibfast.config.checks import (
    MAX_PORT,
    MAX_TIMEOUT_S,
    is_number,
    is_text,
    is_whole,
    require,
    require_all_seconds,
    require_day_minutes,
    require_flag,
    require_host,
    require_order,
    require_seconds,
    require_share,
    require_time_of_day,
    require_week_time,
    require_whole,
    require_zone,
)
from ibfast.config.fanout import FanoutConfig
from ibfast.config.loader import SECRET, load_settings, sections_of
from ibfast.config.security import SecurityConfig
from ibfast.config.tls import TlsConfig
from ibfast.errors import ConfigError
from ibfast.records import FEED_CAPACITY, KEEP_INSTRUMENT_S, MAX_INSTRUMENTS, MOST_INSTRUMENTS
from ibfast.wire.times import zone_of

__all__ = [
    "AuthConfig",
    "BreakerConfig",
    "Config",
    "FanoutConfig",
    "HeartbeatConfig",
    "PacingConfig",
    "ReconnectionConfig",
    "SecurityConfig",
    "SessionConfig",
    "TlsConfig",
]

LEAST_LINES = 100
"""Every account has so many market-data lines; a user who sets fewer keeps some for the windows of TWS."""
TOKEN = re.compile(r"[!-~]+")
"""A text that a header can hold unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig:
    """How much silence ends a connection, and how much makes a stream QUIET, STALE or DEAD.

    Attributes:
        interval_s: time between two probes, which ask for the gateway's clock.
        timeout_s: time limit for the answer to a probe.
        first_data_s: time limit for the first data of a stream; after twice that the stream is DEAD.
        quiet_s, stale_s, dead_s: the least silence of a QUIET, STALE, DEAD stream. A slow stream is allowed more, by
            its own cadence, and all are four times as long while the market's hours are not known.
    """

    interval_s: float = 10.0
    timeout_s: float = 5.0
    first_data_s: float = 15.0
    quiet_s: float = 2.0
    stale_s: float = 10.0
    dead_s: float = 30.0

    def __post_init__(self) -> None:
        require_all_seconds(
            "heartbeat", self, "interval_s", "timeout_s", "first_data_s", "quiet_s", "stale_s", "dead_s"
        )
        require_order("heartbeat", self, "quiet_s", "stale_s")
        require_order("heartbeat", self, "stale_s", "dead_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectionConfig:
    """When a lost connection is made again.

    Attributes:
        enabled: whether it is made again at all.
        delay_s, max_delay_s: bounds of the random delays, which grow from the first to the second.
        max_attempts: failures in a row after which no attempt is made, None for never; planned outages do not count.
        stable_s: how long a connection must last before the delays are short again.
        planned_poll_s: time between attempts in a planned outage.
        login_poll_s: time between attempts while a human has to log in.
        daily_restart: "23:45", when TWS or IB Gateway restarts itself (Lock and Exit), in `zone`; None: it does not.
        restart_minutes: how long a restart takes at most.
        weekly_login: "SUN 01:00", when the login lapses, in US Eastern time whatever `zone` is; None: no time is known.
            Every Sunday at 1:00 am ET the tokens of the automatic restart become invalid, and the next start needs a
            human (https://ibkrguides.com/traderworkstation/auto-restart-considerations.htm). Name the time at which
            your gateway goes away for it.
        login_minutes: time limit for the login before an alarm.
        zone: IANA name of the zone of `daily_restart`, the one TWS runs in.
    """

    enabled: bool = True
    delay_s: float = 1.0
    max_delay_s: float = 60.0
    max_attempts: int | None = None
    stable_s: float = 30.0
    planned_poll_s: float = 15.0
    login_poll_s: float = 60.0
    daily_restart: str | None = None
    restart_minutes: int = 10
    weekly_login: str | None = None
    login_minutes: int = 30
    zone: str = "America/New_York"

    def __post_init__(self) -> None:
        require_flag("reconnection.enabled", self.enabled)
        require_all_seconds(
            "reconnection", self, "delay_s", "max_delay_s", "stable_s", "planned_poll_s", "login_poll_s"
        )
        require_order("reconnection", self, "delay_s", "max_delay_s")
        if self.max_attempts is not None:
            require_whole("reconnection.max_attempts", self.max_attempts, at_least=1)
        if self.daily_restart is not None:
            require_time_of_day("reconnection.daily_restart", self.daily_restart)
        require_day_minutes("reconnection.restart_minutes", self.restart_minutes)
        if self.weekly_login is not None:
            require_week_time("reconnection.weekly_login", self.weekly_login)
        require_day_minutes("reconnection.login_minutes", self.login_minutes)
        require_zone("reconnection.zone", self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingConfig:
    """The limits of the account, and how long a request may wait for its turn.

    Attributes:
        lines: market-data lines of the account; the other limits derive from them.
        tick_by_tick: tick-by-tick subscriptions at once, where the limit is not 5 % of the lines.
        enforced: whether to observe the limits; False only where there are none, as with `ibfast sim --no-pacing`.
        max_queue: the most requests that wait; one more is refused.
        max_wait_s: how long a request may wait; by default IB's longest window, ten minutes.
    """

    lines: int = LEAST_LINES
    enforced: bool = True
    tick_by_tick: int | None = None
    max_queue: int = 10_000
    max_wait_s: float = 600.0

    def __post_init__(self) -> None:
        require_whole("pacing.lines", self.lines, at_least=1)
        require_flag("pacing.enforced", self.enforced)
        if self.tick_by_tick is not None:
            require_whole("pacing.tick_by_tick", self.tick_by_tick, at_least=1)
        require_whole("pacing.max_queue", self.max_queue, at_least=1)
        require_all_seconds("pacing", self, "max_wait_s")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuthConfig:
    """The login that is expected; with any other one no request is sent.

    Attributes:
        account_type: "any", "paper", "live" or "advisor".
        accounts: account ids that the login must have; shown masked.
        read_only: whether the gateway must be in its Read-Only API mode, in which it refuses orders.
    """

    account_type: str = "any"
    accounts: tuple[str, ...] = ()
    read_only: bool = False

    def __post_init__(self) -> None:
        require_login("auth", self.account_type, self.accounts)
        require_flag("auth.read_only", self.read_only)

    def __repr__(self) -> str:
        accounts = tuple(map(mask, self.accounts))
        return f"AuthConfig(account_type={self.account_type!r}, {accounts=}, read_only={self.read_only})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """How subscriptions outlive an interruption.

    Attributes:
        store: path of the SQLite file in which subscriptions survive the process; None: they end with it.
        name: of the set of subscriptions in the store, so that several programs can share a store.
        backfill: whether rows that a gap has cost are requested from history, and marked as such.
        client_ids: other client ids to use while `client_id` is in use.
    """

    store: str | Path | None = None
    name: str = "default"
    backfill: bool = False
    client_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        valid = self.store is None or isinstance(self.store, Path) or is_text(self.store)
        require(valid, "session.store", self.store, "give the path of a file")
        require(is_text(self.name), "session.name", self.name, "give a name")
        require_flag("session.backfill", self.backfill)
        is_tuple = isinstance(self.client_ids, tuple)
        require(is_tuple, "session.client_ids", self.client_ids, "give a tuple of client ids: (11, 12)")
        for client_id in self.client_ids:
            require(_is_client_id(client_id), "session.client_ids", client_id, "give whole numbers, 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When calls of a service that fails are suspended, such as attempts to connect.

    Attributes:
        window_calls: how many of the last calls are counted.
        failure_rate: the share of failures among them that suspends further calls.
        open_s: how long calls are suspended.
        probes: calls that are then permitted, to find out whether the service works again.
    """

    window_calls: int = 10
    failure_rate: float = 0.5
    open_s: float = 30.0
    probes: int = 1

    def __post_init__(self) -> None:
        require_whole("breaker.window_calls", self.window_calls, at_least=1)
        require_share("breaker.failure_rate", self.failure_rate)
        require_all_seconds("breaker", self, "open_s")
        require_whole("breaker.probes", self.probes, at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How to reach a gateway, how patiently, and how to keep the connection alive.

    Attributes:
        host: where TWS or IB Gateway runs.
        port: 7497 TWS paper, 7496 TWS live, 4002 Gateway paper, 4001 Gateway live, unless changed there.
        client_id: a number that no other client of this gateway uses; 0 is special to TWS (it sees manual orders).
        connect_timeout_s: for TCP, handshake and start-up together.
        request_timeout_s: for one answer of the gateway.
        feed_capacity: rows per ring, a power of two, of the feed that a manager makes unless one is passed to it.
        max_instruments: rows of that feed's instrument table.
        keep_instrument_s: how long an unused instrument keeps its row of that table.
        time_zone: IANA name of the zone of times in which the gateway writes none ("UTC" unless the gateway was set).
        tls: settings of TLS with a proxy in front of the gateway; None: plain text, as the gateway itself speaks.
        stream_url: address of a fan-out server, "ws://host:8765/stream" or "wss://…", from which a `WebSocketProvider`
            gets the data, by `tls`. None: it connects to the gateway itself.
        stream_token: the token for that server; never shown.
        heartbeat, reconnection, pacing, auth, session, breaker, fanout, security: sections of their own.

    Raises:
        ConfigError: a setting is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 7497
    client_id: int = 1
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 60.0
    feed_capacity: int = FEED_CAPACITY
    max_instruments: int = MAX_INSTRUMENTS
    keep_instrument_s: float = KEEP_INSTRUMENT_S
    time_zone: str = "UTC"
    tls: TlsConfig | None = None
    stream_url: str | None = None
    stream_token: str | None = field(default=None, repr=False, metadata=SECRET)
    heartbeat: HeartbeatConfig = field(default_factory=HeartbeatConfig)
    reconnection: ReconnectionConfig = field(default_factory=ReconnectionConfig)
    pacing: PacingConfig = field(default_factory=PacingConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    session: SessionConfig = field(default_factory=SessionConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    fanout: FanoutConfig = field(default_factory=FanoutConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)

    def __post_init__(self) -> None:
        require_host("host", self.host)
        require(is_whole(self.port) and 0 < self.port <= MAX_PORT, "port", self.port, f"give 1 to {MAX_PORT}")
        require(_is_client_id(self.client_id), "client_id", self.client_id, "give 0 or more")
        for name in ("connect_timeout_s", "request_timeout_s"):
            value = getattr(self, name)
            valid = is_number(value) and 0 < value <= MAX_TIMEOUT_S
            require(valid, name, value, f"give seconds, more than 0, at most {MAX_TIMEOUT_S}")
        capacity = self.feed_capacity
        valid = is_whole(capacity) and capacity >= 2 and capacity & (capacity - 1) == 0
        require(valid, "feed_capacity", capacity, "give a power of two")
        valid = is_whole(self.max_instruments) and 1 <= self.max_instruments <= MOST_INSTRUMENTS
        require(valid, "max_instruments", self.max_instruments, f"give 1 to {MOST_INSTRUMENTS}")
        require_seconds("keep_instrument_s", self.keep_instrument_s)
        require_zone("time_zone", self.time_zone)
        _require_stream(self.stream_url, self.stream_token)
        self._require_sections()

    def _require_sections(self) -> None:
        for name, section in sections_of(type(self)).items():
            value = getattr(self, name)
            valid = isinstance(value, section) or (name == "tls" and value is None)
            # The type and not the value, in which a password may stand.
            require(valid, name, type(value), f"give a {section.__name__}")

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, environ: Mapping[str, str] | None = None, **arguments: Any
    ) -> Self:
        """Load settings from a TOML file, the environment and arguments; later ones win, field by field.

            config = Config.load("ibfast.toml", port=4002, heartbeat={"interval_s": 5})

        Args:
            path: of a TOML file whose tables are the sections; that in $IBFAST_CONFIG if None; else no file is read.
            environ: the environment, that of the process if None: IBFAST_PORT, IBFAST_HEARTBEAT_INTERVAL_S,
                IBFAST_AUTH_ACCOUNTS="DU1,DU2", ….
            arguments: fields by name, sections as a mapping or as a whole; None means not given.

        Raises:
            ConfigError: the file can't be read, there is no such setting, or a value is out of range; with its origin.
        """
        return load_settings(cls, path, environ, arguments)

    @property
    def zone(self) -> tzinfo:
        """The zone of `time_zone`."""
        return zone_of(self.time_zone)


def _is_client_id(value: object) -> bool:
    return is_whole(value) and 0 <= value < 1 << 31


def _require_stream(url: object, token: object) -> None:
    # Neither is shown: the address may hold the secret.
    if url is not None and not _is_stream_url(url):
        raise ConfigError(
            'stream_url is not possible: give "ws://host:port/stream" or "wss://…", and nothing after it',
            field="stream_url",
        )
    if token is None:
        return
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise ConfigError(
            "stream_token is not possible: give the token as the server's owner has made it",
            field="stream_token",
        )
    if url is None:
        raise ConfigError(
            "stream_token is of no use without stream_url: give the server's address too",
            field="stream_token",
        )


def _is_stream_url(value: object) -> bool:
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and "@" not in parts.netloc and "?" not in value and "#" not in value
