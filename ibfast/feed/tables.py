"""The tables of a feed: interned texts and instruments, as readers in any process see them.

The rule of the file: it reads. Another process may write the memory, or have damaged it, so no counter is trusted
beyond its table's bound, and an entry counts only if its generation has not changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ibfast.feed._ring import fence_reads

__all__ = ["READ_TRIES", "InstrumentTable", "TableCounters", "TextTable"]

SMART = "SMART"

READ_TRIES = 10_000
"""A row that is still being written after so many reads has lost its writer."""


class TableCounters:
    """The tables' counters. Another process may have damaged them, so that none is above its table's bound.

    Args:
        words: the counters in the memory.
        bounds: of the tables, by counter.
        check: called before each look at the memory; raises where the memory must not be touched any more.
    """

    def __init__(self, words: NDArray[np.void], bounds: Mapping[str, int], check: Callable[[], None] | None) -> None:
        self._words = words
        self._bounds = bounds
        self._check = check

    def __getitem__(self, name: str) -> int:
        if self._check is not None:
            self._check()
        value = int(self._words[name])
        return min(value, self._bounds.get(name, value))


class TextTable:
    """Interned strings by id: exchanges, conditions, market makers, text ticks. 0 is ""; 1, all past the bound."""

    def __init__(self, control: TableCounters, offsets: NDArray[np.uint32], arena: NDArray[np.uint8]) -> None:
        self._control = control
        self._offsets = offsets
        self._arena = arena

    def __len__(self) -> int:
        return self._control["texts"]

    def __getitem__(self, text_id: int) -> str:
        if not 0 <= text_id < len(self):
            raise IndexError(f"no text {text_id}")
        return self._arena[self._offsets[text_id] : self._offsets[text_id + 1]].tobytes().decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return (self[text_id] for text_id in range(len(self)))

    @property
    def refused(self) -> int:
        """How often a text found no place and became "<other>"."""
        return self._control["texts_refused"]


class InstrumentTable:
    """The instrument table: a row's `instrument` is an index into it, and stays so across reconnects.

    An instrument is a contract at an exchange: the pair of con_id and exchange, as IB is asked for its data. "SMART" is
    an exchange like any other: what IB's router sees is another market than what one venue sees. Exchanges are compared
    as they are written. The primary exchange distinguishes no instruments: it helps IB to find the contract. A contract
    that was found by its symbol has IB's con_id, and IB's exchange where the description names none. A combo ("BAG")
    and a contract without con_id are known by their whole descriptions. What a request adds to the contract, such as
    the number of levels of a book or `is_smart_depth`, belongs to the request: two requests of one instrument differ by
    `req_id`, and so do their books.

    An index is given to another instrument when nothing has used the first one for long, and no ring has a row of it.
    Then its `generation` is another one. Code that keeps an index for long reads the generation, then the label, and
    looks the label up again where the generation has changed.
    """

    def __init__(self, control: TableCounters, table: NDArray[np.void]) -> None:
        self._control = control
        self._table = table
        self._generations = table["generation"]

    def __len__(self) -> int:
        """Return how many indices are, or were, in use."""
        return self._control["instruments"]

    def __getitem__(self, instrument: int) -> str:
        """Return the label that the instrument was made with, such as "AAPL"; "" where the index is free."""
        return self._entry(instrument)[1]

    def __iter__(self) -> Iterator[str]:
        return (self[instrument] for instrument in range(len(self)))

    def con_id(self, instrument: int) -> int:
        """Return IB's contract id, 0 where it is not known."""
        return self._entry(instrument)[0]

    def exchange(self, instrument: int) -> str:
        """Return the exchange at which the contract is asked for, "" where it is not known."""
        return self._entry(instrument)[2]

    def generation(self, instrument: int) -> int:
        """Return how often the index was freed or given to another instrument: it is odd while the index is free.

        A label, con_id or exchange that is read after a generation is of this generation or a later one.
        """
        self._require(instrument)
        generation = int(self._generations[instrument])
        fence_reads()
        return generation

    def _entry(self, instrument: int) -> tuple[int, str, str]:
        """Return con_id, label and exchange as of one moment."""
        for _ in range(READ_TRIES):
            generation = self.generation(instrument)
            if generation & 1:
                break
            _, con_id, label, exchange = self._table[instrument].item()
            fence_reads()
            if generation == self._generations[instrument]:
                return con_id, label.decode("utf-8", "replace"), exchange.decode("utf-8", "replace")
        return 0, "", ""

    def _require(self, instrument: int) -> None:
        if not 0 <= instrument < len(self):
            raise IndexError(f"no instrument {instrument}")

    def index(self, label: str, exchange: str | None = None) -> int:
        """Return the last index of an instrument with that label.

        Args:
            label: such as "AAPL".
            exchange: at which exchange; None: the instrument at SMART, and where there is none, any.

        Raises:
            KeyError: there is none.
        """
        found = [index for index in range(len(self)) if self[index] == label]
        for wanted in (SMART, None) if exchange is None else (exchange,):
            for index in reversed(found):
                if wanted in (None, self.exchange(index)):
                    return index
        raise KeyError(label if exchange is None else (label, exchange))

    @property
    def refused(self) -> int:
        """How many messages belong to no instrument because the table was full."""
        return self._control["instruments_refused"]
