"""The door between the batcher and the dialects: what an encoder is asked, and what it is given.

The rule of the file: types only. An encoder serves all channels of one window length; the work of a window is done per
channel, and what is left per subscriber is the splicing of finished pieces.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from ibfast.fanout.encoding.channels import Channel

__all__ = ["Audience", "Dialect", "Encoder", "Members", "Outlet", "Replay", "Rows"]

Rows: TypeAlias = Mapping[str, NDArray[Any]]
"""Family → rows of its ring's dtype, in the order of `seq`; families without rows are absent."""


class Outlet(Protocol):
    """A connection, as far as whoever has something to say to it needs to know.

    Attributes:
        member: what stands for it in an audience.
        is_deflated: whether it has negotiated compression.
    """

    member: Any
    is_deflated: bool

    @property
    def is_capped(self) -> bool:
        """Whether the bytes that it gets are to be counted."""

    def write(self, frames: bytes) -> None:
        """Send complete frames; never waits, and leaves nothing out."""

    def watch(self) -> None:
        """Have it looked at soon, and again as long as it waits for anything."""

    def cut(self) -> None:
        """Break it off, since nobody knows what it was sent; the client comes back and resumes."""

    def answering(self) -> AbstractContextManager[None]:
        """Count what is written within against the rate at which the client may ask."""

    async def drained(self) -> None:
        """Wait until everything is on its way, or never will be."""


class Members(Protocol):
    """A set of connections, in the form that whoever writes to them likes best."""

    def __len__(self) -> int: ...

    def add(self, writer: Any, /) -> None:
        """Add one."""

    def discard(self, writer: Any, /) -> None:
        """Take one out."""


@dataclass(slots=True, eq=False)
class Audience:
    """Subscribers with the same channels under the same numbers: one frame serves them all.

    Attributes:
        ids: channel numbers, ascending.
        indices: the encoder's indices of these channels.
        is_deflated: whether they have negotiated compression.
        members: who is to get the frames.
        is_capped: whether their bytes are counted.
        written_s: when they last got one, by the clock of whoever writes.
        cache: for the encoder, which may keep here what it derives from `ids` and `indices`.
        parts: its frames until they are written; kept here, since a list for each in every window is work for the
            garbage collector.
    """

    ids: tuple[int, ...]
    indices: tuple[int, ...]
    is_deflated: bool
    members: Members
    is_capped: bool = False
    written_s: float = 0.0
    cache: Any = None
    parts: list[bytes] = field(default_factory=list)

    def forget(self) -> None:
        """Drop what was encoded and not written, and what the encoder believes its members to know by it."""
        self.parts.clear()
        self.cache = None


class Replay(Protocol):
    """Encodes the rows of a channel that a client has missed, whoever resumes at the same sequence number."""

    def begin(self) -> bytes:
        """Return the frames that come before the first rows."""

    def rows(self, rows: Rows, seq: int) -> bytes:
        """Return the frames of the channel's next rows, which are all of them up to a sequence number."""

    def end(self, seq: int) -> bytes:
        """Return the frames after which the channel goes on as after a snapshot; more rows may follow them elsewhere.

        Args:
            seq: up to which everything was encoded, here and by the encoder.
        """


class Encoder(Protocol):
    """Encodes the channels of one window length and one unit of time."""

    @property
    def version(self) -> int:
        """Grows when there is something that every subscriber must be told before the next frame: see `prelude`."""

    def add(self, channel: Channel, state: Rows, seq: int) -> int:
        """Take a channel, whose last rows up to a sequence number are these, and return its index."""

    def remove(self, index: int) -> None:
        """Forget a channel."""

    def describe(self, index: int) -> dict[str, Any]:
        """Return what a client must know to understand the channel, beyond what is common to all dialects."""

    @property
    def pending_since(self) -> int | None:
        """Up to which sequence number everything pushed was encoded, None: all of it was."""

    def push(self, rows: Rows) -> None:
        """Take what is new; rows of other instruments and kinds may be among it."""

    def advance(self, until_ns: int, seq: int) -> bool:
        """Encode the next window of what was pushed, for all channels; False if there is none left.

        Args:
            until_ns: a window that has not ended by then may wait for the rows that it may yet get.
            seq: up to which everything was pushed.
        """

    def faults(self) -> list[tuple[int | None, Exception]]:
        """Return, once, what has gone wrong in `advance`, each with the channel whose rows are lost by it, if any.

        Such a channel has no piece in that window; it must be restarted, and its subscribers told.
        """

    def drop(self) -> None:
        """Forget what was pushed and not encoded, in whatever condition `advance` was left; `restart` all channels."""

    def splice(self, audience: Audience) -> bytes:
        """Return the frame of the window just encoded for these channels, b"" if nothing of theirs is in it."""

    def count(self, index: int) -> int:
        """Return how many rows of the channel were encoded so far; conflation takes several for one."""

    def restart(self, index: int, state: Rows, seq: int) -> None:
        """Have a channel go on from these last rows up to a sequence number, whatever it was; as `add` does."""

    def greeting(self, audience: Audience) -> bytes:
        """Return the frames that who joins an audience must get before the next one of `splice`."""

    def prelude(self, since: int) -> bytes:
        """Return the frames that whoever was told everything of version `since` must be told now; 0 is nothing yet."""

    def snapshot(self, index: int, channel_id: int, seq: int) -> bytes:
        """Return the frame of the channel's state after the last window encoded, complete up to `seq`."""

    def replay(self, index: int, channel_id: int, after_seq: int) -> Replay:
        """Begin to encode rows of a channel's past.

        Args:
            index, channel_id: of the channel.
            after_seq: what the client has seen.
        """

    def lag(self, channel_id: int, from_seq: int, to_seq: int, rows: int | None, reason: str) -> bytes:
        """Return the frame that says what was left out of a channel: `rows` rows (None: not known) in (from, to]."""


class Dialect(Protocol):
    """How data is said.

    Attributes:
        name: the WebSocket subprotocol.
    """

    name: str

    def encoder(self, interval_ms: int, unit: str) -> Encoder:
        """Make an encoder."""
