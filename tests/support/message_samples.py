"""Random messages of a gateway, and the calls by which the official client shows them."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ibfast.contracts import Contract, ContractDetails
from ibfast.records import (
    HISTORICAL_BAR,
    HISTORICAL_TICK_BID_ASK,
    HISTORICAL_TICK_LAST,
    HISTORICAL_TICK_MIDPOINT,
    NS_PER_S,
    UNSET_INTEGER,
)
from ibfast.wire import responses
from ibfast.wire.ids import ServerVersion
from ibfast.wire.times import parse_bar_time
from tests.support.wire_samples import con_ids, numbers, official_contract, texts

ids = st.integers(-1, 2**31 - 2)
longs = st.integers(0, 2**53)
words = st.text("abcXYZ0123456789", max_size=8)
unicode_texts = st.text(
    st.characters(min_codepoint=32, max_codepoint=0xFFFD, exclude_characters="\\", exclude_categories=("Cs", "Cc")),
    max_size=12,
)
"""Without backslashes, which begin escapes, and without what takes two of them."""

sizes = st.none() | st.decimals(0, 10**9, places=4).map(float)
pairs = st.dictionaries(words, texts, max_size=3).map(lambda pairs: tuple(pairs.items()))

# What contract data tells in every dialect.
listed_contracts = st.builds(
    Contract,
    con_id=con_ids,
    symbol=texts,
    sec_type=st.sampled_from(["STK", "OPT", "FUND"]),
    last_trade_date=st.sampled_from(["", "20240621"]),
    strike=numbers,
    right=st.sampled_from(["", "C"]),
    multiplier=st.sampled_from(["", "100", "0.5"]),
    exchange=texts,
    primary_exchange=texts,
    currency=texts,
    local_symbol=texts,
    trading_class=texts,
    last_trade_day=words,
)
_DETAILS_BY_TYPE = {
    "str": texts,
    "int": st.integers(0, 2**31 - 2),
    "bool": st.booleans(),
    "float": numbers,
    "float | None": sizes,
}
_OTHERWISE = {
    "contract": listed_contracts,
    "sec_ids": pairs,
    "ineligibility_reasons": pairs,
    "last_trade_time": st.just(""),
    "maturity": st.just(""),
    "long_name": unicode_texts,
    "ev_multiplier": st.integers(0, 100).map(float),
    "fund_distribution_policy_indicator": st.sampled_from(["", "N", "Y"]),
    "fund_asset_type": st.sampled_from(["", "001"]),
}
details = st.builds(
    ContractDetails,
    **{
        item.name: _OTHERWISE[item.name] if item.name in _OTHERWISE else _DETAILS_BY_TYPE[item.type]
        for item in fields(ContractDetails)
    },
)
bond_details = st.builds(
    ContractDetails,
    contract=st.builds(Contract, con_id=con_ids, symbol=texts, sec_type=st.just("BOND"), exchange=texts),
    cusip=texts,
    coupon=numbers,
    maturity=st.sampled_from(["", "20301115"]),
    min_tick=numbers,
    callable=st.booleans(),
    long_name=texts,
    sec_ids=pairs,
    notes=texts,
    time_zone_id=words,
    min_size=sizes,
)
samples = st.builds(
    responses.SymbolSample,
    st.builds(
        Contract,
        con_id=con_ids,
        symbol=texts,
        sec_type=texts,
        primary_exchange=texts,
        currency=texts,
        description=texts,
        issuer_id=texts,
    ),
    st.lists(words, max_size=3).map(tuple),
)
epochs_ns = st.integers(10**9, 2 * 10**9).map(lambda seconds: seconds * NS_PER_S)
sizes_in_rows = sizes.map(lambda size: math.nan if size is None else size)
masks = st.integers(0, 3)


def arrays(dtype: np.dtype[np.void], *columns: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(*columns), max_size=4).map(lambda rows: np.array(rows, dtype))


bars = arrays(
    HISTORICAL_BAR, epochs_ns, numbers, numbers, numbers, numbers, sizes_in_rows, sizes_in_rows, st.integers(-1, 10**6)
)
midpoints = arrays(HISTORICAL_TICK_MIDPOINT, epochs_ns, numbers, sizes_in_rows)
quotes = arrays(HISTORICAL_TICK_BID_ASK, epochs_ns, masks, numbers, numbers, sizes_in_rows, sizes_in_rows)
trades = arrays(HISTORICAL_TICK_LAST, epochs_ns, masks, numbers, sizes_in_rows, words, words)

all_messages = st.one_of(
    st.builds(responses.NextValidId, ids),
    st.builds(responses.ManagedAccounts, st.lists(words.filter(bool), max_size=3).map(tuple)),
    st.builds(responses.ErrorMessage, ids, st.integers(0, 30000), unicode_texts, unicode_texts, longs),
    st.builds(responses.CurrentTime, longs),
    st.builds(responses.CurrentTimeInMillis, longs),
    st.just(responses.OpenOrderEnd()),
    st.builds(responses.ContractData, ids, details),
    st.builds(responses.ContractData, ids, bond_details, st.just(True)),
    st.builds(responses.ContractDataEnd, ids),
    st.builds(responses.SymbolSamples, ids, st.lists(samples, max_size=3).map(tuple)),
    st.builds(responses.HeadTimestamp, ids, texts),
    st.builds(responses.HistoricalData, ids, bars, texts, texts),
    st.builds(responses.HistoricalDataEnd, ids, texts, texts),
    st.builds(responses.HistoricalTicks, ids, midpoints | quotes | trades, st.booleans()),
    st.builds(responses.TickEfp, ids, ids, numbers, texts, numbers, ids, texts, numbers, numbers),
    st.builds(responses.TickSnapshotEnd, ids),
    st.builds(responses.MarketDataTypeMessage, ids, st.integers(1, 4)),
    st.builds(responses.TickReqParams, ids, numbers, texts, st.integers(0, 4)),
    st.builds(responses.TickNews, ids, longs, texts, texts, texts, texts),
    st.builds(responses.RerouteMarketData, ids, con_ids, texts),
    st.builds(responses.RerouteMarketDepth, ids, con_ids, texts),
)


def same(left: Any, right: Any) -> bool:
    """Tell whether two messages are equal, arrays included; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and repr(left.tolist()) == repr(right.tolist())
    if is_dataclass(left):
        return all(same(getattr(left, item.name), getattr(right, item.name)) for item in fields(left))
    return left == right or (left != left and right != right)


def official_calls(message: Any, server_version: int, is_protobuf: bool) -> list[Any]:
    """Return the calls of the official client's wrapper that show a message, numbers that are unset as None."""
    name = type(message).__name__
    if name in _CALLS:
        callback, names = _CALLS[name]
        values = {official: getattr(message, ours) for ours, official in names.items()}
        return [[callback, _plain(values)]]
    return _OTHER_CALLS[name](message, server_version, is_protobuf)


def normalized(calls: list[Any]) -> list[Any]:
    """Return the official client's calls in a form that compares: bar times as ns, absent lists as empty ones, and the
    security ids sorted, which protobuf keeps in no order."""
    for _, values in calls:
        if "bar" in values:
            values["bar"]["date"] = parse_bar_time(values["bar"]["date"], UTC)
        if "contractDetails" in values:
            details = values["contractDetails"]
            details["secIdList"] = sorted(details["secIdList"] or [], key=lambda pair: pair["tag"])
            details["ineligibilityReasonList"] = details["ineligibilityReasonList"] or []
    return calls


def _accounts(message: Any, server_version: int, is_protobuf: bool) -> list[Any]:
    return [["managedAccounts", {"accountsList": ",".join(message.accounts)}]]


def _samples(message: Any, server_version: int, is_protobuf: bool) -> list[Any]:
    descriptions = [
        {"contract": _contract(sample.contract), "derivativeSecTypes": list(sample.derivative_sec_types)}
        for sample in message.samples
    ]
    return [["symbolSamples", {"reqId": message.req_id, "contractDescriptions": descriptions}]]


def _contract_data(message: Any, server_version: int, is_protobuf: bool) -> list[Any]:
    shown = {_DETAILS_NAMES.get(name, _camel(name)): value for name, value in asdict(message.details).items()}
    shown["contract"] = _contract(message.details.contract)
    if not is_protobuf and shown["contract"]["strike"] is None and not message.is_bond:
        shown["contract"]["strike"] = 0.0
    shown["secIdList"] = [{"tag": tag, "value": value} for tag, value in sorted(message.details.sec_ids)]
    shown["ineligibilityReasonList"] = [
        {"id_": reason, "description": text} for reason, text in message.details.ineligibility_reasons
    ]
    for name in ("fundDistributionPolicyIndicator", "fundAssetType"):
        shown[name] = shown[name] or "None"
    callback = "bondContractDetails" if message.is_bond else "contractDetails"
    return [[callback, {"reqId": message.req_id, "contractDetails": _plain(shown)}]]


def _historical_data(message: Any, server_version: int, is_protobuf: bool) -> list[Any]:
    names = ("date", "open", "high", "low", "close", "volume", "wap", "barCount")
    calls = [
        ["historicalData", {"reqId": message.req_id, "bar": _plain(dict(zip(names, row, strict=True)))}]
        for row in message.bars.tolist()
    ]
    if server_version < ServerVersion.HISTORICAL_DATA_END:
        calls.append(["historicalDataEnd", {"reqId": message.req_id, "start": message.start, "end": message.end}])
    return calls


def _historical_ticks(message: Any, server_version: int, is_protobuf: bool) -> list[Any]:
    callback, names, flags_name, flags = _TICK_CALLS[message.ticks.dtype]
    ticks = []
    for row in message.ticks.tolist():
        values = dict(zip(names, row, strict=True))
        values["time"] //= NS_PER_S
        if flags_name:
            mask = values.pop("mask")
            values[flags_name] = {flag: bool(mask >> bit & 1) for bit, flag in enumerate(flags)}
        ticks.append(_plain(values))
    return [[callback, {"reqId": message.req_id, "ticks": ticks, "done": message.done}]]


def _contract(contract: Contract) -> dict[str, Any]:
    return _plain(official_contract(contract)["contract"])


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    unset = value == UNSET_INTEGER or value == 1.7976931348623157e308 or value != value
    return None if unset else value


_REQ_ID = {"req_id": "reqId"}
_CALLS: dict[str, tuple[str, dict[str, str]]] = {
    "NextValidId": ("nextValidId", {"order_id": "orderId"}),
    "ErrorMessage": (
        "error",
        _REQ_ID
        | {
            "error_time_ms": "errorTime",
            "code": "errorCode",
            "message": "errorString",
            "advanced_order_reject": "advancedOrderRejectJson",
        },
    ),
    "CurrentTime": ("currentTime", {"time_s": "time"}),
    "OpenOrderEnd": ("openOrderEnd", {}),
    "CurrentTimeInMillis": ("currentTimeInMillis", {"time_ms": "timeInMillis"}),
    "ContractDataEnd": ("contractDetailsEnd", _REQ_ID),
    "HeadTimestamp": ("headTimestamp", _REQ_ID | {"timestamp": "headTimestamp"}),
    "HistoricalDataEnd": ("historicalDataEnd", _REQ_ID | {"start": "start", "end": "end"}),
    "TickEfp": (
        "tickEFP",
        _REQ_ID
        | {
            "tick_type": "tickType",
            "basis_points": "basisPoints",
            "formatted_basis_points": "formattedBasisPoints",
            "total_dividends": "totalDividends",
            "hold_days": "holdDays",
            "future_last_trade_date": "futureLastTradeDate",
            "dividend_impact": "dividendImpact",
            "dividends_to_last_trade_date": "dividendsToLastTradeDate",
        },
    ),
    "TickSnapshotEnd": ("tickSnapshotEnd", _REQ_ID),
    "MarketDataTypeMessage": ("marketDataType", _REQ_ID | {"market_data_type": "marketDataType"}),
    "TickReqParams": (
        "tickReqParams",
        {
            "req_id": "tickerId",
            "min_tick": "minTick",
            "bbo_exchange": "bboExchange",
            "snapshot_permissions": "snapshotPermissions",
        },
    ),
    "TickNews": (
        "tickNews",
        {
            "req_id": "tickerId",
            "time_ms": "timeStamp",
            "provider_code": "providerCode",
            "article_id": "articleId",
            "headline": "headline",
            "extra_data": "extraData",
        },
    ),
    "RerouteMarketData": ("rerouteMktDataReq", _REQ_ID | {"con_id": "conId", "exchange": "exchange"}),
    "RerouteMarketDepth": ("rerouteMktDepthReq", _REQ_ID | {"con_id": "conId", "exchange": "exchange"}),
}
_OTHER_CALLS = {
    "ManagedAccounts": _accounts,
    "ContractData": _contract_data,
    "SymbolSamples": _samples,
    "HistoricalData": _historical_data,
    "HistoricalTicks": _historical_ticks,
}
_TICK_CALLS: dict[Any, tuple[str, tuple[str, ...], str, tuple[str, ...]]] = {
    HISTORICAL_TICK_MIDPOINT: ("historicalTicks", ("time", "price", "size"), "", ()),
    HISTORICAL_TICK_BID_ASK: (
        "historicalTicksBidAsk",
        ("time", "mask", "priceBid", "priceAsk", "sizeBid", "sizeAsk"),
        "tickAttribBidAsk",
        ("bidPastLow", "askPastHigh"),
    ),
    HISTORICAL_TICK_LAST: (
        "historicalTicksLast",
        ("time", "mask", "price", "size", "exchange", "specialConditions"),
        "tickAttribLast",
        ("pastLimit", "unreported"),
    ),
}
_DETAILS_NAMES = {
    "sec_ids": "secIdList",
    "ineligibility_reasons": "ineligibilityReasonList",
    "event_contract": "eventContract1",
}
