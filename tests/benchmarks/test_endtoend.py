"""The end-to-end benchmark runs; it finds rows that are missing, wrong, or told wrongly, and nothing else."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import endtoend
from benchmarks.endtoend.judge import Connection, Truth, Verdict, read
from benchmarks.endtoend.report import Report
from benchmarks.endtoend.rig import Load, Turn
from benchmarks.endtoend.subscribers import BINARY, CLOSE, ENDED, RECORD, TEXT, Record, records
from ibfast.codec.spec import ChannelSpec, lag_frame
from tests.support.delta_streams import encoded, encoder_of, last_seq, messages, random_rows

ROOT = Path(__file__).parents[2]
SPAN_NS = 10_000_000
SPECS = [ChannelSpec(instrument, ("quotes",), span_ns=SPAN_NS, interval_class=2) for instrument in (3, 5)]
START_NS = 1_770_000_000 * 10**9
TURN_ROWS = 40
TIMEOUT_S = 120.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")


class Story:
    """Rows of a ring, and what a subscriber of two channels is sent of them, in three parts.

    Attributes:
        parts: rows of the ring.
        sent: messages, by part; the first begins with the state.
        states: messages that tell the state after each part, a message for each channel.
    """

    def __init__(self) -> None:
        rng = random.Random(1)
        encoder, audience = encoder_of(SPECS)
        self.seqs = [0]
        self.parts: list[NDArray[Any]] = []
        self.sent: list[list[bytes]] = []
        self.states: list[list[bytes]] = []
        first = messages(b"".join(encoder.snapshot(number, number, START_NS) for number in range(len(SPECS))))
        for part in range(3):
            rows = random_rows(rng, SPECS, TURN_ROWS, START_NS + part * 10 * SPAN_NS, self.seqs[-1] + 1)
            frames = encoded(encoder, audience, rows)
            self.parts.append(rows["quotes"])
            self.sent.append([*(first if not part else ()), *messages(b"".join(frames))])
            self.states.append(
                messages(b"".join(encoder.snapshot(number, number, START_NS) for number in range(len(SPECS))))
            )
            self.seqs.append(last_seq(rows))
        self.everything = [message for part in self.sent for message in part]
        self.truth = Truth(self.parts)

    def lags(self, rows: int | None = None) -> list[bytes]:
        """The messages that tell that the second part was left out."""
        counts = [int(np.count_nonzero(self.parts[1]["instrument"] == spec.instrument)) for spec in SPECS]
        frames = (
            lag_frame(number, "slow", self.seqs[1], self.seqs[2], count if rows is None else rows)
            for number, count in enumerate(counts)
        )
        return messages(b"".join(frames))


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


def connection_of(sent: Sequence[bytes]) -> Connection:
    channels = [{"channel": number, "symbol": "X", **spec.described()} for number, spec in enumerate(SPECS)]
    connection = Connection()
    connection.take(Record(0, TEXT, 0, json.dumps({"op": "subscribed", "channels": channels}).encode()))
    for number, payload in enumerate(sent):
        connection.take(Record(0, BINARY, START_NS + number, payload))
    return connection


def judged(story: Story, sent: Sequence[bytes]) -> Verdict:
    return connection_of(sent).judge(story.truth)


# --- rows ---


def test_what_came_as_it_was_is_delivered(story: Story) -> None:
    verdict = judged(story, story.everything)
    assert verdict == Verdict(delivered=3 * TURN_ROWS)


def test_what_was_left_out_and_told_is_told(story: Story) -> None:
    verdict = judged(story, [*story.sent[0], *story.lags(), *story.states[1], *story.sent[2]])
    assert verdict == Verdict(delivered=2 * TURN_ROWS, told=TURN_ROWS, lags=len(SPECS))


def test_what_was_left_out_untold_is_found(story: Story) -> None:
    verdict = judged(story, [*story.sent[0], *story.states[1], *story.sent[2]])
    assert (verdict.unreported, verdict.told) == (TURN_ROWS, 0)


def test_a_wrong_count_of_what_was_left_out_is_found(story: Story) -> None:
    verdict = judged(story, [*story.sent[0], *story.lags(rows=1), *story.states[1], *story.sent[2]])
    assert len(verdict.faults) == len(SPECS)


def test_a_state_that_comes_later_than_the_lag_ends_is_found(story: Story) -> None:
    verdict = judged(story, [*story.sent[0], *story.lags(), *story.states[2]])
    assert verdict.unreported == TURN_ROWS


def test_a_row_with_another_value_is_found(story: Story) -> None:
    changed = story.parts[1].copy()
    changed["bid"][7] = np.nextafter(1.0, 2.0)
    connection = connection_of(story.everything)
    verdict = connection.judge(Truth([story.parts[0], changed, story.parts[2]]))
    assert (verdict.delivered, verdict.wrong, verdict.unreported) == (3 * TURN_ROWS - 1, 1, 0)


def test_a_row_that_the_ring_has_not_is_found(story: Story) -> None:
    connection = connection_of(story.everything)
    verdict = connection.judge(Truth([story.parts[0][1:], *story.parts[1:]]))
    assert verdict.wrong == 1


def test_what_can_not_be_decoded_is_a_fault(story: Story) -> None:
    damaged = story.sent[1][-1][:-1]
    verdict = judged(story, [*story.sent[0], damaged])
    assert len(verdict.faults) == 1


def test_latencies_are_those_of_the_time_asked_for(story: Story) -> None:
    connection = connection_of(story.sent[0])
    rows, windows = connection.latencies(START_NS, START_NS + 10 * SPAN_NS)
    assert rows.counts.sum() == TURN_ROWS
    assert 0 < windows.counts.sum() <= TURN_ROWS
    assert not connection.latencies(0, START_NS)[0].counts.sum()
    nbytes, ticks = connection.size(START_NS, START_NS + 10 * SPAN_NS)
    assert ticks == TURN_ROWS
    assert nbytes > 0


def test_the_file_of_records_is_read(tmp_path: Path) -> None:
    file = tmp_path / "records"
    written = [
        Record(0, TEXT, 1, b'{"op":"slowed"}'),
        Record(7, CLOSE, 2, b"\x03\xf0TOO_SLOW"),
        Record(7, ENDED, 3, b""),
    ]
    packed = [RECORD.pack(r.connection, r.opcode, r.time_ns, len(r.payload)) + r.payload for r in written]
    file.write_bytes(b"".join(packed))
    assert list(records(file)) == written
    connections = read(records(file))
    assert connections[0].ops == {"slowed": 1}
    assert (connections[0].ending, connections[7].ending) == ("", "1008 TOO_SLOW")


# --- the report ---


def report_of(story: Story, other: Connection, stalled: Connection, *, still_open: int = 1, mb: float = 0.0) -> Report:
    load = Load(subscribers=2, stalled=1, symbols=2, each=2, rate=1.0, interval_ms=10, seconds=1.0, seed=1)
    turns = [
        Turn(
            is_stalled=number == 1,
            stalled=range(number + 1, number + 2),
            begin_ns=START_NS,
            end_ns=START_NS + 10**9,
            cpu={"server": 0.1, "gateway": 0.1, "subscribers": 0.1},
            own_mb=(50.0, 50.0 + mb, 50.0 + mb),
            open=still_open,
            frames=10,
        )
        for number in range(2)
    ]
    reading = connection_of(story.everything)
    connections = {0: other, 1: reading, 2: stalled}
    return Report.of(load, turns, connections, story.truth, joined_s=1.0, unseen=0, errors=[])


def test_a_loss_of_those_who_stall_is_no_problem_if_it_is_told(story: Story) -> None:
    stalled = connection_of([*story.sent[0], *story.lags(), *story.states[1], *story.sent[2]])
    report = report_of(story, connection_of(story.everything), stalled)
    assert report.problems == []
    assert report.text().endswith("everything was as it must be")
    assert json.loads(json.dumps(report.row()))["stalled"]["told"] == TURN_ROWS


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"still_open": 0}, "1 of the others were disconnected by the end of turn 1"),
        ({"mb": 17.0}, "the server's memory grew by 17.0 MB"),
    ],
)
def test_others_who_are_gone_and_memory_that_grows_are_problems(
    story: Story, change: dict[str, Any], problem: str
) -> None:
    stalled = connection_of([*story.sent[0], *story.lags(), *story.states[1], *story.sent[2]])
    report = report_of(story, connection_of(story.everything), stalled, **change)
    assert problem in report.problems


def test_a_loss_of_the_others_is_a_problem_even_if_it_is_told(story: Story) -> None:
    lagging = [*story.sent[0], *story.lags(), *story.states[1], *story.sent[2]]
    report = report_of(story, connection_of(lagging), connection_of(lagging))
    assert any("the others lost" in problem for problem in report.problems)


def test_a_stall_without_a_loss_proves_nothing(story: Story) -> None:
    report = report_of(story, connection_of(story.everything), connection_of(story.everything))
    assert report.problems == ["nobody who stalled was told of a loss"]


# --- the whole ---


def test_nothing_is_lost_untold_from_a_gateway_to_subscribers_some_of_whom_stall() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "endtoend", "--quick", "--json"],
        cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["problems"] == []
    assert [line["is_stalled"] for line in report["lines"]] == [False, True]
    assert report["others"]["delivered"] > 0
    assert report["others"]["told"] == 0
    assert report["stalled"]["told"] > 0
    assert sum(report["endings"].values()) == endtoend.QUICK["stalled"]
    assert report["endings"]["cut off"] > 0
    for line in report["lines"]:
        assert line["bytes_per_tick"] > 0
        assert line["p50_ms"] <= line["p99_ms"]


def test_ctrl_c_ends_it_with_the_figures_so_far() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "endtoend", "--quick", "--json"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert any("turn 1 of" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert len(report["lines"]) in (1, 2)
    assert report["others"]["delivered"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--each", "101"), "--each is 1 to --symbols"),
        (("--stalled", "1000"), "--stalled is 1 or more"),
        (("--seconds", "0"), "more than 0"),
    ],
)
def test_what_can_not_be_measured_is_said(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    endtoend.add_arguments(parser)
    assert endtoend.run(parser.parse_args(arguments)) == 2
    assert message in capsys.readouterr().err


def test_more_files_than_the_system_allows_are_said_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    endtoend.add_arguments(parser)
    assert endtoend.run(parser.parse_args(("--subscribers", str(1 << 40)))) == 1
    assert "ulimit -Hn" in capsys.readouterr().err
