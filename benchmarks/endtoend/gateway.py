"""The gateway's process: an embedded gateway with a seeded market of stocks."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from benchmarks.soak import child
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe

EVENTS_PER_TICK = 1.3
"""So many quotes and trades of the market make one row of `quotes`."""


async def main(symbols: int, lines: int, rate: float, seed: int) -> None:
    # No trading hours, so that silence is never a matter of the time of day.
    universe = Universe(
        replace(instrument, details=replace(instrument.details, trading_hours="", liquid_hours=""))
        for instrument in Universe.synthetic(symbols)
    )
    market = Market(universe, seed=seed, rate=rate * EVENTS_PER_TICK)
    async with Gateway(market=market, lines=lines) as gateway:
        names = [instrument.contract.symbol for instrument in universe]
        await child.serve({"port": lambda: gateway.port, "symbols": lambda: names})


if __name__ == "__main__":
    asyncio.run(main(**child.settings()))
