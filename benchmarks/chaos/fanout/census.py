"""How many connections the server can have had at once, by what was opened to it.

The rule of the file: whoever opens a socket to the server is counted, pages too. The server may notice an end late.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

NOTICED_S = 5.0
"""The server waits 2 s for a client's side to close, and the machine may be busy."""


class Census:
    """All connections that were opened.

    Args:
        now_s: a clock that never steps.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._lives: dict[int, tuple[float, float]] = {}

    def arrive(self) -> int:
        """Count a connection, and return its number for `leave`."""
        number = len(self._lives)
        self._lives[number] = self._now_s(), math.inf
        return number

    def leave(self, number: int) -> None:
        """Note that a connection has ended here."""
        self._lives[number] = self._lives[number][0], self._now_s()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is opened within."""
        number = self.arrive()
        try:
            yield
        finally:
            self.leave(number)

    def begun_s(self, number: int) -> float:
        """Return when a connection was begun."""
        return self._lives[number][0]

    def most(self, number: int) -> int:
        """Return how many there can have been beside a connection while it lasted, and it."""
        first_s, last_s = self._lives[number]
        return sum(begun_s <= last_s and first_s <= ended_s + NOTICED_S for begun_s, ended_s in self._lives.values())
