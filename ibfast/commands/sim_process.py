"""The embedded gateway for commands that need one: `ibfast sim` in a process of its own, as a gateway is.

The rule of the file: the gateway ends with the process that started it, however that ends, and is of the same ibfast.
Nothing is imported from the current folder, which is the user's and may hold a `queue.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ibfast.errors import ConfigError
from ibfast.wire.ids import ServerVersion

__all__ = ["HOST", "EmbeddedGateway", "Simulation", "embedded_gateway"]

HOST = "127.0.0.1"
ROOT = Path(__file__).absolute().parents[2]
"""The folder in which this process has found ibfast."""

SAME_IBFAST = """
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
spec = PathFinder.find_spec("ibfast", [sys.argv.pop(1)])
sys.modules["ibfast"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from ibfast.commands.main import main
sys.exit(main())
"""
"""Runs the command line of the ibfast in the folder that the first argument names, without that folder on the path."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """The options of the gateway's market.

    Attributes:
        rate: market events a second.
        symbols: so many synthetic stocks besides the built-in ones.
        server_version: see ServerVersion.
        seed: of the market.
        ticks: a file of ticks to be played instead.
        speed: of that: 1 as recorded, 0 as fast as it is read.
        lines: market-data lines of the account, None: it has no limits at all.
    """

    rate: float = 500.0
    symbols: int = 0
    server_version: int = ServerVersion.MAX
    seed: int = 1
    ticks: Path | None = None
    speed: float = 1.0
    lines: int | None = None

    def arguments(self) -> list[str]:
        """Return the command's arguments."""
        arguments = ["--server-version", f"{self.server_version:d}", "--seed", str(self.seed)]
        arguments += ["--no-pacing"] if self.lines is None else ["--lines", str(self.lines)]
        if self.ticks is not None:
            return [*arguments, "--ticks", str(self.ticks), "--speed", str(self.speed)]
        return [*arguments, "--rate", str(self.rate), "--symbols", str(self.symbols)]


@dataclass(frozen=True, slots=True)
class EmbeddedGateway:
    """A gateway that runs.

    Attributes:
        port: where it listens, on this machine.
    """

    port: int
    _process: asyncio.subprocess.Process

    async def ended(self) -> None:
        """Wait until it ends by itself, which it should not.

        Raises:
            ConfigError: it has.
        """
        exit_code = await self._process.wait()
        raise ConfigError(f"the embedded gateway has ended (exit code {exit_code}): start again")


@contextlib.asynccontextmanager
async def embedded_gateway(simulation: Simulation) -> AsyncIterator[EmbeddedGateway]:
    """Run a gateway.

    Raises:
        ConfigError: it did not start; it has said why itself.
    """
    pipe = asyncio.subprocess.PIPE
    # In a session of its own, so that Ctrl-C is this process's alone; the gateway ends with its standard input.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", SAME_IBFAST, str(ROOT),
        "sim", "--port", "0", "--until-eof", *simulation.arguments(),
        stdin=pipe, stdout=pipe, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = (await process.stdout.readline()).decode()
        if not line.startswith("listening on "):
            raise ConfigError("the embedded gateway did not start; its own message stands above")
        yield EmbeddedGateway(int(line.rpartition(":")[2]), process)
    finally:
        process.stdin.close()
        await process.wait()
