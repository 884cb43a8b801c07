"""Black and Scholes, checked by put-call parity, finite differences and a textbook value."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ibfast.sim.greeks import RATE, greeks, implied_volatility, option_price

CASES = pytest.mark.parametrize("right", ["C", "P"])
PRICES = st.floats(50, 200)
YEARS = st.floats(0.02, 2)
VOLATILITIES = st.floats(0.05, 1.0)


def test_a_value_worked_out_by_hand() -> None:
    # S = K = 100, one year, σ = 20 %, r = 4 %: d1 = 0.3, d2 = 0.1, so C = 100·Φ(0.3) − 96.0789·Φ(0.1).
    def normal(x: float) -> float:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))

    assert greeks(100, 100, 1, 0.2, "C").price == pytest.approx(100 * normal(0.3) - 100 * math.exp(-0.04) * normal(0.1))


@given(PRICES, PRICES, YEARS, VOLATILITIES)
def test_put_call_parity(under: float, strike: float, years: float, volatility: float) -> None:
    call = option_price(under, strike, years, volatility, "C")
    put = option_price(under, strike, years, volatility, "P")
    assert call - put == pytest.approx(under - strike * math.exp(-RATE * years), abs=1e-9)


@CASES
def test_greeks_are_derivatives(right: str) -> None:
    under, strike, years, volatility, step = 105.0, 100.0, 0.5, 0.3, 1e-4
    value = greeks(under, strike, years, volatility, right)

    def price(under: float = under, years: float = years, volatility: float = volatility) -> float:
        return option_price(under, strike, years, volatility, right)

    assert value.delta == pytest.approx((price(under + step) - price(under - step)) / (2 * step), rel=1e-5)
    second = (price(under + 0.01) - 2 * price() + price(under - 0.01)) / 0.01**2
    assert value.gamma == pytest.approx(second, rel=1e-4)
    by_volatility = (price(volatility=volatility + step) - price(volatility=volatility - step)) / (2 * step)
    assert value.vega == pytest.approx(by_volatility / 100, rel=1e-5)
    by_time = (price(years=years - step) - price(years=years + step)) / (2 * step)
    assert value.theta == pytest.approx(by_time / 365, rel=1e-4)


@given(PRICES, PRICES, YEARS, VOLATILITIES, st.sampled_from("CP"))
def test_implied_volatility_is_the_inverse(
    under: float, strike: float, years: float, volatility: float, right: str
) -> None:
    value = greeks(under, strike, years, volatility, right)
    assume(value.vega > 0.01)
    found = implied_volatility(value.price, under, strike, years, right)
    if found is not None:
        assert option_price(under, strike, years, found, right) == pytest.approx(value.price, abs=1e-6)


def test_implied_volatility_near_the_money_is_found() -> None:
    assert implied_volatility(greeks(100, 105, 0.1, 0.4, "P").price, 100, 105, 0.1, "P") == pytest.approx(0.4)


def test_no_volatility_makes_an_option_worth_less_than_nothing() -> None:
    assert implied_volatility(0.5, 120, 100, 0.1, "C") is None


@CASES
def test_an_expired_option_is_worth_its_exercise(right: str) -> None:
    value = greeks(110, 100, 0, 0.3, right)
    assert value.price == (10 if right == "C" else 0)
    assert value.gamma == value.vega == value.theta == 0
