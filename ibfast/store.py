"""What survives the process, in one SQLite file: subscriptions, what was sent lately, and leases of client ids.

The rule of the file: values in, values out. A disk that is full, or a file that is damaged, raises StoreError; whoever
calls decides to go on without.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from ibfast.contracts import ComboLeg, Contract, DeltaNeutralContract
from ibfast.enums import MarketDataType
from ibfast.errors import StoreError
from ibfast.policy.subscription import SubscriptionRequest
from ibfast.wire.requests import (
    HeadTimestamp,
    HistoricalBars,
    HistoricalTicks,
    MarketData,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)

__all__ = ["Remembered", "Sent", "SentRequest", "Store"]

SentRequest: TypeAlias = SubscriptionRequest | HistoricalTicks | HeadTimestamp
"""A request of a contract's data, which may count against a limit for a time."""

_T = TypeVar("_T")

# Writing happens on the event loop, so it waits for other processes for a moment only; it is tried again later.
BUSY_TIMEOUT_S = 0.05
REQUESTS: dict[str, Callable[..., SubscriptionRequest]] = {
    kind.__name__: kind for kind in (MarketData, TickByTick, MarketDepth, RealTimeBars, HistoricalBars)
}
SENT_REQUESTS: dict[str, Callable[..., SentRequest]] = {
    **REQUESTS,
    HistoricalTicks.__name__: HistoricalTicks,
    HeadTimestamp.__name__: HeadTimestamp,
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS subscriptions (
    session TEXT NOT NULL, request TEXT NOT NULL, priority INTEGER NOT NULL, since_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, request)
);
CREATE TABLE IF NOT EXISTS sessions (
    session TEXT PRIMARY KEY, market_data_type INTEGER NOT NULL, alive_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (
    owner TEXT NOT NULL, number INTEGER NOT NULL, login TEXT NOT NULL, request TEXT NOT NULL, at_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    gateway TEXT NOT NULL, client_id INTEGER NOT NULL, owner TEXT NOT NULL, until_ns INTEGER NOT NULL,
    PRIMARY KEY (gateway, client_id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a session was when it was last written.

    Attributes:
        subscriptions: requests (with id 0) and their priorities.
        market_data_type: of level 1.
        alive_ns: when it was last known to be alive, UTC; 0 if never.
        interrupted: since when data was missing then, UTC, of those that were interrupted.
    """

    subscriptions: tuple[tuple[SubscriptionRequest, int], ...]
    market_data_type: MarketDataType
    alive_ns: int
    interrupted: dict[SubscriptionRequest, int]


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent.

    Attributes:
        number: identifies it within its process.
        request: what was asked; its id does not matter.
        at_ns: when, UTC.
    """

    number: int
    request: SentRequest
    at_ns: int


class Store:
    """One SQLite file, shared by any number of processes.

    Args:
        path: of the file; made if it is not there.
        session: whose book is meant; processes with the same name share it.

    Raises:
        StoreError: the file can't be opened, or is none of ours.
    """

    def __init__(self, path: str | Path, session: str = "default") -> None:
        self.path = Path(path)
        self.session = session
        self._owner = uuid.uuid4().hex
        try:
            self._database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise self._failed("opened", error) from None
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(SCHEMA)
        except sqlite3.Error as error:
            self._database.close()
            raise self._failed("opened", error) from None

    def _failed(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"the store {self.path} can't be {what}: {error}: is there room on the disk, and may it be?")

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(f"the store {self.path} can't be read: {error}: move it away to begin anew")

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except (sqlite3.Error, OverflowError) as error:
            raise self._failed("written", error) from None

    def read(self) -> Remembered:
        """Return what the session was; empty for a new one."""
        try:
            rows = self._database.execute(
                "SELECT request, priority, since_ns FROM subscriptions WHERE session = ? ORDER BY priority DESC, rowid",
                (self.session,),
            )
            book = [(_parse(request, REQUESTS), priority, since_ns) for request, priority, since_ns in rows]
            subscriptions = tuple((request, priority) for request, priority, _ in book)
            interrupted = {request: since_ns for request, _, since_ns in book if since_ns}
            state = self._database.execute(
                "SELECT market_data_type, alive_ns FROM sessions WHERE session = ?", (self.session,)
            ).fetchone()
            market_data_type, alive_ns = state or (MarketDataType.REALTIME, 0)
            return Remembered(subscriptions, MarketDataType(market_data_type), alive_ns, interrupted)
        except (sqlite3.Error, AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unreadable(error) from None

    def remember(self, request: SubscriptionRequest, priority: int) -> None:
        """Add a subscription, or change its priority."""
        self._write(
            "INSERT INTO subscriptions (session, request, priority) VALUES (?, ?, ?) "
            "ON CONFLICT (session, request) DO UPDATE SET priority = excluded.priority",
            [(self.session, _written(request), priority)],
        )

    def forget(self, request: SubscriptionRequest) -> None:
        """Take one out."""
        self._write("DELETE FROM subscriptions WHERE session = ? AND request = ?", [(self.session, _written(request))])

    def alive(self, now_ns: int, market_data_type: MarketDataType) -> None:
        """Note that the session lives, so that a later one knows since when it did not."""
        self._write("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", [(self.session, int(market_data_type), now_ns)])

    def interrupted(self, request: SubscriptionRequest, since_ns: int) -> None:
        """Note since when a subscription's data is missing; 0: it is not."""
        self._write(
            "UPDATE subscriptions SET since_ns = ? WHERE session = ? AND request = ?",
            [(since_ns, self.session, _written(request))],
        )

    def note_sent(self, login: str, sent: Iterable[Sent]) -> list[StoreError]:
        """Note requests, before they are sent; one that was noted already has another time from now on.

        Returns:
            Why single requests can't be stored; the others are.
        """
        rows, unstorable = [], []
        for item in sent:
            try:
                written = _written(replace(item.request, req_id=0))
            except StoreError as error:
                unstorable.append(error)
            else:
                rows.append((self._owner, item.number, login, written, item.at_ns))
        self._write("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?)", rows)
        return unstorable

    def sent(self, login: str) -> list[Sent]:
        """Return what all that share the store have sent with a login, the oldest first."""
        try:
            rows = self._database.execute(
                "SELECT number, request, at_ns FROM sent WHERE login = ? ORDER BY at_ns", (login,)
            )
            return [Sent(number, _parse(request, SENT_REQUESTS), at_ns) for number, request, at_ns in rows]
        except (sqlite3.Error, AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unreadable(error) from None

    def trim_sent(self, since_ns: int, now_ns: int) -> None:
        """Drop what was sent before a time; what seems to come, since the clock was set back, was sent now."""
        self._write("DELETE FROM sent WHERE at_ns < ?", [(since_ns,)])
        self._write("UPDATE sent SET at_ns = ? WHERE at_ns > ?", [(now_ns, now_ns)])

    def lease(self, gateway: str, client_id: int, now_ns: int, until_ns: int) -> bool:
        """Take, or prolong, a client id of a gateway among all that share the store. False if another has it."""
        try:
            cursor = self._database.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?) ON CONFLICT (gateway, client_id) DO UPDATE "
                "SET owner = excluded.owner, until_ns = excluded.until_ns WHERE owner = excluded.owner OR until_ns < ?",
                (gateway, client_id, self._owner, until_ns, now_ns),
            )
        except sqlite3.Error as error:
            raise self._failed("written", error) from None
        return cursor.rowcount == 1

    def give_back(self, gateway: str, client_id: int) -> None:
        """End a lease."""
        self._write(
            "DELETE FROM leases WHERE gateway = ? AND client_id = ? AND owner = ?",
            [(gateway, client_id, self._owner)],
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _written(request: SentRequest) -> str:
    """Return a request as JSON; equal requests give equal texts."""
    try:
        return json.dumps({"kind": type(request).__name__, **asdict(request)}, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise StoreError(f"{request} can't be stored: {error}") from None


def _parse(text: str, kinds: Mapping[str, Callable[..., _T]]) -> _T:
    fields = json.loads(text)
    kind = kinds[fields.pop("kind")]
    fields["contract"] = _contract(fields["contract"])
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(value)
    return kind(**fields)


def _contract(fields: dict[str, Any]) -> Contract:
    for name, kind in (("combo_legs", ComboLeg), ("delta_neutral_contract", DeltaNeutralContract)):
        value = fields.get(name)
        if isinstance(value, list):
            fields[name] = tuple(kind(**leg) for leg in value)
        elif isinstance(value, dict):
            fields[name] = kind(**value)
    return Contract(**fields)
