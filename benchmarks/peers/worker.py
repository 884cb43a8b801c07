"""A peer's process: it answers JSON lines on standard input, and measures itself in CPU time.

The rule of the file: the standard library alone, since it runs in the environments of other clients. A peer is a class
with `run(chunks)`, which takes a whole stream in with nothing behind its callbacks, and `verify(chunks, events)`, which
reports to `events` all that it sees there; `read_nbytes` is how long a chunk is, and `server_version` the constructor's
argument.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

CALLBACK_SIZES = {1: 0, 2: 3, 4: 5}
"""The size type that clients report beside a price type: bid, ask and last."""

LAST_TIMESTAMP, RT_VOLUME = 45, 48


class Events:
    """What a client reports of a stream, as one number for all of it: equal digests mean equal values in equal order.

    Every value goes in as a double, texts by their checksum.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.count = 0

    def _add(self, *values: float) -> None:
        self._hash.update(struct.pack(f"<{len(values)}d", *values))
        self.count += 1

    def price(self, req_id: int, tick_type: int, price: float, attribs: int) -> None:
        self._add(1, req_id, tick_type, price, attribs)

    def price_and_size(self, req_id: int, tick_type: int, price: float, size: float, attribs: int) -> None:
        """Report a price tick as clients do: the size of a bid, ask or last price is a callback of its own."""
        self.price(req_id, tick_type, price, attribs)
        if tick_type in CALLBACK_SIZES:
            self.size(req_id, CALLBACK_SIZES[tick_type], size)

    def size(self, req_id: int, tick_type: int, size: float) -> None:
        self._add(2, req_id, tick_type, size)

    def generic(self, req_id: int, tick_type: int, value: float) -> None:
        self._add(45, req_id, tick_type, value)

    def string(self, req_id: int, tick_type: int, text: str) -> None:
        if tick_type == LAST_TIMESTAMP:
            self.timestamp(req_id, float(text))
        elif tick_type == RT_VOLUME:
            price, size, time_ms, *_ = text.split(";")
            self.rt_volume(req_id, float(price), float(size), int(time_ms))
        else:
            self._add(46, req_id, tick_type, zlib.crc32(text.encode()))

    def timestamp(self, req_id: int, seconds: float) -> None:
        self._add(46, req_id, LAST_TIMESTAMP, seconds)

    def rt_volume(self, req_id: int, price: float, size: float, time_ms: int) -> None:
        self._add(46, req_id, RT_VOLUME, price, size, time_ms)

    def last(
        self,
        req_id: int,
        tick_type: int,
        time_s: int,
        price: float,
        size: float,
        attribs: int,
        exchange: str,
        conditions: str,
    ) -> None:
        texts = zlib.crc32(f"{exchange};{conditions}".encode())
        self._add(99, req_id, tick_type, time_s, price, size, attribs, texts)

    def bid_ask(
        self, req_id: int, time_s: int, bid: float, ask: float, bid_size: float, ask_size: float, attribs: int
    ) -> None:
        self._add(99, req_id, 3, time_s, bid, ask, bid_size, ask_size, attribs)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def serve(peer_class: Any) -> None:
    """Answer until standard input ends."""
    loaded: dict[str, tuple[Any, list[bytes]]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["stream"]
        if request["do"] == "load":
            data = Path(request["path"]).read_bytes()
            nbytes = peer_class.read_nbytes or len(data)
            chunks = [data[start : start + nbytes] for start in range(0, len(data), nbytes)]
            loaded[name] = (peer_class(request["server_version"]), chunks)
            answer: dict[str, Any] = {}
        elif request["do"] == "verify":
            peer, chunks = loaded[name]
            events = Events()
            peer.verify(chunks, events)
            answer = {"events": events.count, "digest": events.digest}
        else:
            peer, chunks = loaded[name]
            begun_ns = time.process_time_ns()
            peer.run(chunks)
            answer = {"cpu_ns": time.process_time_ns() - begun_ns}
        print(json.dumps(answer), flush=True)
