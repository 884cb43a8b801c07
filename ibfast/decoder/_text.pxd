# The text form of the tick-path messages, one function each: fields in the order of the wire.
#
# The rule of the file: read all fields, then look at the status once, then write. Most messages begin with a version
# field that means nothing any more. Empty numbers are absent; so are empty integers, with the value given here.
#
# No I/O, no clock, no asyncio.

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from ibfast.feed._feed cimport feed_t, intern, write_depth
from ibfast.decoder._messages cimport (
    ABSENT_COUNT, ATTRIB_SMART_DEPTH, IN_HISTORICAL_DATA_UPDATE, IN_MARKET_DEPTH, IN_MARKET_DEPTH_L2, IN_REAL_TIME_BARS,
    IN_TICK_BY_TICK, IN_TICK_GENERIC, IN_TICK_OPTION_COMPUTATION, IN_TICK_PRICE, IN_TICK_SIZE, IN_TICK_STRING,
    TBT_ALL_LAST, TBT_BID_ASK, TBT_LAST, TBT_MIDPOINT, write_bar_message, write_generic_message, write_last_message,
    write_option_message, write_price_message, write_quote_message, write_size_message, write_string_message,
)
from ibfast.feed._records cimport (
    KIND_DEPTH, KIND_DEPTH_L2, KIND_OPTION, KIND_REALTIME_BAR, KIND_UPDATE_BAR, bar_t, depth_t, greeks_t,
)
from ibfast.decoder._cursor cimport (
    ABSENT_BYTE, STATUS_ASIDE, STATUS_OK, as_byte, bar_time, cursor_t, seconds_as_ns, span_t, text_begin,
    text_end, text_int32,
    text_integer, text_number, text_size, text_skip, text_span,
)


cdef inline int decode_text(feed_t *f, int32_t msg_id, cursor_t *c) noexcept nogil:
    text_begin(c)
    if msg_id == IN_TICK_PRICE:
        return text_tick_price(f, c)
    if msg_id == IN_TICK_SIZE:
        return text_tick_size(f, c)
    if msg_id == IN_TICK_BY_TICK:
        return text_tick_by_tick(f, c)
    if msg_id == IN_TICK_STRING:
        return text_tick_string(f, c)
    if msg_id == IN_TICK_GENERIC:
        return text_tick_generic(f, c)
    if msg_id == IN_MARKET_DEPTH or msg_id == IN_MARKET_DEPTH_L2:
        return text_depth(f, c, msg_id == IN_MARKET_DEPTH_L2)
    if msg_id == IN_TICK_OPTION_COMPUTATION:
        return text_option(f, c)
    if msg_id == IN_REAL_TIME_BARS:
        return text_real_time_bar(f, c)
    if msg_id == IN_HISTORICAL_DATA_UPDATE:
        return text_bar_update(f, c)
    return STATUS_ASIDE


cdef inline int text_tick_price(feed_t *f, cursor_t *c) noexcept nogil:
    text_skip(c)
    cdef int32_t req_id = text_int32(c, -1)
    cdef int32_t tick_type = text_int32(c, -1)
    cdef double price = text_number(c)
    cdef double size = text_size(c)
    cdef int32_t attribs = text_int32(c, 0)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    return write_price_message(f, req_id, tick_type, price, size, attribs, c.context.recv_ns)


cdef inline int text_tick_size(feed_t *f, cursor_t *c) noexcept nogil:
    text_skip(c)
    cdef int32_t req_id = text_int32(c, -1)
    cdef int32_t tick_type = text_int32(c, -1)
    cdef double size = text_size(c)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    return write_size_message(f, req_id, tick_type, size, c.context.recv_ns)


cdef inline int text_tick_generic(feed_t *f, cursor_t *c) noexcept nogil:
    text_skip(c)
    cdef int32_t req_id = text_int32(c, -1)
    cdef int32_t tick_type = text_int32(c, -1)
    cdef double value = text_number(c)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    return write_generic_message(f, req_id, tick_type, value, c.context.recv_ns)


cdef inline int text_tick_string(feed_t *f, cursor_t *c) noexcept nogil:
    text_skip(c)
    cdef int32_t req_id = text_int32(c, -1)
    cdef int32_t tick_type = text_int32(c, -1)
    cdef span_t text = text_span(c)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    return write_string_message(f, c, req_id, tick_type, text, True, c.context.recv_ns)


cdef inline int text_depth(feed_t *f, cursor_t *c, bint level2) noexcept nogil:
    cdef depth_t row
    cdef span_t market_maker
    memset(&row, 0, sizeof(row))
    market_maker.n = 0
    text_skip(c)
    row.kind = KIND_DEPTH_L2 if level2 else KIND_DEPTH
    row.req_id = text_int32(c, -1)
    row.position = text_int32(c, -1)
    if level2:
        market_maker = text_span(c)
    row.operation = text_byte(c)
    row.side = text_byte(c)
    row.price = text_number(c)
    row.size = text_size(c)
    if level2:
        row.attribs = ATTRIB_SMART_DEPTH if text_integer(c, 0) != 0 else 0
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    row.market_maker = intern(f, market_maker.p, market_maker.n)
    write_depth(f, &row, c.context.recv_ns)
    return STATUS_OK


cdef inline uint8_t text_byte(cursor_t *c) noexcept nogil:
    return as_byte(c, text_integer(c, ABSENT_BYTE))


cdef inline int text_option(feed_t *f, cursor_t *c) noexcept nogil:
    cdef greeks_t row
    memset(&row, 0, sizeof(row))
    row.kind = KIND_OPTION
    row.req_id = text_int32(c, -1)
    row.tick_type = text_int32(c, -1)
    row.attribs = text_int32(c, 0)
    row.implied_vol = text_number(c)
    row.delta = text_number(c)
    row.option_price = text_number(c)
    row.pv_dividend = text_number(c)
    row.gamma = text_number(c)
    row.vega = text_number(c)
    row.theta = text_number(c)
    row.und_price = text_number(c)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    return write_option_message(f, &row, c.context.recv_ns)


cdef inline int text_real_time_bar(feed_t *f, cursor_t *c) noexcept nogil:
    cdef bar_t row
    memset(&row, 0, sizeof(row))
    text_skip(c)
    row.kind = KIND_REALTIME_BAR
    row.req_id = text_int32(c, -1)
    row.event_ns = seconds_as_ns(c, text_integer(c, 0))
    row.open = text_number(c)
    row.high = text_number(c)
    row.low = text_number(c)
    row.close = text_number(c)
    row.volume = text_size(c)
    row.wap = text_size(c)
    row.count = text_int32(c, ABSENT_COUNT)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    return write_bar_message(f, &row, c.context.recv_ns)


cdef inline int text_bar_update(feed_t *f, cursor_t *c) noexcept nogil:
    cdef bar_t row
    cdef span_t date
    memset(&row, 0, sizeof(row))
    row.kind = KIND_UPDATE_BAR
    row.req_id = text_int32(c, -1)
    row.count = text_int32(c, ABSENT_COUNT)
    date = text_span(c)
    row.open = text_number(c)
    row.close = text_number(c)
    row.high = text_number(c)
    row.low = text_number(c)
    row.wap = text_size(c)
    row.volume = text_size(c)
    text_end(c)
    row.event_ns = bar_time(c, date)
    if c.status != STATUS_OK:
        return c.status
    return write_bar_message(f, &row, c.context.recv_ns)


cdef inline int text_tick_by_tick(feed_t *f, cursor_t *c) noexcept nogil:
    cdef int32_t req_id = text_int32(c, -1)
    cdef int32_t kind = text_int32(c, 0)
    cdef int64_t event_ns = seconds_as_ns(c, text_integer(c, 0))
    cdef double price = NAN, ask = NAN, size = NAN, ask_size = NAN
    cdef int32_t attribs = 0
    cdef span_t exchange, conditions
    if c.status == STATUS_OK and not TBT_LAST <= kind <= TBT_MIDPOINT:
        return STATUS_ASIDE
    price = text_number(c)
    if kind <= TBT_ALL_LAST:
        size = text_size(c)
        attribs = text_int32(c, 0)
        exchange = text_span(c)
        conditions = text_span(c)
    elif kind == TBT_BID_ASK:
        ask = text_number(c)
        size = text_size(c)
        ask_size = text_size(c)
        attribs = text_int32(c, 0)
    text_end(c)
    if c.status != STATUS_OK:
        return c.status
    if kind <= TBT_ALL_LAST:
        return write_last_message(f, req_id, kind, event_ns, price, size, attribs, exchange, conditions,
                                  c.context.recv_ns)
    return write_quote_message(f, req_id, kind, event_ns, price, ask, size, ask_size, attribs, c.context.recv_ns)
