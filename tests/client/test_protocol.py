"""The client's side of the stream protocol, without a socket: what it asks, makes of answers, and remembers."""

from __future__ import annotations

import contextlib
import json
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast import Contract, Future, GapCause, Kind, Scope
from ibfast.client.protocol import (
    HANDLERS,
    MOST_UNANSWERED,
    MOST_VALUES,
    Answer,
    Closing,
    Later,
    Output,
    StreamClient,
    Wish,
)
from ibfast.client.updates import Arrival, Batch, Gap, Lag, State
from ibfast.codec.positions import CLASSES
from ibfast.contracts import ComboLeg
from ibfast.errors import ProtocolError, StreamError
from ibfast.fanout.messages import Subscribe, parse
from ibfast.feed._feed import DTYPES
from tests.support.stream_peer import CON_ID, EPOCH, at, channel_of, piece, trade


def quote(bid: float = 231.0) -> dict[str, Any]:
    values = {"bid": bid, "ask": bid + 0.02, "bid_size": 100, "ask_size": None, "event_ns": None, "attribs": 0}
    return {"time_ns": 1, "kind": "L1_QUOTE", **values}


class Server:
    """Plays the server to a client, message by message."""

    def __init__(self, client: StreamClient) -> None:
        self.client = client
        self.epoch = EPOCH
        self.output: list[Output] = []

    def connect(self, epoch: str = EPOCH) -> list[dict[str, Any]]:
        """Begin a connection; return what the client asks at once."""
        self.epoch = epoch
        self.client.connected()
        self.say("welcome", protocol=1, server="ibfast", heartbeat_s=10.0, intervals_ms=[0, 10])
        return self.requests()

    def say(self, op: str, **values: Any) -> list[Output]:
        return self.say_text(json.dumps({"op": op, **values}))

    def say_text(self, text: str) -> list[Output]:
        output = self.client.receive(text)
        self.output += output
        return output

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.client.take_messages()]

    def data(self, seq: int, *pieces: dict[str, Any], interval_ms: int = 10) -> list[Output]:
        return self.say("data", position=at(seq, interval_ms), pieces=list(pieces))

    def state(self, seq: int, channel: int = 0, interval_ms: int = 10, **rows: Any) -> list[Output]:
        return self.say("snapshot", channel=channel, position=at(seq, interval_ms), rows=rows)

    def take(self, request: dict[str, Any], number: int = 1, *channels: dict[str, Any], **more: Any) -> list[Output]:
        """Answer a subscribe."""
        assert request["op"] == "subscribe"
        described = channels or [channel_of(epoch=self.epoch)]
        return self.say("subscribed", id=request["id"], subscription=number, channels=described, **more)


@pytest.fixture
def client() -> StreamClient:
    return StreamClient("json")


@pytest.fixture
def server(client: StreamClient) -> Server:
    return Server(client)


@pytest.fixture
def wish(client: StreamClient, server: Server) -> Wish:
    """A subscription that the server has taken, as number 1 with channel 0."""
    wish = client.subscribe("AAPL", data_type="ALL")
    (request,) = server.connect()
    server.take(request)
    return wish


def rows_of(output: list[Output]) -> list[Batch]:
    return [batch for item in output if isinstance(item, Arrival) for batch in item.batches]


# --- what is asked ---


def test_what_is_wanted_is_asked_for_after_the_welcome(client: StreamClient, server: Server) -> None:
    client.subscribe("AAPL", data_type="TRADES", mode=None, interval_ms=50)
    client.connected()
    assert client.take_messages() == []
    assert not client.is_welcome
    (request,) = server.connect()
    assert client.is_welcome
    assert request == {"op": "subscribe", "id": 1, "symbol": "AAPL", "data_type": "TRADES", "interval_ms": 50}


def test_a_contract_is_asked_for_in_its_own_words(client: StreamClient, server: Server) -> None:
    server.connect()
    client.subscribe(Future("ES", "202612", "CME"))
    client.subscribe(Contract(con_id=7, strike=0.0))
    first, second = server.requests()
    assert first["contract"] == {
        "symbol": "ES", "sec_type": "FUT", "last_trade_date": "202612", "exchange": "CME", "currency": "USD",
    }  # fmt: skip
    assert second["contract"] == {"con_id": 7, "strike": 0.0}
    with pytest.raises(ValueError, match="names no instrument"):
        client.subscribe(" ")
    assert server.requests() == []


def test_only_so_many_questions_are_open_at_once(client: StreamClient, server: Server) -> None:
    for _ in range(MOST_UNANSWERED + 5):
        client.subscribe("AAPL")
    requests = server.connect()
    assert len(requests) == MOST_UNANSWERED
    assert server.requests() == []
    server.take(requests[0])
    assert len(server.requests()) == 1


def test_a_subscription_lives_changes_and_ends(client: StreamClient, server: Server) -> None:
    wish = client.subscribe("AAPL")
    assert (wish.state, wish.ticker) == ("PENDING", "AAPL")
    (request,) = server.connect()
    assert server.take(request, 9, channel_of(4, "APPLE")) == [Answer(wish, "subscribe")]
    assert (wish.state, wish.ticker, list(client.instruments)) == ("LIVE", "APPLE", ["APPLE"])
    assert client.instruments.con_id(0) == CON_ID
    assert server.say("state", subscription=9, state="QUIET", reason="closed") == [State("APPLE", 1, "QUIET", "closed")]
    assert (wish.state, wish.reason) == ("QUIET", "closed")
    server.say("state", subscription=9, state="LIVE", reason=None)
    assert (wish.state, wish.reason) == ("LIVE", "")

    client.update(wish, 250)
    (request,) = server.requests()
    assert request == {"op": "update", "id": 2, "subscription": 9, "interval_ms": 250}
    assert server.say("updated", id=2, channels=[channel_of(4, "APPLE", 250)]) == [Answer(wish, "update")]
    assert wish.request["interval_ms"] == 250

    assert client.unsubscribe(wish)
    (request,) = server.requests()
    assert request == {"op": "unsubscribe", "id": 3, "subscription": 9}
    assert rows_of(server.data(4712, piece("trades", trade(), channel=4), interval_ms=250))  # it was under way
    assert server.say("unsubscribed", id=3) == [Answer(wish, "unsubscribe")]
    assert (wish.is_over, wish.state, client.wishes) == (True, "ENDED", ())
    assert not client.unsubscribe(wish)
    with pytest.raises(ProtocolError, match="not open"):
        server.data(4713, piece("trades", trade(), channel=4))


def test_what_is_given_up_before_it_is_sent_is_never_sent(client: StreamClient, server: Server) -> None:
    server.connect()
    wish = client.subscribe("AAPL")
    assert not client.unsubscribe(wish)
    assert server.requests() == []
    assert wish.is_over


def test_what_is_given_up_under_way_is_ended_when_it_is_there(client: StreamClient, server: Server) -> None:
    wish = client.subscribe("AAPL")
    (request,) = server.connect()
    assert client.unsubscribe(wish)
    assert server.requests() == []
    server.take(request)
    (request,) = server.requests()
    assert request["op"] == "unsubscribe"
    server.say("unsubscribed", id=request["id"])
    assert wish.is_over


def test_what_is_given_up_while_it_waits_to_be_asked_again_is_not_asked_again(
    client: StreamClient, server: Server
) -> None:
    wish = client.subscribe("AAPL")
    (request,) = server.connect()
    (later,) = server.say("error", id=request["id"], code="TOO_FAST", message="500 a second")
    assert isinstance(later, Later)
    assert not client.unsubscribe(wish)
    assert wish.is_over
    client.repeat(later)
    assert server.requests() == []


@pytest.mark.parametrize("code", ["TOO_FAST", "NO_GATEWAY", "FORBIDDEN"])
def test_what_is_given_up_under_way_is_over_with_its_refusal(
    client: StreamClient, server: Server, wish: Wish, code: str
) -> None:
    client.disconnected()
    (request,) = server.connect()
    assert client.unsubscribe(wish)
    assert server.say("error", id=request["id"], code=code, message="no") == [Answer(wish, "unsubscribe")]
    assert wish.is_over
    assert server.requests() == []


def test_what_is_given_up_under_way_is_over_with_its_connection(
    client: StreamClient, server: Server, wish: Wish
) -> None:
    client.disconnected()
    server.connect()
    assert client.unsubscribe(wish)
    client.disconnected()
    assert client.take_output() == [Answer(wish, "unsubscribe")]
    assert wish.is_over
    assert server.connect() == []


def test_a_refusal_is_told_with_its_remedy(client: StreamClient, server: Server) -> None:
    wish = client.subscribe("AAPL")
    (request,) = server.connect()
    (answer,) = server.say("error", id=request["id"], code="FORBIDDEN", message="the token does not permit it")
    assert isinstance(answer, Answer)
    assert isinstance(answer.error, StreamError)
    assert answer.error.code == "FORBIDDEN"
    assert str(answer.error).endswith("does not permit it: ask the server's owner for a token that permits it")
    assert wish.error is answer.error
    assert (wish.is_over, client.wishes) == (True, ())
    server.client.disconnected()
    assert server.connect() == []


def test_a_refused_interval_changes_nothing(client: StreamClient, server: Server, wish: Wish) -> None:
    client.update(wish, 7)
    (request,) = server.requests()
    (answer,) = server.say("error", id=request["id"], code="BAD_FIELD", message="interval_ms: …")
    assert isinstance(answer, Answer)
    assert answer.error is not None
    assert "interval_ms" not in wish.request
    assert not wish.is_over


def test_what_came_too_early_is_repeated(client: StreamClient, server: Server) -> None:
    for _ in range(2):
        client.subscribe("AAPL")
    requests = server.connect()
    laters = [server.say("error", id=r["id"], code="TOO_FAST", message="500 a second")[0] for r in requests]
    client.subscribe("MSFT")
    client.ask("ping")
    assert server.requests() == []  # nothing is asked meanwhile
    for later in laters:
        assert isinstance(later, Later)
        client.repeat(later)
        client.repeat(later)
    assert [(r["op"], r.get("symbol")) for r in server.requests()] == [
        ("ping", None), ("subscribe", "MSFT"), ("subscribe", "AAPL"), ("subscribe", "AAPL"),
    ]  # fmt: skip


def test_what_came_too_early_without_saying_which_needs_a_new_connection(server: Server, wish: Wish) -> None:
    assert server.say("error", id=None, code="TOO_FAST", message="500 a second") == [
        Closing("TOO_FAST", "500 a second")
    ]


def test_a_server_that_ends_a_subscription_is_heard(client: StreamClient, server: Server, wish: Wish) -> None:
    (state,) = server.say("ended", subscription=1, code="REFUSED", message="354: no permission")
    assert state == State("AAPL", 1, "ENDED", "REFUSED: 354: no permission")
    assert wish.is_over
    assert isinstance(wish.error, StreamError)
    assert server.say("ended", subscription=1, code="REFUSED", message="") == []


def test_a_snapshot_that_is_done_is_no_error(client: StreamClient, server: Server) -> None:
    wish = client.subscribe("AAPL", mode="snapshot")
    (request,) = server.connect()
    server.take(request)
    (batch,) = rows_of(server.state(5, quotes=[quote()], trades=[]))
    assert batch.is_snapshot
    server.say("ended", subscription=1, code="DONE", message="the state was told")
    assert (wish.is_over, wish.error) == (True, None)


# --- rows ---


def test_rows_are_of_the_ring_s_dtype(server: Server, wish: Wish, client: StreamClient) -> None:
    exchange = trade(exchange="ARCA", conditions="", attribs=2, event_ns=5)
    output = server.data(
        4712, piece("trades", trade(), exchange), piece("quotes", quote()), piece("trades", trade(7.0))
    )
    first, second, third = rows_of(output)
    assert [first.family, second.family, third.family] == ["trades", "quotes", "trades"]
    assert first.rows.dtype == DTYPES["trades"]
    row = first.rows[1]
    assert (row["price"], row["size"], row["kind"], row["recv_ns"]) == (231.05, 100, Kind.L1_LAST, trade()["time_ns"])
    assert (row["instrument"], row["req_id"], row["seq"], row["event_ns"], row["attribs"]) == (0, -1, 0, 5, 2)
    assert client.texts[row["exchange"]] == "ARCA"
    assert client.texts[row["conditions"]] == ""
    assert (second.rows["bid"][0], second.rows["bid_size"][0]) == (231.0, 100.0)
    assert math.isnan(second.rows["ask_size"][0])
    assert third.rows["price"].tolist() == [7.0]
    assert not first.is_snapshot


@pytest.mark.parametrize("family", ["ticks", "depth", "bars", "greeks"])
def test_what_is_absent_in_a_row_is_as_in_a_ring(client: StreamClient, server: Server, family: str) -> None:
    client.subscribe("AAPL")
    (request,) = server.connect()
    server.take(request, 1, channel_of(families=[family]))
    (batch,) = rows_of(server.data(1, piece(family, {"time_ns": 1, "kind": "PRICE", "seq": 9})))
    row = batch.rows[0]
    for name in DTYPES[family].names or ():
        if DTYPES[family][name].kind == "f":
            assert np.isnan(row[name]), name
    assert row["seq"] == 9
    for name, absent in (("tick_type", -1), ("position", -1), ("operation", 255), ("side", 255), ("text", 0)):
        if name in (DTYPES[family].names or ()):
            assert row[name] == absent


doubles = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(doubles, doubles)), st.booleans())
def test_values_arrive_to_the_bit(values: list[tuple[float, float]], is_snapshot: bool) -> None:
    client = StreamClient("json")
    server = Server(client)
    client.subscribe("AAPL")
    (request,) = server.connect()
    server.take(request)
    rows = [trade(price) | {"size": size} for price, size in values]
    output = server.state(1, trades=rows) if is_snapshot else server.data(1, piece("trades", *rows))
    received = [(row["price"], row["size"]) for batch in rows_of(output) for row in batch.rows]
    assert np.array(received).tobytes() == np.array(values).tobytes()


# --- what is told ---


def test_a_gap_is_told_in_the_feed_s_words(server: Server, wish: Wish) -> None:
    numbers = {"recovered": False, "first_seq": 5, "last_seq": 0, "first_ns": 6, "last_ns": 0}
    (gap,) = server.say("gap", channel=0, scope="FARM", cause="FARM_BROKEN", **numbers)
    assert gap == Gap("AAPL", 0, Scope.FARM, GapCause.FARM_BROKEN, False, 5, 0, 6, 0)
    (gap,) = server.say("gap", channel=None, scope=int(Scope.LINK), cause=int(GapCause.LINK_LOST), **numbers)
    assert gap == Gap("", -1, Scope.LINK, GapCause.LINK_LOST, False, 5, 0, 6, 0)


def test_a_lag_is_told_with_its_range(server: Server, wish: Wish) -> None:
    assert server.say("lag", channel=0, from_seq=5, to_seq=9, rows=3, reason="slow") == [
        Lag("AAPL", 0, 5, 9, 3, "slow")
    ]
    assert server.say("lag", channel=0, from_seq=9, to_seq=11, rows=None, reason="overrun") == [
        Lag("AAPL", 0, 9, 11, None, "overrun")
    ]


def test_being_slowed_is_told(server: Server, wish: Wish) -> None:
    assert server.say("slowed", subscription=1, interval_ms=50) == [State("AAPL", 1, "SLOWED", interval_ms=50)]
    assert wish.slowed_to_ms == 50
    server.client.disconnected()
    (request,) = server.connect()
    assert "interval_ms" not in request  # what was asked for is asked for again


def test_the_end_of_a_session_is_told(server: Server, wish: Wish) -> None:
    assert server.say("closing", code="SHUTDOWN", message="the server stops") == [
        Closing("SHUTDOWN", "the server stops")
    ]


def test_what_a_newer_server_says_besides_is_left_alone(server: Server, wish: Wish) -> None:
    assert server.say("weather", sky="blue") == []
    assert server.say("heartbeat", time_ns=1, positions=[at(99, 500)], moon="full") == []
    assert server.say("song", id=9) == []
    assert server.say("state", subscription=77, state="LIVE") == []


# --- lies ---

DATA = '{"op": "data", "position": 18, "pieces": []}'
SNAPSHOT = '{"op": "snapshot", "channel": 0, "position": 18, "rows": {}}'
LAG = '{"op": "lag", "channel": 0, "from_seq": 1, "to_seq": 2, "reason": "slow"}'
GAP = '{"op": "gap", "channel": 0, "scope": "FARM", "cause": "FARM_BROKEN", "recovered": false, "first_seq": 0}'
LIES = [
    "", "null", "[]", "5", '"welcome"', "{}", '{"op": ', "[" * 100_000, '{"op": "data"}', '{"op": "welcome"}',
    '{"op": "welcome", "protocol": 1, "heartbeat_s": 10}', SNAPSHOT.replace("18", "19"), SNAPSHOT.replace("18", "18.0"),
    '{"op": "heartbeat"}', '{"op": "heartbeat", "positions": [-1]}', '{"op": "pong", "id": 1, "positions": 5}',
    DATA.replace("[]", "[{}]"),
    DATA.replace("18", "-1"), DATA.replace("18", "true"), DATA.replace("18", "18.5"), DATA.replace("[]", "5"),
    SNAPSHOT.replace("{}", "[]"),
    SNAPSHOT.replace("0,", "1,"), SNAPSHOT.replace("0,", "[],"), LAG.replace("0", "1"), LAG.replace('"slow"', "5"), GAP,
    '{"op": "subscribed", "id": 77, "subscription": 2, "channels": []}',
    '{"op": "subscribed", "id": [], "channels": []}', '{"op": "unsubscribed", "id": 77}', '{"op": "updated"}',
    '{"op": "error", "id": null, "code": "BAD_MESSAGE"}', '{"op": "error", "id": 1}', GAP.replace("FARM", "MOON"),
    GAP.replace("0,", "5,"), '{"op": "ended", "subscription": "1"}', '{"op": "closing", "code": 5}',
    '{"op": "slowed", "subscription": 1, "interval_ms": "fast"}',
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
def test_a_server_that_lies_is_left(server: Server, wish: Wish, lie: str) -> None:
    with pytest.raises(ProtocolError):
        server.say_text(lie)


@pytest.mark.parametrize(
    "row",
    [
        {"price": "231"}, {"price": []}, {"size": True | 2**2000}, {"kind": "NEWS"}, {"kind": 2**9}, {"exchange": 5},
        {"time_ns": 2**80}, {"attribs": -1}, {"seq": 1.5e300}, {"attribs": 10.0},
        {"time_ns": 10.0}, {"time_ns": True}, {"time_ns": "now"}, None, 5, "row",
    ],
)  # fmt: skip
def test_a_row_that_can_t_be_is_a_lie(server: Server, wish: Wish, row: Any) -> None:
    whole = trade() | row if isinstance(row, dict) else row
    with pytest.raises(ProtocolError):
        server.data(1, piece("trades", whole))


@pytest.mark.parametrize(
    "table",
    [
        {"channel": 0}, {"channel": -1}, {"families": ["moons"]}, {"families": 5}, {"symbol": None}, {"con_id": "x"},
        {"class": None}, {"class": 16}, {"class": -1}, {"epoch": None}, {"epoch": 5}, {"exchange": None},
    ],
)  # fmt: skip
def test_a_channel_that_can_t_be_is_a_lie(client: StreamClient, server: Server, wish: Wish, table: Any) -> None:
    client.subscribe("MSFT")
    (request,) = server.requests()
    with pytest.raises(ProtocolError):
        server.take(request, 2, channel_of(1) | table)


BOMBS = {
    "values": '{"op": "data", "pieces": [' + "[]," * (MOST_VALUES // 2) + "[]]}",
    "rows": '{"op": "data", "pieces": [{"rows": [' + "{}," * (MOST_VALUES // 2) + "{}]}]}",
    "numbers": '{"op": "news", "of": [' + "1," * MOST_VALUES + "1]}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_message_that_would_become_much_larger_is_not_read(server: Server, wish: Wish, bomb: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="more than 2,097,152 values"):
            server.client.receive(bomb)
        assert tracemalloc.get_traced_memory()[1] < len(bomb)
    finally:
        tracemalloc.stop()


def test_more_channels_than_a_subscription_has_are_a_lie(client: StreamClient, server: Server, wish: Wish) -> None:
    client.subscribe("MSFT")
    (request,) = server.requests()
    with pytest.raises(ProtocolError, match="2 channels"):
        server.take(request, 2, channel_of(1), channel_of(2))


@pytest.mark.parametrize("label", ["x" * 257, "new"])
def test_a_table_that_outlives_the_connection_is_bounded(
    client: StreamClient, server: Server, wish: Wish, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibfast.client.updates.MOST_INSTRUMENTS", 1 if label == "new" else 9)
    client.subscribe("MSFT")
    (request,) = server.requests()
    with pytest.raises(ProtocolError):
        server.take(request, 2, channel_of(1, symbol=label))
    assert list(client.instruments) == ["AAPL"]


def test_long_words_of_a_server_are_cut(server: Server, wish: Wish) -> None:
    (state,) = server.say("state", subscription=1, state="LIVE\x1b" + "x" * 100_000, reason="because\n" * 100_000)
    assert isinstance(state, State)
    assert (len(state.state) < 100, len(state.reason) < 12_000, state.reason.isprintable()) == (True, True, True)
    (closing,) = server.say("closing", code="x" * 100_000, message="\r\n" * 100_000)
    assert isinstance(closing, Closing)
    assert (len(closing.code) < 100, len(closing.message) < 12_000) == (True, True)


def test_two_subscriptions_of_one_number_are_a_lie(client: StreamClient, server: Server, wish: Wish) -> None:
    client.subscribe("MSFT")
    (request,) = server.requests()
    with pytest.raises(ProtocolError, match="two subscriptions"):
        server.take(request, 1, channel_of(1))


@pytest.mark.parametrize("message", ["welcome", b"\x80", '{"op": "data"}'])
def test_the_first_word_is_welcome(client: StreamClient, message: Any) -> None:
    client.connected()
    with pytest.raises(ProtocolError):
        client.receive(message)


def test_another_protocol_is_refused_with_the_remedy(client: StreamClient) -> None:
    client.connected()
    with pytest.raises(ProtocolError, match="protocol 2: use an ibfast of its release"):
        client.receive('{"op": "welcome", "protocol": 2, "heartbeat_s": 10}')


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(ValueError, match="'xml'"):
        StreamClient("xml")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.sampled_from(["id", "channel", "seq", "rows", "pieces", "channels", "subscription", "code", "scope"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner), max_leaves=8)


@given(values, st.sampled_from(sorted(HANDLERS)))
def test_garbage_ends_in_an_error_or_in_nothing(said: Any, op: str) -> None:
    client = StreamClient("json")
    server = Server(client)
    client.subscribe("AAPL")
    (request,) = server.connect()
    server.take(request)
    message = {**said, "op": op} if isinstance(said, dict) else {"op": op, "id": said, "rows": said, "pieces": said}
    with contextlib.suppress(ProtocolError):
        server.say_text(json.dumps(message))


# --- coming back ---


def test_it_comes_back_to_where_it_was(client: StreamClient, server: Server, wish: Wish) -> None:
    server.state(100)
    server.data(105, piece("trades", trade()))
    client.disconnected()
    assert wish.state == "RECONNECTING"
    (request,) = server.connect()
    assert request["resume"] == {"epoch": EPOCH, "position": at(105)}
    assert server.take(request, 1, resumed=True) == [State("AAPL", 1, "RESUMED"), Answer(wish, "subscribe")]
    client.disconnected()
    (request,) = server.connect()  # nothing has come meanwhile
    assert request["resume"] == {"epoch": EPOCH, "position": at(105)}


def test_what_another_has_seen_is_not_what_it_has_seen(client: StreamClient, server: Server) -> None:
    client.subscribe("AAPL")
    client.subscribe("MSFT", interval_ms=250)
    first, second = server.connect()
    server.take(first, 1, channel_of(0))
    server.take(second, 2, channel_of(1, "MSFT", 250))
    server.state(100)
    server.state(100, 1, 250)
    server.data(200, piece("trades", trade()))
    server.data(150, piece("trades", trade(), channel=1), interval_ms=250)
    client.disconnected()
    first, second = server.connect()
    assert [one["resume"]["position"] for one in (first, second)] == [at(200), at(150, 250)]
    # The first one's windows tell nothing of what the second, which comes back after them, has of the time before.
    server.take(first, 1, channel_of(0), resumed=True)
    server.data(300, piece("trades", trade()))
    server.take(second, 2, channel_of(1, "MSFT", 10), resumed=True)
    client.disconnected()
    first, second = server.connect()
    assert [one["resume"]["position"] for one in (first, second)] == [at(300), at(150)]


def test_after_an_end_without_a_remainder_the_server_s_lag_is_told_once(
    client: StreamClient, server: Server, wish: Wish
) -> None:
    server.state(100)
    client.disconnected()
    (request,) = server.connect("another")
    assert request["resume"] == {"epoch": EPOCH, "position": at(100)}
    assert server.take(request, 1, resumed=False, reason="another epoch") == [Answer(wish, "subscribe")]
    (lag,) = server.say("lag", channel=0, from_seq=0, to_seq=50, rows=None, reason="overrun")
    assert lag == Lag("AAPL", 0, 0, 50, None, "resume")
    (arrival,) = server.state(50, quotes=[quote()])
    assert isinstance(arrival, Arrival)
    client.disconnected()
    (request,) = server.connect("another")
    assert request["resume"] == {"epoch": "another", "position": at(50)}


def test_a_lag_that_the_server_does_not_tell_is_told_here(client: StreamClient, server: Server, wish: Wish) -> None:
    server.state(100)
    client.disconnected()
    (request,) = server.connect()
    server.take(request, 1, resumed=False)
    lag, _ = server.state(150, quotes=[quote()])
    assert lag == Lag("AAPL", 0, 0, 150, None, "resume")


def test_what_was_not_told_before_the_next_end_is_still_missing(
    client: StreamClient, server: Server, wish: Wish
) -> None:
    server.state(100)
    client.disconnected()
    (request,) = server.connect("another")
    server.take(request, 1, resumed=False)
    client.disconnected()
    (request,) = server.connect("another")
    assert request["resume"] == {"epoch": EPOCH, "position": at(100)}


def test_what_is_cut_off_before_its_first_state_has_a_lag(client: StreamClient, server: Server, wish: Wish) -> None:
    client.disconnected()
    (request,) = server.connect()
    assert "resume" not in request
    server.take(request)
    (lag,) = server.state(150)
    assert lag == Lag("AAPL", 0, 0, 150, None, "resume")


def test_what_begins_with_an_empty_feed_comes_back_to_its_beginning(
    client: StreamClient, server: Server, wish: Wish
) -> None:
    server.state(0)
    client.disconnected()
    (request,) = server.connect()
    assert request["resume"] == {"epoch": EPOCH, "position": at(0)}


def test_after_a_lag_there_is_nothing_to_go_on_from_until_the_state_has_come(
    client: StreamClient, server: Server, wish: Wish
) -> None:
    server.state(100)
    server.say("lag", channel=0, from_seq=100, to_seq=110, rows=None, reason="slow")
    server.data(500)
    client.disconnected()
    (request,) = server.connect()
    assert "resume" not in request


def test_a_heartbeat_says_that_all_has_come(client: StreamClient, server: Server, wish: Wish) -> None:
    server.state(100)
    server.say("heartbeat", time_ns=1, positions=[at(150, 250), at(130)])
    client.disconnected()
    (request,) = server.connect()
    assert request["resume"]["position"] == at(130)


def test_another_interval_keeps_what_was_seen(client: StreamClient, server: Server, wish: Wish) -> None:
    server.state(100)
    server.data(120, piece("trades", trade()))
    client.update(wish, 250)
    (request,) = server.requests()
    server.say("updated", id=request["id"], channels=[channel_of(interval_ms=250)])
    server.data(900, interval_ms=250)
    client.disconnected()
    (request,) = server.connect()
    assert request["resume"]["position"] == at(120)
    assert "interval_ms" not in request  # the epoch is of the interval before
    server.take(request, 1, resumed=True)
    (request,) = server.requests()
    assert (request["op"], request["interval_ms"]) == ("update", 250)


def test_what_is_asked_at_the_end_is_done_at_the_next_beginning(client: StreamClient, server: Server) -> None:
    kept, left = client.subscribe("AAPL"), client.subscribe("MSFT")
    first, second = server.connect()
    server.take(first, 1, channel_of(0))
    server.take(second, 2, channel_of(1, "MSFT"))
    client.update(kept, 250)
    client.unsubscribe(left)
    server.requests()
    client.disconnected()
    assert client.take_output() == [Answer(kept, "update"), Answer(left, "unsubscribe")]
    assert left.is_over
    (request,) = server.connect()
    assert (request["symbol"], request["interval_ms"]) == ("AAPL", 250)


def test_an_interval_that_is_wanted_while_it_comes_back_is_asked_for_then(
    client: StreamClient, server: Server, wish: Wish
) -> None:
    client.disconnected()
    (request,) = server.connect()
    client.update(wish, 250)
    assert client.take_output() == [Answer(wish, "update")]
    server.take(request)
    (request,) = server.requests()
    assert (request["op"], request["interval_ms"]) == ("update", 250)


def test_a_snapshot_is_not_resumed(client: StreamClient, server: Server) -> None:
    client.subscribe("AAPL", mode="snapshot")
    (request,) = server.connect()
    server.take(request)
    server.state(100)
    client.disconnected()
    (request,) = server.connect()
    assert "resume" not in request


@pytest.mark.parametrize("code", ["NO_GATEWAY", "TOO_MANY"])
def test_a_refusal_that_need_not_last_ends_nothing_that_has_lived(
    client: StreamClient, server: Server, wish: Wish, code: str
) -> None:
    client.disconnected()
    (request,) = server.connect()
    (later,) = server.say("error", id=request["id"], code=code, message="later")
    assert isinstance(later, Later)
    assert later.after_s == 5.0
    assert not wish.is_over
    assert code in wish.reason
    client.repeat(later)
    (request,) = server.requests()
    server.take(request)
    assert wish.state == "LIVE"


def test_a_refusal_that_lasts_ends_what_has_lived_and_is_told(client: StreamClient, server: Server, wish: Wish) -> None:
    client.disconnected()
    (request,) = server.connect()
    state, _ = server.say("error", id=request["id"], code="FORBIDDEN", message="no more")
    assert isinstance(state, State)
    assert (state.state, state.subscription) == ("ENDED", 1)
    assert isinstance(wish.error, StreamError)


def test_instruments_stay_what_they_are(client: StreamClient, server: Server) -> None:
    client.subscribe("MSFT")
    client.subscribe("AAPL")
    first, second = server.connect()
    server.take(first, 1, channel_of(0, "MSFT"))
    server.take(second, 2, channel_of(1))
    client.disconnected()
    first, second = server.connect("another")
    server.take(second, 1, channel_of(0))
    server.take(first, 2, channel_of(1, "MSFT"))
    (batch,) = rows_of(server.data(1, piece("trades", trade(), channel=0)))
    assert client.instruments[batch.rows["instrument"][0]] == "AAPL"
    assert list(client.instruments) == ["MSFT", "AAPL"]


# --- nothing is lost untold ---

INTERVALS = {"AAPL": 10, "MSFT": 250, "SPY": 10}
WHOLE = 1000
"""More messages than a client needs to come back."""


class Model:
    """A server with three subscriptions in two classes, which sends every row in the end or says that it does not."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.epoch = "0"
        self.seq = 0
        self.rows: dict[str, list[int]] = {symbol: [] for symbol in INTERVALS}
        self.sent = dict.fromkeys(INTERVALS.values(), 0)

    def window(self, symbols: set[str], interval_ms: int) -> None:
        """Have a row of each of these, and then end a window of one class."""
        for symbol in sorted(symbols):
            self.seq += 1
            self.rows[symbol].append(self.seq)
        pieces = []
        for symbol in (symbol for symbol in INTERVALS if INTERVALS[symbol] == interval_ms):
            news = [row for row in self.rows[symbol] if row > self.sent[interval_ms]]
            if news:
                pieces.append(piece("trades", *map(trade, news), channel=list(INTERVALS).index(symbol)))
        self.sent[interval_ms] = self.seq
        if pieces and self.server.client.is_welcome:
            self.server.data(self.seq, *pieces, interval_ms=interval_ms)

    def attach(self, most: int) -> None:
        """Have the client come back; it is cut off again after so many messages."""
        for _ in zip(range(most), self._answers(), strict=False):
            pass
        if most < WHOLE:
            self.server.client.disconnected()

    def _answers(self) -> Iterator[None]:
        """Answer its questions; pause after every message."""
        for number, request in enumerate(self.server.connect(self.epoch)):
            symbol, resume = request["symbol"], request.get("resume")
            is_resumed = resume is not None and resume["epoch"] == self.epoch
            seen = resume["position"] // CLASSES if is_resumed else 0
            interval_ms = INTERVALS[symbol]
            sent = self.sent[interval_ms]
            self.server.take(
                request, number, channel_of(number, symbol, interval_ms, epoch=self.epoch), resumed=is_resumed
            )
            yield
            if not is_resumed:
                self.server.state(sent, number, interval_ms)
            yield
            for row in self.rows[symbol] if is_resumed else ():
                if seen < row <= sent:
                    self.server.data(row, piece("trades", trade(row), channel=number), interval_ms=interval_ms)
                    yield


windows = st.lists(st.tuples(st.sets(st.sampled_from(sorted(INTERVALS))), st.sampled_from([10, 250])), max_size=4)
absences = st.tuples(windows, st.booleans(), windows, st.lists(st.integers(1, 14), max_size=3))
"""What happens before it is cut off; whether the server starts anew; what happens meanwhile; when it is cut again."""


@settings(max_examples=400)
@given(st.lists(absences, max_size=4))
def test_every_row_comes_once_or_is_told_as_left_out(absences: list[Any]) -> None:
    client = StreamClient("json")
    model = Model(Server(client))
    for symbol, interval_ms in INTERVALS.items():
        client.subscribe(symbol, interval_ms=interval_ms)
    model.attach(WHOLE)
    for before, is_restart, meanwhile, attempts in absences:
        for window in before:
            model.window(*window)
        client.disconnected()
        model.epoch += "'" * is_restart
        for window in meanwhile:
            model.window(*window)
        for most in attempts:
            model.attach(most)
        model.attach(WHOLE)
    output = model.server.output
    for symbol, interval_ms in INTERVALS.items():
        batches = [batch for batch in rows_of(output) if client.instruments[batch.rows["instrument"][0]] == symbol]
        got = [int(price) for batch in batches for price in batch.rows["price"]]
        assert got == sorted(set(got)), "a row came twice, or out of order"
        lags = [item for item in output if isinstance(item, Lag) and item.ticker == symbol]
        for row in set(model.rows[symbol]) - set(got):
            assert row > model.sent[interval_ms] or any(lag.from_seq < row <= lag.to_seq for lag in lags), row


def test_a_combo_is_asked_for_as_a_server_reads_it(client: StreamClient, server: Server) -> None:
    legs = ComboLeg(101, 1, "SELL", "NYMEX"), ComboLeg(102, 2, "BUY", "NYMEX")
    combination = Contract(symbol="NG", sec_type="BAG", exchange="SMART", currency="USD", combo_legs=legs)
    server.connect()
    client.subscribe(combination)
    (request,) = server.requests()
    read = parse(json.dumps(request))
    assert isinstance(read, Subscribe)
    assert read.contract == combination
