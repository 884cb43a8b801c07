"""Random messages of the tick path, as wire values, from a seed.

The rule of the file: every value here is one that the official decoders accept in the place where it stands, so that
their answer can be compared with ours; what they refuse is in test_decoder_malformed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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
    message,
)

MARKET_DATA_PROTOBUF_SINCE = 206
HISTORICAL_PROTOBUF_SINCE = 208
UNSET_TEXTS = ("", "2147483647", "9223372036854775807", "-9223372036854775808", "1.7976931348623157E308")

PRICE_TYPES = (1, 2, 4, 6, 7, 9, 14, 15, 37, 66, 67, 68, 72, 75, 50, 101, 9999)
SIZE_TYPES = (0, 3, 5, 8, 21, 27, 28, 69, 70, 71, 74, 86, 9999)
GENERIC_TYPES = (23, 24, 46, 49, 54, 55, 56, 89, 90, 9999)
TEXT_TYPES = (32, 33, 45, 48, 59, 77, 84, 88, 9999)
TIMESTAMP_TYPES = (45, 88)
RT_VOLUME_TYPES = (48, 77)
OPTION_TYPES = (10, 11, 12, 13, 53, 80, 81, 82, 83)
MARKET_MAKERS = ("ISLAND", "ARCA", "NSDQ", "IEX", "", "BATS")
CONDITIONS = ("", "T", "F I", " O X", "4 W")
TEXTS = ("", "a", "NQZ", "0.96,0.96,20220217,0.24", "x=1;y=2", "AAPL 20270115", "past,next", "K;P;Q")
# fmt: off
PRICE_TEXTS = ("", "0", "0.0", "-0.0", "-1", "1.0E-5", "NaN", "Infinity", "-Infinity", "1.7976931348623157E308",
               "-1.7976931348623157E308", "4.9E-324", "2.2250738585072014E-308", "9007199254740993", "0.1", "1E22",
               "123456789.123456789", "100.", ".5", "+1.5", "1e5", "00012.50", "-37.63", "1E-400", "1E400")
SIZE_TEXTS = (*UNSET_TEXTS, "0", "-1", "-1553556175", "0.12345678", "1E+3", "12345678901234567890123", "0E-8", "100",
              "0.00000001", "9007199254740993", "99999999999999999999999999999999999999", "1E-20", "NaN", "Infinity")
# fmt: on
INT_SIZE_TEXTS = ("0", "-1", "2147483647", "-1553556175", "9223372036854775807", "-9223372036854775808", "1000000")
DOUBLES = (
    0.0,
    -0.0,
    -1.0,
    -2.0,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    5e-324,
    1e22,
    float("inf"),
    float("-inf"),
    float("nan"),
    0.1,
    -37.63,
)
PROTOBUF_SIZES = tuple(text for text in SIZE_TEXTS if text)
DATES = ("1700000000", "1262304000", "4000000000", "20240105", "19991231")
REQ_IDS = (*range(1, 60), -1, 0, 2147483647, -2147483648, 9000001)


class Draw:
    """Random wire values of one dialect, from a seed.

    Args:
        rng: the source.
        old_client: only what ibapi 9.81.1 reads: sizes are whole numbers, and no number is empty in messages that it
            reads by a method's signature.
    """

    def __init__(self, rng: random.Random, old_client: bool = False) -> None:
        self.rng = rng
        self.old_client = old_client

    def price(self) -> str:
        rng = self.rng
        roll = rng.random()
        if roll < 0.6:
            return f"{rng.randrange(1, 500_000) / 100:.2f}"
        if roll < 0.7:
            return str(rng.randrange(-1000, 100_000))
        if roll < 0.8:
            return repr(rng.uniform(-1e4, 1e4)).replace("e", "E")
        if roll < 0.9:
            return f"{rng.random() * 10 ** rng.randrange(-30, 30):.{rng.randrange(1, 20)}E}"
        return rng.choice(PRICE_TEXTS)

    def size(self) -> str:
        rng = self.rng
        roll = rng.random()
        if roll < 0.6:
            return str(rng.randrange(0, 5000) * 100)
        if self.old_client:
            return rng.choice(INT_SIZE_TEXTS)
        if roll < 0.8:
            return f"{rng.uniform(0, 1000):.{rng.randrange(0, 17)}f}"
        return rng.choice(SIZE_TEXTS)

    def time(self) -> str:
        return str(self.rng.choice((0, 1, 1_700_000_000, 9_000_000_000, self.rng.randrange(1_500_000_000))))

    def integer(self, *choices: int) -> str:
        return str(self.rng.choice(choices))

    def optional_integer(self, *choices: int) -> str:
        return "" if not self.old_client and self.rng.random() < 0.03 else self.integer(*choices)

    def text(self, choices: Sequence[str]) -> str:
        return self.rng.choice(choices)

    def computed(self) -> str:
        return self.rng.choice((self.price(), "-1", "-2", "-1.0", "-2.0", "0.25", "-0.5"))


class ProtobufDraw(Draw):
    """Random wire values as protobuf has them: typed, and any of them absent."""

    def _maybe(self, value: Any) -> Any:
        return None if self.rng.random() < 0.08 else value

    def price(self) -> Any:
        rng = self.rng
        roll = rng.random()
        if roll < 0.6:
            return self._maybe(rng.randrange(1, 500_000) / 100)
        if roll < 0.8:
            return self._maybe(struct.unpack("<d", rng.randbytes(8))[0])
        return self._maybe(rng.choice(DOUBLES))

    def size(self) -> Any:
        text = super().size()
        return self._maybe(text if text else self.rng.choice(PROTOBUF_SIZES))

    def time(self) -> Any:
        return self._maybe(int(super().time()))

    def integer(self, *choices: int) -> Any:
        return self._maybe(self.rng.choice(choices))

    def optional_integer(self, *choices: int) -> Any:
        return self.integer(*choices)

    def text(self, choices: Sequence[str]) -> Any:
        return self._maybe(self.rng.choice(choices))

    def computed(self) -> Any:
        return self.rng.choice((self.price(), -1.0, -2.0, 0.25, -0.5))


def _no_empty(price: Any) -> Any:
    return "0.0" if price == "" else price


def _rt_volume(rng: random.Random) -> str:
    price = rng.choice((f"{rng.randrange(1, 90000) / 100:.2f}", "", "4037.25"))
    size = rng.choice((str(rng.randrange(1, 900)), "0.5", "1"))
    time_ms = rng.randrange(1_500_000_000_000, 1_900_000_000_000)
    return f"{price};{size};{time_ms};{rng.randrange(10**7)};{rng.uniform(1, 5000):.8f};{rng.choice(('true', 'false'))}"


def _tick_text(draw: Draw, tick_type: Any) -> Any:
    if tick_type is not None and int(tick_type) in TIMESTAMP_TYPES:
        return str(draw.rng.randrange(1_500_000_000, 1_900_000_000))
    if tick_type is not None and int(tick_type) in RT_VOLUME_TYPES:
        return _rt_volume(draw.rng)
    return draw.text(TEXTS)


def _tick_price(draw: Draw) -> dict[str, Any]:
    return {
        "req_id": draw.optional_integer(*REQ_IDS),
        "tick_type": draw.optional_integer(*PRICE_TYPES),
        "price": draw.price(),
        "size": draw.size(),
        "attribs": draw.optional_integer(*range(8)),
    }


def _tick_size(draw: Draw) -> dict[str, Any]:
    return {
        "req_id": draw.optional_integer(*REQ_IDS),
        "tick_type": draw.optional_integer(*SIZE_TYPES),
        "size": draw.size(),
    }


def _depth(draw: Draw) -> dict[str, Any]:
    return {
        "req_id": draw.optional_integer(*REQ_IDS),
        "position": draw.optional_integer(*range(10)),
        "operation": draw.optional_integer(0, 1, 2),
        "side": draw.optional_integer(0, 1),
        "price": _no_empty(draw.price()) if draw.old_client else draw.price(),
        "size": draw.size(),
    }


def _depth_l2(draw: Draw) -> dict[str, Any]:
    return {**_depth(draw), "market_maker": draw.text(MARKET_MAKERS), "attribs": draw.optional_integer(0, 1)}


def _option(draw: Draw) -> dict[str, Any]:
    names = ("implied_vol", "delta", "option_price", "pv_dividend", "gamma", "vega", "theta", "und_price")
    return {
        "req_id": draw.optional_integer(*REQ_IDS),
        "tick_type": draw.optional_integer(*OPTION_TYPES),
        "attribs": draw.optional_integer(0, 1),
        **{name: draw.computed() for name in names},
    }


def _generic(draw: Draw) -> dict[str, Any]:
    return {
        "req_id": draw.integer(*REQ_IDS),
        "tick_type": draw.integer(*GENERIC_TYPES),
        "price": _no_empty(draw.price()),
    }


def _string(draw: Draw) -> dict[str, Any]:
    tick_type = draw.integer(*TEXT_TYPES)
    return {"req_id": draw.integer(*REQ_IDS), "tick_type": tick_type, "text": _tick_text(draw, tick_type)}


def _bar(draw: Draw) -> dict[str, Any]:
    return {
        "req_id": draw.optional_integer(*REQ_IDS),
        "time": draw.time(),
        "open": draw.price(),
        "high": draw.price(),
        "low": draw.price(),
        "close": draw.price(),
        "volume": draw.size(),
        "wap": draw.size(),
        "count": draw.optional_integer(0, -1, 5, 2147483647),
    }


def _bar_update(draw: Draw) -> dict[str, Any]:
    return {**_bar(draw), "time": draw.text(DATES)}


def _by_tick(draw: Draw) -> dict[str, Any]:
    tick_type = draw.rng.choice((1, 2, 3, 4))
    is_protobuf = isinstance(draw, ProtobufDraw)
    values: dict[str, Any] = {
        "req_id": draw.optional_integer(*REQ_IDS),
        "tick_type": tick_type if is_protobuf else str(tick_type),
        "time": draw.time(),
    }
    if tick_type == 4:
        return {**values, "price": draw.price(), "size": draw.size()}
    if is_protobuf:
        flags = ("past_limit", "unreported") if tick_type < 3 else ("bid_past_low", "ask_past_high")
        values |= {flag: draw.integer(0, 1) for flag in flags}
    else:
        values["attribs"] = draw.optional_integer(*range(4))
    if tick_type == 3:
        return {**values, "bid": draw.price(), "ask": draw.price(), "bid_size": draw.size(), "ask_size": draw.size()}
    return {
        **values,
        "price": draw.price(),
        "size": draw.size(),
        "exchange": draw.text(MARKET_MAKERS),
        "conditions": draw.text(CONDITIONS),
    }


MAKERS: dict[int, Callable[[Draw], dict[str, Any]]] = {
    TICK_PRICE: _tick_price,
    TICK_SIZE: _tick_size,
    MARKET_DEPTH: _depth,
    MARKET_DEPTH_L2: _depth_l2,
    TICK_OPTION: _option,
    TICK_GENERIC: _generic,
    TICK_STRING: _string,
    REAL_TIME_BAR: _bar,
    BAR_UPDATE: _bar_update,
    TICK_BY_TICK: _by_tick,
}


def travels_as_protobuf(msg_id: int, server_version: int) -> bool:
    """Whether a gateway of this version sends a message of the tick path as protobuf."""
    historical = msg_id in (REAL_TIME_BAR, BAR_UPDATE, TICK_BY_TICK)
    return server_version >= (HISTORICAL_PROTOBUF_SINCE if historical else MARKET_DATA_PROTOBUF_SINCE)


def random_messages(seed: int, server_version: int, count: int, old_client: bool = False) -> Iterator[Message]:
    """Yield random messages of all kinds of the tick path, as a gateway of this version sends them."""
    rng = random.Random(seed)
    text, protobuf = Draw(rng, old_client), ProtobufDraw(rng, old_client)
    ids = tuple(MAKERS)
    for _ in range(count):
        msg_id = rng.choice(ids)
        is_protobuf = travels_as_protobuf(msg_id, server_version)
        values = MAKERS[msg_id](protobuf if is_protobuf else text)
        yield message(server_version, msg_id, values, is_protobuf)
