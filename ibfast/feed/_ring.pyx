# cython: language_level=3
"""The compiled half of a ring: memory, cursors, copying and waiting (`ibfast.feed.ring` adds asyncio).

The protocol between writer and readers stands in `_ring.pxd`. This module knows no record and no wire.

The rule of the file: shared memory is believed nothing. Another process may have damaged it, so every address is
computed from the ring's own capacity and from positions that were checked after they were read, once, into a local.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import time

import numpy as np

from ibfast.feed._atomic cimport (
    add_u32, doorbell_ring, doorbell_wait, exchange_u32, fence_acquire, fence_full, load_acquire, load_relaxed,
    load_relaxed_u32, or_u32, store_release,
)

from ibfast.errors import FeedError


cdef enum:
    ARMED_SLEEPER = 1        # somebody sleeps on the doorbell, in this process or another
    ARMED_CALLBACK = 2       # somebody in the writer's process wants a call
    NOGIL_BYTES = 1 << 15    # copies below this keep the GIL: handing it over costs more than they take

CONTROL_BYTES = sizeof(ring_control_t)


cdef void wake(object callback) noexcept:
    """Call, and leave what it raises to `sys.unraisablehook`: it must not reach the writer or the other readers."""
    callback()


def fence_reads():
    """Have all reads of shared memory before this call happen before those after it."""
    fence_acquire()


cdef class Ring:
    """A ring over memory that somebody else owns.

    Args:
        dtype: of a row; its itemsize must be a multiple of 8.
        memory: a buffer of `CONTROL_BYTES + capacity * dtype.itemsize` bytes, 64-byte aligned. Zeros make a new ring.
            It must be writable in any case: a reader that waits says so in it. It can't be closed while the ring lives.
        capacity: rows, a power of two; 0 attaches for reading only to the ring that is already in the memory.
        check: called before each look at the memory; raises where the memory must not be touched any more.

    Raises:
        FeedError: one of these does not fit, or the memory is closed.
    """

    def __cinit__(self, dtype, memory, uint64_t capacity=0, check=None):
        cdef Py_buffer view
        cdef uint64_t room
        self.dtype = np.dtype(dtype)
        self.callbacks = []
        self.check = check
        self.writable = capacity != 0
        if self.dtype.hasobject:
            raise FeedError("a ring's rows hold no Python objects")
        if self.dtype.itemsize == 0 or self.dtype.itemsize % 8:
            raise FeedError(f"a ring's rows have a multiple of 8 bytes, not {self.dtype.itemsize}")
        try:
            # An export of its own, so that a mapping that is closed, or an array that grows, raises BufferError instead
            # of taking the bytes away.
            self.memory = memoryview(memory)
            PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
        except (BufferError, TypeError, ValueError) as error:
            raise FeedError(f"a ring needs writable memory: {error}") from None
        self.c.control = <ring_control_t *> view.buf
        length = view.len
        PyBuffer_Release(&view)
        if <size_t> self.c.control & 63:
            raise FeedError("a ring's memory must be aligned to 64 bytes")
        if length < <Py_ssize_t> sizeof(ring_control_t):
            raise FeedError("the memory is too small for a ring")
        self.c.itemsize = self.dtype.itemsize
        if not self.writable:
            capacity = self.c.control.capacity
            if self.c.control.itemsize != self.c.itemsize:
                raise FeedError(f"the ring holds rows of {self.c.control.itemsize} bytes, not of {self.c.itemsize}")
        if capacity == 0 or capacity & (capacity - 1):
            raise FeedError(f"a ring's capacity is a power of two, not {capacity}")
        room = (<uint64_t> length - sizeof(ring_control_t)) // self.c.itemsize
        if capacity > room:
            raise FeedError("the memory is too small for the ring in it")
        self.c.mask = capacity - 1
        self.c.rows = <char *> self.c.control + sizeof(ring_control_t)
        if self.writable:
            self.c.control.capacity = capacity
            self.c.control.itemsize = self.c.itemsize
            self.c.head = self.c.shown = self.c.control.published
            store_relaxed(&self.c.control.reserved, self.c.head)

    @property
    def capacity(self):
        """Rows that the ring holds."""
        return self.c.mask + 1

    @property
    def published(self):
        """Rows that were ever published: the position of the next one."""
        cdef uint64_t reserved
        return self.load_cursors(0, &reserved)

    cdef uint64_t load_cursors(self, uint64_t position, uint64_t *reserved) except? 0xFFFFFFFFFFFFFFFF:
        """Return `published`, and `reserved` through the pointer, as they can be for a reader at that position."""
        cdef uint64_t published
        if self.check is not None:
            self.check()
        published = load_acquire(&self.c.control.published)
        reserved[0] = load_relaxed(&self.c.control.reserved)
        # Both only grow, a row is reserved before it is published, and a reader is never beyond what is reserved.
        if reserved[0] < published or reserved[0] < position:
            raise FeedError(
                f"the ring's memory is damaged: of {reserved[0]} rows, {published} are published and {position} read"
            )
        return published

    def __len__(self):
        """Rows that can be read now."""
        return min(self.published, self.c.mask + 1)

    cdef bint publish(self) noexcept nogil:
        """Show the filled rows to readers. True if any were new; then `ring_doorbell` is due."""
        if self.c.head == self.c.shown:
            return False
        self.c.shown = self.c.head
        store_release(&self.c.control.published, self.c.head)
        return True

    cdef int ring_doorbell(self) except -1:
        """Wake whoever waits for rows. Call it after `publish` and a full fence."""
        cdef uint32_t armed
        cdef list callbacks
        if load_relaxed_u32(&self.c.control.armed) == 0:
            return 0
        armed = exchange_u32(&self.c.control.armed, 0)
        if armed & ARMED_SLEEPER:
            add_u32(&self.c.control.doorbell, 1)
            doorbell_ring(&self.c.control.doorbell)
        if armed & ARMED_CALLBACK and self.callbacks:
            callbacks, self.callbacks = self.callbacks, []
            for callback in callbacks:
                wake(callback)
        return 0

    def append(self, rows):
        """Write rows and publish them at once. Only for the ring's one writer.

        Args:
            rows: one row or an array of them, of the ring's dtype or convertible to it.
        """
        cdef Py_buffer view
        cdef uint64_t i, n
        if not self.writable:
            raise FeedError("the ring is attached for reading only")
        array = np.ascontiguousarray(np.atleast_1d(np.asarray(rows, dtype=self.dtype)))
        n = array.size
        PyObject_GetBuffer(array.view(np.uint8), &view, PyBUF_SIMPLE)
        try:
            with nogil:
                for i in range(n):
                    memcpy(ring_claim(&self.c), <char *> view.buf + i * self.c.itemsize, self.c.itemsize)
                self.publish()
                fence_full()
        finally:
            PyBuffer_Release(&view)
        self.ring_doorbell()

    def when_published(self, callback):
        """Have `callback()` called once, from the writer's thread, at the next publish.

        Only in the writer's process. Look for rows again after this call: a publish just before it rings nobody.
        """
        self.callbacks.append(callback)
        or_u32(&self.c.control.armed, ARMED_CALLBACK)
        fence_full()

    def forget(self, callback):
        """Take back a `when_published` that has not been called."""
        if callback in self.callbacks:
            self.callbacks.remove(callback)

    def wait_beyond(self, uint64_t position, double timeout_s):
        """Sleep until `published` exceeds `position`, from any thread or process. False if the time ran out first."""
        cdef uint32_t seen
        cdef uint64_t reserved
        cdef double deadline = time.monotonic() + timeout_s
        cdef double left
        cdef int64_t left_ns
        while self.load_cursors(0, &reserved) <= position:
            seen = load_relaxed_u32(&self.c.control.doorbell)
            or_u32(&self.c.control.armed, ARMED_SLEEPER)
            fence_full()
            if self.load_cursors(0, &reserved) > position:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # A signal that comes just before the sleep must not wait for its end: so sleeps are short.
            left_ns = <int64_t> (min(left, 0.2) * 1e9)
            with nogil:
                doorbell_wait(&self.c.control.doorbell, seen, left_ns)
            PyErr_CheckSignals()
        return True


cdef class Cursor:
    """A reader's position in a ring. Not for two threads at once; every thread makes its own.

    Args:
        ring: what to read.
        start: "next" for rows published from now on, "oldest" for all that the ring still holds.
    """

    def __cinit__(self, Ring ring not None, str start="next"):
        cdef uint64_t reserved
        self.ring = ring
        self.position = ring.load_cursors(0, &reserved)
        if start == "oldest":
            self.position -= min(self.position, ring.c.mask + 1)
        elif start != "next":
            raise ValueError(f'start is "oldest" or "next", not {start!r}')

    @property
    def pending(self):
        """Rows published and not yet read (more than the capacity means that some are lost already)."""
        cdef uint64_t reserved
        cdef uint64_t published = self.ring.load_cursors(self.position, &reserved)
        return published - self.position if published > self.position else 0

    cdef uint64_t skip_overwritten(self) except? 0xFFFFFFFFFFFFFFFF:
        """Move past rows that the writer has taken back; they count as lost. Return how many rows can be read.

        That is never more than the ring's capacity, whatever stands in the memory.
        """
        cdef uint64_t capacity = self.ring.c.mask + 1
        cdef uint64_t reserved
        cdef uint64_t published = self.ring.load_cursors(self.position, &reserved)
        if reserved - self.position > capacity:
            self.lost += reserved - capacity - self.position
            self.position = reserved - capacity
        return published - self.position if published > self.position else 0

    cdef int check_returned(self) except -1:
        if self.borrowed:
            raise FeedError("give the borrowed rows back (release) before taking more")
        return 0

    def read(self, max_rows=None):
        """Return what is new as an array of its own: it stays intact whatever the writer does.

        Rows that were overwritten before or while they were copied are left out and added to `lost`.

        Args:
            max_rows: at most so many rows; None for all that there are.

        Raises:
            FeedError: borrowed rows were not given back, or the ring's memory is damaged.

        Returns:
            A structured array of the ring's dtype, empty when there is nothing new.
        """
        cdef uint64_t n, i, first, torn, itemsize = self.ring.c.itemsize
        cdef char *target
        cdef const unsigned char[::1] view
        self.check_returned()
        n = self.skip_overwritten()
        if max_rows is not None and n > <uint64_t> max_rows:
            n = max_rows
        rows = np.empty(n, self.ring.dtype)
        if n == 0:
            return rows
        view = rows.view(np.uint8)
        target = <char *> &view[0]
        i = self.position & self.ring.c.mask
        first = min(n, self.ring.c.mask + 1 - i)
        if n * itemsize < NOGIL_BYTES:
            memcpy(target, self.ring.c.rows + i * itemsize, first * itemsize)
            memcpy(target + first * itemsize, self.ring.c.rows, (n - first) * itemsize)
        else:
            with nogil:
                memcpy(target, self.ring.c.rows + i * itemsize, first * itemsize)
                memcpy(target + first * itemsize, self.ring.c.rows, (n - first) * itemsize)
        torn = min(n, self.overwritten())
        self.lost += torn
        self.position += n
        return rows[torn:] if torn else rows

    cdef uint64_t overwritten(self) noexcept nogil:
        """Rows from the cursor's position on that the writer has announced to overwrite by now."""
        cdef uint64_t reserved
        fence_acquire()
        reserved = load_relaxed(&self.ring.c.control.reserved)
        if reserved <= self.position + self.ring.c.mask + 1:
            return 0
        return reserved - self.ring.c.mask - 1 - self.position

    def borrow(self, max_rows=None):
        """Return what is new as a read-only view into the ring, nothing copied; `release` must follow.

        The writer does not wait: it may overwrite the rows while they are in use. So work on them, call `release`, and
        keep the result only if that was True. The view ends where the ring wraps; the rest comes with the next call.
        """
        cdef uint64_t n, i, itemsize = self.ring.c.itemsize
        self.check_returned()
        n = self.skip_overwritten()
        if max_rows is not None and n > <uint64_t> max_rows:
            n = max_rows
        i = self.position & self.ring.c.mask
        n = min(n, self.ring.c.mask + 1 - i)
        self.borrowed = n
        rows = np.frombuffer(self.ring.memory, self.ring.dtype, n, sizeof(ring_control_t) + i * itemsize)
        rows.flags.writeable = False
        return rows

    def release(self):
        """End a `borrow`. True: every row stayed intact. False: some were overwritten, and all count as lost."""
        cdef uint64_t n = self.borrowed
        cdef bint intact = self.overwritten() == 0
        self.borrowed = 0
        self.position += n
        if not intact:
            self.lost += n
        return intact
