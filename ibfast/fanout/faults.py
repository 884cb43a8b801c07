"""Faults of the server's own: each is counted, logged at a bounded rate, and ends nothing but what it is about.

The rule of the file: it knows neither sockets nor channels. Whoever calls decides what a fault is about.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from ibfast.common.log_rate import LogRate
from ibfast.fanout.gauges import Tally

__all__ = ["Faults", "OnFault"]

logger = logging.getLogger("ibfast")

SPAN_S = 10.0
"""A kind of fault is logged once in it: a channel that can't be encoded fails with every window."""

OnFault = Callable[[str, Exception], None]
"""Reports where a fault was met, in a word, and which one."""


class Faults:
    """Where faults are counted and logged.

    Args:
        tally: counts them by place.
        now_s: the clock by which the log's rate is bounded.
    """

    def __init__(self, tally: Tally, now_s: Callable[[], float]) -> None:
        self._tally = tally
        self._now_s = now_s
        self._rate = LogRate(1, SPAN_S)

    def note(self, place: str, error: Exception) -> None:
        """Count a fault; log it, unless one of its kind was logged just before."""
        self._tally.faults[place] += 1
        left_out = self._rate.admit(f"{place} {type(error).__name__}", self._now_s())
        if left_out is not None:
            logger.error("fan-out: a fault of the server's own, in %s%s", place, left_out, exc_info=error)

    @contextlib.contextmanager
    def contained(self, place: str, cut: Callable[[], object] | None = None) -> Iterator[None]:
        """Keep a fault from the caller's further work.

        Args:
            place: where, in a word.
            cut: ends the connection that the work is about, since nobody knows what it was sent.
        """
        try:
            yield
        except Exception as error:
            self.note(place, error)
            if cut is not None:
                cut()
