"""Market data of Interactive Brokers, decoded into lock-free rings of numpy records."""

import logging

from ibfast._core import Decoder
from ibfast.config import Config
from ibfast.contracts import Contract, Forex, Future, Index, Option, Stock
from ibfast.enums import Kind, TickType
from ibfast.feed import Feed
from ibfast.manager import IBKRConnectionManager
from ibfast.ring import Reader, RingBuffer

# What a program does not ask to see must not appear on its standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Contract",
    "Decoder",
    "Feed",
    "Forex",
    "Future",
    "IBKRConnectionManager",
    "Index",
    "Kind",
    "Option",
    "Reader",
    "RingBuffer",
    "Stock",
    "TickType",
]
