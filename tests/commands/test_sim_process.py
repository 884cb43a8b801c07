"""The embedded gateway is this very ibfast, whatever the current folder holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ibfast
from ibfast import Config, IBKRConnectionManager
from ibfast.commands.sim_process import HOST, Simulation, embedded_gateway
from tests.support.loops import Run

PACKAGE = Path(ibfast.__file__).parent
TIMEOUT_S = 60.0
WRONG = "raise SystemExit('the module of the current folder was imported')"
CLI_OF_THE_COPY = """
import sys

def main():
    print("listening on here:12345", flush=True)
    sys.stdin.read()
"""
PARENT = """
import asyncio
from ibfast.commands.sim_process import Simulation, embedded_gateway

async def main():
    async with embedded_gateway(Simulation()) as gateway:
        print(gateway.port)

asyncio.run(main())
"""


@pytest.mark.parametrize("name", ["queue.py", "numpy/__init__.py", "ibfast/__init__.py"])
def test_nothing_is_imported_from_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    module = tmp_path / name
    module.parent.mkdir(exist_ok=True)
    module.write_text(WRONG)
    monkeypatch.chdir(tmp_path)

    async def test() -> None:
        async with (
            embedded_gateway(Simulation(lines=100)) as gateway,
            IBKRConnectionManager(Config(host=HOST, port=gateway.port)) as manager,
        ):
            assert manager.connected

    run(test())


def test_the_gateway_is_of_the_same_ibfast_as_its_parent(tmp_path: Path) -> None:
    """The parent finds a copy of ibfast in its current folder, before the installed one."""
    copy = tmp_path / "ibfast"
    copy.mkdir()
    for path in PACKAGE.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "commands").unlink()
    (copy / "commands").mkdir()
    for path in (PACKAGE / "commands").glob("*.py"):
        (copy / "commands" / path.name).symlink_to(path)
    (copy / "commands" / "main.py").unlink()
    (copy / "commands" / "main.py").write_text(CLI_OF_THE_COPY)
    done = subprocess.run(
        [sys.executable, "-c", PARENT], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "12345\n", "")
