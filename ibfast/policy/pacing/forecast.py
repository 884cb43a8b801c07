"""When the requests that wait are going to be sent.

The rule of the file: the queue and the counts of an account are copied, and time passes on the copies only.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from operator import itemgetter

from ibfast.policy.pacing.account import AccountLimits
from ibfast.policy.pacing.queue import Ticket
from ibfast.policy.pacing.rules import Precedence

__all__ = ["forecast"]


def forecast(
    account: AccountLimits, now_s: float, drafts: Iterable[tuple[float, Ticket]] = ()
) -> Iterator[tuple[Ticket, float]]:
    """Yield the tickets in the order of sending, and in how many seconds each is sent.

    Historical requests are taken as answered at once.

    Args:
        account: whose queue it is.
        now_s: the time.
        drafts: tickets that are going to be submitted, and when, on the same clock.
    """
    ledger = account.ledger.copy()
    queue = account.queue.copy(ledger)
    for ticket in account.open:
        if ticket.precedence is Precedence.HISTORY:
            ledger.give_back(ticket.owed)
    coming = deque(sorted(drafts, key=itemgetter(0)))
    at_s = now_s
    while at_s < math.inf:
        while coming and coming[0][0] <= at_s:
            queue.put(coming.popleft()[1])
        queue.expire(at_s)
        for ticket in queue.take_due(at_s):
            if ticket.precedence is Precedence.HISTORY:
                ledger.give_back(ticket.owed)
            yield ticket, at_s - now_s
        at_s = min(queue.next_s(at_s), coming[0][0] if coming else math.inf)
