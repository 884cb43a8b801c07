"""A manager in conversation with a peer: what tests of its questions and of its subscriptions have in common."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.config import ReconnectionConfig
from ibfast.contracts import Contract, ContractDetails
from ibfast.records import HISTORICAL_BAR
from ibfast.sim.ticks import TickByTickLast
from ibfast.wire.requests import ContractDetailsRequest
from ibfast.wire.responses import ContractData, ContractDataEnd
from tests.support.peer import Caller, Peer, Script

AAPL = Contract(
    con_id=265598, symbol="AAPL", sec_type="STK", exchange="SMART", primary_exchange="NASDAQ", currency="USD",
    local_symbol="AAPL", trading_class="NMS",
)  # fmt: skip
MSFT = Contract(
    con_id=272093, symbol="MSFT", sec_type="STK", exchange="SMART", primary_exchange="NASDAQ", currency="USD",
    local_symbol="MSFT", trading_class="NMS",
)  # fmt: skip


ONCE = ReconnectionConfig(enabled=False)
"""For what happens within one connection."""


def small_feed() -> Feed:
    return Feed(1 << 8, max_instruments=16, max_texts=64)


@contextlib.asynccontextmanager
async def session(*scripts: Script, version: int = 226, **settings: Any) -> AsyncIterator[IBKRConnectionManager]:
    """A manager that is connected to a peer, once; the scripts begin when the session is ready."""

    def begun(script: Script) -> Script:
        async def play(caller: Caller) -> None:
            await caller.start()
            await script(caller)
            await caller.gone()

        return play

    async with (
        Peer(*map(begun, scripts), version=version) as peer,
        IBKRConnectionManager(Config(port=peer.port, reconnection=ONCE, **settings), small_feed()) as manager,
    ):
        yield manager


async def answer_details(caller: Caller, *contracts: Contract) -> int:
    """Answer one ContractDetailsRequest; return its id."""
    request = await caller.request(ContractDetailsRequest)
    details = (ContractData(request.req_id, ContractDetails(contract)) for contract in contracts)
    caller.send(*details, ContractDataEnd(request.req_id))
    return request.req_id


def trade(req_id: int, price: float) -> TickByTickLast:
    return TickByTickLast(req_id, 1, 1_700_000_000, price, 100, 0, "ARCA", "")


def bars_of(*closes: float) -> Any:
    bars = np.zeros(len(closes), HISTORICAL_BAR)
    bars["event_ns"] = 1_700_000_000_000_000_000 + 60_000_000_000 * np.arange(len(closes))
    bars["close"] = closes
    return bars


QUICK = ReconnectionConfig(delay_s=0.01, max_delay_s=0.05)
"""For what happens over several connections."""


@contextlib.asynccontextmanager
async def kept(*scripts: Script, **settings: Any) -> AsyncIterator[tuple[IBKRConnectionManager, Peer]]:
    """A manager that reconnects, and a peer that goes through the scripts."""
    async with (
        Peer(*scripts, abandon=True) as peer,
        IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK, **settings), small_feed()) as manager,
    ):
        yield manager, peer


async def stays(caller: Caller) -> None:
    await caller.start()
    await caller.gone()


def names(manager: IBKRConnectionManager) -> list[str]:
    return [event.name for event in manager.monitor.events]
