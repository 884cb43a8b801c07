"""The collector of a process that serves looks at an object once."""

from __future__ import annotations

import gc
import weakref

import pytest

from ibfast.commands.garbage import collect_everything, short_collections


class Circle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_has_survived_a_full_collection_is_frozen() -> None:
    with short_collections():
        kept = [Circle() for _ in range(100)]
        gc.collect()
        frozen = gc.get_freeze_count()
        assert frozen > 100
        assert len(gc.get_objects()) < 100
        assert kept


def test_circles_that_were_not_frozen_are_freed() -> None:
    with short_collections():
        circle = weakref.ref(Circle())
        gc.collect()
        assert circle() is None


def test_frozen_circles_are_freed_when_everything_is_collected() -> None:
    with short_collections():
        kept = Circle()
        gc.collect()
        circle = weakref.ref(kept)
        del kept
        gc.collect()
        assert circle() is not None
        collect_everything()
        assert circle() is None
        assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("error", [None, KeyError])
def test_afterwards_all_is_as_it_was(error: type[Exception] | None) -> None:
    before = gc.get_threshold(), list(gc.callbacks)
    try:
        with short_collections():
            assert gc.get_threshold() != before[0]
            if error is not None:
                raise error
    except KeyError:
        pass
    assert (gc.get_threshold(), list(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0
