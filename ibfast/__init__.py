"""Market data of Interactive Brokers, decoded into lock-free rings of numpy records."""

import logging

from ibfast._core import Decoder
from ibfast.config import Config
from ibfast.contracts import Contract, Forex, Future, Index, Option, Stock
from ibfast.enums import Kind, TickType
from ibfast.feed import Feed
from ibfast.manager import IBKRConnectionManager
from ibfast.monitor import ConnectionMonitor
from ibfast.policy.auth import AuthManager
from ibfast.policy.breaker import CircuitBreaker
from ibfast.policy.calendar import MaintenanceCalendar
from ibfast.policy.error_handler import ErrorHandler
from ibfast.policy.heartbeat import HeartbeatMonitor
from ibfast.policy.pacing import RateLimiter
from ibfast.policy.reconnection import Reconnection
from ibfast.policy.session import SessionManager
from ibfast.pool import ConnectionPool
from ibfast.ring import Reader, RingBuffer

# What a program does not ask to see must not appear on its standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "AuthManager",
    "CircuitBreaker",
    "Config",
    "ConnectionMonitor",
    "ConnectionPool",
    "Contract",
    "Decoder",
    "ErrorHandler",
    "Feed",
    "Forex",
    "Future",
    "HeartbeatMonitor",
    "IBKRConnectionManager",
    "Index",
    "Kind",
    "MaintenanceCalendar",
    "Option",
    "RateLimiter",
    "Reader",
    "Reconnection",
    "RingBuffer",
    "SessionManager",
    "Stock",
    "TickType",
]
