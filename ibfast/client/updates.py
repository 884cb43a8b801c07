"""What a client of a stream hands out: rows, objects made of rows, what happened to the stream, names of instruments.

The rule of the file: values only. It knows the records, and neither messages nor sockets. An update has the fields of
its family; those of the other families can be read too and are absent: NaN, 0 or "".

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, starmap
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ibfast.records import GapCause, Kind, Scope

__all__ = [
    "TEXT_FIELDS",
    "Arrival",
    "Bar",
    "Batch",
    "Depth",
    "Event",
    "Gap",
    "Greeks",
    "Instruments",
    "Lag",
    "LagTotals",
    "Quote",
    "State",
    "Texts",
    "Tick",
    "Trade",
    "Update",
    "updates_of",
]

TEXT_FIELDS = frozenset({"text", "exchange", "conditions", "market_maker"})
"""Fields of rows that are ids of texts."""

OTHER_TEXT = "<other>"
# What a client keeps of what its server says, for as long as the client lives.
MOST_LABEL = 256
MOST_INSTRUMENTS = 1 << 18
MOST_CHARACTERS = 1 << 24
"""Text 1: all past the bound."""

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one family that came together.

    Attributes:
        family: "trades", "quotes", …
        rows: a structured array of the ring's dtype. `instrument` is an index into the client's own `instruments`,
            texts are ids of its `texts`, `req_id` is −1, and `seq` is 0 unless the subscription is `ordered`.
        is_snapshot: whether they tell what is, from before or after an interruption, and no news.
    """

    family: str
    rows: NDArray[np.void]
    is_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows that came together.

    Attributes:
        batches: by family; a family may have several.
        order: for each row the index of the batch whose next row it is; None: batch after batch.
    """

    batches: tuple[Batch, ...]
    order: bytes | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(batch.rows) for batch in self.batches)


class Update:
    """One row as an object. The fields of all families can be read; those that it does not have are absent.

    Attributes:
        ticker: the instrument's label, such as "AAPL".
        instrument: its index in the client's `instruments`.
        family: "trades", "quotes", …
        kind: what the row was made of (`ibfast.Kind`).
        seq: its number in the server's feed; 0 unless the subscription is `ordered`.
        recv_ns: when the server's machine read it from the gateway, UTC.
        is_snapshot: whether it tells what is, and no news.
    """

    __slots__ = ()

    family: ClassVar[str]
    ticker: str = ""
    instrument: int = 0
    kind: int = 0
    seq: int = 0
    recv_ns: int = 0
    is_snapshot: bool = False
    price: float = NAN
    size: float = NAN
    bid: float = NAN
    ask: float = NAN
    bid_size: float = NAN
    ask_size: float = NAN
    open: float = NAN
    high: float = NAN
    low: float = NAN
    close: float = NAN
    volume: float = NAN
    wap: float = NAN
    count: int = 0
    implied_vol: float = NAN
    delta: float = NAN
    option_price: float = NAN
    pv_dividend: float = NAN
    gamma: float = NAN
    vega: float = NAN
    theta: float = NAN
    und_price: float = NAN
    event_ns: int = 0
    attribs: int = 0
    tick_type: int = -1
    operation: int = 255
    side: int = 255
    position: int = -1
    text: str = ""
    exchange: str = ""
    conditions: str = ""
    market_maker: str = ""


@dataclass(frozen=True, slots=True)
class Tick(Update):
    """One level-1 message: a row of `ticks`."""

    family: ClassVar[str] = "ticks"
    ticker: str
    instrument: int
    kind: int
    seq: int
    recv_ns: int
    is_snapshot: bool
    tick_type: int
    attribs: int
    text: str
    price: float
    size: float


@dataclass(frozen=True, slots=True)
class Trade(Update):
    """A trade: a row of `trades`."""

    family: ClassVar[str] = "trades"
    ticker: str
    instrument: int
    kind: int
    seq: int
    recv_ns: int
    is_snapshot: bool
    price: float
    size: float
    event_ns: int
    exchange: str
    conditions: str
    attribs: int


@dataclass(frozen=True, slots=True)
class Quote(Update):
    """The full top of book after a change: a row of `quotes`."""

    family: ClassVar[str] = "quotes"
    ticker: str
    instrument: int
    kind: int
    seq: int
    recv_ns: int
    is_snapshot: bool
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    event_ns: int
    attribs: int


@dataclass(frozen=True, slots=True)
class Depth(Update):
    """One operation on the book, or its reset: a row of `depth`."""

    family: ClassVar[str] = "depth"
    ticker: str
    instrument: int
    kind: int
    seq: int
    recv_ns: int
    is_snapshot: bool
    position: int
    operation: int
    side: int
    price: float
    size: float
    market_maker: str
    attribs: int


@dataclass(frozen=True, slots=True)
class Bar(Update):
    """A bar: a row of `bars`."""

    family: ClassVar[str] = "bars"
    ticker: str
    instrument: int
    kind: int
    seq: int
    recv_ns: int
    is_snapshot: bool
    event_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    wap: float
    count: int


@dataclass(frozen=True, slots=True)
class Greeks(Update):
    """An option computation: a row of `greeks`."""

    family: ClassVar[str] = "greeks"
    ticker: str
    instrument: int
    kind: int
    seq: int
    recv_ns: int
    is_snapshot: bool
    tick_type: int
    attribs: int
    implied_vol: float
    delta: float
    option_price: float
    pv_dividend: float
    gamma: float
    vega: float
    theta: float
    und_price: float


CLASSES: Mapping[str, type[Update]] = {
    "ticks": Tick, "trades": Trade, "quotes": Quote, "depth": Depth, "bars": Bar, "greeks": Greeks,
}  # fmt: skip
KINDS: Mapping[int, int] = {int(kind): kind for kind in Kind}


def updates_of(arrival: Arrival, tickers: Sequence[str], texts: Sequence[str]) -> Iterator[Update]:
    """Return each row as an object, in the order in which they came to the server.

    Args:
        arrival: the rows.
        tickers: label by instrument.
        texts: text by id.
    """
    updates = [_updates_of(batch, tickers, texts) for batch in arrival.batches]
    if arrival.order is None:
        return chain.from_iterable(updates)
    return (next(updates[index]) for index in arrival.order)


def _updates_of(batch: Batch, tickers: Sequence[str], texts: Sequence[str]) -> Iterator[Update]:
    columns = [_column(batch, name, tickers, texts) for name in COLUMNS[batch.family]]
    return starmap(CLASSES[batch.family], zip(*columns, strict=True))


def _column(batch: Batch, name: str, tickers: Sequence[str], texts: Sequence[str]) -> Sequence[Any]:
    if name == "is_snapshot":
        return (batch.is_snapshot,) * len(batch.rows)
    if name == "ticker":
        return [tickers[instrument] for instrument in batch.rows["instrument"].tolist()]
    values: list[Any] = batch.rows[name].tolist()
    if name == "kind":
        return [KINDS.get(kind, kind) for kind in values]
    return [texts[text_id] for text_id in values] if name in TEXT_FIELDS else values


COLUMNS: Mapping[str, tuple[str, ...]] = {
    family: tuple(item.name for item in fields(cls))  # type: ignore[arg-type]
    for family, cls in CLASSES.items()
}
"""The fields of an update in the order of its constructor."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Rows were left out, because somebody was too slow or away for too long.

    Attributes:
        ticker, instrument: of what; "" and −1: of everything.
        family: of what, "" of all that the subscription has.
        from_seq, to_seq: those of the server's feed after the first up to the second; 0 is not known.
        rows: how many, None if that is not known.
        reason: "slow": this client's connection; "overrun": the server; "resume": it was away for too long; "consumer":
            who reads `updates()` or `batches()` here.
    """

    ticker: str
    instrument: int
    from_seq: int
    to_seq: int
    rows: int | None
    reason: str
    family: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """The source itself was interrupted: a row of the `gaps` of the server's feed, in the same words."""

    ticker: str
    instrument: int
    scope: Scope
    cause: GapCause
    recovered: bool
    first_seq: int
    last_seq: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class State:
    """What becomes of a subscription, or of the connection.

    Attributes:
        ticker: of the subscription; "": it is the connection.
        subscription: its number at this client, 0: it is the connection.
        state: of a subscription: LIVE, QUIET, STALE, WAITING, … as the server's session says; SLOWED: it comes at
            `interval_ms` now; RESUMED: nothing was missed while the connection was away; ENDED. Of the connection:
            CONNECTED, RECONNECTING, CLOSED.
        reason: why, where that is not obvious.
        interval_ms: of a subscription that was slowed.
    """

    ticker: str
    subscription: int
    state: str
    reason: str = ""
    interval_ms: int | None = None


Event: TypeAlias = Lag | Gap | State


@dataclass(frozen=True, slots=True)
class LagTotals:
    """What was left out so far.

    Attributes:
        lags: how often something was.
        rows: how many rows, as far as that is known.
        unknown: how many of the lags did not tell how many rows.
        consumer_rows: rows that were here and not read in time, among `rows`.
    """

    lags: int = 0
    rows: int = 0
    unknown: int = 0
    consumer_rows: int = 0

    def plus(self, lag: Lag) -> LagTotals:
        """Return the totals with one more."""
        rows = lag.rows or 0
        return LagTotals(
            self.lags + 1,
            self.rows + rows,
            self.unknown + (lag.rows is None),
            self.consumer_rows + rows * (lag.reason == "consumer"),
        )


class Texts(Sequence[str]):
    """Texts by the client's own ids: 0 is "", 1 all past the bound."""

    def __init__(self, most: int = 1 << 16) -> None:
        self._texts = ["", OTHER_TEXT]
        self._ids = {"": 0}
        self._most = most
        self._characters = 0

    def id_of(self, text: str) -> int:
        """Return the id of a text, which is put here as far as there is room."""
        found = self._ids.get(text)
        if found is None:
            if len(self._texts) >= self._most or self._characters + len(text) > MOST_CHARACTERS:
                return 1
            self._characters += len(text)
            found = self._ids[text] = len(self._texts)
            self._texts.append(text)
        return found

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, text_id: Any) -> Any:
        return self._texts[text_id]


class Instruments(Sequence[str]):
    """Labels by the client's own index, which stays the same whatever happens to connection and server."""

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._con_ids: list[int] = []
        self._exchanges: list[str] = []
        self._found: dict[tuple[int, str, str, str], int] = {}

    def add(self, label: str, con_id: int, exchange: str, combo_legs: str = "") -> int:
        """Return the index of a contract at an exchange, a new one if it was never seen.

        Args:
            label, con_id, exchange: as the server describes it.
            combo_legs: of a combo, which con_id and label do not identify.

        Raises:
            ValueError: a text is longer than any, or there are more instruments than there can be.
        """
        if max(len(label), len(exchange)) > MOST_LABEL:
            raise ValueError(f"a label of {len(label):,} characters, an exchange of {len(exchange):,}")
        key = con_id, exchange, label, combo_legs
        if len(self._labels) == MOST_INSTRUMENTS and key not in self._found:
            raise ValueError(f"more than {MOST_INSTRUMENTS:,} instruments")
        found = self._found.setdefault(key, len(self._labels))
        if found == len(self._labels):
            self._labels.append(label)
            self._con_ids.append(con_id)
            self._exchanges.append(exchange)
        return found

    def con_id(self, instrument: int) -> int:
        """Return IB's contract id, 0 where it is not known."""
        return self._con_ids[instrument]

    def exchange(self, instrument: int) -> str:
        """Return the exchange at which the contract is asked for."""
        return self._exchanges[instrument]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, instrument: Any) -> Any:
        return self._labels[instrument]
