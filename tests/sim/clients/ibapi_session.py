"""A session of IB's own client, 9.81.1 or 10.51.1: subscribes to everything and prints what its callbacks reported.

Runs in the environment of that client, not in ours: only the standard library and `ibapi`. One JSON line per callback,
in order: its name and its values, numbers as floats.
"""

# ruff: noqa: N802, N803 (the names are IB's)

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.wrapper import EWrapper

TIMEOUT_S = 60
GOALS = {
    "tickPrice": 20,
    "tickSize": 40,
    "tickString": 5,
    "tickOptionComputation": 3,
    "tickSnapshotEnd": 1,
    "tickByTickAllLast 3": 3,
    "tickByTickAllLast 4": 3,
    "tickByTickBidAsk": 10,
    "tickByTickMidPoint": 2,
    "updateMktDepth": 10,
    "updateMktDepthL2": 20,
    "realtimeBar": 2,
    "historicalDataEnd": 3,
    "historicalDataUpdate": 3,
    "historicalTicks": 1,
    "historicalTicksBidAsk": 1,
    "historicalTicksLast": 1,
    "headTimestamp": 1,
    "symbolSamples": 1,
    "currentTime": 1,
}


def contract(symbol: str, sec_type: str, exchange: str, currency: str = "USD", **more: Any) -> Contract:
    made = Contract()
    made.symbol, made.secType, made.exchange, made.currency = symbol, sec_type, exchange, currency
    for name, value in more.items():
        setattr(made, name, value)
    return made


def is_set(attribs: Any, name: str) -> bool:
    return bool(getattr(attribs, name))


def bar_values(bar: Any) -> list[Any]:
    wap = bar.average if hasattr(bar, "average") else bar.wap
    return [bar.date, bar.open, bar.high, bar.low, bar.close, float(bar.volume), float(wap), bar.barCount]


class Session(EWrapper, EClient):
    def __init__(self) -> None:
        EClient.__init__(self, self)
        self.reports: list[list[Any]] = []
        self.counts: Counter[str] = Counter()
        self.complete = threading.Event()
        self.apple = contract("AAPL", "STK", "SMART")

    def report(self, name: str, *values: Any, goal: str = "") -> None:
        self.reports.append([name, *values])
        self.counts[goal or name] += 1
        if all(self.counts[goal] >= least for goal, least in GOALS.items()):
            self.complete.set()

    def managedAccounts(self, accountsList):
        self.report("managedAccounts", accountsList)

    def nextValidId(self, orderId):
        self.report("nextValidId", orderId)
        self.reqContractDetails(1, self.apple)
        self.reqContractDetails(2, contract("ES", "FUT", "CME"))
        self.reqContractDetails(20, contract("AAPL", "OPT", "SMART", strike=230.0, right="C"))

    def error(self, reqId, *values):
        texts = [value for value in values if isinstance(value, str)]
        codes = [value for value in values if isinstance(value, int)]
        self.report("error", reqId, codes[-1], texts[0])

    def contractDetails(self, reqId, contractDetails):
        told, own = contractDetails, contractDetails.contract
        self.report(
            "contractDetails", reqId, own.conId, own.symbol, own.secType, own.lastTradeDateOrContractMonth[:8],
            float(own.strike) if own.secType == "OPT" else 0.0, own.right if own.secType == "OPT" else "",
            float(own.multiplier or 0), own.exchange, own.primaryExchange, own.currency, own.localSymbol,
            own.tradingClass, told.marketName, told.minTick, told.validExchanges, told.longName, told.timeZoneId,
            told.tradingHours, told.liquidHours, told.underConId,
        )  # fmt: skip
        if self.counts[f"contract {reqId}"] == 0:
            self.counts[f"contract {reqId}"] += 1
            if reqId == 1:
                self.apple = own
            elif reqId == 2:
                self.reqMktDepth(8, own, 5, False, [])
            else:
                self.reqMktData(17, own, "", False, False, [])

    def contractDetailsEnd(self, reqId):
        self.report("contractDetailsEnd", reqId)
        if reqId != 1:
            return
        apple = self.apple
        self.reqMktData(3, apple, "233,236", False, False, [])
        for req_id, kind in ((3, "Last"), (4, "AllLast"), (5, "BidAsk"), (6, "MidPoint")):
            self.reqTickByTickData(req_id, apple, kind, 0, False)
        self.reqMktDepth(7, apple, 5, True, [])
        self.reqRealTimeBars(9, apple, 5, "TRADES", False, [])
        self.reqHistoricalData(10, apple, "", "60 S", "5 secs", "TRADES", 0, 1, False, [])
        self.reqHistoricalData(11, apple, "", "5 D", "1 day", "MIDPOINT", 1, 1, False, [])
        self.reqHistoricalData(12, apple, "", "60 S", "5 secs", "TRADES", 0, 2, True, [])
        self.reqHeadTimeStamp(16, apple, "TRADES", 0, 1)
        self.reqMatchingSymbols(18, "AAP")
        self.reqMktData(19, contract("NOSUCH", "STK", "SMART"), "", False, False, [])
        self.cancelMktData(99)
        self.cancelMktDepth(98, False)
        self.reqMarketDataType(3)
        self.reqMktData(21, contract("SIE", "STK", "SMART", "EUR"), "", True, False, [])
        self.reqCurrentTime()

    def currentTime(self, time):
        self.report("currentTime", time)
        end = datetime.fromtimestamp(time, UTC).strftime("%Y%m%d %H:%M:%S UTC")
        for req_id, kind in ((13, "TRADES"), (14, "BID_ASK"), (15, "MIDPOINT")):
            self.reqHistoricalTicks(req_id, self.apple, "", end, 10, kind, 0, False, [])

    def symbolSamples(self, reqId, contractDescriptions):
        rows = [
            [d.contract.conId, d.contract.symbol, d.contract.secType, d.contract.currency, list(d.derivativeSecTypes)]
            for d in contractDescriptions
        ]
        self.report("symbolSamples", reqId, rows)

    def headTimestamp(self, reqId, headTimestamp):
        self.report("headTimestamp", reqId, headTimestamp)

    def tickReqParams(self, tickerId, minTick, bboExchange, snapshotPermissions):
        self.report("tickReqParams", tickerId, minTick, bboExchange, snapshotPermissions)

    def marketDataType(self, reqId, marketDataType):
        self.report("marketDataType", reqId, marketDataType)

    def tickPrice(self, reqId, tickType, price, attrib):
        self.report("tickPrice", reqId, tickType, price, is_set(attrib, "canAutoExecute"))

    def tickSize(self, reqId, tickType, size):
        self.report("tickSize", reqId, tickType, float(size))

    def tickString(self, reqId, tickType, value):
        self.report("tickString", reqId, tickType, value)

    def tickGeneric(self, reqId, tickType, value):
        self.report("tickGeneric", reqId, tickType, value)

    def tickSnapshotEnd(self, reqId):
        self.report("tickSnapshotEnd", reqId)

    def tickOptionComputation(self, reqId, tickType, *values):
        self.report("tickOptionComputation", reqId, tickType, *values[-8:])

    def tickByTickAllLast(self, reqId, tickType, time, price, size, tickAttribLast, exchange, specialConditions):
        unreported = is_set(tickAttribLast, "unreported")
        values = (reqId, tickType, time, price, float(size), unreported, exchange, specialConditions)
        self.report("tickByTickAllLast", *values, goal=f"tickByTickAllLast {reqId}")

    def tickByTickBidAsk(self, reqId, time, bidPrice, askPrice, bidSize, askSize, tickAttribBidAsk):
        self.report("tickByTickBidAsk", reqId, time, bidPrice, askPrice, float(bidSize), float(askSize))

    def tickByTickMidPoint(self, reqId, time, midPoint):
        self.report("tickByTickMidPoint", reqId, time, midPoint)

    def updateMktDepth(self, reqId, position, operation, side, price, size):
        self.report("updateMktDepth", reqId, position, operation, side, price, float(size))

    def updateMktDepthL2(self, reqId, position, marketMaker, operation, side, price, size, isSmartDepth):
        values = (reqId, position, marketMaker, operation, side, price, float(size), bool(isSmartDepth))
        self.report("updateMktDepthL2", *values)

    def realtimeBar(self, reqId, time, open_, high, low, close, volume, wap, count):
        self.report("realtimeBar", reqId, time, open_, high, low, close, float(volume), float(wap), count)

    def historicalData(self, reqId, bar):
        self.report("historicalData", reqId, *bar_values(bar))

    def historicalDataUpdate(self, reqId, bar):
        self.report("historicalDataUpdate", reqId, *bar_values(bar))

    def historicalDataEnd(self, reqId, start, end):
        self.report("historicalDataEnd", reqId, start, end)

    def historicalTicks(self, reqId, ticks, done):
        self.report("historicalTicks", reqId, [[t.time, t.price, float(t.size)] for t in ticks], done)

    def historicalTicksBidAsk(self, reqId, ticks, done):
        rows = [[t.time, t.priceBid, t.priceAsk, float(t.sizeBid), float(t.sizeAsk)] for t in ticks]
        self.report("historicalTicksBidAsk", reqId, rows, done)

    def historicalTicksLast(self, reqId, ticks, done):
        rows = [
            [t.time, t.price, float(t.size), is_set(t.tickAttribLast, "unreported"), t.exchange, t.specialConditions]
            for t in ticks
        ]
        self.report("historicalTicksLast", reqId, rows, done)


def main() -> int:
    session = Session()
    session.connect("127.0.0.1", int(sys.argv[1]), 7)
    threading.Thread(target=session.run, daemon=True).start()
    session.complete.wait(TIMEOUT_S)
    for report in session.reports[:]:
        print(json.dumps(report))
    missing = {goal: least for goal, least in GOALS.items() if session.counts[goal] < least}
    if missing:
        print(f"missing: {missing} of {dict(session.counts)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return len(missing)


if __name__ == "__main__":
    # The client's own way of disconnecting races with its two threads.
    os._exit(main())
