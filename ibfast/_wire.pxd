# Cursors over one frame: NUL-terminated text fields, and protobuf.
#
# The rule of the file: no read passes `end`, and the first thing that does not parse sets `status` and stays there, so
# that a handler reads all its fields and looks at the status once. A value read after a failure means nothing.

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from ibfast._number cimport NUMBER_OK, NUMBER_UNDECIDED, parse_number


cdef enum:
    # What a handler says of a frame. All above ASIDE name a reason for quarantine (STATUS_TEXT in _core.pyx).
    STATUS_OK = 0
    STATUS_ASIDE = 1            # not tick path, or of a kind not known here: hand it out whole
    STATUS_SHORT = 2
    STATUS_NUMBER = 3
    STATUS_INTEGER = 4
    STATUS_RANGE = 5
    STATUS_VARINT = 6
    STATUS_LENGTH = 7
    STATUS_WIRE_TYPE = 8
    STATUS_ID = 9
    STATUS_UNTERMINATED = 10
    STATUS_TIME = 11
    STATUS_SWALLOWED = 12       # the frame holds the frames that should have followed it: framing is lost

cdef enum:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_FIXED32 = 5
    ABSENT_BYTE = 255

ctypedef const unsigned char *bytes_t

# The interpreter's own correctly rounded parser, for the one decimal in 10^15 that _number leaves undecided.
ctypedef int (*undecided_t)(bytes_t start, bytes_t end, double *out) noexcept nogil

# A time with a clock or a zone in it, read by the interpreter; TIME_UNKNOWN if it is none.
ctypedef int64_t (*zoned_time_t)(void *decoder, bytes_t start, bytes_t end) noexcept nogil

cdef extern from "<stdint.h>":
    const int64_t TIME_UNKNOWN "INT64_MIN"

# What all cursors of a connection share.
cdef struct context_t:
    int64_t recv_ns
    const uint64_t *powers
    undecided_t undecided
    zoned_time_t zoned_time
    void *decoder

cdef struct span_t:
    bytes_t p
    Py_ssize_t n

cdef struct cursor_t:
    bytes_t p
    bytes_t end
    int status
    const context_t *context


cdef inline void fail(cursor_t *c, int status) noexcept nogil:
    if c.status == STATUS_OK:
        c.status = status


cdef inline uint8_t as_byte(cursor_t *c, int64_t value) noexcept nogil:
    if not 0 <= value <= 255:
        fail(c, STATUS_RANGE)
    return <uint8_t> value


cdef inline int32_t as_int32(cursor_t *c, int64_t value) noexcept nogil:
    if value > 2147483647 or value < -2147483648:
        fail(c, STATUS_RANGE)
    return <int32_t> value


cdef inline int64_t seconds_as_ns(cursor_t *c, int64_t seconds) noexcept nogil:
    if seconds > 9223372036LL or seconds < -9223372036LL:
        fail(c, STATUS_RANGE)
        return 0
    return seconds * 1000000000


cdef inline int64_t span_integer(cursor_t *c, bytes_t p, bytes_t end, int64_t absent) noexcept nogil:
    """A whole number of at most 18 digits, or `absent` for empty text."""
    cdef int64_t value = 0
    cdef unsigned int digit
    cdef bint negative
    if p == end:
        return absent
    negative = p[0] == c"-"
    if negative or p[0] == c"+":
        p += 1
    if p == end or end - p > 18:
        fail(c, STATUS_INTEGER)
        return absent
    while p < end:
        digit = <unsigned int> p[0] - c"0"
        if digit > 9:
            fail(c, STATUS_INTEGER)
            return absent
        value = value * 10 + digit
        p += 1
    return -value if negative else value


cdef inline double span_number(cursor_t *c, bytes_t p, bytes_t end) noexcept nogil:
    """A decimal, exactly rounded; NaN for empty text and for the largest double, IB's unset price."""
    cdef double value
    cdef int status
    if p == end:
        return NAN
    status = parse_number(p, end, c.context.powers, &value)
    if status == NUMBER_UNDECIDED:
        status = c.context.undecided(p, end, &value)
    if status != NUMBER_OK:
        fail(c, STATUS_NUMBER)
        return NAN
    return NAN if value == 1.7976931348623157e308 else value


cdef inline double span_size(cursor_t *c, bytes_t p, bytes_t end) noexcept nogil:
    """As `span_number`, with the spellings of an unset size as well."""
    cdef Py_ssize_t n = end - p
    if n == 10 and memcmp(p, b"2147483647", 10) == 0:
        return NAN
    if n == 19 and memcmp(p, b"9223372036854775807", 19) == 0:
        return NAN
    if n == 20 and memcmp(p, b"-9223372036854775808", 20) == 0:
        return NAN
    if n == 39 and memcmp(p, b"170141183460469231731687303715884105727", 39) == 0:
        return NAN
    return span_number(c, p, end)


# --- text -----------------------------------------------------------------------------------------------------------

cdef inline span_t text_span(cursor_t *c) noexcept nogil:
    """The next field. Fields are short: a byte loop beats a call of memchr."""
    cdef span_t span
    cdef bytes_t p = c.p
    span.p = p
    span.n = 0
    while p < c.end and p[0]:
        p += 1
    if p == c.end:
        fail(c, STATUS_SHORT)
        return span
    span.n = p - span.p
    c.p = p + 1
    return span


cdef inline int64_t text_integer(cursor_t *c, int64_t absent) noexcept nogil:
    cdef span_t span = text_span(c)
    return span_integer(c, span.p, span.p + span.n, absent)


cdef inline int32_t text_int32(cursor_t *c, int32_t absent) noexcept nogil:
    return as_int32(c, text_integer(c, absent))


cdef inline double text_number(cursor_t *c) noexcept nogil:
    cdef span_t span = text_span(c)
    return span_number(c, span.p, span.p + span.n)


cdef inline double text_size(cursor_t *c) noexcept nogil:
    cdef span_t span = text_span(c)
    return span_size(c, span.p, span.p + span.n)


cdef inline void text_skip(cursor_t *c) noexcept nogil:
    text_span(c)


cdef inline uint32_t be32(bytes_t p) noexcept nogil:
    return (<uint32_t> p[0] << 24) | (<uint32_t> p[1] << 16) | (<uint32_t> p[2] << 8) | p[3]


cdef inline void text_end(cursor_t *c) noexcept nogil:
    """Tolerate further fields, but not further frames.

    A TWS once announced more bytes than it wrote, and the frame took in its followers. What is then left over begins
    with the length prefix of the next frame: two zero bytes and a length that the rest of this frame bears out.
    """
    cdef uint32_t length
    cdef bytes_t p = c.p
    if c.status != STATUS_OK or p == c.end:
        return
    if (c.end - 1)[0] != 0:
        fail(c, STATUS_UNTERMINATED)
    if c.end - p > 5 and p[0] == 0 and p[1] == 0:
        length = be32(p)
        if length >= 2 and (p[4] < 0x20 or c"0" <= p[4] <= c"9"):
            c.status = STATUS_SWALLOWED


cdef inline int32_t read_ascii_id(cursor_t *c) noexcept nogil:
    """A message's id as digits up to the first NUL, at most nine of them."""
    cdef bytes_t start = c.p
    cdef int32_t value = 0
    while c.p < c.end and c"0" <= c.p[0] <= c"9" and c.p - start < 9:
        value = value * 10 + (c.p[0] - c"0")
        c.p += 1
    if c.p == start or c.p == c.end or c.p[0] != 0:
        fail(c, STATUS_ID)
        return 0
    c.p += 1
    return value


# --- protobuf -------------------------------------------------------------------------------------------------------

cdef inline uint64_t proto_varint(cursor_t *c) noexcept nogil:
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while c.p < c.end:
        byte = c.p[0]
        c.p += 1
        if shift == 63 and byte > 1:
            break
        value |= <uint64_t> (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
        if shift > 63:
            break
    fail(c, STATUS_VARINT)
    c.p = c.end
    return 0


cdef inline uint32_t proto_tag(cursor_t *c) noexcept nogil:
    """The next field's number·8 + wire type; 0 at the end of the message and after a failure."""
    cdef uint64_t tag
    if c.p >= c.end or c.status != STATUS_OK:
        return 0
    tag = c.p[0]
    if tag < 0x80:
        c.p += 1
    else:
        tag = proto_varint(c)
    if tag < 8 or tag > 0xFFFFFFFFULL:
        fail(c, STATUS_WIRE_TYPE)
        return 0
    return <uint32_t> tag


cdef inline int64_t proto_integer(cursor_t *c, uint32_t tag) noexcept nogil:
    if tag & 7 != WIRE_VARINT:
        fail(c, STATUS_WIRE_TYPE)
        return 0
    return <int64_t> proto_varint(c)


cdef inline int32_t proto_int32(cursor_t *c, uint32_t tag) noexcept nogil:
    return <int32_t> proto_integer(c, tag)


cdef inline double proto_double(cursor_t *c, uint32_t tag) noexcept nogil:
    """A double; NaN for the largest one, IB's unset price."""
    cdef double value
    if tag & 7 != WIRE_FIXED64:
        fail(c, STATUS_WIRE_TYPE)
        return NAN
    if c.end - c.p < 8:
        fail(c, STATUS_SHORT)
        return NAN
    memcpy(&value, c.p, 8)
    c.p += 8
    return NAN if value == 1.7976931348623157e308 else value


cdef inline span_t proto_span(cursor_t *c, uint32_t tag) noexcept nogil:
    cdef span_t span
    cdef uint64_t n
    span.p = c.p
    span.n = 0
    if tag & 7 != WIRE_BYTES:
        fail(c, STATUS_WIRE_TYPE)
        return span
    n = proto_varint(c)
    if n > <uint64_t> (c.end - c.p):
        fail(c, STATUS_LENGTH)
        return span
    span.p = c.p
    span.n = <Py_ssize_t> n
    c.p += n
    return span


cdef inline double proto_size(cursor_t *c, uint32_t tag) noexcept nogil:
    cdef span_t span = proto_span(c, tag)
    return span_size(c, span.p, span.p + span.n)


cdef inline cursor_t proto_message(cursor_t *c, uint32_t tag) noexcept nogil:
    """A cursor over the embedded message; join it with `proto_leave`."""
    cdef cursor_t inner = c[0]
    cdef span_t span = proto_span(c, tag)
    inner.p = span.p
    inner.end = span.p + span.n
    inner.status = c.status
    return inner


cdef inline void proto_leave(cursor_t *c, cursor_t *inner) noexcept nogil:
    if inner.status != STATUS_OK:
        fail(c, inner.status)


cdef inline void proto_skip(cursor_t *c, uint32_t tag) noexcept nogil:
    """Pass over a field that is not known here."""
    cdef uint32_t wire_type = tag & 7
    if wire_type == WIRE_VARINT:
        proto_varint(c)
    elif wire_type == WIRE_BYTES:
        proto_span(c, tag)
    elif wire_type == WIRE_FIXED64 and c.end - c.p >= 8:
        c.p += 8
    elif wire_type == WIRE_FIXED32 and c.end - c.p >= 4:
        c.p += 4
    elif wire_type == WIRE_FIXED64 or wire_type == WIRE_FIXED32:
        fail(c, STATUS_SHORT)
    else:
        fail(c, STATUS_WIRE_TYPE)


# --- times ----------------------------------------------------------------------------------------------------------

cdef inline int64_t days_from_civil(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days since 1970-01-01 in the proleptic Gregorian calendar; years count from March so that leap days end one."""
    cdef int64_t era, year_of_era, day_of_year
    if month <= 2:
        year -= 1
        month += 12
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month - 3) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


cdef inline bint parse_plain_date(bytes_t p, Py_ssize_t n, int64_t *ns) noexcept nogil:
    """Read epoch seconds, or yyyymmdd as that day's midnight in UTC. False for every other form."""
    cdef int64_t value = 0, year, month, day
    cdef Py_ssize_t i
    if n == 0 or n > 10:
        return False
    for i in range(n):
        if p[i] < c"0" or p[i] > c"9":
            return False
        value = value * 10 + (p[i] - c"0")
    if n != 8:
        ns[0] = value * 1000000000
        return value <= 9223372036LL
    year = value // 10000
    month = value // 100 % 100
    day = value % 100
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return False
    ns[0] = days_from_civil(year, month, day) * 86400000000000LL
    return 1678 <= year <= 2261


cdef inline int64_t bar_time(cursor_t *c, span_t span) noexcept nogil:
    """A bar's time in any of IB's forms, as ns UTC; 0 for empty text."""
    cdef int64_t ns = 0
    if span.n == 0 or c.status != STATUS_OK or parse_plain_date(span.p, span.n, &ns):
        return ns
    ns = c.context.zoned_time(c.context.decoder, span.p, span.p + span.n)
    if ns == TIME_UNKNOWN:
        fail(c, STATUS_TIME)
    return ns
