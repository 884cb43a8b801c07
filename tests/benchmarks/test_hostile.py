"""The benchmark of hostile subscribers runs, and judges what the honest one saw."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import hostile
from benchmarks.hostile.kinds import KINDS
from benchmarks.hostile.report import Line, Report, Times

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120.0
CALM: dict[str, Any] = {"gap": 40.0, "delay": 12.0, "answer": 5.0, "subscribe": 60.0, "refused": []}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")


def line_of(**hostile: Any) -> Line:
    return Line.of("some kind", [(Times(**CALM), Times(**(CALM | hostile)))])


@pytest.mark.parametrize(("name", "most"), [("gap", 140.0), ("delay", 46.0), ("answer", 105.0), ("subscribe", 1060.0)])
def test_a_figure_passes_up_to_its_limit(name: str, most: float) -> None:
    assert not line_of(**{name: most}).problems
    (problem,) = line_of(**{name: most + 1}).problems
    assert problem.startswith(f"some kind: {name} {most + 1:.0f} ms")


def test_a_turn_without_any_data_fails() -> None:
    assert line_of(delay=float("nan")).problems


def test_what_the_honest_subscriber_is_refused_is_a_problem_even_without_hostile_ones() -> None:
    calm = Times(**(CALM | {"refused": ["lag: slow"]}))
    assert Line.of("some kind", [(calm, Times(**CALM))]).problems == [
        "some kind: the honest subscriber was sent: lag: slow"
    ]


def test_figures_are_medians_so_that_one_turn_of_a_busy_machine_decides_nothing() -> None:
    pairs = [(Times(**CALM), Times(**(CALM | {"gap": gap}))) for gap in (50.0, 900.0, 60.0)]
    line = Line.of("some kind", pairs)
    assert line.hostile["gap"] == 60.0
    assert not line.problems


def test_errors_of_the_server_are_problems() -> None:
    report = Report([line_of()], ["KeyError (3 times)"])
    assert report.problems == ["KeyError (3 times)"]
    assert "PROBLEM: KeyError" in report.text()
    assert json.loads(json.dumps(report.row()))["problems"] == report.problems


def test_a_short_run_goes_through() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "hostile", "--quick", "--json"],
        cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert [line["kind"] for line in report["lines"]] == hostile.QUICK["only"]
    assert report["errors"] == []
    for line in report["lines"]:
        assert all(value > 0 for value in line["calm"].values())


@pytest.mark.parametrize(
    ("arguments", "message"), [(("--seconds", "0"), "more than 0"), (("--rounds", "0"), "more than 0")]
)
def test_what_can_not_be_measured_is_said(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    hostile.add_arguments(parser)
    assert hostile.run(parser.parse_args(arguments)) == 2
    assert message in capsys.readouterr().err


def test_the_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    hostile.add_arguments(parser)
    assert hostile.run(parser.parse_args(["--list"])) == 0
    assert [line[:24].strip() for line in capsys.readouterr().out.splitlines()] == list(KINDS)
