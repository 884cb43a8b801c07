"""A truthful gateway: it knows which request of which connection is live, and writes down every tick that it sends.

The rule of the file: it answers every request of ibfast, in every server version, and enforces IB's rules. How it goes
wrong is decided in `trouble`; what it did is never in doubt, since the log is kept here, before the bytes leave.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks.chaos.connection import Asked, Connection
from benchmarks.chaos.market import Market, Series
from benchmarks.chaos.rules import Account
from benchmarks.ports import kept_port


class Offence(NamedTuple):
    """A rule of IB that a client has broken."""

    at_s: float
    rule: str
    detail: str


class Gateway:
    """One gateway. Use it as an async context manager; give it every beat of the market by `deliver`.

    Args:
        market: where ticks come from.
        versions: server versions, one connection after the other, the last one for good.
        account: whose login it is.
        lines: market-data lines.

    Attributes:
        port: where it listens.
        connections: those that are open.
        asked: every request with an id, by id; ids are never used twice within one feed.
        notices: what was said: of which request (-1: of none), and the code.
        offences: what was broken.
        requests, ticks: how many came and went.
        journal: what happened, for people: when, and what.
        muted: reasons for which no ticks leave, each a word ("link", "farm", "session").
        told: reasons that clients have been told of, so that those who come later are told too.
        fates: of the next subscriptions: a code with which each is refused, and whether that is true.
        withheld: so many of the next answers are never sent; `repeated`: so many are sent twice.
        late_ticks: so many ticks of a request follow its cancel.
        delay_s: how long answers take.
        used_ids: client ids that other programs have.
        is_refusing: connections are closed as soon as they are made; `is_speechless`: they are never answered.
    """

    def __init__(self, market: Market, versions: Iterable[int], account: str = "DU1", lines: int = 100) -> None:
        self.market = market
        self.port = 0
        self.connections: list[Connection] = []
        self.asked: dict[int, Asked] = {}
        self.notices: list[tuple[int, int]] = []
        self.offences: list[Offence] = []
        self.requests = 0
        self.ticks = 0
        self.journal: list[tuple[float, str]] = []
        self.muted: set[str] = set()
        self.told: set[str] = set()
        self.fates: deque[tuple[int, bool]] = deque()
        self.withheld = 0
        self.repeated = 0
        self.late_ticks = 0
        self.delay_s = 0.0
        self.used_ids: set[int] = set()
        self.is_refusing = False
        self.is_speechless = False
        self.account = Account(lines)
        self.account_id = account
        self.lines = lines
        self._versions = list(versions)
        self._accepted = 0
        self._held: list[Callable[[], None]] = []
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Gateway:
        self._place = kept_port()
        self.port = self._place.getsockname()[1]
        await self.listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close_door()
        self._place.close()
        for connection in tuple(self.connections):
            connection.abort()

    async def listen(self) -> None:
        """Open the door, at the same port as before."""
        async with self._opening:
            if self._server is None:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(self._accept, "127.0.0.1", self.port)

    def close_door(self) -> None:
        """Have new connections refused by the system."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def live(self) -> Iterator[Asked]:
        """Yield the requests that are live, oldest connection first."""
        for connection in self.connections:
            yield from tuple(connection.live.values())

    def deliver(self, going: Iterable[Series]) -> None:
        """Send the newest number of these series to every live request, then write all that waits."""
        with_news = set(going)
        for connection in tuple(self.connections):
            connection.deliver(with_news)
            connection.flush()

    def say(self, code: int, text: str, req_id: int = -1, *, at_once: bool = True) -> None:
        """Send a notice to every client; otherwise than `at_once`, in one write with the next ticks."""
        for connection in tuple(self.connections):
            connection.say(req_id, code, text)
            if at_once:
                connection.flush()

    def end(self, asked: Asked, code: int, text: str, *, really: bool) -> None:
        """Say that a request has ended, and end it, if that is true."""
        if really:
            asked.connection.end(asked)
        asked.connection.say(asked.request.req_id, code, text)
        asked.connection.flush()

    def lose_all(self) -> None:
        """Forget every request of every client, as after 1101."""
        for asked in self.live():
            asked.connection.end(asked)

    def unmute(self, reason: str) -> None:
        """Have ticks leave again, as far as this reason was what kept them; answers that waited are given."""
        self.muted.discard(reason)
        self.told.discard(reason)
        if "link" not in self.muted:
            held, self._held = self._held, []
            for answer in held:
                answer()

    def answer(self, connection: Connection, *messages: Any, needs_ib: bool = True) -> None:
        """Send an answer: now, later, twice, or never, as the gateway's mood is; without IB only what needs none."""
        if self.withheld:
            self.withheld -= 1
            return
        times = 2 if self.repeated else 1
        self.repeated = max(0, self.repeated - 1)

        def send() -> None:
            connection.send(*messages * times)
            connection.flush()

        if needs_ib and "link" in self.muted:
            self._held.append(send)
        elif self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, send)
        else:
            send()

    def note(self, text: object) -> None:
        """Write down what happened."""
        self.journal.append((time.monotonic(), f"{self.account_id}: {text}"))

    def offend(self, rule: str, detail: object) -> None:
        """Write down that a rule was broken."""
        self.note(f"offence: {rule}")
        self.offences.append(Offence(time.monotonic(), rule, str(detail)))

    def _accept(self) -> Connection:
        version = self._versions[min(self._accepted, len(self._versions) - 1)]
        self._accepted += 1
        return Connection(self, self._accepted, version)
