"""One connection's subscriptions: numbers, channels, what it was sent, and what it was not.

The rule of the file: everything that is left out is told, with its range, before anything newer is sent; and a
channel's rows come exactly once. It writes to an outlet that takes everything; when that can't take more, it is told.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ibfast.codec.positions import Epoch, class_of, position_of, seq_of
from ibfast.contracts import Contract
from ibfast.fanout.backlog import slowed
from ibfast.fanout.encoding.batcher import Batcher, Lane, Loss, Seat
from ibfast.fanout.encoding.channels import Channel, Tap
from ibfast.fanout.encoding.dialect import Dialect, Outlet
from ibfast.fanout.encoding.histories import Histories, Recall
from ibfast.fanout.encoding.ring_history import gaps_after, reaches
from ibfast.fanout.gauges import Tally
from ibfast.fanout.messages import Code, RefusedError, Resume, Subscribe, encode
from ibfast.fanout.places import Places
from ibfast.fanout.sockets.frames import text_frame
from ibfast.fanout.subscription import Subscription
from ibfast.fanout.upstream import Upstream
from ibfast.feed.feed import BACKFILL_KINDS
from ibfast.records import GapCause, Scope

__all__ = ["FAILED", "Subscriber"]

FAILED = "the server has failed, its log says how"
OLD_KINDS = frozenset(BACKFILL_KINDS.values())


class Subscriber:
    """One connection, as a subscriber.

    Args:
        batcher: where frames come from.
        dialect: how they are said.
        outlet: where they go.
        life: names the life of the feed's rings.
        histories: what clients that come back have missed.
        on_ended: told of each subscription that is over.
        tally: told of what is left out.

    Attributes:
        subscriptions: by number.
    """

    def __init__(
        self,
        batcher: Batcher,
        dialect: Dialect,
        outlet: Outlet,
        life: str,
        histories: Histories,
        on_ended: Callable[[Subscription], None],
        tally: Tally,
    ) -> None:
        self._batcher = batcher
        self._dialect = dialect
        self._outlet = outlet
        self._life = life
        self._histories = histories
        self._on_ended = on_ended
        self._tally = tally
        self._next_number = 1
        self._places = Places(outlet)
        self._steps = 0
        self.subscriptions: dict[int, Subscription] = {}

    @property
    def is_behind(self) -> bool:
        """Whether it is sent nothing for now, because it can't take more."""
        return not self._places.is_open

    @property
    def positions(self) -> list[int]:
        """Up to where it was sent everything of each class, as far as its channels there have a state."""
        seqs: dict[int, int] = {}
        for subscription in self.subscriptions.values():
            if subscription.waits_until_s is None and not subscription.needs_snapshot:
                seq = subscription.from_seq if self.is_behind else subscription.lane.seq
                interval_class = subscription.seat.channel.interval_class
                seqs[interval_class] = min(seq, seqs.get(interval_class, seq))
        return [position_of(seq, interval_class) for interval_class, seq in seqs.items()]

    @property
    def is_waiting(self) -> bool:
        """Whether it wants a single snapshot that was not sent yet."""
        return any(subscription.waits_until_s is not None for subscription in self.subscriptions.values())

    @property
    def written_s(self) -> float:
        """When it last got data."""
        return self._places.written_s

    def say(self, op: str, **values: Any) -> None:
        """Send a control message."""
        self._outlet.write(text_frame(encode(op, **values)))

    # --- what a client asks for ---

    def recall(
        self, request: Subscribe, resume: Resume, upstreams: tuple[Upstream, ...], taps: tuple[Tap, ...]
    ) -> Recall | None:
        """Begin to read what a client has missed, for `open`; None if that can't be had.

        The caller calls `advance` of it until there is no more, and `close` after `open`.
        """
        channel = self._channel(request, upstreams, taps)
        lane, seat = self._join(channel, upstreams)
        seen_seq, reason = self._judge(resume, self._epoch(request.interval_ms, channel, upstreams, lane.seq))
        if reason:
            self._batcher.leave(lane, seat)
            return None
        history = self._histories.of(lane, seat, seen_seq)
        return Recall(self._batcher, lane, seat, history, self._free_channel_id())

    def _free_channel_id(self) -> int:
        taken = {subscription.channel_id for subscription in self.subscriptions.values()}
        return next(candidate for candidate in range(len(taken) + 1) if candidate not in taken)

    def open(
        self,
        request: Subscribe,
        contract: Contract,
        upstreams: tuple[Upstream, ...],
        taps: tuple[Tap, ...],
        *,
        recall: Recall | None = None,
        waits_until_s: float | None = None,
    ) -> Subscription:
        """Begin a subscription: answer, then its snapshot or what was missed, then data."""
        channel = self._channel(request, upstreams, taps)
        lane, seat = self._join(channel, upstreams)
        number, self._next_number = self._next_number, self._next_number + 1
        subscription = Subscription(
            number, request, contract, upstreams, self._free_channel_id(), lane, seat, request.interval_ms,
            told_seq=self._batcher.feed.seq, waits_until_s=waits_until_s,
        )  # fmt: skip
        self.subscriptions[number] = subscription
        try:
            self._begin(subscription, recall)
        except BaseException:
            if number in self.subscriptions:
                self.say("ended", subscription=number, code=Code.REFUSED, message=FAILED)
                self._give_up(subscription)
            raise
        return subscription

    def _begin(self, subscription: Subscription, recall: Recall | None) -> None:
        # Several may be one subscription at the gateway: what is said of it is said once.
        upstreams = {upstream.stream.subscription: upstream for upstream in subscription.upstreams}.values()
        for upstream in upstreams:
            upstream.users.add((self, subscription))
        self._answer(subscription, recall)
        if subscription.waits_until_s is None:
            self._places.seat(subscription)
        for upstream in upstreams:
            self.tell_state(subscription, upstream)
        if subscription.waits_until_s is not None:
            self._serve(subscription, is_over=False)
            self._outlet.watch()

    def _channel(self, request: Subscribe, upstreams: tuple[Upstream, ...], taps: tuple[Tap, ...]) -> Channel:
        """Return what is to be encoded."""
        is_conflated = request.mode != "stream"
        kinds = frozenset[Any]().union(*(tap.kinds for tap in taps))
        return Channel(
            instrument=upstreams[0].stream.instrument,
            families=tuple(tap.family for tap in taps),
            kinds=kinds - OLD_KINDS if is_conflated else kinds,  # what is old is never the latest
            fields=request.fields,
            is_conflated=is_conflated,
            interval_ms=slowed(request.interval_ms, self._steps),
            unit=request.times,
            ordered=request.ordered,
        )

    def _join(self, channel: Channel, upstreams: tuple[Upstream, ...]) -> tuple[Lane, Seat]:
        return self._batcher.join(self._dialect, channel, max(upstream.since for upstream in upstreams))

    def _answer(self, subscription: Subscription, recall: Recall | None) -> None:
        """Say that a subscription is there, and where it goes on."""
        lane, is_single = subscription.lane, subscription.waits_until_s is not None
        resume = None if is_single else subscription.request.resume
        seen_seq, reason = lane.seq, ""
        if resume is not None:
            now = self._epoch(subscription.interval_ms, subscription.seat.channel, subscription.upstreams, lane.seq)
            seen_seq, reason = self._judge(resume, now)
            if not reason:
                is_usable = recall is not None and recall.lane is lane
                reason = recall.why_void() if recall is not None and is_usable else "the connection can't take more"
        is_resumed = resume is not None and not reason
        answer: dict[str, Any] = {
            "id": subscription.request.id,
            "subscription": subscription.number,
            "resumed": is_resumed,
            "channels": [self.described(subscription, seen_seq if is_resumed else lane.seq)],
        }
        if reason:
            answer["reason"] = reason
        self.say("subscribed", **answer)
        if self.is_behind:
            subscription.from_seq, subscription.counted = seen_seq, lane.encoder.count(subscription.seat.index)
            subscription.is_unknown, subscription.needs_snapshot = resume is not None, True
        elif is_resumed and recall is not None:
            self._places.tell_news(lane)
            self._outlet.write(recall.history.frames(subscription.channel_id))
            subscription.told_seq = seen_seq
            for row in gaps_after(self._batcher.feed, subscription.req_ids, seen_seq):
                self.tell_gap(subscription, row)
        elif reason:
            self._snapshot(subscription, seen_seq, None, "overrun")
        elif not is_single:
            self._snapshot(subscription)

    def _judge(self, resume: Resume, now: Epoch) -> tuple[int, str]:
        """Return up to where a client has everything, 0 where nobody can know that, and why it is not resumed.

        Args:
            resume: what the client names.
            now: the epoch of the channel as it goes on now.
        """
        epoch, seq = Epoch.parse(resume.epoch), seq_of(resume.position)
        if epoch is None or epoch.life != now.life:
            return 0, "the epoch is of another life of the server: it was started anew"
        if epoch.coded != class_of(resume.position):
            return 0, f"the position is of class {class_of(resume.position)}, and the epoch of class {epoch.coded}"
        if epoch.asked != now.asked:
            return 0, "the epoch is of another subscription: the interval_ms, the times or other fields differ"
        if seq < epoch.since_seq:
            return 0, "the position is older than the channel that the epoch is of"
        if seq > now.since_seq:
            return now.since_seq, "this position has not come yet"
        if self.is_behind:
            return seq, "the connection can't take more"
        if epoch.generation != now.generation:
            return seq, "meanwhile nobody had the subscription"
        if not reaches(self._batcher.feed.rings["gaps"], seq):
            return seq, "the rings do not go back so far"
        return seq, ""

    def _epoch(self, interval_ms: int, channel: Channel, upstreams: tuple[Upstream, ...], since_seq: int) -> Epoch:
        """Return the epoch of a channel that is asked for at an interval, from a sequence number on."""
        generation = max(upstream.generation for upstream in upstreams)
        asked = replace(channel, interval_ms=interval_ms).fingerprint
        return Epoch(self._life, generation, asked, channel.interval_class, since_seq)

    def described(self, subscription: Subscription, since_seq: int) -> dict[str, Any]:
        """Return what a client must know of a subscription's channel, whose rows come after this number."""
        channel = subscription.seat.channel
        subscription.epoch = str(self._epoch(subscription.interval_ms, channel, subscription.upstreams, since_seq))
        return subscription.described(self._batcher.feed)

    def close(self, number: int) -> None:
        """End a subscription.

        Raises:
            RefusedError: there is none of this number.
        """
        self._end(self._find(number))

    def change(self, number: int, interval_ms: int) -> Subscription:
        """Have a subscription come at another interval; the caller answers, then calls `snapshot`.

        Raises:
            RefusedError: there is none of this number, or it has no interval.
        """
        subscription = self._find(number)
        if subscription.waits_until_s is not None:
            raise RefusedError(Code.BAD_FIELD, "interval_ms: a single snapshot has none")
        subscription.interval_ms = interval_ms
        self._move(subscription)
        return subscription

    def snapshot(self, subscription: Subscription) -> None:
        """Send a subscription's state, or do so when the connection can take it."""
        if self.is_behind:
            subscription.needs_snapshot = True
        else:
            self._snapshot(subscription)
            self._places.seat(subscription)

    def _find(self, number: int) -> Subscription:
        subscription = self.subscriptions.get(number)
        if subscription is None:
            raise RefusedError(Code.NO_SUCH_SUBSCRIPTION, f"there is no subscription {number}")
        return subscription

    # --- what is sent ---

    def _snapshot(
        self, subscription: Subscription, from_seq: int | None = None, rows: int | None = 0, reason: str = ""
    ) -> None:
        """Send the state of a channel, and before it what was left out on the way there: a lag, if there is a reason.

        Where the state itself misses something, that is the reason, even if nothing was left out.
        """
        lane = subscription.lane
        self._places.tell_news(lane)
        if not self._batcher.ledger.is_whole(subscription.seat.channel):
            reason = "incomplete"
        if reason:
            self._say_lag(subscription, lane.seq if from_seq is None else from_seq, rows, reason)
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
        self._places.unseat(subscription)
        channel = replace(seat.channel, interval_ms=interval_ms)
        subscription.lane, subscription.seat = self._join(channel, subscription.upstreams)
        subscription.counted = subscription.lane.encoder.count(subscription.seat.index)
        self._batcher.leave(lane, seat)
        if self.is_behind:
            self._places.seat(subscription)

    def reseat(self) -> None:
        """Have all frames sent anew, because the outlet is another one than it was: `is_capped` has changed."""
        self._places.renew()

    # --- slowness ---

    def fall_behind(self) -> None:
        """Send nothing more until `catch_up`: what was given to the outlet so far still goes out."""
        if self.is_behind:
            return
        self._places.close()
        self._tally.fallen_behind += 1
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
        for subscription in self.subscriptions.values():
            if subscription.waits_until_s is not None:
                continue
            self._places.tell_news(subscription.lane)
            count = subscription.lane.encoder.count(subscription.seat.index)
            missed = subscription.missed + count - subscription.counted
            if missed or subscription.is_unknown:
                rows = None if subscription.is_unknown else missed
                self._snapshot(subscription, subscription.from_seq, rows, "slow")
            elif subscription.needs_snapshot:
                self._snapshot(subscription)
            subscription.missed, subscription.is_unknown = 0, False
        self._places.open()

    def set_pace(self, steps: int) -> None:
        """Have all subscriptions come at intervals that are so many steps longer than those asked for, and say so."""
        self._tally.slowed += steps > self._steps
        self._steps = steps
        for subscription in self.subscriptions.values():
            interval_ms = slowed(subscription.interval_ms, steps)
            if interval_ms != subscription.seat.channel.interval_ms and subscription.waits_until_s is None:
                self._move(subscription)
                channels = [self.described(subscription, subscription.lane.seq)]
                self.say("slowed", subscription=subscription.number, interval_ms=interval_ms, channels=channels)
                self.snapshot(subscription)

    def lose(self, loss: Loss) -> None:
        """Tell of rows that were overwritten before they were read, or could not be encoded."""
        if loss.audience is not None and self._places.audience(loss.lane) is not loss.audience:
            return
        for subscription in self.subscriptions.values():
            if subscription.lane is not loss.lane or subscription.seat not in loss.seats:
                continue
            if subscription.seat in loss.broken:
                self.cut()
            elif self.is_behind:
                subscription.is_unknown = True
            elif subscription.waits_until_s is None:
                self._snapshot(subscription, loss.from_seq, None, "overrun")

    def cut(self) -> None:
        """Break the connection off: it can't be told what it lacks. Its client comes back and resumes."""
        self._outlet.cut()

    # --- what becomes of subscriptions ---

    def serve_once(self, now_s: float) -> None:
        """Send the snapshots of those who want no more than one, as soon as there is data, or no hope of it."""
        for subscription in list(self.subscriptions.values()):
            if subscription.waits_until_s is not None:
                self._serve(subscription, is_over=now_s >= subscription.waits_until_s)

    def _serve(self, subscription: Subscription, *, is_over: bool) -> None:
        seat, encoder = subscription.seat, subscription.lane.encoder
        is_known = seat.is_known or encoder.count(seat.index) > 0
        if (is_known or is_over) and not self.is_behind:
            self._batcher.flush(subscription.lane.interval_ms)
            self._snapshot(subscription)
            message = "the snapshot was sent" if is_known else "no data has come: the snapshot is empty"
            self.end(subscription, Code.DONE, message)

    def tell_state(self, subscription: Subscription, upstream: Upstream) -> None:
        """Send how the subscription at IB fares, unless that was sent last."""
        state = upstream.state
        if upstream.told != state:
            upstream.told = ""
        if subscription.told_state != state:
            subscription.told_state = state
            reason = upstream.stream.subscription.reason
            self.say("state", subscription=subscription.number, state=state, reason=reason)

    def tell_gap(self, subscription: Subscription, row: Any) -> None:
        """Tell of an interruption of the source, unless that was done, or was before the subscription began."""
        if row["seq"] <= subscription.told_seq:
            return
        subscription.told_seq = int(row["seq"])
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
        try:
            self._give_up(subscription)
        finally:
            self._on_ended(subscription)

    def _give_up(self, subscription: Subscription) -> None:
        """Have nothing of a subscription any more, but its shares of what is open at the gateway."""
        del self.subscriptions[subscription.number]
        for upstream in subscription.upstreams:
            upstream.users.discard((self, subscription))
        try:
            self._places.unseat(subscription)
        finally:
            self._batcher.leave(subscription.lane, subscription.seat)

    def leave(self) -> None:
        """End all subscriptions, because the connection ends."""
        for subscription in list(self.subscriptions.values()):
            self._end(subscription)
