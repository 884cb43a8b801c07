"""What each of IB's messages makes the session do, and the check of the login.

The rule of the file: one branch per action of the table of codes (`policy.codes`); what an action means for a
subscription is the session's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ibfast.connection.link import Link
from ibfast.connection.live_requests import Lines
from ibfast.connection.owner import Owner
from ibfast.errors import ConnectError, RequestError
from ibfast.policy.auth import AuthManager
from ibfast.policy.codes import FARM_SERVICES, Action, FarmService, Severity, farm_name, new_port, says_read_only
from ibfast.policy.subscription import Subscription
from ibfast.records import GapCause, Scope
from ibfast.wire.ids import Incoming
from ibfast.wire.requests import MarketDepth, OpenOrdersRequest
from ibfast.wire.responses import ErrorMessage, OpenOrderEnd, Response, Unreadable

__all__ = ["Reactions"]

# How long the gateway may take to say whether it is read-only.
READ_ONLY_TIMEOUT_S = 5.0
# What the gateway says to the cancel of a request that it does not have.
NOTHING_TO_CANCEL = frozenset({300, 310, 366})
# How soon a line is asked for again that an earlier connection of ours may still hold.
LINE_RETRY_AT_START_S = 5.0


class Reactions:
    """Acts on messages of one connection.

    Args:
        manager: whose connection it is.
        lines: the live requests of its subscriptions.
        write: writes a subscription down.
        is_young: tells whether the connection was made a moment ago.
        move_to: has the connection made again, at another port.
    """

    def __init__(
        self,
        manager: Owner,
        lines: Lines,
        write: Callable[[Subscription], None],
        is_young: Callable[[float], bool],
        move_to: Callable[[int], None],
    ) -> None:
        self._manager = manager
        self._lines = lines
        self._write = write
        self._is_young = is_young
        self._move_to = move_to
        self._session = manager.session
        self._limiter = manager.outbox.limiter
        self._read_only: asyncio.Future[bool] | None = None

    async def authenticate(self, link: Link, auth: AuthManager) -> None:
        """Check the login before anything is subscribed to; AuthError if it is not what was declared."""
        protocol = link.protocol
        is_read_only = None
        if auth.needs_probe:
            is_read_only = await self._ask_read_only(link)
            if is_read_only is None:
                raise ConnectError("auth", "the gateway did not say whether it is read-only", "connect again")
        login = auth.check(protocol.accounts, port=self._manager.config.port, is_read_only=is_read_only)
        self._manager.membership.on_login(protocol.accounts)
        for warning in auth.warnings(login, self._manager.config.port):
            self._manager.monitor.event("auth_warning", warning=warning)

    async def _ask_read_only(self, link: Link) -> bool | None:
        """Ask for open orders: a gateway in read-only mode refuses, another one answers. None: no answer."""
        self._read_only = asyncio.get_running_loop().create_future()
        try:
            link.protocol.send(OpenOrdersRequest())
            link.flush()
            async with asyncio.timeout(READ_ONLY_TIMEOUT_S):
                waiting: set[asyncio.Future[Any]] = {self._read_only, link.ended}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                return self._read_only.result() if self._read_only.done() else None
        except TimeoutError:
            return None
        finally:
            self._read_only = None

    def hear(self, message: Response) -> None:
        """Take in what tells whether the gateway is read-only."""
        if self._read_only is None or self._read_only.done():
            return
        if isinstance(message, OpenOrderEnd):
            self._read_only.set_result(False)
        elif isinstance(message, Unreadable) and message.msg_id == Incoming.OPEN_ORDER_END:
            self._read_only.set_exception(ConnectError("auth", str(message.error), "connect again"))
        elif isinstance(message, ErrorMessage) and says_read_only(message):
            self._read_only.set_result(True)

    def react(self, message: ErrorMessage, now_s: float) -> None:
        """Do what a message asks for."""
        if message.code in NOTHING_TO_CANCEL and self._lines.is_cancelled(message.req_id):
            return  # the gateway had ended the request, which could not be known for certain
        handled = self._manager.errors.handle(message, now_s)
        action = handled.rule.action
        if not handled.repeated:  # a nightly reset says the same a hundred times; `errors.counts` has them all
            severity = handled.rule.severity
            name = "error_message" if severity >= Severity.WARNING else "message"
            self._manager.monitor.event(
                name, code=message.code, req_id=message.req_id, text=message.message, severity=severity.name
            )
        self._lines.poll(now_s)
        if self._session.is_link_up:  # else the gateway speaks for itself, and IB may not have the request
            self._manager.outbox.spoken_of(message.req_id, now_s)
        if action.ends_request:
            error = RequestError(message.req_id, message.code, message.message)
            if action is Action.HISTORICAL_PACING:
                self._limiter.learn(message.code, now_s, self._lines.ticket_of(message.req_id), message.message)
            self._manager.refuse(message.req_id, error)
        subscription = self._session.of_request(message.req_id)
        if subscription is not None:
            self._about_subscription(subscription, action, message, now_s)
        self._about_connection(action, message, now_s)

    def _about_subscription(
        self, subscription: Subscription, action: Action, message: ErrorMessage, now_s: float
    ) -> None:
        session, req_id = self._session, subscription.req_id
        error = RequestError(message.req_id, message.code, message.message)
        ticket = self._lines.ticket_of(req_id)
        match action:
            case Action.END_REQUEST:
                if session.refused(subscription, now_s, error):
                    self._manager.fail_streams(subscription, error)
                    self._write(subscription)
            case Action.RENEW | Action.DUPLICATE:
                session.renew(subscription, now_s, Scope.SUBSCRIPTION, GapCause.STREAM_ENDED, message.message)
            case Action.HISTORICAL_PACING:
                self._lines.finish(req_id)
                session.no_line(subscription, now_s, message.message, can_displace=False)
            case Action.NO_LINE | Action.NO_TICK_BY_TICK if self._is_young(now_s):
                # What is full may be full of what an earlier connection left open: no lesson for the limits.
                self._lines.finish(req_id)
                session.no_line(subscription, now_s, message.message, retry_s=LINE_RETRY_AT_START_S)
            case Action.NO_LINE | Action.NO_TICK_BY_TICK:
                self._limiter.learn(message.code, now_s, ticket, message.message)
                self._lines.finish(req_id)  # before the room is looked at
                session.no_line(subscription, now_s, message.message)
            case Action.EMPTY_BOOK if isinstance(subscription.request, MarketDepth):
                session.book_reset(subscription)
                self._manager.feed.add_book_reset(time.time_ns(), req_id)
            case Action.SLOW_DOWN:
                session.renew(subscription, now_s, Scope.CONNECTION, GapCause.STREAM_ENDED, message.message)

    def _about_connection(self, action: Action, message: ErrorMessage, now_s: float) -> None:
        session = self._session
        match action:
            case Action.SLOW_DOWN:
                self._limiter.learn(message.code, now_s, None, message.message)
                self._lines.repeat(now_s)
            case Action.FARM_BROKEN if FARM_SERVICES[message.code] is FarmService.MARKET_DATA:
                session.farm_broken(farm_name(message.message), now_s)
            case Action.FARM_OK | Action.FARM_INACTIVE if FARM_SERVICES[message.code] is FarmService.MARKET_DATA:
                session.farm_restored(farm_name(message.message), now_s)
            case Action.LINK_LOST:
                session.link_lost(now_s)
            case Action.LINK_RESTORED | Action.LINK_RESTORED_DATA_LOST:
                self._manager.outbox.arrived(None, now_s)  # what the gateway had to keep reaches IB now
                session.link_restored(now_s, data_lost=action is Action.LINK_RESTORED_DATA_LOST)
            case Action.SUSPEND_ACCOUNT:
                session.suspend(now_s)
            case Action.PORT_CHANGED:
                self._move_to(new_port(message.message) or self._manager.config.port)
