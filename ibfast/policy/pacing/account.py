"""The limits that all connections of an account share.

The rule of the file: it knows which connections count against the limits, and keeps what they share. When a
request may be sent is decided in `pacing`.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable

from ibfast.config.sections import PacingConfig
from ibfast.policy.pacing.meters import Ledger
from ibfast.policy.pacing.queue import Queue, Ticket
from ibfast.policy.pacing.rules import ACCOUNT_RULES, charges, unlimited, windows_of
from ibfast.wire.requests import Request

__all__ = ["AccountLimits"]


class AccountLimits:
    """The limits of one account, over all its connections: at once, and within windows of time.

    Requests of all its connections wait in one queue, by precedence, priority and age. Between two connections nothing
    keeps the order of a cancel and the request that takes its place. So where several connections share the limits, a
    cancelled request counts for `settle_s` longer.

    Args:
        config: the limits, and whether they are enforced; otherwise requests are counted and none waits.
        settle_s: how long a cancel, or the end of a connection, may take to reach the gateway; may be set later.

    Attributes:
        ledger: the counts against the limits.
        queue: the waiting tickets of all connections; `numbers` gives each ticket its age.
        open: tickets that were sent and hold a slot.
    """

    def __init__(self, config: PacingConfig, *, settle_s: float = 0.0) -> None:
        self.enforced = config.enforced
        self.settle_s = settle_s
        self._restored: set[Hashable] = set()
        self.ledger = Ledger(ACCOUNT_RULES if config.enforced else unlimited(ACCOUNT_RULES), config.lines)
        self.queue = Queue(self.ledger)
        self.numbers = itertools.count()
        self.open: set[Ticket] = set()
        if config.tick_by_tick is not None:
            self.ledger.set_limit("tick_by_tick", config.tick_by_tick)

    def restore(self, source: Hashable, sent: Iterable[tuple[Request, float]], now_s: float) -> None:
        """Count requests that were sent for the account before, as far as they are still within a window.

        None of them is open any more. A source counts once, since several connections may know it.

        Args:
            source: where it is known from.
            sent: requests, and when they were sent, on the clock of `now_s`; after it, as a clock that was set back
                says, is now: no request waits for longer than a window.
            now_s: the time.
        """
        if source in self._restored:
            return
        self._restored.add(source)
        for request, sent_s in sent:
            self.ledger.take(windows_of(charges(request)), min(sent_s, now_s))
