"""The hand-written C parser (cparser.c) behind ctypes: one call for the whole stream."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
from worker import LAST_TIMESTAMP, RT_VOLUME, Events, serve

RAW_ID_SINCE = 201
CAPACITY = 1 << 16
RECORD = np.dtype({
    "names": ["req_id", "kind", "attribs", "tick_type", "event", "a", "b", "c", "d", "text", "text_nbytes", "more",
              "more_nbytes"],
    "formats": ["i4", "u1", "u1", "i2", "i8", "f8", "f8", "f8", "f8", "u4", "u4", "u4", "u4"],
    "offsets": [16, 20, 21, 22, 24, 32, 40, 48, 56, 48, 52, 56, 60],
    "itemsize": 64,
})  # fmt: skip
PRICE, SIZE, GENERIC, STRING, BY_TICK_BID_ASK = 1, 2, 45, 46, 3


class CParser:
    """The parser with a ring as large as ibfast's."""

    read_nbytes = 0  # everything in one call

    def __init__(self, server_version: int) -> None:
        self._library = ctypes.CDLL(sys.argv[1])
        self._library.cparser_parse.restype = ctypes.c_int64
        self._raw_id = server_version >= RAW_ID_SINCE
        self._ring = _aligned_ring(CAPACITY)

    def _parse(self, data: bytes, ring: np.ndarray) -> int:
        messages = self._library.cparser_parse(
            data,
            ctypes.c_size_t(len(data)),
            ring.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_uint64(len(ring) - 1),
            ctypes.c_int(self._raw_id),
            ctypes.c_int64(1),
        )
        if messages < 0:
            raise AssertionError(f"the frame at {-messages - 1} does not parse")
        return int(messages)

    def run(self, chunks: list[bytes]) -> None:
        self._parse(chunks[0], self._ring)

    def verify(self, chunks: list[bytes], events: Events) -> None:
        (data,) = chunks
        ring = _aligned_ring(1 << (len(data) // 8).bit_length())
        for row in ring[: self._parse(data, ring)]:
            _report(row, data, events)


class Floor:
    """The walk over the frames alone. What it sees can't be verified, its count is."""

    read_nbytes = 0

    def __init__(self, server_version: int) -> None:
        self._library = ctypes.CDLL(sys.argv[1])
        self._library.cparser_frames.restype = ctypes.c_int64
        self._sum = ctypes.c_uint64()

    def run(self, chunks: list[bytes]) -> int:
        (data,) = chunks
        return int(self._library.cparser_frames(data, ctypes.c_size_t(len(data)), ctypes.byref(self._sum)))

    def verify(self, chunks: list[bytes], events: Events) -> None:
        events.count = self.run(chunks)


def _aligned_ring(capacity: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(-1, capacity * RECORD.itemsize), RECORD)


def _report(row: np.void, data: bytes, events: Events) -> None:
    def text(offset: str, nbytes: str) -> str:
        return data[row[offset] : row[offset] + row[nbytes]].decode()

    names = ("kind", "req_id", "tick_type", "event", "a", "b", "attribs")
    kind, req_id, tick_type, event, a, b, attribs = (row[name].item() for name in names)
    if kind == PRICE:
        events.price_and_size(req_id, tick_type, a, b, attribs)
    elif kind == SIZE:
        events.size(req_id, tick_type, b)
    elif kind == GENERIC:
        events.generic(req_id, tick_type, a)
    elif kind == STRING and tick_type == LAST_TIMESTAMP:
        events.timestamp(req_id, a)
    elif kind == STRING and tick_type == RT_VOLUME:
        events.rt_volume(req_id, a, b, event)
    elif kind == STRING:
        events.string(req_id, tick_type, text("text", "text_nbytes"))
    elif tick_type == BY_TICK_BID_ASK:
        events.bid_ask(req_id, event, a, b, row["c"].item(), row["d"].item(), attribs)
    else:
        events.last(req_id, tick_type, event, a, b, attribs, text("text", "text_nbytes"), text("more", "more_nbytes"))


if __name__ == "__main__":
    serve(Floor if "--floor" in sys.argv else CParser)
