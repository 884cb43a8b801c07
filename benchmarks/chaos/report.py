"""What a run has found, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.judge import KINDS
from benchmarks.chaos.world import Verdict

FIGURES = ("worlds", "steps", "calls", "streams", "requests", "notices", "ticks", "rows", "gaps", "offences")
LONGEST_LINE = 300


@dataclass
class Report:
    """All worlds of a run.

    Attributes:
        seconds: how long it took.
        counts: all figures, added up.
        found: by kind of problem, how many worlds showed it.
        broken: what went wrong with the run itself.
        kinds: of problems, and what each is; figures: those that are shown.
    """

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    kinds: Mapping[str, str] = field(default_factory=lambda: KINDS)
    figures: tuple[str, ...] = FIGURES

    def take(self, world: dict[str, Any]) -> None:
        """Take in one world."""
        self.counts += Counter(world["counts"])
        self.found.update({kind for kind, _ in world["problems"]})

    def row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        figures = {name: self.counts[name] for name in self.figures}
        return {"seconds": round(self.seconds, 1), **figures, "found": dict(self.found), "broken": self.broken}

    def text(self) -> str:
        """Return it for people."""
        lines = [f"{self.seconds / 60:.1f} minutes"]
        lines += [f"{name:<10} {self.counts[name]:>12,}" for name in self.figures]
        if not self.found and not self.broken:
            return "\n".join([*lines, "nothing was found"])
        lines.append("found, in so many worlds:")
        lines += [f"  {kind:<12} {count:>6,}  {self.kinds[kind]}" for kind, count in self.found.most_common()]
        return "\n".join([*lines, *self.broken])


def told(setup: object, verdict: Verdict) -> str:
    """Return what a world is made of, what happened in it, and what was found."""
    lines = [str(setup)]
    began_s = verdict.journal[0][0] if verdict.journal else 0.0
    lines += [f"{at_s - began_s:>9.3f}  {text[:LONGEST_LINE]}" for at_s, text in verdict.journal]
    lines += [f"{problem.kind}: {problem.text}" for problem in verdict.problems]
    return "\n".join(lines)
