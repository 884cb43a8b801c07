"""A client of the fan-out's binary dialect, of this package's own decoder."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import orjson
from websockets.asyncio.client import connect

from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.positions import position_of
from ibfast.codec.spec import ChannelSpec
from ibfast.fanout.server import FanoutServer


class BinaryClient:
    """Speaks JSON, and decodes what is not.

    Attributes:
        rows: the news of all channels by family.
        snapshots: the state by family, of each snapshot.
        heard: control messages and lags.
        seqs: of windows.
        sizes: of windows, in bytes.
        texts: by id.
    """

    def __init__(self, socket_: Any) -> None:
        self.socket = socket_
        self.decoder = FrameDecoder()
        self.rows: dict[str, list[Any]] = defaultdict(list)
        self.snapshots: list[dict[str, Any]] = []
        self.heard: list[dict[str, Any]] = []
        self.seqs: list[int] = []
        self.sizes: list[int] = []
        self.texts: dict[int, str] = {0: ""}

    async def hear(self) -> dict[str, Any]:
        """Return the next message that is no data."""
        while True:
            message = await self.socket.recv()
            found = self._of_text(message) if isinstance(message, str) else self._of_bytes(message)
            if found is not None:
                self.heard.append(found)
                return found

    def _of_text(self, message: str) -> dict[str, Any]:
        said: dict[str, Any] = orjson.loads(message)
        for channel in said.get("channels", ()) if said["op"] != "subscriptions" else ():
            with contextlib.suppress(ValueError):
                self.decoder.close(channel["channel"])
            self.decoder.open(channel["channel"], ChannelSpec.from_description(channel))
        return said

    def _of_bytes(self, message: bytes) -> dict[str, Any] | None:
        decoded = self.decoder.decode(message)
        if decoded.text is not None:
            self.texts[decoded.text[0]] = decoded.text[1]
            return None
        if decoded.lag is not None:
            reason, from_seq, to_seq, count = decoded.lag
            return {"op": "lag", "reason": reason, "from_seq": from_seq, "to_seq": to_seq, "rows": count}
        if decoded.is_snapshot:
            self.snapshots.append(decoded.rows)
            return {"op": "snapshot", "seq": decoded.seq, "rows": decoded.rows}
        for family, rows in decoded.rows.items():
            self.rows[family].append(rows)
        if decoded.rows:
            self.seqs.append(decoded.seq)
            self.sizes.append(len(message))
            return {"op": "data"}
        return None

    def seen(self, seq: int) -> dict[str, Any]:
        """Return what a client names that goes on with the channel that it was given last."""
        (channel,) = next(message for message in reversed(self.heard) if "channels" in message)["channels"]
        return {"epoch": channel["epoch"], "position": position_of(seq, channel["class"])}

    async def until(self, *ops: str) -> dict[str, Any]:
        while (message := await self.hear())["op"] not in ops:
            pass
        return message

    async def ask(self, op: str, **values: Any) -> dict[str, Any]:
        await self.socket.send(orjson.dumps({"op": op, "id": "x", **values}).decode())
        while (message := await self.hear()).get("id") != "x":
            pass
        return message

    async def news(self, family: str, count: int) -> Any:
        """Hear until so many rows have come since the beginning, and return them."""
        while sum(map(len, self.rows[family])) < count:
            await self.hear()
        parts = self.rows[family]
        return np.concatenate(parts, out=np.empty(sum(map(len, parts)), parts[0].dtype))


@contextlib.asynccontextmanager
async def binary_client(server: FanoutServer, **options: Any) -> AsyncIterator[BinaryClient]:
    host, port = server.address
    options = {"compression": None, "subprotocols": ["ibfast.v1.binary"], "close_timeout": 0.2} | options
    async with connect(f"ws://{host}:{port}/stream", **options) as socket_:
        client = BinaryClient(socket_)
        assert (await client.hear())["op"] == "welcome"
        yield client
