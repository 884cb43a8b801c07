# The records: one C struct per ring family, and the last-value table's row.
#
# The rule of the file: a struct here is the only place where a record is described; the numpy dtype is derived from it
# (feed.py shows it). Every record begins with the same header. Absent doubles are NaN, absent times 0. Fields keep
# their natural alignment, and what would leave a hole in the middle is ordered so that it does not.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef enum:
    # ibfast.wire.ids.Kind, in C
    KIND_PRICE = 1
    KIND_SIZE = 2
    KIND_GENERIC = 3
    KIND_STRING = 4
    KIND_LAST = 5
    KIND_ALL_LAST = 6
    KIND_RT_VOLUME = 7
    KIND_L1_LAST = 8
    KIND_BID_ASK = 9
    KIND_MIDPOINT = 10
    KIND_L1_QUOTE = 11
    KIND_DEPTH = 12
    KIND_DEPTH_L2 = 13
    KIND_REALTIME_BAR = 14
    KIND_UPDATE_BAR = 15
    KIND_OPTION = 16
    KIND_GAP = 17
    KIND_DEPTH_RESET = 18
    KIND_BACKFILL_TRADE = 19
    KIND_BACKFILL_QUOTE = 20
    KIND_BACKFILL_BAR = 21

cdef enum:
    # Instrument of a row whose req_id found no place in the instrument table.
    NO_INSTRUMENT = 0xFFFFFFFF
    # Set in `attribs` of L1_QUOTE and L1_LAST rows that come from delayed data.
    ATTRIB_DELAYED = 0x100

# Level-1 messages, one row each. 64 bytes.
cdef struct tick_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    int32_t tick_type
    uint32_t attribs
    uint32_t text
    double price
    double size
    uint64_t reserved

# Trades. 64 bytes.
cdef struct trade_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    uint32_t attribs
    int64_t event_ns
    double price
    double size
    uint32_t exchange
    uint32_t conditions

# The full top of book after a change.
cdef struct quote_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    uint32_t attribs
    int64_t event_ns
    double bid
    double ask
    double bid_size
    double ask_size

# One operation on the book: insert 0, update 1, delete 2; side bid 1, ask 0; 255 = absent.
cdef struct depth_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    uint8_t operation
    uint8_t side
    uint8_t attribs
    int32_t position
    double price
    double size
    uint32_t market_maker

# Five-second bars and updating historical bars.
cdef struct bar_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    int32_t count
    int64_t event_ns
    double open
    double high
    double low
    double close
    double volume
    double wap

# Option computations.
cdef struct greeks_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    int32_t tick_type
    int32_t attribs
    double implied_vol
    double delta
    double option_price
    double pv_dividend
    double gamma
    double vega
    double theta
    double und_price

# An interruption of the data: what was missed, from where to where.
cdef struct gap_t:
    uint64_t seq
    int64_t recv_ns
    uint32_t instrument
    int32_t req_id
    uint8_t kind
    uint8_t scope
    uint8_t cause
    uint8_t recovered
    uint64_t first_seq
    uint64_t last_seq
    int64_t first_ns
    int64_t last_ns
    uint64_t count

# One row of the last-value table. `version` is odd while the writer is in the row. Each group of values ends with the
# recv_ns of its own newest value. 256 bytes.
cdef struct last_t:
    uint64_t version
    double bid
    double ask
    double bid_size
    double ask_size
    int64_t quote_recv_ns
    double last
    double last_size
    int64_t last_event_ns
    int64_t last_recv_ns
    double volume
    double vwap
    int64_t volume_recv_ns
    double open
    double high
    double low
    double close
    int64_t session_recv_ns
    double mark
    int64_t mark_recv_ns
    double implied_vol
    double delta
    double gamma
    double vega
    double theta
    double option_price
    double pv_dividend
    double und_price
    int64_t greeks_recv_ns
    double halted
    int64_t halted_recv_ns
    uint64_t reserved

# One row of the instrument table: two cache lines. `generation` grows by one when the row is freed and when it is given
# to another instrument, so an odd one means a free row. The writer changes the other fields only while it is odd.
cdef struct instrument_t:
    uint64_t generation
    int32_t con_id
    char label[52]              # UTF-8, NUL-padded
    char exchange[64]           # likewise
