"""The whole engine in this process: the connection to a gateway, and a server of its feed for this process alone.

The rule of the file: it puts the parts together, and knows nothing of who reads.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from ibfast.config import Config, FanoutConfig
from ibfast.fanout.security_config import FanoutSecurityConfig
from ibfast.fanout.server import FanoutServer
from ibfast.fanout.tokens import digest_of
from ibfast.manager import IBKRConnectionManager

__all__ = ["engine"]

TOKEN_BYTES: Final = 32


@contextlib.asynccontextmanager
async def engine(config: Config) -> AsyncIterator[tuple[IBKRConnectionManager, str, str]]:
    """Connect to the gateway of a config and serve its data; give both up at the end.

    Yields:
        The connection, the server's address, and the token that it wants: nobody else on this machine has it.

    Raises:
        ConnectError: the gateway can't be reached or refuses.
    """
    async with IBKRConnectionManager(config) as manager:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        async with _server(manager, token) as server:
            host, port = server.address
            yield manager, f"ws://{host}:{port}", token


def _server(manager: IBKRConnectionManager, token: str) -> FanoutServer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tokens.toml")
        file.touch(mode=0o600)
        file.write_text(f'[provider]\nsha256 = "{digest_of(token).hex()}"\nsymbols = ["*"]\n')
        return FanoutServer(manager.feed, manager, FanoutConfig(port=0), FanoutSecurityConfig(tokens_file=str(file)))
