"""What was missed in a gap, asked of the historical service and put into the feed, marked as such.

The rule of the file: the past never hurts the present. One request is open at a time, after all others and within its
limits; nothing that fails here ends a stream; old rows go to the rings and never to the last values. What was
covered becomes a row of `gaps` (BACKFILLED), what was not an event.

History has whole seconds, and so have the ranges here: they begin a second early, since an event is older than its
message. A row that has come live, as far as the ring still holds it, does not come a second time; level 1 has none of
the particulars that tell, so its seconds at the edges do.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibfast.connection.owner import Owner
from ibfast.errors import NotConnectedError, RequestError
from ibfast.feed.feed import BACKFILL_KINDS, Feed
from ibfast.policy.subscription import Gap, Subscription, SubscriptionRequest, SubscriptionState
from ibfast.records import DAY_S, HISTORICAL_BAR, NS_PER_S, GapCause, Scope
from ibfast.wire.requests import HistoricalBars, MarketData, RealTimeBars, TickByTick

__all__ = ["Backfiller", "Source", "Step", "bar_page", "bar_step", "range_of", "rows_of", "sources_of", "tick_step",
           "unseen"]  # fmt: skip

# IB gives no more ticks in one answer; an answer with fewer is complete up to its newest tick.
MOST_TICKS = 1000
# Within what IB allows for every bar size from 1 s to 1 day (IBKR Campus, historical bars, "step sizes").
BARS_PER_PAGE = 360
# Of the 60 historical requests that IB allows an account in ten minutes, one backfill takes half at most.
MOST_PAGES = 30
MOST_QUEUED = 1000
# So much older than the arrival of its message an event may be.
EDGE_S = 1
# The last second is asked for when it is over, and its messages have come.
SETTLE_S = 1.0
# At most this share of a ring is written before its readers have a turn.
RING_SHARE = 4

UNREPORTED = 2
NO_DATA, NO_DATA_TEXT = 162, "query returned no data"
COMBO = "BAG"
REAL_TIME_BAR = "5 secs"
ALL_TRADES_GENERIC_TICK = "233"
BAR_SIZE = re.compile(r"([0-9]+) (sec|min|hour|day)s?")
BAR_UNIT_S = {"sec": 1, "min": 60, "hour": 3600, "day": DAY_S}
TICK_BY_TICK = {"Last": "TRADES", "AllLast": "TRADES", "BidAsk": "BID_ASK", "MidPoint": "MIDPOINT"}
OVER = (SubscriptionState.REFUSED, SubscriptionState.ENDED)
# What makes two rows of one second the same.
IDENTITY = {
    "trades": ("event_ns", "price", "size", "exchange", "conditions"),
    "quotes": ("event_ns", "bid", "ask", "bid_size", "ask_size"),
    "bars": ("event_ns", "open", "high", "low", "close", "volume"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """The history from which rows of a subscription can be made.

    Attributes:
        ring: where they go.
        what_to_show: IB's name of the data.
        bar_size: IB's notation, "" for ticks; `bar_s` is the same in seconds.
        use_rth: regular trading hours only.
        ignore_size: no quotes that differ in sizes only.
        reported_only: no trades that move no last price, such as odd lots.
    """

    ring: str
    what_to_show: str
    bar_size: str = ""
    bar_s: int = 0
    use_rth: bool = False
    ignore_size: bool = False
    reported_only: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What an answer is good for.

    Attributes:
        kept: which of its rows belong to the range.
        next_s: what is complete now: everything before this second.
        is_cut: one second has more ticks than an answer holds, and the others can't be had.
    """

    kept: NDArray[np.bool_]
    next_s: int
    is_cut: bool = False


@dataclass(slots=True)
class _Job:
    """What is left to ask: seconds from `at_s` on and before `end_s`."""

    subscription: Subscription
    source: Source
    at_s: int
    end_s: int

    def touches(self, other: _Job) -> bool:
        """Tell whether both can be one."""
        is_same = self.subscription is other.subscription and self.source == other.source
        return is_same and self.at_s <= other.end_s and other.at_s <= self.end_s


@dataclass(slots=True)
class _Filled:
    """What a job has brought: seconds from `first_s` on, as so many rows."""

    first_s: int
    count: int = 0
    first_seq: int = 0
    last_seq: int = 0


def sources_of(request: SubscriptionRequest) -> tuple[Source, ...]:
    """Return the histories of a subscription; none of a book, of greeks, of combinations and of bars over a day."""
    if request.contract.sec_type == COMBO:
        return ()
    match request:
        case TickByTick(tick_type=tick_type, ignore_size=ignore_size):
            what = TICK_BY_TICK[tick_type]
            if what == "TRADES":
                return (Source("trades", what, reported_only=tick_type == "Last"),)
            return (Source("quotes", what, ignore_size=ignore_size),)
        case MarketData(generic_ticks=generic_ticks):
            has_all = ALL_TRADES_GENERIC_TICK in generic_ticks.split(",")
            return Source("trades", "TRADES", reported_only=not has_all), Source("quotes", "BID_ASK")
        case RealTimeBars(what_to_show=what, use_rth=use_rth):
            return _bars(REAL_TIME_BAR, what, use_rth)
        case HistoricalBars(bar_size=bar_size, what_to_show=what, use_rth=use_rth):
            return _bars(bar_size, what, use_rth)
    return ()


def _bars(bar_size: str, what_to_show: str, use_rth: bool) -> tuple[Source, ...]:
    size = BAR_SIZE.fullmatch(bar_size)
    if size is None:
        return ()
    return (Source("bars", what_to_show, bar_size, int(size[1]) * BAR_UNIT_S[size[2]], use_rth),)


def range_of(source: Source, first_ns: int, last_ns: int) -> tuple[int, int]:
    """Return the seconds, the second one excluded, in which what a gap has hidden has happened.

    Args:
        source: bars are asked for from the one that was interrupted to the last one that has ended.
        first_ns, last_ns: UTC, when the last record before the gap came, and the first one after it.
    """
    first_s, last_s = first_ns // NS_PER_S - EDGE_S, last_ns // NS_PER_S
    if source.bar_s:
        return first_s // source.bar_s * source.bar_s, last_s // source.bar_s * source.bar_s
    return first_s, last_s + 1


def tick_step(event_ns: NDArray[np.int64], at_s: int, end_s: int) -> Step:
    """Take in an answer to a request for ticks from `at_s` on; `end_s` is the end of the range.

    The newest second of a full answer may be incomplete, and is left to the next request. An answer without ticks from
    `at_s` on ends the range: there are none. Every step but the last one moves on by a second or more.
    """
    seconds = event_ns // NS_PER_S
    newest = int(seconds.max(initial=-1))
    is_full = len(seconds) >= MOST_TICKS
    if newest < at_s:
        next_s = end_s
    elif is_full and newest > at_s:
        next_s = min(newest, end_s)
    else:
        next_s = min(newest + 1, end_s)
    return Step((seconds >= at_s) & (seconds < next_s), next_s, is_cut=is_full and newest == at_s)


def bar_page(source: Source, at_s: int, end_s: int) -> tuple[int, str]:
    """Return where the request for bars from `at_s` on ends, and its duration in IB's notation."""
    page_end_s = min(at_s + BARS_PER_PAGE * source.bar_s, end_s)
    seconds = page_end_s - at_s
    is_days = source.bar_s >= DAY_S or seconds > DAY_S
    return page_end_s, f"{-(-seconds // DAY_S)} D" if is_days else f"{seconds} S"


def bar_step(event_ns: NDArray[np.int64], at_s: int, page_end_s: int) -> Step:
    """Take in an answer to a request for the bars that begin between `at_s` and `page_end_s`."""
    seconds = event_ns // NS_PER_S
    return Step((seconds >= at_s) & (seconds < page_end_s), page_end_s)


def rows_of(source: Source, history: NDArray[np.void], text_id: Callable[[str], int]) -> NDArray[np.void]:
    """Return historical ticks or bars as rows of the source's ring, without the header."""
    if not len(history):
        return np.zeros(0, Feed.dtypes[source.ring])
    if source.reported_only:
        history = history[history["attribs"] & UNREPORTED == 0]
    rows = np.zeros(len(history), Feed.dtypes[source.ring])
    if source.what_to_show == "MIDPOINT" and not source.bar_s:
        rows["event_ns"] = history["event_ns"]
        rows["bid"] = rows["ask"] = history["price"]
        rows["bid_size"] = rows["ask_size"] = np.nan
        return rows
    for name in history.dtype.names or ():
        is_text = history.dtype[name].kind == "U"
        rows[name] = [text_id(text) for text in history[name].tolist()] if is_text else history[name]
    return rows


def unseen(rows: NDArray[np.void], known: NDArray[np.void], ring: str) -> NDArray[np.void]:
    """Return the rows that are not among the known ones, of which each stands for one."""
    left = Counter(_keys(known, ring))
    kept = []
    for index, key in enumerate(_keys(rows, ring)):
        if left[key]:
            left[key] -= 1
        else:
            kept.append(index)
    return rows[kept]


def _keys(rows: NDArray[np.void], ring: str) -> list[tuple[int, ...]]:
    # As bits, since a NaN is not even equal to itself.
    columns = [rows[name].view(np.int64) if rows.dtype[name] == np.float64 else rows[name] for name in IDENTITY[ring]]
    return list(zip(*(column.tolist() for column in columns), strict=True))


class Backfiller:
    """Fills the gaps of one manager's subscriptions, the most important ones first.

    Lost connections interrupt it until data flows again; `stop` ends it. What is left of a subscription that moves to
    another manager moves with it. Of every range an event is the end: `backfilled` (with the number of its rows),
    `backfill_impossible` (there is no such history), `backfill_dropped` (the range will not be asked for, and why) or
    `backfill_failed` (the range was refused).

    Args:
        owner: of the connection.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._queue: list[_Job] = []
        self._task: asyncio.Task[None] | None = None
        self._filling: _Job | None = None  # not in the queue

    @property
    def instruments(self) -> set[int]:
        """The instruments of which rows may still be added."""
        jobs = [*self._queue] if self._filling is None else [*self._queue, self._filling]
        return {job.subscription.instrument for job in jobs}

    def add(self, gap: Gap) -> None:
        """Have a gap filled that has ended. Call it on the event loop; the work is done in the background."""
        subscription = gap.subscription
        sources = self._sources(subscription)
        if not sources or not gap.first_ns:
            reason = "its begin is not known" if sources else "there is no such history"
            self._owner.monitor.event("backfill_impossible", subscription=subscription.name, reason=reason)
            return
        for source in sources:
            at_s, end_s = range_of(source, gap.first_ns, gap.last_ns)
            if at_s < end_s:
                self._enqueue(_Job(subscription, source, at_s, end_s))
        self._start()

    def surrender(self, subscription: Subscription) -> list[_Job]:
        """Give away what is left to fill of a subscription, which another manager serves from now on."""
        jobs = [job for job in self._queue if job.subscription is subscription]
        self._queue = [job for job in self._queue if job.subscription is not subscription]
        job = self._filling
        if job is not None and job.subscription is subscription:
            assert self._task is not None
            jobs.insert(0, replace(job))  # what has come of it already is recorded here
            self._filling = None
            self._task.cancel()  # it goes on with the next range
        return jobs

    def adopt(self, jobs: Iterable[_Job]) -> None:
        """Fill what another manager had to fill before. Call it on the event loop."""
        for job in jobs:
            if self._owner.config.session.backfill:
                self._enqueue(job)
            else:
                self._tell("backfill_dropped", job, reason="the connection that serves it now does not backfill")
        self._start()

    def _start(self) -> None:
        if self._queue and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="ibfast backfill")

    async def stop(self) -> None:
        """End it; what was not asked for yet is dropped."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        self.drop("the connection was closed")

    def drop(self, reason: str) -> None:
        """Ask for nothing of what is left."""
        jobs, self._queue = self._queue, []
        for job in jobs:
            self._tell("backfill_dropped", job, reason=reason)

    def _sources(self, subscription: Subscription) -> list[Source]:
        """Return what to ask for: of level 1, only what its streams show, if it has any."""
        kinds = self._owner.kinds_of(subscription)
        sources = sources_of(subscription.request)
        return [source for source in sources if not kinds or BACKFILL_KINDS[source.ring] in kinds]

    def _enqueue(self, job: _Job) -> None:
        for other in self._queue:
            if job.touches(other):
                other.at_s, other.end_s = min(job.at_s, other.at_s), max(job.end_s, other.end_s)
                return
        if len(self._queue) >= MOST_QUEUED:
            self._tell("backfill_dropped", job, reason=f"{MOST_QUEUED} others wait")
            return
        self._queue.append(job)

    async def _run(self) -> None:
        while self._queue and self._owner.connected:
            job = min(self._queue, key=lambda job: job.subscription.rank)
            self._queue.remove(job)
            self._filling = job
            try:
                await self._fill(job)
            except asyncio.CancelledError:
                if self._filling is job:
                    self._enqueue(job)
                    raise
                this = asyncio.current_task()
                if this is None or this.uncancel():  # surrendered, and stopped too
                    raise
            except NotConnectedError:
                # The end of a subscription's gap, after the reconnection, starts the task again.
                self._enqueue(job)
                return
            except Exception as error:
                # Whatever it is, the streams and the other gaps have nothing to do with it.
                self._tell("backfill_failed", job, error=str(error) or repr(error))
            finally:
                self._filling = None

    async def _fill(self, job: _Job) -> None:
        """Ask page by page. `job` is what is left then; what was covered is recorded, however it ends."""
        await asyncio.sleep(min(job.end_s + SETTLE_S - time.time(), 1 + SETTLE_S))
        if job.at_s > time.time():
            self._tell("backfill_dropped", job, reason="the clock was set back: this time is to come")
            return
        filled = _Filled(job.at_s)
        try:
            for _ in range(MOST_PAGES):
                if job.at_s >= job.end_s:
                    return
                if job.subscription.state in OVER:
                    self._tell("backfill_dropped", job, reason="the subscription has ended")
                    return
                await self._fill_page(job, filled)
        finally:
            self._record(job, filled)
        if job.at_s < job.end_s:
            self._tell("backfill_dropped", job, reason=f"it takes more than {MOST_PAGES} requests")

    async def _fill_page(self, job: _Job, filled: _Filled) -> None:
        source, page_end_s, duration = job.source, job.end_s, ""
        if source.bar_s:
            page_end_s, duration = bar_page(source, job.at_s, job.end_s)
        history = await self._ask(job, page_end_s, duration)
        step = (bar_step if source.bar_s else tick_step)(history["event_ns"], job.at_s, page_end_s)
        rows = rows_of(source, history[step.kept], self._owner.feed.text_id)
        await self._publish(job, unseen(rows, self._known(job), source.ring), filled)
        if step.is_cut:
            second = replace(job, end_s=job.at_s + 1)
            self._tell("backfill_dropped", second, reason=f"one second has more than {MOST_TICKS} ticks")
        job.at_s = step.next_s

    async def _ask(self, job: _Job, page_end_s: int, duration: str) -> NDArray[np.void]:
        """Ask for bars up to the end of the page, or for ticks from where the job is; none is an answer too."""
        source, contract = job.source, job.subscription.request.contract
        try:
            if source.bar_s:
                return await self._owner.historical_bars(
                    contract, duration, source.bar_size, source.what_to_show, source.use_rth, _utc(page_end_s)
                )
            return await self._owner.historical_ticks(
                contract, source.what_to_show, _utc(job.at_s), use_rth=source.use_rth, ignore_size=source.ignore_size
            )
        except RequestError as error:
            if error.code == NO_DATA and NO_DATA_TEXT in error.message:
                return np.empty(0, HISTORICAL_BAR)
            raise

    def _known(self, job: _Job) -> NDArray[np.void]:
        """Return the rows of the job's time that the subscription has brought already, as far as the ring has them."""
        rows: NDArray[Any] = self._owner.feed.rings[job.source.ring].reader(start="oldest").read()
        at_s = rows["event_ns"] // NS_PER_S
        is_known = np.isin(rows["req_id"], [*job.subscription.req_ids]) & (at_s >= job.at_s) & (at_s < job.end_s)
        return np.asarray(rows[is_known])

    async def _publish(self, job: _Job, rows: NDArray[np.void], filled: _Filled) -> None:
        """Append rows, and let their readers have a turn now and then."""
        feed = self._owner.feed
        rows["recv_ns"] = time.time_ns()
        rows["instrument"] = job.subscription.instrument
        rows["req_id"] = job.subscription.newest_req_id
        most = max(1, feed.rings[job.source.ring].capacity // RING_SHARE)
        for start in range(0, len(rows), most):
            if start:
                await asyncio.sleep(0)
            filled.first_seq = filled.first_seq or feed.seq + 1
            feed.add_history(job.source.ring, rows[start : start + most])
            filled.last_seq = feed.seq
        filled.count += len(rows)

    def _record(self, job: _Job, filled: _Filled) -> None:
        """Tell what was covered, in the ring of gaps and by an event."""
        if job.at_s == filled.first_s:
            return
        subscription = job.subscription
        self._owner.feed.add_gap(
            time.time_ns(), Scope.SUBSCRIPTION, GapCause.BACKFILLED,
            instrument=subscription.instrument, req_id=subscription.newest_req_id,
            first_seq=filled.first_seq, last_seq=filled.last_seq,
            first_ns=filled.first_s * NS_PER_S, last_ns=job.at_s * NS_PER_S, count=filled.count, recovered=True,
        )  # fmt: skip
        self._tell("backfilled", replace(job, at_s=filled.first_s, end_s=job.at_s), rows=filled.count)

    def _tell(self, name: str, job: _Job, **fields: object) -> None:
        self._owner.monitor.event(
            name, subscription=job.subscription.name, ring=job.source.ring, first_ns=job.at_s * NS_PER_S,
            last_ns=job.end_s * NS_PER_S, **fields,
        )  # fmt: skip


def _utc(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y%m%d-%H:%M:%S}"
