"""A decoder with its feed, and what came out of it in a form that compares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ibfast import Decoder, Feed

RINGS = ("ticks", "trades", "quotes", "depth", "bars", "greeks", "gaps")
MAX_INSTRUMENTS = 256
MAX_TEXTS = 1 << 12


class Decoded:
    """A decoder with its feed, and all that it has given so far.

    Attributes:
        rows: all rows by ring.
        messages: what `take_messages` gave.
        quarantine: what `take_quarantine` gave.
        count: the sum of what `feed_bytes` returned.
    """

    def __init__(self, server_version: int, capacity: int = 1 << 14) -> None:
        self.feed = Feed(capacity=capacity, max_instruments=MAX_INSTRUMENTS, max_texts=MAX_TEXTS)
        self.decoder = Decoder(self.feed, server_version=server_version)
        self._readers = {name: getattr(self.feed, name).reader(start="oldest") for name in RINGS}
        self._parts: dict[str, list[Any]] = {name: [reader.read()] for name, reader in self._readers.items()}
        self.messages: list[tuple[int, bytes, bool]] = []
        self.quarantine: list[Any] = []
        self.count = 0

    def give(self, chunks: Iterable[bytes], recv_ns: int = 0) -> Decoded:
        """Feed the chunks, and take everything out after each, also when one of them raises."""
        for chunk in chunks:
            try:
                self.count += self.decoder.feed_bytes(chunk, recv_ns)
            finally:
                self.collect()
        return self

    def collect(self) -> None:
        """Take everything out."""
        for name, reader in self._readers.items():
            rows = reader.read()
            assert reader.lost == 0
            if rows.size:
                self._parts[name].append(rows)
        self.messages += self.decoder.take_messages()
        self.quarantine += self.decoder.take_quarantine()

    @property
    def rows(self) -> dict[str, Any]:
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Everything that was decoded, in a form in which equal things are equal (NaN too, padding left out)."""
        columns = {
            f"{ring}.{name}": rows[name].tobytes() for ring, rows in self.rows.items() for name in rows.dtype.names
        }
        return {
            **columns,
            "messages": self.messages,
            "quarantine": [(entry.reason, entry.msg_id, entry.payload, entry.offset) for entry in self.quarantine],
            "counts": (self.count, self.decoder.messages, self.decoder.quarantined),
            "texts": [self.feed.texts[i] for i in range(len(self.feed.texts))],
        }


def decode(data: bytes, server_version: int, chunk_nbytes: int = 1 << 16) -> Decoded:
    """Decode a stream, in chunks of a size that its rows fit into the rings."""
    chunks = (data[i : i + chunk_nbytes] for i in range(0, len(data), chunk_nbytes))
    return Decoded(server_version).give(chunks)


def same_numbers(a: Any, b: Any) -> Any:
    """Return where two columns are equal to the bit, with any NaN equal to any other."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind != "f":
        return a == b
    return (a.view(np.uint64) == b.view(np.uint64)) | (np.isnan(a) & np.isnan(b))


def equal(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def columns(decoded: Decoded, ring: str, index: int = -1) -> dict[str, Any]:
    """Return one row as a dictionary, texts in the place of their ids."""
    row = decoded.rows[ring][index]
    texts = ("text", "exchange", "conditions", "market_maker")
    return {name: decoded.feed.texts[row[name]] if name in texts else row[name].item() for name in row.dtype.names}


def assert_row(decoded: Decoded, ring: str, index: int = -1, **wanted: Any) -> None:
    row = columns(decoded, ring, index)
    assert {name: row[name] for name in wanted if not equal(row[name], wanted[name])} == {}, row
