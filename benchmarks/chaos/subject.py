"""A user in a process of its own, to be killed: it subscribes as it is told, and prints what it gets, line by line.

    subject PORT STORE

Every line of its input is a subscription; it disconnects when the input ends. Its output says what came: rows and gaps
as lists, before anything else happens, so that a kill leaves nothing unsaid but what had not come.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.chaos.market import CONTRACTS, DATA_TYPES, GAP_FIELDS, numbered
from benchmarks.chaos.world import quick_times
from ibfast import Config, IBKRConnectionManager
from ibfast.config import SessionConfig
from ibfast.connection.stream import Stream
from ibfast.policy.subscription import SubscriptionState

FLOWING = (SubscriptionState.LIVE, SubscriptionState.QUIET)


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


async def read(key: str, data_type: str, stream: Stream) -> None:
    kind = DATA_TYPES[data_type]
    async for batch in stream:
        gaps = stream.take_gaps()
        rows = numbered(data_type, batch)
        columns = [rows[name].tolist() for name in ("req_id", "seq", "kind", kind.number, "recv_ns")]
        say(
            key=key, req_id=stream.req_id, lost=stream.lost, rows=list(zip(*columns, strict=True)),
            gaps=gaps[list(GAP_FIELDS)].tolist(),
        )  # fmt: skip


async def main(port: str, store: str) -> None:
    config = Config(port=int(port), session=SessionConfig(store=store), **quick_times())
    manager = IBKRConnectionManager(config)
    say(connected=await manager.connect(persist=True))
    told = manager.feed.gaps.reader(start="oldest")
    tasks: list[asyncio.Task[None]] = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        asked = json.loads(line)
        if asked.get("figures"):
            states = [s.state for s in manager.session.subscriptions.values()]
            say(
                flowing=sum(state in FLOWING for state in states), declared=len(states),
                reasons=[*manager.health().reasons, *manager.health().warnings],
                told=told.read()[list(GAP_FIELDS)].tolist(),
            )  # fmt: skip
            continue
        contract, data_type = CONTRACTS[asked["contract"]], asked["data_type"]
        stream = await manager.subscribe(contract, data_type, priority=asked["priority"])
        key = f"{asked['contract']} {data_type}"
        say(key=key, opened=data_type, con_id=stream.contract.con_id, instrument=stream.instrument)
        tasks.append(asyncio.create_task(read(key, data_type, stream)))
    await manager.disconnect()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
