"""Which files are trusted: those that no other user of the machine can have changed or, where it matters, read.

The rule of the file: one check for all of them (tokens, keys, settings, the store, shared memory), and each caller
raises the result as its own error.
"""

from __future__ import annotations

import os
import stat

__all__ = ["fault_of"]

_OTHERS_MAY = 0o077
_OTHERS_WRITE = 0o022


def fault_of(status: os.stat_result, *, is_secret: bool = True) -> str | None:
    """Return why a file is not trusted and what to do about it; None if it is trusted.

    Root may own the file: root can change every file anyway.

    Args:
        status: of the open file, so that no other one can take its place after the check; or of `os.lstat`.
        is_secret: whether others must not even read the file.
    """
    if stat.S_ISLNK(status.st_mode):
        return "is a link: give the path of the file itself"
    if not stat.S_ISREG(status.st_mode):
        return "is no file: give the path of one"
    if os.name != "posix":
        return None
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user: give a file of your own"
    if status.st_mode & (_OTHERS_MAY if is_secret else _OTHERS_WRITE):
        what, remedy = ("read", "chmod 600") if is_secret else ("changed", "chmod go-w")
        return f"can be {what} by others (mode {status.st_mode & 0o777:03o}): {remedy} it"
    return None
