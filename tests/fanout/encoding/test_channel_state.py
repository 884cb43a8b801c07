"""The state of a channel, against a model that keeps everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.fanout.encoding.channel_state import Book, ChannelState
from ibfast.feed import Feed
from ibfast.records import Kind

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from([Kind.DEPTH, Kind.DEPTH, Kind.DEPTH, Kind.DEPTH_L2, Kind.DEPTH_RESET]),
        st.integers(0, 3), st.sampled_from([0, 1, 255]), st.integers(-1, 5), st.integers(1, 4),
    ),
    max_size=30,
)  # fmt: skip


def depth(operations: list[tuple[int, int, int, int, int]]) -> Any:
    rows = np.zeros(len(operations), Feed.dtypes["depth"])
    for i, (row, operation) in enumerate(zip(rows, operations, strict=True)):
        row["seq"] = i + 1
        row["kind"], row["operation"], row["side"], row["position"], row["price"] = operation
    return rows


def levels(book: Book) -> dict[int, list[float]]:
    return {side: [float(level["price"]) for level in levels] for side, levels in book.sides.items()}


def test_a_book() -> None:
    book = Book()
    book.take(depth([(12, 0, 0, 0, 1), (12, 0, 0, 0, 2), (12, 0, 1, 0, 3), (12, 1, 0, 1, 4), (12, 1, 0, 2, 5)]))
    assert levels(book) == {0: [2.0, 4.0, 5.0], 1: [3.0]}
    book.take(depth([(12, 2, 0, 1, 0), (12, 2, 0, 7, 0), (12, 0, 0, 9, 9), (12, 3, 0, 0, 9), (12, 0, 255, 0, 9)]))
    assert levels(book) == {0: [2.0, 5.0], 1: [3.0]}
    book.take(depth([(Kind.DEPTH_RESET, 255, 255, -1, 0)]))
    assert levels(book) == {0: [], 1: []}


@given(OPERATIONS, OPERATIONS)
def test_a_snapshot_builds_the_book_and_changes_make_one_of_the_other(before: Any, after: Any) -> None:
    book, twin = Book(), Book()
    book.take(depth(before))
    twin.take(book.rows())
    assert levels(twin) == levels(book)
    earlier = book.copy()
    rows = depth(after)
    book.take(rows)
    assert levels(earlier) == levels(twin)
    if len(rows):
        changes = book.changes_since(earlier, rows[-1])
        earlier.take(changes)
        assert levels(earlier) == levels(book)
        assert {int(seq) for seq in changes["seq"]} <= {len(rows)}


@given(OPERATIONS, OPERATIONS)
def test_conflated_depth_is_the_fewer_of_two(before: Any, after: Any) -> None:
    state = ChannelState(("depth",), {"depth": depth(before)})
    follower = Book()
    follower.take(state.rows().get("depth", depth([])))
    rows = depth(after)
    if not len(rows):
        return
    told = state.take({"depth": rows}, is_conflated=True).get("depth", depth([]))
    assert len(told) <= len(rows)
    follower.take(told)
    model = Book()
    model.take(depth(before))
    model.take(rows)
    assert levels(follower) == levels(model)


@pytest.mark.parametrize("family", ["ticks", "greeks"])
def test_the_last_of_each_tick_type(family: str) -> None:
    rows = np.zeros(6, Feed.dtypes[family])
    rows["seq"] = range(1, 7)
    rows["tick_type"] = [1, 2, 1, 4, 2, 1]
    state = ChannelState((family,), {})
    assert state.take({family: rows}, is_conflated=False)[family]["seq"].tolist() == [1, 2, 3, 4, 5, 6]
    assert state.rows()[family]["seq"].tolist() == [4, 5, 6]
    assert state.take({family: rows[:5]}, is_conflated=True)[family]["seq"].tolist() == [3, 4, 5]


def test_rows_of_history_are_no_state() -> None:
    rows = np.zeros(3, Feed.dtypes["trades"])
    rows["kind"] = [Kind.L1_LAST, Kind.BACKFILL_TRADE, Kind.BACKFILL_TRADE]
    rows["price"] = [1.0, 2.0, 3.0]
    state = ChannelState(("trades",), {})
    assert len(state.take({"trades": rows[1:]}, is_conflated=False)["trades"]) == 2
    assert state.rows() == {}
    state.take({"trades": rows}, is_conflated=False)
    assert state.rows()["trades"]["price"].tolist() == [1.0]


def test_state_does_not_hold_on_to_a_window() -> None:
    rows = np.zeros(10_000, Feed.dtypes["quotes"])
    state = ChannelState(("quotes",), {"quotes": rows})
    assert (state.rows()["quotes"].nbytes, state.rows()["quotes"].dtype) == (rows.itemsize, rows.dtype)
    assert all(part.base is None for latest in state._latest.values() for part in latest.values())
