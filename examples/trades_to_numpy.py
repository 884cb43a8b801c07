"""Compute the volume-weighted average price of each batch of trades, in numpy."""

import asyncio

from ibfast import Config, IBKRConnectionManager

BATCHES = 5


async def main() -> None:
    async with IBKRConnectionManager(Config.load()) as manager:
        stream = await manager.subscribe("AAPL", "ALL_LAST")
        count = 0
        async for rows in stream:
            vwap = (rows["price"] * rows["size"]).sum() / rows["size"].sum()
            print(f"{len(rows)} trades, volume {rows['size'].sum():g}, vwap {vwap:.4f}", flush=True)
            count += 1
            if count == BATCHES:
                break


asyncio.run(main())
