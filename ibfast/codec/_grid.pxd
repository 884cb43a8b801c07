# Numbers on a grid, as the stream protocol has them: value = n·step / 10^decimals, one product and one division.
#
# The rule of the file: |n·step| is below 2^51, so that the product is exact and the value the same everywhere. On the
# grid means equal to the bit.
#
# No I/O, no clock, no asyncio.

from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from ibfast.codec._bits cimport (
    get_64, get_bits, get_eg, put_bits, put_eg, put_wide, reader_t, unzigzag, writer_t, zigzag,
)


cdef extern from *:
    """
    static const double ibfast_powers_of_ten[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22 };
    #define IBFAST_NAN_BITS 0x7FF8000000000000ULL
    #define IBFAST_MOST_PLACE 2251799813685247.0    /* 2^51 - 1 */
    """
    const double POWERS "ibfast_powers_of_ten"[23]
    const uint64_t NAN_BITS "IBFAST_NAN_BITS"
    const double MOST_PLACE "IBFAST_MOST_PLACE"


cdef enum:
    PLACE_K = 12                # of EG where a place is said in full
    STEP_BITS = 16
    GRID_BITS = 20              # step and decimals
    MOST_DECIMALS = 14

# value = n·whole_step / power, power = 10^decimals.
cdef struct grid_t:
    double step
    double power
    double places               # about power / step
    int64_t whole_step
    int64_t most_n              # |n·step| < 2^51
    int32_t decimals

cdef struct number_t:
    uint64_t bits
    int64_t n


cdef inline uint64_t bits_of(double x) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &x, 8)
    return bits


cdef inline double double_of(uint64_t bits) noexcept nogil:
    cdef double x
    memcpy(&x, &bits, 8)
    return x


cdef inline void grid_init(grid_t *grid, int64_t step, int decimals) noexcept nogil:
    grid.step = <double> step
    grid.power = POWERS[decimals]
    grid.places = grid.power / grid.step
    grid.whole_step = step
    grid.most_n = ((<int64_t> 1 << 51) - 1) // step
    grid.decimals = decimals


cdef inline void put_grid(writer_t *w, const grid_t *grid) noexcept nogil:
    put_bits(w, <uint64_t> (grid.whole_step | <int64_t> grid.decimals << STEP_BITS), GRID_BITS)


cdef inline void get_grid(reader_t *r, grid_t *grid) noexcept nogil:
    cdef uint64_t step = get_bits(r, STEP_BITS)
    cdef uint64_t decimals = get_bits(r, GRID_BITS - STEP_BITS)
    if step == 0 or decimals > MOST_DECIMALS:
        r.failed = True
        return
    grid_init(grid, <int64_t> step, <int> decimals)


cdef inline uint64_t value_bits(const grid_t *grid, int64_t n) noexcept nogil:
    return bits_of(<double> n * grid.step / grid.power)


cdef inline int64_t rounded(double x) noexcept nogil:
    """The nearest integer, for |x| < 2^51."""
    cdef double magic = 6755399441055744.0
    return <int64_t> ((x + magic) - magic)


cdef inline bint find_place(const grid_t *grid, uint64_t bits, int64_t *n) noexcept nogil:
    """Whether a double is on the grid, to the bit, and where."""
    cdef double y = double_of(bits) * grid.places
    if not fabs(y) <= <double> grid.most_n:
        return False
    n[0] = rounded(y)
    return -grid.most_n <= n[0] <= grid.most_n and value_bits(grid, n[0]) == bits


cdef inline void set_place(reader_t *r, number_t *f, const grid_t *grid, int64_t n) noexcept nogil:
    if not -grid.most_n <= n <= grid.most_n:
        r.failed = True
        return
    f.n = n
    f.bits = value_bits(grid, n)


cdef inline void put_state_number(writer_t *w, const number_t *f, const grid_t *grid) noexcept nogil:
    if value_bits(grid, f.n) == f.bits:
        put_bits(w, 1, 1)
    else:
        put_bits(w, 0, 1)
        put_wide(w, f.bits, 64)
    put_eg(w, zigzag(f.n), PLACE_K)


cdef inline void get_state_number(reader_t *r, number_t *f, const grid_t *grid) noexcept nogil:
    cdef bint is_on_grid = get_bits(r, 1)
    cdef uint64_t bits = 0
    if not is_on_grid:
        bits = get_64(r)
    set_place(r, f, grid, unzigzag(get_eg(r, PLACE_K)))
    if not is_on_grid:
        f.bits = bits
