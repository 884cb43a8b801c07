"""What is planned for a stream of frames happens at the very byte, however the bytes are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.sim.tamper import Corruption, Ending, Tamper
from tests.support.streams import framed

FRAMES = [bytes([number]) * (5 + number) for number in range(20)]
WIRE = framed(*FRAMES)


@pytest.mark.parametrize("plan", [{}, {"after_frames": 1, "after_bytes": 1}, {"after_frames": -1}])
def test_a_corruption_begins_with_a_frame(plan: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="after_frames"):
        Tamper().plan(Corruption.GARBAGE, **plan)


pieces = st.lists(st.integers(1, 40), min_size=1)


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    out, at = [], 0
    while at < len(data):
        size = sizes[len(out) % len(sizes)]
        out.append(data[at : at + size])
        at += size
    return out


@given(pieces, st.integers(0, 19), st.integers(0, 8))
def test_the_point_does_not_depend_on_how_bytes_are_read(sizes: list[int], frames: int, nbytes: int) -> None:
    tamper, passed = Tamper(), b""
    tamper.plan(Ending.RESET, after_frames=frames, after_bytes=nbytes)
    for piece in in_pieces(WIRE, sizes):
        data, ending = tamper.pass_on(piece)
        passed += data
        if ending:
            break
    else:
        raise AssertionError("it never ended")
    assert passed == WIRE[: len(framed(*FRAMES[:frames])) + nbytes]


@given(pieces, st.integers(0, 19), st.sampled_from([Corruption.IMPOSSIBLE_LENGTH, Corruption.WRONG_LENGTH]))
def test_a_length_that_is_split_is_corrupted_too(sizes: list[int], frames: int, corruption: Corruption) -> None:
    tamper = Tamper()
    tamper.plan(corruption, after_frames=frames)
    data = b"".join(tamper.pass_on(piece)[0] for piece in in_pieces(WIRE, sizes))
    assert [at for at, (a, b) in enumerate(zip(data, WIRE, strict=True)) if a != b] == [
        len(framed(*FRAMES[:frames])) + (0 if corruption is Corruption.IMPOSSIBLE_LENGTH else 2)
    ]


@given(pieces)
def test_without_a_plan_nothing_changes(sizes: list[int]) -> None:
    tamper = Tamper()
    assert b"".join(tamper.pass_on(piece)[0] for piece in in_pieces(WIRE, sizes)) == WIRE
    tamper.plan(Ending.CUT, after_frames=0)
    tamper.cancel()
    assert tamper.pass_on(WIRE) == (WIRE, None)


@given(pieces, st.integers(0, 19))
def test_garbage_begins_with_a_frame_and_never_ends(sizes: list[int], frames: int) -> None:
    tamper = Tamper()
    tamper.plan(Corruption.GARBAGE, after_frames=frames)
    data = b"".join(tamper.pass_on(piece)[0] for piece in in_pieces(WIRE, sizes))
    whole = len(framed(*FRAMES[:frames]))
    assert (len(data), data[:whole]) == (len(WIRE), WIRE[:whole])
    assert data[whole:] != WIRE[whole:]
    tamper.cancel()
    assert tamper.pass_on(WIRE)[0] != WIRE


def test_a_newer_plan_replaces_the_older_one() -> None:
    tamper = Tamper()
    tamper.plan(Ending.RESET, after_frames=1)
    tamper.plan(Ending.CUT, after_bytes=3)
    assert tamper.pass_on(WIRE) == (WIRE[:3], Ending.CUT)
