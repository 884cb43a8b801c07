"""The tick path as bytes: what the embedded gateway writes thousands of times a second.

The rule of the file: one look-up by the type of the message, then straight-line code; a few microseconds each. Text is
made by f-strings, protobuf by writers that are put together once, from the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeGuard

from ibfast.sim.ticks import (
    DepthL2,
    DepthUpdate,
    HistoricalDataUpdate,
    RealTimeBar,
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickByTickMidPoint,
    TickGeneric,
    TickOption,
    TickPrice,
    TickSize,
    TickString,
)
from ibfast.wire import protobuf
from ibfast.wire.ids import Incoming, ServerVersion
from ibfast.wire.protobuf_ids import INCOMING_PROTOBUF_SINCE
from ibfast.wire.text import ID_LENGTH, escape, size_to_field

__all__ = ["encode", "is_tick"]

_BodyWriter: TypeAlias = Callable[[Any], bytes]

_BID_ASK, _MID_POINT = 3, 4
_FIRST_BIT, _SECOND_BIT = 1, 2
_NO_CONSTANTS: Mapping[str, int] = {}


def is_tick(message: object) -> TypeGuard[Tick]:
    """Return whether a message is one of the tick path."""
    return type(message) in _CODECS


def encode(tick: Tick, server_version: int) -> bytes:
    """Return the payload of a tick in the dialect that the server version demands."""
    protobuf_since, text_id, raw_id, protobuf_id, text_body, protobuf_body = _CODECS[type(tick)]
    if server_version >= protobuf_since:
        return protobuf_id + protobuf_body(tick)
    body = text_body(tick).encode()
    return (raw_id if server_version >= ServerVersion.RAW_MESSAGE_ID else text_id) + body


def _number(value: float | None) -> str:
    # str, not repr: the number may be numpy's. A NaN is unlike itself.
    return "" if value is None or value != value else str(value)


def _text_price(tick: TickPrice) -> str:
    return (
        f"6\0{tick.req_id}\0{tick.tick_type}\0{_number(tick.price)}\0{size_to_field(tick.size)}\0{tick.attrib_mask}\0"
    )


def _text_size(tick: TickSize) -> str:
    return f"6\0{tick.req_id}\0{tick.tick_type}\0{size_to_field(tick.size)}\0"


def _text_option(tick: TickOption) -> str:
    return (
        f"{tick.req_id}\0{tick.tick_type}\0{_number(tick.attribs)}\0{_number(tick.implied_vol)}\0{_number(tick.delta)}\0"
        f"{_number(tick.option_price)}\0{_number(tick.pv_dividend)}\0{_number(tick.gamma)}\0{_number(tick.vega)}\0"
        f"{_number(tick.theta)}\0{_number(tick.und_price)}\0"
    )


def _text_generic(tick: TickGeneric) -> str:
    return f"6\0{tick.req_id}\0{tick.tick_type}\0{_number(tick.value)}\0"


def _text_string(tick: TickString) -> str:
    return f"6\0{tick.req_id}\0{tick.tick_type}\0{escape(tick.value)}\0"


def _text_depth(tick: DepthUpdate) -> str:
    return (
        f"1\0{tick.req_id}\0{tick.position}\0{tick.operation}\0{tick.side}\0{_number(tick.price)}\0"
        f"{size_to_field(tick.size)}\0"
    )


def _text_depth_l2(tick: DepthL2) -> str:
    return (
        f"1\0{tick.req_id}\0{tick.position}\0{tick.market_maker}\0{tick.operation}\0{tick.side}\0{_number(tick.price)}\0"
        f"{size_to_field(tick.size)}\0{tick.is_smart_depth:d}\0"
    )


def _text_real_time_bar(bar: RealTimeBar) -> str:
    return (
        f"3\0{bar.req_id}\0{bar.time_s}\0{_number(bar.open)}\0{_number(bar.high)}\0{_number(bar.low)}\0"
        f"{_number(bar.close)}\0{size_to_field(bar.volume)}\0{size_to_field(bar.wap)}\0{_number(bar.count)}\0"
    )


def _text_update(bar: HistoricalDataUpdate) -> str:
    # The close comes before high and low.
    return (
        f"{bar.req_id}\0{_number(bar.count)}\0{bar.date}\0{_number(bar.open)}\0{_number(bar.close)}\0{_number(bar.high)}\0"
        f"{_number(bar.low)}\0{size_to_field(bar.wap)}\0{size_to_field(bar.volume)}\0"
    )


def _text_last(tick: TickByTickLast) -> str:
    return (
        f"{tick.req_id}\0{tick.tick_type}\0{tick.time_s}\0{_number(tick.price)}\0{size_to_field(tick.size)}\0{tick.attrib_mask}\0"
        f"{tick.exchange}\0{tick.conditions}\0"
    )


def _text_bid_ask(tick: TickByTickBidAsk) -> str:
    return (
        f"{tick.req_id}\0{_BID_ASK}\0{tick.time_s}\0{_number(tick.bid)}\0{_number(tick.ask)}\0{size_to_field(tick.bid_size)}\0"
        f"{size_to_field(tick.ask_size)}\0{tick.attrib_mask}\0"
    )


def _text_mid_point(tick: TickByTickMidPoint) -> str:
    return f"{tick.req_id}\0{_MID_POINT}\0{tick.time_s}\0{_number(tick.price)}\0"


def _writer(message: str, constants: Mapping[str, int] = _NO_CONSTANTS, /, **parts: str | _BodyWriter) -> _BodyWriter:
    """Put together the function that writes a message's body.

    Args:
        message: its name in the schema.
        constants: fields with the same value in each message.
        parts: field → the attribute that it shows, or the writer of a nested message.
    """
    fixed = protobuf.encode(message, constants)
    attributes = []
    nested = []
    for name, part in parts.items():
        tag, write = protobuf.field_writer(message, name)
        if isinstance(part, str):
            attributes.append((part, tag, write))
        else:
            nested.append((part, tag, write))

    def body(tick: Any) -> bytes:
        written = [fixed]
        for attribute, tag, write in attributes:
            value = getattr(tick, attribute)
            if value is not None and value == value:
                written.append(tag + write(value))
        for part, tag, write in nested:
            written.append(tag + write(part(tick)))
        return b"".join(written)

    return body


def _flags(message: str, first: str, second: str) -> _BodyWriter:
    # The bits of `attrib_mask` as two fields.
    bodies = [
        protobuf.encode(message, {first: bool(mask & _FIRST_BIT), second: bool(mask & _SECOND_BIT)})
        for mask in range(4)
    ]
    return lambda tick: bodies[tick.attrib_mask & (_FIRST_BIT | _SECOND_BIT)]


_BOOK = {"position": "position", "operation": "operation", "side": "side", "price": "price", "size": "size"}
_BAR = {"open": "open", "high": "high", "low": "low", "close": "close", "volume": "volume", "WAP": "wap"}

_FORMS: dict[type, tuple[Incoming, Callable[[Any], str], _BodyWriter]] = {
    TickPrice: (
        Incoming.TICK_PRICE,
        _text_price,
        _writer("TickPrice", reqId="req_id", tickType="tick_type", price="price", size="size", attrMask="attrib_mask"),
    ),
    TickSize: (
        Incoming.TICK_SIZE,
        _text_size,
        _writer("TickSize", reqId="req_id", tickType="tick_type", size="size"),
    ),
    TickOption: (
        Incoming.TICK_OPTION_COMPUTATION,
        _text_option,
        _writer(
            "TickOptionComputation",
            reqId="req_id",
            tickType="tick_type",
            tickAttrib="attribs",
            impliedVol="implied_vol",
            delta="delta",
            optPrice="option_price",
            pvDividend="pv_dividend",
            gamma="gamma",
            vega="vega",
            theta="theta",
            undPrice="und_price",
        ),
    ),
    TickGeneric: (
        Incoming.TICK_GENERIC,
        _text_generic,
        _writer("TickGeneric", reqId="req_id", tickType="tick_type", value="value"),
    ),
    TickString: (
        Incoming.TICK_STRING,
        _text_string,
        _writer("TickString", reqId="req_id", tickType="tick_type", value="value"),
    ),
    DepthUpdate: (
        Incoming.MARKET_DEPTH,
        _text_depth,
        _writer("MarketDepth", reqId="req_id", marketDepthData=_writer("MarketDepthData", **_BOOK)),
    ),
    DepthL2: (
        Incoming.MARKET_DEPTH_L2,
        _text_depth_l2,
        _writer(
            "MarketDepthL2",
            reqId="req_id",
            marketDepthData=_writer(
                "MarketDepthData", **_BOOK, marketMaker="market_maker", isSmartDepth="is_smart_depth"
            ),
        ),
    ),
    RealTimeBar: (
        Incoming.REAL_TIME_BARS,
        _text_real_time_bar,
        _writer("RealTimeBarTick", reqId="req_id", time="time_s", **_BAR, count="count"),
    ),
    HistoricalDataUpdate: (
        Incoming.HISTORICAL_DATA_UPDATE,
        _text_update,
        _writer(
            "HistoricalDataUpdate",
            reqId="req_id",
            historicalDataBar=_writer("HistoricalDataBar", date="date", **_BAR, barCount="count"),
        ),
    ),
    TickByTickLast: (
        Incoming.TICK_BY_TICK,
        _text_last,
        _writer(
            "TickByTickData",
            reqId="req_id",
            tickType="tick_type",
            historicalTickLast=_writer(
                "HistoricalTickLast",
                time="time_s",
                price="price",
                size="size",
                exchange="exchange",
                specialConditions="conditions",
                tickAttribLast=_flags("TickAttribLast", "pastLimit", "unreported"),
            ),
        ),
    ),
    TickByTickBidAsk: (
        Incoming.TICK_BY_TICK,
        _text_bid_ask,
        _writer(
            "TickByTickData",
            {"tickType": _BID_ASK},
            reqId="req_id",
            historicalTickBidAsk=_writer(
                "HistoricalTickBidAsk",
                time="time_s",
                priceBid="bid",
                priceAsk="ask",
                sizeBid="bid_size",
                sizeAsk="ask_size",
                tickAttribBidAsk=_flags("TickAttribBidAsk", "bidPastLow", "askPastHigh"),
            ),
        ),
    ),
    TickByTickMidPoint: (
        Incoming.TICK_BY_TICK,
        _text_mid_point,
        _writer(
            "TickByTickData",
            {"tickType": _MID_POINT},
            reqId="req_id",
            historicalTickMidPoint=_writer("HistoricalTick", time="time_s", price="price"),
        ),
    ),
}

_CODECS = {
    tick_type: (
        INCOMING_PROTOBUF_SINCE[msg_id],
        f"{msg_id:d}\0".encode(),
        msg_id.to_bytes(ID_LENGTH, "big"),
        protobuf.message_id(msg_id),
        text_body,
        protobuf_body,
    )
    for tick_type, (msg_id, text_body, protobuf_body) in _FORMS.items()
}
"""For `encode`: the first protobuf version, the three forms of the id, the writers of text and protobuf."""
