"""Recorded sessions, played to a client frame by frame.

The rule of the file: frames go out as they are, bytes untouched; nothing is decoded but what tells one request of the
client from another.

A recording is a list of rows in order. A row is a mapping with `payload_hex` (the frame without its length prefix), and
`direction`: "in" goes to the client; at an "out" row the player waits for the client's next request of that `msg_id`.
An "in" row whose `encoding` is "handshake" answers the client's hello. `offset_s`, if a row has it, is when it was
seen, since the first row; without it, it goes out at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ibfast.errors import ConfigError
from ibfast.wire.ids import ServerVersion
from ibfast.wire.protobuf_ids import PROTOBUF_OFFSET

__all__ = ["RecordedGateway", "read_recording"]

_LENGTH_BYTES = 4
_HELLO_BYTES = 4
_LONGEST_FRAME = 0xFFFFFF

Row = Mapping[str, Any]


def read_recording(path: str | Path) -> dict[str, list[Row]]:
    """Read a file of JSON lines into its sessions, by the `session` of each row; rows without one belong to "".

    Raises:
        ConfigError: a line is not a row; names the line.
        OSError: the file can't be read.
    """
    sessions: dict[str, list[Row]] = {}
    with open(path, encoding="utf-8") as file:
        for line, text in enumerate(file, 1):
            try:
                row = json.loads(text)
                bytes.fromhex(row["payload_hex"])
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}, line {line}: not a recorded frame: {error!r}") from None
            sessions.setdefault(row.get("session", ""), []).append(row)
    return sessions


class RecordedGateway:
    """A server that plays one recording to each client. An async context manager; `port` is known inside.

    Args:
        rows: the recording, from its handshake on.
        host: the interface to listen on.
        port: 0 is any free one.
        speed: how many times faster than recorded; 0 ignores the times.
        waits: False does not wait for the client's requests.

    Attributes:
        finished: set when a client has been sent everything.
    """

    def __init__(
        self, rows: Sequence[Row], host: str = "127.0.0.1", port: int = 0, *, speed: float = 1.0, waits: bool = True
    ) -> None:
        if not rows or rows[0].get("encoding") != "handshake":
            raise ConfigError("a recording begins with the gateway's handshake")
        self.host = host
        self.port = port
        self.finished = asyncio.Event()
        self._rows = rows
        self._speed = speed
        self._waits = waits
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> RecordedGateway:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop the clients and stop listening."""
        assert self._server is not None
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await reader.readexactly(_HELLO_BYTES)
            await _read_frame(reader)
            await self._play(reader, writer)
            self.finished.set()
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            # The server is closing; a cancelled handler would be reported as a failure.
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        began_s, waited_s = loop.time(), 0.0
        raw_ids = _server_version(self._rows[0]) >= ServerVersion.RAW_MESSAGE_ID
        for row in self._rows:
            if row["direction"] == "out":
                if self._waits and row.get("msg_id") is not None:
                    before_s = loop.time()
                    while _message_id(await _read_frame(reader), raw_ids=raw_ids) != row["msg_id"]:
                        pass
                    waited_s += loop.time() - before_s
                continue
            if self._speed and "offset_s" in row:
                await asyncio.sleep(began_s + waited_s + row["offset_s"] / self._speed - loop.time())
            payload = bytes.fromhex(row["payload_hex"])
            writer.write(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)
            await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    if length > _LONGEST_FRAME:
        raise ConnectionError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


def _server_version(handshake: Row) -> int:
    return int(bytes.fromhex(handshake["payload_hex"]).split(b"\0")[0])


def _message_id(payload: bytes, *, raw_ids: bool) -> int:
    """Return the base id of a request; 0 for what has none."""
    if not raw_ids:
        text = payload.split(b"\0")[0]
        return int(text) if text.isdigit() else 0
    wire_id = int.from_bytes(payload[:_LENGTH_BYTES], "big")
    return wire_id - PROTOBUF_OFFSET if wire_id > PROTOBUF_OFFSET else wire_id
