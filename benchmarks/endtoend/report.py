"""What was found, as text and as JSON, and what of it must not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.endtoend.judge import Connection, Truth, Verdict
from benchmarks.endtoend.rig import Load, Turn
from benchmarks.soak.latency import Latencies

MOST_GROWTH_MB = 16.0
MOST_SHOWN = 5
HEADER = (
    "turn         ticks/s  server gateway readers   frames/s µs/frame   p50 ms  p99 ms   of them after the window's end"
    "  bytes/tick   server's MB"
)


@dataclass
class Line:
    """A turn's figures; times in ms, of the others' sample; frames are the others', processor time is everything's."""

    is_stalled: bool
    seconds: float
    ticks_per_s: float
    cpu: dict[str, float]
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p50_ms: float
    late_p99_ms: float
    frames_per_s: float
    us_per_frame: float
    bytes_per_tick: float
    own_mb: tuple[float, float, float]

    @classmethod
    def of(cls, turn: Turn, sample: Iterable[Connection], truth: Truth) -> Line:
        """Work a turn's figures out."""
        rows, windows, nbytes, ticks = Latencies(), Latencies(), 0, 0
        for connection in sample:
            row, window = connection.latencies(turn.begin_ns, turn.end_ns)
            rows.merge(row)
            windows.merge(window)
            own_nbytes, own_ticks = connection.size(turn.begin_ns, turn.end_ns)
            nbytes, ticks = nbytes + own_nbytes, ticks + own_ticks
        return cls(
            is_stalled=turn.is_stalled,
            seconds=turn.seconds,
            ticks_per_s=truth.count(turn.begin_ns, turn.end_ns) / turn.seconds,
            cpu=turn.cpu,
            p50_ms=rows.percentile_us(50) / 1e3,
            p99_ms=rows.percentile_us(99) / 1e3,
            max_ms=rows.max_us / 1e3,
            late_p50_ms=windows.percentile_us(50) / 1e3,
            late_p99_ms=windows.percentile_us(99) / 1e3,
            frames_per_s=turn.frames / turn.seconds,
            us_per_frame=turn.cpu["server"] * turn.seconds * 1e6 / max(turn.frames, 1),
            bytes_per_tick=nbytes / max(ticks, 1),
            own_mb=turn.own_mb,
        )

    def text(self) -> str:
        """Return a line of the table."""
        begin, most, end = self.own_mb
        return (
            f"{'some stalled' if self.is_stalled else 'all read':<12} {self.ticks_per_s:>7,.0f} "
            f"{self.cpu['server']:>7.0%} {self.cpu['gateway']:>7.0%} {self.cpu['subscribers']:>7.0%} "
            f"{self.frames_per_s:>10,.0f} {self.us_per_frame:>8.1f} {self.p50_ms:>8.2f} {self.p99_ms:>7.2f} "
            f"  p50 {self.late_p50_ms:>7.2f}, p99 {self.late_p99_ms:>7.2f}      {self.bytes_per_tick:>11.2f}   "
            f"{begin:.1f} to {end:.1f}, at most {most:.1f}"
        )


@dataclass
class Report:
    """The figures of a run.

    Attributes:
        others: what became of the rows of those who always read, as far as they are in the sample.
        stalled: of those who stalled.
        ops: what those who stalled were told, in the turns in which they did.
        endings: how those ended.
        problems: what must not be.
    """

    load: Load
    joined_s: float
    lines: list[Line]
    sampled: int
    others: Verdict
    stalled: Verdict
    ops: dict[str, int]
    endings: dict[str, int]
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        load: Load,
        turns: list[Turn],
        connections: Mapping[int, Connection],
        truth: Truth,
        *,
        joined_s: float,
        unseen: int,
        errors: list[str],
    ) -> Report:
        """Judge a run."""
        others = range(load.subscribers - load.stalled)
        sample = [connection for number, connection in connections.items() if number in others and connection.is_whole]
        verdict, stalled = Verdict(), Verdict()
        lines = [Line.of(turn, sample, truth) for turn in turns]
        for connection in sample:
            verdict.add(connection.judge(truth))
        ops: Counter[str] = Counter()
        endings: Counter[str] = Counter()
        for turn in turns:
            for number in turn.stalled:
                connection = connections[number]
                (stalled if turn.is_stalled else verdict).add(connection.judge(truth))
                if turn.is_stalled:
                    ops += connection.ops
                    endings[connection.ending or "still open"] += 1
        report = cls(load, joined_s, lines, len(sample), verdict, stalled, dict(ops), dict(endings))
        report.problems = list(
            report._problems(turns, [connections[number] for number in others if number in connections])
        )
        report.problems += [f"the server: {error}" for error in errors]
        if unseen:
            report.problems.append(f"{unseen:,} rows of the server's ring were not seen: nothing can be said of them")
        return report

    def _problems(self, turns: list[Turn], others: list[Connection]) -> Iterable[str]:
        for who, verdict in (("the others", self.others), ("those who stalled", self.stalled)):
            if verdict.unreported:
                yield f"{verdict.unreported:,} rows were left out untold, of {who}"
            if verdict.wrong:
                yield f"{verdict.wrong:,} rows were wrong, of {who}"
            yield from (f"{who}: {fault}" for fault in verdict.faults[:MOST_SHOWN])
        if self.others.told or self.others.lags:
            yield f"the others lost {self.others.told:,} rows (told, in {self.others.lags:,} lags)"
        if not self.others.delivered:
            yield "no row was compared"
        told = sum((connection.ops for connection in others), Counter())
        if told:
            yield f"the others were told: {_counted(told)}"
        wanted = self.load.subscribers - self.load.stalled
        for number, turn in enumerate(turns, 1):
            if turn.open < wanted:
                yield f"{wanted - turn.open:,} of the others were disconnected by the end of turn {number}"
        stalled_long = any(turn.is_stalled and turn.seconds >= self.load.seconds for turn in turns)
        if stalled_long and not self.stalled.lags:
            yield "nobody who stalled was told of a loss"
        growth_mb = turns[-1].own_mb[2] - turns[0].own_mb[0] if turns else 0.0
        if growth_mb > MOST_GROWTH_MB:
            yield f"the server's memory grew by {growth_mb:.1f} MB"

    def text(self) -> str:
        """Return the figures as text."""
        load, others, stalled = self.load, self.others, self.stalled
        lines = [
            f"{load.subscribers:,} subscribers of {load.each} of {load.symbols} symbols, "
            f"windows of {load.interval_ms} ms; they had subscribed after {self.joined_s:.1f} s",
            HEADER,
            *(line.text() for line in self.lines),
            f"others ({self.sampled:,} of them decoded): {_rows(others)}",
            f"stalled: {_rows(stalled)}; told: {_counted(self.ops) or 'nothing'}; {_counted(self.endings)}",
        ]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["everything was as it must be"]
        return "\n".join(lines)

    def row(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def _rows(verdict: Verdict) -> str:
    return (
        f"{verdict.delivered:,} rows as in the rings, {verdict.told:,} told as left out in {verdict.lags:,} lags, "
        f"{verdict.unreported:,} untold, {verdict.wrong:,} wrong"
    )


def _counted(what: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in what.items())
