"""One open request of a client, between its stream and its session.

The rule of the file: the stream goes on as ever; whether its messages reach the client is decided here, by flags that
the faults set. What the request holds (a market-data line, a listener) is given back by its desk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from ibfast.sim.channel import Listener, MarketChannel
from ibfast.sim.instruments import Instrument
from ibfast.sim.streams import Message, Send

__all__ = ["Family", "GatewaySubscription", "Holding", "Resumable"]


class Family(StrEnum):
    """Kinds of subscriptions; each has request ids of its own."""

    LEVEL_1 = "market data"
    TICK_BY_TICK = "tick-by-tick"
    DEPTH = "depth"
    BARS = "real-time bars"
    HISTORY = "history"


@runtime_checkable
class Resumable(Protocol):
    """A stream of changes, of which a client must not miss one."""

    def resume(self, now_ns: int) -> None:
        """Send the whole state anew: earlier changes may have been missed."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A subscription's channel and stream; `release` gives back its share of a limit."""

    channel: MarketChannel
    stream: Listener
    release: Callable[[], None]


class GatewaySubscription:
    """One open request of a client.

    Attributes:
        client_id, family, req_id, instrument: of the request.
        is_silent: its messages are dropped for now, but for those that were under way.
        is_dead: they are dropped for good, though the client can't know.
        holding: None until the stream has begun.
    """

    def __init__(self, send: Send, client_id: int, family: Family, req_id: int, instrument: Instrument) -> None:
        self.client_id = client_id
        self.family = family
        self.req_id = req_id
        self.instrument = instrument
        self.is_silent = False
        self.is_dead = False
        self.holding: Holding | None = None
        self._send = send
        self._under_way = 0
        self._left = 0
        self._finish: Callable[[], None] | None = None

    def __repr__(self) -> str:
        name = self.instrument.contract.local_symbol
        return f"<{self.family} of {name}, request {self.req_id} of client {self.client_id}>"

    @property
    def con_id(self) -> int:
        """IB's id of the instrument."""
        return self.instrument.con_id

    def send(self, message: Message) -> None:
        """Send a message of the stream to the client, unless it is silent."""
        if self.is_silent:
            if not self._under_way:
                return
            self._under_way -= 1
        self._send(message)
        if self._finish is not None:
            self._left -= 1
            if not self._left:
                self.finish()

    def linger(self, messages: int, finish: Callable[[], None]) -> None:
        """Go on for so many more messages, and call `finish` then."""
        self._left, self._finish = messages, finish

    def finish(self) -> None:
        """Linger no longer."""
        finish, self._finish = self._finish, None
        if finish is not None:
            self.is_silent, self._under_way = True, 0
            finish()

    def set_silent(self, is_silent: bool, now_ns: int, *, under_way: int = 0) -> None:
        """Drop messages from now on but the next `under_way`, or no longer; then first send what was missed."""
        was_silent, self.is_silent = self.is_silent, is_silent
        if is_silent and not was_silent:
            self._under_way = under_way
        if was_silent and not is_silent:
            self.resume(now_ns)

    def resume(self, now_ns: int) -> None:
        """Send the state anew, if the stream has one."""
        if self.holding is not None and isinstance(self.holding.stream, Resumable):
            self.holding.stream.resume(now_ns)
