"""Request two days of five-minute bars, and print the last of them."""

import asyncio
from datetime import UTC, datetime

from ibfast import Config, IBKRConnectionManager

NS_PER_S = 1_000_000_000


async def main() -> None:
    async with IBKRConnectionManager(Config.load()) as manager:
        bars = await manager.historical_bars("AAPL", duration="2 D", bar_size="5 mins")
        for bar in bars[-3:]:
            begin = datetime.fromtimestamp(bar["event_ns"] // NS_PER_S, UTC)
            print(f"{begin:%Y-%m-%d %H:%M} {bar['open']:g} {bar['high']:g} {bar['low']:g} {bar['close']:g}")
        print(f"{len(bars)} bars, highest {bars['high'].max():g}, lowest {bars['low'].min():g}")


asyncio.run(main())
