# Messages of the stream protocol: their first bytes, what stands around pieces, and memory that grows.

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset


cdef enum:
    # first bytes; those of clocks and windows have the class in their low bits
    CLOCK = 0x10
    SNAPSHOT = 0x20
    LAG = 0x30
    TEXT = 0x40
    WINDOW = 0x80
    CLASSES = 16
    BINARY_FRAME = 0x82

    # gaps between channels
    GAP_BITS = 3
    MOST_GAP = 6
    MOST_SKIP = 31
    MOST_CHANNEL = 1 << 24

    # EG of a row's seq: the first one's distance from the window's, and the others' steps
    SEQ_FIRST_K = 5
    SEQ_STEP_K = 4


cdef inline int grown(void **memory, size_t *size, size_t wanted, size_t itemsize) except -1:
    """Have room for so many items at least."""
    cdef size_t new_size
    cdef void *new
    if wanted <= size[0]:
        return 0
    new_size = 2 * wanted + 16
    new = realloc(memory[0], new_size * itemsize)
    if new == NULL:
        raise MemoryError
    memory[0] = new
    size[0] = new_size
    return 0


cdef inline int grown_with_zeros(void **memory, size_t *size, size_t wanted, size_t itemsize) except -1:
    """Likewise, what is new being zeros."""
    cdef size_t old = size[0]
    grown(memory, size, wanted, itemsize)
    memset(<char *> memory[0] + old * itemsize, 0, (size[0] - old) * itemsize)
    return 0


cdef inline uint8_t *put_frame_header(uint8_t *at, size_t nbytes) noexcept nogil:
    """Write the header of a binary WebSocket frame, and return where it ends."""
    cdef int i
    at[0] = BINARY_FRAME
    if nbytes < 126:
        at[1] = <uint8_t> nbytes
        return at + 2
    if nbytes < 1 << 16:
        at[1] = 126
        at[2] = <uint8_t> (nbytes >> 8)
        at[3] = <uint8_t> nbytes
        return at + 4
    at[1] = 127
    for i in range(8):
        at[2 + i] = <uint8_t> (<uint64_t> nbytes >> (56 - 8 * i))
    return at + 10
