"""Worlds from seeds: drawing the steps, playing them, and finding the few of them that matter.

The rule of the file: a world is its setup and its steps, and nothing else. On the jumping clock the same steps are the
same run; in real time they are one much like it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

from benchmarks.chaos import actions, trouble
from benchmarks.chaos.clock import JumpingClock
from benchmarks.chaos.steps import Action, Step, drawn
from benchmarks.chaos.world import VERSIONS, Setup, Verdict, World

ACTIONS: dict[str, Action] = {**actions.ACTIONS, **trouble.ACTIONS}
MOST_STEPS = 40
REAL = "/real/"
JUMPING_ONLY = ("block loop", "step clock", "forget request")
"""Actions that concern the whole process, or take more patience than there is in real time."""


@dataclass(frozen=True)
class Plan:
    """Everything that makes a world."""

    setup: Setup
    steps: tuple[Step, ...]

    def dumped(self) -> str:
        """Return it as text, a line for each step."""
        setup = json.dumps(asdict(self.setup))
        steps = ",\n  ".join(str(step) for step in self.steps)
        return f'{{"setup": {setup},\n "steps": [\n  {steps}\n ]}}\n'

    @classmethod
    def loaded(cls, text: str) -> Plan:
        """Return what `dumped` has written."""
        found = json.loads(text)
        setup = found["setup"] | {"versions": tuple(found["setup"]["versions"])}
        return cls(Setup(**setup), tuple(Step(**step) for step in found["steps"]))


def drawn_setup(draw: random.Random) -> Setup:
    """Draw what a world is made of."""
    members = draw.choice([1, 1, 1, 2, 3])
    return Setup(
        versions=tuple(draw.choice(VERSIONS) for _ in range(draw.choice([1, 1, 2, 4]))),
        members=members,
        gateways=draw.randint(1, members),
        period_s=draw.choice([0.1, 0.1, 0.25]),
        feed_capacity=draw.choice([1 << 12, 1 << 12, 1 << 8]),
        lines=draw.choice([100, 100, 100, 5]),
        backfill=draw.random() < 0.4,
        is_patient=draw.random() < 0.2,
    )


def plan_of(seed: str, without: Collection[str] = ()) -> Plan:
    """Return the world of a seed, without some actions; one that was played in real time is named so."""
    draw = random.Random(seed)
    left_out = {*without, *(JUMPING_ONLY if REAL in seed else ())}
    allowed = [action for name, action in ACTIONS.items() if name not in left_out]
    setup = drawn_setup(draw)
    return Plan(setup, tuple(drawn(allowed, draw) for _ in range(draw.randrange(3, MOST_STEPS))))


async def played(plan: Plan, clock: JumpingClock | None = None) -> Verdict:
    """Play a world in this event loop."""
    async with World(plan.setup, clock) as world:
        for step in plan.steps:
            await do(world, step)
        return await world.verdict()


async def do(world: World, step: Step) -> None:
    """Make a step happen, and wait as long as it says."""
    world.steps += 1
    world.note(step)
    await ACTIONS[step.action].run(world, **step.arguments)
    await asyncio.sleep(step.pause_s)


def jumped(plan: Plan) -> Verdict:
    """Play a world on a clock of its own, which takes no longer than the work in it."""
    clock = JumpingClock()
    with clock.installed(), asyncio.Runner(loop_factory=clock.new_loop) as runner:
        return runner.run(played(plan, clock))


def shrunk(plan: Plan, fails: Callable[[Plan], bool], within_s: float) -> Plan:
    """Return a part of a plan that still fails: chunks of steps are left out, larger ones first, then pauses."""
    deadline_s = time.monotonic() + within_s
    steps = list(plan.steps)
    chunk = max(1, len(steps) // 2)
    while time.monotonic() < deadline_s:
        is_smaller = False
        at = 0
        while at < len(steps) and time.monotonic() < deadline_s:
            fewer = steps[:at] + steps[at + chunk :]
            if fails(Plan(plan.setup, tuple(fewer))):
                steps, is_smaller = fewer, True
            else:
                at += chunk
        if chunk == 1 and not is_smaller:
            break
        chunk = max(1, chunk // 2)
    return Plan(plan.setup, tuple(steps))
