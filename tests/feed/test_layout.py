"""Where the parts of a feed's memory stand, for any bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibfast.feed.layout import RINGS, FeedLayout


@given(st.integers(1, 24), st.integers(1, 5_000), st.integers(2, 70_000))
def test_parts_are_aligned_and_do_not_overlap(exponent: int, max_instruments: int, max_texts: int) -> None:
    layout = FeedLayout(1 << exponent, max_instruments, max_texts)
    assert {*RINGS, "header"} <= layout.parts.keys()
    end = 0
    for start, size in layout.parts.values():
        assert start % 64 == 0
        assert end <= start < end + 64
        end = start + size
    assert end <= layout.total_bytes < end + 64


def test_the_header_stands_first() -> None:
    assert FeedLayout(2, 1, 2).parts["header"][0] == 0
