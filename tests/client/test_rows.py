"""Rows in binary messages, made by the encoder of the server: the client's own indices and texts, and what it refuses.

JSON is tested with the client that reads it, in test_stream_client.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ibfast import Kind
from ibfast.client.protocol import StreamClient
from ibfast.client.rows import MOST_TEXTS, BinaryRows, ChannelInfo, JsonRows
from ibfast.client.updates import Arrival, Lag, Texts, updates_of
from ibfast.codec._frame_decoder import MOST_ROWS_OF_A_MESSAGE
from ibfast.codec._frame_encoder import Encoder
from ibfast.codec._splicer import Audience
from ibfast.codec.spec import LAG_REASONS, ChannelSpec, lag_frame, text_frame
from ibfast.errors import ProtocolError
from ibfast.feed._feed import DTYPES

START_NS = 1_770_000_000_000_000_000
LATER_NS = START_NS + 60_000_000_000
SERVER_INSTRUMENT = 3


def payloads(frames: bytes) -> list[bytes]:
    """The messages in complete WebSocket frames of a server."""
    messages = []
    while frames:
        assert frames[0] == 0x82
        head, size = 2, frames[1]
        if size == 126:
            head, size = 4, int.from_bytes(frames[2:4], "big")
        elif size == 127:
            head, size = 10, int.from_bytes(frames[2:10], "big")
        messages.append(frames[head : head + size])
        frames = frames[head + size :]
    return messages


def rows(family: str, seqs: list[int], **values: Any) -> np.ndarray[Any, Any]:
    made = np.zeros(len(seqs), DTYPES[family])
    made["seq"] = seqs
    made["recv_ns"] = START_NS + 1_000_000 * np.array(seqs)
    made["instrument"] = SERVER_INSTRUMENT
    for name, value in values.items():
        made[name] = value
    return made


class Server:
    """One channel of one class, number 0."""

    def __init__(self, *families: str, interval_class: int = 5, **options: Any) -> None:
        self.spec = ChannelSpec(SERVER_INSTRUMENT, families, interval_class=interval_class, **options)
        self.encoder = Encoder(self.spec.span_ns, self.spec.unit_ns, interval_class)
        self.index = self.encoder.add(self.spec, {}, seq=1)
        self.audience = Audience(self.encoder)
        self.audience.open(self.index, 0)

    @property
    def table(self) -> dict[str, Any]:
        return {
            "channel": 0, "epoch": "e", "symbol": "AAPL", "con_id": 265598, "exchange": "SMART", **self.spec.described()
        }  # fmt: skip

    def snapshot(self) -> list[bytes]:
        return payloads(self.encoder.snapshot(self.index, 0, START_NS))

    def windows(self, **families: np.ndarray[Any, Any]) -> list[bytes]:
        self.encoder.push(families)
        messages = []
        while self.encoder.encode(LATER_NS):
            messages += payloads(self.audience.splice())
        return messages


@pytest.fixture
def server() -> Server:
    return Server("quotes", "trades")


@pytest.fixture
def texts() -> Texts:
    texts = Texts()
    texts.id_of("another")  # so that the ids of both sides differ
    return texts


@pytest.fixture
def reader(server: Server, texts: Texts) -> BinaryRows:
    """It has the channel as instrument 7, and its state."""
    reader = BinaryRows(texts)
    reader.open(0, ChannelInfo.of(server.table, 7))
    for message in server.snapshot():
        reader.receive(message)
    return reader


def test_rows_have_the_client_s_own_indices(server: Server, reader: BinaryRows, texts: Texts) -> None:
    (message,) = payloads(text_frame(9, "ARCA"))
    assert reader.receive(message).rows.count == 0
    trades = rows("trades", [2, 4], price=[1.5, 1.25], size=100, kind=Kind.LAST, exchange=9)
    quotes = rows("quotes", [3], bid=1.25, ask=1.5, kind=Kind.BID_ASK)
    *_, window = map(
        reader.receive, server.windows(trades=trades[:1], quotes=quotes) + server.windows(trades=trades[1:])
    )
    assert (window.seq, window.cls, window.snapshot_of, window.lag) == (4, 5, None, None)
    (batch,) = window.rows.batches
    (row,) = batch.rows
    assert (batch.family, batch.rows.dtype, batch.is_snapshot) == ("trades", DTYPES["trades"], False)
    assert (row["instrument"], row["req_id"], row["seq"], row["price"]) == (7, -1, 0, 1.25)
    assert row["recv_ns"] == trades["recv_ns"][1]
    assert texts[row["exchange"]] == "ARCA"
    assert texts[row["conditions"]] == ""


def test_rows_of_several_families_come_in_the_order_of_the_feed(texts: Texts) -> None:
    server = Server("quotes", "trades", span_ns=100_000_000, ordered=True)
    reader = BinaryRows(texts)
    reader.open(0, ChannelInfo.of(server.table, 0))
    trades, quotes = rows("trades", [2, 5], kind=Kind.LAST), rows("quotes", [3, 4, 6], kind=Kind.BID_ASK)
    messages = server.snapshot() + server.windows(trades=trades, quotes=quotes)
    *_, window = map(reader.receive, messages)
    assert [update.seq for update in updates_of(window.rows, ["AAPL"], texts)] == [2, 3, 4, 5, 6]


def test_a_snapshot_is_marked(server: Server, reader: BinaryRows) -> None:
    server.windows(quotes=rows("quotes", [5], bid=1.0, kind=Kind.BID_ASK))
    (snapshot,) = map(reader.receive, server.snapshot())
    assert (snapshot.snapshot_of, snapshot.seq, snapshot.cls) == (0, 5, None)
    (batch,) = snapshot.rows.batches
    assert batch.is_snapshot
    assert batch.rows["bid"].tolist() == [1.0]


@pytest.mark.parametrize("reason", LAG_REASONS)
@pytest.mark.parametrize("count", [None, 0, 3])
def test_a_lag_is_told(reader: BinaryRows, reason: str, count: int | None) -> None:
    (message,) = payloads(lag_frame(0, reason, 5, 9, count))
    assert reader.receive(message).lag == (0, 5, 9, count, reason)


def test_after_a_lag_nothing_is_read_before_the_state(server: Server, reader: BinaryRows) -> None:
    (message,) = payloads(lag_frame(0, "slow", 1, 1))
    reader.receive(message)
    clock, window = server.windows(trades=rows("trades", [2], kind=Kind.LAST))
    reader.receive(clock)
    with pytest.raises(ProtocolError):
        reader.receive(window)


@pytest.mark.parametrize("message", [b"", b"\x00", b"\x20\x09", b"\x85\x00", b"\xff\x00\x00"])
def test_garbage_is_refused(reader: BinaryRows, message: bytes) -> None:
    with pytest.raises(ProtocolError):
        reader.receive(message)


def test_a_text_that_was_not_told_is_refused(server: Server, reader: BinaryRows) -> None:
    (text,) = payloads(text_frame(9, "ARCA"))
    reader.receive(text)
    for exchange in (8, 1000):
        (*_, window) = server.windows(trades=rows("trades", [2 + exchange], kind=Kind.LAST, exchange=exchange))
        with pytest.raises(ProtocolError, match="has not told a text"):
            [*map(reader.receive, payloads(server.audience.clock_frame())), reader.receive(window)]


def test_more_texts_than_there_can_be_are_refused(reader: BinaryRows) -> None:
    (text,) = payloads(text_frame(MOST_TEXTS, "x"))
    with pytest.raises(ProtocolError, match="more than there can be"):
        reader.receive(text)


def test_the_dialects_do_not_mix(reader: BinaryRows, texts: Texts) -> None:
    with pytest.raises(ProtocolError, match="in JSON"):
        reader.receive_data({})
    with pytest.raises(ProtocolError, match="in JSON"):
        reader.receive_snapshot({})
    with pytest.raises(ProtocolError, match="binary data"):
        JsonRows(texts).receive(b"\x80")


def test_a_closed_channel_can_be_opened_anew(server: Server, reader: BinaryRows) -> None:
    reader.close(0)
    reader.open(0, ChannelInfo.of(server.table, 8))
    server.windows(quotes=rows("quotes", [5], bid=1.0, kind=Kind.BID_ASK))
    (snapshot,) = map(reader.receive, server.snapshot())
    assert snapshot.rows.batches[0].rows["instrument"].tolist() == [8]
    reader.close(0)
    with pytest.raises(ProtocolError):
        reader.receive(server.snapshot()[0])


def test_a_client_remembers_what_binary_windows_have_brought(server: Server) -> None:
    client = StreamClient("binary")
    client.subscribe("AAPL", data_type="ALL")

    def begin(**answer: Any) -> dict[str, Any]:
        client.connected()
        client.receive(json.dumps({"op": "welcome", "protocol": 1, "heartbeat_s": 10}))
        request: dict[str, Any] = json.loads(client.take_messages()[0])
        subscribed = {"op": "subscribed", "id": request["id"], "subscription": 1, "channels": [server.table]}
        client.receive(json.dumps(subscribed | answer))
        return request

    assert "resume" not in begin()
    messages = server.snapshot() + server.windows(trades=rows("trades", [2, 6], kind=Kind.LAST, price=1.0))
    output = [item for message in messages for item in client.receive(message)]
    assert sum(item.count for item in output if isinstance(item, Arrival)) == 2
    client.disconnected()
    assert begin(resumed=False)["resume"] == {"epoch": "e", "position": 16 * 6 + 5}
    (lag_message,) = payloads(lag_frame(0, "overrun", 6, 9))
    assert client.receive(lag_message) == [Lag("AAPL", 0, 6, 9, None, "resume")]
    client.disconnected()
    assert "resume" not in begin(resumed=False)


def test_a_window_of_more_rows_than_there_can_be_is_refused() -> None:
    """A row may take a bit, so that a message would become a hundred times as large."""
    server, client = Server("trades", span_ns=1_000_000_000), BinaryRows(Texts())
    client.open(0, ChannelInfo.of(server.table, 0))
    for message in server.snapshot():
        client.receive(message)
    many = rows("trades", [2]).repeat(MOST_ROWS_OF_A_MESSAGE + 1)
    many["seq"] += np.arange(len(many), dtype=np.uint64)
    clock, window = server.windows(trades=many)
    assert len(window) < many.nbytes / 50
    client.receive(clock)
    with pytest.raises(ProtocolError, match="that no server writes"):
        client.receive(window)


def test_texts_are_bounded_by_their_characters() -> None:
    texts = Texts()
    long = [chr(letter) * (1 << 22) for letter in range(65, 70)]
    assert [texts.id_of(text) for text in long] == [2, 3, 4, 5, 1]
    assert texts.id_of(long[0]) == 2
