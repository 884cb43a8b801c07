"""Counts against limits, exact ones.

The rule of the file: sums of weights and times; `policy.pacing.rules` says which request counts in which meter. Windows
slide: every weight ends a fixed time after it was counted. No token or leaky bucket stands in for a window, since
those let through bursts that break it; where a rule spreads its requests, the burst is bounded besides.
`now_s` never decreases.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator

from ibfast.policy.pacing.rules import BURST_SHARE, EVERYTHING, Charges, Meter, Rule

__all__ = ["Ledger"]


class _Limit:
    """A limit that can be lowered, and then rises by one every `recovery_s` up to where it was."""

    __slots__ = ("_recovery_s", "_rises_s", "_value", "most")

    def __init__(self, most: int, recovery_s: float) -> None:
        self.most = most
        self._value = most
        self._recovery_s = recovery_s
        self._rises_s = math.inf

    def at(self, now_s: float) -> int:
        while self._value < self.most and self._rises_s <= now_s:
            self._value += 1
            self._rises_s += self._recovery_s
        return self._value

    def rises(self) -> Iterator[tuple[float, int]]:
        """When it is going to rise, and by how much."""
        at_s = self._rises_s
        for _ in range(self._value, self.most):
            yield at_s, 1
            at_s += self._recovery_s

    def lower(self, value: int, now_s: float) -> None:
        self._value = min(self.at(now_s), value)
        self._rises_s = now_s + self._recovery_s

    def copy(self) -> _Limit:
        twin = _Limit(self.most, self._recovery_s)
        twin._value, twin._rises_s = self._value, self._rises_s
        return twin


class _Count:
    """A sum of weights; those of a window end by themselves."""

    __slots__ = ("_ends", "_used", "held_until_s")

    def __init__(self) -> None:
        self._used = 0
        self._ends: deque[tuple[float, int]] = deque()
        self.held_until_s = -math.inf

    def used(self, now_s: float) -> int:
        while self._ends and self._ends[0][0] <= now_s:
            self._used -= self._ends.popleft()[1]
        return self._used

    def add(self, weight: int, ends_s: float | None) -> None:
        self._used += weight
        if ends_s is not None:
            insort(self._ends, (ends_s, weight))

    def give_back(self, weight: int, at_s: float | None) -> None:
        if at_s is None:
            self._used -= weight
        else:
            self._ends.append((at_s, weight))

    def room_s(self, weight: int, limit: _Limit, now_s: float) -> float:
        excess = self.used(now_s) + weight - limit.at(now_s)
        if excess <= 0:
            return max(now_s, self.held_until_s)
        for at_s, gain in heapq.merge(self._ends, limit.rises()):
            excess -= gain
            if excess <= 0:
                return max(at_s, self.held_until_s)
        return math.inf

    def copy(self) -> _Count:
        twin = _Count()
        twin._used, twin._ends, twin.held_until_s = self._used, self._ends.copy(), self.held_until_s
        return twin


class _Spread:
    """Requests that are ahead of an even rate; each is until its turn at that rate has passed.

    The burst and the even rate fill one window together, so that a window never holds a second burst.
    """

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: deque[float] = deque()

    def room_s(self, weight: int, limit: int, now_s: float) -> float:
        while self._turns and self._turns[0] <= now_s:
            self._turns.popleft()
        excess = len(self._turns) + weight - max(weight, limit // BURST_SHARE)
        return now_s if excess <= 0 else self._turns[excess - 1]

    def add(self, weight: int, limit: int, span_s: float, at_s: float) -> None:
        interval_s = span_s / max(1, limit - max(1, limit // BURST_SHARE))
        for _ in range(weight):
            self._turns.append(max(at_s, self._turns[-1] if self._turns else at_s) + interval_s)

    def copy(self) -> _Spread:
        twin = _Spread()
        twin._turns = self._turns.copy()
        return twin


class Ledger:
    """The counts against the rules of one scope.

    Args:
        rules: of this scope.
        lines: market-data lines, from which the limits follow.
    """

    def __init__(self, rules: Iterable[Rule], lines: int) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._limits = {name: _Limit(rule.limit(lines), rule.recovery_s) for name, rule in self._rules.items()}
        self._counts: dict[Meter, _Count] = {}
        self._spreads = {name: _Spread() for name, rule in self._rules.items() if rule.is_spread}
        # When the counts of single keys end, so that they can be forgotten.
        self._ends: dict[str, deque[tuple[float, Meter]]] = {
            name: deque() for name, rule in self._rules.items() if rule.key is not None
        }

    def room_s(self, meter: Meter, weight: int, now_s: float) -> float:
        """Return the first time from `now_s` on at which there is room, if nothing else is counted or given back."""
        name, limit = meter[0], self._limits[meter[0]]
        room_s = self._counts.get(meter, _NOTHING).room_s(weight, limit, now_s)
        spread = self._spreads.get(name)
        return room_s if spread is None else max(room_s, spread.room_s(weight, limit.at(now_s), now_s))

    def take(self, owed: Charges, at_s: float) -> None:
        """Count weights from a time on, which may lie in the past."""
        for meter, weight in owed:
            rule = self._rules[meter[0]]
            ends_s = None if rule.window_s is None else at_s + rule.span_s
            self._counts.setdefault(meter, _Count()).add(weight, ends_s)
            if rule.is_spread:
                self._spreads[rule.name].add(weight, self._limits[rule.name].at(at_s), rule.span_s, at_s)
            if rule.key is not None and ends_s is not None:
                self._forget(rule.name, at_s)
                self._ends[rule.name].append((ends_s, meter))

    def give_back(self, owed: Charges, at_s: float | None = None) -> None:
        """Subtract the weights of open requests, now or at a time that is no earlier than those given before."""
        for meter, weight in owed:
            if self._rules[meter[0]].window_s is None:
                self._counts[meter].give_back(weight, at_s)

    def used(self, name: str, now_s: float) -> int:
        """Return the sum of weights that count for a rule; for one that counts keys, that of the fullest."""
        if name not in self._ends:
            return self._counts.get((name, EVERYTHING), _NOTHING).used(now_s)
        return max((count.used(now_s) for meter, count in self._counts.items() if meter[0] == name), default=0)

    def limit(self, name: str, now_s: float) -> int:
        """Return a rule's limit as it is now."""
        return self._limits[name].at(now_s)

    def free(self, name: str, now_s: float, besides: int = 0) -> int:
        """Return the room under a rule without keys, where `besides` of the used weights does not count."""
        if self.is_held(name, now_s):
            return 0
        return max(0, self.limit(name, now_s) - self.used(name, now_s) + besides)

    def is_held(self, name: str, now_s: float) -> bool:
        """Return whether there is no room until some time, whatever has been counted."""
        return now_s < self._counts.get((name, EVERYTHING), _NOTHING).held_until_s

    def set_limit(self, name: str, limit: int) -> None:
        """Replace a rule's limit."""
        self._limits[name] = _Limit(limit, self._rules[name].recovery_s)

    def lower(self, name: str, limit: int, now_s: float) -> None:
        """Lower a limit; it recovers one by one."""
        self._limits[name].lower(limit, now_s)

    def cap(self, name: str, most: int, now_s: float) -> None:
        """Lower a limit for good."""
        self._limits[name].lower(most, now_s)
        self._limits[name].most = min(self._limits[name].most, most)

    def hold(self, name: str, until_s: float) -> None:
        """Leave no room under a rule until then."""
        count = self._counts.setdefault((name, EVERYTHING), _Count())
        count.held_until_s = max(count.held_until_s, until_s)

    def clear(self) -> None:
        """Forget all counts; learned limits stay."""
        self._counts.clear()
        self._spreads = {name: _Spread() for name in self._spreads}
        for ends in self._ends.values():
            ends.clear()

    def copy(self) -> Ledger:
        """Return another ledger with the same content."""
        twin = Ledger(self._rules.values(), 0)
        twin._limits = {name: limit.copy() for name, limit in self._limits.items()}
        twin._counts = {meter: count.copy() for meter, count in self._counts.items()}
        twin._spreads = {name: spread.copy() for name, spread in self._spreads.items()}
        twin._ends = {name: ends.copy() for name, ends in self._ends.items()}
        return twin

    def __contains__(self, name: str) -> bool:
        return name in self._rules

    def _forget(self, name: str, now_s: float) -> None:
        ends = self._ends[name]
        while ends and ends[0][0] <= now_s:
            meter = ends.popleft()[1]
            if meter in self._counts and not self._counts[meter].used(now_s):
                del self._counts[meter]


_NOTHING = _Count()
