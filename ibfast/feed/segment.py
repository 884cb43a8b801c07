"""Named memory that other processes of this machine can map: a file in memory where there is such a thing.

The rule of the file: a segment belongs to the process that holds the lock on it. The kernel lets go of the lock when
that process ends, in whatever way, so a name is free exactly when no process holds it. The process that made a segment
removes it when it exits, or when nothing in it refers to the memory any more; only a process that is killed leaves it
behind. A child that was forked, not spawned, shares the lock and removes nothing. A file that another user could have
written is no segment. What is in the memory is not known here.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Self

from ibfast.common.private_files import fault_of
from ibfast.errors import FeedError

if sys.platform != "win32":
    import fcntl

__all__ = ["Segment"]


class Segment:
    """A mapped file.

    Attributes:
        memory: its bytes, which stay mapped as long as anything refers to them.
    """

    memory: mmap.mmap

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._release: weakref.finalize[[Path, int, int], mmap.mmap] | None = None

    @staticmethod
    def path_of(name: str) -> Path:
        """Return where a segment of that name is.

        Raises:
            FeedError: it is no name, or this system has no files that can lose their name while they are open.
        """
        if sys.platform == "win32":
            raise FeedError("a feed with a name needs Linux or macOS: leave the name out")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise FeedError(f"a feed's name is made of letters, digits, '_', '.' and '-', not {name!r}")
        shared = Path("/dev/shm")
        return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / f"ibfast-{name}"

    @classmethod
    def create(cls, name: str, nbytes: int) -> Self:
        """Make a segment of zeros and hold it.

        Raises:
            FeedError: another process holds one of that name, or there is not enough memory.
        """
        path = cls.path_of(name)
        _remove_unheld(path, name)
        # It gets its name only when it is held: no process takes it for one that was left behind.
        fd, fresh = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        segment = cls(fd)
        try:
            _lock(fd)
            # Reserve the pages now: a full /dev/shm must be an error here, not a SIGBUS at some later tick.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, nbytes)
            else:
                os.ftruncate(fd, nbytes)
            segment.memory = mmap.mmap(fd, nbytes)
            os.link(fresh, path)
            # From here on the memory owns the descriptor, and with it the lock.
            segment._release = weakref.finalize(segment.memory, _give_back, path, fd, os.getpid())
            segment._fd = -1
        except FileExistsError:
            segment.close()
            raise _in_use(name) from None
        except (OSError, OverflowError) as error:
            segment.close()
            raise FeedError(f"no memory for a feed of {nbytes:,} bytes in {path.parent}: {error}") from error
        finally:
            os.unlink(fresh)
        return segment

    @classmethod
    def open(cls, name: str) -> Self:
        """Map the segment of that name.

        Raises:
            FeedError: there is none, it can't be read, or another user could have written it.
        """
        path = cls.path_of(name)
        try:
            segment = cls(_open(path))
            segment.memory = mmap.mmap(segment._fd, 0)
        except FileNotFoundError:
            raise FeedError(f"there is no feed named {name!r}: is the process that creates it running?") from None
        except (OSError, ValueError) as error:
            raise FeedError(f"{path} can't be read as a feed: {error}") from error
        return segment

    def require_whole(self) -> None:
        """Raise FeedError if the file is shorter than the memory: reading what it lacks would end the process (SIGBUS).

        The check is no proof: the file may be cut off right after it.
        """
        if self.memory.size() < len(self.memory):
            raise FeedError(f"the file of a feed was cut off to {self.memory.size():,} bytes: attach to a new feed")

    def is_held(self) -> bool:
        """Return whether the process that made the segment still holds it."""
        return _is_locked(self._fd)

    def remove(self) -> None:
        """Give the name and the lock back, in the process that made it. The memory stays mapped wherever it is."""
        if self._release is not None:
            self._release()

    def close(self) -> None:
        """Close the descriptor of a segment that another process has made."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def _give_back(path: Path, fd: int, maker: int) -> None:
    """Remove a segment's name and lock. A child that the maker has forked leaves them to the maker."""
    if os.getpid() == maker:
        path.unlink(missing_ok=True)
        _unlock(fd)  # closing does not: the mapping holds a copy of the descriptor
    os.close(fd)


def _open(path: Path) -> int:
    """Open a file that is no link, and that only its owner could have written."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    fault = fault_of(os.fstat(fd), is_secret=False)
    if fault:
        os.close(fd)
        raise FeedError(f"{path} is no feed that can be trusted: it {fault}")
    return fd


def _in_use(name: str) -> FeedError:
    return FeedError(f"a feed named {name!r} exists already: attach to it, or choose another name")


def _remove_unheld(path: Path, name: str) -> None:
    """Remove what a process left behind that has ended; FeedError if it has not."""
    try:
        fd = _open(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FeedError(f"{path} is in the way of a feed: {error}") from error
    try:
        if _is_locked(fd):
            raise _in_use(name)
        # Several processes may come here at once: the first one removes it, and the others see that it has.
        _lock(fd)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                path.unlink()
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Take the lock, which no process has for longer than a moment."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def _is_locked(fd: int) -> bool:
    """Return whether another open file holds the lock. Processes that ask do not disturb each other."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    _unlock(fd)
    return False


def _unlock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)
