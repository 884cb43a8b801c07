"""The open subscriptions of one client at a gateway, their streams and their shares of the limits.

The rule of the file: all that begins here is given back here, when its request is cancelled or its client is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ibfast.sim.channel import Listener, MarketChannel, Timed
from ibfast.sim.services import Services
from ibfast.sim.subscription import Family, GatewaySubscription, Holding

__all__ = ["Holdings"]


class Holdings:
    """The open subscriptions of one client."""

    def __init__(self, gateway: Services) -> None:
        self._gateway = gateway
        self._open: dict[tuple[Family, int], GatewaySubscription] = {}
        self._lingering: list[GatewaySubscription] = []

    @property
    def subscriptions(self) -> tuple[GatewaySubscription, ...]:
        """The open subscriptions."""
        return tuple(self._open.values())

    def has(self, family: Family, req_id: int) -> bool:
        """Return whether a request has an open subscription."""
        return (family, req_id) in self._open

    def begin(
        self,
        subscription: GatewaySubscription,
        channel: MarketChannel,
        stream: Listener,
        release: Callable[[], None],
        *,
        quotes: bool = True,
        trades: bool = True,
    ) -> None:
        """Begin a stream; `release` gives back its share of a limit."""
        subscription.holding = Holding(channel, stream, release)
        self._open[subscription.family, subscription.req_id] = subscription
        self._gateway.listen(channel, stream, quotes=quotes, trades=trades)
        if isinstance(stream, Timed):
            self._gateway.schedule(stream)

    def end(self, family: Family, req_id: int, more_messages: int = 0) -> bool:
        """Give back what a subscription holds; its stream may go on for some messages.

        Returns:
            Whether there was one.
        """
        subscription = self._open.pop((family, req_id), None)
        if subscription is not None:
            self._end(subscription, more_messages)
        return subscription is not None

    def close(self) -> None:
        """Give everything back."""
        for subscription in self.subscriptions:
            self._end(subscription)
        for subscription in self._lingering:
            subscription.finish()
        self._open.clear()
        self._lingering.clear()

    def _end(self, subscription: GatewaySubscription, more_messages: int = 0) -> None:
        holding = subscription.holding
        assert holding is not None
        if isinstance(holding.stream, Timed):
            self._gateway.unschedule(holding.stream)
        leave = partial(self._gateway.leave, holding.channel, holding.stream)
        if more_messages:
            subscription.linger(more_messages, leave)
            self._lingering.append(subscription)
        else:
            leave()
        holding.release()
