"""The binary dialect around the compiled codec (`ibfast.codec._frame_encoder`): what a channel is, its grids, and the
rare messages.

The rule of the file: a `ChannelSpec` says all that both sides must agree on before the first bit; the stream protocol
(docs/stream-protocol.md, "Channels" and "Binary messages") says the same in words.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ibfast.errors import ProtocolError
from ibfast.records import FAMILIES

__all__ = ["LAG_REASONS", "UNITS_NS", "ChannelSpec", "Grids", "grid_of", "lag_frame", "text_frame"]

Grid = tuple[int, int]
T = TypeVar("T", int, bool)

UNITS_NS = {"us": 1000, "ns": 1}
LAG_REASONS = ("slow", "overrun", "incomplete")
LAG, TEXT = 0x30, 0x40
BINARY_FRAME = 0x82
MAX_DECIMALS = 14
MAX_STEP = 0xFFFF
GRID_SHARE = 0.8
"""A grid is good if that share of the values lies on it; a coarser step, if nearly all of these are on it."""
STEP_SHARE = 0.97
LEAST_VALUES = 16
"""So many are needed to tell their grid from them."""
GRID_COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "price": {
        "quotes": ("bid", "ask"), "trades": ("price",), "ticks": ("price",), "depth": ("price",), "bars": ("close",)
    },
    "size": {"quotes": ("bid_size", "ask_size"), "ticks": ("size",), "depth": ("size",), "bars": ("volume",)},
    "trade_size": {"trades": ("size",)},
}  # fmt: skip
STEPS = (1000, 500, 250, 200, 100, 50, 25, 20, 10, 5, 2)


@dataclass(frozen=True, slots=True)
class Grids:
    """Where most of a channel's numbers lie: each a step and a number of decimals, value = n·step / 10^decimals.

    Values that lie elsewhere arrive to the bit just the same; they take more bytes.
    """

    price: Grid = (1, 2)
    size: Grid = (1, 0)
    trade_size: Grid = (1, 0)

    def __post_init__(self) -> None:
        for name in ("price", "size", "trade_size"):
            step, decimals = getattr(self, name)
            if not (1 <= step <= MAX_STEP and 0 <= decimals <= MAX_DECIMALS):
                raise ValueError(f"{name}: a grid has a step of 1 to {MAX_STEP} and 0 to {MAX_DECIMALS} decimals")

    @classmethod
    def of(cls, rows: Mapping[str, NDArray[Any]], usual: Grids) -> Grids:
        """Return the grids on which most of an instrument's rows lie.

        Args:
            rows: by family.
            usual: those of which these rows do not tell enough.
        """
        return cls(*(_grid(rows, columns, getattr(usual, name)) for name, columns in GRID_COLUMNS.items()))


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """What both sides of a channel agree on.

    Attributes:
        instrument: what the rows' `instrument` is: the feed's index for an encoder; a decoder's may be any number.
        families: ring names; they are put into the order of `FAMILIES`.
        kinds: of the rows that belong to the channel (values of `ibfast.Kind`); empty: all. Not for decoders.
        fields: those that are wanted, others are NaN or 0; empty: all. What a row's key is made of is always there. Not
            for decoders.
        unit: "us" or "ns": times are whole multiples of it, rounded down.
        ordered: whether rows carry their exact sequence number.
        span_ns: length of a window; 0: one socket read.
        is_conflated: a window has the latest state only. Not for decoders.
        grids: where the numbers lie to begin with. Not for decoders, whom the snapshot tells.
        interval_class: the class of windows of this span and unit.
    """

    instrument: int
    families: tuple[str, ...]
    kinds: frozenset[int] = frozenset()
    fields: tuple[str, ...] = ()
    unit: str = "us"
    ordered: bool = False
    span_ns: int = 10_000_000
    is_conflated: bool = False
    grids: Grids = field(default_factory=Grids)
    interval_class: int = 0

    def __post_init__(self) -> None:
        if not self.families or len(set(self.families)) < len(self.families) or set(self.families) - set(FAMILIES):
            raise ValueError(f"families: one or more of {', '.join(FAMILIES)}, each once, not {self.families}")
        object.__setattr__(self, "families", tuple(sorted(self.families, key=FAMILIES.index)))
        if self.unit not in UNITS_NS:
            raise ValueError(f'unit is "us" or "ns", not {self.unit!r}')
        if self.span_ns < 0 or self.span_ns % self.unit_ns or self.span_ns // self.unit_ns >= 1 << 31:
            raise ValueError(f"span_ns is a multiple of the unit below 2^31 of it, or 0, not {self.span_ns}")
        if not 0 <= self.instrument < 1 << 32:
            raise ValueError(f"instrument is an unsigned number of 32 bits, not {self.instrument}")
        if not 0 <= self.interval_class < 16:
            raise ValueError(f"interval_class is 0 to 15, not {self.interval_class}")
        if any(not 0 < kind < 64 for kind in self.kinds):
            raise ValueError("kinds are values of ibfast.Kind")

    @property
    def unit_ns(self) -> int:
        """Nanoseconds of the unit."""
        return UNITS_NS[self.unit]

    def described(self) -> dict[str, Any]:
        """Return the channel's fields of `subscribed` that a decoder needs."""
        return {
            "instrument": self.instrument,
            "families": list(self.families),
            "class": self.interval_class,
            "span_ns": self.span_ns,
            "unit_ns": self.unit_ns,
            "ordered": self.ordered,
            "conflated": self.is_conflated,
        }

    @classmethod
    def from_description(cls, channel: Mapping[str, Any]) -> ChannelSpec:
        """Return the spec that a server's `subscribed` describes.

        Raises:
            ProtocolError: a field is missing or impossible.
        """
        try:
            return cls(
                instrument=_of_type(int, channel["instrument"]),
                families=tuple(channel["families"]),
                unit={unit_ns: unit for unit, unit_ns in UNITS_NS.items()}[_of_type(int, channel["unit_ns"])],
                ordered=_of_type(bool, channel["ordered"]),
                span_ns=_of_type(int, channel["span_ns"]),
                is_conflated=_of_type(bool, channel["conflated"]),
                interval_class=_of_type(int, channel["class"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"a channel's description that can't be: {error!r}") from error


def _of_type(kind: type[T], value: Any) -> T:
    """Return a value of exactly this type: neither 10.0 nor true is an integer."""
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of the type {kind.__name__}")
    return value


def _grid(rows: Mapping[str, NDArray[Any]], columns: Mapping[str, tuple[str, ...]], usual: Grid) -> Grid:
    parts = [part[name] for family, part in rows.items() for name in columns.get(family, ())]
    values: NDArray[np.float64] = np.concatenate(parts) if parts else np.empty(0)
    values = values[np.isfinite(values)]
    return grid_of(values) if len(values) >= LEAST_VALUES else usual


def grid_of(values: NDArray[np.float64]) -> Grid:
    """Return the coarsest grid, as step and decimals, on which most of these values lie.

    Args:
        values: some prices or sizes of an instrument, as many as there are; NaN is left out.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return 1, 0
    for decimals in range(MAX_DECIMALS + 1):
        scaled = values * 10.0**decimals
        places = np.rint(scaled)
        is_on_grid = (places / 10.0**decimals == values) & (np.abs(places) < 2.0**51)
        if is_on_grid.mean() >= GRID_SHARE:
            places = places[is_on_grid].astype(np.int64)
            return next((step for step in STEPS if (places % step == 0).mean() >= STEP_SHARE), 1), decimals
    return 1, 8


def lag_frame(channel: int, reason: str, from_seq: int, to_seq: int, rows: int | None = None) -> bytes:
    """Return the complete WebSocket frame that tells what a channel has left out; its snapshot must follow.

    Args:
        channel: its number on the connection.
        reason: one of `LAG_REASONS`.
        from_seq, to_seq: left out are rows after the one, up to the other.
        rows: how many; None: that is not known.
    """
    numbers = struct.pack("<BQQ", LAG_REASONS.index(reason), from_seq, to_seq)
    return _frame(bytes([LAG]) + _varint(channel) + numbers + _varint(0 if rows is None else rows + 1))


def text_frame(text_id: int, text: str) -> bytes:
    """Return the complete WebSocket frame that tells a text: before its first use on a connection."""
    return _frame(bytes([TEXT]) + _varint(text_id) + text.encode())


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _frame(message: bytes) -> bytes:
    """Return a message as a binary frame of the server's."""
    size = len(message)
    if size < 126:
        return bytes([BINARY_FRAME, size]) + message
    if size < 1 << 16:
        return struct.pack("!BBH", BINARY_FRAME, 126, size) + message
    return struct.pack("!BBQ", BINARY_FRAME, 127, size) + message
