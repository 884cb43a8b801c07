# cython: language_level=3
"""The feed's compiled state: rings, instrument and text tables, last values (`ibfast.feed.feed` is its Python face).

What a message does to this state stands in `_feed.pxd`. This module knows no wire and no asyncio.
"""

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

import numpy as np

from ibfast.feed._atomic cimport fence_full, fence_release, store_relaxed, store_release
from ibfast.feed._records cimport (
    KIND_BACKFILL_BAR, KIND_BACKFILL_QUOTE, KIND_BACKFILL_TRADE, KIND_DEPTH_RESET, KIND_GAP, NO_INSTRUMENT, bar_t,
    depth_t, gap_t, greeks_t, instrument_t, last_t, quote_t, tick_t, trade_t,
)

from ibfast.errors import FeedError

cdef dict CONTRACTS = {"IND": CONTRACT_INDEX, "BAG": CONTRACT_COMBO}

NO_INSTRUMENT_INDEX = <uint32_t> NO_INSTRUMENT
TABLES_CONTROL_BYTES = sizeof(tables_control_t)

cdef enum:
    FIRST_REQUEST_SLOTS = 1024
    MAX_REQ_ID = 0x7FFFFFFF
    NOT_SAID = 255
    LABEL_BYTES = 52
    EXCHANGE_BYTES = 64

# The label of the instrument that all requests share which nobody bound.
cdef bytes UNSOLICITED_LABEL = b"unsolicited"
cdef const char *UNSOLICITED = UNSOLICITED_LABEL
cdef size_t UNSOLICITED_BYTES = len(UNSOLICITED_LABEL)


def _public_dtype(described):
    """The dtype of a C struct as Cython exports it, without what is there for the alignment only.

    It is marked as aligned: numpy packs the rows of any other dtype where it joins arrays.
    """
    dtype = np.asarray(described).dtype
    names = [name for name in dtype.names if not name.startswith("reserved")]
    fields = [dtype.fields[name] for name in names]
    # Cython exports an array of char as an array of texts of one byte.
    return np.dtype({"names": names, "formats": [f"S{field[0].itemsize}" if field[0].shape else field[0]
                                                 for field in fields],
                     "offsets": [field[1] for field in fields], "itemsize": dtype.itemsize}, align=True)


def _dtypes():
    cdef tick_t tick
    cdef trade_t trade
    cdef quote_t quote
    cdef depth_t depth
    cdef bar_t bar
    cdef greeks_t greeks
    cdef gap_t gap
    cdef last_t last
    cdef instrument_t instrument
    return {
        "ticks": _public_dtype(<tick_t[:1]> &tick),
        "trades": _public_dtype(<trade_t[:1]> &trade),
        "quotes": _public_dtype(<quote_t[:1]> &quote),
        "depth": _public_dtype(<depth_t[:1]> &depth),
        "bars": _public_dtype(<bar_t[:1]> &bar),
        "greeks": _public_dtype(<greeks_t[:1]> &greeks),
        "gaps": _public_dtype(<gap_t[:1]> &gap),
        "last": _public_dtype(<last_t[:1]> &last),
        "instruments": _public_dtype(<instrument_t[:1]> &instrument),
    }


# The numpy dtypes of the rings and tables, derived from the C structs of _records.pxd.
DTYPES = _dtypes()


def _activity_dtype():
    cdef activity_t activity
    return _public_dtype(<activity_t[:1]> &activity)


ACTIVITY = _activity_dtype()


cdef uint32_t new_instrument(feed_t *f, int32_t con_id, const char *label, size_t label_bytes, const char *exchange,
                             size_t exchange_bytes) noexcept nogil:
    """Give an instrument a free row of the table, else a new one; NO_INSTRUMENT when the table is full."""
    cdef uint32_t i = <uint32_t> f.counts.instruments
    cdef instrument_t *row
    if f.free_count:
        i = f.free_rows[f.first_free]
        f.first_free = (f.first_free + 1) % f.max_instruments
        f.free_count -= 1
    elif i == f.max_instruments:
        return NO_INSTRUMENT
    row = f.instruments + i
    row.con_id = con_id
    memset(row.label, 0, LABEL_BYTES)
    memcpy(row.label, label, min(label_bytes, <size_t> LABEL_BYTES))
    memset(row.exchange, 0, EXCHANGE_BYTES)
    memcpy(row.exchange, exchange, min(exchange_bytes, <size_t> EXCHANGE_BYTES))
    if i == f.counts.instruments:
        f.counts.instruments = i + 1
        store_release(&f.control.instruments, i + 1)
    else:
        store_release(&row.generation, row.generation + 1)
    return i


cdef void free_row(feed_t *f, uint32_t i) noexcept nogil:
    """Take an instrument's row back. No request is bound to it, and no ring has a row of it."""
    cdef instrument_t *row = f.instruments + i
    cdef last_t *last
    store_relaxed(&row.generation, row.generation + 1)
    fence_release()
    row.con_id = 0
    memset(row.label, 0, LABEL_BYTES)
    memset(row.exchange, 0, EXCHANGE_BYTES)
    last = last_open(f, i)
    memcpy(<char *> last + sizeof(last.version), <char *> &f.no_values + sizeof(last.version),
           sizeof(last_t) - sizeof(last.version))
    last_close(last)
    f.free_rows[(f.first_free + f.free_count) % f.max_instruments] = i
    f.free_count += 1


cdef bint reserve_request_slot(feed_t *f) noexcept nogil:
    """Keep the request map at most half full. False if there is no memory."""
    cdef request_slot_t *old = f.requests
    cdef request_slot_t *slots
    cdef uint32_t i, k, n = f.requests_mask + 1
    if f.requests_used * 2 < n:
        return True
    slots = <request_slot_t *> malloc(2 * n * sizeof(request_slot_t))
    if slots == NULL:
        return False
    memset(slots, 0xFF, 2 * n * sizeof(request_slot_t))
    f.requests = slots
    f.requests_mask = 2 * n - 1
    for i in range(n):
        if old[i].instrument != NO_INSTRUMENT:
            k = request_slot(f, old[i].req_id)
            slots[k] = old[i]
    free(old)
    return True


cdef uint32_t request_slot(feed_t *f, int32_t req_id) noexcept nogil:
    """The slot of a request, or the free one where it belongs."""
    cdef uint32_t i = request_hash(req_id) & f.requests_mask
    while f.requests[i].instrument != NO_INSTRUMENT and f.requests[i].req_id != req_id:
        i = (i + 1) & f.requests_mask
    return i


cdef void free_request_slot(feed_t *f, uint32_t free_) noexcept nogil:
    """Empty a slot, and move up what stands behind it and would not be found across the hole."""
    cdef uint32_t home, i = free_
    f.requests_used -= 1
    f.unsolicited_requests -= is_unsolicited(f, f.requests[free_].instrument)
    while True:
        i = (i + 1) & f.requests_mask
        if f.requests[i].instrument == NO_INSTRUMENT:
            f.requests[free_].instrument = NO_INSTRUMENT
            return
        home = request_hash(f.requests[i].req_id) & f.requests_mask
        if ((i - home) & f.requests_mask) >= ((i - free_) & f.requests_mask):
            f.requests[free_] = f.requests[i]
            free_ = i


cdef request_slot_t *bind_request(feed_t *f, int32_t req_id, uint32_t instrument) noexcept nogil:
    """Bind anew: no activity yet, and a level-1 state that knows nothing. NULL if there is no memory."""
    cdef request_slot_t *request
    cdef level1_t *l1
    if not reserve_request_slot(f):
        return NULL
    request = f.requests + request_slot(f, req_id)
    f.requests_used += request.instrument == NO_INSTRUMENT
    f.unsolicited_requests += is_unsolicited(f, instrument) - is_unsolicited(f, request.instrument)
    memset(request, 0, sizeof(request_slot_t))
    request.req_id = req_id
    request.instrument = instrument
    l1 = &request.level1
    l1.price[SIDE_BID] = l1.price[SIDE_ASK] = l1.size[SIDE_BID] = l1.size[SIDE_ASK] = NAN
    l1.last = l1.echo_size = NAN
    return request


cdef request_slot_t *bind_new_request(feed_t *f, int32_t req_id) noexcept nogil:
    """Bind a request that nobody bound to the unsolicited instrument; `nobody`, counted, where there is no room.

    All such requests share one instrument, and there are as many of them as the instrument table has rows: a gateway
    that sends one id after the other fills nothing up. A late message, of a request that was bound and forgotten,
    belongs to nobody too.
    """
    cdef request_slot_t *request = NULL
    if 0 < req_id <= f.last_req_id:
        f.late += 1
        return &f.nobody
    if f.unsolicited == NO_INSTRUMENT:
        f.unsolicited = new_instrument(f, 0, UNSOLICITED, UNSOLICITED_BYTES, b"", 0)
    if f.unsolicited != NO_INSTRUMENT and f.unsolicited_requests < f.max_instruments:
        request = bind_request(f, req_id, f.unsolicited)
    if request == NULL:
        f.counts.instruments_refused += 1
        f.control.instruments_refused = f.counts.instruments_refused
        return &f.nobody
    return request


cdef void write_gap(feed_t *f, request_slot_t *request, int64_t recv_ns) noexcept nogil:
    """Append the row of a request's gap that comes before its next record, which is the next one of all."""
    cdef gap_t *row = <gap_t *> ring_claim(f.gaps)
    memset(row, 0, sizeof(gap_t))
    f.seq += 1
    row.seq = f.seq
    row.recv_ns = recv_ns
    row.instrument = request.instrument
    row.req_id = request.req_id
    row.kind = KIND_GAP
    row.scope = request.gap_scope
    row.cause = request.gap_cause
    row.first_seq = request.gap_first_seq
    row.first_ns = request.gap_first_ns
    if request.gap_ends:
        row.recovered = True
        row.last_seq = f.seq + 1
        row.last_ns = max(recv_ns, request.gap_first_ns)  # the system's clock may have been set back meanwhile
    request.gap_first_seq = 0


cdef inline bint is_unsolicited(feed_t *f, uint32_t instrument) noexcept nogil:
    return instrument == f.unsolicited and instrument != NO_INSTRUMENT


cdef uint32_t intern_new(feed_t *f, const unsigned char *p, Py_ssize_t n, uint64_t hash_) noexcept nogil:
    """Append a text that the table does not hold; TEXT_OTHER, counted, when it is full."""
    cdef uint32_t id_ = <uint32_t> f.counts.texts
    cdef uint64_t start = f.text_offsets[id_]
    cdef uint32_t i
    if id_ >= f.max_texts or start + n > f.text_arena_bytes:
        f.counts.texts_refused += 1
        f.control.texts_refused = f.counts.texts_refused
        return TEXT_OTHER
    memcpy(f.text_arena + start, p, n)
    f.text_offsets[id_ + 1] = f.shown_text_offsets[id_ + 1] = <uint32_t> (start + n)
    i = <uint32_t> (hash_ >> 20) & f.text_slots_mask
    while f.text_slots[i]:
        i = (i + 1) & f.text_slots_mask
    f.text_slots[i] = id_
    f.counts.texts = id_ + 1
    f.control.text_bytes = start + n
    store_release(&f.control.texts, id_ + 1)
    return id_


def _cut(str text, Py_ssize_t most):
    """Return a text as UTF-8, cut between characters where it is longer than so many bytes."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").encode()


cdef class FeedCore:
    """The writer's side of a feed.

    Args:
        memory: one writable, zeroed, 64-byte aligned buffer that holds everything readers see.
        offsets: where in it each part begins: "control", "last", "instruments", "text_offsets", "text_arena".
        rings: the rings over the same memory, by name.
        max_instruments, max_texts, arena_bytes: the bounds of the tables.
    """

    def __cinit__(self, memory, dict offsets, dict rings, uint32_t max_instruments, uint32_t max_texts,
                  uint64_t arena_bytes):
        cdef Py_buffer view
        cdef char *base
        cdef uint32_t slots = 4
        cdef feed_t *f = &self.c
        self.memory = memory
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        base = <char *> view.buf
        PyBuffer_Release(&view)
        f.control = <tables_control_t *> (base + <size_t> offsets["control"])
        f.last = <last_t *> (base + <size_t> offsets["last"])
        f.instruments = <instrument_t *> (base + <size_t> offsets["instruments"])
        f.shown_text_offsets = <uint32_t *> (base + <size_t> offsets["text_offsets"])
        f.text_offsets = <uint32_t *> calloc(<size_t> max_texts + 1, sizeof(uint32_t))
        f.text_arena = base + <size_t> offsets["text_arena"]
        f.text_arena_bytes = arena_bytes
        f.max_instruments = max_instruments
        f.max_texts = max_texts
        while slots < 2 * max_texts:
            slots *= 2
        f.text_slots_mask = slots - 1
        f.text_slots = <uint32_t *> calloc(slots, sizeof(uint32_t))
        f.free_rows = <uint32_t *> malloc(max_instruments * sizeof(uint32_t))
        f.requests_mask = FIRST_REQUEST_SLOTS - 1
        f.requests = <request_slot_t *> malloc(FIRST_REQUEST_SLOTS * sizeof(request_slot_t))
        if f.text_slots == NULL or f.text_offsets == NULL or f.requests == NULL or f.free_rows == NULL:
            raise MemoryError
        f.no_values = f.last[0]
        f.nobody.instrument = f.unsolicited = NO_INSTRUMENT
        self.take_rings(rings)
        self.forget_all_requests()
        f.counts.texts = f.control.texts = 1     # TEXT_EMPTY
        other = b"<other>"
        intern(f, <const unsigned char *> <char *> other, len(other))

    def __dealloc__(self):
        free(self.c.text_slots)
        free(self.c.text_offsets)
        free(self.c.requests)
        free(self.c.free_rows)

    def take_rings(self, dict rings):
        """Point the writer at its rings."""
        self.ticks_ring = rings["ticks"]
        self.trades_ring = rings["trades"]
        self.quotes_ring = rings["quotes"]
        self.depth_ring = rings["depth"]
        self.bars_ring = rings["bars"]
        self.greeks_ring = rings["greeks"]
        self.gaps_ring = rings["gaps"]
        self.c.ticks = &self.ticks_ring.c
        self.c.trades = &self.trades_ring.c
        self.c.quotes = &self.quotes_ring.c
        self.c.depth = &self.depth_ring.c
        self.c.bars = &self.bars_ring.c
        self.c.greeks = &self.greeks_ring.c
        self.c.gaps = &self.gaps_ring.c

    cdef int publish(self) except -1:
        """Show all filled rows and wake their readers: once per socket read."""
        cdef bint gaps = self.gaps_ring.publish()  # first: a reader that sees a row after a gap sees the gap
        cdef bint ticks = self.ticks_ring.publish()
        cdef bint trades = self.trades_ring.publish()
        cdef bint quotes = self.quotes_ring.publish()
        cdef bint depth = self.depth_ring.publish()
        cdef bint bars = self.bars_ring.publish()
        cdef bint greeks = self.greeks_ring.publish()
        fence_full()
        if gaps:
            self.gaps_ring.ring_doorbell()
        if ticks:
            self.ticks_ring.ring_doorbell()
        if trades:
            self.trades_ring.ring_doorbell()
        if quotes:
            self.quotes_ring.ring_doorbell()
        if depth:
            self.depth_ring.ring_doorbell()
        if bars:
            self.bars_ring.ring_doorbell()
        if greeks:
            self.greeks_ring.ring_doorbell()
        return 0

    @property
    def seq(self):
        """The sequence number of the newest record of all rings."""
        return self.c.seq

    def add_instrument(self, str label, int32_t con_id=0, str exchange=""):
        """Give a row to an instrument and return its index; FeedError when the table is full."""
        cdef bytes name = _cut(label, LABEL_BYTES), place = _cut(exchange, EXCHANGE_BYTES)
        instrument = new_instrument(&self.c, con_id, name, len(name), place, len(place))
        if instrument == NO_INSTRUMENT:
            raise FeedError(
                f"all {self.c.max_instruments} instruments are taken: give the Feed more max_instruments, or the Config"
            )
        return instrument

    @property
    def is_full(self):
        """Whether there is no row for another instrument."""
        return self.c.counts.instruments == self.c.max_instruments and not self.c.free_count

    def free_instrument(self, uint32_t instrument):
        """Take an instrument's row back. The caller has looked at `bound` and `in_rings`."""
        self.require_instrument(instrument)
        free_row(&self.c, instrument)

    def bound(self):
        """Which instruments requests are bound to, as a mask over the table."""
        cdef uint32_t i
        mask = np.zeros(self.c.max_instruments, np.bool_)
        cdef unsigned char[::1] marks = mask.view(np.uint8)
        for i in range(self.c.requests_mask + 1):
            if self.c.requests[i].instrument != NO_INSTRUMENT:
                marks[self.c.requests[i].instrument] = 1
        return mask

    def in_rings(self):
        """Of which instruments rings hold rows, as a mask over the table."""
        mask = np.zeros(self.c.max_instruments, np.bool_)
        cdef unsigned char[::1] marks = mask.view(np.uint8)
        cdef Ring ring
        cdef uint64_t position
        cdef uint32_t instrument
        for ring in (self.ticks_ring, self.trades_ring, self.quotes_ring, self.depth_ring, self.bars_ring,
                     self.greeks_ring, self.gaps_ring):
            for position in range(ring.c.head - min(ring.c.head, ring.c.mask + 1), ring.c.head):
                # The header is the same in all records.
                instrument = (<tick_t *> (ring.c.rows + (position & ring.c.mask) * ring.c.itemsize)).instrument
                if instrument < self.c.max_instruments:
                    marks[instrument] = 1
        return mask

    cdef int require_instrument(self, uint32_t instrument) except -1:
        if instrument >= self.c.counts.instruments or self.c.instruments[instrument].generation & 1:
            raise FeedError(f"there is no instrument {instrument}")
        return 0

    @property
    def late(self):
        """How many messages came of requests that had been forgotten."""
        return self.c.late

    @property
    def last_req_id(self):
        """The newest request id that `next_req_id` has given; 0 before the first."""
        return self.c.last_req_id

    def next_req_id(self):
        """A request id that was never given before."""
        if self.c.last_req_id == MAX_REQ_ID:
            raise FeedError("all request ids have been used: make a new Feed")
        self.c.last_req_id += 1
        return self.c.last_req_id

    def bind(self, int32_t req_id, uint32_t instrument, str sec_type=""):
        """Have all messages of a request belong to an instrument until it is forgotten; its activity begins anew."""
        cdef request_slot_t *request
        self.require_instrument(instrument)
        request = bind_request(&self.c, req_id, instrument)
        if request == NULL:
            raise MemoryError
        request.level1.contract = CONTRACTS.get(sec_type, CONTRACT_OTHER)

    def instrument_of_request(self, int32_t req_id):
        """The instrument that a request is bound to, None if it is not."""
        cdef uint32_t i = request_slot(&self.c, req_id)
        return None if self.c.requests[i].instrument == NO_INSTRUMENT else self.c.requests[i].instrument

    def forget_all_requests(self):
        """Unbind every request, and so forget its activity and its merged quote."""
        memset(self.c.requests, 0xFF, (self.c.requests_mask + 1) * sizeof(request_slot_t))
        self.c.requests_used = self.c.unsolicited_requests = 0

    def forget_request(self, int32_t req_id):
        """Unbind one request, if it is bound."""
        cdef uint32_t i = request_slot(&self.c, req_id)
        if self.c.requests[i].instrument != NO_INSTRUMENT:
            free_request_slot(&self.c, i)

    def activity(self, const int32_t[::1] req_ids):
        """What came so far of each of these requests, as an array of ACTIVITY; zeros where one is not bound."""
        cdef Py_ssize_t n
        cdef request_slot_t *request
        told = np.zeros(len(req_ids), ACTIVITY)
        cdef activity_t[::1] rows = told
        for n in range(len(req_ids)):
            request = self.c.requests + request_slot(&self.c, req_ids[n])
            rows[n].req_id = req_ids[n]
            if request.instrument != NO_INSTRUMENT:
                rows[n].messages = request.messages
                rows[n].first_recv_ns = request.first_recv_ns
                rows[n].last_recv_ns = request.last_recv_ns
                rows[n].first_seq = request.first_seq
                rows[n].last_seq = request.last_seq
        return told

    def await_gap(self, int32_t req_id, int scope, int cause, uint64_t first_seq, int64_t first_ns, bint ends):
        """Have a gap's row come before the next record of a request, which counts as its first one in `activity`."""
        cdef request_slot_t *request = self.c.requests + request_slot(&self.c, req_id)
        if request.instrument != NO_INSTRUMENT:
            request.first_seq = 0
            request.gap_first_seq, request.gap_first_ns = first_seq, first_ns
            request.gap_scope, request.gap_cause, request.gap_ends = scope, cause, ends

    def forget_gap(self, int32_t req_id):
        """Have no gap's row come before the next record of a request."""
        cdef uint32_t i = request_slot(&self.c, req_id)
        if self.c.requests[i].instrument != NO_INSTRUMENT:
            self.c.requests[i].gap_first_seq = 0

    def add_book_reset(self, int64_t recv_ns, int32_t req_id):
        """Append a DEPTH_RESET row to `depth` and publish it."""
        row = np.zeros(1, DTYPES["depth"])
        row[["price", "size"]] = np.nan
        row[["operation", "side"]] = NOT_SAID
        row["position"] = -1
        self.c.seq += 1
        row["seq"], row["recv_ns"], row["req_id"], row["kind"] = self.c.seq, recv_ns, req_id, KIND_DEPTH_RESET
        row["instrument"] = request_of(&self.c, req_id).instrument
        self.depth_ring.append(row)

    def text_id(self, str text):
        """The id of a text, interned on first use."""
        encoded = text.encode()
        return intern(&self.c, <const unsigned char *> <char *> encoded, len(encoded))

    def add_history(self, str ring, rows):
        """Append rows of the past to `trades`, `quotes` or `bars`, numbered anew and marked, and publish them."""
        cdef Ring target
        target, kind = {
            "trades": (self.trades_ring, KIND_BACKFILL_TRADE),
            "quotes": (self.quotes_ring, KIND_BACKFILL_QUOTE),
            "bars": (self.bars_ring, KIND_BACKFILL_BAR),
        }[ring]
        marked = np.array(rows, target.dtype)
        marked["kind"] = kind
        marked["seq"] = np.arange(len(marked), dtype=np.uint64) + self.c.seq + 1
        self.c.seq += <uint64_t> len(marked)
        target.append(marked)

    def add_gap(self, int64_t recv_ns, int scope, int cause, uint32_t instrument, int32_t req_id, uint64_t first_seq,
                uint64_t last_seq, int64_t first_ns, int64_t last_ns, uint64_t count, bint recovered):
        """Append a row of `gaps` and publish it."""
        row = np.zeros(1, DTYPES["gaps"])
        self.c.seq += 1
        row[0] = (self.c.seq, recv_ns, instrument, req_id, KIND_GAP, scope, cause, recovered, first_seq, last_seq,
                  first_ns, last_ns, count)
        self.gaps_ring.append(row)
