"""A small world for one scenario: a gateway with a busy market, a network that fails, the subject, a witness.

The rule of the file: it measures and judges; scenarios only act. What is judged: every declared stream is live again,
by data and by what the manager says, or reported as refused; nothing lost unreported, nothing doubled; at rest, the
gateway has one request for each stream and no other; no limit broken; nothing leaked.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.faults.subject import WISHES, Subject, Wish, config
from benchmarks.faults.witness import Witness
from benchmarks.ports import kept_port
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.sim.instruments import Instrument
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.subscription import Family
from ibfast.sim.universe import Universe

SYMBOLS = ("AAPL", "MSFT", "SPY", "NVDA", "EUR")
EVENTS_PER_S = 300.0
SPEED = 5.0
"""Of the gateway's clock: five-second bars come every second."""
START_S = 30.0
LIMIT_S = 60.0
POLL_S = 0.005
OPEN_FILES = Path("/proc/self/fd")
FAMILIES = {
    "QUOTES": Family.LEVEL_1, "TRADES": Family.LEVEL_1, "LAST": Family.TICK_BY_TICK, "DEPTH": Family.DEPTH,
    "BARS": Family.BARS, "UPDATING_BARS": Family.HISTORY,
}  # fmt: skip
REROUTED = (Family.LEVEL_1, Family.DEPTH)

PeerType = TypeVar("PeerType")


@dataclass(frozen=True)
class Outcome:
    """One line of the matrix; `problems` is empty where the scenario passed. Absent times are None."""

    name: str
    what: str
    detect_s: float | None = None
    live_s: float | None = None
    lost: int = 0
    reported: int = 0
    unreported: int = 0
    doubled: int = 0
    requests: int = 0
    violations: int = 0
    tasks: int = 0
    files: int = 0
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.problems


Script = Callable[["World"], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """What happens to a world.

    Attributes:
        script: acts; calls `world.fault()` right before the fault, and `world.healed()` when recovery is possible.
        noticed: the manager must tell that something happened.
        quick: part of the short form.
        starts: the subject is connected and live before the script begins.
        events_per_s: of the market.
        settings: of the subject's Config.
    """

    name: str
    what: str
    script: Script
    noticed: bool = True
    quick: bool = False
    starts: bool = True
    events_per_s: float = EVENTS_PER_S
    settings: dict[str, Any] = field(default_factory=dict)


class World:
    """Use it as an async context manager.

    Attributes:
        gateway, proxy, witness: the parts.
        subject: reaches the gateway through the proxy; there is none before `start`.
        folder: for files.
    """

    def __init__(self, scenario: Scenario, *, quick: bool, subject_type: type[Subject] = Subject) -> None:
        self.scenario = scenario
        self._subject_type = subject_type
        self.wishes = tuple(wish for wish in WISHES if not (quick and wish.is_tick_by_tick))
        self.witness = Witness()
        self.universe = always_open(SYMBOLS)
        self.gateway = Gateway(
            market=Market(self.universe, rate=scenario.events_per_s), clock=Clock(SPEED), journal=self.witness.journal
        )
        self.has_subject = False
        self.problems: list[str] = []
        self.detect_s: float | None = None
        self.live_s: float | None = None
        self._refusable: set[str] = set()
        self._fault_s: float | None = None
        self._healed_s: float | None = None
        self._requests_before = 0
        self._stack = AsyncExitStack()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> World:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.gateway.port = self._stack.enter_context(closing(kept_port())).getsockname()[1]
        await self._stack.enter_async_context(self.gateway)
        self.witness.watch(self.gateway, list(self.universe))
        self.proxy = await self._stack.enter_async_context(FaultProxy(self.gateway.host, self.gateway.port))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            if self.has_subject:
                await self.subject.stop()
                self.witness.close()
                await self.until(lambda: not self.gateway.sessions, "it is still connected after its end")
        finally:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)
            await self._stack.aclose()

    async def enter(self, peer: AbstractAsyncContextManager[PeerType]) -> PeerType:
        """Enter what must last until the scenario has been judged."""
        return await self._stack.enter_async_context(peer)

    async def start(self, port: int = 0, **settings: Any) -> None:
        """Make the subject, connect it (through the proxy if no port is given), and wait for data on all streams."""
        self.subject = self._subject_type(
            config(port or self.proxy.port, **self.scenario.settings | settings), self.wishes
        )
        self.has_subject = True
        self.subject.on_event(lambda event: self._notice())
        self.witness.attach(self.subject.feed)
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(START_S):
            await self.subject.start()
            while not all(self._flows(wish.name, 0.0) for wish in self.wishes):
                await asyncio.sleep(POLL_S)

    # --- what scripts call ---

    def fault(self) -> None:
        """Begin to measure: the fault comes now."""
        self._fault_s = time.monotonic()
        self._requests_before = self.gateway.received.total()

    def healed(self) -> None:
        """From now on every stream can be live again; what came before proves nothing."""
        self._healed_s = time.monotonic()

    async def noticed(self) -> None:
        """Wait until the manager has told that something happened."""
        await self.until(lambda: self.detect_s is not None, "the fault was not noticed")

    async def until(
        self, condition: Callable[[], object], otherwise: str | Callable[[], str] = "it never happened"
    ) -> bool:
        """Wait for a condition, at most `LIMIT_S`. Return whether it came true; if not, that is a problem."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition():
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            self.problems.append(otherwise if isinstance(otherwise, str) else otherwise())
            return False
        return True

    async def declare(self, *wishes: Wish) -> None:
        """Declare more streams, which are judged as the others."""
        for wish in wishes:
            self.wishes += (wish,)
            await self.subject.declare(wish)

    async def renew(self, name: str) -> None:
        """Have a stream unsubscribed and declared anew; records in between are not wanted."""
        self.witness.leave(self.con_id(name))
        await self.subject.renew(name)

    def leave_all(self) -> None:
        """No stream is wanted until it is declared anew."""
        for wish in self.wishes:
            self.witness.leave(self.con_id(wish.name))

    def may_be_refused(self, *names: str) -> None:
        """Accept that these streams do not come back, if the manager says so."""
        self._refusable.update(names)

    def expect(self, condition: object, problem: str) -> None:
        """Note a problem unless the condition holds."""
        if not condition:
            self.problems.append(problem)

    def wish(self, name: str) -> Wish:
        """Return a declared stream's wish."""
        return next(wish for wish in self.wishes if wish.name == name)

    def con_id(self, name: str) -> int:
        """Return the con_id of a declared stream."""
        return self.universe.find(self.wish(name).contract)[0].con_id

    def req_id(self, name: str) -> int:
        """Return the request at the gateway that serves a declared stream now."""
        place = self._place(self.wish(name))
        return next(s.req_id for s in self.gateway.subscriptions() if (s.family, s.con_id) == place)

    # --- measuring ---

    async def recovered(self) -> None:
        """Wait until every stream is proven live, or its refusal is reported."""
        since_s = self._healed_s or self._fault_s or 0.0
        names = [wish.name for wish in self.wishes]

        def settled(name: str) -> bool:
            return self._is_refused(name) or self._flows(name, since_s)

        def missing() -> str:
            waiting = (f"{name} ({self.subject.state(name)})" for name in names if not settled(name))
            return f"not live: {', '.join(waiting)}"

        if await self.until(lambda: all(map(settled, names)), missing) and self._fault_s is not None:
            self.live_s = time.monotonic() - self._fault_s

    async def at_rest(self) -> None:
        """Wait until the gateway has exactly one request for each stream that is not refused, and no other one."""

        def differences() -> dict[str, int]:
            found = Counter((s.family, s.con_id) for s in self.gateway.subscriptions())
            found.subtract(self._place(wish) for wish in self.wishes if not self._is_refused(wish.name))
            return {f"{family} of {con_id}": more for (family, con_id), more in found.items() if more}

        await self.until(lambda: not differences(), lambda: f"requests too many at the gateway: {differences()}")

    def outcome(self) -> Outcome:
        """Return what was measured; to be called after the end."""
        losses = self.witness.losses()
        unreported = sum(loss.unreported for loss in losses)
        lost = sum(loss.lost for loss in losses)
        doubled = sum(loss.doubled for loss in losses)
        problems = [*self.problems, *self.witness.mismatches[:3]]
        if self.scenario.noticed and self.detect_s is None:
            problems.append("the fault was not noticed")
        for is_bad, problem in (
            (unreported, f"{unreported} records lost without a report"),
            (doubled, f"{doubled} records twice"),
            (self.witness.rows_lost, "the witness was too slow"),
            (not self.witness.sent, "nothing was sent"),
        ):
            if is_bad:
                problems.append(problem)
        problems += [f"limit broken: {v.rule} by {v.request}" for v in list(self.gateway.violations)[:3]]
        return Outcome(
            self.scenario.name, self.scenario.what, self.detect_s, self.live_s, lost, lost - unreported, unreported,
            doubled, self.gateway.received.total() - self._requests_before, len(self.gateway.violations),
            problems=tuple(dict.fromkeys(problems)),
        )  # fmt: skip

    def _flows(self, name: str, since_s: float) -> bool:
        return self.subject.data_s.get(name, -1.0) > since_s and self.subject.is_live(name)

    def _is_refused(self, name: str) -> bool:
        return name in self._refusable and self.subject.has_given_up(name)

    def _place(self, wish: Wish) -> tuple[Family, int]:
        """Return where the gateway has a stream's request: its family and its instrument."""
        family, con_id = FAMILIES[wish.data_type], self.con_id(wish.name)
        reroutes = self.gateway.faults.reroutes if family in REROUTED else {}
        return family, reroutes.get(con_id, (con_id, ""))[0]

    def _notice(self) -> None:
        if self._fault_s is not None and self.detect_s is None:
            self.detect_s = time.monotonic() - self._fault_s

    async def _read(self) -> None:
        while True:
            self.witness.read()
            await asyncio.sleep(POLL_S)


def always_open(symbols: tuple[str, ...]) -> Universe:
    """Return a universe of these symbols that trades round the clock: silence is never a matter of the time of day."""
    today = datetime.now(UTC).date()
    days = [today + timedelta(days=offset) for offset in range(-1, 7)]
    hours = ";".join(f"{day:%Y%m%d}:0000-{day + timedelta(days=1):%Y%m%d}:0000" for day in days)

    def opened(instrument: Instrument) -> Instrument:
        return replace(instrument, details=replace(instrument.details, trading_hours=hours, liquid_hours=hours))

    return Universe(
        opened(instrument)
        for instrument in Universe.builtin()
        if instrument.contract.symbol in symbols
        and instrument.contract.sec_type in ("STK", "CASH")
        and instrument.contract.currency == "USD"
    )


async def play(scenario: Scenario, *, quick: bool, subject_type: type[Subject] = Subject) -> Outcome:
    """Run one scenario in this loop."""
    files = open_files()
    world = World(scenario, quick=quick, subject_type=subject_type)
    try:
        async with world:
            if scenario.starts:
                await world.start()
            await scenario.script(world)
            if world.has_subject:
                await world.recovered()
                await world.at_rest()
    except Exception as error:  # a scenario that breaks is a result, and the others go on
        world.problems.append(f"{type(error).__name__}: {error}")
    outcome = world.outcome() if world.has_subject else _bare(world)
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    leaked = open_files() - files
    problems = outcome.problems
    if tasks:
        problems += (f"tasks left: {', '.join(sorted(task.get_name() for task in tasks))}",)
    if leaked:
        problems += (f"files left: {', '.join(sorted(leaked))}",)
    return replace(outcome, tasks=len(tasks), files=len(leaked), problems=problems)


def _bare(world: World) -> Outcome:
    return Outcome(
        world.scenario.name,
        world.scenario.what,
        world.detect_s,
        world.live_s,
        violations=len(world.gateway.violations),
        problems=tuple(world.problems),
    )


def open_files() -> set[str]:
    """Return what this process holds open, where the system tells."""
    if not OPEN_FILES.is_dir():
        return set()
    found = set()
    for entry in OPEN_FILES.iterdir():
        try:
            found.add(os.readlink(entry))
        except FileNotFoundError:  # the one that lists the directory
            continue
    return {
        name for name in found if name.startswith(("socket:", "pipe:")) or name.endswith((".sqlite", ".db", "-wal"))
    }
