# cython: language_level=3
"""The decoder: framed bytes in, records out.

The rule of the file: what a frame is depends on its own id only, never on the session. A handler reads a message's
fields into values and passes them to a `write_*` function of `_feed.pxd`; it returns a status, and a frame whose
status is not OK has written nothing.

No I/O, no clock, no asyncio.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ibfast.feed._feed cimport FeedCore
from ibfast.decoder._number cimport LARGEST_POWER, NUMBER_BAD, NUMBER_OK, NUMBER_UNDECIDED, SMALLEST_POWER, parse_number
from ibfast.decoder._proto cimport decode_proto
from ibfast.decoder._text cimport decode_text
from ibfast.decoder._cursor cimport (
    STATUS_ASIDE, STATUS_ID, STATUS_INTEGER, STATUS_LENGTH, STATUS_NUMBER, STATUS_OK, STATUS_RANGE, STATUS_SHORT,
    STATUS_SWALLOWED, STATUS_TIME, STATUS_UNTERMINATED, STATUS_VARINT, STATUS_WIRE_TYPE, TIME_UNKNOWN, be32, bytes_t,
    context_t, cursor_t, ends_in_frames, read_ascii_id, span_t,
)

import datetime
from collections import deque
from typing import NamedTuple

from ibfast.errors import ProtocolError
from ibfast.wire.times import parse_bar_time
from ibfast.wire.text import unescape

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *s, char **endptr, PyObject *overflow_exception) except? -1.0
    object PyMemoryView_FromObject(object obj)

cdef enum:
    MIN_SERVER_VERSION = 157
    MAX_SERVER_VERSION = 226
    PROTOBUF_OFFSET = 200
    RAW_ID_SINCE = 201           # server version from which a payload begins with a four-byte id
    PREFIX_BYTES = 4
    MAX_FRAME_BYTES = 0xFFFFFF   # IB's own limit
    IN_ERR_MSG = 4               # ibfast.wire.ids.Incoming
    NOGIL_BYTES = 1 << 14        # smaller reads take a few µs: handing the GIL over would cost more
    # Room that a socket read is offered. uvloop may fill it 32 times before any reader runs, and what comes then must
    # fit into a ring of 65,536 rows: a megabyte of the shortest ticks does.
    READ_BYTES = 1 << 15

QUARANTINE_SIZE = 256            # malformed messages kept for inspection; the count goes on
QUARANTINE_BYTES = 1 << 20       # of all their payloads together; a payload that is longer by itself is cut

cdef dict STATUS_TEXT = {
    STATUS_SHORT: "the message ends before its last field",
    STATUS_NUMBER: "a field is not a number",
    STATUS_INTEGER: "a field is not an integer",
    STATUS_RANGE: "a number is out of its field's range",
    STATUS_VARINT: "a varint does not end",
    STATUS_LENGTH: "an inner length reaches past its message",
    STATUS_WIRE_TYPE: "a field has another wire type than its number says",
    STATUS_ID: "the message id is not a number",
    STATUS_UNTERMINATED: "the last field is not terminated",
    STATUS_TIME: "a field is not a time",
}


class Quarantined(NamedTuple):
    """A malformed message: what it was, why it was refused, its payload, and where in the stream its frame began.

    Of a payload of more than a megabyte the first megabyte is kept.
    """

    reason: str
    msg_id: int
    payload: bytes
    offset: int


class Message(tuple):
    """A message that is not tick path: `(msg_id, payload, is_protobuf)`.

    Attributes:
        seq: the newest record's sequence number when it came: the message lies between that record and the next.
        recv_ns: the time stamp of its socket read.
    """

    seq: int
    recv_ns: int


# Powers of five for _number.eisel_lemire, two words each: 128 leading bits, high word first.
cdef uint64_t POWERS_OF_FIVE[2 * (LARGEST_POWER - SMALLEST_POWER + 1)]


def _fill_powers_of_five():
    for q in range(SMALLEST_POWER, LARGEST_POWER + 1):
        if q >= 0:
            power = 5 ** q
            power = power << (128 - power.bit_length()) if power < 1 << 128 else power >> (power.bit_length() - 128)
        else:
            # Rounded up, as the proof for negative exponents wants it.
            divisor = 5 ** -q
            power = (1 << 2 * divisor.bit_length() + 128) // divisor + 1
            if q >= -27:
                power = (1 << divisor.bit_length() + 127) // divisor + 1
            power >>= power.bit_length() - 128
        POWERS_OF_FIVE[2 * (q - SMALLEST_POWER)] = power >> 64
        POWERS_OF_FIVE[2 * (q - SMALLEST_POWER) + 1] = power & 0xFFFFFFFFFFFFFFFF


_fill_powers_of_five()


cdef int read_number(bytes_t p, bytes_t end, double *out) noexcept nogil:
    cdef int status = parse_number(p, end, POWERS_OF_FIVE, out)
    return read_undecided(p, end, out) if status == NUMBER_UNDECIDED else status


cdef int read_undecided(bytes_t p, bytes_t end, double *out) noexcept with gil:
    """Read a number by CPython's parser. A `with gil` block in `read_number` would cost every number a lock."""
    try:
        text = PyBytes_FromStringAndSize(<const char *> p, end - p)
        out[0] = PyOS_string_to_double(text, NULL, NULL)
        return NUMBER_OK
    except ValueError:
        return NUMBER_BAD


cdef int64_t parse_zoned_time(void *decoder, bytes_t p, bytes_t end) noexcept with gil:
    """A bar's time with a clock or a zone in it: rare enough for the interpreter."""
    try:
        return parse_bar_time(p[:end - p].decode("utf-8", "replace"), (<Decoder> decoder).zone)
    except (ValueError, OverflowError):
        return TIME_UNKNOWN


cdef span_t unescape_text(void *decoder, span_t text) noexcept with gil:
    """A text without its escapes: few texts have any, and each is interned once."""
    cdef bytes unescaped = unescape(text.p[:text.n].decode("utf-8", "replace")).encode()
    (<Decoder> decoder).unescaped = unescaped
    text.p = <bytes_t> <const char *> unescaped
    text.n = len(unescaped)
    return text


cdef class Decoder:
    """Decodes one connection's bytes into a feed. It lives as long as the connection.

    The caller takes the messages that are not tick path (`take_messages`) after every read: they are kept until then.

    Args:
        feed: where the records go.
        server_version: what the handshake agreed on, 157 to 226; from 201 on, messages begin with a four-byte id.
        zone: of times that name no zone; None is UTC.

    Raises:
        ValueError: the server version is not one that gateways answer to ibfast's offer.
    """

    cdef readonly FeedCore core
    cdef readonly int server_version
    cdef readonly uint64_t messages          # frames completed, quarantined ones included
    cdef readonly uint64_t quarantined       # messages refused, whether or not they are still kept
    cdef readonly uint64_t quarantine_dropped    # those that gave way to newer ones before anybody took them
    cdef readonly uint64_t bytes_received
    cdef object zone
    cdef object broken                       # the ProtocolError that ended the stream
    cdef object aside                        # list of Message
    cdef object kept                         # deque of Quarantined
    cdef size_t kept_bytes                   # of their payloads
    cdef bytes unescaped                     # keeps the newest result of `unescape_text` alive
    cdef context_t context                   # what the cursors of this connection share
    # Bytes of an unfinished frame and room for the next read. Never resized, only replaced: the event loop may still
    # hold a view of the old one.
    cdef object buffer
    cdef unsigned char *base
    cdef public bint pauses                  # whether `buffer_updated` stops behind every error message
    cdef readonly bint paused                # whether it has
    cdef bint may_pause
    cdef size_t size, start, end

    def __cinit__(self, feed, int server_version=178, zone=None):
        if not MIN_SERVER_VERSION <= server_version <= MAX_SERVER_VERSION:
            raise ValueError(f"server_version is {MIN_SERVER_VERSION} to {MAX_SERVER_VERSION}, not {server_version}")
        self.core = feed.core
        self.server_version = server_version
        self.context.raw_id = server_version >= RAW_ID_SINCE
        self.zone = zone or datetime.timezone.utc
        self.aside = []
        self.kept = deque()
        self.context.number = read_number
        self.context.zoned_time = parse_zoned_time
        self.context.unescape = unescape_text
        self.context.decoder = <void *> self
        self.replace_buffer(READ_BYTES)

    cdef int replace_buffer(self, size_t size) except -1:
        """Move the unfinished frame to the front of a new buffer."""
        cdef object buffer = bytearray(size)
        cdef unsigned char *base = <unsigned char *> <char *> buffer
        if self.end > self.start:
            memcpy(base, self.base + self.start, self.end - self.start)
        self.end -= self.start
        self.start = 0
        self.buffer, self.base, self.size = buffer, base, size
        return 0

    def get_buffer(self, sizehint=-1):
        """Room for the next socket read, as `asyncio.BufferedProtocol.get_buffer` wants it."""
        self.make_room(READ_BYTES // 4)
        return PyMemoryView_FromObject(self.buffer)[self.end:self.end + READ_BYTES]

    cdef int make_room(self, size_t nbytes) except -1:
        """See to `nbytes` free bytes behind the unfinished frame."""
        cdef size_t held = self.end - self.start
        cdef size_t wanted = held + nbytes
        if held == 0:
            self.start = self.end = 0
        if self.size - self.end >= nbytes:
            return 0
        if wanted <= self.size and self.start >= held:
            memcpy(self.base, self.base + self.start, held)
            self.start, self.end = 0, held
            return 0
        if held >= PREFIX_BYTES:
            wanted = max(wanted, PREFIX_BYTES + <size_t> be32(self.base + self.start) + nbytes)
        return self.replace_buffer(max(wanted, <size_t> READ_BYTES))

    def buffer_updated(self, size_t nbytes, int64_t recv_ns=0):
        """Decode `nbytes` that were just read into the last `get_buffer`.

        With `pauses` set, decoding stops behind an error message, so that the caller can act on it before any later
        record: while `paused` is true, the caller handles `take_messages` and calls `buffer_updated(0, recv_ns)`.

        Args:
            recv_ns: UTC time of the read, for all records in it.

        Returns:
            How many messages were completed.

        Raises:
            ProtocolError: framing is broken; so does every later call.
        """
        cdef uint64_t before = self.messages
        self.check_open()
        if nbytes > self.size - self.end:
            raise ValueError(f"{nbytes} bytes do not fit into the room that get_buffer gave")
        self.end += nbytes
        self.may_pause = self.pauses
        try:
            self.start += self.decode(self.base + self.start, self.end - self.start, recv_ns)
        finally:
            self.may_pause = False
        return self.messages - before

    def feed_bytes(self, data, int64_t recv_ns=0):
        """Decode the next bytes of the stream, cut anywhere.

        Args:
            data: any contiguous bytes-like object.
            recv_ns: UTC time of their arrival, for all records in them.

        Returns:
            How many messages were completed.

        Raises:
            ProtocolError: framing is broken; so does every later call.
        """
        cdef Py_buffer view
        cdef bytes_t p
        cdef bytes_t end
        cdef size_t n
        cdef uint64_t before = self.messages
        self.check_open()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            p = <bytes_t> view.buf
            end = p + view.len
            # Only the frame that an earlier call left unfinished is put together; the others are decoded in place.
            while self.end > self.start and p < end:
                n = min(self.missing(), <size_t> (end - p))
                self.hold(p, n)
                p += n
                self.start += self.decode(self.base + self.start, self.end - self.start, recv_ns)
            if p < end:
                p += self.decode(p, end - p, recv_ns)
                self.hold(p, end - p)
        finally:
            PyBuffer_Release(&view)
        return self.messages - before

    cdef size_t missing(self) noexcept:
        """How many bytes the unfinished frame still wants, as far as is known."""
        cdef size_t held = self.end - self.start
        if held < PREFIX_BYTES:
            return PREFIX_BYTES - held
        return PREFIX_BYTES + <size_t> be32(self.base + self.start) - held

    cdef int hold(self, bytes_t p, size_t n) except -1:
        """Append to the unfinished frame."""
        self.make_room(n)
        memcpy(self.base + self.end, p, n)
        self.end += n
        return 0

    cdef int check_open(self) except -1:
        if self.broken is not None:
            raise self.broken
        return 0

    cdef size_t decode(self, bytes_t p, size_t n, int64_t recv_ns) except? 0:
        """Decode the whole frames in [p, p + n), publish, and return the bytes that they took."""
        cdef bytes_t end
        self.paused = False
        self.context.recv_ns = recv_ns
        if n < NOGIL_BYTES:
            end = self.decode_frames(p, p + n)
        else:
            with nogil:
                end = self.decode_frames(p, p + n)
        self.bytes_received += end - p
        self.core.publish()
        if self.core.c.counts.instruments_refused and not self.core.refusal_told:
            self.tell_refusal()
        if self.broken is not None:
            raise self.broken
        return end - p

    cdef bytes_t decode_frames(self, bytes_t p, bytes_t end) noexcept nogil:
        """Decode frame after frame; stop at an unfinished or a broken one and return where it begins."""
        cdef bytes_t start = p
        cdef bytes_t payload
        cdef bint raw_id = self.context.raw_id
        cdef uint32_t shortest = PREFIX_BYTES if raw_id else 1
        cdef uint32_t length
        cdef uint64_t completed = 0
        cdef int status
        while end - p >= PREFIX_BYTES:
            length = be32(p)
            if length > MAX_FRAME_BYTES or length < shortest:
                self.break_off(p, end, p - start, b"the frame's length is impossible")
                break
            payload = p + PREFIX_BYTES
            if <size_t> (end - payload) < length:
                break
            status = self.decode_payload(payload, payload + length)
            if status != STATUS_OK:
                if status == STATUS_SWALLOWED or (
                        status != STATUS_ASIDE and ends_in_frames(payload, payload + length, raw_id)):
                    self.break_off(p, end, p - start, b"a frame's length takes in the frames after it")
                    break
                self.set_aside(payload, length, status, p - start)
            completed += 1
            p = payload + length
            if self.paused:
                break
        self.messages += completed
        return p

    cdef int decode_payload(self, bytes_t p, bytes_t end) noexcept nogil:
        cdef cursor_t c
        cdef int32_t msg_id
        c.p = p
        c.end = end
        c.status = STATUS_OK
        c.context = &self.context
        if self.context.raw_id:
            msg_id = <int32_t> be32(p)
            c.p = p + PREFIX_BYTES
            if msg_id > PROTOBUF_OFFSET:
                return decode_proto(&self.core.c, msg_id - PROTOBUF_OFFSET, &c)
        else:
            msg_id = read_ascii_id(&c)
            if c.status != STATUS_OK:
                return STATUS_ID
        return decode_text(&self.core.c, msg_id, &c)

    cdef int break_off(self, bytes_t frame, bytes_t end, size_t offset, const char *reason) noexcept with gil:
        head = PyBytes_FromStringAndSize(<const char *> frame, min(end - frame, 256))
        self.broken = ProtocolError(reason.decode(), self.bytes_received + offset, head)
        return 0

    cdef int set_aside(self, bytes_t payload, uint32_t length, int status, size_t offset) noexcept with gil:
        """Keep a message that made no record: for `take_messages`, or in quarantine."""
        cdef cursor_t c
        cdef int32_t msg_id
        cdef bytes_t body
        cdef bint is_protobuf = False
        c.p = payload
        c.end = payload + length
        c.status = STATUS_OK
        if self.context.raw_id:
            msg_id = <int32_t> be32(payload)
            body = payload + PREFIX_BYTES
            is_protobuf = msg_id > PROTOBUF_OFFSET
            msg_id -= PROTOBUF_OFFSET if is_protobuf else 0
        else:
            msg_id = read_ascii_id(&c)
            body = c.p
        if status != STATUS_ASIDE:
            whole = PyBytes_FromStringAndSize(<const char *> payload, min(length, <uint32_t> QUARANTINE_BYTES))
            self.quarantined += 1
            self.keep(Quarantined(STATUS_TEXT[status], msg_id, whole, self.bytes_received + offset))
            return 0
        rest = PyBytes_FromStringAndSize(<const char *> body, payload + length - body)
        self.paused = self.may_pause and msg_id == IN_ERR_MSG
        message = Message((msg_id, rest, is_protobuf))
        message.seq = self.core.c.seq
        message.recv_ns = self.context.recv_ns
        self.aside.append(message)
        return 0

    cdef int keep(self, entry) except -1:
        """Put a message into the quarantine; the oldest ones give way to it."""
        self.kept.append(entry)
        self.kept_bytes += len(entry.payload)
        while len(self.kept) > QUARANTINE_SIZE or self.kept_bytes > QUARANTINE_BYTES:
            self.kept_bytes -= len(self.kept.popleft().payload)
            self.quarantine_dropped += 1
        return 0

    cdef int tell_refusal(self) except -1:
        """Report the full instrument table, once in a feed's life."""
        self.core.refusal_told = True
        self.keep(Quarantined(
            f"all {self.core.c.max_instruments} instruments are taken: records of further requests belong to none",
            0, b"", self.bytes_received))
        return 0

    def quarantine(self, int msg_id, bytes payload, str reason):
        """Add a message that a later stage found malformed."""
        self.quarantined += 1
        self.keep(Quarantined(reason, msg_id, payload[:QUARANTINE_BYTES], self.bytes_received))

    def take_messages(self):
        """Return, once, the messages that are not tick path, in order.

        Returns:
            A list of `Message`: `(msg_id, payload, is_protobuf)`, the payload without its id.
        """
        taken, self.aside = self.aside, []
        return taken

    def take_quarantine(self):
        """Return, once, the newest malformed messages, oldest first.

        They are 256 at most, and a megabyte: `quarantined` counts all, `quarantine_dropped` those that gave way.
        """
        taken = list(self.kept)
        self.kept.clear()
        self.kept_bytes = 0
        return taken
