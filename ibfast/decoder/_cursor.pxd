# Cursors over one frame: NUL-terminated text fields, and protobuf.
#
# The rule of the file: no read passes `end`, and the first thing that does not parse sets `status` and stays there, so
# that a handler reads all its fields and looks at the status once. A value read after a failure means nothing.
#
# No I/O, no clock, no asyncio.

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from ibfast.decoder._number cimport NUMBER_OK, exact_power_of_ten


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
    PROOF_FRAMES = 64
    OWN_FIELDS_BYTES = 4096
    UNSET_INTEGER = 2147483647  # IB's "no number" of type int, which also marks an unset size

cdef enum:
    # Whole tags: field number·8 + wire type.
    BYTES_1 = 10
    BYTES_2 = 18
    BYTES_3 = 26
    BYTES_4 = 34
    BYTES_5 = 42
    BYTES_6 = 50
    BYTES_7 = 58
    BYTES_8 = 66
    FIXED64_2 = 17
    FIXED64_3 = 25
    FIXED64_4 = 33
    FIXED64_5 = 41
    FIXED64_6 = 49
    FIXED64_7 = 57
    FIXED64_8 = 65
    FIXED64_9 = 73
    FIXED64_10 = 81
    FIXED64_11 = 89
    VARINT_1 = 8
    VARINT_2 = 16
    VARINT_3 = 24
    VARINT_5 = 40
    VARINT_7 = 56
    VARINT_8 = 64
    VARINT_9 = 72

ctypedef const unsigned char *bytes_t

# Any decimal, exactly rounded: out of line, since the usual ones are read in place. NUMBER_OK or NUMBER_BAD.
ctypedef int (*number_t)(bytes_t start, bytes_t end, double *out) noexcept nogil

# A time with a clock or a zone in it, read by the interpreter; TIME_UNKNOWN if it is none.
ctypedef int64_t (*zoned_time_t)(void *decoder, bytes_t start, bytes_t end) noexcept nogil

cdef extern from "<stdint.h>":
    const int64_t TIME_UNKNOWN "INT64_MIN"

cdef struct span_t:
    bytes_t p
    Py_ssize_t n

# A text whose \uXXXX escapes are resolved by the interpreter. The result lives until the next call.
ctypedef span_t (*unescape_t)(void *decoder, span_t text) noexcept nogil

# What all cursors of a connection share.
cdef struct context_t:
    int64_t recv_ns
    bint raw_id                 # a payload begins with a four-byte id, not with digits
    number_t number
    zoned_time_t zoned_time
    unescape_t unescape
    void *decoder

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
    if p == end:
        return NAN
    if c.context.number(p, end, &value) != NUMBER_OK:
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


cdef inline uint32_t be32(bytes_t p) noexcept nogil:
    return (<uint32_t> p[0] << 24) | (<uint32_t> p[1] << 16) | (<uint32_t> p[2] << 8) | p[3]


# --- frames in frames -----------------------------------------------------------------------------------------------
# A TWS once announced more bytes than it wrote, and the frame took in its followers: a client that goes on decodes
# garbage from then on. What is left over behind such a message's own fields begins with the next frame's length and id.

cdef inline bint begins_frame(bytes_t p, bytes_t end, bint raw_id) noexcept nogil:
    """Whether a length and a message id stand at `p`: no more than four digits and a NUL, or a small number."""
    cdef uint32_t length
    cdef Py_ssize_t digits = 0
    if end - p < 6 or p[0] or p[1]:
        return False
    length = be32(p)
    p += 4
    if raw_id:
        return length >= 4 and end - p >= 4 and 0 < be32(p) < 512
    while p + digits < end and digits < 4 and c"0" <= p[digits] <= c"9":
        digits += 1
    return length >= 2 and digits > 0 and p + digits < end and p[digits] == 0


cdef inline bint holds_frames(bytes_t p, bytes_t end, bint raw_id) noexcept nogil:
    """Whether all from `p` on are frames; a long row of them is proof enough.

    The last one may be cut off. If it is the only one, half of it at least must be there: unknown fields can look like
    the first bytes of a frame, and a cut further up shows by the next frame's length, which is then out of step.
    """
    cdef int seen = 0
    cdef Py_ssize_t there
    while begins_frame(p, end, raw_id):
        there = end - p - 4
        if there < <Py_ssize_t> be32(p):
            return seen > 0 or 2 * there >= <Py_ssize_t> be32(p)
        p += 4 + be32(p)
        seen += 1
        if p == end or seen == PROOF_FRAMES:
            return True
    return False


cdef inline bint ends_in_frames(bytes_t p, bytes_t end, bint raw_id) noexcept nogil:
    """Whether a malformed payload is one because of the frames behind its own, short, fields."""
    cdef bytes_t last = p + OWN_FIELDS_BYTES if end - p > OWN_FIELDS_BYTES else end
    p += 4 if raw_id else 1
    while p < last:
        if holds_frames(p, end, raw_id):
            return True
        p += 1
    return False


# --- text -----------------------------------------------------------------------------------------------------------
# `text_begin` makes sure that the last byte is a NUL, so a scan for one needs no other bound. The usual number is read
# in the same pass that looks for its end; what is unusual in any way is read again by the span_* functions.

cdef inline void text_begin(cursor_t *c) noexcept nogil:
    if c.p == c.end:
        fail(c, STATUS_SHORT)
    elif (c.end - 1)[0] != 0:
        fail(c, STATUS_UNTERMINATED)
        c.p = c.end


cdef inline span_t text_span(cursor_t *c) noexcept nogil:
    """The next field. Fields are short: a byte loop beats a call of memchr."""
    cdef span_t span
    cdef bytes_t p = c.p
    span.p = p
    span.n = 0
    if p == c.end:
        fail(c, STATUS_SHORT)
        return span
    while p[0]:
        p += 1
    span.n = p - span.p
    c.p = p + 1
    return span


cdef inline int64_t text_integer(cursor_t *c, int64_t absent) noexcept nogil:
    cdef bytes_t p = c.p
    cdef int64_t value = 0
    cdef unsigned int digit
    cdef span_t span
    if p < c.end:
        digit = <unsigned int> p[0] - c"0"
        while digit <= 9 and p - c.p < 18:
            value = value * 10 + digit
            p += 1
            digit = <unsigned int> p[0] - c"0"
        if p[0] == 0 and p > c.p:
            c.p = p + 1
            return value
    span = text_span(c)
    return span_integer(c, span.p, span.p + span.n, absent)


cdef inline int32_t text_int32(cursor_t *c, int32_t absent) noexcept nogil:
    return as_int32(c, text_integer(c, absent))


cdef inline bint plain_decimal(cursor_t *c, uint64_t *digits, int *decimals) noexcept nogil:
    """Read an unsigned decimal of at most 17 characters. False, and nothing read, if the field is anything else."""
    cdef bytes_t p = c.p
    cdef bytes_t point
    cdef uint64_t w = 0
    cdef unsigned int digit
    if p == c.end:
        return False
    digit = <unsigned int> p[0] - c"0"
    if digit > 9:
        return False
    while digit <= 9:
        w = w * 10 + digit
        p += 1
        digit = <unsigned int> p[0] - c"0"
    decimals[0] = 0
    if p[0] == c".":
        point = p
        p += 1
        digit = <unsigned int> p[0] - c"0"
        while digit <= 9:
            w = w * 10 + digit
            p += 1
            digit = <unsigned int> p[0] - c"0"
        decimals[0] = <int> (p - point - 1)
    if p[0] != 0 or p - c.p > 17 or w > <uint64_t> 1 << 53:
        return False
    digits[0] = w
    c.p = p + 1
    return True


cdef inline double text_number(cursor_t *c) noexcept nogil:
    cdef uint64_t digits
    cdef int decimals
    cdef span_t span
    if plain_decimal(c, &digits, &decimals):
        return <double> digits / exact_power_of_ten[decimals] if decimals else <double> digits
    span = text_span(c)
    return span_number(c, span.p, span.p + span.n)


cdef inline double text_size(cursor_t *c) noexcept nogil:
    cdef uint64_t digits
    cdef int decimals
    cdef span_t span
    if plain_decimal(c, &digits, &decimals):
        if decimals:
            return <double> digits / exact_power_of_ten[decimals]
        return NAN if digits == UNSET_INTEGER else <double> digits
    span = text_span(c)
    return span_size(c, span.p, span.p + span.n)


cdef inline void text_skip(cursor_t *c) noexcept nogil:
    text_span(c)


cdef inline void text_end(cursor_t *c) noexcept nogil:
    """Tolerate further fields, but not further frames."""
    if c.status == STATUS_OK and c.p < c.end and holds_frames(c.p, c.end, c.context.raw_id):
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
    if c.p < c.end and c.p[0] < 0x80:
        value = c.p[0]
        c.p += 1
        return value
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
    tag = proto_varint(c)
    if tag < 8 or tag > 0xFFFFFFFFULL:
        fail(c, STATUS_WIRE_TYPE)
        return 0
    return <uint32_t> tag


cdef inline int64_t proto_integer(cursor_t *c) noexcept nogil:
    return <int64_t> proto_varint(c)


cdef inline int32_t proto_int32(cursor_t *c) noexcept nogil:
    return <int32_t> proto_varint(c)


cdef inline double proto_double(cursor_t *c) noexcept nogil:
    """A double; NaN for the largest one, IB's unset price."""
    cdef double value
    if c.end - c.p < 8:
        fail(c, STATUS_SHORT)
        return NAN
    memcpy(&value, c.p, 8)
    c.p += 8
    return NAN if value == 1.7976931348623157e308 else value


cdef inline span_t proto_span(cursor_t *c) noexcept nogil:
    cdef span_t span
    cdef uint64_t n = proto_varint(c)
    span.p = c.p
    span.n = 0
    if n > <uint64_t> (c.end - c.p):
        fail(c, STATUS_LENGTH)
        return span
    span.n = <Py_ssize_t> n
    c.p += n
    return span


cdef inline bint eight_digits(bytes_t end, Py_ssize_t n, uint64_t *out) noexcept nogil:
    """Read the n digits, 1 to 8, that stand before `end`. False if one is none.

    All eight bytes before `end` are loaded at once, so they must exist: in a frame they do, its prefix and id being
    eight. The pairs, then the fours, are joined by one multiplication each; no branch depends on n.
    """
    cdef uint64_t word, own
    memcpy(&word, end - 8, 8)
    own = ~<uint64_t> 0 << (8 * (8 - n))
    word = (word & own) | (0x3030303030303030ULL & ~own)
    if ((word + 0x4646464646464646ULL) | (word - 0x3030303030303030ULL)) & 0x8080808080808080ULL:
        return False
    word = ((word & 0x0F0F0F0F0F0F0F0FULL) * 2561) >> 8
    word = ((word & 0x00FF00FF00FF00FFULL) * 6553601) >> 16
    out[0] = ((word & 0x0000FFFF0000FFFFULL) * 42949672960001ULL) >> 32
    return True


cdef inline double proto_size(cursor_t *c) noexcept nogil:
    """A size, which is decimal text; most are a few digits."""
    cdef span_t span = proto_span(c)
    cdef uint64_t digits
    if 0 < span.n <= 8 and eight_digits(span.p + span.n, span.n, &digits):
        return <double> digits
    return span_size(c, span.p, span.p + span.n)


cdef inline cursor_t proto_message(cursor_t *c) noexcept nogil:
    """A cursor over the embedded message; join it with `proto_leave`."""
    cdef cursor_t inner = c[0]
    cdef span_t span = proto_span(c)
    inner.p = span.p
    inner.end = span.p + span.n
    inner.status = c.status
    return inner


cdef inline void proto_leave(cursor_t *c, cursor_t *inner) noexcept nogil:
    if inner.status != STATUS_OK:
        fail(c, inner.status)


cdef inline void proto_other(cursor_t *c, uint32_t tag, uint32_t known) noexcept nogil:
    """Pass over a field whose number is not known here; the first `known` numbers are, with another wire type."""
    cdef uint32_t wire_type = tag & 7
    if tag >> 3 <= known:
        fail(c, STATUS_WIRE_TYPE)
    elif wire_type == WIRE_VARINT:
        proto_varint(c)
    elif wire_type == WIRE_BYTES:
        proto_span(c)
    elif wire_type == WIRE_FIXED64 and c.end - c.p >= 8:
        c.p += 8
    elif wire_type == WIRE_FIXED32 and c.end - c.p >= 4:
        c.p += 4
    elif wire_type == WIRE_FIXED64 or wire_type == WIRE_FIXED32:
        fail(c, STATUS_SHORT)
    else:
        fail(c, STATUS_WIRE_TYPE)


# --- times ----------------------------------------------------------------------------------------------------------

cdef inline int64_t bar_time(cursor_t *c, span_t span) noexcept nogil:
    """A bar's time in any of IB's forms, as ns UTC; 0 for empty text.

    Epoch seconds, which ibfast asks for, have nine digits or more. Dates are for the interpreter.
    """
    cdef int64_t ns = 0
    cdef Py_ssize_t i = 0
    if span.n == 0 or c.status != STATUS_OK:
        return 0
    while i < span.n and i < 18 and c"0" <= span.p[i] <= c"9":
        ns = ns * 10 + (span.p[i] - c"0")
        i += 1
    if i == span.n and i >= 9:
        return seconds_as_ns(c, ns)
    ns = c.context.zoned_time(c.context.decoder, span.p, span.p + span.n)
    if ns == TIME_UNKNOWN:
        fail(c, STATUS_TIME)
    return ns
