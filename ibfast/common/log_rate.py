"""How often the same kind of event is logged.

The rule of the file: times in, decisions out; `now_s` never decreases. Kinds are named by the program, so they are few.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

__all__ = ["LogRate"]

MOST, SPAN_S = 100, 10.0


class LogRate:
    """Admits a number of events of each kind in a span, and counts the others.

    Args:
        most: of one kind in a span.
        span_s: how long a span is; it begins with the first one after the last span.
    """

    def __init__(self, most: int = MOST, span_s: float = SPAN_S) -> None:
        self._most = most
        self._span_s = span_s
        self._spans: dict[str, tuple[float, int]] = {}
        self._left_out: dict[str, int] = {}

    def admit(self, kind: str, now_s: float) -> str | None:
        """Return what to append to the log's line, "" or how many were left out before; None: leave this one out."""
        began_s, count = self._spans.get(kind, (now_s, 0))
        if now_s - began_s >= self._span_s:
            began_s, count = now_s, 0
        self._spans[kind] = began_s, count + 1
        if count >= self._most:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return None
        left_out = self._left_out.pop(kind, 0)
        return f" ({left_out:,} of this kind before were not logged)" if left_out else ""
