"""What others would send for a window of ticks.

The rule of the file: each format is given what it likes best (`native`, made before any clock runs), and is kind to
itself: channels are numbers instead of symbols, times are in µs, nothing is said twice in a message that need not be.
A format's object is one end of one connection, so that compressors may keep what they have seen.
"""

from __future__ import annotations

import struct
import sys
import sysconfig
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

import orjson

from ibfast.fanout.sockets.frames import DEFLATE_WINDOW_BITS
from tests.support.oracles import python_with

PEERS = ("msgpack==1.2.4", "zstandard==0.25.0")
EMPTY_BLOCK = b"\x00\x00\xff\xff"
DEFLATE_MEMORY = 5
"""Of zlib, with that window: what the `websockets` library takes by default."""

QUOTE_NAMES = ("type", "ch", "t", "bid", "ask", "bid_size", "ask_size")
TRADE_NAMES = ("type", "ch", "t", "price", "size")

Event = tuple[Any, ...]


class Format(Protocol):
    """A way of saying ticks."""

    name: str

    def native(self, events: Sequence[Event]) -> Any:
        """Return what `encode` takes and `decode` returns."""

    def encode(self, native: Any) -> bytes:
        """Return a message."""

    def decode(self, message: bytes) -> Any:
        """Return what a message says."""


def header_bytes(message: bytes) -> int:
    """How long the header of a server's WebSocket frame is before this message."""
    return 2 if len(message) < 126 else 4 if len(message) < 1 << 16 else 10


def imported(name: str) -> Any:
    """Import a peer's package from an environment of its own, which is made on first use."""
    home = str(python_with(*PEERS).parent.parent)
    packages = sysconfig.get_path("platlib", "venv", {"base": home, "platbase": home})
    if packages not in sys.path:
        sys.path.append(packages)
    return import_module(name)


class Json:
    """An array of objects, by the fastest library there is."""

    name = "JSON"

    def native(self, events: Sequence[Event]) -> Any:
        return [
            dict(zip(TRADE_NAMES, ("trade", *event[1:]), strict=True))
            if event[0]
            else dict(zip(QUOTE_NAMES, ("quote", *event[1:]), strict=True))
            for event in events
        ]

    def encode(self, native: Any) -> bytes:
        return orjson.dumps(native)

    def decode(self, message: bytes) -> Any:
        return orjson.loads(message)


class MessagePack:
    """An array of arrays without names."""

    name = "msgpack"

    def __init__(self) -> None:
        msgpack = imported("msgpack")
        self.encode: Callable[[Any], bytes] = msgpack.packb
        self.decode: Callable[[bytes], Any] = msgpack.unpackb

    def native(self, events: Sequence[Event]) -> Any:
        return [[int(event[0]), *event[1:]] for event in events]


class Dbn:
    """Rows of the sizes of databento's DBN, packed by hand: 48 bytes a trade, 80 a quote (its MBP-1).

    Prices are in 1e-9. Sizes are 32 bits there, so they are told in the largest unit that says them all, or, where
    none does, in the smallest that fits.
    """

    name = "DBN"
    UNDEFINED_PRICE, UNDEFINED_SIZE = (1 << 63) - 1, (1 << 32) - 1
    MOST_DECIMALS = 8
    # length in words, record type, publisher, instrument, event's time; price, size, action, side, flags, depth, time
    # received, delay, sequence number; bid and ask: prices, sizes, numbers of orders
    TRADE = struct.Struct("<BBHIQqIccBBQiI")
    QUOTE = struct.Struct("<BBHIQqIccBBQiIqqIIII")

    def __init__(self, sizes: Sequence[float]) -> None:
        self._unit = next(
            (
                10.0**decimals
                for decimals in range(self.MOST_DECIMALS + 1)
                if all(round(size * 10.0**decimals) / 10.0**decimals == size for size in sizes)
            ),
            10.0**self.MOST_DECIMALS,
        )
        while max(sizes, default=0) * self._unit >= self.UNDEFINED_SIZE:
            self._unit /= 10

    def _price(self, price: float | None) -> int:
        return self.UNDEFINED_PRICE if price is None else round(price * 1e9)

    def _size(self, size: float | None) -> int:
        return self.UNDEFINED_SIZE if size is None else round(size * self._unit)

    def native(self, events: Sequence[Event]) -> Any:
        return [self._trade(*event[1:]) if event[0] else self._quote(*event[1:]) for event in events]

    def _trade(self, instrument: int, time_us: int, price: float | None, size: float | None) -> Event:
        ns = time_us * 1_000
        return (12, 0, 1, instrument, ns, self._price(price), self._size(size), b"T", b"N", 0, 0, ns, 0, 0)

    def _quote(self, instrument: int, time_us: int, *values: float | None) -> Event:
        ns = time_us * 1_000
        prices, sizes = map(self._price, values[:2]), map(self._size, values[2:])
        head = (20, 1, 1, instrument, ns, self.UNDEFINED_PRICE, 0, b"M", b"N", 0, 0, ns, 0, 0)
        return (*head, *prices, *sizes, 0, 0)

    def encode(self, native: Any) -> bytes:
        trade, quote = self.TRADE.pack, self.QUOTE.pack
        return b"".join([quote(*row) if row[0] == 20 else trade(*row) for row in native])

    def decode(self, message: bytes) -> Any:
        at, rows = 0, []
        while at < len(message):
            rows.append((self.QUOTE if message[at] == 20 else self.TRADE).unpack_from(message, at))
            at += message[at] * 4
        return rows


class Deflated:
    """JSON behind permessage-deflate: the context is kept, the window is the server's."""

    name = "JSON, permessage-deflate"

    def __init__(self) -> None:
        self._json = Json()
        self.native = self._json.native
        self._compressor = zlib.compressobj(wbits=-DEFLATE_WINDOW_BITS, memLevel=DEFLATE_MEMORY)
        self._decompressor = zlib.decompressobj(wbits=-DEFLATE_WINDOW_BITS)

    def encode(self, native: Any) -> bytes:
        compressor = self._compressor
        deflated = compressor.compress(self._json.encode(native)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return deflated.removesuffix(EMPTY_BLOCK)

    def decode(self, message: bytes) -> Any:
        return self._json.decode(self._decompressor.decompress(message + EMPTY_BLOCK))


class DbnZstd:
    """DBN as one stream of zstd at its usual level, flushed after each window."""

    name = "DBN, zstd"

    def __init__(self, sizes: Sequence[float]) -> None:
        self._dbn = Dbn(sizes)
        self.native = self._dbn.native
        zstandard = imported("zstandard")
        self._compressor = zstandard.ZstdCompressor(level=3).compressobj()
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK

    def encode(self, native: Any) -> bytes:
        compressor = self._compressor
        return bytes(compressor.compress(self._dbn.encode(native)) + compressor.flush(self._flush))

    def decode(self, message: bytes) -> Any:
        return self._dbn.decode(self._decompressor.decompress(message))


def connections(sizes: Sequence[float]) -> list[Format]:
    """Return a new connection of each format.

    Args:
        sizes: all that will be said.
    """
    return [Json(), Deflated(), MessagePack(), Dbn(sizes), DbnZstd(sizes)]
