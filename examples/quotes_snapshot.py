"""Print the best bid and ask of several stocks once, as one table."""

import asyncio

import numpy as np

from ibfast import Config, IBKRConnectionManager

SYMBOLS = ("AAPL", "MSFT", "NVDA", "SPY")


async def main() -> None:
    async with IBKRConnectionManager(Config.load()) as manager:
        streams = [await manager.subscribe(symbol, "QUOTES") for symbol in SYMBOLS]
        instruments = [stream.instrument for stream in streams]
        last = manager.feed.snapshot()  # a row for each instrument of the feed
        while np.isnan(last["bid"][instruments]).any():
            await asyncio.sleep(0.05)
            last = manager.feed.snapshot()
        for symbol, instrument in zip(SYMBOLS, instruments, strict=True):
            row = last[instrument]
            print(f"{symbol:6} {row['bid_size']:8g} {row['bid']:10.2f} {row['ask']:10.2f} {row['ask_size']:8g}")


asyncio.run(main())
