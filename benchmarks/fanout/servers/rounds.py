"""What every Python server of this benchmark does: it takes commands on standard input and goes round by round.

The rule of the file: the standard library alone, since it runs in the environments of other libraries. A round is one
turn of the event loop: the messages of the round are made, and every connection gets them. See `rig.py` for the
commands.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

SEQ_NBYTES = 8
FILLER = bytes(range(256)) * 256


def payloads(first: int, count: int, nbytes: int) -> list[bytes]:
    """Return messages with these sequence numbers: eight bytes of it, and a filler."""
    filler = FILLER[SEQ_NBYTES:nbytes]
    return [seq.to_bytes(SEQ_NBYTES, "little") + filler for seq in range(first, first + count)]


class Server(ABC):
    """A server under test."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._awaited = 0
        self._seq = self._rounds_left = self._nbytes = self._batch = 0
        self._held = 0
        self._is_scheduled = False

    @abstractmethod
    async def listen(self) -> int:
        """Listen on a port of the loopback interface, and return it."""

    @abstractmethod
    def connections(self) -> int:
        """Return how many connections there are."""

    @abstractmethod
    def write(self, messages: list[bytes]) -> None:
        """Send these messages to every connection."""

    def joined(self) -> None:
        """Note that there is one connection more."""
        if self._awaited and self.connections() >= self._awaited:
            self._awaited = 0
            print("ready", flush=True)

    def hold(self) -> None:
        """Let the next round wait: one more connection has bytes to get rid of."""
        self._held += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self._held -= 1
        self._schedule()

    async def serve(self) -> None:
        """Do as standard input says, until it ends."""
        print(await self.listen(), flush=True)
        self._loop.add_reader(sys.stdin.fileno(), self._command)
        await self._ended
        self._loop.remove_reader(sys.stdin.fileno())

    def _command(self) -> None:
        word, *numbers = sys.stdin.readline().split() or ["end"]
        if word == "end":
            self._ended.set_result(None)
        elif word == "await":
            self._awaited = int(numbers[0])
            self.joined()
        else:
            self._seq, self._rounds_left, self._nbytes, self._batch = map(int, numbers)
            self._schedule()

    def _schedule(self) -> None:
        if self._rounds_left and not self._held and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._round)

    def _round(self) -> None:
        self.write(payloads(self._seq, self._batch, self._nbytes))
        self._is_scheduled = False
        self._seq += self._batch
        self._rounds_left -= 1
        self._schedule()
        if not self._rounds_left:
            print("done", flush=True)


def main(server: Callable[[], Server], new_loop: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    """Run a server in this process."""

    async def serve() -> None:
        await server().serve()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())
