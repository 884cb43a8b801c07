"""The whole engine in this process: the connection to a gateway, and a server of its feed for this process alone.

The rule of the file: it puts the parts together, and knows nothing of readers.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import AsyncIterator
from typing import Final

from ibfast.config.sections import Config, FanoutConfig, SecurityConfig
from ibfast.connection.manager import IBKRConnectionManager
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.access.tokens import StaticToken, Tokens, digest_of
from ibfast.fanout.server import FanoutServer

__all__ = ["engine"]

TOKEN_BYTES: Final = 32


@contextlib.asynccontextmanager
async def engine(config: Config) -> AsyncIterator[tuple[IBKRConnectionManager, str, str]]:
    """Connect to the gateway of a config and serve its data; give both up at the end.

    Yields:
        The connection, the server's address, and the token that it wants: no other process has it.

    Raises:
        ConnectError: the gateway can't be reached or refuses.
    """
    async with IBKRConnectionManager(config) as manager:
        token, security = secrets.token_urlsafe(TOKEN_BYTES), SecurityConfig()
        everything = Permissions(symbols=("*",), lines=sys.maxsize)  # there is no other client
        own = StaticToken("provider", digest_of(token), everything)
        tokens = Tokens(
            (own,), max_subscriptions=security.max_subscriptions, max_new_instruments=config.max_instruments
        )
        async with FanoutServer(manager.feed, manager, FanoutConfig(port=0), security, tokens=tokens) as server:
            host, port = server.address
            yield manager, f"ws://{host}:{port}", token
