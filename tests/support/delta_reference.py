"""The second decoder of the stream protocol beside the first: whether they say the same of a message.

The rule of the file: what one reads the other must read, with the same rows; what one refuses the other must refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.spec import ChannelSpec
from ibfast.errors import ProtocolError
from ibfast.feed._feed import DTYPES
from tests.support.delta_streams import messages, plain
from tests.support.stream_reference import ReferenceDecoder, RefusedError


class Reference:
    """The second decoder, as a subscriber of these channels: in their order, or by number."""

    def __init__(self, specs: Sequence[ChannelSpec] | Mapping[int, ChannelSpec]) -> None:
        self.decoder = ReferenceDecoder()
        self.specs = specs if isinstance(specs, Mapping) else dict(enumerate(specs))
        self.news: dict[int, dict[str, list[dict[str, int]]]] = {}
        for number, spec in self.specs.items():
            self.decoder.open(number, spec.described())

    def rows(self, said: dict[str, Any]) -> dict[int, dict[str, list[dict[str, int]]]]:
        """Return the rows of a message in the words of `plain`, by instrument and family."""
        found: dict[int, dict[str, list[dict[str, int]]]] = {}
        for number, family, row in said.get("rows", ()):
            instrument = self.specs[number].instrument
            known = {**row, "instrument": instrument, "req_id": -1}
            ordered = {name: known[name] for name in DTYPES[family].names or ()}
            found.setdefault(instrument, {}).setdefault(family, []).append(ordered)
        return found

    def take(self, frames: bytes) -> None:
        for payload in messages(frames):
            said = self.decoder.decode(payload)
            if said["message"] == "window":
                for instrument, by_family in self.rows(said).items():
                    for family, rows in by_family.items():
                        self.news.setdefault(instrument, {}).setdefault(family, []).extend(rows)


def are_agreed(decoder: FrameDecoder, reference: Reference, payload: bytes) -> bool:
    """Tell whether both decoders read a message, or both refuse it. AssertionError: they do not say the same."""
    try:
        wanted: dict[str, Any] | None = reference.decoder.decode(payload)
    except RefusedError:
        wanted = None
    try:
        said = decoder.decode(payload)
    except ProtocolError:
        assert wanted is None
        try:
            decoder.decode(payload)
        except ProtocolError as error:
            assert "broke before" in str(error)  # noqa: PT017
            return False
        raise AssertionError("a broken stream went on") from None
    assert wanted is not None
    by_instrument: dict[int, dict[str, list[dict[str, int]]]] = {}
    for family, array in said.rows.items():
        for row in plain(array):
            by_instrument.setdefault(row["instrument"], {}).setdefault(family, []).append(row)
    assert by_instrument == reference.rows(wanted)
    return True
