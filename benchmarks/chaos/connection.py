"""One client of a gateway: its socket, its requests, and the ticks that it is sent.

The rule of the file: it answers every request of ibfast, in every server version, and writes down every tick before the
bytes leave. How it goes wrong is decided in `trouble`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from benchmarks.chaos.market import Series, SubscriptionRequest, details_of, series_of
from benchmarks.chaos.rules import RATIONED
from ibfast.contracts import Contract
from ibfast.sim.codec import UnknownRequest, decode_request, encode
from ibfast.sim.pacing import Refusal, RequestRate
from ibfast.wire import requests, responses
from ibfast.wire.ids import ServerVersion
from ibfast.wire.requests import HistoricalBars, HistoricalTicksRequest, Request
from ibfast.wire.responses import ErrorMessage

if TYPE_CHECKING:
    from benchmarks.chaos.gateway import Gateway

LENGTH_BYTES = 4
HELLO_BYTES = 4
SUBSCRIPTIONS = (requests.MarketData, requests.TickByTick, requests.MarketDepth, requests.RealTimeBars)
CANCELS = (
    requests.CancelMarketData,
    requests.CancelTickByTick,
    requests.CancelMarketDepth,
    requests.CancelRealTimeBars,
    requests.CancelHistoricalBars,
    requests.CancelHistoricalTicks,
    requests.CancelHeadTimestamp,
    requests.CancelContractDetails,
)
UNKNOWN_ID = {requests.CancelMarketDepth: 310, requests.CancelHistoricalBars: 366}
CLOCK_PAUSE_S = 1.0
EXCUSED_S = 2.0
"""After the gateway stood still, or has said that requests were not taken, nearness and repetition are no offence."""

TCP_ESTABLISHED = 1
"""The first byte of TCP_INFO, as Linux numbers the states."""


@dataclass(eq=False, slots=True)
class Asked:
    """A request that a client has made, and what became of it.

    Attributes:
        connection, request: by whom, and what.
        asked_s: when it was read.
        sent: by number of its series, when that tick was sent.
        is_live: whether the gateway sends it ticks.
        is_mute: live, but forgotten: nothing is sent, and nobody was told.
        over_s: when the client gave it up: its cancel, its successor, or the end of the connection.
    """

    connection: Connection
    request: Any
    asked_s: float
    sent: dict[int, float] = field(default_factory=dict)
    is_live: bool = True
    is_mute: bool = False
    over_s: float | None = None

    @property
    def what(self) -> Request:
        """The request without its id: what the same subscription asks every time."""
        return cast(Request, replace(self.request, req_id=0))

    @property
    def series(self) -> Series:
        """What it brings."""
        return series_of(self.request)


class Connection(asyncio.Protocol):
    """One client, from its first byte on.

    Attributes:
        number: counted from 1 over all connections of the gateway.
        version: the server version that it is given.
        client_id: None until it has started the API.
        live: requests that are sent ticks, by id.
        bytes_per_beat: a slow network; None: a fast one.
        is_held: nothing leaves; is_deaf: nothing is read; is_half_closed: nothing can be written any more.
    """

    def __init__(self, gateway: Gateway, number: int, version: int) -> None:
        self.number = number
        self.version = version
        self.client_id: int | None = None
        self.live: dict[int, Asked] = {}
        self.bytes_per_beat: int | None = None
        self.is_held = False
        self.is_deaf = False
        self.is_half_closed = False
        self.is_open = False
        self._gateway = gateway
        self._leaving: list[tuple[Asked, int]] = []
        self._market_data_type = 1
        self._rate = RequestRate(gateway.lines)
        self._in = bytearray()
        self._out = bytearray()
        self._greeted = False
        self._clock_asked_s = -CLOCK_PAUSE_S
        self._excused_s = -EXCUSED_S
        self._cancelled: set[int] = set()

    # --- the socket ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True
        self._gateway.connections.append(self)
        self._gateway.note(f"{self.number} is open, server version {self.version}")
        if self._gateway.is_refusing:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._gateway.note(f"{self.number} is closed")
        if self in self._gateway.connections:
            self._gateway.connections.remove(self)
        for asked in tuple(self.live.values()):
            self.end(asked)
            asked.over_s = time.monotonic()

    def eof_received(self) -> bool:
        return False

    def abort(self) -> None:
        """Drop the client."""
        self._transport.abort()

    def close(self) -> None:
        """Write what waits, and close."""
        self.flush()
        self._transport.close()

    def half_close(self) -> None:
        """End this direction only."""
        if self.is_open and self._transport.can_write_eof():
            self.is_half_closed = True
            try:
                self._transport.write_eof()
            except OSError:  # the client has reset the connection
                self.abort()

    def stop_reading(self) -> None:
        """Leave what the client sends in the network."""
        self.is_deaf = True
        if self.is_open:
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read and write as a healthy gateway does. What a client that has left had still to be read is lost."""
        if self.is_deaf and self._has_client_left():
            self.abort()
        self.bytes_per_beat = None
        self.is_held = self.is_deaf = False
        self._excused_s = time.monotonic()
        if self.is_open and not self._transport.is_closing():
            self._transport.resume_reading()
        self.flush()

    def _has_client_left(self) -> bool:
        """Tell whether the client has closed or reset the connection, though what it sent is still to be read."""
        if not self.is_open or self._transport.is_closing():
            return False
        sock = self._transport.get_extra_info("socket")
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED)

    def excuse(self) -> None:
        """Count no offence for a while: the gateway itself stood still."""
        self._excused_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        if self._gateway.is_speechless:
            return
        self._in += data
        while self.is_open and not self._transport.is_closing() and self._read():
            pass
        self.flush()

    def send(self, *messages: Any) -> None:
        """Queue messages for the next flush."""
        for message in messages:
            payload = encode(message, self.version)
            self._out += len(payload).to_bytes(LENGTH_BYTES, "big") + payload

    def say(self, req_id: int, code: int, text: str) -> None:
        """Queue a notice."""
        if self._greeted:
            self._gateway.note(f"{self.number} ◀ {code} of {req_id}: {text}")
            self._gateway.notices.append((req_id, code))
            self.send(ErrorMessage(req_id, code, text))
            if code == 100:
                self.excuse()

    def flush(self) -> None:
        """Write what the network takes."""
        if self.is_held or self.is_half_closed or not self._out or not self.is_open or self._transport.is_closing():
            return
        most = len(self._out) if self.bytes_per_beat is None else self.bytes_per_beat
        self._transport.write(bytes(self._out[:most]))
        del self._out[:most]

    # --- ticks ---

    def deliver(self, going: set[Series]) -> None:
        """Queue a tick for every live request of these series, and for some that were cancelled just before."""
        leaving, self._leaving = self._leaving, []
        for asked, left in leaving:
            self.tick(asked)
            if left > 1:
                self._leaving.append((asked, left - 1))
        if self._gateway.muted:
            return
        for asked in self.live.values():
            if asked.series in going and not asked.is_mute:
                self.tick(asked)

    def tick(self, asked: Asked) -> None:
        """Queue the newest number of a request's series, unless it was sent already."""
        number = self._gateway.market.number(asked.series)
        if number and number not in asked.sent:
            asked.sent[number] = time.monotonic()
            self._gateway.ticks += 1
            self.send(*self._gateway.market.ticks(asked.request, number, int(time.time()), self._market_data_type))

    def end(self, asked: Asked) -> None:
        """Send a request no more ticks, and give its line back."""
        if self.live.pop(asked.request.req_id, None) is not None:
            asked.is_live = False
            self._gateway.account.give_back(asked.request)

    # --- requests ---

    def _read(self) -> bool:
        """Take one frame out of what was received, if there is a whole one."""
        start = 0 if self._greeted else HELLO_BYTES
        head = start + LENGTH_BYTES
        if len(self._in) < head:
            return False
        length = int.from_bytes(self._in[start:head], "big")
        if len(self._in) < head + length:
            return False
        payload = bytes(self._in[head : head + length])
        del self._in[: head + length]
        if not self._greeted:
            self._greeted = True
            reply = f"{self.version}\0{datetime.fromtimestamp(time.time(), UTC):%Y%m%d %H:%M:%S} GMT\0".encode()
            self._out += len(reply).to_bytes(LENGTH_BYTES, "big") + reply
        else:
            self._take(decode_request(payload, self.version))
        return True

    def _take(self, request: Request | UnknownRequest) -> None:
        gateway = self._gateway
        gateway.requests += 1
        gateway.note(f"{self.number} ▶ {request}")
        if isinstance(request, requests.StartApi):
            self._start(request)
            return
        now_s = time.monotonic()
        refusal = self._rate.request(now_s)
        if refusal is not None:
            self._refuse(-1, refusal, request)
            if refusal.ends_session:
                self.close()
            return
        if isinstance(request, CANCELS):
            self._cancel(request)
        elif isinstance(request, SUBSCRIPTIONS) or (isinstance(request, HistoricalBars) and request.keep_up_to_date):
            self._subscribe(request)
        else:
            self._answer(request)

    def _start(self, request: requests.StartApi) -> None:
        others = {other.client_id for other in self._gateway.connections}
        if request.client_id in others | self._gateway.used_ids:
            self.say(-1, 326, "Unable to connect as the client id is already in use.")
            self.close()
            return
        self.client_id = request.client_id
        self.send(responses.ManagedAccounts((self._gateway.account_id,)), responses.NextValidId(1))
        is_broken = "farm" in self._gateway.told
        self.say(
            -1, 2103 if is_broken else 2104, f"Market data farm connection is {'broken' if is_broken else 'OK'}:usfarm"
        )
        if "link" in self._gateway.told:
            self.say(-1, 1100, "Connectivity between IB and Trader Workstation has been lost.")

    def _refuse(self, req_id: int, refusal: Refusal, request: object) -> None:
        # What a client whose end was not noticed has left open is not the fault of the one that came after it.
        is_haunted = any(other.is_deaf for other in self._gateway.connections)
        if time.monotonic() - self._excused_s > EXCUSED_S and not is_haunted:
            self._gateway.offend(refusal.rule, request)
        self.say(req_id, refusal.code, refusal.message)

    def _subscribe(self, request: SubscriptionRequest) -> None:
        gateway, now_s = self._gateway, time.monotonic()
        if request.req_id in self.live:
            gateway.offend("duplicate id", request)
            self.say(request.req_id, 102, "Duplicate ticker id")
            return
        asked = Asked(self, request, now_s)
        self._succeed(asked)
        gateway.asked[request.req_id] = asked
        code, really = gateway.fates.popleft() if gateway.fates else (0, False)
        refusal = None if code and really else gateway.account.take(request, now_s)
        if refusal is not None:
            asked.is_live = False
            self._refuse(request.req_id, refusal, request)
            return
        if code and really:
            asked.is_live = False
        else:
            self.live[request.req_id] = asked
            if isinstance(request, HistoricalBars):
                self._answer_bars(request)
        if code:
            self.say(request.req_id, code, "it is refused")
        elif "session" in gateway.told:
            self.say(request.req_id, 10197, "No market data during competing live session")

    def _succeed(self, asked: Asked) -> None:
        """Note which requests this one replaces: at one connection the client must have cancelled them first.

        A gateway that was deaf reads requests of a connection that is gone after those of its successor.
        """
        for other in self._gateway.asked.values():
            if other.over_s is None and other.what == asked.what and other.request.req_id < asked.request.req_id:
                other.over_s = asked.asked_s
                if other.is_live and other.connection is self:
                    self._gateway.offend(
                        "two live requests of one subscription", f"{other.request.req_id}, {asked.request}"
                    )

    def _cancel(self, request: Any) -> None:
        gateway, asked = self._gateway, self._gateway.asked.get(request.req_id)
        if asked is None or asked.connection is not self:
            gateway.offend("cancel of an unknown id", request)
            self.say(request.req_id, UNKNOWN_ID.get(type(request), 300), "Can't find EId")
            return
        if request.req_id in self._cancelled and time.monotonic() - self._excused_s > EXCUSED_S:
            gateway.offend("a second cancel", request)
        self._cancelled.add(request.req_id)
        asked.over_s = asked.over_s or time.monotonic()
        if not asked.is_live:
            self.say(request.req_id, UNKNOWN_ID.get(type(request), 300), "Can't find EId")
        elif request.req_id in self.live:
            self.end(asked)
            if gateway.late_ticks:
                self._leaving.append((asked, gateway.late_ticks))
        else:
            asked.is_live = False  # a question that is not answered yet
            gateway.account.give_back(asked.request)

    def _answer(self, request: Any) -> None:
        """Answer a question."""
        gateway = self._gateway
        if isinstance(request, RATIONED):
            asked = gateway.asked[request.req_id] = Asked(self, request, time.monotonic())
            refusal = gateway.account.take(request, asked.asked_s)
            if refusal is not None:
                asked.is_live = False
                self._refuse(request.req_id, refusal, request)
                return
            self._answer_history(asked)
            return
        match request:
            case requests.CurrentTimeRequest():
                now_s = time.monotonic()
                if now_s - self._clock_asked_s < CLOCK_PAUSE_S:
                    if now_s - self._excused_s > EXCUSED_S:
                        gateway.offend("reqCurrentTime more than once a second", request)
                    return
                self._clock_asked_s = now_s
                gateway.answer(self, responses.CurrentTime(int(time.time())), needs_ib=False)
            case requests.CurrentTimeInMillisRequest():
                gateway.answer(self, responses.CurrentTimeInMillis(int(time.time() * 1000)), needs_ib=False)
            case requests.ContractDetailsRequest(req_id=req_id, contract=contract):
                gateway.asked[req_id] = Asked(self, request, time.monotonic(), is_live=False)
                self._answer_contract(req_id, contract)
            case requests.MatchingSymbols(req_id=req_id):
                gateway.answer(self, responses.SymbolSamples(req_id, ()))
            case requests.MarketDataTypeRequest(market_data_type=kind):
                self._market_data_type = int(kind)
            case requests.OpenOrdersRequest():
                gateway.answer(self, responses.OpenOrderEnd())
            case requests.ManagedAccountsRequest():
                gateway.answer(self, responses.ManagedAccounts((gateway.account_id,)))
            case requests.IdsRequest():
                gateway.answer(self, responses.NextValidId(1))
            case requests.SetServerLogLevel():
                pass
            case _:
                gateway.offend("a request that is unknown", request)

    def _answer_contract(self, req_id: int, description: Contract) -> None:
        details = details_of(description)
        if details is None:
            self._gateway.answer(self, ErrorMessage(req_id, 200, "No security definition has been found"))
        else:
            end = responses.ContractDataEnd(req_id)
            self._gateway.answer(self, responses.ContractData(req_id, details), end)

    def _answer_bars(self, request: HistoricalBars) -> None:
        answer: list[Any] = [responses.HistoricalData(request.req_id, self._gateway.market.bars())]
        if self.version >= ServerVersion.HISTORICAL_DATA_END:
            answer.append(responses.HistoricalDataEnd(request.req_id, "", ""))
        self._gateway.answer(self, *answer)

    def _answer_history(self, asked: Asked) -> None:
        request = asked.request
        asked.is_live = False
        self._gateway.account.give_back(request)
        match request:
            case HistoricalBars():
                self._answer_bars(request)
            case HistoricalTicksRequest():
                start_s = _epoch_s(request.start) if request.start else 0
                end_s = _epoch_s(request.end) if request.end else 1 << 40
                ticks = self._gateway.market.history(request, start_s, end_s)
                self._gateway.answer(self, responses.HistoricalTicks(request.req_id, ticks, True))
            case requests.HeadTimestampRequest():
                self._gateway.answer(self, responses.HeadTimestamp(request.req_id, "1700000000"))


def _epoch_s(text: str) -> int:
    return int(datetime.strptime(text, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC).timestamp())
