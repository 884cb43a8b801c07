"""The fuzz targets without a fuzzer: their corpora and seeded mutations of them, through the normal build.

`fuzz/run.sh` does the same with coverage to guide it and sanitizers to watch.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz import frames_target, make_corpus, target

CORPUS = sorted(make_corpus.CORPUS.iterdir())
FRAMES_CORPUS = sorted(make_corpus.FRAMES_CORPUS.iterdir())
MUTATIONS = 200
FRAMES_MUTATIONS = 20
"""The second decoder is slow."""
INTERESTING = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff" * 9 + b"\x01",
    b"-",
    b".",
    b"e",
    b"+",
    b"2147483648",
    b"9" * 25,
    b"1e400",
    b"nan",
    b"inf",
    b";",
    b"\0\0\0\x151\x006\0",
    b"\0\0\0\x18\0\0\0\xc9",
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change a few places of an input: flip, cut, repeat, insert."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        start = rng.randrange(len(out) + 1)
        end = min(len(out), start + rng.choice((0, 1, 1, 2, 8, 40)))
        change = rng.choice(("flip", "cut", "repeat", "insert", "random"))
        if change == "flip" and start < len(out):
            out[start] ^= 1 << rng.randrange(8)
        elif change == "cut":
            del out[start:end]
        elif change == "repeat":
            out[start:start] = out[start:end] * rng.choice((1, 3, 20))
        elif change == "insert":
            out[start:start] = rng.choice(INTERESTING)
        else:
            out[start:end] = rng.randbytes(end - start)
    return bytes(out)


def test_the_corpora_are_what_their_script_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corpora = {"CORPUS": CORPUS, "FRAMES_CORPUS": FRAMES_CORPUS}
    for name in corpora:
        monkeypatch.setattr(make_corpus, name, tmp_path / name)
    make_corpus.main()
    for name, paths in corpora.items():
        written = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert written == {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_and_its_mutations(path: Path) -> None:
    rng = random.Random(path.name)
    data = path.read_bytes()
    target.check(data)
    for _ in range(MUTATIONS):
        target.check(mutated(data, rng))


@pytest.mark.parametrize("path", FRAMES_CORPUS, ids=lambda path: path.name)
def test_the_corpus_of_frames_and_its_mutations(path: Path) -> None:
    rng = random.Random(path.name)
    data = path.read_bytes()
    frames_target.check(data)
    for _ in range(FRAMES_MUTATIONS):
        frames_target.check(mutated(data, rng))


def test_streams_of_nothing_but_noise() -> None:
    rng = random.Random(0)
    for _ in range(300):
        target.check(rng.randbytes(rng.randrange(200)))


def test_the_checks_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "DERIVED_KINDS", ())
    with pytest.raises(AssertionError):
        target.check((make_corpus.CORPUS / "tick_price_176").read_bytes())
