"""Damage to a stream of frames on its way: where it breaks off, and which bytes are corrupted.

The rule of the file: bytes in, bytes out; no socket, no clock. Frames are found by their four-byte length alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

__all__ = ["Corruption", "Ending", "Tamper"]

_LENGTH_BYTES = 4


class Corruption(Enum):
    """How a frame is damaged."""

    IMPOSSIBLE_LENGTH = "its length is more than any frame has"
    WRONG_LENGTH = "its length is 512 off, so that it swallows its followers or ends within itself"
    GARBAGE = "random bytes instead of it and of all that follows"


class Ending(Enum):
    """How a connection ends."""

    CUT = "in good order (FIN)"
    RESET = "broken off (RST)"


_MASKS = {Corruption.IMPOSSIBLE_LENGTH: b"\x7f\0\0\0", Corruption.WRONG_LENGTH: b"\0\0\x02\0"}


@dataclass(slots=True)
class _Plan:
    """The damage after `frames` whole frames, counted from the next one's begin (None: from here), and `nbytes`."""

    act: Corruption | Ending
    frames: int | None
    nbytes: int


class Tamper:
    """Passes a stream on, and does what is planned at the very byte; a newer plan replaces the older one.

    Args:
        seed: of the garbage.
    """

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._head = bytearray()
        self._left = 0
        self._plan: _Plan | None = None
        self._mask = b""
        self._is_garbage = False

    def plan(self, act: Corruption | Ending, *, after_frames: int | None = None, after_bytes: int = 0) -> None:
        """Do `act` after `after_frames` whole frames, if given, and then so many bytes.

        Frames are counted from the begin of the next one. A corruption needs `after_frames`, and no bytes besides.
        """
        if isinstance(act, Corruption) and (after_frames is None or after_bytes):
            raise ValueError("a corruption begins where a frame does: give after_frames alone")
        if (after_frames or 0) < 0 or after_bytes < 0:
            raise ValueError("after_frames and after_bytes must not be negative")
        self._plan = _Plan(act, after_frames, after_bytes)

    def cancel(self) -> None:
        """Drop the plan; garbage ends only with the connection, since no frame's begin can be found any more."""
        self._plan = None

    def pass_on(self, data: bytes) -> tuple[bytes, Ending | None]:
        """Return what goes on, and how the connection ends right after it (None: it does not)."""
        begins = self._begins(data)
        if self._is_garbage:
            return self._random.randbytes(len(data)), None
        data = self._masked(data, 0)
        at = self._reached(len(data), begins)
        if at is None or self._plan is None:
            return data, None
        act, self._plan = self._plan.act, None
        if isinstance(act, Ending):
            return data[:at], act
        if act is Corruption.GARBAGE:
            self._is_garbage = True
            return data[:at] + self._random.randbytes(len(data) - at), None
        self._mask = _MASKS[act]
        return self._masked(data, at), None

    def _begins(self, data: bytes) -> list[int]:
        """Return the offsets in `data` at which frames begin."""
        begins: list[int] = []
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                if not self._head:
                    begins.append(at)
                step = min(_LENGTH_BYTES - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == _LENGTH_BYTES:
                    self._left = int.from_bytes(self._head, "big")
                    self._head.clear()
            at += step
        return begins

    def _reached(self, length: int, begins: list[int]) -> int | None:
        """Return where in these bytes the plan is to be carried out; None while that is further on."""
        plan = self._plan
        if plan is None:
            return None
        start = 0
        if plan.frames is not None:
            if len(begins) <= plan.frames:
                plan.frames -= len(begins)
                return None
            start, plan.frames = begins[plan.frames], None
        if plan.nbytes <= length - start:
            return start + plan.nbytes
        plan.nbytes -= length - start
        return None

    def _masked(self, data: bytes, at: int) -> bytes:
        """Apply what is left of the mask from `at` on: a length may be split over two reads."""
        mask, self._mask = self._mask[: len(data) - at], self._mask[len(data) - at :]
        changed = bytes(byte ^ bit for byte, bit in zip(data[at:], mask, strict=False))
        return data[:at] + changed + data[at + len(mask) :]
