"""What a session has decided, until it is carried out.

The rule of the file: values. Who decides is `session`, who carries it out the supervisor.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ibfast.policy.subscription import Gap
from ibfast.wire.requests import Request

__all__ = ["Decisions", "Happening"]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a user may want to know; becomes a structured event."""

    name: str
    fields: dict[str, object]


@dataclass(slots=True)
class Decisions:
    """What is to be done, in this order.

    Attributes:
        gaps: open rows to record.
        ended: gaps that the feed has ended and recorded.
        requests: to send.
        gap_rows: by request id, the gap of which a row comes before its next record, and whether the record ends the
            gap; None: no row.
        happenings: to tell.
    """

    gaps: list[Gap] = field(default_factory=list)
    ended: list[Gap] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    gap_rows: dict[int, tuple[Gap, bool] | None] = field(default_factory=dict)
    happenings: list[Happening] = field(default_factory=list)
