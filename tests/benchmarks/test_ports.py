"""A gateway that is away keeps its port."""

from __future__ import annotations

import asyncio
import socket

from benchmarks.chaos.gateway import Gateway
from benchmarks.chaos.market import Market
from benchmarks.chaos.world import VERSIONS
from benchmarks.faults import SCENARIOS
from benchmarks.faults.world import World
from tests.support.loops import Run


def is_free(port: int) -> bool:
    """Tell whether the kernel would give a port away."""
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_a_gateway_of_chaos_comes_back_at_its_port(run: Run) -> None:
    async def test() -> None:
        async with Gateway(Market(), VERSIONS) as gateway:
            port = gateway.port
            gateway.close_door()
            await asyncio.sleep(0)
            assert not is_free(port)
            await gateway.listen()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()

    run(test())


def test_a_gateway_of_faults_comes_back_at_its_port(run: Run) -> None:
    async def test() -> None:
        async with World(next(iter(SCENARIOS.values())), quick=True) as world:
            gateway = world.gateway
            gateway.stop_listening()
            await asyncio.sleep(0)
            assert not is_free(gateway.port)
            await gateway.start_listening()
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.close()

    run(test())
