"""Rest: whether everything that is wanted flows, nothing else is live, and states, health and plan say so.

The rule of the file: it looks at the manager as users do, and at the gateways, and compares. It waits for nothing.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.connection import SUBSCRIPTIONS
from benchmarks.chaos.market import series_of
from ibfast.policy.subscription import SubscriptionState
from ibfast.wire.requests import HistoricalBars

if TYPE_CHECKING:
    from benchmarks.chaos.world import World

FLOWING = frozenset({SubscriptionState.LIVE, SubscriptionState.QUIET})
SUBSCRIBED = (*SUBSCRIPTIONS, HistoricalBars)
PROMISE_SLACK_S = 20.0
"""One more than the longest pause between two requests of the plan, which may overtake each other."""


def against_rest(world: World, marks: dict[Any, int]) -> Iterator[str]:
    """Yield what is not at rest yet: everything that is wanted flows, past these numbers, and nothing else is there."""
    user = world.user
    if not user.is_connected:
        yield "there is no session"
        return
    waiting = {s for member in user.members for s in _waits_rightly(world, member)}
    for held in user.open():
        subscription = held.stream.subscription
        if held.stream.state not in FLOWING and subscription not in waiting:
            yield f"{held.name} is {held.stream.state}: {subscription.reason}"
        elif subscription not in waiting and held.newest <= marks.get(series_of(subscription.request), 0):
            yield f"{held.name} is {held.stream.state}, and no tick comes"
    health = user.client.health()
    if not health.ok or len(health.warnings) != len(waiting):
        told = [*health.reasons, *health.warnings][:2]
        yield f"health says {told}, and {len(waiting)} subscriptions wait for a line"
    for member in user.members:
        plan = [(subscription, eta_s) for subscription, eta_s in member.plan() if subscription not in waiting]
        if plan:
            yield f"the plan says {plan[:2]}"
    wanted = Counter(s.req_id for member in user.members for s in member.session.open_subscriptions())
    live = Counter(asked.request.req_id for gateway in world.gateways for asked in gateway.live())
    for req_id in live - wanted:
        yield f"live at the gateway and nobody's: {_request(world, req_id)}"
    for req_id in wanted - live:
        yield f"live by its state and not at the gateway: {_request(world, req_id)}"
    declared = {id(s) for member in user.members for s in member.session.subscriptions.values()}
    held_ids = {id(held.stream.subscription) for held in user.open()}
    if declared != held_ids:
        yield f"{len(declared - held_ids)} subscriptions without a stream, {len(held_ids - declared)} the other way"


def _waits_rightly(world: World, member: Any) -> Iterator[Any]:
    """Yield the subscriptions of a member that wait while all lines of their kind are taken by others as good."""
    gateway = next(gateway for gateway in world.gateways if gateway.port == member.config.port)
    own = member.session.subscriptions.values()
    for subscription in own:
        if subscription.state is SubscriptionState.WAITING and gateway.account.is_full(subscription.request):
            rivals = [s for s in own if s.req_id and s.family == subscription.family]
            if all(rival.rank < subscription.rank for rival in rivals):
                yield subscription


def _request(world: World, req_id: int) -> str:
    for gateway in world.gateways:
        if req_id in gateway.asked:
            return str(gateway.asked[req_id].request)
    return f"request {req_id}"


class Promises:
    """What the plan has promised at rest, and whether it was kept.

    A promise ends with the state that it was made in: what waits for a line may then have to wait for its turn.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._promised: dict[tuple[Any, ...], float] = {}

    def look(self) -> float:
        """Look at the plan; return until when it has to be waited for."""
        now_s = time.monotonic()
        latest_s = 0.0
        planned = {}
        for member in self._world.user.members:
            for subscription, eta_s in member.plan():
                if math.isfinite(eta_s):
                    latest_s = max(latest_s, now_s + eta_s)
                if math.isfinite(eta_s) and eta_s > 0:
                    key = (subscription, subscription.state, subscription.req_id, self._asked(subscription))
                    planned[key] = min(self._promised.get(key, math.inf), now_s + eta_s)
        for key, due_s in planned.items():
            if now_s > due_s + PROMISE_SLACK_S:
                self._world.problem("plan", f"{key[0]!r} was to be asked for {now_s - due_s:.1f} s ago")
                planned[key] = math.inf
        self._promised = planned
        return latest_s

    def _asked(self, subscription: Any) -> int:
        """Return how often a subscription was asked for so far."""
        series, kind = series_of(subscription.request), type(subscription.request)
        return sum(
            asked.series == series and isinstance(asked.request, kind)
            for gateway in self._world.gateways
            for asked in gateway.asked.values()
            if isinstance(asked.request, SUBSCRIBED)
        )
