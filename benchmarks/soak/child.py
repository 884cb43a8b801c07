"""A process that is told what to do line by line, and answers each line with one: both ends of that.

The rule of the file: a line is a JSON object; a child ends when its input does, so that none outlives its parent,
however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
ANSWER_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LONGEST_LINE = 1 << 22
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KB = 1024

Verbs = Mapping[str, Callable[..., Any]]


class ChildError(Exception):
    """A child has ended, or does not answer, or a verb raised there."""


class Parts:
    """Processes and what else begins and ends with them: an async context manager; `_start` puts them on the stack."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        raise NotImplementedError


class Child:
    """The parent's end. Make it with `start`.

    Args:
        name: for messages.
        process: the child.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._asking = asyncio.Lock()

    @classmethod
    async def start(cls, name: str, *, benchmark: str = "soak", **settings: Any) -> Child:
        """Start the module `benchmarks.<benchmark>.<name>` with these settings, and wait until it says it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"benchmarks.{benchmark}.{name}", json.dumps(settings), cwd=ROOT, limit=LONGEST_LINE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's business
        )  # fmt: skip
        child = cls(name, process)
        try:
            await child._answer()
        except BaseException:
            await child.kill()
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, verb: str, **arguments: Any) -> Any:
        """Have it do something, and return the answer.

        Raises:
            ChildError: see there.
        """
        async with self._asking:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps([verb, arguments]).encode() + b"\n")
                await self._process.stdin.drain()
            except OSError:
                raise ChildError(f"the {self.name} has ended") from None
            return await self._answer()

    async def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ChildError(f"the {self.name} does not answer") from None
        if not line:
            raise ChildError(f"the {self.name} has ended with status {await self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(f"the {self.name} says: {answer['error']}")
        return answer["result"]

    async def stop(self) -> None:
        """End it in good order; by force if that takes long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it at once (-9)."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def memory_mb(self) -> tuple[float, float]:
        """Return the resident memory, all of it, and what is not shared with others (MB)."""
        fields = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value
        total, own = (int(fields[name].split()[0]) / KB for name in ("VmRSS", "RssAnon"))
        return total, own

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def settings() -> dict[str, Any]:
    """Return, in a child, what it was started with."""
    return dict(json.loads(sys.argv[1]))


def say(**answer: Any) -> None:
    """Say something to the parent: `result=` or `error=`."""
    print(json.dumps(answer), flush=True)


async def serve(verbs: Verbs) -> None:
    """Say that a child is ready, and do what it is told until its input ends, or SIGTERM comes."""
    reader, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, reader.feed_eof)
    say(result=None)
    try:
        while line := await reader.readline():
            verb, arguments = json.loads(line)
            try:
                result = verbs[verb](**arguments)
                say(result=await result if inspect.isawaitable(result) else result)
            except Exception as error:  # the parent's business, whatever it is
                say(error=f"{verb}: {type(error).__name__}: {error}")
    finally:
        transport.close()
