"""A bell at a ring: has something done soon after each publish.

The rule of the file: in the loop, and not in the writer's turn; once for all that was published meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ibfast.feed.ring import RingBuffer

__all__ = ["Bell"]


class Bell:
    """Calls back soon after each publish, until it is silenced.

    Args:
        ring: whose.
        do: what is done.
    """

    def __init__(self, ring: RingBuffer, do: Callable[[], object]) -> None:
        self._ring = ring
        self._do: Callable[[], object] | None = do
        self._loop = asyncio.get_running_loop()
        ring.when_published(self._ring_out)

    def _ring_out(self) -> None:
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        if self._do is None:
            return
        self._ring.when_published(self._ring_out)
        self._do()

    def silence(self) -> None:
        """Do nothing more."""
        self._do = None
        self._ring.forget(self._ring_out)
