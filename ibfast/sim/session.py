"""One client of the gateway: its socket, its handshake, its frames.

The rule of the file: bytes in, requests out; messages in, bytes out. What a request means is the desk's business. The
output is collected and written once per `flush`; a client that does not read is cut when its buffer is full, as TWS
does it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from ibfast.errors import DecodeError
from ibfast.records import NS_PER_MS, NS_PER_S
from ibfast.sim.codec import UnknownRequest, decode_request, encode
from ibfast.sim.desk import Desk
from ibfast.sim.pacing import Refusal, RequestRate
from ibfast.sim.services import Host
from ibfast.sim.streams import Message
from ibfast.wire.ids import ServerVersion
from ibfast.wire.requests import Request, StartApi
from ibfast.wire.responses import ErrorMessage, ManagedAccounts, NextValidId

__all__ = ["GatewaySession"]

_HELLO = b"API\0"
_LENGTH_BYTES = 4
_LONGEST_HELLO = 256
_LONGEST_FRAME = 0xFFFFFF
_FLUSH_BYTES = 1 << 16
_OFFER = re.compile(rb"v([0-9]{1,9})(?:\.\.([0-9]{1,9}))?(?: .*)?", re.DOTALL)
_CLIENT_ID_IN_USE, _UNREADABLE = 326, 320


class GatewaySession(asyncio.Protocol):
    """A client's connection, from its first byte on.

    Attributes:
        client_id: None until the client has started the API.
        server_version: what was agreed on; 0 until then.
        desk: what serves its requests.
    """

    def __init__(self, gateway: Host) -> None:
        self.client_id: int | None = None
        self.server_version = 0
        self._gateway = gateway
        self.desk = Desk(gateway, self)
        self._rate = RequestRate(gateway.lines)
        self._received = bytearray()
        self._unsent = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._read: Callable[[], bool] = self._read_hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._gateway.sessions.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give everything back that the client held."""
        self._transport = None
        self._writable.set()
        self.desk.close()
        self._gateway.sessions.remove(self)

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    async def drained(self) -> None:
        """Wait until the client has read most of what was written, or is gone."""
        await self._writable.wait()

    def data_received(self, data: bytes) -> None:
        """Handle what has arrived, and answer at once."""
        self._received += data
        while self._transport is not None and self._read():
            if len(self._unsent) > _FLUSH_BYTES:
                self.flush()
        self.flush()
        if self._gateway.faults.read_interval_s:
            self._rest(self._gateway.faults.read_interval_s)

    def _rest(self, interval_s: float) -> None:
        """Read nothing for a while."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(interval_s, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def send(self, message: Message) -> None:
        """Queue a message for the next flush."""
        payload = encode(message, self.server_version)
        self._gateway.count(self.client_id, message)
        self._unsent += len(payload).to_bytes(_LENGTH_BYTES, "big")
        self._unsent += payload

    def send_error(self, req_id: int, code: int, text: str) -> None:
        """Queue an error or a notice."""
        self.send(ErrorMessage(req_id, code, text, error_time_ms=self._gateway.clock.now_ns() // NS_PER_MS))

    def flush(self) -> None:
        """Write what is queued; cut the client off if it lets too much pile up."""
        if self._transport is None or not self._unsent or self._gateway.faults.holds_writes:
            return
        self._transport.write(bytes(self._unsent))
        self._unsent.clear()
        if (
            self._transport.get_write_buffer_size() > self._gateway.send_buffer
            and not self._gateway.market.paces_itself
        ):
            self.abort()

    def close(self) -> None:
        """Close the connection after what is queued has been written."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
        self._read = self._ignore

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()
        self._read = self._ignore

    def _ignore(self) -> bool:
        self._received.clear()
        return False

    def _read_hello(self) -> bool:
        received = self._received
        head = len(_HELLO) + _LENGTH_BYTES
        if not _HELLO.startswith(received[: len(_HELLO)]):
            self.close()
            return False
        if len(received) < head:
            return False
        length = int.from_bytes(received[len(_HELLO) : head], "big")
        if length > _LONGEST_HELLO:
            self.close()
            return False
        if len(received) < head + length:
            return False
        offer = _OFFER.fullmatch(bytes(received[head : head + length]))
        del received[: head + length]
        version = self._agree(offer)
        if not version:
            self.close()
            return False
        self.server_version = version
        now = datetime.fromtimestamp(self._gateway.clock.now_ns() // NS_PER_S, UTC)
        reply = f"{version}\0{now:%Y%m%d %H:%M:%S} Greenwich Mean Time\0".encode()
        self._unsent += len(reply).to_bytes(_LENGTH_BYTES, "big") + reply
        self._read = self._read_frame
        return True

    def _agree(self, offer: re.Match[bytes] | None) -> int:
        """Return the version for both sides; 0 if there is none."""
        if offer is None:
            return 0
        lowest, highest = int(offer[1]), int(offer[2] or offer[1])
        version = min(self._gateway.server_version, highest)
        return version if version >= max(lowest, ServerVersion.MIN) else 0

    def _read_frame(self) -> bool:
        received = self._received
        if len(received) < _LENGTH_BYTES:
            return False
        length = int.from_bytes(received[:_LENGTH_BYTES], "big")
        if not 0 < length <= _LONGEST_FRAME:
            self.abort()
            return False
        if len(received) < _LENGTH_BYTES + length:
            return False
        payload = bytes(received[_LENGTH_BYTES : _LENGTH_BYTES + length])
        del received[: _LENGTH_BYTES + length]
        try:
            self._take(decode_request(payload, self.server_version))
        except DecodeError as error:
            self.send_error(-1, _UNREADABLE, f"Server error when reading an API client request: {error.reason}")
        return True

    def _take(self, request: Request | UnknownRequest) -> None:
        self._gateway.received[type(request)] += 1
        if self.client_id is None:
            self._start(request)
        elif self._may_ask(request):
            self.desk.handle(request)

    def _start(self, request: Request | UnknownRequest) -> None:
        """Begin the session; nothing but StartApi does."""
        if not isinstance(request, StartApi):
            self.close()
            return
        faults = self._gateway.faults
        if faults.take("id in use") or not self._gateway.admit(request.client_id):
            text = "Unable to connect as the client id is already in use. Retry with a unique client id."
            self.send_error(-1, _CLIENT_ID_IN_USE, text)
            self.close()
            return
        self.client_id = request.client_id
        self.send(ManagedAccounts(self._gateway.accounts))
        if not faults.take("next valid id"):
            self.send(NextValidId(1))
        for code, text in faults.notices():
            self.send_error(-1, code, text)

    def _may_ask(self, request: Request | UnknownRequest) -> bool:
        if self._gateway.faults.take("rate"):
            refusal: Refusal | None = self._rate.refuse()
        elif self._gateway.pacing:
            refusal = self._rate.request(self._gateway.wall_s())
            if refusal is not None:
                self._gateway.note_violation(self.client_id, refusal, request)
        else:
            refusal = None
        if refusal is None:
            return True
        self.send_error(-1, refusal.code, refusal.message)
        if refusal.ends_session:
            self.close()
        return False
