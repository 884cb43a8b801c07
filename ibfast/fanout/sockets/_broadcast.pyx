# cython: language_level=3
"""One frame to many sockets: the system calls of a whole audience in one go.

The rule of the file: a socket belongs to its transport. It is written to only between `start` and `stop`, and never
while its transport holds bytes that were given earlier (`hold`, `release`); what a socket does not take at once is
told, and nothing of it is kept. This module knows no event loop and no WebSocket.
"""

from cpython.buffer cimport PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc


cdef extern from *:
    """
    #if defined(__linux__)
      #include <sys/socket.h>
      #define ibfast_send(fd, data, nbytes) send((fd), (data), (nbytes), MSG_DONTWAIT | MSG_NOSIGNAL)
    #else
      /* Elsewhere the transport writes everything. */
      #define ibfast_send(fd, data, nbytes) ((void) (fd), (void) (data), (void) (nbytes), (Py_ssize_t) -1)
    #endif
    """
    Py_ssize_t send "ibfast_send"(int fd, const char *data, size_t nbytes) noexcept nogil


REFUSED = -1
GONE = -2

cdef enum:
    C_REFUSED = -1
    C_GONE = -2
    STARTED = 1          # the slot's flags: it is ready when they are STARTED and nothing else
    HELD = 2
    OVER = 4
    NOGIL_MEMBERS = 16   # system calls of a few µs each: below this many the GIL is kept
    GENERATIONS = 0x7fffffff

cdef struct slot_t:
    int fd               # -1: only the transport can write
    uint32_t flags
    uint32_t generation  # how often the slot was emptied: part of the handle, so that an old handle meets nobody

cdef struct incomplete_t:
    uint32_t slot
    Py_ssize_t taken


cdef class WriteSet:
    """The sockets that a server may write to, in compiled form.

    A handle names a socket from `add` to `remove`; afterwards it names nothing, whatever comes later, and everything
    that is done with it does nothing. All calls come from one thread.

    Attributes:
        writes: how many frames were taken so far, each by each socket.
        nbytes: how many bytes these had; what a socket did not take at once is its transport's to write.
    """

    cdef slot_t *slots
    cdef incomplete_t *incomplete
    cdef Py_ssize_t nslots, room
    cdef list tokens, free_slots
    cdef bint is_writing
    cdef readonly uint64_t writes, nbytes

    def __cinit__(self):
        self.tokens = []
        self.free_slots = []

    def __dealloc__(self):
        free(self.slots)
        free(self.incomplete)

    def __len__(self):
        """Sockets in the set."""
        return self.nslots - len(self.free_slots)

    def add(self, int fd, token):
        """Add a socket, not yet started.

        Args:
            fd: its descriptor, which stays open until `remove`; -1: never write to it, tell that it took nothing.
            token: what `write` names it by.

        Returns:
            Its handle.
        """
        cdef Py_ssize_t slot
        self.check_idle()
        if self.free_slots:
            slot = self.free_slots.pop()
            self.tokens[slot] = token
        else:
            slot = self.nslots
            self.grow(<void **> &self.slots, (slot + 1) * sizeof(slot_t))
            self.slots[slot].generation = 0
            self.tokens.append(token)
            self.nslots += 1
        self.slots[slot].fd = fd
        self.slots[slot].flags = 0
        return <int64_t> self.slots[slot].generation << 32 | slot

    def remove(self, int64_t handle):
        """Forget a socket; before its descriptor is closed."""
        cdef uint32_t number = <uint32_t> handle
        cdef slot_t *slot = self.find(handle)
        self.check_idle()
        if slot == NULL:
            return
        slot.flags = 0
        slot.fd = -1
        slot.generation = (slot.generation + 1) & GENERATIONS
        self.tokens[number] = None
        self.free_slots.append(number)

    def start(self, int64_t handle):
        """Let frames be written to the socket from now on; in vain after `stop`."""
        self.change(handle, STARTED, 0)

    def stop(self, int64_t handle):
        """Let no frame be written to it ever after: it is closing."""
        self.change(handle, OVER, 0)

    def hold(self, int64_t handle):
        """Refuse frames: its transport holds bytes that go first."""
        self.change(handle, HELD, 0)

    def release(self, int64_t handle):
        """Take frames again: its transport holds nothing."""
        self.change(handle, 0, HELD)

    def is_ready(self, int64_t handle):
        """Whether a frame would be tried now."""
        cdef slot_t *slot = self.find(handle)
        return slot != NULL and slot.flags == STARTED

    def write(self, bytes frame not None, members):
        """Write a frame to all members that are ready.

        Those that are gone, stopped or not started yet are passed over.

        Args:
            frame: bytes that belong together.
            members: handles, in a buffer of 64-bit integers.

        Returns:
            (token, bytes taken) of each that did not take all of it, in the order of members; REFUSED for one that is
            held. Where some bytes were taken, or none by one that is not held, its transport has to be given the rest
            before anything else is written.
        """
        cdef Py_buffer view
        cdef Py_ssize_t i, found
        self.check_idle()
        PyObject_GetBuffer(members, &view, PyBUF_ND)
        try:
            if view.itemsize != sizeof(int64_t):
                raise TypeError(f"members are 64-bit integers, not items of {view.itemsize} bytes")
            found = self.send_all(frame, len(frame), <const int64_t *> view.buf, view.len // sizeof(int64_t))
        finally:
            PyBuffer_Release(&view)
        return [(self.tokens[self.incomplete[i].slot], self.incomplete[i].taken) for i in range(found)]

    def write_one(self, bytes frame not None, int64_t handle):
        """Write a frame to one socket.

        Returns:
            How many bytes were taken, as `write` tells; GONE if there is no such socket, or it is not started.
        """
        cdef slot_t *slot = self.find(handle)
        self.check_idle()
        return C_GONE if slot == NULL else self.send_to(slot, <const char *> frame, len(frame))

    cdef Py_ssize_t send_all(
        self, const char *data, Py_ssize_t nbytes, const int64_t *members, Py_ssize_t count
    ) except -1:
        """Return how many rows of `incomplete` were filled."""
        cdef Py_ssize_t found
        if count > self.room:
            self.grow(<void **> &self.incomplete, count * sizeof(incomplete_t))
            self.room = count
        if count < NOGIL_MEMBERS:
            return self.send_each(data, nbytes, members, count)
        self.is_writing = True
        with nogil:
            found = self.send_each(data, nbytes, members, count)
        self.is_writing = False
        return found

    cdef Py_ssize_t send_each(
        self, const char *data, Py_ssize_t nbytes, const int64_t *members, Py_ssize_t count
    ) noexcept nogil:
        cdef Py_ssize_t i, taken, found = 0
        cdef slot_t *slot
        for i in range(count):
            slot = self.find(members[i])
            if slot == NULL:
                continue
            taken = self.send_to(slot, data, nbytes)
            if taken < nbytes and taken != C_GONE:
                self.incomplete[found].slot = <uint32_t> members[i]
                self.incomplete[found].taken = taken
                found += 1
        return found

    cdef inline Py_ssize_t send_to(self, slot_t *slot, const char *data, Py_ssize_t nbytes) noexcept nogil:
        """Return the bytes taken. An error is 0: the transport will meet it again, and knows what to do about it."""
        cdef Py_ssize_t taken
        if slot.flags != STARTED:
            return C_REFUSED if slot.flags == STARTED | HELD else C_GONE
        self.writes += 1
        self.nbytes += nbytes
        if slot.fd < 0:
            return 0
        taken = send(slot.fd, data, nbytes)
        return 0 if taken < 0 else taken

    cdef inline slot_t *find(self, int64_t handle) noexcept nogil:
        cdef uint32_t number = <uint32_t> handle  # the lower half
        if number >= self.nslots or self.slots[number].generation != <uint32_t> (handle >> 32):
            return NULL
        return &self.slots[number]

    cdef int change(self, int64_t handle, uint32_t on, uint32_t off) except -1:
        cdef slot_t *slot = self.find(handle)
        self.check_idle()
        if slot != NULL:
            slot.flags = (slot.flags | on) & ~off
        return 0

    cdef int check_idle(self) except -1:
        if self.is_writing:  # the GIL is free then: only another thread can come here
            raise RuntimeError("a WriteSet belongs to one thread")
        return 0

    cdef int grow(self, void **memory, size_t nbytes) except -1:
        cdef void *grown = realloc(memory[0], nbytes)
        if grown == NULL:
            raise MemoryError
        memory[0] = grown
        return 0
