"""The subject's process: a connection manager as users have it, with every stream of the market, and a named feed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.faults.world import open_files
from benchmarks.soak import child
from benchmarks.soak.market import LINES, wishes
from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.config import BreakerConfig, HeartbeatConfig, PacingConfig, ReconnectionConfig, SessionConfig
from ibfast.connection.monitor import Event
from ibfast.connection.stream import Stream
from ibfast.policy.subscription import SubscriptionState

READ_EVERY = 25
"""So many of the streams have no consumer, and then one has: with more, consuming would be what is measured."""
CLIENT_IDS = (11, 12, 13, 14, 15)
STOP_TIMEOUT_S = 5.0
MOST_ERRORS = 10


class Errors(logging.Handler):
    """Keeps what the program fails at, unlike the network: exceptions of the loop's callbacks, and logged ones.

    Attributes:
        found: a line for each different one, with how often it happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record of the log, if it tells an exception."""
        if record.exc_info:
            self._keep(record.getMessage(), record.exc_info[1])

    def from_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Keep what the event loop has to tell."""
        self._keep(str(context.get("message")), context.get("exception"))

    def _keep(self, message: str, error: BaseException | None) -> None:
        frames = traceback.extract_tb(error.__traceback__) if error is not None else []
        where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in frames[-1:])
        if len(self.found) < MOST_ERRORS:
            self.found[f"{message}: {error!r}{where}"] += 1


def config(port: int) -> Config:
    """Return the default settings, but for times: a fault every few seconds leaves no minute to notice one."""
    return Config(
        port=port,
        connect_timeout_s=2.0,
        heartbeat=HeartbeatConfig(interval_s=2.0, timeout_s=2.0, first_data_s=5.0, stale_s=4.0, dead_s=8.0),
        reconnection=ReconnectionConfig(delay_s=0.1, max_delay_s=1.0, stable_s=5.0, login_poll_s=1.0),
        breaker=BreakerConfig(open_s=1.0),
        pacing=PacingConfig(lines=LINES),
        session=SessionConfig(client_ids=CLIENT_IDS),
    )


class Subject:
    """A manager and its streams.

    Args:
        port: of the gateway, or of what stands before it.
        feed: where the data go.
        errors: what the program fails at.
    """

    def __init__(self, port: int, feed: Feed, errors: Errors) -> None:
        self._errors = errors
        self._feed = feed
        self._files = open_files()
        self._states: Counter[str] = Counter()
        self._streams: list[Stream] = []
        self._consumers: list[asyncio.Task[None]] = []
        self.manager = IBKRConnectionManager(config(port), feed)
        self._stop_listening = self.manager.monitor.listen(self._note)

    async def start(self) -> None:
        """Connect, and declare every stream."""
        if not await self.manager.connect():
            assert self.manager.last_error is not None
            raise self.manager.last_error
        for number, (contract, group) in enumerate(wishes()):
            stream = await self.manager.subscribe(contract, group.data_type, priority=group.priority, **group.options)
            self._streams.append(stream)
            if number % READ_EVERY == 0:
                self._consumers.append(asyncio.create_task(_consume(stream)))

    def figures(self) -> dict[str, Any]:
        """Return how it fares."""
        states = Counter(str(stream.state) for stream in self._streams)
        monitor = self.manager.monitor
        return {
            "state": monitor.state,
            "states": states,
            "live": states[SubscriptionState.LIVE] + states[SubscriptionState.QUIET],
            "reasons": [*self.manager.health().reasons, *self.manager.health().warnings][:3],
            "connected": self._states["CONNECTED"],
            "records": self._feed.seq,
            "late": self._feed.late,
            "errors": [f"{error} ({times} times)" for error, times in self._errors.found.items()],
            "tasks": len(asyncio.all_tasks()),
            "files": len(open_files()),
        }

    def block(self, *, seconds: float) -> None:
        """Let the event loop stand still."""
        time.sleep(seconds)

    async def stop(self) -> list[str]:
        """Disconnect, and return what is left behind."""
        await self.manager.disconnect()
        self._stop_listening()
        if self._consumers:
            await asyncio.wait(self._consumers, timeout=STOP_TIMEOUT_S)
        await asyncio.sleep(0)
        left = [f"task {task.get_name()}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        left += sorted(open_files() - self._files)
        left += [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        return left

    def _note(self, event: Event) -> None:
        if event.name == "state":
            self._states[str(event.fields["after"])] += 1


async def _consume(stream: Stream) -> None:
    with contextlib.suppress(Exception):  # why it ended is the stream's own to tell: its state
        async for _ in stream:
            stream.take_gaps()


async def main(port: int, feed_name: str) -> None:
    with Feed(name=feed_name) as feed:
        errors = Errors()
        logging.getLogger().addHandler(errors)
        asyncio.get_running_loop().set_exception_handler(errors.from_loop)
        subject = Subject(port, feed, errors)
        await child.serve({
            "start": subject.start, "figures": subject.figures, "block": subject.block, "stop": subject.stop,
        })  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(**child.settings()))
