"""How a program reads a stream: rows in batches, rows as objects, events; each reader at its own pace.

The rule of the file: a reader owns its position on a tape, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Self

from ibfast.client.tape import Tape, TapeReader
from ibfast.client.updates import Arrival, Batch, Event, Lag, Update, updates_of

__all__ = ["Batches", "Events", "Updates"]


class Batches:
    """Rows as they come, in batches; each reader has a position of its own.

    Attributes:
        lost: rows that were gone before they were read here; each time a `Lag` of reason "consumer" tells.
    """

    def __init__(self, reader: TapeReader[Arrival], family: str | None) -> None:
        self._reader = reader
        self._family = family
        self._batches: deque[Batch] = deque()

    @property
    def lost(self) -> int:
        """Rows of all families that were gone before they were read here."""
        return self._reader.lost

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch; raises the provider's error when nothing can follow any more."""
        while not self._batches:
            arrival = await anext(self._reader)
            self._batches.extend(batch for batch in arrival.batches if self._family in (None, batch.family))
        return self._batches.popleft()


class Updates:
    """Rows as they come, each an object; each reader has a position of its own."""

    def __init__(self, reader: TapeReader[Arrival], tickers: Sequence[str], texts: Sequence[str]) -> None:
        self._reader = reader
        self._tickers = tickers
        self._texts = texts
        self._rows: Iterator[Update] = iter(())

    @property
    def lost(self) -> int:
        """Rows that were gone before they were read here; each time a `Lag` of reason "consumer" tells."""
        return self._reader.lost

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next row; raises the provider's error when nothing can follow any more."""
        while (update := next(self._rows, None)) is None:
            self._rows = updates_of(await anext(self._reader), self._tickers, self._texts)
        return update


class Events:
    """What happens to the stream: `Lag`, `Gap`, `State`; each reader has a position of its own."""

    def __init__(self, tape: Tape[Event], start: str) -> None:
        self._reader = tape.reader(start, self._missed)
        self._lag: Lag | None = None
        self._next: Event | None = None

    def _missed(self, count: int) -> None:
        self._lag = Lag("", -1, 0, 0, count, "consumer", "events")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; where some were gone, a Lag of the family "events" before it."""
        if self._next is None:
            self._next = await anext(self._reader)
            if self._lag is not None:
                lag, self._lag = self._lag, None
                return lag
        event, self._next = self._next, None
        return event
