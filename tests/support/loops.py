"""The event loops that everything asynchronous is proven on, and what every test must leave behind: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

WATCHDOG_S = 30.0
"""A test that takes longer hangs."""

OPEN_FILES = Path("/proc/self/fd")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def pytest_collection_finish() -> None:
    """Keep what was collected out of every later garbage collection: it is most of what one would go through."""
    gc.collect()
    gc.freeze()


def new_asyncio_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def new_uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()


LOOPS = {"asyncio": new_asyncio_loop} | ({} if sys.platform == "win32" else {"uvloop": new_uvloop})


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Make an event loop of each kind."""
    return LOOPS[request.param]


@pytest.fixture
def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """Run a coroutine on each kind of loop; it must end all its tasks and close all its files itself."""

    async def watched(test: Coroutine[Any, Any, Any]) -> Any:
        async with asyncio.timeout(WATCHDOG_S):
            result = await test
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    def run(test: Coroutine[Any, Any, Any]) -> Any:
        new_loop().close()  # the first loop of a process opens what all of them share
        before = open_sockets()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(watched(test))
        assert open_sockets() <= before
        return result

    return run


def open_sockets() -> set[str]:
    """The sockets and pipes of this process, where the system tells."""
    if not OPEN_FILES.is_dir():
        return set()
    targets = set()
    for entry in OPEN_FILES.iterdir():
        try:
            targets.add(os.readlink(entry))
        except FileNotFoundError:  # the one that lists the directory
            continue
    return {target for target in targets if target.startswith(("socket:", "pipe:"))}


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until the condition holds; the watchdog ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.001)


@contextlib.contextmanager
def errors_logged() -> Iterator[list[str]]:
    """What is logged as a warning or worse, while it lasts."""
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(self.format(record))

    handler = Handler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield seen
        gc.collect()  # what nobody has retrieved is told then
    finally:
        logging.getLogger().removeHandler(handler)
