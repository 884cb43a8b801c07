"""Which login a user can declare, and how accounts are shown.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from ibfast.config.checks import require

__all__ = ["ANY", "AccountType", "mask", "require_login"]

ANY = "any"

_MASKED = re.compile(r"([A-Z]{1,4})(\d*?)(\d{0,3})A?")
# Of a shorter number three digits would reveal too much.
MIN_SHOWN_DIGITS = 6


class AccountType(StrEnum):
    """Kinds of logins."""

    PAPER = "paper"
    """Every account is a paper account, an advisor's paper accounts included."""
    LIVE = "live"
    """A client's own live accounts."""
    ADVISOR = "advisor"
    """Live accounts under the master account of an advisor or a broker."""
    UNKNOWN = "unknown"
    """None of these, or a mixture."""


_DECLARABLE = (ANY, AccountType.PAPER, AccountType.LIVE, AccountType.ADVISOR)


def require_login(section: str, account_type: str, accounts: Sequence[str]) -> None:
    """Insist that a login can be declared like this.

    Raises:
        ConfigError: there is no such account type, or an account is no text.
    """
    require(
        account_type in _DECLARABLE, f"{section}.account_type", account_type, f"give one of {', '.join(_DECLARABLE)}"
    )
    is_valid = isinstance(accounts, tuple) and all(isinstance(name, str) and name for name in accounts)
    require(is_valid, f"{section}.accounts", type(accounts), 'give a tuple of account ids: ("DU1234567",)')


def mask(account: str) -> str:
    """Return an account's id as logs may show it: DU1234567 as DU****567."""
    found = _MASKED.fullmatch(account)
    if found is None:
        return "****"
    letters, hidden, shown = found.groups()
    return f"{letters}****{shown if len(hidden + shown) >= MIN_SHOWN_DIGITS else ''}"
