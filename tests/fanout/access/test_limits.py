"""Caps, rates, and where a server may listen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.errors import ConfigError
from ibfast.fanout.access.limits import (
    Bucket,
    ConnectionCaps,
    InstrumentBudgets,
    check_bind,
    is_loopback,
)

# --- instruments ---


def test_a_holder_has_so_many_new_instruments_in_an_hour() -> None:
    budgets = InstrumentBudgets()
    assert [budgets.take("a", 2, now_s) for now_s in (0, 1000, 2000, 3599)] == [0, 0, 1600, 1]
    assert budgets.take("b", 2, 3599) == 0
    assert [budgets.take("a", 2, now_s) for now_s in (3600, 3601, 4600)] == [0, 999, 0]
    assert budgets.take("c", 0, 4600) == 3600
    budgets.give_back("a")
    budgets.give_back("nobody")
    assert [budgets.take("a", 2, 4601) for _ in range(2)] == [0, 2599]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2000), st.booleans()), max_size=60))
def test_budgets_agree_with_a_list_and_forget_who_was_here_long_ago(steps: list[tuple[str, int, bool]]) -> None:
    budgets, taken, now_s = InstrumentBudgets(), list[tuple[str, int]](), 0
    asked = list[tuple[str, int]]()
    for name, pause_s, comes_to_nothing in steps:
        now_s += pause_s
        asked.append((name, now_s))
        recent = [at_s for other, at_s in taken if other == name and at_s > now_s - 3600]
        wait_s = budgets.take(name, 3, now_s)
        assert wait_s == (0 if len(recent) < 3 else recent[0] + 3600 - now_s)
        if not wait_s and comes_to_nothing:
            budgets.give_back(name)
        elif not wait_s:
            taken.append((name, now_s))
        assert len(budgets) <= len({other for other, at_s in asked if at_s > now_s - 3600})


# --- connections ---


def test_connections_are_capped_in_all() -> None:
    caps = ConnectionCaps(2, 2)
    assert caps.admit("192.0.2.1") is None
    assert caps.admit("192.0.2.2") is None
    assert "all the connections that it may have (2)" in str(caps.admit("192.0.2.3"))
    caps.release("192.0.2.1")
    assert caps.admit("192.0.2.3") is None


def test_connections_are_capped_by_address() -> None:
    caps = ConnectionCaps(100, 2)
    assert [caps.admit("192.0.2.1") for _ in range(2)] == [None, None]
    assert "from one address (2)" in str(caps.admit("192.0.2.1"))
    assert caps.admit("192.0.2.2") is None
    caps.release("192.0.2.1")
    assert caps.admit("192.0.2.1") is None
    assert caps.open == 3


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:DB8:0:1:ffff::", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:c000:201", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::2", "::3", True),
        ("::1", "::2", False),
        ("", "", True),
        ("not an address", "not an address", True),
        ("", "192.0.2.1", False),
    ],
)
def test_what_counts_as_one_address(first: str, second: str, is_one: bool) -> None:
    caps = ConnectionCaps(10, 1)
    assert caps.admit(first) is None
    assert (caps.admit(second) is not None) == is_one


def test_this_machine_counts_in_all_alone() -> None:
    caps = ConnectionCaps(4, 1)
    assert [caps.admit(address) for address in ("127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1")] == [None] * 4
    assert "all the connections that it may have (4)" in str(caps.admit("127.0.0.1"))
    caps.release("::1")
    assert caps.admit("192.0.2.1") is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::", ""])), max_size=60))
def test_caps_agree_with_a_list_and_forget_who_left(steps: list[tuple[bool, str]]) -> None:
    caps, there = ConnectionCaps(5, 2), list[str]()
    for comes, address in steps:
        if comes:
            may = len(there) < 5 and there.count(address) < 2
            assert (caps.admit(address) is None) == may
            if may:
                there.append(address)
        elif address in there:
            there.remove(address)
            caps.release(address)
        assert caps.open == len(there)
        assert len(caps._counts) == len(set(there))


# --- rates ---


def test_a_bucket_runs_full_again() -> None:
    bucket = Bucket(10.0, 2.0, 0.0)
    bucket.spend(25.0, 0.0)
    assert bucket.wait_s(0.0) == 0.5
    assert bucket.wait_s(0.5) == 0.0
    bucket.spend(20.0, 100.0)  # no more than the burst was kept
    assert bucket.wait_s(100.0) == 0.0
    bucket.spend(1.0, 100.0)
    assert bucket.wait_s(100.0) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0.0, 0.5)), min_size=1), st.integers(100, 10_000))
def test_a_rate_is_never_exceeded_for_long(writes: list[tuple[int, float]], per_s: int) -> None:
    """Whoever spends only while there is something left stays within the rate, but for a burst and the last time."""
    bucket = Bucket(per_s, 0.25, 0.0)
    now_s, spent = 0.0, 0
    for amount, pause_s in writes:
        now_s += pause_s
        if not bucket.wait_s(now_s):
            bucket.spend(amount, now_s)
            spent += amount
    assert spent <= per_s * (now_s + 0.25) + max(amount for amount, _ in writes) + 1e-6


# --- where to listen ---


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("192.168.1.5", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("127.1", False),
        ("2130706433", False),
        ("gateway", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_loopback_needs_nothing() -> None:
    assert check_bind("127.0.0.1", has_authentication=False, has_tls=False, allow_anonymous=False) == []


@pytest.mark.parametrize("has_tls", [False, True])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "desk.example.com"])
def test_others_are_not_served_by_mistake(host: str, has_tls: bool) -> None:
    with pytest.raises(ConfigError, match=r"fanout\.host=.* can be reached by others.*security\.tokens_file"):
        check_bind(host, has_authentication=False, has_tls=has_tls, allow_anonymous=False)


@pytest.mark.parametrize(
    ("has_authentication", "has_tls", "warnings"),
    [
        (True, True, []),
        (True, False, ["tokens and data cross the network in plain text"]),
        (False, True, ["everybody who reaches"]),
        (False, False, ["everybody who reaches", "data cross the network in plain text"]),
    ],
)
def test_what_is_risky_is_told(has_authentication: bool, has_tls: bool, warnings: list[str]) -> None:
    told = check_bind(
        "0.0.0.0", has_authentication=has_authentication, has_tls=has_tls, allow_anonymous=not has_authentication
    )
    assert len(told) == len(warnings)
    assert all(text.startswith(start) for text, start in zip(told, warnings, strict=True))
