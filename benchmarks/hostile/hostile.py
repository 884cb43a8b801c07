"""The hostile subscribers' process: it does what a kind does, from `begin` until `end`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from benchmarks.hostile.kinds import KINDS, Target, prepare
from benchmarks.soak import child

LOWEST_PRIORITY = 19


class Hostile:
    """Does one thing at a time.

    Args:
        target: the server.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._acting: asyncio.Task[Any] | None = None

    async def prepare(self) -> int:
        """Remember where the crowd could resume from; return of how many subscriptions."""
        self._target.kept.update(await prepare(self._target))
        return len(self._target.kept)

    def begin(self, kind: str) -> None:
        """Begin to act."""
        self._acting = asyncio.ensure_future(KINDS[kind].act(self._target))

    async def end(self) -> str:
        """End it, and return what went wrong in this process, "" if nothing did."""
        assert self._acting is not None
        self._acting.cancel()
        (outcome,) = await asyncio.gather(self._acting, return_exceptions=True)
        expected = outcome is None or isinstance(
            outcome, (asyncio.CancelledError, OSError, asyncio.IncompleteReadError)
        )
        return "" if expected else repr(outcome)


async def main(port: int, tls_port: int, tokens: dict[str, str], symbols: list[str]) -> None:
    os.nice(LOWEST_PRIORITY)
    hostile = Hostile(Target(port, tls_port, tokens, symbols, {}))
    await child.serve({"prepare": hostile.prepare, "begin": hostile.begin, "end": hostile.end})


if __name__ == "__main__":
    asyncio.run(main(**child.settings()))
