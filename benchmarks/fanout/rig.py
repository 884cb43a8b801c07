"""The processes of the benchmark, and how their work is measured and checked.

The rule of the file: nobody measures itself. CPU time is the kernel's, of all threads of the server's process; what
arrived is judged by the receiver, which compares every byte. Servers and receivers are processes that answer one line
for each command:

    server:   await N                               "ready" when N connections are there
              send FIRST ROUNDS NBYTES BATCH        "done" when all rounds were written: BATCH messages each
    receiver: connect N, expect FIRST COUNT NBYTES, await     see receiver.c
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.decode import BUILD
from tests.support.oracles import python_with

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
CFLAGS = ("-O3", "-std=gnu11")
PICOWS = ("picows==2.3.1", "uvloop==0.23.0")
WS = "ws@8.18.3"
C_SERVER, NODE_SERVER = "C epoll", "Node ws"


class RigError(Exception):
    """A process has died, or something else arrived than was sent."""


@dataclass
class Child:
    """A process that answers a line with a line; it runs from the constructor on until `close`."""

    command: list[str]
    processor: int | None
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if self.command[0] == sys.executable:
            environment["PYTHONPATH"] = str(HERE.parents[1])
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        if self.processor is not None:
            os.sched_setaffinity(self.process.pid, {self.processor})

    def tell(self, line: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        try:
            print(line, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise self._death() from None

    def hear(self) -> str:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._death()
        return line.rstrip("\n")

    def _death(self) -> RigError:
        return RigError(f"{' '.join(self.command)} has died")

    def ask(self, line: str) -> str:
        """Send a command and return the answer."""
        self.tell(line)
        return self.hear()

    @property
    def cpu_ns(self) -> int:
        """The CPU time of all its threads so far; exact while it sleeps."""
        return time.clock_gettime_ns(~self.process.pid << 3 | 2)  # the kernel's number of another process's clock

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        with self.process, contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


@dataclass
class Peer:
    """A server and its subscribers; both run from the constructor on until `close`.

    Attributes:
        joins: whether the messages of a round become one write per connection.
    """

    name: str
    command: list[str]
    joins: bool = True
    server: Child = field(init=False)
    receiver: Child = field(init=False)
    _seq: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        processors = os.sched_getaffinity(0)
        pinned = (min(processors), max(processors)) if len(processors) > 1 else (None, None)
        self.server = Child(self.command, pinned[0])
        try:
            self.receiver = Child([str(built(HERE / "receiver.c")), self.server.hear()], pinned[1])
        except BaseException:
            self.server.close()
            raise

    def connect(self, subscribers: int) -> None:
        """Have this many connections, at least as many as before."""
        self.receiver.ask(f"connect {subscribers}")
        self.server.ask(f"await {subscribers}")

    def turn(self, rounds: int, nbytes: int, batch: int) -> int:
        """Have messages sent to everybody, and return the CPU time that the server took, in ns.

        Raises:
            RigError: not every byte has arrived as it was meant.
        """
        self.receiver.ask(f"expect {self._seq} {rounds * batch} {nbytes}")
        self.receiver.tell("await")
        begun_ns = self.server.cpu_ns
        self.server.tell(f"send {self._seq} {rounds} {nbytes} {batch}")
        verdict = self.receiver.hear()
        if verdict != "all":
            raise RigError(f"{self.name}: {verdict}")
        self.server.hear()
        taken_ns = self.server.cpu_ns - begun_ns
        self._seq += rounds * batch
        return taken_ns

    def close(self) -> None:
        """End both; the receiver first, so that the server has nobody to say goodbye to."""
        self.receiver.close()
        self.server.close()


def _library(way: str, loop: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, str(SERVERS / "library.py"), way, loop]


COMMANDS: dict[str, Callable[[], list[str]]] = {
    C_SERVER: lambda: [str(built(SERVERS / "server.c"))],
    "ibfast, uvloop": _library("broadcaster", "uvloop"),
    "ibfast, asyncio": _library("broadcaster", "asyncio"),
    "transport.write, uvloop": _library("transports", "uvloop"),
    "websockets.broadcast, uvloop": _library("broadcast", "uvloop"),
    "picows, uvloop": lambda: [str(python_with(*PICOWS)), str(SERVERS / "picows_server.py")],
    NODE_SERVER: lambda: ["node", str(SERVERS / "ws_server.mjs"), str(node_modules())],
}
CANNOT_JOIN = ("websockets.broadcast, uvloop", "picows, uvloop", NODE_SERVER)


def started_peers(names: Iterable[str]) -> Iterator[Peer]:
    """Start these peers, installing what they need; say of whom that can't be done here."""
    for name in names:
        try:
            command = COMMANDS[name]()
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            if name != NODE_SERVER:
                raise
            print(f"{name} is left out: npm can't install it: {error}", file=sys.stderr)
        else:
            yield Peer(name, command, joins=name not in CANNOT_JOIN)


def node_modules() -> Path:
    """Return a folder in which Node finds `ws`."""
    folder = BUILD / re.sub("[^a-z0-9.]", "-", WS)
    if not (folder / "node_modules").exists():
        unfinished = folder.with_suffix(f".{os.getpid()}")
        unfinished.mkdir(parents=True)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(unfinished), WS]
        subprocess.run(npm, check=True, stdout=sys.stderr)
        unfinished.replace(folder)
    return folder


def built(source: Path) -> Path:
    """Return a C program, compiled if its source has changed."""
    program = BUILD / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([os.environ.get("CC", "cc"), *CFLAGS, "-o", unfinished, source], check=True)
        unfinished.replace(program)
    return program
