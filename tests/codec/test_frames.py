"""The binary codec: what goes in comes out, to the bit, here and in a second decoder that was written from the spec."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import ChannelSpec, Grids, lag_frame, text_frame
from ibfast.errors import ProtocolError
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES
from tests.support.delta_reference import Reference, are_agreed
from tests.support.delta_streams import (
    FAR_NS,
    MS,
    START_NS,
    Gathered,
    encoded,
    encoder_of,
    expected,
    last_seq,
    message,
    messages,
    plain,
    plain_rows,
    random_rows,
)
from tests.support.stream_reference import ReferenceDecoder

SPANS_NS = (0, 1 * MS, 10 * MS, 250 * MS)
grids = st.builds(Grids, *(st.tuples(st.sampled_from((1, 5, 25, 100)), st.integers(0, 6)) for _ in range(3)))
families = st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=6, unique=True).map(tuple)
randoms = st.integers(0, 1 << 32).map(random.Random)


@st.composite
def channel_lists(draw: st.DrawFn, most: int = 4, **fixed: Any) -> list[ChannelSpec]:
    """Channels of one class, each of an instrument of its own."""
    common = {
        "span_ns": draw(st.sampled_from(SPANS_NS)),
        "unit": draw(st.sampled_from(("us", "ns"))),
        "interval_class": draw(st.integers(0, 15)),
    } | fixed
    return [
        ChannelSpec(
            100 + number,
            draw(families),
            grids=draw(grids),
            ordered=draw(st.booleans()),
            fields=draw(st.sampled_from(((), (), ("price", "bid", "wap"), ("size", "event_ns", "attribs", "text")))),
            **common,
        )
        for number in range(draw(st.integers(1, most)))
    ]


def snapshots(encoder: Encoder, specs: Sequence[ChannelSpec]) -> list[bytes]:
    return [encoder.snapshot(number, number, START_NS) for number in range(len(specs))]


@settings(max_examples=300)
@given(channel_lists(), randoms)
def test_rows_come_back_to_the_bit_in_both_decoders(specs: list[ChannelSpec], rng: random.Random) -> None:
    encoder, audience = encoder_of(specs)
    ours, theirs = Gathered(specs), Reference(specs)
    rows = random_rows(rng, specs, 60, START_NS, 10)
    for frame in (*snapshots(encoder, specs), *encoded(encoder, audience, rows)):
        ours.take(frame)
        theirs.take(frame)
    wanted = {spec.instrument: plain_rows(expected(rows, spec)) for spec in specs}
    wanted = {instrument: by_family for instrument, by_family in wanted.items() if by_family}
    assert ours.news == wanted
    assert theirs.news == wanted
    assert ours.seqs == sorted(ours.seqs)
    assert ours.seqs[-1] == last_seq(rows)


@settings(max_examples=100)
@given(channel_lists(most=6), randoms, st.data())
def test_a_subset_gets_its_channels_and_no_other(
    specs: list[ChannelSpec], rng: random.Random, data: st.DataObject
) -> None:
    """And its numbers may have any gaps."""
    encoder, _ = encoder_of(specs)
    chosen = data.draw(st.lists(st.sampled_from(range(len(specs))), unique=True, min_size=1))
    numbers = sorted(data.draw(st.lists(st.integers(0, 5000), min_size=len(chosen), max_size=len(chosen), unique=True)))
    audience, gathered = Audience(encoder), Gathered()
    for index, number in zip(chosen, numbers, strict=True):
        audience.open(index, number)
        gathered.decoder.open(number, specs[index])
        gathered.take(encoder.snapshot(index, number, 0))
    assert len(audience) == len(chosen)
    rows = random_rows(rng, specs, 60, START_NS, 10)
    for frame in encoded(encoder, audience, rows):
        gathered.take(frame)
    wanted = {specs[index].instrument: plain_rows(expected(rows, specs[index])) for index in chosen}
    assert gathered.news == {instrument: by_family for instrument, by_family in wanted.items() if by_family}


def body(frames: bytes) -> bytes:
    """The pieces of a window's frame."""
    payload = messages(frames)[-1]
    at = 1
    for _ in range(2):
        while payload[at] > 127:
            at += 1
        at += 1
    return payload[at:]


@settings(max_examples=50)
@given(channel_lists(most=5), randoms)
def test_a_frame_is_its_pieces_one_after_the_other(specs: list[ChannelSpec], rng: random.Random) -> None:
    """A channel's piece is the same bytes for everybody, but for the gap in its first three bits."""
    encoder, together = encoder_of(specs)
    alone = [Audience(encoder) for _ in specs]
    for number, audience in enumerate(alone):
        audience.open(number, 0)
    encoder.push(random_rows(rng, specs, 60, START_NS, 10))
    while encoder.encode(FAR_NS):
        spliced, last = b"", -1
        for number, audience in enumerate(alone):
            if frame := audience.splice():
                piece = body(frame)
                spliced += bytes([piece[0] | number - last - 1]) + piece[1:]
                last = number
        assert body(together.splice()) == spliced


@settings(max_examples=100)
@given(channel_lists(), randoms)
def test_who_joins_with_a_snapshot_goes_on_like_everybody(specs: list[ChannelSpec], rng: random.Random) -> None:
    encoder, audience = encoder_of(specs)
    early, reference = Gathered(specs), Reference(specs)
    for frame in snapshots(encoder, specs):
        early.take(frame)
    rows = random_rows(rng, specs, 50, START_NS, 10)
    for frame in encoded(encoder, audience, rows):
        early.take(frame)
    late = Gathered(specs)
    for number, frame in enumerate(snapshots(encoder, specs)):
        (said,) = late.take(frame)
        assert (said.is_snapshot, said.channel, said.time_ns, said.seq) == (True, number, START_NS, last_seq(rows))
        again = reference.decoder.decode(message(frame))
        assert plain_rows(said.rows) == reference.rows(again).get(specs[number].instrument, {})
    late.take(audience.clock_frame())
    early.news.clear()
    more = random_rows(rng, specs, 50, START_NS + 10_000 * MS, last_seq(rows) + 1)
    for frame in encoded(encoder, audience, more):
        early.take(frame)
        late.take(frame)
    assert late.news == early.news
    assert late.news


@settings(max_examples=100)
@given(channel_lists(), randoms, st.data())
def test_grids_may_change_at_any_time(specs: list[ChannelSpec], rng: random.Random, data: st.DataObject) -> None:
    """Also for who joins between the decision and the row that tells it."""
    encoder, audience = encoder_of(specs)
    ours, theirs = Gathered(specs), Reference(specs)
    for frame in snapshots(encoder, specs):
        ours.take(frame)
        theirs.take(frame)
    last = 0
    for batch in range(4):
        for number in range(len(specs)):
            if data.draw(st.booleans()):
                encoder.regrid(number, data.draw(grids))
        joiner, reference = Gathered(specs), Reference(specs)
        joiner.take(audience.clock_frame() if batch else b"")
        reference.take(audience.clock_frame() if batch else b"")
        for frame in snapshots(encoder, specs):
            joiner.take(frame)
            reference.take(frame)
        rows = random_rows(rng, specs, 20, START_NS + batch * 10_000 * MS, last + 1)
        last = last_seq(rows)
        for each in (ours, theirs):
            each.news.clear()
        for frame in encoded(encoder, audience, rows):
            for each in (ours, theirs, joiner, reference):
                each.take(frame)
        wanted = {spec.instrument: plain_rows(expected(rows, spec)) for spec in specs}
        wanted = {instrument: by_family for instrument, by_family in wanted.items() if by_family}
        for each in (ours, theirs, joiner, reference):
            assert each.news == wanted


def test_only_grids_that_differ_are_told_and_once() -> None:
    spec = ChannelSpec(1, ("quotes",), grids=Grids((1, 2), (1, 0), (1, 0)))
    lengths = []
    for new in (spec.grids, Grids((1, 2), (1, 0), (5, 1)), Grids((1, 2), (5, 1), (5, 1))):
        encoder, audience = encoder_of([spec])
        encoder.encode(FAR_NS)
        encoder.regrid(0, new)
        sizes = []
        for first in range(2):
            rows = quotes(1)
            rows["seq"], rows["recv_ns"] = 10 + first, START_NS + first * 10 * MS
            rows["bid"] += first
            sizes.append(sum(map(len, encoded(encoder, audience, {"quotes": rows}))))
        lengths.append(sizes)
    none, one, both = lengths
    assert none[0] < one[0] < both[0]
    assert none[1] == one[1] == both[1]


def test_channels_are_named_when_it_is_time_to_look_at_their_grids() -> None:
    encoder, _ = encoder_of([ChannelSpec(1, ("quotes",)), ChannelSpec(2, ("quotes",), is_conflated=True)])
    named = []
    for count in range(1, 301):
        for instrument in (1, 2):
            row = quotes(1)
            row["instrument"], row["seq"], row["recv_ns"] = (
                instrument,
                2 * count + instrument,
                START_NS + count * 10 * MS,
            )
            encoder.push({"quotes": row})
        while encoder.encode(FAR_NS):
            named += [(count, index) for index in encoder.settling()]
    assert named == [(16, 0), (16, 1), (64, 0), (64, 1), (256, 0), (256, 1)]


@settings(max_examples=50)
@given(channel_lists(), randoms)
def test_a_channel_may_begin_with_a_state(specs: list[ChannelSpec], rng: random.Random) -> None:
    """Rows up to its `seq` are not sent again; the snapshot is the same as if they had been."""
    rows = random_rows(rng, specs, 50, START_NS, 10)
    sent, audience = encoder_of(specs)
    for _ in encoded(sent, audience, rows):
        pass
    given_state = Encoder(specs[0].span_ns, specs[0].unit_ns, specs[0].interval_class)
    for spec in specs:
        own = {family: array[array["instrument"] == spec.instrument] for family, array in rows.items()}
        given_state.add(spec, own, last_seq(rows))
    for number, spec in enumerate(specs):
        one, other = (
            Gathered([spec]).take(encoder.snapshot(number, 0, START_NS))[0] for encoder in (sent, given_state)
        )
        assert plain_rows(one.rows) == plain_rows(other.rows)
        assert other.seq == last_seq(rows)
    given_state.push(rows)
    assert given_state.encode(FAR_NS) == []


@settings(max_examples=200)
@given(channel_lists(most=2), randoms, st.data())
def test_garbage_is_refused_and_nothing_else(specs: list[ChannelSpec], rng: random.Random, data: st.DataObject) -> None:
    """Flipped bits, cut and prolonged messages: both decoders say the same, or refuse."""
    encoder, audience = encoder_of(specs)
    rows = random_rows(rng, specs, 20, START_NS, 10)
    first = encoded(encoder, audience, rows)
    frames = [*snapshots(encoder, specs), audience.clock_frame()]
    if rng.random() < 0.5:
        encoder.regrid(0, data.draw(grids))
    frames += encoded(encoder, audience, random_rows(rng, specs, 20, START_NS + 10_000 * MS, last_seq(rows) + 1))
    assert first
    payloads = [payload for frame in frames for payload in messages(frame)]
    number = data.draw(st.integers(0, len(payloads) - 1))
    bad = bytearray(payloads[number])
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    bad = bad[: data.draw(st.integers(1, len(bad)))] if data.draw(st.booleans()) else bad
    bad += data.draw(st.binary(max_size=3))
    ours, theirs = Gathered(specs), Reference(specs)
    for payload in (*payloads[:number], bytes(bad)):
        if not are_agreed(ours.decoder, theirs, payload):
            return


@settings(max_examples=300)
@given(st.binary(max_size=200), families, st.sampled_from(("", "snapshot", "window")))
def test_noise_is_refused_or_read_but_never_more(noise: bytes, names: tuple[str, ...], behind: str) -> None:
    spec = ChannelSpec(1, names)
    decoder, encoder = FrameDecoder(), Encoder(spec.span_ns)
    decoder.open(0, spec)
    decoder.decode(message(encoder.snapshot(encoder.add(spec), 0, 0)))
    decoder.decode(bytes([0x10]) + bytes(16))
    head = {"": b"", "snapshot": b"\x20\0" + bytes(16), "window": b"\x80\0\0"}[behind]
    with contextlib.suppress(ProtocolError):
        decoder.decode(head + noise)


def quotes(count: int, instrument: int = 1, start_ns: int = START_NS, step_ns: int = MS, seq: int = 1) -> Any:
    rows = np.zeros(count, DTYPES["quotes"])
    rows["seq"] = np.arange(seq, seq + count)
    rows["recv_ns"] = start_ns + step_ns * np.arange(count)
    rows["instrument"], rows["req_id"], rows["kind"] = instrument, -1, 11
    rows["bid"], rows["ask"] = 10 + np.arange(count) / 100, 10.01 + np.arange(count) / 100
    rows["bid_size"] = rows["ask_size"] = 100
    return rows


def test_windows_begin_at_multiples_of_their_length_and_wait_for_their_end() -> None:
    encoder, audience = encoder_of([ChannelSpec(1, ("quotes",))])
    rows = quotes(25)
    encoder.push({"quotes": rows})
    starts, sizes = [], []
    gathered = Gathered([ChannelSpec(1, ("quotes",))])
    gathered.take(encoder.snapshot(0, 0, 0))
    until_ns = START_NS + 20 * MS
    while encoder.encode(until_ns):
        said = gathered.take(audience.splice())[-1]
        starts.append((said.time_ns - START_NS) // MS)
        sizes.append(len(said.rows["quotes"]))
    assert (starts, sizes, encoder.pending) == ([0, 10], [10, 10], 5)
    encoder.push({"quotes": quotes(5, start_ns=START_NS + 25 * MS, seq=26)})
    assert encoder.encode(until_ns + 5 * MS) == []
    assert encoder.encode(until_ns + 10 * MS) == [0]
    assert len(gathered.take(audience.splice())[-1].rows["quotes"]) == 10
    assert (encoder.pending, encoder.seq, encoder.start_ns) == (0, 30, START_NS + 20 * MS)


def test_rows_that_wait_stay_what_they_are_when_more_comes() -> None:
    """They are copied out of arrays that are let go."""
    spec = ChannelSpec(1, ("quotes",), span_ns=250 * MS)
    encoder, audience = encoder_of([spec])
    gathered = Gathered([spec])
    gathered.take(encoder.snapshot(0, 0, 0))
    rows = quotes(2000)
    for first in range(0, 2000, 7):
        encoder.push({"quotes": rows[first : first + 7].copy()})
        while encoder.encode(int(rows["recv_ns"][first])):
            gathered.take(audience.splice())
    while encoder.encode(FAR_NS):
        gathered.take(audience.splice())
    wanted = rows.copy()
    wanted["seq"] = 0
    assert gathered.news[1]["quotes"] == plain(wanted)


def test_without_a_length_every_read_is_a_window() -> None:
    spec = ChannelSpec(1, ("quotes",), span_ns=0, unit="ns")
    encoder, audience = encoder_of([spec])
    rows = quotes(4)
    rows["recv_ns"] = START_NS + np.array([0, 0, 1, 1])
    gathered = Gathered([spec])
    gathered.take(encoder.snapshot(0, 0, 0))
    encoder.push({"quotes": rows})
    sizes = []
    while encoder.encode(0):
        sizes.append(len(gathered.take(audience.splice())[-1].rows["quotes"]))
    assert sizes == [2, 2]


@pytest.mark.parametrize(
    ("times", "seqs", "windows"),
    [
        ([0, 5, 3], [1, 2, 3], 2),
        ([0, 1, 2], [1, 5, 4], 2),
        ([0, 1, 2], [1, 2, 2 + (1 << 41)], 2),
        ([50, 0, 1], [1, 2, 3], 2),
    ],
    ids=["time falls", "seq falls", "seq leaps", "time falls by far"],
)
def test_what_no_window_can_say_begins_a_new_one(times: list[int], seqs: list[int], windows: int) -> None:
    spec = ChannelSpec(1, ("quotes",), ordered=True)
    encoder, audience = encoder_of([spec])
    rows = quotes(3)
    rows["recv_ns"] = START_NS + np.array(times) * MS
    rows["seq"] = seqs
    gathered = Gathered([spec])
    gathered.take(encoder.snapshot(0, 0, 0))
    frames = encoded(encoder, audience, {"quotes": rows})
    for frame in frames:
        gathered.take(frame)
    assert len(frames) == windows
    assert gathered.news[1]["quotes"] == plain(rows)


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    encoder, _ = encoder_of([ChannelSpec(1, ("quotes",))])
    encoder.push({"quotes": quotes(1)})
    assert encoder.encode(START_NS - 3600 * 1000 * MS) == [0]


def test_kinds_and_instruments_that_nobody_wants_are_left_out() -> None:
    spec = ChannelSpec(1, ("quotes",), kinds=frozenset({11}))
    encoder, audience = encoder_of([spec])
    rows = quotes(5)
    rows["instrument"][2:] = 2, 2, 0xFFFFFFFF
    rows["kind"][1] = 9
    trades = np.zeros(1, DTYPES["trades"])
    trades["instrument"], trades["seq"] = 1, 99
    gathered = Gathered([spec])
    gathered.take(encoder.snapshot(0, 0, 0))
    encoder.push({"quotes": rows, "trades": trades, "gaps": np.zeros(1, DTYPES["gaps"])})
    assert encoder.pending == 2
    assert encoder.encode(FAR_NS) == [0]
    gathered.take(audience.splice())
    assert [row["bid"] for row in gathered.news[1]["quotes"]] == [row["bid"] for row in plain(rows[:1])]


def test_several_channels_of_one_instrument() -> None:
    specs = [
        ChannelSpec(1, ("quotes",)),
        ChannelSpec(1, ("trades", "quotes")),
        ChannelSpec(1, ("quotes",), fields=("bid",)),
    ]
    encoder, audience = encoder_of(specs)
    decoder = FrameDecoder()
    for number, spec in enumerate(specs):
        decoder.open(number, ChannelSpec(number, spec.families))
        decoder.decode(message(encoder.snapshot(number, number, 0)))
    encoder.push({"quotes": quotes(1)})
    assert sorted(encoder.encode(FAR_NS)) == [0, 1, 2]
    for payload in messages(audience.splice()):
        said = decoder.decode(payload)
    assert said.rows["quotes"]["instrument"].tolist() == [0, 1, 2]
    assert np.isnan(said.rows["quotes"]["ask"]).tolist() == [False, False, True]


def test_who_wants_a_channel_under_many_numbers_gets_it_under_each() -> None:
    """Its pieces are then more bytes than all that were encoded."""
    spec = ChannelSpec(1, ("trades",), span_ns=10 * MS)
    encoder = Encoder(spec.span_ns)
    index = encoder.add(spec)
    audience, decoder = Audience(encoder), FrameDecoder()
    for channel in range(300):
        audience.open(index, channel)
        decoder.open(channel, ChannelSpec(channel, spec.families))
        decoder.decode(message(encoder.snapshot(index, channel, 0)))
    rows = random_rows(random.Random(1), [spec], 200, START_NS, 1)
    rows["trades"]["recv_ns"] = START_NS
    encoder.push(rows)
    assert encoder.encode(FAR_NS) == [index]
    decoded = [decoder.decode(payload) for payload in messages(audience.splice())]
    (wanted,) = expected(rows, spec).values()
    got = np.concatenate([window.rows["trades"] for window in decoded if "trades" in window.rows])
    for channel in range(300):
        wanted["instrument"] = channel
        assert plain(got[got["instrument"] == channel]) == plain(wanted)


def test_a_removed_channel_is_sent_no_more_even_if_its_index_is_taken_again() -> None:
    encoder, audience = encoder_of([ChannelSpec(1, ("quotes",)), ChannelSpec(2, ("quotes",))])
    encoder.remove(0)
    with pytest.raises(ValueError, match="no channel of index 0"):
        encoder.snapshot(0, 0, 0)
    encoder.push({"quotes": quotes(1)})
    assert encoder.pending == 0
    assert (encoder.add(ChannelSpec(1, ("quotes",))), len(encoder)) == (0, 2)
    encoder.push({"quotes": quotes(1)})
    assert encoder.encode(FAR_NS) == [0]
    assert audience.splice() == b""
    audience.close(0)
    audience.open(0, 0)
    assert encoder.encode(FAR_NS) == []
    assert audience.splice() == b""


def test_rows_that_wait_for_a_removed_channel_go_nowhere() -> None:
    encoder, audience = encoder_of([ChannelSpec(1, ("quotes",))])
    encoder.push({"quotes": quotes(1)})
    encoder.remove(0)
    assert encoder.encode(FAR_NS) == []
    assert audience.splice() == b""


def test_clocks_come_when_they_pay() -> None:
    """The shorter heads that follow are worth their 19 bytes; a connection that joins later gets the last one."""
    spec = ChannelSpec(1, ("quotes",), span_ns=0)
    encoder, audience = encoder_of([spec])
    assert audience.clock_frame() == b""
    frames = encoded(encoder, audience, {"quotes": quotes(20_000, step_ns=200_000)})
    assert 100 < audience.clocks < 400
    never = 20_000 * (len(frames[0]) - 19 + 4)
    assert sum(map(len, frames)) < never
    late = Gathered([spec])
    late.take(encoder.snapshot(0, 0, 0))
    late.take(audience.clock_frame())
    (frame,) = encoded(encoder, audience, {"quotes": quotes(1, start_ns=START_NS + 5000 * MS, seq=30_000)})
    assert late.take(frame)[-1].seq == 30_000
    assert (encoder.seq, encoder.start_ns) == (30_000, START_NS + 5000 * MS)


def test_a_quiet_connection_gets_few_clocks() -> None:
    encoder, audience = encoder_of([ChannelSpec(1, ("quotes",), span_ns=0)])
    frames = encoded(encoder, audience, {"quotes": quotes(1000, step_ns=1000 * MS)})
    assert audience.clocks < 30
    without_clocks = sum(len(messages(frame)[-1]) for frame in frames)
    assert sum(map(len, frames)) < without_clocks + 1000 * 2 + 600


def test_texts_are_named_when_they_are_first_used() -> None:
    specs = [ChannelSpec(1, ("trades",)), ChannelSpec(1, ("trades",), fields=("price", "exchange"))]
    encoder, _ = encoder_of(specs)
    rows = np.zeros(3, DTYPES["trades"])
    rows["instrument"], rows["seq"], rows["exchange"], rows["conditions"] = 1, (1, 2, 3), (7, 7, 70_000), (0, 9, 0)
    rows["recv_ns"] = START_NS + np.arange(3) * 100 * MS
    encoder.push({"trades": rows})
    told = []
    while encoder.encode(FAR_NS):
        told.append(sorted(encoder.new_texts()))
    assert told == [[(0, 7), (1, 7)], [(0, 9)], [(0, 70_000), (1, 70_000)]]
    assert (encoder.texts(0), encoder.texts(1)) == ([7, 9, 70_000], [7, 70_000])
    state = Encoder(10 * MS)
    assert state.texts(state.add(specs[0], {"trades": rows})) == [7, 9, 70_000]
    assert state.new_texts() == []


def test_rare_messages() -> None:
    spec = ChannelSpec(1, ("quotes",))
    encoder, audience = encoder_of([spec])
    decoder, reference = FrameDecoder(), ReferenceDecoder()
    decoder.open(0, spec)
    reference.open(0, spec.described())
    said = decoder.decode(message(text_frame(300, "NASDAQ Börse")))
    assert (said.text, said.rows, said.lag, said.channel) == ((300, "NASDAQ Börse"), {}, None, -1)
    assert reference.decode(message(text_frame(300, "NASDAQ Börse")))["text"] == "NASDAQ Börse"
    (frame,) = encoded(encoder, audience, {"quotes": quotes(1)})
    snapshot = message(encoder.snapshot(0, 0, 5))
    lag = message(lag_frame(0, "overrun", 17, 1 << 63, 3))
    for payload in (snapshot, lag):
        said = decoder.decode(payload)
    assert (said.channel, said.lag) == (0, ("overrun", 17, 1 << 63, 3))
    reference.decode(snapshot)
    said = reference.decode(lag)
    assert (said["from"], said["count"]) == (17, 3)
    clock, window = messages(frame)
    decoder.decode(clock)
    with pytest.raises(ProtocolError, match="no state"):
        decoder.decode(window)
    assert len(text_frame(1, "x" * 70_000)) == 70_000 + 12
    assert message(text_frame(1, "x" * 200))[2:] == b"x" * 200


def test_a_decoder_wants_to_know_channels_first() -> None:
    spec = ChannelSpec(1, ("quotes",))
    encoder, audience = encoder_of([spec])
    (frame,) = encoded(encoder, audience, {"quotes": quotes(1)})
    clock, window = messages(frame)
    snapshot = message(encoder.snapshot(0, 0, 0))
    for payloads, reason in (
        ([snapshot], "not open"), ([clock, window], "no channel"), ([window], "no clock"), ([b"\x55"], "unknown kind"),
        ([b""], "empty"), ([clock[:-1]], "wrong length"), ([b"\x40\1\xff"], "UTF-8"),
    ):  # fmt: skip
        decoder = FrameDecoder()
        for payload in payloads[:-1]:
            decoder.decode(payload)
        with pytest.raises(ProtocolError, match=reason):
            decoder.decode(payloads[-1])
    decoder = FrameDecoder()
    decoder.open(0, spec)
    with pytest.raises(ValueError, match="open already"):
        decoder.open(0, spec)
    with pytest.raises(ValueError, match="one span"):
        decoder.open(1, ChannelSpec(1, ("quotes",), span_ns=0))
    decoder.close(0)
    with pytest.raises(ValueError, match="not open"):
        decoder.close(0)
    with pytest.raises(ProtocolError, match="not open"):
        decoder.decode(snapshot)


def test_what_an_encoder_refuses() -> None:
    encoder = Encoder(10 * MS)
    for bad in ({"span_ns": 0}, {"unit": "ns"}, {"interval_class": 3}):
        with pytest.raises(ValueError, match="those of its encoder"):
            encoder.add(ChannelSpec(1, ("quotes",), **bad))
    with pytest.raises(ValueError, match="instrument is below"):
        encoder.add(ChannelSpec(0xFFFFFFFF, ("quotes",)))
    encoder.add(ChannelSpec(1, ("quotes",)))
    with pytest.raises(ValueError, match="ring's dtype"):
        encoder.push({"quotes": np.zeros(1, DTYPES["trades"])})
    with pytest.raises(ValueError, match="ring's dtype"):
        encoder.add(ChannelSpec(1, ("quotes",)), {"quotes": np.zeros(1, DTYPES["trades"])})
    assert len(encoder) == 1
    for arguments in ((-1,), (1, 1000), (10, 7), (1 << 62, 1), (0, 1000, 16)):
        with pytest.raises(ValueError, match=r"."):
            Encoder(*arguments)
    audience = Audience(encoder)
    with pytest.raises(ValueError, match="no channel of index 5"):
        audience.open(5, 0)
    audience.open(0, 3)
    with pytest.raises(ValueError, match="open already"):
        audience.open(0, 3)
    with pytest.raises(ValueError, match="not open"):
        audience.close(2)
