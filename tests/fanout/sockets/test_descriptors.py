"""The limit of descriptors: raised where that may be, and said with its remedy where not. In processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ibfast.fanout.server import MOST_REFUSED
from ibfast.fanout.sockets.descriptors import OTHERS
from tests.support.served import ANYWHERE, IBFAST, served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no such limit")

PROGRAM = """
import resource, sys
wanted, soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from ibfast.errors import ConfigError
from ibfast.fanout.sockets.descriptors import connections_possible
try:
    print(*connections_possible(wanted, 64), sep="|", end="|")
except ConfigError as error:
    print(error, end="|")
print(*resource.getrlimit(resource.RLIMIT_NOFILE), sep="|")
"""


def possible(wanted: int, soft: int, hard: int) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, (wanted, soft, hard))]
    return subprocess.check_output(command, text=True).strip().split("|")


@pytest.mark.parametrize(
    ("soft", "hard", "after"), [(256, 4096, 100 + 64 + OTHERS), (1024, 4096, 1024), (420, 420, 420)]
)
def test_the_limit_is_raised_to_what_is_needed(soft: int, hard: int, after: int) -> None:
    assert possible(100, soft, hard) == ["100", "", str(after), str(hard)]


def test_a_limit_that_can_t_be_raised_is_told_with_the_remedy() -> None:
    connections, warning, soft, _ = possible(2000, 256, 400)
    assert (connections, soft) == ("80", "400")
    assert warning == (
        "security.max_connections=2000 needs 2320 descriptors, and the system permits this process 400: 80 connections "
        "are served; raise the limit to 2320 (ulimit -n, LimitNOFILE of systemd), or set max_connections=80"
    )


def test_no_connection_at_all_is_a_mistake() -> None:
    error, soft, _ = possible(1, 200, 200)
    assert error == (
        "security.max_connections=1 needs 321 descriptors, and the system permits this process 200, too few for any "
        "connection: raise the limit to 321 (ulimit -n, LimitNOFILE of systemd)"
    )
    assert soft == "200"


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the system does not tell of limits")
def test_the_command_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = ["/bin/sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh", *IBFAST]
    monkeypatch.setattr("tests.support.served.IBFAST", limited)
    with served("--sim", *ANYWHERE, environ={"IBFAST_SECURITY_MAX_CONNECTIONS": "300"}) as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
        assert int(line.split()[3]) == 300 + MOST_REFUSED + OTHERS
