# A ring of fixed-size rows: one writer, any number of readers, no waiting on either side.
#
# The rule of the file: only the writer stores `reserved` and `published`; a reader owns nothing but its position.
#   writer: reserved = n + 1; release fence; fill row n; …; published = n + 1 (release)
#   reader: published (acquire); copy rows; acquire fence; reserved. A row n it copied is intact when reserved then
#           stood at n + capacity or less, because the writer announces a row before it touches it.
# Positions count rows from the ring's birth and never wrap (64 bits).

from libc.stdint cimport uint32_t, uint64_t

from ibfast.feed._atomic cimport fence_release, store_relaxed


# The part of a ring that readers in other processes see; a cache line each for constants, cursors and doorbell.
cdef struct ring_control_t:
    uint64_t capacity
    uint64_t itemsize
    uint64_t reserved_0[6]
    uint64_t reserved
    uint64_t published
    uint64_t reserved_1[6]
    uint32_t armed
    uint32_t doorbell
    uint64_t reserved_2[7]

# Our own view. `head` is the writer's next row; rows from `shown` to it are filled but not yet published. The writer
# never reads its counters from the memory, nobody its capacity after the ring was made.
cdef struct ring_t:
    ring_control_t *control
    char *rows
    uint64_t head
    uint64_t shown
    uint64_t mask
    uint64_t itemsize


cdef inline void *ring_claim(ring_t *ring) noexcept nogil:
    """Announce the next row and return it for filling. It may hold an old row's bytes."""
    cdef char *row = ring.rows + (ring.head & ring.mask) * ring.itemsize
    ring.head += 1
    store_relaxed(&ring.control.reserved, ring.head)
    fence_release()
    return row


cdef class Ring:
    cdef ring_t c
    cdef object memory          # a memoryview: keeps the bytes alive and where they are
    cdef object check           # called before each look at the memory, if it is not None
    cdef list callbacks         # called once, at the next publish of rows, then dropped
    cdef readonly object dtype
    cdef readonly bint writable

    cdef bint publish(self) noexcept nogil
    cdef int ring_doorbell(self) except -1
    cdef uint64_t load_cursors(self, uint64_t position, uint64_t *reserved) except? 0xFFFFFFFFFFFFFFFF


cdef class Cursor:
    cdef readonly Ring ring
    cdef readonly uint64_t position
    cdef readonly uint64_t lost
    cdef uint64_t borrowed

    cdef uint64_t skip_overwritten(self) except? 0xFFFFFFFFFFFFFFFF
    cdef uint64_t overwritten(self) noexcept nogil
    cdef int check_returned(self) except -1
