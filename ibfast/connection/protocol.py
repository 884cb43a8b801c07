"""One session with a gateway over one connection, without I/O: bytes in, events out; requests in, bytes out.

The rule of the file: it is fed and it is asked, and it never calls back. After every `buffer_updated`, `receive_eof`
or `send` the caller writes `data_to_send()` to the socket and handles `events()`. No socket, no loop, no clock.

    HELLO ──version──▶ START ──nextValidId and managedAccounts──▶ READY
      └────────────────────┴── end of stream, garbage ──▶ CLOSED ◀┘

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from enum import Enum
from typing import NamedTuple

from ibfast._core import Decoder
from ibfast.common.shown import shown
from ibfast.errors import ClientIdInUseError, ConnectError, DecodeError, NotConnectedError, ProtocolError
from ibfast.feed.feed import Feed
from ibfast.wire import request_bytes, response_bytes
from ibfast.wire.ids import Incoming, ServerVersion
from ibfast.wire.requests import Request, StartApi
from ibfast.wire.responses import ErrorMessage, ManagedAccounts, NextValidId, Response, Unreadable

__all__ = ["Arrival", "Protocol", "State"]

# The reply to the hello is a version and a time; what is longer is no TWS.
MAX_REPLY_BYTES = 256
CLIENT_ID_IN_USE = 326
AWAITED_AT_START = (Incoming.NEXT_VALID_ID, Incoming.MANAGED_ACCTS)
NOT_A_GATEWAY = "is this the port of TWS or IB Gateway (7496, 7497, 4001, 4002), and is nothing else listening there?"
NOT_ENABLED = (
    "in TWS: File > Global Configuration > API > Settings, tick 'Enable ActiveX and Socket Clients', and put this "
    "machine under 'Trusted IPs'; or the client id is in use"
)


class State(Enum):
    """How far a session has come."""

    HELLO = "waiting for the gateway's version"
    START = "waiting for nextValidId and managedAccounts"
    READY = "ready"
    CLOSED = "closed"


class Arrival(NamedTuple):
    """A message that is not tick path, and where it stands among the records.

    Attributes:
        message: see `ibfast.wire.responses`; one that can't be read is an `Unreadable`.
        seq: of the newest record when it came: it lies between that record and the next.
        recv_ns: UTC time of its socket read.
    """

    message: Response
    seq: int
    recv_ns: int


class Protocol:
    """The client's side of one session.

    Args:
        feed: where market data goes.
        client_id: of this session; the gateway refuses one that is in use.
        zone: of times in which the gateway names no zone.

    Attributes:
        state: a State.
        error: why the session is CLOSED, None before that and after an orderly `close`: a ConnectError if it never was
            READY, else a ProtocolError or a NotConnectedError.
        server_version: what was agreed on, 0 before.
        connection_time: the gateway's clock at the handshake, in its own words.
        accounts: the accounts of the login.
        next_order_id: the first order id that is free.
        start_error: why a message that begins the session can't be read, None if they can.
        decoder: the decoder of this connection, None before the handshake.
        paused: whether an error message came in the middle of a read: see `buffer_updated`.
        decode_ns: what decoding, publishing and waking have taken so far, as the connection, which has a clock, counts.
    """

    def __init__(self, feed: Feed, client_id: int = 1, *, zone: tzinfo = UTC) -> None:
        self.feed = feed
        self.client_id = client_id
        self.zone = zone
        self.state = State.HELLO
        self.error: Exception | None = None
        self.server_version = 0
        self.connection_time = ""
        self.accounts: tuple[str, ...] = ()
        self.next_order_id: int | None = None
        self.start_error: DecodeError | None = None
        self.decoder: Decoder | None = None
        self.paused = False
        self.decode_ns = 0
        self._reply = bytearray(MAX_REPLY_BYTES + 4)
        self._reply_bytes = 0
        self._outgoing: list[bytes] = [request_bytes.hello()]
        self._events: list[Arrival] = []

    # --- out ---

    def encode(self, request: Request) -> bytes:
        """Return a request as a frame for `send_frame`.

        Raises:
            NotConnectedError: the session is not READY.
            UnsupportedError: the gateway's version has no such request.
            ValueError: a field of the request can't be written.
        """
        if self.state is not State.READY:
            raise NotConnectedError(f"no request can be sent: the session is {self.state.value}")
        return request_bytes.frame(request_bytes.encode(request, self.server_version))

    def send_frame(self, frame: bytes) -> None:
        """Queue a frame for `data_to_send`."""
        self._outgoing.append(frame)

    def send(self, request: Request) -> None:
        """Encode a request for `data_to_send`; raises as `encode`."""
        self.send_frame(self.encode(request))

    def data_to_send(self) -> bytes:
        """Return, once, the bytes to be written."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    # --- in ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the room for the next read; `buffer_updated` must follow before the next call."""
        if self.decoder is not None:
            return self.decoder.get_buffer(sizehint)
        # What comes after the end is thrown away; an event loop wants room for it all the same.
        held = self._reply_bytes if self.state is State.HELLO else 0
        return memoryview(self._reply)[held:]

    def buffer_updated(self, nbytes: int, recv_ns: int) -> int:
        """Take in what was read into `get_buffer`: market data to the feed, the rest to `events`.

        An error message makes it pause, so that the caller can act on the message before any record that came after it:
        while `paused` is true, the caller handles `events` and calls `buffer_updated(0, recv_ns)`.

        Args:
            nbytes: how much was read.
            recv_ns: UTC time of the read.

        Returns:
            How many messages were completed.
        """
        messages = 0
        self.paused = False
        if self.state is State.CLOSED:
            return messages
        try:
            if self.decoder is not None:
                messages = self.decoder.buffer_updated(nbytes, recv_ns)
                self.paused = self.decoder.paused
            else:
                self._reply_bytes += nbytes
                self._read_reply(recv_ns)
        except ConnectError as error:
            self._close(error)
        except ProtocolError as error:
            is_ready = self.state is State.READY
            self._close(error if is_ready else ConnectError("start", str(error), NOT_A_GATEWAY))
        self._read_messages()
        return messages

    def receive_data(self, data: bytes, recv_ns: int = 0) -> None:
        """As `get_buffer` and `buffer_updated`, for bytes that are at hand already."""
        rest = memoryview(data)
        while rest:
            room = self.get_buffer(len(rest))
            n = min(len(room), len(rest))
            room[:n] = rest[:n]
            self.buffer_updated(n, recv_ns)
            while self.paused:
                self.buffer_updated(0, recv_ns)
            rest = rest[n:]

    def receive_eof(self) -> None:
        """Take in that the gateway has closed the connection."""
        if self.state is State.HELLO:
            if self._reply_bytes:
                self._close(ConnectError("handshake", "the gateway closed the connection in mid-reply", NOT_A_GATEWAY))
            else:
                self._close(ConnectError("handshake", "the connection was closed without a reply", NOT_ENABLED))
        elif self.state is State.START:
            self._close(ConnectError("start", "the gateway closed the session before it was ready", NOT_ENABLED))
        elif self.state is State.READY:
            self._close(NotConnectedError("the gateway closed the connection"))

    def events(self) -> list[Arrival]:
        """Return, once, the messages that are not tick path, in the order of their arrival."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End the session from this side."""
        self.state = State.CLOSED

    # --- inside ---

    def _close(self, error: Exception) -> None:
        self.error = self.error or error
        self.state = State.CLOSED

    def _read_reply(self, recv_ns: int) -> None:
        """Read the first frame: server version, NUL, connection time, NUL."""
        held = bytes(self._reply[: self._reply_bytes])
        length = int.from_bytes(held[:4], "big")
        if len(held) >= 4 and not 0 < length <= MAX_REPLY_BYTES:
            raise ConnectError("handshake", f"the reply is not a gateway's: {held[:40]!r}", NOT_A_GATEWAY)
        if len(held) < 4 or len(held) < 4 + length:
            return
        version, separator, rest = held[4 : 4 + length].partition(b"\0")
        if not separator or not version.isdigit():
            raise ConnectError("handshake", f"the reply is not a gateway's: {held[:40]!r}", NOT_A_GATEWAY)
        self._begin(int(version), rest.rstrip(b"\0").decode("utf-8", "replace"))
        self.receive_data(held[4 + length :], recv_ns)

    def _begin(self, server_version: int, connection_time: str) -> None:
        if not ServerVersion.MIN <= server_version <= ServerVersion.MAX:
            raise ConnectError(
                "handshake",
                f"the gateway speaks server version {server_version}, not {ServerVersion.MIN} to {ServerVersion.MAX}",
                "update TWS or IB Gateway" if server_version < ServerVersion.MIN else "update ibfast",
            )
        self.server_version = server_version
        self.connection_time = connection_time
        self.decoder = Decoder(self.feed, server_version, self.zone)
        self.decoder.pauses = True
        self.state = State.START
        self._outgoing.append(request_bytes.frame(request_bytes.encode(StartApi(self.client_id), server_version)))

    def _read_messages(self) -> None:
        if self.decoder is None:
            return
        for raw in self.decoder.take_messages():
            msg_id, payload, is_protobuf = raw
            try:
                message = response_bytes.decode(msg_id, payload, is_protobuf, self.server_version, self.zone)
            except DecodeError as error:
                self.decoder.quarantine(msg_id, payload, shown(error.reason))
                message = response_bytes.unreadable(error, is_protobuf, self.server_version)
            if self.state is State.START:
                self._start(message)
            self._events.append(Arrival(message, raw.seq, raw.recv_ns))

    def _start(self, message: Response) -> None:
        if isinstance(message, NextValidId):
            self.next_order_id = message.order_id
        elif isinstance(message, ManagedAccounts):
            self.accounts = message.accounts
        elif isinstance(message, ErrorMessage) and message.code == CLIENT_ID_IN_USE:
            self._close(
                ClientIdInUseError(
                    "start", f"client id {self.client_id} is in use", "give another client_id, or end the other client"
                )
            )
        elif isinstance(message, Unreadable) and message.msg_id in AWAITED_AT_START:
            self.start_error = message.error
        if self.next_order_id is not None and self.accounts and self.state is State.START:
            self.state = State.READY
