"""The gateway's process: an embedded gateway with a numbered market, and faults to order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.soak import child
from benchmarks.soak.market import LINES, NumberedMarket, Timetable
from ibfast.sim.gateway import Gateway
from ibfast.sim.subscription import Family, GatewaySubscription

FLAP_TIMES = 20


class Verbs:
    """What the gateway can be told. A verb that needs a subscription says whether there was one."""

    def __init__(self, gateway: Gateway, market: NumberedMarket) -> None:
        self._gateway = gateway
        self._market = market
        self._faults = gateway.faults

    def figures(self) -> dict[str, Any]:
        gateway = self._gateway

        def utc(at_s: float) -> float:
            return time.time() - (gateway.wall_s() - at_s)

        return {
            "sent": gateway.sent.total(),
            "received": gateway.received.total(),
            "open": len(gateway.subscriptions()),
            "violations": [(utc(v.at_s), f"{v.rule} by {type(v.request).__name__}") for v in gateway.violations],
        }

    def lose_link(self) -> None:
        self._faults.lose_link()

    def lose_server(self) -> None:
        self._faults.lose_server()

    def restore_link(self, *, data_lost: bool = False) -> None:
        self._faults.restore_link(data_lost=data_lost)

    async def nightly_reset(self) -> None:
        await self._faults.nightly_reset(FLAP_TIMES)

    def mute_farm(self) -> None:
        self._faults.mute_farm()

    def heal_farm(self, *, resubscribe_needed: bool = False) -> None:
        self._faults.heal_farm(resubscribe_needed=resubscribe_needed)

    def take_session(self) -> None:
        self._faults.take_session()

    def release_session(self) -> None:
        self._faults.release_session()

    def use_id(self) -> None:
        self._faults.use_id()

    def withhold_next_valid_id(self) -> None:
        self._faults.withhold_next_valid_id()

    def exceed_rate(self) -> None:
        self._faults.exceed_rate(3)

    def read_slowly(self, *, interval_s: float) -> None:
        self._faults.read_interval_s = interval_s

    async def flood(self, *, held_s: float) -> None:
        self._market.is_held = True
        await asyncio.sleep(held_s)
        self._market.is_held = False

    async def restart(self, *, down_s: float) -> None:
        await self._faults.restart(down_s)

    def mute_one(self, *, index: int) -> bool:
        chosen = self._chosen(index)
        if chosen is not None:
            self._faults.mute(req_id=chosen.req_id)
        return chosen is not None

    def kill_one(self, *, index: int) -> bool:
        chosen = self._chosen(index)
        if chosen is not None:
            self._faults.kill_subscription(chosen.req_id)
        return chosen is not None

    def reset_book(self, *, index: int) -> bool:
        chosen = self._chosen(index, Family.DEPTH)
        if chosen is not None:
            self._faults.reset_book(chosen.req_id)
        return chosen is not None

    def _chosen(self, index: int, family: Family | None = None) -> GatewaySubscription | None:
        open_ = [s for s in self._gateway.subscriptions() if family in (None, s.family)]
        return open_[index % len(open_)] if open_ else None


async def main(port: int, epoch_ns: int, rate: float) -> None:
    market = NumberedMarket(Timetable(epoch_ns, rate))
    async with Gateway(port=port, market=market, lines=LINES) as gateway:
        verbs = Verbs(gateway, market)
        offered = {name: getattr(verbs, name) for name in dir(verbs) if not name.startswith("_")}
        await child.serve({**offered, "port": lambda: gateway.port})


if __name__ == "__main__":
    asyncio.run(main(**child.settings()))
