"""The values that were used lately, within a bound.

The rule of the file: the weight of all values never exceeds the bound; the longest unused value is dropped first.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from typing import Generic, TypeVar

__all__ = ["Lately", "weight_of"]

ENTRY_WEIGHT = 1000
"""Of an entry without its texts."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lately(Generic[K, V]):
    """A mapping that drops the value that was not used for longest.

    Args:
        most: the most weight of keys and values, in bytes, by `weight_of`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return a value, None if there is none (any more)."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def __setitem__(self, key: K, value: V) -> None:
        """Keep a value, unless it alone is heavier than the bound."""
        weight = ENTRY_WEIGHT + weight_of(key) + weight_of(value)
        self.weight -= self._kept.pop(key, (None, 0))[1]
        if weight > self._most:
            return
        self._kept[key] = value, weight
        self.weight += weight
        while self.weight > self._most:
            self.weight -= self._kept.popitem(last=False)[1][1]


def weight_of(value: object) -> int:
    """Return about how many bytes a value takes: its texts, and those of the values in it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(weight_of, value))
    if is_dataclass(value):
        return sum(weight_of(getattr(value, item.name)) for item in fields(value))
    return 0
