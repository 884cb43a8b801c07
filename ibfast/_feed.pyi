from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from ibfast._ring import Ring

ACTIVITY: np.dtype[Any]
DTYPES: dict[str, np.dtype[Any]]
NO_INSTRUMENT_INDEX: int
TABLES_CONTROL_BYTES: int

@disjoint_base
class FeedCore:
    ticks_ring: Ring
    trades_ring: Ring
    quotes_ring: Ring
    depth_ring: Ring
    bars_ring: Ring
    greeks_ring: Ring
    gaps_ring: Ring
    def __new__(
        cls,
        memory: Any,
        offsets: dict[str, int],
        rings: dict[str, Any],
        max_instruments: int,
        max_texts: int,
        arena_bytes: int,
    ) -> FeedCore: ...
    @property
    def seq(self) -> int: ...
    def take_rings(self, rings: dict[str, Any]) -> None: ...
    def add_instrument(self, label: str, con_id: int = 0) -> int: ...
    @property
    def late(self) -> int: ...
    def next_req_id(self) -> int: ...
    def bind(self, req_id: int, instrument: int, sec_type: str = "") -> None: ...
    def instrument_of_request(self, req_id: int) -> int | None: ...
    def forget_all_requests(self) -> None: ...
    def forget_request(self, req_id: int) -> None: ...
    def activity(self, req_ids: NDArray[np.int32]) -> NDArray[np.void]: ...
    def end_gap(self, req_id: int, scope: int, cause: int, first_seq: int, first_ns: int) -> None: ...
    def hold_gap(self, req_id: int) -> None: ...
    def add_book_reset(self, recv_ns: int, req_id: int) -> None: ...
    def text_id(self, text: str) -> int: ...
    def add_history(self, ring: str, rows: NDArray[np.void]) -> None: ...
    def add_gap(
        self,
        recv_ns: int,
        scope: int,
        cause: int,
        instrument: int,
        req_id: int,
        first_seq: int,
        last_seq: int,
        first_ns: int,
        last_ns: int,
        count: int,
        recovered: bool,
    ) -> None: ...
