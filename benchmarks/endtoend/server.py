"""The server's process: what `ibfast serve` runs, with a named feed, so that others see what is in its rings."""

from __future__ import annotations

import asyncio
import logging

import uvloop

from benchmarks.soak import child
from benchmarks.soak.subject import Errors
from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.config import FanoutConfig, PacingConfig
from ibfast.config.security import SecurityConfig
from ibfast.fanout.server import FanoutServer


async def main(port: int, feed_name: str, lines: int, connections: int, stalled_s: float) -> None:
    errors = Errors()
    logging.getLogger().addHandler(errors)
    asyncio.get_running_loop().set_exception_handler(errors.from_loop)
    config = Config(port=port, pacing=PacingConfig(lines=lines))
    security = SecurityConfig(max_connections=connections, max_per_address=connections)
    with Feed(name=feed_name) as feed:
        async with (
            IBKRConnectionManager(config, feed) as manager,
            FanoutServer(feed, manager, FanoutConfig(port=0, stalled_s=stalled_s), security) as server,
        ):
            await child.serve({
                "port": lambda: server.address[1],
                "errors": lambda: [f"{error} ({times} times)" for error, times in errors.found.items()],
            })  # fmt: skip


if __name__ == "__main__":
    uvloop.run(main(**child.settings()))
