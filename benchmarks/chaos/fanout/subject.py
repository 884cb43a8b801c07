"""`ibfast serve` in a process of its own, which says what it asks for, and whose rings others can read.

    subject CONFIG FEED

CONFIG is the configuration file, FEED the name of the shared feed. It runs what the command runs, with a manager that
prints a line of JSON for every subscription before the server has it. SIGTERM ends it, as it ends the command.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import uvloop

from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.commands import serve
from ibfast.connection.stream import Stream
from ibfast.contracts import Contract


def manager_of(name: str) -> type[IBKRConnectionManager]:
    """Return the class of managers with a feed of that name."""

    class Manager(IBKRConnectionManager):
        def __init__(self, config: Config) -> None:
            super().__init__(config, Feed(config.feed_capacity, name=name))

        async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Stream:
            seq = self.feed.seq
            stream = await super().subscribe(contract, data_type, **options)
            asked = Contract.of(contract)
            key = (stream.contract.con_id, asked.exchange or "SMART", str(data_type))
            print(json.dumps({"key": key, "instrument": stream.instrument, "seq": seq}), flush=True)
            return stream

    return Manager


def main(config: str, name: str) -> int:
    """Serve until SIGTERM."""
    logging.basicConfig()  # what is logged is judged by whoever has started this
    serve.IBKRConnectionManager = manager_of(name)  # type: ignore[misc]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve.serve(Config.load(config)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
