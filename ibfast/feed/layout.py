"""The layout of a feed's memory, the same for its creator and for processes that attach to it.

The rule of the file: positions and dtypes, which follow from the bounds in the header alone. It touches no memory.

    header │ control │ last │ instruments │ text offsets │ text bytes │ ring │ ring │ …      each part 64-byte aligned
"""

from __future__ import annotations

import hashlib

import numpy as np

from ibfast.feed._feed import DTYPES, TABLES_CONTROL_BYTES
from ibfast.feed._ring import CONTROL_BYTES
from ibfast.records import FAMILIES

__all__ = ["CONTROL", "FINGERPRINT", "HEADER", "MAGIC", "RINGS", "FeedLayout"]

RINGS = (*FAMILIES, "gaps")

MAGIC = int.from_bytes(b"ibfast\0\2", "little")
HEADER = np.dtype(
    [
        ("magic", "u8"),
        ("total_bytes", "u8"),
        ("capacity", "u8"),
        ("max_instruments", "u4"),
        ("max_texts", "u4"),
        ("text_bytes", "u8"),
        ("layout", "u8"),
        ("reserved", "u8", 2),
    ]
)
CONTROL = np.dtype([("instruments", "u8"), ("texts", "u8"), ("text_bytes", "u8"), ("texts_refused", "u8"),
                    ("instruments_refused", "u8")])  # fmt: skip
MEAN_TEXT_BYTES = 64


class FeedLayout:
    """Position and size of each part, for given bounds."""

    def __init__(self, capacity: int, max_instruments: int, max_texts: int) -> None:
        self.capacity = capacity
        self.max_instruments = max_instruments
        self.max_texts = max_texts
        self.text_bytes = max_texts * MEAN_TEXT_BYTES
        sizes = {
            "header": HEADER.itemsize,
            "control": TABLES_CONTROL_BYTES,
            "last": max_instruments * DTYPES["last"].itemsize,
            "instruments": max_instruments * DTYPES["instruments"].itemsize,
            "text_offsets": 4 * (max_texts + 1),
            "text_arena": self.text_bytes,
            **{name: CONTROL_BYTES + capacity * DTYPES[name].itemsize for name in RINGS},
        }
        self.parts: dict[str, tuple[int, int]] = {}
        end = 0
        for name, size in sizes.items():
            self.parts[name] = (end, size)
            end = (end + size + 63) & ~63
        self.total_bytes = end


def _fingerprint() -> int:
    """A number that differs when any record differs: two releases never misread each other's rows."""
    text = repr([(name, DTYPES[name].descr, DTYPES[name].itemsize) for name in sorted(DTYPES)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


FINGERPRINT = _fingerprint()
