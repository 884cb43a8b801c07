"""How a gateway serves the requests of one client.

The rule of the file: one method per kind of request; a refusal is an error message and no more. What a request holds
(a stream, a market-data line) stands in `holdings`. The faults decide what goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import partial

from ibfast.contracts import Contract
from ibfast.errors import RequestError, UnsupportedError
from ibfast.records import NS_PER_S
from ibfast.sim import history
from ibfast.sim.bars import BarBuilder, HistoricalUpdateStream, RealTimeBarStream
from ibfast.sim.codec import DatedBars, UnknownRequest
from ibfast.sim.generic_ticks import parse_generic_ticks
from ibfast.sim.holdings import Holdings
from ibfast.sim.instruments import Instrument
from ibfast.sim.option_stream import OptionStream
from ibfast.sim.pacing import ClockRate, Refusal
from ibfast.sim.services import Client, Services
from ibfast.sim.streams import DepthStream, Level1Stream, TickByTickStream
from ibfast.sim.subscription import Family, GatewaySubscription
from ibfast.wire import requests, responses
from ibfast.wire.ids import MarketDataType, ServerVersion
from ibfast.wire.records import Records

__all__ = ["Desk"]

_NO_SECURITY, _UNKNOWN_ID, _UNKNOWN_DEPTH, _VALIDATION, _DUPLICATE_ID = 200, 300, 310, 321, 322
_NOT_SUBSCRIBED, _NO_HISTORY, _NO_DEEP_DATA, _DELAYED_SHOWN, _NO_TICK_BY_TICK = 354, 366, 10092, 10167, 10189
_HISTORICAL, _REAL_TIME_BARS_REFUSED, _DISCONNECTED = 162, 420, 10182

_BBO_EXCHANGE, _SNAPSHOT_PERMISSIONS, _PRECISION = "9c0001", 4, 0.000001
_MARKET_MAKERS = ("NSDQ", "ARCX", "BATS", "EDGX", "MEMX", "IEXG")
_DELAYED_TYPES = (MarketDataType.DELAYED, MarketDataType.DELAYED_FROZEN)
_TICK_BY_TICK = {"Last": "trades", "AllLast": "trades", "BidAsk": "quotes", "MidPoint": "quotes"}
_MOST_ROWS = 20
_REAL_TIME_BARS = ("TRADES", "MIDPOINT", "BID", "ASK")
_UNKNOWN_TEXTS = {
    _UNKNOWN_ID: "Can't find EId with tickerId",
    _UNKNOWN_DEPTH: "Can't find the subscribed market depth with tickerId",
    _NO_HISTORY: "No historical data query found for ticker id",
}
_HEAD_S = 1_262_615_400
"""The earliest data of everything: 4 January 2010, 9:30 in New York."""
_ZONE_NAMED_SINCE = 177
"""Gateways of some version in 174–200 began to name the zone in bar times; captures show 173 without, 200 with it."""


_History = requests.HistoricalBars | requests.HistoricalTicksRequest | requests.HeadTimestampRequest
_Limited = requests.MarketData | requests.TickByTick | requests.MarketDepth | requests.RealTimeBars | _History
WriteDate = Callable[[int], str]


class Desk:
    """Serves the requests of one session."""

    def __init__(self, gateway: Services, session: Client) -> None:
        self._gateway = gateway
        self._session = session
        self._send = session.send
        self._market_data_type = int(MarketDataType.REALTIME)
        self._clock_rate = ClockRate()
        self._holdings = Holdings(gateway)
        self._postponed: list[requests.Request | UnknownRequest] = []
        self._handlers: dict[type, Callable[..., None]] = {
            requests.MarketData: self._market_data,
            requests.CancelMarketData: lambda r: self._cancel(Family.LEVEL_1, r.req_id, _UNKNOWN_ID),
            requests.MarketDataTypeRequest: self._set_market_data_type,
            requests.TickByTick: self._tick_by_tick,
            requests.CancelTickByTick: lambda r: self._cancel(Family.TICK_BY_TICK, r.req_id, _UNKNOWN_ID),
            requests.MarketDepth: self._market_depth,
            requests.CancelMarketDepth: lambda r: self._cancel(Family.DEPTH, r.req_id, _UNKNOWN_DEPTH),
            requests.RealTimeBars: self._real_time_bars,
            requests.CancelRealTimeBars: lambda r: self._cancel(Family.BARS, r.req_id, _UNKNOWN_ID),
            requests.HistoricalBars: self._historical_bars,
            requests.CancelHistoricalBars: lambda r: self._cancel(Family.HISTORY, r.req_id, _NO_HISTORY),
            requests.HistoricalTicksRequest: self._historical_ticks,
            requests.CancelHistoricalTicks: lambda r: self._cancel(Family.HISTORY, r.req_id, _NO_HISTORY),
            requests.HeadTimestampRequest: self._head_timestamp,
            requests.CurrentTimeRequest: self._current_time,
            requests.CurrentTimeInMillisRequest: self._current_time,
        }

    @property
    def subscriptions(self) -> Iterable[GatewaySubscription]:
        """The open subscriptions."""
        return self._holdings.subscriptions

    def handle(self, request: requests.Request | UnknownRequest) -> None:
        """Answer a request; what the gateway, or its server version, does not know stays unanswered.

        Raises:
            DecodeError: the request is malformed.
        """
        try:
            self._gateway.faults.check(request)
            if self._gateway.faults.postpones(request):
                self._postponed.append(request)
            else:
                self._handlers.get(type(request), self._answer)(request)
        except RequestError as error:
            self._session.send_error(error.req_id, error.code, error.message)
        except UnsupportedError:
            return

    def serve_postponed(self) -> None:
        """Handle what was asked while it could not be served."""
        postponed, self._postponed = self._postponed, []
        for request in postponed:
            self.handle(request)

    def kill(self, req_id: int) -> None:
        """End the subscriptions of a request id as by a failure behind the gateway."""
        for subscription in self.subscriptions:
            if subscription.req_id == req_id:
                self._session.send_error(req_id, _DISCONNECTED, "Failed to request live updates (disconnected).")
                self._holdings.end(subscription.family, req_id)

    def close(self) -> None:
        """Give everything back."""
        self._holdings.close()

    def _market_data(self, request: requests.MarketData) -> None:
        req_id = request.req_id
        self._refuse_duplicate(Family.LEVEL_1, req_id)
        instrument = self._resolve(req_id, request.contract)
        if self._reroute(responses.RerouteMarketData, req_id, instrument):
            return
        generic_ticks = parse_generic_ticks(request)
        is_delayed = not instrument.permitted
        if is_delayed and self._market_data_type not in _DELAYED_TYPES:
            raise RequestError(
                req_id, _NOT_SUBSCRIBED, "Requested market data is not subscribed.Delayed market data is available."
            )
        if request.regulatory_snapshot:
            self._admit(request, partial(self._gateway.limits.take_regulatory_snapshot, self._gateway.wall_s()))
        if not (request.snapshot or request.regulatory_snapshot):
            self._admit(request, self._gateway.limits.open_line)
        data_type = self._market_data_type if is_delayed else MarketDataType.REALTIME
        self._describe(req_id, instrument)
        self._send(responses.MarketDataTypeMessage(req_id, int(data_type)))
        if is_delayed:
            text = "Requested market data is not subscribed. Displaying delayed market data."
            self._session.send_error(req_id, _DELAYED_SHOWN, text)
        channel = self._gateway.channel(instrument)
        subscription = self._subscription(Family.LEVEL_1, req_id, instrument)
        if instrument.expires_s:
            market = self._gateway.market
            stream: Level1Stream = OptionStream(subscription.send, req_id, channel, market, data_type, generic_ticks)
        else:
            stream = Level1Stream(subscription.send, req_id, channel, data_type, generic_ticks)
        stream.resume(self._gateway.clock.now_ns())
        if request.snapshot or request.regulatory_snapshot:
            self._send(responses.TickSnapshotEnd(req_id))
        else:
            self._holdings.begin(subscription, channel, stream, self._gateway.limits.close_line)

    def _describe(self, req_id: int, instrument: Instrument) -> None:
        is_forex = instrument.contract.sec_type == "CASH"
        self._send(
            responses.TickReqParams(
                req_id,
                instrument.min_tick,
                "" if is_forex else _BBO_EXCHANGE,
                0 if is_forex else _SNAPSHOT_PERMISSIONS,
                None if is_forex else _PRECISION,
                None if is_forex else _PRECISION,
            )
        )

    def _set_market_data_type(self, request: requests.MarketDataTypeRequest) -> None:
        if request.market_data_type not in list(MarketDataType):
            raise RequestError(-1, _VALIDATION, f"Invalid market data type {request.market_data_type}")
        self._market_data_type = request.market_data_type

    def _tick_by_tick(self, request: requests.TickByTick) -> None:
        req_id, tick_type = request.req_id, request.tick_type
        self._refuse_duplicate(Family.TICK_BY_TICK, req_id)
        instrument = self._resolve(req_id, request.contract)
        about = _TICK_BY_TICK.get(tick_type)
        if about is None:
            raise RequestError(req_id, _VALIDATION, f"Invalid tick-by-tick type {tick_type!r}")
        if not 0 <= request.number_of_ticks <= history.MOST_TICKS:
            raise RequestError(req_id, _VALIDATION, f"Invalid number of ticks {request.number_of_ticks}")
        own = instrument.contract
        if not (instrument.has_trades if about == "trades" else instrument.has_quotes):
            raise _no_tick_by_tick(req_id, f"{tick_type} requests are not supported for {own.local_symbol}.")
        if not instrument.permitted:
            raise _no_tick_by_tick(req_id, f"No market data permissions for {own.primary_exchange} {own.sec_type}.")
        limits = self._gateway.limits
        self._admit(request, partial(limits.open_tick_by_tick, instrument.con_id, self._gateway.wall_s()))
        channel = self._gateway.channel(instrument)
        subscription = self._subscription(Family.TICK_BY_TICK, req_id, instrument)
        if request.number_of_ticks:
            kind = {"BidAsk": "BID_ASK", "MidPoint": "MIDPOINT"}.get(tick_type, "TRADES")
            now_ns = self._gateway.clock.now_ns()
            ticks = history.last_ticks(self._gateway.market, instrument, kind, request.number_of_ticks, now_ns)
            subscription.send(responses.HistoricalTicks(req_id, ticks, done=True))
        stream = TickByTickStream(subscription.send, req_id, tick_type, ignore_size=request.ignore_size)
        self._holdings.begin(
            subscription, channel, stream, limits.close_tick_by_tick,
            quotes=about == "quotes", trades=about == "trades",
        )  # fmt: skip

    def _market_depth(self, request: requests.MarketDepth) -> None:
        req_id = request.req_id
        self._refuse_duplicate(Family.DEPTH, req_id)
        instrument = self._resolve(req_id, request.contract)
        if self._reroute(responses.RerouteMarketDepth, req_id, instrument):
            return
        is_stock = instrument.contract.sec_type == "STK"
        is_smart = request.is_smart_depth
        at_smart = request.contract.exchange in ("", "SMART")
        if not instrument.has_quotes or (is_stock and at_smart != is_smart):
            text = "Deep market data is not supported for this combination of security type/exchange"
            raise RequestError(req_id, _NO_DEEP_DATA, text)
        if not instrument.permitted:
            raise RequestError(req_id, _NOT_SUBSCRIBED, "Requested market data is not subscribed.")
        if request.num_rows < 1:
            raise RequestError(req_id, _VALIDATION, f"Invalid number of rows {request.num_rows}")
        limits = self._gateway.limits
        self._admit(request, limits.open_depth)
        makers: tuple[str, ...] = ()
        if is_smart:
            makers = tuple(instrument.details.valid_exchanges.split(",")[1:])
        elif is_stock:
            makers = _MARKET_MAKERS
        rows = min(request.num_rows, _MOST_ROWS)
        channel = self._gateway.channel(instrument)
        subscription = self._subscription(Family.DEPTH, req_id, instrument)
        stream = DepthStream(subscription.send, req_id, self._gateway.market, rows, makers, is_smart=is_smart)
        if channel.quote.ts_ns:
            stream.on_quote(channel.quote, channel.quote)
        self._holdings.begin(subscription, channel, stream, limits.close_depth, trades=False)

    def _real_time_bars(self, request: requests.RealTimeBars) -> None:
        req_id, what = request.req_id, request.what_to_show
        self._refuse_duplicate(Family.BARS, req_id)
        instrument = self._resolve(req_id, request.contract)
        if what not in _REAL_TIME_BARS:
            raise RequestError(req_id, _VALIDATION, f"Invalid what to show {what!r}")
        if not instrument.permitted:
            raise RequestError(req_id, _REAL_TIME_BARS_REFUSED, "Invalid Real-time Query:No market data permissions")
        limits = self._gateway.limits
        self._admit(request, partial(limits.open_real_time_bars, self._gateway.wall_s()))
        channel = self._gateway.channel(instrument)
        subscription = self._subscription(Family.BARS, req_id, instrument)
        builder = BarBuilder(what, channel.value(what))
        stream = RealTimeBarStream(subscription.send, req_id, builder, self._gateway.clock.now_ns())
        self._holdings.begin(subscription, channel, stream, limits.close_line)

    def _historical_bars(self, request: requests.HistoricalBars) -> None:
        req_id, what = request.req_id, request.what_to_show
        instrument = self._resolve_for_history(req_id, request.contract)
        if request.keep_up_to_date and (request.end or what not in _REAL_TIME_BARS):
            raise RequestError(
                req_id, _VALIDATION, "Keep up to date needs an empty end and trades, midpoint, bid or ask"
            )
        now_ns = self._gateway.clock.now_ns()
        window = history.bar_window(request, instrument, now_ns)
        source = (request.contract.con_id or instrument.con_id, request.contract.exchange, what)
        self._open_history(request, source, window.bar_s)
        bars = history.historical_bars(self._gateway.market, instrument, what, window)
        names_zone = self._session.server_version >= _ZONE_NAMED_SINCE

        def write_date(start_s: int) -> str:
            return history.write_date(start_s, window.bar_s, request.format_date, instrument, names_zone=names_zone)

        self._send_bars(req_id, bars, window, instrument, write_date)
        if not request.keep_up_to_date:
            self._gateway.limits.close_historical()
            return
        channel = self._gateway.channel(instrument)
        builder = BarBuilder(what, channel.value(what))
        start_s = now_ns // NS_PER_S // window.bar_s * window.bar_s
        if len(bars) and bars[-1]["event_ns"] == start_s * NS_PER_S:
            builder.resume(*bars[-1].item()[1:])
        subscription = self._subscription(Family.HISTORY, req_id, instrument)
        stream = HistoricalUpdateStream(subscription.send, req_id, builder, start_s, window.bar_s, write_date, now_ns)
        self._holdings.begin(subscription, channel, stream, self._gateway.limits.close_historical)

    def _historical_ticks(self, request: requests.HistoricalTicksRequest) -> None:
        req_id = request.req_id
        instrument = self._resolve_for_history(req_id, request.contract)
        now_ns = self._gateway.clock.now_ns()
        ticks = history.historical_ticks(self._gateway.market, instrument, request, now_ns)
        source = (instrument.con_id, request.contract.exchange, request.what_to_show)
        self._open_history(request, source, 0)
        self._send(responses.HistoricalTicks(req_id, ticks, done=True))
        self._gateway.limits.close_historical()

    def _head_timestamp(self, request: requests.HeadTimestampRequest) -> None:
        req_id = request.req_id
        instrument = self._resolve_for_history(req_id, request.contract)
        source = (instrument.con_id, request.contract.exchange, request.what_to_show)
        self._open_history(request, source, 0)
        self._send(responses.HeadTimestamp(req_id, history.write_utc(_HEAD_S, request.format_date)))
        self._gateway.limits.close_historical()

    def _send_bars(
        self, req_id: int, bars: Records, window: history.BarWindow, instrument: Instrument, write_date: WriteDate
    ) -> None:
        version = self._session.server_version
        begins, ends = (
            history.write_date(at_s, 1, history.DATE_TEXT, instrument, names_zone=version >= _ZONE_NAMED_SINCE)
            for at_s in (window.begins_s, window.ends_s)
        )
        dates = tuple(write_date(event_ns // NS_PER_S) for event_ns in bars["event_ns"].tolist())
        self._send(DatedBars(req_id, bars, dates, begins, ends))
        if version >= ServerVersion.HISTORICAL_DATA_END:
            self._send(responses.HistoricalDataEnd(req_id, begins, ends))

    def _current_time(self, request: requests.CurrentTimeRequest | requests.CurrentTimeInMillisRequest) -> None:
        refusal = self._clock_rate.ask(self._gateway.wall_s()) if self._gateway.pacing else None
        if refusal is None:
            self._answer(request)
        else:
            self._gateway.note_violation(self._session.client_id, refusal, request)

    def _answer(self, request: requests.Request | UnknownRequest) -> None:
        now_ns, version = self._gateway.clock.now_ns(), self._session.server_version
        for message in self._gateway.answers.answer(request, now_ns, version):
            self._send(message)

    def _resolve(self, req_id: int, contract: Contract) -> Instrument:
        """Return the one instrument that a contract means."""
        found = self._gateway.market.universe.find(contract)
        if not found:
            raise RequestError(req_id, _NO_SECURITY, "No security definition has been found for the request")
        if len(found) > 1:
            raise RequestError(
                req_id, _NO_SECURITY, f"The contract description specified for {contract.symbol} is ambiguous."
            )
        return found[0]

    def _resolve_for_history(self, req_id: int, contract: Contract) -> Instrument:
        self._refuse_duplicate(Family.HISTORY, req_id)
        instrument = self._resolve(req_id, contract)
        if not instrument.permitted:
            own = instrument.contract
            text = f"No market data permissions for {own.primary_exchange} {own.sec_type}"
            raise RequestError(req_id, _HISTORICAL, f"Historical Market Data Service error message:{text}")
        return instrument

    def _open_history(self, request: _History, source: tuple[int, str, str], bar_s: int) -> None:
        same: Hashable = replace(request, req_id=0)
        ask = partial(
            self._gateway.limits.open_historical, same, source, bar_s,
            is_bid_ask=source[2] == "BID_ASK", now_s=self._gateway.wall_s(),
        )  # fmt: skip
        self._admit(request, ask)

    def _refuse_duplicate(self, family: Family, req_id: int) -> None:
        if self._holdings.has(family, req_id):
            raise RequestError(req_id, _DUPLICATE_ID, f"Error processing request: Duplicate ticker id {req_id}")

    def _admit(self, request: _Limited, ask: Callable[[], Refusal | None]) -> None:
        refusal = ask()
        if refusal is not None:
            self._gateway.note_violation(self._session.client_id, refusal, request)
            raise RequestError(request.req_id, refusal.code, refusal.message)

    def _reroute(
        self,
        message_type: type[responses.RerouteMarketData | responses.RerouteMarketDepth],
        req_id: int,
        instrument: Instrument,
    ) -> bool:
        """Send the client to another contract, if its data come from there."""
        target = self._gateway.faults.reroutes.get(instrument.con_id)
        if target is not None:
            self._send(message_type(req_id, *target))
        return target is not None

    def _subscription(self, family: Family, req_id: int, instrument: Instrument) -> GatewaySubscription:
        assert self._session.client_id is not None
        subscription = GatewaySubscription(self._send, self._session.client_id, family, req_id, instrument)
        if self._gateway.faults.has_other_session:
            self._session.send_error(req_id, *self._gateway.faults.OTHER_SESSION)
        subscription.is_silent = self._gateway.faults.silences(subscription)
        return subscription

    def _cancel(self, family: Family, req_id: int, unknown: int) -> None:
        if self._holdings.end(family, req_id, self._gateway.faults.messages_after_cancel):
            return
        waiting = [request for request in self._postponed if getattr(request, "req_id", None) != req_id]
        if len(waiting) == len(self._postponed):
            raise RequestError(req_id, unknown, f"{_UNKNOWN_TEXTS[unknown]}:{req_id}")
        self._postponed = waiting


def _no_tick_by_tick(req_id: int, reason: str) -> RequestError:
    return RequestError(req_id, _NO_TICK_BY_TICK, f"Failed to request tick-by-tick data.{reason}")
