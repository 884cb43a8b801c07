"""Messages of real gateways, off the tick path: read with the values that the official client's decoder gives.

The recordings stand beside the checkout, not in it; without them there is nothing to test here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibfast.sim import codec
from ibfast.wire import protobuf, request_bytes, response_bytes, responses
from ibfast.wire.ids import Incoming
from ibfast.wire.protobuf_ids import INCOMING_MESSAGES, INCOMING_PROTOBUF_SINCE
from tests.support.message_samples import normalized, official_calls
from tests.support.oracles import NEW_CLIENT, Oracle
from tests.support.payloads import split_id

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures"
# Recorded without their server version; the layouts are those of this one.
UNTOLD_VERSION = 173
TICK_PATH = {
    Incoming.TICK_PRICE,
    Incoming.TICK_SIZE,
    Incoming.MARKET_DEPTH,
    Incoming.MARKET_DEPTH_L2,
    Incoming.TICK_OPTION_COMPUTATION,
    Incoming.TICK_GENERIC,
    Incoming.TICK_STRING,
    Incoming.REAL_TIME_BARS,
    Incoming.HISTORICAL_DATA_UPDATE,
    Incoming.TICK_BY_TICK,
}


def recorded(direction):
    rows = []
    for path in sorted(CAPTURES.glob("*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            row = json.loads(line)
            if row["direction"] == direction and row["encoding"] != "handshake":
                version = row["server_version"] or UNTOLD_VERSION
                payload = bytes.fromhex(row["payload_hex"])
                rows.append((row["msg_id"], pytest.param(version, payload, id=f"{path.stem}:{number}:{row['msg_id']}")))
    return rows


FROM_GATEWAY = [row for msg_id, row in recorded("in") if msg_id not in TICK_PATH]
FROM_CLIENT = [row for _, row in recorded("out")]
pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="no recordings beside the checkout")


@pytest.fixture(scope="module")
def official():
    with Oracle("oracle_client.py", NEW_CLIENT) as oracle:
        yield oracle


@pytest.mark.parametrize(("server_version", "payload"), FROM_GATEWAY)
def test_events_are_those_of_the_official_decoder(official, server_version, payload):
    msg_id, body, is_protobuf = split_id(payload, server_version)
    message = response_bytes.decode(msg_id, body, is_protobuf, server_version)
    if isinstance(message, responses.Other):
        assert message.msg_id == msg_id
        if is_protobuf:
            assert message.fields == official.ask(ask="parse", message=INCOMING_MESSAGES[msg_id], body=body.hex())
        else:
            assert "".join(field + "\0" for field in message.fields) == body.decode()
        return
    shown = normalized(official.ask(ask="receive", server_version=server_version, payload=payload.hex()))
    assert shown == official_calls(message, server_version, is_protobuf)


@pytest.mark.parametrize(("server_version", "payload"), FROM_GATEWAY)
def test_real_gateways_send_protobuf_from_the_version_that_we_know(server_version, payload):
    msg_id, _, is_protobuf = split_id(payload, server_version)
    if server_version >= 201:
        assert is_protobuf == (server_version >= INCOMING_PROTOBUF_SINCE[msg_id])


@pytest.mark.parametrize(("server_version", "payload"), FROM_CLIENT)
def test_requests_are_read_and_written_again(official, server_version, payload):
    msg_id, body, is_protobuf = split_id(payload, server_version)
    request = codec.decode_request(payload, server_version)
    if isinstance(request, codec.UnknownRequest):
        assert request.msg_id == msg_id
        assert msg_id not in {layout.msg_id for layout in request_bytes.LAYOUTS.values()}
        return
    again = request_bytes.encode(request, server_version)
    if not is_protobuf:
        assert list(map(same_number, again.split(b"\0"))) == list(map(same_number, payload.split(b"\0")))
        return
    assert again == payload
    message = request_bytes.LAYOUTS[type(request)].message
    assert official.ask(ask="parse", message=message, body=body.hex()) == protobuf.decode(message, body)


def same_number(field):
    """Return what a field says: a client may write a number with or without a point."""
    try:
        return float(field)
    except ValueError:
        return field
