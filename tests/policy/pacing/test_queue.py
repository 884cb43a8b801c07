"""How the queue keeps its cost down: by what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.config.sections import PacingConfig
from ibfast.contracts import Contract
from ibfast.policy.pacing.limiter import RateLimiter
from ibfast.policy.pacing.meters import Ledger
from ibfast.policy.pacing.queue import _Heap
from ibfast.wire.requests import HistoricalBars, MarketData, Request

AAPL = Contract(con_id=265598, exchange="SMART")


def same_source(number: int) -> Request:
    return HistoricalBars(number, AAPL, f"{number}", "60 S", "5 secs", "TRADES", True)


def other_source(number: int) -> Request:
    return HistoricalBars(number, replace(AAPL, con_id=number + 1), "", "60 S", "5 secs", "TRADES", True)


def subscription(number: int) -> Request:
    return MarketData(number, AAPL)


@pytest.mark.parametrize("make", [same_source, other_source, subscription])
def test_those_that_wait_cost_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of a moment follows what is sent, and what is submitted, not what waits."""
    looks = 0
    room_s = Ledger.room_s

    def counted(*arguments: Any) -> float:
        nonlocal looks
        looks += 1
        return room_s(*arguments)

    limiter = RateLimiter(PacingConfig())
    for number in range(2_000):
        limiter.submit(make(number), 0.0)
    now_s = 0.0
    for _ in range(90):
        for ticket in limiter.due(now_s):
            limiter.finish(ticket)
        now_s = limiter.next_s(now_s) or now_s
    monkeypatch.setattr(Ledger, "room_s", counted)
    sent = 0
    for _ in range(30):
        due = limiter.due(now_s)
        sent += len(due)
        for ticket in due:
            limiter.finish(ticket)
        now_s = limiter.next_s(now_s) or now_s
    assert 0 < sent < 2_000
    assert looks < 12 * (sent + 30)


@given(st.lists(st.tuples(st.integers(0, 20), st.one_of(st.none(), st.floats(-5, 5))), max_size=200))
def test_a_heap_gives_the_least_rank_and_forgets_what_left(changes: list[tuple[int, float | None]]) -> None:
    heap: _Heap[int, float] = _Heap()
    model: dict[int, float] = {}
    for item, rank in changes:
        if rank is None:
            heap.discard(item)
            model.pop(item, None)
        else:
            heap.put(item, rank)
            model[item] = rank
        twin = heap.copy()
        assert len(twin) == len(model)
        if model:
            assert twin.rank == heap.rank == min(model.values())
            assert model[twin.first] == twin.rank
            twin.discard(twin.first)
            assert len(heap) == len(model)


def test_a_heap_does_not_grow_with_what_came_and_went() -> None:
    heap: _Heap[int, float] = _Heap()
    heap.put(-1, 0.0)
    for number in range(10_000):
        heap.put(number, 1.0 + number)
        heap.discard(number)
    assert heap.first == -1
    assert len(heap._entries) < 100
