"""The subscribers' process, and the file of what came on its connections; see subscribers.c.

The rule of the file: it asks and reads, and knows neither what messages mean nor what they should be.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fanout.rig import built
from benchmarks.soak.child import Child, ChildError

SUBPROTOCOL = "ibfast.v1.binary"
ENDED, TEXT, BINARY, CLOSE = 0, 1, 2, 8
ANSWER_TIMEOUT_S = 120.0
RECORD = struct.Struct("<IIqI")
SOURCE = Path(__file__).with_name("subscribers.c")


@dataclass(frozen=True, slots=True)
class Counts:
    """What came on a group of connections so far, and how many are open."""

    open: int
    subscribed: int
    errors: int
    frames: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Record:
    """A message, or the end, of a connection.

    Attributes:
        connection: its number.
        opcode: of the frame; ENDED: the connection was closed.
        time_ns: when it was read, UTC.
    """

    connection: int
    opcode: int
    time_ns: int
    payload: bytes


class Subscribers(Child):
    """The process. Make it with `open`."""

    @classmethod
    async def open(cls, port: int, file: Path) -> Subscribers:
        """Start it; it writes to `file`."""
        process = await asyncio.create_subprocess_exec(
            built(SOURCE), str(port), SUBPROTOCOL, str(file), start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return cls("subscribers", process)

    async def command(self, line: str) -> str:
        """Have it do something, and return the answer.

        Raises:
            ChildError: it has ended, or does not answer.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._asking:
            stdin.write(line.encode() + b"\n")
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await stdin.drain()
                    answer = await stdout.readline()
            except (OSError, TimeoutError) as error:
                raise ChildError(f"the subscribers' process fails at {line[:40]!r}: {error!r}") from None
        if not answer:
            raise ChildError("the subscribers' process has ended")
        return answer.decode().rstrip("\n")

    async def connect(self, count: int, group: int, *, rcvbuf: int = 0, whole: bool = False) -> range:
        """Open connections, and return their numbers."""
        answer = await self.command(f"connect {count} {group} {rcvbuf} {whole:d}")
        if not answer.isdecimal():
            raise ChildError(f"the server does not let a subscriber in: {answer}")
        return range(int(answer), int(answer) + count)

    async def say(self, number: int, op: str, *, times: int = 1, **values: object) -> None:
        """Send a control message, once or more often."""
        await self.command(f"say {number} {times} {json.dumps({'op': op, **values})}")

    async def counts(self, group: int) -> Counts:
        """Return what came so far."""
        return Counts(*map(int, (await self.command(f"counts {group}")).split()))


def records(file: Path) -> Iterator[Record]:
    """Return what was written down, connection by connection mixed, in order of arrival."""
    with file.open("rb") as stream:
        while head := stream.read(RECORD.size):
            connection, opcode, time_ns, nbytes = RECORD.unpack(head)
            yield Record(connection, opcode, time_ns, stream.read(nbytes))
