"""How historical bars and ticks are written: rows of arrays, in text and in protobuf.

The rule of the file: for each dtype of `ibfast.records` one function per dialect reads an array, and beside it one
writes it for the embedded gateway. Prices and sizes that are absent or unset are NaN, where IB's client shows 0.0 and
an unset decimal. Bars of quotes have a volume, a WAP and a count of -1, "not there": NaN, and -1 as the count.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ibfast.errors import DecodeError
from ibfast.records import (
    HISTORICAL_BAR,
    HISTORICAL_TICK_BID_ASK,
    HISTORICAL_TICK_LAST,
    HISTORICAL_TICK_MIDPOINT,
    NS_PER_S,
    UNSET_INTEGER,
)
from ibfast.wire.text import FieldReader, parse_size, price_or_nan, size_to_field
from ibfast.wire.times import parse_bar_time, seconds_to_ns

__all__ = [
    "Records",
    "bars_from_protobuf",
    "bars_to_protobuf",
    "read_bars",
    "read_ticks",
    "ticks_from_protobuf",
    "ticks_to_protobuf",
    "write_bars",
    "write_ticks",
]

Records: TypeAlias = npt.NDArray[np.void]
_Values: TypeAlias = Mapping[str, Any]

_FIELDS_PER_BAR = 8
_FIELDS_PER_TICK = {HISTORICAL_TICK_MIDPOINT: 4, HISTORICAL_TICK_BID_ASK: 6, HISTORICAL_TICK_LAST: 6}
_FIRST_BIT, _SECOND_BIT = 1, 2
_NO_MASK = 0
_NOT_THERE = -1


def read_bars(reader: FieldReader, zone: tzinfo) -> Records:
    """Read the bars of a text message, from their number on; `zone` is that of times that name none."""
    rows = [
        (
            _bar_time(reader.text("date"), zone),
            *(reader.price(name) for name in ("open", "high", "low", "close")),
            _known(reader.size("volume")),
            _known(reader.size("wap")),
            _known_count(reader.integer("count", _NOT_THERE)),
        )
        for _ in range(reader.count("bars", _FIELDS_PER_BAR))
    ]
    return _records(rows, HISTORICAL_BAR)


def write_bars(bars: Records, dates: Sequence[str]) -> Iterator[object]:
    """Yield the bars for a text message, from their number on; `dates` are their times as it shall show them."""
    yield len(bars)
    for date, (_, *prices, volume, wap, count) in zip(dates, bars.tolist(), strict=True):
        yield from (date, *prices, size_to_field(volume), size_to_field(wap), count)


def bars_from_protobuf(bars: Iterable[_Values], zone: tzinfo) -> Records:
    """Return the bars of a protobuf message; `zone` is that of times that name none."""
    rows = [
        (
            _bar_time(bar.get("date", ""), zone),
            *(_price(bar, name) for name in ("open", "high", "low", "close")),
            _known(_size(bar, "volume")),
            _known(_size(bar, "WAP")),
            _known_count(bar.get("barCount", _NOT_THERE)),
        )
        for bar in bars
    ]
    return _records(rows, HISTORICAL_BAR)


def bars_to_protobuf(bars: Records, dates: Sequence[str]) -> list[dict[str, Any]]:
    """Return the bars for a protobuf message; `dates` are their times as it shall show them."""
    names = ("date", "open", "high", "low", "close", "volume", "WAP", "barCount")
    rows = ((date, *row[1:]) for date, row in zip(dates, bars.tolist(), strict=True))
    return [_present(names, row) for row in rows]


def read_ticks(reader: FieldReader, dtype: np.dtype[np.void]) -> Records:
    """Read the ticks of a text message, from their number on."""
    count = reader.count("ticks", _FIELDS_PER_TICK[dtype])
    return _records([_read_tick(reader, dtype) for _ in range(count)], dtype)


def _read_tick(reader: FieldReader, dtype: np.dtype[np.void]) -> tuple[Any, ...]:
    event_ns = _epoch_ns(reader.integer("time"))
    mask = reader.integer("attribs")
    if dtype == HISTORICAL_TICK_MIDPOINT:
        return event_ns, reader.price("price"), reader.size("size")
    if dtype == HISTORICAL_TICK_BID_ASK:
        prices = reader.price("bid"), reader.price("ask")
        return event_ns, _swapped(mask), *prices, reader.size("bid_size"), reader.size("ask_size")
    trade = reader.price("price"), reader.size("size")
    return event_ns, mask & (_FIRST_BIT | _SECOND_BIT), *trade, reader.text("exchange"), reader.text("conditions")


def write_ticks(ticks: Records) -> Iterator[object]:
    """Yield the ticks for a text message, from their number on."""
    yield len(ticks)
    for row in ticks.tolist():
        yield row[0] // NS_PER_S
        if ticks.dtype == HISTORICAL_TICK_MIDPOINT:
            _, price, size = row
            yield from (_NO_MASK, price, size_to_field(size))
        elif ticks.dtype == HISTORICAL_TICK_BID_ASK:
            _, attribs, bid, ask, bid_size, ask_size = row
            yield from (_swapped(attribs), bid, ask, size_to_field(bid_size), size_to_field(ask_size))
        else:
            _, attribs, price, size, exchange, conditions = row
            yield from (attribs, price, size_to_field(size), exchange, conditions)


def ticks_from_protobuf(ticks: Sequence[_Values], dtype: np.dtype[np.void]) -> Records:
    """Return the ticks of a protobuf message."""
    return _records([_tick_from_protobuf(tick, dtype) for tick in ticks], dtype)


def _tick_from_protobuf(tick: _Values, dtype: np.dtype[np.void]) -> tuple[Any, ...]:
    event_ns = _epoch_ns(tick.get("time", 0))
    if dtype == HISTORICAL_TICK_MIDPOINT:
        return event_ns, _price(tick, "price"), _size(tick, "size")
    if dtype == HISTORICAL_TICK_BID_ASK:
        flags = tick.get("tickAttribBidAsk", {})
        attribs = _attribs(flags.get("bidPastLow"), flags.get("askPastHigh"))
        prices = _price(tick, "priceBid"), _price(tick, "priceAsk")
        return event_ns, attribs, *prices, _size(tick, "sizeBid"), _size(tick, "sizeAsk")
    flags = tick.get("tickAttribLast", {})
    attribs = _attribs(flags.get("pastLimit"), flags.get("unreported"))
    texts = tick.get("exchange", ""), tick.get("specialConditions", "")
    return event_ns, attribs, _price(tick, "price"), _size(tick, "size"), *texts


def ticks_to_protobuf(ticks: Records) -> list[dict[str, Any]]:
    """Return the ticks for a protobuf message."""
    return [_tick_to_protobuf(row, ticks.dtype) for row in ticks.tolist()]


def _tick_to_protobuf(row: tuple[Any, ...], dtype: np.dtype[np.void]) -> dict[str, Any]:
    time_s = row[0] // NS_PER_S
    if dtype == HISTORICAL_TICK_MIDPOINT:
        _, price, size = row
        return _present(("time", "price", "size"), (time_s, price, size))
    if dtype == HISTORICAL_TICK_BID_ASK:
        _, attribs, bid, ask, bid_size, ask_size = row
        flags = _flags(("bidPastLow", "askPastHigh"), attribs)
        names = ("time", "tickAttribBidAsk", "priceBid", "priceAsk", "sizeBid", "sizeAsk")
        return _present(names, (time_s, flags, bid, ask, bid_size, ask_size))
    _, attribs, price, size, exchange, conditions = row
    flags = _flags(("pastLimit", "unreported"), attribs)
    names = ("time", "tickAttribLast", "price", "size", "exchange", "specialConditions")
    return _present(names, (time_s, flags, price, size, exchange, conditions))


def _bar_time(date: str, zone: tzinfo) -> int:
    try:
        return parse_bar_time(date, zone)
    except ValueError as error:
        raise DecodeError(f"date: {error}", field="date", value=date) from None


def _epoch_ns(seconds: int) -> int:
    try:
        return seconds_to_ns(seconds)
    except ValueError as error:
        raise DecodeError(f"time: {error}", field="time", value=str(seconds)) from None


def _swapped(mask: int) -> int:
    # In the text of historical quotes ask past high is the first bit and bid past low the second; it is the other way
    # round in tick by tick and in records.
    return _attribs(mask & _SECOND_BIT, mask & _FIRST_BIT)


def _attribs(first: object, second: object) -> int:
    return (_FIRST_BIT if first else 0) | (_SECOND_BIT if second else 0)


def _flags(names: tuple[str, str], attribs: int) -> dict[str, bool]:
    return {name: True for name, bit in zip(names, (_FIRST_BIT, _SECOND_BIT), strict=True) if attribs & bit}


def _known(value: float) -> float:
    return math.nan if value == _NOT_THERE else value


def _known_count(count: int) -> int:
    return _NOT_THERE if count == UNSET_INTEGER else count


def _price(values: _Values, name: str) -> float:
    return price_or_nan(values[name]) if name in values else math.nan


def _size(values: _Values, name: str) -> float:
    return parse_size(name, values[name]) if name in values else math.nan


def _present(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if not (isinstance(value, float) and math.isnan(value))}


def _records(rows: list[tuple[Any, ...]], dtype: np.dtype[np.void]) -> Records:
    records = np.zeros(len(rows), dtype)  # zeros between the fields, too
    try:
        records[:] = rows
    except OverflowError:
        name, value = next(_out_of_range(rows, dtype))
        raise DecodeError(f"{name} is out of range: {value}", field=name, value=str(value)) from None
    return records


def _out_of_range(rows: list[tuple[Any, ...]], dtype: np.dtype[np.void]) -> Iterator[tuple[str, Any]]:
    for row in rows:
        for name, value in zip(dtype.names or (), row, strict=True):
            try:
                np.array(value, dtype[name])
            except OverflowError:
                yield name, value
