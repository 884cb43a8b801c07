"""The command line: `ibfast demo` and `ibfast sim`.

The rule of the file: arguments, exit codes and what a user's mistake looks like; the work is done elsewhere. Exit
codes: 0 done, 1 it failed (a sentence on standard error says why), 2 wrong arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from ibfast import __version__
from ibfast.demo import DemoOptions, demo
from ibfast.enums import ServerVersion
from ibfast.errors import ConfigError, Error
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.replay import TickFile
from ibfast.sim.universe import Universe

__all__ = ["main", "run"]

DEMO_EXAMPLES = """examples:
  ibfast demo                                the embedded gateway, ten seconds
  ibfast demo --seconds 60 --rate 20000      for longer and faster
  ibfast demo --port 7497 --symbols AAPL,MSFT     your own TWS (paper account)
  ibfast demo --ticks ticks.csv.gz --speed 0      recorded ticks, as fast as they can be read
"""

SIM_EXAMPLES = """examples:
  ibfast sim --port 7497                     a gateway for any client of the TWS API
  ibfast sim --server-version 176            text only, as older releases of TWS
  ibfast sim --symbols 500 --rate 20000      synthetic symbols SYM000 to SYM499
  ibfast sim --ticks ticks.csv.gz --speed 10      recorded ticks, ten times as fast
"""


def run(main_coroutine: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop where there is one, else on asyncio."""
    if sys.platform == "win32":
        return asyncio.run(main_coroutine)
    import uvloop

    return uvloop.run(main_coroutine)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]] = arguments.command
    try:
        return run(command(arguments))
    except KeyboardInterrupt:
        return 130
    except (Error, OSError) as error:
        print(f"ibfast: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ibfast", description="Market data of Interactive Brokers as numpy records.")
    parser.add_argument("--version", action="version", version=f"ibfast {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_sim(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="market data live, from the embedded gateway or from yours",
        description="Connect to a gateway, subscribe, and show what arrives in the rings.",
        epilog=DEMO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=_positive, default=10.0, metavar="S", help="how long to run (10)")
    parser.add_argument("--host", default="127.0.0.1", help="of your own gateway (127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="of your own gateway; the embedded one without it")
    parser.add_argument("--client-id", type=int, default=17, metavar="N", help="at your own gateway (17)")
    parser.add_argument("--symbols", metavar="A,B,C", help="US stocks (a few well-known ones)")
    parser.add_argument("--rate", type=_positive, default=2000.0, metavar="N", help="market events a second (2000)")
    _add_simulation(parser)
    parser.set_defaults(command=_demo)


def _add_sim(commands: Any) -> None:
    parser = commands.add_parser(
        "sim",
        help="the embedded gateway, for any client of the TWS API",
        description="Serve a simulated TWS on a socket until interrupted.",
        epilog=SIM_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7497, metavar="N", help="0 is any free one (7497)")
    parser.add_argument("--rate", type=_positive, default=500.0, metavar="N", help="market events a second (500)")
    parser.add_argument("--symbols", type=int, default=0, metavar="N", help="add N synthetic stocks SYM000, SYM001, …")
    parser.add_argument("--lines", type=int, default=100, metavar="N", help="market-data lines of the account (100)")
    parser.add_argument("--no-pacing", action="store_true", help="enforce none of IB's limits")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input is closed")
    _add_simulation(parser)
    parser.set_defaults(command=_sim)


def _add_simulation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("simulation")
    group.add_argument(
        "--server-version",
        type=int,
        default=int(ServerVersion.MAX),
        metavar="N",
        help=f"{ServerVersion.MIN:d} to {ServerVersion.MAX:d}: text below 201, all of protobuf from 213 on "
        f"({ServerVersion.MAX:d})",
    )
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of the simulated market (1)")
    group.add_argument("--ticks", type=Path, metavar="FILE", help="play a .csv, .csv.gz or .parquet file of ticks")
    group.add_argument(
        "--speed", type=_not_negative, default=1.0, metavar="N", help="of --ticks: 1 as recorded, 0 full speed (1)"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


async def _demo(arguments: argparse.Namespace) -> int:
    if arguments.ticks is not None and arguments.port is not None:
        raise ConfigError("--ticks is played by the embedded gateway: leave --port out")
    return await demo(
        DemoOptions(
            seconds=arguments.seconds,
            host=arguments.host,
            port=arguments.port,
            client_id=arguments.client_id,
            symbols=tuple(filter(None, (arguments.symbols or "").upper().split(","))),
            rate=arguments.rate,
            server_version=arguments.server_version,
            seed=arguments.seed,
            ticks=arguments.ticks,
            speed=arguments.speed,
        )
    )


async def _sim(arguments: argparse.Namespace) -> int:
    gateway = Gateway(
        arguments.host,
        arguments.port,
        server_version=arguments.server_version,
        market=_market(arguments),
        pacing=not arguments.no_pacing,
        lines=arguments.lines,
    )
    async with gateway:
        print(f"listening on {gateway.host}:{gateway.port}", flush=True)
        serving = asyncio.create_task(gateway.serve_forever())
        ends = [serving]
        if arguments.until_eof:
            ends.append(asyncio.create_task(_standard_input_closed()))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
    return 0


def _market(arguments: argparse.Namespace) -> Market | TickFile:
    if arguments.ticks is not None:
        return TickFile(arguments.ticks, speed=arguments.speed)
    return Market(Universe.builtin(symbols=arguments.symbols), seed=arguments.seed, rate=arguments.rate)


async def _standard_input_closed() -> None:
    await asyncio.to_thread(sys.stdin.buffer.read)
