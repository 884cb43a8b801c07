"""Random lives of two connections of one account, against what IB's rules say when all is recomputed from the log.

The oracle has its own table of the rules and no cleverness. It shows that no limit is ever exceeded, that nobody waits
without need, and that the gateway's own, independent enforcement refuses nothing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.policy.pacing.limiter import AccountLimits, RateLimiter, Ticket, TicketState
from ibfast.policy.pacing.rules import MARGIN_S
from ibfast.sim import pacing as gateway
from ibfast.sim.history import BAR_SECONDS
from ibfast.wire.requests import (
    CancelMarketData,
    ContractDetailsRequest,
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    MarketDepth,
    RealTimeBars,
    Request,
    TickByTick,
)

HISTORICAL = (HistoricalBars, HistoricalTicksRequest, HeadTimestampRequest)

RATE, BURST = 50, 5
GATE = ("rate", "ahead")
LAST = (5, 0, 0)
# The oracle: what a request counts for, as (rule, key) → (weight, limit, seconds or None for what is open at once).
Owed = dict[tuple[str, Hashable], tuple[int, int, float | None]]


def is_small(request: Request) -> bool:
    if isinstance(request, HistoricalBars):
        return BAR_SECONDS[request.bar_size] <= 30
    return isinstance(request, HISTORICAL)


def owed(request: Request, connection: int, lines: int) -> Owed:
    owes: Owed = {("rate", connection): (1, RATE, 1.0), ("ahead", connection): (1, BURST, None)}
    if isinstance(request, HISTORICAL):
        owes["open", 0] = 1, 50, None
    if is_small(request):
        source = request.contract.con_id, request.contract.exchange, request.what_to_show
        owes["sixty", 0] = 2 if request.what_to_show == "BID_ASK" else 1, 60, 600.0
        owes["five", source] = 1, 5, 2.0
        owes["identical", replace(request, req_id=0)] = 1, 1, 15.0
    if isinstance(request, RealTimeBars):
        owes["sixty", 0] = 1, 60, 600.0
        owes["lines", 0] = 1, lines, None
    if isinstance(request, MarketData) and not request.snapshot:
        owes["lines", 0] = 1, lines, None
    if isinstance(request, MarketData) and request.regulatory_snapshot:
        owes["regulatory", 0] = 1, 1, 1.0
    if isinstance(request, TickByTick):
        owes["tick-by-tick", 0] = 1, max(1, lines // 20), None
        owes["instrument", request.contract.con_id] = 1, 1, 15.0
    if isinstance(request, MarketDepth):
        owes["depth", 0] = 1, 3, None
    return owes


def stock(con_id: int) -> Contract:
    return Contract(con_id=con_id, sec_type="STK", exchange="SMART", currency="USD")


def is_kept(request: Request) -> bool:
    return isinstance(request, HistoricalBars) and request.keep_up_to_date


MAKERS: dict[str, Callable[[int, int], Request]] = {
    "market data": lambda n, k: MarketData(n, stock(k)),
    "snapshot": lambda n, k: MarketData(n, stock(k), snapshot=True),
    "regulatory": lambda n, k: MarketData(n, stock(k), snapshot=True, regulatory_snapshot=True),
    "real-time bars": lambda n, k: RealTimeBars(n, stock(k), "TRADES", True),
    "tick-by-tick": lambda n, k: TickByTick(n, stock(k), "Last"),
    "depth": lambda n, k: MarketDepth(n, stock(k), 5),
    "small bars": lambda n, k: HistoricalBars(n, stock(k), f"{n}", "60 S", "5 secs", "TRADES", True),
    "same bars": lambda n, k: HistoricalBars(n, stock(k), "", "60 S", "30 secs", "MIDPOINT", True),
    "kept bars": lambda n, k: HistoricalBars(n, stock(k), "", "60 S", "5 secs", "TRADES", True, keep_up_to_date=True),
    "long bars": lambda n, k: HistoricalBars(n, stock(k), f"{n}", "1 D", "1 hour", "TRADES", True),
    "quotes": lambda n, k: HistoricalTicksRequest(n, stock(k), f"{n}", "", 1000, "BID_ASK", True),
    "head": lambda n, k: HeadTimestampRequest(n, stock(k), "TRADES", True),
    "details": lambda n, k: ContractDetailsRequest(n, stock(k)),
    "cancel": lambda n, k: CancelMarketData(n),
}

PRECEDENCES = {"cancel": 0, "details": 3, "small bars": 4, "same bars": 4, "long bars": 4, "quotes": 4, "head": 4}
"""All others subscribe."""


@dataclass
class Event:
    at_s: float
    connection: int
    what: str
    ticket: Ticket | None = None


@dataclass
class World:
    """Two rate limiters of one account, driven by hand, and the log of what they did."""

    lines: int
    now_s: float = 0.0
    log: list[Event] = field(default_factory=list)
    orders: dict[Ticket, tuple[int, int, int]] = field(default_factory=dict)
    of: dict[Ticket, Owed] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self) -> None:
        account = AccountLimits(PacingConfig(lines=self.lines))
        self.limiters = [RateLimiter(PacingConfig(), account=account), RateLimiter(PacingConfig(), account=account)]
        self.queued: list[list[Ticket]] = [[], []]
        self.open: list[list[Ticket]] = [[], []]

    def submit(self, connection: int, kind: str, con_id: int, priority: int, patience_s: float) -> None:
        self.number += 1
        request = MAKERS[kind](self.number, con_id)
        before = self.limiters[connection].counters.coalesced
        ticket = self.limiters[connection].submit(
            request, self.now_s, deadline_s=self.now_s + patience_s, priority=priority
        )
        if self.limiters[connection].counters.coalesced > before:
            assert replace(ticket.request, req_id=0) == replace(request, req_id=0)
            assert ticket in self.queued[connection] or ticket in self.open[connection]
            if ticket in self.orders:
                precedence, other, number = self.orders[ticket]
                self.orders[ticket] = precedence, min(other, -priority), number
            return
        self.orders[ticket] = PRECEDENCES.get(kind, 2), -priority, self.number
        self.of[ticket] = owed(request, connection, self.lines)
        self.queued[connection].append(ticket)

    def due(self, first: int) -> None:
        """Let each connection send what is due, one of them first."""
        sent: list[list[Ticket]] = [[], []]
        for connection in (first, 1 - first):
            sent[connection] = self.limiters[connection].due(self.now_s)
            for ticket in self.limiters[connection].expired(self.now_s):
                assert ticket.deadline_s <= self.now_s
                self.queued[connection].remove(ticket)
        used = self.used()
        while any(sent):
            connection = min((0, 1), key=lambda number: [self.orders[ticket] for ticket in sent[number][:1]] or [LAST])
            ticket = sent[connection].pop(0)
            assert ticket.deadline_s > self.now_s
            waiting = self.waiting()
            blocked = self.blocked(waiting, used)
            assert ticket not in blocked, "a limit was exceeded, or somebody overtaken at the rule he waits for"
            ahead = [other for other in waiting if self.orders[other] < self.orders[ticket] and other not in blocked]
            assert not set(ahead) - self.held(waiting, used), "somebody was overtaken who could go"
            self.queued[connection].remove(ticket)
            self.open[connection].append(ticket)
            self.log.append(Event(self.now_s, connection, "sent", ticket))
            for key, (weight, limit, _) in self.of[ticket].items():
                used[key] += weight
                assert used[key] <= limit
        waiting = self.waiting()
        blocked = self.blocked(waiting, used)
        assert blocked <= set(waiting) <= blocked | self.held(waiting, used), "somebody waits without need"
        for limiter in self.limiters:
            next_s = limiter.next_s(self.now_s)
            assert next_s is None or next_s > self.now_s

    def waiting(self) -> list[Ticket]:
        """What waits, of both connections."""
        return [*self.queued[0], *self.queued[1]]

    def held(self, waiting: list[Ticket], used: Counter[tuple[str, Hashable]]) -> set[Ticket]:
        """Those whose turn at a rule may come only after that of another connection, which must not send yet."""
        gated = [t for t in waiting if any(used[key] + 1 > self.of[t][key][1] for key in self.of[t] if key[0] in GATE)]
        return {
            ticket
            for ticket in waiting
            if any(
                self.orders[other] < self.orders[ticket] and {*self.of[other]} & {*self.of[ticket]} for other in gated
            )
        }

    def ahead(self, connection: int) -> int:
        """How many requests are ahead of the even rate: a burst, and then one after the other over the rest."""
        turns_s = [-math.inf]
        for event in self.log:
            if event.connection == connection and event.what == "lost":
                turns_s = [-math.inf]
            elif event.connection == connection and event.what == "sent":
                turns_s.append(max(turns_s[-1], event.at_s) + (1.0 + MARGIN_S) / (RATE - BURST))
        return sum(turn_s > self.now_s for turn_s in turns_s)

    def used(self) -> Counter[tuple[str, Hashable]]:
        """What counts now, recomputed from the whole log."""
        used: Counter[tuple[str, Hashable]] = Counter()
        lost_s = [-1, -1]
        for index, event in enumerate(self.log):
            if event.what == "lost":
                lost_s[event.connection] = index
        for index, event in enumerate(self.log):
            if event.what != "sent":
                continue
            for key, (weight, _, window_s) in self.of[event.ticket].items():
                if key[0] == "ahead":
                    continue
                if window_s is None:
                    counts = event.ticket in self.open[event.connection]
                else:
                    counts = event.at_s + (window_s + MARGIN_S) > self.now_s
                if counts and not (key[0] == "rate" and index < lost_s[event.connection]):
                    used[key] += weight
        for connection in (0, 1):
            used["ahead", connection] = self.ahead(connection)
        return used

    def blocked(self, queued: list[Ticket], used: Counter[tuple[str, Hashable]]) -> set[Ticket]:
        """Those for which a rule has no room, and those that would overtake somebody at it."""
        first: dict[tuple[str, Hashable], tuple[int, int, int]] = defaultdict(lambda: LAST)
        for ticket in queued:
            for key, (weight, limit, _) in self.of[ticket].items():
                if used[key] + weight > limit:
                    first[key] = min(first[key], self.orders[ticket])
        return {ticket for ticket in queued if any(first[key] <= self.orders[ticket] for key in self.of[ticket])}

    def finish(self, connection: int, index: int) -> None:
        if self.open[connection]:
            ticket = self.open[connection].pop(index % len(self.open[connection]))
            self.limiters[connection].finish(ticket)
            self.log.append(Event(self.now_s, connection, "ended", ticket))

    def withdraw(self, connection: int, index: int) -> None:
        if self.queued[connection]:
            ticket = self.queued[connection][index % len(self.queued[connection])]
            assert not self.limiters[connection].withdraw(ticket)
            if ticket.state is TicketState.WITHDRAWN:
                self.queued[connection].remove(ticket)

    def lose(self, connection: int) -> None:
        assert set(self.limiters[connection].connection_lost()) == set(self.queued[connection])
        self.log += [Event(self.now_s, connection, "ended", ticket) for ticket in self.open[connection]]
        self.log.append(Event(self.now_s, connection, "lost"))
        self.queued[connection], self.open[connection] = [], []

    def check_plans(self) -> None:
        """What was foretold of both connections comes true if answers come at once and nothing else happens."""
        self.answer(0)
        self.answer(1)
        plans = [limiter.plan(self.now_s) for limiter in self.limiters]
        start_s = self.now_s
        for limiter, plan in zip(self.limiters, plans, strict=True):
            for ticket, eta_s in plan[::7]:
                assert limiter.eta_s(ticket, start_s) == eta_s
        sent: list[list[tuple[Ticket, float]]] = [[], []]
        while self.waiting():
            count = len(self.log)
            self.due(0)
            for event in self.log[count:]:
                if event.ticket is not None:
                    sent[event.connection].append((event.ticket, self.now_s - start_s))
            self.answer(0)
            self.answer(1)
            next_s = [at_s for limiter in self.limiters if (at_s := limiter.next_s(self.now_s)) is not None]
            if not next_s:
                break
            self.now_s = min(next_s)
        assert sent == plans

    def answer(self, connection: int) -> None:
        for ticket in [*self.open[connection]]:
            if isinstance(ticket.request, HISTORICAL) and not is_kept(ticket.request):
                self.finish(connection, self.open[connection].index(ticket))


connections = st.integers(0, 1)
submissions = st.tuples(
    st.just("submit"), connections, st.sampled_from([*MAKERS]), st.sampled_from([1, 50]),
    st.sampled_from([60, 20, 5, 2, 1]), st.integers(0, 1), st.sampled_from([math.inf, 30.0, 0.5]),
)  # fmt: skip
pauses = st.tuples(
    st.just("pass"), st.one_of(st.floats(0, 3), st.floats(0, 700), st.sampled_from([1 / 30, 0.5, 1.5, 15.5]))
)
steps = st.lists(
    st.one_of(
        submissions,
        submissions,
        pauses,
        st.tuples(st.just("next"), connections, st.sampled_from([0.0, 0.0005])),
        st.tuples(st.just("answers"), connections),
        st.tuples(st.just("finish"), connections, st.integers(0, 99), st.integers(1, 20)),
        st.tuples(st.just("withdraw"), connections, st.integers(0, 99)),
        st.tuples(st.just("lose"), connections),
    ),
    min_size=12,
    max_size=40,
)


def live(world: World, life: list[tuple], only: int | None = None) -> Iterator[None]:
    for what, *arguments in life:
        if what == "pass":
            world.now_s += arguments[0]
        else:
            connection, *rest = arguments
            connection = connection if only is None else only
            if what == "submit":
                kind, con_ids, count, priority, patience_s = rest
                for number in range(count):
                    world.submit(connection, kind, number % con_ids + 1, priority, patience_s)
            elif what == "next":
                next_s = world.limiters[connection].next_s(world.now_s) or 0.0
                world.now_s = max(world.now_s, next_s - rest[0])
            elif what == "answers":
                world.answer(connection)
            elif what == "finish":
                for number in range(rest[1]):
                    world.finish(connection, rest[0] + number)
            elif what == "withdraw":
                world.withdraw(connection, rest[0])
            else:
                world.lose(connection)
        world.due(len(world.log) % 2)
        yield


quick = settings(max_examples=80)


@quick
@given(life=steps, lines=st.sampled_from([10, 100]))
def test_no_limit_is_exceeded_and_nobody_waits_without_need(life: list[tuple], lines: int) -> None:
    for _ in live(World(lines), life):
        pass


@quick
@given(life=steps, lines=st.sampled_from([10, 100]))
def test_the_plans_of_both_connections_come_true(life: list[tuple], lines: int) -> None:
    world = World(lines)
    for _ in live(world, life):
        pass
    world.check_plans()


class Adversary:
    """The limits as the embedded gateway enforces them, with the requests as they arrive there."""

    def __init__(self, lines: int) -> None:
        self.account = gateway.GatewayLimits(lines)
        self.rate = gateway.RequestRate(lines)

    def take(self, request: Request, now_s: float) -> gateway.Refusal | None:
        refusal = self.rate.request(now_s)
        if refusal is not None:
            return refusal
        if isinstance(request, HISTORICAL):
            source = request.contract.con_id, request.contract.exchange, request.what_to_show
            bar_s = BAR_SECONDS[request.bar_size] if isinstance(request, HistoricalBars) else 0
            return self.account.open_historical(
                replace(request, req_id=0), source, bar_s, is_bid_ask=source[2] == "BID_ASK", now_s=now_s
            )
        if isinstance(request, RealTimeBars):
            return self.account.open_real_time_bars(now_s)
        if isinstance(request, TickByTick):
            return self.account.open_tick_by_tick(request.contract.con_id, now_s)
        if isinstance(request, MarketDepth):
            return self.account.open_depth()
        return self.account.open_line() if takes_line(request) else None

    def end(self, request: Request) -> None:
        if isinstance(request, HISTORICAL):
            self.account.close_historical()
        elif isinstance(request, TickByTick):
            self.account.close_tick_by_tick()
        elif isinstance(request, MarketDepth):
            self.account.close_depth()
        elif takes_line(request):
            self.account.close_line()


def takes_line(request: Request) -> bool:
    return isinstance(request, RealTimeBars) or (isinstance(request, MarketData) and not request.snapshot)


@pytest.mark.parametrize("lines", [20, 100])
@quick
@given(life=steps, data=st.data())
def test_the_gateway_refuses_nothing_though_the_network_jitters(
    lines: int, life: list[tuple], data: st.DataObject
) -> None:
    world = World(lines)
    for _ in live(world, life, only=0):
        pass
    adversary = Adversary(lines)
    arrived_s = 0.0
    jitter = data.draw(st.randoms(use_true_random=False))
    for event in world.log:
        late_s = jitter.choice([0.0, 1.0, jitter.random()]) * 0.999 * MARGIN_S  # less than it, whatever is rounded
        arrived_s = max(arrived_s, event.at_s + late_s)
        if event.what == "sent":
            refusal = adversary.take(event.ticket.request, arrived_s)
            assert refusal is None, (refusal, event)
        elif event.what == "ended":
            adversary.end(event.ticket.request)
        else:
            adversary.rate = gateway.RequestRate(lines)


def errors_of_a_gateway_that_pauses(pauses: list[tuple[float, float]], latency_s: float) -> int:
    """Send 200 requests to a gateway that reads nothing for a while, now and then; return how many it refuses.

    It counts a request when it reads it, and its error comes back as late as the request came.
    """
    limiter, rate = RateLimiter(PacingConfig()), gateway.RequestRate()
    for number in range(200):
        limiter.submit(MAKERS["details"](number, 1), 0.0)
    now_s, read_s, errors = 0.0, 0.0, 0
    news_s: deque[float] = deque()
    while (next_s := limiter.next_s(now_s)) is not None:
        if news_s and news_s[0] <= next_s:
            now_s = news_s.popleft()
            limiter.learn(100, now_s)
            continue
        now_s = next_s
        for _ in limiter.due(now_s):
            arrives_s = now_s + latency_s
            paused = [
                begins_s + length_s for begins_s, length_s in pauses if begins_s <= arrives_s < begins_s + length_s
            ]
            read_s = max(read_s, arrives_s, *paused)
            refusal = rate.request(read_s)
            if refusal is not None:
                assert not refusal.ends_session
                errors += 1
                news_s.append(read_s + latency_s)
    return errors


@quick
@given(st.lists(st.tuples(st.floats(0, 7), st.floats(0, 0.499)), max_size=5), st.floats(0, 0.2))
def test_pauses_of_the_gateway_within_the_margin_cost_no_error(
    pauses: list[tuple[float, float]], latency_s: float
) -> None:
    separate = [pause for n, pause in enumerate(pauses) if all(apart(pause, other) for other in pauses[:n])]
    assert errors_of_a_gateway_that_pauses(separate, latency_s) == 0


def apart(pause: tuple[float, float], other: tuple[float, float]) -> bool:
    return pause[0] > sum(other) or other[0] > sum(pause)


@quick
@given(st.floats(0, 7), st.floats(0, 1.25), st.floats(0, 0.015))
def test_a_longer_pause_of_the_gateway_costs_one_error_and_not_the_session(
    begins_s: float, length_s: float, latency_s: float
) -> None:
    assert errors_of_a_gateway_that_pauses([(begins_s, length_s)], latency_s) <= 1
