"""The instruments of the simulated gateway.

The rule of the file: plain facts, made for a given day; no prices in motion, nothing of the wire.
Contract ids are IB's own where they are widely known; the others are made up and stable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta

from ibfast.contracts import Contract, ContractDetails
from ibfast.wire.times import zone_of

__all__ = ["Hours", "Instrument", "builtin_instruments", "recorded_con_id", "recorded_stock", "synthetic_stock"]

_SYNTHETIC_CON_ID = 900_000_000
_RECORDED_CON_ID = 950_000_000
_FUTURE_CON_ID = 600_000_000
_OPTION_CON_ID = 700_000_000

_ORDER_TYPES = "ACTIVETIM,ADJUST,ALERT,ALGO,COND,DAY,GTC,GTD,IOC,LIT,LMT,MIT,MKT,STP,STPLMT,TRAIL,WHATIF"
_STOCK_EXCHANGES = "SMART,AMEX,NYSE,CBOE,PHLX,ISE,CHX,ARCA,ISLAND,NASDAQ,DRCTEDGE,BATS,BYX,IEX,EDGX,MEMX,PSX"
_OPTION_EXCHANGES = "SMART,AMEX,CBOE,PHLX,ISE,BOX,BATS,NASDAQOM,PSE"
_FRIDAY, _SATURDAY = 4, 5
_TOLD_DAYS = 6


@dataclass(frozen=True, slots=True)
class Hours:
    """When an instrument trades, every weekday alike, in its own time zone."""

    zone: str
    opens: time
    closes: time
    liquid_opens: time
    liquid_closes: time

    def text(self, today: date, *, liquid: bool) -> str:
        """Return the sessions of the next days in IB's notation."""
        opens, closes = (self.liquid_opens, self.liquid_closes) if liquid else (self.opens, self.closes)
        days = []
        for offset in range(_TOLD_DAYS):
            day = today + timedelta(days=offset)
            if day.weekday() >= _SATURDAY:
                days.append(f"{day:%Y%m%d}:CLOSED")
            else:
                first = day - timedelta(days=1) if opens >= closes else day
                days.append(f"{first:%Y%m%d}:{opens:%H%M}-{day:%Y%m%d}:{closes:%H%M}")
        return ";".join(days)

    def liquid_session(self, day: date) -> tuple[int, int] | None:
        """Return the start and end of the liquid session of `day` in UTC seconds; None on a weekend."""
        if day.weekday() >= _SATURDAY:
            return None
        zone = zone_of(self.zone)
        first = day - timedelta(days=1) if self.liquid_opens >= self.liquid_closes else day
        start = datetime.combine(first, self.liquid_opens, zone)
        return int(start.timestamp()), int(datetime.combine(day, self.liquid_closes, zone).timestamp())


_US_STOCKS = Hours("America/New_York", time(4), time(20), time(9, 30), time(16))
_US_FUTURES = Hours("America/Chicago", time(17), time(16), time(8, 30), time(15, 15))
_FOREX = Hours("America/New_York", time(17, 15), time(17), time(17, 15), time(17))
_EUROPE = Hours("Europe/Brussels", time(9), time(17, 30), time(9), time(17, 30))


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument, and how its market behaves.

    Attributes:
        details: what the gateway sends about it; `details.contract` names it completely.
        price: the level around which its price moves; not used where there is an underlying.
        volatility: of the log price, per square root of a year.
        activity: its share of all events, relative to the others.
        round_lot: shares of a round lot; 0 where the feed has no sizes.
        spread_ticks: the usual spread.
        has_quotes, has_trades: what its feed consists of.
        permitted: the account may see it in real time; otherwise only delayed.
        underlying: con_id of what an option or a future follows; 0 is none.
        expires_s: UTC seconds at which an option expires; 0 is never.
    """

    details: ContractDetails
    hours: Hours
    price: float
    volatility: float = 0.3
    activity: float = 1.0
    round_lot: int = 100
    spread_ticks: int = 1
    has_quotes: bool = True
    has_trades: bool = True
    permitted: bool = True
    underlying: int = 0
    expires_s: int = 0

    @property
    def con_id(self) -> int:
        """IB's id of the instrument."""
        return self.details.contract.con_id

    @property
    def contract(self) -> Contract:
        """The complete contract."""
        return self.details.contract

    @property
    def farm(self) -> str:
        """The data farm that its market data come from."""
        by_type = {"CASH": "cashfarm", "FUT": "usfuture", "OPT": "usopt"}
        if self.contract.sec_type in by_type:
            return by_type[self.contract.sec_type]
        return "eufarm" if self.contract.currency == "EUR" else "usfarm"

    @property
    def min_tick(self) -> float:
        """The step of its quotes."""
        return self.details.min_tick


@dataclass(frozen=True, slots=True)
class _Listing:
    """One row of the table of stocks."""

    symbol: str
    con_id: int
    name: str
    exchange: str
    price: float
    volatility: float = 0.3
    activity: float = 1.0
    industry: str = "Technology"
    currency: str = "USD"
    stock_type: str = "COMMON"


_LISTINGS = (
    _Listing("AAPL", 265598, "APPLE INC", "NASDAQ", 230.0, 0.28, 2.0),
    _Listing("MSFT", 272093, "MICROSOFT CORP", "NASDAQ", 430.0, 0.26, 1.6),
    _Listing("NVDA", 4815747, "NVIDIA CORP", "NASDAQ", 140.0, 0.5, 2.5),
    _Listing("AMZN", 3691937, "AMAZON.COM INC", "NASDAQ", 200.0, 0.35, 1.5, "Consumer, Cyclical"),
    _Listing("GOOG", 208813720, "ALPHABET INC-CL C", "NASDAQ", 180.0, 0.32, 1.2, "Communications"),
    _Listing("META", 107113386, "META PLATFORMS INC-CLASS A", "NASDAQ", 580.0, 0.38, 1.2, "Communications"),
    _Listing("TSLA", 76792991, "TESLA INC", "NASDAQ", 340.0, 0.6, 2.0, "Consumer, Cyclical"),
    _Listing("AMD", 4391, "ADVANCED MICRO DEVICES", "NASDAQ", 135.0, 0.5, 1.2),
    _Listing("INTC", 270639, "INTEL CORP", "NASDAQ", 24.0, 0.45, 1.2),
    _Listing("CSCO", 268084, "CISCO SYSTEMS INC", "NASDAQ", 58.0, 0.22, 0.6, "Communications"),
    _Listing("NFLX", 15124833, "NETFLIX INC", "NASDAQ", 900.0, 0.38, 0.7, "Communications"),
    _Listing("IBM", 8314, "INTL BUSINESS MACHINES CORP", "NYSE", 225.0, 0.22, 0.6),
    _Listing("JPM", 1520593, "JPMORGAN CHASE & CO", "NYSE", 245.0, 0.25, 0.7, "Financial"),
    _Listing("BAC", 10098, "BANK OF AMERICA CORP", "NYSE", 46.0, 0.27, 0.8, "Financial"),
    _Listing("KO", 8894, "COCA-COLA CO/THE", "NYSE", 63.0, 0.15, 0.5, "Consumer, Non-cyclical"),
    _Listing("DIS", 6459, "WALT DISNEY CO/THE", "NYSE", 115.0, 0.28, 0.6, "Communications"),
    _Listing("XOM", 13977, "EXXON MOBIL CORP", "NYSE", 118.0, 0.24, 0.6, "Energy"),
    _Listing("WMT", 13824, "WALMART INC", "NYSE", 92.0, 0.2, 0.6, "Consumer, Cyclical"),
    _Listing("F", 9599491, "FORD MOTOR CO", "NYSE", 11.0, 0.38, 0.7, "Consumer, Cyclical"),
    _Listing("SPY", 756733, "SS SPDR S&P 500 ETF TRUST-US", "ARCA", 595.0, 0.14, 2.5, "Funds", stock_type="ETF"),
    _Listing("QQQ", 320227571, "INVESCO QQQ TRUST SERIES 1", "NASDAQ", 510.0, 0.19, 2.0, "Funds", stock_type="ETF"),
    _Listing("AAPL", 38708077, "APPLE INC", "MEXI", 4600.0, 0.28, 0.05, currency="MXN"),
)
_FOREIGN = (
    _Listing("SIE", _SYNTHETIC_CON_ID + 1, "SIEMENS AG-REG", "IBIS", 185.0, 0.27, 0.4, "Industrial", "EUR"),
    _Listing("SAP", _SYNTHETIC_CON_ID + 2, "SAP SE", "IBIS", 225.0, 0.27, 0.4, currency="EUR"),
)
"""Stocks for which the simulated account has no real-time permission."""
_PAIRS = (
    ("EUR", "USD", 12087792, 1.08, 0.00005),
    ("GBP", "USD", 12087797, 1.27, 0.00005),
    ("AUD", "USD", 14433401, 0.65, 0.00005),
    ("USD", "JPY", 15016059, 152.0, 0.005),
)
_INDICES = (
    ("SPX", 416904, "S&P 500 Stock Index", "CBOE", 5950.0, 0.14),
    ("VIX", 13455763, "CBOE Volatility Index", "CBOE", 15.0, 0.9),
    ("NDX", 416843, "NASDAQ 100 Stock Index", "NASDAQ", 20900.0, 0.19),
)
_FUTURES = (("ES", "E-mini S&P 500", "50", 416904), ("NQ", "E-mini NASDAQ 100", "20", 416843))
_FUTURE_MONTHS = "FGHJKMNQUVXZ"
_CHAIN_ON = 265598
_CHAIN_EXPIRIES = 4
_CHAIN_STRIKES = 10
_STRIKE_STEP = 5.0


def _stock(listing: _Listing, today: date, *, permitted: bool = True) -> Instrument:
    is_us = listing.currency == "USD"
    hours = _US_STOCKS if is_us else _EUROPE
    exchanges = _STOCK_EXCHANGES if is_us else f"SMART,{listing.exchange}"
    trading_class = "NMS" if listing.exchange == "NASDAQ" else listing.symbol
    contract = Contract(
        con_id=listing.con_id,
        symbol=listing.symbol,
        sec_type="STK",
        exchange="SMART",
        primary_exchange=listing.exchange,
        currency=listing.currency,
        local_symbol=listing.symbol,
        trading_class=trading_class,
    )
    details = _details(contract, hours, today, 0.01, exchanges, listing.name)
    details = replace(
        details, market_name=trading_class, industry=listing.industry, category=listing.name.title(),
        stock_type=listing.stock_type, agg_group=1,
    )  # fmt: skip
    return Instrument(
        details, hours, listing.price, listing.volatility, listing.activity,
        spread_ticks=1 + int(listing.price / 300), permitted=permitted,
    )  # fmt: skip


def _details(
    contract: Contract, hours: Hours, today: date, min_tick: float, exchanges: str, long_name: str
) -> ContractDetails:
    return ContractDetails(
        contract=contract,
        market_name=contract.trading_class,
        min_tick=min_tick,
        order_types=_ORDER_TYPES,
        valid_exchanges=exchanges,
        price_magnifier=1,
        long_name=long_name,
        # Clients of the text era read an integer here.
        ev_multiplier=0,
        time_zone_id=hours.zone,
        trading_hours=hours.text(today, liquid=False),
        liquid_hours=hours.text(today, liquid=True),
        market_rule_ids=",".join("26" for _ in exchanges.split(",")),
        min_size=1.0,
        size_increment=1.0,
        suggested_size_increment=100.0 if contract.sec_type == "STK" else 1.0,
    )


def _pair(base: str, quote: str, con_id: int, price: float, tick: float, today: date) -> Instrument:
    contract = Contract(
        con_id=con_id, symbol=base, sec_type="CASH", exchange="IDEALPRO", currency=quote,
        local_symbol=f"{base}.{quote}", trading_class=f"{base}.{quote}",
    )  # fmt: skip
    details = _details(contract, _FOREX, today, tick, "IDEALPRO", f"{base}/{quote}")
    return Instrument(details, _FOREX, price, 0.08, 1.5, round_lot=500_000, has_trades=False)


def _index(symbol: str, con_id: int, name: str, exchange: str, price: float, vol: float, today: date) -> Instrument:
    contract = Contract(
        con_id=con_id, symbol=symbol, sec_type="IND", exchange=exchange, currency="USD", local_symbol=symbol,
        trading_class=symbol,
    )  # fmt: skip
    details = _details(contract, _US_STOCKS, today, 0.01, exchange, name)
    return Instrument(details, _US_STOCKS, price, vol, 0.4, round_lot=0, has_quotes=False)


def _futures(symbol: str, name: str, multiplier: str, underlying: int, today: date) -> Iterator[Instrument]:
    expiries = (day for day in _third_fridays(today) if day.month % 3 == 0)
    for expiry, _ in zip(expiries, range(3), strict=False):
        contract = Contract(
            con_id=_FUTURE_CON_ID + 10 * expiry.toordinal() + underlying % 10,
            symbol=symbol,
            sec_type="FUT",
            last_trade_date=f"{expiry:%Y%m%d}",
            multiplier=multiplier,
            exchange="CME",
            currency="USD",
            local_symbol=f"{symbol}{_FUTURE_MONTHS[expiry.month - 1]}{expiry.year % 10}",
            trading_class=symbol,
        )
        details = replace(
            _details(contract, _US_FUTURES, today, 0.25, "CME,QBALGO", name),
            under_con_id=underlying, under_symbol=symbol, under_sec_type="IND",
            contract_month=f"{expiry:%Y%m}", real_expiration_date=f"{expiry:%Y%m%d}",
        )  # fmt: skip
        yield Instrument(
            details, _US_FUTURES, 0.0, 0.15, 1.5 / (1 + (expiry - today).days / 30), round_lot=1, underlying=underlying
        )


def _options(underlying: Instrument, today: date) -> Iterator[Instrument]:
    first_friday = today + timedelta(days=1 + (_FRIDAY - today.weekday() - 1) % 7)
    centre = round(underlying.price / _STRIKE_STEP)
    zone = zone_of(underlying.hours.zone)
    for week in range(_CHAIN_EXPIRIES):
        expiry = first_friday + timedelta(weeks=week)
        expires = datetime.combine(expiry, underlying.hours.liquid_closes, zone)
        for step in range(-_CHAIN_STRIKES, _CHAIN_STRIKES + 1):
            strike = (centre + step) * _STRIKE_STEP
            for right in "CP":
                symbol = underlying.contract.symbol
                contract = Contract(
                    con_id=_OPTION_CON_ID + (expiry.toordinal() % 10_000) * 10_000 + int(strike) * 2 + (right == "P"),
                    symbol=symbol,
                    sec_type="OPT",
                    last_trade_date=f"{expiry:%Y%m%d}",
                    strike=strike,
                    right=right,
                    multiplier="100",
                    exchange="SMART",
                    currency="USD",
                    local_symbol=f"{symbol:<6}{expiry:%y%m%d}{right}{round(strike * 1000):08d}",
                    trading_class=symbol,
                )
                details = replace(
                    _details(contract, underlying.hours, today, 0.01, _OPTION_EXCHANGES, underlying.details.long_name),
                    under_con_id=underlying.con_id, under_symbol=symbol, under_sec_type="STK",
                    contract_month=f"{expiry:%Y%m}", real_expiration_date=f"{expiry:%Y%m%d}",
                    last_trade_time=f"{underlying.hours.liquid_closes:%H:%M:%S}",
                )  # fmt: skip
                yield Instrument(
                    details, underlying.hours, 0.0, underlying.volatility * (1 + 0.0004 * step * step), 0.05,
                    round_lot=1, spread_ticks=4, underlying=underlying.con_id, expires_s=int(expires.timestamp()),
                )  # fmt: skip


def _third_fridays(today: date) -> Iterator[date]:
    month = today.replace(day=1)
    while True:
        third = month + timedelta(days=(_FRIDAY - month.weekday()) % 7 + 14)
        if third >= today:
            yield third
        month = (month + timedelta(days=31)).replace(day=1)


def builtin_instruments(today: date) -> list[Instrument]:
    """Make stocks, forex, indices, futures and a chain of options; futures and options expire after `today`."""
    stocks = [_stock(listing, today) for listing in _LISTINGS]
    chain_on = next(stock for stock in stocks if stock.con_id == _CHAIN_ON)
    return [
        *stocks,
        *(_stock(listing, today, permitted=False) for listing in _FOREIGN),
        *(_pair(*pair, today) for pair in _PAIRS),
        *(_index(*index, today) for index in _INDICES),
        *(future for row in _FUTURES for future in _futures(*row, today)),
        *_options(chain_on, today),
    ]


def synthetic_stock(number: int, today: date) -> Instrument:
    """Make a stock named SYM000, SYM001, …"""
    listing = _Listing(
        f"SYM{number:03d}",
        _SYNTHETIC_CON_ID + 1000 + number,
        f"SYNTHETIC {number:03d}",
        "NASDAQ",
        price=10.0 + 7.0 * (number % 60),
        volatility=0.2 + 0.02 * (number % 20),
    )
    return _stock(listing, today)


def recorded_stock(symbol: str, number: int, today: date) -> Instrument:
    """Make a stock for the symbol that a recorded file names as its `number`-th, from 0."""
    return _stock(_Listing(symbol, recorded_con_id(number), symbol, "NASDAQ", 100.0), today)


def recorded_con_id(number: int) -> int:
    """Return the con_id of a recorded file's `number`-th symbol."""
    return _RECORDED_CON_ID + number
