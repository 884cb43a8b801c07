"""Turns: what is done in one turn of the loop is bounded, everybody gets a turn, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from ibfast.fanout.turns import Turns
from tests.support.loops import Run, errors_logged


def turns_of(pieces: int) -> Turns:
    """Turns of so many pieces: each of them takes a second of this clock."""
    seconds = itertools.count()
    return Turns(float(pieces), lambda: float(next(seconds)))


def test_a_turn_of_the_loop_has_so_many_pieces_and_everybody_has_one_of_them(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(3), list[str]()
        for owner in ("a", "a", "a", "a", "b", "c"):
            turns.add(owner, lambda owner=owner: done.append(owner))  # type: ignore[misc]
        assert "".join(done) == "aaa"  # nobody else was there
        seen = [len(done)]
        while len(turns):
            await asyncio.sleep(0)
            seen.append(len(done))
        assert "".join(done) == "aaabca"
        assert max(later - first for first, later in itertools.pairwise(seen)) <= 3

    run(test())


def test_who_has_much_to_do_does_not_keep_others_waiting(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(2), list[str]()
        for _ in range(100):
            turns.add("much", lambda: done.append("m"))
        turns.add("little", lambda: done.append("l"))
        while len(turns):
            await asyncio.sleep(0)
        assert "".join(done[:3]) == "mml"
        assert len(done) == 101

    run(test())


def test_a_piece_that_adds_one_does_not_do_it_within_itself(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(2), list[int]()

        def more(depth: int) -> Callable[[], None]:
            def piece() -> None:
                if depth:
                    turns.add("a", more(depth - 1))
                done.append(depth)

            return piece

        turns.add("a", more(5))
        assert done == [5, 4]
        while len(turns):
            await asyncio.sleep(0)
        assert done == [5, 4, 3, 2, 1, 0]

    run(test())


def test_a_piece_that_fails_stops_nobody(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(1), list[str]()
        with pytest.raises(ZeroDivisionError):
            turns.add("a", lambda: 1 / 0)
        turns.add("b", lambda: done.append("b"))
        turns.add("c", lambda: 1 / 0)
        turns.add("d", lambda: done.append("d"))
        while len(turns):
            await asyncio.sleep(0)
        assert done == ["b", "d"]

    with errors_logged() as errors:
        run(test())
    assert len(errors) == 1


def test_a_coroutine_gets_what_comes_of_its_piece(run: Run) -> None:
    async def test() -> None:
        turns = turns_of(1)
        assert await turns.run("a", lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await turns.run("a", lambda: 1 / 0)

    run(test())


def test_a_piece_of_who_was_cancelled_is_not_done(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(1), list[int]()
        for _ in range(9):
            turns.add("a", lambda: None)
        waiting = asyncio.create_task(turns.run("a", lambda: done.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        while len(turns):
            await asyncio.sleep(0)
        assert done == []

    run(test())


def test_who_comes_back_for_each_piece_has_no_more_than_who_has_many_waiting(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(2), list[str]()

        async def come_back() -> None:
            while len(done) < 60:
                await turns.run("back", lambda: done.append("b"))

        for _ in range(100):
            turns.add("many", lambda: done.append("m"))
        await come_back()
        assert 25 <= done[:60].count("b") <= 35

    run(test())


def test_who_had_little_is_next_however_many_have_pieces_that_wait(run: Run) -> None:
    async def test() -> None:
        turns, done = turns_of(2), list[object]()
        for _ in range(3):
            for crowd in range(100):
                turns.add(crowd, lambda crowd=crowd: done.append(crowd))  # type: ignore[misc]
        while len(done) < 150:
            await asyncio.sleep(0)
        before = len(done)
        await turns.run("little", lambda: done.append("little"))
        assert (
            done.index("little") - before <= 50
        )  # before it come those who have had one piece, and nobody has a third

    run(test())


def test_owners_are_forgotten(run: Run) -> None:
    async def test() -> None:
        turns = turns_of(2)
        for _ in range(3000):
            turns.add("much", lambda: None)
        for crowd in range(1000):
            await turns.run(crowd, lambda: None)
        assert len(turns._had_s) < 300
        while len(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not turns._had_s

    run(test())


def test_a_piece_that_took_long_costs_its_owner_no_more_than_a_turn(run: Run) -> None:
    async def test() -> None:
        now, done = [0.0], list[str]()
        turns = Turns(5.0, lambda: now[0])

        def piece(owner: str, seconds: float) -> None:
            now[0] += seconds
            done.append(owner)

        for _ in range(100):
            turns.add("much", lambda: piece("m", 1.0))
        await turns.run("little", lambda: piece("l", 1000.0))
        before = len(done)
        await turns.run("little", lambda: piece("l", 1.0))
        assert done[before:].index("l") <= 2

    run(test())
