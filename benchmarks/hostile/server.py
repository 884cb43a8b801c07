"""The server's process: what `ibfast serve` runs, once with TLS and once without, for one feed."""

from __future__ import annotations

import asyncio
import logging

import uvloop

from benchmarks.soak import child
from benchmarks.soak.subject import Errors
from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.commands.garbage import short_collections
from ibfast.config import FanoutConfig
from ibfast.config.security import SecurityConfig
from ibfast.fanout.server import FanoutServer


async def main(port: int, tokens_file: str, certificate_file: str) -> None:
    errors = Errors()
    logging.getLogger().addHandler(errors)
    asyncio.get_running_loop().set_exception_handler(errors.from_loop)
    plain = SecurityConfig(tokens_file=tokens_file)
    secure = SecurityConfig(tokens_file=tokens_file, certificate_file=certificate_file)
    with Feed() as feed, short_collections():  # as `ibfast serve` does
        async with (
            IBKRConnectionManager(Config(port=port), feed) as manager,
            FanoutServer(feed, manager, FanoutConfig(port=0), plain) as server,
            FanoutServer(feed, manager, FanoutConfig(port=0), secure) as tls_server,
        ):
            await child.serve({
                "port": lambda: server.address[1],
                "tls_port": lambda: tls_server.address[1],
                "errors": lambda: [f"{error} ({times} times)" for error, times in errors.found.items()],
            })  # fmt: skip


if __name__ == "__main__":
    uvloop.run(main(**child.settings()))
