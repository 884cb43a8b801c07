"""One subscription of a connection: what was asked for, what serves it, and what it was not sent.

The rule of the file: values; what becomes of them is `subscriber`'s business.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibfast.contracts import Contract
from ibfast.fanout.encoding.batcher import Lane, Seat
from ibfast.fanout.messages import Subscribe
from ibfast.fanout.upstream import Upstream
from ibfast.feed.feed import FeedView
from ibfast.records import NS_PER_MS

__all__ = ["Subscription"]

UNITS_NS = {"us": 1000, "ns": 1}


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription of a connection.

    Attributes:
        number: the connection's.
        request: what was asked for; `interval_ms` is the one wanted, the channel's the one that it has.
        contract: as the gateway knows it.
        upstreams: where its rows come from.
        channel_id: the connection's number of its channel.
        epoch: of the channel, as the client was last given it.
        lane, seat: who encodes it.
        from_seq: while the connection is behind: what was sent is complete up to here.
        counted: the channel's row count at that time.
        missed: rows left out before, at other intervals.
        is_unknown: how many were left out is not known.
        needs_snapshot: it has not had one yet.
        told_seq: up to which it was told of the source's interruptions.
        told_state: of the subscription at IB, as it was told last.
        waits_until_s: of a single snapshot: how long its first data is awaited; None: it is none.
    """

    number: int
    request: Subscribe
    contract: Contract
    upstreams: tuple[Upstream, ...]
    channel_id: int
    lane: Lane
    seat: Seat
    interval_ms: int
    from_seq: int = 0
    counted: int = 0
    missed: int = 0
    is_unknown: bool = False
    needs_snapshot: bool = False
    told_seq: int = 0
    told_state: str = ""
    waits_until_s: float | None = None
    epoch: str = ""

    @property
    def req_ids(self) -> set[int]:
        """The gateway's requests that serve it, or have."""
        return {req_id for upstream in self.upstreams for req_id in upstream.stream.subscription.req_ids}

    def described(self, feed: FeedView) -> dict[str, Any]:
        """Return what a client must know of its channel."""
        channel = self.seat.channel
        return {
            "channel": self.channel_id,
            "epoch": self.epoch,
            "symbol": feed.instruments[channel.instrument],
            "con_id": feed.instruments.con_id(channel.instrument),
            "exchange": feed.instruments.exchange(channel.instrument),
            "instrument": channel.instrument,
            "families": list(channel.families),
            "class": channel.interval_class,
            "span_ns": channel.interval_ms * NS_PER_MS,
            "unit_ns": UNITS_NS[channel.unit],
            "ordered": channel.ordered,
            "conflated": channel.is_conflated,
            **self.lane.encoder.describe(self.seat.index),
        }
