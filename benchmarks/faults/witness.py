"""Loss accounting: what happened at the gateway against what stands in the rings, event by event.

The rule of the file: it sees every event before anybody else and every message that is sent, and needs neither clocks
nor values to tell which record is which event: records of one request are the first so many of its messages, in order.
Values are compared all the same, so that a wrong pairing or a wrong value fails.

A record is lost if its event lies between the first and the last record of its series and has none. It is reported if
a row of the feed's `gaps` ring covers it: records before the row's `first_seq` are older, those from its `last_seq` on
are newer than the event.

A record is doubled if there is another one of the same event. Each series has one subscription, whatever the number of
its requests. Rows without an instrument reach no stream: they are no records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibfast import Feed, Kind
from ibfast.sim.channel import MarketChannel
from ibfast.sim.codec import TickByTickBidAsk, TickByTickLast, TickString
from ibfast.sim.events import Event, QuoteEvent, TradeEvent
from ibfast.sim.gateway import Gateway
from ibfast.sim.instruments import Instrument
from ibfast.wire.ids import TickType

NO_INSTRUMENT = 0xFFFFFFFF
ANY_REQUEST = -1
LAST = 1


class Series(NamedTuple):
    """The records of one kind of one instrument; one to one with some of its events."""

    con_id: int
    kind: int


@dataclass(frozen=True)
class Record:
    """A row of a ring, and which event it is (its index within the series)."""

    seq: int
    index: int


@dataclass(frozen=True)
class Loss:
    """How many records of a series were lost, how many of them no gap tells of, and how many came again."""

    series: Series
    events: int
    records: int
    lost: int
    unreported: int
    doubled: int


class Witness:
    """Listens to instruments at the gateway, keeps its journal, and reads the feed's rings.

    Make it, give `journal` to the gateway, call `watch` within it before any client comes, and `read` now and then.
    """

    def __init__(self) -> None:
        self.events: dict[Series, list[Event]] = defaultdict(list)
        self.sent: dict[int, list[tuple[Series, int]]] = defaultdict(list)
        self.rows_lost = 0
        self.mismatches: list[str] = []
        self._rows: dict[int, list[tuple[int, int, int, float, float]]] = defaultdict(list)
        self._gaps: list[NDArray[Any]] = []
        self._left: dict[int, list[int]] = defaultdict(list)
        self._con_id = 0
        self._con_ids: dict[int, int] = {}
        self._readers: list[Any] = []

    def watch(self, gateway: Gateway, instruments: Sequence[Instrument]) -> None:
        """Hear the events of these instruments, first of all listeners."""
        for instrument in instruments:
            gateway.listen(gateway.channel(instrument), self)

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        self.events[Series(quote.con_id, Kind.BID_ASK)].append(quote)
        self._con_id = quote.con_id

    def on_trade(self, trade: TradeEvent, channel: MarketChannel, previous: MarketChannel.Last) -> None:
        self.events[Series(trade.con_id, Kind.RT_VOLUME)].append(trade)
        if not trade.unreported:
            self.events[Series(trade.con_id, Kind.LAST)].append(trade)
        self._con_id = trade.con_id

    def journal(self, client_id: int, message: object) -> None:
        """Note which event a message tells: the newest one, since each event is told as it happens."""
        match message:
            case TickByTickLast(req_id=req_id, tick_type=tick_type) if tick_type == LAST:
                self._note(req_id, Kind.LAST)
            case TickString(req_id=req_id, tick_type=TickType.RT_VOLUME):
                self._note(req_id, Kind.RT_VOLUME)
            case TickByTickBidAsk(req_id=req_id):
                self._note(req_id, Kind.BID_ASK)

    def _note(self, req_id: int, kind: Kind) -> None:
        series = Series(self._con_id, kind)
        self.sent[req_id].append((series, len(self.events[series]) - 1))

    def attach(self, feed: Feed) -> None:
        """Read this feed's rings from here on."""
        self._feed = feed
        self._readers = [(ring, feed.rings[ring].reader(start="next")) for ring in ("trades", "quotes", "gaps")]

    def leave(self, con_id: int) -> None:
        """Count nothing as lost between the records until now and the next ones: an instrument is not wanted."""
        self._left[con_id].append(self._feed.seq + 1)

    def read(self) -> None:
        """Take in what is new in the rings; call it more often than they turn round."""
        for ring, reader in self._readers:
            rows = reader.read()
            self.rows_lost = sum(reader.lost for _, reader in self._readers)
            if ring == "gaps":
                self._gaps.append(rows)
                continue
            names = ("price", "size") if ring == "trades" else ("bid", "ask")
            rows = rows[np.isin(rows["kind"], (Kind.LAST, Kind.RT_VOLUME, Kind.BID_ASK))]
            columns = (rows[name].tolist() for name in ("req_id", "seq", "kind", "instrument", *names))
            for req_id, seq, kind, instrument, first, second in zip(*columns, strict=True):
                self._rows[req_id].append((seq, kind, instrument, first, second))

    def close(self) -> None:
        """Read to the end and leave the rings."""
        self.read()
        for _, reader in self._readers:
            reader.close()

    @property
    def gaps(self) -> NDArray[Any]:
        """All rows of the gaps ring."""
        return np.concatenate(self._gaps) if self._gaps else np.zeros(0, Feed.dtypes["gaps"])

    def losses(self) -> list[Loss]:
        """Return the account of every series of which there is a record."""
        records = self._paired()
        gaps = list(_closed(self.gaps))
        return [self._account(series, sorted(found, key=lambda r: r.seq), gaps) for series, found in records.items()]

    def _paired(self) -> dict[Series, list[Record]]:
        """Pair the rows of each request with its messages."""
        paired: dict[Series, list[Record]] = defaultdict(list)
        for req_id, rows in self._rows.items():
            sent = self.sent[req_id]
            if len(rows) > len(sent):
                self.mismatches.append(f"request {req_id}: {len(rows)} records of {len(sent)} messages")
            for (seq, kind, instrument, first, second), (series, index) in zip(rows, sent, strict=False):
                event = self.events[series][index]
                if kind != series.kind or not _agrees(event, first, second):
                    self.mismatches.append(f"request {req_id}, record {seq}: {first}, {second} is not {event}")
                if instrument != NO_INSTRUMENT:
                    self._con_ids[series.con_id] = instrument
                    paired[series].append(Record(seq, index))
        return paired

    def _account(self, series: Series, records: list[Record], gaps: list[Any]) -> Loss:
        have = {record.index for record in records}
        lost = [index for index in range(min(have), max(have)) if index not in have]
        instrument = self._con_ids[series.con_id]
        req_ids = {req_id for req_id, sent in self.sent.items() if sent and sent[0][0] == series}
        reported = {
            index
            for gap in gaps
            if int(gap["instrument"]) in (instrument, NO_INSTRUMENT) and int(gap["req_id"]) in req_ids | {ANY_REQUEST}
            for index in _covered(records, int(gap["first_seq"]), int(gap["last_seq"]))
        }
        unwanted = {index for seq in self._left[series.con_id] for index in _covered(records, seq, seq)}
        lost = [index for index in lost if index not in unwanted]
        doubled = len(records) - len(have)
        return Loss(series, max(have) - min(have) + 1, len(have), len(lost), len(set(lost) - reported), doubled)


def _covered(records: list[Record], first_seq: int, last_seq: int) -> range:
    """Return the indexes of events between the records before a gap and those after it."""
    before = [record.index for record in records if record.seq < first_seq]
    after = [record.index for record in records if last_seq and record.seq >= last_seq]
    newest = max((record.index for record in records), default=-1)
    return range(max(before, default=-1) + 1, min(after, default=newest + 1))


def _closed(gaps: NDArray[Any]) -> Iterator[Any]:
    """Yield the gaps, one that was told open and then with its end (of another request) only in its last form."""
    latest: dict[tuple[int, ...], Any] = {}
    for gap in gaps:
        key = tuple(int(gap[name]) for name in ("scope", "cause", "instrument", "first_seq"))
        latest[key] = gap
    yield from latest.values()


def _agrees(event: Event, first: float, second: float) -> bool:
    if isinstance(event, QuoteEvent):
        return (event.bid, event.ask) == (first, second)
    return (event.price, event.size) == (first, second)
