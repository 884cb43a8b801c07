"""One connection of a stream's client: its subscriptions, its channels, and up to where everything has come.

The rule of the file: what dies with a connection stands here; what is to outlive it goes into the `Wish`.
What has come is known by the class of a channel's windows, since a window says up to where its class is complete, and
by snapshots and lags of the channel itself.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ibfast.client.rows import ChannelInfo, Received, Rows, number_of, text_of
from ibfast.client.updates import Instruments, Lag
from ibfast.codec.positions import class_of, position_of, seq_of
from ibfast.errors import ProtocolError, StreamError

__all__ = ["Request", "Session", "Wish"]

NOTHING_SEEN: Final = -1
"""In the place of a sequence number: nothing has come."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Up to where everything of a subscription has come, in the server's words.

    Attributes:
        epoch, position: of its channel.
        interval_ms: that was asked for then, None: none was. The epoch is of this one.
    """

    epoch: str
    position: int
    interval_ms: int | None


@dataclass(eq=False, slots=True)
class Wish:
    """A subscription that is wanted, whatever happens to connections.

    Attributes:
        number: this client's own, stable.
        request: the fields of `subscribe`.
        ticker: the instrument's label.
        state: PENDING until the server has taken it; then as the server says; RECONNECTING; ENDED.
        reason: why, where that is not obvious.
        slowed_to_ms: the interval at which it comes now, where the server has slowed it; else None.
        error: why it ended by itself.
        is_over: whether nothing of it can come any more.
        is_withdrawn: whether the user wants it no more.
        was_live: whether the server has ever taken it.
        server_number: the server's, None while it has none.
        channels: those that are open for it, by number.
        seen: from where it can go on; None: only its state can come next.
    """

    number: int
    request: dict[str, Any]
    ticker: str
    state: str = "PENDING"
    reason: str = ""
    slowed_to_ms: int | None = None
    error: StreamError | None = None
    is_over: bool = False
    is_withdrawn: bool = False
    was_live: bool = False
    server_number: int | None = None
    channels: dict[int, ChannelInfo] = field(default_factory=dict)
    seen: Seen | None = None

    @property
    def combo_legs(self) -> str:
        """What distinguishes a combo from all others, which may have the same label; "" of all else."""
        return str((self.request.get("contract") or {}).get("combo_legs", ""))

    def end(self) -> None:
        """Let nothing of it follow."""
        self.is_over, self.state = True, "ENDED"


@dataclass(eq=False, slots=True)
class Request:
    """Something that is asked of the server."""

    op: str
    wish: Wish
    interval_ms: int | None = None
    body: dict[str, Any] = field(default_factory=dict)
    """As it was sent."""

    def compose(self) -> Mapping[str, Any]:
        """Return its fields, as of now."""
        wish = self.wish
        self.body = {"subscription": wish.server_number}
        if self.op == "subscribe":
            self.body = dict(wish.request)
            if wish.seen is not None and wish.request.get("mode") != "snapshot":
                self.body |= {"resume": {"epoch": wish.seen.epoch, "position": wish.seen.position}}
                self.body.pop("interval_ms", None)
                if wish.seen.interval_ms is not None:
                    self.body["interval_ms"] = wish.seen.interval_ms
        elif self.interval_ms is not None:
            self.body["interval_ms"] = self.interval_ms
        return self.body


@dataclass(slots=True)
class Session:
    """What dies with a connection.

    Attributes:
        rows: what rows are read with.
        instruments: where those of its channels are entered.
        is_welcome: whether the server has spoken.
        requests: those without an answer, by id.
        wishes: by the server's number.
    """

    rows: Rows
    instruments: Instruments
    is_welcome: bool = False
    requests: dict[int, Request] = field(default_factory=dict)
    wishes: dict[int, Wish] = field(default_factory=dict)
    _owners: dict[int, Wish] = field(default_factory=dict)
    """Wish by channel."""
    _void: set[int] = field(default_factory=set)
    """Channels whose state is to come."""
    _untold: set[int] = field(default_factory=set)
    """Those of which rows may be left out that no lag has told."""
    _segments: dict[int, list[int]] = field(default_factory=dict)
    """By class, the newest seq of its windows, for each time between two subscriptions of that class."""

    # --- subscriptions ---

    def begin(self, wish: Wish, said: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
        """Take what the server says of a subscription that it has taken.

        Args:
            wish: which.
            said: the fields of `subscribed`.
            asked: those of `subscribe`.

        Returns:
            Whether it goes on where it was.
        """
        number = number_of(said, "subscription")
        if number in self.wishes:
            raise ProtocolError(f"the server has two subscriptions of number {number}")
        self.wishes[number], wish.server_number = wish, number
        self.open(wish, said["channels"])
        if "resume" in asked and said["resumed"] is True:
            for channel in wish.channels.values():
                channel.seq = seq_of(asked["resume"]["position"])
            return True
        self._void |= wish.channels.keys()
        if wish.was_live and wish.request.get("mode") != "snapshot":
            self._untold |= wish.channels.keys()
        return False

    def change(self, wish: Wish, said: Mapping[str, Any]) -> None:
        """Take other channels for a subscription, whose state is to come; until then it can go on from the old ones."""
        self.remember(wish)
        self.close(wish)
        self.open(wish, said["channels"])
        self._void |= wish.channels.keys()

    def open(self, wish: Wish, described: list[dict[str, Any]]) -> None:
        """Open a subscription's channels."""
        if len(described) != 1:
            raise ProtocolError(f"the server has {len(described)} channels for one subscription")
        for table in described:
            number = number_of(table, "channel")
            if number in self._owners:
                raise ProtocolError(f"the server opens channel {number}, which is open")
            label, con_id, exchange = text_of(table, "symbol"), number_of(table, "con_id"), text_of(table, "exchange")
            instrument = self.instruments.add(label, con_id, exchange, wish.combo_legs)
            channel = ChannelInfo.of(table, instrument)
            self.rows.open(number, channel)
            segments = self._segments.setdefault(channel.cls, [])
            channel.segment = len(segments)
            segments.append(NOTHING_SEEN)
            wish.channels[number], self._owners[number] = channel, wish
            wish.ticker = self.instruments[instrument]

    def close(self, wish: Wish) -> None:
        """Close a subscription's channels."""
        for number in wish.channels:
            self.rows.close(number)
            self._owners.pop(number)
            self._void.discard(number)
            self._untold.discard(number)
        wish.channels.clear()

    def end(self, wish: Wish) -> None:
        """Forget a subscription."""
        self.close(wish)
        if wish.server_number is not None:
            del self.wishes[wish.server_number]
            wish.server_number = None
        wish.end()

    def remember(self, wish: Wish) -> None:
        """Note up to where everything of a subscription has come, unless its state is to come."""
        for number, channel in wish.channels.items():
            if number not in self._void:
                seq = max(channel.seq, *self._segments[channel.cls][channel.segment :])
                wish.seen = Seen(channel.epoch, position_of(seq, channel.cls), wish.request.get("interval_ms"))

    # --- rows ---

    def take(self, received: Received) -> list[Lag]:
        """Note what has come; return what was left out."""
        lags = []
        if received.lag is not None:
            lags.append(self.lag(*received.lag))
        number = received.snapshot_of
        if number is not None:
            channel = self._owner(number).channels[number]
            if number in self._untold:  # the server has not said it: nothing may be left out unseen
                lags.append(self.lag(number, 0, received.seq, None, ""))
            self._void.discard(number)
            channel.seq = received.seq
        elif received.cls in self._segments:
            segments = self._segments[received.cls]
            segments[-1] = max(segments[-1], received.seq)
        return lags

    def complete(self, position: int) -> None:
        """Note that everything of a class has come up to this."""
        segments = self._segments.get(class_of(position))
        if segments is not None:
            segments[-1] = max(segments[-1], seq_of(position))

    def lag(self, number: int, from_seq: int, to_seq: int, rows: int | None, reason: str) -> Lag:
        """Note that rows were left out of a channel, whose state is to come; return what to tell."""
        wish = self._owner(number)
        if number in self._untold:
            self._untold.discard(number)
            reason = "resume"
        self._void.add(number)
        wish.seen = None  # what it was is not known any more: rows could not be added to it
        return Lag(wish.ticker, wish.channels[number].instrument, from_seq, to_seq, rows, reason)

    def instrument_of(self, number: int) -> int:
        """Return the instrument of a channel."""
        return self._owner(number).channels[number].instrument

    def _owner(self, number: int) -> Wish:
        wish = self._owners.get(number)
        if wish is None:
            raise ProtocolError(f"the server speaks of channel {number}, which is not open")
        return wish
