"""The JSON dialect's encoder: what a row is in JSON, in which order rows come, and what a state is."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.codec.positions import position_of
from ibfast.fanout.encoding.channels import Channel, interval_class
from ibfast.fanout.encoding.dialect import Audience, Encoder
from ibfast.fanout.encoding.json import JsonDialect
from ibfast.feed import Feed
from ibfast.records import Kind
from tests.support.fanout_desk import Desk

KINDS = frozenset({Kind.L1_LAST, Kind.L1_QUOTE, Kind.PRICE, Kind.DEPTH, Kind.DEPTH_RESET})
NS = 1_700_000_000_123_456_789


@pytest.fixture(scope="module")
def desk() -> Desk:
    desk = Desk()
    for symbol in ("AAPL", "MSFT"):
        asyncio.run(desk.subscribe(symbol, "TICKS"))
    return desk


def encoder_of(desk: Desk, *channels: Channel) -> Encoder:
    encoder = JsonDialect(desk.feed).encoder(10, "us")
    for channel in channels:
        encoder.add(channel, {}, 0)
    return encoder


def rows_of(family: str, seqs: list[int], **columns: Any) -> Any:
    rows = np.zeros(len(seqs), Feed.dtypes[family])
    rows["seq"], rows["recv_ns"] = seqs, NS
    rows["kind"] = {"trades": Kind.L1_LAST, "quotes": Kind.L1_QUOTE, "ticks": Kind.PRICE, "depth": Kind.DEPTH}[family]
    for name, values in columns.items():
        rows[name] = values
    return rows


def at(seq: int) -> int:
    """The position of the encoder's class."""
    return position_of(seq, interval_class(10, "us"))


def payloads(frames: bytes) -> list[dict[str, Any]]:
    found, at = [], 0
    while at < len(frames):
        assert frames[at] == 0x81
        length, start = frames[at + 1], at + 2
        if length > 125:
            width = 2 if length == 126 else 8
            length, start = int.from_bytes(frames[start : start + width], "big"), start + width
        found.append(orjson.loads(frames[start : start + length]))
        at = start + length
    return found


def told(encoder: Encoder, rows: Any, *indices: int, seq: int = 100) -> list[dict[str, Any]]:
    """What an audience of these channels gets of a window."""
    encoder.push(rows)
    assert encoder.advance(0, seq)
    frame = encoder.splice(Audience(tuple(range(len(indices))), indices, False, set()))
    assert not encoder.advance(0, seq)
    return payloads(frame)


@given(st.floats(), st.floats(), st.integers(0, 2**32 - 1))
def test_numbers_are_the_same_doubles(price: float, size: float, attribs: int) -> None:
    desk = Desk()
    asyncio.run(desk.subscribe("AAPL", "TRADES"))
    encoder = encoder_of(desk, Channel(0, ("trades",), KINDS))
    rows = rows_of("trades", [1], price=price, size=size, attribs=attribs)
    (message,) = told(encoder, {"trades": rows}, 0)
    (row,) = message["pieces"][0]["rows"]
    for value, sent in ((row["price"], price), (row["size"], size)):
        assert value is None if not math.isfinite(sent) else value == sent
    assert row["attribs"] == attribs


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["quotes", "trades", "ticks"]), min_size=1, max_size=40))
def test_rows_of_several_families_come_in_the_order_of_their_numbers(families: list[str]) -> None:
    desk = Desk()
    asyncio.run(desk.subscribe("AAPL", "TICKS"))
    encoder = encoder_of(desk, Channel(0, ("quotes", "trades", "ticks"), KINDS, ordered=True))
    rows = {
        family: rows_of(family, [seq for seq, other in enumerate(families, 1) if other == family])
        for family in set(families)
    }
    (message,) = told(encoder, rows, 0)
    seen = [(row["seq"], piece["family"]) for piece in message["pieces"] for row in piece["rows"]]
    assert seen == list(enumerate(families, 1))
    neighbours = [piece["family"] for piece in message["pieces"]]
    assert all(one != other for one, other in pairwise(neighbours))


def test_a_piece_is_for_who_has_its_channel_and_of_the_kinds_it_has(desk: Desk) -> None:
    encoder = encoder_of(
        desk, Channel(0, ("trades",), KINDS), Channel(1, ("trades",), KINDS), Channel(0, ("quotes",), KINDS)
    )
    rows = rows_of("trades", [1, 2, 3, 4], instrument=[0, 1, 0, 1], price=[1.0, 2.0, 3.0, 4.0])
    rows["kind"][2] = Kind.ALL_LAST
    (message,) = told(encoder, {"trades": rows}, 0)
    assert message == {"op": "data", "position": at(100), "pieces": message["pieces"]}
    (piece,) = message["pieces"]
    assert list(piece.items())[:-1] == [
        ("channel", 0), ("symbol", "AAPL"), ("con_id", 1), ("exchange", "SMART"), ("family", "trades"),
    ]  # fmt: skip
    assert [row["price"] for row in piece["rows"]] == [1.0]
    assert [encoder.count(index) for index in range(3)] == [1, 2, 0]
    assert told(encoder, {"trades": rows}, 2) == []


@pytest.mark.parametrize(("unit", "time_ns"), [("us", NS // 1000 * 1000), ("ns", NS)])
def test_fields_that_are_not_wanted_are_null_and_times_are_as_exact_as_wanted(
    desk: Desk, unit: str, time_ns: int
) -> None:
    encoder = encoder_of(desk, Channel(0, ("ticks",), KINDS, fields=("price",), unit=unit))
    rows = rows_of("ticks", [1], tick_type=4, price=1.5, size=7.0, text=1)
    (message,) = told(encoder, {"ticks": rows}, 0)
    (row,) = message["pieces"][0]["rows"]
    assert row == {
        "time_ns": time_ns, "kind": "PRICE", "tick_type": 4, "attribs": None, "text": None, "price": 1.5, "size": None,
    }  # fmt: skip


def test_a_state_is_the_last_row_of_each_key_and_can_be_another_one(desk: Desk) -> None:
    encoder = encoder_of(desk, Channel(0, ("trades", "ticks"), KINDS, ordered=True))
    ticks = rows_of("ticks", [1, 3, 5], tick_type=[1, 2, 1], price=[1.0, 2.0, 3.0])
    told(encoder, {"ticks": ticks, "trades": rows_of("trades", [2, 4], price=[8.0, 9.0])}, 0)
    (state,) = payloads(encoder.snapshot(0, 7, 5))
    assert (state["op"], state["channel"], state["position"]) == ("snapshot", 7, at(5))
    assert [(row["seq"], row["price"]) for row in state["rows"]["ticks"]] == [(3, 2.0), (5, 3.0)]
    assert [row["price"] for row in state["rows"]["trades"]] == [9.0]
    encoder.restart(0, {"trades": rows_of("trades", [6], price=4.0)}, 6)
    (state,) = payloads(encoder.snapshot(0, 7, 6))
    assert state["rows"].keys() == {"trades"}
    assert state["rows"]["trades"][0]["price"] == 4.0
    assert encoder.count(0) == 5


def test_what_was_missed_comes_in_messages_that_say_how_far_they_go(desk: Desk) -> None:
    encoder = encoder_of(desk, Channel(0, ("trades",), KINDS, ordered=True))
    replay = encoder.replay(0, 3, 10)
    parts = [([11, 12], 12), ([13], 9999)]
    frames = [replay.begin(), *(replay.rows({"trades": rows_of("trades", seqs)}, seq) for seqs, seq in parts)]
    messages = payloads(b"".join([*frames, replay.end(9999)]))
    pieces = [piece for message in messages for piece in message["pieces"]]
    assert [[row["seq"] for row in piece["rows"]] for piece in pieces] == [[11, 12], [13]]
    assert {piece["channel"] for piece in pieces} == {3}
    assert [message["position"] for message in messages] == [at(12), at(9999)]


def test_of_a_conflated_past_comes_the_latest_but_of_a_book_every_operation(desk: Desk) -> None:
    encoder = encoder_of(
        desk,
        Channel(0, ("trades",), KINDS, is_conflated=True, ordered=True),
        Channel(0, ("depth",), KINDS, is_conflated=True, ordered=True),
    )
    replay = encoder.replay(0, 0, 0)
    assert replay.rows({"trades": rows_of("trades", [1, 2, 3])}, 3) == b""
    for _ in range(2):  # it is for all who have missed the same
        (message,) = payloads(replay.end(3))
        assert [row["seq"] for row in message["pieces"][0]["rows"]] == [3]
    updates = rows_of("depth", [1, 2, 3], operation=1, side=0, position=[4, 5, 4], price=[1.0, 2.0, 3.0])
    replay = encoder.replay(1, 0, 0)
    (message,) = payloads(replay.rows({"depth": updates}, 3) + replay.end(3))
    assert [row["seq"] for row in message["pieces"][0]["rows"]] == [1, 2, 3]


def test_a_conflated_book_that_ends_a_window_as_it_began_is_no_news_and_harms_no_other(desk: Desk) -> None:
    book = Channel(0, ("depth",), KINDS, is_conflated=True)
    trades = Channel(0, ("trades",), KINDS)
    encoder = encoder_of(desk, book, trades)
    there_and_back = rows_of("depth", [1, 2], operation=[0, 2], side=1, position=0, price=[10.5, np.nan])
    (message,) = told(encoder, {"depth": there_and_back, "trades": rows_of("trades", [3], price=[1.5])}, 0, 1)
    assert [piece["family"] for piece in message["pieces"]] == ["trades"]
    assert told(encoder, {"depth": there_and_back}, 0, 1) == []


def test_a_channel_that_was_removed_is_not_encoded_any_more(desk: Desk) -> None:
    encoder = encoder_of(desk, Channel(0, ("trades",), KINDS), Channel(0, ("trades",), KINDS, ordered=True))
    encoder.remove(0)
    (message,) = told(encoder, {"trades": rows_of("trades", [1])}, 1)
    assert [row["seq"] for row in message["pieces"][0]["rows"]] == [1]


@pytest.mark.parametrize("rows", [None, 0, 5])
def test_a_lag(desk: Desk, rows: int | None) -> None:
    (lag,) = payloads(encoder_of(desk).lag(3, 5, 17, rows, "slow"))
    assert lag == {"op": "lag", "channel": 3, "from_seq": 5, "to_seq": 17, "rows": rows, "reason": "slow"}


def test_two_channels_of_an_instrument_can_be_told_apart(desk: Desk) -> None:
    """However alike they are: pieces of one family, in one message, by each client's own numbers."""
    encoder = encoder_of(
        desk, Channel(0, ("quotes", "trades"), KINDS), Channel(0, ("trades",), KINDS, fields=("price",))
    )
    rows = {"quotes": rows_of("quotes", [1, 3], bid=5.0), "trades": rows_of("trades", [2], price=1.0, size=7.0)}
    encoder.push(rows)
    assert encoder.advance(0, 3)
    for ids in ((0, 1), (4, 9)):
        (message,) = payloads(encoder.splice(Audience(ids, (0, 1), False, set())))
        assert [(piece["channel"], piece["family"]) for piece in message["pieces"]] == [
            (ids[0], "quotes"), (ids[0], "trades"), (ids[0], "quotes"), (ids[1], "trades"),
        ]  # fmt: skip
        assert [piece["rows"][0]["size"] for piece in message["pieces"] if "size" in piece["rows"][0]] == [7.0, None]
