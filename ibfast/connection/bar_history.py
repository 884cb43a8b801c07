"""The bars with which a subscription to updating bars begins: one answer for all streams that share it.

The rule of the file: it gathers one answer and hands it out. The request may be replaced meanwhile, on the same
connection or another one; then the answer begins anew.
"""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from ibfast.connection.queries import joined_bars
from ibfast.errors import copy_of
from ibfast.wire.responses import HistoricalData, HistoricalDataEnd

__all__ = ["BarHistory"]


class BarHistory:
    """The first complete answer to a subscription's request.

    Attributes:
        is_over: whether the answer has come, or can't be had.
    """

    def __init__(self) -> None:
        self._req_id = 0
        self._parts: list[HistoricalData] = []
        self._bars: NDArray[np.void] | None = None
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the answer has come, or can't be had."""
        return self._changed.is_set()

    def add(self, message: HistoricalData | HistoricalDataEnd, *, is_last: bool) -> None:
        """Take in a message of the subscription's present request; `is_last` says that it ends the answer."""
        if self.is_over:
            return
        if message.req_id != self._req_id:
            self._req_id = message.req_id
            self._parts.clear()
        if isinstance(message, HistoricalData):
            self._parts.append(message)
        if is_last:
            self._bars = joined_bars(self._parts)
            self._parts.clear()
            self._changed.set()

    def fail(self, error: Exception) -> None:
        """Give every stream that waits this error: the answer can't come, or can't be read."""
        self._parts.clear()
        self._error = error
        self._changed.set()

    async def wait(self) -> NDArray[np.void]:
        """Return the bars (dtype `HISTORICAL_BAR`) when the answer is complete; raise what `fail` was given."""
        await self._changed.wait()
        if self._bars is not None:
            return self._bars
        assert self._error is not None
        raise copy_of(self._error)
