"""How contract details are written, in text and in protobuf.

The rule of the file: one layout serves both directions. Stocks and everything else that is not a bond share one layout,
bonds have their own.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ibfast.contracts import Contract, ContractDetails
from ibfast.wire.ids import ServerVersion
from ibfast.wire.instruments import contract_from_protobuf, contract_to_protobuf
from ibfast.wire.layout import items, protobuf_value, read_item, write_item, write_protobuf
from ibfast.wire.text import FieldReader, size_to_field

__all__ = ["details_from_protobuf", "details_to_protobuf", "read_details", "write_details"]

_SIZES = " ".join(
    f"{name}>={ServerVersion.SIZE_RULES:d}" for name in ("min_size", "size_increment", "suggested_size_increment")
)
_TEXT = (
    "contract.symbol contract.sec_type expiry "
    f"contract.last_trade_day>={ServerVersion.LAST_TRADE_DATE:d} "
    "contract.strike contract.right contract.exchange contract.currency contract.local_symbol market_name "
    "contract.trading_class contract.con_id min_tick "
    f"-<{ServerVersion.SIZE_RULES:d} "
    "contract.multiplier order_types valid_exchanges price_magnifier under_con_id long_name~ "
    "contract.primary_exchange contract_month industry category subcategory time_zone_id trading_hours liquid_hours "
    "ev_rule ev_multiplier sec_ids agg_group under_symbol under_sec_type market_rule_ids real_expiration_date "
    f"stock_type ->={ServerVersion.FRACTIONAL_SIZES:d}<{ServerVersion.SIZE_RULES:d} "
    f"{_SIZES} "
    f"fund>={ServerVersion.FUND_FIELDS:d} ineligibility_reasons>={ServerVersion.INELIGIBILITY_REASONS:d}"
)
_BOND_TEXT = (
    "contract.symbol contract.sec_type cusip coupon expiry issue_date ratings bond_type coupon_type convertible "
    "callable putable desc_append contract.exchange contract.currency market_name contract.trading_class "
    f"contract.con_id min_tick -<{ServerVersion.SIZE_RULES:d} "
    "order_types valid_exchanges next_option_date next_option_type next_option_partial notes long_name "
    f"time_zone_id>={ServerVersion.BOND_TRADING_HOURS:d} trading_hours>={ServerVersion.BOND_TRADING_HOURS:d} "
    f"liquid_hours>={ServerVersion.BOND_TRADING_HOURS:d} "
    f"ev_rule ev_multiplier sec_ids agg_group market_rule_ids {_SIZES}"
)
_FUND = "FUND"
_FUND_TEXT = (
    "fund_name fund_family fund_type fund_front_load fund_back_load fund_back_load_time_interval fund_management_fee "
    "fund_closed fund_closed_for_new_investors fund_closed_for_new_money fund_notify_amount "
    "fund_minimum_initial_purchase fund_subsequent_minimum_purchase fund_blue_sky_states fund_blue_sky_territories "
    "fund_distribution_policy_indicator fund_asset_type"
)
_PAIRS = frozenset({"sec_ids", "ineligibility_reasons"})
_FIELDS_PER_PAIR = 2

_NAMES = {
    "market_name": "marketName",
    "min_tick": "minTick",
    "order_types": "orderTypes",
    "valid_exchanges": "validExchanges",
    "price_magnifier": "priceMagnifier",
    "under_con_id": "underConId",
    "long_name": "longName",
    "contract_month": "contractMonth",
    "industry": "industry",
    "category": "category",
    "subcategory": "subcategory",
    "time_zone_id": "timeZoneId",
    "trading_hours": "tradingHours",
    "liquid_hours": "liquidHours",
    "ev_rule": "evRule",
    "ev_multiplier": "evMultiplier",
    "agg_group": "aggGroup",
    "under_symbol": "underSymbol",
    "under_sec_type": "underSecType",
    "market_rule_ids": "marketRuleIds",
    "real_expiration_date": "realExpirationDate",
    "stock_type": "stockType",
    "min_size": "minSize",
    "size_increment": "sizeIncrement",
    "suggested_size_increment": "suggestedSizeIncrement",
    "min_algo_size": "minAlgoSize",
    "last_price_precision": "lastPricePrecision",
    "last_size_precision": "lastSizePrecision",
    "cusip": "cusip",
    "ratings": "ratings",
    "desc_append": "descAppend",
    "bond_type": "bondType",
    "coupon_type": "couponType",
    "callable": "callable",
    "putable": "puttable",
    "coupon": "coupon",
    "convertible": "convertible",
    "issue_date": "issueDate",
    "next_option_date": "nextOptionDate",
    "next_option_type": "nextOptionType",
    "next_option_partial": "nextOptionPartial",
    "notes": "bondNotes",
    "fund_name": "fundName",
    "fund_family": "fundFamily",
    "fund_type": "fundType",
    "fund_front_load": "fundFrontLoad",
    "fund_back_load": "fundBackLoad",
    "fund_back_load_time_interval": "fundBackLoadTimeInterval",
    "fund_management_fee": "fundManagementFee",
    "fund_closed": "fundClosed",
    "fund_closed_for_new_investors": "fundClosedForNewInvestors",
    "fund_closed_for_new_money": "fundClosedForNewMoney",
    "fund_notify_amount": "fundNotifyAmount",
    "fund_minimum_initial_purchase": "fundMinimumInitialPurchase",
    "fund_subsequent_minimum_purchase": "fundMinimumSubsequentPurchase",
    "fund_blue_sky_states": "fundBlueSkyStates",
    "fund_blue_sky_territories": "fundBlueSkyTerritories",
    "fund_distribution_policy_indicator": "fundDistributionPolicyIndicator",
    "fund_asset_type": "fundAssetType",
    "event_contract": "eventContract1",
    "event_contract_description1": "eventContractDescription1",
    "event_contract_description2": "eventContractDescription2",
    "settlement_method": "settlementMethod",
}
"""attribute → field of the protobuf message, of all that are one field."""


def read_details(reader: FieldReader, server_version: int, is_bond: bool) -> ContractDetails:
    """Read contract details from what follows the req_id of a text message."""
    values: dict[str, Any] = {}
    contract: dict[str, Any] = {}
    for item in items(_BOND_TEXT if is_bond else _TEXT, server_version):
        if item == "expiry":
            _split_expiry(reader.text(item), is_bond, values, contract)
        elif item in _PAIRS:
            count = reader.count(item, _FIELDS_PER_PAIR)
            values[item] = tuple((reader.text(item), reader.text(item)) for _ in range(count))
        elif item == "fund":
            for fund_item in items(_FUND_TEXT, server_version) if contract["sec_type"] == _FUND else ():
                read_item(reader, fund_item, ContractDetails, values, contract)
        else:
            read_item(reader, item, ContractDetails, values, contract)
    return ContractDetails(contract=Contract(**contract), **values)


def write_details(details: ContractDetails, server_version: int, is_bond: bool) -> Iterator[object]:
    """Yield what follows the req_id in a text message."""
    for item in items(_BOND_TEXT if is_bond else _TEXT, server_version):
        if item == "expiry":
            yield _join_expiry(details, is_bond)
        elif item in _PAIRS:
            pairs = getattr(details, item)
            yield len(pairs)
            yield from (field for pair in pairs for field in pair)
        elif item == "fund":
            if details.contract.sec_type == _FUND:
                yield from (write_item(details, fund_item) for fund_item in items(_FUND_TEXT, server_version))
        else:
            # Clients read the economic-value multiplier as an integer, in text.
            yield size_to_field(write_item(details, item))


def details_from_protobuf(
    contract_values: Mapping[str, Any], details_values: Mapping[str, Any], is_bond: bool
) -> ContractDetails:
    """Return the details in a protobuf message.

    Raises:
        DecodeError: a number that is sent as text is none.
    """
    types = ContractDetails.__annotations__
    values = {
        attribute: protobuf_value(name, types[attribute], details_values[name])
        for attribute, name in _NAMES.items()
        if name in details_values
    }
    values["sec_ids"] = tuple(details_values.get("secIdList", {}).items())
    values["ineligibility_reasons"] = tuple(
        (reason.get("id", ""), reason.get("description", ""))
        for reason in details_values.get("ineligibilityReasonList", ())
    )
    contract = dict(contract_values)
    expiry: dict[str, Any] = {}
    _split_expiry(contract.get("lastTradeDateOrContractMonth", ""), is_bond, values, expiry)
    if expiry:
        contract["lastTradeDateOrContractMonth"] = expiry["last_trade_date"]
    return ContractDetails(contract=contract_from_protobuf(contract), **values)


def details_to_protobuf(details: ContractDetails, is_bond: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the Contract and of the ContractDetails message."""
    contract = contract_to_protobuf(details.contract)
    contract["lastTradeDateOrContractMonth"] = _join_expiry(details, is_bond) or None
    contract["lastTradeDate"] = details.contract.last_trade_day or None
    values = write_protobuf(details, _NAMES)
    values["secIdList"] = dict(details.sec_ids)
    values["ineligibilityReasonList"] = [
        {"id": reason_id, "description": description} for reason_id, description in details.ineligibility_reasons
    ]
    return contract, values


def _split_expiry(expiry: str, is_bond: bool, values: dict[str, Any], contract: dict[str, Any]) -> None:
    # One field holds a date and, behind a blank or a hyphen, a time and for bonds a zone.
    parts = expiry.split("-") if "-" in expiry else expiry.split()
    if is_bond:
        values.update(zip(("maturity", "last_trade_time", "time_zone_id"), parts, strict=False))
    else:
        contract.update(zip(("last_trade_date",), parts, strict=False))
        values.update(zip(("last_trade_time",), parts[1:], strict=False))


def _join_expiry(details: ContractDetails, is_bond: bool) -> str:
    if not is_bond:
        parts = [details.contract.last_trade_date, details.last_trade_time]
    elif details.last_trade_time:
        parts = [details.maturity, details.last_trade_time, details.time_zone_id]
    else:
        parts = [details.maturity]
    return " ".join(part for part in parts if part)
