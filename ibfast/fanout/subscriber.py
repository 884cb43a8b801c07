"""One connection's subscriptions: numbers, channels, what it was sent, and what it was not.

The rule of the file: everything that is left out is told, with its range, before anything newer is sent; and a
channel's rows come exactly once. It writes to an outlet that takes everything; when that can't take more, it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ibfast.contracts import Contract
from ibfast.enums import GapCause, Scope
from ibfast.fanout.backlog import slowed
from ibfast.fanout.batcher import Batcher, Lane
from ibfast.fanout.channels import Channel, Tap
from ibfast.fanout.dialect import Audience, Dialect, Outlet
from ibfast.fanout.frames import text_frame
from ibfast.fanout.gauges import Tally
from ibfast.fanout.messages import Code, RefusedError, Subscribe, encode
from ibfast.fanout.past import gaps_after, is_complete
from ibfast.fanout.subscription import Subscription
from ibfast.fanout.upstream import Upstream
from ibfast.feed import BACKFILL_KINDS

__all__ = ["Subscriber"]

OLD_KINDS = frozenset(BACKFILL_KINDS.values())


@dataclass(slots=True)
class _Place:
    """A connection's place in a lane: whose frames it gets, or up to which version it was told what is new."""

    subscriptions: list[Subscription] = field(default_factory=list)
    audience: Audience | None = None
    told: int = 0


class Subscriber:
    """One connection, as a subscriber.

    Args:
        batcher: where frames come from.
        dialect: how they are said.
        outlet: where they go.
        epoch: names the life of the feed's rings.
        on_ended: told of each subscription that is over.
        tally: told of what is left out.

    Attributes:
        subscriptions: by number.
        is_behind: whether it is sent nothing for now, because it can't take more.
    """

    def __init__(
        self,
        batcher: Batcher,
        dialect: Dialect,
        outlet: Outlet,
        epoch: str,
        on_ended: Callable[[Subscription], None],
        tally: Tally,
    ) -> None:
        self._batcher = batcher
        self._dialect = dialect
        self._outlet = outlet
        self._epoch = epoch
        self._on_ended = on_ended
        self._tally = tally
        self._next_number = 1
        self._places: dict[Lane, _Place] = {}
        self._steps = 0
        self.subscriptions: dict[int, Subscription] = {}
        self.is_behind = False

    @property
    def seq(self) -> int:
        """Up to which sequence number it was sent everything that is its own."""
        seqs = [
            subscription.from_seq if self.is_behind else subscription.lane.seq
            for subscription in self.subscriptions.values()
        ]
        return min(seqs, default=self._batcher.feed.seq)

    @property
    def is_waiting(self) -> bool:
        """Whether it wants a single snapshot that was not sent yet."""
        return any(subscription.waits_until_s is not None for subscription in self.subscriptions.values())

    @property
    def written_s(self) -> float:
        """When it last got data."""
        return max((place.audience.written_s for place in self._places.values() if place.audience), default=0.0)

    def say(self, op: str, **values: Any) -> None:
        """Send a control message."""
        self._outlet.write(text_frame(encode(op, **values)))

    # --- what a client asks for ---

    def open(
        self,
        request: Subscribe,
        contract: Contract,
        upstreams: tuple[Upstream, ...],
        taps: Iterable[Tap],
        *,
        waits_until_s: float | None = None,
    ) -> Subscription:
        """Begin a subscription: answer, then its snapshot or what was missed, then data."""
        channel = self._channel(request, upstreams[0].stream.instrument, taps)
        since_seq = max(upstream.since_seq for upstream in upstreams)
        lane, seat = self._batcher.join(self._dialect, channel, since_seq)
        number, self._next_number = self._next_number, self._next_number + 1
        taken = {subscription.channel_id for subscription in self.subscriptions.values()}
        channel_id = next(candidate for candidate in range(len(taken) + 1) if candidate not in taken)
        subscription = Subscription(
            number, request, contract, upstreams, channel_id, lane, seat, request.interval_ms,
            waits_until_s=waits_until_s,
        )  # fmt: skip
        self.subscriptions[number] = subscription
        # Several may be one subscription at the gateway: what is said of it is said once.
        for upstream in {upstream.stream.subscription: upstream for upstream in upstreams}.values():
            upstream.users.add((self, subscription))
        self._answer(subscription, since_seq)
        if waits_until_s is None:
            self._seat(subscription)
        else:
            self._outlet.watch()
        self.tell_state(subscription, upstreams[0])
        return subscription

    def _channel(self, request: Subscribe, instrument: int, taps: Iterable[Tap]) -> Channel:
        taps = list(taps)
        is_conflated = request.mode != "stream"
        kinds = frozenset[Any]().union(*(tap.kinds for tap in taps))
        return Channel(
            instrument=instrument,
            families=tuple(tap.family for tap in taps),
            kinds=kinds - OLD_KINDS if is_conflated else kinds,  # what is old is never the latest
            fields=request.fields,
            is_conflated=is_conflated,
            interval_ms=slowed(request.interval_ms, self._steps),
            unit=request.times,
            ordered=request.ordered,
        )

    def _answer(self, subscription: Subscription, since_seq: int) -> None:
        """Say that a subscription is there, and where it goes on."""
        resume, lane = subscription.request.resume, subscription.lane
        reason = "" if resume is None else self._why_not_resumed(subscription, since_seq)
        answer: dict[str, Any] = {
            "id": subscription.request.id,
            "subscription": subscription.number,
            "resumed": resume is not None and not reason,
            "channels": [subscription.described(self._batcher.feed)],
        }
        if reason:
            answer["reason"] = reason
        self.say("subscribed", **answer)
        if self.is_behind:
            subscription.from_seq, subscription.counted = lane.seq, lane.encoder.count(subscription.seat.index)
            subscription.needs_snapshot = True
        if resume is not None and reason:
            from_seq = resume.seq if resume.epoch == self._epoch else 0
            if self.is_behind:
                subscription.from_seq, subscription.is_unknown = from_seq, True
            else:
                self._say_lag(subscription, min(from_seq, lane.seq), None, "overrun")
        if self.is_behind or subscription.waits_until_s is not None:
            return
        self._tell_news(lane)
        if resume is not None and not reason:
            rows = self._batcher.past(subscription.seat.channel, resume.seq)
            index = subscription.seat.index
            self._outlet.write(lane.encoder.replay(index, subscription.channel_id, rows, lane.seq))
            for row in gaps_after(self._batcher.feed, subscription.req_ids, resume.seq):
                self.tell_gap(subscription, row)
        else:
            self._snapshot(subscription)

    def _why_not_resumed(self, subscription: Subscription, since_seq: int) -> str:
        resume, feed = subscription.request.resume, self._batcher.feed
        assert resume is not None
        if self.is_behind:
            return "the connection can't take more"
        if resume.epoch != self._epoch:
            return "the server was started anew: its rings have another epoch"
        if resume.seq > subscription.lane.seq:
            return "this sequence number has not come yet"
        if resume.seq < since_seq:
            return "meanwhile nobody had the subscription"
        if not is_complete(feed, subscription.seat.channel, resume.seq):
            return "the rings do not go back so far"
        return ""

    def close(self, number: int) -> None:
        """End a subscription.

        Raises:
            RefusedError: there is none of this number.
        """
        self._end(self._find(number))

    def change(self, number: int, interval_ms: int) -> Subscription:
        """Have a subscription come at another interval; the caller answers, then calls `snapshot`.

        Raises:
            RefusedError: there is none of this number.
        """
        subscription = self._find(number)
        subscription.interval_ms = interval_ms
        self._move(subscription)
        return subscription

    def snapshot(self, subscription: Subscription) -> None:
        """Send a subscription's state, or do so when the connection can take it."""
        if self.is_behind:
            subscription.needs_snapshot = True
        else:
            self._tell_news(subscription.lane)
            self._snapshot(subscription)
            self._seat(subscription)

    def _find(self, number: int) -> Subscription:
        subscription = self.subscriptions.get(number)
        if subscription is None:
            raise RefusedError(Code.NO_SUCH_SUBSCRIPTION, f"there is no subscription {number}")
        return subscription

    # --- places in lanes ---

    def _seat(self, subscription: Subscription) -> None:
        """Have a subscription's frames sent from now on. The connection was told all that is new in its lane."""
        place = self._places.setdefault(subscription.lane, _Place())
        if subscription not in place.subscriptions:
            place.subscriptions.append(subscription)
        self._reseat(subscription.lane)

    def _unseat(self, subscription: Subscription) -> None:
        place = self._places.get(subscription.lane)
        if place is not None and subscription in place.subscriptions:
            place.subscriptions.remove(subscription)
            self._reseat(subscription.lane)

    def _reseat(self, lane: Lane) -> None:
        place = self._places[lane]
        self._dismiss(lane, place)
        if not place.subscriptions:
            del self._places[lane]
        elif not self.is_behind:
            pairs = [(each.channel_id, each.seat.index) for each in place.subscriptions]
            place.audience = lane.admit(self._outlet, pairs)
            self._outlet.write(lane.encoder.greeting(place.audience))

    def _dismiss(self, lane: Lane, place: _Place) -> None:
        if place.audience is not None:
            lane.dismiss(self._outlet, place.audience)
            place.audience = None
            place.told = lane.told

    def _tell_news(self, lane: Lane) -> None:
        """Say what this connection must know before it gets a frame of the lane, as all others there do."""
        place = self._places.get(lane)
        told = 0 if place is None else lane.told if place.audience is not None else place.told
        if told != lane.encoder.version:
            self._outlet.write(lane.encoder.prelude(told))
        if place is not None:
            place.told = lane.encoder.version

    def _snapshot(self, subscription: Subscription) -> None:
        lane = subscription.lane
        self._outlet.write(lane.encoder.snapshot(subscription.seat.index, subscription.channel_id, lane.seq))
        subscription.needs_snapshot = False

    def _say_lag(self, subscription: Subscription, from_seq: int, rows: int | None, reason: str) -> None:
        lane = subscription.lane
        self._outlet.write(lane.encoder.lag(subscription.channel_id, from_seq, lane.seq, rows, reason))
        self._tally.lags[reason] += 1
        self._tally.rows_left_out += rows or 0

    def _move(self, subscription: Subscription) -> None:
        """Bring a subscription to the lane of its interval; what was sent, and what comes, meet at one number."""
        interval_ms = slowed(subscription.interval_ms, self._steps)
        lane, seat = subscription.lane, subscription.seat
        self._batcher.flush(lane.interval_ms)
        if self.is_behind:
            subscription.missed += lane.encoder.count(seat.index) - subscription.counted
        self._unseat(subscription)
        channel = replace(seat.channel, interval_ms=interval_ms)
        since_seq = max(upstream.since_seq for upstream in subscription.upstreams)
        subscription.lane, subscription.seat = self._batcher.join(self._dialect, channel, since_seq)
        subscription.counted = subscription.lane.encoder.count(subscription.seat.index)
        self._batcher.leave(lane, seat)
        if self.is_behind:
            self._seat(subscription)

    def reseat(self) -> None:
        """Have all frames sent anew, because the outlet is another one than it was: `is_capped` has changed."""
        for lane in tuple(self._places):
            self._reseat(lane)

    # --- slowness ---

    def fall_behind(self) -> None:
        """Send nothing more until `catch_up`: what was given to the outlet so far still goes out."""
        if self.is_behind:
            return
        self.is_behind = True
        self._tally.fallen_behind += 1
        for lane, place in self._places.items():
            self._dismiss(lane, place)
        for subscription in list(self.subscriptions.values()):
            lane = subscription.lane
            subscription.from_seq, subscription.counted = lane.seq, lane.encoder.count(subscription.seat.index)
            if subscription.request.on_slow == "close":
                self.end(
                    subscription, Code.TOO_SLOW, "the connection can't take more, and the subscription is to end then"
                )

    def catch_up(self) -> None:
        """Tell what was left out, send the state that came of it, and go on."""
        if not self.is_behind:
            return
        for interval_ms in {subscription.lane.interval_ms for subscription in self.subscriptions.values()}:
            self._batcher.flush(interval_ms)
        self.is_behind = False
        for lane in {subscription.lane for subscription in self.subscriptions.values()}:
            self._tell_news(lane)
        for subscription in self.subscriptions.values():
            if subscription.waits_until_s is not None:
                continue
            encoder = subscription.lane.encoder
            missed = subscription.missed + encoder.count(subscription.seat.index) - subscription.counted
            is_lagging = missed > 0 or subscription.is_unknown
            if is_lagging:
                rows = None if subscription.is_unknown or not encoder.counts_rows else missed
                self._say_lag(subscription, subscription.from_seq, rows, "slow")
            if is_lagging or subscription.needs_snapshot:
                self._snapshot(subscription)
            subscription.missed, subscription.is_unknown = 0, False
        self.reseat()

    def set_pace(self, steps: int) -> None:
        """Have all subscriptions come at intervals that are so many steps longer than those asked for, and say so."""
        self._tally.slowed += steps > self._steps
        self._steps = steps
        for subscription in self.subscriptions.values():
            interval_ms = slowed(subscription.interval_ms, steps)
            if interval_ms != subscription.seat.channel.interval_ms:
                self._move(subscription)
                channels = [subscription.described(self._batcher.feed)]
                self.say("slowed", subscription=subscription.number, interval_ms=interval_ms, channels=channels)
                self.snapshot(subscription)

    def overrun(self, lane: Lane, from_seq: int) -> None:
        """Tell that rows of a lane were overwritten before they were read."""
        for subscription in self.subscriptions.values():
            if subscription.lane is not lane:
                continue
            if self.is_behind:
                subscription.is_unknown = True
            elif subscription.waits_until_s is None:
                self._tell_news(lane)
                self._say_lag(subscription, from_seq, None, "overrun")
                self._snapshot(subscription)

    # --- what becomes of subscriptions ---

    def serve_once(self, now_s: float) -> None:
        """Send the snapshots of those who want no more than one, as soon as there is data, or no hope of it."""
        for subscription in list(self.subscriptions.values()):
            until_s = subscription.waits_until_s
            if until_s is None or self.is_behind:
                continue
            encoder = subscription.lane.encoder
            if now_s >= until_s or encoder.count(subscription.seat.index) or encoder.state(subscription.seat.index):
                self._batcher.flush(subscription.lane.interval_ms)
                self._tell_news(subscription.lane)
                self._snapshot(subscription)
                self.end(subscription, Code.DONE, "the snapshot was sent")

    def tell_state(self, subscription: Subscription, upstream: Upstream) -> None:
        """Tell how the subscription at IB fares."""
        upstream.told = upstream.told or upstream.state
        reason = upstream.stream.subscription.reason
        self.say("state", subscription=subscription.number, state=upstream.state, reason=reason)

    def tell_gap(self, subscription: Subscription, row: Any) -> None:
        """Tell of an interruption of the source."""
        self.say(
            "gap",
            channel=subscription.channel_id,
            scope=Scope(row["scope"]).name,
            cause=GapCause(row["cause"]).name,
            recovered=bool(row["recovered"]),
            **{name: int(row[name]) for name in ("first_seq", "last_seq", "first_ns", "last_ns")},
        )

    def end(self, subscription: Subscription, code: Code, message: str) -> None:
        """End a subscription, and say why."""
        self.say("ended", subscription=subscription.number, code=code, message=message)
        self._end(subscription)

    def _end(self, subscription: Subscription) -> None:
        del self.subscriptions[subscription.number]
        self._unseat(subscription)
        self._batcher.leave(subscription.lane, subscription.seat)
        for upstream in subscription.upstreams:
            upstream.users.discard((self, subscription))
        self._on_ended(subscription)

    def leave(self) -> None:
        """End all subscriptions, because the connection ends."""
        for subscription in list(self.subscriptions.values()):
            self._end(subscription)
