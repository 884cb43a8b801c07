"""Frames, read back by the library that clients use."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from ibfast.fanout.sockets.frames import DEFLATE_WINDOW_BITS, deflated_text_frame, text_frame


def read(frames: bytes, extensions: list[PerMessageDeflate]) -> list[bytes]:
    reader = StreamReader()
    reader.feed_data(frames)
    reader.feed_eof()
    found = []
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
        try:
            next(parser)
        except StopIteration as done:
            frame: Frame = done.value
        assert (frame.opcode, frame.fin) == (Opcode.TEXT, True)
        found.append(bytes(frame.data))
    return found


@given(st.lists(st.binary(max_size=300), max_size=5))
@example([b"x" * n for n in (125, 126, 65_535, 65_536)])
def test_plain_frames(payloads: list[bytes]) -> None:
    assert read(b"".join(map(text_frame, payloads)), []) == payloads


@given(st.lists(st.binary(max_size=600), max_size=5))
@example([bytes(range(256)) * 300] * 2)
def test_deflated_frames_stand_alone(payloads: list[bytes]) -> None:
    """Every reader that negotiated no context takeover understands them, whatever it has read before."""
    extension = PerMessageDeflate(True, True, 15, DEFLATE_WINDOW_BITS)
    reader = PerMessageDeflate(True, True, DEFLATE_WINDOW_BITS, 15)
    assert extension.local_max_window_bits == DEFLATE_WINDOW_BITS
    frames = [deflated_text_frame(payload) for payload in payloads]
    assert read(b"".join(frames), [reader]) == payloads
    assert read(b"".join(reversed(frames)), [reader]) == payloads[::-1]


def test_what_repeats_itself_becomes_small() -> None:
    payload = b'{"price":231.05,"size":100.0}' * 100
    assert len(deflated_text_frame(payload)) < len(payload) / 20
    assert deflated_text_frame(b"short") == text_frame(b"short")
