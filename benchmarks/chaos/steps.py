"""Steps: what happens to a world, as plain values that can be drawn, printed, read back and left out.

The rule of the file: a step says nothing of what came before it. Whom it concerns is a number, taken modulo what there
is, so that any part of a list of steps is a list of steps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

ItemType = TypeVar("ItemType")
PAUSES_S = (0.0, 0.0, 0.01, 0.05, 0.2, 0.2, 1.0, 1.0, 3.0, 8.0)


@dataclass(frozen=True)
class Step:
    """One action with its arguments, and how long to wait after it."""

    action: str
    arguments: dict[str, Any] = field(default_factory=dict)
    pause_s: float = 0.0

    def __str__(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Action:
    """What can happen.

    Attributes:
        weight: how often, compared with the others.
        draw: returns the arguments of one time.
        run: makes it happen, and returns at once.
    """

    name: str
    what: str
    weight: int
    draw: Callable[[random.Random], dict[str, Any]]
    run: Callable[..., Awaitable[None]]


class Actions(dict[str, Action]):
    """Actions by name."""

    def action(
        self, weight: int, draw: Callable[[random.Random], dict[str, Any]] = lambda draw: {}
    ) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
        """Put a function into the table, by its name and with the first line of its docstring."""

        def decorate(run: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            name = run.__name__.replace("_", " ")
            self[name] = Action(name, (run.__doc__ or "").partition("\n")[0], weight, draw, run)
            return run

        return decorate


def drawn(actions: Sequence[Action], draw: random.Random) -> Step:
    """Draw one step."""
    (action,) = draw.choices(actions, [action.weight for action in actions])
    return Step(action.name, action.draw(draw), draw.choice(PAUSES_S))


def chosen(items: Sequence[ItemType], which: int) -> ItemType:
    """Return the item that a number means, of those that there are."""
    return items[which % len(items)]
