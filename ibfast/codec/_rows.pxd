# Rows of a channel, to bits and back. What every quote and trade goes through stands here, to become part of the loops
# that call it; what is rare, and the other families, are in `_rows.pyx`.
#
# The rule of the file: `put_row` and `get_row` change the state in the same way, so that whoever has read a row's bits
# has the writer's state. What only a writer knows (which codes it would like, which texts it has used) is in its pen.
# A writer or reader never leaves these functions but as a copy: so its fields can stay in registers.

from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ibfast.codec._bits cimport (
    eg_fits, get_bits, get_eg, peek, put_bits, put_eg, read_too_far, reader_t, top_bit, unzigzag, writer_t, zigzag,
)
from ibfast.codec._grid cimport NAN_BITS, bits_of, find_place, grid_t, number_t, set_place
from ibfast.feed._records cimport quote_t, trade_t
from ibfast.codec._channel_state cimport (
    ASK, ASK_SIZE, BEFORE, BID, BID_SIZE, CODEC_BAD, CODEC_NO_MEMORY, CODEC_OK, FAMILIES, GRIDS, K_NUMBERS, K_PRICE,
    K_SIZE_FRESH, K_SIZE_STEP, K_TRADE_PRICE, K_TRADE_SIZE, PRICE, PRICE_GRID, QUOTES, SIZE, SIZE_GRID, TRADES,
    TRADE_SIZE_GRID, state_t, top_row, top_t,
)


cdef extern from *:
    """
    /* The prefix code of what changes in a quote, first bit lowest: by bid | ask << 1 | bid_size << 3 | ask_size << 5,
       and back by the next five bits. No bits: only to be said in full. */
    typedef struct { unsigned char code, bits; } ibfast_shape_t;
    static const ibfast_shape_t ibfast_shapes[128] = {
        [8] = {0x00, 2}, [32] = {0x02, 2}, [16] = {0x01, 3}, [64] = {0x05, 3}, [45] = {0x03, 4}, [40] = {0x0B, 4},
        [9] = {0x07, 5}, [34] = {0x17, 5},
    };
    static const ibfast_shape_t ibfast_shape_of_code[32] = {
        {8, 2}, {16, 3}, {32, 2}, {45, 4}, {8, 2}, {64, 3}, {32, 2}, {9, 5},
        {8, 2}, {16, 3}, {32, 2}, {40, 4}, {8, 2}, {64, 3}, {32, 2}, {254, 5},
        {8, 2}, {16, 3}, {32, 2}, {45, 4}, {8, 2}, {64, 3}, {32, 2}, {34, 5},
        {8, 2}, {16, 3}, {32, 2}, {40, 4}, {8, 2}, {64, 3}, {32, 2}, {255, 5},
    };
    """
    ctypedef struct shape_t "ibfast_shape_t":
        uint8_t code
        uint8_t bits
    const shape_t SHAPES "ibfast_shapes"[128]
    const shape_t SHAPE_OF_CODE "ibfast_shape_of_code"[32]


cdef enum:
    # what happens to a part of a quote
    SAME = 0
    NEW = 1
    BACK = 2
    WITH_BID = 2

    SHAPE_BITS = 5
    SHAPE_ANY = 254
    SHAPE_EXT = 255

    WISH_GRIDS = K_NUMBERS
    LOOK_EACH = 64              # numbers, at which k a pen would like


# A writer's own knowledge of its channel.
cdef struct pen_t:
    int16_t costlier[K_NUMBERS]         # bits that k+1 would have cost more
    int16_t cheaper[K_NUMBERS]          # bits that k−1 would have cost more
    int16_t seen[K_NUMBERS]
    int8_t wish                         # the k to be changed with the next row; WISH_GRIDS: grids alone; −1: nothing
    uint8_t wished
    uint8_t new_grids                   # those to be changed with it, one bit each
    grid_t grids[GRIDS]
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


cdef void pen_init(pen_t *pen, uint32_t index, text_log_t *log) noexcept nogil
cdef void pen_free(pen_t *pen) noexcept nogil
cdef void think(state_t *s, pen_t *pen, int i) noexcept nogil
cdef int64_t floor_to(int64_t t, int64_t unit) noexcept nogil

cdef void put_escape(writer_t *w, number_t *f, uint64_t bits, const grid_t *grid, int64_t n,
                     bint is_on_grid) noexcept nogil
cdef void get_escape(reader_t *r, number_t *f, const grid_t *grid) noexcept nogil
cdef int put_extensions(writer_t *w, state_t *s, pen_t *pen, top_t *top, const top_t *new, uint32_t mark,
                        int mark_bits, int64_t recv_ns) noexcept nogil
cdef void get_extension(reader_t *r, state_t *s, int family, int64_t recv_ns) noexcept nogil
cdef int put_line(writer_t *w, state_t *s, pen_t *pen, int family, const char *row, int64_t recv_ns) noexcept nogil
cdef int get_line(reader_t *r, state_t *s, int family, int64_t recv_ns, char *row) noexcept nogil


cdef inline int shape_number(int bid, int ask, int bid_size, int ask_size) noexcept nogil:
    return bid | ask << 1 | bid_size << 3 | ask_size << 5


# ---- numbers

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


cdef inline void put_number(writer_t *w, state_t *s, pen_t *pen, number_t *f, uint64_t bits, const grid_t *grid, int i,
                            bint is_fresh) noexcept nogil:
    """Write and set a number that has changed, by EG(ki)."""
    cdef int64_t n = 0
    cdef bint is_on_grid = find_place(grid, bits, &n)
    cdef uint64_t v = 0
    cdef writer_t copy
    if is_on_grid:
        v = (<uint64_t> n if n > 0 else 0) if is_fresh else zigzag(n - f.n)
        if not eg_fits(v, s.k[i]):
            v = 0
    put_k(w, s, pen, i, v)
    if v:
        f.bits = bits
        f.n = n
        return
    copy = w[0]
    put_escape(&copy, f, bits, grid, n, is_on_grid)
    w[0] = copy


cdef inline void get_number(reader_t *r, state_t *s, number_t *f, const grid_t *grid, int i,
                            bint is_fresh) noexcept nogil:
    cdef uint64_t v = get_eg(r, s.k[i])
    cdef reader_t copy
    if v:
        set_place(r, f, grid, <int64_t> v if is_fresh else f.n + unzigzag(v))
        return
    copy = r[0]
    get_escape(&copy, f, grid)
    r[0] = copy


# ---- quotes

cdef inline int put_quote(writer_t *w, state_t *s, pen_t *pen, const quote_t *row, int64_t recv_ns) noexcept nogil:
    cdef top_t *top = &s.tops[QUOTES]
    cdef number_t *f = top.numbers
    cdef const grid_t *prices = &s.grids[PRICE_GRID]
    cdef number_t was
    cdef top_t new
    cdef writer_t copy
    cdef uint64_t x[4]
    cdef int64_t bid_n = 0, ask_n = 0, step
    cdef int i, bid, ask, bid_size, ask_size, number
    cdef bint is_fresh
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
        copy = w[0]
        put_extensions(&copy, s, pen, top, &new, 0b11111, SHAPE_BITS, recv_ns)
        w[0] = copy
    top.recv_ns = recv_ns
    top.is_there = True

    bid = x[BID] != f[BID].bits
    ask = x[ASK] != f[ASK].bits
    if bid and ask and find_place(prices, x[BID], &bid_n) and find_place(prices, x[ASK], &ask_n):
        step = bid_n - f[BID].n
        if step and step == ask_n - f[ASK].n and eg_fits(zigzag(step), s.k[K_PRICE]):
            ask = WITH_BID
    bid_size = SAME if x[BID_SIZE] == f[BID_SIZE].bits else (
        NEW if bid or x[BID_SIZE] != f[BID_SIZE + BEFORE].bits else BACK)
    ask_size = SAME if x[ASK_SIZE] == f[ASK_SIZE].bits else (
        NEW if ask or x[ASK_SIZE] != f[ASK_SIZE + BEFORE].bits else BACK)
    number = shape_number(bid, ask, bid_size, ask_size)
    if SHAPES[number].bits:
        put_bits(w, SHAPES[number].code, SHAPES[number].bits)
    else:
        put_bits(w, 0b01111 | number << SHAPE_BITS, SHAPE_BITS + 7)

    if bid:
        put_number(w, s, pen, f + BID, x[BID], prices, K_PRICE, False)
    if ask == WITH_BID:
        f[ASK].bits = x[ASK]
        f[ASK].n = ask_n
    elif ask:
        put_number(w, s, pen, f + ASK, x[ASK], prices, K_PRICE, False)
    for i in range(BID_SIZE, ASK_SIZE + 1):
        number = bid_size if i == BID_SIZE else ask_size
        if number == SAME:
            continue
        was = f[i]
        if number == BACK:
            f[i] = f[i + BEFORE]
        else:
            is_fresh = (bid if i == BID_SIZE else ask) != SAME
            put_number(w, s, pen, f + i, x[i], &s.grids[SIZE_GRID], K_SIZE_FRESH if is_fresh else K_SIZE_STEP, is_fresh)
        f[i + BEFORE] = was
    return CODEC_OK


cdef inline int get_shape(reader_t *r, state_t *s, int64_t recv_ns) noexcept nogil:
    """Read the shape of a quote, and what stands before it."""
    cdef int code, number
    cdef reader_t copy
    while True:
        code = <int> peek(r) & 31
        number = SHAPE_OF_CODE[code].code
        r.at += SHAPE_OF_CODE[code].bits
        if number < SHAPE_ANY:
            return number
        if number == SHAPE_ANY:
            number = <int> get_bits(r, 7)
            if number >> 1 & 3 == 3 or number >> 3 & 3 == 3 or number >> 5 == 3:
                r.failed = True
            return number
        copy = r[0]
        get_extension(&copy, s, QUOTES, recv_ns)
        r[0] = copy
        if read_too_far(r):
            return 0


cdef inline int get_quote(reader_t *r, state_t *s, int64_t recv_ns, quote_t *row) noexcept nogil:
    cdef top_t *top = &s.tops[QUOTES]
    cdef number_t *f = top.numbers
    cdef number_t was
    cdef int number = get_shape(r, s, recv_ns)
    cdef int bid = number & 1, ask = number >> 1 & 3, i, how
    cdef int64_t bid_n = f[BID].n
    cdef bint is_fresh
    if bid:
        get_number(r, s, f + BID, &s.grids[PRICE_GRID], K_PRICE, False)
    if ask == WITH_BID:
        set_place(r, f + ASK, &s.grids[PRICE_GRID], f[ASK].n + f[BID].n - bid_n)
    elif ask:
        get_number(r, s, f + ASK, &s.grids[PRICE_GRID], K_PRICE, False)
    for i in range(BID_SIZE, ASK_SIZE + 1):
        how = number >> 3 & 3 if i == BID_SIZE else number >> 5
        if how == SAME:
            continue
        was = f[i]
        if how == BACK:
            f[i] = f[i + BEFORE]
        else:
            is_fresh = (bid if i == BID_SIZE else ask) != SAME
            get_number(r, s, f + i, &s.grids[SIZE_GRID], K_SIZE_FRESH if is_fresh else K_SIZE_STEP, is_fresh)
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


cdef inline int put_trade(writer_t *w, state_t *s, pen_t *pen, const trade_t *row, int64_t recv_ns) noexcept nogil:
    cdef top_t *top = &s.tops[TRADES]
    cdef number_t *f = top.numbers
    cdef top_t new
    cdef writer_t copy
    cdef uint64_t price = bits_of(row.price), size = bits_of(row.size)
    cdef uint32_t absent = pen.absent[TRADES]
    cdef int status
    new.kind = row.kind
    new.attribs = 0 if absent & 1 else row.attribs
    new.event_ns = 0 if absent & 2 else row.event_ns
    price = NAN_BITS if absent & 4 else price
    size = NAN_BITS if absent & 8 else size
    new.exchange = 0 if absent & 16 else row.exchange
    new.conditions = 0 if absent & 32 else row.conditions
    if ((new.kind ^ top.kind) | (new.attribs ^ top.attribs) | (new.exchange ^ top.exchange)
            | (new.conditions ^ top.conditions) or new.event_ns != top.event_ns or pen.wish >= 0):
        copy = w[0]
        status = put_extensions(&copy, s, pen, top, &new, 1, 1, recv_ns)
        w[0] = copy
        if status < 0:
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
        put_number(w, s, pen, f + PRICE, price, &s.grids[PRICE_GRID], K_TRADE_PRICE, False)
    if size == f[SIZE].bits:
        put_bits(w, 0, 1)
    else:
        put_bits(w, 1, 1)
        put_number(w, s, pen, f + SIZE, size, &s.grids[TRADE_SIZE_GRID], K_TRADE_SIZE, True)
    if s.has_quotes:
        note_side(s)
    return CODEC_OK


cdef inline int get_trade(reader_t *r, state_t *s, int64_t recv_ns, trade_t *row) noexcept nogil:
    cdef top_t *top = &s.tops[TRADES]
    cdef number_t *f = top.numbers
    cdef reader_t copy
    while get_bits(r, 1):
        copy = r[0]
        get_extension(&copy, s, TRADES, recv_ns)
        r[0] = copy
        if read_too_far(r):
            return CODEC_BAD
    if get_bits(r, 1):
        if s.has_quotes and not get_bits(r, 1):
            f[PRICE] = quote_at(s, True)[0]
        elif s.has_quotes and not get_bits(r, 1):
            f[PRICE] = quote_at(s, False)[0]
        else:
            get_number(r, s, f + PRICE, &s.grids[PRICE_GRID], K_TRADE_PRICE, False)
    if get_bits(r, 1):
        get_number(r, s, f + SIZE, &s.grids[TRADE_SIZE_GRID], K_TRADE_SIZE, True)
    if s.has_quotes:
        note_side(s)
    top.recv_ns = recv_ns
    top.is_there = True
    top_row(s, TRADES, <char *> row)
    return CODEC_OK


# ---- any row

cdef inline int put_row(writer_t *w, state_t *s, pen_t *pen, int family, const char *row,
                        int64_t recv_ns) noexcept nogil:
    """Write a row of one of the channel's families; recv_ns: its time, rounded to the channel's unit."""
    cdef writer_t copy
    cdef int status
    if family == QUOTES:
        return put_quote(w, s, pen, <const quote_t *> row, recv_ns)
    if family == TRADES:
        return put_trade(w, s, pen, <const trade_t *> row, recv_ns)
    copy = w[0]
    status = put_line(&copy, s, pen, family, row, recv_ns)
    w[0] = copy
    return status


cdef inline int get_row(reader_t *r, state_t *s, int family, int64_t recv_ns, char *row) noexcept nogil:
    """Read a row of one of the channel's families; sequence number and instrument are left to the caller."""
    cdef int status
    cdef reader_t copy
    if family == QUOTES:
        status = get_quote(r, s, recv_ns, <quote_t *> row)
    elif family == TRADES:
        status = get_trade(r, s, recv_ns, <trade_t *> row)
    else:
        copy = r[0]
        status = get_line(&copy, s, family, recv_ns, row)
        r[0] = copy
    return CODEC_BAD if read_too_far(r) else status
