"""The fixed messages mean the same for ever: what encoder and decoder would forget together, these notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.spec import ChannelSpec
from ibfast.errors import ProtocolError
from tests.support.delta_streams import plain
from tests.support.delta_vectors import FOLDER, fields, said
from tests.support.stream_reference import ReferenceDecoder, RefusedError

FILES = sorted(FOLDER.glob("*.json"))


def content(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def reference(vector: dict[str, Any]) -> ReferenceDecoder:
    decoder = ReferenceDecoder()
    for channel in vector["channels"]:
        decoder.open(channel["channel"], channel)
    return decoder


def ours(vector: dict[str, Any]) -> FrameDecoder:
    """A decoder that has the channel's number where instruments stand."""
    decoder = FrameDecoder()
    for channel in vector["channels"]:
        decoder.open(channel["channel"], ChannelSpec.from_description({**channel, "instrument": channel["channel"]}))
    return decoder


def test_there_are_vectors() -> None:
    assert {path.stem for path in FILES} == {
        "ordinary",
        "hostile",
        "gaps",
        "joiner",
        "conflated",
        "rare",
        "lags",
        "grids",
        "books",
        "full_book",
        "states",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_second_decoder_reads_them(path: Path) -> None:
    vector = content(path)
    decoder = reference(vector)
    for message in vector["messages"]:
        assert json.loads(json.dumps(said(decoder.decode(bytes.fromhex(message["hex"]))))) == message["says"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_decoder_reads_them(path: Path) -> None:
    vector = content(path)
    decoder = ours(vector)
    for message in vector["messages"]:
        payload, says = bytes.fromhex(message["hex"]), message["says"]
        decoded = decoder.decode(payload)
        rows = {name: iter(plain(array)) for name, array in decoded.rows.items()}
        order = decoded.order if len(rows) > 1 else bytes(sum(map(len, decoded.rows.values())))
        found = []
        for place in order:
            family = list(rows)[place]
            row = next(rows[family])
            assert row.pop("req_id") == -1
            found.append([row.pop("instrument"), family, fields(family, row)])
        assert found == says.get("rows", [])
        assert decoded.is_snapshot == (says["message"] == "snapshot")
        if says["message"] in ("window", "snapshot"):
            assert (str(decoded.time_ns), str(decoded.seq)) == (says["time_ns"], says["seq"])
        if says["message"] == "lag":
            assert decoded.lag == (says["reason"], int(says["from"]), int(says["to"]), says["count"])
            assert decoded.channel == says["channel"]
        assert decoded.text == ((says["id"], says["text"]) if says["message"] == "text" else None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_to_be_refused_is_refused(path: Path) -> None:
    vector = content(path)
    for refused in vector["refused"]:
        decoder, second = ours(vector), reference(vector)
        for message in vector["messages"]:
            decoder.decode(bytes.fromhex(message["hex"]))
            second.decode(bytes.fromhex(message["hex"]))
        with pytest.raises(ProtocolError):
            decoder.decode(bytes.fromhex(refused))
        with pytest.raises(RefusedError):
            second.decode(bytes.fromhex(refused))
