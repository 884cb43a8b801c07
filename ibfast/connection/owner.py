"""What the parts that keep a connection need of the manager that owns them, and of others that fill the same feed.

The rule of the file: types only. It is the door between the manager and its supervisor, so that neither imports more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Door

import numpy as np
from numpy.typing import NDArray

from ibfast.config.sections import Config
from ibfast.connection.monitor import ConnectionMonitor
from ibfast.connection.protocol import Arrival, Protocol
from ibfast.connection.send_queue import Outbox
from ibfast.contracts import Contract, ContractDetails
from ibfast.feed.feed import Feed
from ibfast.policy.error_handler import ErrorHandler
from ibfast.policy.session import SessionManager
from ibfast.policy.subscription import Subscription, SubscriptionRequest
from ibfast.records import Kind

__all__ = ["Membership", "Owner"]


@dataclass(slots=True)
class Membership:
    """What a connection has to do with others that fill the same feed. By default it is alone.

    Attributes:
        spare_client_ids: to take at a reconnect while its own is in use, if none are configured.
        fills_feed_alone: whether its end is the end of all data in the feed.
        on_login: called with the accounts of every new session, before anything is asked of it.
        on_give_up: called before all its streams end because there will be no connection again.
        is_elsewhere: whether another one has a subscription.
    """

    spare_client_ids: tuple[int, ...] = ()
    fills_feed_alone: bool = True
    on_login: Callable[[tuple[str, ...]], None] = lambda accounts: None
    on_give_up: Callable[[], None] = lambda: None
    is_elsewhere: Callable[[SubscriptionRequest], bool] = lambda request: False


class Owner(Door):
    """A manager, seen from its supervisor."""

    config: Config
    feed: Feed
    protocol: Protocol
    outbox: Outbox
    session: SessionManager
    monitor: ConnectionMonitor
    errors: ErrorHandler
    membership: Membership

    def begin_session(self, protocol: Protocol) -> None:
        """Speak through a new session."""

    def end_session(self, error: Exception) -> None:
        """Fail all questions, whose request ids died with the connection."""

    def take(self, arrival: Arrival) -> None:
        """Give a message to the question that waits for it, and to the listeners."""

    def refuse(self, req_id: int, error: Exception) -> None:
        """End the question of a request, if there is one."""

    def fail_streams(self, subscription: Subscription, error: Exception) -> None:
        """End the streams of a subscription that is over."""

    def instrument_of(self, contract: Contract) -> int:
        """Return the feed's index of a contract at its exchange."""
        ...

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        ...

    def kinds_of(self, subscription: Subscription) -> frozenset[Kind]:
        """Return the kinds of rows that the streams of a subscription show; none if it has no streams."""
        ...

    async def historical_bars(
        self, contract: object, duration: str, bar_size: str, what_to_show: str, use_rth: bool, end: str
    ) -> NDArray[np.void]:
        """Return historical bars."""
        ...

    async def historical_ticks(
        self, contract: object, what_to_show: str, start: str, *, use_rth: bool, ignore_size: bool
    ) -> NDArray[np.void]:
        """Return 1,000 historical ticks at most."""
        ...

    def details_of(self, contract: Contract) -> ContractDetails | None:
        """Return what the gateway has told of a contract at its exchange, if it has."""
