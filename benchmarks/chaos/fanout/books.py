"""An order book by the words of docs/stream-protocol.md ("The book"), and nothing of ibfast.

The rule of the file: operations in, levels out; what names a level that can't be there changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_LEVELS = 256
RESET = 18
INSERT, UPDATE, DELETE = range(3)
LEVEL = ("price", "size", "market_maker")
Level = tuple[Any, ...]
"""Values of these names."""


class Book:
    """Price, size and market maker of each level, best first, for side 0 (ask) and side 1 (bid)."""

    def __init__(self) -> None:
        self.sides: tuple[list[Level], list[Level]] = ([], [])

    def copy(self) -> Book:
        """Return a book with the same levels."""
        other = Book()
        other.sides = (list(self.sides[0]), list(self.sides[1]))
        return other

    def take(self, kind: int, row: Mapping[str, Any]) -> None:
        """Carry out an operation."""
        side, position, operation = row["side"], row["position"], row["operation"]
        if kind == RESET:
            self.sides = ([], [])
            return
        if side not in (0, 1) or position is None or position < 0:
            return
        levels, level = self.sides[side], tuple(row[name] for name in LEVEL)
        if operation == INSERT and position <= len(levels):
            levels.insert(position, level)
            del levels[MOST_LEVELS:]
        elif operation == UPDATE and position < len(levels):
            levels[position] = level
        elif operation == UPDATE and position == len(levels) < MOST_LEVELS:
            levels.append(level)
        elif operation == DELETE and position < len(levels):
            del levels[position]
