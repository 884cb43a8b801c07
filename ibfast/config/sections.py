"""Settings: of the connection, and of everything that keeps it alive.

The rule of the file: settings that exist are valid; what is wrong is said when they are made, with the field's name
("section.field") and the remedy. Where settings come from is the business of `config.loader`, what they cause that of
the policies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from ibfast.config.accounts import mask, require_login
from ibfast.config.checks import (
    is_number,
    is_whole,
    require,
    require_day_minutes,
    require_seconds,
    require_share,
    require_time_of_day,
    require_week_time,
    require_whole,
    require_zone,
)
from ibfast.config.loader import SECRET, load_settings, sections_of
from ibfast.config.security import SecurityConfig
from ibfast.config.tls import TlsConfig
from ibfast.errors import ConfigError
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
MAX_PORT = 65535
MAX_TIMEOUT_S = 86_400
MOST_INSTRUMENTS = 1 << 24
TOKEN = re.compile(r"[!-~]+")
"""What may stand in a header as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig:
    """When a connection, and when a stream, is taken for dead.

    Attributes:
        interval_s: between two questions about the gateway's clock, and how long the socket may be silent before one.
        timeout_s: for the answer.
        first_data_s: for the first data of a stream.
        quiet_s, stale_s, dead_s: the silence of a stream, at least, before it is QUIET, STALE, DEAD; a slow stream is
            given more, by its own cadence.
    """

    interval_s: float = 10.0
    timeout_s: float = 5.0
    first_data_s: float = 15.0
    quiet_s: float = 2.0
    stale_s: float = 10.0
    dead_s: float = 30.0

    def __post_init__(self) -> None:
        _require_all_seconds(
            "heartbeat", self, "interval_s", "timeout_s", "first_data_s", "quiet_s", "stale_s", "dead_s"
        )
        _require_order("heartbeat", self, "quiet_s", "stale_s")
        _require_order("heartbeat", self, "stale_s", "dead_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectionConfig:
    """How a lost connection is made again.

    Attributes:
        enabled: whether it is.
        delay_s, max_delay_s: bounds of the random delays, which grow from the first to the second.
        max_attempts: failures in a row after which it is given up, None for never; planned outages do not count.
        stable_s: how long a connection must last before the delays are short again.
        planned_poll_s: between attempts in a planned outage.
        login_poll_s: between attempts while somebody has to log in.
        daily_restart: "23:45", when TWS or IB Gateway restarts itself (Lock and Exit), in `zone`; None: it does not.
        restart_minutes: how long to expect that to take.
        weekly_login: "SUN 01:00", when the login lapses, in US Eastern time whatever `zone` is; None: no time is known.
            Every Sunday at 1:00 am ET the tokens of the automatic restart become invalid, and the next start needs a
            human (https://ibkrguides.com/traderworkstation/auto-restart-considerations.htm). Name the time at which
            your gateway goes away for it.
        login_minutes: how long somebody may take to log in before it is an alarm.
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
        _require_flag("reconnection.enabled", self.enabled)
        _require_all_seconds(
            "reconnection", self, "delay_s", "max_delay_s", "stable_s", "planned_poll_s", "login_poll_s"
        )
        _require_order("reconnection", self, "delay_s", "max_delay_s")
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
    """What the account may ask for, and how long a request may wait for its turn.

    Attributes:
        lines: market-data lines of the account; the other limits derive from it.
        tick_by_tick: tick-by-tick subscriptions at once, where they are not 5 % of the lines.
        enforced: whether to keep to the limits; False only where there are none, as with `ibfast sim --no-pacing`.
        max_queue: requests that may wait; one more is refused.
        max_wait_s: how long a request may wait; by default IB's longest window, ten minutes.
    """

    lines: int = LEAST_LINES
    enforced: bool = True
    tick_by_tick: int | None = None
    max_queue: int = 10_000
    max_wait_s: float = 600.0

    def __post_init__(self) -> None:
        require_whole("pacing.lines", self.lines, at_least=1)
        _require_flag("pacing.enforced", self.enforced)
        if self.tick_by_tick is not None:
            require_whole("pacing.tick_by_tick", self.tick_by_tick, at_least=1)
        require_whole("pacing.max_queue", self.max_queue, at_least=1)
        _require_all_seconds("pacing", self, "max_wait_s")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuthConfig:
    """What the login must be; otherwise nothing is asked of the gateway.

    Attributes:
        account_type: "any", "paper", "live" or "advisor".
        accounts: ids that the login must have; shown masked.
        read_only: whether the gateway must refuse orders.
    """

    account_type: str = "any"
    accounts: tuple[str, ...] = ()
    read_only: bool = False

    def __post_init__(self) -> None:
        with _named_within("auth"):
            require_login(self.account_type, self.accounts, read_only=self.read_only)

    def __repr__(self) -> str:
        accounts = tuple(map(mask, self.accounts))
        return f"AuthConfig(account_type={self.account_type!r}, {accounts=}, read_only={self.read_only})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What is kept of subscriptions, and what else is tried for them.

    Attributes:
        store: path of the SQLite file in which they survive the process; None: they end with it.
        name: of the set of subscriptions in the store, so that several programs can share one.
        backfill: whether what was missed is asked for afterwards, and marked as such.
        client_ids: others to take while `client_id` is in use.
    """

    store: str | Path | None = None
    name: str = "default"
    backfill: bool = False
    client_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        valid = self.store is None or isinstance(self.store, Path) or _is_text(self.store)
        require(valid, "session.store", self.store, "give the path of a file")
        require(_is_text(self.name), "session.name", self.name, "give a name")
        _require_flag("session.backfill", self.backfill)
        is_tuple = isinstance(self.client_ids, tuple)
        require(is_tuple, "session.client_ids", self.client_ids, "give a tuple of client ids: (11, 12)")
        for client_id in self.client_ids:
            require(_is_client_id(client_id), "session.client_ids", client_id, "give whole numbers, 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When attempts to connect are suspended.

    Attributes:
        window_calls: the attempts that are looked at, the last so many.
        failure_rate: the share of failures among them that suspends further ones.
        open_s: for how long.
        probes: attempts that may then show that the gateway is back.
    """

    window_calls: int = 10
    failure_rate: float = 0.5
    open_s: float = 30.0
    probes: int = 1

    def __post_init__(self) -> None:
        require_whole("breaker.window_calls", self.window_calls, at_least=1)
        require_share("breaker.failure_rate", self.failure_rate)
        _require_all_seconds("breaker", self, "open_s")
        require_whole("breaker.probes", self.probes, at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FanoutConfig:
    """Where other programs get the data.

    Attributes:
        host: the address at which the WebSocket server listens.
        port: its port; 0: any free one.
        heartbeat_s: after so long without anything else a subscriber is told that the server lives.
        ping_s: between WebSocket pings; who does not answer one for so long is gone.
        linger_s: how long a subscription at IB outlives its last subscriber, so that one who comes back misses nothing.
        backlog_bytes, backlog_s: how much may wait for a subscriber, and for how long, before it gets the latest state
            only.
        patience_s: who falls behind three times in it is served at a lower rate.
        stalled_s: who takes nothing at all for so long is closed.
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
        _require_host("fanout.host", self.host)
        valid = is_whole(self.port) and 0 <= self.port <= MAX_PORT
        require(valid, "fanout.port", self.port, f"give 1 to {MAX_PORT}, or 0 for any free one")
        _require_all_seconds("fanout", self, "heartbeat_s", "ping_s", "backlog_s", "patience_s", "stalled_s")
        valid = is_number(self.linger_s) and 0 <= self.linger_s <= MAX_TIMEOUT_S
        require(valid, "fanout.linger_s", self.linger_s, "give seconds, 0 for not at all")
        require_whole("fanout.backlog_bytes", self.backlog_bytes, at_least=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How to reach a gateway, how patiently, and how to keep the connection alive.

    Attributes:
        host: where TWS or IB Gateway runs.
        port: 7497 TWS paper, 7496 TWS live, 4002 Gateway paper, 4001 Gateway live, unless changed there.
        client_id: any number that no other client of this gateway uses; 0 is special to TWS (it sees manual orders).
        connect_timeout_s: for TCP, handshake and start-up together.
        request_timeout_s: for one answer of the gateway.
        feed_capacity: rows per ring, a power of two, of the feed that a manager makes if it is given none.
        max_instruments: rows of that feed's instrument table.
        keep_instrument_s: how long an instrument keeps its row of that table when no subscription has it any more.
        time_zone: IANA name of the zone in which the gateway writes times that name none ("UTC" unless it was set so).
        tls: how to speak TLS with a proxy in front of the gateway; None: plain text, as the gateway itself speaks.
        stream_url: of a fan-out server that has the gateway: "ws://host:8765/stream", or "wss://…"; then a
            `WebSocketProvider` asks that server, and `tls` is how. None: it connects to the gateway itself.
        stream_token: what that server asks for; never shown.
        heartbeat, reconnection, pacing, auth, session, breaker, fanout, security: sections of their own.

    Raises:
        ConfigError: a setting is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 7497
    client_id: int = 1
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 60.0
    feed_capacity: int = 1 << 16
    max_instruments: int = 4096
    keep_instrument_s: float = 3600.0
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
        _require_host("host", self.host)
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
        """Make settings of a TOML file, the environment and arguments; later ones win, field by field.

            config = Config.load("ibfast.toml", port=4002, heartbeat={"interval_s": 5})

        Args:
            path: of a TOML file whose tables are the sections; that in $IBFAST_CONFIG if None; else no file is read.
            environ: the environment, that of the process if None: IBFAST_PORT, IBFAST_HEARTBEAT_INTERVAL_S,
                IBFAST_AUTH_ACCOUNTS="DU1,DU2", ….
            arguments: fields by name, sections as a mapping or as a whole; None means not given.

        Raises:
            ConfigError: the file can't be read, there is no such setting, or a value is out of range; says where it
                stood.
        """
        return load_settings(cls, path, environ, arguments)

    @property
    def zone(self) -> tzinfo:
        """The zone itself."""
        return zone_of(self.time_zone)


@contextmanager
def _named_within(section: str) -> Iterator[None]:
    """Name the section too where something that it is for refuses one of its settings."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{section}.{error}") from None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_client_id(value: object) -> bool:
    return is_whole(value) and 0 <= value < 1 << 31


def _require_host(path: str, value: object) -> None:
    require(_is_text(value), path, value, "give a host name or an address")


def _require_flag(path: str, value: object) -> None:
    require(isinstance(value, bool), path, value, "give true or false")


def _require_stream(url: object, token: object) -> None:
    # Neither is shown: somebody may have put the secret into the address.
    if url is not None and not _is_stream_url(url):
        raise ConfigError('stream_url is not possible: give "ws://host:port/stream" or "wss://…", and nothing after it')
    if token is None:
        return
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise ConfigError("stream_token is not possible: give the token as the server's owner has made it")
    if url is None:
        raise ConfigError("stream_token is of no use without stream_url: give the server's address too")


def _is_stream_url(value: object) -> bool:
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and "@" not in parts.netloc and "?" not in value and "#" not in value


def _require_all_seconds(section: str, owner: object, *names: str) -> None:
    for name in names:
        require_seconds(f"{section}.{name}", getattr(owner, name))


def _require_order(section: str, owner: object, lesser: str, greater: str) -> None:
    least, value = getattr(owner, lesser), getattr(owner, greater)
    require(least <= value, f"{section}.{greater}", value, f"give {lesser} ({least:g}) or more")
