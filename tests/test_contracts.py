from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ibfast import Config, IBKRConnectionManager
from ibfast.contracts import (
    ComboLeg,
    Contract,
    ContractDetails,
    DeltaNeutralContract,
    Forex,
    Future,
    Index,
    Option,
    Stock,
)
from ibfast.sim.gateway import Gateway
from ibfast.wire.requests import ContractDetailsRequest

IB_ATTRIBUTES = {
    "conId": 265598,
    "symbol": "AAPL",
    "secType": "STK",
    "lastTradeDateOrContractMonth": "",
    "strike": 0.0,
    "right": "",
    "multiplier": "",
    "exchange": "SMART",
    "primaryExchange": "NASDAQ",
    "currency": "USD",
    "localSymbol": "AAPL",
    "tradingClass": "NMS",
    "includeExpired": False,
    "secIdType": "ISIN",
    "secId": "US0378331005",
    "comboLegsDescrip": "",
    "comboLegs": None,
    "deltaNeutralContract": None,
}
APPLE = Contract(
    con_id=265598,
    symbol="AAPL",
    sec_type="STK",
    exchange="SMART",
    primary_exchange="NASDAQ",
    currency="USD",
    local_symbol="AAPL",
    trading_class="NMS",
    sec_id_type="ISIN",
    sec_id="US0378331005",
)


def test_constructors_build_plain_contracts():
    assert Stock("AAPL") == Contract(symbol="AAPL", sec_type="STK", exchange="SMART", currency="USD")
    assert Option("SPY", "20240621", 500, "C").strike == 500
    assert Future("ES", "202406", "CME").sec_type == "FUT"
    assert Forex("EURUSD") == Contract(symbol="EUR", sec_type="CASH", exchange="IDEALPRO", currency="USD")
    assert Index("SPX", "CBOE").sec_type == "IND"


@pytest.mark.parametrize("pair", ["EUR", "EUR.USD", "EURUSDX", "EUR123"])
def test_a_pair_is_six_letters(pair):
    with pytest.raises(ValueError, match="EURUSD"):
        Forex(pair)


def test_contracts_are_keys():
    assert {Stock("AAPL"): 1}[Stock("AAPL")] == 1
    leg = ComboLeg(1, 1, "BUY", "SMART")
    assert hash(Contract(combo_legs=(leg,))) == hash(Contract(combo_legs=(ComboLeg(1, 1, "BUY", "SMART"),)))


def test_repr_shows_what_is_set():
    assert repr(Stock("A")) == "Contract(symbol='A', sec_type='STK', exchange='SMART', currency='USD')"
    assert repr(ContractDetails(min_tick=0.01)) == "ContractDetails(contract=Contract(), min_tick=0.01)"


def test_of_takes_contracts_and_symbols():
    assert Contract.of(APPLE) is APPLE
    assert Contract.of("AAPL") == Stock("AAPL")


def test_of_takes_contracts_of_old_clients():
    assert Contract.of(SimpleNamespace(**IB_ATTRIBUTES)) == APPLE


def test_of_takes_contracts_of_new_clients():
    new = IB_ATTRIBUTES | {"lastTradeDate": "", "description": "", "issuerId": "", "strike": sys.float_info.max}
    assert Contract.of(SimpleNamespace(**new)) == APPLE
    assert Contract.of(SimpleNamespace(**new | {"strike": 0.0})).strike == 0.0
    assert Contract.of(SimpleNamespace(**new | {"strike": 5})).strike == 5.0


@pytest.mark.parametrize(
    "nothing", ["", "  ", Contract(), Contract(sec_type="STK", exchange="SMART", currency="USD"), Stock("")]
)
def test_of_refuses_what_names_no_instrument(nothing):
    with pytest.raises(ValueError, match="names no instrument: give a symbol, a con_id or a local_symbol"):
        Contract.of(nothing)


def test_nothing_is_sent_of_what_names_no_instrument(run):
    async def case():
        async with Gateway() as gateway, IBKRConnectionManager(Config(port=gateway.port)) as manager:
            for call in (manager.subscribe, manager.qualify, manager.historical_bars):
                with pytest.raises(ValueError, match="names no instrument"):
                    await call("")
            await manager.qualify("AAPL")
            assert gateway.received[ContractDetailsRequest] == 1

    run(case())


def test_of_refuses_what_names_no_instrument_in_other_clients():
    with pytest.raises(ValueError, match="names no instrument"):
        Contract.of(SimpleNamespace(**IB_ATTRIBUTES | {"conId": 0, "symbol": "", "localSymbol": "", "secId": ""}))


@pytest.mark.parametrize(
    "contract",
    [
        Contract(con_id=265598),
        Contract(symbol="AAPL"),
        Contract(local_symbol="ESU6"),
        Contract(sec_id_type="ISIN", sec_id="US0378331005"),
        Contract(issuer_id="e1453318"),
        Contract(combo_legs=(ComboLeg(1, 1, "BUY", "SMART"),)),
    ],
)
def test_of_takes_whatever_names_an_instrument(contract):
    assert Contract.of(contract) is contract


def test_of_takes_combinations():
    leg = SimpleNamespace(
        conId=1,
        ratio=2,
        action="BUY",
        exchange="SMART",
        openClose=0,
        shortSaleSlot=0,
        designatedLocation="",
        exemptCode=-1,
    )
    hedge = SimpleNamespace(conId=3, delta=0.5, price=10.0)
    source = SimpleNamespace(**IB_ATTRIBUTES | {"secType": "BAG", "comboLegs": [leg], "deltaNeutralContract": hedge})
    contract = Contract.of(source)
    assert contract.combo_legs == (ComboLeg(1, 2, "BUY", "SMART"),)
    assert contract.delta_neutral_contract == DeltaNeutralContract(3, 0.5, 10.0)


@pytest.mark.parametrize("source", [None, 265598, object(), {"symbol": "AAPL"}])
def test_of_refuses_the_rest_and_says_what_it_takes(source):
    with pytest.raises(TypeError, match=r"ibfast\.Contract"):
        Contract.of(source)


def test_numpy_s_scalars_in_a_contract_are_python_s_own():
    leg = ComboLeg(np.int64(1), np.int32(2), np.str_("BUY"), "SMART")
    hedge = DeltaNeutralContract(np.int64(7), np.float64(0.5), np.float32(1.5))
    contract = Contract(
        con_id=np.int64(5), symbol=np.str_("X"), strike=np.float64(1.5), include_expired=np.bool_(True),
        combo_legs=[leg], delta_neutral_contract=hedge,
    )  # fmt: skip
    assert contract == Contract(
        5, "X", strike=1.5, include_expired=True, combo_legs=(ComboLeg(1, 2, "BUY", "SMART"),),
        delta_neutral_contract=DeltaNeutralContract(7, 0.5, 1.5),
    )  # fmt: skip
    for owner in (leg, hedge, contract):
        assert not any(isinstance(getattr(owner, name), np.generic) for name in owner.__slots__)
    assert hash(contract)
