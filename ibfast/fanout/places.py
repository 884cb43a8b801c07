"""A connection's places in lanes: whose frames it gets, and what it was told that all others there know.

The rule of the file: a connection is admitted to frames only when it was told all that they build on. It is admitted
once for each window, however much has changed since the last one: to admit it costs as much as it has subscriptions.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ibfast.fanout.encoding.batcher import Lane
from ibfast.fanout.encoding.dialect import Audience, Outlet
from ibfast.fanout.subscription import Subscription

__all__ = ["Places"]


@dataclass(slots=True)
class _Place:
    """A connection's place in a lane: whose frames it gets, or up to which version it was told what is new."""

    subscriptions: dict[Subscription, None] = field(default_factory=dict)
    audience: Audience | None = None
    told: int = 0


class Places:
    """The places of one connection.

    Args:
        outlet: where frames go.

    Attributes:
        is_open: whether it is sent frames at all.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._places: dict[Lane, _Place] = {}
        self.is_open = True

    @property
    def written_s(self) -> float:
        """When it last got frames."""
        return max((place.audience.written_s for place in self._places.values() if place.audience), default=0.0)

    def audience(self, lane: Lane) -> Audience | None:
        """Return the audience that the connection belongs to in a lane, None while it belongs to none."""
        place = self._places.get(lane)
        return None if place is None else place.audience

    def open(self) -> None:
        """Have frames sent, from now on. The connection was told all that is new in its lanes."""
        self.is_open = True
        self.renew()

    def close(self) -> None:
        """Have nothing sent until `open`."""
        self.is_open = False
        for lane, place in self._places.items():
            self._dismiss(lane, place)

    def renew(self) -> None:
        """Have all frames sent anew, because the outlet is another one than it was: `is_capped` has changed."""
        for lane in self._places:
            self._renew_later(lane)

    def seat(self, subscription: Subscription) -> None:
        """Have a subscription's frames sent, too. The connection was told all that is new in its lane."""
        lane = subscription.lane
        place = self._places.setdefault(lane, _Place())
        place.subscriptions[subscription] = None
        if self.is_open:
            place.told = lane.encoder.version
        self._renew_later(lane)

    def unseat(self, subscription: Subscription) -> None:
        """Have them sent no more."""
        lane = subscription.lane
        place = self._places.get(lane)
        if place is None or subscription not in place.subscriptions:
            return
        del place.subscriptions[subscription]
        if place.subscriptions:
            self._renew_later(lane)
        else:
            self._dismiss(lane, place)
            del self._places[lane]

    def _renew_later(self, lane: Lane) -> None:
        if self.is_open:
            lane.renewals[self] = partial(self._renew, lane)

    def _renew(self, lane: Lane) -> None:
        place = self._places[lane]
        try:
            self._dismiss(lane, place)
            pairs = [(each.channel_id, each.seat.index) for each in place.subscriptions]
            place.audience = lane.admit(self._outlet, pairs)
            self._outlet.write(lane.encoder.greeting(place.audience))
        except BaseException:
            self._outlet.cut()  # it would lack frames, and not know
            raise

    def _dismiss(self, lane: Lane, place: _Place) -> None:
        lane.renewals.pop(self, None)
        if place.audience is not None:
            lane.dismiss(self._outlet, place.audience)
            place.audience = None
            place.told = lane.told

    def tell_news(self, lane: Lane) -> None:
        """Say what this connection must know before it gets a frame of the lane, as all others there do."""
        place = self._places.get(lane)
        told = 0 if place is None else lane.told if place.audience is not None else place.told
        if told != lane.encoder.version:
            self._outlet.write(lane.encoder.prelude(told))
        if place is not None:
            place.told = lane.encoder.version
