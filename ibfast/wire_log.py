"""The log of the WebSocket library, without what nobody may read in it.

The rule of the file: at its lowest level the library logs headers, and tokens with them; so nothing of that level is
let through, whatever anybody sets.
"""

from __future__ import annotations

import logging

__all__ = ["wire_logger"]


def wire_logger(name: str) -> logging.Logger:
    """Return a logger for the library.

    Args:
        name: of its own, under "ibfast".
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)  # the library asks for it once, and then makes no texts that nobody reads
    logger.addFilter(_is_no_detail)
    return logger


def _is_no_detail(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO
