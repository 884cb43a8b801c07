"""One WebSocket as an outlet: what it takes goes straight to its socket, what it can't take waits or is left out.

The rule of the file: frames are whole, in order, and never follow the end of the conversation. The library has the
handshake, pings and closing; data passes by it. What the client sends is parsed in small pieces, no faster than it may
ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Hashable, Iterator
from email.utils import formatdate
from typing import Any, Protocol, cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from ibfast.fanout.access.holders import BANDWIDTH_BURST_S
from ibfast.fanout.access.limits import Bucket
from ibfast.fanout.access.pages import Page
from ibfast.fanout.access.tls import detached
from ibfast.fanout.access.tokens import Grant
from ibfast.fanout.backlog import Backlog, BacklogLimits, Pace, Progress
from ibfast.fanout.faults import Faults
from ibfast.fanout.messages import Code
from ibfast.fanout.session import Session
from ibfast.fanout.sockets.broadcaster import Broadcaster, Writer
from ibfast.fanout.sockets.frames import DEFLATE_WINDOW_BITS
from ibfast.fanout.turns import Turns

__all__ = ["CLOSE_S", "Connection", "Owner"]

CLOSE_S = 2.0
"""For the client's answer to a close, and for whatever waits before it."""

PIECE_NBYTES = 1024
"""So many received bytes are parsed at once: 170 of the shortest frames at most, which takes about two milliseconds."""

COST_NBYTES = 1024
"""A frame costs as much as another one, and once more for each so many bytes of it and of its answer."""

CONTROL_BURST_S = 1.0
"""How many seconds' worth a client may send at once."""

NORMAL_CLOSURE, GOING_AWAY, POLICY_VIOLATION = 1000, 1001, 1008
CLOSE_CODES = {Code.SHUTDOWN: GOING_AWAY}


class Owner(Protocol):
    """The server, as its connections see it."""

    broadcaster: Broadcaster
    limits: BacklogLimits
    faults: Faults
    handshake_timeout_s: float
    turns: Turns
    max_control_per_s: int
    max_message_bytes: int

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What TLS is spoken with; None: it is not."""

    def arrived(self, connection: Connection) -> None:
        """A socket was accepted."""

    def opened(self, connection: Connection) -> None:
        """TLS, if it is spoken, is agreed on."""

    def left(self, connection: Connection) -> None:
        """It was closed."""

    def watch(self, connection: Connection) -> None:
        """Look at it soon, and again as long as `needs_looks`."""

    def paused(self) -> None:
        """Count a client that is not read on for now, because it has sent faster than it may."""

    def too_fast(self, connection: Connection) -> None:
        """End a session whose client sends on much faster than it may."""


class Connection(ServerConnection):
    """A client.

    Attributes:
        owner: the server that it belongs to.
        address: the peer's, "" if it has none.
        member: what stands for it in an audience: its writer, once it is open.
        is_open: whether TLS, if it is spoken, is agreed on.
        is_deflated: whether frames may be deflated.
        grant: who it is; set by the handshake.
        refusal: why it may not stay, decided before it said anything; "" if it may.
        is_counted: whether it counts among the connections.
        session: its conversation; None before and after it.
        last_s: when it was written to last, but for the frames of its audiences.
    """

    def __init__(self, owner: Owner, protocol: ServerProtocol, server: Server, **options: Any) -> None:
        super().__init__(protocol, server, **options)
        self.owner = owner
        self.member: Writer
        self.address = ""
        self.is_deflated = False
        self.grant: Grant | None = None
        self.refusal = ""
        self.is_counted = False
        self.session: Session | None = None
        self.last_s = 0.0
        self.backlog = Backlog(owner.limits)
        self.pace = Pace(owner.limits)
        self._progress = Progress(owner.limits)
        self._bandwidth: Bucket | None = None
        self._allowed = 0
        self.is_open = False
        self._too_late: asyncio.TimerHandle | None = None
        self._securing: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._control = Bucket(owner.max_control_per_s, CONTROL_BURST_S, self.loop.time())
        self._written = 0
        self._unread = bytearray()
        self._is_at_eof = False
        self._is_reading = False
        self._wake: asyncio.TimerHandle | None = None

    # --- the transport's callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol: called for the socket, and, where TLS is spoken, again when that is agreed on."""
        transport = cast(asyncio.Transport, transport)
        if self._too_late is not None:
            self._open(transport)
            return
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._too_late = self.loop.call_later(self.owner.handshake_timeout_s, self.drop)
        self.owner.arrived(self)
        if transport.is_closing():
            return
        if self.owner.tls is None:
            self._open(transport)
            return
        try:
            sock = detached(transport)
        except OSError:  # there is no descriptor left
            transport.abort()
            return
        self._securing = self.loop.create_task(self._secure(sock, self.owner.tls))
        # A task that is cancelled before its first step does nothing by itself.
        self._securing.add_done_callback(lambda _: self._secured(sock))

    async def _secure(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        """Agree on TLS; the loop calls `connection_made` then."""
        with contextlib.suppress(OSError):  # it speaks no TLS, or has gone
            await self.loop.connect_accepted_socket(
                lambda: self, sock, ssl=tls, ssl_handshake_timeout=self.owner.handshake_timeout_s
            )

    def _secured(self, sock: socket.socket) -> None:
        if not self.is_open:
            sock.close()
            self.connection_lost(None)

    def _open(self, transport: asyncio.Transport) -> None:
        """Have the library speak; it gets a transport that sees what it writes."""
        self.is_open = True
        self.member = self.owner.broadcaster.join(transport, self._may_write, self.read_on)
        self.owner.opened(self)
        super().connection_made(self.member)

    def data_received(self, data: bytes) -> None:
        """Have what the client has sent parsed when it is its turn, and as fast as it may ask."""
        self._unread += data
        self.read_on()

    def read_on(self) -> None:
        """Parse what was received, as far as that may be done now. More than a message's size does not wait here."""
        if self._unread and not self._is_reading and not self.member.is_full:
            wait_s = self._control.wait_s(self.loop.time())
            if not wait_s:
                self._is_reading = True
                self.owner.turns.add(self.turn_of, self._read_piece)
            elif self._ending is None and len(self._unread) > self.owner.max_message_bytes:
                self.owner.too_fast(self)
            elif self._wake is None:
                self.owner.paused()
                self._wake = self.loop.call_later(wait_s, self._wake_up)
        self.member.wait(is_waiting=len(self._unread) > self.owner.max_message_bytes)

    @property
    def turn_of(self) -> Hashable:
        """Whose turn it is when something is done for the client: of its token's holder, or of its address before."""
        return self.address if self.session is None else self.session.holder

    def _wake_up(self) -> None:
        self._wake = None
        self.read_on()

    def _read_piece(self) -> None:
        piece = bytes(self._unread[:PIECE_NBYTES])
        del self._unread[:PIECE_NBYTES]
        self._is_reading = False
        if not piece:  # the socket was closed meanwhile
            return
        super().data_received(piece)
        if self._ending is None and self.protocol.state is State.CLOSING:
            self._ending = self.loop.create_task(self._close())
        self.read_on()
        if self._is_at_eof and not self._unread:
            self._end_of_file()

    def process_event(self, event: Request | Response | Frame) -> None:
        """Count a frame, whether the client speaks to the server or to the library."""
        if isinstance(event, Frame):
            self._control.spend(1 + len(event.data) / COST_NBYTES, self.loop.time())
        super().process_event(event)

    def pause_writing(self) -> None:
        """The socket does not take everything."""
        super().pause_writing()
        self.member.hold()
        self.watch()

    def resume_writing(self) -> None:
        """It has taken everything."""
        super().resume_writing()
        self.member.release()
        self._progress.took_all()
        if self.backlog and self.member.is_ready:
            self.member.write_frame(self.backlog.take())  # at once: from here on a window could overtake it
        self.loop.call_soon(self.drain_backlog)
        self.read_on()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's returns whether the transport stays open
        """The client says nothing more; what it has said before is parsed, and answered, before the end is."""
        self._is_at_eof = bool(self._unread) and self.transport.can_write_eof()  # one that speaks TLS closes anyway
        if not self._is_at_eof:
            self._end_of_file()
        return self._is_at_eof

    def _end_of_file(self) -> None:
        self.member.stop()
        super().eof_received()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._too_late is not None:
            self._too_late.cancel()
        self._unread.clear()
        if self._wake is not None:
            self._wake.cancel()
        if self.is_open:
            self.member.leave()
            super().connection_lost(exc)
        self.owner.left(self)
        self.loop.call_soon(self._untie)

    async def handshake(self, *args: Any, **options: Any) -> None:
        """Wait until the client has asked for the WebSocket, and answer."""
        try:
            await super().handshake(*args, **options)
        finally:
            self.loop.call_soon(self._untie)

    def _untie(self) -> None:
        """Break the circles of references of a connection that is closed, so that it is freed at once.

        Only the garbage collector finds circles, and a collection among thousands of connections stops the loop.
        """
        if not self.is_open or self.protocol.state is not State.CLOSED:
            return
        self.protocol.__dict__.pop("select_subprotocol", None)
        self.protocol.parser.close()
        error: BaseException | None
        for error in (self.protocol.parser_exc, self.protocol.handshake_exc):
            while error is not None:
                error.__traceback__ = None
                error = error.__cause__ or error.__context__

    async def keepalive(self) -> None:
        """Ping from time to time, and close a connection whose pong is late.

        A pong may stand behind frames that have arrived and wait for the client's rate. It is not late while any wait.
        """
        assert self.ping_interval is not None
        with self.owner.faults.contained("connection", self.cut):
            while True:
                await asyncio.sleep(self.ping_interval)
                answered = asyncio.ensure_future(await self.ping())
                while not answered.done():
                    await asyncio.wait([answered], timeout=self.ping_timeout)
                    if not answered.done() and not self._unread:
                        async with self.send_context():  # waits for the end, which cancels this task
                            self.protocol.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    @property
    def is_ending(self) -> bool:
        """Whether the end has begun: nothing follows what said so."""
        return self._ending is not None

    def _may_write(self) -> bool:
        return self.protocol.state is State.OPEN and not self.is_ending

    def answer(self, page: Page, method: str) -> Response:
        """Return a page as the library sends it, in place of a handshake."""
        headers = {
            "Date": formatdate(usegmt=True),
            "Connection": "close",
            "Content-Length": str(len(page.body)),
            "Content-Type": page.content_type,
            "Cache-Control": "no-store",
        }
        body = b"" if method == "HEAD" else page.body
        return Response(page.status, page.status.phrase, Headers(headers | dict(page.headers)), body)

    # --- an outlet ---

    def begin(self, session: Session) -> None:
        """Take data from now on."""
        assert self._too_late is not None
        self._too_late.cancel()
        self.session = session
        self.is_deflated = any(
            isinstance(extension, PerMessageDeflate)
            and extension.local_no_context_takeover
            and extension.local_max_window_bits >= DEFLATE_WINDOW_BITS
            for extension in self.protocol.extensions
        )
        self.member.start()

    def write(self, frames: bytes) -> None:
        """Send complete frames that must not be left out."""
        if not frames or not self._may_write():
            return
        self._written += len(frames)
        now_s = self.last_s = self.loop.time()
        is_taken = not self.backlog and self.member.write_frame(frames)
        if not is_taken:
            self.backlog.keep(frames, now_s)
            self.watch()
        self._spend(len(frames), now_s)
        if not is_taken or self.is_capped:
            self.loop.call_soon(self._judge)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count what is written within against the rate at which the client may ask."""
        before = self._written
        try:
            yield
        finally:
            self._control.spend((self._written - before) / COST_NBYTES, self.loop.time())

    def offer(self, frames: bytes, now_s: float) -> None:
        """Have frames of data wait that the socket did not take; the last ones, if there is too much of them."""
        if self._may_write():
            self.backlog.keep(frames, now_s)
            self.watch()
            self.loop.call_soon(self._judge)

    def spend(self, nbytes: int, now_s: float) -> None:
        """Count bytes of data against the limits of the session and of its holder."""
        self._spend(nbytes, now_s)
        if self.is_capped:
            self.loop.call_soon(self._judge)

    def _spend(self, nbytes: int, now_s: float) -> None:
        for bucket in self._bandwidths():
            bucket.spend(nbytes, now_s)

    def _is_spent(self, now_s: float) -> bool:
        return any(bucket.wait_s(now_s) > 0 for bucket in self._bandwidths())

    def _bandwidths(self) -> Iterator[Bucket]:
        """Yield the limits of bytes per second: the session's own, and that of its holder."""
        if self.session is not None:
            shared = self.session.holder.bandwidth
            yield from (bucket for bucket in (self.bandwidth, shared) if bucket is not None)

    def _judge(self) -> None:
        """Leave data out from now on, if too much waits or was sent; never in the middle of what is being said."""
        with self.owner.faults.contained("connection", self.cut):
            self._leave_out()

    def _leave_out(self) -> None:
        if self.session is None or self.session.subscriber.is_behind:
            return
        now_s = self.loop.time()
        if self._is_spent(now_s) or self.backlog.is_full(now_s):
            self.pace.fell_behind(now_s)
            self.session.subscriber.fall_behind()
            self.watch()

    def cut(self) -> None:
        """Break the connection off; what the socket holds of it may still arrive, nothing follows."""
        self.transport.abort()

    def watch(self) -> None:
        """Have it looked at soon."""
        self.owner.watch(self)

    @property
    def needs_looks(self) -> bool:
        """Whether it waits for anything."""
        return self.is_clogged or (self.session is not None and self.session.subscriber.is_waiting)

    @property
    def is_capped(self) -> bool:
        """Whether the session has a limit of its own."""
        return self.session is not None and self.session.max_bytes_per_s > 0

    @property
    def bandwidth(self) -> Bucket | None:
        """The session's own limit, None if it has none."""
        allowed = 0 if self.session is None else self.session.max_bytes_per_s
        if allowed != self._allowed:
            self._allowed = allowed
            self._bandwidth = Bucket(allowed, BANDWIDTH_BURST_S, self.loop.time()) if allowed else None
        return self._bandwidth

    @property
    def is_clogged(self) -> bool:
        """Whether something waits for it, or is left out."""
        is_behind = self.session is not None and self.session.subscriber.is_behind
        return is_behind or self.paused or bool(self.backlog)

    def drain_backlog(self) -> None:
        """Send what waits; if the socket takes it, go on with what is newest."""
        with self.owner.faults.contained("connection", self.cut):
            self._drain()

    def _drain(self) -> None:
        if self.session is None or not self._may_write():
            return
        if self.backlog and self.member.is_ready:
            self.member.write_frame(self.backlog.take())
        now_s = self.loop.time()
        subscriber = self.session.subscriber
        if subscriber.is_behind and self.member.is_ready and not self.backlog and not self._is_spent(now_s):
            if self.pace.caught_up(now_s):
                subscriber.set_pace(self.pace.steps)
            subscriber.catch_up()

    def is_stalled(self, now_s: float) -> bool:
        """Tell whether the client has taken nothing for too long."""
        return self._progress.is_stalled(self.transport.get_write_buffer_size(), now_s)

    async def drained(self) -> None:
        """Wait until everything is on its way: who asks and does not listen to the answers is not asked further.

        Of who has gone away the rest will never be on its way: reading tells of the end, and how it came.
        """
        with contextlib.suppress(OSError):
            while (self.backlog or self.paused) and self._may_write():
                await self.drain()
                await asyncio.sleep(0)

    # --- the end ---

    def drop(self) -> None:
        """Break it off, whatever it is at."""
        if self._securing is not None:
            self._securing.cancel()
        self.transport.abort()

    def end(self, code: Code, message: str) -> bool:
        """End the conversation, and say why. Return whether it was not ending already."""
        if self.is_ending:
            return False
        session, self.session = self.session, None
        if session is not None:
            session.stop()
            session.subscriber.say("closing", code=code, message=message)
            if self.backlog and self._may_write():
                self.member.write(self.backlog.take())  # before the end, whatever the socket takes
        if code is Code.TOO_SLOW:
            self.transport.abort()  # it would not take that, either
        self._ending = self.loop.create_task(self._close(CLOSE_CODES.get(code, POLICY_VIOLATION), code))
        return True

    async def _close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close, with this code unless either side has said one; and wait until it is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                if self.protocol.state is State.CONNECTING:
                    await self.wait_closed()  # the library answers the handshake with 503 when the server stops
                else:
                    await self.close(code, reason)
        self.transport.abort()

    async def ended(self) -> None:
        """Wait for the end that has begun."""
        for task in (self._securing, self._ending):
            if task is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
