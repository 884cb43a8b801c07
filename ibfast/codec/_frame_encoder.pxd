# Encoders of the stream protocol's sending side, as audiences see them: `_frame_encoder.pyx` says what they do.
#
# The rule of the file: what one window has left is in `pieces` and `writer` until the next one.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cimport cython

from ibfast.codec._bits cimport writer_t
from ibfast.feed._records cimport depth_t
from ibfast.codec._rows cimport pen_t, text_log_t
from ibfast.codec._channel_state cimport FAMILIES, MOST_LINES, book_t, state_t


# A channel of an encoder. What every row touches stands first; from `window` on it is about the window of that number.
cdef struct channel_t:
    channel_t *next             # of the same instrument
    uint64_t kinds
    uint64_t since_seq
    uint64_t rows               # encoded so far, before conflation
    uint64_t look_at            # that many rows: then its grids are to be looked at
    uint32_t families           # one bit each
    uint32_t index
    uint64_t window
    int64_t first_row
    int64_t last_row
    uint64_t count              # of its rows
    uint32_t instrument
    bint is_conflated
    book_t *book                # what conflation compares: the feed's, as of the last row
    state_t state
    pen_t pen

# The last piece of the channel of an index, and that channel's unique number: all that an audience looks at.
cdef struct piece_t:
    uint64_t generation
    uint64_t window
    size_t at
    size_t nbytes

# A row that is to be encoded for a channel; `next`: the channel's next one, −1: none.
cdef struct node_t:
    const char *row
    int32_t family
    int64_t next

# Rows of a family that were pushed: those from head on are still to be encoded.
cdef struct queue_t:
    const char **rows
    size_t head
    size_t tail
    size_t size


cdef class Encoder:
    cdef readonly int64_t span_ns
    cdef readonly int64_t unit_ns
    cdef readonly int interval_class
    cdef readonly int64_t start_ns
    cdef readonly uint64_t seq
    cdef channel_t **channels
    cdef piece_t *pieces
    cdef size_t channels_size
    cdef uint64_t generations
    cdef channel_t **first              # of each instrument
    cdef uint8_t *wanted                # families that channels of each instrument have, one bit each
    cdef size_t instruments
    cdef queue_t queues[FAMILIES]
    cdef list held                      # arrays that the queues' rows are in
    cdef list settled                   # indices of channels whose grids are to be looked at
    cdef uint64_t window
    cdef writer_t writer                # the pieces of the window
    cdef node_t *nodes
    cdef size_t nodes_size
    cdef size_t nodes_used
    cdef uint32_t *changed
    cdef size_t changed_size
    cdef size_t changed_used
    cdef text_log_t log
    cdef int64_t latest[FAMILIES][MOST_LINES]
    cdef depth_t *made

    cdef int make_room_for(self, size_t index, size_t instrument) except -1
    cdef int set_up(self, channel_t *channel, spec, uint32_t index, uint64_t seq) except -1
    cdef int encode_state(self, channel_t *channel, rows) except -1
    cdef int make_writer_empty(self) except -1
    cdef void note_wanted(self, uint32_t instrument) noexcept
    cdef channel_t *channel_at(self, size_t index) except NULL
    cdef int drop_encoded(self) except -1

    @cython.final
    cdef bint gather(self, int64_t until_ns) except -1

    @cython.final
    cdef int chain(self, const char *row, int family) except -1

    @cython.final
    cdef int put_pieces(self) except -1

    @cython.final
    cdef int put_piece(self, channel_t *channel) noexcept

    cdef int conflate(self, channel_t *channel) except -1
    cdef int64_t chain_made(self, int64_t i, int made) except -1
