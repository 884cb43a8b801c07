"""The command line: `ibfast serve`, `ibfast demo`, `ibfast sim` and `ibfast token`.

The rule of the file: arguments, exit codes and what a user's mistake looks like; the work is done elsewhere. Exit
codes: 0 done, 1 it failed (a sentence on standard error says why), 2 wrong arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from ibfast import __version__
from ibfast.commands import token as token_cli
from ibfast.commands.demo import DemoOptions, demo
from ibfast.commands.serve import first_of, serve
from ibfast.commands.sim_process import Simulation
from ibfast.config.checks import MAX_PORT
from ibfast.config.sections import Config
from ibfast.errors import ConfigError, Error
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.recording import RecordedGateway, read_recording
from ibfast.sim.replay import TickFile
from ibfast.sim.universe import Universe
from ibfast.wire.ids import ServerVersion

__all__ = ["main", "run"]

READ_BYTES = 4096

SERVE_EXAMPLES = """examples:
  ibfast serve --sim                         the embedded gateway, for programs of this machine
  ibfast serve --port 7497                   your own TWS
  ibfast serve --config desk.toml            everything else: limits, the store, permissions
  ibfast serve --listen 0.0.0.0:8765 --tokens tokens.toml --certificate desk.pem --key desk.key
                                             for other machines, which need a token: ibfast token --help
  ibfast serve --origin https://desk.example.com     for the pages of a site too

The settings are those of ibfast.Config; options go before the environment (IBFAST_FANOUT_PORT=…), and that before the
file.
"""

DEMO_EXAMPLES = """examples:
  ibfast demo                                the embedded gateway, ten seconds
  ibfast demo --seconds 60 --rate 1000       for longer, and slower
  ibfast demo --port 7497 --symbols AAPL,MSFT     your own TWS (paper account)
  ibfast demo --ticks ticks.csv.gz --speed 0      recorded ticks, as fast as they can be read
"""

SIM_EXAMPLES = """examples:
  ibfast sim --port 7497                     a gateway for any client of the TWS API
  ibfast sim --server-version 176            text only, as older releases of TWS
  ibfast sim --symbols 500 --rate 20000      synthetic symbols SYM000 to SYM499
  ibfast sim --ticks ticks.csv.gz --speed 10      recorded ticks, ten times as fast
  ibfast sim --recording frames.jsonl        recorded frames, as a gateway once sent them
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
    logging.basicConfig(level=logging.ERROR, format="ibfast: %(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    command: Callable[[argparse.Namespace], Coroutine[Any, Any, int]] = arguments.command
    try:
        return run(command(arguments))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        hint = ": give another --port" if error.errno == errno.EADDRINUSE else ""
        print(f"ibfast: {error}{hint}", file=sys.stderr)
        return 1
    except Error as error:
        print(f"ibfast: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ibfast", description="Market data of Interactive Brokers as numpy records.")
    parser.add_argument("--version", action="version", version=f"ibfast {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_sim(commands)
    token_cli.add_parser(commands)
    return parser


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser(
        "serve",
        help="one gateway for any number of subscribers, over WebSockets",
        description="Connect to a gateway, stay connected, and serve its data until interrupted.",
        epilog=SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, in TOML ($IBFAST_CONFIG)")
    gateway = parser.add_argument_group("gateway")
    gateway.add_argument("--host", help="where it runs (127.0.0.1)")
    gateway.add_argument("--port", type=_port, metavar="N", help="7497, 7496, 4002, 4001, … (7497)")
    gateway.add_argument("--client-id", type=int, metavar="N", help="that no other client of it uses (1)")
    gateway.add_argument("--sim", action="store_true", help="the embedded one instead")
    subscribers = parser.add_argument_group("subscribers")
    subscribers.add_argument(
        "--listen", type=_address, metavar="HOST:PORT", help="where they come; port 0 is any free one (127.0.0.1:8765)"
    )
    subscribers.add_argument("--tokens", metavar="FILE", help="they need one of these tokens")
    subscribers.add_argument("--anonymous", action="store_true", default=None, help="they need none, wherever they are")
    subscribers.add_argument("--certificate", metavar="FILE", help="speak TLS: a PEM file")
    subscribers.add_argument("--key", metavar="FILE", help="of the certificate, if it is in a file of its own")
    subscribers.add_argument(
        "--origin",
        action="append",
        metavar="URL",
        help="of web pages that may subscribe; again for another (localhost)",
    )
    simulation = _add_simulation(parser)
    simulation.add_argument(
        "--rate", type=_more_than_0, default=500.0, metavar="N", help="market events a second (500)"
    )
    simulation.add_argument("--symbols", type=_count, default=0, metavar="N", help="add N synthetic stocks SYM000, …")
    parser.set_defaults(command=_serve)


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="market data live, from the embedded gateway or from yours",
        description="Connect to a gateway, subscribe, and show what arrives in the rings.",
        epilog=DEMO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=_more_than_0, default=10.0, metavar="S", help="how long to run (10)")
    parser.add_argument("--host", default="127.0.0.1", help="of your own gateway (127.0.0.1)")
    parser.add_argument("--port", type=_port, metavar="N", help="of your own gateway; the embedded one without it")
    parser.add_argument("--client-id", type=int, default=17, metavar="N", help="at your own gateway (17)")
    parser.add_argument("--symbols", metavar="A,B,C", help="US stocks (a few well-known ones)")
    parser.add_argument("--rate", type=_more_than_0, default=2e4, metavar="N", help="market events a second (20000)")
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
    parser.add_argument("--port", type=_port, default=7497, metavar="N", help="0 is any free one (7497)")
    parser.add_argument("--rate", type=_more_than_0, default=500.0, metavar="N", help="market events a second (500)")
    parser.add_argument(
        "--symbols", type=_count, default=0, metavar="N", help="add N synthetic stocks SYM000, SYM001, …"
    )
    parser.add_argument("--lines", type=_count, default=100, metavar="N", help="market-data lines of the account (100)")
    parser.add_argument("--no-pacing", action="store_true", help="enforce none of IB's limits")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input is closed")
    parser.add_argument("--recording", type=Path, metavar="FILE", help="play recorded frames (JSON lines) instead")
    parser.add_argument("--session", metavar="NAME", help="of --recording (its first one)")
    _add_simulation(parser)
    parser.set_defaults(command=_sim)


def _add_simulation(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
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
        "--speed", type=_0_or_more, default=1.0, metavar="N", help="of what is played: 1 as recorded, 0 full speed (1)"
    )
    return group


def _more_than_0(text: str) -> float:
    return _checked(text, float, lambda value: value > 0, "a number, more than 0")


def _0_or_more(text: str) -> float:
    return _checked(text, float, lambda value: value >= 0, "a number, 0 or more")


def _count(text: str) -> int:
    return int(_checked(text, int, lambda value: value >= 0, "a whole number, 0 or more"))


def _port(text: str) -> int:
    return int(_checked(text, int, lambda value: 0 <= value <= MAX_PORT, f"a port, 0 to {MAX_PORT}"))


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or (":" in host and not text.startswith("[")):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8765 or [::1]:8765")
    return host, _port(port)


def _checked(text: str, kind: type[int] | type[float], valid: Callable[[float], bool], what: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


async def _serve(arguments: argparse.Namespace) -> int:
    host, port = arguments.listen or (None, None)
    config = Config.load(
        arguments.config,
        host=arguments.host,
        port=arguments.port,
        client_id=arguments.client_id,
        fanout={"host": host, "port": port},
        security={
            "tokens_file": arguments.tokens,
            "allow_anonymous": arguments.anonymous,
            "certificate_file": arguments.certificate,
            "key_file": arguments.key,
            "origins": arguments.origin,
        },
    )
    if not arguments.sim:
        if arguments.ticks is not None or arguments.symbols:
            raise ConfigError("--ticks and --symbols are for the embedded gateway: give --sim too")
        return await serve(config)
    if arguments.host is not None or arguments.port is not None:
        raise ConfigError("--sim is a gateway of its own: leave --host and --port out")
    return await serve(
        config,
        Simulation(
            rate=arguments.rate,
            symbols=arguments.symbols,
            server_version=arguments.server_version,
            seed=arguments.seed,
            ticks=arguments.ticks,
            speed=arguments.speed,
            lines=config.pacing.lines if config.pacing.enforced else None,
        ),
    )


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
    if arguments.recording is not None:
        async with _recorded_gateway(arguments) as recorded:
            return await _until_end(arguments, recorded.port, asyncio.Event().wait())
    gateway = Gateway(
        arguments.host,
        arguments.port,
        server_version=arguments.server_version,
        market=_market(arguments),
        pacing=not arguments.no_pacing,
        lines=arguments.lines,
    )
    async with gateway:
        return await _until_end(arguments, gateway.port, gateway.serve_forever())


async def _until_end(arguments: argparse.Namespace, port: int, serving: Coroutine[Any, Any, object]) -> int:
    """Say where the gateway listens, and let it serve until it breaks or, if so asked, standard input is closed."""
    print(f"listening on {arguments.host}:{port}", flush=True)
    await first_of(serving, *([_standard_input_closed()] if arguments.until_eof else ()))
    return 0


def _recorded_gateway(arguments: argparse.Namespace) -> RecordedGateway:
    sessions = read_recording(arguments.recording)
    name = arguments.session or next(iter(sessions), "")
    if name not in sessions:
        raise ConfigError(f"{arguments.recording} has no session {name!r}; it has: {', '.join(sessions)}")
    return RecordedGateway(sessions[name], arguments.host, arguments.port, speed=arguments.speed)


def _market(arguments: argparse.Namespace) -> Market | TickFile:
    if arguments.ticks is not None:
        return TickFile(arguments.ticks, speed=arguments.speed)
    return Market(Universe.builtin(symbols=arguments.symbols), seed=arguments.seed, rate=arguments.rate)


async def _standard_input_closed() -> None:
    # A daemon: an executor's thread would hold up the end of the program until the input ends.
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        while os.read(descriptor, READ_BYTES):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended first
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read, daemon=True).start()
    await closed.wait()
