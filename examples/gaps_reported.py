"""Print an interruption of a stream: what may be missing, and why."""

import asyncio

from ibfast import Config, GapCause, IBKRConnectionManager

NS_PER_S = 1_000_000_000


async def main() -> None:
    async with IBKRConnectionManager(Config.load()) as manager:
        stream = await manager.subscribe("AAPL", "QUOTES")
        print(f"subscribed to {stream.contract.symbol}", flush=True)
        await anext(stream)
        print("data flows", flush=True)
        async for _ in stream:
            for gap in stream.take_gaps():
                cause = GapCause(gap["cause"]).name
                if not gap["recovered"]:
                    print(f"{cause}: data may be missing after seq {gap['first_seq']}", flush=True)
                    continue
                missing_s = (gap["last_ns"] - gap["first_ns"]) / NS_PER_S
                print(f"{cause}: data is back, {missing_s:.1f} s may be missing", flush=True)
                return


asyncio.run(main())
