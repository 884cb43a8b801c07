"""The command line of the benchmarks: one subcommand each, from the modules in `BENCHMARKS`."""

from __future__ import annotations

import argparse
import sys

try:
    from benchmarks import bandwidth, chaos, decode, endtoend, fanout, faults, hostile, soak
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] in ("benchmarks", "tests"):
        raise  # a fault of ours, or not started in the checkout: no installation helps
    install = f"{sys.executable} -m pip install -e . --group test"
    sys.exit(
        f"the benchmarks need {missing.name}: in the checkout, `make benchmarks`, or (pip 25.1 or later) {install}"
    )

BENCHMARKS = {
    "bandwidth": bandwidth,
    "chaos": chaos,
    "decode": decode,
    "endtoend": endtoend,
    "fanout": fanout,
    "faults": faults,
    "hostile": hostile,
    "soak": soak,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark that the arguments name and return the exit code: 0 only if every result was verified."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        summary, _, description = module.__doc__.partition("\n\n")
        command = commands.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
    options = parser.parse_args(arguments)
    return BENCHMARKS[options.benchmark].run(options)


if __name__ == "__main__":
    sys.exit(main())
