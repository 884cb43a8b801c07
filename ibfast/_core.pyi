from datetime import tzinfo
from typing import NamedTuple

from typing_extensions import Buffer, disjoint_base

from ibfast.feed._feed import FeedCore
from ibfast.feed.feed import Feed

QUARANTINE_SIZE: int
QUARANTINE_BYTES: int

class Quarantined(NamedTuple):
    reason: str
    msg_id: int
    payload: bytes
    offset: int

@disjoint_base
class Message(tuple[int, bytes, bool]):
    seq: int
    recv_ns: int

@disjoint_base
class Decoder:
    core: FeedCore
    server_version: int
    messages: int
    quarantined: int
    quarantine_dropped: int
    bytes_received: int
    pauses: bool
    @property
    def paused(self) -> bool: ...
    def __new__(cls, feed: Feed, server_version: int = 178, zone: tzinfo | None = None) -> Decoder: ...
    def get_buffer(self, sizehint: int = -1) -> memoryview: ...
    def buffer_updated(self, nbytes: int, recv_ns: int = 0) -> int: ...
    def feed_bytes(self, data: Buffer, recv_ns: int = 0) -> int: ...
    def quarantine(self, msg_id: int, payload: bytes, reason: str) -> None: ...
    def take_messages(self) -> list[Message]: ...
    def take_quarantine(self) -> list[Quarantined]: ...
