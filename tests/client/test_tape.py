"""A bounded tape: the writer never waits, and who is late is told by how much."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.client.tape import Tape
from ibfast.errors import Error
from tests.support.loops import Run


def test_who_comes_late_is_told_by_how_much(run: Run) -> None:
    async def scenario() -> None:
        tape: Tape[str] = Tape(10)
        told: list[int] = []
        reader = tape.reader("oldest", told.append)
        for item in ("a", "b", "c", "d"):
            tape.append(item, 4)
        assert await anext(reader) == "c"
        assert (told, reader.lost) == ([8], 8)
        assert await anext(reader) == "d"
        tape.append("big", 1000)  # the newest is there, however large
        assert await anext(reader) == "big"
        assert reader.lost == 8

    run(scenario())


def test_each_reader_has_a_position_of_its_own(run: Run) -> None:
    async def scenario() -> None:
        tape: Tape[int] = Tape(10)
        tape.append(1)
        oldest, following = tape.reader("oldest", pytest.fail), tape.reader("next", pytest.fail)
        tape.append(2)
        assert [await anext(oldest), await anext(oldest), await anext(following)] == [1, 2, 2]
        with pytest.raises(ValueError, match="'newest'"):
            tape.reader("newest", pytest.fail)

    run(scenario())


def test_a_reader_sleeps_until_there_is_more(run: Run) -> None:
    async def scenario() -> None:
        tape: Tape[int] = Tape(10)
        readers = [asyncio.create_task(anext(tape.reader("next", pytest.fail))) for _ in range(3)]
        await asyncio.sleep(0.001)
        readers.pop().cancel()
        tape.append(7)
        assert await asyncio.gather(*readers) == [7, 7]

    run(scenario())


def test_what_is_there_at_the_end_is_read_before_it(run: Run) -> None:
    async def scenario() -> None:
        tape: Tape[int] = Tape(10)
        tape.append(1)
        reader = tape.reader("oldest", pytest.fail)
        waiting = asyncio.create_task(anext(tape.reader("next", pytest.fail)))
        await asyncio.sleep(0.001)
        tape.close(Error("broken"))
        assert await anext(reader) == 1
        for step in (anext(reader), anext(reader), waiting):
            with pytest.raises(Error, match="broken"):
                await step
        quiet: Tape[int] = Tape(10)
        quiet.close()
        assert [item async for item in quiet.reader("oldest", pytest.fail)] == []

    run(scenario())


def test_a_reader_that_never_waits_leaves_others_their_turn(run: Run) -> None:
    async def scenario() -> None:
        tape: Tape[int] = Tape(1000)
        for item in range(100):
            tape.append(item)
        reader, seen = tape.reader("oldest", pytest.fail), []
        other = asyncio.create_task(asyncio.sleep(0))
        while not other.done():
            seen.append(await anext(reader))
        assert len(seen) < 10

    run(scenario())


@given(st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=60), st.integers(1, 20))
def test_everything_is_read_or_counted(steps: list[int | None], capacity: int) -> None:
    """A number writes an item of that weight, None reads one."""

    async def scenario() -> None:
        tape: Tape[int] = Tape(capacity)
        reader, read, written = tape.reader("oldest", lambda _: None), 0, 0
        for step in steps:
            if step is not None:
                tape.append(step, step)
                written += step
            elif read + reader.lost < written:
                read += await anext(reader)
        tape.close()
        read += sum([weight async for weight in reader])
        assert read + reader.lost == written

    asyncio.run(scenario())
