"""What a channel has brought, held against the rings, message by message.

The rule of the file: every row of a channel comes once, in order and value for value, or lies in a lag, or in a state
that follows a lag or begins the channel; a state is what the rows up to its number make. It is given what has arrived
and the truth, and knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.fanout.books import LEVEL, Book
from benchmarks.chaos.fanout.truth import KEYED, Generation, Row
from benchmarks.chaos.fanout.wire import COLUMNS, Bookmarks, Form, Lag, State, Told
from benchmarks.chaos.judge import Problem
from ibfast.connection.stream import wanted
from ibfast.contracts import Contract
from ibfast.feed.feed import BACKFILL_KINDS

HEAD = 4
"""Values of a told row before its columns."""
SHOWN = 3
DEPTH = {name: HEAD + place for place, name in enumerate(COLUMNS["depth"])}
PARTS = {"ALL": ("TICKS", "TRADES", "QUOTES", "GREEKS")}
"""What a subscriber's data type consists of."""


@dataclass
class Seen:
    """What a client remembers of a channel that it had: how it was asked for, and where it may go on."""

    options: dict[str, Any]
    bookmarks: Bookmarks
    generation: Generation
    book: Book | None


@dataclass(eq=False)
class Track:
    """One channel of a client.

    Attributes:
        name: for reports.
        subscription, channel: their numbers.
        cls: its class, in which news come.
        form: how its rows are said.
        kinds: of its rows, by family.
        is_conflated: whether a window has the latest only.
        generations: that may serve it: one, unless the server has got another one while the answer was under way.
        options: with which it was subscribed; the interval is that of the last `update`.
        seq: everything up to here has come, or was told as left out.
        is_void: a state must come before any rows.
        may_begin: nothing has come yet, so that its first state may begin anywhere.
        empty_seq: of the empty state that comes before rows that were missed.
        is_incomplete: the server has said that what follows is not whole.
        is_lost: something was wrong: nothing is judged until the next state.
        book: by the operations that have come; None: not known.
        is_unknown: the server may not know what the client had, so that a lag may begin at 0.
        bookmarks: where it may be resumed; `former`: where it may as long as its state has not come since it was
            described anew.
        state: as told last; `gaps`: those that were told; `told_seq`: gaps after it must be told.
        interval_ms: as told last.
    """

    name: str
    subscription: int
    channel: int
    cls: int
    form: Form
    kinds: Mapping[str, frozenset[int]]
    is_conflated: bool
    generations: list[Generation]
    options: dict[str, Any]
    bookmarks: Bookmarks
    former: Seen | None = None
    seq: int = 0
    is_void: bool = True
    may_begin: bool = True
    is_unknown: bool = False
    empty_seq: int | None = None
    is_incomplete: bool = False
    is_lost: bool = False
    book: Book | None = None
    state: str = ""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    told_seq: int = 0
    interval_ms: int = 0

    @property
    def generation(self) -> Generation:
        """The one that serves it, as far as is known."""
        return self.generations[-1]

    @property
    def is_judged(self) -> bool:
        """Whether what comes now can be held against anything."""
        return not self.is_void and not self.is_lost and self.empty_seq is None

    @property
    def asked_ms(self) -> int:
        """The interval that was asked for."""
        return int(self.options.get("interval_ms", 250 if self.options.get("mode") == "conflate" else 10))

    def seen(self) -> Seen | None:
        """Return what it would go on with elsewhere; None if it would begin anew."""
        if self.is_lost or self.is_incomplete or len(self.generations) > 1 or self.options.get("mode") == "snapshot":
            return None
        if not self.bookmarks.seqs:
            return self.former
        options = {name: value for name, value in self.options.items() if name != "resume"}
        return Seen(options, self.bookmarks, self.generation, self.book)

    def go_on(self, seen: Seen, seq: int) -> None:
        """Begin where another channel was, perhaps one of the other dialect: the server says that it is resumed."""
        if seen.generation in self.generations:
            self.generations = [seen.generation]
        self.seq = self.told_seq = seq
        self.is_void = self.may_begin = False
        if seen.book is not None and seq == seen.bookmarks.seqs[-1]:
            self.book = _each_level(seen.book, self.form.resaid)
        self.bookmarks.note(seq)
        if self.form.is_binary:
            self.empty_seq = seq

    # --- what must come ---

    def rows(self, after_seq: int, up_to_seq: int, generation: Generation | None = None) -> list[Row]:
        """Return its rows of the rings, in order; by default as they are if the newest generation serves it."""
        serving = generation or self.generation
        parts = [serving.rows(family, kinds, after_seq, up_to_seq) for family, kinds in self.kinds.items()]
        filled = [part for part in parts if part]
        if len(filled) == 1:
            return filled[0]
        return sorted((row for part in filled for row in part), key=lambda row: row.seq)

    def count(self, after_seq: int, up_to_seq: int) -> int:
        """Return how many rows there are."""
        return len(self.rows(after_seq, up_to_seq)) if up_to_seq > after_seq else 0

    def expected(self, up_to_seq: int, generation: Generation | None = None) -> list[Told] | None:
        """Return what must come to bring it up to a sequence number; None where several things may."""
        if not self.is_judged or up_to_seq <= self.seq:
            return []
        rows = self.rows(self.seq, up_to_seq, generation)
        if self.is_conflated:
            if "depth" in self.kinds:
                return None
            rows = _latest(rows)
        return [self.form.said(row) for row in rows]

    # --- what has come ---

    def take(self, rows: list[Told], seq: int) -> Iterator[Problem]:
        """Take in the rows that a message has for it, which says that it is complete up to a sequence number."""
        if rows and not self.is_judged and not self.is_lost:
            yield self._problem("early row", f"{rows[:SHOWN]} before the state")
        if not self.is_judged:
            return
        self._keep(lambda each: self.expected(seq, each) in (None, rows))
        expected = self.expected(seq)
        if expected is None or self.is_incomplete:
            yield from self._take_freely(rows, seq)
        elif rows != expected:
            yield from self._differs(rows, expected, seq)
            self.is_lost = True
            return
        elif self.book is not None:
            self._to_book(rows)
        self._advance(seq)

    def _take_freely(self, rows: list[Told], seq: int) -> Iterator[Problem]:
        """Take in operations on a book that is sent by its differences, or what nobody knows to be whole."""
        if self.book is not None:
            self._to_book(rows)
            if seq >= self.seq and not self.is_incomplete:
                yield from self._against_book(seq)
        if self.is_incomplete and any(row[3] == 18 for row in rows):
            self.is_incomplete = False

    def _advance(self, seq: int) -> None:
        self.seq = max(self.seq, seq)
        self.bookmarks.note(seq)

    def _differs(self, rows: list[Told], expected: list[Told], seq: int) -> Iterator[Problem]:
        where = f"between seq {self.seq} and {seq}"
        wanted_rows, got = set(expected), set(rows)
        missing = [row for row in expected if row not in got]
        more = [row for row in rows if row not in wanted_rows]
        if missing and not more:
            yield self._problem(
                "missing", f"{len(missing)} of {len(expected)} rows are missing {where}: {missing[:SHOWN]}"
            )
        elif more and not missing:
            story = self._story(more[0][1])
            yield self._problem("surplus", f"{len(more)} rows too many {where}: {more[:SHOWN]} {story}")
        elif not more:
            yield self._problem("order", f"rows come twice or out of order {where}: {rows[:SHOWN]}")
        else:
            yield self._problem("value", f"{more[:SHOWN]} instead of {missing[:SHOWN]} {where}")

    def _story(self, seq: int) -> list[str]:
        return [generation.story_of(seq) for generation in self.generations]

    def _to_book(self, rows: Iterable[Told]) -> None:
        assert self.book is not None
        for row in rows:
            if row[0] == "depth":
                self.book.take(row[3], {name: row[place] for name, place in DEPTH.items()})

    def _against_book(self, seq: int) -> Iterator[Problem]:
        book = self.book
        assert book is not None
        self._keep(lambda each: self._told_book(each, seq).sides == book.sides)
        true = self._told_book(self.generation, seq)
        if true.sides != self.book.sides:
            yield self._problem("book", f"after seq {seq}: {_difference(self.book, true)}")
            self.is_lost = True

    def _told_book(self, generation: Generation, seq: int) -> Book:
        """Return the book as it must be known from what is told."""
        return _each_level(generation.book(seq), self.form.value)

    def take_state(self, state: State) -> Iterator[Problem]:
        """Take in a snapshot."""
        self._came_as_of(state.seq)
        if self.empty_seq is not None:
            if state.seq != self.empty_seq or state.rows:
                yield self._problem("resumed", f"before what was missed comes {state} and no empty state")
            self.empty_seq = None
            return
        if state.seq < self.seq:
            yield self._problem("order", f"a state as of seq {state.seq} after {self.seq}")
        if not self.may_begin and not self.is_lost:
            left_out = self.count(self.seq, state.seq)
            if left_out and not self.is_conflated:  # of operations that undo each other nothing is sent
                text = f"{left_out} rows are left out in silence between seq {self.seq} and {state.seq}"
                yield self._problem("missing", text)
        found = self._against_state(state)
        if found:
            yield self._problem("state", f"as of seq {state.seq}: {found} {self._story(state.seq)}")
        if "depth" in self.kinds:
            self.book = Book()
            self._to_book(state.rows)
        self.is_incomplete = self.is_incomplete and "depth" in self.kinds
        self.seq = max(self.seq, state.seq)
        self.bookmarks.note(state.seq)
        self.former = None
        self.is_void = self.may_begin = self.is_lost = self.is_unknown = False

    def _came_as_of(self, seq: int) -> None:
        """Leave out the generations that the server had not asked for yet when it said something.

        A client that reads late gets the answer when its channel is over, and there is another one already.
        """
        self._keep(lambda each: each.opened_seq <= seq)

    def _keep(self, fits: Callable[[Generation], bool]) -> None:
        """Leave out the generations that do not fit, unless none does."""
        if len(self.generations) > 1:
            self.generations = list(filter(fits, self.generations)) or self.generations

    def _against_state(self, state: State) -> str:
        """Say what is wrong with a state, and keep the generations of which it is right: an empty one fits several."""
        if self.is_incomplete:
            return ""
        self._keep(lambda each: not self._state_differs(each, state))
        return self._state_differs(self.generation, state)

    def _state_differs(self, generation: Generation, state: State) -> str:
        for family, kinds in self.kinds.items():
            told = [row for row in state.rows if row[0] == family]
            if family == "depth":
                book = Book()
                for row in told:
                    book.take(0, {name: row[place] for name, place in DEPTH.items()})
                true = self._told_book(generation, state.seq)
                if book.sides != true.sides:
                    return _difference(book, true)
                continue
            form = Form(self.form.is_binary, self.form.fields, self.form.unit_ns, is_ordered=False)
            expected = [form.said(row) for row in generation.latest(family, kinds, state.seq)]
            if sorted(told, key=repr) != sorted(expected, key=repr):
                return f"{told[:SHOWN]} instead of {expected[:SHOWN]}"
        return ""

    def take_lag(self, lag: Lag) -> Iterator[Problem]:
        """Take in what was left out."""
        self._came_as_of(lag.to_seq)
        if lag.from_seq > lag.to_seq:
            yield self._problem("lag", f"it ends before it begins: {lag}")
        is_from_nothing = self.is_unknown and not lag.from_seq
        if not self.may_begin and not self.is_lost and not is_from_nothing:
            if lag.from_seq < self.seq:
                yield self._problem("lag", f"what has come up to {self.seq} is told as left out: {lag}")
            elif self.count(self.seq, lag.from_seq) and not self.is_conflated:
                yield self._problem("lag", f"it begins too late, {self.seq} has come: {lag}")
        self._keep(lambda each: lag.count in (None, len(self.rows(lag.from_seq, lag.to_seq, each))))
        if lag.count is not None and lag.count != self.count(lag.from_seq, lag.to_seq) and not self.is_lost:
            yield self._problem("lag", f"it counts {lag}, and there are {self.count(lag.from_seq, lag.to_seq)}")
        may_be = self.generation.has_wrapped
        if lag.reason == "incomplete" and not may_be:
            yield self._problem("lag", f"no ring has forgotten a row, and the server says {lag}")
        self.seq = lag.to_seq if is_from_nothing else max(self.seq, lag.to_seq)
        self.is_void, self.may_begin, self.is_lost = True, False, False
        self.is_incomplete = lag.reason == "incomplete"
        self.book = self.former = None
        self.bookmarks.seqs.clear()

    def at_rest(self, seq: int) -> Iterator[str]:
        """Say what is not yet as it must be when everything has come up to a sequence number."""
        if self.is_lost:
            return
        if self.is_void or self.empty_seq is not None:
            yield f"{self.name} waits for its state"
            return
        missing = self.count(self.seq, seq)
        if missing and not self.is_conflated:
            yield f"{self.name} lacks {missing} rows after seq {self.seq}"
        elif self.is_conflated and "depth" not in self.kinds and self.expected(seq):
            yield f"{self.name} lacks the latest of {missing} rows after seq {self.seq}"
        elif self.book is not None and not self.is_incomplete:
            true = self._told_book(self.generation, seq)
            if true.sides != self.book.sides:
                yield f"{self.name} has another book: {_difference(self.book, true)}"

    def _problem(self, kind: str, text: str) -> Problem:
        return Problem(kind, f"{self.name}: {text}")


def kinds_of(
    data_type: str, contract: Contract, families: Iterable[str], *, is_conflated: bool
) -> dict[str, frozenset[int]]:
    """Return the kinds of rows that a data type has, by family, as streams have them."""
    found: dict[str, frozenset[int]] = {}
    for part in PARTS.get(data_type, (data_type,)):
        if part == "GREEKS" and data_type == "ALL" and contract.sec_type != "OPT":
            continue
        want = wanted(contract, part)
        old = {BACKFILL_KINDS[want.ring]} if want.ring in BACKFILL_KINDS and not is_conflated else set()
        found[want.ring] = frozenset(map(int, want.kinds | old))
    return {family: found[family] for family in families if family in found}


def _latest(rows: list[Row]) -> list[Row]:
    """Return the last row of each family and key, in order."""
    found: dict[Any, Row] = {}
    for row in rows:
        found[row.family, row.values["tick_type"] if row.family in KEYED else None] = row
    return sorted(found.values(), key=lambda row: row.seq)


def _each_level(book: Book, said: Callable[[str, str, Any], Any]) -> Book:
    """Return a book whose levels are said in another way."""
    other = Book()
    for own, levels in zip(other.sides, book.sides, strict=True):
        own += [tuple(said("depth", name, value) for name, value in zip(LEVEL, level, strict=True)) for level in levels]
    return other


def _difference(book: Book, true: Book) -> str:
    for side, (levels, others) in enumerate(zip(book.sides, true.sides, strict=True)):
        if levels != others:
            place = next((i for i, (a, b) in enumerate(zip(levels, others, strict=False)) if a != b), -1)
            here = f"level {place}: {levels[place]} instead of {others[place]}" if place >= 0 else "one is longer"
            return f"side {side} has {len(levels)} levels, and the rings make {len(others)}; {here}"
    return ""
