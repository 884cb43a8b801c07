"""What a rate limiter has done, in numbers.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """What a rate limiter has done.

    Attributes:
        sent, expired, withdrawn: tickets.
        refused: submissions that found the queue full.
        coalesced: submissions that joined an identical request.
        learned: errors of the gateway that changed a limit.
        waited_s: the sum over sent tickets.
    """

    sent: int = 0
    expired: int = 0
    withdrawn: int = 0
    refused: int = 0
    coalesced: int = 0
    learned: int = 0
    waited_s: float = 0.0
