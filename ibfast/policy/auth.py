"""Whether a login is the one that was declared: checked before anything is subscribed, and refused in doubt.

The rule of the file: what was declared holds or the session ends; a paper configuration never runs on a live account.
Accounts are shown masked wherever a log may see them.

Kinds of accounts, by the letters of their ids: U a client's, F an advisor's master account, I a broker's; a D before
these makes it a paper account (DU, DF, DI). An A at the end names all accounts under a master. One login shows one
account, or several: https://interactivebrokers.github.io/tws-api/managed_accounts.html

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ibfast.config.accounts import ANY, AccountType, mask
from ibfast.config.sections import AuthConfig
from ibfast.errors import AuthError

__all__ = ["AuthManager", "Login"]

PAPER_PORTS = frozenset({7497, 4002})
LIVE_PORTS = frozenset({7496, 4001})

_ACCOUNT = re.compile(r"(?P<paper>D?)(?P<kind>[UFI])[A-Z]{0,2}\d+(?P<all>A?)")
_MASTERS = "FI"


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """What a gateway is logged in to.

    Attributes:
        type: what kind of login it is.
        is_paper: whether no order of it can cost money.
        accounts: their ids, as the gateway names them.
        master: the master account, "" if there is none.
    """

    type: AccountType
    is_paper: bool
    accounts: tuple[str, ...]
    master: str = ""

    def __repr__(self) -> str:
        return f"<Login: {self.type}, {_listed(self.accounts)}>"


class AuthManager:
    """Checks a login against what was declared.

    Args:
        config: the login that was declared. It may have other accounts too.
    """

    def __init__(self, config: AuthConfig) -> None:
        self._config = config

    def __repr__(self) -> str:
        declared = self._config
        accounts = _listed(declared.accounts)
        return f"<AuthManager: {declared.account_type}, {accounts}, read_only={declared.read_only}>"

    @property
    def needs_probe(self) -> bool:
        """Whether the gateway must be asked for its mode.

        No message contains it: ask for the open orders. In Read-Only API mode the gateway answers with error 321
        (`ibfast.policy.codes.says_read_only`), else with the orders and their end.
        """
        return self._config.read_only

    def recognise(self, accounts: Iterable[str]) -> Login:
        """Return what kind of login has these accounts."""
        names = tuple(name for name in (name.strip() for name in accounts) if name)
        found = [_ACCOUNT.fullmatch(name) for name in names]
        known = [match for match in found if match is not None]
        if not known or len(known) < len(found) or len({match["paper"] for match in known}) > 1:
            return Login(AccountType.UNKNOWN, False, names)
        masters = [match[0] for match in known if match["kind"] in _MASTERS]
        # The name of all accounts under a master counts only where the master itself is not named.
        master = min(masters, key=lambda name: name.endswith("A"), default="")
        is_paper = known[0]["paper"] == "D"
        kind = AccountType.PAPER if is_paper else AccountType.ADVISOR if master else AccountType.LIVE
        return Login(kind, is_paper, names, master)

    def check(self, accounts: Iterable[str], *, port: int, is_read_only: bool | None) -> Login:
        """Insist on what was declared.

        Args:
            accounts: the login's, from managedAccounts.
            port: the gateway's, to make the error clearer; nothing is decided by it.
            is_read_only: what the gateway said of its Read-Only API mode, None if it did not say.

        Raises:
            AuthError: the login is not the one that was declared, or can't be recognised.
        """
        login = self.recognise(accounts)
        if not login.accounts:
            raise AuthError("accounts", "the gateway named no account", "log in to TWS or IB Gateway completely")
        self._check_type(login, port)
        for name in self._config.accounts:
            if name not in login.accounts:
                raise AuthError(
                    "accounts",
                    f"account {mask(name)} is not among the login's: {_listed(login.accounts)}",
                    "log in with the user that has it, or correct the list of accounts",
                )
        if self._config.read_only and not is_read_only:
            said = "did not say whether it is" if is_read_only is None else "is not"
            raise AuthError(
                "read_only",
                f"the gateway {said} in its Read-Only API mode",
                "tick Read-Only API in its API settings, or set read_only to False",
            )
        return login

    def _check_type(self, login: Login, port: int) -> None:
        declared = self._config.account_type
        if declared in (ANY, login.type):
            return
        hint = "".join(f"; {warning}" for warning in self.warnings(login, port))
        if login.type is AccountType.UNKNOWN:
            raise AuthError(
                "account_type",
                f"{declared} was declared, and the type of {_listed(login.accounts)} is unknown{hint}",
                'set account_type to "any" if this login is the right one',
            )
        raise AuthError(
            "account_type",
            f"{declared} was declared, and the login is {login.type}: {_listed(login.accounts)}{hint}",
            f"connect to a gateway with a login that is {declared}, or correct account_type",
        )

    def warnings(self, login: Login, port: int) -> list[str]:
        """Return what looks odd and is no error: a port can be set to anything.

        Args:
            login: from `check`.
            port: the gateway's.
        """
        if login.type is AccountType.UNKNOWN:
            return []
        if port in PAPER_PORTS and not login.is_paper:
            return [f"port {port} is by default for paper accounts, and the login is live"]
        if port in LIVE_PORTS and login.is_paper:
            return [f"port {port} is by default for live accounts, and the login is paper"]
        return []


def _listed(accounts: Sequence[str]) -> str:
    return ", ".join(map(mask, accounts)) or "no account"
