"""Segments: whose files are mapped, and what happens to one that is cut off under its readers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ibfast import Feed
from ibfast.errors import FeedError
from ibfast.feed.segment import Segment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no named memory")
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
NAME = f"test-segment-{os.getpid()}"
NBYTES = 1 << 16


@pytest.fixture
def path() -> Iterator[Path]:
    """Where the segment of that name is."""
    path = Segment.path_of(NAME)
    yield path
    path.unlink(missing_ok=True)


def test_a_new_segment_is_its_owners_alone(path: Path) -> None:
    segment = Segment.create(NAME, NBYTES)
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.geteuid())
    assert len(Segment.open(NAME).memory) == NBYTES
    segment.remove()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_segment_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.write_bytes(bytes(NBYTES))
    path.chmod(mode)
    told = rf"can be changed by others \(mode {mode:03o}\): chmod go-w it"
    with pytest.raises(FeedError, match=told):
        Segment.open(NAME)
    with pytest.raises(FeedError, match=told):
        Segment.create(NAME, NBYTES)
    assert path.stat().st_size == NBYTES


@as_root
def test_a_segment_of_another_user_is_refused(path: Path) -> None:
    path.write_bytes(bytes(NBYTES))
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    for use in (Segment.open, lambda name: Segment.create(name, NBYTES)):
        with pytest.raises(FeedError, match="belongs to another user"):
            use(NAME)
    assert path.exists()


def test_a_link_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(bytes(NBYTES))
    target.chmod(0o600)
    path.symlink_to(target)
    with pytest.raises(FeedError, match="can't be read as a feed"):
        Segment.open(NAME)
    with pytest.raises(FeedError, match="in the way of a feed"):
        Segment.create(NAME, NBYTES)


def test_what_is_no_file_is_refused_and_never_waited_for(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(FeedError, match="is no file"):
        Segment.open(NAME)


def test_a_file_that_was_cut_off_is_an_error(path: Path) -> None:
    with Feed(2, name=NAME, max_instruments=4, max_texts=4) as feed:
        feed.add_instrument("AAPL")
        attached = Feed.attach(NAME)
        reader = attached.trades.reader()
        assert (list(attached.instruments), attached.texts[0]) == (["AAPL"], "")
        os.truncate(path, 0)
        looks = (
            reader.read,
            reader.wait,
            reader.borrow,
            lambda: attached.trades.published,
            attached.snapshot,
            lambda: attached.instruments[0],
            lambda: attached.instruments.index("AAPL"),
            lambda: attached.texts[0],
            lambda: attached.texts.refused,
            lambda: repr(attached),
        )
        for look in looks:
            with pytest.raises(FeedError, match="cut off to 0 bytes"):
                look()
