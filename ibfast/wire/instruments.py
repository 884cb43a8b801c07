"""How a contract is written inside other messages, in text and in protobuf.

The rule of the file: for each direction there is one order of fields, and both sides, the client's and the embedded
gateway's, use it.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ibfast.contracts import ComboLeg, Contract, DeltaNeutralContract
from ibfast.wire.text import FieldReader

__all__ = [
    "CONTRACT_PARTS",
    "contract_from_protobuf",
    "contract_text",
    "contract_to_protobuf",
    "read_contract_part",
]

CONTRACT_PARTS = frozenset({"contract", "legs", "hedge"})
"""Parts of a contract in a text request: its own fields, the legs of a combination, the delta-neutral hedge."""

_COMBINATION = "BAG"
_IDENTITY_BEFORE_STRIKE = ("symbol", "sec_type", "last_trade_date")
_IDENTITY_AFTER_STRIKE = (
    "right",
    "multiplier",
    "exchange",
    "primary_exchange",
    "currency",
    "local_symbol",
    "trading_class",
)
_IDENTITY = ("con_id", *_IDENTITY_BEFORE_STRIKE, "strike", *_IDENTITY_AFTER_STRIKE)
_FIELDS_PER_LEG = 4

_CONTRACT_TEXTS = {
    "symbol": "symbol",
    "sec_type": "secType",
    "last_trade_date": "lastTradeDateOrContractMonth",
    "right": "right",
    "exchange": "exchange",
    "primary_exchange": "primaryExch",
    "currency": "currency",
    "local_symbol": "localSymbol",
    "trading_class": "tradingClass",
    "sec_id_type": "secIdType",
    "sec_id": "secId",
    "description": "description",
    "issuer_id": "issuerId",
    "combo_legs_description": "comboLegsDescrip",
}
_LEG = {
    "con_id": "conId",
    "ratio": "ratio",
    "action": "action",
    "exchange": "exchange",
    "open_close": "openClose",
    "short_sale_slot": "shortSalesSlot",
    "designated_location": "designatedLocation",
    "exempt_code": "exemptCode",
}
_HEDGE = {"con_id": "conId", "delta": "delta", "price": "price"}


def contract_text(part: str, contract: Contract) -> Iterator[object]:
    """Yield the fields of one of the CONTRACT_PARTS."""
    if part == "contract":
        yield from (getattr(contract, name) for name in _IDENTITY)
    elif part == "hedge":
        hedge = contract.delta_neutral_contract
        yield hedge is not None
        if hedge is not None:
            yield from (hedge.con_id, hedge.delta, hedge.price)
    elif contract.sec_type == _COMBINATION:
        yield len(contract.combo_legs)
        for leg in contract.combo_legs:
            yield from (leg.con_id, leg.ratio, leg.action, leg.exchange)


def read_contract_part(part: str, reader: FieldReader, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read one of the CONTRACT_PARTS into attributes of a Contract; `known` are those that were read before."""
    if part == "contract":
        return {
            "con_id": reader.integer("con_id"),
            **{name: reader.text(name) for name in _IDENTITY_BEFORE_STRIKE},
            "strike": reader.optional_number("strike"),
            **{name: reader.text(name) for name in _IDENTITY_AFTER_STRIKE},
        }
    if part == "hedge":
        if not reader.boolean("delta_neutral_contract"):
            return {}
        hedge = DeltaNeutralContract(reader.integer("con_id"), reader.number("delta"), reader.number("price"))
        return {"delta_neutral_contract": hedge}
    if known.get("sec_type") != _COMBINATION:
        return {}
    legs = tuple(
        ComboLeg(reader.integer("con_id"), reader.integer("ratio"), reader.text("action"), reader.text("exchange"))
        for _ in range(reader.count("combo_legs", _FIELDS_PER_LEG))
    )
    return {"combo_legs": legs}


def contract_to_protobuf(contract: Contract) -> dict[str, Any]:
    """Return a contract as the fields of its protobuf message, as clients send it.

    Raises:
        ValueError: the multiplier is not a number.
    """
    values: dict[str, Any] = {"conId": contract.con_id, "strike": contract.strike}
    values |= {name: text for attribute, name in _CONTRACT_TEXTS.items() if (text := getattr(contract, attribute))}
    if contract.multiplier:
        values["multiplier"] = float(contract.multiplier)
    if contract.include_expired:
        values["includeExpired"] = True
    if contract.combo_legs:
        values["comboLegs"] = [_without_empty(leg, _LEG) for leg in contract.combo_legs]
    if contract.delta_neutral_contract is not None:
        values["deltaNeutralContract"] = _without_empty(contract.delta_neutral_contract, _HEDGE)
    return values


def contract_from_protobuf(values: Mapping[str, Any]) -> Contract:
    """Return the contract in a protobuf message."""
    hedge = values.get("deltaNeutralContract")
    return Contract(
        con_id=values.get("conId", 0),
        strike=values.get("strike"),
        multiplier=_multiplier(values["multiplier"]) if "multiplier" in values else "",
        include_expired=values.get("includeExpired", False),
        last_trade_day=values.get("lastTradeDate", ""),
        combo_legs=tuple(ComboLeg(**_present(leg, _LEG)) for leg in values.get("comboLegs", ())),
        delta_neutral_contract=None if hedge is None else DeltaNeutralContract(**_present(hedge, _HEDGE)),
        **_present(values, _CONTRACT_TEXTS),
    )


def _without_empty(source: object, names: Mapping[str, str]) -> dict[str, Any]:
    values = {name: getattr(source, attribute) for attribute, name in names.items()}
    return {name: value for name, value in values.items() if value != ""}


def _present(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {attribute: values[name] for attribute, name in names.items() if name in values}


def _multiplier(value: float) -> str:
    return repr(value).removesuffix(".0")
