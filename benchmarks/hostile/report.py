"""What the honest subscriber saw beside each kind of hostile ones, and whether that is too much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

MOST_LONGER_MS = 100.0
MOST_TIMES, MOST_MORE_MS = 3.0, 10.0
MOST_WAIT_MS = 1_000.0
NAMES = ("gap", "delay", "answer", "subscribe")
HEADER = f"{'ms without -> with them':<18}" + "".join(f"{name:>18}" for name in NAMES)


@dataclass
class Times:
    """What the honest subscriber saw in a turn; times in ms, 0 if there was none.

    Attributes:
        gap: the longest time between two data messages.
        delay: p99 of the age of a message's last row.
        answer: the longest time from a ping to its pong.
        subscribe: the longest time from a subscribe to its answer.
        refused: what the server refused, or that it closed the connection.
    """

    gap: float
    delay: float
    answer: float
    subscribe: float
    refused: list[str]


@dataclass
class Line:
    """The figures of a kind, in ms: medians over its turns.

    Attributes:
        calm: without the hostile subscribers.
        hostile: with them.
        refused: what the honest subscriber was refused, with or without them.
    """

    kind: str
    calm: dict[str, float]
    hostile: dict[str, float]
    refused: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, kind: str, pairs: Sequence[tuple[Times, Times]]) -> Line:
        """Work the figures of a kind out: of pairs of turns, without and with it."""
        calm, hostile = zip(*pairs, strict=True)
        refused = [reason for times in (*calm, *hostile) for reason in times.refused]
        return cls(kind, _medians(calm), _medians(hostile), list(dict.fromkeys(refused)))

    @property
    def problems(self) -> list[str]:
        """What is more than the honest subscriber may notice."""
        return [f"{self.kind}: {problem}" for problem in self._problems()]

    def _problems(self) -> Iterable[str]:
        most = {name: self.calm[name] + MOST_LONGER_MS for name in ("gap", "answer")}
        most["delay"] = self.calm["delay"] * MOST_TIMES + MOST_MORE_MS
        most["subscribe"] = self.calm["subscribe"] + MOST_WAIT_MS
        for name in NAMES:
            if not self.hostile[name] <= most[name]:
                yield f"{name} {self.hostile[name]:.0f} ms, and at most {most[name]:.0f} ms are all right"
        yield from (f"the honest subscriber was sent: {reason}" for reason in self.refused)

    def text(self) -> str:
        """Return a line of the table."""
        figures = "".join(f"{self.calm[name]:>8.0f} -> {self.hostile[name]:>6.0f}" for name in NAMES)
        return f"{self.kind:<18}{figures}   {'FAILED' if self.problems else 'passed'}"


@dataclass
class Report:
    """The figures of a run.

    Attributes:
        errors: what the server logged.
    """

    lines: list[Line] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        return [problem for line in self.lines for problem in line.problems] + self.errors

    def text(self) -> str:
        """Return the figures as text."""
        lines = [HEADER, *(line.text() for line in self.lines)]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or [
            "no kind costs the honest subscriber too much"
        ]
        return "\n".join(lines)

    def row(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self) | {"problems": self.problems}


def _medians(turns: Sequence[Times]) -> dict[str, float]:
    return {name: median(getattr(times, name) for times in turns) for name in NAMES}
