# One channel of the stream protocol: the state that both sides keep, and its rows, from and to bits.
#
# The rule of the file: `put_*` and `get_*` change the state in the same way, so that whoever has read a row's bits has
# the writer's state. What only a writer knows (which codes it would like, which texts it has used) is in its pen.
# docs/stream-protocol.md, "Binary messages", is the specification.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ibfast._bits cimport reader_t, writer_t
from ibfast._records cimport depth_t


cdef enum:
    # the families, in the order in which channels have them
    QUOTES = 0
    TRADES = 1
    TICKS = 2
    DEPTH = 3
    BARS = 4
    GREEKS = 5
    FAMILIES = 6

    # what each of the eight k is for
    K_COUNT = 0
    K_TIME = 1
    K_PRICE = 2
    K_SIZE_STEP = 3
    K_SIZE_FRESH = 4
    K_TRADE_PRICE = 5
    K_TRADE_SIZE = 6
    K_OTHER = 7
    K_NUMBERS = 8

    CODEC_OK = 0
    CODEC_NO_MEMORY = -1
    CODEC_BAD = -2              # the bits are none that a writer writes

    MOST_LINES = 256            # of a family
    MOST_LEVELS = 256           # of a side
    OTHER_TICK_TYPES = 255      # the line that tick types outside of −1 … 253 share

# value = n·whole_step / power, power = 10^decimals.
cdef struct grid_t:
    double step
    double power
    double places               # about power / step
    int64_t whole_step
    int64_t most_n              # |n·step| < 2^51
    int32_t decimals

cdef struct number_t:
    uint64_t bits
    int64_t n

# The last quote or trade.
cdef struct top_t:
    int64_t recv_ns
    int64_t event_ns
    uint32_t attribs
    uint32_t exchange
    uint32_t conditions
    uint8_t kind
    bint is_there
    number_t numbers[6]

# The last row of a key in one of the other families.
cdef struct line_t:
    int64_t recv_ns
    int32_t tick_type
    uint8_t side
    uint8_t operation
    int64_t event_ns
    uint64_t growth             # of event_ns
    int64_t integers[4]
    number_t numbers[6]
    uint64_t doubles[8]

cdef struct level_t:
    number_t price
    number_t size
    uint32_t market_maker

cdef struct book_t:
    int64_t recv_ns
    uint8_t kind
    uint8_t attribs
    int32_t lengths[2]
    level_t levels[2][MOST_LEVELS]

cdef struct state_t:
    uint8_t k[K_NUMBERS]
    uint8_t side
    bint has_quotes
    bint is_ordered
    int32_t families_number
    uint8_t families[FAMILIES]
    int8_t places[FAMILIES]     # in `families`; −1: not of this channel
    uint32_t span               # in units; 1 where a window is one socket read
    int64_t unit_ns
    grid_t price
    grid_t size
    grid_t trade_size
    top_t tops[2]
    line_t **lines[FAMILIES]
    book_t *book

# A writer's own knowledge of its channel.
cdef struct pen_t:
    int16_t costlier[K_NUMBERS]         # bits that k+1 would have cost more
    int16_t cheaper[K_NUMBERS]          # bits that k−1 would have cost more
    int16_t seen[K_NUMBERS]
    int8_t wish                         # the k to be changed with the next row; −1: none
    uint8_t wished
    uint32_t index                      # of the channel, for `new_texts`
    uint32_t absent[FAMILIES]           # columns that are not wanted, one bit each
    uint8_t *texts                      # one bit for each text id that was used
    uint64_t texts_bytes
    text_log_t *log

# Texts that channels have used for the first time: pairs of channel index and text id.
cdef struct text_log_t:
    uint32_t *pairs
    size_t used
    size_t size


cdef int state_init(state_t *s) noexcept nogil
cdef void state_free(state_t *s) noexcept nogil
cdef void pen_free(pen_t *pen) noexcept nogil
cdef int lines_of_family(int family) noexcept nogil
cdef void pen_init(pen_t *pen, uint32_t index, text_log_t *log) noexcept nogil
cdef void grid_init(grid_t *grid, int64_t step, int decimals) noexcept nogil
cdef uint32_t column_bit(int family, const char *name) noexcept
cdef int line_of_row(int family, const char *row) noexcept nogil
cdef int64_t floor_to(int64_t t, int64_t unit) noexcept nogil

cdef void put_head(writer_t *w, state_t *s, pen_t *pen, int i, uint64_t v) noexcept nogil
cdef int put_row(writer_t *w, state_t *s, pen_t *pen, int family, const char *row, int64_t recv_ns) noexcept nogil
cdef int get_row(reader_t *r, state_t *s, int family, int64_t recv_ns, char *row) noexcept nogil
cdef size_t row_bytes(int family) noexcept nogil

cdef void change_book(book_t *book, pen_t *pen, const depth_t *row) noexcept nogil
cdef int book_difference(const book_t *before, const book_t *after, const depth_t *last, depth_t *rows) noexcept nogil

cdef int put_state(writer_t *w, state_t *s) noexcept nogil
cdef int get_state(reader_t *r, state_t *s) noexcept nogil
cdef void top_row(state_t *s, int family, char *row) noexcept nogil
cdef void line_row(state_t *s, int family, line_t *line, char *row) noexcept nogil
cdef void level_row(state_t *s, int side, int position, char *row) noexcept nogil
