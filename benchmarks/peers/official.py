"""IB's own client, `ibapi`, by its own way from bytes to callbacks: EReader, the message queue, EClient.run, Decoder.

Reader and message loop run one after the other in one thread, which saves the client what its two threads lose to each
other over the interpreter's lock.
"""

from __future__ import annotations

from typing import Any

from ibapi.client import EClient
from ibapi.decoder import Decoder
from ibapi.reader import EReader
from ibapi.wrapper import EWrapper
from worker import Events, serve


class Stream:
    """In the place of the client's connection: reads from memory, and is closed at its end."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = len(chunks)

    def isConnected(self) -> bool:  # noqa: N802 - the official names
        return self._left > 0

    def recvMsg(self) -> bytes:  # noqa: N802
        self._left -= 1
        return next(self._chunks)

    def disconnect(self) -> None:
        self._left = 0


def _ignore(self: Any, *args: Any) -> None:
    pass


USED = (
    "tickPrice",
    "tickSize",
    "tickGeneric",
    "tickString",
    "tickByTickAllLast",
    "tickByTickBidAsk",
    "connectionClosed",
)
RAW = ("tickPriceProtoBuf", "tickSizeProtoBuf", "tickGenericProtoBuf", "tickStringProtoBuf", "tickByTickDataProtoBuf")
Ignorer = type("Ignorer", (EWrapper,), dict.fromkeys(USED + RAW, _ignore))
"""Nothing behind any callback. (What EWrapper itself does there costs more than the decoding.)"""


class Recorder(Ignorer):  # type: ignore[misc, valid-type]
    """Reports to `events`."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events

    def tickPrice(self, reqId, tickType, price, attrib):  # noqa: N802, N803
        mask = attrib.canAutoExecute | attrib.pastLimit << 1 | attrib.preOpen << 2
        self.events.price(reqId, tickType, price, mask)

    def tickSize(self, reqId, tickType, size):  # noqa: N802, N803
        self.events.size(reqId, tickType, float(size))

    def tickGeneric(self, reqId, tickType, value):  # noqa: N802, N803
        self.events.generic(reqId, tickType, value)

    def tickString(self, reqId, tickType, value):  # noqa: N802, N803
        self.events.string(reqId, tickType, value)

    def tickByTickAllLast(self, reqId, tickType, time, price, size, attrib, exchange, conditions):  # noqa: N802, N803
        mask = attrib.pastLimit | attrib.unreported << 1
        self.events.last(reqId, tickType, time, price, float(size), mask, exchange, conditions)

    def tickByTickBidAsk(self, reqId, time, bid, ask, bid_size, ask_size, attrib):  # noqa: N802, N803
        mask = attrib.bidPastLow | attrib.askPastHigh << 1
        self.events.bid_ask(reqId, time, bid, ask, float(bid_size), float(ask_size), mask)


class Official:
    """A client on a stream in memory."""

    read_nbytes = 4096  # what the client itself asks the socket for

    def __init__(self, server_version: int) -> None:
        self._server_version = server_version

    def _take_in(self, chunks: list[bytes], wrapper: EWrapper) -> None:
        client = EClient(wrapper)
        client.conn = Stream(chunks)
        client.serverVersion_ = self._server_version
        client.decoder = Decoder(wrapper, self._server_version)
        client.setConnState(EClient.CONNECTED)
        EReader(client.conn, client.msg_queue).run()
        client.run()

    def run(self, chunks: list[bytes]) -> None:
        self._take_in(chunks, Ignorer())

    def verify(self, chunks: list[bytes], events: Events) -> None:
        self._take_in(chunks, Recorder(events))


if __name__ == "__main__":
    serve(Official)
