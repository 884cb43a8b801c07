"""The interfaces between a gateway, its sessions and their desks, so that none names the class of another."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from ibfast.sim.answers import Answers
from ibfast.sim.channel import Listener, MarketChannel, Timed
from ibfast.sim.clock import Clock
from ibfast.sim.codec import UnknownRequest
from ibfast.sim.events import EventSource
from ibfast.sim.faults import Faults
from ibfast.sim.instruments import Instrument
from ibfast.sim.pacing import GatewayLimits, Refusal
from ibfast.sim.streams import Message
from ibfast.wire.requests import Request

__all__ = ["Client", "Host", "Services"]


class Client(Protocol):
    """A session, as its desk sees it."""

    client_id: int | None
    server_version: int

    def send(self, message: Message) -> None:
        """Queue a message."""

    def send_error(self, req_id: int, code: int, text: str) -> None:
        """Queue an error message."""


class Services(Protocol):
    """A gateway, as a desk sees it."""

    answers: Answers
    clock: Clock
    faults: Faults
    limits: GatewayLimits
    market: EventSource
    pacing: bool

    def channel(self, instrument: Instrument) -> MarketChannel:
        """Return the events of an instrument."""

    def leave(self, channel: MarketChannel, listener: Listener) -> None:
        """Take a listener back, after the messages that are under way."""

    def listen(self, channel: MarketChannel, listener: Listener, *, quotes: bool = True, trades: bool = True) -> None:
        """Have a listener called with events."""

    def note_violation(self, client_id: int | None, refusal: Refusal, request: Request | UnknownRequest) -> None:
        """Keep a request that a limit refused."""

    def schedule(self, stream: Timed) -> None:
        """Have a stream called at its next time."""

    def unschedule(self, stream: Timed) -> None:
        """Call a stream no more."""

    def wall_s(self) -> float:
        """Return the time that limits go by."""


class Host(Services, Protocol):
    """A gateway, as a session sees it."""

    accounts: tuple[str, ...]
    lines: int
    received: Counter[type]
    send_buffer: int
    server_version: int
    sessions: list[Any]

    def admit(self, client_id: int) -> bool:
        """Return whether a client with this id may start."""

    def count(self, client_id: int | None, message: Message) -> None:
        """Count a message that is sent."""
