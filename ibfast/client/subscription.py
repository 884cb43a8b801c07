"""What a user of a stream holds of a subscription.

The rule of the file: it shows what is known, and hands on what is asked; it keeps nothing itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ibfast.client.session import Wish
from ibfast.errors import Error

__all__ = ["Subscription"]


class Subscription:
    """What a user holds of a subscription; the data of all of them comes by the provider.

    Attributes:
        contract, data_type: as asked for.
    """

    def __init__(
        self,
        wish: Wish,
        contract: object,
        data_type: str,
        update: Callable[[Wish, int], Awaitable[None]],
        unsubscribe: Callable[[Wish], Awaitable[None]],
    ) -> None:
        self.contract = contract
        self.data_type = data_type
        self._wish = wish
        self._update = update
        self._unsubscribe = unsubscribe

    def __repr__(self) -> str:
        reason = f", {self.reason}" if self.reason else ""
        return f"<Subscription {self.number} to {self.data_type} of {self.ticker}, {self.state}{reason}>"

    @property
    def number(self) -> int:
        """Its number at this client, as in `State.subscription`."""
        return self._wish.number

    @property
    def ticker(self) -> str:
        """The instrument's label."""
        return self._wish.ticker

    @property
    def instruments(self) -> tuple[int, ...]:
        """Of its rows: indices into the provider's `instruments`; none while it is not subscribed."""
        return tuple(dict.fromkeys(channel.instrument for channel in self._wish.channels.values()))

    @property
    def state(self) -> str:
        """How it fares: LIVE, QUIET, STALE, WAITING, …; PENDING, RECONNECTING, ENDED."""
        return self._wish.state

    @property
    def reason(self) -> str:
        """Why, where that is not obvious."""
        return self._wish.reason

    @property
    def slowed_to_ms(self) -> int | None:
        """The interval to which the server has slowed it, because this client can't take more; else None."""
        return self._wish.slowed_to_ms

    @property
    def error(self) -> Error | None:
        """Why it ended by itself, None while it lives and after `unsubscribe`."""
        return self._wish.error

    @property
    def live(self) -> bool:
        """Whether anything can still come of it."""
        return not self._wish.is_over and not self._wish.is_withdrawn

    async def update(self, interval_ms: int) -> None:
        """Have its rows come at another interval, one of the server's.

        Raises:
            StreamError: the server refused it; nothing has changed.
            NotConnectedError: the subscription is over, or the server did not answer in time.
        """
        await self._update(self._wish, interval_ms)

    async def unsubscribe(self) -> None:
        """End it; nothing of it follows. Does nothing if it is over."""
        await self._unsubscribe(self._wish)
