"""Fill a named feed in one process, and read it in another without a copy."""

import asyncio
import multiprocessing
import os

from ibfast import Config, Feed, IBKRConnectionManager

TRADES = 20


def read(name: str) -> None:
    """Sum the notional of the first trades; this runs in the other process."""
    reader = Feed.attach(name).trades.reader(start="oldest")
    count, notional = 0, 0.0
    while count < TRADES and reader.wait(30.0):
        with reader.borrowed() as batch:  # a view into the ring
            length, total = len(batch.rows), (batch.rows["price"] * batch.rows["size"]).sum()
        if batch.intact:  # the writer has overwritten none of these rows
            count, notional = count + length, notional + total
    print(f"process {os.getpid()} read {count} trades, notional {notional:.2f}, lost {reader.lost}")


async def fill(feed: Feed, name: str) -> None:
    async with IBKRConnectionManager(Config.load(), feed) as manager:
        await manager.subscribe("AAPL", "ALL_LAST")
        process = multiprocessing.get_context("spawn").Process(target=read, args=(name,))
        process.start()
        await asyncio.to_thread(process.join)


if __name__ == "__main__":
    print(f"process {os.getpid()} fills the feed", flush=True)
    name = f"example-{os.getpid()}"
    with Feed(name=name) as feed:
        asyncio.run(fill(feed, name))
