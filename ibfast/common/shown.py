"""Texts of peers, made fit to be shown: in logs, in events, in errors.

The rule of the file: a peer's text may reach a terminal or a log file, so it can neither end a line nor
control a terminal, and it is short. What a program compares or stores stays as it was sent.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["MOST_CHARACTERS", "fields_shown", "shown"]

MOST_CHARACTERS: Final = 2000
"""IB's own texts are shorter."""

# Control characters, ends of lines, and what changes the direction of the text around it or is half a character.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text in one line, without control characters and cut to so many characters."""
    if len(text) > most:
        text = f"{text[:most]}… ({len(text):,} characters)"
    if text.isprintable():
        return text
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def fields_shown(fields: Mapping[str, object]) -> dict[str, object]:
    """Return fields of which all texts are fit to be shown."""
    return {name: shown(value) if isinstance(value, str) else value for name, value in fields.items()}
