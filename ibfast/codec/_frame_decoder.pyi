from typing import Any

from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

from ibfast.codec.spec import ChannelSpec

MOST_ROWS_OF_A_MESSAGE: int

@disjoint_base
class Decoded:
    rows: dict[str, NDArray[Any]]
    order: bytes
    is_snapshot: bool
    channel: int
    seq: int
    time_ns: int
    lag: tuple[str, int, int, int | None] | None
    text: tuple[int, str] | None

@disjoint_base
class FrameDecoder:
    def __new__(cls) -> FrameDecoder: ...
    def open(self, channel: int, spec: ChannelSpec) -> None: ...
    def close(self, channel: int) -> None: ...
    def decode(self, message: Buffer) -> Decoded: ...
