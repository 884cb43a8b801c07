# cython: language_level=3
"""A channel's state: what is remembered of each family, the book, snapshots; `_channel_state.pxd` says what it is.

The rule of the file: whatever is read is checked before it is used. `state_of_spec` alone touches Python objects.

No I/O, no clock, no asyncio.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset, strcmp

from ibfast.codec._bits cimport (
    get_64, get_bits, get_eg, get_eg_below, put_bits, put_eg, put_wide, read_too_far, reader_t, unzigzag, writer_room,
    writer_t, zigzag,
)
from ibfast.codec._grid cimport (
    NAN_BITS, bits_of, double_of, get_grid, get_state_number, grid_init, grid_t, put_grid, put_state_number,
)
from ibfast.feed._records cimport KIND_DEPTH_RESET, bar_t, depth_t, greeks_t, tick_t


cdef enum:
    WIDTH_U8 = 0
    WIDTH_U32 = 1
    WIDTH_I32 = 2
    WIDTH_64 = 3

    COUNT = 2                   # of a bar's integers
    TEXT = 2                    # of a tick's
    OPEN = 0                    # of a bar's numbers
    CLOSE = 3
    OTHER_TICK_TYPES = 255      # the line that tick types outside of −1 … 253 share
    KEY_K = 3                   # of EG of keys and numbers of rows
    INTEGER_K = 3               # of EG of integers

FAMILY_NAMES = ("quotes", "trades", "ticks", "depth", "bars", "greeks")
cdef column_t columns[FAMILIES][MOST_COLUMNS]
cdef int columns_number[FAMILIES]


# ---- what rows are made of

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


make_columns()


cdef const column_t *columns_of(int family) noexcept nogil:
    """The columns of a family in the order in which they are coded."""
    return &columns[family][0]


cdef int columns_in(int family) noexcept nogil:
    return columns_number[family]


cdef uint32_t column_bit(int family, const char *name) noexcept:
    """The bit of a column in `absent`; 0 if the family has none of that name that may be absent."""
    cdef int i
    for i in range(columns_number[family]):
        if strcmp(columns[family][i].name, name) == 0:
            return 0 if strcmp(name, b"kind") == 0 or strcmp(name, b"position") == 0 else <uint32_t> 1 << i
    return 0


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


cdef int top_grid(int family, int i) noexcept nogil:
    """The grid of a quote's or trade's number."""
    if i < (BID_SIZE if family == QUOTES else SIZE):
        return PRICE_GRID
    return SIZE_GRID if family == QUOTES else TRADE_SIZE_GRID


cdef int grid_of_column(const column_t *column) noexcept nogil:
    """The grid of a column; −1 if it is not on any."""
    if column.how == AS_SIZE:
        return SIZE_GRID
    return PRICE_GRID if column.how == AS_PRICE or column.how == AS_DIFFERENCE else -1


# ---- a state's memory

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


cdef int grids_of_spec(grid_t *grids, spec) except -1:
    """Have the grids of a `Grids`, which has checked them."""
    for which, (step, decimals) in enumerate((spec.price, spec.size, spec.trade_size)):
        grid_init(&grids[<int> which], step, decimals)
    return 0


cdef void change_grid(state_t *s, int which, const grid_t *grid) noexcept nogil:
    """Have another grid from now on: the numbers that are remembered stay as they are, their places are forgotten."""
    cdef int family, i, line, side
    cdef line_t **lines
    s.grids[which] = grid[0]
    for family in range(TICKS):
        for i in range(6):
            if top_grid(family, i) == which:
                s.tops[family].numbers[i].n = 0
    for family in range(TICKS, FAMILIES):
        lines = s.lines[family]
        for line in range(lines_of_family(family) if lines != NULL else 0):
            if lines[line] == NULL:
                continue
            for i in range(columns_number[family]):
                if grid_of_column(&columns[family][i]) == which:
                    lines[line].numbers[columns[family][i].at].n = 0
    if s.book != NULL:
        for side in range(2):
            for i in range(s.book.lengths[side]):
                if which == PRICE_GRID:
                    s.book.levels[side][i].price.n = 0
                elif which == SIZE_GRID:
                    s.book.levels[side][i].size.n = 0


cdef int state_of_spec(state_t *s, spec) except -1:
    """Make an empty state (all zeros) that of a channel; `state_free` it even if this raises."""
    cdef int64_t unit_ns = spec.unit_ns, span_ns = spec.span_ns
    cdef int i
    for i, family in enumerate(spec.families):
        s.families[i] = FAMILY_NAMES.index(family)
        s.families_number = i + 1
    s.is_ordered = spec.ordered
    s.unit_ns = unit_ns
    s.span = <uint32_t> max(1, span_ns // unit_ns)
    grids_of_spec(s.grids, spec.grids)
    if state_init(s) < 0:
        raise MemoryError
    return 0


cdef line_t *line_at(state_t *s, int family, int32_t tick_type, uint8_t side, uint8_t operation) noexcept nogil:
    """A key's last row, made on first use, with this key in it; NULL if there is no memory."""
    cdef line_t **place = s.lines[family] + line_number(family, tick_type, side, operation)
    cdef int i
    if place[0] == NULL:
        place[0] = <line_t *> calloc(1, sizeof(line_t))
        if place[0] == NULL:
            return NULL
        for i in range(6):
            place[0].numbers[i].bits = NAN_BITS
        for i in range(8):
            place[0].doubles[i] = NAN_BITS
    place[0].tick_type = tick_type
    place[0].side = side
    place[0].operation = operation
    return place[0]


cdef void put_key(writer_t *w, int family, const line_t *line) noexcept nogil:
    if family == DEPTH:
        put_side_or_operation(w, line.side)
        put_side_or_operation(w, line.operation)
    elif family != BARS:
        put_eg(w, zigzag(line.tick_type), KEY_K)


cdef void put_side_or_operation(writer_t *w, uint8_t value) noexcept nogil:
    if value < 3:
        put_bits(w, value, 2)
    else:
        put_bits(w, 3 | value << 2, 10)


cdef uint8_t get_side_or_operation(reader_t *r) noexcept nogil:
    cdef uint8_t value = <uint8_t> get_bits(r, 2)
    return <uint8_t> get_bits(r, 8) if value == 3 else value


cdef line_t *get_key(reader_t *r, state_t *s, int family) noexcept nogil:
    """Read a key and return its line, with the key in it; NULL if there is no memory."""
    cdef uint8_t side = 0, operation = 0
    cdef int32_t tick_type = 0
    if family == DEPTH:
        side = get_side_or_operation(r)
        operation = get_side_or_operation(r)
    elif family != BARS:
        tick_type = <int32_t> unzigzag(get_eg_below(r, KEY_K, <uint64_t> 1 << 32))
    return line_at(s, family, tick_type, side, operation)


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


cdef void change_book(book_t *book, const depth_t *row, uint32_t absent) noexcept nogil:
    """Have a row's effect on a book that is kept beside a state's, without the columns that are absent."""
    cdef level_t level
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


# ---- current rows

cdef void line_row(int family, line_t *line, char *row) noexcept nogil:
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


# ---- snapshots

cdef int put_top(writer_t *w, state_t *s, int family) noexcept nogil:
    cdef top_t *top = &s.tops[family]
    cdef int i
    put_bits(w, top.is_there, 1)
    if not top.is_there:
        return CODEC_OK
    put_wide(w, <uint64_t> top.recv_ns, 64)
    put_bits(w, top.kind, 8)
    put_eg(w, top.attribs, INTEGER_K)
    put_wide(w, <uint64_t> top.event_ns, 64)
    if family == TRADES:
        put_eg(w, top.exchange, INTEGER_K)
        put_eg(w, top.conditions, INTEGER_K)
    for i in range(6 if family == QUOTES else 2):
        put_state_number(w, &top.numbers[i], &s.grids[top_grid(family, i)])
    return writer_room(w)


cdef void get_top(reader_t *r, state_t *s, int family) noexcept nogil:
    cdef top_t *top = &s.tops[family]
    cdef int i
    top.is_there = get_bits(r, 1)
    if not top.is_there:
        return
    top.recv_ns = <int64_t> get_64(r)
    top.kind = <uint8_t> get_bits(r, 8)
    top.attribs = <uint32_t> get_eg_below(r, INTEGER_K, <uint64_t> 1 << 32)
    top.event_ns = <int64_t> get_64(r)
    if family == TRADES:
        top.exchange = <uint32_t> get_eg_below(r, INTEGER_K, <uint64_t> 1 << 32)
        top.conditions = <uint32_t> get_eg_below(r, INTEGER_K, <uint64_t> 1 << 32)
    for i in range(6 if family == QUOTES else 2):
        get_state_number(r, &top.numbers[i], &s.grids[top_grid(family, i)])


cdef int put_state_line(writer_t *w, state_t *s, int family, line_t *line) noexcept nogil:
    cdef int i
    cdef const column_t *column
    put_key(w, family, line)
    put_wide(w, <uint64_t> line.recv_ns, 64)
    for i in range(columns_number[family]):
        column = &columns[family][i]
        if column.how == AS_INTEGER:
            put_eg(w, zigzag(line.integers[column.at]), INTEGER_K)
        elif column.how == AS_EVENT:
            put_wide(w, <uint64_t> line.event_ns, 64)
            put_wide(w, line.growth, 64)
        elif column.how == AS_DOUBLE:
            put_wide(w, line.doubles[column.at], 64)
        else:
            put_state_number(w, &line.numbers[column.at], &s.grids[grid_of_column(column)])
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
            value = unzigzag(get_eg(r, INTEGER_K))
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
            get_state_number(r, &line.numbers[column.at], &s.grids[grid_of_column(column)])
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
            put_state_number(w, &level.price, &s.grids[PRICE_GRID])
            put_state_number(w, &level.size, &s.grids[SIZE_GRID])
            put_eg(w, level.market_maker, INTEGER_K)
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
            get_state_number(r, &level.price, &s.grids[PRICE_GRID])
            get_state_number(r, &level.size, &s.grids[SIZE_GRID])
            level.market_maker = <uint32_t> get_eg_below(r, INTEGER_K, <uint64_t> 1 << 32)
            if read_too_far(r):
                return CODEC_BAD
        s.book.lengths[side] = length
    return CODEC_OK


cdef int put_state(writer_t *w, state_t *s) noexcept nogil:
    """Write all of a state. The writer needs no more room than `WRITER_ROOM` to begin with."""
    cdef int i, line, family, known
    for i in range(GRIDS):
        put_grid(w, &s.grids[i])
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
    for i in range(GRIDS):
        get_grid(r, &s.grids[i])
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
