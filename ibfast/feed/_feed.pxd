# The feed's compiled state, and what a decoded message does to it: rows, the merged quote, the last-value table.
#
# The rule of the file: `write_*` functions take values, never bytes. They claim rows, fill every field of them (a row's
# memory holds an old row) and publish nothing; the decoder publishes once per socket read. One thread at a time.

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ibfast.feed._atomic cimport fence_release, store_relaxed, store_release
from ibfast.feed._records cimport (
    ATTRIB_DELAYED, KIND_L1_LAST, KIND_L1_QUOTE, KIND_MIDPOINT, KIND_RT_VOLUME,
    NO_INSTRUMENT, bar_t, depth_t, greeks_t, instrument_t, last_t, quote_t, tick_t, trade_t,
)
from ibfast.feed._ring cimport Ring, ring_claim, ring_t


cdef enum:
    # IB's tick types that mean something here (ibfast.wire.ids.TickType has them all).
    TICK_BID_SIZE = 0
    TICK_BID = 1
    TICK_ASK = 2
    TICK_ASK_SIZE = 3
    TICK_LAST = 4
    TICK_LAST_SIZE = 5
    TICK_HIGH = 6
    TICK_LOW = 7
    TICK_VOLUME = 8
    TICK_CLOSE = 9
    TICK_MODEL_OPTION = 13
    TICK_OPEN = 14
    TICK_MARK_PRICE = 37
    TICK_LAST_TIMESTAMP = 45
    TICK_RT_VOLUME = 48
    TICK_HALTED = 49
    TICK_DELAYED_BID = 66
    TICK_DELAYED_ASK = 67
    TICK_DELAYED_LAST = 68
    TICK_DELAYED_BID_SIZE = 69
    TICK_DELAYED_ASK_SIZE = 70
    TICK_DELAYED_LAST_SIZE = 71
    TICK_DELAYED_HIGH = 72
    TICK_DELAYED_LOW = 73
    TICK_DELAYED_VOLUME = 74
    TICK_DELAYED_CLOSE = 75
    TICK_DELAYED_OPEN = 76
    TICK_RT_TRD_VOLUME = 77
    TICK_DELAYED_MODEL_OPTION = 83
    TICK_DELAYED_LAST_TIMESTAMP = 88
    TICK_DELAYED_HALTED = 90

cdef enum:
    SIDE_BID = 0
    SIDE_ASK = 1

    TEXT_EMPTY = 0
    TEXT_OTHER = 1

cdef enum:
    # What a request's contract is, as far as it decides whether a price is data.
    CONTRACT_OTHER = 0
    CONTRACT_INDEX = 1          # its prices have no sizes
    CONTRACT_COMBO = 2          # its session's prices may be 0 or -1

# The part of the tables that readers in other processes see. The writer counts in a copy of its own, and never reads
# this one: another process may have damaged it.
cdef struct tables_control_t:
    uint64_t instruments
    uint64_t texts
    uint64_t text_bytes
    uint64_t texts_refused
    uint64_t instruments_refused
    uint64_t reserved[3]

# What level 1 said last on one request: the merged quote, and what tells a new trade from an echo. Not shared. Every
# request has a state of its own, because two of them on one instrument bring every tick twice.
cdef struct level1_t:
    double price[2]             # by side
    double size[2]
    double last                 # NaN: the next size of a last price is no trade
    double echo_size            # NaN: no echo is due
    uint32_t delayed
    uint32_t contract

# A request's binding and its activity so far. Open addressing, a power of two of slots; one of instrument NO_INSTRUMENT
# is free. What every message touches stands first.
cdef struct request_slot_t:
    int32_t req_id
    uint32_t instrument
    uint64_t messages
    int64_t last_recv_ns
    uint64_t last_seq
    level1_t level1
    int64_t first_recv_ns
    uint64_t first_seq          # 0: the next record is the first
    # The gap of which a row comes before the next record; a gap_first_seq of 0 means that there is none.
    uint64_t gap_first_seq
    int64_t gap_first_ns
    uint8_t gap_scope
    uint8_t gap_cause
    bint gap_ends               # the row closes the gap; else it is the open row

# What `activity` tells of a request.
cdef struct activity_t:
    int32_t req_id
    uint64_t messages
    int64_t first_recv_ns
    int64_t last_recv_ns
    uint64_t first_seq
    uint64_t last_seq

cdef struct feed_t:
    uint64_t seq
    ring_t *ticks
    ring_t *trades
    ring_t *quotes
    ring_t *depth
    ring_t *bars
    ring_t *greeks
    ring_t *gaps
    tables_control_t *control
    tables_control_t counts     # the writer's own; `control` shows them
    last_t *last
    instrument_t *instruments
    uint32_t max_instruments
    request_slot_t *requests
    uint32_t requests_mask
    uint32_t requests_used
    request_slot_t nobody       # stands for every request that is bound to nothing
    int32_t last_req_id         # the newest that `next_req_id` gave
    uint64_t late               # messages of requests that were forgotten
    # interned texts: text i is arena[offsets[i]:offsets[i + 1]]; the writer's own offsets, and those that readers see
    uint32_t *text_offsets
    uint32_t *shown_text_offsets
    char *text_arena
    uint64_t text_arena_bytes
    uint32_t max_texts
    uint32_t *text_slots
    uint32_t text_slots_mask
    # what messages do not touch
    # Rows that were freed, a queue: the one that has been free for longest is used again first.
    uint32_t *free_rows
    uint32_t first_free
    uint32_t free_count
    uint32_t unsolicited        # the one instrument of all requests that nobody bound; NO_INSTRUMENT before the first
    uint32_t unsolicited_requests
    last_t no_values            # what a row of `last` is before its first value

# What every row says in its header, and the request's slot (`nobody` if it is bound to nothing).
cdef struct source_t:
    int64_t recv_ns
    int32_t req_id
    uint32_t instrument
    request_slot_t *request


cdef request_slot_t *bind_new_request(feed_t *f, int32_t req_id) noexcept nogil
cdef void write_gap(feed_t *f, request_slot_t *request, int64_t recv_ns) noexcept nogil
cdef uint32_t intern_new(feed_t *f, const unsigned char *p, Py_ssize_t n, uint64_t hash_) noexcept nogil


cdef class FeedCore:
    cdef feed_t c
    cdef object memory
    cdef bint refusal_told      # that the instrument table is full
    cdef readonly Ring ticks_ring, trades_ring, quotes_ring, depth_ring, bars_ring, greeks_ring, gaps_ring

    cdef int publish(self) except -1
    cdef int require_instrument(self, uint32_t instrument) except -1


cdef inline uint32_t request_hash(int32_t req_id) noexcept nogil:
    return (<uint32_t> req_id * <uint32_t> 2654435769) >> 7


cdef inline request_slot_t *request_of(feed_t *f, int32_t req_id) noexcept nogil:
    """A request's slot; one of the unsolicited instrument if nobody bound it, `nobody` if there is no room for it."""
    cdef uint32_t i = request_hash(req_id) & f.requests_mask
    while f.requests[i].instrument != NO_INSTRUMENT:
        if f.requests[i].req_id == req_id:
            return f.requests + i
        i = (i + 1) & f.requests_mask
    return bind_new_request(f, req_id)


cdef inline source_t source(feed_t *f, int32_t req_id, int64_t recv_ns) noexcept nogil:
    """Where a message comes from. It counts the message, so it is called once for each, and a row must follow."""
    cdef source_t s
    cdef request_slot_t *request = request_of(f, req_id)
    s.recv_ns = recv_ns
    s.req_id = req_id
    s.instrument = request.instrument
    s.request = request
    if request.first_seq == 0:
        if request.gap_first_seq:
            write_gap(f, request, recv_ns)
        request.first_recv_ns = recv_ns
        request.first_seq = f.seq + 1
    request.messages += 1
    request.last_recv_ns = recv_ns
    return s


cdef inline uint64_t next_seq(feed_t *f, source_t *s) noexcept nogil:
    """The sequence number of the row that is being written."""
    f.seq += 1
    s.request.last_seq = f.seq
    return f.seq


cdef inline bint text_is(feed_t *f, uint32_t i, const unsigned char *p, Py_ssize_t n) noexcept nogil:
    cdef uint32_t start = f.text_offsets[i]
    cdef Py_ssize_t k
    if f.text_offsets[i + 1] - start != <uint64_t> n:
        return False
    for k in range(n):
        if <unsigned char> f.text_arena[start + k] != p[k]:
            return False
    return True


cdef inline uint32_t intern(feed_t *f, const unsigned char *p, Py_ssize_t n) noexcept nogil:
    """The id of a text; texts past the table's bound share TEXT_OTHER, and are counted."""
    cdef uint64_t hash_ = 14695981039346656037u
    cdef uint32_t i
    cdef Py_ssize_t k
    if n == 0:
        return TEXT_EMPTY
    for k in range(n):
        hash_ = (hash_ ^ p[k]) * <uint64_t> 1099511628211
    i = <uint32_t> (hash_ >> 20) & f.text_slots_mask
    while f.text_slots[i]:
        if text_is(f, f.text_slots[i], p, n):
            return f.text_slots[i]
        i = (i + 1) & f.text_slots_mask
    return intern_new(f, p, n, hash_)


cdef inline last_t *last_open(feed_t *f, uint32_t instrument) noexcept nogil:
    """Enter a row of the last-value table for writing; every `last_open` is followed by one `last_close`."""
    cdef last_t *row = f.last + instrument
    store_relaxed(&row.version, row.version + 1)
    fence_release()
    return row


cdef inline void last_close(last_t *row) noexcept nogil:
    store_release(&row.version, row.version + 1)


cdef inline uint64_t bits(double value) noexcept nogil:
    cdef uint64_t as_integer
    memcpy(&as_integer, &value, 8)
    return as_integer


cdef inline double known(double value) noexcept nogil:
    """A size, or NaN where IB sends -1 because there is none."""
    return NAN if value == -1 else value


cdef inline bint is_no_data(uint32_t contract, double price, double size) noexcept nogil:
    """Whether a price is IB's "no data": -1 or 0 with a size of 0, or -1 with a size of -1 or none.

    True prices of 0 and -1 have a size above 0; those of an index need none. An absent price is no data unless a size
    above 0 comes with it.
    """
    if price > 0:
        return False
    if price != price:
        return not size > 0
    if contract == CONTRACT_INDEX:
        return False
    if size == 0:
        return price == -1 or price == 0
    return price == -1 and (size == -1 or size != size)


cdef inline void write_tick(feed_t *f, source_t *s, uint8_t kind, int32_t tick_type, uint32_t attribs, double price,
                            double size, uint32_t text) noexcept nogil:
    cdef tick_t *row = <tick_t *> ring_claim(f.ticks)
    row.seq = next_seq(f, s)
    row.recv_ns = s.recv_ns
    row.instrument = s.instrument
    row.req_id = s.req_id
    row.kind = kind
    row.tick_type = tick_type
    row.attribs = attribs
    row.text = text
    row.price = price
    row.size = size


cdef inline void write_trade(feed_t *f, source_t *s, uint8_t kind, int64_t event_ns, double price, double size,
                             uint32_t attribs, uint32_t exchange, uint32_t conditions) noexcept nogil:
    """A row in `trades` and the newest trade in the last-value table."""
    cdef trade_t *row = <trade_t *> ring_claim(f.trades)
    cdef last_t *last
    size = known(size)
    row.seq = next_seq(f, s)
    row.recv_ns = s.recv_ns
    row.instrument = s.instrument
    row.req_id = s.req_id
    row.kind = kind
    row.attribs = attribs
    row.event_ns = event_ns
    row.price = price
    row.size = size
    row.exchange = exchange
    row.conditions = conditions
    if s.instrument != NO_INSTRUMENT:
        last = last_open(f, s.instrument)
        if price == price:
            last.last = price
        last.last_size = size
        last.last_event_ns = event_ns
        last.last_recv_ns = s.recv_ns
        last_close(last)


cdef inline void write_quote(feed_t *f, source_t *s, uint8_t kind, int64_t event_ns, double bid, double ask,
                             double bid_size, double ask_size, uint32_t attribs) noexcept nogil:
    """A row in `quotes` and, but for a midpoint, the newest quote in the last-value table."""
    cdef quote_t *row = <quote_t *> ring_claim(f.quotes)
    cdef last_t *last
    row.seq = next_seq(f, s)
    row.recv_ns = s.recv_ns
    row.instrument = s.instrument
    row.req_id = s.req_id
    row.kind = kind
    row.attribs = attribs
    row.event_ns = event_ns
    row.bid = bid
    row.ask = ask
    row.bid_size = bid_size
    row.ask_size = ask_size
    if kind != KIND_MIDPOINT and s.instrument != NO_INSTRUMENT:
        last = last_open(f, s.instrument)
        last.bid = bid
        last.ask = ask
        last.bid_size = bid_size
        last.ask_size = ask_size
        last.quote_recv_ns = s.recv_ns
        last_close(last)


cdef inline void merge_quote(feed_t *f, source_t *s, level1_t *l1, int side, double price, double size,
                             uint32_t delayed) noexcept nogil:
    """Put one side's news into the merged quote; a row only if it changed."""
    # By their bits, so that NaN equals NaN, and in one branch, since each alone is hard to predict.
    if not ((bits(l1.price[side]) ^ bits(price)) | (bits(l1.size[side]) ^ bits(size)) | (l1.delayed ^ delayed)):
        return
    l1.price[side] = price
    l1.size[side] = size
    l1.delayed = delayed
    write_quote(f, s, KIND_L1_QUOTE, 0, l1.price[SIDE_BID], l1.price[SIDE_ASK], l1.size[SIDE_BID], l1.size[SIDE_ASK],
                delayed)


cdef inline void write_level1_price(feed_t *f, source_t *s, int32_t tick_type, double price,
                                    double size) noexcept nogil:
    """What a price tick means beyond its row in `ticks`: the merged quote, a trade, a value of the session."""
    cdef level1_t *l1 = &s.request.level1
    cdef last_t *last
    cdef uint32_t delayed = ATTRIB_DELAYED if tick_type >= TICK_DELAYED_BID else 0
    if s.instrument == NO_INSTRUMENT:
        return
    cdef int side = tick_type == TICK_ASK or tick_type == TICK_DELAYED_ASK
    # The two sides share one path: which of them comes next is nothing that a processor can predict.
    if side == SIDE_ASK or tick_type == TICK_BID or tick_type == TICK_DELAYED_BID:
        if is_no_data(l1.contract, price, size):
            price = NAN
        elif size != size:
            size = l1.size[side]
        merge_quote(f, s, l1, side, price, known(size), delayed)
    elif tick_type == TICK_LAST or tick_type == TICK_DELAYED_LAST:
        l1.echo_size = size
        if is_no_data(l1.contract, price, size):
            l1.last = NAN
        else:
            l1.last = price
            write_trade(f, s, KIND_L1_LAST, 0, price, size, delayed, TEXT_EMPTY, TEXT_EMPTY)
    elif tick_type == TICK_MARK_PRICE:
        last = last_open(f, s.instrument)
        last.mark = session_price(l1.contract, price)
        last.mark_recv_ns = s.recv_ns
        last_close(last)
    else:
        write_session_price(f, s, tick_type, price)


cdef inline double session_price(uint32_t contract, double price) noexcept nogil:
    """A price of the session or a mark price: its size is always 0, so that -1 and 0 alone mean "no data"."""
    return NAN if (price == -1 or price == 0) and contract != CONTRACT_COMBO else price


cdef inline void write_session_price(feed_t *f, source_t *s, int32_t tick_type, double price) noexcept nogil:
    cdef last_t *last = f.last + s.instrument
    cdef double *field
    if tick_type == TICK_OPEN or tick_type == TICK_DELAYED_OPEN:
        field = &last.open
    elif tick_type == TICK_HIGH or tick_type == TICK_DELAYED_HIGH:
        field = &last.high
    elif tick_type == TICK_LOW or tick_type == TICK_DELAYED_LOW:
        field = &last.low
    elif tick_type == TICK_CLOSE or tick_type == TICK_DELAYED_CLOSE:
        field = &last.close
    else:
        return
    last_open(f, s.instrument)
    field[0] = session_price(s.request.level1.contract, price)
    last.session_recv_ns = s.recv_ns
    last_close(last)


cdef inline void write_level1_size(feed_t *f, source_t *s, int32_t tick_type, double size) noexcept nogil:
    """What a size tick means beyond its row in `ticks`."""
    cdef level1_t *l1 = &s.request.level1
    cdef last_t *last
    cdef uint32_t delayed = ATTRIB_DELAYED if tick_type >= TICK_DELAYED_BID else 0
    if s.instrument == NO_INSTRUMENT:
        return
    cdef int side = tick_type == TICK_ASK_SIZE or tick_type == TICK_DELAYED_ASK_SIZE
    if side == SIDE_ASK or tick_type == TICK_BID_SIZE or tick_type == TICK_DELAYED_BID_SIZE:
        if size != size:
            size = l1.size[side]
        merge_quote(f, s, l1, side, l1.price[side], known(size), delayed)
    elif tick_type == TICK_LAST_SIZE or tick_type == TICK_DELAYED_LAST_SIZE:
        # TWS repeats the size of a last price as a tick of its own; any other last size above 0 is one more trade at
        # it. Before the first price, and after IB's "no data", there is no price for a trade to be at.
        if l1.last == l1.last and size > 0 and l1.echo_size != size:
            write_trade(f, s, KIND_L1_LAST, 0, l1.last, size, delayed, TEXT_EMPTY, TEXT_EMPTY)
        l1.echo_size = NAN
    elif tick_type == TICK_VOLUME or tick_type == TICK_DELAYED_VOLUME:
        last = last_open(f, s.instrument)
        last.volume = known(size)
        last.volume_recv_ns = s.recv_ns
        last_close(last)


cdef inline void write_halted(feed_t *f, source_t *s, double value) noexcept nogil:
    cdef last_t *last
    if s.instrument == NO_INSTRUMENT:
        return
    last = last_open(f, s.instrument)
    last.halted = value
    last.halted_recv_ns = s.recv_ns
    last_close(last)


cdef inline void write_rt_volume(feed_t *f, source_t *s, int64_t event_ns, double price, double size,
                                 double volume, double vwap, bint single) noexcept nogil:
    """A time-and-sales line of level 1: its trade, if there is one, and the session's volume and VWAP."""
    cdef last_t *last
    if not is_no_data(s.request.level1.contract, price, size):
        write_trade(f, s, KIND_RT_VOLUME, event_ns, price, size, single, TEXT_EMPTY, TEXT_EMPTY)
    if s.instrument == NO_INSTRUMENT:
        return
    last = last_open(f, s.instrument)
    last.volume = known(volume)
    last.vwap = vwap
    last.volume_recv_ns = s.recv_ns
    last_close(last)


cdef inline void write_greeks(feed_t *f, greeks_t *values, int64_t recv_ns) noexcept nogil:
    """Complete and append a row of `greeks`; the model's values go to the last-value table too."""
    cdef source_t s = source(f, values.req_id, recv_ns)
    cdef greeks_t *row = <greeks_t *> ring_claim(f.greeks)
    cdef last_t *last
    values.seq = next_seq(f, &s)
    values.recv_ns = recv_ns
    values.instrument = s.instrument
    row[0] = values[0]
    if s.instrument == NO_INSTRUMENT:
        return
    if values.tick_type == TICK_MODEL_OPTION or values.tick_type == TICK_DELAYED_MODEL_OPTION:
        last = last_open(f, s.instrument)
        last.implied_vol = values.implied_vol
        last.delta = values.delta
        last.gamma = values.gamma
        last.vega = values.vega
        last.theta = values.theta
        last.option_price = values.option_price
        last.pv_dividend = values.pv_dividend
        last.und_price = values.und_price
        last.greeks_recv_ns = recv_ns
        last_close(last)


cdef inline void write_depth(feed_t *f, depth_t *values, int64_t recv_ns) noexcept nogil:
    """Complete and append a row of `depth`."""
    cdef source_t s = source(f, values.req_id, recv_ns)
    cdef depth_t *row = <depth_t *> ring_claim(f.depth)
    values.seq = next_seq(f, &s)
    values.recv_ns = recv_ns
    values.instrument = s.instrument
    row[0] = values[0]


cdef inline void write_bar(feed_t *f, bar_t *values, int64_t recv_ns) noexcept nogil:
    """Complete and append a row of `bars`."""
    cdef source_t s = source(f, values.req_id, recv_ns)
    cdef bar_t *row = <bar_t *> ring_claim(f.bars)
    values.seq = next_seq(f, &s)
    values.recv_ns = recv_ns
    values.instrument = s.instrument
    row[0] = values[0]
