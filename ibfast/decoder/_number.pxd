# Decimal text to the nearest double, exactly rounded, without locale, allocation or the interpreter.
#
# The rule of the file: a result is either the correctly rounded double or the status says that it is not known.
#   ≤ 2^53 and |exponent| ≤ 22     one exact multiplication or division (Clinger, "How to read floating point numbers
#                                  accurately", 1990)
#   ≤ 19 digits, or more           Lemire, "Number parsing at a gigabyte per second", 2021 (Eisel-Lemire), with the
#                                  128-bit powers of five that `_core` computes at import
#   undecided (about 1 in 10^15)   NUMBER_UNDECIDED: the caller asks CPython's own correctly rounded parser
#
# No I/O, no clock, no asyncio.

from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy


cdef enum:
    NUMBER_OK = 0
    NUMBER_BAD = 1
    NUMBER_UNDECIDED = 2
    SMALLEST_POWER = -342
    LARGEST_POWER = 308

cdef extern from *:
    """
    #if defined(_MSC_VER)
      #include <intrin.h>
      static __forceinline uint64_t ibfast_mul128(uint64_t a, uint64_t b, uint64_t *high)
          { return _umul128(a, b, high); }
      static __forceinline int ibfast_clz64(uint64_t v)
          { unsigned long i; _BitScanReverse64(&i, v); return 63 - (int)i; }
    #else
      static inline uint64_t ibfast_mul128(uint64_t a, uint64_t b, uint64_t *high) {
          unsigned __int128 product = (unsigned __int128)a * b;
          *high = (uint64_t)(product >> 64);
          return (uint64_t)product;
      }
      #define ibfast_clz64(v) __builtin_clzll(v)
    #endif

    static const double ibfast_exact_power_of_ten[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22 };
    """
    uint64_t mul128 "ibfast_mul128"(uint64_t a, uint64_t b, uint64_t *high) noexcept nogil
    int clz64 "ibfast_clz64"(uint64_t v) noexcept nogil
    const double exact_power_of_ten "ibfast_exact_power_of_ten"[23]


cdef inline double double_of_bits(uint64_t bits) noexcept nogil:
    cdef double value
    memcpy(&value, &bits, sizeof(double))
    return value


cdef inline bint eisel_lemire(uint64_t w, int64_t q, const uint64_t *powers, double *out) noexcept nogil:
    """Set `out` to w·10^q, w not 0. False where 128 bits of the power of five do not decide the rounding."""
    cdef uint64_t high, low, second_high, mantissa, upper
    cdef int leading, shift
    cdef int64_t exponent
    cdef const uint64_t *power
    if q < SMALLEST_POWER:
        out[0] = 0.0
        return True
    if q > LARGEST_POWER:
        out[0] = INFINITY
        return True
    leading = clz64(w)
    w <<= leading
    power = powers + 2 * (q - SMALLEST_POWER)
    low = mul128(w, power[0], &high)
    if high & 0x1FF == 0x1FF:
        mul128(w, power[1], &second_high)
        low += second_high
        if low < second_high:
            high += 1
    if low == 0xFFFFFFFFFFFFFFFFULL and (q < -27 or q > 55):
        return False
    upper = high >> 63
    shift = <int> (upper + 64 - 52 - 3)
    mantissa = high >> shift
    # 217706 / 2^16 is log2(10) from below; the sum is the biased binary exponent.
    exponent = ((217706 * q) >> 16) + 63 + <int64_t> upper - leading + 1023
    if exponent <= 0:
        if -exponent + 1 >= 64:
            out[0] = 0.0
            return True
        mantissa >>= -exponent + 1
        mantissa += mantissa & 1
        mantissa >>= 1
        out[0] = double_of_bits(mantissa)        # a carry into bit 52 makes the smallest normal number by itself
        return True
    if low <= 1 and -4 <= q <= 23 and mantissa & 3 == 1 and (mantissa << shift) == high:
        mantissa &= ~<uint64_t> 1                # exactly half way: round to even
    mantissa += mantissa & 1
    mantissa >>= 1
    if mantissa >= <uint64_t> 1 << 53:
        mantissa = <uint64_t> 1 << 52
        exponent += 1
    if exponent >= 2047:
        out[0] = INFINITY
        return True
    out[0] = double_of_bits((mantissa & ~(<uint64_t> 1 << 52)) | (<uint64_t> exponent << 52))
    return True


cdef inline bint is_word(const unsigned char *p, const unsigned char *end, const char *word) noexcept nogil:
    """Whether the bytes are `word` (lower case letters) in any case."""
    while p < end and word[0]:
        if (p[0] | 0x20) != <unsigned char> word[0]:
            return False
        p += 1
        word += 1
    return p == end and word[0] == 0


cdef inline int parse_word(const unsigned char *p, const unsigned char *end, bint negative, double *out) noexcept nogil:
    """The spellings of infinity and of not-a-number that Python's float() reads."""
    if is_word(p, end, b"infinity") or is_word(p, end, b"inf"):
        out[0] = -INFINITY if negative else INFINITY
        return NUMBER_OK
    if is_word(p, end, b"nan"):
        out[0] = NAN
        return NUMBER_OK
    return NUMBER_BAD


cdef inline int parse_exponent(const unsigned char **cursor, const unsigned char *end, int64_t *out) noexcept nogil:
    """Read what follows an "e". An exponent of absurd length is clamped, which no result can tell."""
    cdef const unsigned char *p = cursor[0]
    cdef bint negative = False
    cdef int64_t value = 0
    if p < end and (p[0] == c"-" or p[0] == c"+"):
        negative = p[0] == c"-"
        p += 1
    if p == end or p[0] < c"0" or p[0] > c"9":
        return NUMBER_BAD
    while p < end and c"0" <= p[0] <= c"9":
        if value < 1000000000:    # far beyond any frame's digits
            value = value * 10 + (p[0] - c"0")
        p += 1
    out[0] = -value if negative else value
    cursor[0] = p
    return NUMBER_OK


cdef inline int parse_long_decimal(const unsigned char *p, const unsigned char *end, bint negative,
                                   const uint64_t *powers, double *out) noexcept nogil:
    """Any decimal, after its sign: digits beyond the 19th are dropped, and both neighbours must round alike."""
    cdef uint64_t w = 0
    cdef int64_t q = 0, written = 0
    cdef int kept = 0
    cdef bint point = False, digits = False, dropped = False
    cdef double above
    while p < end:
        if c"0" <= p[0] <= c"9":
            digits = True
            if kept < 19:
                w = w * 10 + (p[0] - c"0")
                kept += w != 0
                q -= point
            else:
                dropped = dropped or p[0] != c"0"
                q += not point
        elif p[0] == c"." and not point:
            point = True
        else:
            break
        p += 1
    if not digits:
        return NUMBER_BAD
    if p < end:
        if p[0] | 0x20 != c"e":
            return NUMBER_BAD
        p += 1
        if parse_exponent(&p, end, &written) != NUMBER_OK or p != end:
            return NUMBER_BAD
        q += written
    if w == 0:
        out[0] = -0.0 if negative else 0.0
        return NUMBER_OK
    if not eisel_lemire(w, q, powers, out):
        return NUMBER_UNDECIDED
    if dropped:
        if not eisel_lemire(w + 1, q, powers, &above) or above != out[0]:
            return NUMBER_UNDECIDED
    if negative:
        out[0] = -out[0]
    return NUMBER_OK


cdef inline int parse_number(const unsigned char *p, const unsigned char *end, const uint64_t *powers,
                             double *out) noexcept nogil:
    """Read all of [p, end) as Python's float() would, but without spaces and underscores. Not for empty text."""
    cdef const unsigned char *start
    cdef uint64_t w = 0
    cdef bint negative = p[0] == c"-"
    cdef unsigned int digit
    cdef Py_ssize_t decimals = 0
    if negative or p[0] == c"+":
        p += 1
    start = p
    if end - p > 17 or p == end:
        return parse_slow(p, end, negative, powers, out)
    while p < end:
        digit = <unsigned int> p[0] - c"0"
        if digit > 9:
            break
        w = w * 10 + digit
        p += 1
    if p < end:
        if p[0] != c"." or end - start == 1:
            return parse_slow(start, end, negative, powers, out)
        p += 1
        decimals = end - p
        while p < end:
            digit = <unsigned int> p[0] - c"0"
            if digit > 9:
                return parse_slow(start, end, negative, powers, out)
            w = w * 10 + digit
            p += 1
    if w > <uint64_t> 1 << 53:
        return parse_slow(start, end, negative, powers, out)
    out[0] = <double> w
    if decimals:
        out[0] /= exact_power_of_ten[decimals]
    if negative:
        out[0] = -out[0]
    return NUMBER_OK


cdef inline int parse_slow(const unsigned char *p, const unsigned char *end, bint negative, const uint64_t *powers,
                           double *out) noexcept nogil:
    if p == end:
        return NUMBER_BAD
    if p[0] > c"9":
        return parse_word(p, end, negative, out)
    return parse_long_decimal(p, end, negative, powers, out)
