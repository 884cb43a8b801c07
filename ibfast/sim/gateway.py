"""The embedded gateway: a simulated TWS on a real socket.

The rule of the file: it owns the server, the clock and the pump that turns a market's events into messages. Sessions
know the socket, desks know the requests, streams know the messages.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType

from ibfast.errors import ConfigError
from ibfast.sim.answers import Answers
from ibfast.sim.channel import Listener, MarketChannel, Timed
from ibfast.sim.clock import Clock
from ibfast.sim.codec import UnknownRequest
from ibfast.sim.events import Event, EventSource
from ibfast.sim.faults import Faults
from ibfast.sim.instruments import Instrument
from ibfast.sim.market import Market
from ibfast.sim.pacing import GatewayLimits, Refusal
from ibfast.sim.session import GatewaySession
from ibfast.sim.streams import Message
from ibfast.sim.subscription import GatewaySubscription
from ibfast.sim.universe import Universe
from ibfast.wire.ids import ServerVersion
from ibfast.wire.requests import Request

__all__ = ["Gateway", "Journal", "Violation", "run"]

_STEP_S = 0.002
_MOST_CLIENTS = 32
_NEVER = 1 << 62
_MOST_VIOLATIONS = 10_000

Journal = Callable[[int, Message], None]
"""Called with the client id and each message before it is sent."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A request that a limit refused, not a fault.

    `at_s` is monotonic time, `rule` the limit; `code` is 0 where the request was dropped without an error.
    """

    at_s: float
    client_id: int | None
    code: int
    rule: str
    request: Request | UnknownRequest


class Gateway:
    """A TWS for tests, demos and benchmarks.

    Use it as an async context manager; `port` is known inside. It may be entered again after its end: it has the same
    port then, and its market has gone on.

    Args:
        host: the interface to listen on.
        port: 0 is any free one.
        server_version: 157 to 226; a client's offer may lower it.
        market: where events come from; default: a `Market` of the built-in universe.
        accounts: what the login manages.
        pacing: enforce IB's limits.
        lines: market-data lines, from which most limits follow.
        read_only: clients may not see orders.
        clock: the gateway's time; default: the wall clock.
        send_buffer: bytes that a client may leave unread before it is cut off.
        journal: called with every message that is sent.

    Attributes:
        sent, received: messages and requests, by class.
        sessions: the clients.
        violations: requests that broke a limit, the last ten thousand.
        faults: the verbs by which it goes wrong.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        server_version: int = ServerVersion.MAX,
        market: EventSource | None = None,
        accounts: Sequence[str] = ("DU1234567",),
        pacing: bool = True,
        lines: int = 100,
        read_only: bool = False,
        clock: Clock | None = None,
        send_buffer: int = 4 << 20,
        journal: Journal | None = None,
    ) -> None:
        _require_version(server_version)
        self.host = host
        self.port = port
        self.server_version = server_version
        self.market: EventSource = market or Market(Universe.builtin())
        self.accounts = tuple(accounts)
        self.pacing = pacing
        self.lines = lines
        self.clock = clock or Clock()
        self.limits = GatewayLimits(lines, enforced=pacing)
        self.send_buffer = send_buffer
        self.answers = Answers(self.market.universe, self.accounts, read_only=read_only)
        self.sent: Counter[type] = Counter()
        self.received: Counter[type] = Counter()
        self.sessions: list[GatewaySession] = []
        self.violations: deque[Violation] = deque(maxlen=_MOST_VIOLATIONS)
        self.faults = Faults(self)
        self._journal = journal
        self._channels: dict[int, MarketChannel] = {}
        self._leaving: list[tuple[MarketChannel, Listener]] = []
        self._timed: list[tuple[int, int, Timed]] = []
        self._order = count()
        self._has_begun = False
        self._server: asyncio.Server | None = None
        self._pump_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Gateway:
        """Listen, and begin to pump.

        Raises:
            OSError: the port is taken.
        """
        if not self._has_begun:
            self._has_begun = True
            self.market.begin(self.clock)
        await self.start_listening()
        self._pump_task = asyncio.create_task(self._pump())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop all clients and stop listening; what broke the pump is raised here."""
        assert self._pump_task is not None
        server = self._server
        self.shut()
        self._pump_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._pump_task
        if server is not None:
            await server.wait_closed()
        while self.sessions:
            await asyncio.sleep(0)
        self._remove()

    async def start_listening(self) -> None:
        """Let clients in (again, after `shut`).

        Raises:
            OSError: the port is taken.
        """
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: GatewaySession(self), self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def stop_listening(self) -> None:
        """Refuse new clients; those that there are stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def shut(self) -> None:
        """Be gone for clients, old and new; the market goes on."""
        self.stop_listening()
        for session in tuple(self.sessions):
            session.abort()

    @property
    def is_streaming(self) -> bool:
        """Whether any subscription is open."""
        return bool(self._channels)

    @property
    def channels(self) -> Sequence[MarketChannel]:
        """The instruments that have listeners."""
        return tuple(self._channels.values())

    def subscriptions(self) -> list[GatewaySubscription]:
        """Return what all clients have open."""
        return [subscription for session in self.sessions for subscription in session.desk.subscriptions]

    def wall_s(self) -> float:
        """Return the monotonic real time by which limits are measured."""
        return time.monotonic()

    def admit(self, client_id: int) -> bool:
        """Return whether a client of this id may come in."""
        present = [session.client_id for session in self.sessions if session.client_id is not None]
        return client_id not in present and len(present) < _MOST_CLIENTS

    def count(self, client_id: int | None, message: Message) -> None:
        """Take note of a message that is about to be sent."""
        self.sent[type(message)] += 1
        if self._journal is not None:
            self._journal(-1 if client_id is None else client_id, message)

    def note_violation(self, client_id: int | None, refusal: Refusal, request: Request | UnknownRequest) -> None:
        """Take note of a request that broke a limit."""
        self.violations.append(Violation(self.wall_s(), client_id, refusal.code, refusal.rule, request))

    def channel(self, instrument: Instrument) -> MarketChannel:
        """Return the live state of an instrument."""
        channel = self._channels.get(instrument.con_id)
        if channel is None:
            now_ns = self.clock.now_ns()
            channel = MarketChannel(instrument, self.market.statistics(instrument.con_id, now_ns))
            channel.begin(*self.market.latest(instrument.con_id, now_ns))
        return channel

    def listen(self, channel: MarketChannel, listener: Listener, *, quotes: bool = True, trades: bool = True) -> None:
        """Begin to pass the events of a channel to a listener."""
        con_id = channel.instrument.con_id
        self._channels[con_id] = channel
        channel.listeners.append(listener)
        self.market.watch(con_id, self.clock.now_ns(), quotes=quotes, trades=trades)

    def leave(self, channel: MarketChannel, listener: Listener) -> None:
        """Stop that. Events until the end of the next step are still passed, as by TWS."""
        self._leaving.append((channel, listener))

    def schedule(self, stream: Timed) -> None:
        """Call `stream.on_clock` each time its `due_ns` has come."""
        heapq.heappush(self._timed, (stream.due_ns, next(self._order), stream))

    def unschedule(self, stream: Timed) -> None:
        """Call it no longer."""
        self._timed = [entry for entry in self._timed if entry[2] is not stream]
        heapq.heapify(self._timed)

    async def serve_forever(self) -> None:
        """Serve until cancelled; what breaks the pump is raised here."""
        assert self._pump_task is not None
        await self._pump_task

    async def _pump(self) -> None:
        try:
            while True:
                await self._step()
        finally:
            for session in tuple(self.sessions):
                session.abort()

    async def _step(self) -> None:
        """Deliver what has happened since the last step, in one write per client."""
        leaving = len(self._leaving)
        # Read before the market is asked: a bar that ends by then has all its events.
        now_ns = self.clock.now_ns()
        events = self.market.advance(self.clock)
        self.deliver(events)
        self._ring(now_ns)
        for session in tuple(self.sessions):
            session.flush()
        self._remove(leaving)
        if events and self.market.paces_itself:
            for session in tuple(self.sessions):
                await session.drained()
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(_STEP_S)

    def deliver(self, events: Iterable[Event]) -> None:
        """Let events happen, and pass them to the listeners."""
        channels = self._channels
        due_ns = self._timed[0][0] if self._timed else _NEVER
        for event in events:
            if event[0] >= due_ns:
                self._ring(event[0])
                due_ns = self._timed[0][0] if self._timed else _NEVER
            channel = channels.get(event[1])
            if channel is not None:
                channel.apply(event)

    def _ring(self, now_ns: int) -> None:
        """Call every stream whose time has come."""
        while self._timed and self._timed[0][0] <= now_ns:
            stream = self._timed[0][2]
            stream.on_clock()
            heapq.heapreplace(self._timed, (stream.due_ns, next(self._order), stream))

    def _remove(self, leaving: int | None = None) -> None:
        """Forget the first so many of the listeners that leave, or all."""
        gone, self._leaving = self._leaving[:leaving], self._leaving[leaving:] if leaving is not None else []
        for channel, listener in gone:
            channel.listeners.remove(listener)
            if not channel.listeners:
                self.market.unwatch(channel.instrument.con_id)
                del self._channels[channel.instrument.con_id]


async def run(gateway: Gateway) -> None:
    """Serve until cancelled, or until the pump breaks."""
    async with gateway:
        await gateway.serve_forever()


def _require_version(server_version: int) -> None:
    lowest, highest = ServerVersion.MIN, ServerVersion.MAX
    if not lowest <= server_version <= highest:
        raise ConfigError(f"server_version={server_version} is not possible: give {lowest:d} to {highest:d}")
