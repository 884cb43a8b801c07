"""A source of data for the fan-out that a test has in its hand: real feed, decoder and streams, and no gateway."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ibfast import Decoder, Feed
from ibfast.connection.stream import Stream, Wanted, wanted
from ibfast.contracts import ComboLeg, Contract
from ibfast.errors import RequestError
from ibfast.policy.subscription import Subscription, SubscriptionState
from ibfast.wire.requests import MarketDepth
from tests.support.streams import MARKET_DEPTH, TICK_PRICE, TICK_STRING, framed, text_payload

VERSION = 176
CON_IDS = {symbol: con_id for con_id, symbol in enumerate(("AAPL", "MSFT", "NVDA", "IBM"), 1)}
BID, ASK, LAST = 1, 2, 4


def contract_of(symbol: str, exchange: str = "SMART") -> Contract:
    """A stock of the desk, as the gateway knows it."""
    return Contract(CON_IDS[symbol], symbol, "STK", exchange=exchange, currency="USD")


def no_fault(place: str, error: Exception) -> None:
    """Let a fault fail the test."""
    raise error


class Desk:
    """What a connection manager is to the fan-out.

    Attributes:
        asked: contracts and data types, as they were asked for.
        cancelled: symbols of the lines that were given up.
        answer: while it is not set, nothing is answered.
        error: raised by what is asked for next.
    """

    def __init__(self, capacity: int = 1 << 12, **options: Any) -> None:
        self.feed = Feed(capacity, **{"max_instruments": 64, "max_texts": 64} | options)
        self.asked: list[tuple[str, str]] = []
        self.cancelled: list[str] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self.error: Exception | None = None
        self.lines: dict[Any, tuple[Subscription, list[Stream]]] = {}
        self._decoder = Decoder(self.feed, server_version=VERSION)

    async def wanted(self, contract: object, data_type: str, **options: Any) -> tuple[Contract, Wanted]:
        description = Contract.of(contract)
        if description.sec_type == "BAG":
            return description, wanted(description, data_type)
        con_id = description.con_id or CON_IDS.get(description.symbol)
        symbol = next((symbol for symbol, other in CON_IDS.items() if other == con_id), None)
        if con_id is None or symbol is None:
            raise RequestError(1, 200, "No security definition has been found")
        qualified = contract_of(symbol, description.exchange or "SMART")
        return qualified, wanted(qualified, data_type)

    async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Stream:
        self.asked.append((Contract.of(contract).symbol, data_type))
        await self.answer.wait()
        if self.error is not None:
            raise self.error
        qualified, want = await self.wanted(contract, data_type)
        if want.request not in self.lines:
            subscription = Subscription(want.request, self.feed.instrument_of(qualified, qualified.symbol))
            self.lines[want.request] = subscription, []
            self.open_request(subscription)
        subscription, streams = self.lines[want.request]
        streams.append(Stream(qualified, subscription, self.feed, want, self._release, lambda recv_ns: None))
        return streams[-1]

    def open_request(self, subscription: Subscription) -> None:
        """Serve a subscription by a new request, as after a reconnect."""
        subscription.req_id = self.feed.next_req_id()
        subscription.req_ids[subscription.req_id] = self.feed.seq
        subscription.state = SubscriptionState.LIVE
        self.feed.bind(subscription.req_id, subscription.instrument)

    def free_unused(self, symbol: str) -> None:
        """Have the feed free the indices of what nobody subscribes to, once the rings have rows of a symbol only.

        Of that one there are trades, quotes and a book; and the feed's `keep_instrument_s` is next to nothing.
        """
        served = {line[0].req_id for line in self.lines.values()}
        self.feed.forget_requests(set(range(1, self.feed.core.last_req_id + 1)) - served)
        for n in range(self.feed.ticks.capacity):
            self.trade(symbol, 1.0)
            self.quote(symbol, 1.0 + n, 2.0 + n)
            self.book(symbol, (0, 1, 0, 1.0, 1.0))
        for _ in range(2):
            time.sleep(0.001)
            self.feed.free_unused()

    def _release(self, stream: Stream) -> None:
        request = stream.subscription.request
        streams = self.lines[request][1]
        streams.remove(stream)
        if not streams:
            del self.lines[request]
            self.cancelled.append(request.contract.symbol)

    def subscription(self, symbol: str, exchange: str = "", legs: tuple[ComboLeg, ...] = ()) -> Subscription:
        return next(
            line[0]
            for request, line in self.lines.items()
            if (request.contract.symbol, request.contract.combo_legs) == (symbol, legs)
            and exchange in ("", request.contract.exchange)
        )

    def tick(self, symbol: str, *prices: tuple[int, float, float], recv_ns: int = 0, **which: Any) -> None:
        """Have one read of the socket bring level-1 prices: type, price and size."""
        req_id = self.subscription(symbol, **which).req_id
        payloads = (text_payload(VERSION, TICK_PRICE, 6, req_id, kind, price, size, 0) for kind, price, size in prices)
        self._decoder.feed_bytes(framed(*payloads), recv_ns or time.time_ns())

    def text(self, symbol: str, text: str) -> None:
        """Have a text come, as a tick of exchanges does."""
        req_id = self.subscription(symbol).req_id
        self._decoder.feed_bytes(framed(text_payload(VERSION, TICK_STRING, 6, req_id, 32, text)), time.time_ns())

    def trade(self, symbol: str, *prices: float, recv_ns: int = 0, **which: Any) -> None:
        self.tick(symbol, *((LAST, price, 100.0) for price in prices), recv_ns=recv_ns, **which)

    def foreign_trade(self, symbol: str, price: float) -> None:
        """Have another request of this process, which no subscriber wanted, bring a trade of the instrument."""
        subscription = self.subscription(symbol)
        own = subscription.req_id
        subscription.req_id = self.feed.next_req_id()
        self.feed.bind(subscription.req_id, subscription.instrument)
        self.trade(symbol, price)
        subscription.req_id = own

    def book(self, symbol: str, *operations: tuple[int, int, int, float, float], exchange: str = "") -> None:
        """Have one read of the socket change the book: position, operation, side, price and size."""
        req_id = self.book_subscription(symbol, exchange).req_id
        payloads = (text_payload(VERSION, MARKET_DEPTH, 1, req_id, *operation) for operation in operations)
        self._decoder.feed_bytes(framed(*payloads), time.time_ns())

    def reset_book(self, symbol: str) -> None:
        """Have the book begin anew, as after a reconnect."""
        self.feed.add_book_reset(time.time_ns(), self.book_subscription(symbol).req_id)

    def book_subscription(self, symbol: str, exchange: str = "") -> Subscription:
        return next(
            line[0]
            for request, line in self.lines.items()
            if request.contract.symbol == symbol
            and exchange in ("", request.contract.exchange)
            and isinstance(request, MarketDepth)
        )

    def quote(self, symbol: str, bid: float, ask: float) -> None:
        self.tick(symbol, (BID, bid, 100.0), (ASK, ask, 200.0))
