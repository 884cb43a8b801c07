# cython: language_level=3
"""Rows of the stream protocol to bits and back: what is rare in quotes and trades, and all of the other families.

The rule of the file: a row that is read is bounded in bits (`READER_SLACK`), whatever it says; every number is checked
before it is used. No Python object is touched here.

No I/O, no clock, no asyncio.
"""

from libc.math cimport fabs
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from ibfast.codec._bits cimport (
    eg_bits, eg_fits, get_64, get_bits, get_eg, get_eg_below, put_bits, put_eg, put_wide, read_too_far, reader_t,
    top_bit, unzigzag, writer_t, zigzag,
)
from ibfast.codec._grid cimport (
    MOST_PLACE, NAN_BITS, PLACE_K, POWERS, bits_of, double_of, find_place, get_grid, grid_t, number_t, put_grid,
    rounded, set_place,
)
from ibfast.feed._records cimport depth_t, greeks_t, tick_t
from ibfast.codec._channel_state cimport (
    AS_DOUBLE, AS_EVENT, AS_INTEGER, AS_PRICE, AS_SIZE, CODEC_BAD, CODEC_NO_MEMORY, CODEC_OK, DEPTH, GREEKS, GRIDS,
    K_OTHER, K_PRICE, K_SIZE_STEP, MOST_COLUMNS, POSITION, PRICE_GRID, QUOTES, SIZE_GRID, TICKS, TRADES, change_grid,
    column_t, columns_in, columns_of, double_in_line, fits_column, from_book, get_key, integer_in, line_at, line_row,
    line_t, put_key, state_t, to_book, top_t,
)


cdef extern from *:
    """
    #define IBFAST_MOST_EVENT (1LL << 61)
    """
    const int64_t MOST_EVENT "IBFAST_MOST_EVENT"


cdef enum:
    # what follows the escape of a number
    ESCAPE_NAN = 0
    ESCAPE_BITS = 1
    ESCAPE_FINER = 2
    ESCAPE_PLACE = 3
    MOST_FINER = 8
    FINER_K = 6

    EXT_K = 0
    EXT_KIND = 1
    EXT_ATTRIBS = 2
    EXT_EVENT = 3
    EXT_EXCHANGE = 4
    EXT_CONDITIONS = 5
    EXT_GRID = 6
    EXT_NUMBER_K = 3

    EVENT_UNITS = 4             # steps in 1, 1000, 1000^2, 1000^3 ns
    EVENT_BITS = 7
    EVENT_K = 4

    # a pen's habits
    FORGET_AFTER = 256
    WORTH_BITS = 24
    MOST_TEXTS = 1 << 22        # that are remembered


# ---- pens

cdef void pen_init(pen_t *pen, uint32_t index, text_log_t *log) noexcept nogil:
    memset(pen, 0, sizeof(pen_t))
    pen.wish = -1
    pen.index = index
    pen.log = log


cdef void pen_free(pen_t *pen) noexcept nogil:
    free(pen.texts)
    pen.texts = NULL
    pen.texts_bytes = 0


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


# ---- numbers

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

cdef void put_wish(writer_t *w, state_t *s, pen_t *pen, uint32_t mark, int mark_bits) noexcept nogil:
    """Change what the pen wishes to change; mark: what an EXT begins with in the family."""
    cdef int which
    if pen.wish < WISH_GRIDS:
        put_bits(w, mark, mark_bits)
        put_bits(w, EXT_K | pen.wish << 4 | pen.wished << 7, 12)
        s.k[pen.wish] = pen.wished
    for which in range(GRIDS):
        if pen.new_grids >> which & 1:
            put_bits(w, mark, mark_bits)
            put_bits(w, EXT_GRID | which << 4, 6)
            put_grid(w, &pen.grids[which])
            change_grid(s, which, &pen.grids[which])
    pen.new_grids = 0
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
    cdef grid_t grid
    if what == EXT_K:
        what = <int> get_bits(r, 3)
        s.k[what] = <uint8_t> get_bits(r, 5)
        return
    if what == EXT_GRID:
        what = <int> get_bits(r, 2)
        get_grid(r, &grid)
        if what == GRIDS or r.failed:
            r.failed = True
            return
        change_grid(s, what, &grid)
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


# ---- the other families: columns against the last row of the same key

cdef int put_line(writer_t *w, state_t *s, pen_t *pen, int family, const char *row, int64_t recv_ns) noexcept nogil:
    cdef int32_t tick_type = 0
    cdef uint8_t side = 0, operation = 0
    cdef line_t *line
    cdef int i
    cdef int64_t value, old
    cdef uint64_t bits
    cdef int columns = columns_in(family)
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
    line = line_at(s, family, tick_type, side, operation)
    if line == NULL:
        return CODEC_NO_MEMORY
    line.recv_ns = recv_ns
    if pen.wish >= 0:
        put_wish(w, s, pen, 1, 1)
    put_bits(w, 0, 1)
    put_key(w, family, line)
    if family == DEPTH:
        # What the row is compared with depends on its position, which is compared with the remembered one.
        old = line.integers[POSITION]
        line.integers[POSITION] = (<const depth_t *> row).position
        from_book(s, line)
        line.integers[POSITION] = old
    for i in range(columns):
        column = columns_of(family) + i
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
    put_bits(w, changed, columns)
    for i in range(columns):
        column = columns_of(family) + i
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
            put_number(w, s, pen, &line.numbers[column.at], doubles[i], &s.grids[PRICE_GRID], K_PRICE, False)
        elif column.how == AS_SIZE:
            put_number(w, s, pen, &line.numbers[column.at], doubles[i], &s.grids[SIZE_GRID], K_SIZE_STEP, False)
        elif column.how == AS_DOUBLE:
            put_double(w, &line.doubles[column.at], doubles[i])
        else:
            bits = 0
            value = 0
            if find_place(&s.grids[PRICE_GRID], doubles[i], &value):
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
    cdef int columns = columns_in(family)
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
    changed = <uint32_t> get_bits(r, columns)
    for i in range(columns):
        column = columns_of(family) + i
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
            get_number(r, s, &line.numbers[column.at], &s.grids[PRICE_GRID], K_PRICE, False)
        elif column.how == AS_SIZE:
            get_number(r, s, &line.numbers[column.at], &s.grids[SIZE_GRID], K_SIZE_STEP, False)
        elif column.how == AS_DOUBLE:
            get_double(r, &line.doubles[column.at])
        else:
            v = get_eg(r, s.k[K_PRICE])
            if v:
                set_place(r, &line.numbers[column.at], &s.grids[PRICE_GRID],
                          line.numbers[column.reference].n + unzigzag(v - 1))
            else:
                line.numbers[column.at].bits = get_64(r)
    if family == DEPTH:
        to_book(s, line)
    line_row(family, line, row)
    return CODEC_OK
