"""A session without I/O: bytes in, states, events and bytes out, in every dialect and however the bytes are cut.

The gateway's bytes are made here by hand, not by the package's own encoders.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast import Feed
from ibfast.connection.protocol import MAX_REPLY_BYTES, Arrival, Protocol, State
from ibfast.contracts import Stock
from ibfast.errors import ConnectError, NotConnectedError, ProtocolError, UnsupportedError
from ibfast.wire.ids import Incoming
from ibfast.wire.requests import (
    CancelMarketData,
    CurrentTimeInMillisRequest,
    CurrentTimeRequest,
    MarketData,
    MarketDataTypeRequest,
)
from ibfast.wire.responses import (
    CurrentTime,
    ErrorMessage,
    HeadTimestamp,
    ManagedAccounts,
    NextValidId,
    Response,
    Unreadable,
)
from tests.support.streams import (
    TICK_BY_TICK,
    bytes_field,
    framed,
    int_field,
    protobuf_payload,
    text_payload,
)

NEXT_VALID_ID, ERROR, MANAGED_ACCOUNTS, CURRENT_TIME = 9, 4, 15, 49
VERSIONS = (157, 163, 176, 194, 200, 201, 206, 207, 212, 213, 226)
HELLO = b"API\0" + struct.pack(">I", 9) + b"v157..226"
TIME = "20260105 14:30:00 Central European Standard Time"


def reply(version: object, time: str = TIME) -> bytes:
    return framed(f"{version}\0{time}\0".encode())


def next_valid_id(version: int, order_id: int = 7) -> bytes:
    if version >= 213:
        return protobuf_payload(NEXT_VALID_ID, int_field(1, order_id))
    return text_payload(version, NEXT_VALID_ID, 1, order_id)


def managed_accounts(version: int, accounts: str = "DU1,DU2") -> bytes:
    if version >= 207:
        return protobuf_payload(MANAGED_ACCOUNTS, bytes_field(1, accounts))
    return text_payload(version, MANAGED_ACCOUNTS, 1, accounts)


def error(version: int, code: int, message: str = "text", req_id: int = -1) -> bytes:
    if version >= 201:
        return protobuf_payload(ERROR, int_field(1, req_id), int_field(3, code), bytes_field(4, message))
    if version >= 194:
        return text_payload(version, ERROR, req_id, code, message, "", 0)
    return text_payload(version, ERROR, 2, req_id, code, message, *[""] * (version >= 166))


def trade(version: int, price: object) -> bytes:
    return text_payload(version, TICK_BY_TICK, 1, 1, 1_700_000_000, price, 100, 0, "ARCA", "")


def current_time(version: int, time_s: int = 1_700_000_000) -> bytes:
    if version >= 213:
        return protobuf_payload(CURRENT_TIME, int_field(1, time_s))
    return text_payload(version, CURRENT_TIME, 1, time_s)


def start(version: int) -> bytes:
    """What a gateway says until the session is ready."""
    return framed(managed_accounts(version), next_valid_id(version))


def fed(chunks: Iterable[bytes], client_id: int = 5) -> Protocol:
    protocol = Protocol(Feed(1 << 6, max_instruments=4, max_texts=16), client_id)
    for chunk in chunks:
        protocol.receive_data(chunk)
    return protocol


def ready(version: int) -> Protocol:
    protocol = fed([reply(version), start(version)])
    assert protocol.state is State.READY
    protocol.data_to_send()
    protocol.events()
    return protocol


def messages_of(protocol: Protocol) -> list[Response]:
    return [arrival.message for arrival in protocol.events()]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def prices(protocol: Protocol) -> list[float]:
    return list(protocol.feed.trades.reader(start="oldest").read()["price"])


# --- to ready ---


def test_the_first_bytes_are_the_offer() -> None:
    protocol = fed([])
    assert protocol.data_to_send() == HELLO
    assert protocol.data_to_send() == b""
    assert protocol.state is State.HELLO


@pytest.mark.parametrize(
    ("version", "sent"),
    [
        (157, framed(b"71\x002\x005\0\0")),
        (200, framed(b"71\x002\x005\0\0")),
        (201, framed(b"\0\0\0\x472\x005\0\0")),
        (212, framed(b"\0\0\0\x472\x005\0\0")),
        (213, framed(b"\0\0\x01\x0f\x08\x05")),
        (226, framed(b"\0\0\x01\x0f\x08\x05")),
    ],
)
def test_the_version_is_answered_with_the_client_id(version: int, sent: bytes) -> None:
    protocol = fed([])
    protocol.data_to_send()
    protocol.receive_data(reply(version))
    assert protocol.state is State.START
    assert (protocol.server_version, protocol.connection_time) == (version, TIME)
    assert protocol.data_to_send() == sent


@pytest.mark.parametrize("version", range(157, 227))
def test_ready_in_every_version(version: int) -> None:
    protocol = fed([reply(version) + framed(error(version, 2104), managed_accounts(version), next_valid_id(version))])
    assert protocol.state is State.READY
    assert (protocol.accounts, protocol.next_order_id) == (("DU1", "DU2"), 7)
    notice, accounts, order_id = messages_of(protocol)
    assert isinstance(notice, ErrorMessage)
    assert (notice.req_id, notice.code, notice.message) == (-1, 2104, "text")
    assert (accounts, order_id) == (ManagedAccounts(("DU1", "DU2")), NextValidId(7))
    assert protocol.events() == []
    assert protocol.error is None


@pytest.mark.parametrize("version", VERSIONS)
def test_ready_means_both_in_any_order(version: int) -> None:
    for first, second in [(next_valid_id, managed_accounts), (managed_accounts, next_valid_id)]:
        protocol = fed([reply(version), framed(first(version))])
        assert protocol.state is State.START
        protocol.receive_data(framed(error(version, 2106), first(version), current_time(version)))
        assert protocol.state is State.START
        protocol.receive_data(framed(second(version)))
        assert protocol.state is State.READY


@settings(max_examples=60)
@given(st.sampled_from(VERSIONS), st.lists(st.integers(0, 2**20), max_size=20))
def test_whole_bytes_and_chunks_agree(version: int, cuts: list[int]) -> None:
    """The reply, the start, ticks among other messages, a malformed one: all in one stream, cut anywhere."""
    malformed = text_payload(version, NEXT_VALID_ID, 1, "seven")
    data = reply(version) + framed(
        error(version, 2104), trade(version, "1.5"), managed_accounts(version), malformed, next_valid_id(version),
        trade(version, "2.5"), current_time(version), trade(version, "x"), error(version, 2106), trade(version, "3.5"),
    )  # fmt: skip
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    chunked = [data[a:b] for a, b in pairwise(edges)]
    outcomes = []
    for chunks in ([data], bytewise(data), chunked):
        protocol = fed(chunks)
        assert protocol.state is State.READY
        assert prices(protocol) == [1.5, 2.5, 3.5]
        assert protocol.decoder is not None
        assert protocol.decoder.quarantined == 2
        outcomes.append((protocol.events(), protocol.data_to_send(), protocol.decoder.messages))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0][0]) == 6


def test_a_reply_as_long_as_can_be() -> None:
    time = "x" * (MAX_REPLY_BYTES - 5)
    data = reply(176, time) + start(176)
    for chunks in ([data], bytewise(data)):
        protocol = fed(chunks)
        assert (protocol.state, protocol.connection_time) == (State.READY, time)


def test_a_reply_of_any_text() -> None:
    protocol = fed([framed(b"176\x00Mitteleurop\xe4ische Zeit\0")])
    assert (protocol.state, protocol.connection_time) == (State.START, "Mitteleurop\ufffdische Zeit")


# --- failures on the way ---

NOT_A_GATEWAY = "is this the port of TWS"
NOT_ENABLED = "Enable ActiveX and Socket Clients"
FAILURES: dict[str, tuple[bytes, str, str, str]] = {
    "closed at once": (b"", "handshake", "without a reply", NOT_ENABLED),
    "closed in the length": (b"\0\0", "handshake", "in mid-reply", NOT_A_GATEWAY),
    "closed in mid-reply": (reply(176)[:-1], "handshake", "in mid-reply", NOT_A_GATEWAY),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 5000, "handshake", "not a gateway's", NOT_A_GATEWAY),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "handshake", "not a gateway's", NOT_A_GATEWAY),
    "zeros": (b"\0" * 300, "handshake", "not a gateway's", NOT_A_GATEWAY),
    "too long": (framed(b"176\0" + b"x" * MAX_REPLY_BYTES), "handshake", "not a gateway's", NOT_A_GATEWAY),
    "no version": (framed(b"hello\0world\0"), "handshake", "not a gateway's", NOT_A_GATEWAY),
    "negative version": (framed(b"-176\0x\0"), "handshake", "not a gateway's", NOT_A_GATEWAY),
    "no separator": (framed(b"176"), "handshake", "not a gateway's", NOT_A_GATEWAY),
    "empty version": (framed(b"\0\0"), "handshake", "not a gateway's", NOT_A_GATEWAY),
    "too old": (reply(156), "handshake", "speaks server version 156", "update TWS or IB Gateway"),
    "much too old": (reply(38), "handshake", "speaks server version 38", "update TWS or IB Gateway"),
    "too new": (reply(227), "handshake", "speaks server version 227", "update ibfast"),
    "a very long version": (reply("9" * 200, ""), "handshake", "speaks server version 999", "update ibfast"),
    "closed before ready": (reply(176) + framed(next_valid_id(176)), "start", "before it was ready", NOT_ENABLED),
    "client id in use": (reply(176) + framed(error(176, 326)), "start", "client id 5 is in use", "another client_id"),
    "client id in use, protobuf": (reply(226) + framed(error(226, 326)), "start", "client id 5 is in use", "another"),
    "broken frame": (reply(176) + b"\xff\xff\xff\xff", "start", "length is impossible", NOT_A_GATEWAY),
}


@pytest.mark.parametrize("cut", ["whole", "bytewise"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_names_its_stage_and_the_remedy(failure: str, cut: str) -> None:
    data, stage, reason, remedy = FAILURES[failure]
    protocol = fed([data] if cut == "whole" else bytewise(data))
    protocol.receive_eof()
    assert protocol.state is State.CLOSED
    assert isinstance(protocol.error, ConnectError)
    assert protocol.error.stage == stage
    assert reason in protocol.error.reason
    assert remedy in protocol.error.remedy
    assert len(str(protocol.error)) < 600


@pytest.mark.parametrize("failure", FAILURES)
def test_after_a_failure_all_is_ignored(failure: str) -> None:
    protocol = fed([FAILURES[failure][0]])
    protocol.receive_eof()
    protocol.data_to_send()
    protocol.events()
    first = protocol.error
    protocol.receive_data(reply(176) + start(176) + b"\xff" * 1000)
    protocol.receive_eof()
    assert len(protocol.get_buffer(-1)) > 0
    assert (protocol.state, protocol.error, protocol.events(), protocol.data_to_send()) == (
        State.CLOSED, first, [], b"",
    )  # fmt: skip


@settings(max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 2**20))
def test_any_bytes_at_all(data: bytes, cut: int) -> None:
    """Whatever answers, the session waits, goes on, or is closed for a reason; nothing else is raised."""
    protocol = fed([data[: cut % (len(data) + 1)], data[cut % (len(data) + 1) :]])
    protocol.receive_eof()
    assert protocol.state is State.CLOSED
    assert isinstance(protocol.error, ConnectError)


# --- requests ---

CONTRACT = Stock("AAPL")
REQUEST = MarketDataTypeRequest(3)


def test_requests_are_refused_until_ready() -> None:
    for chunks in ([], [reply(176)], [reply(176), framed(next_valid_id(176))]):
        protocol = fed(chunks)
        protocol.data_to_send()
        with pytest.raises(NotConnectedError, match="waiting for"):
            protocol.send(REQUEST)
        assert protocol.data_to_send() == b""


def test_requests_are_refused_when_closed() -> None:
    protocol = ready(176)
    protocol.close()
    with pytest.raises(NotConnectedError, match="closed"):
        protocol.send(REQUEST)
    assert protocol.error is None
    protocol.receive_eof()
    assert protocol.error is None


@pytest.mark.parametrize(
    ("version", "sent"),
    [
        (176, framed(b"59\x001\x003\0", b"2\x002\x009\0")),
        (201, framed(b"\0\0\0\x3b1\x003\0", b"\0\0\0\x022\x009\0")),
        (206, framed(b"\0\0\x01\x03\x08\x03", b"\0\0\0\xca\x08\x09")),
    ],
)
def test_requests_are_sent_in_order_in_the_versions_dialect(version: int, sent: bytes) -> None:
    protocol = ready(version)
    protocol.send(REQUEST)
    protocol.send(CancelMarketData(9))
    assert protocol.data_to_send() == sent
    assert protocol.data_to_send() == b""


def test_what_the_version_lacks_is_not_sent() -> None:
    protocol = ready(196)
    with pytest.raises(UnsupportedError, match="197"):
        protocol.send(CurrentTimeInMillisRequest())
    with pytest.raises(ValueError, match="NUL"):
        protocol.send(MarketData(1, Stock("AA\0PL")))
    assert protocol.data_to_send() == b""
    protocol.send(CurrentTimeRequest())
    assert protocol.data_to_send() == framed(b"49\x001\0")


# --- in use ---


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_says_between_which_records_it_came(version: int) -> None:
    protocol = ready(version)
    protocol.receive_data(framed(current_time(version), trade(version, 1.5), current_time(version)), 9)
    assert protocol.events() == [Arrival(CurrentTime(1_700_000_000), seq, 9) for seq in (0, 1)]
    protocol.receive_data(framed(trade(version, 1.5), current_time(version), trade(version, 1.5)), 10)
    assert [(arrival.seq, arrival.recv_ns) for arrival in protocol.events()] == [(2, 10)]


def read_into(protocol: Protocol, data: bytes, recv_ns: int) -> int:
    """Read as a connection does: in one piece."""
    protocol.get_buffer(-1)[: len(data)] = data
    return protocol.buffer_updated(len(data), recv_ns)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_message_is_handled_before_the_records_behind_it(version: int) -> None:
    protocol = ready(version)
    lost, back = error(version, 1100), error(version, 1102)
    data = framed(trade(version, 1.5), lost, back, trade(version, 2.5), current_time(version), trade(version, 3.5))
    assert read_into(protocol, data, 9) == 2
    seen = [(prices(protocol), [(a.message.code, a.seq) for a in protocol.events()])]
    while protocol.paused:
        protocol.buffer_updated(0, 9)
        codes = [(getattr(a.message, "code", None), a.seq) for a in protocol.events()]
        seen.append((prices(protocol), codes))
    assert seen == [([1.5], [(1100, 1)]), ([1.5], [(1102, 1)]), ([1.5, 2.5, 3.5], [(None, 2)])]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_message_between_two_reads_loses_no_byte(version: int) -> None:
    data = framed(trade(version, 1.5), error(version, 1100), trade(version, 2.5), trade(version, 3.5))
    for cut in range(1, len(data)):
        protocol = ready(version)
        for part in (data[:cut], data[cut:]):
            read_into(protocol, part, 9)
            while protocol.paused:
                protocol.buffer_updated(0, 9)
        assert prices(protocol) == [1.5, 2.5, 3.5]
        assert [arrival.seq for arrival in protocol.events()] == [1]


def test_a_session_that_is_closed_over_an_error_message_reads_no_further() -> None:
    protocol = ready(176)
    read_into(protocol, framed(error(176, 1100), trade(176, 1.5)), 9)
    assert protocol.paused
    protocol.close()
    assert protocol.buffer_updated(0, 9) == 0
    assert not protocol.paused
    assert prices(protocol) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_malformed_message_goes_into_quarantine(version: int) -> None:
    protocol = ready(version)
    bad = text_payload(version, CURRENT_TIME, 1, "noon")
    protocol.receive_data(framed(current_time(version), bad, current_time(version)))
    before, unreadable, after = messages_of(protocol)
    assert before == after == CurrentTime(1_700_000_000)
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.error.field, unreadable.error.value) == ("time_s", "noon")
    assert protocol.state is State.READY
    assert protocol.decoder is not None
    (entry,) = protocol.decoder.take_quarantine()
    assert entry.msg_id == CURRENT_TIME
    assert b"noon" in entry.payload
    assert "time" in entry.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broken_frame_ends_the_session(version: int) -> None:
    data = framed(current_time(version), trade(version, "1.5")) + b"\0\0\0\0" + framed(current_time(version))
    for chunks in ([data], bytewise(data)):
        protocol = ready(version)
        for chunk in chunks:
            protocol.receive_data(chunk)
        assert protocol.state is State.CLOSED
        assert isinstance(protocol.error, ProtocolError)
        assert messages_of(protocol) == [CurrentTime(1_700_000_000)]
        assert prices(protocol) == [1.5]
        first = protocol.error
        protocol.receive_eof()
        assert protocol.error is first


def test_the_end_of_the_stream() -> None:
    protocol = ready(226)
    protocol.receive_data(framed(current_time(226))[:-1])
    protocol.receive_eof()
    assert protocol.state is State.CLOSED
    assert isinstance(protocol.error, NotConnectedError)
    assert protocol.events() == []


def test_a_new_session_is_not_disturbed_by_an_old_one() -> None:
    """The unfinished frame of a lost connection dies with it; the feed goes on."""
    feed = Feed(1 << 6, max_instruments=4, max_texts=16)
    for version, price in [(176, "1.5"), (226, "2.5"), (157, "3.5")]:
        protocol = Protocol(feed)
        protocol.receive_data(reply(version) + start(version) + framed(trade(version, price)))
        assert protocol.state is State.READY
        protocol.receive_data(framed(trade(version, "99"))[:20])
        protocol.receive_eof()
    assert prices(protocol) == [1.5, 2.5, 3.5]
    assert feed.trades.reader(start="oldest").read()["seq"].tolist() == [1, 2, 3]


KNOWN_IDS = sorted({int(msg_id) for msg_id in Incoming} | {0, 112, 150})
FIELDS = st.lists(
    st.sampled_from(["", "0", "1", "-1", "2", "7", "1e400", "x", "99999999999", "DU1,", "20240102", "1.5", "\u20ac"]),
    max_size=30,
)


@settings(max_examples=300)
@given(st.sampled_from(VERSIONS), st.sampled_from(KNOWN_IDS), FIELDS, st.binary(max_size=60), st.booleans())
def test_no_message_breaks_the_session(
    version: int, msg_id: int, fields: list[str], body: bytes, is_binary: bool
) -> None:
    """Well framed nonsense under any id becomes an event, a record or an entry of the quarantine."""
    protocol = ready(version)
    is_protobuf = is_binary and version >= 201
    payload = protobuf_payload(msg_id, body) if is_protobuf else text_payload(version, msg_id, *fields)
    protocol.receive_data(framed(payload, current_time(version)))
    if protocol.state is State.READY:
        assert messages_of(protocol)[-1] == CurrentTime(1_700_000_000)
    else:  # a frame that seems to swallow the next one
        assert isinstance(protocol.error, ProtocolError)


MUTATED = {
    version: framed(managed_accounts(version), next_valid_id(version), error(version, 2104), current_time(version))
    for version in VERSIONS
}


@settings(max_examples=300)
@given(st.sampled_from(VERSIONS), st.integers(0, 2**32))
def test_no_mutation_breaks_the_session(version: int, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(MUTATED[version])
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    protocol = ready(version)
    protocol.receive_data(bytes(data))
    error: Any = protocol.error
    assert protocol.state is State.READY or isinstance(error, ProtocolError)


@pytest.mark.parametrize("body", [b"9\x001\x00first\x00", b"15\x001\x00DU1"])
def test_a_start_that_can_t_be_read_is_named(body: bytes) -> None:
    protocol = fed([reply(176), framed(body)])
    assert protocol.state is State.START
    assert protocol.start_error is not None
    assert protocol.start_error.msg_id == int(body.partition(b"\0")[0])


def test_what_can_t_be_read_is_told_in_its_place_with_its_request() -> None:
    protocol = ready(176)
    protocol.receive_data(framed(b"88\x005\x00", b"88\x006\x00now\x00"))
    unreadable, head = messages_of(protocol)
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.msg_id, unreadable.req_id, unreadable.error.field) == (88, 5, "timestamp")
    assert head == HeadTimestamp(6, "now")
