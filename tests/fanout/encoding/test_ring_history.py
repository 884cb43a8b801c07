"""What the rings still hold: exactly the rows asked for, or it is said that some are missing."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.fanout.encoding.channels import Channel
from ibfast.fanout.encoding.ring_history import gaps_after, is_complete, reaches, rows_between
from ibfast.records import GapCause, Kind, Scope
from tests.support.fanout_desk import Desk

CAPACITY = 16
KINDS = frozenset({Kind.L1_LAST, Kind.L1_QUOTE, Kind.PRICE})


def desk_of(*symbols: str) -> Desk:
    async def opened() -> Desk:
        desk = Desk(CAPACITY)
        for symbol in symbols:
            await desk.subscribe(symbol, "TICKS")
        return desk

    return asyncio.run(opened())


EVENTS = st.lists(
    st.tuples(st.sampled_from(["trade", "quote", "gap"]), st.sampled_from(["AAPL", "MSFT"])), max_size=5 * CAPACITY
)


@settings(max_examples=150)
@given(EVENTS, st.integers(0, 12 * CAPACITY), st.sampled_from([("trades",), ("quotes", "trades"), ("ticks",)]))
def test_the_past_is_exactly_what_was_missed_or_said_to_be_incomplete(
    events: Any, after_seq: int, families: tuple[str, ...]
) -> None:
    desk = desk_of("AAPL", "MSFT")
    feed = desk.feed
    channel = Channel(feed.instruments.index("AAPL"), families, KINDS)
    readers = {name: feed.rings[name].reader() for name in (*families, "gaps")}
    missed: dict[str, list[int]] = {name: [] for name in readers}
    for i, (event, symbol) in enumerate(events):
        if event == "trade":
            desk.trade(symbol, float(i))
        elif event == "quote":
            desk.quote(symbol, float(i), i + 0.5)
        else:
            req_id = desk.subscription(symbol).req_id
            feed.add_gap(1, Scope.LINK, GapCause.LINK_LOST, instrument=0, req_id=req_id)
        for name, reader in readers.items():
            rows = reader.read()
            own = rows["req_id"] == desk.subscription("AAPL").req_id
            missed[name] += [int(seq) for seq in rows["seq"][own] if seq > after_seq]
    found = rows_between(feed, channel, after_seq, feed.seq)
    gaps = gaps_after(feed, {desk.subscription("AAPL").req_id}, after_seq)["seq"].tolist()
    if is_complete(feed, channel, after_seq):
        assert gaps == missed["gaps"]
        for name in families:
            assert (found[name]["seq"].tolist() if name in found else []) == missed[name]
    for name in families:  # of what is not complete, the end
        seqs = found[name]["seq"].tolist() if name in found else []
        assert seqs == missed[name][len(missed[name]) - len(seqs) :]


def test_a_ring_reaches_back_to_the_row_before_its_oldest() -> None:
    desk = desk_of("AAPL")
    desk.trade("AAPL", *map(float, range(CAPACITY)))
    assert reaches(desk.feed.trades, 0)
    desk.trade("AAPL", 99.0)
    oldest = int(desk.feed.trades.reader("oldest").read(1)["seq"][0])
    assert reaches(desk.feed.trades, oldest - 1)
    assert not reaches(desk.feed.trades, oldest - 2)
    channel = Channel(0, ("trades",), KINDS)
    seqs = rows_between(desk.feed, channel, oldest - 1, desk.feed.seq)["trades"]["seq"].tolist()
    assert seqs[0] == oldest
    assert len(seqs) == CAPACITY


def test_bounds_of_the_past_are_after_one_number_and_up_to_another() -> None:
    desk = desk_of("AAPL")
    desk.trade("AAPL", *map(float, range(8)))
    channel = Channel(0, ("trades",), KINDS)
    seqs = desk.feed.trades.reader("oldest").read()["seq"].tolist()
    found = rows_between(desk.feed, channel, seqs[2], seqs[5])["trades"]
    assert found["seq"].tolist() == seqs[3:6]
    assert found.dtype == desk.feed.dtypes["trades"]
    assert rows_between(desk.feed, channel, seqs[-1], desk.feed.seq) == {}
    assert rows_between(desk.feed, Channel(0, ("trades",), frozenset({Kind.LAST})), 0, desk.feed.seq) == {}
