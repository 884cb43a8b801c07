"""Questions to a gateway that it answers once: contracts, history, its clock.

The rule of the file: a question is queued for sending, its answer awaited with a time limit, and taken back at the
gateway when nobody waits for it any more. Identical historical questions share one request. It knows messages, and
nothing of sockets or subscriptions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.common.lately import Lately
from ibfast.common.scalars import flag, moment, text, whole
from ibfast.common.shown import shown
from ibfast.config.sections import BreakerConfig, Config
from ibfast.connection.historical import MOST_TICKS, check_bars, check_kind, check_ticks
from ibfast.connection.protocol import Protocol, State
from ibfast.connection.send_queue import Outbox
from ibfast.contracts import Contract, ContractDetails
from ibfast.errors import Error, NotConnectedError, RequestError
from ibfast.feed.feed import Feed
from ibfast.policy.pacing.clock import CLOCK_REQUESTS
from ibfast.policy.pacing.limiter import Ticket, TicketState
from ibfast.policy.reconnect.breaker import CircuitBreaker
from ibfast.records import HISTORICAL_BAR, NS_PER_S
from ibfast.wire import responses
from ibfast.wire.ids import Incoming, ServerVersion
from ibfast.wire.requests import (
    CancelContractDetails,
    CancelHeadTimestamp,
    CancelHistoricalBars,
    CancelHistoricalTicks,
    ContractDetailsRequest,
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MatchingSymbols,
    Request,
)
from ibfast.wire.responses import Response, SymbolSample

__all__ = ["Questions", "joined_bars"]

COMBO = "BAG"
CLOCK_ANSWERS = (Incoming.CURRENT_TIME, Incoming.CURRENT_TIME_IN_MILLIS)
NO_SUCH_CONTRACT = 200
# So many matches of an ambiguous contract are named.
SHOWN = 20
# What is kept of contracts, so that they are not asked for again: of each kind of knowledge.
MOST_CONTRACT_BYTES = 1 << 26
# Historical requests are frequent, and one of them says little.
HISTORY_BREAKER = BreakerConfig(window_calls=20, probes=3)


@dataclass(slots=True)
class _Query:
    """A question whose answer may come in several messages; `complete` tells the last one.

    It may have to wait for `wait_s` before it is sent.
    """

    complete: Callable[[Response], bool]
    answer: asyncio.Future[list[Any]]
    cancel: Request | None = None
    ticket: Ticket | None = None
    wait_s: float = 0.0
    parts: list[Any] = field(default_factory=list)

    def add(self, message: Response) -> None:
        if self.answer.done():  # the gateway has sent the same answer again
            return
        self.parts.append(message)
        if self.complete(message):
            self.answer.set_result(self.parts)

    def fail(self, error: Exception) -> None:
        if not self.answer.done() and not self.answer.get_loop().is_closed():
            self.answer.set_exception(error)
            self.answer.exception()  # seen: with nobody left to wait, nobody else would look


class Questions:
    """What can be asked of a gateway; `IBKRConnectionManager` is one.

    Args:
        config: for its time limits.
        protocol: the session.
        feed: gives request ids.
        outbox: the way out.
    """

    def __init__(self, config: Config, protocol: Protocol, feed: Feed, outbox: Outbox) -> None:
        self.config = config
        self.protocol = protocol
        self.feed = feed
        self.outbox = outbox
        self._queries: dict[int, _Query] = {}
        self._clock_queries: list[_Query] = []
        self._qualified = Lately[Contract, Contract](MOST_CONTRACT_BYTES)
        self._details = Lately[Hashable, ContractDetails](MOST_CONTRACT_BYTES)
        self.history_breaker = CircuitBreaker("history", HISTORY_BREAKER, ignore=(Error, TypeError, ValueError))

    def send(self, request: Request) -> None:
        """Send a request that nobody waits for, as soon as the limits allow it.

        Raises:
            NotConnectedError: there is no session.
            UnsupportedError: the gateway's version has no such request.
            PacingError: too many requests wait already.
        """
        if isinstance(request, CLOCK_REQUESTS):
            self.outbox.ask_clock(request)
            self.outbox.pump(time.monotonic())
        else:
            self._submit(request)

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self.protocol.state is State.READY

    def check_loop(self) -> None:
        """Raise LoopError where questions can't be answered because another event loop keeps the connection."""

    def _submit(
        self,
        request: Request,
        *,
        priority: int = 0,
        sent: Callable[[], None] | None = None,
        dropped: Callable[[], None] | None = None,
    ) -> Ticket:
        """Queue a request, and send what may be sent now."""
        self.check_loop()
        now_s = time.monotonic()
        deadline_s = now_s + self.config.pacing.max_wait_s
        ticket = self.outbox.submit(
            request, now_s, priority=priority, deadline_s=deadline_s, sent=sent, dropped=dropped
        )
        self.outbox.pump(now_s)
        return ticket

    def _take_answer(self, message: Response) -> None:
        """Give a message to the question that waits for it, if there is one; what can't be read fails the question."""
        if isinstance(message, responses.Unreadable):
            self._refuse(message.req_id, message.error)
            for query in self._clock_queries if message.msg_id in CLOCK_ANSWERS else ():
                query.fail(message.error)
            return
        if isinstance(message, responses.CurrentTime | responses.CurrentTimeInMillis):
            for query in self._clock_queries:
                query.add(message)
            return
        waiting = self._queries.get(getattr(message, "req_id", -1))
        if waiting is not None:
            waiting.add(message)
            if waiting.ticket is not None:
                self.outbox.arrived(waiting.ticket, time.monotonic())

    def _refuse(self, req_id: int, error: Exception) -> None:
        """End a question that the gateway refuses."""
        waiting = self._queries.get(req_id)
        if waiting is not None:
            waiting.fail(error)

    def _refuse_all(self, error: Exception) -> None:
        """End all questions, because the session has ended."""
        for query in [*self._queries.values(), *self._clock_queries]:
            query.fail(error)
        self._queries.clear()
        self._clock_queries.clear()

    async def _ask(
        self,
        make: Callable[[int], Request],
        complete: Callable[[Response], bool],
        cancel: Callable[[int], Request] | None = None,
    ) -> list[Any]:
        """Send a request and return the messages that answer it, up to the one that completes the answer."""
        req_id = self.feed.next_req_id()
        query = self._expect(req_id, complete, None if cancel is None else cancel(req_id))
        try:
            query.ticket = self._submit(make(req_id), dropped=lambda: query.fail(_too_slow(self.config)))
        except BaseException:
            self._queries.pop(req_id, None)
            raise
        shared = getattr(query.ticket.request, "req_id", req_id)
        if shared != req_id:
            del self._queries[req_id]
            req_id, query = shared, self._queries[shared]
        return await self._answer_to(req_id, query)

    def _expect(self, req_id: int, complete: Callable[[Response], bool], cancel: Request | None) -> _Query:
        """Register a question, before its request can be answered."""
        query = _Query(complete, asyncio.get_running_loop().create_future(), cancel)
        self._queries[req_id] = query
        return query

    async def _answer_to(self, req_id: int, query: _Query) -> list[Any]:
        try:
            return await self._answer(query)
        finally:
            self._end(req_id, query)

    def _end(self, req_id: int, query: _Query) -> None:
        """One who waited has the answer, or gives up; the last to give up takes the question back."""
        ticket = query.ticket
        is_over = query.answer.done() or ticket is None or not self.connected
        cancelled_s = None
        if not is_over and ticket is not None:
            if self.outbox.withdraw(ticket):
                if query.cancel is not None:
                    self._submit(query.cancel)
                cancelled_s = time.monotonic()
                is_over = True
            is_over |= ticket.state is TicketState.WITHDRAWN
        if is_over and self._queries.get(req_id) is query:
            del self._queries[req_id]
            if ticket is not None and ticket.state is TicketState.SENT:
                self.outbox.limiter.finish(ticket, cancelled_s=cancelled_s)

    async def _answer(self, query: _Query) -> list[Any]:
        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that comes together with the answer.
        limit_s = self.config.request_timeout_s + query.wait_s
        if query.ticket is not None and query.ticket.state is TicketState.QUEUED:
            limit_s += self.config.pacing.max_wait_s
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(query.answer)
        except TimeoutError:
            raise TimeoutError(f"the gateway did not answer within {self.config.request_timeout_s:g} s") from None

    async def contract_details(self, contract: object) -> list[ContractDetails]:
        """Return all contracts that match a description.

        Args:
            contract: a Contract, a stock's symbol, or a Contract of ibapi or ib_async.

        Raises:
            RequestError: code 200, there is none.
            DecodeError: the answer can't be read; names field and value. Every question may raise it.
        """
        description = Contract.of(contract)
        can_cancel = self.protocol.server_version >= ServerVersion.CANCEL_CONTRACT_DATA
        try:
            messages = await self._ask(
                lambda req_id: ContractDetailsRequest(req_id, description),
                lambda message: isinstance(message, responses.ContractDataEnd),
                CancelContractDetails if can_cancel else None,
            )
        except RequestError as error:
            raise RequestError(error.req_id, error.code, f"{error.message}: {description}") from None
        found = [message.details for message in messages if isinstance(message, responses.ContractData)]
        if not found:
            raise RequestError(messages[-1].req_id, NO_SUCH_CONTRACT, f"no contract matches: {description}")
        for details in found:
            self._details[details.contract.identity] = details
        return found

    async def qualify(self, contract: object) -> Contract:
        """Return the one contract that a description means, with its con_id and all else that the gateway knows.

        Args:
            contract: a Contract, a stock's symbol, or a Contract of ibapi or ib_async.

        Raises:
            RequestError: code 200, there is none.
            ValueError: several contracts match; the text lists them.
        """
        description = Contract.of(contract)
        known = self._qualified.get(description)
        if known is not None:
            return known
        details = await self.contract_details(description)
        matches = [item.contract for item in details]
        if len(matches) != 1:
            names = ", ".join(
                f"{c.local_symbol} {c.primary_exchange or c.exchange} {c.con_id}" for c in matches[:SHOWN]
            )
            more = f" and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
            text = f"{description} is ambiguous, add fields: {len(matches)} contracts match: {names}{more}"
            raise ValueError(shown(text))
        # The exchange stays the user's choice: the gateway answers per listing, and "SMART" is a route, not a listing.
        qualified = replace(matches[0], exchange=description.exchange or matches[0].exchange)
        for key in (description, qualified):
            self._qualified[key] = qualified
        self._details[qualified.identity] = details[0]
        return qualified

    async def meant(self, contract: object) -> Contract:
        """Return the contract to ask with: qualified, but a combination as it is, since IB describes none (321)."""
        description = Contract.of(contract)
        return description if description.sec_type == COMBO else await self.qualify(description)

    async def matching_symbols(self, pattern: str) -> list[SymbolSample]:
        """Return stocks whose symbol or company name matches."""
        pattern = text("pattern", pattern)
        (message,) = await self._ask(
            lambda req_id: MatchingSymbols(req_id, pattern),
            lambda message: isinstance(message, responses.SymbolSamples),
        )
        return list(message.samples)

    async def head_timestamp(self, contract: object, what_to_show: str = "TRADES", use_rth: bool = True) -> str:
        """Return the time of the earliest historical data, in the gateway's notation (epoch seconds).

        Raises:
            ValueError: there is no such kind of data; names those that there are.
        """
        what_to_show, use_rth = text("what_to_show", what_to_show), flag("use_rth", use_rth)
        check_kind(what_to_show)
        qualified = await self.meant(contract)
        (message,) = await self._ask(
            lambda req_id: HeadTimestampRequest(req_id, qualified, what_to_show, use_rth, format_date=2),
            lambda message: isinstance(message, responses.HeadTimestamp),
            CancelHeadTimestamp,
        )
        return str(message.timestamp)

    async def historical_bars(
        self,
        contract: object,
        duration: str = "1 D",
        bar_size: str = "1 min",
        what_to_show: str = "TRADES",
        use_rth: bool = True,
        end: str | datetime = "",
    ) -> NDArray[np.void]:
        """Return historical bars.

        Args:
            contract: what; a combination (BAG) is sent as it is.
            duration: IB's notation, "1 D", "2 W", "3600 S".
            bar_size: IB's notation, "1 min", "5 secs", "1 day".
            what_to_show: "TRADES", "MIDPOINT", "BID_ASK", …: one of `ibfast.connection.historical.BAR_KINDS`.
            use_rth: regular trading hours only.
            end: an aware datetime, or yyyymmdd-hh:mm:ss in UTC; "" is now.

        Returns:
            A structured array of dtype `ibfast.records.HISTORICAL_BAR`.

        Raises:
            ValueError: there are no such bars; names what is possible. Nothing was sent.
        """
        duration, bar_size = text("duration", duration), text("bar_size", bar_size)
        what_to_show, use_rth, end = text("what_to_show", what_to_show), flag("use_rth", use_rth), moment("end", end)
        check_bars(what_to_show, bar_size, duration, end)
        qualified = await self.meant(contract)
        return await self._bars(HistoricalBars(0, qualified, end, duration, bar_size, what_to_show, use_rth))

    async def _bars(self, request: HistoricalBars) -> NDArray[np.void]:
        async with self.history_breaker:
            messages = await self._ask(
                lambda req_id: replace(request, req_id=req_id), self._completes_bars, CancelHistoricalBars
            )
        return joined_bars(messages)

    def _completes_bars(self, message: Response) -> bool:
        """From server version 196 on an end marker of its own closes the bars, which may come in several messages."""
        if self.protocol.server_version >= ServerVersion.HISTORICAL_DATA_END:
            return isinstance(message, responses.HistoricalDataEnd)
        return isinstance(message, responses.HistoricalData)

    async def historical_ticks(
        self,
        contract: object,
        what_to_show: str = "TRADES",
        start: str | datetime = "",
        end: str | datetime = "",
        number_of_ticks: int = 1000,
        use_rth: bool = True,
        ignore_size: bool = False,
    ) -> NDArray[np.void]:
        """Return historical ticks, 1,000 at most, from `start` on or up to `end` (the default: up to now).

        Args:
            what_to_show: "TRADES", "BID_ASK" or "MIDPOINT".
            start, end: an aware datetime, or yyyymmdd-hh:mm:ss in UTC; one of them at most.

        Raises:
            ValueError: there are no such ticks; names what is possible. Nothing was sent.

        Returns:
            A structured array of the dtype HISTORICAL_TICK_LAST, …_BID_ASK or …_MIDPOINT of `ibfast.records`.
        """
        what_to_show, start, end = text("what_to_show", what_to_show), moment("start", start), moment("end", end)
        use_rth, ignore_size = flag("use_rth", use_rth), flag("ignore_size", ignore_size)
        number_of_ticks = whole("number_of_ticks", number_of_ticks, 1, MOST_TICKS)
        check_ticks(what_to_show, start, end)
        if not start:
            end = end or moment("end", datetime.now(UTC))
        qualified = await self.meant(contract)
        can_cancel = self.protocol.server_version >= ServerVersion.CANCEL_CONTRACT_DATA
        async with self.history_breaker:
            messages = await self._ask(
                lambda req_id: HistoricalTicksRequest(
                    req_id, qualified, start, end, number_of_ticks, what_to_show, use_rth, ignore_size
                ),
                lambda message: isinstance(message, responses.HistoricalTicks) and message.done,
                CancelHistoricalTicks if can_cancel else None,
            )
        return np.concatenate([message.ticks for message in messages])

    async def current_time_ns(self) -> int:
        """Return the gateway's clock, ns UTC: to the millisecond from server version 197 on, else to the second.

        The gateway answers once a second: who asks sooner waits, and all who wait share one answer.
        """
        self.check_loop()
        query = _Query(lambda message: True, asyncio.get_running_loop().create_future())
        if not self.connected:
            raise NotConnectedError("the gateway's clock can't be asked: there is no session")
        now_s = time.monotonic()
        self.outbox.ask_clock()
        query.wait_s = self.outbox.clock_wait_s(now_s)
        self._clock_queries.append(query)
        self.outbox.pump(now_s)
        try:
            (message, *_) = await self._answer(query)
        finally:
            if query in self._clock_queries:
                self._clock_queries.remove(query)
        if isinstance(message, responses.CurrentTimeInMillis):
            return message.time_ms * 1_000_000
        return int(message.time_s) * NS_PER_S


def _too_slow(config: Config) -> TimeoutError:
    return TimeoutError(f"the request waited {config.pacing.max_wait_s:g} s for IB's limits: ask for less at once")


def joined_bars(messages: list[Any]) -> NDArray[np.void]:
    """Return the bars of the messages of one answer, as one array."""
    parts = [message.bars for message in messages if isinstance(message, responses.HistoricalData)]
    return np.concatenate([np.empty(0, HISTORICAL_BAR), *parts])
