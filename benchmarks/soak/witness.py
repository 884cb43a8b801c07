"""The witness's process: a reader in another process, that counts what is missing and times what comes.

The rule of the file: it believes numbers only. A record's number is its size, and its price must agree; a hole between
two numbers that follow each other in a series is a loss, and a loss is reported if a row of the `gaps` ring of its
instrument, or of the whole connection, lies between or around those two records: records before the row's `first_seq`
are older than what is missing, those from its `last_seq` on are newer. Each instrument has one subscription, so its
index names that. A trade and a tick-by-tick quote have one row each: a second one of the same number is a duplicate,
whatever its request. Level-1 quotes and books may repeat a number, since their state is sent anew after a silence.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.soak import child
from benchmarks.soak.latency import Latencies
from benchmarks.soak.market import NS, Timetable, price_of
from ibfast import Feed, Kind
from ibfast.feed.feed import NO_INSTRUMENT, FeedView

RINGS = ("trades", "quotes", "depth")
NUMBERED = {
    "trades": ((Kind.RT_VOLUME, Kind.LAST), "size", "price"),
    "quotes": ((Kind.L1_QUOTE, Kind.BID_ASK), "bid_size", "bid"),
    "depth": ((Kind.DEPTH, Kind.DEPTH_L2), "size", "price"),
}
"""By ring: the kinds that are looked at, and the columns of number and price."""
SENT_ONCE = (Kind.RT_VOLUME, Kind.LAST, Kind.BID_ASK)
BID, DELETE = 1, 2
MOST_INSTRUMENTS = 4096
KINDS = 32
MOST_NUMBER = 1 << 40
WAIT_S = 0.05
COUNT_INTERVAL_S = 0.1
MOST_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Hole:
    """Records missing between those of `seq` `after` and `before` of an instrument; the latter came at `at_ns`."""

    instrument: int
    after: int
    before: int
    missing: int
    at_ns: int


class Gaps:
    """The rows of the `gaps` ring, one that was told open and then with its end in its last form."""

    def __init__(self) -> None:
        self.rows = 0
        self._found: dict[int, dict[tuple[int, ...], tuple[int, int]]] = defaultdict(dict)

    def take(self, rows: NDArray[Any]) -> None:
        """Take in rows."""
        self.rows += len(rows)
        names = ("instrument", "scope", "cause", "req_id", "first_seq", "last_seq")
        for instrument, *which, first_seq, last_seq in rows[list(names)].tolist():
            self._found[instrument][*which, first_seq] = first_seq, last_seq

    def report(self, hole: Hole, *, is_over: bool) -> bool:
        """Tell whether a hole is reported, by a gap whose end is known (`is_over`), or by any."""
        return any(
            first_seq <= hole.before and (hole.after < last_seq if last_seq else not is_over)
            for instrument in (hole.instrument, NO_INSTRUMENT)
            for first_seq, last_seq in self._found[instrument].values()
        )


class Witness:
    """Counts.

    Args:
        timetable: of the market, by which no number comes before its time.

    Attributes:
        records: numbered records.
        repeated: numbers that came again, of what is sent anew after a silence.
        duplicates: numbers that came again, of what is sent once.
        wrong: records whose number and price disagree, or whose number is not due.
    """

    def __init__(self, timetable: Timetable) -> None:
        self.records = 0
        self.repeated = 0
        self.duplicates = 0
        self.wrong = 0
        self.samples: list[tuple[float, str]] = []
        self.gaps = Gaps()
        self._timetable = timetable
        self._number = np.zeros(MOST_INSTRUMENTS * KINDS, np.int64)
        self._seq = np.zeros(MOST_INSTRUMENTS * KINDS, np.int64)
        self._recv_ns = np.zeros(MOST_INSTRUMENTS * KINDS, np.int64)
        self._holes: list[Hole] = []
        self._lost = 0
        self._reported = 0

    def take(self, batches: Mapping[str, NDArray[Any]]) -> None:
        """Take in what is new, by ring; each ring's rows in their order."""
        parts = [self._numbered(ring, rows) for ring, rows in batches.items() if len(rows)]
        if parts:
            keys, numbers, seqs, recv_ns = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = np.argsort(keys, kind="stable")
            self._count(keys[order], numbers[order], seqs[order], recv_ns[order])

    def losses(self) -> tuple[int, int, int]:
        """Return how many records were lost so far, how many of them are reported, and how many are not (yet)."""
        open_ = []
        waiting = 0
        for hole in self._holes:
            if self.gaps.report(hole, is_over=True):
                self._reported += hole.missing
                continue
            open_.append(hole)
            if not self.gaps.report(hole, is_over=False):
                waiting += hole.missing
        self._holes = open_
        return self._lost, self._lost - waiting, waiting

    def unreported(self) -> list[tuple[float, str]]:
        """Return some of the holes that no gap tells of: when (UTC, seconds), and which."""
        holes = [hole for hole in self._holes if not self.gaps.report(hole, is_over=False)]
        return [(hole.at_ns / NS, str(hole)) for hole in holes[:MOST_SAMPLES]]

    def series_since(self, since_ns: int) -> int:
        """Return how many series have brought a record since a time."""
        return int(np.count_nonzero(self._recv_ns >= since_ns))

    def _numbered(self, ring: str, rows: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
        """Return key, number, seq and time of those rows that have a number."""
        kinds, number_name, price_name = NUMBERED[ring]
        chosen = np.isin(rows["kind"], kinds) & (rows["instrument"] < MOST_INSTRUMENTS) & (rows[number_name] > 0)
        if ring == "depth":
            chosen &= (rows["side"] == BID) & (rows["operation"] != DELETE)
        rows = rows[chosen]
        numbers = rows[number_name].astype(np.int64)
        highest = self._timetable.highest_number(time.time_ns())
        right = (rows[price_name] == price_of(numbers)) & (numbers == rows[number_name]) & (numbers <= highest)
        if not right.all():
            self.wrong += int(np.count_nonzero(~right))
            samples = [(int(row["recv_ns"]) / NS, str(row)) for row in rows[~right][:MOST_SAMPLES]]
            self.samples += samples[: MOST_SAMPLES - len(self.samples)]
            rows, numbers = rows[right], numbers[right]
        self.records += len(rows)
        keys = rows["instrument"].astype(np.int64) * KINDS + rows["kind"]
        return keys, numbers, rows["seq"].astype(np.int64), rows["recv_ns"].astype(np.int64)

    def _count(
        self, keys: NDArray[np.int64], numbers: NDArray[np.int64], seqs: NDArray[np.int64], recv_ns: NDArray[np.int64]
    ) -> None:
        """Find the holes; rows are sorted by series, and in their order within each."""
        if not len(keys):
            return
        begins = np.append(True, keys[1:] != keys[:-1])
        ends = np.append(begins[1:], True)
        known = numbers.copy()
        known[begins] = np.maximum(numbers[begins], self._number[keys[begins]])
        offset = keys * MOST_NUMBER
        highest = np.maximum.accumulate(known + offset) - offset  # so far, within each series
        before = np.append(0, highest[:-1])
        before[begins] = self._number[keys[begins]]
        seq_before = np.append(0, seqs[:-1])
        seq_before[begins] = self._seq[keys[begins]]
        repeated = numbers <= before
        duplicate = repeated & np.isin(keys % KINDS, SENT_ONCE)
        self.repeated += int(np.count_nonzero(repeated & ~duplicate))
        self.duplicates += int(np.count_nonzero(duplicate))
        for at in np.flatnonzero(duplicate)[: max(0, MOST_SAMPLES - len(self.samples))].tolist():
            text = f"number {numbers[at]} of instrument {keys[at] // KINDS} again, seq {seqs[at]}"
            self.samples.append((int(recv_ns[at]) / NS, text))
        missing = np.where(before > 0, numbers - before - 1, 0)
        for at in np.flatnonzero(missing > 0).tolist():
            hole = Hole(int(keys[at]) // KINDS, int(seq_before[at]), int(seqs[at]), int(missing[at]), int(recv_ns[at]))
            self._lost += hole.missing
            self._holes.append(hole)
        self._number[keys[ends]] = highest[ends]
        self._seq[keys[ends]] = seqs[ends]
        self._recv_ns[keys[ends]] = recv_ns[ends]


class Reading:
    """Reads a feed for a witness, woken by each socket read that brings trades."""

    def __init__(self, feed: FeedView, witness: Witness) -> None:
        self._witness = witness
        self._readers = {ring: feed.rings[ring].reader(start="next") for ring in (*RINGS, "gaps")}
        self._latencies = Latencies()
        self._batches: dict[str, list[NDArray[Any]]] = defaultdict(list)
        self._count_at_s = 0.0

    def read(self) -> None:
        """Wait for rows, for a short time at most, and take them in."""
        trades = self._readers["trades"]
        if trades.wait(WAIT_S):
            rows = trades.read()
            self._latencies.add(time.time_ns() - rows["recv_ns"])
            self._batches["trades"].append(rows)
        if time.monotonic() >= self._count_at_s:
            self._count_at_s = time.monotonic() + COUNT_INTERVAL_S
            self._take()

    def _take(self) -> None:
        for ring, reader in self._readers.items():
            self._batches[ring].append(reader.read())
        batches = {ring: np.concatenate(rows) for ring, rows in self._batches.items()}
        self._batches.clear()
        self._witness.gaps.take(batches.pop("gaps"))
        self._witness.take(batches)

    def figures(self) -> dict[str, Any]:
        """Return the account so far, and the latencies since the last time."""
        self._take()
        witness, latencies = self._witness, self._latencies
        self._latencies = Latencies()
        lost, reported, unreported = witness.losses()
        return {
            "records": witness.records,
            "lost": lost,
            "reported": reported,
            "unreported": unreported,
            "gaps": witness.gaps.rows,
            "repeated": witness.repeated,
            "duplicates": witness.duplicates,
            "wrong": witness.wrong,
            "unread": sum(reader.lost for reader in self._readers.values()),
            "samples": witness.samples + witness.unreported(),
            "latencies": latencies.counts.tolist(),
            "max_ns": latencies.max_ns,
        }


def main(feed_name: str, epoch_ns: int, rate: float) -> None:
    """Read, and answer in between, until the input ends."""
    witness = Witness(Timetable(epoch_ns, rate))
    reading = Reading(Feed.attach(feed_name), witness)
    verbs: child.Verbs = {
        "figures": reading.figures,
        "series": lambda seconds: witness.series_since(time.time_ns() - int(seconds * NS)),
    }
    child.say(result=None)
    while True:
        reading.read()
        if select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline()  # whole, and none behind it: a parent waits for the answer
            if not line:
                return
            verb, arguments = json.loads(line)
            child.say(result=verbs[verb](**arguments))


if __name__ == "__main__":
    main(**child.settings())
