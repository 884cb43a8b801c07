"""Black and Scholes: prices, greeks and implied volatility of European options without dividends.

Source: F. Black, M. Scholes, "The Pricing of Options and Corporate Liabilities", Journal of Political Economy 81
(1973).
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["RATE", "YEAR_S", "OptionValue", "greeks", "implied_volatility", "option_price"]

YEAR_S = 365 * 86_400
RATE = 0.04
"""The riskless rate per year."""

_ITERATIONS = 20
_LOWEST_VEGA = 1e-8


class OptionValue(NamedTuple):
    """An option's price and its derivatives, per unit of volatility 0.01 (vega) and per day (theta)."""

    price: float
    delta: float
    gamma: float
    vega: float
    theta: float


def greeks(underlying: float, strike: float, years: float, volatility: float, right: str) -> OptionValue:
    """Value an option.

    Args:
        underlying: price of the underlying.
        years: time to expiry; at 0 or less the option is worth its exercise value.
        volatility: per square root of a year.
        right: "C" or "P".
    """
    sign = 1.0 if right == "C" else -1.0
    if years <= 0:
        exercise = max(sign * (underlying - strike), 0.0)
        return OptionValue(exercise, sign if exercise else 0.0, 0.0, 0.0, 0.0)
    deviation = volatility * math.sqrt(years)
    d1 = (math.log(underlying / strike) + RATE * years) / deviation + deviation / 2
    d2 = d1 - deviation
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    discounted = strike * math.exp(-RATE * years)
    price = sign * (underlying * _normal(sign * d1) - discounted * _normal(sign * d2))
    theta = -underlying * density * volatility / (2 * math.sqrt(years)) - sign * RATE * discounted * _normal(sign * d2)
    return OptionValue(
        price=max(price, 0.0),
        delta=sign * _normal(sign * d1),
        gamma=density / (underlying * deviation),
        vega=underlying * density * math.sqrt(years) / 100,
        theta=theta / 365,
    )


def option_price(underlying: float, strike: float, years: float, volatility: float, right: str) -> float:
    """Return the price alone."""
    return greeks(underlying, strike, years, volatility, right).price


def implied_volatility(price: float, underlying: float, strike: float, years: float, right: str) -> float | None:
    """Return the volatility at which the option is worth `price`; None where there is none (Newton's method)."""
    volatility = 0.3
    for _ in range(_ITERATIONS):
        value = greeks(underlying, strike, years, volatility, right)
        if value.vega < _LOWEST_VEGA:
            return None
        step = (value.price - price) / (value.vega * 100)
        volatility -= step
        if volatility <= 0:
            return None
        if abs(step) < 1e-9:
            return volatility
    return None


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
