"""The values of a manager that are looked up when metrics are read.

The rule of the file: read only. Readers come from any thread, so what is walked over is copied first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ibfast.connection.owner import Owner
from ibfast.policy.subscription import SubscriptionState

__all__ = ["expose"]


def expose(owner: Owner, latest: Callable[[], dict[str, tuple[int, int]]]) -> None:
    """Have a manager's monitor expose rings, limits, subscriptions and requests.

    Args:
        owner: the manager.
        latest: returns by rule what was used and the limit at the last look; to look anew is not for other threads.
    """
    monitor, rings, limiter = owner.monitor, owner.feed.rings, owner.outbox.limiter

    def limits(index: int) -> dict[str, float]:
        return {rule: pair[index] for rule, pair in latest().items()}

    def states() -> dict[str, float]:
        counts = Counter(str(subscription.state) for subscription in tuple(owner.session.subscriptions.values()))
        return {str(state): counts[state] for state in SubscriptionState}

    def quarantined() -> int:
        decoder = owner.protocol.decoder
        return 0 if decoder is None else decoder.quarantined

    monitor.watch(
        "ring_published", lambda: {name: ring.published for name, ring in rings.items()}, "Rows published", "ring",
        is_counter=True,
    )  # fmt: skip
    monitor.watch("ring_rows", lambda: {name: len(ring) for name, ring in rings.items()}, "Rows in a ring", "ring")
    monitor.watch("ring_capacity", lambda: {name: ring.capacity for name, ring in rings.items()}, "Its room", "ring")
    monitor.watch("feed_seq", lambda: owner.feed.seq, "Records of all rings", is_counter=True)
    monitor.watch("limit_used", lambda: limits(0), "What is used of IB's limits", "rule")
    monitor.watch("limit", lambda: limits(1), "IB's limits, as configured and learned", "rule")
    monitor.watch("requests_waiting", lambda: len(limiter), "Requests that wait for IB's limits")
    monitor.watch("requests_sent", lambda: owner.outbox.requests_sent, "Requests sent", is_counter=True)
    monitor.watch("subscriptions", states, "Subscriptions by state", "state")
    monitor.watch("quarantined", quarantined, "Malformed messages of this connection")
    monitor.watch(
        "callback_failures", lambda: owner.errors.failures, "Callbacks for IB's messages that raised", is_counter=True
    )
