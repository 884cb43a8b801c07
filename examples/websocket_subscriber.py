"""Subscribe to quotes of a fan-out server, at most four a second."""

import asyncio
import os
import sys

from ibfast import Config, WebSocketProvider

UPDATES = 5


async def main(symbol: str) -> None:
    url = os.environ.get("IBFAST_STREAM_URL", "ws://127.0.0.1:8765/stream")
    async with WebSocketProvider(Config.load(stream_url=url)) as ws:
        await ws.subscribe(symbol, data_type="QUOTES", mode="conflate", interval_ms=250)
        count = 0
        async for quote in ws.updates():
            kind = "state" if quote.is_snapshot else "news"
            print(f"{quote.ticker} {quote.bid:g} {quote.ask:g} {kind}", flush=True)
            count += 1
            if count == UPDATES:
                break


asyncio.run(main(*sys.argv[1:2] or ["AAPL"]))
