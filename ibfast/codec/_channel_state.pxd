# The state of one channel of the stream protocol, which both of its sides keep: by it rows become bits, and back.
#
# The rule of the file: a state is changed by rows (`_rows`) and by snapshots, and by nothing else. What stands here of
# a family's rows is what docs/stream-protocol.md, "Binary messages", says that is remembered of them.

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ibfast.codec._bits cimport reader_t, writer_t
from ibfast.codec._grid cimport double_of, grid_t, number_t
from ibfast.feed._records cimport bar_t, depth_t, greeks_t, quote_t, tick_t, trade_t


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

    # the grids, in the order in which they are said
    PRICE_GRID = 0
    SIZE_GRID = 1
    TRADE_SIZE_GRID = 2
    GRIDS = 3

    CODEC_OK = 0
    CODEC_NO_MEMORY = -1
    CODEC_BAD = -2              # the bits are none that a writer writes

    MOST_LINES = 256            # of a family
    MOST_LEVELS = 256           # of a side
    MOST_COLUMNS = 10

    # numbers of a quote, and of a trade or a line
    BID = 0
    ASK = 1
    BID_SIZE = 2
    ASK_SIZE = 3
    BEFORE = 2                  # from a size to what it was before
    PRICE = 0
    SIZE = 1

    # integers of a line
    KIND = 0
    ATTRIBS = 1
    POSITION = 2
    MARKET_MAKER = 3

    # how a column is coded
    AS_INTEGER = 0
    AS_EVENT = 1
    AS_PRICE = 2
    AS_SIZE = 3
    AS_DIFFERENCE = 4
    AS_DOUBLE = 5

# A column of the families whose rows are remembered by key.
cdef struct column_t:
    char name[16]
    uint8_t how
    uint8_t at                  # in the line's integers, numbers or doubles
    uint8_t reference           # of a difference: the number that it is taken from
    uint8_t width
    bint is_text
    int32_t offset              # in the row

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
    grid_t grids[GRIDS]
    top_t tops[2]
    line_t **lines[FAMILIES]
    book_t *book


cdef const column_t *columns_of(int family) noexcept nogil
cdef int columns_in(int family) noexcept nogil
cdef uint32_t column_bit(int family, const char *name) noexcept
cdef int64_t integer_in(const char *row, const column_t *column) noexcept nogil
cdef bint fits_column(const column_t *column, int64_t value) noexcept nogil
cdef uint64_t *double_in_line(line_t *line, const column_t *column) noexcept nogil

cdef int grids_of_spec(grid_t *grids, spec) except -1
cdef void change_grid(state_t *s, int which, const grid_t *grid) noexcept nogil
cdef int state_of_spec(state_t *s, spec) except -1
cdef void state_free(state_t *s) noexcept nogil

cdef int lines_of_family(int family) noexcept nogil
cdef int line_of_row(int family, const char *row) noexcept nogil
cdef line_t *line_at(state_t *s, int family, int32_t tick_type, uint8_t side, uint8_t operation) noexcept nogil
cdef void put_key(writer_t *w, int family, const line_t *line) noexcept nogil
cdef line_t *get_key(reader_t *r, state_t *s, int family) noexcept nogil

cdef void from_book(state_t *s, line_t *line) noexcept nogil
cdef void to_book(state_t *s, line_t *line) noexcept nogil
cdef void change_book(book_t *book, const depth_t *row, uint32_t absent) noexcept nogil
cdef int book_difference(const book_t *before, const book_t *after, const depth_t *last, depth_t *rows) noexcept nogil

cdef int put_state(writer_t *w, state_t *s) noexcept nogil
cdef int get_state(reader_t *r, state_t *s) noexcept nogil
cdef void line_row(int family, line_t *line, char *row) noexcept nogil
cdef void level_row(state_t *s, int side, int position, char *row) noexcept nogil


cdef inline size_t row_bytes(int family) noexcept nogil:
    if family == QUOTES:
        return sizeof(quote_t)
    if family == TRADES:
        return sizeof(trade_t)
    if family == TICKS:
        return sizeof(tick_t)
    if family == DEPTH:
        return sizeof(depth_t)
    return sizeof(bar_t) if family == BARS else sizeof(greeks_t)


cdef inline void top_row(state_t *s, int family, char *row) noexcept nogil:
    """The last quote or trade as a row; sequence number and instrument are the caller's business."""
    cdef top_t *top = &s.tops[family]
    cdef quote_t *quote = <quote_t *> row
    cdef trade_t *trade = <trade_t *> row
    memset(row, 0, row_bytes(family))
    quote.recv_ns = top.recv_ns
    quote.req_id = -1
    quote.kind = top.kind
    if family == QUOTES:
        quote.attribs = top.attribs
        quote.event_ns = top.event_ns
        quote.bid = double_of(top.numbers[BID].bits)
        quote.ask = double_of(top.numbers[ASK].bits)
        quote.bid_size = double_of(top.numbers[BID_SIZE].bits)
        quote.ask_size = double_of(top.numbers[ASK_SIZE].bits)
    else:
        trade.attribs = top.attribs
        trade.event_ns = top.event_ns
        trade.price = double_of(top.numbers[PRICE].bits)
        trade.size = double_of(top.numbers[SIZE].bits)
        trade.exchange = top.exchange
        trade.conditions = top.conditions
