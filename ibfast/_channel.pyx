# cython: language_level=3
"""Rows of the stream protocol to bits and back, one function per direction; `_channel.pxd` says what a state is.

The rule of the file: a row that is read is bounded in bits (`READER_SLACK`), whatever it says; every number is checked
before it is used. No Python object is touched here.
"""

from libc.math cimport fabs
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset, strcmp

from ibfast._bits cimport (
    eg_bits, eg_fits, get_64, get_bits, get_eg, get_eg_below, peek, put_bits, put_eg, put_wide,
    read_too_far, reader_t, top_bit, unzigzag, writer_room, writer_t, zigzag,
)
from ibfast._records cimport KIND_DEPTH_RESET, bar_t, depth_t, greeks_t, quote_t, tick_t, trade_t


cdef extern from *:
    """
    static const double ibfast_powers_of_ten[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22 };
    #define IBFAST_NAN_BITS 0x7FF8000000000000ULL
    #define IBFAST_MOST_EVENT (1LL << 61)
    #define IBFAST_MOST_PLACE 2251799813685247.0    /* 2^51 - 1 */
    """
    const double POWERS "ibfast_powers_of_ten"[23]
    const uint64_t NAN_BITS "IBFAST_NAN_BITS"
    const int64_t MOST_EVENT "IBFAST_MOST_EVENT"
    const double MOST_PLACE "IBFAST_MOST_PLACE"


cdef enum:
    # what follows the escape of a number
    ESCAPE_NAN = 0
    ESCAPE_BITS = 1
    ESCAPE_FINER = 2
    ESCAPE_PLACE = 3
    MOST_FINER = 8
    FINER_K = 6
    PLACE_K = 12

    EXT_K = 0
    EXT_KIND = 1
    EXT_ATTRIBS = 2
    EXT_EVENT = 3
    EXT_EXCHANGE = 4
    EXT_CONDITIONS = 5
    EXT_NUMBER_K = 3

    EVENT_UNITS = 4             # steps in 1, 1000, 1000^2, 1000^3 ns
    EVENT_BITS = 7
    EVENT_K = 4

    SAME = 0
    NEW = 1
    BACK = 2
    WITH_BID = 2

    # numbers of a quote, and of a trade
    BID = 0
    ASK = 1
    BID_SIZE = 2
    ASK_SIZE = 3
    BEFORE = 2                  # from a size to what it was before
    PRICE = 0
    SIZE = 1

    SHAPE_BITS = 5
    SHAPE_ANY = 254
    SHAPE_EXT = 255

    # how a column is coded
    AS_INTEGER = 0
    AS_EVENT = 1
    AS_PRICE = 2
    AS_SIZE = 3
    AS_DIFFERENCE = 4
    AS_DOUBLE = 5

    WIDTH_U8 = 0
    WIDTH_U32 = 1
    WIDTH_I32 = 2
    WIDTH_64 = 3

    MOST_COLUMNS = 10
    KIND = 0                    # of a line's integers
    ATTRIBS = 1
    POSITION = 2
    MARKET_MAKER = 3
    COUNT = 2
    TEXT = 2
    OPEN = 0                    # of a bar's numbers
    CLOSE = 3
    KEY_K = 3
    MOST_TEXTS = 1 << 22

    # a pen's habits
    LOOK_EACH = 64
    FORGET_AFTER = 256
    WORTH_BITS = 24


cdef struct column_t:
    char name[16]
    uint8_t how
    uint8_t at                  # in the line's integers, numbers or doubles
    uint8_t reference           # of a difference: the number that it is taken from
    uint8_t width
    bint is_text
    int32_t offset              # in the row

cdef struct shape_t:
    uint8_t code
    uint8_t bits


cdef column_t columns[FAMILIES][MOST_COLUMNS]
cdef int columns_number[FAMILIES]
cdef shape_t shapes[128]        # by what changes; bits 0: only to be said in full
cdef uint8_t shape_of_code[32]
cdef uint8_t bits_of_code[32]


cdef void add_column(int family, const char *name, int how, int at, Py_ssize_t offset, int width, int reference,
                     bint is_text) noexcept:
    cdef column_t *column = &columns[family][columns_number[family]]
    memcpy(column.name, name, min(15, len(name)))
    column.how = how
    column.at = at
    column.offset = <int32_t> offset
    column.width = width
    column.reference = reference
    column.is_text = is_text
    columns_number[family] += 1


cdef void add_integer(int family, const char *name, int at, Py_ssize_t offset, int width, bint is_text) noexcept:
    add_column(family, name, AS_INTEGER, at, offset, width, 0, is_text)


cdef void add_number(int family, const char *name, int how, int at, Py_ssize_t offset, int reference) noexcept:
    add_column(family, name, how, at, offset, WIDTH_64, reference, False)


cdef void make_columns() noexcept:
    """What rows are made of, in the order in which it is coded. Quotes and trades only have the names from it."""
    cdef tick_t tick
    cdef depth_t depth
    cdef bar_t bar
    cdef greeks_t greeks
    cdef char *row = <char *> &tick
    cdef Py_ssize_t first
    cdef int i
    for name in (b"attribs", b"event_ns", b"bid", b"ask", b"bid_size", b"ask_size"):
        add_integer(QUOTES, name, 0, 0, WIDTH_64, False)
    for name in (b"attribs", b"event_ns", b"price", b"size", b"exchange", b"conditions"):
        add_integer(TRADES, name, 0, 0, WIDTH_64, False)

    add_integer(TICKS, b"kind", KIND, <char *> &tick.kind - row, WIDTH_U8, False)
    add_integer(TICKS, b"attribs", ATTRIBS, <char *> &tick.attribs - row, WIDTH_U32, False)
    add_number(TICKS, b"price", AS_PRICE, PRICE, <char *> &tick.price - row, 0)
    add_number(TICKS, b"size", AS_SIZE, SIZE, <char *> &tick.size - row, 0)
    add_integer(TICKS, b"text", TEXT, <char *> &tick.text - row, WIDTH_U32, True)

    row = <char *> &depth
    add_integer(DEPTH, b"kind", KIND, <char *> &depth.kind - row, WIDTH_U8, False)
    add_integer(DEPTH, b"attribs", ATTRIBS, <char *> &depth.attribs - row, WIDTH_U8, False)
    add_integer(DEPTH, b"position", POSITION, <char *> &depth.position - row, WIDTH_I32, False)
    add_number(DEPTH, b"price", AS_PRICE, PRICE, <char *> &depth.price - row, 0)
    add_number(DEPTH, b"size", AS_SIZE, SIZE, <char *> &depth.size - row, 0)
    add_integer(DEPTH, b"market_maker", MARKET_MAKER, <char *> &depth.market_maker - row, WIDTH_U32, True)

    row = <char *> &bar
    add_integer(BARS, b"kind", KIND, <char *> &bar.kind - row, WIDTH_U8, False)
    add_integer(BARS, b"count", COUNT, <char *> &bar.count - row, WIDTH_I32, False)
    add_column(BARS, b"event_ns", AS_EVENT, 0, <char *> &bar.event_ns - row, WIDTH_64, 0, False)
    first = <char *> &bar.open - row
    for i, name in enumerate((b"open", b"high", b"low", b"close")):
        add_number(BARS, name, AS_DIFFERENCE, i, first + 8 * i, OPEN if i else CLOSE)
    add_number(BARS, b"volume", AS_SIZE, CLOSE + 1, <char *> &bar.volume - row, 0)
    add_number(BARS, b"wap", AS_DOUBLE, 0, <char *> &bar.wap - row, 0)

    row = <char *> &greeks
    add_integer(GREEKS, b"kind", KIND, <char *> &greeks.kind - row, WIDTH_U8, False)
    add_integer(GREEKS, b"attribs", ATTRIBS, <char *> &greeks.attribs - row, WIDTH_I32, False)
    first = <char *> &greeks.implied_vol - row
    for i, name in enumerate((b"implied_vol", b"delta", b"option_price", b"pv_dividend", b"gamma", b"vega", b"theta",
                              b"und_price")):
        add_number(GREEKS, name, AS_DOUBLE, i, first + 8 * i, 0)


cdef int shape_number(int bid, int ask, int bid_size, int ask_size) noexcept nogil:
    return bid | ask << 1 | bid_size << 3 | ask_size << 5


cdef void add_code(int number, int code, int bits) noexcept:
    cdef int i
    for i in range(32):
        if i & ((1 << bits) - 1) == code:
            shape_of_code[i] = number
            bits_of_code[i] = bits


cdef void add_shape(int number, int code, int bits) noexcept:
    shapes[number].code = code
    shapes[number].bits = bits
    add_code(number, code, bits)


cdef void make_shapes() noexcept:
    """The prefix code of what changes in a quote; the first bit is the lowest."""
    add_shape(shape_number(0, 0, NEW, SAME), 0b00, 2)
    add_shape(shape_number(0, 0, SAME, NEW), 0b10, 2)
    add_shape(shape_number(0, 0, BACK, SAME), 0b001, 3)
    add_shape(shape_number(0, 0, SAME, BACK), 0b101, 3)
    add_shape(shape_number(1, WITH_BID, NEW, NEW), 0b0011, 4)
    add_shape(shape_number(0, 0, NEW, NEW), 0b1011, 4)
    add_shape(shape_number(1, 0, NEW, SAME), 0b00111, SHAPE_BITS)
    add_shape(shape_number(0, 1, SAME, NEW), 0b10111, SHAPE_BITS)
    add_code(SHAPE_ANY, 0b01111, SHAPE_BITS)
    add_code(SHAPE_EXT, 0b11111, SHAPE_BITS)


make_columns()
make_shapes()


cdef uint32_t column_bit(int family, const char *name) noexcept:
    """The bit of a column in `absent`; 0 if the family has none of that name that may be absent."""
    cdef int i
    for i in range(columns_number[family]):
        if strcmp(columns[family][i].name, name) == 0:
            return 0 if strcmp(name, b"kind") == 0 or strcmp(name, b"position") == 0 else <uint32_t> 1 << i
    return 0


# ---- states

cdef void grid_init(grid_t *grid, int64_t step, int decimals) noexcept nogil:
    grid.step = <double> step
    grid.power = POWERS[decimals]
    grid.places = grid.power / grid.step
    grid.whole_step = step
    grid.most_n = ((<int64_t> 1 << 51) - 1) // step
    grid.decimals = decimals


cdef int lines_of_family(int family) noexcept nogil:
    return 0 if family < TICKS else 6 if family == DEPTH else 1 if family == BARS else MOST_LINES


cdef int line_number(int family, int32_t tick_type, uint8_t side, uint8_t operation) noexcept nogil:
    """Which line a row belongs to, by its key."""
    if family == DEPTH:
        return 2 * min(side, 2) + (operation == 2)
    if family == BARS:
        return 0
    return tick_type + 1 if -1 <= tick_type <= 253 else OTHER_TICK_TYPES


cdef int line_of_row(int family, const char *row) noexcept nogil:
    """Likewise, of a row of the feed; 0 for quotes and trades."""
    if family == DEPTH:
        return line_number(family, 0, (<const depth_t *> row).side, (<const depth_t *> row).operation)
    if family == TICKS:
        return line_number(family, (<const tick_t *> row).tick_type, 0, 0)
    return line_number(family, (<const greeks_t *> row).tick_type, 0, 0) if family == GREEKS else 0


cdef void state_reset(state_t *s) noexcept nogil:
    """Have the state as it is before the first row."""
    cdef int family, i
    s.side = 0
    for family in range(2):
        memset(&s.tops[family], 0, sizeof(top_t))
        for i in range(6):
            s.tops[family].numbers[i].bits = NAN_BITS
    for family in range(TICKS, FAMILIES):
        if s.lines[family] != NULL:
            for i in range(lines_of_family(family)):
                free(s.lines[family][i])
                s.lines[family][i] = NULL
    if s.book != NULL:
        s.book.recv_ns = 0
        s.book.kind = 0
        s.book.attribs = 0
        s.book.lengths[0] = 0
        s.book.lengths[1] = 0


cdef int state_init(state_t *s) noexcept nogil:
    """Allocate what a state needs for its families, and reset it. -1: there is no memory."""
    cdef int i, family
    for i in range(FAMILIES):
        s.places[i] = -1
        s.lines[i] = NULL
    s.book = NULL
    s.has_quotes = False
    for i in range(s.families_number):
        family = s.families[i]
        s.places[family] = i
        s.has_quotes = s.has_quotes or family == QUOTES
        if family >= TICKS:
            s.lines[family] = <line_t **> calloc(lines_of_family(family), sizeof(line_t *))
            if s.lines[family] == NULL:
                return CODEC_NO_MEMORY
        if family == DEPTH:
            s.book = <book_t *> calloc(1, sizeof(book_t))
            if s.book == NULL:
                return CODEC_NO_MEMORY
    state_reset(s)
    return CODEC_OK


cdef void state_free(state_t *s) noexcept nogil:
    cdef int family
    state_reset(s)
    for family in range(FAMILIES):
        free(s.lines[family])
        s.lines[family] = NULL
    free(s.book)
    s.book = NULL


cdef line_t *line_of(state_t *s, int family, int number) noexcept nogil:
    """A key's last row, made on first use; NULL if there is no memory."""
    cdef line_t *line = s.lines[family][number]
    cdef int i
    if line == NULL:
        line = <line_t *> calloc(1, sizeof(line_t))
        if line == NULL:
            return NULL
        for i in range(6):
            line.numbers[i].bits = NAN_BITS
        for i in range(8):
            line.doubles[i] = NAN_BITS
        s.lines[family][number] = line
    return line


cdef void pen_init(pen_t *pen, uint32_t index, text_log_t *log) noexcept nogil:
    memset(pen, 0, sizeof(pen_t))
    pen.wish = -1
    pen.index = index
    pen.log = log


cdef void pen_free(pen_t *pen) noexcept nogil:
    free(pen.texts)
    pen.texts = NULL
    pen.texts_bytes = 0


cdef inline uint64_t bits_of(double x) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &x, 8)
    return bits


cdef inline double double_of(uint64_t bits) noexcept nogil:
    cdef double x
    memcpy(&x, &bits, 8)
    return x


# ---- the book

cdef level_t *level_of(book_t *book, uint8_t side, int64_t position) noexcept nogil:
    if side < 2 and 0 <= position < book.lengths[side]:
        return &book.levels[side][position]
    return NULL


cdef void set_level(book_t *book, uint8_t kind, uint8_t side, uint8_t operation, int32_t position,
                    const level_t *level) noexcept nogil:
    """Have an operation's effect on the book."""
    cdef int32_t *length
    cdef level_t *levels
    if kind == KIND_DEPTH_RESET:
        book.lengths[0] = 0
        book.lengths[1] = 0
        return
    if side > 1 or position < 0:
        return
    length = &book.lengths[side]
    levels = book.levels[side]
    if operation == 0 and position <= length[0] and position < MOST_LEVELS:
        if length[0] < MOST_LEVELS:
            length[0] += 1
        memmove(levels + position + 1, levels + position, (length[0] - 1 - position) * sizeof(level_t))
        levels[position] = level[0]
    elif operation == 1 and position <= length[0] and position < MOST_LEVELS:
        if position == length[0]:
            length[0] += 1
        levels[position] = level[0]
    elif operation == 2 and position < length[0]:
        length[0] -= 1
        memmove(levels + position, levels + position + 1, (length[0] - position) * sizeof(level_t))


cdef void change_book(book_t *book, pen_t *pen, const depth_t *row) noexcept nogil:
    """Have a row's effect on a book that is kept beside a channel's state, of what the channel shows of rows."""
    cdef level_t level
    cdef uint32_t absent = pen.absent[DEPTH]
    memset(&level, 0, sizeof(level_t))
    level.price.bits = NAN_BITS if absent & 8 else bits_of(row.price)
    level.size.bits = NAN_BITS if absent & 16 else bits_of(row.size)
    level.market_maker = 0 if absent & 32 else row.market_maker
    set_level(book, row.kind, row.side, row.operation, row.position, &level)


cdef int book_difference(const book_t *before, const book_t *after, const depth_t *last, depth_t *rows) noexcept nogil:
    """Make the operations that turn one book into the other, out of the last one's other fields; at most 512."""
    cdef int side, i, n = 0, operation
    cdef const level_t *was
    cdef const level_t *now
    for side in range(2):
        for i in range(after.lengths[side]):
            now = &after.levels[side][i]
            operation = 0
            if i < before.lengths[side]:
                was = &before.levels[side][i]
                if (was.price.bits == now.price.bits and was.size.bits == now.size.bits
                        and was.market_maker == now.market_maker):
                    continue
                operation = 1
            rows[n] = last[0]
            rows[n].side = side
            rows[n].operation = operation
            rows[n].position = i
            rows[n].price = double_of(now.price.bits)
            rows[n].size = double_of(now.size.bits)
            rows[n].market_maker = now.market_maker
            n += 1
        for i in range(before.lengths[side] - 1, after.lengths[side] - 1, -1):
            rows[n] = last[0]
            rows[n].side = side
            rows[n].operation = 2
            rows[n].position = i
            rows[n].price = double_of(NAN_BITS)
            rows[n].size = double_of(NAN_BITS)
            rows[n].market_maker = 0
            n += 1
    return n


cdef void from_book(state_t *s, line_t *line) noexcept nogil:
    """Have an update of a level coded against that level."""
    cdef level_t *level
    if line.operation == 1:
        level = level_of(s.book, line.side, line.integers[POSITION])
        if level != NULL:
            line.numbers[PRICE] = level.price
            line.numbers[SIZE] = level.size
            line.integers[MARKET_MAKER] = level.market_maker


cdef void to_book(state_t *s, line_t *line) noexcept nogil:
    cdef level_t level
    level.price = line.numbers[PRICE]
    level.size = line.numbers[SIZE]
    level.market_maker = <uint32_t> line.integers[MARKET_MAKER]
    set_level(s.book, <uint8_t> line.integers[KIND], line.side, line.operation, <int32_t> line.integers[POSITION],
              &level)
    if line.integers[KIND] != KIND_DEPTH_RESET:
        s.book.kind = <uint8_t> line.integers[KIND]
        s.book.attribs = <uint8_t> line.integers[ATTRIBS]
        s.book.recv_ns = line.recv_ns


# ---- numbers

cdef inline uint64_t value_bits(const grid_t *grid, int64_t n) noexcept nogil:
    return bits_of(<double> n * grid.step / grid.power)


cdef inline int64_t rounded(double x) noexcept nogil:
    """The nearest integer, for |x| < 2^51."""
    cdef double magic = 6755399441055744.0
    return <int64_t> ((x + magic) - magic)


cdef inline bint find_place(const grid_t *grid, uint64_t bits, int64_t *n) noexcept nogil:
    """Whether a double is on the grid, to the bit, and where."""
    cdef double y = double_of(bits) * grid.places
    if not fabs(y) <= <double> grid.most_n:
        return False
    n[0] = rounded(y)
    return -grid.most_n <= n[0] <= grid.most_n and value_bits(grid, n[0]) == bits


cdef inline void put_k(writer_t *w, state_t *s, pen_t *pen, int i, uint64_t v) noexcept nogil:
    """Write EG(ki) of v, and note which other k would have been shorter: by one bit either way."""
    cdef int k = s.k[i]
    cdef uint64_t x = v + (<uint64_t> 1 << k)
    cdef int top = top_bit(x)
    put_eg(w, v, k)
    pen.costlier[i] += 1 if (x + (<uint64_t> 1 << k)) >> (top + 1) else -1
    pen.cheaper[i] += 1 if (x - ((<uint64_t> 1 << k) >> 1)) >> top else -1
    pen.seen[i] += 1
    if pen.seen[i] % LOOK_EACH == 0:
        think(s, pen, i)


cdef void put_head(writer_t *w, state_t *s, pen_t *pen, int i, uint64_t v) noexcept nogil:
    """Write what stands before a row, by EG(ki)."""
    put_k(w, s, pen, i, v)


cdef void think(state_t *s, pen_t *pen, int i) noexcept nogil:
    """Wish for another k if it would have been shorter."""
    cdef int16_t best = min(pen.costlier[i], pen.cheaper[i])
    if best < -WORTH_BITS:
        if best == pen.costlier[i] and s.k[i] < 31:
            pen.wish = i
            pen.wished = s.k[i] + 1
        elif best == pen.cheaper[i] and s.k[i] > 0:
            pen.wish = i
            pen.wished = s.k[i] - 1
    if best < -WORTH_BITS or pen.seen[i] >= FORGET_AFTER:
        pen.costlier[i] = 0
        pen.cheaper[i] = 0
        pen.seen[i] = 0


cdef void put_escape(writer_t *w, number_t *f, uint64_t bits, const grid_t *grid, int64_t n,
                     bint is_on_grid) noexcept nogil:
    """Write what follows v = 0, and set the number."""
    cdef double x = double_of(bits), y
    cdef int64_t m, near
    cdef int e
    if is_on_grid:
        put_bits(w, ESCAPE_PLACE, 2)
        put_eg(w, zigzag(n), PLACE_K)
        f.n = n
        f.bits = bits
        return
    f.bits = bits
    if bits == NAN_BITS:
        put_bits(w, ESCAPE_NAN, 2)
        return
    for e in range(1, MOST_FINER + 1):
        y = x * POWERS[grid.decimals + e]
        if not (fabs(y) < MOST_PLACE and fabs(<double> (f.n * grid.whole_step)) * POWERS[e] < MOST_PLACE):
            break
        m = rounded(y)
        if bits_of(<double> m / POWERS[grid.decimals + e]) == bits:
            near = f.n * grid.whole_step * <int64_t> POWERS[e]
            if eg_fits(zigzag(m - near), FINER_K):
                put_bits(w, ESCAPE_FINER, 2)
                put_bits(w, e - 1, 3)
                put_eg(w, zigzag(m - near), FINER_K)
                return
    put_bits(w, ESCAPE_BITS, 2)
    put_wide(w, bits, 64)


cdef inline void put_number(writer_t *w, state_t *s, pen_t *pen, number_t *f, uint64_t bits, const grid_t *grid, int i,
                            bint is_fresh) noexcept nogil:
    """Write and set a number that has changed, by EG(ki)."""
    cdef int64_t n = 0
    cdef bint is_on_grid = find_place(grid, bits, &n)
    cdef uint64_t v = 0
    if is_on_grid:
        v = (<uint64_t> n if n > 0 else 0) if is_fresh else zigzag(n - f.n)
        if not eg_fits(v, s.k[i]):
            v = 0
    put_k(w, s, pen, i, v)
    if v == 0:
        put_escape(w, f, bits, grid, n, is_on_grid)
    else:
        f.bits = bits
        f.n = n


cdef inline void set_place(reader_t *r, number_t *f, const grid_t *grid, int64_t n) noexcept nogil:
    if not -grid.most_n <= n <= grid.most_n:
        r.failed = True
        return
    f.n = n
    f.bits = value_bits(grid, n)


cdef void get_escape(reader_t *r, number_t *f, const grid_t *grid) noexcept nogil:
    cdef int escape = <int> get_bits(r, 2)
    cdef int e
    cdef int64_t m, limit
    if escape == ESCAPE_NAN:
        f.bits = NAN_BITS
    elif escape == ESCAPE_BITS:
        f.bits = get_64(r)
    elif escape == ESCAPE_PLACE:
        set_place(r, f, grid, unzigzag(get_eg(r, PLACE_K)))
    else:
        e = <int> get_bits(r, 3) + 1
        m = unzigzag(get_eg(r, FINER_K))
        limit = ((<int64_t> 1 << 51) - 1) // <int64_t> POWERS[e]
        if not -limit <= f.n * grid.whole_step <= limit:
            r.failed = True
            return
        m += f.n * grid.whole_step * <int64_t> POWERS[e]
        if not -(<int64_t> 1 << 51) < m < <int64_t> 1 << 51:
            r.failed = True
            return
        f.bits = bits_of(<double> m / POWERS[grid.decimals + e])


cdef inline void get_number(reader_t *r, state_t *s, number_t *f, const grid_t *grid, int i,
                            bint is_fresh) noexcept nogil:
    cdef uint64_t v = get_eg(r, s.k[i])
    if v == 0:
        get_escape(r, f, grid)
    else:
        set_place(r, f, grid, <int64_t> v if is_fresh else f.n + unzigzag(v))


cdef int64_t power_of_1000(int exponent) noexcept nogil:
    return 1 if exponent == 0 else 1000 if exponent == 1 else 1000000 if exponent == 2 else 1000000000


cdef int64_t floor_to(int64_t t, int64_t unit) noexcept nogil:
    """The last multiple of the unit that is not after t, in units."""
    return t // unit - (t % unit < 0)


cdef void put_event(writer_t *w, state_t *s, pen_t *pen, int64_t last, int64_t event_ns,
                    int64_t recv_ns) noexcept nogil:
    """Write an event's time in the shortest of the ways."""
    cdef int way = EVENT_BITS, shortest = 64, bits, u
    cdef int64_t step, lag, unit
    cdef uint64_t v = 0, candidate
    if -MOST_EVENT < event_ns < MOST_EVENT and -MOST_EVENT < last < MOST_EVENT:
        step = event_ns - last
        u = 0
        while u < EVENT_UNITS - 1 and step % 1000 == 0 and step != 0:
            step //= 1000
            u += 1
        candidate = zigzag(step)
        if eg_fits(candidate, EVENT_K):
            way = u
            v = candidate
            shortest = eg_bits(v, EVENT_K)
    if 0 <= recv_ns and 0 <= event_ns:
        for u in range(1, EVENT_UNITS):
            unit = power_of_1000(u)
            if event_ns % unit:
                break
            lag = recv_ns // unit - event_ns // unit
            candidate = zigzag(lag)
            if not eg_fits(candidate, s.k[K_OTHER]):
                continue
            bits = eg_bits(candidate, s.k[K_OTHER])
            if bits < shortest:
                way = EVENT_UNITS - 1 + u
                v = candidate
                shortest = bits
    put_bits(w, way, 3)
    if way == EVENT_BITS:
        put_wide(w, <uint64_t> event_ns, 64)
    elif way < EVENT_UNITS:
        put_eg(w, v, EVENT_K)
    else:
        put_k(w, s, pen, K_OTHER, v)


cdef int64_t get_event(reader_t *r, state_t *s, int64_t last, int64_t recv_ns) noexcept nogil:
    """Read an event's time; whatever comes, it wraps."""
    cdef int way = <int> get_bits(r, 3)
    cdef uint64_t unit
    if way == EVENT_BITS:
        return <int64_t> get_64(r)
    if way < EVENT_UNITS:
        return <int64_t> (<uint64_t> last
                          + <uint64_t> unzigzag(get_eg(r, EVENT_K)) * <uint64_t> power_of_1000(way))
    unit = <uint64_t> power_of_1000(way - EVENT_UNITS + 1)
    return <int64_t> ((<uint64_t> floor_to(recv_ns, <int64_t> unit) - <uint64_t> unzigzag(get_eg(r, s.k[K_OTHER])))
                      * unit)


cdef void put_double(writer_t *w, uint64_t *last, uint64_t bits) noexcept nogil:
    """Write a double that has changed by the bytes in which it differs."""
    cdef uint64_t x = bits ^ last[0]
    cdef int leading = (63 - top_bit(x)) // 8
    cdef int trailing = top_bit(x & (0 - x)) // 8
    put_bits(w, leading, 3)
    put_bits(w, trailing, 3)
    put_wide(w, x >> 8 * trailing, 64 - 8 * (leading + trailing))
    last[0] = bits


cdef void get_double(reader_t *r, uint64_t *last) noexcept nogil:
    cdef int leading = <int> get_bits(r, 3)
    cdef int trailing = <int> get_bits(r, 3)
    cdef int bits = 64 - 8 * (leading + trailing)
    if bits <= 0:
        r.failed = True
        return
    last[0] ^= (get_64(r) if bits == 64 else get_bits(r, bits)) << 8 * trailing


# ---- what changes rarely

cdef int note_text(pen_t *pen, uint32_t text) noexcept nogil:
    """Log a text that the channel has not used before; one beyond all bounds, each time. -1: there is no memory."""
    cdef uint64_t byte = text >> 3
    cdef uint64_t size
    cdef void *memory
    if text == 0:
        return CODEC_OK
    if text < MOST_TEXTS and byte >= pen.texts_bytes:
        size = 2 * byte + 64
        memory = realloc(pen.texts, size)
        if memory == NULL:
            return CODEC_NO_MEMORY
        pen.texts = <uint8_t *> memory
        memset(pen.texts + pen.texts_bytes, 0, size - pen.texts_bytes)
        pen.texts_bytes = size
    if text < MOST_TEXTS:
        if pen.texts[byte] & (1 << (text & 7)):
            return CODEC_OK
        pen.texts[byte] |= 1 << (text & 7)
    if pen.log.used + 2 > pen.log.size:
        memory = realloc(pen.log.pairs, (2 * pen.log.size + 64) * sizeof(uint32_t))
        if memory == NULL:
            return CODEC_NO_MEMORY
        pen.log.pairs = <uint32_t *> memory
        pen.log.size = 2 * pen.log.size + 64
    pen.log.pairs[pen.log.used] = pen.index
    pen.log.pairs[pen.log.used + 1] = text
    pen.log.used += 2
    return CODEC_OK


cdef void put_wish(writer_t *w, state_t *s, pen_t *pen, uint32_t mark, int mark_bits) noexcept nogil:
    """Change the k that the pen wishes to change; mark: what an EXT begins with in the family."""
    put_bits(w, mark, mark_bits)
    put_bits(w, EXT_K | pen.wish << 4 | pen.wished << 7, 12)
    s.k[pen.wish] = pen.wished
    pen.wish = -1


cdef void put_extension(writer_t *w, uint32_t mark, int mark_bits, int what, uint32_t value) noexcept nogil:
    put_bits(w, mark | what << mark_bits, mark_bits + 4)
    put_eg(w, value, EXT_NUMBER_K)


cdef int put_extensions(writer_t *w, state_t *s, pen_t *pen, top_t *top, const top_t *new, uint32_t mark,
                        int mark_bits, int64_t recv_ns) noexcept nogil:
    """Write whatever of a quote's or trade's rarer things has changed."""
    if pen.wish >= 0:
        put_wish(w, s, pen, mark, mark_bits)
    if new.kind != top.kind:
        put_extension(w, mark, mark_bits, EXT_KIND, new.kind)
        top.kind = new.kind
    if new.attribs != top.attribs:
        put_extension(w, mark, mark_bits, EXT_ATTRIBS, new.attribs)
        top.attribs = new.attribs
    if new.event_ns != top.event_ns:
        put_bits(w, mark | EXT_EVENT << mark_bits, mark_bits + 4)
        put_event(w, s, pen, top.event_ns, new.event_ns, recv_ns)
        top.event_ns = new.event_ns
    if new.exchange != top.exchange:
        put_extension(w, mark, mark_bits, EXT_EXCHANGE, new.exchange)
        top.exchange = new.exchange
        if note_text(pen, new.exchange) < 0:
            return CODEC_NO_MEMORY
    if new.conditions != top.conditions:
        put_extension(w, mark, mark_bits, EXT_CONDITIONS, new.conditions)
        top.conditions = new.conditions
        return note_text(pen, new.conditions)
    return CODEC_OK


cdef void get_extension(reader_t *r, state_t *s, int family, int64_t recv_ns) noexcept nogil:
    cdef int what = <int> get_bits(r, 4)
    cdef top_t *top
    if what == EXT_K:
        what = <int> get_bits(r, 3)
        s.k[what] = <uint8_t> get_bits(r, 5)
        return
    if family > TRADES or what > (EXT_EVENT if family == QUOTES else EXT_CONDITIONS):
        r.failed = True
        return
    top = &s.tops[family]
    if what == EXT_EVENT:
        top.event_ns = get_event(r, s, top.event_ns, recv_ns)
    elif what == EXT_KIND:
        top.kind = <uint8_t> get_eg_below(r, EXT_NUMBER_K, 1 << 8)
    elif what == EXT_ATTRIBS:
        top.attribs = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)
    elif what == EXT_EXCHANGE:
        top.exchange = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)
    else:
        top.conditions = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)


# ---- quotes

cdef int put_quote(writer_t *w, state_t *s, pen_t *pen, const quote_t *row, int64_t recv_ns) noexcept nogil:
    cdef top_t *top = &s.tops[QUOTES]
    cdef number_t *f = top.numbers
    cdef number_t was
    cdef top_t new
    cdef uint64_t x[4]
    cdef int64_t bid_n = 0, ask_n = 0, step
    cdef int i, bid, ask, bid_size, ask_size, number
    memcpy(x, &row.bid, 32)
    new.kind = row.kind
    new.attribs = row.attribs
    new.event_ns = row.event_ns
    if pen.absent[QUOTES]:
        new.attribs = 0 if pen.absent[QUOTES] & 1 else new.attribs
        new.event_ns = 0 if pen.absent[QUOTES] & 2 else new.event_ns
        for i in range(4):
            x[i] = NAN_BITS if pen.absent[QUOTES] & (4 << i) else x[i]
    if (new.kind ^ top.kind) | (new.attribs ^ top.attribs) or new.event_ns != top.event_ns or pen.wish >= 0:
        new.exchange = top.exchange
        new.conditions = top.conditions
        put_extensions(w, s, pen, top, &new, 0b11111, SHAPE_BITS, recv_ns)
    top.recv_ns = recv_ns
    top.is_there = True

    bid = x[BID] != f[BID].bits
    ask = x[ASK] != f[ASK].bits
    if bid and ask and find_place(&s.price, x[BID], &bid_n) and find_place(&s.price, x[ASK], &ask_n):
        step = bid_n - f[BID].n
        if step and step == ask_n - f[ASK].n and eg_fits(zigzag(step), s.k[K_PRICE]):
            ask = WITH_BID
    bid_size = SAME if x[BID_SIZE] == f[BID_SIZE].bits else (
        NEW if bid or x[BID_SIZE] != f[BID_SIZE + BEFORE].bits else BACK)
    ask_size = SAME if x[ASK_SIZE] == f[ASK_SIZE].bits else (
        NEW if ask or x[ASK_SIZE] != f[ASK_SIZE + BEFORE].bits else BACK)
    number = shape_number(bid, ask, bid_size, ask_size)
    if shapes[number].bits:
        put_bits(w, shapes[number].code, shapes[number].bits)
    else:
        put_bits(w, 0b01111 | number << SHAPE_BITS, SHAPE_BITS + 7)

    if bid:
        put_number(w, s, pen, f + BID, x[BID], &s.price, K_PRICE, False)
    if ask == WITH_BID:
        f[ASK].bits = x[ASK]
        f[ASK].n = ask_n
    elif ask:
        put_number(w, s, pen, f + ASK, x[ASK], &s.price, K_PRICE, False)
    for i in range(BID_SIZE, ASK_SIZE + 1):
        number = bid_size if i == BID_SIZE else ask_size
        if number == SAME:
            continue
        was = f[i]
        if number == BACK:
            f[i] = f[i + BEFORE]
        elif bid if i == BID_SIZE else ask:
            put_number(w, s, pen, f + i, x[i], &s.size, K_SIZE_FRESH, True)
        else:
            put_number(w, s, pen, f + i, x[i], &s.size, K_SIZE_STEP, False)
        f[i + BEFORE] = was
    return CODEC_OK


cdef int get_shape(reader_t *r, state_t *s, int64_t recv_ns) noexcept nogil:
    """Read the shape of a quote, and what stands before it."""
    cdef int code, number
    while True:
        code = <int> peek(r) & 31
        number = shape_of_code[code]
        r.at += bits_of_code[code]
        if number == SHAPE_ANY:
            number = <int> get_bits(r, 7)
            if number >> 1 & 3 == 3 or number >> 3 & 3 == 3 or number >> 5 == 3:
                r.failed = True
            return number
        if number != SHAPE_EXT:
            return number
        get_extension(r, s, QUOTES, recv_ns)
        if read_too_far(r):
            return 0


cdef int get_quote(reader_t *r, state_t *s, int64_t recv_ns, quote_t *row) noexcept nogil:
    cdef top_t *top = &s.tops[QUOTES]
    cdef number_t *f = top.numbers
    cdef number_t was
    cdef int number = get_shape(r, s, recv_ns)
    cdef int bid = number & 1, ask = number >> 1 & 3, i, how
    cdef int64_t bid_n = f[BID].n
    if bid:
        get_number(r, s, f + BID, &s.price, K_PRICE, False)
    if ask == WITH_BID:
        set_place(r, f + ASK, &s.price, f[ASK].n + f[BID].n - bid_n)
    elif ask:
        get_number(r, s, f + ASK, &s.price, K_PRICE, False)
    for i in range(BID_SIZE, ASK_SIZE + 1):
        how = number >> 3 & 3 if i == BID_SIZE else number >> 5
        if how == SAME:
            continue
        was = f[i]
        if how == BACK:
            f[i] = f[i + BEFORE]
        elif bid if i == BID_SIZE else ask:
            get_number(r, s, f + i, &s.size, K_SIZE_FRESH, True)
        else:
            get_number(r, s, f + i, &s.size, K_SIZE_STEP, False)
        f[i + BEFORE] = was
    top.recv_ns = recv_ns
    top.is_there = True
    top_row(s, QUOTES, <char *> row)
    return CODEC_OK


# ---- trades

cdef inline number_t *quote_at(state_t *s, bint is_other_side) noexcept nogil:
    """The quote on the side of the last trade, or on the other one."""
    return s.tops[QUOTES].numbers + (s.side ^ is_other_side)


cdef inline void note_side(state_t *s) noexcept nogil:
    cdef uint64_t price = s.tops[TRADES].numbers[PRICE].bits
    if price == s.tops[QUOTES].numbers[ASK].bits:
        s.side = 1
    elif price == s.tops[QUOTES].numbers[BID].bits:
        s.side = 0


cdef int put_trade(writer_t *w, state_t *s, pen_t *pen, const trade_t *row, int64_t recv_ns) noexcept nogil:
    cdef top_t *top = &s.tops[TRADES]
    cdef number_t *f = top.numbers
    cdef top_t new
    cdef uint64_t price = bits_of(row.price), size = bits_of(row.size)
    cdef uint32_t absent = pen.absent[TRADES]
    new.kind = row.kind
    new.attribs = 0 if absent & 1 else row.attribs
    new.event_ns = 0 if absent & 2 else row.event_ns
    price = NAN_BITS if absent & 4 else price
    size = NAN_BITS if absent & 8 else size
    new.exchange = 0 if absent & 16 else row.exchange
    new.conditions = 0 if absent & 32 else row.conditions
    if put_extensions(w, s, pen, top, &new, 1, 1, recv_ns) < 0:
        return CODEC_NO_MEMORY
    top.recv_ns = recv_ns
    top.is_there = True

    if price == f[PRICE].bits:
        put_bits(w, 0b00, 2)
    elif s.has_quotes and price == quote_at(s, True).bits:
        put_bits(w, 0b010, 3)
        f[PRICE] = quote_at(s, True)[0]
    elif s.has_quotes and price == quote_at(s, False).bits:
        put_bits(w, 0b0110, 4)
        f[PRICE] = quote_at(s, False)[0]
    else:
        if s.has_quotes:
            put_bits(w, 0b1110, 4)
        else:
            put_bits(w, 0b10, 2)
        put_number(w, s, pen, f + PRICE, price, &s.price, K_TRADE_PRICE, False)
    if size == f[SIZE].bits:
        put_bits(w, 0, 1)
    else:
        put_bits(w, 1, 1)
        put_number(w, s, pen, f + SIZE, size, &s.trade_size, K_TRADE_SIZE, True)
    if s.has_quotes:
        note_side(s)
    return CODEC_OK


cdef int get_trade(reader_t *r, state_t *s, int64_t recv_ns, trade_t *row) noexcept nogil:
    cdef top_t *top = &s.tops[TRADES]
    cdef number_t *f = top.numbers
    while get_bits(r, 1):
        get_extension(r, s, TRADES, recv_ns)
        if read_too_far(r):
            return CODEC_BAD
    if get_bits(r, 1):
        if s.has_quotes and not get_bits(r, 1):
            f[PRICE] = quote_at(s, True)[0]
        elif s.has_quotes and not get_bits(r, 1):
            f[PRICE] = quote_at(s, False)[0]
        else:
            get_number(r, s, f + PRICE, &s.price, K_TRADE_PRICE, False)
    if get_bits(r, 1):
        get_number(r, s, f + SIZE, &s.trade_size, K_TRADE_SIZE, True)
    if s.has_quotes:
        note_side(s)
    top.recv_ns = recv_ns
    top.is_there = True
    top_row(s, TRADES, <char *> row)
    return CODEC_OK


cdef void top_row(state_t *s, int family, char *row) noexcept nogil:
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


# ---- the other families: columns against the last row of the same key

cdef int64_t integer_in(const char *row, const column_t *column) noexcept nogil:
    if column.width == WIDTH_U8:
        return (<const uint8_t *> (row + column.offset))[0]
    if column.width == WIDTH_U32:
        return (<const uint32_t *> (row + column.offset))[0]
    if column.width == WIDTH_I32:
        return (<const int32_t *> (row + column.offset))[0]
    return (<const int64_t *> (row + column.offset))[0]


cdef void set_integer_in(char *row, const column_t *column, int64_t value) noexcept nogil:
    if column.width == WIDTH_U8:
        (<uint8_t *> (row + column.offset))[0] = <uint8_t> value
    elif column.width == WIDTH_64:
        (<int64_t *> (row + column.offset))[0] = value
    else:
        (<uint32_t *> (row + column.offset))[0] = <uint32_t> value


cdef bint fits_column(const column_t *column, int64_t value) noexcept nogil:
    if column.width == WIDTH_U8:
        return 0 <= value < 1 << 8
    if column.width == WIDTH_U32:
        return 0 <= value < <int64_t> 1 << 32
    return -(<int64_t> 1 << 31) <= value < <int64_t> 1 << 31


cdef uint64_t *double_in_line(line_t *line, const column_t *column) noexcept nogil:
    return &line.doubles[column.at] if column.how == AS_DOUBLE else &line.numbers[column.at].bits


cdef void put_key(writer_t *w, int family, int32_t tick_type, uint8_t side, uint8_t operation) noexcept nogil:
    if family == DEPTH:
        if side < 3:
            put_bits(w, side, 2)
        else:
            put_bits(w, 3 | side << 2, 10)
        if operation < 3:
            put_bits(w, operation, 2)
        else:
            put_bits(w, 3 | operation << 2, 10)
    elif family != BARS:
        put_eg(w, zigzag(tick_type), KEY_K)


cdef line_t *get_key(reader_t *r, state_t *s, int family) noexcept nogil:
    """Read a key and return its line, with the key in it; NULL if there is no memory."""
    cdef uint8_t side = 0, operation = 0
    cdef int32_t tick_type = 0
    cdef line_t *line
    if family == DEPTH:
        side = <uint8_t> get_bits(r, 2)
        if side == 3:
            side = <uint8_t> get_bits(r, 8)
        operation = <uint8_t> get_bits(r, 2)
        if operation == 3:
            operation = <uint8_t> get_bits(r, 8)
    elif family != BARS:
        tick_type = <int32_t> unzigzag(get_eg_below(r, KEY_K, <uint64_t> 1 << 32))
    line = line_of(s, family, line_number(family, tick_type, side, operation))
    if line != NULL:
        line.tick_type = tick_type
        line.side = side
        line.operation = operation
    return line


cdef int put_line(writer_t *w, state_t *s, pen_t *pen, int family, const char *row, int64_t recv_ns) noexcept nogil:
    cdef int32_t tick_type = 0
    cdef uint8_t side = 0, operation = 0
    cdef line_t *line
    cdef int i
    cdef int64_t value, old
    cdef uint64_t bits
    cdef uint32_t changed = 0, absent = pen.absent[family]
    cdef const column_t *column
    cdef int64_t integers[MOST_COLUMNS]
    cdef uint64_t doubles[MOST_COLUMNS]
    if family == DEPTH:
        side = (<const depth_t *> row).side
        operation = (<const depth_t *> row).operation
    elif family == TICKS:
        tick_type = (<const tick_t *> row).tick_type
    elif family == GREEKS:
        tick_type = (<const greeks_t *> row).tick_type
    line = line_of(s, family, line_number(family, tick_type, side, operation))
    if line == NULL:
        return CODEC_NO_MEMORY
    line.tick_type = tick_type
    line.side = side
    line.operation = operation
    line.recv_ns = recv_ns
    if pen.wish >= 0:
        put_wish(w, s, pen, 1, 1)
    put_bits(w, 0, 1)
    put_key(w, family, tick_type, side, operation)
    if family == DEPTH:
        # What the row is compared with depends on its position, which is compared with the remembered one.
        old = line.integers[POSITION]
        line.integers[POSITION] = (<const depth_t *> row).position
        from_book(s, line)
        line.integers[POSITION] = old
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if column.how <= AS_EVENT:
            integers[i] = 0 if absent & <uint32_t> 1 << i else integer_in(row, column)
            if column.how == AS_INTEGER:
                changed |= <uint32_t> (integers[i] != line.integers[column.at]) << i
                if column.is_text and note_text(pen, <uint32_t> integers[i]) < 0:
                    return CODEC_NO_MEMORY
            else:
                changed |= <uint32_t> (<uint64_t> integers[i] != <uint64_t> line.event_ns + line.growth) << i
        else:
            memcpy(&doubles[i], row + column.offset, 8)
            if absent & <uint32_t> 1 << i:
                doubles[i] = NAN_BITS
            changed |= <uint32_t> (doubles[i] != double_in_line(line, column)[0]) << i
    put_bits(w, changed, columns_number[family])
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if column.how == AS_EVENT:
            value = integers[i]
            if changed >> i & 1:
                put_event(w, s, pen, line.event_ns, value, recv_ns)
                line.growth = <uint64_t> value - <uint64_t> line.event_ns
            line.event_ns = value
        elif not changed >> i & 1:
            continue
        elif column.how == AS_INTEGER:
            put_k(w, s, pen, K_OTHER, zigzag(integers[i] - line.integers[column.at]))
            line.integers[column.at] = integers[i]
        elif column.how == AS_PRICE:
            put_number(w, s, pen, &line.numbers[column.at], doubles[i], &s.price, K_PRICE, False)
        elif column.how == AS_SIZE:
            put_number(w, s, pen, &line.numbers[column.at], doubles[i], &s.size, K_SIZE_STEP, False)
        elif column.how == AS_DOUBLE:
            put_double(w, &line.doubles[column.at], doubles[i])
        else:
            bits = 0
            value = 0
            if find_place(&s.price, doubles[i], &value):
                bits = zigzag(value - line.numbers[column.reference].n) + 1
                if not eg_fits(bits, s.k[K_PRICE]):
                    bits = 0
            put_k(w, s, pen, K_PRICE, bits)
            if bits == 0:
                put_wide(w, doubles[i], 64)
            else:
                line.numbers[column.at].n = value
            line.numbers[column.at].bits = doubles[i]
    if family == DEPTH:
        to_book(s, line)
    return CODEC_OK


cdef int get_line(reader_t *r, state_t *s, int family, int64_t recv_ns, char *row) noexcept nogil:
    cdef line_t *line
    cdef int i
    cdef int64_t value
    cdef uint64_t v
    cdef uint32_t changed
    cdef const column_t *column
    while get_bits(r, 1):
        get_extension(r, s, family, recv_ns)
        if read_too_far(r):
            return CODEC_BAD
    line = get_key(r, s, family)
    if line == NULL:
        return CODEC_NO_MEMORY
    line.recv_ns = recv_ns
    changed = <uint32_t> get_bits(r, columns_number[family])
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if family == DEPTH and column.how == AS_PRICE:
            from_book(s, line)
        if column.how == AS_EVENT:
            value = <int64_t> (<uint64_t> line.event_ns + line.growth)
            if changed >> i & 1:
                value = get_event(r, s, line.event_ns, recv_ns)
                line.growth = <uint64_t> value - <uint64_t> line.event_ns
            line.event_ns = value
        elif not changed >> i & 1:
            continue
        elif column.how == AS_INTEGER:
            value = line.integers[column.at] + unzigzag(get_eg(r, s.k[K_OTHER]))
            if not fits_column(column, value):
                r.failed = True
                return CODEC_BAD
            line.integers[column.at] = value
        elif column.how == AS_PRICE:
            get_number(r, s, &line.numbers[column.at], &s.price, K_PRICE, False)
        elif column.how == AS_SIZE:
            get_number(r, s, &line.numbers[column.at], &s.size, K_SIZE_STEP, False)
        elif column.how == AS_DOUBLE:
            get_double(r, &line.doubles[column.at])
        else:
            v = get_eg(r, s.k[K_PRICE])
            if v:
                set_place(r, &line.numbers[column.at], &s.price,
                          line.numbers[column.reference].n + unzigzag(v - 1))
            else:
                line.numbers[column.at].bits = get_64(r)
    if family == DEPTH:
        to_book(s, line)
    line_row(s, family, line, row)
    return CODEC_OK


cdef void line_row(state_t *s, int family, line_t *line, char *row) noexcept nogil:
    """A remembered row as a row of its ring; sequence number and instrument are the caller's business."""
    cdef int i
    cdef const column_t *column
    memset(row, 0, row_bytes(family))
    (<tick_t *> row).recv_ns = line.recv_ns
    (<tick_t *> row).req_id = -1
    if family == DEPTH:
        (<depth_t *> row).side = line.side
        (<depth_t *> row).operation = line.operation
    elif family == TICKS:
        (<tick_t *> row).tick_type = line.tick_type
    elif family == GREEKS:
        (<greeks_t *> row).tick_type = line.tick_type
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if column.how == AS_INTEGER:
            set_integer_in(row, column, line.integers[column.at])
        elif column.how == AS_EVENT:
            set_integer_in(row, column, line.event_ns)
        else:
            memcpy(row + column.offset, double_in_line(line, column), 8)


cdef void level_row(state_t *s, int side, int position, char *row) noexcept nogil:
    """A level of the book as the row that inserts it."""
    cdef depth_t *depth = <depth_t *> row
    cdef level_t *level = &s.book.levels[side][position]
    memset(row, 0, sizeof(depth_t))
    depth.recv_ns = s.book.recv_ns
    depth.req_id = -1
    depth.kind = s.book.kind
    depth.attribs = s.book.attribs
    depth.side = side
    depth.position = position
    depth.price = double_of(level.price.bits)
    depth.size = double_of(level.size.bits)
    depth.market_maker = level.market_maker


cdef size_t row_bytes(int family) noexcept nogil:
    if family == QUOTES:
        return sizeof(quote_t)
    if family == TRADES:
        return sizeof(trade_t)
    if family == TICKS:
        return sizeof(tick_t)
    if family == DEPTH:
        return sizeof(depth_t)
    return sizeof(bar_t) if family == BARS else sizeof(greeks_t)


cdef int put_row(writer_t *w, state_t *s, pen_t *pen, int family, const char *row, int64_t recv_ns) noexcept nogil:
    """Write a row of one of the channel's families; recv_ns: its time, rounded to the channel's unit."""
    if family == QUOTES:
        return put_quote(w, s, pen, <const quote_t *> row, recv_ns)
    if family == TRADES:
        return put_trade(w, s, pen, <const trade_t *> row, recv_ns)
    return put_line(w, s, pen, family, row, recv_ns)


cdef int get_row(reader_t *r, state_t *s, int family, int64_t recv_ns, char *row) noexcept nogil:
    """Read a row of one of the channel's families; sequence number and instrument are left to the caller."""
    cdef int status
    if family == QUOTES:
        status = get_quote(r, s, recv_ns, <quote_t *> row)
    elif family == TRADES:
        status = get_trade(r, s, recv_ns, <trade_t *> row)
    else:
        status = get_line(r, s, family, recv_ns, row)
    return CODEC_BAD if read_too_far(r) else status


# ---- snapshots

cdef void put_state_number(writer_t *w, const number_t *f, const grid_t *grid) noexcept nogil:
    if value_bits(grid, f.n) == f.bits:
        put_bits(w, 1, 1)
    else:
        put_bits(w, 0, 1)
        put_wide(w, f.bits, 64)
    put_eg(w, zigzag(f.n), PLACE_K)


cdef void get_state_number(reader_t *r, number_t *f, const grid_t *grid) noexcept nogil:
    cdef bint is_on_grid = get_bits(r, 1)
    cdef uint64_t bits = 0
    if not is_on_grid:
        bits = get_64(r)
    set_place(r, f, grid, unzigzag(get_eg(r, PLACE_K)))
    if not is_on_grid:
        f.bits = bits


cdef const grid_t *top_grid(state_t *s, int family, int i) noexcept nogil:
    if i < (BID_SIZE if family == QUOTES else SIZE):
        return &s.price
    return &s.size if family == QUOTES else &s.trade_size


cdef int put_top(writer_t *w, state_t *s, int family) noexcept nogil:
    cdef top_t *top = &s.tops[family]
    cdef int i
    put_bits(w, top.is_there, 1)
    if not top.is_there:
        return CODEC_OK
    put_wide(w, <uint64_t> top.recv_ns, 64)
    put_bits(w, top.kind, 8)
    put_eg(w, top.attribs, EXT_NUMBER_K)
    put_wide(w, <uint64_t> top.event_ns, 64)
    if family == TRADES:
        put_eg(w, top.exchange, EXT_NUMBER_K)
        put_eg(w, top.conditions, EXT_NUMBER_K)
    for i in range(6 if family == QUOTES else 2):
        put_state_number(w, &top.numbers[i], top_grid(s, family, i))
    return writer_room(w)


cdef void get_top(reader_t *r, state_t *s, int family) noexcept nogil:
    cdef top_t *top = &s.tops[family]
    cdef int i
    top.is_there = get_bits(r, 1)
    if not top.is_there:
        return
    top.recv_ns = <int64_t> get_64(r)
    top.kind = <uint8_t> get_bits(r, 8)
    top.attribs = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)
    top.event_ns = <int64_t> get_64(r)
    if family == TRADES:
        top.exchange = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)
        top.conditions = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)
    for i in range(6 if family == QUOTES else 2):
        get_state_number(r, &top.numbers[i], top_grid(s, family, i))


cdef int put_state_line(writer_t *w, state_t *s, int family, line_t *line) noexcept nogil:
    cdef int i
    cdef const column_t *column
    put_key(w, family, line.tick_type, line.side, line.operation)
    put_wide(w, <uint64_t> line.recv_ns, 64)
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if column.how == AS_INTEGER:
            put_eg(w, zigzag(line.integers[column.at]), EXT_NUMBER_K)
        elif column.how == AS_EVENT:
            put_wide(w, <uint64_t> line.event_ns, 64)
            put_wide(w, line.growth, 64)
        elif column.how == AS_DOUBLE:
            put_wide(w, line.doubles[column.at], 64)
        else:
            put_state_number(w, &line.numbers[column.at], &s.size if column.how == AS_SIZE else &s.price)
    return writer_room(w)


cdef int get_state_line(reader_t *r, state_t *s, int family) noexcept nogil:
    cdef line_t *line = get_key(r, s, family)
    cdef int i
    cdef const column_t *column
    cdef int64_t value
    if line == NULL:
        return CODEC_NO_MEMORY
    line.recv_ns = <int64_t> get_64(r)
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if column.how == AS_INTEGER:
            value = unzigzag(get_eg(r, EXT_NUMBER_K))
            if not fits_column(column, value):
                r.failed = True
                return CODEC_BAD
            line.integers[column.at] = value
        elif column.how == AS_EVENT:
            line.event_ns = <int64_t> get_64(r)
            line.growth = get_64(r)
        elif column.how == AS_DOUBLE:
            line.doubles[column.at] = get_64(r)
        else:
            get_state_number(r, &line.numbers[column.at], &s.size if column.how == AS_SIZE else &s.price)
    return CODEC_BAD if read_too_far(r) else CODEC_OK


cdef int put_book(writer_t *w, state_t *s) noexcept nogil:
    cdef int side, i
    cdef level_t *level
    put_bits(w, s.book.kind, 8)
    put_bits(w, s.book.attribs, 8)
    put_wide(w, <uint64_t> s.book.recv_ns, 64)
    for side in range(2):
        put_eg(w, s.book.lengths[side], KEY_K)
        for i in range(s.book.lengths[side]):
            level = &s.book.levels[side][i]
            put_state_number(w, &level.price, &s.price)
            put_state_number(w, &level.size, &s.size)
            put_eg(w, level.market_maker, EXT_NUMBER_K)
            if writer_room(w) < 0:
                return CODEC_NO_MEMORY
    return CODEC_OK


cdef int get_book(reader_t *r, state_t *s) noexcept nogil:
    cdef int side, i, length
    cdef level_t *level
    s.book.kind = <uint8_t> get_bits(r, 8)
    s.book.attribs = <uint8_t> get_bits(r, 8)
    s.book.recv_ns = <int64_t> get_64(r)
    for side in range(2):
        length = <int> get_eg_below(r, KEY_K, MOST_LEVELS + 1)
        for i in range(length):
            level = &s.book.levels[side][i]
            get_state_number(r, &level.price, &s.price)
            get_state_number(r, &level.size, &s.size)
            level.market_maker = <uint32_t> get_eg_below(r, EXT_NUMBER_K, <uint64_t> 1 << 32)
            if read_too_far(r):
                return CODEC_BAD
        s.book.lengths[side] = length
    return CODEC_OK


cdef int put_state(writer_t *w, state_t *s) noexcept nogil:
    """Write all of a state. The writer needs no more room than `WRITER_ROOM` to begin with."""
    cdef int i, line, family, known
    for i in range(K_NUMBERS):
        put_bits(w, s.k[i], 5)
    if s.places[QUOTES] >= 0 and s.places[TRADES] >= 0:
        put_bits(w, s.side, 1)
    for i in range(s.families_number):
        family = s.families[i]
        if family < TICKS:
            if put_top(w, s, family) < 0:
                return CODEC_NO_MEMORY
            continue
        known = 0
        for line in range(lines_of_family(family)):
            known += s.lines[family][line] != NULL
        put_eg(w, known, KEY_K)
        for line in range(lines_of_family(family)):
            if s.lines[family][line] != NULL and put_state_line(w, s, family, s.lines[family][line]) < 0:
                return CODEC_NO_MEMORY
        if family == DEPTH and put_book(w, s) < 0:
            return CODEC_NO_MEMORY
    return CODEC_OK


cdef int get_state(reader_t *r, state_t *s) noexcept nogil:
    """Read all of a state, up to the end of the message."""
    cdef int i, family, known, status
    state_reset(s)
    for i in range(K_NUMBERS):
        s.k[i] = <uint8_t> get_bits(r, 5)
    if s.places[QUOTES] >= 0 and s.places[TRADES] >= 0:
        s.side = <uint8_t> get_bits(r, 1)
    for i in range(s.families_number):
        family = s.families[i]
        if family < TICKS:
            get_top(r, s, family)
            if read_too_far(r):
                return CODEC_BAD
            continue
        known = <int> get_eg_below(r, KEY_K, MOST_LINES + 1)
        for _line in range(known):
            status = get_state_line(r, s, family)
            if status < 0:
                return status
        if family == DEPTH and get_book(r, s) < 0:
            return CODEC_BAD
    return CODEC_BAD if read_too_far(r) or r.end - r.at >= 8 else CODEC_OK
