"""Rings and readers by themselves: what is delivered, what is lost, and every way to wait."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast import Reader, RingBuffer
from ibfast.errors import FeedError
from ibfast.feed.ring import CONTROL_BYTES
from tests.support.loops import Run, until

ROW = np.dtype([("n", "u8"), ("value", "f8")])
JOIN_S = 30.0
ARMED_AT = 128
"""Where in a ring's memory stands whether somebody waits."""


def rows_of(start: int, count: int) -> Any:
    """Rows that say their own position."""
    rows = np.zeros(count, ROW)
    rows["n"] = np.arange(start, start + count)
    rows["value"] = rows["n"] * 0.5
    return rows


def publish(ring: RingBuffer, count: int) -> None:
    ring.append(rows_of(ring.published, count))


def delivered(rows: Any) -> list[int]:
    assert (rows["value"] == rows["n"] * 0.5).all()
    return rows["n"].tolist()


class WatchedRing(RingBuffer):
    """A ring that knows who waits for a call."""

    waiting: list[Callable[[], None]]

    def when_published(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)
        super().when_published(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        self.waiting.remove(callback)
        super().forget(callback)


def watched_ring(capacity: int = 8) -> WatchedRing:
    ring = WatchedRing.create(ROW, capacity)
    ring.waiting = []
    return ring


# --- appending and reading ---


def test_rows_come_out_as_they_went_in() -> None:
    ring = RingBuffer.create([("time", "i8"), ("flag", "u1"), ("price", "f8"), ("name", "S7")], capacity=4)
    reader = ring.reader()
    ring.append((-5, 200, 1.25, b"abc"))
    ring.append([(6, 0, float("inf"), b""), (7, 1, -0.0, b"seven77")])
    rows = reader.read()
    assert rows.dtype == ring.dtype
    assert rows.tolist() == [(-5, 200, 1.25, b"abc"), (6, 0, float("inf"), b""), (7, 1, -0.0, b"seven77")]
    assert (ring.published, len(ring), ring.capacity) == (3, 3, 4)
    assert (reader.position, reader.pending, reader.lost) == (3, 0, 0)
    assert reader.read().size == 0
    assert reader.read().dtype == ring.dtype


def test_a_ring_of_plain_numbers() -> None:
    ring = RingBuffer.create("f8", capacity=4)
    reader = ring.reader()
    ring.append(1.5)
    ring.append([2, 3])
    assert reader.read().tolist() == [1.5, 2.0, 3.0]


def test_what_was_read_stays_when_the_ring_moves_on() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    reader = ring.reader()
    publish(ring, 4)
    rows = reader.read()
    publish(ring, 4)
    assert delivered(rows) == [0, 1, 2, 3]


Step = tuple[str, int]


@settings(max_examples=300)
@given(
    st.integers(0, 4),
    st.sampled_from(["oldest", "next"]),
    st.integers(0, 40),
    st.lists(st.tuples(st.sampled_from(["append", "read", "borrow", "borrow over"]), st.integers(0, 40)), max_size=40),
)
def test_every_row_is_delivered_or_lost(log2_capacity: int, start: str, before: int, steps: list[Step]) -> None:
    """Against a model: a list of all rows, and the position of a reader that was made on the way."""
    capacity = 1 << log2_capacity
    ring = RingBuffer.create(ROW, capacity)
    publish(ring, before)
    reader = ring.reader(start)
    position, lost = (max(0, before - capacity) if start == "oldest" else before), 0
    for step, count in steps:
        if step == "append":
            publish(ring, count)
            continue
        overwritten = max(0, ring.published - capacity - position)
        position, lost = position + overwritten, lost + overwritten
        expected = list(range(position, min(ring.published, position + count)))
        if step == "read":
            assert delivered(reader.read(max_rows=count)) == expected
        else:
            to_the_edge = capacity - position % capacity
            expected = expected[:to_the_edge]
            with reader.borrowed(max_rows=count) as batch:
                assert delivered(batch.rows) == expected
                if step == "borrow over":
                    # Up to the row before the borrowed ones, and then, every other time, over the first of them.
                    publish(ring, position + capacity - ring.published + count % 2)
            spoiled = step == "borrow over" and count % 2 == 1
            assert batch.intact == (not spoiled)
            lost += len(expected) if spoiled else 0
        position += len(expected)
        assert (reader.position, reader.lost) == (position, lost)
        assert reader.pending == ring.published - position
    overwritten = max(0, ring.published - capacity - position)
    rest = list(range(position + overwritten, ring.published))
    assert delivered(reader.read()) == rest
    assert reader.lost == lost + overwritten


def test_readers_do_not_know_of_each_other() -> None:
    ring = RingBuffer.create(ROW, capacity=8)
    first = ring.reader()
    publish(ring, 3)
    second, third = ring.reader(start="oldest"), ring.reader()
    assert delivered(first.read(max_rows=1)) == [0]
    publish(ring, 1)
    assert [delivered(reader.read()) for reader in (first, second, third)] == [[1, 2, 3], [0, 1, 2, 3], [3]]


def test_one_append_may_be_longer_than_the_ring() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    reader = ring.reader()
    publish(ring, 11)
    assert delivered(reader.read()) == [7, 8, 9, 10]
    assert reader.lost == 7


def test_borrowed_rows_are_a_view_that_nobody_can_write() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    reader = ring.reader()
    publish(ring, 2)
    with reader.borrowed() as batch:
        assert not batch.rows.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            batch.rows["n"][0] = 7
    assert batch.intact


def test_a_loan_ends_when_its_block_raises() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    reader = ring.reader()
    publish(ring, 2)
    with pytest.raises(ZeroDivisionError), reader.borrowed():
        raise ZeroDivisionError
    assert reader.position == 2


# --- what is refused ---


@pytest.mark.parametrize("capacity", [0, 3, 6, 1000])
def test_a_capacity_is_a_power_of_two(capacity: int) -> None:
    with pytest.raises(FeedError, match="power of two"):
        RingBuffer.create(ROW, capacity)


@pytest.mark.parametrize("dtype", ["u1", "i4", [("a", "u8"), ("b", "u1")], "S12"])
def test_rows_are_multiples_of_eight_bytes(dtype: Any) -> None:
    with pytest.raises(FeedError, match="multiple of 8"):
        RingBuffer.create(dtype)


@pytest.mark.parametrize("dtype", ["O", [("a", "u8"), ("b", "O")]])
def test_rows_hold_no_objects(dtype: Any) -> None:
    with pytest.raises(FeedError, match="object"):
        RingBuffer.create(dtype)


def test_unknown_start() -> None:
    with pytest.raises(ValueError, match="newest"):
        RingBuffer.create(ROW, 4).reader(start="newest")


def test_rows_of_another_kind() -> None:
    ring = RingBuffer.create(ROW, 4)
    with pytest.raises((TypeError, ValueError)):
        ring.append("nonsense")
    with pytest.raises((TypeError, ValueError)):
        ring.append(np.zeros(2, [("a", "f8"), ("b", "f8"), ("c", "f8")]))
    assert ring.published == 0


def ring_memory(capacity: int = 4) -> mmap.mmap:
    return mmap.mmap(-1, CONTROL_BYTES + capacity * ROW.itemsize)


def test_an_attached_ring_reads_and_refuses_to_write() -> None:
    memory = ring_memory()
    ring, attached = RingBuffer(ROW, memory, 4), RingBuffer(ROW, memory)
    reader = attached.reader()
    publish(ring, 3)
    assert delivered(reader.read()) == [0, 1, 2]
    assert (ring.writable, attached.writable) == (True, False)
    with pytest.raises(FeedError, match="reading only"):
        attached.append(rows_of(0, 1))
    assert ring.published == 3


def test_a_ring_needs_fitting_memory() -> None:
    memory = ring_memory()
    RingBuffer(ROW, memory, 4)
    with pytest.raises(FeedError, match="16 bytes, not of 8"):
        RingBuffer("u8", memory)
    with pytest.raises(FeedError, match="too small"):
        RingBuffer(ROW, memory, 8)
    with pytest.raises(FeedError, match="too small"):
        RingBuffer(ROW, memoryview(memory)[: CONTROL_BYTES + 63])
    with pytest.raises(FeedError, match="too small"):
        RingBuffer(ROW, memoryview(memory)[:64], 4)
    with pytest.raises(FeedError, match="aligned"):
        RingBuffer(ROW, memoryview(mmap.mmap(-1, 8192))[8:], 4)
    with pytest.raises(FeedError, match="writable memory"):  # readers write too: whether they wait
        RingBuffer(ROW, mmap.mmap(-1, 4096, access=mmap.ACCESS_READ))
    memory = ring_memory()
    memory.close()
    with pytest.raises(FeedError, match="closed"):
        RingBuffer(ROW, memory, 4)


def test_memory_can_not_be_closed_under_a_ring() -> None:
    memory, array = ring_memory(), bytearray(2 * CONTROL_BYTES + 4 * ROW.itemsize)
    ring = RingBuffer(ROW, memory, 4)
    with pytest.raises(BufferError):
        memory.close()
    view = memoryview(array)[-np.frombuffer(array, "u1").ctypes.data % 64 :]
    other = RingBuffer(ROW, view, 4)
    view.release()
    with pytest.raises(BufferError):
        array.clear()
    publish(ring, 3)
    publish(other, 3)
    assert delivered(ring.reader(start="oldest").read()) == delivered(other.reader(start="oldest").read()) == [0, 1, 2]
    del ring, other
    memory.close()


# --- memory that another process has damaged ---


CAPACITY_AT, RESERVED_AT, PUBLISHED_AT = 0, 64, 72
FAR = 1 << 40


def put(memory: mmap.mmap, offset: int, value: int) -> None:
    memory[offset : offset + 8] = value.to_bytes(8, "little")


@pytest.mark.parametrize("capacity", [0, 3, 8, FAR, (1 << 64) - 1, 1 << 63])
def test_a_capacity_that_can_not_be_is_refused(capacity: int) -> None:
    memory = ring_memory(capacity=4)
    RingBuffer(ROW, memory, 4)
    put(memory, CAPACITY_AT, capacity)
    with pytest.raises(FeedError, match=r"power of two|too small"):
        RingBuffer(ROW, memory)


LOOKS: dict[str, Callable[[Reader], object]] = {
    "read": Reader.read,
    "borrow": Reader.borrow,
    "wait": lambda reader: reader.wait(0.01),
    "pending": lambda reader: reader.pending,
    "another reader": lambda reader: Reader(reader.ring).read(),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(("reserved", "published"), [(4, FAR), (2, 4), (0, 1)])
def test_positions_that_can_not_be_are_an_error(look: str, reserved: int, published: int) -> None:
    memory = ring_memory(capacity=4)
    ring, attached = RingBuffer(ROW, memory, 4), RingBuffer(ROW, memory)
    reader = attached.reader()
    publish(ring, 4)
    reader.read(max_rows=3)
    put(memory, RESERVED_AT, reserved)
    put(memory, PUBLISHED_AT, published)
    with pytest.raises(FeedError, match="damaged"):
        LOOKS[look](reader)


@pytest.mark.parametrize("look", ["read", "borrow", "wait", "pending"])
def test_positions_that_go_back_are_an_error(look: str) -> None:
    memory = ring_memory(capacity=4)
    ring, attached = RingBuffer(ROW, memory, 4), RingBuffer(ROW, memory)
    reader = attached.reader()
    publish(ring, 4)
    reader.read(max_rows=3)
    put(memory, RESERVED_AT, 2)
    put(memory, PUBLISHED_AT, 2)
    with pytest.raises(FeedError, match="damaged"):
        LOOKS[look](reader)


def test_positions_that_are_far_cost_rows_and_no_more_than_the_capacity_is_read() -> None:
    memory = ring_memory(capacity=4)
    ring, attached = RingBuffer(ROW, memory, 4), RingBuffer(ROW, memory)
    reader, borrower = attached.reader(), attached.reader()
    publish(ring, 3)
    put(memory, CAPACITY_AT, FAR)
    put(memory, RESERVED_AT, FAR)
    put(memory, PUBLISHED_AT, FAR)
    assert (len(attached), attached.capacity) == (4, 4)
    assert len(reader.read()) == len(borrower.borrow()) == 4
    assert reader.lost == FAR - 4


@pytest.mark.parametrize("value", [0, 4, FAR])
def test_the_writer_does_not_believe_the_memory(value: int) -> None:
    memory = ring_memory(capacity=4)
    ring, attached = RingBuffer(ROW, memory, 4), RingBuffer(ROW, memory)
    ring.append(rows_of(0, 3))
    for offset in (CAPACITY_AT, RESERVED_AT, PUBLISHED_AT):
        put(memory, offset, value)
    called: list[bool] = []
    ring.when_published(lambda: called.append(True))
    ring.append(rows_of(3, 1))
    assert called == [True]
    assert (ring.published, attached.published) == (4, 4)
    assert delivered(attached.reader(start="oldest").read()) == [0, 1, 2, 3]


def test_what_must_not_be_touched_is_not_read() -> None:
    memory, gone = ring_memory(capacity=4), False

    def check() -> None:
        if gone:
            raise FeedError("gone")

    ring, attached = RingBuffer(ROW, memory, 4), RingBuffer(ROW, memory, check=check)
    publish(ring, 2)
    reader = attached.reader(start="oldest")
    assert delivered(reader.read(max_rows=1)) == [0]
    gone = True
    for look in LOOKS.values():
        with pytest.raises(FeedError, match="gone"):
            look(reader)
    with pytest.raises(FeedError, match="gone"):
        len(attached)
    gone = False
    assert delivered(reader.read()) == [1]


# --- waiting in threads ---


def test_wait_tells_whether_there_are_rows() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    reader = ring.reader()
    assert not reader.wait(0)
    assert not reader.wait(0.001)
    publish(ring, 1)
    assert reader.wait(0)
    assert reader.wait()
    reader.read()
    assert not reader.wait(0)


def test_an_append_wakes_every_thread_that_waits() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    woken: list[list[int]] = []

    def consume(reader: Reader) -> None:
        assert reader.wait()
        woken.append(delivered(reader.read()))

    threads = [threading.Thread(target=consume, args=(ring.reader(),), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    publish(ring, 2)
    for thread in threads:
        thread.join(JOIN_S)
    assert woken == [[0, 1]] * 4


def test_two_threads_in_turns_miss_no_wake_up() -> None:
    """Each waits for the other's row: one wake-up slept through, and both would stand."""
    there, back = RingBuffer.create(ROW, capacity=2), RingBuffer.create(ROW, capacity=2)
    turns = 5_000

    def answer(reader: Reader) -> None:
        for _ in range(turns):
            assert reader.wait(JOIN_S)
            back.append(reader.read())

    thread = threading.Thread(target=answer, args=(there.reader(),), daemon=True)
    reader = back.reader()
    thread.start()
    for n in range(turns):
        publish(there, 1)
        assert reader.wait(JOIN_S)
        assert delivered(reader.read()) == [n]
    thread.join(JOIN_S)
    assert not thread.is_alive()


INTERRUPTED = f"""
import mmap, os, signal, threading
from ibfast import RingBuffer
from ibfast.feed.ring import CONTROL_BYTES

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
memory = mmap.mmap(-1, CONTROL_BYTES + 64)
reader = RingBuffer("u8", memory, 8).reader()

def interrupt_the_wait():
    while memory[{ARMED_AT}] == 0:
        pass
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt_the_wait, daemon=True).start()
try:
    reader.wait()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one's own process")
def test_a_wait_can_be_interrupted() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=JOIN_S)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


# --- waiting in event loops ---


async def consume(reader: Reader, count: int) -> list[int]:
    """Iterate over a reader until so many rows have come."""
    got: list[int] = []
    async for rows in reader:
        assert len(rows)
        got += delivered(rows)
        if len(got) >= count:
            break
    return got


def test_iteration_in_the_writers_loop(run: Run) -> None:
    async def test() -> None:
        ring = watched_ring()
        readers = [asyncio.create_task(consume(ring.reader(), 10)) for _ in range(3)]
        for count in (1, 0, 3, 2, 4):
            await until(lambda: len(ring.waiting) == 3)
            publish(ring, count)
            if not count:
                assert len(ring.waiting) == 3
            else:
                await asyncio.sleep(0)
        assert await asyncio.gather(*readers) == [list(range(10))] * 3
        assert ring.waiting == []

    run(test())


def test_iteration_with_a_writer_in_another_thread(run: Run) -> None:
    ring = RingBuffer.create(ROW, capacity=1 << 12)
    total = 4_000

    def write(reader: Reader) -> None:
        for _ in range(total):
            publish(ring, 1)
            assert reader.wait(0)
            reader.read()

    async def test() -> None:
        task = asyncio.create_task(consume(ring.reader(start="oldest"), total))
        thread = threading.Thread(target=write, args=(ring.reader(),), daemon=True)
        thread.start()
        assert await task == list(range(total))
        thread.join(JOIN_S)

    run(test())


def test_two_loops_in_two_threads_on_one_ring(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    ring = RingBuffer.create(ROW, capacity=1 << 10)
    total, got = 1_000, []

    def loop_of_its_own(reader: Reader) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            got.append(runner.run(consume(reader, total)))

    threads = [threading.Thread(target=loop_of_its_own, args=(ring.reader(),), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(total):
        publish(ring, 1)
    for thread in threads:
        thread.join(JOIN_S)
    assert got == [list(range(total))] * 2


def test_a_reader_whose_loop_is_gone_does_not_disturb_the_writer() -> None:
    ring = watched_ring()

    def abandon() -> None:
        loop = asyncio.SelectorEventLoop()
        task = loop.create_task(consume(ring.reader(), 1))
        loop.run_until_complete(asyncio.sleep(0))
        assert len(ring.waiting) == 1
        task.add_done_callback(lambda _: None)
        abandoned.append(task)
        loop.close()

    abandoned: list[asyncio.Task[list[int]]] = []
    thread = threading.Thread(target=abandon)
    thread.start()
    thread.join(JOIN_S)
    publish(ring, 1)
    assert ring.published == 1
    abandoned[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # it was destroyed on purpose


def test_a_cancelled_wait_leaves_nothing_behind(run: Run) -> None:
    async def test() -> None:
        ring = watched_ring()
        reader = ring.reader()
        task = asyncio.create_task(consume(reader, 1))
        await until(lambda: ring.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ring.waiting == []
        publish(ring, 2)
        assert delivered(reader.read()) == [0, 1]

    run(test())


def test_a_cancelled_step_loses_no_rows(run: Run) -> None:
    async def test() -> None:
        ring = watched_ring()
        reader = ring.reader()
        got: list[int] = []
        for moment in range(6):
            task = asyncio.create_task(consume(reader, 1))
            for _ in range(moment):
                await asyncio.sleep(0)
            publish(ring, 1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += await task
            assert ring.waiting == []
        assert got + delivered(reader.read()) == [0, 1, 2, 3, 4, 5]

    run(test())


def test_a_call_that_was_taken_back_does_not_come() -> None:
    ring = RingBuffer.create(ROW, capacity=4)
    calls: list[str] = []
    first, second = (lambda: calls.append("first")), (lambda: calls.append("second"))
    ring.when_published(first)
    ring.when_published(second)
    ring.forget(first)
    publish(ring, 1)
    publish(ring, 1)
    assert calls == ["second"]
    ring.forget(second)


def test_closing_ends_the_iteration_after_the_rows_that_are_there(run: Run) -> None:
    async def all_of(reader: Reader) -> list[int]:
        return [n async for rows in reader for n in delivered(rows)]

    async def test() -> None:
        ring = watched_ring()
        publish(ring, 1)
        reader = ring.reader(start="oldest")
        publish(ring, 2)
        reader.close()
        assert await all_of(reader) == [0, 1, 2]
        assert await all_of(reader) == []

        waiting = ring.reader()
        task = asyncio.create_task(all_of(waiting))
        await until(lambda: ring.waiting)
        waiting.close()
        assert await task == []
        assert ring.waiting == []

    run(test())


def test_closing_from_another_thread(run: Run) -> None:
    async def test() -> None:
        ring = watched_ring()
        for _ in range(200):
            reader = ring.reader()
            task = asyncio.create_task(consume(reader, 1))
            await asyncio.sleep(0)
            thread = threading.Thread(target=reader.close)
            thread.start()
            assert await task == []
            thread.join(JOIN_S)

    run(test())


def test_a_reader_that_always_finds_rows_lets_others_run(run: Run) -> None:
    async def test() -> None:
        ring = RingBuffer.create(ROW, capacity=4)
        others_ran = asyncio.Event()
        asyncio.get_running_loop().call_soon(others_ran.set)
        publish(ring, 1)
        batches = 0
        async for _ in ring.reader(start="oldest"):
            batches += 1
            if others_ran.is_set() or batches == 1_000:
                break
            publish(ring, 1)
        assert others_ran.is_set()

    run(test())


def test_iteration_over_a_ring_that_another_process_may_write(run: Run) -> None:
    """An attached ring wakes by its doorbell in shared memory, not by a call."""

    async def test() -> None:
        memory = ring_memory(8)
        ring, attached = RingBuffer(ROW, memory, 8), RingBuffer(ROW, memory)
        reader = attached.reader()
        task = asyncio.create_task(consume(reader, 3))
        for _ in range(3):
            await until(lambda: memory[ARMED_AT])
            publish(ring, 1)
        assert await task == [0, 1, 2]
        task = asyncio.create_task(consume(reader, 1))
        await until(lambda: memory[ARMED_AT])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        task = asyncio.create_task(consume(reader, 1))
        await asyncio.sleep(0)
        reader.close()
        assert await task == []

    run(test())


def test_rows_lent_must_come_back_before_more_are_taken() -> None:
    ring = RingBuffer.create(ROW, 8)
    reader = ring.reader()
    ring.append(np.zeros(2, ROW))
    with reader.borrowed() as batch:
        assert len(batch.rows) == 2
        for take in (reader.read, reader.borrow):
            with pytest.raises(FeedError, match="give the borrowed rows back"):
                take()
    ring.append(np.zeros(2, ROW))
    assert len(reader.read()) == 2
    assert (reader.position, reader.lost) == (4, 0)


def test_a_callback_that_raises_hurts_neither_the_writer_nor_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ring = RingBuffer.create(ROW, 8)
    called: list[str] = []
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(str(args.exc_value)))

    def breaks() -> None:
        raise RuntimeError("a reader's own trouble")

    ring.when_published(breaks)
    ring.when_published(lambda: called.append("second"))
    ring.append(np.zeros(1, ROW))
    assert called == ["second"]
    assert reported == ["a reader's own trouble"]


def test_closing_wakes_a_thread_that_waits() -> None:
    reader = RingBuffer.create(ROW, 8).reader()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(reader.wait()))
    thread.start()
    reader.close()
    thread.join(timeout=60)
    assert answers == [False]
