"""What is traded: contracts and their details.

The rule of the file: values only, and Python's own ones: numpy's are converted. A contract is frozen and hashable, so
that it can be a key; fields carry IB's names in snake_case. Nothing here knows how a contract is written on the wire.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np

from ibfast.common.scalars import plain
from ibfast.records import UNSET_DOUBLE

__all__ = [
    "ComboLeg",
    "Contract",
    "ContractDetails",
    "DeltaNeutralContract",
    "Forex",
    "Future",
    "Index",
    "Option",
    "Stock",
]

_CURRENCY_LENGTH = 3
_COMBO = "BAG"


@dataclass(frozen=True, slots=True)
class ComboLeg:
    """One leg of a combination."""

    con_id: int = 0
    ratio: int = 0
    action: str = ""
    exchange: str = ""
    open_close: int = 0
    short_sale_slot: int = 0
    designated_location: str = ""
    exempt_code: int = -1

    def __post_init__(self) -> None:
        _make_plain(self)


@dataclass(frozen=True, slots=True)
class DeltaNeutralContract:
    """The hedge of a delta-neutral combination."""

    con_id: int = 0
    delta: float = 0.0
    price: float = 0.0

    def __post_init__(self) -> None:
        _make_plain(self)


@dataclass(frozen=True, slots=True, repr=False)
class Contract:
    """An instrument, described as far as the user knows it.

    Attributes:
        con_id: IB's id of the instrument; 0 is not known.
        last_trade_date: yyyymmdd, or yyyymm for a contract month (IB's lastTradeDateOrContractMonth).
        last_trade_day: yyyymmdd where the gateway sends it besides the contract month (IB's lastTradeDate).
        strike: None is not given; 0.0 is a strike.
        multiplier: a number as text, as IB has it.
    """

    con_id: int = 0
    symbol: str = ""
    sec_type: str = ""
    last_trade_date: str = ""
    strike: float | None = None
    right: str = ""
    multiplier: str = ""
    exchange: str = ""
    primary_exchange: str = ""
    currency: str = ""
    local_symbol: str = ""
    trading_class: str = ""
    include_expired: bool = False
    sec_id_type: str = ""
    sec_id: str = ""
    description: str = ""
    issuer_id: str = ""
    last_trade_day: str = ""
    combo_legs_description: str = ""
    combo_legs: tuple[ComboLeg, ...] = ()
    delta_neutral_contract: DeltaNeutralContract | None = None

    def __post_init__(self) -> None:
        _make_plain(self)

    @classmethod
    def of(cls, source: object) -> Contract:
        """Return a contract for the forms that users have at hand.

        Args:
            source: a Contract (returned as it is), a str (the symbol of a US stock), or a Contract of ibapi or
                ib_async, known by its attributes.

        Raises:
            TypeError: `source` is none of these.
            ValueError: it names no instrument.
        """
        if isinstance(source, Contract):
            contract = source
        elif isinstance(source, str):
            contract = Stock(source)
        elif hasattr(source, "conId") and hasattr(source, "secType"):
            contract = _of_ib(source)
        else:
            raise TypeError(
                f"{type(source).__name__} is not a contract: pass ibfast.Contract (or Stock, Option, …), "
                "a stock's symbol as str, or a Contract of ibapi or ib_async"
            )
        if not contract._names_something:
            raise ValueError(f"{contract} names no instrument: give a symbol, a con_id or a local_symbol")
        return contract

    @property
    def identity(self) -> Hashable:
        """What distinguishes instruments; the rule stands at `ibfast.feed.tables.InstrumentTable`."""
        return (self.con_id, self.exchange) if self.con_id and self.sec_type != _COMBO else self

    @property
    def _names_something(self) -> bool:
        """Whether it has any of the fields by which the gateway can find an instrument."""
        texts = (self.symbol, self.local_symbol, self.sec_id, self.issuer_id)
        return bool(self.con_id or self.combo_legs or any(text.strip() for text in texts))

    def __repr__(self) -> str:
        return _short_repr(self)


@dataclass(frozen=True, slots=True, repr=False)
class ContractDetails:
    """All that the gateway knows about one contract.

    Attributes:
        trading_hours, liquid_hours: sessions in IB's own notation, in `time_zone_id`.
        sec_ids: (type, id) pairs, ("ISIN", "US0378331005") say.
        min_size, size_increment, suggested_size_increment, min_algo_size, last_price_precision, last_size_precision:
            None where the gateway sent none.
        ineligibility_reasons: (id, description) pairs.
        fund_distribution_policy_indicator, fund_asset_type: IB's codes.
    """

    contract: Contract = field(default_factory=Contract)
    market_name: str = ""
    min_tick: float = 0.0
    order_types: str = ""
    valid_exchanges: str = ""
    price_magnifier: int = 0
    under_con_id: int = 0
    long_name: str = ""
    contract_month: str = ""
    industry: str = ""
    category: str = ""
    subcategory: str = ""
    time_zone_id: str = ""
    trading_hours: str = ""
    liquid_hours: str = ""
    ev_rule: str = ""
    ev_multiplier: float = 0.0
    agg_group: int = 0
    under_symbol: str = ""
    under_sec_type: str = ""
    market_rule_ids: str = ""
    sec_ids: tuple[tuple[str, str], ...] = ()
    real_expiration_date: str = ""
    last_trade_time: str = ""
    stock_type: str = ""
    min_size: float | None = None
    size_increment: float | None = None
    suggested_size_increment: float | None = None
    min_algo_size: float | None = None
    last_price_precision: float | None = None
    last_size_precision: float | None = None
    cusip: str = ""
    ratings: str = ""
    desc_append: str = ""
    bond_type: str = ""
    coupon_type: str = ""
    callable: bool = False
    putable: bool = False
    coupon: float = 0.0
    convertible: bool = False
    maturity: str = ""
    issue_date: str = ""
    next_option_date: str = ""
    next_option_type: str = ""
    next_option_partial: bool = False
    notes: str = ""
    fund_name: str = ""
    fund_family: str = ""
    fund_type: str = ""
    fund_front_load: str = ""
    fund_back_load: str = ""
    fund_back_load_time_interval: str = ""
    fund_management_fee: str = ""
    fund_closed: bool = False
    fund_closed_for_new_investors: bool = False
    fund_closed_for_new_money: bool = False
    fund_notify_amount: str = ""
    fund_minimum_initial_purchase: str = ""
    fund_subsequent_minimum_purchase: str = ""
    fund_blue_sky_states: str = ""
    fund_blue_sky_territories: str = ""
    fund_distribution_policy_indicator: str = ""
    fund_asset_type: str = ""
    ineligibility_reasons: tuple[tuple[str, str], ...] = ()
    event_contract: str = ""
    event_contract_description1: str = ""
    event_contract_description2: str = ""
    settlement_method: str = ""

    def __repr__(self) -> str:
        return _short_repr(self)


# Functions, so that Stock("AAPL") equals the same Contract written out; named like the classes of other clients.


def Stock(  # noqa: N802
    symbol: str, exchange: str = "SMART", currency: str = "USD", primary_exchange: str = ""
) -> Contract:
    """A stock or ETF."""
    return Contract(
        symbol=symbol, sec_type="STK", exchange=exchange, currency=currency, primary_exchange=primary_exchange
    )


def Option(  # noqa: N802
    symbol: str,
    last_trade_date: str,
    strike: float,
    right: str,
    exchange: str = "SMART",
    currency: str = "USD",
    multiplier: str = "",
    trading_class: str = "",
) -> Contract:
    """An option on a stock or an index; `last_trade_date` is yyyymmdd, `right` is "C" or "P"."""
    return Contract(
        symbol=symbol,
        sec_type="OPT",
        last_trade_date=last_trade_date,
        strike=strike,
        right=right,
        multiplier=multiplier,
        exchange=exchange,
        currency=currency,
        trading_class=trading_class,
    )


def Future(  # noqa: N802
    symbol: str,
    last_trade_date: str,
    exchange: str,
    currency: str = "USD",
    multiplier: str = "",
    trading_class: str = "",
) -> Contract:
    """A future; `last_trade_date` is yyyymmdd or the contract month, yyyymm."""
    return Contract(
        symbol=symbol,
        sec_type="FUT",
        last_trade_date=last_trade_date,
        multiplier=multiplier,
        exchange=exchange,
        currency=currency,
        trading_class=trading_class,
    )


def Forex(pair: str, exchange: str = "IDEALPRO") -> Contract:  # noqa: N802
    """A currency pair, written like "EURUSD".

    Raises:
        ValueError: `pair` is not two currencies of three letters.
    """
    if len(pair) != 2 * _CURRENCY_LENGTH or not pair.isalpha():
        raise ValueError(f"{pair!r} is not a currency pair like 'EURUSD'")
    base, quote = pair[:_CURRENCY_LENGTH], pair[_CURRENCY_LENGTH:]
    return Contract(symbol=base, sec_type="CASH", exchange=exchange, currency=quote)


def Index(symbol: str, exchange: str, currency: str = "USD") -> Contract:  # noqa: N802
    """An index; it has data, but can't be traded."""
    return Contract(symbol=symbol, sec_type="IND", exchange=exchange, currency=currency)


def _strike_of_ib(source: Any) -> float | None:
    strike = source.strike
    # Clients that know a strike of zero (they also know lastTradeDate) mark a missing one as UNSET; older ones as 0.
    is_missing = strike is None or strike == UNSET_DOUBLE or (strike == 0 and not hasattr(source, "lastTradeDate"))
    return None if is_missing else float(strike)


def _leg_of_ib(leg: Any) -> ComboLeg:
    return ComboLeg(
        con_id=leg.conId,
        ratio=leg.ratio,
        action=leg.action,
        exchange=leg.exchange,
        open_close=int(leg.openClose),
        short_sale_slot=leg.shortSaleSlot,
        designated_location=leg.designatedLocation,
        exempt_code=leg.exemptCode,
    )


def _of_ib(source: Any) -> Contract:
    def text(name: str) -> str:
        value = getattr(source, name, "")
        return "" if value is None else str(value)

    hedge = source.deltaNeutralContract
    return Contract(
        con_id=int(source.conId),
        symbol=text("symbol"),
        sec_type=text("secType"),
        last_trade_date=text("lastTradeDateOrContractMonth"),
        strike=_strike_of_ib(source),
        right=text("right"),
        multiplier=text("multiplier"),
        exchange=text("exchange"),
        primary_exchange=text("primaryExchange"),
        currency=text("currency"),
        local_symbol=text("localSymbol"),
        trading_class=text("tradingClass"),
        include_expired=bool(source.includeExpired),
        sec_id_type=text("secIdType"),
        sec_id=text("secId"),
        description=text("description"),
        issuer_id=text("issuerId"),
        last_trade_day=text("lastTradeDate"),
        combo_legs_description=text("comboLegsDescrip"),
        combo_legs=tuple(map(_leg_of_ib, source.comboLegs or ())),
        delta_neutral_contract=hedge and DeltaNeutralContract(hedge.conId, hedge.delta, hedge.price),
    )


def _make_plain(owner: Any) -> None:
    """Have a value that is being made hold Python's own scalars, and tuples where it was given lists."""
    for name in owner.__slots__:
        value = getattr(owner, name)
        if isinstance(value, np.generic):
            object.__setattr__(owner, name, plain(value))
        elif isinstance(value, list):
            object.__setattr__(owner, name, tuple(value))


def _short_repr(value: Any) -> str:
    shown = (
        f"{item.name}={getattr(value, item.name)!r}"
        for item in fields(value)
        if item.default is MISSING or getattr(value, item.name) != item.default
    )
    return f"{type(value).__name__}({', '.join(shown)})"
