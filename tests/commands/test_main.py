"""The command line: help, mistakes, interruption; as processes, and further mistakes by a call of what one runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ibfast import __version__
from ibfast.commands.main import main


def ibfast(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ibfast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "ibfast", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


def test_help_shows_examples() -> None:
    for command in ("serve", "demo", "sim"):
        shown = ibfast(command, "--help")
        assert shown.returncode == 0
        assert f"ibfast {command} --" in shown.stdout.partition("examples:")[2]


def test_version() -> None:
    assert ibfast("--version").stdout.strip() == f"ibfast {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("dance",),
        ("demo", "--seconds", "0"),
        ("sim", "--port", "x"),
        ("demo", "--speed", "-1"),
        ("demo", "--port", "70000"),
        ("serve", "--listen", "8765"),
        ("serve", "--listen", ":8765"),
        ("serve", "--listen", "::1:8765"),
        ("serve", "--listen", "127.0.0.1:x"),
        ("serve", "--port", "x"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_process_without_arguments_exits_with_2() -> None:
    done = ibfast()
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sim", "--port", "0", "--server-version", "99"), "157"),
        (("sim", "--port", "0", "--ticks", "no/such/file.csv"), "no/such/file.csv"),
        (("demo", "--ticks", "no/such/file.csv"), "no/such/file.csv"),
        (("demo", "--port", "7497", "--ticks", "ticks.csv"), "--ticks"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], complaint: str) -> None:
    done = ibfast(*arguments)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.startswith("ibfast: ")
    assert "Traceback" not in done.stderr


def test_nothing_listening_is_said_with_a_remedy() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = ibfast("demo", "--port", str(bound.getsockname()[1]))
    assert done.returncode == 1
    assert "nothing listens" in done.stderr
    assert "log in" in done.stderr


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        done = ibfast("sim", "--port", str(bound.getsockname()[1]))
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal on POSIX only")
def test_ctrl_c_ends_the_gateway_cleanly() -> None:
    with running("sim", "--port", "0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in errors


def test_the_gateway_stops_with_its_standard_input() -> None:
    with running("sim", "--port", "0", "--until-eof") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on ")
        _, errors = process.communicate(input="", timeout=30)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal on POSIX only")
def test_ctrl_c_ends_the_demo_cleanly_and_takes_the_gateway_along() -> None:
    with running("demo", "--seconds", "60") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("connected to ")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in errors
