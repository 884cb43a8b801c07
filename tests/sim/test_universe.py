"""A universe finds its instruments the way a gateway finds contracts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from ibfast.contracts import Contract, Forex, Future, Index, Option, Stock
from ibfast.sim.universe import Universe

TODAY = date(2026, 11, 23)
UNIVERSE = Universe.builtin(TODAY, symbols=3)


def symbols(contract: Contract) -> list[str]:
    return [instrument.contract.local_symbol for instrument in UNIVERSE.find(contract)]


def test_ids_are_unique_and_every_complete_contract_finds_itself() -> None:
    assert len({instrument.con_id for instrument in UNIVERSE}) == len(UNIVERSE)
    for instrument in UNIVERSE:
        assert UNIVERSE.find(instrument.contract) == [instrument]
        assert UNIVERSE.find(replace(instrument.contract, con_id=0)) == [instrument]
        assert UNIVERSE[instrument.con_id] is instrument


@pytest.mark.parametrize(
    ("contract", "con_id"),
    [
        (Stock("AAPL"), 265598),
        (Stock("AAPL", primary_exchange="ISLAND"), 265598),
        (Stock("IBM", exchange="NYSE"), 8314),
        (Contract(con_id=272093), 272093),
        (Contract(con_id=272093, symbol="ignored", exchange="ARCA"), 272093),
        (Contract(local_symbol="EUR.USD", sec_type="CASH"), 12087792),
        (Forex("USDJPY"), 15016059),
        (Index("SPX", "CBOE"), 416904),
    ],
)
def test_one_contract_is_found(contract: Contract, con_id: int) -> None:
    assert [instrument.con_id for instrument in UNIVERSE.find(contract)] == [con_id]


@pytest.mark.parametrize(
    "contract",
    [
        Stock("NOSUCH"),
        Stock("AAPL", currency="EUR"),
        Stock("AAPL", exchange="LSE"),
        Contract(con_id=1),
        Contract(con_id=265598, exchange="LSE"),
        Contract(),
        Option("AAPL", "20200117", 230.0, "C"),
        Option("AAPL", "20261127", 231.0, "C"),
        Future("ES", "202601", "CME"),
        Contract(sec_id_type="ISIN", sec_id="US0378331005"),
    ],
)
def test_no_contract_is_found(contract: Contract) -> None:
    assert UNIVERSE.find(contract) == []


def test_a_vague_contract_matches_several() -> None:
    assert {i.contract.currency for i in UNIVERSE.find(Contract(symbol="AAPL", sec_type="STK"))} == {"USD", "MXN"}
    assert symbols(Future("ES", "", "CME")) == ["ESZ6", "ESH7", "ESM7"]


def test_a_contract_month_and_a_date_find_the_same_future() -> None:
    assert symbols(Future("ES", "202612", "CME")) == symbols(Future("ES", "20261218", "CME")) == ["ESZ6"]


@pytest.mark.parametrize("right", ["C", "CALL"])
@pytest.mark.parametrize("multiplier", ["", "100", "100.0"])
def test_an_option_is_found_in_the_chain(right: str, multiplier: str) -> None:
    assert symbols(Option("AAPL", "20261127", 230.0, right, multiplier=multiplier)) == ["AAPL  261127C00230000"]


def test_search_lists_symbols_before_names() -> None:
    found = [instrument.contract.symbol for instrument in UNIVERSE.search("a")]
    assert found[0].startswith("A")
    assert "AAPL" in found
    assert [instrument.contract.symbol for instrument in UNIVERSE.search("intl bus")] == ["IBM"]
    assert UNIVERSE.search("") == []


def test_synthetic_symbols_are_numbered() -> None:
    universe = Universe.synthetic(1200, TODAY)
    assert len(universe) == 1200
    assert len(universe.find(Stock("SYM000"))) == len(universe.find(Stock("SYM1199"))) == 1
    assert symbols(Stock("SYM002")) == ["SYM002"]


def test_recorded_symbols_are_stocks() -> None:
    universe = Universe.of_symbols(["IBHK", "BTCUSDT.UM"], TODAY)
    assert [instrument.contract.symbol for instrument in universe] == ["IBHK", "BTCUSDT.UM"]
    assert len(universe.find(Stock("BTCUSDT.UM"))) == 1
