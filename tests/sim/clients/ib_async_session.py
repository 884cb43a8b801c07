"""A session of ib_async 2.1.0 through its public interface: prints what its objects hold.

Runs in the environment of that client, not in ours: only the standard library and `ib_async`. One JSON line per
report: what it is about, then its values.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from ib_async import IB, BarDataList, Future, RealTimeBarList, Stock, Ticker

TIMEOUT_S = 60
DELETE = 2


def report(name: str, *values: Any) -> None:
    print(json.dumps([name, *values]))


def seconds(moment: Any) -> int:
    return int(moment.timestamp())


class Recorder:
    """Keeps what streams, as it comes; a ticker is emptied at each packet."""

    def __init__(self) -> None:
        self.ticks: list[list[Any]] = []
        self.trades: list[list[Any]] = []
        self.quotes: list[list[Any]] = []
        self.midpoints: list[list[Any]] = []
        self.stock_depth: list[list[Any]] = []
        self.future_depth: list[list[Any]] = []
        self.bars: list[list[Any]] = []
        self.updates: list[list[Any]] = []

    def on_tickers(self, tickers: set[Ticker]) -> None:
        for ticker in tickers:
            if ticker.contract.symbol == "MSFT":
                self.ticks += [[tick.tickType, tick.price, tick.size] for tick in ticker.ticks]
            for tick in ticker.tickByTicks:
                kind = type(tick).__name__
                if kind == "TickByTickAllLast":
                    attribs = tick.tickAttribLast
                    row = [tick.tickType, tick.price, tick.size, attribs.unreported, tick.exchange]
                    self.trades.append([*row, tick.specialConditions])
                elif kind == "TickByTickBidAsk":
                    self.quotes.append([tick.bidPrice, tick.askPrice, tick.bidSize, tick.askSize])
                else:
                    self.midpoints.append([tick.midPoint])
            depth = self.stock_depth if ticker.contract.symbol == "AAPL" else self.future_depth
            for tick in ticker.domTicks:
                # At a deletion the client tells the price that it remembers, not the one that was sent.
                price = 0.0 if tick.operation == DELETE else tick.price
                depth.append([tick.position, tick.marketMaker, tick.operation, tick.side, price, tick.size])

    def on_bar(self, bars: RealTimeBarList | BarDataList, has_new_bar: bool) -> None:
        bar = bars[-1]
        if isinstance(bars, RealTimeBarList):
            row = [bar.open_, bar.high, bar.low, bar.close, bar.volume, bar.wap, bar.count]
            self.bars.append([seconds(bar.time), *row])
        else:
            self.updates.append(history_row(bar))

    def is_complete(self) -> bool:
        least = {
            "ticks": 50,
            "trades": 6,
            "quotes": 10,
            "midpoints": 2,
            "stock_depth": 30,
            "future_depth": 11,
            "bars": 2,
            "updates": 3,
        }
        return all(len(getattr(self, name)) >= number for name, number in least.items())


def history_row(bar: Any) -> list[Any]:
    row = [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.average, bar.barCount]
    return [seconds(bar.date), *row]


async def session(port: int) -> None:
    ib = IB()
    await ib.connectAsync("127.0.0.1", port, clientId=8, raiseSyncErrors=True)
    apple, microsoft = Stock("AAPL", "SMART", "USD"), Stock("MSFT", "SMART", "USD")
    await ib.qualifyContractsAsync(apple, microsoft)
    report("qualified", apple.conId, apple.primaryExchange, apple.localSymbol, apple.tradingClass, microsoft.conId)
    futures = await ib.reqContractDetailsAsync(Future("ES", exchange="CME"))
    report("futures", [[d.contract.conId, d.contract.lastTradeDateOrContractMonth, d.minTick] for d in futures])

    recorder = Recorder()
    ib.pendingTickersEvent += recorder.on_tickers
    ib.barUpdateEvent += recorder.on_bar
    ib.reqMktData(microsoft, "233")
    for kind in ("Last", "AllLast", "BidAsk", "MidPoint"):
        ib.reqTickByTickData(apple, kind)
    ib.reqMktDepth(apple, 5, isSmartDepth=True)
    ib.reqMktDepth(futures[0].contract, 5)
    ib.reqRealTimeBars(apple, 5, "TRADES", False)

    bars = await ib.reqHistoricalDataAsync(apple, "", "60 S", "5 secs", "TRADES", False, 2)
    report("history", [history_row(bar) for bar in bars])
    days = await ib.reqHistoricalDataAsync(apple, "", "5 D", "1 day", "TRADES", True)
    report("days", [[str(bar.date), bar.open, bar.high, bar.low, bar.close] for bar in days])
    await ib.reqHistoricalDataAsync(apple, "", "60 S", "5 secs", "TRADES", False, 2, keepUpToDate=True)
    now = await ib.reqCurrentTimeAsync()
    trades = await ib.reqHistoricalTicksAsync(apple, "", now, 10, "TRADES", False)
    report("past trades", [[seconds(t.time), t.price, t.size, t.exchange, t.specialConditions] for t in trades])
    quotes = await ib.reqHistoricalTicksAsync(apple, "", now, 10, "BID_ASK", False)
    report("past quotes", [[seconds(t.time), t.priceBid, t.priceAsk, t.sizeBid, t.sizeAsk] for t in quotes])
    head = await ib.reqHeadTimeStampAsync(apple, "TRADES", False, 2)
    report("head", seconds(head))

    while not recorder.is_complete():
        await ib.updateEvent
    ib.disconnect()
    for name, rows in vars(recorder).items():
        report(name, rows)


async def main() -> None:
    await asyncio.wait_for(session(int(sys.argv[1])), TIMEOUT_S)


if __name__ == "__main__":
    asyncio.run(main())
