# Bits of the stream protocol: writing and reading numbers of any width, Exp-Golomb codes and evenly spread numbers.
#
# The rule of the file: a byte fills from its lowest bit on. A writer's memory has room for what is written before
# `writer_room` is asked for again. A reader may look `READER_SLACK` bytes beyond its message, which the caller
# provides; it never stops by itself: `failed` stays set, and all that is read from then on is meaningless.
#
# No I/O, no clock, no asyncio.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy


cdef extern from *:
    """
    #if defined(_MSC_VER)
      #include <intrin.h>
      static __forceinline int ibfast_top_bit(uint64_t v) { unsigned long i; _BitScanReverse64(&i, v); return (int)i; }
      static __forceinline int ibfast_low_bit(uint64_t v) { unsigned long i; _BitScanForward64(&i, v); return (int)i; }
    #else
      #define ibfast_top_bit(v) (63 - __builtin_clzll(v))
      #define ibfast_low_bit(v) __builtin_ctzll(v)
    #endif
    """
    int top_bit "ibfast_top_bit"(uint64_t v) noexcept nogil     # of a number that is not 0
    int low_bit "ibfast_low_bit"(uint64_t v) noexcept nogil


cdef enum:
    WRITER_ROOM = 1024          # bytes that `writer_room` makes free; more than any row takes
    READER_SLACK = 1024         # likewise: `failed` is looked at once per row
    EG_MOST_BITS = 52           # of what follows the one
    PUT_BITS = 56
    PEEKED_BITS = 57            # of eight bytes, whichever bit they are read from

# `start` to `end` is memory of realloc; the bits from `at` on are in `held`, less than eight.
cdef struct writer_t:
    uint8_t *start
    uint8_t *end
    uint8_t *at
    uint64_t held
    int bits

cdef struct reader_t:
    const uint8_t *data
    uint64_t at                 # in bits
    uint64_t end
    bint failed


cdef inline int writer_room(writer_t *w) noexcept nogil:
    """Make room for `WRITER_ROOM` bytes more. -1: there is no memory."""
    cdef size_t used = w.at - w.start
    cdef size_t size
    cdef void *memory
    if <size_t> (w.end - w.at) >= WRITER_ROOM:
        return 0
    size = 2 * (used + WRITER_ROOM)
    memory = realloc(w.start, size)
    if memory == NULL:
        return -1
    w.start = <uint8_t *> memory
    w.at = w.start + used
    w.end = w.start + size
    return 0


cdef inline void put_bits(writer_t *w, uint64_t value, int n) noexcept nogil:
    """Write n bits, `PUT_BITS` at most; value has no others."""
    # Whole bytes leave at once, without a branch: how many there are is nothing that a processor can predict.
    w.held |= value << w.bits
    w.bits += n
    memcpy(w.at, &w.held, 8)
    w.at += w.bits >> 3
    w.held >>= w.bits & ~7
    w.bits &= 7


cdef inline void put_wide(writer_t *w, uint64_t value, int n) noexcept nogil:
    """Write n bits, 64 at most."""
    if n > 32:
        put_bits(w, <uint32_t> value, 32)
        value >>= 32
        n -= 32
    put_bits(w, value, n)


cdef inline void put_end(writer_t *w) noexcept nogil:
    """Fill the last byte with zeros."""
    w.at += w.bits > 0
    w.held = 0
    w.bits = 0


cdef inline bint eg_fits(uint64_t v, int k) noexcept nogil:
    return v < (<uint64_t> 2 << EG_MOST_BITS) - (<uint64_t> 1 << k)


cdef inline int eg_bits(uint64_t v, int k) noexcept nogil:
    """How long EG(k) of v is."""
    return 2 * top_bit(v + (<uint64_t> 1 << k)) + 1 - k


cdef inline void put_eg(writer_t *w, uint64_t v, int k) noexcept nogil:
    """Write EG(k) of v, which must fit (`eg_fits`)."""
    cdef uint64_t x = v + (<uint64_t> 1 << k)
    cdef int top = top_bit(x)
    cdef int unary = top - k + 1
    x ^= <uint64_t> 1 << top
    if unary + top <= PUT_BITS:
        put_bits(w, (<uint64_t> 1 << (unary - 1)) | (x << unary), unary + top)
        return
    put_wide(w, <uint64_t> 1 << (unary - 1), unary)
    put_wide(w, x, top)


cdef inline void put_uniform(writer_t *w, uint32_t v, uint32_t n) noexcept nogil:
    """Write U(n) of v < n <= 2^31."""
    cdef int b
    cdef uint32_t u
    cdef uint64_t x
    cdef bint is_long
    if n <= 1:
        return
    b = top_bit(n - 1) + 1
    u = (<uint32_t> 1 << b) - n
    # Without a branch, as above.
    is_long = v >= u
    x = v + u
    x = (x >> 1) | (x & 1) << (b - 1)
    put_bits(w, x if is_long else v, b - 1 + is_long)


cdef inline uint64_t zigzag(int64_t v) noexcept nogil:
    return (<uint64_t> v << 1) ^ <uint64_t> (v >> 63)


cdef inline int64_t unzigzag(uint64_t v) noexcept nogil:
    return <int64_t> ((v >> 1) ^ (0 - (v & 1)))


cdef inline void reader_start(reader_t *r, const uint8_t *data, uint64_t nbytes, uint64_t at) noexcept nogil:
    r.data = data
    r.at = at
    r.end = nbytes * 8
    r.failed = False


cdef inline bint read_too_far(reader_t *r) noexcept nogil:
    """Whether anything was read that is not there, or that no writer writes."""
    if r.at > r.end:
        r.failed = True
    return r.failed


cdef inline uint64_t peek(reader_t *r) noexcept nogil:
    """The next bits, of which `PEEKED_BITS` are right."""
    cdef uint64_t x
    memcpy(&x, r.data + (r.at >> 3), 8)
    return x >> (r.at & 7)


cdef inline uint64_t get_bits(reader_t *r, int n) noexcept nogil:
    """Read n bits, `PEEKED_BITS` at most."""
    cdef uint64_t x = peek(r) & ((<uint64_t> 1 << n) - 1)
    r.at += n
    return x


cdef inline uint64_t get_64(reader_t *r) noexcept nogil:
    cdef uint64_t low = get_bits(r, 32)
    return low | get_bits(r, 32) << 32


cdef inline uint64_t get_eg(reader_t *r, int k) noexcept nogil:
    """Read EG(k)."""
    cdef uint64_t x = peek(r)
    cdef int zeros = low_bit(x | <uint64_t> 1 << (PEEKED_BITS - 1))
    cdef int t = k + zeros
    if t > EG_MOST_BITS:
        r.failed = True
        return 0
    if zeros + 1 + t <= PEEKED_BITS:
        r.at += zeros + 1 + t
        x >>= zeros + 1
        return (((<uint64_t> 1 << t) - 1) & x | <uint64_t> 1 << t) - (<uint64_t> 1 << k)
    r.at += zeros + 1
    return (<uint64_t> 1 << t | get_bits(r, t)) - (<uint64_t> 1 << k)


cdef inline uint64_t get_eg_below(reader_t *r, int k, uint64_t bound) noexcept nogil:
    """Read EG(k) of a number that must be below the bound."""
    cdef uint64_t v = get_eg(r, k)
    if v >= bound:
        r.failed = True
        return 0
    return v


cdef inline uint32_t get_uniform(reader_t *r, uint32_t n) noexcept nogil:
    """Read U(n), n <= 2^31."""
    cdef int b
    cdef uint32_t u, x
    cdef uint64_t next_bits
    cdef bint is_long
    if n <= 1:
        return 0
    b = top_bit(n - 1) + 1
    u = (<uint32_t> 1 << b) - n
    next_bits = peek(r)
    x = <uint32_t> (next_bits & ((<uint64_t> 1 << (b - 1)) - 1))
    is_long = x >= u
    r.at += b - 1 + is_long
    return (x << 1 | <uint32_t> (next_bits >> (b - 1) & 1)) - u if is_long else x


cdef inline uint8_t *put_varint(uint8_t *at, uint64_t v) noexcept nogil:
    """Write a varint, ten bytes at most, and return where it ends."""
    while v > 0x7F:
        at[0] = <uint8_t> (v | 0x80)
        v >>= 7
        at += 1
    at[0] = <uint8_t> v
    return at + 1


cdef inline int varint_bytes(uint64_t v) noexcept nogil:
    return top_bit(v | 1) // 7 + 1


cdef inline uint64_t get_varint(reader_t *r) noexcept nogil:
    """Read a varint at a byte's start: 63 bits at most."""
    cdef uint64_t v = 0
    cdef int shift
    cdef uint64_t byte
    for shift in range(0, 63, 7):
        byte = get_bits(r, 8)
        v |= (byte & 0x7F) << shift
        if byte < 0x80:
            return v
    r.failed = True
    return 0
