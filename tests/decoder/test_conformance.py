"""What real gateways sent: every tick-path frame of the captures becomes the records that the official client reads.

The captures stand beside the checkout and are no part of the project; without them these tests are skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.support.decoded import Decoded
from tests.support.official_rows import assert_rows, expected_rows, official_client
from tests.support.streams import (
    PROTOBUF_OFFSET,
    Message,
    framed,
    parse_protobuf,
    parse_text,
)
from tests.support.tick_streams import MAKERS

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
VERSION_OF_TEXT = 165
"""For the few text frames whose version was not recorded."""

pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures beside the checkout")


def captured_rows() -> list[dict[str, Any]]:
    """Return all frames that gateways sent after the handshake, in the order of the files."""
    paths = sorted(CAPTURES.glob("*.jsonl"))
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [
        {**row, "server_version": row["server_version"] or VERSION_OF_TEXT}
        for row in rows
        if row["direction"] == "in" and row["encoding"] != "handshake"
    ]


def tick_path_message(row: dict[str, Any]) -> Message:
    payload = bytes.fromhex(row["payload_hex"])
    return parse_protobuf(payload) if row["encoding"] == "protobuf" else parse_text(row["server_version"], payload)


def by_version(rows: list[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    rows = sorted(rows, key=lambda row: row["server_version"])
    return [(version, list(group)) for version, group in groupby(rows, key=lambda row: row["server_version"])]


def test_tick_path_frames_become_the_official_values() -> None:
    rows = [row for row in captured_rows() if row["msg_id"] in MAKERS]
    seen: Counter[tuple[int, str]] = Counter()
    for server_version, group in by_version(rows):
        messages = [tick_path_message(row) for row in group]
        seen.update((row["msg_id"], row["encoding"]) for row in group)
        with official_client() as client:
            expected = expected_rows(client, server_version, messages)
        decoded = Decoded(server_version).give([framed(*(message.payload for message in messages))])
        assert decoded.quarantine == []
        assert decoded.messages == []
        assert_rows(decoded, expected)
    assert len({msg_id for msg_id, _ in seen}) >= 8


def test_all_other_frames_come_out_whole() -> None:
    for server_version, rows in by_version([row for row in captured_rows() if row["msg_id"] not in MAKERS]):
        payloads = [bytes.fromhex(row["payload_hex"]) for row in rows]
        decoded = Decoded(server_version).give([framed(*payloads)])
        assert decoded.quarantine == []
        assert [(msg_id, is_protobuf) for msg_id, _, is_protobuf in decoded.messages] == [
            (row["msg_id"], row["encoding"] == "protobuf") for row in rows
        ]
        for payload, row, (msg_id, body, is_protobuf) in zip(payloads, rows, decoded.messages, strict=True):
            wire_id = msg_id + PROTOBUF_OFFSET * is_protobuf
            head = b"%d\0" % wire_id if row["id_framing"] == "text" else wire_id.to_bytes(4, "big")
            assert head + body == payload


def test_a_whole_session_in_one_stream() -> None:
    """The frames of one version in their order, ticks among the rest: nothing is lost, and nothing is refused."""
    for server_version, group in by_version(captured_rows()):
        payloads = [bytes.fromhex(row["payload_hex"]) for row in group]
        whole = Decoded(server_version).give([framed(*payloads)])
        data = framed(*payloads)
        assert whole.count == len(payloads)
        assert len(whole.messages) == sum(row["msg_id"] not in MAKERS for row in group)
        by_byte = Decoded(server_version).give(data[i : i + 1] for i in range(len(data)))
        assert by_byte.fingerprint() == whole.fingerprint()
