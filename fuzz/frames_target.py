"""What must hold for any messages of the stream protocol: the compiled decoder and a second one agree on every one.

The rule of the file: plain checks, no fuzzer. The first byte of an input chooses the channels (those of a file of
tests/support/vectors); the rest are messages, each behind its length, so that a fuzzer need not guess it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from fuzz.target import payloads_of
from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.spec import ChannelSpec
from tests.support.delta_reference import Reference, are_agreed

VECTORS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parents[1] / "tests" / "support" / "vectors").glob("*.json"))
}
CHANNELS = [
    {
        channel["channel"]: ChannelSpec.from_description({**channel, "instrument": channel["channel"]})
        for channel in vector["channels"]
    }
    for vector in VECTORS.values()
]


def input_of(name: str) -> bytes:
    """Return the input that stands for the messages of a file of vectors."""
    messages = [bytes.fromhex(message["hex"]) for message in VECTORS[name]["messages"]]
    return bytes([list(VECTORS).index(name)]) + b"".join(struct.pack(">H", len(each)) + each for each in messages)


def check(data: bytes) -> None:
    """Assert all that holds for any input."""
    channels = CHANNELS[(data or b"\0")[0] % len(CHANNELS)]
    decoder, reference = FrameDecoder(), Reference(channels)
    for number, spec in channels.items():
        decoder.open(number, spec)
    for payload in payloads_of(data[1:]):
        if not are_agreed(decoder, reference, payload):
            return
