"""The connection manager as the scenarios use it: the only file of them that touches its interface.

The rule of the file: no judgement; what the manager says is passed on, what data came and when is noted apart from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from ibfast import Config, IBKRConnectionManager
from ibfast.config import BreakerConfig, HeartbeatConfig, ReconnectionConfig
from ibfast.connection.monitor import LEVELS, Event
from ibfast.contracts import Contract, Forex, Stock

LIVE_STATES = frozenset({"LIVE", "QUIET"})
GIVEN_UP_STATES = frozenset({"REFUSED", "WAITING", "SUSPENDED", "ENDED"})
SPARE_CLIENT_IDS = (11, 12, 13)
RECONNECTION = ReconnectionConfig(delay_s=0.05, max_delay_s=0.5, stable_s=2.0, planned_poll_s=0.5, login_poll_s=1.0)


@dataclass(frozen=True)
class Wish:
    """A stream that every scenario declares."""

    name: str
    contract: Contract
    data_type: str
    options: dict[str, Any]
    priority: int = 0
    is_tick_by_tick: bool = False


WISHES = (
    Wish("AAPL QUOTES", Stock("AAPL"), "QUOTES", {}, 3),
    Wish("MSFT TRADES", Stock("MSFT"), "TRADES", {"generic_ticks": "233"}, 2),
    Wish("SPY LAST", Stock("SPY"), "LAST", {}, 1, is_tick_by_tick=True),
    Wish("AAPL DEPTH", Stock("AAPL"), "DEPTH", {"num_rows": 5}),
    Wish("MSFT BARS", Stock("MSFT"), "BARS", {}),
    Wish("EUR QUOTES", Forex("EURUSD"), "QUOTES", {}),
)


def config(port: int, **settings: Any) -> Config:
    """Return settings that notice and repair within seconds, where the defaults take a minute."""
    return Config(
        **{
            "port": port,
            "client_id": 1,
            "connect_timeout_s": 1.0,
            "request_timeout_s": 20.0,
            "heartbeat": HeartbeatConfig(
                interval_s=0.5, timeout_s=0.5, first_data_s=6.0, quiet_s=1.0, stale_s=2.0, dead_s=6.0
            ),
            "reconnection": RECONNECTION,
            "breaker": BreakerConfig(open_s=1.0),
        }
        | settings
    )


class Subject:
    """A manager, its streams, and when data came on each.

    Attributes:
        manager, feed: what is tested.
        data_s: by stream, when rows came last, of `time.monotonic`.
    """

    def __init__(self, settings: Config, wishes: tuple[Wish, ...]) -> None:
        self.manager = IBKRConnectionManager(settings)
        self.feed = self.manager.feed
        self.data_s: dict[str, float] = {}
        self._wishes = wishes
        self._streams: dict[str, Any] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._noticed: list[Callable[[Event], None]] = []
        self._stop_listening = self.manager.monitor.listen(self._tell)

    async def start(self) -> None:
        """Connect and declare every stream."""
        await self._connect()
        for wish in self._wishes:
            await self.declare(wish)

    async def declare(self, wish: Wish) -> None:
        """Declare one stream, and note when data come."""
        stream = await self.manager.subscribe(wish.contract, wish.data_type, priority=wish.priority, **wish.options)
        self._streams[wish.name] = stream
        self._tasks[wish.name] = asyncio.create_task(self._consume(wish.name, stream))

    async def renew(self, name: str) -> None:
        """Take a stream back and declare it anew."""
        self._streams.pop(name).unsubscribe()
        await self._tasks.pop(name)
        await self.declare(next(wish for wish in self._wishes if wish.name == name))

    async def reconnect(self) -> None:
        """Connect by hand if the manager has given up."""
        if not self.manager.connected:
            await self.manager.connect()

    async def disconnect_and_connect(self) -> None:
        """Disconnect and connect at the same time; every stream ends."""
        await asyncio.gather(self.manager.disconnect(), self.manager.connect())

    async def abandon_disconnect(self) -> None:
        """Begin to disconnect, and be cancelled meanwhile."""
        task = asyncio.create_task(self.manager.disconnect())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    async def start_anew(self) -> None:
        """Connect, and declare every stream anew."""
        await self._connect()
        for name in self._streams:
            self._streams[name].unsubscribe()
            await self._tasks.pop(name)
        self._streams.clear()
        for wish in self._wishes:
            await self.declare(wish)

    def history_bars(self, name: str) -> int:
        """Return with how many bars a stream of updating bars has begun."""
        history = self._streams[name].history
        return 0 if history is None else len(history)

    async def ask_history(self) -> str:
        """Ask for some bars; return how that ended."""
        try:
            bars = await self.manager.historical_bars(Stock("AAPL"), duration="60 S", bar_size="5 secs")
        except Exception as error:  # whatever it is, it is what the user is told
            return f"{type(error).__name__}: {error}"
        return f"{len(bars)} bars"

    async def stop(self) -> None:
        """Disconnect; every task of a stream ends by itself."""
        await self.manager.disconnect()
        self._stop_listening()
        for task in self._tasks.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task, 2.0)

    def state(self, name: str) -> str:
        """Return what the manager says about a stream."""
        return str(self._streams[name].state)

    def error(self, name: str) -> Exception | None:
        """Return why it ended."""
        error = self._streams[name].error
        return error if isinstance(error, Exception) else None

    def is_live(self, name: str) -> bool:
        """Tell whether the manager says that data flow."""
        return self.state(name) in LIVE_STATES

    def has_given_up(self, name: str) -> bool:
        """Tell whether the manager says that data do not flow, and why is known."""
        return self.state(name) in GIVEN_UP_STATES

    @property
    def events(self) -> list[str]:
        """The monitor's events as text, oldest first."""
        return [str(event) for event in self.manager.monitor.events]

    def reasons(self) -> tuple[str, ...]:
        """Return what the manager has against its health, and what else does not flow."""
        health = self.manager.health()
        return (*health.reasons, *health.warnings) if health.ok else health.reasons or ("no reason given",)

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """Have every event that is more than routine told."""
        self._noticed.append(callback)

    def _tell(self, event: Event) -> None:
        if LEVELS.get(event.name, logging.INFO) > logging.DEBUG:
            for callback in self._noticed:
                callback(event)

    async def _connect(self) -> None:
        if not await self.manager.connect():
            assert self.manager.last_error is not None
            raise self.manager.last_error

    async def _consume(self, name: str, stream: Any) -> None:
        with contextlib.suppress(Exception):  # why it ended is the stream's own to tell: `error`
            async for _ in stream:
                self.data_s[name] = time.monotonic()


@contextlib.asynccontextmanager
async def pool_of(*members: Config, wishes: tuple[Wish, ...]) -> AsyncIterator[Any]:
    """Open a pool of these members with these streams."""
    from ibfast import ConnectionPool

    async with ConnectionPool(members) as pool:
        for wish in wishes:
            await pool.subscribe(wish.contract, wish.data_type, priority=wish.priority, **wish.options)
        yield pool
