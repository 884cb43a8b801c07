"""The user of a run: a manager or a pool, the streams that it holds, and every row and gap that they have yielded.

The rule of the file: it calls what users call, each call with a limit, and keeps what it got. What is right is decided
in `judge`. What a call may raise is written here, since it is part of what users are promised.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.chaos.market import DATA_TYPES, numbered
from ibfast import Config, ConnectionPool, IBKRConnectionManager
from ibfast.connection.stream import Stream
from ibfast.contracts import Contract
from ibfast.errors import Error

CALL_LIMIT_S = 200.0
"""No call of a user takes longer, whatever the gateway does: the longest wait of the settings, and some more."""
END_LIMIT_S = 20.0
EXPECTED = (Error, TimeoutError)


@dataclass(eq=False)
class Held:
    """A stream, and what it has yielded.

    Attributes:
        data_type, contract: as asked for.
        since_s: when it was there.
        until_s: when the user ended it.
        rows: what came, batch by batch; `heard` says with each how many gaps and lost rows were known when it came.
        gaps: the rows of `take_gaps`.
        pause_s: the user is slow: so long between two batches.
        error: why it ended by itself.
    """

    stream: Stream
    data_type: str
    contract: Contract
    since_s: float
    until_s: float | None = None
    rows: list[NDArray[Any]] = field(default_factory=list)
    heard: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[Any] = field(default_factory=list)
    pause_s: float = 0.0
    error: Exception | None = None
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"{self.contract.symbol} {self.contract.sec_type} {self.data_type}"

    @property
    def newest(self) -> int:
        """The newest number that came; 0 without any."""
        for rows in reversed(self.rows):
            found = numbered(self.data_type, rows)
            if len(found):
                return int(found[DATA_TYPES[self.data_type].number][-1])
        return 0

    async def read(self) -> None:
        """Read until the stream ends."""
        try:
            async for rows in self.stream:
                self.take_gaps()
                self.rows.append(rows)
                self.heard.append((len(self.gaps), self.stream.lost))
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
        except Error as error:
            self.error = error
        finally:
            self.take_gaps()

    def take_gaps(self) -> None:
        """Take in what gaps there are."""
        self.gaps.extend(self.stream.take_gaps())


class User:
    """Calls a manager, or a pool of them.

    Args:
        configs: one for a manager, several for a pool.

    Attributes:
        client: the manager or the pool.
        members: the managers.
        held: every stream that there was.
        problems: what no user must see, as kind and text.
        calls: how many were made, by name.
    """

    def __init__(self, configs: list[Config]) -> None:
        self.client: Any
        if len(configs) == 1:
            self.client = IBKRConnectionManager(configs[0])
            self.members = [self.client]
        else:
            self.client = ConnectionPool(configs)
            self.members = list(self.client.members)
        self.feed = self.client.feed
        self.held: list[Held] = []
        self.problems: list[tuple[str, str]] = []
        self.calls: Counter[str] = Counter()
        self.is_wanted = True
        self._running: set[asyncio.Task[Any]] = set()
        self._listening: list[Callable[[], None]] = []

    # --- calls ---

    def call(
        self,
        name: str,
        work: Coroutine[Any, Any, Any],
        *,
        cancel_after_s: float | None = None,
        limit_s: float = CALL_LIMIT_S,
    ) -> asyncio.Task[Any]:
        """Begin a call, cancel it in the middle if that is wished, and watch over how it ends."""
        self.calls[name] += 1
        task = asyncio.create_task(self._watched(name, work, cancel_after_s, limit_s), name=f"chaos {name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _watched(
        self, name: str, work: Coroutine[Any, Any, Any], cancel_after_s: float | None, limit_s: float
    ) -> Any:
        task = asyncio.ensure_future(work)
        if cancel_after_s is not None:
            if cancel_after_s:
                await asyncio.wait([task], timeout=cancel_after_s)
            else:
                await asyncio.sleep(0)
            task.cancel()
        done, _ = await asyncio.wait([task], timeout=limit_s)
        if not done:
            self.problems.append(("hang", f"{name} has not returned within {limit_s:g} s"))
            task.cancel()
            await asyncio.wait([task], timeout=END_LIMIT_S)
            return None
        if task.cancelled():
            if cancel_after_s is None:
                self.problems.append(("exception", f"{name} was cancelled by nobody"))
            return None
        error = task.exception()
        if error is not None and not isinstance(error, EXPECTED):
            self.problems.append(("exception", f"{name} raised {error!r}"))
        return None if error is not None else task.result()

    async def calls_ended(self) -> None:
        """Wait until no call is under way; each has its own limit."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    def connect(self, *, cancel_after_s: float | None = None) -> asyncio.Task[Any]:
        """Connect and stay so."""
        self.is_wanted = True
        work = self.client.connect(persist=True) if len(self.members) == 1 else self.client.connect()
        return self.call("connect", work, cancel_after_s=cancel_after_s)

    def disconnect(self, *, cancel_after_s: float | None = None) -> asyncio.Task[Any]:
        """Disconnect."""
        self.is_wanted = False
        return self.call("disconnect", self.client.disconnect(), cancel_after_s=cancel_after_s)

    def subscribe(
        self,
        contract: Contract,
        data_type: str,
        *,
        priority: int = 0,
        pause_s: float = 0.0,
        cancel_after_s: float | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Subscribe, and read what comes."""
        work = self._subscribe(contract, data_type, priority, pause_s, options)
        return self.call(f"subscribe to {data_type}", work, cancel_after_s=cancel_after_s)

    async def _subscribe(
        self, contract: Contract, data_type: str, priority: int, pause_s: float, options: dict[str, Any]
    ) -> Held:
        stream = await self.client.subscribe(contract, data_type, priority=priority, **options)
        held = Held(stream, data_type, contract, time.monotonic(), pause_s=pause_s)
        self.held.append(held)
        held.task = asyncio.create_task(held.read(), name="chaos reader")
        return held

    def unsubscribe(self, held: Held) -> None:
        """End a stream."""
        held.until_s = held.until_s or time.monotonic()
        held.stream.unsubscribe()

    def ask(self, name: str, *arguments: Any, cancel_after_s: float | None = None, **options: Any) -> asyncio.Task[Any]:
        """Ask a question, of the first member."""
        return self.call(name, getattr(self.members[0], name)(*arguments, **options), cancel_after_s=cancel_after_s)

    def on_event(self, react: Callable[[Any], None]) -> list[Callable[[], None]]:
        """Have every event of every member told, until `events_ended`. Return what ends it sooner."""
        stops = [member.monitor.listen(react) for member in self.members]
        self._listening += stops
        return stops

    def events_ended(self) -> None:
        """Have no event told any more: a callback that calls something then would disturb the rest."""
        for stop in self._listening:
            stop()

    # --- what there is ---

    def open(self) -> list[Held]:
        """Return the streams that the user has not ended, and that have not ended by themselves."""
        return [held for held in self.held if held.until_s is None and held.stream.live]

    @property
    def is_connected(self) -> bool:
        """Whether every member has a session."""
        return all(member.session.is_connected for member in self.members)

    async def close(self) -> None:
        """End everything, as a program that ends."""
        await self.calls_ended()
        self.disconnect()
        await self.calls_ended()
        readers = [held.task for held in self.held if held.task is not None]
        if readers:
            _, pending = await asyncio.wait(readers, timeout=END_LIMIT_S)
            for task in pending:
                self.problems.append(("hang", "a stream's iteration does not end after disconnect"))
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def rows(self) -> int:
        """Return how many rows the streams have yielded."""
        return sum(len(rows) for held in self.held for rows in held.rows)


def joined(rows: list[NDArray[Any]]) -> NDArray[Any]:
    """Return batches as one array."""
    return np.concatenate(rows) if rows else np.zeros(0)
