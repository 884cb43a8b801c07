"""Clients that others wrote, unmodified, report the very values that the gateway sent.

Each runs in an environment of its own (see oracles.py) as a process that connects, subscribes and prints what it was
told. The gateway's journal is the truth that it is compared with, message by message.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ibfast.records import HISTORICAL_TICK_BID_ASK, HISTORICAL_TICK_LAST
from ibfast.sim import codec
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.universe import Universe
from ibfast.wire import responses
from tests.support.oracles import ASYNC_CLIENT, NEW_CLIENT, OLD_CLIENT, python_with

CLIENTS = Path(__file__).parent / "clients"
NS = 1_000_000_000
TIMEOUT_S = 90
SPEED = 10.0
NO_PRICE = -1
LAST_SIZE, RT_VOLUME = 5, 48
SIZE_OF_PRICE = {1: 0, 2: 3, 4: 5, 66: 69, 67: 70, 68: 71}
START_AND_END_IN_BARS_BELOW = 196
CAN_AUTO_EXECUTE, UNREPORTED = 1, 2


async def run_client(script: str, requirement: str, server_version: int) -> tuple[list[Any], list[Any]]:
    """Return what a client printed, and what the gateway sent it."""
    journal: list[Any] = []
    gateway = Gateway(
        server_version=server_version,
        market=Market(Universe.builtin(), seed=5, rate=400),
        clock=Clock(SPEED),
        pacing=False,
        journal=lambda _, message: journal.append(message),
    )
    python = await asyncio.to_thread(python_with, requirement)
    async with gateway:
        process = await asyncio.create_subprocess_exec(
            python, CLIENTS / script, str(gateway.port), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines()], journal


def callbacks(message: Any, server_version: int) -> list[list[Any]]:
    """Return the calls that IB's own client makes of one message."""
    match message:
        case responses.ManagedAccounts(accounts):
            return [["managedAccounts", ",".join(accounts)]]
        case responses.NextValidId(order_id):
            return [["nextValidId", order_id]]
        case responses.ErrorMessage(req_id, code, text):
            return [["error", req_id, code, text]]
        case responses.ContractData(req_id, details):
            return [contract_details(req_id, details)]
        case responses.ContractDataEnd(req_id):
            return [["contractDetailsEnd", req_id]]
        case responses.CurrentTime(time_s):
            return [["currentTime", time_s]]
        case responses.HeadTimestamp(req_id, timestamp):
            return [["headTimestamp", req_id, timestamp]]
        case responses.SymbolSamples(req_id, samples):
            rows = [
                [c.con_id, c.symbol, c.sec_type, c.currency, list(sample.derivative_sec_types)]
                for sample in samples
                for c in [sample.contract]
            ]
            return [["symbolSamples", req_id, rows]]
        case responses.TickReqParams(req_id, min_tick, bbo_exchange, permissions):
            return [["tickReqParams", req_id, min_tick, bbo_exchange, permissions]]
        case responses.MarketDataTypeMessage(req_id, data_type):
            return [["marketDataType", req_id, data_type]]
        case responses.TickSnapshotEnd(req_id):
            return [["tickSnapshotEnd", req_id]]
        case responses.HistoricalDataEnd(req_id, start, end):
            return [["historicalDataEnd", req_id, start, end]]
        case codec.DatedBars(req_id, bars, dates, start, end):
            rows = [["historicalData", req_id, date, *bar.item()[1:]] for date, bar in zip(dates, bars, strict=True)]
            is_end = server_version < START_AND_END_IN_BARS_BELOW
            return rows + [["historicalDataEnd", req_id, start, end]] * is_end
        case responses.HistoricalTicks(req_id, ticks, done):
            return [past_ticks(req_id, ticks, done)]
        case codec.TickPrice(req_id, tick_type, price, size, mask):
            calls = [["tickPrice", req_id, tick_type, price, bool(mask & CAN_AUTO_EXECUTE)]]
            if tick_type in SIZE_OF_PRICE:
                calls.append(["tickSize", req_id, SIZE_OF_PRICE[tick_type], float(size)])
            return calls
        case codec.TickSize(req_id, tick_type, size):
            return [["tickSize", req_id, tick_type, float(size)]]
        case codec.TickString(req_id, tick_type, value):
            return [["tickString", req_id, tick_type, value]]
        case codec.TickGeneric(req_id, tick_type, value):
            return [["tickGeneric", req_id, tick_type, value]]
        case codec.TickOption(req_id, tick_type, _, volatility, delta, price, dividend, gamma, vega, theta, under):
            return [
                [
                    "tickOptionComputation",
                    req_id,
                    tick_type,
                    volatility,
                    delta,
                    price,
                    dividend,
                    gamma,
                    vega,
                    theta,
                    under,
                ]
            ]
        case codec.TickByTickLast(req_id, tick_type, time_s, price, size, mask, exchange, conditions):
            unreported = bool(mask & UNREPORTED)
            return [
                ["tickByTickAllLast", req_id, tick_type, time_s, price, float(size), unreported, exchange, conditions]
            ]
        case codec.TickByTickBidAsk(req_id, time_s, bid, ask, bid_size, ask_size):
            return [["tickByTickBidAsk", req_id, time_s, bid, ask, float(bid_size), float(ask_size)]]
        case codec.TickByTickMidPoint(req_id, time_s, price):
            return [["tickByTickMidPoint", req_id, time_s, price]]
        case codec.DepthUpdate(req_id, position, operation, side, price, size):
            return [["updateMktDepth", req_id, position, operation, side, price, float(size)]]
        case codec.DepthL2(req_id, position, operation, side, price, size, maker, is_smart):
            return [["updateMktDepthL2", req_id, position, maker, operation, side, price, float(size), is_smart]]
        case codec.RealTimeBar(req_id, time_s, open_, high, low, close, volume, wap, count):
            return [["realtimeBar", req_id, time_s, open_, high, low, close, float(volume), wap, count]]
        case codec.HistoricalDataUpdate(req_id, count, date, open_, high, low, close, wap, volume):
            return [["historicalDataUpdate", req_id, date, open_, high, low, close, float(volume), wap, count]]
    raise AssertionError(f"no callback is known for {message}")


def contract_details(req_id: int, details: Any) -> list[Any]:
    own = details.contract
    is_option = own.sec_type == "OPT"
    return [
        "contractDetails", req_id, own.con_id, own.symbol, own.sec_type, own.last_trade_date,
        own.strike if is_option else 0.0, own.right if is_option else "", float(own.multiplier or 0), own.exchange,
        own.primary_exchange, own.currency, own.local_symbol, own.trading_class, details.market_name, details.min_tick,
        details.valid_exchanges, details.long_name, details.time_zone_id, details.trading_hours, details.liquid_hours,
        details.under_con_id,
    ]  # fmt: skip


def past_ticks(req_id: int, ticks: Any, done: bool) -> list[Any]:
    rows = [tick.item() for tick in ticks]
    if ticks.dtype == HISTORICAL_TICK_LAST:
        shown = [[ns // NS, price, size, bool(mask & UNREPORTED), *texts] for ns, mask, price, size, *texts in rows]
        return ["historicalTicksLast", req_id, shown, done]
    if ticks.dtype == HISTORICAL_TICK_BID_ASK:
        return ["historicalTicksBidAsk", req_id, [[ns // NS, *quote] for ns, _, *quote in rows], done]
    return ["historicalTicks", req_id, [[ns // NS, *rest] for ns, *rest in rows], done]


@pytest.mark.parametrize(
    ("requirement", "server_version"),
    [(OLD_CLIENT, 226), (NEW_CLIENT, 176), (NEW_CLIENT, 200), (NEW_CLIENT, 201), (NEW_CLIENT, 226)],
)
def test_official_client_reports_what_was_sent(requirement: str, server_version: int) -> None:
    reported, journal = asyncio.run(run_client("ibapi_session.py", requirement, server_version))
    agreed = 157 if requirement == OLD_CLIENT else server_version

    expected = [call for message in journal for call in callbacks(message, agreed)]

    assert len(reported) > 100
    # The client hangs up while the gateway still sends.
    assert reported == expected[: len(reported)]


def test_ib_async_reports_what_was_sent() -> None:
    printed, journal = asyncio.run(run_client("ib_async_session.py", ASYNC_CLIENT, 226))
    reported = {name: values for name, *values in printed}

    def sent(kind: type) -> list[Any]:
        return [message for message in journal if isinstance(message, kind)]

    apple, microsoft = (sent(responses.ContractData)[at].details.contract for at in (0, 1))
    assert reported["qualified"] == [
        apple.con_id, apple.primary_exchange, apple.local_symbol, apple.trading_class, microsoft.con_id,
    ]  # fmt: skip
    futures = [message.details for message in sent(responses.ContractData)[2:]]
    assert reported["futures"] == [[[d.contract.con_id, d.contract.last_trade_date, d.min_tick] for d in futures]]

    seconds, days, _ = sent(codec.DatedBars)
    assert reported["history"] == [[[bar.item()[0] // NS, *bar.item()[1:]] for bar in seconds.bars]]
    assert reported["days"] == [
        [[f"{d[:4]}-{d[4:6]}-{d[6:]}", *bar.item()[1:5]] for d, bar in zip(days.dates, days.bars, strict=True)]
    ]
    trades, quotes = (message.ticks for message in sent(responses.HistoricalTicks))
    assert reported["past trades"] == [[[t[0] // NS, *t[2:]] for t in (tick.item() for tick in trades)]]
    assert reported["past quotes"] == [[[t[0] // NS, *t[2:]] for t in (tick.item() for tick in quotes)]]
    assert reported["head"] == [int(message.timestamp) for message in sent(responses.HeadTimestamp)]

    streams = {
        "trades": [
            [t.tick_type, t.price, t.size, bool(t.attrib_mask & UNREPORTED), t.exchange, t.conditions]
            for t in sent(codec.TickByTickLast)
        ],
        "quotes": [[q.bid, q.ask, q.bid_size, q.ask_size] for q in sent(codec.TickByTickBidAsk)],
        "midpoints": [[m.price] for m in sent(codec.TickByTickMidPoint)],
        "stock_depth": [
            [d.position, d.market_maker, d.operation, d.side, d.price, d.size] for d in sent(codec.DepthL2)
        ],
        "future_depth": [[d.position, "", d.operation, d.side, d.price, d.size] for d in sent(codec.DepthUpdate)],
        "bars": [[b.time_s, b.open, b.high, b.low, b.close, b.volume, b.wap, b.count] for b in sent(codec.RealTimeBar)],
        "updates": [
            [int(u.date), u.open, u.high, u.low, u.close, u.volume, u.wap, u.count]
            for u in sent(codec.HistoricalDataUpdate)
        ],
        "ticks": level1_of_ib_async(journal),
    }
    for name, expected in streams.items():
        (rows,) = reported[name]
        assert rows, name
        assert rows == expected[: len(rows)], name


def level1_of_ib_async(journal: list[Any]) -> list[list[Any]]:
    """Return the ticks that ib_async keeps: it drops a size that it knows already, and adds the price to a size."""
    prices: dict[int, float] = {}
    sizes: dict[int, float] = {}
    kept: list[list[Any]] = []
    for message in journal:
        match message:
            case codec.TickPrice(_, tick_type, price, size):
                kept.append([tick_type, price, size])
                if tick_type in SIZE_OF_PRICE:
                    prices[SIZE_OF_PRICE[tick_type]], sizes[SIZE_OF_PRICE[tick_type]] = price, size
            case codec.TickSize(_, tick_type, size):
                if sizes.get(tick_type) != size or tick_type not in (0, 3):
                    kept.append([tick_type, prices.get(tick_type, NO_PRICE), size])
                sizes[tick_type] = size
            case codec.TickString(_, tick_type, value) if tick_type == RT_VOLUME:
                price, size = map(float, value.split(";")[:2])
                kept.append([tick_type, price, size])
                prices[LAST_SIZE] = price
            case codec.TickGeneric(_, tick_type, value):
                kept.append([tick_type, value or 0, 0])
    return kept
