# cython: language_level=3
"""The receiving side of the stream protocol: messages of a connection to rows.

The rule of the file: whatever comes ends in rows or in a ProtocolError. No asyncio, no socket, no clock.

No I/O, no clock, no asyncio.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp

from ibfast.codec._bits cimport (
    READER_SLACK, get_64, get_bits, get_eg, get_uniform, get_varint, read_too_far, reader_start, reader_t,
)
from ibfast.feed._records cimport tick_t
from ibfast.codec._rows cimport get_row
from ibfast.codec._channel_state cimport (
    CODEC_BAD, CODEC_NO_MEMORY, CODEC_OK, DEPTH, FAMILIES, K_COUNT, K_TIME, TICKS, get_state, level_row, line_row,
    lines_of_family, row_bytes, state_free, state_of_spec, state_t, top_row,
)

from ibfast.feed._feed import DTYPES as _DTYPES
from ibfast.codec._channel_state import FAMILY_NAMES as _NAMES
from ibfast.errors import ProtocolError


cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(type subtype, cnp.dtype dtype, int dimensions, cnp.npy_intp *shape,
                                cnp.npy_intp *strides, void *data, int flags, void *like)       # takes the dtype


cnp.import_array()

_LAG_REASONS = ("slow", "overrun", "incomplete")
MOST_ROWS_OF_A_MESSAGE = 1 << 20
cdef size_t MOST_ROWS = MOST_ROWS_OF_A_MESSAGE
cdef tuple NAMES = _NAMES
cdef tuple ROW_DTYPES = tuple(_DTYPES[name] for name in _NAMES)


# A channel of a decoder.
cdef struct opened_t:
    state_t state
    uint32_t instrument
    int interval_class
    bint has_state

# Rows of a family that were decoded from one message.
cdef struct out_t:
    char *rows
    size_t used
    size_t size

cdef struct clock_t:
    bint is_set
    int64_t span_ns             # what `base` counts; 0: no channel has the class
    int64_t time_ns
    uint64_t seq


cdef class Decoded:
    """What one message says.

    Attributes:
        rows: by family, arrays of the rings' dtypes; only families that have rows. `req_id` is −1, `instrument` what
            the channel's spec says, `seq` exact if the channel is ordered and the rows are no snapshot, else 0.
        order: for each row, in the order of the message, its family's place in `rows`; empty if there are less than two
            families.
        is_snapshot: the rows are a channel's state, and no news.
        channel: whose snapshot or lag it is; −1 for other messages.
        seq: of a window or a snapshot, 0 for other messages.
        time_ns: likewise: the window's beginning; when the snapshot was taken.
        lag: (reason, from_seq, to_seq, rows) or None: what was left out of the channel; rows is how many, None if that
            is not known.
        text: (id, text) or None.
    """

    cdef readonly dict rows
    cdef readonly bytes order
    cdef readonly bint is_snapshot
    cdef readonly int64_t channel
    cdef readonly uint64_t seq
    cdef readonly int64_t time_ns
    cdef readonly tuple lag
    cdef readonly tuple text


cdef cnp.ndarray rows_of(int family, const char *rows, size_t nbytes):
    """An array of these rows, in memory that nobody else has."""
    # numpy's own memory would cost a look at every field of the dtype, for how to clear it.
    cdef bytes memory = PyBytes_FromStringAndSize(rows, nbytes)
    cdef cnp.dtype dtype = ROW_DTYPES[family]
    cdef cnp.npy_intp n = nbytes // row_bytes(family)
    cdef cnp.ndarray array
    Py_INCREF(dtype)
    array = PyArray_NewFromDescr(cnp.ndarray, dtype, 1, &n, NULL, PyBytes_AS_STRING(memory), cnp.NPY_ARRAY_CARRAY, NULL)
    cnp.set_array_base(array, memory)
    return array


cdef class FrameDecoder:
    """The receiving side of one connection: messages to rows.

    It takes in every message, in order. After a ProtocolError it is of no further use.
    """

    cdef opened_t **channels
    cdef size_t channels_size
    cdef clock_t clocks[CLASSES]
    cdef uint8_t *message               # a copy, with slack behind
    cdef size_t message_size
    cdef out_t out[FAMILIES]
    cdef uint8_t *order
    cdef size_t order_size
    cdef size_t order_used
    cdef bint is_broken

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.channels_size):
            opened_free(self.channels[i])
        for i in range(FAMILIES):
            free(self.out[i].rows)
        free(self.channels)
        free(self.message)
        free(self.order)

    def open(self, size_t channel, spec):
        """Expect messages of a channel: first its snapshot.

        Raises:
            ValueError: it is open already, or its class has another span or unit.
        """
        cdef opened_t *opened
        cdef size_t old = self.channels_size
        cdef clock_t *clock = &self.clocks[<int> spec.interval_class]
        cdef int64_t span_ns = spec.span_ns or spec.unit_ns
        if channel >= MOST_CHANNEL or (channel < old and self.channels[channel] != NULL):
            raise ValueError(f"channel {channel} is open already, or the number is too large")
        if clock.span_ns not in (0, span_ns):
            raise ValueError("channels of one class have one span")
        grown(<void **> &self.channels, &self.channels_size, channel + 1, sizeof(opened_t *))
        memset(self.channels + old, 0, (self.channels_size - old) * sizeof(opened_t *))
        opened = <opened_t *> calloc(1, sizeof(opened_t))
        if opened == NULL:
            raise MemoryError
        try:
            state_of_spec(&opened.state, spec)
        except BaseException:
            opened_free(opened)
            raise
        opened.instrument = spec.instrument
        opened.interval_class = spec.interval_class
        clock.span_ns = span_ns
        self.channels[channel] = opened

    def close(self, size_t channel):
        """Expect no more of a channel.

        Raises:
            ValueError: it is not open.
        """
        if channel >= self.channels_size or self.channels[channel] == NULL:
            raise ValueError(f"channel {channel} is not open")
        opened_free(self.channels[channel])
        self.channels[channel] = NULL

    def decode(self, message):
        """Return what a message says.

        Args:
            message: the payload of one binary WebSocket message.

        Raises:
            ProtocolError: it is none that a server sends; drop the connection.
        """
        cdef Py_buffer view
        cdef reader_t r
        cdef size_t nbytes
        cdef Decoded decoded = Decoded.__new__(Decoded)
        cdef int family
        cdef int first
        if self.is_broken:
            raise ProtocolError("the stream broke before")
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            nbytes = view.len
            grown(<void **> &self.message, &self.message_size, nbytes + READER_SLACK, 1)
            memcpy(self.message, view.buf, nbytes)
        finally:
            PyBuffer_Release(&view)
        memset(self.message + nbytes, 0, READER_SLACK)
        for family in range(FAMILIES):
            self.out[family].used = 0
        self.order_used = 0
        decoded.rows = {}
        decoded.order = b""
        decoded.channel = -1
        reader_start(&r, self.message, nbytes, 0)
        self.is_broken = True       # until all is well
        first = <int> get_bits(&r, 8)
        if nbytes == 0:
            self.refuse(&r, "an empty message")
        elif first >= WINDOW and first < WINDOW + CLASSES:
            self.decode_window(&r, decoded, first - WINDOW)
        elif first >= CLOCK and first < CLOCK + CLASSES:
            self.decode_clock(&r, first - CLOCK)
        elif first == SNAPSHOT:
            self.decode_snapshot(&r, decoded)
        elif first == LAG:
            self.decode_lag(&r, decoded)
        elif first == TEXT:
            self.decode_text(&r, decoded)
        else:
            self.refuse(&r, f"a message of unknown kind {first:#x}")
        self.is_broken = False
        return decoded

    cdef int refuse(self, reader_t *r, str reason) except -1:
        cdef size_t nbytes = r.end >> 3
        cdef size_t offset = min(r.at >> 3, nbytes)
        raise ProtocolError(reason, offset, PyBytes_FromStringAndSize(<char *> self.message, min(nbytes, 64)))

    @cython.final
    cdef opened_t *channel_of(self, reader_t *r, uint64_t channel) except NULL:
        if channel >= self.channels_size or self.channels[channel] == NULL:
            self.refuse(r, f"channel {channel}, which is not open")
        return self.channels[channel]

    cdef uint64_t get_channel(self, reader_t *r) except? 0:
        cdef uint64_t channel = get_varint(r)
        if read_too_far(r):
            self.refuse(r, "a number that does not end")
        return channel

    cdef int decode_clock(self, reader_t *r, int interval_class) except -1:
        cdef clock_t *clock = &self.clocks[interval_class]
        clock.time_ns = <int64_t> get_64(r)
        clock.seq = get_64(r)
        clock.is_set = True
        if r.at != r.end:
            self.refuse(r, "a clock of wrong length")
        return 0

    cdef int decode_lag(self, reader_t *r, Decoded decoded) except -1:
        cdef uint64_t channel = self.get_channel(r)
        cdef uint64_t reason = get_bits(r, 8)
        cdef uint64_t from_seq = get_64(r)
        cdef uint64_t to_seq = get_64(r)
        cdef uint64_t rows = get_varint(r)
        if r.at != r.end or reason >= <uint64_t> len(_LAG_REASONS):
            self.refuse(r, "a lag of wrong length or reason")
        self.channel_of(r, channel).has_state = False
        decoded.channel = channel
        decoded.lag = (_LAG_REASONS[reason], from_seq, to_seq, rows - 1 if rows else None)
        return 0

    cdef int decode_text(self, reader_t *r, Decoded decoded) except -1:
        cdef uint64_t text_id = self.get_channel(r)
        cdef size_t at = r.at >> 3
        if text_id >= <uint64_t> 1 << 32:
            self.refuse(r, f"a text of id {text_id}")
        try:
            decoded.text = (text_id, self.message[at:r.end >> 3].decode("utf-8"))
        except UnicodeDecodeError:
            self.refuse(r, "a text that is not UTF-8")
        return 0

    cdef int decode_window(self, reader_t *r, Decoded decoded, int interval_class) except -1:
        cdef clock_t *clock = &self.clocks[interval_class]
        cdef uint64_t base = get_varint(r)
        cdef uint64_t seq = get_varint(r)
        cdef uint64_t gap, channel = 0
        cdef opened_t *opened
        cdef int status
        if read_too_far(r):
            self.refuse(r, "a head that does not end")
        if not clock.is_set or clock.span_ns == 0:
            self.refuse(r, f"a window of class {interval_class}, which has no clock or no channel")
        if base > (<uint64_t> 1 << 62) // <uint64_t> clock.span_ns:
            self.refuse(r, "a window too far from its clock")
        decoded.time_ns = <int64_t> (<uint64_t> clock.time_ns + base * <uint64_t> clock.span_ns)
        decoded.seq = clock.seq + seq
        while r.at < r.end:
            gap = get_bits(r, 3)
            if gap > MOST_GAP:
                gap = get_bits(r, 5)
                channel += MOST_GAP + 1 + gap
                if gap == MOST_SKIP:
                    channel += get_varint(r)
                if read_too_far(r) or channel >= MOST_CHANNEL or r.at == r.end:
                    self.refuse(r, "a skip to nowhere")
                continue
            channel += gap
            opened = self.channel_of(r, channel)
            if not opened.has_state or opened.interval_class != interval_class:
                self.refuse(r, f"rows of channel {channel}, which has no state or another class")
            status = self.decode_piece(r, opened, decoded.time_ns, decoded.seq)
            if status == CODEC_NO_MEMORY:
                raise MemoryError
            if status < 0:
                self.refuse(r, f"a piece of channel {channel} that no server writes")
            r.at = (r.at + 7) & ~<uint64_t> 7
            channel += 1
        self.hand_over(decoded)
        return 0

    @cython.final
    cdef int decode_piece(self, reader_t *reader, opened_t *opened, int64_t start_ns, uint64_t window_seq) except -3:
        cdef state_t *s = &opened.state
        cdef reader_t r = reader[0]         # a copy, as nothing else has its address
        cdef uint64_t rows = get_eg(&r, s.k[K_COUNT]) + 1
        cdef uint64_t time = 0, seq = 0, step, i
        cdef int place, family, status = CODEC_OK
        cdef char *row
        # A row may take a bit of the message and a hundred bytes here.
        if rows > r.end or rows > <uint64_t> MOST_ROWS - self.order_used:
            return CODEC_BAD
        for i in range(rows):
            if status < 0:
                break
            if i == 0:
                time = get_uniform(&r, s.span)
            elif s.span > 1:
                time += get_eg(&r, s.k[K_TIME])
                if time >= <uint64_t> 1 << 31:
                    status = CODEC_BAD
                    break
            if s.is_ordered:
                step = get_eg(&r, SEQ_STEP_K if i else SEQ_FIRST_K)
                if step > (window_seq - seq if i else window_seq):
                    status = CODEC_BAD
                    break
                seq = seq + step if i else window_seq - step
            place = 0
            while place < s.families_number - 1 and get_bits(&r, 1):
                place += 1
            family = s.families[place]
            row = self.new_row(family)
            status = get_row(&r, s, family, <int64_t> (<uint64_t> start_ns + time * <uint64_t> s.unit_ns), row)
            (<tick_t *> row).seq = seq
            (<tick_t *> row).instrument = opened.instrument
        reader[0] = r
        return status

    @cython.final
    cdef inline char *new_row(self, int family) except NULL:
        cdef out_t *out = &self.out[family]
        cdef size_t size = row_bytes(family)
        grown(<void **> &out.rows, &out.size, out.used + size, 1)
        grown(<void **> &self.order, &self.order_size, self.order_used + 1, 1)
        self.order[self.order_used] = family
        self.order_used += 1
        out.used += size
        return out.rows + out.used - size

    cdef int decode_snapshot(self, reader_t *r, Decoded decoded) except -1:
        cdef uint64_t channel = self.get_channel(r)
        cdef opened_t *opened = self.channel_of(r, channel)
        cdef int status
        decoded.time_ns = <int64_t> get_64(r)
        decoded.seq = get_64(r)
        if read_too_far(r):
            self.refuse(r, "a snapshot that does not end")
        status = get_state(r, &opened.state)
        if status == CODEC_NO_MEMORY:
            raise MemoryError
        if status < 0:
            self.refuse(r, f"a snapshot of channel {channel} that no server writes")
        opened.has_state = True
        decoded.is_snapshot = True
        decoded.channel = channel
        self.current_rows(opened)
        self.hand_over(decoded)
        return 0

    cdef int current_rows(self, opened_t *opened) except -1:
        """Make rows of a state: the last quote and trade, the last row of each key, and the book as inserts."""
        cdef state_t *s = &opened.state
        cdef int i, n, family, side
        for i in range(s.families_number):
            family = s.families[i]
            if family == DEPTH:
                for side in range(2):
                    for n in range(s.book.lengths[side]):
                        level_row(s, side, n, self.new_row(family))
            elif family >= TICKS:
                for n in range(lines_of_family(family)):
                    if s.lines[family][n] != NULL:
                        line_row(family, s.lines[family][n], self.new_row(family))
            elif s.tops[family].is_there:
                top_row(s, family, self.new_row(family))
        for family in range(FAMILIES):
            for n in range(<int> (self.out[family].used // row_bytes(family))):
                (<tick_t *> (self.out[family].rows + n * row_bytes(family))).instrument = opened.instrument
        return 0

    cdef int hand_over(self, Decoded decoded) except -1:
        """Give the rows away, as arrays that own them."""
        cdef uint8_t places[FAMILIES]
        cdef uint8_t *order = self.order
        cdef int family
        cdef size_t i
        for family in range(FAMILIES):
            if self.out[family].used:
                places[family] = <uint8_t> len(decoded.rows)
                decoded.rows[NAMES[family]] = rows_of(family, self.out[family].rows, self.out[family].used)
        if len(decoded.rows) > 1:
            for i in range(self.order_used):
                order[i] = places[order[i]]
            decoded.order = PyBytes_FromStringAndSize(<char *> self.order, self.order_used)
        return 0


cdef void opened_free(opened_t *opened) noexcept nogil:
    if opened != NULL:
        state_free(&opened.state)
        free(opened)
