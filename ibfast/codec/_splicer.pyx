# cython: language_level=3
"""Who gets what of a window: an encoder's pieces, spliced to the frames of connections.

The rule of the file: it is done once for all connections with the same channels, and copies finished bytes. No asyncio,
no socket, no clock.

No I/O, no clock, no asyncio.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove

from ibfast.codec._bits cimport put_varint, varint_bytes
from ibfast.codec._frame_encoder cimport Encoder, piece_t
from ibfast.codec._frame_decoder cimport (
    CLOCK, GAP_BITS, MOST_CHANNEL, MOST_GAP, MOST_SKIP, WINDOW, grown, put_frame_header,
)

__all__ = ["Audience"]


cdef enum:
    CLOCK_FRAME_BYTES = 19
    HEAD_BYTES = 64             # more than a clock, a frame's header and a window's head together
    SKIP_BYTES = 11
    SHORT_PIECE_BYTES = 16      # less than `WRITER_ROOM`: so much may be read behind a piece

# A channel of the encoder, and under which number the connections have it.
cdef struct entry_t:
    uint32_t channel
    uint32_t index
    uint64_t generation


cdef class Audience:
    """Connections with the same channels under the same numbers: one frame of a window serves them all.

    Attributes:
        encoder: whose windows they get.
        clocks: how many clocks were sent so far; `splice` sends one by itself where that is shorter in the long run.
    """

    cdef readonly Encoder encoder
    cdef readonly uint64_t clocks
    cdef entry_t *entries
    cdef size_t entries_size
    cdef size_t entries_used
    cdef int64_t clock_ns
    cdef uint64_t clock_seq
    cdef uint64_t clock_windows         # since the clock
    cdef uint64_t clock_extra           # bytes more than with a new clock, in all of these
    cdef uint32_t *found                # places of those entries that are in the window
    cdef size_t found_size
    cdef uint8_t *body
    cdef size_t body_size

    def __cinit__(self, Encoder encoder not None):
        self.encoder = encoder

    def __dealloc__(self):
        free(self.entries)
        free(self.found)
        free(self.body)

    def __len__(self):
        return self.entries_used

    cdef size_t find(self, uint32_t channel) noexcept:
        """The place of a channel's number, or where it belongs."""
        cdef size_t low = 0, high = self.entries_used, middle
        while low < high:
            middle = (low + high) // 2
            if self.entries[middle].channel < channel:
                low = middle + 1
            else:
                high = middle
        return low

    def open(self, size_t index, uint32_t channel):
        """Have the windows to come of a channel sent under a number.

        Raises:
            ValueError: there is no such index, or the number is taken or too large.
        """
        cdef size_t i = self.find(channel)
        self.encoder.channel_at(index)
        if channel >= MOST_CHANNEL or (i < self.entries_used and self.entries[i].channel == channel):
            raise ValueError(f"channel {channel} is open already, or the number is too large")
        grown(<void **> &self.entries, &self.entries_size, self.entries_used + 1, sizeof(entry_t))
        memmove(self.entries + i + 1, self.entries + i, (self.entries_used - i) * sizeof(entry_t))
        self.entries[i].channel = channel
        self.entries[i].index = <uint32_t> index
        self.entries[i].generation = self.encoder.pieces[index].generation
        self.entries_used += 1

    def close(self, uint32_t channel):
        """Send no more of a channel.

        Raises:
            ValueError: it is not open.
        """
        cdef size_t i = self.find(channel)
        if i >= self.entries_used or self.entries[i].channel != channel:
            raise ValueError(f"channel {channel} is not open")
        self.entries_used -= 1
        memmove(self.entries + i, self.entries + i + 1, (self.entries_used - i) * sizeof(entry_t))

    def splice(self):
        """What the window that was encoded last means for this audience: one or two complete WebSocket frames.

        Returns:
            The bytes to send to each connection; empty if no channel of theirs is in it.
        """
        cdef Encoder encoder = self.encoder
        cdef const uint8_t *pieces = encoder.writer.start
        cdef uint8_t *at
        cdef const entry_t *entry
        cdef const piece_t *piece
        cdef size_t i, found = 0, most = SHORT_PIECE_BYTES
        cdef int64_t last = -1
        cdef uint32_t gap
        cdef bint is_found
        if encoder.changed_used == 0:
            return b""
        grown(<void **> &self.found, &self.found_size, self.entries_used, sizeof(uint32_t))
        for i in range(self.entries_used):
            # Without a branch: nothing tells which channels have a piece.
            piece = encoder.pieces + self.entries[i].index
            self.found[found] = <uint32_t> i
            is_found = (piece.window == encoder.window) & (piece.generation == self.entries[i].generation)
            found += is_found
            most += is_found * (piece.nbytes + SKIP_BYTES)      # a piece may be wanted under several numbers
        grown(<void **> &self.body, &self.body_size, most, 1)
        at = self.body
        for i in range(found):
            entry = self.entries + self.found[i]
            piece = encoder.pieces + entry.index
            gap = <uint32_t> (entry.channel - last - 1)
            last = entry.channel
            if gap > MOST_GAP:
                gap -= MOST_GAP + 1
                at[0] = <uint8_t> (7 | (gap if gap < MOST_SKIP else <uint32_t> MOST_SKIP) << GAP_BITS)
                at += 1
                if gap >= MOST_SKIP:
                    at = put_varint(at, gap - MOST_SKIP)
                gap = 0
            memcpy(at, pieces + piece.at, SHORT_PIECE_BYTES)        # most are: a fixed length is no call
            if piece.nbytes > SHORT_PIECE_BYTES:
                memcpy(at, pieces + piece.at, piece.nbytes)
            at[0] |= gap
            at += piece.nbytes
        return self.with_head(at - self.body) if at > self.body else b""

    cdef bytes with_head(self, size_t nbytes):
        """The body behind its head, and behind a clock if one is due."""
        cdef uint8_t prefix[HEAD_BYTES]
        cdef uint8_t head[32]
        cdef uint8_t *at = prefix
        cdef uint8_t *end
        cdef bytes frame
        cdef uint64_t base
        if self.is_clock_due():
            self.clock_ns = self.encoder.start_ns
            self.clock_seq = self.encoder.seq
            self.clock_windows = 0
            self.clock_extra = 0
            self.clocks += 1
            at = self.put_clock(at)
        base = self.base()
        self.clock_windows += 1
        self.clock_extra += self.extra_bytes()
        head[0] = WINDOW | self.encoder.interval_class
        end = put_varint(put_varint(head + 1, base), self.encoder.seq - self.clock_seq)
        at = put_frame_header(at, end - head + nbytes)
        memcpy(at, head, end - head)
        at += end - head
        frame = PyBytes_FromStringAndSize(NULL, at - prefix + nbytes)
        memcpy(PyBytes_AS_STRING(frame), prefix, at - prefix)
        memcpy(PyBytes_AS_STRING(frame) + (at - prefix), self.body, nbytes)
        return frame

    cdef uint64_t base(self) noexcept:
        cdef int64_t span = self.encoder.span_ns if self.encoder.span_ns else self.encoder.unit_ns
        return (<uint64_t> self.encoder.start_ns - <uint64_t> self.clock_ns) // <uint64_t> span

    cdef int extra_bytes(self) noexcept:
        """By how much the head is longer than just after a clock."""
        return varint_bytes(self.base()) + varint_bytes(self.encoder.seq - self.clock_seq) - 2

    cdef bint is_clock_due(self) noexcept:
        """Whether the head can't be said by the last clock, or a new one pays.

        It pays when this window's extra bytes are more than what the windows since the last clock have cost on
        average, that clock included: the average would only rise from here on.
        """
        cdef uint64_t far = <uint64_t> 1 << 62
        if (self.clocks == 0 or self.encoder.start_ns < self.clock_ns or self.encoder.seq < self.clock_seq
                or self.base() >= far or self.encoder.seq - self.clock_seq >= far):
            return True
        return <uint64_t> self.extra_bytes() * self.clock_windows > CLOCK_FRAME_BYTES + self.clock_extra

    cdef uint8_t *put_clock(self, uint8_t *at) noexcept:
        at = put_frame_header(at, CLOCK_FRAME_BYTES - 2)
        at[0] = CLOCK | self.encoder.interval_class
        memcpy(at + 1, &self.clock_ns, 8)
        memcpy(at + 9, &self.clock_seq, 8)
        return at + 17

    def clock_frame(self):
        """What a connection must get that joins an audience in use: its clock; empty while there is none."""
        cdef uint8_t frame[CLOCK_FRAME_BYTES]
        if self.clocks == 0:
            return b""
        self.put_clock(frame)
        return PyBytes_FromStringAndSize(<char *> frame, CLOCK_FRAME_BYTES)
