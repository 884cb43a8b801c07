"""Fan-out worlds from seeds: drawing the steps and playing them, in real time.

The rule of the file: as in `benchmarks.chaos.play`. Nothing is the same run twice, since sockets and clocks are real;
so what fails is shrunk by playing every part of it a few times.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from benchmarks.chaos import play, trouble
from benchmarks.chaos.fanout import actions
from benchmarks.chaos.fanout.process import ProcessWorld
from benchmarks.chaos.fanout.world import FanoutSetup, FanoutWorld
from benchmarks.chaos.steps import Action, Step, drawn
from benchmarks.chaos.world import Verdict

TROUBLES = (
    "drop", "drop", "shut", "freeze", "slow", "delay answers", "repeat answers", "tick after cancel", "refuse next",
    "end request", "end request", "keep silence", "lose link", "break farm",
)  # fmt: skip
"""What happens at the gateway."""
ACTIONS: dict[str, Action] = {**actions.ACTIONS, **{name: trouble.ACTIONS[name] for name in TROUBLES}}
LONGEST_S = 1.5
"""No pause, and no trouble, is longer."""
MOST_STEPS = 50
PAUSES_S = (0.0, 0.0, 0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 1.0)
PROCESS = "/process/"
NOT_OF_PROCESSES = ("end request", "refuse next", "come with ibfast", "revoke")
TIMES = ("for_s", "hold_s", "lag_s", "lead_s", "again_s", "delay_s")
VERSIONS = (176, 193, 201, 208, 219, 226)


@dataclass(frozen=True)
class Plan(play.Plan):
    """Everything that makes a fan-out world."""

    setup: FanoutSetup

    @classmethod
    def loaded(cls, text: str) -> Plan:
        """Return what `dumped` has written."""
        found = json.loads(text)
        setup = found["setup"] | {"versions": tuple(found["setup"]["versions"])}
        return cls(FanoutSetup(**setup), tuple(Step(**step) for step in found["steps"]))


def drawn_setup(draw: random.Random, *, is_process: bool = False) -> FanoutSetup:
    """Draw what a world is made of."""
    members = 1 if is_process else draw.choice([1, 1, 1, 2])
    return FanoutSetup(
        versions=(draw.choice(VERSIONS),),
        members=members,
        gateways=draw.randint(1, members),
        period_s=draw.choice([0.02, 0.05, 0.05, 0.1]),
        feed_capacity=draw.choice([1 << 12, 1 << 12, 1 << 14, 1 << 9]),
        lines=100 if is_process else draw.choice([100, 100, 100, 6]),
        market_seed=draw.randrange(1 << 30),
        has_tokens=draw.random() < 0.3 and not is_process,
        is_process=is_process,
        brief_s=draw.choice([1.0, 3.0, 5.0]),
        max_connections=draw.choice([200, 200, 12]),
        linger_s=draw.choice([0.0, 0.2, 0.2, 2.0]),
        heartbeat_s=draw.choice([0.2, 1.0]),
        ping_s=draw.choice([20.0, 4.0]),
        backlog_bytes=draw.choice([1 << 11, 1 << 14, 1 << 18]),
        backlog_s=draw.choice([0.1, 1.0]),
        patience_s=draw.choice([0.3, 2.0]),
        stalled_s=draw.choice([1.5, 8.0]),
    )


def plan_of(seed: str, without: Collection[str] = ()) -> Plan:
    """Return the world of a seed, without some actions."""
    draw = random.Random(seed)
    is_process = PROCESS in seed
    setup = drawn_setup(draw, is_process=is_process)
    without = {*without, *(NOT_OF_PROCESSES if is_process else ())}
    own = [action for name, action in actions.ACTIONS.items() if name not in without]
    if is_process:
        own += [replace(actions.ACTIONS[name], weight=3) for name in ("kill", "restart") if name not in without]
    troubles = [trouble.ACTIONS[name] for name in TROUBLES if name not in without]
    steps = [Step("come", actions.ACTIONS["come"].draw(draw), 0.05) for _ in range(draw.choice((2, 4, 6)))]
    weight_of_trouble = draw.choice((0.0, 0.05, 0.15, 0.3))
    for _ in range(draw.randrange(10, MOST_STEPS)):
        is_trouble = troubles and draw.random() < weight_of_trouble
        step = drawn(troubles if is_trouble else own, draw)
        arguments = {name: _shortened(name, value) for name, value in step.arguments.items()}
        steps.append(Step(step.action, arguments, draw.choice(PAUSES_S)))
    return Plan(setup, tuple(step for step in steps if step.action not in without))


def _shortened(name: str, value: object) -> object:
    is_long = name in TIMES and isinstance(value, float) and value > LONGEST_S
    return LONGEST_S if is_long and name != "for_s" else min(value, 5.0) if is_long else value  # type: ignore[type-var]


async def played(plan: Plan) -> Verdict:
    """Play a world in this event loop."""
    async with ProcessWorld(plan.setup) if plan.setup.is_process else FanoutWorld(plan.setup) as world:
        for step in plan.steps:
            await do(world, step)
        return await world.verdict()


async def do(world: FanoutWorld, step: Step) -> None:
    """Make a step happen, and wait as long as it says."""
    await world.served()
    world.steps += 1
    world.note(step)
    # A copy: what becomes of a request is no matter of the step.
    await ACTIONS[step.action].run(world, **json.loads(json.dumps(step.arguments)))
    await asyncio.sleep(step.pause_s)


async def played_one(seed: str, without: Collection[str] = ()) -> Verdict:
    """Play the world of a seed in this event loop."""
    return await played(plan_of(seed, without))
