"""What every test of malformed messages asks: was this one refused, it alone, and did the stream go on?"""

from __future__ import annotations

from tests.support.decoded import Decoded, decode
from tests.support.streams import (
    TICK_GENERIC,
    framed,
    text_payload,
)

MARKER = 4242


def marker(server_version: int) -> bytes:
    """A message whose record proves that the stream went on."""
    return text_payload(server_version, TICK_GENERIC, 6, MARKER, 49, "1")


def quarantined(server_version: int, payload: bytes) -> tuple[Decoded, str]:
    """Decode the payload between two good messages; it must be refused, alone. Return the reason."""
    before, after = marker(server_version), marker(server_version)
    decoded = decode(framed(before, payload, after), server_version)
    assert decoded.count == 3
    assert decoded.decoder.quarantined == 1
    (entry,) = decoded.quarantine
    assert entry.payload == payload
    assert entry.offset == len(framed(before))
    assert decoded.messages == []
    assert decoded.rows["ticks"]["req_id"].tolist() == [MARKER, MARKER]
    assert all(decoded.rows[ring].size == 0 for ring in ("trades", "quotes", "depth", "bars", "greeks"))
    assert entry.reason
    return decoded, entry.reason
