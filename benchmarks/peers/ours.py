"""ibfast: bytes into `Decoder.feed_bytes`, records in the rings of a `Feed`, published once per 64 KiB."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from worker import LAST_TIMESTAMP, RT_VOLUME, Events, serve

from ibfast import Decoder, Feed, Kind

CAPACITY = 1 << 16
NS_PER_S, NS_PER_MS = 10**9, 10**6


class Ours:
    """A decoder with a feed that lives over all rounds, as it does in a session."""

    read_nbytes = 1 << 16

    def __init__(self, server_version: int) -> None:
        self._server_version = server_version
        self._decoder = Decoder(Feed(capacity=CAPACITY), server_version=server_version)

    def run(self, chunks: list[bytes]) -> None:
        feed_bytes = self._decoder.feed_bytes
        for chunk in chunks:
            feed_bytes(chunk, 1)

    def verify(self, chunks: list[bytes], events: Events) -> None:
        """Report the rows of all rings in the order of their sequence numbers."""
        feed = Feed(capacity=CAPACITY)
        decoder = Decoder(feed, server_version=self._server_version)
        readers = [ring.reader(start="oldest") for ring in (feed.ticks, feed.trades, feed.quotes)]
        for chunk in chunks:
            decoder.feed_bytes(chunk, 1)
            for row in heapq.merge(*(_rows(reader.read()) for reader in readers), key=lambda row: row["seq"]):
                _report(row, feed, events)
        if decoder.quarantined or decoder.take_messages() or any(reader.lost for reader in readers):
            raise AssertionError("something of the stream did not become a record")


def _rows(rows: Any) -> Iterator[dict[str, Any]]:
    names = rows.dtype.names
    return (dict(zip(names, row, strict=True)) for row in rows.tolist())


def _report(row: dict[str, Any], feed: Feed, events: Events) -> None:
    kind, req_id, tick_type = row["kind"], row["req_id"], row.get("tick_type")
    if kind == Kind.PRICE:
        events.price_and_size(req_id, tick_type, row["price"], row["size"], row["attribs"])
    elif kind == Kind.SIZE:
        events.size(req_id, tick_type, row["size"])
    elif kind == Kind.GENERIC:
        events.generic(req_id, tick_type, row["price"])
    elif kind == Kind.RT_VOLUME:
        events.rt_volume(req_id, row["price"], row["size"], row["event_ns"] // NS_PER_MS)
    elif kind == Kind.STRING and tick_type == LAST_TIMESTAMP:
        events.timestamp(req_id, row["price"])
    elif kind == Kind.STRING and tick_type != RT_VOLUME:
        events.string(req_id, tick_type, feed.texts[row["text"]])
    elif kind in (Kind.LAST, Kind.ALL_LAST):
        events.last(
            req_id,
            1 if kind == Kind.LAST else 2,
            row["event_ns"] // NS_PER_S,
            row["price"],
            row["size"],
            row["attribs"],
            feed.texts[row["exchange"]],
            feed.texts[row["conditions"]],
        )
    elif kind == Kind.BID_ASK:
        events.bid_ask(
            req_id,
            row["event_ns"] // NS_PER_S,
            row["bid"],
            row["ask"],
            row["bid_size"],
            row["ask_size"],
            row["attribs"],
        )


if __name__ == "__main__":
    serve(Ours)
