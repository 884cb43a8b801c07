# Decoded messages: what both forms of a message, text and protobuf, end in.
#
# The rule of the file: values in, rows out (by the `write_*` functions of _feed.pxd), and here alone is decided what a
# value means: which of IB's numbers say "not computed", which string ticks are numbers in truth.
#
# No I/O, no clock, no asyncio.

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memchr

from ibfast.feed._feed cimport (
    TEXT_EMPTY, TICK_DELAYED_HALTED, TICK_DELAYED_LAST_TIMESTAMP, TICK_HALTED, TICK_LAST_TIMESTAMP, TICK_RT_TRD_VOLUME,
    TICK_RT_VOLUME, feed_t, intern, is_no_data, known, source, source_t, write_bar, write_greeks, write_halted,
    write_level1_price, write_level1_size, write_quote, write_rt_volume, write_tick, write_trade,
)
from ibfast.feed._records cimport (
    KIND_ALL_LAST, KIND_BID_ASK, KIND_GENERIC, KIND_LAST, KIND_MIDPOINT, KIND_PRICE, KIND_SIZE, KIND_STRING, bar_t,
    greeks_t,
)
from ibfast.decoder._cursor cimport (
    STATUS_OK, STATUS_RANGE, STATUS_SHORT, UNSET_INTEGER, cursor_t, fail, span_integer, span_number, span_size, span_t,
)


cdef enum:
    # ibfast.wire.ids.Incoming, in C: the messages that become records
    IN_TICK_PRICE = 1
    IN_TICK_SIZE = 2
    IN_MARKET_DEPTH = 12
    IN_MARKET_DEPTH_L2 = 13
    IN_TICK_OPTION_COMPUTATION = 21
    IN_TICK_GENERIC = 45
    IN_TICK_STRING = 46
    IN_REAL_TIME_BARS = 50
    IN_HISTORICAL_DATA_UPDATE = 90
    IN_TICK_BY_TICK = 99

    # tick-by-tick: the message's own kinds
    TBT_LAST = 1
    TBT_ALL_LAST = 2
    TBT_BID_ASK = 3
    TBT_MIDPOINT = 4

    # how many trades a bar has, where that is not known
    ABSENT_COUNT = -1

    # `attribs` of a depth row
    ATTRIB_SMART_DEPTH = 1


cdef inline int write_price_message(feed_t *f, int32_t req_id, int32_t tick_type, double price, double size,
                                    int32_t attribs, int64_t recv_ns) noexcept nogil:
    cdef source_t s = source(f, req_id, recv_ns)
    write_tick(f, &s, KIND_PRICE, tick_type, attribs, price, size, TEXT_EMPTY)
    write_level1_price(f, &s, tick_type, price, size)
    return STATUS_OK


cdef inline int write_size_message(feed_t *f, int32_t req_id, int32_t tick_type, double size,
                                   int64_t recv_ns) noexcept nogil:
    cdef source_t s = source(f, req_id, recv_ns)
    write_tick(f, &s, KIND_SIZE, tick_type, 0, NAN, size, TEXT_EMPTY)
    write_level1_size(f, &s, tick_type, size)
    return STATUS_OK


cdef inline int write_generic_message(feed_t *f, int32_t req_id, int32_t tick_type, double value,
                                      int64_t recv_ns) noexcept nogil:
    cdef source_t s = source(f, req_id, recv_ns)
    write_tick(f, &s, KIND_GENERIC, tick_type, 0, value, NAN, TEXT_EMPTY)
    if tick_type == TICK_HALTED or tick_type == TICK_DELAYED_HALTED:
        write_halted(f, &s, value)
    return STATUS_OK


cdef inline int write_string_message(feed_t *f, cursor_t *c, int32_t req_id, int32_t tick_type, span_t text,
                                     bint is_escaped, int64_t recv_ns) noexcept nogil:
    """A string tick. What changes with every message is parsed and never interned.

    Texts of the text dialect are escaped: what is not ASCII stands in them as \\uXXXX.
    """
    cdef source_t s
    cdef double value
    if tick_type == TICK_RT_VOLUME or tick_type == TICK_RT_TRD_VOLUME:
        return write_rt_volume_message(f, c, req_id, tick_type, text, recv_ns)
    if tick_type == TICK_LAST_TIMESTAMP or tick_type == TICK_DELAYED_LAST_TIMESTAMP:
        value = span_number(c, text.p, text.p + text.n)
        if c.status != STATUS_OK:
            return c.status
        s = source(f, req_id, recv_ns)
        write_tick(f, &s, KIND_STRING, tick_type, 0, value, NAN, TEXT_EMPTY)
        return STATUS_OK
    if is_escaped and memchr(text.p, c"\\", text.n) != NULL:
        text = c.context.unescape(c.context.decoder, text)
    s = source(f, req_id, recv_ns)
    write_tick(f, &s, KIND_STRING, tick_type, 0, NAN, NAN, intern(f, text.p, text.n))
    return STATUS_OK


cdef inline span_t split_semicolon(cursor_t *c, span_t *rest) noexcept nogil:
    """Cut the part before the next ";" off `rest`; the message is short if there is none."""
    cdef span_t part
    part.p = rest.p
    part.n = 0
    while part.n < rest.n and part.p[part.n] != c";":
        part.n += 1
    if part.n == rest.n:
        fail(c, STATUS_SHORT)
        return part
    rest.p += part.n + 1
    rest.n -= part.n + 1
    return part


cdef inline int write_rt_volume_message(feed_t *f, cursor_t *c, int32_t req_id, int32_t tick_type, span_t text,
                                        int64_t recv_ns) noexcept nogil:
    """price;size;time in ms;total volume;vwap;whether a single market maker filled it. Each may be empty."""
    cdef source_t s
    cdef span_t part = split_semicolon(c, &text)
    cdef double price = span_number(c, part.p, part.p + part.n)
    cdef double size, volume, vwap
    cdef int64_t time_ms
    part = split_semicolon(c, &text)
    size = span_size(c, part.p, part.p + part.n)
    part = split_semicolon(c, &text)
    time_ms = span_integer(c, part.p, part.p + part.n, 0)
    if not -9223372036854LL <= time_ms <= 9223372036854LL:
        fail(c, STATUS_RANGE)
    part = split_semicolon(c, &text)
    volume = span_size(c, part.p, part.p + part.n)
    part = split_semicolon(c, &text)
    vwap = span_number(c, part.p, part.p + part.n)
    if c.status != STATUS_OK:
        return c.status
    s = source(f, req_id, recv_ns)
    write_tick(f, &s, KIND_STRING, tick_type, 0, price, size, TEXT_EMPTY)
    write_rt_volume(f, &s, time_ms * 1000000, price, size, volume, vwap, text.n >= 4 and text.p[0] == c"t")
    return STATUS_OK


cdef inline double computed(double value, double not_computed) noexcept nogil:
    return NAN if value == not_computed else value


cdef inline int write_option_message(feed_t *f, greeks_t *row, int64_t recv_ns) noexcept nogil:
    """IB marks what it did not compute by -1 (prices), -2 (sensitivities) or any negative implied volatility."""
    if row.implied_vol < 0:
        row.implied_vol = NAN
    row.delta = computed(row.delta, -2)
    row.option_price = computed(row.option_price, -1)
    row.pv_dividend = computed(row.pv_dividend, -1)
    row.gamma = computed(row.gamma, -2)
    row.vega = computed(row.vega, -2)
    row.theta = computed(row.theta, -2)
    row.und_price = computed(row.und_price, -1)
    write_greeks(f, row, recv_ns)
    return STATUS_OK


cdef inline int write_bar_message(feed_t *f, bar_t *row, int64_t recv_ns) noexcept nogil:
    """Bars of quotes have a volume, a WAP and a count of -1, "not there": NaN, and -1 as the count."""
    row.volume = known(row.volume)
    row.wap = known(row.wap)
    if row.count == UNSET_INTEGER:
        row.count = ABSENT_COUNT
    write_bar(f, row, recv_ns)
    return STATUS_OK


cdef inline int write_last_message(feed_t *f, int32_t req_id, int32_t kind, int64_t event_ns, double price, double size,
                                   uint32_t attribs, span_t exchange, span_t conditions,
                                   int64_t recv_ns) noexcept nogil:
    """A tick-by-tick trade. IB's "no data" is a row without a price, since a message has no other row here."""
    cdef source_t s = source(f, req_id, recv_ns)
    cdef uint32_t exchange_id = intern(f, exchange.p, exchange.n)
    cdef uint32_t conditions_id = intern(f, conditions.p, conditions.n)
    if is_no_data(s.request.level1.contract, price, size):
        price = NAN
    write_trade(f, &s, KIND_LAST if kind == TBT_LAST else KIND_ALL_LAST, event_ns, price, size, attribs, exchange_id,
                conditions_id)
    return STATUS_OK


cdef inline int write_quote_message(feed_t *f, int32_t req_id, int32_t kind, int64_t event_ns, double bid, double ask,
                                    double bid_size, double ask_size, uint32_t attribs,
                                    int64_t recv_ns) noexcept nogil:
    cdef source_t s = source(f, req_id, recv_ns)
    cdef uint32_t contract = s.request.level1.contract
    if is_no_data(contract, bid, bid_size):
        bid = NAN
    if kind == TBT_MIDPOINT:
        write_quote(f, &s, KIND_MIDPOINT, event_ns, bid, bid, NAN, NAN, 0)
    else:
        if is_no_data(contract, ask, ask_size):
            ask = NAN
        write_quote(f, &s, KIND_BID_ASK, event_ns, bid, ask, known(bid_size), known(ask_size), attribs)
    return STATUS_OK
