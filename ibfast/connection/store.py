"""What survives the process, in one SQLite file: subscriptions, what was sent lately, and leases of client ids.

The rule of the file: values in, values out. A disk that is full, a file that is damaged, or one that others may read
raises StoreError; whoever calls decides to go on without.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from ibfast.common.private_files import fault_of
from ibfast.contracts import ComboLeg, Contract, DeltaNeutralContract
from ibfast.errors import StoreError
from ibfast.policy.subscription import SubscriptionRequest
from ibfast.wire.ids import MarketDataType
from ibfast.wire.request_bytes import LAYOUTS
from ibfast.wire.requests import (
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)

__all__ = ["Remembered", "Sent", "SentRequest", "Store"]

SentRequest: TypeAlias = SubscriptionRequest | HistoricalTicksRequest | HeadTimestampRequest
"""A request of a contract's data, which may count against a limit for a time."""

_T = TypeVar("_T")

SIDE_FILES = ("-wal", "-shm", "-journal")
DAMAGE = (sqlite3.Error, AttributeError, KeyError, TypeError, ValueError, RecursionError)
"""What reading a damaged store raises."""

# Writing happens on the event loop, so it waits for other processes for a moment only; it is tried again later.
BUSY_TIMEOUT_S = 0.05
REQUESTS: dict[str, Callable[..., SubscriptionRequest]] = {
    LAYOUTS[kind].message: kind for kind in (MarketData, TickByTick, MarketDepth, RealTimeBars, HistoricalBars)
}
SENT_REQUESTS: dict[str, Callable[..., SentRequest]] = {
    **REQUESTS,
    **{LAYOUTS[kind].message: kind for kind in (HistoricalTicksRequest, HeadTimestampRequest)},
}
"""Requests by the names that IB gives their messages, since classes are renamed."""

SALT_BYTES = 16
VERSION = 2
"""Of the schema; 0 is a file that is new, or older than versions."""

SCHEMA = f"""
CREATE TABLE salt (bytes BLOB NOT NULL);
CREATE TABLE subscriptions (
    session TEXT NOT NULL, request TEXT NOT NULL, priority INTEGER NOT NULL, since_ns INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, request)
);
CREATE TABLE sessions (
    session TEXT PRIMARY KEY, market_data_type INTEGER NOT NULL, alive_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sent (
    owner TEXT NOT NULL, number INTEGER NOT NULL, login TEXT NOT NULL, request TEXT NOT NULL, at_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, number)
) WITHOUT ROWID;
CREATE TABLE leases (
    gateway TEXT NOT NULL, client_id INTEGER NOT NULL, owner TEXT NOT NULL, until_ns INTEGER NOT NULL,
    PRIMARY KEY (gateway, client_id)
) WITHOUT ROWID;
INSERT INTO salt VALUES (randomblob({SALT_BYTES}));
PRAGMA user_version = {VERSION};
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
        path: of the file; made if it is not there, for its owner alone. Its folder must be one in which no other user
            can rename files.
        session: whose book is meant; processes with the same name share it.

    Raises:
        StoreError: the file can't be opened, others may read it, it is a link, or another release has made it.
    """

    def __init__(self, path: str | Path, session: str = "default") -> None:
        self.path = Path(path)
        self.session = session
        self._owner = uuid.uuid4().hex
        self._make_private()
        try:
            self._database = sqlite3.connect(self.path.absolute(), timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise self._failed("opened", error) from None
        try:
            self._salt = self._open()
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.Error):
                raise self._failed("opened", error) from None
            raise

    def _make_private(self) -> None:
        """Make the file, if there is none, for its owner alone, and refuse what others may read, or links.

        SQLite gives its side files the mode of the file. A file that is there is not opened here: closing it would
        release the locks that this process has on it.
        """
        try:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            for path in (self.path, *(self.path.with_name(self.path.name + suffix) for suffix in SIDE_FILES)):
                with contextlib.suppress(FileNotFoundError):
                    fault = fault_of(os.lstat(path))
                    if fault:
                        raise StoreError(f"the store {path} {fault}")
        except (OSError, ValueError) as error:
            raise self._failed("opened", error) from None

    def _open(self) -> bytes:
        """Make the tables of a new file, or refuse an old one; return the salt."""
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version != VERSION and (version or self._has_tables()):
            raise StoreError(
                f"the store {self.path} was made by another release of ibfast: move it away to begin anew, and "
                "subscribe again"
            )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        if not version:
            self._make_tables()
        row = self._database.execute("SELECT bytes FROM salt").fetchone()
        if row is None or not isinstance(row[0], bytes) or len(row[0]) != SALT_BYTES:
            raise self._unreadable(ValueError("its salt is damaged"))
        return row[0]

    def _has_tables(self) -> bool:
        return self._database.execute("SELECT 1 FROM sqlite_master").fetchone() is not None

    def _make_tables(self) -> None:
        """Make all tables, or none, unless another process has just made them."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            if not self._has_tables():
                for statement in SCHEMA.split(";"):
                    self._database.execute(statement)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def login_of(self, accounts: Iterable[str]) -> str:
        """Return the name of a login in the store: a hash of its account ids with the store's salt.

        Whoever can read the store can still try all account ids: its mode is what protects them.
        """
        return sha256(self._salt + ",".join(sorted(accounts)).encode()).hexdigest()

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
            book = [
                (_parse(request, REQUESTS), _whole(priority), _whole(since_ns)) for request, priority, since_ns in rows
            ]
            subscriptions = tuple((request, priority) for request, priority, _ in book)
            interrupted = {request: since_ns for request, _, since_ns in book if since_ns}
            state = self._database.execute(
                "SELECT market_data_type, alive_ns FROM sessions WHERE session = ?", (self.session,)
            ).fetchone()
            market_data_type, alive_ns = state or (MarketDataType.REALTIME, 0)
            return Remembered(subscriptions, MarketDataType(market_data_type), _whole(alive_ns), interrupted)
        except DAMAGE as error:
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
            return [
                Sent(_whole(number), _parse(request, SENT_REQUESTS), _whole(at_ns)) for number, request, at_ns in rows
            ]
        except DAMAGE as error:
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
        _require_types(request)
        return json.dumps(
            {"kind": LAYOUTS[type(request)].message, **asdict(request)}, sort_keys=True, separators=(",", ":")
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"{request} can't be stored: {error}") from None


def _parse(text: str, kinds: Mapping[str, Callable[..., _T]]) -> _T:
    fields = json.loads(text)
    kind = kinds[fields.pop("kind")]
    request = kind(**{**fields, "contract": _contract(fields["contract"])})
    _require_types(request)
    return request


def _contract(fields: dict[str, Any]) -> Contract:
    legs, hedge = fields.pop("combo_legs"), fields.pop("delta_neutral_contract")
    return Contract(
        **fields,
        combo_legs=tuple(ComboLeg(**leg) for leg in legs),
        delta_neutral_contract=None if hedge is None else DeltaNeutralContract(**hedge),
    )


def _require_types(value: Any) -> None:
    """Raise TypeError unless all fields have the types that their classes say: nothing else may be restored."""
    kind: type = type(value)
    for name, hint in _hints(kind).items():
        field = getattr(value, name)
        if not _fits(field, hint):
            raise TypeError(f"{name} is of type {type(field).__name__}")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    kinds = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, kinds[0]) for item in value)
    if kinds:
        return any(_fits(value, kind) for kind in kinds)
    if type(value) is hint and is_dataclass(value):
        _require_types(value)
    return type(value) is hint or (hint is float and type(value) is int)


def _whole(value: object) -> int:
    """Return a whole number out of the store: SQLite keeps any type in any column."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value
