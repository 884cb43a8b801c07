"""Market data of Interactive Brokers, decoded into lock-free rings of numpy records."""

import logging
from typing import TYPE_CHECKING

from ibfast.common.lazy import lazily

# What a program does not ask to see must not appear on its standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ibfast._core import Decoder
    from ibfast.client.provider import WebSocketProvider
    from ibfast.config.sections import (
        AuthConfig,
        BreakerConfig,
        Config,
        FanoutConfig,
        HeartbeatConfig,
        PacingConfig,
        ReconnectionConfig,
        SecurityConfig,
        SessionConfig,
        TlsConfig,
    )
    from ibfast.connection.manager import IBKRConnectionManager
    from ibfast.connection.monitor import ConnectionMonitor, Health
    from ibfast.connection.pool import ConnectionPool
    from ibfast.contracts import Contract, Forex, Future, Index, Option, Stock
    from ibfast.feed.feed import Feed
    from ibfast.feed.ring import Reader, RingBuffer
    from ibfast.policy.auth import AuthManager
    from ibfast.policy.codes import Severity
    from ibfast.policy.error_handler import ErrorHandler
    from ibfast.policy.health.heartbeat import HeartbeatMonitor
    from ibfast.policy.pacing.limiter import RateLimiter
    from ibfast.policy.reconnect.breaker import CircuitBreaker
    from ibfast.policy.reconnect.calendar import MaintenanceCalendar
    from ibfast.policy.reconnect.reconnection import Reconnection
    from ibfast.policy.session import SessionManager
    from ibfast.policy.subscription import SubscriptionState
    from ibfast.records import GapCause, Kind, Scope
    from ibfast.wire.ids import MarketDataType, TickType
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "ibfast._core": ("Decoder",),
            "ibfast.config.sections": (
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
            ),
            "ibfast.contracts": ("Contract", "Forex", "Future", "Index", "Option", "Stock"),
            "ibfast.records": ("GapCause", "Kind", "Scope"),
            "ibfast.wire.ids": ("MarketDataType", "TickType"),
            "ibfast.feed.feed": ("Feed",),
            "ibfast.connection.manager": ("IBKRConnectionManager",),
            "ibfast.connection.monitor": ("ConnectionMonitor", "Health"),
            "ibfast.policy.auth": ("AuthManager",),
            "ibfast.policy.reconnect.breaker": ("CircuitBreaker",),
            "ibfast.policy.reconnect.calendar": ("MaintenanceCalendar",),
            "ibfast.policy.codes": ("Severity",),
            "ibfast.policy.error_handler": ("ErrorHandler",),
            "ibfast.policy.health.heartbeat": ("HeartbeatMonitor",),
            "ibfast.policy.pacing.limiter": ("RateLimiter",),
            "ibfast.policy.reconnect.reconnection": ("Reconnection",),
            "ibfast.policy.session": ("SessionManager",),
            "ibfast.policy.subscription": ("SubscriptionState",),
            "ibfast.connection.pool": ("ConnectionPool",),
            "ibfast.client.provider": ("WebSocketProvider",),
            "ibfast.feed.ring": ("Reader", "RingBuffer"),
        },
    )

__all__ = [
    "AuthConfig",
    "AuthManager",
    "BreakerConfig",
    "CircuitBreaker",
    "Config",
    "ConnectionMonitor",
    "ConnectionPool",
    "Contract",
    "Decoder",
    "ErrorHandler",
    "FanoutConfig",
    "Feed",
    "Forex",
    "Future",
    "GapCause",
    "Health",
    "HeartbeatConfig",
    "HeartbeatMonitor",
    "IBKRConnectionManager",
    "Index",
    "Kind",
    "MaintenanceCalendar",
    "MarketDataType",
    "Option",
    "PacingConfig",
    "RateLimiter",
    "Reader",
    "Reconnection",
    "ReconnectionConfig",
    "RingBuffer",
    "Scope",
    "SecurityConfig",
    "SessionConfig",
    "SessionManager",
    "Severity",
    "Stock",
    "SubscriptionState",
    "TickType",
    "TlsConfig",
    "WebSocketProvider",
]
