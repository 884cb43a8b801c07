"""A gateway, its sessions and their desks, as far as faults reach into them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from ibfast.sim.channel import MarketChannel
from ibfast.sim.clock import Clock
from ibfast.sim.events import Event
from ibfast.sim.subscription import GatewaySubscription

__all__ = ["FaultyDesk", "FaultyGateway", "FaultySession"]


class FaultyDesk(Protocol):
    """The requests of one client."""

    @property
    def subscriptions(self) -> Iterable[GatewaySubscription]:
        """The open subscriptions."""

    def kill(self, req_id: int) -> None:
        """End the subscriptions of a request id as by a failure behind the gateway."""

    def close(self) -> None:
        """Give everything back."""

    def serve_postponed(self) -> None:
        """Serve the requests that had to wait."""


class FaultySession(Protocol):
    """The connection of one client."""

    @property
    def client_id(self) -> int | None:
        """The client's id, None until it has sent one."""

    @property
    def desk(self) -> FaultyDesk:
        """The client's requests."""

    def send_error(self, req_id: int, code: int, text: str) -> None:
        """Send an error message."""

    def flush(self) -> None:
        """Write what waits to be written."""

    def close(self) -> None:
        """Drop the client."""


class FaultyGateway(Protocol):
    """The gateway."""

    port: int
    clock: Clock
    sent: Counter[type]

    @property
    def sessions(self) -> Sequence[FaultySession]:
        """The connected clients."""

    @property
    def channels(self) -> Sequence[MarketChannel]:
        """The instruments that clients listen to."""

    def deliver(self, events: Iterable[Event]) -> None:
        """Give events of the market to the clients."""

    def shut(self) -> None:
        """Stop listening, and drop all clients."""

    def stop_listening(self) -> None:
        """Accept no more clients."""

    async def start_listening(self) -> None:
        """Accept clients."""
