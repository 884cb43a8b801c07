"""Clients of IB's that we did not write, each in an environment of its own, since two share an import name.

Environments live in <checkout>/.oracles and are made from PyPI on first use. `Oracle` is a process that runs one of our
scripts there and answers JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ORACLES = ROOT / ".oracles"

OLD_CLIENT = "ibapi==9.81.1.post1"
NEW_CLIENT = "ibapi-latest==10.51.1"
ASYNC_CLIENT = "ib_async==2.1.0"

_POLL_S = 0.2
_LOCK_TIMEOUT_S = 300


def python_with(*requirements: str) -> Path:
    """Return the interpreter of an environment that has these packages; make it if there is none."""
    home = ORACLES / re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(requirements))
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = home / "complete"
    if not done.exists():
        ORACLES.mkdir(exist_ok=True)
        with _locked(home.with_name(home.name + ".lock")):
            if not done.exists():
                venv.create(home, clear=True)
                pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
                subprocess.run([*pip, "install", "--quiet", "--no-compile", *requirements], check=True)
                done.touch()
    return python


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The system releases the lock of a process that dies.
    with path.open("w") as file:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is held by another process")
            time.sleep(_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class OracleError(Exception):
    """The client that was asked raised."""


class Oracle:
    """A script that runs in an environment with other packages, and answers one JSON line with one."""

    def __init__(self, script: str, *requirements: str) -> None:
        command = [python_with(*requirements), "-u", Path(__file__).with_name(script)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        )

    def ask(self, **question: Any) -> Any:
        """Send a question and return the answer.

        Raises:
            OracleError: the client raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the oracle died; see its traceback above"
        reply = json.loads(line)
        if "raised" in reply:
            raise OracleError(reply["raised"])
        return reply["answer"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
