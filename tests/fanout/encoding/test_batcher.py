"""From rings to frames: each row once and in order for whoever has its channel, whatever cuts the windows."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.positions import seq_of
from ibfast.codec.spec import ChannelSpec
from ibfast.fanout.encoding.batcher import Batcher, Lane, Loss, Seat
from ibfast.fanout.encoding.binary import BinaryDialect
from ibfast.fanout.encoding.channels import Channel
from ibfast.fanout.encoding.dialect import Dialect
from ibfast.fanout.encoding.json import JsonDialect
from ibfast.fanout.encoding.state_cache import Since
from ibfast.records import Kind
from tests.support.fanout_auditor import Truth
from tests.support.fanout_desk import Desk, no_fault

SYMBOLS = ("AAPL", "MSFT")
KINDS = frozenset({Kind.L1_LAST})
AT_ONCE = (1 << 63) - 1


def messages(frames: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(frames):
        length, start = frames[at + 1], at + 2
        if length > 125:
            width = 2 if length == 126 else 8
            length, start = int.from_bytes(frames[start : start + width], "big"), start + width
        found.append(frames[start : start + length])
        at = start + length
    return found


class Reader:
    """An outlet that reads what it gets: an only member of each of its audiences."""

    is_deflated = is_capped = False

    def __init__(self) -> None:
        self.member = self
        self.decoder = FrameDecoder()
        self.rows: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.seqs: list[int] = []

    def take(self, frames: bytes) -> None:
        for message in messages(frames):
            if message.startswith(b"{"):
                said = orjson.loads(message)
                if said["op"] == "data":
                    self.seqs.append(seq_of(said["position"]))
                    for piece in said["pieces"]:
                        self.rows[piece["con_id"] - 1] += [(row["seq"], row["price"]) for row in piece["rows"]]
                continue
            decoded = self.decoder.decode(message)
            if "trades" in decoded.rows and not decoded.is_snapshot:
                self.seqs.append(decoded.seq)
                for row in decoded.rows["trades"]:
                    self.rows[int(row["instrument"])].append((int(row["seq"]), float(row["price"])))


class Office:
    """A batcher, its feed, and readers of channels."""

    def __init__(self, capacity: int = 1 << 12) -> None:
        self.desk = Desk(capacity)
        for symbol in SYMBOLS:
            asyncio.run(self.desk.subscribe(symbol, "TRADES"))
        self.truth = Truth(self.desk)
        self.windows: list[int] = []
        self.losses: list[Loss] = []
        self.batcher = Batcher(
            self.desk.feed, lambda req_ids: req_ids > 0, self._write, set, self.windows.append,
            self.losses.append, no_fault,
        )  # fmt: skip
        self.dialects: tuple[Dialect, ...] = (JsonDialect(self.desk.feed), BinaryDialect(self.desk.feed))

    def _write(self, frames: bytes, audience: Any) -> None:
        for reader in audience.members:
            reader.take(frames)

    def channel(self, symbol: str, interval_ms: int = 10, **options: Any) -> Channel:
        instrument = self.desk.feed.instruments.index(symbol)
        return Channel(instrument, ("trades",), KINDS, interval_ms=interval_ms, ordered=True, **options)

    def read(self, dialect: Dialect, channel: Channel) -> tuple[Reader, Lane, Seat]:
        """A new reader of one channel, with its state."""
        lane, seat = self.batcher.join(dialect, channel, Since(1, 0))
        reader = Reader()
        described = lane.encoder.describe(seat.index)
        if described:
            reader.decoder.open(0, ChannelSpec.from_description({"families": ["trades"], **described}))
        reader.take(lane.encoder.prelude(0))
        reader.take(lane.encoder.snapshot(seat.index, 0, lane.seq))
        audience = lane.admit(reader, [(0, seat.index)])
        reader.take(lane.encoder.greeting(audience))
        return reader, lane, seat

    def trade(self, symbol: str, price: float, recv_ns: int = 0) -> None:
        self.desk.trade(symbol, price, recv_ns=recv_ns)
        self.truth.look()

    def expected(self, symbol: str, after_seq: int = 0) -> list[tuple[int, float]]:
        instrument = self.desk.feed.instruments.index(symbol)
        pairs = zip(self.truth.seqs.get(instrument, []), self.truth.prices.get(instrument, []), strict=True)
        return [pair for pair in pairs if pair[0] > after_seq]


START_NS = 1_700_000_000_000_000_000
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.sampled_from(SYMBOLS), st.integers(-5, 30)),
        st.tuples(st.just("flush"), st.sampled_from([0, 10, 50]), st.integers(-20, 60)),
        st.tuples(st.just("join"), st.sampled_from([0, 10, 50]), st.integers(0, 7)),
    ),
    max_size=60,
)


@settings(max_examples=120)
@given(STEPS)
def test_windows_leave_nothing_out_and_never_reorder_an_instrument(steps: Any) -> None:
    office = Office()
    now_ns, readers = START_NS, []
    for step, what, number in steps:
        if step == "trade":  # the clock may be set back, too
            now_ns += number * 1_000_000
            office.trade(what, float(len(office.expected(what))), now_ns)
        elif step == "flush":
            office.batcher.flush(what, now_ns + number * 1_000_000)
        else:
            symbol, dialect = SYMBOLS[number & 1], office.dialects[number >> 1 & 1]
            joined_seq = office.desk.feed.seq
            reader, lane, _ = office.read(dialect, office.channel(symbol, what, unit=("us", "ns")[number >> 2]))
            assert lane.seq == joined_seq
            readers.append((reader, lane, symbol, joined_seq))
        for reader, lane, symbol, joined_seq in readers:
            rows = reader.rows.get(office.desk.feed.instruments.index(symbol), [])
            expected = office.expected(symbol, joined_seq)
            assert rows == expected[: len(rows)]
            due = [pair for pair in expected if pair[0] <= lane.seq]  # the lane's number is a promise
            assert len(rows) >= len(due)
    for interval_ms in (0, 10, 50):
        office.batcher.flush(interval_ms)
    for reader, _, symbol, joined_seq in readers:
        (rows,) = reader.rows.values() or ([],)
        assert rows == office.expected(symbol, joined_seq)
        assert reader.seqs == sorted(reader.seqs)


@pytest.mark.parametrize("number", [0, 1])
def test_a_channel_is_encoded_once_for_all_who_have_it(number: int) -> None:
    office = Office()
    dialect = office.dialects[number]
    (one, lane, seat), (other, same_lane, same_seat) = (office.read(dialect, office.channel("AAPL")) for _ in range(2))
    assert (lane, seat) == (same_lane, same_seat)
    assert seat.shares == 2
    assert len(lane.audiences) == 1
    office.trade("AAPL", 1.0)
    office.batcher.flush(10)
    assert one.rows == other.rows == {0: office.expected("AAPL")}
    office.batcher.leave(lane, seat)
    office.trade("AAPL", 2.0)
    office.batcher.flush(10)
    assert len(one.rows[0]) == 2


def test_units_of_time_are_lanes_of_their_own() -> None:
    office = Office()
    for dialect in office.dialects:
        assert len({office.read(dialect, office.channel("AAPL", unit=unit))[1] for unit in ("us", "ns")}) == 2


def test_windows_end_only_where_somebody_has_something() -> None:
    office = Office()
    _, lane, seat = office.read(office.dialects[0], office.channel("AAPL", 50))
    _, other_lane, other_seat = office.read(office.dialects[1], office.channel("MSFT", 50))
    assert office.windows == [50]
    office.batcher.leave(lane, seat)
    assert list(office.batcher.windows) == [50]
    office.batcher.leave(other_lane, other_seat)
    assert office.batcher.windows == {}
    office.batcher.flush(50)  # a timer may come late
    office.read(office.dialects[0], office.channel("AAPL", 50))
    assert office.windows == [50, 50]


@pytest.mark.parametrize("number", [0, 1])
def test_what_was_overwritten_is_told_and_the_state_is_the_latest(number: int) -> None:
    office = Office(capacity=16)
    reader, lane, seat = office.read(office.dialects[number], office.channel("AAPL"))
    office.trade("AAPL", 1.0)
    office.batcher.flush(10)
    before = lane.seq
    for price in range(100):
        office.trade("AAPL", float(price))
    office.batcher.flush(10)
    assert office.losses == [Loss(lane, before, (seat,), [])]
    assert lane.seq == office.desk.feed.seq
    assert len(reader.rows[0]) == 1
    assert office.batcher.ledger.is_whole(seat.channel)
    (snapshot,) = messages(lane.encoder.snapshot(seat.index, 0, lane.seq))
    if number:
        decoded = reader.decoder.decode(snapshot)
        assert (decoded.seq, decoded.rows["trades"]["price"].tolist()) == (lane.seq, [99.0])
    else:
        (row,) = orjson.loads(snapshot)["rows"]["trades"]
        assert row["price"] == 99.0
    office.trade("AAPL", 7.0)
    office.batcher.flush(10)
    assert reader.rows[0][1:] == office.expected("AAPL", before)[-1:]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("is_conflated", [False, True])
def test_rows_are_counted_as_the_source_had_them(number: int, is_conflated: bool) -> None:
    office = Office()
    channel = office.channel("AAPL", 10, is_conflated=is_conflated)
    reader, lane, seat = office.read(office.dialects[number], channel)
    for i in range(5):
        office.trade("AAPL", float(i), START_NS + i)
        office.trade("MSFT", float(i), START_NS + i)
    office.batcher.flush(10)
    assert lane.encoder.count(seat.index) == 5
    assert len(reader.rows[0]) == (1 if is_conflated else 5)


def test_a_window_that_has_not_ended_waits_in_binary_and_the_lane_s_number_with_it() -> None:
    office = Office()
    reader, lane, _ = office.read(office.dialects[1], office.channel("AAPL", 50))
    office.trade("AAPL", 1.0, START_NS)
    seq = office.desk.feed.seq
    office.trade("AAPL", 2.0, START_NS + 60_000_000)
    office.batcher.flush(50, START_NS + 61_000_000)
    assert [price for _, price in reader.rows[0]] == [1.0]
    assert lane.seq == seq < office.desk.feed.seq
    office.batcher.flush(50, START_NS + 100_000_000)
    assert [price for _, price in reader.rows[0]] == [1.0, 2.0]
    assert lane.seq == office.desk.feed.seq
    assert office.batcher.windows[50].read(lambda req_ids: req_ids > 0) == ({}, False)
