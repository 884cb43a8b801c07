"""From rings to frames: each interval reads what is new, each channel is encoded once, each audience gets one write.

The rule of the file: the feed's rings are read and never waited for, in the thread that fills them, so that `feed.seq`
is published whenever this code runs. It is told when a window ends; it knows no clock, no socket, and no policy.

A fault ends nothing but the work on what it is about: a channel, an audience, or a lane. Its subscribers are told what
they have lost by it before they are sent a sequence number that is beyond.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ibfast.fanout.encoding.channels import Channel
from ibfast.fanout.encoding.dialect import Audience, Dialect, Encoder, Members, Outlet, Rows
from ibfast.fanout.encoding.state_cache import Keeps, Ledger, Since
from ibfast.fanout.faults import OnFault
from ibfast.feed.feed import Feed
from ibfast.feed.ring import Reader

__all__ = ["Batcher", "Lane", "Loss", "Seat"]

AT_ONCE = (1 << 63) - 1
"""The end of a window that waits for nothing."""

Write = Callable[[bytes, Audience], None]
"""Sends frames to all members of an audience; raises nothing."""


@dataclass(slots=True, eq=False)
class Seat:
    """A channel's place in its lane's encoder.

    Attributes:
        channel: which.
        index: the encoder's.
        is_known: whether there was anything to begin with.
        shares: subscriptions that have it.
    """

    channel: Channel
    index: int
    is_known: bool
    shares: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that subscribers of a lane are not sent: those after a sequence number, up to the lane's.

    Attributes:
        lane: which.
        from_seq: what was sent is complete up to here.
        seats: of the channels that have lost rows; they go on from a new state.
        broken: those of them that can't go on.
        audience: the only one that has lost them; None: everybody who has the channels.
    """

    lane: Lane
    from_seq: int
    seats: Collection[Seat]
    broken: Collection[Seat] = ()
    audience: Audience | None = None


class Window:
    """How far the rings were read for one interval."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._readers: dict[str, Reader] = {}
        self._lost = 0
        self.lanes: list[Lane] = []

    def add(self, families: Iterable[str]) -> None:
        """Read these too, from now on."""
        for family in families:
            if family not in self._readers:
                self._readers[family] = getattr(self._feed, family).reader(start="next")

    def read(self, keeps: Keeps) -> tuple[dict[str, NDArray[Any]], bool]:
        """Return what is new by family, and whether rows were overwritten before they were read."""
        found: dict[str, NDArray[Any]] = {}
        for family, reader in self._readers.items():
            if reader.pending:
                rows = reader.read()
                kept = keeps(rows["req_id"])
                rows = rows if kept.all() else rows[kept]
                if len(rows):
                    found[family] = rows
        lost = sum(reader.lost for reader in self._readers.values())
        is_overrun, self._lost = lost > self._lost, lost
        return found, is_overrun

    def skip(self) -> None:
        """Pass over what is new: a part of it may have been read."""
        self._lost = 0
        self._readers = {family: self._feed.rings[family].reader(start="next") for family in self._readers}


class Lane:
    """The channels of one dialect, interval and unit of time, and who has them.

    Attributes:
        encoder: theirs.
        interval_ms: theirs.
        seq: what was encoded is complete up to here.
        told: the encoder's version of which all audiences were told.
        audiences: those who have the same channels under the same numbers, by these.
        renewals: what is to be done before the next window is encoded, by whose business it is: connections that get
            other channels from there on are admitted once.
    """

    def __init__(self, encoder: Encoder, interval_ms: int, seq: int, new_members: Callable[[], Members]) -> None:
        self.encoder = encoder
        self.interval_ms = interval_ms
        self.seq = seq
        self.told = encoder.version
        self._encoded: tuple[list[Audience], int] = [], self.told
        self._new_members = new_members
        self.seats: dict[Channel, Seat] = {}
        self.audiences: dict[tuple[Any, ...], Audience] = {}
        self.renewals: dict[Hashable, Callable[[], None]] = {}

    def admit(self, outlet: Outlet, channels: Iterable[tuple[int, int]]) -> Audience:
        """Have a connection get the frames of these channels: pairs of its own number and the encoder's index."""
        pairs = tuple(sorted(channels))
        key = (pairs, outlet.is_deflated, outlet.is_capped)
        audience = self.audiences.get(key)
        if audience is None:
            ids, indices = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
            audience = Audience(ids, indices, outlet.is_deflated, self._new_members(), outlet.is_capped)
            self.audiences[key] = audience
        audience.members.add(outlet.member)
        return audience

    def dismiss(self, outlet: Outlet, audience: Audience) -> None:
        """Send a connection nothing more."""
        audience.members.discard(outlet.member)
        if not len(audience.members):
            pairs = tuple(zip(audience.ids, audience.indices, strict=True))
            del self.audiences[pairs, audience.is_deflated, audience.is_capped]

    def encode(self, rows: Rows, until_ns: int, seq: int, on_fault: OnFault) -> tuple[list[Seat], list[Audience]]:
        """Encode what is new, for `send`.

        Returns:
            The channels, and the audiences, that have lost it by a fault.
        """
        encoder = self.encoder
        audiences: list[Audience] = []
        lost: set[int] = set()
        failed: list[Audience] = []
        if rows:
            encoder.push(rows)
        version, is_first = self.told, True
        while encoder.advance(until_ns, seq):
            if is_first:
                self._renew(on_fault)
                audiences, is_first = list(self.audiences.values()), False
            for index, error in encoder.faults():
                on_fault("channel", error)
                lost |= set() if index is None else {index}
            news = encoder.prelude(version) if encoder.version != version else b""
            version = encoder.version
            for audience in audiences:
                try:
                    frame = encoder.splice(audience)
                except Exception as error:
                    on_fault("audience", error)
                    failed.append(audience)
                    continue
                if news or frame:
                    audience.parts.append(news + frame)
            if failed:
                audiences = [audience for audience in audiences if audience not in failed]
        self._encoded = audiences, version
        self._note(seq)
        for audience in failed:
            audience.forget()
        return [seat for seat in self.seats.values() if seat.index in lost] if lost else [], failed

    def _renew(self, on_fault: OnFault) -> None:
        for renew in tuple(self.renewals.values()):
            try:
                renew()
            except Exception as error:
                on_fault("audience", error)

    def send(self, write: Write) -> None:
        """Give every audience its share of what was encoded, in one write."""
        (audiences, self.told), self._encoded = self._encoded, ([], self.told)
        for audience in audiences:
            parts = audience.parts
            if parts:
                frames = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                write(frames, audience)

    def drop(self, seq: int) -> None:
        """Send nobody what was still to come up to here; all channels must be restarted."""
        self.encoder.drop()
        for audience in self.audiences.values():
            audience.forget()
        self.seq = seq

    def _note(self, seq: int) -> None:
        pending_since = self.encoder.pending_since
        self.seq = seq if pending_since is None else max(self.seq, pending_since)


class Batcher:
    """All lanes of a feed.

    Args:
        feed: whose rings are read.
        keeps: which rows are for subscribers.
        write: sends frames to the members of an audience.
        new_members: makes an empty set of members.
        on_window: told of an interval whose windows end from now on.
        on_loss: told what subscribers of a lane have lost, and have to be told before anything else of it.
        on_fault: told of what has failed.

    Attributes:
        feed, keeps: as given.
        ledger: what is known of each instrument.
        windows: by interval: those whose end has to be told by `flush`.
    """

    def __init__(
        self,
        feed: Feed,
        keeps: Keeps,
        write: Write,
        new_members: Callable[[], Members],
        on_window: Callable[[int], None],
        on_loss: Callable[[Loss], None],
        on_fault: OnFault,
    ) -> None:
        self.feed = feed
        self.keeps = keeps
        self.ledger = Ledger(feed, keeps, on_fault)
        self._write = write
        self._new_members = new_members
        self._on_window = on_window
        self._on_loss = on_loss
        self._on_fault = on_fault
        self.windows: dict[int, Window] = {}
        self._lanes: dict[tuple[str, int, str], Lane] = {}

    def flush(self, interval_ms: int, until_ns: int = AT_ONCE) -> None:
        """Send what is new at an interval.

        Args:
            interval_ms: which.
            until_ns: where its window ends; by default all that there is is sent, ended or not.
        """
        window = self.windows.get(interval_ms)
        if window is None:
            return
        seq = self.feed.seq
        try:
            rows, is_overrun = window.read(self.keeps)
        except Exception as error:
            self._on_fault("window", error)
            window.skip()
            rows, is_overrun = {}, True
        for lane in tuple(window.lanes):
            before = lane.seq
            if not is_overrun:
                try:
                    seats, audiences = lane.encode(rows, until_ns, seq, self._on_fault)
                except Exception as error:
                    self._on_fault("lane", error)
                else:
                    if seats:
                        self._restart(lane, seats, before)
                    for audience in audiences:
                        self._on_loss(Loss(lane, before, tuple(lane.seats.values()), audience=audience))
                    lane.send(self._write)
                    continue
            lane.drop(seq)
            self._restart(lane, tuple(lane.seats.values()), before)

    def _restart(self, lane: Lane, seats: Collection[Seat], from_seq: int) -> None:
        """Have channels go on from what is known of them, because rows were lost."""
        broken = []
        for seat in seats:
            try:
                state = self.ledger.rows(seat.channel)
                seat.is_known = bool(state)
                lane.encoder.restart(seat.index, state, lane.seq)
            except Exception as error:
                self._on_fault("channel", error)
                broken.append(seat)
        self._on_loss(Loss(lane, from_seq, seats, broken))

    def _restart_all(self, channel: Channel) -> None:
        """Have all channels with families of this one go on from what is known of them."""
        for window_ms in tuple(self.windows):
            self.flush(window_ms)
        for lane in tuple(self._lanes.values()):
            seats = [seat for other, seat in lane.seats.items() if other.overlaps(channel)]
            if seats:
                self._restart(lane, seats, lane.seq)

    def join(self, dialect: Dialect, channel: Channel, since: Since) -> tuple[Lane, Seat]:
        """Take a share in a channel, which is complete up to its lane's `seq`.

        Args:
            dialect: how it is to be said.
            channel: what.
            since: where its state begins.
        """
        self.flush(channel.interval_ms)
        if self.ledger.begin(channel, since):
            self._restart_all(channel)
        lane = self._lane(dialect, channel)
        seat = lane.seats.get(channel)
        if seat is None:
            try:
                self.windows[channel.interval_ms].add(channel.families)
                state = self.ledger.rows(channel)
                seat = Seat(channel, lane.encoder.add(channel, state, lane.seq), bool(state))
            except BaseException:
                self._close_unused(lane)
                raise
            lane.seats[channel] = seat
        seat.shares += 1
        return lane, seat

    def leave(self, lane: Lane, seat: Seat) -> None:
        """Give a share back; what nobody has is not encoded any more."""
        seat.shares -= 1
        if seat.shares:
            return
        del lane.seats[seat.channel]
        try:
            lane.encoder.remove(seat.index)
        finally:
            self._close_unused(lane)

    def _close_unused(self, lane: Lane) -> None:
        if not lane.seats:
            self._lanes = {key: other for key, other in self._lanes.items() if other is not lane}
            window = self.windows[lane.interval_ms]
            window.lanes.remove(lane)
            if not window.lanes:
                del self.windows[lane.interval_ms]

    def _lane(self, dialect: Dialect, channel: Channel) -> Lane:
        key = (dialect.name, channel.interval_ms, channel.unit)
        if key not in self._lanes:
            encoder = dialect.encoder(channel.interval_ms, channel.unit)
            lane = Lane(encoder, channel.interval_ms, self.feed.seq, self._new_members)
            if channel.interval_ms not in self.windows:
                self.windows[channel.interval_ms] = Window(self.feed)
                try:
                    self._on_window(channel.interval_ms)
                except BaseException:
                    del self.windows[channel.interval_ms]
                    raise
            self._lanes[key] = lane
            self.windows[channel.interval_ms].lanes.append(lane)
        return self._lanes[key]
