"""Print the events of a connection, its health, and some of its metrics."""

import asyncio

import prometheus_client

from ibfast import Config, IBKRConnectionManager, SubscriptionState

SHOWN = ("ibfast_healthy", "ibfast_subscriptions{")


async def main() -> None:
    manager = IBKRConnectionManager(Config.load())
    manager.monitor.listen(lambda event: print(f"event    {event.name} {dict(event.fields)}"))
    async with manager:
        stream = await manager.subscribe("AAPL", "QUOTES")
        while stream.state is not SubscriptionState.LIVE:
            await anext(stream)
        health = manager.health()
        print(f"health   ok={health.ok} state={health.state} reasons={health.reasons}")
        for line in prometheus_client.generate_latest(manager.monitor.registry).decode().splitlines():
            if line.startswith(SHOWN):
                print(f"metric   {line}")


asyncio.run(main())
