"""What can be subscribed to: data types in terms of record families, and the channel, the unit of encoding.

The rule of the file: values only. A channel says everything that its encoded form depends on, so that all who want the
same share one encoder, whoever they are.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from zlib import crc32

from ibfast.connection.stream import OPTION_TYPES, DataType, wanted
from ibfast.contracts import Contract
from ibfast.feed._feed import DTYPES
from ibfast.feed.feed import BACKFILL_KINDS
from ibfast.records import FAMILIES, Kind

__all__ = [
    "DATA_TYPES",
    "INTERVALS_MS",
    "MODES",
    "Channel",
    "Tap",
    "fields_of",
    "interval_class",
    "taps_of",
]

INTERVALS_MS = (0, 10, 50, 100, 250, 500, 1000)
"""Windows in which rows are sent; 0: as they come."""

UNITS = ("us", "ns")

MODES = ("stream", "conflate", "snapshot")

DATA_TYPES: dict[str, tuple[DataType, ...]] = {
    "TRADES": (DataType.TRADES,),
    "QUOTES": (DataType.QUOTES,),
    "TICKS": (DataType.TICKS,),
    "DEPTH": (DataType.DEPTH,),
    "BARS": (DataType.BARS,),
    "GREEKS": (DataType.GREEKS,),
    "ALL": (DataType.TICKS, DataType.TRADES, DataType.QUOTES, DataType.GREEKS),
}
"""A subscriber's data type → what is asked of the gateway. ALL is what one market-data line brings."""

STRUCTURE = {"tick_type", "operation", "side", "position"}
"""Fields without which a row can't be understood: nobody leaves them out."""

HEADER = {"seq", "recv_ns", "instrument", "req_id", "kind"}


@dataclass(frozen=True, slots=True)
class Tap:
    """One subscription at the gateway as a source of rows: rows of these kinds in this ring."""

    data_type: DataType
    family: str
    kinds: frozenset[Kind]


@dataclass(frozen=True, slots=True)
class Channel:
    """All that a channel's encoded form depends on.

    Attributes:
        instrument: the feed's index.
        families: ring names, in the order of `FAMILIES`.
        kinds: of the rows that belong to it.
        fields: those that are wanted; empty: all.
        is_conflated: the latest row of each key and window instead of every row.
        interval_ms: one of `INTERVALS_MS`.
        unit: "us" or "ns": how exact times are.
        ordered: whether each row tells its exact sequence number.
    """

    instrument: int
    families: tuple[str, ...]
    kinds: frozenset[Kind]
    fields: tuple[str, ...] = ()
    is_conflated: bool = False
    interval_ms: int = 10
    unit: str = "us"
    ordered: bool = False

    def overlaps(self, other: Channel) -> bool:
        """Tell whether both have a family of the same instrument."""
        return self.instrument == other.instrument and not set(self.families).isdisjoint(other.families)

    @property
    def interval_class(self) -> int:
        """The number of the windows in which it comes."""
        return interval_class(self.interval_ms, self.unit)

    @property
    def fingerprint(self) -> int:
        """A number of 32 bits that tells this channel from others, the same in every process."""
        names = sorted(kind.name for kind in self.kinds)
        return crc32(repr(replace(self, kinds=frozenset())).encode() + repr(names).encode())


def interval_class(interval_ms: int, unit: str) -> int:
    """Return the class of the channels of an interval and a unit of time: they come in the same windows."""
    return INTERVALS_MS.index(interval_ms) * len(UNITS) + UNITS.index(unit)


def taps_of(contract: Contract, data_type: str) -> tuple[Tap, ...]:
    """Return what a subscription to this data type of a contract needs of the gateway.

    Raises:
        ValueError: the contract has none of it.
    """
    sources = DATA_TYPES[data_type]
    if data_type == "ALL" and contract.sec_type not in OPTION_TYPES:
        sources = tuple(source for source in sources if source is not DataType.GREEKS)
    taps = []
    for source in sources:
        want = wanted(contract, source)
        marked = {BACKFILL_KINDS[want.ring]} if want.ring in BACKFILL_KINDS else set()
        taps.append(Tap(source, want.ring, want.kinds | marked))
    return tuple(sorted(taps, key=lambda tap: FAMILIES.index(tap.family)))


def fields_of(families: Iterable[str]) -> tuple[str, ...]:
    """Return the fields that a subscriber may choose among: those after the header that are no part of a row's key."""
    found: dict[str, None] = {}
    for family in families:
        found |= dict.fromkeys(name for name in DTYPES[family].names or () if name not in HEADER | STRUCTURE)
    return tuple(found)
