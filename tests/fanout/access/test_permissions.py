"""Permissions: what they permit, what they refuse, and that nothing slips through a pattern."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast import Contract, Option, Stock
from ibfast.contracts import ComboLeg, DeltaNeutralContract
from ibfast.errors import ConfigError
from ibfast.fanout.access.permissions import Permissions
from ibfast.fanout.encoding.channels import DATA_TYPES, MODES

EVERYTHING = Permissions(symbols=("*",))


def permits(permissions: Permissions, symbol: str) -> bool:
    return permissions.allows(Contract(symbol=symbol), "TRADES", "stream", 0) is None


@pytest.mark.parametrize("data_type", DATA_TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_a_star_permits_all(data_type: str, mode: str) -> None:
    assert EVERYTHING.allows(Stock("AAPL"), data_type, mode, 0) is None
    spelled_out = Permissions(symbols=("AAPL",), data_types=tuple(DATA_TYPES), modes=MODES)
    assert spelled_out.allows(Stock("AAPL"), data_type, mode, 0) is None


def test_a_refusal_names_what_is_not_permitted() -> None:
    permissions = Permissions(
        symbols=("AAPL", "ES*"), data_types=("TRADES", "QUOTES"), modes=("conflate",), least_interval_ms=100
    )
    assert permissions.allows(Stock("AAPL"), "TRADES", "conflate", 100) is None
    told = "the token does not permit "
    assert permissions.allows(Stock("TSLA"), "TRADES", "conflate", 100) == told + "the symbol 'TSLA'"
    assert permissions.allows(Stock("AAPL"), "DEPTH", "conflate", 100) == (
        told + "the data type 'DEPTH': it permits TRADES, QUOTES"
    )
    assert permissions.allows(Stock("AAPL"), "ALL", "conflate", 100) == (
        told + "the data type 'ALL': it permits TRADES, QUOTES"
    )
    assert permissions.allows(Stock("AAPL"), "TRADES", "stream", 100) == (
        told + "the mode 'stream': it permits conflate"
    )
    assert permissions.allows(Stock("AAPL"), "TRADES", "conflate", 99) == (
        told + "interval_ms=99: it permits 100 or more"
    )


@pytest.mark.parametrize(
    ("data_types", "permitted"),
    [
        (("ALL",), {"ALL", "TICKS", "TRADES", "QUOTES", "GREEKS"}),
        (("TICKS", "TRADES", "QUOTES", "GREEKS"), {"ALL", "TICKS", "TRADES", "QUOTES", "GREEKS"}),
        (("TICKS", "TRADES", "QUOTES"), {"TICKS", "TRADES", "QUOTES"}),
        (("DEPTH", "BARS"), {"DEPTH", "BARS"}),
        (("*",), set(DATA_TYPES)),
    ],
)
def test_all_is_what_it_consists_of(data_types: tuple[str, ...], permitted: set[str]) -> None:
    permissions = Permissions(symbols=("AAPL",), data_types=data_types)
    assert {name for name in DATA_TYPES if permissions.allows(Stock("AAPL"), name, "stream", 0) is None} == permitted


def test_a_snapshot_has_no_interval() -> None:
    assert Permissions(symbols=("*",), least_interval_ms=100).allows(Stock("AAPL"), "TRADES", "snapshot", 0) is None


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("AAPL", ["AAPL"], ["aapl", "AAPL ", " AAPL", "AAPL\n", "AAPLX", "XAAPL", "", "ＡＡＰＬ", "AАPL", "AAPL\0"]),
        ("ES*", ["ES", "ESZ6", "ES\n"], ["NES", "es", "E", "ＥS"]),
        ("*.L", ["VOD.L", ".L"], ["VODxL", "VOD.L\n", "VOD.LX"]),
        ("B?", ["BX", "B\n"], ["B", "BXX"]),
        ("A*B*C", ["ABC", "AxxBxxC"], ["ACB", "AB", "BC"]),
        ("BRK B", ["BRK B"], ["BRK  B", "BRKB", "BRK\u00a0B"]),
        ("!A", ["!A"], ["B", "A"]),
        (r"\*", ["\\", "\\x"], ["*", "x"]),
        ("A.C", ["A.C"], ["ABC"]),
        ("^A$", ["^A$"], ["A"]),
        ("(A|B)", ["(A|B)"], ["A", "B"]),
    ],
)
def test_patterns_match_a_whole_symbol(pattern: str, matching: list[str], others: list[str]) -> None:
    permissions = Permissions(symbols=(pattern,))
    assert [symbol for symbol in matching if not permits(permissions, symbol)] == []
    assert [symbol for symbol in others if permits(permissions, symbol)] == []


@given(st.text("AB*?", min_size=1, max_size=8), st.text("ABC\n", max_size=8))
def test_patterns_match_as_an_expression_of_any_does(pattern: str, symbol: str) -> None:
    expected = re.fullmatch(pattern.replace("*", ".*").replace("?", "."), symbol, re.DOTALL)
    assert permits(Permissions(symbols=(pattern,)), symbol) == (expected is not None)


def test_a_pattern_that_backtracks_is_judged_at_once() -> None:
    permissions = Permissions(symbols=("*A" * 31 + "B",))
    before_s = time.process_time()
    assert not permits(permissions, "A" * 10_000)
    # A matcher that tries all the ways would take longer than the universe lasts; this is no measurement.
    assert time.process_time() - before_s < 20


def test_what_is_made_of_other_contracts_needs_all_symbols() -> None:
    legs = (ComboLeg(con_id=76792991, ratio=1, action="BUY", exchange="SMART"),)
    hidden = [
        Contract(symbol="AAPL", sec_type="BAG"),
        Contract(symbol="AAPL", sec_type="STK", combo_legs=legs),
        Contract(symbol="AAPL", sec_type="STK", delta_neutral_contract=DeltaNeutralContract(con_id=76792991)),
    ]
    for contract in hidden:
        assert Permissions(symbols=("AAPL", "A*", "????")).allows(contract, "TRADES", "stream", 0) is not None
        assert EVERYTHING.allows(contract, "TRADES", "stream", 0) is None


def test_a_contract_without_a_symbol_is_none_that_is_permitted() -> None:
    nameless = Contract(con_id=265598)
    assert Permissions(symbols=("AAPL", "?*")).allows(nameless, "TRADES", "stream", 0) is not None


def test_derivatives_count_by_their_underlying() -> None:
    assert Permissions(symbols=("AAPL",)).allows(Option("AAPL", "20270115", 200.0, "C"), "GREEKS", "stream", 0) is None


def test_the_server_caps_subscriptions() -> None:
    for name in ("subscriptions", "new_instruments"):
        for own, capped in ((None, 500), (20, 20), (2000, 500), (0, 0)):
            assert getattr(Permissions(symbols=("*",), **{name: own}).capped(500, 500), name) == capped


@pytest.mark.parametrize(("permitted", "asked", "given"), [(0, 0, 0), (0, 5, 5), (5, 0, 5), (5, 3, 3), (5, 9, 5)])
def test_the_lower_bandwidth_counts(permitted: int, asked: int, given: int) -> None:
    assert Permissions(symbols=("*",), max_bytes_per_s=permitted).bandwidth(asked) == given


def test_a_table_and_back() -> None:
    permissions = Permissions(
        symbols=("AAPL", "ES*"), data_types=("TRADES",), modes=("snapshot",), least_interval_ms=10, subscriptions=3,
        max_bytes_per_s=1000, new_instruments=5, metrics=True,
    )  # fmt: skip
    assert Permissions.of(permissions.as_table()) == permissions
    assert Permissions.of({"symbols": ["*"]}) == EVERYTHING
    assert EVERYTHING.capped(500, 1000).as_table() == {
        "symbols": ["*"], "data_types": ["*"], "modes": ["*"], "least_interval_ms": 0, "subscriptions": 500,
        "max_bytes_per_s": 0, "new_instruments": 1000, "metrics": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "symbols is missing: give"),
        ({"data_types": ["TRADES"]}, "symbols is missing: give"),
        ({"symbols": ["*"], "symbol": ["AAPL"]}, "there is no permission 'symbol': there are symbols, data_types,"),
        ({"symbols": []}, "symbols=() is not possible: give a list of texts"),
        ({"symbols": "AAPL"}, "symbols='AAPL' is not possible: give a list of texts"),
        ({"symbols": [1]}, "symbols=(1,) is not possible: give a list of texts"),
        ({"symbols": None}, "symbols=None is not possible: give a list of texts"),
        ({"symbols": {"*": 1}}, "symbols={'*': 1} is not possible: give a list of texts"),
        ({"symbols": [""]}, "symbols='' is not possible: give a symbol"),
        ({"symbols": ["[A-Z]"]}, "symbols='[A-Z]' is not possible: give a symbol"),
        ({"symbols": ["AAPL", "A\n"]}, "symbols='A\\n' is not possible: give a symbol"),
        ({"symbols": ["ＡＡＰＬ"]}, "symbols='ＡＡＰＬ' is not possible: give a symbol"),
        ({"symbols": [" AAPL"]}, "symbols=' AAPL' is not possible: give a symbol"),
        ({"symbols": ["A" * 65]}, "is not possible: give a symbol"),
        ({"symbols": ["*"], "data_types": ["trades"]}, "data_types='trades' is not possible: give some of TRADES,"),
        ({"symbols": ["*"], "data_types": []}, "data_types=() is not possible: give a list of texts"),
        ({"symbols": ["*"], "modes": ["all"]}, "modes='all' is not possible: give some of stream, conflate"),
        ({"symbols": ["*"], "least_interval_ms": -1}, "least_interval_ms=-1 is not possible: give 0 or more"),
        ({"symbols": ["*"], "least_interval_ms": 0.5}, "least_interval_ms=0.5 is not possible: give 0 or more"),
        ({"symbols": ["*"], "metrics": 1}, "metrics=1 is not possible: give true or false"),
        ({"symbols": ["*"], "subscriptions": True}, "subscriptions=True is not possible: give 0 or more"),
        ({"symbols": ["*"], "max_bytes_per_s": "9"}, "max_bytes_per_s='9' is not possible: give 0 or more"),
        ({"symbols": ["*"], "max_bytes_per_s": None}, "max_bytes_per_s=None is not possible: give 0 or more"),
    ],
)
def test_what_is_not_understood_is_an_error(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Permissions.of(table)
    assert told in str(caught.value)
