# Rows of a channel, to bits and back.
#
# The rule of the file: `put_row` and `get_row` change the state in the same way, so that whoever has read a row's bits
# has the writer's state. What only a writer knows (which codes it would like, which texts it has used) is in its pen.

from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t, uint32_t, uint64_t

from ibfast._bits cimport reader_t, writer_t
from ibfast._state cimport FAMILIES, K_NUMBERS, state_t


# A writer's own knowledge of its channel.
cdef struct pen_t:
    int16_t costlier[K_NUMBERS]         # bits that k+1 would have cost more
    int16_t cheaper[K_NUMBERS]          # bits that k−1 would have cost more
    int16_t seen[K_NUMBERS]
    int8_t wish                         # the k to be changed with the next row; −1: none
    uint8_t wished
    uint32_t index                      # of the channel, for `new_texts`
    uint32_t absent[FAMILIES]           # columns that are not wanted, one bit each
    uint8_t *texts                      # one bit for each text id that was used
    uint64_t texts_bytes
    text_log_t *log

# Texts that channels have used for the first time: pairs of channel index and text id.
cdef struct text_log_t:
    uint32_t *pairs
    size_t used
    size_t size


cdef void pen_init(pen_t *pen, uint32_t index, text_log_t *log) noexcept nogil
cdef void pen_free(pen_t *pen) noexcept nogil

cdef void put_head(writer_t *w, state_t *s, pen_t *pen, int i, uint64_t v) noexcept nogil
cdef int put_row(writer_t *w, state_t *s, pen_t *pen, int family, const char *row, int64_t recv_ns) noexcept nogil
cdef int get_row(reader_t *r, state_t *s, int family, int64_t recv_ns, char *row) noexcept nogil
cdef int64_t floor_to(int64_t t, int64_t unit) noexcept nogil
