"""What the holder of a token has, over all of its connections: what a token permits, it permits once.

The rule of the file: counts and times in, decisions out. Nobody holds anything together who needs no token: each
connection of an anonymous client is a holder of its own.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

from ibfast.fanout.access.limits import Bucket
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.messages import Code, RefusedError

__all__ = ["BANDWIDTH_BURST_S", "Holder", "Holders"]

BANDWIDTH_BURST_S = 0.25
"""How many seconds' worth a holder, or a session with a bandwidth of its own, may get at once."""

MOST_IDLE = 4096
"""Holders without a connection that are remembered, since a new connection must not be a new beginning."""

MS_PER_S = 1000


class Holder:
    """The holder of a token.

    Args:
        permissions: the token's own.
        linger_s: how long the gateway goes on with what nobody wants any more.
        now_s: a clock.

    Attributes:
        permissions: its latest.
        counts: of each connection: tells how many subscriptions that has, or has asked for.
        bandwidth: of all connections together; None: any.
    """

    def __init__(self, permissions: Permissions, linger_s: float, now_s: Callable[[], float]) -> None:
        self._linger_s = linger_s
        self._now_s = now_s
        self._told_s: dict[Hashable, float] = {}
        self._lines: Counter[Hashable] = Counter()
        self._ended: dict[Hashable, float] = {}
        self.counts: set[Callable[[], int]] = set()
        self.permit(permissions)

    def permit(self, permissions: Permissions) -> None:
        """Have these permissions from now on: a later token of the same name may have others."""
        self.permissions = permissions
        most = permissions.max_bytes_per_s
        self.bandwidth = Bucket(most, BANDWIDTH_BURST_S, self._now_s()) if most else None

    def require_room(self) -> None:
        """Raise RefusedError if there may be no more subscriptions."""
        most = self.permissions.subscriptions
        if most is not None and sum(count() for count in self.counts) >= most:
            raise RefusedError(
                Code.TOO_MANY, f"the token permits {most} subscriptions over all connections: end another one first"
            )

    def take_lines(self, lines: Iterable[Hashable]) -> None:
        """Count what is asked of the gateway; `give_lines` when it is wanted no more.

        Raises:
            RefusedError: there may be no more of them.
        """
        now_s, most = self._now_s(), self.permissions.lines
        self._ended = {line: at_s for line, at_s in self._ended.items() if at_s > now_s - self._linger_s}
        lines = tuple(lines)
        held = self._lines.keys() | self._ended.keys()
        if most is not None and len(held | set(lines)) > max(most, len(held)):
            raise RefusedError(Code.TOO_MANY, f"the token permits {most} market-data lines: end a subscription first")
        self._lines.update(lines)
        for line in lines:
            self._ended.pop(line, None)

    def give_lines(self, lines: Iterable[Hashable]) -> None:
        """Take lines back: they count as long as the gateway goes on with them."""
        for line in lines:
            self._lines[line] -= 1
            if not self._lines[line]:
                del self._lines[line]
                self._ended[line] = self._now_s()

    def is_too_soon(self, what: Hashable) -> bool:
        """Tell whether a state is asked for before the least interval since the last is over; else note that it is."""
        least_s, now_s = self.permissions.least_interval_ms / MS_PER_S, self._now_s()
        while self._told_s and next(iter(self._told_s.values())) <= now_s - least_s:
            del self._told_s[next(iter(self._told_s))]
        if what in self._told_s:
            return True
        if least_s:
            self._told_s[what] = now_s
        return False


class Holders:
    """The holders of all tokens, by name.

    Args:
        max_lines: of one whose token does not say how many.
        linger_s: how long the gateway goes on with what nobody wants any more.
        now_s: a clock.
    """

    def __init__(self, max_lines: int, linger_s: float, now_s: Callable[[], float]) -> None:
        self._max_lines = max_lines
        self._linger_s = linger_s
        self._now_s = now_s
        self._named: dict[str, Holder] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._named)

    def arrive(self, name: str | None, own: Permissions | None, count: Callable[[], int]) -> Holder:
        """Return the holder of a new connection; `leave` when that ends.

        Args:
            name: of the token's holder; None: nobody needs a token.
            own: the permissions of the token.
            count: tells how many subscriptions the connection has.
        """
        if name is None or own is None:
            return Holder(Permissions(symbols=("*",)), self._linger_s, self._now_s)
        permissions = replace(own, lines=self._max_lines if own.lines is None else own.lines)
        holder = self._named.get(name)
        if holder is None:
            holder = self._named[name] = Holder(permissions, self._linger_s, self._now_s)
        elif holder.permissions != permissions:
            holder.permit(permissions)
        holder.counts.add(count)
        self._idle.pop(name, None)
        return holder

    def leave(self, name: str | None, count: Callable[[], int]) -> None:
        """Take a connection back."""
        holder = None if name is None else self._named.get(name)
        if name is None or holder is None:
            return
        holder.counts.discard(count)
        if not holder.counts:
            self._idle[name] = None
            if len(self._idle) > MOST_IDLE:
                del self._named[self._idle.popitem(last=False)[0]]
