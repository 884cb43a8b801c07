"""What a gateway does wrong on demand: faults of the protocol, not of the network (those are `proxy`'s).

The rule of the file: a verb changes what happens from now on, and sends at once what clients receive of it. The happy
path asks here at a few places: before a request is served, when a session begins, when a subscription is made.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ibfast.errors import RequestError
from ibfast.sim.channel import MarketChannel
from ibfast.sim.codec import UnknownRequest
from ibfast.sim.events import TradeEvent
from ibfast.sim.fault_targets import FaultyGateway
from ibfast.sim.subscription import Family, GatewaySubscription
from ibfast.wire import requests

__all__ = ["Faults"]

_SYSTEM = -1
"""The req_id of notices."""
_LINK_LOST, _DATA_LOST, _DATA_KEPT, _PORT_CHANGED, _SERVER_LOST = 1100, 1101, 1102, 1300, 2110
_MARKET_FARM_BROKEN, _MARKET_FARM_OK = 2103, 2104
_NO_LINE, _DUPLICATE_ID, _NO_TICK_BY_TICK = 101, 322, 10190
_TEXTS = {
    _LINK_LOST: "Connectivity between IBKR and Trader Workstation has been lost.",
    _DATA_LOST: "Connectivity between IBKR and Trader Workstation has been restored - data lost.",
    _DATA_KEPT: "Connectivity between IBKR and Trader Workstation has been restored - data maintained.",
    _SERVER_LOST: "Connectivity between Trader Workstation and server is broken. It will be restored automatically.",
    _MARKET_FARM_BROKEN: "Market data farm connection is broken:{}",
    _MARKET_FARM_OK: "Market data farm connection is OK:{}",
}
_FARMS = (
    ("usfarm", 2103, 2104, "Market data"),
    ("ushmds", 2105, 2106, "HMDS data"),
    ("secdefnj", 2157, 2158, "Sec-def data"),
)
"""Farms that every session gets notices of: name, code of broken, code of OK, kind."""

_HISTORICAL = (requests.HistoricalBars, requests.HistoricalTicksRequest, requests.HeadTimestampRequest)
_NEEDS_LINK = (
    requests.MarketData, requests.TickByTick, requests.MarketDepth, requests.RealTimeBars, *_HISTORICAL,
    requests.ContractDetailsRequest, requests.MatchingSymbols,
)  # fmt: skip
_OF_MARKET_FARMS = (Family.LEVEL_1, Family.TICK_BY_TICK, Family.DEPTH, Family.BARS)
_FLOOD_SLICE = 500
_FLAP_EVERY = 10


@dataclass(slots=True)
class _Refusals:
    """The answer to the next `left` requests of some kinds."""

    kinds: tuple[type, ...]
    code: int
    text: str
    left: int


class Faults:
    """The verbs by which a gateway goes wrong; `Gateway.faults` is one.

    Attributes:
        link_is_lost: requests that need the link wait until it is back.
        has_other_session: another session has the account's market data.
        reroutes: con_id → the con_id and exchange where clients are sent for its data.
        messages_after_cancel: so many messages of a stream still come after its cancel.
        messages_under_way: so many messages of each stream still come after the fault that silences it.
        holds_writes: what is sent waits for the end of `one_write`.
        read_interval_s: the gateway reads from each client's socket once in this time only; 0: as soon as it can.
    """

    OTHER_SESSION = (10197, "No market data during competing live session")

    def __init__(self, gateway: FaultyGateway) -> None:
        self._gateway = gateway
        self.link_is_lost = False
        self.has_other_session = False
        self.reroutes: dict[int, tuple[int, str]] = {}
        self.messages_after_cancel = 0
        self.messages_under_way = 0
        self.holds_writes = False
        self.read_interval_s = 0.0
        self._mute_con_ids: set[int] = set()
        self._mute_req_ids: set[int] = set()
        self._broken_farms: set[str] = set()
        self._refusals: list[_Refusals] = []
        self._left: Counter[str] = Counter()

    # --- what is sent, and when ---

    def say(self, code: int, text: str = "", *, req_id: int = _SYSTEM) -> None:
        """Send every client an error or a notice and do nothing else, whether it is true or not.

        Args:
            code: of the message.
            text: default: the text that IB sends with the code, about the first farm where it names one.
            req_id: of the request that it is about; default: of none.
        """
        self._tell_text(code, text or _TEXTS[code].format(_FARMS[0][0]), req_id)

    @contextmanager
    def one_write(self) -> Iterator[None]:
        """Send each client in one write what it is sent within the block."""
        self.holds_writes = True
        try:
            yield
        finally:
            self.holds_writes = False
            self._flush()

    def trade(self, times: int = 1) -> None:
        """Have every watched instrument trade so many times, now."""
        for _ in range(times):
            self._gateway.deliver([_trade(channel) for channel in self._gateway.channels])
        self._flush()

    # --- silence ---

    def mute(self, *, con_id: int | None = None, req_id: int | None = None) -> None:
        """Send nothing more of an instrument's subscriptions, or of a request, without a notice."""
        if con_id is not None:
            self._mute_con_ids.add(con_id)
        if req_id is not None:
            self._mute_req_ids.add(req_id)
        self._review()

    def unmute(self) -> None:
        """Take back every `mute`: streams go on, after what a client must know anew."""
        self._mute_con_ids.clear()
        self._mute_req_ids.clear()
        self._review()

    def mute_farm(self, farm: str = "usfarm", *, notice: bool = True) -> None:
        """Break the connection to a market data farm (2103): nothing comes of its instruments, but history."""
        self._broken_farms.add(farm)
        self._review()
        if notice:
            self._tell(_MARKET_FARM_BROKEN, farm)

    def heal_farm(self, farm: str = "usfarm", *, notice: bool = True, resubscribe_needed: bool = False) -> None:
        """Restore a farm, with a 2104 or without.

        Args:
            farm: its name.
            notice: send a notice to the clients.
            resubscribe_needed: what was subscribed stays silent for good, and must be cancelled and asked for again.
        """
        if resubscribe_needed:
            for subscription in self._subscriptions():
                subscription.is_dead |= subscription.instrument.farm == farm and subscription.is_silent
        self._broken_farms.discard(farm)
        if notice:
            self._tell(_MARKET_FARM_OK, farm)
        self._review()

    def silences(self, subscription: GatewaySubscription) -> bool:
        """Return whether a subscription's messages do not reach its client now."""
        return (
            subscription.is_dead
            or self.link_is_lost
            or self.has_other_session
            or subscription.con_id in self._mute_con_ids
            or subscription.req_id in self._mute_req_ids
            or self._is_of_broken_farm(subscription)
        )

    # --- the link between the gateway and IB ---

    def lose_link(self) -> None:
        """Lose the link (1100): no data; what needs the link is served when it is back."""
        self._break_link(_LINK_LOST)

    def lose_server(self) -> None:
        """Lose the server (2110); otherwise as `lose_link`."""
        self._break_link(_SERVER_LOST)

    def restore_link(self, *, data_lost: bool = False, notice: bool = True) -> None:
        """Get the link back: with 1102 streams go on; with 1101 (`data_lost`) there are none any more.

        Without `notice` the clients get neither message.
        """
        if data_lost:
            for session in self._gateway.sessions:
                session.desk.close()
        self.link_is_lost = False
        if notice:
            self._tell(_DATA_LOST if data_lost else _DATA_KEPT)
        self._review()
        for session in self._gateway.sessions:
            session.desk.serve_postponed()
            session.flush()

    async def nightly_reset(self, times: int = 100, pause_s: float = 0.01) -> None:
        """Lose the link again and again, with all farms flapping, and get it back with 1102."""
        for number in range(times):
            self.lose_link()
            if number % _FLAP_EVERY == 0:
                self._flap()
            await asyncio.sleep(pause_s)
        self.restore_link()

    # --- the gateway itself ---

    async def change_port(self, port: int = 0) -> None:
        """Listen on another port (0: any), send it (1300), and drop all connections."""
        self._gateway.stop_listening()
        self._gateway.port = port
        await self._gateway.start_listening()
        text = "Socket port has been reset and this connection is being dropped. Please reconnect on the new port - {}"
        for session in tuple(self._gateway.sessions):
            session.send_error(_SYSTEM, _PORT_CHANGED, text.format(self._gateway.port))
            session.close()

    async def restart(self, down_s: float) -> None:
        """Be gone for a while: connections are dropped and refused. The market goes on."""
        self._gateway.shut()
        await asyncio.sleep(down_s)
        await self._gateway.start_listening()

    def use_id(self, times: int = 1) -> None:
        """Refuse the next clients, as if their ids were in use (326)."""
        self._left["id in use"] += times

    def withhold_next_valid_id(self, times: int = 1) -> None:
        """Never send the next valid id to the next clients."""
        self._left["next valid id"] += times

    def exceed_rate(self, requests: int = 3) -> None:
        """Answer the next requests with error 100; the third one of a session ends it."""
        self._left["rate"] += requests

    def take(self, what: str) -> bool:
        """Return whether a fault that was ordered so many times is due, once for each."""
        is_due = self._left[what] > 0
        self._left[what] -= is_due
        return is_due

    def notices(self) -> Iterable[tuple[int, str]]:
        """Yield the notices of farms and the link for a new session, code and text."""
        for farm, broken, ok, kind in _FARMS:
            is_broken = farm in self._broken_farms
            yield broken if is_broken else ok, f"{kind} farm connection is {'broken' if is_broken else 'OK'}:{farm}"
        for farm in self._broken_farms - {farm for farm, *_ in _FARMS}:
            yield _MARKET_FARM_BROKEN, _TEXTS[_MARKET_FARM_BROKEN].format(farm)
        if self.link_is_lost:
            yield _SERVER_LOST, _TEXTS[_SERVER_LOST]

    # --- requests ---

    def refuse(self, kinds: type | tuple[type, ...], code: int, text: str, times: int = 1) -> None:
        """Answer the next requests of these classes with an error. It is no violation: the client did nothing wrong."""
        self._refusals.append(_Refusals(kinds if isinstance(kinds, tuple) else (kinds,), code, text, times))

    def refuse_lines(self, times: int = 1) -> None:
        """Have no market-data line left for the next level-1 requests (101)."""
        self.refuse(requests.MarketData, _NO_LINE, "Max number of tickers has been reached", times)

    def refuse_tick_by_tick(self, times: int = 1) -> None:
        """Have no room for the next tick-by-tick requests (10190)."""
        text = "Max number of tick-by-tick requests has been reached"
        self.refuse(requests.TickByTick, _NO_TICK_BY_TICK, text, times)

    def refuse_history_ids(self, times: int = 1) -> None:
        """Call the ids of the next historical requests duplicates (322)."""
        self.refuse(_HISTORICAL, _DUPLICATE_ID, "Error processing request: Duplicate ticker id", times)

    def check(self, request: requests.Request | UnknownRequest) -> None:
        """Raise the RequestError with which a request is to be answered, if it is."""
        for refusals in self._refusals:
            if isinstance(request, refusals.kinds):
                refusals.left -= 1
                self._refusals = [entry for entry in self._refusals if entry.left > 0]
                raise RequestError(getattr(request, "req_id", _SYSTEM), refusals.code, refusals.text)

    def postpones(self, request: requests.Request | UnknownRequest) -> bool:
        """Return whether a request is served later."""
        return self.link_is_lost and isinstance(request, _NEEDS_LINK)

    # --- subscriptions ---

    def take_session(self) -> None:
        """Let another session take the account's market data: 10197 for everything that is open, and silence."""
        self.has_other_session = True
        for session in self._gateway.sessions:
            for subscription in session.desk.subscriptions:
                session.send_error(subscription.req_id, *self.OTHER_SESSION)
        self._review()

    def release_session(self) -> None:
        """End that session: the data come back, without a notice."""
        self.has_other_session = False
        self._review()

    def kill_subscription(self, req_id: int) -> None:
        """End one subscription (10182), and give its line back."""
        for session in self._gateway.sessions:
            session.desk.kill(req_id)

    def reset_book(self, req_id: int) -> None:
        """Have a client empty its book (317), and send it anew."""
        for subscription in self._subscriptions():
            if subscription.req_id == req_id and subscription.family is Family.DEPTH:
                subscription.resume(self._gateway.clock.now_ns())

    def reroute(self, con_id: int, to_con_id: int, exchange: str = "SMART") -> None:
        """Send clients that ask for level 1 or depth of an instrument to another one (messages 91 and 92)."""
        self.reroutes[con_id] = (to_con_id, exchange)

    async def flood(self, messages: int) -> None:
        """Send so many messages, and maybe some more, as fast as clients read: every watched instrument trades."""
        end = self._gateway.sent.total() + messages
        while self._gateway.channels and self._gateway.sent.total() < end:
            slice_end = self._gateway.sent.total() + _FLOOD_SLICE
            before = -1
            with self.one_write():
                while before < self._gateway.sent.total() < slice_end:
                    before = self._gateway.sent.total()
                    self.trade()
            await asyncio.sleep(0)

    # --- inside ---

    def _subscriptions(self) -> Iterable[GatewaySubscription]:
        return (subscription for session in self._gateway.sessions for subscription in session.desk.subscriptions)

    def _is_of_broken_farm(self, subscription: GatewaySubscription) -> bool:
        return subscription.instrument.farm in self._broken_farms and subscription.family in _OF_MARKET_FARMS

    def _review(self) -> None:
        """Silence what is to be silent now, and wake what is not."""
        now_ns = self._gateway.clock.now_ns()
        for subscription in self._subscriptions():
            subscription.set_silent(self.silences(subscription), now_ns, under_way=self.messages_under_way)

    def _break_link(self, code: int) -> None:
        self.link_is_lost = True
        self._tell(code)
        self._review()

    def _tell(self, code: int, farm: str = "") -> None:
        self._tell_text(code, _TEXTS[code].format(farm))

    def _tell_text(self, code: int, text: str, req_id: int = _SYSTEM) -> None:
        for session in self._gateway.sessions:
            if session.client_id is not None:
                session.send_error(req_id, code, text)
                session.flush()

    def _flush(self) -> None:
        for session in tuple(self._gateway.sessions):
            session.flush()

    def _flap(self) -> None:
        for farm, broken, ok, kind in _FARMS:
            self._tell_text(broken, f"{kind} farm connection is broken:{farm}")
            self._tell_text(ok, f"{kind} farm connection is OK:{farm}")


def _trade(channel: MarketChannel) -> TradeEvent:
    """Return one more trade like the last one; its time is that of the newest event, so that order holds."""
    last = channel.last
    ts_ns = max(last.ts_ns, channel.quote.ts_ns)
    return TradeEvent(ts_ns, channel.instrument.con_id, last.price or 1.0, last.size or 1, "", "", unreported=False)
