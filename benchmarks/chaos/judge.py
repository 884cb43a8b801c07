"""The judge: every row of every stream against the gateways' logs.

The rule of the file: it is given what was sent and what was yielded, and finds what no user must see. It knows of the
manager only what a stream shows.

A row is one tick: sent on the request that the row names, with the values that were sent, once, in order, and not after
the client had given that request up. Numbers between two rows of a stream were missed. They are accounted for if a gap
of the stream lies between those rows, and was yielded before the second one, or if `lost` has grown in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.chaos.connection import Asked
from benchmarks.chaos.market import BARS, DATA_TYPES, Market, numbered, series_of, size_of
from benchmarks.chaos.user import Held
from ibfast.records import GapCause, Kind

BACKFILLED = frozenset({Kind.BACKFILL_TRADE, Kind.BACKFILL_QUOTE})
EXACT_HISTORY = frozenset({"LAST", "ALL_LAST", "BID_ASK", "MIDPOINT"})
"""Data types whose history has the same ticks, so that backfill can be judged one by one."""


class Problem(NamedTuple):
    """Something that must not be."""

    kind: str
    text: str


class Row(NamedTuple):
    """A row that has a number; `gaps` and `lost` are what was known when it came."""

    req_id: int
    seq: int
    number: int
    gaps: int
    lost: int


class Gap(NamedTuple):
    """An interruption as a stream tells it, as the so many-th row of all; `last_seq` is infinite while it is open."""

    seq: int
    place: int
    first_seq: int
    last_seq: float


KINDS = {
    "unasked": "a row names a request that was not made, or one of other data",
    "value": "a row has values that were never sent",
    "twice": "a tick reaches a stream twice, or out of order",
    "abandoned": "a tick of a request that was given up reaches a stream",
    "unreported": "ticks are missing, and neither a gap nor `lost` accounts for them",
    "late gap": "a gap that accounts for missing ticks is yielded after the row that follows them",
    "gap": "a row of a gap contradicts itself, or has no end though data flows again",
    "history": "UPDATING_BARS begin without their history, or with another",
    "backfill": "backfill brings a tick that is there, or one that never was",
    "offence": "a rule of IB is broken",
    "live": "at rest, what is live at the gateway is not what is subscribed to",
    "rest": "at rest, a state, health or the plan is not true",
    "plan": "a request is sent later than the plan said",
    "refused": "a stream has ended with a refusal that the gateway has not sent",
    "hang": "a call does not return",
    "exception": "a call raises what it must not, or an exception is logged",
    "left": "a task, a connection or a file is left",
}
"""What is judged, by kind."""


def judged(
    held: Held, asked: Mapping[int, Asked], market: Market, *, is_at_rest: bool, is_ring_long: bool = True
) -> Iterator[Problem]:
    """Yield what is wrong with a stream.

    Args:
        held: the stream, and what it has yielded.
        asked: every request of its feed, by id.
        market: what there was.
        is_at_rest: whether everything has been delivered by now.
        is_ring_long: whether the ring holds what backfill must know of, so as not to bring it again.
    """
    rows = list(_rows(held))
    yield from (Problem(kind, f"{held.name}: {text}") for kind, text in _row_by_row(held, rows, asked))
    gaps = list(_gaps(held.gaps))
    wanted = [row for row in rows if _sent_s(row, asked) <= (held.until_s or math.inf)]
    yield from (Problem(kind, f"{held.name}: {text}") for kind, text in _holes(wanted, gaps))
    yield from (Problem("gap", f"{held.name}: {text}") for text in _contradictions(held.gaps))
    if rows:
        text = _head(held, rows[0], asked, gaps)
        if text:
            yield Problem("unreported", f"{held.name}: {text}")
    if is_at_rest and held.until_s is None and held.stream.live:
        text = _tail(held, rows, asked)
        if text:
            yield Problem("unreported", f"{held.name}: {text}")
    if held.data_type == "UPDATING_BARS":
        bars = None if held.stream.history is None else len(held.stream.history)
        if bars != BARS:
            yield Problem("history", f"{held.name}: its history has {bars} bars of {BARS}")
    if held.data_type in EXACT_HISTORY and is_ring_long:
        newest = market.number(series_of(held.stream.subscription.request))
        yield from (Problem("backfill", f"{held.name}: {text}") for text in _backfill(held, rows, newest))


def _rows(held: Held) -> Iterator[Row]:
    number = DATA_TYPES[held.data_type].number
    for batch, (gaps, lost) in zip(held.rows, held.heard, strict=True):
        live = numbered(held.data_type, batch)
        columns = (live[name].tolist() for name in ("req_id", "seq", number))
        for req_id, seq, value in zip(*columns, strict=True):
            yield Row(req_id, seq, int(value) if math.isfinite(value) else 0, gaps, lost)


def _sent_s(row: Row, asked: Mapping[int, Asked]) -> float:
    request = asked.get(row.req_id)
    return 0.0 if request is None else request.sent.get(row.number, 0.0)


def _row_by_row(held: Held, rows: list[Row], asked: Mapping[int, Asked]) -> Iterator[Problem]:
    series = series_of(held.stream.subscription.request)
    newest_number = newest_seq = 0
    for row in rows:
        request = asked.get(row.req_id)
        if request is None or request.series != series:
            yield Problem("unasked", f"{row} is of {request and request.request}")
            continue
        sent_s = request.sent.get(row.number)
        if sent_s is None:
            yield Problem("value", f"{row} was never sent")
            continue
        if row.number <= newest_number or row.seq <= newest_seq:
            yield Problem("twice", f"{row} comes after number {newest_number}, seq {newest_seq}")
        if request.over_s is not None and sent_s > request.over_s:
            text = f"{row} was sent {sent_s - request.over_s:.3f} s after its request had been given up"
            yield Problem("abandoned", text)
        newest_number, newest_seq = max(newest_number, row.number), max(newest_seq, row.seq)
    size = DATA_TYPES[held.data_type].size
    if size is not None:
        for batch in held.rows:
            live = numbered(held.data_type, batch)
            values = zip(live[DATA_TYPES[held.data_type].number].tolist(), live[size].tolist(), strict=True)
            wrong = [(value, got) for value, got in values if got != size_of(int(value))]
            if wrong:
                yield Problem("value", f"number and size do not belong together: {wrong[:3]}")


def _gaps(rows: Iterable[Any]) -> Iterator[Gap]:
    """Yield the interruptions; one that has an open row and a closing row has its end from the latter.

    Whatever comes between the two rows is known to be incomplete, so its place is that of the open row.
    """
    latest: dict[tuple[int, ...], Gap] = {}
    for place, row in enumerate(rows):
        if int(row["cause"]) == GapCause.BACKFILLED:
            continue
        key = tuple(int(row[name]) for name in ("instrument", "scope", "cause", "first_seq"))
        last_seq = int(row["last_seq"]) if row["recovered"] else math.inf
        known = latest.get(key)
        begun = (int(row["seq"]), place) if known is None else (known.seq, known.place)
        latest[key] = Gap(*begun, int(row["first_seq"]), last_seq)
    yield from latest.values()


def _covers(gap: Gap, after_seq: int, before_seq: int) -> bool:
    """Tell whether rows that are missing between two rows can be those that a gap tells of."""
    return gap.first_seq <= before_seq and after_seq < gap.last_seq


def _holes(rows: list[Row], gaps: list[Gap]) -> Iterator[Problem]:
    for before, after in pairwise(rows):
        missing = after.number - before.number - 1
        if missing <= 0 or after.lost > before.lost:
            continue
        covering = [gap for gap in gaps if _covers(gap, before.seq, after.seq)]
        between = f"{missing} ticks between {before} and {after}"
        if not covering:
            yield Problem("unreported", f"{between}; gaps (first_seq, last_seq): {[gap[2:] for gap in gaps][-5:]}")
        elif not any(gap.seq < after.seq and gap.place < after.gaps for gap in covering):
            yield Problem("late gap", f"{between} are told of by {covering[-1]}")


def _contradictions(rows: list[Any]) -> Iterator[str]:
    told: dict[tuple[int, ...], bool] = {}
    for row in rows:
        if int(row["cause"]) == GapCause.BACKFILLED:
            continue
        key = tuple(int(row[name]) for name in ("instrument", "scope", "cause", "first_seq"))
        told[key] = bool(row["recovered"])
        first_seq, last_seq, first_ns, last_ns = (
            int(row[name]) for name in ("first_seq", "last_seq", "first_ns", "last_ns")
        )
        if row["recovered"] and (last_seq < first_seq or last_ns < first_ns):
            yield f"it ends before it begins: {row}"
    seqs = [int(row["seq"]) for row in rows]
    if seqs != sorted(set(seqs)):
        yield "rows come twice, or out of order"


def _head(held: Held, first: Row, asked: Mapping[int, Asked], gaps: list[Gap]) -> str:
    request = asked.get(first.req_id)
    if request is None or first.lost or any(_covers(gap, 0, first.seq) for gap in gaps):
        return ""
    missed = [number for number, at_s in request.sent.items() if at_s >= held.since_s and number < first.number]
    return f"{len(missed)} ticks were sent before the first row, {first}" if missed else ""


def _tail(held: Held, rows: list[Row], asked: Mapping[int, Asked]) -> str:
    request = asked.get(held.stream.req_id)
    if request is None or not request.is_live:
        return ""
    sent = [number for number, at_s in request.sent.items() if at_s >= held.since_s]
    newest = rows[-1].number if rows else 0
    is_whole = not sent or newest >= max(sent) or held.stream.lost
    return "" if is_whole else f"its last row has number {newest}, the last one that was sent {max(sent)}"


def _backfill(held: Held, rows: list[Row], newest: int) -> Iterator[str]:
    known = {row.number for row in rows}
    column = DATA_TYPES[held.data_type].number
    for batch in held.rows:
        filled = batch[[int(kind) in BACKFILLED for kind in batch["kind"].tolist()]]
        for number in filled[column].tolist():
            if not 0 < number <= newest:
                yield f"number {number} never was"
            elif number in known:
                yield f"number {number:g} is there already"
            known.add(int(number))
