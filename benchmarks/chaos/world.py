"""A world: gateways, a market, a user, and the steps that happen to them; then rest, and judgement.

The rule of the file: it puts the parts together, and knows when everything that was broken is well again. From then on
everything that is wanted must come to flow, within the patience of ibfast, and nothing else may be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
import weakref
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.chaos.clock import JumpingClock
from benchmarks.chaos.gateway import Gateway
from benchmarks.chaos.judge import Problem, judged
from benchmarks.chaos.market import Market
from benchmarks.chaos.rest import Promises, against_rest
from benchmarks.chaos.user import Held, User
from ibfast import Config
from ibfast.config import BreakerConfig, HeartbeatConfig, PacingConfig, ReconnectionConfig, SessionConfig
from ibfast.errors import RequestError
from ibfast.wire.ids import ServerVersion

VERSIONS = (157, 165, 176, 187, 193, 195, 196, 200, 201, 205, 206, 207, 208, 212, 213, 219, int(ServerVersion.MAX))
"""Server versions: at both sides of every change that ibfast knows of."""
POLL_S = 0.1
PATIENCE_S = 90.0
"""At rest, so long nothing need change, beyond what the plan says."""
LONGEST_REST_S = 900.0
DRAIN_S = 15.0
END_S = 10.0
NO_CODE = 0
LONG_RING = 1 << 12

WORLD: contextvars.ContextVar[World] = contextvars.ContextVar("world")
WORLDS: weakref.WeakSet[World] = weakref.WeakSet()


def quick_times() -> dict[str, Any]:
    """Return settings with which a manager notices and repairs within seconds."""
    return {
        "connect_timeout_s": 3.0,
        "request_timeout_s": 15.0,
        "heartbeat": HeartbeatConfig(
            interval_s=2.0, timeout_s=2.0, first_data_s=5.0, quiet_s=2.0, stale_s=4.0, dead_s=8.0
        ),
        "reconnection": ReconnectionConfig(delay_s=0.1, max_delay_s=1.0, stable_s=5.0, login_poll_s=1.0),
        "breaker": BreakerConfig(open_s=1.0),
    }


@dataclass(frozen=True)
class Setup:
    """What a world is made of.

    Attributes:
        versions: of the gateways, one connection after the other.
        members: connections of the user; more than one are a pool.
        gateways: members are spread over so many, each with an account of its own.
        period_s: between two beats of the market.
        feed_capacity: rows per ring.
        lines: market-data lines of the account.
        backfill: whether the user wants it.
        is_patient: default times, where the others are those of `benchmarks soak`.
    """

    versions: tuple[int, ...] = (226,)
    members: int = 1
    gateways: int = 1
    period_s: float = 0.1
    feed_capacity: int = 1 << 12
    lines: int = 100
    backfill: bool = False
    is_patient: bool = False


@dataclass
class Verdict:
    """What became of a world.

    Attributes:
        problems: what was found, each kind and text once.
        counts: steps, requests, ticks, rows, gaps, offences, calls.
        journal: what happened: when, and what.
    """

    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    journal: list[tuple[float, str]] = field(default_factory=list)

    @property
    def kinds(self) -> set[str]:
        """The kinds of what was found."""
        return {problem.kind for problem in self.problems}


class World:
    """Use it as an async context manager; call `step` as often as you like, and `verdict` once.

    Attributes:
        gateways, market, user: the parts.
        clock: the clock that jumps; None in real time.
        scripts: troubles that take their time.
    """

    def __init__(self, setup: Setup, clock: JumpingClock | None = None) -> None:
        self.setup = setup
        self.clock = clock
        self.market = self.new_market()
        self.gateways = [
            Gateway(self.market, setup.versions, f"DU{number}", setup.lines) for number in range(setup.gateways)
        ]
        self.scripts: set[asyncio.Task[Any]] = set()
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.problems: list[Problem] = []
        self.steps = 0
        self.happened: list[tuple[float, str]] = []
        self._logged = _Logged(self)
        self._stack = contextlib.AsyncExitStack()

    def new_market(self) -> Market:
        """Return what ticks come from."""
        return Market()

    async def __aenter__(self) -> World:
        WORLD.set(self)
        WORLDS.add(self)
        loop = asyncio.get_running_loop()
        loop.set_task_factory(_new_task)
        loop.set_exception_handler(_on_loop_error)
        logging.getLogger().addHandler(self._logged)
        self._stack.callback(logging.getLogger().removeHandler, self._logged)
        for gateway in self.gateways:
            await self._stack.enter_async_context(gateway)
        self._beating = asyncio.create_task(self._beat(), name="chaos beat")
        self._stack.push_async_callback(_cancelled, self._beating)
        await self.begin()
        return self

    async def begin(self) -> None:
        """Begin what is judged: a user that connects."""
        self.user = User([self._config(member) for member in range(self.setup.members)])
        for number, member in enumerate(self.user.members):
            member._supervisor.reconnection._random.seed(number)  # the same steps are to be the same run
        await self.user.connect()

    async def __aexit__(self, *exc_info: object) -> None:
        for script in tuple(self.scripts):
            await _cancelled(script)
        await self._stack.aclose()
        WORLDS.discard(self)

    def _config(self, member: int) -> Config:
        gateway = self.gateways[member % len(self.gateways)]
        return Config(
            port=gateway.port,
            client_id=1 + 10 * member,
            feed_capacity=self.setup.feed_capacity,
            pacing=PacingConfig(lines=self.setup.lines, max_wait_s=120.0),
            session=SessionConfig(backfill=self.setup.backfill),
            **{} if self.setup.is_patient else quick_times(),
        )

    async def _beat(self) -> None:
        """Let the market go on, and the gateways tell of it."""
        while True:
            await asyncio.sleep(self.setup.period_s)
            for gateway in self.gateways:
                for asked in gateway.live():
                    self.market.times_s[asked.series]  # a series begins when it is first asked for
            going = self.market.beat()
            for gateway in self.gateways:
                gateway.deliver(going)

    def script(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a trouble that takes its time; rest waits for its end."""
        task = asyncio.create_task(work, name="chaos script")
        self.scripts.add(task)
        task.add_done_callback(self.scripts.discard)

    @property
    def journal(self) -> list[tuple[float, str]]:
        """What has happened so far, in order: steps, requests, notices."""
        return sorted(self.happened + [entry for gateway in self.gateways for entry in gateway.journal])

    def note(self, text: object) -> None:
        """Write down what happens."""
        self.happened.append((time.monotonic(), str(text)))

    def has_raised(self, error: BaseException | None) -> bool:
        """Tell whether an error has come out of a part of this world, as far as its traceback says so."""
        return False

    def problem(self, kind: str, text: str) -> None:
        """Write down what must not be."""
        self.note(f"{kind}: {text}")
        self.problems.append(Problem(kind, text))

    # --- rest ---

    async def verdict(self) -> Verdict:
        """Let everything come to rest, end it, and return what was found."""
        while self.scripts:
            await asyncio.wait(tuple(self.scripts))
        self.note("everything is made well again")
        self.user.events_ended()
        await self._heal()
        await self.user.calls_ended()
        is_at_rest = False
        if self.user.is_wanted:
            await self.user.connect()
            is_at_rest = await self._rest()
        found = [problem for held in self.user.held for problem in self._judged(held, is_at_rest)]
        await self._end()
        found += [
            Problem("offence", f"{rule}: {detail}") for gateway in self.gateways for _, rule, detail in gateway.offences
        ]
        found += [Problem(*problem) for problem in self.user.problems]
        return Verdict(gathered(self.problems + found), self._counts(), self.journal)

    async def _heal(self) -> None:
        """End every trouble, and say so where a gateway would."""
        for gateway in self.gateways:
            gateway.is_refusing = gateway.is_speechless = False
            gateway.used_ids.clear()
            gateway.fates.clear()
            gateway.withheld = gateway.repeated = gateway.late_ticks = 0
            gateway.delay_s = 0.0
            await gateway.listen()
            for connection in tuple(gateway.connections):
                connection.go_on()
        self.market.resume()

    async def _rest(self) -> bool:
        """Wait until everything flows, then for the last row. False if that never comes."""
        began_s = time.monotonic()
        marks = {series: self.market.number(series) for series in self.market.times_s}
        deadline_s = began_s + PATIENCE_S
        promises = Promises(self)
        against: list[str] = ["nothing was looked at"]
        while against and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
            against = list(against_rest(self, marks))
            latest_s = promises.look()
            if any(asked.is_mute for gateway in self.gateways for asked in gateway.live()):
                latest_s = time.monotonic()  # the silence of a stream that has brought little is noticed late
            deadline_s = min(max(deadline_s, latest_s + PATIENCE_S), began_s + LONGEST_REST_S)
        if against:
            waited_s = time.monotonic() - began_s
            for text in against[:5]:
                kind = "live" if text.startswith("live") else "rest"
                self.problem(kind, f"{text}, {waited_s:.0f} s after everything was well again")
            return False
        self.market.close()
        deadline_s = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline_s and not all(map(self._is_drained, self.user.open())):
            await asyncio.sleep(POLL_S)
        return True

    def _is_drained(self, held: Held) -> bool:
        """Tell whether a stream has yielded the last tick of its request, if one is live."""
        for gateway in self.gateways:
            asked = gateway.asked.get(held.stream.req_id)
            if asked is not None and asked.is_live:
                sent = [number for number, at_s in asked.sent.items() if at_s >= held.since_s]
                return held.newest >= max(sent, default=0)
        return True

    def _judged(self, held: Held, is_at_rest: bool) -> Iterator[Problem]:
        held.take_gaps()
        asked = {req_id: request for gateway in self.gateways for req_id, request in gateway.asked.items()}
        yield from judged(
            held, asked, self.market, is_at_rest=is_at_rest, is_ring_long=self.setup.feed_capacity >= LONG_RING
        )
        error = held.error
        if isinstance(error, RequestError) and error.code != NO_CODE:
            said = {notice for gateway in self.gateways for notice in gateway.notices}
            if (error.req_id, error.code) not in said:
                yield Problem("refused", f"{held.name} has ended with {error!r}, which no gateway has said")

    # --- the end ---

    async def _end(self) -> None:
        """End the user, and look for what is left."""
        await self.user.close()
        deadline_s = time.monotonic() + END_S
        while time.monotonic() < deadline_s and any(gateway.connections for gateway in self.gateways):
            await asyncio.sleep(POLL_S)
        for gateway in self.gateways:
            for connection in gateway.connections:
                self.problem("left", f"connection {connection.number} is open after disconnect")
            if any(gateway.live()):
                self.problem("left", f"live after disconnect: {[asked.request for asked in gateway.live()][:3]}")
        own = {asyncio.current_task(), self._beating, *self.scripts}
        for task in self.tasks:
            if not task.done() and task not in own:
                self.problem("left", f"task {task.get_name()}: {task.get_coro()}")
        for member in self.user.members:
            if member.session.subscriptions or member.plan():
                self.problem("left", f"subscriptions after disconnect: {list(member.session.subscriptions)[:3]}")

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter(
            worlds=1,
            steps=self.steps,
            streams=len(self.user.held),
            rows=self.user.rows(),
            gaps=sum(len(held.gaps) for held in self.user.held),
            calls=self.user.calls.total(),
        )
        for gateway in self.gateways:
            counts += Counter(
                requests=gateway.requests,
                ticks=gateway.ticks,
                notices=len(gateway.notices),
                offences=len(gateway.offences),
            )
        return counts


class _Logged(logging.Handler):
    """Takes exceptions that are logged in the context of one world."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if WORLD.get(None) is self._world and (record.exc_info or record.name == "asyncio"):
            error = record.exc_info[1] if record.exc_info else None
            self._world.problem("exception", f"logged by {record.name}: {record.getMessage()[:200]} {error!r}")


def gathered(problems: list[Problem]) -> list[Problem]:
    """Return the first problem of each kind and subject, and how many more like it there are."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.kind, problem.text.partition(":")[0]), []).append(problem)
    return [
        first._replace(text=f"{first.text} (and {len(more)} more)") if more else first
        for first, *more in alike.values()
    ]


def _new_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, **options)
    context = options.get("context")
    world = context.get(WORLD) if context is not None else WORLD.get(None)
    if world is not None:
        world.tasks.add(task)
    return task


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    text = f"the event loop says {context.get('message')}: {context.get('exception')!r}"
    for world in _concerned(context):
        world.problem("exception", text)


def _concerned(context: dict[str, Any]) -> list[World]:
    """Return the world of an error that the event loop tells of; all of them if nothing says which."""
    # Before Python 3.12 the handler is not called in the context of what has failed.
    of_handle = getattr(context.get("handle"), "_context", None)
    world = None if of_handle is None else of_handle.get(WORLD)
    task = context.get("task") or context.get("future")
    error = context.get("exception")
    owners = [other for other in WORLDS if other is world or task in other.tasks or other.has_raised(error)]
    return owners or list(WORLDS)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


def described(setup: Setup) -> dict[str, Any]:
    """Return a setup as JSON has it."""
    return asdict(setup)
