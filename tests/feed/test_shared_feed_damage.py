"""A shared feed whose memory another process has overwritten: errors and wrong rows, never a signal.

Each run is a process of its own: it overwrites words at random, before or after the feed is attached, and then looks at
everything. Only its exit status says that nothing was read beyond the memory.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ibfast.feed.view as view_module
from ibfast import Decoder, Feed
from ibfast.errors import FeedError
from ibfast.feed.feed import FeedView
from ibfast.feed.layout import HEADER, RINGS, FeedLayout
from ibfast.feed.segment import Segment
from tests.support.streams import TICK_BY_TICK, framed, text_payload

VERSION = 176
BOUNDS = (16, 8, 64)
LAYOUT = FeedLayout(*BOUNDS)
ROUNDS = 150
TIMEOUT_S = 120.0
WORDS = (0, 1, 2, 3, 15, 16, 17, 64, 255, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)
"""What is written: sizes and positions that are near, far, and beyond what their sums can hold."""


def make_feed(name: str) -> Feed:
    capacity, max_instruments, max_texts = BOUNDS
    return Feed(capacity, name=name, max_instruments=max_instruments, max_texts=max_texts)


def trades(start: int, count: int) -> bytes:
    return framed(
        *(
            text_payload(VERSION, TICK_BY_TICK, n % 12, 1, n, n + 0.5, n, 0, f"X{n}", "")
            for n in range(start, start + count)
        )
    )


def places(dice: random.Random) -> list[int]:
    """Return where to write: mostly the words that sizes and positions are in, sometimes anywhere."""
    starts = {part: start for part, (start, _) in LAYOUT.parts.items()}
    words = [
        *range(0, HEADER.itemsize, 8),
        *range(starts["control"], starts["control"] + 40, 8),
        *range(starts["text_offsets"], starts["text_offsets"] + 64, 8),
        *range(starts["instruments"], starts["instruments"] + 128, 8),
        *range(starts["last"], starts["last"] + 64, 8),
        *(starts[ring] + offset for ring in RINGS for offset in (0, 8, 64, 72, 128)),
    ]
    return dice.sample(words, dice.randint(1, 4)) + [
        dice.randrange(0, LAYOUT.total_bytes, 8) for _ in range(dice.randint(0, 3))
    ]


def overwrite(path: Path, dice: random.Random) -> None:
    with path.open("r+b") as file:
        for offset in places(dice):
            file.seek(offset)
            file.write(dice.choice([*WORDS, dice.getrandbits(64)]).to_bytes(8, "little"))


def look(view: FeedView, dice: random.Random) -> None:
    """Look at all that a reader can see; errors are right, and no more rows than the rings have."""
    looks: list[Callable[[], object]] = [
        lambda: list(view.texts),
        lambda: list(view.instruments),
        lambda: view.instruments.index("none"),
        lambda: view.instruments.con_id(dice.randrange(BOUNDS[1])),
        lambda: len(view.snapshot()),
        lambda: repr(view),
    ]
    for attempt in looks:
        try:
            attempt()
        except (FeedError, IndexError, KeyError):
            continue
    for ring in view.rings.values():
        for start in ("oldest", "next"):
            try:
                reader = ring.reader(start)
                assert len(reader.read(dice.choice([None, 1, 1000]))) <= BOUNDS[0]
                with reader.borrowed() as batch:
                    assert len(batch.rows.tobytes()) <= BOUNDS[0] * ring.dtype.itemsize
                reader.wait(0)
            except FeedError:
                continue
    assert len(view.last) == BOUNDS[1]


def damage_readers(name: str, dice: random.Random) -> None:
    with make_feed(name) as feed:
        Decoder(feed, server_version=VERSION).feed_bytes(trades(0, 40))
        whole = Segment.path_of(name).read_bytes()
    path = Segment.path_of(name)
    attached = 0
    for _ in range(ROUNDS):
        path.write_bytes(whole)
        path.chmod(0o600)
        early = dice.random() < 0.5
        if early:
            overwrite(path, dice)
        try:
            view = Feed.attach(name)
        except FeedError:
            continue
        attached += 1
        if not early:
            look(view, dice)
            overwrite(path, dice)
        look(view, dice)
        path.unlink()
    assert attached > ROUNDS / 4


def damage_the_writer(name: str, dice: random.Random) -> None:
    for _ in range(ROUNDS // 10):
        with make_feed(name) as feed:
            decoder = Decoder(feed, server_version=VERSION)
            for n in range(10):
                decoder.feed_bytes(trades(10 * n, 10))
                overwrite(Segment.path_of(name), dice)
                look(feed, dice)
                feed.text_id(f"Z{n}")
                with contextlib.suppress(FeedError):
                    feed.bind(n, feed.add_instrument(f"Y{n}"))


@pytest.mark.skipif(sys.platform == "win32", reason="no named memory")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("damage", [damage_readers, damage_the_writer])
def test_damaged_memory_ends_no_process(damage: Callable[[str, random.Random], None], seed: int) -> None:
    name = f"test-damage-{os.getpid()}-{damage.__name__}-{seed}"
    command = [sys.executable, "-m", "tests.feed.test_shared_feed_damage", damage.__name__, name, str(seed)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=Path(__file__).parents[2]
        )
    finally:
        Segment.path_of(name).unlink(missing_ok=True)
    assert (done.returncode, done.stderr) == (0, "")


if __name__ == "__main__":
    view_module.READ_TRIES = 3  # a version that was overwritten by an odd one stays odd
    {each.__name__: each for each in (damage_readers, damage_the_writer)}[sys.argv[1]](
        sys.argv[2], random.Random(int(sys.argv[3]))
    )
