"""The log of the WebSocket library, without secrets.

The rule of the file: at its lowest level the library logs headers, and tokens with them; so nothing of that level is
let through at any setting. A peer may cause what is logged, and be quoted: it is fit to be shown, and bounded.
"""

from __future__ import annotations

import logging
from typing import Any

from ibfast.common.log_rate import LogRate
from ibfast.common.shown import shown

__all__ = ["wire_logger"]


class _WireLogger(logging.LoggerAdapter[logging.Logger]):
    """Reports that details are not wanted, which the library checks; other levels are as the program has set them."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (the name is that of `logging`)
        return level >= logging.INFO and super().isEnabledFor(level)


def wire_logger(name: str) -> logging.LoggerAdapter[Any]:
    """Return a logger for the library.

    Args:
        name: of its own, under "ibfast".
    """
    logger = logging.getLogger(name)
    if not any(isinstance(known, _WireFilter) for known in logger.filters):
        logger.addFilter(_WireFilter())
    return _WireLogger(logger, {})


class _WireFilter(logging.Filter):
    """Lets through records that are no details, a number of each kind in a span, each in one line."""

    def __init__(self) -> None:
        super().__init__()
        self._rate = LogRate()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return False
        note = self._rate.admit(str(record.msg), record.created)
        if note is not None:
            record.msg, record.args = "%s%s", (shown(record.getMessage()), note)
        return note is not None
