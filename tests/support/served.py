"""`ibfast serve` in a process of its own, and its pages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.loops import WATCHDOG_S

__all__ = ["ANYWHERE", "IBFAST", "SOON", "Served", "served"]

IBFAST = [sys.executable, "-u", "-m", "ibfast"]
ANYWHERE = ("--listen", "127.0.0.1:0")
SOON = {
    "IBFAST_RECONNECTION_DELAY_S": "0.01",
    "IBFAST_RECONNECTION_MAX_DELAY_S": "0.02",
    "IBFAST_BREAKER_OPEN_S": "0.05",
}


class Served:
    """A process that serves.

    Attributes:
        said: what it said of itself on standard output, by the first word of each line.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: dict[str, str] = {}
        assert process.stdout is not None
        while "try" not in self.said:
            line = process.stdout.readline()
            assert line, process.communicate()
            word, _, rest = line.strip().partition(" ")
            self.said[word] = rest.strip()

    def get(
        self, page: str, *, token: str = "", method: str = "GET", host: str = "", context: Any = None
    ) -> tuple[int, str]:
        """Read a page: its status and its content."""
        headers = ({"Authorization": f"Bearer {token}"} if token else {}) | ({"Host": host} if host else {})
        url = self.said.get(page) or self.said["health"].replace("healthz", page)
        request = urllib.request.Request(url, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WATCHDOG_S, context=context) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("health")[1])
        return found

    def until_healthy(self) -> None:
        deadline_s = time.monotonic() + WATCHDOG_S
        while not self.health()["ok"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal: the exit code and what was said on standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=WATCHDOG_S)
        assert "Traceback" not in errors
        assert "Warning" not in errors
        return self.process.returncode, errors


@contextlib.contextmanager
def served(*arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Served]:
    pipe = subprocess.PIPE
    command = [*IBFAST, "serve", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IBFAST_")}
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", env=environment | SOON | dict(environ or {})
    ) as process:
        try:
            yield Served(process)
        finally:
            process.kill()
