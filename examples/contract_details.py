"""Search for contracts, and print what the gateway knows about one of them."""

import asyncio

from ibfast import Config, Forex, IBKRConnectionManager, Stock


async def main() -> None:
    async with IBKRConnectionManager(Config.load()) as manager:
        for sample in await manager.matching_symbols("apple"):
            print(f"match    {sample.contract.symbol} {sample.contract.sec_type} {sample.contract.currency}")
        for details in await manager.contract_details(Stock("MSFT")):
            print(f"details  {details.long_name}, con_id {details.contract.con_id}, min tick {details.min_tick:g}")
            print(f"hours    {details.liquid_hours.split(';')[0]} {details.time_zone_id}")
        pair = await manager.qualify(Forex("EURUSD"))  # exactly one contract, or an error that names the candidates
        print(f"qualify  {pair.local_symbol}, con_id {pair.con_id}, exchange {pair.exchange}")


asyncio.run(main())
