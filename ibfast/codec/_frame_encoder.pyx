# cython: language_level=3
"""The sending side of the stream protocol: rows of the feed to the pieces of a window, channel by channel.

The rule of the file: all here is done once, however many read. Who gets which pieces is `_splicer`'s business, rows
and bits of one channel are `_rows`'. No asyncio, no socket, no clock.

No I/O, no clock, no asyncio.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp

import numpy as np

from ibfast.codec._bits cimport put_bits, put_eg, put_end, put_uniform, put_varint, writer_room, writer_t
from ibfast.codec._frame_decoder cimport (
    CLASSES, GAP_BITS, SEQ_FIRST_K, SEQ_STEP_K, SNAPSHOT, grown, grown_with_zeros, put_frame_header,
)
from ibfast.codec._grid cimport grid_t
from ibfast.feed._records cimport KIND_DEPTH_RESET, depth_t, tick_t
from ibfast.codec._rows cimport WISH_GRIDS, floor_to, pen_free, pen_init, put_k, put_row
from ibfast.codec._channel_state cimport (
    CODEC_OK, DEPTH, FAMILIES, GRIDS, K_COUNT, K_TIME, MOST_LEVELS, book_difference, book_t, change_book, column_bit,
    grids_of_spec, line_of_row, put_state, row_bytes, state_free, state_of_spec, state_t,
)

from ibfast.feed._feed import DTYPES as _DTYPES
from ibfast.codec._channel_state import FAMILY_NAMES as _NAMES

__all__ = ["Encoder"]


cnp.import_array()

cdef enum:
    MOST_INSTRUMENT = 1 << 24
    MOST_SEQ_SPAN_BITS = 40     # in a window
    FIRST_LOOK = 16             # rows of a channel, after which its grids can be known
    NEXT_LOOK = 4               # times as many, when they are to be looked at again
    CLOCK_SET_NS = 1000000000   # rows that are as far ahead as this are so because the clock was set

cdef extern from *:
    """
    #define IBFAST_NO_SEQ UINT64_MAX
    """
    const uint64_t NO_SEQ "IBFAST_NO_SEQ"

cdef tuple NAMES = _NAMES
cdef dict FAMILY_OF = {name: family for family, name in enumerate(_NAMES)}
cdef tuple ROW_DTYPES = tuple(_DTYPES[name] for name in _NAMES)


cdef class Encoder:
    """All channels of one class: windows of one length, times in one unit.

    Rows are pushed as they are read from the rings; each call of `encode` takes one window of them, for all channels at
    once, and what it leaves is there until the next call: pieces, which an `Audience` splices into frames.

    Args:
        span_ns: length of a window; 0: a window is one socket read, that is the rows of one recv_ns.
        unit_ns: 1000 or 1: times are rounded down to multiples of it.
        interval_class: the number of the class in messages, 0 to 15.

    Attributes:
        start_ns: the beginning of the last window.
        seq: of its last row.
    """

    def __cinit__(self, int64_t span_ns, int64_t unit_ns=1000, int interval_class=0):
        if unit_ns not in (1, 1000) or span_ns < 0 or span_ns % unit_ns or span_ns // unit_ns >= <int64_t> 1 << 31:
            raise ValueError(f"no window has {span_ns} ns in units of {unit_ns} ns")
        if not 0 <= interval_class < CLASSES:
            raise ValueError(f"interval_class is 0 to 15, not {interval_class}")
        self.span_ns = span_ns
        self.unit_ns = unit_ns
        self.interval_class = interval_class
        self.held = []
        self.settled = []
        self.made = <depth_t *> calloc(2 * MOST_LEVELS, sizeof(depth_t))
        if self.made == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.channels_size):
            channel_free(self.channels[i])
        for i in range(FAMILIES):
            free(self.queues[i].rows)
        free(self.channels)
        free(self.pieces)
        free(self.first)
        free(self.wanted)
        free(self.writer.start)
        free(self.nodes)
        free(self.changed)
        free(self.log.pairs)
        free(self.made)

    def __len__(self):
        cdef size_t i
        return sum(self.channels[i] != NULL for i in range(self.channels_size))

    # ---- channels

    def add(self, spec, rows=None, uint64_t seq=0):
        """Take a channel and return its index.

        Args:
            spec: of the encoder's span, unit and class.
            rows: the channel's last rows by family, which are its state to begin with; nobody is sent them but by
                snapshots.
            seq: up to which rows are in that state; they are not encoded for the channel any more.

        Raises:
            ValueError: the channel is of another class, or rows are none of the feed's.
        """
        cdef channel_t *channel
        cdef size_t index = 0
        if (spec.span_ns, spec.unit_ns, spec.interval_class) != (self.span_ns, self.unit_ns, self.interval_class):
            raise ValueError("a channel's span, unit and class are those of its encoder")
        if spec.instrument >= MOST_INSTRUMENT:
            raise ValueError(f"instrument is below {MOST_INSTRUMENT}, not {spec.instrument}")
        while index < self.channels_size and self.channels[index] != NULL:
            index += 1
        self.make_room_for(index, spec.instrument)
        channel = <channel_t *> calloc(1, sizeof(channel_t))
        if channel == NULL:
            raise MemoryError
        try:
            self.set_up(channel, spec, <uint32_t> index, seq)
            if rows:
                self.encode_state(channel, rows)
        except BaseException:
            channel_free(channel)
            raise
        self.generations += 1
        self.channels[index] = channel
        self.pieces[index].generation = self.generations
        channel.next = self.first[channel.instrument]
        self.first[channel.instrument] = channel
        self.note_wanted(channel.instrument)
        return index

    def restart(self, size_t index, spec, rows=None, uint64_t seq=0):
        """Have a channel go on from another state, as if it had just been added; its snapshot must follow everywhere.

        Args:
            index, spec: of the channel.
            rows, seq: as for `add`.
        """
        cdef channel_t *old = self.channel_at(index)
        cdef channel_t **link = &self.first[old.instrument]
        cdef channel_t *channel = <channel_t *> calloc(1, sizeof(channel_t))
        if channel == NULL:
            raise MemoryError
        try:
            self.set_up(channel, spec, <uint32_t> index, seq)
            if channel.instrument != old.instrument or channel.families != old.families:
                raise ValueError("a channel has another instrument, or other families, than the spec")
            if rows:
                self.encode_state(channel, rows)
        except BaseException:
            channel_free(channel)
            raise
        while link[0] != old:
            link = &link[0].next
        channel.next = old.next
        channel.rows = old.rows
        channel.look_at = old.look_at
        link[0] = channel
        self.channels[index] = channel
        channel_free(old)

    def regrid(self, size_t index, grids):
        """Have a channel's numbers on other grids from its next row on, which tells them.

        Args:
            index: of the channel.
            grids: a `Grids`.
        """
        cdef channel_t *channel = self.channel_at(index)
        cdef grid_t *told = channel.state.grids
        cdef int which
        grids_of_spec(channel.pen.grids, grids)
        channel.pen.new_grids = 0
        for which in range(GRIDS):
            if (channel.pen.grids[which].whole_step != told[which].whole_step
                    or channel.pen.grids[which].decimals != told[which].decimals):
                channel.pen.new_grids |= <uint8_t> (1 << which)
        if channel.pen.new_grids and channel.pen.wish < 0:
            channel.pen.wish = WISH_GRIDS

    def settling(self):
        """The indices of channels that have had 16, 64, 256, … rows by now: their grids are worth another look."""
        indices, self.settled = self.settled, []
        return indices

    def count(self, size_t index):
        """Rows that were encoded for a channel so far, counted before conflation."""
        return self.channel_at(index).rows

    cdef int make_room_for(self, size_t index, size_t instrument) except -1:
        cdef size_t size = self.channels_size
        grown_with_zeros(<void **> &self.pieces, &size, index + 1, sizeof(piece_t))
        grown_with_zeros(<void **> &self.channels, &self.channels_size, index + 1, sizeof(channel_t *))
        size = self.instruments
        grown_with_zeros(<void **> &self.wanted, &size, instrument + 1, 1)
        grown_with_zeros(<void **> &self.first, &self.instruments, instrument + 1, sizeof(channel_t *))
        return 0

    cdef int set_up(self, channel_t *channel, spec, uint32_t index, uint64_t seq) except -1:
        cdef state_t *state = &channel.state
        cdef int family
        state_of_spec(state, spec)
        pen_init(&channel.pen, index, &self.log)
        for family, k in enumerate((0, max(0, (state.span - 1).bit_length() - 6), 1, 2, 2, 1, 5, 4)):
            state.k[family] = k
        if spec.fields:
            for family in range(FAMILIES):
                for name in _DTYPES[NAMES[family]].names:
                    if name not in spec.fields:
                        channel.pen.absent[family] |= column_bit(family, name.encode())
        for family in range(state.families_number):
            channel.families |= <uint32_t> 1 << state.families[family]
        channel.index = index
        channel.instrument = spec.instrument
        channel.since_seq = seq
        channel.look_at = FIRST_LOOK
        channel.is_conflated = spec.is_conflated
        for kind in spec.kinds:
            channel.kinds |= <uint64_t> 1 << <int> kind
        if channel.kinds == 0:
            channel.kinds = ~channel.kinds
        if channel.is_conflated and state.places[DEPTH] >= 0:
            channel.book = <book_t *> calloc(1, sizeof(book_t))
            if channel.book == NULL:
                raise MemoryError
        return 0

    cdef int encode_state(self, channel_t *channel, rows) except -1:
        """Have these rows' effect on the state, and no other."""
        cdef queue_t queues[FAMILIES]
        cdef list held = []
        cdef size_t logged = self.log.used
        cdef uint64_t seqs[FAMILIES]
        cdef int family, status = CODEC_OK
        cdef const char *row
        self.make_writer_empty()
        memset(queues, 0, sizeof(queues))
        try:
            for family in range(FAMILIES):
                array = rows.get(NAMES[family])
                if array is not None and channel.state.places[family] >= 0:
                    put_in_queue(&queues[family], family, array, held, NULL, 0)
            while status == CODEC_OK:
                for family in range(FAMILIES):
                    seqs[family] = next_seq(&queues[family])
                family = earliest(seqs, FAMILIES)
                if seqs[family] == NO_SEQ:
                    break
                row = queues[family].rows[queues[family].head]
                queues[family].head += 1
                self.writer.at = self.writer.start
                self.writer.bits = 0
                status = put_row(&self.writer, &channel.state, &channel.pen, family, row,
                                 floor_to((<const tick_t *> row).recv_ns, self.unit_ns) * self.unit_ns)
            if status != CODEC_OK:
                raise MemoryError
        finally:
            for family in range(FAMILIES):
                free(queues[family].rows)
            self.log.used = logged
        if channel.book != NULL:
            channel.book[0] = channel.state.book[0]
        return 0

    cdef int make_writer_empty(self) except -1:
        self.writer.at = self.writer.start
        self.writer.held = 0
        self.writer.bits = 0
        if writer_room(&self.writer) < 0:
            raise MemoryError
        return 0

    cdef void note_wanted(self, uint32_t instrument) noexcept:
        cdef channel_t *channel = self.first[instrument]
        self.wanted[instrument] = 0
        while channel != NULL:
            self.wanted[instrument] |= <uint8_t> channel.families
            channel = channel.next

    cdef channel_t *channel_at(self, size_t index) except NULL:
        if index >= self.channels_size or self.channels[index] == NULL:
            raise ValueError(f"there is no channel of index {index}")
        return self.channels[index]

    def remove(self, size_t index):
        """Forget a channel. Its index may be given to another one, its pieces are sent to nobody any more."""
        cdef channel_t *channel = self.channel_at(index)
        cdef channel_t **link = &self.first[channel.instrument]
        while link[0] != channel:
            link = &link[0].next
        link[0] = channel.next
        self.note_wanted(channel.instrument)
        self.channels[index] = NULL
        self.pieces[index].generation = 0
        channel_free(channel)

    def texts(self, size_t index):
        """The ids of all texts that the channel has used, sorted: what a joiner must know before its snapshot."""
        cdef channel_t *channel = self.channel_at(index)
        cdef uint64_t i
        return [i for i in range(8 * channel.pen.texts_bytes) if channel.pen.texts[i >> 3] >> (i & 7) & 1]

    def new_texts(self):
        """Pairs of index and text id: what channels have used for the first time in the last window."""
        cdef size_t i
        return [(self.log.pairs[i], self.log.pairs[i + 1]) for i in range(0, self.log.used, 2)]

    def snapshot(self, size_t index, uint32_t channel, int64_t now_ns, uint64_t seq=0):
        """The complete WebSocket frame of a channel's state after the last window.

        Args:
            index: of the channel.
            channel: its number on the connection.
            now_ns: UTC.
            seq: up to which the rings were read, if that is more than the last row's.
        """
        cdef channel_t *coded = self.channel_at(index)
        cdef writer_t w
        cdef int status
        seq = max(seq, self.seq, coded.since_seq)
        w.start = w.at = w.end = NULL
        w.held = 0
        w.bits = 0
        try:
            if writer_room(&w) < 0:
                raise MemoryError
            w.at[0] = SNAPSHOT
            w.at = put_varint(w.at + 1, channel)
            memcpy(w.at, &now_ns, 8)
            memcpy(w.at + 8, &seq, 8)
            w.at += 16
            status = put_state(&w, &coded.state)
            if status < 0:
                raise MemoryError
            put_end(&w)
            return framed(w.start, w.at - w.start)
        finally:
            free(w.start)

    # ---- rows

    @property
    def pending(self):
        """Rows that were pushed and not encoded yet."""
        cdef int family
        return sum(self.queues[family].tail - self.queues[family].head for family in range(FAMILIES))

    def push(self, rows):
        """Take new rows, each family's in the order of `seq`. Those of instruments without channels are left out.

        The arrays must not be changed afterwards.

        Args:
            rows: by family; of others than those that channels have, none is looked at.

        Raises:
            ValueError: an array is not of its ring's dtype.
        """
        cdef int family
        cdef dict by_family = rows if type(rows) is dict else dict(rows)
        self.drop_encoded()
        for name, array in by_family.items():
            found = FAMILY_OF.get(name)
            if found is not None:
                family = found
                put_in_queue(&self.queues[family], family, array, self.held, self.wanted, self.instruments)

    cdef int drop_encoded(self) except -1:
        """Let go of the arrays once half of their rows are encoded; the others are copied."""
        cdef int family
        cdef size_t encoded = 0, left_bytes = 0, left = 0, i, size
        cdef queue_t *queue
        cdef char *at
        for family in range(FAMILIES):
            queue = &self.queues[family]
            encoded += queue.head
            left += queue.tail - queue.head
            left_bytes += (queue.tail - queue.head) * row_bytes(family)
        if encoded == 0 or encoded < left:
            return 0
        if left == 0:
            for family in range(FAMILIES):
                self.queues[family].head = 0
                self.queues[family].tail = 0
            self.held = []
            return 0
        buffer = PyBytes_FromStringAndSize(NULL, left_bytes)
        at = PyBytes_AS_STRING(buffer)
        for family in range(FAMILIES):
            queue = &self.queues[family]
            size = row_bytes(family)
            for i in range(queue.tail - queue.head):
                memcpy(at, queue.rows[queue.head + i], size)
                queue.rows[i] = at
                at += size
            queue.tail -= queue.head
            queue.head = 0
        self.held = [buffer]
        return 0

    def drop(self):
        """Forget the rows that were pushed and not encoded, and the last window: every channel is restarted then."""
        cdef int family
        for family in range(FAMILIES):
            self.queues[family].head = 0
            self.queues[family].tail = 0
        self.held = []
        self.changed_used = 0
        self.log.used = 0

    def encode(self, int64_t until_ns):
        """Encode the next window and return the indices of the channels that have a piece in it.

        Windows are cut by the rows' times, and where these fall, or the order of `seq` is broken. The window that
        `until_ns` is in waits for the rows that it may yet get; a socket read waits for nothing.

        Args:
            until_ns: up to which time all rows were pushed, UTC.

        Returns:
            The indices in the order of their first rows; empty: no window is complete.
        """
        cdef size_t i
        while self.gather(until_ns):
            self.make_writer_empty()
            self.put_pieces()
            if self.changed_used:
                return [self.changed[i] for i in range(self.changed_used)]
        return []

    @cython.final
    cdef bint gather(self, int64_t until_ns) except -1:
        """Take the rows of the next window, chained by channel. False: there is none that is complete."""
        cdef size_t heads[FAMILIES]
        cdef uint64_t seqs[FAMILIES]
        cdef int family, families = 0
        cdef const tick_t *row
        cdef uint64_t span = <uint64_t> (self.span_ns if self.span_ns else self.unit_ns)
        cdef int64_t start_ns = 0, last_ns = 0
        cdef uint64_t first_seq = 0, last_seq = 0
        cdef bint is_complete = False, is_first = True
        self.window += 1
        self.nodes_used = 0
        self.changed_used = 0
        self.log.used = 0
        for family in range(FAMILIES):
            heads[family] = self.queues[family].head
            seqs[family] = next_seq(&self.queues[family])
            if seqs[family] != NO_SEQ:
                families = family + 1
        while families:
            family = earliest(seqs, families)
            if seqs[family] == NO_SEQ:
                break
            row = <const tick_t *> self.queues[family].rows[self.queues[family].head]
            if is_first:
                start_ns = floor_to(row.recv_ns, <int64_t> span) * <int64_t> span
                first_seq = row.seq
                is_first = False
            elif (row.recv_ns < last_ns or <uint64_t> row.recv_ns - <uint64_t> start_ns >= span or row.seq <= last_seq
                    or row.seq - first_seq >= <uint64_t> 1 << MOST_SEQ_SPAN_BITS):
                is_complete = True
                break
            last_ns = row.recv_ns
            last_seq = row.seq
            self.queues[family].head += 1
            seqs[family] = next_seq(&self.queues[family])
            self.chain(<const char *> row, family)
        if is_first:
            return False
        if (not is_complete and self.span_ns and start_ns - CLOCK_SET_NS <= until_ns
                and until_ns - start_ns < self.span_ns):
            for family in range(FAMILIES):
                self.queues[family].head = heads[family]
            self.changed_used = 0
            return False
        self.start_ns = start_ns
        self.seq = last_seq
        return True

    @cython.final
    cdef inline int chain(self, const char *row, int family) except -1:
        """Note a row for every channel that it belongs to."""
        cdef const tick_t *header = <const tick_t *> row
        cdef channel_t *channel
        cdef node_t *node
        if header.instrument >= self.instruments:
            return 0
        channel = self.first[header.instrument]
        while channel != NULL:
            if (channel.families >> family & 1 and channel.kinds >> (header.kind & 63) & 1
                    and header.seq > channel.since_seq):
                grown(<void **> &self.nodes, &self.nodes_size, self.nodes_used + 1, sizeof(node_t))
                node = self.nodes + self.nodes_used
                node.row = row
                node.family = family
                node.next = -1
                if channel.window != self.window:
                    grown(<void **> &self.changed, &self.changed_size, self.changed_used + 1, sizeof(uint32_t))
                    self.changed[self.changed_used] = channel.index
                    self.changed_used += 1
                    channel.window = self.window
                    channel.first_row = self.nodes_used
                    channel.count = 0
                else:
                    self.nodes[channel.last_row].next = self.nodes_used
                channel.last_row = self.nodes_used
                channel.count += 1
                self.nodes_used += 1
            channel = channel.next
        return 0

    # ---- pieces

    @cython.final
    cdef int put_pieces(self) except -1:
        """Encode the window; channels of which conflation has left nothing have not changed."""
        cdef size_t i, kept = 0
        cdef channel_t *channel
        for i in range(self.changed_used):
            channel = self.channels[self.changed[i]]
            if channel.is_conflated:
                self.conflate(channel)
                if channel.first_row < 0:
                    continue
            if self.put_piece(channel) < 0:
                raise MemoryError
            if channel.rows >= channel.look_at:
                self.settled.append(channel.index)
                channel.look_at = NEXT_LOOK * channel.rows
            self.changed[kept] = channel.index
            kept += 1
        self.changed_used = kept
        return 0

    @cython.final
    cdef int put_piece(self, channel_t *channel) noexcept:
        """Encode a channel's rows of the window. The low bits of the first byte are left to the gap."""
        cdef state_t *state = &channel.state
        cdef writer_t w = self.writer       # a copy, as nothing else has its address
        cdef piece_t *piece = self.pieces + channel.index
        cdef const node_t *node
        cdef const tick_t *row
        cdef int64_t i
        cdef uint32_t last_time = 0, time
        cdef uint64_t last_seq = 0
        cdef bint is_first = True
        if not channel.is_conflated:
            channel.rows += channel.count
        piece.at = w.at - w.start
        if writer_room(&w) < 0:
            return -1
        put_bits(&w, 0, GAP_BITS)
        put_k(&w, state, &channel.pen, K_COUNT, channel.count - 1)
        i = channel.first_row
        while i >= 0:
            node = self.nodes + i
            row = <const tick_t *> node.row
            time = <uint32_t> (<uint64_t> (row.recv_ns - self.start_ns) // 1000 if state.unit_ns == 1000
                               else <uint64_t> (row.recv_ns - self.start_ns))
            if is_first:
                put_uniform(&w, time, state.span)
            elif state.span > 1:
                put_k(&w, state, &channel.pen, K_TIME, time - last_time)
            last_time = time
            if state.is_ordered:
                if is_first:
                    put_eg(&w, self.seq - row.seq, SEQ_FIRST_K)
                else:
                    put_eg(&w, row.seq - last_seq, SEQ_STEP_K)
                last_seq = row.seq
            is_first = False
            if state.families_number > 1:
                put_family(&w, state.places[node.family], state.families_number)
            if put_row(&w, state, &channel.pen, node.family, node.row,
                       self.start_ns + <int64_t> time * state.unit_ns) < 0 or writer_room(&w) < 0:
                self.writer = w
                return -1
            i = node.next
        put_end(&w)
        self.writer = w
        piece.nbytes = w.at - w.start - piece.at
        piece.window = self.window
        return 0

    cdef int conflate(self, channel_t *channel) except -1:
        """Leave of the channel's rows the last one of each key; of depth, the shorter way to the book as it is now."""
        cdef int64_t i = channel.first_row, last = -1, last_depth = -1, operations = 0
        cdef node_t *node
        cdef bint is_kept
        cdef int made = -1
        channel.rows += channel.count
        channel.count = 0
        while i >= 0:
            node = self.nodes + i
            self.latest[node.family][line_of_row(node.family, node.row)] = i
            if node.family == DEPTH:
                change_book(channel.book, <const depth_t *> node.row, channel.pen.absent[DEPTH])
                last_depth = i
                operations += 1
            i = node.next
        if last_depth >= 0 and (<const depth_t *> self.nodes[last_depth].row).kind == KIND_DEPTH_RESET:
            self.made[0] = (<const depth_t *> self.nodes[last_depth].row)[0]
            made = 1
        elif last_depth >= 0:
            made = book_difference(channel.state.book, channel.book, <const depth_t *> self.nodes[last_depth].row,
                                   self.made)
            if made >= operations:
                made = -1
        i = channel.first_row
        while i >= 0:
            node = self.nodes + i
            if node.family == DEPTH:
                is_kept = made < 0 or (i == last_depth and made > 0)
            else:
                is_kept = self.latest[node.family][line_of_row(node.family, node.row)] == i
            if is_kept:
                if last < 0:
                    channel.first_row = i
                else:
                    self.nodes[last].next = i
                last = i
                channel.count += 1
                if node.family == DEPTH and made > 0:
                    last = self.chain_made(i, made)
                    channel.count += made - 1
                    node = self.nodes + last
            i = node.next
        if last < 0:
            channel.first_row = -1
        else:
            self.nodes[last].next = -1
        return 0

    cdef int64_t chain_made(self, int64_t i, int made) except -1:
        """Put the made operations in the place of a row, and return the last one's node."""
        cdef int64_t after = self.nodes[i].next
        cdef int n
        grown(<void **> &self.nodes, &self.nodes_size, self.nodes_used + made, sizeof(node_t))
        self.nodes[i].row = <const char *> &self.made[0]
        for n in range(1, made):
            self.nodes[i].next = self.nodes_used
            i = self.nodes_used
            self.nodes_used += 1
            self.nodes[i].row = <const char *> &self.made[n]
            self.nodes[i].family = DEPTH
        self.nodes[i].next = after
        return i


cdef void channel_free(channel_t *channel) noexcept nogil:
    if channel != NULL:
        state_free(&channel.state)
        pen_free(&channel.pen)
        free(channel.book)
        free(channel)


cdef inline void put_family(writer_t *w, int place, int families) noexcept nogil:
    put_bits(w, (1 << place) - 1, place + (place < families - 1))


cdef inline uint64_t next_seq(const queue_t *queue) noexcept nogil:
    """The number of a queue's next row; `NO_SEQ`: it has none."""
    return (<const tick_t *> queue.rows[queue.head]).seq if queue.head < queue.tail else NO_SEQ


cdef inline int earliest(const uint64_t *seqs, int families) noexcept nogil:
    """The family with the lowest number, of so many."""
    cdef int family, best = 0
    for family in range(1, families):
        best = family if seqs[family] < seqs[best] else best
    return best


cdef int put_in_queue(queue_t *queue, int family, rows, list held, const uint8_t *wanted, size_t instruments) except -1:
    """Append the rows of an array, or of those only whose instrument wants this family."""
    cdef cnp.ndarray array = rows
    cdef const char *row
    cdef size_t size = row_bytes(family)
    cdef Py_ssize_t n
    cdef uint32_t instrument
    if array.descr is not ROW_DTYPES[family] and array.dtype != ROW_DTYPES[family]:
        raise ValueError(f"rows of {NAMES[family]} are of the ring's dtype, not of {array.dtype}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(array):
        array = np.ascontiguousarray(array)
    row = <const char *> cnp.PyArray_DATA(array)
    n = cnp.PyArray_DIM(array, 0) if cnp.PyArray_NDIM(array) == 1 else cnp.PyArray_SIZE(array)
    if n == 0:
        return 0
    grown(<void **> &queue.rows, &queue.size, queue.tail + n, sizeof(char *))
    held.append(array)
    for _row in range(n):
        instrument = (<const tick_t *> row).instrument
        if wanted == NULL or (instrument < instruments and wanted[instrument] >> family & 1):
            queue.rows[queue.tail] = row
            queue.tail += 1
        row += size
    return 0


cdef bytes framed(const uint8_t *message, size_t nbytes):
    """A message as a complete binary frame."""
    cdef uint8_t header[16]
    cdef size_t header_bytes = put_frame_header(header, nbytes) - header
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, header_bytes + nbytes)
    memcpy(PyBytes_AS_STRING(frame), header, header_bytes)
    memcpy(PyBytes_AS_STRING(frame) + header_bytes, message, nbytes)
    return frame
