"""Look-up of instruments by contract, as a gateway does it.

The rule of the file: a description matches every instrument that it does not contradict; whether several are too many
is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime

from ibfast.contracts import Contract
from ibfast.sim.instruments import Instrument, builtin_instruments, recorded_stock, synthetic_stock

__all__ = ["Universe"]

_SAME_EXCHANGE = {"ISLAND": "NASDAQ"}
_RIGHTS = {"C": "C", "CALL": "C", "P": "P", "PUT": "P"}


class Universe:
    """The instruments of a gateway, found by con_id or by description."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_con_id = {instrument.con_id: instrument for instrument in instruments}
        self._by_symbol: dict[str, list[Instrument]] = {}
        for instrument in self:
            self._by_symbol.setdefault(instrument.contract.symbol, []).append(instrument)

    @classmethod
    def builtin(cls, today: date | None = None, symbols: int = 0) -> Universe:
        """Make the built-in universe.

        Args:
            today: futures and options expire after this day; default: today in UTC.
            symbols: how many synthetic stocks (SYM000 …) to add.
        """
        today = today or datetime.now(UTC).date()
        return cls([*builtin_instruments(today), *(synthetic_stock(number, today) for number in range(symbols))])

    @classmethod
    def synthetic(cls, symbols: int, today: date | None = None) -> Universe:
        """Make a universe of `symbols` synthetic stocks and nothing else, for load tests."""
        today = today or datetime.now(UTC).date()
        return cls(synthetic_stock(number, today) for number in range(symbols))

    @classmethod
    def of_symbols(cls, symbols: Iterable[str], today: date) -> Universe:
        """Make a universe of stocks with given symbols, for the symbols of a recorded file."""
        return cls(recorded_stock(symbol, number, today) for number, symbol in enumerate(symbols))

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_con_id.values())

    def __len__(self) -> int:
        return len(self._by_con_id)

    def __getitem__(self, con_id: int) -> Instrument:
        return self._by_con_id[con_id]

    def find(self, contract: Contract) -> list[Instrument]:
        """Return every instrument that `contract` may mean; a con_id decides alone."""
        if contract.con_id:
            found = self._by_con_id.get(contract.con_id)
            return [found] if found and _trades_at(found, contract.exchange) else []
        if contract.symbol:
            candidates: Iterable[Instrument] = self._by_symbol.get(contract.symbol, ())
        elif contract.local_symbol or contract.sec_id:
            candidates = self
        else:
            return []
        return [instrument for instrument in candidates if _matches(instrument, contract)]

    def search(self, pattern: str, limit: int = 16) -> list[Instrument]:
        """Return stocks and indices whose symbol or name begins with `pattern`, symbols first."""
        wanted = pattern.upper()
        listed = [instrument for instrument in self if instrument.contract.sec_type in ("STK", "IND")]
        by_symbol = [i for i in listed if i.contract.symbol.startswith(wanted)]
        by_name = [i for i in listed if i not in by_symbol and i.details.long_name.upper().startswith(wanted)]
        return (by_symbol + by_name)[:limit] if wanted else []


def _matches(instrument: Instrument, wanted: Contract) -> bool:
    own = instrument.contract
    primary = _SAME_EXCHANGE.get(wanted.primary_exchange, wanted.primary_exchange)
    right = _RIGHTS.get(wanted.right.upper(), "")
    return (
        wanted.sec_type in ("", own.sec_type)
        and wanted.currency in ("", own.currency)
        and wanted.local_symbol in ("", own.local_symbol)
        and wanted.trading_class in ("", own.trading_class)
        and primary in ("", own.primary_exchange)
        and own.last_trade_date.startswith(wanted.last_trade_date.split(" ")[0])
        and (not wanted.strike or wanted.strike == own.strike)
        and (not right or right == own.right)
        and own.multiplier in (_plain_number(wanted.multiplier) or own.multiplier, "")
        and (not wanted.sec_id or (wanted.sec_id_type, wanted.sec_id) in instrument.details.sec_ids)
        and _trades_at(instrument, wanted.exchange)
    )


def _plain_number(text: str) -> str:
    """Return "100" for "100.0": clients that hold multipliers as numbers write them so."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _trades_at(instrument: Instrument, exchange: str) -> bool:
    return not exchange or exchange in instrument.details.valid_exchanges.split(",")
