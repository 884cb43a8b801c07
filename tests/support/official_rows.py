"""What the records of a message have to be, from what an official client's decoder makes of the same bytes.

The rule of the file: where the official client puts a value of its own in the place of one that the message lacks, the
function says so and why; every other value has to be equal to the bit.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC
from typing import Any, NamedTuple

import numpy as np

from ibfast import Kind
from ibfast.wire.times import parse_bar_time
from tests.support.decoded import Decoded, same_numbers
from tests.support.oracles import NEW_CLIENT, Oracle
from tests.support.streams import (
    BAR_UPDATE,
    MARKET_DEPTH,
    MARKET_DEPTH_L2,
    REAL_TIME_BAR,
    TICK_BY_TICK,
    TICK_GENERIC,
    TICK_OPTION,
    TICK_PRICE,
    TICK_SIZE,
    TICK_STRING,
    Message,
)
from tests.support.tick_streams import RT_VOLUME_TYPES, TIMESTAMP_TYPES, UNSET_TEXTS

NS_PER_S = 10**9
OFFICIAL_UNSET_DOUBLE = 1.7976931348623157e308
OFFICIAL_UNSET_DECIMAL = str(2**127 - 1)
OFFICIAL_UNSET_INTEGER = 2**31 - 1
ABSENT_BYTE = 255
GREEKS = ("implied_vol", "delta", "option_price", "pv_dividend", "gamma", "vega", "theta", "und_price")
LEVEL1_KINDS = (Kind.L1_LAST, Kind.L1_QUOTE)


class Row(NamedTuple):
    """A row that must come out of the ring named."""

    ring: str
    columns: dict[str, Any]


def price(raw: Any, official: float | None) -> float:
    """A price as a record has it: NaN where the message has none, or IB's unset one."""
    if raw in ("", None):
        # Official decoders show 0.0 for an empty field, and 0.0, None or the unset value for an absent one.
        assert official in (None, 0.0, OFFICIAL_UNSET_DOUBLE)
        return np.nan
    return np.nan if official is None or official == OFFICIAL_UNSET_DOUBLE else float(official)


def size(raw: Any, official: Any) -> float:
    """A size as a record has it. Official decoders know the unset spellings only in Decimal fields of text."""
    if raw is None or raw in UNSET_TEXTS or raw == str(int(UNSET_TEXTS[1])):
        return np.nan
    return np.nan if official == OFFICIAL_UNSET_DECIMAL else float(official)


def is_no_data(price: float, size: float) -> bool:
    """Whether IB says by this price and size that there is none."""
    if np.isnan(price):
        return not size > 0
    return (size == 0 and price in (-1, 0)) or (price == -1 and (np.isnan(size) or size == -1))


def known(size: float) -> float:
    """A size as a derived record has it."""
    return np.nan if size == -1 else size


def tick(
    kind: Kind,
    req_id: int,
    tick_type: int,
    attribs: int = 0,
    price: float = np.nan,
    size: float = np.nan,
    text: str = "",
) -> Row:
    return Row(
        "ticks",
        {
            "kind": kind,
            "req_id": req_id,
            "tick_type": tick_type,
            "attribs": attribs,
            "price": price,
            "size": size,
            "text": text,
        },
    )


def integer(raw: Any, official: int, absent: int) -> int:
    """An integer as a record has it. Official decoders show 0 for an empty field, and 0 or theirs for an absent one."""
    if raw in ("", None):
        assert official in (0, -1, 7, OFFICIAL_UNSET_INTEGER)  # 7: their unset integer, taken for a mask
        return absent
    return official


def tick_type_of(message: Message, official: int) -> int:
    return integer(message.values["tick_type"], official, absent=-1)


def attribs_of(message: Message, official: int) -> int:
    return integer(message.values["attribs"], official, absent=0)


def expected_price(message: Message, calls: list[Any]) -> list[Row]:
    (_, req_id, tick_type, official_price, mask), *size_calls = calls
    raw_size = message.values["size"]
    # A type without a size type of its own: the official client drops the size, the record keeps it.
    official_size = size_calls[0][3] if size_calls else raw_size or np.nan
    return [
        tick(
            Kind.PRICE,
            req_id,
            tick_type_of(message, tick_type),
            attribs_of(message, mask),
            price(message.values["price"], official_price),
            size(raw_size, official_size),
        )
    ]


def expected_size(message: Message, calls: list[Any]) -> list[Row]:
    ((_, req_id, tick_type, official_size),) = calls
    return [tick(Kind.SIZE, req_id, tick_type_of(message, tick_type), size=size(message.values["size"], official_size))]


def expected_generic(message: Message, calls: list[Any]) -> list[Row]:
    ((_, req_id, tick_type, value),) = calls
    return [tick(Kind.GENERIC, req_id, tick_type_of(message, tick_type), price=price(message.values["price"], value))]


def expected_string(message: Message, calls: list[Any]) -> list[Row]:
    """Timestamps and RTVolume are numbers in the record, and texts to the official client."""
    ((_, req_id, tick_type, text),) = calls
    tick_type = tick_type_of(message, tick_type)
    if tick_type in TIMESTAMP_TYPES:
        return [tick(Kind.STRING, req_id, tick_type, price=float(text))]
    if tick_type not in RT_VOLUME_TYPES:
        return [tick(Kind.STRING, req_id, tick_type, text=text)]
    price_text, size_text, time_ms, _, _, single = text.split(";")
    traded = {"price": float(price_text) if price_text else np.nan, "size": float(size_text)}
    line = tick(Kind.STRING, req_id, tick_type, **traded)
    if is_no_data(*traded.values()):
        return [line]
    return [
        line,
        Row(
            "trades",
            {
                "kind": Kind.RT_VOLUME,
                "req_id": req_id,
                "event_ns": int(time_ms) * 1_000_000,
                "price": traded["price"],
                "size": known(traded["size"]),
                "attribs": int(single == "true"),
                "exchange": "",
                "conditions": "",
            },
        ),
    ]


def expected_depth(message: Message, calls: list[Any]) -> list[Row]:
    if message.msg_id == MARKET_DEPTH:
        ((_, req_id, position, operation, side, official_price, official_size),) = calls
        kind, market_maker, is_smart = Kind.DEPTH, "", False
    else:
        ((_, req_id, position, market_maker, operation, side, official_price, official_size, is_smart),) = calls
        kind = Kind.DEPTH_L2
    values = message.values
    return [
        Row(
            "depth",
            {
                "kind": kind,
                "req_id": req_id,
                "position": integer(values["position"], position, absent=-1),
                "operation": integer(values["operation"], operation, absent=ABSENT_BYTE),
                "side": integer(values["side"], side, absent=ABSENT_BYTE),
                "attribs": int(is_smart),
                "market_maker": market_maker,
                "price": price(values["price"], official_price),
                "size": size(values["size"], official_size),
            },
        )
    ]


def expected_option(message: Message, calls: list[Any]) -> list[Row]:
    ((_, req_id, tick_type, attribs, *numbers),) = calls
    return [
        Row(
            "greeks",
            {
                "kind": Kind.OPTION,
                "req_id": req_id,
                "tick_type": tick_type_of(message, tick_type),
                "attribs": attribs_of(message, attribs),
                **{name: price(message.values[name], number) for name, number in zip(GREEKS, numbers, strict=True)},
            },
        )
    ]


def expected_bar(message: Message, calls: list[Any]) -> list[Row]:
    ((name, req_id, time, open_, high, low, close, volume, wap, count),) = calls
    values = message.values
    if name == "realtimeBar":
        kind, event_ns = Kind.REALTIME_BAR, time * NS_PER_S
    else:
        kind, event_ns = Kind.UPDATE_BAR, parse_bar_time(time, UTC) if time else 0
    return [
        Row(
            "bars",
            {
                "kind": kind,
                "req_id": req_id,
                "event_ns": event_ns,
                "open": price(values["open"], open_),
                "high": price(values["high"], high),
                "low": price(values["low"], low),
                "close": price(values["close"], close),
                "volume": known(size(values["volume"], volume)),
                "wap": known(size(values["wap"], wap)),
                "count": -1 if values["count"] in ("", None) or count == OFFICIAL_UNSET_INTEGER else count,
            },
        )
    ]


def expected_by_tick(message: Message, calls: list[Any]) -> list[Row]:
    ((name, req_id, *rest),) = calls
    values = message.values
    if name == "tickByTickAllLast":
        tick_type, time, official_price, official_size, mask, exchange, conditions = rest
        traded = price(values["price"], official_price), size(values["size"], official_size)
        return [
            Row(
                "trades",
                {
                    "kind": Kind.LAST if tick_type == 1 else Kind.ALL_LAST,
                    "req_id": req_id,
                    "event_ns": time * NS_PER_S,
                    "price": np.nan if is_no_data(*traded) else traded[0],
                    "size": known(traded[1]),
                    "attribs": mask,
                    "exchange": exchange,
                    "conditions": conditions,
                },
            )
        ]
    if name == "tickByTickMidPoint":
        time, midpoint = rest
        kind, bid_size, ask_size, mask = Kind.MIDPOINT, np.nan, np.nan, 0
        bid = ask = price(values["price"], midpoint)
    else:
        time, bid, ask, bid_size, ask_size, mask = rest
        kind, bid, ask = Kind.BID_ASK, price(values["bid"], bid), price(values["ask"], ask)
        bid_size, ask_size = size(values["bid_size"], bid_size), size(values["ask_size"], ask_size)
    return [
        Row(
            "quotes",
            {
                "kind": kind,
                "req_id": req_id,
                "event_ns": time * NS_PER_S,
                "bid": np.nan if is_no_data(bid, bid_size) else bid,
                "ask": np.nan if is_no_data(ask, ask_size) else ask,
                "bid_size": known(bid_size),
                "ask_size": known(ask_size),
                "attribs": mask,
            },
        )
    ]


EXPECTED = {
    TICK_PRICE: expected_price,
    TICK_SIZE: expected_size,
    TICK_GENERIC: expected_generic,
    TICK_STRING: expected_string,
    MARKET_DEPTH: expected_depth,
    MARKET_DEPTH_L2: expected_depth,
    TICK_OPTION: expected_option,
    REAL_TIME_BAR: expected_bar,
    BAR_UPDATE: expected_bar,
    TICK_BY_TICK: expected_by_tick,
}


def official_client(requirement: str = NEW_CLIENT) -> Oracle:
    """Start an official client's decoder in its own environment."""
    return Oracle("oracle_ticks.py", requirement)


def expected_rows(client: Oracle, server_version: int, messages: list[Message]) -> list[tuple[Message, Row]]:
    """Return the rows that the messages have to become, each beside its message."""
    answers = client.ask(server_version=server_version, payloads=[message.payload.hex() for message in messages])
    expected: list[tuple[Message, Row]] = []
    for message, calls in zip(messages, answers, strict=True):
        assert calls, message
        assert calls[0][0] != "raised", (message, calls)
        calls = [(name, integer(message.values["req_id"], req_id, absent=-1), *rest) for name, req_id, *rest in calls]
        expected += [(message, row) for row in EXPECTED[message.msg_id](message, calls)]
    return expected


def assert_rows(decoded: Decoded, expected: list[tuple[Message, Row]]) -> None:
    """Compare all rows but those derived from level 1, column by column, and their order over all rings."""
    sequence: list[tuple[int, str]] = []
    by_ring: dict[str, list[tuple[Message, Row]]] = defaultdict(list)
    for message, row in expected:
        by_ring[row.ring].append((message, row))
    for ring, rows in decoded.rows.items():
        rows = rows[~np.isin(rows["kind"], LEVEL1_KINDS)]
        sequence += [(int(seq), ring) for seq in rows["seq"]]
        wanted = by_ring[ring]
        assert len(rows) == len(wanted), ring
        for name in wanted[0][1].columns if wanted else ():
            column = rows[name]
            if name in ("text", "exchange", "conditions", "market_maker"):
                column = np.array([decoded.feed.texts[i] for i in column.tolist()], dtype=object)
            values = [row.columns[name] for _, row in wanted]
            same = same_numbers(column, np.array(values, dtype=column.dtype))
            assert same.all(), [(ring, name, column[i], values[i], wanted[i][0]) for i in np.flatnonzero(~same)[:5]]
    assert [ring for _, ring in sorted(sequence)] == [row.ring for _, row in expected]
