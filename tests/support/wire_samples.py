"""Random contracts, requests and messages, and the calls of official clients that send the same requests."""

from __future__ import annotations

import string
import sys
from dataclasses import asdict, replace
from typing import Any

from hypothesis import strategies as st

from ibfast.contracts import ComboLeg, Contract, DeltaNeutralContract
from ibfast.wire import requests

UNSET_DOUBLE = sys.float_info.max

# 157 to 226 at every change of a layout or a dialect.
VERSIONS = (157, 163, 164, 165, 166, 175, 176, 179, 181, 182, 185, 186, 188, 193, 194, 195, 196, 197, 200, 201, 204)
PROTOBUF_VERSIONS = (205, 206, 207, 208, 210, 211, 212, 213, 214, 215, 226)
ALL_VERSIONS = VERSIONS + PROTOBUF_VERSIONS

texts = st.text(string.ascii_letters + string.digits + " .,:/()-", max_size=12)
"""What every client sends unchanged: printable ASCII."""

req_ids = st.integers(0, 2**31 - 2)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64).filter(lambda value: value != UNSET_DOUBLE)
con_ids = st.integers(0, 2**31 - 2)

legs = st.builds(
    ComboLeg,
    con_id=con_ids,
    ratio=st.integers(0, 9),
    action=st.sampled_from(["BUY", "SELL"]),
    exchange=texts,
    open_close=st.integers(0, 3),
    short_sale_slot=st.integers(0, 2),
    designated_location=texts,
    exempt_code=st.integers(-1, 5),
)
hedges = st.builds(DeltaNeutralContract, con_id=con_ids, delta=numbers, price=numbers)
contracts = st.builds(
    Contract,
    con_id=con_ids,
    symbol=texts,
    sec_type=st.sampled_from(["STK", "OPT", "FUT", "CASH", "IND", "BAG", ""]),
    last_trade_date=st.sampled_from(["", "202406", "20240621"]),
    strike=st.none() | numbers,
    right=st.sampled_from(["", "C", "P"]),
    multiplier=st.sampled_from(["", "1", "100", "0.5"]),
    exchange=texts,
    primary_exchange=texts,
    currency=texts,
    local_symbol=texts,
    trading_class=texts,
    include_expired=st.booleans(),
    sec_id_type=texts,
    sec_id=texts,
    description=texts,
    issuer_id=texts,
    combo_legs_description=texts,
    combo_legs=st.lists(legs, max_size=3).map(tuple),
    delta_neutral_contract=st.none() | hedges,
)

all_requests = st.one_of(
    st.builds(requests.StartApi, st.integers(0, 999), texts),
    st.builds(requests.MarketData, req_ids, contracts, texts, st.booleans(), st.booleans()),
    st.builds(requests.CancelMarketData, req_ids),
    st.builds(requests.MarketDataTypeRequest, st.integers(1, 4)),
    st.builds(
        requests.TickByTick,
        req_ids,
        contracts,
        st.sampled_from(["Last", "AllLast", "BidAsk", "MidPoint"]),
        st.integers(0, 1000),
        st.booleans(),
    ),
    st.builds(requests.CancelTickByTick, req_ids),
    st.builds(requests.MarketDepth, req_ids, contracts, st.integers(0, 20), st.booleans()),
    st.builds(requests.CancelMarketDepth, req_ids, st.booleans()),
    st.builds(requests.RealTimeBars, req_ids, contracts, texts, st.booleans(), st.integers(0, 60)),
    st.builds(requests.CancelRealTimeBars, req_ids),
    st.builds(
        requests.HistoricalBars,
        req_ids,
        contracts,
        texts,
        texts,
        texts,
        st.sampled_from(["TRADES", "SCHEDULE", ""]),
        st.booleans(),
        st.integers(1, 2),
        st.booleans(),
    ),
    st.builds(requests.CancelHistoricalBars, req_ids),
    st.builds(
        requests.HistoricalTicksRequest,
        req_ids,
        contracts,
        texts,
        texts,
        st.integers(0, 1000),
        texts,
        st.booleans(),
        st.booleans(),
    ),
    st.builds(requests.CancelHistoricalTicks, req_ids),
    st.builds(requests.HeadTimestampRequest, req_ids, contracts, texts, st.booleans(), st.integers(1, 2)),
    st.builds(requests.CancelHeadTimestamp, req_ids),
    st.builds(requests.ContractDetailsRequest, req_ids, contracts),
    st.builds(requests.CancelContractDetails, req_ids),
    st.builds(requests.MatchingSymbols, req_ids, texts),
    st.builds(requests.CurrentTimeRequest),
    st.builds(requests.CurrentTimeInMillisRequest),
    st.builds(requests.OpenOrdersRequest),
    st.builds(requests.IdsRequest, st.integers(0, 99)),
    st.builds(requests.ManagedAccountsRequest),
    st.builds(requests.SetServerLogLevel, st.integers(1, 5)),
)


def official_call(request: Any) -> tuple[str, list[Any]]:
    """Return the method of an official client that sends the same request, and its arguments."""
    method, names = _CALLS[type(request)]
    args = [[] if name == "options" else getattr(request, name) for name in names.split()]
    args = [official_contract(arg) if isinstance(arg, Contract) else arg for arg in args]
    return method, [int(arg) if name == "use_rth" else arg for name, arg in zip(names.split(), args, strict=True)]


def official_contract(contract: Contract) -> dict[str, Any]:
    """Return a contract for the `args` of an oracle."""
    values = {_CONTRACT_NAMES[name]: value for name, value in asdict(contract).items()}
    values["strike"] = UNSET_DOUBLE if contract.strike is None else contract.strike
    values["comboLegs"] = [
        {_LEG_NAMES[name]: value for name, value in asdict(leg).items()} for leg in contract.combo_legs
    ]
    hedge = contract.delta_neutral_contract
    values["deltaNeutralContract"] = hedge and {"conId": hedge.con_id, "delta": hedge.delta, "price": hedge.price}
    return {"contract": values}


def with_strike(request: Any) -> Any:
    """Return the request with a strike: clients do not agree on what they send without one."""
    contract = getattr(request, "contract", None)
    if contract is None or contract.strike is not None:
        return request
    return replace(request, contract=replace(contract, strike=0.0))


_CALLS = {
    requests.StartApi: ("startApi", "client_id optional_capabilities"),
    requests.MarketData: ("reqMktData", "req_id contract generic_ticks snapshot regulatory_snapshot options"),
    requests.CancelMarketData: ("cancelMktData", "req_id"),
    requests.MarketDataTypeRequest: ("reqMarketDataType", "market_data_type"),
    requests.TickByTick: ("reqTickByTickData", "req_id contract tick_type number_of_ticks ignore_size"),
    requests.CancelTickByTick: ("cancelTickByTickData", "req_id"),
    requests.MarketDepth: ("reqMktDepth", "req_id contract num_rows is_smart_depth options"),
    requests.CancelMarketDepth: ("cancelMktDepth", "req_id is_smart_depth"),
    requests.RealTimeBars: ("reqRealTimeBars", "req_id contract bar_size what_to_show use_rth options"),
    requests.CancelRealTimeBars: ("cancelRealTimeBars", "req_id"),
    requests.HistoricalBars: (
        "reqHistoricalData",
        "req_id contract end duration bar_size what_to_show use_rth format_date keep_up_to_date options",
    ),
    requests.CancelHistoricalBars: ("cancelHistoricalData", "req_id"),
    requests.HistoricalTicksRequest: (
        "reqHistoricalTicks",
        "req_id contract start end number_of_ticks what_to_show use_rth ignore_size options",
    ),
    requests.CancelHistoricalTicks: ("cancelHistoricalTicks", "req_id"),
    requests.HeadTimestampRequest: ("reqHeadTimeStamp", "req_id contract what_to_show use_rth format_date"),
    requests.CancelHeadTimestamp: ("cancelHeadTimeStamp", "req_id"),
    requests.ContractDetailsRequest: ("reqContractDetails", "req_id contract"),
    requests.CancelContractDetails: ("cancelContractData", "req_id"),
    requests.MatchingSymbols: ("reqMatchingSymbols", "req_id pattern"),
    requests.CurrentTimeRequest: ("reqCurrentTime", ""),
    requests.CurrentTimeInMillisRequest: ("reqCurrentTimeInMillis", ""),
    requests.OpenOrdersRequest: ("reqOpenOrders", ""),
    requests.IdsRequest: ("reqIds", "num_ids"),
    requests.ManagedAccountsRequest: ("reqManagedAccts", ""),
    requests.SetServerLogLevel: ("setServerLogLevel", "level"),
}
_CONTRACT_NAMES = {
    "con_id": "conId",
    "symbol": "symbol",
    "sec_type": "secType",
    "last_trade_date": "lastTradeDateOrContractMonth",
    "strike": "strike",
    "right": "right",
    "multiplier": "multiplier",
    "exchange": "exchange",
    "primary_exchange": "primaryExchange",
    "currency": "currency",
    "local_symbol": "localSymbol",
    "trading_class": "tradingClass",
    "include_expired": "includeExpired",
    "sec_id_type": "secIdType",
    "sec_id": "secId",
    "description": "description",
    "issuer_id": "issuerId",
    "last_trade_day": "lastTradeDate",
    "combo_legs_description": "comboLegsDescrip",
    "combo_legs": "comboLegs",
    "delta_neutral_contract": "deltaNeutralContract",
}
_LEG_NAMES = {
    "con_id": "conId",
    "ratio": "ratio",
    "action": "action",
    "exchange": "exchange",
    "open_close": "openClose",
    "short_sale_slot": "shortSaleSlot",
    "designated_location": "designatedLocation",
    "exempt_code": "exemptCode",
}
