"""The log of the WebSocket library, without what nobody may read in it.

The rule of the file: at its lowest level the library logs headers, and tokens with them; so nothing of that level is
let through, whatever anybody sets.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["wire_logger"]


class _WireLogger(logging.LoggerAdapter[logging.Logger]):
    """Says that details are not wanted, which the library asks for; all else is as the program has set it."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (the name is that of `logging`)
        return level >= logging.INFO and super().isEnabledFor(level)


def wire_logger(name: str) -> logging.LoggerAdapter[Any]:
    """Return a logger for the library.

    Args:
        name: of its own, under "ibfast".
    """
    logger = logging.getLogger(name)
    logger.addFilter(_is_no_detail)
    return _WireLogger(logger, {})


def _is_no_detail(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO
