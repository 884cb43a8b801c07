# The protobuf form of the tick-path messages, one function each: field numbers of IB's .proto files.
#
# The rule of the file: presence is explicit. What is absent keeps the value that it had before the loop; fields with
# other numbers are skipped; a field of another wire type than its number says condemns the message. A loop compares
# whole tags (number and wire type at once), which the compiler makes one jump of.
#
# No I/O, no clock, no asyncio.

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint32_t
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
    ABSENT_BYTE, BYTES_1, BYTES_2, BYTES_3, BYTES_4, BYTES_5, BYTES_6, BYTES_7, BYTES_8, FIXED64_10, FIXED64_11,
    FIXED64_2, FIXED64_3, FIXED64_4, FIXED64_5, FIXED64_6, FIXED64_7, FIXED64_8, FIXED64_9, STATUS_ASIDE, STATUS_OK,
    VARINT_1, VARINT_2, VARINT_3, VARINT_5, VARINT_7, VARINT_8, VARINT_9, as_byte, bar_time, cursor_t, proto_double,
    proto_int32, proto_integer, proto_leave, proto_message, proto_other, proto_size, proto_span, proto_tag,
    seconds_as_ns, span_t,
)


cdef inline int decode_proto(feed_t *f, int32_t msg_id, cursor_t *c) noexcept nogil:
    if msg_id == IN_TICK_PRICE:
        return proto_tick_price(f, c)
    if msg_id == IN_TICK_SIZE:
        return proto_tick_size(f, c)
    if msg_id == IN_TICK_BY_TICK:
        return proto_tick_by_tick(f, c)
    if msg_id == IN_TICK_STRING:
        return proto_tick_string(f, c)
    if msg_id == IN_TICK_GENERIC:
        return proto_tick_generic(f, c)
    if msg_id == IN_MARKET_DEPTH or msg_id == IN_MARKET_DEPTH_L2:
        return proto_depth(f, c, msg_id == IN_MARKET_DEPTH_L2)
    if msg_id == IN_TICK_OPTION_COMPUTATION:
        return proto_option(f, c)
    if msg_id == IN_REAL_TIME_BARS:
        return proto_real_time_bar(f, c)
    if msg_id == IN_HISTORICAL_DATA_UPDATE:
        return proto_bar_update(f, c)
    return STATUS_ASIDE


cdef inline int proto_tick_price(feed_t *f, cursor_t *c) noexcept nogil:
    cdef int32_t req_id = -1, tick_type = -1, attribs = 0
    cdef double price = NAN, size = NAN
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            req_id = proto_int32(c)
        elif tag == VARINT_2:
            tick_type = proto_int32(c)
        elif tag == FIXED64_3:
            price = proto_double(c)
        elif tag == BYTES_4:
            size = proto_size(c)
        elif tag == VARINT_5:
            attribs = proto_int32(c)
        else:
            proto_other(c, tag, 5)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    return write_price_message(f, req_id, tick_type, price, size, attribs, c.context.recv_ns)


cdef inline int proto_tick_size(feed_t *f, cursor_t *c) noexcept nogil:
    cdef int32_t req_id = -1, tick_type = -1
    cdef double size = NAN
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            req_id = proto_int32(c)
        elif tag == VARINT_2:
            tick_type = proto_int32(c)
        elif tag == BYTES_3:
            size = proto_size(c)
        else:
            proto_other(c, tag, 3)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    return write_size_message(f, req_id, tick_type, size, c.context.recv_ns)


cdef inline int proto_tick_generic(feed_t *f, cursor_t *c) noexcept nogil:
    cdef int32_t req_id = -1, tick_type = -1
    cdef double value = NAN
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            req_id = proto_int32(c)
        elif tag == VARINT_2:
            tick_type = proto_int32(c)
        elif tag == FIXED64_3:
            value = proto_double(c)
        else:
            proto_other(c, tag, 3)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    return write_generic_message(f, req_id, tick_type, value, c.context.recv_ns)


cdef inline int proto_tick_string(feed_t *f, cursor_t *c) noexcept nogil:
    cdef int32_t req_id = -1, tick_type = -1
    cdef span_t text
    cdef uint32_t tag = proto_tag(c)
    text.p = c.p
    text.n = 0
    while tag:
        if tag == VARINT_1:
            req_id = proto_int32(c)
        elif tag == VARINT_2:
            tick_type = proto_int32(c)
        elif tag == BYTES_3:
            text = proto_span(c)
        else:
            proto_other(c, tag, 3)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    return write_string_message(f, c, req_id, tick_type, text, False, c.context.recv_ns)


cdef inline int proto_depth(feed_t *f, cursor_t *c, bint level2) noexcept nogil:
    cdef depth_t row
    cdef span_t market_maker
    cdef bint present = False
    cdef cursor_t data
    cdef uint32_t tag = proto_tag(c)
    memset(&row, 0, sizeof(row))
    market_maker.n = 0
    row.kind = KIND_DEPTH_L2 if level2 else KIND_DEPTH
    row.req_id = row.position = -1
    row.operation = row.side = ABSENT_BYTE
    row.price = row.size = NAN
    while tag:
        if tag == VARINT_1:
            row.req_id = proto_int32(c)
        elif tag == BYTES_2:
            present = True
            data = proto_message(c)
            market_maker = proto_depth_data(&data, &row, market_maker)
            proto_leave(c, &data)
        else:
            proto_other(c, tag, 2)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    if not present:
        return STATUS_ASIDE
    row.market_maker = intern(f, market_maker.p, market_maker.n)
    write_depth(f, &row, c.context.recv_ns)
    return STATUS_OK


cdef inline span_t proto_depth_data(cursor_t *c, depth_t *row, span_t market_maker) noexcept nogil:
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            row.position = proto_int32(c)
        elif tag == VARINT_2:
            row.operation = as_byte(c, proto_int32(c))
        elif tag == VARINT_3:
            row.side = as_byte(c, proto_int32(c))
        elif tag == FIXED64_4:
            row.price = proto_double(c)
        elif tag == BYTES_5:
            row.size = proto_size(c)
        elif tag == BYTES_6:
            market_maker = proto_span(c)
        elif tag == VARINT_7:
            row.attribs = ATTRIB_SMART_DEPTH if proto_integer(c) else 0
        else:
            proto_other(c, tag, 7)
        tag = proto_tag(c)
    return market_maker


cdef inline int proto_option(feed_t *f, cursor_t *c) noexcept nogil:
    cdef greeks_t row
    cdef uint32_t tag = proto_tag(c)
    memset(&row, 0, sizeof(row))
    row.kind = KIND_OPTION
    row.req_id = row.tick_type = -1
    row.implied_vol = row.delta = row.option_price = row.pv_dividend = NAN
    row.gamma = row.vega = row.theta = row.und_price = NAN
    while tag:
        if tag == VARINT_1:
            row.req_id = proto_int32(c)
        elif tag == VARINT_2:
            row.tick_type = proto_int32(c)
        elif tag == VARINT_3:
            row.attribs = proto_int32(c)
        elif tag == FIXED64_4:
            row.implied_vol = proto_double(c)
        elif tag == FIXED64_5:
            row.delta = proto_double(c)
        elif tag == FIXED64_6:
            row.option_price = proto_double(c)
        elif tag == FIXED64_7:
            row.pv_dividend = proto_double(c)
        elif tag == FIXED64_8:
            row.gamma = proto_double(c)
        elif tag == FIXED64_9:
            row.vega = proto_double(c)
        elif tag == FIXED64_10:
            row.theta = proto_double(c)
        elif tag == FIXED64_11:
            row.und_price = proto_double(c)
        else:
            proto_other(c, tag, 11)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    return write_option_message(f, &row, c.context.recv_ns)


cdef inline int proto_real_time_bar(feed_t *f, cursor_t *c) noexcept nogil:
    cdef bar_t row
    cdef uint32_t tag = proto_tag(c)
    memset(&row, 0, sizeof(row))
    row.kind = KIND_REALTIME_BAR
    row.req_id = -1
    row.open = row.high = row.low = row.close = row.volume = row.wap = NAN
    row.count = ABSENT_COUNT
    while tag:
        if tag == VARINT_1:
            row.req_id = proto_int32(c)
        elif tag == VARINT_2:
            row.event_ns = seconds_as_ns(c, proto_integer(c))
        elif tag == FIXED64_3:
            row.open = proto_double(c)
        elif tag == FIXED64_4:
            row.high = proto_double(c)
        elif tag == FIXED64_5:
            row.low = proto_double(c)
        elif tag == FIXED64_6:
            row.close = proto_double(c)
        elif tag == BYTES_7:
            row.volume = proto_size(c)
        elif tag == BYTES_8:
            row.wap = proto_size(c)
        elif tag == VARINT_9:
            row.count = proto_int32(c)
        else:
            proto_other(c, tag, 9)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    return write_bar_message(f, &row, c.context.recv_ns)


cdef inline int proto_bar_update(feed_t *f, cursor_t *c) noexcept nogil:
    cdef bar_t row
    cdef bint present = False
    cdef cursor_t data
    cdef uint32_t tag = proto_tag(c)
    memset(&row, 0, sizeof(row))
    row.kind = KIND_UPDATE_BAR
    row.req_id = -1
    row.open = row.high = row.low = row.close = row.volume = row.wap = NAN
    row.count = ABSENT_COUNT
    while tag:
        if tag == VARINT_1:
            row.req_id = proto_int32(c)
        elif tag == BYTES_2:
            present = True
            data = proto_message(c)
            proto_historical_bar(&data, &row)
            proto_leave(c, &data)
        else:
            proto_other(c, tag, 2)
        tag = proto_tag(c)
    if c.status != STATUS_OK:
        return c.status
    if not present:
        return STATUS_ASIDE
    return write_bar_message(f, &row, c.context.recv_ns)


cdef inline int proto_historical_bar(cursor_t *c, bar_t *row) noexcept nogil:
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == BYTES_1:
            row.event_ns = bar_time(c, proto_span(c))
        elif tag == FIXED64_2:
            row.open = proto_double(c)
        elif tag == FIXED64_3:
            row.high = proto_double(c)
        elif tag == FIXED64_4:
            row.low = proto_double(c)
        elif tag == FIXED64_5:
            row.close = proto_double(c)
        elif tag == BYTES_6:
            row.volume = proto_size(c)
        elif tag == BYTES_7:
            row.wap = proto_size(c)
        elif tag == VARINT_8:
            row.count = proto_int32(c)
        else:
            proto_other(c, tag, 8)
        tag = proto_tag(c)
    return c.status


# The values of a tick-by-tick message.
cdef struct tick_by_tick_t:
    int64_t event_ns
    double price
    double ask
    double size
    double ask_size
    uint32_t attribs
    span_t exchange
    span_t conditions


cdef inline int proto_tick_by_tick(feed_t *f, cursor_t *c) noexcept nogil:
    """Field 2 says which of the embedded messages 3 (last), 4 (bid and ask) and 5 (midpoint) counts."""
    cdef int32_t req_id = -1, kind = 0
    cdef tick_by_tick_t tick, ignored
    cdef cursor_t last, bid_ask, midpoint
    cdef bint is_last
    cdef uint32_t tag = proto_tag(c)
    last.p = bid_ask.p = midpoint.p = NULL
    while tag:
        if tag == VARINT_1:
            req_id = proto_int32(c)
        elif tag == VARINT_2:
            kind = proto_int32(c)
        elif tag == BYTES_3:
            last = proto_message(c)
        elif tag == BYTES_4:
            bid_ask = proto_message(c)
        elif tag == BYTES_5:
            midpoint = proto_message(c)
        else:
            proto_other(c, tag, 5)
        tag = proto_tag(c)
    memset(&tick, 0, sizeof(tick))
    tick.price = tick.ask = tick.size = tick.ask_size = NAN
    is_last = kind == TBT_LAST or kind == TBT_ALL_LAST
    if last.p != NULL:
        proto_last(&last, &tick if is_last else &ignored)
        proto_leave(c, &last)
    if bid_ask.p != NULL:
        proto_bid_ask(&bid_ask, &tick if kind == TBT_BID_ASK else &ignored)
        proto_leave(c, &bid_ask)
    if midpoint.p != NULL:
        proto_midpoint(&midpoint, &tick if kind == TBT_MIDPOINT else &ignored)
        proto_leave(c, &midpoint)
    if c.status != STATUS_OK:
        return c.status
    if is_last and last.p != NULL:
        return write_last_message(f, req_id, kind, tick.event_ns, tick.price, tick.size, tick.attribs, tick.exchange,
                                  tick.conditions, c.context.recv_ns)
    if (kind == TBT_BID_ASK and bid_ask.p != NULL) or (kind == TBT_MIDPOINT and midpoint.p != NULL):
        return write_quote_message(f, req_id, kind, tick.event_ns, tick.price, tick.ask, tick.size, tick.ask_size,
                                   tick.attribs, c.context.recv_ns)
    return STATUS_ASIDE


cdef inline uint32_t proto_two_flags(cursor_t *c) noexcept nogil:
    """The attribute messages of trades and quotes: two booleans, as the bits 0 and 1 of the text form's mask."""
    cdef cursor_t data = proto_message(c)
    cdef uint32_t tag = proto_tag(&data)
    cdef bint first = False, second = False
    while tag:
        if tag == VARINT_1:
            first = proto_integer(&data) != 0
        elif tag == VARINT_2:
            second = proto_integer(&data) != 0
        else:
            proto_other(&data, tag, 2)
        tag = proto_tag(&data)
    proto_leave(c, &data)
    return first | second << 1


cdef inline int proto_last(cursor_t *c, tick_by_tick_t *tick) noexcept nogil:
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            tick.event_ns = seconds_as_ns(c, proto_integer(c))
        elif tag == BYTES_2:
            tick.attribs = proto_two_flags(c)
        elif tag == FIXED64_3:
            tick.price = proto_double(c)
        elif tag == BYTES_4:
            tick.size = proto_size(c)
        elif tag == BYTES_5:
            tick.exchange = proto_span(c)
        elif tag == BYTES_6:
            tick.conditions = proto_span(c)
        else:
            proto_other(c, tag, 6)
        tag = proto_tag(c)
    return c.status


cdef inline int proto_bid_ask(cursor_t *c, tick_by_tick_t *tick) noexcept nogil:
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            tick.event_ns = seconds_as_ns(c, proto_integer(c))
        elif tag == BYTES_2:
            tick.attribs = proto_two_flags(c)
        elif tag == FIXED64_3:
            tick.price = proto_double(c)
        elif tag == FIXED64_4:
            tick.ask = proto_double(c)
        elif tag == BYTES_5:
            tick.size = proto_size(c)
        elif tag == BYTES_6:
            tick.ask_size = proto_size(c)
        else:
            proto_other(c, tag, 6)
        tag = proto_tag(c)
    return c.status


cdef inline int proto_midpoint(cursor_t *c, tick_by_tick_t *tick) noexcept nogil:
    cdef uint32_t tag = proto_tag(c)
    while tag:
        if tag == VARINT_1:
            tick.event_ns = seconds_as_ns(c, proto_integer(c))
        elif tag == FIXED64_2:
            tick.price = proto_double(c)
        else:
            proto_other(c, tag, 2)
        tag = proto_tag(c)
    return c.status
