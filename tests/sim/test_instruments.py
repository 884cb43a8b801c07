"""The built-in instruments: option chains and trading hours."""

from __future__ import annotations

from datetime import date

from ibfast.contracts import Contract, Future, Stock
from ibfast.sim.universe import Universe

TODAY = date(2026, 11, 23)
UNIVERSE = Universe.builtin(TODAY)


def test_the_chain_expires_in_the_future_on_both_sides_of_the_price() -> None:
    chain = UNIVERSE.find(Contract(symbol="AAPL", sec_type="OPT"))
    assert {i.contract.right for i in chain} == {"C", "P"}
    assert len({i.contract.last_trade_date for i in chain}) == 4
    assert min(i.contract.last_trade_date for i in chain) > "20261123"
    price = UNIVERSE.find(Stock("AAPL"))[0].price
    strikes = [i.contract.strike or 0.0 for i in chain]
    assert min(strikes) < price < max(strikes)
    assert all(i.underlying == 265598 for i in chain)


def test_expiry_day_itself_is_not_in_the_chain() -> None:
    friday = Universe.builtin(date(2026, 11, 27))
    assert min(i.contract.last_trade_date for i in friday.find(Contract(symbol="AAPL", sec_type="OPT"))) == "20261204"


def test_trading_hours_are_in_the_notation_of_ib() -> None:
    details = UNIVERSE.find(Stock("AAPL"))[0].details
    assert details.liquid_hours.startswith("20261123:0930-20261123:1600;20261124:0930-")
    assert "20261128:CLOSED" in details.trading_hours
    futures = UNIVERSE.find(Future("ES", "202612", "CME"))[0].details
    assert futures.trading_hours.startswith("20261122:1700-20261123:1600")


def test_sessions_are_in_utc() -> None:
    hours = UNIVERSE.find(Stock("AAPL"))[0].hours
    assert hours.liquid_session(TODAY) == (1795444200, 1795467600)
    assert hours.liquid_session(date(2026, 11, 28)) is None
