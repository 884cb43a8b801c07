"""Conflation: of a window only the latest of each key, and of a book the way to what it is now."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast import Kind
from ibfast.codec.spec import ChannelSpec
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES
from tests.support.delta_streams import (
    FAR_NS,
    MS,
    START_NS,
    Gathered,
    encoded,
    encoder_of,
    expected,
    plain,
    random_rows,
)

SPAN_NS = 250 * MS
BOOK_COLUMNS = ("price", "size", "market_maker")


def conflated(*families: str, **options: Any) -> ChannelSpec:
    return ChannelSpec(1, families, span_ns=SPAN_NS, is_conflated=True, **options)


def told(spec: ChannelSpec, rows: Any) -> Gathered:
    encoder, audience = encoder_of([spec])
    gathered = Gathered([spec])
    gathered.take(encoder.snapshot(0, 0, 0))
    for frame in encoded(encoder, audience, rows):
        gathered.take(frame)
    return gathered


def key_of(family: str, row: dict[str, int]) -> int:
    tick_type = row["tick_type"] if family in ("ticks", "greeks") else 0
    return tick_type if -1 <= tick_type <= 253 else 254


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from([name for name in FAMILIES if name != "depth"]), min_size=1, unique=True).map(tuple),
    st.integers(0, 1 << 32).map(random.Random),
    st.booleans(),
)
def test_the_last_row_of_each_key_and_window_is_told(
    families: tuple[str, ...], rng: random.Random, ordered: bool
) -> None:
    spec = conflated(*families, ordered=ordered)
    rows = random_rows(rng, [spec], 150, START_NS, 10)
    wanted = {}
    for family, array in expected(rows, spec).items():
        latest = {}
        for at, row in enumerate(plain(array)):
            latest[row["recv_ns"] // SPAN_NS, key_of(family, row)] = at
        wanted[family] = plain(array[sorted(latest.values())])
    assert told(spec, rows).news == {1: wanted}


def book_of(rows: list[dict[str, int]]) -> list[list[tuple[int, ...]]]:
    """Apply operations the simple way."""
    book: list[list[tuple[int, ...]]] = [[], []]
    for row in rows:
        position, operation = row["position"], row["operation"]
        if row["kind"] == Kind.DEPTH_RESET:
            book = [[], []]
        elif row["side"] < 2 and position >= 0:
            levels, level = book[row["side"]], tuple(row[name] for name in BOOK_COLUMNS)
            if operation == 0 and position <= len(levels):
                levels.insert(position, level)
                del levels[256:]
            elif operation == 1 and position < len(levels):
                levels[position] = level
            elif operation == 1 and position == len(levels) < 256:
                levels.append(level)
            elif operation == 2 and position < len(levels):
                del levels[position]
    return book


@settings(max_examples=150)
@given(st.integers(0, 1 << 32).map(random.Random), st.sampled_from(((), ("price",), ("size", "market_maker"))))
def test_a_book_is_the_same_at_the_end_of_every_window(rng: random.Random, fields: tuple[str, ...]) -> None:
    """And never takes more rows than it had operations."""
    spec = conflated("depth", fields=fields, ordered=True)
    rows = random_rows(rng, [spec], 150, START_NS, 10)["depth"]
    encoder, audience = encoder_of([spec])
    gathered = Gathered([spec])
    gathered.take(encoder.snapshot(0, 0, 0))
    encoder.push({"depth": rows})
    done = 0
    wanted = plain(expected({"depth": rows}, spec)["depth"])
    while encoder.encode(FAR_NS):
        had = sum(row["seq"] <= encoder.seq for row in wanted)
        before = len(gathered.news.get(1, {}).get("depth", ()))
        gathered.take(audience.splice())
        now = gathered.news.get(1, {}).get("depth", [])
        assert len(now) - before <= had - done
        assert book_of(now) == book_of(wanted[:had])
        (state,) = Gathered([spec]).take(encoder.snapshot(0, 0, 0))
        assert book_of(plain(state.rows["depth"]) if state.rows else []) == book_of(wanted[:had])
        done = had
    assert encoder.pending == 0
    assert book_of(gathered.news.get(1, {}).get("depth", [])) == book_of(wanted)


def operation(position: int, operation: int, price: float, size: float, side: int = 1, kind: int = Kind.DEPTH) -> Any:
    row = np.zeros(1, DTYPES["depth"])
    row["recv_ns"], row["instrument"], row["req_id"], row["kind"] = START_NS, 1, -1, kind
    row["position"], row["operation"], row["side"], row["price"], row["size"] = position, operation, side, price, size
    return row


@pytest.mark.parametrize(
    ("operations", "wanted"),
    [
        ([(0, 0, 10.0, 5.0), (0, 1, 10.0, 6.0), (0, 1, 10.0, 7.0)], [(0, 0, 10.0, 7.0)]),
        ([(0, 0, 10.0, 5.0), (0, 2, 0.0, 0.0)], []),
        ([(0, 0, 10.0, 5.0), (0, 0, 11.0, 5.0)], [(0, 0, 10.0, 5.0), (0, 0, 11.0, 5.0)]),
    ],
    ids=["updates", "nothing is left", "as short as it was"],
)
def test_a_book_takes_the_shorter_way(operations: list[Any], wanted: list[Any]) -> None:
    rows = np.concatenate([operation(*each) for each in operations]).astype(DTYPES["depth"])
    rows["seq"] = np.arange(1, len(rows) + 1)
    news = told(conflated("depth"), {"depth": rows}).news
    names = ("position", "operation", "price", "size")
    floats = [
        tuple(np.uint64(row[name]).view(np.float64) if name in BOOK_COLUMNS else row[name] for name in names)
        for row in news.get(1, {}).get("depth", [])
    ]
    assert floats == wanted


def test_a_reset_at_the_end_comes_alone() -> None:
    rows = np.concatenate([operation(n, 0, 10.0, 1.0 + n) for n in range(5)] + [operation(-1, 255, 0, 0, 255, 18)])
    rows = rows.astype(DTYPES["depth"])
    rows["seq"] = np.arange(1, 7)
    news = told(conflated("depth"), {"depth": rows}).news
    assert [row["kind"] for row in news[1]["depth"]] == [Kind.DEPTH_RESET]


def test_families_of_a_window_keep_their_order() -> None:
    spec = conflated("quotes", "trades", "depth", ordered=True)
    rng = random.Random(3)
    gathered = told(spec, random_rows(rng, [spec], 200, START_NS, 1))
    seqs = [row["seq"] for rows in gathered.news[1].values() for row in rows]
    assert len(set(seqs)) > 5
    for family, rows in gathered.news[1].items():
        assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows), family
