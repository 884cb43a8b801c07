"""A login runs only if it is the one that was declared, and whoever reads the logs learns no account from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.config.accounts import AccountType
from ibfast.config.sections import AuthConfig
from ibfast.errors import AuthError, ConnectError
from ibfast.policy.auth import AuthManager

PAPER = ("DU1234567",)
PAPER_ADVISOR = ("DF7654321", "DU1234567", "DU1234568")
LIVE = ("U1234567",)
LIVE_LINKED = ("U1234567", "U1234568")
ADVISOR = ("F7654321", "U1234567")
MIXED = ("DU1234567", "U1234567")
STRANGE = ("X99",)
LOGINS = (PAPER, PAPER_ADVISOR, LIVE, LIVE_LINKED, ADVISOR, MIXED, STRANGE)
PORT = 7497


def check(auth: AuthManager, accounts: tuple[str, ...], is_read_only: bool | None = None) -> AccountType:
    return auth.check(accounts, port=PORT, is_read_only=is_read_only).type


# --- recognising ---


@pytest.mark.parametrize(
    ("accounts", "kind", "is_paper", "master"),
    [
        (PAPER, AccountType.PAPER, True, ""),
        (("DUM123456",), AccountType.PAPER, True, ""),
        (("DU1",), AccountType.PAPER, True, ""),
        (PAPER_ADVISOR, AccountType.PAPER, True, "DF7654321"),
        (("DI123456",), AccountType.PAPER, True, "DI123456"),
        (LIVE, AccountType.LIVE, False, ""),
        (LIVE_LINKED, AccountType.LIVE, False, ""),
        (ADVISOR, AccountType.ADVISOR, False, "F7654321"),
        (("F7654321A", "F7654321", "U1234567"), AccountType.ADVISOR, False, "F7654321"),
        (("I1234567", "U1234567"), AccountType.ADVISOR, False, "I1234567"),
        (MIXED, AccountType.UNKNOWN, False, ""),
        (("F7654321", "DU1234567"), AccountType.UNKNOWN, False, ""),
        (("DU1234567", "X99"), AccountType.UNKNOWN, False, ""),
        (("du1234567",), AccountType.UNKNOWN, False, ""),
        (("DU",), AccountType.UNKNOWN, False, ""),
        (STRANGE, AccountType.UNKNOWN, False, ""),
        ((), AccountType.UNKNOWN, False, ""),
    ],
)
def test_what_kind_of_login_it_is(accounts: tuple[str, ...], kind: AccountType, is_paper: bool, master: str) -> None:
    login = AuthManager(AuthConfig()).recognise(accounts)
    assert (login.type, login.is_paper, login.accounts, login.master) == (kind, is_paper, accounts, master)


def test_blanks_and_empty_names_are_no_accounts() -> None:
    assert AuthManager(AuthConfig()).recognise([" DU1 ", "", " "]).accounts == ("DU1",)


# --- what is declared ---


@pytest.mark.parametrize(
    ("declared", "allowed"),
    [
        ("paper", {PAPER, PAPER_ADVISOR}),
        ("live", {LIVE, LIVE_LINKED}),
        ("advisor", {ADVISOR}),
        ("any", set(LOGINS)),
    ],
)
def test_only_the_declared_type_runs(declared: str, allowed: set[tuple[str, ...]]) -> None:
    auth = AuthManager(AuthConfig(account_type=declared))
    for accounts in LOGINS:
        if accounts in allowed:
            assert check(auth, accounts) is auth.recognise(accounts).type
        else:
            with pytest.raises(AuthError, match=f"{declared} was declared") as caught:
                check(auth, accounts)
            assert caught.value.field == "account_type"


@given(st.lists(st.from_regex(r"D?[UFIX][A-Z]{0,2}[0-9]{0,8}A?", fullmatch=True) | st.text(max_size=8), max_size=4))
def test_a_paper_configuration_never_runs_where_an_account_is_not_known_to_be_paper(accounts: list[str]) -> None:
    try:
        login = AuthManager(AuthConfig(account_type="paper")).check(accounts, port=PORT, is_read_only=None)
    except AuthError:
        return
    assert login.is_paper
    assert login.accounts
    assert all(name.startswith("D") for name in login.accounts)


def test_a_login_without_accounts_runs_under_no_declaration() -> None:
    for declared in ("any", "paper", "live", "advisor"):
        with pytest.raises(AuthError, match="named no account"):
            check(AuthManager(AuthConfig(account_type=declared)), ())
        with pytest.raises(AuthError, match="named no account"):
            check(AuthManager(AuthConfig(account_type=declared)), ("",))


def test_a_named_account_must_be_there() -> None:
    assert check(AuthManager(AuthConfig(accounts=("DU1234568",))), PAPER_ADVISOR) is AccountType.PAPER
    with pytest.raises(AuthError, match=r"U\*\*\*\*567 is not among") as caught:
        check(
            AuthManager(
                AuthConfig(
                    accounts=(
                        "DU1234568",
                        "U1234567",
                    )
                )
            ),
            PAPER_ADVISOR,
        )
    assert caught.value.field == "accounts"


@pytest.mark.parametrize(("is_read_only", "said"), [(False, "is not"), (None, "did not say")])
def test_a_gateway_that_is_not_known_to_be_read_only_is_refused_where_it_must_be(
    is_read_only: bool | None, said: str
) -> None:
    auth = AuthManager(AuthConfig(read_only=True))
    assert auth.needs_probe
    assert check(auth, PAPER, is_read_only=True) is AccountType.PAPER
    with pytest.raises(AuthError, match=f"gateway {said}") as caught:
        check(auth, PAPER, is_read_only=is_read_only)
    assert caught.value.field == "read_only"


@pytest.mark.parametrize("is_read_only", [True, False, None])
def test_read_only_matters_to_nobody_who_did_not_wish_it(is_read_only: bool | None) -> None:
    auth = AuthManager(AuthConfig())
    assert not auth.needs_probe
    assert check(auth, LIVE, is_read_only=is_read_only) is AccountType.LIVE


def test_a_refusal_is_a_failure_to_connect_with_a_remedy() -> None:
    with pytest.raises(ConnectError) as caught:
        check(AuthManager(AuthConfig(account_type="paper")), LIVE)
    assert isinstance(caught.value, AuthError)
    assert caught.value.stage == "auth"
    assert "correct account_type" in caught.value.remedy
    assert "port 7497 is by default for paper accounts" in str(caught.value)


# --- the port ---


@pytest.mark.parametrize(
    ("accounts", "port", "words"),
    [
        (PAPER, 7497, []),
        (PAPER, 4002, []),
        (PAPER, 7496, ["port 7496", "live accounts", "login is paper"]),
        (PAPER, 4001, ["port 4001"]),
        (LIVE, 7496, []),
        (LIVE, 4002, ["port 4002", "paper accounts", "login is live"]),
        (ADVISOR, 7497, ["login is live"]),
        (LIVE, 5000, []),
        (STRANGE, 7496, []),
    ],
)
def test_the_port_only_warns(accounts: tuple[str, ...], port: int, words: list[str]) -> None:
    auth = AuthManager(AuthConfig())
    login = auth.check(accounts, port=port, is_read_only=None)
    warnings = auth.warnings(login, port)
    assert len(warnings) == bool(words)
    assert all(word in warnings[0] for word in words)


# --- what logs see ---


def test_no_account_appears_in_reprs_or_errors() -> None:
    auth = AuthManager(AuthConfig(account_type="live", accounts=("U7777777",)))
    login = auth.recognise(PAPER_ADVISOR)
    texts = [repr(auth), repr(login), str(login), f"{login}"]
    for manager, accounts in (
        (auth, PAPER_ADVISOR),
        (auth, LIVE),
        (AuthManager(AuthConfig(account_type="paper")), STRANGE),
    ):
        with pytest.raises(AuthError) as caught:
            check(manager, accounts)
        texts += [str(caught.value), repr(caught.value), caught.value.reason, caught.value.remedy]
    for account in (*PAPER_ADVISOR, *LIVE, *STRANGE, "U7777777"):
        assert not any(account in text for text in texts), account
    assert "DU****567" in repr(login)
    assert repr(AuthManager(AuthConfig())) == "<AuthManager: any, no account, read_only=False>"
