"""Fill one feed by two connections: two client ids at one gateway."""

import asyncio

from ibfast import Config, ConnectionPool

SYMBOLS = ("AAPL", "MSFT", "NVDA", "SPY")


async def main() -> None:
    async with ConnectionPool([Config.load(client_id=21), Config.load(client_id=22)]) as pool:
        for symbol in SYMBOLS:
            await pool.subscribe(symbol, "QUOTES")
        seen: set[str] = set()
        async for rows in pool.feed.quotes.reader(start="oldest"):
            seen |= {pool.feed.instruments[instrument] for instrument in rows["instrument"]}
            if seen >= set(SYMBOLS):
                break
        for member in pool.members:
            print(f"{member.address}: {len(member.session.subscriptions)} subscriptions")
        print(f"quotes of {', '.join(sorted(seen))}")


asyncio.run(main())
