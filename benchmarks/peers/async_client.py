"""ib_async by its own way from bytes to callbacks: Client._onSocketHasData and its Decoder, nothing behind them."""

from __future__ import annotations

from ib_async.client import Client
from worker import Events, serve


class Ignorer:
    """Nothing behind any callback."""

    def priceSizeTick(self, *args):  # noqa: N802 - the client's names
        pass

    tickSize = tickGeneric = tickString = tickByTickAllLast = tickByTickBidAsk = priceSizeTick  # noqa: N815


class Recorder:
    """Reports to `events`. This client drops the attributes of a price."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.tickSize = events.size
        self.tickGeneric = events.generic
        self.tickString = events.string

    def priceSizeTick(self, req_id, tick_type, price, size):  # noqa: N802
        self.events.price_and_size(req_id, tick_type, price, size, 0)

    def tickByTickAllLast(self, req_id, tick_type, time, price, size, attrib, exchange, conditions):  # noqa: N802
        mask = attrib.pastLimit | attrib.unreported << 1
        self.events.last(req_id, tick_type, time, price, size, mask, exchange, conditions)

    def tickByTickBidAsk(self, req_id, time, bid, ask, bid_size, ask_size, attrib):  # noqa: N802
        mask = attrib.bidPastLow | attrib.askPastHigh << 1
        self.events.bid_ask(req_id, time, bid, ask, bid_size, ask_size, mask)


class Async:
    """A client on a stream in memory."""

    read_nbytes = 4096  # as the official client; larger reads cost this one more, since it cuts each message off

    def __init__(self, server_version: int) -> None:
        self._server_version = server_version

    def _take_in(self, chunks: list[bytes], wrapper: object) -> None:
        client = Client(wrapper)
        client._serverVersion = client.decoder.serverVersion = self._server_version
        client._apiReady = True
        client.connState = Client.CONNECTED
        for chunk in chunks:
            client._onSocketHasData(chunk)

    def run(self, chunks: list[bytes]) -> None:
        self._take_in(chunks, Ignorer())

    def verify(self, chunks: list[bytes], events: Events) -> None:
        self._take_in(chunks, Recorder(events))


if __name__ == "__main__":
    serve(Async)
